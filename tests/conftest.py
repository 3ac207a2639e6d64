"""Fixtures: gateways in process and as processes, in front of real servers.

`raw_server.py` is a real MCP server over stdio whose purpose is to misbehave; servers from npm and PyPI come
from the benchmarks' installer (tests that need them skip where they are not installed, and fail in CI)."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from mcpgate.app import running
from mcpgate.config.settings import Config
from mcpgate.gateway import Gateway

if TYPE_CHECKING:
    from tests.model_provider import ModelProvider

RAW_SERVER = Path(__file__).with_name("raw_server.py")
FULL_SERVER = Path(__file__).with_name("full_server.py")
IN_CI = os.environ.get("CI") == "true"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keeps tests out of the user's data folder; the compiled sandbox is shared, because compiling takes a while."""
    folder = tmp_path_factory.mktemp("data")
    monkeypatch.setenv("XDG_DATA_HOME", str(folder))
    return folder


@pytest.fixture(scope="module")
def provider() -> "Iterator[ModelProvider]":
    from tests.model_provider import model_provider  # imports botocore, which takes a while

    with model_provider() as running:
        yield running


def raw(*arguments: str, **settings: Any) -> dict[str, Any]:
    """An `mcpServers` entry for the misbehaving server."""
    return {"command": sys.executable, "args": [str(RAW_SERVER), *arguments], **settings}


def full(name: str, era: str = "both", **settings: Any) -> dict[str, Any]:
    """An `mcpServers` entry for the server with everything; `era`: `handshake`, `modern` or `both`."""
    return {"command": sys.executable, "args": [str(FULL_SERVER), name, era], "expose": "both", **settings}


def make_config(servers: dict[str, Any], **sections: Any) -> Config:
    return Config.model_validate({"mcpServers": servers, **sections})


OpenGateway = Callable[..., AbstractAsyncContextManager[Gateway]]


@asynccontextmanager
async def gateway(servers: dict[str, Any], settle: bool = True, **sections: Any) -> AsyncIterator[Gateway]:
    """A gateway in this process. With `settle`, after every server has connected or failed."""
    async with running(make_config(servers, **sections)) as opened:
        if settle:
            await opened.pool.settled(timeout_s=60)
            await asyncio.sleep(0)
        yield opened


@pytest.fixture
def config_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a configuration and returns its path."""

    def write(servers: dict[str, Any], **sections: Any) -> Path:
        path = tmp_path / "mcpgate.yaml"
        path.write_text(yaml.safe_dump({"mcpServers": servers, **sections}))
        return path

    return write


def serve_command(config: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "mcpgate", "serve", *more, "-c", str(config)]


async def until(condition: Callable[[], Any], seconds: float = 20) -> None:
    """Wait for a condition that cannot be awaited, such as another process's end."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@contextmanager
def sigint_ignored() -> Iterator[None]:
    """Processes started inside ignore SIGINT unless they change that, like those that a shell starts in the
    background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
