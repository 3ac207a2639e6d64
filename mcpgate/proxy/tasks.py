"""A request of which a server has made a task, followed to its end: asked after, its questions answered, its result
fetched. The gateway's own tasks, which clients follow, are api/mcp/tasks.py's."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from mcpgate.client import Client, TaskState
from mcpgate.errors import McpgateError, UpstreamError, UpstreamTimeout
from mcpgate.upstream.backchannel import ask_all
from mcpgate.upstream.connection import RpcError
from mcpgate.upstream.tasks import RELATED, state_of
from mcpgate.upstream.upstream import Upstream

_MOST_FAILED_POLLS = 3
"""In a row, before a task counts as lost: it goes on at the server when a connection breaks."""
_CANCEL_S = 5.0
Result = dict[str, Any]
log = logging.getLogger("mcpgate.proxy")


def created_task(params: Mapping[str, Any], result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The task that a server of either era has answered a call with; None for any other result."""
    if result.get("resultType") == "task":
        return result
    task = result.get("task")
    return task if "task" in params and isinstance(task, dict) else None


class Followed:
    """One task at a server."""

    def __init__(
        self,
        upstream: Upstream,
        client: Client,
        identity: str | None,
        confirm: Callable[[], Awaitable[None]],
        modern: bool,
    ) -> None:
        """`identity` and `confirm`: see Upstream.limited_request. `modern`: the task is one of the extension, whose
        result is part of its state."""
        self._upstream, self._client, self._modern = upstream, client, modern
        self._send_anyway = partial(upstream.limited_request, client=client, identity=identity)
        self._send = partial(self._send_anyway, confirm=confirm)
        self._answered: set[str] = set()
        self._ends_at = 0.0

    async def result(self, created: Mapping[str, Any]) -> Result:
        """What the request would have returned without the task. It is cancelled at the server if nobody waits for it
        any longer. Raises RpcError, UpstreamError, UpstreamTimeout, and what `confirm` raises."""
        state = state_of(created)
        self._ends_at = asyncio.get_running_loop().time() + self._upstream.config.total_timeout_s
        over = False
        try:
            self._client.task(state)
            while True:
                if state.status == "working":
                    await asyncio.sleep(state.poll_s)
                # The first state has neither a result nor questions, whatever its status.
                task = await self._poll(state.id)
                state = state_of({"pollIntervalMs": state.poll_s * 1000, **task, "taskId": state.id})
                self._client.task(state)
                found = await self._step(task, state)
                if found is not None:
                    over = True
                    return found
                if self._left_s <= 0:
                    raise UpstreamTimeout(
                        f"upstream {self._upstream.name!r}: its task did not end within total_timeout_s="
                        f"{self._upstream.config.total_timeout_s:g}"
                    )
        except RpcError:
            over = True
            raise
        finally:
            if not over:
                _in_background(self._cancel(state.id))

    @property
    def _left_s(self) -> float:
        return self._ends_at - asyncio.get_running_loop().time()

    async def _step(self, task: Mapping[str, Any], state: TaskState) -> Result | None:
        """Do what the task's state asks for; the result if it is over."""
        if state.status == "working":
            return None
        if not self._modern:
            # Waits until the task is over; meanwhile the server asks what it needs to know.
            timeout_s = max(self._left_s, self._upstream.config.timeout_s)
            return _without_related(await self._send("tasks/result", {"taskId": state.id}, timeout_s=timeout_s))
        match state.status:
            case "completed":
                found = task.get("result")
                return found if isinstance(found, dict) else {}
            case "failed":
                raise self._upstream.rpc_error(task.get("error"))
            case "cancelled":
                raise UpstreamError(f"the server has cancelled its task: {state.message or 'it gave no reason'}")
        await self._answer(task, state)
        await asyncio.sleep(state.poll_s)
        return None

    async def _answer(self, task: Mapping[str, Any], state: TaskState) -> None:
        asked = task.get("inputRequests")
        new = (
            {name: one for name, one in asked.items() if name not in self._answered} if isinstance(asked, dict) else {}
        )
        if not new:
            return
        began = asyncio.get_running_loop().time()
        try:
            responses = await ask_all(self._client, new)
        except McpgateError as error:
            raise UpstreamError(f"the server needs input that it did not get: {error.message}") from error
        self._ends_at += asyncio.get_running_loop().time() - began  # people take their time
        self._answered |= new.keys()
        await self._send("tasks/update", {"taskId": state.id, "inputResponses": responses})

    async def _poll(self, id: str) -> Result:
        for failed in range(1, _MOST_FAILED_POLLS + 1):
            try:
                return await self._send("tasks/get", {"taskId": id})
            except RpcError:
                raise
            except UpstreamError as error:
                if failed == _MOST_FAILED_POLLS:
                    raise
                log.info("%s: a task could not be asked after, once more: %s", self._upstream.name, error.message)
                await asyncio.sleep(failed)
        raise AssertionError("unreachable")

    async def _cancel(self, id: str) -> None:
        try:
            await self._send_anyway("tasks/cancel", {"taskId": id}, timeout_s=_CANCEL_S)
        except McpgateError as error:
            log.debug("%s: a task was not cancelled: %s", self._upstream.name, error.message)


def _without_related(result: Result) -> Result:
    """A result that does not name the task, which nobody but the gateway knows."""
    meta = result.get("_meta")
    if not isinstance(meta, dict) or RELATED not in meta:
        return result
    return {**result, "_meta": {key: value for key, value in meta.items() if key != RELATED}}


_background: set["asyncio.Task[None]"] = set()


def _in_background(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)
    _background.add(task)
    task.add_done_callback(_background.discard)
