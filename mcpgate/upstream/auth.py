"""Signs in to one server: obtains, renews and revokes tokens (OAuth 2.1 as MCP uses it). Nothing here carries traffic
or decides when to sign in: see bearer.py. Written here and not taken from the SDK, whose client holds a lock while each
request is in flight, forgets when tokens expire and takes a second to import.
"""

import asyncio
import base64
import dataclasses
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from mcpgate.config.auth import AuthConfig
from mcpgate.config.upstreams import UpstreamConfig
from mcpgate.upstream.challenges import Challenge, scopes
from mcpgate.upstream.discovery import Authority, SignInFailed, UntrustedWeb, discover, said, untrusted_web
from mcpgate.upstream.secrets import Secrets
from mcpgate.upstream.secrets import place as where
from mcpgate.upstream.tokens import Client, Place, Token, Vault
from mcpgate.upstream.untrusted import one_line

_LONGEST_TOKEN = 64 * 1024
_LONGEST_LIFE_S = 10 * 365 * 86_400.0
_ASSERTION_S = 300
_JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_DEVICE_INTERVAL_S, _LONGEST_INTERVAL_S, _DEVICE_PATIENCE_S = 5.0, 60.0, 1800.0
_SECRET_METHODS = ("client_secret_basic", "client_secret_post")


