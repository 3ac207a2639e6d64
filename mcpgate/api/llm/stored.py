"""/v1/responses/{id} and /v1/files: what OpenAI's clients ask about responses and files that a provider keeps. Bytes go
through to the provider that has them; another caller's are as unknown as those that never were."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from urllib.parse import parse_qsl, quote, urlencode

from mcpgate import jsontext
from mcpgate.api.http.access import Access
from mcpgate.api.http.exchange import Closing, Disconnected, Exchange
from mcpgate.api.http.headers import governance_headers
from mcpgate.api.http.routing import Handler, SocketHandler
from mcpgate.api.http.watch import HungUp
from mcpgate.api.llm import errors
from mcpgate.api.llm.batch_files import BatchFiles, Opened
from mcpgate.api.llm.batches import download
from mcpgate.api.llm.face import LlmFace
from mcpgate.errors import InvalidRequest, McpgateError
from mcpgate.governance.context import RequestContext
from mcpgate.llm.attempt import Whole
from mcpgate.llm.batches import OWN
from mcpgate.llm.chat import Chat
from mcpgate.llm.files import Files
from mcpgate.llm.messages import Untranslatable
from mcpgate.llm.objects import Kept
from mcpgate.llm.provider import UPLOAD_S, Upload
from mcpgate.llm.stored import Stored

_METHODS = {
    "/v1/responses/{id}": ("GET", "DELETE"),
    "/v1/responses/{id}/cancel": ("POST",),
    "/v1/responses/{id}/input_items": ("GET",),
    "/v1/files": ("GET", "POST"),
    "/v1/files/{id}": ("GET", "DELETE"),
    "/v1/files/{id}/content": ("GET",),
}
_PATHS = [(re.compile(path.replace("{id}", "([^/]+)")), path) for path in _METHODS]
_PROVIDER = "x-mcpgate-provider"
_DOWNLOAD = {
    "content-type": "application/octet-stream",
    "content-disposition": "attachment",
    "x-content-type-options": "nosniff",
}
"""Of a file's content, which a browser must not take for a page of the gateway."""
_QUERY = frozenset(("include", "include[]", "include_obfuscation", "after", "limit", "order"))
"""Parameters that go on to the provider."""
_LONGEST_QUERY = 2000


class StoredFace(LlmFace):
    """Questions about what providers keep."""

    def __init__(self, chat: Chat, access: Access, closing: Closing) -> None:
        super().__init__(chat, access, closing)
        self._stored = Stored(chat)
        self._files = Files(chat, self._stored)
        self._batch_files = BatchFiles(chat)

    def handler(self, path: str) -> Mapping[str, Handler] | None:
        route, _ = _route(path)
        answer = self._file if route.startswith("/v1/files") else self._response
        return dict.fromkeys(_METHODS[route], answer) if route else None

    def socket_handler(self, path: str) -> SocketHandler | None:
        return None

    async def _response(self, http: Exchange) -> None:
        _, id = _route(http.path)
        try:
            context = await self._access.context(http)
            if http.method == "POST":
                await http.body()  # says nothing
            query = _query(http)
            kept = await self._stored.response(context.caller, id)
            await self._passed(http, context, kept, query)
        except (Disconnected, HungUp):
            raise Disconnected from None
        except McpgateError as error:
            await http.refuse(error, errors.refusal("responses", error))

    async def _file(self, http: Exchange) -> None:
        route, id = _route(http.path)
        try:
            context = await self._access.context(http)
            if id:
                kept = await self._files.find(context.caller, id)
                if kept.provider == OWN:
                    await self._own(http, context, kept, route.endswith("/content"))
                    return
                await self._passed(http, context, kept, "", _DOWNLOAD if route.endswith("/content") else {})
            elif http.method == "POST":
                await self._upload(http, context)
            else:
                page = await self._files.page(context.caller, http.query(), http.headers.get(_PROVIDER))
                await http.respond(200, jsontext.dumps(page))
        except (Disconnected, HungUp):
            raise Disconnected from None
        except McpgateError as error:
            if http.started:
                raise Disconnected from None  # the answer breaks off
            await http.refuse(error, errors.refusal("chat", error))

    async def _own(self, http: Exchange, context: RequestContext, kept: Kept, content: bool) -> None:
        """Answer about a file that the gateway keeps itself."""
        async with self._chat.admit(context, "chat", "files"):
            if content:
                await download(http, self._batch_files.content(kept), _DOWNLOAD["content-type"])
                return
            about = kept.about
            if http.method == "DELETE":
                await self._batch_files.delete(kept)
                about = jsontext.dumps({"id": kept.id, "object": "file", "deleted": True})
        await http.respond(200, about, governance_headers(context.trail))

    async def _passed(
        self,
        http: Exchange,
        context: RequestContext,
        kept: Kept,
        query: str,
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Answer with what the provider says. `more`: headers of an answer that is no error."""
        path = quote(http.path.removeprefix("/v1"))
        async with self._watcher.over(http, context):
            answer = await self._stored.ask(context, kept, http.method, path + query)
        await self._respond(http, context, kept.provider, answer, more if answer.status < 300 else {})

    async def _upload(self, http: Exchange, context: RequestContext) -> None:
        wanted = http.headers.get(_PROVIDER)
        provider = "" if wanted is None else self._files.provider_for(context.caller, wanted)
        type = http.headers.get("content-type", "")
        if not type.lower().startswith("multipart/form-data") or not type.isascii():
            raise InvalidRequest("a file is uploaded as multipart/form-data")
        length, opened = http.upload_length(), Opened(type, _in_time(http.parts()))
        if not provider:
            await opened.look(http)
            if opened.purpose == "batch":
                async with self._chat.admit(context, "chat", "files"):
                    about = await self._batch_files.add(context.caller, opened, length, type)
                await http.respond(200, about, governance_headers(context.trail))
                return
            provider = self._files.provider_for(context.caller, None)
        answer = await self._files.upload(context, provider, Upload(length, opened.pieces()), type)
        await self._respond(http, context, provider, answer)

    async def _respond(
        self,
        http: Exchange,
        context: RequestContext,
        provider: str,
        answer: Whole,
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        headers = {_PROVIDER: provider, **more, **answer.headers, **governance_headers(context.trail)}
        await http.respond(answer.status, answer.body, headers)


def _route(path: str) -> tuple[str, str]:
    """The route of a path, and the id in it; empty for none."""
    if path in errors.ROUTES.values():
        return "", ""
    found = ((route, pattern.fullmatch(path)) for pattern, route in _PATHS)
    return next(((route, "".join(match.groups())) for route, match in found if match is not None), ("", ""))


async def _in_time(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Parts of an upload. Raises InvalidRequest if they take too long."""
    until = time.monotonic() + UPLOAD_S
    while True:
        try:
            async with asyncio.timeout(until - time.monotonic()):
                part = await anext(parts)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise InvalidRequest(f"the upload did not end within {UPLOAD_S:.0f} s") from None
        yield part


def _query(http: Exchange) -> str:
    """The query that goes on to the provider. Raises InvalidRequest."""
    text = http.scope.get("query_string", b"").decode("latin-1")
    if len(text) > _LONGEST_QUERY:
        raise InvalidRequest(f"the query is over {_LONGEST_QUERY:,} characters")
    pairs = parse_qsl(text, keep_blank_values=True)
    if any(name == "stream" and value.lower() != "false" for name, value in pairs):
        raise Untranslatable("stream", "only what is done in the background can be streamed later; leave it out")
    passed = urlencode([pair for pair in pairs if pair[0] in _QUERY])
    return f"?{passed}" if passed else ""
