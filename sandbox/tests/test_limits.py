"""What ends an execution, and that nothing else ends with it."""

import asyncio
import dataclasses
from typing import Any

import pytest

from mcpgate_sandbox.engine import Engine, Limits
from mcpgate_sandbox.errors import CodeFailed, LimitReached
from sandbox.tests.conftest import Host, Run

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine(any_engine: Engine) -> Engine:
    """What stands here holds on every engine."""
    return any_engine


LITTLE_CPU = Limits(cpu_s=0.2, timeout_s=20)
KILLED_WITHIN_S = 5

BURNERS = {
    "a loop": "while True:\n    pass",
    "a loop that catches everything": "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass",
    "finally without end": "def f():\n    try:\n        while True:\n            pass\n    finally:\n        f()\nf()",
    "recursion in finally": (
        "def f():\n    try:\n        f()\n    except BaseException:\n        pass\n    finally:\n        f()\nf()"
    ),
    "a loop in C": "sum(range(10**12))",
    "a list in C": "max(x for x in iter(int, 1))",
    "a regex bomb": "import re\nre.match('(a+)+$', 'a' * 60 + 'b')",
    "a power of big integers": "(7 ** 2_000_000) ** 50",
    "a conversion of a big integer": "import sys\nsys.set_int_max_str_digits(0)\nstr(7 ** 5_000_000)",
    "__del__": "class A:\n    def __del__(self):\n        while True:\n            pass\nA()\n1",
    "__eq__": "class A:\n    __hash__ = lambda self: 1\n    def __eq__(self, o):\n        while True:\n            pass\n{A(): 1, A(): 2}",
    "__repr__ of the result": "class A:\n    def __repr__(self):\n        while True:\n            pass\nA()",
    "a message that never ends": (
        "class E(Exception):\n    def __str__(self):\n        while True:\n            pass\nraise E"
    ),
    "generators": "def f():\n    while True:\n        yield\nfor _ in f():\n    pass",
    "itertools": "import itertools, collections\ncollections.deque(itertools.count(), maxlen=0)",
    "a sort": "sorted(range(3), key=lambda x: [None for _ in iter(int, 1)])",
    "an event loop": "async def f():\n    while True:\n        await asyncio.sleep(0)\nawait f()",
    "tasks that resist cancelling": (
        "async def f():\n    while True:\n        try:\n            await asyncio.sleep(0)\n"
        "        except asyncio.CancelledError:\n            pass\nasyncio.create_task(f())\nawait asyncio.sleep(0)"
    ),
    "an exception handler of the loop": (
        "def spin(loop, context):\n    while True:\n        pass\n"
        "asyncio.get_running_loop().set_exception_handler(spin)\nasyncio.get_running_loop().call_soon(lambda: 1 / 0)\n"
        "await asyncio.sleep(0.01)"
    ),
    "sqlite": (
        "import sqlite3\nsqlite3.connect(':memory:').execute("
        "'with recursive n(x) as (select 1 union all select x + 1 from n) select count(*) from n').fetchone()"
    ),
    "hashing": "import hashlib\nwhile True:\n    hashlib.sha256(bytes(10**7))",
    "a trace function": "import sys\ndef spin(*_):\n    while True:\n        pass\nsys.settrace(spin)\n(lambda: 1)()",
    "an import hook": (
        "import sys\nclass F:\n    def find_spec(self, *a):\n        while True:\n            pass\n"
        "sys.meta_path.insert(0, F())\nimport nothing_here"
    ),
    "a nested comprehension": "any(0 for a in range(10**6) for b in range(10**6))",
    "compile": "compile('+'.join(['1'] * 10_000_000), '', 'eval')",
}


