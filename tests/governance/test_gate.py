"""The gate: what is refused and how, what is waited for, and that what was spent is settled however a call ends."""

import asyncio
import datetime
import logging
import random
import sqlite3
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from mcpgate.config.governance import GovernanceConfig, KeySpec
from mcpgate.errors import BudgetExceeded, InvalidRequest, NotAllowed, RateLimited, Unavailable
from mcpgate.governance.callers import LOCAL, Caller
from mcpgate.governance.context import RequestContext
from mcpgate.governance.gate import Gate
from mcpgate.governance.keys import digest_of, to_record
from mcpgate.governance.records import Balance, Refusal, Request, Reservation, Usage, to_usd
from mcpgate.governance.store import Change, Settlement, StoreUnavailable
from mcpgate.stores.memory import MemoryStore
from mcpgate.stores.requests import MemoryRequests
from mcpgate.stores.sqlite import writer
from mcpgate.stores.sqlite.governance import SqliteStore
from mcpgate.telemetry.metrics import Metrics
from tests.governance.gates import (
    CENT,
    Clock,
    call,
    gate_on,
    in_virtual_time,
    make_gate,
    names_of,
    prices,
    refusal_of,
    standing,
    tool,
)
from tests.stores.conftest import NOW

pytestmark = pytest.mark.anyio
ALL = "all|cost|"
DOLLAR: dict[str, Any] = {"budgets": [{"id": "all", "limit_usd": 1}]}


def metric(metrics: Metrics, name: str) -> float:
    line = next(line for line in metrics.shown().decode().splitlines() if line.startswith(f"mcpgate_{name} "))
    return float(line.split()[-1])


async def entries(stores: Any) -> dict[str, Any]:
    return {one.id: one async for one in stores.entries(0.0)}


# --- refusals


