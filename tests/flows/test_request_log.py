"""The request log, through the API and the command line: what was asked on both faces, by whom, and how it went."""

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import raw
from tests.flows.governed import (
    ADMIN,
    TRUSTED,
    Served,
    bearer,
    mcpgate,
    serving,
    wait_until,
    write_config,
)
from tests.model_provider import ModelProvider

ADA, BOB, EVE = "mg-the-key-of-ada", "mg-the-key-of-bob", "mg-the-key-of-eve"
CODE = "a = raw.add(a=1, b=2)\nb = raw.add(a=3, b=4)\nreturn [a, b]"
ASK = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 100}


def sections(provider: ModelProvider, **more: Any) -> dict[str, Any]:
    grants = {"tools": ["*"], "models": ["*"]}
    keys = {
        **TRUSTED,
        "ada": {"name": "Ada's laptop", "secret": ADA, "user": "ada", "grants": grants},
        "bob": {"secret": BOB, "team": "search", "grants": grants},
        "eve": {
            "secret": EVE,
            "grants": {"tools": ["raw.add"], "models": ["safe"], "meta_tools": ["list_tools", "execute_code"]},
        },
    }
    pace = {"id": "eves-pace", "when": {"key": "eve", "tool": "add"}, "requests": 0, "window": "1h"}
    price = {"input_usd_per_mtok": 2, "output_usd_per_mtok": 10}
    targets = [{"target": "open/status-503"}, {"target": "open/good"}]
    return {
        "governance": {"require_key": True, "keys": keys, "users": {"ada": {}}, "teams": {"search": {}}}
        | {"rate_limits": [pace]},
        "llm": {
            "providers": {"open": {"type": "openai", "base_url": f"{provider.address}", "api_key": "x"}},
            "models": {"safe": {"targets": targets}},
            "prices": {"open/good": price},
        },
        "sandbox": {"warm": 0},
        **more,
    }


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, provider: ModelProvider) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("log")
    servers = {"raw": raw(expose="both", prices={"add": 0.01})}
    with serving(folder, write_config(folder, servers, **sections(provider))) as running:
        yield running


def listed(served: Served, key: str = ADMIN, **query: str) -> list[dict[str, Any]]:
    answer = served.clients[0].get("/api/requests", params=query, headers=bearer(key))
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["requests"]
    return found


def got(served: Served, id: str, key: str = ADMIN) -> dict[str, Any]:
    answer = served.clients[0].get(f"/api/requests/{id}", headers=bearer(key))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_an_execution_is_shown_with_its_tool_calls_below_it(served: Served) -> None:
    answer = served.run(CODE, key=ADA, **{"x-mcpgate-metadata": '{"env": "dev"}', "user-agent": "agent/1.0"})
    assert answer.ok, answer.text
    one = got(served, answer.headers["x-request-id"])
    assert (one["kind"], one["tool"], one["face"], one["outcome"], one["status"]) == (
        *("execution", "execute_code", "mcp", "ok", 200),
    )
    assert (one["key"], one["key_name"], one["user"]) == ("ada", "Ada's laptop", "ada")
    assert (one["metadata"], one["client"], one["cost_usd"]) == ({"env": "dev"}, "agent/1.0", "0.02")
    assert [(child["server"], child["tool"], child["cost_usd"]) for child in one["children"]] == [
        ("raw", "add", "0.01"),
        ("raw", "add", "0.01"),
    ]
    latency = one["latency_ms"]
    assert latency["sandbox"] > 0 and latency["tools"] > 0
    assert latency["total"] == pytest.approx(latency["own"] + latency["sandbox"] + latency["tools"], abs=1)
    assert got(served, one["id"])["children"] == one["children"]


