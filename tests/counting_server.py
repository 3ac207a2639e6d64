"""A real MCP server over stdio whose answers tell how often it was asked: `counting_server.py LOG`. It appends a line to
the file for each call, so that several processes of it count together."""

import sys
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.types import ReadResourceResult, ToolAnnotations

log = Path(sys.argv[1])


class Counting(MCPServer):
    """Says of its resources how long they may be kept, and for whom: `note://SCOPE/TTL_MS`."""

    async def _handle_read_resource(self, *given: Any) -> ReadResourceResult:
        result = await super()._handle_read_resource(*given)
        assert isinstance(result, ReadResourceResult)
        scope, _, ttl_ms = str(result.contents[0].uri).removeprefix("note://").partition("/")
        return result.model_copy(update={"ttl_ms": int(ttl_ms), "cache_scope": scope})


server = Counting("counting")
SAFE = ToolAnnotations(read_only_hint=True, idempotent_hint=True)


def count(what: str) -> int:
    with log.open("a") as file:
        file.write(what + "\n")
    return log.read_text().splitlines().count(what)


@server.tool(annotations=SAFE)
def look(name: str = "") -> str:
    """Read a value."""
    return f"{name} {count('look')}"


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def roll() -> str:
    """Read-only, but different each time."""
    return str(count("roll"))


@server.tool()
def write(name: str) -> str:
    """Write a value."""
    return f"written {count('write')}"


@server.tool(annotations=SAFE)
def fail() -> str:
    """Always fails."""
    raise ValueError(f"failure {count('fail')}")


@server.resource("note://{scope}/{ttl_ms}")
def note(scope: str, ttl_ms: str) -> str:
    """A note."""
    return f"read {count('note')}"


if __name__ == "__main__":
    server.run("stdio")
