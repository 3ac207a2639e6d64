"""Refusals in the shape of each client's format. Pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import orjson

from mcpgate.errors import McpgateError

ROUTES = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "embeddings": "/v1/embeddings",
    "count_tokens": "/v1/messages/count_tokens",
}
_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_OPENAI = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error", 429: "rate_limit_error"}


def is_anthropic(format: str) -> bool:
    return format in ("messages", "count_tokens")


def body_of(
    format: str, status: int, code: str, message: str, data: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """An error as clients of a format read it; `code` and `data` are the contract's."""
    if is_anthropic(format):
        kind = _ANTHROPIC.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {**data, "type": kind, "message": message, "code": code}}
    kind = _OPENAI.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {**data, "message": message, "type": kind, "param": data.get("field"), "code": code}}


def refusal(format: str, error: McpgateError) -> dict[str, Any]:
    return body_of(format, error.http_status, error.code, error.message, error.data)


def event(format: str, error: McpgateError) -> bytes:
    """The same as the last event of a stream."""
    body = refusal(format, error)
    if format == "responses":
        body = {"type": "error", "code": error.code, "message": error.message, "param": None, "sequence_number": 0}
    name = b"event: error\n" if format in ("messages", "responses") else b""
    return name + b"data: " + orjson.dumps(body, default=str) + b"\n\n"
