"""Tools that fail, and a host that does."""

import asyncio
from typing import Any

import pytest

from mcpgate_sandbox.errors import CodeFailed, ToolFailed
from sandbox.tests.conftest import Host, Run
from sandbox.tests.programs.conftest import SHORT, Value

pytestmark = pytest.mark.anyio


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
