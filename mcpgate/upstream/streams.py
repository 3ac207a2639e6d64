"""Event streams and unimportant messages, for both HTTP transports. It opens no connections: see remote.py and
sse.py."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from mcpgate.errors import UpstreamError
from mcpgate.upstream.events import Event, EventReader
from mcpgate.upstream.framing import Inbox, Message, Pace, deliver, log, report_unreadable, too_long

_SLICE = 8 * 1024
"""Bytes of a chunk that are read before the pace is checked: lines may be one byte long."""
_MAX_OFFERS = 32
"""Messages in transit at once; further ones are dropped."""


class Intake:
    """Passes the events of one server to its inbox. All its streams share one pace."""

    def __init__(self, inbox: Inbox, limit: int) -> None:
        """`limit`: the maximum size of an event in bytes."""
        self._inbox, self._limit, self._pace = inbox, limit, Pace()

    def reader(self) -> EventReader:
        return EventReader(self._limit)

    async def events(
        self, reader: EventReader, chunks: AsyncIterator[bytes], answers: int | None = None
    ) -> AsyncGenerator[Event, None]:
        """Yield events as they arrive. `answers`: the request that they answer. Raises UpstreamError as soon as its
        answer is too long, and whatever reading the chunks raises."""
        async for chunk in chunks:
            for start in range(0, len(chunk), _SLICE):
                for event in reader.feed(chunk[start : start + _SLICE]):
                    yield event
                if answers is not None and reader.pending > self._limit:
                    raise UpstreamError(too_long(reader.pending, self._limit))
                if reader.skipped:
                    await asyncio.sleep(self._pace.spend(reader.skipped))
                    reader.skipped = 0

    async def take(self, event: Event, answers: int | None = None) -> bool:
        """Pass one event on. Returns whether it was asked for. Pauses after unsolicited events that arrive too
        fast."""
        asked = False
        if event.kind == "message" and event.data:
            if event.too_long:
                reason = too_long(event.size, self._limit)
                report_unreadable(self._inbox, event.data, event.tail, reason, answers)
            else:
                asked = deliver(event.data, self._inbox, answers)
        if not asked and (wait_s := self._pace.spend(event.size)) > 0:
            await asyncio.sleep(wait_s)
        return asked


class Offers:
    """Sends unimportant messages in the background, and drops them if the other side does not keep up."""

    def __init__(self, name: str, send: Callable[[Message], Awaitable[None]]) -> None:
        """`send` may raise UpstreamError."""
        self._name, self._send = name, send
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, message: Message) -> None:
        if len(self._tasks) < _MAX_OFFERS:
            task = asyncio.create_task(self._try(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _try(self, message: Message) -> None:
        try:
            await self._send(message)
        except UpstreamError as error:
            log.debug("%s: a message was not accepted: %s", self._name, error)

    async def aclose(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
