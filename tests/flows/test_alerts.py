"""Alerts of real gateways, several workers each, told to a real receiver: once for each state, and once when it ends."""

import asyncio
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mcpgate.governance.records import Entry
from tests.alert_receiver import SECRET, Receiver, receiving
from tests.conftest import raw
from tests.flows.governed import (
    ADMIN,
    TRUSTED,
    Served,
    bearer,
    call_of,
    mcpgate,
    own_database,
    serving,
    wait_until,
    write_config,
    write_entries,
)
from tests.model_provider import ModelProvider
from tests.stores.conftest import entry
from tests.upstream.sign_in_server import sign_in_server

PAYS, LAB = "mg-the-key-that-pays", "mg-the-key-of-the-lab"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


def settings(receiver: Receiver, storage: dict[str, str], *alerts: dict[str, Any]) -> dict[str, Any]:
    keys = {**TRUSTED, "pays": {"secret": PAYS, "grants": {"tools": ["*"]}, "budget": {"limit_usd": 1}}}
    told = [{"for_s": 0, "channels": ["hook", "log"], **alert} for alert in alerts]
    hook = {"type": "webhook", "url": receiver.address, "secret": SECRET}
    return {
        "governance": {"require_key": True, "keys": keys},
        "storage": storage,
        "sandbox": {"warm": 0},
        "telemetry": {"channels": {"hook": hook, "log": {"type": "log"}}, "alerts": told},
    }


def call_any_worker(served: Served, name: str, arguments: dict[str, Any], key: str) -> int:
    with httpx2.Client(base_url=served.address, timeout=30) as fresh:  # a connection reaches one of the workers
        return fresh.post("/mcp", json=call_of(name, arguments), headers=bearer(key)).status_code


def call_many(served: Served, name: str, arguments: dict[str, Any], key: str, times: int) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: call_any_worker(served, name, arguments, key), range(times)))


def settled(receiver: Receiver, count: int) -> None:
    """When so many messages have come, and no more in the time in which workers look twice."""
    wait_until(lambda: len(receiver.received) >= count, 60)
    before = time.monotonic()
    wait_until(lambda: time.monotonic() - before > 3 or len(receiver.received) > count)
    assert len(receiver.received) == count, receiver.received


def alerts_of(served: Served) -> dict[str, Any]:
    answer = served.admin("GET", "alerts")
    assert answer.status_code == 200, answer.text
    return {one["id"]: one for one in answer.json()["alerts"]}


def test_a_server_that_is_down_is_told_once_by_all_workers_and_once_when_it_is_back(
    tmp_path: Path, receiver: Receiver, storage: dict[str, str]
) -> None:
    down = {"id": "down", "when": {"upstream_down": True}, "names": ["wrong*", "raw"]}
    servers = {"raw": raw(), "wrong": {"command": "/nowhere/program"}}
    with serving(tmp_path, write_config(tmp_path, servers, **settings(receiver, storage, down)), workers=3) as served:
        settled(receiver, 1)
        assert receiver.texts("firing") == ["the server wrong cannot be reached"]
        state = alerts_of(served)["down"]
        assert (state["firing"], state["states"][0]["subject"], state["states"][0]["told"]) == (True, "wrong", True)
        served.edit(mcpServers={"raw": raw(), "wrong": raw()})
        settled(receiver, 2)
        assert len(receiver.texts("resolved")) == 1
        assert not alerts_of(served)["down"]["firing"]
    assert receiver.signed == [True, True] and len(set(receiver.ids)) == 2
    assert served.said("alert down firing: the server wrong")


def test_shares_of_a_budget_are_told_as_they_are_reached_and_a_restart_repeats_nothing(
    tmp_path: Path, receiver: Receiver, storage: dict[str, str]
) -> None:
    budget = {"id": "budget", "when": {"budget_used": ["50%", "80%", "100%"]}, "names": ["key:pays"]}
    servers = {"raw": raw(expose="both", prices={"add": 0.1})}
    config = write_config(tmp_path, servers, **settings(receiver, storage, budget))
    with serving(tmp_path, config, workers=2) as served:
        call_many(served, "raw__add", {"a": 1, "b": 2}, PAYS, 5)
        settled(receiver, 1)
        call_many(served, "raw__add", {"a": 1, "b": 2}, PAYS, 3)
        settled(receiver, 2)
    with serving(tmp_path, config, workers=2) as served:
        call_many(served, "raw__add", {"a": 1, "b": 2}, PAYS, 2)
        settled(receiver, 3)
        assert [text.partition(" of ")[0] for text in receiver.texts("firing")] == ["50%", "80%", "100%"]
        assert served.admin("POST", "keys/pays/reset", {}).status_code == 204
        settled(receiver, 4)
        assert len(receiver.texts("resolved")) == 1


