"""The gateway as an MCP server: requests in, answers out, both protocol eras, no transport.

Our own and not the SDK's server because of what stands in front of every agent's start: importing the SDK alone
takes a second (1.1 s with mcp 2.3.0 on the machine of README's tables), and because its typed results drop unknown
fields and refuse unknown content types, which direct tools must pass through. The SDK's clients are what it is
tested with. Transports: stdio.py, http.py, sse.py.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from mcpgate import __version__, jsontext
from mcpgate.api.mcp.arguments import checked
from mcpgate.api.mcp.protocol import (
    HANDSHAKE_VERSIONS,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    META,
    METHOD_NOT_FOUND,
    MODERN_VERSIONS,
    Answer,
    Message,
    RpcFault,
    RpcRequest,
    refusal,
)
from mcpgate.api.mcp.throttle import Throttle
from mcpgate.catalog.catalog import nearest
from mcpgate.catalog.tools import Tool
from mcpgate.codemode import answers
from mcpgate.codemode.definitions import META_TOOL_NAMES
from mcpgate.errors import McpgateError, RateLimited
from mcpgate.gateway import Gateway
from mcpgate.governance.context import Trail
from mcpgate.upstream.connection import RpcError
from mcpgate.upstream.untrusted import OURS

_SERVER_INFO = {"name": "mcpgate", "title": "mcpgate", "version": __version__}
_INSTRUCTIONS = (
    "Many MCP servers behind four tools. list_tools(query) finds tools with their call shapes; execute_code runs "
    "Python that calls them and shows only what it prints or returns. Do a whole task in one execution."
)
_CAPABILITIES = {"tools": {"listChanged": True}}
_CACHE_MS = 60_000
_GOVERNED = ("tools/call", "subscriptions/listen")
_FREE_BURST, _FREE_PER_S = 64 * 1024 * 1024, 16 * 1024 * 1024
"""Bytes that answers to everything else may have, for each key."""
_MAX_LISTENERS_EACH = 256
"""Of `subscriptions/listen`, for each key."""
log = logging.getLogger("mcpgate.mcp")


class McpFace:
    """Answers requests. One for the whole gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._throttle = Throttle(_FREE_BURST, _FREE_PER_S)
        self._listeners: Counter[str] = Counter()

    async def answer(self, request: RpcRequest) -> Message:
        """The answer to a request, as it goes over the wire. Never raises but for cancellation."""
        caller = request.context.caller
        counted = not caller.is_local and request.method not in _GOVERNED
        try:
            if counted:
                self._throttle.check(caller.id)
            result = await self._result(request)
        except RpcFault as fault:
            return fault.to_wire(request.id)
        except McpgateError as error:
            return refusal(error).to_wire(request.id)
        except Exception:
            log.exception("%.200r failed", request.method)
            return RpcFault(INTERNAL_ERROR, "the gateway failed; its log says why").to_wire(request.id)
        if request.modern:
            meta = {**result.get("_meta", {}), META + "serverInfo": _SERVER_INFO}
            result = {"resultType": "complete", **result, "_meta": meta}
        answer = {"jsonrpc": "2.0", "id": request.id, "result": result}
        if not counted:
            return answer
        data = jsontext.dumps(answer)
        self._throttle.count(caller.id, len(data))
        return Answer(answer, data)

    async def _result(self, request: RpcRequest) -> dict[str, Any]:
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
                listed: dict[str, Any] = {"tools": self.gateway.tool_list(request.context.caller)}
                asyncio.get_running_loop().call_soon(self.gateway.go)
                return {**listed, "ttlMs": 0, "cacheScope": "private"} if request.modern else listed
            case "tools/call":
                return await self._call(request)
            case "subscriptions/listen" if request.modern:
                return await self._listen(request)
        raise RpcFault(METHOD_NOT_FOUND, f"Method not found: {request.method[:200]}")

    async def _call(self, request: RpcRequest) -> dict[str, Any]:
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
            near = nearest(name, [*META_TOOL_NAMES, *self.gateway.views.direct_of(request.context.caller)])
            raise RpcFault(INVALID_PARAMS, f"Unknown tool: {name}", {"code": "unknown_tool", "nearest": near})
        return await self._call_direct(request, tool, arguments)

    async def _call_meta_tool(self, request: RpcRequest, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        context = replace(request.context, client=_InnerProgress(request))
        try:
            given = checked(name, arguments)
            tools = self.gateway.metatools
            if name == "execute_code":
                answer = await tools.execute_code(context, **given)
            else:
                method: Callable[..., Awaitable[str]] = getattr(tools, name)
                answer = answers.Answer.of_text(await method(context, **given))
        except McpgateError as error:
            return _refused(context.trail, error)
        return _with_warnings({"content": list(answer.content), "isError": answer.is_error}, context.trail)

    async def _call_direct(self, request: RpcRequest, tool: Tool, arguments: dict[str, Any]) -> dict[str, Any]:
        """Pass a call through: the result is the upstream's own, unknown fields and content types included."""
        context = replace(request.context, client=_DirectProgress(request))
        theirs = request.params.get("_meta")
        kept = (
            {k: v for k, v in theirs.items() if k != "progressToken" and not k.startswith(META)}
            if isinstance(theirs, dict)
            else None
        )
        try:
            result = await self.gateway.calls.carry(context, tool, arguments, kept)
        except RpcError as error:
            raise RpcFault(error.rpc_code or INTERNAL_ERROR, error.message, error.rpc_data) from error
        except McpgateError as error:
            return _refused(context.trail, error)
        result = _with_warnings({"content": [], **result}, context.trail)
        if not request.modern:
            result.pop("resultType", None)
        return result

    async def _listen(self, request: RpcRequest) -> dict[str, Any]:
        """`subscriptions/listen`: acknowledge, then tell of changes until the request is cancelled."""
        wanted = request.params.get("notifications")
        tools = isinstance(wanted, dict) and wanted.get("toolsListChanged") is True
        meta = {META + "subscriptionId": request.id}
        changed = asyncio.Event()
        key = request.context.caller.id
        if self._listeners[key] >= _MAX_LISTENERS_EACH:
            raise RateLimited(
                f"at most {_MAX_LISTENERS_EACH} subscriptions are open at once", limit=_MAX_LISTENERS_EACH
            )
        self._listeners[key] += 1
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
            self._listeners[key] -= 1
            if not self._listeners[key]:
                del self._listeners[key]


def _refused(trail: Trail, error: McpgateError) -> dict[str, Any]:
    """An error as a tool's result: a model reads results, not protocol errors, and SDK clients take another HTTP status
    for a broken transport."""
    trail.refusal = error
    meta = {OURS + "error": {"code": error.code, **error.data}}
    return {"content": [{"type": "text", "text": error.message}], "isError": True, "_meta": meta}


def _with_warnings(result: dict[str, Any], trail: Trail) -> dict[str, Any]:
    if not (warnings := trail.warnings):
        return result
    meta = result.get("_meta")
    return {**result, "_meta": {**(meta if isinstance(meta, dict) else {}), OURS + "warnings": warnings}}


class _DirectProgress:
    """Passes progress of a direct call on, under the caller's own token."""

    def __init__(self, request: RpcRequest) -> None:
        self._request, self._token = request, request.progress_token

    def progress(self, params: Mapping[str, Any]) -> None:
        if self._token is not None:
            self._request.notify("notifications/progress", {**params, "progressToken": self._token})


class _InnerProgress:
    """Passes progress of calls from inside an execution on; values only ever grow, as the protocol wants."""

    def __init__(self, request: RpcRequest) -> None:
        self._request, self._token, self._count = request, request.progress_token, 0

    def progress(self, params: Mapping[str, Any]) -> None:
        if self._token is None:
            return
        self._count += 1
        forwarded = {"progressToken": self._token, "progress": self._count}
        if isinstance(params.get("message"), str):
            forwarded["message"] = params["message"]
        self._request.notify("notifications/progress", forwarded)
