"""The request log: pages of requests, one request with everything that belongs to it, and new ones as they end. It
reads the store that all workers share. Who may see what is decided here; what a request looks like, in shown.py."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mcpgate.activity.requests import NEWEST, Requests, Wanted, to_cursor
from mcpgate.activity.shown import NO_TOTALS, shown
from mcpgate.errors import NotAllowed, NotFound
from mcpgate.governance.callers import Caller
from mcpgate.governance.policy import Policy
from mcpgate.governance.records import Entry
from mcpgate.governance.store import Records

_LOOK_EVERY_S = 0.4
"""How often those that follow the log look for new requests."""
_LATE_S = 5.0
"""How much later than one with a larger number an entry may appear, where numbers are given out before they are
written."""
_PATIENCE_S = 2.0
"""How long a page is looked for; then it ends early, and says where to go on."""
_FEWEST, _MOST = 200, 20_000
"""Candidates that are looked at in one step after the first."""
_MOST_CHILDREN = 2_000
"""Of one request that are shown."""
_DEEPEST = 8
_MOST_NEW = 1_000
_REMEMBER_S = 60.0
"""How long the name of a key is remembered."""
_MOST_NAMES = 10_000
_MODELS = ("chat", "embedding")


@dataclass(frozen=True, slots=True)
class Page:
    requests: list[dict[str, Any]]
    next: str | None
    """The cursor of the following page; None if there is nothing older."""


def seen_by(caller: Caller, wanted: Wanted) -> Wanted:
    """What is wanted of what a caller may see: everything with the grant `admin`, or what is its team's or customer's,
    else the requests of its key; with an access token, those of its user. Raises NotAllowed."""
    return replace(wanted, where=(*wanted.where, *own_of(caller)))


def own_of(caller: Caller) -> tuple[tuple[str, str], ...]:
    """The filters that all requests fulfil that a caller may see. Raises NotAllowed."""
    if caller.grants.admin:
        return () if caller.realm is None else (caller.realm,)
    if caller.is_local:
        raise NotAllowed("the request log needs a key; one with the grant `admin` sees all requests")
    own = (("key", caller.id),)
    return own if caller.token is None else (*own, ("user", caller.user or ""))


class RequestLog:
    """One per process."""

    def __init__(self, requests: Requests, records: Records, policy: Callable[[], Policy]) -> None:
        """`policy`: as it is now."""
        self._requests, self._records, self._policy = requests, records, policy
        self._names: dict[str, tuple[str, float]] = {}

    async def page(self, wanted: Wanted, limit: int, before: int = NEWEST) -> Page:
        """The newest requests below a number. Raises StoreUnavailable."""
        give_up, step = time.monotonic() + _PATIENCE_S, limit + 1
        found: list[tuple[int, Entry]] = []
        rest: int | None = before
        while rest is not None and len(found) <= limit and time.monotonic() < give_up:
            more, rest = await self._requests.scan(wanted, rest, step)
            found += more
            step = min(_MOST, max(_FEWEST, step * 4))
        if len(found) > limit:
            found = found[:limit]
            rest = found[-1][0]
        return Page(await self._shown([entry for _, entry in found]), None if rest is None else to_cursor(rest))

    async def get(self, caller: Caller, id: str) -> dict[str, Any]:
        """One request, with `children`, and theirs. `id`: its own, or the `x-request-id` of its answer. Raises
        NotFound, NotAllowed, StoreUnavailable."""
        entry = await self.find(caller, id)
        (found,) = await self._shown([entry])
        levels, parents = 0, {entry.id: found}
        left = _MOST_CHILDREN
        while parents and levels < _DEEPEST and left > 0:
            children = await self._requests.children(list(parents), left + 1)
            found["truncated"] = len(children) > left
            children = children[:left]
            left, levels = left - len(children), levels + 1
            below: dict[str, dict[str, Any]] = {}
            for child, made in zip(children, await self._shown(children), strict=True):
                parents[child.parent_id or ""].setdefault("children", []).append(made)
                below[child.id] = made
            parents = below
        return found

    async def find(self, caller: Caller, id: str) -> Entry:
        """An entry that a caller may see. Raises NotFound, NotAllowed, StoreUnavailable."""
        own = own_of(caller)
        entry = await self._requests.find(id)
        if entry is None:
            found, _ = await self._requests.scan(Wanted((("request", id), *own)), NEWEST, _MOST)
            entry = found[0][1] if found else None
        if entry is None or any(getattr(entry, name) != value for name, value in own):
            raise NotFound(f"there is no request {id[:80]!r}")
        return entry

    async def newest(self) -> int:
        return await self._requests.newest()

    async def follow(self, wanted: Wanted, after: int) -> AsyncIterator[list[dict[str, Any]]]:
        """New requests of all workers as they end, in groups; empty ones tell that nothing has happened. Raises
        StoreUnavailable."""
        low = after
        seen: dict[int, float] = {}
        marks: deque[tuple[float, int]] = deque()
        while True:
            newest = await self._requests.newest()
            found = await self._requests.after(wanted, low, list(seen), _MOST_NEW)
            now = time.monotonic()
            if found and len(found) == _MOST_NEW:
                newest = found[-1][0]
            if self._requests.in_order:
                low = max(low, newest, *(number for number, _ in found[-1:]))
            else:
                seen |= {number: now for number, _ in found}
                marks.append((now, newest))
                while marks and marks[0][0] < now - _LATE_S:
                    low = max(low, marks.popleft()[1])
                seen = {number: at for number, at in seen.items() if number > low}
            yield await self._shown([entry for _, entry in found])
            if len(found) < _MOST_NEW:
                await asyncio.sleep(_LOOK_EVERY_S)

    async def _shown(self, entries: Sequence[Entry]) -> list[dict[str, Any]]:
        if not entries:
            return []
        totals = await self._requests.totals([entry.id for entry in entries])
        models = [entry.id for entry in entries if entry.kind in _MODELS and entry.id in totals]
        attempts: dict[str, list[Entry]] = {}
        for one in await self._requests.children(models, _MOST_CHILDREN) if models else ():
            attempts.setdefault(one.parent_id or "", []).append(one)
        names = await self._names_of({entry.key for entry in entries})
        return [shown(entry, totals.get(entry.id, NO_TOTALS), attempts.get(entry.id, ()), names) for entry in entries]

    async def _names_of(self, keys: set[str]) -> dict[str, str]:
        """The names of keys, by their ids."""
        names, now, declared = {}, time.monotonic(), self._policy().keys
        for id in keys:
            if id in declared:
                names[id] = declared[id][0].name
                continue
            known = self._names.get(id)
            if known is None or known[1] < now:
                record = await self._records.get_record("key", id)
                name = "" if record is None else str(record.value.get("spec", {}).get("name") or "")
                if len(self._names) > _MOST_NAMES:
                    self._names.clear()
                known = self._names[id] = (name, now + _REMEMBER_S)
            names[id] = known[0]
        return names
