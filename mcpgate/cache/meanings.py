"""Finds entries whose question means the same as another one. What is the same is decided in semantic/; here is where
questions are searched, and when.

A question is only compared with those of its partition: everything before the last turn is equal byte for byte, and so
are the tenant, the model and all parameters. Everything that takes the processor runs in one thread.
"""

import asyncio
import dataclasses
import logging
import math
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mcpgate.cache.entry import CacheEntry, CacheUnavailable
from mcpgate.config.cache import SemanticCacheConfig
from mcpgate.errors import ConfigError, McpgateError

if TYPE_CHECKING:
    from mcpgate.cache.semantic.index import Index
    from mcpgate.cache.semantic.semantic import Embedder, Prepared, Semantic

_CANDIDATES = 5
_MOST_WAITING = 32
"""Questions that wait for the thread; beyond that, the provider is asked."""
_LOOK_S = 1.0
"""How old may be what is known of questions that other processes have kept."""
_OVERLAP_S = 2.0
"""How late an entry may be written after it was made."""
_PAGE = 100
_MOST_PARTITIONS = 10_000
log = logging.getLogger("mcpgate.cache")


@dataclass(frozen=True, slots=True)
class Same:
    """An entry whose question means the same."""

    entry: CacheEntry
    similarity: float
    is_checked: bool
    """Whether the provider should be asked too, to see whether the entry is right."""


@dataclass(slots=True)
class _Partition:
    """What is known of one in the store."""

    last_at: float = 0.0
    looked_at: float = -math.inf
    loading: "asyncio.Task[None] | None" = None


Fetch = Callable[[str], Awaitable[CacheEntry | None]]
"""Id → entry, if it may be served."""
Newer = Callable[[str, float, int], Awaitable[Sequence[CacheEntry]]]
"""(partition, from when on, how many) → entries, the oldest first."""
MakeEmbedder = Callable[[SemanticCacheConfig], "Embedder | None"]


