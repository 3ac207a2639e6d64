"""Many upstreams at once: isolation, waiting, limits, reconnecting, and leaving nothing behind."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from mcpgate.errors import UpstreamError
from mcpgate.governance.callers import LOCAL
from mcpgate.governance.context import RequestContext
from mcpgate.lifecycle import reload
from mcpgate.upstream.upstream import backoff_s
from tests.conftest import gateway, make_config, raw, serve_command, until
from tests.listeners import Listener

pytestmark = pytest.mark.anyio


async def test_the_gateway_answers_while_slow_servers_are_still_starting(tmp_path: Path) -> None:
    gate = tmp_path / "go"
    async with gateway({"slow": raw("--wait-for", str(gate)), "quick": raw()}, settle=False) as opened:
        await opened.pool.settled(["quick"])
        answer = await opened.metatools.execute_code(RequestContext(LOCAL), 'quick.echo(text="here")')
        assert answer.text == "here"
        assert "still starting" in await opened.metatools.list_tools(RequestContext(LOCAL))
        waiting = asyncio.create_task(opened.metatools.execute_code(RequestContext(LOCAL), 'slow.echo(text="at last")'))
        await asyncio.sleep(0)
        gate.touch()
        assert (await waiting).text == "at last"


async def test_a_hanging_server_delays_only_who_asks_for_it() -> None:
    context = RequestContext(LOCAL)
    async with gateway({"hanging": raw("--never-ready"), "quick": raw()}, settle=False) as opened:
        tools = opened.metatools
        async with asyncio.timeout(2.5):
            while "quick (0 tools)" in await tools.list_tools(context):
                await asyncio.sleep(0)
            assert "quick.echo(" in await tools.list_tools(context, "echo")
            assert "def echo" in await tools.describe_tools(context, ["quick.echo"])
            assert "echo" in await tools.read_docs(context, "quick")
            assert (await tools.execute_code(context, "'hanging around'")).text == "hanging around"
        began = time.monotonic()
        assert "still starting" in await tools.list_tools(context, server="hanging")
        assert time.monotonic() - began > 2


async def test_the_first_question_waits_for_the_tools_that_answer_it(tmp_path: Path) -> None:
    gate = tmp_path / "go"
    async with gateway({"slow": raw("--wait-for", str(gate)), "hanging": raw("--never-ready")}, settle=False) as opened:
        asked = asyncio.create_task(opened.metatools.list_tools(RequestContext(LOCAL), "echo text"))
        await asyncio.sleep(0)
        gate.touch()
        assert (await asked).startswith("slow.echo(")


async def test_a_broken_server_is_reconnected_when_it_recovers(tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    script.write_text("import sys; sys.exit(5)")
    async with gateway({"raw": {"command": sys.executable, "args": [str(script)]}}) as opened:
        assert opened.pool.views()[0].state in ("failed", "connecting")
        script.write_text(Path(raw()["args"][0]).read_text())
        await until(lambda: opened.pool.views()[0].state == "ready")


async def test_calls_cut_a_backoff_short_but_do_not_start_a_broken_server_without_end(tmp_path: Path) -> None:
    script, starts = tmp_path / "server.py", tmp_path / "starts"
    script.write_text(f"open({str(starts)!r}, 'a').write('x'); import sys; sys.exit(5)")
    async with gateway({"raw": {"command": sys.executable, "args": [str(script)]}}) as opened:
        began = time.monotonic()
        for _ in range(50):
            with pytest.raises(UpstreamError, match="not connected.*code 5"):
                await opened.pool.get("raw").call("echo", {"text": "x"})
        assert len(starts.read_text()) <= 3 + (time.monotonic() - began) / 0.4
        script.write_text(Path(raw()["args"][0]).read_text())
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(UpstreamError):
                    result = await opened.pool.get("raw").call("echo", {"text": "back"})
                    break
                await asyncio.sleep(0.05)
        assert result["content"][0]["text"] == "back"


def test_a_server_that_has_failed_for_a_week_is_still_tried() -> None:
    assert backoff_s(0.5, 3, 60) == 4
    assert backoff_s(0.5, 100_000, 60) == 60


async def test_a_death_by_any_signal_is_reported_and_repaired(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    async with gateway({"raw": raw("--pid-file", str(pids))}) as opened:
        call = asyncio.create_task(opened.pool.get("raw").call("hang", {}))
        await until(lambda: pids.exists() and pids.read_text())
        os.kill(int(pids.read_text()), signal.SIGRTMIN + 3)
        with pytest.raises(UpstreamError, match="was killed by signal"):
            await call
        assert (await opened.pool.get("raw").call("echo", {"text": "x"}))["content"][0]["text"] == "x"


async def test_one_server_with_absurd_schemas_does_not_hide_another(tmp_path: Path) -> None:
    schema = '{"a":' * 600 + "1" + "}" * 600
    script = tmp_path / "server.py"
    source = Path(raw()["args"][0]).read_text()
    script.write_text(
        source.replace('"description": "Say it back.",', f'"description": "Say it back.", "x": json.loads({schema!r}),')
    )
    async with gateway({"absurd": {"command": sys.executable, "args": [str(script)]}, "good": raw()}) as opened:
        assert {server.name: bool(server.tools) for server in opened.catalog.servers} == {"absurd": True, "good": True}
        assert (await opened.metatools.execute_code(RequestContext(LOCAL), "good.add(a=1, b=1)['sum']")).text == "2"


async def test_no_more_calls_than_max_concurrency_are_in_flight_at_once() -> None:
    async with gateway({"raw": raw(max_concurrency=3, timeout_s=30)}) as opened:
        upstream = opened.pool.get("raw")
        met = await asyncio.gather(*(upstream.call("meet", {"number": 3}) for _ in range(3)))
        assert [m["content"][0]["text"] for m in met] == ["met"] * 3
        # A fourth would let these two through; it cannot leave while three hang.
        hanging = [asyncio.create_task(upstream.call("hang", {})) for _ in range(3)]
        fourth = asyncio.create_task(upstream.call("count", {}))
        done, _ = await asyncio.wait([fourth], timeout=0.5)
        assert not done
        for task in hanging:
            task.cancel()
        assert (await fourth)["content"][0]["text"] == "7"


async def test_cancelling_a_call_cancels_it_upstream() -> None:
    async with gateway({"raw": raw()}) as opened:
        upstream = opened.pool.get("raw")
        call = asyncio.create_task(upstream.call("hang", {}))
        await until(lambda: upstream._connection is not None and upstream._connection._waiting)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        async with asyncio.timeout(10):
            while (await upstream.call("was-cancelled", {}))["content"][0]["text"] != "1":
                await asyncio.sleep(0.01)


async def test_progress_restarts_the_timeout_and_is_passed_on() -> None:
    listener = Listener()
    heard = listener.heard
    async with gateway({"raw": raw()}) as opened:
        result = await opened.pool.get("raw").call("steps", {"number": 4}, client=listener)
        assert result["content"][0]["text"] == "4 steps, token given"
        assert [p["progress"] for p in heard] == [1, 2, 3, 4]


async def test_allow_and_deny_globs_decide_which_tools_exist() -> None:
    tools = {"allow": ["e*", "add"], "deny": ["env"]}
    async with gateway({"raw": raw(tools=tools)}) as opened:
        assert {tool.name for tool in opened.catalog.tools} == {"echo", "add"}
        answer = await opened.metatools.execute_code(RequestContext(LOCAL), 'getattr(raw, "env")()')
        assert answer.is_error and "no tool env" in answer.text


async def test_stderr_goes_to_the_log_under_the_servers_name(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mcpgate")
    async with gateway({"raw": raw()}) as opened:
        await opened.pool.get("raw").call("wordy", {"text": "something happened"})
        await until(lambda: any("something happened" in r.message for r in caplog.records))
        (record,) = [r for r in caplog.records if "something happened" in r.message]
        assert record.name == "mcpgate.upstream.raw"


async def test_a_flood_of_stderr_is_counted_not_copied(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mcpgate")
    async with gateway({"raw": raw("--flood-stderr")}) as opened:
        for _ in range(20):
            await opened.pool.get("raw").call("echo", {"text": "x"})
        assert sum("flood" in r.message for r in caplog.records) < 1000


async def test_changing_the_configuration_leaves_calls_on_other_servers_alone() -> None:
    async with gateway({"stays": raw(), "goes": raw()}) as opened:
        call = asyncio.create_task(opened.pool.get("stays").call("meet", {"number": 2}))
        await reload(opened, make_config({"stays": raw(), "comes": raw()}))
        await opened.pool.settled()
        await opened.pool.get("stays").call("meet", {"number": 2})
        assert (await call)["content"][0]["text"] == "met"
        assert {view.name: view.state for view in opened.pool.views()} == {"stays": "ready", "comes": "ready"}


def _alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("end", ["SIGTERM", "SIGINT", "SIGKILL", "stdin closed"])
async def test_no_process_is_left_when_the_gateway_stops(
    end: str, tmp_path: Path, config_file: Callable[..., Path]
) -> None:
    pids, grandchild = tmp_path / "pids", tmp_path / "grandchild"
    heard = [tmp_path / "heard by plain", tmp_path / "heard by stubborn"]
    config = config_file(
        {
            "plain": raw("--pid-file", str(pids), "--log", str(heard[0])),
            "stubborn": raw(
                "--pid-file", str(pids), "--log", str(heard[1]), "--stubborn", "--grandchild", str(grandchild)
            ),
        }
    )
    process = subprocess.Popen(
        serve_command(config, "--stdio"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        await until(lambda: all(path.exists() for path in heard))  # so the gateway knows both processes
        children = [int(pid) for pid in [*pids.read_text().split(), grandchild.read_text()]]
        assert all(_alive(pid) for pid in children)
        if end == "stdin closed":
            assert process.stdin is not None
            process.stdin.close()
        else:
            process.send_signal(getattr(signal, end))
        await until(lambda: process.poll() is not None)
        await until(lambda: not any(_alive(pid) for pid in children))
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


async def test_the_reaper_goes_too(config_file: Callable[..., Path]) -> None:
    config = config_file({"raw": raw()})
    process = subprocess.Popen(
        serve_command(config, "--stdio"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    family: list[psutil.Process] = []
    await until(lambda: len(psutil.Process(process.pid).children(recursive=True)) >= 2)
    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    await until(lambda: not any(_alive(child.pid) for child in family))
    assert process.stdin is not None
    process.stdin.close()
