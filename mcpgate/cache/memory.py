"""Entries in memory, bounded in bytes. An entry that was used again is kept longer than one that never was, so that
many new ones do not drive out those that pay: segmented LRU, after Karedla et al., Caching strategies to improve disk
system performance, 1994. For one event loop.
"""

from collections import OrderedDict
from collections.abc import Callable

from mcpgate.cache.entry import CacheEntry

_PROTECTED = 0.8
"""The share of memory for entries that were used again."""


class Memory:
    """Entries by id."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._new: OrderedDict[str, CacheEntry] = OrderedDict()
        self._used: OrderedDict[str, CacheEntry] = OrderedDict()
        """Both with the latest at the end."""
        self._new_bytes = self._used_bytes = 0

    def __len__(self) -> int:
        return len(self._new) + len(self._used)

    @property
    def bytes(self) -> int:
        return self._new_bytes + self._used_bytes

    def get(self, id: str) -> CacheEntry | None:
        if (entry := self._used.get(id)) is not None:
            self._used.move_to_end(id)
            return entry
        entry = self._new.pop(id, None)
        if entry is not None:
            self._new_bytes -= entry.size
            self._used[id] = entry
            self._used_bytes += entry.size
            self._make_room()
        return entry

    def put(self, entry: CacheEntry) -> None:
        self.drop(entry.id)
        self._new[entry.id] = entry
        self._new_bytes += entry.size
        self._make_room()

    def drop(self, id: str) -> None:
        if (entry := self._new.pop(id, None)) is not None:
            self._new_bytes -= entry.size
        if (entry := self._used.pop(id, None)) is not None:
            self._used_bytes -= entry.size

    def drop_where(self, fits: Callable[[CacheEntry], bool]) -> None:
        for id in [id for held in (self._new, self._used) for id, entry in held.items() if fits(entry)]:
            self.drop(id)

    def resize(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._make_room()

    def _make_room(self) -> None:
        while self._used_bytes > self._most * _PROTECTED:
            id, entry = self._used.popitem(last=False)
            self._used_bytes -= entry.size
            self._new[id] = entry
            self._new_bytes += entry.size
        while self.bytes > self._most and self._new:
            _, entry = self._new.popitem(last=False)
            self._new_bytes -= entry.size
