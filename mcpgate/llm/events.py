"""Server-sent events in a stream of bytes: split, not changed. Pure."""

import re
from collections.abc import Iterator

_LONGEST = 16 * 1024 * 1024
_BLANK_LINES = re.compile(rb"\r\n(?:\r\n)+|\n(?:\r?\n)+|\r\r+")
"""End an event. Lines end in LF, CRLF or CR."""


class EventTooLong(ValueError):
    """An event that does not end."""


class Events:
    """Whole events out of chunks that end anywhere."""

    def __init__(self, longest: int = _LONGEST) -> None:
        self._longest, self._parts, self._size = longest, bytearray(), 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Every event that is whole by now, with the blank lines that end it. Raises EventTooLong."""
        searched = max(0, len(self._parts) - 3)
        self._parts += chunk
        begin = 0
        while (blank := _BLANK_LINES.search(self._parts, max(begin, searched))) is not None:
            yield bytes(self._parts[begin : blank.end()])
            begin = blank.end()
        if begin:
            del self._parts[:begin]
        self._check()

    def whole(self, chunk: bytes) -> bytes:
        """The same in one piece; where lines end in LF, in a hundredth of the time. Raises EventTooLong."""
        if b"\r" in chunk or self._parts[-1:] == b"\r":
            return b"".join(self.feed(chunk))
        searched = max(0, len(self._parts) - 1)
        self._parts += chunk
        found = self._parts.rfind(b"\n\n", searched)
        if found < 0:
            self._check()
            return b""
        whole = bytes(self._parts[: found + 2])
        del self._parts[: found + 2]
        self._check()
        return whole

    def rest(self) -> bytes:
        """What came after the last whole event."""
        return bytes(self._parts)

    def _check(self) -> None:
        if len(self._parts) > self._longest:
            raise EventTooLong(f"an event of the stream is over {self._longest:,} bytes")


def parts_of(event: bytes) -> tuple[str, bytes]:
    """The name and the data of an event; empty where it has none."""
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2 and b"\r" not in event:
        return "", event[6:-2]  # nearly all of them
    name, data = "", []
    for line in event.splitlines():
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            name = value.decode("utf-8", "replace")
        elif field == b"data":
            data.append(value)
    return name, b"\n".join(data)
