"""A provider of models, as far as its wire formats go: Chat Completions, Responses and Embeddings as OpenAI sends them,
Messages as Anthropic does, generateContent as Google does (gemini_wire.py, which knows more models), Converse as AWS does
(bedrock_wire.py, too). It keeps responses and files as OpenAI does (openai_wire.py). It says what it is told by the name
of the model that it is asked for:

    good            an answer with usage            no-usage        an answer without
    status-429      an error with that status       overloaded      an error event within a 200 stream
    cut             a stream that ends in between   garbage         bytes that are no answer
    hang            nothing, for ever               slow            a stream that waits for `go_on`
    hold            an answer, once `go_on` is set
    signing         thinks, calls the first tool, and refuses a request that does not bring its signature back
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from tests import bedrock_wire, gemini_wire, openai_wire

WORDS = ["Hello", " from", " the", " model", "."]
USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 50,
    "total_tokens": 1050,
    "prompt_tokens_details": {"cached_tokens": 400},
    "completion_tokens_details": {"reasoning_tokens": 20},
}
MESSAGES_USAGE = {
    "input_tokens": 500,
    "cache_read_input_tokens": 400,
    "cache_creation_input_tokens": 100,
    "output_tokens": 50,
}


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.raw)
        return found

    @property
    def method(self) -> str:
        """Of Gemini, such as `generateContent`; empty for other formats."""
        path = self.path.partition("?")[0]
        is_geminis = path.startswith(("/v1beta/models/", "/v1/models/")) or "/publishers/google/models/" in path
        return path.rpartition(":")[2] if is_geminis else ""

    @property
    def is_bedrocks(self) -> bool:
        return bedrock_wire.is_bedrocks(self.path)

    @property
    def model(self) -> str:
        if self.method:
            return unquote(self.path.partition("/models/")[2].rpartition(":")[0])
        return bedrock_wire.model_of(self.path) if self.is_bedrocks else str(self.body["model"])

    @property
    def stream(self) -> bool:
        if self.is_bedrocks:
            return bedrock_wire.is_stream(self.path)
        return self.method == "streamGenerateContent" or bool(self.body.get("stream"))


@dataclass
class ModelProvider:
    address: str = ""
    received: list[Received] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)
    gone: threading.Event = field(default_factory=threading.Event)
    """Set when a client of `slow` or `hang` has hung up."""
    failures_left: int = 0
    """How many requests for `flaky` still fail."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    kept: openai_wire.Kept = field(default_factory=openai_wire.Kept)

    def models(self) -> list[str]:
        return [one.model for one in self.received]


def chat_chunks(model: str, with_usage: bool) -> Iterator[dict[str, Any]]:
    def chunk(choices: list[Any], **more: Any) -> dict[str, Any]:
        base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model}
        return {**base, "choices": choices, "service_tier": "default", **more}

    usage = {"usage": None} if with_usage else {}
    yield chunk([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}], **usage)
    for word in WORDS:
        yield chunk([{"index": 0, "delta": {"content": word}, "finish_reason": None}], **usage)
    yield chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}], **usage)
    if with_usage:
        yield chunk([], usage=USAGE)


THINKING = {"type": "thinking", "thinking": "Let me look.", "signature": "EqQBCkgIBxABGAIiQ+/claudes=="}


def signed_blocks(body: dict[str, Any]) -> list[dict[str, Any]]:
    """What Claude says when it thinks before it calls a tool, and after that."""
    blocks = [block for message in body["messages"] for block in message["content"] if isinstance(block, dict)]
    results = [str(block["content"]) for block in blocks if block["type"] == "tool_result"]
    if results:
        return [{"type": "text", "text": f"It is {one}."} for one in results]
    call = {"type": "tool_use", "id": "toolu_1", "name": body["tools"][0]["name"], "input": {"city": "Paris"}}
    return [THINKING, call]


def signed_refusal(body: dict[str, Any]) -> str:
    """What Claude says of a call whose thinking is gone or has changed; empty if it has not."""
    said = [message["content"] for message in body["messages"] if message["role"] == "assistant"]
    bad = any(blocks[0] != THINKING for blocks in said if any(block["type"] == "tool_use" for block in blocks))
    return "Expected `thinking`, unchanged, before `tool_use`." if bad else ""


