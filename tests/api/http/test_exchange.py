"""Bodies and answers: refused before they are read, counted while they are held."""

import asyncio
import contextlib
import gzip
import http.client
import zlib
from pathlib import Path

import brotli
import pytest
from backports import zstd

from mcpgate.api.http.memory import Memory
from mcpgate.api.http.port import PortLimits
from tests.api.faces import faced, key
from tests.api.http.ports import Client
from tests.conftest import raw, until

pytestmark = pytest.mark.anyio
KEYS = {"require_key": True, "keys": {"bob": key("mg-bobsecret1"), "eve": key("mg-evesecret1")}}
MIB = 1024 * 1024
PACK = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstd.compress,
    "identity": bytes,
    "": bytes,
}
"""How a body is compressed, by its content-encoding."""


def head(length: int, key: str = "mg-bobsecret1", *more: str) -> bytes:
    lines = [
        "POST /mcp HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {key}",
        f"Content-Length: {length}",
        *more,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def test_a_body_that_is_too_long_by_its_own_account_is_not_read(tmp_path: Path) -> None:
    async with faced(tmp_path, server={"max_body_mib": 1}) as opened:
        client = await opened.connect()
        await client.send(head(2 * MIB, "x", "Expect: 100-continue"))
        status, body = await client.response()
        assert status == 401 or status == 413  # and no 100 before it
        client = await opened.connect()
        await client.send(
            b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n"
        )
        status, body = await client.response()
        assert status == 413 and b"server.max_body_mib" in body


async def test_a_chunked_body_without_end_is_refused_at_its_limit(tmp_path: Path) -> None:
    async with faced(tmp_path, server={"max_body_mib": 1}) as opened:
        client = await opened.connect()
        await client.send(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        answered = asyncio.create_task(client.response())
        with contextlib.suppress(ConnectionError):  # the answer may come while the last of it waits to be read
            while not answered.done():
                await client.send(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        assert (await answered)[0] == 413


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "X-GZIP", "identity", ""])
async def test_compressed_bodies_are_read(coding: str, tmp_path: Path) -> None:
    body = b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"filler": "%s"}}' % (b"x" * 500_000)
    packed = PACK[coding.lower()](body)
    async with faced(tmp_path) as opened:
        answer = await opened.post(packed, **{"content-encoding": coding})
        assert answer.status_code == 200 and answer.json()["result"] == {}


@pytest.mark.parametrize("coding", ["lzma", "gzip, gzip", "compress"])
async def test_a_body_that_is_compressed_in_other_ways_is_refused_with_415(coding: str, tmp_path: Path) -> None:
    async with faced(tmp_path) as opened:
        answer = await opened.post(b"x", **{"content-encoding": coding})
        assert answer.status_code == 415 and "or as gzip, deflate, br, zstd" in answer.text


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
async def test_a_compressed_body_is_bounded_by_what_it_is_unpacked(coding: str, tmp_path: Path) -> None:
    bomb, broken = PACK[coding](b" " * 50_000_000), PACK[coding](b"[1]" * 9000)[:-40] + b"x" * 200
    async with faced(tmp_path, server={"max_body_mib": 2}) as opened:
        assert (await opened.post(bomb, **{"content-encoding": coding})).status_code == 413
        assert (await opened.post(broken, **{"content-encoding": coding})).status_code == 400
        assert opened.server._memory.in_all == 0


async def test_what_is_unpacked_is_counted_with_all_that_is_held(tmp_path: Path) -> None:
    ping = b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"filler": "%s"}}' % (b"x" * 3_000_000)
    packed = PACK["zstd"](ping)
    async with faced(tmp_path, server={"max_body_mib": 4, "max_body_mib_in_all": 4}) as opened:
        opened.server._memory.take("somebody else", 2_000_000)
        answer = await opened.post(packed, **{"content-encoding": "zstd"})
        assert answer.status_code == 503 and opened.server._memory.in_all == 2_000_000
        opened.server._memory.give("somebody else", 2_000_000)
        assert (await opened.post(packed, **{"content-encoding": "zstd"})).status_code == 200


async def test_clients_that_send_all_before_they_read_still_learn_why_they_were_refused(tmp_path: Path) -> None:
    async with faced(tmp_path, server={"max_body_mib": 1}, limits=PortLimits(linger_s=0.5)) as opened:
        assert (await opened.post(b" " * 1_500_000)).status_code == 413
        connection = http.client.HTTPConnection("127.0.0.1", opened.number, timeout=10)

        def send() -> int:
            with contextlib.suppress(ConnectionError):  # as urllib3 does
                connection.request("POST", "/mcp", b" " * 30_000_000)
            return connection.getresponse().status

        assert await asyncio.to_thread(send) == 413


async def test_without_a_key_no_body_is_read(tmp_path: Path) -> None:
    async with faced(tmp_path, governance=KEYS) as opened:
        client = await opened.connect()
        await client.send(head(10 * MIB, "mg-nobody1234", "Expect: 100-continue"))
        assert (await client.response())[0] == 401


