"""Answers of the admin API that go on: server-sent events, until one side ends or the caller loses its rights."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

from mcpgate.api.http.access import Access
from mcpgate.api.http.exchange import Closing, Disconnected, Exchange
from mcpgate.errors import InvalidRequest
from mcpgate.governance.callers import Caller
from mcpgate.governance.store import StoreUnavailable

_RIGHTS_S = 5.0
"""How often it is asked whether the caller may still listen."""
_PING_S = 15.0


class Streams:
    def __init__(self, access: Access, closing: Closing) -> None:
        self._access, self._closing = access, closing

    async def send(self, http: Exchange, caller: Caller, groups: AsyncIterator[Sequence[bytes]]) -> None:
        """Raises InvalidRequest, RateLimited."""
        if not http.may_stream:
            raise InvalidRequest("event streams need HTTP/1.1 (for nginx: proxy_http_version 1.1)")
        with self._access.standing_stream(caller):
            await http.start_stream()
            writing = asyncio.ensure_future(self._write(http, caller, groups))
            gone, stopped = http.gone, self._closing.stopped()
            try:
                await asyncio.wait((writing, gone, stopped), return_when=asyncio.FIRST_COMPLETED)
                if not writing.done():
                    writing.cancel()
                with contextlib.suppress(asyncio.CancelledError, Disconnected, StoreUnavailable):
                    await writing
                if not gone.done():
                    await http.end_stream()
            finally:
                writing.cancel()
                stopped.cancel()

    async def _write(self, http: Exchange, caller: Caller, groups: AsyncIterator[Sequence[bytes]]) -> None:
        asked = silent_since = time.monotonic()
        async with contextlib.aclosing(groups):  # type: ignore[type-var]
            async for group in groups:
                now = time.monotonic()
                if now - asked >= _RIGHTS_S:
                    asked = now
                    if not await self._access.still_admitted(caller):
                        return
                for data in group:
                    await http.event(data)
                if group:
                    silent_since = now
                elif now - silent_since >= _PING_S:
                    await http.ping()
                    silent_since = now
