"""Every rival by name; the one that all others are compared with comes first."""

from collections.abc import Mapping

from benchmarks.token_savings.rivals import bifrost, fastmcp, mcpgate, toolplane
from benchmarks.token_savings.rivals.base import Playable, Rival
from benchmarks.token_savings.rivals.classic import Classic

CLASSIC = Classic("classic", "classic MCP, one call a request", parallel=False)
PARALLEL = Classic("parallel", "classic MCP, parallel calls", parallel=True)

RIVALS: Mapping[str, Rival] = {
    rival.name: rival for rival in (CLASSIC, PARALLEL, mcpgate.RIVAL, bifrost.RIVAL, fastmcp.RIVAL, toolplane.RIVAL)
}
PLAYABLE: Mapping[str, Playable] = {
    rival.name: rival for rival in (CLASSIC, mcpgate.RIVAL, fastmcp.RIVAL, toolplane.RIVAL)
}
"""Those that a real model can play."""
