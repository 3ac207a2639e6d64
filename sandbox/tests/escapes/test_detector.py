"""The judge can see: the same programs, run in a plain Python, do harm, and the judge says so. A suite whose attacks
could not harm anybody would prove nothing."""

import concurrent.futures
import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

from sandbox.tests.escapes.conftest import Planted

_PRELUDE = """
class t:
    @staticmethod
    def echo(value=None): return value
"""

_WANTED = ("@SECRET@", "@MARKER@", "@PORT@", "PLANTED_SECRET")

_LEAST_HARMFUL = 480
"""How many of the programs must do harm: somewhat fewer than do, for Python versions differ in what they let pass."""


def _programs() -> dict[str, str]:
    found: dict[str, str] = {}
    for info in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if info.name.startswith("test_") and info.name != "test_detector":
            module = importlib.import_module(f"sandbox.tests.escapes.{info.name}")
            for table in vars(module).values():
                if isinstance(table, dict) and table and all(isinstance(v, str) for v in table.values()):
                    found |= {f"{info.name}: {name}": code for name, code in table.items()}
    return found


def _harm_of(code: str, folder: Path) -> list[str]:
    """What the program does to things that were planted for it alone."""
    folder.mkdir()
    planted = Planted(folder)
    # Loading asyncio takes longer than most programs.
    prelude = ("import asyncio\n" if "asyncio" in code else "") + _PRELUDE
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", prelude + planted.put_into(code)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=5,
            cwd=folder,
            env={**os.environ, "PLANTED_SECRET": planted.secret},
        )
        return planted.harm(done.stdout + done.stderr)
    except subprocess.TimeoutExpired:
        return []
    finally:
        planted.listener.close()


def test_a_plain_python_is_harmed_by_these_programs(tmp_path: Path) -> None:
    programs = {name: code for name, code in _programs().items() if any(wanted in code for wanted in _WANTED)}
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        folders = [tmp_path / str(number) for number in range(len(programs))]
        harm = dict(zip(programs, pool.map(_harm_of, programs.values(), folders), strict=True))
    harmless = [name for name, done in harm.items() if not done]
    assert len(harm) - len(harmless) >= _LEAST_HARMFUL, harmless
