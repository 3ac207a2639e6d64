"""JSON-RPC messages to and from one upstream, whatever carries them. Knows nothing of MCP: see connection.py."""

import logging
import re
from collections.abc import Mapping
from typing import Any, Protocol

from mcpgate import jsontext
from mcpgate.errors import UpstreamError

Message = dict[str, Any]
log = logging.getLogger("mcpgate.upstream")


class Inbox(Protocol):
    """Who gets what comes in."""

    def on_message(self, message: Message) -> None: ...

    def on_unreadable(self, request_id: int | None, reason: str) -> None:
        """A message came that cannot be used; it answers `request_id`, if that could be made out."""
        ...

    def on_close(self, reason: str) -> None: ...


class Transport(Protocol):
    """An open way to one upstream."""

    async def send(self, message: Message, headers: Mapping[str, str] | None = None) -> None:
        """Raises UpstreamError when the other side is gone."""
        ...


def deliver(line: bytes, inbox: Inbox) -> None:
    """Parse one message and hand it on; what cannot be parsed fails the call it answers, and only that."""
    try:
        message = jsontext.loads(line, "replace")
    except ValueError as error:
        if b'"jsonrpc"' not in line[:4096] and b'"jsonrpc"' not in line[-4096:]:
            log.debug("not JSON-RPC on stdout: %s", line[:200].decode("utf-8", "replace"))
            return
        report_unreadable(inbox, line[:4096], line[-4096:], f"its answer is not valid JSON: {error}")
        return
    for one in message if isinstance(message, list) else (message,):
        if isinstance(one, dict):
            inbox.on_message(one)


_ID_FIRST = re.compile(rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(\d+)')
_ID_LAST = re.compile(rb'"id"\s*:\s*(\d+)\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')


def find_id(head: bytes, tail: bytes) -> int | None:
    """The id of a message that is too long or too broken to parse. SDKs write it first or last; an id further
    inside belongs to something else."""
    found = _ID_FIRST.match(head) or _ID_LAST.search(tail[-200:])
    return int(found.group(1)) if found else None


def report_unreadable(inbox: Inbox, head: bytes, tail: bytes, reason: str) -> None:
    """Fail the call that a message answers; a notification that cannot be read answers none."""
    id = find_id(head, tail)
    if id is None and b'"method"' in head[:300]:
        log.debug("a notification could not be read: %s", reason)
    else:
        inbox.on_unreadable(id, reason)


def encode(message: Message) -> bytes:
    """Raises UpstreamError for arguments that have no JSON form."""
    try:
        return jsontext.dumps(message)
    except ValueError as error:
        raise UpstreamError(f"the message cannot be written as JSON: {error}") from None
