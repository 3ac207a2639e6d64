"""Many concurrent callers, in several processes: exactly as many calls pass as the budget covers."""

import asyncio
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import raw
from tests.flows.governed import (
    PRICES,
    TRUSTED,
    Answer,
    Served,
    bearer,
    call_of,
    mcpgate,
    own_database,
    serving,
    wait_until,
    write_config,
)
from tests.stores.conftest import REDIS, needs_server


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Four workers on one port, sharing a file."""
    folder = tmp_path_factory.mktemp("crowd")
    governance = {"require_key": True, "keys": TRUSTED, "hold_wait_s": 5}
    config = write_config(
        folder, {"raw": raw(expose="both", prices=PRICES)}, governance=governance, sandbox={"warm": 0}
    )
    with serving(folder, config, workers=4) as served:
        yield served


def released_at_once(served: Served, key: str, messages: list[Any]) -> list[Answer]:
    """Sends every message on its own connection, all at once after all are connected."""

    async def main() -> list[Answer]:
        ready, go = 0, asyncio.Event()

        async def one(message: Any) -> Answer:
            nonlocal ready
            async with httpx2.AsyncClient(
                base_url=served.address, headers=bearer(key), timeout=60, verify=False
            ) as http:
                await http.get("/healthz")
                ready += 1
                if ready == len(messages):
                    go.set()
                await go.wait()
                return Answer(await http.post("/mcp", json=message))

        return await asyncio.gather(*map(one, messages))

    return asyncio.run(main())


def test_of_200_concurrent_direct_calls_with_budget_for_60_exactly_60_pass(crowd: Served) -> None:
    key = crowd.new_key(id="d60", budget={"limit_usd": 0.60})
    answers = released_at_once(crowd, key, [call_of("raw__add", {"a": i, "b": 1}) for i in range(200)])
    passed = [answer for answer in answers if answer.ok]
    assert len(passed) == 60
    assert {answer.error["code"] for answer in answers if not answer.ok} == {"budget_exceeded"}
    (row,) = crowd.usage(key="d60")
    assert (row["tool_calls"], row["cost_usd"], row["failed"]) == (60, "0.6", 0)
    standing = crowd.standing("keys/d60")
    assert (standing["spent"], standing["reserved"], standing["left"]) == ("0.6", "0", "0")


def test_of_200_calls_from_inside_executions_with_budget_for_60_exactly_60_pass(crowd: Served) -> None:
    key = crowd.new_key(id="e60", budget={"limit_usd": 0.60})
    code = """
