import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpgate.catalog.catalog import Catalog, ServerListing
from mcpgate.catalog.search import SearchIndex
from mcpgate.errors import NotFound, UnknownTool


def listing(server: str, *tools: str) -> ServerListing:
    return ServerListing(server, [{"name": name, "inputSchema": {}} for name in tools])


CATALOG = Catalog.build(
    [
        listing("files", "read_file", "write-file", "List", "class", "_hidden", "hidden"),
        listing("my.docs", "search", "a.b"),
        listing("git", "status", "shared"),
        listing("list", "shared", "only_here"),
    ]
)


@pytest.mark.parametrize(
    ("spelling", "server", "tool"),
    [
        ("files.read_file", "files", "read_file"),
        ("files__read_file", "files", "read_file"),
        ("files/read_file", "files", "read_file"),
        ("FILES.READ_FILE", "files", "read_file"),
        ("files.write-file", "files", "write-file"),
        ("files.write_file", "files", "write-file"),
        ("files.list", "files", "List"),
        ("files.class", "files", "class"),
        ("files.class_", "files", "class"),
        ("files._hidden", "files", "_hidden"),
        ("my.docs.search", "my.docs", "search"),
        ("my_docs.a.b", "my.docs", "a.b"),
        ("my_docs.a_b", "my.docs", "a.b"),
        ("list.only_here", "list", "only_here"),
        ("list_.only_here", "list", "only_here"),
        ("only_here", "list", "only_here"),
    ],
)
def test_a_tool_is_found_by_every_accepted_spelling(spelling: str, server: str, tool: str) -> None:
    found = CATALOG.get_tool(spelling)
    assert (found.server, found.name) == (server, tool)


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), unique=True, min_size=1, max_size=8))
def test_every_original_name_and_every_identifier_finds_its_own_tool(names: list[str]) -> None:
    catalog = Catalog.build([listing("srv", *names), listing("other.one", *names)])
    for tool in catalog.tools:
        assert catalog.get_tool(f"{tool.server}.{tool.name}") is tool
        assert catalog.get_tool(tool.qualified) is tool


def test_a_misspelt_tool_names_the_nearest() -> None:
    with pytest.raises(UnknownTool, match=r"no tool 'files\.raed_file'; did you mean files\.read_file") as caught:
        CATALOG.get_tool("files.raed_file")
    assert caught.value.data["nearest"][0] == "files.read_file"


def test_a_bare_name_that_several_servers_have_names_them() -> None:
    with pytest.raises(UnknownTool) as caught:
        CATALOG.get_tool("shared")
    assert caught.value.data["nearest"] == ["git.shared", "list_.shared"]


def test_a_misspelt_server_names_the_nearest_and_an_unlike_one_all() -> None:
    assert CATALOG.get_server("Files").name == "files"
    with pytest.raises(NotFound, match="did you mean files"):
        CATALOG.get_server("flies")
    with pytest.raises(NotFound, match="servers: files, git, list_, my_docs"):
        CATALOG.get_server("zzz")


def test_an_unchanged_tool_and_index_are_reused_in_the_next_snapshot() -> None:
    files, git = listing("files", "read"), listing("git", "status")
    first = Catalog.build([files, git])
    index = first.index
    same = Catalog.build([files, git], first)
    assert same.tools == first.tools and same.index is index
    changed = Catalog.build([files, listing("git", "status")], same)
    assert changed.get_tool("files.read") is first.get_tool("files.read")
    assert changed.get_tool("git.status") is not first.get_tool("git.status")
    assert changed.index is not index


def test_a_snapshot_without_an_index_is_searched_with_an_earlier_one_for_the_tools_that_are_in_both() -> None:
    stays, leaves, comes = listing("files", "read"), listing("old", "read"), listing("new", "read")
    first = Catalog.build([stays, leaves])
    assert len(first.search("read", 9)) == 2
    second = Catalog.build([stays, comes], first)
    assert second.is_searchable and not second.is_indexed
    assert [tool.qualified for tool in second.search("read", 9)] == ["files.read"]
    second.search_with(SearchIndex(second.tools))
    assert [tool.qualified for tool in second.search("read", 9)] == ["files.read", "new.read"]


def test_an_index_that_comes_late_does_not_replace_a_newer_one() -> None:
    first = Catalog.build([listing("old", "read")])
    second = Catalog.build([listing("new", "read")], first)
    index = second.index
    second.search_with(first.index)
    assert second.index is index


def test_a_wrong_name_does_not_build_an_index() -> None:
    catalog = Catalog.build([listing("files", "read")])
    with pytest.raises(UnknownTool):
        catalog.get_tool("zzz")
    assert not catalog.is_searchable


def test_a_tool_whose_identifier_changed_is_not_reused() -> None:
    raw = {"name": "a-b", "inputSchema": {}}
    first = Catalog.build([ServerListing("s", [raw])])
    second = Catalog.build([ServerListing("s", [raw, {"name": "a_b", "inputSchema": {}}])], first)
    assert first.get_tool("s.a-b").ident == "a_b"
    assert second.get_tool("s.a-b").ident == "a_b_2"


def test_servers_come_in_the_order_of_their_names_whatever_order_they_connect_in() -> None:
    one, other = listing("b", "x"), listing("a", "y")
    assert [s.name for s in Catalog.build([one, other]).servers] == ["a", "b"]
    assert [t.qualified for t in Catalog.build([other, one]).tools] == ["a.y", "b.x"]


def test_an_empty_catalog_answers() -> None:
    empty = Catalog.build([])
    assert empty.tools == () and empty.find_server("x") is None
    with pytest.raises(UnknownTool, match=r"list_tools\(query\) finds tools"):
        empty.get_tool("x.y")
