"""The answers of list_tools: ranked call shapes, one server's tools, or the servers, each shortened to fit its
room.

If more tools match than there is room for, the best get their full shape, the next a short one and the rest only
their names: a model that sees a name asks describe_tools, whereas one that does not see it searches again.
Figures are in benchmarks/discovery/.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from mcpgate.catalog.brief import tool_count
from mcpgate.catalog.catalog import Catalog, Server
from mcpgate.catalog.shapes import Shape
from mcpgate.catalog.stubs import call_shape, summary
from mcpgate.catalog.tools import Tool
from mcpgate.codemode import results
from mcpgate.config.settings import CodeModeConfig
from mcpgate.proxy.views import STARTING
from mcpgate.tokens import estimate


@dataclass(frozen=True, slots=True)
class _Detail:
    """How much a tool's line shows: characters of its parameters, its return type and its description."""

    parameters: int
    returns: int
    about: int


_DETAILS = (
    _Detail(40, 0, 0),
    _Detail(70, 0, 0),
    _Detail(100, 0, 0),
    _Detail(160, 30, 0),
    _Detail(240, 60, 0),
    _Detail(400, 60, 60),
    _Detail(400, 90, 100),
)
"""For the tools of one whole server, from little to much. What is needed to write calls comes first."""
_DETAILS_OF_ONE = (_Detail(400, 90, 60), _Detail(160, 60, 40), _Detail(60, 0, 0))
"""For one tool among others."""
_SHORT_DETAIL = _Detail(40, 0, 0)
_FULL, _SHORT = 3, 1
"""Of a search that finds more than its answer holds: tools with their whole shape, and after them with a short one, in
an answer of 300 tokens. The rest come by name: the room of a short shape is worth three names, and a model that wants
one of those asks describe_tools in any case."""
_TAIL = "limit=… or a narrower query shows more"
_NAMES = "by name (describe_tools shows shapes, limit=… more): "
_NEAREST = "No tool has these words; the nearest in meaning:"
_MAX_NEAR = 12
"""Tools that are shown where no word matches."""
_MARGIN = 8
"""Tokens by which an estimate may be too low."""
_CHARACTERS_A_TOKEN = 3.7
"""Maximum for names: they contain words of no language, which an estimate treats as English."""
_TRIES = 10
"""How many counts of full shapes are tried for one answer, approximately."""
_MAX_NAMED = 200
"""Maximum number of tools in a list of names."""
_LONGEST_NAME = 100
"""Characters of a name in a list of names; a longer name would displace many others."""
_WHOLE_SERVER = 1.1
"""Times the room that one server may take: what is listed whole is not asked for again. A tenth spares BFCL's tasks one
request in twenty (benchmarks/token_savings); more of it spares hardly any more."""
_SHORTEST_LINE = 4
"""Minimum tokens of a tool's line."""


_RETURNED_OBJECT = re.compile(r"(?<= -> )\{[^{}]{30,}\}|(?<= -> list\[)\{[^{}]{30,}\}")


