"""`mcpgate serve`: the gateway, over stdio for one agent or over HTTP for many."""

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

from mcpgate.api.http.headers import metadata_of
from mcpgate.api.mcp import stdio
from mcpgate.app import open_stores, running, token_store
from mcpgate.cli.gateway_session import add_config
from mcpgate.cli.workers import end_with_supervisor, stop_signals, supervise
from mcpgate.config.environment import key_of_environment, metadata_of_environment, token_key_of_environment
from mcpgate.config.files import find_config, load_config
from mcpgate.config.settings import NO_AUDIENCE, Config, is_loopback, knows_audience, needs_key
from mcpgate.errors import ConfigError
from mcpgate.gateway import Gateway
from mcpgate.governance.callers import Caller
from mcpgate.governance.keys import from_record
from mcpgate.governance.store import Records, StoreUnavailable, all_records
from mcpgate.lifecycle import watch
from mcpgate.telemetry import logs
from mcpgate.telemetry.watchdog import Watchdog
from mcpgate.upstream.tokens import TokensUnavailable, Vault

_STOP_S = 20.0
"""How long the process may take to end when it is told to; what is under way may go on for 5 s of them."""
_STOP_STILL_S = 5.0
"""How long the event loop may stand still meanwhile."""
_YOUNG_OBJECTS = 5000
"""How many new objects there are until it is looked which of them are garbage: seven times what is usual, for a request
makes some hundred."""
_HOLD_S = 0.3
"""How long starting the upstreams may wait for the client's first tools/list to be answered."""
log = logging.getLogger("mcpgate.serve")