def signed_events(model: str, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    whole = whole_message(model, signed_blocks(body))
    yield "message_start", {"message": {**whole, "content": [], "stop_reason": None}}
    for index, block in enumerate(whole["content"]):
        deltas: list[dict[str, Any]] = [{"type": "text_delta", "text": block.get("text")}]
        empty = {**block, "text": ""}
        if block["type"] == "thinking":
            deltas = [{"type": f"{name}_delta", name: block[name]} for name in ("thinking", "signature")]
            empty = {**block, "thinking": "", "signature": ""}
        elif block["type"] == "tool_use":
            deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
            empty = {**block, "input": {}}
        yield "content_block_start", {"index": index, "content_block": empty}
        for delta in deltas:
            yield "content_block_delta", {"index": index, "delta": delta}
        yield "content_block_stop", {"index": index}
    stop = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield "message_delta", {"delta": stop, "usage": {"output_tokens": 50}}
    yield "message_stop", {}


def messages_events(model: str) -> Iterator[tuple[str, dict[str, Any]]]:
    begin = {**MESSAGES_USAGE, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [], "usage": begin}
    yield "message_start", {"message": {**message, "stop_reason": None, "stop_sequence": None}}
    yield "content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}
    yield "ping", {}
    for word in WORDS:
        yield "content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": word}}
    yield "content_block_stop", {"index": 0}
    yield "message_delta", {"delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 50}}
    yield "message_stop", {}


def whole_chat(model: str, with_usage: bool) -> dict[str, Any]:
    message = {"role": "assistant", "content": "".join(WORDS), "refusal": None}
    choices = [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}]
    base = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model, "choices": choices}
    return {**base, "vendor_field": [1.0, 12345678901234567890123], **({"usage": USAGE} if with_usage else {})}


