"""One request and its answer under guardrails. Answers are read in the client's format, whatever the provider speaks.
What no guardrail changes stays as it is, byte for byte."""

import copy
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mcpgate import jsontext
from mcpgate.errors import McpgateError
from mcpgate.llm import texts
from mcpgate.llm.asked import Asked
from mcpgate.llm.events import Events, parts_of
from mcpgate.llm.guardrails import About, Filter, Guardrails
from mcpgate.llm.metering import decoded
from mcpgate.llm.wire import Finish

_MOST_REMEMBERED = 4 * 1024 * 1024
"""Characters of an answer that are kept for `after`."""


async def guarded_request(asked: Asked, guardrails: Guardrails, about: About) -> Asked:
    """The request as the guardrails let it through. Raises Blocked."""
    parsed = copy.deepcopy(dict(asked.parsed))
    places = texts.of_request(parsed)
    if not places or not texts.write(places, await guardrails.before(texts.read(places), about)):
        return asked
    return dataclasses.replace(asked, parsed=parsed, body=jsontext.dumps(parsed))


async def guarded_stored(body: bytes, guardrails: Guardrails, about: About) -> bytes:
    """What a provider has kept of a request or of its answer, as the guardrails let it through now. Raises Blocked."""
    stored = decoded(body)
    return await _guarded(body, stored, texts.of_answer({"output": stored}), guardrails, about)


async def guarded_answer(body: bytes, guardrails: Guardrails, about: About) -> bytes:
    """A whole answer in the client's format, as the guardrails let it through now. Raises Blocked."""
    answer = decoded(body)
    return await _guarded(body, answer, texts.of_answer(answer), guardrails, about)


async def _guarded(
    body: bytes, stored: Any, places: Sequence[texts.Place], guardrails: Guardrails, about: About
) -> bytes:
    changed = texts.write(places, [_checked(guardrails, about, text) for text in texts.read(places)])
    await guardrails.after("".join(texts.read(places))[:_MOST_REMEMBERED], about)
    return jsontext.dumps(stored) if changed else body


def _checked(guardrails: Guardrails, about: About, text: str) -> str:
    filter = guardrails.during(about)
    return text if filter is None else filter.feed(text) + filter.end()


@dataclass(slots=True)
class _Pending:
    """An event whose text goes on: what is kept back of it may come out with the next one, or with itself."""

    name: str
    message: Any
    places: list[tuple[str, texts.Place]]


class Guarded:
    """The answer of a provider on its way to the client: see wire.Finish."""

    def __init__(self, finish: Finish, guardrails: Guardrails, about: About) -> None:
        self._finish, self._guardrails, self._about = finish, guardrails, about
        self.holds_request = finish.holds_request
        self._filters: dict[str, Filter] = {}
        self._pending: list[_Pending] = []
        self._said: list[str] = []
        self._size = 0

    @property
    def text(self) -> str:
        """What has been passed on."""
        return "".join(self._said)

    def whole(self, body: bytes) -> bytes:
        body = self._finish.whole(body)
        answer = decoded(body)
        places = texts.of_answer(answer)
        changed = texts.write(places, [self._checked(text) for text in texts.read(places)])
        self._remember(texts.read(places))
        return jsontext.dumps(answer) if changed else body

    def error(self, status: int, body: bytes) -> bytes:
        return self._finish.error(status, body)

    def event(self, event: bytes) -> Iterable[bytes]:
        for piece in self._finish.event(event):
            yield from self._passed(piece)

    def end(self) -> Iterable[bytes]:
        for piece in self._finish.end():
            yield from self._passed(piece)
        yield from self._flushed()

    def broken(self, error: McpgateError) -> Iterable[bytes]:
        return self._finish.broken(error)

    async def after(self) -> None:
        """Raises Blocked."""
        await self._guardrails.after(self.text, self._about)

    def _passed(self, piece: bytes) -> Iterator[bytes]:
        for event in Events().feed(piece):
            name, data = parts_of(event)
            message = decoded(data) if data else None
            wholes = texts.wholes(message)
            changed = texts.write(wholes, [self._checked(text) for text in texts.read(wholes)])
            places = list(texts.deltas(message))
            if places:
                yield from self._written(name, message, places)
                continue
            if data and texts.is_end(message):
                yield from self._flushed()
            yield _rendered(name, message) if changed else event

    def _written(self, name: str, message: Any, places: list[tuple[str, texts.Place]]) -> Iterator[bytes]:
        keys = {key for key, _ in places}
        earlier = [one for one in self._pending if keys & {key for key, _ in one.places}]
        for key, (container, field) in places:
            if key not in self._filters:
                found = self._guardrails.during(self._about)
                if found is None:
                    continue
                self._filters[key] = found
            container[field] = self._filters[key].feed(container[field])
        for one in earlier:
            self._pending.remove(one)
            yield self._sent(one)
        pending = _Pending(name, message, places)
        if texts.is_end(message):
            self._pending.append(pending)
            yield from self._flushed()
        else:
            self._pending.append(pending)

    def _flushed(self) -> Iterator[bytes]:
        """What was kept back, at the end of a part."""
        for one in self._pending:
            for key, (container, field) in one.places:
                if (filter := self._filters.pop(key, None)) is not None:
                    container[field] += filter.end()
            yield self._sent(one)
        self._pending.clear()

    def _sent(self, one: _Pending) -> bytes:
        self._remember([container[field] for _, (container, field) in one.places])
        return _rendered(one.name, one.message)

    def _checked(self, text: str) -> str:
        return _checked(self._guardrails, self._about, text)

    def _remember(self, said: list[str]) -> None:
        for text in said:
            if self._size < _MOST_REMEMBERED:
                self._said.append(text[: _MOST_REMEMBERED - self._size])
                self._size += len(text)


def _rendered(name: str, message: Any) -> bytes:
    head = b"event: " + name.encode() + b"\n" if name else b""
    return head + b"data: " + jsontext.dumps(message) + b"\n\n"
