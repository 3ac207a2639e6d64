"""Remote upstreams: streamable HTTP over the MCP SDK's client transport, and SSE. Raw messages: the SDK's typed
results would drop unknown fields and refuse unknown content types. Imported only when the configuration has a
`url`, for importing the SDK takes a second."""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import httpx2
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import ClientMessageMetadata, SessionMessage
from mcp_types import jsonrpc_message_adapter

from mcpgate.config.upstreams import UpstreamConfig
from mcpgate.errors import UpstreamError
from mcpgate.upstream.framing import Inbox, Message, Transport, deliver, encode

log = logging.getLogger("mcpgate.upstream")
_MIB = 1024 * 1024


@asynccontextmanager
async def open_streams(name: str, config: UpstreamConfig, inbox: Inbox, kind: str) -> AsyncIterator[Transport]:
    """Open the SDK's pair of streams and pump messages into `inbox` until the block is left."""
    assert config.url is not None
    try:
        async with AsyncExitStack() as stack:
            status = _LastStatus()
            http = await stack.enter_async_context(
                httpx2.AsyncClient(
                    headers=config.headers,
                    timeout=httpx2.Timeout(config.connect_timeout_s, read=None),
                    limits=httpx2.Limits(max_connections=None, max_keepalive_connections=32),
                    event_hooks=status.hooks(),
                )
            )
            if kind == "sse":
                yield await stack.enter_async_context(_sse(config, http, inbox))
                return
            # The default of 1 MiB an event fails ordinary large results.
            streams = streamable_http_client(
                config.url, http_client=http, max_sse_event_size=config.max_message_mib * _MIB
            )
            read, write, *_ = await stack.enter_async_context(streams)
            group = await stack.enter_async_context(anyio.create_task_group())
            transport = _SdkTransport(write, status)

            async def pump() -> None:
                async for item in read:
                    if isinstance(item, Exception):
                        inbox.on_unreadable(None, f"its answer could not be read: {item}")
                    else:
                        inbox.on_message(item.message.model_dump(by_alias=True, mode="json", exclude_unset=True))
                inbox.on_close("the server closed the connection")

            group.start_soon(pump)
            try:
                yield transport
            finally:
                group.cancel_scope.cancel()
    except BaseExceptionGroup as group_error:
        raise _unwrap(group_error) from group_error
    except httpx2.HTTPError as error:
        raise UpstreamError(_say(error)) from error


@asynccontextmanager
async def _sse(config: UpstreamConfig, http: httpx2.AsyncClient, inbox: Inbox) -> AsyncIterator[Transport]:
    """The legacy SSE transport. Our own, for the SDK's takes no more than 1 MiB an event."""
    assert config.url is not None
    async with http.stream("GET", config.url, headers={"accept": "text/event-stream"}) as response:
        response.raise_for_status()
        events = aiter(httpx2.EventSource(response, max_event_size=config.max_message_mib * _MIB))
        with anyio.fail_after(config.connect_timeout_s):
            first = await anext(events, None)
        if first is None or first.event != "endpoint":
            raise UpstreamError("this is not an SSE server: it did not begin with its endpoint")
        endpoint = httpx2.URL(config.url).join(first.data)
        here = httpx2.URL(config.url)
        if (endpoint.scheme, endpoint.host, endpoint.port) != (here.scheme, here.host, here.port):
            raise UpstreamError(f"the server names an endpoint of another origin: {endpoint}")

        async def pump() -> None:
            try:
                async for event in events:
                    if event.event == "message" and event.data:
                        deliver(event.data.encode(), inbox)
                inbox.on_close("the server closed the connection")
            except httpx2.HTTPError as error:
                inbox.on_close(_say(error))

        async with anyio.create_task_group() as group:
            group.start_soon(pump)
            try:
                yield _SseTransport(http, endpoint)
            finally:
                group.cancel_scope.cancel()


class _SseTransport:
    def __init__(self, http: httpx2.AsyncClient, endpoint: httpx2.URL) -> None:
        self._http, self._endpoint = http, endpoint

    async def send(self, message: Message, headers: Mapping[str, str] | None = None) -> None:
        fields = {"content-type": "application/json", **(headers or {})}
        try:
            response = await self._http.post(self._endpoint, content=encode(message), headers=fields)
            response.raise_for_status()
        except httpx2.HTTPError as error:
            raise UpstreamError(_say(error)) from error


class _LastStatus:
    """The last HTTP refusal, which the SDK's own errors do not tell."""

    def __init__(self) -> None:
        self.refusal = ""

    def hooks(self) -> dict[str, list[Any]]:
        async def note(response: httpx2.Response) -> None:
            if response.status_code >= 400 and response.request.method == "POST":
                self.refusal = f"HTTP {response.status_code} {response.reason_phrase}".strip()

        return {"response": [note]}


class _SdkTransport:
    def __init__(self, write: Any, status: _LastStatus) -> None:
        self._write, self.status = write, status

    async def send(self, message: Message, headers: Mapping[str, str] | None = None) -> None:
        wire = jsonrpc_message_adapter.validate_json(encode(message), by_name=False)
        metadata = ClientMessageMetadata(headers=dict(headers)) if headers else None
        try:
            await self._write.send(SessionMessage(wire, metadata))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise UpstreamError("the connection is closed") from None

    def refusal(self) -> str:
        """What the server said over HTTP when it last refused a message; empty if it did not."""
        return self.status.refusal


def _unwrap(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error that matters in nested groups."""
    errors: list[BaseException] = []

    def walk(error: BaseException) -> None:
        if isinstance(error, BaseExceptionGroup):
            for inner in error.exceptions:
                walk(inner)
        else:
            errors.append(error)

    walk(group)
    for error in errors:
        if isinstance(error, UpstreamError):
            return error
        if isinstance(error, httpx2.HTTPError):
            return UpstreamError(_say(error))
    return errors[0]


def _say(error: httpx2.HTTPError) -> str:
    if isinstance(error, httpx2.HTTPStatusError):
        return f"HTTP {error.response.status_code} {error.response.reason_phrase} from {error.request.url}"
    if isinstance(error, httpx2.ConnectError):
        return f"cannot connect: {error}"
    return f"{type(error).__name__}: {error}"
