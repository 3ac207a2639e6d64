"""Our end of reaper.py, which ends the children of a gateway that was killed."""

import atexit
import contextlib
import subprocess
import sys
import threading
from pathlib import Path

from mcpgate.upstream.framing import log


class _Reaper:
    """Our end of reaper.py, started with the first child. If it cannot run, children only see their stdin close."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def watch(self, group: int) -> None:
        self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        self._tell(f"-{group}\n")

    def _end(self) -> None:
        """At exit: on end of file the reaper ends what is left, then itself."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(3)

    def _tell(self, line: str) -> None:
        if sys.platform == "win32":
            return
        with self._lock:
            try:
                if self._process is None or self._process.poll() is not None:
                    if self._process is None:
                        atexit.register(self._end)
                    self._process = subprocess.Popen(
                        [sys.executable, "-I", "-S", str(Path(__file__).with_name("reaper.py"))],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        start_new_session=True,
                        cwd="/",
                    )
                assert self._process.stdin is not None
                self._process.stdin.write(line.encode())
                self._process.stdin.flush()
            except OSError as error:
                log.warning("children may outlive a killed gateway: %s", error)


reaper = _Reaper()
