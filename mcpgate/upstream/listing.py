"""Everything a server lists, over all pages, within one limit of items, bytes and seconds: otherwise the server
would decide how much that is."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from mcpgate import jsontext
from mcpgate.errors import UpstreamTimeout
from mcpgate.upstream.connection import Connection

_MAX_PAGES = 1000
MAX_ITEM_BYTES = 1024 * 1024
"""Maximum size of one item's JSON; larger items are left out."""
_AT_ONCE = 500
"""Items that are processed before other tasks get the loop."""
log = logging.getLogger("mcpgate.upstream")


@dataclass(frozen=True, slots=True)
class Listed:
    items: list[dict[str, Any]]
    warning: str = ""
    """What was left out, and the setting that limits it."""


async def list_all(connection: Connection, what: str, *, timeout_s: float, max_items: int, max_mib: int) -> Listed:
    """`tools`, `resources`, `resourceTemplates` or `prompts`. `timeout_s` is for all pages together. Raises RpcError,
    UpstreamError, UpstreamTimeout."""
    method = "resources/templates/list" if what == "resourceTemplates" else f"{what}/list"
    collected = _Collected(what, max_items, max_mib)
    cursor: Any = None
    seen: set[str] = set()
    try:
        async with asyncio.timeout(timeout_s):
            for _ in range(_MAX_PAGES):
                params = {"cursor": cursor} if cursor is not None else {}
                page = await connection.request(method, params, timeout_s=timeout_s)
                if not await collected.add(page.get(what)):
                    break
                cursor = page.get("nextCursor")
                if not isinstance(cursor, str) or cursor in seen:
                    return collected.listed()
                seen.add(cursor)
            else:
                collected.stop(f"more than {_MAX_PAGES} pages")
    except TimeoutError:
        raise UpstreamTimeout(f"{method} did not finish within {timeout_s:g} s") from None
    return collected.listed()


class _Collected:
    def __init__(self, what: str, max_items: int, max_mib: int) -> None:
        self._what, self._max_items, self._max_mib = what, max_items, max_mib
        self._items: list[dict[str, Any]] = []
        self._bytes = 0
        self._too_large = 0
        self._cut = ""

    async def add(self, page: Any) -> bool:
        """Whether there is room for more."""
        for number, item in enumerate(page if isinstance(page, list) else ()):
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
            if not isinstance(item, dict):
                continue
            if len(self._items) >= self._max_items:
                return self.stop(f"only the first {self._max_items:,} are used (max_tools)")
            size = _size(item)
            self._bytes += size
            if self._bytes > self._max_mib * 1024 * 1024:
                return self.stop(f"only the first {len(self._items):,} are used (max_message_mib={self._max_mib})")
            if size > MAX_ITEM_BYTES:
                self._too_large += 1
            else:
                self._items.append(item)
        return True

    def stop(self, why: str) -> bool:
        self._cut = why
        return False

    def listed(self) -> Listed:
        parts = [f"of its {self._what} {self._cut}"] if self._cut else []
        if self._too_large:
            parts.append(f"{self._too_large} larger than {MAX_ITEM_BYTES // 1024 // 1024} MiB left out")
        return Listed(self._items, "; ".join(parts))


def _size(item: dict[str, Any]) -> int:
    try:
        return len(jsontext.dumps(item))
    except ValueError:
        return 1000  # nested too deeply to serialize; its schemas are left out later
