"""Providers that die and clients that hang up, many at once: afterwards nothing is left of them, and what the ledger
says, what the counters say and what the provider has said is the same to the nano-dollar."""

import asyncio
import base64
import contextlib
import gzip
import json
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from backports import zstd

from tests.flows.governed import ADMIN, TRUSTED, Served, bearer, serving, wait_until, write_config

PRICE = {"input_usd_per_mtok": 3, "output_usd_per_mtok": 7}
USAGE = {"prompt_tokens": 1001, "completion_tokens": 53}
COST = Decimal("0.003374")
"""1,001 × $3 + 53 × $7, for a million."""
ASK = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 100}
LONG = 1_600_000
"""Bytes of the stream `long`."""


def event(text: str = "hello", **more: Any) -> bytes:
    chunk = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], **more}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


LAST = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
END = LAST + b"data: " + json.dumps({"choices": [], "usage": USAGE}).encode() + b"\n\ndata: [DONE]\n\n"
CHAT = {
    "id": "c1",
    "object": "chat.completion",
    "created": 1,
    "model": "good",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": USAGE,
}
OTHER_USAGE = {"input_tokens": 1001, "output_tokens": 53}
MESSAGE = {
    **{"id": "m1", "type": "message", "role": "assistant", "model": "good", "stop_reason": "end_turn"},
    **{"content": [{"type": "text", "text": "hi"}], "usage": OTHER_USAGE},
}
WHOLE = {
    "/chat/completions": CHAT,
    "/embeddings": {"object": "list", "data": [], "model": "good", "usage": USAGE},
    "/messages": MESSAGE,
    "/responses": {"id": "r1", "object": "response", "output": [], "usage": OTHER_USAGE},
}
"""What the provider answers, by the path."""
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def answer(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body)


GARBAGE = {
    "noise": b"\x00\xff" * 500,
    "html": answer(b"200 OK", b"<html>"),
    "half-json": answer(b"200 OK", b'{"choices": [{"message": '),
    "list": answer(b"200 OK", b"[1, 2"),
    "deep": answer(b"200 OK", b"[" * 100_000),
    "no-utf8": answer(b"200 OK", b'{"usage": "\xff\xfe"}'),
    "huge-head": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 50_000,
    "many-hints": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20_000,
    "bad-events": STREAM + chunk(b"data: {\n\ndata: [1]\n\ndata: \xff\n\nevent: x\n\n" + b"\r" * 1000) + chunk(b""),
    "bad-chunks": STREAM + chunk(event()) + b"zz\r\n",
    "nothing": b"",
}
"""Model → what the provider sends."""


