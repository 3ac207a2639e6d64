"""One thread that writes to an SQLite file, so that the event loop never waits for a lock or a disk, and concurrent
writes share one transaction and one flush to disk (group commit)."""

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from mcpgate.governance.store import StoreUnavailable

log = logging.getLogger("mcpgate.store")
T = TypeVar("T")
_MOST = 500
"""The most tasks in one transaction, which all of them wait for."""
_BUSY_S = 5.0
"""How long to wait for transactions of other processes."""


@dataclass(slots=True)
class _Task:
    work: Callable[[sqlite3.Connection], Any]
    durable: bool
    """Flushed to disk before it is done; else it survives the end of this process, but not a power failure."""
    loop: asyncio.AbstractEventLoop
    done: "asyncio.Future[Any]"
    result: Any = None
    error: BaseException | None = None


class Writer:
    """Runs tasks in order. A task gets the connection inside a transaction and must leave it there."""

    def __init__(self, open_db: Callable[[], sqlite3.Connection]) -> None:
        """`open_db` is called in the thread, and again after an error."""
        self._open_db = open_db
        self._db: sqlite3.Connection | None = None
        self._durable = self._closed = False
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sqlite writer", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[sqlite3.Connection], T], durable: bool = False) -> T:
        """Do work in a transaction, perhaps together with other tasks. Raises StoreUnavailable; then nothing was
        written."""
        return await self.start(work, durable)

    def start(self, work: Callable[[sqlite3.Connection], T], durable: bool = False) -> "asyncio.Future[T]":
        """Like `run`, without waiting. Work that was started is done even if its caller stops waiting."""
        loop = asyncio.get_running_loop()
        task = _Task(work, durable, loop, loop.create_future())
        if self._closed:
            raise StoreUnavailable("the store is closed")
        self._tasks.put(task)
        return task.done

    def close(self) -> None:
        """Returns when everything that was started is done."""
        self._closed = True
        self._tasks.put(None)
        self._thread.join()

    def _run(self) -> None:
        going = True
        while going:
            batch = [self._tasks.get()]
            while len(batch) < _MOST and batch[-1] is not None:
                try:
                    batch.append(self._tasks.get_nowait())
                except queue.Empty:
                    break
            if batch[-1] is None:
                going = False
                batch.pop()
            tasks = [task for task in batch if task is not None]
            if tasks:
                self._commit(tasks)
                _tell(tasks)
        if self._db is not None:
            self._db.close()

    def _commit(self, tasks: list[_Task]) -> None:
        try:
            self._transaction(tasks)
        except (sqlite3.OperationalError, OSError) as error:
            # The file is gone, full or locked, and will be for the next task too.
            self._fail(tasks, error)
        except Exception as error:
            if len(tasks) > 1:  # one of them caused it
                for task in tasks:
                    self._commit([task])
                return
            self._fail(tasks, error)

    def _fail(self, tasks: list[_Task], error: Exception) -> None:
        log.error("cannot write to the store: %s", error)
        away = isinstance(error, (sqlite3.Error, OSError))
        for task in tasks:
            task.error = StoreUnavailable(str(error)) if away else error
        if away:
            self._drop()

    def _transaction(self, tasks: list[_Task]) -> None:
        db = self._db
        if db is None:
            db = self._db = self._open_db()
            db.isolation_level, self._durable = None, False
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA busy_timeout = 0")  # see _begin
        durable = any(task.durable for task in tasks)
        if durable != self._durable:
            db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        _begin(db)
        try:
            for task in tasks:
                task.result = task.work(db)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _drop(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            try:
                db.close()
            except sqlite3.Error:
                pass


def _begin(db: sqlite3.Connection) -> None:
    """SQLite's own waiting sleeps up to 100 ms between attempts; transactions here take a tenth of a millisecond."""
    give_up = time.monotonic() + _BUSY_S
    pause = 0.0002
    while True:
        try:
            db.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
        time.sleep(pause)
        pause = min(pause * 1.5, 0.005)


def _tell(tasks: list[_Task]) -> None:
    """Wake the waiters, with one call into each event loop."""
    loops: dict[asyncio.AbstractEventLoop, list[_Task]] = {}
    for task in tasks:
        loops.setdefault(task.loop, []).append(task)
    for loop, theirs in loops.items():
        try:
            loop.call_soon_threadsafe(_resolve, theirs)
        except RuntimeError:
            pass  # the loop is closed, so nobody waits any more


def _resolve(tasks: list[_Task]) -> None:
    for task in tasks:
        if task.done.done():
            continue
        if task.error is not None:
            task.done.set_exception(task.error)
            task.done.exception()  # retrieved, because nobody may be waiting; the error is logged
        else:
            task.done.set_result(task.result)
