"""JSON-RPC messages to and from one upstream, independent of the transport. It knows nothing about MCP: see
connection.py."""

import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from mcpgate import jsontext
from mcpgate.errors import UpstreamError

Message = dict[str, Any]
log = logging.getLogger("mcpgate.upstream")
_BOM = b"\xef\xbb\xbf"
_MIB = 1024 * 1024


class Broken(UpstreamError):
    """The other side is gone. `detail` is for the log and `mcpgate check`; it may contain the server's last words."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail or message


class Inbox(Protocol):
    """The receiver of incoming messages."""

    def on_message(self, message: Message, status: int | None = None, beside: int | None = None) -> bool:
        """`status`: the HTTP status of a refusal that came as a message. `beside`: the request on whose response
        stream it came. Whether it answered a request that somebody waits for."""
        ...

    def on_failure(self, request_id: int | None, error: UpstreamError) -> None:
        """A request failed in transit, or its answer is unusable. None if the request could not be identified."""
        ...

    def on_close(self, reason: Broken) -> None: ...


class Transport(Protocol):
    """An open channel to one upstream."""

    @property
    def session(self) -> str | None:
        """The session that requests belong to; None if the transport has no sessions."""
        ...

    @property
    def hangs_up(self) -> bool:
        """Whether giving up a request by itself tells the server; otherwise a message is needed."""
        ...

    async def send(self, message: Message, headers: Mapping[str, str] | None = None) -> None:
        """Send a request or a notification; waits while the other side does not read. The outcome of a request goes
        to the inbox. Raises UpstreamError when the other side is gone."""
        ...

    def offer(self, message: Message) -> None:
        """Send an unimportant message, or drop it if the other side does not keep up."""
        ...

    def give_up(self, request_id: int) -> None:
        """No one is waiting for this answer any more: close at once whatever is still open for it."""
        ...

    async def settled(self) -> None:
        """Wait until unsolicited messages of the server can be received, if they ever can."""
        ...


class Pace:
    """Limits how fast a server may send what nobody asked for. Two leaky buckets, one of messages and one of bytes:
    what does not fit is not read until there is room, so that a flood is the sender's problem."""

    MESSAGES_A_SECOND, MESSAGES_AT_ONCE = 5000.0, 10_000.0
    BYTES_A_SECOND, BYTES_AT_ONCE = 8.0 * _MIB, 32.0 * _MIB

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._at = clock, clock()
        self._messages = self._bytes = 0.0

    def spend(self, size: int, messages: int = 1) -> float:
        """Count what arrived. Returns the seconds to wait before reading on."""
        now = self._clock()
        passed, self._at = now - self._at, now
        self._messages = max(0.0, self._messages - passed * self.MESSAGES_A_SECOND) + messages
        self._bytes = max(0.0, self._bytes - passed * self.BYTES_A_SECOND) + size
        return max(
            (self._messages - self.MESSAGES_AT_ONCE) / self.MESSAGES_A_SECOND,
            (self._bytes - self.BYTES_AT_ONCE) / self.BYTES_A_SECOND,
            0.0,
        )


def deliver(data: bytes, inbox: Inbox, answers: int | None = None) -> bool:
    """Parse one message and pass it on. A message that cannot be parsed fails the call it answers, and only that
    one. `answers`: the request that an answer in it belongs to, whatever id it carries. Returns whether any of it
    was asked for."""
    data = data.removeprefix(_BOM)
    try:
        message = jsontext.loads(data, "replace")
    except ValueError as error:
        if answers is None and b'"jsonrpc"' not in data[:4096] and b'"jsonrpc"' not in data[-4096:]:
            log.debug("not JSON-RPC: %s", data[:200].decode("utf-8", "replace"))
            return False
        report_unreadable(inbox, data[:4096], data[-4096:], f"its answer is not valid JSON: {error}", answers)
        return answers is not None
    asked = False
    for one in message if isinstance(message, list) else (message,):
        if isinstance(one, dict):
            if answers is not None and "method" not in one and ("result" in one or "error" in one):
                one["id"] = answers
            asked = inbox.on_message(one, beside=answers) or asked
    return asked


_ID_FIRST = re.compile(rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*"?(\d{1,18})"?\s*[,}]')
_ID_LAST = re.compile(rb'"id"\s*:\s*"?(\d{1,18})"?\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')


def find_id(head: bytes, tail: bytes) -> int | None:
    """The id of a message that is too long or too damaged to parse. SDKs write it first or last; an id further
    inside belongs to something else."""
    found = _ID_FIRST.match(head) or _ID_LAST.search(tail[-200:])
    return int(found.group(1)) if found else None


def report_unreadable(inbox: Inbox, head: bytes, tail: bytes, reason: str, answers: int | None = None) -> None:
    """Fail the call that an unreadable message answers; a notification answers none."""
    id = find_id(head, tail)
    if id is None and b'"method"' in head[:300]:
        log.debug("a notification could not be read: %s", reason)
    else:
        inbox.on_failure(id if answers is None else answers, UpstreamError(reason))


def too_long(size: int, limit: int) -> str:
    """The error text for an answer over `max_message_mib`; `size` and `limit` are in bytes."""
    return f"an answer of {size / _MIB:,.0f} MiB is over the limit (max_message_mib={limit // _MIB})"


def encode(message: Message) -> bytes:
    """Raises UpstreamError for arguments that have no JSON form."""
    try:
        return jsontext.dumps(message)
    except ValueError as error:
        raise UpstreamError(f"the message cannot be written as JSON: {error}") from error
