"""The request log of a MemoryStore: for tests, and where no store can be used."""

from collections.abc import Mapping, Sequence

from mcpgate.activity.requests import Totals, Wanted, matches
from mcpgate.governance.records import Entry
from mcpgate.stores.memory import MemoryStore


class MemoryRequests:
    """Implements activity.requests.Requests. For one event loop."""

    in_order = True

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def scan(self, wanted: Wanted, before: int, most: int) -> tuple[list[tuple[int, Entry]], int | None]:
        looked_at = [(number, entry) for number, entry in self._numbered() if number < before][-most:][::-1]
        rest = looked_at[-1][0] if len(looked_at) == most else None
        return [(number, entry) for number, entry in looked_at if matches(wanted, entry)], rest

    async def after(self, wanted: Wanted, number: int, skip: Sequence[int], most: int) -> list[tuple[int, Entry]]:
        return [(at, entry) for at, entry in self._numbered() if at > number and matches(wanted, entry)][:most]

    async def newest(self) -> int:
        return len(self._store.written)

    async def find(self, id: str) -> Entry | None:
        return self._store.written.get(id)

    async def children(self, ids: Sequence[str], most: int) -> list[Entry]:
        found = [entry for _, entry in self._numbered() if entry.parent_id in ids]
        return sorted(found, key=lambda entry: entry.at)[:most]

    async def totals(self, ids: Sequence[str]) -> Mapping[str, Totals]:
        found: dict[str, Totals] = {}
        for entry in await self.children(ids, 1 << 62):
            if entry.is_refused:
                continue
            usage = entry.usage
            more = (
                *(1, int(entry.cost is None), entry.cost or 0, usage.input_tokens, usage.output_tokens),
                *(usage.cache_read_tokens, usage.cache_write_tokens),
            )
            before = found.get(entry.parent_id or "", Totals())
            found[entry.parent_id or ""] = Totals(*map(sum, zip(before, more, strict=True)))
        return found

    async def index(self) -> int:
        return 0

    async def close(self) -> None:
        pass

    def _numbered(self) -> list[tuple[int, Entry]]:
        return list(enumerate(self._store.written.values(), 1))