@pytest.mark.parametrize("code", BURNERS.values(), ids=BURNERS.keys())
async def test_cpu_time_ends_at_its_limit(code: str, run: Run) -> None:
    async with asyncio.timeout(15):
        outcome = await run("print('before')\n" + code, limits=LITTLE_CPU)
    assert isinstance(outcome.error, LimitReached)
    assert outcome.error.limit in ("cpu_s", "memory_mib") if "compile" in code else outcome.error.limit == "cpu_s"
    assert outcome.cpu_s < KILLED_WITHIN_S
    assert outcome.stdout == "before\n"


@pytest.mark.parametrize(
    "code", ["import time\ntime.sleep(100)", "await asyncio.sleep(100)", "t.never()", "await t.never()"]
)
async def test_waiting_ends_at_the_time_limit(code: str, run: Run) -> None:
    host = Host()
    async with asyncio.timeout(KILLED_WITHIN_S):
        outcome = await run(f"print('before')\n{code}", host=host, limits=Limits(timeout_s=0.2, tool_wait_s=0.2))
    limit = "tool_wait_s" if "never" in code else "timeout_s"
    assert isinstance(outcome.error, LimitReached) and outcome.error.limit == limit
    assert "0.2 s" in outcome.error.message
    assert outcome.stdout == "before\n"
    async with asyncio.timeout(KILLED_WITHIN_S):
        await host.idle.wait() if host.calls else None
    assert host.cancelled == (["t.never"] if "never" in code else [])


async def test_waiting_for_tools_is_counted_apart(run: Run) -> None:
    limits = Limits(timeout_s=0.15, tool_wait_s=20)
    outcome = await run("t.slow()\nt.slow()\n'done'", {"t.slow": _slow}, limits=limits)
    assert (outcome.result, outcome.error) == ("done", None)
    assert outcome.wall_s >= outcome.tool_wait_s > limits.timeout_s


async def _slow() -> None:
    await asyncio.sleep(0.1)


async def test_waiting_costs_no_cpu_time(run: Run) -> None:
    outcome = await run("await asyncio.sleep(0.3)\n1", limits=Limits(cpu_s=0.2))
    assert (outcome.result, outcome.error) == (1, None)
    assert outcome.cpu_s < 0.2


async def test_computing_ends_at_the_time_limit_too(run: Run) -> None:
    async with asyncio.timeout(KILLED_WITHIN_S):
        outcome = await run("while True:\n    pass", limits=Limits(timeout_s=0.2, cpu_s=60))
    assert isinstance(outcome.error, LimitReached) and outcome.error.limit == "timeout_s"


async def test_every_call_in_flight_is_cancelled_at_the_end(run: Run) -> None:
    host = Host()
    async with asyncio.timeout(KILLED_WITHIN_S):
        outcome = await run(
            "await asyncio.gather(*[t.never() for _ in range(5)])", host=host, limits=Limits(tool_wait_s=0.3)
        )
        assert isinstance(outcome.error, LimitReached)
        await host.idle.wait()
    assert host.cancelled == ["t.never"] * 5


async def test_an_error_of_the_code_cancels_its_calls(run: Run) -> None:
    host = Host()
    code = "calls = []\ncalls.append(t.never())\nawait t.echo(1)\n1 / 0"
    async with asyncio.timeout(KILLED_WITHIN_S):
        outcome = await run(code, host=host)
        await host.idle.wait()
    assert isinstance(outcome.error, CodeFailed) and outcome.error.type == "ZeroDivisionError"
    assert host.cancelled == ["t.never"]


# --- memory

HOARDERS = {
    "a string": "'a' * 10**9",
    "bytes": "bytearray(10**9)",
    "a list": "[0] * 10**9",
    "a growing list": "x = []\nwhile True:\n    x.append('a' * 100_000 + str(len(x)))",
    "a growing dict": "x = {}\nwhile True:\n    x[len(x)] = [0] * 1000",
    "doubling": "x = 'a'\nwhile True:\n    x += x",
    "a padded number": "f'{1:>1000000000}'",
    "a repeat": "import itertools\nlist(itertools.repeat(0))",
    "decompression": "import zlib\nd = zlib.compress(bytes(10**7))\nzlib.decompress(d) * 100",
    "a join": "','.join(['a' * 1000] * 10**6)",
}


