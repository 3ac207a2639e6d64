"""A provider that needs no key and no network: it repeats what it is sent. Deterministic, for demos and tests."""

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any

import orjson

from mcpgate.config.llm import EchoConfig, ProviderConfig
from mcpgate.llm.messages import (
    ChatAnswer,
    ChatRequest,
    PartEnded,
    PartGrew,
    PartStarted,
    Started,
    Stopped,
    StopReason,
    StreamEvent,
    Text,
    TokenUsage,
    ToolCall,
    text_of,
)
from mcpgate.llm.provider import Call
from mcpgate.llm.wire import ClientSide

_DIMENSIONS = 16
_TIMEOUT_S = 600.0
_NO_HEADERS: Mapping[str, str] = {}


class EchoReply:
    def __init__(self, status: int, pieces: AsyncGenerator[bytes, None]) -> None:
        self.status, self._pieces = status, pieces
        self.headers, self.timeout_s, self.key = _NO_HEADERS, _TIMEOUT_S, ""

    async def read(self) -> bytes:
        return b"".join([piece async for piece in self._pieces])

    async def error(self) -> bytes:
        return await self.read()

    def chunks(self) -> AsyncGenerator[bytes, None]:
        return self._pieces

    async def aclose(self) -> None:
        await self._pieces.aclose()


class EchoProvider:
    """Answers with the last text of the user; calls the first tool if it must call one."""

    def __init__(self, name: str, config: ProviderConfig, clients: Mapping[str, ClientSide]) -> None:
        """`clients`: how clients of each format read and write."""
        self.name, self._config, self._clients = name, config.echo, clients
        self.formats = frozenset((*clients, "embeddings"))
        self.is_busy, self.under_way = False, 0
        self.limit_field, self.takes_cache_key, self.keeps_objects = "max_tokens", False, False

    async def probe(self) -> str:
        return ""

    async def aclose(self) -> None:
        pass

    async def send(self, call: Call) -> EchoReply:
        return EchoReply(self._config.fail or 200, self._pieces(call))

    async def _pieces(self, call: Call) -> AsyncGenerator[bytes, None]:
        settings: EchoConfig = self._config
        await asyncio.sleep(settings.delay_ms / 1000)
        body = json.loads(call.body)
        if settings.fail is not None:
            yield orjson.dumps({"error": {"type": "echo_error", "message": f"told to fail with {settings.fail}"}})
        elif call.format == "embeddings":
            yield orjson.dumps(_embeddings(call.model, body.get("input")))
        else:
            client = self._clients[call.format]
            request = client.parse_request(body)
            if not call.stream:
                yield orjson.dumps(client.render_answer(_answer(call.model, request), request))
                return
            writer = client.render_stream(request)
            for event in _events(_answer(call.model, request)):
                if isinstance(event, PartGrew):
                    await asyncio.sleep(settings.delay_ms / 1000)
                for piece in writer.write(event):
                    yield piece


def _answer(model: str, request: ChatRequest) -> ChatAnswer:
    said = next((text_of(one.parts) for one in reversed(request.messages) if one.role == "user"), "")
    asked = sum(_words(text_of(one.parts)) for one in request.messages) + _words(text_of(request.system))
    id = f"echo-{hashlib.sha256(repr(request).encode()).hexdigest()[:24]}"
    choice = request.tool_choice
    if request.tools and choice is not None and choice.mode in ("required", "tool"):
        name = choice.name or request.tools[0].name
        part: Text | ToolCall = ToolCall(f"call_{id[-8:]}", name, "{}")
        return ChatAnswer(id, model, (part,), "tool_calls", TokenUsage(asked, 1))
    words, stop = said.split(), "stop"
    if request.max_tokens is not None and len(words) > request.max_tokens:
        words, stop = words[: request.max_tokens], "length"
    text = said if stop == "stop" else " ".join(words)
    reason: StopReason = "length" if stop == "length" else "stop"
    return ChatAnswer(id, model, (Text(text),), reason, TokenUsage(asked, len(words)))


def _events(answer: ChatAnswer) -> Iterator[StreamEvent]:
    usage = answer.usage
    yield Started(answer.id, answer.model, None if usage is None else TokenUsage(usage.input, 0))
    for index, part in enumerate(answer.parts):
        if isinstance(part, Text):
            yield PartStarted(index, Text(""))
            for piece in _pieces_of(part.text):
                yield PartGrew(index, piece)
        elif isinstance(part, ToolCall):
            yield PartStarted(index, ToolCall(part.id, part.name, ""))
            yield PartGrew(index, part.arguments)
        yield PartEnded(index)
    yield Stopped(answer.stop, usage)


def _pieces_of(text: str) -> Iterator[str]:
    """Its words, each with the blank before it."""
    begin = 0
    for at in range(1, len(text)):
        if text[at].isspace() and not text[at - 1].isspace():
            yield text[begin:at]
            begin = at
    if text:
        yield text[begin:]


def _words(text: str) -> int:
    """One token for each word."""
    return len(text.split())


def _embeddings(model: str, given: Any) -> dict[str, Any]:
    """Vectors that depend on the text alone."""
    texts = [str(one) for one in given] if isinstance(given, list) else [str(given)]
    data = []
    for index, text in enumerate(texts):
        digest = hashlib.sha512(text.encode()).digest()[: 2 * _DIMENSIONS]
        vector = [int.from_bytes(digest[at : at + 2]) / 32768 - 1 for at in range(0, len(digest), 2)]
        data.append({"object": "embedding", "index": index, "embedding": vector})
    tokens = sum(map(_words, texts))
    return {
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
