"""The client that reaches providers, in front of servers that write what no server should."""

import asyncio
import contextlib
import ssl
import time
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mcpgate.errors import UpstreamTimeout
from mcpgate.llm.provider import Unreachable
from mcpgate.providers import http1
from tests.conftest import until
from tests.providers.servers import OK, always, ask, asked, hung_up, pool_to, post, serving, whole

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\n"
BIG = b"x" * 20_000_000


@pytest.fixture(autouse=True)
async def limit() -> AsyncIterator[None]:
    """No test waits for ever."""
    async with asyncio.timeout(30):
        yield


# --- Connections


async def test_one_connection_carries_one_request_after_another() -> None:
    async with serving(always(OK)) as server, pool_to(server) as pool:
        for _ in range(20):
            assert await ask(pool) == (200, b"ok")
        assert server.connections == 1 == len(pool.open)


async def test_a_thousand_requests_at_once_get_their_own_answers() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            _, body = await asked(reader)
            writer.write(HEAD + b"content-length: %d\r\n\r\n%s" % (len(body), body))

    async with serving(echo) as server, pool_to(server) as pool:
        for _ in range(2):
            bodies = [b'{"n": %d}' % number for number in range(1000)]
            answers = await asyncio.gather(*(ask(pool, body) for body in bodies))
            assert [body for _, body in answers] == bodies
        assert len(pool.open) <= 100, "no more are kept"


async def test_a_connection_that_the_server_has_closed_is_not_used_again() -> None:
    async with serving(always(OK, close=True)) as server, pool_to(server) as pool:
        for number in range(1, 4):
            assert await ask(pool) == (200, b"ok")
            await until(lambda number=number: server.lost == number)  # type: ignore[misc]
        assert server.connections == 3


async def test_a_connection_whose_end_has_not_been_read_yet_is_not_used_again() -> None:
    closed = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(OK)
        await writer.drain()
        await closed.wait()

    async with serving(handle) as server, pool_to(server) as pool:
        assert await ask(pool) == (200, b"ok")
        (connection,) = pool.open
        # The kernel knows that it is closed; the event loop is not let to look.
        connection._transport.pause_reading()  # type: ignore[union-attr]
        closed.set()
        await until(lambda: server.lost == 1 and not connection.is_usable)
        connection._transport.resume_reading()  # type: ignore[union-attr]
        assert await ask(pool) == (200, b"ok") and server.connections == 2


async def test_a_connection_that_is_closed_just_when_it_is_used_again_is_told_as_unreachable() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(OK)
        await asked(reader)

    async with serving(handle) as server, pool_to(server) as pool:
        assert await ask(pool) == (200, b"ok")
        with pytest.raises(Unreachable, match="did not come: the connection was closed"):
            await ask(pool)


async def test_a_server_that_closes_what_it_has_just_accepted_is_unreachable() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with serving(handle) as server, pool_to(server) as pool:
        for _ in range(20):
            with pytest.raises(Unreachable):
                await ask(pool)


@pytest.mark.parametrize("close", [b"connection: close\r\n", b"Connection: keep-alive, Close\r\n"])
async def test_a_connection_that_the_server_will_close_is_not_kept(close: bytes) -> None:
    async with serving(always(HEAD + close + b"content-length: 2\r\n\r\nok")) as server, pool_to(server) as pool:
        assert await ask(pool) == (200, b"ok")
        await until(lambda: not pool.open)


async def test_idle_connections_are_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "_IDLE_S", 0.2)
    async with serving(always(OK)) as server, pool_to(server) as pool:
        await asyncio.gather(*(ask(pool) for _ in range(10)))
        await until(lambda: not pool.open and server.lost == server.connections)


async def test_closing_ends_what_is_under_way() -> None:
    async with serving(always(HEAD + b"\r\nhalf", b"more", waits=asyncio.Event())) as server, pool_to(server) as pool:
        response = await post(pool)
        reading = asyncio.ensure_future(whole(response))
        await pool.aclose()
        with pytest.raises(Unreachable, match="broke off"):
            await reading
        with pytest.raises(Unreachable):
            await post(pool)


async def test_a_host_that_cannot_be_reached_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("127.0.0.1:1", "no-such-host.invalid", "a..b", "x" * 70 + ".invalid"):
        pool = http1.Pool("far", f"http://{host}/v1", 5, None)
        with pytest.raises(Unreachable, match="far cannot be reached"):
            await ask(pool)
        await pool.aclose()