async def test_bodies_that_are_being_read_are_bounded_for_each_key_and_in_all(tmp_path: Path) -> None:
    server = {"max_body_mib": 1, "max_body_mib_in_all": 4}
    async with faced(tmp_path, governance=KEYS, server=server) as opened:

        async def begin(secret: str) -> Client:
            client = await opened.connect()
            await client.send(head(MIB, secret) + b" " * (MIB - 1))
            return client

        memory: Memory = opened.server._memory
        held = await begin("mg-bobsecret1")
        await until(lambda: memory.held("bob") == MIB - 1)
        refused = await begin("mg-bobsecret1")
        status, body = await refused.response()
        assert status == 429 and b"server.max_body_mib_in_all" in body
        other = await begin("mg-evesecret1")
        await until(lambda: memory.held("eve") == MIB - 1)
        for client in (held, other):
            await client.send(b"1")
            assert (await client.response())[0] == 400  # 1 is no message, but it has been read
        await until(lambda: memory.in_all == 0)
        assert (await opened.rpc("ping", key="mg-bobsecret1")).status_code == 200


async def test_a_body_counts_with_what_it_becomes_when_it_is_decoded(tmp_path: Path) -> None:
    server = {"max_body_mib": 8, "max_body_mib_in_all": 32}
    async with faced(tmp_path, {"raw": raw(expose="direct")}, governance=KEYS, server=server) as opened:
        memory: Memory = opened.server._memory
        many = await opened.post(b"[" + b"0," * 1_000_001 + b"0]", "mg-evesecret1")
        assert many.status_code == 400 and b"more than 1,000,000 values" in many.content
        junk = b"[" + b'"a",' * 200_000 + b"1]"
        ask = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"raw__hang","arguments":{},"junk":%s}}'
        held = await opened.connect()
        await held.send(head(len(ask % junk)) + ask % junk)
        await until(lambda: memory.held("bob") > 20_000_000)
        refused = await opened.post(ask % junk, "mg-bobsecret1")
        assert refused.status_code == 429 and b"server.max_body_mib_in_all" in refused.content
        text = b'"' + b"a,b," * 400_000 + b'"'  # one value, whatever is in it
        assert (await opened.post(ask.replace(b"raw__hang", b"list_tools") % text, "mg-evesecret1")).status_code == 200
        held.writer.transport.abort()
        await until(lambda: memory.in_all == 0)


async def test_a_body_whose_sender_is_gone_is_forgotten(tmp_path: Path) -> None:
    async with faced(tmp_path, limits=PortLimits(body_s=0.3)) as opened:
        memory: Memory = opened.server._memory
        gone, stopped = await opened.connect(), await opened.connect()
        for client in (gone, stopped):
            await client.send(
                b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n" + b" " * 800_000
            )
        await until(lambda: memory.in_all == 1_600_000)
        gone.writer.transport.abort()
        assert (await stopped.rest()).startswith(b"HTTP/1.1 408")
        await until(lambda: memory.in_all == 0)


async def test_answers_that_nobody_reads_do_not_pile_up(tmp_path: Path) -> None:
    servers = {"raw": raw(expose="direct")}
    limits = PortLimits(write_s=0.5)
    async with faced(tmp_path, servers, governance=KEYS, server={"max_body_mib_in_all": 16}, limits=limits) as opened:
        memory: Memory = opened.server._memory
        ask = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"raw__big","arguments":{"mib":9}}}'
        clients = []
        for _ in range(4):
            client = await opened.connect(receive_buffer=4096)
            await client.send(head(len(ask)) + ask)
            clients.append(client)
        await until(lambda: memory.held("bob") > 2_000_000)
        assert memory.held("bob") < 10_000_000  # one of the four, for one longer than a share may pass alone
        await until(lambda: memory.in_all == 0)  # their connections have been closed


async def test_a_slow_reader_of_a_long_answer_gives_way_to_another_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcpgate.api.http.memory.PATIENCE_S", 0.5)
    servers = {"raw": raw(expose="direct")}
    async with faced(tmp_path, servers, governance=KEYS, server={"max_body_mib_in_all": 16}) as opened:
        ask = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"raw__big","arguments":{"mib":9}}}'
        slow = await opened.connect(receive_buffer=4096)
        await slow.send(head(len(ask)) + ask)
        await until(lambda: opened.server._memory.held("bob") > 9_000_000)
        quick = await opened.connect()
        await quick.send(head(len(ask), "mg-evesecret1") + ask)
        status, body = await quick.response()
        assert status == 200 and len(body) > 9_000_000
        assert len(await slow.rest()) < 9_000_000
        await until(lambda: opened.server._memory.in_all == 0)


def test_memory_lets_one_long_thing_through_where_nothing_else_is() -> None:
    memory = Memory(100, 25)
    assert memory.lacks("a", 60) is None
    memory.take("a", 60)
    assert memory.lacks("a", 1) == "each" and memory.lacks("b", 25) is None and memory.lacks("b", 50) == "total"
    assert memory.lacks("a", 30, whole=True) is None
    memory.give("a", 60)
    assert memory.in_all == 0 and memory.held("a") == 0


async def test_streams_need_http_1_1_and_requests_do_not(tmp_path: Path) -> None:
    async with faced(tmp_path) as opened:
        client = await opened.connect()
        await client.send(b"GET /sse HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert b"proxy_http_version" in await client.rest()
        client = await opened.connect()
        ask = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
        fields = b"Host: localhost\r\nAccept: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(ask)
        await client.send(b"POST /mcp HTTP/1.0\r\n" + fields + ask)
        assert (await client.rest()).endswith(b'{"jsonrpc":"2.0","id":1,"result":{}}')
