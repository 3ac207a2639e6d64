"""Schemas: from empty and from every earlier version, by several processes at once, and never backwards."""

import asyncio
import gc
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from mcpgate.governance.store import Query, StoreUnavailable
from mcpgate.stores import rows
from mcpgate.stores.postgres.schema import MIGRATIONS as POSTGRES_MIGRATIONS
from mcpgate.stores.sqlite.file import migrate
from mcpgate.stores.sqlite.governance import SqliteStore
from mcpgate.stores.sqlite.learned import SqliteLearnedStore
from mcpgate.stores.sqlite.schema import MIGRATIONS
from tests.stores.conftest import POSTGRES, PROCESSES, Place, claim, entry, make_place, reservation, settlement

pytestmark = pytest.mark.anyio
TALLIES = [
    *(("2026-01-31", "requests", 7), ("2026-01-31", "executions", 4), ("2026-01-31", "failed_executions", 1)),
    *(("2026-01-31", "tool_calls", 12), ("2026-01-31", "definition_tokens_saved", 5000)),
    *(("2026-01-31", "result_tokens_saved", -30), ("2026-02-01", "requests", 3), ("2026-02-01", "tool_calls", 2)),
]


def shape(db: sqlite3.Connection) -> set[tuple[str, str]]:
    """Tables and indexes, as declared."""
    return set(db.execute("SELECT name, COALESCE(sql, '') FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"))


def file_of_version(path: Path, version: int) -> sqlite3.Connection:
    db = sqlite3.connect(path)
    migrate(db, MIGRATIONS[:version])
    return db


async def schema_of_version(place: Place, version: int) -> Any:
    """A connection to a schema of PostgreSQL."""
    import asyncpg

    from mcpgate.stores.postgres import governance as postgres

    db = await asyncpg.connect(POSTGRES, server_settings={"search_path": f'"{place.name}"'})
    await postgres.migrate(db, place.name, POSTGRES_MIGRATIONS[:version])
    return db


async def use(stores: Any) -> None:
    """Check that every table exists."""
    held = claim()
    await stores.renew("me", 9e9)
    await stores.reserve(reservation("r1", held))
    await stores.settle([settlement("r1", held)])
    await stores.roll_up()
    await stores.expire(0.0)
    assert set(await stores.find_settled(["r1"])) == {"r1"}
    await stores.close()


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS) + 1))
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


async def test_daily_sums_of_version_2_are_in_the_reports(tmp_path: Path) -> None:
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


OLD_ENTRY = (
    'INSERT INTO entries (id, parent_id, at, kind, "key", "user", team, customer, server, tool, provider, model,'
    " outcome, cache, cost, calls, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, seconds,"
    " definition_tokens_saved, result_tokens_saved, latency_ms, metadata) VALUES ('old', '', 1769860800, 'tool', 'vk_1',"
    " '', '', '', 'files', 'read', '', '', 'ok', '', 5, 1, 0, 0, 0, 0, 0, 0, 0, 1, '{\"project_id\": \"p1\"}')"
)
OLD_HOLD = """[["b|cost|", 0, 4]]"""


async def check_what_was_there_before(place: Place) -> None:
    """An entry without what came later, and a hold that a process of the earlier version made and nobody settled."""
    async with place.open() as stores:
        old = (await stores.store.find_settled(["old"]))["old"]
        assert (old.cost, old.metadata) == (5, {"project_id": "p1"})
        assert (old.usage.more, old.timings, old.facts) == ({}, {}, {})
        (row,) = await stores.store.report(Query(0, 9e9))
        assert (row["entries"], row["cost"]) == (1, 5)
        assert (await stores.counters.read([("b|cost|", 0)]))[0].held == 4
        assert await stores.counters.expire(9e9) == 1
        (found,) = await stores.counters.read([("b|cost|", 0)])
        assert (found.spent, found.held) == (0, 0)
        assert set(await stores.store.find_settled(["old", "held"])) == {"old"}


