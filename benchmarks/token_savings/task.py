"""What a task is, independent of its suite and of who plays it. Values and protocols only."""

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
    """One request of the user, and what the oracle does about it."""

    user: str
    rounds: Sequence[Sequence[Call]]
    """Ground truth, in order. The calls of one round do not need each other's results: an agent that makes parallel
    calls sends them in one request, one that does not sends them one after the other."""
    code: str
    """The oracle's Code Mode program for this turn: the same effect, as a model would write it, printing or returning
    only what the answer needs. Servers are globals by their identifiers."""
    answer: str
    """The assistant's final text."""
    steps: Sequence[str] = ()
    """Set if `code` is one program that no one could write in advance: some argument must be read from the prose of an
    earlier call's answer. The same effect as several programs, each written from what the previous ones showed. Empty:
    `code` is what a model can write."""


@dataclass(frozen=True, slots=True)
class Task:
    """One task of a suite."""

    id: str
    """Unique over all suites, e.g. `bfcl/multi_turn_base_12`."""
    suite: str
    difficulty: str
    """In the suite's own terms, or by the number of calls: `1 call`, `2-4 calls`, `5+ calls`."""
    servers: Sequence[str]
    """Names of the servers whose tools the oracle calls."""
    turns: Sequence[Turn]
    tags: frozenset[str] = field(default_factory=frozenset)


class World(Protocol):
    """The servers of a suite, running, and their state. One world serves many tasks, one after the other."""

    servers: Mapping[str, Mapping[str, Any]]
    """Name → entry as in `mcpServers`: what a gateway or a plain client connects to."""

    def begin(self, task: Task) -> None:
        """Reset the state to the start of the task. The servers keep running."""
        ...

    def verify(self, task: Task, answers: Sequence[str]) -> str:
        """Check the end state, and the assistant's last texts if the suite does. Returns an empty text if the task is
        done, else why not."""
        ...

    def close(self) -> None: ...


class Suite(Protocol):
    """A set of tasks and the world they are played in."""

    name: str

    def tasks(self) -> Sequence[Task]: ...

    def open(self, folder: Path) -> World:
        """Start the world; it may use `folder`. The servers are started by clients that connect to their entries."""
        ...
