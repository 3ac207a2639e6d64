"""Where the questions that entries answer are searched: in the memory of each process, or in the store."""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mcpgate.cache.entry import CacheEntry, CacheUnavailable

if TYPE_CHECKING:
    from mcpgate.cache.semantic.index import Index

_LOOK_S = 1.0
"""How old may be what is known of questions that other processes have kept."""
_OVERLAP_S = 2.0
"""How late an entry may be written after it was made."""
_PAGE = 100
_MOST_PARTITIONS = 10_000

Newer = Callable[[str, float, int], Awaitable[Sequence[CacheEntry]]]
"""(partition, from when on, how many) → entries, the oldest first."""
VectorOf = Callable[[CacheEntry], Any]
"""The vector of an entry's question, of unit length; None if it has none. Takes the processor."""
Run = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs in the thread of whatever takes the processor."""


class Questions(Protocol):
    """Vectors of unit length (numpy, float32) by the partition and the id of the entry whose question they are. Every
    method raises CacheUnavailable."""

    async def nearest(self, partition: str, vector: Any, count: int) -> Sequence[str]:
        """Ids of a partition, the nearest first."""
        ...

    async def add(self, id: str, partition: str, vector: Any) -> None:
        """In place of what the id had. The entry is in the store; if it is no longer, nothing is added."""
        ...

    async def remove(self, id: str) -> None: ...

    async def close(self) -> None: ...


@dataclass(slots=True)
class _Partition:
    """What is known of one in the store."""

    last_at: float = 0.0
    looked_at: float = -math.inf
    loading: "asyncio.Task[None] | None" = None


class OwnQuestions:
    """Implements Questions in the memory of this process, which reads from the store what others have kept."""

    def __init__(self, index: "Index", newer: Newer, vector_of: VectorOf, run: Run) -> None:
        self._index, self._newer, self._vector_of, self._run = index, newer, vector_of, run
        self._partitions: OrderedDict[str, _Partition] = OrderedDict()

    async def nearest(self, partition: str, vector: Any, count: int) -> list[str]:
        await self._catch_up(partition)
        near = await self._run(lambda: self._index.nearest(partition.encode(), vector, count))
        return [id for id, _ in near]

    async def add(self, id: str, partition: str, vector: Any) -> None:
        await self._add([(id, partition, vector)])

    async def remove(self, id: str) -> None:
        self._index.remove(id)

    async def close(self) -> None:
        for partition in self._partitions.values():
            if partition.loading is not None:
                partition.loading.cancel()

    async def _add(self, found: Sequence[tuple[str, str, Any]]) -> None:
        def add() -> None:
            for id, partition, vector in found:
                try:
                    self._index.add(partition.encode(), id, vector)
                except ValueError:  # of another embedder
                    continue

        await self._run(add)

    async def _catch_up(self, partition: str) -> None:
        """Learn what other processes have kept; what is in the store from before is read in the background."""
        known = self._partitions.setdefault(partition, _Partition())
        self._partitions.move_to_end(partition)
        if len(self._partitions) > _MOST_PARTITIONS:
            self._partitions.popitem(last=False)
        if known.loading is not None or time.monotonic() - known.looked_at < _LOOK_S:
            return
        known.looked_at = time.monotonic()
        if await self._read_page(partition, known):
            known.loading = asyncio.create_task(self._read_on(partition, known))

    async def _read_on(self, partition: str, known: _Partition) -> None:
        try:
            while await self._read_page(partition, known):
                pass
        finally:
            known.loading = None

    async def _read_page(self, partition: str, known: _Partition) -> bool:
        """Whether there may be more."""
        try:
            entries = await self._newer(partition, known.last_at, _PAGE)
        except CacheUnavailable:
            return False
        if not entries:
            return False

        def read() -> list[tuple[str, str, Any]]:
            vectors = ((one, self._vector_of(one)) for one in entries)
            return [(one.id, one.partition, vector) for one, vector in vectors if vector is not None]

        await self._add(await self._run(read))
        last = entries[-1].at
        is_full = len(entries) == _PAGE and last > known.last_at
        known.last_at = last if is_full else max(known.last_at, last - _OVERLAP_S)
        return is_full
