"""The host's half of an execution, the same for every engine: what is counted, what is refused, what is believed.

A guest reaches its host through four functions, `submit`, `poll`, `call` and `emit` (guest/world.wit), whatever
carries them: Wasm imports, or frames over a socket. `Call` answers them. All policy is here and nothing that a guest
sends is believed but for its form.
"""

import asyncio
import json
import queue
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import orjson

from mcpgate_sandbox.engine import Execution, Handle, Limits, Outcome
from mcpgate_sandbox.errors import Cancelled, CodeFailed, Crashed, LimitReached, SandboxError, ToolFailed

_MOST_ERROR_CHARS = 100_000
"""Of an error's message, either way."""
_MOST_REPORTS = 5
"""Failures of the host itself that one execution may write into the log."""
_MOST_REFUSALS = 1000
"""Calls beyond their number that are answered with an error, before the execution ends."""
_RESULT_HEAD = '{"result":'


class Violation(Exception):
    """The guest broke the protocol between guest and host."""


class Border(Protocol):
    """What a guest can ask of its host. Each may raise to end the guest."""

    def submit(self, id: int, name: str, arguments: str) -> None: ...

    def poll(self, timeout_ms: int) -> str: ...

    def call(self, name: str, arguments: str) -> str: ...

    def emit(self, fd: int, text: str) -> None: ...