@pytest.mark.parametrize("code", HOARDERS.values(), ids=HOARDERS.keys())
async def test_memory_ends_at_its_limit(code: str, run: Run) -> None:
    async with asyncio.timeout(20):
        outcome = await run(code, limits=Limits(memory_mib=96, cpu_s=10))
    assert isinstance(outcome.error, LimitReached) and outcome.error.limit == "memory_mib"
    assert "96 MiB" in outcome.error.message


async def test_code_may_catch_a_memory_error_and_go_on(run: Run) -> None:
    code = "try:\n    'a' * 10**9\nexcept MemoryError:\n    r = 'too much'\nr"
    assert (await run(code, limits=Limits(memory_mib=96))).result == "too much"


async def test_memory_within_the_limit_is_given(run: Run) -> None:
    assert (await run("len('a' * 100_000_000)", limits=Limits(memory_mib=256))).result == 100_000_000


# --- output, result, source


@pytest.mark.parametrize(
    "code",
    [
        "while True:\n    print('x' * 100)",
        "print('x' * 100_000)",
        "import sys\nwhile True:\n    sys.stderr.write('x' * 100)",
        "while True:\n    try:\n        print('x' * 100)\n    except BaseException:\n        pass",
        "for _ in range(20_000):\n    print('ä', end='')",
    ],
)
async def test_output_ends_at_its_limit_and_keeps_what_fits(code: str, run: Run) -> None:
    outcome = await run(code, limits=Limits(max_output_chars=10_000))
    assert isinstance(outcome.error, LimitReached) and outcome.error.limit == "max_output_chars"
    assert "10,000" in outcome.error.message
    assert len(outcome.stdout) + len(outcome.stderr) == 10_000


async def test_output_of_exactly_the_limit_is_fine(run: Run) -> None:
    outcome = await run("print('x' * 9_999)", limits=Limits(max_output_chars=10_000))
    assert outcome.error is None and len(outcome.stdout) == 10_000


async def test_a_result_over_its_limit_is_refused(run: Run) -> None:
    outcome = await run("print('before')\n'x' * 10_000", limits=Limits(max_result_chars=1_000))
    assert isinstance(outcome.error, LimitReached) and outcome.error.limit == "max_result_chars"
    assert "1,000" in outcome.error.message
    assert (outcome.result, outcome.stdout) == (None, "before\n")


async def test_code_over_its_limit_is_refused_before_it_runs(run: Run) -> None:
    host = Host()
    outcome = await run("t.echo(1)\n" + "#" * 1000, host=host, limits=Limits(max_source_chars=1_000))
    assert isinstance(outcome.error, LimitReached) and outcome.error.limit == "max_source_chars"
    assert host.calls == []


# --- calls


async def test_arguments_over_their_limit_are_an_argument_error_and_never_reach_the_host(run: Run) -> None:
    host = Host()
    code = "try:\n    t.echo('x' * 2_000)\nexcept ArgumentError as e:\n    r = str(e)\n[r, t.echo('fits')]"
    for program in (code, f"await asyncio.sleep(0)\n{code}"):
        outcome = await run(program, host=host, limits=Limits(max_argument_chars=1_000))
        assert outcome.error is None
        assert "1,000" in outcome.result[0] and outcome.result[1] == "fits"
    assert [positional for _, positional, _ in host.calls] == [["fits"]] * 2


@pytest.mark.parametrize("reply", ["x" * 2_000, ["x" * 2_000]], ids=["text", "JSON"])
async def test_a_reply_over_its_limit_is_a_tool_error(reply: Any, run: Run) -> None:
    async def big() -> Any:
        return reply

    code = "try:\n    t.big()\nexcept ToolError as e:\n    r = str(e)\nr"
    outcome = await run(code, {"t.big": big}, limits=Limits(max_reply_chars=1_000))
    assert outcome.error is None
    assert "max_reply_chars=1,000" in outcome.result


