"""`mcpgate serve`: the gateway, over stdio for one agent or over HTTP for many."""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from mcpgate.api.http.headers import metadata_of
from mcpgate.api.mcp import stdio
from mcpgate.app import open_stores, running
from mcpgate.cli.gateway_session import add_config
from mcpgate.config.environment import key_of_environment, metadata_of_environment
from mcpgate.config.files import find_config, load_config
from mcpgate.config.settings import Config, is_loopback
from mcpgate.errors import ConfigError
from mcpgate.gateway import Gateway
from mcpgate.governance.callers import Caller
from mcpgate.lifecycle import watch
from mcpgate.telemetry import logs

_EARLY_S = 5.0
"""A worker that ends within this time has not really started."""
_HOLD_S = 0.3
"""How long starting the upstreams may wait for the client's first tools/list to be answered."""
log = logging.getLogger("mcpgate.serve")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--stdio", action="store_true", help="one MCP client on stdin and stdout")
    way.add_argument("--host", help="address to listen on (default: server.host, 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default: server.port, 8080)")
    parser.add_argument("--workers", type=int, default=1, help="processes that share the port (default: 1)")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    path = find_config(arguments.config)
    config = load_config(path, tolerant=True)
    logs.set_up(config.telemetry.log_level)
    if arguments.stdio:
        if arguments.port is not None or arguments.workers != 1:
            raise ConfigError("--port and --workers go with HTTP, not with --stdio")
        return asyncio.run(_serve_stdio(config, path))
    host = arguments.host or config.server.host
    port = config.server.port if arguments.port is None else arguments.port
    check_reachable(config, host)
    if arguments.workers > 1:
        return _supervise(arguments.workers, path, host, port)
    return asyncio.run(_serve_http(config, path, host, port, arguments.worker))


def check_reachable(config: Config, host: str) -> None:
    """Raises ConfigError where whoever reaches the port could call every tool."""
    if is_loopback(host) or config.server.trust_network:
        return
    if config.governance.require_key is False:
        raise ConfigError(
            f"refusing to listen on {host} with governance.require_key: false, for whoever reaches the port could "
            "call every tool. Require keys, listen on 127.0.0.1, or set server.trust_network: true"
        )
    if not asyncio.run(_any_key(config)):
        raise ConfigError(
            f"refusing to listen on {host}: there are no keys yet, so nobody could call anything. Make one with "
            "`mcpgate keys create NAME --tools '*'`, declare one in governance.keys, listen on 127.0.0.1, or set "
            "server.trust_network: true"
        )


async def _any_key(config: Config) -> bool:
    if config.governance.keys:
        return True
    stores = await open_stores(config)
    try:
        after = ""
        while page := await stores.store.list_records("key", after):
            if any(record.value["revoked_at"] is None for record in page):
                return True
            after = page[-1].id
        return False
    finally:
        await stores.close()


async def _serve_stdio(config: Config, path: Path) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    secret, metadata = key_of_environment(), metadata_of({"x-mcpgate-metadata": metadata_of_environment()})
    if config.governance.require_key and secret is None:
        raise ConfigError(
            "governance.require_key is true: over stdio the key comes from $MCPGATE_KEY, which is not set"
        )
    async with running(config, _log_progress, _HOLD_S) as gateway, _watching(gateway, path):

        async def identify() -> Caller:
            required = gateway.config.governance.require_key is True  # as it stands in the file by now
            return await gateway.gate.identify(secret, key_required=required, metadata=metadata)

        await identify()  # a wrong key is said at once, not with the first request
        await stdio.serve(gateway, stop, identify)
    return 0


async def _serve_http(config: Config, path: Path, host: str, port: int, is_worker: bool) -> int:
    import uvicorn

    from mcpgate.api.server import Server

    async with running(config, _log_progress) as gateway, _watching(gateway, path):
        face = Server(gateway, host, sessions=not is_worker)
        server = uvicorn.Server(
            uvicorn.Config(
                face,
                host=host,
                port=port,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=5,
                server_header=False,
            )
        )
        listener = _listen(host, port, is_worker)
        host_shown = f"[{host}]" if ":" in host else host
        ways = "/mcp (streamable HTTP)" if is_worker else "/mcp (streamable HTTP) and /sse"
        log.info("listening on http://%s:%d%s", host_shown, listener.getsockname()[1], ways)

        async def end_streams() -> None:
            while not server.should_exit:
                await asyncio.sleep(0.1)
            face.closing.set()

        if is_worker:
            _end_with_parent(asyncio.get_running_loop(), lambda: setattr(server, "should_exit", True))

        # uvicorn raises the signal that ended it once more when it has served. Its default would end the process here,
        # before the stores, the upstreams and the sandbox are closed.
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, lambda: None)
        ender = asyncio.create_task(end_streams())
        try:
            await server.serve(sockets=[listener])
        finally:
            ender.cancel()
    return 0


def _listen(host: str, port: int, reuse_port: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Said to be TCP, for only then asyncio turns Nagle's algorithm off, which holds each answer back for 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port"
        ) from error
    listener.listen(2048)
    listener.set_inheritable(True)
    return listener


def _supervise(workers: int, path: Path, host: str, port: int) -> int:
    """Worker processes that share one port; one that dies is replaced. Each has its own upstreams, sandbox sessions
    and handles, and none outlives this process: their stdin is a pipe that ends with it."""
    if port == 0:
        raise ConfigError("--workers needs a fixed --port")
    command = [
        sys.executable,
        "-m",
        "mcpgate",
        "serve",
        "-c",
        str(path),
        "--host",
        host,
        "--port",
        str(port),
        "--worker",
    ]

    def start() -> tuple[subprocess.Popen[bytes], float]:
        return subprocess.Popen(command, stdin=subprocess.PIPE), time.monotonic()

    children = [start() for _ in range(workers)]
    stopping, early_deaths = False, 0

    def stop(_number: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True
        for child, _ in children:
            child.terminate()  # not SIGINT: a terminal sends that to the workers too, and two of them mean "at once"

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while not stopping:
        time.sleep(0.2)
        for index, (child, began) in enumerate(children):
            if child.poll() is None or stopping:
                continue
            early_deaths = early_deaths + 1 if time.monotonic() - began < _EARLY_S else 0
            if early_deaths > 2 * workers:
                stop(signal.SIGTERM, None)
                raise ConfigError(f"the workers end as soon as they start (exit code {child.returncode}); see the log")
            log.error("worker %d ended with code %s; starting another", child.pid, child.returncode)
            children[index] = start()
    for child, _ in children:
        child.wait()
    return 0


def _end_with_parent(loop: asyncio.AbstractEventLoop, end: Callable[[], None]) -> None:
    """Call `end` when the supervisor, which holds the other end of our stdin, is gone."""

    def wait() -> None:
        while os.read(0, 1024):
            pass
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(end)

    threading.Thread(target=wait, daemon=True).start()


@contextlib.asynccontextmanager
async def _watching(gateway: Gateway, path: Path) -> AsyncIterator[None]:
    task = asyncio.create_task(watch(gateway, path.absolute()))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


def _log_progress(text: str) -> None:
    logging.getLogger("mcpgate.sandbox").info("%s", text)
