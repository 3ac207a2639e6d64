"""Remote upstreams: real SDK servers over streamable HTTP and over the legacy SSE transport."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mcpgate.errors import McpgateError
from mcpgate.governance.callers import LOCAL
from mcpgate.governance.context import RequestContext
from mcpgate.governance.records import Entry
from tests.conftest import gateway, until
from tests.listeners import Listener

pytestmark = pytest.mark.anyio

SCRIPT = Path(__file__).resolve().parent.parent / "sdk_server.py"
KEY = {"Authorization": "Bearer let-me-in"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_up(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@asynccontextmanager
async def remote(*arguments: str, port: int | None = None) -> AsyncIterator[int]:
    port = port or free_port()
    process = subprocess.Popen([sys.executable, str(SCRIPT), arguments[0], str(port), *arguments[1:]])
    try:
        await until(lambda: is_up(port))
        yield port
    finally:
        process.kill()
        process.wait()


def entry(kind: str, port: int, **more: Any) -> dict[str, Any]:
    path = "sse" if kind == "sse" else "mcp"
    return {"url": f"http://127.0.0.1:{port}/{path}", "headers": KEY, **more}


@pytest.mark.parametrize("arguments", [("http",), ("http", "json"), ("sse",)], ids=" ".join)
async def test_calls_progress_and_large_results_work(arguments: tuple[str, ...]) -> None:
    listener = Listener()
    heard = listener.heard
    async with remote(*arguments) as port, gateway({"far": entry(arguments[0], port)}) as opened:
        (view,) = opened.pool.views()
        assert view.state == "ready", view.reason
        assert (await opened.metatools.execute_code(RequestContext(LOCAL), "far.add(a=40, b=2)")).text == "42"
        # The SDK's own limit of 1 MiB per event would fail this over an event stream.
        assert (await opened.metatools.execute_code(RequestContext(LOCAL), "len(far.big(mib=3))")).text == str(
            3 * 1024 * 1024
        )
        await opened.pool.get("far").call("steps", {"number": 3}, client=listener)
        if "json" not in arguments:
            assert [params["progress"] for params in heard] == [1, 2, 3]
        gathered = await opened.metatools.execute_code(
            RequestContext(LOCAL), "sum(await asyncio.gather(*[far.add(a=i, b=1) for i in range(30)]))"
        )
        assert gathered.text == str(sum(range(30)) + 30)


async def test_a_url_without_a_type_finds_a_server_that_has_only_sse() -> None:
    async with remote("sse") as port, gateway({"far": entry("sse", port)}) as opened:
        assert opened.pool.views()[0].state == "ready"
    async with remote("sse") as port, gateway({"far": entry("sse", port, type="http")}) as opened:
        assert opened.pool.views()[0].state != "ready"


async def test_an_address_that_has_no_server_is_told_with_the_answers_to_both_transports() -> None:
    async with (
        remote("http") as port,
        gateway({"far": {**entry("http", port), "url": f"http://127.0.0.1:{port}/nothing"}}) as opened,
    ):
        reason = opened.pool.views()[0].reason
        assert reason.startswith("HTTP 404 Not Found") and "; as an SSE server: HTTP 404" in reason


async def test_a_missing_key_is_named_with_its_http_status() -> None:
    async with remote("http") as port, gateway({"far": {**entry("http", port), "headers": {}}}) as opened:
        assert "401" in opened.pool.views()[0].reason


async def test_a_server_that_is_unavailable_is_named_and_used_once_it_is_back() -> None:
    port = free_port()
    async with gateway({"far": entry("http", port)}) as opened:
        assert "not connected" in (await opened.metatools.execute_code(RequestContext(LOCAL), "far.add(a=1, b=1)")).text
        async with remote("http", port=port), asyncio.timeout(30):
            while (await opened.metatools.execute_code(RequestContext(LOCAL), "far.add(a=1, b=1)")).text != "2":
                await asyncio.sleep(0.1)


async def test_a_restarted_server_that_forgot_the_session_is_reconnected() -> None:
    port = free_port()
    async with gateway({"far": entry("http", port)}, settle=False) as opened:
        for _ in range(2):
            async with remote("http", port=port), asyncio.timeout(40):
                while (await opened.metatools.execute_code(RequestContext(LOCAL), "far.add(a=1, b=1)")).text != "2":
                    await asyncio.sleep(0.1)


async def test_a_hanging_remote_call_times_out_and_others_go_on() -> None:
    async with remote("http") as port, gateway({"far": entry("http", port, timeout_s=1)}) as opened:
        text = (await opened.metatools.execute_code(RequestContext(LOCAL), "far.hang()")).text
        assert "no answer within 1 s" in text
        assert (await opened.metatools.execute_code(RequestContext(LOCAL), "far.add(a=1, b=1)")).text == "2"


async def test_resources_and_prompts_of_a_server_can_be_read() -> None:
    async with remote("http") as port, gateway({"far": entry("http", port)}) as opened:
        page = await opened.metatools.read_docs(RequestContext(LOCAL), "far")
        assert "Far away." in page and "note://one" in page and "greet()" in page
        assert await opened.metatools.read_docs(RequestContext(LOCAL), "far note://one") == "the text of the note"
        assert "Say hello." in await opened.metatools.read_docs(RequestContext(LOCAL), "far greet")


async def test_resources_are_recorded_like_calls() -> None:
    entries: list[Entry] = []
    async with remote("http") as port, gateway({"far": entry("http", port)}) as opened:
        opened.gate.listen(entries.append)
        await opened.metatools.read_docs(RequestContext(LOCAL), "far note://one")
        with pytest.raises(McpgateError):
            await opened.metatools.read_docs(RequestContext(LOCAL), "far note://none")
    read = [one for one in entries if one.kind == "resource"]
    assert [(one.tool, one.outcome) for one in read] == [
        ("resources/read", "ok"),
        ("resources/read", "tool_error"),
    ]
    assert all(one.timings["upstream"] > 0 for one in read)
