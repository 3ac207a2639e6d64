"""Calls that a person has to allow: asks the one in front of the client before the call is made."""

import fnmatch
from collections.abc import Mapping
from typing import Any

from mcpgate import jsontext
from mcpgate.catalog.tools import Tool
from mcpgate.config.upstreams import UpstreamConfig
from mcpgate.errors import NotAllowed, NotSupported
from mcpgate.governance.context import RequestContext
from mcpgate.telemetry.text import one_line

_SHOWN = 1000
"""Characters of the arguments that the person sees."""
_ANSWER = {
    "type": "object",
    "properties": {"allow": {"type": "boolean", "title": "Allow this call", "default": True}},
}


def needs_approval(config: UpstreamConfig, tool: Tool) -> bool:
    """Whether the configuration wants a person to allow calls of a tool."""
    if any(fnmatch.fnmatchcase(tool.name, glob) for glob in config.approve):
        return True
    annotations = tool.raw.get("annotations")
    hints = annotations if isinstance(annotations, dict) else {}
    # What says neither is destructive by the protocol's defaults.
    return config.approve_destructive and not hints.get("readOnlyHint") and hints.get("destructiveHint", True) is True


async def ask_for_approval(context: RequestContext, tool: Tool, arguments: Mapping[str, Any]) -> None:
    """Returns if the person allows the call. Raises NotAllowed if they do not, or cannot be asked; McpgateError."""
    given = one_line(jsontext.dumps(arguments).decode("utf-8", "replace"), _SHOWN)
    message = f"Allow the call {tool.qualified}({given})?"
    where = {"key": context.caller.id, "server": tool.server, "tool": tool.name}
    try:
        answer = await context.client.ask("elicitation/create", {"message": message, "requestedSchema": _ANSWER})
    except NotSupported as error:
        reason = f"{tool.qualified} needs a person's approval, and {error.message}"
        raise NotAllowed(reason, **where) from error
    content = answer.get("content")
    allowed = content.get("allow", True) if isinstance(content, dict) else True
    if answer.get("action") != "accept" or allowed is not True:
        raise NotAllowed(f"nobody approved the call of {tool.qualified}", **where)
