"""Servers over bare sockets, which write what they are told to, and the client to them."""

import asyncio
import datetime
import ipaddress
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mcpgate.providers.http1 import Pool, Response
from tests.conftest import until

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class Server:
    """A listening socket. Each connection is closed when its handler returns."""

    port: int = 0
    connections: int = 0
    """So far."""
    lost: int = 0
    """Those whose handlers have returned."""
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def end(self) -> None:
        """Close every connection, whatever its handler does."""
        for task in tuple(self.tasks):
            task.cancel()


@asynccontextmanager
async def serving(handle: Handle, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        task = asyncio.current_task()
        assert task is not None
        server.tasks.add(task)
        try:
            await handle(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            server.tasks.discard(task)
            server.lost += 1
            writer.close()

    listener = await asyncio.start_server(connected, host, 0, ssl=tls, limit=2**18, backlog=2000)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        server.end()
        await listener.wait_closed()


async def asked(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The head and the body of one request. Raises IncompleteReadError when the client has hung up."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head, await reader.readexactly(length)


def always(*answers: bytes, close: bool = False, waits: asyncio.Event | None = None) -> Handle:
    """Answers every request of a connection with the same pieces. `close`: then ends the connection. `waits`: what is
    waited for before the last piece."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await asked(reader)
            for number, piece in enumerate(answers):
                if waits is not None and number == len(answers) - 1:
                    await waits.wait()
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if close:
                return

    return handle


async def hung_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A handler that answers nothing, until the client has hung up."""
    await reader.read()


@asynccontextmanager
async def pool_to(
    server: Server, scheme: str = "http", host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Pool]:
    """A client; at the end nothing of it is left."""
    before, tasks = descriptors(), len(asyncio.all_tasks())
    pool = Pool("far", f"{scheme}://{host}:{server.port}/v1", 5, tls)
    try:
        yield pool
    finally:
        await pool.aclose()
        assert not pool.open
        server.end()
        await until(lambda: len(asyncio.all_tasks()) <= tasks and descriptors() <= before)


async def post(pool: Pool, body: bytes = b"{}", limit_s: float = 10, silence_s: float = 10) -> Response:
    return await pool.send("POST", "/chat/completions", {"authorization": "Bearer x"}, body, limit_s, silence_s)


async def whole(response: Response) -> bytes:
    """The body of an answer, which is closed."""
    try:
        return b"".join([piece async for piece in response.chunks()])
    finally:
        await response.aclose()


async def ask(pool: Pool, body: bytes = b"{}", **limits: float) -> tuple[int, bytes]:
    response = await post(pool, body, **limits)
    return response.status, await whole(response)


def descriptors() -> int:
    """How many files and sockets this process has open."""
    return len(os.listdir("/proc/self/fd"))


def certificate(folder: Path, *names: str) -> tuple[Path, Path]:
    """The files of a certificate that vouches for itself, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a provider of the tests")])
    now = datetime.datetime.now(datetime.UTC)
    addresses = [x509.IPAddress(ipaddress.ip_address(name)) for name in names]
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(pem))
    no_password = serialization.NoEncryption()
    paths[1].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, no_password))
    return paths
