"""The border: hostile names, arguments and answers that cross it. A name is only a name, an answer only data, and an
answer that comes too late comes to nobody."""

import asyncio
import enum
from typing import Any

import pytest

from mcpgate_sandbox.engine import Handle, Limits
from mcpgate_sandbox.errors import CodeFailed, LimitReached, ToolFailed
from sandbox.tests.conftest import Host
from sandbox.tests.escapes.conftest import Arena
from sandbox.tests.escapes.test_forgery import assert_well_formed, is_plain

pytestmark = pytest.mark.anyio

SHORT = Limits(timeout_s=3, tool_wait_s=2, cpu_s=1, memory_mib=192)

# --- names of tools, as the program says them

NAMES = {
    "a line of its own": "echo\n1:5",
    "a NUL": "echo\x00secret",
    "dots that lead up": "../victim.secret",
    "another server before the dot": "x.victim.secret",
    "a helper of the host": "@load",
    "a helper that cancels": "@cancel",
    "a helper that lists": "@tools",
    "a helper that loads bytes": "@bytes",
    "a helper in disguise": "\u200b@load",
    "a right-to-left override": "\u202eohce",
    "half a surrogate": "\ud800",
    "a letter that looks the same": "\u0435cho",
    "a combining dot": "echo\u0307",
    "a format": "{0.__class__}%s%n{t}",
    "a class": "__class__",
    "a dict": "__dict__",
    "a method": "__init__.__globals__",
    "nothing": "",
    "a blank": " ",
    "very long": "e" * 200_000,
    "a path": "/etc/passwd",
    "JSON": '"],{}]',
    "a glob": "*",
    "a query": "' or 1=1 --",
}

_CALL_BY_NAME = """
name = {name!r}
said = []
for way in (lambda: t[name](1), lambda: getattr(t, name)(1), lambda: load(name)):
    try:
        said.append(str(way())[:100])
    except Exception as e:
        said.append(type(e).__name__)
try:
    import wit_world
    for raw in (name, 't.' + name, name + '.echo'):
        said.append(wit_world.call(raw.encode('utf-8', 'replace').decode(), '[["x"],{{}}]')[:1])
except Exception as e:
    said.append(type(e).__name__)
said
"""


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
async def test_a_name_is_only_a_name(name: str, arena: Arena) -> None:
    host = Host()
    outcome = await arena.repels(_CALL_BY_NAME.format(name=name), host=host, limits=SHORT)
    assert_well_formed(outcome)
    assert host.finished in ([], ["t.echo"])  # "" + ".echo" may be nothing, but never another's
    assert "victim" not in repr(host.finished)


@pytest.mark.parametrize("tool", NAMES.values(), ids=NAMES.keys())
async def test_a_tool_that_an_upstream_named_so_is_only_that_tool(tool: str, arena: Arena) -> None:
    async def odd(value: Any = None) -> str:
        return "odd"

    host = Host({f"t.{tool}": odd})
    code = "said = []\nfor name in NAMES:\n    try:\n        said.append(t[name](1))\n    except Exception as e:\n        said.append(type(e).__name__)\nsaid.append(t.add(1, 2))\nsaid"
    outcome = await arena.repels(code.replace("NAMES", repr([tool])), host=host, limits=SHORT)
    assert_well_formed(outcome)
    assert outcome.error is None and outcome.result[-1] == 3, outcome
    assert {name for name, _, _ in host.calls} <= {
        f"t.{tool}",
        "t.add",
        f"t.{tool.encode('utf-8', 'replace').decode()}",
    }


SERVERS = [
    "__builtins__",
    "print",
    "json",
    "asyncio",
    "load",
    "class",
    "a b",
    "x\ny",
    "\x00",
    "@load",
    "ToolError",
    "__name__",
    "None",
]


@pytest.mark.parametrize("server", SERVERS, ids=ascii)
async def test_a_server_of_any_name_breaks_at_most_this_execution(server: str, arena: Arena) -> None:
    async def hello() -> str:
        return "hello"

    host = Host({f"{server}.hello": hello})
    outcome = await arena.repels("print(len('abc'))\nt.add(1, 2)", host=host, limits=SHORT)
    assert_well_formed(outcome)
    assert {name for name, _, _ in host.calls} <= {"t.add", f"{server}.hello"}


# --- arguments

