"""`mcpgate demo`: one task with three real MCP servers and a real MCP client, and what a model would read with
Code Mode and with classic MCP. Leaves no processes and no files."""

import argparse
import asyncio
import json
import os
import shutil
import sqlite3
import sys
import sysconfig
import tempfile
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mcpgate import tokens
from mcpgate.cli import console, llm_demo
from mcpgate.config.files import load_config
from mcpgate.errors import ConfigError, McpgateError
from mcpgate.proxy.views import STARTING

SERVERS = ("mcp-server-time", "mcp-server-motherduck", "mcp-alchemy")
TASK = (
    "Our on-call people are in the staff database with their time zones, the incidents of this month in the "
    "incidents database. For the three people with the most incidents: how many, the longest in minutes, and what "
    "time is it for them when it is 09:00 in New York?"
)
QUERY = "query a database; convert time between zones"
SQL = "select person, count(*) n, max(minutes) longest from incidents group by person order by n desc limit 3"
CODE = f'''\
busiest = duck.execute_query(sql="{SQL}")
zones = {{}}
for line in staff.execute_query(query="select name, zone from staff").splitlines():
    if line.startswith("name:"): name = line.split(": ")[1]
    if line.startswith("zone:"): zones[name] = line.split(": ")[1]
async def local(person):
    t = await time.convert_time(source_timezone="America/New_York", time="09:00", target_timezone=zones[person])
    return t["target"]["datetime"][11:16]
times = await asyncio.gather(*[local(person) for person, _, _ in busiest["rows"]])
[{{"person": p, "incidents": n, "longest": m, "local": t}} for (p, n, m), t in zip(busiest["rows"], times)]
'''


EXAMPLES = (
    "mcpgate demo",
    "mcpgate demo --keep  # keeps its databases and configuration for inspection",
    "mcpgate demo llm     # the LLM face: a fallback, a budget that refuses",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", nargs="?", choices=("code", "llm"), default="code", help="Code Mode (default), or the LLM face"
    )
    parser.add_argument("--keep", action="store_true", help="keep the demo's files and print their folder")


def run(arguments: argparse.Namespace) -> int:
    missing = [name for name in SERVERS if not _program(name)]
    if missing and arguments.what == "code":
        raise ConfigError(
            f"the demo's servers are not installed ({', '.join(missing)}); install mcpgate with its demo extra: "
            'pip install "mcpgate-codemode[demo] @ ." (from the project\'s folder: pip install ".[demo]")'
        )
    folder = Path(tempfile.mkdtemp(prefix="mcpgate-demo-"))
    try:
        if arguments.what == "llm":
            llm_demo.show(folder)
        else:
            asyncio.run(_demo(folder))
    finally:
        if arguments.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


def _program(name: str) -> str | None:
    """A server's command, from the environment that mcpgate itself is installed in."""
    return shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)


@dataclass
class Conversation:
    """What a model is sent and answers, request by request; every request carries everything before it."""

    definitions: str
    turns: list[tuple[str, str]] = field(default_factory=list)
    """(who, text) in order; who is 'user', 'model' or 'tool'."""

    def input_tokens(self) -> list[int]:
        """Tokens of each request: the definitions, and everything before the model's answer."""
        fixed = tokens.count(self.definitions)
        costs, so_far = [], 0
        for who, text in self.turns:
            if who == "model":
                costs.append(fixed + so_far)
            so_far += tokens.count(text)
        return costs


async def _demo(folder: Path) -> None:
    status = console.Status()
    config = _prepare(folder)
    print(console.styled("Task", "bold"))
    print(textwrap.fill(TASK, 80) + "\n")
    began = time.monotonic()
    status("starting the gateway (the first time, the sandbox is compiled for this machine: 10 s or more)")
    code_mode = await _through_gateway(config, status)
    status("the same task as classic MCP: one tool call at a time, every definition in every request")
    classic = await _classic(config)
    status.clear()
    _print_transcript(code_mode)
    _print_costs(code_mode, classic, time.monotonic() - began)


