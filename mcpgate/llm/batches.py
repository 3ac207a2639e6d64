"""Batches that the gateway works through itself: values, and the contract of the table that they are in.
api/llm/batch_runner.py runs them; the table is implemented in stores/. Input and results are kept for as long as other
objects are (objects.KEPT_S)."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from mcpgate import jsontext
from mcpgate.errors import Unavailable

Kind = Literal["openai", "anthropic"]
"""Whose API it was made with."""
Status = Literal["validating", "in_progress", "cancelling", "completed", "failed", "expired", "cancelled"]
OPEN: tuple[Status, ...] = ("validating", "in_progress", "cancelling")
"""Those of batches that have not ended."""
State = Literal["started", "succeeded", "errored", "cancelled", "expired"]
"""Of a line; one that has not begun is not in the table."""
WINDOW_S = 86_400.0
"""How long a batch may take. Lines that have not begun by then expire."""
OWN = ""
"""Stands in place of a provider with files that the gateway keeps itself."""


class BatchesUnavailable(Unavailable):
    """The table cannot be read or written."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch."""

    id: str
    account: str
    """Whose it is: see Caller.account."""
    kind: Kind
    at: float
    """When it was made, epoch seconds."""
    status: Status
    format: str
    """Of its lines: see Asked.format."""
    file: str
    """Where its lines are: see BatchStore.piece."""
    caller: Mapping[str, Any]
    """With whose rights the lines are run: see batch_runner.caller_of."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """What its client said that belongs to the format."""
    query: str = ""
    metadata: Mapping[str, str] | None = None
    total: int = 0
    """Lines."""
    counts: Mapping[State, int] = field(default_factory=dict)
    """Of lines by state, once it has ended."""
    times: Mapping[str, float] = field(default_factory=dict)
    """When it came to a status, epoch seconds."""
    errors: Sequence[Mapping[str, Any]] = ()
    """Why its input cannot be used."""
    output: str = ""
    """The id of the file of lines that succeeded; empty for none."""
    failures: str = ""
    """The id of the file of the others."""

    @property
    def is_open(self) -> bool:
        return self.status in OPEN

    @property
    def ends_at(self) -> float:
        return self.at + WINDOW_S

    def to(self, status: Status, at: float, **changes: Any) -> "Batch":
        """It in another status."""
        return dataclasses.replace(self, status=status, times={**self.times, status: at}, **changes)

    def value(self) -> bytes:
        """What no column of the table has, as JSON."""
        return jsontext.dumps({name: getattr(self, name) for name in _IN_VALUE})


_COLUMNS = ("id", "account", "kind", "at", "status")
_IN_VALUE = tuple(one.name for one in dataclasses.fields(Batch) if one.name not in _COLUMNS)


def batch_of(row: Sequence[Any]) -> Batch:
    """A batch out of its columns and its value."""
    value = jsontext.loads(bytes(row[5]))
    return Batch(*row[:5], **{**value, "errors": tuple(value["errors"])})


class Line(NamedTuple):
    """What has become of one line."""

    number: int
    """From 0, in the order of the input."""
    state: State
    result: bytes
    """One line of JSON, as the batch's clients read it, without the break at its end."""


class BatchStore(Protocol):
    """The table, for all processes that share it. Every method raises BatchesUnavailable, and none blocks the event
    loop."""

    async def put_piece(self, account: str, file: str, number: int, data: bytes) -> None:
        """Keep one piece of a file."""
        ...

    async def piece(self, file: str, number: int) -> bytes | None:
        """None behind the last one."""
        ...

    async def drop_file(self, file: str) -> None: ...

    async def stored_bytes(self, account: str) -> int:
        """Of all files and results of an account."""
        ...

    async def add(self, batch: Batch, most_open: int) -> bool:
        """Whether there was room: an account has so many batches at most that have not ended."""
        ...

    async def get(self, account: str, kind: Kind, id: str) -> Batch | None: ...

    async def page(self, account: str, kind: Kind, at: str, most: int, newer: bool = False) -> list[Batch]:
        """Batches, the latest first: those before (or, with `newer`, after) the one with the id `at`, else the latest
        ones."""
        ...

    async def change(self, batch: Batch, was: Status) -> bool:
        """Store another status, if the batch still has the one that it had."""
        ...

    async def delete(self, batch: Batch) -> None:
        """With its lines."""
        ...

    async def claim(self, owner: str, now: float, until: float, but: Collection[str]) -> Batch | None:
        """The oldest open batch that no process works at, which is `owner`'s until then. `but`: accounts that are
        passed over."""
        ...

    async def renew(self, id: str, owner: str, until: float) -> Batch | None:
        """The batch as it stands now, still the owner's; None if it is no longer its."""
        ...

    async def release(self, id: str, owner: str) -> None: ...

    async def start(self, id: str, number: int) -> int | None:
        """Note that a line is about to be sent: the how manieth time that is. None for a line that has ended."""
        ...

    async def pause(self, id: str, number: int) -> None:
        """Forget that a line has begun: it is not under way now."""
        ...

    async def end(self, id: str, lines: Sequence[Line]) -> None:
        """Keep what has become of lines, durably. One that has ended before stays as it is."""
        ...

    async def ended(self, id: str) -> list[int]:
        """The numbers of lines that have ended."""
        ...

    async def counts(self, id: str) -> Mapping[State, int]: ...

    async def results(self, id: str, after: int, most: int, succeeded: bool | None = None) -> list[Line]:
        """Lines that have ended, from the one after a number on: as many as have `most` bytes, but one at least.
        `succeeded`: only those that have, or have not."""
        ...

    async def results_bytes(self, id: str, succeeded: bool) -> int:
        """The length of the file of them, with its line breaks."""
        ...

    async def tidy(self, oldest: float) -> None:
        """Forget what was made before a moment."""
        ...
