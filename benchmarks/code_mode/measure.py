"""Runs every contestant in turn, round after round, and records the measurements. Prints progress but no results.

Tasks come first, with all contestants running side by side; then starts, one process at a time. The first start
and the first run of each task are not counted: they warm disks and caches.
"""

import gc
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from bpe_openai import get_encoding

from benchmarks.code_mode.contestants import TASKS, Answer, Contestant, Session, Task, install_upstreams
from benchmarks.code_mode.stdio import ContestantFailed, NoAnswer
from benchmarks.servers import ServerFailed, install

_PAUSE_S = 0.03
"""Pause after each run, for what a gateway does after answering: its time does not count, its CPU does."""
_LEAST_RUNS = 5
_BACK_TO_BACK = 100
_BASES = itertools.count(1000, 100)


@dataclass(frozen=True)
class Effort:
    starts: int
    rounds: int
    slow_s: float
    """Seconds that the runs of one task at one contestant may take: a slow one gets fewer rounds."""
    total_s: float
    """No round begins after this."""


FULL = Effort(starts=5, rounds=100, slow_s=25, total_s=330)
QUICK = Effort(starts=2, rounds=25, slow_s=4, total_s=105)


@dataclass
class Record:
    """The measurements of one contestant."""

    starts_s: list[float] = field(default_factory=list)
    """Until the answer to tools/list."""
    first_calls_s: list[float] = field(default_factory=list)
    """Until the result of the first upstream call: a list can be answered before any upstream is connected."""
    runs_s: dict[str, list[float]] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)
    """By task, for all counted runs together, each including the pause after it."""
    back_to_back_s: float | None = None
    """One of many executions without calls and without pauses: what is put off until after an answer shows here."""
    back_to_back_cpu_s: float | None = None
    pythons_cpu_s: list[float] = field(default_factory=list)
    """Of `python -I -c pass`, run now and then between the tasks: what CPU times of this machine can be divided by."""
    rss_mib: tuple[float, float] | None = None
    pss_mib: float | None = None
    tools: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    """By part: `start` (then there is nothing else), `restart`, a task's name, `search`, `describe`."""

    def cpu_ms_per_call(self) -> float | None:
        tasks = [task for task in TASKS if task.calls > 1 and task.name in self.cpu_s]
        calls = sum(task.calls * len(self.runs_s[task.name]) for task in tasks)
        return sum(self.cpu_s[task.name] for task in tasks) * 1000 / calls if calls else None

    def cpu_ms_per_execution(self) -> float | None:
        name = TASKS[0].name
        return self.cpu_s[name] * 1000 / len(self.runs_s[name]) if name in self.cpu_s else None

    def in_pythons(self, cpu_ms: float | None) -> float | None:
        """CPU time as a multiple of a start of Python's."""
        return None if cpu_ms is None or not self.pythons_cpu_s else cpu_ms / 1000 / median(self.pythons_cpu_s)


def percentile(samples: Sequence[float], share: float) -> float:
    """Nearest rank: always a measured value."""
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
    gc.freeze()  # Imported objects are not garbage; scanning them would show in the percentiles.
    with ExitStack() as stack:
        sessions: dict[str, Session] = {}
        for contestant in ready:
            _say(f"starting {contestant.title}")
            try:
                sessions[contestant.name] = stack.enter_context(contestant.open())
            except Exception as error:  # An error in one contestant must not stop the others.
                records[contestant.name].failures["start"] = _reason(error)
        for name, session in sessions.items():
            _read_once(session, records[name])
        _run_tasks(sessions, records, effort, deadline)
        for name, session in sessions.items():
            records[name].rss_mib = session.peak_rss_mib()
            records[name].pss_mib = session.pss_mib()
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
    """Measures what does not change from run to run: definitions and discovery."""
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
    """One task of one contestant."""

    session: Session
    task: Task
    record: Record
    runs: int = 0

    def warm_up(self, effort: Effort) -> None:
        answer = self._ask()
        if answer is not None:
            self.runs = min(effort.rounds, max(_LEAST_RUNS, int(effort.slow_s / answer.seconds)))
        time.sleep(_PAUSE_S)

    def run(self) -> None:
        name, record = self.task.name, self.record
        cpu_before_s = self.session.cpu_s()
        answer = self._ask()
        if answer is None:
            return
        time.sleep(_PAUSE_S)
        cpu_after_s = self.session.cpu_s()
        record.runs_s.setdefault(name, []).append(answer.seconds)
        if self.task.calls > 1:
            record.tokens["answer"] = count_tokens(answer.text)
        if cpu_before_s is not None and cpu_after_s is not None:
            record.cpu_s[name] = record.cpu_s.get(name, 0.0) + cpu_after_s - cpu_before_s

    def run_back_to_back(self) -> None:
        cpu_before_s = self.session.cpu_s()
        began = time.perf_counter()
        for _ in range(_BACK_TO_BACK):
            if self._ask() is None:
                return
        self.record.back_to_back_s = (time.perf_counter() - began) / _BACK_TO_BACK
        time.sleep(_PAUSE_S)
        cpu_after_s = self.session.cpu_s()
        if cpu_before_s is not None and cpu_after_s is not None:
            self.record.back_to_back_cpu_s = (cpu_after_s - cpu_before_s) / _BACK_TO_BACK

    def _ask(self) -> Answer | None:
        """None if the contestant has no such task, or it failed."""
        if self.task.name in self.record.failures:
            return None
        try:
            return self.session.run(self.task, next(_BASES))
        except Exception as error:
            for task in TASKS if isinstance(error, NoAnswer) else [self.task]:
                self.record.failures[task.name] = _reason(error)
            return None


def _run_tasks(sessions: dict[str, Session], records: dict[str, Record], effort: Effort, deadline: float) -> None:
    cells = [_Cell(session, task, records[name]) for task in TASKS for name, session in sessions.items()]
    _say("warming up")
    for cell in cells:
        cell.warm_up(effort)
    shuffle = random.Random(0)
    for number in range(effort.rounds):
        if number % 10 == 0:
            _say(f"tasks, round {number + 1} of {effort.rounds}")
        if number % 3 == 0:
            start_s = _start_of_python_cpu_s()
            for record in records.values():
                record.pythons_cpu_s.append(start_s)
        for cell in shuffle.sample(cells, len(cells)):  # So that nobody always runs after the heaviest.
            due = (number + 1) * cell.runs // effort.rounds > number * cell.runs // effort.rounds
            if due and time.monotonic() < deadline:
                cell.run()
    _say("executions back to back")
    for cell in cells:
        if cell.task.calls == 0 and time.monotonic() < deadline:
            cell.run_back_to_back()


def _start_of_python_cpu_s() -> float:
    child = subprocess.Popen([sys.executable, "-I", "-c", "pass"])
    _, _, usage = os.wait4(child.pid, 0)
    child.returncode = 0
    return usage.ru_utime + usage.ru_stime


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, ContestantFailed) else f"{type(error).__name__}: {error}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
