"""What a rival is: it opens a toolbox, which is all that a model sees, and the oracle's way of using it.

A toolbox is definitions, instructions and calls, the same for the oracle and for a real model. What differs between
rivals is how tools are found and how code is spelt: an `Idiom`.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.token_savings.catalogs import Catalogue
from benchmarks.token_savings.link import Reply
from benchmarks.token_savings.stage import Play, Stage
from benchmarks.token_savings.task import Task

Report = Callable[[Play], None]


class Toolbox(Protocol):
    """What a model sees of a rival."""

    definitions: Sequence[Mapping[str, Any]]
    """Functions in the OpenAI shape."""
    instructions: str

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Reply: ...


class Rival(Protocol):
    """One way to give a model many tools."""

    name: str
    title: str
    sample: int | None
    """Of each suite it plays about so many tasks, every difficulty in its share; None: all. For rivals that would take
    hours: the same tasks every time, in front of every catalogue, and reports say how many of how many."""

    def play(
        self, stage: Stage, tasks: Sequence[Task], catalogues: Sequence[Catalogue], report: Report
    ) -> Awaitable[None]:
        """The oracle plays every task in front of every catalogue."""
        ...


class Playable(Rival, Protocol):
    """A rival that a real model can play, because it really runs."""

    def open(self, stage: Stage, catalogue: Catalogue) -> AbstractAsyncContextManager[Toolbox]: ...


@dataclass(frozen=True)
class Idiom:
    """How a Code Mode is used, as its documentation says."""

    search: str
    describe: str
    describe_argument: str
    execute: str
    shown: Callable[[Stage, str, str], str]
    """(stage, server, tool) → what a call shape begins with, or what a search answer calls the tool."""
    described: Callable[[Stage, str, str], str]
    """(stage, server, tool) → the name that `describe` takes."""
    search_shows_shapes: bool
    """Whether code may be written straight from a search answer; if not, `describe` always comes between."""
    program: Callable[[str, Stage], str]
    """The oracle's code → the same in this rival's spelling."""
    browse: Callable[[Stage, str, str, str], dict[str, Any]] | None = None
    """(stage, server, question, everything shown so far) → arguments of `search` that show one server's tools. None: it
    cannot be asked about one server."""
    server_shown: Callable[[Stage, str, str], bool] | None = None
    """(stage, server, everything shown so far) → whether that names the server. None: as with `browse`."""
    spelt_out: Callable[[str], str] = lambda text: text
    """An answer of `search` → the same with every tool by the name that `shown` gives, where the answer shortens it."""
