"""The judge can see: the same programs, run in a plain Python, do harm, and the judge says so. A suite whose attacks
could not harm anybody would prove nothing."""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.tests.escapes.conftest import Planted

_PRELUDE = """
import asyncio
class t:
    @staticmethod
    def echo(value=None): return value
"""


def _programs() -> dict[str, str]:
    found: dict[str, str] = {}
    for info in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if info.name.startswith("test_") and info.name != "test_detector":
            module = importlib.import_module(f"sandbox.tests.escapes.{info.name}")
            for table in vars(module).values():
                if isinstance(table, dict) and table and all(isinstance(v, str) for v in table.values()):
                    found |= {f"{info.name}: {name}": code for name, code in table.items()}
    return found


_WANTED = ("@SECRET@", "@MARKER@", "@PORT@", "PLANTED_SECRET")


def test_a_plain_python_is_harmed_by_these_programs(planted: Planted) -> None:
    harmful = 0
    for code in [code for code in _programs().values() if any(name in code for name in _WANTED)]:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-c", _PRELUDE + planted.put_into(code)], capture_output=True, text=True, timeout=5
            )
        except subprocess.TimeoutExpired:
            continue
        harmful += bool(planted.harm(done.stdout + done.stderr))
    assert harmful >= 1
