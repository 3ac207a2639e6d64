"""Drives one contestant in its own process: commands from stdin, measurements to stdout, one JSON line each.

    python -m benchmarks.sandbox.worker NAME [--cold]

Standard library only; Linux only. Every figure is measured here, next to the contestant; the driver only says when.
"""

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.sandbox.adapters import ADAPTERS, Adapter, Answer, Ended, Failed
from benchmarks.sandbox.dialect import adapt

PAUSE_S = 0.03
"""Pause after each execution if executions come one by one, as a model's do: a pool refills meanwhile."""
_CALLS = 100
_AT_ONCE = 4
"""Executions in flight while the rate is measured."""
_NOTHING = "for i in range(1):\n    pass\n0"
_CALL = f"for i in range({_CALLS}):\n    r = t.echo(value=i)\nr"
_AWAITED_CALL = f"for i in range({_CALLS}):\n    r = await t.echo(value=i)\nr"
_BIG = "len(t.big())"
_GATHER = "import asyncio\nlen(await asyncio.gather(*[t.wait() for _ in range(50)]))"
_IN_TURN = "len([t.wait() for _ in range(50)])"
_PROGRAMS = {
    "fib": "def fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\nfib(24)",
    "loop": "total = 0\nfor i in range(300000):\n    total += i * 3 % 7\ntotal",
    "count": (
        "counts = {}\nfor i in range(100000):\n    word = str(i % 1000)\n"
        "    counts[word] = counts.get(word, 0) + 1\nlen(counts)"
    ),
}
_RESULTS = {"fib": 46368, "loop": 899997, "count": 1000}
_HOGS = {"a Python loop": "while True:\n    pass", "a C loop": "sum(range(10**12))"}


class Worker:
    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter

    async def run(self, code: str, limit_s: float | None = None) -> tuple[float, Answer]:
        """Seconds and answer. The code is adapted before the clock starts."""
        adapted = adapt(code, self._adapter.dialect)
        began = time.perf_counter()
        answer = await self._adapter.run(adapted, limit_s)
        return time.perf_counter() - began, answer

    async def timed(self, code: str, expected: Any) -> float:
        seconds, answer = await self.run(code)
        await asyncio.sleep(PAUSE_S)
        if answer.result != expected:
            raise Failed(f"the result is {str(answer.result)[:200]!r}, not {expected!r}")
        return seconds

    # The driver's commands

    async def fresh(self, runs: int) -> list[float]:
        """Executions of print(1), each with a pause after it."""
        samples = []
        for number in range(runs + 1):
            seconds, answer = await self.run("print(1)")
            if answer.stdout != "1\n":
                raise Failed(f"printed {answer.stdout!r}")
            if number:  # The first after a rest is not the steady state.
                samples.append(seconds)
            await asyncio.sleep(PAUSE_S)
        return samples

    async def back_to_back(self, runs: int) -> list[float]:
        return [(await self.run("print(1)"))[0] for _ in range(runs)]

    async def call(self, runs: int) -> list[float]:
        """Round trips of calls without `await`; none if calls must be awaited."""
        dialect = self._adapter.dialect
        return [] if dialect and dialect.awaits == "always" else await self._calls(_CALL, runs)

    async def awaited_call(self, runs: int) -> list[float]:
        dialect = self._adapter.dialect
        return [] if dialect and dialect.awaits == "never" else await self._calls(_AWAITED_CALL, runs)

    async def _calls(self, code: str, runs: int) -> list[float]:
        return [(await self.timed(code, _CALLS - 1) - await self._bare()) / _CALLS for _ in range(runs)]

    async def big(self, runs: int) -> list[float]:
        return [await self.timed(_BIG, 9200) - await self._bare() for _ in range(runs)]

    async def _bare(self) -> float:
        """The time of an empty execution."""
        return median([await self.timed(_NOTHING, 0) for _ in range(3)])

    async def gather(self, runs: int) -> list[float]:
        dialect = self._adapter.dialect
        code = _IN_TURN if dialect and dialect.awaits == "never" else _GATHER
        return [await self.timed(code, 50) for _ in range(runs)]

    async def rate(self, seconds: float) -> dict[str, list[float]]:
        """Executions per second with several in flight, and the CPU seconds of one, over all processes."""
        done = 0
        until = time.perf_counter() + seconds

        async def go_on() -> None:
            nonlocal done
            while time.perf_counter() < until:
                await self.run("print(1)")
                done += 1

        began, cpu_before_s = time.perf_counter(), _cpu_s()
        if self._adapter.blocking:
            with ThreadPoolExecutor(_AT_ONCE) as threads:
                loop = asyncio.get_running_loop()
                await asyncio.gather(
                    *(loop.run_in_executor(threads, lambda: asyncio.run(go_on())) for _ in range(_AT_ONCE))
                )
        else:
            await asyncio.gather(*(go_on() for _ in range(_AT_ONCE)))
        took = time.perf_counter() - began
        await asyncio.sleep(PAUSE_S)  # Work postponed until after an answer counts too.
        return {"rate": [done / took], "CPU": [(_cpu_s() - cpu_before_s) / done]}

    async def program(self, name: str, runs: int) -> list[float]:
        """CPU-bound programs, minus the time of an empty execution."""
        samples = []
        for _ in range(runs):
            began = time.perf_counter()
            if self._adapter.run_native(_PROGRAMS[name]):
                samples.append(time.perf_counter() - began)
            else:
                samples.append(await self.timed(_PROGRAMS[name], _RESULTS[name]) - await self._bare())
        return samples

    async def snippets(self, folder: str) -> dict[str, str]:
        """Why each snippet did not give its result, by name; empty for those that did."""
        reasons = {}
        for file in sorted(Path(folder).glob("*.py")):
            code = file.read_text(encoding="utf-8")
            expected = next(json.loads(line[10:]) for line in code.splitlines() if line.startswith("# result: "))
            try:
                seen = _as_json((await self.run(code))[1].result)
                reasons[file.stem] = "" if seen == expected else f"gave {json.dumps(seen)[:200]}"
            except (Failed, Ended) as error:
                reasons[file.stem] = _last_line(str(error)) or type(error).__name__
            except Exception as error:
                reasons[file.stem] = f"{type(error).__name__}: {_last_line(str(error))}"
        return reasons

    async def memory(self, sessions: int) -> dict[str, float]:
        """MiB of the engine and of each live session: this process and all under it."""
        await self.fresh(10)
        await self._adapter.hold("x = 1")
        await self._settle()
        pss, uss = _memory_mib()
        for _ in range(sessions):
            await self._adapter.hold("x = 1")
        await self._settle()
        pss_after, uss_after = _memory_mib()
        return {
            "engine": pss - _PSS_AT_START,
            "pss": (pss_after - pss) / sessions,
            "uss": (uss_after - uss) / sessions,
        }

    async def _settle(self) -> None:
        await asyncio.sleep(1)
        gc.collect()

    async def kill(self, program: str, limit_s: float) -> list[float]:
        """Seconds that a program runs beyond its limit."""
        began = time.perf_counter()
        try:
            await self.run(_HOGS[program], limit_s)
        except Ended:
            return [time.perf_counter() - began - limit_s]
        except Failed as error:
            raise Failed(f"ended by something else: {_last_line(str(error))}") from None
        raise Failed("it was not ended")


