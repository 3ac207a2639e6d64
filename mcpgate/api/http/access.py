"""Who may reach the gateway over HTTP: hosts, origins, keys."""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

from mcpgate.addresses import Network, is_in, parse_address, parse_networks
from mcpgate.api.http.allowance import Allowance
from mcpgate.api.http.exchange import Exchange
from mcpgate.api.http.forwarded import client_of, scheme_of
from mcpgate.api.http.headers import about_of, metadata_of, secret_of, user_of
from mcpgate.api.http.places import origin_of
from mcpgate.api.http.resource import Resource
from mcpgate.api.http.visits import Visits
from mcpgate.cache.policy import read_wish
from mcpgate.config.settings import Settings, is_loopback, needs_key
from mcpgate.errors import InvalidRequest, McpgateError, MissingKey, NotAllowed
from mcpgate.governance.callers import Caller
from mcpgate.governance.context import RequestContext
from mcpgate.governance.gate import Gate
from mcpgate.governance.tokens import looks_like_token
from mcpgate.telemetry.trace import parse_trace

_SHOWN = 200
"""Characters of a header that a refusal shows."""
_MAX_STREAMS_EACH = 256
"""Of one key."""
_FORWARDING = frozenset(("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"))
"""Headers that only proxies send. What they say is believed of trusted ones; that they are there always counts."""
_OURS = ("/api/", "/metrics")
"""Below these, a visitor of the dashboard need not send the metadata that tools and models are counted by."""
_MOST_LOGGED = 20
"""Different refused hosts and origins; anybody can invent them."""
log = logging.getLogger("mcpgate.http")


class Misdirected(McpgateError):
    """A request for a host that is not served here."""

    code, http_status = "invalid_request", 421


