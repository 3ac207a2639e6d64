"""A local model endpoint that plays the oracle: it knows the tasks, and calls classic tools or execute_code,
whichever it is shown.

It speaks OpenAI's Chat Completions and Anthropic's Messages as their references describe them, and is as strict as they
are: keys, versions, required fields, names of tools, and that every call is answered right after it was made. What they
would refuse it refuses with their status and their body.
"""

import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from benchmarks.token_savings.catalogs import qualified
from benchmarks.token_savings.task import Task

KEY = "a-test-key"
INPUT_TOKENS, CACHED_TOKENS, OUTPUT_TOKENS = 1000, 400, 10
"""Usage of every request."""
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass
class FakeEndpoint:
    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    """Every request that was answered."""
    busy: int = 0
    """The first so many requests get 503, to be retried at once."""
    refused_user: str = ""
    """A user's text whose conversation is too long."""
    arrived: threading.Event = field(default_factory=threading.Event)
    """Set when the request with number `held` has arrived."""
    held: int = -1
    """The number, from 0, of the request that is never answered."""


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@contextmanager
def fake_endpoint(tasks: Sequence[Task]) -> Iterator[FakeEndpoint]:
    turns = {turn.user: turn for task in tasks for turn in task.turns}
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if len(endpoint.bodies) == endpoint.held:
                endpoint.arrived.set()
                ended.wait()
                return
            if endpoint.busy:
                endpoint.busy -= 1
                self._send(503, {"error": {"message": "overloaded"}}, {"Retry-After": "0"})
                return
            try:
                answer = self._answer(body)
            except Refused as refused:
                self._send(refused.status, {"error": {"type": "invalid_request_error", "message": str(refused)}})
                return
            endpoint.bodies.append(body)
            self._send(200, answer)

        def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
            _require(endpoint.refused_user not in json.dumps(body) or not endpoint.refused_user, "context too long")
            match self.path:
                case "/v1/chat/completions":
                    _require(self.headers["Authorization"] == f"Bearer {KEY}", "Incorrect API key provided", 401)
                    return _openai(body, turns)
                case "/v1/messages":
                    _require(self.headers["x-api-key"] == KEY, "invalid x-api-key", 401)
                    _require(self.headers["anthropic-version"] == "2023-06-01", "anthropic-version: required")
                    return _anthropic(body, turns)
                case path:
                    raise Refused(404, f"Unknown request URL: POST {path}")

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _send(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """Ignored: an interrupted client has disconnected."""

    httpd = Server(("127.0.0.1", 0), Handler)
    endpoint = FakeEndpoint(f"http://127.0.0.1:{httpd.server_address[1]}")
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        ended.set()
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def _require(holds: bool, message: str, status: int = 400) -> None:
    if not holds:
        raise Refused(status, message)


def _next(user: str, results: int, tools: set[str], turns: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | str:
    """The oracle's next step after so many results: a call, or the answer."""
    turn = turns[user]
    if "execute_code" in tools:
        steps = [("execute_code", {"code": turn.code})]
    else:
        calls = [call for round in turn.rounds for call in round]
        steps = [(qualified(call.server, call.tool), dict(call.arguments)) for call in calls]
    return steps[results] if results < len(steps) else turn.answer


def _openai(body: Mapping[str, Any], turns: Mapping[str, Any]) -> dict[str, Any]:
    unknown = set(body) - {"model", "messages", "tools"}
    _require(not unknown, f"Unrecognized request arguments supplied: {unknown}")
    for tool in body["tools"]:
        _require(set(tool) == {"type", "function"} and tool["type"] == "function", "tools: not a function")
        _check_tool(tool["function"], "parameters")
    messages = body["messages"]
    open_calls: list[str] = []
    for message in messages:
        match message:
            case {"role": "tool", "tool_call_id": id, "content": str()}:
                _require(id in open_calls, "messages with role 'tool' must be a response to a preceeding 'tool_calls'")
                open_calls.remove(id)
                continue
            case {"role": "assistant", "content": str() | None}:
                calls = message.get("tool_calls") or []
            case {"role": "system" | "user", "content": str()}:
                calls = []
            case _:
                raise Refused(400, f"Invalid value: {message}")
        _require(not open_calls, f"tool_call_ids did not have response messages: {open_calls}")
        open_calls = [call["id"] for call in calls]
    last = max(at for at, message in enumerate(messages) if message["role"] == "user")
    results = sum(message["role"] == "tool" for message in messages[last:])
    names = {tool["function"]["name"] for tool in body["tools"]}
    said: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    match _next(messages[last]["content"], results, names, turns):
        case str(text):
            said["content"] = text
        case name, arguments:
            function = {"name": name, "arguments": json.dumps(arguments)}
            said["tool_calls"] = [{"id": f"call_{len(messages)}", "type": "function", "function": function}]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": body["model"],
        "choices": [
            {
                "index": 0,
                "message": said,
                "logprobs": None,
                "finish_reason": "tool_calls" if "tool_calls" in said else "stop",
            }
        ],
        "usage": {
            "prompt_tokens": INPUT_TOKENS,
            "completion_tokens": OUTPUT_TOKENS,
            "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
            "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS, "audio_tokens": 0},
        },
    }


def _anthropic(body: Mapping[str, Any], turns: Mapping[str, Any]) -> dict[str, Any]:
    unknown = set(body) - {"model", "max_tokens", "system", "messages", "tools"}
    _require(not unknown, f"{unknown}: Extra inputs are not permitted")
    _require(isinstance(body.get("max_tokens"), int), "max_tokens: Field required")
    for tool in body["tools"]:
        _check_tool(tool, "input_schema")
    messages = body["messages"]
    open_calls: set[str] = set()
    for at, message in enumerate(messages):
        _require(message["role"] == ("assistant" if at % 2 else "user"), "messages: roles must alternate")
        blocks = message["content"] if isinstance(message["content"], list) else []
        answered = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
        _require(answered == open_calls, f"tool_use ids were found without tool_result blocks: {open_calls - answered}")
        open_calls = {block["id"] for block in blocks if block["type"] == "tool_use"}
    last = max(at for at, message in enumerate(messages) if isinstance(message["content"], str))
    results = sum(message["role"] == "user" for message in messages[last + 1 :])
    match _next(messages[last]["content"], results, {tool["name"] for tool in body["tools"]}, turns):
        case str(text):
            content, reason = [{"type": "text", "text": text}], "end_turn"
        case name, arguments:
            content = [{"type": "text", "text": "Let me see."}]
            content += [{"type": "tool_use", "id": f"toolu_{len(messages)}", "name": name, "input": arguments}]
            reason = "tool_use"
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": content,
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": {
            "input_tokens": INPUT_TOKENS - CACHED_TOKENS - 100,
            "cache_creation_input_tokens": 100,
            "cache_read_input_tokens": CACHED_TOKENS,
            "output_tokens": OUTPUT_TOKENS,
        },
    }


def _check_tool(tool: Mapping[str, Any], schema: str) -> None:
    _require(set(tool) == {"name", "description", schema}, f"tools: unexpected fields {set(tool)}")
    _require(_NAME.fullmatch(tool["name"]) is not None, f"tools: name {tool['name']!r} does not match")
    _require(tool[schema].get("type") == "object", f"tools: {schema}.type must be 'object'")
