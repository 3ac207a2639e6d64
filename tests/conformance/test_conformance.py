"""The official MCP conformance suite: every scenario that a revision of the specification requires, with mcpgate as the
server in front of a server that passes them all, and with mcpgate as the client. Nothing is excused.

`python -m tests.conformance.install` installs the suite. Where it is not installed these tests skip, but not in CI.
`python -m tests.conformance` runs it by hand.
"""

from collections.abc import Iterator
from functools import cache

import pytest

from tests.conformance import install
from tests.conformance.client import run_gateway
from tests.conformance.suite import (
    NO_RESULT,
    REVISIONS,
    Leg,
    Outcome,
    gateway_over_everything,
    gateway_over_tasks,
    run_extension,
    run_server,
    scenarios,
)
from tests.conftest import IN_CI

REQUIRED = {("server", "2025-11-25"): 30, ("server", "2026-07-28"): 37}
REQUIRED |= {("client", "2025-11-25"): 18, ("client", "2026-07-28"): 32}


TASKS = (
    *("lifecycle", "capability-negotiation", "wire-fields", "request-state-removal", "mrtr-input"),
    *("request-headers", "dispatch-and-envelope", "mrtr-composition"),
)
"""The suite's scenarios of the tasks extension, which no revision requires, but for two: one checks nothing where a
server tells of no changes unasked, and one wants a refusal where the gateway waits for the result."""


def every(leg: Leg) -> list[tuple[str, str]]:
    """Revisions with their scenarios; placeholders where the suite is not installed."""
    if not install.is_installed():
        return [(revision, "not installed") for revision in REVISIONS]
    return [(revision, scenario) for revision in REVISIONS for scenario in scenarios(leg, revision)]


@pytest.fixture(autouse=True, scope="module")
def installed() -> None:
    if not install.is_installed():
        (pytest.fail if IN_CI else pytest.skip)("not installed; run `python -m tests.conformance.install`")


@pytest.fixture(scope="module")
def address(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with gateway_over_everything(tmp_path_factory.mktemp("conformance")) as url:
        yield url


def judge(outcome: Outcome) -> None:
    if outcome.failures:
        pytest.fail(str(outcome), pytrace=False)  # an assertion would shorten what the suite says


run_all = cache(run_server)
"""A whole set takes the suite about as long as a few single scenarios."""


@pytest.mark.parametrize(("leg", "revision"), REQUIRED)
def test_no_required_scenario_is_left_out(leg: Leg, revision: str) -> None:
    assert len(scenarios(leg, revision)) == REQUIRED[leg, revision]


@pytest.mark.parametrize(("revision", "scenario"), every("server"))
def test_the_gateway_serves_as_the_specification_requires(revision: str, scenario: str, address: str) -> None:
    judge(run_all(revision, address).get(scenario, NO_RESULT))


@pytest.fixture(scope="module")
def tasks_address(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with gateway_over_tasks(tmp_path_factory.mktemp("tasks")) as url:
        yield url


@pytest.mark.parametrize("scenario", TASKS)
def test_the_gateway_serves_tasks_as_their_extension_requires(scenario: str, tasks_address: str) -> None:
    name = f"tasks-{scenario}"
    judge(run_extension(tasks_address, name).get(name, NO_RESULT))


@pytest.mark.parametrize(("revision", "scenario"), every("client"))
def test_the_gateway_asks_as_the_specification_requires(revision: str, scenario: str) -> None:
    judge(run_gateway(revision, scenario))
