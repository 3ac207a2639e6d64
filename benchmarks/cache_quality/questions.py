"""Pairs of questions that are labelled: whether one answer serves both.

Our own are pairs.tsv. Those of fow-cache come with its PyPI package. Quora's pairs are not part of the repository,
since their terms do not say that they may be: give the path of a copy (see docs/benchmarks/cache_quality.md).
"""

import csv
import gzip
import hashlib
import io
import json
import random
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

OWN = Path(__file__).with_name("pairs.tsv")
REREAD = Path(__file__).with_name("reread.tsv")
_GOOD = ("same-words", "paraphrase")
_SEED = 7
_SHARES = {"train": 0.5, "calibrate": 0.2}


@dataclass(frozen=True, slots=True)
class Pair:
    kind: str
    """The kind of near miss or of rewording."""
    one: str
    other: str
    same: bool


@dataclass(frozen=True, slots=True)
class Split:
    train: Sequence[Pair]
    calibrate: Sequence[Pair]
    test: Sequence[Pair]


def own(half: str = "both") -> list[Pair]:
    """Our near misses and rewordings. The guard was written with the "seen" half in view; nobody looked at results of
    the "unseen" half before it was done."""
    pairs = []
    for line in OWN.read_text(encoding="utf-8").splitlines():
        kind, one, other = line.split("\t")
        if half in ("both", "seen" if zlib.crc32(one.encode()) % 2 == 0 else "unseen"):
            pairs.append(Pair(kind, one, other, kind in _GOOD))
    return pairs


def fow() -> list[Pair]:
    """The questions of fow-cache. Raises ImportError without the package."""
    import fow_cache

    lines = (Path(fow_cache.__file__).parent / "data" / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    rows = map(json.loads, filter(None, lines))
    return [Pair(row["category"], row["a"], row["b"], row["same_answer"]) for row in rows]


def key(pair: Pair) -> str:
    """What stands for a pair in reread.tsv, which does not have its text."""
    return hashlib.sha256(f"{pair.one}\n{pair.other}".encode()).hexdigest()[:16]


def reread() -> dict[str, bool]:
    """Pairs of Quora's whose label was checked by reading: by key, whether one answer serves both. Only pairs that the
    verifier would serve although their label says "different" were read, and a sample of those whose label agrees."""
    if not REREAD.exists():
        return {}
    lines = REREAD.read_text(encoding="utf-8").splitlines()
    return {name: verdict == "same" for name, verdict in (line.split("\t") for line in lines)}


class Chains:
    """Texts that pairs connect, directly or over others: union-find with path halving."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def of(self, text: str) -> str:
        """The text that stands for all of its chain."""
        parents = self._parents
        while parents.setdefault(text, text) != text:
            parents[text] = parents[parents[text]]
            text = parents[text]
        return text

    def join(self, one: str, other: str) -> None:
        self._parents[self.of(one)] = self.of(other)


def quora(path: Path) -> Split:
    """Split so that no question of one part is in another, nor any that a chain of pairs connects with it."""
    pairs = _read(path)
    chains = Chains()
    for pair in pairs:
        chains.join(pair.one, pair.other)
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(chains.of(pair.one), []).append(pair)
    names = sorted(groups)
    random.Random(_SEED).shuffle(names)
    parts: dict[str, list[Pair]] = {"train": [], "calibrate": [], "test": []}
    done = 0
    for name in names:
        share = done / len(pairs)
        part = "train" if share < _SHARES["train"] else "calibrate" if share < sum(_SHARES.values()) else "test"
        parts[part].extend(groups[name])
        done += len(groups[name])
    return Split(**parts)


def _read(path: Path) -> list[Pair]:
    """The file of zilliztech/GPTCache (`similiar_qqp_full.json.gz`, a tar file in truth), or Quora's own table."""
    content = path.read_bytes()
    if path.suffix == ".tsv":
        rows = csv.DictReader(io.StringIO(content.decode("utf-8")), delimiter="\t")
        return [Pair("quora", row["question1"], row["question2"], row["is_duplicate"] == "1") for row in rows]
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    if path.name.endswith(".gz"):
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            member = next(entry for entry in archive if entry.isfile())
            opened = archive.extractfile(member)
            assert opened is not None
            content = opened.read()
    return [Pair("quora", row["text_a"], row["text_b"], bool(row["label"])) for row in json.loads(content)]
