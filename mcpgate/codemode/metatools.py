"""The four meta-tools: what the model sees of mcpgate. Plain methods that give text; faces turn it into wire
formats, and people reach the same methods from the command line."""

import contextlib
import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from mcpgate.catalog import docs
from mcpgate.catalog.catalog import Catalog, Server
from mcpgate.catalog.learned import Memory
from mcpgate.catalog.stubs import call_shape, stub, summary
from mcpgate.catalog.tools import Tool
from mcpgate.codemode import results
from mcpgate.codemode.runner import Answer, Runner
from mcpgate.config.settings import CodeModeConfig, SandboxConfig
from mcpgate.errors import InvalidRequest, McpgateError, NotAllowed, NotFound, Unavailable, UnknownTool
from mcpgate.governance.callers import Caller
from mcpgate.governance.gate import Admission, Gate
from mcpgate.governance.records import Request, Usage
from mcpgate.tokens import estimate
from mcpgate.upstream.connection import OnProgress
from mcpgate.upstream.pool import UpstreamPool
from mcpgate_sandbox.engine import Engine, Limits, Outcome
from mcpgate_sandbox.errors import SandboxUnavailable

_MAX_NAMES = 50
_GRACE_S = 3.0
"""How long a first question waits for servers that are just starting."""


@dataclass(frozen=True, slots=True)
class _Detail:
    """How much of a tool its line shows: characters of parameters, of the return type, of what it does."""

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
"""Of the tools of a whole server, from little to much. What calls are written from comes first."""
_DETAILS_OF_ONE = (_Detail(400, 90, 100), _Detail(160, 60, 50), _Detail(60, 0, 0))
"""Of one tool among others."""
_WHOLE_SERVER = 1.1
"""Times the room that one server may take: what is listed whole is not asked for again. A tenth spares BFCL's tasks one
request in twenty (benchmarks/token_savings); more of it spares hardly any more."""
_SHORTEST_LINE = 4
"""Tokens of a tool's line, at least."""