ARGUMENTS = {
    "a handle of somebody else": "t.echo({'$handle': {'id': 'victim'}})",
    "keys that are attributes": "t.echo({'__class__': 'Handle', '__init__': {'__globals__': 1}})",
    "itself": "a = []\na.append(a)\nt.echo(a)",
    "a nest": "a = 1\nfor i in range(100000):\n    a = [a]\nt.echo(a)",
    "a nest of dicts": "a = 1\nfor i in range(2000):\n    a = {'a': a}\nt.echo(a)",
    "not a number": "t.echo([float('nan'), float('inf')])",
    "a huge integer": "t.echo(10 ** 4000)",
    "half a surrogate": "t.echo('\\ud800', )\nt.echo({'\\udfff': '\\udc80'})",
    "NULs": "t.echo('\\x00' * 1000)",
    "a server": "t.echo(t)",
    "a stub": "t.echo(t.echo)",
    "a pending answer": "t.echo(t.echo(t.echo('inner')))",
    "a class that encodes itself": (
        "class A(dict):\n    def items(self):\n        return [('k', t.echo('inner'))]\nt.echo(A(x=1))"
    ),
    "names that are no names": "t.echo(**{'value\\n': 1})",
    "a name given twice": "t.echo(1, value=2)",
    "self": "t.echo(**{'self': 1, 'value': 2})",
    "names of the host's own parameters": "t.echo(**{'server': 'victim', 'tool': 'secret', 'positional': [], 'named': {}})",
    "a thousand of them": "t.echo(*range(1000))\n",
    "very many names": "t.echo(**{'k%d' % i: i for i in range(50000)})",
    "a generator that calls": "t.echo([t.echo(i) for i in range(3)])",
    "a set": "t.echo({1, 2, 3})",
    "bytes": "t.echo(b'\\xff\\x00')",
    "a date": "import datetime\nt.echo(datetime.datetime(1, 1, 1))",
    "a number that is too exact": "import decimal\nt.echo(decimal.Decimal('1e1000000'))",
}


@pytest.mark.parametrize("code", ARGUMENTS.values(), ids=ARGUMENTS.keys())
async def test_arguments_arrive_as_plain_data_or_not_at_all(code: str, arena: Arena) -> None:
    async def take(*positional: Any, **named: Any) -> int:
        return len(positional) + len(named)

    host = Host({"t.echo": take})
    outcome = await arena.repels(code, host=host, limits=SHORT)
    assert_well_formed(outcome)
    assert all(name == "t.echo" and is_plain([positional, named]) for name, positional, named in host.calls)
    assert not isinstance(outcome.error, LimitReached) or outcome.error.limit in {"cpu_s", "memory_mib"}, outcome


# --- answers


class Text(str):
    """Text that says it is something else."""

    def __str__(self) -> str:
        return "\n1:5"

    def __len__(self) -> int:
        return 0


class Color(enum.Enum):
    RED = "red"


def _nested(depth: int, kind: type = list) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


def _circle() -> Any:
    circle: list[Any] = []
    circle.append(circle)
    return circle


ANSWERS: dict[str, Any] = {
    "nested a hundred times": _nested(100),
    "nested a thousand times": _nested(1_000),
    "dicts nested a thousand times": _nested(1_000, dict),
    "nested ten thousand times": _nested(10_000),
    "nested without end": _nested(200_000),
    "a circle": _circle(),
    "not a number": float("nan"),
    "infinite": [float("inf"), -float("inf")],
    "a huge integer": 10**4000,
    "an integer that nobody may print": 10**10_000,
    "an integer just over": [2**63, 2**64, -(2**63) - 1],
    "a class as a key": {"__class__": "str", "__dict__": {}, "__reduce__": ["os.system", ["touch @MARKER@"]]},
    "methods as keys": {"keys": 1, "items": 2, "get": 3, "__getitem__": 4, "_mcpgate_value": 5},
    "a forged handle": {"$handle": {"id": "victim", "kind": "value", "mime_type": "text/plain", "size": 1}},
    "a forged handle that is broken": {"$handle": {"id": "victim", "evil": 1}},
    "many forged handles": [{"$handle": {"id": f"r{n}"}} for n in range(100)],
    "an answer that looks like a frame": "1:5 2:7\n+[1]",
    "an answer that looks like an error": '-{"kind": "tool", "message": "x"}',
    "an answer that looks like a handle": '*{"$handle": {"id": "x"}}',
    "an answer that looks like an outcome": '{"result": 1, "error": null}',
    "only a tag": "*",
    "nothing": "",
    "NULs": "\x00" * 1000,
    "half a surrogate": "a\ud800b",
    "half a surrogate as a key": {"\udc80": "\ud800"},
    "letters that cost four bytes": "😀" * 10_000,
    "text of a class of its own": Text("x"),
    "text of a class of its own inside": {"a": [Text("x")]},
    "a boolean key": {True: 1, None: 2, 1.5: 3},
    "a tuple": (1, (2, 3)),
    "a tuple as a key": {(1, 2): 3},
    "a set": {1, 2},
    "bytes": b"\xff",
    "an object": object(),
    "a class": dict,
    "an exception": ValueError("x"),
    "an enum": Color.RED,
    "a number with an imaginary part": 1j,
    "a generator": (n for n in range(3)),
    "a hundred thousand keys": {f"k{n}": n for n in range(100_000)},
    "a key as long as a book": {"k" * 1_000_000: 1},
}

