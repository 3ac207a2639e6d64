"""Code Modes that run live: a gateway's process in front of the suite's servers and a replayed catalog.

Every rival here is queried live with every catalog. Programs run live with the first catalog, where the world verifies
what they did, and for mcpgate with all; for the other rivals, an execution's answer does not depend on tools that the
program does not call, so it is reused from there, and only searches and descriptions are repeated.

If a rival's sample takes longer than the run's time limit, it ends there, somewhere in a mixed order, so that what it
played is still a sample.
"""

import hashlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from benchmarks.token_savings.catalogs import Catalogue, replay
from benchmarks.token_savings.link import Link, Reply, connect
from benchmarks.token_savings.rivals.base import Idiom, Report, Toolbox
from benchmarks.token_savings.rivals.oracle import Oracle
from benchmarks.token_savings.stage import Play, Scene, Stage, play_of, scene_of
from benchmarks.token_savings.task import Task
from benchmarks.token_savings.transcript import function_of

_READY_TIMEOUT_S = 180.0
_FIRST_PATIENCE = 2
"""Factor on the time limit if programs run live."""


class GatewayToolbox:
    def __init__(self, link: Link, tools: Sequence[Mapping[str, Any]]) -> None:
        self._link = link
        self.instructions = link.instructions
        self.definitions: Sequence[Mapping[str, Any]] = [function_of(tool["name"], tool) for tool in tools]

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Reply:
        return await self._link.call(name, arguments)


@dataclass
class Record:
    """What programs did when they ran live."""

    replies: dict[str, Reply] = field(default_factory=dict)
    """By turn and step."""
    outcomes: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Task → upstream calls, and why it failed."""


@dataclass(frozen=True)
class Gateway:
    """A rival that is a process speaking MCP over stdio."""

    name: str
    title: str
    idiom: Idiom
    launch: Callable[[Stage, Mapping[str, Mapping[str, Any]], Path], dict[str, Any]]
    """(stage, `mcpServers`, folder) → the entry that starts it, with its configuration written."""
    probe: tuple[str, dict[str, Any]] | None = None
    """A call whose answer states the number of tools, to wait until all are listed."""
    always_runs: bool = False
    """Whether programs run live with every catalog."""
    sample: int | None = None

    @asynccontextmanager
    async def open(self, stage: Stage, catalogue: Catalogue) -> AsyncIterator[Toolbox]:
        rest = catalogue.without(stage.tools)
        folder = stage.folder / f"{self.name}-{catalogue.name}"
        folder.mkdir(parents=True, exist_ok=True)
        with replay(rest) as replayed:
            entry = self.launch(stage, {**stage.entries, **replayed}, folder)
            async with connect(entry, folder / "gateway.log") as link:
                if self.probe:
                    await self._wait(link, rest.size + sum(map(len, stage.tools.values())))
                yield GatewayToolbox(link, await link.list_tools())

    async def _wait(self, link: Link, tools: int) -> None:
        assert self.probe
        with anyio.fail_after(_READY_TIMEOUT_S):
            while f"{tools} tools" not in (await link.call(*self.probe)).text:
                await anyio.sleep(0.1)

    async def play(self, stage: Stage, tasks: Sequence[Task], catalogues: Sequence[Catalogue], report: Report) -> None:
        record = Record()
        for at, catalogue in enumerate(catalogues):
            async with self.open(stage, catalogue) as toolbox:
                scene = scene_of(stage, catalogue, toolbox.definitions)
                budget_s = stage.patience_s * (1 if at else _FIRST_PATIENCE)
                ends = time.monotonic() + budget_s
                for task in tasks if self.always_runs else _mixed(tasks):
                    if time.monotonic() > ends and not self.always_runs:
                        break
                    report(await self._play_one(stage, toolbox, task, scene, record))

    async def _play_one(self, stage: Stage, toolbox: Toolbox, task: Task, scene: Scene, record: Record) -> Play:
        really = self.always_runs or task.id not in record.outcomes

        async def execute(step: str, program: str) -> Reply:
            if really:
                record.replies[step] = await toolbox.call(self.idiom.execute, {"code": program})
            return record.replies[step]

        if really:
            stage.world.begin(task)
            stage.take_calls()
        oracle = Oracle(stage, toolbox, self.idiom, execute)
        talk = await oracle.play(task)
        if really:
            failure = stage.world.verify(task, talk.answers)
            record.outcomes[task.id] = len(stage.take_calls()), failure
        return play_of(stage, task, self.name, scene, talk, *record.outcomes[task.id], oracle.seconds)


def _mixed(tasks: Sequence[Task]) -> list[Task]:
    """The tasks in a mixed order, the same every time: a slow rival may end anywhere in it."""
    return sorted(tasks, key=lambda task: hashlib.sha256(task.id.encode()).digest())
