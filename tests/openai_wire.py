"""What OpenAI keeps, as far as its wire formats go: responses and files. Each of its keys stands for a project, which does
not see what is kept for another one."""

import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any
from urllib.parse import unquote

USAGE = {
    "input_tokens": 1000,
    "input_tokens_details": {"cached_tokens": 400, "cache_write_tokens": 0},
    "output_tokens": 50,
    "output_tokens_details": {"reasoning_tokens": 20},
    "total_tokens": 1050,
}


@dataclass
class Answer:
    status: int
    body: bytes
    type: str = "application/json"


@dataclass
class Kept:
    """All that is kept, by project and id."""

    responses: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    inputs: dict[tuple[str, str], list[Any]] = field(default_factory=dict)
    files: dict[tuple[str, str], tuple[dict[str, Any], bytes]] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Project, method and path of every question about what is kept."""

    def new_id(self, prefix: str) -> str:
        return prefix + secrets.token_hex(16)

    def answer(self, method: str, path: str, headers: Mapping[str, str], raw: bytes) -> Answer | None:
        """None for what is not about things that are kept."""
        project = headers.get("authorization", "")
        parts = [unquote(part) for part in path.partition("?")[0].removeprefix("/v1/").split("/")]
        if parts[0] not in ("responses", "files") or parts == ["responses"]:
            return None
        self.asked.append((project, method, path))
        if parts[0] == "files":
            return self._files(method, project, parts[1:], headers, raw)
        if parts[1] == "input_tokens":
            return _json({"object": "response.input_tokens", "input_tokens": 77})
        if parts[1] == "compact":
            item = {"id": self.new_id("cmp_"), "type": "compaction", "encrypted_content": "gAAAA"}
            base = {"id": self.new_id("resp_"), "object": "response.compaction", "created_at": 1}
            return _json({**base, "output": [item], "usage": USAGE})
        found = self.responses.get((project, parts[1]))
        if found is None:
            return _missing(f"Response with id '{parts[1]}' not found.")
        match method, parts[2:]:
            case "GET", []:
                return _json(found)
            case "DELETE", []:
                del self.responses[project, parts[1]]
                return _json({"id": parts[1], "object": "response", "deleted": True})
            case "POST", ["cancel"]:
                return _error(400, "Cannot cancel a synchronous response.")
            case "GET", ["input_items"]:
                items = self.inputs[project, parts[1]]
                ends = {"first_id": items[0]["id"], "last_id": items[-1]["id"]}
                return _json({"object": "list", "data": items, "has_more": False, **ends})
        return _missing("no route")

    def _files(self, method: str, project: str, parts: list[str], headers: Mapping[str, str], raw: bytes) -> Answer:
        if method == "POST" and not parts:
            fields = _form(headers["content-type"], raw)
            name, content = fields["file"]
            id, purpose = self.new_id("file-"), fields["purpose"][1].decode()
            made = {"id": id, "object": "file", "bytes": len(content), "created_at": 1, "filename": name}
            made |= {"purpose": purpose, "status": "processed"}
            self.files[project, id] = made, content
            return _json(made)
        if not parts:
            return _json({"object": "list", "data": [made for made, _ in self.files.values()], "has_more": False})
        found = self.files.get((project, parts[0]))
        if found is None:
            return _missing(f"No such File object: {parts[0]}")
        match method, parts[1:]:
            case "GET", []:
                return _json(found[0])
            case "GET", ["content"]:
                return Answer(200, found[1], "text/html")
            case "DELETE", []:
                del self.files[project, parts[0]]
                return _json({"id": parts[0], "object": "file", "deleted": True})
        return _missing("no route")

    def refusal(self, project: str, body: dict[str, Any]) -> Answer | None:
        """What is said of a request that goes on with what its project does not have."""
        previous = body.get("previous_response_id")
        if previous is not None and (project, previous) not in self.responses:
            text = f"Previous response with id '{previous}' not found."
            return _error(400, text, "previous_response_not_found")
        for item in body["input"] if isinstance(body.get("input"), list) else ():
            for part in item.get("content") if isinstance(item.get("content"), list) else ():
                if "file_id" in part and (project, part["file_id"]) not in self.files:
                    return _missing(f"No such File object: {part['file_id']}")
        return None

    def respond(self, project: str, body: dict[str, Any], text: str) -> dict[str, Any]:
        """A whole response, which is kept unless the request says otherwise."""
        id = body.get("request_id") or self.new_id("resp_")  # as vLLM lets its clients choose it
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        said = {"id": f"msg_{id}", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
        response = {
            **{"id": id, "object": "response", "created_at": 1, "status": "completed", "background": False},
            **{"error": None, "incomplete_details": None, "instructions": None, "max_output_tokens": None},
            **{"model": body["model"], "output": [said], "parallel_tool_calls": True, "temperature": 1.0},
            **{"previous_response_id": body.get("previous_response_id"), "store": body.get("store") is not False},
            **{"tool_choice": "auto", "tools": [], "top_p": 1.0, "usage": USAGE, "metadata": {}},
        }
        if response["store"]:
            given = body["input"]
            content = [{"type": "input_text", "text": given if isinstance(given, str) else json.dumps(given)}]
            item = {"id": f"msg_in_{id}", "type": "message", "role": "user", "content": content, "status": "completed"}
            self.responses[project, id] = response
            self.inputs[project, id] = [item]
        return response


def events(response: dict[str, Any], words: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    (said,) = response["output"]
    empty = {**said, "status": "in_progress", "content": []}
    part = said["content"][0]
    place: dict[str, Any] = {"item_id": said["id"], "output_index": 0, "content_index": 0}
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    yield "response.output_item.added", {"output_index": 0, "item": empty}
    yield "response.content_part.added", {**place, "part": {**part, "text": ""}}
    for word in words:
        yield "response.output_text.delta", {**place, "delta": word, "logprobs": []}
    yield "response.output_text.done", {**place, "text": part["text"], "logprobs": []}
    yield "response.content_part.done", {**place, "part": part}
    yield "response.output_item.done", {"output_index": 0, "item": said}
    yield "response.completed", {"response": response}


def _form(type: str, raw: bytes) -> dict[str, tuple[str, bytes]]:
    """The fields of a form: the name of each one's file, and its content."""
    whole: Message = BytesParser(policy=HTTP).parsebytes(b"content-type: " + type.encode() + b"\r\n\r\n" + raw)
    found = {}
    for part in whole.get_payload():
        assert isinstance(part, Message)
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        found[str(part.get_param("name", header="content-disposition"))] = str(part.get_filename() or ""), content
    return found


def _json(body: dict[str, Any], status: int = 200) -> Answer:
    return Answer(status, json.dumps(body).encode())


def _missing(text: str) -> Answer:
    return _error(404, text)


def _error(status: int, text: str, code: str | None = None) -> Answer:
    error = {"message": text, "type": "invalid_request_error", "param": None, "code": code}
    return _json({"error": error}, status)
