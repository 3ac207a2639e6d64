"""The contestants: pinned packages, their virtual environments, and the processes that drive them."""

import importlib.util
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.servers import cache_folder

_CHECKOUT = Path(__file__).parents[2]
_PEERS_NEED = (3, 12)
_OPEN_TIMEOUT_S = 180.0
"""pysandbox-wasi compiles its component at the first start."""


class ContestantFailed(Exception):
    """The contestant could not be installed or started, or failed in a task."""


class Absent(ContestantFailed):
    """What was asked for does not exist here: a module that this checkout lacks, or a pool."""


class TooSlow(ContestantFailed):
    """The contestant did not answer in time; its process was ended."""


@dataclass(frozen=True)
class Contestant:
    name: str
    """Key of `adapters.ADAPTERS`."""
    title: str
    packages: tuple[str, ...] = ()
    """Requirements, exactly pinned."""
    module: str | None = None
    """A module of this checkout, for our own engines; they run in the Python that runs the benchmark."""


CONTESTANTS = (
    Contestant("wasm", "wasm", module="mcpgate_sandbox.wasm"),
    Contestant("isolated", "wasm, `isolation: process`", module="mcpgate_sandbox.isolated"),
    Contestant("restricted", "restricted", module="mcpgate_sandbox.restricted"),
    # 1.5.0 cannot be installed: it needs pydantic-monty-client 1.5.0, which has not been published.
    Contestant("monty", "pydantic-monty 1.4.0", ("pydantic-monty==1.4.0",)),
    Contestant("eryx", "pyeryx 0.11.0", ("pyeryx==0.11.0",)),
    Contestant("pysandbox", "pysandbox-wasi 1.6.4", ("pysandbox-wasi==1.6.4",)),
    Contestant("smolagents", "smolagents 1.26.0, local executor", ("smolagents==1.26.0",)),
    Contestant("subprocess", "`python -I`, no sandbox"),
)
"""Ours come first: the others are compared with them."""


class Process:
    """A contestant in its own process. Ends together with everything it started."""

    def __init__(self, contestant: Contestant, *, cold: bool = False) -> None:
        python, path = _python_of(contestant), [str(_CHECKOUT)]
        if contestant.module:
            path.append(str(_CHECKOUT / "sandbox"))
        command = [str(python), "-m", "benchmarks.sandbox.worker", contestant.name, *(["--cold"] if cold else [])]
        self._log = (_home(contestant).parent / f"{contestant.name}.log").open("w")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=_home(contestant).parent,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
            start_new_session=True,
        )
        self._closed = False
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self._take(_OPEN_TIMEOUT_S)
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._answers.put(line)
        self._answers.put("")

    def ask(self, do: str, timeout_s: float, **arguments: Any) -> Any:
        """The answer of `worker.Worker`. Raises ContestantFailed."""
        if self._process.stdin is None or self._process.poll() is not None:
            raise ContestantFailed("its process is gone")
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._take(timeout_s)

    def _take(self, timeout_s: float) -> Any:
        try:
            line = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            self.close()
            raise TooSlow(f"no end after {timeout_s:g} s") from None
        answer = json.loads(line) if line else {"failed": f"its process ended: {self._last_words()}"}
        if "absent" in answer:
            raise Absent
        if "failed" in answer:
            raise ContestantFailed(answer["failed"])
        return answer["value"]

    def _last_words(self) -> str:
        return Path(self._log.name).read_text()[-500:].strip()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        self._log.close()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# Installation


def prepare(contestant: Contestant) -> str:
    """Installs what the contestant needs and returns which Python drives it. Raises Absent or ContestantFailed."""
    _home(contestant).parent.mkdir(parents=True, exist_ok=True)
    if contestant.module:
        if not _has_module(contestant.module):
            raise Absent(f"this checkout has no {contestant.module}")
    elif not _is_installed(contestant):
        _install(contestant)
    answer = subprocess.run(
        [str(_python_of(contestant)), "-c", "import platform; print(platform.python_version())"],
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip()


def _has_module(name: str) -> bool:
    sys.path.insert(0, str(_CHECKOUT / "sandbox"))
    try:
        return importlib.util.find_spec(name) is not None
    finally:
        sys.path.pop(0)


def _home(contestant: Contestant) -> Path:
    return cache_folder() / "sandbox" / f"venv-{contestant.name}"


def _python_of(contestant: Contestant) -> Path:
    return Path(sys.executable) if contestant.module else _home(contestant) / "bin" / "python"


def _is_installed(contestant: Contestant) -> bool:
    stamp = _home(contestant) / "installed.json"
    return stamp.is_file() and stamp.read_text() == json.dumps(contestant.packages)


def _install(contestant: Contestant) -> None:
    home = _home(contestant)
    shutil.rmtree(home, ignore_errors=True)
    _run([find_python(), "-m", "venv", str(home)])
    if contestant.packages:
        _run([str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", *contestant.packages])
    (home / "installed.json").write_text(json.dumps(contestant.packages))


def find_python() -> str:
    """A Python for the peers: this one if it is new enough, else one on the PATH or of pyenv."""
    for python in _pythons():
        done = subprocess.run(
            [python, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True, check=False
        )
        if done.returncode == 0 and tuple(map(int, done.stdout.split())) >= _PEERS_NEED:
            return python
    raise ContestantFailed("the peers need Python 3.12 or later; put a python3.12 on the PATH")


def _pythons() -> Iterator[str]:
    yield from filter(None, (shutil.which(f"python3.{minor}") for minor in (12, 13, 14)))
    yield from map(str, sorted((Path.home() / ".pyenv" / "versions").glob("3.1[234]*/bin/python")))
    yield sys.executable


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise ContestantFailed(f"not installed: {lines[-1] if lines else done.returncode}")
