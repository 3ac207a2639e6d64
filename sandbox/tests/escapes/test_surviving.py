"""Outliving the end: whatever catches, defers or comes back, after the end of an execution nothing of it runs any more,
no tool is called, and what was on its way upstream is cancelled."""

import asyncio

import pytest

from mcpgate_sandbox.engine import Limits
from mcpgate_sandbox.errors import LimitReached
from sandbox.tests.conftest import Host
from sandbox.tests.escapes.conftest import Arena
from sandbox.tests.escapes.test_forgery import assert_well_formed

pytestmark = pytest.mark.anyio

LIMITS = Limits(cpu_s=0.05, timeout_s=0.5, tool_wait_s=0.1, memory_mib=96, max_output_chars=2_000)
SURVIVED = "survived"


def _survivors(host: Host) -> list[str]:
    """Calls that a program made after it should have ended."""
    return [name for name, positional, _ in host.calls if SURVIVED in repr(positional)]


# --- ways to end; each comes into the place of END below. Programs that call before their end too say other words.

ENDS = {
    "CPU time": "while True:\n            pass",
    "waiting for a tool": "t.never()",
    "output": "print('x' * 5000)",
}

CATCHERS = {
    "except": "try:\n    try:\n        END\n    except Exception:\n        t.echo('survived')\nexcept Exception:\n    t.echo('survived')",
    "except BaseException": "while True:\n    try:\n        END\n    except BaseException:\n        t.echo('survived')",
    "a bare except": "while True:\n    try:\n        END\n    except:\n        t.echo('survived')",
    "finally": "def f():\n    try:\n        END\n    finally:\n        t.echo('survived')\nf()",
    "return in finally": "def f():\n    while True:\n        try:\n            END\n        finally:\n            continue\nf()\nt.echo('survived')",
    "recursion in except": "def f():\n    try:\n        END\n    except BaseException:\n        t.echo('survived')\n        f()\nf()",
    "else": "try:\n    if 1:\n        END\nexcept BaseException:\n    pass\nelse:\n    pass\nt.echo('survived')",
    "a context manager": (
        "class C:\n    def __enter__(self):\n        return self\n    def __exit__(self, *a):\n        t.echo('survived')\n        return True\n"
        "with C():\n    if 1:\n        END\nt.echo('survived')"
    ),
    "contextlib.suppress": "import contextlib\nwith contextlib.suppress(BaseException):\n    if 1:\n        END\nt.echo('survived')",
    "an exit stack": (
        "import contextlib\nwith contextlib.ExitStack() as s:\n    s.callback(t.echo, 'survived')\n    if 1:\n        END"
    ),
    "a generator's close": (
        "def g():\n    try:\n        yield 1\n    finally:\n        t.echo('survived')\nk = g()\nnext(k)\nif 1:\n    if 1:\n        END"
    ),
    "a finalizer": (
        "class D:\n    def __del__(self):\n        t.echo('survived')\nd = D()\nif 1:\n    if 1:\n        END"
    ),
    "a weak reference": (
        "import weakref\nclass D:\n    pass\nd = D()\nf = weakref.finalize(d, t.echo, 'survived')\nr = weakref.ref(d, lambda _: t.echo('survived'))\n"
        "if 1:\n    if 1:\n        END"
    ),
    "atexit": "import atexit\natexit.register(t.echo, 'survived')\nif 1:\n    if 1:\n        END",
    "a signal handler": (
        "import signal\nfor n in (signal.SIGTERM, signal.SIGINT, signal.SIGXCPU, signal.SIGALRM, signal.SIGSEGV, signal.SIGPROF):\n"
        "    try:\n        signal.signal(n, lambda *a: t.echo('survived'))\n    except Exception:\n        pass\nif 1:\n    if 1:\n        END"
    ),
    "signals blocked": (
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))\nsignal.setitimer(signal.ITIMER_REAL, 0.5)\nif 1:\n    if 1:\n        END"
    ),
    "a trace function": (
        "import sys\ndef f(*a):\n    try:\n        END\n    except BaseException:\n        t.echo('survived')\n    return f\nsys.settrace(f)\nsys.setprofile(f)\n(lambda: 1)()"
    ),
    "monitoring": (
        "import sys\nm = sys.monitoring\nm.use_tool_id(3, 'x')\nm.register_callback(3, m.events.RAISE, lambda *a: t.echo('survived'))\n"
        "m.set_events(3, m.events.RAISE)\nif 1:\n    if 1:\n        END"
    ),
    "the garbage collector": (
        "import gc\ngc.callbacks.append(lambda *a: t.echo('collected') if k else None)\nk = []\ngc.set_threshold(1)\nk.append(1)\nif 1:\n    if 1:\n        END"
    ),
    "the last hook": "import sys\nsys.excepthook = sys.unraisablehook = lambda *a: t.echo('survived')\nif 1:\n    if 1:\n        END",
    "a thread": (
        "import threading\ndef f():\n    while True:\n        pass\n    t.echo('survived')\nthreading.Thread(target=f, daemon=True).start()\nif 1:\n    if 1:\n        END"
    ),
    "a timer": "import threading\nthreading.Timer(0.5, t.echo, ['survived']).start()\nif 1:\n    if 1:\n        END",
    "a process": "import os\nif os.fork() == 0:\n    while True:\n        try:\n            t.echo('survived')\n        except BaseException:\n            pass\nif 1:\n    if 1:\n        END",
    "a task": (
        "import asyncio\nasync def f():\n    while True:\n        try:\n            await asyncio.sleep(0)\n        except BaseException:\n            t.echo('survived')\n"
        "async def main():\n    x = asyncio.create_task(f())\n    await asyncio.sleep(0)\n    if 1:\n        END\nawait main()"
    ),
    "a shielded task": (
        "import asyncio\nasync def f():\n    try:\n        await t.never()\n    except BaseException:\n        await t.echo('survived')\n"
        "await asyncio.shield(asyncio.create_task(f()))"
    ),
    "a cancelled task": (
        "import asyncio\nasync def f():\n    while True:\n        try:\n            await asyncio.sleep(100)\n        except asyncio.CancelledError:\n            await t.echo('survived')\n"
        "async def main():\n    x = asyncio.create_task(f())\n    await asyncio.sleep(0)\n    if 1:\n        END\nawait main()"
    ),
    "the loop's handler": (
        "import asyncio\nl = asyncio.get_running_loop()\nl.set_exception_handler(lambda *a: t.echo('handled'))\nl.call_later(0.1, lambda: 1 / 0)\n"
        "async def main():\n    if 1:\n        END\nawait main()"
    ),
    "an async generator": (
        "async def g():\n    try:\n        yield 1\n    finally:\n        await t.echo('survived')\nasync def main():\n    async for x in g():\n        END\nawait main()"
    ),
    "a done callback": (
        "import asyncio\nasync def f():\n    await t.never()\nasync def main():\n    x = asyncio.create_task(f())\n    x.add_done_callback(lambda _: t.echo('survived'))\n    await x\nawait main()"
    ),
    "an exception group": "try:\n    try:\n        END\n    except* BaseException:\n        t.echo('survived')\nexcept BaseException:\n    t.echo('survived')",
    "the text of the error": (
        "class E(BaseException):\n    def __str__(self):\n        t.echo('survived')\n        return 'x'\ntry:\n    if 1:\n        END\nfinally:\n    raise E"
    ),
    "a comparison in C": "class K:\n    def __lt__(self, o):\n        try:\n            END\n        except BaseException:\n            t.echo('survived')\n        return True\nsorted([K(), K()])",
    "import": "import builtins\nbuiltins.__import__ = lambda *a: t.echo('survived')\nif 1:\n    if 1:\n        END",
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("catcher", CATCHERS)
async def test_nothing_catches_the_end(catcher: str, end: str, arena: Arena) -> None:
    code = CATCHERS[catcher]
    if end != "CPU time" and "END" not in code:
        pytest.skip("this one ends in its own way")
    lines = []
    for line in code.split("\n"):  # END stands at any depth
        indent = line[: len(line) - len(line.lstrip())]
        lines.append(line.replace("END", ENDS[end].replace("\n            ", "\n" + indent + "    ")))
    host = Host()
    async with asyncio.timeout(15):
        outcome = await arena.repels("\n".join(lines), host=host, limits=LIMITS)
        assert_well_formed(outcome)
        if host.calls:
            await host.idle.wait()
        # What runs on would have called by now: the loop and both engines' threads have had their turns.
        calls = len(host.calls)
        assert (await arena.run("t.add(1, 2)")).result == 3
    assert len(host.calls) == calls and host.in_flight == 0
    assert "t.never" not in host.finished
    if isinstance(outcome.error, LimitReached):
        assert outcome.error.limit in {"cpu_s", "timeout_s", "tool_wait_s", "max_output_chars", "memory_mib", "stack"}
        if outcome.error.limit in {"cpu_s", "max_output_chars", "tool_wait_s"} and "def __str__" not in code:
            assert _survivors(host) == []


