"""What code may do in the sandbox: tool calls in every spelling, results of every kind, ordinary Python."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mcpgate_sandbox.engine import Engine, Handle, Limits
from mcpgate_sandbox.errors import CodeFailed, ToolFailed
from sandbox.tests.conftest import Host, Run

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine(any_engine: Engine) -> Engine:
    """What stands here holds on every engine."""
    return any_engine


Value = Callable[..., Awaitable[Any]]

SHORT = Limits(timeout_s=5, cpu_s=5)
"""For calls that meet at a barrier: if they do not overlap, nobody ever arrives there."""


def meeting(parties: int) -> Callable[[Any], Awaitable[Any]]:
    """A tool that answers nobody before all parties have called it."""
    barrier = asyncio.Barrier(parties)

    async def meet(value: Any = None) -> Any:
        await barrier.wait()
        return value

    return meet


# --- calls, one after the other


async def test_a_call_gives_the_tools_value(value: Value) -> None:
    assert await value("t.rows(2)") == [{"n": 0, "name": "row 0"}, {"n": 1, "name": "row 1"}]


async def test_an_awaited_call_gives_the_tools_value(value: Value) -> None:
    assert await value("await t.rows(1)") == [{"n": 0, "name": "row 0"}]


async def test_arguments_arrive_by_position_and_by_name(run: Run) -> None:
    host = Host()
    outcome = await run("[t.add(1, 2), t.add(1, b=3), t.add(a=1, b=4), t.add(**{'a': 5})]", host=host)
    assert outcome.result == [3, 4, 5, 5]
    assert [(args, named) for _, args, named in host.calls] == [
        ([1, 2], {}),
        ([1], {"b": 3}),
        ([], {"a": 1, "b": 4}),
        ([], {"a": 5}),
    ]


async def test_an_argument_may_be_called_like_the_stubs_own(value: Value) -> None:
    async def odd(**named: Any) -> Any:
        return named

    code = "t.odd(self=1, name=2, args=3, server=4)"
    assert await value(code, {"t.odd": odd}) == {"self": 1, "name": 2, "args": 3, "server": 4}


async def test_arguments_that_json_has_no_word_for_are_sent_as_the_nearest_thing(run: Run) -> None:
    host = Host()
    code = """
import datetime, decimal, enum, dataclasses, uuid, pathlib, collections
class Color(enum.Enum):
    RED = "red"
@dataclasses.dataclass
class Point:
    x: int
    y: int
Pair = collections.namedtuple("Pair", "a b")
t.echo([
    {3, 1, 2}, (1, 2), datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 2, 3, 4), decimal.Decimal("1.5"),
    decimal.Decimal("2"), Color.RED, Point(1, 2), pathlib.PurePosixPath("a/b"), uuid.UUID(int=1),
    {"a": 1}.keys(), (x for x in "ab"), range(2), collections.Counter("aab"),
])
"""
    outcome = await run(code, host=host)
    assert outcome.error is None
    assert host.calls[0][1][0] == [
        *([1, 2, 3], [1, 2], "2026-01-02", "2026-01-02T03:04:00", 1.5, 2, "red", {"x": 1, "y": 2}, "a/b"),
        *("00000000-0000-0000-0000-000000000001", ["a"], ["a", "b"], [0, 1], {"a": 2, "b": 1}),
    ]


async def test_bytes_as_an_argument_are_refused_with_a_way_out(run: Run) -> None:
    host = Host()
    outcome = await run("t.echo(b'ab')", host=host)
    assert isinstance(outcome.error, CodeFailed)
    assert outcome.error.type == "TypeError" and "base64" in outcome.error.message
    assert host.calls == []


async def test_integers_of_any_size_arrive_exactly(run: Run) -> None:
    host = Host()
    outcome = await run("n = t.echo(2**200)\n[n, n == 2**200, -2**64]", host=host)
    assert host.calls[0][1] == [2**200]
    assert outcome.result == [2**200, True, -(2**64)]


async def test_text_crosses_unharmed(value: Value) -> None:
    text = "ä€😀\u2028\x00\n\"'\\ \ufeff"
    assert await value(f"t.echo({text!r}) == {text!r} and t.echo({text!r})") == text


async def test_a_lone_surrogate_becomes_a_question_mark(run: Run) -> None:
    outcome = await run("print('<\\ud800>')\n[t.echo('a\\ud800b'), '\\udfffx']")
    assert (outcome.result, outcome.stdout, outcome.error) == (["a?b", "?x"], "<?>\n", None)


async def test_a_reply_of_any_json_kind_arrives_as_the_python_value(value: Value) -> None:
    replies = [None, True, 0, -1.5, "", "text", [], {}, [[]], {"a": {"b": [1, None]}}, "é" * 5000, list(range(1000))]

    async def get(index: int) -> Any:
        return replies[index]

    code = "r = [t.get(i) for i in range(12)]\n[r, [type(x).__name__ for x in r]]"
    found, types = await value(code, {"t.get": get})
    assert found == replies
    assert types == [type(reply).__name__ for reply in replies]


async def test_a_handle_stands_for_what_stays_on_the_host(value: Value) -> None:
    async def picture() -> Any:
        return {"caption": "a dot", "image": Handle("h1", "image", "image/png", 1234, "file:///dot.png")}

    code = "p = t.picture()\n[repr(p['image']), p['image'].id, p['image'].size, p['image']]"
    assert await value(code, {"t.picture": picture}) == [
        "<image h1: image/png, 1,234 bytes file:///dot.png>",
        "h1",
        1234,
        Handle("h1"),
    ]


async def test_load_gives_what_the_host_kept(run: Run) -> None:
    host = Host()
    host.kept["r7"] = {"rows": [1, 2]}
    outcome = await run("load('r7')['rows'] + [isinstance(load('r7'), dict)]", host=host)
    assert outcome.result == [1, 2, True]


async def test_load_of_nothing_is_a_catchable_error(value: Value) -> None:
    assert await value("try:\n    load('r9')\nexcept ToolError as e:\n    r = 'r9' in str(e)\nr") is True


# --- servers and tools by name


async def test_dir_of_a_server_lists_its_tools(value: Value) -> None:
    assert await value("dir(t)") == ["add", "echo", "fail", "never", "rows"]


async def test_a_tool_is_found_under_its_original_name_too(value: Value) -> None:
    async def odd() -> str:
        return "odd"

    assert await value('[t["odd-name"](), t.odd_name(), getattr(t, "odd-name")()]', {"t.odd-name": odd}) == ["odd"] * 3


async def test_an_unknown_tool_is_an_attribute_error_with_the_nearest_name(run: Run) -> None:
    outcome = await run("x = 1\nt.ecko(1)")
    assert isinstance(outcome.error, CodeFailed)
    assert (outcome.error.type, outcome.error.line, outcome.error.name) == ("AttributeError", 2, "ecko")
    assert "did you mean echo" in outcome.error.message


async def test_an_unknown_tool_like_no_other_says_how_to_see_them(run: Run) -> None:
    outcome = await run("t.zzzzzz()")
    assert "dir(t)" in outcome.error.message  # type: ignore[union-attr]


async def test_hasattr_and_getattr_work_on_a_server(value: Value) -> None:
    assert await value("[hasattr(t, 'echo'), hasattr(t, 'nope'), getattr(t, 'nope', 5)]") == [True, False, 5]


async def test_servers_and_tools_show_what_they_are(value: Value) -> None:
    assert await value("[repr(t), repr(t.echo), t.echo.__name__]") == ["<server t: 5 tools>", "<tool t.echo>", "echo"]


async def test_a_server_called_like_a_module_keeps_its_tools_after_the_import(value: Value) -> None:
    async def now() -> str:
        return "the tool's"

    code = "import time\n[time.now(), time.time() > 0, callable(time.sleep)]"
    assert await value(code, {"time.now": now}) == ["the tool's", True, True]


async def test_a_server_called_like_a_package_keeps_its_tools_after_importing_a_submodule(value: Value) -> None:
    async def now() -> str:
        return "the tool's"

    code = "import xml.sax.saxutils, json as time\n[xml.now(), xml.sax.saxutils.escape('<'), time.now(), time.dumps(1)]"
    assert await value(code, {"xml.now": now, "time.now": now}) == ["the tool's", "&lt;", "the tool's", "1"]


async def test_code_may_use_a_servers_name_for_something_else(value: Value) -> None:
    assert await value("def f(t):\n    return t + 1\nawait asyncio.sleep(0)\n[f(1), [t for t in 'ab']]") == [
        2,
        ["a", "b"],
    ]


# --- failures of tools


async def test_a_failing_tool_raises_a_tool_error_with_fields(value: Value) -> None:
    code = """
