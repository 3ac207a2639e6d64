# mypy: ignore-errors
"""FastMCP's Code Mode in its fastest setup: clients connected once and shared. Run by the Python that has FastMCP.

`create_proxy(config)`, which its documentation shows first, restarts every upstream for each request and is too slow
to compete (3.6 s for a call, over 120 s for fifty).

    python fastmcp_server.py CONFIG.json
"""

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from fastmcp import Client, FastMCP
from fastmcp.client.transports import StdioTransport, StreamableHttpTransport
from fastmcp.experimental.transforms.code_mode import CodeMode
from fastmcp.server import create_proxy


def _transport(entry):
    return StreamableHttpTransport(entry["url"]) if "url" in entry else StdioTransport(**entry)


async def main() -> None:
    servers = json.loads(Path(sys.argv[1]).read_text())["mcpServers"]
    gateway = FastMCP("bench", transforms=[CodeMode()])
    async with AsyncExitStack() as stack:
        clients = {name: Client(_transport(entry)) for name, entry in servers.items()}
        await asyncio.gather(*(stack.enter_async_context(client) for client in clients.values()))
        for name, client in clients.items():
            gateway.mount(create_proxy(client), namespace=name)
        await gateway.run_async(transport="stdio", show_banner=False)


asyncio.run(main())
