"""Threads that serve guests."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class Workers:
    """Threads with a stack that is big enough for a guest; made on demand, kept."""

    def __init__(self, limit: int, stack_bytes: int = 0) -> None:
        """`stack_bytes`: of each thread; 0 is the platform's default."""
        self._limit, self._stack, self._threads, self._waiting = limit, stack_bytes, 0, 0
        self._changed = threading.Condition()
        self._items: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._closed = False

    def submit(self, function: Callable[[], Any]) -> "Future[Any]":
        future: Future[Any] = Future()
        with self._changed:
            self._items.append((future, function))
            if len(self._items) > self._waiting and self._threads < self._limit:
                self._threads += 1
                try:
                    self._start_thread()
                except BaseException:
                    self._threads -= 1
                    if not self._threads:  # else a busy one takes it when it can
                        self._items.pop()
                        raise
            else:
                self._changed.notify()
        return future

    def _start_thread(self) -> None:
        before = threading.stack_size(self._stack)
        try:
            threading.Thread(target=self._serve, name="mcpgate-guest", daemon=True).start()
        finally:
            threading.stack_size(before)

    def _serve(self) -> None:
        while (item := self._next()) is not None:
            future, function = item
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:
                    future.set_exception(error)
            del item, future, function

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._changed:
            self._waiting += 1
            while not self._items and not self._closed:
                self._changed.wait()
            self._waiting -= 1
            return self._items.popleft() if self._items else None

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