try:
    t.fail("no such file")
except ToolError as e:
    r = [e.server, e.tool, e.message, e.data, str(e), isinstance(e, ArgumentError), isinstance(e, Exception)]
r
"""
    expected = ["t", "fail", "no such file", {"code": 7}, "t.fail: no such file", False, True]
    assert await value(code) == expected
    assert await value(code.replace("t.fail(", "await t.fail(")) == expected


async def test_refused_arguments_are_an_argument_error_and_a_type_error(value: Value) -> None:
    async def strict(**named: Any) -> Any:
        raise ToolFailed("path is missing", server="t", tool="strict", kind="arguments")

    code = (
        "try:\n    t.strict()\nexcept TypeError as e:\n    r = [type(e).__name__, isinstance(e, ToolError), str(e)]\nr"
    )
    assert await value(code, {"t.strict": strict}) == ["ArgumentError", True, "t.strict: path is missing"]


async def test_an_uncaught_tool_error_names_the_tool_and_the_models_line(run: Run) -> None:
    outcome = await run("x = 1\n\ndef get():\n    return t.fail('gone')\n\nget()")
    error = outcome.error
    assert isinstance(error, CodeFailed)
    assert (error.type, error.message, error.server, error.tool) == ("ToolError", "t.fail: gone", "t", "fail")
    assert error.traceback == "line 6: get()\nline 4 in get: return t.fail('gone')"


async def test_gather_can_return_the_errors(value: Value) -> None:
    code = "a, b = await asyncio.gather(t.fail('x'), t.echo(1), return_exceptions=True)\n[str(a), b]"
    assert await value(code) == ["t.fail: x", 1]


async def test_except_star_catches_what_a_task_group_collected(value: Value) -> None:
    code = """
caught = []
try:
    async with asyncio.TaskGroup() as group:
        group.create_task(t.fail("a"))
        group.create_task(t.never())
except* ToolError as errors:
    caught = [e.message for e in errors.exceptions]
caught
"""
    assert await value(code) == ["a"]


async def test_a_defect_of_the_host_is_a_tool_error_for_the_guest(run: Run) -> None:
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))

    async def broken() -> Any:
        raise KeyError("secret detail")

    outcome = await run("try:\n    t.broken()\nexcept ToolError as e:\n    r = str(e)\nr", {"t.broken": broken})
    assert outcome.result == "t.broken: the gateway failed: KeyError"
    assert isinstance(heard[0]["exception"], KeyError)


async def test_a_call_that_the_host_cancels_itself_is_an_error_and_no_endless_wait(run: Run) -> None:
    async def torn() -> Any:
        raise asyncio.CancelledError

    outcome = await run(
        "try:\n    t.torn()\nexcept ToolError as e:\n    r = 'caught'\nr", {"t.torn": torn}, limits=SHORT
    )
    assert (outcome.result, outcome.error) == ("caught", None)


async def test_a_defect_of_the_hosts_own_helpers_is_a_tool_error_for_the_guest(run: Run) -> None:
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    host = Host()
    host.kept["r1"] = object()
    outcome = await run("try:\n    load('r1')\nexcept ToolError as e:\n    r = str(e)\nr", host=host)
    assert (outcome.result, outcome.error) == ("the gateway failed: TypeError", None)
    assert isinstance(heard[0]["exception"], TypeError)


# --- calls at the same time: each tool answers only when all have arrived

TOGETHER = {
    "gather": "await asyncio.gather(t.meet(1), t.meet(2), t.meet(3))",
    "gather of a list": "await asyncio.gather(*[t.meet(i) for i in (1, 2, 3)])",
    "gather of a generator": "await asyncio.gather(*(t.meet(i) for i in (1, 2, 3)))",
    "gather of a map": "await asyncio.gather(*map(t.meet, (1, 2, 3)))",
    "started before the first is awaited": "a = t.meet(1); b = t.meet(2); c = t.meet(3)\n[await a, await b, await c]",
    "started in a list": "calls = [t.meet(i) for i in (1, 2, 3)]\n[await call for call in calls]",
    "started in a dict": "calls = {i: t.meet(i) for i in (1, 2, 3)}\n[await call for call in calls.values()]",
    "appended": "calls = []\nfor i in (1, 2, 3):\n    calls.append(t.meet(i))\nawait asyncio.gather(*calls)",
    "tasks": "tasks = [asyncio.create_task(t.meet(i)) for i in (1, 2, 3)]\n[await task for task in tasks]",
    "ensure_future": "tasks = [asyncio.ensure_future(t.meet(i)) for i in (1, 2, 3)]\n[await task for task in tasks]",
    "task group": (
        "async with asyncio.TaskGroup() as group:\n"
        "    tasks = [group.create_task(t.meet(i)) for i in (1, 2, 3)]\n"
        "[task.result() for task in tasks]"
    ),
    "as_completed": "sorted([await done for done in asyncio.as_completed([t.meet(i) for i in (1, 2, 3)])])",
    "wait": "done, left = await asyncio.wait([t.meet(i) for i in (1, 2, 3)])\nsorted(task.result() for task in done)",
    "wait of tasks": (
        "done, left = await asyncio.wait({asyncio.create_task(t.meet(i)) for i in (1, 2, 3)})\n"
        "sorted(task.result() for task in done)"
    ),
    "wait_for in gather": "await asyncio.gather(*[asyncio.wait_for(t.meet(i), 60) for i in (1, 2, 3)])",
    "shield in gather": "await asyncio.gather(*[asyncio.shield(t.meet(i)) for i in (1, 2, 3)])",
    "functions": ("async def get(i):\n    return await t.meet(i)\nawait asyncio.gather(*[get(i) for i in (1, 2, 3)])"),
    "functions that do not await": (
        "async def get(i):\n    return t.meet(i)\nawait asyncio.gather(*[get(i) for i in (1, 2, 3)])"
    ),
    "functions that use the value at once": (
        "async def get(i):\n    x = t.meet(i)\n    return x + 0\nawait asyncio.gather(*[get(i) for i in (1, 2, 3)])"
    ),
    "plain functions that return the call": (
        "def get(i):\n    return t.meet(i)\nawait asyncio.gather(get(1), get(2), get(3))"
    ),
    "a lambda": "get = lambda i: t.meet(i)\nawait asyncio.gather(get(1), get(2), get(3))",
    "methods": (
        "class Client:\n    async def get(self, i):\n        return await t.meet(i)\n"
        "client = Client()\nawait asyncio.gather(*[client.get(i) for i in (1, 2, 3)])"
    ),
    "a semaphore that lets three in": (
        "gate = asyncio.Semaphore(3)\nasync def get(i):\n    async with gate:\n        return await t.meet(i)\n"
        "await asyncio.gather(*[get(i) for i in (1, 2, 3)])"
    ),
    "asyncio.run": (
        "async def main():\n    return await asyncio.gather(*[t.meet(i) for i in (1, 2, 3)])\nasyncio.run(main())"
    ),
    "asyncio.run beside a top-level await": (
        "async def main():\n    return await asyncio.gather(*[t.meet(i) for i in (1, 2, 3)])\n"
        "await asyncio.sleep(0)\nasyncio.run(main())"
    ),
    "asyncio.Runner": (
        "async def main():\n    return await asyncio.gather(*[t.meet(i) for i in (1, 2, 3)])\n"
        "with asyncio.Runner() as runner:\n    result = runner.run(main())\nresult"
    ),
    "a new event loop": (
        "async def main():\n    return await asyncio.gather(*[t.meet(i) for i in (1, 2, 3)])\n"
        "loop = asyncio.new_event_loop()\nloop.run_until_complete(main())"
    ),
    "a queue of workers": (
        "queue = asyncio.Queue()\nfound = []\nfor i in (1, 2, 3):\n    queue.put_nowait(i)\n"
        "async def work():\n    while not queue.empty():\n        found.append(await t.meet(queue.get_nowait()))\n"
        "await asyncio.gather(work(), work(), work())\nsorted(found)"
    ),
    "all spellings at once": (
        "async def get(i):\n    return await t.meet(i)\n"
        "first = t.meet(1)\ntask = asyncio.create_task(get(2))\nthird = asyncio.create_task(t.meet(3))\n"
        "[await first, *(await asyncio.gather(task, third))]"
    ),
}


@pytest.mark.parametrize("code", TOGETHER.values(), ids=TOGETHER.keys())
async def test_calls_overlap(code: str, value: Value) -> None:
    assert await value(code, {"t.meet": meeting(3)}, limits=SHORT) == [1, 2, 3]


async def test_thirty_calls_of_one_gather_all_arrive_before_any_is_answered(value: Value) -> None:
    code = "await asyncio.gather(*[t.meet(i) for i in range(30)])"
    assert await value(code, {"t.meet": meeting(30)}, limits=SHORT) == list(range(30))


async def test_a_semaphore_of_the_code_bounds_its_calls(run: Run) -> None:
    host = Host()
    code = """
