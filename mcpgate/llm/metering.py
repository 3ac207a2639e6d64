"""How many tokens a request takes: estimated before it is sent, read from what the provider says, and counted from what
was delivered where it says nothing. Pure, but for what is learned of each model."""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mcpgate import jsontext
from mcpgate.governance.records import Usage
from mcpgate.llm.events import Events, parts_of
from mcpgate.llm.gemini_format import METHODS, snake_name

_BYTES_PER_TOKEN = 3.0
"""Of JSON bodies in any language, before anything is learned: few texts have less."""
_LEARN = 0.1
_LEAST, _MOST = 1.0, 8.0
_MEDIA = frozenset(("image", "image_url", "input_image", "file", "document", "input_file", "input_audio"))
"""Types of parts whose data a model does not read as text."""
_LEAST_MEDIA_TOKENS, _BYTES_PER_MEDIA_TOKEN = 2000, 100
"""What a large image costs at most providers; long files cost more."""
_LONG = 1000
"""Bytes; shorter data is not looked for."""
_MOST_LEARNED = 10_000
_MOST_TOKENS = 100_000_000
"""In one request: ten times what any model takes."""


@dataclass(frozen=True, slots=True)
class Size:
    """What is known of a request's input before a provider has counted it."""

    text: int
    """Bytes."""
    media_tokens: int = 0


class Ratios:
    """Bytes of a body for each input token, learned from what providers have counted: for each account and model, so
    that nobody's odd requests make those of others look dear or cheap."""

    def __init__(self) -> None:
        self._learned: dict[tuple[str, str], float] = {}
        """The one that was learned last at the end."""

    def input_tokens(self, account: str, model: str, size: Size) -> int:
        """An estimate that is rather too high."""
        text = int(size.text / (self._learned.get((account, model), _BYTES_PER_TOKEN) * 0.9))
        return text + size.media_tokens + 8

    def learn(self, account: str, model: str, size: Size, input_tokens: int) -> None:
        if size.media_tokens or input_tokens < 50:
            return  # too little text to learn from
        seen = min(max(size.text / input_tokens, _LEAST), _MOST)
        known = self._learned.pop((account, model), _BYTES_PER_TOKEN)
        if len(self._learned) >= _MOST_LEARNED:
            del self._learned[next(iter(self._learned))]
        # Downwards at once, upwards slowly: an estimate that is too low lets money slip through.
        self._learned[account, model] = seen if seen < known else known + _LEARN * (seen - known)


def size_of(body: bytes, parsed: Mapping[str, Any]) -> Size:
    """The size of a request. Data counts as media only within a part of such a type, wherever text looks like it."""
    data = _media(parsed.get("messages", parsed.get("input")), 3) if len(body) > _LONG else []
    return _sized(body, data)


def gemini_size_of(body: bytes, parsed: Mapping[str, Any]) -> Size:
    """The same of Gemini's format."""
    return _sized(body, [*_gemini_media(parsed)])


