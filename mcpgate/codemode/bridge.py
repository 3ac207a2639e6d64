"""One tool call from inside the sandbox: find the tool among those that the caller may call, bind and check the
arguments, make the call (proxy/calls.py), turn the result into a value. Every error is raised as ToolFailed, worded for
the model."""

from functools import partial
from typing import Any

from mcpgate.catalog.arguments import ArgumentFault, bind, check
from mcpgate.catalog.catalog import Server
from mcpgate.catalog.learned import Memory
from mcpgate.catalog.stubs import call_shape, stub
from mcpgate.catalog.tools import Tool
from mcpgate.codemode import client_calls
from mcpgate.codemode.attachments import NAMES as ATTACHMENTS
from mcpgate.codemode.attachments import Attachments
from mcpgate.codemode.handles import HandleStore, Kept
from mcpgate.codemode.values import KeepData, error_of, value_of
from mcpgate.errors import InvalidRequest, McpgateError, NotAllowed, UnknownTool, UpstreamError
from mcpgate.governance.callers import Caller
from mcpgate.governance.context import RequestContext
from mcpgate.proxy.calls import Calls
from mcpgate.proxy.views import Views
from mcpgate.upstream.connection import RpcError
from mcpgate.upstream.untrusted import their_data
from mcpgate_sandbox.engine import Handle
from mcpgate_sandbox.errors import ToolFailed

_MAX_HELP = 40
"""Tools of a server that help() shows."""


