"""Lists of models as clients of each format read them. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from mcpgate.llm.gemini_format import METHODS, STREAM_METHOD

_SUPPORTED = [*METHODS.values(), STREAM_METHOD]


def format_of(headers: Mapping[str, str]) -> str:
    """The format of a client that asks at /v1/models, by the headers that its SDK sends."""
    if "x-goog-api-key" in headers or "x-goog-api-client" in headers:
        return "gemini"
    return "messages" if "anthropic-version" in headers else "chat"


def render_models(names: Sequence[str], format: str) -> dict[str, Any]:
    shown = [render_model(name, format) for name in names]
    if format == "gemini":
        return {"models": shown}
    if format == "messages":
        ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
        return {"data": shown, "has_more": False, **ends}
    return {"object": "list", "data": shown}


def render_model(name: str, format: str) -> dict[str, Any]:
    if format == "gemini":
        return {"name": f"models/{name}", "displayName": name, "supportedGenerationMethods": _SUPPORTED}
    if format == "messages":
        return {"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"}
    return {"id": name, "object": "model", "created": 0, "owned_by": "mcpgate"}
