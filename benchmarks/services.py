"""Databases that some MCP servers require before they list their tools: an empty one, on a free loopback port, while
the server is captured. Only programs already on the machine are used; none is installed.
"""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

_START_TIMEOUT_S = 30.0

Commands = Callable[[Path, int], Sequence[Sequence[str]]]
"""(data folder, port) → commands that create the data, and last the one that serves it."""


class ServiceMissing(Exception):
    """A program is not on this machine, or did not start."""


def _redis(data: Path, port: int) -> Sequence[Sequence[str]]:
    return [["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(data)]]


def _mysql(data: Path, port: int) -> Sequence[Sequence[str]]:
    options = ["--no-defaults", f"--datadir={data}", "--user=root"]  # The user matters only for root.
    door = [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={data / 'socket'}", "--skip-grant-tables"]
    return [["mariadb-install-db", *options], ["mariadbd", *options, *door, "--skip-networking=0"]]


_SERVICES: Mapping[str, Commands] = {"redis": _redis, "mysql": _mysql}


@contextlib.contextmanager
def running(name: str) -> Iterator[int]:
    """Starts a service and yields its port. Raises ServiceMissing."""
    with tempfile.TemporaryDirectory(prefix=f"mcpgate-{name}-", ignore_cleanup_errors=True) as folder:
        port = free_port()
        *make, serve = _SERVICES[name](Path(folder), port)
        for command in (*make, serve):
            if shutil.which(command[0]) is None:
                raise ServiceMissing(f"needs {command[0]} on the PATH")
        for command in make:
            subprocess.run(command, capture_output=True, check=True)
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(serve, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
        try:
            _wait(process, port, name)
            yield port
        finally:
            process.terminate()
            process.wait()


def _wait(process: "subprocess.Popen[bytes]", port: int, name: str) -> None:
    ends = time.monotonic() + _START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < ends:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise ServiceMissing(f"{name} did not start")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
