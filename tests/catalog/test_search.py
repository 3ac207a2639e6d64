import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpgate.catalog.catalog import Catalog, ServerListing
from mcpgate.catalog.search import SearchIndex, stem, words
from tests.catalog.schemas import captured_tools, taking, tool
from tests.catalog.work import work_of

_TOOLS = {
    "files": {
        "read_text_file": "Read the complete contents of a file as text.",
        "write_file": "Create a new file or completely overwrite an existing file.",
        "list_directory": "List all files and directories in a path.",
        "delete_file": "Delete a file for good.",
    },
    "github": {
        "create_issue": "Open a new issue in a GitHub repository.",
        "list_issues": "List issues in a repository, filtered by state and labels.",
        "merge_pull_request": "Merge a pull request.",
        "searchCode": "Search for code across repositories.",
    },
    "mail": {"send_message": "Send an email to one or more recipients.", "list_threads": "List mail threads."},
}
CATALOG = Catalog.build(
    [
        ServerListing(server, [{"name": name, "description": text, "inputSchema": {}} for name, text in tools.items()])
        for server, tools in _TOOLS.items()
    ]
)


def best(query: str, server: str | None = None) -> str:
    found = CATALOG.index.search(query, 5, server)
    return found[0].qualified if found else ""


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("create_issue", "github.create_issue"),
        ("search code", "github.searchCode"),
        ("searchcode", "github.searchCode"),
        ("open a new github issue", "github.create_issue"),
        ("listing of the issues", "github.list_issues"),
        ("remove a document", "files.delete_file"),
        ("what is in this folder", "files.list_directory"),
        ("post an e-mail message", "mail.send_message"),
        ("merge PR", "github.merge_pull_request"),
        ("mrege pul reqest", "github.merge_pull_request"),
        ("directry", "files.list_directory"),
        ("craete isue", "github.create_issue"),
        ("derectories", "files.list_directory"),
    ],
)
def test_a_request_finds_its_tool_by_name_synonym_or_word_form_and_despite_typos(query: str, expected: str) -> None:
    assert best(query) == expected


def test_the_exact_name_comes_first_however_often_others_use_its_words() -> None:
    tools = [{"name": f"read_file_{i}", "description": "read file " * 20, "inputSchema": {}} for i in range(30)]
    tools.append({"name": "read_file", "description": "", "inputSchema": {}})
    index = Catalog.build([ServerListing("s", tools)]).index
    assert [tool.name for tool in index.search("read file", 1)] == ["read_file"]


def test_a_search_can_be_kept_to_one_server() -> None:
    assert {tool.server for tool in CATALOG.index.search("list", 10, "mail")} == {"mail"}


def test_a_search_gives_no_more_than_asked_for() -> None:
    assert len(CATALOG.index.search("list file issue message", 2)) == 2


@pytest.mark.parametrize("query", ["", "   ", "the of and", "zzqqxx", "§$%"])
def test_a_request_that_says_nothing_finds_nothing(query: str) -> None:
    assert CATALOG.index.search(query, 5) == []


def test_a_rare_synonym_does_not_outweigh_the_word_itself() -> None:
    tools = [{"name": f"list_{kind}", "inputSchema": {}} for kind in ("cats", "dogs", "birds", "fish")]
    tools.append({"name": "collection_index", "inputSchema": {}})
    found = Catalog.build([ServerListing("s", tools)]).index.search("list", 5)
    assert [tool.name for tool in found[-1:]] == ["collection_index"]


def test_words_that_stand_without_spaces_are_found_by_their_parts() -> None:
    texts = {"get_tickets": "查询12306余票信息。", "get_bazi": "计算八字。", "get_weather": "获取天气预报。"}
    tools = [{"name": name, "description": text, "inputSchema": {}} for name, text in texts.items()]
    index = Catalog.build([ServerListing("s", tools)]).index
    assert [tool.name for tool in index.search("查询火车票余票", 1)] == ["get_tickets"]
    assert [tool.name for tool in index.search("八字", 5)] == ["get_bazi"]


def test_a_long_word_has_nothing_to_do_with_a_short_one_that_it_begins_with() -> None:
    index = Catalog.build([ServerListing("s", [{"name": "xxxx_cosmos", "inputSchema": {}}])]).index
    assert index.search("x" * 20_000, 5) == []
    assert [tool.name for tool in index.search("cosmosdb", 5)] == ["xxxx_cosmos"]