gate = asyncio.Semaphore(2)
async def get(i):
    async with gate:
        return await t.echo(i)
await asyncio.gather(*[get(i) for i in range(12)])
"""
    outcome = await run(code, host=host)
    assert outcome.result == list(range(12))
    assert host.most_in_flight <= 2


async def test_answers_come_in_the_order_in_which_tools_answer(value: Value) -> None:
    gates = {name: asyncio.Event() for name in "abc"}

    async def step(name: str) -> str:
        await gates[name].wait()
        return name

    async def let_go(name: str) -> None:
        gates[name].set()

    code = """
order = []
calls = [t.step(name) for name in "abc"]
await t.let_go("b")
for done in asyncio.as_completed(calls):
    order.append(await done)
    if len(order) < 3:
        await t.let_go({"b": "c", "c": "a"}[order[-1]])
order
"""
    assert await value(code, {"t.step": step, "t.let_go": let_go}, limits=SHORT) == ["b", "c", "a"]


async def test_wait_returns_at_the_first_answer(run: Run) -> None:
    code = """
tasks = [asyncio.create_task(t.never()), asyncio.create_task(t.echo("quick"))]
done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
[[task.result() for task in done], len(left)]
"""
    assert (await run(code, limits=SHORT)).result == [["quick"], 1]


async def test_other_tasks_go_on_while_one_waits_for_a_tool(value: Value) -> None:
    release = asyncio.Event()

    async def wait() -> str:
        await release.wait()
        return "released"

    async def let_go() -> None:
        release.set()

    code = """
async def second():
    await asyncio.sleep(0)
    await t.let_go()
