"""One tool call, whether from running code, a direct tool or an agent. It does not know what a result looks like in
Python: see codemode/bridge.py."""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mcpgate.catalog.tools import Tool
from mcpgate.client import Client
from mcpgate.errors import McpgateError, NotAllowed
from mcpgate.governance.callers import Caller
from mcpgate.governance.context import RequestContext
from mcpgate.governance.gate import Gate
from mcpgate.proxy.approvals import ask_for_approval, needs_approval
from mcpgate.proxy.carrier import Carrier, request_for
from mcpgate.proxy.views import may_call
from mcpgate.upstream.connection import HANDSHAKE_VERSION
from mcpgate.upstream.pool import UpstreamPool
from mcpgate.upstream.tasks import CAPABILITY, support_of
from mcpgate.upstream.upstream import UpstreamView

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Calls:
    """Makes tool calls. One for the whole gateway."""

    def __init__(self, pool: UpstreamPool, carrier: Carrier, gate: Gate) -> None:
        self._pool, self._carrier, self._gate = pool, carrier, gate

    async def carry(
        self, context: RequestContext, tool: Tool, arguments: Mapping[str, Any], more: Mapping[str, Any] = _NOTHING
    ) -> dict[str, Any]:
        """The result as the server sent it; budget warnings are in the admission. `more`: further parameters, such as
        `_meta`. Raises NotAllowed, the gate's refusals, UpstreamError, RpcError."""
        if context.parent is not None:
            # Code may run for minutes after its key was revoked or its grants changed.
            context.caller = await self._gate.current(context.caller)

        def check(caller: Caller) -> None:
            if not may_call(caller, tool):
                raise NotAllowed(
                    f"{tool.qualified} is not granted to this key", key=caller.id, server=tool.server, tool=tool.name
                )

        upstream = self._pool.get(tool.server)
        config = upstream.config
        if config.approve or config.approve_destructive:
            try:
                check(context.caller)
                if needs_approval(config, tool):
                    await ask_for_approval(context, tool, arguments)
            except McpgateError as error:
                self._gate.refused(context, request_for(context, "tool", tool.server, tool.name), error)
                raise
        params = {**more, "name": tool.name, "arguments": arguments}
        if _as_task(upstream.view, tool, context.client):
            params["task"] = {"ttl": round(config.total_timeout_s * 1000)}
        cached = self._carrier.cached
        question = cached.of_tool(context, upstream, tool, params)
        try:
            return await self._carrier.carry(
                context, "tool", tool.server, tool.name, "tools/call", params, check, question
            )
        finally:
            if cached.writes(upstream, tool):
                await asyncio.shield(cached.changed(tool.server))


def _as_task(view: UpstreamView, tool: Tool, client: Client) -> bool:
    """Whether the gateway asks for a task, as in the handshake era; later, servers decide that."""
    facts = view.facts
    if facts is None or facts.protocol != HANDSHAKE_VERSION or CAPABILITY not in facts.capabilities:
        return False
    support = support_of(tool.raw)
    return support == "required" or (support == "optional" and client.takes_tasks)