def whole_message(model: str, blocks: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    content = blocks or [{"type": "text", "text": "".join(WORDS)}]
    base = {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": content}
    reason = "tool_use" if content[-1]["type"] == "tool_use" else "end_turn"
    return {**base, "stop_reason": reason, "stop_sequence": None, "usage": MESSAGES_USAGE}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    provider: ModelProvider
    received: Received

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        """Its models. Google says 400 of a key that it does not know."""
        if self.headers.get("x-goog-api-key") == "AIza-unknown":
            self._whole(json.dumps(gemini_wire.bad_key()).encode(), 400)
        elif not self._kept("GET", b""):
            self._json({"models": [], "object": "list", "data": []})

    def do_DELETE(self) -> None:
        if not self._kept("DELETE", b""):
            self._whole(b"{}", 404)

    def _kept(self, method: str, raw: bytes) -> bool:
        """Whether it was asked about what is kept."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.provider.kept.answer(method, self.path, headers, raw)
        if answer is not None:
            self._whole(answer.body, answer.status, {"content-type": answer.type})
        return answer is not None

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        if len(raw) < int(self.headers["content-length"]):
            self.close_connection = True  # its client is gone
            return
        if self._kept("POST", raw):
            return
        received = Received(self.path, headers, raw)
        with self.provider.lock:
            self.provider.received.append(received)
        self.received = received
        model, stream = received.model, received.stream
        if model == "flaky":
            with self.provider.lock:
                fails = self.provider.failures_left > 0
                self.provider.failures_left -= 1
            if fails:
                self._error(503, {"retry-after-ms": "10"})
                return
        if self.received.is_bedrocks and (type := bedrock_wire.refused("POST", self.path, headers, raw)):
            self._aws_error(403, type, "The security token included in the request is invalid.")
        elif received.headers.get("x-goog-api-key") == "AIza-unknown":
            self._whole(json.dumps(gemini_wire.bad_key()).encode(), 400)
        elif model.startswith("status-"):
            self._error(int(model.removeprefix("status-")), {"retry-after": "0"})
        elif model == "hang":
            self._wait_for_hang_up()
        elif model == "hold" and not self._wait_for_go():
            return
        elif model == "garbage":
            self._whole(b"<html>this is no answer</html>")
        elif received.method:
            self._gemini(model, received)
        elif received.is_bedrocks:
            self._bedrock(model, received)
        elif model == "signing" and (refused := signed_refusal(received.body)):
            self._error(400, {}, refused)
        elif model == "signing" and not stream:
            self._json(whole_message(model, signed_blocks(received.body)))
        elif self.path.endswith("/count_tokens"):
            self._whole(b'{"input_tokens": 77}')
        elif self.path.endswith("/embeddings"):
            given = received.body["input"]
            count = len(given) if isinstance(given, list) else 1
            data = [{"object": "embedding", "index": at, "embedding": [0.5 + at, -0.5]} for at in range(count)][::-1]
            self._json(
                {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": 10, "total_tokens": 10}}
            )
        elif self._is_responses and (
            refused_as := self.provider.kept.refusal(headers.get("authorization", ""), received.body)
        ):
            self._whole(refused_as.body, refused_as.status)
        elif self._is_responses and not stream:
            self._json(self._response())
        elif not stream:
            with_usage = model != "no-usage"
            self._json(
                whole_message(model)
                if self.path.partition("?")[0].endswith("/messages")
                else whole_chat(model, with_usage)
            )
        else:
            self._stream(model, received.body)

    def _gemini(self, model: str, received: Received) -> None:
        if refused := gemini_wire.refusal(model, received.body):
            self._whole(json.dumps(gemini_wire.error(400, refused)).encode(), 400)
        elif received.method == "countTokens":
            self._json({"totalTokens": 77})
        elif received.method == "batchEmbedContents":
            values = [{"values": [0.5 + at, -0.5]} for at, _ in enumerate(received.body["requests"])]
            self._json({"embeddings": values, "usageMetadata": {"promptTokenCount": 10}})
        elif received.method == "embedContent":
            self._json({"embedding": {"values": [0.5, -0.5]}, "usageMetadata": {"promptTokenCount": 10}})
        elif received.stream:
            self._stream(model, received.body)
        else:
            self._json(gemini_wire.whole(model, received.body, WORDS))

    def _bedrock(self, model: str, received: Received) -> None:
        if self.path.endswith("/invoke"):
            self._json(bedrock_wire.embedded(model, received.body))
        elif wrong := bedrock_wire.invalid(self.path, received.body):
            self._aws_error(400, "ValidationException", wrong)
        elif received.stream:
            self._stream(model, received.body)
        elif model == "throttled":
            self._aws_error(429, "ThrottlingException", "Too many requests, please wait before trying again.")
        else:
            self._json(bedrock_wire.whole(model, received.body, WORDS))

    def _aws_error(self, status: int, type: str, message: str, headers: dict[str, str] | None = None) -> None:
        about = {"x-amzn-errortype": f"{type}:http://internal.amazon.com/coral/", **(headers or {})}
        self._whole(json.dumps({"message": message}).encode(), status, about)

    @property
    def _is_responses(self) -> bool:
        return self.path.partition("?")[0].endswith("/responses")

    def _response(self) -> dict[str, Any]:
        project = self.received.headers.get("authorization", "")
        return self.provider.kept.respond(project, self.received.body, "".join(WORDS))

    def _events(self, model: str, body: dict[str, Any]) -> Iterator[bytes]:
        if self.received.method:
            for chunk in gemini_wire.chunks(model, body, WORDS):
                yield f"data: {json.dumps(chunk)}\r\n\r\n".encode()
            return
        if self.received.is_bedrocks:
            yield from bedrock_wire.stream(model, body, WORDS)
            return
        if self.path.partition("?")[0].endswith("/messages"):
            for name, data in signed_events(model, body) if model == "signing" else messages_events(model):
                yield f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()
            return
        if self._is_responses:
            for number, (name, data) in enumerate(openai_wire.events(self._response(), WORDS)):
                yield f"event: {name}\ndata: {json.dumps({'type': name, 'sequence_number': number, **data})}\n\n".encode()
            return
        options = body.get("stream_options") or {}
        for chunk in chat_chunks(model, options.get("include_usage", False) and model != "no-usage"):
            yield f"data: {json.dumps(chunk)}\n\n".encode()
        yield b"data: [DONE]\n\n"

    def _stream(self, model: str, body: dict[str, Any]) -> None:
        self.send_response(200)
        aws = "application/vnd.amazon.eventstream"
        self.send_header("content-type", aws if self.received.is_bedrocks else "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        if model == "overloaded" and self.received.method:
            self._chunk(f"data: {json.dumps(gemini_wire.error(503, 'Overloaded'))}\r\n\r\n".encode())
            self._chunk(b"")
            return
        if model == "overloaded":
            error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
            self._chunk(f"event: error\ndata: {json.dumps(error)}\n\n".encode())
            self._chunk(b"")
            return
        for number, event in enumerate(self._events(model, body)):
            if number == 3 and model == "cut":
                self.close_connection = True
                self.connection.close()
                return
            if number == 3 and model == "slow" and not self._wait_for_go():
                return
            self._chunk(event)
        self._chunk(b"")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _wait_for_go(self) -> bool:
        self.connection.settimeout(0.02)
        while not self.provider.go_on.wait(0.01):
            if self._has_hung_up():
                return False
        self.connection.settimeout(None)
        return True

    def _wait_for_hang_up(self) -> None:
        self.connection.settimeout(0.02)
        while not self._has_hung_up() and not self.provider.go_on.is_set():
            pass
        self.close_connection = True

    def _has_hung_up(self) -> bool:
        try:
            if self.connection.recv(1) == b"":
                self.provider.gone.set()
                self.close_connection = True
                return True
        except TimeoutError:
            pass
        except OSError:
            self.provider.gone.set()
            return True
        return False

    def _error(self, status: int, headers: dict[str, str], message: str = "") -> None:
        message = message or f"Told to fail with {status}"
        if self.received.is_bedrocks:
            type = {429: "ThrottlingException", 424: "ModelErrorException"}.get(status, "ValidationException")
            self._aws_error(status, type, message, headers)
            return
        if self.received.method:
            error = gemini_wire.error(status, message)
            self._whole(json.dumps(error).encode(), status, headers)
            return
        error = {
            "type": "error",
            "error": {"type": "told_to_fail", "message": message, "code": None},
        }
        self._whole(json.dumps(error).encode(), status, headers)

    def _json(self, body: dict[str, Any]) -> None:
        self._whole(json.dumps(body).encode())

    def _whole(self, data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class _Server(ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 512


@contextmanager
def model_provider() -> Iterator[ModelProvider]:
    provider = ModelProvider()
    handler = type("Handler", (_Handler,), {"provider": provider})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    provider.address = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield provider
    finally:
        provider.go_on.set()
        server.shutdown()
        server.server_close()
