"""What a guest cannot reach, and what no execution learns of another."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mcpgate_sandbox import wasm as wasm_module
from mcpgate_sandbox.engine import Execution, Limits
from mcpgate_sandbox.errors import CodeFailed, LimitReached
from mcpgate_sandbox.sessions import SessionLimits
from mcpgate_sandbox.wasm import WasmEngine
from sandbox.tests.conftest import Host, Run

pytestmark = pytest.mark.anyio

Value = Callable[..., Awaitable[Any]]

# --- the outside world

FORBIDDEN = {
    "reading a file": "open('/etc/passwd').read()",
    "reading by descriptor": "import os\nos.read(0, 1)",
    "reading through io": "import io\nio.open('/etc/hostname').read()",
    "reading through pathlib": "import pathlib\npathlib.Path('/etc/passwd').read_text()",
    "reading through codecs": "import codecs\ncodecs.open('/etc/passwd').read()",
    "reading through linecache": "import linecache\nassert linecache.getlines('/etc/passwd')",
    "reading this package": "import mcpgate_guest\nopen(mcpgate_guest.__file__).read()",
    "relative paths": "open('../../../../etc/passwd')",
    "writing a file": "open('/tmp/x', 'w').write('x')",
    "writing a temporary file": "import tempfile\ntempfile.NamedTemporaryFile().write(b'x')",
    "listing a folder": "import os\nassert os.listdir('/')",
    "globbing": "import glob\nassert glob.glob('/*')",
    "walking": "import os\nassert list(os.walk('/'))",
    "making a folder": "import os\nos.mkdir('/tmp/x')",
    "removing": "import os\nos.remove('/tmp/x')",
    "a database file": "import sqlite3\nsqlite3.connect('/tmp/x.db').execute('create table t (a)')",
    "attaching a database": "import sqlite3\nsqlite3.connect(':memory:').execute(\"attach '/etc/passwd' as p\")",
    "an SQLite extension": (
        "import sqlite3\ndb = sqlite3.connect(':memory:')\ndb.enable_load_extension(True)\ndb.load_extension('/lib/x.so')"
    ),
    "a socket": "import socket\nsocket.socket().connect(('127.0.0.1', 80))",
    "a name": "import socket\nsocket.getaddrinfo('example.com', 80)",
    "a connection": "import socket\nsocket.create_connection(('127.0.0.1', 80), 1)",
    "urllib": "import urllib.request\nurllib.request.urlopen('http://127.0.0.1/')",
    "http.client": "import http.client\nhttp.client.HTTPConnection('127.0.0.1').request('GET', '/')",
    "asyncio streams": "await asyncio.open_connection('127.0.0.1', 80)",
    "a server": "await asyncio.start_server(lambda r, w: None, '127.0.0.1', 0)",
    "a shell": "import os\nassert os.system('true') == 0",
    "a process": "import subprocess\nsubprocess.run(['/bin/true'])",
    "an asyncio process": "await asyncio.create_subprocess_shell('true')",
    "popen": "import os\nos.popen('true').read()",
    "fork": "import os\nos.fork()",
    "exec": "import os\nos.execv('/bin/true', ['true'])",
    "a signal": "import os, signal\nos.kill(1, signal.SIGTERM)",
    "multiprocessing": "import multiprocessing\nmultiprocessing.Process(target=print).start()",
    "a thread": "import threading\nthreading.Thread(target=print).start()",
    "ctypes": "import ctypes",
    "_ctypes": "import _ctypes",
    "mmap": "import mmap\nmmap.mmap(-1, 10)",
    "importing a file": "import sys\nsys.path.append('/usr/lib/python3/dist-packages')\nimport pip",
    "an extension module": (
        "import importlib.machinery as m, importlib.util as u\n"
        "u.module_from_spec(u.spec_from_file_location('x', '/lib/x.so', loader=m.ExtensionFileLoader('x', '/lib/x.so')))"
    ),
    "the terminal": "import os\nos.open('/dev/tty', os.O_RDWR)",
    "the real stdout": "import sys\nsys.__stdout__.write('x')\nsys.__stdout__.flush()\nassert False",
    "descriptor one": "import os\nos.write(1, b'x')",
    "_exit": "import os\nos._exit(0)",
    "abort": "import os\nos.abort()",
    "a crash": "import faulthandler\nfaulthandler._sigsegv()",
}


@pytest.mark.parametrize("code", FORBIDDEN.values(), ids=FORBIDDEN.keys())
async def test_there_is_no_way_out_by(code: str, run: Run) -> None:
    async with asyncio.timeout(20):
        outcome = await run(f"{code}\nprint('it worked')")
    assert outcome.error is not None
    assert outcome.stdout == ""
    assert (await run("1 + 1")).result == 2


@pytest.mark.parametrize(
    "code",
    [
        "import urllib.request\nurllib.request.urlopen('http://example.com/')",
        "import http.client\nhttp.client.HTTPConnection('example.com').request('GET', '/')",
        "import socket\nsocket.socket()",
        "await asyncio.open_connection('example.com', 80)",
    ],
)
async def test_code_that_wants_the_network_hears_that_there_is_none(code: str, run: Run) -> None:
    error = (await run(code)).error
    assert isinstance(error, CodeFailed) and "the sandbox has no network" in error.message


@pytest.mark.parametrize("code", ["import os\nos._exit(0)", "import os\nos.write(1, b'x')", "import os\nos.read(0, 1)"])
async def test_reaching_for_what_is_not_there_says_what_it_was(code: str, run: Run) -> None:
    error = (await run(code)).error
    assert isinstance(error, LimitReached) and error.limit == "protocol"
    assert "it reached for cli/" in error.message


async def test_the_hosts_environment_arguments_and_folder_are_unknown(value: Value) -> None:
    os.environ["MCPGATE_TEST_SECRET"] = "s3cret"
    try:
        code = "import os, sys\n[dict(os.environ), os.getenv('MCPGATE_TEST_SECRET'), sys.argv, sys.path, os.getcwd()]"
        assert await value(code) == [{}, None, ["code"], [], "/"]
    finally:
        del os.environ["MCPGATE_TEST_SECRET"]


async def test_nothing_of_the_machine_that_built_the_component_is_in_it(value: Value) -> None:
    code = """