@dataclass
class Far:
    """A provider in a thread of its own."""

    address: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    """Requests, by model."""
    told: int = 0
    """How often it has told USAGE."""
    open: set[asyncio.StreamWriter] = field(default_factory=set)
    go_on: threading.Event = field(default_factory=threading.Event)
    """Ends the answers that wait."""
    sizes: list[int] = field(default_factory=list)
    """Of the bodies."""

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(writer)
        try:
            number = 0
            while await self._answer(reader, writer, number):
                number += 1
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        """Whether the connection goes on."""
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        asked = json.loads(body)
        model = asked["model"]
        self.asked[model] += 1
        self.sizes.append(len(body))
        if model in GARBAGE:
            writer.write(GARBAGE[model])
            await writer.drain()
            return False
        if model == "fickle" and number:
            return False  # it was kept open, and is closed when it is used again
        if model == "429":
            writer.write(answer(b"429 Too Many Requests\r\nretry-after: 0", b'{"error": {"message": "slow down"}}'))
        elif model == "silent":
            await self._wait(reader)
        elif not asked.get("stream"):
            self.told += 1
            path = head.split(b" ")[1].decode().removeprefix("/v1")
            writer.write(answer(b"200 OK", json.dumps(WHOLE[path]).encode()))
        else:
            return await self._stream(model, reader, writer)
        if model == "closing":
            await writer.drain()
            await asyncio.sleep(0.01)
            return False
        return True

    async def _stream(self, model: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(STREAM)
        if model == "dies":
            writer.write(chunk(event() * 5))
            await writer.drain()
            linger = writer.transport.get_extra_info("socket")
            linger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            writer.transport.abort()
            return False
        for _ in range(LONG // 20_000 if model == "long" else 5):
            writer.write(chunk(event("x" * 19_900) if model == "long" else event()))
            await writer.drain()
        if model == "waits":
            await self._wait(reader)
        self.told += 1
        writer.write(chunk(END) + chunk(b""))
        await writer.drain()
        return True

    async def _wait(self, reader: asyncio.StreamReader) -> None:
        """Until `go_on`. Raises ConnectionError when the gateway hangs up."""
        while not self.go_on.is_set():
            if reader.at_eof():
                raise ConnectionResetError
            await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def far() -> Iterator[Far]:
    provider, loop, over = Far(), asyncio.new_event_loop(), asyncio.Event()
    listens = threading.Event()

    async def listen() -> None:
        async with await asyncio.start_server(provider.connected, "127.0.0.1", 0, limit=2**18, backlog=2000) as server:
            provider.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            listens.set()
            await over.wait()
            provider.go_on.set()
            for writer in tuple(provider.open):
                writer.transport.abort()
            await asyncio.sleep(0.05)

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        thread = threading.Thread(target=runner.run, args=[listen()], daemon=True)
        thread.start()
        assert listens.wait(10)
        yield provider
        loop.call_soon_threadsafe(over.set)
        thread.join(10)


def settings(far: Far) -> dict[str, Any]:
    providers = {
        "far": {"type": "openai", "base_url": far.address, "api_key": "sk-far", "timeout_s": 20},
        "claude": {"type": "anthropic", "base_url": far.address, "api_key": "sk-far"},
    }
    models = {
        "safe": {"targets": [{"target": "far/fickle"}, {"target": "far/good"}]},
        "patient": {"targets": [{"target": "far/silent", "timeout_s": 0.3}, {"target": "far/good"}]},
        "stormy": {"targets": [{"target": "far/429", "retries": 1}, {"target": "far/good"}]},
    }
    admin = {**TRUSTED["admin"], "grants": {"tools": ["*"], "models": ["*"], "admin": True}}
    return {
        "governance": {"keys": {"admin": admin}},
        "llm": {"providers": providers, "models": models, "prices": {"*/*": PRICE}},
        "server": {"max_body_mib": 24, "max_connections": 2000, "max_connections_per_address": 2000},
    }


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, far: Far) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("holding-up")
    with serving(folder, write_config(folder, {}, **settings(far))) as running:
        assert post(running, "far/good", ADMIN).status_code == 200
        yield running


@pytest.fixture(autouse=True)
def fresh(far: Far) -> None:
    far.go_on.clear()
    far.asked.clear()
    far.sizes.clear()
    far.told = 0


def post(
    served: Served,
    model: str,
    key: str,
    path: str = "/v1/chat/completions",
    http: httpx2.Client | None = None,
    **more: Any,
) -> httpx2.Response:
    with contextlib.nullcontext(http) if http is not None else httpx2.Client(base_url=served.address) as client:
        body = {"model": model, **ASK, **more}
        return client.post(path, json=body, headers=bearer(key), timeout=60)


@dataclass
class Key:
    """A key with a budget and a limit of requests at once, so that whatever is not settled shows."""

    served: Served
    id: str
    secret: str
    budget: Decimal = Decimal(1000)

    def standings(self) -> dict[str, dict[str, Any]]:
        found = self.served.admin("GET", f"keys/{self.id}/standing").json()["standings"]
        return {one["measure"]: one for one in found}

    @property
    def paid(self) -> Decimal:
        """All that it has cost, once nothing is under way. The ledger and the counters say the same."""
        wait_until(lambda: all(Decimal(one["reserved"]) == 0 for one in self.standings().values()))
        spent = Decimal(self.standings()["cost"]["spent"])
        rows = self.served.usage("provider", key=self.id)
        assert sum((Decimal(row["cost_usd"] or 0) for row in rows), Decimal(0)) == spent
        return spent


def new_key(served: Served) -> Key:
    spec = {"grants": {"models": ["*"]}, "budget": {"limit_usd": 1000}, "rate_limits": [{"concurrency": 2000}]}
    created = served.admin("POST", "keys", spec)
    assert created.status_code == 201, created.text
    return Key(served, created.json()["key"]["id"], created.json()["secret"])


@pytest.fixture
def key(served: Served, far: Far) -> Iterator[Key]:
    """Afterwards the gateway has no more open than before, but for idle connections to the provider."""
    process = psutil.Process(served.process.pid)
    wait_until(lambda: not busy(process))
    yield new_key(served)
    wait_until(lambda: not busy(process))
    wait_until(lambda: len(far.open) <= 100)
    assert post(served, "far/good", ADMIN).status_code == 200


def busy(process: psutil.Process) -> int:
    """Connections of clients that the gateway still has, but for those of the tests' own client."""
    listening = {one.laddr.port for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN}
    own = [one for one in process.net_connections("tcp") if one.laddr.port in listening and one.raddr]
    return max(0, len(own) - 1)


def at_once(count: int, what: Any) -> list[Any]:
    with ThreadPoolExecutor(min(count, 64)) as pool:
        return [*pool.map(what, range(count))]


# --- Providers


def test_a_provider_that_dies_within_its_streams_is_told_to_each_client(served: Served, key: Key) -> None:
    answers = at_once(100, lambda _: post(served, "far/dies", key.secret, stream=True))
    for one in answers:
        assert one.status_code == 200 and one.text.count("broke off") == 1 and "hello" in one.text
    nanos = key.paid * 10**9
    assert nanos > 0 and nanos % 100 == 0, "what was delivered is paid, by each the same"


@pytest.mark.parametrize("model", GARBAGE)
@pytest.mark.parametrize("stream", [True, False])
def test_garbage_is_answered_and_settled(model: str, stream: bool, served: Served, key: Key) -> None:
    for one in at_once(10, lambda _: post(served, f"far/{model}", key.secret, stream=stream)):
        assert one.status_code in (200, 502), one.text
        assert one.status_code == 502 or one.content
    assert key.paid <= 10 * Decimal("0.001"), "at most what was reserved"


def test_a_storm_of_refusals_costs_nothing_and_holds_nothing(served: Served, far: Far, key: Key) -> None:
    answers = at_once(300, lambda _: post(served, "far/429", key.secret))
    assert {one.status_code for one in answers} == {429} and far.asked["429"] == 300
    assert key.paid == 0
    answers = at_once(100, lambda _: post(served, "stormy", key.secret))
    assert {one.status_code for one in answers} == {200} and far.asked["429"] == 500
    assert key.paid == 100 * COST == far.told * COST


def test_a_provider_that_never_answers_is_given_up_and_its_input_is_paid(served: Served, key: Key) -> None:
    answers = at_once(30, lambda _: post(served, "patient", key.secret))
    assert {one.headers["x-mcpgate-attempts"] for one in answers} == {"2"}
    rows = {row["outcome"]: row for row in served.usage("outcome,model", key=key.id) if row["model"]}
    assert key.paid > 30 * COST and len(rows) == 2, "a timeout may have cost the provider something"


def test_connections_that_the_provider_closes_between_requests_are_not_noticed(
    served: Served, far: Far, key: Key
) -> None:
    with httpx2.Client(base_url=served.address) as http:
        for pause_s in [0.0, 0.005, 0.01, 0.015, 0.02, 0.03] * 10:
            time.sleep(pause_s)  # not for anything to happen: the provider closes 10 ms after its answer
            answer = post(served, "far/closing", key.secret, http=http)
            assert answer.status_code in (200, 502), answer.text
            assert answer.status_code == 200 or "connection was closed" in answer.text
    assert key.paid == far.told * COST


def test_a_connection_that_is_closed_when_it_is_used_again_costs_nothing_and_falls_back(
    served: Served, far: Far, key: Key
) -> None:
    with httpx2.Client(base_url=served.address) as http:
        for _ in range(20):
            assert post(served, "safe", key.secret, http=http).status_code == 200
    assert far.asked["good"] > 0, "the provider did close connections"
    assert key.paid == 20 * COST == far.told * COST


# --- Clients


def request(served: Served, key: Key, model: str, **more: Any) -> tuple[bytes, bytes]:
    """The head and the body of a request."""
    body = json.dumps({"model": model, **ASK, **more}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key.secret}\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode(), body


@contextlib.contextmanager
def connection(served: Served, receive_buffer: int = 0) -> Iterator[socket.socket]:
    with socket.socket() as opened:
        if receive_buffer:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        opened.settimeout(60)
        opened.connect(("127.0.0.1", int(served.address.rpartition(":")[2])))
        yield opened


def read_until(opened: socket.socket, text: bytes) -> bytes:
    found = b""
    while text not in found:
        piece = opened.recv(65536)
        assert piece, found[-500:]
        found += piece
    return found


@pytest.mark.parametrize("size", [10, 1_000_000])
@pytest.mark.parametrize("stage", ["head", "body", "asked", "waiting", "streaming", "done"])
def test_clients_that_hang_up_leave_nothing(stage: str, size: int, served: Served, far: Far, key: Key) -> None:
    model = {"waiting": "silent", "streaming": "waits", "done": "good"}.get(stage, "silent")
    asked = [{"role": "user", "content": "x" * size}]
    head, body = request(served, key, f"far/{model}", stream=stage in ("streaming", "done"), messages=asked)
    count = 50 if size < 1000 else 10

    def hang_up(_: int) -> None:
        with connection(served) as opened:
            match stage:
                case "head":
                    opened.sendall(head[:-10])
                case "body":
                    opened.sendall(head + body[:-1])
                case "asked":
                    opened.sendall(head + body)
                case "waiting":
                    opened.sendall(head + body)
                    together.wait(30)
                    wait_until(lambda: far.asked["silent"] >= count)
                case "streaming":
                    opened.sendall(head + body)
                    read_until(opened, b"hello")
                case "done":
                    opened.sendall(head + body)
                    read_until(opened, b"[DONE]")

    together = threading.Barrier(count)
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(hang_up, range(count)))
    began = time.monotonic()
    paid = key.paid
    assert time.monotonic() - began < 15, "the provider may be silent for 20 s"
    if stage in ("head", "body"):
        assert paid == 0 and not far.asked
    elif stage == "done":
        assert paid == count * COST == far.told * COST
    else:
        assert paid == 0 if not far.asked else 0 < paid < count * (COST + Decimal(size) / 500_000)


