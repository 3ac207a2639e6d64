"""How fast the request log is over a large ledger in SQLite.

    python -m benchmarks.request_log [--entries N] [--rounds N]

Fills a file with executions and their tool calls, requests to models and their attempts, adds all to the index as a
gateway does, and asks for first pages. For comparison: the same page by a scan of the ledger from its end.
"""

import argparse
import asyncio
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.machine import describe_machine, load
from mcpgate.activity.asking import make_wanted
from mcpgate.activity.log import RequestLog
from mcpgate.activity.requests import NEWEST, Wanted
from mcpgate.config.governance import GovernanceConfig
from mcpgate.governance.policy import Policy
from mcpgate.stores.request_rows import SELECT, Conditions
from mcpgate.stores.sqlite.governance import SqliteStore
from mcpgate.stores.sqlite.requests import FACTS, SqliteRequests

_DAYS = 30
_SINCE = 1_793_491_200  # 2026-11-01
_AT_ONCE = 500_000
# Every fourth entry is a request, to which the three before it belong; half of those are to models. A key for
# each 20,000 entries, 12 teams, 1,000 projects; one request in 50 has failed, one in 100,000 has taken a minute.
_INSERT = f"""
WITH RECURSIVE counted (n) AS (SELECT :first UNION ALL SELECT n + 1 FROM counted WHERE n < :last),
drawn AS (SELECT n, n / 4 AS r, n % 4 = 3 AS top, (n / 4) % 2 AS chat, (n / 4 * 7919) % :keys AS k FROM counted)
INSERT INTO entries (
    id, parent_id, at, kind, "key", "user", team, customer, server, tool, provider, model, outcome, cache, cost, calls,
    input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, seconds, definition_tokens_saved,
    result_tokens_saved, latency_ms, metadata, timings, facts)
SELECT printf('rq_%024x', n), CASE WHEN top THEN '' ELSE printf('rq_%024x', r * 4 + 3) END,
    {_SINCE} + n * {_DAYS * 86400.0} / :count,
    CASE WHEN chat THEN 'chat' WHEN top THEN 'execution' ELSE 'tool' END, printf('vk_%08d', k), 'user-' || (k % 100),
    'team-' || (k % 12), 'acme', CASE WHEN chat OR top THEN '' ELSE 'server-' || (r % 6) END,
    CASE WHEN chat THEN '' WHEN top THEN 'execute_code' ELSE 'tool-' || (r % 60) END,
    CASE WHEN chat AND NOT top THEN 'open' ELSE '' END, CASE WHEN chat THEN 'model-' || (r % 20) ELSE '' END,
    CASE WHEN r % 50 THEN 'ok' ELSE 'upstream_error' END, '', 1000000, 1, 500, 50, 0, 0, 0.1, 0, 0,
    CASE WHEN r % 100000 THEN 12.5 ELSE 60000 END, '{{"project_id":"p-' || (r % 1000) || '"}}',
    '{{"upstream": 9.5}}', '{{"client":"agent 1.0","request":"' || printf('%016x', r * 2654435761) || '"}}'
FROM drawn
"""


def _fill(path: Path, count: int) -> None:
    db = sqlite3.connect(path, timeout=60)
    for first in range(0, count, _AT_ONCE):
        with db:
            last = min(count, first + _AT_ONCE) - 1
            db.execute(_INSERT, {"first": first, "last": last, "count": count, "keys": max(10, count // 20_000)})
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def _mib(path: Path) -> float:
    return sum(file.stat().st_size for file in path.parent.iterdir()) / 2**20


def questions(count: int) -> Mapping[str, tuple[dict[str, str], dict[str, str]]]:
    """What is asked: (filters, the rest)."""
    request = f"{(count // 8) * 2654435761 & (2**64 - 1):016x}"
    return {
        "everything": ({}, {}),
        "one team of 12": ({"team": "team-5"}, {}),
        "one key": ({"key": "vk_00000003"}, {}),
        "one project of 1,000": ({"metadata.project_id": "p-77"}, {}),
        "one key, one project, failed": ({"key": "vk_00000003", "metadata.project_id": "p-50", "failed": "true"}, {}),
        "one request by its x-request-id": ({"request": request}, {}),
        "nothing has it": ({"key": "nobody"}, {}),
        "one team, a day three weeks ago": ({"team": "team-5"}, {"since": "2026-11-08", "until": "2026-11-09"}),
        "one key, 60 s and more": ({"key": "vk_00000003"}, {"min_latency_ms": "60000"}),
        "calls of one tool": ({"tool": "tool-8"}, {"nested": "1"}),
    }


def _scan(path: Path, wanted: Wanted) -> float:
    """Seconds for a first page without the index."""
    conditions = Conditions(FACTS)
    chosen = conditions.of(wanted)
    db = sqlite3.connect(path)
    try:
        began = time.perf_counter()
        db.execute(f"{SELECT} WHERE {chosen} ORDER BY seq DESC LIMIT 51", conditions.values).fetchall()
        return time.perf_counter() - began
    finally:
        db.close()


async def measure(count: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="mcpgate-bench-") as folder:
        path = Path(folder) / "stores.sqlite3"
        store, requests = SqliteStore(path), SqliteRequests(path)
        log = RequestLog(requests, store, lambda: Policy(GovernanceConfig()))
        try:
            await asyncio.to_thread(_fill, path, count)
            before = _mib(path)
            began, cpu = time.perf_counter(), _cpu_s()
            while await requests.index():
                pass
            took, cpu = time.perf_counter() - began, _cpu_s() - cpu
            print(f"entries: {count:,}; the file: {before:,.0f} MiB, with the index {_mib(path):,.0f} MiB")
            print(
                f"indexing: {took:.1f} s, {count / took:,.0f} entries a second, {cpu / count * 1e6:.1f} µs of CPU"
                " each\n"
            )
            print("| first page of 50 | found | p50, ms | worst, ms | by a scan, ms |\n|---|--:|--:|--:|--:|")
            for name, (where, given) in questions(count).items():
                wanted = make_wanted(where, given, time.time())
                spans = []
                for _ in range(rounds):
                    began = time.perf_counter()
                    page = await log.page(wanted, 50, NEWEST)
                    spans.append((time.perf_counter() - began) * 1000)
                scan = await asyncio.to_thread(_scan, path, wanted) * 1000
                found = f"{len(page.requests)}{'' if page.next is None else '+'}"
                print(f"| {name} | {found} | {statistics.median(spans):.1f} | {max(spans):.1f} | {scan:,.1f} |")
        finally:
            await requests.close()
            await store.close()


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.request_log")
    parser.add_argument("--entries", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    print(f"{describe_machine()}; load {load()}", file=sys.stderr)
    asyncio.run(measure(arguments.entries, arguments.rounds))


if __name__ == "__main__":
    main()
