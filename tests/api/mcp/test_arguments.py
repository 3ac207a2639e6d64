"""Arguments of the meta-tools: what certain habits of clients and models mean."""

from typing import Any

import pytest

from mcpgate.api.mcp.arguments import checked
from mcpgate.errors import InvalidRequest


@pytest.mark.parametrize(
    ("name", "sent", "given"),
    [
        ("list_tools", {"query": None, "server": "", "limit": ""}, {}),
        ("list_tools", {"query": "read", "server": "  ", "limit": 0}, {"query": "read"}),
        ("list_tools", {"limit": "5"}, {"limit": 5}),
        ("list_tools", {"limit": 5.0}, {"limit": 5}),
        ("execute_code", {"code": "1", "session": "", "timeout_s": 0}, {"code": "1"}),
        ("execute_code", {"code": "", "timeout_s": "2.5"}, {"code": "", "timeout_s": 2.5}),
        ("describe_tools", {"names": "a.b"}, {"names": ["a.b"]}),
        ("describe_tools", {"names": '["a.b", "c"]'}, {"names": ["a.b", "c"]}),
        ("describe_tools", {"names": "a.b, c.d"}, {"names": ["a.b", "c.d"]}),
        ("describe_tools", {"names": []}, {"names": []}),
        ("read_docs", {"topic": ""}, {"topic": ""}),
    ],
)
def test_what_certainly_means_the_same_is_taken_the_same(name: str, sent: dict[str, Any], given: Any) -> None:
    assert checked(name, sent) == given


@pytest.mark.parametrize(
    ("name", "sent", "said"),
    [
        ("list_tools", {"limit": "many"}, "limit must be a number, not 'many'"),
        ("list_tools", {"limit": 2.5}, "limit must be a whole number, not 2.5"),
        ("list_tools", {"limit": True}, "limit must be a number, not a boolean"),
        ("list_tools", {"limit": float("nan")}, "limit is out of range"),
        ("list_tools", {"limit": "1e999"}, "limit is out of range"),
        ("list_tools", {"query": 3}, "query must be text, not a number"),
        ("execute_code", {"code": ["1"]}, "code must be text, not a list"),
        ("execute_code", {"timeout_s": 1}, "execute_code needs 'code'"),
        ("describe_tools", {"names": {"a": 1}}, "names must be a list of strings"),
        ("describe_tools", {"names": [1]}, "names must be a list of strings"),
        ("describe_tools", {"names": "[" * 90_000}, "names"),
        ("read_docs", {"topics": "x"}, "did you mean 'topic'?"),
    ],
)
def test_what_has_no_certain_meaning_is_refused_in_words(name: str, sent: dict[str, Any], said: str) -> None:
    try:
        given = checked(name, sent)
    except InvalidRequest as error:
        assert said in error.message and len(error.message) < 500
    else:
        assert name == "describe_tools" and len(given["names"]) == 1, "text that is no list is one name"
