"""Where the formats of models keep text: what guardrails read, and write back. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_ASKED = (
    *("messages", "input", "system", "instructions", "prompt"),
    *("contents", "systemInstruction", "system_instruction", "content", "requests"),
    *("generateContentRequest", "generate_content_request"),
)
_ANSWERED = ("choices", "output", "content", "candidates")
"""Fields of a request and of an answer that hold what is said."""
_TEXTS = frozenset(
    ("text", "content", "input", "output", "system", "instructions", "prompt", "refusal", "arguments", "thinking")
)
"""Fields whose strings are said."""
_VALUES = frozenset(("input", "args", "response"))
"""Fields whose objects are arguments and results of tools: every string in them is said."""

Place = tuple[Any, Any]
"""A container and the key or index of a text in it."""


def of_request(body: Mapping[str, Any]) -> list[Place]:
    """The texts that a request says."""
    found: list[Place] = []
    for name in _ASKED:
        if name in body:
            _collect(body, name, found, is_text=name in _TEXTS)
    return found


def of_answer(body: Any) -> list[Place]:
    """The texts of a whole answer, in any format."""
    found: list[Place] = []
    for name in _ANSWERED if isinstance(body, dict) else ():
        if name in body:
            _collect(body, name, found)
    return found


def _collect(
    container: Any, key: Any, found: list[Place], is_text: bool = False, is_value: bool = False, depth: int = 40
) -> None:
    """`is_text`: whether a string here is said. `is_value`: whether everything here is."""
    value = container[key]
    if isinstance(value, str):
        if is_text or is_value:
            found.append((container, key))
    elif depth and isinstance(value, dict):
        for name in value:
            inside = is_value or (name in _VALUES and isinstance(value[name], dict))
            _collect(value, name, found, name in _TEXTS, inside, depth - 1)
    elif depth and isinstance(value, list):
        for index in range(len(value)):
            _collect(value, index, found, is_text, is_value, depth - 1)


def read(places: Sequence[Place]) -> list[str]:
    return [container[key] for container, key in places]


def write(places: Sequence[Place], texts: Sequence[str]) -> bool:
    """Whether anything changed."""
    changed = False
    for (container, key), text in zip(places, texts, strict=True):
        if container[key] != text:
            container[key] = text
            changed = True
    return changed


def deltas(event: Any) -> Iterator[tuple[str, Place]]:
    """The pieces of text in an event of a stream, each with the part that it belongs to."""
    if not isinstance(event, dict):
        return
    match event.get("type"):
        case "content_block_delta":
            delta = event.get("delta")
            for name in ("text", "partial_json"):
                if isinstance(delta, dict) and isinstance(delta.get(name), str):
                    yield f"block {event.get('index')}", (delta, name)
        case "response.output_text.delta" | "response.refusal.delta" | "response.function_call_arguments.delta" if (
            isinstance(event.get("delta"), str)
        ):
            yield f"{event.get('output_index')} {event.get('content_index')}", (event, "delta")
    for number, choice in enumerate(_list(event.get("choices"))):
        delta = choice.get("delta") if isinstance(choice, dict) else None
        if isinstance(delta, dict) and isinstance(delta.get("content"), str) and delta["content"]:
            yield f"choice {choice.get('index', number)}", (delta, "content")
        for call in _list(delta.get("tool_calls") if isinstance(delta, dict) else None):
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict) and isinstance(function.get("arguments"), str):
                yield f"call {choice.get('index', number)} {call.get('index')}", (function, "arguments")
    for number, candidate in enumerate(_list(event.get("candidates"))):
        content = candidate.get("content") if isinstance(candidate, dict) else None
        for part in _list(content.get("parts") if isinstance(content, dict) else None):
            if isinstance(part, dict) and isinstance(part.get("text"), str) and part["text"]:
                yield f"candidate {candidate.get('index', number)}", (part, "text")


def is_end(event: Any) -> bool:
    """Whether an event ends a part, so that what was kept back of it is due."""
    if not isinstance(event, dict):
        return True
    kind = event.get("type")
    if isinstance(kind, str):
        return kind == "content_block_stop" or kind.endswith((".done", ".completed", ".incomplete")) or kind == "error"
    finished = [*_list(event.get("choices")), *_list(event.get("candidates"))]
    return any(isinstance(one, dict) and (one.get("finish_reason") or one.get("finishReason")) for one in finished)


def wholes(event: Any) -> list[Place]:
    """The texts of an event that are whole: those that say again what pieces have said, as Responses do at the end of
    each part, and the arguments of Gemini's calls."""
    found: list[Place] = []
    for candidate in _list(event.get("candidates")) if isinstance(event, dict) else ():
        content = candidate.get("content") if isinstance(candidate, dict) else None
        for part in _list(content.get("parts") if isinstance(content, dict) else None):
            if isinstance(part, dict) and "functionCall" in part:
                _collect(part, "functionCall", found)
    kind = event.get("type") if isinstance(event, dict) else None
    if isinstance(kind, str) and kind.startswith("response.") and not kind.endswith(".delta"):
        for name in ("text", "refusal", "arguments", "part", "item", "response"):
            if name == "response" and isinstance(event.get(name), dict):
                found += of_answer(event[name])
            elif name in event:
                _collect(event, name, found, is_text=True)
    return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
