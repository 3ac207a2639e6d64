"""Budgets and limits under races: callers at one barrier, in one process and in four; workers killed in between."""

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mcpgate.errors import BudgetExceeded, RateLimited
from mcpgate.governance.callers import LOCAL, Caller
from mcpgate.governance.context import RequestContext
from mcpgate.governance.records import Usage, new_id
from tests.governance import worker
from tests.governance.gates import CENT, call, gate_on, race, refusal_of, standing, tool
from tests.stores.conftest import PROCESSES, Place, make_place

pytestmark = pytest.mark.anyio
ROOM = 60
LIMITS: dict[str, Any] = {
    "hold_wait_s": 0,
    "budgets": [{"id": "money", "when": {"tool": "read"}, "limit_usd": "0.60", "period": "1d"}],
    "rate_limits": [
        {"id": "rate", "when": {"tool": "write"}, "requests": ROOM, "window": "1h"},
        {"id": "at-once", "when": {"tool": "free"}, "concurrency": ROOM},
    ],
}
COUNTERS = {"read": "money|cost|", "write": "rate|requests|", "free": "at-once|concurrency|"}


class Worker:
    """A process of its own that shares the store."""

    def __init__(self, place: Place, callers: int, settings: Mapping[str, Any]) -> None:
        self.pipe, theirs = PROCESSES.Pipe()
        self.process = PROCESSES.Process(target=worker.main, args=(theirs, place, callers, settings), daemon=True)
        self.process.start()
        theirs.close()

    def tell(self, *words: Any) -> None:
        self.pipe.send(" ".join(map(str, words)))

    async def said(self) -> Any:
        assert await asyncio.to_thread(self.pipe.poll, 30), "it says nothing"
        return self.pipe.recv()

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    async def ended(self) -> int | None:
        """Its exit code, once it has done what it was told."""
        self.pipe.close()
        await asyncio.to_thread(self.process.join, 30)
        return self.process.exitcode

    async def killed(self) -> None:
        self.process.kill()
        await self.ended()


@asynccontextmanager
async def workers(place: Place, count: int, callers: int = 1, **settings: Any) -> AsyncIterator[list[Worker]]:
    """Ready ones. Whatever happens, none is left."""
    async with place.open():
        pass  # the schema is made once, by us
    started: list[Worker] = []
    try:
        for _ in range(count):
            started.append(Worker(place, callers, settings))
        for one in started:
            assert await one.said() == "ready"
        yield started
    finally:
        for one in started:
            await one.killed()


async def spent_and_held(place: Place, counter: str) -> tuple[int, int]:
    """Whatever cell it was counted in."""
    async with place.open() as stores:
        return await standing(stores.counters, counter)


@pytest.mark.parametrize("limited", ["read", "write", "free"])
async def test_200_callers_at_one_barrier_with_room_for_60_are_60_that_pass(place: Place, limited: str) -> None:
    async with place.open() as stores, gate_on(stores, **LIMITS) as gate:
        assert await race(gate, lambda: tool(limited), 200, lambda: None) == ROOM
        whole = {"read": (ROOM * CENT, 0), "write": (ROOM, 0), "free": (0, 0)}
        assert await standing(stores.counters, COUNTERS[limited]) == whole[limited]
        found = [one async for one in stores.store.entries(0.0)]
        assert len(found) == ROOM, "and what was refused is no entry"


async def test_200_callers_in_4_processes_with_room_for_60_are_60_that_pass(shared_place: Place) -> None:
    async with workers(shared_place, 4, callers=50, **LIMITS) as started:
        for limited in ("read", "write", "free", "free"):
            for one in started:
                one.tell("race", limited)
            assert [await one.said() for one in started] == ["decided"] * 4
            for one in started:
                one.tell("leave")
            admitted = [await one.said() for one in started]
            assert sum(admitted) == ROOM, f"{limited}: {admitted}"
        assert [await one.ended() for one in started] == [0] * 4
    assert await spent_and_held(shared_place, COUNTERS["read"]) == (ROOM * CENT, 0)
    assert await spent_and_held(shared_place, COUNTERS["write"]) == (ROOM, 0)
    assert await spent_and_held(shared_place, COUNTERS["free"]) == (0, 0)
    async with shared_place.open() as stores:
        assert len([one async for one in stores.store.entries(0.0)]) == 4 * ROOM


@pytest.mark.parametrize("inside", ["outside", "inside"])
async def test_what_is_settled_survives_a_kill_right_after_the_answer(shared_place: Place, inside: str) -> None:
    budget = {"budgets": [{"id": "all", "limit_usd": 10}]}
    async with workers(shared_place, 1, **budget) as (one,):
        one.tell("settle", inside)
        assert await one.said() == "settled"
        assert await one.ended() == -signal.SIGKILL
    async with shared_place.open() as stores:
        found = await stores.store.find_settled(["rq_last", "rq_outer"])
        assert list(found) == ["rq_last"]
        assert found["rq_last"].cost == 100 * CENT
        assert found["rq_last"].parent_id == ("rq_outer" if inside == "inside" else None)
        assert (await standing(stores.counters, "all|cost|"))[0] == 100 * CENT


