"""What one client has open. `Requests`, for every transport: requests that run side by side and can be cancelled.
`Session`, for stdio, SSE and streamable HTTP of the handshake era: change notifications too."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from typing import Any

from mcpgate.api.mcp.face import McpFace
from mcpgate.api.mcp.protocol import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    Message,
    RpcFault,
    RpcRequest,
    client_of,
    id_of,
    is_notification,
    is_response,
    parse_request,
    refusal,
)
from mcpgate.errors import McpgateError, NotSupported, RateLimited
from mcpgate.governance.callers import LOCAL, Caller
from mcpgate.governance.context import RequestContext
from mcpgate.upstream.backchannel import ASKABLE
from mcpgate.upstream.connection import RpcError
from mcpgate.upstream.upstream import Announcement

MAX_BATCH = 1000
_MAX_UNDER_WAY = 2000
_SHORT = ("initialize", "ping", "server/discover", "tools/list")
"""What is answered without asking anybody."""
_MOST_QUESTIONS = 100
"""That wait for the client's answers."""
_ROOTS_AFTER_S = 0.1
"""Changes of a client's roots within this time are one."""
_AT_A_TIME = 8
"""Of short requests, how many are answered before everybody else has a turn."""
Send = Callable[[Message], None]
Task = asyncio.Task[Message | None]


class Requests:
    """Requests under way, by their ids."""

    def __init__(self, face: McpFace) -> None:
        self.face = face
        self.tasks: dict[Any, Task] = {}
        self._under_way: set[Task] = set()
        """All of them, those too whose id another request has taken over."""
        self._turn = asyncio.Lock()

    def start(self, message: Any, send: Send, context: RequestContext, modern: bool = False) -> Task | None:
        """Serve one decoded request; its notifications, then its answer, go to `send`. The task ends when the answer
        has been sent; None for what is no request, which is answered at once. `modern`: the transport says that it is
        of a revision without a handshake."""

        def notify(method: str, params: dict[str, Any]) -> None:
            with contextlib.suppress(ValueError):  # what an upstream sends may have no JSON form
                send({"jsonrpc": "2.0", "method": method, "params": params})

        try:
            request = parse_request(message, context, notify, modern=modern)
        except RpcFault as fault:
            send(fault.to_wire(id_of(message)))
            return None
        if len(self._under_way) >= _MAX_UNDER_WAY:
            limited = RateLimited(
                f"{_MAX_UNDER_WAY} requests are under way",
                **{"scope": "session", "limit": _MAX_UNDER_WAY, "window": None, "retry_after_s": 1},
            )
            send(refusal(limited).to_wire(request.id))
            return None
        request.origin = self
        self._begin(request, send)
        task = asyncio.create_task(self._serve(request, send))
        self.tasks[request.id] = task
        self._under_way.add(task)
        task.add_done_callback(lambda done: self._forget(request.id, done))
        return task

    def cancel(self, id: Any) -> None:
        task = self.tasks.get(id) if isinstance(id, (str, int, float)) else None
        if task is not None:
            task.cancel()

    def close(self) -> None:
        for task in list(self._under_way):
            task.cancel()

    def _begin(self, request: RpcRequest, send: Send) -> None:
        """For sessions."""

    async def _serve(self, request: RpcRequest, send: Send) -> Message | None:
        if request.method not in _SHORT or len(self._under_way) <= _AT_A_TIME:
            answer = await self._answer(request)
            _send(send, answer)
            return answer
        async with self._turn:  # a thousand short ones in one batch would keep everybody else waiting
            answer = await self._answer(request)
            _send(send, answer)
            await asyncio.sleep(0)
        return answer

    async def _answer(self, request: RpcRequest) -> Message:
        return await self.face.answer(request)

    def _forget(self, id: Any, task: Task) -> None:
        self._under_way.discard(task)
        if self.tasks.get(id) is task:
            del self.tasks[id]


def _send(send: Send, answer: Message) -> None:
    try:
        send(answer)
    except ValueError as error:
        fault = RpcFault(INTERNAL_ERROR, f"the answer cannot be written as JSON: {error}"[:500])
        send(fault.to_wire(answer["id"]))


