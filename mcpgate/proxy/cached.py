"""The cache as calls of tools and reads of resources use it. Only what the server's `cache` switches on; what a caller
sees of a server that it signs in to is never another's."""

import asyncio
import fnmatch
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from mcpgate import jsontext
from mcpgate.cache.cache import Cache, Hit, Miss, Question
from mcpgate.cache.entry import CacheEntry, CacheUnavailable, Kind
from mcpgate.cache.fingerprint import canonical, fingerprint, tenant_of
from mcpgate.cache.flights import Outcome
from mcpgate.cache.policy import Policy
from mcpgate.cache.store import Selection
from mcpgate.catalog.tools import Tool
from mcpgate.config.cache import ToolCacheConfig
from mcpgate.config.settings import Settings
from mcpgate.config.upstreams import UpstreamConfig
from mcpgate.governance.context import RequestContext
from mcpgate.upstream.upstream import Upstream

_OWN = ("_meta", "task")
"""Parameters that belong to one request."""
_ANSWERS = frozenset(("inputResponses", "requestState"))
"""Parameters of a request that is sent again with what the person at the client has said."""
_AGAIN_S = 2.0
"""How often a store that was away is tried."""
log = logging.getLogger("mcpgate.cache")


@dataclass(frozen=True, slots=True)
class ResultQuestion(Question):
    """What a call or a read asks of the cache."""

    kind: Kind = "tool"
    server: str = ""
    tool: str = ""
    key: str = ""
    narrow_id: str = ""
    """The same for the user alone: a server may say that a resource is private."""
    narrow_tenant: str = ""


class Found:
    """What the cache says to one question: a result, or what keeps the one that the server gives."""

    def __init__(self, cached: "CachedResults", question: ResultQuestion, epoch: int | None, found: Hit | Miss) -> None:
        self._cached, self._question, self._epoch, self._found = cached, question, epoch, found

    @property
    def hit(self) -> Hit | None:
        return self._found if isinstance(self._found, Hit) else None

    def result(self, hit: Hit) -> dict[str, Any]:
        """As the server sent it; what it says of its own time is what is left of it."""
        result: dict[str, Any] = jsontext.loads(hit.entry.body)
        if isinstance(ttl_ms := result.get("ttlMs"), int):
            result["ttlMs"] = max(0, ttl_ms - int(hit.age_s * 1000))
        return result

    async def keep(self, result: Mapping[str, Any], cost: int) -> None:
        """Keep the server's result, if it is one that may be kept."""
        assert isinstance(self._found, Miss)
        outcome = Outcome.NOT_KEPT
        try:
            if self._epoch is not None and await self._cached.keep(self._question, result, self._epoch, cost):
                outcome = Outcome.KEPT
        finally:
            self._found.land(outcome)

    def end(self) -> None:
        """There is no result."""
        if isinstance(self._found, Miss):
            self._found.land(Outcome.FAILED)


