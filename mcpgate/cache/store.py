"""What the cache needs from a database. Implementations: stores/."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mcpgate.cache.entry import Row


@dataclass(frozen=True, slots=True)
class Selection:
    """Entries to be dropped or listed: those that fit everything that is given."""

    id: str = ""
    key: str = ""
    tenant: str = ""
    tag: str = ""
    model: str = ""
    """`provider/model`."""
    server: str = ""
    tool: str = ""
    before: float | None = None
    """Those from before this moment, epoch seconds."""
    kind: str = ""

    def fits(self, row: Row) -> bool:
        """Whether a row is one of them, for stores that are no databases."""
        return (
            self.id in ("", row.id)
            and self.key in ("", row.key)
            and self.tenant in ("", row.tenant)
            and (not self.tag or self.tag in row.tags)
            and self.model in ("", f"{row.provider}/{row.model}")
            and self.server in ("", row.server)
            and self.tool in ("", row.tool)
            and self.kind in ("", row.kind)
            and (self.before is None or row.at < self.before)
        )


EVERYTHING = Selection()


@dataclass(frozen=True, slots=True)
class Total:
    """How many entries of a kind there are."""

    kind: str
    entries: int
    bytes: int


class CacheStore(Protocol):
    """Keeps entries for all processes that share it. Every method raises CacheUnavailable."""

    name: str
    """For people."""
    outlives: bool
    """Whether it is more than the memory of this process."""

    async def get(self, id: str) -> Row | None:
        """Raises Unreadable for one that is damaged."""
        ...

    async def put(self, row: Row, epoch: int | None = None) -> None:
        """Keep a row in place of an earlier one. With `epoch`, only if nothing of its server was dropped since that was
        the server's epoch."""
        ...

    async def drop(self, which: Selection) -> int:
        """Returns how many. A drop of what belongs to one server begins a new epoch of that server, any other a new one
        of the whole store."""
        ...

    async def epoch(self, server: str = "") -> int:
        """Of one server, or of the whole store: grows with every drop."""
        ...

    async def page(self, which: Selection, after: str = "", limit: int = 200) -> Sequence[Row]:
        """Rows in order of ids, starting after `after`; without those that are damaged."""
        ...

    async def newer(self, partition: str, at: float, limit: int = 500) -> Sequence[Row]:
        """Rows of a partition from `at` on, the oldest first."""
        ...

    async def totals(self) -> Sequence[Total]: ...

    async def tidy(self, now: float, most_bytes: int) -> int:
        """Delete what is over, and what was not used for long beyond `most_bytes`. Returns how many."""
        ...

    async def close(self) -> None: ...
