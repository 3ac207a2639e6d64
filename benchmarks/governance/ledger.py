"""Reports over a large ledger in SQLite, from the entries themselves and from their hourly and daily roll-ups."""

import sqlite3
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from mcpgate.governance.store import Query
from mcpgate.stores.sqlite.governance import SqliteStore

REPORTS: tuple[tuple[str, ...], ...] = (("key",), ("day",), ("team", "tool"))
_DAYS = 30
_SINCE = 1_793_491_200  # 2026-11-01
_AT_ONCE = 500_000
# A key for each 20,000 entries, of 12 teams, each of which calls three of 60 tools at all hours.
_INSERT = f"""
WITH RECURSIVE counted (n) AS (SELECT :first UNION ALL SELECT n + 1 FROM counted WHERE n < :last),
drawn AS (SELECT n, (n * 7919) % :keys AS k, (n / :keys) % 3 AS t FROM counted)
INSERT INTO entries (
    id, parent_id, at, kind, "key", "user", team, customer, server, tool, provider, model, outcome, cache, cost, calls,
    input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, seconds, definition_tokens_saved,
    result_tokens_saved, latency_ms, metadata)
SELECT printf('rq_%020x', n), '', {_SINCE} + n * {_DAYS * 86400.0} / :count, 'tool', printf('vk_%08d', k),
    'user-' || (k % 100), 'team-' || (k % 12), 'acme', 'server-' || ((k + t) % 6), 'tool-' || ((k + t) % 60), '', '',
    CASE WHEN n % 50 THEN 'ok' ELSE 'upstream_failed' END, '', 1000000, 1, 0, 0, 0, 0, 0.0, 0, 0, 12.5, '{{}}'
FROM drawn
"""


@dataclass
class LedgerFigures:
    entries: int
    filled_s: float = 0.0
    rolled_s: float = 0.0
    mib: float = 0.0
    """The file, without its roll-ups."""
    rolled_mib: float = 0.0
    sums: int = 0
    from_entries_s: dict[str, list[float]] = field(default_factory=dict)
    from_sums_s: dict[str, list[float]] = field(default_factory=dict)


def _fill(path: Path, count: int) -> None:
    db = sqlite3.connect(path, timeout=60)
    try:
        for first in range(0, count, _AT_ONCE):
            with db:
                last = min(count, first + _AT_ONCE) - 1
                db.execute(_INSERT, {"first": first, "last": last, "count": count, "keys": max(10, count // 20_000)})
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        db.close()


async def _reports(stores: SqliteStore, rounds: int) -> dict[str, list[float]]:
    spans: dict[str, list[float]] = {}
    for _ in range(rounds):
        for by in REPORTS:
            began = time.perf_counter()
            rows = await stores.report(Query(float(_SINCE), float(_SINCE + _DAYS * 86_400), by))
            spans.setdefault(" + ".join(by), []).append(time.perf_counter() - began)
            assert sum(row["requests"] for row in rows) > 0
    return spans


def mib(path: Path) -> float:
    return sum(file.stat().st_size for file in path.parent.iterdir()) / 2**20


async def measure_ledger(count: int, rounds: int) -> LedgerFigures:
    found = LedgerFigures(count)
    with tempfile.TemporaryDirectory(prefix="mcpgate-bench-") as folder:
        path = Path(folder) / "stores.sqlite3"
        stores = SqliteStore(path)
        try:
            began = time.perf_counter()
            _fill(path, count)
            found.filled_s = time.perf_counter() - began
            found.mib = mib(path)
            found.from_entries_s = await _reports(stores, max(1, rounds - 2))
            began = time.perf_counter()
            assert await stores.roll_up() == count
            found.rolled_s = time.perf_counter() - began
            found.from_sums_s = await _reports(stores, rounds)
            with sqlite3.connect(path) as db:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                (found.sums,) = db.execute("SELECT COUNT(*) FROM sums").fetchone()
            db.close()
            found.rolled_mib = mib(path)
        finally:
            await stores.close()
    return found


def seconds(spans: list[float]) -> float:
    return statistics.median(spans)
