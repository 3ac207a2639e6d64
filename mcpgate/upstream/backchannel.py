"""What a server asks of whoever made a request (elicitation, sampling, roots), and whether that client can answer.
connection.py decides which request a question belongs to."""

import asyncio
from collections.abc import Mapping
from typing import Any

from mcpgate.client import Client

ASKABLE = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}
"""What a server may ask, and the client capability that it takes."""
LOG_LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
CAPABILITIES: Mapping[str, Any] = {
    "elicitation": {"form": {}, "url": {}},
    "sampling": {"context": {}, "tools": {}},
    "roots": {"listChanged": True},
}
"""What the gateway offers to servers of the handshake era. Their sessions begin before any client is known; a client
that lacks a capability is an error when the server asks."""


def lacking(capabilities: Mapping[str, Any], method: str, params: Mapping[str, Any]) -> str:
    """Which capability a client lacks for a request, such as `elicitation.url`; empty if it lacks none."""
    name = ASKABLE.get(method)
    if name is None:
        return method
    offered = capabilities.get(name)
    if not isinstance(offered, Mapping):
        return name
    if name == "elicitation":
        mode = "url" if params.get("mode") == "url" else "form"
        # An empty object means forms: URLs came later.
        return "" if mode in offered or (mode == "form" and "url" not in offered) else f"elicitation.{mode}"
    if name == "sampling" and params.get("tools") and "tools" not in offered:
        return "sampling.tools"
    return ""


async def ask_all(client: Client, requests: Mapping[str, Any]) -> dict[str, Any]:
    """The client's answers to the `inputRequests` of a result that needs input, by their names. Raises
    NotSupported, McpgateError."""

    async def ask(request: Any) -> dict[str, Any]:
        asked = request if isinstance(request, Mapping) else {}
        params = asked.get("params")
        return await client.ask(str(asked.get("method")), params if isinstance(params, Mapping) else {})

    tasks = {name: asyncio.ensure_future(ask(request)) for name, request in requests.items()}
    try:
        return {name: await task for name, task in tasks.items()}
    finally:
        for task in tasks.values():
            task.cancel()
