"""A progress bar on stderr; an occasional line if stderr is not a terminal."""

import sys
import time

_WIDTH = 30
_LINE_EVERY_S = 20.0


class Progress:
    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._terminal = sys.stderr.isatty()
        self._began = self._last = time.monotonic()

    def step(self, text: str) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._last < (0.1 if self._terminal else _LINE_EVERY_S) and self._done < self._total:
            return
        self._last = now
        filled = _WIDTH * self._done // max(self._total, 1)
        line = f"{'█' * filled}{'░' * (_WIDTH - filled)} {self._done}/{self._total} {now - self._began:.0f} s  {text}"
        print(f"\r\033[K{line[:140]}" if self._terminal else line, file=sys.stderr, end="" if self._terminal else "\n")
        sys.stderr.flush()

    def end(self) -> None:
        if self._terminal:
            print(file=sys.stderr)
