"""Every error that leaves a part of mcpgate, with the code and status of the public contract (§5).

McpgateError
 ├── ConfigError        (invalid_request, 400)  the configuration cannot be used
 ├── InvalidRequest     (invalid_request, 400)  malformed message or argument
 ├── NotSupported       (not_supported, 400)    the client of this request cannot do what is needed for it
 ├── MissingKey         (missing_key, 401)      a virtual key is required and none was sent
 ├── InvalidKey         (invalid_key, 401)      unknown, revoked, expired or rotated out
 ├── BudgetExceeded     (budget_exceeded, 402)  the estimated cost does not fit what is left of a budget
 ├── NotAllowed         (not_allowed, 403)      not granted, or not allowed to this key, user, address or origin
 ├── UnknownTool        (unknown_tool, 404)     no such tool
 ├── UnknownModel       (unknown_model, 404)    no such model
 ├── NotFound           (not_found, 404)        no such server, page, handle, session, route, key or declaration
 │    └── PreviousResponseNotFound (previous_response_not_found, 404)  a response to go on with, unknown to this key
 ├── Conflict           (invalid_request, 409)  already exists, declared in the file, or being changed by others
 ├── TooLarge           (too_large, 413)        a message or body over its limit
 ├── RateLimited        (rate_limited, 429)     too many requests, bytes, seconds or calls at once, or money is reserved
 ├── UpstreamError      (upstream_error, 502)   an upstream failed, died or is not connected
 │    └── UpstreamTimeout (upstream_timeout, 504)  no answer within timeout_s
 └── Unavailable        (unavailable, 503)      shutting down, the store is away, or the sandbox cannot start
"""

from typing import Any, ClassVar


class McpgateError(Exception):
    """Base. `code` and `http_status` are the contract's; `data` holds what programs may want to read."""

    code: ClassVar[str] = "internal_error"
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(message)
        self.message, self.data = message, data


class ConfigError(McpgateError):
    code, http_status = "invalid_request", 400


class InvalidRequest(McpgateError):
    code, http_status = "invalid_request", 400


class NotSupported(McpgateError):
    code, http_status = "not_supported", 400


class MissingKey(McpgateError):
    code, http_status = "missing_key", 401


class InvalidKey(McpgateError):
    code, http_status = "invalid_key", 401


class BudgetExceeded(McpgateError):
    code, http_status = "budget_exceeded", 402


class NotAllowed(McpgateError):
    code, http_status = "not_allowed", 403


class Conflict(McpgateError):
    code, http_status = "invalid_request", 409


class TooLarge(McpgateError):
    code, http_status = "too_large", 413


class RateLimited(McpgateError):
    code, http_status = "rate_limited", 429


class UnknownTool(McpgateError):
    code, http_status = "unknown_tool", 404


class UnknownModel(McpgateError):
    code, http_status = "unknown_model", 404


class NotFound(McpgateError):
    code, http_status = "not_found", 404


class PreviousResponseNotFound(NotFound):
    code, http_status = "previous_response_not_found", 404


class UpstreamError(McpgateError):
    code, http_status = "upstream_error", 502


class UpstreamTimeout(UpstreamError):
    code, http_status = "upstream_timeout", 504


class Unavailable(McpgateError):
    code, http_status = "unavailable", 503