def _as_json(value: Any) -> Any:
    """The value as it would be sent to a model: tuples are lists, keys are strings."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        raise Failed(f"the result is not JSON: {error}") from None


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _memory_mib() -> tuple[float, float]:
    """Proportional and unique set size of this process and all its descendants."""
    pss = uss = 0
    for pid in _family():
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        sizes = {line.partition(":")[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
        pss += sizes["Pss"]
        uss += sizes["Private_Clean"] + sizes["Private_Dirty"]
    return pss / 1024, uss / 1024


def _cpu_s() -> float:
    """CPU seconds of this process and all its descendants, including ended ones."""
    ticks = 0
    for pid in _family():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))  # utime and stime, and both for children that were waited for
    return ticks / os.sysconf("SC_CLK_TCK")


def _family() -> Iterable[int]:
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parents[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    family = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return family


_PSS_AT_START = 0.0


def main() -> None:
    global _PSS_AT_START
    # What a contestant prints to its own stdout is not an answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    _PSS_AT_START = _memory_mib()[0]
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)

    async def open_adapter() -> Worker:
        adapter = ADAPTERS[sys.argv[1]](cold="--cold" in sys.argv)
        await adapter.open()
        worker = Worker(adapter)
        await worker.back_to_back(1)
        return worker

    def answer(doing: Any) -> Any:
        try:
            value = loop.run_until_complete(doing)
        except NotImplementedError:
            answers.write(json.dumps({"absent": True}) + "\n")
        except Exception as error:
            answers.write(json.dumps({"failed": f"{type(error).__name__}: {error}"[:1000]}) + "\n")
        else:
            answers.write(json.dumps({"value": None if isinstance(value, Worker) else value}) + "\n")
            return value

    worker = answer(open_adapter())
    if worker is None:
        os._exit(1)
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        command = json.loads(line)
        answer(getattr(worker, command.pop("do"))(**command))
    os._exit(0)  # Does not wait for what still runs.


if __name__ == "__main__":
    main()