def test_hundreds_of_clients_that_read_slowly_hold_little_and_get_all(served: Served, far: Far, key: Key) -> None:
    count = 200
    process = psutil.Process(served.process.pid)
    before = process.memory_info().rss
    head, body = request(served, key, "far/long", stream=True)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connection(served, 32768)) for _ in range(count)]
        for client in clients:
            client.sendall(head + body)
        wait_until(lambda: far.asked["long"] == count)
        quiet = 0
        cpu = process.cpu_times().user
        while quiet < 5:  # until nothing moves: everybody waits for the clients
            time.sleep(0.2)
            now = process.cpu_times().user
            quiet, cpu = (quiet + 1 if now - cpu < 0.05 else 0), now
        held = process.memory_info().rss - before
        assert held < count * 600_000, f"{held / count:,.0f} bytes for each"
        with ThreadPoolExecutor(20) as pool:
            sizes = [*pool.map(lambda client: len(read_until(client, b"0\r\n\r\n")), clients)]
    assert min(sizes) > 0.99 * LONG
    assert key.paid == count * COST == far.told * COST


def test_what_was_asked_is_not_kept_while_the_answer_is_streamed(served: Served, far: Far, key: Key) -> None:
    """One key may hold 64 MiB of bodies: ten of 6 MB, counted as they are."""
    count, process = 12, psutil.Process(served.process.pid)
    long = [{"role": "user", "content": "x" * 6_000_000}]
    head, body = request(served, key, "far/waits", stream=True, messages=long)
    before = process.memory_info().rss
    with contextlib.ExitStack() as stack:
        for number in range(count):
            client = stack.enter_context(connection(served))
            client.sendall(head + body)
            assert b" 200 OK" in read_until(client, b"hello")
            assert far.asked["waits"] == number + 1
        assert process.memory_info().rss - before < 70_000_000
    wait_until(lambda: len(far.open) <= 100)
    assert key.paid > 0


