"""How fast the questions of the semantic cache are searched, in a process's memory and in PostgreSQL with pgvector.

    python -m benchmarks.cache_questions POSTGRES_URL [--entries N] [--looks N]

Questions are made of eight words; of twenty, each differs from the others in one. Nine tenths of them are in one
partition, the rest in partitions of ten. What is looked for differs from a stored question in one word. Found: how many
of the true eight nearest are. Vectors are those of the static table.
"""

import argparse
import asyncio
import gzip
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy

from benchmarks.llm_overhead.measure import percentile
from benchmarks.machine import describe_machine, load
from mcpgate.cache import semantic
from mcpgate.cache.entry import CacheEntry, Row
from mcpgate.cache.questions import OwnQuestions, Questions
from mcpgate.cache.semantic.index import Index
from mcpgate.embedding import Embedding
from mcpgate.stores.postgres.cache import PostgresCache
from mcpgate.stores.postgres.governance import PostgresStore
from mcpgate.stores.postgres.questions import PostgresQuestions

_NEAREST, _WORDS, _ALIKE, _SMALL = 8, 8, 20, 10
_AT_ONCE = 8
_LARGE = "large"
_VOCABULARY = Path(semantic.__file__).with_name("vocabulary.txt.gz")
_Size = Callable[[], Awaitable[int]]


def _vectors(count: int, embedding: Embedding, draw: random.Random) -> list[Any]:
    """Of questions, and of as many that differ from them in one word."""
    words = [
        word for word in gzip.decompress(_VOCABULARY.read_bytes()).decode().split() if len(word) > 3 and word.isalpha()
    ]

    def changed(question: list[str]) -> list[str]:
        at = draw.randrange(_WORDS)
        return [*question[:at], draw.choice(words), *question[at + 1 :]]

    stored: list[list[str]] = []
    while len(stored) < count:
        of = draw.choices(words, k=_WORDS)
        stored += [changed(of) for _ in range(_ALIKE)]
    asked = [changed(question) for question in stored[:count]]
    return [embedding.encode_all(" ".join(one) for one in texts) for texts in (stored[:count], asked)]


def _partition(number: int) -> str:
    return _LARGE if number % 10 else f"small-{number // (10 * _SMALL)}"


async def _fill(questions: Questions, vectors: Any) -> float:
    """Milliseconds of adding one, of several at once."""
    numbers = iter(range(len(vectors)))

    async def add() -> None:
        for number in numbers:
            await questions.add(f"q{number}", _partition(number), vectors[number])

    began = time.perf_counter()
    await asyncio.gather(*(add() for _ in range(_AT_ONCE)))
    return (time.perf_counter() - began) / len(vectors) * 1e3


async def _look(questions: Questions, asked: Sequence[tuple[str, Any, set[str]]]) -> tuple[float, float, float]:
    """Milliseconds, p50 and p99, and the share of the nearest that was found."""
    times, found, wanted = [], 0, 0
    for partition, vector, true in asked:
        began = time.perf_counter()
        ids = await questions.nearest(partition, vector, _NEAREST)
        times.append((time.perf_counter() - began) * 1e3)
        found, wanted = found + len(true & set(ids)), wanted + len(true)
    return percentile(times, 0.5), percentile(times, 0.99), found / wanted


def _looked_for(stored: Any, asked: Any, large: bool, count: int) -> list[tuple[str, Any, set[str]]]:
    """Partitions, vectors, and the ids that are truly nearest."""
    members: dict[str, list[int]] = {}
    for number in range(len(stored)):
        members.setdefault(_partition(number), []).append(number)
    numbers = [number for number in range(len(stored)) if (_partition(number) == _LARGE) is large]
    found = []
    for number in random.Random(1).choices(numbers, k=count):
        same = members[_partition(number)]
        near = numpy.argsort(-(stored[same] @ asked[number]))[:_NEAREST]
        found.append((_partition(number), asked[number], {f"q{same[place]}" for place in near}))
    return found


async def _measure(name: str, questions: Questions, vectors: Sequence[Any], looks: int, size: _Size) -> None:
    stored, asked = vectors
    added = await _fill(questions, stored)
    figures = [await _look(questions, _looked_for(stored, asked, large, looks)) for large in (True, False)]
    shown = [f"{p50:.2f} | {p99:.2f} | {share:.1%}" for p50, p99, share in figures]
    print(f"| {name} | {added:.2f} | {' | '.join(shown)} | {await size() / len(stored):,.0f} |")


async def main() -> None:
    parser = argparse.ArgumentParser(description="Measures the search of stored questions.")
    parser.add_argument("postgres", help="the URL of a database with pgvector")
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--looks", type=int, default=300)
    asked = parser.parse_args()
    machine = describe_machine()
    print(
        f"{machine['date']}; {machine['cpu']}, {machine['cores']} cores; load {load()}; {asked.entries:,} questions\n"
    )
    print("| | add, ms | large partition: p50, ms | p99 | found | small: p50, ms | p99 | found | bytes each |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    vectors = _vectors(asked.entries, Embedding.load(), random.Random(0))
    await _in_memory(vectors, asked.looks)
    await _in_postgres(asked.postgres, vectors, asked.looks)


async def _in_memory(vectors: Sequence[Any], looks: int) -> None:
    async def newer(partition: str, at: float, limit: int) -> Sequence[CacheEntry]:
        return []

    async def run(work: Callable[[], Any]) -> Any:
        return await asyncio.to_thread(work)

    index = Index(len(vectors[0]))

    async def size() -> int:
        return index.bytes_used()

    await _measure("memory of one process", OwnQuestions(index, newer, lambda entry: None, run), vectors, looks, size)


async def _in_postgres(url: str, vectors: Sequence[Any], looks: int) -> None:
    schema = f"bench_{secrets.token_hex(6)}"
    store = await PostgresStore.open(url, schema=schema)
    cache, now = PostgresCache(store.pool), time.time()
    try:
        for number in range(len(vectors[0])):
            row = Row(
                f"q{number}", "chat", "k", "k", "", "", "p", "m", (), _partition(number), now, now + 3600, b"value"
            )
            await cache.put(row)
        questions = PostgresQuestions(store.pool)

        async def size() -> int:
            return int(
                await store.pool.fetchval(f"SELECT pg_total_relation_size('cache_questions_{vectors[0].shape[1]}')")
            )

        await _measure("PostgreSQL with pgvector", questions, vectors, looks, size)
    finally:
        await store.pool.execute(f'DROP SCHEMA "{schema}" CASCADE')
        await store.close()


if __name__ == "__main__":
    asyncio.run(main())