class Call:
    """One execution, seen from the host. Tool calls run on the event loop; `Border` is called in the thread that
    serves the guest, which is where waiting is done."""

    def __init__(self, execution: Execution, loop: asyncio.AbstractEventLoop) -> None:
        self.execution, self.limits = execution, execution.limits
        self.stopped: SandboxError | None = None
        self.on_stop: Callable[[], None] | None = None
        """Called, on the event loop, when the execution is given up while its guest may be busy."""
        self.tool_calls = 0
        self.mark = f"$handle:{secrets.token_hex(8)}"
        """The key that stands for a handle on the way over the border: a new one for each execution, so that no
        upstream can put a handle into its data."""
        self._loop = loop
        self._outbox: deque[tuple[int, str, str]] = deque()
        """Calls that the guest has made and the event loop has not seen yet. It is woken for the first only: each
        waking costs more than a call."""
        self._loop_is_woken = False
        self._answered: list[tuple[int, str]] = []
        """Answers of this turn of the event loop: the guest is woken once for all of them."""
        self._inbox: queue.SimpleQueue[list[tuple[int, str]]] = queue.SimpleQueue()
        self._ready: deque[tuple[int, str]] = deque()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(execution.limits.max_parallel_calls)
        self._in_flight: set[int] = set()
        """Ids that the guest may not use again yet."""
        self._awaited: set[int] = set()
        """Those among them whose answer may still come: waiting is then waiting for tools."""
        self._next_sync = 0
        self._ended = False
        self._held = _Held(4 * max(self.limits.max_argument_chars, self.limits.max_reply_chars))
        self._reported = self._answer_chars = 0
        self._output: tuple[list[str], list[str]] = ([], [])
        self._output_chars = 0
        self._tool_wait_s = 0.0
        self._began = self._cpu_began = 0.0
        self._cpu_clock: Callable[[], float] = time.thread_time

    # --- on the event loop

    def stop(self, reason: SandboxError) -> None:
        """End the guest at its next tick or wait."""
        if self.stopped is None:
            self.stopped = reason
        self._inbox.put([(0, "")])
        on_stop = self.on_stop  # the guest's thread may take it away at any moment
        if on_stop is not None:
            on_stop()

    def cancel_all(self) -> None:
        """Cancel the tool calls that are still on their way."""
        self._ended = True
        for task in list(self._tasks.values()):
            task.cancel()

    def _start_all(self) -> None:
        self._loop_is_woken = False  # before looking: what comes from now on wakes it again
        while self._outbox:
            self._start(*self._outbox.popleft())

    def _start(self, id: int, name: str, arguments: str) -> None:
        if self._ended:
            return
        task = self._loop.create_task(self._answer(id, name, arguments))
        self._tasks[id] = task

        def done(_: object) -> None:
            self._tasks.pop(id, None)
            self._held.give(len(arguments))

        task.add_done_callback(done)

    async def _answer(self, id: int, name: str, arguments: str) -> None:
        try:
            async with self._turns:
                answer = await self._ask(name, arguments)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            answer = self._error(ToolFailed("the call was cancelled on its way"), name)
        except ToolFailed as error:
            answer = self._error(error, name)
        except Exception as error:  # a defect of the host's own: the guest hears of it, and goes on
            answer = self._error(ToolFailed(f"the gateway failed: {type(error).__name__}"), name)
            self._report(name, error)
        self._answer_chars += len(answer)
        if not self._held.take(len(answer)):
            answer = self._error(ToolFailed(f"too much at once: {self._held}; read answers before asking on"), name)
            self._held.force(len(answer))
        self._answered.append((id, answer))
        if len(self._tasks) == 1:  # its own
            self._wake_guest()
        elif len(self._answered) == 1:
            self._loop.call_soon(self._wake_guest)

    def _wake_guest(self) -> None:
        if self._answered:
            answered, self._answered = self._answered, []
            self._inbox.put(answered)

    async def _ask(self, name: str, arguments: str) -> str:
        server, _, tool = name.partition(".")
        positional, named = self._parsed(arguments)
        value = await self.execution.call_tool(server, tool, positional, named)
        return self._checked(value)

    def _checked(self, value: Any) -> str:
        depth = self.limits.max_depth
        if _deeper_than(value, depth):
            raise ToolFailed(f"the answer is nested deeper than the sandbox takes (max_depth={depth})")
        answer = encode_answer(value, self.mark)
        if len(answer) > self.limits.max_reply_chars:
            raise ToolFailed(
                f"the answer has {len(answer):,} characters, more than the sandbox takes "
                f"(max_reply_chars={self.limits.max_reply_chars:,}); ask the tool for less at a time"
            )
        return answer

    def _parsed(self, arguments: str) -> tuple[list[Any], dict[str, Any]]:
        positional, named = _parse_arguments(arguments, self.limits.max_depth)
        return _handles_in(positional, self.mark, arguments), _handles_in(named, self.mark, arguments)

    def _error(self, error: ToolFailed, name: str) -> str:
        """A failure as the guest gets it; what its `data` cannot be is left out."""
        server, _, tool = name.partition(".")
        fields = {"kind": error.kind, "message": str(error.message)[:_MOST_ERROR_CHARS]}
        fields |= {"server": str(error.server or server), "tool": str(error.tool or tool)}
        try:
            if not _deeper_than(error.data, self.limits.max_depth):
                answer = "-" + encode_answer({**fields, "data": error.data}, self.mark)[1:]
                if len(answer) <= max(self.limits.max_reply_chars, 2 * _MOST_ERROR_CHARS):
                    return answer
        except (TypeError, ValueError, RecursionError):
            pass
        return "-" + encode_answer({**fields, "data": None}, self.mark)[1:]

    def _report(self, name: str, error: Exception) -> None:
        self._reported += 1
        if self._reported > _MOST_REPORTS:
            return
        self._loop.call_exception_handler({"message": f"tool call {name} failed in the host", "exception": error})

    # --- in the guest's thread

    def begin(self, cpu_clock: Callable[[], float]) -> None:
        """The guest starts; `cpu_clock` gives the CPU seconds it has used, from any point on. Raises what ended the
        execution before."""
        self.check_stopped()
        self._cpu_clock = cpu_clock
        self._cpu_began, self._began = cpu_clock(), time.monotonic()
        if self.execution.on_started is not None:
            self.execution.on_started()

    def tick(self) -> None:
        """Look at the clocks; raises what ends the guest."""
        self.check_stopped()
        if self.time_left() <= 0:
            if self._cpu_clock() - self._cpu_began >= self.limits.cpu_s:
                self.stopped = LimitReached("cpu_s", f"the code used its {self.limits.cpu_s:g} s of CPU time")
            else:
                self.stopped = self._timeout()
        self.check_stopped()

    def time_left(self) -> float:
        """Seconds for which a busy guest need not be looked at: no limit of time can be reached before."""
        cpu = self.limits.cpu_s - (self._cpu_clock() - self._cpu_began)
        return min(cpu, self._own_time_left())

    def _own_time_left(self) -> float:
        return self.limits.timeout_s - (time.monotonic() - self._began - self._tool_wait_s)

    def _timeout(self) -> LimitReached:
        return LimitReached("timeout_s", f"timeout: the execution took longer than {self.limits.timeout_s:g} s")

    def check_stopped(self) -> None:
        """Raise what ended the execution, if something did."""
        if self.stopped is not None:
            raise self.stopped

    def submit(self, id: int, name: str, arguments: str) -> None:
        refusal = self._refusal(name, arguments)
        if id in self._in_flight or id <= 0:
            raise Violation("a call id was used twice")
        self._in_flight.add(id)
        if refusal is not None:
            answer = self._error(refusal, name)
            self._held.force(len(answer))
            self._ready.append((id, answer))
            return
        self._awaited.add(id)
        self._hand_over(id, name, arguments)

    def _hand_over(self, id: int, name: str, arguments: str) -> None:
        self._outbox.append((id, name, arguments))
        if not self._loop_is_woken:
            self._loop_is_woken = True
            self._loop.call_soon_threadsafe(self._start_all)

    def call(self, name: str, arguments: str) -> str:
        if name.startswith("@"):
            return self._host_call(name, arguments)
        refusal = self._refusal(name, arguments)
        if refusal is not None:
            return self._error(refusal, name)
        self._next_sync -= 1
        id = self._next_sync
        self._awaited.add(id)
        self._hand_over(id, name, arguments)
        mine = None
        while mine is None:
            for arrived, answer in self._wait(None):
                if arrived == id:
                    mine = answer
                else:
                    self._ready.append((arrived, answer))
        self._held.give(len(mine))
        return mine

    def poll(self, timeout_ms: int) -> str:
        if not self._ready:
            try:
                self._ready.extend(self._wait(None if timeout_ms < 0 else timeout_ms / 1000))
            except queue.Empty:
                return ""
        while True:
            try:
                self._ready.extend(self._arrived(self._inbox.get_nowait()))
            except queue.Empty:
                break
        arrived, self._ready = self._ready, deque()
        self._in_flight.difference_update(id for id, _ in arrived)
        self._held.give(sum(len(answer) for id, answer in arrived if id))
        head = " ".join(f"{id}:{len(answer)}" for id, answer in arrived if id)
        return f"{head}\n{''.join(answer for id, answer in arrived if id)}"

    def emit(self, fd: int, text: str) -> None:
        if not text:
            return
        limit = self.limits.max_output_chars
        room = limit - self._output_chars
        self._output[0 if fd == 1 else 1].append(text[:room])
        self._output_chars += len(text)
        if len(text) > room and self.stopped is None:
            self.stopped = LimitReached("max_output_chars", f"the code printed more than {limit:,} characters")
        self.check_stopped()

    def _wait(self, timeout_s: float | None) -> list[tuple[int, str]]:
        """The next answers. Raises queue.Empty when `timeout_s` is over, and what ends the execution."""
        self.check_stopped()
        for_tools = bool(self._awaited)
        left = self.limits.tool_wait_s - self._tool_wait_s if for_tools else self._own_time_left()
        began = time.monotonic()
        try:
            timeout = max(0.0, left if timeout_s is None else min(timeout_s, left))
            return self._arrived(self._inbox.get(timeout=timeout))
        except queue.Empty:
            if time.monotonic() - began >= left and self.stopped is None:
                waited = f"timeout: the execution waited longer than {self.limits.tool_wait_s:g} s for tools"
                self.stopped = LimitReached("tool_wait_s", waited) if for_tools else self._timeout()
            raise
        finally:
            if for_tools:
                self._tool_wait_s += time.monotonic() - began
            self.check_stopped()

    def _arrived(self, answers: list[tuple[int, str]]) -> list[tuple[int, str]]:
        self._awaited.difference_update([id for id, _ in answers])
        return answers

    def _refusal(self, name: str, arguments: str) -> ToolFailed | None:
        self.tool_calls += 1
        count = self.limits.max_tool_calls
        if self.tool_calls > count + _MOST_REFUSALS:
            raise LimitReached("max_tool_calls", f"the code went on calling tools after it had had its {count} calls")
        if self.tool_calls > count:
            return ToolFailed(f"no more tool calls: this execution had its {count} (max_tool_calls)", kind="limit")
        if len(arguments) > self.limits.max_argument_chars:
            return ToolFailed(
                f"the arguments have {len(arguments):,} characters; a call takes "
                f"{self.limits.max_argument_chars:,} (max_argument_chars)",
                kind="arguments",
            )
        if not self._held.take(len(arguments)):
            return ToolFailed(f"too much at once: {self._held}; make fewer calls at a time", kind="limit")
        return None

    def _host_call(self, name: str, arguments: str) -> str:
        if name == "@cancel":
            if not arguments.isascii() or not arguments.isdigit() or len(arguments) > 10:
                raise Violation("a call was cancelled that cannot be one")
            self._awaited.discard(int(arguments))
            self._loop.call_soon_threadsafe(self._cancel, int(arguments))
            return "+null"
        try:
            positional, _ = self._parsed(arguments)
            return self._checked(self.execution.host_call(name, positional))
        except ToolFailed as error:
            return self._error(error, "")
        except Exception as error:
            self._loop.call_soon_threadsafe(self._report, name, error)
            return self._error(ToolFailed(f"the gateway failed: {type(error).__name__}"), "")

    def _cancel(self, id: int) -> None:
        if (task := self._tasks.get(id)) is not None:
            task.cancel()

    # --- how it ended

    def finished(self, text: str) -> Outcome:
        """The outcome of a guest that came to its end; `text` is its own account."""
        try:
            result, error = _parse_outcome(text, self.limits)
            result = _handles_in(result, self.mark, text)
        except SandboxError as reached:
            result, error = None, reached
        return self._outcome(result, error)

    def failed(self, error: SandboxError) -> Outcome:
        """The outcome of a guest that was ended."""
        return self._outcome(None, error)

    def _outcome(self, result: Any, error: SandboxError | None) -> Outcome:
        return Outcome(
            result=result,
            stdout="".join(self._output[0]),
            stderr="".join(self._output[1]),
            error=error if isinstance(error, (CodeFailed, LimitReached, Cancelled, Crashed)) else None,
            tool_calls=self.tool_calls,
            answer_chars=self._answer_chars,
            cpu_s=self._cpu_clock() - self._cpu_began if self._began else 0.0,
            wall_s=time.monotonic() - self._began if self._began else 0.0,
            tool_wait_s=self._tool_wait_s,
        )


