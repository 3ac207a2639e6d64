"""Bytes of answers that governance does not count, such as tool lists: each key may have so many in a second. A limit
that no honest client meets, and that a thousand small questions with long answers do. Pure but for its clock."""

import time
from collections.abc import Callable

from mcpgate.errors import RateLimited

_MAX_KEYS = 10_000


class Throttle:
    def __init__(self, burst: int, per_s: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Bytes."""
        self._burst, self._per_s, self._clock = burst, per_s, clock
        self._spent: dict[str, tuple[float, float]] = {}
        """Key → bytes that are not made up for yet, and when that was so."""

    def check(self, key: str) -> None:
        """Raises RateLimited where earlier answers have taken all there is."""
        spent = self._now(key)
        if spent > self._burst:
            raise RateLimited(
                f"the lists and other free answers of this key are over {self._per_s:,} bytes a second",
                scope=f"key {key}",
                limit=self._per_s,
                window="1s",
                retry_after_s=round((spent - self._burst) / self._per_s, 3),
            )

    def count(self, key: str, size: int) -> None:
        if len(self._spent) >= _MAX_KEYS and key not in self._spent:
            self._spent = {name: state for name, state in self._spent.items() if self._now(name) > 0}
        self._spent[key] = (self._now(key) + size, self._clock())

    def _now(self, key: str) -> float:
        spent, at = self._spent.get(key, (0.0, 0.0))
        return max(0.0, spent - (self._clock() - at) * self._per_s) if spent else 0.0
