"""The port under clients that send or read slowly, endlessly, or not at all, none of whom needs a key."""

import asyncio
import contextlib
import errno
import ipaddress
import socket
import time
from typing import Any

import pytest

from mcpgate.api.http.port import limits_of
from mcpgate.config.settings import ServerConfig
from tests.api.http.ports import Client, Opened, answer, echo, serving
from tests.conftest import until

pytestmark = pytest.mark.anyio
each_parser = pytest.mark.parametrize("http", ["httptools", "h11"])
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"


async def gone(client: Client) -> bytes:
    """What a connection got before it was closed."""
    return await client.rest()


def test_everything_of_uvicorn_and_httptools_that_is_relied_upon_is_there() -> None:
    """When this fails after an update, api/http/port.py and cycle.py have to be read again."""
    import httptools
    from uvicorn.protocols.http import h11_impl, httptools_impl

    callbacks = {"on_message_begin", "on_headers_complete", "on_body", "on_message_complete", "on_response_complete"}
    both = {"_unset_keepalive_if_required", "send_400_response", "connection_made", "connection_lost", "data_received"}
    assert callbacks | both <= set(dir(httptools_impl.HttpToolsProtocol))
    assert both | {"on_response_complete", "handle_events"} <= set(dir(h11_impl.H11Protocol))
    for name in ("cycle", "flow", "pipeline", "headers", "url", "parser", "transport", "client", "app"):
        assert name in httptools_impl.HttpToolsProtocol.__init__.__code__.co_names or name == "url"
    for impl in (httptools_impl, h11_impl):
        kept = set(impl.RequestResponseCycle.__init__.__code__.co_names)
        assert {"response_started", "response_complete", "disconnected", "more_body", "message_event"} <= kept
    kept = set(httptools_impl.RequestResponseCycle.__init__.__code__.co_names)
    assert {"chunked_encoding", "expected_content_length", "keep_alive", "waiting_for_100_continue"} <= kept
    assert {"_start_asgi_task", "_should_upgrade"} <= set(dir(httptools_impl.HttpToolsProtocol))
    assert {"read_paused", "write_paused"} <= set(httptools_impl.FlowControl.__init__.__code__.co_names)
    assert hasattr(httptools.HttpRequestParser, "set_dangerous_leniencies")


# --- heads


@each_parser
async def test_a_request_is_answered_and_its_connection_used_again(http: str) -> None:
    async with serving(http=http) as opened:
        client = await opened.connect()
        assert await client.get("/a") == (200, b"GET /a 0")
        await client.send(HEAD + b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000)
        assert await client.response() == (200, b"POST / 100000")
        await client.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-T: 1\r\n\r\n")
        assert await client.response() == (200, b"POST / 5")
        assert await client.get("/b") == (200, b"GET /b 0")


@each_parser
@pytest.mark.parametrize("kind", ["value", "names", "url", "many"])
async def test_a_head_without_end_is_refused_after_64_kib(http: str, kind: str) -> None:
    start = b"GET /" if kind == "url" else b"GET / HTTP/1.1\r\nHost: x\r\nX-A: "
    line = {
        "value": b"a" * 1000,
        "url": b"a" * 1000,
        "names": b"b\r\nX-%d: ",
        "many": b"b\r\n" + b"X: y\r\n" * 100 + b"Z: ",
    }
    async with serving(http=http) as opened:
        client = await opened.connect()
        sent = 0
        answered = asyncio.create_task(gone(client))
        await client.send(start)
        while not answered.done() and sent < 4_000_000:
            piece = line[kind] % sent if b"%d" in line[kind] else line[kind]
            try:
                await client.send(piece)
            except ConnectionError:
                break
            sent += len(piece)
            await asyncio.sleep(0)
        assert (await answered).startswith((b"HTTP/1.1 431", b"HTTP/1.1 400"))
        assert sent < 4_000_000 and (await (await opened.connect()).get())[0] == 200


