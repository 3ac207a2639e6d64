"""A gateway process with keys, and requests to it as programs make them: raw JSON-RPC over HTTP with a key."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import yaml

from mcpgate.app import open_stores
from mcpgate.config.settings import Config
from mcpgate.governance.records import Entry
from mcpgate.governance.store import Settlement
from tests.conftest import serve_command
from tests.stores.conftest import PGVECTOR, POSTGRES, needs_server

ADMIN = "mg-admin-of-the-tests"
TRUSTED = {"admin": {"secret": ADMIN, "grants": {"tools": ["*"], "admin": True}}}
"""The `keys` of a gateway whose own state is tested."""
HELD = {"all": "mg-may-call-everything", "some": "mg-may-call-a-few-tools", "none": "mg-was-granted-nothing"}
"""Secrets of the keys of the gateway in conftest.py."""
GRANTED = ("alpha.echo", "alpha.was-cancelled", "beta.tool_1", "beta.grow")
"""What the key `some` may call."""
PRICES = {"add": 0.01, "echo": 0.25, "hang": 0.5, "steps": 0.125, "fail": 0.0625, "meet": 0.01}
"""In dollars, for the tools of raw_server.py."""
MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


def wait_until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """The result of a condition, once it is truthy."""
    give_up = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < give_up, "this did not come about in time"
        time.sleep(0.01)
    return found


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def call_of(name: str, arguments: Mapping[str, Any] | None = None, id: int = 1, **params: Any) -> dict[str, Any]:
    """The message of a tools/call."""
    return {
        "jsonrpc": "2.0",
        "id": id,
        "method": "tools/call",
        "params": {"name": name, "arguments": dict(arguments or {}), **params},
    }


def code_of(response: httpx2.Response) -> str:
    """The contract's code of a request that was refused, in the form of either face."""
    error = response.json()["error"]
    code: str = error.get("data", error)["code"]
    return code


@dataclass
class Answer:
    """The outcome of a tools/call."""

    response: httpx2.Response

    @property
    def result(self) -> dict[str, Any]:
        message = self.response.json()
        assert "result" in message, message
        found: dict[str, Any] = message["result"]
        return found

    @property
    def ok(self) -> bool:
        return not self.result.get("isError", False)

    @property
    def text(self) -> str:
        """Also the text of a refusal, whatever its form."""
        message = self.response.json()
        if "result" not in message:
            return str(message["error"]["message"])
        return "\n".join(part["text"] for part in message["result"]["content"] if part["type"] == "text")

    @property
    def meta(self) -> dict[str, Any]:
        found: dict[str, Any] = self.result.get("_meta", {})
        return found

    @property
    def error(self) -> dict[str, Any]:
        """The refusal, by the contract's codes."""
        message = self.response.json()
        found: dict[str, Any] = message["error"]["data"] if "error" in message else self.meta.get("mcpgate/error", {})
        return found

    @property
    def headers(self) -> httpx2.Headers:
        return self.response.headers


