"""Threads that serve guests: made on demand, kept, the last one to finish taking the next work. They do not decide who
comes next: see pool."""

import threading
from collections import deque
from collections.abc import Callable

Work = Callable[[], None]
"""What a thread does. It must not raise."""


class Workers:
    """Threads with a stack that is big enough for a guest."""

    def __init__(
        self, limit: int, stack_bytes: int = 0, at_rest: Work | None = None, rest_after_s: float = 0.0
    ) -> None:
        """`stack_bytes`: of each thread; 0 is the platform's default. `at_rest` is done by a thread that has worked,
        once nothing else has come for `rest_after_s`: what need not stand in the way of an answer."""
        self._limit, self._stack = limit, stack_bytes
        self._at_rest, self._rest_after_s = at_rest, rest_after_s
        self._lock = threading.Lock()
        self._threads = 0
        self._idle: list[_Worker] = []
        self._works: deque[Work] = deque()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Workers [{self._threads} threads, {len(self._idle)} idle, {len(self._works)} waiting]>"

    def submit(self, work: Work) -> None:
        """Raises RuntimeError if there is no thread and none can be started."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the sandbox is closed")
            if self._idle:
                self._idle.pop().hand(work)  # the one whose stack and guest are still in the caches
                return
            if self._threads == self._limit:
                self._works.append(work)
                return
            self._threads += 1
        try:
            start_thread(lambda: self._serve(_Worker(), work), "mcpgate-guest", self._stack)
        except BaseException:
            with self._lock:
                self._threads -= 1
                if self._idle:  # it has just become so
                    self._idle.pop().hand(work)
                    return
                if self._threads:  # a busy one takes it when it can
                    self._works.append(work)
                    return
            raise

    def _serve(self, worker: "_Worker", work: Work | None) -> None:
        while work is not None:
            work()
            work = None  # it may hold an execution
            work = self._next(worker)

    def _next(self, worker: "_Worker") -> Work | None:
        """Wait for work; None when there will be no more."""
        if self._at_rest is not None:
            if self._wait(worker, self._rest_after_s):
                return worker.work
            self._at_rest()
        self._wait(worker, -1)
        return worker.work

    def _wait(self, worker: "_Worker", timeout_s: float) -> bool:
        """Whether the worker has been given something: `worker.work`."""
        with self._lock:
            if self._works or self._closed:
                worker.work = self._works.popleft() if self._works else None
                return True
            self._idle.append(worker)
        if worker.woken.acquire(timeout=timeout_s):
            return True
        with self._lock:
            if worker in self._idle:
                self._idle.remove(worker)
                return False
        worker.woken.acquire()  # it came at this very moment
        return True

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.hand(None)


def start_thread(target: Work, name: str, stack_bytes: int) -> threading.Thread:
    """`stack_bytes`: 0 is the platform's default. Raises RuntimeError if there can be no further thread."""
    with _STACK_SIZE:
        before = threading.stack_size(stack_bytes)
        try:
            thread = threading.Thread(target=target, name=name, daemon=True)
            thread.start()
            return thread
        finally:
            threading.stack_size(before)


class _Worker:
    """A thread that waits for work."""

    def __init__(self) -> None:
        self.woken = threading.Lock()
        self.woken.acquire()
        self.work: Work | None = None

    def hand(self, work: Work | None) -> None:
        self.work = work
        self.woken.release()


_STACK_SIZE = threading.Lock()
"""Held while a thread is started: the size of its stack is a setting of the whole process."""