task = asyncio.create_task(second())
first = t.wait()
[first, await task]
"""
    tools = {"t.wait": wait, "t.let_go": let_go}
    assert await value(code, tools, limits=SHORT) == ["released", None]
    assert await value(code.replace("first = t", "first = await t"), tools, limits=SHORT) == ["released", None]


# --- with and without `await`

WITHOUT_AWAIT: dict[str, Any] = {
    "x = t.rows()\nx[0]['n']": 0,
    "x = t.rows()\nlen(x)": 3,
    "x = t.rows()\n[row['n'] for row in x]": [0, 1, 2],
    "x = t.rows()\nr = 0\nfor row in x:\n    r += row['n']\nr": 3,
    "t.rows()[1]['name']": "row 1",
    "[row['n'] for row in t.rows()]": [0, 1, 2],
    "sum(row['n'] for row in t.rows())": 3,
    "{row['n']: row['name'] for row in t.rows(1)}": {"0": "row 0"},
    "def get(i):\n    return t.echo(i)\nget(1) + get(2)": 3,
    "def get(i):\n    return t.echo(i)\n[get(i) for i in range(3)]": [0, 1, 2],
    "async def get(i):\n    return t.echo(i)\nx = await get(4)\n[type(x).__name__, x]": ["int", 4],
    "async def get():\n    x = t.rows()\n    return [row['n'] for row in x]\nawait get()": [0, 1, 2],
    "async def get():\n    return t.rows(2)\nmatch await get():\n    case [{'n': first}, *_]:\n        r = first\nr": 0,
    "get = lambda i: t.echo(i)\n[get(1), get(2)]": [1, 2],
    "def get():\n    yield t.echo(1)\n    yield t.echo(2)\nlist(get())": [1, 2],
    "class Client:\n    def __init__(self):\n        self.name = t.echo('n')\nClient().name.upper()": "N",
    "f'{t.echo(1)} {t.echo(2.5):.2f} {t.echo(\"a\")!r:>5}'": "1 2.50   'a'",
    "x = t.echo('abc')\nf'{x} {x:>5} {x[0]}'": "abc   abc a",
    "json.dumps(t.rows(1))": '[{"n": 0, "name": "row 0"}]',
    "x = t.rows(1)\njson.dumps(x, indent=None, sort_keys=True)": '[{"n": 0, "name": "row 0"}]',
    "json.dumps({'rows': [t.echo(1), t.echo('a')]})": '{"rows": [1, "a"]}',
    "json.loads(t.echo('[1]'))": [1],
    "x = t.echo('[1]')\njson.loads(x)": [1],
    "x = t.rows()\n[isinstance(x, list), isinstance(x, dict)]": [True, False],
    "isinstance(t.echo('a'), str)": True,
    "x = t.echo('a')\n[type(x).__name__, type(x) is str]": ["str", True],
    "x = t.echo()\n[x is None, x]": [True, None],
    "x = t.echo(False)\n'no' if not x else 'yes'": "no",
    "[t.echo(1) < 2, t.echo(2) == 2, 3 >= t.echo(4), t.echo(1) != 1, t.echo('a') in 'abc']": [
        *(True, True, False, False, True),
    ],
    "[t.echo(7) + 1, 1 + t.echo(7), t.echo(7) // 2, 2 ** t.echo(3), -t.echo(1), t.echo('a') * 2]": [
        *(8, 8, 3, 8, -1, "aa"),
    ],
    "t.echo('a') + t.echo('b')": "ab",
    "total = 0\nfor i in range(3):\n    total += t.echo(i)\ntotal": 3,
    "r = {'a': t.echo(1), 'b': {'c': [t.echo(2)]}}\nr": {"a": 1, "b": {"c": [2]}},
    "{'a': t.echo(1), **t.echo({'b': 2})}": {"a": 1, "b": 2},
    "[*t.echo([1]), *t.echo([2])]": [1, 2],
    "(t.echo(1), [t.echo(2)], {'x': (t.echo(3),)})": [1, [2], {"x": [3]}],
    "t.add(t.echo(1), b=t.echo(2))": 3,
    "t.echo({'inner': [t.echo(1)]})": {"inner": [1]},
    "a, b = t.echo([1, 2])\na + b": 3,
    "first, *rest = t.rows()\nlen(rest)": 2,
    "', '.join([t.echo(x) for x in 'ab'])": "a, b",
    "names = [t.echo(x) for x in 'ab']\n', '.join(names)": "a, b",
    "', '.join(t.echo(x) for x in 'ab')": "a, b",
    "sorted([t.echo(x) for x in (3, 1, 2)])": [1, 2, 3],
    "sum([t.echo(x) for x in (3, 1, 2)])": 6,
    "max(t.echo(1), t.echo(5))": 5,
    "{t.echo(1), t.echo(1)}": [1],
    "{t.echo(x % 2) for x in range(4)}": [0, 1],
    "len({t.echo(x): 0 for x in 'aab'})": 2,
    "prices = {'a': 5}\nkeys = [t.echo('a')]\n[prices[keys[0]], keys[0] in prices]": [5, True],
    "def get():\n    return t.echo('a')\nprices = {'a': 5}\n[prices[get()], prices.get(get())]": [5, 5],
    "import re\nre.findall('[0-9]', t.echo('a1b2'))": ["1", "2"],
    "x = t.echo('a1b2')\nimport re\nre.sub('[0-9]', '', x)": "ab",
    "t.echo(' x ').strip().upper()": "X",
    "x = t.echo({'a': 1})\n[x.get('a'), list(x.items()), 'a' in x, dict(x), x | {'b': 2}]": [
        *(1, [["a", 1]], True, {"a": 1}, {"a": 1, "b": 2}),
    ],
    "x = t.echo([3])\nx.append(4)\nx[0] = 5\ndel x[1]\nx": [5],
    "from datetime import date\ndate.fromisoformat(t.echo('2026-01-02')).year": 2026,
    "int(t.echo('5')) + float(t.echo(1)) + round(t.echo(2.4)) + abs(t.echo(-1))": 9,
    "list(range(t.echo(3)))": [0, 1, 2],
    "['a', 'b'][t.echo(1)]": "b",
    "'%s %d' % (t.echo('a'), t.echo(2))": "a 2",
    "'{} {x}'.format(t.echo('a'), x=t.echo(2))": "a 2",
    "match t.echo({'kind': 'a', 'n': 1}):\n    case {'kind': 'a', 'n': n}:\n        r = n\nr": 1,
    "if (x := t.echo(5)) > 3:\n    r = x\nr": 5,
    "(lambda v: v)(t.echo(1)) + 1": 2,
    "list(zip(t.echo([1]), t.echo(['a'])))": [[1, "a"]],
    "[x for i in range(2) for x in t.echo([i, i])]": [0, 0, 1, 1],
    "any(t.echo(x) for x in (0, 1))": True,
    "try:\n    t.fail('x')\nexcept ToolError as e:\n    r = e.message\nr": "x",
    "import copy\ncopy.deepcopy(t.rows(1)) == t.rows(1)": True,
    "t.echo(1) and t.echo(2)": 2,
    "t.echo(0) or t.echo(3)": 3,
    "t.echo(1) if t.echo(True) else t.echo(2)": 1,
    "while not t.echo(True):\n    pass\nelse:\n    r = 1\nr": 1,
    "assert t.echo(True)\n1": 1,
}


@pytest.mark.parametrize("loop", ["no loop", "loop"])
async def test_a_call_without_await_means_the_value(loop: str, run: Run) -> None:
    wrong = {}
    for code, expected in WITHOUT_AWAIT.items():
        outcome = await run(code if loop == "no loop" else f"await asyncio.sleep(0)\n{code}")
        if outcome.error is not None or outcome.result != expected:
            wrong[code] = outcome.error or outcome.result
    assert wrong == {}


async def test_the_same_programs_mean_the_same_inside_an_async_function(run: Run) -> None:
    wrong = {}
    for code, expected in WITHOUT_AWAIT.items():
        *body, last = code.split("\n")
        lines = [*body, f"return {last}"] if not last.startswith(" ") else [*body, last]
        program = "async def main():\n" + "\n".join(f"    {line}" for line in lines) + "\nawait main()"
        outcome = await run(program)
        if outcome.error is not None or outcome.result != expected:
            wrong[program] = outcome.error or outcome.result
    assert wrong == {}


async def test_printing_a_call_prints_its_value(run: Run) -> None:
    code = "print(t.echo('a'), t.echo([1]), [t.echo('b')], {'k': t.echo(None)}, sep='|')"
    expected = "a|[1]|['b']|{'k': None}\n"
    assert (await run(code)).stdout == expected
    assert (await run(f"await asyncio.sleep(0)\n{code}")).stdout == expected


async def test_a_call_can_be_awaited_twice(value: Value) -> None:
    assert await value("x = t.echo(1)\n[await x, await x]") == [1, 1]


async def test_one_call_can_be_awaited_by_two_tasks(run: Run) -> None:
    host = Host({"t.meet": meeting(1)})
    code = "x = t.meet(1)\nasync def get():\n    return await x\nawait asyncio.gather(get(), get(), x)"
    assert (await run(code, host=host)).result == [1, 1, 1]
    assert len(host.calls) == 1


async def test_a_failed_call_fails_each_time_it_is_used(value: Value) -> None:
    code = """
x = [t.fail("no")]
caught = 0
for attempt in range(2):
    try:
        await x[0]
    except ToolError:
        caught += 1
