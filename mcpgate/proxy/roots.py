"""Clients' roots, when they change: which servers are told, and whom they ask then.

A connection may be shared, and some servers take the roots that they hear of for the folders that they may touch. So a
server is told only where it cannot matter to somebody else: on a caller's own connection, or where callers have no keys
and share everything anyway. Any server gets the current roots of a call's client when it asks during the call."""

from mcpgate.governance.callers import Caller
from mcpgate.proxy.views import Views
from mcpgate.upstream.connection import AskRoots
from mcpgate.upstream.pool import UpstreamPool


class Roots:
    """One for the whole gateway."""

    def __init__(self, views: Views, pool: UpstreamPool) -> None:
        self._views, self._pool = views, pool

    def changed(self, caller: Caller, ask: AskRoots) -> None:
        """A client has announced other roots; `ask` gets them from it."""
        for name in self._views.servers_of(caller):
            upstream = self._pool.get(name)
            identity = upstream.identity_of(caller.owner)
            if identity is not None or caller.is_local:
                upstream.roots_changed(ask, identity)
