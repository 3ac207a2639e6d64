"""Makes one client's request fit one provider. Where both speak the same format, bytes go through: only the name of the
model changes, and a stream is asked for its usage. Else the request and its answer are translated through the neutral
form (llm/messages.py)."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from mcpgate import jsontext
from mcpgate.api.llm import embeddings, errors
from mcpgate.errors import McpgateError, NotFound, UpstreamError
from mcpgate.llm.asked import EMBEDS, Asked
from mcpgate.llm.bodies import with_field
from mcpgate.llm.events import Events, parts_of
from mcpgate.llm.gemini_format import METHODS, body_for
from mcpgate.llm.messages import Broken, ChatRequest, PartGrew, Started, StreamEvent, Untranslatable
from mcpgate.llm.metering import decoded
from mcpgate.llm.provider import Call, Provider
from mcpgate.llm.routing import Target
from mcpgate.llm.wire import ClientSide, ProviderSide, StreamWriter
from mcpgate.providers import bedrock

_NEUTRAL_ORDER = ("messages", "gemini", "bedrock", "chat")
"""Formats of providers that requests are translated into, the richer one first."""
_MOST_VALUES = 250_000
"""JSON values and keys of one request, answer or event that is translated: two microseconds each, during which nothing
else happens."""
_MOST_TEXT = 16 * 1024 * 1024
"""Characters of one streamed answer that is translated. Some formats repeat the whole at the end."""

_LIMITS = {
    "chat": ("max_completion_tokens", "max_tokens"),
    "responses": ("max_output_tokens",),
    "messages": ("max_tokens",),
}
"""Fields that say how many tokens an answer may have."""


class WireTranslator:
    """The translator of all formats."""

    def __init__(self, clients: Mapping[str, ClientSide], providers: Mapping[str, ProviderSide]) -> None:
        self._clients, self._providers = clients, providers

    def call_for(
        self, provider: Provider, asked: Asked, target: Target, most: int | None = None, cache_key: str = ""
    ) -> "tuple[Call, Through | Translated | embeddings.EmbeddingFinish]":
        if asked.format in provider.formats:
            return self._through(provider, asked, target, most, cache_key)
        if asked.format in EMBEDS and not _is_vast(asked.body):
            return embeddings.translated(provider, asked, target)
        native = next((one for one in _NEUTRAL_ORDER if one in provider.formats and one in self._providers), None)
        client = self._clients.get(asked.format)
        if asked.format == "compact":  # as of a route that is not there: clients then compact by themselves
            raise NotFound(f"model: {target.name} does not serve {errors.ROUTES[asked.format]}", field="model")
        if native is None or client is None:
            raise Untranslatable("model", f"{target.name} does not serve {errors.ROUTES[asked.format]}")
        if _is_vast(asked.body):
            raise Untranslatable("messages", f"the body has over {_MOST_VALUES:,} values, too many to be translated")
        request = client.parse_request(dict(asked.parsed))
        most = request.max_tokens if most is None else most
        side = self._providers[native]
        rendered = side.render_request(
            dataclasses.replace(request, model=target.model, stream=asked.stream, max_tokens=most)
        )
        if native == "chat" and (limit := rendered.pop("max_completion_tokens", None)) is not None:
            rendered[provider.limit_field] = limit
        rendered |= _cache_wish(provider, native, target.model, rendered, cache_key)
        own = rendered.get("max_tokens") if asked.max_tokens is None else None
        body = jsontext.dumps(rendered)
        call = Call(native, body, target.model, asked.stream, max_tokens=own, timeout_s=target.timeout_s)
        return call, Translated(asked, client, side, request, target.model)

    def _through(
        self, provider: Provider, asked: Asked, target: Target, most: int | None, cache_key: str
    ) -> "tuple[Call, Through]":
        parsed = dict(asked.parsed)
        if asked.format in METHODS:
            body = body_for(asked.body, parsed, target.model, most)
            call = Call(asked.format, body, target.model, asked.stream, asked.headers, timeout_s=target.timeout_s)
            return call, Through(asked.format, hides_usage=False)
        # Also where the name stays: a body that the provider could read differently is rewritten.
        body = with_field(asked.body, parsed, "model", target.model)
        parsed["model"] = target.model
        if most is not None:
            default = provider.limit_field if asked.format == "chat" else _LIMITS[asked.format][0]
            for name in [name for name in _LIMITS[asked.format] if name in parsed] or [default]:
                body = with_field(body, parsed, name, most)
                parsed[name] = most
        for name, value in _cache_wish(provider, asked.format, target.model, parsed, cache_key).items():
            body = with_field(body, parsed, name, value)
            parsed[name] = value
        hides_usage = False
        if asked.format == "chat" and asked.stream:
            options = parsed.get("stream_options")
            options = options if isinstance(options, dict) else {}
            if options.get("include_usage") is not True:
                hides_usage = True
                body = with_field(body, parsed, "stream_options", {**options, "include_usage": True})
        call = Call(
            *(asked.format, body, target.model, asked.stream, asked.headers, asked.query),
            timeout_s=target.timeout_s,
            key="" if asked.kept is None else asked.kept.key,
        )
        return call, Through(asked.format, hides_usage)


def _cache_wish(provider: Provider, format: str, model: str, body: Mapping[str, Any], cache_key: str) -> dict[str, Any]:
    """The field that asks a provider to keep the beginning of a request, unless its client has a wish of its own."""
    if not cache_key:
        return {}
    if format == "messages":
        return {} if b'"cache_control"' in jsontext.dumps(body) else {"cache_control": {"type": "ephemeral"}}
    if format == "bedrock":
        return bedrock.cache_wish(model, body)
    takes_key = format in ("chat", "responses") and provider.takes_cache_key and "prompt_cache_key" not in body
    return {"prompt_cache_key": cache_key} if takes_key else {}


class Through:
    """An answer that the client gets byte for byte."""

    holds_request = False

    def __init__(self, format: str, hides_usage: bool) -> None:
        """`hides_usage`: the client has not asked for the usage that the stream was asked for."""
        self._format, self._hides_usage = format, hides_usage

    def whole(self, body: bytes) -> bytes:
        return body

    def error(self, status: int, body: bytes) -> bytes:
        return body

    def event(self, event: bytes) -> Iterable[bytes]:
        if self._hides_usage and b'"usage"' in event:
            return [piece for piece in Events().feed(event) if not _is_usage(piece)]
        return (event,)

    def end(self) -> Iterable[bytes]:
        return ()

    def broken(self, error: McpgateError) -> Iterable[bytes]:
        return (errors.event(self._format, error),)


def _is_usage(event: bytes) -> bool:
    message = decoded(parts_of(event)[1])
    return isinstance(message, dict) and message.get("choices") == [] and isinstance(message.get("usage"), dict)


class Translated:
    """An answer in another format than the client's."""

    holds_request = True

    def __init__(self, asked: Asked, client: ClientSide, side: ProviderSide, request: ChatRequest, model: str) -> None:
        """`model`: the provider's name of it, for answers that do not say it."""
        self._format, self._client, self._side, self._request = asked.format, client, side, request
        self._model = model
        self._reader = side.parse_stream()
        self._writer: StreamWriter = client.render_stream(request)
        self._text = 0
        """Characters so far."""

    def whole(self, body: bytes) -> bytes:
        try:
            _check(body)
            answer = self._side.parse_answer(jsontext.loads(body, "replace"))
        except (ValueError, RecursionError, Untranslatable) as error:
            raise UpstreamError(f"the provider's answer cannot be read: {str(error)[:300]}") from error
        answer = answer if answer.model else dataclasses.replace(answer, model=self._model)
        return jsontext.dumps(self._client.render_answer(answer, self._request))

    def error(self, status: int, body: bytes) -> bytes:
        said: Any = decoded(body)
        error = said.get("error") if isinstance(said, dict) else None
        message = error.get("message") if isinstance(error, dict) else None
        text = message if isinstance(message, str) else body[:500].decode("utf-8", "replace")
        return orjson.dumps(errors.body_of(self._format, status, "upstream_error", text))

    def event(self, event: bytes) -> Iterable[bytes]:
        for piece in Events().feed(event):
            name, data = parts_of(piece)
            if data:
                yield from self._written(self._reader.read(name, data), data)

    def end(self) -> Iterable[bytes]:
        yield from self._written(self._reader.end())

    def _written(self, events: Iterator[StreamEvent], data: bytes = b"") -> Iterator[bytes]:
        try:
            _check(data)
            for event in events:
                if isinstance(event, PartGrew):
                    self._text += len(event.text) + len(event.signature)
                    if self._text > _MOST_TEXT:
                        raise ValueError(f"it is over {_MOST_TEXT:,} characters")
                if isinstance(event, Started) and not event.model:
                    event = dataclasses.replace(event, model=self._model)
                yield from self._writer.write(event)
        except (ValueError, RecursionError, Untranslatable) as error:
            raise UpstreamError(f"the provider's stream cannot be read: {str(error)[:300]}") from error

    def broken(self, error: McpgateError) -> Iterable[bytes]:
        return self._writer.write(Broken("api_error", error.message))


def _is_vast(text: bytes) -> bool:
    return jsontext.count_values(text, _MOST_VALUES, rough=_MOST_VALUES) > _MOST_VALUES


def _check(text: bytes) -> None:
    """Raises ValueError."""
    if _is_vast(text):
        raise ValueError(f"it has over {_MOST_VALUES:,} values")
