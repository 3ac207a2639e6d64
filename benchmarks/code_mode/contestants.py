"""What is measured, and how each contestant is given the same task in its own idiom.

A task is a number of calls of everything's `get-sum`, made one by one or at once, whose answers are added up. Every run
gets a different `base`, so that no cache of results or programs can answer it.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any, Protocol, TextIO

from anyio import create_task_group, fail_after
from anyio.from_thread import start_blocking_portal
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from benchmarks.code_mode.stdio import ContestantFailed, Launch, StdioClient, text_of
from benchmarks.servers import SERVERS, Server, cache_folder, install, mcp_servers

START_TIMEOUT_S = 60.0
CALL_TIMEOUT_S = 30.0
SEARCH = "read a text file"
_UPSTREAMS = tuple(SERVERS[name] for name in ("everything", "filesystem", "memory"))
_CHECKOUT = Path(__file__).resolve().parents[2]

TOOLPLANE = Server("toolplane", "toolplane==0.5.2", "toolplane", also=("fastmcp==4.1.2", "pydantic-monty==1.4.0"))
FASTMCP = Server("fastmcp", "fastmcp[code-mode]==4.1.2", "python", also=("pydantic-monty==1.4.0",))


@dataclass(frozen=True)
class Task:
    name: str
    calls: int
    parallel: bool = False

    def expected(self, base: int) -> int:
        return sum(base + i + 1 for i in range(self.calls)) if self.calls else base + 1

    def arguments(self, base: int) -> list[dict[str, int]]:
        return [{"a": base + i, "b": 1} for i in range(self.calls)]


TASKS = (Task("0 calls", 0), Task("1 call", 1), Task("50 in turn", 50), Task("50 at once", 50, parallel=True))


@dataclass(frozen=True)
class Answer:
    seconds: float
    text: str
    """The text that a model would read."""


class Session(Protocol):
    """One contestant, running."""

    listed_after_s: float | None
    """From starting the process to the answer to `tools/list`."""
    tools: Sequence[Mapping[str, Any]]
    instructions: str

    def run(self, task: Task, base: int) -> Answer | None:
        """Runs a task and checks its result; None if the contestant has no such task."""

    def search(self) -> str | None: ...

    def describe(self) -> str | None: ...

    def cpu_s(self) -> float | None: ...

    def peak_rss_mib(self) -> tuple[float, float] | None: ...

    def pss_mib(self) -> float | None: ...


@dataclass(frozen=True)
class Contestant:
    name: str
    title: str
    open: Callable[[], AbstractContextManager[Session]]
    package: Server | None = None
    """Installed before the first start."""


# No gateway


class _NoGateway:
    """A contestant without the features of a gateway."""

    def search(self) -> str | None:
        return None

    def describe(self) -> str | None:
        return None

    def cpu_s(self) -> float | None:
        return None

    def peak_rss_mib(self) -> tuple[float, float] | None:
        return None

    def pss_mib(self) -> float | None:
        return None


class _Direct(_NoGateway):
    """The lean client directly on the upstreams. All three start at once, as in an agent without a gateway."""

    def __init__(self, clients: Mapping[str, StdioClient]) -> None:
        with ThreadPoolExecutor(len(clients)) as pool:
            lists = list(pool.map(_start, clients.values()))
        first = min(client.started_at for client in clients.values())
        self.listed_after_s: float | None = time.perf_counter() - first
        self.tools: Sequence[Mapping[str, Any]] = [tool for tools in lists for tool in tools]
        self.instructions = "\n".join(client.server.get("instructions") or "" for client in clients.values()).strip()
        self._everything = clients["everything"]

    def run(self, task: Task, base: int) -> Answer | None:
        if not task.calls:
            return None
        requests = [{"name": "get-sum", "arguments": arguments} for arguments in task.arguments(base)]
        began = time.perf_counter()
        if task.parallel:
            results = self._everything.request_all("tools/call", requests, CALL_TIMEOUT_S)
        else:
            results = [self._everything.request("tools/call", request, CALL_TIMEOUT_S) for request in requests]
        seconds = time.perf_counter() - began
        return _sum_up([text_of(result) for result in results], seconds, task, base)


@contextmanager
def _open_direct() -> Iterator[Session]:
    with ExitStack() as stack:
        clients = {}
        for name, entry in _entries().items():
            clients[name] = StdioClient(_launch(f"direct-{name}", entry["command"], entry["args"], env=entry["env"]))
            stack.callback(clients[name].close)
        yield _Direct(clients)


class _Sdk(_NoGateway):
    """The official SDK's client directly on the upstream: what an ordinary client adds. Timed inside its event loop."""

    listed_after_s: float | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    instructions = ""

    def __init__(self, client: Client, portal: Any) -> None:
        self._client, self._portal = client, portal

    def run(self, task: Task, base: int) -> Answer | None:
        if not task.calls:
            return None
        seconds, texts = self._portal.call(self._calls, task, base)
        return _sum_up(texts, seconds, task, base)

    async def _calls(self, task: Task, base: int) -> tuple[float, list[str]]:
        texts: list[str] = []

        async def call(arguments: dict[str, Any]) -> None:
            result = await self._client.call_tool("get-sum", arguments)
            texts.extend(block.text for block in result.content if block.type == "text")

        with fail_after(CALL_TIMEOUT_S):
            began = time.perf_counter()
            if task.parallel:
                async with create_task_group() as group:
                    for arguments in task.arguments(base):
                        group.start_soon(call, dict(arguments))
            else:
                for arguments in task.arguments(base):
                    await call(dict(arguments))
            return time.perf_counter() - began, texts


