"""One live MCP session over one transport: ids and answers, the handshake of either protocol era, progress,
cancellation, sessions that the server has lost. Deliberately tolerant: a message is a dict, and only the parts it
uses are checked. Text from a server is cut to size and cannot be mistaken for the gateway's own. It does not start,
restart or share anything: see upstream.py.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcpgate import __version__
from mcpgate.client import Client
from mcpgate.errors import McpgateError, NotSupported, UpstreamError, UpstreamTimeout
from mcpgate.upstream.backchannel import ASKABLE, CAPABILITIES, lacking
from mcpgate.upstream.challenges import SignInNeeded
from mcpgate.upstream.framing import Broken, Message, Transport
from mcpgate.upstream.param_headers import encoded
from mcpgate.upstream.progress import Progress
from mcpgate.upstream.secrets import Secrets
from mcpgate.upstream.tasks import CAPABILITY, RELATED, makes_tasks_of_calls, with_extension
from mcpgate.upstream.untrusted import (
    MAX_INSTRUCTIONS,
    MAX_NAME,
    cut,
    fits,
    one_line,
    their_data,
    without_our_names,
)

HANDSHAKE_VERSION = "2025-11-25"
MODERN_VERSION = "2026-07-28"
_META = "io.modelcontextprotocol/"
_CLIENT = {"name": "mcpgate", "version": __version__}
_LISTEN_AGAIN_S = 2.0
_LONGEST_PAUSE_S = 60.0
_HAS_NO_STREAM = frozenset((400, 401, 403, 404, 405, 501))
_PROBE_S = 10.0
"""How long a server may take to confirm that it still knows our session."""
_SETTLE_S = 0.5
"""How long the first listing waits for the stream that announces changes."""
_RENEW_AGAIN_S = 10.0
"""If a server also refuses the request in a new session, no further session is requested for this long."""
_WARN_EVERY_S = 1.0
_LONGEST_ID = 200
MAX_URI = 4000
_LONGEST_LOG, _LONGEST_QUESTION = 64_000, 1_000_000
"""Characters of what is passed on to a client."""
_ANSWER_S = 600.0
"""How long a client may take to answer a question; meanwhile its call takes one of the server's places."""
_MOST_CAPABILITIES = 64
_MOST_ASKED = 32
"""Requests of a server that wait for a client's answer."""
_ROOTS_EVERY_S = 1.0
"""A server is told of changed roots at most this often."""
_ROOTS_ANSWER_S = 10.0
"""How long a client may take to list its roots when no request of it is under way."""
_UNSUPPORTED_VERSION = -32022
NAMED: Mapping[str, str] = {
    **{"tools/call": "name", "prompts/get": "name", "resources/read": "uri"},
    **dict.fromkeys(("tasks/get", "tasks/update", "tasks/cancel"), "taskId"),
}
"""Methods whose requests repeat a parameter in the `mcp-name` header, and which parameter, in the modern era."""
log = logging.getLogger("mcpgate.upstream")
AskRoots = Callable[[], Awaitable[dict[str, Any]]]
"""Gets a client's roots from it, as the result of `roots/list`. Raises NotSupported once the client is gone;
McpgateError."""

_REFUSES_SESSIONS = frozenset((400, 401, 404, 410, 412, 422, 440))
"""HTTP statuses that real servers return for an unknown session."""
_SPEAKS_OF_SESSIONS = re.compile(r"(?i)session|initiali[sz]|handshake")


class RpcError(UpstreamError):
    """The upstream answered a request with a JSON-RPC error."""

    def __init__(self, rpc_code: int, message: str, data: Any = None, **more: Any) -> None:
        super().__init__(message, rpc_code=rpc_code, data=data, **more)
        self.rpc_code, self.rpc_data = rpc_code, data


