"""`mcpgate cache` as a person runs it, beside the store of a gateway."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from mcpgate.cli.main import main
from tests.flows.governed import environment, write_config

Run = Callable[..., CompletedProcess[str]]
ANSWER = {
    "id": "chatcmpl-9",
    "object": "chat.completion",
    "created": 1,
    "model": "good",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Paris"}, "finish_reason": "stop"}],
}


def body(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "echo/any", "messages": [{"role": "user", "content": text}], **more}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: str, place: str = "one", **cache: Any) -> CompletedProcess[str]:
        folder = tmp_path / place
        folder.mkdir(exist_ok=True)
        llm = {"providers": {"echo": {"type": "echo"}}}
        keys = {"ci": {"secret": "mg-ci-of-the-tests", "team": "red", "grants": {"models": ["*"]}}}
        governance = {"keys": keys, "teams": {"red": {}}, "require_key": False}
        config = write_config(folder, {}, llm=llm, governance=governance, cache=cache)
        monkeypatch.setenv("XDG_DATA_HOME", environment(folder)["XDG_DATA_HOME"])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["cache", *arguments, "-c", str(config)])
        return CompletedProcess(arguments, int(ended.value.code or 0), *capsys.readouterr())

    return command


def lines(path: Path, *given: Any) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in given))
    return str(path)


def test_an_empty_cache_says_so(run: Run) -> None:
    shown = run("stats")
    assert shown.returncode == 0, shown.stderr
    assert "entries   0" in shown.stdout and "nothing was asked yet" in shown.stdout
    assert json.loads(run("stats", "--format", "json").stdout)["hit_rate"] is None


def test_it_is_warmed_with_answers_and_by_asking_and_shown_and_cleared(run: Run, tmp_path: Path) -> None:
    file = lines(
        tmp_path / "warm.jsonl",
        {"body": body("What is the capital of France?"), "answer": ANSWER},
        {"path": "/v1/messages", "body": body("Say hello.", max_tokens=50)},
    )
    warmed = run("warm", file, "--key", "ci")
    assert warmed.returncode == 0 and "kept 2 answers; 0 were not kept" in warmed.stdout, warmed
    assert "kept 2 answers" in run("warm", file, "--key", "ci").stdout
    stats = json.loads(run("stats", "--format", "json").stdout)
    assert stats["entries"] == 2 and stats["hits"] == {"exact": 1, "semantic": 0} and stats["misses"] == 1
    assert run("clear").returncode == 1
    assert "dropped 0" in run("clear", "--tenant", "team:blue").stdout
    assert "dropped 2" in run("clear", "--tenant", "team:red").stdout


def test_what_cannot_be_kept_is_said_by_its_line(run: Run, tmp_path: Path) -> None:
    cut = {**ANSWER, "choices": [{**ANSWER["choices"][0], "finish_reason": "length"}]}  # type: ignore[index,dict-item]
    warmed = run(
        "warm",
        lines(
            tmp_path / "warm.jsonl",
            {"body": body("a"), "answer": cut},
            {"body": {"messages": []}},
            {"path": "/v1/nothing", "body": {}},
            {"body": body("b"), "answer": ANSWER},
        ),
    )
    assert warmed.returncode == 1 and "kept 1 answers; 3 were not kept" in warmed.stdout
    assert [f"line {number}:" in warmed.stderr for number in (1, 2, 3, 4)] == [True, True, True, False]


def test_entries_go_from_one_gateway_to_another(run: Run, tmp_path: Path) -> None:
    run("warm", lines(tmp_path / "warm.jsonl", {"body": body("a"), "answer": ANSWER}))
    file = tmp_path / "entries.jsonl"
    assert run("export", str(file)).returncode == 0
    assert "kept 1 entries" in run("import", str(file), place="two", encryption_key="of at least 16 letters").stdout
    assert json.loads(run("stats", "--format", "json", place="two").stdout)["entries"] == 1
    (entry,) = map(json.loads, file.read_text().splitlines())
    assert "kept 0 entries; the time of 1" in run("import", lines(file, {**entry, "until": time.time() - 1})).stdout
    refused = run("import", lines(file, {**entry, "id": "short"}))
    assert refused.returncode == 1 and "line 1: that is no entry" in refused.stderr


def test_the_memory_of_another_process_is_out_of_reach(run: Run) -> None:
    refused = run("stats", store="memory")
    assert refused.returncode == 2 and "/api/cache" in refused.stderr
