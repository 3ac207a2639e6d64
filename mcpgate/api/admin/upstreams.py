"""The part of the admin API that is about upstreams: their state, and signing in to them."""

from pydantic import BaseModel, ConfigDict

from mcpgate.api.http.routing import Call, Reply, Route, json_reply
from mcpgate.errors import InvalidRequest, NotFound, Unavailable
from mcpgate.gateway import Gateway
from mcpgate.governance.admin import parse
from mcpgate.upstream.links import LIVES_S
from mcpgate.upstream.tokens import Place


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

    def routes(self) -> list[Route]:
        one = "/api/upstreams/{name}"
        return [
            Route("GET", "/api/upstreams", "List the servers and their state", self._list),
            Route("POST", f"{one}/login", "Get the address at which to sign in to a server", self._login, Login),
            Route("POST", f"{one}/logout", "End a sign-in, here and at the server", self._logout, Login),
        ]

    async def _list(self, call: Call) -> Reply:
        signed_in = {(place.server, place.url) for place in await self._gateway.vault.places()}
        return json_reply({"upstreams": [
            {"name": view.name, "state": view.state, "reason": view.reason, "tools": len(view.tools),
             "signed_in": (view.name, view.config.url) in signed_in}
            for view in self._gateway.pool.views()
        ]})  # fmt: skip

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


def owner_of(key: str | None, user: str | None) -> str:
    """The owner of a key's requests, as `Caller.owner` has it."""
    return (f"{key}\n{user}" if user else key) if key else ""
