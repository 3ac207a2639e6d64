"""Tool calls, one after the other: what goes out as arguments and what comes back as values."""

from typing import Any

import pytest

from mcpgate_sandbox.engine import Handle
from mcpgate_sandbox.errors import CodeFailed
from sandbox.tests.conftest import Host, Run
from sandbox.tests.programs.conftest import Value

pytestmark = pytest.mark.anyio


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


async def test_a_handle_represents_what_stays_on_the_host(value: Value) -> None:
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
