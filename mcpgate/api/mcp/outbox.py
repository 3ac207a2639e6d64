"""What waits for one client that may not be reading. Bounded in bytes: of progress only the latest is worth keeping,
and over the limit nothing is kept and whoever reads is told that it is over. Knows nothing of transports."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from itertools import count
from typing import Any

from mcpgate import jsontext
from mcpgate.api.mcp.protocol import Answer, Message

OUTBOX_BYTES = 8 * 1024 * 1024
_CALM_BYTES = 64 * 1024
"""Up to here every progress notification is kept."""
_UPDATED = "notifications/resources/updated"


class Outbox:
    """Messages in order."""

    def __init__(
        self,
        limit: int = OUTBOX_BYTES,
        on_size: Callable[[int], None] = lambda change: None,
        on_end: Callable[[], object] = lambda: None,
    ) -> None:
        """`on_size`: told of every change of the bytes that wait. `on_end`: told when there will be no more."""
        self._limit, self._on_size, self._on_end = limit, on_size, on_end
        self._waiting: OrderedDict[Any, tuple[bytes, Message]] = OrderedDict()
        self._number = count()
        self._ready = asyncio.Event()
        self.size = 0
        """Bytes that wait."""
        self.ended = False
        """Whether there will be no more, because too much waited or nobody is there for it."""

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: Message) -> None:
        """Queue a message. One that is longer than the limit has its place where nothing waits."""
        if self.ended:
            return
        data = wire(message)
        key = self._key(message)
        if key in self._waiting:
            self._change(-len(self._waiting.pop(key)[0]))
        elif self.size and self.size + len(data) > self._limit:
            self.end()
            return
        self._waiting[key] = (data, message)
        self._change(len(data))
        self._ready.set()

    async def get(self) -> tuple[bytes, Message] | None:
        """The next message, as it goes over the wire and as it was; None at the end."""
        while not self._waiting and not self.ended:
            self._ready.clear()
            await self._ready.wait()
        return self.get_nowait()

    def get_nowait(self) -> tuple[bytes, Message] | None:
        if not self._waiting:
            return None
        _, (data, message) = self._waiting.popitem(last=False)
        self._change(-len(data))
        return data, message

    def end(self) -> None:
        """Forget what waits; whoever reads is told that there is no more."""
        if self.ended:
            return
        self.ended = True
        self._waiting.clear()
        self._change(-self.size)
        self._ready.set()
        self._on_end()

    def _key(self, message: Message) -> Any:
        """What a waiting message is replaced by another of."""
        method = message.get("method")
        if isinstance(method, str) and method.endswith("/list_changed"):
            return method
        if method == _UPDATED:
            return (method, message["params"].get("uri"))
        if method == "notifications/progress" and self.size > _CALM_BYTES:
            token = message["params"].get("progressToken")
            if isinstance(token, (str, int, float)):
                return ("progress", token)
        return next(self._number)

    def _change(self, size: int) -> None:
        if size:
            self.size += size
            self._on_size(size)


def wire(message: Message) -> bytes:
    """A message as bytes, made only once where they have been counted before."""
    return message.data if isinstance(message, Answer) else jsontext.dumps(message)
