"""Errors of the code, as the model reads them."""

import pytest

from mcpgate_sandbox.errors import CodeFailed
from sandbox.tests.conftest import Run
from sandbox.tests.programs.conftest import SHORT

pytestmark = pytest.mark.anyio


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


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "import sys; sys.exit(3)", "exit(3)", "quit(2)"])
async def test_leaving_the_interpreter_with_a_status_is_an_error_like_any_other(code: str, run: Run) -> None:
    outcome = await run(code)
    assert isinstance(outcome.error, CodeFailed) and outcome.error.type in ("SystemExit", "NameError")


async def test_asking_for_input_is_refused(run: Run) -> None:
    error = (await run("input('name? ')")).error
    assert isinstance(error, CodeFailed) and error.type == "EOFError"


async def test_waiting_for_what_nothing_will_finish_is_an_error_at_once(run: Run) -> None:
    error = (await run("await asyncio.Event().wait()", limits=SHORT)).error
    assert isinstance(error, CodeFailed) and "deadlock" in error.message
