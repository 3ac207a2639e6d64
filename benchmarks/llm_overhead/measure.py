"""Asks every gateway in turn, round after round, and records the figures. Prints progress but no results.

All gateways run side by side, but only one is asked at a time. The provider without a gateway is asked first in each
round: what a gateway adds is the difference from it.
"""

import contextlib
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

import psutil

from benchmarks.llm_overhead.contestants import DIRECT, FACES, Contestant, Face, Running, cores, spawn, start
from benchmarks.llm_overhead.load import Load, Measured
from benchmarks.llm_overhead.provider import EVENTS, PACE_S
from benchmarks.servers import ServerFailed, install

_CHECKOUT = Path(__file__).resolve().parents[2]
FEW, MANY, STREAMS, PACED_STREAMS = 1, 32, 16, 128
_PAUSE_S = 0.15
"""Pause after each load, for what a gateway does after answering: its CPU counts."""
_IDLE_S, _IDLE_TIMEOUT_S = 1.0, 60.0
_PACE_US = (EVENTS - 1) * PACE_S * 1e6


@dataclass(frozen=True)
class Effort:
    rounds: int
    paced_rounds: int
    seconds: float
    """Of each load."""
    total_s: float
    """No gateway is asked after this, counted from when all have started."""


FULL = Effort(rounds=7, paced_rounds=3, seconds=1.5, total_s=600)
QUICK = Effort(rounds=2, paced_rounds=1, seconds=0.5, total_s=120)


@dataclass
class Record:
    """The measurements of one contestant."""

    figures: dict[Face, dict[str, list[float]]] = field(default_factory=dict)
    """By face and figure: one of each round."""
    rss_mib: float | None = None
    pss_mib: float | None = None
    failures: dict[str, str] = field(default_factory=dict)
    """By part: `start` (then there is nothing else), or face and load, as in `chat streams`."""

    def median(self, face: Face, figure: str) -> float | None:
        samples = self.figures.get(face, {}).get(figure)
        return statistics.median(samples) if samples else None

    def add(self, face: Face, **figures: float) -> None:
        kept = self.figures.setdefault(face, {})
        for name, figure in figures.items():
            kept.setdefault(name, []).append(figure)


def percentile(samples: Sequence[float], share: float) -> float:
    """Nearest rank: always a measured value."""
    return sorted(samples)[max(0, ceil(share * len(samples)) - 1)]


class _Child:
    """A module of ours that runs as a process on the load's core."""

    def __init__(self, module: str) -> None:
        apart = cores()
        command = (sys.executable, "-m", f"benchmarks.llm_overhead.{module}")
        pipe = subprocess.PIPE
        core = apart[0] if apart else None
        self._process = spawn(command, core, cwd=_CHECKOUT, stdin=pipe, stdout=pipe, text=True)

    def read(self) -> Any:
        return json.loads(self._process.stdout.readline())

    def run(self, load: Load) -> Measured:
        self._process.stdin.write(json.dumps(asdict(load)) + "\n")
        self._process.stdin.flush()
        return Measured(**self.read())

    def close(self) -> None:
        with self._process:  # Closes its pipes and waits for it.
            self._process.kill()


@contextlib.contextmanager
def _child(module: str) -> Iterator[_Child]:
    child = _Child(module)
    try:
        yield child
    finally:
        child.close()


def measure(contestants: Sequence[Contestant], effort: Effort) -> dict[str, Record]:
    records = {contestant.name: Record() for contestant in contestants}
    ready = [contestant for contestant in contestants if _installed(contestant, records[contestant.name])]
    with ExitStack() as stack:
        client = stack.enter_context(_child("load"))
        provider: int = stack.enter_context(_child("provider")).read()
        lanes: list[_Lane] = []
        for contestant in ready:
            _say(f"starting {contestant.title}")
            record = records[contestant.name]
            try:
                running = stack.enter_context(start(contestant, provider))
            except Exception as error:  # An error in one contestant must not stop the others.
                record.failures["start"] = f"{type(error).__name__}: {error}"
                continue
            lanes += [_Lane(face, contestant, running, record, client) for face in contestant.faces]
        _wait_until_idle(lanes)
        for lane in lanes:
            lane.warm_up(effort)
        ends = time.monotonic() + effort.total_s
        shuffle = random.Random(0)
        for number in range(effort.rounds):
            _say(f"round {number + 1} of {effort.rounds}")
            for face in list(FACES)[:: 1 if number % 2 else -1]:  # So that the end of the time fails neither.
                mine = [lane for lane in lanes if lane.face == face]
                lines = shuffle.sample(mine, len(mine))  # So that nobody always comes after the same.
                bare: dict[str, float] = {}
                for lane in sorted(lines, key=lambda lane: lane.contestant is not DIRECT):
                    if time.monotonic() < ends:
                        lane.run(effort, bare, paced=number < effort.paced_rounds)
        for lane in lanes:
            lane.weigh()
    return records