async def test_a_head_of_exactly_the_limits_passes_and_one_beyond_does_not() -> None:
    async with serving(head_bytes=4096, url_bytes=500, headers=20) as opened:

        async def status(url: int = 10, headers: int = 1, padding: int = 0) -> int:
            client = await opened.connect()
            lines = b"".join(b"X-%d: y\r\n" % i for i in range(headers - 1))
            head = b"GET /" + b"u" * (url - 1) + b" HTTP/1.1\r\n" + lines + b"P: " + b"p" * padding + b"\r\n\r\n"
            await client.send(head)
            return int((await client.rest()).split()[1]) if padding < 0 else (await client.response())[0]

        assert [await status(url=500), await status(url=501)] == [200, 414]
        assert [await status(headers=20), await status(headers=21)] == [200, 431]
        frame = len(b"GET /" + b"u" * 9 + b" HTTP/1.1\r\nP: \r\n\r\n")
        assert [await status(padding=4096 - frame), await status(padding=4097 - frame)] == [200, 431]


async def test_a_long_body_is_not_counted_to_the_head_of_the_next_request() -> None:
    async with serving(head_bytes=2048) as opened:
        client = await opened.connect()
        for _ in range(3):
            await client.send(HEAD + b"Content-Length: 60000\r\n\r\n" + b"x" * 60_000 + HEAD + b"A: " + b"y" * 1900)
            assert await client.response() == (200, b"POST / 60000")
            await client.send(b"\r\nContent-Length: 0\r\n\r\n")
            assert await client.response() == (200, b"POST / 0")


@each_parser
async def test_a_silent_connection_and_half_a_head_are_closed_in_time(http: str) -> None:
    async with serving(http=http, head_s=0.2) as opened:
        silent, half, drip = [await opened.connect() for _ in range(3)]
        await half.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ")

        async def send_slowly() -> None:
            for _ in range(1000):
                await drip.send(b"\r\n" if http == "httptools" else b"G")
                await asyncio.sleep(0.02)

        task = asyncio.create_task(send_slowly())
        assert await gone(silent) == b""
        assert (await gone(half)).startswith(b"HTTP/1.1 408") or http == "h11"
        await gone(drip)
        with pytest.raises(ConnectionError):
            await task


async def test_the_head_of_a_second_request_has_to_come_in_time_too() -> None:
    async with serving(head_s=0.2) as opened:
        client = await opened.connect()
        await client.get()
        await client.send(b"GET / HT")
        assert (await gone(client)).startswith(b"HTTP/1.1 408")


@each_parser
async def test_a_connection_without_requests_is_closed_after_keep_alive(http: str) -> None:
    async with serving(http=http, keep_alive_s=0.2, head_s=60) as opened:
        client = await opened.connect()
        await client.get()
        assert await gone(client) == b""


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: x=y", b"a\nb", b"a\0b", b"a\x7fb"])
async def test_a_header_that_would_be_two_is_never_sent(value: bytes) -> None:
    async def split(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", value)]})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async with serving(split) as opened:
        client = await opened.connect()
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        said = await client.rest()
        assert said.startswith(b"HTTP/1.1 500") and b"x-a" not in said


@each_parser
async def test_every_response_says_when_it_was_made(http: str) -> None:
    async with serving(http=http) as opened:
        client = await opened.connect()
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"date: " in (await client.reader.readuntil(b"\r\n\r\n")).lower()


async def test_the_head_of_a_stream_does_not_wait_for_its_first_part() -> None:
    more = asyncio.Event()

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"b")]})
        await more.wait()
        for part in (b"abc", b""):
            await send({"type": "http.response.body", "body": part, "more_body": bool(part)})

    async with serving(stream) as opened:
        client = await opened.connect()
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.reader.readuntil(b"\r\n\r\n")).endswith(b"transfer-encoding: chunked\r\n\r\n")
        more.set()
        assert await client.reader.readuntil(b"0\r\n\r\n") == b"3\r\nabc\r\n0\r\n\r\n"