@contextmanager
def _open_sdk() -> Iterator[Session]:
    entry = _entries()["everything"]
    log: TextIO
    with _log_file("sdk").open("w") as log, start_blocking_portal() as portal:
        server = StdioServerParameters(command=entry["command"], args=entry["args"], env=entry["env"])
        client = Client(stdio_client(server, errlog=log), mode="legacy")
        with portal.wrap_async_context_manager(client):
            yield _Sdk(client, portal)


def _sum_up(texts: list[str], seconds: float, task: Task, base: int) -> Answer:
    total = sum(int(text.rstrip(".").split()[-1]) for text in texts)
    if len(texts) != task.calls or total != task.expected(base):
        raise ContestantFailed(f"{task.name}: {len(texts)} answers with the sum {total}, not {task.expected(base)}")
    return Answer(seconds, "\n".join(texts))


# Gateways


@dataclass(frozen=True)
class _Idiom:
    """A gateway's own names for the same things, and how its code calls a tool."""

    execute: str
    search: str
    describe: str
    describe_argument: tuple[str, str]
    """The argument that takes the names, and the name of `read_text_file`."""
    call: str
    """The call of get-sum with `{a}`, not yet awaited."""
    awaits: bool = True
    """Whether a call made one by one is awaited."""
    result: str = "return {}"


_MCPGATE = _Idiom(
    "execute_code",
    "list_tools",
    "describe_tools",
    ("names", "filesystem.read_text_file"),
    "everything.get_sum(a={a}, b=1)",
    awaits=False,
    result="{}",
)
_TOOLPLANE_IDIOM = _Idiom(
    "execute_code",
    "search_capabilities",
    "get_capability_schemas",
    ("names", "mcp:filesystem/read_text_file"),
    "everything_get_sum(a={a}, b=1)",
)
_FASTMCP_IDIOM = _Idiom(
    "execute",
    "search",
    "get_schema",
    ("tools", "filesystem_read_text_file"),
    'call_tool("everything_get-sum", {{"a": {a}, "b": 1}})',
)


def program(idiom: _Idiom, task: Task, base: int) -> str:
    """The code a model would write for the task."""
    number = "int({}.rstrip('.').split()[-1])"
    wait = "await " if idiom.awaits else ""
    if not task.calls:
        return idiom.result.format(f"{base} + 1")
    if task.calls == 1:
        return f"text = {wait}{idiom.call.format(a=base)}\n" + idiom.result.format(number.format("text"))
    call = idiom.call.format(a=f"{base} + i")
    if task.parallel:
        code = f"""\
            import asyncio
            texts = await asyncio.gather(*[{call} for i in range({task.calls})])
            {idiom.result.format(f"sum({number.format('text')} for text in texts)")}"""
    else:
        code = f"""\
            total = 0
            for i in range({task.calls}):
                text = {wait}{call}
                total += {number.format("text")}
            {idiom.result.format("total")}"""
    return dedent(code)


