"""Sessions of the handshake era over HTTP: bounded in number and in what waits in them, ended when idle or when their
key is no longer good, each its caller's own."""

import asyncio
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mcpgate.api.mcp.face import McpFace
from mcpgate.api.mcp.outbox import OUTBOX_BYTES, Outbox
from mcpgate.api.mcp.replay import KEPT_BYTES_IN_ALL, Replay
from mcpgate.api.mcp.session import Session
from mcpgate.governance.callers import Caller

_SWEEP_S = 30.0


@dataclass(frozen=True, slots=True)
class SessionLimits:
    total: int = 10_000
    each: int = 1000
    """Of one key, or of all callers without one."""
    idle_s: float = 1800.0
    unread: int = OUTBOX_BYTES
    """Bytes that wait for the client of one session."""
    unread_in_all: int = 64 * 1024 * 1024
    kept_in_all: int = KEPT_BYTES_IN_ALL
    """Bytes of events that clients may ask for again."""


@dataclass(slots=True)
class OpenSession:
    id: str
    session: Session
    outbox: Outbox
    """What waits for the client's stream."""
    replay: Replay
    used: float
    """When it was last used, monotonic seconds."""


class Sessions:
    """Every open session by its id."""

    def __init__(
        self,
        face: McpFace,
        is_admitted: Callable[[Caller], Awaitable[bool]],
        limits: SessionLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`is_admitted`: whether a caller's key is still good."""
        self._face, self._is_admitted, self._limits, self._clock = face, is_admitted, limits or SessionLimits(), clock
        self._table: OrderedDict[str, OpenSession] = OrderedDict()
        """The longest unused one first; so are those of each key."""
        self._of: dict[str, OrderedDict[str, None]] = {}
        self._unread = self._kept = 0
        self._timer: asyncio.TimerHandle | None = None
        self._sweeping: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._table)

    def new(self, caller: Caller) -> OpenSession:
        """A session for a caller. Where it has too many, its longest unused one ends; where there are too many in all,
        that of the key which has most."""
        own = self._of.get(caller.account, OrderedDict())
        if len(own) >= self._limits.each:
            self.drop(next(iter(own)))
        elif len(self._table) >= self._limits.total:
            most = max(self._of.values(), key=len)
            self.drop(next(iter(most)))
        id = secrets.token_urlsafe(24)
        outbox = Outbox(self._limits.unread, self._count, lambda: self.drop(id))
        session = Session(self._face, lambda _: None, caller, announce=outbox.put)
        opened = self._table[id] = OpenSession(id, session, outbox, Replay(self._count_kept), self._clock())
        self._of.setdefault(caller.account, OrderedDict())[id] = None
        self._sweep_later()
        return opened

    def find(self, id: str, caller: Caller, anywhere: bool = False) -> OpenSession | None:
        """A session of this caller's at this address, or `anywhere`; another's is none, for its id is no secret that
        opens anything. It goes on with the access token that ends last of those that its requests brought."""
        found = self._table.get(id)
        if found is None or found.session.caller.owner != caller.owner:
            return None
        if not anywhere and found.session.caller.bundle != caller.bundle:
            return None
        found.session.caller = found.session.caller.renewed(by=caller)
        found.used = self._clock()
        self._table.move_to_end(id)
        self._of[found.session.caller.account].move_to_end(id)
        return found

    def bundle_of(self, id: str) -> str | None:
        """The bundle whose session it is, whoever asks."""
        found = self._table.get(id)
        return None if found is None else found.session.caller.bundle

    def drop(self, id: str) -> bool:
        """End a session, its requests and its streams."""
        found = self._table.pop(id, None)
        if found is None:
            return False
        key = found.session.caller.account
        del self._of[key][id]
        if not self._of[key]:
            del self._of[key]
        found.session.close()
        found.outbox.end()
        found.replay.close()
        return True

    async def sweep(self) -> None:
        """End sessions that nobody has used for long, and those of keys that are no longer good."""
        horizon = self._clock() - self._limits.idle_s
        for id, one in list(self._table.items()):
            if one.used > horizon:
                break
            if not one.session.tasks:
                self.drop(id)
        ways = {(one.session.caller.id, one.session.caller.digest): one.session.caller for one in self._table.values()}
        for way, caller in ways.items():
            if not await self._is_admitted(caller):
                for id in list(self._of.get(caller.account, ())):
                    held = self._table[id].session.caller
                    if (held.id, held.digest) == way:
                        self.drop(id)

    def _sweep_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep_now)

    def _sweep_now(self) -> None:
        self._timer = None
        if self._table:
            self._sweeping = asyncio.create_task(self.sweep())
            self._sweep_later()

    def _count_kept(self, change: int) -> None:
        """Keep what can be asked for again bounded, at the expense of the session that has most of it."""
        self._kept += change
        while self._kept > self._limits.kept_in_all:
            max((one.replay for one in self._table.values()), key=lambda replay: replay.size).shrink()

    def _count(self, change: int) -> None:
        """Keep what waits for all clients together bounded, at the expense of the key that reads least."""
        self._unread += change
        while self._unread > self._limits.unread_in_all:
            unread: Counter[str] = Counter()
            for one in self._table.values():
                unread[one.session.caller.account] += one.outbox.size
            key = max(unread, key=unread.__getitem__)
            worst = max((self._table[id] for id in self._of[key]), key=lambda one: one.outbox.size)
            if not worst.outbox.size:
                return
            worst.outbox.end()
