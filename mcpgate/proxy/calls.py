"""One tool call, whether from running code, a direct tool or an agent: check, admit, call, settle. It does not know
what a result looks like in Python: see codemode/bridge.py."""

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from mcpgate import jsontext
from mcpgate.catalog.tools import Tool
from mcpgate.errors import NotAllowed
from mcpgate.governance.context import RequestContext
from mcpgate.governance.gate import Gate
from mcpgate.governance.records import Request, Usage
from mcpgate.governance.store import Content
from mcpgate.proxy.views import may_call
from mcpgate.upstream.connection import RpcError
from mcpgate.upstream.pool import UpstreamPool

_ONE_CALL = Usage(calls=1)


class Calls:
    """Makes tool calls. One for the whole gateway."""

    def __init__(self, pool: UpstreamPool, gate: Gate) -> None:
        self._pool, self._gate = pool, gate

    async def carry(
        self, context: RequestContext, tool: Tool, arguments: Mapping[str, Any], meta: Any = None
    ) -> dict[str, Any]:
        """The result as the server sent it; budget warnings are in the admission. Raises NotAllowed, the gate's
        refusals, UpstreamError, RpcError."""
        parent = context.parent
        if parent is not None:
            # Code may run for minutes after its key was revoked or its grants changed.
            context.caller = await self._gate.current(context.caller)
        if not may_call(context.caller, tool):
            raise NotAllowed(f"{tool.qualified} is not granted to this key", key=context.caller.id)
        upstream = self._pool.get(tool.server)
        parent_id = None if parent is None else parent.request.id
        request = Request("tool", server=tool.server, tool=tool.name, estimate=_ONE_CALL, parent_id=parent_id)
        async with self._gate.admit(context, request) as admission:
            # A call that was sent is spent, whatever its outcome; one that could not be sent is not.
            on_sent = partial(admission.spent, _ONE_CALL)
            began = time.monotonic()
            try:
                result = await upstream.call(
                    tool.name, arguments, on_progress=context.client.progress, meta=meta, on_sent=on_sent
                )
            except RpcError:
                admission.outcome = "tool_error"
                raise
            finally:
                admission.timings["upstream"] = (time.monotonic() - began) * 1000
            if result.get("isError") is True:
                admission.outcome = "tool_error"
            if self._gate.config.log_content:
                admission.content = Content(*(jsontext.dumps(part).decode() for part in (arguments, result)))
            return result
