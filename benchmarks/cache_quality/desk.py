"""A help desk that gets 10,000 questions, some much more often than others, each in one of its wordings.

Subjects are sets of questions that labels of Quora's pairs connect as the same; pairs labelled as different put near
misses among them. Every question that no stored answer serves is answered at a price, and the answer stored.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.cache_quality.questions import Chains, Pair
from benchmarks.cache_quality.readings import Readings
from mcpgate.cache.semantic.index import Index
from mcpgate.cache.semantic.semantic import NEAR, Semantic

_QUESTIONS, _SUBJECTS, _SEED = 10_000, 3_000, 3
_EXPONENT = 0.9
"""Of Zipf's law: the n-th subject is asked for n to the minus so much as often as the first."""
_CALL_USD = 0.00475
"""An answer of 400 tokens to 300, at $10 and $2.50 a million."""
_WIDE = 10
"""Stored questions that are looked at."""


@dataclass(slots=True)
class Count:
    exact: int = 0
    right: int = 0
    wrong: int = 0


def subjects(pairs: Sequence[Pair]) -> list[list[str]]:
    """Questions by subject, the subjects with most wordings first."""
    chains = Chains()
    for pair in pairs:
        if pair.same:
            chains.join(pair.one, pair.other)
    found: dict[str, list[str]] = {}
    for text in sorted({text for pair in pairs for text in (pair.one, pair.other)}):
        found.setdefault(chains.of(text), []).append(text)
    return sorted(found.values(), key=lambda texts: (-len(texts), texts[0]))


def traffic(pairs: Sequence[Pair]) -> list[tuple[int, str]]:
    """Questions in the order in which they come, each with its subject's number."""
    chance = random.Random(_SEED)
    some = subjects(pairs)[:_SUBJECTS]
    chance.shuffle(some)
    weights = [(place + 1) ** -_EXPONENT for place in range(len(some))]
    numbers = chance.choices(range(len(some)), weights, k=_QUESTIONS)
    return [(number, chance.choice(some[number])) for number in numbers]


def serve(asked: Sequence[tuple[int, str]], readings: Readings, hit: Callable[[str, str], bool]) -> Count:
    """`hit`: whether the answer to a stored question, the second, serves the first."""
    count, index = Count(), Index(len(asked))
    stored: dict[str, tuple[int, str]] = {}
    known: set[str] = set()
    for number, (subject, text) in enumerate(asked):
        if text in known:
            count.exact += 1
            continue
        vector = readings.view(text).table
        near = [stored[id] for id, cosine in index.nearest(b"", vector, _WIDE) if cosine >= NEAR]
        served = next((its for its, other in near if hit(text, other)), None)
        if served is None:
            known.add(text)
            stored[str(number)] = (subject, text)
            index.add(b"", str(number), vector)
        elif served == subject:
            count.right += 1
        else:
            count.wrong += 1
    return count


def report(pairs: Sequence[Pair], semantic: Semantic, readings: Readings) -> str:
    asked = [(subject, text) for subject, text in traffic(pairs) if readings.facts(text)]
    readings.learn(text for _, text in asked)

    def by_cosine(limit: float) -> Callable[[str, str], bool]:
        return lambda one, other: float(readings.view(one).mean @ readings.view(other).mean) >= limit

    def by_us(limit: float) -> Callable[[str, str], bool]:
        def hit(one: str, other: str) -> bool:
            views = readings.view(one), readings.view(other)
            return semantic.weigh(views[0].facts, views[1].facts, lambda: views)[0] >= limit

        return hit

    ways = {"exact only": lambda one, other: False}
    ways |= {f"cosine ≥ {limit:.2f}": by_cosine(limit) for limit in (0.80, 0.85, 0.92)}
    ways |= {f"max_false_hit_rate {rate:g}": by_us(semantic.limit(rate)) for rate in (0.005, 0.01, 0.02, 0.05)}
    lines = [f"{len(asked):,} questions, {len({text for _, text in asked}):,} wordings of"
             f" {len({subject for subject, _ in asked}):,} subjects; an answer costs ${_CALL_USD}", "",
             "| rule | exact hits | semantic hits | hit rate | saved | wrong answers | wrong of semantic hits |",
             "|---|--:|--:|--:|--:|--:|--:|"]  # fmt: skip
    for name, hit in ways.items():
        count = serve(asked, readings, hit)
        semantic_hits = count.right + count.wrong
        hits = count.exact + semantic_hits
        lines.append(
            f"| {name} | {count.exact:,} | {semantic_hits:,} | {hits / len(asked):.1%} | ${hits * _CALL_USD:.2f} of"
            f" ${len(asked) * _CALL_USD:.2f} | {count.wrong} | {count.wrong / max(semantic_hits, 1):.2%} |"
        )
    return "\n".join(lines)
