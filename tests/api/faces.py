"""A whole gateway behind a port, in the test's own loop."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2

from mcpgate.api.http.port import Port, PortLimits
from mcpgate.api.server import Server
from mcpgate.app import running
from mcpgate.gateway import Gateway
from tests.api.http.ports import Opened
from tests.conftest import make_config

MODERN = "2026-07-28"
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}
BOTH = "application/json, text/event-stream"


class Faced(Opened):
    """The gateway, its server and its port."""

    def __init__(self, gateway: Gateway, server: Server, port: Port, number: int) -> None:
        super().__init__(port, number)
        self.gateway, self.server = gateway, server
        self.http = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{number}", timeout=20, trust_env=False)

    async def rpc(
        self, method: str, params: Mapping[str, Any] | None = None, key: str | None = None, **headers: str
    ) -> httpx2.Response:
        """A request of the handshake era."""
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
        return await self.post(message, key, **headers)

    async def modern(
        self, method: str, params: Mapping[str, Any] | None = None, key: str | None = None, **headers: str
    ) -> httpx2.Response:
        """A request of the present era."""
        return await self.post(modern(method, params), key, **modern_headers(method, params), **headers)

    async def post(self, message: Any, key: str | None = None, path: str = "/mcp", **headers: str) -> httpx2.Response:
        content = message if isinstance(message, bytes) else json.dumps(message).encode()
        fields = {"content-type": "application/json", "accept": BOTH, **bearer(key), **headers}
        return await self.http.post(path, content=content, headers=fields)


def modern(method: str, params: Mapping[str, Any] | None = None, id: Any = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": {**(params or {}), "_meta": ENVELOPE}}


def modern_headers(method: str, params: Mapping[str, Any] | None = None) -> dict[str, str]:
    named = {"mcp-name": params["name"]} if params and "name" in params else {}
    return {"mcp-protocol-version": MODERN, "mcp-method": method, **named}


def bearer(key: str | None) -> dict[str, str]:
    return {} if key is None else {"authorization": f"Bearer {key}"}


def key(secret: str, **more: Any) -> dict[str, Any]:
    return {"secret": secret, "grants": {"tools": ["*"]}, **more}


@asynccontextmanager
async def faced(
    tmp_path: Path,
    servers: Mapping[str, Any] | None = None,
    host: str = "127.0.0.1",
    limits: PortLimits | None = None,
    engine: bool = False,
    **sections: Any,
) -> AsyncIterator[Faced]:
    sections.setdefault("storage", {"url": f"sqlite:////{str(tmp_path).lstrip('/')}/db.sqlite3"})
    config = make_config(dict(servers or {}), **sections)
    listener = socket.create_server(("127.0.0.1", 0))
    async with running(config, with_engine=engine) as gateway:
        await gateway.pool.settled(timeout_s=60)
        await asyncio.sleep(0)
        server = Server(gateway, host)
        port = Port(server, limits or PortLimits(), server.trusted_proxies, server.when_full)
        serve = asyncio.create_task(port.serve(listener))
        opened = Faced(gateway, server, port, listener.getsockname()[1])
        try:
            yield opened
        finally:
            await opened.http.aclose()
            await opened.close()
            server.closing.set()
            port.stop()
            await serve
