"""Ordinary code, as models write it: every file of `snippets/` runs on every engine and gives what it says it gives.

A snippet begins with comments: what it shows; `# result:`, the value of its last expression or its `return`, as JSON;
where it prints, `# stdout:`, as a JSON string. It finds one server `t` with the tools of `conftest.Host`.
`benchmarks/sandbox` runs the same files elsewhere.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from mcpgate_sandbox.engine import Engine
from sandbox.tests.conftest import Run

pytestmark = pytest.mark.anyio

SNIPPETS = {file.stem: file.read_text(encoding="utf-8") for file in sorted(Path(__file__).parent.glob("snippets/*.py"))}


def expected(code: str, key: str) -> Any:
    """What the header says under `key`; an absent line stands for an empty text."""
    head = f"# {key}: "
    found = [line.removeprefix(head) for line in code.splitlines() if line.startswith(head)]
    return json.loads(found[0]) if found else ""


@pytest.mark.parametrize("name", SNIPPETS)
async def test_an_ordinary_snippet_gives_its_result(name: str, any_engine: Engine, run: Run) -> None:
    outcome = await run(SNIPPETS[name], on=any_engine)
    assert outcome.error is None, f"{outcome.error!r}\n{getattr(outcome.error, 'traceback', '')}"
    assert (outcome.result, outcome.stdout) == (expected(SNIPPETS[name], "result"), expected(SNIPPETS[name], "stdout"))


def test_every_snippet_says_what_it_shows_and_gives() -> None:
    assert len(SNIPPETS) == 51
    for name, code in SNIPPETS.items():
        title, result, *_ = code.splitlines()
        assert title.startswith("# ") and len(title) > 5 and result.startswith("# result: "), name
