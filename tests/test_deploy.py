"""The Containerfile and the systemd unit, which no machine of ours can run: linted where a linter is installed, and
looked at here."""

import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from mcpgate.cli import main
from tests.conftest import IN_CI

ROOT = Path(__file__).resolve().parent.parent
CONTAINERFILE = ROOT / "Containerfile"
UNIT = ROOT / "deploy" / "mcpgate.service"


def instructions() -> list[tuple[str, str]]:
    text = CONTAINERFILE.read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def test_hadolint_finds_nothing_in_the_containerfile() -> None:
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if linter is None:
        (pytest.fail if IN_CI else pytest.skip)("hadolint is not installed: the extra `dev` has it")
    done = subprocess.run([linter, str(CONTAINERFILE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_image_is_not_root_has_a_health_check_and_serves() -> None:
    found = instructions()
    names = [name for name, _ in found]
    assert names.index("USER") < names.index("ENTRYPOINT") and dict(found)["USER"].isdigit()
    assert "/healthz" in dict(found)["HEALTHCHECK"]
    assert dict(found)["ENTRYPOINT"] == '["mcpgate"]'
    arguments = [word.strip('" ') for word in dict(found)["CMD"].strip("[]").split(",")]
    assert main.parser(arguments).parse_args(arguments).command == "serve"


def test_the_build_gets_every_file_that_it_copies() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = [line[1:] for line in ignored if line.startswith("!")]
    assert ignored[0] == "*" and all((ROOT / name).exists() for name in kept)
    assert {"pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "requirements.lock"} <= set(kept)


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    copy = tmp_path / UNIT.name  # it also looks for the program
    copy.write_text(UNIT.read_text().replace("/opt/mcpgate/.venv/bin/mcpgate", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_the_unit_starts_the_gateway_without_rights_that_it_does_not_need() -> None:
    unit = ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(UNIT)
    service = unit["Service"]
    arguments = service["ExecStart"].split()[1:]
    assert main.parser(arguments).parse_args(arguments).command == "serve"
    assert service["DynamicUser"] == service["NoNewPrivileges"] == "yes" and service["ProtectSystem"] == "strict"
    assert "MemoryDenyWriteExecute" not in service  # the sandbox compiles WebAssembly