# --- bodies


@each_parser
async def test_a_body_that_stands_still_is_refused(http: str) -> None:
    async with serving(http=http, body_s=0.3) as opened:
        client = await opened.connect()
        await client.send(HEAD + b"Content-Length: 100\r\n\r\nabc")
        assert (await gone(client)).startswith(b"HTTP/1.1 408")


async def test_a_body_that_drips_is_refused_though_it_never_stands_still() -> None:
    async with serving(body_s=0.3, body_bytes=10_000) as opened:
        client = await opened.connect()
        await client.send(HEAD + b"Content-Length: 100000\r\n\r\n")
        answered = asyncio.create_task(gone(client))
        while not answered.done():
            try:
                await client.send(b"x")
            except ConnectionError:
                break
            await asyncio.sleep(0.01)
        assert (await answered).startswith(b"HTTP/1.1 408")


async def test_chunk_extensions_and_trailers_without_end_are_refused() -> None:
    async with serving() as opened:
        for start, piece in (
            (b"1;", b"e" * 4096),
            (b"1\r\na\r\n0\r\n", b"X-T: " + b"t" * 4000 + b"\r\n"),
            (b"0\r\nT: ", b"t" * 4096),
        ):
            client = await opened.connect()
            await client.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            answered = asyncio.create_task(gone(client))
            await client.send(start)
            for _ in range(2000):
                try:
                    await client.send(piece)
                except ConnectionError:
                    break
                if answered.done():
                    break
                await asyncio.sleep(0)
            assert (await answered).startswith((b"HTTP/1.1 400", b"")), start
            assert answered.done()


async def test_trailers_are_no_headers() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        seen.append([name for name, _ in scope["headers"]])
        await answer(send, b"ok")

    async with serving(app) as opened:
        client = await opened.connect()
        await client.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n")
        assert await client.response() == (200, b"ok")
        assert seen == [[b"host", b"transfer-encoding"]]


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"no", 413)


@each_parser
async def test_the_rest_of_a_refused_body_is_thrown_away_for_a_while_only(http: str) -> None:
    async with serving(refuse, http, linger_s=0.3) as opened:
        client = await opened.connect()
        await client.send(HEAD + b"Content-Length: 200000\r\n\r\n" + b"x" * 100_000)
        assert await client.response() == (413, b"no")
        await client.send(b"x" * 100_000)  # comes to its end: the connection goes on
        assert await client.get() == (413, b"no")
        await client.send(HEAD + b"Content-Length: 1000000\r\n\r\n")
        assert await client.response() == (413, b"no")
        assert await gone(client) == b""


@each_parser
@pytest.mark.parametrize("framing", [b"Content-Length: 64000000", b"Transfer-Encoding: chunked"])
async def test_of_a_long_refused_body_only_a_little_is_read_and_the_refusal_arrives(http: str, framing: bytes) -> None:
    async with serving(refuse, http, linger_s=0.5) as opened:
        client = await opened.connect()
        await client.send(HEAD + framing + b"\r\n\r\n")
        assert await client.response() == (413, b"no")
        (connection,) = opened.port.open
        client.writer.write(b"ffffff0\r\n" * (framing[0] == ord("T")) + b"x" * 60_000_000)
        assert await gone(client) == b""
        await until(lambda: not opened.port.open)
        assert 0 < connection._thrown < 1_500_000
        assert (await (await opened.connect()).get())[0] == 413


