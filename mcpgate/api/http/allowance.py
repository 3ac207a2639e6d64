"""Things that clients keep open as long as they like, such as streams: each key may have so many at once."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from mcpgate.errors import RateLimited


class Allowance:
    def __init__(self, what: str, each: int) -> None:
        """`what`: their name in refusals. `each`: how many of one key."""
        self._what, self._each = what, each
        self._open: Counter[str] = Counter()

    def used(self, key: str) -> int:
        """How many of a key are open."""
        return self._open[key]

    @contextmanager
    def one(self, key: str) -> Iterator[None]:
        """Count one more until the block is left. Raises RateLimited."""
        if self._open[key] >= self._each:
            raise RateLimited(
                f"at most {self._each} {self._what} are open at once",
                **{"scope": f"key {key}", "limit": self._each, "window": None, "retry_after_s": 1},
            )
        self._open[key] += 1
        try:
            yield
        finally:
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]
