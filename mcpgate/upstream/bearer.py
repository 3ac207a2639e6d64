"""The token that the requests of one connection carry: taken from the vault, renewed in time and by one process only,
replaced once after a refusal. It never waits for a person: where one is needed, it says so. How tokens are obtained:
auth.py.
"""

import asyncio
import contextlib
import dataclasses
import logging
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

from mcpgate.config.upstreams import UpstreamConfig
from mcpgate.errors import UpstreamError
from mcpgate.upstream.challenges import Challenge, SignInNeeded, has_own_credentials, login_command, remedy, scopes
from mcpgate.upstream.secrets import Secrets
from mcpgate.upstream.tokens import Place, Token, TokensUnavailable, Vault

_LOOK_EVERY_S = 2.0
"""How old what is known of the store may be: a sign-in or sign-out in another process takes effect within this."""
_AHEAD_S = 60.0
"""A token is renewed so long before it ends, or a tenth of its lifetime if that is less."""
_TRY_AGAIN_S = 5.0
"""An authorization server that could not be reached is not asked again before this."""
_WAIT_S = 1.5
log = logging.getLogger("mcpgate.upstream")

Link = Callable[[Place], Awaitable[str | None]]
"""The address at which whoever a place belongs to can sign in with a browser; None where there is none."""