def rpc_error(error: Any, secrets: Secrets, status: int | None = None) -> RpcError:
    """A JSON-RPC error as a server sent it, which may be anything."""
    said = error if isinstance(error, dict) else {"message": error}
    code, text = said.get("code"), said.get("message") or said.get("data")
    return RpcError(
        code if isinstance(code, int) and abs(code) < 2**31 else 0,
        secrets.mask(text if isinstance(text, str) else cut(text)) or "the server gave no reason",
        secrets.mask_data(their_data(said.get("data"))),
        **({} if status is None else {"server_status": status}),
    )


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server said about itself in the handshake."""

    protocol: str
    name: str = ""
    title: str = ""
    version: str = ""
    instructions: str = ""
    capabilities: frozenset[str] = frozenset()
    """What it offers, such as `resources`; with what is true of it, such as `resources.subscribe`."""


class _Waiting:
    __slots__ = ("asked", "client", "future", "note", "progress", "standing", "task_id")

    def __init__(
        self,
        future: "asyncio.Future[dict[str, Any]]",
        progress: Progress,
        client: Client | None,
        standing: bool,
    ) -> None:
        self.future, self.progress, self.client, self.standing = future, progress, client, standing
        self.task_id: str | None = None
        """Of the task whose result it waits for."""
        self.asked: set[asyncio.Task[None]] = set()
        """What the server has asked the client meanwhile."""
        self.note = ""
        """What the server said in the meantime without naming a request."""


class Connection:
    """Requests and answers. Created, used and closed on one event loop; calls may come from any task."""

    def __init__(
        self,
        name: str,
        on_list_changed: Callable[[str], None],
        secrets: Secrets,
        on_updated: Callable[[str], None] = lambda uri: None,
        handshake_first: bool = False,
        patience_s: float = 0.0,
    ) -> None:
        """`on_list_changed` hears 'tools', 'resources' or 'prompts'; `on_updated` the URI of a resource that changed.
        `handshake_first`: ask for the newest revision only if the old greeting is refused. `patience_s`: how long the
        server may leave the question for that revision unanswered before it is greeted in the old way as well."""
        self._name, self._on_list_changed, self._secrets = name, on_list_changed, secrets
        self._on_updated, self._handshake_first, self._patience_s = on_updated, handshake_first, patience_s
        self._asked: dict[Any, asyncio.Task[None]] = {}
        """What the server has asked, by its ids."""
        self._subscribed: tuple[str, ...] = ()
        self.roots: AskRoots | None = None
        """Of the client that has changed them last."""
        self._roots_due: asyncio.TimerHandle | None = None
        self._roots_told_at = -_ROOTS_EVERY_S
        self.probed = False
        """Whether the server was asked for the newest revision."""
        self._waiting: dict[int, _Waiting] = {}
        self._next_id = 0
        self._modern = False
        self.facts: ServerFacts | None = None
        """What the server has said of itself in the handshake; None before."""
        self._listen: asyncio.Task[None] | None = None
        self._listening = asyncio.Event()
        self._missed_changes = False
        """Whether the server may have announced changes while nobody was listening."""
        self._renewal: asyncio.Task[None] | None = None
        self._renewed_in_vain = -_RENEW_AGAIN_S
        self._quiet_until = 0.0
        self.transport: Transport | None = None
        self.closed: asyncio.Future[Broken] = asyncio.get_running_loop().create_future()
        """Resolved with the reason when the other side is gone."""

    @property
    def is_modern(self) -> bool:
        """Whether the server speaks a revision without a handshake."""
        return self._modern

    @property
    def is_busy(self) -> bool:
        """Whether anyone is waiting for an answer."""
        return any(not waiting.standing for waiting in self._waiting.values())

    # --- Inbox

    def on_message(self, message: Message, status: int | None = None, beside: int | None = None) -> bool:
        without_our_names(message)
        method = message.get("method")
        if method is None:
            return self._on_answer(message, status)
        params = message.get("params")
        params = params if isinstance(params, dict) else {}
        if "id" in message:
            self._on_request(message["id"], method, params, beside)
        elif method == "notifications/progress":
            self._on_progress(params)
        elif isinstance(method, str) and method.endswith("/list_changed"):
            self._on_list_changed(method.split("/")[1])
        elif method == "notifications/resources/updated":
            self._on_updated(cut(params.get("uri"), MAX_URI))
        elif method == "notifications/subscriptions/acknowledged":
            self._on_listening()
        elif method == "notifications/message":
            self._on_log(params, beside)
        elif method == "notifications/cancelled":
            task = self._asked.get(_hashable(params.get("requestId")))
            if task is not None:
                task.cancel()
        return False

    def on_failure(self, request_id: int | None, error: UpstreamError) -> None:
        if request_id is not None:
            self._fail(request_id, error)
        else:
            self._stray(error)

    def on_close(self, reason: Broken) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)
        for id in list(self._waiting):
            self._fail(id, reason)

    def _on_answer(self, message: Message, status: int | None) -> bool:
        id = as_number(message.get("id"))
        waiting = self._waiting.pop(id, None) if id is not None else None
        error = message.get("error")
        if waiting is None:
            if error is not None and (id is None or not 0 < id <= self._next_id):
                self._stray(rpc_error(error, self._secrets, status))
            elif id is None:
                self._note(f"it sent an answer with the unknown id {one_line(message.get('id'), 50)!r}")
            return False
        if waiting.future.done():
            return False
        waiting.progress.flush()
        if error is None:
            result = message.get("result")
            waiting.future.set_result(result if isinstance(result, dict) else {"value": result})
        else:
            waiting.future.set_exception(rpc_error(error, self._secrets, status))
        return True

    def _stray(self, error: UpstreamError) -> None:
        """An error that names no request. If only one request is pending, it belongs to that one."""
        candidates = [id for id, waiting in self._waiting.items() if not waiting.standing]
        if len(candidates) == 1:
            self._fail(candidates[0], error)
            return
        text = f"it sent an error that names no request: {one_line(error.message, 500)}"
        self._note(text)
        now = asyncio.get_running_loop().time()
        if now >= self._quiet_until:
            self._quiet_until = now + _WARN_EVERY_S
            log.warning("%s: %s", self._name, self._secrets.mask(text))

    def _note(self, text: str) -> None:
        for waiting in self._waiting.values():
            waiting.note = text

    def _on_progress(self, params: dict[str, Any]) -> None:
        token = as_number(params.get("progressToken"))
        waiting = self._waiting.get(token) if token is not None else None
        if waiting is not None:
            waiting.progress.heard(params)

    def _fail(self, id: int, error: Exception) -> None:
        waiting = self._waiting.pop(id, None)
        if waiting is not None and not waiting.future.done():
            waiting.future.set_exception(error)

    def _on_log(self, params: dict[str, Any], beside: int | None) -> None:
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s says: %s", self._name, one_line(self._secrets.mask(cut(params.get("data"))), 500))
        if (waiting := self._meant(params, beside)) is not None and waiting.client is not None:
            if not fits(params, _LONGEST_LOG):
                params = {"level": cut(params.get("level"), 20), "data": "(a log message that is too long)"}
            waiting.client.log(self._secrets.mask_data(params))

    def _meant(self, params: dict[str, Any], beside: int | None) -> _Waiting | None:
        """The request that a message without its id belongs to: the one for the task that it names, or the one whose
        response brought it. On a transport with one stream it may be any of those under way; it is only known where
        they are all of one client."""
        meta = params.get("_meta")
        related = meta.get(RELATED) if isinstance(meta, dict) else None
        if isinstance(related, dict) and isinstance(related.get("taskId"), str):
            of_task = [waiting for waiting in self._waiting.values() if waiting.task_id == related["taskId"]]
            if of_task:
                return of_task[0]
        if beside is not None:
            return self._waiting.get(beside)
        candidates = [waiting for waiting in self._waiting.values() if waiting.client is not None]
        same = len({waiting.client.origin for waiting in candidates if waiting.client is not None}) == 1
        return candidates[-1] if same else None

    # --- What the server asks

    def _on_request(self, id: Any, method: Any, params: dict[str, Any], beside: int | None) -> None:
        if isinstance(id, bool) or not isinstance(id, (str, int, float)) or len(str(id)) > _LONGEST_ID:
            return
        if method == "ping":
            self._offer({"jsonrpc": "2.0", "id": id, "result": {}})
            return
        waiting = self._meant(params, beside)
        if method not in ASKABLE:
            self._refuse(id, -32601, f"{cut(method, MAX_NAME)} is not supported by this client")
        elif waiting is not None and waiting.client is not None:
            if not fits(params, _LONGEST_QUESTION):
                self._refuse(id, -32603, f"{method} is over {_LONGEST_QUESTION:,} characters")
                return
            task = self._answering(id, self._ask_client(id, method, params, waiting, waiting.client))
            if task is not None:
                waiting.asked.add(task)
                task.add_done_callback(waiting.asked.discard)
        elif method == "roots/list" and self.roots is not None:
            self._answering(id, self._ask_roots(id, self.roots))
        elif method == "roots/list":
            # Asked at the start of a session that is nobody's yet. Servers take no roots for no restriction.
            self._offer({"jsonrpc": "2.0", "id": id, "result": {"roots": []}})
        else:
            self._refuse(id, -32603, f"{method} cannot be matched to a client's request")

    def _answering(self, id: Any, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Answer a question of the server; None if too many are waiting for an answer."""
        if len(self._asked) >= _MOST_ASKED or id in self._asked:
            work.close()
            self._refuse(id, -32603, f"{len(self._asked)} requests of this server are already waiting for an answer")
            return None
        task = self._asked[id] = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._asked.pop(id, None))
        return task

    def roots_changed(self, roots: AskRoots) -> None:
        """Tell the server that the roots of a client have changed; when it asks for roots outside of requests, it gets
        this client's from now on."""
        if self._modern or self.closed.done():
            return  # a server of the modern era asks whenever it needs to know
        self.roots = roots
        if self._roots_due is None:
            loop = asyncio.get_running_loop()
            self._roots_due = loop.call_at(max(loop.time(), self._roots_told_at + _ROOTS_EVERY_S), self._tell_roots)

    def _tell_roots(self) -> None:
        self._roots_due, self._roots_told_at = None, asyncio.get_running_loop().time()
        self._offer({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"})

    async def _ask_roots(self, id: Any, roots: AskRoots) -> None:
        try:
            async with asyncio.timeout(_ROOTS_ANSWER_S):
                self._offer({"jsonrpc": "2.0", "id": id, "result": await roots()})
        except NotSupported:
            if self.roots is roots:
                self.roots = None
            self._offer({"jsonrpc": "2.0", "id": id, "result": {"roots": []}})
        except (McpgateError, TimeoutError) as error:
            log.debug("%s: a client did not list its roots: %s", self._name, error)
            self._refuse(id, -32603, "the client did not list its roots")

    async def _ask_client(
        self, id: Any, method: str, params: dict[str, Any], waiting: _Waiting, client: Client
    ) -> None:
        if missing := lacking(client.capabilities, method, params):
            self._refuse(id, -32601, f"the client of this request does not support {missing}")
            return
        try:
            with waiting.progress.paused():
                async with asyncio.timeout(_ANSWER_S):
                    result = await client.ask(method, params)
            answer: Message = {"jsonrpc": "2.0", "id": id, "result": result}
        except TimeoutError:
            said = f"the client gave no answer within {_ANSWER_S:g} s"
            answer = {"jsonrpc": "2.0", "id": id, "error": {"code": -32603, "message": said}}
        except RpcError as error:
            answer = {"jsonrpc": "2.0", "id": id, "error": {"code": error.rpc_code or -32603, "message": error.message}}
        except McpgateError as error:
            answer = {"jsonrpc": "2.0", "id": id, "error": {"code": -32603, "message": error.message}}
        try:
            if self.transport is not None:
                await self.transport.send(answer)
        except UpstreamError as error:
            log.debug("%s: an answer was not taken: %s", self._name, error)

    def _refuse(self, id: Any, code: int, reason: str) -> None:
        self._offer({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": reason}})

    def _offer(self, message: Message) -> None:
        if self.transport is not None:
            self.transport.offer(message)

    # --- requests

    async def request(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        timeout_s: float,
        total_s: float | None = None,
        client: Client | None = None,
        headers: Mapping[str, str] | None = None,
        confirm: Callable[[], Awaitable[None]] | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> dict[str, Any]:
        """Send a request and wait for its result, as the server sent it. Progress restarts the timeout until `total_s`
        have passed (None: it does not); while `client` is asked something, no time passes. A cancelled or timed-out
        request is cancelled at the server; one that a server refused because it has lost our session is made once more
        in a new one. `headers`: further ones for a server without a handshake. `confirm` may still refuse the request
        just before it is sent; `on_sent` is called when it is about to be sent. Raises RpcError, UpstreamError,
        UpstreamTimeout, and what `confirm` raises."""
        while self._renewal is not None:
            await asyncio.wait((self._renewal,))
        if confirm is not None:
            await confirm()
        if self.closed.done():
            raise self.closed.result()
        if on_sent is not None:
            on_sent()
        session = self.transport.session if self.transport is not None else None
        try:
            return await self._ask(method, params, timeout_s, total_s, client, headers)
        except UpstreamError as error:
            if session is None or not _may_mean_lost(error) or not await self._has_lost(session):
                raise
        await self._renew(session, timeout_s)
        if confirm is not None:
            await confirm()
        try:
            return await self._ask(method, params, timeout_s, total_s, client, headers)
        except UpstreamError as error:
            if _may_mean_lost(error):
                self._renewed_in_vain = asyncio.get_running_loop().time()
            raise

    async def _ask(
        self,
        method: str,
        params: dict[str, Any] | None,
        timeout_s: float,
        total_s: float | None = None,
        client: Client | None = None,
        headers: Mapping[str, str] | None = None,
        modern: bool | None = None,
    ) -> dict[str, Any]:
        """One request, once. `modern`: in an envelope of its own; None: as the server speaks."""
        total_s = max(timeout_s, total_s or 0.0)
        if self.closed.done():
            raise self.closed.result()
        transport = self.transport
        assert transport is not None
        self._next_id += 1
        id = self._next_id
        params = dict(params or {})
        meta = dict(params.get("_meta") or {})
        if client is not None:
            meta["progressToken"] = id
        fields = (
            {**self._envelope(method, params, meta, client), **(headers or {})}
            if modern or (modern is None and self._modern)
            else None
        )
        if meta:
            params["_meta"] = meta
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        progress = Progress(self._name, None if client is None else client.progress, timeout_s, total_s)
        waiting = _Waiting(future, progress, client, standing=method == "subscriptions/listen")
        if method == "tasks/result":
            waiting.task_id = str(params.get("taskId"))
        self._waiting[id] = waiting
        sent = False
        try:
            async with asyncio.timeout(timeout_s) as progress.timeout:
                await transport.send({"jsonrpc": "2.0", "id": id, "method": method, "params": params}, fields)
                sent = True
                return await future
        except TimeoutError:
            self._cancel(id, method, sent, "timed out")
            note = f"; meanwhile {waiting.note}" if waiting.note else ""
            if total_s > timeout_s and progress.is_out_of_time:
                text = f"no answer within total_timeout_s={total_s:g}, only progress"
            else:
                text = f"no answer within {timeout_s:g} s"
            raise UpstreamTimeout(f"{text}{note}") from None
        except asyncio.CancelledError:
            self._cancel(id, method, sent, "cancelled by the caller")
            raise
        finally:
            transport.give_up(id)  # its own response may never end, even if the answer arrived another way
            self._waiting.pop(id, None)
            progress.stop()
            for task in waiting.asked:
                task.cancel()
            if future.done() and not future.cancelled():
                future.exception()  # it may have failed after we stopped waiting, and no one needs to know

    def _envelope(
        self, method: str, params: dict[str, Any], meta: dict[str, Any], client: Client | None
    ) -> dict[str, str]:
        meta[_META + "protocolVersion"] = MODERN_VERSION
        capabilities = {} if client is None else client.capabilities
        about_tasks = method == "tools/call" or method.startswith("tasks/")
        meta[_META + "clientCapabilities"] = with_extension(capabilities) if about_tasks else dict(capabilities)
        meta[_META + "clientInfo"] = _CLIENT
        headers = {"mcp-protocol-version": MODERN_VERSION, "mcp-method": method}
        name = params.get(NAMED.get(method, ""))
        if isinstance(name, str):
            headers["mcp-name"] = encoded(name)
        return headers

    def _cancel(self, id: int, method: str, sent: bool, reason: str) -> None:
        if self.transport is None or self.closed.done():
            return
        # The protocol forbids cancelling `initialize`.
        if sent and method != "initialize" and not self.transport.hangs_up:
            params = {"requestId": id, "reason": reason}
            self.transport.offer({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})

    # --- sessions

    async def _has_lost(self, session: str) -> bool:
        """Whether the server no longer knows a session. Servers reject unknown sessions in different ways, but all
        answer a ping in one that they know."""
        assert self.transport is not None
        if self.transport.session != session:
            return True  # a new one has been made in the meantime
        if asyncio.get_running_loop().time() - self._renewed_in_vain < _RENEW_AGAIN_S:
            return False
        try:
            await self._ask("ping", None, _PROBE_S)
        except UpstreamError as error:
            return _may_mean_lost(error)
        return False

    async def _renew(self, lost: str, timeout_s: float) -> None:
        """Make a new session on the same transport, one at a time. Other requests in progress are not affected."""
        assert self.transport is not None
        if self.transport.session == lost and self._renewal is None:
            log.info("%s: the server no longer knows the session; a new one is made", self._name)
            self._renewal = asyncio.create_task(self._make_new_session(timeout_s))
        if self._renewal is not None:
            await asyncio.wait((self._renewal,))

    async def _make_new_session(self, timeout_s: float) -> None:
        try:
            await self.handshake(timeout_s)
            # It may have lost more than the session.
            self._on_list_changed("tools")
        except UpstreamError as error:
            self.on_close(Broken(f"the server no longer knows the session, and no new one could be made: {error}"))
        finally:
            self._renewal = None

    # --- the protocol

    async def handshake(self, timeout_s: float, old: bool = False) -> ServerFacts:
        """Agree on a protocol revision: the newest first, which needs no handshake. A server that leaves the question
        unanswered for a moment is greeted in the old way as well, and what it answers first counts. `old`: only in
        the old way."""
        assert self.transport is not None
        if old:
            return await self._greeted(await self._greet(timeout_s))
        if self._handshake_first:
            try:
                return await self._greeted(await self._greet(timeout_s))
            except Broken:
                raise
            except UpstreamError as error:
                try:
                    return await self._discovered(await self._probe(timeout_s))
                except UpstreamError:
                    raise error from None
        self.probed = True
        probe = asyncio.create_task(self._probe(timeout_s))
        greeting: asyncio.Task[dict[str, Any]] | None = None
        try:
            await asyncio.wait((probe,), timeout=self._patience_s)
            if not probe.done():
                greeting = asyncio.create_task(self._greet(timeout_s))
                await asyncio.wait((probe, greeting), return_when=asyncio.FIRST_COMPLETED)
                if not probe.done() and greeting.exception() is None:
                    return await self._greeted(greeting.result())
            try:
                return await self._discovered(await probe)
            except Broken:
                raise
            except UpstreamError:
                return await self._greeted(await (greeting or self._greet(timeout_s)))
        finally:
            for task in (probe, greeting):
                if task is not None and not task.cancel() and not task.cancelled():
                    task.exception()  # seen: the other answer counted, so nobody else asks for it

    async def _greet(self, timeout_s: float) -> dict[str, Any]:
        params = {"protocolVersion": HANDSHAKE_VERSION, "capabilities": CAPABILITIES, "clientInfo": _CLIENT}
        try:
            return await self._ask("initialize", params, timeout_s)
        except RpcError as refused:
            raise UpstreamError(f"the handshake failed: {refused.message}", **refused.data) from refused

    async def _greeted(self, result: dict[str, Any]) -> ServerFacts:
        assert self.transport is not None
        self._modern = False
        facts = self.facts = _facts(result, _version(result.get("protocolVersion")), result.get("serverInfo"))
        await self.transport.send(
            {"jsonrpc": "2.0", "method": "notifications/initialized"}, {"mcp-protocol-version": facts.protocol}
        )
        try:
            async with asyncio.timeout(_SETTLE_S):
                await self.transport.settled()
        except TimeoutError:
            pass  # it will announce itself when it opens
        return facts

    async def _probe(self, timeout_s: float) -> dict[str, Any]:
        """What a server without a handshake says of itself. Raises UpstreamError for any other."""
        try:
            result = await self._ask("server/discover", None, timeout_s, modern=True)
        except RpcError as error:
            supported = error.rpc_data.get("supported") if isinstance(error.rpc_data, dict) else None
            if error.rpc_code != _UNSUPPORTED_VERSION or MODERN_VERSION not in (supported or ()):
                raise
            result = await self._ask("server/discover", None, timeout_s, modern=True)
        versions = result.get("supportedVersions")
        if not isinstance(versions, list) or MODERN_VERSION not in versions:
            raise UpstreamError(f"it does not speak {MODERN_VERSION}")
        return result

    async def _discovered(self, result: dict[str, Any]) -> ServerFacts:
        self._modern = True
        meta = result.get("_meta")
        info = meta.get(_META + "serverInfo") if isinstance(meta, dict) else None
        await self._listen_anew()
        self.facts = _facts(result, MODERN_VERSION, info or result.get("serverInfo"))
        return self.facts

    async def _listen_anew(self) -> None:
        """Open the stream of changes with what is subscribed to now; waits a moment until it is heard."""
        if self._listen is not None:
            self._missed_changes = not self._listen.done()
            self._listen.cancel()
        self._listening.clear()
        self._listen = asyncio.create_task(self._listen_for_changes())
        try:
            async with asyncio.timeout(_SETTLE_S):
                await self._listening.wait()
        except TimeoutError:
            self._missed_changes = True

    async def subscribe(self, uris: Sequence[str], timeout_s: float) -> None:
        """Be told of changes of these resources, and of no others. Raises UpstreamError, RpcError."""
        before, self._subscribed = self._subscribed, tuple(uris)
        if self._modern:
            if before != self._subscribed:
                await self._listen_anew()
            return
        for uri in self._subscribed:
            if uri not in before:
                await self.request("resources/subscribe", {"uri": uri}, timeout_s=timeout_s)
        for uri in before:
            if uri not in self._subscribed:
                await self.request("resources/unsubscribe", {"uri": uri}, timeout_s=timeout_s)

    async def _listen_for_changes(self) -> None:
        kinds: dict[str, Any] = {"toolsListChanged": True, "resourcesListChanged": True, "promptsListChanged": True}
        if self._subscribed:
            kinds["resourceSubscriptions"] = list(self._subscribed)
        loop = asyncio.get_running_loop()
        pause_s = _LISTEN_AGAIN_S / 2
        while not self.closed.done():
            began = loop.time()
            try:
                await self._ask("subscriptions/listen", {"notifications": kinds}, 10**9)
            except UpstreamError as error:
                if isinstance(error, RpcError) or error.data.get("server_status") in _HAS_NO_STREAM:
                    log.debug("%s: no change notifications: %s", self._name, error)
                    self._listening.set()
                    return
            # The stream broke, but the connection may still be alive.
            pause_s = _LISTEN_AGAIN_S if loop.time() - began > pause_s else min(2 * pause_s, _LONGEST_PAUSE_S)
            self._missed_changes = True
            await asyncio.sleep(pause_s)

    def _on_listening(self) -> None:
        self._listening.set()
        if self._missed_changes:
            self._missed_changes = False
            self._on_list_changed("tools")

    def stop(self) -> None:
        if self._roots_due is not None:
            self._roots_due.cancel()
        for task in (self._listen, self._renewal, *self._asked.values()):
            if task is not None:
                task.cancel()
        self.on_close(Broken("the gateway closed the connection"))


def _may_mean_lost(error: UpstreamError) -> bool:
    """Whether such a refusal may mean that the server does not know our session."""
    if isinstance(error, (Broken, UpstreamTimeout, SignInNeeded)):
        return False
    status = error.data.get("server_status")
    if status in _REFUSES_SESSIONS:
        return True
    if status is None and not isinstance(error, RpcError):
        return False
    if isinstance(error, RpcError) and (error.rpc_code == -32600 or -32099 <= error.rpc_code <= -32000):
        return True  # server-defined codes
    said = f"{error.message} {error.data.get('server_said', '')}"
    return bool(_SPEAKS_OF_SESSIONS.search(said))


def as_number(id: Any) -> int | None:
    """One of our ids as servers return it: some as text, some as 1.0."""
    if isinstance(id, bool):
        return None
    if isinstance(id, int):
        return id
    if isinstance(id, float):
        return int(id) if id.is_integer() else None
    return int(id) if isinstance(id, str) and id.isascii() and id.isdigit() and len(id) < 18 else None


def _hashable(id: Any) -> Any:
    return id if isinstance(id, (str, int, float)) else None


def _version(said: Any) -> str:
    return said if isinstance(said, str) and re.fullmatch(r"[A-Za-z0-9.-]{1,32}", said) else HANDSHAKE_VERSION


def _facts(result: dict[str, Any], protocol: str, info: Any) -> ServerFacts:
    info = info if isinstance(info, dict) else {}
    capabilities = result.get("capabilities")
    named: list[str] = [CAPABILITY] if makes_tasks_of_calls(capabilities) else []
    for name, value in capabilities.items() if isinstance(capabilities, dict) else ():
        inner = [f"{name}.{key}" for key, set_ in value.items() if set_ is True] if isinstance(value, dict) else []
        named += [one for one in (name, *inner) if len(one) <= MAX_NAME]
    return ServerFacts(
        protocol=protocol,
        name=one_line(info.get("name"), MAX_NAME),
        title=one_line(info.get("title"), MAX_NAME),
        version=one_line(info.get("version"), MAX_NAME),
        instructions=cut(result.get("instructions"), MAX_INSTRUCTIONS),
        capabilities=frozenset(named[:_MOST_CAPABILITIES]),
    )
