"""Numbers that say how alike two questions are: what the verifier weighs. Symmetric in the two."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mcpgate.cache.semantic.facts import Facts
from mcpgate.cache.semantic.tables import tables
from mcpgate.cache.semantic.words import STOP, lemma

NAMES = (
    "model cosine", "table cosine", "weighted overlap", "unmatched most", "unmatched least", "rarest unmatched",
    "unexplained most", "unexplained least", "rarest unexplained", "unmatched words most", "unmatched words least",
    "aligned mean", "aligned least", "costliest word", "substitution", "length ratio", "length", "content words",
    "word overlap", "pair overlap", "letter overlap", "common order", "same question word", "both ask yes or no",
    "shared groups", "groups of one", "same modality", "same first", "same last", "stop word overlap", "same names",
)  # fmt: skip
GROWS = (
    1, 1, 1, -1, -1, -1,
    -1, -1, -1, -1, -1,
    1, 1, -1, 0, 0, 0, 0,
    0, 0, 1, 1, 1, 0,
    0, -1, 1, 0, 0, 0, 0,
)  # fmt: skip
"""Whether the probability may only grow (1) or only fall (-1) with each."""
_ENGLISH_ENDINGS = 5
"""Letters at the start that forms of a word share which `lemma` keeps apart: pay, payment; install, installation."""


@dataclass(frozen=True, slots=True)
class View:
    """A question as the verifier sees it."""

    facts: Facts
    table: Any
    """Vector of the static table, unit length."""
    mean: Any
    """Vector of the model, unit length."""
    words: Sequence[str]
    """Those that say something."""
    vectors: Any
    """A row of unit length for each of them."""


def features(one: View, other: View, rarity: Mapping[str, float]) -> list[float]:
    """`rarity`: how much a lemma says, from 0 to about 10; unknown ones are as rare as the rarest."""
    a, b = set(one.facts.content), set(other.facts.content)
    rarest = rarity[""]

    def weight(word: str) -> float:
        return rarity.get(word, rarest)

    only_a, only_b = _unmatched(a, b), _unmatched(b, a)
    left_a = [word for word in only_a if not tables().synonym(word, only_b)]
    left_b = [word for word in only_b if not tables().synonym(word, only_a)]
    sums = sorted(sum(map(weight, words)) for words in (only_a, only_b))
    left = sorted(sum(map(weight, words)) for words in (left_a, left_b))
    union = sum(map(weight, a | b)) or 1.0
    counts = sorted((len(only_a), len(only_b)))
    letters_a, letters_b = _grams(one.facts.plain), _grams(other.facts.plain)
    pairs_a, pairs_b = set(pairwise(one.facts.lemmas)), set(pairwise(other.facts.lemmas))
    groups_a, groups_b = one.facts.groups, other.facts.groups
    lengths = sorted((len(one.facts.lemmas), len(other.facts.lemmas)))
    return [
        float(one.mean @ other.mean),
        float(one.table @ other.table),
        sum(map(weight, a & b)) / union,
        sums[1], sums[0], max(map(weight, [*only_a, *only_b]), default=0.0),
        left[1], left[0], max(map(weight, [*left_a, *left_b]), default=0.0),
        counts[1], counts[0],
        *_alignment(one, other, weight, set(only_a) | set(only_b)),
        lengths[0] / (lengths[1] or 1), lengths[0], min(len(a), len(b)),
        _share(set(one.facts.lemmas), set(other.facts.lemmas)),
        _share(pairs_a, pairs_b),
        _share(letters_a, letters_b),
        _common_order(one.facts.lemmas, other.facts.lemmas),
        one.facts.asks == other.facts.asks,
        one.facts.yes_no + other.facts.yes_no,
        len(groups_a.keys() & groups_b.keys()),
        len(groups_a.keys() ^ groups_b.keys()),
        one.facts.modality == other.facts.modality,
        one.facts.content[:1] == other.facts.content[:1],
        one.facts.content[-1:] == other.facts.content[-1:],
        _share(STOP.intersection(one.facts.lemmas), STOP.intersection(other.facts.lemmas)),
        one.facts.names == other.facts.names,
    ]  # fmt: skip


def _unmatched(ours: set[str], theirs: set[str]) -> list[str]:
    """Words of ours without a form of the same word among theirs."""
    starts = {word[:_ENGLISH_ENDINGS] for word in theirs if len(word) >= _ENGLISH_ENDINGS}
    return [word for word in ours - theirs if word[:_ENGLISH_ENDINGS] not in starts]


def _share(a: set[Any] | frozenset[Any], b: set[Any] | frozenset[Any]) -> float:
    return len(a & b) / (len(a | b) or 1)


def _grams(text: str) -> set[str]:
    text = f" {text} "
    return {text[at : at + 3] for at in range(len(text) - 2)}


def _common_order(a: Sequence[str], b: Sequence[str]) -> float:
    """The longest sequence of words in both, as a share of the longer question."""
    a, b = a[:64], b[:64]
    row = [0] * (len(b) + 1)
    for word in a:
        before = 0
        for at, other in enumerate(b, 1):
            before, row[at] = row[at], before + 1 if word == other else max(row[at], row[at - 1])
    return row[-1] / (max(len(a), len(b)) or 1)


def _alignment(one: View, other: View, weight: Any, unmatched: set[str]) -> tuple[float, float, float, float]:
    """How near each word of each question is to one of the other's: the weighted mean, the least, the greatest distance
    times weight, and the least among words that only one has."""
    if not len(one.words) or not len(other.words):
        return 0.0, 0.0, 10.0, 0.0
    near = one.vectors @ other.vectors.T
    total = scaled = costliest = 0.0
    least = substitution = 1.0
    for words, best in ((one.words, near.max(1).tolist()), (other.words, near.max(0).tolist())):
        for word, cosine in zip(words, best, strict=True):
            word = lemma(word)
            own = weight(word)
            total += own
            scaled += own * cosine
            least = min(least, cosine)
            costliest = max(costliest, own * (1 - cosine))
            if word in unmatched:
                substitution = min(substitution, cosine)
    return (scaled / total if total else float(near.max(1).mean())), least, costliest, substitution
