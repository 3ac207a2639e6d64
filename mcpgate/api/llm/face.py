"""The LLM face: /v1 as clients of OpenAI and of Anthropic know it. What a request may cost and where it goes is decided
in llm/chat.py."""

import contextlib
from collections.abc import Mapping
from typing import Any

import orjson

from mcpgate import jsontext
from mcpgate.api.http.access import Access
from mcpgate.api.http.exchange import Closing, Disconnected, Exchange
from mcpgate.api.http.headers import governance_headers
from mcpgate.api.http.routing import Face, Handler, MethodNotAllowed
from mcpgate.api.http.watch import HungUp, Watch, Watcher
from mcpgate.api.llm import errors
from mcpgate.errors import InvalidRequest, McpgateError, UnknownModel
from mcpgate.governance.context import RequestContext
from mcpgate.llm.asked import Asked
from mcpgate.llm.attempt import Streamed, Whole
from mcpgate.llm.bodies import find_lookalike
from mcpgate.llm.chat import Answered, Chat
from mcpgate.llm.messages import Untranslatable
from mcpgate.llm.metering import size_of
from mcpgate.telemetry.text import visible

_FORMATS = {path: format for format, path in errors.ROUTES.items()}
_SESSION_HEADERS = (
    *("x-claude-code-session-id", "session-id", "thread-id", "x-session-id", "x-session-affinity"),
    "x-mcpgate-session",
)
"""By which agents name their sessions."""
_PASSED_ON = {
    "messages": ("anthropic-version", "anthropic-beta"),
    "count_tokens": ("anthropic-version", "anthropic-beta"),
    "responses": ("openai-beta", "originator", "version", "session-id", "thread-id", "x-codex-beta-features"),
    "chat": ("openai-beta",),
    "embeddings": (),
}
"""Headers of a client that belong to its format, and go on to a provider of the same one."""
_LONGEST_NAME = 512


class LlmFace(Face):
    """/v1 and what clients probe before they use it."""

    def __init__(self, chat: Chat, access: Access, closing: Closing) -> None:
        self._chat, self._access, self._watcher = chat, access, Watcher(access, closing)

    def handler(self, path: str) -> Mapping[str, Handler] | None:
        if path in _FORMATS:
            posts: dict[str, Handler] = {"POST": self._post}
            return {**posts, "GET": self._upgrade} if path == "/v1/responses" else posts
        if path == "/v1/models" or path.startswith("/v1/models/"):
            return {"GET": self._models}
        if path == "/api/hello":
            return {"HEAD": self._hello}
        return None

    def refusal(self, error: McpgateError) -> dict[str, Any]:
        return errors.refusal("chat", error)

    async def _hello(self, http: Exchange) -> None:
        await http.respond(200)

    async def _upgrade(self, http: Exchange) -> None:
        """Clients that dial a WebSocket go on over HTTP when they hear 426."""
        if "websocket" not in http.headers.get("upgrade", "").lower():
            raise MethodNotAllowed("GET is not allowed on /v1/responses; POST is", allow="POST")
        error = errors.body_of("responses", 426, "invalid_request", "WebSockets are not served here; use POST")
        await http.respond(426, orjson.dumps(error), {"upgrade": "HTTP/1.1", "connection": "close"})

    async def _models(self, http: Exchange) -> None:
        caller = await self._access.identify(http)
        names = self._chat.names(caller)
        anthropic = "anthropic-version" in http.headers
        wanted = http.path.removeprefix("/v1/models").strip("/")
        shown = [_model(name, anthropic) for name in names if not wanted or name == wanted]
        if wanted:
            if not shown:
                error = UnknownModel(f"no model {wanted!r}")
                await http.refuse(error, errors.refusal("messages" if anthropic else "chat", error))
                return
            await http.respond(200, orjson.dumps(shown[0]))
            return
        body: dict[str, Any] = {"object": "list", "data": shown}
        if anthropic:
            ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
            body = {"data": shown, "has_more": False, **ends}
        await http.respond(200, orjson.dumps(body))

    async def _post(self, http: Exchange) -> None:
        format = _FORMATS[http.path]
        try:
            context = await self._access.context(http)
            # Without a name here, for the body would be kept until the answer has ended.
            await self._answer(http, context, _asked(format, await http.body(), http.headers, _query(http)))
        except (Disconnected, HungUp):
            raise Disconnected from None
        except McpgateError as error:
            await http.refuse(error, errors.refusal(format, error))

    async def _answer(self, http: Exchange, context: RequestContext, asked: Asked) -> None:
        if asked.format == "count_tokens" and not self._chat.serves(context.caller, asked):
            tokens = self._chat.estimate(context.caller, asked).input_tokens
            await http.respond(200, orjson.dumps({"input_tokens": tokens}))
            return
        if asked.stream and not http.may_stream:
            raise InvalidRequest("event streams need HTTP/1.1 (for nginx: proxy_http_version 1.1)")
        what: Whole | Streamed | None = None
        headers: dict[str, str] = {}
        answering = self._chat.answering(context, asked)
        del asked
        try:
            async with self._watcher.over(http, context) as watch, answering as answer:
                what, headers = answer.what, _headers(answer)
                if isinstance(what, Streamed):
                    await self._stream(http, context, what, headers, watch)
        except McpgateError as error:
            if not isinstance(what, Streamed) or not http.started or isinstance(error, HungUp):
                raise
            await http.raw(b"".join(what.broken(error)))
        if isinstance(what, Whole):  # what it cost is known now
            headers |= {**what.headers, **governance_headers(context.trail)}
            await http.respond(what.status, what.body, headers)
            return
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
        "x-mcpgate-cache": "off",
    }


