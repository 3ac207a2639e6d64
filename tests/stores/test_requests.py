"""The request log of every store: found by any of its values, before and after entries are in the index."""

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from mcpgate.activity.log import RequestLog
from mcpgate.activity.requests import NEWEST, Requests, Wanted
from mcpgate.config.governance import GovernanceConfig
from mcpgate.governance.policy import Policy
from mcpgate.governance.records import Entry
from mcpgate.governance.store import Settlement, Store
from mcpgate.lifecycle import GovernanceStores
from mcpgate.stores.memory import MemoryStore
from mcpgate.stores.requests import MemoryRequests
from mcpgate.stores.sqlite.governance import SqliteStore
from mcpgate.stores.sqlite.requests import SqliteRequests
from tests.stores.conftest import NOW, Place
from tests.stores.conftest import entry as make_entry

pytestmark = pytest.mark.anyio
ALL = Wanted(nested=True)


def requests_of(place: Place, store: Store) -> Requests:
    if isinstance(store, MemoryStore):
        return MemoryRequests(store)
    if isinstance(store, SqliteStore):
        return SqliteRequests(Path(place.path))
    from mcpgate.stores.postgres.requests import PostgresRequests

    return PostgresRequests(store.pool)  # type: ignore[attr-defined]


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[tuple[GovernanceStores, Requests]]:
    async with place.open() as stores:
        requests = requests_of(place, stores.store)
        try:
            yield stores, requests
        finally:
            await requests.close()


async def write(stores: GovernanceStores, *entries: Entry) -> None:
    await stores.counters.settle([Settlement(entry) for entry in entries])


async def ids(requests: Requests, wanted: Wanted, most: int = 1000) -> list[str]:
    """In pages, as the log reads them."""
    found: list[str] = []
    rest: int | None = NEWEST
    while rest is not None:
        page, rest = await requests.scan(wanted, rest, most)
        found += [entry.id for _, entry in page]
    return found


async def index_all(requests: Requests) -> None:
    while await requests.index():
        pass


def wanted(**where: str) -> Wanted:
    return Wanted(tuple((name.replace("__", "."), value) for name, value in where.items()), nested=True)


ENTRIES = [
    make_entry("rq_1", key="ada", tool="add", server="raw", team="search", at=NOW),
    make_entry("rq_2", key="ada", tool="add", server="raw", outcome="tool_error", at=NOW + 1),
    make_entry("rq_3", key="bob", tool="execute_code", server=None, at=NOW + 2, metadata={"env": "d\"e'v\\"}),
    make_entry("rq_4", key="bob", tool="add", server="raw", parent_id="rq_3", at=NOW + 3, latency_ms=5000.0),
    make_entry("rq_5", key="bob", tool="add", server="raw", facts={"request": "ff00", "cache": "miss"}, at=NOW + 4),
]


@pytest.mark.parametrize("indexed", ["none", "some", "all"])
async def test_entries_are_found_by_each_of_their_values_whether_they_are_in_the_index_or_not(
    place: Place, indexed: str
) -> None:
    async with opened(place) as (stores, requests):
        await write(stores, *ENTRIES[:3])
        if indexed != "none":
            await index_all(requests)
        await write(stores, *ENTRIES[3:])
        if indexed == "all":
            await index_all(requests)
        for looked_for, found in (
            (ALL, "54321"),
            (Wanted(), "5321"),
            (wanted(key="ada"), "21"),
            (wanted(key="ada", failed="true"), "2"),
            (wanted(failed="false", server="raw"), "541"),
            (wanted(team="search"), "1"),
            (wanted(metadata__env="d\"e'v\\"), "3"),
            (wanted(metadata__none="x"), ""),
            (wanted(parent="rq_3"), "4"),
            (wanted(request="ff00"), "5"),
            (wanted(cache="miss"), "5"),
            (wanted(key="carol"), ""),
            (dataclasses.replace(ALL, min_latency_ms=4000.0), "4"),
            (dataclasses.replace(ALL, since=NOW + 1, until=NOW + 3), "32"),
            (dataclasses.replace(wanted(key="bob"), since=NOW + 3), "54"),
        ):
            for most in (1, 2, 1000):
                assert await ids(requests, looked_for, most) == [f"rq_{number}" for number in found], looked_for


async def test_new_entries_come_after_those_that_are_known(place: Place) -> None:
    async with opened(place) as (stores, requests):
        await write(stores, *ENTRIES[:2])
        newest = await requests.newest()
        await write(stores, *ENTRIES[2:])
        found = await requests.after(ALL, newest, [], 100)
        assert [entry.id for _, entry in found] == ["rq_3", "rq_4", "rq_5"]
        if not requests.in_order:
            rest = await requests.after(ALL, newest, [found[0][0]], 100)
            assert rest == found[1:]
        assert [entry.id for _, entry in await requests.after(wanted(key="bob", parent="rq_3"), newest, [], 9)] == [
            "rq_4"
        ]


