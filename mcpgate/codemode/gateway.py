"""A running gateway: the pool, the catalog that follows it, the meta-tools over both, and the tools that are
shown directly. Faces (api/) stand on this; it knows nothing of wire formats."""

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

from mcpgate import jsontext
from mcpgate.catalog.catalog import Catalog, ServerListing
from mcpgate.catalog.learned import Memory
from mcpgate.catalog.tools import Tool
from mcpgate.codemode.bridge import Bridge
from mcpgate.codemode.handles import HandleStore
from mcpgate.codemode.metatools import MetaTools
from mcpgate.codemode.runner import Runner
from mcpgate.codemode.savings import saved
from mcpgate.config.settings import Config
from mcpgate.config.upstreams import UpstreamConfig
from mcpgate.errors import NotAllowed
from mcpgate.governance.callers import LOCAL, Caller, Grants
from mcpgate.governance.gate import Gate
from mcpgate.governance.prices import Prices
from mcpgate.governance.records import Request, Usage
from mcpgate.telemetry.metrics import Metrics
from mcpgate.upstream.connection import OnProgress
from mcpgate.upstream.pool import UpstreamPool
from mcpgate.upstream.upstream import UpstreamView
from mcpgate_sandbox.engine import Engine, Outcome

log = logging.getLogger("mcpgate.gateway")
_MIB = 1024 * 1024
_MOST_VIEWS = 1000
"""Different sets of grants that catalogs are kept for."""
_FIXED = (
    *("server.host", "server.port", "server.max_body_mib", "storage.url", "storage.counters", "sandbox.engine"),
    *("sandbox.warm", "sandbox.isolation", "sandbox.allow_unlocked", "sandbox.max_executions"),
    *("sandbox.max_sessions", "sandbox.max_session_mib", "sandbox.max_sessions_in_all", "sandbox.session_idle_s"),
)
"""Settings that a running gateway cannot change."""


def _setting(config: Config, name: str) -> object:
    section, _, key = name.partition(".")
    return getattr(getattr(config, section), key)


