"""Who may hold a connection: so many in all and so many from one address. When they run out, connections on which no
request is under way give way first. Knows nothing of HTTP: see port.py."""

import ipaddress
from collections import OrderedDict
from collections.abc import Sequence
from enum import Enum
from typing import Protocol

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


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

    def evict(self) -> None:
        """Close at once. Called for idle connections only."""
        ...


class Place(Enum):
    ORDINARY = 0
    RESERVED = 1
    """For health checks, when everything else is taken."""
    NONE = 2


class Places:
    """The connections of a port. Each step takes the same time however many there are."""

    def __init__(self, total: int, each: int, reserve: int) -> None:
        """`each`: connections of one origin. `reserve`: places beyond `total`."""
        self._total, self._each, self._reserve = total, each, reserve
        self._held: dict[Holder, Place] = {}
        self._by_origin: dict[str, int] = {}
        self._reserved = 0
        self._idle = _Idle()
        self._idle_reserved: OrderedDict[Holder, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def enter(self, holder: Holder) -> Place:
        """A place for a new connection, which is idle, if need be that of another idle one."""
        place = self._find(holder)
        if place is Place.NONE:
            return place
        self._held[holder] = place
        if place is Place.RESERVED:
            self._reserved += 1
        else:
            self._by_origin[holder.origin] = self._by_origin.get(holder.origin, 0) + 1
        self.idle(holder)
        return place

    def leave(self, holder: Holder) -> None:
        """Does nothing for one that has no place."""
        place = self._held.pop(holder, None)
        if place is None:
            return
        self._wake(holder, place)
        if place is Place.RESERVED:
            self._reserved -= 1
            return
        left = self._by_origin[holder.origin] - 1
        if left:
            self._by_origin[holder.origin] = left
        else:
            del self._by_origin[holder.origin]

    def idle(self, holder: Holder) -> None:
        """No request is under way on it, or none any more."""
        place = self._held.get(holder)
        if place is Place.ORDINARY:
            self._idle.add(holder)
        elif place is Place.RESERVED:
            self._idle_reserved[holder] = None

    def busy(self, holder: Holder) -> None:
        """A request is under way on it."""
        place = self._held.get(holder)
        if place is not None:
            self._wake(holder, place)

    def shed(self, count: int) -> int:
        """Close up to so many idle connections; how many were closed."""
        for done in range(count):
            victim = self._idle.oldest()
            if victim is None:
                return done
            self._evict(victim)
        return count

    def _find(self, holder: Holder) -> Place:
        own = self._by_origin.get(holder.origin, 0)
        victim: Holder | None = None
        if own >= self._each and not holder.exempt:
            victim = self._idle.oldest(holder.origin)
        elif len(self._held) - self._reserved < self._total:
            return Place.ORDINARY
        else:
            victim = self._idle.oldest()
        if victim is not None:
            self._evict(victim)
            return Place.ORDINARY
        if self._reserved < self._reserve:
            return Place.RESERVED
        if self._idle_reserved:
            self._evict(next(iter(self._idle_reserved)))
            return Place.RESERVED
        return Place.NONE

    def _wake(self, holder: Holder, place: Place) -> None:
        if place is Place.RESERVED:
            self._idle_reserved.pop(holder, None)
        else:
            self._idle.remove(holder)

    def _evict(self, holder: Holder) -> None:
        self.leave(holder)
        holder.evict()


class _Idle:
    """Idle connections in the order in which they became so, by origin; and origins by how many they have."""

    def __init__(self) -> None:
        self._of: dict[str, OrderedDict[Holder, None]] = {}
        self._with: dict[int, OrderedDict[str, None]] = {}
        """Number of idle connections → origins that have so many."""
        self._most = 0

    def add(self, holder: Holder) -> None:
        own = self._of.setdefault(holder.origin, OrderedDict())
        if holder in own:
            return
        before = len(own)
        own[holder] = None
        self._move(holder.origin, before, before + 1)

    def remove(self, holder: Holder) -> None:
        own = self._of.get(holder.origin)
        if own is None or holder not in own:
            return
        before = len(own)
        del own[holder]
        if not own:
            del self._of[holder.origin]
        self._move(holder.origin, before, before - 1)

    def oldest(self, origin: str | None = None) -> Holder | None:
        """Of an origin; by default of the one that has most."""
        if origin is None:
            if not self._most:
                return None
            origin = next(iter(self._with[self._most]))
        own = self._of.get(origin)
        return next(iter(own)) if own else None

    def _move(self, origin: str, before: int, after: int) -> None:
        if before:
            group = self._with[before]
            del group[origin]
            if not group:
                del self._with[before]
        if after:
            self._with.setdefault(after, OrderedDict())[origin] = None
        # Numbers change by one, so the largest does too.
        if after > self._most:
            self._most = after
        elif self._most not in self._with:
            self._most = max(0, self._most - 1)


def origin_of(address: str | None) -> str:
    """What an address is counted as: an IPv4 address as itself, an IPv6 address as its /64 network, of which one host
    has all addresses."""
    if address is None or ":" not in address:
        return address or ""
    try:
        seen = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if seen.ipv4_mapped is not None:
        return str(seen.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(seen) >> 64 << 64)) + "/64"


def is_in(address: str | None, networks: Sequence[Network]) -> bool:
    """Whether an address belongs to one of the networks."""
    if not networks or address is None:
        return False
    try:
        seen = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(seen, ipaddress.IPv6Address) and seen.ipv4_mapped is not None:
        seen = seen.ipv4_mapped
    return any(seen.version == network.version and seen in network for network in networks)
