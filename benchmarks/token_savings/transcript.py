"""An agent's conversation in the OpenAI tool-calling shape, and what it costs in tokens.

How tokens are counted, for every rival alike, with o200k_base:

- Tool definitions: the compact JSON of each function object (name, description, parameters). What providers make of it
  is not published and may be a little shorter or longer.
- A message: its text; of an assistant's tool call the name and the arguments as the JSON that the model wrote; and four
  tokens for the frame of each message and of each tool call (role, ids).
- Input of a model request: the definitions and every message so far, the system message included.
- Output of a model request: what the assistant writes, text and tool calls, without frames.
- With prompt caching, everything that the previous request of the conversation sent is read from the cache. A
  conversation starts cold, so the definitions are paid in full once per task.

It holds messages and numbers; it calls no model and no tool.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from bpe_openai import get_encoding

FRAME_TOKENS = 4
_PIECE_CHARS = 200_000
_ENCODING = get_encoding("o200k_base")


def count_tokens(text: str) -> int:
    """Very long texts are counted in pieces: the encoder rejects them whole."""
    if len(text) <= _PIECE_CHARS:
        return len(_ENCODING.encode(text))
    return sum(len(_ENCODING.encode(text[at : at + _PIECE_CHARS])) for at in range(0, len(text), _PIECE_CHARS))


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def function_of(name: str, tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool of `tools/list` as the model gets it: what hosts pass on, which leaves the output schema out."""
    schema = tool.get("inputSchema") or {"type": "object", "properties": {}}
    return {
        "type": "function",
        "function": {"name": name, "description": tool.get("description") or "", "parameters": schema},
    }


def definitions_tokens(definitions: Iterable[Mapping[str, Any]]) -> int:
    return sum(_definition_tokens(compact(definition["function"])) for definition in definitions)


@lru_cache(maxsize=20_000)
def _definition_tokens(text: str) -> int:
    return count_tokens(text)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the assistant makes."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """One request to the model, in tokens, without definitions: they differ between catalogs."""

    message_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What one or more conversations cost."""

    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    """The part of the input that the previous request had already sent."""
    output_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
        )


def usage_of(requests: Sequence[Request], definitions: int) -> Usage:
    """The usage of one conversation with this many tokens of definitions."""
    return Usage(
        requests=len(requests),
        input_tokens=sum(definitions + request.message_tokens for request in requests),
        cached_tokens=sum(definitions + request.message_tokens for request in requests[:-1]),
        output_tokens=sum(request.output_tokens for request in requests),
    )


class Conversation:
    """Messages in order, and the requests made. An assistant's message ends a request."""

    def __init__(self, system: str) -> None:
        self.messages: list[dict[str, Any]] = []
        self.requests: list[Request] = []
        self.answer_tokens: Counter[str] = Counter()
        """Tokens of tool answers by the name of the tool."""
        self.answer_counts: Counter[str] = Counter()
        self._tokens = 0
        self._calls = 0
        self._names: dict[str, str] = {}
        self._add({"role": "system", "content": system}, count_tokens(system))

    @property
    def answers(self) -> list[str]:
        """The assistant's texts that end a turn."""
        return [
            message["content"]
            for message in self.messages
            if message["role"] == "assistant" and not message.get("tool_calls")
        ]

    def user(self, text: str) -> None:
        self._add({"role": "user", "content": text}, count_tokens(text))

    def assistant(self, text: str, calls: Sequence[ToolCall] = ()) -> list[str]:
        """The model's answer to all messages so far. Returns the ids of its calls, each of which `tool` answers."""
        message: dict[str, Any] = {"role": "assistant", "content": text}
        output = count_tokens(text)
        ids = []
        for call in calls:
            self._calls += 1
            ids.append(f"call_{self._calls}")
            self._names[ids[-1]] = call.name
            function = {"name": call.name, "arguments": compact(call.arguments)}
            message.setdefault("tool_calls", []).append({"id": ids[-1], "type": "function", "function": function})
            output += count_tokens(function["name"]) + count_tokens(function["arguments"])
        self.requests.append(Request(self._tokens, output))
        self._add(message, output + FRAME_TOKENS * len(ids))
        return ids

    def tool(self, call_id: str, text: str) -> None:
        tokens = count_tokens(text)
        self.answer_tokens[self._names[call_id]] += tokens
        self.answer_counts[self._names[call_id]] += 1
        self._add({"role": "tool", "tool_call_id": call_id, "content": text}, tokens)

    def _add(self, message: dict[str, Any], tokens: int) -> None:
        self.messages.append(message)
        self._tokens += tokens + FRAME_TOKENS
