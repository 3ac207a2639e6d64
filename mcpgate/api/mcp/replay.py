"""What the streams of one session have said, kept for a while: a client whose stream broke asks for what it missed with
the id of the last event that it has (`Last-Event-ID`). Bounded in bytes; the oldest events go first."""

from collections import OrderedDict, deque
from collections.abc import Callable

from mcpgate.api.mcp.changes import Changes

KEPT_BYTES, KEPT_BYTES_IN_ALL = 8 * 1024 * 1024, 64 * 1024 * 1024
"""Of one session, and of all together."""
_MOST_STREAMS = 64
"""Of one session, that have ended and can still be asked for."""
_MOST_EVENTS = 10_000
Event = tuple[bytes, bytes]
"""Its id and its data."""


class Stream:
    """The events of one response, which outlives its connection."""

    def __init__(self, number: int, keep: Callable[[int, int, bytes], None]) -> None:
        self.number, self._keep = number, keep
        self.last = 0
        """The number of its last event."""
        self.ended = False
        self.changes = Changes()
        """Told when there is more, or the stream has ended."""

    def add(self, data: bytes) -> bytes:
        """Keep an event. Its id, which is unique within the session."""
        self.last += 1
        self._keep(self.number, self.last, data)
        self.changes.tell()
        return b"%d-%d" % (self.number, self.last)

    def end(self) -> None:
        self.ended = True
        self.changes.tell()


class Replay:
    """The streams of one session."""

    def __init__(self, on_size: Callable[[int], None] = lambda change: None, limit: int = KEPT_BYTES) -> None:
        """`on_size`: told of every change of the bytes that are kept."""
        self._on_size, self._limit = on_size, limit
        self._events: deque[tuple[int, int, bytes]] = deque()
        """Stream, number and data of each."""
        self._streams: OrderedDict[int, Stream] = OrderedDict()
        self._number = 0
        self.standing = Stream(0, self._keep)
        """What belongs to no request."""
        self.size = 0
        self._closed = False

    def open(self) -> Stream:
        """A stream for the response to a request."""
        self._number += 1
        for number in [number for number, stream in self._streams.items() if stream.ended][:-_MOST_STREAMS]:
            del self._streams[number]
        stream = self._streams[self._number] = Stream(self._number, self._keep)
        return stream

    def find(self, event_id: str) -> tuple[Stream, int] | None:
        """The stream of an event, and the event's number; None for an id that is unknown or forgotten."""
        parts = event_id.split("-")
        if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
            return None
        number, event = map(int, parts)
        stream = self.standing if number == 0 else self._streams.get(number)
        return None if stream is None or event > stream.last else (stream, event)

    def after(self, stream: Stream, event: int) -> list[Event]:
        """What a stream has said after an event, as far as it is still kept."""
        return [
            (b"%d-%d" % (stream.number, number), data)
            for of, number, data in self._events
            if of == stream.number and number > event and data
        ]

    def shrink(self) -> None:
        """Forget the oldest event."""
        _, _, data = self._events.popleft()
        self._change(-len(data))

    def close(self) -> None:
        """Nobody can ask any longer; what its streams still say is not kept."""
        self._closed = True
        self._events.clear()
        self._change(-self.size)
        for stream in (self.standing, *self._streams.values()):
            stream.end()

    def _keep(self, stream: int, number: int, data: bytes) -> None:
        if self._closed:
            return
        self._events.append((stream, number, data))
        self._change(len(data))
        while (self.size > self._limit or len(self._events) > _MOST_EVENTS) and len(self._events) > 1:
            self.shrink()

    def _change(self, size: int) -> None:
        if size:
            self.size += size
            self._on_size(size)
