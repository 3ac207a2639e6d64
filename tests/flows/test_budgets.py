"""The cost of calls: budgets and rate limits of one gateway, in its answers and in the ledger."""

import asyncio
import datetime
import json

import pytest
from mcp import MCPError

from tests.flows.clients import BOTH_ERAS, client_of
from tests.flows.governed import HELD, Served, bearer, call_of, code_of, hanging_call, wait_until


def test_every_limit_from_the_customer_down_to_the_key_must_pass_and_the_refusal_says_which(house: Served) -> None:
    """0.25 for each echo and 0.01 for each add: key 0.02 < user 0.3 < team 0.4 < customer 0.5."""
    key = house.new_key(id="of-ada", user="ada", budget={"limit_usd": 0.02})
    assert house.call("alpha__add", {"a": 1, "b": 1}, key).ok and house.call("alpha__add", {"a": 1, "b": 1}, key).ok
    second = house.new_key(user="ada")
    assert house.call("alpha__echo", {"text": "x"}, second).ok  # 0.27 of each limit but the first key's
    for refused_key, scope, budget, limit in (
        (key, "key of-ada", "key:of-ada", 0.02),
        (second, "user ada", "user:ada", 0.3),
        (house.new_key(team="search"), "team search", "team:search", 0.4),
        (house.new_key(customer="acme"), "customer acme", "customer:acme", 0.5),
    ):
        refused = house.call("alpha__echo", {"text": "x"}, refused_key)
        assert refused.error["code"] == "budget_exceeded", (scope, refused.text)
        assert (refused.error["scope"], refused.error["budget"]) == (scope, budget)
        assert (refused.error["limit_usd"], refused.error["spent_usd"]) == (limit, 0.02 if "key" in scope else 0.27)
        assert scope in refused.text and f"${limit}" in refused.text
    assert house.standing("customers/acme")["spent"] == house.cost(customer="acme") == "0.27"
    assert house.call("alpha__echo", {"text": "x"}, house.new_key(customer="rich")).ok


def test_a_budget_refusal_gives_all_details_and_asks_not_to_retry(house: Served) -> None:
    key = house.new_key(id="poor", budget={"limit_usd": 0.26, "period": "1d", "calendar": True})
    first = house.call("alpha__echo", {"text": "x"}, key)
    assert first.ok and first.headers["x-mcpgate-cost-usd"] == "0.25"
    refused = house.call("alpha__echo", {"text": "x"}, key)
    assert refused.response.status_code == 200 and not refused.ok
    tomorrow = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=1)
    assert refused.error == {
        "code": "budget_exceeded",
        "scope": "key poor",
        "budget": "key:poor",
        "window": "1d",
        **{"limit": 0.26, "spent": 0.25, "reserved": 0.0},
        **{"limit_usd": 0.26, "spent_usd": 0.25, "reserved_usd": 0.0},
        "resets_at": f"{tomorrow}T00:00:00Z",
    }
    assert refused.headers["x-should-retry"] == "false" and "retry-after" not in refused.headers
    assert "$0.25 is needed and $0.01 is left" in refused.text
    assert house.usage(key="poor")[0]["tool_calls"] == 1  # refused calls are not in the ledger
    standing = house.standing("keys/poor") | {"resets_at": None}
    assert {name: standing[name] for name in standing if name not in ("forecast", "runs_out_at", "soft_limit")} == {
        "id": "key:poor", "measure": "cost", "subject": None, "limit": "0.26", "spent": "0.25", "reserved": "0",
        "left": "0.01", "window": "1d", "resets_at": None,
    }  # fmt: skip


def test_in_the_sandbox_a_refusal_can_be_caught_and_what_went_before_it_is_paid(house: Served) -> None:
    key = house.new_key(id="coder", budget={"limit_usd": 0.05})
    code = """
done = 0
try:
    for _ in range(10):
        alpha.add(a=1, b=2)
        done += 1
except ToolError as e:
    print(done, e.data["code"], e.data["budget"], e.data["spent_usd"])
"""
    answer = house.run(code, key)
    assert answer.text == "5 budget_exceeded key:coder 0.05" and answer.ok
    assert answer.headers["x-mcpgate-cost-usd"] == "0.05"
    uncaught = house.run("alpha.add(a=1, b=2)", key)
    assert not uncaught.ok and "budget 'key:coder'" in uncaught.text and "Traceback" not in uncaught.text
    assert house.cost(key="coder") == "0.05"


