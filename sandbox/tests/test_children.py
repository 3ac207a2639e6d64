"""Guests in child processes: what locks them, what becomes of those that die, and what a lying one achieves."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mcpgate_sandbox import frames
from mcpgate_sandbox.children import Child
from mcpgate_sandbox.engine import Engine, Execution, Limits, Outcome
from mcpgate_sandbox.errors import Cancelled, Crashed, LimitReached, SandboxUnavailable
from mcpgate_sandbox.host import Call
from mcpgate_sandbox.isolated import IsolatedWasmEngine
from mcpgate_sandbox.locks import SYSTEM_CALL_FILTER
from mcpgate_sandbox.pool import PooledEngine
from mcpgate_sandbox.restricted import RestrictedEngine
from mcpgate_sandbox.sessions import SessionLimits
from sandbox.tests.conftest import Host, Run

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="the locks of child processes are Linux's"),
]

Value = Callable[..., Awaitable[Any]]
HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@pytest.fixture(scope="session")
def isolated() -> Iterator[Engine]:
    engine = IsolatedWasmEngine(warm=1)
    asyncio.run(engine.ready())
    yield engine
    asyncio.run(engine.aclose())


@pytest.fixture(params=["isolated", "restricted"])
def child_engine(request: pytest.FixtureRequest, isolated: Engine, restricted: Engine) -> Engine:
    return {"isolated": isolated, "restricted": restricted}[request.param]


@pytest.fixture
def engine(child_engine: Engine) -> Engine:
    return child_engine


# --- the same contract


async def test_code_runs_and_calls_tools(value: Value) -> None:
    code = "rows = t.rows(3)\na, b = await asyncio.gather(t.add(1, 2), t.add(3))\n[len(rows), a, b]"
    assert await value(code) == [3, 3, 3]


async def test_a_session_keeps_its_variables_and_belongs_to_its_owner(engine: Engine) -> None:
    host = Host()

    async def run(code: str, owner: str) -> Outcome:
        return await engine.run(
            Execution(code, host.servers, host.call_tool, host.host_call, session="kept", owner=owner)
        )

    await run("x = [1]", "ada")
    assert (await run("x.append(2)\nx", "ada")).result == [1, 2]
    assert (await run("'x' in globals()", "bob")).result is False


async def test_a_megabyte_goes_either_way(value: Value) -> None:
    assert await value("len(t.echo(value='x' * 1_000_000))") == 1_000_000


@pytest.mark.parametrize(
    ("limit", "code", "limits"),
    [
        ("cpu_s", "while True:\n    pass", Limits(cpu_s=0.2)),
        ("timeout_s", "import time\ntime.sleep(9)", Limits(timeout_s=0.2)),
        ("tool_wait_s", "t.never()", Limits(tool_wait_s=0.2)),
        ("memory_mib", "'x' * 10**9", Limits(memory_mib=128)),
        ("max_output_chars", "while True:\n    print('x' * 1000)", Limits(max_output_chars=5000)),
        ("max_result_chars", "'x' * 100_000", Limits(max_result_chars=1000)),
    ],
)
async def test_limits_hold_and_the_next_execution_is_fine(limit: str, code: str, limits: Limits, run: Run) -> None:
    async with asyncio.timeout(10):
        outcome = await run(code, limits=limits)
    assert isinstance(outcome.error, LimitReached) and outcome.error.limit == limit
    assert (await run("1 + 1")).result == 2


async def test_giving_up_ends_a_busy_child_and_its_calls(run: Run) -> None:
    host = Host()
    task = asyncio.create_task(
        run("c = []\nasync def f():\n    c.append(t.never())\n    while True: pass\nawait f()", host=host)
    )
    await asyncio.wait_for(host.never_called.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(host.idle.wait(), 10)
    assert host.cancelled == ["t.never"]


# --- what locks them


async def test_the_engine_says_what_locks_its_children(engine: Engine) -> None:
    locks = await engine.locks()
    for lock in ("no new privileges", "empty environment", "memory bounded", SYSTEM_CALL_FILTER):
        assert any(lock in said for said in locks), locks


def test_a_locked_process_can_compute_and_write_to_its_descriptor_and_nothing_else() -> None:
    ours, theirs = socket.socketpair()
    with subprocess.Popen(["sleep", "60"]) as victim:
        command = [sys.executable, str(HERE / "lock_probe.py"), str(theirs.fileno()), str(victim.pid)]
        subprocess.run(command, pass_fds=[theirs.fileno()], env=ENVIRONMENT, timeout=30, check=True)
        theirs.close()
        told = json.loads(ours.recv(100_000))
        assert victim.poll() is None
        victim.kill()
    ours.close()
    assert SYSTEM_CALL_FILTER in told["active"]
    assert {name: how for name, how in told["found"].items() if how == "done"} == {}
    refused = [name for name, how in told["found"].items() if how == "PermissionError"]
    assert len(refused) >= len(told["found"]) - 3, told["found"]
    assert not Path("/tmp/lock_probe").exists()


@pytest.mark.parametrize(
    ("unlocked", "said"), [("allow", "42 None\n"), ("refuse", "refused: the kernel of this machine")]
)
def test_where_the_kernel_filters_nothing_code_runs_only_if_that_is_allowed(unlocked: str, said: str) -> None:
    command = [sys.executable, str(HERE / "no_filter.py"), unlocked]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith(said), done.stderr
    if unlocked == "refuse":
        assert "sandbox.allow_unlocked: true" in done.stdout


# --- what becomes of those that die


def _nurseries() -> set[int]:
    return {process.pid for process in psutil.Process().children()}


def _only_guest_since(before: set[int]) -> psutil.Process:
    """The one guest of the one engine that was started since."""
    (nursery,) = _nurseries() - before
    (guest,) = psutil.Process(nursery).children()
    return guest


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("kind", [RestrictedEngine, IsolatedWasmEngine])
async def test_a_child_that_dies_is_the_sandboxs_failure_and_costs_one_execution(kind: Any, how: int, run: Run) -> None:
    engine = kind(warm=0)
    try:
        before = _nurseries()
        await run("1", session="doomed", on=engine)
        child = _only_guest_since(before)

        async def murder() -> None:
            child.send_signal(how)

        outcome = await asyncio.wait_for(run("t.murder()\n1", {"t.murder": murder}, session="doomed", on=engine), 20)
        assert isinstance(outcome.error, Crashed), outcome
        assert "the sandbox's failure and not an error of the code" in str(outcome.error)
        assert (await run("1 + 1", on=engine)).result == 2
    finally:
        await engine.aclose()


@pytest.mark.parametrize("kind", [RestrictedEngine, IsolatedWasmEngine])
async def test_the_process_that_forks_children_is_restarted_after_it_died(kind: Any, run: Run) -> None:
    before = {process.pid for process in psutil.Process().children()}
    engine = kind(warm=0)
    try:
        assert (await run("1 + 1", on=engine)).result == 2
        (nursery,) = [p for p in psutil.Process().children() if p.pid not in before]
        nursery.kill()
        nursery.wait(10)
        assert (await run("2 + 2", on=engine)).result == 4
    finally:
        await engine.aclose()
    assert {process.pid for process in psutil.Process().children()} <= before


ORPHANED = """
import asyncio, os, sys
from mcpgate_sandbox.restricted import RestrictedEngine
from mcpgate_sandbox.engine import Execution, Limits
async def busy(*_):
    print("busy", flush=True)
