"""Verifies JWT access tokens of the configured issuers. What a token may do is not decided here: see
governance/tokens.py."""

import asyncio
import datetime
import time
from collections.abc import Callable, Mapping
from typing import Any

import jwt

from mcpgate import jsontext
from mcpgate.config.oauth import IssuerConfig, OAuthConfig
from mcpgate.config.settings import Settings
from mcpgate.errors import InvalidKey
from mcpgate.governance.callers import Token
from mcpgate.governance.keys import digest_of
from mcpgate.governance.tokens import unknown_issuer
from mcpgate.issuers.keys import IssuerKeys
from mcpgate.telemetry.text import one_line

_LONGEST = 16_384
"""Characters of a token."""
_LONGEST_KID = 512
_REMEMBERED_S = 60.0
"""How long a verified token is not verified again."""
_MOST_REMEMBERED = 4096
_TYPES = ("jwt", "at+jwt", "application/at+jwt")
"""Values of `typ`: RFC 9068, and what most issuers say. ID tokens say the same; their audience is the client."""


class Verifier:
    """Implements `Tokens`. One per process."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._settings, self._clock = settings, clock
        self._oauth: OAuthConfig | None = None
        """The configuration that what follows belongs to."""
        self._keys: dict[tuple[str, str | None], IssuerKeys] = {}
        """Issuer and address of its keys → its keys."""
        self._verified: dict[str, tuple[Token, float]] = {}
        """Digest → the token, and until when that stands."""

    async def verify(self, text: str) -> Token:
        oauth = self._configured()
        if oauth is None:
            raise InvalidKey("access tokens are not accepted")
        if len(text) > _LONGEST:
            raise InvalidKey(f"this token is longer than {_LONGEST:,} characters")
        digest, now = digest_of(text), self._clock()
        token, until = self._verified.get(digest, (None, 0.0))
        if token is not None and now < until:
            return token
        algorithm, kid, iss = _taken_apart(text)
        issuer = oauth.find_issuer(iss)
        if issuer is None:
            raise unknown_issuer(iss)
        if algorithm not in issuer.algorithms:
            raise InvalidKey(
                f"this token is signed with {one_line(algorithm, 40)!r}; {', '.join(issuer.algorithms)} are accepted"
            )
        claims = await self._checked(text, issuer, kid, algorithm, oauth.leeway_s)
        if oauth.find_issuer(claims["iss"]) is not issuer:  # two parsers have read it, who may not agree
            raise unknown_issuer(claims["iss"])
        token = Token(issuer.issuer, claims, claims["exp"] + oauth.leeway_s, digest)
        if len(self._verified) >= _MOST_REMEMBERED:
            self._verified.clear()
        if self._configured() is oauth:
            self._verified[digest] = token, min(token.ends_at, now + _REMEMBERED_S)
        return token

    async def probe(self) -> Mapping[str, str]:
        oauth = self._configured()
        issuers = () if oauth is None else oauth.issuers
        errors = await asyncio.gather(*(self._keys_of(one).probe() for one in issuers))
        return {one.issuer: error for one, error in zip(issuers, errors, strict=True)}

    def _configured(self) -> OAuthConfig | None:
        """The configuration as it stands by now. Keys of issuers that an edit has not changed stay."""
        oauth = self._settings.config.server.oauth
        if oauth is not self._oauth:
            self._oauth, self._verified = oauth, {}
            places = {(one.issuer, one.jwks_uri) for one in (() if oauth is None else oauth.issuers)}
            self._keys = {place: keys for place, keys in self._keys.items() if place in places}
        return oauth

    def _keys_of(self, issuer: IssuerConfig) -> IssuerKeys:
        place = issuer.issuer, issuer.jwks_uri
        if place not in self._keys:
            self._keys[place] = IssuerKeys(*place)
        return self._keys[place]

    async def _checked(
        self, text: str, issuer: IssuerConfig, kid: str | None, algorithm: str, leeway_s: float
    ) -> dict[str, Any]:
        """The claims of a token whose signature and times are good; `exp` is a float. Raises InvalidKey,
        Unavailable."""
        problem = "its signature is wrong"
        for key in await self._keys_of(issuer).find(kid, algorithm):
            try:
                claims: dict[str, Any] = jwt.decode(
                    text,
                    key,
                    algorithms=[algorithm],
                    options={"require": ["exp", "iss"], "verify_aud": False, "verify_iss": False},
                    leeway=leeway_s,
                )
                claims["exp"] = float(claims["exp"])
            except jwt.InvalidSignatureError:
                continue
            except jwt.ExpiredSignatureError:
                problem = f"it expired on {_moment(text)}"
            except jwt.ImmatureSignatureError:
                problem = "it is not valid yet (`nbf` or `iat`)"
            except (jwt.PyJWTError, ValueError, OverflowError, TypeError, RecursionError) as error:
                problem = one_line(str(error) or type(error).__name__)
            else:
                if claims.get("cnf") is not None:
                    problem = "it is bound to a key of its client (`cnf`), which is not supported"
                    break
                return claims
            break
        raise InvalidKey(f"this token is not valid: {problem}")


def _taken_apart(text: str) -> tuple[str, str | None, Any]:
    """Algorithm, key name and issuer, as a token says that nothing vouches for yet. What else its header names, such as
    addresses of keys, is not looked at. Raises InvalidKey."""
    parts = text.split(".")
    if len(parts) == 5:
        raise InvalidKey("this token is encrypted, which is not supported")
    try:
        header, claims = (jsontext.loads(jwt.utils.base64url_decode(part)) for part in parts[:2])
    except ValueError:
        raise InvalidKey("this is neither an API key nor a JWT") from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise InvalidKey("this is neither an API key nor a JWT")
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise InvalidKey(f"this token is of the type {one_line(str(kind), 40)!r}, which is no access token")
    if "crit" in header or "b64" in header:
        raise InvalidKey("this token needs extensions (`crit`), which are not supported")
    if not isinstance(algorithm, str) or not (kid is None or (isinstance(kid, str) and len(kid) <= _LONGEST_KID)):
        raise InvalidKey("this token's header is malformed")
    return algorithm, kid, claims.get("iss")


def _moment(text: str) -> str:
    """When a token that was verified has ended."""
    ended = jsontext.loads(jwt.utils.base64url_decode(text.split(".")[1]))["exp"]
    try:
        return f"{datetime.datetime.fromtimestamp(float(ended), datetime.UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return "a day before all calendars"