def _plain(text: str) -> str:
    return text.encode("ascii", "replace").decode()


def _model(name: str, anthropic: bool) -> dict[str, Any]:
    if anthropic:
        return {"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"}
    return {"id": name, "object": "model", "created": 0, "owned_by": "mcpgate"}


def _query(http: Exchange) -> str:
    """The query that clients of Anthropic add to ask for betas; any other is nobody's business but ours."""
    text = http.scope.get("query_string", b"").decode("latin-1")
    return text if text == "beta=true" else ""


def _asked(format: str, body: bytes, headers: Mapping[str, str], query: str) -> Asked:
    """Raises InvalidRequest."""
    try:
        parsed = jsontext.loads(body, most=jsontext.MAX_REQUEST_VALUES)
    except ValueError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise InvalidRequest("the body must be a JSON object")
    model = parsed.get("model")
    if not isinstance(model, str) or not 0 < len(model) <= _LONGEST_NAME or not model.isprintable():
        raise Untranslatable("model", f"must be the name of a model, of at most {_LONGEST_NAME} printable characters")
    if (odd := find_lookalike(parsed)) is not None:
        raise Untranslatable(visible(odd), f"is not a field; {odd.casefold()} is, in lower case")
    if parsed.get("background"):
        raise Untranslatable("background", "what is done in the background cannot be paid for; leave it out")
    stream = parsed.get("stream", False)
    if stream is not None and not isinstance(stream, bool):
        raise Untranslatable("stream", "must be true or false")
    tools = parsed.get("tools")
    return Asked(
        format=format,
        body=body,
        parsed=parsed,
        model=model,
        size=size_of(body, parsed),
        stream=bool(stream) and format not in ("embeddings", "count_tokens"),
        max_tokens=_most(parsed),
        answers=_whole(parsed, "n") or 1,
        tools=isinstance(tools, list) and bool(tools),
        images=b'"image' in body,
        session=_session(parsed, headers),
        query=query,
        headers={name: headers[name] for name in _PASSED_ON[format] if name in headers and headers[name].isascii()},
    )


def _most(parsed: Mapping[str, Any]) -> int | None:
    """The most of all limits that are given: which one counts is up to the provider."""
    given = [_whole(parsed, name) for name in ("max_completion_tokens", "max_output_tokens", "max_tokens")]
    return max((one for one in given if one is not None), default=None)


def _whole(parsed: Mapping[str, Any], name: str) -> int | None:
    value = parsed.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
        raise Untranslatable(name, "must be a whole number of at least 1")
    return value


def _session(parsed: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    for name in _SESSION_HEADERS:
        if headers.get(name):
            return visible(headers[name][:200])
    key = parsed.get("prompt_cache_key")
    return visible(key[:200]) if isinstance(key, str) else ""