async def main():
    engine = RestrictedEngine(warm=2)
    await engine.run(Execution("t.busy()\\nwhile True: pass", ("t",), busy, lambda *_: {"busy": "busy"}, Limits(cpu_s=60)))
asyncio.run(main())
"""


def test_no_child_outlives_a_gateway_that_is_killed() -> None:
    gateway = subprocess.Popen(
        [sys.executable, "-c", ORPHANED], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert gateway.stdout is not None and gateway.stdout.readline() == "busy\n"
    family = psutil.Process(gateway.pid).children(recursive=True)
    assert len(family) >= 2
    gateway.kill()
    gateway.wait()
    gateway.stdout.close()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []


async def test_sessions_are_bounded_by_the_memory_they_may_use(run: Run) -> None:
    engine = RestrictedEngine(warm=0, sessions=SessionLimits(mib_per_account=512))
    try:
        for name in ("a", "b", "c"):
            await run(f"x = {name!r}", session=name, on=engine)
        lost = await run("'x' in globals()", session="a", on=engine)
        assert (lost.result, lost.notes) == (False, ("session 'a' is new: the earlier one made room for others",))
        assert (await run("x", session="c", on=engine)).result == "c"
    finally:
        await engine.aclose()


# --- a child that lies


class _Liar:
    """A process that stands for a child, whose part the test plays; and where such children come from."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["sleep", "60"])
        ours, self.theirs = socket.socketpair()
        self.theirs.sendall(frames.frame(b"w", b"[]"))
        self.child = Child(self, self.process.pid, os.pidfd_open(self.process.pid), ours)  # type: ignore[arg-type]

    def collect(self, pid: int) -> None:
        self.process.wait()

    def autopsy(self, pid: int) -> tuple[int, int]:
        return -self.process.wait(), 0

    async def run(self, limits: Limits) -> Outcome:
        host = Host()
        execution = Execution("1", host.servers, host.call_tool, host.host_call, limits=limits)
        call = Call(execution, asyncio.get_running_loop())
        try:
            return await asyncio.wait_for(asyncio.to_thread(self.child.run, call), 10)
        finally:
            call.cancel_all()
            self.child.close()
            self.theirs.close()


