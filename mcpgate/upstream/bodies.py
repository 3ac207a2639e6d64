"""Bodies of HTTP responses, decoded in pieces of bounded size; and the certificates that all requests share."""

import asyncio
import contextlib
import functools
import ssl
from collections.abc import AsyncGenerator

import httpx2

from mcpgate.errors import UpstreamError
from mcpgate.upstream.inflate import Undecodable, inflate_of

_BREATHE_EVERY, _BREATHE_EVERY_BYTES = 100, 64 * 1024
"""Pieces and bytes of a body after which other tasks get the loop, however fast it arrives."""


@functools.cache
def tls() -> ssl.SSLContext:
    """Read the machine's certificates once for all upstreams and attempts: it blocks the event loop for 30 ms."""
    return httpx2.create_ssl_context()


async def decoded(response: httpx2.Response) -> AsyncGenerator[bytes, None]:
    """Yield the decoded body as it arrives, in pieces of bounded size. Raises UpstreamError, httpx2.HTTPError."""
    encoding = response.headers.get("content-encoding", "")
    async with contextlib.aclosing(inflated(response.aiter_raw(), encoding)) as pieces:
        async for piece in pieces:
            yield piece


async def inflated(raw: AsyncGenerator[bytes, None], encoding: str) -> AsyncGenerator[bytes, None]:
    """Yield a body of some content-encoding as it was before, in pieces of bounded size. Raises UpstreamError."""
    encodings = [e.strip().lower() for e in encoding.split(",")]
    encodings = [encoding for encoding in encodings if encoding not in ("", "identity")]
    try:
        inflate = inflate_of(",".join(encodings)) if encodings else None
        async with contextlib.aclosing(raw) as pieces:
            count = size = 0
            async for piece in pieces:
                for part in inflate.feed(piece) if inflate is not None else (piece,):
                    yield part
                    count, size = count + 1, size + len(part)
                    if count >= _BREATHE_EVERY or size >= _BREATHE_EVERY_BYTES:
                        count = size = 0
                        await asyncio.sleep(0)
    except Undecodable as error:
        raise UpstreamError(str(error)) from error