class Session(Requests):
    """Messages of one client, in order."""

    def __init__(
        self,
        face: McpFace,
        send: Send,
        caller: Caller = LOCAL,
        announce: Send | None = None,
        identify: Callable[[], Awaitable[Caller]] | None = None,
    ) -> None:
        """`send` gets answers and the notifications that belong to a request; `announce` change notifications, if they
        go elsewhere. `identify` is asked before each request, where one connection is all there is to know a caller
        by."""
        super().__init__(face)
        self.send, self.caller = send, caller
        self._announce, self._identify = announce, identify
        self._unsubscribe: Callable[[], None] | None = None
        self._capabilities: Mapping[str, Any] = {}
        self._questions: dict[Any, asyncio.Future[dict[str, Any]]] = {}
        self._numbers = count(1)
        self._closed = False
        self._roots_due: asyncio.TimerHandle | None = None
        self.log_level: str | None = None
        self._client = ""
        """What the client is called, as it says itself."""
        self.subscriptions: dict[str, Callable[[], None]] = {}
        """URI → what ends the subscription."""

    def receive(self, message: Any) -> None:
        """Take one decoded message."""
        if isinstance(message, list):
            if not message:
                self.send(RpcFault(INVALID_REQUEST, "an empty batch").to_wire(None))
            for one in message[:MAX_BATCH]:
                if not isinstance(one, list):
                    self.receive(one)
        elif is_response(message):
            self._on_answer(message)
        elif is_notification(message):
            self._on_notification(message)
        else:
            self.start(message, self.send, RequestContext(self.caller))

    def announce(self, message: Message) -> None:
        """Tell the client what belongs to no request."""
        (self._announce or self.send)(message)

    def follow_changes(self) -> None:
        """Tell this client, which need not ask for it, of every change of the lists that it sees."""

        def changed(announced: Announcement) -> None:
            if self.face.concerns(self.caller, announced):
                self.announce({"jsonrpc": "2.0", "method": f"notifications/{announced.what}/list_changed"})

        if self._unsubscribe is None:
            self._unsubscribe = self.face.gateway.on_list_changed(changed)

    async def finish(self, grace_s: float) -> None:
        """Let requests under way come to their end for a while, then close."""
        left = [task for task in self._under_way if not task.done()]
        if left:
            await asyncio.wait(left, timeout=grace_s)
        self.close()

    def close(self) -> None:
        self._closed = True
        if self._roots_due is not None:
            self._roots_due.cancel()
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        for remove in self.subscriptions.values():
            remove()
        self.subscriptions.clear()
        super().close()

    def _begin(self, request: RpcRequest, send: Send) -> None:
        if request.method == "initialize":
            self._client = client_of(request.params)
            offered = request.params.get("capabilities")
            self._capabilities = offered if isinstance(offered, dict) else {}
            if not self._capabilities.keys().isdisjoint(ASKABLE.values()):
                self.face.gateway.pool.expect_live_clients()
            self.follow_changes()
        if self._client and not request.modern:
            request.context.about = {**request.context.about, "client": self._client}
        if not request.modern:
            request.session, request.capabilities, request.log_level = self, self._capabilities, self.log_level
            request.ask = lambda method, params: self._ask(send, method, params)

    async def _ask(self, send: Send, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Have the client answer a request, sent on the way that the answer to its own request takes."""
        if len(self._questions) >= _MOST_QUESTIONS:
            raise RateLimited("too many questions are waiting for this client to answer", limit=_MOST_QUESTIONS)
        id = f"mcpgate-{next(self._numbers)}"
        future = self._questions[id] = asyncio.get_running_loop().create_future()
        try:
            send({"jsonrpc": "2.0", "id": id, "method": method, "params": dict(params)})
            result: dict[str, Any] = await future
            return result
        except asyncio.CancelledError:
            cancelled = {"requestId": id, "reason": "it is no longer needed"}
            send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled})
            raise
        finally:
            del self._questions[id]

    def _on_answer(self, message: Message) -> None:
        id, error = message.get("id"), message.get("error")
        future = self._questions.get(id) if isinstance(id, str) else None
        if future is None or future.done():
            return
        if error is None:
            result = message.get("result")
            future.set_result(result if isinstance(result, dict) else {})
            return
        said = error if isinstance(error, dict) else {}
        code, text = said.get("code"), said.get("message")
        future.set_exception(
            RpcError(
                code if isinstance(code, int) else INTERNAL_ERROR,
                text if isinstance(text, str) else "the client answered with an error",
                said.get("data"),
            )
        )

    async def _answer(self, request: RpcRequest) -> Message:
        if self._identify is not None:
            try:
                request.context.caller = self.caller = await self._identify()
            except McpgateError as error:
                return refusal(error).to_wire(request.id)
        return await super()._answer(request)

    def _on_notification(self, message: Message) -> None:
        params = message.get("params")
        if message["method"] == "notifications/cancelled" and isinstance(params, dict):
            self.cancel(params.get("requestId"))
        elif message["method"] == "notifications/roots/list_changed":
            self._roots_changed()

    def _roots_changed(self) -> None:
        if "roots" in self._capabilities and self._roots_due is None and not self._closed:
            self._roots_due = asyncio.get_running_loop().call_later(_ROOTS_AFTER_S, self._tell_roots)

    def _tell_roots(self) -> None:
        self._roots_due = None
        self.face.gateway.roots.changed(self.caller, self._roots)

    async def _roots(self) -> dict[str, Any]:
        if self._closed:
            raise NotSupported("the client whose roots these are is gone")
        return await self._ask(self.announce, "roots/list", {})
