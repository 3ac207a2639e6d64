"""Only certain mistakes are refused: each test states what the code means, and whether it is refused or passed."""

from typing import Any

import pytest

from mcpgate.catalog.catalog import Catalog, ServerListing
from mcpgate.catalog.stubs import call_shape
from mcpgate.codemode.precheck import explain, mentioned_servers, precheck
from tests.catalog.schemas import taking
from tests.catalog.work import work_of

_READ = taking(("path",), path={"type": "string"}, head={"type": "integer"}, **{"max-size": {"type": "integer"}})
CATALOG = Catalog.build(
    [
        ServerListing(
            "files",
            [
                {"name": "read_file", "inputSchema": _READ},
                {"name": "list-all", "inputSchema": taking()},
                {"name": "query", "inputSchema": {"type": "object", "additionalProperties": True}},
            ],
        ),
        ServerListing("time", [{"name": "now", "inputSchema": taking()}]),
        ServerListing("down", [], trouble="it does not start"),
    ]
)


def faults(code: str, has_session: bool = False) -> list[str]:
    return [f"{fault.line}: {fault.message}" for fault in precheck(code, CATALOG, has_session)]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("files.raed_file(path='a')", "1: files has no tool 'raed_file'; did you mean read_file"),
        ("x = 1\nfiles.zzz()", "2: files has no tool 'zzz'; list_tools(server=\"files\") shows its tools"),
        ("await asyncio.gather(*[files.nope() for _ in range(3)])", "1: files has no tool 'nope'"),
        ("flies.read_file(path='a')", "1: there is no server 'flies'; did you mean 'files'?"),
        (
            "files.read_file(pth='a')",
            "1: files.read_file: unknown argument 'pth' (did you mean 'path'?); missing 'path'",
        ),
        ("files.read_file()", "1: files.read_file: missing 'path'"),
        ("files.read_file(head=3)", "1: files.read_file: missing 'path'"),
        ("files.read_file('a', 1, 2, 3)", "1: files.read_file: takes 3 arguments, 4 are given"),
        ("files.list_all('x')", "1: files.list_all: takes 0 arguments, 1 are given"),
        ("def f():\n    return files.read_file()", "2: files.read_file: missing 'path'"),
    ],
)
def test_a_certain_mistake_is_found_before_anything_runs(code: str, expected: str) -> None:
    found = faults(code)
    assert len(found) == 1 and found[0].startswith(expected)


@pytest.mark.parametrize(
    "code",
    [
        "files.read_file('a')",
        "files.read_file(path='a', max_size=3)",
        "files.read_file(**{'path': 'a', 'max-size': 3})",
        "files.read_file({'path': 'a'})",
        "files.read_file(arguments)",
        "files.read_file(*arguments)",
        "files.read_file(head=3, **rest)",
        "files.list_all()",
        "files.list_all({})",
        "files.query(anything=1)",
        "f = files.read_file; f('a')",
        "files['read_file'](path='a')",
        "getattr(files, name)()",
        "files._anything",
        "down.whatever()",
        "import time\ntime.sleep(1)\ntime.now()",
        "import flies\nflies.read()",
        "from flies import *\nfiels.read()",
        "files = open_all()\nfiles.nope()",
        "def f(files):\n    files.nope()",
        "for files in all: files.nope()",
        "with x as files: files.nope()",
        "[files.nope() for files in all]",
        "try: pass\nexcept E as files: files.nope()",
        "match x:\n    case {'a': 1, **files}: files.nope()",
        "match x:\n    case [*files]: files.nope()",
        "class files: nope = 1\nfiles.nope",
        "lambda files: files.nope()",
        "if (files := x): files.nope()",
        "flies = {}\nflies.get('a')",
        "flies.attribute",
        "print('files.nope()')  # files.nope()",
        "this is no Python at all",
        "(" * 300,
        "x = 1\x00",
        "",
    ],
)
def test_whatever_might_work_at_run_time_is_left_to_run(code: str) -> None:
    assert faults(code) == []


def test_a_variable_of_an_earlier_execution_may_be_called_like_nearly_a_server() -> None:
    assert faults("flies.items()", has_session=True) == []
    assert faults("flies.items()") != []


def test_at_most_five_mistakes_are_reported_in_line_order() -> None:
    found = faults("\n".join(["files.read_file()"] * 9))
    assert [line.partition(":")[0] for line in found] == ["1", "2", "3", "4", "5"]


def test_the_explanation_says_that_nothing_ran_and_shows_each_shape_once() -> None:
    text = explain(precheck("files.read_file()\nfiles.read_file(1, 2, 3, 4)", CATALOG), call_shape)
    assert text == (
        "Not run, nothing was called:\n"
        "line 1: files.read_file: missing 'path'\n"
        "line 2: files.read_file: takes 3 arguments, 4 are given\n"
        "  files.read_file(path: str, head: int = ..., max_size: int = ...)"
    )


def test_the_servers_that_code_names_are_known_in_advance() -> None:
    assert [server.name for server in mentioned_servers("x = files.read_file('a')", CATALOG)] == ["files"]
    assert [server.name for server in mentioned_servers("from files import read_file", CATALOG)] == ["files"]
    assert [server.name for server in mentioned_servers("return (files.read_file('a')", CATALOG)] == ["files"]


@pytest.mark.parametrize(
    "code",
    ["my_files = 1", "'files'", "# files", "files = []\nfiles.append(1)", "import time\ntime.sleep(1)"],
)
def test_a_server_whose_name_only_occurs_in_code_is_not_waited_for(code: str) -> None:
    catalog = Catalog.build([ServerListing("files", []), ServerListing("time", [])])
    assert mentioned_servers(code, catalog) == []


MANY = Catalog.build(
    [
        ServerListing("wide", [{"name": "call", "inputSchema": taking(("p0",), **{f"p{i}": {} for i in range(900)})}]),
        ServerListing("many", [{"name": f"tool_{i}", "inputSchema": taking()} for i in range(5_000)]),
        *(ServerListing(f"server_{i}", [{"name": "t", "inputSchema": taking()}]) for i in range(400)),
    ]
)
LONG = {
    "calls of a tool of many parameters": "wide.call(p0=1)\n" * 3_000,
    "unknown arguments": f"wide.call({', '.join(f'q{i}=1' for i in range(5_000))})",
    "unknown servers": "\n".join(f"sirver_x{i}.t()" for i in range(2_000)),
    "unknown names": "\n".join(f"zzzzzzz{i}.t()" for i in range(3_000)),
    "unknown tools": "\n".join(f"many.tuul_{i}()" for i in range(2_500)),
    "attributes": "x = " + "a.b." * 12_000 + "c",
    "nested": "(" * 40_000,
    "signs": "-" * 49_000 + "1",
    "nested lists": "[" * 90 + "]" * 90,
    "megabytes": "many.tool_0()\n" * 100_000,
}


@pytest.mark.parametrize("name", LONG)
def test_a_program_made_to_take_long_is_checked_in_bounded_steps(name: str) -> None:
    for server in MANY.servers:
        assert server.accepted and all(tool.parameters is not None for tool in server.tools)  # computed once
    found: list[Any] = []
    assert work_of(lambda: found.append(precheck(LONG[name], MANY))) < 1_500_000
    assert len(found[0]) <= 5
    assert all(len(fault.message) < 2_000 for fault in found[0])
