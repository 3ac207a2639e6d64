"""toolplane: its search answers and tool descriptions carry call shapes, "for straightforward tasks, write execute_code
directly from one search"; get_capability_schemas if a shape does not say enough. Installed as in
`benchmarks.code_mode`."""

import ast
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.code_mode.contestants import TOOLPLANE
from benchmarks.servers import mcp_servers
from benchmarks.token_savings.rivals.base import Idiom
from benchmarks.token_savings.rivals.gateway import Gateway
from benchmarks.token_savings.rivals.spelling import respell
from benchmarks.token_savings.stage import Stage


def _launch(stage: Stage, servers: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    config = folder / "toolplane.toml"
    config.write_text("".join(_toml(name, entry) for name, entry in servers.items()))
    program = mcp_servers([TOOLPLANE])[TOOLPLANE.name]["command"]
    return {"command": program, "args": ["serve", "mcp", "--config", str(config)], "cwd": str(folder)}


def _toml(name: str, entry: Mapping[str, Any]) -> str:
    """One upstream. A JSON string is also a TOML string."""
    if "url" in entry:
        lines = [f"url = {json.dumps(entry['url'])}", 'transport = "http"']
    else:
        env = ", ".join(f"{key} = {json.dumps(value)}" for key, value in (entry.get("env") or {}).items())
        lines = [f"command = {json.dumps(entry['command'])}", f"args = {json.dumps(entry['args'])}", f"env = {{{env}}}"]
    return "\n".join((f"[mcp.servers.{name}]", *lines, "", ""))


def _binding(server: str, tool: str) -> str:
    return re.sub(r"\W+", "_", f"{server}_{tool}").lower()


def _call(server: str, tool: str, arguments: list[ast.keyword]) -> ast.expr:
    return ast.Call(ast.Name(_binding(server, tool), ast.Load()), [], arguments)


def _program(code: str, stage: Stage) -> str:
    # toolplane itself unwraps {"result": …}.
    kinds = {tool: kind for tool, kind in stage.kinds.items() if kind != "wrapped"}
    return respell(code, stage.spellings, kinds, _call)


IDIOM = Idiom(
    search="search_capabilities",
    describe="get_capability_schemas",
    describe_argument="names",
    execute="execute_code",
    shown=lambda stage, server, tool: _binding(server, tool),
    described=lambda stage, server, tool: f"mcp:{server}/{tool}",
    search_shows_shapes=True,
    program=_program,
)

RIVAL = Gateway("toolplane", "toolplane 0.5.2", IDIOM, _launch, sample=60)