async def test_a_call_over_budget_is_refused_and_costs_nothing() -> None:
    stores, clock = MemoryStore(), Clock()
    budget = {"id": "daily", "per": "user", "limit_usd": "0.05", "period": "1d", "calendar": True}
    async with gate_on(stores, clock, budgets=[budget]) as gate:
        ada = Caller(id="vk_1", user="ada")
        await call(gate, tool("read", 3, at=clock()), ada, calls=3)
        error = await refusal_of(gate, tool("read", 3, at=clock()), ada)
        midnight = datetime.datetime.fromtimestamp(NOW // 86_400 * 86_400 + 86_400, datetime.UTC)
        resets = f"{midnight:%Y-%m-%dT%H:%M:%SZ}"
        assert isinstance(error, BudgetExceeded) and (error.http_status, error.code) == (402, "budget_exceeded")
        assert error.data == {
            **{"scope": "user ada", "budget": "daily", "window": "1d", "limit_usd": 0.05, "spent_usd": 0.03},
            **{"reserved_usd": 0.0, "resets_at": resets, "limit": 0.05, "spent": 0.03, "reserved": 0.0},
        }
        for part in ("'daily'", "user ada", "$0.05 per 1d", "$0.03 is needed", "$0.02 is left", resets):
            assert part in error.message
        assert len(await entries(stores)) == 1
        assert await standing(stores, "daily|cost|ada") == (3 * CENT, 0)
        await call(gate, tool("read", 2, at=clock()), ada)


@pytest.mark.parametrize("window", ["1s", "7s", "1m", "1h", "1d"])
async def test_a_rate_limit_is_refused_until_exactly_when_it_says(window: str) -> None:
    clock = Clock(NOW + 123.456)
    limit = {"id": "few", "requests": 2, "window": window}
    async with gate_on(MemoryStore(), clock, rate_limits=[limit]) as gate:
        for _ in range(2):
            await call(gate, tool(at=clock()))
        error = await refusal_of(gate, tool(at=clock()))
        assert isinstance(error, RateLimited) and (error.http_status, error.code) == (429, "rate_limited")
        facts = {name: error.data[name] for name in ("scope", "rate_limit", "measure", "limit", "window")}
        assert facts == {
            **{"scope": "everybody together", "rate_limit": "few", "measure": "requests", "limit": 2},
            "window": window,
        }
        wait = error.data["retry_after_s"]
        assert f"2 requests per {window}" in error.message
        now = clock.now
        clock.now = now + wait - 0.002
        assert isinstance(await refusal_of(gate, tool(at=clock())), RateLimited)
        clock.now = now + wait
        await call(gate, tool(at=clock()))


@pytest.mark.parametrize(
    ("budget", "moment"),
    [
        ({"period": "1h"}, "2026-03-01T12:34:56"),
        ({"period": "1M"}, "2026-01-31T10:00:00"),
        ({"period": "1M"}, "2026-02-15T10:00:00"),
        ({"period": "12M"}, "2026-02-28T10:00:00"),
        ({"period": "4Q"}, "2027-06-30T10:00:00"),
        ({"period": "1Y"}, "2028-02-29T10:00:00"),
        ({"period": "1d", "calendar": True, "timezone": "Europe/Berlin"}, "2026-03-28T23:30:00"),
        ({"period": "1M", "calendar": True, "timezone": "America/New_York"}, "2026-03-02T00:00:00"),
        ({"period": "1w", "calendar": True, "timezone": "Australia/Lord_Howe"}, "2026-04-04T12:00:00"),
    ],
)
async def test_a_budget_is_free_again_exactly_when_its_refusal_says(budget: dict[str, Any], moment: str) -> None:
    clock = Clock(datetime.datetime.fromisoformat(moment + "+00:00").timestamp())
    async with gate_on(MemoryStore(), clock, budgets=[{"id": "all", "limit_usd": "0.01", **budget}]) as gate:
        await call(gate, tool(at=clock()))
        error = await refusal_of(gate, tool(at=clock()))
        assert isinstance(error, BudgetExceeded)
        resets = datetime.datetime.fromisoformat(error.data["resets_at"]).timestamp()
        clock.now = resets - 1
        assert isinstance(await refusal_of(gate, tool(at=clock())), BudgetExceeded)
        clock.now = resets
        await call(gate, tool(at=clock()))


async def test_concurrency_is_refused_at_once_and_passes_when_one_has_left() -> None:
    async with gate_on(MemoryStore(), rate_limits=[{"id": "two", "concurrency": 2}], hold_wait_s=60) as gate:
        async with gate.admit(RequestContext(LOCAL), tool()), gate.admit(RequestContext(LOCAL), tool()):
            error = await refusal_of(gate)
            assert isinstance(error, RateLimited)
            assert error.data["measure"] == "concurrency" and error.data["retry_after_s"] == 1.0
        await call(gate)


async def test_of_several_that_do_not_fit_the_budget_that_is_spent_is_named() -> None:
    settings: dict[str, Any] = {
        "budgets": [
            {"id": "short", "limit_usd": "0.01", "period": "1h"},
            {"id": "long", "limit_usd": "0.01", "period": "1d"},
        ],
        "rate_limits": [{"id": "one", "requests": 1, "window": "1Y"}],
    }
    async with gate_on(MemoryStore(), **settings) as gate:
        await call(gate)
        error = await refusal_of(gate)
        assert isinstance(error, BudgetExceeded) and error.data["budget"] == "long"


async def test_the_price_of_a_call_larger_than_its_budget_is_refused_at_once_though_nothing_is_spent() -> None:
    async with gate_on(MemoryStore(), **DOLLAR, hold_wait_s=60) as gate:
        async with gate.admit(RequestContext(LOCAL), tool("read")):
            assert isinstance(await refusal_of(gate, tool("dear", 2)), BudgetExceeded)


@pytest.mark.parametrize("unpriced", ["allow", "deny"])
async def test_a_call_without_a_price_is_admitted_or_not_as_it_is_set_and_never_shown_as_free(unpriced: str) -> None:
    stores, metrics = MemoryStore(), Metrics()
    async with gate_on(stores, **DOLLAR, unpriced=unpriced, metrics=metrics) as gate:
        request = tool("no price")
        if unpriced == "deny":
            error = await refusal_of(gate, request)
            assert isinstance(error, NotAllowed)
            assert "files.no price" in error.message and "'all'" in error.message
            assert await entries(stores) == {}
        else:
            await call(gate, request)
            await gate.flush()
            assert (await entries(stores))[request.id].cost is None
            assert metric(metrics, "unpriced_total") == 1
        assert await standing(stores, ALL) == (0, 0)
    async with gate_on(stores, unpriced=unpriced, rate_limits=[{"id": "r", "requests": 9, "window": "1h"}]) as gate:
        await call(gate, tool("no price"))  # no budget asks for a price


# --- waiting for what is held


def test_money_that_is_only_held_is_waited_for_and_then_passes() -> None:
    async def work(clock: Callable[[], float]) -> None:
        stores = MemoryStore()
        async with gate_on(stores, clock, **DOLLAR, hold_wait_s=1) as gate:
            async with gate.admit(RequestContext(LOCAL), tool("dear")):
                waiting = [asyncio.ensure_future(call(gate, tool("read"))) for _ in range(3)]
                await asyncio.sleep(0.5)
                assert not any(one.done() for one in waiting)
            await asyncio.gather(*waiting)
            assert await standing(stores, ALL) == (3 * CENT, 0)

    in_virtual_time(work)


def test_money_that_stays_held_is_refused_after_the_wait_with_when_to_come_again() -> None:
    async def work(clock: Callable[[], float]) -> None:
        async with gate_on(MemoryStore(), clock, **DOLLAR, hold_wait_s=1.5) as gate:
            async with gate.admit(RequestContext(LOCAL), tool("dear")):
                began = clock()
                error = await refusal_of(gate, tool("read", at=clock()))
                assert 1.5 <= clock() - began < 1.6
                assert isinstance(error, RateLimited) and error.http_status == 429
                assert error.data["retry_after_s"] > 0 and error.data["reserved_usd"] == 1.0
                assert "reserved by calls in progress" in error.message

    in_virtual_time(work)


def test_who_waits_is_refused_as_soon_as_what_was_held_is_spent() -> None:
    async def work(clock: Callable[[], float]) -> None:
        async with gate_on(MemoryStore(), clock, **DOLLAR, hold_wait_s=60) as gate:
            async with gate.admit(RequestContext(LOCAL), tool("dear")) as admission:
                waiting = asyncio.ensure_future(refusal_of(gate, tool("read")))
                await asyncio.sleep(0.5)
                admission.spent(Usage(calls=1))
            began = clock()
            assert isinstance(await waiting, BudgetExceeded)
            assert clock() - began < 0.2

    in_virtual_time(work)


def test_those_who_wait_are_admitted_in_the_order_in_which_they_came() -> None:
    async def work(clock: Callable[[], float]) -> None:
        admitted = []

        async def one(gate: Gate, number: int) -> None:
            async with gate.admit(RequestContext(LOCAL), tool("dear")):
                admitted.append(number)
                await asyncio.sleep(0.1)

        async with gate_on(MemoryStore(), clock, **DOLLAR, hold_wait_s=60) as gate:
            await asyncio.gather(*(one(gate, number) for number in range(10)))
        assert admitted == list(range(10))

    in_virtual_time(work)


@pytest.mark.parametrize("how", ["cancelled", "timed out", "gate wait over"])
def test_who_gives_up_waiting_leaves_no_hold_behind(how: str) -> None:
    async def work(clock: Callable[[], float]) -> None:
        stores = MemoryStore()
        async with gate_on(stores, clock, **DOLLAR, hold_wait_s=1) as gate:
            async with gate.admit(RequestContext(LOCAL), tool("dear")):
                waiting = [asyncio.ensure_future(call(gate, tool("write"))) for _ in range(5)]
                if how == "timed out":
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.3):
                            await call(gate, tool("write"))
                await asyncio.sleep(2 if how == "gate wait over" else 0.3)
                for one in waiting:
                    one.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)
            await asyncio.sleep(0.1)
            assert await standing(stores, ALL) == (0, 0)
            await call(gate, tool("dear"))

    in_virtual_time(work)