async def test_what_follows_a_refused_body_that_was_too_long_is_no_request() -> None:
    paths: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        paths.append(scope["path"])
        await answer(send, b"no", 413)

    async with serving(app, linger_s=0.3, discard_bytes=1000) as opened:
        client = await opened.connect()
        await client.send(HEAD + b"Content-Length: 5000\r\n\r\n")
        assert await client.response() == (413, b"no")
        await client.send(b"x" * 5000 + b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await gone(client) == b"" and paths == ["/"]


@each_parser
async def test_a_last_response_arrives_although_the_body_was_not_read(http: str) -> None:
    async with serving(refuse, http, linger_s=0.5) as opened:
        client = await opened.connect()
        body = b"x" * 3_000_000
        client.writer.write(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert (await client.rest()).endswith(b"\r\n\r\nno")


async def test_100_continue_is_sent_only_when_the_body_is_asked_for() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/no":
            await answer(send, b"no", 401)
        else:
            await echo(scope, receive, send)

    async with serving(app) as opened:
        client = await opened.connect()
        head = b"POST %s HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        await client.send(head % b"/no")
        assert await client.response() == (401, b"no")
        client = await opened.connect()
        await client.send(head % b"/yes")
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"abc")
        assert await client.response() == (200, b"POST /yes 3")


# --- clients that do not read


async def test_a_client_that_does_not_read_is_closed_and_its_request_told() -> None:
    told = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while (await asyncio.wait_for(receive(), 0.001))["type"] != "http.disconnect":
                pass
        except TimeoutError:
            pass
        for _ in range(100):
            await send({"type": "http.response.body", "body": b"x" * 1_000_000, "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        told.set()

    async with serving(app, write_s=0.3) as opened:
        client = await opened.connect(receive_buffer=4096)
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: opened.port.open)
        (connection,) = opened.port.open
        await until(lambda: connection.transport.get_write_buffer_size() > 0)
        assert connection.transport.get_write_buffer_size() < 2_100_000
        async with asyncio.timeout(10):
            await told.wait()
        await until(lambda: not opened.port.open)


async def test_what_a_closing_connection_has_not_sent_does_not_keep_it_open() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"x" * 20_000_000)

    async with serving(app, linger_s=0.3) as opened:
        client = await opened.connect(receive_buffer=4096)
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await until(lambda: opened.port.open)
        await until(lambda: not opened.port.open)


async def test_a_slow_reader_that_goes_on_reading_gets_all() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"x" * 3_000_000)

    async with serving(app, write_s=1.0) as opened:
        client = await opened.connect(receive_buffer=4096)
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        size = 0
        async with asyncio.timeout(30):
            while size < 3_000_000:
                size += len(await client.reader.read(100_000))
                await asyncio.sleep(0.02)
        await until(lambda: next(iter(opened.port.open)).transport.get_write_buffer_size() == 0)


# --- pipelining, upgrades, old versions, half-closed connections


@each_parser
async def test_requests_sent_at_once_are_answered_in_order(http: str) -> None:
    async with serving(http=http) as opened:
        client = await opened.connect()
        await client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % i for i in range(8)))
        assert [await client.response() for _ in range(8)] == [(200, b"GET /%d 0" % i) for i in range(8)]


async def test_requests_without_end_behind_one_that_is_slow_close_the_connection() -> None:
    held, told = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        held.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        told.set()

    async with serving(app) as opened:
        client = await opened.connect()
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
        assert await gone(client) == b""
        async with asyncio.timeout(5):
            await told.wait()  # uvicorn alone tells only the newest of the requests


