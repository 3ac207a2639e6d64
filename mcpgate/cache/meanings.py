"""Finds entries whose question means the same as another one. What is the same is decided in semantic/; where questions
are searched is known to questions.py.

A question is only compared with those of its partition: everything before the last turn is equal byte for byte, and so
are the tenant, the model and all parameters. Everything that takes the processor runs in one thread.
"""

import asyncio
import dataclasses
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mcpgate.cache.entry import CacheEntry, CacheUnavailable
from mcpgate.cache.questions import Newer, OwnQuestions, Questions
from mcpgate.config.cache import SemanticCacheConfig
from mcpgate.errors import ConfigError, McpgateError

if TYPE_CHECKING:
    from mcpgate.cache.semantic.semantic import Embedder, Prepared, Semantic

_CANDIDATES = 5
_MOST_WAITING = 32
"""Questions that wait for the thread; beyond that, the provider is asked."""
log = logging.getLogger("mcpgate.cache")


@dataclass(frozen=True, slots=True)
class Same:
    """An entry whose question means the same."""

    entry: CacheEntry
    similarity: float
    is_checked: bool
    """Whether the provider should be asked too, to see whether the entry is right."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    semantic: "Semantic"
    questions: Questions


Fetch = Callable[[str], Awaitable[CacheEntry | None]]
"""Id → entry, if it may be served."""
MakeEmbedder = Callable[[SemanticCacheConfig], "Embedder | None"]


class Meanings:
    """One for the whole gateway. It does nothing until it has been loaded, which takes a second."""

    def __init__(self, fetch: Fetch, newer: Newer, make_embedder: MakeEmbedder, shared: Questions | None) -> None:
        """`shared`: searches questions in the store, if the store can do that."""
        self._fetch, self._newer, self._make_embedder, self._shared = fetch, newer, make_embedder, shared
        self._config: SemanticCacheConfig | None = None
        self._loaded: _Loaded | None = None
        self._is_away = False
        self._thread = ThreadPoolExecutor(1, "meanings")
        self._waiting = 0
        self._loading: asyncio.Task[None] | None = None

    def want(self, config: SemanticCacheConfig) -> None:
        """Load what a configuration needs, if that is not what is loaded."""
        if config != self._config:
            self._config, self._loaded = config, None
            self._loading = asyncio.create_task(self._load(config))

    async def loaded(self) -> None:
        if self._loading is not None:
            await self._loading

    async def _load(self, config: SemanticCacheConfig) -> None:
        embedder = self._make_embedder(config)

        def load() -> _Loaded:
            from mcpgate.cache.semantic.semantic import load

            semantic = load(config.max_false_hit_rate, embedder)
            return _Loaded(semantic, self._searched(config, semantic))

        try:
            loaded = await self._run(load)
        except (ConfigError, ImportError) as error:
            log.error("the semantic cache is off: %s", error)
            return
        if config == self._config:
            self._loaded = loaded

    def _searched(self, config: SemanticCacheConfig, semantic: "Semantic") -> Questions:
        """Raises ConfigError."""
        if config.index == "store":
            if self._shared is None:
                raise ConfigError("cache.semantic.index is 'store', which needs the cache to be kept in PostgreSQL")
            return self._shared
        from mcpgate.cache.semantic.index import Index

        def vector_of(entry: CacheEntry) -> Any:
            question = semantic.restore(entry.prepared) or semantic.prepare(entry.question)
            return None if question is None else question.vector

        return OwnQuestions(Index(config.max_questions), self._newer, vector_of, self._run)

    async def aclose(self) -> None:
        if self._loading is not None:
            self._loading.cancel()
        if self._loaded is not None:
            await self._loaded.questions.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    # --- finding

    async def find(self, partition: str, text: str, threshold: float | None) -> Same | None:
        """The entry of a question that means the same, with at least the similarity `threshold`."""
        loaded = self._loaded
        if loaded is None or self._waiting >= _MOST_WAITING:
            return None
        self._waiting += 1
        try:
            asked = await self._prepared(loaded.semantic, text)
            if asked is None:
                return None
            stored = await self._nearest(loaded.questions, partition, asked)
            self._tell_away(None)
            return await self._run(lambda: self._best(loaded.semantic, asked, stored, threshold)) if stored else None
        except (McpgateError, ValueError) as error:  # an embedder or a store that is away
            self._tell_away(error)
            return None
        finally:
            self._waiting -= 1

    async def _nearest(self, questions: Questions, partition: str, asked: "Prepared") -> list[CacheEntry]:
        """Those that may be served."""
        found = []
        for id in await questions.nearest(partition, asked.vector, _CANDIDATES):
            entry = await self._fetch(id)
            if entry is None or entry.partition != partition:
                await questions.remove(id)
            else:
                found.append(entry)
        return found

    def _tell_away(self, error: Exception | None) -> None:
        """Once when it begins, once when it ends."""
        if error is not None and not self._is_away:
            log.warning("questions are asked without the semantic cache: %s", error)
        elif error is None and self._is_away:
            log.warning("the semantic cache is back")
        self._is_away = error is not None

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

    async def prepared(self, entry: CacheEntry) -> tuple[CacheEntry, Any]:
        """An entry with its question as it is compared, and the vector of the question; None if it has none."""
        if self._loaded is None or not entry.partition or not entry.question:
            return entry, None
        try:
            question = await self._prepared(self._loaded.semantic, entry.question)
        except McpgateError as error:
            self._tell_away(error)
            return entry, None
        if question is None:
            return entry, None
        return dataclasses.replace(entry, prepared=await self._run(question.to_bytes)), question.vector

    async def learn(self, entry: CacheEntry, vector: Any) -> None:
        """Let others find an entry that has been kept, by what `prepared` returned."""
        if self._loaded is None or vector is None:
            return
        try:
            await self._loaded.questions.add(entry.id, entry.partition, vector)
        except CacheUnavailable as error:
            self._tell_away(error)

    # --- judging answers

    async def same_answer(self, one: str, other: str) -> bool | None:
        """Whether two answers say the same; None if that is not known."""
        loaded = self._loaded
        return None if loaded is None else await self._run(lambda: loaded.semantic.same_answer(one, other))

    def after_check(self, entry: CacheEntry, is_right: bool) -> CacheEntry | None:
        """An entry with what a check has found; None if it is no longer trusted."""
        import mcpgate.cache.semantic.trust as trust

        history = trust.Trust(entry.right, entry.wrong).after(is_right)
        if trust.dropped(history):
            return None
        return dataclasses.replace(entry, right=history.right, wrong=history.wrong)

    async def _run(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
