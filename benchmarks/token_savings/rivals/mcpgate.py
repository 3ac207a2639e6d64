"""mcpgate itself, from this checkout, over stdio."""

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.discovery.answers import spelt_out
from benchmarks.token_savings.rivals.base import Idiom
from benchmarks.token_savings.rivals.gateway import Gateway
from benchmarks.token_savings.stage import Stage

_SMALL_SERVER = 30
"""Tools: if a server has no more than this, a model lists them all; otherwise it searches for its task."""
_INDEX = re.compile(r" (?:Servers|Servers \(tools\)|Tools by server): (.+)$", re.MULTILINE)
_CHECKOUT = Path(__file__).resolve().parents[3]


def _launch(stage: Stage, servers: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    config = folder / "mcpgate.yaml"
    settings = {
        "mcpServers": servers,
        "storage": {"url": f"sqlite:///{folder / 'mcpgate.sqlite3'}"},
        "sandbox": {"engine": stage.engine},
        "telemetry": {"log_level": "warning"},
    }
    config.write_text(json.dumps(settings, indent=2))  # JSON is YAML.
    path = f"{_CHECKOUT}{os.pathsep}{_CHECKOUT / 'sandbox'}"  # This checkout, not what is installed.
    args = ["-m", "mcpgate", "serve", "--stdio", "-c", str(config)]
    return {"command": sys.executable, "args": args, "env": {**os.environ, "PYTHONPATH": path}, "cwd": str(folder)}


def _browse(stage: Stage, server: str, question: str, shown: str) -> dict[str, Any]:
    ident = _ident(stage, server)
    counted = re.search(rf"(?<![\w.]){ident} \((\d+)", shown)
    small = counted is not None and int(counted[1]) <= _SMALL_SERVER
    return {"server": ident} if small else {"server": ident, "query": question}


def _server_shown(stage: Stage, server: str, shown: str) -> bool:
    """In the index, or before a tool. A word in prose does not name a server, even if one is called `time`."""
    ident = _ident(stage, server)
    index = _INDEX.search(shown)
    listed = re.split(r", |; | … ", index[1]) if index else []
    return any(re.split(r" \(|:", item)[0] == ident for item in listed) or f"\n{ident}." in shown


def _ident(stage: Stage, server: str) -> str:
    return stage.identifiers[server, stage.tools[server][0]["name"]].partition(".")[0]


IDIOM = Idiom(
    search="list_tools",
    describe="describe_tools",
    describe_argument="names",
    execute="execute_code",
    shown=lambda stage, server, tool: stage.identifiers[server, tool],
    described=lambda stage, server, tool: stage.identifiers[server, tool],
    search_shows_shapes=True,
    program=lambda code, stage: code,
    browse=_browse,
    server_shown=_server_shown,
    spelt_out=spelt_out,
)

RIVAL = Gateway("mcpgate", "mcpgate", IDIOM, _launch, probe=("list_tools", {}), always_runs=True)
