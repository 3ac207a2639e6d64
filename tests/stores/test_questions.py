"""One suite for everything that searches questions: the memory of a process, and PostgreSQL with pgvector."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mcpgate.cache.entry import CacheEntry, CacheUnavailable, Row
from mcpgate.cache.questions import OwnQuestions, Questions
from mcpgate.cache.store import CacheStore, Selection
from mcpgate.stores.cache import MemoryCache
from tests.stores.conftest import PGVECTOR, POSTGRES, needs_server

numpy = pytest.importorskip("numpy")
pytestmark = pytest.mark.anyio
Searched = tuple[CacheStore, Questions]


@asynccontextmanager
async def in_postgres(url: str, processes: int = 1) -> AsyncIterator[list[Searched]]:
    from mcpgate.stores.postgres.cache import PostgresCache
    from mcpgate.stores.postgres.governance import PostgresStore
    from mcpgate.stores.postgres.questions import PostgresQuestions

    schema = f"test_{secrets.token_hex(6)}"
    stores = [await PostgresStore.open(url, schema=schema) for _ in range(processes)]
    try:
        yield [(PostgresCache(one.pool), PostgresQuestions(one.pool)) for one in stores]
    finally:
        async with stores[0].pool.acquire() as db:
            await db.execute(f'SET client_min_messages = warning; DROP SCHEMA "{schema}" CASCADE')
        for one in stores:
            await one.close()


@asynccontextmanager
async def in_memory() -> AsyncIterator[list[Searched]]:
    from mcpgate.cache.semantic.index import Index

    async def newer(partition: str, at: float, limit: int) -> Sequence[CacheEntry]:
        return []

    async def run(work: Any) -> Any:
        return work()

    yield [(MemoryCache(1024 * 1024), OwnQuestions(Index(), newer, lambda entry: None, run))]


@pytest.fixture(params=["memory", "pgvector"])
async def searched(anyio_backend: str, request: pytest.FixtureRequest) -> AsyncIterator[Searched]:
    if request.param == "pgvector":
        needs_server("pgvector")
    async with in_memory() if request.param == "memory" else in_postgres(PGVECTOR) as (one,):
        yield one


def row(id: str, partition: str) -> Row:
    now = time.time()
    return Row(id, "chat", "key:a", "a", "", "", "p", "m", (), partition, now, now + 300, b"value")


def vector(*numbers: float, dimensions: int = 8) -> Any:
    made = numpy.zeros(dimensions, numpy.float32)
    made[: len(numbers)] = numbers
    return made / numpy.linalg.norm(made)


async def put(searched: Searched, id: str, partition: str, at: Any) -> None:
    await searched[0].put(row(id, partition))
    await searched[1].add(id, partition, at)


async def test_the_nearest_of_a_partition_come_first_and_others_never(searched: Searched) -> None:
    await put(searched, "far", "one", vector(0, 1))
    await put(searched, "near", "one", vector(1, 0.1))
    await put(searched, "middle", "one", vector(1, 1))
    await put(searched, "elsewhere", "two", vector(1, 0))
    assert await searched[1].nearest("one", vector(1, 0), 2) == ["near", "middle"]
    assert await searched[1].nearest("one", vector(1, 0), 9) == ["near", "middle", "far"]
    assert await searched[1].nearest("three", vector(1, 0), 9) == []


async def test_a_vector_takes_the_place_of_an_earlier_one(searched: Searched) -> None:
    await put(searched, "a", "one", vector(0, 1))
    await put(searched, "b", "one", vector(1, 1))
    await put(searched, "a", "one", vector(1, 0))
    assert await searched[1].nearest("one", vector(1, 0), 9) == ["a", "b"]


async def test_what_is_removed_is_not_found(searched: Searched) -> None:
    await put(searched, "a", "one", vector(1, 0))
    await searched[1].remove("a")
    await searched[1].remove("b")
    assert await searched[1].nearest("one", vector(1, 0), 9) == []


async def test_a_small_partition_is_found_among_many_near_ones(searched: Searched) -> None:
    random = numpy.random.default_rng(0)
    for number in range(300):
        await put(searched, f"many{number}", "many", vector(1, *random.normal(0, 0.01, 7)))
    for number in range(5):
        await put(searched, f"few{number}", "few", vector(0, 1, number))
    found = await searched[1].nearest("few", vector(1, 0), 5)
    assert sorted(found) == [f"few{number}" for number in range(5)]


# --- in the store


@pytest.fixture
async def two(anyio_backend: str) -> AsyncIterator[list[Searched]]:
    needs_server("pgvector")
    async with in_postgres(PGVECTOR, processes=2) as made:
        yield made


async def test_what_one_process_adds_others_find_at_once(two: list[Searched]) -> None:
    await put(two[0], "a", "one", vector(1, 0))
    assert await two[1][1].nearest("one", vector(1, 0), 9) == ["a"]


async def test_a_question_goes_with_its_entry(two: list[Searched]) -> None:
    (store, questions), (_, others) = two
    await put(two[0], "a", "one", vector(1, 0))
    await store.drop(Selection(id="a"))
    assert await others.nearest("one", vector(1, 0), 9) == []
    await questions.add("a", "one", vector(1, 0))  # late: its entry is gone
    assert await others.nearest("one", vector(1, 0), 9) == []


async def test_vectors_of_several_embedders_stand_side_by_side(two: list[Searched]) -> None:
    await put(two[0], "short", "one", vector(1, 0))
    await put(two[0], "long", "one", vector(1, 0, dimensions=1536))
    await put(two[0], "longest", "one", vector(1, 0, dimensions=5000))
    for id, dimensions in (("short", 8), ("long", 1536), ("longest", 5000)):
        assert await two[1][1].nearest("one", vector(1, 0, dimensions=dimensions), 9) == [id]


async def test_processes_that_begin_at_once_create_the_table_once(two: list[Searched]) -> None:
    for number in range(2):
        await two[0][0].put(row(str(number), "one"))
    await asyncio.gather(*(one.add(str(number), "one", vector(1, 0)) for number, (_, one) in enumerate(two)))
    assert sorted(await two[0][1].nearest("one", vector(1, 0), 9)) == ["0", "1"]


async def test_a_database_without_pgvector_says_what_is_missing() -> None:
    needs_server("postgres")
    async with in_postgres(POSTGRES) as ((_, questions),):
        with pytest.raises(CacheUnavailable, match="CREATE EXTENSION vector SCHEMA public"):
            await questions.nearest("one", vector(1, 0), 5)
