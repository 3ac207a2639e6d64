"""Plain calls of two checkouts of mcpgate, by turns on the same machine: has a change made them slower?

    git worktree add ../before COMMIT && make -C ../before sandbox
    python -m benchmarks.revisions ../before .

Each checkout serves tests/raw_server.py over stdio. The table has the median and the minimum of a call in milliseconds
and the CPU time of the gateway process, each as a ratio of the second checkout to the first.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
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

    def __init__(self, checkout: Path, folder: Path) -> None:
        config = folder / "mcpgate.json"
        server = {"command": sys.executable, "args": [str(_SERVER)], "expose": "both"}
        config.write_text(json.dumps({"mcpServers": {"raw": server}}))
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
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


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


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare plain calls of two checkouts.")
    parser.add_argument("checkouts", nargs=2, type=Path, metavar="CHECKOUT")
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        gateways = [
            Gateway(path.resolve(), Path(folder)) for path, folder in zip(arguments.checkouts, (one, two), strict=True)
        ]
        try:
            measure(gateways, arguments.rounds)
        finally:
            for gateway in gateways:
                gateway.close()


if __name__ == "__main__":
    main()
