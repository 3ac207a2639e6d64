"""How far a stored answer is trusted, from what became of its hits: checks against a fresh answer, and feedback.

Each entry starts at the verifier's word: a hit with probability p is wrong with 1 - p. Outcomes correct that, as a beta
distribution: before any outcome the entry counts as STRENGTH outcomes of which MAX_FALSE_HIT_RATE were wrong; then the
expected share of wrong hits is

    wrong_share = (STRENGTH * rate + wrong) / (STRENGTH + right + wrong)

The entry's threshold asks of a hit that (1 - p) * wrong_share / rate stays within what the base threshold allows: after
a wrong hit more certainty is wanted, after many right ones none less than at first. It never falls below the base.
Everything is pure; the caller keeps the counts with the entry.
"""

from dataclasses import dataclass, replace

STRENGTH = 20.0
"""Outcomes that the expectation at the start is worth."""
_DROPPED = 0.25
"""Lower bound of the share of wrong hits from which an entry is dropped."""
_SURE = 1.28
"""Standard deviations of that bound: 90 % on one side."""


@dataclass(frozen=True, slots=True)
class Trust:
    right: int = 0
    wrong: int = 0

    def after(self, right: bool) -> "Trust":
        return replace(self, right=self.right + 1) if right else replace(self, wrong=self.wrong + 1)


def wrong_share(trust: Trust, max_false_hit_rate: float) -> float:
    """The share of the entry's hits that is expected to be wrong."""
    return (STRENGTH * max_false_hit_rate + trust.wrong) / (STRENGTH + trust.right + trust.wrong)


def threshold(trust: Trust, base: float, max_false_hit_rate: float) -> float:
    """The probability that a hit on the entry needs: `base`, or more after wrong hits."""
    factor = max(1.0, wrong_share(trust, max_false_hit_rate) / max(max_false_hit_rate, 1e-6))
    return 1 - (1 - base) / factor


def dropped(trust: Trust) -> bool:
    """Whether so many hits were wrong that the entry should not be served to other questions at all. The lower bound of
    Wilson's interval: one wrong hit of one drops it, two of ten do not, five of ten do."""
    count = trust.right + trust.wrong
    if not trust.wrong:
        return False
    share = trust.wrong / count
    square = _SURE * _SURE / count
    middle = share + square / 2
    spread = _SURE * ((share * (1 - share) + square / 4) / count) ** 0.5
    return bool((middle - spread) / (1 + square) >= _DROPPED)


def checked(trust: Trust, sample: float) -> float:
    """The share of an entry's hits to check against a fresh answer: `sample`, more while little is known, and always
    the first one."""
    count = trust.right + trust.wrong
    return (
        1.0 if count == 0 else min(1.0, max(sample, sample * STRENGTH / (STRENGTH + count) + trust.wrong / (count + 1)))
    )