class Bridge:
    """Carries calls from code to upstreams."""

    def __init__(
        self, views: Views, calls: Calls, attachments: Attachments, learned: Memory, handles: HandleStore
    ) -> None:
        self._views, self._calls, self._attachments = views, calls, attachments
        self._learned, self._handles = learned, handles

    async def call_tool(
        self, context: RequestContext, server: str, tool_name: str, positional: list[Any], named: dict[str, Any]
    ) -> Any:
        """The tool's value. Raises ToolFailed."""
        if server == client_calls.SERVER:
            return await self._call_client(context, tool_name, positional, named)
        caller = context.caller
        whole = self._views.catalog_of(caller).find_server(server) if tool_name in ATTACHMENTS else None
        if whole is not None and tool_name in self._attachments.names_of(caller, whole):
            return await self._call_attachment(context, whole, tool_name, positional, named)
        tool = self._find(caller, server, tool_name)
        try:
            arguments = bind(tool, [self._loaded(caller, v) for v in positional], self._loaded(caller, named))
            check(tool, arguments)
        except ArgumentFault as fault:
            raise ToolFailed(
                f"{fault}\n  {self.shape(caller, tool)}", server=server, tool=tool.ident, kind="arguments"
            ) from None
        try:
            result = await self._calls.carry(context, tool, arguments)
        except RpcError as error:
            raise ToolFailed(error.message, server=server, tool=tool.ident, data=error.rpc_data) from None
        except McpgateError as error:
            silent = isinstance(error, UpstreamError) and not error.data
            data = None if silent else {"code": error.code, **error.data}
            raise ToolFailed(error.message, server=server, tool=tool.ident, data=data) from None
        if result.get("isError") is True:
            message, data = error_of(result)
            raise ToolFailed(message, server=server, tool=tool.ident, data=their_data(data))
        value = value_of(tool, result, self._keep(caller))
        self._learned.learn(tool, value, caller.account)
        return value

    async def _call_attachment(
        self, context: RequestContext, server: Server, name: str, positional: list[Any], named: dict[str, Any]
    ) -> Any:
        try:
            return await self._attachments.call(
                context, server, name, positional, dict(named), self._keep(context.caller)
            )
        except RpcError as error:
            raise ToolFailed(error.message, server=server.ident, tool=name, data=error.rpc_data) from None
        except McpgateError as error:
            data = {"code": error.code, **error.data}
            raise ToolFailed(error.message, server=server.ident, tool=name, data=data) from None

    async def _call_client(self, context: RequestContext, name: str, given: list[Any], named: dict[str, Any]) -> Any:
        try:
            return await client_calls.call(context.client, name, given, named)
        except InvalidRequest as error:
            raise ToolFailed(error.message, server="", tool=name, kind="arguments") from None
        except RpcError as error:
            raise ToolFailed(error.message, server="", tool=name, data=error.rpc_data) from None
        except McpgateError as error:
            raise ToolFailed(error.message, server="", tool=name, data={"code": error.code, **error.data}) from None

    def _keep(self, caller: Caller) -> KeepData:
        """Stores images and blobs for a caller."""
        keep = partial(self._handles.keep_data, caller.owner, account=caller.account)
        return lambda *part: handle_of(keep(*part))

    def shape(self, caller: Caller, tool: Tool) -> str:
        """How a tool is called and what it returns, as far as the caller may see."""
        return call_shape(tool, self._learned.observed(tool, caller.account))

    def tool_names(self, caller: Caller, server: str) -> dict[str, str]:
        """Accepted spelling → identifier, for a server's tools. Raises ToolFailed if it is not connected."""
        found = self._views.catalog_of(caller).find_server(server)
        if found is None:
            raise ToolFailed(f"there is no server {server!r}")
        if found.trouble and not found.tools:
            raise ToolFailed(f"server {server!r} is unavailable: {found.trouble}", server=server)
        attachments = {name: name for name in self._attachments.names_of(caller, found)}
        return {**attachments, **{spelling: tool.ident for spelling, tool in found.accepted.items()}}

    def _find(self, caller: Caller, server: str, tool_name: str) -> Tool:
        catalog = self._views.catalog_of(caller)
        found = catalog.find_server(server)
        tool = found.accepted.get(tool_name) if found else None
        if found is None or tool is None:
            name = f"{server}.{tool_name}"
            if catalog.withholds(name):
                data = {"code": NotAllowed.code}
                raise ToolFailed(f"{name} is not granted to this key", server=server, tool=tool_name, data=data)
            near = catalog.nearest_tools(name)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            trouble = f" ({found.trouble})" if found and found.trouble else ""
            raise ToolFailed(
                f"there is no tool {name}{trouble}{hint}",
                server=server,
                tool=tool_name,
                data={"code": UnknownTool.code, "nearest": near},
            )
        return tool

    def _loaded(self, caller: Caller, value: Any) -> Any:
        """The arguments with handles replaced by their values."""
        if isinstance(value, Handle):
            kept = self._get(caller, value.id)
            return kept.value if kept.data is None else kept.data
        if isinstance(value, dict):
            return {k: self._loaded(caller, v) for k, v in value.items()}
        if isinstance(value, list):
            return [self._loaded(caller, v) for v in value]
        return value

    def host_call(self, caller: Caller, name: str, arguments: list[Any]) -> Any:
        """What the guest's helpers ask for: `@tools`, `@help`, `@load`, `@bytes`. Called from the guest's thread."""
        argument = arguments[0] if arguments and isinstance(arguments[0], str) else ""
        if name == "@tools":
            return self.tool_names(caller, argument)
        if name == "@help":
            return self._help(caller, argument)
        kept = self._get(caller, argument)
        if name == "@load":
            return handle_of(kept) if kept.data is not None else kept.value
        if name == "@bytes" and kept.data is not None:
            return kept.data
        raise ToolFailed(f"{argument} has no bytes; load({argument!r}) returns its value")

    def _help(self, caller: Caller, name: str) -> str:
        """The stub of a tool; of a server, how each of its tools is called."""
        if name.startswith(f"{client_calls.SERVER}."):
            return client_calls.SHAPES.get(name.partition(".")[2], "")
        catalog = self._views.catalog_of(caller)
        if (server := catalog.find_server(name)) is not None:
            shapes = [self.shape(caller, tool) for tool in server.tools[:_MAX_HELP]]
            more = len(server.tools) - len(shapes)
            return "\n".join([server.about or server.name, *shapes, *([f"… {more} more"] if more else [])])
        try:
            tool = catalog.get_tool(name)
        except McpgateError as error:
            raise ToolFailed(error.message) from None
        return stub(tool, self._learned.observed(tool, caller.account))

    def _get(self, caller: Caller, id: str) -> Kept:
        try:
            return self._handles.get(caller.owner, id, caller.account)
        except McpgateError as error:
            raise ToolFailed(error.message) from None


def handle_of(kept: Kept) -> Handle:
    return Handle(kept.id, kept.kind, kept.mime_type, kept.size, kept.uri)