def test_reserving_with_a_short_wait_uses_96_percent_of_a_budget_and_never_more_than_all() -> None:
    """The simulation of the issue: money for 100, 2,000 requests, 500 at once, estimates twice of what comes."""

    async def work(clock: Callable[[], float]) -> float:
        chance = random.Random(4)
        limit = 100
        stores = MemoryStore()
        config = GovernanceConfig.model_validate({"budgets": [{"id": "all", "limit_usd": limit}]})
        gate = Gate(config, prices({"unit": "0.001"}), stores, stores, Metrics(), clock)
        await gate.start()
        slots = asyncio.Semaphore(500)
        most = 0

        async def one() -> None:
            nonlocal most
            real = chance.randint(50, 250)
            request = Request("tool", server="files", tool="unit", estimate=Usage(calls=2 * real), at=clock())
            async with slots:
                try:
                    async with gate.admit(RequestContext(LOCAL), request) as admission:
                        spent, held = await standing(stores, ALL)
                        most = max(most, spent + held)
                        await asyncio.sleep(chance.uniform(0.05, 0.6))
                        admission.spent(Usage(calls=real))
                except (BudgetExceeded, RateLimited):
                    pass

        await asyncio.gather(*(one() for _ in range(2000)))
        await gate.aclose()
        spent, held = await standing(stores, ALL)
        assert held == 0 and most <= limit * 100 * CENT
        assert spent == sum(entry.cost for entry in (await entries(stores)).values())
        return spent / (limit * 100 * CENT)

    assert 0.96 <= in_virtual_time(work) <= 1.0


