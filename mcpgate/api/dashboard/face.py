"""The dashboard at /dashboard: its files, and signing in. What its pages show and change goes through /api, /mcp and
/v1 like everybody's requests; this face knows nothing of it."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import orjson

from mcpgate import __version__, jsontext
from mcpgate.api.http.access import Access
from mcpgate.api.http.exchange import Exchange
from mcpgate.api.http.places import origin_of
from mcpgate.api.http.routing import Face, Handler
from mcpgate.api.http.visits import CSRF, Attempts, TooManyAttempts, Visit, Visits
from mcpgate.errors import InvalidKey, InvalidRequest, McpgateError, MissingKey, NotAllowed
from mcpgate.governance.callers import LOCAL, Caller
from mcpgate.governance.records import shown_moment

_ROOT, _SESSION = "/dashboard", "/dashboard/session"
_STATIC = Path(__file__).with_name("static")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
}
_LONGEST_SECRET = 16_384
"""Characters; access tokens are long."""
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    type: str
    etag: str


@cache
def _files() -> Mapping[str, _File]:
    """Everything that is served, by its path below /dashboard. Read once, when the dashboard is first opened."""
    found = {}
    for path in sorted(_STATIC.rglob("*")):
        if path.suffix in _TYPES:
            content = path.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[path.relative_to(_STATIC).as_posix()] = _File(content, _TYPES[path.suffix], etag)
    return found


class DashboardFace(Face):
    """Answers /dashboard and what is below it."""

    def __init__(self, access: Access, visits: Visits, summed: Callable[[], Sequence[str]]) -> None:
        """`summed`: names of metadata that reports need no single entries for."""
        self._access, self._visits, self._attempts, self._summed = access, visits, Attempts(), summed

    def handler(self, path: str) -> Mapping[str, Handler] | None:
        if path == _SESSION:
            return {"GET": self._guarded(self._show), "POST": self._guarded(self._sign_in),
                    "DELETE": self._guarded(self._sign_out)}  # fmt: skip
        if path == _ROOT:
            page = self._guarded(self._page)
            return {"GET": page, "HEAD": page}
        if path.startswith(f"{_ROOT}/") and (file := _files().get(path.removeprefix(f"{_ROOT}/"))) is not None:
            served = self._guarded(partial(self._file, file))
            return {"GET": served, "HEAD": served}
        return None

    def _guarded(self, handler: Handler) -> Handler:
        """Only under a name that the gateway has, and for no other origin."""

        async def guarded(http: Exchange) -> None:
            http.cors = None
            self._access.check_named(http)
            await handler(http)

        return guarded

    async def _page(self, http: Exchange) -> None:
        if not http.scope["path"].endswith("/"):  # its files are named relative to it
            await http.respond(308, headers={**_HEADERS, "location": f"{_ROOT.strip('/')}/"})
            return
        await self._file(_files()["index.html"], http)

    async def _file(self, file: _File, http: Exchange) -> None:
        headers = {**_HEADERS, "content-type": file.type, "cache-control": "no-cache", "etag": file.etag}
        if http.headers.get("if-none-match") == file.etag:
            await http.respond(304, headers=headers)
            return
        await http.respond(200, b"" if http.method == "HEAD" else file.content, headers)

    # --- signing in

    async def _show(self, http: Exchange) -> None:
        """Who the visitor is, if anybody."""
        visit = await self._visits.find(http)
        if visit is not None and visit.caller.grants.admin:
            await self._answer(http, self._shown(visit.caller, visit))
            return
        try:
            caller = await self._access.identify(http)
        except McpgateError:
            caller = None
        if caller is None or not caller.grants.admin:
            await self._answer(http, {"signed_in": False})
            return
        await self._answer(http, self._shown(caller, None))

    async def _sign_in(self, http: Exchange) -> None:
        """Takes a key with the grant `admin`, or the one-time token."""
        if http.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise InvalidRequest("content-type must be application/json")  # which no form of another page can send
        address = origin_of(http.address)
        if wait_s := self._attempts.wait_s(address):
            raise TooManyAttempts("too many sign-ins have failed; wait a few minutes", retry_after_s=round(wait_s, 1))
        http.limit = min(http.limit, 2 * _LONGEST_SECRET)
        secret = _secret_in(await http.body())
        try:
            caller = await self._visitor(http, secret)
        except (InvalidKey, MissingKey, NotAllowed):
            self._attempts.failed(address)
            raise
        cookie = await self._visits.begin(http, caller)
        await self._answer(http, {"signed_in": True}, {"set-cookie": cookie})

    async def _visitor(self, http: Exchange, secret: str) -> Caller:
        """Raises InvalidKey, NotAllowed."""
        if await self._visits.redeem(secret):
            return LOCAL
        caller = await self._access.identify_secret(http, secret)
        if not caller.grants.admin:
            raise NotAllowed("the dashboard needs a key with the grant `admin`", key=caller.id)
        return caller

    async def _sign_out(self, http: Exchange) -> None:
        if await self._visits.find(http) is None:
            raise NotAllowed("nobody is signed in")
        await self._answer(http, {"signed_in": False}, {"set-cookie": await self._visits.end(http)})

    def _shown(self, caller: Caller, visit: Visit | None) -> dict[str, Any]:
        """`visit`: None on a gateway that needs no key."""
        return {
            "signed_in": True,
            "version": __version__,
            "key": None if caller.is_local else caller.id,
            "name": caller.name,
            "user": caller.user,
            "realm": caller.realm,
            "csrf_header": CSRF,
            "csrf": None if visit is None else visit.csrf,
            "summed_metadata": list(self._summed()),
            "ends_at": None if visit is None else shown_moment(visit.ends_at),
        }

    async def _answer(self, http: Exchange, value: dict[str, Any], more: Mapping[str, str] | None = None) -> None:
        await http.respond(200, orjson.dumps(value), {**_HEADERS, "cache-control": "no-store", **(more or {})})


def _secret_in(body: bytes) -> str:
    try:
        given = jsontext.loads(body, most=10)
    except ValueError:
        given = None
    secret = given.get("key") if isinstance(given, dict) else None
    if not isinstance(secret, str) or not secret.strip() or len(secret) > _LONGEST_SECRET or not secret.isascii():
        raise InvalidRequest('the body must be {"key": "mg-…"}')
    return secret.strip()
