"""Schemas: from empty and from every earlier version, by several processes at once, and never backwards."""

import asyncio
import gc
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcpgate.governance.store import Query, StoreUnavailable
from mcpgate.stores.sqlite.file import migrate
from mcpgate.stores.sqlite.governance import SqliteStore
from mcpgate.stores.sqlite.learned import SqliteLearnedStore
from mcpgate.stores.sqlite.schema import MIGRATIONS
from tests.stores.conftest import POSTGRES, PROCESSES, Place, claim, make_place, reservation, settlement

pytestmark = pytest.mark.anyio
TALLIES = [
    *(("2026-01-31", "requests", 7), ("2026-01-31", "executions", 4), ("2026-01-31", "failed_executions", 1)),
    *(("2026-01-31", "tool_calls", 12), ("2026-01-31", "definition_tokens_saved", 5000)),
    *(("2026-01-31", "result_tokens_saved", -30), ("2026-02-01", "requests", 3), ("2026-02-01", "tool_calls", 2)),
]


def shape(db: sqlite3.Connection) -> set[tuple[str, str]]:
    """Tables and indexes, as they were declared."""
    return set(db.execute("SELECT name, COALESCE(sql, '') FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"))


def file_of_version(path: Path, version: int) -> sqlite3.Connection:
    db = sqlite3.connect(path)
    migrate(db, MIGRATIONS[:version])
    return db


async def use(stores: Any) -> None:
    """Every table is there."""
    held = claim()
    await stores.renew("me", 9e9)
    await stores.reserve(reservation("r1", held))
    await stores.settle([settlement("r1", held)])
    await stores.roll_up()
    await stores.expire(0.0)
    assert set(await stores.find_settled(["r1"])) == {"r1"}
    await stores.close()


@pytest.mark.parametrize("version", range(len(MIGRATIONS) + 1))
async def test_a_file_of_every_version_becomes_what_a_new_one_is(tmp_path: Path, version: int) -> None:
    file_of_version(tmp_path / "old.sqlite3", version).close()
    await use(SqliteStore(tmp_path / "old.sqlite3"))
    await use(SqliteStore(tmp_path / "new.sqlite3"))
    shapes = []
    for name in ("old", "new"):
        db = sqlite3.connect(tmp_path / f"{name}.sqlite3")
        shapes.append(shape(db))
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        db.close()
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS) + 1))
def test_what_was_learned_is_there_after_a_migration(tmp_path: Path, version: int) -> None:
    db = file_of_version(tmp_path / "old.sqlite3", version)
    db.execute("INSERT INTO kept VALUES ('shape', 'files.read', x'01', 0)")
    db.commit()
    db.close()
    store = SqliteLearnedStore(tmp_path / "old.sqlite3")
    assert store.load("shape") == {"files.read": b"\x01"}
    store.close()


async def test_sums_by_the_day_of_version_2_are_in_the_reports(tmp_path: Path) -> None:
    db = file_of_version(tmp_path / "old.sqlite3", 2)
    db.executemany("INSERT INTO tallies VALUES (?, ?, ?)", TALLIES)
    db.commit()
    db.close()
    stores = SqliteStore(tmp_path / "old.sqlite3")
    rows = await stores.report(Query(0, 9e9, by=("day",)))
    await stores.settle([settlement("r1", at=1_769_860_800.0)])
    (whole,) = await stores.report(Query(0, 9e9))
    await stores.close()
    found = {row["day"]: {name: row[name] for name in row if row[name] and name != "day"} for row in rows}
    assert found == {
        "2026-01-31": {
            **{"entries": 7, "requests": 7, "executions": 4, "failed": 1, "tool_calls": 12},
            **{"definition_tokens_saved": 5000, "result_tokens_saved": -30},
        },
        "2026-02-01": {"entries": 3, "requests": 3, "tool_calls": 2},
    }
    assert (whole["requests"], whole["cost"]) == (11, 0), "new entries are added to them"


async def test_a_file_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "new.sqlite3"
    db = file_of_version(path, len(MIGRATIONS))
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = shape(db)
    with pytest.raises(StoreUnavailable, match="newer mcpgate"):
        SqliteStore(path)
    assert shape(db) == before
    assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
    db.close()


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    def fails(db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE more (a)")
        raise sqlite3.OperationalError("no more room")

    db = file_of_version(tmp_path / "old.sqlite3", 2)
    before = shape(db)
    with pytest.raises(sqlite3.OperationalError, match="no more room"):
        migrate(db, [*MIGRATIONS, fails])
    assert shape(db) == before
    assert db.execute("PRAGMA user_version").fetchone() == (2,)
    db.close()


def _open(place: Place, line: Any, number: int) -> None:
    async def work() -> None:
        async with place.open() as stores:
            await stores.counters.settle([settlement(f"r{number}", claim(limit=None))])

    line.send("ready")
    line.recv()
    try:
        asyncio.run(work())
        line.send("done")
    except Exception as error:
        line.send(repr(error))


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    made = make_place(request.param, tmp_path)
    yield made
    asyncio.run(made.remove())


@pytest.mark.parametrize("version", [0, 2])
async def test_processes_that_open_a_store_at_once_all_find_it_up_to_date(database: Place, version: int) -> None:
    if version:
        if database.kind != "sqlite":
            pytest.skip("there is one version of the PostgreSQL schema so far")
        file_of_version(Path(database.path), version).close()
    lines, processes = [], []
    for number in range(4):
        ours, theirs = PROCESSES.Pipe()
        process = PROCESSES.Process(target=_open, args=(database, theirs, number), daemon=True)
        process.start()
        theirs.close()
        lines.append(ours)
        processes.append(process)
    try:
        assert [line.recv() for line in lines if line.poll(30)] == ["ready"] * 4
        for line in lines:
            line.send("go")
        assert [line.recv() for line in lines if line.poll(30)] == ["done"] * 4
    finally:
        for process, line in zip(processes, lines, strict=True):
            process.kill()
            process.join()
            line.close()
    async with database.open() as stores:
        assert len(await stores.store.find_settled([f"r{n}" for n in range(4)])) == 4


async def test_a_postgres_schema_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    place = make_place("postgres", tmp_path)
    import asyncpg

    try:
        async with place.open() as stores:
            await stores.counters.settle([settlement("r1", claim())])
        db = await asyncpg.connect(POSTGRES)
        await db.execute(f'INSERT INTO "{place.name}".migrations VALUES (999)')
        await db.close()
        with pytest.raises(StoreUnavailable, match="newer mcpgate"):
            async with place.open():
                pass
        gc.collect()  # a connection that was left open would be noticed here
    finally:
        await place.remove()


async def test_a_postgres_schema_of_every_earlier_version_is_brought_up_to_date(tmp_path: Path) -> None:
    place = make_place("postgres", tmp_path)
    import asyncpg

    from mcpgate.stores.postgres import governance as postgres
    from mcpgate.stores.postgres import schema as postgres_schema

    for version in range(len(postgres_schema.MIGRATIONS) + 1):
        try:
            db = await asyncpg.connect(POSTGRES, server_settings={"search_path": f'"{place.name}"'})
            await postgres.migrate(db, place.name, postgres_schema.MIGRATIONS[:version])
            await db.close()
            await use(await postgres.PostgresStore.open(POSTGRES, schema=place.name))
        finally:
            await place.remove()
