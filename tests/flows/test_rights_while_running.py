"""Code that runs in one worker loses what is taken from its key through another: see also governance/test_rights_of_now."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2

from tests.conftest import raw
from tests.flows.governed import TRUSTED, Answer, Served, bearer, call_of, serving, write_config

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
