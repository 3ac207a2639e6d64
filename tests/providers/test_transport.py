"""How a provider is reached: directly, or through the proxies of the environment."""

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mcpgate.config.llm import ProviderConfig
from mcpgate.errors import RateLimited, UpstreamTimeout
from mcpgate.llm.provider import Call, Unreachable
from mcpgate.providers import http
from mcpgate.providers.http import HttpProvider
from mcpgate.providers.http1 import Pool
from mcpgate.providers.transport import transport_to
from mcpgate.upstream import bodies
from tests.conftest import until
from tests.providers.servers import OK, always, asked, descriptors, serving, whole

pytestmark = pytest.mark.anyio

STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True)
async def limit(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """No test waits for ever, and none goes through a proxy unless it says so."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    async with asyncio.timeout(30):
        yield


async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers what is sent through it by itself, and says what it was asked for."""
    while True:
        head, _ = await asked(reader)
        line = head.split(b"\r\n")[0]
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(line), line))


async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Refuses tunnels."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 407 Who are you\r\ncontent-length: 0\r\n\r\n")


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
async def test_a_proxy_of_the_environment_is_gone_through(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(proxy) as server, serving(always(OK)) as far:
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.port}")
        transport = transport_to("far", f"http://127.0.0.1:{far.port}/v1", 5)
        response = await transport.send("POST", "/responses", {"x": "y"}, b"{}", 5, 5)
        expected = f"POST http://127.0.0.1:{far.port}/v1/responses HTTP/1.1".encode()
        assert response.status == 200 and await whole(response) == expected
        assert server.connections == 1 and not far.connections
        await transport.aclose()


@pytest.mark.parametrize("exempt", ["127.0.0.1", "*", "127.0.0.1:PORT"])
async def test_what_no_proxy_names_is_reached_directly(exempt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(proxy) as server, serving(always(OK)) as far:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.port}")
        monkeypatch.setenv("NO_PROXY", exempt.replace("PORT", str(far.port)))
        transport = transport_to("far", f"http://127.0.0.1:{far.port}/v1", 5)
        assert await whole(await transport.send("POST", "/x", {}, b"{}", 5, 5)) == b"ok" and not server.connections
        await transport.aclose()


async def test_a_proxy_for_https_alone_is_not_asked_for_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    transport = transport_to("far", "http://127.0.0.1:2/v1", 5)
    assert isinstance(transport, Pool)
    await transport.aclose()


@pytest.mark.parametrize("handle", [tunnel, None])
async def test_a_proxy_that_does_not_let_through_is_unreachable(handle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(handle or tunnel) as server:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.port if handle else 1}")
        transport = transport_to("far", "https://far.invalid/v1", 5)
        with pytest.raises(Unreachable):
            await transport.send("POST", "/x", {}, b"{}", 5, 5)
        await transport.aclose()


@pytest.mark.parametrize("through", [True, False])
@pytest.mark.parametrize(
    ("pieces", "limit_s", "silence_s", "said"),
    [
        ([b""], 0.4, 9, "did not answer within 0.4 s"),
        ([STREAM + b"2\r\nok\r\n", b""], 9, 0.4, "fell silent for 0.4 s"),
    ],
)
async def test_silence_has_the_same_limits_with_and_without_a_proxy(
    through: bool, pieces: list[bytes], limit_s: float, silence_s: float, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(always(*pieces, waits=asyncio.Event())) as server:
        if through:
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.port}")
        before = descriptors()
        transport = transport_to("far", f"http://127.0.0.1:{server.port}/v1", 0.2)
        with pytest.raises(UpstreamTimeout, match=said):
            await whole(await transport.send("POST", "/x", {}, b"{}", limit_s, silence_s))
        await transport.aclose()
        server.end()
        await until(lambda: descriptors() <= before)