PIXELS = base64.b64encode(bytes(range(256)) * 58_000).decode()
"""Of an image: nearly 20 MB."""
AS_CHAT = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXELS}"}}
AS_MESSAGES = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXELS}}
AS_RESPONSES = {"type": "input_image", "image_url": f"data:image/png;base64,{PIXELS}"}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [AS_CHAT]}]}),
        ("/v1/messages", {"max_tokens": 100, "messages": [{"role": "user", "content": [AS_MESSAGES]}]}),
        ("/v1/responses", {"input": [{"role": "user", "content": [AS_RESPONSES]}]}),
        ("/v1/embeddings", {"input": PIXELS}),
    ],
)
@pytest.mark.parametrize("provider", ["far", "claude"])
def test_twenty_megabytes_are_carried_in_every_format(
    path: str, fields: dict[str, Any], provider: str, served: Served, far: Far, key: Key
) -> None:
    body = json.dumps({"model": f"{provider}/good", **fields}).encode()
    assert len(body) > 19_500_000
    began = time.monotonic()
    with httpx2.Client(base_url=served.address, timeout=60) as http:
        answer = http.post(path, content=body, headers=bearer(key.secret))
    if provider == "claude" and path == "/v1/embeddings":
        assert answer.status_code == 400 and not far.asked
    else:
        assert answer.status_code == 200, answer.text[:500]
        assert len(far.sizes) == 1 and far.sizes[0] > 19_500_000
        assert time.monotonic() - began < 10
    assert key.paid == (COST if far.asked else 0)


