"""Plain calls, or admissions, of two checkouts of mcpgate, by turns on the same machine: has a change made them slower?

    git worktree add ../before COMMIT && make -C ../before sandbox
    python -m benchmarks.revisions ../before . [--governance | --models] [--settings JSON]

Each checkout serves tests/raw_server.py over stdio; with `--governance` it runs its own `benchmarks.governance` on
memory and SQLite instead; with `--models` it answers requests for a model over HTTP, eight at once. `--settings` are
sections of the configuration that only the second checkout gets: the same checkout twice shows what a setting costs.

The table has the median and the minimum of a call in milliseconds and the CPU time of the gateway process, each as a
ratio of the second checkout to the first. Of admissions it has p50 in microseconds, and the ratios of p50 and of the
CPU time, each as the median of all rounds and as their minimum.
"""

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

_SERVER = Path(__file__).parents[1] / "tests" / "raw_server.py"
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "a direct call": ("raw__add", {"a": 1, "b": 2}, 200),
    "an execution without calls": ("execute_code", {"code": "1 + 1"}, 60),
    "an execution with 1 call": ("execute_code", {"code": "raw.add(a=1, b=2)"}, 60),
    "… with 50 calls in turn": ("execute_code", {"code": "for i in range(50): raw.add(a=1, b=i)"}, 12),
    "… with 50 calls at once": (
        "execute_code",
        {"code": "await asyncio.gather(*[raw.add(a=1, b=i) for i in range(50)])\n1"},
        12,
    ),
}
"""What is called, and how often in each round."""


