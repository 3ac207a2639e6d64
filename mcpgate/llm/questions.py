"""What of a request for a model decides its answer, and what it asks last. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcpgate.cache.fingerprint import canonical
from mcpgate.llm.asked import COUNTS, EMBEDS, Asked
from mcpgate.llm.gemini_format import METHODS

_NOT_DECIDING = ("model", "stream", "stream_options", "prompt_cache_key", "prompt_cache_retention")
"""The model stands beside the request; a stream says the same as the whole."""
_PER_CONNECTION = frozenset(("session-id", "thread-id", "originator", "version", "x-goog-api-client"))
"""Headers that tell requests apart, but not their answers."""
_TOOL_RESULTS = re.compile(
    rb'"(?:tool_call_id|tool_calls|tool_result|tool_use|function_call|function_call_output|mcp_call|functionResponse'
    rb'|function_response|functionCall)"'
)
"""Marks of conversations that hold calls of tools."""
_BARE_STRING = re.compile(rb'"[^"]*"')


@dataclass(frozen=True, slots=True)
class Turn:
    """The last thing that a user says in a request."""

    text: str
    rest: bytes
    """Everything else that decides the answer, as canonical JSON."""


def may_be_cached(asked: Asked) -> bool:
    """Whether equal requests have the same answer at all, as far as the gateway can see."""
    return asked.format not in COUNTS and asked.format != "compact" and not asked.parsed.get("conversation")


def is_safe(asked: Asked) -> bool:
    """Whether a request asks for the same answer each time: embeddings, and temperature 0."""
    if asked.format in EMBEDS:
        return True
    given: Any = asked.parsed
    if asked.format in METHODS:
        given = given.get("generationConfig") or given.get("generation_config")
    temperature = given.get("temperature") if isinstance(given, dict) else None
    return not isinstance(temperature, bool) and temperature == 0


def belongs_to_account(asked: Asked) -> bool:
    """Whether it names, or its answer is, what a provider keeps for one account."""
    keeps = asked.format == "responses" and asked.parsed.get("store") is not False
    return keeps or asked.kept is not None or b'"file_id"' in asked.body


def holds_tool_calls(asked: Asked) -> bool:
    return _TOOL_RESULTS.search(asked.body) is not None


def deciding(asked: Asked) -> bytes:
    """The request without what does not decide its answer. Raises ValueError, RecursionError."""
    return _about(asked) + canonical(asked.parsed, without=_NOT_DECIDING)


def last_turn(asked: Asked, longest: int) -> Turn | None:
    """None if the request does not end with plain text of a user, of at most so many characters. Raises ValueError,
    RecursionError."""
    field = "contents" if asked.format in METHODS else "input" if asked.format == "responses" else "messages"
    said = asked.parsed.get(field)
    if isinstance(said, str) and field != "messages":
        text, rest = said, None
    elif isinstance(said, list) and said and isinstance(last := said[-1], dict):
        if last.get("role", "user") != "user" or last.get("type", "message") != "message":
            return None
        inner = "parts" if field == "contents" else "content"
        found = _plain_text(last.get(inner))
        if found is None:
            return None
        text, rest = found, [*said[:-1], {**last, inner: None}]
    else:
        return None
    if not text.strip() or len(text) > longest:
        return None
    return Turn(text, _about(asked) + canonical({**asked.parsed, field: rest}, without=_NOT_DECIDING))


def _plain_text(content: Any) -> str | None:
    if isinstance(content, str):
        return content
    if isinstance(content, list) and len(content) == 1 and isinstance(part := content[0], dict):
        plain = part.keys() <= {"type", "text"} and part.get("type", "text") in ("text", "input_text")
        text = part.get("text")
        return text if plain and isinstance(text, str) else None
    return None


def _about(asked: Asked) -> bytes:
    headers = {name: text for name, text in asked.headers.items() if name not in _PER_CONNECTION}
    return canonical([asked.format, headers, asked.query]) + b"\n"


def is_unambiguous(body: bytes, parsed: Mapping[str, Any]) -> bool:
    """Whether every reader of a body reads the same: no object has a key twice, of which some take the first and others
    the last, and nothing is NaN or Infinity, which JSON does not know. Linear."""
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    bare = _BARE_STRING.sub(b"", plain)
    return b"N" not in bare and b"I" not in bare and bare.count(b":") == _keys(parsed)


def _keys(value: Any) -> int:
    found, left = 0, [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            found += len(one)
            left.extend(one.values())
        elif isinstance(one, list):
            left.extend(one)
    return found
