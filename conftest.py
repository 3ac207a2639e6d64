"""Which tests are quick, and how many processes run the tests.

Quick are those that start no process, no sandbox engine and no database server, and try one case, not hundreds
(hypothesis). `pytest -m quick` is what a contributor runs first; CONTRIBUTING.md says how long it takes. A test is
quick unless its folder, its file, a fixture or its name is listed here, so a new test needs nothing. One that starts a
process without being listed does no harm but to take its time."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
SLOW_PATHS = [
    ROOT / path
    for path in (
        "tests/any_llm",
        "tests/benchmarks",
        "tests/conformance",
        "tests/flows",
        "tests/issuers",
        "tests/upstream",
        "tests/api/dashboard/test_visits.py",
        "tests/api/http",
        "tests/api/mcp/test_face.py",
        "tests/cli",
        "tests/governance/test_arithmetic.py",
        "tests/governance/test_gate_races.py",
        "tests/stores",
        "tests/test_docs.py",
        "tests/test_examples.py",
        "sandbox/tests/escapes",
        "sandbox/tests/programs",
        "sandbox/tests/test_children.py",
        "sandbox/tests/test_recycling.py",
    )
]
SLOW_FIXTURES = {"wasm", "restricted", "any_engine", "race", "processes"}
"""Engines, and what starts processes."""
SERVERS = ("postgres", "redis")
"""Databases that are servers."""
_MAX_WORKERS = 8
"""Each needs up to a gigabyte, and the longest file takes as long with more."""


def is_quick(item: pytest.Item) -> bool:
    return (
        not any(item.path.is_relative_to(path) for path in SLOW_PATHS)
        and SLOW_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))
        and not any(server in item.name for server in SERVERS)
        and not getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
    )


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Folders are run by one process per core, each of which takes whole files. Single files, the quick tier and what
    `-k` selects would take longer with several."""
    folders = any(Path(argument).is_dir() for argument in config.args)
    few = config.option.markexpr == "quick" or config.option.keyword
    return min(os.cpu_count() or 1, _MAX_WORKERS) if folders and not few else 0


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m quick`, slow folders are not even imported: collecting them would take a third of the time."""
    return True if config.option.markexpr == "quick" and collection_path in SLOW_PATHS else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_quick(item):
            item.add_marker(pytest.mark.quick)
