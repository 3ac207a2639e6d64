"""One MCP server through the official SDK's client, answered as the model would read it."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyio import Event, create_task_group
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.shared.exceptions import MCPError

_CALL_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Reply:
    text: str
    is_error: bool


class Link:
    """A connected server."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def instructions(self) -> str:
        return self._client.instructions or ""

    async def list_tools(self) -> list[dict[str, Any]]:
        """Every page, in the protocol's own spelling."""
        tools: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = await self._client.list_tools(cursor=cursor)
            tools += [tool.model_dump(by_alias=True, exclude_none=True, mode="json") for tool in page.tools]
            cursor = page.next_cursor
            if not cursor:
                return tools

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> Reply:
        """Errors of the call are returned as text: a host would tell the model."""
        try:
            result = await self._client.call_tool(tool, dict(arguments), read_timeout_seconds=_CALL_TIMEOUT_S)
        except (MCPError, RuntimeError) as error:
            return Reply(f"Error: {error}", is_error=True)
        parts = [block.text if block.type == "text" else f"[{block.type}]" for block in result.content]
        if not parts and result.structured_content is not None:
            parts = [json.dumps(result.structured_content, ensure_ascii=False)]
        return Reply("\n".join(parts), bool(result.is_error))


@asynccontextmanager
async def connect(entry: Mapping[str, Any], log: Path) -> AsyncIterator[Link]:
    """Starts a stdio server, or reaches one over HTTP; its stderr goes to the log."""
    with log.open("a") as stderr:
        if "url" in entry:
            target: Any = entry["url"]
        else:
            parameters = StdioServerParameters(
                command=entry["command"], args=list(entry.get("args", ())), env=entry.get("env"), cwd=entry.get("cwd")
            )
            target = stdio_client(parameters, errlog=stderr)
        async with Client(target, mode="legacy") as client:
            yield Link(client)


@asynccontextmanager
async def connect_all(entries: Mapping[str, Mapping[str, Any]], folder: Path) -> AsyncIterator[dict[str, Link]]:
    """Every server at once, each with its own log in the folder."""
    links: dict[str, Link] = {}
    ready = {name: Event() for name in entries}
    done = Event()

    async def hold(name: str) -> None:
        async with connect(entries[name], folder / f"{name}.log") as link:
            links[name] = link
            ready[name].set()
            await done.wait()

    async with create_task_group() as group:
        for name in entries:
            group.start_soon(hold, name)
        for event in ready.values():
            await event.wait()
        yield links
        done.set()
