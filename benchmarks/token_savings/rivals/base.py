"""What a rival is: a toolbox, which is all that a model sees, and the oracle's way of using it.

A toolbox is definitions, instructions and calls, the same for the oracle and for a real model. Rivals differ in how
tools are found and how code is spelt: an `Idiom`.
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
    """About how many tasks of each suite it plays, every difficulty in proportion; None: all. For rivals that would
    take hours: the same tasks every time, with every catalog, and reports say how many of how many."""

    def play(
        self, stage: Stage, tasks: Sequence[Task], catalogues: Sequence[Catalogue], report: Report
    ) -> Awaitable[None]:
        """The oracle plays every task with every catalog."""
        ...


class Playable(Rival, Protocol):
    """A rival that a real model can play, because it runs live."""

    def open(self, stage: Stage, catalogue: Catalogue) -> AbstractAsyncContextManager[Toolbox]: ...


@dataclass(frozen=True)
class Idiom:
    """How a Code Mode is used, according to its documentation."""

    search: str
    describe: str
    describe_argument: str
    execute: str
    shown: Callable[[Stage, str, str], str]
    """(stage, server, tool) → the start of a call shape, or the tool's name in search answers."""
    described: Callable[[Stage, str, str], str]
    """(stage, server, tool) → the name that `describe` takes."""
    search_shows_shapes: bool
    """Whether code may be written directly from a search answer; if not, `describe` always comes first."""
    program: Callable[[str, Stage], str]
    """The oracle's code → the same in this rival's spelling."""
    browse: Callable[[Stage, str, str, str], dict[str, Any]] | None = None
    """(stage, server, query, everything shown so far) → arguments of `search` that show one server's tools. None: it
    cannot search one server."""
    server_shown: Callable[[Stage, str, str], bool] | None = None
    """(stage, server, everything shown so far) → whether that names the server. None: as with `browse`."""
    spelt_out: Callable[[str], str] = lambda text: text
    """An answer of `search` → the same with every shortened tool name replaced by the one from `shown`."""
