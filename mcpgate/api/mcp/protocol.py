"""JSON-RPC requests of both protocol eras: taken apart, checked, refused. Pure; face.py answers them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mcpgate import jsontext
from mcpgate.errors import McpgateError
from mcpgate.governance.context import RequestContext

HANDSHAKE_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN_VERSIONS = ("2026-07-28",)
META = "io.modelcontextprotocol/"
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603
UNSUPPORTED_VERSION = -32022
HEADER_MISMATCH = -32020

Message = dict[str, Any]
Notify = Callable[[str, dict[str, Any]], None]


class Answer(dict[str, Any]):
    """A message whose bytes are known, because they have been counted."""

    __slots__ = ("data",)

    def __init__(self, message: Message, data: bytes) -> None:
        super().__init__(message)
        self.data = data


class RpcFault(Exception):
    """A request that gets a JSON-RPC error."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, data

    def to_wire(self, id: Any) -> Message:
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.data is not None:
            error["data"] = self.data
        return {"jsonrpc": "2.0", "id": id, "error": error}


@dataclass(slots=True)
class RpcRequest:
    """One request with what its era and transport say of it."""

    method: str
    params: dict[str, Any]
    id: Any
    modern: bool
    context: RequestContext
    notify: Notify
    """Send a notification that belongs to this request."""

    @property
    def progress_token(self) -> Any:
        meta = self.params.get("_meta")
        return meta.get("progressToken") if isinstance(meta, dict) else None


def decode(data: bytes) -> Any:
    """What a client sent, of any shape; parse_request checks that. Raises RpcFault."""
    try:
        return jsontext.loads(data)
    except ValueError as error:
        raise RpcFault(PARSE_ERROR, f"Parse error: {error}") from None


def parse_request(message: Any, context: RequestContext, notify: Notify) -> RpcRequest:
    """A decoded message as a request. Raises RpcFault."""
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0" or not isinstance(message.get("method"), str):
        raise RpcFault(INVALID_REQUEST, "not a JSON-RPC 2.0 request: it needs jsonrpc, method and id")
    id = message.get("id")
    if isinstance(id, bool) or not isinstance(id, (str, int, float)):
        raise RpcFault(INVALID_REQUEST, "id must be a string or a number")
    params = message.get("params", {})
    if params is None:
        params = {}
    if not isinstance(params, dict):
        raise RpcFault(INVALID_PARAMS, "params must be an object")
    version = protocol_of(params)
    if version is not None and message["method"] != "initialize":
        if version not in MODERN_VERSIONS:
            raise unsupported(version)
        if META + "clientCapabilities" not in params["_meta"]:
            raise RpcFault(INVALID_PARAMS, f"params._meta is missing {META}clientCapabilities")
        return RpcRequest(message["method"], params, id, True, context, notify)
    return RpcRequest(message["method"], params, id, False, context, notify)


def protocol_of(params: Any) -> Any:
    """The revision that a modern request names in its envelope, or None."""
    meta = params.get("_meta") if isinstance(params, dict) else None
    return meta.get(META + "protocolVersion") if isinstance(meta, dict) else None


def unsupported(version: Any) -> RpcFault:
    return RpcFault(
        UNSUPPORTED_VERSION, "Unsupported protocol version", {"supported": list(MODERN_VERSIONS), "requested": version}
    )


def refusal(error: McpgateError) -> RpcFault:
    return RpcFault(INTERNAL_ERROR, error.message, {"code": error.code, **error.data})
