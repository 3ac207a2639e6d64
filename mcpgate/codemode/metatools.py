"""The four meta-tools: what the model sees of mcpgate. Plain methods that return text; faces turn it into wire formats,
and the command line calls the same methods."""

import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from mcpgate import jsontext
from mcpgate.catalog.catalog import Catalog
from mcpgate.catalog.learned import Memory
from mcpgate.catalog.names import server_in
from mcpgate.catalog.stubs import stub
from mcpgate.codemode.answers import Answer
from mcpgate.codemode.indexing import Indexer
from mcpgate.codemode.listing import Listing
from mcpgate.codemode.pages import Pages
from mcpgate.codemode.runner import Runner
from mcpgate.codemode.savings import Savings
from mcpgate.config.settings import Settings
from mcpgate.errors import InvalidRequest, McpgateError, NotAllowed, UnknownTool
from mcpgate.governance.callers import Caller
from mcpgate.governance.context import RequestContext
from mcpgate.governance.gate import Gate
from mcpgate.governance.records import Request
from mcpgate.proxy.views import Views

_MAX_NAMES = 50
_MAX_TOOLS_OF_SERVER = 40


class MetaTools:
    """list_tools, describe_tools, read_docs, execute_code."""

    def __init__(
        self,
        settings: Settings,
        views: Views,
        indexer: Indexer,
        learned: Memory,
        pages: Pages,
        runner: Runner,
        gate: Gate,
        savings: Savings,
    ) -> None:
        self._settings, self._views, self._learned, self._pages = settings, views, learned, pages
        self._indexer, self._runner, self._gate, self._savings = indexer, runner, gate, savings

    async def list_tools(
        self, context: RequestContext, query: str | None = None, server: str | None = None, limit: int | None = None
    ) -> str:
        """Ranked call shapes, one line per tool; without arguments, the servers. Raises NotFound, InvalidRequest, and
        what admission raises."""

        async def answer(context: RequestContext) -> str:
            if limit is not None and not 1 <= limit <= 1000:
                raise InvalidRequest("limit must be from 1 to 1000")
            catalog = await self._catalog_for(context.caller, query, server)
            if not catalog.servers:
                everything = context.caller.grants.everything
                return "No servers are configured." if everything else "No tools are granted to this key."
            observed = partial(self._learned.observed, owner=context.caller.account)
            return Listing(self._settings.config.code_mode, observed).render(catalog, query, server, limit)

        return await self._admitted(context, "list_tools", {"query": query, "server": server, "limit": limit}, answer)

    async def _catalog_for(self, caller: Caller, query: str | None, server: str | None) -> Catalog:
        """What a caller sees, after a short wait for the server it names. Where nothing else answers it, for any that
        is starting."""
        if server:
            await self._views.grace(server)
        while True:
            if query:
                await self._indexer.searchable(caller.bundle)
            catalog = self._views.catalog_of(caller)
            if server or (catalog.search(query, 1) if query else any(each.tools for each in catalog.servers)):
                return catalog
            if not await self._views.more():
                return catalog

    async def describe_tools(self, context: RequestContext, names: Sequence[str]) -> str:
        """Python stubs. For a wrong name, the nearest right ones are named; it is an error only if every name is wrong.
        Raises InvalidRequest, UnknownTool, and what admission raises."""

        async def answer(context: RequestContext) -> str:
            if not names:
                raise InvalidRequest('names is empty; give names as server.tool, e.g. ["files.read_text_file"]')
            if len(names) > _MAX_NAMES:
                raise InvalidRequest(f"describe_tools takes {_MAX_NAMES} names at a time, not {len(names)}")
            await self._views.grace(*(server_in(name) for name in names))
            await self._indexer.searchable(context.caller.bundle)
            return self._stubs(context, names)

        return await self._admitted(context, "describe_tools", {"names": names}, answer)

    def _stubs(self, context: RequestContext, names: Sequence[str]) -> str:
        catalog = self._views.catalog_of(context.caller)
        stubs: list[str] = []
        wrong: list[UnknownTool] = []
        for name in dict.fromkeys(names):
            server = catalog.find_server(name)
            if catalog.withholds(name):
                raise NotAllowed(f"{name} is not granted to this key", key=context.caller.id, tool=name)
            try:
                tools = [catalog.get_tool(name)] if server is None else list(server.tools[:_MAX_TOOLS_OF_SERVER])
            except UnknownTool as error:
                wrong.append(error)
                continue
            stubs += [stub(tool, self._learned.observed(tool, context.caller.account)) for tool in tools]
            if server is not None and len(server.tools) > len(tools):
                stubs.append(
                    f"# … {len(server.tools) - len(tools)} more tools of {server.ident}; name the ones you need"
                )
        if wrong and not stubs:
            raise UnknownTool("\n".join(error.message for error in wrong), nearest=wrong[0].data.get("nearest", []))
        return "\n\n".join(dict.fromkeys([*stubs, *(f"# {error.message}" for error in wrong)]))

    async def read_docs(self, context: RequestContext, topic: str) -> str:
        """A page. Raises NotFound, NotAllowed, and what admission raises."""
        return await self._admitted(
            context, "read_docs", {"topic": topic}, lambda inner: self._pages.render(inner, topic)
        )

    async def execute_code(
        self, context: RequestContext, code: str, session: str | None = None, timeout_s: float | None = None
    ) -> Answer:
        """Run code. Raises InvalidRequest, Unavailable, and what admission raises."""
        self._check_granted(context, "execute_code")
        limits = self._runner.limits(context.caller)
        if timeout_s is not None:
            if not timeout_s > 0:
                raise InvalidRequest(f"timeout_s must be more than 0, not {timeout_s:g}")
            limits = dataclasses.replace(
                limits,
                timeout_s=min(timeout_s, limits.timeout_s),
                tool_wait_s=min(timeout_s, limits.tool_wait_s),
            )
        return await self._runner.run(context, code, limits, session)

    async def _admitted(
        self,
        context: RequestContext,
        name: str,
        sent: Mapping[str, Any],
        answer: Callable[[RequestContext], Awaitable[str]],
    ) -> str:
        """The answer of a meta-tool that runs no code, with what it saved. `sent`: its arguments."""
        self._check_granted(context, name)
        async with self._gate.admit(context, Request("meta", tool=name)) as admission:
            admission.note_sent(lambda: jsontext.dumps(sent))
            text = await answer(context.inside(admission))
            admission.saved = self._savings.of(context.caller, text, None)
            admission.note_answered(lambda: text)
            return text

    def _check_granted(self, context: RequestContext, name: str) -> None:
        caller = context.caller
        if not (caller.grants.allow_meta_tool(name) and self._views.surface(caller.bundle).meta_tools):
            error = NotAllowed(f"{name} is not granted to this key", key=caller.id, tool=name)
            self.refused(context, name, error)
            raise error

    def refused(self, context: RequestContext, name: str, error: McpgateError) -> None:
        """Say in the request log that a meta-tool was not called."""
        self._gate.refused(context, Request("execution" if name == "execute_code" else "meta", tool=name), error)
