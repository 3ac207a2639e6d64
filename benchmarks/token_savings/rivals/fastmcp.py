"""FastMCP's Code Mode: search, then get_schema, then execute, as its documentation prescribes. Installed as in
`benchmarks.code_mode`, upstreams connected once and shared."""

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.code_mode.contestants import FASTMCP
from benchmarks.servers import mcp_servers
from benchmarks.token_savings.rivals.base import Idiom
from benchmarks.token_savings.rivals.gateway import Gateway
from benchmarks.token_savings.rivals.spelling import respell
from benchmarks.token_savings.stage import Stage

_SERVER = Path(__file__).parents[2] / "code_mode" / "fastmcp_server.py"


def _launch(stage: Stage, servers: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    config = folder / "fastmcp.json"
    config.write_text(json.dumps({"mcpServers": servers}))
    python = mcp_servers([FASTMCP])[FASTMCP.name]["command"]
    return {"command": python, "args": [str(_SERVER), str(config)], "cwd": str(folder)}


def _name(stage: Stage, server: str, tool: str) -> str:
    return f"{server}_{tool}"


def _call(server: str, tool: str, arguments: list[ast.keyword]) -> ast.expr:
    values = ast.Dict(
        [ast.Constant(argument.arg) for argument in arguments], [argument.value for argument in arguments]
    )
    return ast.Call(ast.Name("call_tool", ast.Load()), [ast.Constant(f"{server}_{tool}"), values], [])


def _program(code: str, stage: Stage) -> str:
    return respell(code, stage.spellings, stage.kinds, _call)


IDIOM = Idiom(
    search="search",
    describe="get_schema",
    describe_argument="tools",
    execute="execute",
    shown=_name,
    described=_name,
    search_shows_shapes=False,
    program=_program,
)

RIVAL = Gateway("fastmcp", "FastMCP 4.1.2 Code Mode", IDIOM, _launch, sample=12)
