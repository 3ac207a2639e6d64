"""Answers of models as they are kept and served again. Kept is the whole answer, in the client's format; a stream is
put together when it has ended, and an answer is taken apart into events for a client that wants a stream. Nothing is
lost on the way that the format has a place for. Pure.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from mcpgate import jsontext
from mcpgate.governance.records import Usage
from mcpgate.llm.asked import EMBEDS
from mcpgate.llm.events import Events, parts_of
from mcpgate.llm.metering import decoded

_TOOL_BLOCKS = frozenset(("text", "thinking", "redacted_thinking"))
_TOOL_ITEMS = frozenset(("message", "reasoning"))
"""What an answer without calls of tools consists of, in Messages and in Responses."""
Json = dict[str, Any]


class NotWhole(ValueError):
    """The events do not make a whole answer."""


def is_good(format: str, answer: Any, with_tools: bool) -> bool:
    """Whether an answer may be served again: it ended by itself, is no refusal, and calls tools only if it may."""
    if not isinstance(answer, dict) or answer.get("error"):
        return False
    if format in EMBEDS:
        return any(answer.get(name) for name in ("data", "embedding", "embeddings"))
    return bool(_GOOD[_family(format)](answer, with_tools))


def _is_good_chat(answer: Json, with_tools: bool) -> bool:
    choices = _dicts(answer.get("choices"))
    ends = ("stop", "tool_calls", "function_call") if with_tools else ("stop",)
    return bool(choices) and all(
        one.get("finish_reason") in ends
        and isinstance(message := one.get("message"), dict)
        and not message.get("refusal")
        and (with_tools or not (message.get("tool_calls") or message.get("function_call")))
        for one in choices
    )


def _is_good_response(answer: Json, with_tools: bool) -> bool:
    items = _dicts(answer.get("output"))
    parts = [part for item in items if item.get("type") == "message" for part in _dicts(item.get("content"))]
    return (
        answer.get("status") == "completed"
        and bool(items)
        and all(part.get("type") != "refusal" for part in parts)
        and (with_tools or all(item.get("type") in _TOOL_ITEMS for item in items))
    )


def _is_good_message(answer: Json, with_tools: bool) -> bool:
    ends = ("end_turn", "stop_sequence", "tool_use") if with_tools else ("end_turn", "stop_sequence")
    blocks = _dicts(answer.get("content"))
    plain = all(block.get("type") in _TOOL_BLOCKS for block in blocks)
    return answer.get("stop_reason") in ends and bool(blocks) and (with_tools or plain)


def _is_good_content(answer: Json, with_tools: bool) -> bool:
    candidates = _dicts(answer.get("candidates"))
    return bool(candidates) and all(
        one.get("finishReason") == "STOP"
        and isinstance(content := one.get("content"), dict)
        and (with_tools or all("text" in part for part in _dicts(content.get("parts"))))
        for one in candidates
    )


_GOOD: Mapping[str, Callable[[Json, bool], bool]] = {
    "chat": _is_good_chat,
    "responses": _is_good_response,
    "messages": _is_good_message,
    "gemini": _is_good_content,
}


# --- from a stream to the whole


def whole(format: str, events: bytes, usage: Usage) -> Json:
    """The answer that a stream was. `usage`: for a stream that does not say it. Raises NotWhole."""
    messages = [message for event in Events().feed(events) if isinstance(message := _message(event), dict)]
    try:
        return _WHOLE[_family(format)](messages, usage)
    except NotWhole:
        raise
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        # Without its text, which may be what the model has said.
        raise NotWhole(f"the stream cannot be put together: {type(error).__name__}") from error


def _message(event: bytes) -> Any:
    _, data = parts_of(event)
    return decoded(data) if data else None


_OF_CHUNKS = ("choices", "obfuscation")
"""Fields that do not grow to those of the whole; the second one only makes all chunks look alike on the wire."""
_NAMES = ("role", "id", "type", "format")
"""Fields that each piece says again."""


def _whole_chat(chunks: list[Json], usage: Usage) -> Json:
    choices: dict[int, Json] = {}
    made: Json = {}
    for chunk in chunks:
        made |= {name: value for name, value in chunk.items() if name not in _OF_CHUNKS and value is not None}
        for choice in _dicts(chunk.get("choices")):
            index = choice.get("index", 0)
            kept = choices.setdefault(index, {"index": index, "message": {"role": "assistant", "content": None}})
            _grow(kept["message"], choice.get("delta") or {})
            if isinstance(logprobs := choice.get("logprobs"), dict):
                _grow(kept.setdefault("logprobs", {}), logprobs)
            for name in choice.keys() - {"index", "delta", "logprobs"}:
                if choice[name] is not None:
                    kept[name] = choice[name]
    if not choices:
        raise NotWhole("the stream has no choices")
    for choice in choices.values():
        for call in _dicts(choice["message"].get("tool_calls")):
            call.pop("index", None)
    return {
        **made,
        "object": "chat.completion",
        "choices": [choices[index] for index in sorted(choices)],
        "usage": made.get("usage") or _chat_usage(usage),
    }


def _grow(whole: Json, delta: Mapping[str, Any]) -> None:
    """Add what a delta says: text is appended, lists with an index are merged by it, other lists grow."""
    for name, value in delta.items():
        known = whole.get(name)
        if value is None:
            whole.setdefault(name, None)
        elif isinstance(value, str) and isinstance(known, str) and name not in _NAMES:
            _append(whole, name, value)
        elif isinstance(value, dict) and isinstance(known, dict):
            _grow(known, value)
        elif isinstance(value, list) and all(isinstance(one, dict) and "index" in one for one in value):
            items = whole[name] = known if isinstance(known, list) else []
            for one in value:
                found = next((item for item in items if item["index"] == one["index"]), None)
                if found is None:
                    items.append(dict(one))
                else:
                    _grow(found, {key: part for key, part in one.items() if key != "index"})
        elif isinstance(value, list) and isinstance(known, list):
            known.extend(value)
        else:
            whole[name] = list(value) if isinstance(value, list) else dict(value) if isinstance(value, dict) else value


def _append(whole: Json, name: str, piece: str) -> None:
    """The text grows in place, instead of being copied for each piece: nothing else holds it meanwhile."""
    text = whole.get(name) or ""
    whole[name] = None
    text += piece
    whole[name] = text


def _chat_usage(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.more.get("reasoning_tokens", 0)},
    }


def _whole_response(events: list[Json], usage: Usage) -> Json:
    for event in reversed(events):
        if event.get("type") == "response.completed":
            return dict(event["response"])
    raise NotWhole("the stream has no response.completed")


def _whole_message(events: list[Json], usage: Usage) -> Json:
    made: Json | None = None
    blocks: dict[int, Json] = {}
    for event in events:
        match event.get("type"):
            case "message_start":
                made = dict(event["message"])
            case "content_block_start":
                blocks[event["index"]] = dict(event["content_block"])
            case "content_block_delta":
                _grow_block(blocks[event["index"]], event["delta"])
            case "content_block_stop":
                block = blocks[event["index"]]
                if "partial_json" in block:
                    text = block.pop("partial_json")
                    block["input"] = jsontext.loads(text.encode()) if text.strip() else {}
            case "message_delta" if made is not None:
                made |= event["delta"]
                made["usage"] = {**(made.get("usage") or {}), **(event.get("usage") or {})}
    if made is None or events[-1].get("type") != "message_stop":
        raise NotWhole("the stream does not end with message_stop")
    return {**made, "content": [blocks[index] for index in sorted(blocks)]}


def _grow_block(block: Json, delta: Mapping[str, Any]) -> None:
    match delta.get("type"):
        case "text_delta":
            _append(block, "text", delta["text"])
        case "thinking_delta":
            _append(block, "thinking", delta["thinking"])
        case "signature_delta":
            _append(block, "signature", delta["signature"])
        case "input_json_delta":
            _append(block, "partial_json", delta["partial_json"])
        case "citations_delta":
            block["citations"] = [*(block.get("citations") or []), delta["citation"]]
        case other:
            raise NotWhole(f"a delta of the unknown type {str(other)[:100]!r}")


def _whole_content(answers: list[Json], usage: Usage) -> Json:
    made: Json = {}
    candidates: dict[int, Json] = {}
    for answer in answers:
        made |= {name: value for name, value in answer.items() if name != "candidates"}
        for candidate in _dicts(answer.get("candidates")):
            kept = candidates.setdefault(candidate.get("index", 0), {"content": {"role": "model", "parts": []}})
            content = candidate.get("content")
            for part in _dicts(content.get("parts")) if isinstance(content, dict) else ():
                _add_part(kept["content"]["parts"], part)
            kept |= {name: value for name, value in candidate.items() if name != "content"}
    if not candidates:
        raise NotWhole("the stream has no candidates")
    return {**made, "candidates": [candidates[index] for index in sorted(candidates)]}


def _add_part(parts: list[Json], part: Json) -> None:
    """Text goes on in the part before, if both say nothing else."""
    call = part.get("functionCall")
    if isinstance(call, dict) and ("partialArgs" in call or "willContinue" in call):
        raise NotWhole("a call comes in pieces")
    plain = part.keys() <= {"text", "thought"} and "text" in part
    last = parts[-1] if parts else None
    if plain and last is not None and last.keys() == part.keys() and last.get("thought") == part.get("thought"):
        _append(last, "text", part["text"])
    elif part != {"text": ""}:
        parts.append(dict(part))


_WHOLE: Mapping[str, Callable[[list[Json], Usage], Json]] = {
    "chat": _whole_chat,
    "responses": _whole_response,
    "messages": _whole_message,
    "gemini": _whole_content,
}


# --- from the whole to a stream


def stream(format: str, answer: Json, asked: Mapping[str, Any]) -> list[bytes]:
    """The events of an answer, for a client that has asked for them. Raises NotWhole for what is no answer."""
    try:
        return list(_STREAM[_family(format)](answer, asked))
    except (KeyError, TypeError, AttributeError) as error:
        raise NotWhole(f"the answer cannot be taken apart: {type(error).__name__}") from error


def _event(message: Any, name: str = "") -> bytes:
    head = b"event: " + name.encode() + b"\n" if name else b""
    return head + b"data: " + jsontext.dumps(message) + b"\n\n"


def _chat_events(answer: Json, asked: Mapping[str, Any]) -> Iterator[bytes]:
    options = asked.get("stream_options")
    with_usage = isinstance(options, dict) and options.get("include_usage") is True
    about = {name: value for name, value in answer.items() if name not in ("choices", "usage")}
    about["object"] = "chat.completion.chunk"
    more: Json = {"usage": None} if with_usage else {}
    for choice in answer["choices"]:
        delta = {name: value for name, value in choice["message"].items() if value is not None}
        if calls := _dicts(delta.get("tool_calls")):
            delta["tool_calls"] = [{"index": number, **call} for number, call in enumerate(calls)]
        first = {"index": choice["index"], "delta": delta, "finish_reason": None}
        if choice.get("logprobs") is not None:
            first["logprobs"] = choice["logprobs"]
        yield _event({**about, "choices": [first], **more})
        last = {name: value for name, value in choice.items() if name not in ("message", "logprobs")}
        yield _event({**about, "choices": [{**last, "delta": {}}], **more})
    if with_usage:
        yield _event({**about, "choices": [], "usage": answer.get("usage")})
    yield b"data: [DONE]\n\n"


def _response_events(answer: Json, asked: Mapping[str, Any]) -> Iterator[bytes]:
    number = 0

    def event(type: str, **fields: Any) -> bytes:
        nonlocal number
        number += 1
        return _event({"type": type, "sequence_number": number - 1, **fields}, type)

    begun = {**answer, "status": "in_progress", "output": [], "usage": None}
    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    for index, item in enumerate(answer["output"]):
        place = {"item_id": item.get("id", ""), "output_index": index}
        field = {"message": "content", "reasoning": "summary"}.get(item["type"])
        bare = {**item, "status": "in_progress"} if "status" in item else dict(item)
        if field is not None:
            bare[field] = []
        if item["type"] == "function_call":
            bare["arguments"] = ""
        yield event("response.output_item.added", output_index=index, item=bare)
        for at, part in enumerate(_dicts(item.get(field)) if field is not None else ()):
            yield from _response_part(event, place, field, at, part)
        if item["type"] == "function_call":
            yield event("response.function_call_arguments.delta", **place, delta=item["arguments"])
            yield event("response.function_call_arguments.done", **place, arguments=item["arguments"])
        yield event("response.output_item.done", output_index=index, item=item)
    yield event("response.completed", response=answer)


def _response_part(event: Callable[..., bytes], place: Json, field: str | None, at: int, part: Json) -> Iterator[bytes]:
    if field == "summary":
        where, name, text = {**place, "summary_index": at}, "response.reasoning_summary", part.get("text", "")
        yield event(f"{name}_part.added", **where, part={**part, "text": ""})
        yield event(f"{name}_text.delta", **where, delta=text)
        yield event(f"{name}_text.done", **where, text=text)
        yield event(f"{name}_part.done", **where, part=part)
        return
    where = {**place, "content_index": at}
    if part.get("type") != "output_text":
        yield event("response.content_part.added", **where, part=part)
        yield event("response.content_part.done", **where, part=part)
        return
    logprobs = part.get("logprobs") or []
    yield event("response.content_part.added", **where, part={**part, "text": "", "annotations": []})
    yield event("response.output_text.delta", **where, delta=part["text"], logprobs=logprobs)
    for number, annotation in enumerate(part.get("annotations") or ()):
        yield event("response.output_text.annotation.added", **where, annotation_index=number, annotation=annotation)
    yield event("response.output_text.done", **where, text=part["text"], logprobs=logprobs)
    yield event("response.content_part.done", **where, part=part)


_OF_START = ("cache_creation", "inference_geo", "service_tier", "speed")
"""Fields of a usage that only the beginning of a message says."""


def _message_events(answer: Json, asked: Mapping[str, Any]) -> Iterator[bytes]:
    def event(type: str, **fields: Any) -> bytes:
        return _event({"type": type, **fields}, type)

    ends = {name: answer.get(name) for name in ("stop_reason", "stop_sequence")}
    usage = answer.get("usage") or {}
    start = {**answer, "content": [], **dict.fromkeys(ends), "usage": {**usage, "output_tokens": 0}}
    yield event("message_start", message=start)
    for index, block in enumerate(answer["content"]):
        bare, deltas = _block_deltas(block)
        yield event("content_block_start", index=index, content_block=bare)
        for delta in deltas:
            yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)
    last = {name: usage[name] for name in usage if name not in _OF_START}
    yield event("message_delta", delta=ends, usage={"output_tokens": 0, **last})
    yield event("message_stop")


def _block_deltas(block: Json) -> tuple[Json, list[Json]]:
    """A block as it begins, and what it grows by."""
    match block.get("type"):
        case "text":
            deltas: list[Json] = [{"type": "text_delta", "text": block["text"]}]
            citations = block.get("citations")
            bare = {**block, "text": ""}
            if citations:
                bare["citations"] = []
                deltas = [{"type": "citations_delta", "citation": one} for one in citations] + deltas
            return bare, deltas
        case "thinking":
            deltas = [{"type": "thinking_delta", "thinking": block["thinking"]}]
            if block.get("signature"):
                deltas.append({"type": "signature_delta", "signature": block["signature"]})
            return {**block, "thinking": "", "signature": ""}, deltas
        case "tool_use" | "server_tool_use":
            text = jsontext.dumps(block["input"]).decode()
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": text}]
    return block, []


def _content_events(answer: Json, asked: Mapping[str, Any]) -> Iterator[bytes]:
    yield _event(answer)


_STREAM: Mapping[str, Callable[[Json, Mapping[str, Any]], Iterable[bytes]]] = {
    "chat": _chat_events,
    "responses": _response_events,
    "messages": _message_events,
    "gemini": _content_events,
}


def _family(format: str) -> str:
    return format if format in _STREAM else "gemini"


def _dicts(value: Any) -> list[Json]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
