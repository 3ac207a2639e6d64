"""Who may hold a connection: so many in all and so many from one address. When they run out, those give way that keep
the gateway waiting, then those that rest. Knows nothing of HTTP: see port.py."""

import heapq
import ipaddress
import time
from collections import deque
from collections.abc import Iterable
from enum import Enum
from typing import Protocol

from mcpgate.addresses import parse_address

_VICTIMS = 64
"""Connections to close that are looked for at once, so that a flood does not make each newcomer look through all."""
_LOOK_AGAIN_S = 0.1
"""After a look that found none."""
FULL = "all connections are in use; try again shortly"
"""Said to whoever gets no place."""
RETRY_S = 5
Spare = tuple[int, float]
"""Which of two connections gives way first: the lesser one."""


class Holder(Protocol):
    """One connection."""

    @property
    def origin(self) -> str:
        """What connections are counted by: see `origin_of`."""
        ...

    @property
    def exempt(self) -> bool:
        """Whether its origin has no limit of its own: a trusted proxy."""
        ...

    @property
    def spare(self) -> Spare | None:
        """That it may be closed for another: 0 for one that keeps the gateway waiting, 1 for one that rests, and since
        when. None while a request is under way."""
        ...

    def evict(self) -> None:
        """Close at once. Called for spare connections only."""
        ...


class Place(Enum):
    ORDINARY = 0
    RESERVED = 1
    """For health checks, when everything else is taken."""
    NONE = 2


class Places:
    """The connections of a port. Requests cost nothing here; only newcomers do."""

    def __init__(self, total: int, each: int, reserve: int) -> None:
        """`each`: connections of one origin. `reserve`: places beyond `total`."""
        self._total, self._each, self._reserve = total, each, reserve
        self._held: dict[Holder, Place] = {}
        self._of: dict[str, dict[Holder, None]] = {}
        """Ordinary places by origin."""
        self._reserved: dict[Holder, None] = {}
        self._victims: dict[str | None, deque[tuple[Holder, Spare]]] = {}
        """The next to give way, of an origin or, under None, of all; and why."""
        self._looked: dict[str | None, float] = {}
        """When a look found none."""

    def __len__(self) -> int:
        return len(self._held)

    def enter(self, holder: Holder, scarce: bool = False) -> Place:
        """A place for a new connection, if need be that of another. `scarce`: only that of another, for files that may
        be opened run short."""
        place = self._find(holder, scarce)
        if place is Place.ORDINARY:
            self._of.setdefault(holder.origin, {})[holder] = None
        elif place is Place.RESERVED:
            self._reserved[holder] = None
        else:
            return place
        self._held[holder] = place
        return place

    def leave(self, holder: Holder) -> None:
        """Does nothing for one that has no place."""
        place = self._held.pop(holder, None)
        if place is Place.RESERVED:
            del self._reserved[holder]
        elif place is Place.ORDINARY:
            own = self._of[holder.origin]
            del own[holder]
            if not own:
                del self._of[holder.origin]
                self._victims.pop(holder.origin, None)
                self._looked.pop(holder.origin, None)

    def shed(self) -> bool:
        """Close a spare connection; False where there is none."""
        return self._evict(self._next_victim(None))

    def _find(self, holder: Holder, scarce: bool) -> Place:
        if len(self._of.get(holder.origin, ())) >= self._each and not holder.exempt:
            found = self._evict(self._next_victim(holder.origin))
        elif scarce or len(self._held) - len(self._reserved) >= self._total:
            found = self.shed()
        else:
            found = True
        if found:
            return Place.ORDINARY
        if len(self._reserved) < self._reserve or self._evict(_first(self._reserved)):
            return Place.RESERVED
        return Place.NONE

    def _next_victim(self, origin: str | None) -> Holder | None:
        """The first spare connection of an origin, or of the origin that has most of them."""
        queue = self._victims.setdefault(origin, deque())
        for _ in range(2):
            while queue:
                holder, spare = queue.popleft()
                if holder in self._held and holder.spare == spare:
                    return holder
            now = time.monotonic()
            if now - self._looked.get(origin, 0.0) < _LOOK_AGAIN_S:
                break
            queue.extend(_of_one(self._of[origin]) if origin is not None else _of_all(self._of.values()))
            if not queue:
                self._looked[origin] = now
        return None

    def _evict(self, holder: Holder | None) -> bool:
        if holder is None:
            return False
        self.leave(holder)
        holder.evict()
        return True


def _spare(holders: Iterable[Holder]) -> list[tuple[Spare, int, Holder]]:
    """In the order in which they give way."""
    return sorted((spare, id(holder), holder) for holder in holders if (spare := holder.spare) is not None)


def _first(holders: Iterable[Holder]) -> Holder | None:
    spare = _spare(holders)
    return spare[0][2] if spare else None


def _of_one(holders: Iterable[Holder]) -> Iterable[tuple[Holder, Spare]]:
    return [(holder, spare) for spare, _, holder in _spare(holders)[:_VICTIMS]]


def _of_all(origins: Iterable[Iterable[Holder]]) -> Iterable[tuple[Holder, Spare]]:
    """From whoever has most at each step; of those that have as many, the first to give way."""
    heap = []
    for number, own in enumerate(origins):
        if queue := deque(_spare(own)):
            heap.append((-len(queue), queue[0][0], number, queue))
    heapq.heapify(heap)
    found: list[tuple[Holder, Spare]] = []
    while heap and len(found) < _VICTIMS:
        count, _, number, queue = heapq.heappop(heap)
        spare, _, holder = queue.popleft()
        found.append((holder, spare))
        if queue:
            heapq.heappush(heap, (count + 1, queue[0][0], number, queue))
    return found


def origin_of(address: str | None) -> str:
    """What an address is counted as: an IPv4 address as itself, an IPv6 address as its /64 network, of which one host
    has all addresses."""
    if address is None or ":" not in address:
        return address or ""
    seen = parse_address(address)
    if isinstance(seen, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Address(int(seen) >> 64 << 64)) + "/64"
    return address if seen is None else str(seen)