# --- however a call ends


class Ended(Exception):
    pass


async def test_what_was_spent_is_settled_when_the_block_raises() -> None:
    stores = MemoryStore()
    async with gate_on(stores, **DOLLAR) as gate:
        request = tool("write")
        with pytest.raises(Ended):
            async with gate.admit(RequestContext(LOCAL), request) as admission:
                admission.spent(Usage(calls=1))
                raise Ended
        assert (await entries(stores))[request.id].outcome == "error"
        refused = tool("read")
        with pytest.raises(NotAllowed):
            async with gate.admit(RequestContext(LOCAL), refused):
                raise NotAllowed("no")
        entry = (await entries(stores))[refused.id]
        assert (entry.outcome, entry.cost) == ("not_allowed", 0), "nothing was said to be spent"
        assert await standing(stores, ALL) == (2 * CENT, 0)


async def under_way(gate: Gate, request: Request) -> "asyncio.Future[None]":
    """A call that was sent and gets no answer."""
    sent = asyncio.Event()

    async def one() -> None:
        async with gate.admit(RequestContext(LOCAL), request) as admission:
            admission.spent(Usage(calls=1))
            sent.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(one())
    await sent.wait()
    return task


@pytest.mark.parametrize("times", [1, 2, 5])
async def test_what_was_spent_is_settled_when_the_caller_hangs_up_however_often(tmp_path: Path, times: int) -> None:
    stores = SqliteStore(tmp_path / "stores.sqlite3")
    async with gate_on(stores, **DOLLAR) as gate:
        request = tool("write")
        task = await under_way(gate, request)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert (await stores.find_settled([request.id]))[request.id].outcome == "cancelled"
        assert await standing(stores, ALL) == (2 * CENT, 0)
    await stores.close()


async def test_a_call_that_is_cancelled_while_it_is_admitted_holds_nothing(tmp_path: Path) -> None:
    stores = SqliteStore(tmp_path / "stores.sqlite3")
    async with gate_on(stores, **DOLLAR) as gate:
        for turns in range(12):
            task = asyncio.ensure_future(call(gate, tool("read"), calls=0))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert await standing(stores, ALL) == (0, 0)
    await stores.close()


async def test_what_is_under_way_when_the_gate_closes_is_written_first(tmp_path: Path) -> None:
    stores = SqliteStore(tmp_path / "stores.sqlite3")
    request = tool("write")
    gate = make_gate(stores, stores, **DOLLAR)
    await gate.start()
    task = await under_way(gate, request)
    task.cancel()
    await asyncio.sleep(0)
    await gate.aclose()
    assert request.id in await stores.find_settled([request.id])
    await asyncio.gather(task, return_exceptions=True)
    await stores.close()


async def test_a_gate_that_closes_gives_back_at_once_what_it_holds() -> None:
    stores = MemoryStore()
    gate = make_gate(stores, stores, **DOLLAR)
    await gate.start()
    await gate.admit(RequestContext(LOCAL), tool("dear")).__aenter__()
    assert await standing(stores, ALL) == (0, 100 * CENT)
    await gate.aclose()
    assert await standing(stores, ALL) == (0, 0)


async def test_calls_inside_an_execution_are_written_with_it_and_cost_what_they_cost() -> None:
    stores = MemoryStore()
    settings: dict[str, Any] = {
        "budgets": [{"id": "writes", "when": {"tool": "write"}, "limit_usd": 1}],
        "rate_limits": [{"id": "mine", "requests": 100, "window": "1h"}],
    }
    async with gate_on(stores, **settings, second="0.5") as gate:
        outer = Request("execution", id="rq_outer", estimate=Usage(seconds=10))
        async with gate.admit(RequestContext(LOCAL), outer) as execution:
            await call(gate, tool("free", id="rq_free", parent_id=outer.id), inside=execution)
            await call(gate, tool("write", id="rq_write", parent_id=outer.id), inside=execution)
            found = await entries(stores)
            assert set(found) == {"rq_write"}, "what costs is written at once, the rest with the execution"
            execution.spent(Usage(seconds=1.5))
        assert execution.total == 2 * CENT + 75 * CENT
        found = await entries(stores)
        assert {id: (one.cost, one.parent_id) for id, one in found.items()} == {
            "rq_outer": (75 * CENT, None),
            "rq_write": (2 * CENT, "rq_outer"),
            "rq_free": (0, "rq_outer"),
        }
        assert await standing(stores, "mine|requests|") == (1, 0), (
            "calls from inside are no requests of the caller's own"
        )
        await call(gate, tool("free", id="rq_late", parent_id=outer.id), inside=execution)
        await gate.flush()
        assert "rq_late" in await entries(stores), "a call that outlives its execution is written too"


