"""Who may reach the gateway over HTTP: hosts, origins, keys."""

from dataclasses import replace
from urllib.parse import urlsplit

from mcpgate.api.http.exchange import Exchange
from mcpgate.api.http.headers import metadata_of, secret_of, user_of
from mcpgate.config.settings import Settings, is_loopback, needs_key
from mcpgate.errors import McpgateError, NotAllowed
from mcpgate.governance.callers import Caller
from mcpgate.governance.context import RequestContext
from mcpgate.governance.gate import Gate


class Misdirected(McpgateError):
    """A request for a host that is not served here."""

    code, http_status = "invalid_request", 421


class Access:
    """Checks every request before a face sees it."""

    def __init__(self, settings: Settings, gate: Gate, host: str) -> None:
        """`host`: the address listened on, which is a name that clients may use."""
        self._settings, self._gate, self._host = settings, gate, host

    @property
    def needs_key(self) -> bool:
        return needs_key(self._settings.config, self._host)

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the port."""
        return is_loopback(self._host)

    def check_origin(self, http: Exchange) -> None:
        """Only hosts and origins we know: a web page must not reach a gateway on its reader's machine by
        rebinding a name (and no gateway should be reached by a name it does not have). Raises Misdirected,
        NotAllowed."""
        server = self._settings.config.server
        host = http.headers.get("host", "")
        name = _hostname(f"//{host}")
        allowed = {h.lower() for h in server.allowed_hosts}
        # A web page cannot make its reader send a key, so where one is needed any name will do.
        anywhere = self.needs_key or (server.trust_network and self._host in ("0.0.0.0", "::"))
        if not (
            anywhere
            or _is_local(name)
            or name == self._host.lower()
            or name in allowed
            or host.lower() in allowed
            or "*" in allowed
        ):
            raise Misdirected(f"host {host!r} is not served here; add it to server.allowed_hosts")
        origin = http.headers.get("origin")
        if origin is None:
            return
        origin_name = _hostname(origin)
        if not (_is_local(origin_name) or origin in server.allowed_origins or "*" in server.allowed_origins):
            raise NotAllowed(f"origin {origin!r} is not allowed; add it to server.allowed_origins")
        http.cors = origin

    async def identify(self, http: Exchange) -> Caller:
        """Who is asking. Raises what the gate does, InvalidRequest for headers that cannot be read."""
        caller = await self._gate.identify(
            secret_of(http.headers),
            key_required=self.needs_key,
            address=http.address,
            metadata=metadata_of(http.headers),
            user=user_of(http.headers),
        )
        if caller.is_local and not self.is_local:
            # A trusted network may call every tool; what is declared stays with who holds an admin key.
            caller = replace(caller, grants=replace(caller.grants, admin=False))
        return caller

    async def context(self, http: Exchange) -> RequestContext:
        """The context of an identified request. Raises what `identify` does."""
        return RequestContext(await self.identify(http), id=http.id, trace=http.headers.get("traceparent"))

    async def still_admitted(self, caller: Caller) -> bool:
        """Whether a caller of an open stream may still listen to it."""
        try:
            await self._gate.current(caller)
        except McpgateError:
            return False
        return True


def _hostname(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return ""


def _is_local(name: str) -> bool:
    return is_loopback(name) or name.endswith(".localhost")