EXAMPLES = (
    "mcpgate serve                # http://127.0.0.1:8080/mcp, for many agents",
    "mcpgate serve --stdio        # for one agent, which starts it",
    "mcpgate serve --port 9000 -c team.yaml",
    "mcpgate serve --host 0.0.0.0 --workers 4  # needs a key: mcpgate keys create",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--stdio", action="store_true", help="one MCP client on stdin and stdout")
    way.add_argument("--host", help="address to listen on (default: server.host, 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default: server.port, 8080)")
    parser.add_argument("--bundle", metavar="NAME", help="with --stdio: serve only this bundle of the configuration")
    parser.add_argument("--workers", type=int, default=1, help="processes that share the port (default: 1)")
    parser.add_argument("--worker", type=int, metavar="SUPERVISOR", help=argparse.SUPPRESS)
    add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    path = find_config(arguments.config)
    config = load_config(path, tolerant=True)
    logs.set_up(config.telemetry.log_level)
    if arguments.stdio:
        if arguments.port is not None or arguments.workers != 1:
            raise ConfigError("--port and --workers cannot be used with --stdio")
        return asyncio.run(_serve_stdio(config, path, arguments.bundle))
    if arguments.bundle is not None:
        raise ConfigError(f"--bundle needs --stdio; over HTTP the bundle is served at /mcp/{arguments.bundle}")
    host = arguments.host or config.server.host
    port = config.server.port if arguments.port is None else arguments.port
    check_reachable(config, host)
    if arguments.workers > 1:
        asyncio.run(_tell_before_workers(config, host, port))
        return supervise(arguments.workers, path, host, port)
    return asyncio.run(_serve_http(config, path, host, port, arguments.worker))


def check_reachable(config: Config, host: str) -> None:
    """Raises ConfigError if anyone who reaches the port could call every tool."""
    if is_loopback(host) or config.server.trust_network:
        return
    if config.governance.require_key is False:
        raise ConfigError(
            f"refusing to listen on {host} with governance.require_key: false, because anyone who reaches the port "
            "could call every tool. Require keys, listen on 127.0.0.1, or set server.trust_network: true"
        )
    if config.server.oauth is not None:
        check_address(config)
    elif not config.governance.keys and not asyncio.run(_any_key_stored(config)):
        raise ConfigError(
            f"refusing to listen on {host}: there are no keys yet, so nobody could call anything. Make one with "
            "`mcpgate keys create NAME --tools '*'`, declare one in governance.keys, listen on 127.0.0.1, or set "
            "server.trust_network: true"
        )


def check_address(config: Config) -> None:
    """Raises ConfigError if access tokens for this gateway could not be told from those for other resources."""
    if not knows_audience(config.server):
        raise ConfigError(NO_AUDIENCE)


async def _any_key_stored(config: Config) -> bool:
    stores = await open_stores(config)
    try:
        return await _holds_keys(stores.store)
    finally:
        await stores.close()


def _address(config: Config, host: str, port: int) -> str:
    """Where people reach the gateway."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return config.server.public_url or f"http://{reached}:{port}{config.server.base_path}"


async def _tell_before_workers(config: Config, host: str, port: int) -> None:
    """Once, for all of them."""
    stores = await open_stores(config)
    tokens = token_store(config, stores)
    try:
        vault = Vault(tokens, token_key_of_environment())
        await _tell_of_dashboard(config, host, _address(config, host, port), stores.store, vault)
    finally:
        await tokens.close()
        await stores.close()


async def _tell_of_dashboard(config: Config, host: str, address: str, store: Records, vault: Vault) -> None:
    """Say where it is; and how to sign in, once, where an admin key is needed and nobody has one."""
    from mcpgate.api.http.visits import one_time_token  # which an agent's start over stdio does not need

    place = f"{address}/dashboard"
    with contextlib.suppress(StoreUnavailable, TokensUnavailable):  # the gate says so
        local = is_loopback(host) and not needs_key(config, host)
        if not (local or config.server.oauth is not None or await _any_admin(config, store)):
            token = await one_time_token(vault)
            log.info("dashboard: %s/#/sign-in/%s (works once; make a key with the grant `admin` there)", place, token)
            return
    log.info("dashboard: %s", place)


async def _any_admin(config: Config, store: Records) -> bool:
    """Whether there is an active key with the grant `admin`. Raises StoreUnavailable."""
    declared = config.governance.keys.values()
    if any(key.grants.admin and key.enabled and key.team is None and key.customer is None for key in declared):
        return True
    async for record in all_records(store, "key"):
        key, _ = from_record(record.id, record.value)
        if key.grants.admin and key.realm is None and key.state(time.time()) == "active":
            return True
    return False


async def _holds_keys(store: Records) -> bool:
    """Whether a store has keys that are not revoked. Raises StoreUnavailable."""
    async for record in all_records(store, "key"):
        if record.value["revoked_at"] is None:
            return True
    return False


async def _warn_of_keys_not_required(gateway: Gateway, host: str) -> None:
    if needs_key(gateway.config, host):
        return
    with contextlib.suppress(StoreUnavailable):  # the gate says so
        if gateway.config.governance.keys or await _holds_keys(gateway.gate.store):
            log.warning(
                "there are keys, but requests to %s without a key are also accepted and may call every tool; to "
                "require a key, set governance.require_key: true",
                host,
            )


async def _serve_stdio(config: Config, path: Path, bundle: str | None) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    secret, metadata = key_of_environment(), metadata_of({"x-mcpgate-metadata": metadata_of_environment()})
    if config.governance.require_key and secret is None:
        raise ConfigError(
            "governance.require_key is true: over stdio the key comes from $MCPGATE_KEY, which is not set"
        )

    def end() -> None:
        loop.call_soon_threadsafe(stop.set)

    with _ending(config.server.watchdog_s, None, end):
        async with running(config, _log_progress, _HOLD_S) as gateway, _watching(gateway, path):

            async def identify() -> Caller:
                required = gateway.config.governance.require_key is True  # as it stands in the file by now
                caller = await gateway.gate.identify(secret, key_required=required, metadata=metadata)
                return gateway.entering(caller, bundle)

            await identify()  # a wrong key is said at once, not with the first request
            await stdio.serve(gateway, stop, identify)
    return 0


async def _serve_http(config: Config, path: Path, host: str, port: int, supervisor: int | None) -> int:
    from mcpgate.api.http.port import Port, limits_of, raise_descriptor_limit
    from mcpgate.api.server import Server

    is_worker = supervisor is not None
    loop = asyncio.get_running_loop()
    limits = limits_of(config.server, raise_descriptor_limit())
    stop = asyncio.Event()

    def end() -> None:
        loop.call_soon_threadsafe(stop.set)

    if supervisor is not None:
        end_with_supervisor(supervisor, end)
    stall_s = config.server.watchdog_s
    with _ending(stall_s, 3 * stall_s if is_worker else None, end):
        async with running(config, _log_progress) as gateway, _watching(gateway, path):
            await _warn_of_keys_not_required(gateway, host)
            face = Server(gateway, host, sessions=not is_worker)
            served = Port(
                *(face, limits, face.trusted_proxies, face.when_full),
                takes_socket=face.takes_socket,
                message_bytes=config.server.max_body_mib * 1024 * 1024,
            )
            listener = _listen(host, port, is_worker)
            host_shown = f"[{host}]" if ":" in host else host
            gateway.links.address = _address(config, host, listener.getsockname()[1])
            ways = "/mcp (streamable HTTP)" if is_worker else "/mcp (streamable HTTP) and /sse"
            log.info("listening on http://%s:%d%s", host_shown, listener.getsockname()[1], ways)
            if not is_worker:
                await _tell_of_dashboard(gateway.config, host, gateway.links.address, gateway.gate.store, gateway.vault)

            async def end_when_told() -> None:
                await stop.wait()
                served.stop()
                face.closing.set()

            gc.set_threshold(_YOUNG_OBJECTS)
            gc.freeze()  # what is there now stays: looking through it again and again would stop everything for 40 ms
            ender = asyncio.create_task(end_when_told())
            face.batches.start()
            try:
                await served.serve(listener)
            finally:
                ender.cancel()
                await face.batches.aclose()
    return 0


@contextlib.contextmanager
def _ending(stall_s: float, end_after_s: float | None, end: Callable[[], None]) -> Iterator[None]:
    """The first signal to stop calls `end`, a second one ends the process at once; it ends too if `end` does not do
    it in time. Meanwhile a watchdog looks after the event loop."""
    watchdog = Watchdog(stall_s, end_after_s if stall_s else None)
    told = False

    def tell(number: int) -> None:
        nonlocal told
        if told:
            os._exit(128 + number)
        told = True
        watchdog.end_within(_STOP_S, _STOP_STILL_S)
        with contextlib.suppress(RuntimeError):  # the loop has ended
            end()

    with _heard(stop_signals(), tell):
        watchdog.start()
        try:
            yield
        finally:
            watchdog.stop()


@contextlib.contextmanager
def _heard(numbers: Sequence[int], tell: Callable[[int], None]) -> Iterator[None]:
    """Tell of signals from a thread: the main thread, where Python calls handlers, may be stuck and never come to
    it."""
    ours, pythons = socket.socketpair()
    pythons.setblocking(False)

    def listen() -> None:
        while number := ours.recv(1):
            if number[0] in numbers:
                tell(number[0])

    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    wakeup = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
    listener = threading.Thread(target=listen, name="signals", daemon=True)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        pythons.close()
        listener.join()
        ours.close()


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