class _Held:
    """Characters of arguments and answers that the host holds for one execution. Each is bounded by itself; this
    bounds what hundreds of them come to. Counted from two threads."""

    def __init__(self, limit: int) -> None:
        self._limit, self._chars = limit, 0
        self._lock = threading.Lock()

    def take(self, chars: int) -> bool:
        with self._lock:
            if self._chars + chars > self._limit:
                return False
            self._chars += chars
            return True

    def force(self, chars: int) -> None:
        with self._lock:
            self._chars += chars

    def give(self, chars: int) -> None:
        with self._lock:
            self._chars -= chars

    def __str__(self) -> str:
        return f"arguments and answers on their way come to {self._limit:,} characters"


# --- values across the border


def encode_answer(value: Any, mark: str) -> str:
    """A tool's value as guest/…/wire.py reads it; `mark` is the key of handles. Raises TypeError, ValueError and
    RecursionError for what has no JSON."""
    if type(value) is str:
        return '"' + value
    handles = False

    def default(other: Any) -> Any:
        nonlocal handles
        if isinstance(other, Handle):
            handles = True
            inner = {"id": other.id, "kind": other.kind, "mime_type": other.mime_type, "size": other.size}
            return {mark: {**inner, "uri": other.uri}}
        raise TypeError(type(other).__name__)

    options = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_NON_STR_KEYS
    try:
        text = orjson.dumps(value, default=default, option=options).decode()
    except TypeError:  # integers over 64 bits, lone surrogates
        text = json.dumps(value, default=default).encode("utf-8", "replace").decode()
    return ("*" if handles else "+") + text