def test_a_model_request_is_shown_with_each_attempt_and_what_it_cost_in_all(served: Served) -> None:
    answer = served.clients[0].post("/v1/chat/completions", json={"model": "safe", **ASK}, headers=bearer(BOB))
    assert answer.status_code == 200, answer.text
    one = got(served, answer.headers["x-request-id"])
    assert (one["face"], one["alias"], one["provider"], one["model"]) == ("llm", "safe", "open", "good")
    assert (one["attempts"], one["child_count"], one["team"], one["cache"]) == (2, 2, "search", "off")
    assert [(child["model"], child["outcome"]) for child in one["children"]] == [
        ("status-503", "upstream_error"),
        ("good", "ok"),
    ]
    usage = answer.json()["usage"]
    assert (one["tokens"]["input"], one["tokens"]["output"]) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert one["cost_usd"] == answer.headers["x-mcpgate-cost-usd"]
    assert 0 < one["latency_ms"]["upstream"] <= one["latency_ms"]["total"]


def test_requests_are_found_by_what_they_say_and_by_how_they_went(served: Served) -> None:
    tag = {"x-mcpgate-meta-run": "found"}
    served.call("raw__add", {"a": 1, "b": 2}, ADA, tag)
    served.call("raw__fail", {"message": "no"}, BOB, tag)
    served.run("1/0", key=BOB, **tag)
    everything = listed(served, where="metadata.run=found")
    assert [one["kind"] for one in everything] == ["execution", "tool", "tool"]
    for where, kinds in {
        "key=ada": ["tool"],
        "key=bob": ["execution", "tool"],
        "failed=true": ["execution", "tool"],
        "failed=false": ["tool"],
        "outcome=code_failed": ["execution"],
        "server=raw,tool=add": ["tool"],
        "team=search,kind=tool": ["tool"],
        "user=ada": ["tool"],
        f"request={everything[0]['request_id']}": ["execution"],
        "key=nobody": [],
    }.items():
        assert [one["kind"] for one in listed(served, where=f"metadata.run=found,{where}")] == kinds, where
    assert listed(served, where="metadata.run=found", min_latency_ms="1000000") == []
    assert listed(served, where="metadata.run=found", until="2020-01-01") == []
    assert len(listed(served, where="metadata.run=found", since="1h")) == 3


def test_the_calls_of_code_are_listed_only_when_asked_for(served: Served) -> None:
    served.run(CODE, key=ADA, **{"x-mcpgate-meta-run": "nested"})
    (one,) = listed(served, where="metadata.run=nested")
    assert [each["tool"] for each in listed(served, where="metadata.run=nested", nested="1")] == [
        *("execute_code", "add", "add")
    ]
    assert len(listed(served, where=f"parent={one['id']}")) == 2


def test_requests_that_were_refused_are_in_the_log_and_in_no_report(served: Served) -> None:
    ask = served.clients[0].post
    chat, tag = "/v1/chat/completions", bearer(EVE) | {"x-mcpgate-meta-run": "refused"}
    before = served.usage(key="eve")
    answers = [
        served.call("raw__add", {"a": 1, "b": 2}, EVE, tag),
        served.call("raw__fail", {"message": "no"}, EVE, tag),
        served.call("raw__nothing", {}, EVE, tag),
        served.call("read_docs", {"topic": "guide"}, EVE, tag),
        served.call("execute_code", {"programme": "1"}, EVE, tag),
        ask(chat, json={"model": "open/good", **ASK}, headers=tag),
        ask(chat, json={"model": "unheard-of", **ASK}, headers=tag),
    ]
    found = {one["request_id"]: one for one in wait_until(lambda: _all_of(served, len(answers)))}
    told = [found[answer.headers["x-request-id"]] for answer in answers]
    assert [(one["kind"], one["tool"] or one["alias"], one["outcome"], one["facts"]["refused"]) for one in told] == [
        ("tool", "add", "rate_limited", "eves-pace"),
        ("tool", "fail", "not_allowed", "not_allowed"),
        ("tool", "raw__nothing", "unknown_tool", "unknown_tool"),
        ("meta", "read_docs", "not_allowed", "not_allowed"),
        ("execution", "execute_code", "invalid_request", "invalid_request"),
        ("chat", "open/good", "not_allowed", "not_allowed"),
        ("chat", "unheard-of", "unknown_model", "unknown_model"),
    ]
    assert [one["request_id"] for one in listed(served, where="refused=eves-pace")] == [told[0]["request_id"]]
    assert served.usage(key="eve") == before
    assert served.admin("GET", "entries?where=key=eve").json()["entries"] == []


