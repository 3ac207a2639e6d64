"""Hostile input from upstreams and code: each case gets a clear error or a bounded answer, and the next call
succeeds."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from mcpgate.errors import InvalidRequest
from mcpgate.gateway import Gateway
from mcpgate.governance.callers import LOCAL
from mcpgate.governance.context import RequestContext
from tests.conftest import gateway, raw, until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def opened() -> AsyncIterator[Gateway]:
    async with gateway({"raw": raw(max_message_mib=80)}) as it:
        yield it


async def run(opened: Gateway, code: str) -> str:
    return (await opened.metatools.execute_code(RequestContext(LOCAL), code)).text


async def fine(opened: Gateway) -> bool:
    return await run(opened, "raw.add(a=1, b=1)['sum']") == "2"


async def test_a_tool_that_returns_100_mb_gets_a_clear_error(opened: Gateway) -> None:
    text = await run(opened, "raw.big(mib=100)")
    assert "an answer of 100 MiB is over the limit (max_message_mib=80)" in text
    assert await fine(opened)


async def test_an_answer_that_the_sandbox_cannot_take_is_refused_by_size(opened: Gateway) -> None:
    text = await run(opened, "raw.big(mib=40)")
    assert "more than the sandbox takes" in text and "ask the tool for less" in text
    assert await fine(opened)


async def test_ten_megabytes_of_arguments_reach_the_tool(opened: Gateway) -> None:
    assert await run(opened, "len(raw.echo(text='x' * 10_000_000))") == "10000000"


async def test_more_than_the_sandbox_may_send_is_refused(opened: Gateway) -> None:
    text = await run(opened, "raw.echo(text='x' * 20_000_000)")
    assert "a call takes 16,000,000" in text and await fine(opened)


async def test_invalid_utf8_arrives_with_replacement_characters(opened: Gateway) -> None:
    assert await run(opened, "raw.garbled()") == "a\ufffd\ufffdb"


async def test_an_answer_that_is_not_json_fails_its_own_call_only(opened: Gateway) -> None:
    code = (
        "r = await asyncio.gather(raw.broken_json(), raw.echo(text='ok'), return_exceptions=True)\n[str(x) for x in r]"
    )
    text = await run(opened, code)
    assert "its answer is not valid JSON" in text and '"ok"' in text


async def test_deeply_nested_answers_and_arguments_are_survived(opened: Gateway) -> None:
    assert await run(opened, "raw.deep(depth=50)['a']['a'] is not None") == "true"
    assert "ToolError" in await run(opened, "raw.deep(depth=100000)")
    text = await run(opened, "x = 'x'\nfor _ in range(5000): x = [x]\nraw.echo(text=x)")
    assert "Error" in text and await fine(opened)
    assert await run(opened, "x = []\nfor _ in range(100000): x = [x]\nx") != "" and await fine(opened)


async def test_a_result_that_breaks_its_own_schema_is_still_the_result(opened: Gateway) -> None:
    assert await run(opened, "raw.liar()") == '{"n":"not a number","more":null}'


async def test_an_upstream_that_never_answers_does_not_hold_others_up() -> None:
    async with gateway({"dead": raw("--never-ready", connect_timeout_s=1), "good": raw()}, settle=False) as opened:
        assert await run(opened, "good.echo(text='quick')") == "quick"
        await until(lambda: "not ready within" in opened.pool.views()[0].reason)
        assert "not ready within connect_timeout_s=1" in await run(opened, "dead.echo(text='x')")


async def test_hanging_tools_die_with_their_execution(opened: Gateway) -> None:
    answers = await asyncio.gather(
        *(opened.metatools.execute_code(RequestContext(LOCAL), "raw.hang()", timeout_s=0.5) for _ in range(5))
    )
    assert all("longer than 0.5 s" in answer.text for answer in answers)
    async with asyncio.timeout(10):
        while await run(opened, "raw['was-cancelled']()") != "5":
            await asyncio.sleep(0.02)


async def test_a_flood_of_stderr_and_of_changes_holds_nothing_up() -> None:
    async with gateway({"raw": raw("--flood-stderr", "--restless", "--tools", "50")}) as opened:
        for _ in range(5):
            assert await fine(opened)


async def test_code_that_is_nonsense_gets_an_error_of_its_own(opened: Gateway) -> None:
    for code, said in (
        ("", "printed and returned nothing"),
        ("x = (", "'(' was never closed"),
        ("\x00", "null bytes"),
        ("return return", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("1/0", "ZeroDivisionError"),
        ("```python\n1 + 1\n```", "2"),
        ("await asyncio.Future()", "deadlock"),
        ("'\\ud800'", "?"),
        ("float('nan')", "NaN"),
        ("10**30", "1" + "0" * 30),
    ):
        assert said in await run(opened, code), code
    assert await fine(opened)


async def test_text_cut_inside_an_emoji_and_numbers_beyond_64_bits_pass(opened: Gateway) -> None:
    assert await run(opened, "raw.echo(text='a' + chr(0xD83D))") in ("a?", "a\ufffd")
    assert "is not of type" in await run(opened, "raw.echo(text=2**70)")
    assert await run(opened, "raw.add(a=2**70, b=1)['sum'] == 2**70 + 1") == "true"


async def test_absurdly_long_questions_do_not_hold_others_up(opened: Gateway) -> None:
    async with asyncio.timeout(10):
        await opened.metatools.list_tools(RequestContext(LOCAL), query="nonsense words " * 5000)
        assert await run(opened, "x = 0\n" + "x += 1\n" * 20_000 + "x") == "20000"
        with pytest.raises(InvalidRequest, match="50 names at a time"):
            await opened.metatools.describe_tools(RequestContext(LOCAL), [f"raw.nope{i}" for i in range(5000)])
