"""Reservations of owners that end before they settle, and requests that hold in two steps: one suite for every store."""

import asyncio
from pathlib import Path

import pytest

from mcpgate.governance.records import Entry, Refusal, Reservation, Saved, Usage
from mcpgate.governance.store import Settlement
from mcpgate.lifecycle import GovernanceStores
from mcpgate.stores.sqlite.governance import SqliteStore
from tests.stores.conftest import NOW, Place, claim, entry, reservation, settlement
from tests.stores.test_contract import EVERYTHING, standing

pytestmark = pytest.mark.anyio
SENT = entry("r1", outcome="unknown", cost=6)
MONEY, ROOM = claim("money", 6, 10), claim("room", 1, 5, measure="concurrency")
RATE = claim("rate", 1, 9, measure="requests")


async def written(stores: GovernanceStores, id: str = "r1") -> Entry | None:
    return (await stores.store.find_settled([id])).get(id)


async def let_run_out(stores: GovernanceStores) -> int:
    """The lease of `me`, which the fixture gave it."""
    return await stores.counters.expire(NOW + 31)


# --- entries


async def test_an_entry_comes_back_with_everything_that_was_written(stores: GovernanceStores) -> None:
    whole = entry(
        "r1",
        cost=None,
        parent_id="rq_outer",
        user="ada",
        team="search",
        customer="acme",
        provider="openai",
        model="gpt-5",
        cache="semantic",
        usage=Usage(1, 2, 3, 4, 5, 6.5, {"reasoning_tokens": 7, "image_tokens": 8}),
        metadata={"project_id": "p1", "env": "ü"},
        saved=Saved(-9, 10),
        timings={"upstream": 1.25, "first_token": 0.5},
        facts={"request": "0011223344556677", "attempts": '[{"target": "openai/gpt-5"}]'},
    )
    await stores.counters.settle([Settlement(whole), Settlement(entry("r2"))])
    assert await written(stores) == whole
    plain = await written(stores, "r2")
    assert plain is not None and (plain.usage.more, plain.timings, plain.facts) == ({}, {}, {})
    ((_, second), (_, first)) = await stores.store.list_entries(EVERYTHING)
    assert (first, second) == (whole, plain)
    assert [one async for one in stores.store.entries(0.0)] == [whole, plain]


async def test_names_and_times_that_a_database_does_not_take_are_written_as_well_as_can_be(
    stores: GovernanceStores,
) -> None:
    if stores.store.name == "memory":  # type: ignore[attr-defined]
        pytest.skip("memory takes everything")
    odd = entry("r1", timings={"good": 1.0, "never": float("inf"), "nothing": float("nan")}, facts={"a\0": "\ud800"})
    await stores.counters.settle([Settlement(odd)])
    found = await written(stores)
    assert found is not None
    assert found.timings == {"good": 1.0} and found.facts == {"a?": "?"}


# --- two steps


async def test_a_request_that_holds_in_two_steps_lets_go_of_both_when_it_is_settled(stores: GovernanceStores) -> None:
    await stores.counters.reserve(reservation("r1", RATE, ROOM))
    await stores.counters.reserve(reservation("r1/cost", MONEY))
    assert (await standing(stores, "rate"), await standing(stores, "money")) == ((0, 1), (0, 6))
    end = Settlement(entry("r1", cost=4), (RATE, ROOM, MONEY), (1, 0, 4), holds=("r1", "r1/cost"))
    await stores.counters.settle([end])
    await stores.counters.settle([end])
    assert [await standing(stores, name) for name in ("rate", "room", "money")] == [(1, 0), (0, 0), (4, 0)]
    assert await let_run_out(stores) == 0, "nothing is left of either"