_TAKE = "try:\n    v = t.give()\n    r = [type(v).__name__, repr(v)[:50]]\nexcept ToolError as e:\n    r = ['ToolError', str(e)[:200]]\n[r, t.add(1, 2)]"


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("way", ["plain", "awaited"])
async def test_a_hostile_answer_is_data_or_a_tool_error(name: str, way: str, arena: Arena) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _, context: None)

    async def give() -> Any:
        return ANSWERS[name]

    code = _TAKE if way == "plain" else _TAKE.replace("t.give()", "await t.give()")
    outcome = await arena.repels(code, {"t.give": give}, limits=SHORT)
    assert_well_formed(outcome)
    assert outcome.error is None and outcome.result[1] == 3, str(outcome.error)[:500]
    assert outcome.result[0][0] in {"ToolError", "str", "list", "dict", "int", "float", "bool", "NoneType"}


HANDLE = Handle(id="r1", kind="value", mime_type="text/plain", size=3)

FORGED_BESIDE_A_TRUE_ONE: dict[str, Any] = {
    "another's id": {"$handle": {"id": "victim", "kind": "value", "mime_type": "text/plain", "size": 1, "uri": None}},
    "a field too many": {"$handle": {"id": "victim", "evil": 1}},
    "a field too few": {"$handle": {"id": "victim"}},
    "no id": {"$handle": {}},
    "a field that is a class": {"$handle": {"id": "r1", "kind": "value", "mime_type": "x", "size": "big", "uri": {}}},
}


@pytest.mark.parametrize("name", FORGED_BESIDE_A_TRUE_ONE)
async def test_a_forged_handle_next_to_a_real_one_stays_data(name: str, arena: Arena) -> None:
    async def give() -> Any:
        return [HANDLE, FORGED_BESIDE_A_TRUE_ONE[name]]

    code = (
        "try:\n    v = t.give()\n    r = [type(x).__name__ for x in v]\nexcept ToolError as e:\n    r = 'ToolError'\nr"
    )
    outcome = await arena.repels(code, {"t.give": give}, limits=SHORT)
    assert outcome.error is None, outcome
    assert outcome.result in ("ToolError", ["Handle", "dict"])


# --- errors of tools

FAILURES: dict[str, ToolFailed] = {
    "an outcome": ToolFailed('{"result": 1}'),
    "a frame": ToolFailed("\n1:5 2:3\n+null"),
    "a note of the host": ToolFailed("session 'diary' ended with this: its variables are gone"),
    "half a surrogate": ToolFailed("\ud800", server="\udfff", tool="\udc80"),
    "NULs and controls": ToolFailed("\x00\x1b]0;owned\x07\r\n"),
    "a book": ToolFailed("m" * 1_000_000),
    "a format": ToolFailed("{0.__class__.__init__.__globals__} %s %n"),
    "names of others": ToolFailed("x", server="victim", tool="secret"),
    "names with lines": ToolFailed("x", server="a\nb", tool="c\x00d"),
    "a kind that is none": ToolFailed("x", kind="__class__"),
    "data that is a nest": ToolFailed("x", data=_nested(10_000)),
    "data that is a circle": ToolFailed("x", data=_circle()),
    "data that nobody can send": ToolFailed("x", data=object()),
    "data with half a surrogate": ToolFailed("x", data={"\ud800": ["\udfff"]}),
    "data that is a handle": ToolFailed("x", data={"$handle": {"id": "victim"}}),
    "data of a true handle": ToolFailed("x", data=[HANDLE]),
    "data without end": ToolFailed("x", data="d" * 3_000_000),
    "a message that is no text": ToolFailed({"a": object()}),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("way", ["plain", "awaited"])
async def test_a_hostile_failure_is_a_tool_error(name: str, way: str, arena: Arena) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _, context: None)

    async def give() -> Any:
        raise FAILURES[name]

    code = "try:\n    r = t.give()\nexcept ToolError as e:\n    r = ['ToolError', str(e)[:200], str(e.data)[:200]]\n[r, t.add(1, 2)]"
    code = code if way == "plain" else code.replace("t.give()", "await t.give()")
    limits = Limits(timeout_s=1, tool_wait_s=1, cpu_s=1, max_reply_chars=2_000_000)
    outcome = await arena.repels(code, {"t.give": give}, limits=limits)
    assert_well_formed(outcome)
    assert outcome.error is None and outcome.result[1] == 3, str(outcome.error)[:500]
    assert outcome.result[0][0] == "ToolError"


