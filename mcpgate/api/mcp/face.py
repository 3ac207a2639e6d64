"""The gateway as an MCP server: requests in, answers out, both protocol eras, no transport.

Our own and not the SDK's server because of what stands in front of every agent's start: importing the SDK alone
takes a second (1.1 s with mcp 2.3.0 on the machine of README's tables), and because its typed results drop unknown
fields and refuse unknown content types, which direct tools must pass through. The SDK's clients are what it is
tested with. Transports: stdio.py, http.py, sse.py.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from mcpgate import __version__, jsontext
from mcpgate.api.http.allowance import Allowance
from mcpgate.api.mcp.arguments import checked
from mcpgate.api.mcp.backchannel import BackChannel
from mcpgate.api.mcp.pages import page_of
from mcpgate.api.mcp.parking import Parking
from mcpgate.api.mcp.protocol import (
    HANDSHAKE_VERSIONS,
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    META,
    METHOD_NOT_FOUND,
    MODERN_VERSIONS,
    NO_RESOURCE,
    Answer,
    Message,
    RpcFault,
    RpcRequest,
    passed_on,
    refusal,
    refused_call,
)
from mcpgate.api.mcp.tasks import Tasks, missing_extension
from mcpgate.api.mcp.throttle import Throttle
from mcpgate.catalog.catalog import nearest
from mcpgate.catalog.tools import Tool
from mcpgate.codemode import answers
from mcpgate.codemode.definitions import META_TOOL_NAMES
from mcpgate.errors import McpgateError, NotFound, RateLimited, UnknownTool
from mcpgate.gateway import Gateway
from mcpgate.governance.callers import Caller
from mcpgate.governance.context import RequestContext, Trail
from mcpgate.governance.records import Request
from mcpgate.telemetry.text import one_line
from mcpgate.upstream.backchannel import LOG_LEVELS
from mcpgate.upstream.connection import MAX_URI, MODERN_VERSION, RpcError
from mcpgate.upstream.param_headers import Malformed, Path, difference, header_paths
from mcpgate.upstream.tasks import CAPABILITY, EXTENSION, has_extension, support_of
from mcpgate.upstream.untrusted import OURS
from mcpgate.upstream.upstream import Announcement

_SERVER_INFO = {"name": "mcpgate", "title": "mcpgate", "version": __version__}
_INSTRUCTIONS = (
    "Many MCP servers behind four tools. list_tools(query) finds tools with their call shapes; execute_code runs "
    "Python that calls them and shows only what it prints or returns. Do a whole task in one execution."
)
_CACHE_MS = 60_000
_UPDATED = "notifications/resources/updated"
_GOVERNED = (
    *("tools/call", "subscriptions/listen", "resources/read", "prompts/get", "completion/complete"),
    *("resources/subscribe", "resources/unsubscribe", "logging/setLevel"),
)
_ENVELOPE = frozenset((META + "protocolVersion", META + "clientInfo", META + "clientCapabilities", "progressToken"))
"""What of a request's `_meta` concerns only the client and the gateway."""
_MAX_SUBSCRIPTIONS_EACH = 1000
"""Resources that one session or subscription follows."""
_FREE_BURST, _FREE_PER_S = 64 * 1024 * 1024, 16 * 1024 * 1024
"""Bytes that answers to everything else may have, for each key."""
_MAX_LISTENERS_EACH = 256
"""Of `subscriptions/listen`, for each key."""
log = logging.getLogger("mcpgate.mcp")


