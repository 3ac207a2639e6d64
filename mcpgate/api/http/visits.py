"""Visits of the dashboard: a browser signs in with a key, and holds a cookie that stands for it. Every request looks up
the key again, so a visit has no right that its key has lost. All workers share visits; of what the browser holds only
digests are stored. What a visitor may do is decided where requests with a key are: see access.py."""

import dataclasses
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mcpgate.api.http.exchange import Exchange
from mcpgate.api.http.headers import metadata_of
from mcpgate.errors import McpgateError, NotAllowed, Unavailable
from mcpgate.governance.callers import LOCAL, Caller, Said, Token
from mcpgate.governance.gate import Gate
from mcpgate.upstream.tokens import TokensUnavailable, Vault

LIVES_S = 12 * 3600.0
ONCE_LIVES_S = 24 * 3600.0
_MOST_EACH, _MOST = 16, 1000
"""Visits of one key, and in all. The oldest end first."""
_COOKIE = "mcpgate-visit"
CSRF = "x-mcpgate-csrf"
_ONCE = "once-"


@dataclass(frozen=True, slots=True)
class Visit:
    """A browser that is signed in."""

    caller: Caller
    csrf: str
    """What requests that change something must bring, in `x-mcpgate-csrf`."""
    ends_at: float
    """Epoch seconds."""


class Visits:
    """Begins, finds and ends them."""

    def __init__(self, vault: Vault, gate: Gate, clock: Callable[[], float] = time.time) -> None:
        self._vault, self._gate, self._clock = vault, gate, clock

    async def begin(self, http: Exchange, caller: Caller) -> str:
        """Sign a browser in as a caller who is identified. Returns the header that sets the cookie. Raises
        Unavailable."""
        now, lives_s, secret = self._clock(), LIVES_S, secrets.token_urlsafe(32)
        if caller.token is not None:
            lives_s = min(lives_s, caller.token.ends_at - now)
        token = None if caller.token is None else dataclasses.asdict(caller.token)
        facts: dict[str, Any] = {"key": caller.id, "digest": caller.digest, "bundle": caller.bundle}
        facts |= {"user": caller.user, "token": token, "ends_at": now + lives_s}
        account = _digest(caller.account)[:16]
        visit = f"{account}.{int(now):010x}.{secret}"
        try:
            await self._make_room(account)
            await self._vault.keep_visit(_name(visit), facts, lives_s)
        except TokensUnavailable as error:
            raise Unavailable(f"visits cannot be stored: {error}") from error
        return _set_cookie(http, visit, lives_s)

    async def _make_room(self, account: str) -> None:
        own = await self._vault.visits(f"{account}.")
        everyone = [name for name in await self._vault.visits() if not name.startswith(_ONCE)]
        by_age = sorted(everyone, key=lambda name: name.split(".")[1])
        for name in {*own[: max(0, len(own) - _MOST_EACH + 1)], *by_age[: max(0, len(by_age) - _MOST + 1)]}:
            await self._vault.end_visit(name)

    async def find(self, http: Exchange) -> Visit | None:
        """The visit of a request's cookie, with the caller as its key has it by now; None where there is none, or it
        has ended. Raises NotAllowed for a request that another page may have made, Unavailable."""
        visit = _held(http)
        if visit is None:
            return None
        try:
            facts = await self._vault.visit(_name(visit))
        except TokensUnavailable as error:
            raise Unavailable(f"visits cannot be read: {error}") from error
        caller = None if facts is None else await self._caller(http, facts)
        if facts is None or caller is None:
            return None
        if not _is_own(http):
            raise NotAllowed("this request came from another page than the dashboard")
        csrf = _digest(f"csrf {visit}")
        if http.method not in ("GET", "HEAD") and not hmac.compare_digest(http.headers.get(CSRF, ""), csrf):
            raise NotAllowed(f"a request of the dashboard that changes something needs its token in {CSRF}")
        http.cors = None
        return Visit(caller, csrf, facts["ends_at"])

    async def _caller(self, http: Exchange, facts: dict[str, Any]) -> Caller | None:
        metadata = metadata_of(http.headers)
        if facts["key"] == LOCAL.id:
            return dataclasses.replace(LOCAL, metadata=metadata) if metadata else LOCAL
        before = Caller(
            *(facts["key"], "", facts["user"]),
            digest=facts["digest"],
            bundle=facts["bundle"],
            address=http.address,
            said=Said(None, tuple(metadata.items())),
            token=_token_of(facts["token"]),
        )
        try:
            return await self._gate.current(before)
        except NotAllowed:
            if metadata:  # which the key may not say
                raise
            return None

    async def end(self, http: Exchange) -> str:
        """Sign out. Returns the header that removes the cookie."""
        if (visit := _held(http)) is not None:
            try:
                await self._vault.end_visit(_name(visit))
            except TokensUnavailable as error:
                raise Unavailable(f"visits cannot be changed: {error}") from error
        return _set_cookie(http, "", 0)

    async def redeem(self, text: str) -> bool:
        """Whether a text is the one-time token, which it then no longer is."""
        try:
            name = _ONCE + _digest(text)
            return await self._vault.visit(name) is not None and await self._vault.end_visit(name) is not None
        except TokensUnavailable as error:
            raise Unavailable(f"visits cannot be read: {error}") from error