class Gateway:
    """Code Mode in front of a pool of upstreams, whatever face shows it."""

    def __init__(self, config: Config, engine: Engine, memory: Memory, gate: Gate, metrics: Metrics) -> None:
        self.config = config
        self.engine = engine
        self.memory = memory
        self.gate = gate
        self.metrics = metrics
        self.for_models = True
        """False where people ask: they save no tokens."""
        self.pool = UpstreamPool(held=True)
        self.handles = HandleStore(
            config.code_mode.max_handles, config.code_mode.max_handle_mib * _MIB, config.sandbox.session_idle_s
        )
        self.catalog = Catalog()
        self.direct: dict[str, Tool] = {}
        """Tools that are shown as they are, by the name they are shown under."""
        self._views: dict[Grants, Catalog] = {}
        """What the catalog is for each set of grants; gone when the catalog changes, as are the next."""
        self._measured: dict[Grants, tuple[int, int]] = {}
        self._listeners: list[Callable[[], None]] = []
        self._shown = b""
        self._rebuild_due = False
        self._remembered: dict[str, Sequence[dict[str, Any]]] = {}
        self._going = False
        self._with_engine = True
        self._progress: Callable[[str], None] | None = None
        self._bridge = Bridge(self.pool, self.catalog_of, memory, self.handles, gate)
        runner = Runner(engine, self._bridge, self.pool, self.catalog_of, memory, self.handles, gate, self._saved)
        self.metatools = MetaTools(
            runner, engine, self.pool, self.catalog_of, memory, gate, self._saved, config.code_mode, config.sandbox
        )
        self.pool.on_change(self._rebuild_soon)
        self.pool.remember_with(self._recall)

    def on_tools_changed(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Hear, on the event loop, when the gateway's own tools/list has changed. Returns what ends it."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            with contextlib.suppress(ValueError):
                self._listeners.remove(listener)

        return unsubscribe

    async def start(
        self, progress: Callable[[str], None] | None = None, hold_s: float = 0.0, with_engine: bool = True
    ) -> None:
        """Begin to connect and to get the sandbox ready; returns at once. With `hold_s` the beginning waits for
        `go()`, at most so long. Without `with_engine` the sandbox gets ready when code is first run."""
        self._progress, self._with_engine = progress, with_engine
        await self.gate.start()
        await self.pool.apply(self.config.mcpServers)
        self._rebuild()
        asyncio.get_running_loop().call_later(hold_s, self.go) if hold_s else self.go()

    def go(self) -> None:
        """End the wait of `start`; does nothing after the first time."""
        if not self._going:
            self._going = True
            if self._with_engine:
                self.engine.start(self._progress)
            self.pool.go()

    async def reload(self, config: Config) -> None:
        """Take over an edited configuration. Calls under way on servers that stay are not touched."""
        fixed = [name for name in _FIXED if _setting(config, name) != _setting(self.config, name)]
        if fixed:
            log.warning("changes of %s take effect at the next start", ", ".join(fixed))
        logging.getLogger("mcpgate").setLevel(config.telemetry.log_level.upper())
        self.handles.resize(config.code_mode.max_handles, config.code_mode.max_handle_mib * _MIB)
        self.config = config
        self.metatools.code_mode, self.metatools.sandbox = config.code_mode, config.sandbox
        await self.gate.reload(config.governance, prices_of(config))
        await self.pool.apply(config.mcpServers)
        self._rebuild()

    # --- what a caller may see and call

    def catalog_of(self, caller: Caller) -> Catalog:
        """The tools that code of a caller can reach: what is not granted is not there."""
        if caller.grants.everything:
            return self.catalog
        view = self._views.get(caller.grants)
        if view is None:
            if len(self._views) > _MOST_VIEWS:
                self._views.clear()
            view = self._views[caller.grants] = self.catalog.limited_to(lambda tool: may_call(caller, tool))
        return view

    def direct_of(self, caller: Caller) -> dict[str, Tool]:
        """The tools that are shown to a caller as they are."""
        return {name: tool for name, tool in self.direct.items() if may_call(caller, tool)}

    def tool_list(self, caller: Caller) -> list[dict[str, Any]]:
        """What `tools/list` shows: the meta-tools, then direct tools."""
        direct = self.direct_of(caller)
        return [*self.metatools.definitions(caller), *(shown(name, tool) for name, tool in direct.items())]

    async def call_direct(
        self, caller: Caller, tool: Tool, arguments: dict[str, Any], on_progress: OnProgress | None, meta: Any
    ) -> dict[str, Any]:
        """Pass a call of a direct tool through. Raises NotAllowed, what the gate refuses, UpstreamError, RpcError."""
        if not may_call(caller, tool):
            raise NotAllowed(f"{tool.qualified} is not granted to this key", key=caller.id)
        request = Request("tool", server=tool.server, tool=tool.name, estimate=Usage(calls=1))
        return await self._bridge.carry(caller, request, arguments, on_progress, meta)

    def _rebuild_soon(self) -> None:
        if not self._rebuild_due:
            self._rebuild_due = True
            asyncio.get_running_loop().call_soon(self._rebuild)

    def _rebuild(self) -> None:
        self._rebuild_due = False
        views = [view for view in self.pool.views() if view.state != "disabled"]
        for view in views:
            if view.state == "ready" and self._remembered.get(view.name) is not view.tools:
                self._remembered[view.name] = view.tools
                self.memory.remember_tools(view.name, view.tools)
        self.catalog = Catalog.build([_listing(v) for v in views if v.config.expose in ("code", "both")], self.catalog)
        self._views.clear()
        self._measured.clear()
        direct = Catalog.build([_listing(v) for v in views if v.config.expose in ("direct", "both")])
        self.direct = direct_names(direct.tools)
        shown_now = jsontext.dumps(self.tool_list(LOCAL))
        if shown_now != self._shown:
            first, self._shown = not self._shown, shown_now
            if not first:
                for listener in list(self._listeners):
                    listener()

    def _recall(self, name: str, config: UpstreamConfig) -> list[dict[str, Any]]:
        # Asked once for every upstream that is new or changed, before anything is remembered of it.
        self._remembered.pop(name, None)
        self.memory.place(name, _address(config))
        return self.memory.recall_tools(name)

    async def aclose(self) -> None:
        await asyncio.gather(self.pool.aclose(), self.engine.aclose(), return_exceptions=True)
        await self.gate.aclose()
        self.flush()

    def flush(self) -> None:
        """Write what is new to where it outlives this process."""
        self.memory.flush()

    def _saved(self, caller: Caller, answer: str, outcome: Outcome | None) -> Usage:
        """What a call of a meta-tool has saved its caller."""
        if not self.for_models:
            return Usage()
        chars = self._measured.get(caller.grants)
        if chars is None:
            if len(self._measured) > _MOST_VIEWS:
                self._measured.clear()
            theirs = sum(len(jsontext.dumps(tool.raw)) for tool in self.catalog_of(caller).tools)
            chars = self._measured[caller.grants] = (theirs, len(jsontext.dumps(self.tool_list(caller))))
        return saved(*chars, answer, outcome)


def may_call(caller: Caller, tool: Tool) -> bool:
    """Whether a tool is granted, under its own names or as Python sees it."""
    return caller.grants.allow_tool((tool.server, tool.name), (tool.server_ident, tool.ident))


def prices_of(config: Config) -> Prices:
    tools = {name: server.prices for name, server in config.mcpServers.items()}
    return Prices(tools, config.governance.execution_usd_per_s)


def _listing(view: UpstreamView) -> ServerListing:
    return ServerListing(view.name, view.tools, _about(view), _trouble(view))


def _about(view: UpstreamView) -> str:
    if view.config.description:
        return view.config.description
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
    if view.state == "connecting" and not view.reason:
        return "still starting"
    return f"not connected: {view.reason}"


def _address(config: UpstreamConfig) -> list[str]:
    return [config.url] if config.url else [config.command or "", *config.args]


def direct_names(tools: Sequence[Tool]) -> dict[str, Tool]:
    """server__tool → tool. Clients take 64 letters, digits, `_` and `-`; what clashes after that is numbered."""
    named: dict[str, Tool] = {}
    for tool in sorted(tools, key=lambda tool: (tool.server, tool.name)):
        base = re.sub(r"[^A-Za-z0-9_-]", "_", f"{tool.server}__{tool.name}")[:64]
        name, number = base, 1
        while name in named:
            number += 1
            name = f"{base[:60]}_{number}"
        named[name] = tool
    return named


def shown(name: str, tool: Tool) -> dict[str, Any]:
    """A direct tool as `tools/list` shows it: what the upstream sent, but for its name and for faults that
    would make an SDK client refuse the whole list."""
    wire = {**tool.raw, "name": name}
    schema = wire.get("inputSchema")
    if not isinstance(schema, dict):
        wire["inputSchema"] = {"type": "object"}
    elif schema.get("type") != "object":
        wire["inputSchema"] = {**schema, "type": "object"}
    output = wire.get("outputSchema")
    if "outputSchema" in wire and not (isinstance(output, dict) and output.get("type") == "object"):
        del wire["outputSchema"]
    for key, kind in (("annotations", dict), ("_meta", dict), ("icons", list), ("title", str), ("execution", dict)):
        if key in wire and not isinstance(wire[key], kind):
            del wire[key]
    if "description" in wire and not isinstance(wire["description"], str):
        wire["description"] = str(wire["description"])
    return wire
