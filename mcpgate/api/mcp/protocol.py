"""JSON-RPC requests of both protocol eras: taken apart, checked, refused. Pure; face.py answers them."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from mcpgate import jsontext
from mcpgate.errors import McpgateError
from mcpgate.governance.context import RequestContext, Trail
from mcpgate.telemetry.trace import parse_trace
from mcpgate.upstream.backchannel import LOG_LEVELS
from mcpgate.upstream.untrusted import OURS

HANDSHAKE_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN_VERSIONS = ("2026-07-28",)
META = "io.modelcontextprotocol/"
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603
HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION = -32020, -32021, -32022
NO_RESOURCE = -32002
"""Of the handshake era; later INVALID_PARAMS."""
_ABOUT_THE_PEER = frozenset((PARSE_ERROR, INVALID_REQUEST, HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION))
"""Codes that say something about how the two ends of a connection understand each other: clients negotiate another
revision, drop a session or send other headers when they get one."""

Message = dict[str, Any]
Notify = Callable[[str, dict[str, Any]], None]
Ask = Callable[[str, Mapping[str, Any]], Awaitable[dict[str, Any]]]
_NOTHING: Mapping[str, Any] = MappingProxyType({})


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
    capabilities: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    """What the client can be asked, as it says itself."""
    log_level: str | None = None
    """From which level on it wants log messages; None: it has not said."""
    ask: Ask | None = None
    """Have the client answer a request; None where it cannot be reached before the answer."""
    session: "Session | None" = None
    """The session that it belongs to."""
    origin: object = None
    """Equal for all requests of one client, and only for those."""

    @property
    def progress_token(self) -> Any:
        meta = self.params.get("_meta")
        return meta.get("progressToken") if isinstance(meta, dict) else None


class Session(Protocol):
    """What a client of the handshake era has open, as far as requests change it."""

    log_level: str | None
    subscriptions: dict[str, Callable[[], None]]
    """URI → what ends the subscription."""

    def announce(self, message: Message) -> None:
        """Tell the client what belongs to no request."""
        ...


def decode(data: bytes) -> Any:
    """What a client sent, of any shape; parse_request checks that. Raises RpcFault."""
    try:
        return jsontext.loads(data, most=jsontext.MAX_REQUEST_VALUES)
    except ValueError as error:
        raise RpcFault(PARSE_ERROR, f"Parse error: {error}") from None


def is_notification(message: Any) -> bool:
    """Whether a message is one that gets no answer."""
    return _names_method(message) and "id" not in message


def is_response(message: Any) -> bool:
    """Whether a message answers a request of ours."""
    return isinstance(message, dict) and "method" not in message and ("result" in message or "error" in message)


def id_of(message: Any) -> str | int | float | None:
    """The id that an answer to this message carries."""
    id = message.get("id") if isinstance(message, dict) else None
    return id if isinstance(id, (str, int, float)) and not isinstance(id, bool) else None


def malformed(message: Any) -> "RpcFault | None":
    """What makes a message no request."""
    if not _names_method(message):
        return RpcFault(INVALID_REQUEST, 'not a JSON-RPC message: a request has jsonrpc "2.0", a method and an id')
    if id_of(message) is None:
        return RpcFault(INVALID_REQUEST, "id must be a string or a number")
    return None


def parse_request(
    message: Any, context: RequestContext, notify: Notify, session: "Session | None" = None, modern: bool = False
) -> RpcRequest:
    """A decoded message as a request. `modern`: its transport says that it is of a revision without a handshake. Raises
    RpcFault."""
    if (fault := malformed(message)) is not None:
        raise fault
    id = message["id"]
    params = message.get("params", {})
    if params is None:
        params = {}
    if not isinstance(params, dict):
        raise RpcFault(INVALID_PARAMS, "params must be an object")
    version = protocol_of(params)
    meta = params.get("_meta")
    if isinstance(meta, dict) and (trace := parse_trace(meta.get("traceparent"), meta.get("tracestate"))) is not None:
        context.trace = trace
    if client := client_of(params):
        context.about = {**context.about, "client": client}
    if version is not None and (modern or message["method"] != "initialize"):
        if version not in MODERN_VERSIONS:
            raise unsupported(version)
        assert isinstance(meta, dict)
        if META + "clientCapabilities" not in meta:
            raise RpcFault(INVALID_PARAMS, f"params._meta is missing {META}clientCapabilities")
        capabilities, level = meta[META + "clientCapabilities"], meta.get(META + "logLevel")
        return RpcRequest(
            *(message["method"], params, id, True, context, notify),
            capabilities=capabilities if isinstance(capabilities, dict) else _NOTHING,
            log_level=level if level in LOG_LEVELS else None,
        )
    return RpcRequest(message["method"], params, id, False, context, notify, session=session)


def _names_method(message: Any) -> bool:
    return isinstance(message, dict) and message.get("jsonrpc") == "2.0" and isinstance(message.get("method"), str)


def protocol_of(params: Any) -> Any:
    """The revision that a modern request names in its envelope, or None."""
    meta = params.get("_meta") if isinstance(params, dict) else None
    return meta.get(META + "protocolVersion") if isinstance(meta, dict) else None


def client_of(params: Any) -> str:
    """The name and version of the client that a modern request, or `initialize`, tells; nothing if it tells none."""
    params = params if isinstance(params, dict) else {}
    meta = params.get("_meta")
    info = meta.get(META + "clientInfo") if isinstance(meta, dict) else None
    info = info or params.get("clientInfo")
    if not isinstance(info, dict) or not isinstance(name := info.get("name"), str):
        return ""
    version = info.get("version")
    return f"{name[:80]} {version[:20]}" if isinstance(version, str) else name[:80]


def unsupported(version: Any) -> RpcFault:
    return RpcFault(
        UNSUPPORTED_VERSION, "Unsupported protocol version", {"supported": list(MODERN_VERSIONS), "requested": version}
    )


def refusal(error: McpgateError) -> RpcFault:
    """A refusal of ours: programs read its code in `data`, for JSON-RPC has numbers only."""
    number = INVALID_REQUEST if error.code == "invalid_request" else INTERNAL_ERROR
    return RpcFault(number, error.message, {"code": error.code, **error.data})


def refused_call(trail: Trail, error: McpgateError) -> dict[str, Any]:
    """An error as a tool's result: a model reads results, not protocol errors, and SDK clients take another HTTP status
    for a broken transport."""
    trail.refusal = error
    meta = {OURS + "error": {"code": error.code, **error.data}}
    return {"content": [{"type": "text", "text": error.message}], "isError": True, "_meta": meta}


def passed_on(code: int, message: str, data: Any, modern: bool) -> RpcFault:
    """An upstream's error as the client gets it. What the upstream made of the gateway's own request is not what the
    gateway made of the client's: such an error becomes an internal one that tells of it. `modern`: the client's
    revision has no handshake; it hears itself which of its capabilities is missing, and takes an unknown method for
    one that the gateway does not have."""
    if code in _ABOUT_THE_PEER - {MISSING_CAPABILITY} or (code == (METHOD_NOT_FOUND if modern else MISSING_CAPABILITY)):
        told = {"server_code": code, "server_message": message, **({} if data is None else {"server_data": data})}
        return RpcFault(INTERNAL_ERROR, f"the server refused the gateway's request: {message}", told)
    if modern and code == NO_RESOURCE:
        code = INVALID_PARAMS
    return RpcFault(code or INTERNAL_ERROR, message, data)