async def test_a_kept_value_over_the_limit_is_a_tool_error(run: Run) -> None:
    host = Host()
    host.kept["r1"] = "x" * 2_000
    code = "try:\n    load('r1')\nexcept ToolError as e:\n    r = str(e)\nr"
    assert "max_reply_chars" in (await run(code, host=host, limits=Limits(max_reply_chars=1_000))).result


async def test_a_reply_of_a_megabyte_arrives(run: Run) -> None:
    host = Host()
    assert (await run("len(t.echo('x' * 1_000_000))", host=host)).result == 1_000_000


@pytest.mark.parametrize("start", ["", "await asyncio.sleep(0)\n"], ids=["no loop", "loop"])
async def test_calls_beyond_their_number_are_tool_errors(start: str, run: Run) -> None:
    host = Host()
    code = f"""{start}
done, refused = 0, 0
for i in range(10):
    try:
        t.echo(i)
        done += 1
    except ToolError as e:
        refused += 1
        message = str(e)
[done, refused, message]
"""
    outcome = await run(code, host=host, limits=Limits(max_tool_calls=4))
    assert outcome.result[:2] == [4, 6]
    assert "4" in outcome.result[2]
    assert len(host.calls) == 4


async def test_the_host_never_sees_more_parallel_calls_than_allowed(run: Run) -> None:
    full = asyncio.Barrier(3)

    async def meet(value: int) -> int:
        await full.wait()  # opens for three at a time: all three places are really used
        return value

    host = Host({"t.meet": meet})
    code = "await asyncio.gather(*[t.meet(i) for i in range(12)])"
    outcome = await run(code, host=host, limits=Limits(max_parallel_calls=3, timeout_s=10))
    assert outcome.result == list(range(12))
    assert host.most_in_flight == 3


async def test_a_cancelled_call_makes_room_for_the_next(run: Run) -> None:
    host = Host()
    code = """
for _ in range(3):
    try:
        await asyncio.wait_for(t.never(), 0.01)
    except TimeoutError:
        pass
await t.echo("room")
"""
    outcome = await run(code, host=host, limits=Limits(max_parallel_calls=1, timeout_s=10))
    assert (outcome.result, host.cancelled) == ("room", ["t.never"] * 3)


# --- depth

DEEP = {
    "Python": "def f():\n    return f()\nf()",
    "Python through C": "def f(x):\n    return max([1], key=f)\nf(1)",
    "__getattr__": "class A:\n    def __getattr__(self, n):\n        return getattr(self, n + 'x')\nA().a",
    "repr": "x = []\nfor _ in range(10**5):\n    x = [x]\nrepr(x)",
    "json.dumps": "x = []\nfor _ in range(10**5):\n    x = [x]\njson.dumps(x)",
    "json.loads": "json.loads('[' * 10**5)",
    "pickle": "import pickle\nx = []\nfor _ in range(10**5):\n    x = [x]\npickle.dumps(x)",
    "the parser": "eval('(' * 10**5)",
    "the compiler": "eval('-' * 10**5 + '1')",
    "comparison": "a = []\nb = []\nfor _ in range(10**5):\n    a, b = [a], [b]\na == b",
    "copy.deepcopy": "import copy\nx = []\nfor _ in range(10**5):\n    x = [x]\ncopy.deepcopy(x)",
    "a raised limit": "import sys\nsys.setrecursionlimit(10**9)\ndef f():\n    return f()\nf()",
    "a raised limit in C": (
        "import sys\nsys.setrecursionlimit(10**9)\nclass A:\n    def __repr__(self):\n        return repr(self)\nrepr(A())"
    ),
}


@pytest.mark.parametrize("code", DEEP.values(), ids=DEEP.keys())
async def test_recursion_without_end_is_an_error_that_says_so(code: str, run: Run) -> None:
    async with asyncio.timeout(30):
        outcome = await run(code)
    if isinstance(outcome.error, CodeFailed):
        assert outcome.error.type in ("RecursionError", "MemoryError", "SyntaxError")
    else:
        assert isinstance(outcome.error, LimitReached)
        assert outcome.error.limit in ("stack", "memory_mib")


