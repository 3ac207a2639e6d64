"""What both sides of OpenAI Chat Completions share: how the format carries reasoning and usage. Pure.

The format itself has no reasoning. By convention `reasoning_content` holds its text (DeepSeek, vLLM and others), and
`reasoning_details` (OpenRouter) holds what must go back to the model unchanged: signatures and encrypted blocks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mcpgate.llm.fields import Fields
from mcpgate.llm.messages import Thinking, TokenUsage

REASONING_FIELDS = frozenset({"reasoning_content", "reasoning", "reasoning_details"})
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def parse_reasoning(message: Fields) -> list[Thinking]:
    return [thought for _, thought in parse_thoughts(message)]


def parse_thoughts(message: Fields) -> list[tuple[int, Thinking]]:
    """With their indexes, by which the pieces of a stream belong together. The details if there are any, for they hold
    the text too; else the text."""
    details = [(detail.whole("index") or 0, _parse_detail(detail)) for detail in message.each("reasoning_details")]
    if details:
        return details
    text = message.text("reasoning_content") or message.text("reasoning")
    return [(0, Thinking(text))] if text else []


def _parse_detail(detail: Fields) -> Thinking:
    type, id = detail.need_text("type"), detail.text("id")
    if type == "reasoning.text":
        return Thinking(detail.text("text"), signature=detail.text("signature"), id=id)
    if type == "reasoning.summary":
        return Thinking(detail.text("summary"), id=id)
    if type == "reasoning.encrypted":
        return Thinking("", encrypted=detail.need_text("data"), id=id)
    detail.untranslatable("type", f"{type[:100]!r} is unknown")


def render_reasoning(thoughts: Sequence[Thinking]) -> dict[str, Any]:
    """The fields of a message. The details only where the text alone would lose something."""
    fields: dict[str, Any] = {}
    if text := "".join(thought.text for thought in thoughts):
        fields["reasoning_content"] = text
    if any(thought.signature or thought.encrypted or thought.id for thought in thoughts):
        fields["reasoning_details"] = [render_detail(thought, index) for index, thought in enumerate(thoughts)]
    return fields


def render_detail(thought: Thinking, index: int) -> dict[str, Any]:
    detail: dict[str, Any] = {"index": index}
    if thought.id:
        detail["id"] = thought.id
    if thought.encrypted:
        return detail | {"type": "reasoning.encrypted", "data": thought.encrypted}
    if thought.signature:
        detail["signature"] = thought.signature
    return detail | {"type": "reasoning.text", "text": thought.text}


def parse_usage(usage: Fields | None) -> TokenUsage | None:
    if usage is None:
        return None
    prompt, completion = usage.object("prompt_tokens_details"), usage.object("completion_tokens_details")
    return TokenUsage(
        input=usage.whole("prompt_tokens") or 0,
        output=usage.whole("completion_tokens") or 0,
        cache_read=(prompt.whole("cached_tokens") or 0) if prompt else 0,
        cache_write=(prompt.whole("cache_write_tokens") or 0) if prompt else 0,
        reasoning=(completion.whole("reasoning_tokens") or 0) if completion else 0,
    )


def render_usage(usage: TokenUsage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def compact(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is None."""
    return {name: value for name, value in fields.items() if value is not None}


def of_type(parts: Iterable[Any], type: Any) -> list[Any]:
    return [part for part in parts if isinstance(part, type)]
