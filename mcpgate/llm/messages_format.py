"""What both sides of Anthropic Messages share: content blocks, usage and stop reasons. Pure."""

from collections.abc import Mapping
from typing import Any

from mcpgate import jsontext
from mcpgate.llm.fields import Fields
from mcpgate.llm.messages import Part, Refused, StopReason, Text, Thinking, TokenUsage, ToolCall, Untranslatable

BEGINNINGS = {
    "text": ("type", "text"),
    "thinking": ("type", "thinking", "signature"),
    "redacted_thinking": ("type", "data"),
    "tool_use": ("type", "id", "name", "input"),
}
"""Types of blocks that a model writes, with the fields that are translated."""

STOP_REASONS: Mapping[str, StopReason] = {
    "end_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_calls",
    "pause_turn": "pause",
    "refusal": "refusal",
}
RENDERED_STOPS: Mapping[StopReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "stop_sequence": "stop_sequence",
    "tool_calls": "tool_use",
    "pause": "pause_turn",
    "refusal": "refusal",
    "content_filter": "refusal",
}


def parse_said(block: Fields) -> Text | Thinking | ToolCall:
    """A block that a model has written. Raises Untranslatable for those of server tools."""
    match block.need_text("type"):
        case "text":
            block.need("text")
            return Text(block.text("text"), block.mapping("cache_control"))
        case "thinking":
            return Thinking(block.text("thinking"), signature=block.text("signature"))
        case "redacted_thinking":
            return Thinking("", encrypted=block.need_text("data"))
        case "tool_use":
            arguments = jsontext.dumps(block.mapping("input") or {}).decode()
            return ToolCall(block.need_text("id"), block.need_text("name"), arguments, block.mapping("cache_control"))
        case type:
            block.untranslatable("type", f"{type[:100]!r} has no form in the other format")


def render_said(part: Part) -> dict[str, Any]:
    """A block as a model writes it. A refusal in words is text: the format has no other place for it."""
    match part:
        case Text() | Refused():
            return {"type": "text", "text": part.text}
        case Thinking() if part.encrypted:
            return {"type": "redacted_thinking", "data": part.encrypted}
        case Thinking():
            return {"type": "thinking", "thinking": part.text, "signature": part.signature}
        case ToolCall():
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": parse_arguments(part)}
        case _:
            raise Untranslatable("messages", f"the format allows no {type(part).__name__.lower()} of the assistant")


def parse_arguments(call: ToolCall) -> dict[str, Any]:
    """For formats that carry them as an object. Raises Untranslatable for what is none."""
    try:
        arguments = jsontext.loads(call.arguments.encode("utf-8", "surrogatepass") or b"{}", "replace")
    except ValueError as error:
        raise _no_object(call, str(error)) from None
    if not isinstance(arguments, dict):
        raise _no_object(call, "not an object")
    return arguments


def _no_object(call: ToolCall, reason: str) -> Untranslatable:
    field = f"tool_calls[{call.id[:100]!r}].arguments"
    return Untranslatable(field, f"this model's format needs a JSON object: {reason[:200]}")


def parse_usage(usage: Fields | None, before: TokenUsage | None = None) -> TokenUsage | None:
    """Events of a stream give only what has changed: `before` has the rest. The format counts cached tokens apart."""
    if usage is None:
        return before
    before = before or TokenUsage()
    read = _count(usage, "cache_read_input_tokens", before.cache_read)
    write = _count(usage, "cache_creation_input_tokens", before.cache_write)
    fresh = _count(usage, "input_tokens", before.input - before.cache_read - before.cache_write)
    kept, details = usage.object("cache_creation"), usage.object("output_tokens_details")
    return TokenUsage(
        input=fresh + read + write,
        output=_count(usage, "output_tokens", before.output),
        cache_read=read,
        cache_write=write,
        cache_write_1h=_count(kept, "ephemeral_1h_input_tokens", 0) if kept else before.cache_write_1h,
        reasoning=_count(details, "thinking_tokens", 0) if details else before.reasoning,
    )


def _count(usage: Fields, name: str, before: int) -> int:
    count = usage.whole(name)
    return before if count is None else count


def render_usage(usage: TokenUsage | None) -> dict[str, Any]:
    """The format requires one: unknown counts are 0."""
    usage = usage or TokenUsage()
    short = usage.cache_write - usage.cache_write_1h
    return {
        "input_tokens": max(0, usage.input - usage.cache_read - usage.cache_write),
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": max(0, short),
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "output_tokens": usage.output,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
    }
