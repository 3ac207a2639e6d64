"""A client that costs little: keep-alive connections that send the same request again and again. A process of its own.

    python -m benchmarks.llm_overhead.load

Reads a `Load` as one line of JSON, writes a `Measured` as one line of JSON, until its input ends.
"""

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Load:
    host: str
    port: int
    path: str
    headers: dict[str, str]
    body: str
    connections: int
    patience_s: float = 60.0
    """How long answers may take beyond `seconds`; those that are missing then have failed."""
    seconds: float = 0.0
    """How long to go on; 0: one request on each connection."""
    stream: bool = False
    holds: tuple[str, ...] = ()
    """What every good answer has in it."""
    events: int = 0
    """How many events a good stream has at least."""


@dataclass
class Measured:
    requests: int = 0
    failed: int = 0
    seconds: float = 0.0
    said: str = ""
    """The head of the first bad answer."""
    latencies_us: list[float] = field(default_factory=list)
    first_us: list[float] = field(default_factory=list)
    """Until the first byte of the body."""


class _Connection(asyncio.Protocol):
    """One connection, which asks again when it has been answered."""

    def __init__(self, load: Load, request: bytes, until: float, measured: Measured) -> None:
        self._load, self._request, self._until, self._measured = load, request, until, measured
        self._holds = [text.encode() for text in load.holds]
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._buffer = bytearray()
        self._began = 0.0
        self._is_first = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self) -> None:
        self._buffer.clear()
        self._is_first = True
        self._began = time.perf_counter()
        self._transport.write(self._request)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self._end(False, str(error or "the connection was closed"))
            self.done.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        if self._is_first and len(self._buffer) > head + 4:
            self._is_first = False
            self._measured.first_us.append((time.perf_counter() - self._began) * 1e6)
        if not self._is_whole(head):
            return
        is_good = self._is_good()
        self._end(is_good, bytes(self._buffer[:300]).decode("latin-1"))
        if time.perf_counter() < self._until and is_good:
            self.ask()
        else:
            self.done.set_result(None)
            self._transport.close()

    def _is_good(self) -> bool:
        buffer = self._buffer
        if not buffer.startswith(b"HTTP/1.1 200") or not all(text in buffer for text in self._holds):
            return False
        return buffer.count(b"data:") >= max(self._load.events, 1) if self._load.stream else b"data:" not in buffer

    def _is_whole(self, head: int) -> bool:
        text = bytes(self._buffer[:head]).lower()
        at = text.find(b"\r\ncontent-length:")
        if at >= 0:
            return len(self._buffer) >= head + 4 + int(text[at + 17 :].split(b"\r\n", 1)[0])
        return self._buffer.endswith(b"0\r\n\r\n")

    def _end(self, is_good: bool, said: str) -> None:
        self._measured.requests += 1
        self._measured.latencies_us.append((time.perf_counter() - self._began) * 1e6)
        if not is_good:
            self._measured.failed += 1
            self._measured.said = self._measured.said or said


async def run(load: Load) -> Measured:
    measured = Measured()
    body = load.body.encode()
    headers = {"host": f"{load.host}:{load.port}", "content-type": "application/json", **load.headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"POST {load.path} HTTP/1.1\r\n{head}content-length: {len(body)}\r\n\r\n".encode() + body
    loop = asyncio.get_running_loop()
    until = time.perf_counter() + load.seconds if load.seconds else 0.0
    try:
        connections = [
            (await loop.create_connection(lambda: _Connection(load, request, until, measured), load.host, load.port))[1]
            for _ in range(load.connections)
        ]
    except OSError as error:
        return Measured(requests=load.connections, failed=load.connections, said=str(error))
    began = time.perf_counter()
    for connection in connections:
        connection.ask()
    _, late = await asyncio.wait(
        [connection.done for connection in connections], timeout=load.seconds + load.patience_s
    )
    measured.seconds = time.perf_counter() - began
    if late:
        measured.requests += len(late)
        measured.failed += len(late)
        measured.said = measured.said or f"{len(late)} answers were missing {load.patience_s:.0f} s after the end"
    return measured


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(asdict(asyncio.run(run(Load(**json.loads(line)))))), flush=True)
