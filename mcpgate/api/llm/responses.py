"""OpenAI Responses as clients speak it: requests in, answers out; for streams see responses_stream. Pure.

`_TRANSLATED`, `_LEFT_OUT` and `_DEFAULTS` name every field that is accepted; all others are refused by name. Nothing is
stored, so each request must hold the whole conversation. Reasoning goes to the client with the signature that its model
needs again, as `encrypted_content`. What another provider has encrypted is left out: no other model can read it."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from mcpgate import jsontext
from mcpgate.api.llm.responses_items import (
    Names,
    finished,
    full_name,
    parse_encrypted,
    render_item,
    render_response,
    render_usage,
)
from mcpgate.api.llm.responses_stream import ResponsesStream
from mcpgate.llm.chat_format import EFFORTS
from mcpgate.llm.fields import Defaults, Fields
from mcpgate.llm.media import parse_file, parse_image
from mcpgate.llm.messages import (
    NOTHING,
    ChatAnswer,
    ChatRequest,
    File,
    Image,
    JsonOutput,
    Message,
    Part,
    Reasoning,
    Refused,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)

_TRANSLATED = frozenset(
    "model input instructions tools tool_choice parallel_tool_calls max_output_tokens temperature top_p text reasoning "
    "user safety_identifier stream stream_options include".split()
)
_LEFT_OUT = {
    "client_metadata": "tells about the client",
    "max_tool_calls": "limits tools that run at OpenAI, and they are refused",
    "metadata": "labels of stored answers, and nothing is stored",
    "prompt_cache_key": "makes the answer cheaper, not different",
    "prompt_cache_options": "makes the answer cheaper, not different",
    "prompt_cache_retention": "makes the answer cheaper, not different",
}
_DEFAULTS: Defaults = {
    "background": (False,),
    "context_management": ([],),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "top_logprobs": (0,),
    "truncation": ("disabled",),
}
_ITEM = {
    "id": "names a stored item",
    "status": "is known",
    "phase": "a label",
    "internal_chat_message_metadata_passthrough": "tells of the client, which is Codex",
}
_OF_THE_CALL = {"name": "is that of the call", "namespace": "is that of the call"}
_PART = {"prompt_cache_breakpoint": "makes the answer cheaper, not different"}
_SAID = {"annotations": "of an earlier answer", "logprobs": "of an earlier answer"}
_DIRECT: Defaults = {"allowed_callers": (["direct"],)}
_FREEFORM_SCHEMA = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}


# --- Requests


def parse_request(body: Mapping[str, Any]) -> ChatRequest:
    """Raises InvalidRequest, Untranslatable."""
    fields = Fields(body)
    fields.only(_TRANSLATED, _LEFT_OUT, _DEFAULTS)
    _check_options(fields)
    system, messages = _parse_conversation(fields)
    text = fields.object("text")
    if text:
        text.only(("format", "verbosity"))
    verbosity = text.one_of("verbosity", ("low", "medium", "high")) if text else ""
    return ChatRequest(
        model=fields.need_text("model"),
        messages=messages,
        system=system,
        tools=tuple(parsed for tool in fields.each("tools") for parsed in _parse_tools(tool)),
        tool_choice=_parse_tool_choice(fields),
        max_tokens=fields.whole("max_output_tokens"),
        temperature=fields.number("temperature"),
        top_p=fields.number("top_p"),
        output=_parse_format(text.object("format")) if text else None,
        reasoning=_parse_reasoning(fields.object("reasoning")),
        verbosity="" if verbosity == "medium" else verbosity,
        user=fields.text("safety_identifier") or fields.text("user"),
        stream=fields.flag("stream") or False,
    )


def _check_options(fields: Fields) -> None:
    for index, included in enumerate(fields.texts("include")):
        if included != "reasoning.encrypted_content":
            fields.untranslatable(f"include[{index}]", f"{included[:100]!r}; it can be reasoning.encrypted_content")
    if options := fields.object("stream_options"):
        options.only((), {"include_obfuscation": "only changes the length of events"})


def _parse_conversation(fields: Fields) -> tuple[tuple[Text, ...], tuple[Message, ...]]:
    """The leading instructions, and the rest. What the assistant said and called without a break is one message; so
    are the results of tools and the user's next words."""
    instructions = fields.text("instructions")
    system = [Text(instructions)] if instructions else []
    if isinstance(fields.need("input"), str):
        return tuple(system), (Message("user", (Text(fields.text("input")),)),)
    turns: list[tuple[Any, list[Part]]] = []
    for item in fields.each("input"):
        role, parts = _parse_item(item)
        last = turns[-1] if turns else ("", [])
        if role == "system" and not turns:
            system += [part for part in parts if isinstance(part, Text)]
        elif role == last[0] and (role == "assistant" or isinstance(last[1][-1], ToolResult)):
            last[1].extend(parts)
        elif parts:
            turns.append((role, parts))
    return tuple(system), tuple(Message(role, tuple(parts)) for role, parts in turns)


