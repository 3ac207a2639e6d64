"""The gateway: pool, views, meta-tools and direct tools put together. Faces (api/) build on it; it knows nothing of
wire formats. lifecycle.py starts, reloads and stops it."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from mcpgate import jsontext
from mcpgate.catalog.catalog import Catalog
from mcpgate.catalog.learned import Memory
from mcpgate.catalog.tools import Tool
from mcpgate.codemode.answers import Answers
from mcpgate.codemode.bridge import Bridge
from mcpgate.codemode.definitions import Definitions
from mcpgate.codemode.handles import HandleStore
from mcpgate.codemode.metatools import MetaTools
from mcpgate.codemode.pages import Pages
from mcpgate.codemode.runner import Runner
from mcpgate.codemode.savings import Savings
from mcpgate.config.settings import Config, Settings
from mcpgate.governance.callers import LOCAL, Caller
from mcpgate.governance.gate import Gate
from mcpgate.proxy.calls import Calls
from mcpgate.proxy.direct import shown
from mcpgate.proxy.resources import Resources
from mcpgate.proxy.views import Views
from mcpgate.telemetry.metrics import Metrics
from mcpgate.upstream.pool import UpstreamPool
from mcpgate_sandbox.engine import Engine

_MIB = 1024 * 1024


class Gateway:
    """Code Mode in front of a pool of upstreams, independent of any face."""

    def __init__(self, settings: Settings, engine: Engine, learned: Memory, gate: Gate, metrics: Metrics) -> None:
        self.settings, self.engine, self.learned, self.gate, self.metrics = settings, engine, learned, gate, metrics
        config = settings.config
        self.pool = UpstreamPool(held=True)
        self.handles = HandleStore(
            config.code_mode.max_handles,
            config.code_mode.max_handle_mib * _MIB,
            config.sandbox.session_idle_s,
            config.code_mode.max_handle_mib_in_all * _MIB,
        )
        self.views = Views(self.pool, learned)
        self.calls = Calls(self.pool, gate)
        self.definitions = Definitions(settings, self.views)
        self.savings = Savings(self.views, self.tool_list)
        bridge = Bridge(self.views, self.calls, learned, self.handles)
        answers = Answers(settings, self.handles)
        runner = Runner(settings, engine, bridge, self.views, self.pool, answers, gate, self.savings)
        resources = Resources(self.pool, gate)
        pages = Pages(settings, self.views, self.pool, resources, learned, engine, runner)
        self.metatools = MetaTools(settings, self.views, learned, pages, runner, gate, self.savings)
        self._listeners: list[Callable[[], None]] = []
        self._shown = b""
        self._rebuild_due = False
        self.go: Callable[[], None] = self.pool.go
        """Starts connecting the upstreams: a new process answers its first request before it shares its cores with
        the children it starts. Does nothing after the first call."""
        self.pool.on_change(self._rebuild_soon)

    @property
    def config(self) -> Config:
        """The active configuration."""
        return self.settings.config

    @property
    def catalog(self) -> Catalog:
        """Every tool that code can call."""
        return self.views.catalog

    @property
    def direct(self) -> dict[str, Tool]:
        """Every directly exposed tool, by its exposed name."""
        return self.views.direct

    def tool_list(self, caller: Caller) -> list[dict[str, Any]]:
        """What `tools/list` shows: the meta-tools, then direct tools."""
        direct = self.views.direct_of(caller)
        return [*self.definitions.of(caller), *(shown(name, tool) for name, tool in direct.items())]

    def on_tools_changed(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` on the event loop whenever the gateway's own tools/list changes. Returns the function that
        unsubscribes it."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            with contextlib.suppress(ValueError):
                self._listeners.remove(listener)

        return unsubscribe

    def rebuild(self) -> None:
        """Take what the pool knows now, and call the listeners if the tool list has changed."""
        self._rebuild_due = False
        self.views.rebuild()
        self.savings.forget()
        shown_now = jsontext.dumps(self.tool_list(LOCAL))
        if shown_now != self._shown:
            first, self._shown = not self._shown, shown_now
            if not first:
                for listener in list(self._listeners):
                    listener()

    def _rebuild_soon(self) -> None:
        if not self._rebuild_due:
            self._rebuild_due = True
            asyncio.get_running_loop().call_soon(self.rebuild)
