import builtins
import keyword
import random
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpgate.catalog.names import class_name, identifiers, server_identifiers

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
