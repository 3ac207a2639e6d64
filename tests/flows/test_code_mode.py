"""The four meta-tools on one gateway: what a model reads, and what never reaches it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from mcpgate.errors import InvalidRequest, NotFound, UnknownTool
from mcpgate.governance.callers import LOCAL, Caller
from mcpgate.governance.context import RequestContext
from mcpgate.tokens import count
from tests.conftest import gateway, raw
from tests.picture import PICTURE

pytestmark = pytest.mark.anyio


async def run(opened: Any, code: str, **options: Any) -> str:
    answer = await opened.metatools.execute_code(RequestContext(LOCAL), code, **options)
    return str(answer.text)


async def test_only_what_is_printed_or_returned_leaves_the_sandbox() -> None:
    async with gateway({"raw": raw()}) as opened:
        text = await run(opened, "x = raw.big(mib=1)\nprint(len(x))\nsecret = raw.echo(text='do not show')\n'done'")
        assert text == "1048576\ndone"


async def test_a_list_answer_stays_within_300_tokens_at_any_size() -> None:
    servers = {f"server_with_a_long_name_{i}": raw("--tools", "300") for i in range(12)}
    async with gateway(servers) as opened:
        assert len(opened.catalog.tools) == 12 * 321
        for question in (
            {},
            {"query": "tool number 17"},
            {"server": "server_with_a_long_name_3"},
            {"query": "add", "limit": None},
        ):
            answer = await opened.metatools.list_tools(RequestContext(LOCAL), **question)
            assert count(answer) <= 300, question
        assert "limit=" in await opened.metatools.list_tools(RequestContext(LOCAL), query="tool number")
        more = await opened.metatools.list_tools(RequestContext(LOCAL), query="tool number", limit=40)
        assert more.count("\n") >= 30


async def test_a_search_answer_is_enough_to_write_the_call() -> None:
    async with gateway({"raw": raw()}) as opened:
        answer = await opened.metatools.list_tools(RequestContext(LOCAL), query="sum two numbers")
        assert answer.splitlines()[0].startswith("raw.add(a: int, b: int) -> {sum: int}")
        assert await run(opened, "raw.add(a=1, b=2)['sum']") == "3"


async def test_a_small_server_is_listed_whole_below_its_name() -> None:
    async with gateway({"raw": raw()}) as opened:
        answer = await opened.metatools.list_tools(RequestContext(LOCAL), server="raw")
        head, *lines = answer.splitlines()
        assert head == "raw: 21 tools, called as raw.NAME(…)"
        assert len(lines) == 21 and "raw." not in "".join(lines)
        assert "add(a: int, b: int) -> {sum: int} — Add two numbers." in lines
        assert count(answer) <= 300


async def test_a_question_about_a_small_server_ranks_it_and_hides_nothing() -> None:
    async with gateway({"raw": raw()}) as opened:
        head, first, *rest = (
            await opened.metatools.list_tools(RequestContext(LOCAL), server="raw", query="sum two numbers")
        ).splitlines()
        assert first.startswith("add(a: int, b: int)")
        assert len(rest) == 20
        nothing = await opened.metatools.list_tools(RequestContext(LOCAL), server="raw", query="zebra")
        assert nothing.splitlines()[0] == head and len(nothing.splitlines()) == 22


async def test_a_limit_costs_detail_before_it_costs_tools() -> None:
    wide = {f"a_parameter_with_a_long_name_{i}": {"type": "string"} for i in range(12)}
    also = [
        {"name": f"wide_{i}", "description": "Not short. " * 20, "inputSchema": {"properties": wide}} for i in range(30)
    ]
    async with gateway({"raw": raw("--also", json.dumps(also))}) as opened:
        some = await opened.metatools.list_tools(RequestContext(LOCAL), server="raw", limit=4)
        assert some.count("\n") == 5 and some.endswith("(4 of 51)")
        answer = await opened.metatools.list_tools(RequestContext(LOCAL), server="raw", limit=51)
        assert all(f"\nwide_{number}(" in answer for number in range(30))
        assert "more optional" in answer and "Not short" not in answer


async def test_what_several_tools_return_is_written_once() -> None:
    row = {"type": "object", "properties": {name: {"type": "string"} for name in ("first_name", "last_name", "mail")}}
    rows = {"type": "object", "properties": {"result": {"type": "array", "items": row}}}
    also = [
        {"name": name, "inputSchema": {"type": "object", "properties": {}}, "outputSchema": output}
        for name, output in (("get_person", row), ("list_people", rows))
    ]
    async with gateway({"raw": raw("--also", json.dumps(also), tools={"allow": ["*_pe*"]})}) as opened:
        assert (await opened.metatools.list_tools(RequestContext(LOCAL), server="raw")).splitlines() == [
            "raw: 2 tools, called as raw.NAME(…)",
            "get_person() -> T1",
            "list_people() -> list[T1]",
            "T1 = {first_name?: str, last_name?: str, mail?: str}",
        ]


async def test_calls_are_checked_before_anything_runs() -> None:
    async with gateway({"raw": raw()}) as opened:
        text = await run(opened, "raw.echo(text='spent')\nraw.ad(a=1, b=2)\nraw.add(a=1, c=2)\nrow.add(a=1, b=2)")
        assert text.startswith("Not run, nothing was called:")
        assert "line 2: raw has no tool 'ad'; did you mean add?" in text
        assert "line 3: raw.add: unknown argument 'c'" in text and "missing 'b'" in text
        assert "line 4: there is no server 'row'; did you mean 'raw'?" in text
        assert "raw.add(a: int, b: int)" in text
        assert await run(opened, "raw.count()") == "1"


async def test_what_cannot_be_seen_beforehand_is_refused_before_the_upstream_is_called() -> None:
    async with gateway({"raw": raw()}) as opened:
        text = await run(
            opened, "f = raw.add\ntry:\n    f(a='one', b=2)\nexcept ArgumentError as e:\n    print(e)\nraw.count()"
        )
        assert "a: 'one' is not of type 'integer'" in text and "raw.add(a: int, b: int)" in text
        assert text.endswith("1")


async def test_a_failing_tool_raises_a_catchable_tool_error_with_its_facts() -> None:
    async with gateway({"raw": raw()}) as opened:
        code = """