caught
"""
    assert await value(code) == 2


# --- results

RESULTS: dict[str, Any] = {
    "1 + 1": 2,
    "x = 5\nx": 5,
    "x = 5": None,
    "None": None,
    "": None,
    "# only a comment": None,
    "'text'": "text",
    "print('x')": None,
    "return 5": 5,
    "return": None,
    "if True:\n    return 1\n2": 1,
    "if False:\n    return 1\n2": 2,
    "if False:\n    pass\nelif True:\n    return 3": 3,
    "for i in range(5):\n    if i == 3:\n        return i": 3,
    "while True:\n    return 'w'": "w",
    "try:\n    return 1\nexcept Exception:\n    return 2": 1,
    "try:\n    return 1\nexcept:\n    return 2": 1,
    "try:\n    return 1\nexcept BaseException:\n    return 2": 1,
    "try:\n    1 / 0\nexcept ZeroDivisionError:\n    return 'caught'": "caught",
    "try:\n    1 / 0\nexcept:\n    return 'caught'": "caught",
    "try:\n    pass\nexcept:\n    pass\nelse:\n    return 'else'": "else",
    "try:\n    return 1\nfinally:\n    x = 2": 1,
    "try:\n    1 / 0\nfinally:\n    return 'finally'": "finally",
    "try:\n    try:\n        return 1\n    except:\n        return 2\nexcept:\n    return 3": 1,
    "try:\n    return 1\nexcept* ValueError:\n    pass": 1,
    "import contextlib\nwith contextlib.nullcontext(4) as x:\n    return x": 4,
    "import contextlib\nwith contextlib.suppress(BaseException):\n    return 8\n9": 8,
    "async with asyncio.timeout(60):\n    return 9": 9,
    "async with asyncio.TaskGroup() as group:\n    group.create_task(t.echo(1))\n    return 10": 10,
    "async with asyncio.TaskGroup() as g:\n    x = g.create_task(t.echo(1))\nreturn x.result()": 1,
    "async def items():\n    yield 1\nasync for x in items():\n    return x": 1,
    "match 5:\n    case 5:\n        return 'five'": "five",
    "def f():\n    try:\n        return 1\n    except:\n        return 2\nf()": 1,
    "await asyncio.sleep(0)\nreturn await t.echo(6)": 6,
    "return t.echo(7)": 7,
    "return [t.echo(7)]": [7],
    "x: int = 5\nreturn x": 5,
    "global y\ny = 5\nreturn y": 5,
    "from math import *\nreturn floor(2.5)": 2,
    "def f():\n    return n\nn = 3\nreturn f()": 3,
    "return [x for x in range(3) if (last := x) >= 0] + [last]": [0, 1, 2, 2],
    "class A:\n    n = 1\nreturn A.n": 1,
    "x = 1\ndel x\nreturn 'x' in globals()": False,
    "return __name__": "__main__",
    "{3, 1, 2}": [1, 2, 3],
    "(1, (2, 3))": [1, [2, 3]],
    "frozenset('a')": ["a"],
    "range(3)": [0, 1, 2],
    "(x for x in 'ab')": ["a", "b"],
    "{'a': 1}.items()": [["a", 1]],
    "{1: 'a', None: 'b', 2.5: 'c'}": {"1": "a", "null": "b", "2.5": "c"},
    "{(1, 2): 3}": {"(1, 2)": 3},
    "import dataclasses\n@dataclasses.dataclass\nclass P:\n    x: int\n    y: list\nP(1, [P(2, [])])": {
        "x": 1,
        "y": [{"x": 2, "y": []}],
    },
    "import collections\ncollections.namedtuple('P', 'x y')(1, 2)": [1, 2],
    "import collections\ncollections.OrderedDict(a=1)": {"a": 1},
    "import collections\ncollections.deque([1, 2])": [1, 2],
    "from datetime import *\n[datetime(2026, 1, 2, 3), date(2026, 1, 2), time(4, 5), timedelta(hours=30)]": [
        *("2026-01-02T03:00:00", "2026-01-02", "04:05:00", "1 day, 6:00:00"),
    ],
    "from decimal import Decimal\n[Decimal('1.10'), Decimal('3'), Decimal('1e3')]": [1.1, 3, 1000],
    "from decimal import Decimal\n[str(Decimal('NaN')), Decimal('1.5')]": ["NaN", 1.5],
    "from fractions import Fraction\nFraction(1, 3)": "1/3",
    "import enum\nclass E(enum.Enum):\n    A = 'a'\n[E.A]": ["a"],
    "import pathlib\npathlib.PurePath('a') / 'b'": "a/b",
    "2**64": 2**64,
    "-(2**63) - 1": -(2**63) - 1,
    "10**400": 10**400,
    "12345678901234567890": 12345678901234567890,
    "0.1 + 0.2": 0.1 + 0.2,
    "1e308": 1e308,
    "float('nan')": "NaN",
    "[float('inf'), float('-inf'), 1.0]": ["Infinity", "-Infinity", 1.0],
    "True": True,
    "b'ab'": "b'ab'",
    "{'raw': b'ab', 'n': 1}": {"raw": "b'ab'", "n": 1},
    "'\\ud800'": "?",
    "'\\x00'": "\x00",
    "'ä' * 3": "äää",
    "[object]": ["<class 'object'>"],
    "len": "<built-in function len>",
    "x = []\nx.append(x)\nlen(x)": 1,
    "'a' * 100_000": "a" * 100_000,
    "class A:\n    def __repr__(self):\n        return 'an A'\nA()": "an A",
    "ValueError('x')": "ValueError('x')",
    "__import__('uuid').UUID(int=5)": "00000000-0000-0000-0000-000000000005",
}


@pytest.mark.parametrize("code", RESULTS)
async def test_the_result_of(code: str, value: Value) -> None:
    found = await value(code)
    assert found == RESULTS[code] and type(found) is type(RESULTS[code])


async def test_a_result_that_contains_itself_is_shown_to_a_depth(run: Run) -> None:
    outcome = await run("x = []\nx.append(x)\nx")
    assert outcome.error is None
    assert "…" in str(outcome.result)


async def test_a_return_in_a_task_group_does_not_cancel_its_tasks(run: Run) -> None:
    host = Host()
    code = "async with asyncio.TaskGroup() as group:\n    group.create_task(t.echo(1))\n    return 10"
    outcome = await run(code, host=host)
    assert (outcome.result, host.finished, host.cancelled) == (10, ["t.echo"], [])


async def test_code_after_a_return_does_not_run(run: Run) -> None:
    outcome = await run("try:\n    print('a')\n    return 1\nfinally:\n    print('b')\nprint('c')")
    assert (outcome.result, outcome.stdout) == (1, "a\nb\n")


async def test_stdout_and_stderr_are_kept_apart(run: Run) -> None:
    outcome = await run("import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.stdout.write('more')\n3")
    assert (outcome.stdout, outcome.stderr, outcome.result) == ("out\nmore", "err\n", 3)


async def test_output_can_be_redirected_by_the_code(run: Run) -> None:
    code = "import io, contextlib\nwith contextlib.redirect_stdout(io.StringIO()) as f:\n    print('x')\nf.getvalue()"
    outcome = await run(code)
    assert (outcome.result, outcome.stdout) == ("x\n", "")


async def test_an_outcome_counts_calls_and_time(run: Run) -> None:
    outcome = await run("t.echo(1); await t.echo(2); sum(range(100_000))")
    assert outcome.tool_calls == 2
    assert 0 < outcome.cpu_s <= outcome.wall_s + 0.1


# --- errors of the code


async def test_a_syntax_error_shows_the_line(run: Run) -> None:
    outcome = await run("x = 1\nif x\n    pass")
    error = outcome.error
    assert isinstance(error, CodeFailed)
    assert (error.type, error.line) == ("SyntaxError", 2)
    assert error.traceback.splitlines()[0] == "line 2: if x"


async def test_an_uncaught_error_shows_only_the_models_lines(run: Run) -> None:
    code = "import json\ndef parse(text):\n    return json.loads(text)\nparse('{')"
    error = (await run(code)).error
    assert isinstance(error, CodeFailed)
    assert error.type == "JSONDecodeError"
    assert error.traceback.splitlines()[:2] == ["line 4: parse('{')", "line 3 in parse: return json.loads(text)"]
    assert error.line == 3


async def test_an_uncaught_error_keeps_what_was_printed_before(run: Run) -> None:
    outcome = await run("print('before')\n1 / 0")
    assert outcome.stdout == "before\n"
    assert str(outcome.error) == "ZeroDivisionError: division by zero"


async def test_a_name_error_names_the_name(run: Run) -> None:
    error = (await run("prnt(1)")).error
    assert isinstance(error, CodeFailed) and error.name == "prnt"


async def test_an_error_shows_its_cause(run: Run) -> None:
    code = "try:\n    {}['k']\nexcept KeyError as e:\n    raise ValueError('bad') from e"
    error = (await run(code)).error
    assert isinstance(error, CodeFailed)
    assert error.type == "ValueError" and "while handling KeyError: 'k'" in error.traceback


async def test_a_lone_error_of_a_task_group_is_shown_as_itself(run: Run) -> None:
    error = (await run("async with asyncio.TaskGroup() as g:\n    g.create_task(t.fail('x'))")).error
    assert isinstance(error, CodeFailed)
    assert (error.type, error.tool) == ("ToolError", "fail")


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "import sys; sys.exit(3)", "exit(3)", "quit()"])
async def test_leaving_the_interpreter_is_an_error_like_any_other(code: str, run: Run) -> None:
    outcome = await run(code)
    assert isinstance(outcome.error, CodeFailed) and outcome.error.type in ("SystemExit", "NameError")


async def test_asking_for_input_is_refused(run: Run) -> None:
    error = (await run("input('name? ')")).error
    assert isinstance(error, CodeFailed) and error.type == "EOFError"


async def test_waiting_for_what_nothing_will_finish_is_an_error_at_once(run: Run) -> None:
    error = (await run("await asyncio.Event().wait()", limits=SHORT)).error
    assert isinstance(error, CodeFailed) and "deadlock" in error.message


# --- calls that nobody awaits, and calls that are given up


async def test_calls_that_nobody_awaits_are_finished(run: Run) -> None:
    host = Host()
    outcome = await run(
        "calls = []\nfor i in range(3):\n    calls.append(t.echo(i))\nawait asyncio.sleep(0)\n'done'", host=host
    )
    assert (outcome.result, host.finished, host.cancelled) == ("done", ["t.echo"] * 3, [])


@pytest.mark.parametrize("pause", ["await asyncio.sleep(0)", "await t.echo(1)", "await asyncio.sleep(0.01)"])
async def test_the_failure_of_a_call_that_nobody_awaits_is_shown(pause: str, run: Run) -> None:
    outcome = await run(f"calls = []\ncalls.append(t.fail('lost'))\n{pause}\n'done'")
    assert outcome.result == "done"
    assert outcome.stderr == "a call that was never awaited failed: t.fail: lost\n"


async def test_the_failure_of_a_task_that_nobody_awaits_is_shown_in_a_line(run: Run) -> None:
    outcome = await run("task = asyncio.create_task(t.fail('lost'))\nawait t.echo(1)\ntask = None\n'done'")
    assert outcome.result == "done"
    assert "t.fail: lost" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


async def test_a_timeout_of_the_code_cancels_the_call_on_the_host(run: Run) -> None:
    for code in (
        "try:\n    await asyncio.wait_for(t.never(), 0.01)\nexcept TimeoutError:\n    r = 'late'\nr",
        "try:\n    async with asyncio.timeout(0.01):\n        await t.never()\nexcept TimeoutError:\n    r = 'late'\nr",
        "try:\n    async with asyncio.timeout(0.01):\n        t.never()\nexcept TimeoutError:\n    r = 'late'\nr",
        "try:\n    async with asyncio.timeout(0.01):\n        x = t.never()\nexcept TimeoutError:\n    r = 'late'\nr",
    ):
        host = Host()
        outcome = await run(code, host=host, limits=SHORT)
        assert outcome.error is None
        await asyncio.wait_for(host.idle.wait(), 5)
        assert (outcome.result, host.cancelled) == ("late", ["t.never"])


async def test_cancelling_a_task_cancels_its_call_on_the_host(run: Run) -> None:
    host = Host()
    code = """