class Gateway:
    """One checkout's gateway, and a lean client of it."""

    def __init__(self, checkout: Path, folder: Path, settings: Mapping[str, Any]) -> None:
        config = folder / "mcpgate.json"
        server = {"command": sys.executable, "args": [str(_SERVER)], "expose": "both"}
        config.write_text(json.dumps({"mcpServers": {"raw": server}, **settings}))
        path = os.pathsep.join(map(str, (checkout, checkout / "sandbox")))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mcpgate", "serve", "--stdio", "-c", str(config)],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": path, "XDG_DATA_HOME": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._id = 0
        client = {"name": "benchmark", "version": "1"}
        self.ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client})
        while "raw__add" not in json.dumps(self.ask("tools/list", {})):
            time.sleep(0.05)
        self.call("execute_code", {"code": "1"})

    def ask(self, method: str, params: dict[str, Any]) -> Any:
        self._id += 1
        request = {"jsonrpc": "2.0", "id": self._id, "method": method, "params": params}
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(json.dumps(request).encode() + b"\n")
        stdin.flush()
        while True:
            answer = json.loads(stdout.readline())
            if answer.get("id") == self._id:
                return answer["result"]

    def call(self, tool: str, arguments: dict[str, Any]) -> float:
        """Milliseconds of one call."""
        began = time.perf_counter()
        result = self.ask("tools/call", {"name": tool, "arguments": arguments})
        took_ms = (time.perf_counter() - began) * 1000
        assert not result.get("isError"), result
        return took_ms

    def cpu_s(self) -> float:
        return cpu_s(self._process.pid)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class ModelGateway:
    """One checkout's gateway over HTTP, with a provider that repeats what it is asked."""

    def __init__(self, checkout: Path, folder: Path, settings: Mapping[str, Any]) -> None:
        config = folder / "mcpgate.json"
        config.write_text(json.dumps({"llm": {"providers": {"echo": {"type": "echo"}}}, **settings}))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        path = os.pathsep.join(map(str, (checkout, checkout / "sandbox")))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mcpgate", "serve", "--port", str(self._port), "-c", str(config)],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": path, "XDG_DATA_HOME": str(folder)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while True:
            try:
                self.ask(1)
                return
            except OSError:
                time.sleep(0.05)

    def ask(self, times: int) -> None:
        """So many requests, one after the other."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        for _ in range(times):
            connection.request("POST", "/v1/chat/completions", _BODY, {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
        connection.close()

    def cpu_s(self) -> float:
        return cpu_s(self._process.pid)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)


_CALLERS, _EACH = 8, 150
_BODY = json.dumps(
    {"model": "echo/repeat", "messages": [{"role": "user", "content": "The quick brown fox jumps. " * 40}]}
).encode()


def measure_models(gateways: Sequence[ModelGateway], rounds: int) -> None:
    """Print the requests a second, and the CPU time of a request."""
    rates: list[list[float]] = [[] for _ in gateways]
    cpu: list[list[float]] = [[] for _ in gateways]
    with ThreadPoolExecutor(_CALLERS) as pool:
        for number in range(rounds):
            order = range(len(gateways)) if number % 2 else reversed(range(len(gateways)))
            for place in order:
                began, before = time.perf_counter(), gateways[place].cpu_s()
                list(pool.map(gateways[place].ask, [_EACH] * _CALLERS))
                rates[place].append(_CALLERS * _EACH / (time.perf_counter() - began))
                cpu[place].append((gateways[place].cpu_s() - before) / (_CALLERS * _EACH) * 1e6)
    for about, values in (("requests a second", rates), ("CPU of a request, µs", cpu)):
        old, new = map(statistics.median, values)
        best = max if values is rates else min
        print(f"{about:28} {old:8,.0f} → {new:8,.0f} ×{new / old:5.2f}  best ×{best(values[1]) / best(values[0]):5.2f}")


def measure(gateways: Sequence[Gateway], rounds: int) -> None:
    """Print the table."""
    print(f"{'':28} {'p50 ms':>15} {'p50':>6} {'min':>6} {'CPU':>6}")
    for about, (tool, arguments, count) in CASES.items():
        times: list[list[float]] = [[] for _ in gateways]
        cpu = [0.0 for _ in gateways]
        for number in range(rounds):
            order = range(len(gateways)) if number % 2 else reversed(range(len(gateways)))
            for place in order:
                before = gateways[place].cpu_s()
                times[place] += [gateways[place].call(tool, arguments) for _ in range(count)]
                cpu[place] += gateways[place].cpu_s() - before
        old, new = map(statistics.median, times)
        ratios = (new / old, min(times[1]) / min(times[0]), cpu[1] / max(cpu[0], 0.01))
        print(f"{about:28} {old:6.2f} → {new:6.2f} " + " ".join(f"×{ratio:5.2f}" for ratio in ratios))


_Samples = dict[tuple[str, str, int], list[dict[str, float]]]
"""Store, rules and number of callers → rounds."""


def admissions_of(checkout: Path, samples: _Samples, folder: Path) -> None:
    """Add a run of a checkout's own benchmark."""
    found = folder / "figures.json"
    command = [sys.executable, "-m", "benchmarks.governance", "--quick", "--only", "admission"]
    subprocess.run(
        [*command, "--stores", "memory", "sqlite", "--json", str(found)],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    for store, by_rules in json.loads(found.read_text())["admissions"].items():
        for rules, figures in by_rules.items():
            for one in figures:
                samples.setdefault((store, rules, one["callers"]), []).extend(one["samples"])


def compare_admissions(checkouts: Sequence[Path], rounds: int) -> None:
    """Print the table of what both checkouts measure."""
    before: _Samples = {}
    after: _Samples = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for checkout, samples in zip(checkouts, (before, after), strict=True):
                admissions_of(checkout, samples, Path(folder))
    print(f"{'':32} {'p50 µs':>17} {'p50':>6} {'min':>6} {'CPU':>6} {'min':>6}")
    for place in before:
        if place in after:
            both = (before[place], after[place])
            p50, cpu = ([[one[name] for one in rounds] for rounds in both] for name in ("p50_us", "cpu_us"))
            ratios = [of(values[1]) / of(values[0]) for values in (p50, cpu) for of in (statistics.median, min)]
            about = f"{place[0]}, {place[1]}, {place[2]}"
            old, new = map(statistics.median, p50)
            print(f"{about:32} {old:7,.0f} → {new:7,.0f} " + " ".join(f"×{ratio:5.2f}" for ratio in ratios))


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare two checkouts.")
    parser.add_argument("checkouts", nargs=2, type=Path, metavar="CHECKOUT")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--governance", action="store_true", help="admissions instead of calls")
    parser.add_argument("--models", action="store_true", help="requests for a model instead of calls")
    parser.add_argument("--settings", type=json.loads, default={}, metavar="JSON", help="of the second checkout only")
    arguments = parser.parse_args()
    if arguments.governance:
        compare_admissions([path.resolve() for path in arguments.checkouts], arguments.rounds)
        return
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        make, compare = (ModelGateway, measure_models) if arguments.models else (Gateway, measure)
        places = zip(arguments.checkouts, (one, two), ({}, arguments.settings), strict=True)
        gateways: list[Any] = [make(path.resolve(), Path(folder), settings) for path, folder, settings in places]
        try:
            compare(gateways, arguments.rounds)
        finally:
            for gateway in gateways:
                gateway.close()


if __name__ == "__main__":
    main()
