"""BFCL v4 multi-turn, base and long_context: 400 tasks over 128 tools on eight servers. See `shims/bfcl_host.py`."""

from benchmarks.token_savings.suites.hosted import HostedSuite
from benchmarks.token_savings.suites.install import BFCL

SUITE = HostedSuite("bfcl", BFCL, "bfcl_host.py")