async def test_code_may_catch_a_recursion_error_and_go_on(run: Run) -> None:
    code = "def f():\n    f()\ntry:\n    f()\nexcept RecursionError:\n    r = 'deep'\nr"
    assert (await run(code)).result == "deep"


@pytest.mark.parametrize("depth", [500, 2_000, 100_000])
async def test_a_deeply_nested_result_is_shown_to_a_depth_or_refused(depth: int, run: Run) -> None:
    outcome = await run(f"x = []\nfor _ in range({depth}):\n    x = [x]\nx")
    if outcome.error is None:
        assert isinstance(outcome.result, list)
    else:
        assert isinstance(outcome.error, LimitReached) and outcome.error.limit == "max_depth"


async def test_a_result_as_deep_as_the_limit_allows_arrives(run: Run) -> None:
    code = "x = 1\nfor _ in range({}):\n    x = [x]\nx"
    deep = await run(code.format(400), limits=Limits(max_depth=450))
    while isinstance(deep.result, list):
        deep = dataclasses.replace(deep, result=deep.result[0])
    assert (deep.result, deep.error) == (1, None)
    deeper = (await run(code.format(460), limits=Limits(max_depth=450))).error
    assert isinstance(deeper, LimitReached) and deeper.limit == "max_depth"


# --- a killed guest harms nobody

KILLS = {
    "cpu_s": ("while True:\n    pass", LITTLE_CPU),
    "timeout_s": ("import time\ntime.sleep(9)", Limits(timeout_s=0.1)),
    "tool_wait_s": ("t.never()", Limits(tool_wait_s=0.1)),
    "memory_mib": ("x = []\nwhile True:\n    x.append('a' * 10**6 + str(len(x)))", Limits(memory_mib=64)),
    "max_output_chars": ("while True:\n    print('x' * 1000)", Limits(max_output_chars=1_000)),
}


@pytest.mark.parametrize("limit", KILLS)
async def test_the_execution_after_a_kill_is_fine(limit: str, run: Run) -> None:
    code, limits = KILLS[limit]
    for _ in range(3):
        killed = await run(code, limits=limits)
        assert isinstance(killed.error, LimitReached) and killed.error.limit == limit
    after = await run("print('fine')\nt.add(1, 2)")
    assert (after.result, after.stdout, after.error) == (3, "fine\n", None)


async def test_executions_next_to_a_killed_one_are_unaffected(run: Run) -> None:
    """All of them wait in a tool until every killed one is dead."""
    dead = asyncio.Event()

    async def wait() -> str:
        await dead.wait()
        return "alive"

    async def kill_all() -> list[Any]:
        killed = await asyncio.gather(*[run(code, limits=limits) for code, limits in KILLS.values()])
        dead.set()
        return [outcome.error.limit for outcome in killed if isinstance(outcome.error, LimitReached)]

    limits = dataclasses.replace(LITTLE_CPU, cpu_s=10)
    survivors = [run("x = [1, 2]\n[t.wait(), x]", {"t.wait": wait}, limits=limits) for _ in range(3)]
    limits_reached, *alive = await asyncio.gather(kill_all(), *survivors)
    assert limits_reached == list(KILLS)
    assert [(outcome.result, outcome.error) for outcome in alive] == [(["alive", [1, 2]], None)] * 3


async def test_what_the_host_holds_for_an_execution_is_bounded_as_a_whole(run: Run) -> None:
    limits = Limits(max_argument_chars=1_000_000, max_reply_chars=1_000_000)
    code = """
calls = [t.echo(value="x" * 900_000) for _ in range(20)]
answers = await asyncio.gather(*calls, return_exceptions=True)
sum("too much at once" in str(answer) for answer in answers)
"""
    outcome = await run(code, limits=limits)
    assert outcome.error is None and outcome.result >= 10
