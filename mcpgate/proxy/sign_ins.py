"""Calls of servers that each caller signs in to: the person in front of the client gets the link as a question, and the
call goes on when they have signed in."""

import asyncio
import secrets

from mcpgate.client import Client
from mcpgate.errors import McpgateError, UpstreamError
from mcpgate.upstream.backchannel import lacking
from mcpgate.upstream.upstream import Upstream

_SIGN_IN_S = 300.0
"""How long a person has for it."""


async def signs_in(client: Client, upstream: Upstream, owner: str, error: UpstreamError) -> bool:
    """Whether the person has signed in, where that was all that the request needed and they could be asked."""
    link = error.data.get("sign_in_url")
    params = {
        "mode": "url",
        "message": f"Sign in to {upstream.name!r}, so that the gateway can use it for you.",
        "url": link,
        "elicitationId": secrets.token_hex(16),
    }
    if link is None or lacking(client.capabilities, "elicitation/create", params):
        return False
    signed_in = asyncio.ensure_future(upstream.signed_in(owner))
    try:
        answer = await client.ask("elicitation/create", params)
        if answer.get("action") != "accept":
            return False
        async with asyncio.timeout(_SIGN_IN_S):
            await signed_in
    except (McpgateError, TimeoutError):
        return False  # the error says what to do
    finally:
        signed_in.cancel()
    return True