@pytest.mark.parametrize("seed", [1])
async def test_after_workers_were_killed_ledger_and_counters_agree_and_nothing_stays_held(
    shared_place: Place, seed: int
) -> None:
    limit = 12
    settings = {
        "budgets": [
            {"id": "all", "limit_usd": limit},
            {"id": "few", "when": {"tool": "odd"}, "limit_usd": "0.000002"},
        ],
        "rate_limits": [{"id": "at-once", "when": {"tool": "*"}, "concurrency": 20}],
        "hold_wait_s": 0.05,
    }
    chance = random.Random(seed)
    async with workers(shared_place, 4, **settings) as started:
        for number, one in enumerate(started):
            one.tell("carry", seed * 100 + number)
        for number in range(4):
            await asyncio.sleep(chance.uniform(0.05, 0.25))  # calls go on meanwhile
            await chance.choice([one for one in started if one.alive]).killed()
            if number < 2:
                started.append(Worker(shared_place, 1, settings))
                started[-1].tell("carry", seed * 1000 + number)
                assert await started[-1].said() == "ready"
        stopped, killed = (one for one in started if one.alive)
        stopped.tell("stop")
        assert await stopped.ended() == 0
        await killed.killed()  # and after the last one there is nobody who would see to it
    async with shared_place.open() as stores:
        await stores.counters.expire(time.time() + 31)
        costs = {"all": 0, "few": 0}
        async for entry in stores.store.entries(0.0):
            costs["all"] += entry.cost or 0
            costs["few"] += (entry.cost or 0) if entry.tool == "odd" else 0
        assert costs["all"] > 100 * CENT, "enough was done to prove anything"
        assert await standing(stores.counters, "all|cost|") == (costs["all"], 0)
        assert await standing(stores.counters, "few|cost|") == (costs["few"], 0)
        assert await standing(stores.counters, "at-once|concurrency|") == (0, 0)
        assert costs["all"] <= limit * 100 * CENT
        assert costs["few"] <= 2000


async def test_money_that_a_killed_worker_held_is_spent_when_its_lease_has_run_out(shared_place: Place) -> None:
    """Whoever waits for it is told then, and not after the whole wait."""
    budget: dict[str, Any] = {"budgets": [{"id": "all", "limit_usd": 1}], "lease_s": 1, "hold_wait_s": 10}
    async with workers(shared_place, 1, **budget) as (one,), shared_place.open() as stores:
        one.tell("hold")
        assert await one.said() == "holding"
        async with gate_on(stores, **budget) as gate:
            waiting = asyncio.ensure_future(call(gate, tool("dear")))
            await one.killed()
            async with asyncio.timeout(6):
                with pytest.raises(BudgetExceeded):
                    await waiting
        assert await standing(stores.counters, "all|cost|") == (100 * CENT, 0)
        (found,) = [entry async for entry in stores.store.entries(0.0)]
        assert (found.outcome, found.cost) == ("unknown", 100 * CENT)


async def test_room_that_a_killed_worker_held_is_free_for_others_when_its_lease_has_run_out(
    shared_place: Place,
) -> None:
    limit: dict[str, Any] = {"rate_limits": [{"id": "one", "concurrency": 1}], "lease_s": 1}
    async with workers(shared_place, 1, **limit) as (one,), shared_place.open() as stores:
        one.tell("hold")
        assert await one.said() == "holding"
        async with gate_on(stores, **limit) as gate:
            await one.killed()
            async with asyncio.timeout(6):
                while True:
                    try:
                        await call(gate, tool("dear"))
                        break
                    except RateLimited:
                        await asyncio.sleep(0.05)
        assert await standing(stores.counters, "one|concurrency|") == (0, 0)


class Upstream:
    """Counts every call that reaches it, answers a moment later, and lives on whoever is killed."""

    def __init__(self) -> None:
        self.received: list[str] = []
        self.changed = asyncio.Event()

    async def __aenter__(self) -> "Upstream":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.received.append(line.decode().strip())
                self.changed.set()
                await asyncio.sleep(0.02)  # the call is under way
                writer.write(b"done\n")
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def has_received(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.received) < count:
                self.changed.clear()
                await self.changed.wait()


@pytest.mark.parametrize("limited", ["money", "requests"])
async def test_with_room_for_60_calls_an_upstream_receives_at_most_60_however_many_workers_are_killed(
    shared_place: Place, limited: str
) -> None:
    settings: dict[str, Any] = {"lease_s": 1, "hold_wait_s": 0}
    if limited == "money":
        settings["budgets"] = [{"id": "all", "limit_usd": "0.60"}]
        counter, whole = "all|cost|", ROOM * CENT
    else:
        settings["rate_limits"] = [{"id": "all", "requests": ROOM, "window": "1d"}]
        counter, whole = "all|requests|", ROOM
    async with Upstream() as upstream, workers(shared_place, 1, **settings) as started:
        for kill in range(4):
            started[-1].tell("send", upstream.port)
            await upstream.has_received(12 * (kill + 1))  # in the middle of calls: eight are always under way
            await started[-1].killed()
            started.append(Worker(shared_place, 1, settings))
            assert await started[-1].said() == "ready"
        started[-1].tell("send", upstream.port)
        assert await started[-1].said() == "refused for good"
        assert await started[-1].ended() == 0
        assert len(set(upstream.received)) == len(upstream.received) <= ROOM
        async with shared_place.open() as stores:
            await stores.counters.expire(time.time() + 31)
            found = {entry.id: entry async for entry in stores.store.entries(0.0)}
            assert await standing(stores.counters, counter) == (whole, 0)
        assert len(found) == ROOM, "what the ledger has is what was counted"
        assert set(upstream.received) <= set(found), "every call that was received is in the ledger"
        assert sum(entry.cost or 0 for entry in found.values()) == ROOM * CENT
        killed = [entry for entry in found.values() if entry.outcome == "unknown"]
        assert 4 <= len(killed) <= 4 * 8
        assert len(upstream.received) >= ROOM - len(killed)


