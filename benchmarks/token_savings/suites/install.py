"""The packages that the tasks come from, each pinned, in its own virtual environment below `MCPGATE_BENCH_DIR`.

They are separate from the benchmark's own dependencies, and nothing of them is committed: tasks are read from the
installed package at run time. Both require model SDKs that their tools and checkers do not use (5.9 GB for BFCL),
so they are installed without their requirements, except for the few that are used.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from benchmarks.servers import cache_folder

_STAMP = "installed.json"


class InstallFailed(Exception):
    """pip could not install a suite's package."""


@dataclass(frozen=True)
class Package:
    name: str
    without_requirements: tuple[str, ...]
    with_requirements: tuple[str, ...] = ()

    @property
    def home(self) -> Path:
        return cache_folder() / "suites" / self.name

    @property
    def python(self) -> Path:
        return self.home / "Scripts" / "python.exe" if os.name == "nt" else self.home / "bin" / "python"


BFCL = Package("bfcl", ("bfcl-eval==2026.3.23", "mpmath==1.4.1", "overrides==7.7.0"))
AGENTDOJO = Package(
    "agentdojo",
    ("agentdojo==0.1.35",),
    ("pydantic[email]==2.14.3", "pyyaml==6.0.3", "docstring-parser==0.18.0", "deepdiff==9.1.0"),
)


def ensure(package: Package) -> None:
    """Installs the package unless this exact version is installed. Safe to call from several processes at once."""
    stamp = package.home / _STAMP
    wanted = json.dumps([package.without_requirements, package.with_requirements])
    package.home.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(package.home.with_suffix(".lock")):
        if stamp.is_file() and stamp.read_text() == wanted:
            return
        shutil.rmtree(package.home, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(package.home)])
        pip = [str(package.python), "-m", "pip", "install", "--quiet"]
        if package.with_requirements:
            _run([*pip, *package.with_requirements])
        _run([*pip, "--no-deps", *package.without_requirements])
        stamp.write_text(wanted)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        text = (done.stderr or done.stdout)[-2000:]
        raise InstallFailed(f"{' '.join(command)} exited with {done.returncode}: {text}")