results = await asyncio.gather(*[raw.add(a=i, b=1) for i in range(10)], return_exceptions=True)
[sum(isinstance(r, dict) for r in results), sum(getattr(r, "data", None) is not None for r in results)]
"""
    answers = released_at_once(crowd, key, [call_of("execute_code", {"code": code})] * 20)
    counts = [json.loads(answer.text) for answer in answers]
    assert sum(passed for passed, _ in counts) == 60 and sum(refused for _, refused in counts) == 140
    rows = {row["kind"]: (row["entries"], row["cost_usd"]) for row in crowd.usage("kind", key="e60")}
    assert rows == {"tool": (60, "0.6"), "execution": (20, "0")}
    assert sum(float(answer.headers["x-mcpgate-cost-usd"]) for answer in answers) == pytest.approx(0.6)


def test_on_postgres_with_redis_too_exactly_as_many_pass_as_the_budget_covers(tmp_path: Path) -> None:
    needs_server("redis+postgres")
    with own_database() as url:
        governance = {"require_key": True, "keys": TRUSTED, "hold_wait_s": 5}
        config = write_config(
            tmp_path, {"raw": raw(expose="both", prices=PRICES)}, governance=governance, sandbox={"warm": 0},
            storage={"url": url, "counters": REDIS},
        )  # fmt: skip
        with serving(tmp_path, config, workers=2) as served:
            id = f"k{time.time_ns()}"  # Redis keeps its counts for an hour
            key = served.new_key(id=id, budget={"limit_usd": 0.30, "period": "1h"})
            answers = released_at_once(served, key, [call_of("raw__add", {"a": i, "b": 1}) for i in range(100)])
            assert sum(answer.ok for answer in answers) == 30
            assert {answer.error["code"] for answer in answers if not answer.ok} == {"budget_exceeded"}
            (row,) = served.usage(key=id)
            assert (row["tool_calls"], row["cost_usd"]) == (30, "0.3")
            standing = served.standing(f"keys/{id}")
            assert (standing["spent"], standing["reserved"]) == ("0.3", "0")


def test_of_200_concurrent_requests_with_a_limit_of_60_exactly_60_pass(crowd: Served) -> None:
    key = crowd.new_key(id="r60", rate_limits=[{"requests": 60, "window": "1h"}])
    answers = released_at_once(crowd, key, [call_of("list_tools")] * 200)
    assert sum(answer.ok for answer in answers) == 60
    assert {answer.error["code"] for answer in answers if not answer.ok} == {"rate_limited"}
    assert crowd.usage(key="r60")[0]["requests"] == 60


def test_of_40_concurrent_calls_at_most_7_are_in_progress(crowd: Served) -> None:
    """Admitted calls wait in the upstream until it is clear that no more will come."""
    key = crowd.new_key(id="c7", rate_limits=[{"concurrency": 7}])
    with ThreadPoolExecutor(1) as pool:
        messages = [call_of("raw__hang") for _ in range(40)]
        done = pool.submit(lambda: released_until_refused(crowd, key, messages, expected=33))
        codes = done.result(60)
    assert codes == ["rate_limited"] * 33


def released_until_refused(served: Served, key: str, messages: list[Any], expected: int) -> list[str]:
    """Codes of the refusals; admitted calls never answer and are dropped when all expected refusals are in."""

    async def main() -> list[str]:
        codes: list[str] = []
        enough = asyncio.Event()

        async def one(message: Any) -> None:
            async with httpx2.AsyncClient(
                base_url=served.address, headers=bearer(key), timeout=60, verify=False
            ) as http:
                await http.get("/healthz")
                codes.append(Answer(await http.post("/mcp", json=message)).error["code"])
                if len(codes) == expected:
                    enough.set()

        tasks = [asyncio.create_task(one(message)) for message in messages]
        async with asyncio.timeout(30):
            await enough.wait()
        held = await asyncio.to_thread(served.standing, "keys/c7")
        assert held["reserved"] == 7
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return codes

    return asyncio.run(main())


def test_a_key_revoked_through_one_worker_or_the_command_line_is_refused_by_all_at_once(crowd: Served) -> None:
    for revoke in ("api", "cli"):
        id = f"gone-{revoke}"
        key = crowd.new_key(id=id)
        clients = [crowd.http(**bearer(key)) for _ in range(16)]  # very probably, connections to every worker
        assert all(http.post("/mcp", json=call_of("list_tools")).status_code == 200 for http in clients)
        if revoke == "api":
            crowd.admin("DELETE", f"keys/{id}")
        else:
            done = mcpgate("keys", "revoke", id, "-c", str(crowd.config), env=crowd.environment)
            assert done.returncode == 0, done.stderr
        assert [http.post("/mcp", json=call_of("list_tools")).status_code for http in clients] == [401] * 16


def test_a_budget_declared_through_one_worker_soon_holds_in_all(crowd: Served) -> None:
    key = crowd.new_key(id="common", team="new-team")
    assert crowd.admin("PUT", "teams/new-team", {"budget": {"limit_usd": 0}}).status_code == 200
    clients = [crowd.http(**bearer(key)) for _ in range(12)]
    wait_until(
        lambda: all(
            Answer(http.post("/mcp", json=call_of("raw__add", {"a": 1, "b": 1}))).error.get("code") == "budget_exceeded"
            for http in clients
        ),
        10,
    )