async def test_connecting_has_its_own_limit() -> None:
    async with serving(hung_up) as server:
        context = ssl.create_default_context()
        pool = http1.Pool("far", f"https://127.0.0.1:{server.port}", 0.2, context)  # no handshake is answered
        began = time.monotonic()
        with pytest.raises(Unreachable, match="connecting took too long"):
            await ask(pool)
        assert time.monotonic() - began < 2
        await pool.aclose()


# --- Heads


async def test_heads_and_bodies_may_come_byte_by_byte() -> None:
    answer = b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n" + OK
    pieces = [bytes([byte]) for byte in answer]
    async with serving(always(*pieces)) as server, pool_to(server) as pool:
        assert await ask(pool) == await ask(pool) == (200, b"ok")
        assert server.connections == 1


async def test_the_head_that_counts_is_the_last_one() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nx-early: 1\r\n\r\n"
    final = b"HTTP/1.1 429 Slow down\r\nX-One: a\r\nx-one: b\r\nRetry-After: 3\r\ncontent-length: 2\r\n\r\nno"
    async with serving(always(interim + final)) as server, pool_to(server) as pool:
        response = await post(pool)
        assert response.status == 429 and await whole(response) == b"no"
        assert dict(response.headers) == {"x-one": "a, b", "retry-after": "3", "content-length": "2"}
        assert await ask(pool) == (429, b"no") and server.connections == 1


FIELD = b"x-filler: " + b"f" * 1000 + b"\r\n"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (HEAD + FIELD * 70 + b"content-length: 2\r\n\r\nok", "is over 65,536 bytes"),
        (HEAD + FIELD * 70, "is over 65,536 bytes"),
        (HEAD + b"x: " + b"y" * 70_000, "is over 65,536 bytes"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3000, "is over 65,536 bytes"),
        (b"HTTP/1.1 200 " + b"K" * 70_000, "is over 65,536 bytes"),
        (b"<html>this is no answer</html>\r\n\r\n", "not HTTP/1.1"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "not HTTP/1.1"),
        (b"HTTP/2 200\r\n\r\n", "not HTTP/1.1"),
        (HEAD + b"content-length: -1\r\n\r\n", "not HTTP/1.1"),
        (HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\nok", "not HTTP/1.1"),
        (HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\nok", "not HTTP/1.1"),
        (HEAD + b"a\x00b: c\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\nxx", "another protocol"),
        (b"", "did not come"),
    ],
)
async def test_a_head_that_is_none_is_told_at_once(answer: bytes, said: str) -> None:
    async with serving(always(answer, close=True)) as server, pool_to(server) as pool:
        with pytest.raises(Unreachable, match=said):
            await ask(pool)
        assert not pool._idle


async def test_headers_by_the_ten_thousand_hold_nobody_up() -> None:
    answer = HEAD + b"a:b\r\n" * 12_000 + b"content-length: 2\r\n\r\nok"
    async with serving(always(answer)) as server, pool_to(server) as pool:
        began = time.process_time()
        assert await ask(pool) == (200, b"ok")
        assert time.process_time() - began < 0.5


async def test_a_header_with_a_line_break_is_not_sent() -> None:
    async with serving(always(OK)) as server, pool_to(server) as pool:
        for name, value in (("x", "1\r\ny: 2"), ("x", "1\ny: 2"), ("x", "1\ry: 2"), ("x\r\ny", "1"), ("x", "…")):
            with pytest.raises(ValueError):
                await pool.send("POST", "/", {name: value}, b"", 5, 5)
        for path in ("/\r\nx: y", "/ HTTP/1.1\nx: y"):
            with pytest.raises(ValueError):
                await pool.send("POST", path, {}, b"", 5, 5)
        assert not server.connections and await ask(pool) == (200, b"ok")