@pytest.mark.parametrize("path", WHOLE)
@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_requests_may_be_compressed(path: str, coding: str, served: Served, far: Far, key: Key) -> None:
    text = "Say hello. " * 100_000
    said = (
        {"input": text} if path in ("/responses", "/embeddings") else {"messages": [{"role": "user", "content": text}]}
    )
    name = "claude/good" if path == "/messages" else "far/good"
    body = json.dumps({"model": name, **({"max_tokens": 9} if path == "/messages" else {}), **said}).encode()
    packed = gzip.compress(body) if coding == "gzip" else zstd.compress(body)
    with httpx2.Client(base_url=served.address) as http:
        answer = http.post(f"/v1{path}", content=packed, headers={**bearer(key.secret), "content-encoding": coding})
        assert answer.status_code == 200, answer.text
        assert far.sizes == [len(body) - len(name) + len("good")], "the provider gets it as it was before"
        other = http.post(f"/v1{path}", content=packed, headers={**bearer(key.secret), "content-encoding": "lzma"})
        assert other.status_code == 415 and "gzip, deflate, br, zstd" in other.json()["error"]["message"]
    assert key.paid == COST


# --- The end


def test_a_gateway_that_is_told_to_stop_lets_streams_end_and_settles_all(tmp_path: Path, far: Far) -> None:
    with serving(tmp_path, write_config(tmp_path, {}, **settings(far))) as served:
        key, other = new_key(served), new_key(served)
        with ThreadPoolExecutor(40) as pool:
            streams = [pool.submit(post, served, "far/waits", key.secret, stream=True) for _ in range(20)]
            wait_until(lambda: far.asked["waits"] == 20)
            served.process.send_signal(signal.SIGTERM)

            def is_refused() -> bool:
                try:
                    return post(served, "far/good", other.secret).status_code == 503
                except httpx2.TransportError:
                    return True

            wait_until(is_refused)
            assert not any(stream.done() for stream in streams), "they may go on"
            far.go_on.set()
            for stream in streams:
                assert stream.result(20).text.count("[DONE]") == 1
        served.process.wait(20)
    with serving(tmp_path, tmp_path / "mcpgate.yaml") as again:
        key.served = again
        assert key.paid == 20 * COST
