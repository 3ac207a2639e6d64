"""What refusals carry for programs, by the names of the public contract (§5), on the faces where they appear."""

import json
from typing import Any

from tests.flows.governed import HELD, Served, bearer


def test_a_rate_limit_carries_whose_it_is_and_when_to_retry(house: Served) -> None:
    key = house.new_key(id="slow", rate_limits={"requests": 1, "window": "1h"})
    assert house.call("alpha__echo", {"text": "x"}, key).ok
    refused = house.call("alpha__echo", {"text": "x"}, key)
    assert refused.error.items() >= {"code": "rate_limited", "scope": "key slow", "limit": 1, "window": "1h"}.items()
    assert refused.error["retry_after_s"] > 0 and int(refused.headers["retry-after"]) > 0


def test_money_that_is_only_held_is_reported_like_money_that_is_spent(house: Served) -> None:
    key = house.new_key(id="held", budget={"limit_usd": 0.5})
    code = """
import asyncio, json
async def refused():
    try:
        await alpha.echo(text="x")
    except ToolError as error:
        return error.data
answers = await asyncio.gather(*(refused() for _ in range(4)))
print(json.dumps([a for a in answers if a][0]))
"""
    data: dict[str, Any] = json.loads(house.run(code, key).text)
    assert data["code"] in ("budget_exceeded", "rate_limited")
    assert (data["scope"], data["limit"], data["limit_usd"]) == ("key held", 0.5, 0.5)
    assert data["spent"] + data["reserved"] == 0.5


def test_an_unknown_name_carries_the_nearest_ones(house: Served) -> None:
    described = house.call("describe_tools", {"names": ["alpha.ech"]})
    assert described.error == {"code": "unknown_tool", "nearest": ["alpha.echo"]}
    direct = house.call("alpha__ech", {})
    assert direct.error["code"] == "unknown_tool" and "alpha__echo" in direct.error["nearest"]
    caught = house.run("try:\n    alpha.ech()\nexcept Exception as error:\n    print(error)")
    assert "alpha.echo" in caught.text
    answer = house.admin("GET", "budgets/project")
    assert answer.status_code == 404
    assert answer.json()["error"].items() >= {"code": "not_found", "nearest": ["projects"]}.items()


def test_a_refused_right_names_what_was_not_granted(house: Served) -> None:
    refused = house.call("list_tools", {}, HELD["none"])
    assert refused.error == {"code": "not_allowed", "key": "none", "tool": "list_tools"}


def test_a_body_over_the_limit_carries_the_limit(house: Served) -> None:
    answer = house.http().post("/mcp", content=b" " * (17 * 1024 * 1024), headers=bearer(HELD["all"]))
    assert answer.status_code == 413
    assert answer.json()["error"]["data"].items() >= {"code": "too_large", "limit": 16 * 1024 * 1024}.items()


def test_a_failed_upstream_carries_every_attempt_with_its_reason(house: Served) -> None:
    failed = house.call("gamma__die", {})
    assert failed.error["code"] == "upstream_error"
    (attempt,) = failed.error["attempts"]
    assert attempt["upstream"] == "gamma" and attempt["reason"] in failed.text
