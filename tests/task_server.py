"""A real MCP server over stdio that makes tasks of calls: `task_server.py [handshake | modern] [LOG]`. In the handshake
era a client asks for a task; in the modern one the server decides. LOG gets a line for each request it receives."""

import itertools
import json
import sys
import threading
from collections.abc import Callable
from typing import Any

ERA, LOG = sys.argv[1], (sys.argv[2:] or [""])[0]
META, MODERN = "io.modelcontextprotocol/", "2026-07-28"
EXTENSION, RELATED = META + "tasks", META + "related-task"
WHO = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
TOOLS = {
    "greet": "forbidden",
    "slow_compute": "optional",
    "failing_job": "required",
    "protocol_error_job": "optional",
    "confirm_delete": "required",
    "multi_input": "required",
    "test_tool_with_task": "required",
    "patient": "required",
}
numbers = itertools.count(1)
writing = threading.Lock()
changed = threading.Condition()
answers: dict[Any, dict[str, Any]] = {}
"""Of the client, by the ids of what it was asked."""


def send(message: dict[str, Any]) -> None:
    with writing:
        print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def note(what: str) -> None:
    if LOG:
        with writing, open(LOG, "a", encoding="utf-8") as file:
            print(what, file=file)


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": said}], **more}


class Refused(Exception):
    pass


class Task:
    def __init__(self, ttl: Any, work: Callable[["Task"], dict[str, Any]]) -> None:
        self.id, self.ttl = f"their-task-{next(numbers)}", ttl
        self.result: dict[str, Any] | None = None
        self.error: dict[str, Any] | None = None
        self.cancelled = False
        self.message = "it has begun"
        self.questions: dict[str, dict[str, Any]] = {}
        self.responses: dict[str, dict[str, Any]] = {}
        threading.Thread(target=self._run, args=(work,), daemon=True).start()

    def _run(self, work: Callable[["Task"], dict[str, Any]]) -> None:
        try:
            result = work(self)
            with changed:
                self.result = result
                changed.notify_all()
        except Refused as error:
            with changed:
                self.error = {"code": error.args[0], "message": error.args[1]}
                changed.notify_all()

    @property
    def status(self) -> str:
        if self.cancelled:
            return "cancelled"
        if self.error is not None:
            return "failed"
        if self.result is not None:
            return "failed" if ERA == "handshake" and self.result.get("isError") else "completed"
        return "input_required" if self.questions else "working"

    def sleep(self, seconds: float) -> None:
        with changed:
            changed.wait_for(lambda: self.cancelled, seconds)

    def ask(self, *names: str) -> dict[str, dict[str, Any]]:
        with changed:
            for name in names:
                params = {"mode": "form", "message": f"Who is {name}?", "requestedSchema": WHO}
                self.questions[name] = {"method": "elicitation/create", "params": params}
            changed.notify_all()
            changed.wait_for(lambda: self.cancelled or set(names) <= set(self.responses))
        return self.responses

    def shown(self) -> dict[str, Any]:
        when = "2026-11-28T12:00:00Z"
        wire = {"taskId": self.id, "status": self.status, "createdAt": when, "lastUpdatedAt": when}
        wire["statusMessage"] = self.message
        if ERA == "handshake":
            return {**wire, "ttl": self.ttl, "pollInterval": 50}
        wire |= {"ttlMs": 3_600_000, "pollIntervalMs": 50}
        if self.status == "completed":
            wire["result"] = self.result
        elif self.status == "failed":
            wire["error"] = self.error
        elif self.status == "input_required":
            wire["inputRequests"] = dict(self.questions)
        return wire


tasks: dict[str, Task] = {}


def work_of(name: str, arguments: dict[str, Any], gathered: str) -> Callable[[Task], dict[str, Any]]:
    def work(task: Task) -> dict[str, Any]:
        match name:
            case "slow_compute":
                task.sleep(float(arguments.get("seconds", 0)))
                return text(f"computed {arguments.get('label', '')}")
            case "failing_job":
                return text("the job has failed", isError=True)
            case "protocol_error_job":
                raise Refused(-32603, "it panicked")
            case "confirm_delete":
                return text(json.dumps(task.ask("owner")))
            case "multi_input":
                return text(json.dumps(task.ask("first", "second"), sort_keys=True))
            case "test_tool_with_task":
                return text(f"done for {gathered}")
            case "patient":
                task.sleep(0.2)
                task.message = "half of it is done"
                task.sleep(0.3)
                return text("the patient one is done")
        raise Refused(-32602, f"there is no {name}")

    return work