async def test_settling_lets_go_of_exactly_the_reservations_that_it_names(stores: GovernanceStores) -> None:
    await stores.counters.reserve(reservation("r1", RATE))
    await stores.counters.reserve(reservation("r1/cost", MONEY))
    other = claim("money", 2, 10)
    await stores.counters.reserve(reservation("r2", other))
    await stores.counters.settle([Settlement(entry("r1"), (RATE,), (1,), holds=("r1",))])
    assert (await standing(stores, "rate"), await standing(stores, "money")) == ((1, 0), (0, 8))
    await stores.counters.settle([Settlement(entry("r2"), (other,), (2,))])
    assert await standing(stores, "money") == (2, 8), "what it does not name stays held"
    await stores.counters.settle([Settlement(entry("r3"), holds=("r1/cost", "r2", "nobody"))])
    assert await standing(stores, "money") == (2, 0), "also where nothing is spent"


async def test_a_second_step_that_is_refused_or_released_leaves_the_first_as_it_is(stores: GovernanceStores) -> None:
    await stores.counters.reserve(reservation("r1", RATE))
    second = reservation("r1/cost", claim("money", 11, 10))
    assert isinstance(await stores.counters.reserve(second), Refusal)
    second = reservation("r1/cost", MONEY)
    await stores.counters.reserve(second)
    await stores.counters.release(second)
    assert (await standing(stores, "rate"), await standing(stores, "money")) == ((0, 1), (0, 0))


async def test_a_request_that_is_settled_cannot_hold_money_in_a_second_step(stores: GovernanceStores) -> None:
    await stores.counters.reserve(reservation("r1", RATE))
    await stores.counters.settle([settlement("r1", RATE)])
    assert not isinstance(await stores.counters.reserve(reservation("r1/cost", MONEY)), Refusal)
    assert await standing(stores, "money") == (0, 0)


# --- owners that end


async def test_what_a_dead_owner_had_sent_is_spent_and_in_the_ledger_when_its_lease_has_run_out(
    stores: GovernanceStores,
) -> None:
    await stores.counters.reserve(reservation("r1", MONEY, RATE, ROOM, abandoned=SENT))
    assert await stores.counters.expire(NOW + 29) == 0
    assert await written(stores) is None and await standing(stores, "money") == (0, 6)
    assert await let_run_out(stores) == 1
    assert await written(stores) == SENT
    assert [await standing(stores, name) for name in ("money", "rate", "room")] == [(6, 0), (1, 0), (0, 0)]
    assert await let_run_out(stores) == 0
    assert await standing(stores, "money") == (6, 0)


async def test_what_an_owner_still_holds_when_it_gives_up_its_lease_is_spent_at_once(stores: GovernanceStores) -> None:
    await stores.counters.reserve(reservation("r1", MONEY, abandoned=SENT))
    await stores.counters.renew("me", 0.0)
    assert await stores.counters.expire(NOW) == 1
    assert await written(stores) == SENT and await standing(stores, "money") == (6, 0)


async def test_of_a_request_that_held_in_two_steps_all_is_spent_and_the_entry_is_that_of_the_second(
    stores: GovernanceStores,
) -> None:
    first = SENT._replace(cost=0)
    await stores.counters.reserve(reservation("r1", RATE, ROOM, abandoned=first))
    await stores.counters.reserve(reservation("r1/cost", MONEY, abandoned=SENT))
    await stores.counters.reserve(reservation("r2", RATE, abandoned=first._replace(id="r2")))
    assert await let_run_out(stores) == 3
    assert await written(stores) == SENT
    second = await written(stores, "r2")
    assert second is not None and second.cost == 0
    assert [await standing(stores, name) for name in ("money", "rate", "room")] == [(6, 0), (2, 0), (0, 0)]


async def test_a_step_without_anything_to_write_is_spent_with_the_step_that_has(stores: GovernanceStores) -> None:
    await stores.counters.reserve(reservation("r1", RATE))
    await stores.counters.reserve(reservation("r1/cost", MONEY, abandoned=SENT))
    await stores.counters.reserve(reservation("r2", RATE))
    await let_run_out(stores)
    assert (await standing(stores, "money"), await standing(stores, "rate")) == ((6, 0), (1, 0))
    assert await written(stores, "r2") is None


