"""Bodies that are passed on to a provider while they come, over either transport."""

from collections.abc import AsyncIterator

import pytest

from mcpgate.api.http.exchange import Disconnected
from mcpgate.llm.provider import Unreachable, Upload
from mcpgate.providers.http1 import Pool
from mcpgate.providers.transport import Transport, _Httpx
from tests.model_provider import ModelProvider

pytestmark = pytest.mark.anyio
BEGIN = b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
FILE = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
END = b"\r\n--b--\r\n"
HEADERS = {"content-type": "multipart/form-data; boundary=b", "authorization": "Bearer k"}


@pytest.fixture(params=["own", "httpx"])
async def transport(
    anyio_backend: str, request: pytest.FixtureRequest, provider: ModelProvider
) -> AsyncIterator[Transport]:
    make = Pool("it", provider.address, 5, None) if request.param == "own" else _Httpx("it", provider.address, 5)
    yield make
    await make.aclose()


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_an_upload_arrives_whole_and_its_connection_is_used_again(
    transport: Transport, provider: ModelProvider
) -> None:
    content = b"\x00\xff" * 2_000_000
    for _ in range(2):
        parts = [BEGIN, FILE, *(content[at : at + 50_000] for at in range(0, len(content), 50_000)), END]
        upload = Upload(sum(map(len, parts)), pieces(*parts))
        response = await transport.send("POST", "/files", HEADERS, upload, 10, 10)
        assert response.status == 200 and b"".join([chunk async for chunk in response.chunks()])
        await response.aclose()
    assert [kept for _, kept in provider.kept.files.values()] == [content] * 2
    if isinstance(transport, Pool):
        assert len(transport.open) == 1
    provider.kept.files.clear()


async def test_an_upload_that_breaks_off_is_no_file(transport: Transport, provider: ModelProvider) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield BEGIN + FILE
        raise Disconnected

    with pytest.raises(Disconnected):
        await transport.send("POST", "/files", HEADERS, Upload(1000, broken()), 10, 10)
    with pytest.raises(Unreachable):
        await transport.send("POST", "/files", HEADERS, Upload(1000, pieces(BEGIN)), 10, 10)
    assert not provider.kept.files
    if isinstance(transport, Pool):
        assert not transport._idle
