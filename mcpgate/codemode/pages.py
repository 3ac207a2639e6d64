"""The answers of read_docs: the page of the sandbox, a server or a tool, and resources and prompts of upstreams."""

import contextlib
import dataclasses
import re
from typing import Any

from mcpgate.catalog import docs
from mcpgate.catalog.catalog import Server
from mcpgate.catalog.learned import Memory
from mcpgate.catalog.names import server_in
from mcpgate.codemode import results
from mcpgate.codemode.indexing import Indexer
from mcpgate.codemode.runner import Runner
from mcpgate.config.settings import Settings
from mcpgate.errors import McpgateError, NotFound, Unavailable, UnknownTool
from mcpgate.governance.callers import Caller
from mcpgate.governance.context import RequestContext
from mcpgate.proxy.resources import Resources, What
from mcpgate.proxy.views import Views
from mcpgate.upstream.pool import UpstreamPool
from mcpgate_sandbox.engine import Engine
from mcpgate_sandbox.errors import SandboxUnavailable


class Pages:
    """Writes long-form documentation."""

    def __init__(
        self,
        settings: Settings,
        views: Views,
        pool: UpstreamPool,
        resources: Resources,
        indexer: Indexer,
        learned: Memory,
        engine: Engine,
        runner: Runner,
    ) -> None:
        self._settings, self._views, self._pool, self._resources = settings, views, pool, resources
        self._indexer, self._learned, self._engine, self._runner = indexer, learned, engine, runner

    async def render(self, context: RequestContext, topic: str) -> str:
        """A page. Raises NotFound, NotAllowed, Unavailable, and the gate's refusals."""
        caller = context.caller
        topic = topic.strip()
        await self._views.grace(server_in(topic))
        await self._indexer.searchable(caller.bundle)
        catalog = self._views.catalog_of(caller)
        if topic in ("", "index", "help"):
            return docs.index_page(catalog)
        if topic == "sandbox" and catalog.find_server("sandbox") is None:
            return await self._sandbox_page(caller)
        if (server := catalog.find_server(topic)) is not None:
            return self._bounded(
                await self._server_page(context, server, caller.grants.allow_whole_server(server.name, server.ident))
            )
        head, _, rest = topic.partition(" ")
        if rest and (server := catalog.find_server(head)) is not None:
            return self._bounded(await self._resource_or_prompt(context, server, rest.strip()))
        try:
            tool = catalog.get_tool(topic)
        except UnknownTool as error:
            known = ", ".join(server.ident for server in catalog.servers[:20])
            near = error.data["nearest"]
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise NotFound(
                f'there is no page {topic!r}; topics are "sandbox", a server ({known}), or server.tool{hint}',
                nearest=near,
            ) from None
        return docs.tool_page(tool, self._learned.observed(tool, caller.account))

    async def _sandbox_page(self, caller: Caller) -> str:
        try:
            available, missing = await self._engine.modules()
        except SandboxUnavailable as error:
            raise Unavailable(f"code cannot run: {error}") from error
        return docs.sandbox_page(self._engine.name, available, missing, dataclasses.asdict(self._runner.limits(caller)))

    async def _server_page(self, context: RequestContext, server: Server, with_resources: bool) -> str:
        upstream = self._pool.get(server.name)
        if (way_in := await upstream.way_in(context.caller.owner)) is not None:
            server = dataclasses.replace(server, trouble=way_in)
        facts = upstream.view.facts
        found: dict[What, list[dict[str, Any]]] = {"resources": [], "resourceTemplates": [], "prompts": []}
        if facts is not None and not server.trouble and with_resources:
            for what in found:
                with contextlib.suppress(McpgateError):
                    found[what] = [*(await self._resources.listed_for(context, server, what))[:100]]
        instructions = facts.instructions if facts else ""
        return docs.server_page(server, instructions, found["resources"], found["resourceTemplates"], found["prompts"])

    async def _resource_or_prompt(self, context: RequestContext, server: Server, name: str) -> str:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", name):
            result = await self._resources.request(context, server, "resources/read", {"uri": name})
            contents = result.get("contents")
            parts = [c for c in contents if isinstance(c, dict)] if isinstance(contents, list) else []
            return "\n".join(
                str(c["text"])
                if "text" in c
                else f"<{c.get('mimeType', 'blob')}, {len(str(c.get('blob', '')))} base64 characters>"
                for c in parts
            )
        result = await self._resources.request(context, server, "prompts/get", {"name": name, "arguments": {}})
        messages = result.get("messages")
        lines = []
        for message in messages if isinstance(messages, list) else []:
            content = message.get("content") if isinstance(message, dict) else None
            if isinstance(content, dict):
                lines.append(f"{message.get('role')}: {content.get('text', content.get('type'))}")
        return "\n".join(lines)

    def _bounded(self, text: str) -> str:
        limit = max(self._settings.config.code_mode.max_result_tokens, 1000)
        return text if results.fits(text, limit) else results.shorten_text(text, limit)
