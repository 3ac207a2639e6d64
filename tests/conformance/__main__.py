"""Runs the conformance suite by hand and prints which scenarios pass.

python -m tests.conformance server --requirements 2026-07-28
python -m tests.conformance client --requirements 2025-11-25 --scenario sse-retry
python -m tests.conformance server --requirements 2026-07-28 --direct     (without mcpgate: must pass)
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.conformance import install
from tests.conformance.client import run_gateway
from tests.conformance.suite import (
    NO_RESULT,
    REVISIONS,
    SDK_CLIENT,
    Leg,
    Outcome,
    everything_server,
    gateway_over_everything,
    run_client,
    run_server,
    scenarios,
)


def outcomes(
    leg: Leg, revision: str, wanted: list[str], one: str | None, direct: bool
) -> Iterator[tuple[str, Outcome]]:
    if leg == "client":
        for scenario in wanted:
            yield scenario, run_client(revision, SDK_CLIENT, scenario) if direct else run_gateway(revision, scenario)
        return
    with tempfile.TemporaryDirectory() as folder:
        target = everything_server if direct else gateway_over_everything
        with target(Path(folder)) as url:
            found = run_server(revision, url, one)
    for scenario in wanted:
        yield scenario, found.get(scenario, NO_RESULT)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description="The MCP conformance suite.")
    parser.add_argument("leg", choices=("server", "client"), help="what mcpgate is")
    parser.add_argument("--requirements", choices=REVISIONS, default=REVISIONS[-1], help="default: %(default)s")
    parser.add_argument("--scenario", help="default: all that the revision requires")
    parser.add_argument("--direct", action="store_true", help="the SDK's own server or client instead of mcpgate")
    options = parser.parse_args()
    if not install.is_installed():
        parser.error("not installed; run `python -m tests.conformance.install`")
    one = options.scenario
    wanted = [one] if one else scenarios(options.leg, options.requirements)
    passed = 0
    for scenario, outcome in outcomes(options.leg, options.requirements, wanted, one, options.direct):
        passed += not outcome.failures
        shown = str(outcome) if one else "; ".join(outcome.failures) or "ok"
        print(f"{scenario:48} {shown}", flush=True)
    print(f"{passed} of {len(wanted)} scenarios pass")
    return 0 if passed == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
