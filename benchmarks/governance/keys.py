"""The cost of identifying a caller by its secret, by the number of keys."""

import gc
import json
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import asyncpg

from benchmarks.governance.admission import gate_on, percentile
from benchmarks.governance.stores import POSTGRES, Opened
from mcpgate.config.governance import GovernanceConfig, KeySpec
from mcpgate.governance.gate import Gate
from mcpgate.governance.keys import PREFIX, digest_of, to_record
from mcpgate.governance.store import Record
from mcpgate.stores.memory import MemoryStore

_AT_ONCE = 50_000
_ASKED = 2_000
"""Keys looked up per round."""
_SPEC = KeySpec.model_validate({"user": "ada", "grants": {"servers": "files"}, "budget": {"limit_usd": 10}})


@dataclass
class KeyFigures:
    """Microseconds."""

    keys: int
    cold_us: list[float] = field(default_factory=list)
    """For keys that this process has not seen before."""
    warm_us: list[float] = field(default_factory=list)

    def of(self, name: str, share: float) -> float:
        return percentile(getattr(self, f"{name}_us"), share)


def secret_of(number: int) -> str:
    return f"{PREFIX}bench-{number:037d}"


def _rows(first: int, last: int) -> Iterator[tuple[str, str, str]]:
    """Digest, id and record. Only the digest differs, so the text is built once and filled in."""
    form = json.dumps(to_record(_SPEC, [("DIGEST", None)], "0000", time.time()))
    for number in range(first, last):
        digest = digest_of(secret_of(number))
        yield digest, f"vk_{number:08d}", form.replace("DIGEST", digest)


async def _add(opened: Opened, first: int, last: int) -> None:
    """Inserts directly into the tables: `Records.change` would make one durable transaction per key."""
    if opened.path is not None:
        with sqlite3.connect(opened.path, timeout=60) as db:
            for start in range(first, last, _AT_ONCE):
                rows = list(_rows(start, min(last, start + _AT_ONCE)))
                db.executemany("INSERT INTO records VALUES ('key', ?, ?)", ((id, text) for _, id, text in rows))
                db.executemany("INSERT INTO digests VALUES (?, ?)", sorted((digest, id) for digest, id, _ in rows))
                db.commit()
    elif opened.schema is not None:
        db = await asyncpg.connect(POSTGRES)
        try:
            for start in range(first, last, _AT_ONCE):
                rows = list(_rows(start, min(last, start + _AT_ONCE)))
                records = [("key", id, text) for _, id, text in rows]
                await db.copy_records_to_table("records", schema_name=opened.schema, records=records)
                digests = sorted((digest, id) for digest, id, _ in rows)
                await db.copy_records_to_table("digests", schema_name=opened.schema, records=digests)
            await db.execute(f'ANALYZE "{opened.schema}".records, "{opened.schema}".digests')
        finally:
            await db.close()
    elif isinstance(stores := opened.store, MemoryStore):
        for digest, id, text in _rows(first, last):
            stores._records["key", id] = Record("key", id, json.loads(text))
            stores._digests[digest] = id


async def _ask(gate: Gate, numbers: list[int], spans: list[float]) -> None:
    secrets = [secret_of(number) for number in numbers]
    gc.collect()
    for secret in secrets:
        began = time.perf_counter()
        await gate.identify(secret, key_required=True, address="127.0.0.1")
        spans.append((time.perf_counter() - began) * 1e6)


async def measure_keys(opened: Opened, counts: tuple[int, ...], rounds: int) -> AsyncIterator[KeyFigures]:
    chosen = random.Random(4)
    there = 0
    for count in counts:
        await _add(opened, there, count)
        there = count
        figures = KeyFigures(count)
        for _ in range(rounds):
            asked = min(count, _ASKED)
            for _ in range(max(1, min(50, _ASKED // count))):  # few keys are looked up by many gates
                async with gate_on(opened, GovernanceConfig()) as gate:
                    numbers = chosen.sample(range(count), asked)
                    await _ask(gate, numbers, figures.cold_us)
                    await _ask(gate, chosen.sample(numbers, asked), figures.warm_us)
        yield figures
