"""The four meta-tools as `tools/list` shows them. What they do is in metatools.py."""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from mcpgate.catalog.catalog import Catalog, Server
from mcpgate.catalog.stubs import call_shape
from mcpgate.config.settings import Settings
from mcpgate.governance.callers import Caller
from mcpgate.proxy.views import Views
from mcpgate.tokens import estimate

META_TOOL_NAMES = ("list_tools", "describe_tools", "read_docs", "execute_code")
_STRING = {"type": "string"}


class Definitions:
    """The definitions, with an index of the servers that the caller may see."""

    def __init__(self, settings: Settings, views: Views) -> None:
        self._settings, self._views = settings, views
        self._indexed: WeakKeyDictionary[Catalog, tuple[int, str]] = WeakKeyDictionary()

    def of(self, caller: Caller) -> list[dict[str, Any]]:
        """The meta-tools that a caller may use, as `tools/list` shows them. Byte-stable while the caller's view of the
        catalog stays the same."""
        if not self._views.surface(caller.bundle).meta_tools:
            return []
        index = self._index(caller)
        defined = [
            _definition(
                "list_tools",
                "Find tools. query: what you need, in words; answers with ranked call shapes, often all you need "
                "to write code. server: lists that server whole. Without arguments: the servers.",
                {"query": _STRING, "server": _STRING, "limit": {"type": "integer"}},
                read_only=True,
            ),
            _definition(
                "describe_tools",
                "Python stubs of tools: nested argument types, enums, limits, return types. names: server.tool",
                {"names": {"type": "array", "items": _STRING}},
                ["names"],
                read_only=True,
            ),
            _definition(
                "read_docs",
                "Long-form docs. topic: sandbox, a server, or server.tool",
                {"topic": _STRING},
                ["topic"],
                read_only=True,
            ),
            _definition(
                "execute_code",
                "Run Python 3 in a sandbox where every server is a global: "
                'x = files.read(path="a.txt"). Results are Python values. '
                "Parallel: a, b = await asyncio.gather(files.read(...), docs.search(...)). "
                "Do multi-step work in one execution: loop, filter, join there. "
                "Only what you print or return is shown, so return little. "
                "Failing tools raise ToolError. session keeps variables between calls." + index,
                {"code": _STRING, "session": _STRING, "timeout_s": {"type": "number"}},
                ["code"],
            ),
        ]
        return [tool for tool in defined if caller.grants.allow_meta_tool(tool["name"])]

    def _index(self, caller: Caller) -> str:
        """The servers, and as many of their tools as fit `code_mode.index_tokens`."""
        catalog, room = self._views.catalog_of(caller), self._settings.config.code_mode.index_tokens
        known = self._indexed.get(catalog)
        if known is None or known[0] != room:
            known = self._indexed[catalog] = (room, self._make_index(catalog.servers, room))
        return known[1]

    def _make_index(self, servers: Sequence[Server], room: int) -> str:
        if room == 0 or not servers:
            return ""
        tools = [tool for server in servers for tool in server.tools]
        complete = all(server.tools for server in servers) and len(tools) <= room // 8
        candidates = []
        for parameters, returns in ((120, 90), (120, 0), (60, 0)) if complete else ():
            # Without learned shapes: they change while the catalog stays the same, and the text must not.
            shapes = [call_shape(tool, None, parameters, returns) for tool in tools]
            candidates.append(" Tools: " + "; ".join(shapes))
        names = [f"{s.ident}: {', '.join(t.ident for t in s.tools)}" if s.tools else s.ident for s in servers]
        counts = [f"{s.ident} ({len(s.tools)})" if s.tools else s.ident for s in servers]
        candidates += [" Tools by server: " + "; ".join(names), " Servers (tools): " + ", ".join(counts)]
        idents = [server.ident for server in servers]
        candidates += [" Servers: " + ", ".join(idents)]
        candidates += [
            f" Servers: {', '.join(idents[:at])} … and {len(idents) - at} more" for at in range(len(idents) - 1, 0, -1)
        ]
        return next((text for text in candidates if len(text) < room * 8 and estimate(text) <= room), "")


def _definition(
    name: str, description: str, properties: dict[str, Any], required: Sequence[str] = (), read_only: bool = False
) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    definition: dict[str, Any] = {"name": name, "description": description, "inputSchema": schema}
    if read_only:
        definition["annotations"] = {"readOnlyHint": True}
    return definition