async def test_the_host_is_the_address_unless_a_header_says_otherwise() -> None:
    heads = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            heads.append((await asked(reader))[0])
            writer.write(OK)

    async with serving(handle) as server, pool_to(server) as pool:
        await ask(pool)
        await whole(await pool.send("POST", "/x?y=z", {"host": "inside.example"}, b"", 5, 5))
        assert heads[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n" % server.port)
        assert heads[1] == b"POST /v1/x?y=z HTTP/1.1\r\nhost: inside.example\r\ncontent-length: 0\r\n\r\n"


# --- Bodies


CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "body", "kept"),
    [
        (CHUNKED + b'2;a=b;c="d"\r\nok\r\n0\r\nx-trailer: 1\r\nx-other: 2\r\n\r\n', b"ok", True),
        (CHUNKED + b"0\r\n\r\n", b"", True),
        (HEAD + b"content-length: 0\r\n\r\n", b"", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", b"ok", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok", b"ok", True),
        (HEAD + b"content-length: 2\r\n\r\nok garbage", b"ok", False),
        (HEAD + b"content-length: 2\r\nconnection: close\r\n\r\nok garbage", b"ok", False),
        (OK + OK, b"ok", False),
        (OK + b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", b"ok", False),
        (CHUNKED + b"2\r\nok\r\n0\r\n\r\n" + b"HT", b"ok", False),
    ],
)
async def test_where_an_answer_ends_is_known_and_nothing_after_it_is_anybodys_answer(
    answer: bytes, body: bytes, kept: bool
) -> None:
    async with serving(always(answer)) as server, pool_to(server) as pool:
        assert (await ask(pool))[1] == body
        assert bool(pool._idle) == kept
        assert (await ask(pool))[1] == body and server.connections == (1 if kept else 2)


