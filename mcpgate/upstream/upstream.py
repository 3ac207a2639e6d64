"""One MCP server and the task that keeps it connected: it connects, lists, follows changes and reconnects. Who may call
what, and what tools look like in Python, is decided elsewhere.
"""

import asyncio
import contextlib
import dataclasses
import fnmatch
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from mcpgate import jsontext
from mcpgate.client import Client
from mcpgate.config.upstreams import UpstreamConfig
from mcpgate.errors import UpstreamError, UpstreamTimeout
from mcpgate.upstream import listing
from mcpgate.upstream.backchannel import LOG_LEVELS
from mcpgate.upstream.bearer import Bearer, Link
from mcpgate.upstream.challenges import Challenge, SignInNeeded
from mcpgate.upstream.connection import AskRoots, Connection, RpcError, ServerFacts, rpc_error
from mcpgate.upstream.following import Following
from mcpgate.upstream.framing import Broken
from mcpgate.upstream.identities import RETRY_EVERY_S, Identities
from mcpgate.upstream.lists import Lists
from mcpgate.upstream.param_headers import Malformed, Path, header_paths, headers_of
from mcpgate.upstream.secrets import Secrets
from mcpgate.upstream.stdio import open_stdio
from mcpgate.upstream.tokens import Place, Vault
from mcpgate.upstream.untrusted import MAX_NAME, cut, one_line

if TYPE_CHECKING:
    from mcpgate.upstream.auth import SignIn

State = Literal["connecting", "ready", "failed", "needs_sign_in", "disabled"]
_FIRST_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 60.0
_DEBOUNCE_S = 0.15
_LONGEST_NAME = 1000
"""Characters of a tool's name; the protocol recommends up to 128."""
_RELIST_EVERY_S = 1.0
"""A server that keeps changing its tools is listed at most this often…"""
_RELIST_SHARE = 10
"""…and for no more than a tenth of the time."""
_LONGEST_RELIST_PAUSE_S = 60.0
_MOST_REFUSED = 1000
"""Callers without a sign-in whose questions for lists are remembered."""
_STDIO_PATIENCE_S, _HTTP_PATIENCE_S = 0.3, 5.0
"""How long a server may leave a question in the newest revision unanswered."""
EMPTY: Mapping[str, Any] = MappingProxyType({})
log = logging.getLogger("mcpgate.upstream")


@dataclasses.dataclass(frozen=True, slots=True)
class UpstreamView:
    """What is known about one upstream at one moment."""

    name: str
    config: UpstreamConfig
    state: State
    reason: str = ""
    """Why it failed, for callers; empty otherwise."""
    detail: str = ""
    """The same for the log and `mcpgate check`, including the server's last words."""
    warning: str = ""
    """Which of its tools were left out."""
    facts: ServerFacts | None = None
    tools: tuple[dict[str, Any], ...] = ()
    """As the server sent them, allowed ones only. While it is unavailable, those of the last connection."""
    connect_s: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Announcement:
    """What has changed at a server, or at the gateway."""

    kind: Literal["list", "updated"]
    what: str
    """`tools`, `resources` or `prompts`; or the URI of the resource that has changed."""
    server: str = ""
    identity: str | None = None
    """Whose own connection has heard it; None: it concerns everybody."""


def backoff_s(first_s: float, failures: int, longest_s: float) -> float:
    """The pause before the next attempt, in seconds. Doubles with each of any number of failures."""
    return min(longest_s, first_s * 2.0 ** min(failures, 64))


class _EndedByProbe(Broken):
    """The process ended because it was asked for the newest revision: some do when the first message is no
    `initialize`."""


_DISLIKES_PROBE = re.compile(r"(?i)initiali[sz]|discover|handshake|exited with code 0")
"""How such a process ends, or what it says last. One that cannot start at all is not started twice."""