class Bearer:
    """Tokens for one connection to one server."""

    def __init__(
        self,
        name: str,
        config: UpstreamConfig,
        masked: Secrets,
        vault: Vault | None = None,
        subject: str = "",
        link: Link | None = None,
        borrows: bool = False,
    ) -> None:
        """Without a vault it only says what a refusal means. `borrows`: where the place has no token, that of anybody
        else at this server will do, as for listing tools."""
        self._name, self._config, self._secrets, self._link, self._borrows = name, config, masked, link, borrows
        self._vault = None if has_own_credentials(config) else vault
        self._home = self._place = Place(name, config.url or "", subject)
        self._needs_nobody = config.auth is not None and config.auth.type != "oauth"
        self._token: Token | None = None
        self._looked_at = -_LOOK_EVERY_S
        self._renewal: asyncio.Task[Token | None] | None = None
        self._unproven: str | None = None
        """The serial of a token that replaced a refused one, until the server accepts it."""
        self._failure: tuple[float, UpstreamError] | None = None
        self._tried: str | None = None
        """The serial of the last token that was refused."""
        self._ended: SignInNeeded | None = None
        """Why that token is not sent any more."""
        self._news = asyncio.Event()
        self.challenge: Challenge | None = None
        """What the server asked for when it last refused."""

    async def token(self) -> Token | None:
        """What to send now; None where there is nothing. Raises SignInNeeded while there is only what the server has
        refused; UpstreamError."""
        if self._vault is None:
            return None
        await self._look()
        token = self._token
        if token is None or not token.access:
            if not self._home.subject:
                return None
            way_in, data = await self._way_in()
            raise SignInNeeded(f"sign in: {way_in}", ended=False, **data)
        if self._ended is not None and token.serial == self._tried:
            raise self._ended
        if _is_due(token) and (token.refresh or self._needs_nobody):
            try:
                return await self._renewed(token)
            except UpstreamError as error:
                if token.expires_at is None or token.expires_at <= time.time():
                    raise UpstreamError(f"the sign-in could not be renewed: {error.message}") from error
                log.debug("%s: a token could not be renewed yet: %s", self._name, error)
        return token

    async def again(self, refused: Token | None, challenge: Challenge) -> Token | None:
        """Another token for a request that was refused, if there is one: from the store, or after a 401 a new one."""
        self._note(challenge)
        if self._vault is None or (challenge.status != 401 and not challenge.wants_more):
            return None
        await self._look(now=True)
        token = self._token
        if token is not None and token.access and (refused is None or token.serial != refused.serial):
            return token
        if challenge.status != 401:
            return None
        if refused is not None and refused.serial == self._unproven:
            return None  # another new one would not help
        if self._needs_nobody or (token is not None and token.refresh):
            fresh = await self._renewed(token)
            if fresh is not None and fresh.access:
                self._unproven = fresh.serial
                return fresh
        return None

    def accepted(self, token: Token) -> None:
        """The server did not answer a request with this token with 401."""
        if token.serial == self._unproven:
            self._unproven = None

    async def refused(self, sent: Token | None, challenge: Challenge, text: str, data: dict[str, Any]) -> UpstreamError:
        """A final 401 or 403 as an error that says what to do. `text`: what the server said."""
        self._note(challenge)
        way_in, more = await self._way_in()
        data = {**data, **more}
        if challenge.wants_more and sent is not None and not self._needs_nobody:
            with contextlib.suppress(TokensUnavailable):
                await self._want(challenge.scope)
        words = remedy(self._name, self._config, challenge, sent is not None, way_in)
        message = f"{words} ({text})"
        if challenge.status != 401 or has_own_credentials(self._config) or self._needs_nobody:
            return UpstreamError(message, **data)
        self._tried = None if sent is None else sent.serial
        # Some servers answer 401 to a session that they do not know: only a challenge tells.
        if not challenge.bearer or (sent is not None and not (challenge.error or challenge.resource_metadata)):
            return UpstreamError(message, **data)
        needed = SignInNeeded(message, ended=sent is not None, **data)
        self._ended = needed if sent is not None else None
        return needed

    async def changed(self) -> None:
        """Returns when there is a token that the server has not refused."""
        while not await self.has_news():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WAIT_S * random.uniform(0.8, 1.2)):
                    await self._news.wait()

    async def replaced(self) -> None:
        """Returns when there is another token than now, if only in the store."""
        await self._look(now=True)
        before = None if self._token is None else self._token.serial
        while self._token is None or not self._token.access or self._token.serial == before:
            await asyncio.sleep(_WAIT_S * random.uniform(0.8, 1.2))
            with contextlib.suppress(TokensUnavailable):
                await self._look(now=True)

    async def has_news(self) -> bool:
        """Whether there is a token now that the server has not refused; `changed` then returns at once."""
        try:
            await self._look(now=True)
        except TokensUnavailable as error:
            log.debug("%s: %s", self._name, error)
            return False
        found = self._token is not None and bool(self._token.access) and self._token.serial != self._tried
        self._news.set() if found else self._news.clear()
        return found

    @property
    def signs_in(self) -> bool:
        """Whether a sign-in of a person could help against a 401."""
        return self._vault is not None and not self._needs_nobody

    def _note(self, challenge: Challenge) -> None:
        if challenge.status == 401 or self.challenge is None:  # a 403 asks only for what is missing
            self.challenge = challenge

    async def _way_in(self) -> tuple[str, dict[str, Any]]:
        """How to sign in: a command, or, for callers who have no shell here, an address."""
        if self._home.subject and self._link is not None and (address := await self._link(self._home)) is not None:
            return address, {"sign_in_url": address}
        return login_command(self._name, self._home.subject), {}

    async def _look(self, now: bool = False) -> None:
        """Read the token from the store, if what is known is not fresh."""
        assert self._vault is not None
        if not now and time.monotonic() - self._looked_at < _LOOK_EVERY_S:
            return
        before = self._token
        try:
            found, token = self._home, await self._vault.token(self._home)
            if token is None and self._borrows:
                found, token = await self._borrowed(self._vault)
        except TokensUnavailable as error:
            if self._token is None and self._config.auth is not None:
                raise
            log.debug("%s: %s", self._name, error)
            return  # what is known stays good for a while, and most servers want no token
        finally:
            self._looked_at = time.monotonic()
        if self._token is not before:
            return  # it was renewed while the store was read
        if token is not None and (self._token is None or token.serial != self._token.serial):
            self._secrets.learn(*token.secrets())
        self._place, self._token = found, token

    async def _borrowed(self, vault: Vault) -> tuple[Place, Token | None]:
        home = self._home
        for place in await vault.places():
            if (place.server, place.url) == (home.server, home.url):
                token = await vault.token(place)
                if token is not None and token.access:
                    return place, token
        return home, None

    async def _renewed(self, token: Token | None) -> Token | None:
        """A token in place of another, however many ask at once; whoever stops waiting does not stop it: the old
        refresh token may be used up already."""
        if self._failure is not None and time.monotonic() - self._failure[0] < _TRY_AGAIN_S:
            raise self._failure[1]
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew(None if token is None else token.serial))
            self._renewal.add_done_callback(_heard)
        return await asyncio.shield(self._renewal)

    async def _renew(self, serial: str | None) -> Token | None:
        from mcpgate.upstream.auth import SignIn
        from mcpgate.upstream.discovery import SignInFailed

        vault, place = self._vault, self._place
        assert vault is not None
        sign_in = SignIn(place, self._config, vault, self._secrets)
        try:
            async with vault.lock(place):
                token = await vault.token(place)
                if token is not None and token.access and token.serial != serial:
                    pass  # somebody else was faster
                elif token is not None and token.refresh:
                    try:
                        token = await sign_in.renew(token)
                    except SignInFailed as error:
                        if error.transient:
                            raise
                        log.warning("%s: the sign-in has ended: %s", self._name, error.message)
                        token = dataclasses.replace(token, access="", refresh="", serial=secrets.token_hex(8))
                        await vault.keep(place, token)
                if self._needs_nobody and (token is None or not token.access or token.serial == serial):
                    token = await sign_in.by_client(self.challenge)
        except UpstreamError as error:
            self._failure = time.monotonic(), error
            raise
        self._failure = None
        self._token, self._looked_at = token, time.monotonic()
        return token

    async def _want(self, scope: str) -> None:
        """Remember what the server wants beyond what was granted: the next sign-in asks for it."""
        vault, place = self._vault, self._place
        assert vault is not None
        async with vault.lock(place):
            token = await vault.token(place)
            if token is not None and (wanted := scopes(token.wanted, scope)) != token.wanted:
                await vault.keep(place, dataclasses.replace(token, wanted=wanted))


def _is_due(token: Token) -> bool:
    if token.expires_at is None:
        return False
    ahead_s = _AHEAD_S if token.lifetime_s is None else min(_AHEAD_S, token.lifetime_s / 10)
    return token.expires_at - ahead_s <= time.time()


def _heard(task: "asyncio.Task[Token | None]") -> None:
    if not task.cancelled():
        task.exception()  # everybody who asked may have stopped waiting