import sys, gc
texts = [m.__file__ or "" for m in list(sys.modules.values()) if getattr(m, "__file__", None)]
texts += [p for p in (sys.prefix, sys.executable, sys.base_prefix) if p]
[t for t in texts if t.startswith(("/home", "/root", "/work", "/tmp/", "/Users"))]
"""
    assert await value(code) == []
    assert await value("import sys\n[m for m in ('pip', 'setuptools', 'wasmtime', 'pytest') if m in sys.modules]") == []


async def test_nothing_is_left_of_the_programs_that_ran_before_the_snapshot(run: Run) -> None:
    outcome = await run("sorted(name for name in globals() if not name.startswith('__'))")
    assert outcome.result == ["asyncio", "json", "t"]
    lines = await run("import linecache\n[file for file in linecache.cache if '<' in file], 1/0")
    assert lines.error is not None and "1/0" in lines.error.traceback
    assert (outcome.stdout, outcome.stderr) == ("", "")


async def test_a_first_execution_takes_no_more_random_bytes_than_a_seed_needs(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(wasm_module, "os", SimpleNamespace(urandom=lambda size: taken.append(size) or bytes(size)))
    engine = WasmEngine(warm=0, recycle="off")
    try:
        assert (await run("1 + 1", on=engine)).result == 2
    finally:
        await engine.aclose()
    # One reading for each instance: the engine that the tests share may be warming its own meanwhile.
    assert set(taken) == {16}


async def test_only_the_named_servers_are_there(value: Value) -> None:
    assert await value("[name in globals() for name in ('t', 'secret')]") == [True, False]


# --- a fresh interpreter each time

VANDALS = {
    "builtins": "import builtins\nbuiltins.len = lambda x: -1\nbuiltins.print = None\nbuiltins.secret = 1",
    "json": "json.dumps = json.loads = None\njson.JSONEncoder.default = None",
    "sys.modules": "import sys\nsys.modules['math'] = None\nsys.modules['secret'] = json",
    "asyncio": "asyncio.gather = asyncio.sleep = asyncio.run = None",
    "the guest's own modules": (
        "import mcpgate_guest.program as p, mcpgate_guest.calls as c\np._namespace['secret'] = 1\nc.Tool.__call__ = None"
    ),
    "ToolError": "ToolError.__init__ = lambda self, *a: None\nToolError.secret = 1",
    "the environment": "import os\nos.environ['SECRET'] = '1'",
    "an attribute of a class": "import decimal, enum\ndecimal.Decimal = int\nenum.Enum.secret = 1",
    "standard streams": "import sys\nsys.stdout = sys.stderr = None",
    "limits": "import sys\nsys.setrecursionlimit(50)\nsys.set_int_max_str_digits(0)",
    "warnings": "import warnings\nwarnings.simplefilter('error')\nwarnings.secret = 1",
    "a codec": "import codecs\ncodecs.register(lambda name: 1 / 0)",
}


@pytest.mark.parametrize("code", VANDALS.values(), ids=VANDALS.keys())
async def test_what_one_execution_breaks_is_whole_in_the_next(code: str, run: Run, value: Value) -> None:
    await run(code)
    check = """
