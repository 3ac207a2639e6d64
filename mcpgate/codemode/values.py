"""Converts an MCP tool result into the value that code receives, and back into MCP content. Pure, except that
images and blobs are stored by a function passed in."""

from collections.abc import Callable
from typing import Any

from mcpgate import jsontext
from mcpgate.catalog.tools import Tool
from mcpgate_sandbox.engine import Handle

KeepData = Callable[[str, str, str, str | None], Handle]
"""(kind, mime_type, base64 data, uri) → handle."""
_MAX_PARSED = 8 * 1024 * 1024
"""Characters of JSON text in one result that are parsed; code can parse longer ones on its own time."""
_MAX_CONTAINERS = 300_000
_MAX_MESSAGE = 64_000
"""Characters of an error message."""


def value_of(tool: Tool, result: dict[str, Any], keep: KeepData) -> Any:
    """The structured content if any, else the content: JSON text parsed, other text as str, images and blobs as
    handles, several parts as a list."""
    parts = content_parts(result.get("content"), keep)
    structured = result.get("structuredContent")
    if structured is None:
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) == len(parts) > 1 and not any(t[:1] in "{[" for t in texts):
            return "\n".join(texts)
        left = _MAX_PARSED
        values = []
        for part in parts:
            values.append(_parsed(part, left) if isinstance(part, str) else part)
            left -= len(part) if isinstance(part, str) else 0
        return values[0] if len(values) == 1 else values or None
    value = structured
    if tool.wraps_result and _only_result(structured):
        value = structured["result"]
        value = _parsed(value, _MAX_PARSED) if isinstance(value, str) and tool.value_schema is None else value
    handles = [part for part in parts if isinstance(part, Handle)]
    if handles:
        # Content that structured content cannot carry must not be lost.
        return {**value, "_content": handles} if isinstance(value, dict) else [value, *handles]
    return value


def _only_result(structured: Any) -> bool:
    return isinstance(structured, dict) and list(structured) == ["result"]


def error_of(result: dict[str, Any]) -> tuple[str, Any]:
    """Message and data of a result with isError."""
    content = result.get("content")
    blocks = content if isinstance(content, list) else []
    texts = [b["text"] for b in blocks if isinstance(b, dict) and isinstance(b.get("text"), str)]
    message = "\n".join(texts).strip() or "the tool failed and gave no reason"
    if len(message) > _MAX_MESSAGE:
        message = f"{message[:_MAX_MESSAGE]}… ({len(message) - _MAX_MESSAGE:,} more characters)"
    return message, result.get("structuredContent")


def content_parts(content: Any, keep: KeepData) -> list[Any]:
    if isinstance(content, (str, dict)):
        content = [content]
    if not isinstance(content, list):
        return []
    return [_part(block, keep) for block in content]


def _part(block: Any, keep: KeepData) -> Any:
    if not isinstance(block, dict):
        return block
    kind = block.get("type")
    if kind == "text" and isinstance(block.get("text"), str):
        return block["text"]
    if kind in ("image", "audio") and isinstance(block.get("data"), str):
        return keep(kind, str(block.get("mimeType") or "application/octet-stream"), block["data"], None)
    if kind == "resource" and isinstance(resource := block.get("resource"), dict):
        uri = resource.get("uri")
        if isinstance(resource.get("text"), str):
            return resource["text"]
        if isinstance(resource.get("blob"), str):
            mime_type = str(resource.get("mimeType") or "application/octet-stream")
            return keep("blob", mime_type, resource["blob"], str(uri) if uri else None)
    return block  # resource links, and content types newer than this version


def _parsed(text: str, most: int) -> Any:
    """The value of a JSON text; other texts, and those too large to parse at once, unchanged."""
    if len(text) > most or text[:100].lstrip("\ufeff \t\r\n")[:1] not in ("{", "["):
        return text
    if text.count("[") + text.count("{") > _MAX_CONTAINERS:
        return text
    try:
        return jsontext.loads(text.removeprefix("\ufeff").encode("utf-8", "replace"))
    except ValueError:
        return text
