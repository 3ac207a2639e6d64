"""A real MCP server built with the SDK, over streamable HTTP or SSE: `sdk_server.py http|sse PORT`. It requires the
header `authorization: Bearer let-me-in`."""

import asyncio
import sys
from typing import Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("remote", title="A remote server", instructions="Far away.")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def big(mib: int) -> str:
    """Answer with this many MiB."""
    return "x" * (mib * 1024 * 1024)


@server.tool()
async def steps(number: int, ctx: Context) -> str:
    """Report progress."""
    for step in range(number):
        await ctx.report_progress(step + 1, number, f"step {step + 1}")
    return "done"


@server.tool()
async def hang() -> str:
    """Never answer."""
    await asyncio.Event().wait()
    return ""


@server.tool()
def traced(ctx: Context) -> dict[str, str]:
    """Tell in which trace it was called, by the request and by the headers."""
    meta, headers = ctx.request_context.meta or {}, ctx.headers or {}
    found = {name: str(meta.get(name)) for name in ("traceparent", "tracestate")}
    return {**found, "header": headers.get("traceparent", ""), "state": headers.get("tracestate", "")}


@server.resource("note://one")
def note() -> str:
    """A note."""
    return "the text of the note"


@server.prompt()
def greet() -> str:
    """A greeting."""
    return "Say hello."


def guarded(app: Any) -> Any:
    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and (b"authorization", b"Bearer let-me-in") not in scope["headers"]:
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b"who are you?"})
            return
        await app(scope, receive, send)

    return asgi


if __name__ == "__main__":
    kind, port = sys.argv[1], int(sys.argv[2])
    app = server.sse_app() if kind == "sse" else server.streamable_http_app(json_response="json" in sys.argv)
    uvicorn.run(guarded(app), port=port, log_level="warning")