# --- ending by itself, with something left behind

LEFTOVERS = {
    "a task": "import asyncio\nasync def f():\n    await asyncio.sleep(0.05)\n    await t.echo('survived')\nx = asyncio.create_task(f())\nawait asyncio.sleep(0)\n1 / 0",
    "a call in flight": "k = []\nasync def f():\n    k.append(t.never())\n    await t.echo(1)\nawait f()\n1 / 0",
    "many calls in flight": "k = []\nasync def f():\n    for i in range(50):\n        k.append(t.never())\n    await t.echo(1)\nawait f()\n1 / 0",
    "a call in flight, shielded": "import asyncio\nasync def g():\n    return await t.never()\nx = asyncio.shield(asyncio.create_task(g()))\nawait asyncio.sleep(0)\n1 / 0",
    "a timer of the loop": "import asyncio\nasyncio.get_running_loop().call_later(0.01, t.echo, 'survived')\n1 / 0",
    "a thread of the loop": "import asyncio\nx = asyncio.get_running_loop().run_in_executor(None, t.never)\n1 / 0",
    "atexit": "import atexit\natexit.register(t.echo, 'survived')\n1",
    "a thread": "import threading, time\ndef f():\n    while True:\n        t.echo('survived')\nthreading.Thread(target=f).start()\n1",
    "an exit": "import atexit\natexit.register(t.echo, 'survived')\nraise SystemExit",
    "a hard exit": "import os\nx = t.echo\nos._exit(0)",
    "an alarm": "import signal\nsignal.signal(signal.SIGALRM, lambda *a: t.echo('survived'))\nsignal.alarm(1)\n1",
    "a background thread of logging": "import logging.handlers, queue\nl = logging.handlers.QueueListener(queue.Queue())\nl.start()\n1",
}


