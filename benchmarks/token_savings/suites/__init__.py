"""The task suites, by name."""

from collections.abc import Mapping

from benchmarks.token_savings.suites import agentdojo, bfcl, own
from benchmarks.token_savings.suites.hosted import HostedSuite
from benchmarks.token_savings.suites.own import OwnSuite

SUITES: Mapping[str, HostedSuite | OwnSuite] = {suite.name: suite for suite in (bfcl.SUITE, agentdojo.SUITE, own.SUITE)}
