"""Values that stay on the gateway while the model holds their names: images, blobs, long results.
Each caller has its own; nobody can name another's."""

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from mcpgate.codemode.results import to_json
from mcpgate.errors import NotFound


@dataclass(frozen=True, slots=True)
class Kept:
    """One kept value: `value` for JSON-like ones, `data` (base64, as MCP sent it) for the rest."""

    id: str
    kind: str
    """'image', 'audio', 'blob' or 'value'."""
    mime_type: str
    size: int
    value: Any = None
    data: str | None = None
    uri: str | None = None


class HandleStore:
    """Bounded in number and bytes over each caller; the least recently used goes first, and what nobody used for
    `idle_s` seconds."""

    def __init__(self, max_handles: int, max_bytes: int, idle_s: float = 1800.0) -> None:
        self._max_handles, self._max_bytes, self._idle_s = max_handles, max_bytes, idle_s
        self._callers: dict[str, OrderedDict[str, Kept]] = {}
        self._used: dict[tuple[str, str], float] = {}
        self._sizes: dict[str, int] = {}
        self._next: dict[str, int] = {}
        self._lock = threading.Lock()
        """Values are kept on the event loop and loaded in guests' threads."""

    def resize(self, max_handles: int, max_bytes: int) -> None:
        self._max_handles, self._max_bytes = max_handles, max_bytes

    def keep_value(self, caller: str, value: Any) -> Kept:
        size = len(value if isinstance(value, str) else to_json(value))
        return self._keep(caller, "value", "text/plain" if isinstance(value, str) else "application/json", size, value)

    def keep_data(self, caller: str, kind: str, mime_type: str, data: str, uri: str | None = None) -> Kept:
        """`data` is base64."""
        size = len(data) * 3 // 4 - data[-2:].count("=")
        return self._keep(caller, kind, mime_type, size, data=data, uri=uri)

    def get(self, caller: str, id: str) -> Kept:
        """Raises NotFound, which says what is there."""
        with self._lock:
            self._expire()
            table = self._callers.get(caller, OrderedDict())
            if (kept := table.get(id)) is not None:
                table.move_to_end(id)
                self._used[caller, id] = time.monotonic()
                return kept
            number = id[1:] if id[:1] == "r" else ""
            gone = number.isdecimal() and 0 < int(number) <= self._next.get(caller, 0)
            there = f"; kept: {', '.join(list(table)[-10:])}" if table else ""
            raise NotFound(f"handle {id!r} " + (self._why_gone() if gone else "does not exist") + there)

    def _why_gone(self) -> str:
        return f"was dropped: handles make room for newer ones, and go when idle for {self._idle_s:g} s"

    def _expire(self) -> None:
        horizon = time.monotonic() - self._idle_s
        for caller, table in list(self._callers.items()):
            # The least recently used is the first one: what is behind one that stays, stays.
            while table and self._used[caller, next(iter(table))] < horizon:
                self._drop_oldest(caller, table)
            if not table:
                del self._callers[caller]

    def _drop_oldest(self, caller: str, table: "OrderedDict[str, Kept]") -> None:
        id, kept = table.popitem(last=False)
        self._sizes[caller] -= kept.size
        del self._used[caller, id]

    def _keep(
        self,
        caller: str,
        kind: str,
        mime_type: str,
        size: int,
        value: Any = None,
        data: str | None = None,
        uri: str | None = None,
    ) -> Kept:
        with self._lock:
            number = self._next[caller] = self._next.get(caller, 0) + 1
            kept = Kept(f"r{number}", kind, mime_type, size, value, data, uri)
            self._expire()
            table = self._callers.setdefault(caller, OrderedDict())
            table[kept.id] = kept
            self._used[caller, kept.id] = time.monotonic()
            self._sizes[caller] = self._sizes.get(caller, 0) + size
            while len(table) > 1 and (len(table) > self._max_handles or self._sizes[caller] > self._max_bytes):
                self._drop_oldest(caller, table)
            return kept