class Listing:
    """Writes lists of the tools of one catalog, for one caller."""

    def __init__(self, config: CodeModeConfig, observed: Callable[[Tool], Shape | None]) -> None:
        """`observed`: what the caller may know of a tool's results."""
        self._config, self._observed = config, observed

    def render(self, catalog: Catalog, query: str | None, server: str | None, limit: int | None) -> str:
        """Ranked call shapes for a query, a server whole, or the servers. Raises NotFound."""
        chosen = catalog.get_server(server) if server else None
        least = self._config.list_tokens
        room = least if limit is None else max(least, 30 * limit)
        if query and query.strip():
            return self._search(catalog, query, chosen, limit, room)
        if chosen is not None:
            return self._one_server(chosen, limit, room)
        return self._servers(catalog, room)

    def _search(self, catalog: Catalog, query: str, server: Server | None, limit: int | None, room: int) -> str:
        if server is not None:
            found = catalog.search(query, len(server.tools), server.name)
            return self._one_server(server, limit, room, found)
        found = catalog.search(query, limit + 1 if limit else _MAX_NAMED)
        waiting = self._waiting(catalog)
        head = ""
        if not found:
            found = catalog.search_by_meaning(query, _MAX_NEAR)
            head = f"{_NEAREST}\n"
        if not found:
            return f"Nothing matches {query!r}. Without a query, list_tools shows the servers.{waiting}"
        servers = {server.ident: server for server in catalog.servers}
        lines = self._ranked(found, servers, limit, room - estimate(waiting) - estimate(head))
        return head + "\n".join(lines) + waiting

    def _one_server(self, server: Server, limit: int | None, room: int, found: Sequence[Tool] = ()) -> str:
        """Every tool, in as much detail as there is room for; those that a search has found come first."""
        if server.trouble and not server.tools:
            return f"{server.ident}: {server.trouble}"
        matches = frozenset(found)
        ordered = [*found, *(tool for tool in server.tools if tool not in matches)]
        tools, total = ordered[:limit], len(ordered)
        head = f"{server.ident}: {tool_count(total)}, called as {server.ident}.NAME(…)"
        if server.trouble:
            head += f" ({_trouble(server, 60)})"
        if lines := self._whole(tools, server, int(room * _WHOLE_SERVER) - estimate(head) - 10):
            more = [f"({len(tools)} of {total})"] if len(tools) < total else []
            return "\n".join([head, *lines, *more])
        if found:
            servers = {server.ident: server}
            return "\n".join([head, *self._ranked(ordered, servers, limit, room - estimate(head), server)])
        # All tools by name say more than some by shape.
        names: list[str] = []
        for tool in tools:
            if estimate(", ".join([*names, tool.ident])) > room - 60:
                break
            names.append(tool.ident)
        hint = f'(names only; query="…" or describe_tools gives shapes; {tool_count(total)} in all)'
        return "\n".join([f"{server.ident}: {', '.join(names)}", hint])

    def _whole(self, tools: Sequence[Tool], server: Server, room: int) -> list[str]:
        """A line for every tool, in the most detail that fits; empty when none does."""
        found: list[str] = []
        for detail in _DETAILS:
            if len(tools) * _SHORTEST_LINE > room:
                break
            lines = _name_repeated([self._line(tool, detail, server.shared_sentences, server) for tool in tools])
            if estimate("\n".join(lines)) > room:
                break
            found = lines
        return found

    def _ranked(
        self,
        found: Sequence[Tool],
        servers: Mapping[str, Server],
        limit: int | None,
        room: int,
        server: Server | None = None,
    ) -> list[str]:
        """The best with their shapes, the rest by name until the room is full; at least one tool, and not more than
        `limit` that the model asked for."""
        most = limit or self._config.list_limit
        full, short = (max(1, round(each * room / 300)) for each in (_FULL, _SHORT))
        room -= estimate(_NAMES) + _MARGIN
        lines, costs = self._lines(found, servers, room, [_DETAILS_OF_ONE] * most, server)
        if len(lines) == len(found):
            return lines
        wanted = found[:limit]
        least = min(full, len(lines))
        step = max(1, (len(lines) - least) // _TRIES)
        for at in (*range(len(lines), least, -step), least):
            # As many whole shapes as leave room for short ones and for the names of all others.
            left = room - sum(costs[:at])
            after, used = self._lines(
                wanted[at : min(at + short, most)], servers, left, [(_SHORT_DETAIL,)] * short, server, 0
            )
            rest = wanted[at + len(after) :]
            names, named = _names(rest[:_MAX_NAMED], left - sum(used), server)
            if named == len(rest):
                break
        return [*lines[:at], *after, _NAMES + names if names else f"({_TAIL})"]

    def _lines(
        self,
        tools: Sequence[Tool],
        servers: Mapping[str, Server],
        room: int,
        details: Sequence[Sequence[_Detail]],
        server: Server | None,
        least: int = 1,
    ) -> tuple[list[str], list[int]]:
        """Lines that fit, at least `least`, and their tokens. `details`: how each may be written, the best first."""
        lines: list[str] = []
        costs: list[int] = []
        used = 0
        for tool, choice in zip(tools, details, strict=False):
            for detail in choice:
                line = self._line(tool, detail, servers[tool.server_ident].shared_sentences, server)
                cost = estimate(line) + 1
                # A tool with many parameters must not displace all others.
                if cost <= max(60, room // 4):
                    break
            if used + cost > room and len(lines) >= least:
                break
            lines.append(line if cost <= room else results.shorten_text(line, room))
            costs.append(cost)
            used += cost
        return lines, costs

    def _line(self, tool: Tool, detail: _Detail, shared: Collection[str], server: Server | None) -> str:
        """`server.tool(…) -> … — what it does`; without the server where the list has named it."""
        shape = call_shape(tool, self._observed(tool), detail.parameters, detail.returns)
        about = summary(tool, detail.about, shared) if detail.about else ""
        shape = shape.removeprefix(f"{server.ident}.") if server else shape
        return f"{shape} — {about}" if about else shape

    def _servers(self, catalog: Catalog, room: int) -> str:
        for about_room, reason_room in ((100, 400), (100, 200), (50, 100), (24, 60), (0, 40), (0, 0)):
            lines = [_server_line(server, about_room, reason_room) for server in catalog.servers]
            if estimate("\n".join(lines)) <= room - 40:
                break
        else:
            lines = []
            for server in catalog.servers:
                item = f"{server.ident} ({len(server.tools)})" + ("!" if server.trouble else "")
                if estimate(", ".join([*lines, item])) > room - 60:
                    break
                lines.append(item)
            more = len(catalog.servers) - len(lines)
            lines = [", ".join(lines) + (f" and {more} more servers" if more else "")]
        total = sum(len(server.tools) for server in catalog.servers)
        return "\n".join(
            [*lines, f'{tool_count(total)}. query="what you need" ranks them; server="…" lists one server.']
        )

    def _waiting(self, catalog: Catalog) -> str:
        away = [server for server in catalog.servers if server.trouble]
        if not away:
            return ""
        said = [f"{server.ident}: {_trouble(server, 60)}" for server in away[:3]]
        more = f"; {len(away) - 3} more" if len(away) > 3 else ""
        return f"\n({'; '.join(said)}{more})"


def _names(tools: Sequence[Tool], room: float, server: Server | None) -> tuple[str, int]:
    """`files: read, write; mail: send`: as many as fit, and how many; grouped by server, each group and each name in it
    in the order given; without the server where the list has named it."""
    groups: dict[str, list[str]] = {}
    count = 0
    for tool in tools:
        if len(tool.ident) > _LONGEST_NAME:
            continue
        text = f", {tool.ident}" if tool.server_ident in groups else f"; {tool.server_ident}: {tool.ident}"
        cost = max(estimate(text), len(text) / _CHARACTERS_A_TOKEN)
        if cost <= room:
            room -= cost
            count += 1
            groups.setdefault(tool.server_ident, []).append(tool.ident)
    named = {ident: ", ".join(names) for ident, names in groups.items()}
    text = ", ".join(named.values()) if server else "; ".join(f"{ident}: {names}" for ident, names in named.items())
    return text, count


def _name_repeated(lines: Sequence[str]) -> list[str]:
    """Lines with the long objects that several tools return named, and written out once below."""
    found = Counter(match[0] for line in lines for match in _RETURNED_OBJECT.finditer(line))
    named = {text: f"T{at}" for at, text in enumerate((text for text, count in found.items() if count > 1), 1)}
    if not named:
        return list(lines)
    short = [_RETURNED_OBJECT.sub(lambda match: named.get(match[0], match[0]), line) for line in lines]
    return [*short, *(f"{name} = {text}" for text, name in named.items())]


def _server_line(server: Server, about_room: int, reason_room: int) -> str:
    about = _trouble(server, reason_room) if server.trouble else _cut(server.about, about_room)
    return f"{server.ident} ({tool_count(len(server.tools))})" + (f": {about}" if about else "")


def _trouble(server: Server, room: int) -> str:
    text = server.trouble if server.trouble == STARTING else f"unavailable: {server.trouble}"
    return _cut(text, room)


def _cut(text: str, room: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= room else text[: max(0, room - 1)].rstrip() + "…" if room else ""