class Upstream:
    """One MCP server, kept connected by its own task."""

    def __init__(
        self,
        name: str,
        config: UpstreamConfig,
        on_change: Callable[[], None],
        on_event: Callable[[Announcement], None],
        remembered: Sequence[dict[str, Any]] = (),
        go: asyncio.Event | None = None,
        vault: Vault | None = None,
        link: Link | None = None,
    ) -> None:
        """`on_change`: called when the view has changed. `on_event`: with what else the server announces."""
        self.name, self.config = name, config
        self._secrets = Secrets(config)
        self._vault, self._link = vault, link
        self._bearer = Bearer(name, config, self._secrets, vault, borrows=self.per_user)
        state: State = "failed" if config.unusable else "disabled" if config.disabled else "connecting"
        remembered = self._allowed(remembered[: config.max_tools])
        self.view = UpstreamView(name, config, state, config.unusable, tools=remembered)
        self._on_change, self._on_event = on_change, on_event
        self._go = go
        self._slots = asyncio.Semaphore(config.max_concurrency)
        self._connection: Connection | None = None
        self._identities = Identities(self._own_connection, self._open_own, config.connect_timeout_s)
        self._live = Identities(self._live_second, self._open, config.connect_timeout_s)
        """The connection for clients that are asked live, to a server that only asks so in the handshake era."""
        self._changed = asyncio.Event()
        self._wake = asyncio.Event()
        self._relist = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._restoring: asyncio.Task[None] | None = None
        self._sse_only = self._modern_only = self._handshake_first = self._changes_era = False
        self._header_paths: dict[str, Mapping[Path, str]] = {}
        self._lists = Lists(lambda connection, what: self._list(connection, what, config.timeout_s))
        self._last: dict[str, Sequence[dict[str, Any]]] = {}
        """What the shared connection has listed last."""
        self._following = Following(name, self._identities, config.timeout_s)
        self._was_asked_early = False
        self._to_tell: dict[Announcement, asyncio.TimerHandle] = {}
        self._refused: set[str] = set()
        """Callers whose lists could not be asked for."""
        self._subscribed: tuple[str, ...] = ()
        self._log_level: str | None = None
        self._roots: AskRoots | None = None
        """Of the client that has changed them last; new connections get them too."""
        self._failed_attempts = 0
        self._failed_at = -RETRY_EVERY_S

    def expect_live_clients(self) -> None:
        """Begin in the handshake era, in which a process can ask its clients in the middle of a call."""
        self._handshake_first = self.config.command is not None

    def start(self) -> None:
        if self._task is None and not self.config.disabled and not self.config.unusable:
            self._task = asyncio.create_task(self._run(), name=f"upstream {self.name}")

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        for telling in self._to_tell.values():
            telling.cancel()
        self._following.stop()
        await self._identities.aclose()
        await self._live.aclose()

    @property
    def per_user(self) -> bool:
        """Whether every caller signs in for itself. The shared connection then only lists tools."""
        return self.config.auth is not None and self.config.auth.per == "user"

    def identity_of(self, owner: str) -> str | None:
        """On whose connection a caller's requests are made; None: the shared one."""
        return owner if self.per_user else None

    async def knock(self) -> Challenge | None:
        """Connect and list the tools, for an upstream without a vault: what the server asks for; None if it lets
        everybody in. Raises UpstreamError if it cannot be reached."""
        connection = Connection(self.name, lambda what: None, self._secrets)
        try:
            async with asyncio.timeout(self.config.connect_timeout_s), contextlib.AsyncExitStack() as stack:
                stack.callback(connection.stop)
                await self._open(connection, stack)
                await self._list_tools(connection)
        except TimeoutError:
            raise UpstreamError("it does not answer in time") from None
        except UpstreamError:
            if self._bearer.challenge is None:
                raise
        return self._bearer.challenge

    def sign_in(self, subject: str) -> "SignIn":
        """The way to sign in to it; a caller's own with `per: user`."""
        from mcpgate.upstream.auth import SignIn

        if self.config.url is None or self._vault is None:
            raise UpstreamError(f"nobody signs in to {self.name!r}")
        return SignIn(Place(self.name, self.config.url, subject), self.config, self._vault, self._secrets)

    async def asked_for(self) -> Challenge | None:
        """What the server asked for when it last refused, or would if it was asked now."""
        return self._bearer.challenge or await anonymous(self.name, self.config).knock()

    async def sign_out(self, subject: str) -> bool | None:
        """Forget a token, and end it at the server: whether it could. None if there was none."""
        if self.config.url is None or self._vault is None:
            return None
        token = await self._vault.forget(Place(self.name, self.config.url, subject))
        self._identities.drop(subject)
        return None if token is None else await self.sign_in(subject).revoke(token)

    async def way_in(self, owner: str) -> str | None:
        """Where a caller signs in for itself; None if it has, or need not."""
        if not self.per_user or self._vault is None:
            return None
        try:
            await self._bearer_of(owner).token()
        except SignInNeeded as needed:
            return needed.message
        return None

    async def signed_in(self, owner: str) -> None:
        """Returns when a caller has a token that it does not have now."""
        await self._bearer_of(owner).replaced()

    def _bearer_of(self, identity: str | None) -> Bearer:
        if not identity or not self.per_user:
            return self._bearer
        return Bearer(self.name, self.config, self._secrets, self._vault, identity, self._link)

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        client: Client | None = None,
        more: Mapping[str, Any] = EMPTY,
        on_sent: Callable[[], None] | None = None,
        identity: str | None = None,
    ) -> dict[str, Any]:
        """`tools/call`, its result as the server sent it. `more`: further parameters, such as `_meta`. See
        `limited_request`."""
        params = {**more, "name": tool, "arguments": arguments}
        return await self.limited_request("tools/call", params, on_sent=on_sent, client=client, identity=identity)

    async def limited_request(
        self,
        method: str,
        params: dict[str, Any],
        *,
        client: Client | None = None,
        confirm: Callable[[], Awaitable[None]] | None = None,
        on_sent: Callable[[], None] | None = None,
        identity: str | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """A request that counts against `max_concurrency`. Connects first if need be. `confirm` may still refuse it
        when nothing has to be waited for any more; `on_sent` is called when it is about to be sent; `client` hears what
        comes back meanwhile. `identity`: on whose connection; None: the shared one. `timeout_s`: None as configured.
        Raises UpstreamError with this upstream's name in it, RpcError, and what `confirm` raises."""
        async with self._slots:
            connection = await self._connection_of(identity)
            if client is not None and client.is_live and connection.is_modern and identity is None:
                connection = await self._live_connection(connection)
            headers = self._param_headers(params) if method == "tools/call" and connection.is_modern else None
            try:
                return await connection.request(
                    method,
                    params,
                    timeout_s=timeout_s or self.config.timeout_s,
                    total_s=self.config.total_timeout_s,
                    client=client,
                    headers=headers,
                    confirm=confirm,
                    on_sent=on_sent,
                )
            except RpcError:
                raise
            except UpstreamError as error:
                if isinstance(error, SignInNeeded) and error.ended:
                    connection.on_close(Broken(error.message))
                kind = UpstreamTimeout if isinstance(error, UpstreamTimeout) else UpstreamError
                reason = self._secrets.mask(error.message)
                attempts = [{"upstream": self.name, "reason": reason}]
                raise kind(f"upstream {self.name!r}: {reason}", **{**error.data, "attempts": attempts}) from error

    def rpc_error(self, error: Any) -> RpcError:
        """A JSON-RPC error that the server has sent within a result."""
        return rpc_error(error, self._secrets)

    async def _live_connection(self, connection: Connection) -> Connection:
        """A connection on which the server can ask a client in the middle of a call: servers of both eras do that only
        in the handshake era. Over HTTP it is a second connection; a process is started anew in the other era, for two
        of it would have two memories."""
        if self._modern_only or (self.config.command and connection.is_busy):
            return connection
        if self.config.command:
            self._handshake_first = self._changes_era = True
            connection.on_close(Broken("it is restarted in the handshake era"))
            connection = await self.connected()
            self._modern_only = connection.is_modern
            return connection
        try:
            return await self._live.get("")
        except UpstreamError as error:
            log.info("%s: it asks nothing in the middle of a call: %s", self.name, self._told(error)[1])
            self._modern_only = True
            return connection

    def _param_headers(self, params: Mapping[str, Any]) -> dict[str, str] | None:
        """The headers that repeat arguments, for tools whose schemas want that."""
        paths = self._header_paths.get(params["name"])
        return headers_of(paths, params["arguments"]) if paths else None

    async def listed(self, what: str, identity: str | None = None) -> Sequence[dict[str, Any]]:
        """Every item of `resources`, `resourceTemplates` or `prompts`, as far as they fit the limits; remembered until
        the server says that they have changed, if it does that. `identity`: as whose connection lists them. Raises
        UpstreamError."""
        if identity is None:
            if self.per_user:
                return ()  # what the shared connection lists is somebody's own
            found = self._last[what] = await self._lists.get(await self._connection_of(None), what)
            return found
        try:
            await self._bearer_of(identity).token()  # what it has listed is not shown after a sign-out
        except UpstreamError as error:
            raise self._unreachable(f"is not connected: {error.message}", error.data) from error
        return await self._lists.get(await self._connection_of(identity), what, own=True)

    async def is_signed_in(self, identity: str) -> bool:
        """Whether a caller has a token, without making a link for one that has none. Its sessions are told that their
        lists have changed when it is connected."""
        try:
            await Bearer(self.name, self.config, self._secrets, self._vault, identity).token()
        except UpstreamError:
            if len(self._refused) >= _MOST_REFUSED:
                self._refused.clear()
            self._refused.add(identity)
            return False
        return True

    @property
    def is_connected(self) -> bool:
        """Whether its shared connection stands now."""
        return self._standing() is not None

    def asked_early(self) -> None:
        """Somebody has got lists from before. Connect soon, and then say that they have changed."""
        self._was_asked_early = True
        self._wake.set()

    def known(self, what: str, identity: str | None = None) -> Sequence[dict[str, Any]] | None:
        """What was listed last; None where it has to be asked for."""
        if identity is None:
            return self._last.get(what)
        connection = self._identities.find(identity)
        return None if connection is None else self._lists.known(connection, what)

    def own_capabilities(self, identity: str | None) -> frozenset[str] | None:
        """What the server is capable of on a caller's own connection; None without one."""
        connection = None if identity is None else self._identities.find(identity)
        return None if connection is None or connection.facts is None else connection.facts.capabilities

    async def subscribe(self, uris: Sequence[str], identity: str | None = None) -> None:
        """Be told of changes of these resources, and of no others; again after each reconnect. `identity`: on whose
        connection. Raises UpstreamError."""
        if identity is not None:
            await self._following.follow(identity, tuple(uris))
            return
        self._subscribed = tuple(uris)
        await (await self._connection_of(None)).subscribe(self._subscribed, self.config.timeout_s)

    def roots_changed(self, ask: AskRoots, identity: str | None = None) -> None:
        """Tell the server that the roots of a client have changed. `identity`: on whose connection."""
        if identity is None:
            self._roots = ask
        own = [self._standing(), self._live.find("")] if identity is None else [self._identities.find(identity)]
        for connection in own:
            if connection is not None:
                connection.roots_changed(ask)

    async def set_log_level(self, level: str) -> None:
        """Have a server of the handshake era send log messages from a level on, or from a lower one that somebody else
        wants; again after each reconnect. Raises UpstreamError, RpcError."""
        wanted = [*([self._log_level] if self._log_level else []), level]
        lowest = min(wanted, key=LOG_LEVELS.index)
        if lowest != self._log_level:
            self._log_level = lowest
            own = self._identities.live() if self.per_user else [await self._connection_of(None)]
            await asyncio.gather(*map(self._send_log_level, own))

    async def _send_log_level(self, connection: Connection) -> None:
        if not connection.is_modern:
            await connection.request("logging/setLevel", {"level": self._log_level}, timeout_s=self.config.timeout_s)

    async def _connection_of(self, identity: str | None) -> Connection:
        if identity is None:
            return self._standing() or await self.connected()
        if self.config.disabled:
            raise self._unreachable("is disabled in the configuration")
        try:
            return await self._identities.get(identity)
        except UpstreamError as error:
            reason, _ = self._told(error)
            raise self._unreachable(f"is not connected: {reason}", error.data) from error

    def _unreachable(self, reason: str, data: Mapping[str, Any] = EMPTY) -> UpstreamError:
        attempts = [{"upstream": self.name, "reason": reason}]
        return UpstreamError(f"upstream {self.name!r} {reason}", **{**data, "attempts": attempts})

    def _told(self, error: UpstreamError) -> tuple[str, str]:
        """A failure as two texts without secrets: one for callers, one for the log and `mcpgate check`."""
        detail = error.detail if isinstance(error, Broken) else error.message
        return one_line(self._secrets.mask(error.message)), one_line(self._secrets.mask(detail))

    async def connected(self) -> Connection:
        """The live connection. Waits for one in progress, and attempts one at once if a retry was due later. Raises
        UpstreamError with the reason."""
        if self.config.disabled:
            raise self._unreachable("is disabled in the configuration")
        if self.config.unusable:
            raise self._unreachable(f"is not usable: {self.config.unusable}")
        if self.view.state == "needs_sign_in" and not await self._bearer.has_news():
            raise self._unreachable(f"is not connected: {self.view.reason}")
        if self.view.state == "failed" and time.monotonic() - self._failed_at < RETRY_EVERY_S:
            # Calls in a loop must not start a broken server a hundred times a second.
            raise self._unreachable(f"is not connected: {self.view.reason}")
        failed_before = self._failed_attempts
        self._wake.set()
        try:
            async with asyncio.timeout(self.config.connect_timeout_s):
                while (connection := self._standing()) is None:
                    if self._failed_attempts > failed_before or self._task is None:
                        break
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            connection = None
        if connection is None:
            reason = self.view.reason or "it is still starting"
            raise self._unreachable(f"is not connected: {reason}")
        return connection

    async def settled(self) -> None:
        """Wait until it is no longer connecting for the first time."""
        while self.view.state == "connecting" and not self.view.reason:
            self._changed.clear()
            await self._changed.wait()

    def _standing(self) -> Connection | None:
        connection = self._connection
        return connection if connection is not None and not connection.closed.done() else None

    async def _run(self) -> None:
        failures = 0
        reason = detail = ""
        if self._go is not None:
            await self._go.wait()
        while True:
            began = time.monotonic()
            self._wake.clear()
            signed_out = False
            try:
                reason, detail = self._told(await self._connect_and_serve(began))
            except UpstreamError as error:
                reason, detail = self._told(error)
                signed_out = error.data.get("server_status") == 401 and self._bearer.signs_in
                self._failed_attempts += 1
                self._failed_at = time.monotonic()
            except Exception as error:
                log.exception("%s: unexpected failure", self.name)
                reason, detail = self._told(UpstreamError(f"{type(error).__name__}: {error}"))
                self._failed_attempts += 1
                self._failed_at = time.monotonic()
            if signed_out:
                log.warning("%s: %s", self.name, detail)
                self._set("needs_sign_in", reason=reason, detail=detail)
                await self._bearer.changed()
                log.info("%s: there is a new token", self.name)
                failures = 0
                self._set("connecting", reason=reason, detail=detail)
                continue
            failures = 1 if time.monotonic() - began > _LONGEST_BACKOFF_S else failures + 1
            delay = backoff_s(_FIRST_BACKOFF_S, failures - 1, _LONGEST_BACKOFF_S) * random.uniform(0.8, 1.2)
            log.warning("%s: %s; next try in %.1f s", self.name, detail, delay)
            self._connection = None
            self._set("failed", reason=reason, detail=detail)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._wake.wait()
            self._set("connecting", reason=reason, detail=detail)

    async def _connect_and_serve(self, began: float) -> Broken:
        while True:
            try:
                ended = await self._live_once(began)
            except _EndedByProbe:
                self._handshake_first = True
                continue
            if not self._changes_era:
                return ended
            self._changes_era = False

    async def _live_once(self, began: float) -> Broken:
        """One life of a connection, entered and left by this task alone. Returns, with the reason, when it is gone."""
        connection = Connection(
            *(self.name, self._on_list_changed, self._secrets, self._on_updated),
            handshake_first=self._handshake_first,
            # Over HTTP every request is answered, if only with a refusal.
            patience_s=_HTTP_PATIENCE_S if self.config.url else _STDIO_PATIENCE_S,
        )
        connection.roots = self._roots
        budget = self.config.connect_timeout_s
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(connection.stop)
            try:
                async with asyncio.timeout(budget):
                    try:
                        facts = await self._open(connection, stack)
                    except Broken as error:
                        if connection.probed and self.config.command and _DISLIKES_PROBE.search(error.detail):
                            raise _EndedByProbe(error.message, error.detail) from error
                        raise
                    self._handshake_first = not connection.is_modern
                    self._relist.clear()  # from here on a change may be one that the first listing does not show
                    tools, warning = await self._list_tools(connection)
            except TimeoutError:
                raise UpstreamError(f"not ready within connect_timeout_s={budget:g}") from None
            self._connection, self._modern_only = connection, False
            if self._subscribed or self._log_level:
                self._restoring = asyncio.create_task(self._restore(connection))
            took = time.monotonic() - began
            self._set("ready", facts=facts, tools=tools, warning=warning, connect_s=took, reason="", detail="")
            log.info("%s: ready, %d tools, %s", self.name, len(tools), facts.protocol)
            if self._was_asked_early:
                self._was_asked_early = False
                self._announce_lists(facts)
            try:
                return await self._follow_changes(connection)
            finally:
                self._connection = None

    async def _open(
        self, connection: Connection, stack: contextlib.AsyncExitStack, identity: str | None = None
    ) -> ServerFacts:
        """Connect and shake hands. `identity`: on whose behalf, for servers that need to know."""
        config, secrets = self.config, self._secrets
        if config.command is not None:
            connection.transport = await stack.enter_async_context(open_stdio(self.name, config, connection, secrets))
            return await self._handshake(connection)
        # These import an HTTP client, which takes 0.2 s that only remote upstreams should cost.
        from mcpgate.upstream.remote import open_streamable
        from mcpgate.upstream.sse import open_sse

        bearer = self._bearer_of(identity)
        if config.type == "sse" or (config.type is None and self._sse_only):
            connection.transport = await stack.enter_async_context(
                open_sse(self.name, config, connection, secrets, bearer)
            )
            return await self._handshake(connection, old=True)
        inner = await stack.enter_async_context(contextlib.AsyncExitStack())
        connection.transport = await inner.enter_async_context(
            open_streamable(self.name, config, connection, secrets, bearer)
        )
        try:
            return await self._handshake(connection)
        except UpstreamError as error:
            if config.type is not None or error.data.get("server_status") not in (400, 404, 405):
                raise
            refusal = error
        # The specification's way of detecting a server with the old transport.
        await inner.aclose()
        try:
            connection.transport = await stack.enter_async_context(
                open_sse(self.name, config, connection, secrets, bearer)
            )
            facts = await self._handshake(connection, old=True)
        except SignInNeeded:
            raise
        except UpstreamError as error:
            message = f"{refusal.message}; as an SSE server: {error.message}"
            raise UpstreamError(message, **refusal.data) from error
        self._sse_only = True
        return facts

    def _live_second(self, _: str) -> Connection:
        connection = Connection(self.name, lambda what: None, self._secrets, handshake_first=True)
        connection.roots = self._roots
        return connection

    def _own_connection(self, identity: str) -> Connection:
        return Connection(
            self.name,
            partial(self._on_list_changed, identity=identity),
            self._secrets,
            partial(self._on_updated, identity=identity),
            handshake_first=self._handshake_first,
        )

    async def _open_own(self, connection: Connection, stack: contextlib.AsyncExitStack, identity: str) -> ServerFacts:
        """Connect for one caller, who may have asked for lists before it had signed in."""
        facts = await self._open(connection, stack, identity)
        if self._log_level and "logging" in facts.capabilities:
            await self._send_log_level(connection)
        if identity in self._refused:
            self._refused.discard(identity)
            self._announce_lists(facts, identity)
        return facts

    async def _handshake(self, connection: Connection, old: bool = False) -> ServerFacts:
        handshake = asyncio.ensure_future(connection.handshake(self.config.connect_timeout_s, old))
        try:
            await asyncio.wait((handshake, connection.closed), return_when=asyncio.FIRST_COMPLETED)
            if not handshake.done():
                raise connection.closed.result()
            return handshake.result()
        finally:
            handshake.cancel()

    async def _list(self, connection: Connection, what: str, timeout_s: float) -> listing.Listed:
        config = self.config
        return await listing.list_all(
            connection, what, timeout_s=timeout_s, max_items=config.max_tools, max_mib=config.max_message_mib
        )

    async def _list_tools(self, connection: Connection) -> tuple[tuple[dict[str, Any], ...], str]:
        """The tools, and a warning about those left out."""
        try:
            listed = await self._list(connection, "tools", self.config.connect_timeout_s)
        except RpcError as error:
            if error.rpc_code == -32601:
                return (), ""  # a server with only resources or prompts
            raise
        if listed.warning and listed.warning != self.view.warning:
            log.warning("%s: %s", self.name, listed.warning)
        tools = self._allowed(listed.items)
        return self._callable(tools) if connection.is_modern and self.config.url else tools, listed.warning

    def _callable(self, tools: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        """Tools whose arguments can be repeated in headers as they want."""
        self._header_paths, chosen = {}, []
        for tool in tools:
            try:
                if paths := header_paths(tool.get("inputSchema")):
                    self._header_paths[tool["name"]] = paths
                chosen.append(tool)
            except Malformed as error:
                log.warning("%s: the tool %r is left out: %s", self.name, cut(tool["name"], MAX_NAME), error)
        return tuple(chosen)

    async def _restore(self, connection: Connection) -> None:
        """Ask a new session for what the last one was asked for."""
        try:
            if self._log_level:
                await self._send_log_level(connection)
            if self._subscribed:
                await connection.subscribe(self._subscribed, self.config.timeout_s)
        except UpstreamError as error:
            log.warning("%s: the new session lacks subscriptions or a log level: %s", self.name, self._told(error)[1])

    def _allowed(self, listed: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
        chosen, seen, nameless = [], set(), 0
        for tool in listed:
            name = tool.get("name")
            if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME or name in seen:
                nameless += 1
                if nameless == 1:
                    log.warning(
                        "%s: a tool without a usable, unique name is left out: %r", self.name, cut(name, MAX_NAME)
                    )
                continue
            seen.add(name)
            allowed = any(fnmatch.fnmatchcase(name, glob) for glob in self.config.tools.allow)
            if allowed and not any(fnmatch.fnmatchcase(name, glob) for glob in self.config.tools.deny):
                chosen.append(self._writable(tool))
        if nameless > 1:
            log.warning("%s: %d tools without usable, unique names are left out", self.name, nameless)
        return tuple(chosen)

    def _writable(self, tool: dict[str, Any]) -> dict[str, Any]:
        """The tool, without its schemas if they cannot be serialized (nested hundreds deep): one such tool must not
        hide the others."""
        try:
            jsontext.dumps(tool)
            return tool
        except ValueError as error:
            log.warning("%s: the schemas of %r are left out: %s", self.name, tool["name"], error)
            return {"name": tool["name"], "description": str(tool.get("description") or "")}

    async def _follow_changes(self, connection: Connection) -> Broken:
        failures = 0
        while True:
            change = asyncio.ensure_future(self._relist.wait())
            try:
                await asyncio.wait((change, connection.closed), return_when=asyncio.FIRST_COMPLETED)
            finally:
                change.cancel()
            if connection.closed.done():
                reason, detail = ("", "") if self._changes_era else self._told(connection.closed.result())
                self._set("connecting" if self._changes_era else "failed", reason=reason, detail=detail)
                return connection.closed.result()
            await asyncio.sleep(_DEBOUNCE_S)
            self._relist.clear()
            began = time.monotonic()
            try:
                tools, warning = await self._list_tools(connection)
            except UpstreamError as error:
                log.warning("%s: its changed tools could not be listed: %s", self.name, self._told(error)[1])
                self._relist.set()
                failures += 1
                pause_s = backoff_s(_RELIST_EVERY_S, failures, _LONGEST_RELIST_PAUSE_S)
            else:
                failures = 0
                if tools != self.view.tools or warning != self.view.warning:
                    self._set("ready", tools=tools, warning=warning)
                pause_s = max(_RELIST_EVERY_S - _DEBOUNCE_S, _RELIST_SHARE * (time.monotonic() - began))
            await asyncio.wait((connection.closed,), timeout=pause_s)

    def _on_list_changed(self, what: str, identity: str | None = None) -> None:
        if what in ("resources", "prompts"):
            connection = self._connection if identity is None else self._identities.find(identity)
            if connection is not None:
                self._lists.changed(connection, what)
            self._announce_list(Announcement("list", what, self.name, identity))
        elif what == "tools" and identity is None:
            self._relist.set()

    def _on_updated(self, uri: str, identity: str | None = None) -> None:
        self._announce(Announcement("updated", uri, self.name, identity))

    def _announce_lists(self, facts: ServerFacts, identity: str | None = None) -> None:
        """Say that there may be other lists than the last ones."""
        for what in facts.capabilities & {"resources", "prompts"}:
            self._announce(Announcement("list", what, self.name, identity))

    def _announce_list(self, announced: Announcement) -> None:
        """Say it in a moment, once, however often the server says it meanwhile: each client lists anew each time."""

        def tell() -> None:
            del self._to_tell[announced]
            self._announce(announced)

        if announced not in self._to_tell:
            self._to_tell[announced] = asyncio.get_running_loop().call_later(_DEBOUNCE_S, tell)

    def _announce(self, announced: Announcement) -> None:
        if announced.identity is not None or not self.per_user:  # else it concerns the account that is borrowed
            self._on_event(announced)

    def _set(self, state: State, **changes: Any) -> None:
        self.view = dataclasses.replace(self.view, state=state, **changes)
        self._changed.set()
        self._on_change()

    def __repr__(self) -> str:
        return f"<Upstream {self.name}: {self.view.state}>"


def anonymous(name: str, config: UpstreamConfig) -> Upstream:
    """The same server without any sign-in, to see what it asks for; it is not started."""
    return Upstream(name, config, lambda: None, lambda _: None)
