"""Who may hold a connection: so many in all and so many from one address. When they run out, connections on which no
request is under way give way first. Knows nothing of HTTP: see port.py."""

import heapq
import ipaddress
from collections import deque
from collections.abc import Iterable
from enum import Enum
from typing import Protocol

from mcpgate.addresses import parse_address

_VICTIMS = 64
"""Idle connections that are looked for at once, so that a flood does not make each newcomer look through all."""


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
    def idle_since(self) -> float | None:
        """Since when no request is under way on it; None while one is."""
        ...

    def evict(self) -> None:
        """Close at once. Called for idle connections only."""
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
        self._victims: dict[str | None, deque[tuple[Holder, float]]] = {}
        """The next to give way, of an origin or, under None, of all; and since when they were idle."""

    def __len__(self) -> int:
        return len(self._held)

    def enter(self, holder: Holder) -> Place:
        """A place for a new connection, if need be that of an idle one."""
        place = self._find(holder)
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

    def shed(self) -> bool:
        """Close an idle connection; False where there is none."""
        return self._evict(self._next_victim(None))

    def _find(self, holder: Holder) -> Place:
        if len(self._of.get(holder.origin, ())) >= self._each and not holder.exempt:
            found = self._evict(self._next_victim(holder.origin))
        else:
            found = len(self._held) - len(self._reserved) < self._total or self.shed()
        if found:
            return Place.ORDINARY
        if len(self._reserved) < self._reserve or self._evict(_oldest(self._reserved)):
            return Place.RESERVED
        return Place.NONE

    def _next_victim(self, origin: str | None) -> Holder | None:
        """The oldest idle connection of an origin, or of the origin that has most of them."""
        queue = self._victims.setdefault(origin, deque())
        for _ in range(2):
            while queue:
                holder, since = queue.popleft()
                if holder in self._held and holder.idle_since == since:
                    return holder
            queue.extend(_of_one(self._of[origin]) if origin is not None else _of_all(self._of.values()))
        return None

    def _evict(self, holder: Holder | None) -> bool:
        if holder is None:
            return False
        self.leave(holder)
        holder.evict()
        return True


def _idle(holders: Iterable[Holder]) -> list[tuple[float, int, Holder]]:
    """The oldest first."""
    found = [(since, id(holder), holder) for holder in holders if (since := holder.idle_since) is not None]
    return heapq.nsmallest(_VICTIMS, found)


def _oldest(holders: Iterable[Holder]) -> Holder | None:
    idle = _idle(holders)
    return idle[0][2] if idle else None


def _of_one(holders: Iterable[Holder]) -> Iterable[tuple[Holder, float]]:
    return [(holder, since) for since, _, holder in _idle(holders)]


def _of_all(origins: Iterable[Iterable[Holder]]) -> Iterable[tuple[Holder, float]]:
    """From whoever has most at each step; of those that have as many, the oldest."""
    groups = [list(own) for own in origins]
    heap = []
    for number, own in enumerate(groups):
        count = sum(holder.idle_since is not None for holder in own)
        if count:
            idle = deque(_idle(own))
            heap.append((-count, idle[0][0], number, idle))
    heapq.heapify(heap)
    found: list[tuple[Holder, float]] = []
    while heap and len(found) < _VICTIMS:
        count, _, number, idle = heapq.heappop(heap)
        since, _, holder = idle.popleft()
        found.append((holder, since))
        if idle:
            heapq.heappush(heap, (count + 1, idle[0][0], number, idle))
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
