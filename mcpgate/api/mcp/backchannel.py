"""The way back to a client while its request is under way: progress, log messages, and questions. A client of the
handshake era is asked over its session. A later one is answered with what is needed, and its request is parked: see
parking.py, and tasks.py for calls that have become tasks."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mcpgate import jsontext
from mcpgate.api.mcp.changes import Changes
from mcpgate.api.mcp.protocol import Ask, RpcRequest
from mcpgate.client import TaskState
from mcpgate.errors import McpgateError, NotSupported
from mcpgate.governance.callers import Caller
from mcpgate.upstream.backchannel import ASKABLE, LOG_LEVELS, lacking
from mcpgate.upstream.tasks import RELATED
from mcpgate.upstream.untrusted import one_line

_KEPT_LOGS = 20
_LONGEST_SAID = 1000
"""Characters of what is last heard of a task."""
Result = dict[str, Any]


class BackChannel:
    """What one request of a client can reach it by; see governance.context.Client."""

    def __init__(self, request: RpcRequest, inner: bool = False, takes_tasks: bool = False) -> None:
        """`inner`: for calls that running code makes, of which the client knows nothing."""
        self.request, self._inner, self.takes_tasks = request, inner, takes_tasks
        self._count = 0
        self.parked: Parked | None = None
        self.state: TaskState | None = None
        """Of the task that the server has made of the request."""
        self.task_id: str | None = None
        """Of the task that the gateway has made of the request; its client waits for nothing any longer."""
        self.said = ""
        """What was last heard of it."""
        self.logs: deque[str] = deque(maxlen=_KEPT_LOGS)
        """The last log messages of calls that running code has made, a line each."""

    @property
    def capabilities(self) -> Mapping[str, Any]:
        reachable = self.request.ask is not None or self.parked is not None or self.takes_questions
        return self.request.capabilities if reachable else {}

    @property
    def origin(self) -> object:
        return self.request.origin

    @property
    def is_live(self) -> bool:
        return self.request.ask is not None and not self.request.capabilities.keys().isdisjoint(ASKABLE.values())

    @property
    def takes_questions(self) -> bool:
        return self.request.modern and not self._inner and self.task_id is None

    def task(self, state: TaskState) -> None:
        first, self.state = self.state is None, state
        if self.takes_tasks:
            self.said = state.message or self.said
            if self.parked is not None:
                self.parked.changed()
        elif first or state.message != self.said:
            self.said, self._count = state.message, self._count + 1
            message = {"message": state.message} if state.message else {}
            self._tell_progress({"progress": self._count, **message})

    def progress(self, params: Mapping[str, Any]) -> None:
        if self.task_id is not None and isinstance(params.get("message"), str):
            self.said = params["message"][:_LONGEST_SAID]
            if self.parked is not None:
                self.parked.changed()
        self._tell_progress(params)

    def _tell_progress(self, params: Mapping[str, Any]) -> None:
        token = self.request.progress_token
        if token is None:
            return
        if self._inner:
            # Of many calls; the protocol wants values that only ever grow.
            self._count += 1
            message = {"message": params["message"]} if isinstance(params.get("message"), str) else {}
            params = {"progress": self._count, **message}
        self._notify("notifications/progress", {**params, "progressToken": token})

    def log(self, params: Mapping[str, Any]) -> None:
        wanted, level = self.request.log_level, params.get("level")
        if self._inner:
            data = params.get("data")
            text = data if isinstance(data, str) else jsontext.dumps(data).decode("utf-8", "replace")
            self.logs.append(
                f"{one_line(params.get('logger') or '', 60)} {one_line(level, 20)}: {one_line(text, 300)}".strip()
            )
        if wanted is None and (self.request.modern or self._inner):
            return
        if wanted in LOG_LEVELS and level in LOG_LEVELS and LOG_LEVELS.index(level) < LOG_LEVELS.index(wanted):
            return
        self._notify("notifications/message", dict(params))

    def _notify(self, method: str, params: dict[str, Any]) -> None:
        if self.task_id is None:
            self.request.notify(method, params)
        elif self.request.session is not None:  # later revisions have nothing of the kind for tasks
            meta = {RELATED: {"taskId": self.task_id}}
            self.request.session.announce({"jsonrpc": "2.0", "method": method, "params": {**params, "_meta": meta}})

    async def ask(self, method: str, params: Mapping[str, Any]) -> Result:
        if missing := lacking(self.capabilities, method, params):
            raise NotSupported(f"the client of this request does not support {missing}", capability=missing)
        if self.parked is not None:
            return await self.parked.ask(method, params)
        if self.request.ask is None:
            raise NotSupported(f"the client of this request cannot be asked for {method}")
        return await self.request.ask(method, params)


class Parked:
    """A request whose work may outlive it: its client has to be asked in between, or fetches the result later."""

    def __init__(self, channel: BackChannel, work: Callable[[BackChannel], Awaitable[Result]], caller: Caller) -> None:
        self.channel, self.caller = channel, caller
        self._questions: dict[str, tuple[dict[str, Any], asyncio.Future[Result]]] = {}
        self._being_asked: set[str] = set()
        """Questions that a client answers live."""
        self._changes = Changes()
        self._number = 0
        self.on_change: Callable[[], None] = lambda: None
        channel.parked = self
        self.task = asyncio.ensure_future(work(channel))
        self.task.add_done_callback(lambda task: task.cancelled() or task.exception())  # its client may never ask

    async def ask(self, method: str, params: Mapping[str, Any]) -> Result:
        self._number += 1
        name = f"q{self._number}"
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._questions[name] = ({"method": method, "params": dict(params)}, future)
        self.changed()
        try:
            return await future
        finally:
            self._questions.pop(name, None)
            self.changed()

    def answer(self, responses: Any) -> None:
        """Take the answers that the client has sent; what is still open is asked again."""
        for name, response in responses.items() if isinstance(responses, dict) else ():
            found = self._questions.pop(name, None)
            if found is not None and not found[1].done():
                found[1].set_result(response if isinstance(response, dict) else {})

    def changed(self) -> None:
        """Tell whoever waits for something to happen."""
        self._changes.tell()
        self.on_change()

    @property
    def is_task(self) -> bool:
        """Whether the server has made a task of the request that its client follows."""
        return self.channel.takes_tasks and self.channel.state is not None

    async def leg(self, within_s: float | None = None) -> Result | None:
        """The result; None if the client is asked something first, if the request has become a task, or after
        `within_s` seconds. Raises what the work does."""
        deadline = None if within_s is None else asyncio.get_running_loop().time() + within_s
        while not self.task.done() and not self.is_task:
            if self._questions:
                await asyncio.sleep(0)  # what is asked at once is asked together
                return None
            left_s = None if deadline is None else deadline - asyncio.get_running_loop().time()
            if left_s is not None and left_s <= 0:
                return None
            await self._change(left_s)
        return self.task.result() if self.task.done() and not self.is_task else None

    async def see_through(self, ask: Ask | None, meta: Mapping[str, Any]) -> None:
        """Wait until the work is over; meanwhile a client that is there again is asked what is open, with `meta`."""
        asking: dict[str, asyncio.Task[None]] = {}
        try:
            while not self.task.done():
                for name in [*self._questions] if ask is not None else ():
                    if name not in self._being_asked:
                        self._being_asked.add(name)
                        asking[name] = asyncio.create_task(self._ask_live(ask, name, meta))
                await self._change()
        finally:
            for name, task in asking.items():
                task.cancel()
                self._being_asked.discard(name)

    async def _ask_live(self, ask: Ask | None, name: str, meta: Mapping[str, Any]) -> None:
        assert ask is not None
        if name not in self._questions:
            return  # answered in the meantime
        question, future = self._questions[name]
        params = question["params"]
        theirs = params.get("_meta")
        try:
            response = await ask(
                question["method"], {**params, "_meta": {**(theirs if isinstance(theirs, dict) else {}), **meta}}
            )
        except McpgateError as error:
            if not future.done():
                future.set_exception(error)
        else:
            self.answer({name: response})

    async def _change(self, within_s: float | None = None) -> None:
        """Wait for something to happen, or the end of the work."""
        change = self._changes.next()
        try:
            await asyncio.wait((self.task, change), timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            change.cancel()

    @property
    def questions(self) -> dict[str, Any]:
        return {name: question for name, (question, _) in self._questions.items()}
