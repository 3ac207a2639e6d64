"""Resources that callers follow on connections of their own. Those stay open as long, and each new one is asked for the
same again."""

import asyncio
import logging

from mcpgate.errors import UpstreamError
from mcpgate.upstream.identities import MAX_CONNECTIONS, Identities

_MOST = MAX_CONNECTIONS // 2
"""Callers who follow resources at once; the other connections are for calls."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 60.0
log = logging.getLogger("mcpgate.upstream")


class Following:
    """Of one server."""

    def __init__(self, name: str, identities: Identities, timeout_s: float) -> None:
        self._name, self._identities, self._timeout_s = name, identities, timeout_s
        self._uris: dict[str, tuple[str, ...]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def follow(self, identity: str, uris: tuple[str, ...]) -> None:
        """Be told of changes of these resources, and of no others. Raises UpstreamError, RpcError."""
        if not uris:
            self._uris.pop(identity, None)
            if (task := self._tasks.pop(identity, None)) is not None:
                task.cancel()
            if (connection := self._identities.find(identity)) is not None:
                await connection.subscribe((), self._timeout_s)
            return
        if identity not in self._uris and len(self._uris) >= _MOST:
            raise UpstreamError(f"resources of {self._name!r} are followed for {_MOST} callers already")
        self._uris[identity] = uris
        connection = await self._identities.get(identity)
        await connection.subscribe(uris, self._timeout_s)
        if identity in self._uris and identity not in self._tasks:
            self._tasks[identity] = asyncio.create_task(self._stay(identity))

    def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    async def _stay(self, identity: str) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                connection = await self._identities.get(identity)
                await connection.subscribe(self._uris[identity], self._timeout_s)
                pause_s = _FIRST_PAUSE_S
                while not connection.closed.done():
                    await asyncio.wait((connection.closed,), timeout=self._identities.idle_s / 3)
                    await self._identities.get(identity)  # which is using it
            except UpstreamError as error:
                log.info("%s: resources cannot be followed for a caller now: %s", self._name, error.message)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