async def test_an_attempt_that_joins_its_chat_is_held_until_both_are_written_in_one_step() -> None:
    class Watched(MemoryStore):
        async def settle(self, settlements: Sequence[Settlement]) -> None:
            steps.append([settlement.entry.id for settlement in settlements])
            await super().settle(settlements)

    steps: list[list[str]] = []
    stores = Watched()
    settings: dict[str, Any] = {
        "budgets": [{"id": "all", "limit_usd": 1}],
        "rate_limits": [{"id": "mine", "requests": 100, "window": "1h"}],
    }
    async with gate_on(stores, **settings) as gate:
        chat = Request("chat", model="fast", id="rq_chat")
        async with gate.admit(RequestContext(LOCAL), chat) as whole:
            assert [share.claim.measure for share in whole.shares] == ["requests"], "its attempts take the money"
            attempt = Request("chat", provider="p", model="m", id="rq_attempt", parent_id=chat.id)
            async with gate.admit(RequestContext(LOCAL, parent=whole), attempt) as admission:
                admission.cost = 3 * CENT
                admission.joins = True
            assert steps == [] and whole.total == 3 * CENT
        assert steps == [["rq_attempt", "rq_chat"]]
        assert await standing(stores, ALL) == (3 * CENT, 0)
        assert await standing(stores, "mine|requests|") == (1, 0)


# --- soft limits, metadata, keys


async def test_a_soft_limit_warns_once_per_window_and_refuses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    clock, metrics = Clock(), Metrics()
    budget = {"id": "all", "limit_usd": 1, "soft_limit_usd": "0.02", "period": "1h", "calendar": True}
    async with gate_on(MemoryStore(), clock, budgets=[budget], metrics=metrics) as gate:
        with caplog.at_level(logging.WARNING, "mcpgate.governance"):
            for _ in range(2):
                await call(gate, tool(at=clock()))
            assert not caplog.records
            async with gate.admit(RequestContext(LOCAL), tool(at=clock())) as admission:
                (text,) = admission.warnings
            for part in ("'all'", "$0.03", "soft limit of $0.02"):
                assert part in text
            await call(gate, tool(at=clock()))
            assert len(caplog.records) == 1
            clock.now += 3600
            for _ in range(4):
                await call(gate, tool(at=clock()))
            assert len(caplog.records) == 2
    assert metric(metrics, "soft_limit_warnings_total") == 3 + 1


async def create_key(stores: Any, id: str, secret: str, until: float | None = None, **spec: Any) -> None:
    digests = [(digest_of(secret), until)]
    value = to_record(KeySpec.model_validate(spec), digests, secret[-4:], NOW)
    await stores.change(Change("key", id, value, "local", "change", NOW, digests))


async def test_a_key_must_send_the_metadata_that_is_required() -> None:
    stores = MemoryStore()
    await create_key(stores, "vk_1", "mg-secret-1")
    async with gate_on(stores, required_metadata=["project_id", "env"]) as gate:
        with pytest.raises(InvalidRequest, match="'env' is required.*x-mcpgate-metadata"):
            await gate.identify("mg-secret-1", key_required=True, metadata={"project_id": "p", "env": ""})
        caller = await gate.identify("mg-secret-1", key_required=True, metadata={"project_id": "p", "env": "dev"})
        assert caller.metadata == {"project_id": "p", "env": "dev"}


