"""One suite that every store of the cache passes."""

import asyncio
import dataclasses
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mcpgate.cache.entry import CacheUnavailable, Row, Unreadable
from mcpgate.cache.store import EVERYTHING, CacheStore, Selection
from mcpgate.stores.cache import MemoryCache
from mcpgate.stores.sqlite.cache import SqliteCache
from tests.stores.conftest import REDIS, needs_server, two_views

pytestmark = pytest.mark.anyio
Pair = tuple[CacheStore, CacheStore]
_MIB = 1024 * 1024


def two_of(kind: str, folder: Path) -> AbstractAsyncContextManager[Pair]:
    """Two processes' views of one store."""
    if kind == "redis":
        return two_in_redis()
    return two_views(kind, folder, lambda: MemoryCache(_MIB), SqliteCache, "cache:PostgresCache")


@asynccontextmanager
async def two_in_redis() -> AsyncIterator[Pair]:
    needs_server("redis")
    from mcpgate.stores.redis.cache import RedisCache

    prefix = f"test_{secrets.token_hex(6)}:"
    a, b = RedisCache(REDIS, prefix), RedisCache(REDIS, prefix)
    yield a, b
    await a.drop(EVERYTHING)
    await a._redis.delete(*[key async for key in a._redis.scan_iter(match=f"{prefix}*")])
    await a.close()
    await b.close()


@pytest.fixture(params=["memory", "sqlite", "postgres", "redis"])
async def pair(anyio_backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pair]:
    async with two_of(request.param, tmp_path) as made:
        yield made


def row(id: str = "a", ago_s: float = 0.0, for_s: float = 300.0, **others: Any) -> Row:
    at = time.time() - ago_s
    values: dict[str, Any] = {
        **{"kind": "chat", "tenant": "team:red", "key": "ci", "server": "", "tool": "", "provider": "openai"},
        **{"model": "gpt-5/mini", "tags": ("v1",), "partition": "", "value": b"\x00\xff value"},
    }
    return Row(id=id, at=at, until=at + for_s, **{**values, **others})


async def ids(store: CacheStore, which: Selection = EVERYTHING) -> list[str]:
    return [one.id for one in await store.page(which)]


async def test_what_is_put_is_found_by_every_process_as_it_was(pair: Pair) -> None:
    one, other = pair
    odd = row("b", tenant="user:é\n'ada'", server="fi'les", tool='a"b', tags=("a", "b"), value=bytes(range(256)) * 9)
    await one.put(row())
    await one.put(odd)
    found = await other.get("b")
    assert found is not None and found.tags == ("a", "b") and found.value == odd.value
    assert dataclasses.replace(found, at=odd.at, until=odd.until) == odd
    assert abs(found.at - odd.at) < 0.001 and abs(found.until - odd.until) < 0.01
    assert await other.get("c") is None


async def test_a_row_takes_the_place_of_an_earlier_one(pair: Pair) -> None:
    one, other = pair
    await one.put(row(server="files", tags=("old",)))
    await one.put(row(value=b"new", tags=("new",)))
    found = await other.get("a")
    assert found is not None and found.value == b"new" and found.tags == ("new",) and found.server == ""
    assert [total.entries for total in await other.totals()] == [1]


@pytest.mark.parametrize(
    ("which", "left"),
    [
        (Selection(id="a"), ["b", "c"]),
        (Selection(key="ci"), ["c"]),
        (Selection(tenant="team:blue"), ["a", "c"]),
        (Selection(tag="v2"), ["a", "c"]),
        (Selection(model="openai/gpt-5/mini"), ["c"]),
        (Selection(model="gpt-5/mini"), ["a", "b", "c"]),
        (Selection(server="files"), ["a", "b"]),
        (Selection(server="files", tool="write"), ["a", "b", "c"]),
        (Selection(kind="tool"), ["a", "b"]),
        (Selection(tenant="team:red", tag="v1"), ["b", "c"]),
        (Selection(tag="' OR 1 = 1 --"), ["a", "b", "c"]),
        (EVERYTHING, []),
    ],
)
async def test_a_drop_takes_what_fits_everything_that_is_given(which: Selection, left: list[str], pair: Pair) -> None:
    one, other = pair
    await one.put(row("a"))
    await one.put(row("b", tenant="team:blue", tags=("v1", "v2")))
    await one.put(row("c", kind="tool", server="files", tool="read", provider="", model="", key="x", tags=()))
    assert await other.drop(which) == 3 - len(left)
    assert await ids(one) == left
    assert [await one.get(id) is not None for id in "abc"] == [id in left for id in "abc"]


