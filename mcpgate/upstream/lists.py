"""Resources, templates and prompts as each connection to one server lists them: asked for once for all who ask at the
same time, and remembered while the list is good. What one connection lists is never another's."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from mcpgate.upstream.connection import Connection, RpcError
from mcpgate.upstream.listing import Listed

_LIST_S = 1.0
"""How long a list is good that the server does not announce changes of."""
_OWN_LIST_S = 60.0
"""How long a caller's own list is good in any case: it may sign in with another account."""
_METHOD_NOT_FOUND = -32601

Items = list[dict[str, Any]]
Ask = Callable[[Connection, str], Awaitable[Listed]]


class _List(NamedTuple):
    """A list, or the question for it."""

    items: "asyncio.Task[Items]"
    until: float
    """When it has to be asked for again, monotonic seconds."""


class Lists:
    """Of one server."""

    def __init__(self, ask: Ask, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask, self._clock = ask, clock
        self._of: WeakKeyDictionary[Connection, dict[str, _List]] = WeakKeyDictionary()

    async def get(self, connection: Connection, what: str, own: bool = False) -> Items:
        """Every item of `resources`, `resourceTemplates` or `prompts`. `own`: the connection is one caller's. Raises
        UpstreamError."""
        capability = "prompts" if what == "prompts" else "resources"
        capabilities = connection.facts.capabilities if connection.facts is not None else ()
        if capability not in capabilities:
            return []
        lists = self._of.setdefault(connection, {})
        known = lists.get(what)
        if known is None or self._clock() >= known.until:
            announced = f"{capability}.listChanged" in capabilities
            good_s = _LIST_S if not announced else _OWN_LIST_S if own else float("inf")
            task = asyncio.create_task(self._listed(connection, what))
            known = lists[what] = _List(task, self._clock() + good_s)
            task.add_done_callback(lambda done: _forget_failed(lists, what, done))
        return await asyncio.shield(known.items)

    def known(self, connection: Connection, what: str) -> Items | None:
        """What a connection has listed last; None if nothing since the last change."""
        found = self._of.get(connection, {}).get(what)
        done = found is not None and found.items.done() and not found.items.cancelled()
        return found.items.result() if found is not None and done and found.items.exception() is None else None

    def changed(self, connection: Connection, what: str) -> None:
        """The server says that a list has changed."""
        lists = self._of.get(connection, {})
        for one in ("resources", "resourceTemplates") if what == "resources" else (what,):
            lists.pop(one, None)

    async def _listed(self, connection: Connection, what: str) -> Items:
        try:
            return (await self._ask(connection, what)).items
        except RpcError as error:
            if error.rpc_code != _METHOD_NOT_FOUND:
                raise
            return []  # templates are optional


def _forget_failed(lists: dict[str, _List], what: str, task: "asyncio.Task[Items]") -> None:
    known = lists.get(what)
    if (task.cancelled() or task.exception() is not None) and known is not None and known.items is task:
        del lists[what]
