"""Gateways that are stopped, killed, restarted and reconfigured: no usage is lost or counted twice."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conftest import raw
from tests.flows.governed import (
    PRICES,
    TRUSTED,
    Answer,
    bearer,
    call_of,
    environment,
    mcpgate,
    serving,
    wait_until,
    write_config,
)


def test_a_gateway_that_is_stopped_settles_what_is_under_way_and_one_started_again_remembers(tmp_path: Path) -> None:
    keys = {**TRUSTED, "ci": {"secret": "mg-continuous", "grants": {"tools": "*"}, "budget": {"limit_usd": 0.76}}}
    methods = tmp_path / "methods"
    config = write_config(
        tmp_path, {"raw": raw("--log", str(methods), expose="both", prices=PRICES)}, governance={"keys": keys},
        sandbox={"warm": 0},
    )  # fmt: skip
    with serving(tmp_path, config) as served, ThreadPoolExecutor(1) as pool:
        assert served.call("raw__echo", {"text": "x"}, "mg-continuous").ok
        under_way = pool.submit(served.http(**bearer("mg-continuous")).post, "/mcp", json=call_of("raw__hang"))
        wait_until(lambda: methods.read_text().count("tools/call") == 2)
        served.stop(signal.SIGTERM)
        answer = under_way.result(20)
        assert answer.status_code == 503 and answer.json()["error"]["data"]["code"] == "unavailable"
    with serving(tmp_path, config) as served:
        standing = served.standing("keys/ci")
        assert (standing["spent"], standing["reserved"]) == ("0.75", "0")
        assert served.cost(key="ci") == "0.75"
        assert served.call("raw__echo", {"text": "x"}, "mg-continuous").error["code"] == "budget_exceeded"
        assert served.call("raw__add", {"a": 1, "b": 1}, "mg-continuous").ok


def test_what_a_killed_gateway_held_for_a_call_that_was_sent_is_spent_after_the_lease(tmp_path: Path) -> None:
    keys = {**TRUSTED, "ci": {"secret": "mg-continuous", "grants": {"tools": "*"}, "budget": {"limit_usd": 0.76}}}
    config = write_config(
        tmp_path, {"raw": raw(expose="both", prices=PRICES)}, governance={"keys": keys, "lease_s": 1},
        sandbox={"warm": 0},
    )  # fmt: skip
    with serving(tmp_path, config) as first, ThreadPoolExecutor(1) as pool:
        assert first.call("raw__echo", {"text": "x"}, "mg-continuous").ok
        under_way = pool.submit(first.http(**bearer("mg-continuous")).post, "/mcp", json=call_of("raw__hang"))
        wait_until(lambda: first.standing("keys/ci")["reserved"] == "0.5")
        first.process.kill()
        assert under_way.exception(20) is not None
    with serving(tmp_path, config) as second:
        wait_until(lambda: second.standing("keys/ci")["reserved"] == "0", 5)
        assert second.standing("keys/ci")["spent"] == second.cost(key="ci") == "0.75"
        assert second.call("raw__echo", {"text": "x"}, "mg-continuous").error["code"] == "budget_exceeded"


def test_an_answer_that_was_given_is_in_the_ledger_although_the_gateway_is_killed_right_after(tmp_path: Path) -> None:
    config = write_config(
        tmp_path, {"raw": raw(expose="both", prices=PRICES)}, governance={"keys": TRUSTED}, sandbox={"warm": 0}
    )
    with serving(tmp_path, config) as served:
        for _ in range(3):
            assert served.call("raw__add", {"a": 1, "b": 1}).ok
        served.process.kill()
    done = mcpgate("usage", "--by", "key,tool", "--where", "server=raw", "--format", "json", "-c", str(config),
                   env=environment(tmp_path))  # fmt: skip
    (row,) = json.loads(done.stdout)
    assert (row["key"], row["tool"], row["tool_calls"], row["cost_usd"]) == ("admin", "add", 3, "0.03")


def test_an_edit_of_the_file_changes_limits_and_requirements_without_dropping_a_call(tmp_path: Path) -> None:
    secret = "mg-edited-while-running"
    spec = {"secret": secret, "grants": {"tools": "*"}, "budget": {"limit_usd": 0.02}}
    config = write_config(
        tmp_path, {"raw": raw(expose="both", prices=PRICES)}, governance={"keys": {**TRUSTED, "ci": spec}},
        sandbox={"warm": 0},
    )  # fmt: skip
    with serving(tmp_path, config) as served, ThreadPoolExecutor(2) as pool:

        def add() -> Answer:
            return served.call("raw__add", {"a": 1, "b": 1}, secret)

        meeting = [
            pool.submit(served.http(**bearer(secret)).post, "/mcp", json=call_of("raw__meet", {"number": 2}))
        ]  # 0.01 of it
        wait_until(lambda: served.standing("keys/ci")["reserved"] == "0.01")
        assert add().ok and add().error["code"] in ("budget_exceeded", "rate_limited")
        served.edit(governance={"keys": {**TRUSTED, "ci": {**spec, "budget": {"limit_usd": 0.04}}}})
        meeting.append(
            pool.submit(served.http(**bearer(secret)).post, "/mcp", json=call_of("raw__meet", {"number": 2}))
        )
        assert [Answer(met.result(20)).text for met in meeting] == ["met", "met"]
        assert add().ok and add().error["code"] == "budget_exceeded"
        assert served.standing("keys/ci")["spent"] == served.cost(key="ci") == "0.04"
        served.edit(governance={"keys": {**TRUSTED, "ci": {**spec, "budget": []}}, "required_metadata": ["project_id"]})
        missing = served.call("raw__add", {"a": 1, "b": 1}, secret).response
        assert missing.status_code == 400 and "project_id" in missing.json()["error"]["message"]
        named = served.call("raw__add", {"a": 1, "b": 1}, secret, {"x-mcpgate-meta-project-id": "p1"})
        assert named.ok
        served.edit(governance={"keys": TRUSTED})
        assert served.call("list_tools", key=secret).response.status_code == 401