async def test_a_drop_by_age_leaves_what_is_younger(pair: Pair) -> None:
    one, _ = pair
    await one.put(row("old", ago_s=100))
    await one.put(row("new"))
    assert await one.drop(Selection(before=time.time() - 50)) == 1
    assert await ids(one) == ["new"]


async def test_a_result_that_was_asked_for_before_its_server_changed_is_not_put(pair: Pair) -> None:
    one, other = pair
    before, others = await one.epoch("files"), await one.epoch("git")
    await other.drop(Selection(server="files"))
    await one.put(row("stale", server="files"), epoch=before)
    await one.put(row("fine", server="git"), epoch=others)
    await one.put(row("fresh", server="files"), epoch=await one.epoch("files"))
    assert await ids(one) == ["fine", "fresh"]


async def test_no_stale_result_survives_whatever_the_order_of_puts_and_drops(pair: Pair) -> None:
    """Each put brings the epoch that it knows; each drop ends it. What is left afterwards belongs to the last epoch."""
    one, other = pair

    async def put(number: int) -> None:
        epoch = await one.epoch("files")
        await asyncio.sleep(0)
        await one.put(row(f"{number:03}", server="files", value=str(epoch).encode()), epoch=epoch)

    async def drop() -> None:
        await other.drop(Selection(server="files"))

    await asyncio.gather(*(put(number) if number % 3 else drop() for number in range(60)))
    last = await one.epoch("files")
    assert {one.value for one in await one.page(EVERYTHING)} <= {str(last).encode()}


async def test_epochs_tell_of_drops_in_other_processes(pair: Pair) -> None:
    one, other = pair
    before = await one.epoch()
    await other.drop(Selection(tag="x"))
    assert await one.epoch() > before
    again = await one.epoch()
    await other.drop(Selection(server="files"))
    assert await one.epoch() == again


async def test_pages_come_in_order(pair: Pair) -> None:
    one, _ = pair
    for id in ("d", "b", "a", "c"):
        await one.put(row(id, tenant="team:red" if id != "b" else "team:blue"))
    assert [one.id for one in await one.page(EVERYTHING, limit=3)] == ["a", "b", "c"]
    assert [one.id for one in await one.page(EVERYTHING, after="b")] == ["c", "d"]
    assert await ids(one, Selection(tenant="team:red")) == ["a", "c", "d"]


async def test_rows_of_a_partition_come_from_a_moment_on(pair: Pair) -> None:
    one, other = pair
    for number in range(5):
        await one.put(row(f"n{number}", ago_s=50 - number, partition="p" if number != 2 else "q"))
    await one.put(row("z"))
    rows = await other.newer("p", 0)
    assert [one.id for one in rows] == ["n0", "n1", "n3", "n4"]
    assert [one.id for one in await other.newer("p", rows[2].at)] == ["n3", "n4"]
    assert [one.id for one in await other.newer("p", 0, limit=1)] == ["n0"]
    await other.drop(Selection(id="n1"))
    assert [one.id for one in await one.newer("p", 0)] == ["n0", "n3", "n4"]
    assert await one.newer("", 0) == [] and await one.newer("r", 0) == []


async def test_tidying_deletes_what_is_over_and_what_is_too_much(pair: Pair) -> None:
    one, _ = pair
    await one.put(row("over", ago_s=10, for_s=5))
    for number in range(4):
        await one.put(row(f"n{number}", ago_s=100 - number, value=b"x" * 1000))
    total = sum(one.bytes for one in await one.totals())
    if isinstance(one, MemoryCache):
        assert await one.tidy(time.time(), total) == 1
        assert await ids(one) == ["n0", "n1", "n2", "n3"]
        return
    assert await one.tidy(time.time(), 2600) >= 3
    assert await ids(one) == ["n2", "n3"]


