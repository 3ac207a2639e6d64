"""What it costs to export traces, or to keep contents: the CPU time of two gateways that answer the same requests, one
of which does so.

    python -m benchmarks.recording traces|contents [ROUNDS] [REQUESTS]

Rounds alternate between the two, so that a busy machine hurts both. Questions and answers have 1.4 kB each. The
collector reads the traces that it gets and forgets them.
"""

import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.machine import describe_machine

_DONE_S = 2.0
"""After so long, a gateway has exported or written everything."""
_WORDS = random.Random(0).choices("time year people way day man thing woman life child world school".split(), k=180)
_TEXT = " ".join(f"{word}{number}" for number, word in enumerate(_WORDS))
_CHAT = {"model": "echo/small", "messages": [{"role": "user", "content": _TEXT}], "max_tokens": 500}
_KEY = "mg-of-the-benchmark"
_SERVER = Path(__file__).resolve().parent.parent / "tests" / "raw_server.py"
_CODE = f"for i in range(5):\n    alpha.echo(text={_TEXT!r})\nreturn i"


@contextmanager
def collector() -> Iterator[str]:
    """The address of a collector that forgets everything."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@contextmanager
def gateway(folder: Path, **telemetry: Any) -> Iterator[tuple[psutil.Process, int]]:
    """The process of a gateway and its port."""
    folder.mkdir()
    config, log = folder / "mcpgate.yaml", folder / "log"
    grants = {"tools": ["*"], "models": ["*"]}
    budget = {"limit_usd": 1000, "period": "1d"}
    settings = {
        "mcpServers": {"alpha": {"command": sys.executable, "args": [str(_SERVER)], "expose": "both"}},
        "governance": {"keys": {"bench": {"secret": _KEY, "grants": grants, "budget": budget}}},
        "llm": {"providers": {"echo": {"type": "echo"}}, "prices": {"*/*": {"input_usd_per_mtok": 1}}},
        "cache": {"enabled": False},
        "telemetry": {"log_level": "info", **telemetry},
    }
    config.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "mcpgate", "serve", "-c", str(config), "--port", "0"]
    with log.open("wb") as stderr:
        environment = {**os.environ, "XDG_DATA_HOME": str(folder / "data")}
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr, env=environment)
    try:
        while b"alpha: ready" not in log.read_bytes() or b"listening on" not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        address = log.read_text().partition("listening on http://")[2].split()[0]
        yield psutil.Process(process.pid), int(address.partition(":")[2].partition("/")[0])
    finally:
        process.terminate()
        process.wait()


def _call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    params = {"name": name, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


WORKS: dict[str, tuple[str, dict[str, Any], float]] = {
    "a request to a model": ("/v1/chat/completions", _CHAT, 1.0),
    "a direct tool call": ("/mcp", _call("alpha__echo", {"text": _TEXT}), 1.0),
    "an execution with five tool calls": ("/mcp", _call("execute_code", {"code": _CODE}), 0.2),
}
"""Path, body, and the share of the requests."""


def run(process: psutil.Process, port: int, path: str, body: dict[str, Any], number: int) -> float:
    """Microseconds of CPU time a request."""
    headers = {
        "authorization": f"Bearer {_KEY}",
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    }
    connection, data = http.client.HTTPConnection("127.0.0.1", port), json.dumps(body)

    def cpu_s() -> float:
        times = process.cpu_times()
        return float(times.user + times.system)

    before = cpu_s()
    for _ in range(number):
        connection.request("POST", path, data, headers)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200 and b'"isError":true' not in text, text[:500]
    time.sleep(_DONE_S)
    return (cpu_s() - before) / number * 1e6


def measure(what: str, rounds: int, number: int, say: Callable[[str], None] = print) -> None:
    machine = describe_machine()
    say(f"{machine['date']}; {machine['cpu']}, {machine['cores']} cores; Python {machine['python']}\n")
    with tempfile.TemporaryDirectory() as folder, collector() as address:
        telemetry = {"traces": {"otlp_endpoint": address}, "contents": {"log_content": True}}[what]
        off, on = gateway(Path(folder, "off")), gateway(Path(folder, "on"), **telemetry)
        with off as without, on as recording:
            say("| | without, µs | with, µs | difference |\n|---|--:|--:|--:|")
            for name, (path, body, share) in WORKS.items():
                some = max(20, int(number * share))
                for one in (without, recording):
                    run(*one, path, body, some // 4)
                pairs = [(run(*without, path, body, some), run(*recording, path, body, some)) for _ in range(rounds)]
                before, after = (statistics.median(side) for side in zip(*pairs, strict=True))
                more = statistics.median(b - a for a, b in pairs)
                say(f"| {name} | {before:,.0f} | {after:,.0f} | {more:+,.0f} ({more / before:+.0%}) |")


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[2:]]
    measure(sys.argv[1], *(given + [7, 2000][len(given) :]))