def _all_of(served: Served, count: int) -> list[dict[str, Any]]:
    found = listed(served, where="metadata.run=refused")
    return found if len(found) == count else []


def test_calls_of_code_that_were_refused_are_below_it(served: Served) -> None:
    answer = served.run("try:\n    raw.add(a=1, b=2)\nexcept Exception as e:\n    return type(e).__name__", key=EVE)
    assert answer.ok, answer.text
    id = answer.headers["x-request-id"]
    one = wait_until(lambda: (found := got(served, id)).get("children") and found)
    assert [(child["tool"], child["outcome"]) for child in one["children"]] == [("add", "rate_limited")]
    assert one["child_count"] == 0


def test_who_goes_on_although_refused_does_not_fill_the_log(served: Served) -> None:
    for _ in range(200):
        served.call("raw__add", {"a": 1, "b": 2}, EVE, {"x-mcpgate-meta-run": "storm"})
    served.call("raw__add", {"a": 1, "b": 2}, ADA, {"x-mcpgate-meta-run": "storm"})
    found = listed(served, where="metadata.run=storm", limit="1000")
    seconds = {one["at"][:19] for one in found if one["outcome"] == "rate_limited"}
    assert 1 < len(found) <= 20 * len(seconds) + 1


def test_pages_stay_where_they_are_while_new_requests_come(served: Served) -> None:
    tag = {"x-mcpgate-meta-run": "paged"}
    for number in range(5):
        served.call("raw__add", {"a": number, "b": 0}, ADA, tag)
    query = {"where": "metadata.run=paged", "limit": "2"}
    seen: list[str] = []
    answer = served.admin("GET", "requests?where=metadata.run=paged&limit=2").json()
    while True:
        seen += [one["id"] for one in answer["requests"]]
        if answer["next"] is None:
            break
        served.call("raw__add", {"a": 100, "b": 0}, ADA, tag)
        answer = (
            served.clients[0]
            .get("/api/requests", params={**query, "cursor": answer["next"]}, headers=bearer(ADMIN))
            .json()
        )
    assert len(seen) == len(set(seen)) == 5


