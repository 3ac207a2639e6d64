"""An upstream over streamable HTTP, in both protocol eras. Each message is a POST, answered with JSON or an event
stream; unsolicited messages of the server arrive on one standing GET stream.

We do not use the SDK's client: importing it takes a second, its typed results drop unknown fields and reject unknown
content types, it reads JSON bodies of any size, and one broken request ends all others. This module is imported only
when the configuration has a `url`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

import httpx2

from mcpgate.config.upstreams import UpstreamConfig
from mcpgate.errors import UpstreamError
from mcpgate.upstream.bearer import Bearer
from mcpgate.upstream.bodies import decoded
from mcpgate.upstream.connection import MODERN_VERSION
from mcpgate.upstream.events import EventReader
from mcpgate.upstream.framing import Inbox, Message, Transport, deliver, encode, log
from mcpgate.upstream.secrets import Secrets
from mcpgate.upstream.streams import Intake, Offers
from mcpgate.upstream.web import Web, kind_of, open_web, trace_of

_JSON, _EVENTS = "application/json", "text/event-stream"
_TOLD_BY_STATUS = frozenset((401, 403, 413, 429, 503))
"""Refusals that concern the caller or the moment, whatever the body says: the HTTP status counts."""
_GOODBYE_S = 2.0
_RESUME_AFTER_S, _RESUME_AFTER_AT_LEAST_S, _RESUME_AFTER_AT_MOST_S = 1.0, 0.1, 30.0
_MAX_EMPTY_RESUMES = 3
"""A broken answer is abandoned after this many resumptions without anything new."""
_SHORT_LIFE_S = 10.0
_LONGEST_PAUSE_S = 60.0
_LONGEST_SESSION = 4096
_MAX_REST, _REST_S = 64 * 1024, 1.0
"""What may follow the answer on a stream, in bytes and seconds; a longer stream is cut off."""


@asynccontextmanager
async def open_streamable(
    name: str, config: UpstreamConfig, inbox: Inbox, secrets: Secrets, bearer: Bearer
) -> AsyncIterator[Transport]:
    """Communicate over streamable HTTP until the block exits. Connects with the first message."""
    async with open_web(config, secrets, bearer) as web:
        transport = _StreamableHttp(name, web, inbox, config.connect_timeout_s)
        try:
            yield transport
        finally:
            await transport.aclose()


class _StreamableHttp:
    def __init__(self, name: str, web: Web, inbox: Inbox, patience_s: float) -> None:
        self._name, self._web, self._inbox, self._patience_s = name, web, inbox, patience_s
        self._version: str | None = None
        self._intake = Intake(inbox, web.limit)
        self._offers = Offers(name, self._notify)
        self._requests: set[asyncio.Task[None]] = set()
        self._unanswered: dict[int, asyncio.Task[None]] = {}
        """Requests by id, until the answer has arrived in their own response."""
        self._standing: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._late = False
        """Whether someone waits, or has given up waiting, for the standing stream to open."""
        self.session: str | None = None

    @property
    def hangs_up(self) -> bool:
        return self._version == MODERN_VERSION

    async def send(self, message: Message, headers: Mapping[str, str] | None = None) -> None:
        method, id = message.get("method"), message.get("id")
        if method == "initialize":
            self.session = self._version = None
            self._stop_standing()
        elif headers:
            self._version = headers.get("mcp-protocol-version", self._version)
        if id is not None and method is not None:
            fields = {**(headers or {}), **trace_of(message)}
            request = self._request(id, encode(message), fields, method == "initialize")
            task = self._unanswered[id] = asyncio.create_task(request)
            self._requests.add(task)
            task.add_done_callback(self._requests.discard)
            return
        await self._notify(message)
        if method == "notifications/initialized":
            self._stop_standing()
            self._settled.clear()
            self._standing = asyncio.create_task(self._stand())

    def offer(self, message: Message) -> None:
        self._offers.add(message)

    def give_up(self, request_id: int) -> None:
        task = self._unanswered.pop(request_id, None)
        if task is not None:
            task.cancel()

    async def settled(self) -> None:
        self._late = True
        await self._settled.wait()
        self._late = False

    async def aclose(self) -> None:
        tasks = [*self._requests, *([self._standing] if self._standing else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(self._offers.aclose(), *tasks, return_exceptions=True)
        if self.session is not None:
            with contextlib.suppress(TimeoutError, httpx2.HTTPError, UpstreamError):
                async with asyncio.timeout(_GOODBYE_S):
                    async with self._web.exchange("DELETE", self._web.url, self._headers({})):
                        pass

    def _headers(self, more: Mapping[str, str]) -> dict[str, str]:
        headers = {"accept": f"{_JSON}, {_EVENTS}"}
        if self.session is not None:
            headers["mcp-session-id"] = self.session
        if self._version is not None:
            headers["mcp-protocol-version"] = self._version
        return {**headers, **more}

    # --- one message

    async def _notify(self, message: Message) -> None:
        body, headers = encode(message), self._headers({"content-type": _JSON})
        try:
            async with asyncio.timeout(self._patience_s):
                async with self._web.exchange("POST", self._web.url, headers, body) as response:
                    if response.status_code >= 300:
                        log.debug("%s: a notification was answered with HTTP %d", self._name, response.status_code)
        except TimeoutError:
            raise UpstreamError("a notification was not accepted in time") from None
        except httpx2.HTTPError as error:
            raise self._web.say(error) from error

    async def _request(self, id: int, body: bytes, headers: Mapping[str, str], begins_session: bool) -> None:
        """Carry out one request. Its failure affects no other request."""
        try:
            broken = None
            fields = self._headers({"content-type": _JSON, **headers})
            async with self._web.exchange("POST", self._web.url, fields, body) as response:
                if begins_session and response.status_code < 300:
                    self.session = _session_of(response)
                if response.status_code >= 300:
                    await self._refused(id, response)
                elif kind_of(response) == _EVENTS:
                    broken = await self._read_answer(id, self._intake.reader(), response)
                else:
                    await self._whole(id, response)
            if broken is not None:
                await self._resume(id, broken)
        except UpstreamError as error:
            self._inbox.on_failure(id, error)
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            self._inbox.on_failure(id, self._web.say(error))
        except Exception as error:
            log.exception("%s: a request failed unexpectedly", self._name)
            self._inbox.on_failure(id, UpstreamError(f"the request failed: {type(error).__name__}"))

    async def _refused(self, id: int, response: httpx2.Response) -> None:
        error, parsed = await self._web.refusal(response)
        told = parsed.get("error") if isinstance(parsed, dict) else None
        if response.status_code not in _TOLD_BY_STATUS and isinstance(told, dict) and "code" in told:
            self._inbox.on_message({"jsonrpc": "2.0", "id": id, "error": told}, response.status_code)
        else:
            raise error

    async def _whole(self, id: int, response: httpx2.Response) -> None:
        body = await self._web.body(response)
        if not body.strip():
            if response.status_code == 202 and self._standing is not None and not self._standing.done():
                return  # against the rules, but the answer may come on the standing stream
            raise UpstreamError(f"HTTP {response.status_code} without an answer")
        kind = kind_of(response)
        if kind != _JSON and body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"{", b"["):
            raise UpstreamError(f"it answered with {kind[:100] or 'data of no type'} instead of JSON")
        if not deliver(body, self._inbox, id):
            raise UpstreamError("the response holds no answer")

    # --- streams

    async def _read_answer(self, id: int, reader: EventReader, response: httpx2.Response) -> "_Torn | None":
        """Read the events that answer a request. Returns None once it is answered, otherwise where the stream
        broke."""
        try:
            if await self._read(reader, response, id):
                return None
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            return _Torn(reader, self._web.say(error))
        return _Torn(reader, UpstreamError("the server ended the stream before the answer"))

    async def _read(self, reader: EventReader, response: httpx2.Response, id: int | None) -> bool:
        """Pass events on as they arrive; for request `id`, until its answer is there. Returns whether it is."""
        async with (
            contextlib.aclosing(decoded(response)) as chunks,
            contextlib.aclosing(self._intake.events(reader, chunks, id)) as events,
        ):
            async for event in events:
                if await self._intake.take(event, id) and id is not None:
                    self._unanswered.pop(id, None)
                    await self._drain(chunks)
                    return True
        return False

    async def _drain(self, chunks: AsyncIterator[bytes]) -> None:
        """Wait for the end of a stream whose answer has arrived, so that its connection can be reused."""
        left = _MAX_REST
        with contextlib.suppress(TimeoutError, httpx2.HTTPError, UpstreamError):
            async with asyncio.timeout(_REST_S):
                async for chunk in chunks:
                    left -= len(chunk)
                    if left < 0:
                        return

    async def _resume(self, id: int, broken: "_Torn") -> None:
        """Request the rest of an answer whose stream broke, if the server supports that."""
        reader, empty = broken.reader, 0
        while True:
            last_id, retry_s = reader.last_id, reader.retry_s
            if self.hangs_up or not last_id or not last_id.isascii() or not last_id.isprintable():
                raise broken.error
            if empty >= _MAX_EMPTY_RESUMES:
                raise broken.error
            wait_s = _RESUME_AFTER_S if retry_s is None else retry_s
            await asyncio.sleep(min(max(wait_s, _RESUME_AFTER_AT_LEAST_S), _RESUME_AFTER_AT_MOST_S))
            reader = self._intake.reader()
            reader.last_id, reader.retry_s = last_id, retry_s
            fields = self._headers({"accept": _EVENTS, "last-event-id": last_id})
            try:
                async with self._web.exchange("GET", self._web.url, fields) as response:
                    if response.status_code >= 300 or kind_of(response) != _EVENTS:
                        raise broken.error
                    again = await self._read_answer(id, reader, response)
            except httpx2.HTTPError as error:
                again = _Torn(reader, self._web.say(error))
            if again is None:
                return
            broken = again
            empty = 0 if reader.last_id != last_id else empty + 1

    async def _stand(self) -> None:
        """Keep the standing stream open. After a gap the tools are listed again, because an announced change may
        have been missed."""
        reader, was_open, failures = self._intake.reader(), False, 0
        loop = asyncio.get_running_loop()
        try:
            while True:
                began, last_id = loop.time(), reader.last_id
                fields = self._headers({"accept": _EVENTS, **({"last-event-id": last_id} if last_id else {})})
                reader = self._intake.reader()
                reader.last_id = last_id
                try:
                    async with self._web.exchange("GET", self._web.url, fields) as response:
                        if response.status_code >= 300 or kind_of(response) != _EVENTS:
                            if was_open:
                                self._suspect_changes()  # listing reveals whether the session is gone
                            return
                        if self._missed_some(was_open, last_id):
                            self._suspect_changes()
                        was_open = True
                        self._settled.set()
                        await self._read(reader, response, None)
                except (httpx2.HTTPError, httpx2.StreamError) as error:
                    log.debug("%s: the standing stream broke: %r", self._name, error)
                failures = 0 if loop.time() - began > _SHORT_LIFE_S else failures + 1
                pause_s = max(reader.retry_s or 0.0, _RESUME_AFTER_S * 2 ** min(failures - 1, 6))
                await asyncio.sleep(min(pause_s, _LONGEST_PAUSE_S))
        except UpstreamError as error:
            log.debug("%s: no standing stream: %s", self._name, error)
        finally:
            self._settled.set()

    def _missed_some(self, was_open: bool, last_id: str) -> bool:
        return not last_id if was_open else self._late

    def _suspect_changes(self) -> None:
        self._inbox.on_message({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})

    def _stop_standing(self) -> None:
        if self._standing is not None:
            self._standing.cancel()
            self._standing = None


class _Torn(NamedTuple):
    """An answer whose stream broke."""

    reader: EventReader
    error: UpstreamError


def _session_of(response: httpx2.Response) -> str | None:
    """The session that a server has started; an id that cannot be sent back is ignored."""
    session = response.headers.get("mcp-session-id")
    if not session or len(session) > _LONGEST_SESSION or not session.isascii() or not session.isprintable():
        return None
    return str(session)
