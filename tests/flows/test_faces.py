"""The gateway as agents see it: the SDK's own client, in both protocol eras, over every transport."""

import asyncio
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import MCPError
from mcp.client import Client

from mcpgate.cli.serve_command import _listen
from mcpgate.tokens import count
from tests.conftest import raw, serve_command, sigint_ignored, until
from tests.flows.clients import connected, http_gateway, settled, text_of
from tests.flows.governed import code_of, free_port
from tests.picture import PICTURE

pytestmark = pytest.mark.anyio

WAYS = [("stdio", "legacy"), ("stdio", "2026-07-28"), ("http", "legacy"), ("http", "2026-07-28"), ("sse", "legacy")]
each_way = pytest.mark.parametrize(("transport", "mode"), WAYS, ids=[f"{t}-{m}" for t, m in WAYS])


@each_way
async def test_the_four_meta_tools_work(
    transport: str, mode: str, config_file: Callable[..., Path], tmp_path: Path
) -> None:
    async with connected(transport, mode, config_file({"raw": raw(), "other": raw()}), tmp_path) as client:
        listed = await client.list_tools()
        assert [tool.name for tool in listed.tools] == ["list_tools", "describe_tools", "read_docs", "execute_code"]
        servers = await settled(client)
        assert "raw (21 tools): Raw test server" in servers
        found = text_of(await client.call_tool("list_tools", {"query": "add numbers"}))
        assert "raw.add(a: int, b: int) -> {sum: int} — Add two numbers." in found
        stub = text_of(await client.call_tool("describe_tools", {"names": ["raw.add", "raw.was-cancelled"]}))
        assert "class AddResult(TypedDict):" in stub and "def was_cancelled() -> Any:" in stub
        assert "Use with care." in text_of(await client.call_tool("read_docs", {"topic": "raw"}))
        code = "a, b = await asyncio.gather(raw.add(a=1, b=2), other.add(a=3, b=4))\nprint(a)\nb['sum']"
        assert text_of(await client.call_tool("execute_code", {"code": code})) == "{'sum': 3}\n7"


