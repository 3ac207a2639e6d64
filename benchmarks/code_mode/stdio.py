"""The one client that drives every contestant: MCP's JSON-RPC lines over the pipes of a child process, nothing more.

Blocking and without threads, so that its cost is small and the same for all. It also reads the resource usage of a
child and its children from /proc (Linux only). It is not a general MCP client: it refuses every request of a server
except a ping.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PROTOCOL_VERSION = "2025-11-25"
_EXIT_TIMEOUT_S = 5.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class ContestantFailed(Exception):
    """A contestant did not start or answered wrongly."""


class NoAnswer(ContestantFailed):
    """The contestant ended, or did not answer in time: further requests are pointless."""


@dataclass(frozen=True)
class Launch:
    """How a server is started. `env` is added to this process's environment."""

    command: str
    args: tuple[str, ...]
    env: Mapping[str, str]
    folder: Path
    """Its working folder."""
    log: Path
    """Where its stderr goes."""


class StdioClient:
    """One running server. Answers are matched by id, so that a late answer is not mistaken for the next."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self.server: dict[str, Any] = {}
        """The answer to `initialize`."""
        self._last_id = 0
        self._buffer = bytearray()
        self.started_at = time.perf_counter()
        with launch.log.open("wb") as log:
            self._process = subprocess.Popen(
                [launch.command, *launch.args],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                cwd=launch.folder,
                env={**os.environ, **launch.env},
                start_new_session=True,
            )
        assert self._process.stdin and self._process.stdout
        self._to_server, self._from_server = self._process.stdin, self._process.stdout

    def initialize(self, timeout_s: float) -> None:
        about = {
            "protocolVersion": _PROTOCOL_VERSION,
            "capabilities": {},
            "clientInfo": {"name": "mcpgate-bench", "version": "1"},
        }
        self.server = self.request("initialize", about, timeout_s)
        self._send([{"method": "notifications/initialized"}])

    def list_tools(self, timeout_s: float) -> list[dict[str, Any]]:
        tools: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = self.request("tools/list", {"cursor": cursor} if cursor else {}, timeout_s)
            tools += page["tools"]
            cursor = page.get("nextCursor")
            if not cursor:
                return tools

    def request(self, method: str, params: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        return self.request_all(method, [params], timeout_s)[0]

    def request_all(self, method: str, many: Sequence[Mapping[str, Any]], timeout_s: float) -> list[dict[str, Any]]:
        """Sends every request before reading the first answer."""
        deadline = time.perf_counter() + timeout_s
        first = self._last_id + 1
        self._last_id += len(many)
        self._send([{"id": first + at, "method": method, "params": params} for at, params in enumerate(many)])
        results: dict[int, dict[str, Any]] = {}
        while len(results) < len(many):
            message = self._receive(deadline, method)
            number = message.get("id")
            if "method" in message:
                self._refuse(message)
            elif isinstance(number, int) and first <= number <= self._last_id:
                if "error" in message:
                    raise ContestantFailed(f"{method}: {message['error']}")
                results[number] = message["result"]
        return [results[first + at] for at in range(len(many))]

    def cpu_s(self) -> float:
        """CPU seconds used so far by the server's process, its children and those that ended, without Node.js."""
        return sum(_cpu_s(pid) for pid in _family(self._process.pid, with_node=False))

    def peak_rss_mib(self) -> tuple[float, float]:
        """The peak of the server's own process, and the sum including its live children, without Node.js."""
        peaks = [_peak_rss_mib(pid) for pid in _family(self._process.pid, with_node=False)]
        return peaks[0], sum(peaks)

    def pss_mib(self) -> float:
        """What the server's process and its children occupy now, without Node.js. Pages that several maps share, as
        those of a guest's image, count once; RSS counts them for each map."""
        return sum(_pss_mib(pid) for pid in _family(self._process.pid, with_node=False))

    def close(self) -> None:
        """Ends the server as MCP specifies, by closing its input, then by force, with every process it started."""
        family = [(pid, _born(pid)) for pid in _family(self._process.pid, with_node=True)]
        with contextlib.suppress(OSError):
            self._to_server.close()
        try:
            self._process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pid, born in family:
            if born and _born(pid) == born:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._from_server.close()

    def _send(self, messages: Sequence[Mapping[str, Any]]) -> None:
        lines = "".join(json.dumps({"jsonrpc": "2.0", **message}, separators=(",", ":")) + "\n" for message in messages)
        rest = memoryview(lines.encode())
        try:
            while rest:
                rest = rest[os.write(self._to_server.fileno(), rest) :]
        except OSError as error:
            raise NoAnswer(f"cannot be written to: {error}. {self._last_words()}") from error

    def _receive(self, deadline: float, method: str) -> dict[str, Any]:
        while True:
            line, found, rest = self._buffer.partition(b"\n")
            if found:
                self._buffer = rest
                with contextlib.suppress(ValueError):
                    message = json.loads(line)
                    if isinstance(message, dict):
                        return message
                continue  # Some servers print a greeting to stdout.
            ready, _, _ = select.select([self._from_server], [], [], max(0.0, deadline - time.perf_counter()))
            if not ready:
                raise NoAnswer(f"did not answer {method} in time. {self._last_words()}")
            data = os.read(self._from_server.fileno(), 1 << 18)
            if not data:
                raise NoAnswer(f"ended before answering {method}. {self._last_words()}")
            self._buffer += data

    def _refuse(self, message: Mapping[str, Any]) -> None:
        """Answers a request of the server; ignores its notifications."""
        if message.get("id") is None:
            return
        if message["method"] == "ping":
            self._send([{"id": message["id"], "result": {}}])
        else:
            self._send([{"id": message["id"], "error": {"code": -32601, "message": "Method not found"}}])

    def _last_words(self) -> str:
        text = self._launch.log.read_text(errors="replace").strip()
        return f"Its stderr ended: …{text[-400:]}" if text else "Its stderr is empty."


def text_of(result: Mapping[str, Any]) -> str:
    """The text of a tool's answer, which is what the model reads. Raises ContestantFailed for an error."""
    text = "\n".join(block["text"] for block in result.get("content", ()) if block.get("type") == "text")
    if result.get("isError"):
        raise ContestantFailed(f"answered with an error: {text[:400]}")
    return text


# /proc


def _family(root: int, *, with_node: bool) -> list[int]:
    """A process and its live descendants, itself first. Without Node.js, that is, without the upstreams."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))

    def walk(pid: int) -> Iterator[int]:
        if with_node or not _is_node(pid):
            yield pid
            for child in children.get(pid, ()):
                yield from walk(child)

    return list(walk(root))


def _is_node(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/exe").readlink().name in ("node", "nodejs")
    except OSError:
        return False


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from `state` (the third, here at 0); none if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _cpu_s(pid: int) -> float:
    fields = _stat(pid)
    return sum(map(int, fields[11:15])) / _TICKS_PER_S if fields else 0.0


def _born(pid: int) -> str:
    """The start time of the process, which tells it from a later one with the same id; empty if it is gone."""
    fields = _stat(pid)
    return fields[19] if fields else ""


def _peak_rss_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def _pss_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)
