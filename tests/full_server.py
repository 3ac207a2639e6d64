"""A real MCP server over stdio with everything but subscriptions' ends: resources, prompts, completion, log messages, and
questions to its client, in either era or both: `full_server.py NAME [handshake | modern | both]`."""

import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

NAME, ERA = sys.argv[1], (sys.argv[2:] or ["both"])[0]
MODERN = "2026-07-28"
META = "io.modelcontextprotocol/"
WHO = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
QUESTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "ask": ("elicitation/create", {"mode": "form", "message": "Who are you?", "requestedSchema": WHO}),
    "think": ("sampling/createMessage", {"messages": [], "maxTokens": 5}),
    "roots": ("roots/list", {}),
}
TOOLS = [*QUESTIONS, "twice", "both", "log", "touch", "grow", "which_era", "told_roots", "hear_roots"]
CAPABILITIES = {
    "tools": {"listChanged": True},
    "resources": {"subscribe": True, "listChanged": True},
    "prompts": {"listChanged": True},
    "completions": {},
    "logging": {},
}
numbers = itertools.count(1)
answers: dict[Any, list[Any]] = {}
arrived = threading.Condition()
writing = threading.Lock()
state: dict[str, Any] = {"level": "debug", "listen": None, "grown": 0, "roots": [], "changes": 0}
subscribed: set[str] = set()


def send(message: dict[str, Any]) -> None:
    with writing:
        print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def notify(method: str, **params: Any) -> None:
    if state["listen"] is not None and not method.endswith("/message"):
        params["_meta"] = {META + "subscriptionId": state["listen"]}
    send({"method": method, "params": params})