def test_budget_that_others_hold_is_waited_for_briefly_and_then_429_says_when_to_retry(house: Served) -> None:
    key = house.new_key(id="holder", budget={"limit_usd": 0.5})
    with hanging_call(house, key, "alpha__hang"):
        wait_until(lambda: house.standing("keys/holder")["reserved"] == "0.5")
        refused = house.call("alpha__echo", {"text": "x"}, key)
        assert refused.error["code"] == "rate_limited" and refused.error["reserved_usd"] == 0.5
        assert int(refused.headers["retry-after"]) >= 1 and int(refused.headers["retry-after-ms"]) > 0
        assert "x-should-retry" not in refused.headers and "reserved by calls in progress" in refused.text


def test_a_client_that_hangs_up_in_the_middle_of_a_call_has_paid_for_it(house: Served) -> None:
    key = house.new_key(id="leaver", budget={"limit_usd": 1})
    with hanging_call(house, key, "alpha__hang"):
        wait_until(lambda: house.standing("keys/leaver")["reserved"] == "0.5")
    standing = wait_until(lambda: (s := house.standing("keys/leaver"))["reserved"] == "0" and s)
    assert (standing["spent"], standing["left"]) == ("0.5", "0.5")
    (row,) = house.usage("outcome", key="leaver")
    assert (row["outcome"], row["cost_usd"]) == ("cancelled", "0.5")


def test_in_the_handshake_era_a_call_goes_on_when_its_client_hangs_up_and_is_paid_at_its_end(house: Served) -> None:
    key = house.new_key(id="quitter", budget={"limit_usd": 1})
    with hanging_call(house, key, "alpha__meet", {"number": 2}, modern=False):
        wait_until(lambda: house.standing("keys/quitter")["reserved"] == "0.01")
    assert house.call("alpha__meet", {"number": 2}).text == "met"
    standing = wait_until(lambda: (s := house.standing("keys/quitter"))["reserved"] == "0" and s)
    assert standing["spent"] == house.cost(key="quitter") == "0.01"
    assert house.usage("outcome", key="quitter")[0]["outcome"] == "ok"


@BOTH_ERAS
@pytest.mark.anyio
async def test_a_call_that_is_cancelled_is_paid_and_holds_nothing_any_more(house: Served, mode: str) -> None:
    id = f"canceller-{mode}"
    key = house.new_key(id=id, budget={"limit_usd": 2})
    async with client_of(house.address, mode, bearer(key)) as client:
        with pytest.raises(MCPError):
            await client.call_tool("alpha__hang", {}, read_timeout_seconds=0.3)
        with pytest.raises(MCPError):
            await client.call_tool("execute_code", {"code": "alpha.hang()"}, read_timeout_seconds=1)
    standing = await asyncio.to_thread(
        wait_until, lambda: (s := house.standing(f"keys/{id}"))["reserved"] == "0" and s["spent"] == "1" and s
    )
    assert standing["left"] == "1"
    rows = {(row["kind"], row["outcome"]): row["cost_usd"] for row in house.usage("kind,outcome", key=id)}
    assert rows == {("tool", "cancelled"): "1", ("execution", "cancelled"): "0"}


def test_a_tool_that_fails_has_been_called_and_is_paid(house: Served) -> None:
    key = house.new_key(id="unlucky", budget={"limit_usd": 1})
    assert not house.call("alpha__fail", {"message": "no"}, key).ok
    assert not house.run("alpha.fail(message='no')", key).ok
    assert house.standing("keys/unlucky")["spent"] == "0.125"
    rows = {(row["kind"], row["outcome"]): row["cost_usd"] for row in house.usage("kind,outcome", key="unlucky")}
    assert rows == {("tool", "tool_error"): "0.125", ("execution", "code_failed"): "0"}