async def one_time_token(vault: Vault) -> str:
    """A new token to sign in with, once, where there is no admin key yet; earlier ones are no longer valid. Raises
    TokensUnavailable."""
    for name in await vault.visits(_ONCE):
        await vault.end_visit(name)
    token = secrets.token_urlsafe(24)
    await vault.keep_visit(_ONCE + _digest(token), {}, ONCE_LIVES_S)
    return token


def _token_of(facts: dict[str, Any] | None) -> Token | None:
    return None if facts is None else Token(**{**facts, "sent_to": tuple(facts["sent_to"])})


def _name(visit: str) -> str:
    """What a visit is stored under: its secret only as a digest."""
    account, began, secret = visit.split(".")
    return f"{account}.{began}.{_digest(secret)}"


def _held(http: Exchange) -> str | None:
    """What the browser holds; None where that cannot be a visit."""
    parts = (part.strip().partition("=") for part in http.headers.get("cookie", "").split(";"))
    held = {name: value for name, _, value in parts}
    found = (held[name] for name in _names(http) if name in held)  # one set over HTTPS counts more
    return next((value for value in found if value.count(".") == 2 and len(value) < 200), None)


def _names(http: Exchange) -> tuple[str, str]:
    """Of the cookie, with HTTPS and without. Browsers do not tell the ports of a machine apart, so without HTTPS the
    name does."""
    port = http.headers.get("host", "").rpartition("]")[2].rpartition(":")[2]
    return f"__Secure-{_COOKIE}", f"{_COOKIE}-{port}" if port.isdigit() else _COOKIE


def _set_cookie(http: Exchange, value: str, lives_s: float) -> str:
    # The browser itself says in `origin` how it reached us, whatever proxies are in between.
    secure = http.scheme == "https" or http.headers.get("origin", "").startswith("https://")
    name = _names(http)[0 if secure else 1]
    attributes = f"Path={http.root or '/'}; HttpOnly; SameSite=Strict; Max-Age={lives_s:.0f}"
    return f"{name}={value}; {attributes}{'; Secure' if secure else ''}"


def _is_own(http: Exchange) -> bool:
    """Whether a request was made by a page of this very origin. Cookies go to every port of a machine."""
    site, origin = http.headers.get("sec-fetch-site"), http.headers.get("origin")
    if site is not None:
        return site == "same-origin" or (site == "none" and origin is None)
    try:
        return origin is None or urlsplit(origin).netloc == http.headers.get("host")
    except ValueError:
        return False


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Attempts:
    """Sign-ins that failed, by address: whoever fails too often must wait."""

    def __init__(self, most: int = 10, within_s: float = 300.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._within_s, self._clock = most, within_s, clock
        self._failed: dict[str, list[float]] = {}

    def wait_s(self, address: str) -> float:
        """Seconds until an address may try again."""
        since = self._clock() - self._within_s
        recent = [at for at in self._failed.get(address, ()) if at > since]
        return recent[0] - since if len(recent) >= self._most else 0.0

    def failed(self, address: str) -> None:
        since = self._clock() - self._within_s
        if len(self._failed) >= 10_000 and address not in self._failed:
            self._failed = {name: times for name, times in self._failed.items() if times[-1] > since}
        kept = [at for at in self._failed.pop(address, []) if at > since]
        self._failed[address] = [*kept[1 - self._most :], self._clock()]


class TooManyAttempts(McpgateError):
    """Too many sign-ins from one address have failed."""

    code, http_status = "rate_limited", 429
