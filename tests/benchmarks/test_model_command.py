"""`--model` from the command line to the report, with an endpoint that is as strict as OpenAI's and Anthropic's."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.fake_endpoint import CACHED_TOKENS, INPUT_TOKENS, KEY, OUTPUT_TOKENS, FakeEndpoint, fake_endpoint
from tests.benchmarks.notes_suite import NotesSuite
from tests.conftest import sigint_ignored

_CHECKOUT = Path(__file__).resolve().parents[2]
TASKS = NotesSuite().tasks()
REQUESTS = {
    "classic": {"notes/one": 3, "notes/three": 5, "notes/turns": 6},
    "mcpgate": {"notes/one": 2, "notes/three": 2, "notes/turns": 4},
}


class Command:
    """One run of the command, over a journal that outlives it."""

    def __init__(
        self, folder: Path, endpoint: FakeEndpoint, *options: str, anthropic: bool = False, key: str = KEY
    ) -> None:
        self.out = folder / "out"
        base_url = endpoint.url if anthropic else f"{endpoint.url}/v1"
        model = ["--model", "a/model", "--base-url", base_url, *(["--anthropic"] if anthropic else [])]
        fixed = ["--catalogues", "none", "--engine", "restricted", "--out", str(self.out)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.notes_command", *model, *fixed, *options],
            cwd=_CHECKOUT,
            env={**os.environ, "MCPGATE_BENCH_DIR": str(folder / "bench"), "MODEL_API_KEY": key},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> tuple[int, str]:
        """Its exit status, and the report."""
        report, errors = self.process.communicate(timeout=120)
        assert "Traceback" not in errors, errors
        return self.process.returncode, report

    @property
    def plays(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((self.out / "plays.json").read_text())["plays"]
        return found


def _requests(plays: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for play in plays:
        found.setdefault(play["rival"], {})[play["task"]] = play["usage"]["requests"]
    return found


@pytest.mark.parametrize("anthropic", [False, True], ids=["openai", "anthropic"])
def test_the_command_plays_every_task_over_the_wire_and_reports_what_the_endpoint_counted(
    tmp_path: Path, anthropic: bool
) -> None:
    with fake_endpoint(TASKS) as endpoint:
        endpoint.busy = 2
        command = Command(tmp_path, endpoint, "--rivals", "classic", "mcpgate", anthropic=anthropic)
        status, report = command.end()
    assert status == 0
    assert "# Token savings, a/model" in report and "3/3" in report
    assert "## Not verified" not in report and "oracle" not in report
    assert (command.out / "report.md").read_text() == report.removesuffix("\n")
    assert [play["failure"] for play in command.plays] == [""] * 6
    assert _requests(command.plays) == REQUESTS
    assert len(endpoint.bodies) == sum(sum(tasks.values()) for tasks in REQUESTS.values())
    assert {body["model"] for body in endpoint.bodies} == {"a/model"}
    usage = command.plays[0]["usage"]
    assert usage["input_tokens"] == INPUT_TOKENS * usage["requests"]
    assert usage["cached_tokens"] == CACHED_TOKENS * usage["requests"]
    assert usage["output_tokens"] == OUTPUT_TOKENS * usage["requests"]


def test_ctrl_c_reports_what_is_done_and_the_next_run_asks_only_for_the_rest(tmp_path: Path) -> None:
    with fake_endpoint(TASKS) as endpoint:
        endpoint.held = 4  # The second request of the second task.
        with sigint_ignored():
            command = Command(tmp_path, endpoint, "--rivals", "classic")
        assert endpoint.arrived.wait(60)
        command.process.send_signal(signal.SIGINT)
        status, report = command.end()
        assert status == 1 and "Interrupted" in report
        assert _requests(command.plays) == {"classic": {"notes/one": 3}}
        asked, endpoint.held = len(endpoint.bodies), -1
        command = Command(tmp_path, endpoint, "--rivals", "classic")
        status, report = command.end()
    assert status == 0 and "Interrupted" not in report
    assert _requests(command.plays) == {"classic": REQUESTS["classic"]}
    assert len(endpoint.bodies) - asked == 5 + 6


def test_no_request_starts_that_might_exceed_the_limit(tmp_path: Path) -> None:
    each = "0.00089"  # 600 at 1.25 and 400 at 0.125 a million, and 10 at 10.
    with fake_endpoint(TASKS) as endpoint:
        command = Command(tmp_path, endpoint, "--rivals", "classic", "--max-usd", str(float(each) * 5.5))
        status, report = command.end()
    assert status == 1 and "are spent" in report
    assert len(endpoint.bodies) == 5
    assert _requests(command.plays) == {"classic": {"notes/one": 3}}


def test_a_request_that_is_refused_fails_its_task_and_no_other(tmp_path: Path) -> None:
    with fake_endpoint(TASKS) as endpoint:
        endpoint.refused_user = "milk, bread, tea"
        command = Command(tmp_path, endpoint, "--rivals", "mcpgate")
        status, report = command.end()
    assert status == 1 and "context too long" in report
    assert [bool(play["failure"]) for play in command.plays] == [False, True, False]


def test_an_endpoint_that_cannot_be_used_ends_the_run_and_fails_no_task(tmp_path: Path) -> None:
    with fake_endpoint(TASKS) as endpoint:
        command = Command(tmp_path, endpoint, "--rivals", "classic", key="wrong")
        status, report = command.end()
        assert status == 1 and "cannot be used: 401" in report and "Incorrect API key" in report
        assert command.plays == [] and "wrong" not in report
        status, _ = Command(tmp_path, endpoint, "--rivals", "classic").end()
    assert status == 0