task = asyncio.create_task(t.never())
await t.echo(1)
task.cancel()
try:
    await task
except asyncio.CancelledError:
    r = "cancelled"
[r, t.echo(2)]
"""
    outcome = await run(code, host=host, limits=SHORT)
    assert (outcome.result, host.cancelled) == (["cancelled", 2], ["t.never"])


async def test_a_call_whose_wait_was_cancelled_cannot_be_waited_for_again(run: Run) -> None:
    code = """
call = [t.never()]
try:
    await asyncio.wait_for(call[0], 0.01)
except TimeoutError:
    pass
try:
    await call[0]
except asyncio.CancelledError:
    r = "cancelled"
r
"""
    assert (await run(code, limits=SHORT)).result == "cancelled"


async def test_a_task_group_cancels_the_calls_beside_the_one_that_failed(run: Run) -> None:
    host = Host()
    code = """
try:
    async with asyncio.TaskGroup() as group:
        group.create_task(t.never())
        group.create_task(t.fail("x"))
except ExceptionGroup:
    pass
"done"
"""
    outcome = await run(code, host=host, limits=SHORT)
    assert (outcome.result, host.cancelled) == ("done", ["t.never"])


async def test_a_shielded_call_outlives_the_timeout(value: Value) -> None:
    release = asyncio.Event()

    async def wait() -> str:
        await release.wait()
        return "came"

    async def let_go() -> None:
        release.set()

    code = """
call = asyncio.ensure_future(t.wait())
try:
    await asyncio.wait_for(asyncio.shield(call), 0.01)
except TimeoutError:
    await t.let_go()