def test_failures_of_all_workers_count_together_and_refusals_are_none(
    tmp_path: Path, receiver: Receiver, storage: dict[str, str]
) -> None:
    rate = {"id": "rate", "when": {"error_rate": "50%"}, "only": {"server": "raw"}, "min_requests": 20, "window": "1h"}
    slow = {"id": "slow", "when": {"latency_ms": 60_000}, "min_requests": 1}
    config = write_config(tmp_path, {"raw": raw(expose="both")}, **settings(receiver, storage, rate, slow))
    with serving(tmp_path, config, workers=3) as served:
        call_many(served, "raw__echo", {"text": "x"}, ADMIN, 9)
        call_many(served, "raw__fail", {"message": "no"}, ADMIN, 10)
        call_many(served, "raw__fail", {"message": "no"}, "mg-no-such-key", 20)
        call_many(served, "raw__fail", {"message": "no"}, ADMIN, 1)
        settled(receiver, 1)
        assert receiver.texts("firing") == ["55% of requests failed (11 of 20 requests in 1h)"]
        call_many(served, "raw__echo", {"text": "x"}, ADMIN, 10)
        settled(receiver, 2)
        assert len(receiver.texts("resolved")) == 1


def spent_every_day(team: str, cost: int) -> list[Entry]:
    """In this hour and the next, on each of the seven days before."""
    hour = time.time() // 3600 * 3600
    moments = [hour + more - day * 86_400 for day in range(1, 8) for more in (60, 3660)]
    return [entry(f"rq_{at:.0f}", at, cost, team=team) for at in moments]


def test_every_other_kind_of_alert_is_told(
    tmp_path: Path, receiver: Receiver, storage: dict[str, str], provider: ModelProvider
) -> None:
    counting = str(Path(__file__).parents[1] / "counting_server.py")
    (tmp_path / "calls").touch()
    alerts = [
        {"id": "slow", "when": {"latency_ms": 0.001}, "only": {"server": "raw"}, "min_requests": 5},
        {"id": "missed", "when": {"cache_hit_rate_below": "50%"}, "only": {"server": "kept"}, "min_requests": 4},
        {"id": "dear", "when": {"spend_times_usual": 3}, "only": {"team": "lab"}, "min_usd": 0.5},
        {"id": "link", "when": {"sign_in_needed": True}},
        {"id": "target", "when": {"target_down": True}, "names": ["open/status-*"]},
    ]
    with sign_in_server() as hosted:
        servers = {
            "raw": raw(expose="both", prices={"*": 0.25}),
            "kept": {"command": sys.executable, "args": [counting, str(tmp_path / "calls")]}
            | {"expose": "both", "cache": {}},
            "linear": hosted.entry(),
        }
        sections = settings(receiver, storage, *alerts)
        grants = {"tools": ["*"], "models": ["*"]}
        sections["governance"]["teams"] = {"lab": {}}
        sections["governance"]["keys"]["lab"] = {"secret": LAB, "team": "lab", "grants": grants}
        open_ = {"type": "openai", "base_url": provider.address, "api_key": "x"}
        sections["llm"] = {
            "providers": {"open": open_},
            "models": {"only": {"targets": [{"target": "open/status-503"}]}},
        }
        config = write_config(tmp_path, servers, **sections)
        asyncio.run(write_entries(storage["url"], spent_every_day("lab", 100_000_000)))
        ask = {"model": "only", "messages": [{"role": "user", "content": "Hello"}]}
        with serving(tmp_path, config, workers=2) as served:
            call_many(served, "raw__echo", {"text": "x"}, LAB, 8)
            for number in range(4):
                call_any_worker(served, "kept__look", {"name": str(number)}, LAB)
            for _ in range(20):
                served.clients[0].post("/v1/chat/completions", json=ask, headers=bearer(LAB))
            settled(receiver, len(alerts))
    told = {one["data"]["alert"]: one["data"]["text"] for one in receiver.received}
    assert told["slow"].startswith("the 95th percentile of latency is above 0 ms (")
    assert told["missed"] == "the cache answered only 0% of requests (4 of 4 requests in 5m were not in it)"
    assert re.fullmatch(r"\$[0-9.]+ were spent this hour, [0-9.]+ times the usual \$0\.10", told["dear"])
    assert told["link"] == "somebody must sign in to the server linear"
    assert told["target"] == "the target open/status-503 is left alone after failures"


