"""Own tasks over real servers that work offline, judged by the final content of files, tables, commits, cells and keys.

The servers are those pinned in `benchmarks.servers`, started once on one folder; `begin` resets that folder.
"""

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.servers import SERVERS, install, mcp_servers
from benchmarks.token_savings.suites.oracle import by_calls
from benchmarks.token_savings.suites.own_desk import GIT_ENV, Desk, has_redis
from benchmarks.token_savings.suites.own_tasks import figures, files, joins, single
from benchmarks.token_savings.suites.own_tasks.making import HOME, OwnTask
from benchmarks.token_savings.task import Task

_NAMES = ("filesystem", "git", "sqlite", "memory", "time", "excel", "word", "redis")
_AT_HOME = Path(__file__).parent / "shims" / "at_home.py"
TASKS = (*single.TASKS, *files.TASKS, *joins.TASKS, *figures.TASKS)


class OwnSuite:
    name = "own"

    def __repr__(self) -> str:
        return f"<OwnSuite of {len(self.tasks())} tasks, {len(self.skipped)} skipped>"

    @property
    def skipped(self) -> Mapping[str, str]:
        """Task → why it cannot be played here."""
        if has_redis():
            return {}
        return {_id(task): "needs redis-server and redis-cli" for task in TASKS if "redis" in task.servers}

    def tasks(self) -> Sequence[Task]:
        return [_to_task(task) for task in TASKS if _id(task) not in self.skipped]

    def install(self) -> None:
        for name in _NAMES:
            install(SERVERS[name])

    def open(self, folder: Path) -> "OwnWorld":
        self.install()
        return OwnWorld(folder)


class OwnWorld:
    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._desk = Desk(folder)
        self._tasks = {_id(task): task for task in TASKS}
        names = [name for name in _NAMES if name != "redis" or self._desk.redis]
        lines = mcp_servers([SERVERS[name] for name in names], self._desk.root)
        self.servers: Mapping[str, Mapping[str, Any]] = {name: self._entry(name, line) for name, line in lines.items()}
        self._desk.reset()

    def begin(self, task: Task) -> None:
        self._desk.reset()

    def verify(self, task: Task, answers: Sequence[str]) -> str:
        return self._tasks[task.id].done(self._desk, answers[-1] if answers else "")

    def close(self) -> None:
        self._desk.close()

    def _entry(self, name: str, line: Mapping[str, Any]) -> dict[str, Any]:
        arguments = line["args"]
        if name == "redis":
            assert self._desk.redis
            arguments = ["--url", f"redis://127.0.0.1:{self._desk.redis.port}/0"]
        command = shutil.which(line["command"]) or line["command"]
        return {
            "command": sys.executable,
            "args": ["-I", "-S", str(_AT_HOME), str(self._desk.root), HOME, command, *arguments],
            "env": {**line["env"], **(GIT_ENV if name == "git" else {})},
        }


def _id(task: OwnTask) -> str:
    return f"{OwnSuite.name}/{task.name}"


def _to_task(task: OwnTask) -> Task:
    number = len([call for calls in task.turn.rounds for call in calls])
    found = {
        "single-call": number == 1,
        "parallel": any(len(calls) > 1 for calls in task.turn.rounds),
        "multi-server": len(task.servers) > 1,
    }
    return Task(
        id=_id(task),
        suite=OwnSuite.name,
        difficulty=by_calls(number),
        servers=task.servers,
        turns=[task.turn],
        tags=task.tags | {tag for tag, holds in found.items() if holds},
    )


SUITE = OwnSuite()
