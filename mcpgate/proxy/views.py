"""What a caller sees and may call: the catalog and the directly exposed tools, limited to its grants. Search, lists
and calls all use it, so that what is visible is exactly what is allowed."""

import re
import time
from collections.abc import Collection

from mcpgate.catalog.catalog import Catalog, Server, ServerListing
from mcpgate.catalog.learned import Memory
from mcpgate.catalog.names import to_identifier
from mcpgate.catalog.tools import Tool
from mcpgate.config.settings import Settings
from mcpgate.config.upstreams import UpstreamConfig
from mcpgate.governance.callers import Caller, Grants
from mcpgate.proxy.bundles import NOTHING, WHOLE, Surface, surface_of
from mcpgate.proxy.direct import clashes
from mcpgate.upstream.pool import UpstreamPool
from mcpgate.upstream.upstream import UpstreamView

_MAX_VIEWS = 1000
"""Distinct sets of grants for which catalogs are cached."""
_GRACE_S = 3.0
"""How long a request waits for a server that is still starting, and all the first ones together where no other server
has an answer."""
STARTING = "still starting; calls wait for it"
"""The `trouble` of a server that will soon have tools."""


class Views:
    """The snapshot of every tool, and what each caller sees of it."""

    def __init__(self, settings: Settings, pool: UpstreamPool, learned: Memory, reserved: Collection[str] = ()) -> None:
        """`reserved`: names that no direct tool may have beside the meta-tools."""
        self._settings, self._pool, self._learned, self._reserved = settings, pool, learned, reserved
        self._surfaces: dict[str | None, Surface] = {}
        self._before: dict[str | None, Surface] = {}
        self._limited: dict[tuple[str | None, Grants], Catalog] = {}
        self._grace_ends: float | None = None
        self._remembered: dict[str, object] = {}
        pool.remember_with(self._recall)

    def rebuild(self) -> None:
        """Rebuild from the pool's current state."""
        for view in self._pool.views():
            if view.state == "ready" and self._remembered.get(view.name) is not view.tools:
                self._remembered[view.name] = view.tools
                self._learned.remember_tools(view.name, view.tools)
                if view.facts is not None:
                    self._learned.remember_capabilities(view.name, view.facts.capabilities)
        self._before |= self._surfaces
        self._surfaces.clear()
        self._limited.clear()

    def surface(self, bundle: str | None) -> Surface:
        """What is served at an address; nothing for a bundle that the configuration does not have."""
        found = self._surfaces.get(bundle)
        if found is None:
            configured = WHOLE if bundle is None else self._settings.config.bundles.get(bundle)
            if configured is None:
                return NOTHING
            views = [view for view in self._pool.views() if view.state != "disabled"]
            before = self._before.pop(bundle, NOTHING)
            found = self._surfaces[bundle] = surface_of(configured, views, _listing, self._reserved, before)
        return found

    @property
    def catalog(self) -> Catalog:
        """Every tool that code can call."""
        return self.surface(None).catalog

    def bundles(self) -> tuple[str | None, ...]:
        """The name of each bundle, and None for the whole gateway."""
        return None, *self._settings.config.bundles

    def catalog_of(self, caller: Caller) -> Catalog:
        """The tools that a caller's code can reach: only what is granted."""
        whole = self.surface(caller.bundle).catalog
        if caller.grants.everything:
            return whole
        place = (caller.bundle, caller.grants)
        limited = self._limited.get(place)
        if limited is None:
            if len(self._limited) > _MAX_VIEWS:
                self._limited.clear()
            limited = self._limited[place] = whole.limited_to(lambda tool: may_call(caller, tool))
        return limited

    def direct_of(self, caller: Caller) -> dict[str, Tool]:
        """The directly exposed tools that a caller may call."""
        return {name: tool for name, tool in self.surface(caller.bundle).direct.items() if may_call(caller, tool)}

    def clashes(self) -> list[str]:
        """Names of direct tools that two tools want, anywhere in the gateway, in words."""
        prefixes = {view.name: view.config.prefix for view in self._pool.views()}
        found = []
        for bundle in self.bundles():
            surface = self.surface(bundle)
            reserved = self._reserved if surface.meta_tools else ()
            where = "" if bundle is None else f"bundle {bundle!r}: "
            found += [where + text for text in clashes(surface.direct_catalog.tools, prefixes.__getitem__, reserved)]
        return found

    def direct_servers_of(self, caller: Caller) -> list[Server]:
        """The servers whose resources and prompts a caller sees as the gateway's own."""
        whole = caller.grants.allow_whole_server
        return [server for server in self.surface(caller.bundle).direct_servers if whole(server.name, server.ident)]

    def servers_of(self, caller: Caller) -> set[str]:
        """The names of the servers that a caller reaches in any way."""
        coded = {server.name for server in self.catalog_of(caller).servers}
        direct = {tool.server for tool in self.direct_of(caller).values()}
        return coded | direct | {server.name for server in self.direct_servers_of(caller)}

    def direct_views_of(self, caller: Caller) -> list[UpstreamView]:
        """The same as the pool knows them."""
        return [self._pool.get(server.name).view for server in self.direct_servers_of(caller)]

    def capabilities_of(self, view: UpstreamView) -> frozenset[str] | None:
        """What a server is capable of: as it says, or said when it was last connected; None if it never was."""
        return self._learned.recall_capabilities(view.name) if view.facts is None else view.facts.capabilities

    async def acquaintance(self, caller: Caller) -> None:
        """Wait briefly until it is known what the servers that a caller reaches directly are capable of. One that was
        connected before is not waited for: some clients ask for the tools only once, and soon."""
        views = self.direct_views_of(caller)
        unknown = [view.name for view in views if self.capabilities_of(view) is None and not view.reason]
        if unknown:
            await self._pool.settled(unknown, _GRACE_S)

    async def grace(self, *servers: str) -> None:
        """Wait briefly for those of these servers that are starting for the first time and have no tools yet."""
        asked = [name for name in self._fresh() if name in servers or to_identifier(name) in servers]
        if asked:
            await self._pool.settled(asked, _GRACE_S)

    async def more(self) -> bool:
        """Wait until one more of the servers that are starting for the first time has tools, or has failed; False if
        there is none to wait for. Only the first requests wait, a few seconds all together."""
        fresh = self._fresh()
        if not fresh:
            return False
        if self._grace_ends is None:
            self._grace_ends = time.monotonic() + _GRACE_S
        left_s = self._grace_ends - time.monotonic()
        return left_s > 0 and await self._pool.settled(fresh, left_s, any_of_them=True)

    def _fresh(self) -> list[str]:
        return [v.name for v in self._pool.views() if v.state == "connecting" and not v.tools and not v.reason]

    def _recall(self, name: str, config: UpstreamConfig) -> list[dict[str, object]]:
        # Called once for each new or changed upstream, before anything about it is remembered.
        self._remembered.pop(name, None)
        self._learned.place(name, [config.url] if config.url else [config.command or "", *config.args])
        return self._learned.recall_tools(name)


