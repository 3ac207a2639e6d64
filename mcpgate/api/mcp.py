"""The gateway as an MCP server: JSON-RPC messages in, answers out, both protocol eras, no transport.

Our own and not the SDK's server because of what stands in front of every agent's start: importing the SDK alone
takes a second (1.1 s with mcp 2.3.0 on the machine of README's tables), and because its typed results drop unknown
fields and refuse unknown content types, which direct tools must pass through. The SDK's clients are what it is
tested with. Transports: stdio.py, http.py.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from mcpgate import __version__
from mcpgate.catalog.catalog import nearest
from mcpgate.catalog.tools import Tool
from mcpgate.codemode.definitions import META_TOOL_NAMES
from mcpgate.codemode.gateway import Gateway
from mcpgate.codemode.runner import Answer
from mcpgate.errors import InvalidRequest, McpgateError
from mcpgate.governance.callers import LOCAL, Caller
from mcpgate.upstream.connection import RpcError

HANDSHAKE_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN_VERSIONS = ("2026-07-28",)
META = "io.modelcontextprotocol/"
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603
UNSUPPORTED_VERSION = -32022
_SERVER_INFO = {"name": "mcpgate", "title": "mcpgate", "version": __version__}
_INSTRUCTIONS = (
    "Many MCP servers behind four tools. list_tools(query) finds tools with their call shapes; execute_code runs "
    "Python that calls them and shows only what it prints or returns. Do a whole task in one execution."
)
_CAPABILITIES = {"tools": {"listChanged": True}}
_CACHE_MS = 60_000
log = logging.getLogger("mcpgate.mcp")

Message = dict[str, Any]
Notify = Callable[[str, dict[str, Any]], None]


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
class Request:
    """One request with what its era and transport say of it."""

    method: str
    params: dict[str, Any]
    id: Any
    modern: bool
    caller: Caller
    notify: Notify
    """Send a notification that belongs to this request."""

    @property
    def progress_token(self) -> Any:
        meta = self.params.get("_meta")
        return meta.get("progressToken") if isinstance(meta, dict) else None


def parse_request(message: Any, caller: Caller, notify: Notify) -> Request:
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
        return Request(message["method"], params, id, True, caller, notify)
    return Request(message["method"], params, id, False, caller, notify)


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


class McpFace:
    """Answers requests. One for the whole gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def answer(self, request: Request) -> Message:
        """The answer to a request, as it goes over the wire. Never raises but for cancellation."""
        try:
            result = await self._result(request)
        except RpcFault as fault:
            return fault.to_wire(request.id)
        except McpgateError as error:
            return refusal(error).to_wire(request.id)
        except Exception:
            log.exception("%s failed", request.method)
            return RpcFault(INTERNAL_ERROR, "the gateway failed; its log says why").to_wire(request.id)
        if request.modern:
            meta = {**result.get("_meta", {}), META + "serverInfo": _SERVER_INFO}
            result = {"resultType": "complete", **result, "_meta": meta}
        return {"jsonrpc": "2.0", "id": request.id, "result": result}

    async def _result(self, request: Request) -> dict[str, Any]:
        match request.method:
            case "initialize":
                wanted = request.params.get("protocolVersion")
                version = wanted if wanted in HANDSHAKE_VERSIONS else HANDSHAKE_VERSIONS[-1]
                return {
                    "protocolVersion": version,
                    "capabilities": _CAPABILITIES,
                    "serverInfo": _SERVER_INFO,
                    "instructions": _INSTRUCTIONS,
                }
            case "server/discover":
                facts = {"capabilities": _CAPABILITIES, "instructions": _INSTRUCTIONS}
                return {"supportedVersions": [*MODERN_VERSIONS], **facts, "ttlMs": _CACHE_MS, "cacheScope": "private"}
            case "ping":
                return {}
            case "tools/list":
                listed: dict[str, Any] = {"tools": self.gateway.tool_list(request.caller)}
                asyncio.get_running_loop().call_soon(self.gateway.go)
                return {**listed, "ttlMs": 0, "cacheScope": "private"} if request.modern else listed
            case "tools/call":
                return await self._call(request)
            case "subscriptions/listen" if request.modern:
                return await self._listen(request)
        raise RpcFault(METHOD_NOT_FOUND, f"Method not found: {request.method}")

    async def _call(self, request: Request) -> dict[str, Any]:
        name = request.params.get("name")
        arguments = request.params.get("arguments")
        if arguments is None:
            arguments = {}
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise RpcFault(INVALID_PARAMS, "tools/call needs name (a string) and arguments (an object)")
        if name in META_TOOL_NAMES:
            return await self._call_meta_tool(request, name, arguments)
        tool = self.gateway.direct.get(name)
        if tool is None:
            near = nearest(name, [*META_TOOL_NAMES, *self.gateway.direct_of(request.caller)])
            raise RpcFault(INVALID_PARAMS, f"Unknown tool: {name}", {"code": "unknown_tool", "nearest": near})
        return await self._call_direct(request, tool, arguments)

    async def _call_meta_tool(self, request: Request, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            given = _checked(name, arguments)
            tools = self.gateway.metatools
            if name == "execute_code":
                answer = await tools.execute_code(request.caller, **given, on_progress=_Progress(request).inner)
            else:
                method: Callable[..., Awaitable[str]] = getattr(tools, name)
                answer = Answer(await method(request.caller, **given))
        except McpgateError as error:
            return _refused(error)
        content: list[dict[str, Any]] = [{"type": "text", "text": answer.text}] if answer.text else []
        result = {"content": [*content, *answer.blocks], "isError": answer.is_error}
        return {**result, "_meta": {"mcpgate/warnings": list(answer.warnings)}} if answer.warnings else result

    async def _call_direct(self, request: Request, tool: Tool, arguments: dict[str, Any]) -> dict[str, Any]:
        """Pass a call through: the result is the upstream's own, unknown fields and content types included."""
        on_progress = _Progress(request).direct if request.progress_token is not None else None
        theirs = request.params.get("_meta")
        kept = (
            {k: v for k, v in theirs.items() if k != "progressToken" and not k.startswith(META)}
            if isinstance(theirs, dict)
            else None
        )
        try:
            result = await self.gateway.call_direct(request.caller, tool, arguments, on_progress, kept)
        except RpcError as error:
            raise RpcFault(error.rpc_code or INTERNAL_ERROR, error.message, error.rpc_data) from error
        except McpgateError as error:
            return _refused(error)
        result = {"content": [], **result}
        if not request.modern:
            result.pop("resultType", None)
        return result

    async def _listen(self, request: Request) -> dict[str, Any]:
        """`subscriptions/listen`: acknowledge, then tell of changes until the request is cancelled."""
        wanted = request.params.get("notifications")
        tools = isinstance(wanted, dict) and wanted.get("toolsListChanged") is True
        meta = {META + "subscriptionId": request.id}
        changed = asyncio.Event()
        unsubscribe = self.gateway.on_tools_changed(changed.set)
        try:
            agreed = {"toolsListChanged": True} if tools else {}
            request.notify("notifications/subscriptions/acknowledged", {"notifications": agreed, "_meta": meta})
            while True:
                await changed.wait()
                changed.clear()
                if tools:
                    request.notify("notifications/tools/list_changed", {"_meta": meta})
        finally:
            unsubscribe()


def _refused(error: McpgateError) -> dict[str, Any]:
    """An error as a tool's result: a model reads results, not protocol errors."""
    meta = {"mcpgate/error": {"code": error.code, **error.data}}
    return {"content": [{"type": "text", "text": error.message}], "isError": True, "_meta": meta}


class _Progress:
    """Forwards progress under the caller's own token; values only ever grow, as the protocol wants."""

    def __init__(self, request: Request) -> None:
        self._request, self._count = request, 0

    def direct(self, params: dict[str, Any]) -> None:
        self._request.notify("notifications/progress", {**params, "progressToken": self._request.progress_token})

    def inner(self, params: dict[str, Any]) -> None:
        if self._request.progress_token is None:
            return
        self._count += 1
        forwarded = {"progressToken": self._request.progress_token, "progress": self._count}
        if isinstance(params.get("message"), str):
            forwarded["message"] = params["message"]
        self._request.notify("notifications/progress", forwarded)


@dataclass(slots=True)
class Session:
    """One client's standing with us on a transport that has any: stdio, SSE, and streamable HTTP of the
    handshake era. Requests run side by side; `notifications/cancelled` ends one."""

    face: McpFace
    send: Callable[[Message], None]
    """Gets every message for this client: answers, and notifications that belong to a request."""
    caller: Caller = LOCAL
    announce: Callable[[Message], None] | None = None
    """Where change notifications go, if not to `send`."""
    identify: Callable[[], Awaitable[Caller]] | None = None
    """Asked before each request, where one connection is all there is to know a caller by."""
    tasks: dict[Any, "asyncio.Task[Message | None]"] = field(default_factory=dict)
    _unsubscribe: Callable[[], None] | None = None

    def receive(self, message: Any) -> "asyncio.Task[Message | None] | None":
        """Take one decoded message. A request's task ends with its answer, which has been sent by then."""
        if isinstance(message, list):
            return self._batch(message)
        if isinstance(message, dict) and "method" not in message and ("result" in message or "error" in message):
            return None  # an answer: we ask nothing, so it answers nothing
        if isinstance(message, dict) and "id" not in message and isinstance(message.get("method"), str):
            self._on_notification(message)
            return None
        return self.start(message, self.send)

    def start(
        self, message: Any, send: Callable[[Message], None], caller: Caller | None = None
    ) -> "asyncio.Task[Message | None] | None":
        """Like `receive` for a request whose notifications and answer go to `send`; `caller` if it says more of
        itself than the session knows."""

        def notify(method: str, params: dict[str, Any]) -> None:
            send({"jsonrpc": "2.0", "method": method, "params": params})

        try:
            request = parse_request(message, caller or self.caller, notify)
        except RpcFault as fault:
            id = message.get("id") if isinstance(message, dict) else None
            send(fault.to_wire(id if isinstance(id, (str, int)) else None))
            return None
        if request.method == "initialize":
            self.follow_changes()
        task = asyncio.create_task(self._serve(request, send))
        self.tasks[request.id] = task
        task.add_done_callback(lambda done: self._forget(request.id, done))
        return task

    async def _serve(self, request: Request, send: Callable[[Message], None]) -> Message | None:
        answer = await self._answer(request)
        send(answer)
        return answer

    async def _answer(self, request: Request) -> Message:
        if self.identify is not None:
            try:
                request.caller = await self.identify()
            except McpgateError as error:
                return refusal(error).to_wire(request.id)
        return await self.face.answer(request)

    def _forget(self, id: Any, task: "asyncio.Task[Message | None]") -> None:
        if self.tasks.get(id) is task:
            del self.tasks[id]

    def _batch(self, messages: list[Any]) -> "asyncio.Task[Message | None] | None":
        if not messages:
            self.send(RpcFault(INVALID_REQUEST, "an empty batch").to_wire(None))
        for message in messages[:1000]:
            if not isinstance(message, list):
                self.receive(message)
        return None

    def _on_notification(self, message: Message) -> None:
        params = message.get("params")
        if message["method"] == "notifications/cancelled" and isinstance(params, dict):
            id = params.get("requestId")
            task = self.tasks.get(id) if isinstance(id, (str, int, float)) else None
            if task is not None:
                task.cancel()

    def follow_changes(self) -> None:
        """Tell this client, which does not subscribe, of every change of the tool list."""
        if self._unsubscribe is None:
            announce = self.announce or self.send
            changed: Message = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
            self._unsubscribe = self.face.gateway.on_tools_changed(lambda: announce(changed))

    async def finish(self, grace_s: float) -> None:
        """Let requests under way come to their end for a while, then close."""
        left = [task for task in self.tasks.values() if not task.done()]
        if left:
            await asyncio.wait(left, timeout=grace_s)
        self.close()

    def close(self) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        for task in list(self.tasks.values()):
            task.cancel()


_ARGUMENTS: dict[str, dict[str, tuple[type, ...]]] = {
    "list_tools": {"query": (str,), "server": (str,), "limit": (int,)},
    "describe_tools": {"names": (list,)},
    "read_docs": {"topic": (str,)},
    "execute_code": {"code": (str,), "session": (str,), "timeout_s": (int, float)},
}
_REQUIRED = {"describe_tools": "names", "read_docs": "topic", "execute_code": "code"}


def _checked(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a meta-tool. Models send null for 'none' and a string for a list of one. Raises InvalidRequest."""
    known = _ARGUMENTS[name]
    given = {}
    for key, value in arguments.items():
        if key not in known:
            near = nearest(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known)}"
            raise InvalidRequest(f"{name} has no argument {key!r}; {hint}")
        if value is None:
            continue
        if key == "names" and isinstance(value, str):
            value = [value]
        if isinstance(value, bool) or not isinstance(value, known[key]):
            raise InvalidRequest(f"{name}: {key} must be {known[key][0].__name__}, not {type(value).__name__}")
        if isinstance(value, list) and not all(isinstance(item, str) for item in value):
            raise InvalidRequest("describe_tools: names must be a list of strings")
        given[key] = value
    required = _REQUIRED.get(name)
    if required and required not in given:
        raise InvalidRequest(f"{name} needs {required!r}")
    return given