def test_wrong_arguments_are_refused_before_anything_is_spent(house: Served) -> None:
    key = house.new_key(id="careless", budget={"limit_usd": 1})
    assert not house.run("alpha.add(a=1)", key).ok
    assert not house.run("alpha.add(**{'a': 1, 'x': 2})", key).ok
    assert house.standing("keys/careless")["spent"] == "0" and house.usage(key="careless")[0]["tool_calls"] == 0


def test_a_price_that_is_not_known_is_shown_as_unpriced_and_not_as_free(house: Served) -> None:
    key = house.new_key(id="unpriced")
    assert house.call("beta__echo", {"text": "x"}, key).ok and house.call("alpha__echo", {"text": "x"}, key).ok
    (total,) = house.usage(key="unpriced")
    assert (total["tool_calls"], total["unpriced"], total["cost_usd"]) == (2, 1, "0.25")
    entries = house.admin("GET", "entries?where=key=unpriced,server=beta").json()["entries"]
    assert [entry["cost_usd"] for entry in entries] == [None]


@pytest.mark.parametrize("by_header", [False, True])
def test_a_budget_per_project_looks_at_the_metadata_of_each_request(house: Served, by_header: bool) -> None:
    key = house.new_key()
    project = f"p{by_header}"

    def said(**facts: str) -> dict[str, str]:
        if by_header:
            return {f"x-mcpgate-meta-{name.replace('_', '-')}": value for name, value in facts.items()}
        return {"x-mcpgate-metadata": json.dumps(facts)}

    for _ in range(2):
        assert house.call("alpha__add", {"a": 1, "b": 1}, key, said(project_id=project, env="dev")).ok
    refused = house.run("alpha.add(a=1, b=1)", key, **said(project_id=project, env="dev"))
    assert not refused.ok and f"budget 'projects' of project_id {project}" in refused.text
    assert house.call("alpha__add", {"a": 1, "b": 1}, key, said(project_id=f"{project}-other", env="dev")).ok
    assert house.call("alpha__add", {"a": 1, "b": 1}, key, said(project_id=project, env="live")).ok
    rows = house.usage("metadata.env", **{"metadata.project_id": project})
    assert {row["metadata.env"]: row["cost_usd"] for row in rows} == {"dev": "0.02", "live": "0.01"}


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"x-mcpgate-metadata": "env=dev"}, "must be a JSON object"),
        ({"x-mcpgate-metadata": "[1]"}, "must be a JSON object"),
        ({"x-mcpgate-metadata": '{"env": {"a": 1}}'}, "'env' must be text"),
        ({"x-mcpgate-metadata": '{"env": null}'}, "'env' must be text"),
        ({"x-mcpgate-metadata": '{"a b": "x"}'}, "'a b'"),
        ({"x-mcpgate-metadata": json.dumps({"env": "x" * 513})}, "longer than 512"),
        ({"x-mcpgate-metadata": json.dumps({f"n{i}": "x" for i in range(33)})}, "at most 32"),
        ({"x-mcpgate-meta-": "x"}, "metadata name ''"),
        ({"x-mcpgate-metadata": '{"env": "a\\u0000b"}'}, "control characters"),
        ({"x-mcpgate-metadata": '{"env": "\\ud800"}'}, "control characters"),
    ],
)
def test_metadata_that_cannot_be_read_is_400_and_says_what_is_wrong(
    house: Served, headers: dict[str, str], said: str
) -> None:
    answer = house.http().post("/mcp", json=call_of("list_tools"), headers={**bearer(HELD["all"]), **headers})
    assert answer.status_code == 400 and code_of(answer) == "invalid_request"
    assert said in answer.json()["error"]["message"]


def test_a_soft_limit_warns_in_the_answer_and_in_the_log_and_refuses_nothing(house: Served) -> None:
    key = house.new_key()
    kind = {"x-mcpgate-meta-kind": "soft"}
    assert "mcpgate/warnings" not in house.run("alpha.add(a=1, b=1)", key, **kind).meta
    warned = house.run("alpha.add(a=1, b=1)", key, **kind)
    (warning,) = warned.meta["mcpgate/warnings"]
    assert warned.ok and "$0.02 of its budget 'soft'" in warning and "soft limit of $0.015" in warning
    assert house.said("soft limit of $0.015")
    direct = house.call("alpha__add", {"a": 1, "b": 1}, key, kind)
    assert direct.ok and direct.meta.get("mcpgate/warnings"), "a direct call warns too"


