"""A provider whose model follows a script, so that real agents run their whole loop without one: it calls the tools it is
told to, in order, and ends with what the last of them has returned. It speaks Chat Completions, Responses, Messages and
Gemini's generateContent, streamed or whole.

What has been called so far is read from the conversation, as a model would. A request without the tool that comes next is
answered in words: agents ask for titles and summaries by themselves."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

Event = tuple[str, dict[str, Any]]
"""The name and the data of a server-sent event."""


@dataclass(frozen=True)
class Step:
    """A call that the model makes."""

    tool: str
    """The end of the tool's name, for agents write the server's name before it."""
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Turn:
    """What the model says in one answer: the words, or the call of a tool by its name (and namespace)."""

    words: str = ""
    name: str = ""
    namespace: str = ""
    arguments: str = ""
    number: int = 0


@dataclass(frozen=True)
class Seen:
    """One request as the provider got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class ScriptedModel:
    script: Sequence[Step]
    address: str = ""
    seen: list[Seen] = field(default_factory=list)

    def posts(self) -> list[Seen]:
        return [one for one in self.seen if one.method == "POST"]

    def turn(self, body: dict[str, Any]) -> Turn:
        results = list(_results(body))
        if len(results) < len(self.script):
            step = self.script[len(results)]
            for namespace, name in _tools(body):
                if name.replace("-", "_").endswith(step.tool.replace("-", "_")):
                    return Turn("", name, namespace, json.dumps(step.arguments), len(results) + 1)
            return Turn("no such tool: " + step.tool)
        return Turn("The last tool said: " + results[-1]) if results else Turn("Hello")


def _tools(body: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for tool in body.get("tools") or []:
        for declared in tool.get("functionDeclarations") or []:
            yield "", declared["name"]
        for inner in tool.get("tools") or []:
            yield tool["name"], inner["name"]
        named = tool.get("function") or tool
        if "name" in named and "tools" not in tool:
            yield "", named["name"]


def _results(body: dict[str, Any]) -> Iterator[str]:
    """What tools have returned, in the words of each format."""
    for item in body.get("input") or []:  # Responses
        if isinstance(item, dict) and item.get("type") == "function_call_output":
            yield _text(item["output"])
    for message in body.get("messages") or []:  # Chat Completions, Messages
        if message["role"] == "tool":
            yield _text(message["content"])
        for part in message["content"] if isinstance(message["content"], list) else ():
            if part.get("type") == "tool_result":
                yield _text(part.get("content"))
    for content in body.get("contents") or []:  # Gemini
        for part in content["parts"]:
            if "functionResponse" in part:
                response = part["functionResponse"]["response"]
                yield _text(response.get("output", response))


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(part.get("text", "") for part in content)
    return content if isinstance(content, str) else json.dumps(content)


# --- Messages


def _message(turn: Turn, model: str) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "text", "text": turn.words}
    if turn.name:
        block = {
            "type": "tool_use",
            "id": f"toolu_{turn.number}",
            "name": turn.name,
            "input": json.loads(turn.arguments),
        }
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [block],
        "stop_reason": "tool_use" if turn.name else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 100, "output_tokens": 10},
    }


def _message_events(turn: Turn, model: str) -> Iterator[Event]:
    whole = _message(turn, model)
    begun = {**whole, "content": [], "stop_reason": None}
    (block,) = whole["content"]
    delta = {"type": "input_json_delta", "partial_json": turn.arguments}
    start = {**block, "input": {}}
    if not turn.name:
        delta, start = {"type": "text_delta", "text": turn.words}, {**block, "text": ""}
    stop = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    for type, fields in (
        ("message_start", {"message": begun}),
        ("content_block_start", {"index": 0, "content_block": start}),
        ("content_block_delta", {"index": 0, "delta": delta}),
        ("content_block_stop", {"index": 0}),
        ("message_delta", {"delta": stop, "usage": {"output_tokens": 10}}),
        ("message_stop", {}),
    ):
        yield type, {"type": type, **fields}


# --- Chat Completions


def _chat_message(turn: Turn) -> dict[str, Any]:
    if not turn.name:
        return {"role": "assistant", "content": turn.words}
    function = {"name": turn.name, "arguments": turn.arguments}
    call = {"index": 0, "id": f"call_{turn.number}", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _chat(turn: Turn, model: str) -> dict[str, Any]:
    choice = {"index": 0, "message": _chat_message(turn), "finish_reason": "tool_calls" if turn.name else "stop"}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model}
    return {**head, "choices": [choice], "usage": usage}