def call(params: dict[str, Any]) -> dict[str, Any]:
    name, arguments = params["name"], params.get("arguments") or {}
    note(f"call {name} {'with' if 'task' in params else 'without'} task")
    if name == "greet":
        return text(f"Hello, {arguments.get('name')}!")
    if name not in TOOLS:
        raise Refused(-32602, f"there is no {name}")
    if ERA == "handshake":
        if "task" in params:
            task = Task(params["task"].get("ttl"), work_of(name, arguments, "nobody"))
            tasks[task.id] = task
            return {"task": task.shown()}
        if TOOLS[name] == "required":
            raise Refused(-32601, f"{name} must be called as a task")
    extensions = params["_meta"][META + "clientCapabilities"].get("extensions", {}) if ERA == "modern" else {}
    gathered = "nobody"
    if name == "test_tool_with_task":
        given = (params.get("inputResponses") or {}).get("user_name")
        if given is None:
            asked = {"mode": "form", "message": "Your name?", "requestedSchema": WHO}
            requests = {"user_name": {"method": "elicitation/create", "params": asked}}
            return {"resultType": "input_required", "inputRequests": requests, "requestState": "round one"}
        gathered = str(next(iter(given.get("content", {}).values()), "nobody"))
    if EXTENSION not in extensions:
        return text(f"{name} is done at once")
    task = Task(None, work_of(name, arguments, gathered))
    tasks[task.id] = task
    return {"resultType": "task", **{k: v for k, v in task.shown().items() if k not in ("result", "inputRequests")}}


def find(params: dict[str, Any]) -> Task:
    task = tasks.get(params.get("taskId", ""))
    if task is None:
        raise Refused(-32602, "there is no such task")
    return task


def fetch(params: dict[str, Any]) -> dict[str, Any]:
    """`tasks/result`: waits, and asks the client meanwhile what the task needs to know."""
    task, asked = find(params), {}
    meta = {RELATED: {"taskId": task.id}}
    while task.status in ("working", "input_required"):
        for name, question in task.questions.items():
            if name not in asked:
                asked[name] = f"question {next(numbers)}"
                send({"id": asked[name], "method": question["method"], "params": {**question["params"], "_meta": meta}})
        with changed:
            changed.wait_for(
                lambda: (
                    task.status not in ("working", "input_required")
                    or any(id in answers for id in asked.values())
                    or task.questions.keys() - asked.keys()
                )
            )
            for name, id in asked.items():
                if id in answers:
                    message = answers.pop(id)
                    task.responses[name] = message.get("result") or {"refused": message["error"]["message"]}
                    task.questions.pop(name, None)
            changed.notify_all()
    if task.error is not None:
        raise Refused(task.error["code"], task.error["message"])
    return {**(task.result or text("cancelled", isError=True)), "_meta": meta}


def result_of(method: str, params: dict[str, Any]) -> dict[str, Any]:
    match method:
        case "tools/list":
            return {"tools": [tool_of(name, support) for name, support in TOOLS.items()]}
        case "tools/call":
            return call(params)
        case "tasks/get":
            return find(params).shown()
        case "tasks/result" if ERA == "handshake":
            return fetch(params)
        case "tasks/update" if ERA == "modern":
            task = find(params)
            with changed:
                task.responses |= params["inputResponses"]
                for name in params["inputResponses"]:
                    task.questions.pop(name, None)
                changed.notify_all()
            return {}
        case "tasks/cancel":
            note("cancel")
            task = find(params)
            with changed:
                task.cancelled = task.status in ("working", "input_required")
                changed.notify_all()
            return task.shown() if ERA == "handshake" else {}
    raise Refused(-32601, f"Method not found: {method}")


def tool_of(name: str, support: str) -> dict[str, Any]:
    tool: dict[str, Any] = {"name": name, "inputSchema": {"type": "object"}}
    return {**tool, "execution": {"taskSupport": support}} if ERA == "handshake" else tool


def capabilities() -> dict[str, Any]:
    if ERA == "modern":
        return {"tools": {}, "extensions": {EXTENSION: {}}}
    return {"tools": {}, "tasks": {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}}


def answer(message: dict[str, Any]) -> None:
    method, params = message["method"], message.get("params") or {}
    modern = META + "protocolVersion" in params.get("_meta", {})
    try:
        if modern != (ERA == "modern"):
            raise Refused(-32601, f"Method not found: {method}")
        if method == "initialize":
            info = {"name": "tasks", "version": "1"}
            result = {"protocolVersion": "2025-11-25", "capabilities": capabilities(), "serverInfo": info}
        elif method == "server/discover":
            result = {"supportedVersions": [MODERN], "capabilities": capabilities()}
        else:
            result = result_of(method, params)
    except Refused as error:
        send({"id": message["id"], "error": {"code": error.args[0], "message": error.args[1]}})
        return
    send({"id": message["id"], "result": {"resultType": "complete", **result} if modern else result})


for line in sys.stdin:
    message = json.loads(line)
    if "method" not in message:
        with changed:
            answers[message["id"]] = message
            changed.notify_all()
    elif "id" in message and message["method"] != "subscriptions/listen":
        threading.Thread(target=answer, args=(message,), daemon=True).start()
