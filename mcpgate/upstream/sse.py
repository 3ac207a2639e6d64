"""An upstream over the legacy SSE transport: everything from the server arrives on one GET stream, and everything
to it is a POST to the address that the stream starts with."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx2

from mcpgate.config.upstreams import UpstreamConfig
from mcpgate.errors import UpstreamError
from mcpgate.upstream.bearer import Bearer
from mcpgate.upstream.bodies import decoded
from mcpgate.upstream.events import Event
from mcpgate.upstream.framing import Broken, Inbox, Message, Transport, encode
from mcpgate.upstream.secrets import Secrets, place
from mcpgate.upstream.streams import Intake, Offers
from mcpgate.upstream.web import Web, kind_of, open_web, trace_of

_EVENTS = "text/event-stream"
_GONE = frozenset((404, 410))


@asynccontextmanager
async def open_sse(
    name: str, config: UpstreamConfig, inbox: Inbox, secrets: Secrets, bearer: Bearer
) -> AsyncIterator[Transport]:
    """Open the stream and communicate until the block exits. Raises UpstreamError if there is no such stream."""
    async with open_web(config, secrets, bearer) as web, contextlib.AsyncExitStack() as stack:
        intake = Intake(inbox, web.limit)
        try:
            async with asyncio.timeout(config.connect_timeout_s):
                response = await stack.enter_async_context(web.exchange("GET", web.url, {"accept": _EVENTS}))
                if response.status_code >= 300:
                    raise (await web.refusal(response))[0]
                if kind_of(response) != _EVENTS:
                    raise UpstreamError("this is not an SSE server: it did not answer with an event stream")
                chunks = await stack.enter_async_context(contextlib.aclosing(decoded(response)))
                events = await stack.enter_async_context(contextlib.aclosing(intake.events(intake.reader(), chunks)))
                first = await anext(events, None)
        except TimeoutError:
            raise UpstreamError("this is not an SSE server: its stream did not begin in time") from None
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise web.say(error) from error
        if first is None or first.kind != "endpoint" or first.too_long:
            raise UpstreamError("this is not an SSE server: it did not begin with its endpoint")
        transport = _Sse(name, web, inbox, intake, _endpoint(web.url, first.data))
        pump = asyncio.create_task(transport.pump(events))
        try:
            yield transport
        finally:
            await transport.aclose()
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)


class _Sse:
    session: str | None = None
    hangs_up = False

    def __init__(self, name: str, web: Web, inbox: Inbox, intake: Intake, endpoint: httpx2.URL) -> None:
        self._web, self._inbox, self._intake, self._endpoint = web, inbox, intake, endpoint
        self._offers = Offers(name, self.send)

    async def send(self, message: Message, headers: Mapping[str, str] | None = None) -> None:
        fields = {"content-type": "application/json", **(headers or {}), **trace_of(message)}
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
        self._offers.add(message)

    def give_up(self, request_id: int) -> None:
        pass

    async def settled(self) -> None:
        pass

    async def pump(self, events: AsyncIterator[Event]) -> None:
        """Pass on what arrives until the stream ends."""
        reason = "the server closed the connection"
        try:
            async for event in events:
                await self._intake.take(event)
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            reason = self._web.say(error).message
        except UpstreamError as error:
            reason = error.message
        self._inbox.on_close(Broken(reason))

    async def aclose(self) -> None:
        await self._offers.aclose()


def _endpoint(here: httpx2.URL, said: bytes) -> httpx2.URL:
    """Where to send messages. It must be on the same origin, for which headers and secrets were configured."""
    try:
        endpoint = here.join(said.decode("utf-8", "replace").strip())
    except httpx2.InvalidURL as error:
        raise UpstreamError("the server names an endpoint that is not a URL") from error
    if (endpoint.scheme, endpoint.host, endpoint.port) != (here.scheme, here.host, here.port):
        raise UpstreamError(f"the server names an endpoint of another origin: {place(str(endpoint))}")
    return endpoint.copy_with(userinfo=here.userinfo)