def _chat_events(turn: Turn, model: str) -> Iterator[Event]:
    whole = _chat(turn, model)
    (choice,) = whole["choices"]
    head = {**whole, "object": "chat.completion.chunk", "usage": None}
    yield "", {**head, "choices": [{"index": 0, "delta": choice["message"], "finish_reason": None}]}
    yield "", {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]}
    yield "", {**head, "choices": [], "usage": whole["usage"]}


# --- Responses


def _response(turn: Turn, model: str) -> dict[str, Any]:
    item: dict[str, Any] = {
        "type": "message",
        "id": f"msg_{turn.number}",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": turn.words, "annotations": []}],
    }
    if turn.name:
        item = {
            "type": "function_call",
            "id": f"fc_{turn.number}",
            "status": "completed",
            "call_id": f"call_{turn.number}",
            "name": turn.name,
            "arguments": turn.arguments,
            **({"namespace": turn.namespace} if turn.namespace else {}),
        }
    details = {
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    return {
        "id": f"resp_{turn.number}",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": model,
        "output": [item],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110, **details},
    }


def _response_events(turn: Turn, model: str) -> Iterator[Event]:
    whole = _response(turn, model)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    (item,) = whole["output"]
    parts: list[Event] = [
        ("response.created", {"response": begun}),
        ("response.output_item.added", {"output_index": 0, "item": {**item, "status": "in_progress"}}),
        ("response.output_item.done", {"output_index": 0, "item": item}),
        ("response.completed", {"response": whole}),
    ]
    for number, (type, fields) in enumerate(parts):
        yield type, {"type": type, "sequence_number": number, **fields}


# --- Gemini


def _content(turn: Turn, model: str) -> dict[str, Any]:
    part: dict[str, Any] = {"text": turn.words}
    if turn.name:
        part = {"functionCall": {"name": turn.name, "args": json.loads(turn.arguments)}}
    candidate = {"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}
    usage = {"promptTokenCount": 100, "candidatesTokenCount": 10, "totalTokenCount": 110}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": model}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model: ScriptedModel

    def log_message(self, *_: Any) -> None:
        pass

    def _record(self, raw: bytes = b"") -> dict[str, Any]:
        body: dict[str, Any] = json.loads(raw) if raw else {}
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.model.seen.append(Seen(self.command, self.path, headers, body))
        return body

    def do_HEAD(self) -> None:
        self._record()
        self._answer(b"")

    def do_GET(self) -> None:
        self._record()
        if "websocket" in self.headers.get("upgrade", ""):
            self._answer(b"", 426)
        else:
            self._answer(b'{"object": "list", "data": []}')

    def do_POST(self) -> None:
        body = self._record(self.rfile.read(int(self.headers["content-length"])))
        path = urlsplit(self.path).path
        turn, name = self.model.turn(body), body.get("model", "")
        if path.endswith("/count_tokens"):
            self._answer(b'{"input_tokens": 77}')
        elif path.endswith(":streamGenerateContent"):
            self._stream([("", _content(turn, "gemini"))])
        elif path.endswith(":generateContent"):
            self._answer(json.dumps(_content(turn, "gemini")).encode())
        elif path.endswith("/messages"):
            self._say(body, _message(turn, name), _message_events(turn, name))
        elif path.endswith("/responses"):
            self._say(body, _response(turn, name), _response_events(turn, name))
        elif path.endswith("/chat/completions"):
            self._say(body, _chat(turn, name), _chat_events(turn, name), b"data: [DONE]\n\n")
        else:
            self._answer(b'{"error": {"message": "no such path"}}', 404)

    def _say(self, body: dict[str, Any], whole: dict[str, Any], events: Iterator[Event], last: bytes = b"") -> None:
        if body.get("stream"):
            self._stream(events, last)
        else:
            self._answer(json.dumps(whole).encode())

    def _stream(self, events: Any, last: bytes = b"") -> None:
        lines = [
            (f"event: {name}\n" if name else "").encode() + f"data: {json.dumps(data)}\n\n".encode()
            for name, data in events
        ]
        self._answer(b"".join(lines) + last, type="text/event-stream")

    def _answer(self, body: bytes, status: int = 200, type: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def scripted_model(*script: Step, port: int = 0) -> Iterator[ScriptedModel]:
    model = ScriptedModel(script)
    server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"model": model}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    model.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield model
    finally:
        server.shutdown()
        server.server_close()