class Access:
    """Checks every request before a face sees it."""

    def __init__(self, settings: Settings, gate: Gate, host: str, visits: Visits | None = None) -> None:
        """`host`: the address listened on, which is a name that clients may use. `visits`: of the dashboard."""
        self._visits = visits
        self._logged: set[str] = set()
        self._settings, self._gate, self._host = settings, gate, host
        self.resource = Resource(settings, host)
        self._streams = Allowance("streams", _MAX_STREAMS_EACH)

    @property
    def needs_key(self) -> bool:
        return needs_key(self._settings.config, self._host)

    def needs_key_of(self, http: Exchange) -> bool:
        """Whether this request must carry one: what a proxy passes on may come from anywhere."""
        return self.needs_key or (http.passed_on and not self._settings.config.server.trust_network)

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the port."""
        return is_loopback(self._host)

    def trusted_proxies(self) -> Sequence[Network]:
        """The networks of server.trusted_proxies, as it stands by now."""
        return parse_networks(self._settings.config.server.trusted_proxies)

    def check(self, http: Exchange) -> None:
        """Only hosts and origins we know: a web page must not reach a gateway on its reader's machine by
        rebinding a name (and no gateway should be reached by a name it does not have). Raises InvalidRequest,
        Misdirected, NotAllowed."""
        http.challenge = partial(self.resource.challenge, http)
        if http.doubled is not None:
            raise InvalidRequest(f"the header {http.doubled[:80]!r} occurs twice")
        http.passed_on = not _FORWARDING.isdisjoint(http.headers)
        if (proxies := self.trusted_proxies()) and is_in(http.address, proxies):
            peer = http.address
            http.address = client_of(peer, http.headers, proxies)
            http.scheme = scheme_of(peer, http.scheme, http.headers, proxies)
            http.passed_on = not is_loopback(http.address or "")
        server = self._settings.config.server
        # A web page cannot make its reader send a key, so where one is needed any name will do.
        if not (self.needs_key or (server.trust_network and self._host in ("0.0.0.0", "::"))):
            self._check_host(http, addresses=False)
        origin = http.headers.get("origin")
        if origin is None:
            return
        origin_name = _hostname(origin)
        if not (_is_local(origin_name) or origin in server.allowed_origins or "*" in server.allowed_origins):
            message = f"origin {origin[:_SHOWN]!r} is not allowed; add it to server.allowed_origins"
            self._log_once(message)
            raise NotAllowed(message)
        http.cors = origin

    def _log_once(self, message: str) -> None:
        """Whoever set up a proxy looks here: clients rarely show why they were refused."""
        if message not in self._logged and len(self._logged) < _MOST_LOGGED:
            self._logged.add(message)
            log.warning("refused: %s", message)

    def check_named(self, http: Exchange) -> None:
        """For what is shown without a key: that the gateway is asked for by its address or a name it has. Raises
        Misdirected."""
        self._check_host(http, addresses=True)

    def _check_host(self, http: Exchange, addresses: bool) -> None:
        """`addresses`: any will do, for they cannot be rebound."""
        host = http.headers.get("host", "")
        name = _hostname(f"//{host}")
        allowed = {h.lower() for h in self._settings.config.server.allowed_hosts}
        if addresses and (public_url := self._settings.config.server.public_url) is not None:
            allowed.add(_hostname(public_url))
        if not (
            _is_local(name)
            or (addresses and parse_address(name) is not None)
            or name == self._host.lower()
            or name in allowed
            or host.lower() in allowed
            or "*" in allowed
        ):
            message = f"host {host[:_SHOWN]!r} is not served here; add it to server.allowed_hosts"
            self._log_once(message)
            raise Misdirected(message)

    async def identify(self, http: Exchange, path: str | None = None) -> Caller:
        """Who is asking. `path`: what is asked for, if that is not the request's own path. Raises what the gate does,
        InvalidRequest for headers that cannot be read."""
        secret = secret_of(http.headers)
        visits = self._visits
        if secret is None and visits is not None and "cookie" in http.headers:
            visit = await visits.find(http)
            if visit is not None:
                if not (visit.caller.is_local or http.path.startswith(_OURS)):
                    self._gate.check_complete(visit.caller)
                self._hold(http, visit.caller)
                return visit.caller
        return await self._identify(http, secret, path or http.path)

    async def identify_secret(self, http: Exchange, secret: str) -> Caller:
        """Whose secret or access token it is. Raises what `identify` does."""
        return await self._identify(http, secret, http.path, signs_in=True)

    async def _identify(self, http: Exchange, secret: str | None, path: str, signs_in: bool = False) -> Caller:
        is_token = secret is not None and looks_like_token(secret)
        try:
            caller = await self._gate.identify(
                secret,
                key_required=signs_in or self.needs_key_of(http),
                complete=not signs_in,
                address=http.address,
                metadata=metadata_of(http.headers),
                user=user_of(http.headers),
                sent_to=self.resource.sent_to(http, path) if is_token else (),
            )
        except MissingKey as error:
            if self.needs_key:
                raise
            raise MissingKey(
                f"{error}. Only this machine's own requests need none, and this one came through a proxy"
            ) from None
        if caller.is_local and not self.is_local:
            # A trusted network may call every tool; what is declared stays with who holds an admin key.
            caller = replace(caller, grants=replace(caller.grants, admin=False))
        self._hold(http, caller)
        return caller

    def _hold(self, http: Exchange, caller: Caller) -> None:
        """Count long bodies and answers for whoever asks."""
        http.holder = origin_of(http.address) if caller.is_local else caller.account
        http.holds_all = caller.is_local and self.is_local

    async def check_admin(self, http: Exchange) -> None:
        """That a request for facts about the whole gateway comes from this machine, or with an admin key where keys are
        needed. Raises what `identify` does, NotAllowed."""
        own = self.is_local and is_loopback(http.address or "") and not http.passed_on
        if own or not self.needs_key_of(http):
            return
        caller = await self.identify(http)
        if not caller.grants.admin:
            raise NotAllowed(f"{http.path} needs a key with the grant `admin`", key=caller.id)

    async def is_admin(self, http: Exchange) -> bool:
        """Whether a request comes with an admin key."""
        try:
            return (await self.identify(http)).grants.admin
        except McpgateError:
            return False

    async def context(self, http: Exchange) -> RequestContext:
        """The context of an identified request. Raises what `identify` does, InvalidRequest."""
        caller, headers = await self.identify(http), http.headers
        trace = parse_trace(headers.get("traceparent"), headers.get("tracestate"))
        mode = read_wish(headers).mode
        return RequestContext(caller, id=http.id, trace=trace, about=about_of(headers), cache_mode=mode)

    def standing_stream(self, caller: Caller) -> AbstractContextManager[None]:
        """Count one more stream that stays open as long as its client likes. Entering it raises RateLimited."""
        return self._streams.one(caller.account)

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
