"""A call means its value, with and without `await`."""

from typing import Any

import pytest

from sandbox.tests.conftest import Host, Run
from sandbox.tests.programs.conftest import Value, meeting

pytestmark = pytest.mark.anyio


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
