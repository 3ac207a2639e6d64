"""Servers and tools by name, as attributes, items and variables."""

import pytest

from mcpgate_sandbox.errors import CodeFailed
from sandbox.tests.conftest import Run
from sandbox.tests.programs.conftest import Value

pytestmark = pytest.mark.anyio


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
