"""Guests in child processes, seen from the host: starting them, serving what they ask, ending them. What comes out of
a child is as hostile as what comes out of Wasm."""

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import orjson

from mcpgate_sandbox import frames
from mcpgate_sandbox.child import BOOTSTRAP, END, NUMBER
from mcpgate_sandbox.engine import Outcome
from mcpgate_sandbox.errors import Crashed, LimitReached, SandboxError, SandboxUnavailable
from mcpgate_sandbox.host import Call, Violation
from mcpgate_sandbox.locks import SYSTEM_CALL_FILTER
from mcpgate_sandbox.pool import PooledEngine
from mcpgate_sandbox.sessions import MIB, SessionLimits
from mcpgate_sandbox.slots import QueueLimits

_START_S = 60.0
"""How long the process that children come from may take to load what they share."""
_NEARLY_ALL = 0.6
"""Share of its memory that a child has had which died of having none; what it could not get is not counted."""
_CHILD_S = 20.0
"""How long a child may take until it is locked."""


class Nursery:
    """Where children come from: one process that has everything loaded and forks. Started anew when it died."""

    def __init__(self, kind: str, environment: dict[str, str], allow_unlocked: bool) -> None:
        """`kind`: `wasm` or `restricted`, see child.py. Raises SandboxUnavailable."""
        self._kind, self._environment = kind, environment
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._closed = False
        with self._lock:
            self._start()
        try:
            first = self.new_guest(warm=True)
        except BaseException:
            self.close()
            raise
        self._locks = first.locks
        first.close()
        if SYSTEM_CALL_FILTER not in self._locks and not allow_unlocked:
            self.close()
            raise SandboxUnavailable(
                "the kernel of this machine cannot filter the system calls of a child process, which is what holds its "
                f"code (active: {', '.join(self._locks)}); set sandbox.allow_unlocked: true to run code all the same"
            )

    def new_guest(self, warm: bool) -> "Child":
        """A fresh child, locked and waiting for its first execution."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise SandboxUnavailable(f"no child process could be started: {error}") from error
        try:
            with theirs, self._lock:
                try:
                    pid = self._fork(theirs)
                except OSError:
                    self._stop()
                    self._start()
                    pid = self._fork(theirs)
                if pid <= 1:
                    raise SandboxUnavailable(f"no child process could be started: {os.strerror(-pid)}")
                # The nursery keeps what is left of a dead child until it is told: this is no other process.
                handle = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
        except OSError as error:
            ours.close()
            raise SandboxUnavailable(f"no child process could be started: {error}") from error
        except BaseException:
            ours.close()
            raise
        return Child(self, pid, handle, ours)

    def modules(self) -> tuple[list[str], list[str]]:
        child = self.new_guest(warm=True)
        try:
            found = child.ask('{"stdlib":true}')["result"]
            return found["available"], found["missing"]
        finally:
            child.close()

    def locks(self) -> list[str]:
        return [f"a child process for each guest: {lock}" for lock in self._locks]

    def collect(self, pid: int) -> None:
        """A child that was killed is done with."""
        with self._lock:
            if self._control is not None:
                try:
                    self._control.sendall(b"d" + NUMBER.pack(pid))
                except OSError:
                    self._stop()  # it died, and its children with it

    def autopsy(self, pid: int) -> tuple[int, int]:
        """How a dead child ended, and collect it: the signal (0 for none, or where nobody knows) and the MiB that it
        had at most."""
        with self._lock:
            try:
                if self._control is not None:
                    self._control.sendall(b"w" + NUMBER.pack(pid))
                    status, peak = END.unpack(self._answer(END.size))
                    return (os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0), peak // 1024
            except OSError:
                self._stop()  # an answer that comes too late would be taken for the next one's
        return 0, 0

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._stop()

    def _fork(self, theirs: socket.socket) -> int:
        if self._control is None:
            raise OSError("the process that children come from has ended")
        socket.send_fds(self._control, [b"f" + NUMBER.pack(0)], [theirs.fileno()])
        (pid,) = NUMBER.unpack(self._answer(NUMBER.size))
        return int(pid)

    def _answer(self, size: int) -> bytes:
        answer = b""
        while self._control is not None and len(answer) < size:
            part = self._control.recv(size - len(answer))
            if not part:
                raise OSError("the process that children come from has ended")
            answer += part
        return answer

    def _start(self) -> None:
        if self._closed:
            raise SandboxUnavailable("the sandbox is closed")
        ours, theirs = socket.socketpair()
        guest = str(Path(__file__).with_name("guest"))
        paths = json.dumps([path for path in [*sys.path, guest] if path])
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", BOOTSTRAP, self._kind, str(theirs.fileno()), paths],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=self._environment,
                cwd="/",
                start_new_session=True,  # a Ctrl-C at a terminal is the gateway's business
            )
        ours.settimeout(_START_S)
        try:
            said = ours.recv(5000)
        except OSError as error:
            said = f"!{error}".encode()
        if said != b"+":
            ours.close()
            self._stop()
            reason = said[1:].decode(errors="replace") or "it ended at once"
            raise SandboxUnavailable(f"the process that runs code cannot start: {reason}")
        self._control = ours

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            try:
                self._process.wait(2)  # it kills its children when the gateway hangs up
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


class ChildEngine(PooledEngine):
    """An engine whose guests are child processes."""

    def __init__(
        self,
        *,
        warm: int | None = None,
        max_executions: int = 32,
        sessions: SessionLimits = SessionLimits(),  # noqa: B008  it is frozen
        queue: QueueLimits = QueueLimits(),  # noqa: B008
        allow_unlocked: bool = False,
    ) -> None:
        """As PooledEngine. `allow_unlocked`: run even where the kernel cannot filter system calls."""
        super().__init__(warm=warm, max_executions=max_executions, sessions=sessions, queue=queue)
        self.allow_unlocked = allow_unlocked


class Child:
    """One guest in a process of its own."""

    def __init__(self, nursery: Nursery, pid: int, handle: int | None, connection: socket.socket) -> None:
        """`handle`: a pidfd, where there are such things."""
        self._nursery, self._pid, self._handle, self._connection = nursery, pid, handle, connection
        self._alive, self._collected = True, False
        self._cpu_used_s = 0.0
        self._lock = threading.Lock()
        self._buffer = bytearray()
        self._poller = select.poll()
        self._poller.register(connection, select.POLLIN)
        try:
            self._deadline = time.monotonic() + _CHILD_S
            kind, payload = self._receive(None, MIB)
            if kind == b"f":
                raise _failure(payload)
            self.locks: list[str] = json.loads(bytes(payload))
        except (Crashed, LimitReached, Violation, ValueError) as error:
            self.close()
            why = error.how if isinstance(error, Crashed) else str(error)
            raise SandboxUnavailable(f"a child process could not start: {why}") from error

    @property
    def usable(self) -> bool:
        # Between executions a child says nothing: what can be read is its end.
        return self._alive and not self._poller.poll(0)

    def run(self, call: Call) -> Outcome:
        execution, limits = call.execution, call.limits
        options = {"servers": list(execution.servers), "mark": call.mark, "memory_mib": limits.memory_mib}
        call.on_stop = self._kill
        self._signal(signal.SIGCONT)
        most = 4 * max(limits.max_argument_chars, limits.max_result_chars, limits.max_output_chars) + MIB
        try:
            call.begin(self._cpu_s)
            self._send(call, frames.frame(b"x", *frames.pair(execution.code, orjson.dumps(options).decode())))
            while True:
                if call.time_left() <= 0:  # also for a child that never lets us wait
                    call.tick()
                kind, payload = self._receive(call, most)
                if kind == b"r":
                    return call.finished(str(payload, "utf-8", "replace"))
                if kind == b"f":
                    raise _failure(payload)
                self._serve(call, kind, payload)
        except Crashed as error:
            self._kill()
            return call.failed(call.stopped or self._autopsy(error, limits.memory_mib))
        except SandboxError as error:
            self._kill()
            return call.failed(call.stopped or error)
        except (Violation, ValueError, struct.error) as error:
            self._kill()
            return call.failed(LimitReached("protocol", f"the execution was ended: {error}"))
        finally:
            call.on_stop = None
            self._signal(signal.SIGSTOP)  # nothing of it runs between executions

    def ask(self, options: str) -> Any:
        """Have the guest answer about itself."""
        self._deadline = time.monotonic() + _CHILD_S
        self._connection.sendall(frames.frame(b"x", *frames.pair("", options)))
        return orjson.loads(self._receive(None, MIB)[1])

    renewable = False
    """A child serves one execution or one session."""

    def renew(self) -> bool:
        return False

    def close(self) -> None:
        self._kill()
        self._connection.close()
        if not self._collected:
            self._collected = True
            self._nursery.collect(self._pid)
        with self._lock:
            if self._handle is not None:
                os.close(self._handle)
                self._handle = None

    def _autopsy(self, error: Crashed, memory_mib: int) -> SandboxError:
        if self._collected:
            return error
        self._collected = True
        ended_by, peak_mib = self._nursery.autopsy(self._pid)
        if ended_by and peak_mib >= _NEARLY_ALL * memory_mib:
            # CPython does not always survive running out of memory.
            return LimitReached.of_memory(memory_mib)
        return Crashed(f"signal {ended_by}") if ended_by else error

    def _serve(self, call: Call, kind: bytes, payload: memoryview) -> None:
        if kind == b"e" and len(payload) >= 1:
            call.emit(payload[0], str(payload[1:], "utf-8", "replace"))
        elif kind == b"c":
            self._send(call, frames.frame(b"a", call.call(*frames.split(payload)).encode("utf-8", "replace")))
        elif kind == b"s":
            (id,) = frames.ID.unpack_from(payload)
            call.submit(id, *frames.split(payload[frames.ID.size :]))
        elif kind == b"p":
            (timeout_ms,) = frames.MILLISECONDS.unpack(payload)
            self._send(call, frames.frame(b"a", call.poll(timeout_ms).encode("utf-8", "replace")))
        else:
            raise Violation("a frame of an unknown kind")

    def _receive(self, call: Call | None, most: int) -> tuple[bytes, memoryview]:
        self._fill(call, frames.HEAD.size)
        kind, size = frames.HEAD.unpack_from(self._buffer)
        if size > most:
            raise Violation(f"a frame of {size:,} bytes")
        self._fill(call, frames.HEAD.size + size)
        payload = memoryview(bytes(memoryview(self._buffer)[frames.HEAD.size : frames.HEAD.size + size]))
        del self._buffer[: frames.HEAD.size + size]
        return kind, payload

    def _fill(self, call: Call | None, size: int) -> None:
        while len(self._buffer) < size:
            self._await(call, select.POLLIN)
            try:
                part = self._connection.recv(min(MIB, max(65536, size - len(self._buffer))))
            except OSError:
                part = b""
            if not part:
                if call is not None:
                    call.check_stopped()
                raise Crashed("its process ended")
            self._buffer += part

    def _send(self, call: Call, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._connection.send(rest, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                self._await(call, select.POLLOUT)
            except OSError:
                call.check_stopped()
                raise Crashed("its process ended") from None

    def _await(self, call: Call | None, event: int) -> None:
        """Wait until the child can be read or written. A busy child needs no ticks: no limit of time is reached
        before the time that is left is over."""
        self._poller.modify(self._connection, event)
        try:
            while True:
                left = self._deadline - time.monotonic() if call is None else call.time_left()
                if self._poller.poll(max(0, int(left * 1000) + 1)):
                    return
                if call is not None:
                    call.tick()
                elif time.monotonic() > self._deadline:
                    raise Crashed("it did not answer")
        finally:
            self._poller.modify(self._connection, select.POLLIN)

    def _cpu_s(self) -> float:
        try:
            # The clock of another process: CPUCLOCK_SCHED of linux/posix-timers.h.
            self._cpu_used_s = time.clock_gettime(~self._pid << 3 | 2)
        except OSError:
            pass  # it is dead: what it had used when last seen
        return self._cpu_used_s

    def _kill(self) -> None:
        if self._alive:
            self._signal(signal.SIGKILL)
            self._alive = False

    def _signal(self, number: int) -> None:
        with self._lock:
            try:
                if self._handle is not None:
                    signal.pidfd_send_signal(self._handle, number)
                elif not self._collected and not hasattr(signal, "pidfd_send_signal"):
                    os.kill(self._pid, number)  # the nursery, if it lives, keeps the number until `collect`
            except OSError:
                pass  # it is dead


def _failure(payload: memoryview) -> SandboxError:
    try:
        limit, text = json.loads(bytes(payload))
    except (ValueError, TypeError):
        return Crashed(str(payload, "utf-8", "replace")[:300])
    return LimitReached(str(limit)[:40], str(text)) if limit else Crashed(str(text))
