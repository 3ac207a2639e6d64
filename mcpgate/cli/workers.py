"""Worker processes that share one port, and the supervisor that replaces those that die. Each has its own upstreams,
sandbox sessions and handles, and none outlives the supervisor."""

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from mcpgate.errors import ConfigError

_EARLY_S = 5.0
"""A worker that ends within this time has not really started."""
_GRACE_S = 30.0
"""How long workers may take to end; serve_command.py has them end sooner."""
_PR_SET_PDEATHSIG = 1
log = logging.getLogger("mcpgate.serve")


def stop_signals() -> list[signal.Signals]:
    """Those that end the gateway: SIGINT too where a shell ignores it for a command in the background, SIGHUP unless
    nohup ignores it."""
    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGINT, *([] if nohup else [signal.SIGHUP])]


def supervise(workers: int, path: Path, host: str, port: int, grace_s: float = _GRACE_S) -> int:
    """Run until a signal says to stop; a second one ends everything at once. Raises ConfigError."""
    if port == 0:
        raise ConfigError("--workers needs a fixed --port")
    command = [sys.executable, "-m", "mcpgate", "serve", "-c", str(path), "--host", host, "--port", str(port)]
    command += ["--worker", str(os.getpid())]

    def start() -> tuple[subprocess.Popen[bytes], float]:
        # A group of its own, or Ctrl-C in a terminal would reach it from there and from here.
        return subprocess.Popen(command, stdin=subprocess.PIPE, process_group=0), time.monotonic()

    children: list[tuple[subprocess.Popen[bytes], float]] = []
    told: set[int] = set()
    stopping, early_deaths = False, 0

    def tell_to_end() -> None:
        # Each once: a second signal has a worker drop what is under way.
        for child, _ in children:
            if child.pid not in told:
                told.add(child.pid)
                child.send_signal(signal.SIGTERM)

    def stop(number: int, _frame: object) -> None:
        nonlocal stopping
        if stopping:
            for child, _ in children:
                child.kill()
            os._exit(128 + number)
        stopping = True
        tell_to_end()

    for number in stop_signals():
        signal.signal(number, stop)
    for _ in range(workers):
        if not stopping:
            children.append(start())
    while not stopping:
        time.sleep(0.2)
        for index, (child, began) in enumerate(children):
            if child.poll() is None or stopping:
                continue
            early_deaths = early_deaths + 1 if time.monotonic() - began < _EARLY_S else 0
            if early_deaths > 2 * workers:
                stop(signal.SIGTERM, None)
                _wait(children, grace_s)
                raise ConfigError(f"the workers end as soon as they start (exit code {child.returncode}); see the log")
            log.error("worker %d ended with code %s; starting another", child.pid, child.returncode)
            children[index] = start()
    tell_to_end()  # one that was started while the signal came has not heard of it
    _wait(children, grace_s)
    return 0


def _wait(children: list[tuple[subprocess.Popen[bytes], float]], grace_s: float) -> None:
    end = time.monotonic() + grace_s
    for child, _ in children:
        try:
            child.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.error("worker %d does not exit; killing it", child.pid)
            child.kill()
            child.wait()


def end_with_supervisor(supervisor: int, end: Callable[[], None]) -> None:
    """In a worker: make sure that it does not outlive the supervisor, whatever either is doing. `end`: how it ends
    where the kernel does not do it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != supervisor:  # it died before the kernel was told
        os._exit(1)

    def wait() -> None:
        # Our stdin is a pipe, whose other end only the supervisor has.
        while os.read(0, 1024):
            pass
        with contextlib.suppress(RuntimeError):
            end()
        time.sleep(_GRACE_S)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