@each_way
async def test_direct_tools_are_passed_through_faithfully(
    transport: str, mode: str, config_file: Callable[..., Path], tmp_path: Path
) -> None:
    servers = {"raw": raw("--bad-schemas", expose="direct"), "both": raw(expose="both"), "none": raw(expose="hidden")}
    heard: list[tuple[float, float | None, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    async with connected(transport, mode, config_file(servers), tmp_path) as client:
        async with asyncio.timeout(20):
            while "both__add" not in (tools := {t.name: t for t in (await client.list_tools()).tools}):
                await asyncio.sleep(0.05)
            while "raw__add" not in tools:
                tools = {t.name: t for t in (await client.list_tools()).tools}
        assert not any(name.startswith("none__") for name in tools)
        assert tools["raw__add"].output_schema == {
            "type": "object",
            "properties": {"sum": {"type": "integer"}},
            "required": ["sum"],
        }
        assert "raw__bad_ref" in tools and "raw__empty_schema" in tools
        result = await client.call_tool("raw__add", {"a": 1, "b": 2})
        assert result.structured_content == {"sum": 3} and text_of(result) == "3" and not result.is_error
        failed = await client.call_tool("raw__fail", {"message": "sorry"})
        assert failed.is_error and text_of(failed) == "sorry"
        picture = await client.call_tool("raw__picture", {})
        assert picture.content[0].type == "image" and picture.content[0].data == PICTURE
        steps = await client.call_tool("raw__steps", {"number": 3}, progress_callback=on_progress)
        assert text_of(steps) == "3 steps, token given"
        await until(lambda: len(heard) == 3)
        assert heard == [(1, 3, "step 1"), (2, 3, "step 2"), (3, 3, "step 3")]
        with pytest.raises(MCPError, match="I refuse") as refused:
            await client.call_tool("raw__refuse", {})
        assert refused.value.error.code == -32050 and refused.value.error.data == {"why": "because"}
        code = "[name for name in ('raw', 'both', 'none') if name in globals() and dir(globals()[name])]"
        assert text_of(await client.call_tool("execute_code", {"code": code})) == '["both"]'


@each_way
async def test_a_cancelled_call_is_cancelled_upstream(
    transport: str, mode: str, config_file: Callable[..., Path], tmp_path: Path
) -> None:
    async with connected(transport, mode, config_file({"raw": raw(expose="both")}), tmp_path) as client:
        async with asyncio.timeout(20):
            while "raw__hang" not in {t.name for t in (await client.list_tools()).tools}:
                await asyncio.sleep(0.05)
        with pytest.raises(MCPError):
            await client.call_tool("raw__hang", {}, read_timeout_seconds=0.5)
        with pytest.raises(MCPError):
            await client.call_tool("execute_code", {"code": "raw.hang()"}, read_timeout_seconds=2)
        async with asyncio.timeout(15):
            while text_of(await client.call_tool("raw__was-cancelled", {})) != "2":
                await asyncio.sleep(0.05)


@each_way
async def test_17_a_changed_tool_list_is_announced_in_both_eras(
    transport: str, mode: str, config_file: Callable[..., Path], tmp_path: Path
) -> None:
    config = config_file({"raw": raw(expose="both")})
    changed = asyncio.Event()

    async def on_message(message: Any) -> None:
        if type(message).__name__ == "ToolListChangedNotification":
            changed.set()

    async with connected(transport, mode, config, tmp_path, message_handler=on_message) as client:
        async with asyncio.timeout(20):
            while "raw__grow" not in {t.name for t in (await client.list_tools()).tools}:
                await asyncio.sleep(0.05)
        changed.clear()
        if mode == "legacy":
            await client.call_tool("raw__grow", {})
            async with asyncio.timeout(10):
                await changed.wait()
        else:
            async with client.listen(tools_list_changed=True) as events:
                await client.call_tool("raw__grow", {})
                async with asyncio.timeout(10):
                    async for event in events:
                        assert type(event).__name__ == "ToolsListChanged"
                        break
        names = {t.name for t in (await client.list_tools()).tools}
        assert "raw__tool_0" in names


async def test_the_definitions_cost_at_most_500_tokens_and_stay_the_same_bytes(
    config_file: Callable[..., Path], tmp_path: Path
) -> None:
    servers = {f"server{i}": raw("--tools", "30") for i in range(4)}
    async with connected("stdio", "legacy", config_file(servers), tmp_path) as client:
        await client.call_tool("execute_code", {"code": "\n".join(f"server{i}.count()" for i in range(4))})
        seen = set()
        for _ in range(3):
            tools = (await client.list_tools()).tools
            seen.add(json.dumps([t.model_dump(by_alias=True, exclude_none=True) for t in tools]))
            await client.call_tool("execute_code", {"code": "server1.rows(number=3)"})
        assert len(seen) == 1
        kept = [{k: t.model_dump(by_alias=True)[k] for k in ("name", "description", "inputSchema")} for t in tools]
        assert count(json.dumps(kept, separators=(",", ":"))) <= 500


async def test_a_restarted_gateway_shows_the_same_bytes_before_any_server_is_connected(
    config_file: Callable[..., Path], tmp_path: Path
) -> None:
    config = config_file({"raw": raw(expose="both")})
    async with connected("stdio", "legacy", config, tmp_path) as client:
        async with asyncio.timeout(20):
            while "raw__add" not in {t.name for t in (await client.list_tools()).tools}:
                await asyncio.sleep(0.05)
        tools = (await client.list_tools()).tools
        first = [tool.model_dump() for tool in tools]
    gate = tmp_path / "never"
    held = raw(expose="both")
    config_file({"raw": {**held, "env": {"HELD": str(gate)}}})
    async with connected("stdio", "legacy", config, tmp_path) as client:
        assert [tool.model_dump() for tool in (await client.list_tools()).tools] == first


async def test_wrong_arguments_of_meta_tools_are_explained_to_the_model(
    config_file: Callable[..., Path], tmp_path: Path
) -> None:
    async with connected("stdio", "legacy", config_file({"raw": raw()}), tmp_path) as client:
        for name, arguments, said in (
            ("execute_code", {}, "execute_code needs 'code'"),
            ("execute_code", {"source": "1"}, "no argument 'source'"),
            ("list_tools", {"quary": "x"}, "did you mean 'query'?"),
            ("list_tools", {"limit": "many"}, "limit must be a number"),
            ("list_tools", {"server": "rwa"}, "did you mean raw"),
            ("describe_tools", {"names": ["raw.ad"]}, "did you mean raw.add"),
            ("describe_tools", {"names": []}, "names is empty"),
            ("read_docs", {"topic": "nothing"}, "topics are"),
        ):
            result = await client.call_tool(name, arguments)
            assert result.is_error and said in text_of(result), (name, text_of(result))
        assert "def add(" in text_of(await client.call_tool("describe_tools", {"names": "raw.add"}))
        with pytest.raises(MCPError, match="Unknown tool"):
            await client.call_tool("execute_cod", {})


async def test_two_clients_have_their_own_answers(config_file: Callable[..., Path], tmp_path: Path) -> None:
    async with http_gateway(config_file({"raw": raw()}), tmp_path / "stderr") as address:
        async with Client(f"{address}/mcp", mode="legacy") as one, Client(f"{address}/mcp", mode="2026-07-28") as two:
            calls = [
                client.call_tool("execute_code", {"code": f"raw.meet(number=12)\n{number}"})
                for number, client in enumerate([one, two] * 6)
            ]
            assert [text_of(r) for r in await asyncio.gather(*calls)] == [str(n) for n in range(12)]


async def test_http_refuses_foreign_hosts_origins_and_bodies(config_file: Callable[..., Path], tmp_path: Path) -> None:
    config = config_file({}, server={"max_body_mib": 1, "allowed_origins": ["https://good.example"]})
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    async with http_gateway(config, tmp_path / "stderr") as address, httpx2.AsyncClient() as http:

        async def post(body: Any = ping, **headers: str) -> httpx2.Response:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            return await http.post(f"{address}/mcp", content=content, headers=headers)

        assert (await post()).json() == {"jsonrpc": "2.0", "id": 1, "result": {}}
        assert (await post(host="evil.example")).status_code == 421
        assert (await post(origin="https://evil.example")).status_code == 403
        allowed = await post(origin="https://good.example")
        assert allowed.headers["access-control-allow-origin"] == "https://good.example"
        assert (await post(origin="http://localhost:5173")).status_code == 200
        too_large = await post(b'{"x":"' + b"x" * 2_000_000 + b'"}')
        assert too_large.status_code == 413 and code_of(too_large) == "too_large"
        assert (await post(b"{not json")).json()["error"]["code"] == -32700
        assert (await post(**{"mcp-session-id": "gone"})).status_code == 404
        assert (await http.get(f"{address}/nothing")).status_code == 404
        assert (await http.get(f"{address}/healthz")).json() == {"status": "ok"}
        assert (await http.put(f"{address}/mcp")).status_code == 405


async def test_modern_headers_that_contradict_the_body_are_refused(
    config_file: Callable[..., Path], tmp_path: Path
) -> None:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}
    good = {
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/list",
        "accept": "application/json, text/event-stream",
    }
    async with http_gateway(config_file({}), tmp_path / "stderr") as address, httpx2.AsyncClient() as http:
        answer = await http.post(f"{address}/mcp", json=body, headers=good)
        assert answer.status_code == 200 and answer.json()["result"]["resultType"] == "complete"
        wrong = await http.post(f"{address}/mcp", json=body, headers={**good, "mcp-method": "tools/call"})
        assert wrong.status_code == 400 and wrong.json()["error"]["code"] == -32020
        other = {**body, "params": {"_meta": {**meta, "io.modelcontextprotocol/protocolVersion": "2099-01-01"}}}
        unknown = await http.post(f"{address}/mcp", json=other, headers={**good, "mcp-protocol-version": "2099-01-01"})
        assert unknown.status_code == 400 and unknown.json()["error"]["data"]["supported"] == ["2026-07-28"]
        missing = await http.post(
            f"{address}/mcp", json={**body, "method": "nope"}, headers={**good, "mcp-method": "nope"}
        )
        assert missing.status_code == 404 and missing.json()["error"]["code"] == -32601


def test_an_address_that_others_reach_is_refused_with_the_remedy(config_file: Callable[..., Path]) -> None:
    config = config_file({})
    done = subprocess.run(serve_command(config, "--host", "0.0.0.0"), capture_output=True, text=True, timeout=30)
    assert done.returncode == 2 and "server.trust_network" in done.stderr


async def test_malformed_messages_on_stdio_get_errors_and_the_gateway_goes_on(config_file: Callable[..., Path]) -> None:
    config = config_file({"raw": raw()}, server={"max_body_mib": 1})
    process = await asyncio.create_subprocess_exec(
        *serve_command(config, "--stdio"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdin is not None and process.stdout is not None

    async def exchange(line: bytes) -> Any:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(line + b"\n")
        async with asyncio.timeout(20):
            return json.loads(await process.stdout.readline())

    assert (await exchange(b"{nonsense"))["error"]["code"] == -32700
    assert (await exchange(b'"text"'))["error"]["code"] == -32600
    assert (await exchange(b'{"jsonrpc":"2.0","id":{},"method":"ping"}'))["error"]["code"] == -32600
    assert (await exchange(b'{"jsonrpc":"2.0","id":1}'))["error"]["code"] == -32600
    assert (await exchange(b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}'))["error"]["code"] == -32602
    assert (await exchange(b"[" * 5000 + b"]" * 5000))["error"]["code"] in (-32700, -32600)
    assert (await exchange(b'{"jsonrpc":"2.0","id":"\xff","method":"ping"}'))["error"]["code"] == -32700
    assert "max_body_mib" in (await exchange(b'{"x":"' + b"x" * 2_000_000 + b'"}'))["error"]["message"]
    assert (await exchange(b'{"jsonrpc":"2.0","id":"a","method":"ping"}')) == {
        "jsonrpc": "2.0",
        "id": "a",
        "result": {},
    }
    answered = await exchange(
        b'{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"execute_code","arguments":{"code":"1+1"}}}'
    )
    assert answered["result"]["content"] == [{"type": "text", "text": "2"}]
    process.stdin.close()
    async with asyncio.timeout(15):
        assert await process.wait() == 0


def test_answers_are_written_out_although_stdin_was_closed_meanwhile(config_file: Callable[..., Path]) -> None:
    config = config_file({"raw": raw()})
    lines = [
        {"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call",
         "params": {"name": "execute_code", "arguments": {"code": "raw.add(a=20, b=22)"}}},
    ]  # fmt: skip
    text = "".join(json.dumps(line) + "\n" for line in lines)
    done = subprocess.run(serve_command(config, "--stdio"), input=text, capture_output=True, text=True, timeout=60)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["id"] for answer in answers] == [1, 2]
    assert answers[1]["result"]["content"][0]["text"] == '{"sum":42}'


async def test_nonsense_in_headers_and_versions_is_refused_and_never_a_crash(
    config_file: Callable[..., Path], tmp_path: Path
) -> None:
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    async with http_gateway(config_file({}), tmp_path / "stderr") as address, httpx2.AsyncClient() as http:
        for headers in ({"host": "["}, {"origin": "http://["}):
            assert (await http.post(f"{address}/mcp", json=ping, headers=headers)).status_code in (403, 421)
        unknown = await http.post(f"{address}/mcp", json=ping, headers={"mcp-protocol-version": "1999-01-01"})
        assert unknown.status_code == 400 and "2025-11-25" in unknown.json()["error"]["data"]["supported"]
        assert (await http.post(f"{address}/mcp", json=[])).status_code == 400
        batch = await http.post(f"{address}/mcp", json=[ping, {"nonsense": True}, {**ping, "id": 2}])
        assert sorted(str(answer["id"]) for answer in batch.json()) == ["1", "2", "None"]


@pytest.mark.parametrize("end", ["SIGTERM", "SIGINT"])
async def test_a_stopped_server_answers_what_is_under_way_and_closes_everything(
    end: str, config_file: Callable[..., Path], tmp_path: Path, own_folders: Path
) -> None:
    log, methods = tmp_path / "stderr", tmp_path / "methods"
    with log.open("w") as stderr, sigint_ignored():
        command = serve_command(config_file({"raw": raw("--log", str(methods))}), "--port", "0")
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
    answer = await _answer_of_a_call_under_way(log, methods, lambda: process.send_signal(getattr(signal, end)))
    assert answer == "done"
    assert await asyncio.to_thread(process.wait, 20) == 0
    assert [path.name for path in (own_folders / "mcpgate").iterdir()] == ["mcpgate.sqlite3"], "the store was closed"


async def test_ctrl_c_at_a_terminal_lets_every_worker_answer_what_is_under_way(
    config_file: Callable[..., Path], tmp_path: Path
) -> None:
    """A terminal sends the signal to the workers as well as to their supervisor."""
    log, methods = tmp_path / "stderr", tmp_path / "methods"
    config = config_file({"raw": raw("--log", str(methods))})
    with log.open("w") as stderr:
        command = serve_command(config, "--port", str(free_port()), "--workers", "2")
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True)
    await until(lambda: log.read_text().count("listening on") == 2)
    answer = await _answer_of_a_call_under_way(log, methods, lambda: os.killpg(process.pid, signal.SIGINT))
    assert answer == "done"
    assert await asyncio.to_thread(process.wait, 20) == 0


async def _answer_of_a_call_under_way(log: Path, methods: Path, stop: Callable[[], None]) -> str:
    """The answer to a call whose gateway is stopped before it has answered."""
    code = "import time\nraw.count()\ntime.sleep(1.5)\n'done'"
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "execute_code", "arguments": {"code": code}},
    }
    await until(lambda: "listening on" in log.read_text())
    address = log.read_text().split("listening on ")[1].split("/mcp")[0]
    async with httpx2.AsyncClient(timeout=30) as http:
        asked = asyncio.create_task(http.post(f"{address}/mcp", json=call))
        await until(lambda: methods.exists() and "tools/call" in methods.read_text())
        stop()
        answer = await asked
    assert answer.status_code == 200, answer.text
    return str(answer.json()["result"]["content"][0]["text"])


def test_answers_on_an_open_connection_are_not_held_back() -> None:
    """asyncio turns off Nagle's algorithm only if a socket reports that it is TCP; otherwise each answer takes 40 ms
    longer."""
    with _listen("127.0.0.1", 0, False) as listener:
        assert listener.proto == socket.IPPROTO_TCP
