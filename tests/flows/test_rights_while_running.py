"""Running code, and calls that wait for others of their server, lose what is taken from their key meanwhile: see also
governance/test_rights_of_now."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import raw
from tests.flows.governed import (
    TRUSTED,
    Answer,
    Served,
    bearer,
    call_of,
    hanging_call,
    serving,
    wait_until,
    write_config,
)

LOOP = """
import time
began, last, code = time.time(), 0.0, None
while time.time() - began < 12:
    try:
        raw.add(a=1, b=1)
        last = time.time()
    except ToolError as error:
        code = error.data["code"]
        break
    time.sleep(0.1)
[last, code]
"""
PRICED = {"budget": {"limit_usd": 50}}
CHANGES: dict[str, tuple[Callable[[Served, str], Any], str]] = {
    "revoked": (lambda s, id: s.admin("POST", f"keys/{id}/revoke", {}), "not_allowed"),
    "rotated": (lambda s, id: s.admin("POST", f"keys/{id}/rotate", {"overlap": "0"}), "not_allowed"),
    "regranted": (lambda s, id: s.admin("PATCH", f"keys/{id}", {"grants": {"tools": ["other.*"]}}), "not_allowed"),
    "moved": (lambda s, id: s.admin("PATCH", f"keys/{id}", {"allowed_ips": ["10.0.0.1"]}), "not_allowed"),
    "unnamed": (lambda s, id: s.admin("PATCH", f"keys/{id}", {"users": []}), "not_allowed"),
    "poor": (lambda s, id: s.admin("PATCH", f"keys/{id}", {"budget": {"limit_usd": 0.01}}), "budget_exceeded"),
    "reteamed": (lambda s, id: s.admin("PATCH", f"keys/{id}", {"team": "poor"}), "budget_exceeded"),
    "in-team": (lambda s, id: s.admin("PUT", "teams/t", {"budget": {"limit_usd": 0.01}}), "budget_exceeded"),
    "ruled": (
        lambda s, id: s.admin("PUT", "budgets/r", {"when": {"key": "ruled"}, "limit_usd": 0.01}), "budget_exceeded"),
}  # fmt: skip


def test_running_code_loses_within_two_seconds_what_is_taken_from_its_key_in_another_worker(tmp_path: Path) -> None:
    config = write_config(
        tmp_path, {"raw": raw(prices={"add": 0.01})}, governance={"require_key": True, "keys": TRUSTED},
        sandbox={"warm": 0},
    )  # fmt: skip
    with serving(tmp_path, config, workers=2) as served, ThreadPoolExecutor(len(CHANGES)) as pool:
        served.admin("PUT", "teams/poor", {"budget": {"limit_usd": 0.01}})
        served.admin("PUT", "teams/t", {"budget": {"limit_usd": 50}})
        secrets = {id: served.new_key(id=id, users=["ada"], **PRICED) for id in CHANGES}
        served.admin("PATCH", "keys/in-team", {"team": "t"})

        def run(id: str) -> list[Any]:
            headers = {**bearer(secrets[id]), "x-mcpgate-user": "ada"}
            with httpx2.Client(base_url=served.address, headers=headers, timeout=60) as client:
                answer = Answer(client.post("/mcp", json=call_of("execute_code", {"code": LOOP})))
            if "error" in answer.response.json():
                return [0.0, answer.error["code"]]  # the whole request was ended, before the code came to its end
            found: list[Any] = json.loads(answer.text)
            return found

        under_way = {id: pool.submit(run, id) for id in CHANGES}
        wait_for_calls(served, set(CHANGES))
        changed = {}
        for id, (change, _) in CHANGES.items():
            assert change(served, id).status_code < 300, id
            changed[id] = time.time()
        for id, (_, code) in CHANGES.items():
            last, seen = under_way[id].result(40)
            assert seen == code, id
            assert last - changed[id] < 2.0, id


def wait_for_calls(served: Served, ids: set[str]) -> None:
    """Until code of every key has made a call: each has a limit, so that it is in the ledger at once."""
    give_up = time.monotonic() + 60
    while {row["key"] for row in served.usage("key", kind="tool")} < ids:
        assert time.monotonic() < give_up
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("POST", "keys/waits/revoke", {}), "not_allowed"),
        (("PATCH", "keys/waits", {"grants": {"tools": ["raw.hang"]}}), "not_allowed"),
        (("PATCH", "keys/waits", {"budget": {"limit_usd": 0.01}}), "budget_exceeded"),
        (("PATCH", "keys/waits", {"budget": {"limit_usd": 3}}), None),
    ],
    ids=["revoked", "regranted", "lowered", "raised"],
)
def test_a_call_that_waits_for_others_of_its_server_is_sent_with_the_rights_of_then(
    tmp_path: Path, change: tuple[str, str, Any], code: str | None
) -> None:
    # The call that holds the only slot ends after 1.5 s, when the server has not answered it.
    server = raw(prices={"echo": 0.25, "hang": 0.5}, expose="direct", max_concurrency=1, timeout_s=1.5)
    config = write_config(tmp_path, {"raw": server}, governance={"require_key": True, "keys": TRUSTED})
    with serving(tmp_path, config) as served, ThreadPoolExecutor(1) as pool:
        secret, other = (served.new_key(id=id, budget={"limit_usd": 2}) for id in ("waits", "hangs"))
        calls = int(served.call("raw__count").text)
        with hanging_call(served, other, "raw__hang"):
            wait_until(lambda: served.standing("keys/hangs")["reserved"] == "0.5")
            waiting = pool.submit(served.call, "raw__echo", {"text": "hello"}, secret)
            wait_until(lambda: served.standing("keys/waits")["reserved"] == "0.25")
            assert served.admin(*change).status_code == 200
            answer = waiting.result(30)
        assert answer.error.get("code") == code
        assert served.cost(key="waits") == ("0.25" if code is None else "0")
        standing = served.standing("keys/waits")
        assert (standing["reserved"], standing["spent"]) == ("0", "0.25" if code is None else "0")
        sent = int(served.call("raw__count").text) - calls
        assert sent == (3 if code is None else 2), "the hanging call, the last count, and the call if it was sent"
