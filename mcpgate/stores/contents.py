"""What requests say, in the memory of one process: for tests, and where no store can be used."""

from collections.abc import Sequence

from mcpgate.activity.contents import Kept

_MOST = 1000
"""The oldest go first."""


class MemoryContents:
    """Implements activity.contents.ContentStore. For one event loop."""

    def __init__(self) -> None:
        self._kept: dict[str, Kept] = {}

    async def write(self, contents: Sequence[Kept]) -> None:
        for kept in contents:
            self._kept.setdefault(kept.id, kept)
        for id in list(self._kept)[:-_MOST]:
            del self._kept[id]

    async def read(self, ids: Sequence[str]) -> list[Kept]:
        return [self._kept[id] for id in ids if id in self._kept]

    async def delete(self, ids: Sequence[str]) -> int:
        return sum(self._kept.pop(id, None) is not None for id in ids)

    async def prune(self, before: float) -> int:
        return await self.delete([kept.id for kept in self._kept.values() if kept.at < before])

    async def close(self) -> None:
        pass