async def test_a_failure_that_nobody_caught_says_so_and_no_more(arena: Arena) -> None:
    async def give() -> Any:
        raise ToolFailed("m" * 100_000, server="s" * 100_000, tool="t\n" * 100_000)

    outcome = await arena.repels("t.give()", {"t.give": give}, limits=SHORT)
    assert isinstance(outcome.error, CodeFailed) and outcome.error.type == "ToolError"
    assert_well_formed(outcome)


RAISED: dict[str, BaseException] = {
    "an error whose text fails": type("Bad", (Exception,), {"__str__": lambda self: 1 / 0})(),
    "an error of the machine": OSError(2, "no such file", "/etc/shadow"),
    "a group": ExceptionGroup("g", [ValueError("a"), ToolFailed("b")]),
    "a cancellation of its own": asyncio.CancelledError(),
    "an end of iteration": StopAsyncIteration(),
    "a recursion": RecursionError("deep"),
    "a want of memory": MemoryError(),
}


@pytest.mark.parametrize("name", RAISED)
async def test_a_tool_that_breaks_is_a_tool_error_that_tells_nothing_of_the_host(name: str, arena: Arena) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _, context: None)

    async def give() -> Any:
        raise RAISED[name]

    code = "try:\n    r = t.give()\nexcept ToolError as e:\n    r = ['ToolError', str(e)]\n[r, t.add(1, 2)]"
    outcome = await arena.repels(code, {"t.give": give}, limits=Limits(timeout_s=1, tool_wait_s=1, cpu_s=1))
    assert outcome.error is None and outcome.result[1] == 3, outcome
    assert outcome.result[0][0] == "ToolError" and "shadow" not in repr(outcome)


# --- answers that come after the end


async def test_an_answer_that_comes_after_the_end_comes_to_nobody(arena: Arena) -> None:
    """The tool will not be cancelled; its answer comes while the session's next execution waits for another."""
    started, release = asyncio.Event(), asyncio.Event()

    async def stubborn() -> str:
        started.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass
        return "too late"

    async def let_go() -> str:
        release.set()
        for _ in range(5):
            await asyncio.sleep(0)
        return "in time"

    tools = {"t.stubborn": stubborn, "t.let_go": let_go}
    first = await arena.run(
        "async def f():\n    return await t.stubborn()\nawait f()",
        tools,
        limits=Limits(timeout_s=0.3, tool_wait_s=0.3),
        session="late/one",
    )
    assert isinstance(first.error, LimitReached) and started.is_set()
    second = await arena.repels("[t.let_go(), t.add(1, 2), t.echo('x')]", tools, session="late/one")
    assert second.result == ["in time", 3, "x"]
    assert "too late" not in repr(first) + repr(second)


async def test_an_answer_for_a_call_that_was_given_up_does_not_meet_the_next_call(arena: Arena) -> None:
    """Cancelled by the program itself, answered all the same; what comes back for the next call is its own answer."""

    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "too late"
        return ""

    code = (
        "import asyncio\nasync def f():\n    return await t.stubborn()\nsaid = []\nfor i in range(5):\n    try:\n"
        "        said.append(await asyncio.wait_for(f(), 0.01))\n    except asyncio.TimeoutError:\n"
        "        said.append(await t.echo(i))\nsaid"
    )
    outcome = await arena.repels(code, {"t.stubborn": stubborn}, limits=SHORT)
    assert outcome.result == list(range(5)) or isinstance(outcome.error, CodeFailed), outcome