def _prepare(folder: Path) -> Path:
    """Two databases and a configuration."""
    people = {
        "ada": "Europe/London",
        "grace": "America/New_York",
        "linus": "Europe/Helsinki",
        "guido": "America/Los_Angeles",
        "yukihiro": "Asia/Tokyo",
        "margaret": "America/Chicago",
    }
    with sqlite3.connect(folder / "staff.db") as staff:
        staff.execute("create table staff (name text, zone text, phone text)")
        staff.executemany(
            "insert into staff values (?, ?, ?)",
            [(n, z, f"+1 555 01{i:02}") for i, (n, z) in enumerate(people.items())],
        )
    staff.close()
    names = list(people)
    rows = [(f"INC-{i:03}", names[(i * i + i // 3) % len(names)], 5 + (i * 37) % 240) for i in range(1, 121)]
    import duckdb  # comes with mcp-server-motherduck

    with duckdb.connect(str(folder / "incidents.duckdb")) as duck:
        duck.execute("create table incidents (id text, person text, minutes integer)")
        duck.executemany("insert into incidents values (?, ?, ?)", rows)
    servers = {
        "time": {"command": _program("mcp-server-time"), "args": ["--local-timezone", "UTC"]},
        "staff": {
            "command": _program("mcp-alchemy"),
            "env": {"DB_URL": f"sqlite:///{folder / 'staff.db'}", "CLAUDE_LOCAL_FILES_PATH": ""},
        },
        "duck": {
            "command": _program("mcp-server-motherduck"),
            "args": ["--db-path", str(folder / "incidents.duckdb")],
            "env": {"FASTMCP_CHECK_FOR_UPDATES": "off"},  # it would ask the network, and leave a file behind
        },
    }
    config = folder / "mcpgate.yaml"
    storage = {"url": f"sqlite:///{folder / 'mcpgate.sqlite3'}"}
    config.write_text(
        yaml.safe_dump({"mcpServers": servers, "storage": storage, "telemetry": {"log_level": "warning"}})
    )
    return config


async def _through_gateway(config: Path, status: console.Status) -> Conversation:
    from mcp import StdioServerParameters
    from mcp.client import Client
    from mcp.client.stdio import stdio_client

    server = StdioServerParameters(
        command=sys.executable, args=["-m", "mcpgate", "serve", "--stdio", "-c", str(config)], env=dict(os.environ)
    )
    failure = ""
    with (config.parent / "gateway.log").open("w") as log:
        async with Client(stdio_client(server, errlog=log), mode="legacy") as client:
            listed = await client.list_tools()
            conversation = Conversation(
                _definitions([tool.model_dump(by_alias=True, exclude_none=True) for tool in listed.tools])
            )
            conversation.turns.append(("user", TASK))
            status("waiting for the three servers (the first time, they read their packages from disk)")
            await until_started(client, list(load_config(config).mcpServers))
            status("asking the gateway for tools, then running the code")
            for name, arguments in (("list_tools", {"query": QUERY}), ("execute_code", {"code": CODE})):
                conversation.turns.append(("model", _call(name, arguments)))
                result = await client.call_tool(name, arguments)
                text = "\n".join(getattr(block, "text", "") for block in result.content)
                conversation.turns.append(("tool", text))
                if result.is_error:
                    failure = f"the demo failed in {name}:\n{text}"
                    break
    if failure:
        raise McpgateError(failure)
    conversation.turns.append(("model", "(answers)"))
    return conversation


async def until_started(client: Any, servers: list[str], timeout_s: float = 120) -> None:
    """Wait until none of these servers is still starting; what has failed by then says so when it is called."""
    deadline = time.monotonic() + timeout_s
    for server in servers:
        while time.monotonic() < deadline:
            page = await client.call_tool("read_docs", {"topic": server})
            if not any(STARTING in getattr(block, "text", "") for block in page.content):
                break
            await asyncio.sleep(0.2)


async def _classic(config: Path) -> Conversation:
    """The task as a classic agent does it, with the same servers: all tool definitions in every request, every
    result in the conversation."""
    from mcpgate.upstream.pool import UpstreamPool

    pool = UpstreamPool()
    try:
        await pool.apply(load_config(config, tolerant=True).mcpServers)
        await pool.settled()
        conversation = Conversation(_definitions([tool for view in pool.views() for tool in view.tools]))
        conversation.turns.append(("user", TASK))
        plan: list[tuple[str, str, dict[str, Any]]] = [
            ("duck", "execute_query", {"sql": SQL}),
            ("staff", "execute_query", {"query": "select name, zone from staff"}),
        ]
        plan += [
            ("time", "convert_time", {"source_timezone": "America/New_York", "time": "09:00", "target_timezone": zone})
            for zone in ("Asia/Tokyo", "Europe/Helsinki", "Europe/London")
        ]
        for server, tool, arguments in plan:
            conversation.turns.append(("model", _call(tool, arguments)))
            result = await pool.get(server).call(tool, arguments)
            texts = [str(block.get("text", "")) for block in result.get("content", []) if isinstance(block, dict)]
            conversation.turns.append(("tool", "\n".join(texts)))
        conversation.turns.append(("model", "(answers)"))
        return conversation
    finally:
        await pool.aclose()


def _definitions(tools: list[dict[str, Any]]) -> str:
    kept = [{k: tool[k] for k in ("name", "description", "inputSchema") if k in tool} for tool in tools]
    return json.dumps(kept, separators=(",", ":"), ensure_ascii=False)


def _call(name: str, arguments: dict[str, Any]) -> str:
    return json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)


def _print_transcript(conversation: Conversation) -> None:
    print(console.styled("What the model would see", "bold"))
    for who, text in conversation.turns[1:-1]:
        if who == "model":
            call = json.loads(text)
            shown = call["arguments"].get("code") or json.dumps(call["arguments"], ensure_ascii=False)
            print(
                console.styled(f"→ {call['name']}", "cyan")
                + console.styled(f"  ({tokens.count(text)} tokens written)", "dim")
            )
        else:
            shown = text
            print(console.styled("←", "cyan") + console.styled(f"  ({tokens.count(text)} tokens read)", "dim"))
        print("\n".join(f"    {line}" for line in shown.strip().splitlines()) + "\n")


def _print_costs(code_mode: Conversation, classic: Conversation, seconds: float) -> None:
    def row(label: str, conversation: Conversation) -> list[Any]:
        costs = conversation.input_tokens()
        results = sum(tokens.count(text) for who, text in conversation.turns if who == "tool")
        return [label, len(costs), f"{tokens.count(conversation.definitions):,}", f"{results:,}", f"{sum(costs):,}"]

    rows = [row("classic MCP", classic), row("mcpgate", code_mode)]
    headers = ["", "requests", "definitions", "results", "input tokens in total"]
    print(console.table(headers, rows, frozenset({1, 2, 3, 4})))
    before, after = sum(classic.input_tokens()), sum(code_mode.input_tokens())
    name = "o200k tokens" if tokens.is_exact() else "estimated tokens"
    saved = console.styled(f"{1 - after / before:.0%} fewer input tokens", "green")
    print(
        f"\n{saved} ({name}), with three small servers. With ten times the tools,\n"
        "the first row's definitions grow tenfold; the second row's stay the same.\n"
        "A script that knows the databases played both rows, the first with one call per request; no model\n"
        f"was used. Done in {seconds:.0f} s.\n\n"
        "Next: mcpgate import (imports your agents' servers), mcpgate check, mcpgate install CLIENT."
    )
