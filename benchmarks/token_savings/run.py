"""Plays suites with rivals and catalogs, and passes on every play as it ends. Reports nothing."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyio import create_task_group
from anyio.lowlevel import checkpoint

from benchmarks.token_savings.catalogs import Catalogue
from benchmarks.token_savings.link import connect_all
from benchmarks.token_savings.rivals.base import Rival
from benchmarks.token_savings.stage import CallLog, Play, Stage
from benchmarks.token_savings.task import Suite, Task, World


@dataclass(frozen=True)
class Plan:
    tasks: Mapping[str, Sequence[Task]]
    """Suite → the tasks chosen from it."""
    rivals: Sequence[Rival]
    catalogues: Sequence[Catalogue]
    engine: str
    patience_s: float
    """See `rivals.gateway`."""
    side_by_side: bool
    """Whether suites play in parallel: shorter on two cores, but the seconds in tools get longer."""
    folder: Path
    """Empty: results of an earlier run are not reused."""

    @property
    def plays(self) -> int:
        tasks = sum(len(self.tasks_of(rival, suite)) for suite in self.tasks for rival in self.rivals)
        return tasks * len(self.catalogues)

    def tasks_of(self, rival: Rival, suite: str) -> Sequence[Task]:
        """The tasks that a rival plays."""
        return stratified(self.tasks[suite], rival.sample) if rival.sample else self.tasks[suite]


async def run(
    plan: Plan, suites: Iterable[Suite], report: Callable[[Play], None], failed: Callable[[str], None]
) -> None:
    """Plays everything. A rival that fails in one suite is recorded in `failed`, and the others continue."""
    async with create_task_group() as group:
        for suite in suites:
            if plan.side_by_side:
                group.start_soon(_play_suite, plan, suite, report, failed)
            else:
                await _play_suite(plan, suite, report, failed)


async def _play_suite(plan: Plan, suite: Suite, report: Callable[[Play], None], failed: Callable[[str], None]) -> None:
    kinds: dict[tuple[str, str], str] = {}
    tools: Mapping[str, Sequence[Mapping[str, Any]]] = {}
    for rival in plan.rivals:
        folder = plan.folder / suite.name / rival.name
        folder.mkdir(parents=True)
        try:
            with closing(suite.open(folder / "world")) as world:
                stage = await open_stage(plan, suite.name, world, folder, tools, kinds)
                tools = stage.tools
                await rival.play(stage, plan.tasks_of(rival, suite.name), plan.catalogues, report)
        except Exception as error:  # A failure of one rival must not end the others.
            await checkpoint()  # Ctrl-C reaches a suite's processes too: then this is an interruption, not a failure.
            failed(f"{rival.title}, {suite.name}: {_reason(error)}")


async def open_stage(
    plan: Plan,
    suite: str,
    world: World,
    folder: Path,
    tools: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    kinds: dict[tuple[str, str], str] | None = None,
) -> Stage:
    """The stage around an open world. `tools` and `kinds` are known from other rivals' stages."""
    tools = tools or await list_tools(world, folder)
    calls = CallLog(folder / "calls.jsonl")
    return Stage(suite, world, folder, plan.engine, tools, calls, plan.patience_s, {} if kinds is None else kinds)


async def list_tools(world: World, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The tools that each server of a world lists."""
    async with connect_all(world.servers, folder) as links:
        return {name: await links[name].list_tools() for name in world.servers}


def stratified(tasks: Sequence[Task], count: int) -> list[Task]:
    """A sample with every difficulty in proportion, at least one of each; the same one every time."""
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.difficulty, []).append(task)
    chosen: set[str] = set()
    for group in groups.values():
        size = min(len(group), max(1, round(count * len(group) / len(tasks))))
        chosen.update(group[at * len(group) // size].id for at in range(size))
    return [task for task in tasks if task.id in chosen]


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
