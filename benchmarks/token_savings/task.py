"""What a task is, whatever suite it comes from and whoever plays it. Values and protocols only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call of the ground truth."""

    server: str
    tool: str
    """The original name, as the server lists it."""
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """One thing that the user asks for, and what the oracle does about it."""

    user: str
    rounds: Sequence[Sequence[Call]]
    """Ground truth, in order. The calls of one round do not need each other's results: an agent that makes parallel
    calls sends them in one request, one that does not sends them one after the other."""
    code: str
    """The oracle's Code Mode program for this turn: the same effect, as a model would write it, printing or returning
    only what the answer needs. Servers are globals by their identifiers."""
    answer: str
    """What the assistant says in the end."""
    steps: Sequence[str] = ()
    """Set where `code` is one program that nobody could have written at once: some argument has to be read out of the
    prose that an earlier call answers. The same effect as programs one after the other, each written from what those
    before it showed. Empty: `code` is what a model can write."""


@dataclass(frozen=True, slots=True)
class Task:
    """One task of a suite."""

    id: str
    """Unique over all suites, e.g. `bfcl/multi_turn_base_12`."""
    suite: str
    difficulty: str
    """The suite's own words, or by the number of calls: `1 call`, `2-4 calls`, `5+ calls`."""
    servers: Sequence[str]
    """Names of the servers whose tools the oracle calls."""
    turns: Sequence[Turn]
    tags: frozenset[str] = field(default_factory=frozenset)


class World(Protocol):
    """The servers of a suite, running, and their state. One world serves many tasks, one after the other."""

    servers: Mapping[str, Mapping[str, Any]]
    """Name → entry as in `mcpServers`: what a gateway or a plain client connects to."""

    def begin(self, task: Task) -> None:
        """Put the state to where the task starts. The servers go on running."""
        ...

    def verify(self, task: Task, answers: Sequence[str]) -> str:
        """Look at the end state, and at the last texts of the assistant where the suite asks for it. Returns nothing
        when the task is done, else why not."""
        ...

    def close(self) -> None: ...


class Suite(Protocol):
    """A set of tasks and the world they are played in."""

    name: str

    def tasks(self) -> Sequence[Task]: ...

    def open(self, folder: Path) -> World:
        """Start the world; `folder` is its to use. The servers are started by whoever connects to their entries."""
        ...