async def test_an_answer_may_begin_later_than_its_parts_may_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        await asyncio.sleep(0.8)
        writer.write(OK)

    async with serving(late) as server:
        for name in ("NO_PROXY", "HTTP_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{server.port}")
            transport = transport_to("far", f"http://127.0.0.1:{server.port}/v1", 5)
            assert await whole(await transport.send("POST", "/x", {}, b"{}", 5, 0.2)) == b"ok"
            await transport.aclose()


async def test_who_is_trusted_can_be_said_by_the_environment(
    of_server: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, trusted = of_server
    async with serving(always(OK), tls=context) as server:
        for file in ("", str(trusted)):
            monkeypatch.setenv("SSL_CERT_FILE", file)
            bodies.tls.cache_clear()
            transport = transport_to("far", f"https://127.0.0.1:{server.port}/v1", 5)
            if file:
                assert await whole(await transport.send("POST", "/x", {}, b"{}", 5, 5)) == b"ok"
            else:
                with pytest.raises(Unreachable, match="certificate"):
                    await transport.send("POST", "/x", {}, b"{}", 5, 5)
            await transport.aclose()
    bodies.tls.cache_clear()


# --- Providers over it


def provider(port: int, **settings: Any) -> HttpProvider:
    given = {"type": "openai", "base_url": f"http://127.0.0.1:{port}/v1", "api_key": "sk-secret-of-the-tests"}
    return HttpProvider("far", ProviderConfig.model_validate({**given, **settings}))


CALL = Call("chat", b'{"model": "m"}', "m")


async def test_headers_of_the_settings_take_the_place_of_others_whatever_their_case() -> None:
    heads = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await asked(reader))[0].lower())
        writer.write(OK)

    async with serving(handle) as server:
        far = provider(server.port, headers={"Authorization": "Basic eA==", "Host": "inside", "X-Own": "1"})
        reply = await far.send(CALL)
        await reply.aclose()
        await far.aclose()
    (head,) = heads
    assert head.count(b"authorization: ") == head.count(b"host: ") == 1
    assert b"\r\nauthorization: basic ea==\r\n" in head and b"\r\nhost: inside\r\n" in head


@pytest.mark.parametrize("settings", [{"api_key": "sk-…"}, {"api_key": "a\r\nx: b"}, {"headers": {"x": "a\nb"}}])
async def test_a_key_that_cannot_be_sent_is_told_without_it(settings: dict[str, Any]) -> None:
    async with serving(always(OK)) as server:
        far = provider(server.port, **settings)
        with pytest.raises(Unreachable, match="settings of far cannot be sent$"):
            await far.send(CALL)
        assert "cannot be sent" in await far.probe() and not far.is_busy and not server.connections
        await far.aclose()


def zipped(*parts: bytes) -> bytes:
    body = b"".join(map(gzip.compress, parts))
    return b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


async def test_answers_that_are_compressed_though_nobody_asked_are_read() -> None:
    async with serving(always(zipped(b"hello ", b"world"))) as server:
        far = provider(server.port)
        reply = await far.send(CALL)
        assert await reply.read() == b"hello world"
        await reply.aclose()
        await far.aclose()


async def test_a_compressed_answer_that_unpacks_to_gigabytes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_LARGEST", 2**20)
    async with serving(always(zipped(bytes(2**26)))) as server:
        far = provider(server.port)
        reply = await far.send(CALL)
        with pytest.raises(Unreachable, match="is over 1,048,576 bytes"):
            await reply.read()
        await reply.aclose()
        assert not far.is_busy
        await far.aclose()


async def test_more_requests_than_allowed_at_once_are_refused_and_count_nothing() -> None:
    async with serving(always(b"", waits=asyncio.Event())) as server:
        far = provider(server.port, max_concurrency=3)
        waiting = [asyncio.ensure_future(far.send(CALL)) for _ in range(3)]
        await until(lambda: server.connections == 3)
        with pytest.raises(RateLimited):
            await far.send(CALL)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert not far.is_busy
        await far.aclose()
