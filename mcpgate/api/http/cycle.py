"""One request that httptools has parsed, and its response: uvicorn's, with a fraction of its work for each header. A
head is written together with what follows at once, for each write is a call of the kernel and a packet. Imports
httptools, which not every interpreter has."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

_PLAIN = bytes({*range(256)} - {*range(0x09), *range(0x0A, 0x20), 0x7F})
"""What a line of a head may have."""


class Cycle(RequestResponseCycle):
    def __init__(self, close: Callable[[], None], **uvicorns: Any) -> None:
        """`close`: the connection, after a response that is the last one."""
        super().__init__(**uvicorns)
        self._close = close
        self._head = b""
        """What is still to be written before the body."""

    async def send(self, message: Any) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if self.response_complete:
            raise RuntimeError(f"{message['type']} after the end of the response")
        if not self.response_started:
            self._start(message)
        else:
            self._write(message.get("body", b""), message.get("more_body", False))

    def _start(self, message: Mapping[str, Any]) -> None:
        status, headers = message["status"], [*self.default_headers, *message["headers"]]
        is_last = False
        lines, count = [STATUS_LINE[status]], len(headers) + 2
        for name, value in headers:
            if name == b"content-length":
                self.expected_content_length, self.chunked_encoding = int(value), False
            elif name == b"connection" and b"close" in value.lower():
                is_last = True
            lines += (name, b": ", value, b"\r\n")
        if is_last:
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close\r\n")
            count += 1
        if self.chunked_encoding is None and self.scope["method"] != "HEAD" and status not in (204, 304):
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked\r\n")
            count += 1
        lines.append(b"\r\n")
        head = b"".join(lines)
        if head.translate(None, _PLAIN) != b"\r\n" * count:
            raise RuntimeError("a header holds a line break or another control character")
        self.response_started, self.waiting_for_100_continue = True, False
        self._head = head
        if self.chunked_encoding:  # else the body follows now
            asyncio.get_running_loop().call_soon(self._flush)

    def _write(self, body: bytes, more: bool) -> None:
        if self.scope["method"] == "HEAD":
            self.expected_content_length, body = 0, b""
        elif self.chunked_encoding:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                body += b"0\r\n\r\n"
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("the body is longer than its content-length")
        if self._head:
            body, self._head = self._head + body, b""
        self.transport.write(body)
        if more:
            return
        if self.expected_content_length:
            raise RuntimeError("the body is shorter than its content-length")
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self._close()
        self.on_response()

    def _flush(self) -> None:
        if self._head and not self.transport.is_closing():
            self.transport.write(self._head)
            self._head = b""
