"""Sessions of the handshake era over HTTP: bounded in number, ended when idle, each its caller's own."""

import asyncio
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass

from mcpgate.api.mcp.face import McpFace
from mcpgate.api.mcp.protocol import Message
from mcpgate.api.mcp.session import Session
from mcpgate.governance.callers import Caller

_MAX_SESSIONS = 10_000
_MAX_SESSIONS_EACH = 1000
"""Of one key."""
_MAX_UNREAD = 1000
"""Notifications that wait for a client that does not read; further ones are dropped, answers never."""
_IDLE_S = 1800.0


@dataclass(slots=True)
class OpenSession:
    id: str
    session: Session
    outbox: "asyncio.Queue[Message]"
    """What waits for the client's stream."""
    used: float
    """When it was last used, monotonic seconds."""


class Sessions:
    """Every open session by its id."""

    def __init__(self, face: McpFace) -> None:
        self._face = face
        self._table: OrderedDict[str, OpenSession] = OrderedDict()

    def new(self, caller: Caller) -> OpenSession:
        """A session for a caller; where it has too many, its longest unused one ends."""
        self._expire()
        own = [id for id, one in self._table.items() if one.session.caller.id == caller.id]
        if len(own) >= _MAX_SESSIONS_EACH and not caller.is_local:
            self.drop(own[0])
        id = secrets.token_urlsafe(24)
        outbox: asyncio.Queue[Message] = asyncio.Queue()
        session = Session(self._face, lambda _: None, caller, announce=lambda message: offer(outbox, message))
        opened = self._table[id] = OpenSession(id, session, outbox, time.monotonic())
        return opened

    def find(self, id: str, caller: Caller) -> OpenSession | None:
        """A session of this caller's; another's is none, for its id is no secret that opens anything."""
        found = self._table.get(id)
        if found is None or found.session.caller.owner != caller.owner:
            return None
        found.used = time.monotonic()
        self._table.move_to_end(id)
        return found

    def drop(self, id: str) -> bool:
        found = self._table.pop(id, None)
        if found is not None:
            found.session.close()
        return found is not None

    def _expire(self) -> None:
        horizon = time.monotonic() - _IDLE_S
        for id, one in list(self._table.items()):
            if one.used > horizon and len(self._table) < _MAX_SESSIONS:
                break
            if not one.session.tasks:
                self.drop(id)


def offer(outbox: "asyncio.Queue[Message]", message: Message) -> None:
    """Queue a message for a client that may not be reading."""
    if "method" not in message or outbox.qsize() < _MAX_UNREAD:
        outbox.put_nowait(message)
