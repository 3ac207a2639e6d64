"""MCP clients as agents use them: the SDK's own, over every transport and in both protocol eras."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import StdioServerParameters
from mcp.client import Client, sse
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from tests.conftest import serve_command, until

BOTH_ERAS = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])


@asynccontextmanager
async def http_gateway(config: Path, log: Path) -> AsyncIterator[str]:
    """`mcpgate serve` over HTTP in its own process; yields its address."""
    with log.open("w") as stderr:
        process = subprocess.Popen(serve_command(config, "--port", "0"), stdout=subprocess.DEVNULL, stderr=stderr)
        try:
            await until(lambda: "listening on" in log.read_text() or process.poll() is not None)
            yield log.read_text().split("listening on ")[1].split("/mcp")[0]
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait, 20)


@asynccontextmanager
async def sse_client(address: str, **options: Any) -> AsyncIterator[Any]:
    """The SDK's client over SSE. A message that arrives while it closes makes it raise BrokenResourceError (mcp 2.x,
    client/sse.py), which says nothing about the gateway; what a test raises inside goes through."""
    inside: BaseException | None = None
    try:
        async with sse.sse_client(address, **options) as streams:
            try:
                yield streams
            except BaseException as error:
                inside = error
                raise
    except* anyio.BrokenResourceError:
        if inside is not None:
            raise


@asynccontextmanager
async def connected(transport: str, mode: str, config: Path, tmp_path: Path, **options: Any) -> AsyncIterator[Client]:
    if transport == "stdio":
        command, *arguments = serve_command(config, "--stdio")
        server = StdioServerParameters(command=command, args=arguments, env=dict(os.environ))
        with (tmp_path / "stderr").open("w") as errlog:
            async with Client(stdio_client(server, errlog=errlog), mode=mode, cache=None, **options) as client:
                yield client
        return
    async with http_gateway(config, tmp_path / "stderr") as address:
        target: Any = sse_client(f"{address}/sse") if transport == "sse" else f"{address}/mcp"
        async with Client(target, mode=mode, cache=None, **options) as client:
            yield client


async def settled(client: Client) -> str:
    """The list of servers, once none is still starting."""
    async with asyncio.timeout(30):
        while "still starting" in (listing := text_of(await client.call_tool("list_tools", {}))):
            await asyncio.sleep(0.05)
    return listing


def text_of(result: Any) -> str:
    return "\n".join(block.text for block in result.content if block.type == "text")


@asynccontextmanager
async def client_of(
    address: str, mode: str, headers: dict[str, str], sse: bool = False, **options: Any
) -> AsyncIterator[Client]:
    async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
        target = (
            sse_client(f"{address}/sse", headers=headers)
            if sse
            else streamable_http_client(f"{address}/mcp", http_client=http)
        )
        async with Client(target, mode=mode, cache=None, **options) as client:
            yield client
