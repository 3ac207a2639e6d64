"""All currently known tools, as one immutable snapshot that is replaced as a whole when an upstream changes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

from mcpgate.catalog.brief import brief
from mcpgate.catalog.meanings import Meanings
from mcpgate.catalog.names import identifiers, server_identifiers
from mcpgate.catalog.search import SearchIndex
from mcpgate.catalog.stubs import shared_sentences
from mcpgate.catalog.tools import Tool
from mcpgate.errors import NotFound, UnknownTool
from mcpgate.telemetry.text import one_line

_MAX_ABOUT = 400
_MAX_TROUBLE = 1_000
"""Maximum characters of the texts about a server."""
_LONGEST = 2_000
"""Maximum characters of a name that is looked up."""
_COMPARED = 200
_MOST_COMPARED = 5000
"""Limits of the search for the nearest name: characters of each name, and names."""


@dataclass(frozen=True, slots=True)
class ServerListing:
    """The input of a catalog: one upstream and the tools it sent. Its texts may come from the upstream."""

    name: str
    tools: Sequence[dict[str, Any]]
    about: str = ""
    """What the server is for."""
    trouble: str = ""
    """Why its tools cannot be called now; empty if they can."""


@dataclass(frozen=True, eq=False)
class Server:
    """One upstream in the catalog."""

    name: str
    ident: str
    about: str
    """One line without terminal control characters, like `trouble`."""
    trouble: str
    tools: tuple[Tool, ...]

    @cached_property
    def accepted(self) -> dict[str, Tool]:
        """Every accepted spelling of a tool: its identifier, its original name, or the name in lower case."""
        table = {tool.ident: tool for tool in self.tools}
        for tool in self.tools:
            table.setdefault(tool.name, tool)
        for tool in self.tools:
            table.setdefault(tool.name.lower(), tool)
        return table

    @cached_property
    def shared_sentences(self) -> frozenset[str]:
        """Sentences that most of its tools' descriptions share, which lists need not repeat."""
        return shared_sentences(self.tools)


