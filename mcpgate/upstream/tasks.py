"""What tasks look like on the wire, in both eras: part of the 2025-11-25 revision, an extension of later ones
(https://github.com/modelcontextprotocol/ext-tasks). Pure. See proxy/tasks.py and api/mcp/tasks.py."""

from collections.abc import Mapping
from typing import Any

from mcpgate.client import TaskState
from mcpgate.errors import UpstreamError
from mcpgate.upstream.untrusted import one_line

EXTENSION = "io.modelcontextprotocol/tasks"
RELATED = "io.modelcontextprotocol/related-task"
"""In `_meta` of the handshake era: which task a message belongs to."""
CAPABILITY = "tasks.call"
"""In ServerFacts.capabilities: the server can make a task of a tool call."""
OPEN, FINAL = frozenset(("working", "input_required")), frozenset(("completed", "failed", "cancelled"))
_LONGEST_ID = 1000
_POLL_S, _SHORTEST_POLL_S, _LONGEST_POLL_S = 1.0, 0.05, 30.0


def has_extension(capabilities: Any) -> bool:
    """Whether a client or a server of a modern revision declares the extension."""
    extensions = capabilities.get("extensions") if isinstance(capabilities, Mapping) else None
    return isinstance(extensions, Mapping) and EXTENSION in extensions


def with_extension(capabilities: Mapping[str, Any]) -> dict[str, Any]:
    """A client's capabilities, the extension among them."""
    extensions = capabilities.get("extensions")
    return {**capabilities, "extensions": {**(extensions if isinstance(extensions, Mapping) else {}), EXTENSION: {}}}


def makes_tasks_of_calls(capabilities: Any) -> bool:
    """Whether a server of either era says that it can make a task of a tool call."""
    found = capabilities
    for key in ("tasks", "requests", "tools"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return has_extension(capabilities) or (isinstance(found, Mapping) and isinstance(found.get("call"), Mapping))


def support_of(tool: Mapping[str, Any]) -> str:
    """What a tool of the handshake era says: `forbidden`, `optional` or `required`."""
    execution = tool.get("execution")
    support = execution.get("taskSupport") if isinstance(execution, Mapping) else None
    return support if support in ("optional", "required") else "forbidden"


def state_of(task: Mapping[str, Any]) -> TaskState:
    """How a task stands, from a server's own words. Raises UpstreamError if they make no sense."""
    id, status = task.get("taskId"), task.get("status")
    if not isinstance(id, str) or not 0 < len(id) <= _LONGEST_ID:
        raise UpstreamError("the server made a task of the call, but gave it no usable id")
    if status not in OPEN and status not in FINAL:
        raise UpstreamError(f"the server gave its task an unknown status: {one_line(status, 50)!r}")
    poll_ms = task.get("pollIntervalMs", task.get("pollInterval"))
    usable = isinstance(poll_ms, (int, float)) and not isinstance(poll_ms, bool) and poll_ms > 0
    poll_s = max(min(poll_ms, _LONGEST_POLL_S * 1000) / 1000, _SHORTEST_POLL_S) if usable else _POLL_S
    return TaskState(id, status, one_line(task.get("statusMessage")), poll_s)