def _installed(contestant: Contestant, record: Record) -> bool:
    try:
        if contestant.package:
            _say(f"installing {contestant.title} unless it is there")
            install(contestant.package)
    except (ServerFailed, OSError) as error:
        record.failures["start"] = f"not installed: {error}"
    return not record.failures


@dataclass
class _Lane:
    """One face of one gateway."""

    face: Face
    contestant: Contestant
    running: Running
    record: Record
    client: _Child

    def warm_up(self, effort: Effort) -> None:
        for stream in (False, True):
            self._ask("streams" if stream else "requests", 4, effort.seconds / 2, stream=stream)
        if self.running.asks[self.face].cached is not None:
            load = self.running.load(self.face, 1, cached=True)
            for _ in range(2):  # The first one is no hit yet.
                self.client.run(load)
                time.sleep(_PAUSE_S)

    def run(self, effort: Effort, bare: dict[str, float], *, paced: bool) -> None:
        """One round. `bare` is what the provider alone has taken in it, filled by the lane without a gateway."""
        seconds = effort.seconds
        if one := self._ask("requests", FEW, seconds):
            p50, p99 = (percentile(one[0].latencies_us, share) for share in (0.5, 0.99))
            self.record.add(self.face, rate_few=one[0].requests / one[0].seconds, p50_us=p50, p99_us=p99)
            if self.contestant is DIRECT:
                bare.update(p50=p50, p99=p99)
            elif bare:
                self.record.add(self.face, added_p50_us=p50 - bare["p50"], added_p99_us=p99 - bare["p99"])
        if many := self._ask("requests", MANY, seconds):
            self._add_rate("rate_many", "cpu_us", *many)
        if self.running.asks[self.face].cached is not None:
            if one := self._ask("hits", FEW, seconds, cached=True):
                p50 = percentile(one[0].latencies_us, 0.5)
                self.record.add(self.face, hit_rate_few=one[0].requests / one[0].seconds, hit_p50_us=p50)
            if many := self._ask("hits", MANY, seconds, cached=True):
                self._add_rate("hit_rate_many", "hit_cpu_us", *many)
        if streams := self._ask("streams", STREAMS, seconds, stream=True):
            self._add_rate("streams", "stream_cpu_us", *streams)
        if paced and (slow := self._ask("paced streams", PACED_STREAMS, 0.0, stream=True, paced=True)):
            measured, cpu_s = slow
            for name, samples, own in (("first", measured.first_us, 0.0), ("last", measured.latencies_us, _PACE_US)):
                for label, share in (("p50", 0.5), ("p99", 0.99)):
                    self.record.add(self.face, **{f"{name}_{label}_ms": (percentile(samples, share) - own) / 1000})
            if cpu_s is not None:
                self.record.add(self.face, event_cpu_us=cpu_s * 1e6 / measured.requests / EVENTS)

    def _add_rate(self, rate: str, cpu: str, measured: Measured, cpu_s: float | None) -> None:
        self.record.add(self.face, **{rate: measured.requests / measured.seconds})
        if cpu_s is not None:
            self.record.add(self.face, **{cpu: cpu_s * 1e6 / measured.requests})

    def _ask(
        self,
        part: str,
        connections: int,
        seconds: float,
        *,
        stream: bool = False,
        paced: bool = False,
        cached: bool = False,
    ) -> tuple[Measured, float | None] | None:
        """What was measured and the gateway's CPU seconds; None if this part has failed, now or before."""
        part = f"{self.face} {part}"
        if part in self.record.failures:
            return None
        before = self.cpu_s()
        load = self.running.load(self.face, connections, seconds, stream=stream, paced=paced, cached=cached)
        measured = self.client.run(load)
        time.sleep(_PAUSE_S)
        after = self.cpu_s()
        if measured.failed:
            said = " ".join(measured.said.split())
            self.record.failures[part] = f"{measured.failed} of {measured.requests} answers were wrong: {said}"
            return None
        return measured, after - before if before is not None and after is not None else None

    def cpu_s(self) -> float | None:
        """User and system time of the gateway, with children that have ended."""
        times = [process.cpu_times() for process in self._family()]
        return sum(sum(one[:4]) for one in times) if times else None

    def weigh(self) -> None:
        family = self._family()
        if family:
            sizes: Sequence[Any] = [process.memory_full_info() for process in family]
            self.record.rss_mib = sum(size.rss for size in sizes) / 2**20
            self.record.pss_mib = sum(size.pss for size in sizes) / 2**20

    def _family(self) -> list[psutil.Process]:
        if self.running.pid is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.running.pid)
            return [root, *root.children(recursive=True)]
        return []


def _wait_until_idle(lanes: Sequence[_Lane]) -> None:
    """Until no gateway works at what it has put off until after its start."""
    ends = time.monotonic() + _IDLE_TIMEOUT_S
    while time.monotonic() < ends:
        before = sum(lane.cpu_s() or 0.0 for lane in lanes)
        time.sleep(_IDLE_S)
        if sum(lane.cpu_s() or 0.0 for lane in lanes) - before < _IDLE_S / 5:
            return


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