def _deeper_than(value: Any, levels: int) -> bool:
    """Whether lists and dicts nest more than so many levels deep. Looks at no level beyond."""
    layer: list[Any] = [value] if type(value) in (dict, list, tuple) else []
    for _ in range(levels):
        if not layer:
            return False
        layer = [
            child
            for outer in layer
            for child in (outer.values() if type(outer) is dict else outer)
            if type(child) is dict or type(child) is list
        ]
    return bool(layer)


def _handles_in(value: Any, mark: str, text: str) -> Any:
    """The value with Handles in the places of what the guest marked as such. `text` is what it was parsed from."""
    if mark not in text:
        return value

    def replaced(node: Any) -> Any:
        if isinstance(node, dict):
            inner = node.get(mark) if len(node) == 1 else None
            if isinstance(inner, dict) and isinstance(inner.get("id"), str):
                return Handle(inner["id"])
            return {key: replaced(item) for key, item in node.items()}
        return [replaced(item) for item in node] if isinstance(node, list) else node

    return replaced(value)


_LONG_NUMBER = re.compile(r"\d{19}")


def _parse_json(text: str) -> Any:
    try:
        # orjson makes floats of integers over 64 bits.
        if _LONG_NUMBER.search(text) is None:
            return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    # NaN, lone surrogates and huge integers are Python's JSON, not orjson's.
    return json.loads(text, parse_constant=str)


