"""Interpreters that live on between the executions of one owner."""

import asyncio
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

MIB = 1024 * 1024


class Closable(Protocol):
    def close(self) -> None: ...


G = TypeVar("G", bound=Closable)
Key = tuple[str, str]
"""Owner and name of a session."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What live sessions may take. Of several that could go, the least recently used does; where there are too many in
    all, one of the account that has most."""

    per_account: int = 8
    mib_per_account: int = 2048
    """A session counts with the memory that its executions may use, whether they do or not."""
    in_all: int = 64
    idle_s: float = 1800.0


@dataclass(slots=True)
class _Live(Generic[G]):
    guest: G
    memory_mib: int
    used: float
    account: str


class Sessions(Generic[G]):
    """Live guests by owner and name. A guest that runs is out of the table. Thread-safe."""

    def __init__(self, limits: SessionLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._live: OrderedDict[Key, _Live[G]] = OrderedDict()
        self._ended: OrderedDict[Key, str] = OrderedDict()

    def take(self, key: Key) -> tuple[G | None, list[str]]:
        """The session's guest, if it still lives, and what to tell the model if it does not."""
        self.expire()
        with self._lock:
            live = self._live.pop(key, None)
            reason = self._ended.pop(key, None)
        return (live.guest if live else None), ([f"session {key[1]!r} is new: {reason}"] if reason else [])

    def put(self, key: Key, guest: G, memory_mib: int, account: str) -> None:
        """Keep a guest; `account` is whom it is counted for."""
        gone = []
        with self._lock:
            self._live[key] = _Live(guest, memory_mib, time.monotonic(), account)
            while (victim := self._victim(account)) is not None:
                gone.append(self._end(victim, "the earlier one made room for others"))
        _close(gone)

    def drop(self, key: Key, reason: str = "") -> None:
        """Forget a session; its next use is told why, if there is a reason to give."""
        with self._lock:
            live = self._live.pop(key, None)
            if reason:
                self._note(key, reason)
        _close([live] if live else [])

    def expire(self) -> None:
        """End the sessions that were idle for too long."""
        horizon = time.monotonic() - self._limits.idle_s
        with self._lock:
            idle = [key for key, live in self._live.items() if live.used < horizon]
            gone = [self._end(k, f"the earlier one was idle for more than {self._limits.idle_s:g} s") for k in idle]
        _close(gone)

    def close(self) -> None:
        with self._lock:
            live, self._live = list(self._live.values()), OrderedDict()
        _close(live)

    def _victim(self, account: str) -> Key | None:
        """Which session goes now that `account` has one more."""
        mine = [key for key, live in self._live.items() if live.account == account]
        total = sum(self._live[key].memory_mib for key in mine)
        if len(mine) > 1 and (len(mine) > self._limits.per_account or total > self._limits.mib_per_account):
            return mine[0]
        if len(self._live) <= self._limits.in_all:
            return None
        held = Counter(live.account for live in self._live.values())
        most = max(held.values())
        return next(key for key, live in self._live.items() if held[live.account] == most)

    def _end(self, key: Key, reason: str) -> _Live[G]:
        self._note(key, reason)
        return self._live.pop(key)

    def _note(self, key: Key, reason: str) -> None:
        self._ended[key] = reason
        while len(self._ended) > 1000:
            self._ended.popitem(last=False)


def _close(gone: list[_Live[G]]) -> None:
    for live in gone:
        live.guest.close()


class Turns:
    """One execution of a session at a time, in the order they came. Waiting is done on the event loop, for a thread
    that waits is one that other executions lack."""

    def __init__(self) -> None:
        self._last: dict[Key, asyncio.Future[None]] = {}

    async def next(self, session: Key, timeout_s: float) -> Callable[[], None]:
        """Wait for the session's earlier executions; calling what comes back ends the turn. Raises TimeoutError."""
        before = self._last.get(session)
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._last[session] = mine
        mine.add_done_callback(lambda _: self._forget(session, mine))
        if before is not None:
            try:
                async with asyncio.timeout(timeout_s):
                    await asyncio.shield(before)
            except BaseException:
                # Out of the queue: whoever waits for us waits for those before us.
                before.add_done_callback(lambda _: _end(mine))
                raise
        return lambda: _end(mine)

    def _forget(self, session: Key, turn: "asyncio.Future[None]") -> None:
        if self._last.get(session) is turn:
            del self._last[session]


def _end(turn: "asyncio.Future[None]") -> None:
    if not turn.done():
        turn.set_result(None)
