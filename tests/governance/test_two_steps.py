"""Admissions whose money is held later, what still fits, who hears of entries, and requests whose process ends."""

import asyncio
from typing import Any

import pytest

from mcpgate.errors import BudgetExceeded, RateLimited
from mcpgate.governance.callers import LOCAL, Caller
from mcpgate.governance.context import RequestContext
from mcpgate.governance.records import Entry, Reservation, Usage
from mcpgate.stores.memory import MemoryStore
from tests.governance.gates import CENT, Clock, call, gate_on, make_gate, standing, tool
from tests.stores.conftest import Place

pytestmark = pytest.mark.anyio
LIMITS: dict[str, Any] = {
    "hold_wait_s": 0,
    "budgets": [{"id": "all", "limit_usd": "0.05"}, {"id": "each", "per": "user", "limit_usd": 1}],
    "rate_limits": [{"id": "few", "requests": 3, "window": "1d"}, {"id": "two", "concurrency": 2}],
}
MONEY, RATE, ROOM = "all|cost|", "few|requests|", "two|concurrency|"


async def entries(stores: Any) -> dict[str, Entry]:
    return {one.id: one async for one in stores.entries(0.0)}


# --- money later


async def test_what_a_cache_answers_holds_no_money_and_counts_as_a_request(place: Place) -> None:
    async with place.open() as stores, gate_on(stores, **LIMITS) as gate:
        async with gate.admit(RequestContext(LOCAL), tool("read", id="rq_1"), money_later=True) as admission:
            assert await standing(stores.counters, MONEY) == (0, 0)
            assert await standing(stores.counters, RATE) == (0, 1)
            admission.cache = "exact"
        assert await standing(stores.counters, MONEY) == (0, 0)
        assert (await standing(stores.counters, RATE), await standing(stores.counters, ROOM)) == ((1, 0), (0, 0))
        found = (await entries(stores.store))["rq_1"]
        assert (found.cost, found.cache, found.outcome) == (0, "exact", "ok")


async def test_what_no_cache_answers_holds_its_money_before_it_is_made_and_settles_all_at_once(place: Place) -> None:
    async with place.open() as stores, gate_on(stores, **LIMITS) as gate:
        async with gate.admit(RequestContext(LOCAL), tool("read", 3), money_later=True) as admission:
            await admission.hold_money()
            await admission.hold_money()
            assert await standing(stores.counters, MONEY) == (0, 3 * CENT)
            assert len(admission.shares) == len(admission.balances) == 3
            admission.spent(Usage(calls=2))
        assert admission.total == 2 * CENT
        counters = [await standing(stores.counters, name) for name in (MONEY, RATE, ROOM)]
        assert counters == [(2 * CENT, 0), (1, 0), (0, 0)]


async def test_money_that_is_not_there_is_refused_when_it_is_asked_for_and_the_request_has_counted(
    place: Place,
) -> None:
    async with place.open() as stores, gate_on(stores, **LIMITS) as gate:
        request = tool("read", 6)
        with pytest.raises(BudgetExceeded, match="'all'"):
            async with gate.admit(RequestContext(LOCAL), request, money_later=True) as admission:
                await admission.hold_money()
        counters = [await standing(stores.counters, name) for name in (MONEY, RATE, ROOM)]
        assert counters == [(0, 0), (1, 0), (0, 0)]
        found = (await entries(stores.store))[request.id]
        assert (found.cost, found.outcome) == (0, "budget_exceeded")


async def test_a_limit_on_speed_is_refused_before_any_cache_is_asked() -> None:
    async with gate_on(MemoryStore(), **LIMITS) as gate:
        for _ in range(3):
            await call(gate)
        with pytest.raises(RateLimited, match="'few'"):
            async with gate.admit(RequestContext(LOCAL), tool(), money_later=True):
                raise AssertionError("it was admitted")


