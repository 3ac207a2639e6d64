"""What a caller sees and may call: the catalog and the directly exposed tools, limited to its grants. Search, lists and
calls all ask here, so that what is visible and what is allowed are always the same."""

import re
import time

from mcpgate.catalog.catalog import Catalog, ServerListing
from mcpgate.catalog.learned import Memory
from mcpgate.catalog.names import to_identifier
from mcpgate.catalog.tools import Tool
from mcpgate.config.upstreams import UpstreamConfig
from mcpgate.governance.callers import Caller, Grants
from mcpgate.proxy.direct import direct_names
from mcpgate.upstream.pool import UpstreamPool
from mcpgate.upstream.upstream import UpstreamView

_MAX_VIEWS = 1000
"""Distinct sets of grants for which catalogs are cached."""
_GRACE_S = 3.0
"""How long the first requests wait for servers that are still starting: in total, not each."""
STARTING = "still starting; calls wait for it"
"""The `trouble` of a server that will soon have tools."""


class Views:
    """The snapshot of every tool, and what each caller sees of it."""

    def __init__(self, pool: UpstreamPool, learned: Memory) -> None:
        self._pool, self._learned = pool, learned
        self.catalog = Catalog()
        """The tools that code can call."""
        self._direct = Catalog()
        self.direct: dict[str, Tool] = {}
        """Directly exposed tools, by their exposed names."""
        self._views: dict[Grants, Catalog] = {}
        self._grace_ends: float | None = None
        self._remembered: dict[str, object] = {}
        pool.remember_with(self._recall)

    def rebuild(self) -> None:
        """Take what the pool knows now."""
        views = [view for view in self._pool.views() if view.state != "disabled"]
        for view in views:
            if view.state == "ready" and self._remembered.get(view.name) is not view.tools:
                self._remembered[view.name] = view.tools
                self._learned.remember_tools(view.name, view.tools)
        self.catalog = Catalog.build([_listing(v) for v in views if v.config.expose in ("code", "both")], self.catalog)
        self._views.clear()
        self._direct = Catalog.build(
            [_listing(v) for v in views if v.config.expose in ("direct", "both")], self._direct
        )
        self.direct = direct_names(self._direct.tools)

    def catalog_of(self, caller: Caller) -> Catalog:
        """The tools that a caller's code can reach: only what is granted."""
        if caller.grants.everything:
            return self.catalog
        view = self._views.get(caller.grants)
        if view is None:
            if len(self._views) > _MAX_VIEWS:
                self._views.clear()
            view = self._views[caller.grants] = self.catalog.limited_to(lambda tool: may_call(caller, tool))
        return view

    def direct_of(self, caller: Caller) -> dict[str, Tool]:
        """The directly exposed tools that a caller may call."""
        return {name: tool for name, tool in self.direct.items() if may_call(caller, tool)}

    async def grace(self, server: str | None = None) -> None:
        """Wait briefly for servers that start for the first time and have no tools yet: for the named server the full
        time, for others only shortly after the very first request."""
        fresh = [v for v in self._pool.views() if v.state == "connecting" and not v.tools and not v.reason]
        if not fresh:
            return
        if self._grace_ends is None:
            self._grace_ends = time.monotonic() + _GRACE_S
        left_s = self._grace_ends - time.monotonic()
        asked = [view.name for view in fresh if server in (view.name, to_identifier(view.name))]
        if asked:
            await self._pool.settled(asked, _GRACE_S)
        elif left_s > 0:
            await self._pool.settled([view.name for view in fresh], left_s)

    def _recall(self, name: str, config: UpstreamConfig) -> list[dict[str, object]]:
        # Called once for every new or changed upstream, before anything about it is remembered.
        self._remembered.pop(name, None)
        self._learned.place(name, [config.url] if config.url else [config.command or "", *config.args])
        return self._learned.recall_tools(name)


def may_call(caller: Caller, tool: Tool) -> bool:
    """Whether a tool is granted, by its original names or by its Python identifiers."""
    return caller.grants.allow_tool((tool.server, tool.name), (tool.server_ident, tool.ident))


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
    return f"not connected: {view.reason}"