@pytest.mark.parametrize("name", LEFTOVERS)
@pytest.mark.parametrize("session", [None, "left"], ids=["alone", "in a session"])
async def test_what_is_left_behind_calls_nothing_any_more(name: str, session: str | None, arena: Arena) -> None:
    host, later = Host(), Host()
    session = session and f"{session}/{name}"
    async with asyncio.timeout(15):
        outcome = await arena.repels(LEFTOVERS[name], host=host, limits=LIMITS, session=session)
        assert_well_formed(outcome)
        if host.calls:
            await host.idle.wait()
        calls = len(host.calls)
        assert (await arena.run("t.add(1, 2)", host=later, session=session)).error is None
    assert len(host.calls) == calls and host.in_flight == 0
    assert host.cancelled == ["t.never"] * sum(name == "t.never" for name, _, _ in host.calls)
    assert [name for name, _, _ in later.calls] == ["t.add"]


async def test_code_that_runs_as_the_result_is_written_still_ends(arena: Arena) -> None:
    host = Host()
    code = "class R:\n    def __repr__(self):\n        while True:\n            try:\n                t.never()\n            except BaseException:\n                t.echo('survived')\nR()"
    async with asyncio.timeout(10):
        outcome = await arena.repels(code, host=host, limits=LIMITS)
        if host.calls:
            await host.idle.wait()
    assert host.in_flight == 0 and _survivors(host) == []
    assert outcome.error is None or isinstance(outcome.error, LimitReached)


@pytest.mark.parametrize(
    "code",
    ["t.never()", "while True:\n    pass", "import time\ntime.sleep(1000)"],
    ids=["calling", "computing", "sleeping"],
)
async def test_a_caller_that_disconnects_ends_it_too(code: str, arena: Arena) -> None:
    host = Host()
    program = f"t.echo('started')\ntry:\n    if 1:\n        {code.replace(chr(10), chr(10) + '        ')}\nexcept BaseException:\n    t.echo('survived')"
    running = asyncio.create_task(
        arena.run(program, host=host, limits=Limits(cpu_s=5, timeout_s=10), session="gone/one")
    )
    async with asyncio.timeout(10):
        while not host.finished and not running.done():
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        if host.calls:
            await host.idle.wait()
        after = await arena.run("t.add(1, 2)", session="gone/one")
    assert after.result == 3 and _survivors(host) == [] and host.in_flight == 0
    await arena.unharmed()
