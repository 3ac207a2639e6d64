"""Parses server-sent events from bytes in linear time and bounded memory. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

_ENDS = 4096
"""Bytes kept of each end of an oversized event: the JSON-RPC id is at one of them."""
_LINE = 256
"""Bytes that a line without data counts for, in addition to its own: the number of lines is what costs time."""
_FREE_FIELDS = 8
"""Fields other than data that an event may have before each further one counts as such a line."""
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Event:
    kind: str
    data: bytes
    """Of an oversized event: its beginning."""
    size: int
    """Bytes of its lines."""
    too_long: bool = False
    tail: bytes = b""
    """Of an oversized event: its end."""


class EventReader:
    """Takes chunks as they arrive and returns the events that they complete."""

    def __init__(self, limit: int) -> None:
        """`limit`: the maximum size of an event in bytes."""
        self._limit = limit
        self._begun = self._after_cr = False
        # Not lists of pieces: a piece may be one byte, and each object costs forty.
        self._line = bytearray()
        self._line_size = 0
        self._data = bytearray()
        self._kind = "message"
        self._size = 0
        self._fields = 0
        """Fields other than data of the incomplete event."""
        self._head = self._tail = b""
        self.last_id = ""
        """Where a broken stream can be resumed; empty if it cannot."""
        self.retry_s: float | None = None
        """How long the server asks clients to wait before that."""
        self.skipped = 0
        """Bytes that contribute nothing: outside any event, or part of an oversized one. The consumer resets it."""

    @property
    def pending(self) -> int:
        """Bytes of the incomplete event."""
        return self._size

    def feed(self, chunk: bytes) -> Iterator[Event]:
        if not self._begun and chunk:
            self._begun = True
            chunk = chunk.removeprefix(_BOM)
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        for line in chunk.splitlines(keepends=True) if b"\r" in chunk else _lines(chunk):
            ended = line[-1:] in (b"\n", b"\r")
            self._append(line.rstrip(b"\r\n") if ended else line)
            if ended and (event := self._finish_line()) is not None:
                yield event
        self._after_cr = chunk.endswith(b"\r")

    def _append(self, piece: bytes) -> None:
        self._line_size += len(piece)
        self._size += len(piece)
        if self._size <= self._limit:
            self._line += piece
            return
        self.skipped += len(piece)
        if not self._tail:
            begun = bytes(self._line[:_ENDS] + piece[:_ENDS]).removeprefix(b"data:")
            self._head = (bytes(self._data[:_ENDS]) + begun)[:_ENDS].strip()
            self._line, self._data = bytearray(), bytearray()
        self._tail = (self._tail + piece)[-_ENDS:]

    def _finish_line(self) -> Event | None:
        if self._line_size == 0:
            return self._finish_event()
        line, size = bytes(self._line), self._line_size
        self._line, self._line_size = bytearray(), 0
        if self._size > self._limit:
            self.skipped += _LINE
            return None
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._size += 1  # lines cost memory too
            self._data += value + b"\n"
        elif name in (b"event", b"id", b"retry"):
            self._size += 1
            self._fields += 1
            if self._fields > _FREE_FIELDS:
                self.skipped += _LINE
            self._set(name, value)
        else:
            self._size -= size  # comments and unknown fields belong to no event
            self.skipped += size + _LINE
        return None

    def _set(self, name: bytes, value: bytes) -> None:
        if name == b"event":
            self._kind = value[:100].decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value and len(value) <= _ENDS:
            self.last_id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) <= 9:
            self.retry_s = int(value) / 1000

    def _finish_event(self) -> Event | None:
        if self._size == 0:
            self.skipped += _LINE
            return None
        kind, data, size, head, tail = self._kind, self._data, self._size, self._head, self._tail
        fields, self._fields = self._fields, 0
        self._kind, self._data, self._size, self._head, self._tail = "message", bytearray(), 0, b"", b""
        if size > self._limit:
            return Event(kind, head, size, too_long=True, tail=tail)
        if data:
            return Event(kind, bytes(data[:-1]), size)
        self.skipped += size + _LINE * (1 + min(fields, _FREE_FIELDS))
        return None


def _lines(chunk: bytes) -> Iterator[bytes]:
    start = 0
    while (end := chunk.find(b"\n", start)) >= 0:
        yield chunk[start : end + 1]
        start = end + 1
    if start < len(chunk):
        yield chunk[start:]
