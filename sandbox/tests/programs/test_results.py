"""What a program's result is, and what it prints."""

from typing import Any

import pytest

from sandbox.tests.conftest import Host, Run
from sandbox.tests.programs.conftest import Value

pytestmark = pytest.mark.anyio


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
