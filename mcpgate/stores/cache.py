"""The cache in the memory of one process: where the configuration asks for that, and where no store can be used."""

from collections import OrderedDict
from collections.abc import Sequence

from mcpgate.cache.entry import Row
from mcpgate.cache.store import Selection, Total


class MemoryCache:
    """Implements cache.store.CacheStore, bounded in bytes. For one event loop."""

    name, outlives = "memory", False

    def __init__(self, most_bytes: int) -> None:
        self._most, self._bytes = most_bytes, 0
        self._rows: OrderedDict[str, Row] = OrderedDict()
        """The one that was used last at the end."""
        self._epochs: dict[str, int] = {}

    async def get(self, id: str) -> Row | None:
        if (row := self._rows.get(id)) is not None:
            self._rows.move_to_end(id)
        return row

    async def put(self, row: Row, epoch: int | None = None) -> None:
        if epoch is not None and await self.epoch(row.server) != epoch:
            return
        self._forget(row.id)
        self._rows[row.id] = row
        self._bytes += row.size
        while self._bytes > self._most:
            self._forget(next(iter(self._rows)))

    async def drop(self, which: Selection) -> int:
        self._epochs[which.server] = self._epochs.get(which.server, 0) + 1
        gone = [id for id, row in self._rows.items() if which.fits(row)]
        for id in gone:
            self._forget(id)
        return len(gone)

    async def epoch(self, server: str = "") -> int:
        return self._epochs.get(server, 0)

    async def page(self, which: Selection, after: str = "", limit: int = 200) -> Sequence[Row]:
        fitting = [row for id, row in self._rows.items() if id > after and which.fits(row)]
        return sorted(fitting, key=lambda row: row.id)[:limit]

    async def newer(self, partition: str, at: float, limit: int = 500) -> Sequence[Row]:
        found = [row for row in self._rows.values() if partition and row.partition == partition and row.at >= at]
        return sorted(found, key=lambda row: (row.at, row.id))[:limit]

    async def totals(self) -> Sequence[Total]:
        sizes: dict[str, list[int]] = {}
        for row in self._rows.values():
            sizes.setdefault(row.kind, []).append(row.size)
        return [Total(kind, len(found), sum(found)) for kind, found in sorted(sizes.items())]

    async def tidy(self, now: float, most_bytes: int) -> int:
        gone = [id for id, row in self._rows.items() if row.until <= now]
        for id in gone:
            self._forget(id)
        return len(gone)

    async def close(self) -> None:
        self._rows.clear()

    def _forget(self, id: str) -> None:
        if (row := self._rows.pop(id, None)) is not None:
            self._bytes -= row.size
