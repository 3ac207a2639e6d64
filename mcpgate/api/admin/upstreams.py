"""The part of the admin API that is about upstreams: their state, and signing in to them."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from mcpgate import jsontext
from mcpgate.api.http.routing import Call, Reply, Route, json_reply
from mcpgate.catalog.names import to_identifier
from mcpgate.codemode.savings import CHARS_PER_TOKEN
from mcpgate.errors import InvalidRequest, NotFound, Unavailable
from mcpgate.gateway import Gateway
from mcpgate.governance.admin import parse
from mcpgate.governance.callers import Caller
from mcpgate.upstream.links import LIVES_S
from mcpgate.upstream.tokens import Place
from mcpgate.upstream.upstream import UpstreamView

_MOST_CHARS = 400
"""Of a description, in lists."""


class Login(BaseModel):
    """Whose sign-in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str | None = None
    """The id of the key that signs in, for servers with `auth: {per: user}`. Default: the gateway itself."""
    user: str | None = None
    """The user that its requests name, if they do."""


class UpstreamRoutes:
    """Answers /api/upstreams."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._measured: dict[str, tuple[Sequence[dict[str, Any]], int]] = {}
        """Server → its tools, and the tokens of their definitions."""

    def routes(self) -> list[Route]:
        one = "/api/upstreams/{name}"
        page = {"limit": "The most tools of one page.", "after": "Pass `after` of the previous page."}
        return [
            Route("GET", "/api/upstreams", "List the servers and their state", self._list, for_realms=True),
            Route("GET", f"{one}/tools", "List the tools of a server, and the tokens of their definitions", self._tools,
                  query=page, for_realms=True),
            Route("POST", f"{one}/login", "Get the address at which to sign in to a server", self._login, Login),
            Route("POST", f"{one}/logout", "End a sign-in, here and at the server", self._logout, Login),
        ]  # fmt: skip

    async def _list(self, call: Call) -> Reply:
        signed_in = {(place.server, place.url) for place in await self._gateway.vault.places()}
        seen = self._seen(call.caller)
        return json_reply({"upstreams": [
            {"name": view.name, "state": view.state, "reason": view.reason, "warning": view.warning,
             "tools": len(view.tools), "definition_tokens": self._definition_tokens(view),
             "local": view.config.url is None, "expose": view.config.expose,
             "per_user": self._gateway.pool.get(view.name).per_user, "connect_s": view.connect_s,
             "version": "" if view.facts is None else f"{view.facts.name} {view.facts.version}".strip(),
             "signed_in": (view.name, view.config.url) in signed_in}
            for view in self._gateway.pool.views()
            if seen is None or view.name in seen
        ]})  # fmt: skip

    def _seen(self, caller: Caller) -> set[str] | None:
        """The servers that an administrator sees; None: all of them."""
        return None if caller.realm is None else self._gateway.views.servers_of(caller)

    def _definition_tokens(self, view: UpstreamView) -> int:
        """Of all its tools: what each request of a model would carry with classic MCP. Measured once for each list."""
        known = self._measured.get(view.name)
        if known is None or known[0] is not view.tools:
            known = self._measured[view.name] = view.tools, sum(map(_tokens, view.tools))
        return known[1]

    async def _tools(self, call: Call) -> Reply:
        seen, name = self._seen(call.caller), call.path["name"]
        if seen is not None and name not in seen:
            raise NotFound(f"there is no server {name!r}")
        first, limit = int(call.whole_number("after", 1, 1 << 53)) - 1, call.whole_number("limit", 100, 1000)
        tools = self._gateway.pool.get(name).view.tools
        if seen is not None:
            grants, ident = call.caller.grants, to_identifier(name)
            tools = tuple(
                tool for tool in tools
                if grants.allow_tool((name, str(tool.get("name"))), (ident, to_identifier(str(tool.get("name")))))
            )  # fmt: skip
        shown = [
            {"name": tool.get("name"), "description": _text(tool.get("description")),
             "definition_tokens": _tokens(tool)}
            for tool in tools[first : first + limit]
        ]  # fmt: skip
        return json_reply({"tools": shown, "after": first + limit + 1 if first + limit < len(tools) else None})

    async def _login(self, call: Call) -> Reply:
        url = await self._gateway.links.make(self._place(call))
        if url is None:
            raise Unavailable("this gateway has no address that a browser can reach")
        return json_reply({"url": url, "expires_in_s": LIVES_S / 2})

    async def _logout(self, call: Call) -> Reply:
        place = self._place(call)
        revoked = await self._gateway.pool.get(place.server).sign_out(place.subject)
        if revoked is None:
            raise NotFound(f"nobody is signed in to {place.server!r} like that")
        return json_reply({"revoked": revoked})

    def _place(self, call: Call) -> Place:
        given, name = parse(Login, call.body), call.path["name"]
        upstream = self._gateway.pool.get(name)
        if upstream.config.url is None:
            raise InvalidRequest(f"{name!r} is a local program, which needs no sign-in")
        if (given.key is not None) != upstream.per_user or (given.user and given.key is None):
            wanted = (
                "name whose sign-in with `key`" if upstream.per_user else "the gateway itself signs in; leave out `key`"
            )
            raise InvalidRequest(f"{name!r}: {wanted}")
        return Place(name, upstream.config.url, owner_of(given.key, given.user))


def _text(given: Any) -> str:
    return given[:_MOST_CHARS] if isinstance(given, str) else ""


def _tokens(tool: dict[str, Any]) -> int:
    return len(jsontext.dumps(tool)) // CHARS_PER_TOKEN


def owner_of(key: str | None, user: str | None) -> str:
    """The owner of a key's requests, as `Caller.owner` has it."""
    return (f"{key}\n{user}" if user else key) if key else ""