def _sized(body: bytes, data: list[int]) -> Size:
    tokens = sum(max(_LEAST_MEDIA_TOKENS, size // _BYTES_PER_MEDIA_TOKEN) for size in data)
    return Size(max(0, len(body) - sum(data)), tokens)


def _gemini_media(request: Any) -> Iterator[int]:
    """The sizes of media in a request's contents and in the results of functions in them. What is stored elsewhere has
    none, and costs as much as the smallest."""
    contents = [_either(request, "contents"), _either(request, "content")]
    requests = _either(request, "requests")
    for one in [_either(request, "generateContentRequest"), *(requests if isinstance(requests, list) else ())]:
        contents += [_either(one, "contents"), _either(one, "content")]
    for content in itertools.chain.from_iterable(one if isinstance(one, list) else [one] for one in contents):
        for part in _list(content, "parts"):
            for held in (part, *_list(_either(part, "functionResponse"), "parts")):
                blob = _either(held, "inlineData")
                type, data = _either(blob, "mimeType"), _of(blob, "data")
                if isinstance(type, str) and not type.startswith("text/") and isinstance(data, str):
                    yield len(data)
                elif _either(held, "fileData") is not None:
                    yield 0


def _either(mapping: Any, name: str) -> Any:
    """A field that may be spelt in both of Google's ways."""
    found = _of(mapping, name)
    return found if found is not None else _of(mapping, snake_name(name))


def _list(mapping: Any, name: str) -> list[Any]:
    found = _either(mapping, name)
    return found if isinstance(found, list) else []


def _media(parts: Any, depth: int) -> list[int]:
    """The sizes of all media in messages, their content, and the results of tools in it."""
    found: list[int] = []
    for part in parts if isinstance(parts, list) else ():
        if not isinstance(part, dict):
            continue
        type = part.get("type")
        if isinstance(type, str) and type in _MEDIA:
            size = _length(part, 4)
            found += [size] if size > _LONG else []
        elif depth:
            found += _media(part.get("content", part.get("output")), depth - 1)
    return found


def _count(value: Any) -> int:
    """A provider's number of tokens; 0 for what cannot be one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MOST_TOKENS:
        return 0
    return int(value)


def _of(mapping: Any, key: str) -> Any:
    return mapping.get(key) if isinstance(mapping, dict) else None


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def usage_of(format: str, usage: Any) -> Usage | None:
    """A provider's `usage` object, in the form that all are counted in; None for anything else, and without input: no
    request has none. The input of Anthropic and Bedrock leaves cached tokens out, that of OpenAI and Gemini holds them;
    Gemini's output leaves thoughts out."""
    if not isinstance(usage, dict):
        return None
    if format in METHODS:
        thoughts = _count(usage.get("thoughtsTokenCount"))
        all_in = _count(usage.get("promptTokenCount")) + _count(usage.get("toolUsePromptTokenCount"))
        read = min(_count(usage.get("cachedContentTokenCount")), all_in)
        more = {"reasoning_tokens": thoughts} if thoughts else {}
        for direction, name in _GEMINI_DETAILS:
            if (told := usage.get(name)) is not None:
                _add_modalities(more, direction, told)
        out = _count(usage.get("candidatesTokenCount")) + thoughts
        return Usage(0, all_in, out, read, more=more) if all_in else None
    if format == "messages":
        read, write = _count(usage.get("cache_read_input_tokens")), _count(usage.get("cache_creation_input_tokens"))
        hour = min(write, _count(_of(usage.get("cache_creation"), "ephemeral_1h_input_tokens")))
        more = {"cache_write_1h_tokens": hour} if hour else {}
        plain = _count(usage.get("input_tokens"))
        all_in = plain + read + write
        return Usage(0, all_in, _count(usage.get("output_tokens")), read, write, more=more) if all_in else None
    if format == "bedrock":
        read, write = _count(usage.get("cacheReadInputTokens")), _count(usage.get("cacheWriteInputTokens"))
        details = usage.get("cacheDetails")
        kept = [_count(_of(one, "inputTokens")) for one in _dicts(details) if one.get("ttl") == "1h"]
        hour = min(write, sum(kept))
        more = {"cache_write_1h_tokens": hour} if hour else {}
        all_in = _count(usage.get("inputTokens")) + read + write
        return Usage(0, all_in, _count(usage.get("outputTokens")), read, write, more=more) if all_in else None
    chat = format in ("chat", "embeddings", "bedrock_embedding")
    incoming, outgoing = ("prompt_tokens", "completion_tokens") if chat else ("input_tokens", "output_tokens")
    details = "prompt_tokens_details" if chat else "input_tokens_details"
    of_output = "completion_tokens_details" if chat else "output_tokens_details"
    tokens = _count(usage.get(incoming)), _count(usage.get(outgoing))
    if not tokens[0]:
        return None
    cached = min(_count(_of(usage.get(details), "cached_tokens")), tokens[0])
    written = min(_count(_of(usage.get(details), "cache_write_tokens")), tokens[0] - cached)
    reasoning = _count(_of(usage.get(of_output), "reasoning_tokens"))
    more = {"reasoning_tokens": reasoning} if reasoning else {}
    _add_media(more, "input", usage.get(details))
    _add_media(more, "cache_read", _of(usage.get(details), "cached_tokens_details"))
    _add_media(more, "output", usage.get(of_output))
    return Usage(0, *tokens, cached, written, more=more)


_GEMINI_DETAILS = (
    ("input", "promptTokensDetails"),
    ("input", "toolUsePromptTokensDetails"),
    ("cache_read", "cacheTokensDetails"),
    ("output", "candidatesTokensDetails"),
)
MEDIA_KINDS = ("audio", "image", "video")


def _add_media(more: dict[str, int], direction: str, details: Any) -> None:
    """Tokens that are no text, as OpenAI tells them."""
    if isinstance(details, dict):
        for kind in MEDIA_KINDS:
            if tokens := _count(details.get(f"{kind}_tokens")):
                more[f"{kind}_{direction}_tokens"] = tokens


def _add_modalities(more: dict[str, int], direction: str, details: Any) -> None:
    """The same, as Google tells them."""
    for one in _dicts(details):
        kind = str(one.get("modality")).lower()
        if kind in MEDIA_KINDS and (tokens := _count(one.get("tokenCount"))):
            name = f"{kind}_{direction}_tokens"
            more[name] = more.get(name, 0) + tokens


def usage_and_tier(format: str, carrier: Any) -> tuple[Any, str]:
    """A provider's `usage` object out of its answer, or out of an event, and the service tier that it was billed at."""
    usage = _of(carrier, "usageMetadata" if format in METHODS else "usage")
    tier = _of(usage, "serviceTier") if format in METHODS else _of(carrier, "service_tier")
    if format == "bedrock_embedding":
        usage = {"prompt_tokens": _of(carrier, "inputTextTokenCount")}
    if format == "bedrock":
        tier = _of(_of(carrier, "serviceTier"), "type")
    tier = tier.lower() if isinstance(tier, str) else "default"
    return usage, "default" if format in METHODS and tier == "standard" else tier


_TELLING = {
    "chat": re.compile(rb'"usage"\s*:\s*\{|"finish_reason"\s*:\s*"'),
    "responses": re.compile(rb'"response"\s*:'),
    "messages": re.compile(rb'"message_(?:start|delta|stop)"'),
    "gemini": re.compile(rb'"(?:finish|block)Reason"\s*:\s*"'),
    "bedrock": re.compile(rb'^data: \{"(?:messageStop|metadata)"', re.MULTILINE),
}
"""What an event holds that says more than a piece of the answer."""
_MOST_UNCOUNTED = 64 * 1024
"""Bytes of events that are kept until it is known whether their text must be counted."""


class Meter:
    """Reads along with the events of one streamed answer. Its text is counted only where the provider does not say the
    usage: decoding every event would be most of what a stream costs."""

    def __init__(self, format: str, input_tokens: int) -> None:
        """`input_tokens`: the estimate, until the provider says better."""
        self._format, self._telling = format, _TELLING[format]
        self._usage = Usage(input_tokens=input_tokens)
        self.is_exact = False
        """Whether the provider has said the whole usage."""
        self.tier = "default"
        self.is_over = False
        """Whether the event that ends a good answer has come."""
        self._began: Mapping[str, Any] = {}
        """The usage that the beginning of a message has said."""
        self._characters = 0
        self._uncounted: list[bytes] = []
        self._uncounted_bytes = 0

    @property
    def usage(self) -> Usage:
        """So far."""
        if not self.is_exact:
            self._count()
            tokens, have = -(-self._characters // 3), self._usage
            if tokens > have.output_tokens:
                self._usage = have._replace(output_tokens=tokens)
        return self._usage

    def read(self, events: bytes) -> None:
        """Whole events, as they came."""
        if not self.is_exact:
            self._uncounted.append(events)
            self._uncounted_bytes += len(events)
            if self._uncounted_bytes > _MOST_UNCOUNTED:
                self._count()
        for data in self._telling_in(events):
            event = decoded(data)
            if isinstance(event, dict):
                self._read(event)

    def _telling_in(self, events: bytes) -> Iterator[bytes]:
        """The data of the events that say more than a piece of the answer. The others are not taken apart, unless
        their lines end in CR."""
        telling = self._telling
        if b"\r" in events:
            yield from (data for data in _data_of(events) if telling.search(b"data: " + data))
            return
        end = 0
        for match in telling.finditer(events):
            if match.start() < end:
                continue  # of the same event
            begin = events.rfind(b"\n\n", end, match.start())
            begin, end = end if begin < 0 else begin + 2, events.find(b"\n\n", match.end()) + 2
            end = len(events) if end < 2 else end
            yield parts_of(events[begin:end])[1]

    def _read(self, event: dict[str, Any]) -> None:
        match self._format:
            case "messages":
                self._read_messages(event)
            case "responses":
                response = event.get("response")
                if isinstance(response, dict):
                    self._take(response.get("usage"), response)
                self.is_over = event.get("type") in ("response.completed", "response.incomplete", "response.failed")
            case "gemini":
                self.is_over = True
                self._take(event.get("usageMetadata"), event)
            case "bedrock":
                self.is_over = self.is_over or "messageStop" in event
                about = event.get("metadata")
                self._take(_of(about, "usage"), about if isinstance(about, dict) else {})
            case _:
                self._take(event.get("usage"), event)
                choices = event.get("choices")
                if isinstance(choices, list) and any(_of(one, "finish_reason") for one in choices):
                    self.is_over = True

    def _take(self, usage: Any, carrier: Mapping[str, Any]) -> None:
        found = usage_of(self._format, usage)
        if found is not None:
            self._usage, self.is_exact = found, True
            self.tier = usage_and_tier(self._format, carrier)[1]
            self._uncounted.clear()

    def _read_messages(self, event: dict[str, Any]) -> None:
        message = event.get("message")
        if event.get("type") == "message_start" and isinstance(message, dict):
            self._began = usage if isinstance(usage := message.get("usage"), dict) else {}
            found = usage_of("messages", self._began)
            if found is not None and found.input_tokens:
                self._usage = found
        elif event.get("type") == "message_delta" and _count(_of(event.get("usage"), "output_tokens")):
            # Its numbers are totals, and stand for those of the beginning where it has them.
            self._take({**self._began, **event["usage"]}, event)
        elif event.get("type") == "message_stop":
            self.is_over = True

    def _count(self) -> None:
        for data in itertools.chain.from_iterable(map(_data_of, self._uncounted)):
            event = decoded(data)
            if isinstance(event, dict):
                self._characters += _text_in(event, self._format)
                if self._format == "gemini":  # each event tells the usage up to it
                    self._usage = usage_of("gemini", event.get("usageMetadata")) or self._usage
        self._uncounted.clear()
        self._uncounted_bytes = 0


def _data_of(events: bytes) -> Iterator[bytes]:
    for event in Events().feed(events):
        if data := parts_of(event)[1]:
            yield data


def _text_in(event: dict[str, Any], format: str) -> int:
    """Characters that an event delivers."""
    if format == "chat":
        choices = event.get("choices")
        deltas = [_of(one, "delta") for one in choices] if isinstance(choices, list) else []
    elif format == "gemini":
        deltas = [_of(_of(one, "content"), "parts") for one in _list(event, "candidates")]
    elif format == "bedrock":
        started, more = event.get("contentBlockStart"), event.get("contentBlockDelta")
        deltas = [_of(started, "start"), _of(more, "delta")]
    else:
        deltas = [event.get("delta")]
    return sum(len(delta) if isinstance(delta, str) else _length(delta, 4) for delta in deltas)


def _length(value: Any, depth: int) -> int:
    if isinstance(value, str):
        return len(value)
    if depth and isinstance(value, dict):
        return sum(_length(one, depth - 1) for key, one in value.items() if key not in ("type", "role", "id", "index"))
    if depth and isinstance(value, list):
        return sum(_length(one, depth - 1) for one in value)
    return 0


def delivered(body: bytes) -> int:
    """Tokens that a whole answer without usage has delivered, counted by its size."""
    return -(-len(body) // 3)


def decoded(data: bytes) -> Any:
    """An event's JSON; None where it is none."""
    try:
        return jsontext.loads(data)
    except ValueError:
        return None
