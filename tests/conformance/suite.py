"""Runs the official MCP conformance suite against mcpgate, as a server and as a client.

As a server, mcpgate stands in front of the SDK's everything-server. As a client, it has the suite's mock servers as
upstreams (client.py). Scenarios are those that a revision of the specification requires, each over that revision's wire."""

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from tests.conformance import install
from tests.flows.governed import free_port, serving, wait_until, write_config

REVISIONS = ("2025-11-25", "2026-07-28")
Leg = Literal["server", "client"]

_ROOT = Path(__file__).parents[2]
_SCENARIO_TIMEOUT_S = {"server": 30, "client": 120}
"""The second includes the start of a client and a gateway."""
_RUN_TIMEOUT_S = 600


@dataclass(frozen=True)
class Outcome:
    """What came of one scenario."""

    failures: Sequence[str]
    """The checks that failed, in the suite's words."""
    log: str = ""
    """The end of what the client wrote."""

    def __str__(self) -> str:
        return "\n".join((*self.failures, self.log)).rstrip() if self.failures else "ok"


NO_RESULT = Outcome(["the suite gave no result"])


def scenarios(leg: Leg, revision: str) -> list[str]:
    """The names of those that the revision requires."""
    names: list[str] = yaml.safe_load((install.SUITE / "requirements" / f"{revision}.yaml").read_text())[leg]
    return names


def run_server(revision: str, url: str, scenario: str | None = None) -> dict[str, Outcome]:
    """The outcomes of a scenario, or of all that the revision requires and some more, against any server."""
    which = ("--scenario", scenario, "--spec-version", revision) if scenario else ("--requirements", revision)
    return _run("server", "--url", url, *which)[0]


def run_extension(url: str, scenario: str) -> dict[str, Outcome]:
    """The outcome of a scenario that belongs to an extension, and so to no revision."""
    return _run("server", "--url", url, "--scenario", scenario)[0]


def run_client(revision: str, command: Sequence[str], scenario: str) -> Outcome:
    """The outcome of a scenario with any program as the client. One at a time: the suite would start all at once."""
    which = ("--scenario", scenario, "--spec-version", revision)
    outcomes, status = _run("client", "--command", shlex.join(command), *which)
    outcome = outcomes.get(scenario, NO_RESULT)
    if outcome.failures or status == 0:
        return outcome
    # The suite also fails a client for how it ends, and for warnings.
    return Outcome([f"all checks passed, but the suite ended with {status}"], outcome.log)


def _run(leg: Leg, *arguments: str) -> tuple[dict[str, Outcome], int | None]:
    """The outcomes by scenario, and the exit status of the suite: None if it took too long."""
    timeout = ("--timeout", str(_SCENARIO_TIMEOUT_S[leg] * 1000))
    with tempfile.TemporaryDirectory() as folder:
        command = [*install.suite_command(), leg, *arguments, *timeout, "--output-dir", folder]
        try:
            status = subprocess.run(command, cwd=_ROOT, capture_output=True, timeout=_RUN_TIMEOUT_S).returncode
        except subprocess.TimeoutExpired:
            status = None
        found = {}
        for file in Path(folder).rglob("checks.json"):
            path = file.parent.relative_to(folder).as_posix()
            name = re.sub(r"-\d{4}-\d\d-\d\dT[\d-]+Z$", "", path)
            found[name.removeprefix("server-") if leg == "server" else name] = _outcome(file)
        return found, status


def _outcome(file: Path) -> Outcome:
    checks = json.loads(file.read_text())
    if not any(check["status"] in ("SUCCESS", "FAILURE") for check in checks):
        return Outcome(["no check was made"])
    failures = [
        f"{check['id']}: {check.get('errorMessage') or check['description']}"
        for check in checks
        if check["status"] == "FAILURE"
    ]
    log = file.with_name("stderr.txt")
    return Outcome(failures, log.read_text()[-4000:] if log.exists() else "")


# What the suite is run against


@contextlib.contextmanager
def everything_server(folder: Path) -> Iterator[str]:
    """The SDK's server with every feature; yields its URL."""
    port = free_port()
    log = folder / "everything-server.log"
    path = os.pathsep.join([str(install.EVERYTHING_SERVER), *filter(None, [os.environ.get("PYTHONPATH")])])
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mcp_everything_server", "--port", str(port)],
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": path},
        )
    try:
        wait_until(lambda: "Uvicorn running on" in log.read_text() or process.poll() is not None, 60)
        assert process.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.terminate()
        process.wait(20)


@contextlib.contextmanager
def gateway(folder: Path, **server: Any) -> Iterator[str]:
    """mcpgate in front of one server, whose tools keep their own names; yields the URL of the bundle."""
    with serving(folder, config(folder, server)) as served:
        yield f"{served.address}/mcp/one"


def config(folder: Path, server: Mapping[str, Any]) -> Path:
    bundle = {"servers": ["up"], "expose": "direct", "meta_tools": False}
    return write_config(folder, {"up": {"prefix": "", "expose": "direct", **server}}, bundles={"one": bundle})


@contextlib.contextmanager
def gateway_over_everything(folder: Path) -> Iterator[str]:
    with everything_server(folder) as url, gateway(folder, url=url) as address:
        yield address


@contextlib.contextmanager
def gateway_over_tasks(folder: Path) -> Iterator[str]:
    with gateway(folder, command=sys.executable, args=[str(_ROOT / "tests" / "task_server.py"), "modern"]) as address:
        yield address


SDK_CLIENT = (sys.executable, str(install.SDK_CLIENT))
