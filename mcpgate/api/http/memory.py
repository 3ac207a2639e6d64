"""Memory that long requests and answers hold while they are under way, counted in all and by holder: a bound on what
slow senders and slow readers can make the gateway keep."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_S = 3.0
"""How long a piece of an answer may stand unread while another answer waits for room."""


class Memory:
    def __init__(self, total: int, each: int) -> None:
        """Bytes. `each`: of one holder."""
        self.total, self.each = total, each
        self._held: dict[str, int] = {}
        self._in_all = 0
        self._patience: set[asyncio.Timeout] = set()
        """Of the long answers that are being written."""

    @property
    def in_all(self) -> int:
        return self._in_all

    def held(self, holder: str) -> int:
        return self._held.get(holder, 0)

    def lacks(self, holder: str, size: int, whole: bool = False) -> str | None:
        """What a holder would exceed, `total` or `each`; None where so many bytes fit. Whoever holds nothing may take
        what is longer than a share. `whole`: the holder's share is everything."""
        if self._in_all and self._in_all + size > self.total:
            return "total"
        own = self._held.get(holder, 0)
        if own and not whole and own + size > self.each:
            return "each"
        return None

    @contextmanager
    def writing(self, patience: asyncio.Timeout) -> Iterator[None]:
        """A long answer is being written, whose reader has all the time in the world until another answer waits."""
        self._patience.add(patience)
        try:
            yield
        finally:
            self._patience.discard(patience)

    def press(self) -> None:
        """An answer waits for room: those that are not being read run out of time."""
        end = asyncio.get_running_loop().time() + PATIENCE_S
        for patience in self._patience:
            if patience.when() is None:
                patience.reschedule(end)

    def take(self, holder: str, size: int) -> None:
        self._held[holder] = self._held.get(holder, 0) + size
        self._in_all += size

    def give(self, holder: str, size: int) -> None:
        left = self._held[holder] - size
        if left:
            self._held[holder] = left
        else:
            del self._held[holder]
        self._in_all -= size