@dataclass
class Served:
    """A running gateway."""

    process: subprocess.Popen[bytes]
    address: str
    log: Path
    config: Path
    folder: Path
    clients: list[httpx2.Client] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.folder)

    def http(self, **headers: str) -> httpx2.Client:
        """A client with its own connections."""
        client = httpx2.Client(base_url=self.address, headers=headers, timeout=30, verify=False)
        self.clients.append(client)
        return client

    def call(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        key: str | None = ADMIN,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Call a tool, in one request of the handshake era without a session."""
        sent = {**({} if key is None else bearer(key)), **(headers or {})}
        return Answer(self.clients[0].post("/mcp", json=call_of(name, arguments), headers=sent))

    def run(self, code: str, key: str | None = ADMIN, session: str | None = None, **headers: str) -> Answer:
        arguments = {"code": code} if session is None else {"code": code, "session": session}
        return self.call("execute_code", arguments, key, headers)

    def tools(self, key: str | None = ADMIN) -> list[dict[str, Any]]:
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        answer = self.clients[0].post("/mcp", json=message, headers={} if key is None else bearer(key)).json()
        found: list[dict[str, Any]] = answer["result"]["tools"]
        return found

    def admin(self, method: str, path: str, body: Any = None, key: str | None = ADMIN) -> httpx2.Response:
        headers = {} if key is None else bearer(key)
        content = None if body is None else json.dumps(body).encode()
        return self.clients[0].request(method, f"/api/{path}", content=content, headers=headers)

    def new_key(self, **spec: Any) -> str:
        """The secret of a new key that may call everything unless `spec` says otherwise."""
        answer = self.admin("POST", "keys", {"grants": {"tools": ["*"]}, **spec})
        assert answer.status_code == 201, answer.text
        secret: str = answer.json()["secret"]
        return secret

    def usage(self, by: str = "", **where: str) -> list[dict[str, Any]]:
        query = ",".join(f"{name}={value}" for name, value in where.items())
        answer = self.admin("GET", f"usage?by={by}&where={query}")
        assert answer.status_code == 200, answer.text
        rows: list[dict[str, Any]] = answer.json()["rows"]
        return rows

    def cost(self, **where: str) -> str:
        return str(self.usage(**where)[0]["cost_usd"])

    def standing(self, path: str) -> dict[str, Any]:
        """The usage of the only limit there, such as that of `keys/ci`."""
        answer = self.admin("GET", f"{path}/standing")
        assert answer.status_code == 200, answer.text
        (found,) = answer.json()["standings"]
        return dict(found)

    def said(self, text: str) -> bool:
        return text in self.log.read_text()

    def edit(self, **sections: Any) -> None:
        """Put other sections into the configuration file, and wait until they take effect."""
        before = self.log.read_text().count("configuration reloaded")
        new = {**yaml.safe_load(self.config.read_text()), **sections}
        draft = self.config.with_suffix(".draft")
        draft.write_text(yaml.safe_dump(new))
        draft.replace(self.config)
        wait_until(lambda: self.log.read_text().count("configuration reloaded") > before)

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(20)


@contextlib.contextmanager
def hanging_call(
    served: Served, key: str, tool: str, arguments: Mapping[str, Any] | None = None, modern: bool = True
) -> Iterator[None]:
    """A call in progress whose client does not wait for the answer: it disconnects at the end of the block."""
    message = call_of(tool, arguments, _meta=MODERN) if modern else call_of(tool, arguments)
    body = json.dumps(message).encode()
    era = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": tool} if modern else {}
    fields = {
        "host": "localhost",
        **era,
        "accept": "application/json, text/event-stream",
        "content-length": str(len(body)),
        **bearer(key),
    }
    head = "POST /mcp HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"
    with socket.create_connection(("127.0.0.1", int(served.address.rpartition(":")[2]))) as connection:
        connection.sendall(head.encode() + body)
        yield


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "XDG_DATA_HOME": str(folder / "data"), **more}


def write_config(folder: Path, servers: Mapping[str, Any], **sections: Any) -> Path:
    path = folder / "mcpgate.yaml"
    settings = {"sandbox": {"warm": 1}, **sections}
    path.write_text(yaml.safe_dump({"mcpServers": dict(servers), **settings}))
    return path


@contextlib.contextmanager
def serving(
    folder: Path,
    config: Path,
    *more: str,
    workers: int = 1,
    host: str = "127.0.0.1",
    env: Mapping[str, str] | None = None,
) -> Iterator[Served]:
    """`mcpgate serve` with its upstreams connected."""
    folder.mkdir(exist_ok=True)
    log = folder / f"log{len(list(folder.glob('log*')))}"
    port = free_port() if workers > 1 else 0
    options = ["--port", str(port), "--host", host, *(["--workers", str(workers)] if workers > 1 else []), *more]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            serve_command(config, *options),
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=environment(folder, **(env or {})),
        )
    served = None
    try:
        wait_until(lambda: log.read_text().count("listening on") >= workers or process.poll() is not None, 60)
        assert process.poll() is None, log.read_text()
        address = log.read_text().split("listening on ")[1].split("/mcp")[0].replace("0.0.0.0", "127.0.0.1")
        served = Served(process, address, log, config, folder)
        served.http()
        for _ in range(1 if workers == 1 else 10 * workers):  # a connection reaches one of the workers
            with httpx2.Client(base_url=address, verify=False) as fresh:
                wait_until(lambda fresh=fresh: fresh.get("/readyz").status_code == 200)
        yield served
    finally:
        for client in served.clients if served else ():
            client.close()
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def sqlite_url(folder: Path) -> str:
    """Of a file in a folder."""
    return f"sqlite:////{str(folder).lstrip('/')}/db.sqlite3"


async def write_entries(url: str, entries: Sequence[Entry]) -> None:
    """Put entries into a store's ledger and its sums."""
    stores = await open_stores(Config.model_validate({"storage": {"url": url}}))
    for first in range(0, len(entries), 500):
        await stores.counters.settle([Settlement(one) for one in entries[first : first + 500]])
    await stores.store.roll_up()
    await stores.close()


@contextlib.contextmanager
def own_database(kind: str = "postgres") -> Iterator[str]:
    """The URL of a private database that is dropped afterwards, in PostgreSQL with or without pgvector."""
    needs_server(kind)
    server = PGVECTOR if kind == "pgvector" else POSTGRES
    name = f"test_{secrets.token_hex(6)}"
    parts = urlsplit(server)
    asyncio.run(_execute(server, f'CREATE DATABASE "{name}"'))
    try:
        yield parts._replace(path=f"/{name}").geturl()
    finally:
        asyncio.run(_execute(server, f'DROP DATABASE "{name}" WITH (FORCE)'))


async def _execute(server: str, statement: str) -> None:
    import asyncpg

    db = await asyncpg.connect(server)
    try:
        await db.execute(statement)
    finally:
        await db.close()


def mcpgate(*arguments: str, env: Mapping[str, str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    """A command, as a person or a script runs it."""
    return subprocess.run(
        [sys.executable, "-m", "mcpgate", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env=dict(env),
    )