import builtins, decimal, enum, json, math, os, sys, warnings
import mcpgate_guest.program
print(len("abc"))
[
    json.loads(json.dumps({"a": decimal.Decimal("1") == 1})), await asyncio.gather(t.echo(1), t.echo(2)),
    "SECRET" in os.environ, "secret" in sys.modules, sys.getrecursionlimit() > 500, "x".encode("utf-8").decode(),
    [hasattr(o, "secret") for o in (builtins, ToolError, enum.Enum, warnings)], "secret" in globals(),
]
"""
    expected = [{"a": True}, [1, 2], False, False, True, "x", [False] * 4, False]
    for _ in range(3):
        outcome = await run(check)
        assert (outcome.error, outcome.result, outcome.stdout) == (None, expected, "3\n")


async def test_variables_of_one_execution_are_unknown_to_the_next(run: Run) -> None:
    await run("secret = 1")
    error = (await run("secret")).error
    assert isinstance(error, CodeFailed) and error.type == "NameError"


@pytest.mark.parametrize(
    "code",
    [
        "import random\nrandom.random()",
        "import random\nrandom.Random().random()",
        "import random\nrandom.SystemRandom().random()",
        "import uuid\nstr(uuid.uuid4())",
        "import secrets\nsecrets.token_hex()",
        "import os\nos.urandom(8).hex()",
        "import tempfile\nnext(tempfile._get_candidate_names())",
    ],
)
async def test_random_numbers_differ_between_executions(code: str, value: Value) -> None:
    found = [await value(code) for _ in range(5)]
    assert len(set(found)) == 5


# --- sessions


async def test_a_session_keeps_variables_functions_and_imports(value: Value) -> None:
    await value("import math\nx = [1]\ndef double(n):\n    return n * 2", session="keeps")
    await value("x.append(double(2))", session="keeps")
    assert await value("[x, math.floor(2.5)]", session="keeps") == [[1, 4], 2]


async def test_a_session_keeps_what_was_set_before_an_error_and_before_a_return(run: Run, value: Value) -> None:
    await run("x = 1\n1 / 0", session="errors")
    await run("y = 2\nif y:\n    return y", session="errors")
    await run("z = await t.echo(3)", session="errors")
    assert await value("[x, y, z]", session="errors") == [1, 2, 3]


async def test_sessions_are_separate(run: Run) -> None:
    await run("x = 1", session="a")
    error = (await run("x", session="b")).error
    assert isinstance(error, CodeFailed) and error.type == "NameError"
    assert (await run("x")).error is not None
    assert (await run("x", session="a")).result == 1


async def test_executions_of_one_session_run_one_after_the_other(run: Run) -> None:
    host = Host()
    code = "n = globals().get('n', 0) + 1\nawait t.echo(n)\nn"
    outcomes = await asyncio.gather(*[run(code, host=host, session="queue") for _ in range(5)])
    assert sorted(outcome.result for outcome in outcomes) == [1, 2, 3, 4, 5]
    assert host.most_in_flight == 1


async def test_a_session_that_was_killed_says_so_and_starts_over(run: Run) -> None:
    await run("x = 1", session="killed")
    killed = await run("while True:\n    pass", session="killed", limits=Limits(cpu_s=0.1))
    assert isinstance(killed.error, LimitReached)
    assert killed.notes == ("session 'killed' ended with this: its variables are gone",)
    after = await run("globals().get('x')", session="killed")
    assert (after.result, after.notes) == (None, ())


async def test_a_session_whose_execution_was_cancelled_says_so_next_time(engine: WasmEngine, run: Run) -> None:
    await run("x = 1", session="gone")
    host = Host()
    task = asyncio.create_task(run("t.never()", host=host, session="gone"))
    await host.never_called.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    after = await run("globals().get('x')", session="gone")
    assert after.result is None
    assert after.notes == ("session 'gone' is new: the earlier one ended when its execution was cancelled",)


async def test_an_execution_that_was_cancelled_in_the_queue_costs_the_session_nothing(run: Run) -> None:
    release = asyncio.Event()
    host = Host({"t.wait": release.wait})
    await run("x = 1", session="waits")
    first = asyncio.create_task(run("t.wait()\nx += 1", host=host, session="waits"))
    await asyncio.wait_for(_called(host), 5)
    second = asyncio.create_task(run("x = 'never'", session="waits"))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    release.set()
    await first
    after = await run("x", session="waits")
    assert (after.result, after.notes) == (2, ())


async def _called(host: Host) -> None:
    while not host.calls:
        await asyncio.sleep(0)


async def test_a_call_that_an_error_left_behind_does_not_hold_the_session_up(run: Run) -> None:
    host = Host()
    limits = Limits(timeout_s=5)
    await run("calls = []\ncalls.append(t.never())\nawait t.echo(1)\n1 / 0", host=host, session="left", limits=limits)
    after = await run("await asyncio.sleep(0)\n'on'", host=host, session="left", limits=limits)
    assert (after.result, after.error) == ("on", None)
    late = await run(
        "try:\n    await calls[0]\nexcept ToolError as e:\n    r = str(e)\nr", session="left", limits=limits
    )
    assert "ended before its answer came" in late.result


async def test_a_deadlock_is_noticed_in_a_session_too(run: Run) -> None:
    limits = Limits(timeout_s=5)
    await run("calls = []\ncalls.append(t.never())\nawait t.echo(1)\n1 / 0", session="dead", limits=limits)
    error = (await run("await asyncio.Event().wait()", session="dead", limits=limits)).error
    assert isinstance(error, CodeFailed) and "deadlock" in error.message


async def test_the_least_recently_used_session_makes_room_and_says_so(run: Run) -> None:
    engine = WasmEngine(warm=0, sessions=SessionLimits(per_account=2))
    try:
        for name in ("a", "b", "a", "c"):
            await run(f"x = {name!r}", session=name, on=engine)
        kept = await run("x", session="a", on=engine)
        lost = await run("globals().get('x')", session="b", on=engine)
        assert (kept.result, kept.notes) == ("a", ())
        assert (lost.result, lost.notes) == (None, ("session 'b' is new: the earlier one made room for others",))
    finally:
        await engine.aclose()


async def test_an_idle_session_ends_and_says_so(run: Run) -> None:
    engine = WasmEngine(warm=0, sessions=SessionLimits(idle_s=0))
    try:
        await run("x = 1", session="idle", on=engine)
        outcome = await run("globals().get('x')", session="idle", on=engine)
        assert outcome.result is None
        assert outcome.notes == ("session 'idle' is new: the earlier one was idle for more than 0 s",)
    finally:
        await engine.aclose()


async def test_the_servers_of_a_session_are_those_of_the_execution(run: Run) -> None:
    await run("x = t.echo(1)", session="servers")
    other = Host({"other.hello": Host().rows})
    assert (await run("[x, len(other.hello())]", host=other, session="servers")).result == [1, 3]


# --- many at once


async def test_executions_run_at_the_same_time(run: Run) -> None:
    """Every one of them is inside a tool call before any gets its answer."""
    barrier = asyncio.Barrier(8)

    async def meet() -> str:
        await barrier.wait()
        return "met"

    outcomes = await asyncio.gather(*[run("t.meet()", {"t.meet": meet}, limits=Limits(timeout_s=10)) for _ in range(8)])
    assert [outcome.result for outcome in outcomes] == ["met"] * 8


async def test_the_event_loop_goes_on_while_a_guest_computes(run: Run) -> None:
    """One guest computes until the host, called by another guest a hundred times, lets it end."""
    burning = asyncio.Event()

    async def started() -> None:
        burning.set()

    burner = asyncio.create_task(
        run("t.started()\nwhile True:\n    pass", {"t.started": started}, limits=Limits(cpu_s=60, timeout_s=60))
    )
    await burning.wait()
    host = Host()
    outcome = await run("sum(t.echo(1) for _ in range(100))", host=host)
    assert (outcome.result, len(host.calls), burner.done()) == (100, 100, False)
    burner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await burner


async def test_more_executions_than_allowed_wait_for_their_turn(run: Run) -> None:
    engine = WasmEngine(warm=0, max_executions=2)
    host = Host()
    try:
        outcomes = await asyncio.gather(*[run(f"t.echo({n})", host=host, on=engine) for n in range(8)])
        assert [outcome.result for outcome in outcomes] == list(range(8))
        assert host.most_in_flight <= 2
    finally:
        await engine.aclose()


async def test_a_hundred_executions_with_calls_keep_to_themselves(run: Run) -> None:
    async def one(number: int) -> Any:
        return (await run(f"x = {number}\ny = await t.echo(x)\nawait asyncio.sleep(0)\n[x, y]")).result

    assert await asyncio.gather(*[one(n) for n in range(100)]) == [[n, n] for n in range(100)]


# --- cancelling


@pytest.mark.parametrize(
    "code",
    [
        "t.never()",
        "await t.never()",
        "t.never_mind()\nwhile True:\n    pass",
        "t.never_mind()\nimport time\ntime.sleep(90)",
    ],
)
async def test_cancelling_an_execution_ends_the_guest_and_its_calls(code: str, run: Run) -> None:
    engine = WasmEngine(warm=0, max_executions=1)
    arrived = asyncio.Event()

    async def never_mind() -> None:
        arrived.set()

    host = Host({"t.never_mind": never_mind})
    host.never_called = arrived
    try:
        task = asyncio.create_task(run(code, host=host, on=engine, limits=Limits(cpu_s=60, timeout_s=60)))
        await asyncio.wait_for(arrived.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # The only worker is free again: the guest is dead.
        async with asyncio.timeout(5):
            assert (await run("1 + 1", on=engine)).result == 2
            await host.idle.wait()
        assert host.cancelled == (["t.never"] if "never()" in code else [])
    finally:
        await engine.aclose()


async def test_an_execution_that_is_cancelled_before_it_starts_never_runs(run: Run) -> None:
    engine = WasmEngine(warm=0, max_executions=1)
    blocker, waiting = Host(), Host()
    try:
        first = asyncio.create_task(run("t.never()", host=blocker, on=engine))
        await asyncio.wait_for(blocker.never_called.wait(), 10)
        second = asyncio.create_task(run("t.echo(1)", host=waiting, on=engine))
        await asyncio.sleep(0)
        for task in (second, first):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert (await run("1", on=engine)).result == 1
        assert waiting.calls == []
    finally:
        await engine.aclose()


async def test_an_engine_serves_one_event_loop_after_another(engine: WasmEngine) -> None:
    def in_a_loop_of_its_own() -> Any:
        async def go() -> Any:
            host = Host()
            return await engine.run(Execution("t.add(1, 2)", host.servers, host.call_tool, host.host_call))

        return asyncio.run(go()).result

    assert await asyncio.gather(*[asyncio.to_thread(in_a_loop_of_its_own) for _ in range(3)]) == [3, 3, 3]


async def test_executions_that_wait_for_their_sessions_turn_hold_nobody_else_up(engine: WasmEngine) -> None:
    released = asyncio.Event()

    async def hold(*_: object) -> str:
        await released.wait()
        return "released"

    def execution(code: str, session: str | None) -> Execution:
        return Execution(code, ("t",), hold, lambda *_: {"hold": "hold"}, Limits(timeout_s=30), session)

    waiting = [asyncio.create_task(engine.run(execution("t.hold()", "busy"))) for _ in range(80)]
    await asyncio.sleep(0)
    assert (await asyncio.wait_for(engine.run(execution("1 + 1", None)), 10)).result == 2
    for task in waiting[1:]:
        task.cancel()
    released.set()
    assert (await waiting[0]).result == "released"
    assert (await asyncio.wait_for(engine.run(execution("'next'", "busy")), 10)).result == "next"