def may_call(caller: Caller, tool: Tool) -> bool:
    """Whether a tool is granted, by its original names or by its Python identifiers."""
    grants = caller.grants
    return grants.everything or grants.allow_tool((tool.server, tool.name), (tool.server_ident, tool.ident))


def _listing(view: UpstreamView) -> ServerListing:
    return ServerListing(view.name, view.tools, _about(view), _trouble(view))


def _about(view: UpstreamView) -> str:
    about = view.config.description or _introduction(view)
    return f"{about} ({view.warning})".strip() if view.warning else about


def _introduction(view: UpstreamView) -> str:
    """How a server introduces itself, in a few words."""
    facts = view.facts
    if facts is None:
        return ""
    sentence = re.split(r"(?<=[.!?])\s", " ".join(facts.instructions.split()), maxsplit=1)[0]
    if sentence.startswith("#"):
        sentence = ""  # a manual, not a sentence
    return facts.title or sentence or (facts.name if facts.name != view.name else "")


def _trouble(view: UpstreamView) -> str:
    if view.state == "ready":
        return ""
    if view.config.unusable:
        return view.reason
    if view.state == "connecting" and not view.reason:
        return STARTING
    if view.state == "needs_sign_in":
        if view.config.auth is not None and view.config.auth.per == "user":
            return f'each caller signs in separately: read_docs("{to_identifier(view.name)}") tells where'
        return view.reason  # which begins with what to do
    return f"not connected: {view.reason}"
