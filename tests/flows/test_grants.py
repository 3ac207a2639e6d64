"""What a key was not granted appears in no list, hint or error, and cannot be called."""

import json
import re

import pytest

from tests.flows.clients import BOTH_ERAS, client_of, text_of
from tests.flows.governed import HELD, Served, bearer

HIDDEN = ("alpha.add", "alpha.fail", "alpha.rows", "beta.tool_0", "beta.tool_2", "gamma")
"""Some of what the key `some` was not granted."""
UNMISTAKABLE = re.compile(r"\b(?:garbled|wordy|liar|broken_json|picture|tool_0|tool_2)\b|\b(?:add|rows|fail)\(")
"""Their bare names that cannot be mistaken for ordinary words."""


def names_hidden_things(text: str) -> list[str]:
    flat = text.replace("__", ".").replace("-", "_")
    return [name for name in (*HIDDEN, "private") if name in flat] + UNMISTAKABLE.findall(flat)


@BOTH_ERAS
@pytest.mark.anyio
async def test_what_is_not_granted_is_in_no_list(house: Served, mode: str) -> None:
    async with client_of(house.address, mode, bearer(HELD["some"])) as client:
        tools = (await client.list_tools()).tools
        assert sorted(tool.name for tool in tools) == sorted(
            ["list_tools", "describe_tools", "read_docs", "execute_code",
             "alpha__echo", "alpha__was-cancelled", "beta__tool_1", "beta__grow"]
        )  # fmt: skip
        shown = json.dumps([tool.model_dump() for tool in tools])
        assert "alpha" in shown and not names_hidden_things(shown)
        for name, arguments in (
            ("list_tools", {}),
            ("list_tools", {"query": "add two numbers"}),
            ("list_tools", {"query": "tool number 2"}),
            ("list_tools", {"query": "records rows"}),
            ("list_tools", {"server": "alpha"}),
            ("list_tools", {"server": "alpha", "limit": 1000}),
            ("list_tools", {"server": "beta"}),
            ("describe_tools", {"names": ["alpha", "beta"]}),
            ("read_docs", {"topic": ""}),
            ("read_docs", {"topic": "alpha"}),
            ("read_docs", {"topic": "beta"}),
            ("read_docs", {"topic": "sandbox"}),
            ("execute_code", {"code": "sorted(n for n in globals() if n[:1] != '_') + dir(alpha) + dir(beta)"}),
            ("execute_code", {"code": "repr(alpha), repr(beta), str(vars(alpha))"}),
        ):
            text = text_of(await client.call_tool(name, arguments))
            assert text and not names_hidden_things(text), (name, arguments, text)
        counted = text_of(await client.call_tool("list_tools", {}))
        assert "alpha (2 tools)" in counted and "4 tools" in counted


def test_the_index_in_the_description_of_execute_code_names_only_what_is_granted(house: Served) -> None:
    index = {key: next(t["description"] for t in house.tools(HELD[key]) if t["name"] == "execute_code")
             for key in ("all", "some")}  # fmt: skip
    assert " Tools" in index["all"] and "rows" in index["all"] and "was_cancelled" in index["all"]
    assert " Tools" in index["some"] and "rows" not in index["some"] and "was_cancelled" in index["some"]
    assert not names_hidden_things(index["some"])


@pytest.mark.parametrize(
    "wrong",
    [
        "alpha.ad",
        "alpha.ads",
        "alpha.fal",
        "alpha.row",
        "beta.tool_",
        "beta.tool_22",
        "gama",
        "gamma2.add",
        "tool_",
        "ro",
    ],
)
def test_hints_in_errors_never_name_what_is_not_granted(house: Served, wrong: str) -> None:
    server, _, tool = wrong.partition(".")
    for answer in (
        house.call("describe_tools", {"names": [wrong]}, HELD["some"]),
        house.call("read_docs", {"topic": wrong}, HELD["some"]),
        house.call("list_tools", {"server": wrong}, HELD["some"]),
        house.call(wrong.replace(".", "__"), {}, HELD["some"]),
        house.run(f"{server}.{tool or 'xyzzy'}(a=1)", HELD["some"]),
        house.run(f"alpha['{tool or server}'](a=1)", HELD["some"]),
        house.run(f"getattr(alpha, '{tool or server}')(a=1)", HELD["some"]),
    ):
        error = answer.response.json().get("error") or answer.error
        rest = answer.text + json.dumps(error)
        for own in (wrong, wrong.replace(".", "__"), *((f"{server}.{tool}", server) if tool else ())):
            rest = rest.replace(own, "")  # the client's own words may be repeated
        assert answer.response.json().get("result", {"isError": True})["isError"] is not False
        assert not names_hidden_things(rest), rest


