"""Resources and prompts of upstreams. Those of servers that are exposed directly are listed as the gateway's own: under
their own URIs and names, unless two servers have the same. Of a server that each caller signs in to, a caller sees what
its own connection lists."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from mcpgate.catalog.catalog import Server, nearest
from mcpgate.catalog.learned import Memory
from mcpgate.errors import McpgateError, NotAllowed, NotFound
from mcpgate.governance.callers import Caller
from mcpgate.governance.context import RequestContext
from mcpgate.governance.gate import Gate
from mcpgate.proxy.carrier import Carrier
from mcpgate.proxy.views import Views
from mcpgate.upstream.connection import RpcError, ServerFacts
from mcpgate.upstream.pool import UpstreamPool
from mcpgate.upstream.upstream import Upstream

What = Literal["resources", "resourceTemplates", "prompts"]
_KEYS: Mapping[What, str] = {"resources": "uri", "resourceTemplates": "uriTemplate", "prompts": "name"}
_MARK = "#server="
"""Ends a URI that another server has too, followed by the server's name in Python."""
_NOT_FOUND = frozenset((-32002, -32602, -32601))
"""What servers say of a URI that they do not know."""
_POSSIBLE = frozenset(("resources", "resources.subscribe", "prompts", "completions"))
"""What a server that each caller signs in to may be capable of, as long as nobody has."""
Known = Mapping[str, Sequence[dict[str, Any]]]
"""Lists of one kind, by the servers' names."""
log = logging.getLogger("mcpgate.proxy")


@dataclass(frozen=True, slots=True)
class Place:
    """A resource or prompt: whose it is, and what that server calls it."""

    server: Server
    own: str


