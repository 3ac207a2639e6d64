"""Every example does its task. One whose framework is not installed here runs in another Python, which
$MCPGATE_EXAMPLES_PYTHON names; without it, it is skipped (CI sets it)."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import IN_CI

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
FRAMEWORKS = {
    "sdk_client": "mcp",
    "fastmcp_client": "fastmcp",
    "pydantic_ai_agent": "pydantic_ai",
    "openai_agent": "agents",
}


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} - {"task"} == set(FRAMEWORKS)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_an_example_does_its_task(name: str, tmp_path: Path) -> None:
    python = sys.executable
    if importlib.util.find_spec(FRAMEWORKS[name]) is None:
        python = os.environ.get("MCPGATE_EXAMPLES_PYTHON", "")
        if not python:
            reason = f"MCPGATE_EXAMPLES_PYTHON names no Python that has the package {FRAMEWORKS[name]!r}"
            (pytest.fail if IN_CI else pytest.skip)(reason)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "XDG_DATA_HOME": str(tmp_path)}
    done = subprocess.run(
        [python, str(EXAMPLES / f"{name}.py")],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Asia/Tokyo" in done.stdout.splitlines()[-1] and "Africa/Nairobi" in done.stdout
