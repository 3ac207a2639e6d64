"""What is served at one address: the tools that code can call, and the servers whose tools, resources and prompts are
listed as the gateway's own. The whole gateway is one such surface, and each bundle of the configuration another."""

import fnmatch
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from mcpgate.catalog.catalog import Catalog, Server, ServerListing
from mcpgate.catalog.tools import Tool
from mcpgate.config.upstreams import BundleConfig
from mcpgate.proxy.direct import direct_names
from mcpgate.upstream.upstream import UpstreamView

Listing = Callable[[UpstreamView], ServerListing]
WHOLE = BundleConfig()


@dataclass(frozen=True, slots=True)
class Surface:
    """One address."""

    catalog: Catalog
    """What code can call."""
    direct_catalog: Catalog
    """What is listed as the gateway's own."""
    direct: dict[str, Tool]
    """The same, by exposed name."""
    direct_servers: tuple[Server, ...]
    """Servers whose resources and prompts are listed too, in the order of the configuration."""
    meta_tools: bool
    """Whether the four meta-tools are there."""


NOTHING = Surface(Catalog(), Catalog(), {}, (), False)


def surface_of(
    bundle: BundleConfig,
    views: Sequence[UpstreamView],
    listing: Listing,
    reserved: Collection[str],
    before: Surface = NOTHING,
) -> Surface:
    """What a bundle is made of now. `reserved`: names of meta-tools, which no direct tool takes where they are
    served. `before`: the same bundle earlier, from which unchanged tools are reused."""
    members = [view for view in views if any(fnmatch.fnmatchcase(view.name, glob) for glob in bundle.servers)]
    exposed = {view.name: bundle.expose or view.config.expose for view in members}

    def listings(*kinds: str) -> list[ServerListing]:
        return [_filtered(listing(view), bundle) for view in members if exposed[view.name] in kinds]

    direct = Catalog.build(listings("direct", "both"), before.direct_catalog)
    prefixes = {view.name: view.config.prefix for view in members}
    servers = {server.name: server for server in direct.servers}
    return Surface(
        Catalog.build(listings("code", "both"), before.catalog),
        direct,
        direct_names(direct.tools, prefixes.__getitem__, reserved if bundle.meta_tools else ()),
        tuple(servers[view.name] for view in members if view.name in servers),
        bundle.meta_tools,
    )


def _filtered(listing: ServerListing, bundle: BundleConfig) -> ServerListing:
    if bundle.tools == WHOLE.tools:
        return listing

    def belongs(tool: dict[str, object]) -> bool:
        names = (str(tool["name"]), f"{listing.name}.{tool['name']}")

        def matches(globs: Sequence[str]) -> bool:
            return any(fnmatch.fnmatchcase(name, glob) for name in names for glob in globs)

        return matches(bundle.tools.allow) and not matches(bundle.tools.deny)

    return ServerListing(listing.name, [t for t in listing.tools if belongs(t)], listing.about, listing.trouble)
