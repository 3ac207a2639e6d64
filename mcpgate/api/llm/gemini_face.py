"""/v1beta as clients of Gemini know it: the model and what is asked of it stand in the path. Everything else is as in
the rest of the LLM face."""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from mcpgate.api.http.exchange import Disconnected, Exchange
from mcpgate.api.http.routing import Handler, SocketHandler
from mcpgate.api.http.watch import HungUp
from mcpgate.api.llm import errors
from mcpgate.api.llm.face import LlmFace
from mcpgate.api.llm.reading import passed_on, read_name, read_object, session_of, whole_number
from mcpgate.cache.policy import read_wish
from mcpgate.errors import InvalidRequest, McpgateError
from mcpgate.llm.asked import COUNTS, Asked
from mcpgate.llm.bodies import find_lookalike
from mcpgate.llm.gemini_format import DECIDING, METHODS, STREAM_METHOD
from mcpgate.llm.messages import Untranslatable
from mcpgate.llm.metering import gemini_size_of
from mcpgate.telemetry.text import visible

_VERSIONS = r"/v1(?:alpha|beta)?"
_FORMATS = {**{method: format for format, method in METHODS.items()}, STREAM_METHOD: "gemini"}
_CALL = re.compile(rf"{_VERSIONS}/models/(.+):({'|'.join(_FORMATS)})", re.DOTALL)
_LISTS = ("/v1beta/models", "/v1alpha/models")
"""At /v1, others have lists, too: see models.format_of."""


class GeminiFace(LlmFace):
    """Models, generateContent, countTokens and embeddings. Google's SDKs ask for `v1beta` or for `v1`."""

    def handler(self, path: str) -> Mapping[str, Handler] | None:
        if _CALL.fullmatch(path):
            return {"POST": self._post}
        return {"GET": self._models} if _list_of(path) else None

    def socket_handler(self, path: str) -> SocketHandler | None:
        return None

    def refusal(self, error: McpgateError) -> dict[str, Any]:
        return errors.refusal("gemini", error)

    async def _models(self, http: Exchange) -> None:
        _take_key(http)
        await self._list(http, _list_of(http.path), "gemini")

    async def _post(self, http: Exchange) -> None:
        called = _CALL.fullmatch(http.path)
        assert called is not None
        model, method = called.groups()
        http.filler = b"\n"  # Google's SDK takes comments for data
        try:
            _take_key(http)
            context = await self._access.context(http)
            framing = "events" if http.query().get("alt") == "sse" else "array"
            asked = _asked(model, method, await http.body(), http.headers, framing)
            if asked.format in COUNTS and not self._chat.serves(context.caller, asked):
                tokens = self._chat.estimate(context.caller, asked).input_tokens
                await http.respond(200, orjson.dumps({"totalTokens": tokens}))
                return
            await self._answer(http, context, asked)
        except (Disconnected, HungUp):
            raise Disconnected from None


def _list_of(path: str) -> str:
    """The list that a path is, or is an entry of; empty if there is none."""
    return next((one for one in _LISTS if path == one or path.startswith(f"{one}/")), "")


def _take_key(http: Exchange) -> None:
    """At Google's own paths, the key may stand in the query; one in the headers goes before it. Raises
    InvalidRequest."""
    if not http.path.startswith("/v1/") and (key := http.query().get("key")):
        http.headers.setdefault("x-goog-api-key", key)


def _asked(model: str, method: str, body: bytes, headers: Mapping[str, str], framing: Any) -> Asked:
    """Raises InvalidRequest."""
    format, stream = _FORMATS[method], method == STREAM_METHOD
    parsed = read_object(body)
    configs = [config for name in ("generationConfig", "generation_config") for config in _objects(parsed, name)]
    for holder in (parsed, *configs):
        if (odd := find_lookalike(holder, DECIDING)) is not None:
            raise Untranslatable(visible(odd), "is not a field, but looks like one")
    tools = parsed.get("tools")
    return Asked(
        format=format,
        body=body,
        parsed=parsed,
        model=read_name(model),
        size=gemini_size_of(body, parsed),
        stream=stream,
        max_tokens=_most(configs, "maxOutputTokens", "max_output_tokens"),
        answers=_most(configs, "candidateCount", "candidate_count") or 1,
        tools=isinstance(tools, list) and bool(tools),
        images=b'"image/' in body,
        session=session_of({}, headers),
        headers=passed_on(format, headers),
        framing=framing if stream else "events",
        cache=read_wish(headers),
    )


def _objects(parsed: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = parsed.get(name)
    if found is None:
        return []
    if not isinstance(found, dict):
        raise InvalidRequest(f"{name}: must be an object", field=name)
    return [found]


def _most(configs: list[dict[str, Any]], *names: str) -> int | None:
    """The most of all that are given, in whatever spelling: which one counts is up to the provider."""
    given = [whole_number(config, name) for config in configs for name in names]
    return max((one for one in given if one is not None), default=None)