try:
    raw.fail(message="no such user")
except ToolError as error:
    print(error.server, error.tool, error.message, error.data)
try:
    await raw.refuse()
except ToolError as error:
    print(error.message, error.data)
"""
        assert await run(opened, code) == "raw fail no such user {'code': 42}\nI refuse {'why': 'because'}"


async def test_an_uncaught_error_shows_the_models_own_line_and_one_hint() -> None:
    async with gateway({"raw": raw()}) as opened:
        text = await run(
            opened, "def total(rows):\n    return rows[0]['nope']\n\nrows = raw.rows(number=2)\ntotal(rows)"
        )
        assert text.splitlines() == [
            "line 5: total(rows)",
            "line 2 in total: return rows[0]['nope']",
            "KeyError: 'nope'",
            "Hint: print the value; describe_tools shows what a tool returns",
        ]
        assert "did you mean raw?" in await run(opened, "x = rwa")
        assert "standard library" in await run(opened, "import numpy")
        assert "mcpgate_guest" not in await run(opened, "await asyncio.gather(raw.fail(message='x'))")


async def test_calls_that_are_gathered_or_started_first_are_in_flight_together() -> None:
    async with gateway({"raw": raw()}) as opened:
        assert await run(opened, "await asyncio.gather(*[raw.meet(number=8) for _ in range(8)])\n'ok'") == "ok"
    async with gateway({"raw": raw()}) as opened:
        code = "a = raw.meet(number=3); b = raw.meet(number=3); c = raw.meet(number=3)\n[await a, await b, await c]"
        assert await run(opened, code) == '["met","met","met"]'


async def test_uniform_rows_are_written_as_a_table_when_that_is_shorter() -> None:
    async with gateway({"raw": raw()}) as opened:
        assert (
            await run(opened, "raw.rows(number=3)")
            == "id,name,even\n0,row 0,true\n1,row 1,false\n2,row 2,true\n(3 rows)"
        )


async def test_a_long_result_is_summarized_structurally_and_kept_whole() -> None:
    async with gateway({"raw": raw()}, code_mode={"max_result_tokens": 300}) as opened:
        text = await run(opened, "raw.rows(number=5000)")
        assert count(text) < 400
        assert "list of 5,000 objects {id, name, even}" in text and "row 0" in text and "row 4999" in text
        handle = text.split('load("')[1].split('"')[0]
        assert await run(opened, f"rows = load('{handle}')\nlen(rows), rows[2500]['name']") == '[5000,"row 2500"]'
        printed = await run(opened, "print('\\n'.join(str(i) for i in range(20000)))")
        assert count(printed) < 400 and "characters left out" in printed


async def test_handles_belong_to_their_caller() -> None:
    async with gateway({"raw": raw()}, code_mode={"max_result_tokens": 100}) as opened:
        text = await run(opened, "list(range(10000))")
        handle = text.split('load("')[1].split('"')[0]
        other = await opened.metatools.execute_code(RequestContext(Caller("other")), f"load('{handle}')")
        assert other.is_error and "does not exist" in other.text


async def test_an_image_is_a_handle_that_can_be_read_passed_on_and_returned() -> None:
    async with gateway({"raw": raw()}) as opened:
        code = "p = raw.picture()\nprint(p, p.mime_type, p.bytes()[1:4])\nraw.echo(text='x')\np"
        answer = await opened.metatools.execute_code(RequestContext(LOCAL), code)
        assert answer.text == "<image r1: image/png, 70 bytes> image/png b'PNG'"
        assert answer.blocks == ({"type": "image", "data": PICTURE, "mimeType": "image/png"},)
        assert await run(opened, "raw.echo(text=raw.picture())") == PICTURE
        two = await opened.metatools.execute_code(RequestContext(LOCAL), "[raw.picture(), raw.picture()]")
        assert len(two.blocks) == 2
        assert PICTURE not in await run(opened, "{'it': raw.picture()}")


async def test_output_types_are_learned_from_results_and_kept_over_restarts(tmp_path: Path) -> None:
    storage = {"url": f"sqlite:///{tmp_path / 'kept.sqlite3'}"}
    async with gateway({"raw": raw()}, storage=storage) as opened:
        assert "output type unknown" in await opened.metatools.describe_tools(RequestContext(LOCAL), ["raw.rows"])
        await run(opened, "raw.rows(number=3)")
    async with gateway({"raw": raw()}, storage=storage) as opened:
        stub = await opened.metatools.describe_tools(RequestContext(LOCAL), ["raw.rows"])
        assert "-> list[RowsResultItem]:  # output observed, not declared" in stub
        assert "    name: str" in stub and "    even: bool" in stub
        assert "-> list[{id: int, name: str, even: bool}]" in await opened.metatools.list_tools(
            RequestContext(LOCAL), query="records"
        )
    assert b"row 1" not in (tmp_path / "kept.sqlite3").read_bytes()


async def test_a_session_keeps_variables_and_nobody_else_sees_them() -> None:
    async with gateway({"raw": raw()}) as opened:
        await run(opened, "x = raw.add(a=1, b=1)", session="mine")
        assert await run(opened, "x['sum']", session="mine") == "2"
        assert "NameError" in await run(opened, "x")
        other = await opened.metatools.execute_code(RequestContext(Caller("other")), "x", session="mine")
        assert "NameError" in other.text
        with pytest.raises(InvalidRequest):
            await run(opened, "1", session="")


async def test_limits_are_named_when_they_end_an_execution() -> None:
    sandbox = {"cpu_s": 0.5, "timeout_s": 5, "max_tool_calls": 3, "max_output_chars": 1000}
    async with gateway({"raw": raw()}, sandbox=sandbox) as opened:
        assert "used its 0.5 s of CPU time" in await run(opened, "while True: pass")
        assert "longer than 0.3 s" in await run(opened, "raw.hang()", timeout_s=0.3)
        assert "had its 3" in await run(opened, "for i in range(9): raw.echo(text='x')")
        assert "printed more than 1,000 characters" in await run(opened, "print('x' * 5000)")
        assert "more than 256 MiB" in await run(opened, "x = [0] * 10**9")
        assert await run(opened, "'still fine'") == "still fine"


async def test_wrong_names_get_the_nearest_right_ones() -> None:
    async with gateway({"raw": raw(), "odd name!": raw(tools={"allow": ["echo"]})}) as opened:
        stubs = await opened.metatools.describe_tools(RequestContext(LOCAL), ["raw.add", "raw.addd"])
        assert "def add(" in stubs and "did you mean raw.add" in stubs
        with pytest.raises(UnknownTool, match="did you mean raw.picture"):
            await opened.metatools.describe_tools(RequestContext(LOCAL), ["raw.pictur"])
        with pytest.raises(NotFound, match="did you mean"):
            await opened.metatools.list_tools(RequestContext(LOCAL), server="rav")
        assert "def echo(" in await opened.metatools.describe_tools(RequestContext(LOCAL), ["odd name!.echo"])
        assert await run(opened, "odd_name.echo(text='by identifier')") == "by identifier"
        assert await run(opened, "raw['was-cancelled']()") == "0"


async def test_the_sandbox_page_lists_what_is_really_there() -> None:
    async with gateway({"raw": raw()}) as opened:
        page = await opened.metatools.read_docs(RequestContext(LOCAL), "sandbox")
        here = page.split("\nAvailable: ")[1].split("\n")[0].split(", ")
        missing = page.split("Missing: ")[1].split(";")[0].split(", ")
        assert {"json", "re", "sqlite3", "zoneinfo"} <= set(here) and {"ctypes", "ssl"} <= set(missing)
        code = f"import importlib\nfor name in {here!r}: importlib.import_module(name)\n'all import'"
        assert await run(opened, code) == "all import"
        assert "timeout_s=60" in page


async def test_small_set_ups_find_their_tools_in_the_description_itself() -> None:
    one = raw(tools={"allow": ["add"]})
    async with gateway({"calc": one}) as opened:
        assert "calc.add(a: int, b: int) -> {sum: int}" in opened.definitions.of(LOCAL)[3]["description"]
    few = raw(tools={"allow": ["echo", "add", "big", "steps", "rows", "liar", "deep", "meet", "fail"]})
    async with gateway({"calc": few}, code_mode={"index_tokens": 85}) as opened:
        text = opened.definitions.of(LOCAL)[3]["description"]
        assert "calc.add(a: int, b: int); " in text and "calc.liar()" in text
    async with gateway({"calc": one}, code_mode={"index_tokens": 0}) as opened:
        assert "calc" not in json.dumps(opened.tool_list(LOCAL))


async def test_the_description_names_as_many_servers_as_fit_and_counts_the_rest() -> None:
    servers = {f"server_with_a_long_name_{i:02}": raw("--tools", "30") for i in range(20)}
    async with gateway(servers, settle=False) as opened:
        text = opened.definitions.of(LOCAL)[3]["description"]
        named = text.rpartition(" Servers: ")[2].partition(" … and ")
        assert named[0].split(", ") == sorted(servers)[: named[0].count(",") + 1]
        assert named[2] == f"{20 - named[0].count(',') - 1} more" and named[0].count(",") > 5


async def test_two_servers_of_a_thousand_tools_each_stay_quick() -> None:
    servers = {name: raw("--tools", "1000", "--page", "100") for name in ("left", "right")}
    async with gateway(servers) as opened:
        assert len(opened.catalog.tools) == 2 * 1021
        async with asyncio.timeout(10):  # a bound on seconds per call; figures are in benchmarks/scale
            for number in range(20):
                assert f"tool_{number}" in await opened.metatools.list_tools(
                    RequestContext(LOCAL), query=f"tool number {number}"
                )
                await opened.metatools.describe_tools(
                    RequestContext(LOCAL), [f"left.tool_{number}", f"right.tool_{number}"]
                )
            answer = await run(opened, "left.tool_999(value='x')")
        assert answer == 'tool_999 called with {"value": "x"}'


async def test_help_shows_how_a_tool_is_called_and_ends_nothing() -> None:
    async with gateway({"raw": raw()}) as opened:
        answer = await opened.metatools.execute_code(RequestContext(LOCAL), "help(raw.add)\nhelp(raw)\nprint('on')")
        assert not answer.is_error
        assert "def add(" in answer.text and "raw.echo(" in answer.text and answer.text.endswith("on")


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("import requests", "only the standard library is available"),
        ("import rawr", "did you mean the server raw"),
        ("raw__ech()", "did you mean"),
        ("raw__echo(text='x')", "did you mean raw.echo(…)"),
        ("call_tool('x')", "servers: raw"),
    ],
)
async def test_an_error_s_hint_names_the_nearest_right_thing(code: str, hint: str) -> None:
    async with gateway({"raw": raw()}) as opened:
        answer = await opened.metatools.execute_code(RequestContext(LOCAL), code)
        assert answer.is_error and hint in answer.text