async def test_children_and_their_sums_are_those_of_their_parents(place: Place) -> None:
    async with opened(place) as (stores, requests):
        await write(stores, *ENTRIES)
        assert [entry.id for entry in await requests.children(["rq_3", "rq_1"], 10)] == ["rq_4"]
        totals = await requests.totals(["rq_3", "rq_1"])
        assert set(totals) == {"rq_3"} and totals["rq_3"].number == 1
        entry = await requests.find("rq_4")
        assert entry is not None and (entry.parent_id, entry.latency_ms) == ("rq_3", 5000.0)
        assert await requests.find("rq_0") is None


async def test_what_is_deleted_leaves_the_index_and_what_stays_is_found(place: Place) -> None:
    if place.kind == "memory":
        pytest.skip("memory forgets no entry")
    async with opened(place) as (stores, requests):
        old = [make_entry(f"rq_old{number}", key="ada", at=NOW - 7200 + number) for number in range(20)]
        await write(stores, *old)
        await index_all(requests)
        await write(stores, *ENTRIES)
        rolled = 0
        with anyio.fail_after(30):
            while rolled < 25:  # on PostgreSQL, entries wait for older transactions of others
                rolled += await stores.store.roll_up()
        assert await stores.store.prune(NOW - 10) == 20
        await index_all(requests)
        assert await ids(requests, wanted(key="ada")) == ["rq_2", "rq_1"]
        assert await ids(requests, ALL, 1) == [f"rq_{number}" for number in "54321"]


async def test_several_processes_add_each_entry_to_the_index_once(shared_place: Place) -> None:
    async with opened(shared_place) as (stores, first), opened(shared_place) as (_, second):
        entries = [make_entry(f"rq_{number:04}", key="ada", at=NOW + number) for number in range(1500)]
        await write(stores, *entries)
        counts: list[int] = []

        async def index(requests: Requests) -> None:
            while sum(counts) < 1500:  # on PostgreSQL, entries wait for older transactions of others
                counts.append(await requests.index())

        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(index, first)
                group.start_soon(index, second)
        assert sum(counts) == 1500
        assert await ids(first, wanted(key="ada"), 400) == [entry.id for entry in reversed(entries)]


async def test_whoever_follows_the_log_gets_every_entry_once(shared_place: Place) -> None:
    async with opened(shared_place) as (stores, requests):
        log = RequestLog(requests, stores.store, lambda: Policy(GovernanceConfig()))
        told: list[str] = []
        with anyio.fail_after(20):
            number = 0
            async for group in log.follow(Wanted(), await log.newest()):
                told += [one["id"] for one in group]
                if len(told) == 300:
                    break
                if number < 300:
                    await write(stores, *[make_entry(f"rq_{number + more:03}", at=NOW) for more in range(50)])
                    number += 50
        assert told == [f"rq_{number:03}" for number in range(300)]


async def test_what_was_refused_is_below_its_request_and_in_none_of_its_sums(place: Place) -> None:
    parent = make_entry("whole", kind="execution")
    made = make_entry("made", parent_id="whole", cost=5)
    refused = make_entry("refused", parent_id="whole", cost=0, outcome="rate_limited", facts={"refused": "pace"})
    async with opened(place) as (stores, requests):
        await write(stores, made, refused, parent)
        assert (await requests.totals(["whole"]))["whole"][:3] == (1, 0, 5)
        assert {one.id for one in await requests.children(["whole"], 10)} == {"made", "refused"}
        assert await ids(requests, Wanted((("refused", "pace"),), nested=True)) == ["refused"]


async def test_what_was_written_late_is_found_in_its_own_time(place: Place) -> None:
    day = 86_400.0
    times = {"old": -3 * day, "early": -0.5 * day, "after": 0.5 * day, "late": -0.2 * day, "last": 2 * day}
    async with opened(place) as (stores, requests):
        for id, at in times.items():
            await write(stores, make_entry(id, NOW + at))
        assert await ids(requests, Wanted(until=NOW)) == ["late", "early", "old"]
        assert await ids(requests, Wanted(until=NOW), most=1) == ["late", "early", "old"]
        assert await ids(requests, Wanted(since=NOW - 0.3 * day, until=NOW + day)) == ["late", "after"]
        assert await ids(requests, Wanted(until=NOW - 2 * day)) == ["old"]
        assert await ids(requests, Wanted(until=NOW - 9 * day)) == []