async def test_what_comes_between_two_requests_ends_the_connection() -> None:
    late = asyncio.Event()
    async with serving(always(OK, b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", waits=late)) as server:
        async with pool_to(server) as pool:
            assert await ask(pool) == (200, b"ok") and len(pool._idle) == 1
            late.set()
            await until(lambda: not pool.open)
            assert not pool._idle


@pytest.mark.parametrize("head", [HEAD + b"\r\n", b"HTTP/1.0 200 OK\r\n\r\n", HEAD + b"connection: close\r\n\r\n"])
async def test_an_answer_without_a_length_ends_with_its_connection(head: bytes) -> None:
    async with serving(always(head, b"one", b"two", close=True)) as server, pool_to(server) as pool:
        assert await ask(pool) == (200, b"onetwo")
        await until(lambda: not pool.open)


@pytest.mark.parametrize(
    "answer",
    [HEAD + b"content-length: 10\r\n\r\nshort", CHUNKED + b"5\r\nshort\r\n", CHUNKED + b"ffff\r\nshort"],
)
async def test_an_answer_that_is_shorter_than_it_says_is_delivered_and_then_broken(answer: bytes) -> None:
    async with serving(always(answer, close=True)) as server, pool_to(server) as pool:
        response, got = await post(pool), b""
        with pytest.raises(Unreachable, match="broke off"):
            async for piece in response.chunks():
                got += piece
        assert got == b"short"


async def test_an_answer_without_a_length_whose_connection_is_reset_is_broken() -> None:
    read = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(HEAD + b"\r\nhalf")
        await read.wait()
        writer.transport.get_extra_info("socket").setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER: RST, not FIN
        writer.transport.abort()

    async with serving(handle) as server, pool_to(server) as pool:
        response = await post(pool)
        with pytest.raises(Unreachable, match="broke off"):
            async for piece in response.chunks():
                assert piece == b"half"
                read.set()


@pytest.mark.parametrize("bad", [b"zz\r\n", b"2\r\nokXX", b"fffffffffffffffff\r\n"])
async def test_a_body_with_broken_chunks_is_broken(bad: bytes) -> None:
    async with serving(always(CHUNKED + b"5\r\nhello\r\n", bad)) as server, pool_to(server) as pool:
        response = await post(pool)
        with pytest.raises(Unreachable):
            await whole(response)
        await until(lambda: not pool.open)


@pytest.mark.parametrize("keeps", [True, False])
async def test_an_answer_before_the_whole_request_was_sent_is_the_answer(keeps: bool) -> None:
    go_on = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too large\r\ncontent-length: 2\r\n\r\nno")
        if keeps:
            await go_on.wait()

    async with serving(handle) as server, pool_to(server) as pool:
        assert await ask(pool, BIG) == (413, b"no")
        assert not pool._idle, "what is left of the request is not sent to anybody"
        go_on.set()
        await until(lambda: not pool.open)


async def test_twenty_megabytes_go_and_come() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            _, body = await asked(reader)
            writer.write(HEAD + b"content-length: %d\r\n\r\n" % len(body))
            writer.write(body)
            await writer.drain()

    async with serving(echo) as server, pool_to(server) as pool:
        assert (await ask(pool, BIG))[1] == BIG
        assert (await ask(pool, BIG))[1] == BIG and server.connections == 1


@pytest.mark.parametrize("chunk", [b"20000\r\n" + b"x" * 0x20000 + b"\r\n", b"2\r\nxy\r\n" * 10_000])
async def test_what_nobody_reads_is_not_kept(chunk: bytes) -> None:
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await asked(reader)
        writer.transport.set_write_buffer_limits(0)
        writer.write(CHUNKED)
        for _ in range(600):
            writer.write(chunk)
            await writer.drain()
            sent += 1
        writer.write(b"0\r\n\r\n")

    async with serving(endless) as server, pool_to(server) as pool:
        tracemalloc.start()
        try:
            response = await post(pool, silence_s=0.3)
            (connection,) = pool.open
            await until(lambda: connection._is_paused)
            seen = -1
            while seen != sent:  # until the server cannot write any more either
                seen = sent
                await asyncio.sleep(0.5)  # longer than the server may be silent: it is not the server that is slow
            assert sent < 600 and tracemalloc.get_traced_memory()[0] < 3_000_000
        finally:
            tracemalloc.stop()
        got = 0
        async for piece in response.chunks():
            got += len(piece)
        assert got == 600 * chunk.count(b"x") + 600 * chunk.count(b"y") and sent == 600


# --- Time


@pytest.mark.parametrize("pieces", [[], [b"HTTP/1.1 200 OK\r\n"], [b"HTTP/1.1 103 Hints\r\n\r\n"]])
async def test_an_answer_that_does_not_begin_is_given_up_in_time(pieces: list[bytes]) -> None:
    async with serving(always(*pieces, b"", waits=asyncio.Event())) as server, pool_to(server) as pool:
        began = time.monotonic()
        with pytest.raises(UpstreamTimeout, match="did not answer within 0.5 s"):
            await ask(pool, limit_s=0.5)
        assert 0.5 <= time.monotonic() - began < 1.5
        await until(lambda: not pool.open)


async def test_a_head_that_drips_is_given_up_in_time() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(HEAD)
        while not writer.is_closing():
            writer.write(b"x: y\r\n")
            await asyncio.sleep(0.02)

    async with serving(drip) as server, pool_to(server) as pool:
        with pytest.raises(UpstreamTimeout, match="did not answer within 0.5 s"):
            await ask(pool, limit_s=0.5)


@pytest.mark.parametrize("head", [CHUNKED + b"2\r\nok\r\n", HEAD + b"content-length: 9\r\n\r\nok", HEAD + b"\r\nok"])
async def test_a_body_that_falls_silent_is_given_up_in_time(head: bytes) -> None:
    async with serving(always(head, b"", waits=asyncio.Event())) as server, pool_to(server) as pool:
        response = await post(pool, silence_s=0.5)
        began = time.monotonic()
        with pytest.raises(UpstreamTimeout, match="fell silent for 0.5 s"):
            await whole(response)
        assert 0.4 <= time.monotonic() - began < 1.5
        await until(lambda: not pool.open)


async def test_trailers_without_end_are_given_up_in_time() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(CHUNKED + b"2\r\nok\r\n0\r\n")
        while not writer.is_closing():
            writer.write(b"x: y\r\n" * 100)
            await writer.drain()
            await asyncio.sleep(0.001)

    async with serving(drip) as server, pool_to(server) as pool:
        with pytest.raises((UpstreamTimeout, Unreachable)):
            await ask(pool, silence_s=0.5)


async def test_each_part_of_a_body_has_its_own_time() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(CHUNKED)
        for _ in range(6):
            await asyncio.sleep(0.2)
            writer.write(b"2\r\nok\r\n")
        writer.write(b"0\r\n\r\n")

    async with serving(slow) as server, pool_to(server) as pool:
        assert await ask(pool, limit_s=0.5, silence_s=0.5) == (200, b"ok" * 6)


# --- Cancelling


@pytest.mark.parametrize("stage", ["connecting", "head", "body", "writing"])
async def test_who_stops_waiting_leaves_nothing(stage: str) -> None:
    """pool_to looks for connections, tasks and descriptors."""
    arrived = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        if stage == "writing":
            await asyncio.sleep(60)
        await asked(reader)
        if stage == "body":
            writer.write(CHUNKED + b"2\r\nok\r\n")
        await reader.read()

    async with serving(handle) as server, pool_to(server) as pool:
        for _ in range(10):
            arrived.clear()
            task = asyncio.ensure_future(ask(pool, BIG if stage == "writing" else b"{}"))
            if stage != "connecting":
                await arrived.wait()
            for _ in range(3):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await until(lambda: not pool.open)


async def test_who_stops_waiting_when_its_answer_is_there_leaves_the_connection_to_the_next() -> None:
    second = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(OK)
        await asked(reader)
        second.set()
        writer.write(OK)
        await reader.read()

    async with serving(handle) as server, pool_to(server) as pool:
        keep = pool.keep

        def kept(connection: http1._Connection) -> None:
            """The answer is whole; who waits for it has not been woken. Now another asks, and the first gives up."""
            keep(connection)
            nonlocal other
            other = asyncio.ensure_future(ask(pool))
            first.cancel()

        other: asyncio.Future[tuple[int, bytes]] | None = None
        pool.keep = kept  # type: ignore[method-assign]
        first = asyncio.ensure_future(post(pool))
        with contextlib.suppress(asyncio.CancelledError):
            await (await first).aclose()
        pool.keep = keep  # type: ignore[method-assign]
        assert other is not None and await other == (200, b"ok") and server.connections == 1


async def test_an_answer_that_is_closed_before_its_end_closes_its_connection() -> None:
    async with serving(always(CHUNKED + b"2\r\nok\r\n", b"", waits=asyncio.Event())) as server, pool_to(server) as pool:
        response = await post(pool)
        await response.aclose()
        await until(lambda: not pool.open)


async def test_an_answer_that_nobody_reads_but_that_has_come_keeps_its_connection() -> None:
    async with serving(always(OK)) as server, pool_to(server) as pool:
        response = await post(pool)
        await until(lambda: response.is_over)
        await response.aclose()
        assert await ask(pool) == (200, b"ok") and server.connections == 1


# --- TLS, IPv6


async def test_tls_is_spoken_with_who_is_trusted(of_server: tuple[ssl.SSLContext, Path]) -> None:
    context, trusted = of_server
    client = ssl.create_default_context(cafile=str(trusted))

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            _, body = await asked(reader)
            writer.write(HEAD + b"content-length: %d\r\n\r\n" % len(body))
            writer.write(body)
            await writer.drain()

    async with serving(echo, tls=context) as server, pool_to(server, "https", tls=client) as pool:
        for body in (b"{}", BIG, b"[]"):
            assert (await ask(pool, body))[1] == body
        assert server.connections == 1


async def test_a_stream_over_tls_that_nobody_reads_stands_still(of_server: tuple[ssl.SSLContext, Path]) -> None:
    context, trusted = of_server
    client = ssl.create_default_context(cafile=str(trusted))
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await asked(reader)
        writer.write(HEAD + b"\r\n")
        for _ in range(600):
            writer.write(b"x" * 2**17)
            await writer.drain()
            sent += 1

    async with serving(endless, tls=context) as server, pool_to(server, "https", tls=client) as pool:
        response = await post(pool)
        (connection,) = pool.open
        await until(lambda: connection._is_paused)
        seen = -1
        while seen != sent:
            seen = sent
            await asyncio.sleep(0.3)
        assert sent < 300
        assert len(await whole(response)) == 600 * 2**17


async def test_tls_is_not_spoken_with_who_is_not_trusted(of_server: tuple[ssl.SSLContext, Path]) -> None:
    context, _ = of_server
    async with serving(always(OK), tls=context) as server:
        async with pool_to(server, "https", tls=ssl.create_default_context()) as pool:
            with pytest.raises(Unreachable, match="certificate"):
                await ask(pool)
            assert not pool.open


async def test_plain_http_where_tls_is_expected_is_told() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        await reader.read()

    async with serving(handle) as server:
        async with pool_to(server, "https", tls=ssl.create_default_context()) as pool:
            with pytest.raises(Unreachable):
                await ask(pool)


async def test_ipv6_is_reached() -> None:
    heads = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await asked(reader))[0])
        writer.write(OK)

    async with serving(handle, "::1") as server, pool_to(server, host="[::1]") as pool:
        assert await ask(pool) == (200, b"ok")
        assert b"\r\nhost: [::1]:%d\r\n" % server.port in heads[0]
