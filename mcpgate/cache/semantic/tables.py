"""Words that exclude each other, from groups.txt, and WordNet's opposites and synonyms, from files that
benchmarks/cache_quality/wordnet.py made."""

import functools
import gzip
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mcpgate.cache.semantic.words import lemma

_FOLDER = Path(__file__).parent
_LONGEST_PHRASE = 3


@dataclass(frozen=True, slots=True)
class Tables:
    opposites: Mapping[str, frozenset[str]]
    """From a lemma to those of its opposites."""
    meanings: Mapping[str, frozenset[int]]
    """From a lemma to the numbers of its meanings. Words that share one are synonyms."""
    members: Mapping[str, tuple[tuple[int, str], ...]]
    """From a lemma, or lemmas joined by _, to the groups that have it, each with its member's first name."""
    strict: frozenset[int]
    """Groups of which both questions must use the same words."""

    def groups(self, lemmas: list[str]) -> dict[int, frozenset[str]]:
        """The words of each group that a text uses. A longer phrase hides the shorter ones in it."""
        found: dict[int, set[str]] = {}
        at = 0
        while at < len(lemmas):
            for length in range(min(_LONGEST_PHRASE, len(lemmas) - at), 0, -1):
                names = self.members.get("_".join(lemmas[at : at + length]))
                if names is not None:
                    for group, name in names:
                        found.setdefault(group, set()).add(name)
                    at += length
                    break
            else:
                at += 1
        return {group: frozenset(names) for group, names in found.items()}

    def opposed(self, ours: Iterable[str], theirs: frozenset[str]) -> bool:
        return any(self.opposites.get(word, frozenset()) & theirs for word in ours)

    def synonym(self, word: str, others: Iterable[str]) -> bool:
        """Whether a word shares a meaning with one of others."""
        own = self.meanings.get(word)
        return own is not None and any(own & self.meanings.get(other, frozenset()) for other in others)


@functools.cache
def tables() -> Tables:
    """Read once. Takes some 200 ms."""
    opposites: dict[str, set[str]] = {}
    for line in _lines("opposites"):
        one, other = map(lemma, line.split())
        if one != other:
            opposites.setdefault(one, set()).add(other)
            opposites.setdefault(other, set()).add(one)
    meanings: dict[str, set[int]] = {}
    for number, line in enumerate(_lines("synonyms")):
        for word in line.split():
            meanings.setdefault(lemma(word), set()).add(number)
    members: dict[str, list[tuple[int, str]]] = {}
    strict = set()
    lines = (_FOLDER / "groups.txt").read_text(encoding="utf-8").splitlines()
    for group, line in enumerate(line for line in lines if line and not line.startswith("#")):
        if line.startswith("!"):
            strict.add(group)
        for member in line.removeprefix("!").split():
            names = ["_".join(map(lemma, name.split("_"))) for name in member.split("=")]
            for name in names:
                members.setdefault(name, []).append((group, names[0]))
    return Tables(
        {word: frozenset(others) for word, others in opposites.items()},
        {word: frozenset(numbers) for word, numbers in meanings.items()},
        {name: tuple(groups) for name, groups in members.items()},
        frozenset(strict),
    )


def _lines(name: str) -> list[str]:
    lines = gzip.decompress((_FOLDER / f"{name}.txt.gz").read_bytes()).decode().splitlines()
    return [line for line in lines if not line.startswith("#")]
