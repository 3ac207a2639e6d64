"""Fixtures of the servers."""

import ssl
from pathlib import Path

import pytest

from tests.providers.servers import certificate


@pytest.fixture
def of_server(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    """What a server speaks TLS with, and the file of those whom a client trusts."""
    path, key = certificate(tmp_path, "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key)
    return context, path
