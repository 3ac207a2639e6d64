"""What signing in to upstreams must remember: tokens, clients and sign-ins under way; and the contract of the store
that keeps it. Values are encrypted before the store sees them where a key is set. How tokens are obtained: auth.py.
"""

import asyncio
import contextlib
import dataclasses
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from mcpgate.errors import ConfigError, UpstreamError

_LEASE_S = 60.0
"""A process that ended while it held a lock blocks others no longer than this."""
_LOOK_AGAIN_S = 0.05
_SEALED = b"sealed:"
T = TypeVar("T")


class TokensUnavailable(UpstreamError):
    """The store of tokens cannot be used, or what is in it cannot be read."""


class Tokens(Protocol):
    """Keeps private bytes by key, for all processes that share it. Every method raises TokensUnavailable."""

    async def get(self, key: str) -> bytes | None: ...

    async def put(self, key: str, value: bytes, for_s: float | None = None) -> None:
        """Store a value, durably, in place of an earlier one. It is gone after `for_s` seconds."""
        ...

    async def take(self, key: str) -> bytes | None:
        """Get and delete a value: only one caller gets it."""
        ...

    async def keys(self, prefix: str) -> list[str]: ...

    async def acquire(self, key: str, owner: str, for_s: float) -> bool:
        """Take a lock that nobody else holds; it is free again after `for_s` seconds at the latest."""
        ...

    async def release(self, key: str, owner: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where tokens belong: one server at one address, used on behalf of somebody. A token never goes anywhere else."""

    server: str
    url: str
    subject: str = ""
    """The owner of a caller; empty for the gateway itself."""

    @property
    def key(self) -> str:
        return "token:" + json.dumps([self.server, self.url, self.subject])

    @classmethod
    def of_key(cls, key: str) -> "Place":
        return cls(*json.loads(key.removeprefix("token:")))


@dataclass(frozen=True, slots=True)
class Client:
    """What the gateway is to an authorization server."""

    id: str
    secret: str = field(default="", repr=False)
    method: str = "none"
    """How it proves who it is at the token endpoint: none, client_secret_basic, client_secret_post, private_key_jwt."""
    redirect_uri: str = ""
    """What it was registered with, if the gateway registered it."""
    expires_at: float | None = None
    """When its secret ends, epoch seconds."""


@dataclass(frozen=True, slots=True)
class Token:
    """The outcome of a sign-in, and all that renewing and ending it needs."""

    access: str = field(repr=False)
    """Empty when the sign-in has ended: what is left helps to sign in again."""
    issuer: str
    token_endpoint: str
    resource: str
    client: Client
    refresh: str = field(default="", repr=False)
    expires_at: float | None = None
    """Epoch seconds."""
    lifetime_s: float | None = None
    scope: str = ""
    """What was granted, separated by blanks."""
    wanted: str = ""
    """What the server asked for beyond that, for the next sign-in."""
    revocation_endpoint: str = ""
    issued_at: float = 0.0
    serial: str = field(default_factory=lambda: secrets.token_hex(8))
    """Tells one issue from the next without comparing secrets."""

    def secrets(self) -> list[str]:
        """What must be shown nowhere."""
        return [text for text in (self.access, self.refresh, self.client.secret) if text]


class Vault:
    """Tokens and clients as values, over any store."""

    def __init__(self, tokens: Tokens, key: str | None = None) -> None:
        """`key`: what values are encrypted with, 32 bytes in Base64; several, separated by commas, while one replaces
        another: the first encrypts. Raises ConfigError."""
        self._tokens = tokens
        self._cipher = _cipher(key) if key else None
        self._owner = secrets.token_hex(8)
        self._locks: dict[str, _Lock] = {}

    async def token(self, place: Place) -> Token | None:
        found = await self._get(place.key)
        return None if found is None else _token_of(found)

    async def keep(self, place: Place, token: Token) -> None:
        await self._put(place.key, dataclasses.asdict(token))

    async def forget(self, place: Place) -> Token | None:
        """Delete the token of a place; returns what it was."""
        async with self.lock(place):  # whoever renews it would store it again
            content = await self._tokens.take(place.key)
        return None if content is None else _token_of(self._open(content))

    async def places(self) -> list[Place]:
        """Every place there is a token of."""
        return [Place.of_key(key) for key in await self._tokens.keys("token:")]

    async def client(self, server: str, issuer: str, redirect_uri: str) -> Client | None:
        """The client that the gateway has registered. Never that of another authorization server."""
        found = await self._get(_client_key(server, issuer, redirect_uri))
        return None if found is None else Client(**found)

    async def keep_client(self, server: str, issuer: str, client: Client) -> None:
        await self._put(_client_key(server, issuer, client.redirect_uri), dataclasses.asdict(client))

    async def redirect_uris(self, server: str) -> list[str]:
        """Those that clients are registered with: who uses one again needs no new client."""
        known = [json.loads(key.removeprefix("client:")) for key in await self._tokens.keys("client:")]
        return [redirect_uri for name, _, redirect_uri in known if name == server]

    async def forget_client(self, server: str, issuer: str, redirect_uri: str) -> None:
        await self._tokens.take(_client_key(server, issuer, redirect_uri))

    async def keep_pending(self, state: str, facts: dict[str, Any], for_s: float) -> None:
        """Remember a sign-in under way by its unguessable name."""
        await self._put(f"pending:{state}", facts, for_s)

    async def pending(self, state: str) -> dict[str, Any] | None:
        return await self._get(f"pending:{state}")

    async def take_pending(self, state: str) -> dict[str, Any] | None:
        """Its facts, once."""
        content = await self._tokens.take(f"pending:{state}")
        return None if content is None else self._open(content)

    async def keep_visit(self, name: str, facts: dict[str, Any], for_s: float) -> None:
        """Remember who is signed in to the dashboard, by the digest of what the browser holds."""
        await self._put(f"visit:{name}", facts, for_s)

    async def visit(self, name: str) -> dict[str, Any] | None:
        return await self._get(f"visit:{name}")

    async def end_visit(self, name: str) -> dict[str, Any] | None:
        """Its facts, once."""
        content = await self._tokens.take(f"visit:{name}")
        return None if content is None else self._open(content)

    async def visits(self, prefix: str = "") -> list[str]:
        """The names of those that begin with a prefix, in order."""
        return [key.removeprefix("visit:") for key in await self._tokens.keys(f"visit:{prefix}")]

    @asynccontextmanager
    async def lock(self, place: Place) -> AsyncIterator[None]:
        """Held by one task of one process at a time."""
        key = place.key
        lock = self._locks.setdefault(key, _Lock())
        lock.users += 1
        try:
            async with lock.here:
                while not await self._tokens.acquire(key, self._owner, _LEASE_S):
                    await asyncio.sleep(_LOOK_AGAIN_S)
                try:
                    yield
                finally:
                    with contextlib.suppress(TokensUnavailable):
                        await asyncio.shield(self._tokens.release(key, self._owner))
        finally:
            lock.users -= 1
            if not lock.users:
                self._locks.pop(key, None)

    async def _get(self, key: str) -> dict[str, Any] | None:
        content = await self._tokens.get(key)
        return None if content is None else self._open(content)

    async def _put(self, key: str, facts: dict[str, Any], for_s: float | None = None) -> None:
        content = json.dumps(facts).encode()
        if self._cipher is not None:
            content = _SEALED + self._cipher.encrypt(content)
        await self._tokens.put(key, content, for_s)

    def _open(self, content: bytes) -> dict[str, Any]:
        if content.startswith(_SEALED):
            if self._cipher is None:
                raise TokensUnavailable("the stored tokens are encrypted; set MCPGATE_TOKEN_KEY to their key")
            from cryptography.fernet import InvalidToken

            try:
                content = self._cipher.decrypt(content.removeprefix(_SEALED))
            except InvalidToken:
                raise TokensUnavailable(
                    "the stored tokens are encrypted with another key than MCPGATE_TOKEN_KEY"
                ) from None
        facts: dict[str, Any] = json.loads(content)
        return facts


class _Lock:
    def __init__(self) -> None:
        self.here = asyncio.Lock()
        self.users = 0


def _client_key(server: str, issuer: str, redirect_uri: str) -> str:
    return "client:" + json.dumps([server, issuer, redirect_uri])


def _token_of(facts: dict[str, Any]) -> Token:
    return Token(**{**facts, "client": Client(**facts["client"])})


def _cipher(keys: str) -> Any:
    from cryptography.fernet import Fernet, MultiFernet  # 20 ms that only those with a key pay

    try:
        # What `openssl rand -base64 32` prints will do.
        return MultiFernet([Fernet(key.strip().translate(str.maketrans("+/", "-_"))) for key in keys.split(",")])
    except ValueError:
        raise ConfigError(
            "MCPGATE_TOKEN_KEY must be 32 random bytes in Base64; make a key with `openssl rand -base64 32`"
        ) from None
