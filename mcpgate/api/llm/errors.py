"""Refusals in the shape of each client's format. Pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import orjson

from mcpgate.errors import McpgateError
from mcpgate.llm.gemini_format import METHODS

ROUTES = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "input_tokens": "/v1/responses/input_tokens",
    "compact": "/v1/responses/compact",
    "messages": "/v1/messages",
    "embeddings": "/v1/embeddings",
    "count_tokens": "/v1/messages/count_tokens",
    "gemini": "/v1beta/models/{model}:generateContent",
    "gemini_count": "/v1beta/models/{model}:countTokens",
    "gemini_embedding": "/v1beta/models/{model}:embedContent",
    "gemini_embeddings": "/v1beta/models/{model}:batchEmbedContents",
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
_GOOGLE = {
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_OPENAI = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error", 429: "rate_limit_error"}


def is_anthropic(format: str) -> bool:
    return format in ("messages", "count_tokens")


def is_google(format: str) -> bool:
    return format in METHODS


def body_of(
    format: str, status: int, code: str, message: str, data: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """An error as clients of a format read it; `code` and `data` are the contract's."""
    if is_anthropic(format):
        kind = _ANTHROPIC.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {**data, "type": kind, "message": message, "code": code}}
    if is_google(format):
        kind = _GOOGLE.get(status, "INTERNAL" if status >= 500 else "INVALID_ARGUMENT")
        details = _google_details(code, data)
        return {"error": {"code": status, "message": message, "status": kind, "details": details}}
    kind = _OPENAI.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {**data, "message": message, "type": kind, "param": data.get("field"), "code": code}}


def _google_details(code: str, data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`code` and `data` in the types of google.rpc. Values of an ErrorInfo are strings."""
    known = {name: value for name, value in data.items() if value is not None}
    told = {name: one if isinstance(one, str) else _json(one) for name, one in known.items()}
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": code, "domain": "mcpgate", "metadata": told}
    wait_s = data.get("retry_after_s")
    if not isinstance(wait_s, (int, float)):
        return [info]
    return [info, {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{wait_s:.3f}s"}]


def _json(value: Any) -> str:
    return orjson.dumps(value, default=str).decode()


def refusal(format: str, error: McpgateError) -> dict[str, Any]:
    return body_of(format, error.http_status, error.code, error.message, error.data)


def event(format: str, error: McpgateError) -> bytes:
    """The same as the last event of a stream."""
    body = refusal(format, error)
    if format == "responses":
        body = {"type": "error", "code": error.code, "message": error.message, "param": None, "sequence_number": 0}
    name = b"event: error\n" if format in ("messages", "responses") else b""
    return name + b"data: " + orjson.dumps(body, default=str) + b"\n\n"
