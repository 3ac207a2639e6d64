"""Sees the event loop stand still: logs where, once for each stall, and can end the process. Ends it too when it was
told to stop and does not.

A thread does it as long as Python lets threads run. Code that holds the interpreter's lock (a regular expression, a C
extension) does not; then faulthandler does, whose thread needs no lock. One for each process, as faulthandler's timer
is. While code holds that lock no signal is heard: should it never let go, a supervisor or SIGKILL ends the process.
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
_TICK_S = 1.0
log = logging.getLogger("mcpgate.watchdog")


class Watchdog:
    def __init__(self, stall_s: float, end_after_s: float | None = None, stderr: int = 2) -> None:
        """`stall_s`: how long the loop may stand still until that is logged; 0: for ever. `end_after_s`: and until the
        process ends."""
        self._stall_s, self._end_after_s, self._stderr = stall_s, end_after_s, stderr
        self._every_s = min(stall_s / 5, _TICK_S) if stall_s else _TICK_S
        self._beat = 0.0
        """When the loop was last seen to go round."""
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = threading.Event()
        self._end: tuple[float, float] | None = None
        """When the process has to have ended, and how long the loop may stand still until then."""

    def start(self) -> None:
        """Begin to watch the running loop, which is the calling thread's."""
        self._beat = time.monotonic()
        self._tick(asyncio.get_running_loop())
        if self._stall_s:
            main = threading.get_ident()
            threading.Thread(target=self._watch, args=(main,), name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """The loop ends. What `end_within` has set stays."""
        self._stopped.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._end is None:
            faulthandler.cancel_dump_traceback_later()
        else:
            self._end_in(self._end[0] - time.monotonic())

    def end_within(self, seconds: float, still_s: float) -> None:
        """End the process when it has not ended by itself by then, whatever it is doing, and earlier where the loop
        stands still so long. May be called from any thread."""
        self._end = time.monotonic() + seconds, still_s
        self._arm()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        if self._stall_s and now - self._beat > self._stall_s:
            log.warning("the event loop goes on after %.1f s", now - self._beat)
        self._beat = now
        self._arm()
        self._timer = loop.call_later(self._every_s, self._tick, loop)

    def _arm(self) -> None:
        """Set faulthandler's timer, which goes off unless it is set again."""
        while True:
            end = self._end
            if end is not None:
                self._end_in(min(end[1], end[0] - time.monotonic()))
            elif self._end_after_s is not None:
                self._end_in(self._end_after_s)
            elif self._stall_s:
                faulthandler.dump_traceback_later(self._stall_s * 2, file=self._stderr)
            if end is self._end:  # not told to end in between
                return

    def _end_in(self, seconds: float) -> None:
        faulthandler.dump_traceback_later(max(0.1, seconds), exit=True, file=self._stderr)

    def _watch(self, main: int) -> None:
        told = False
        while not self._stopped.wait(self._stall_s / 5):
            still_s = time.monotonic() - self._beat
            if still_s < self._stall_s:
                told = False
            elif not told:
                told = True
                log.error("the event loop stands still since %.1f s, in %s", still_s, _where(main))
                if self._end_after_s is None and self._end is None:
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
