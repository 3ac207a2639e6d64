"""AgentDojo v1.2.2: 97 user tasks over the 74 tools of its four suites. See `shims/agentdojo_host.py`."""

from benchmarks.token_savings.suites.hosted import HostedSuite
from benchmarks.token_savings.suites.install import AGENTDOJO

SUITE = HostedSuite("agentdojo", AGENTDOJO, "agentdojo_host.py")
