"""A model's endpoint on this machine that plays the oracle: it speaks OpenAI's and Anthropic's wire formats, knows the
tasks, and calls classic tools or execute_code, whichever it is shown."""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from benchmarks.token_savings.catalogs import qualified
from benchmarks.token_savings.task import Task

INPUT_TOKENS, OUTPUT_TOKENS = 1000, 10
"""Of every request."""


@dataclass
class FakeEndpoint:
    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    """Every request that came."""
    busy: int = 0
    """So many requests are answered with 503 first."""


@contextmanager
def fake_endpoint(tasks: Sequence[Task]) -> Iterator[FakeEndpoint]:
    turns = {turn.user: turn for task in tasks for turn in task.turns}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if endpoint.busy:
                endpoint.busy -= 1
                self._send(503, {})
                return
            endpoint.bodies.append(body)
            answer = _anthropic if self.path.endswith("/v1/messages") else _openai
            self._send(200, answer(body, turns))

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _send(self, status: int, body: Mapping[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    endpoint = FakeEndpoint(f"http://127.0.0.1:{httpd.server_address[1]}")
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def _next(user: str, results: int, tools: set[str], turns: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | str:
    """What the oracle does after so many results: a call, or the answer."""
    turn = turns[user]
    if "execute_code" in tools:
        steps = [("execute_code", {"code": turn.code})]
    else:
        calls = [call for round in turn.rounds for call in round]
        steps = [(qualified(call.server, call.tool), dict(call.arguments)) for call in calls]
    return steps[results] if results < len(steps) else turn.answer


def _openai(body: Mapping[str, Any], turns: Mapping[str, Any]) -> dict[str, Any]:
    messages = body["messages"]
    last = max(at for at, message in enumerate(messages) if message["role"] == "user")
    results = sum(message["role"] == "tool" for message in messages[last:])
    tools = {tool["function"]["name"] for tool in body["tools"]}
    message: dict[str, Any] = {"role": "assistant", "content": None}
    match _next(messages[last]["content"], results, tools, turns):
        case str(text):
            message["content"] = text
        case name, arguments:
            function = {"name": name, "arguments": json.dumps(arguments)}
            message["tool_calls"] = [{"id": f"c{len(messages)}", "type": "function", "function": function}]
    usage = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS}
    return {"choices": [{"message": message}], "usage": usage}


def _anthropic(body: Mapping[str, Any], turns: Mapping[str, Any]) -> dict[str, Any]:
    messages = body["messages"]
    last = max(at for at, message in enumerate(messages) if isinstance(message["content"], str))
    results = sum(message["role"] == "user" for message in messages[last + 1 :])
    match _next(messages[last]["content"], results, {tool["name"] for tool in body["tools"]}, turns):
        case str(text):
            content = [{"type": "text", "text": text}]
        case name, arguments:
            content = [{"type": "tool_use", "id": f"t{len(messages)}", "name": name, "input": arguments}]
    usage = {"input_tokens": INPUT_TOKENS - 400, "cache_read_input_tokens": 400, "output_tokens": OUTPUT_TOKENS}
    return {"role": "assistant", "content": content, "usage": usage}