async def test_a_key_that_moves_to_another_team_counts_for_that_team_from_then_on() -> None:
    stores = MemoryStore()
    await create_key(stores, "vk_1", "mg-secret-1", team="old", customer="c1", name="n1")
    budgets = [
        {"id": "team", "per": "team", "limit_usd": 1},
        {"id": "customer", "per": "customer", "limit_usd": 1},
        {"id": "named", "when": {"key": "n2"}, "limit_usd": 1},
    ]
    async with gate_on(stores, budgets=budgets) as gate:
        await call(gate, caller=await gate.identify("mg-secret-1", key_required=True))
        await create_key(stores, "vk_1", "mg-secret-1", team="new", customer="c2", name="n2")
        await call(gate, caller=await gate.identify("mg-secret-1", key_required=True))
    for counter in ("team|cost|old", "team|cost|new", "customer|cost|c1", "customer|cost|c2", "named|cost|"):
        assert await standing(stores, counter) == (CENT, 0), counter


# --- the configuration changes


async def test_a_new_configuration_governs_new_calls_and_those_under_way_end_under_the_old_one() -> None:
    stores = MemoryStore()
    async with gate_on(stores, **DOLLAR) as gate:
        async with gate.admit(RequestContext(LOCAL), tool("dear")) as old:
            edited = {"budgets": [{"id": "other", "limit_usd": "0.01"}]}
            await gate.reload(GovernanceConfig.model_validate(edited), prices({"read": "0.01"}))
            await call(gate)
            assert isinstance(await refusal_of(gate), BudgetExceeded)
            old.spent(Usage(calls=1))
        assert (await standing(stores, ALL))[1] == 0, "what was held under the old rules is let go of"
        assert await standing(stores, "other|cost|") == (CENT, 0)


class Slow(MemoryStore):
    """Reads of records take until they are let through."""

    def __init__(self) -> None:
        super().__init__()
        self.reading, self.through = asyncio.Event(), asyncio.Event()
        self.through.set()

    async def list_records(self, *place: Any, **more: Any) -> Any:
        self.reading.set()
        await self.through.wait()
        return await super().list_records(*place, **more)


async def test_what_was_declared_at_run_time_applies_while_a_new_configuration_is_loaded() -> None:
    stores = Slow()
    await stores.change(Change("budget", "nothing", {"id": "nothing", "limit_usd": "0"}, "local", "create", NOW))
    async with gate_on(stores) as gate:
        assert isinstance(await refusal_of(gate), BudgetExceeded)
        stores.through.clear()
        stores.reading.clear()
        taking_over = asyncio.ensure_future(gate.reload(GovernanceConfig(), prices()))
        await stores.reading.wait()
        assert isinstance(await refusal_of(gate), BudgetExceeded)
        stores.through.set()
        await taking_over
        assert isinstance(await refusal_of(gate), BudgetExceeded)


async def test_calls_go_on_while_the_configuration_is_edited_again_and_again() -> None:
    stores = MemoryStore()
    async with gate_on(stores, **DOLLAR, hold_wait_s=0) as gate:
        done = 0

        async def caller() -> None:
            nonlocal done
            for _ in range(50):
                await call(gate)
                await asyncio.sleep(0)
                done += 1

        async def editor() -> None:
            for n in range(50):
                config = {"budgets": [{"id": "all", "limit_usd": 100 + n}], "hold_wait_s": 0}
                await gate.reload(GovernanceConfig.model_validate(config), prices())
                await asyncio.sleep(0)

        await gate.reload(GovernanceConfig.model_validate({"budgets": [{"id": "all", "limit_usd": 100}]}), prices())
        await asyncio.gather(*(caller() for _ in range(10)), editor())
        assert done == 500
        assert await standing(stores, ALL) == (500 * CENT, 0)


# --- the store is away