class Resources:
    """Lists, reads and gets. One for the whole gateway."""

    def __init__(self, views: Views, pool: UpstreamPool, carrier: Carrier, gate: Gate, learned: Memory) -> None:
        self._views, self._pool, self._carrier, self._gate = views, pool, carrier, gate
        self._learned = learned
        self._met: dict[str, ServerFacts] = {}
        self._looking: set[asyncio.Task[Sequence[dict[str, Any]]]] = set()

    def look_ahead(self) -> None:
        """List what servers that have just connected offer directly, so that it is known when they start again."""
        surfaces = [self._views.surface(bundle) for bundle in self._views.bundles()]
        direct = {server.name for surface in surfaces for server in surface.direct_servers}
        for view in self._pool.views():
            new = view.state == "ready" and view.facts is not None and self._met.get(view.name) is not view.facts
            if new and view.facts is not None and view.name in direct and not self._pool.get(view.name).per_user:
                self._met[view.name] = view.facts
                for what in _KEYS:
                    task = asyncio.create_task(self._listed_to_all(view.name, what))
                    self._looking.add(task)
                    task.add_done_callback(self._looked)

    def _looked(self, task: "asyncio.Task[Sequence[dict[str, Any]]]") -> None:
        self._looking.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("resources or prompts could not be listed: %s", error)

    async def _listed_to_all(self, server: str, what: What) -> Sequence[dict[str, Any]]:
        """What the shared connection lists now, which is remembered. Raises UpstreamError, RpcError, NotFound."""
        upstream = self._pool.get(server)
        before = upstream.known(what)
        found = await upstream.listed(what)
        if found is not before:
            self._learned.remember_list(server, what, found)
        return found

    def close(self) -> None:
        for task in self._looking:
            task.cancel()

    # --- Of one server, by its name

    async def request(
        self, context: RequestContext, server: Server, method: str, params: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The result of a request about resources or prompts as the server sent it. Counted and priced as a call of a
        tool with the method's name. Raises NotAllowed, the gate's refusals, UpstreamError, RpcError."""
        if context.parent is not None:
            context.caller = await self._gate.current(context.caller)
        check = partial(_check_granted, server)
        question = None
        if method == "resources/read":
            question = self._carrier.cached.of_resource(context, self._pool.get(server.name), params)
        return await self._carrier.carry(context, "resource", server.name, method, method, params, check, question)

    async def listed_for(self, context: RequestContext, server: Server, what: What) -> Sequence[dict[str, Any]]:
        """Everything of a kind that one server has, for a caller. Raises NotAllowed, UpstreamError, RpcError."""
        if context.parent is not None:
            context.caller = await self._gate.current(context.caller)
        _check_granted(server, context.caller)
        upstream = self._pool.get(server.name)
        return await upstream.listed(what, upstream.identity_of(context.caller.owner))

    def has(self, caller: Caller, server: Server, capability: str) -> bool:
        """Whether a server has said that it is capable of something."""
        return capability in self._capabilities(caller, server)

    def _capabilities(self, caller: Caller, server: Server) -> frozenset[str]:
        upstream = self._pool.get(server.name)
        own = upstream.own_capabilities(upstream.identity_of(caller.owner))
        if own is not None:
            return own
        known = self._views.capabilities_of(upstream.view)
        return known if known is not None else _POSSIBLE if upstream.per_user else frozenset()

    # --- Of all servers that a caller reaches directly

    def offered(self, context: RequestContext) -> frozenset[str]:
        """What the servers that the caller reaches directly are capable of, e.g. `resources.subscribe`."""
        found: set[str] = set()
        for server in self._views.direct_servers_of(context.caller):
            found |= self._capabilities(context.caller, server)
        return frozenset(found)

    async def want_logs(self, context: RequestContext, level: str) -> None:
        """Have the servers that the caller reaches directly send log messages from a level on."""
        for server in self._views.direct_servers_of(context.caller):
            if self.has(context.caller, server, "logging"):
                try:
                    await self._pool.get(server.name).set_log_level(level)
                except McpgateError as error:
                    log.warning("%s: its log level was not set: %s", server.name, error.message)

    async def all(self, context: RequestContext, what: What) -> list[dict[str, Any]]:
        """Everything of a kind, under the names and URIs by which it can be asked for. A server that cannot be asked
        is left out."""
        key, named = _KEYS[what], await self._all(context, what)
        return [{**item, key: name} for name, (_, item) in named.items()]

    async def _all(self, context: RequestContext, what: What) -> dict[str, tuple[Server, dict[str, Any]]]:
        servers = self._views.direct_servers_of(context.caller)
        return _named(servers, what, await self._known(context.caller, servers, what, anew=True))

    async def _known(self, caller: Caller, servers: Sequence[Server], what: What, anew: bool = False) -> Known:
        """What servers list for a caller. Asks those that have not told yet, or all of them `anew`; one that cannot be
        asked has the list that it had, and one that the caller has to sign in to first has none. One that is not
        connected is not waited for if its list is known from before: agents wait for all lists, and not for long."""
        found: dict[str, Sequence[dict[str, Any]]] = {}

        async def look(server: Server) -> None:
            upstream = self._pool.get(server.name)
            identity = upstream.identity_of(caller.owner)
            known = upstream.known(what, identity)
            if (anew or known is None) and self.has(caller, server, "prompts" if what == "prompts" else "resources"):
                try:
                    if identity is None:
                        known = await self._shared_list(upstream, what, known)
                    else:
                        known = await self._own_list(upstream, what, identity)
                except McpgateError as error:
                    level = logging.WARNING if identity is None else logging.DEBUG
                    log.log(level, "%s: its %s could not be listed: %s", server.name, what, error.message)
                    known = known if identity is None else None
            if known is not None or identity is None:
                found[server.name] = known or ()

        await asyncio.gather(*map(look, servers))
        return found

    async def _shared_list(
        self, upstream: Upstream, what: What, known: Sequence[dict[str, Any]] | None
    ) -> Sequence[dict[str, Any]]:
        if not upstream.is_connected:
            before = self._learned.recall_list(upstream.name, what) if known is None else known
            if before is not None:
                upstream.asked_early()
                return before
        return await self._listed_to_all(upstream.name, what)

    async def _own_list(self, upstream: Upstream, what: What, identity: str) -> Sequence[dict[str, Any]] | None:
        return await upstream.listed(what, identity) if await upstream.is_signed_in(identity) else None

    async def read(self, context: RequestContext, params: Mapping[str, Any]) -> dict[str, Any]:
        """`resources/read`. Raises NotFound, NotAllowed, the gate's refusals, UpstreamError, RpcError."""
        uri = str(params["uri"])
        places = await self.places_of(context, uri)
        for last, place in zip((*(False for _ in places[1:]), True), places, strict=True):
            try:
                result = await self.request(context, place.server, "resources/read", {**params, "uri": place.own})
            except RpcError as error:
                if last or error.rpc_code not in _NOT_FOUND:
                    raise
                continue
            return _readdressed(result, place.own, uri)
        raise NotFound(f"there is no resource {uri[:500]!r}", uri=uri[:2000])

    async def places_of(self, context: RequestContext, uri: str) -> list[Place]:
        """Where a resource may be, the likeliest first: its server lists it, or has a template for it, or is any."""
        caller, servers = context.caller, self._views.direct_servers_of(context.caller)
        with_any = [server for server in servers if self.has(caller, server, "resources")]
        own, marked, ident = uri.rpartition(_MARK)
        if marked and (found := next((server for server in with_any if server.ident == ident), None)) is not None:
            return [Place(found, own)]
        if len(with_any) > 1:
            known = await self._known(caller, with_any, "resources")
            with_any = [server for server in with_any if server.name in known] or with_any
            templates = await self._known(caller, with_any, "resourceTemplates")
            listed = _named(with_any, "resources", known).get(uri)
            if listed is not None:
                return [Place(listed[0], uri)]
            with_any.sort(key=lambda server: -_best_fit(templates.get(server.name, ()), uri))
        return [Place(server, uri) for server in with_any]

    async def prompt(self, context: RequestContext, params: Mapping[str, Any]) -> dict[str, Any]:
        """`prompts/get`. Raises NotFound, NotAllowed, the gate's refusals, UpstreamError, RpcError."""
        place = await self.prompt_place(context, str(params["name"]))
        return await self.request(context, place.server, "prompts/get", {**params, "name": place.own})

    async def prompt_place(self, context: RequestContext, name: str) -> Place:
        """Whose prompt it is. Raises NotFound."""
        caller = context.caller
        servers = [s for s in self._views.direct_servers_of(caller) if self.has(caller, s, "prompts")]
        if len(servers) == 1:
            return Place(servers[0], name)
        known = _named(servers, "prompts", await self._known(caller, servers, "prompts"))
        if name not in known:
            near = nearest(name, known)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise NotFound(f"there is no prompt {name[:200]!r}{hint}", nearest=near)
        server, item = known[name]
        return Place(server, str(item["name"]))

    async def complete(self, context: RequestContext, params: Mapping[str, Any]) -> dict[str, Any]:
        """`completion/complete`, for an argument of a prompt or of a template. Raises like `prompt`."""
        ref = params.get("ref")
        ref = dict(ref) if isinstance(ref, Mapping) else {}
        if ref.get("type") == "ref/prompt":
            place = await self.prompt_place(context, str(ref.get("name")))
            ref["name"] = place.own
        else:
            place = await self._template_place(context, str(ref.get("uri")))
            ref["uri"] = place.own
        return await self.request(context, place.server, "completion/complete", {**params, "ref": ref})

    async def _template_place(self, context: RequestContext, uri: str) -> Place:
        found = (await self._all(context, "resourceTemplates")).get(uri)
        if found is not None:
            return Place(found[0], str(found[1]["uriTemplate"]))
        places = await self.places_of(context, uri)
        if not places:
            raise NotFound(f"there is no resource template {uri[:500]!r}")
        return places[0]


def _check_granted(server: Server, caller: Caller) -> None:
    if not caller.grants.allow_whole_server(server.name, server.ident):
        reason = f"resources and prompts of {server.ident} need a grant of all its tools"
        raise NotAllowed(reason, key=caller.id, server=server.name)


def _named(servers: Sequence[Server], what: What, known: Known) -> dict[str, tuple[Server, dict[str, Any]]]:
    """Exposed name or URI → whose it is. Of several servers with the same one, the first of the configuration keeps
    it."""
    key = _KEYS[what]
    named: dict[str, tuple[Server, dict[str, Any]]] = {}
    for server in servers:
        for item in known.get(server.name, ()):
            own = item.get(key)
            if not isinstance(own, str):
                continue
            name = own
            if own in named:
                name = f"{server.ident}__{own}" if what == "prompts" else f"{own}{_MARK}{server.ident}"
            named.setdefault(name, (server, item))
    return named


def _best_fit(listed: Sequence[dict[str, Any]], uri: str) -> int:
    """How much of a URI the best of a server's templates determines, in characters; -1 if none matches."""
    templates = (item.get("uriTemplate") for item in listed)
    return max((_fit(template, uri) for template in templates if isinstance(template, str)), default=-1)


def _fit(template: str, uri: str) -> int:
    """By what stands before the first and after the last variable, which takes steps in proportion."""
    head, variable, rest = template.partition("{")
    if not variable:
        return len(template) if template == uri else -1
    tail = rest.rpartition("}")[2]
    fits = len(uri) >= len(head) + len(tail) and uri.startswith(head) and uri.endswith(tail)
    return len(head) + len(tail) if fits else -1


def _readdressed(result: dict[str, Any], own: str, uri: str) -> dict[str, Any]:
    """What was read, under the URI that was asked for."""
    contents = result.get("contents")
    if own == uri or not isinstance(contents, list):
        return result
    moved = [{**c, "uri": uri} if isinstance(c, dict) and c.get("uri") == own else c for c in contents]
    return {**result, "contents": moved}
