"""What providers keep for accounts, in the memory of one process: for tests, and where no store can be used."""

from collections.abc import Sequence

from mcpgate.llm.objects import MOST, Kept, Kind, oldest_kept


class MemoryObjects:
    """Implements llm.objects.Objects. For one event loop."""

    def __init__(self) -> None:
        self._table: dict[tuple[str, str, str], Kept] = {}

    async def put(self, kept: Kept) -> None:
        known = self._table.setdefault((kept.kind, kept.id, kept.provider), kept)
        if known.account == kept.account:
            self._table[kept.kind, kept.id, kept.provider] = kept

    async def find(self, account: str, kind: Kind, ids: Sequence[str]) -> list[Kept]:
        return [kept for kept in self._of(account, kind) if kept.id in ids]

    async def page(self, account: str, kind: Kind, after: str, most: int, oldest_first: bool = False) -> list[Kept]:
        found = self._of(account, kind)
        if oldest_first:
            found.reverse()
        at = next((number + 1 for number, kept in enumerate(found) if kept.id == after), len(found)) if after else 0
        return found[at : at + most]

    async def forget(self, kept: Kept) -> None:
        self._table = {key: one for key, one in self._table.items() if one[:4] != kept[:4]}

    async def tidy(self) -> None:
        oldest = oldest_kept()
        self._table = {key: kept for key, kept in self._table.items() if kept.at > oldest}
        for account, kind in {(kept.account, kept.kind) for kept in self._table.values()}:
            for kept in self._of(account, kind)[MOST[kind] :]:
                await self.forget(kept)

    async def close(self) -> None:
        pass

    def _of(self, account: str, kind: Kind) -> list[Kept]:
        """The latest first."""
        oldest = oldest_kept()
        found = [one for one in self._table.values() if (one.account, one.kind) == (account, kind) and one.at > oldest]
        return sorted(found, key=lambda kept: (kept.at, kept.id), reverse=True)
