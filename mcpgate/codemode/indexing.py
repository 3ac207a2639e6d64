"""Makes the tools of each new catalog searchable, in a thread and ahead of the first question: by their words, and by
what they mean where the extra `semantic` is installed."""

import asyncio
import logging
from collections.abc import Sequence

from mcpgate.catalog.meanings import Meanings
from mcpgate.catalog.search import SearchIndex
from mcpgate.catalog.tools import Tool
from mcpgate.embedding import Embedding
from mcpgate.proxy.views import Views

log = logging.getLogger("mcpgate.codemode")
_PORTION = 250
"""Tools whose meaning is encoded at once: some 5 ms of work."""
_PATIENCE_S = 2.0
"""How long a search waits for tools that have just changed. After that it searches those that were known before."""


class Indexer:
    """Follows the catalogs of the whole gateway and of each bundle."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._started, self._changed, self._settled = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._progress = asyncio.Event()
        """Replaced each time another catalog is searchable."""
        self._built: dict[str | None, SearchIndex] = {}
        self._learned: dict[str | None, Meanings] = {}

    def start(self) -> None:
        """What had to come first has begun."""
        self._started.set()

    def refresh(self) -> None:
        """The catalogs may have changed."""
        self._changed.set()
        self._settled.clear()

    async def settled(self) -> None:
        """Returns when every catalog is searchable in every way that it can be."""
        await self._settled.wait()

    async def searchable(self, bundle: str | None) -> None:
        """Returns when the tools of a bundle, or of the whole gateway, can be searched. Does not wait for long while
        they keep changing."""
        self.start()
        deadline = asyncio.get_running_loop().time() + _PATIENCE_S
        while not (catalog := self._views.surface(bundle).catalog).is_indexed:
            try:
                async with asyncio.timeout_at(deadline if catalog.is_searchable else None):
                    await self._progress.wait()
            except TimeoutError:
                return

    async def keep(self, with_meanings: bool) -> None:
        """Index each catalog as it comes, for ever."""
        await self._started.wait()
        embedding: Embedding | None = None
        while True:
            self._changed.clear()
            await self._index()
            if with_meanings and embedding is None:
                embedding = await asyncio.to_thread(_load)
                with_meanings = embedding is not None
            if embedding is not None:
                await self._learn(embedding)
            if not self._changed.is_set():
                self._settled.set()
            await self._changed.wait()

    async def _index(self) -> None:
        before, self._built = self._built, {}
        for bundle in self._views.bundles():
            catalog = self._views.surface(bundle).catalog
            if catalog.is_indexed:
                self._built[bundle] = catalog.index
                continue
            index = self._built[bundle] = await asyncio.to_thread(_build, catalog.tools, before.get(bundle))
            if bundle in self._views.bundles():
                # The catalog may be another by now, which has most of these tools.
                self._views.surface(bundle).catalog.search_with(index)
            self._progress.set()
            self._progress = asyncio.Event()

    async def _learn(self, embedding: Embedding) -> None:
        before, self._learned = self._learned, {}
        for bundle in self._views.bundles():
            catalog = self._views.surface(bundle).catalog
            if catalog.meanings is None:
                catalog.meanings = await _meanings(embedding, catalog.tools, before.get(bundle))
            self._learned[bundle] = catalog.meanings


def _build(tools: Sequence[Tool], before: SearchIndex | None) -> SearchIndex:
    try:
        return SearchIndex(tools, before)
    except Exception:  # such as no memory: whoever waits for the index must not wait for ever
        log.exception("the tools could not be indexed; searches find nothing")
        return before or SearchIndex(())


async def _meanings(embedding: Embedding, tools: Sequence[Tool], before: Meanings | None) -> Meanings:
    meanings = await asyncio.to_thread(Meanings, embedding, tools, before)
    while meanings.missing:
        await asyncio.to_thread(meanings.learn, _PORTION)
    return meanings


def _load() -> Embedding | None:
    try:
        return Embedding.load()
    except ImportError:
        log.debug("tools are searched by their words only: the extra 'semantic' is not installed")
    except ValueError as error:
        log.warning("tools are searched by their words only: %s", error)
    return None
