"""Values that stay on the gateway while the model holds only their names: images, blobs, long results.
Each caller has its own and cannot reach another's."""

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from mcpgate.codemode.results import to_json
from mcpgate.errors import NotFound

_MOST_IN_ALL = 100_000
_MOST_REMEMBERED = 10_000
"""Owners whose last number is remembered, so that a name is never reused for another value."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One stored value: `value` if JSON-like, else `data` (base64, as MCP sent it)."""

    id: str
    kind: str
    """'image', 'audio', 'blob' or 'value'."""
    mime_type: str
    size: int
    value: Any = None
    data: str | None = None
    uri: str | None = None


@dataclass(slots=True)
class _Held:
    kept: Kept
    size: int
    """Approximate memory use in bytes."""
    used: float


@dataclass(slots=True)
class _Account:
    """The values of one key, whichever users it names, least recently used first."""

    handles: "OrderedDict[tuple[str, str], _Held]" = field(default_factory=OrderedDict)
    """By owner and id."""
    size: int = 0
    """Bytes."""


class HandleStore:
    """Limited in number and bytes, for each account (a key) and in total; over the total, the largest account gives
    way. Values that were least recently used, or not used for `idle_s` seconds, are dropped first. An owner is a
    user that a key names, and only the owner can read its values. All owners of a key share its room, because a key
    may name any number of users."""

    def __init__(
        self,
        max_handles: int,
        max_bytes: int,
        idle_s: float = 1800.0,
        max_bytes_in_all: int | None = None,
        max_handles_in_all: int = _MOST_IN_ALL,
    ) -> None:
        self._max_handles, self._max_bytes, self._max_in_all = max_handles, max_bytes, max_bytes_in_all
        self._max_handles_in_all, self._idle_s = max_handles_in_all, idle_s
        self._accounts: dict[str, _Account] = {}
        self._number = self._size = 0
        """Of all."""
        self._next: OrderedDict[str, int] = OrderedDict()
        """Owner → its last number."""
        self._lock = threading.Lock()
        """Values are stored on the event loop and loaded in guests' threads."""

    def resize(self, max_handles: int, max_bytes: int, max_bytes_in_all: int | None = None) -> None:
        self._max_handles, self._max_bytes, self._max_in_all = max_handles, max_bytes, max_bytes_in_all

    def keep_value(self, owner: str, value: Any, account: str | None = None) -> Kept:
        """`account`: whose room is used; by default the owner's."""
        size = len(value if isinstance(value, str) else to_json(value))
        mime_type = "text/plain" if isinstance(value, str) else "application/json"
        return self._keep(owner, account, Kept("", "value", mime_type, size, value))

    def keep_data(
        self, owner: str, kind: str, mime_type: str, data: str, uri: str | None = None, account: str | None = None
    ) -> Kept:
        """`data` is base64."""
        size = len(data) * 3 // 4 - data[-2:].count("=")
        return self._keep(owner, account, Kept("", kind, mime_type, size, data=data, uri=uri))

    def get(self, owner: str, id: str, account: str | None = None) -> Kept:
        """Raises NotFound, which lists the existing names."""
        with self._lock:
            self._expire()
            found = self._accounts.get(owner if account is None else account, _Account()).handles
            if (held := found.get((owner, id))) is not None:
                held.used = time.monotonic()
                found.move_to_end((owner, id))
                return held.kept
            number = id[1:] if id[:1] == "r" else ""
            gone = number.isdecimal() and 0 < int(number) <= self._next.get(owner, 0)
            theirs = [name for of, name in found if of == owner][-10:]
            there = f"; kept: {', '.join(theirs)}" if theirs else ""
            raise NotFound(f"handle {id!r} " + (self._why_gone() if gone else "does not exist") + there, nearest=theirs)

    def _why_gone(self) -> str:
        return f"was dropped: handles make room for newer ones, and go when idle for {self._idle_s:g} s"

    def _expire(self) -> None:
        horizon = time.monotonic() - self._idle_s
        for name, account in list(self._accounts.items()):
            # The first is the least recently used, so everything after one that stays also stays.
            while account.handles and next(iter(account.handles.values())).used < horizon:
                self._drop_oldest(account)
            if not account.handles:
                del self._accounts[name]

    def _drop_oldest(self, account: _Account) -> None:
        _, held = account.handles.popitem(last=False)
        account.size -= held.size
        self._size -= held.size
        self._number -= 1

    def _keep(self, owner: str, account_name: str | None, unnamed: Kept) -> Kept:
        with self._lock:
            number = self._next[owner] = self._next.get(owner, 0) + 1
            self._next.move_to_end(owner)
            if len(self._next) > _MOST_REMEMBERED:
                self._next.popitem(last=False)
            kept = Kept(f"r{number}", *(getattr(unnamed, name) for name in _FACTS))
            self._expire()
            account = self._accounts.setdefault(owner if account_name is None else account_name, _Account())
            held = account.handles[owner, kept.id] = _Held(kept, _memory_of(kept), time.monotonic())
            account.size += held.size
            self._size += held.size
            self._number += 1
            while len(account.handles) > 1 and (
                len(account.handles) > self._max_handles or account.size > self._max_bytes
            ):
                self._drop_oldest(account)
            self._make_room(account)
            return kept

    def _make_room(self, newest: _Account) -> None:
        while self._number > self._max_handles_in_all or (
            self._max_in_all is not None and self._size > self._max_in_all
        ):
            # The value just stored stays, or its owner could never use it. No account is empty.
            others = [one for one in self._accounts.values() if one is not newest or len(one.handles) > 1]
            if not others:
                return
            by_size = self._max_in_all is not None and self._size > self._max_in_all
            self._drop_oldest(max(others, key=lambda one: one.size if by_size else len(one.handles)))
            for name in [name for name, one in self._accounts.items() if not one.handles]:
                del self._accounts[name]


def _memory_of(kept: Kept) -> int:
    if kept.data is not None:
        return len(kept.data)
    if isinstance(kept.value, str):
        return kept.size if kept.value.isascii() else 4 * kept.size
    return 8 * kept.size  # objects take several times the room of their text


_FACTS = ("kind", "mime_type", "size", "value", "data", "uri")