async def test_where_no_money_is_limited_holding_it_costs_no_trip_to_the_store() -> None:
    stores = Counted()
    async with gate_on(stores, rate_limits=LIMITS["rate_limits"]) as gate:
        async with gate.admit(RequestContext(LOCAL), tool(), money_later=True) as admission:
            await admission.hold_money()
            admission.spent(Usage(calls=1))
        assert [one.id for one in stores.made] == [admission.request.id]
        assert stores.made[0].abandoned is not None and stores.made[0].abandoned.cost == CENT
    async with gate_on(stores) as gate:
        stores.made.clear()
        async with gate.admit(RequestContext(LOCAL), tool(), money_later=True) as admission:
            await admission.hold_money()
        assert stores.made == []


class Counted(MemoryStore):
    """Remembers what was reserved."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Reservation] = []

    async def reserve(self, reservation: Reservation) -> Any:
        self.made.append(reservation)
        return await super().reserve(reservation)


async def test_each_step_says_what_is_written_if_the_process_ends_right_after_it() -> None:
    stores = Counted()
    async with gate_on(stores, **LIMITS) as gate:
        async with gate.admit(RequestContext(LOCAL), tool("read", 2, id="rq_1"), money_later=True) as admission:
            await admission.hold_money()
        async with gate.admit(RequestContext(LOCAL), tool("free", id="rq_2")):
            pass
    first, second, other = stores.made
    assert (first.id, second.id, other.id) == ("rq_1", "rq_1/cost", "rq_2")
    assert first.abandoned is not None and second.abandoned is not None and other.abandoned is not None
    assert {one.abandoned.id for one in (first, second) if one.abandoned} == {"rq_1"}
    assert (first.abandoned.outcome, first.abandoned.cost) == ("unknown", 0), "nothing is sent before money is held"
    assert (second.abandoned.outcome, second.abandoned.cost) == ("unknown", 2 * CENT)
    assert second.abandoned.usage == Usage(calls=2)
    assert other.abandoned.cost == 0
    async with gate_on(stores, rate_limits=[{"id": "two", "concurrency": 2}]) as gate:
        await call(gate)
    assert stores.made[-1].abandoned is None, "room that was held is not used up by anything"


# --- the process ends


async def test_what_a_process_that_died_had_sent_is_spent_as_it_was_held(place: Place) -> None:
    clock = Clock()
    async with place.open() as stores, gate_on(stores, clock, **LIMITS) as other:
        dead = make_gate(stores.counters, stores.store, clock, **LIMITS)
        await dead._holds.lease()  # and keeps no lease from here on
        ada = Caller("vk_1", user="ada")
        await dead.admit(RequestContext(ada), tool("read", 3, at=clock(), id="rq_sent")).__aenter__()
        clock.now += 31
        await other._holds.lease()
        await other._holds.tidy()
        counters = [await standing(stores.counters, name) for name in (MONEY, "each|cost|ada", RATE, ROOM)]
        assert counters == [(3 * CENT, 0), (3 * CENT, 0), (1, 0), (0, 0)]
        found = (await entries(stores.store))["rq_sent"]
        assert (found.outcome, found.cost, found.key, found.user) == ("unknown", 3 * CENT, "vk_1", "ada")
        (row,) = await stores.store.report(_everything(clock.now))
        assert row["cost"] == 3 * CENT, "and reports have it"


def _everything(now: float) -> Any:
    from mcpgate.governance.store import Query

    return Query(0.0, now + 1e6)


async def test_a_process_that_was_stopped_for_longer_than_its_lease_settles_nothing_twice(place: Place) -> None:
    clock = Clock()
    async with place.open() as stores, gate_on(stores, clock, **LIMITS) as other:
        stopped = make_gate(stores.counters, stores.store, clock, **LIMITS)
        await stopped._holds.lease()
        async with stopped.admit(RequestContext(LOCAL), tool("read", 3, at=clock(), id="rq_1")) as admission:
            clock.now += 31
            await other._holds.lease()
            await other._holds.tidy()
            admission.spent(Usage(calls=1))
        assert await standing(stores.counters, MONEY) == (3 * CENT, 0)
        assert (await entries(stores.store))["rq_1"].outcome == "unknown"
        # What it does next it holds under a lease that counts again.
        async with stopped.admit(RequestContext(LOCAL), tool("read", 1, at=clock(), id="rq_2")) as admission:
            await other._holds.tidy()
            assert await standing(stores.counters, MONEY) == (3 * CENT, CENT)
            admission.spent(Usage(calls=1))
        assert (await entries(stores.store))["rq_2"].outcome == "ok"


# --- what still fits


async def test_headroom_is_what_still_fits_the_tightest_of_the_limits_that_apply() -> None:
    stores, clock = MemoryStore(), Clock()
    settings = {
        "budgets": [
            {"id": "all", "limit_usd": "0.05"},
            {"id": "wide", "limit_usd": 10},
            {"id": "other", "when": {"team": "other"}, "limit_usd": 0},
        ],
        "rate_limits": [{"id": "few", "requests": 3, "tokens": 100, "window": "1d"}],
    }
    async with gate_on(stores, clock, **settings) as gate:
        context = RequestContext(LOCAL)
        assert await gate.headroom(context, tool()) == {"cost": 5 * CENT, "requests": 3, "tokens": 100}
        await call(gate, tool("read", 2, at=clock()), calls=2)
        async with gate.admit(context, tool("read", at=clock())):
            assert await gate.headroom(context, tool()) == {"cost": 2 * CENT, "requests": 1, "tokens": 100}
        other = RequestContext(Caller("vk_1", team="other"))
        assert (await gate.headroom(other, tool()))["cost"] == 0
        await gate.reload(gate.config.model_validate({}), gate._declared.prices)
        assert await gate.headroom(context, tool()) == {}


async def test_headroom_is_never_less_than_nothing_and_a_rule_that_only_counts_does_not_limit_it() -> None:
    stores, clock = MemoryStore(), Clock()
    budgets = [
        {"id": "governs", "group": "g", "limit_usd": "0.01"},
        {"id": "counts", "group": "g", "limit_usd": 0},
    ]
    async with gate_on(stores, clock, budgets=budgets) as gate:
        context = RequestContext(LOCAL)
        assert await gate.headroom(context, tool()) == {"cost": CENT}
        async with gate.admit(context, tool("read", at=clock())) as admission:
            admission.spent(Usage(calls=5))
        assert await gate.headroom(context, tool()) == {"cost": 0}


# --- listeners


async def test_listeners_hear_of_every_entry_as_its_request_ends_and_of_no_refusal() -> None:
    stores, heard = MemoryStore(), []
    async with gate_on(stores, **LIMITS) as gate:
        gate.listen(lambda entry: heard.append((entry.id, entry.outcome, entry.cost)))
        with pytest.raises(ValueError, match="on purpose"):
            async with gate.admit(RequestContext(LOCAL), tool("read", id="rq_1")) as admission:
                admission.spent(Usage(calls=1))
                raise ValueError("on purpose")
        assert heard == [("rq_1", "error", CENT)]
        with pytest.raises(BudgetExceeded):
            await call(gate, tool("dear"))
        await call(gate, tool("free", id="rq_2"))
        assert heard[1:] == [("rq_2", "ok", 0)]


async def test_what_an_admission_learned_is_in_the_entry_that_listeners_hear() -> None:
    stores, heard = MemoryStore(), []
    async with gate_on(stores) as gate:
        gate.listen(heard.append)
        context = RequestContext(LOCAL, id="0123456789abcdef")
        async with gate.admit(context, tool("read", id="rq_1")) as admission:
            admission.timings["upstream"] = 12.5
            admission.facts["session"] = "s1"
            admission.spent(Usage(calls=1, more={"image_tokens": 4}))
        (found,) = heard
        assert found.timings == {"upstream": 12.5}
        assert found.facts == {"request": "0123456789abcdef", "session": "s1"}
        assert found.usage.more == {"image_tokens": 4}
        await gate.flush()
        assert (await entries(stores))["rq_1"] == found


async def test_listeners_hear_at_once_though_the_ledger_is_written_a_moment_later() -> None:
    stores, heard = MemoryStore(), asyncio.Event()
    async with gate_on(stores) as gate:
        gate.listen(lambda entry: heard.set())
        await call(gate, tool("free"))
        assert heard.is_set() and await entries(stores) == {}
        await gate.flush()
        assert len(await entries(stores)) == 1