def test_a_request_limit_is_shown_in_headers_and_429_says_when_to_retry(house: Served) -> None:
    key = house.new_key(id="hasty", rate_limits=[{"requests": 2, "window": "1h"}, {"concurrency": 5}])
    first = house.run("[alpha.add(a=1, b=1) for _ in range(5)] and 'one request'", key)
    assert first.text == "one request"  # calls from code are not further requests
    assert first.headers["x-ratelimit-limit-requests"] == "2" and first.headers["x-ratelimit-remaining-requests"] == "1"
    assert first.headers["x-ratelimit-limit-concurrency"] == "5"
    assert first.headers["x-ratelimit-remaining-concurrency"] == "4"
    assert 3000 < float(first.headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 3661
    assert house.call("list_tools", key=key).headers["x-ratelimit-remaining-requests"] == "0"
    refused = house.call("alpha__add", {"a": 1, "b": 1}, key)
    error = refused.error
    assert (error["code"], error["scope"]) == ("rate_limited", "key hasty")
    assert error["rate_limit"].startswith("key:hasty")
    assert (error["measure"], error["limit"], error["window"]) == ("requests", 2, "1h")
    assert 3000 < int(refused.headers["retry-after"]) <= 3661
    assert 3_000_000 < int(refused.headers["retry-after-ms"]) <= 3_661_000
    assert house.cost(key="hasty") == "0.05"


def test_an_answer_that_is_streamed_tells_its_cost_in_its_last_event(house: Served) -> None:
    message = call_of("alpha__steps", {"number": 2}, _meta={"progressToken": "t"})
    accept = {**bearer(HELD["all"]), "accept": "application/json, text/event-stream"}
    answer = house.http().post("/mcp", json=message, headers=accept)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[5:]) for line in answer.text.splitlines() if line.startswith("data:")]
    assert "2 steps" in json.dumps(events[-1]) and "0.125" in json.dumps(events[-1])


def test_what_was_spent_is_not_forgotten_when_a_second_budget_is_added(house: Served) -> None:
    key = house.new_key(id="growing", budget={"limit_usd": 0.02})
    assert house.call("alpha__add", {"a": 1, "b": 1}, key).ok and house.call("alpha__add", {"a": 1, "b": 1}, key).ok
    assert house.call("alpha__add", {"a": 1, "b": 1}, key).error["code"] == "budget_exceeded"
    budgets = [{"limit_usd": 0.02}, {"limit_usd": 10, "period": "1d"}]
    assert house.admin("PATCH", "keys/growing", {"budget": budgets}).status_code == 200
    assert house.call("alpha__add", {"a": 1, "b": 1}, key).error.get("code") == "budget_exceeded"


def test_two_keys_never_share_a_budget_whatever_they_are_called(house: Served) -> None:
    two = [{"limit_usd": 0.01}, {"limit_usd": 1, "period": "1d"}]
    one, other = house.new_key(id="twin", budget=two), house.new_key(id="twin#1", budget={"limit_usd": 0.01})
    assert house.call("alpha__add", {"a": 1, "b": 1}, one).ok
    assert house.call("alpha__add", {"a": 1, "b": 1}, other).ok


def test_a_limit_that_is_changed_through_the_admin_api_holds_from_the_next_call_on(house: Served) -> None:
    key = house.new_key(id="raised", budget={"limit_usd": 0.01})
    assert house.call("alpha__add", {"a": 1, "b": 1}, key).ok
    assert house.call("alpha__add", {"a": 1, "b": 1}, key).error["code"] == "budget_exceeded"
    assert house.admin("PATCH", "keys/raised", {"budget": {"limit_usd": 0.02}}).status_code == 200
    assert house.call("alpha__add", {"a": 1, "b": 1}, key).ok
    assert house.call("alpha__add", {"a": 1, "b": 1}, key).error["code"] == "budget_exceeded"
    house.admin("POST", "keys/raised/reset", {})
    assert house.call("alpha__add", {"a": 1, "b": 1}, key).ok