class _Gateway:
    """A gateway behind the lean client."""

    def __init__(self, client: StdioClient, idiom: _Idiom) -> None:
        self.tools: Sequence[Mapping[str, Any]] = _start(client)
        self.listed_after_s: float | None = time.perf_counter() - client.started_at
        self.instructions: str = client.server.get("instructions") or ""
        self._client, self._idiom = client, idiom

    def run(self, task: Task, base: int) -> Answer | None:
        request = {"name": self._idiom.execute, "arguments": {"code": program(self._idiom, task, base)}}
        began = time.perf_counter()
        result = self._client.request("tools/call", request, CALL_TIMEOUT_S)
        seconds = time.perf_counter() - began
        text = text_of(result)
        if not re.search(rf"(?<![\d.]){task.expected(base)}(?![\d.])", text):
            raise ContestantFailed(f"{task.name}: the result is not {task.expected(base)}: {text[:400]}")
        return Answer(seconds, text)

    def search(self) -> str | None:
        return self._ask(self._idiom.search, {"query": SEARCH}, "read_text_file")

    def describe(self) -> str | None:
        argument, tool = self._idiom.describe_argument
        return self._ask(self._idiom.describe, {argument: [tool]}, "path")

    def _ask(self, tool: str, arguments: dict[str, Any], needed: str) -> str:
        answer = text_of(self._client.request("tools/call", {"name": tool, "arguments": arguments}, CALL_TIMEOUT_S))
        if needed not in answer:
            raise ContestantFailed(f"{tool}: no {needed!r} in the answer: {answer[:400]}")
        return answer

    def cpu_s(self) -> float | None:
        return self._client.cpu_s()

    def peak_rss_mib(self) -> tuple[float, float] | None:
        return self._client.peak_rss_mib()

    def pss_mib(self) -> float | None:
        return self._client.pss_mib()


@contextmanager
def _open_gateway(launch: Launch, idiom: _Idiom) -> Iterator[Session]:
    client = StdioClient(launch)
    try:
        yield _Gateway(client, idiom)
    finally:
        client.close()


@contextmanager
def _open_mcpgate() -> Iterator[Session]:
    work = _work()
    config = work / "mcpgate.yaml"
    storage = {"url": f"sqlite:///{work / 'mcpgate.sqlite3'}"}
    config.write_text(json.dumps({"mcpServers": _entries(), "storage": storage}, indent=2))  # JSON is YAML.
    args = ("-m", "mcpgate", "serve", "--stdio", "-c", str(config))
    env = {"PYTHONPATH": f"{_CHECKOUT}{os.pathsep}{_CHECKOUT / 'sandbox'}"}  # This checkout, not what is installed.
    with _open_gateway(_launch("mcpgate", sys.executable, args, env=env), _MCPGATE) as session:
        yield session


@contextmanager
def _open_toolplane() -> Iterator[Session]:
    config = _work() / "toolplane.toml"
    config.write_text("".join(_toml(name, entry) for name, entry in _entries().items()))
    args = ("serve", "mcp", "--config", str(config))
    with _open_gateway(_launch("toolplane", _program(TOOLPLANE), args), _TOOLPLANE_IDIOM) as session:
        yield session


@contextmanager
def _open_fastmcp() -> Iterator[Session]:
    config = _work() / "fastmcp.json"
    config.write_text(json.dumps({"mcpServers": _entries()}))
    args = (str(Path(__file__).with_name("fastmcp_server.py")), str(config))
    with _open_gateway(_launch("fastmcp", _program(FASTMCP), args), _FASTMCP_IDIOM) as session:
        yield session


def _start(client: StdioClient) -> list[dict[str, Any]]:
    client.initialize(START_TIMEOUT_S)
    return client.list_tools(START_TIMEOUT_S)


CONTESTANTS = (
    Contestant("mcpgate", "mcpgate", _open_mcpgate),
    Contestant("direct", "no gateway", _open_direct),
    Contestant("sdk", "no gateway, SDK client", _open_sdk),
    Contestant("toolplane", "toolplane 0.5.2", _open_toolplane, TOOLPLANE),
    Contestant("fastmcp", "FastMCP 4.1.2 Code Mode", _open_fastmcp, FASTMCP),
)
"""mcpgate comes first: the others are compared with it."""


# Folders and launch lines


def install_upstreams() -> None:
    for server in _UPSTREAMS:
        install(server)


def _work() -> Path:
    work = cache_folder() / "code_mode"
    work.mkdir(parents=True, exist_ok=True)
    return work


def _entries() -> dict[str, dict[str, Any]]:
    return mcp_servers(_UPSTREAMS, _work())


def _program(package: Server) -> str:
    command: str = mcp_servers([package], _work())[package.name]["command"]
    return command


def _log_file(name: str) -> Path:
    return _work() / f"{name}.log"


def _launch(name: str, command: str, args: Sequence[str], env: Mapping[str, str] | None = None) -> Launch:
    return Launch(command, tuple(args), env or {}, _work(), _log_file(name))


def _toml(name: str, entry: Mapping[str, Any]) -> str:
    """One upstream in Toolplane's file. A JSON string is also a TOML string."""
    env = ", ".join(f"{key} = {json.dumps(value)}" for key, value in entry["env"].items())
    lines = (f"command = {json.dumps(entry['command'])}", f"args = {json.dumps(entry['args'])}", f"env = {{{env}}}")
    return "\n".join((f"[mcp.servers.{name}]", *lines, "", ""))
