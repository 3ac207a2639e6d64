"""Who wants to hear of changes of which resource. An upstream is subscribed to once, however many clients listen; one
that each caller signs in to, once for each caller."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from weakref import WeakValueDictionary

from mcpgate.errors import McpgateError, RateLimited
from mcpgate.governance.callers import Caller
from mcpgate.upstream.pool import UpstreamPool
from mcpgate.upstream.upstream import Announcement

_MOST, _MOST_EACH = 10_000, 1000
"""Resources of one upstream that are subscribed to; subscriptions of one key."""
Listener = Callable[[str], None]
Source = tuple[str, str | None]
"""A server, and on whose connection it is followed; None: the shared one."""
log = logging.getLogger("mcpgate.proxy")


class Subscriptions:
    """One for the whole gateway."""

    def __init__(self, pool: UpstreamPool) -> None:
        self._pool = pool
        self._table: dict[Source, dict[str, list[Listener]]] = {}
        """Source → URI → who listens."""
        self._of_account: Counter[str] = Counter()
        self._locks: WeakValueDictionary[Source, asyncio.Lock] = WeakValueDictionary()
        self._leaving: set[asyncio.Task[None]] = set()
        pool.on_event(self._on_event)

    async def add(self, caller: Caller, server: str, uri: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` with the URI that a server says has changed, to this caller or to all. Returns the function
        that ends it. Raises UpstreamError, RpcError, RateLimited."""
        account = caller.account
        if self._of_account[account] >= _MOST_EACH:
            raise RateLimited(f"at most {_MOST_EACH} resources are subscribed to at once", limit=_MOST_EACH)
        source = server, self._pool.get(server).identity_of(caller.owner)
        of_source = self._table.setdefault(source, {})
        if uri not in of_source and len(of_source) >= _MOST:
            raise RateLimited(f"{_MOST:,} resources of {server!r} are subscribed to", limit=_MOST)
        of_source.setdefault(uri, []).append(listener)
        self._of_account[account] += 1

        def remove() -> None:
            listeners = of_source.get(uri, [])
            if listener in listeners:
                listeners.remove(listener)
                self._of_account[account] -= 1
                if not self._of_account[account]:
                    del self._of_account[account]
                if not listeners:
                    del of_source[uri]
                    if not of_source:
                        del self._table[source]
                    task = asyncio.ensure_future(self._leave(source))
                    self._leaving.add(task)
                    task.add_done_callback(self._leaving.discard)

        try:
            await self._tell(source)
        except BaseException:
            remove()
            raise
        return remove

    async def _tell(self, source: Source) -> None:
        server, identity = source
        async with self._locks.setdefault(source, asyncio.Lock()):
            await self._pool.get(server).subscribe([*self._table.get(source, ())], identity)

    async def _leave(self, source: Source) -> None:
        try:
            await self._tell(source)
        except McpgateError as error:
            log.debug("%s: a subscription was not ended: %s", source[0], error.message)

    def _on_event(self, announced: Announcement) -> None:
        if announced.kind != "updated":
            return
        uri, of_source = announced.what, self._table.get((announced.server, announced.identity), {})
        parents = (
            [known for known in of_source if uri.startswith(known.rstrip("/") + "/")] if uri not in of_source else []
        )
        for known in (uri, *parents):
            for listener in [*of_source.get(known, ())]:
                listener(uri)