def _parse_item(item: Fields) -> tuple[str, list[Part]]:
    """The role of the one who said it, and what it was."""
    match item.text("type") or "message":
        case "message":
            return _parse_message(item)
        case "reasoning":
            item.only(("type", "summary", "content", "encrypted_content"), _ITEM)
            return "assistant", [*_parse_thought(item)]
        case "function_call":
            item.only(("type", "call_id", "name", "namespace", "arguments"), _ITEM)
            name = full_name(item.text("namespace"), item.need_text("name"))
            return "assistant", [ToolCall(item.need_text("call_id"), name, item.text("arguments") or "{}")]
        case "custom_tool_call":
            item.only(("type", "call_id", "name", "namespace", "input"), _ITEM)
            name = full_name(item.text("namespace"), item.need_text("name"))
            arguments = jsontext.dumps({"input": item.text("input")}).decode()
            return "assistant", [ToolCall(item.need_text("call_id"), name, arguments)]
        case "function_call_output" | "custom_tool_call_output":
            item.only(("type", "call_id", "output"), {**_ITEM, **_OF_THE_CALL})
            result: Any = tuple(_parse_content(item, "output"))
            return "user", [ToolResult(item.need_text("call_id"), result)]
        case type:
            item.untranslatable("type", f"{type[:100]!r} has no form in the format of this model's provider")


def _parse_message(item: Fields) -> tuple[str, list[Part]]:
    item.only(("type", "role", "content"), _ITEM)
    role = item.need_text("role")
    if role not in ("user", "assistant", "system", "developer"):
        item.untranslatable("role", f"{role[:100]!r}; it can be user, assistant, system or developer")
    parts = _parse_content(item, "content")
    if role in ("user", "assistant"):
        return role, parts
    for index, part in enumerate(parts):
        if not isinstance(part, Text):
            item.untranslatable(f"content[{index}].type", "must be input_text")
    return "system", parts


def _parse_thought(item: Fields) -> Iterable[Thinking]:
    """What remains of it if nothing can be read is nothing."""
    texts = [part.text("text") for name in ("summary", "content") for part in item.each(name)]
    thought = parse_encrypted(item.text("encrypted_content"), "\n\n".join(texts))
    return [thought] if thought != Thinking("") else []


def _parse_content(item: Fields, name: str) -> list[Part]:
    content = item.need(name)
    if isinstance(content, str):
        return [Text(content)]
    return [_parse_part(part) for part in item.each(name)]


def _parse_part(part: Fields) -> Text | Image | File | Refused:
    match part.need_text("type"):
        case "input_text" | "output_text" | "text":
            part.only(("type", "text"), {**_PART, **_SAID})
            part.need("text")
            return Text(part.text("text"))
        case "input_image":
            part.only(("type", "image_url", "detail"), _PART)
            return parse_image(part, "image_url", part.text("detail"))
        case "input_file":
            part.only(("type", "file_data", "file_url", "filename"), {**_PART, "detail": "a hint"})
            if part.get("file_url") is not None:
                return File("", url=part.text("file_url"), name=part.text("filename"))
            return parse_file(part, "file_data", part.text("filename"))
        case "refusal":
            part.only(("type", "refusal"))
            return Refused(part.need_text("refusal"))
        case type:
            part.untranslatable("type", f"{type[:100]!r}; it can be input_text, input_image, input_file or output_text")


