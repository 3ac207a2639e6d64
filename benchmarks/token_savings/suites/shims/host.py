# mypy: ignore-errors
"""The process that holds a suite's state: runs in the venv of the suite's package, separate from the benchmark's own.

It has two interfaces. Standard input and output are for the benchmark: JSON lines that list the tasks, reset the state
to the start of one, and ask for the verdict. A loopback TCP port is for the MCP servers (`server.py`, any number of
them): they relay requests, so that all clients see one state, and a task can begin while they run.
What the state is, is up to the box. Standard library only.
"""

import json
import socketserver
import sys
import threading
import traceback
from typing import Any, Protocol


class Box(Protocol):
    """The tools of several servers over one state, and the tasks that are judged by it."""

    def catalog(self) -> dict[str, list[dict[str, Any]]]:
        """Server → its tools, as `tools/list` shows them."""
        ...

    def tasks(self) -> list[dict[str, Any]]:
        """Every task with the calls of its ground truth and their answers: see `oracle.TracedTask`."""
        ...

    def begin(self, task_id: str) -> None: ...

    def call(self, server: str, tool: str, arguments: dict[str, Any]) -> Any:
        """The tool's value, in JSON types. Exceptions become the text of an error result."""
        ...

    def verify(self, answers: list[str]) -> str:
        """An empty text if the current task is done, else why not."""
        ...


def serve(box: Box) -> None:
    """Serves both interfaces until standard input ends."""
    lock = threading.Lock()
    control, sys.stdout = sys.stdout, sys.stderr  # Packages print; the benchmark must read only our lines.
    with _ToolDoor(box, lock) as door:
        threading.Thread(target=door.serve_forever, daemon=True).start()
        _say(control, {"port": door.server_address[1], "servers": list(box.catalog())})
        for line in sys.stdin:
            request = json.loads(line)
            try:
                with lock:
                    answer = {"result": getattr(box, request["method"])(*request["params"])}
            except Exception:
                answer = {"error": traceback.format_exc(limit=-3)}
            _say(control, answer)
        door.shutdown()


def _say(stream: Any, message: dict[str, Any]) -> None:
    stream.write(json.dumps(message) + "\n")
    stream.flush()


class _ToolDoor(socketserver.ThreadingTCPServer):
    """Answers `{"server", "tool"?, "arguments"?}` lines with the MCP result of `tools/call`, or of `tools/list`."""

    daemon_threads = True

    def __init__(self, box: Box, lock: threading.Lock) -> None:
        super().__init__(("127.0.0.1", 0), _ToolConnection)
        self.box, self.lock = box, lock
        self.catalog = box.catalog()
        self.wrapped = {
            (server, tool["name"])
            for server, tools in self.catalog.items()
            for tool in tools
            if tool.get("outputSchema", {}).get("x-fastmcp-wrap-result")
        }


class _ToolConnection(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True
    server: _ToolDoor

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(json.dumps(self._answer(json.loads(line))).encode() + b"\n")

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        name, tool = request["server"], request.get("tool")
        if tool is None:
            return {"tools": self.server.catalog[name]}
        try:
            with self.server.lock:
                value = self.server.box.call(name, tool, request["arguments"])
        except Exception as error:
            text = str(error) or type(error).__name__
            return {"content": [{"type": "text", "text": text}], "isError": True}
        return _to_result(value, (name, tool) in self.server.wrapped)


def _to_result(value: Any, wrapped: bool) -> dict[str, Any]:
    """As the Python SDK does it: text is text, None is nothing, all else is JSON, together with structured content.
    Structured content is an object: other values are wrapped as `{"result": …}` if the tool declares that."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    structured = {"result": value} if wrapped else {} if value is None else value
    return {
        "content": [] if value is None else [{"type": "text", "text": text}],
        **({"structuredContent": structured} if isinstance(structured, dict) else {}),
        "isError": False,
    }