def test_an_empty_catalog_finds_nothing() -> None:
    assert SearchIndex([]).search("anything", 5) == []


def test_the_same_request_has_the_same_answer() -> None:
    once = [tool.qualified for tool in CATALOG.index.search("list files and issues", 10)]
    assert [tool.qualified for tool in SearchIndex(CATALOG.tools).search("list files and issues", 10)] == once


def test_a_parameters_name_is_found() -> None:
    schema = {"type": "object", "properties": {"wavelength_nm": {"type": "number"}}}
    tools = [{"name": "measure", "inputSchema": schema}, {"name": "other", "inputSchema": {}}]
    found = Catalog.build([ServerListing("s", tools)]).index.search("wavelength", 5)
    assert [tool.name for tool in found] == ["measure"]


@pytest.mark.parametrize(
    ("one", "other"),
    [("files", "file"), ("queries", "query"), ("running", "run"), ("searches", "search"), ("deleted", "delete")],
)
def test_forms_of_a_word_have_one_stem(one: str, other: str) -> None:
    assert stem(one) == stem(other)


def test_words_are_split_at_case_and_underscores_and_common_ones_left_out() -> None:
    assert words("getUserID for the HTTPServer_v2") == words("get user id http server v2")


def test_a_search_over_all_captured_tools_takes_milliseconds_and_every_tool_is_found_by_its_name() -> None:
    tools = captured_tools()
    index = SearchIndex(tools)
    started = time.perf_counter()
    wanted = tools[::20]
    missed = [tool for tool in wanted if tool.name not in {t.name for t in index.search(tool.name, 12)}]
    assert missed == []
    assert (time.perf_counter() - started) / len(wanted) < 0.1


def test_a_request_of_megabytes_is_cut_and_answered() -> None:
    tools = [tool(taking(), f"read_{i}", "Reads a file.") for i in range(50)]
    index = SearchIndex(tools)
    found: list[Any] = []
    assert work_of(lambda: found.extend(index.search("read a file " + "zzzz yyyy " * 1_500_000, 5))) < 20_000
    assert len(found) == 5


def test_a_hostile_server_adds_a_bounded_number_of_words() -> None:
    huge = tool(
        taking(**{f"parameter_{i}_{'x' * 1_000}": {} for i in range(5_000)}),
        "n" * 1_000_000,
        " ".join(f"word{i}" for i in range(1_000_000)),
    )
    index: list[SearchIndex] = []
    assert work_of(lambda: index.append(SearchIndex([huge]))) < 50_000
    assert work_of(lambda: index[0].search(" ".join(f"ward{i}" for i in range(1_000)), 5)) < 50_000


@given(
    st.lists(st.text("abcd", min_size=4, max_size=8), min_size=1, max_size=8), st.text("abcd", min_size=4, max_size=8)
)
def test_a_word_that_is_not_known_finds_every_tool_whose_words_begin_alike(names: list[str], request: str) -> None:
    tools = [tool(taking(), name) for name in dict.fromkeys(names)]
    known = {term for name in names for term in words(name)}
    for word in set(words(request)) - known:
        alike = [
            t
            for t in tools
            if any(
                w.startswith(word) or (word.startswith(w) and len(w) >= max(4, len(word) / 2)) for w in words(t.name)
            )
        ]
        found = SearchIndex(tools).search(request, 100)
        assert len(word) < 4 or {id(t) for t in alike} <= {id(t) for t in found}


def test_an_index_made_from_an_earlier_one_finds_what_a_new_one_finds() -> None:
    stay, leave = CATALOG.servers[1:], CATALOG.servers[0]
    added = [{"name": f"extra_{word}", "description": f"Adds a {word} somewhere.", "inputSchema": {}} for word in "xyz"]
    listings = [ServerListing(server.name, [tool.raw for tool in server.tools]) for server in stay]
    after = Catalog.build([*listings, ServerListing("added", added)], CATALOG)
    grown, fresh = SearchIndex(after.tools, CATALOG.index), SearchIndex(after.tools)
    queries = [*(tool.name for tool in CATALOG.tools), "craete isue", "add something", leave.tools[0].description]
    assert any(grown.search(query, 50) for query in queries)
    assert [grown.search(query, 50) for query in queries] == [fresh.search(query, 50) for query in queries]
