"""What Code Mode saved, as people and monitors read it."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from mcpgate import jsontext
from mcpgate.governance.callers import LOCAL
from mcpgate.governance.context import RequestContext
from tests.conftest import gateway, raw
from tests.flows.clients import connected, http_gateway, settled

pytestmark = pytest.mark.anyio


def _usage(*arguments: str) -> str:
    command = [sys.executable, "-m", "mcpgate", "usage", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_usage_shows_what_was_done_and_saved_after_the_gateway_has_ended(
    config_file: Callable[..., Path], tmp_path: Path
) -> None:
    config = str(config_file({"raw": raw()}))
    async with connected("stdio", "legacy", Path(config), tmp_path) as client:
        await settled(client)
        for name, arguments in (
            ("list_tools", {"query": "add two numbers"}),
            ("execute_code", {"code": "len(raw.big(mib=1))"}),
            ("execute_code", {"code": "1 / 0"}),
        ):
            await client.call_tool(name, arguments)
    (row,) = json.loads(_usage("-c", config, "--format", "json"))
    assert row["requests"] >= 4 and (row["executions"], row["failed"], row["tool_calls"]) == (2, 1, 1)
    assert row["result_tokens_saved"] == pytest.approx(2**20 / 4, rel=0.01)
    assert row["definition_tokens_saved"] > 0
    (day,) = csv.DictReader(io.StringIO(_usage("-c", config, "--format", "csv", "--by", "day")))
    assert day["executions"] == "2"
    assert "minus what the code returned" in " ".join(_usage("-c", config).split())
    assert json.loads(_usage("-c", config, "--format", "json", "--since", "2999-01-01"))[0]["requests"] == 0


def test_usage_rejects_an_invalid_date(config_file: Callable[..., Path]) -> None:
    command = [sys.executable, "-m", "mcpgate", "usage", "--since", "yesterday", "-c", str(config_file({"raw": raw()}))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "expected a date like 2026-11-01, a time like" in done.stderr


async def test_definitions_saved_are_those_of_the_upstreams_less_our_own() -> None:
    async with gateway({"raw": raw("--tools", "100")}) as opened:
        answer = await opened.metatools.list_tools(RequestContext(LOCAL))
        assert "raw (" in answer
        theirs = sum(len(jsontext.dumps(tool.raw)) for tool in opened.catalog.tools)
        ours = len(jsontext.dumps(opened.tool_list(LOCAL)))
        shown = opened.metrics.shown().decode()
        assert f'mcpgate_saved_tokens{{of="definition"}} {float((theirs - ours) // 4)}' in shown
        assert "mcpgate_meta_tool_calls_total 1.0" in shown


async def test_metrics_are_served_over_http(config_file: Callable[..., Path], tmp_path: Path) -> None:
    async with (
        http_gateway(config_file({"raw": raw()}), tmp_path / "stderr") as address,
        httpx2.AsyncClient() as http,
    ):
        answer = await http.get(f"{address}/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert "mcpgate_executions_total 0.0" in answer.text
        assert (await http.post(f"{address}/metrics")).status_code == 405