async def spoil(store: CacheStore, id: str) -> None:
    """Write nonsense into what a store selects by."""
    if isinstance(store, SqliteCache):
        with sqlite3.connect(store._tables._path) as db:
            db.execute("UPDATE cache_entries SET tags = '[broken', at = 'soon', size = 'big' WHERE id = ?", (id,))
    else:
        await store._redis.hset(store._key(id), mapping={"tags": "[broken", "at": "soon", "model": b"\xff"})  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_a_damaged_row_is_no_row_and_stands_in_nobodys_way(kind: str, tmp_path: Path) -> None:
    async with two_of(kind, tmp_path) as (store, _):
        for id in "abc":
            await store.put(row(id, server="files", partition="p"))
        await spoil(store, "b")
        with pytest.raises(Unreadable):
            await store.get("b")
        assert await ids(store) == ["a", "c"]
        assert [one.id for one in await store.newer("p", 0)] == ["a", "c"]
        assert len(await store.totals()) == 1
        await store.tidy(time.time(), _MIB)
        await store.drop(Selection(server="files"))
        assert await store.get("a") is None and await store.get("c") is None
        await store.put(row("b"))
        assert await store.get("b") is not None


async def test_a_row_that_is_put_while_its_server_is_dropped_is_found_by_the_next_drop() -> None:
    async with two_of("redis", Path()) as (one, other):
        await one.put(row("a", server="files"))
        facts = one._facts  # type: ignore[attr-defined]

        async def slow_facts(some: Any) -> Any:
            found = await facts(some)
            await other._redis.delete(other._key("a"))  # type: ignore[attr-defined]
            await other.put(row("a", server="files"), await other.epoch("files"))
            return found

        one._facts = slow_facts  # type: ignore[attr-defined]
        await one.drop(Selection(server="files"))
        one._facts = facts  # type: ignore[attr-defined]
        await one.drop(Selection(server="files"))
        assert await other.get("a") is None


async def test_redis_forgets_the_ids_of_what_is_over() -> None:
    async with two_of("redis", Path()) as (store, _):
        for number in range(5):
            await store.put(row(str(number), server="files", ago_s=100, for_s=50))
        await store.put(row("last", server="files"))
        kept = await store._redis.zrange(store._server_key("files"), 0, -1)  # type: ignore[attr-defined]
        assert kept == [b"last"]
        assert 0 < await store._redis.ttl(store._server_key("files")) <= 300  # type: ignore[attr-defined]


async def test_memory_keeps_no_more_bytes_than_it_may() -> None:
    store = MemoryCache(5000)
    for number in range(10):
        await store.put(row(str(number), value=b"x" * 1000))
        await store.get("0")
    assert sum(one.bytes for one in await store.totals()) <= 5000
    assert await store.get("0") is not None and await store.get("9") is not None and await store.get("1") is None


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_a_store_that_is_away_says_so(kind: str, tmp_path: Path) -> None:
    store: CacheStore
    if kind == "sqlite":
        (tmp_path / "no-folder").write_text("a file")
        store = SqliteCache(tmp_path / "no-folder" / "cache.sqlite3")
    else:
        needs_server("redis")
        from mcpgate.stores.redis.cache import RedisCache

        store = RedisCache("redis://127.0.0.1:1/0")
    for work in (store.get("a"), store.put(row()), store.drop(EVERYTHING), store.epoch(), store.totals()):
        with pytest.raises(CacheUnavailable):
            await work
    await store.close()


async def test_a_file_without_its_table_is_away_not_broken(tmp_path: Path) -> None:
    store = SqliteCache(tmp_path / "cache.sqlite3")
    await store.put(row())
    db = sqlite3.connect(tmp_path / "cache.sqlite3")
    db.execute("DROP TABLE cache_entries")
    db.close()
    with pytest.raises(CacheUnavailable):
        await store.get("a")
    await store.close()
