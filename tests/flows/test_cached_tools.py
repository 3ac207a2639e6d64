"""Results of tools and resources from the cache, through /mcp and from code, in front of a real server that counts."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.governed import ADMIN, MODERN, TRUSTED, Served, bearer, serving, write_config

SERVER = str(Path(__file__).parents[1] / "counting_server.py")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("cached-tools")

    def server(name: str, **more: Any) -> dict[str, Any]:
        (folder / f"{name}.log").touch()
        return {
            "command": sys.executable, "args": [SERVER, str(folder / f"{name}.log")], "expose": "both", **more,
        }  # fmt: skip

    servers = {
        "kept": server("kept", cache={}, prices={"*": 0.25}),
        "named": server("named", cache={"tools": ["roll"], "ttl_s": 60, "scope": "shared"}),
        "plain": server("plain"),
        "brief": server("brief", cache={"ttl_s": 0.001}),
    }
    keys = {**TRUSTED, "admin": {**TRUSTED["admin"], "grants": {"admin": True, "tools": ["*"]}}}
    governance = {"keys": keys, "teams": {"red": {}, "blue": {}}}
    with serving(folder, write_config(folder, servers, governance=governance)) as served:
        yield served


@pytest.fixture(autouse=True)
def fresh(served: Served) -> None:
    for log in served.folder.glob("*.log"):
        log.write_text("")
    served.admin("DELETE", "cache?all=true")


def calls(served: Served, server: str, what: str) -> int:
    return (served.folder / f"{server}.log").read_text().splitlines().count(what)


def test_an_equal_call_is_answered_without_the_server_byte_for_byte(served: Served) -> None:
    first, second, other = (served.call("kept__look", {"name": name}) for name in ("a", "a", "b"))
    assert first.result == second.result and first.text == "a 1" and other.text == "b 2"
    assert calls(served, "kept", "look") == 2


def test_code_and_direct_tools_share_one_cache(served: Served) -> None:
    assert served.call("kept__look", {"name": "a"}).text == "a 1"
    assert served.run("kept.look(name='a')").text == "a 1"
    assert served.run("[kept.look(name='a'), kept.look('a')]").text.count("a 1") == 2
    assert calls(served, "kept", "look") == 1


def test_only_what_is_switched_on_is_kept(served: Served) -> None:
    assert [served.call("plain__look").text for _ in range(2)] == [" 1", " 2"]
    assert [served.call("kept__roll").text for _ in range(2)] == ["1", "2"]
    assert [served.call("named__roll").text for _ in range(2)] == ["1", "1"]
    assert [served.call("named__look").text for _ in range(2)] == [" 1", " 2"]
    assert [served.call("brief__look").text for _ in range(2)] == [" 1", " 2"]


def test_a_request_says_how_its_calls_use_the_cache(served: Served) -> None:
    def look(mode: str) -> str:
        return served.call("kept__look", headers={"x-mcpgate-cache": mode}).text

    assert [look(mode) for mode in ("no-store", "use", "off", "use", "refresh", "use")] == [
        " 1", " 2", " 3", " 2", " 4", " 4",
    ]  # fmt: skip
    assert served.run("kept.look()", **{"x-mcpgate-cache": "off"}).text == " 5"
    assert served.call("kept__look", headers={"x-mcpgate-cache": "maybe"}).response.status_code == 400


def test_errors_are_not_kept(served: Served) -> None:
    assert [served.call("kept__fail").ok for _ in range(2)] == [False, False]
    assert calls(served, "kept", "fail") == 2


def test_a_call_that_may_write_drops_what_is_kept_of_its_server_and_of_no_other(served: Served) -> None:
    assert served.call("kept__look").text == " 1" and served.call("named__roll").text == "1"
    served.call("kept__write", {"name": "a"})
    assert served.call("kept__look").text == " 2" and served.call("named__roll").text == "1"
    served.run("kept.write(name='a')")
    assert served.call("kept__look").text == " 3"
    served.call("kept__roll")  # reads only
    assert served.call("kept__look").text == " 3"
    served.call("named__write", {"name": "a"})
    assert served.call("named__roll").text == "2"


def test_tenants_do_not_see_each_others_results(served: Served) -> None:
    red, red_too, blue = (served.new_key(team=team) for team in ("red", "red", "blue"))
    assert [served.call("kept__look", key=key).text for key in (red, red_too, blue, ADMIN)] == [" 1", " 1", " 2", " 3"]
    assert [served.call("named__roll", key=key).text for key in (red, blue, ADMIN)] == ["1", "1", "1"]  # scope: shared


def test_what_a_caller_may_not_call_is_not_served_to_it(served: Served) -> None:
    team = {"team": "red"}
    assert served.call("kept__look", key=served.new_key(**team)).ok
    refused = served.call("kept__look", key=served.new_key(grants={"tools": ["kept.write"]}, **team))
    assert not refused.ok if "result" in refused.response.json() else refused.error["code"] == "not_allowed"


def test_a_hit_costs_nothing_and_budgets_are_not_asked(served: Served) -> None:
    spec = {"grants": {"tools": ["*"]}, "budget": {"limit_usd": 0.25}}
    made = served.admin("POST", "keys", spec).json()
    key, id = made["secret"], made["key"]["id"]
    assert [served.call("kept__look", key=key).text for _ in range(3)] == [" 1"] * 3
    assert served.call("kept__look", {"name": "new"}, key=key).error["code"] == "budget_exceeded"
    rows = {row["cache"]: row for row in served.usage("cache", key=id)}
    assert rows["exact"]["cost_usd"] == "0" and rows["exact"]["cost_saved_usd"] == "0.5"
    assert rows["miss"]["cost_usd"] == "0.25"


def test_hits_need_not_count_in_rate_limits(served: Served) -> None:
    limits = {"rate_limits": [{"requests": 3, "window": "1h"}]}
    served.edit(cache={"count_hits": False})
    try:
        key = served.new_key(**limits)
        assert [served.call("kept__look", {"name": "r"}, key=key).ok for _ in range(6)] == [True] * 6
    finally:
        served.edit(cache={})
    key = served.new_key(**limits)
    assert [served.call("kept__look", {"name": "r"}, key=key).ok for _ in range(4)] == [True] * 3 + [False]


def test_resources_are_kept_as_long_and_for_whom_their_server_says(served: Served) -> None:
    red, red_too = served.new_key(team="red"), served.new_key(team="red")

    def read(place: str, key: str = ADMIN, server: str = "kept") -> str:
        uri = f"note://{place}#server={server}"
        params = {"uri": uri, "_meta": MODERN}
        message = {"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": params}
        era = {"mcp-protocol-version": "2026-07-28", "mcp-method": "resources/read", "mcp-name": uri}
        result = served.http().post("/mcp", json=message, headers={**bearer(key), **era}).json()["result"]
        assert result["ttlMs"] <= int(place.partition("/")[2]) and result["cacheScope"] == place.partition("/")[0]
        return str(result["contents"][0]["text"])

    assert [read("public/60000", key) for key in (red, red, red_too, ADMIN)] == ["read 1", "read 1", "read 1", "read 2"]
    assert [read("private/60000", key) for key in (red, red, red_too)] == ["read 3", "read 3", "read 4"]
    assert [read("public/0", red), read("public/0", red)] == ["read 5", "read 6"]
    assert [read("public/60000", server="plain") for _ in range(2)] == ["read 1", "read 2"]
    served.call("kept__write", {"name": "a"})
    assert read("public/60000", red) == "read 7"
