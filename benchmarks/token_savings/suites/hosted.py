"""Suites whose package runs in its own process: its tasks, state and verdicts are requested over a pipe.

The benchmark's process imports nothing of a package. `shims/host.py` describes the protocol.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.token_savings.suites.install import Package, ensure
from benchmarks.token_savings.suites.oracle import parse_traces, to_task
from benchmarks.token_savings.task import Task

_SHIMS = Path(__file__).parent / "shims"
_EXIT_TIMEOUT_S = 5.0
_LAST_WORDS_CHARS = 1000


class HostFailed(Exception):
    """A suite's host ended, or could not do what was requested."""


@dataclass
class HostedSuite:
    name: str
    package: Package
    host: str
    """The script below `shims/` that the package's Python runs."""
    _tasks: list[Task] = field(default_factory=list, repr=False)

    def tasks(self) -> Sequence[Task]:
        if not self._tasks:
            with tempfile.TemporaryDirectory(prefix="mcpgate-suite-") as folder:
                world = self.open(Path(folder))
                try:
                    traces = parse_traces(world.ask("tasks"))
                finally:
                    world.close()
            self._tasks = [to_task(self.name, trace) for trace in traces]
        return self._tasks

    def install(self) -> None:
        ensure(self.package)

    def open(self, folder: Path) -> "HostedWorld":
        self.install()
        return HostedWorld(self.package.python, self.host, folder)


class HostedWorld:
    """A running host. The MCP servers find it by its port, and may be started any number of times."""

    def __init__(self, python: Path, host: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "host.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(python), str(_SHIMS / host)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=folder,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C goes to the run, which then closes the host; the host ends with stdin.
            )
        greeting = self._read()
        self.servers: Mapping[str, Mapping[str, Any]] = {
            name: {
                "command": sys.executable,
                "args": ["-I", "-S", str(_SHIMS / "server.py"), str(greeting["port"]), name],
                "env": {},
            }
            for name in greeting["servers"]
        }

    def __repr__(self) -> str:
        return f"<HostedWorld {', '.join(self.servers)}>"

    def begin(self, task: Task) -> None:
        self.ask("begin", _id_at_home(task))

    def verify(self, task: Task, answers: Sequence[str]) -> str:
        verdict: str = self.ask("verify", list(answers))
        return verdict

    def ask(self, method: str, *params: Any) -> Any:
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps({"method": method, "params": params}) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise HostFailed(self._last_words()) from error
        answer = self._read()
        if "error" in answer:
            raise HostFailed(f"{method}{params}: {answer['error']}")
        return answer["result"]

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise HostFailed(self._last_words())
        message: dict[str, Any] = json.loads(line)
        return message

    def _last_words(self) -> str:
        return f"the host ended. Its stderr: …{self._log.read_text(errors='replace')[-_LAST_WORDS_CHARS:]}"


def _id_at_home(task: Task) -> str:
    """The package's own id, without the suite's name as a prefix."""
    return task.id.removeprefix(f"{task.suite}/")