async def test_entries_and_holds_of_version_3_are_read_as_they_were_meant(tmp_path: Path) -> None:
    place = make_place("sqlite", tmp_path)
    db = file_of_version(Path(place.path), 3)
    db.execute(OLD_ENTRY)
    db.execute("INSERT INTO cells VALUES ('b|cost|', 0, 0, 4, 9e15)")
    db.execute("INSERT INTO reservations VALUES ('held', 'gone', ?)", (OLD_HOLD,))
    db.commit()
    db.close()
    await check_what_was_there_before(place)


async def test_entries_and_holds_of_version_1_of_postgres_are_read_as_they_were_meant(tmp_path: Path) -> None:
    place = make_place("postgres", tmp_path)
    try:
        db = await schema_of_version(place, 1)
        await db.execute(OLD_ENTRY)
        await db.execute("INSERT INTO counters VALUES ('b|cost|')")
        await db.execute("INSERT INTO cells VALUES ('b|cost|', 0, 0, 4, 9e15)")
        await db.execute("INSERT INTO reservations VALUES ('held', 'gone', $1)", OLD_HOLD)
        await db.close()
        await check_what_was_there_before(place)
    finally:
        await place.remove()


async def test_a_postgres_process_of_the_earlier_version_goes_on_in_a_newer_schema(tmp_path: Path) -> None:
    """Processes are replaced one after the other; those still there settle what they did."""
    place = make_place("postgres", tmp_path)
    try:
        async with place.open() as stores:
            db = await schema_of_version(place, len(POSTGRES_MIGRATIONS))
            (answer,) = await db.fetch(
                "SELECT fits FROM reserve_all(ARRAY['r1'], ARRAY['me'], ARRAY[1], ARRAY['b|cost|'], ARRAY[0],"
                " ARRAY[0], ARRAY[4], ARRAY[10], ARRAY[9e15::float8])"
            )
            assert answer["fits"]
            row = dict(zip(rows.COLUMNS, rows.row_of(entry("r1", cost=3)), strict=True))
            old = {name: value for name, value in row.items() if name not in ("more", "timings", "facts")}
            spent = [{"id": "r1", "counter": "b|cost|", "cell": 0, "amount": 3, "ends_at": 9e15}]
            texts = [json.dumps(part) for part in ([{**old, "metadata": {}}], spent, [])]
            await db.fetch("SELECT settle($1, $2, $3)", *texts)
            await db.close()
            (found,) = await stores.counters.read([("b|cost|", 0)])
            assert (found.spent, found.held) == (3, 0)
            assert (await stores.store.find_settled(["r1"]))["r1"] == entry("r1", cost=3)
    finally:
        await place.remove()


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


@pytest.mark.parametrize("shared_place", ["sqlite", "postgres"], indirect=True)
@pytest.mark.parametrize("version", [0, 2])
async def test_processes_that_open_a_store_at_once_all_find_it_up_to_date(shared_place: Place, version: int) -> None:
    if version and shared_place.kind == "sqlite":
        file_of_version(Path(shared_place.path), version).close()
    elif version:
        await (await schema_of_version(shared_place, 1)).close()
    lines, processes = [], []
    for number in range(4):
        ours, theirs = PROCESSES.Pipe()
        process = PROCESSES.Process(target=_open, args=(shared_place, theirs, number), daemon=True)
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
    async with shared_place.open() as stores:
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
        gc.collect()  # a connection left open would be detected here
    finally:
        await place.remove()


async def test_a_postgres_schema_of_every_earlier_version_is_brought_up_to_date(tmp_path: Path) -> None:
    place = make_place("postgres", tmp_path)
    from mcpgate.stores.postgres import governance as postgres

    for version in range(len(POSTGRES_MIGRATIONS) + 1):
        try:
            await (await schema_of_version(place, version)).close()
            await use(await postgres.PostgresStore.open(POSTGRES, schema=place.name))
        finally:
            await place.remove()
