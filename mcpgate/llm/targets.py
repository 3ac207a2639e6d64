"""How targets fare: one that keeps failing is left alone for a while, then tried with a single request."""

import time
from collections.abc import Callable
from dataclasses import dataclass

_FAILURES = 5
"""In a row, before a target rests."""
_REST_S, _LONGEST_REST_S = 10.0, 120.0
_MOST_TARGETS = 10_000


@dataclass(slots=True)
class _Health:
    failures: int = 0
    rests_until: float = 0.0
    is_probed: bool = False
    rest_s: float = _REST_S


class Targets:
    """The health of every target, in this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._table: dict[str, _Health] = {}

    def may_try(self, name: str) -> bool:
        """Whether a request may go to a target now. The first one after a rest is the only one until it has ended."""
        health = self._table.get(name)
        if health is None or health.failures < _FAILURES:
            return True
        return self._clock() >= health.rests_until and not health.is_probed

    def began(self, name: str) -> None:
        """A request goes to a target. Every one ends in `succeeded`, `failed` or `ended`."""
        if (health := self._table.get(name)) is not None:
            health.is_probed = health.failures >= _FAILURES

    def rests_for_s(self, name: str) -> float:
        """Seconds until a target may be tried again; 0 if it does not rest."""
        health = self._table.get(name)
        if health is None or health.failures < _FAILURES:
            return 0.0
        return max(0.0, health.rests_until - self._clock())

    def succeeded(self, name: str) -> None:
        self._table.pop(name, None)

    def failed(self, name: str) -> None:
        """It did not answer, or with a failure of its own."""
        if len(self._table) >= _MOST_TARGETS:
            self._table.clear()
        health = self._table.setdefault(name, _Health())
        health.failures += 1
        health.is_probed = False
        if health.failures >= _FAILURES:
            health.rests_until = self._clock() + health.rest_s
            health.rest_s = min(2 * health.rest_s, _LONGEST_REST_S)

    def ended(self, name: str) -> None:
        """A request ended in a way that says nothing of the target."""
        if (health := self._table.get(name)) is not None:
            health.is_probed = False