def ask_live(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Ask in the middle of a call, as in the handshake era."""
    id = f"{NAME}-{next(numbers)}"
    send({"id": id, "method": method, "params": params})
    with arrived:
        arrived.wait_for(lambda: id in answers)
    message = answers.pop(id)
    return message.get("result") or {"refused": message["error"]["message"]}


def told(answer: dict[str, Any]) -> str:
    return json.dumps(answer, sort_keys=True)


def text(said: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": said}], "isError": False}


def questions_of(tool: str, round: int) -> dict[str, tuple[str, dict[str, Any]]]:
    if tool == "both":
        return {"person": QUESTIONS["ask"], "model": QUESTIONS["think"]}
    if tool == "twice":
        return {f"round {round}": QUESTIONS["ask"]}
    return {"it": QUESTIONS[tool]}


def call(params: dict[str, Any], modern: bool) -> dict[str, Any]:
    tool = params["name"]
    meta = params.get("_meta", {})
    if tool == "log":
        level = meta.get(META + "logLevel") if modern else state["level"]
        if level:
            notify("notifications/message", level="warning", data="mind the gap", logger=NAME)
        return text("logged")
    if tool == "touch":
        for uri in ("note://shared", f"note://{NAME}"):
            if uri in subscribed:
                notify("notifications/resources/updated", uri=uri)
        return text("touched")
    if tool == "grow":
        state["grown"] += 1
        notify("notifications/resources/list_changed")
        notify("notifications/prompts/list_changed")
        return text("grown")
    if tool == "hear_roots":
        threading.Timer(0.2, hear_roots).start()
        return text("soon")
    if tool == "told_roots":
        return text(told({"roots": state["roots"], "changes": state["changes"]}))
    if tool == "which_era":
        return text("modern" if modern else "handshake")
    rounds = 2 if tool == "twice" else 1
    if not modern:
        given = [ask_live(*question) for round in range(rounds) for question in questions_of(tool, round).values()]
        return text(told({"answers": given}))
    done = int(params.get("requestState", "0"))
    responses = params.get("inputResponses") or {}
    asked = questions_of(tool, done)
    if responses.keys() != asked.keys():
        requests = {name: {"method": method, "params": params} for name, (method, params) in asked.items()}
        return {"resultType": "input_required", "inputRequests": requests, "requestState": str(done)}
    if done + 1 < rounds:
        more = {name: {"method": m, "params": p} for name, (m, p) in questions_of(tool, done + 1).items()}
        return {"resultType": "input_required", "inputRequests": more, "requestState": str(done + 1)}
    return text(told({"answers": [responses[name] for name in asked]}))


def resources() -> list[dict[str, Any]]:
    more = [{"uri": f"note://{NAME}/{number}", "name": "more"} for number in range(state["grown"])]
    picture = {"uri": f"ui://{NAME}/page", "name": "page", "mimeType": "text/html", "_meta": {"ui": {"csp": {}}}}
    return [{"uri": "note://shared", "name": "shared"}, {"uri": f"note://{NAME}", "name": NAME}, picture, *more]


class Refused(Exception):
    pass


def read(params: dict[str, Any]) -> dict[str, Any]:
    uri = params["uri"]
    if uri.startswith(f"file:///{NAME}/"):
        return {"contents": [{"uri": uri, "blob": "AAEC/w==", "mimeType": "application/octet-stream"}]}
    if uri not in [resource["uri"] for resource in resources()]:
        raise Refused(-32602 if ERA == "modern" else -32002, f"there is no {uri}")
    return {"contents": [{"uri": uri, "text": f"{uri} of {NAME}", "_meta": {"kept": True}}]}


def tool_of(name: str) -> dict[str, Any]:
    harmless = {"annotations": {"readOnlyHint": True}} if name == "which_era" else {}
    return {"name": name, "inputSchema": {"type": "object"}, **harmless}


def result_of(method: str, params: dict[str, Any], modern: bool) -> dict[str, Any]:
    match method:
        case "tools/list":
            return {"tools": [tool_of(name) for name in TOOLS]}
        case "tools/call":
            return call(params, modern)
        case "resources/list":
            return {"resources": resources()}
        case "resources/templates/list":
            return {"resourceTemplates": [{"uriTemplate": f"file:///{NAME}/{{path}}", "name": "files"}]}
        case "resources/read":
            return read(params)
        case "resources/subscribe" | "resources/unsubscribe":
            (subscribed.add if method.endswith("/subscribe") else subscribed.discard)(params["uri"])
            return {}
        case "prompts/list":
            return {"prompts": [{"name": "greet", "arguments": [{"name": "who"}]}, {"name": f"only_{NAME}"}]}
        case "prompts/get":
            said = f"{NAME} greets {params.get('arguments', {}).get('who')}"
            return {"messages": [{"role": "user", "content": {"type": "text", "text": said}}]}
        case "completion/complete":
            return {"completion": {"values": [f"{NAME}: {params['ref'].get('name') or params['ref'].get('uri')}"]}}
        case "logging/setLevel":
            state["level"] = params["level"]
            return {}
        case "ping":
            return {}
    raise Refused(-32601, f"Method not found: {method}")


def hear_roots() -> None:
    """Ask for the roots that have changed, as file servers do: outside of any call."""
    answer = ask_live("roots/list", {})
    state["roots"].append([root["uri"] for root in answer["roots"]] if "roots" in answer else answer)


def serve(message: dict[str, Any]) -> None:
    method, id, params = message["method"], message["id"], message.get("params", {})
    modern = META + "protocolVersion" in params.get("_meta", {})
    try:
        if method == "initialize" and ERA != "modern":
            info = {"name": NAME, "version": "1"}
            result: dict[str, Any] = {"protocolVersion": "2025-11-25", "capabilities": CAPABILITIES, "serverInfo": info}
        elif modern and ERA == "handshake":
            raise Refused(-32601, "Method not found")
        elif method == "server/discover":
            result = {"supportedVersions": [MODERN], "capabilities": CAPABILITIES}
        elif method == "subscriptions/listen":
            state["listen"] = id
            wanted = params["notifications"]
            subscribed.clear()
            subscribed.update(wanted.get("resourceSubscriptions", []))
            notify("notifications/subscriptions/acknowledged", notifications=wanted)
            return
        else:
            result = result_of(method, params, modern)
        send({"id": id, "result": {"resultType": "complete", **result} if modern else result})
    except Refused as refused:
        code, said = refused.args
        send({"id": id, "error": {"code": code, "message": said}})


def lines() -> Iterator[dict[str, Any]]:
    while (path := os.environ.get("WAIT_FOR")) and not os.path.exists(path):
        time.sleep(0.02)
    for line in sys.stdin:
        yield json.loads(line)


def main(start: Callable[..., threading.Thread] = threading.Thread) -> None:
    for message in lines():
        if "method" not in message:
            with arrived:
                answers[message["id"]] = message
                arrived.notify_all()
        elif message["method"] == "notifications/roots/list_changed":
            state["changes"] += 1
            start(target=hear_roots, daemon=True).start()
        elif "id" in message:
            start(target=serve, args=(message,), daemon=True).start()


if __name__ == "__main__":
    main()