def _parse_tools(tool: Fields) -> Iterator[Tool]:
    """One, or those of a namespace. Its description stands before that of its first tool."""
    if tool.need_text("type") != "namespace":
        yield _parse_tool(tool)
        return
    tool.only(("type", "name", "description", "tools"))
    namespace, about = tool.need_text("name"), tool.text("description")
    for inner in tool.each("tools"):
        parsed = _parse_tool(inner)
        description = "\n\n".join(text for text in (about, parsed.description) if text)
        name = full_name(namespace, parsed.name)
        yield replace(parsed, name=name, description=description, namespace=namespace)
        about = ""


def _parse_tool(tool: Fields) -> Tool:
    match tool.need_text("type"):
        case "function":
            left_out = {"defer_loading": "a tool that is there from the beginning can do the same"}
            tool.only(("type", "name", "description", "parameters", "strict"), left_out, _DIRECT)
            schema = tool.mapping("parameters") or NOTHING
            return Tool(tool.need_text("name"), tool.text("description"), schema, tool.flag("strict"))
        case "custom":
            tool.only(("type", "name", "description", "format"), (), _DIRECT)
            grammar = _parse_grammar(tool.object("format"))
            description = "\n\n".join(text for text in (tool.text("description"), grammar) if text)
            return Tool(tool.need_text("name"), description, _FREEFORM_SCHEMA, freeform=True)
        case type:
            tool.untranslatable("type", f"{type[:100]!r} works only with OpenAI's models: turn it off at the client")


def _parse_grammar(format: Fields | None) -> str:
    """Other models cannot be bound to a grammar, but told."""
    if format is None or format.need_text("type") == "text":
        return ""
    format.only(("type", "syntax", "definition"), (), {"type": ("grammar",)})
    if (type := format.text("type")) != "grammar":
        format.untranslatable("type", f"{type[:100]!r}; it can be text or grammar")
    return f"`input` must match this {format.need_text('syntax')} grammar:\n{format.need_text('definition')}"


def _parse_tool_choice(fields: Fields) -> ToolChoice | None:
    parallel, choice = fields.flag("parallel_tool_calls"), fields.get("tool_choice")
    if choice is None:
        return None if parallel is None else ToolChoice(parallel=parallel)
    if isinstance(choice, str):
        mode: Any = fields.one_of("tool_choice", ("auto", "none", "required")) or "auto"
        return ToolChoice(mode, parallel=parallel)
    named = fields.need_object("tool_choice")
    if (type := named.need_text("type")) not in ("function", "custom"):
        named.untranslatable("type", f"{type[:100]!r}; it can be function or custom")
    named.only(("type", "name"))
    return ToolChoice("tool", named.need_text("name"), parallel)


def _parse_format(format: Fields | None) -> JsonOutput | None:
    match format and format.need_text("type"):
        case None | "text":
            return None
        case "json_object":
            return JsonOutput()
        case "json_schema" if format:
            format.only(("type", "name", "description", "schema", "strict"))
            schema, name = format.mapping("schema") or NOTHING, format.text("name") or "answer"
            return JsonOutput(schema, name, format.flag("strict"), format.text("description"))
        case type:
            assert format
            format.untranslatable("type", f"{type!r:.100}; it can be text, json_object or json_schema")


def _parse_reasoning(reasoning: Fields | None) -> Reasoning | None:
    if reasoning is None:
        return None
    usual: Defaults = {"context": ("auto",), "mode": ("standard",)}
    reasoning.only(("effort", "summary", "generate_summary"), (), usual)
    effort = reasoning.one_of("effort", EFFORTS)
    shown = bool(reasoning.text("summary") or reasoning.text("generate_summary"))
    return Reasoning(effort, shown=shown) if effort or shown else None


# --- Answers


def render_answer(answer: ChatAnswer, request: ChatRequest) -> dict[str, Any]:
    names = Names(answer.id, request)
    output = [render_item(part, names.of(part, index), "completed", names) for index, part in enumerate(answer.parts)]
    refused = any(isinstance(part, Refused) for part in answer.parts)
    created = answer.created or int(time.time())
    usage = render_usage(answer.usage) if answer.usage else None
    beginning = render_response(names, answer.model, created, request)
    return beginning | finished(answer.stop, refused) | {"output": output, "usage": usage}


def render_stream(request: ChatRequest) -> ResponsesStream:
    return ResponsesStream(request)