def test_a_key_without_the_admin_grant_sees_its_own_requests_and_no_others(served: Served) -> None:
    tag = {"x-mcpgate-meta-run": "own"}
    hers = served.call("raw__add", {"a": 1, "b": 2}, ADA, tag).headers["x-request-id"]
    his = served.call("raw__add", {"a": 1, "b": 2}, BOB, tag).headers["x-request-id"]
    assert [one["request_id"] for one in listed(served, ADA, where="metadata.run=own")] == [hers]
    assert listed(served, ADA, where="metadata.run=own,key=bob") == []
    assert got(served, hers, ADA)["request_id"] == hers
    for id in (his, got(served, his)["id"], "rq_none"):
        assert served.clients[0].get(f"/api/requests/{id}", headers=bearer(ADA)).status_code == 404
    assert served.admin("GET", "entries", key=ADA).status_code == 403
    assert served.admin("GET", "requests", key=None).status_code == 401
    assert served.admin("GET", "requests/x/y", key=ADA).status_code == 403


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"where": "colour=red"}, "cannot filter by 'colour'"),
        ({"cursor": "nonsense!"}, "is not a cursor"),
        ({"since": "soon"}, "'soon' is not a valid time"),
        ({"min_cost_usd": "much"}, "min_cost_usd must be a number"),
        ({"follow": "perhaps"}, "follow must be 1 or 0"),
        ({"limit": "0"}, "limit must be a whole number"),
    ],
)
def test_a_question_that_cannot_be_answered_says_why(served: Served, query: dict[str, str], said: str) -> None:
    answer = served.clients[0].get("/api/requests", params=query, headers=bearer(ADMIN))
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_new_requests_of_every_worker_are_told_at_once(
    tmp_path: Path, provider: ModelProvider, storage: dict[str, str]
) -> None:
    config = write_config(tmp_path, {"raw": raw(expose="both")}, **sections(provider, storage=storage))
    told: list[dict[str, Any]] = []
    with serving(tmp_path, config, workers=3) as served:

        def listen() -> None:
            query = {"follow": "1", "where": "metadata.run=live"}
            with httpx2.stream("GET", f"{served.address}/api/requests", params=query, headers=bearer(ADMIN)) as answer:
                opened.set()
                for line in answer.iter_lines():
                    if line.startswith("data: "):
                        told.append(json.loads(line.removeprefix("data: ")))
                    if len(told) == 30:
                        return

        opened = threading.Event()
        listener = threading.Thread(target=listen)
        listener.start()
        assert opened.wait(10)
        for number in range(30):
            with httpx2.Client(base_url=served.address) as fresh:  # a connection reaches one of the workers
                body = {
                    **{"jsonrpc": "2.0", "id": 1, "method": "tools/call"},
                    "params": {"name": "raw__add", "arguments": {"a": number, "b": 0}},
                }
                headers = {**bearer(ADA), "x-mcpgate-meta-run": "live", "x-mcpgate-meta-number": str(number)}
                assert fresh.post("/mcp", json=body, headers=headers).status_code == 200
        listener.join(10)
        assert sorted(int(one["metadata"]["number"]) for one in told) == list(range(30))
        page = listed(served, where="metadata.run=live")
        assert len(page) == 30


def test_the_command_follows_the_log_of_a_gateway_that_runs_elsewhere(served: Served) -> None:
    command = [sys.executable, "-m", "mcpgate", "log", "--follow", "--limit", "1", "--where", "metadata.run=followed"]
    options = ("-c", str(served.config))
    with subprocess.Popen([*command, *options], env=served.environment, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        try:
            tag = {"x-mcpgate-meta-run": "followed"}
            first = served.call("raw__add", {"a": 1, "b": 2}, ADA, tag).headers["x-request-id"]
            assert first in following.stdout.readline()  # whether it was there before, or came since
            second = served.call("raw__fail", {"message": "no"}, ADA, tag).headers["x-request-id"]
            line = following.stdout.readline()
            assert second in line and "tool_error" in line and len(line) <= 81
            following.send_signal(signal.SIGINT)
            assert following.wait(20) == 0
        finally:
            following.kill()


def test_the_command_shows_the_log_in_80_columns(served: Served) -> None:
    answer = served.run(CODE, key=ADA, **{"x-mcpgate-meta-run": "shown"})
    id = answer.headers["x-request-id"]
    options = ("-c", str(served.config))
    wait_until(lambda: id in mcpgate("log", *options, env=served.environment).stdout)
    table = mcpgate("log", "--where", "key=ada", "--limit", "5", *options, env=served.environment).stdout
    assert max(map(len, table.splitlines())) <= 80
    assert re.search(rf"{id} +ada +execute_code +\d+ ms +\$0\.02", table), table
    one = mcpgate("log", id, *options, env=served.environment).stdout
    assert one.count("raw.add") == 2 and "Ada's laptop (ada)" in one and "running code" in one
    found = json.loads(mcpgate("log", id, "--format", "json", *options, env=served.environment).stdout)
    assert found["request_id"] == id and len(found["children"]) == 2
    wrong = mcpgate("log", "--where", "colour=red", *options, env=served.environment)
    assert (wrong.returncode, "cannot filter by" in wrong.stderr) == (1, True)
