"""Signing in to upstreams with a browser: the page that a link leads to, and the address that authorization servers
send people back to. A link is bound to the browser that opened it, so that nobody can be made to finish somebody else's
sign-in."""

import hashlib
import hmac
import html
import logging
import secrets
from collections.abc import Mapping
from functools import partial

from mcpgate.api.http.exchange import Exchange
from mcpgate.api.http.routing import Face, Handler
from mcpgate.errors import McpgateError, NotFound
from mcpgate.gateway import Gateway
from mcpgate.governance.callers import SIGNED_IN
from mcpgate.upstream.links import LIVES_S
from mcpgate.upstream.tokens import Place

_LOGIN, _CALLBACK = "/oauth/login/", "/oauth/callback"
_MOST_CHARS = 4096
_PAGE_HEADERS = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; "
    "form-action 'none'; base-uri 'none'",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_PAGE = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    "<title>mcpgate</title><style>body{{font:16px system-ui;max-width:32em;margin:4em auto;padding:0 1em}}"
    "a{{font-weight:600}}</style><h1>{title}</h1><p>{text}</p></html>"
)
log = logging.getLogger("mcpgate.oauth")


class OAuthFace(Face):
    """Answers /oauth/login/… and /oauth/callback."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def handler(self, path: str) -> Mapping[str, Handler] | None:
        if path == _CALLBACK:
            return {"GET": partial(self._shown, self._come_back)}
        if path.startswith(_LOGIN):
            return {"GET": partial(self._shown, partial(self._begin, path.removeprefix(_LOGIN)[:200]))}
        return None

    async def _shown(self, handler: Handler, http: Exchange) -> None:
        """Answers for people: what goes wrong is a page too."""
        try:
            await handler(http)
        except McpgateError as error:
            status = error.http_status if error.http_status < 500 else 400
            await _show(http, status, "Not signed in", error.message)

    async def _begin(self, ticket: str, http: Exchange) -> None:
        place = await self._gateway.links.place_of(ticket)
        if place is None:
            raise NotFound("this link has expired; ask for a new one")
        if http.query().get("continue") != "1":
            whom = f" for {_whom(place)}" if place.subject else ""
            text = (
                f"The gateway will use your account at <b>{html.escape(place.server)}</b>{html.escape(whom)}. Go on "
                'only if you asked for this yourself.</p><p><a href="?continue=1" rel="noreferrer">Sign in</a>'
            )
            await _show(http, 200, f"Sign in to {place.server}", text, escaped=True)
            return
        upstream = self._gateway.pool.get(place.server)
        if upstream.config.url != place.url:
            raise NotFound("this link is no longer valid: the server's address has changed")
        begun = await upstream.sign_in(place.subject).begin(self._callback(), await upstream.asked_for())
        browser = secrets.token_urlsafe(24)
        facts = {"place": [place.server, place.url, place.subject], "begun": begun.facts(), "browser": _digest(browser)}
        await self._gateway.vault.keep_pending(begun.state, facts, LIVES_S)
        secure = "; Secure" if self._callback().startswith("https://") else ""
        cookie = (
            f"{_cookie_name(begun.state)}={browser}; Path={http.root}/oauth; HttpOnly; SameSite=Lax; "
            f"Max-Age={LIVES_S:.0f}{secure}"
        )
        await http.respond(303, headers={**_PAGE_HEADERS, "location": begun.url, "set-cookie": cookie})

    async def _come_back(self, http: Exchange) -> None:
        answer = {name: value[:_MOST_CHARS] for name, value in http.query().items()}
        state = answer.get("state", "")
        found = await self._gateway.vault.pending(state) if state else None
        if found is None or "begun" not in found:
            raise NotFound("this sign-in has expired or is unknown here; start again")
        browser = _cookies(http.headers.get("cookie", "")).get(_cookie_name(state), "")
        if not hmac.compare_digest(_digest(browser), found["browser"]):
            raise NotFound("this sign-in was started in another browser; start again in this one")
        if await self._gateway.vault.take_pending(state) is None:
            raise NotFound("this sign-in has expired; start again")
        from mcpgate.upstream.auth import Begun

        place = Place(*found["place"])
        upstream = self._gateway.pool.get(place.server)
        if upstream.config.url != place.url:
            raise NotFound("this sign-in is no longer valid: the server's address has changed")
        await upstream.sign_in(place.subject).finish(Begun.of_facts(found["begun"]), answer)
        log.info("%s: signed in%s", place.server, f" for {_whom(place)}" if place.subject else "")
        await _show(http, 200, "Signed in", f"You are signed in to {place.server}. You can close this page.")

    def _callback(self) -> str:
        return f"{self._gateway.links.address}{_CALLBACK}"


def _whom(place: Place) -> str:
    key, _, user = place.subject.partition("\n")
    if key == SIGNED_IN:
        return user
    return f"{user} (key {key})" if user else f"the key {key}"


def _cookie_name(state: str) -> str:
    return f"mcpgate_{_digest(state)[:12]}"


def _cookies(header: str) -> dict[str, str]:
    pairs = (part.strip().partition("=") for part in header.split(";"))
    return {name: value for name, _, value in pairs}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


async def _show(http: Exchange, status: int, title: str, text: str, escaped: bool = False) -> None:
    body = _PAGE.format(title=html.escape(title), text=text if escaped else html.escape(text))
    await http.respond(status, body.encode(), _PAGE_HEADERS)
