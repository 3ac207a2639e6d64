"""What a streamed answer says, for the request log: heard on its way to the client, read once it has ended."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

from mcpgate.llm import texts
from mcpgate.llm.events import Events, parts_of
from mcpgate.llm.metering import decoded

_AROUND = 16
"""Bytes of events for each byte of text."""


class Heard:
    """The beginning of a stream."""

    def __init__(self, events: AsyncIterator[bytes], most: int) -> None:
        """`most`: bytes of text that are enough."""
        self._events, self._left = events, _AROUND * most
        self._pieces: list[bytes] = []

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The events, as they come."""
        async with contextlib.aclosing(self._events) as events:  # type: ignore[type-var]
            async for event in events:
                if self._left > 0:
                    self._pieces.append(event[: self._left])
                    self._left -= len(event)
                yield event

    @property
    def raw(self) -> bytes:
        return b"".join(self._pieces)


def said_in(raw: bytes) -> str:
    """What the events of a stream say, part by part; the events themselves if they say nothing that is known. Takes
    time: not for the event loop."""
    said: dict[str, list[str]] = {}
    for event in Events().feed(raw):
        _, data = parts_of(event)
        for part, (container, key) in texts.deltas(decoded(data)) if data else ():
            said.setdefault(part, []).append(container[key])
    return "\n\n".join("".join(pieces) for pieces in said.values()) or raw.decode("utf-8", "replace")
