"""What models write although nobody told them to, and what is certainly meant by it."""

from typing import Any

import pytest

from mcpgate_sandbox.errors import CodeFailed
from sandbox.tests.conftest import Run

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("import t\nt.echo('x')", "x"),
        ("import t as server\nserver.echo('x')", "x"),
        ("from t import echo\necho('x')", "x"),
        ("from t import echo as say, echo\nsay('x') + echo('y')", "xy"),
        ("import json, t\njson.dumps(t.echo('x'))", '"x"'),
        ("def f():\n    import t\n    from t import echo\n    return t.echo('x') + echo('y')\nf()", "xy"),
        ("try:\n    import t\nexcept ImportError:\n    pass\nt.echo('x')", "x"),
    ],
)
async def test_a_server_may_be_imported(run: Run, code: str, result: str) -> None:
    assert (await run(code)).result == result


async def test_a_server_that_does_not_exist_cannot_be_imported(run: Run) -> None:
    error = (await run("import nosuch")).error
    assert isinstance(error, CodeFailed) and error.type == "ModuleNotFoundError"


MAIN = "async def main(text='x'):\n    answer = await t.echo(text)\n    print(answer)\n    return answer\n"


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("main()", "x"),
        ("[main('x'), main('y')]", ["x", "y"]),
        ("[main(text) for text in 'xy']", ["x", "y"]),
        ("await asyncio.sleep(0)\nmain()", "x"),
    ],
)
async def test_a_coroutine_as_the_last_value_is_awaited(run: Run, code: str, result: Any) -> None:
    assert (await run(MAIN + code)).result == result


@pytest.mark.parametrize(
    "code",
    [
        "if __name__ == '__main__':\n    main()",
        "try:\n    main()\nfinally:\n    pass",
        "main()\nNone",
        "for text in 'x':\n    main(text)",
        "with contextlib.suppress(ValueError):\n    main()\nNone",
        "await asyncio.sleep(0)\nif True:\n    main()",
        "if True:\n    if True:\n        main()\nNone",
    ],
)
async def test_a_coroutine_as_a_statement_is_awaited(run: Run, code: str) -> None:
    outcome = await run(f"import contextlib\n{MAIN}{code}")
    assert outcome.error is None and outcome.stdout == "x\n" and outcome.stderr == ""


@pytest.mark.parametrize(
    "code",
    [
        "x = main()\nprint('done')",
        "x = main()\nx = 1",
        "print(main())",
        "{'a': main()}",
        "jobs = [main() for _ in range(3)]\nlen(jobs)",
        "def f():\n    main()\nf()",
        "async def other():\n    main()\nawait other()",
        "str(main())",
    ],
)
async def test_a_coroutine_that_is_never_awaited_is_an_error(run: Run, code: str) -> None:
    outcome = await run(MAIN + code)
    assert isinstance(outcome.error, CodeFailed) and outcome.stderr == ""
    assert "coroutine 'main' was never awaited" in outcome.error.message


@pytest.mark.parametrize(
    "code",
    [
        "x = main()\nawait x",
        "jobs = [main(), main()]\n(await asyncio.gather(*jobs))[0]",
        "x = main()\nx.close()\n'x'",
        "task = asyncio.create_task(main())\nawait task",
        "x = asyncio.run(main())\nx",
        "main = len\nmain('x')\n'x'",
    ],
)
async def test_a_coroutine_that_is_awaited_later_or_closed_is_none(run: Run, code: str) -> None:
    outcome = await run(MAIN + code)
    assert outcome.error is None and outcome.result == "x"


@pytest.mark.parametrize("code", ["asyncio.get_event_loop().run_until_complete(main())"])
async def test_an_event_loop_can_be_asked_for_before_there_is_one(run: Run, code: str) -> None:
    outcome = await run(f"import asyncio\nasync def main():\n    return await t.echo('x')\n{code}")
    assert outcome.result == "x"


@pytest.mark.parametrize("ending", ["import sys\nsys.exit(0)", "import sys\nsys.exit()", "raise SystemExit"])
async def test_a_script_that_ends_itself_without_a_fault_has_not_failed(run: Run, ending: str) -> None:
    outcome = await run(f"print('done')\n{ending}")
    assert outcome.error is None and outcome.stdout == "done\n"


async def test_a_script_that_ends_itself_with_a_fault_has_failed(run: Run) -> None:
    error = (await run("import sys\nsys.exit('no rows')")).error
    assert isinstance(error, CodeFailed) and error.type == "SystemExit" and "no rows" in error.message


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("12345678901234567.89", "12345678901234567.89"),
        ("0.1", 0.1),
        ("1234567890123456789012345", 1234567890123456789012345),
    ],
)
async def test_a_decimal_keeps_its_digits(run: Run, text: str, result: Any) -> None:
    assert (await run(f"from decimal import Decimal\nDecimal('{text}')")).result == result


async def test_help_ends_nothing(run: Run) -> None:
    outcome = await run("def f():\n    'adds'\nhelp(f)\nhelp()\nprint('on')")
    assert outcome.error is None
    assert outcome.stdout.startswith("adds\n") and outcome.stdout.endswith("on\n")
