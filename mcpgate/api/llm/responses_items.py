"""What OpenAI Responses answers consist of: items and the response around them, whole and as a stream writes them.
Pure."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from mcpgate import jsontext
from mcpgate.llm.messages import (
    ChatRequest,
    JsonOutput,
    Part,
    Refused,
    StopReason,
    Thinking,
    TokenUsage,
    Tool,
    ToolCall,
    ToolChoice,
)

_SIGNED, _REDACTED = "mcpgate.signed.", "mcpgate.redacted."
"""Before `encrypted_content` that is a signature of the summary, or a block that only its model can read. What begins
otherwise comes from another provider."""


class Names:
    """The ids in one answer, made of the provider's, and the names of tools as the client knows them."""

    def __init__(self, id: str, request: ChatRequest) -> None:
        self._base = id
        self._namespaces = {tool.name: tool.namespace for tool in request.tools if tool.namespace}
        self._freeform = frozenset(tool.name for tool in request.tools if tool.freeform)
        self.response = f"resp_{id}"

    def is_freeform(self, part: Part) -> bool:
        return isinstance(part, ToolCall) and part.name in self._freeform

    def called(self, name: str) -> dict[str, str]:
        """The fields of a call that name its tool."""
        namespace = self._namespaces.get(name, "")
        return {"name": _short_name(name, namespace)} | ({"namespace": namespace} if namespace else {})

    def of(self, part: Part, index: int) -> str:
        kind = "msg"
        if isinstance(part, Thinking):
            kind = "rs"
        elif isinstance(part, ToolCall):
            kind = "ctc" if self.is_freeform(part) else "fc"
        return f"{kind}_{self._base}_{index}"


def full_name(namespace: str, name: str) -> str:
    """What the model sees, whose format knows no namespaces."""
    return f"{namespace}__{name}" if namespace else name


def _short_name(name: str, namespace: str) -> str:
    return name.removeprefix(f"{namespace}__") if namespace else name


def parse_encrypted(encrypted: str, summary: str) -> Thinking:
    """Reasoning as it came from its model. Raises nothing: what cannot be read is left out."""
    if encrypted.startswith(_SIGNED):
        return Thinking(summary, signature=encrypted.removeprefix(_SIGNED))
    if encrypted.startswith(_REDACTED):
        return Thinking("", encrypted=encrypted.removeprefix(_REDACTED))
    return Thinking(summary)


def _render_encrypted(thought: Thinking) -> str | None:
    if thought.encrypted:
        return _REDACTED + thought.encrypted
    return _SIGNED + thought.signature if thought.signature else None


def render_item(part: Part, id: str, status: str, names: Names) -> dict[str, Any]:
    """One item of the output. In progress, it is empty: its content follows in other events."""
    done = status == "completed"
    match part:
        case Thinking():
            summary = [summary_part(part.text)] if done and part.text else []
            item = {"type": "reasoning", "id": id, "summary": summary, "status": status}
            return item | {"encrypted_content": _render_encrypted(part)}
        case ToolCall() if names.is_freeform(part):
            input = freeform_input(part.arguments) if done else ""
            return {"type": "custom_tool_call", "id": id, "call_id": part.id, **names.called(part.name), "input": input}
        case ToolCall():
            call: dict[str, Any] = {"type": "function_call", "id": id, "call_id": part.id, **names.called(part.name)}
            return call | {"arguments": part.arguments if done else "", "status": status}
        case _:
            content = [content_part(part)] if done else []
            return {"type": "message", "id": id, "role": "assistant", "status": status, "content": content}


def content_part(part: Any) -> dict[str, Any]:
    if isinstance(part, Refused):
        return {"type": "refusal", "refusal": part.text}
    return {"type": "output_text", "text": part.text, "annotations": [], "logprobs": []}


def summary_part(text: str) -> dict[str, Any]:
    return {"type": "summary_text", "text": text}


def freeform_input(arguments: str) -> str:
    """The free text out of the arguments; all of them if the model has not kept to the form."""
    try:
        parsed = jsontext.loads(arguments.encode("utf-8", "surrogatepass"), "replace")
    except ValueError:
        return arguments
    text = parsed.get("input") if isinstance(parsed, dict) else None
    return text if isinstance(text, str) else arguments


def render_response(names: Names, model: str, created: int, request: ChatRequest) -> dict[str, Any]:
    """A response in progress; what the request asked for is said again, as in the original."""
    choice, reasoning = request.tool_choice or ToolChoice(), request.reasoning
    text: dict[str, Any] = {"format": _render_format(request.output)}
    return {
        "id": names.response,
        "object": "response",
        "created_at": created,
        "completed_at": None,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": request.max_tokens,
        "model": model,
        "output": [],
        "parallel_tool_calls": choice.parallel is not False,
        "previous_response_id": None,
        "reasoning": {
            "effort": reasoning.effort or None if reasoning else None,
            "summary": "auto" if reasoning and reasoning.shown else None,
        },
        "service_tier": "default",
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "text": text | {"verbosity": request.verbosity} if request.verbosity else text,
        "tool_choice": _render_tool_choice(choice, names),
        "tools": _render_tools(request.tools),
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "presence_penalty": request.presence_penalty or 0.0,
        "frequency_penalty": request.frequency_penalty or 0.0,
        "top_logprobs": 0,
        "max_tool_calls": None,
        "store": False,
        "safety_identifier": None,
        "prompt_cache_key": None,
        "truncation": "disabled",
        "usage": None,
        "user": request.user or None,
        "metadata": {},
    }


def finished(stop: StopReason, refused: bool) -> dict[str, Any]:
    """How a response ends. A refusal in words is complete; one without is what the format calls a filter."""
    reason = None
    if stop in ("length", "pause"):
        reason = "max_output_tokens"
    elif stop == "content_filter" or (stop == "refusal" and not refused):
        reason = "content_filter"
    if reason:
        return {"status": "incomplete", "incomplete_details": {"reason": reason}}
    return {"status": "completed", "completed_at": int(time.time())}


def render_usage(usage: TokenUsage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


def _render_format(output: JsonOutput | None) -> dict[str, Any]:
    if output is None:
        return {"type": "text"}
    if output.schema is None:
        return {"type": "json_object"}
    schema: dict[str, Any] = {"type": "json_schema", "name": output.name, "schema": dict(output.schema)}
    return schema | {"description": output.description or None, "strict": output.strict}


def _render_tools(tools: Iterable[Tool]) -> list[dict[str, Any]]:
    rendered: list[dict[str, Any]] = []
    namespaces: dict[str, list[dict[str, Any]]] = {}
    for tool in tools:
        if tool.namespace and tool.namespace not in namespaces:
            inner = namespaces[tool.namespace] = []
            rendered.append({"type": "namespace", "name": tool.namespace, "description": "", "tools": inner})
        namespaces.get(tool.namespace, rendered).append(_render_tool(tool))
    return rendered


def _render_tool(tool: Tool) -> dict[str, Any]:
    name = _short_name(tool.name, tool.namespace)
    if tool.freeform:
        return {"type": "custom", "name": name, "description": tool.description}
    schema: Mapping[str, Any] | None = tool.schema or None
    return {
        "type": "function",
        "name": name,
        "description": tool.description or None,
        "parameters": dict(schema) if schema else None,
        "strict": tool.strict,
    }


def _render_tool_choice(choice: ToolChoice, names: Names) -> str | dict[str, Any]:
    if choice.mode != "tool":
        return choice.mode
    freeform = names.is_freeform(ToolCall("", choice.name, ""))
    return {"type": "custom" if freeform else "function", "name": choice.name}
