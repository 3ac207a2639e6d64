"""What comes back while a request is under way: progress and log messages, and what a server asks of whoever made the
request (elicitation, sampling, roots). connection.py decides which request a message belongs to."""

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

ASKABLE = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}
"""What a server may ask, and the client capability that it takes."""
CAPABILITIES: Mapping[str, Any] = {
    "elicitation": {"form": {}, "url": {}},
    "sampling": {"context": {}, "tools": {}},
    "roots": {},
}
"""What the gateway offers to servers of the handshake era. Their sessions begin before any client is known; a client
that lacks a capability is an error when the server asks."""


class Client(Protocol):
    """Whoever made a request."""

    @property
    def capabilities(self) -> Mapping[str, Any]:
        """What it can be asked: MCP's `ClientCapabilities`."""
        ...

    @property
    def origin(self) -> object:
        """Equal for all requests of one client, and only for those."""
        ...

    @property
    def is_live(self) -> bool:
        """Whether it is asked in the middle of its request, as in the handshake era."""
        ...

    def progress(self, params: Mapping[str, Any]) -> None:
        """Hear progress: the parameters of `notifications/progress`, with any token."""
        ...

    def log(self, params: Mapping[str, Any]) -> None:
        """Hear a log message: the parameters of `notifications/message`."""
        ...

    async def ask(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Have it answer one of ASKABLE; may take as long as a person does. Raises NotSupported, McpgateError."""
        ...


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