class Flaky(MemoryStore):
    """A store that can be away. `lost` answers are those of what was done and not heard of."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.lose: set[str] = set()
        self.slow = False
        """A reservation is made, and its answer takes for ever."""
        self.settling: asyncio.Event | None = None
        """Set when settling began; then it takes for ever."""

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable("gone fishing")

    def _answered(self, what: str) -> None:
        if what in self.lose:
            self.lose.discard(what)
            raise StoreUnavailable("the line broke")

    async def reserve(self, reservation: Reservation) -> tuple[Balance, ...] | Refusal:
        self._check()
        answer = await super().reserve(reservation)
        if self.slow:
            await asyncio.Event().wait()
        self._answered("reserve")
        return answer

    async def settle(self, settlements: Any) -> None:
        if self.settling is not None:
            self.settling.set()
            await asyncio.Event().wait()
        self._check()
        await super().settle(settlements)
        self._answered("settle")

    async def release(self, reservation: Reservation) -> None:
        self._check()
        await super().release(reservation)

    async def renew(self, owner: str, until: float) -> None:
        self._check()
        await super().renew(owner, until)

    async def expire(self, now: float) -> int:
        self._check()
        return await super().expire(now)

    async def find_key(self, digest: str) -> Any:
        self._check()
        return await super().find_key(digest)


async def test_the_log_says_how_many_entries_are_lost_when_the_store_is_away_for_too_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mcpgate.governance.journal._MAX_UNWRITTEN", 3)
    stores = Flaky()
    async with gate_on(stores) as gate:
        stores.away = True
        for _ in range(5):
            await call(gate, tool("free"))
        await gate.flush()
        stores.away = False
    assert "unavailable for too long: 2 entries are lost" in caplog.text
    assert len(await entries(stores)) == 3


def test_while_the_store_is_unavailable_nothing_is_admitted_or_counted_and_it_recovers_by_itself() -> None:
    async def work(clock: Callable[[], float]) -> None:
        stores, metrics = Flaky(), Metrics()
        await create_key(stores, "vk_1", "mg-secret-1")
        async with gate_on(stores, clock, **DOLLAR, metrics=metrics) as gate:
            await call(gate)
            stores.away = True
            for _ in range(3):
                error = await refusal_of(gate)
                assert isinstance(error, Unavailable) and error.http_status == 503
            with pytest.raises(Unavailable):
                await gate.identify("mg-secret-1", key_required=True)
            assert metric(metrics, "store_failures_total") >= 1
            stores.away = False
            await asyncio.sleep(2.5)
            assert (await gate.identify("mg-secret-1", key_required=True)).id == "vk_1"
            await call(gate)
        assert await standing(stores, ALL) == (2 * CENT, 0)
        assert len(await entries(stores)) == 2

    in_virtual_time(work)


def test_what_is_refused_while_the_store_is_unavailable_takes_no_place_of_what_is_to_be_written() -> None:
    async def work(clock: Callable[[], float]) -> None:
        stores = Flaky()
        async with gate_on(stores, clock, **DOLLAR) as gate:
            await call(gate)
            stores.away = True
            for _ in range(5):
                assert isinstance(await refusal_of(gate), Unavailable)
            stores.away = False
            await asyncio.sleep(2.5)
            await call(gate)
        assert await MemoryRequests(stores).newest() == 2

    in_virtual_time(work)


def test_if_allowed_calls_continue_while_the_store_is_unavailable_and_are_counted_once_when_it_is_back() -> None:
    async def work(clock: Callable[[], float]) -> None:
        stores, metrics = Flaky(), Metrics()
        await create_key(stores, "vk_1", "mg-secret-1")
        async with gate_on(stores, clock, **DOLLAR, when_store_is_away="allow", metrics=metrics) as gate:
            await gate.identify("mg-secret-1", key_required=True)
            stores.away = True
            for _ in range(3):
                await call(gate)
            assert (await gate.identify("mg-secret-1", key_required=True)).id == "vk_1"
            assert metric(metrics, "uncounted_total") == 3
            stores.away = False
            stores.lose.add("settle")  # and the first answer is lost
            await asyncio.sleep(5)
            assert await standing(stores, ALL) == (3 * CENT, 0)
            assert len(await entries(stores)) == 3
            await call(gate)
        assert await standing(stores, ALL) == (4 * CENT, 0)

    in_virtual_time(work)


def test_what_was_done_when_the_store_became_unavailable_is_reported_and_written_once_when_it_is_back() -> None:
    async def work(clock: Callable[[], float]) -> None:
        stores = Flaky()
        async with gate_on(stores, clock, **DOLLAR) as gate:
            with pytest.raises(Unavailable, match="the call succeeded"):
                async with gate.admit(RequestContext(LOCAL), tool("write", id="rq_1")) as admission:
                    admission.spent(Usage(calls=1))
                    stores.away = True
            assert await entries(stores) == {}
            stores.away = False
            await asyncio.sleep(2.5)
            assert set(await entries(stores)) == {"rq_1"}
            assert await standing(stores, ALL) == (2 * CENT, 0)

    in_virtual_time(work)


def test_what_waits_to_be_written_is_not_lost_when_the_gate_closes_in_the_middle_of_it() -> None:
    async def work(clock: Callable[[], float]) -> None:
        stores = Flaky()
        gate = make_gate(stores, stores, clock, **DOLLAR)
        await gate.start()
        with pytest.raises(Unavailable):
            async with gate.admit(RequestContext(LOCAL), tool("write", id="rq_1")) as admission:
                admission.spent(Usage(calls=1))
                stores.away = True
        stores.away, stores.settling = False, asyncio.Event()
        await stores.settling.wait()  # the gate writes again, and there is no answer yet
        closing = asyncio.ensure_future(gate.aclose())
        stores.settling = None
        await closing
        assert set(await entries(stores)) == {"rq_1"}

    in_virtual_time(work)


def test_a_reservation_whose_answer_was_lost_is_given_back_when_the_store_is_there_again() -> None:
    async def work(clock: Callable[[], float]) -> None:
        stores = Flaky()
        async with gate_on(stores, clock, **DOLLAR) as gate:
            stores.lose.add("reserve")
            assert isinstance(await refusal_of(gate, tool("dear")), Unavailable)
            await asyncio.sleep(5)
            assert await standing(stores, ALL) == (0, 0)
            await call(gate, tool("dear"))

    in_virtual_time(work)


def test_a_release_that_did_not_reach_the_store_is_made_when_it_is_there_again() -> None:
    async def work(clock: Callable[[], float]) -> None:
        stores = Flaky()
        async with gate_on(stores, clock, **DOLLAR) as gate:
            stores.slow = True
            task = asyncio.ensure_future(call(gate, tool("dear")))
            await asyncio.sleep(0.1)
            assert await standing(stores, ALL) == (0, 100 * CENT)
            stores.away = True
            task.cancel()  # it is held, and nobody has heard of it
            await asyncio.sleep(3)
            assert task.cancelled()
            assert await standing(stores, ALL) == (0, 100 * CENT)
            stores.away = stores.slow = False
            await asyncio.sleep(2.5)
            assert await standing(stores, ALL) == (0, 0)

    in_virtual_time(work)


async def test_a_caller_without_rules_is_not_refused_when_the_store_is_unavailable() -> None:
    stores = Flaky()
    async with gate_on(stores) as gate:
        stores.away = True
        await call(gate)
        caller = await gate.identify(None, key_required=False, metadata={"project_id": "p1"})
        await call(gate, caller=caller)
        await call(gate, caller=caller)
        stores.away = False


async def test_sqlite_that_is_locked_is_unavailable_for_all_within_one_wait_and_recovers_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_BUSY_S", 0.2)
    file = tmp_path / "stores.sqlite3"
    stores = SqliteStore(file)
    async with gate_on(stores, **DOLLAR) as gate:
        await call(gate)
        other = sqlite3.connect(file)
        other.execute("BEGIN IMMEDIATE")
        try:
            async with asyncio.timeout(4):
                errors = await asyncio.gather(*(refusal_of(gate) for _ in range(40)))
            assert {type(error) for error in errors} == {Unavailable}
        finally:
            other.rollback()
            other.close()
        async with asyncio.timeout(5):
            while True:
                try:
                    await call(gate)
                    break
                except Unavailable:
                    await asyncio.sleep(0.05)
        assert await standing(stores, ALL) == (2 * CENT, 0)
    await stores.close()


async def test_sqlite_whose_folder_is_not_a_folder_is_unavailable(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "stores.sqlite3"
    stores = SqliteStore(file)
    (tmp_path / "folder").rename(tmp_path / "moved")
    (tmp_path / "folder").write_text("no folder")
    with pytest.raises(StoreUnavailable):
        await stores.list_records("team")
    with pytest.raises(StoreUnavailable):
        SqliteStore(file)
    (tmp_path / "folder").unlink()
    (tmp_path / "moved").rename(tmp_path / "folder")
    assert await stores.list_records("team") == []
    await stores.close()


async def test_a_start_value_is_counted_once_over_restarts_and_resets() -> None:
    stores = MemoryStore()
    budget = {"id": "all", "limit_usd": 1, "start_usd": "0.99"}
    for _ in range(2):
        async with gate_on(stores, budgets=[budget]) as gate:
            assert await standing(stores, ALL) == (99 * CENT, 0)
    async with gate_on(stores, budgets=[budget]) as gate:
        await call(gate)
        assert isinstance(await refusal_of(gate), BudgetExceeded)
        for name in await names_of(stores, ALL):
            await stores.reset(name)
        await call(gate, tool("dear"))
    assert to_usd((await standing(stores, ALL))[0]) == Decimal(1)
