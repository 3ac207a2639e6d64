"""The answers of list_tools: ranked call shapes, a whole server, or the servers, each cut to fit its room."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

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
    """How much of a tool its line shows: characters of its parameters, return type and description."""

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
"""For the tools of a whole server, from least to most. What is needed to write calls comes first."""
_DETAILS_OF_ONE = (_Detail(400, 90, 100), _Detail(160, 60, 50), _Detail(60, 0, 0))
"""For one tool among others."""
_WHOLE_SERVER = 1.1
"""Factor on the room of one server: a server listed whole is not asked for again. A tenth more saves one request in
twenty of BFCL's tasks (benchmarks/token_savings); more than that saves hardly any."""
_SHORTEST_LINE = 4
"""Fewest tokens of a tool's line."""


_RETURNED_OBJECT = re.compile(r"(?<= -> )\{[^{}]{30,}\}|(?<= -> list\[)\{[^{}]{30,}\}")


class Listing:
    """Writes lists of the tools of one catalog, for one caller."""

    def __init__(self, config: CodeModeConfig, observed: Callable[[Tool], Shape | None]) -> None:
        """`observed`: what the caller may see of a tool's learned results."""
        self._config, self._observed = config, observed

    def render(self, catalog: Catalog, query: str | None, server: str | None, limit: int | None) -> str:
        """Ranked call shapes for a query, a whole server, or the servers. Raises NotFound."""
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
        most = limit or self._config.list_limit
        found = catalog.search(query, most + 1)
        waiting = self._waiting(catalog)
        if not found:
            return f"Nothing matches {query!r}. Without a query, list_tools shows the servers.{waiting}"
        shared = {tool.server_ident: catalog.get_server(tool.server).shared_sentences for tool in found}
        lines = self._lines(found[:most], shared, room - 30 - estimate(waiting))
        more = len(found) > len(lines)
        tail = f"(the best {len(lines)}; limit=… shows more, a narrower query shows better ones)" if more else ""
        return "\n".join([*lines, *([tail] if tail else [])]) + waiting

    def _one_server(self, server: Server, limit: int | None, room: int, found: Sequence[Tool] = ()) -> str:
        """Every tool, in as much detail as fits; those that a search found come first."""
        if server.trouble and not server.tools:
            return f"{server.ident}: {server.trouble}"
        matches = frozenset(found)
        ordered = [*found, *(tool for tool in server.tools if tool not in matches)]
        tools, total = ordered[:limit], len(ordered)
        head = f"{server.ident}: {_tools(total)}, called as {server.ident}.NAME(…)"
        if server.trouble:
            head += f" ({_trouble(server, 60)})"
        if lines := self._whole(tools, server, int(room * _WHOLE_SERVER) - estimate(head) - 10):
            more = [f"({len(tools)} of {total})"] if len(tools) < total else []
            return "\n".join([head, *lines, *more])
        if found:
            lines = self._lines(tools, {server.ident: server.shared_sentences}, room - estimate(head) - 30, server)
            tail = f"(the best {len(lines)} of {total}; limit=… shows more, a narrower query shows better ones)"
            return "\n".join([head, *lines, tail])
        # The names of all tools say more than the shapes of some.
        names: list[str] = []
        for tool in tools:
            if estimate(", ".join([*names, tool.ident])) > room - 60:
                break
            names.append(tool.ident)
        hint = f'(names only; query="…" or describe_tools gives shapes; {total} tools in all)'
        return "\n".join([f"{server.ident}: {', '.join(names)}", hint])

    def _whole(self, tools: Sequence[Tool], server: Server, room: int) -> list[str]:
        """A line for every tool, in the most detail that fits; empty if none fits."""
        found: list[str] = []
        for detail in _DETAILS:
            if len(tools) * _SHORTEST_LINE > room:
                break
            lines = _name_repeated([self._line(tool, detail, server.shared_sentences, server) for tool in tools])
            if estimate("\n".join(lines)) > room:
                break
            found = lines
        return found

    def _lines(
        self, tools: Sequence[Tool], shared: Mapping[str, Collection[str]], room: int, server: Server | None = None
    ) -> list[str]:
        """The lines that fit; at least one."""
        lines: list[str] = []
        used = 0
        for tool in tools:
            for detail in _DETAILS_OF_ONE:
                line = self._line(tool, detail, shared[tool.server_ident], server)
                cost = estimate(line) + 1
                # One tool with many parameters must not take the room of all others.
                if cost <= max(60, room // 4):
                    break
            if used + cost > room and lines:
                break
            lines.append(line if cost <= room else results.shorten_text(line, room))
            used += cost
        return lines

    def _line(self, tool: Tool, detail: _Detail, shared: Collection[str], server: Server | None) -> str:
        """`server.tool(…) -> … — what it does`; without the server if the list has named it."""
        shape = call_shape(tool, self._observed(tool), detail.parameters, detail.returns)
        about = summary(tool, detail.about, shared) if detail.about else ""
        shape = shape.removeprefix(f"{server.ident}.") if server else shape
        return f"{shape} — {about}" if about else shape

    def _servers(self, catalog: Catalog, room: int) -> str:
        for about_room in (100, 50, 24, 0):
            lines = [_server_line(server, about_room) for server in catalog.servers]
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
        return "\n".join([*lines, f'{total} tools. query="what you need" ranks them; server="…" lists one server.'])

    def _waiting(self, catalog: Catalog) -> str:
        away = [server for server in catalog.servers if server.trouble]
        if not away:
            return ""
        said = [f"{server.ident}: {_trouble(server, 60)}" for server in away[:3]]
        more = f"; {len(away) - 3} more" if len(away) > 3 else ""
        return f"\n({'; '.join(said)}{more})"


def _tools(number: int) -> str:
    return f"{number} tool{'' if number == 1 else 's'}"


def _name_repeated(lines: Sequence[str]) -> list[str]:
    """The lines, with long objects that several tools return replaced by names and written out once below."""
    found = Counter(match[0] for line in lines for match in _RETURNED_OBJECT.finditer(line))
    named = {text: f"T{at}" for at, text in enumerate((text for text, count in found.items() if count > 1), 1)}
    if not named:
        return list(lines)
    short = [_RETURNED_OBJECT.sub(lambda match: named.get(match[0], match[0]), line) for line in lines]
    return [*short, *(f"{name} = {text}" for text, name in named.items())]


def _server_line(server: Server, about_room: int) -> str:
    about = _trouble(server, about_room) if server.trouble else _cut(server.about, about_room)
    return f"{server.ident} ({len(server.tools)} tools)" + (f": {about}" if about else "")


def _trouble(server: Server, room: int) -> str:
    text = server.trouble if server.trouble == STARTING else f"unavailable: {server.trouble}"
    return _cut(text, room)


def _cut(text: str, room: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= room else text[: max(0, room - 1)].rstrip() + "…" if room else ""