class Catalog:
    """An immutable snapshot. Cheap to build. Its search index, which is not, is built on first use, or elsewhere and
    handed over with `search_with`."""

    def __init__(self, servers: Iterable[Server] = ()) -> None:
        self.servers = tuple(servers)
        self._whole: Catalog | None = None
        """The catalog of which this is a part: it has the search index."""
        self._among: frozenset[int] | None = None
        """The `id()` of each of the whole's tools that is in this part."""
        self.meanings: Meanings | None = None
        """What the tools mean, once that is known; it improves the search."""
        self._index: SearchIndex | None = None
        self._earlier: SearchIndex | None = None
        """The index of an earlier snapshot, which is searched while this one has none."""
        self._by_name = {server.ident: server for server in self.servers}
        for server in self.servers:
            self._by_name.setdefault(server.name, server)
        for server in self.servers:
            self._by_name.setdefault(server.name.lower(), server)

    @classmethod
    def build(cls, listings: Sequence[ServerListing], previous: "Catalog | None" = None) -> "Catalog":
        """The snapshot of these listings. Unchanged tools are reused from `previous`, with what was computed
        for them."""
        idents = server_identifiers(listing.name for listing in listings)
        known = {id(t.raw): t for s in (previous.servers if previous else ()) for t in s.tools}
        servers = []
        before = {server.name: server for server in (previous.servers if previous else ())}
        for listing in sorted(listings, key=lambda li: idents[li.name]):
            ident, old = idents[listing.name], before.get(listing.name)
            if old is not None and old.ident == ident and [*map(id, listing.tools)] == [id(t.raw) for t in old.tools]:
                tools = old.tools
            else:
                names = identifiers(str(tool["name"]) for tool in listing.tools)
                tools = tuple(_tool(listing.name, ident, names[str(raw["name"])], raw, known) for raw in listing.tools)
            about, trouble = one_line(listing.about, _MAX_ABOUT), one_line(listing.trouble, _MAX_TROUBLE)
            servers.append(Server(listing.name, ident, about, trouble, tools))
        catalog = cls(servers)
        if previous is not None:
            if index := previous._index or previous._earlier:
                catalog.search_with(index)
            if [*map(id, previous.tools)] == [*map(id, catalog.tools)]:
                catalog.meanings = previous.meanings
        return catalog

    @cached_property
    def tools(self) -> tuple[Tool, ...]:
        return tuple(tool for server in self.servers for tool in server.tools)

    @property
    def whole(self) -> "Catalog":
        """The catalog of which this is a part; itself if it is none."""
        return self._whole or self

    @property
    def index(self) -> SearchIndex:
        """Of the whole. Building it takes a second for thousands of tools."""
        whole = self.whole
        if whole._index is None:
            whole.search_with(SearchIndex(whole.tools, whole._earlier))
        assert whole._index is not None
        return whole._index

    @property
    def is_indexed(self) -> bool:
        return self.whole._index is not None

    @property
    def is_searchable(self) -> bool:
        """Whether a search need not build an index first."""
        return self.is_indexed or self.whole._earlier is not None

    def search_with(self, index: SearchIndex) -> None:
        """Search with this index. That of an earlier snapshot finds the tools that are in both."""
        if [*map(id, index.tools)] == [*map(id, self.tools)]:
            self._index, self._earlier = index, None
        elif self._index is None:
            self._earlier = index

    def search(self, query: str, limit: int, server: str | None = None) -> list[Tool]:
        """The tools that best match a request; none if they share no word with it."""
        whole = self.whole
        if whole._index is None and whole._earlier is not None:
            return whole._earlier.search(query, limit, server, self._ids)
        return self.index.search(query, limit, server, self._among, whole.meanings)

    def search_by_meaning(self, query: str, limit: int, server: str | None = None) -> list[Tool]:
        """The tools nearest to what a request means, whatever its words; none while their meanings are not known."""
        meanings = self.whole.meanings
        return self.index.nearest(query, limit, meanings, server, self._among) if meanings and self.is_indexed else []

    @cached_property
    def _ids(self) -> frozenset[int]:
        return frozenset(map(id, self.tools))

    def limited_to(self, allowed: Callable[[Tool], bool]) -> "Catalog":
        """The same catalog without the tools that are not allowed, and without servers that have none left; names
        and search stay the same."""
        servers = []
        for server in self.servers:
            tools = tuple(tool for tool in server.tools if allowed(tool))
            if tools:
                servers.append(server if len(tools) == len(server.tools) else replace(server, tools=tools))
        limited = Catalog(servers)
        limited._whole = self.whole
        limited._among = limited._ids
        return limited

    def withholds(self, name: str) -> bool:
        """Whether a server or a tool with this name was left out of this catalog."""
        if self._whole is None or name in self._by_name:
            return False
        if self._whole.find_server(name) is not None:
            return self.find_server(name) is None
        try:
            return id(self._whole.get_tool(name)) not in (self._among or ())
        except UnknownTool:
            return False

    def find_server(self, name: str) -> Server | None:
        return self._by_name.get(name) or self._by_name.get(name[:_LONGEST].lower())

    def get_server(self, name: str) -> Server:
        """Raises NotFound with the nearest names."""
        server = self.find_server(name)
        if server is None:
            near = nearest(name, self._by_name)
            hint = (
                f"did you mean {' or '.join(near)}?" if near else f"servers: {', '.join(s.ident for s in self.servers)}"
            )
            raise NotFound(f"there is no server {brief(name, _COMPARED)}; {hint}", nearest=near)
        return server

    def get_tool(self, name: str) -> Tool:
        """By `server.tool` in any accepted spelling, `server__tool`, or the bare name if only one server has
        it. Raises UnknownTool with the nearest names."""
        whole, name = name, name[:_LONGEST]
        if whole != name:
            raise UnknownTool(f"there is no tool {brief(name, _COMPARED)}; its name is too long", nearest=[])
        for separator in (".", "__", "/", ":"):
            head, found, rest = name.partition(separator)
            server = self.find_server(head) if found else None
            if server is not None and (tool := server.accepted.get(rest) or server.accepted.get(rest.lower())):
                return tool
        for server in self.servers:  # a server's own name may contain the separator
            for spelling in (server.name, server.ident):
                if name.startswith(spelling):
                    rest = name[len(spelling) :]
                    for separator in (".", "__", "/", ":"):
                        if tool := server.accepted.get(rest.removeprefix(separator)):
                            return tool
        bare = [server.accepted[name] for server in self.servers if name in server.accepted]
        if len(bare) == 1:
            return bare[0]
        near = [t.qualified for t in bare[:5]] or self.nearest_tools(name)
        hint = f"did you mean {' or '.join(near)}?" if near else "list_tools(query) finds tools"
        raise UnknownTool(f"there is no tool {brief(name, _COMPARED)}; {hint}", nearest=near)

    def nearest_tools(self, name: str, limit: int = 3) -> list[str]:
        head, _, rest = name[:_LONGEST].rpartition(".")
        server = self.find_server(head) if head else None
        if server is not None:
            near = nearest(rest, [t.ident for t in server.tools], limit)
            if near:
                return [f"{server.ident}.{n}" for n in near]
        found = nearest(name, [tool.qualified for tool in self.tools] if len(self.tools) < 3000 else [], limit)
        return found or [tool.qualified for tool in self.search(name, limit)] if self.is_searchable else found


def _tool(server: str, server_ident: str, ident: str, raw: dict[str, Any], known: dict[int, Tool]) -> Tool:
    """The known tool if its identifiers are unchanged, otherwise a new one."""
    old = known.get(id(raw))
    if old is not None and old.server_ident == server_ident and old.ident == ident:
        return old
    return Tool(server, server_ident, str(raw["name"]), ident, raw)


def nearest(word: str, candidates: Iterable[str], limit: int = 3, cutoff: int = 60) -> list[str]:
    """The most similar candidates, best first; none if none is similar. Compares only the beginning of long words,
    and only the first of many candidates."""
    from rapidfuzz import fuzz, process  # as in search.py

    table = {candidate[:_COMPARED].lower(): candidate for candidate in islice(candidates, _MOST_COMPARED)}
    word = word[:_COMPARED].lower()
    found = process.extract(word, table.keys(), scorer=fuzz.ratio, limit=limit, score_cutoff=cutoff)
    return [table[name] for name, _, _ in found]
