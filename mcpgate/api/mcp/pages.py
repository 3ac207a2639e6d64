"""Long lists, page by page. Pure."""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

from mcpgate.api.mcp.protocol import INVALID_PARAMS, RpcFault

PAGE = 1000
"""Items on one page."""


def page_of(what: str, items: Sequence[dict[str, Any]], cursor: Any) -> dict[str, Any]:
    """The page at a cursor, with the next cursor if there is more. Raises RpcFault for a foreign cursor."""
    start = 0 if cursor is None else _place(cursor, len(items))
    page: dict[str, Any] = {what: list(items[start : start + PAGE])}
    if start + PAGE < len(items):
        page["nextCursor"] = base64.urlsafe_b64encode(f"after {start + PAGE}".encode()).decode()
    return page


def _place(cursor: Any, size: int) -> int:
    try:
        word, _, number = base64.urlsafe_b64decode(cursor).decode().partition(" ")
    except (TypeError, ValueError, AttributeError, binascii.Error):
        word, number = "", ""
    if word != "after" or not number.isascii() or not number.isdigit() or len(number) > 9:
        raise RpcFault(INVALID_PARAMS, "unknown cursor; ask for the list without it")
    return min(int(number), size)
