"""Calls whose clients do not wait for them: the gateway's own tasks, in the form of either era. A task of a server is
followed in proxy/tasks.py. Ours live in this process, and nobody but their caller reaches them."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial

from mcpgate import jsontext
from mcpgate.api.mcp.backchannel import Parked, Result
from mcpgate.api.mcp.pages import page_of
from mcpgate.api.mcp.protocol import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    MISSING_CAPABILITY,
    RpcFault,
    RpcRequest,
    passed_on,
    refused_call,
)
from mcpgate.errors import McpgateError, RateLimited
from mcpgate.governance.callers import Caller
from mcpgate.governance.records import random_hex
from mcpgate.upstream.connection import RpcError
from mcpgate.upstream.tasks import EXTENSION, FINAL, RELATED, has_extension

_MOST, _MOST_EACH = 2000, 64
"""In total, and of one key."""
_KEPT_BYTES = 64 * 1024 * 1024
"""Of results that nobody has fetched yet."""
_TTL_S, _LONGEST_TTL_S = 3600.0, 24 * 3600.0
_POLL_S = 1.0
_RIGHTS_S = 1.0
"""How often a running task asks whether its caller still has its rights."""
Follower = Callable[[Result], None]


def missing_extension() -> RpcFault:
    needed: Result = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
    return RpcFault(MISSING_CAPABILITY, f"this takes a client that declares the extension {EXTENSION}", needed)


class GatewayTask:
    """One call that has become a task."""

    def __init__(self, parked: Parked, ttl_s: float) -> None:
        self.id = f"task-{random_hex(32)}"
        self.parked, self.ttl_s = parked, ttl_s
        self.created = self.updated = datetime.now(UTC)
        self.followers: list[Follower] = []
        self.error: RpcFault | None = None
        self.result: Result | None = None
        self.size = 0
        """Bytes of the result."""
        self._cancelled = self._ended = False

    @property
    def caller(self) -> Caller:
        return self.parked.caller

    @property
    def status(self) -> str:
        if self._cancelled:
            return "cancelled"
        if self.error is not None:
            return "failed"
        if self.result is not None:
            return "completed"
        return "input_required" if self.parked.questions else "working"

    @property
    def is_over(self) -> bool:
        return self.status in FINAL

    def cancel(self) -> None:
        self._cancelled = self._cancelled or not self.is_over
        self.parked.task.cancel()

    def end(self) -> None:
        """Take over what the work has come to."""
        task = self.parked.task
        if self._ended:
            return
        self._ended = True
        if task.cancelled():
            self._cancelled = True
            return
        error = task.exception()
        if error is None:
            try:
                self.size = len(jsontext.dumps(task.result()))
                self.result = task.result()
            except ValueError as unwritable:
                self.error = RpcFault(INTERNAL_ERROR, f"the result cannot be written as JSON: {unwritable}"[:500])
        elif isinstance(error, RpcError):
            self.error = passed_on(error.rpc_code, error.message, error.rpc_data, self.parked.channel.request.modern)
        elif isinstance(error, RpcFault):
            self.error = error
        elif isinstance(error, McpgateError):
            self.result = refused_call(self.parked.channel.request.context.trail, error)
        else:
            self.error = RpcFault(INTERNAL_ERROR, "the gateway failed; its log says why")

    def to_wire(self, modern: bool, detailed: bool = True) -> Result:
        """How it stands. `detailed`: with its result, error or questions, where the era has them there."""
        status, suffix, state = self.status, "Ms" if modern else "", self.parked.channel.state
        if not modern and status == "completed" and (self.result or {}).get("isError") is True:
            status = "failed"
        message = "the call was cancelled" if status == "cancelled" else self.parked.channel.said
        wire = {
            "taskId": self.id,
            "status": status,
            **({"statusMessage": message} if message else {}),
            "createdAt": _shown(self.created),
            "lastUpdatedAt": _shown(self.updated),
            f"ttl{suffix}": round(self.ttl_s * 1000),
            f"pollInterval{suffix}": round((state.poll_s if state is not None else _POLL_S) * 1000),
        }
        if not modern or not detailed:
            return wire
        if status == "completed":
            wire["result"] = self.result
        elif status == "failed" and self.error is not None:
            wire["error"] = self.error.to_wire(None)["error"]
        elif status == "input_required":
            wire["inputRequests"] = self.parked.questions
        return wire


class Tasks:
    """Every task by its id: bounded in number, time, and in what their results take."""

    def __init__(self, current: Callable[[Caller], Awaitable[Caller]]) -> None:
        """`current`: an identified caller as of now; see Gate.current."""
        self._current = current
        self._table: dict[str, GatewayTask] = {}
        self._watching: set[asyncio.Task[None]] = set()

    def check(self, caller: Caller) -> None:
        """Raises RateLimited if a caller can have no further task."""
        own = [task for task in self._table.values() if task.caller.account == caller.account]
        for full, tasks in ((len(own) >= _MOST_EACH, own), (len(self._table) >= _MOST, [*self._table.values()])):
            if not full:
                continue
            ended = next((task for task in tasks if task.is_over), None)
            if ended is None:
                raise RateLimited(
                    f"{len(tasks)} tasks are under way",
                    **{"scope": f"key {caller.account}", "limit": _MOST_EACH, "window": None, "retry_after_s": 1},
                )
            self._forget(ended.id)

    def keep(self, parked: Parked, request: RpcRequest) -> Result:
        """Go on with a call as a task; the answer to it."""
        asked = request.params.get("task")
        ttl_ms = asked.get("ttl") if isinstance(asked, dict) else None
        ttl_s = _TTL_S
        if isinstance(ttl_ms, (int, float)) and not isinstance(ttl_ms, bool):
            # Bounded before it is divided: integers may be too long for a float.
            ttl_s = min(max(ttl_ms, 1000), _LONGEST_TTL_S * 1000) / 1000
        task = GatewayTask(parked, ttl_s)
        # A task begins as one that works, also where its result is there by now.
        began = {**task.to_wire(request.modern, detailed=False), "status": "working"}
        try:
            self.check(parked.caller)
        except RateLimited:
            parked.task.cancel()
            raise
        self._table[task.id] = task
        parked.channel.task_id = task.id
        asyncio.get_running_loop().call_later(task.ttl_s, self._forget, task.id)
        if (session := request.session) is not None:
            told = "notifications/tasks/status"
            task.followers.append(lambda state: session.announce({"jsonrpc": "2.0", "method": told, "params": state}))
        parked.on_change = partial(self._changed, task)
        watch = asyncio.create_task(self._watch(task))
        self._watching.add(watch)
        watch.add_done_callback(self._watching.discard)
        return {"resultType": "task", **began} if request.modern else {"task": began}

    def get(self, request: RpcRequest) -> Result:
        """`tasks/get`. Raises RpcFault."""
        return self._find(request).to_wire(request.modern)

    def list(self, request: RpcRequest) -> Result:
        """`tasks/list` of the handshake era. Raises RpcFault."""
        own = [task for task in self._table.values() if _is_of(task, request.context.caller)]
        return page_of("tasks", [task.to_wire(modern=False) for task in own], request.params.get("cursor"))

    def update(self, request: RpcRequest) -> Result:
        """`tasks/update`: the answers to a task's questions, or some of them. Raises RpcFault."""
        self._find(request).parked.answer(request.params.get("inputResponses"))
        return {}

    def cancel(self, request: RpcRequest) -> Result:
        """`tasks/cancel`. Raises RpcFault."""
        task = self._find(request)
        if not request.modern and task.is_over:
            raise RpcFault(INVALID_PARAMS, f"this task is over: it is {task.to_wire(modern=False)['status']}")
        if not task.is_over:
            task.cancel()
        return {} if request.modern else task.to_wire(modern=False)

    async def result(self, request: RpcRequest) -> Result:
        """`tasks/result` of the handshake era: waits until the task is over; meanwhile the client is asked what the
        task needs to know. Raises RpcFault."""
        task = self._find(request)
        related = {RELATED: {"taskId": task.id}}
        await task.parked.see_through(request.ask, related)
        task.end()
        if task.error is not None:
            raise task.error
        if task.result is None:
            raise RpcFault(INVALID_PARAMS, "this task was cancelled")
        meta = task.result.get("_meta")
        return {**task.result, "_meta": {**(meta if isinstance(meta, dict) else {}), **related}}

    def follow(self, id: str, caller: Caller, follower: Follower) -> Callable[[], None] | None:
        """Tell of every change of a task. Returns what ends that; None if the caller has no such task."""
        task = self._table.get(id)
        if task is None or not _is_of(task, caller):
            return None
        task.followers.append(follower)

        def remove() -> None:
            with contextlib.suppress(ValueError):
                task.followers.remove(follower)

        return remove

    def _find(self, request: RpcRequest) -> GatewayTask:
        if request.modern and not has_extension(request.capabilities):
            raise missing_extension()
        id = request.params.get("taskId")
        task = self._table.get(id) if isinstance(id, str) else None
        if task is None or not _is_of(task, request.context.caller):
            raise RpcFault(INVALID_PARAMS, "there is no such task, or it has expired")
        task.parked.caller = task.caller.renewed(by=request.context.caller)
        return task

    async def _watch(self, task: GatewayTask) -> None:
        """Until the work is over, and end it when its caller has lost its rights."""
        work = task.parked.task
        while not work.done():
            await asyncio.wait((work,), timeout=None if task.caller.is_local else _RIGHTS_S)
            if not work.done() and not task.caller.is_local:
                try:
                    await self._current(task.caller)
                except McpgateError:
                    work.cancel()
        task.end()
        self._changed(task)
        self._make_room()

    def _changed(self, task: GatewayTask) -> None:
        task.updated = datetime.now(UTC)
        modern = task.parked.channel.request.modern
        for follower in [*task.followers]:
            follower(task.to_wire(modern))

    def _make_room(self) -> None:
        """Forget the oldest results of whoever has most of them, until they fit."""
        sizes: Counter[str] = Counter()
        for task in self._table.values():
            sizes[task.caller.account] += task.size
        while sizes.total() > _KEPT_BYTES and sum(task.size > 0 for task in self._table.values()) > 1:
            account = max(sizes, key=sizes.__getitem__)
            oldest = next(task for task in self._table.values() if task.caller.account == account and task.size)
            sizes[account] -= oldest.size
            self._forget(oldest.id)

    def _forget(self, id: str) -> None:
        task = self._table.pop(id, None)
        if task is not None:
            task.parked.task.cancel()


def _is_of(task: GatewayTask, caller: Caller) -> bool:
    return (task.caller.owner, task.caller.bundle) == (caller.owner, caller.bundle)


def _shown(when: datetime) -> str:
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