class MetaTools:
    """list_tools, describe_tools, read_docs, execute_code."""

    def __init__(
        self,
        runner: Runner,
        engine: Engine,
        pool: UpstreamPool,
        catalog: Callable[[Caller], Catalog],
        memory: Memory,
        gate: Gate,
        saved: Callable[[Caller, str, Outcome | None], Usage],
        code_mode: CodeModeConfig,
        sandbox: SandboxConfig,
    ) -> None:
        self._runner, self._engine, self._pool = runner, engine, pool
        self._catalog, self._memory, self._gate, self._saved = catalog, memory, gate, saved
        self.code_mode, self.sandbox = code_mode, sandbox
        self._indexed: WeakKeyDictionary[Catalog, tuple[int, str]] = WeakKeyDictionary()

    # --- definitions

    def definitions(self, caller: Caller) -> list[dict[str, Any]]:
        """The meta-tools that a caller may use, as `tools/list` shows them. The same bytes as long as what the caller
        may see of the catalog is the same."""
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
        catalog, room = self._catalog(caller), self.code_mode.index_tokens
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

    # --- list_tools

    async def list_tools(
        self, caller: Caller, query: str | None = None, server: str | None = None, limit: int | None = None
    ) -> str:
        """Ranked call shapes, one line a tool; without arguments the servers. Raises NotFound, InvalidRequest."""
        async with self._admitted(caller, "list_tools") as admission:
            return self._told(admission, await self._list_tools(caller, query, server, limit))

    async def _list_tools(self, caller: Caller, query: str | None, server: str | None, limit: int | None) -> str:
        if limit is not None and not 1 <= limit <= 1000:
            raise InvalidRequest("limit must be from 1 to 1000")
        await self._grace()
        catalog = self._catalog(caller)
        if not catalog.servers:
            return "No servers are configured." if caller.grants.everything else "No tools are granted to this key."
        chosen = catalog.get_server(server) if server else None
        room = self.code_mode.list_tokens if limit is None else max(self.code_mode.list_tokens, 30 * limit)
        if query and query.strip():
            return self._search(catalog, query, chosen, limit, room)
        if chosen is not None:
            return self._one_server(chosen, limit, room)
        return self._servers(catalog, room)

    def _search(self, catalog: Catalog, query: str, server: Server | None, limit: int | None, room: int) -> str:
        if server is not None:
            found = catalog.search(query, len(server.tools), server.name)
            return self._one_server(server, limit, room, found)
        most = limit or self.code_mode.list_limit
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
        """Every tool, in as much detail as there is room for; those that a search has found come first."""
        if server.trouble and not server.tools:
            return f"{server.ident}: {server.trouble}"
        matches = frozenset(found)
        ordered = [*found, *(tool for tool in server.tools if tool not in matches)]
        tools, total = ordered[:limit], len(ordered)
        head = f"{server.ident}: {_tools(total)}, called as {server.ident}.NAME(…)"
        if server.trouble:
            head += f" (not usable now: {_cut(server.trouble, 60)})"
        if lines := self._whole(tools, server, int(room * _WHOLE_SERVER) - estimate(head) - 10):
            more = [f"({len(tools)} of {total})"] if len(tools) < total else []
            return "\n".join([head, *lines, *more])
        if found:
            lines = self._lines(tools, {server.ident: server.shared_sentences}, room - estimate(head) - 30, server)
            tail = f"(the best {len(lines)} of {total}; limit=… shows more, a narrower query shows better ones)"
            return "\n".join([head, *lines, tail])
        # All by name says more than some by shape.
        names: list[str] = []
        for tool in tools:
            if estimate(", ".join([*names, tool.ident])) > room - 60:
                break
            names.append(tool.ident)
        hint = f'(names only; query="…" or describe_tools gives shapes; {total} tools in all)'
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

    def _lines(
        self, tools: Sequence[Tool], shared: Mapping[str, Collection[str]], room: int, server: Server | None = None
    ) -> list[str]:
        """Lines that fit; at least one."""
        lines: list[str] = []
        used = 0
        for tool in tools:
            for detail in _DETAILS_OF_ONE:
                line = self._line(tool, detail, shared[tool.server_ident], server)
                cost = estimate(line) + 1
                # One tool of many parameters must not take the room of all the others.
                if cost <= max(60, room // 4):
                    break
            if used + cost > room and lines:
                break
            lines.append(line if cost <= room else results.shorten_text(line, room))
            used += cost
        return lines

    def _line(self, tool: Tool, detail: _Detail, shared: Collection[str], server: Server | None) -> str:
        """`server.tool(…) -> … — what it does`; without the server where the list has named it."""
        shape = call_shape(tool, self._memory.observed(tool), detail.parameters, detail.returns)
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
        said = [f"{server.ident}: {_cut(server.trouble, 60)}" for server in away[:3]]
        more = f"; {len(away) - 3} more" if len(away) > 3 else ""
        return f"\n(not usable now: {'; '.join(said)}{more})"

    # --- describe_tools

    async def describe_tools(self, caller: Caller, names: Sequence[str]) -> str:
        """Python stubs. A wrong name gets the nearest right ones; only if every name is wrong is it an error.
        Raises InvalidRequest, UnknownTool."""
        async with self._admitted(caller, "describe_tools") as admission:
            return self._told(admission, await self._describe_tools(caller, names))

    async def _describe_tools(self, caller: Caller, names: Sequence[str]) -> str:
        if not names:
            raise InvalidRequest('names is empty; give names as server.tool, e.g. ["files.read_text_file"]')
        if len(names) > _MAX_NAMES:
            raise InvalidRequest(f"describe_tools takes {_MAX_NAMES} names at a time, not {len(names)}")
        await self._grace()
        catalog = self._catalog(caller)
        stubs: list[str] = []
        wrong: list[UnknownTool] = []
        for name in dict.fromkeys(names):
            server = catalog.find_server(name)
            if catalog.withholds(name):
                raise NotAllowed(f"{name} is not granted to this key", key=caller.id)
            try:
                tools = [catalog.get_tool(name)] if server is None else list(server.tools[:40])
            except UnknownTool as error:
                wrong.append(error)
                continue
            stubs += [stub(tool, self._memory.observed(tool)) for tool in tools]
            if server is not None and len(server.tools) > 40:
                stubs.append(f"# … {len(server.tools) - 40} more tools of {server.ident}; name the ones you need")
        if wrong and not stubs:
            raise UnknownTool("\n".join(error.message for error in wrong), nearest=wrong[0].data.get("nearest", []))
        return "\n\n".join(dict.fromkeys([*stubs, *(f"# {error.message}" for error in wrong)]))

    # --- read_docs

    async def read_docs(self, caller: Caller, topic: str) -> str:
        """A page. Raises NotFound, NotAllowed."""
        async with self._admitted(caller, "read_docs") as admission:
            return self._told(admission, await self._read_docs(caller, topic))

    async def _read_docs(self, caller: Caller, topic: str) -> str:
        await self._grace()
        topic = topic.strip()
        catalog = self._catalog(caller)
        if topic in ("", "index", "help"):
            return docs.index_page(catalog)
        if topic == "sandbox" and catalog.find_server("sandbox") is None:
            return await self._sandbox_page(caller)
        if (server := catalog.find_server(topic)) is not None:
            return self._bounded(
                await self._server_page(server, caller.grants.allow_whole_server(server.name, server.ident))
            )
        head, _, rest = topic.partition(" ")
        if rest and (server := catalog.find_server(head)) is not None:
            if not caller.grants.allow_whole_server(server.name, server.ident):
                raise NotAllowed(f"resources and prompts of {server.ident} need a grant of all its tools")
            return self._bounded(await self._resource_or_prompt(server, rest.strip()))
        try:
            tool = catalog.get_tool(topic)
        except UnknownTool as error:
            known = ", ".join(server.ident for server in catalog.servers[:20])
            raise NotFound(
                f'no page {topic!r}; topics are "sandbox", a server ({known}), or server.tool. {error.message}'
            ) from None
        return docs.tool_page(tool, self._memory.observed(tool))

    async def _sandbox_page(self, caller: Caller) -> str:
        try:
            available, missing = await self._engine.modules()
        except SandboxUnavailable as error:
            raise Unavailable(f"no code can run: {error}") from error
        return docs.sandbox_page(self._engine.name, available, missing, dataclasses.asdict(self.limits(caller)))

    async def _server_page(self, server: Server, with_resources: bool) -> str:
        upstream = self._pool.get(server.name)
        facts = upstream.view.facts
        found: dict[str, list[dict[str, Any]]] = {"resources": [], "resourceTemplates": [], "prompts": []}
        if facts is not None and not server.trouble and with_resources:
            for what in found:
                capability = "prompts" if what == "prompts" else "resources"
                if capability in facts.capabilities:
                    with contextlib.suppress(McpgateError):
                        found[what] = (await upstream.list_all(what))[:100]
        instructions = facts.instructions if facts else ""
        return docs.server_page(server, instructions, found["resources"], found["resourceTemplates"], found["prompts"])

    async def _resource_or_prompt(self, server: Server, name: str) -> str:
        upstream = self._pool.get(server.name)
        if "://" in name:
            result = await upstream.request("resources/read", {"uri": name})
            contents = result.get("contents")
            parts = [c for c in contents if isinstance(c, dict)] if isinstance(contents, list) else []
            return "\n".join(
                str(c["text"])
                if "text" in c
                else f"<{c.get('mimeType', 'blob')}, {len(str(c.get('blob', '')))} base64 characters>"
                for c in parts
            )
        result = await upstream.request("prompts/get", {"name": name, "arguments": {}})
        messages = result.get("messages")
        lines = []
        for message in messages if isinstance(messages, list) else []:
            content = message.get("content") if isinstance(message, dict) else None
            if isinstance(content, dict):
                lines.append(f"{message.get('role')}: {content.get('text', content.get('type'))}")
        return "\n".join(lines)

    def _bounded(self, text: str) -> str:
        limit = max(self.code_mode.max_result_tokens, 1000)
        return text if results.fits(text, limit) else results.shorten_text(text, limit)

    # --- execute_code

    async def execute_code(
        self,
        caller: Caller,
        code: str,
        session: str | None = None,
        timeout_s: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> Answer:
        """Run code. Raises InvalidRequest, Unavailable, and what admission raises."""
        self._check_granted(caller, "execute_code")
        limits = self.limits(caller)
        if timeout_s is not None:
            if not timeout_s > 0:
                raise InvalidRequest(f"timeout_s must be more than 0, not {timeout_s:g}")
            limits = dataclasses.replace(
                limits,
                timeout_s=min(timeout_s, limits.timeout_s),
                tool_wait_s=min(timeout_s, limits.tool_wait_s),
            )
        return await self._runner.run(caller, code, limits, self.code_mode.max_result_tokens, session, on_progress)

    # --- admission

    def _check_granted(self, caller: Caller, name: str) -> None:
        if not caller.grants.allow_meta_tool(name):
            raise NotAllowed(f"{name} is not granted to this key", key=caller.id)

    def _admitted(self, caller: Caller, name: str) -> Admission:
        self._check_granted(caller, name)
        return self._gate.admit(caller, Request("meta", tool=name))

    def _told(self, admission: Admission, text: str) -> str:
        admission.spent(self._saved(admission.caller, text, None))
        return text

    def limits(self, caller: Caller) -> Limits:
        """What an execution of this caller may use: the settings, with the caller's own in their places."""
        return Limits(**{**self.sandbox.limits(), **caller.limits})

    async def _grace(self) -> None:
        """Wait a moment for servers that have nothing to show yet."""
        fresh = [v.name for v in self._pool.views() if v.state == "connecting" and not v.tools and not v.reason]
        if fresh:
            await self._pool.settled(fresh, _GRACE_S)


_STRING = {"type": "string"}
_RETURNED_OBJECT = re.compile(r"(?<= -> )\{[^{}]{30,}\}|(?<= -> list\[)\{[^{}]{30,}\}")


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


def _tools(number: int) -> str:
    return f"{number} tool{'' if number == 1 else 's'}"


def _name_repeated(lines: Sequence[str]) -> list[str]:
    """Lines with the long objects that several tools return named, and written out once below."""
    found = Counter(match[0] for line in lines for match in _RETURNED_OBJECT.finditer(line))
    named = {text: f"T{at}" for at, text in enumerate((text for text, count in found.items() if count > 1), 1)}
    if not named:
        return list(lines)
    short = [_RETURNED_OBJECT.sub(lambda match: named.get(match[0], match[0]), line) for line in lines]
    return [*short, *(f"{name} = {text}" for text, name in named.items())]


def _server_line(server: Server, about_room: int) -> str:
    about = _cut(f"not usable now: {server.trouble}" if server.trouble else server.about, about_room)
    return f"{server.ident} ({len(server.tools)} tools)" + (f": {about}" if about else "")


def _cut(text: str, room: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= room else text[: max(0, room - 1)].rstrip() + "…" if room else ""