@pytest.mark.parametrize("name", ["alpha.add", "beta.tool_2", "gamma.add", "beta.private.tool_1"])
def test_what_is_not_granted_cannot_be_described_read_or_called(house: Served, name: str) -> None:
    server, _, tool = name.rpartition(".")
    ident = server.replace(".", "_")
    before = house.usage(server=server)[0]["tool_calls"]
    described = house.call("describe_tools", {"names": [name]}, HELD["some"])
    assert not described.ok and "def " not in described.text
    assert not house.call("describe_tools", {"names": [server]}, HELD["some"]).text.count(f"def {tool}(")
    page = house.call("read_docs", {"topic": name}, HELD["some"])
    assert not page.ok and "def " not in page.text
    direct = house.call(f"{server.replace('.', '_')}__{tool}", {"a": 1, "b": 2, "value": "x"}, HELD["some"])
    assert not direct.ok and direct.error["code"] == "not_allowed" and "not granted" in direct.text
    for code in (
        f"{ident}.{tool}(a=1, b=2)",
        f"await {ident}.{tool}(a=1, b=2)",
        f"{ident}['{tool}'](a=1, b=2)",
        f"getattr({ident}, '{tool}')(a=1, b=2)",
        f"globals()['{ident}'].{tool}(a=1, b=2)",
        f"type(alpha)('{server}').{tool}(a=1, b=2)",
        f"x = alpha\nfor n in list(vars(x)):\n    if vars(x)[n] == 'alpha': object.__setattr__(x, n, '{ident}')\nx.{tool}(a=1, b=2)",
        f"alpha['../{server}/{tool}'](a=1, b=2)",
        f"alpha['{name}'](a=1, b=2)",
        f"import builtins\n[v for k, v in list(builtins.__dict__.items()) if k == '{ident}'][0].{tool}(a=1, b=2)",
    ):
        answer = house.run(code, HELD["some"])
        assert not answer.ok and '"sum"' not in answer.text, (code, answer.text)
    assert house.usage(server=server)[0]["tool_calls"] == before


def test_in_the_sandbox_a_tool_that_is_not_granted_looks_as_if_there_were_none(house: Served) -> None:
    code = "try:\n    alpha['{}'](a=1, b=2)\nexcept AttributeError as e:\n    print(e)"
    hidden, absent = (house.run(code.format(name), HELD["some"]).text for name in ("add", "xyz"))
    assert hidden.replace("add", "xyz") == absent and "it has 2 tools" in absent


def test_a_grant_of_a_server_does_not_cover_another_with_the_same_prefix(house: Served) -> None:
    key = house.new_key(grants={"servers": ["beta"]})
    shown = [tool["name"] for tool in house.tools(key)]
    assert "beta__tool_1" in shown and "beta_private__tool_1" not in shown
    assert house.call("beta_private__tool_1", {"value": "x"}, key).error.get("code") == "not_allowed"


def test_a_key_without_grants_sees_and_does_nothing(house: Served) -> None:
    assert house.tools(HELD["none"]) == []
    for name, arguments in (("list_tools", {}), ("execute_code", {"code": "1"}), ("alpha__echo", {"text": "x"})):
        assert house.call(name, arguments, HELD["none"]).error["code"] == "not_allowed", name
    assert house.admin("GET", "keys", key=HELD["none"]).status_code == 403


def test_meta_tools_are_granted_one_by_one(house: Served) -> None:
    key = house.new_key(grants={"tools": ["alpha.echo"], "meta_tools": ["list_*"]})
    assert [tool["name"] for tool in house.tools(key)] == ["list_tools", "alpha__echo"]
    assert house.call("list_tools", {}, key).ok and house.call("alpha__echo", {"text": "x"}, key).ok
    for name, arguments in (
        ("execute_code", {"code": "1"}),
        ("describe_tools", {"names": ["alpha.echo"]}),
        ("read_docs", {"topic": ""}),
    ):
        refused = house.call(name, arguments, key)
        assert refused.error["code"] == "not_allowed" and name in refused.text


def test_a_grant_is_changed_while_the_gateway_runs_and_holds_from_the_next_request_on(house: Served) -> None:
    key = house.new_key(id="promoted", grants={"tools": ["alpha.echo"]})
    assert house.call("alpha__rows", {"number": 1}, key).error["code"] == "not_allowed"
    assert house.admin("PATCH", "keys/promoted", {"grants": {"tools": ["alpha.rows"]}}).status_code == 200
    assert house.call("alpha__rows", {"number": 1}, key).ok
    assert house.call("alpha__echo", {"text": "x"}, key).error["code"] == "not_allowed"
    assert "echo" not in json.dumps(house.tools(key))
