"""Single flight: of several equal requests at once, one is asked, and the others wait for its answer. If it fails, one
other takes over. For one event loop."""

import asyncio
from enum import Enum
from typing import TypeAlias

_MOST_FAILED = 2
"""After as many failures, those that still wait ask for themselves: a provider that is away would make them wait in
turn."""


class Outcome(Enum):
    """What came of a flight."""

    KEPT = "kept"
    """The answer is in the cache."""
    NOT_KEPT = "not kept"
    """There was an answer, but not for others."""
    FAILED = "failed"


class Flight:
    """One request that others wait for. To be landed, whatever comes of it."""

    def __init__(self, flights: "Flights", id: str) -> None:
        self._flights, self.id = flights, id
        self._failed = 0
        self._waiting: dict[_Ticket, None] = {}
        """Those that wait, the first one first."""
        self._is_over = False

    def land(self, outcome: Outcome) -> None:
        """The first call counts."""
        if not self._is_over:
            self._is_over = True
            self._flights._landed(self, outcome)

    def wait(self) -> "_Ticket":
        ticket: _Ticket = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = None
        return ticket

    def leave(self, ticket: "_Ticket") -> None:
        ticket.cancel()
        self._waiting.pop(ticket, None)

    def succeed(self) -> "Flight":
        """What goes on in its place after a failure."""
        other = Flight(self._flights, self.id)
        other._failed, other._waiting = self._failed + 1, self._waiting
        return other

    def release(self, outcome: Outcome) -> None:
        for ticket in self._waiting:
            if not ticket.done():
                ticket.set_result(outcome)

    def next(self) -> "_Ticket | None":
        """Whoever has waited longest and still does."""
        while self._waiting:
            ticket = next(iter(self._waiting))
            del self._waiting[ticket]
            if not ticket.done():
                return ticket
        return None

    @property
    def may_be_repeated(self) -> bool:
        return self._failed + 1 < _MOST_FAILED


_Ticket: TypeAlias = "asyncio.Future[Flight | Outcome]"


class Flights:
    """Those under way, by what they ask for."""

    def __init__(self) -> None:
        self._open: dict[str, Flight] = {}

    def __len__(self) -> int:
        return len(self._open)

    async def join(self, id: str, longest_s: float) -> Flight | Outcome:
        """A flight to lead, or what came of the one that was waited for; NOT_KEPT after `longest_s`."""
        if (flight := self._open.get(id)) is None:
            flight = self._open[id] = Flight(self, id)
            return flight
        ticket = flight.wait()
        try:
            async with asyncio.timeout(longest_s):
                return await asyncio.shield(ticket)
        except TimeoutError:
            if ticket.done():
                return ticket.result()
            flight.leave(ticket)
            return Outcome.NOT_KEPT
        except asyncio.CancelledError:
            if not ticket.done():
                flight.leave(ticket)
            elif isinstance(given := ticket.result(), Flight):
                given.land(Outcome.FAILED)  # its turn came as it went away
            raise

    def _landed(self, flight: Flight, outcome: Outcome) -> None:
        if outcome is Outcome.FAILED and flight.may_be_repeated and (ticket := flight.next()) is not None:
            self._open[flight.id] = other = flight.succeed()
            ticket.set_result(other)
            return
        del self._open[flight.id]
        flight.release(Outcome.NOT_KEPT if outcome is Outcome.FAILED else outcome)
