"""One tool call from inside the sandbox: find the tool among those that the caller may call, bind and check the
arguments, have the gate admit it, call the upstream, make the result a value. Everything that can go wrong comes out
as ToolFailed, in words for the model."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from mcpgate import jsontext
from mcpgate.catalog.arguments import ArgumentFault, bind, check
from mcpgate.catalog.catalog import Catalog
from mcpgate.catalog.learned import Memory
from mcpgate.catalog.stubs import call_shape
from mcpgate.catalog.tools import Tool
from mcpgate.codemode.handles import HandleStore, Kept
from mcpgate.codemode.values import error_of, value_of
from mcpgate.errors import McpgateError, NotAllowed, UpstreamError
from mcpgate.governance.callers import Caller
from mcpgate.governance.gate import Gate
from mcpgate.governance.records import Request, Usage
from mcpgate.governance.store import Content
from mcpgate.upstream.connection import OnProgress, RpcError
from mcpgate.upstream.pool import UpstreamPool
from mcpgate_sandbox.engine import Handle
from mcpgate_sandbox.errors import ToolFailed

log = logging.getLogger("mcpgate.bridge")


class Bridge:
    """Carries calls from code to upstreams."""

    def __init__(
        self,
        pool: UpstreamPool,
        catalog: Callable[[Caller], Catalog],
        memory: Memory,
        handles: HandleStore,
        gate: Gate,
    ) -> None:
        """`catalog`: what a caller may call."""
        self._pool, self._catalog, self._memory, self._handles = pool, catalog, memory, handles
        self._gate = gate

    async def call_tool(
        self,
        caller: Caller,
        server: str,
        tool_name: str,
        positional: list[Any],
        named: dict[str, Any],
        on_progress: OnProgress | None = None,
        execution_id: str | None = None,
    ) -> Any:
        """The tool's value. Raises ToolFailed."""
        tool = self._find(caller, server, tool_name)
        try:
            arguments = bind(tool, [self._loaded(caller, v) for v in positional], self._loaded(caller, named))
            check(tool, arguments)
        except ArgumentFault as fault:
            shape = call_shape(tool, self._memory.observed(tool))
            raise ToolFailed(f"{fault}\n  {shape}", server=server, tool=tool.ident, kind="arguments") from None
        request = Request("tool", server=tool.server, tool=tool.name, estimate=Usage(calls=1), parent_id=execution_id)
        try:
            result = await self.carry(caller, request, arguments, on_progress)
        except RpcError as error:
            raise ToolFailed(error.message, server=server, tool=tool.ident, data=error.rpc_data) from None
        except McpgateError as error:
            data = None if isinstance(error, UpstreamError) else {"code": error.code, **error.data}
            raise ToolFailed(error.message, server=server, tool=tool.ident, data=data) from None
        if result.get("isError") is True:
            message, data = error_of(result)
            raise ToolFailed(message, server=server, tool=tool.ident, data=data)
        value = value_of(tool, result, lambda *part: handle_of(self._handles.keep_data(caller.owner, *part)))
        self._memory.learn(tool, value)
        return value

    async def carry(
        self,
        caller: Caller,
        request: Request,
        arguments: dict[str, Any],
        on_progress: OnProgress | None = None,
        meta: Any = None,
    ) -> dict[str, Any]:
        """Make an allowed call: admit it, call the upstream, settle. Its result as the server sent it. Raises what
        the gate refuses, UpstreamError, RpcError."""
        upstream = self._pool.get(request.server or "")
        async with self._gate.admit(caller, request) as admission:
            # A call that is sent is spent, whatever comes of it; one that finds nobody to send it to is not.
            on_sent = partial(admission.spent, request.estimate)
            try:
                result = await upstream.call(
                    request.tool or "", arguments, on_progress=on_progress, meta=meta, on_sent=on_sent
                )
            except RpcError:
                admission.outcome = "tool_error"
                raise
            if result.get("isError") is True:
                admission.outcome = "tool_error"
            if self._gate.config.log_content:
                admission.content = Content(*(jsontext.dumps(part).decode() for part in (arguments, result)))
            if admission.warnings:
                meta = result.get("_meta")
                kept = meta if isinstance(meta, dict) else {}
                result = {**result, "_meta": {**kept, "mcpgate/warnings": list(admission.warnings)}}
            return result

    def tool_names(self, caller: Caller, server: str) -> dict[str, str]:
        """Accepted spelling → identifier, of a server's tools. Raises ToolFailed when it is not connected."""
        found = self._catalog(caller).find_server(server)
        if found is None:
            raise ToolFailed(f"there is no server {server!r}")
        if found.trouble and not found.tools:
            raise ToolFailed(f"server {server!r} cannot be used: {found.trouble}", server=server)
        return {spelling: tool.ident for spelling, tool in found.accepted.items()}

    def _find(self, caller: Caller, server: str, tool_name: str) -> Tool:
        catalog = self._catalog(caller)
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
            raise ToolFailed(f"there is no tool {server}.{tool_name}{trouble}{hint}", server=server, tool=tool_name)
        return tool

    def _loaded(self, caller: Caller, value: Any) -> Any:
        """Handles in arguments, replaced by what they stand for."""
        if isinstance(value, Handle):
            kept = self._get(caller, value.id)
            return kept.value if kept.data is None else kept.data
        if isinstance(value, dict):
            return {k: self._loaded(caller, v) for k, v in value.items()}
        if isinstance(value, list):
            return [self._loaded(caller, v) for v in value]
        return value

    def host_call(self, caller: Caller, name: str, arguments: list[Any]) -> Any:
        """What the guest's helpers ask for: `@tools`, `@load`, `@bytes`. Called from the guest's thread."""
        argument = arguments[0] if arguments and isinstance(arguments[0], str) else ""
        if name == "@tools":
            return self.tool_names(caller, argument)
        kept = self._get(caller, argument)
        if name == "@load":
            return handle_of(kept) if kept.data is not None else kept.value
        if name == "@bytes" and kept.data is not None:
            return kept.data
        raise ToolFailed(f"{argument} holds no bytes; load({argument!r}) gives its value")

    def _get(self, caller: Caller, id: str) -> Kept:
        try:
            return self._handles.get(caller.owner, id)
        except McpgateError as error:
            raise ToolFailed(error.message) from None


def handle_of(kept: Kept) -> Handle:
    return Handle(kept.id, kept.kind, kept.mime_type, kept.size, kept.uri)