await call
"""
    assert await value(code, {"t.wait": wait, "t.let_go": let_go}, limits=SHORT) == "came"


# --- ordinary Python, as models write it

SNIPPETS: dict[str, tuple[str, Any]] = {
    "json": ("import json\njson.loads(json.dumps({'a': [1, 2.5, None, True, 'ü']}))", {"a": [1, 2.5, None, True, "ü"]}),
    "re": ("import re\nre.sub(r'(\\w+)@(\\w+)', r'\\2 at \\1', 'bob@home')", "home at bob"),
    "re groups": (
        "import re\n[m.groupdict() for m in re.finditer(r'(?P<k>\\w)=(?P<v>\\d)', 'a=1 b=2')]",
        [{"k": "a", "v": "1"}, {"k": "b", "v": "2"}],
    ),
    "datetime": ("from datetime import *\n(date(2026, 3, 1) - date(2026, 2, 1)).days", 28),
    "strptime": ("from datetime import datetime\ndatetime.strptime('5 Jan 2026', '%d %b %Y').isoformat()", "2026-01-05T00:00:00"),
    "zoneinfo": (
        "from datetime import *\nfrom zoneinfo import ZoneInfo\n"
        "datetime(2026, 7, 1, tzinfo=timezone.utc).astimezone(ZoneInfo('Asia/Tokyo')).hour",
        9,
    ),
    "calendar": ("import calendar\ncalendar.monthrange(2028, 2)[1]", 29),
    "statistics": ("import statistics as s\n[s.mean([1, 2, 3]), s.median([1, 9, 2]), s.pstdev([2, 2])]", [2, 2, 0.0]),
    "csv": ("import csv, io\nlist(csv.DictReader(io.StringIO('a,b\\n1,\"x,y\"\\n')))", [{"a": "1", "b": "x,y"}]),
    "csv writer": (
        "import csv, io\nf = io.StringIO()\ncsv.writer(f).writerows([[1, 'a,b'], [2, 'c']])\nf.getvalue()",
        '1,"a,b"\r\n2,c\r\n',
    ),
    "collections": (
        "from collections import Counter, defaultdict, deque\nd = defaultdict(list)\nd['a'].append(1)\n"
        "[Counter('aab').most_common(1), d, list(deque([1, 2, 3], maxlen=2))]",
        [[["a", 2]], {"a": [1]}, [2, 3]],
    ),
    "itertools": (
        "import itertools as it\n[[k, len(list(g))] for k, g in it.groupby('aab')] + list(it.batched('abc', 2))",
        [["a", 2], ["b", 1], ["a", "b"], ["c"]],
    ),
    "functools": (
        "from functools import *\n@lru_cache\ndef fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\n"
        "[fib(80), reduce(lambda a, b: a * b, range(1, 6)), partial(int, base=2)('101')]",
        [23416728348467685, 120, 5],
    ),
    "singledispatch": (
        "from functools import singledispatch\n@singledispatch\ndef f(x):\n    return 'any'\n@f.register\n"
        "def _(x: int):\n    return 'int'\n[f('a'), f(1)]",
        ["any", "int"],
    ),
    "operator": ("from operator import itemgetter\nsorted([(2, 'a'), (1, 'b')], key=itemgetter(0))", [[1, "b"], [2, "a"]]),
    "textwrap": ("import textwrap\ntextwrap.shorten('hello big world', 12) + textwrap.dedent('  x')", "hello [...]x"),
    "inheritance": (
        "class A:\n    def hi(self):\n        return 'A'\nclass B(A):\n    def hi(self):\n        return 'B' + super().hi()\nB().hi()",
        "BA",
    ),
    "properties": (
        "class A:\n    def __init__(self):\n        self._x = 1\n    @property\n    def x(self):\n        return self._x\n"
        "    @x.setter\n    def x(self, v):\n        self._x = v * 2\n    @classmethod\n    def make(cls):\n        return cls()\n"
        "    @staticmethod\n    def s():\n        return 's'\na = A.make()\na.x = 4\n[a.x, A.s()]",
        [8, "s"],
    ),
    "abc": (
        "from abc import ABC, abstractmethod\nclass A(ABC):\n    @abstractmethod\n    def f(self): ...\n"
        "try:\n    A()\nexcept TypeError:\n    r = 'abstract'\nr",
        "abstract",
    ),
    "dunder": (
        "class V:\n    def __init__(self, x):\n        self.x = x\n    def __add__(self, o):\n        return V(self.x + o.x)\n"
        "    def __eq__(self, o):\n        return self.x == o.x\n    def __len__(self):\n        return self.x\n"
        "[len(V(1) + V(2)), V(1) == V(1)]",
        [3, True],
    ),
    "generators": (
        "def squares(n):\n    for i in range(n):\n        got = yield i * i\ndef both():\n    yield from squares(3)\n    yield 'end'\nlist(both())",
        [0, 1, 4, "end"],
    ),
    "async generators": (
        "async def items():\n    for i in range(3):\n        await asyncio.sleep(0)\n        yield i\n[x async for x in items()]",
        [0, 1, 2],
    ),
    "contextlib": (
        "from contextlib import *\nlog = []\n@contextmanager\ndef step(n):\n    log.append('in')\n    try:\n        yield n\n"
        "    finally:\n        log.append('out')\nwith ExitStack() as stack:\n    stack.enter_context(step(1))\n    log.append('body')\n"
        "with suppress(KeyError):\n    {}['x']\nlog",
        ["in", "body", "out"],
    ),
    "dataclass": (
        "from dataclasses import *\n@dataclass(order=True, frozen=True)\nclass P:\n    x: int\n    tags: list = field(default_factory=list)\n"
        "[asdict(P(1)), P(1) < P(2), replace(P(1), x=5).x]",
        [{"x": 1, "tags": []}, True, 5],
    ),
    "enum": (
        "from enum import *\nclass C(IntEnum):\n    A = auto()\n    B = auto()\nclass S(StrEnum):\n    X = 'x'\n[C.B, C(1).name, S.X, len(C)]",
        [2, "A", "x", 2],
    ),
    "match": (
        "def kind(x):\n    match x:\n        case {'type': 'a', 'items': [first, *_]}:\n            return first\n        case int() | float() if x > 5:\n"
        "            return 'big'\n        case _:\n            return None\n[kind({'type': 'a', 'items': [7, 8]}), kind(6), kind('x')]",
        [7, "big", None],
    ),
    "walrus": ("[y for x in range(5) if (y := x * 2) > 4]", [6, 8]),
    "except star": (
        "r = []\ntry:\n    raise ExceptionGroup('g', [ValueError(1), KeyError(2)])\nexcept* ValueError:\n    r.append('v')\nexcept* KeyError:\n    r.append('k')\nr",
        ["v", "k"],
    ),
    "notes and causes": (
        "try:\n    try:\n        1 / 0\n    except ZeroDivisionError as e:\n        e.add_note('n')\n        raise RuntimeError('r') from e\n"
        "except RuntimeError as e:\n    r = [str(e), e.__cause__.__notes__]\nr",
        ["r", ["n"]],
    ),
    "decorators": (
        "import functools\ndef twice(f):\n    @functools.wraps(f)\n    def inner(*a, **k):\n        return f(*a, **k) * 2\n    return inner\n"
        "@twice\ndef three():\n    return 3\n[three(), three.__name__]",
        [6, "three"],
    ),
    "closures": ("def counter():\n    n = 0\n    def up():\n        nonlocal n\n        n += 1\n        return n\n    return up\nup = counter()\nup()\nup()", 2),
    "lambdas": ("sorted(['bb', 'a'], key=lambda s: len(s)) + list(map(lambda x, y=2: x * y, [1]))", ["a", "bb", 2]),
    "unpacking": ("a, *b, c = range(5)\n{**{'a': a}, 'b': [*b, c]}", {"a": 0, "b": [1, 2, 3, 4]}),
    "sqlite3": (
        "import sqlite3\nwith sqlite3.connect(':memory:') as db:\n    db.execute('create table t (a, b)')\n"
        "    db.executemany('insert into t values (?, ?)', [(1, 'x'), (2, 'y')])\n    r = db.execute('select sum(a), max(b) from t').fetchone()\nr",
        [3, "y"],
    ),
    "hashlib": ("import hashlib\nhashlib.sha256(b'a').hexdigest()[:8] + hashlib.md5(b'a').hexdigest()[:4]", "ca9781120cc1"),
    "hmac": ("import hmac\nhmac.new(b'k', b'm', 'sha256').hexdigest()[:8]", "b60090e3"),
    "base64": ("import base64\n[base64.b64encode(b'hi').decode(), base64.urlsafe_b64decode('aGk=').decode()]", ["aGk=", "hi"]),
    "uuid": ("import uuid\n[uuid.uuid4().version, str(uuid.uuid5(uuid.NAMESPACE_DNS, 'a.b'))[:8]]", [4, "0e7af403"]),
    "secrets": ("import secrets\n[len(secrets.token_hex(4)), secrets.choice('a')]", [8, "a"]),
    "random": ("import random\nrandom.seed(1)\na = random.random()\nrandom.seed(1)\n[a == random.random(), random.choice([5])]", [True, 5]),
    "difflib": ("import difflib\nlist(difflib.unified_diff(['a'], ['b'], lineterm=''))[-2:]", ["-a", "+b"]),
    "string": ("import string\nstring.Template('$a!').substitute(a=1) + string.ascii_lowercase[:2] + string.capwords('x y')", "1!abX Y"),
    "heapq": ("import heapq\nh = [3, 1, 2]\nheapq.heapify(h)\n[heapq.heappop(h), heapq.nlargest(1, h)]", [1, [3]]),
    "bisect": ("import bisect\nbisect.bisect([1, 3, 5], 4)", 2),
    "decimal": ("from decimal import *\nstr((Decimal('0.1') + Decimal('0.2')).quantize(Decimal('0.01'), ROUND_HALF_UP))", "0.30"),
    "fractions": ("from fractions import Fraction\nstr(Fraction('0.75') + Fraction(1, 4))", "1"),
    "math": ("import math\n[math.gcd(12, 18), math.comb(5, 2), math.isclose(math.pi, 3.14159, rel_tol=1e-5)]", [6, 10, True]),
    "urllib.parse": (
        "from urllib.parse import *\n[urlparse('http://a/b?c=1').query, quote('a b'), parse_qs('x=1&x=2'), urljoin('http://a/b/', 'c')]",
        ["c=1", "a%20b", {"x": ["1", "2"]}, "http://a/b/c"],
    ),
    "html": ("import html\nhtml.escape('<a>') + html.unescape('&amp;')", "&lt;a&gt;&"),
    "html.parser": (
        "from html.parser import HTMLParser\nclass P(HTMLParser):\n    tags = []\n    def handle_starttag(self, tag, attrs):\n"
        "        self.tags.append(tag)\nP().feed('<p><b>x</b></p>')\nP.tags",
        ["p", "b"],
    ),
    "xml.etree": ("import xml.etree.ElementTree as ET\nET.fromstring('<a><b k=\"v\">t</b></a>').find('b').attrib", {"k": "v"}),
    "minidom": ("from xml.dom import minidom\nminidom.parseString('<a><b/></a>').documentElement.tagName", "a"),
    "zlib": ("import zlib\nzlib.decompress(zlib.compress(b'x' * 100)) == b'x' * 100", True),
    "gzip": ("import gzip\ngzip.decompress(gzip.compress(b'x')).decode()", "x"),
    "zipfile": (
        "import io, zipfile\nf = io.BytesIO()\nwith zipfile.ZipFile(f, 'w') as z:\n    z.writestr('a.txt', 'hi')\nzipfile.ZipFile(f).read('a.txt').decode()",
        "hi",
    ),
    "tomllib": ("import tomllib\ntomllib.loads('[a]\\nb = [1, 2]')", {"a": {"b": [1, 2]}}),
    "configparser": ("import configparser\nc = configparser.ConfigParser()\nc.read_string('[a]\\nb=1')\nc['a'].getint('b')", 1),
    "ipaddress": ("import ipaddress\n[ipaddress.ip_address('10.0.0.1').is_private, ipaddress.ip_network('10.0.0.0/30').num_addresses]", [True, 4]),
    "typing": (
        "from typing import *\nT = TypeVar('T')\nclass Row(TypedDict):\n    a: int\nclass P(Protocol):\n    def f(self) -> int: ...\n"
        "def first(x: list[T]) -> T | None:\n    return x[0] if x else None\n[first([1]), Row(a=1)]",
        [1, {"a": 1}],
    ),
    "type parameters": ("type Pair[T] = tuple[T, T]\ndef first[T](x: list[T]) -> T:\n    return x[0]\nfirst([4])", 4),
    "f-strings": ("x = 3.14159\nn = 1234567\nf'{x:.2f} {n:,} {\"a\":>3}{n=} {x!r}'", "3.14 1,234,567   an=1234567 3.14159"),
    "string methods": ("' A-b '.strip().lower().replace('-', '_').split('_') + ['x'.zfill(3)]", ["a", "b", "00x"]),
    "bytes": ("b'\\x01\\x02'.hex() + bytes([65]).decode() + int.from_bytes(b'\\x01\\x00').__str__()", "0102A256"),
    "struct": ("import struct\nstruct.unpack('<HI', struct.pack('<HI', 1, 2))", [1, 2]),
    "pickle": ("import pickle\npickle.loads(pickle.dumps({'a': (1, 2)}))", {"a": [1, 2]}),
    "pickle of one's own class": (
        "import pickle\nclass P:\n    x = 5\npickle.loads(pickle.dumps(P())).x",
        5,
    ),
    "the main module": ("import __main__\nx = 4\n__main__.x", 4),
    "variables by name": ("x = 4\n[locals() is globals(), locals()['x'], 'x' in dir(), 'x' in vars()]", [True, 4, True, True]),
    "annotations": ("from __future__ import annotations\nx: int = 5\ny: str\ndef f(a: nothing) -> None: ...\nx", 5),
    "copy": ("import copy\na = [[1]]\nb = copy.deepcopy(a)\nb[0].append(2)\n[a, b]", [[[1]], [[1, 2]]]),
    "pprint": ("import pprint\npprint.pformat({'b': 1, 'a': 2})", "{'a': 2, 'b': 1}"),
    "logging": ("import logging, io\nf = io.StringIO()\nlogging.basicConfig(stream=f)\nlogging.warning('w')\nf.getvalue()", "WARNING:root:w\n"),
    "ast": ("import ast\nast.literal_eval('{\"a\": [1, 2]}')", {"a": [1, 2]}),
    "eval and exec": ("scope = {}\nexec('x = 2', scope)\neval('x + 1', scope)", 3),
    "graphlib": ("import graphlib\nlist(graphlib.TopologicalSorter({'b': {'a'}, 'c': {'b'}}).static_order())", ["a", "b", "c"]),
    "unicodedata": ("import unicodedata\nunicodedata.normalize('NFKD', 'é').encode('ascii', 'ignore').decode()", "e"),
    "time": ("import time\na = time.perf_counter()\ntime.sleep(0.001)\n[time.perf_counter() > a, time.time() > 1.7e9]", [True, True]),
    "traceback": ("import traceback\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    r = traceback.format_exc().splitlines()[-1]\nr", "ZeroDivisionError: division by zero"),
    "email": ("from email.message import EmailMessage\nm = EmailMessage()\nm['Subject'] = 's'\nm.set_content('b')\nm.as_string().split('\\n')[0]", "Subject: s"),
    "weakref and gc": ("import weakref, gc\nclass A: pass\na = A()\nr = weakref.ref(a)\ndel a\ngc.collect()\nr() is None", True),
    "big loop": ("sum(i * i for i in range(10_000))", 333283335000),
    "sorting rows": ("[r['name'] for r in sorted(t.rows(3), key=lambda r: -r['n'])]", ["row 2", "row 1", "row 0"]),
    "main guard": ("def main():\n    return 5\nif __name__ == '__main__':\n    print(main())", None),
    "async main": ("async def main():\n    return await t.add(1, 2)\nasyncio.run(main())", 3),
    "to_thread": ("await asyncio.to_thread(lambda x: x + 1, 2)", 3),
    "run_in_executor": ("await asyncio.get_running_loop().run_in_executor(None, lambda x: x + 1, 2)", 3),
    "asyncio queue": (
        "q = asyncio.Queue()\nasync def produce():\n    for i in range(3):\n        await q.put(i)\n    await q.put(None)\n"
        "async def consume():\n    r = []\n    while (x := await q.get()) is not None:\n        r.append(x)\n    return r\n"
        "(await asyncio.gather(produce(), consume()))[1]",
        [0, 1, 2],
    ),
    "asyncio primitives": (
        "lock, event = asyncio.Lock(), asyncio.Event()\nasync def a():\n    async with lock:\n        event.set()\n    return 1\n"
        "async def b():\n    await event.wait()\n    return 2\nawait asyncio.gather(b(), a())",
        [2, 1],
    ),
    "asyncio sleep order": (
        "r = []\nasync def f(n):\n    await asyncio.sleep(n / 100)\n    r.append(n)\nawait asyncio.gather(f(2), f(1), f(0))\nr",
        [0, 1, 2],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("code", "expected"), SNIPPETS.values(), ids=SNIPPETS.keys())
async def test_ordinary_python(code: str, expected: Any, value: Value) -> None:
    assert await value(code) == expected


async def test_a_thread_pool_executor_does_its_work_in_turn(run: Run) -> None:
    code = """
from concurrent.futures import ThreadPoolExecutor, as_completed
with ThreadPoolExecutor(max_workers=4) as pool:
    doubled = list(pool.map(lambda i: t.add(a=i, b=i), range(4)))
    failed = pool.submit(lambda: 1 / 0)
[doubled, type(failed.exception()).__name__]
"""
    outcome = await run(code)
    assert outcome.result == [[0, 2, 4, 6], "ZeroDivisionError"]


async def test_nan_is_refused_as_an_argument_and_named_in_a_result(run: Run) -> None:
    assert (await run("[float('nan'), 1.5]")).result == ["NaN", 1.5]
    outcome = await run("t.echo(value=float('inf'))")
    assert outcome.error is not None and "not JSON compliant" in str(outcome.error)
