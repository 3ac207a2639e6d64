"""An upstream over the legacy SSE transport: everything from the server comes on one GET stream, everything to it is a
POST to the address that the stream begins with."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx2

from mcpgate.config.upstreams import UpstreamConfig
from mcpgate.errors import UpstreamError
from mcpgate.upstream.events import Event, EventReader
from mcpgate.upstream.framing import (
    Broken,
    Inbox,
    Message,
    Pace,
    Transport,
    deliver,
    encode,
    log,
    report_unreadable,
    too_long,
)
from mcpgate.upstream.secrets import Secrets, place
from mcpgate.upstream.web import Web, decoded, kind_of, open_web

_EVENTS = "text/event-stream"
_GONE = frozenset((404, 410))
_MAX_OFFERS = 32
"""Messages of no importance under way at once; further ones are dropped."""


@asynccontextmanager
async def open_sse(name: str, config: UpstreamConfig, inbox: Inbox, secrets: Secrets) -> AsyncIterator[Transport]:
    """Open the stream and talk until the block is left. Raises UpstreamError when there is no such stream."""
    async with open_web(config, secrets) as web, contextlib.AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(config.connect_timeout_s):
                response = await stack.enter_async_context(web.exchange("GET", web.url, {"accept": _EVENTS}))
                if response.status_code >= 300:
                    raise (await web.refusal(response))[0]
                if kind_of(response) != _EVENTS:
                    raise UpstreamError("this is not an SSE server: it answered with no event stream")
                stream = _Stream(web, response)
                first = await stream.next()
        except TimeoutError:
            raise UpstreamError("this is not an SSE server: its stream did not begin in time") from None
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise web.say(error) from error
        if first is None or first.kind != "endpoint" or first.too_long:
            raise UpstreamError("this is not an SSE server: it did not begin with its endpoint")
        transport = _Sse(name, web, inbox, _endpoint(web.url, first.data))
        pump = asyncio.create_task(transport.pump(stream))
        try:
            yield transport
        finally:
            await transport.aclose()
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)
            await stream.aclose()


class _Stream:
    """The events of one response."""

    def __init__(self, web: Web, response: httpx2.Response) -> None:
        self._reader = EventReader(web.limit)
        self._chunks = decoded(response)
        self._events: list[Event] = []

    async def next(self) -> Event | None:
        """None at the end. Raises httpx2.HTTPError."""
        while not self._events:
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                return None
            self._events = list(self._reader.feed(chunk))[::-1]
        return self._events.pop()

    def skipped(self) -> int:
        """Bytes since the last time that belonged to no event."""
        skipped, self._reader.skipped = self._reader.skipped, 0
        return skipped

    async def aclose(self) -> None:
        await self._chunks.aclose()


class _Sse:
    session: str | None = None
    hangs_up = False

    def __init__(self, name: str, web: Web, inbox: Inbox, endpoint: httpx2.URL) -> None:
        self._name, self._web, self._inbox, self._endpoint = name, web, inbox, endpoint
        self._offers: set[asyncio.Task[None]] = set()

    async def send(self, message: Message, headers: Mapping[str, str] | None = None) -> None:
        fields = {"content-type": "application/json", **(headers or {})}
        try:
            async with self._web.exchange("POST", self._endpoint, fields, encode(message)) as response:
                if response.status_code >= 300:
                    error, _ = await self._web.refusal(response)
                    if response.status_code in _GONE:
                        self._inbox.on_close(Broken(f"the server no longer knows the session: {error.message}"))
                    raise error
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise self._web.say(error) from error

    def offer(self, message: Message) -> None:
        if len(self._offers) >= _MAX_OFFERS:
            return
        task = asyncio.create_task(self._try_to_send(message))
        self._offers.add(task)
        task.add_done_callback(self._offers.discard)

    async def _try_to_send(self, message: Message) -> None:
        try:
            await self.send(message)
        except UpstreamError as error:
            log.debug("%s: a message was not taken: %s", self._name, error)

    def give_up(self, request_id: int) -> None:
        pass

    async def settled(self) -> None:
        pass

    async def pump(self, stream: _Stream) -> None:
        """Hand on what comes, until the stream ends."""
        pace, reason = Pace(), "the server closed the connection"
        try:
            while (event := await stream.next()) is not None:
                wait_s = 0.0 if self._take(event) else pace.spend(event.size)
                if skipped := stream.skipped():
                    wait_s = pace.spend(skipped)
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            reason = self._web.say(error).message
        except UpstreamError as error:
            reason = error.message
        self._inbox.on_close(Broken(reason))

    def _take(self, event: Event) -> bool:
        """Whether it was asked for."""
        if event.kind != "message" or not event.data:
            return False
        if event.too_long:
            report_unreadable(self._inbox, event.data, event.tail, too_long(event.size, self._web.limit))
            return False
        return deliver(event.data, self._inbox)

    async def aclose(self) -> None:
        for task in self._offers:
            task.cancel()
        await asyncio.gather(*self._offers, return_exceptions=True)


def _endpoint(here: httpx2.URL, said: bytes) -> httpx2.URL:
    """Where to send messages: on the same origin, for what is sent was configured for that."""
    try:
        endpoint = here.join(said.decode("utf-8", "replace").strip())
    except httpx2.InvalidURL as error:
        raise UpstreamError("the server names an endpoint that is no URL") from error
    if (endpoint.scheme, endpoint.host, endpoint.port) != (here.scheme, here.host, here.port):
        raise UpstreamError(f"the server names an endpoint of another origin: {place(str(endpoint))}")
    return endpoint.copy_with(userinfo=here.userinfo)