class CachedResults:
    """One for the whole gateway."""

    def __init__(self, cache: Cache, settings: Settings) -> None:
        self._cache, self._settings = cache, settings
        self._changed: set[str] = set()
        """Servers whose entries must be dropped before anything of them is served."""

    def of_tool(
        self, context: RequestContext, upstream: Upstream, tool: Tool, params: Mapping[str, Any]
    ) -> ResultQuestion | None:
        """What a call asks of the cache; None if it is made without."""
        config = self._config(upstream)
        if config is None or "task" in params or not is_cacheable(config, tool):
            return None
        # A changed tool is another one.
        shape = {name: tool.raw.get(name) for name in ("inputSchema", "outputSchema", "description", "annotations")}
        return self._question(context, upstream, config, "tool", tool.name, params, shape)

    def of_resource(
        self, context: RequestContext, upstream: Upstream, params: Mapping[str, Any]
    ) -> ResultQuestion | None:
        config = self._config(upstream)
        if config is None or not config.resources:
            return None
        return self._question(context, upstream, config, "resource", "resources/read", params, None)

    @property
    def counts_hits(self) -> bool:
        """Whether hits count in limits on requests."""
        return self._settings.config.cache.count_hits

    def writes(self, upstream: Upstream, tool: Tool) -> bool:
        """Whether a call may change what is kept of its server."""
        config = self._config(upstream)
        return config is not None and may_write(config, tool)

    def _config(self, upstream: Upstream) -> ToolCacheConfig | None:
        return upstream.config.cache if self._settings.config.cache.enabled else None

    def _question(
        self,
        context: RequestContext,
        upstream: Upstream,
        config: ToolCacheConfig,
        kind: Kind,
        name: str,
        params: Mapping[str, Any],
        shape: Any,
    ) -> ResultQuestion | None:
        caller, mode = context.caller, context.cache_mode or "use"
        if mode == "off" or _ANSWERS & params.keys():
            return None
        owner = upstream.identity_of(caller.owner)
        asked = {name: value for name, value in params.items() if name not in _OWN}
        try:
            parts = (kind, upstream.name, _address(upstream.config), owner or "", canonical(asked), canonical(shape))
        except (ValueError, RecursionError, TypeError):
            return None
        digest = hashlib.sha256(b"\n".join(p.encode() if isinstance(p, str) else p for p in parts)).digest()
        tenant = tenant_of(caller, config.scope or self._settings.config.cache.scope, narrow=owner is not None)
        narrow = tenant_of(caller, None, narrow=True)
        return ResultQuestion(
            fingerprint(tenant, digest),
            tenant,
            Policy(mode in ("use", "no-store"), mode in ("use", "refresh"), config.ttl_s, config.scope),
            kind=kind,
            server=upstream.name,
            tool=name,
            key=caller.id,
            narrow_id=fingerprint(narrow, digest),
            narrow_tenant=narrow,
        )

    async def find(self, question: ResultQuestion) -> Found | None:
        """None if the cache cannot be used."""
        if question.server in self._changed and not await self._drop(question.server):
            return None
        epoch = await self._cache.epoch(question.server)
        if epoch is None:
            return None
        found: Hit | Miss | None = None
        if question.kind == "tool":
            found = await self._cache.find(question)
        elif question.policy.reads:
            found = await self._cache.look_up(question.id) or await self._cache.look_up(question.narrow_id)
        found = found or Miss()
        return Found(self, question, epoch, found)

    async def keep(self, question: ResultQuestion, result: Mapping[str, Any], epoch: int, cost: int) -> bool:
        """Whether a result may be kept; then it was, unless the server has changed meanwhile."""
        if not question.policy.writes or result.get("isError") or result.get("resultType", "complete") != "complete":
            return False
        ttl_s, ttl_ms = question.policy.ttl_s, result.get("ttlMs")
        if isinstance(ttl_ms, (int, float)) and not isinstance(ttl_ms, bool) and ttl_ms < ttl_s * 1000:
            ttl_s = ttl_ms / 1000
        if ttl_s <= 0:
            return False
        body = jsontext.dumps(result)
        if len(body) > self._settings.config.cache.max_entry_kib * 1024:
            return False
        private = result.get("cacheScope") == "private" and question.kind == "resource"
        now = self._cache.now()
        entry = CacheEntry(
            question.narrow_id if private else question.id,
            question.kind,
            question.narrow_tenant if private else question.tenant,
            body,
            at=now,
            fresh_until=now + ttl_s,
            until=now + ttl_s,
            key=question.key,
            server=question.server,
            tool=question.tool,
            cost=cost,
        )
        await self._cache.keep(entry, epoch)
        return True

    async def changed(self, server: str) -> bool:
        """Drop what is kept of a server, because a tool may have written there. If the store is away, nothing of the
        server is served before that is done; whether it is."""
        self._changed.add(server)
        if await self._drop(server):
            return True
        log.warning("the cache is away: what it has of %s is dropped, and served again, when it is back", server)
        # Other processes may reach the store, and this one may never be asked again.
        self._cache.refresh(f"drop of {server}", partial(self._drop_later, server))
        return False

    async def _drop_later(self, server: str) -> None:
        while server in self._changed:
            await asyncio.sleep(_AGAIN_S)
            await self._drop(server)

    async def _drop(self, server: str) -> bool:
        try:
            await self._cache.drop(Selection(server=server))
        except CacheUnavailable:
            return False
        self._changed.discard(server)
        return True


def is_cacheable(config: ToolCacheConfig, tool: Tool) -> bool:
    """Whether a tool's results are kept: it is named, or says that it is read-only and idempotent."""
    if config.tools:
        return any(fnmatch.fnmatchcase(tool.name, glob) for glob in config.tools)
    hints = tool.raw.get("annotations")
    return isinstance(hints, dict) and hints.get("readOnlyHint") is True and hints.get("idempotentHint") is True


def may_write(config: ToolCacheConfig, tool: Tool) -> bool:
    """Whether a call may change what other tools of its server say."""
    hints = tool.raw.get("annotations")
    is_read_only = isinstance(hints, dict) and hints.get("readOnlyHint") is True
    return not is_read_only and not (config.tools and is_cacheable(config, tool))


def _address(config: UpstreamConfig) -> bytes:
    """Which server it is, and as whom the gateway reaches it."""
    return canonical([config.url, config.command, config.args, config.cwd, config.env, config.headers])
