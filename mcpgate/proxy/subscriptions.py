"""Who wants to hear of changes of which resource. An upstream is subscribed to once, however many clients listen."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from mcpgate.errors import McpgateError, RateLimited
from mcpgate.upstream.pool import UpstreamPool

_MOST, _MOST_EACH = 10_000, 1000
"""Resources of one upstream that are subscribed to; subscriptions of one key."""
Listener = Callable[[str], None]
log = logging.getLogger("mcpgate.proxy")


class Subscriptions:
    """One for the whole gateway."""

    def __init__(self, pool: UpstreamPool) -> None:
        self._pool = pool
        self._table: dict[str, dict[str, list[Listener]]] = {}
        """Server → URI → who listens."""
        self._of_account: Counter[str] = Counter()
        self._locks: dict[str, asyncio.Lock] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        pool.on_event(self._on_event)

    async def add(self, server: str, uri: str, listener: Listener, account: str) -> Callable[[], None]:
        """Call `listener` with the URI that a server says has changed. `account`: whose it is. Returns the function
        that ends it. Raises UpstreamError, RpcError, RateLimited."""
        if self._of_account[account] >= _MOST_EACH:
            raise RateLimited(f"at most {_MOST_EACH} resources are subscribed to at once", limit=_MOST_EACH)
        of_server = self._table.setdefault(server, {})
        if uri not in of_server and len(of_server) >= _MOST:
            raise RateLimited(f"{_MOST:,} resources of {server!r} are subscribed to", limit=_MOST)
        of_server.setdefault(uri, []).append(listener)
        self._of_account[account] += 1

        def remove() -> None:
            listeners = of_server.get(uri, [])
            if listener in listeners:
                listeners.remove(listener)
                self._of_account[account] -= 1
                if not self._of_account[account]:
                    del self._of_account[account]
                if not listeners:
                    del of_server[uri]
                    task = asyncio.ensure_future(self._leave(server))
                    self._leaving.add(task)
                    task.add_done_callback(self._leaving.discard)

        try:
            await self._tell(server)
        except BaseException:
            remove()
            raise
        return remove

    async def _tell(self, server: str) -> None:
        async with self._locks.setdefault(server, asyncio.Lock()):
            await self._pool.get(server).subscribe([*self._table.get(server, ())])

    async def _leave(self, server: str) -> None:
        try:
            await self._tell(server)
        except McpgateError as error:
            log.debug("%s: a subscription was not ended: %s", server, error.message)

    def _on_event(self, server: str, kind: str, uri: str) -> None:
        if kind != "updated":
            return
        of_server = self._table.get(server, {})
        parents = (
            [known for known in of_server if uri.startswith(known.rstrip("/") + "/")] if uri not in of_server else []
        )
        for known in (uri, *parents):
            for listener in [*of_server.get(known, ())]:
                listener(uri)
