"""The seventeen pitfalls found with the SDK, each tested with a real server process.

1 quadratic reads                here              10 environment of children      here
2 1 MiB an SSE event             test_remote.py    11 noise on stdout              here
3 one bad tool kills the list    here              12 tools after `initialized`    here
4 a hidden tools/list            here              13 a cache of responses         here
5 a hidden list handler          here              14 progress lost over HTTP      flows/test_faces.py
6 ten seconds of probing         here              15 hanging up cancels           flows/test_faces.py
7 scopes left by another task    here              16 duplicate names              here
8 a child that dies              here              17 changes told in both eras    flows/test_faces.py
9 a child that hangs             here
"""

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mcpgate.api.server import Server
from mcpgate.errors import UpstreamError, UpstreamTimeout
from mcpgate.governance.callers import LOCAL
from mcpgate.governance.context import RequestContext
from tests.conftest import gateway, raw, until

pytestmark = pytest.mark.anyio


async def test_1_a_50_mb_result_never_blocks_the_loop() -> None:
    async with gateway({"raw": raw()}) as opened:
        longest, running = 0.0, True

        async def heartbeat() -> None:
            nonlocal longest
            while running:
                before = time.perf_counter()
                await asyncio.sleep(0)
                longest = max(longest, time.perf_counter() - before)

        beat = asyncio.create_task(heartbeat())
        result = await opened.pool.get("raw").call("big", {"mib": 50})
        running = False
        await beat
        assert len(result["content"][0]["text"]) == 50 * 1024 * 1024
        # 48 MB block the SDK's reader for 17 s; the bound here only has to distinguish linear from quadratic.
        assert longest < 2.0


async def test_3_a_bad_schema_in_one_tool_never_hides_the_others() -> None:
    async with gateway({"raw": raw("--bad-schemas")}) as opened:
        names = {tool.name for tool in opened.catalog.tools}
        assert {"echo", "empty_schema", "no_schema", "null_schema", "list_schema", "bad_type", "bad_ref"} <= names
        stubs = await opened.metatools.describe_tools(
            RequestContext(LOCAL), ["raw.bad_type", "raw.bad_ref", "raw.list_schema"]
        )
        assert "schema has faults" in stubs
        answer = await opened.metatools.execute_code(RequestContext(LOCAL), 'raw.bad_type(x="anything")')
        assert "bad_type called with" in answer.text and not answer.is_error


async def test_4_a_catalog_is_paged_to_its_end_and_listed_once(tmp_path: Path) -> None:
    log = tmp_path / "methods"
    async with gateway({"raw": raw("--tools", "200", "--page", "7", "--log", str(log))}) as opened:
        assert "tool_199" in {tool.name for tool in opened.catalog.tools}
        pages = log.read_text().split().count("tools/list")
        for _ in range(5):
            await opened.pool.get("raw").call("tool_199", {"value": "x"})
        assert log.read_text().split().count("tools/list") == pages


async def test_6_a_mute_legacy_server_costs_no_ten_seconds() -> None:
    async with gateway({"raw": raw("--mute")}) as opened:
        (view,) = opened.pool.views()
        assert view.state == "ready" and view.connect_s is not None and view.connect_s < 5


async def test_6_a_modern_only_server_is_spoken_to_in_its_era() -> None:
    async with gateway({"raw": raw("--modern-only")}) as opened:
        (view,) = opened.pool.views()
        assert view.facts is not None and view.facts.protocol == "2026-07-28"
        assert (await opened.metatools.execute_code(RequestContext(LOCAL), "raw.add(a=1, b=2)")).text == '{"sum":3}'
        await opened.pool.get("raw").call("grow", {})
        await until(lambda: "tool_0" in {tool.name for tool in opened.catalog.tools})


async def test_7_connections_are_closed_in_any_order_by_their_own_tasks() -> None:
    async with gateway({name: raw() for name in "abcd"}) as opened:
        configs = dict(opened.config.mcpServers)
        for name in ("b", "d", "a"):
            del configs[name]
            await asyncio.create_task(opened.pool.apply(configs))
        assert [view.name for view in opened.pool.views()] == ["c"]
        assert (
            await opened.metatools.execute_code(RequestContext(LOCAL), 'c.echo(text="still here")')
        ).text == "still here"


async def test_8_a_child_that_dies_in_a_call_fails_that_call_and_the_next_finds_a_fresh_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pids = tmp_path / "pids"
    async with gateway({"raw": raw("--pid-file", str(pids))}) as opened:
        with pytest.raises(UpstreamError, match=r"exited with code 3") as failed:
            await opened.pool.get("raw").call("die", {})
        # What a process writes to stderr may be anything: it is for whoever runs the gateway.
        assert "I am dying" not in failed.value.message
        result = await opened.pool.get("raw").call("echo", {"text": "again"})
        assert result["content"][0]["text"] == "again"
        assert len(set(pids.read_text().split())) == 2
        assert re.search(r"exited with code 3.*I am dying", caplog.text)


