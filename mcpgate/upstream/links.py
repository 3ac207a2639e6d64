"""Addresses of this gateway at which people without a shell sign in to upstreams: each belongs to one place, is known
only to who was told it, and ends soon. What is served there: api/oauth.py."""

import dataclasses
import secrets
import time

from mcpgate.upstream.tokens import Place, Vault

LIVES_S = 600.0
_MOST = 1000


class Links:
    """Makes links. One for the whole gateway."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self.address: str | None = None
        """Of the gateway, as people reach it with a browser; None where it serves no HTTP."""
        self._made: dict[Place, tuple[str, float]] = {}

    async def make(self, place: Place) -> str | None:
        """The link at which a place's owner signs in; the same one for a while."""
        if self.address is None:
            return None
        ticket, until = self._made.get(place, ("", 0.0))
        if until < time.monotonic() + LIVES_S / 2:
            ticket = secrets.token_urlsafe(24)
            await self._vault.keep_pending(f"link {ticket}", dataclasses.asdict(place), LIVES_S)
            if len(self._made) >= _MOST:
                self._made.clear()
            self._made[place] = ticket, time.monotonic() + LIVES_S
        return f"{self.address}/oauth/login/{ticket}"

    async def place_of(self, ticket: str) -> Place | None:
        """Whom a link belongs to, while it lives."""
        found = await self._vault.pending(f"link {ticket}")
        return None if found is None else Place(**found)
