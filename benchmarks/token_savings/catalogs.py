"""Catalogs of real tools by size, and a server that replays them.

A catalog is a list of servers whose `tools/list` was captured (`benchmarks.servers`); it is stored below
MCPGATE_BENCH_DIR, never in the repository. `replay` serves any number of them over streamable HTTP, listing only: a
gateway in front of it lists, indexes and searches what the real servers sent. Calls of replayed tools get an error.
"""

import asyncio
import contextlib
import json
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from benchmarks.servers import SERVERS, SETS, ServerFailed, capture, capture_file, install, load_tools
from benchmarks.services import ServiceMissing
from benchmarks.token_savings.transcript import definitions_tokens, function_of

_SIX = ("filesystem", "memory", "git", "sqlite", "sequential-thinking", "word")
_ELEVEN = (*_SIX, "excel", "redis", "git-cyanheads", "treesitter", "time")
_SIXTEEN = (*_ELEVEN, "docx", "postgres-henkey", "mathematics", "markitdown", "fetch")
_NINETEEN = (*_SIXTEEN, "gitlab", "linear", "atlassian")
_DOZENS = tuple(dict.fromkeys((*_SIXTEEN, *SETS["discovery"], "hostinger")))

NAMES: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "96": _SIX,
    "251": _ELEVEN,
    "508": _SIXTEEN,
    "1000": _NINETEEN,
    "2500": _DOZENS,
    "all": tuple(SERVERS),
}
"""`none` is only a suite's own servers. 96, 251 and 508 are exact; `all` is everything that could be captured here."""
EXACT: Mapping[str, int] = {"96": 96, "251": 251, "508": 508}


@dataclass(frozen=True)
class Catalogue:
    """Servers and their tools, as they listed them."""

    name: str
    servers: Mapping[str, Sequence[Mapping[str, Any]]]

    @property
    def size(self) -> int:
        return sum(map(len, self.servers.values()))

    @cached_property
    def tokens(self) -> int:
        """Tokens of all definitions, as a classic client puts them into every request."""
        return definitions_tokens(
            function_of(qualified(server, tool["name"]), tool)
            for server, tools in self.servers.items()
            for tool in tools
        )

    def without(self, names: Collection[str]) -> "Catalogue":
        """The catalog without servers that actually run: those are not replayed as well."""
        return Catalogue(self.name, {name: tools for name, tools in self.servers.items() if name not in names})


def qualified(server: str, tool: str) -> str:
    """A tool's name in a classic client, which has many servers in one list; providers take 64 such characters."""
    return "".join(
        char if char.isascii() and (char.isalnum() or char in "_-") else "_" for char in f"{server}__{tool}"
    )[:64]


def load(name: str) -> Catalogue:
    """A catalog from the captures. Raises ServerFailed if one of its servers is not captured, or if an exact
    catalog is not exact; `all` takes what there is."""
    servers = {}
    for server in NAMES[name]:
        if name != "all" or capture_file(server).is_file():
            servers[server] = load_tools(server)
    found = Catalogue(name, servers)
    if name in EXACT and found.size != EXACT[name]:
        raise ServerFailed(f"catalogue {name} has {found.size} tools; capture its servers again")
    return found


def prepare(name: str) -> list[str]:
    """Installs and captures what a catalog still lacks. Returns descriptions of failures."""
    failed = []
    for server in NAMES[name]:
        if capture_file(server).is_file():
            continue
        try:
            install(SERVERS[server])
            asyncio.run(capture(SERVERS[server]))
        except (ServerFailed, ServiceMissing, OSError, TimeoutError) as error:
            failed.append(f"{server}: {error}")
    return failed


# Replay


@contextlib.contextmanager
def replay(catalogue: Catalogue) -> Iterator[dict[str, dict[str, Any]]]:
    """Serves the catalog from a thread; yields the `mcpServers` entries that reach its servers."""
    listings = {f"/{name}/mcp": list(tools) for name, tools in catalogue.servers.items()}

    class Handler(_Replay):
        tools_by_path = listings

    class Server(ThreadingHTTPServer):
        request_queue_size = 256  # A gateway connects to every server at once.

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Ignored: a gateway may end in the middle of a request."""

    httpd = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, name="replay", daemon=True)
    thread.start()
    try:
        base = f"http://127.0.0.1:{httpd.server_address[1]}"
        yield {name: {"type": "http", "url": f"{base}/{name}/mcp"} for name in catalogue.servers}
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


class _Replay(BaseHTTPRequestHandler):
    """As much of a streamable HTTP server as listing needs."""

    protocol_version = "HTTP/1.1"
    tools_by_path: Mapping[str, list[Mapping[str, Any]]] = {}

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        if self.path not in self.tools_by_path:
            self._send(404, b"")
        elif "id" not in message:
            self._send(202, b"")
        else:
            answer = {"jsonrpc": "2.0", "id": message["id"], **self._answer(message)}
            self._send(200, json.dumps(answer).encode())

    def do_GET(self) -> None:
        self._send(405, b"")

    do_DELETE = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""

    def _answer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        match message["method"]:
            case "initialize":
                name = self.path.split("/")[1]
                return {
                    "result": {
                        "protocolVersion": message["params"]["protocolVersion"],
                        "capabilities": {"tools": {}},
                        "serverInfo": {"name": name, "version": "1"},
                    }
                }
            case "tools/list":
                return {"result": {"tools": self.tools_by_path[self.path]}}
            case "ping":
                return {"result": {}}
            case "tools/call":
                return {"error": {"code": -32603, "message": "a replayed tool cannot be called"}}
            case method:
                return {"error": {"code": -32601, "message": f"Method not found: {method}"}}

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if body:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