LIES = {
    "an unknown kind": frames.frame(b"z"),
    "a kind that is the host's": frames.frame(b"a", b"x"),
    "ready again": frames.frame(b"w", b"[]"),
    "a frame of four gigabytes": frames.HEAD.pack(b"e", 2**32 - 1),
    "an emit of nothing": frames.frame(b"e"),
    "a submit without an id": frames.frame(b"s", b"x"),
    "a call that is shorter than it says": frames.frame(b"c", frames.ID.pack(100), b"t.echo"),
    "a call of no name": frames.frame(b"c"),
    "a poll of half a number": frames.frame(b"p", b"123"),
    "an id twice": 2 * frames.frame(b"s", frames.ID.pack(1), *frames.pair("t.never", "[[],{}]")),
    "cancelling a word": frames.frame(b"c", *frames.pair("@cancel", "x")),
    "a result that is no JSON": frames.frame(b"r", b"nope"),
    "a result of the wrong form": frames.frame(b"r", b"[]"),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lying_child_is_ended_with_the_reason(lie: str) -> None:
    liar = _Liar()
    liar.theirs.sendall(LIES[lie])
    outcome = await liar.run(Limits(timeout_s=5, tool_wait_s=5))
    assert isinstance(outcome.error, LimitReached) and outcome.error.limit == "protocol", outcome
    assert liar.process.returncode == -signal.SIGKILL


async def test_a_child_that_says_nothing_ends_at_the_time_limit() -> None:
    outcome = await _Liar().run(Limits(timeout_s=0.2))
    assert isinstance(outcome.error, LimitReached) and outcome.error.limit == "timeout_s"


async def test_a_child_that_hangs_up_has_crashed() -> None:
    liar = _Liar()
    liar.theirs.shutdown(socket.SHUT_RDWR)
    assert isinstance((await liar.run(Limits(timeout_s=5))).error, Crashed)


# --- between and after executions


async def test_nothing_of_a_session_runs_between_its_executions(run: Run) -> None:
    engine = RestrictedEngine(warm=0)
    try:
        before = _nurseries()
        await run("x = 1", session="still", on=engine)
        child = _only_guest_since(before)
        async with asyncio.timeout(10):
            while child.status() != psutil.STATUS_STOPPED:
                await asyncio.sleep(0)
        assert (await run("x + 1", session="still", on=engine)).result == 2
    finally:
        await engine.aclose()


async def test_a_session_whose_child_died_starts_over_and_says_so(run: Run) -> None:
    engine = RestrictedEngine(warm=0)
    try:
        before = _nurseries()
        await run("x = 1", session="dies", on=engine)
        child = _only_guest_since(before)
        child.kill()
        async with asyncio.timeout(10):
            while child.status() != psutil.STATUS_ZOMBIE or len(os.listdir(f"/proc/{child.pid}/task")) > 1:
                await asyncio.sleep(0)
        outcome = await run("'x' in globals()", session="dies", on=engine)
        assert outcome.result is False
        assert outcome.notes == ("session 'dies' is new: the interpreter of the earlier one died",)
    finally:
        await engine.aclose()


async def test_each_execution_of_a_session_has_its_own_limit_of_memory(run: Run) -> None:
    big = "len('x' * 150_000_000)"
    small = (await run(big, session="memory", limits=Limits(memory_mib=100))).error
    assert isinstance(small, LimitReached) and small.limit == "memory_mib"
    assert (await run(big, session="memory", limits=Limits(memory_mib=512))).result == 150_000_000


async def filled(*engines: PooledEngine) -> None:
    """Until none of these is going to start anything of its own accord."""
    async with asyncio.timeout(20):
        while any(engine._spent or len(engine._pool) < engine._warm_target for engine in engines):
            await asyncio.sleep(0.001)


async def test_a_closed_engine_runs_nothing_and_leaves_nothing_running(
    run: Run, isolated: PooledEngine, restricted: PooledEngine
) -> None:
    await filled(isolated, restricted)
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    engine = RestrictedEngine(warm=1)
    host = Host()
    busy = asyncio.create_task(run("t.never()", host=host, on=engine))
    await asyncio.wait_for(host.never_called.wait(), 20)
    await engine.aclose()
    assert isinstance((await asyncio.wait_for(busy, 10)).error, Cancelled)
    with pytest.raises(SandboxUnavailable, match="closed"):
        await run("1", on=engine)
    gone = [p for p in psutil.Process().children(recursive=True) if p.pid not in before]
    assert psutil.wait_procs(gone, timeout=10)[1] == []


async def test_an_engine_that_is_closed_while_it_loads_leaves_nothing_running(
    isolated: PooledEngine, restricted: PooledEngine
) -> None:
    await filled(isolated, restricted)
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    engine = RestrictedEngine(warm=1)
    engine.start()
    await engine.aclose()
    assert engine._thread is not None
    await asyncio.to_thread(engine._thread.join, 20)
    gone = [p for p in psutil.Process().children(recursive=True) if p.pid not in before]
    assert psutil.wait_procs(gone, timeout=10)[1] == []


async def test_a_fork_that_fails_costs_nobody_else_anything(run: Run) -> None:
    """Nothing new can be started, and what runs goes on."""
    engine = RestrictedEngine(warm=0)
    before = {process.pid for process in psutil.Process().children()}
    try:
        await run("x = 1", session="kept", on=engine)
        (nursery,) = [p for p in psutil.Process().children() if p.pid not in before]
        limits = nursery.rlimit(psutil.RLIMIT_NOFILE)
        nursery.rlimit(psutil.RLIMIT_NOFILE, (3, limits[1]))  # the child's socket cannot arrive
        with pytest.raises(SandboxUnavailable, match="no child process could be started"):
            await run("1", on=engine)
        nursery.rlimit(psutil.RLIMIT_NOFILE, limits)
        assert (await run("x", session="kept", on=engine)).result == 1
        assert (await run("2", on=engine)).result == 2
        assert nursery.is_running()
    finally:
        await engine.aclose()
