"""The benchmark of gateways for models, without peers: nothing is installed."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.llm_overhead.contestants import CONTESTANTS, DIRECT, FACES, Ask, Contestant, Launch, Running
from benchmarks.llm_overhead.load import run
from benchmarks.llm_overhead.measure import Effort, Record, measure
from benchmarks.llm_overhead.report import as_json, markdown
from benchmarks.servers import cache_folder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark measures processes of Linux")

_SHORT = Effort(rounds=1, paced_rounds=1, seconds=0.1, total_s=60)
_MACHINE = dict.fromkeys(
    ("date", "cpu", "cores", "system", "python", "node", "commit", "load_before", "load_after"), "?"
)
_OURS = CONTESTANTS[0]


@pytest.fixture
def provider() -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.llm_overhead.provider"],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        yield int(process.stdout.readline())
        process.kill()


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("MCPGATE_BENCH_DIR", str(tmp_path))
    return cache_folder()


def test_mcpgate_with_a_key_is_measured_on_both_faces_and_leaves_nothing_behind(cache: Path) -> None:
    contestants = (_OURS, DIRECT)
    records = measure(contestants, _SHORT)
    assert {name: record.failures for name, record in records.items()} == {_OURS.name: {}, DIRECT.name: {}}
    ours, direct = (as_json(contestants, records, _MACHINE)["contestants"][one.name]["medians"] for one in contestants)
    for face in FACES:
        assert None not in ours[face].values()
        rate = "requests a second, 32 connections"
        assert 0 < ours[face][rate] < direct[face][rate]
        assert direct[face]["CPU a request, µs"] is None
    report = markdown(contestants, records, _MACHINE)
    assert "FAILED" not in report and "(×" in report
    assert list((cache / "llm_overhead").iterdir()) == []


def test_a_gateway_that_does_not_start_is_reported_with_its_words() -> None:
    def launch(_: Path, __: int) -> Launch:
        return Launch((sys.executable, "-c", "raise SystemExit('no licence')"), {"chat": Ask("/", "a", "b")}, 1)

    contestants = (Contestant("broken", "a broken one", ("chat",), launch), DIRECT)
    records = measure(contestants, replace(_SHORT, paced_rounds=0))
    report = markdown(contestants, records, _MACHINE)
    assert "FAILED: a broken one, start: ContestantFailed: ended with 1; its last words: no licence" in report
    assert records[DIRECT.name].failures == {}


def test_an_answer_without_the_providers_words_is_a_failed_one(provider: int) -> None:
    running = Running(None, provider, {"chat": Ask("/v1/models", "fixed", "paced")})
    measured = asyncio.run(run(running.load("chat", 2, 0.05)))
    assert measured.failed == measured.requests == 2
    assert json.dumps({"object": "list", "data": []}) in measured.said


def test_a_provider_that_is_gone_is_a_failure_too() -> None:
    running = Running(None, 1, {"chat": Ask("/", "fixed", "paced")})
    assert asyncio.run(run(running.load("chat", 3))).failed == 3


def test_the_median_of_rounds_is_reported() -> None:
    record = Record()
    for figure in (1.0, 9.0, 2.0):
        record.add("chat", rate_few=figure)
    assert record.median("chat", "rate_few") == 2.0
    assert record.median("messages", "rate_few") is None