class Meanings:
    """One for the whole gateway. It does nothing until it has been loaded, which takes a second."""

    def __init__(self, fetch: Fetch, newer: Newer, make_embedder: MakeEmbedder) -> None:
        self._fetch, self._newer, self._make_embedder = fetch, newer, make_embedder
        self._config: SemanticCacheConfig | None = None
        self._semantic: Semantic | None = None
        self._index: Index | None = None
        self._partitions: OrderedDict[str, _Partition] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, "meanings")
        self._waiting = 0
        self._loading: asyncio.Task[None] | None = None

    def want(self, config: SemanticCacheConfig) -> None:
        """Load what a configuration needs, if that is not what is loaded."""
        if config != self._config:
            self._config, self._semantic = config, None
            self._partitions.clear()
            self._loading = asyncio.create_task(self._load(config))

    async def loaded(self) -> None:
        if self._loading is not None:
            await self._loading

    async def _load(self, config: SemanticCacheConfig) -> None:
        embedder = self._make_embedder(config)

        def load() -> "tuple[Semantic, Index]":
            from mcpgate.cache.semantic.index import Index
            from mcpgate.cache.semantic.semantic import load

            return load(config.max_false_hit_rate, embedder), Index(config.max_questions)

        try:
            semantic, self._index = await self._run(load)
        except (ConfigError, ImportError) as error:
            log.error("the semantic cache is off: %s", error)
            return
        if config == self._config:
            self._semantic = semantic

    def close(self) -> None:
        if self._loading is not None:
            self._loading.cancel()
        for partition in self._partitions.values():
            if partition.loading is not None:
                partition.loading.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    # --- finding

    async def find(self, partition: str, text: str, threshold: float | None) -> Same | None:
        """The entry of a question that means the same, with at least the similarity `threshold`."""
        semantic, index = self._semantic, self._index
        if semantic is None or index is None or self._waiting >= _MOST_WAITING:
            return None
        self._waiting += 1
        try:
            asked = await self._prepared(semantic, text)
            if asked is None:
                return None
            await self._catch_up(partition)
            near = await self._run(lambda: index.nearest(partition.encode(), asked.vector, _CANDIDATES))
            stored = []
            for id, _ in near:
                entry = await self._fetch(id)
                if entry is None or entry.partition != partition:
                    index.remove(id)
                else:
                    stored.append(entry)
            return await self._run(lambda: self._best(semantic, asked, stored, threshold)) if stored else None
        except (McpgateError, ValueError) as error:  # an embedder that is away
            log.warning("a question is asked without the semantic cache: %s", error)
            return None
        finally:
            self._waiting -= 1

    async def _prepared(self, semantic: "Semantic", text: str) -> "Prepared | None":
        prepared: Prepared | None = await self._run(lambda: semantic.prepare(text))
        if prepared is not None:
            await semantic.enrich(prepared)
        return prepared

    def _best(
        self, semantic: "Semantic", asked: "Prepared", stored: Sequence[CacheEntry], least: float | None
    ) -> Same | None:
        """The first of the nearest that may serve. In the thread."""
        import mcpgate.cache.semantic.trust as trust

        assert self._config is not None
        rate = self._config.max_false_hit_rate
        for entry in stored:
            known = semantic.restore(entry.prepared) or semantic.prepare(entry.question)
            if known is None:
                continue
            history = trust.Trust(entry.right, entry.wrong)
            verdict = semantic.judge(asked, known, trust.threshold(history, semantic.threshold, rate))
            if verdict.hit and verdict.similarity >= (least or 0.0):
                is_checked = random.random() < trust.checked(history, self._config.check_share)
                return Same(entry, verdict.similarity, is_checked and self._config.check_share > 0)
        return None

    # --- learning

    async def prepared(self, entry: CacheEntry) -> CacheEntry:
        """An entry with its question as it is compared, which others can then find."""
        semantic = self._semantic
        if semantic is None or not entry.partition or not entry.question:
            return entry
        try:
            question = await self._prepared(semantic, entry.question)
        except McpgateError as error:
            log.warning("a question is kept for equal requests only: %s", error)
            return entry
        if question is None:
            return entry
        made = dataclasses.replace(entry, prepared=await self._run(question.to_bytes))
        await self._add([(made, question)])
        return made

    async def _add(self, entries: "Sequence[tuple[CacheEntry, Prepared]]") -> None:
        index = self._index
        if index is None:
            return

        def add() -> None:
            for entry, question in entries:
                try:
                    index.add(entry.partition.encode(), entry.id, question.vector)
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
        semantic = self._semantic
        try:
            entries = await self._newer(partition, known.last_at, _PAGE)
        except CacheUnavailable:
            return False
        if semantic is None or not entries:
            return False

        def restored() -> "list[tuple[CacheEntry, Prepared]]":
            pairs = ((one, semantic.restore(one.prepared) or semantic.prepare(one.question)) for one in entries)
            return [(entry, question) for entry, question in pairs if question is not None]

        await self._add(await self._run(restored))
        last = entries[-1].at
        is_full = len(entries) == _PAGE and last > known.last_at
        known.last_at = last if is_full else max(known.last_at, last - _OVERLAP_S)
        return is_full

    # --- judging answers

    async def same_answer(self, one: str, other: str) -> bool | None:
        """Whether two answers say the same; None if that is not known."""
        semantic = self._semantic
        return None if semantic is None else await self._run(lambda: semantic.same_answer(one, other))

    def after_check(self, entry: CacheEntry, is_right: bool) -> CacheEntry | None:
        """An entry with what a check has found; None if it is no longer trusted."""
        import mcpgate.cache.semantic.trust as trust

        history = trust.Trust(entry.right, entry.wrong).after(is_right)
        if trust.dropped(history):
            return None
        return dataclasses.replace(entry, right=history.right, wrong=history.wrong)

    async def _run(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
