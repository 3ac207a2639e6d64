"""The LLM face: /v1 as clients of OpenAI and of Anthropic know it. What a request may cost and where it goes is decided
in llm/chat.py."""

import contextlib
from collections.abc import Mapping
from typing import Any

import orjson

from mcpgate.api.http.access import Access
from mcpgate.api.http.exchange import Closing, Disconnected, Exchange
from mcpgate.api.http.headers import governance_headers
from mcpgate.api.http.routing import Face, Handler, MethodNotAllowed, SocketHandler
from mcpgate.api.http.sockets import Socket
from mcpgate.api.http.watch import HungUp, Watch, Watcher
from mcpgate.api.llm import errors, models
from mcpgate.api.llm.arrays import as_array
from mcpgate.api.llm.reading import query_of, read_asked
from mcpgate.api.llm.socket import ResponsesSocket
from mcpgate.errors import InvalidRequest, McpgateError, UnknownModel
from mcpgate.governance.context import RequestContext
from mcpgate.llm.asked import COUNTS, Asked
from mcpgate.llm.attempt import Streamed, Whole
from mcpgate.llm.chat import Answered, Chat

_FORMATS = {path: format for format, path in errors.ROUTES.items() if not errors.is_google(format)}


class LlmFace(Face):
    """/v1 and what clients probe before they use it."""

    def __init__(self, chat: Chat, access: Access, closing: Closing) -> None:
        self._chat, self._access, self._closing = chat, access, closing
        self._watcher = Watcher(access, closing)

    def handler(self, path: str) -> Mapping[str, Handler] | None:
        if path in _FORMATS:
            posts: dict[str, Handler] = {"POST": self._post}
            return {**posts, "GET": self._upgrade} if path == "/v1/responses" else posts
        if path == "/v1/models" or path.startswith("/v1/models/"):
            return {"GET": self._models}
        if path == "/api/hello":
            return {"HEAD": self._hello}
        return None

    def socket_handler(self, path: str) -> SocketHandler | None:
        return self._responses_socket if path == "/v1/responses" else None

    async def _responses_socket(self, socket: Socket, http: Exchange) -> None:
        caller = await self._access.identify(http)
        with self._access.standing_stream(caller):
            await socket.accept({"x-request-id": http.id})
            await ResponsesSocket(
                *(socket, http, self._chat, self._access, self._watcher, self._closing),
                lambda body: read_asked("responses", body, http.headers, ""),
                http.limit,
            ).serve()

    def refusal(self, error: McpgateError) -> dict[str, Any]:
        return errors.refusal("chat", error)

    async def _hello(self, http: Exchange) -> None:
        await http.respond(200)

    async def _upgrade(self, http: Exchange) -> None:
        """Where no WebSocket can be served (see port.py): clients that dial one go on over HTTP when they hear 426."""
        if "websocket" not in http.headers.get("upgrade", "").lower():
            raise MethodNotAllowed("GET is not allowed on /v1/responses; POST is", allow="POST")
        error = errors.body_of("responses", 426, "invalid_request", "WebSockets are not served here; use POST")
        await http.respond(426, orjson.dumps(error), {"upgrade": "HTTP/1.1", "connection": "close"})

    async def _models(self, http: Exchange) -> None:
        await self._list(http, "/v1/models", models.format_of(http.headers))

    async def _list(self, http: Exchange, path: str, format: str) -> None:
        """All models that the caller may use, or the one whose name follows in the path."""
        caller = await self._access.identify(http)
        names = self._chat.names(caller)
        wanted = http.path.removeprefix(path).strip("/")
        if not wanted:
            await http.respond(200, orjson.dumps(models.render_models(names, format)))
        elif wanted in names:
            await http.respond(200, orjson.dumps(models.render_model(wanted, format)))
        else:
            error = UnknownModel(f"no model {wanted!r}")
            await http.refuse(error, errors.refusal(format, error))

    async def _post(self, http: Exchange) -> None:
        format = _FORMATS[http.path]
        try:
            context = await self._access.context(http)
            # Without a name here, for the body would be kept until the answer has ended.
            await self._answer(
                http,
                context,
                await self._chat.bound(
                    context.caller, read_asked(format, await http.body(), http.headers, query_of(http))
                ),
            )
        except (Disconnected, HungUp):
            raise Disconnected from None
        except McpgateError as error:
            await http.refuse(error, errors.refusal(format, error))

    async def _answer(self, http: Exchange, context: RequestContext, asked: Asked) -> None:
        if asked.format in COUNTS and not self._chat.serves(context.caller, asked):
            counted = {"object": "response.input_tokens"} if asked.format == "input_tokens" else {}
            tokens = self._chat.estimate(context.caller, asked).input_tokens
            await http.respond(200, orjson.dumps({**counted, "input_tokens": tokens}))
            return
        if asked.stream and not http.may_stream:
            raise InvalidRequest("event streams need HTTP/1.1 (for nginx: proxy_http_version 1.1)")
        format, framing = asked.format, asked.framing
        what: Whole | Streamed | None = None
        headers: dict[str, str] = {}
        answering = self._chat.answering(context, asked)
        del asked
        try:
            async with self._watcher.over(http, context) as watch, answering as answer:
                what, headers = answer.what, _headers(answer)
                if isinstance(what, Streamed):
                    if framing == "array":
                        what, headers["content-type"] = as_array(what), "application/json"
                    await self._stream(http, context, what, headers, watch)
        except McpgateError as error:
            if not isinstance(what, Streamed) or not http.started or isinstance(error, HungUp):
                raise
            await http.raw(b"".join(what.broken(error)))
        if isinstance(what, Whole):  # what it cost is known now
            headers |= {**what.headers, **governance_headers(context.trail)}
            await http.respond(what.status, what.body, headers)
            return
        if not errors.is_google(format):  # whose SDK takes comments for data
            late = governance_headers(context.trail)
            await http.raw(b"".join(b": %s: %s\n" % (k.encode(), v.encode()) for k, v in late.items()) + b"\n")
        await http.end_stream()

    async def _stream(
        self, http: Exchange, context: RequestContext, answer: Streamed, headers: dict[str, str], watch: Watch
    ) -> None:
        if not answer.holds_request:
            http.release()
        async with contextlib.aclosing(answer.events) as events:  # type: ignore[type-var]
            await http.start_stream({**headers, **governance_headers(context.trail)})
            async for event in events:
                await watch.write(event)


def _headers(answer: Answered) -> dict[str, str]:
    return {
        "x-mcpgate-provider": _plain(answer.target.provider),
        "x-mcpgate-model": _plain(answer.target.model),
        "x-mcpgate-attempts": str(answer.attempts),
        "x-mcpgate-cache": answer.cache,
        **_of_cache(answer),
    }


def _of_cache(answer: Answered) -> dict[str, str]:
    """What the cache says: the entry's id, by which it can be dropped or judged, its age and how alike the questions
    are."""
    if answer.question is None:
        return {}
    hit = answer.hit
    if hit is None:
        return {"x-mcpgate-cache-key": answer.question.id}
    age = str(int(hit.age_s))
    headers = {"x-mcpgate-cache-key": hit.entry.id, "age": age, "x-mcpgate-cache-age": age}
    if hit.similarity is not None:
        headers["x-mcpgate-cache-similarity"] = f"{hit.similarity:.4f}"
    return headers


def _plain(text: str) -> str:
    return text.encode("ascii", "replace").decode()
