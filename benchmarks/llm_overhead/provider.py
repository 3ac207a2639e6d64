"""A provider of models that costs next to nothing: it answers every request with the same bytes. A process of its own.

    python -m benchmarks.llm_overhead.provider

Prints its port. Speaks Chat Completions and Messages. A stream is 50 events at once; with the model `paced`, one event
every 20 ms.
"""

import asyncio
import json
import re
import sys
from collections.abc import Iterable

EVENTS = 50
PACE_S = 0.02
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream": ?true')
_WORDS = "The quick brown fox jumps over the lazy dog and runs away into the dark and quiet wood. "


def _whole(body: object) -> bytes:
    text = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text)


def _chat() -> tuple[bytes, list[bytes]]:
    base = {"id": "chatcmpl-1", "created": 1, "model": "fixed", "service_tier": "default"}
    usage = {"prompt_tokens": 120, "completion_tokens": 90, "total_tokens": 210}
    message = {"role": "assistant", "content": _WORDS * 4, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    whole = {**base, "object": "chat.completion", "choices": [choice], "usage": usage}

    def chunk(delta: dict[str, str], finish: str | None = None) -> dict[str, object]:
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
        return {**base, "object": "chat.completion.chunk", "choices": choices, "usage": None}

    chunks = [chunk({"role": "assistant", "content": ""})]
    chunks += [chunk({"content": word + " "}) for word in (_WORDS * 4).split()[: EVENTS - 4]]
    chunks += [chunk({}, "stop"), {**base, "object": "chat.completion.chunk", "choices": [], "usage": usage}]
    events = [b"data: " + json.dumps(one).encode() + b"\n\n" for one in chunks]
    return _whole(whole), [*events, b"data: [DONE]\n\n"]


def _messages() -> tuple[bytes, list[bytes]]:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "fixed", "stop_sequence": None}
    usage = {"input_tokens": 120, "output_tokens": 90}
    whole = {**message, "content": [{"type": "text", "text": _WORDS * 4}], "stop_reason": "end_turn", "usage": usage}
    events: list[tuple[str, dict[str, object]]] = [
        ("message_start", {"message": {**message, "content": [], "stop_reason": None, "usage": usage}}),
        ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
    ]
    for word in (_WORDS * 4).split()[: EVENTS - 5]:
        events.append(("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": word + " "}}))
    end = {"delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 90}}
    events += [("content_block_stop", {"index": 0}), ("message_delta", end), ("message_stop", {})]
    wire = [f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode() for name, data in events]
    return _whole(whole), wire


def _chunked(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)


_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_END = b"0\r\n\r\n"


class _Format:
    def __init__(self, whole: bytes, events: Iterable[bytes]) -> None:
        self.whole, self.events = whole, [_chunked(event) for event in events]


_FORMATS = {b"/chat/completions": _Format(*_chat()), b"/messages": _Format(*_messages())}


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._buffer = bytearray()
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        for task in self._tasks:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end])
            length = _LENGTH.search(head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < whole:
                return
            body = bytes(self._buffer[end + 4 : whole])
            del self._buffer[:whole]
            self._answer(head.split(b" ", 2)[1], body)

    def _answer(self, path: bytes, body: bytes) -> None:
        format = next((one for name, one in _FORMATS.items() if path.split(b"?")[0].endswith(name)), None)
        if format is None:
            self._transport.write(_whole({"object": "list", "data": []}))
        elif not _STREAM.search(body):
            self._transport.write(format.whole)
        elif b'paced"' in body:
            task = asyncio.ensure_future(self._paced(format))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._transport.write(_STREAM_HEAD)
            for event in format.events:  # one write each, as a provider makes them
                self._transport.write(event)
            self._transport.write(_END)

    async def _paced(self, format: _Format) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._transport.write(_STREAM_HEAD)
        for number, event in enumerate(format.events):
            await asyncio.sleep(began + number * PACE_S - loop.time())
            self._transport.write(event)
        self._transport.write(_END)


async def _main() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(_main())
    except KeyboardInterrupt:
        sys.exit(0)