class McpFace:
    """Answers requests. One for the whole gateway."""

    def __init__(self, gateway: Gateway, alone: bool = True) -> None:
        """`alone`: whether this process gets every request. A task lives in one process, so there are none where
        several share a port."""
        self.gateway, self._has_tasks = gateway, alone
        self._throttle = Throttle(_FREE_BURST, _FREE_PER_S)
        self._listeners = Allowance("subscriptions", _MAX_LISTENERS_EACH)
        self._tasks = Tasks(gateway.gate.current)
        self._parking = Parking(self._tasks, gateway.outliving)
        self._header_paths: WeakKeyDictionary[Tool, Mapping[Path, str]] = WeakKeyDictionary()

    def concerns(self, caller: Caller, announced: Announcement) -> bool:
        """Whether it is a list of the caller's that has changed: of tools, or of a server that the caller reaches
        directly, unless it was heard on another caller's own connection."""
        if announced.what == "tools":
            return True
        if announced.identity not in (None, caller.owner):
            return False
        return any(one.name == announced.server for one in self.gateway.views.direct_servers_of(caller))

    def header_fault(self, caller: Caller, params: Mapping[str, Any], headers: Mapping[str, str]) -> RpcFault | None:
        """How the headers of a tool call contradict the arguments that they should repeat."""
        name, arguments = params.get("name"), params.get("arguments")
        tool = self.gateway.views.surface(caller.bundle).direct.get(name) if isinstance(name, str) else None
        if tool is None:
            return None
        paths = self._header_paths.get(tool)
        if paths is None:
            try:
                paths = header_paths(tool.raw.get("inputSchema"))
            except Malformed:
                paths = {}
            self._header_paths[tool] = paths
        wrong = difference(paths, arguments if isinstance(arguments, dict) else {}, headers) if paths else ""
        return RpcFault(HEADER_MISMATCH, wrong) if wrong else None

    async def answer(self, request: RpcRequest) -> Message:
        """The answer to a request, as it goes over the wire. Never raises but for cancellation."""
        caller = request.context.caller
        counted = not caller.is_local and request.method not in _GOVERNED
        try:
            if counted:
                self._throttle.check(caller.account)
            result = await self._result(request)
        except RpcFault as fault:
            return fault.to_wire(request.id)
        except RpcError as error:
            return passed_on(error.rpc_code, error.message, error.rpc_data, request.modern).to_wire(request.id)
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
        self._throttle.count(caller.account, len(data))
        return Answer(answer, data)

    async def _result(self, request: RpcRequest) -> dict[str, Any]:
        context, resources, params = request.context, self.gateway.resources, request.params
        match request.method:
            case "initialize" if not request.modern:
                wanted = params.get("protocolVersion")
                version = wanted if wanted in HANDSHAKE_VERSIONS else HANDSHAKE_VERSIONS[-1]
                return {"protocolVersion": version, "serverInfo": _SERVER_INFO, **await self._introduction(request)}
            case "server/discover":
                facts = await self._introduction(request)
                return {"supportedVersions": [*MODERN_VERSIONS], **facts, "ttlMs": _CACHE_MS, "cacheScope": "private"}
            case "ping" if not request.modern:
                return {}
            case "tools/list":
                tools = self.gateway.tool_list(context.caller, request.modern)
                if self._has_tasks and not request.modern:
                    tools = self._with_task_support(context.caller, tools)
                asyncio.get_running_loop().call_soon(self.gateway.go)
                return _listed(request, "tools", tools)
            case "resources/list":
                return _listed(request, "resources", await resources.all(context, "resources"))
            case "resources/templates/list":
                return _listed(request, "resourceTemplates", await resources.all(context, "resourceTemplates"))
            case "prompts/list":
                return _listed(request, "prompts", await resources.all(context, "prompts"))
            case "tools/call":
                return await self._call(request)
            case "resources/read":
                return await self._read(request)
            case "prompts/get":
                _text(params, "name")
                return await self._named(request, resources.prompt)
            case "completion/complete":
                return await self._named(request, resources.complete)
            case "resources/subscribe" if request.session is not None:
                return await self._subscribe(request)
            case "resources/unsubscribe" if request.session is not None:
                if (remove := request.session.subscriptions.pop(_text(params, "uri"), None)) is not None:
                    remove()
                return {}
            case "logging/setLevel" if request.session is not None:
                level = params.get("level")
                if level not in LOG_LEVELS:
                    raise RpcFault(INVALID_PARAMS, f"level must be one of {', '.join(LOG_LEVELS)}")
                request.session.log_level = level
                await self.gateway.resources.want_logs(context, level)
                return {}
            case "subscriptions/listen" if request.modern:
                return await self._listen(request)
            case "tasks/get" if self._has_tasks:
                return self._tasks.get(request)
            case "tasks/cancel" if self._has_tasks:
                return self._tasks.cancel(request)
            case "tasks/update" if self._has_tasks and request.modern:
                return self._tasks.update(request)
            case "tasks/list" if self._has_tasks and not request.modern:
                return self._tasks.list(request)
            case "tasks/result" if self._has_tasks and not request.modern:
                return await self._tasks.result(request)
        raise RpcFault(METHOD_NOT_FOUND, f"Method not found: {request.method[:200]}")

    async def _introduction(self, request: RpcRequest) -> dict[str, Any]:
        """Capabilities and instructions: of the meta-tools, and of the servers that are exposed directly."""
        caller, views = request.context.caller, self.gateway.views
        if views.surface(caller.bundle).direct_servers:
            self.gateway.go()
            await views.acquaintance(caller)
        offered = self.gateway.resources.offered(request.context)
        capabilities: dict[str, Any] = {"tools": {"listChanged": True}}
        if "resources" in offered:
            subscribe = {"subscribe": True} if "resources.subscribe" in offered and self._can_announce(request) else {}
            capabilities["resources"] = {**subscribe, "listChanged": True}
        if "prompts" in offered:
            capabilities["prompts"] = {"listChanged": True}
        if "completions" in offered:
            capabilities["completions"] = {}
        if "logging" in offered:
            capabilities["logging"] = {}
        if CAPABILITY in offered and self._has_tasks:
            if request.modern or request.method == "server/discover":
                capabilities["extensions"] = {EXTENSION: {}}
            else:
                capabilities["tasks"] = {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}
        if views.surface(caller.bundle).meta_tools:
            return {"capabilities": capabilities, "instructions": _INSTRUCTIONS}
        theirs = [view.facts.instructions for view in views.direct_views_of(caller) if view.facts is not None]
        instructions = "\n\n".join(text for text in theirs if text)
        return {"capabilities": capabilities, **({"instructions": instructions} if instructions else {})}

    def _can_announce(self, request: RpcRequest) -> bool:
        return request.modern or request.session is not None

    async def _read(self, request: RpcRequest) -> dict[str, Any]:
        _text(request.params, "uri")
        try:
            result = await self._passed(request, self.gateway.resources.read)
        except NotFound as error:
            raise RpcFault(INVALID_PARAMS if request.modern else NO_RESOURCE, error.message, error.data) from error
        if not request.modern or result.get("resultType") == "input_required":
            return result
        return {"ttlMs": 0, "cacheScope": "private", **result}

    async def _named(
        self,
        request: RpcRequest,
        carry: Callable[[RequestContext, Mapping[str, Any]], Awaitable[dict[str, Any]]],
    ) -> dict[str, Any]:
        """The same for a request that names something, which may not exist."""
        try:
            return await self._passed(request, carry)
        except NotFound as error:
            raise RpcFault(INVALID_PARAMS, error.message, error.data) from error

    async def _passed(
        self,
        request: RpcRequest,
        carry: Callable[[RequestContext, Mapping[str, Any]], Awaitable[dict[str, Any]]],
        takes_tasks: bool = False,
    ) -> dict[str, Any]:
        """The result of a request that goes through as it is."""

        async def work(channel: BackChannel) -> dict[str, Any]:
            context = replace(request.context, client=channel)
            result = _with_warnings(await carry(context, _their_params(request)), context.trail)
            return result if request.modern else {key: result[key] for key in result if key != "resultType"}

        return await self._parking.carry(request, work, inner=False, takes_tasks=takes_tasks)

    async def _subscribe(self, request: RpcRequest) -> dict[str, Any]:
        session, uri = request.session, _text(request.params, "uri")
        assert session is not None
        if uri in session.subscriptions:
            return {}
        if len(session.subscriptions) >= _MAX_SUBSCRIPTIONS_EACH:
            limit = _MAX_SUBSCRIPTIONS_EACH
            raise RateLimited(f"at most {limit} resources of one session are subscribed to", limit=limit)

        def tell(changed: str) -> None:
            session.announce({"jsonrpc": "2.0", "method": _UPDATED, "params": {"uri": changed}})

        remove = await self._follow(request.context, uri, tell)
        if remove is None:
            raise RpcFault(NO_RESOURCE, f"Resource not found: {uri[:500]}", {"uri": uri})
        session.subscriptions[uri] = remove
        return {}

    async def _follow(
        self, context: RequestContext, uri: str, tell: Callable[[str], None]
    ) -> Callable[[], None] | None:
        """Follow changes of a resource. What ends that; None if no server has it. Raises UpstreamError, RpcError."""
        places = await self.gateway.resources.places_of(context, uri)
        if not places:
            return None
        own, server = places[0].own, places[0].server.name
        return await self.gateway.subscriptions.add(
            context.caller, server, own, lambda changed: tell(uri if changed == own else changed)
        )

    async def _call(self, request: RpcRequest) -> dict[str, Any]:
        name = request.params.get("name")
        arguments = request.params.get("arguments")
        if arguments is None:
            arguments = {}
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise RpcFault(INVALID_PARAMS, "tools/call needs name (a string) and arguments (an object)")
        caller, views = request.context.caller, self.gateway.views
        surface = views.surface(caller.bundle)
        if surface.meta_tools and name in META_TOOL_NAMES:
            if self._asks_for_task(request):
                raise _no_task(name)
            return await self._call_meta_tool(request, name, arguments)
        tool = surface.direct.get(name)
        if tool is None:
            meta_tools = META_TOOL_NAMES if surface.meta_tools else ()
            near = nearest(name, [*meta_tools, *views.direct_of(caller)])
            wanted = Request("tool", tool=one_line(name, 200))
            self.gateway.gate.refused(request.context, wanted, UnknownTool(f"Unknown tool: {name}", nearest=near))
            raise RpcFault(INVALID_PARAMS, f"Unknown tool: {name}", {"code": "unknown_tool", "nearest": near})
        return await self._call_direct(request, tool, arguments)

    async def _call_meta_tool(self, request: RpcRequest, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        trail = request.context.trail

        async def work(channel: BackChannel) -> dict[str, Any]:
            context = replace(request.context, client=channel)
            tools = self.gateway.metatools
            try:
                given = checked(name, arguments)
            except McpgateError as error:
                tools.refused(context, name, error)
                raise
            if name == "execute_code":
                answer = await tools.execute_code(context, **given)
            else:
                method: Callable[..., Awaitable[str]] = getattr(tools, name)
                answer = answers.Answer.of_text(await method(context, **given))
            content = list(answer.content)
            if answer.is_error and channel.logs:
                said = "\n".join(["Meanwhile, tools logged:", *channel.logs])
                content.append({"type": "text", "text": said})
            return {"content": content, "isError": answer.is_error}

        try:
            return _with_warnings(await self._parking.carry(request, work, inner=True), trail)
        except McpgateError as error:
            return refused_call(trail, error)

    async def _call_direct(self, request: RpcRequest, tool: Tool, arguments: dict[str, Any]) -> dict[str, Any]:
        """Pass a call through: the result is the upstream's own, unknown fields and content types included."""

        async def carry(context: RequestContext, params: Mapping[str, Any]) -> dict[str, Any]:
            more = {key: value for key, value in params.items() if key not in ("name", "arguments", "task")}
            result = await self.gateway.calls.carry(context, tool, arguments, more)
            return result if result.get("resultType") == "input_required" else {"content": [], **result}

        takes_tasks = self._takes_tasks(request, tool)
        try:
            return await self._passed(request, carry, takes_tasks)
        except RpcError:
            raise
        except McpgateError as error:
            if takes_tasks and not request.modern:
                raise refusal(error) from error  # such a client takes a task or an error, but no result
            return refused_call(request.context.trail, error)

    def _asks_for_task(self, request: RpcRequest) -> bool:
        """Whether a client of the handshake era wants its call to become a task; later, servers decide that."""
        return self._has_tasks and not request.modern and isinstance(request.params.get("task"), dict)

    def _takes_tasks(self, request: RpcRequest, tool: Tool) -> bool:
        """Whether a call may become a task. Raises RpcFault for one that should and cannot."""
        if request.modern:
            return self._has_tasks and has_extension(request.capabilities)
        if not self._asks_for_task(request):
            return False
        if support_of(tool.raw) == "forbidden" and not self._decides_on_tasks(tool.server):
            raise _no_task(tool.name)
        return True

    def _decides_on_tasks(self, server: str) -> bool:
        """Whether a server is of a revision in which it may make a task of any call."""
        facts = self.gateway.pool.get(server).view.facts
        return facts is not None and facts.protocol == MODERN_VERSION and CAPABILITY in facts.capabilities

    def _with_task_support(self, caller: Caller, listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Tools as clients of the handshake era can call them: as tasks too where the server may make one of them."""
        direct = self.gateway.views.surface(caller.bundle).direct
        deciding = {server for server in {tool.server for tool in direct.values()} if self._decides_on_tasks(server)}
        if not deciding:
            return listed
        optional = {"execution": {"taskSupport": "optional"}}
        return [
            {**wire, **optional}
            if (tool := direct.get(wire["name"])) is not None and tool.server in deciding and "execution" not in wire
            else wire
            for wire in listed
        ]

    async def _listen(self, request: RpcRequest) -> dict[str, Any]:
        """`subscriptions/listen`: acknowledge, then tell of changes until the request is cancelled."""
        wanted = request.params.get("notifications")
        wanted = wanted if isinstance(wanted, dict) else {}
        meta = {META + "subscriptionId": request.id}
        context = request.context
        offered = self.gateway.resources.offered(context)
        agreed = {
            f"{what}ListChanged": True
            for what in ("tools", "resources", "prompts")
            if wanted.get(f"{what}ListChanged") is True and (what == "tools" or what in offered)
        }

        def changed(announced: Announcement) -> None:
            if f"{announced.what}ListChanged" in agreed and self.concerns(context.caller, announced):
                request.notify(f"notifications/{announced.what}/list_changed", {"_meta": meta})

        def updated(uri: str) -> None:
            request.notify(_UPDATED, {"uri": uri, "_meta": meta})

        with self._listeners.one(context.caller.account), ExitStack() as ends:
            ends.callback(self.gateway.on_list_changed(changed))
            followed = []
            uris = wanted.get("resourceSubscriptions")
            for uri in uris[:_MAX_SUBSCRIPTIONS_EACH] if isinstance(uris, list) else ():
                if isinstance(uri, str) and len(uri) <= MAX_URI:
                    with suppress(McpgateError):  # what cannot be followed is not in the acknowledgement
                        if (end := await self._follow(context, uri, updated)) is not None:
                            ends.callback(end)
                            followed.append(uri)
            tasks = self._follow_tasks(request, wanted.get("taskIds"), meta, ends)
            acknowledged = {
                **agreed,
                **({"resourceSubscriptions": followed} if followed else {}),
                **({"taskIds": tasks} if tasks else {}),
            }
            request.notify("notifications/subscriptions/acknowledged", {"notifications": acknowledged, "_meta": meta})
            await asyncio.get_running_loop().create_future()
            raise AssertionError("a subscription only ends by being cancelled")

    def _follow_tasks(self, request: RpcRequest, ids: Any, meta: dict[str, Any], ends: ExitStack) -> list[str]:
        """Tell of changes of tasks until the stack ends. Which of them there are. Raises RpcFault."""
        if not isinstance(ids, list) or not ids or not self._has_tasks:
            return []
        if not has_extension(request.capabilities):
            raise missing_extension()

        def changed(state: dict[str, Any]) -> None:
            request.notify("notifications/tasks", {**state, "_meta": meta})

        followed = []
        for id in ids[:_MAX_SUBSCRIPTIONS_EACH]:
            end = self._tasks.follow(id, request.context.caller, changed) if isinstance(id, str) else None
            if end is not None:
                ends.callback(end)
                followed.append(id)
        return followed


def _no_task(name: str) -> RpcFault:
    return RpcFault(METHOD_NOT_FOUND, f"{name} cannot be called as a task; call it without `task`")


def _text(params: Mapping[str, Any], key: str) -> str:
    value = params.get(key)
    if not isinstance(value, str) or len(value) > MAX_URI:
        raise RpcFault(INVALID_PARAMS, f"{key} must be a string of at most {MAX_URI} characters")
    return value


def _listed(request: RpcRequest, what: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    page = page_of(what, items, request.params.get("cursor"))
    return {**page, "ttlMs": 0, "cacheScope": "private"} if request.modern else page


def _their_params(request: RpcRequest) -> dict[str, Any]:
    """The parameters of a request as the upstream gets them."""
    params = dict(request.params)
    meta = params.pop("_meta", None)
    kept = {key: value for key, value in meta.items() if key not in _ENVELOPE} if isinstance(meta, dict) else {}
    if request.session is not None and request.log_level is not None:
        kept[META + "logLevel"] = request.log_level
    return {**params, "_meta": kept} if kept else params


def _with_warnings(result: dict[str, Any], trail: Trail) -> dict[str, Any]:
    if not (warnings := trail.warnings):
        return result
    meta = result.get("_meta")
    return {**result, "_meta": {**(meta if isinstance(meta, dict) else {}), OURS + "warnings": warnings}}