def _parse_arguments(text: str, max_depth: int) -> tuple[list[Any], dict[str, Any]]:
    try:
        match _parse_json(text):
            case [list() as positional, dict() as named]:
                if _deeper_than(positional, max_depth) or _deeper_than(named, max_depth):
                    raise ToolFailed(f"the arguments are nested too deeply (max_depth={max_depth})", kind="arguments")
                return positional, named
    except (ValueError, RecursionError) as error:
        raise ToolFailed(f"the arguments are not JSON: {error}", kind="arguments") from None
    raise ToolFailed("the arguments have the wrong form", kind="arguments")


def _parse_outcome(text: str, limits: Limits) -> tuple[Any, SandboxError | None]:
    """The guest's envelope, believed in nothing but its form: the guest may have forged it."""
    room = limits.max_result_chars + len(_RESULT_HEAD) + 1
    if len(text) > (room if text.startswith(_RESULT_HEAD) else max(room, _MOST_ERROR_CHARS * 4)):
        return None, LimitReached(
            "max_result_chars", f"the result is longer than {limits.max_result_chars:,} characters; return less"
        )
    too_deep = LimitReached(
        "max_depth", f"the result is nested deeper than {limits.max_depth} levels; return it flatter"
    )
    try:
        outcome = _parse_json(text)
    except RecursionError:
        return None, too_deep
    except ValueError:
        return None, LimitReached("protocol", "the result could not be read: it is not JSON")
    if not isinstance(outcome, dict):
        return None, LimitReached("protocol", "the result has the wrong form")
    error = outcome.get("error")
    if not isinstance(error, dict):
        result = outcome.get("result")
        return (None, too_deep) if _deeper_than(result, limits.max_depth) else (result, None)

    def text_of(key: str, size: int) -> str:
        found = error.get(key)
        return found[:size].encode("utf-8", "replace").decode() if isinstance(found, str) else ""

    if text_of("type", 100) == "MemoryError":
        return None, LimitReached(
            "memory_mib", f"MemoryError: the code needed more than {limits.memory_mib} MiB. {text_of('traceback', 500)}"
        )
    line = error.get("line")
    return None, CodeFailed(
        type=text_of("type", 100) or "Error",
        message=text_of("message", 20_000),
        traceback=text_of("traceback", 20_000),
        line=line if isinstance(line, int) else None,
        name=text_of("name", 200) or None,
        server=text_of("server", 200) or None,
        tool=text_of("tool", 200) or None,
    )