async def test_a_request_with_another_behind_it_hears_that_its_client_is_gone() -> None:
    held, told = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        held.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        told.set()

    async with serving(app) as opened:
        client = await opened.connect()
        await client.send(b"GET /sse HTTP/1.1\r\nHost: x\r\n\r\n")
        await held.wait()
        await client.send(b"GET /2 HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: len(next(iter(opened.port.open))._cycles) == 2)
        client.writer.transport.abort()
        async with asyncio.timeout(5):
            await told.wait()


async def test_an_offered_upgrade_is_passed_over_and_the_connection_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """Java's HttpClient offers h2c with every first request, bodies included."""
    async with serving() as opened:
        client = await opened.connect()
        offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
        for _ in range(2):
            await client.send(HEAD + offer + b"Content-Length: 5\r\n\r\nhello")
            assert await client.response() == (200, b"POST / 5")
        await client.send(b"GET /w HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert await client.response() == (200, b"GET /w 0")
        assert await client.get("/n") == (200, b"GET /n 0")
    assert not caplog.records


@each_parser
async def test_http_1_0_gets_one_answer_and_the_end(http: str) -> None:
    async with serving(http=http) as opened:
        client = await opened.connect()
        await client.send(b"POST /x HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc")
        assert (await client.rest()).endswith(b"\r\n\r\nPOST /x 3")


async def test_a_half_closed_connection_ends() -> None:
    async with serving() as opened:
        for sent in (b"", b"GET / HT", HEAD + b"Content-Length: 9\r\n\r\nabc"):
            client = await opened.connect()
            await client.send(sent)
            client.writer.write_eof()
            await gone(client)
        await until(lambda: not opened.port.open)


# --- places


async def test_a_flood_of_silent_connections_gives_way_to_whoever_asks() -> None:
    async with serving(max_connections=20, max_connections_per_address=10, reserve=2) as opened:
        for _ in range(60):
            await opened.connect()
        assert await (await opened.connect()).get("/mcp") == (200, b"GET /mcp 0")
        await until(lambda: len(opened.port.places) <= 10)


async def test_many_addresses_get_no_more_than_all_places_and_new_ones_still_get_in() -> None:
    async with serving(max_connections=20, max_connections_per_address=10, reserve=2) as opened:
        for number in range(60):
            await opened.connect(f"127.0.1.{number + 1}")
        await until(lambda: len(opened.port.places) == 20)
        assert await (await opened.connect("127.0.2.1")).get("/mcp") == (200, b"GET /mcp 0")


async def test_when_all_places_are_busy_health_is_answered_and_the_rest_refused_at_once() -> None:
    held: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/hold":
            held.append(scope)
            while (await receive())["type"] != "http.disconnect":
                pass
        else:
            await echo(scope, receive, send)

    async def when_full(scope: Any, receive: Any, send: Any) -> None:
        await (echo(scope, receive, send) if scope["path"] == "/healthz" else answer(send, b"try again", 503))

    async with serving(app, when_full=when_full, max_connections=6, max_connections_per_address=3, reserve=2) as opened:
        for source in ("127.0.0.1", "127.0.0.2"):
            for _ in range(3):
                await (await opened.connect(source)).send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: len(held) == 6)
        for source in ("127.0.0.1", "127.0.0.3"):
            assert (await (await opened.connect(source)).get("/healthz")) == (200, b"GET /healthz 0")
            status, body = await (await opened.connect(source)).get("/mcp")
            assert status == 503 and b"try again" in body
        for _ in range(5):  # those that sit in the reserve give way too
            await opened.connect("127.0.0.4")
        assert (await (await opened.connect()).get("/healthz")) == (200, b"GET /healthz 0")


async def flow_without_end(scope: Any, receive: Any, send: Any) -> None:
    """Answers /flow for as long as somebody is there."""
    if scope["path"] != "/flow":
        await echo(scope, receive, send)
        return

    async def left() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    there = asyncio.create_task(left())
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while not there.done():
        await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
        await asyncio.sleep(0)


async def unread(opened: Opened, source: str) -> Client:
    """A client that asks for much and reads nothing, from the moment on when its answer does not go out any more."""
    before = set(opened.port.open)
    client = await opened.connect(source, receive_buffer=4096)
    await client.send(b"GET /flow HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: opened.port.open - before)
    (connection,) = opened.port.open - before
    await until(lambda: connection.flow.write_paused)
    return client


async def test_clients_that_do_not_read_hold_nobody_up_and_give_way_to_whoever_asks() -> None:
    limits = {"max_connections": 4, "max_connections_per_address": 4, "reserve": 0, "unread_s": 0.1}
    async with serving(flow_without_end, **limits) as opened:
        stuck = [await unread(opened, "127.0.0.1") for _ in range(2)]
        resting = [await opened.connect("127.0.0.1") for _ in range(2)]
        for client in resting:
            assert await client.get() == (200, b"GET / 0")
        await until(lambda: sum(connection.spare is not None for connection in opened.port.open) == 4)
        newcomers = [await opened.connect("127.0.0.1") for _ in range(2)]
        for client in [*newcomers, *resting]:
            assert await client.get() == (200, b"GET / 0")
        for client in stuck:
            await gone(client)
        assert len(opened.port.places) == 4


async def test_a_client_that_reads_does_not_give_way() -> None:
    async with serving(
        flow_without_end, max_connections=1, max_connections_per_address=1, reserve=0, unread_s=0.3
    ) as opened:
        client = await opened.connect()
        await client.send(b"GET /flow HTTP/1.1\r\nHost: x\r\n\r\n")
        until_s = time.monotonic() + 4 * opened.port.limits.unread_s
        while time.monotonic() < until_s:
            await client.reader.readexactly(500_000)
            assert (await gone(await opened.connect())).startswith(b"HTTP/1.1 503")


async def test_a_silent_connection_gives_way_before_one_that_rests_between_requests() -> None:
    async with serving(max_connections=3, max_connections_per_address=3, reserve=0) as opened:
        resting = await opened.connect()
        await resting.get()
        half = await opened.connect()
        await half.send(b"GET / HTTP/1.1\r\n")
        silent = await opened.connect()
        await until(lambda: len(opened.port.places) == 3)
        for _ in range(2):
            assert await (await opened.connect()).get() == (200, b"GET / 0")
        assert [await gone(client) for client in (half, silent)] == [b"", b""]
        assert await resting.get() == (200, b"GET / 0")


async def test_when_open_files_run_short_a_connection_is_taken_only_in_place_of_another() -> None:
    with socket.socket() as probe:
        number = probe.fileno()
    async with serving(flow_without_end, descriptors=number + 20, unread_s=60, reserve=2) as opened:
        busy = [await unread(opened, "127.0.0.1")]
        clients = [await opened.connect() for _ in range(40)]
        assert await clients[-1].get() == (200, b"GET / 0")
        assert 2 <= len(opened.port.places) <= 20
        with contextlib.ExitStack() as files:
            while files.enter_context(socket.socket()).fileno() < number + 60:  # whoever has them
                pass
            assert await (await opened.connect()).get() == (200, b"GET / 0")
            assert len(opened.port.places) <= 20
        busy[0].writer.transport.abort()


async def test_a_trusted_proxy_may_hold_every_place() -> None:
    networks = (ipaddress.ip_network("127.0.0.9"),)
    async with serving(
        trusted=lambda: networks, max_connections=12, max_connections_per_address=2, reserve=0
    ) as opened:
        clients = [await opened.connect("127.0.0.9") for _ in range(12)]
        assert [await client.get() for client in clients] == [(200, b"GET / 0")] * 12


async def test_running_out_of_descriptors_is_said_once_and_the_port_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as opened:
        idle = await opened.connect()
        await until(lambda: opened.port.open)
        loop = asyncio.get_running_loop()
        for _ in range(100):
            context = {
                "message": "socket.accept() out of system resource",
                "exception": OSError(errno.EMFILE, "too many"),
            }
            loop.call_exception_handler(context)
        assert await gone(idle) == b""
        assert await (await opened.connect()).get() == (200, b"GET / 0")
    said = [record.message for record in caplog.records]
    assert len(said) == 1 and "cannot take connections: too many" in said[0]


def test_the_number_of_connections_follows_from_the_limit_of_descriptors() -> None:
    assert limits_of(ServerConfig(), 65_536).max_connections == 4096
    assert limits_of(ServerConfig(), 1024).max_connections == 1024 - 128 - 16 - 16
    assert limits_of(ServerConfig(), 64).max_connections == 16
    given = limits_of(ServerConfig(max_connections=100, max_connections_per_address=7), 1024)
    assert (given.max_connections, given.max_connections_per_address) == (100, 7)
