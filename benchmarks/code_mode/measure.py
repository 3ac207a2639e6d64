"""Runs every contestant in turn, round after round, and keeps what was seen. It prints progress and no results.

Tasks come first, with all contestants running side by side; then starts, one process after the other. The first start
and the first run of each task are not counted: they warm disks and caches.
"""

import gc
import itertools
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from bpe_openai import get_encoding

from benchmarks.code_mode.contestants import TASKS, Contestant, Session, Task, install_upstreams
from benchmarks.code_mode.stdio import ContestantFailed, NoAnswer
from benchmarks.servers import ServerFailed, install

_PAUSE_S = 0.03
"""After each run, for what a gateway does once it has answered: that is nobody's time, and its CPU counts."""
_LEAST_RUNS = 5
_BASES = itertools.count(1000, 100)


@dataclass(frozen=True)
class Effort:
    starts: int
    rounds: int
    slow_s: float
    """Seconds that the runs of one task at one contestant may take: a slow one gets fewer rounds."""
    total_s: float
    """No round begins after that."""


FULL = Effort(starts=5, rounds=100, slow_s=25, total_s=330)
QUICK = Effort(starts=2, rounds=25, slow_s=4, total_s=105)


@dataclass
class Record:
    """What was seen of one contestant."""

    starts_s: list[float] = field(default_factory=list)
    """To an answered tools/list."""
    first_calls_s: list[float] = field(default_factory=list)
    """To the result of the first upstream call: a list can be answered before any upstream is there."""
    runs_s: dict[str, list[float]] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    cpu_s: float | None = None
    cpu_calls: int = 0
    rss_mib: tuple[float, float] | None = None
    tools: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    """By part: `start` (then there is nothing else), `restart`, a task's name, `search`, `describe`."""

    def cpu_ms_per_call(self) -> float | None:
        return self.cpu_s * 1000 / self.cpu_calls if self.cpu_s is not None and self.cpu_calls else None


def percentile(samples: Sequence[float], share: float) -> float:
    """Nearest rank: always a value that was seen."""
    return sorted(samples)[max(0, ceil(share * len(samples)) - 1)]


def median(samples: Sequence[float]) -> float:
    return statistics.median(samples)


def count_tokens(text: str) -> int:
    return len(_ENCODING.encode(text))


_ENCODING = get_encoding("o200k_base")


def measure(contestants: Sequence[Contestant], effort: Effort) -> dict[str, Record]:
    records = {contestant.name: Record() for contestant in contestants}
    ready = [contestant for contestant in contestants if _installed(contestant, records[contestant.name])]
    deadline = time.monotonic() + effort.total_s
    gc.collect()
    gc.freeze()  # What has been imported is no garbage; looking through it would show in the percentiles.
    with ExitStack() as stack:
        sessions: dict[str, Session] = {}
        for contestant in ready:
            _say(f"starting {contestant.title}")
            try:
                sessions[contestant.name] = stack.enter_context(contestant.open())
            except Exception as error:  # Whatever keeps one contestant from starting must not keep the others.
                records[contestant.name].failures["start"] = _reason(error)
        for name, session in sessions.items():
            _read_once(session, records[name])
        _run_tasks(sessions, records, effort, deadline)
        for name, session in sessions.items():
            records[name].rss_mib = session.peak_rss_mib()
    for number in range(effort.starts):
        _say(f"starts, round {number + 1} of {effort.starts}")
        for contestant in ready:
            if time.monotonic() < deadline and not {"start", "restart"} & records[contestant.name].failures.keys():
                _start_once(contestant, records[contestant.name])
    return records


def _installed(contestant: Contestant, record: Record) -> bool:
    try:
        install_upstreams()
        if contestant.package:
            _say(f"installing {contestant.title} unless it is there")
            install(contestant.package)
    except (ServerFailed, OSError) as error:
        record.failures["start"] = f"not installed: {error}"
    return not record.failures


def _start_once(contestant: Contestant, record: Record) -> None:
    began = time.perf_counter()
    try:
        with contestant.open() as session:
            answer = session.run(TASKS[1], next(_BASES))
            if session.listed_after_s is not None and answer is not None:
                record.starts_s.append(session.listed_after_s)
                record.first_calls_s.append(time.perf_counter() - began)
    except Exception as error:
        record.failures["restart"] = _reason(error)


def _read_once(session: Session, record: Record) -> None:
    """What does not change from run to run: definitions and discovery."""
    record.tools = len(session.tools)
    if session.tools:
        record.tokens["definitions"] = sum(count_tokens(_definition(tool)) for tool in session.tools)
        record.tokens["instructions"] = count_tokens(session.instructions)
    for part, ask in (("search", session.search), ("describe", session.describe)):
        try:
            if (text := ask()) is not None:
                record.tokens[part] = count_tokens(text)
        except Exception as error:
            record.failures[part] = _reason(error)


def _definition(tool: Any) -> str:
    shown = {key: tool[key] for key in ("name", "description", "inputSchema") if key in tool}
    return json.dumps(shown, ensure_ascii=False, separators=(",", ":"))


@dataclass
class _Cell:
    """One task at one contestant."""

    name: str
    session: Session
    task: Task
    record: Record
    runs: int = 0

    def run(self) -> float | None:
        """One run in seconds; None when there is no such task, or it failed."""
        cpu_before = self.session.cpu_s() if self.task.calls > 1 else None
        try:
            answer = self.session.run(self.task, next(_BASES))
        except Exception as error:
            for task in TASKS if isinstance(error, NoAnswer) else [self.task]:
                self.record.failures[task.name] = _reason(error)
            return None
        time.sleep(_PAUSE_S)
        if answer is None:
            return None
        if self.task.calls > 1:
            self.record.tokens["answer"] = count_tokens(answer.text)
        if cpu_before is not None and (cpu_after := self.session.cpu_s()) is not None:
            self.record.cpu_s = (self.record.cpu_s or 0.0) + cpu_after - cpu_before
            self.record.cpu_calls += self.task.calls
        return answer.seconds


def _run_tasks(sessions: dict[str, Session], records: dict[str, Record], effort: Effort, deadline: float) -> None:
    cells = []
    for task in TASKS:
        for name, session in sessions.items():
            if task.name in records[name].failures:
                continue
            cell = _Cell(name, session, task, records[name])
            _say(f"warming up {name}: {task.name}")
            seconds = cell.run()
            if seconds is not None:
                cell.runs = min(effort.rounds, max(_LEAST_RUNS, int(effort.slow_s / seconds)))
                cells.append(cell)
    for record in records.values():
        record.cpu_s, record.cpu_calls = None, 0
    shuffle = random.Random(0)
    for number in range(effort.rounds):
        if number % 10 == 0:
            _say(f"tasks, round {number + 1} of {effort.rounds}")
        for cell in shuffle.sample(cells, len(cells)):  # So that nobody always runs after the heaviest.
            due = (number + 1) * cell.runs // effort.rounds > number * cell.runs // effort.rounds
            if due and cell.task.name not in cell.record.failures and time.monotonic() < deadline:
                seconds = cell.run()
                if seconds is not None:
                    cell.record.runs_s.setdefault(cell.task.name, []).append(seconds)


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, ContestantFailed) else f"{type(error).__name__}: {error}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
