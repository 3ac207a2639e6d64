"""Asks every contestant in turn, round after round, and records the measurements. Prints progress but no results.

First what repeats, with all contestants' processes alive and one of them at work; then, in separate processes,
starts without a pool, memory, the snippets, and the hogs that must be killed.
"""

import random
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.sandbox.contestants import Absent, Contestant, ContestantFailed, Process, TooSlow, prepare

SNIPPETS = Path(__file__).parents[2] / "sandbox" / "tests" / "snippets"
LIMIT_S = 0.5
"""What the hogs may use."""
_SESSIONS = 20
_ASK_TIMEOUT_S = 60.0
KILL_TIMEOUT_S = 10.0
HOGS = ("a Python loop", "a C loop")


@dataclass(frozen=True)
class Part:
    """One thing that is measured in every round."""

    name: str
    do: str
    arguments: dict[str, Any]
    """For one round."""


_TIMED = (
    Part("fresh", "fresh", {"runs": 20}),
    Part("back to back", "back_to_back", {"runs": 30}),
    Part("call", "call", {"runs": 2}),
    Part("awaited call", "awaited_call", {"runs": 2}),
    Part("big answer", "big", {"runs": 2}),
    Part("gather", "gather", {"runs": 2}),
    Part("rate", "rate", {"seconds": 0.8}),
    *(Part(name, "program", {"name": name, "runs": 1}) for name in ("fib", "loop", "count")),
)
_COLD = Part("cold", "fresh", {"runs": 10})


@dataclass(frozen=True)
class Effort:
    rounds: int
    cold_rounds: int
    kills: int
    slow_s: float
    """Seconds that one part of one contestant may take: a slow one gets fewer rounds."""
    total_s: float
    """No round begins after this."""


FULL = Effort(rounds=10, cold_rounds=5, kills=3, slow_s=12, total_s=400)
QUICK = Effort(rounds=1, cold_rounds=1, kills=1, slow_s=3, total_s=60)


@dataclass
class Record:
    """The measurements of one contestant."""

    python: str = ""
    samples: dict[str, list[float]] = field(default_factory=dict)
    """By part, in seconds; `rate` in executions per second, with `CPU` in CPU seconds of one; `kill …` in seconds past
    the limit."""
    snippets: dict[str, str] = field(default_factory=dict)
    """Why each snippet did not give its result; empty for those that did."""
    memory_mib: dict[str, float] = field(default_factory=dict)
    never_ended: list[str] = field(default_factory=list)
    """Hogs that were still running when we gave up."""
    absent: str = ""
    """Why it did not take part."""
    failures: dict[str, str] = field(default_factory=dict)
    """By part; `start` is all of them."""

    def time(self, part: str) -> float | None:
        samples = self.samples.get(part)
        return median(samples) if samples else None

    def percentile(self, part: str, share: float) -> float | None:
        """Nearest rank: always a measured value."""
        samples = sorted(self.samples.get(part, ()))
        return samples[max(0, ceil(share * len(samples)) - 1)] if samples else None


def measure(contestants: Sequence[Contestant], effort: Effort) -> dict[str, Record]:
    records = {contestant.name: Record() for contestant in contestants}
    ready = []
    for contestant in contestants:
        record = records[contestant.name]
        try:
            _say(f"preparing {contestant.title}")
            record.python = prepare(contestant)
            ready.append(contestant)
        except Absent as reason:
            record.absent = str(reason)
        except ContestantFailed as reason:
            record.failures["start"] = str(reason)
    deadline = time.monotonic() + effort.total_s
    shuffle = random.Random(0)
    _run_rounds(ready, records, list(_TIMED), effort, effort.rounds, deadline, shuffle, cold=False)
    _run_rounds(ready, records, [_COLD], effort, effort.cold_rounds, deadline, shuffle, cold=True)
    for contestant in ready:
        record = records[contestant.name]
        if "start" in record.failures:
            continue
        _say(f"memory and snippets of {contestant.title}")
        _keep(record, "memory", lambda c=contestant, r=record: _measure_memory(c, r))
        _keep(record, "snippets", lambda c=contestant, r=record: _run_snippets(c, r))
    for number in range(effort.kills):
        _say(f"kills, round {number + 1} of {effort.kills}")
        for contestant in shuffle.sample(ready, len(ready)):
            for hog in HOGS:
                _kill(contestant, records[contestant.name], hog)
    return records


def _run_rounds(
    contestants: Sequence[Contestant],
    records: dict[str, Record],
    parts: Sequence[Part],
    effort: Effort,
    rounds: int,
    deadline: float,
    shuffle: random.Random,
    *,
    cold: bool,
) -> None:
    spent: dict[tuple[str, str], float] = {}
    with ExitStack() as stack:
        processes = {}
        for contestant in contestants:
            record = records[contestant.name]
            if "start" in record.failures:
                continue
            _say(f"starting {contestant.title}{', cold' * cold}")
            try:
                processes[contestant.name] = stack.enter_context(Process(contestant, cold=cold))
            except Absent:
                continue
            except ContestantFailed as reason:
                record.failures["cold" if cold else "start"] = str(reason)
        for number in range(rounds):
            _say(f"{'cold ' * cold}round {number + 1} of {rounds}")
            for part in parts:
                # In a different order each time, so that none always runs after the heaviest.
                for name in shuffle.sample(sorted(processes), len(processes)):
                    record, key = records[name], (name, part.name)
                    late = time.monotonic() > deadline and record.samples.get(part.name)
                    if late or part.name in record.failures or spent.get(key, 0) > effort.slow_s:
                        continue
                    began = time.monotonic()
                    _keep(record, part.name, lambda p=processes[name], r=record, part=part: _ask(p, r, part))
                    spent[key] = spent.get(key, 0) + time.monotonic() - began


def _ask(process: Process, record: Record, part: Part) -> None:
    seen = process.ask(part.do, _ASK_TIMEOUT_S, **part.arguments)
    for name, samples in seen.items() if isinstance(seen, dict) else [(part.name, seen)]:
        record.samples.setdefault(name, []).extend(samples)


def _measure_memory(contestant: Contestant, record: Record) -> None:
    with Process(contestant) as process:
        record.memory_mib = process.ask("memory", _ASK_TIMEOUT_S, sessions=_SESSIONS)


def _run_snippets(contestant: Contestant, record: Record) -> None:
    with Process(contestant) as process:
        record.snippets = process.ask("snippets", _ASK_TIMEOUT_S, folder=str(SNIPPETS))


def _kill(contestant: Contestant, record: Record, hog: str) -> None:
    part = f"kill {hog}"
    if {part, "start"} & record.failures.keys() or hog in record.never_ended:
        return

    def kill() -> None:
        # In a separate process: some continue after their end.
        with Process(contestant) as process:
            try:
                seen = process.ask("kill", KILL_TIMEOUT_S, program=hog, limit_s=LIMIT_S)
            except TooSlow:
                record.never_ended.append(hog)
                return
            record.samples.setdefault(part, []).extend(seen)

    _keep(record, part, kill)


def _keep(record: Record, part: str, act: Callable[[], None]) -> None:
    """A failure of one contestant must not stop the others."""
    try:
        act()
    except Exception as error:
        record.failures[part] = (
            str(error) if isinstance(error, ContestantFailed) else f"{type(error).__name__}: {error}"
        )


def _say(text: str) -> None:
    print(f"{time.monotonic() - _BEGAN:4.0f} s: {text}", file=sys.stderr, flush=True)


_BEGAN = time.monotonic()
