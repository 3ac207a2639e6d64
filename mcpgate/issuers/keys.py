"""The public keys of one issuer: fetched when a token first needs them, again after some minutes, and when a token
names a key that is not known. One fetch at a time, and at most one in `RETRY_S`: anybody can make up names of keys.

While the issuer cannot be reached, the keys that are known stay in use.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import jwt

from mcpgate.errors import InvalidKey, Unavailable, UpstreamError
from mcpgate.telemetry.text import one_line
from mcpgate.upstream.discovery import SignInFailed, UntrustedWeb, issuer_metadata, untrusted_web

RETRY_S = 10.0
"""The shortest time between two fetches."""
FRESH_S = 300.0
"""After which keys are fetched again, while they stay in use."""
LONGEST_S = 86_400.0
"""How long keys stay in use without their issuer being reached."""
_FETCH_S = 10.0
"""For metadata and keys together."""
_MOST_TRIED = 4
"""Keys of one name."""
_RSA_BITS = range(2048, 8193)
_LONGEST_EXPONENT = 8
"""Characters in base64; a long one makes each verification slow."""
_PUBLIC = ("kty", "n", "e", "crv", "x", "y")
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
log = logging.getLogger("mcpgate.oauth")


class IssuerKeys:
    """Finds the keys that may have signed a token."""

    def __init__(self, issuer: str, uri: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        """`uri`: the address of its keys; None: as its metadata say."""
        self._issuer, self._uri, self._clock = issuer, uri, clock
        self._published: tuple[Mapping[str, Any], ...] | None = None
        """As in the issuer's key set; None before the first fetch."""
        self._usable: dict[tuple[str | None, str], tuple[jwt.PyJWK, ...]] = {}
        """Name and algorithm → keys, made on first use."""
        self._fetched_at = self._tried_at = -LONGEST_S
        self._fetching: asyncio.Task[None] | None = None
        self._error = ""

    async def find(self, kid: str | None, algorithm: str) -> tuple[jwt.PyJWK, ...]:
        """The keys of a name, or without one the only key for the algorithm. Raises InvalidKey if there is none,
        Unavailable if there never were any."""
        age_s = self._clock() - self._fetched_at
        if self._published is None or age_s >= LONGEST_S:
            await self._fetched()
            if self._published is None or self._clock() - self._fetched_at >= LONGEST_S:
                text = f"the keys of {self._issuer} cannot be fetched: {self._error}"
                raise Unavailable(text, retry_after_s=RETRY_S)
        elif age_s >= FRESH_S:
            self._begin()
        found = self._known(kid, algorithm)
        if not found and self._may_fetch:
            await self._fetched()
            found = self._known(kid, algorithm)
        if not found:
            key = "a key without a name" if kid is None else f"the key {one_line(kid, 80)!r}"
            raise InvalidKey(f"this token is signed with {key} for {algorithm}, which its issuer does not publish")
        return found

    async def probe(self) -> str:
        """Fetch the keys now: what is wrong, or an empty text."""
        self._tried_at = -LONGEST_S
        await self._fetched()
        return self._error

    @property
    def _may_fetch(self) -> bool:
        """Whether a fetch would be, or is, under way."""
        is_fetching = self._fetching is not None and not self._fetching.done()
        return is_fetching or self._clock() - self._tried_at >= RETRY_S

    def _begin(self) -> None:
        if (self._fetching is None or self._fetching.done()) and self._may_fetch:
            self._tried_at = self._clock()
            self._fetching = asyncio.create_task(self._fetch(), name="issuer keys")

    async def _fetched(self) -> None:
        """Wait for a fetch, if there may be one. Who stops waiting does not end it for the others."""
        self._begin()
        if self._fetching is not None:
            await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(_FETCH_S), untrusted_web(self._issuer) as web:
                published = await self._read(web)
        except TimeoutError:
            self._failed(f"no answer within {_FETCH_S:g} s")
        except UpstreamError as error:
            self._failed(error.message)
        except Exception as error:
            log.exception("the keys of %s cannot be read", self._issuer)
            self._failed(type(error).__name__)
        else:
            self._published, self._usable, self._fetched_at, self._error = published, {}, self._clock(), ""

    async def _read(self, web: UntrustedWeb) -> tuple[Mapping[str, Any], ...]:
        """The usable keys of the issuer's key set. Raises UpstreamError."""
        uri = self._uri or (await issuer_metadata(web, self._issuer)).get("jwks_uri")
        if uri is None:
            raise SignInFailed("its metadata name no jwks_uri")
        status, found = await web.get(uri, "its key set")
        if status != 200:
            raise SignInFailed(f"its key set: HTTP {status}")
        listed = found.get("keys") if isinstance(found, dict) else None
        if not isinstance(listed, list):
            raise SignInFailed("its key set is not a JSON object with `keys`")
        usable = tuple(key for key in listed if isinstance(key, dict) and _is_for_signatures(key))
        if not usable:
            raise SignInFailed("its key set holds no public key for signatures")
        return usable

    def _failed(self, why: str) -> None:
        self._error = why
        log.warning("the keys of %s cannot be fetched: %s", self._issuer, why)

    def _known(self, kid: str | None, algorithm: str) -> tuple[jwt.PyJWK, ...]:
        found = self._usable.get((kid, algorithm))
        if found is None:
            named = [key for key in self._published or () if kid is None or key.get("kid") == kid]
            fitting = [key for key in named if _fits(key, algorithm)]
            if kid is None and len(fitting) > 1:
                fitting = []  # it does not say which
            made = [made for key in fitting[:_MOST_TRIED] if (made := _made(key, algorithm)) is not None]
            found = tuple(made)
            if found:  # names that nobody publishes are not remembered
                self._usable[kid, algorithm] = found
        return found


def _is_for_signatures(key: Mapping[str, Any]) -> bool:
    operations = key.get("key_ops")
    return (
        key.get("kty") in ("RSA", "EC", "OKP")
        and key.get("use") in (None, "sig")
        and (operations is None or (isinstance(operations, list) and "verify" in operations))
    )


def _fits(key: Mapping[str, Any], algorithm: str) -> bool:
    """Whether a key is one for an algorithm. The algorithm of a token is chosen by whoever made it."""
    if key.get("alg") not in (None, algorithm):
        return False
    match algorithm[:2]:
        case "RS" | "PS":
            return key.get("kty") == "RSA"
        case "ES":
            return key.get("kty") == "EC" and key.get("crv") == _CURVES[algorithm]
    return key.get("kty") == "OKP" and key.get("crv") in ("Ed25519", "Ed448")


def _made(key: Mapping[str, Any], algorithm: str) -> jwt.PyJWK | None:
    """A key of a key set, if it can be used."""
    public = {name: key[name] for name in _PUBLIC if name in key}
    try:
        if len(public.get("e", "")) > _LONGEST_EXPONENT:
            return None
        made = jwt.PyJWK.from_dict(public, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
        return None
    return made if public["kty"] != "RSA" or made.key.key_size in _RSA_BITS else None
