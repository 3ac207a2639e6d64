"""Keeps what the catalog's tools mean up to date, where the extra `semantic` is installed. The table is loaded and
tools are encoded in a thread, some at a time; until that is done, search knows their words only."""

import asyncio
import logging
from collections.abc import Sequence

from mcpgate.catalog.meanings import Meanings
from mcpgate.catalog.tools import Tool
from mcpgate.embedding import Embedding
from mcpgate.proxy.views import Views

log = logging.getLogger("mcpgate.codemode")
_PORTION = 250
"""Tools that are encoded at once: some 5 ms of work."""


class Understanding:
    def __init__(self, views: Views) -> None:
        self._views = views
        self._started, self._changed, self._settled = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._wordless = False
        """There is nothing to learn with."""

    def start(self) -> None:
        """What had to come first has begun."""
        self._started.set()

    def refresh(self) -> None:
        """The catalog may have changed."""
        self._changed.set()
        if not self._wordless:
            self._settled.clear()

    async def settled(self) -> None:
        """Returns when the tools of every catalog are understood, if they ever can be."""
        await self._settled.wait()

    async def keep(self, wanted: bool) -> None:
        """Ends only where there is nothing to learn with."""
        await self._started.wait()
        embedding = await asyncio.to_thread(_load) if wanted else None
        if embedding is not None:
            await self._follow(embedding)
        self._wordless = True
        self._settled.set()

    async def _follow(self, embedding: Embedding) -> None:
        """Learn the tools of each new catalog, of the whole gateway and of bundles."""
        before: dict[str | None, Meanings] = {}
        while True:
            self._changed.clear()
            for bundle, catalog in self._views.catalogs().items():
                if catalog.meanings is None:
                    catalog.meanings = await _learn(embedding, catalog.tools, before.get(bundle))
                before[bundle] = catalog.meanings
            if not self._changed.is_set():
                self._settled.set()
            await self._changed.wait()


async def _learn(embedding: Embedding, tools: Sequence[Tool], before: Meanings | None) -> Meanings:
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
