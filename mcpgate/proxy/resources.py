"""Reads upstreams' resources and prompts on behalf of a caller: granted and admitted like calls."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from mcpgate.errors import NotAllowed
from mcpgate.governance.context import RequestContext
from mcpgate.governance.gate import Gate
from mcpgate.governance.records import Request, Usage
from mcpgate.upstream.pool import UpstreamPool

_ONE_CALL = Usage(calls=1)


class Resources:
    """Reads resources and prompts. One for the whole gateway."""

    def __init__(self, pool: UpstreamPool, gate: Gate) -> None:
        self._pool, self._gate = pool, gate

    async def request(
        self, context: RequestContext, server: str, ident: str, method: str, params: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The result of `resources/read` or `prompts/get` as the server sent it. `ident`: the server's name in Python.
        Counted and priced as a call of a tool with the method's name. Raises NotAllowed, the gate's refusals,
        UpstreamError."""
        if context.parent is not None:
            context.caller = await self._gate.current(context.caller)
        if not context.caller.grants.allow_whole_server(server, ident):
            raise NotAllowed(f"resources and prompts of {ident} need a grant of all its tools", key=context.caller.id)
        upstream = self._pool.get(server)
        parent_id = None if context.parent is None else context.parent.request.id
        request = Request("resource", server=server, tool=method, estimate=_ONE_CALL, parent_id=parent_id)
        async with self._gate.admit(context, request) as admission:
            return await upstream.limited_request(
                method,
                dict(params),
                on_sent=partial(admission.spent, _ONE_CALL),
                on_progress=context.client.progress,
            )