async def test_a_settlement_that_comes_after_the_owner_seemed_dead_changes_nothing(stores: GovernanceStores) -> None:
    """Its process was stopped for longer than its lease, and goes on."""
    await stores.counters.reserve(reservation("r1", MONEY, RATE, abandoned=SENT))
    await let_run_out(stores)
    late = Settlement(entry("r1", cost=2), (MONEY, RATE), (2, 1), holds=("r1",))
    await stores.counters.settle([late])
    await stores.counters.settle([late])
    assert await written(stores) == SENT
    assert (await standing(stores, "money"), await standing(stores, "rate")) == ((6, 0), (1, 0))


async def test_what_was_settled_is_not_written_again_when_its_owner_dies(stores: GovernanceStores) -> None:
    await stores.counters.reserve(reservation("r1", MONEY, abandoned=SENT))
    await stores.counters.settle([settlement("r1", MONEY, spent=[3])])
    await let_run_out(stores)
    found = await written(stores)
    assert found is not None and (found.outcome, found.cost) == ("ok", 3)
    assert await standing(stores, "money") == (3, 0)


async def test_what_was_released_is_not_spent_when_its_owner_dies(stores: GovernanceStores) -> None:
    one = reservation("r1", MONEY, abandoned=SENT)
    await stores.counters.reserve(one)
    await stores.counters.release(one)
    await let_run_out(stores)
    assert await written(stores) is None and await standing(stores, "money") == (0, 0)


async def test_ends_that_race_with_the_owners_own_count_every_request_once(stores: GovernanceStores) -> None:
    """Ledger and counters agree, whoever was first."""
    names = [f"r{n}" for n in range(30)]
    held = claim("money", 6, None)
    for id in names:
        await stores.counters.reserve(reservation(id, held, abandoned=SENT._replace(id=id)))
    ends = [stores.counters.settle([Settlement(entry(id, cost=2), (held,), (2,), holds=(id,))]) for id in names]
    await asyncio.gather(*(let_run_out(stores) for _ in range(2)), *ends, let_run_out(stores))
    await let_run_out(stores)
    found = await stores.store.find_settled(names)
    assert len(found) == 30
    assert await standing(stores, "money") == (sum(one.cost or 0 for one in found.values()), 0)


async def test_money_that_a_process_held_is_there_for_whoever_opens_the_store_next(place: Place) -> None:
    if place.kind == "memory":
        pytest.skip("memory is forgotten at the end")
    async with place.open() as stores:
        await stores.counters.renew("me", NOW + 30)
        await stores.counters.reserve(reservation("r1", MONEY, abandoned=SENT))
    async with place.open() as stores:
        assert await let_run_out(stores) == 1
        assert await written(stores) == SENT and await standing(stores, "money") == (6, 0)


async def test_a_death_between_ledger_and_counters_is_made_good_by_the_next_who_looks(tmp_path: Path) -> None:
    """In Redis the two are written one after the other."""
    from tests.stores.conftest import make_place

    place = make_place("redis+sqlite", tmp_path)
    try:
        async with place.open() as stores:
            await stores.counters.renew("me", NOW + 30)
            await stores.counters.reserve(reservation("r1", RATE, abandoned=SENT._replace(cost=0)))
            await stores.counters.reserve(reservation("r1/cost", MONEY, abandoned=SENT))
            await stores.store.settle([Settlement(SENT)])  # and there it died
            assert await let_run_out(stores) == 2
            assert (await standing(stores, "money"), await standing(stores, "rate")) == ((6, 0), (1, 0))
    finally:
        await place.remove()


async def test_a_hold_of_money_is_flushed_to_disk_when_it_is_to_be_and_one_without_is_not(tmp_path: Path) -> None:
    stores, seen = SqliteStore(tmp_path / "stores.sqlite3"), []
    run = stores._writer.run

    def watched(work, durable=False):  # type: ignore[no-untyped-def]
        seen.append(durable)
        return run(work, durable)

    stores._writer.run = watched  # type: ignore[method-assign]
    await stores.reserve(Reservation("r1", "me", (RATE,), SENT._replace(id="r1"), flush=True))
    await stores.reserve(Reservation("r2", "me", (MONEY,), SENT._replace(id="r2"), flush=True))
    await stores.reserve(Reservation("r3", "me", (MONEY,), SENT._replace(id="r3")))
    await stores.close()
    assert seen == [False, True, False]
