"""A stream as one JSON array, which clients of Gemini get that have not asked for events. Its elements are what the
events hold, byte for byte."""

import contextlib
from collections.abc import AsyncIterator, Iterable

from mcpgate.errors import McpgateError
from mcpgate.llm.attempt import Streamed
from mcpgate.llm.events import Events, parts_of


def as_array(streamed: Streamed) -> Streamed:
    array = _Array(streamed)
    return Streamed(array.events(), array.broken, streamed.holds_request)


class _Array:
    def __init__(self, streamed: Streamed) -> None:
        self._streamed, self._begun = streamed, False

    async def events(self) -> AsyncIterator[bytes]:
        async with contextlib.aclosing(self._streamed.events) as events:  # type: ignore[type-var]
            async for event in events:
                if elements := self._elements(event):
                    yield elements
        yield b"]" if self._begun else b"[]"

    def broken(self, error: McpgateError) -> Iterable[bytes]:
        return [*map(self._elements, self._streamed.broken(error)), b"]"]

    def _elements(self, piece: bytes) -> bytes:
        found = []
        for event in Events().feed(piece):
            if data := parts_of(event)[1]:
                found.append((b",\r\n" if self._begun else b"[") + data)
                self._begun = True
        return b"".join(found)