async def test_what_a_living_worker_holds_stays_held_beyond_the_length_of_its_lease(shared_place: Place) -> None:
    budget: dict[str, Any] = {"budgets": [{"id": "all", "limit_usd": 1}], "lease_s": 1, "hold_wait_s": 2.5}
    async with workers(shared_place, 1, **budget) as (one,), shared_place.open() as stores:
        one.tell("hold")
        assert await one.said() == "holding"
        async with gate_on(stores, **budget) as gate:
            with pytest.raises(Exception, match="reserved by calls in progress"):
                await call(gate, tool("dear"))
        assert await standing(stores.counters, "all|cost|") == (0, 100 * CENT)


@pytest.mark.parametrize("durable", ["sqlite", "postgres"])
async def test_counters_that_redis_has_lost_are_counted_again_from_the_ledger(durable: str, tmp_path: Path) -> None:
    place = make_place(f"redis+{durable}", tmp_path)
    settings: dict[str, Any] = {
        "budgets": [
            {"id": "all", "limit_usd": "0.10", "start_usd": "0.03"},
            {"id": "daily", "per": "user", "limit_usd": "0.05", "period": "1d"},
        ],
        "rate_limits": [{"id": "few", "requests": 100, "window": "1h"}, {"id": "four", "concurrency": 4}],
    }
    try:
        async with place.open() as stores, gate_on(stores, **settings) as gate:
            ada = Caller("vk_1", user="ada")
            for _ in range(3):
                await call(gate, caller=ada)
            async with gate.admit(RequestContext(ada), tool()) as under_way:
                await place.forget()
                await call(gate, caller=Caller("vk_2", user="bob"))
                under_way.spent(Usage(calls=1))
            assert await standing(stores.counters, "all|cost|") == (8 * CENT, 0)
            assert await standing(stores.counters, "daily|cost|ada") == (4 * CENT, 0)
            assert await standing(stores.counters, "daily|cost|bob") == (CENT, 0)
            assert await standing(stores.counters, "few|requests|") == (5, 0)
            assert await standing(stores.counters, "four|concurrency|") == (0, 0)
            assert (await refusal_of(gate, tool("write"), ada)).data["budget"] == "daily"
            assert (await refusal_of(gate, tool("read", 3))).data["budget"] == "all"
            await place.forget()
            lost = await asyncio.gather(*(call(gate, tool("read")) for _ in range(2)), return_exceptions=True)
            assert lost == [None, None]
            assert isinstance(await refusal_of(gate, tool("read")), BudgetExceeded)
            assert await standing(stores.counters, "all|cost|") == (10 * CENT, 0)
    finally:
        await place.remove()


async def test_budgets_of_the_team_that_a_token_named_are_counted_again_too(tmp_path: Path) -> None:
    place = make_place("redis+sqlite", tmp_path)
    settings: dict[str, Any] = {
        "customers": {"acme": {"budget": {"limit_usd": 1}}},
        "teams": {"search": {"customer": "acme", "budget": {"limit_usd": "0.02"}}},
        "keys": {"staff": {}},
    }
    try:
        async with place.open() as stores, gate_on(stores, **settings) as gate:
            key, spec = gate.policy.keys["staff"]
            ada = gate.policy.caller_of(replace(key, user="ada", team="search"), spec)
            for _ in range(2):
                await call(gate, caller=ada)
            await place.forget()
            assert (await refusal_of(gate, tool("read"), ada)).data["budget"] == "team:search"
            assert await standing(stores.counters, "team:search|cost|") == (2 * CENT, 0)
            assert await standing(stores.counters, "customer:acme|cost|") == (2 * CENT, 0)
    finally:
        await place.remove()


def _send_ids(line: Any) -> None:
    line.send({RequestContext(LOCAL).id, new_id("rq")})


def test_processes_that_were_forked_from_one_name_their_requests_differently() -> None:
    seen: set[str] = set()
    for _ in range(2):
        ours, theirs = PROCESSES.Pipe()
        process = PROCESSES.Process(target=_send_ids, args=(theirs,), daemon=True)
        process.start()
        assert ours.poll(30)
        ids = ours.recv()
        assert len(ids) == 2 and not ids & seen
        seen |= ids
        process.join()
