"""llm-comply, an independent compliance suite, against every face that it knows. Another gateway with the echo stands for
the providers, because the suite wants tools to be called."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import IN_CI
from tests.flows.governed import ADMIN, TRUSTED, Served, serving, write_config

SUITE = Path(sys.executable).with_name("llm-comply")
SKIPPED = {"reasoning-summary", "chat-reasoning-summary", "anth-thinking-display"}
"""They need a model of a name that thinks."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if not SUITE.exists():
        (pytest.fail if IN_CI else pytest.skip)("llm-comply is not installed")
    keys = {**TRUSTED, "admin": {**TRUSTED["admin"], "grants": {"admin": True, "models": ["*"]}}}
    echo: dict[str, Any] = {"echo": {"type": "echo"}}
    behind, before = tmp_path_factory.mktemp("behind"), tmp_path_factory.mktemp("before")
    governance = {"keys": keys}
    with serving(behind, write_config(behind, {}, governance=governance, llm={"providers": echo})) as provider:
        providers = {
            **echo,
            "open": {"type": "openai", "base_url": f"{provider.address}/v1", "api_key": ADMIN},
            "claude": {"type": "anthropic", "base_url": provider.address, "api_key": ADMIN},
        }
        config = write_config(before, {}, governance=governance, llm={"providers": providers})
        with serving(before, config) as running:
            yield running


@pytest.mark.parametrize("model", ["echo/m", "claude/echo/m", "open/echo/m"])
@pytest.mark.parametrize("format", ["openai-chat", "open-responses", "anthropic"])
def test_every_face_complies_in_front_of_every_provider(format: str, model: str, served: Served) -> None:
    command = [str(SUITE), "-u", f"{served.address}/v1", "-k", ADMIN, "-m", model, "--format", format, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    results = {one["id"]: one for one in json.loads(done.stdout)["results"]}
    failed = {id: one["errors"] for id, one in results.items() if one["status"] == "failed"}
    assert failed == {} and len(results) >= 8
    assert {id for id, one in results.items() if one["status"] == "skipped"} <= SKIPPED
