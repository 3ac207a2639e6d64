"""Sees the event loop stand still: logs where, once for each stall, and can end the process.

A thread does it as long as Python lets threads run. Code that holds the interpreter's lock (a regular expression, a C
extension) does not; then faulthandler does, whose thread needs no lock. One for each process, as faulthandler's timer
is.
"""

import asyncio
import faulthandler
import logging
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

_FRAMES = 12
_STANDS_STILL_S = 2.0
log = logging.getLogger("mcpgate.watchdog")


class Watchdog:
    def __init__(self, stall_s: float, end_after_s: float | None = None, stderr: int = 2) -> None:
        """`stall_s`: how long the loop may stand still until that is logged; 0: for ever. `end_after_s`: and until the
        process ends."""
        self._stall_s, self._end_after_s, self._stderr = stall_s, end_after_s, stderr
        self._beat: float | None = None
        """When the loop was last seen to go round."""
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = threading.Event()
        self._ending = False

    def start(self) -> None:
        """Begin to watch the running loop, which is the calling thread's."""
        if self._stall_s:
            main = threading.get_ident()
            self._tick(asyncio.get_running_loop())
            threading.Thread(target=self._watch, args=(main,), name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """What `end_within` has set stays."""
        self._stopped.set()
        if self._timer is not None:
            self._timer.cancel()
        if not self._ending:
            faulthandler.cancel_dump_traceback_later()

    def end_within(self, seconds: float, seconds_if_still: float) -> None:
        """End the process when it has not ended by itself by then, whatever it is doing. May be called in a signal
        handler."""
        self._ending = True
        still = self._beat is not None and time.monotonic() - self._beat > _STANDS_STILL_S
        faulthandler.dump_traceback_later(seconds_if_still if still else seconds, exit=True, file=self._stderr)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._ending:
            return
        now = time.monotonic()
        if self._beat is not None and now - self._beat > self._stall_s:
            log.warning("the event loop goes on after %.1f s", now - self._beat)
        self._beat = now
        exit = self._end_after_s is not None
        wait_s = self._end_after_s or self._stall_s * 2
        faulthandler.dump_traceback_later(wait_s, exit=exit, file=self._stderr)
        self._timer = loop.call_later(self._stall_s / 5, self._tick, loop)

    def _watch(self, main: int) -> None:
        told = False
        while not self._stopped.wait(self._stall_s / 5):
            assert self._beat is not None
            still_s = time.monotonic() - self._beat
            if still_s < self._stall_s:
                told = False
            elif not told:
                told = True
                log.error("the event loop stands still since %.1f s, in %s", still_s, _where(main))
                if self._end_after_s is None and not self._ending:
                    faulthandler.cancel_dump_traceback_later()  # it would say the same again


def _where(thread: int) -> str:
    """The innermost calls of a thread, on one line."""
    calls = [f"{Path(f.f_code.co_filename).name}:{f.f_lineno} {f.f_code.co_name}" for f in _frames(thread)]
    return " < ".join(calls)


def _frames(thread: int) -> Iterator[FrameType]:
    frame = sys._current_frames().get(thread)
    for _ in range(_FRAMES):
        if frame is None:
            return
        yield frame
        frame = frame.f_back