async def test_8_a_command_that_exits_at_start_is_named_with_its_reason() -> None:
    async with gateway(
        {"bad": raw("--exit", "7"), "missing": {"command": "no-such-program-here"}, "good": raw()}
    ) as opened:
        reasons = {view.name: view.reason for view in opened.pool.views()}
        details = {view.name: view.detail for view in opened.pool.views()}
        assert "exited with code 7" in reasons["bad"] and "cannot start: no license" in details["bad"]
        assert "no license" not in reasons["bad"]
        assert "was not found" in reasons["missing"]
        listing = await opened.metatools.list_tools(RequestContext(LOCAL))
        assert "bad (0 tools): unavailable" in listing and "good (21 tools)" in listing


async def test_9_an_upstream_that_never_answers_times_out_and_is_notified(tmp_path: Path) -> None:
    async with gateway({"raw": raw(timeout_s=0.5)}) as opened:
        with pytest.raises(UpstreamTimeout, match=r"no answer within 0.5 s"):
            await opened.pool.get("raw").call("hang", {})
        async with asyncio.timeout(10):
            while (await opened.pool.get("raw").call("was-cancelled", {}))["content"][0]["text"] != "1":
                await asyncio.sleep(0.01)


async def test_9_stubborn_children_are_closed_in_parallel() -> None:
    began = time.monotonic()
    async with gateway({f"s{i}": raw("--stubborn") for i in range(4)}) as opened:
        ready = time.monotonic() - began
        assert all(view.state == "ready" for view in opened.pool.views())
    # One takes two grace periods of 2 s; one after the other would take 16 s.
    assert time.monotonic() - began - ready < 9


async def test_10_children_get_a_minimal_environment_and_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_SECRET", "mg-do-not-tell")
    async with gateway({"raw": raw(env={"OWN": "yes"})}) as opened:
        result = await opened.pool.get("raw").call("env", {})
        seen = json.loads(result["content"][0]["text"])
        assert seen["OWN"] == "yes" and "PATH" in seen
        assert "GATEWAY_SECRET" not in seen and "XDG_DATA_HOME" not in seen


async def test_11_noise_on_stdout_is_skipped() -> None:
    async with gateway({"raw": raw("--noise")}) as opened:
        assert (await opened.metatools.execute_code(RequestContext(LOCAL), "raw.add(a=2, b=2)")).text == '{"sum":4}'


async def test_12_tools_registered_after_initialized_are_found() -> None:
    async with gateway({"raw": raw("--late-tools", "5")}) as opened:
        await until(lambda: "tool_4" in {tool.name for tool in opened.catalog.tools})


async def test_12_a_server_that_changes_its_tools_without_end_is_listed_about_once_a_second(tmp_path: Path) -> None:
    log = tmp_path / "methods"
    async with gateway({"raw": raw("--restless", "--log", str(log))}) as opened:
        began = time.monotonic()
        for _ in range(200):
            await opened.pool.get("raw").call("echo", {"text": "x"})
        lists = log.read_text().split().count("tools/list")
        assert lists <= 3 + (time.monotonic() - began) * 1.5


async def test_3_unknown_fields_and_content_types_reach_code_and_nothing_is_lost() -> None:
    async with gateway({"raw": raw()}) as opened:
        result = await opened.pool.get("raw").call("strange", {})
        assert result["vendorField"] == {"kept": True} and result["content"][0] == {"type": "hologram", "beam": [1]}
        answer = await opened.metatools.execute_code(RequestContext(LOCAL), "raw.strange()[0]['beam']")
        assert answer.text == "[1]"


async def test_5_a_call_over_http_does_not_list_the_tools_first() -> None:
    async with gateway({"raw": raw(expose="both")}) as opened:
        lists = 0
        list_tools = opened.tool_list

        def counted() -> Any:
            nonlocal lists
            lists += 1
            return list_tools()

        opened.tool_list = counted  # type: ignore[method-assign]
        transport = httpx2.ASGITransport(app=Server(opened))
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            meta = {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
            }
            for _ in range(5):
                params = {"name": "raw__add", "arguments": {"a": 1, "b": 2}, "_meta": meta}
                body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
                headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "raw__add"}
                answer = await http.post("/mcp", json=body, headers=headers)
                assert answer.json()["result"]["structuredContent"] == {"sum": 3}
        assert lists == 0


async def test_13_no_answer_is_ever_taken_from_a_cache() -> None:
    async with gateway({"raw": raw()}) as opened:
        counts = [(await opened.metatools.execute_code(RequestContext(LOCAL), "raw.count()")).text for _ in range(3)]
        assert counts == ["1", "2", "3"]


async def test_16_tools_of_the_same_name_on_several_servers_stay_separate() -> None:
    async with gateway({"one": raw(), "two": raw()}) as opened:
        code = "one.echo(text='a'); one.echo(text='b'); two.echo(text='c')\n[one.count(), two.count()]"
        assert (await opened.metatools.execute_code(RequestContext(LOCAL), code)).text == '["3","2"]'
