import builtins
import itertools
import keyword
import random
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpgate.catalog.names import clashes, class_name, identifiers, server_identifiers, to_identifier
from tests.catalog.work import work_of

NAMES = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=10), unique=True, max_size=12)


@pytest.mark.parametrize(
    ("name", "ident"),
    [
        ("read_file", "read_file"),
        ("read-file", "read_file"),
        ("repo/issues.list", "repo_issues_list"),
        ("  spaced  out  ", "spaced_out"),
        ("class", "class_"),
        ("None", "None_"),
        ("match", "match"),
        ("2fa", "n2fa"),
        ("_private", "private"),
        ("--", "x"),
        ("größe", "größe"),
        ("名前", "名前"),
        ("ﬁle", "file"),
    ],
)
def test_a_name_becomes_the_identifier_that_one_would_guess(name: str, ident: str) -> None:
    assert identifiers([name]) == {name: ident}


def test_a_name_that_is_an_identifier_keeps_it_whatever_else_there_is() -> None:
    assert identifiers(["a-b", "a.b", "a_b"]) == {"a_b": "a_b", "a-b": "a_b_2", "a.b": "a_b_3"}


def test_clashes_are_resolved_the_same_way_in_whatever_order_the_names_come() -> None:
    names = ["get-user", "get_user", "get.user", "get user", "getUser", "class", "class_", "class-"]
    expected = identifiers(names)
    assert len(set(expected.values())) == len(names)
    shuffled = list(names)
    for seed in range(20):
        random.Random(seed).shuffle(shuffled)
        assert identifiers(shuffled) == expected


@pytest.mark.parametrize("name", ["list", "print", "json", "asyncio", "load", "ToolError"])
def test_a_server_never_hides_a_builtin_or_a_helper(name: str) -> None:
    assert server_identifiers([name]) == {name: f"{name}_"}
    assert server_identifiers([name, f"{name}_"]) == {f"{name}_": f"{name}_", name: f"{name}_3"}


def test_a_server_may_be_called_like_a_module() -> None:
    assert server_identifiers(["time", "git"]) == {"git": "git", "time": "time"}


@given(NAMES)
def test_all_identifiers_are_different_valid_and_as_python_reads_them(names: list[str]) -> None:
    found = identifiers(names)
    assert found.keys() == set(names)
    assert len(set(found.values())) == len(names)
    for ident in found.values():
        assert ident.isidentifier() and not keyword.iskeyword(ident) and not ident.startswith("_")
        assert unicodedata.normalize("NFKC", ident) == ident


@given(NAMES)
def test_no_original_name_is_the_identifier_of_another(names: list[str]) -> None:
    found = identifiers(names)
    assert all(ident not in found or found[ident] == ident for ident in found.values())


@given(NAMES)
def test_no_server_identifier_is_a_builtin(names: list[str]) -> None:
    assert not set(server_identifiers(names).values()) & set(dir(builtins))


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("create_user", "address"), "CreateUserAddress"),
        (("x", "2fa code"), "X2faCode"),
        (("2fa",), "N2fa"),
        (("名前",), "Item"),
        ((), "Item"),
    ],
)
def test_class_names_are_camel_case(parts: tuple[str, ...], expected: str) -> None:
    assert class_name(*parts) == expected


def test_ten_thousand_names_that_become_one_identifier_take_a_few_steps_each() -> None:
    names = ["a" + "".join("-.:/"[(i >> 2 * bit) & 3] for bit in range(7)) for i in range(10_000)]
    found: dict[str, str] = {}
    assert work_of(lambda: found.update(identifiers(names))) < 30 * len(names)
    assert sorted(found.values()) == sorted(["a", *(f"a_{i}" for i in range(2, 10_001))])


def test_numbers_that_are_names_already_are_left_out() -> None:
    assert identifiers(["a-", "a.", "a:", "a_2", "a_4"]) == {
        "a_2": "a_2",
        "a_4": "a_4",
        "a-": "a",
        "a.": "a_3",
        "a:": "a_5",
    }


def _counted_from_one(names: list[str], taken: frozenset[str]) -> dict[str, str]:
    """What the identifiers are, in the plainest words: every clash counts from the beginning."""
    found = {name: name for name in names if name.isidentifier() and name not in taken and not name.startswith("_")}
    for name in sorted(set(names) - found.keys()):
        base = to_identifier(name)
        numbered = (f"{base}_" if base in taken and n == 2 else f"{base}_{n}" for n in itertools.count(2))
        found[name] = next(c for c in itertools.chain([base], numbered) if c not in taken and c not in found.values())
    return found


@given(
    st.lists(st.text("a_-2.", min_size=1, max_size=4), unique=True, max_size=30), st.sampled_from([(), ("a", "a_2")])
)
def test_numbers_are_the_first_that_are_free(names: list[str], taken: tuple[str, ...]) -> None:
    assert identifiers(names, frozenset(taken)) == _counted_from_one(names, frozenset(taken))


def test_a_name_of_megabytes_becomes_an_identifier_that_can_be_written() -> None:
    found = identifiers(["x" * 1_000_000, "x" * 1_000_001, "ﷺ" * 1_000_000, "-" * 1_000_000])
    assert len(set(found.values())) == 4 and all(len(ident) < 250 for ident in found.values())


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["brave-search", "brave_search", "files"], [("brave-search", "brave_search")]),
        (["a.b", "a-b", "a b"], [("a b", "a-b", "a.b")]),
        (["list", "list_"], [("list", "list_")]),
        (["ﬁle", "file"], [("file", "ﬁle")]),
        (["2fa", "n2fa"], [("2fa", "n2fa")]),
        (["files", "Files", "file_", "file"], []),
        (["x" * 300, "x" * 301], [("x" * 300, "x" * 301)]),
        ([], []),
    ],
)
def test_servers_that_would_become_one_identifier_are_found(names: list[str], expected: list[tuple[str, ...]]) -> None:
    assert clashes(names) == expected


@given(NAMES)
def test_where_nothing_clashes_no_server_takes_the_identifier_of_another_when_one_is_added(names: list[str]) -> None:
    if not clashes(names):
        whole = server_identifiers(names)
        assert all(server_identifiers([name])[name] == whole[name] for name in names)
