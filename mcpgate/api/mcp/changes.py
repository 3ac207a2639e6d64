"""Lets many wait for the next change of one thing. Unlike an event, nobody has to reset it, so no change is missed."""

import asyncio


class Changes:
    """The changes of one thing."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def next(self) -> asyncio.Future[None]:
        """Done at the next change. Whoever no longer waits for it cancels it."""
        self._waiting = [future for future in self._waiting if not future.done()]
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        return future

    def tell(self) -> None:
        """It has changed."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
