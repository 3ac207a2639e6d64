"""Which stored questions are nearest to a new one, within a partition. Holds vectors, not questions.

Rows are compared one by one: first their main axes, then the best of them in full. With 100,000 rows that takes 2 ms,
with a million 22 ms, and adding one takes 0.01 ms (docs/benchmarks/cache_quality.md). A graph finds faster, but adding
to one takes 0.5 ms, and its library 55 MB. Thread-safe.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

_ROWS_AT_FIRST = 16
_COARSE = 64
"""Axes compared first; the main ones of a vector of the static table come first."""
_FINE = 256
"""Rows that are compared in full then."""


@dataclass(slots=True)
class _Partition:
    ids: list[str]
    places: dict[str, int]
    rows: Any
    """int8: capacity x dimensions, a vector times 127."""
    coarse: Any
    """float32: capacity x at most _COARSE, the first axes."""


class Index:
    """Vectors of unit length by partition and id. When full, what was added first goes first."""

    def __init__(self, max_entries: int = 100_000) -> None:
        import numpy

        self._numpy = numpy
        self._most = max_entries
        self._partitions: dict[bytes, _Partition] = {}
        self._order: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._order)

    def __repr__(self) -> str:
        return f"<Index [{len(self._order):,} of {self._most:,} entries, {len(self._partitions):,} partitions]>"

    def add(self, partition: bytes, id: str, vector: Any) -> list[str]:
        """Takes the place of a vector with the same id. Returns the ids that had to go. Raises ValueError where the
        partition has vectors of another length."""
        with self._lock:
            self._remove(id)
            row = self._numpy.asarray(vector, self._numpy.float32)
            own = self._partitions.get(partition)
            if own is None:
                own = self._partitions[partition] = self._made(len(row))
            elif own.rows.shape[1] != len(row):
                raise ValueError(f"a vector has {len(row)} numbers, those of its partition {own.rows.shape[1]}")
            self._append(own, id, row)
            self._order[id] = partition
            gone = []
            while len(self._order) > self._most:
                oldest = next(iter(self._order))
                self._remove(oldest)
                gone.append(oldest)
            return gone

    def remove(self, id: str) -> bool:
        """Whether it was there."""
        with self._lock:
            return self._remove(id)

    def nearest(self, partition: bytes, vector: Any, count: int = 5) -> list[tuple[str, float]]:
        """Ids with their cosines, nearest first."""
        with self._lock:
            own = self._partitions.get(partition)
            if own is None:
                return []
            row = self._numpy.asarray(vector, self._numpy.float32)
            if len(row) != own.rows.shape[1]:
                return []
            return self._search(own, row, min(count, len(own.ids)))

    def bytes_used(self) -> int:
        """By the arrays; ids and their places add some 300 bytes an entry."""
        with self._lock:
            return sum(own.rows.nbytes + own.coarse.nbytes for own in self._partitions.values())

    def _made(self, dimensions: int) -> _Partition:
        numpy = self._numpy
        rows = numpy.zeros((_ROWS_AT_FIRST, dimensions), numpy.int8)
        return _Partition([], {}, rows, numpy.zeros((_ROWS_AT_FIRST, min(dimensions, _COARSE)), numpy.float32))

    def _append(self, own: _Partition, id: str, row: Any) -> None:
        at = len(own.ids)
        if at == len(own.rows):
            own.rows = self._doubled(own.rows)
            own.coarse = self._doubled(own.coarse)
        own.rows[at] = self._numpy.clip(self._numpy.rint(row * 127), -127, 127)
        own.coarse[at] = row[: own.coarse.shape[1]]
        own.ids.append(id)
        own.places[id] = at

    def _doubled(self, array: Any) -> Any:
        return self._numpy.concatenate([array, self._numpy.zeros_like(array)])

    def _remove(self, id: str) -> bool:
        partition = self._order.pop(id, None)
        if partition is None:
            return False
        own = self._partitions[partition]
        at, last = own.places.pop(id), own.ids.pop()
        if last != id:
            own.ids[at] = last
            own.places[last] = at
            own.rows[at] = own.rows[len(own.ids)]
            own.coarse[at] = own.coarse[len(own.ids)]
        if not own.ids:
            del self._partitions[partition]
        elif len(own.rows) > 4 * len(own.ids) and len(own.rows) > _ROWS_AT_FIRST:
            half = len(own.rows) // 2
            own.rows, own.coarse = own.rows[:half].copy(), own.coarse[:half].copy()
        return True

    def _search(self, own: _Partition, row: Any, count: int) -> list[tuple[str, float]]:
        numpy, size = self._numpy, len(own.ids)
        if size > _FINE:
            rough = own.coarse[:size] @ row[: own.coarse.shape[1]]
            places = numpy.argpartition(rough, size - _FINE)[size - _FINE :]
        else:
            places = numpy.arange(size)
        cosines = own.rows[places].astype(numpy.float32) @ row / 127
        best = numpy.argsort(-cosines, kind="stable")[:count]
        return [(own.ids[places[at]], float(cosines[at])) for at in best]