@dataclass(frozen=True, slots=True)
class Begun:
    """A sign-in that waits for a person."""

    url: str = field(repr=False)
    """What to open in a browser."""
    state: str = field(repr=False)
    """What the answer must carry."""
    verifier: str = field(repr=False)
    redirect_uri: str
    scope: str
    authority: Authority
    client: Client

    def facts(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> "Begun":
        authority = {**facts["authority"], "methods": _tuple(facts["authority"]["methods"])}
        return cls(**{**facts, "authority": Authority(**authority), "client": Client(**facts["client"])})


class SignIn:
    """Signing in to one server on behalf of one subject. Every method raises SignInFailed and TokensUnavailable."""

    def __init__(self, place: Place, config: UpstreamConfig, vault: Vault, masked: Secrets) -> None:
        """`masked` learns every secret that comes along. Whoever calls `renew` or `by_client` while others may holds
        the lock of the place."""
        self._place, self._config, self._vault, self._secrets = place, config.auth or AuthConfig(), vault, masked

    # --- a person signs in

    async def begin(self, redirect_uri: str, challenge: Challenge | None) -> Begun:
        """The address to open, and what must be remembered until the person comes back to `redirect_uri`."""
        async with untrusted_web(self._place.url) as web:
            authority = await self._discover(web, challenge)
            if not authority.authorization_endpoint or not authority.token_endpoint:
                raise SignInFailed("its authorization server has no authorization endpoint, so nobody can sign in")
            if authority.pkce is False or (authority.pkce is None and self._config.client_id is None):
                raise SignInFailed(
                    "its authorization server does not say that it supports PKCE with S256, so a stolen code could be "
                    "used; if you trust it, register a client there and set auth.client_id"
                )
            client = await self._client(web, authority, redirect_uri)
            scope = await self._scope(authority, challenge)
            if scope and authority.offline_access:
                scope = scopes(scope, "offline_access")
        state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(64)
        self._secrets.learn(verifier)
        digest = hashlib.sha256(verifier.encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": client.id,
            "redirect_uri": redirect_uri,
            "state": state,
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
            "resource": authority.resource,
            **({"scope": scope} if scope else {}),
            **({"prompt": "consent"} if "offline_access" in scope.split() else {}),
        }
        parts = urlsplit(authority.authorization_endpoint)
        url = urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, urlencode(asked))))))
        return Begun(url, state, verifier, redirect_uri, scope, authority, client)

    async def finish(self, begun: Begun, answer: Mapping[str, str]) -> Token:
        """Turn the answer that came to the redirect address into a token, and store it."""
        authority = begun.authority
        if not hmac.compare_digest(answer.get("state", "").encode(), begun.state.encode()):
            raise SignInFailed("the answer belongs to another sign-in (its state differs); start again")
        issuer = answer.get("iss")
        if issuer != authority.issuer and (issuer is not None or authority.names_itself):
            named = "nobody" if issuer is None else one_line(where(issuer), 200)
            raise SignInFailed(f"the answer is of {named}, not of {where(authority.issuer)}; it is not used")
        if "error" in answer:
            raise SignInFailed(f"the sign-in was refused: {self._secrets.mask(said(dict(answer))[1])}", answer["error"])
        if not answer.get("code"):
            raise SignInFailed("the answer has no code")
        self._secrets.learn(answer["code"])
        form = {
            "grant_type": "authorization_code",
            "code": answer["code"],
            "redirect_uri": begun.redirect_uri,
            "code_verifier": begun.verifier,
        }
        async with untrusted_web(self._place.url) as web, self._vault.lock(self._place):
            return await self._obtain(web, authority, begun.client, form, begun.scope)

    async def by_device(self, challenge: Challenge | None, show: Callable[[str, str], None]) -> Token:
        """Sign in with a code that is entered in a browser of any machine (RFC 8628). `show` is given the address and
        the code."""
        async with untrusted_web(self._place.url) as web:
            authority = await self._discover(web, challenge)
            if not authority.device_endpoint:
                raise SignInFailed("its authorization server has no device flow; use --no-browser")
            client = await self._client(web, authority, "")
            scope = await self._scope(authority, challenge)
            asked = {"resource": authority.resource, **({"scope": scope} if scope else {})}
            found = await self._post(web, authority, client, authority.device_endpoint, asked)
            device_code, user_code = found.get("device_code"), found.get("user_code")
            if not isinstance(device_code, str) or not isinstance(user_code, str):
                raise SignInFailed("its authorization server returned no device code")
            self._secrets.learn(device_code)
            address = found.get("verification_uri_complete") or found.get("verification_uri")
            show(web.checked(address, "the address of the device flow"), one_line(user_code, 40))
            interval_s = _seconds(found.get("interval"), _DEVICE_INTERVAL_S)
            give_up = time.monotonic() + min(_seconds(found.get("expires_in"), 600.0), _DEVICE_PATIENCE_S)
            form = {"grant_type": _DEVICE_GRANT, "device_code": device_code}
            while time.monotonic() < give_up:
                await asyncio.sleep(min(interval_s, _LONGEST_INTERVAL_S))
                try:
                    async with self._vault.lock(self._place):
                        return await self._obtain(web, authority, client, form, scope)
                except SignInFailed as error:
                    if error.error == "slow_down":
                        interval_s += 5
                    elif error.error != "authorization_pending" and not error.transient:
                        raise
            raise SignInFailed("nobody entered the code in time")

    # --- nobody needs to

    async def by_client(self, challenge: Challenge | None) -> Token:
        """A token for the client itself: `client_credentials` and `private_key_jwt`."""
        async with untrusted_web(self._place.url) as web:
            authority = await self._discover(web, challenge)
            if not authority.token_endpoint:
                raise SignInFailed("its authorization server has no token endpoint")
            client = await self._client(web, authority, "")
            scope = await self._scope(authority, challenge)
            form = {"grant_type": "client_credentials", **({"scope": scope} if scope else {})}
            return await self._obtain(web, authority, client, form, scope)

    async def renew(self, token: Token) -> Token:
        """A new token for one that has a refresh token. The old one may be used up even if this fails."""
        async with untrusted_web(self._place.url) as web:
            form = {"grant_type": "refresh_token", "refresh_token": token.refresh}
            return await self._obtain(web, _authority_of(token), token.client, form, token.scope, token)

    async def revoke(self, token: Token) -> bool:
        """End a token at its authorization server (RFC 7009). False where the server cannot."""
        if not token.revocation_endpoint:
            return False
        async with untrusted_web(self._place.url) as web:
            for hint, secret in (("refresh_token", token.refresh), ("access_token", token.access)):
                if secret:
                    form = {"token": secret, "token_type_hint": hint}
                    await self._post(web, _authority_of(token), token.client, token.revocation_endpoint, form)
        return True

    # --- parts

    async def _discover(self, web: UntrustedWeb, challenge: Challenge | None) -> Authority:
        authority = await discover(web, self._place.url, self._config, challenge)
        before = await self._vault.token(self._place)
        has_secret = self._config.client_secret or self._config.private_key
        if before is not None and before.issuer != authority.issuer and has_secret and self._config.issuer is None:
            # A server that was taken over must not get the client's secret by naming a server of its own.
            raise SignInFailed(
                f"the server names another authorization server than before: {where(authority.issuer)} instead of "
                f"{where(before.issuer)}; if that is right, set auth.issuer to it"
            )
        return authority

    async def _scope(self, authority: Authority, challenge: Challenge | None) -> str:
        chosen = scopes(*self._config.scopes) or (challenge.scope if challenge else "") or authority.scopes
        before = await self._vault.token(self._place)
        if before is not None and before.issuer == authority.issuer:
            # What was granted stays granted, and what the server asked for beyond it is added.
            chosen = scopes(before.scope, before.wanted, chosen)
        return chosen

    async def _client(self, web: UntrustedWeb, authority: Authority, redirect_uri: str) -> Client:
        config = self._config
        if config.client_id is not None:
            secret = config.client_secret or ""
            method = "private_key_jwt" if config.type == "private_key_jwt" else _method(authority) if secret else "none"
            return Client(config.client_id, secret, method)
        if config.client_metadata_url is not None and authority.takes_metadata_urls:
            return Client(config.client_metadata_url)
        known = await self._vault.client(self._place.server, authority.issuer, redirect_uri)
        if known is not None and not _is_past(known.expires_at):
            self._secrets.learn(known.secret)
            return known
        if not authority.registration_endpoint:
            at = f", with the redirect address {redirect_uri}" if redirect_uri else ""
            raise SignInFailed(
                f"its authorization server, {where(authority.issuer)}, does not register clients: register one "
                f"there{at}, and set auth.client_id (and auth.client_secret, if it has one)"
            )
        return await self._register(web, authority, redirect_uri)

    async def _register(self, web: UntrustedWeb, authority: Authority, redirect_uri: str) -> Client:
        methods = authority.methods
        asked_method = next(
            (method for method in ("none", *_SECRET_METHODS) if methods is None or method in methods), "none"
        )
        grants = ["authorization_code", "refresh_token"] if redirect_uri else [_DEVICE_GRANT, "refresh_token"]
        is_local = urlsplit(redirect_uri).hostname in ("127.0.0.1", "localhost", None)
        asked = {
            "client_name": "mcpgate",
            "grant_types": grants,
            **({"redirect_uris": [redirect_uri], "response_types": ["code"]} if redirect_uri else {}),
            "token_endpoint_auth_method": asked_method,
            "application_type": "native" if is_local else "web",
            **({"scope": authority.scopes} if authority.scopes else {}),
        }
        status, found = await web.post(authority.registration_endpoint, "the registration endpoint", json=asked)
        if status not in (200, 201) or not isinstance(found, dict):
            raise SignInFailed(f"its authorization server registers no client: HTTP {status} {said(found)[1]}".rstrip())
        id, secret = found.get("client_id"), found.get("client_secret") or ""
        method = found.get("token_endpoint_auth_method") or asked_method
        if not isinstance(id, str) or not id or len(id) > _LONGEST_TOKEN or not isinstance(secret, str):
            raise SignInFailed("its authorization server registered a client without an id")
        if method not in ("none", *_SECRET_METHODS) or (method != "none" and not secret):
            raise SignInFailed(f"its authorization server registered an unsupported kind of client: {method}")
        expires_at = found.get("client_secret_expires_at")
        ends = float(expires_at) if isinstance(expires_at, (int, float)) and expires_at > 0 and secret else None
        client = Client(id, secret, method, redirect_uri, ends)
        self._secrets.learn(secret)
        await self._vault.keep_client(self._place.server, authority.issuer, client)
        return client

    async def _obtain(
        self,
        web: UntrustedWeb,
        authority: Authority,
        client: Client,
        form: Mapping[str, str],
        scope: str,
        before: Token | None = None,
    ) -> Token:
        """Ask the token endpoint, and store what it gives before anything else can go wrong."""
        asked = {**form, "resource": authority.resource}
        try:
            found = await self._post(web, authority, client, authority.token_endpoint, asked)
        except SignInFailed as error:
            if error.error == "invalid_client":  # one that was registered is registered anew next time
                await self._vault.forget_client(self._place.server, authority.issuer, client.redirect_uri)
            raise
        token = _token(found, authority, client, scope, before)
        self._secrets.learn(*token.secrets())
        await self._vault.keep(self._place, token)
        return token

    async def _post(
        self, web: UntrustedWeb, authority: Authority, client: Client, endpoint: str, form: Mapping[str, str]
    ) -> dict[str, Any]:
        proof, headers = self._proof(authority, client)
        what = f"the authorization server {where(authority.issuer)}"
        status, found = await web.post(endpoint, what, {**form, **proof}, headers)
        if status == 200 and (isinstance(found, dict) or "token" in form):
            return found if isinstance(found, dict) else {}
        code, words = said(found)
        text = f"{what} refused: HTTP {status}{f' {words}' if words else ''}"
        raise SignInFailed(self._secrets.mask(text), code, transient=status >= 500 or status == 429)

    def _proof(self, authority: Authority, client: Client) -> tuple[dict[str, str], dict[str, str]]:
        """How the client proves who it is: fields of the form, and headers."""
        if client.method == "client_secret_basic":
            pair = f"{quote(client.id, safe='')}:{quote(client.secret, safe='')}"
            return {}, {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        if client.method == "client_secret_post":
            return {"client_id": client.id, "client_secret": client.secret}, {}
        if client.method == "private_key_jwt":
            return {"client_assertion_type": _JWT_BEARER, "client_assertion": self._assertion(authority, client)}, {}
        return {"client_id": client.id}, {}

    def _assertion(self, authority: Authority, client: Client) -> str:
        import jwt  # 0.1 s that only these clients pay

        now = int(time.time())
        claims = {
            "iss": client.id,
            "sub": client.id,
            "aud": authority.issuer,
            "iat": now,
            "exp": now + _ASSERTION_S,
            "jti": secrets.token_urlsafe(16),
        }
        key_id = {"kid": self._config.key_id} if self._config.key_id else None
        try:
            return jwt.encode(claims, self._config.private_key or "", algorithm=self._config.algorithm, headers=key_id)
        except (ValueError, TypeError, NotImplementedError, jwt.PyJWTError) as error:
            kind = type(error).__name__  # its text may hold the key
            raise SignInFailed(f"auth.private_key cannot sign with {self._config.algorithm} ({kind})") from None


def redirected(text: str) -> dict[str, str]:
    """The answer in an address that a browser was sent to."""
    return dict(parse_qsl(urlsplit(text.strip()).query, keep_blank_values=True))


def _token(found: Mapping[str, Any], authority: Authority, client: Client, scope: str, before: Token | None) -> Token:
    access, kind = found.get("access_token"), found.get("token_type")
    if not isinstance(access, str) or not 0 < len(access) <= _LONGEST_TOKEN or not access.isascii():
        raise SignInFailed("its authorization server returned no usable token")
    if not access.isprintable() or " " in access:
        raise SignInFailed("its authorization server returned a token that cannot be sent")
    if isinstance(kind, str) and kind.lower() != "bearer":
        raise SignInFailed(f"its authorization server returned an unsupported kind of token: {one_line(kind, 40)}")
    refresh = found.get("refresh_token")
    if not isinstance(refresh, str) or len(refresh) > _LONGEST_TOKEN:
        refresh = before.refresh if before is not None else ""
    lifetime_s = _seconds(found.get("expires_in"), None)
    now = time.time()
    return Token(
        access=access,
        refresh=refresh,
        issuer=authority.issuer,
        token_endpoint=authority.token_endpoint,
        revocation_endpoint=authority.revocation_endpoint,
        resource=authority.resource,
        client=client,
        expires_at=None if lifetime_s is None else now + lifetime_s,
        lifetime_s=lifetime_s,
        scope=scopes(found["scope"]) if isinstance(found.get("scope"), str) else scope,
        wanted=before.wanted if before is not None else "",
        issued_at=now,
    )


def _seconds(value: Any, default: Any) -> Any:
    """A number of seconds, which some servers write as text."""
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else -1.0
    except ValueError:
        return default
    return min(number, _LONGEST_LIFE_S) if 0 < number < float("inf") else default


def _method(authority: Authority) -> str:
    """How a client with a secret proves who it is."""
    methods = authority.methods
    return next((method for method in _SECRET_METHODS if methods is None or method in methods), _SECRET_METHODS[0])


def _authority_of(token: Token) -> Authority:
    return Authority(
        token.issuer, token.resource, token_endpoint=token.token_endpoint, revocation_endpoint=token.revocation_endpoint
    )


def _is_past(at: float | None) -> bool:
    return at is not None and at < time.time()


def _tuple(value: Any) -> tuple[str, ...] | None:
    return None if value is None else tuple(value)
