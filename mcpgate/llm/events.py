"""Server-sent events in a stream of bytes: split, not changed. Pure."""

from collections.abc import Iterator

_LONGEST = 16 * 1024 * 1024


class EventTooLong(ValueError):
    """An event that does not end."""


class Events:
    """Whole events out of chunks that end anywhere."""

    def __init__(self, longest: int = _LONGEST) -> None:
        self._longest, self._parts, self._size = longest, bytearray(), 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Every event that is whole by now, with the blank line that ends it. Raises EventTooLong."""
        searched = max(0, len(self._parts) - 3)
        self._parts += chunk
        begin = 0
        while (end := _end_of_event(self._parts, max(begin, searched))) != -1:
            yield bytes(self._parts[begin:end])
            begin = end
        if begin:
            del self._parts[:begin]
        if len(self._parts) > self._longest:
            raise EventTooLong(f"an event of the stream is over {self._longest:,} bytes")

    def rest(self) -> bytes:
        """What came after the last whole event."""
        return bytes(self._parts)


def _end_of_event(data: bytearray, start: int) -> int:
    """Where the first blank line ends; -1 if there is none. Lines end in LF, CRLF or CR."""
    best = -1
    for mark in (b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n"):
        at = data.find(mark, start)
        if at != -1 and (best == -1 or at + len(mark) < best):
            best = at + len(mark)
    return best


def parts_of(event: bytes) -> tuple[str, bytes]:
    """The name and the data of an event; empty where it has none."""
    name, data = "", []
    for line in event.splitlines():
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            name = value.decode("utf-8", "replace")
        elif field == b"data":
            data.append(value)
    return name, b"\n".join(data)