def test_a_message_is_sent_again_until_it_is_taken_and_says_that_it_is_the_same(
    tmp_path: Path, receiver: Receiver
) -> None:
    receiver.fails = 2
    down = {"when": {"upstream_down": True}}
    config = write_config(tmp_path, {"wrong": {"command": "/nowhere/program"}}, **settings(receiver, {}, down))
    with serving(tmp_path, config, workers=2):
        settled(receiver, 1)
    assert len(receiver.ids) == 3 and len(set(receiver.ids)) == 1


def test_a_message_that_was_not_taken_before_the_gateway_ended_is_sent_by_the_next(
    tmp_path: Path, receiver: Receiver, storage: dict[str, str]
) -> None:
    receiver.fails = 1_000
    down = {"when": {"upstream_down": True}}
    config = write_config(tmp_path, {"wrong": {"command": "/nowhere/program"}}, **settings(receiver, storage, down))
    with serving(tmp_path, config):
        wait_until(lambda: receiver.ids)
    receiver.fails = 0
    with serving(tmp_path, config):
        settled(receiver, 1)
    assert len(set(receiver.ids)) == 1


def test_a_store_that_is_away_is_told_once_for_all_workers_and_once_when_it_is_back(
    tmp_path: Path, receiver: Receiver
) -> None:
    with own_database() as url:
        away = {"id": "away", "when": {"store_away": True}}
        config = write_config(tmp_path, {"raw": raw()}, **settings(receiver, {"url": url}, away))
        name = url.rpartition("/")[2]
        with serving(tmp_path, config, workers=3):
            asyncio.run(_allow(name, False))
            settled(receiver, 1)
            asyncio.run(_allow(name, True))
            settled(receiver, 2)
    assert receiver.texts("firing")[0].startswith("the store is unavailable")
    assert receiver.texts("resolved") == ["the store is available again"]


async def _allow(database: str, connections: bool) -> None:
    import asyncpg

    from tests.stores.conftest import POSTGRES

    db = await asyncpg.connect(POSTGRES)
    try:
        await db.execute(f'ALTER DATABASE "{database}" WITH ALLOW_CONNECTIONS {str(connections).lower()}')
        if not connections:
            await db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database)
    finally:
        await db.close()


def test_the_command_and_the_api_send_a_test_to_every_channel_and_say_what_came_of_it(
    tmp_path: Path, receiver: Receiver
) -> None:
    sections = settings(receiver, {}, {"when": {"error_rate": "5%"}})
    sections["telemetry"]["channels"]["gone"] = {"type": "webhook", "url": "http://127.0.0.1:1/secret-part"}
    config = write_config(tmp_path, {"raw": raw()}, **sections)
    done = mcpgate("alerts", "test", "-c", str(config), env={})
    assert done.returncode == 1
    assert [
        line.split()[:3] for line in sorted(done.stdout.splitlines()[1:], key=lambda line: "sent" not in line)[:2]
    ] == [
        ["hook", "webhook", "sent"],
        ["log", "log", "sent"],
    ], done.stdout
    assert "ConnectError" in done.stdout and "secret-part" not in done.stdout
    with serving(tmp_path, config) as served:
        answer = served.admin("POST", "alerts/test", {}).json()["channels"]
        assert {one["name"]: one["error"] is None for one in answer} == {"hook": True, "log": True, "gone": False}
        assert served.admin("GET", "alerts", key=PAYS).status_code == 403
        assert SECRET not in served.admin("GET", "alerts").text
    assert [one["type"] for one in receiver.received] == ["alert.test"] * 2
