"""The gateway: pool, views, meta-tools and direct tools put together. Faces (api/) build on it; it knows nothing of
wire formats. lifecycle.py starts, reloads and stops it."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mcpgate import jsontext
from mcpgate.activity.activity import Activity
from mcpgate.cache.cache import Cache
from mcpgate.catalog.catalog import Catalog, nearest
from mcpgate.catalog.learned import Memory
from mcpgate.catalog.tools import Tool
from mcpgate.codemode.answers import Answers
from mcpgate.codemode.attachments import Attachments
from mcpgate.codemode.bridge import Bridge
from mcpgate.codemode.definitions import META_TOOL_NAMES, Definitions
from mcpgate.codemode.handles import HandleStore
from mcpgate.codemode.indexing import Indexer
from mcpgate.codemode.metatools import MetaTools
from mcpgate.codemode.pages import Pages
from mcpgate.codemode.runner import Runner
from mcpgate.codemode.savings import Savings
from mcpgate.config.settings import Config, Settings
from mcpgate.errors import NotAllowed, NotFound
from mcpgate.governance.callers import LOCAL, Caller
from mcpgate.governance.gate import Gate
from mcpgate.proxy.cached import CachedResults
from mcpgate.proxy.calls import Calls
from mcpgate.proxy.carrier import Carrier
from mcpgate.proxy.direct import shown
from mcpgate.proxy.resources import Resources
from mcpgate.proxy.roots import Roots
from mcpgate.proxy.subscriptions import Subscriptions
from mcpgate.proxy.views import Views
from mcpgate.telemetry.metrics import Metrics
from mcpgate.upstream.links import Links
from mcpgate.upstream.pool import UpstreamPool
from mcpgate.upstream.tokens import Vault
from mcpgate.upstream.upstream import Announcement
from mcpgate_sandbox.engine import Engine

if TYPE_CHECKING:
    from mcpgate.llm.chat import Chat

_MIB = 1024 * 1024
Listener = Callable[[Announcement], None]


class Gateway:
    """Code Mode in front of a pool of upstreams, independent of any face."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        learned: Memory,
        gate: Gate,
        metrics: Metrics,
        vault: Vault,
        cache: Cache,
        make_chat: Callable[[], "Chat"],
        activity: Activity,
    ) -> None:
        self.settings, self.engine, self.learned, self.gate, self.metrics = settings, engine, learned, gate, metrics
        self.vault, self.cache, self._make_chat, self.activity = vault, cache, make_chat, activity
        config = settings.config
        self.links = Links(vault)
        self.pool = UpstreamPool(held=True, vault=vault, link=self.links.make)
        self.handles = HandleStore(
            config.code_mode.max_handles,
            config.code_mode.max_handle_mib * _MIB,
            config.sandbox.session_idle_s,
            config.code_mode.max_handle_mib_in_all * _MIB,
        )
        self.views = Views(settings, self.pool, learned, META_TOOL_NAMES)
        self.indexer = Indexer(self.views)
        cached = CachedResults(cache, settings)
        carrier = Carrier(self.pool, gate, cached)
        self.calls = Calls(self.pool, carrier, gate)
        self.resources = Resources(self.views, self.pool, carrier, gate, learned)
        self.subscriptions = Subscriptions(self.pool)
        self.roots = Roots(self.views, self.pool)
        self.definitions = Definitions(settings, self.views)
        self.savings = Savings(self.views, self.tool_list)
        bridge = Bridge(self.views, self.calls, Attachments(self.resources), learned, self.handles)
        answers = Answers(settings, self.handles)
        runner = Runner(settings, engine, bridge, self.views, self.pool, answers, gate, self.savings)
        pages = Pages(settings, self.views, self.pool, self.resources, self.indexer, learned, engine, runner)
        self.metatools = MetaTools(settings, self.views, self.indexer, learned, pages, runner, gate, self.savings)
        self.outliving: set[asyncio.Task[dict[str, Any]]] = set()
        """Work that goes on without the request it is for; it ends with the gateway."""
        self._listeners: list[Listener] = []
        self._shown = b""
        self._rebuild_due = False
        self.go: Callable[[], None] = self.pool.go
        """Starts connecting the upstreams: a new process answers its first request before it shares its cores with
        the children it starts. Does nothing after the first call."""
        self.pool.on_change(self._rebuild_soon)
        self.pool.on_event(self._on_event)

    @cached_property
    def chat(self) -> "Chat":
        """The flow of models; made when it is first needed, because an agent's start does not need it."""
        return self._make_chat()

    @property
    def has_chat(self) -> bool:
        """Whether it was needed yet."""
        return "chat" in self.__dict__

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
        return self.views.surface(None).direct

    def tool_list(self, caller: Caller, modern: bool = False) -> list[dict[str, Any]]:
        """What `tools/list` shows: the meta-tools, then direct tools. `modern`: to a client whose revision takes output
        schemas of any type."""
        direct = self.views.direct_of(caller)
        return [*self.definitions.of(caller), *(shown(name, tool, modern) for name, tool in direct.items())]

    def entering(self, caller: Caller, bundle: str | None) -> Caller:
        """A caller at the address of a bundle, or of the whole gateway (None). Raises NotFound, NotAllowed."""
        bound = caller.bundle
        if bundle is None or bundle == bound:
            return caller
        if bound is not None:
            raise NotAllowed(f"this key reaches only the bundle {bound!r}", key=caller.id)
        if bundle not in self.config.bundles:
            near = nearest(bundle, self.config.bundles)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise NotFound(f"there is no bundle {bundle[:100]!r}{hint}", nearest=near)
        return replace(caller, bundle=bundle)

    def on_list_changed(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` on the event loop whenever a list of the gateway changes. Returns the function that
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
        self.resources.look_ahead()
        self.indexer.refresh()
        self.savings.forget()
        bundles = [None, *self.config.bundles]
        shown_now = jsontext.dumps([self.tool_list(replace(LOCAL, bundle=bundle)) for bundle in bundles])
        if shown_now != self._shown:
            first, self._shown = not self._shown, shown_now
            if not first:
                self._tell(Announcement("list", "tools"))

    def _on_event(self, announced: Announcement) -> None:
        if announced.kind == "list":
            self._tell(announced)

    def _tell(self, announced: Announcement) -> None:
        for listener in list(self._listeners):
            listener(announced)

    def _rebuild_soon(self) -> None:
        if not self._rebuild_due:
            self._rebuild_due = True
            asyncio.get_running_loop().call_soon(self.rebuild)
