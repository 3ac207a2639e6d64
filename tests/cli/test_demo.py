"""What `mcpgate demo` does so that its first run looks like every other."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.stdio import stdio_client

from mcpgate.cli.demo_command import until_started
from tests.conftest import raw, serve_command


@pytest.mark.anyio
async def test_the_demo_asks_for_tools_when_its_servers_have_started(
    config_file: Callable[..., Path], tmp_path: Path
) -> None:
    signal = tmp_path / "go"
    program, *arguments = serve_command(
        config_file({"slow": raw("--wait-for", str(signal)), "quick": raw()}), "--stdio"
    )
    server = StdioServerParameters(command=program, args=arguments, env=dict(os.environ))
    async with asyncio.timeout(60), Client(stdio_client(server), mode="legacy") as client:

        async def tools() -> str:
            return str((await client.call_tool("list_tools", {})).content)

        waiting = asyncio.ensure_future(until_started(client, ["quick", "slow"]))
        assert "slow" in await tools() and not waiting.done()
        signal.touch()
        await waiting
        assert "starting" not in await tools()


def test_the_demo_of_models_falls_back_streams_refuses_and_shows_the_ledger(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mcpgate", "demo", "llm"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    for expected in (
        "200 'Say this back to me.'",
        "x-mcpgate-attempts: 2",
        "402 budget_exceeded",
        "onprem/llama",
        "x-mcpgate-cache: exact, x-mcpgate-cost-usd: 0",
    ):
        assert expected in done.stdout
    assert done.stdout.count("event: content_block_delta") == 3 and not list(tmp_path.iterdir())
