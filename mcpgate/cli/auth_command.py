"""`mcpgate auth`: sign in to servers that want OAuth, list sign-ins, end them. A running gateway follows within
seconds."""

import argparse
import asyncio
import datetime
import html
import sys
import threading
import time
import webbrowser
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from mcpgate.app import open_stores, token_store
from mcpgate.cli import console
from mcpgate.cli.gateway_session import add_config, add_format
from mcpgate.config.environment import token_key_of_environment
from mcpgate.config.files import find_config, load_config
from mcpgate.config.settings import Config
from mcpgate.config.upstreams import UpstreamConfig
from mcpgate.errors import ConfigError, McpgateError, NotFound, UpstreamError
from mcpgate.telemetry.text import one_line
from mcpgate.upstream.auth import Begun, SignIn, redirected
from mcpgate.upstream.challenges import has_own_credentials
from mcpgate.upstream.secrets import Secrets
from mcpgate.upstream.secrets import place as where
from mcpgate.upstream.tokens import Place, Token, Vault
from mcpgate.upstream.upstream import anonymous

EXAMPLES = (
    "mcpgate auth login linear",
    "mcpgate auth login linear --no-browser",
    "mcpgate auth list",
    "mcpgate auth logout linear",
)
_PATIENCE_S = 600.0
_HEAD_S, _LONGEST_HEAD = 10.0, 16 * 1024
_LOCAL = "local"
"""The owner of callers without a key."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    login = actions.add_parser("login", help="sign in to a server with a browser")
    login.add_argument("server", metavar="SERVER", help="name of the server in the configuration")
    way = login.add_mutually_exclusive_group()
    way.add_argument(
        "--no-browser",
        action="store_true",
        help="print the address instead of opening a browser; after signing in, paste the address of the last page",
    )
    way.add_argument(
        "--device", action="store_true", help="sign in by entering a code in any browser, if the server supports it"
    )
    listed = actions.add_parser("list", help="list servers and sign-ins; tokens are not shown")
    logout = actions.add_parser("logout", help="sign out of a server: delete its tokens here, and revoke them there")
    logout.add_argument("server", metavar="SERVER", help="name of the server in the configuration")
    for action in (login, logout):
        action.add_argument(
            "--user",
            metavar="KEY[/USER]",
            help="whose sign-in, for servers with `auth: {per: user}`: the id of a key, and the user that it names",
        )
    add_format(listed)
    for action in (login, listed, logout):
        add_config(action)


def run(arguments: argparse.Namespace) -> int:
    config = load_config(find_config(arguments.config), tolerant=True)
    return asyncio.run(_run(arguments, config))


async def _run(arguments: argparse.Namespace, config: Config) -> int:
    async with _vault(config) as vault:
        match arguments.action:
            case "login":
                return await _login(arguments, *_server(config, arguments.server), vault)
            case "logout":
                return await _logout(arguments, *_server(config, arguments.server), vault)
        return await _list(arguments, config, vault)


@asynccontextmanager
async def _vault(config: Config) -> AsyncIterator[Vault]:
    stores = await open_stores(config)
    tokens = token_store(config, stores)
    try:
        yield Vault(tokens, token_key_of_environment())
    finally:
        await tokens.close()
        await stores.close()


def _server(config: Config, name: str) -> tuple[str, UpstreamConfig]:
    found = config.mcpServers.get(name)
    if found is None:
        raise NotFound(f"there is no server {name!r} in the configuration; there are {', '.join(config.mcpServers)}")
    if found.unusable:
        raise ConfigError(f"mcpServers.{name}: {found.unusable}")
    if found.url is None:
        raise ConfigError(f"mcpServers.{name} is a local program, which needs no sign-in")
    return name, found


def _place(arguments: argparse.Namespace, name: str, server: UpstreamConfig) -> Place:
    per_user = server.auth is not None and server.auth.per == "user"
    if arguments.user and not per_user:
        raise ConfigError(f"--user needs `auth: {{per: user}}`, which mcpServers.{name} does not have")
    subject = (arguments.user or _LOCAL).replace("/", "\n", 1) if per_user else ""
    return Place(name, server.url or "", subject)


# --- login


async def _login(arguments: argparse.Namespace, name: str, server: UpstreamConfig, vault: Vault) -> int:
    if has_own_credentials(server):
        raise ConfigError(f"mcpServers.{name} has an Authorization header in the configuration; remove it to sign in")
    place = _place(arguments, name, server)
    sign_in = SignIn(place, server, vault, Secrets(server))
    challenge = await anonymous(name, server).knock()
    if challenge is None and server.auth is None:
        print(f"{name} needs no sign-in")
        return 0
    if server.auth is not None and server.auth.type != "oauth":
        token = await sign_in.by_client(challenge)
    elif arguments.device:
        token = await sign_in.by_device(challenge, _show_code)
    else:
        port = server.auth.redirect_port if server.auth is not None else None
        async with _Listener(port, await vault.redirect_uris(name)) as listener:
            begun = await sign_in.begin(listener.address, challenge)
            answer = await _ask(begun, listener, arguments.no_browser)
            try:
                token = await sign_in.finish(begun, answer)
            except McpgateError as error:
                listener.say(error.message)
                raise
            listener.say(f"You are signed in to {name}. You can close this page.")
    scope = f" (scopes: {token.scope})" if token.scope else ""
    print(f"signed in to {name}{scope}")
    if token.expires_at is not None and not token.refresh and (server.auth is None or server.auth.type == "oauth"):
        console.note(f"this sign-in cannot be renewed; it ends {_when(token.expires_at)}")
    return 0


def _show_code(address: str, code: str) -> None:
    console.say(f"Open {address} in a browser and enter the code {code}")


async def _ask(begun: Begun, listener: "_Listener", no_browser: bool) -> Mapping[str, str]:
    """The answer, from the listener or pasted."""
    listener.expect(begun.state)
    if no_browser:
        console.say(f"Open this address in a browser:\n\n{begun.url}\n")
        console.say("Then paste the address of the page you arrive at, even if it fails to load:")
        _read_pasted(listener)
    else:
        console.say(f"Opening a browser. If none opens, use this address:\n\n{begun.url}\n", sys.stderr)
        threading.Thread(target=webbrowser.open, args=(begun.url,), daemon=True).start()
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await listener.answer
    except TimeoutError:
        raise UpstreamError(f"nobody signed in within {_PATIENCE_S / 60:.0f} minutes") from None


def _read_pasted(listener: "_Listener") -> None:
    """Take the first line of stdin that is an answer. A thread of its own, for nothing can interrupt reading."""
    loop = asyncio.get_running_loop()

    def read() -> None:
        for line in sys.stdin:
            if line.strip():
                try:
                    loop.call_soon_threadsafe(listener.take, redirected(line))
                except RuntimeError:
                    return  # the command is over
                return

    threading.Thread(target=read, daemon=True).start()


class _Listener:
    """Listens on the loopback address for the browser that comes back."""

    def __init__(self, port: int | None, before: Sequence[str]) -> None:
        """`before`: addresses of earlier sign-ins, one of which will do again if its port is free."""
        self._port = port
        self._before = [port for uri in before if (port := _own_port(uri)) is not None]
        self._state: str | None = None
        self._outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self.answer: asyncio.Future[Mapping[str, str]] = asyncio.get_running_loop().create_future()
        self.address = ""

    async def __aenter__(self) -> "_Listener":
        for port in (self._port,) if self._port else (*self._before, 0):
            try:
                self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=_LONGEST_HEAD)
                break
            except OSError as error:
                reason = error.strerror or error
        else:
            raise ConfigError(f"cannot listen on port {self._port} (auth.redirect_port): {reason}")
        port = self._server.sockets[0].getsockname()[1]
        # Where a port is configured, a client is registered with this spelling: it is that of Claude Code.
        self.address = f"http://{'localhost' if self._port else '127.0.0.1'}:{port}/callback"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.say("The sign-in was cancelled.")
        self._server.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2)
        for task in self._tasks:
            task.cancel()

    def expect(self, state: str) -> None:
        self._state = state

    def take(self, answer: Mapping[str, str]) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    def say(self, text: str) -> None:
        """What the page shows."""
        if not self._outcome.done():
            self._outcome.set_result(text)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            async with asyncio.timeout(_HEAD_S):
                head = await reader.readuntil(b"\r\n\r\n")
            method, target, *_ = head.decode("latin-1").split(" ", 2)
            answer = redirected(target)
            if method != "GET" or not target.startswith("/callback?") or answer.get("state") != self._state:
                await _respond(writer, 404, "This page belongs to another sign-in.")
                return
            self.take(answer)
            await _respond(writer, 200, await self._outcome)
        except (TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()


def _own_port(uri: str) -> int | None:
    """The port of an address that this command has listened on without a port being configured."""
    parts = urlsplit(uri)
    return parts.port if (parts.hostname, parts.path) == ("127.0.0.1", "/callback") else None


async def _respond(writer: asyncio.StreamWriter, status: int, text: str) -> None:
    body = f'<!doctype html><meta charset="utf-8"><title>mcpgate</title><p>{html.escape(text)}</p>'.encode()
    head = (
        f"HTTP/1.1 {status} {'OK' if status == 200 else 'Not Found'}\r\ncontent-type: text/html; charset=utf-8\r\n"
        f"content-length: {len(body)}\r\ncontent-security-policy: default-src 'none'\r\n"
        "referrer-policy: no-referrer\r\ncache-control: no-store\r\nconnection: close\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()


# --- list and logout


async def _list(arguments: argparse.Namespace, config: Config, vault: Vault) -> int:
    rows = []
    for place in await vault.places():
        token = await vault.token(place)
        if token is not None:
            rows.append(_row(place, token, config))
    known = {(row["server"], row["url"]) for row in rows}
    for name, server in config.mcpServers.items():
        if server.url is not None and server.auth is not None and (name, where(server.url)) not in known:
            rows.append({"server": name, "url": where(server.url), "user": "", "state": "not signed in", "scopes": "",
                         "issuer": ""})  # fmt: skip
    if arguments.format == "json":
        console.show({"sign_ins": rows})
    elif not rows:
        print("Nobody is signed in, and no server in the configuration has `auth`.")
    else:
        shown = [
            [one_line(str(row[name]), 60) for name in ("server", "user", "state", "scopes", "issuer")] for row in rows
        ]
        print(console.table(["server", "user", "state", "scopes", "authorization server"], shown))
    return 0


def _row(place: Place, token: Token, config: Config) -> dict[str, Any]:
    if not token.access:
        state = "ended; sign in again"
    elif token.refresh:
        state = "signed in; renews itself"
    elif token.expires_at is None:
        state = "signed in"
    else:
        state = f"{'signed in until' if token.expires_at > time.time() else 'ended'} {_when(token.expires_at)}"
    if token.wanted:
        state += f"; the server asks for more: {token.wanted}"
    server = config.mcpServers.get(place.server)
    if server is None or server.url != place.url:
        state += "; not in this configuration"
    user = place.subject.replace("\n", "/")
    return {"server": place.server, "url": where(place.url), "user": user, "state": state, "scopes": token.scope,
            "issuer": where(token.issuer)}  # fmt: skip


async def _logout(arguments: argparse.Namespace, name: str, server: UpstreamConfig, vault: Vault) -> int:
    one = _place(arguments, name, server) if arguments.user else None
    ended = 0
    for place in await vault.places():
        if (place.server, place.url) != (name, server.url) or one not in (None, place):
            continue
        token = await vault.forget(place)
        if token is None:
            continue
        ended += 1
        whom = f" for {place.subject.replace(chr(10), '/')}" if place.subject else ""
        try:
            revoked = await SignIn(place, server, vault, Secrets(server)).revoke(token)
            print(f"signed out of {name}{whom}")
            if not revoked and token.access:
                console.note("the server cannot revoke tokens; they stay valid until they expire")
        except UpstreamError as error:
            print(f"signed out of {name}{whom}")
            console.note(f"the token is deleted here, but could not be revoked: {error.message}")
    if not ended:
        raise NotFound(f"nobody is signed in to {name!r}")
    return 0


def _when(at: float) -> str:
    return datetime.datetime.fromtimestamp(at).astimezone().isoformat(" ", "minutes")
