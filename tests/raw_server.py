"""A real MCP server over stdio that can misbehave in every way real servers do. Raw JSON-RPC, standard
library only, so that nothing corrects what it sends. Flags and the tool called choose its behaviour."""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time

# One pixel. It is written out here because tests copy this one file elsewhere and run it there.
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

parser = argparse.ArgumentParser()
parser.add_argument("--tools", type=int, default=0, help="this many more tools")
parser.add_argument("--page", type=int, default=0, help="list in pages of this size")
parser.add_argument("--mute", action="store_true", help="ignore unknown methods, as some legacy servers do")
parser.add_argument("--modern-only", action="store_true", help="refuse initialize; speak 2026-07-28")
parser.add_argument("--no-discover-error", default="", help="message for refused methods")
parser.add_argument("--bad-schemas", action="store_true", help="list tools whose schemas are broken")
parser.add_argument("--noise", action="store_true", help="print noise on stdout")
parser.add_argument("--exit", type=int, default=None, help="exit at once with this code")
parser.add_argument("--never-ready", action="store_true", help="answer nothing at all")
parser.add_argument("--flood-stderr", action="store_true")
parser.add_argument("--late-tools", type=int, default=0, help="register tools after `initialized`, one change each")
parser.add_argument("--restless", action="store_true", help="announce changed tools without end")
parser.add_argument("--grandchild", default="", help="start a child of its own and write its pid to this file")
parser.add_argument("--pid-file", default="", help="append the pid at every start")
parser.add_argument("--stubborn", action="store_true", help="ignore SIGTERM and a closed stdin")
parser.add_argument("--wait-for", default="", help="start only when this file exists")
parser.add_argument("--also", default="[]", help="JSON: list these tools too; nobody calls them")
parser.add_argument("--log", default="", help="append every method received to this file")
options = parser.parse_args()

lock = threading.Lock()
calls = 0
met = threading.Condition()
arrived = 0
cancelled: set[object] = set()
extra = 0


def send(message: object) -> None:
    data = message if isinstance(message, bytes) else json.dumps(message, ensure_ascii=False).encode() + b"\n"
    with lock:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def note(text: str) -> None:
    if options.log:
        with lock, open(options.log, "a") as file:
            file.write(text + "\n")


def text(value: str, **more: object) -> dict[str, object]:
    return {"content": [{"type": "text", "text": value}], **more}


def schema(**properties: object) -> dict[str, object]:
    return {"type": "object", "properties": properties, "required": list(properties)}


STRING, INTEGER = {"type": "string"}, {"type": "integer"}
TOOLS = [
    {"name": "echo", "description": "Say it back.", "inputSchema": schema(text=STRING)},
    {"name": "add", "description": "Add two numbers.", "inputSchema": schema(a=INTEGER, b=INTEGER),
     "outputSchema": {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}},
    {"name": "big", "description": "Answer with this many MiB of text.", "inputSchema": schema(mib=INTEGER)},
    {"name": "die", "description": "End the process in the middle of the call.", "inputSchema": {"type": "object"}},
    {"name": "hang", "description": "Never answer.", "inputSchema": {"type": "object"}},
    {"name": "meet", "description": "Answer when this many calls are here.", "inputSchema": schema(number=INTEGER)},
    {"name": "count", "description": "How many calls there were.", "inputSchema": {"type": "object"}},
    {"name": "fail", "description": "Fail.", "inputSchema": schema(message=STRING)},
    {"name": "refuse", "description": "Answer with a protocol error.", "inputSchema": {"type": "object"}},
    {"name": "strange", "description": "Unknown fields and content types.", "inputSchema": {"type": "object"}},
    {"name": "picture", "description": "An image.", "inputSchema": {"type": "object"}},
    {"name": "garbled", "description": "Invalid UTF-8.", "inputSchema": {"type": "object"}},
    {"name": "broken_json", "description": "Not JSON.", "inputSchema": {"type": "object"}},
    {"name": "deep", "description": "Deeply nested JSON.", "inputSchema": schema(depth=INTEGER)},
    {"name": "liar", "description": "Breaks its own schema.", "inputSchema": {"type": "object"},
     "outputSchema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}},
    {"name": "steps", "description": "Report progress.", "inputSchema": schema(number=INTEGER)},
    {"name": "env", "description": "Its environment.", "inputSchema": {"type": "object"}},
    {"name": "rows", "description": "Records.", "inputSchema": schema(number=INTEGER)},
    {"name": "was-cancelled", "description": "How many calls were cancelled.", "inputSchema": {"type": "object"}},
    {"name": "grow", "description": "Register one more tool.", "inputSchema": {"type": "object"}},
    {"name": "wordy", "description": "Write to stderr.", "inputSchema": schema(text=STRING)},
]  # fmt: skip
BAD = [
    {"name": "empty_schema", "inputSchema": {}},
    {"name": "no_schema"},
    {"name": "null_schema", "inputSchema": None},
    {"name": "list_schema", "inputSchema": [1, 2]},
    {"name": "bad_type", "inputSchema": {"type": "object", "properties": {"x": {"type": "strin"}}}},
    {"name": "bad_ref", "inputSchema": {"type": "object", "properties": {"x": {"$ref": "#/$defs/none"}}}},
    {
        "name": "odd-annotations",
        "inputSchema": {"type": "object"},
        "annotations": "yes",
        "icons": 3,
        "vendor": {"k": 1},
    },
    {"name": "number_description", "description": 7, "inputSchema": {"type": "object"}},
    {"name": ""},
    {"description": "no name"},
    "not a tool",
]


def tools() -> list[object]:
    more = [
        {"name": f"tool_{i}", "description": f"Tool number {i}.", "inputSchema": schema(value=STRING)}
        for i in range(options.tools + extra)
    ]
    return [*TOOLS, *(BAD if options.bad_schemas else []), *more]


def call(id: object, name: str, arguments: dict, token: object) -> dict[str, object]:
    global arrived, extra
    if name == "echo":
        return text(arguments["text"])
    if name == "add":
        total = arguments["a"] + arguments["b"]
        return text(str(total), structuredContent={"sum": total})
    if name == "big":
        return text("x" * (arguments["mib"] * 1024 * 1024))
    if name == "die":
        print("I am dying", file=sys.stderr, flush=True)
        os._exit(3)
    if name == "hang":
        threading.Event().wait()
    if name == "meet":
        with met:
            arrived += 1
            met.notify_all()
            if not met.wait_for(lambda: arrived >= arguments["number"], 20):
                return text(f"only {arrived} came", isError=True)
        return text("met")
    if name == "count":
        return text(str(calls))
    if name == "fail":
        return text(arguments["message"], isError=True, structuredContent={"code": 42})
    if name == "strange":
        return {
            "content": [{"type": "hologram", "beam": [1]}, {"type": "text", "text": "t", "vendor": True}],
            "vendorField": {"kept": True},
            "_meta": {"vendor/x": 1},
        }
    if name == "picture":
        return {"content": [{"type": "image", "data": PICTURE, "mimeType": "image/png"}]}
    if name == "garbled":
        send(b'{"jsonrpc":"2.0","id":%d,"result":{"content":[{"type":"text","text":"a\xff\xfeb"}]}}\n' % id)
    if name == "broken_json":
        send(b'{"jsonrpc":"2.0","id":%d,"result":{"content":[}\n' % id)
    if name == "deep":
        depth = arguments["depth"]
        send(
            b'{"jsonrpc":"2.0","id":%d,"result":{"content":[],"structuredContent":' % id
            + b'{"a":' * depth
            + b"1"
            + b"}" * depth
            + b"}}\n"
        )
    if name == "liar":
        return text("x", structuredContent={"n": "not a number", "more": None})
    if name == "steps":
        for step in range(arguments["number"]):
            if token is not None:
                params = {
                    "progressToken": token,
                    "progress": step + 1,
                    "total": arguments["number"],
                    "message": f"step {step + 1}",
                }
                send({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
        return text(f"{arguments['number']} steps, token {'given' if token is not None else 'missing'}")
    if name == "env":
        return text(json.dumps(dict(os.environ)))
    if name == "rows":
        rows = [{"id": i, "name": f"row {i}", "even": i % 2 == 0} for i in range(arguments["number"])]
        return text(json.dumps(rows))
    if name == "was-cancelled":
        return text(str(len(cancelled)))
    if name == "grow":
        extra += 1
        send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        return text(f"{extra} more")
    if name == "wordy":
        print(arguments["text"], file=sys.stderr, flush=True)
        return text("said")
    return text(f"{name} called with {json.dumps(arguments)}")


def answer(id: object, method: str, params: dict) -> None:
    global calls
    meta = params.get("_meta") or {}
    modern = "io.modelcontextprotocol/protocolVersion" in meta
    result: dict[str, object] | None = None
    if method == "initialize" and not options.modern_only:
        result = {
            "protocolVersion": params.get("protocolVersion"),
            "capabilities": {"tools": {"listChanged": True}},
            "serverInfo": {"name": "raw", "version": "1", "title": "Raw test server"},
            "instructions": "Use with care.",
        }
    elif method == "server/discover" and options.modern_only:
        result = {
            "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {"listChanged": True}},
            "ttlMs": 0,
            "cacheScope": "private",
        }
    elif method == "tools/list":
        listed = [*tools(), *json.loads(options.also)]
        if options.page:
            start = int(params.get("cursor") or 0)
            result = {"tools": listed[start : start + options.page]}
            if start + options.page < len(listed):
                result["nextCursor"] = str(start + options.page)
        else:
            result = {"tools": listed}
    elif method == "tools/call":
        calls += 1
        name = params.get("name")
        if name == "refuse":
            code = (params.get("arguments") or {}).get("code", -32050)
            error = {"code": code, "message": "I refuse", "data": {"why": "because"}}
            send({"jsonrpc": "2.0", "id": id, "error": error})
            return
        result = call(id, str(name), params.get("arguments") or {}, meta.get("progressToken"))
        if name in ("garbled", "broken_json", "deep"):
            return
    elif method == "subscriptions/listen" and options.modern_only:
        acknowledged = {
            "notifications": params.get("notifications"),
            "_meta": {"io.modelcontextprotocol/subscriptionId": id},
        }
        send({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": acknowledged})
        return
    elif method == "ping":
        result = {}
    if result is None:
        if not options.mute:
            code = -32022 if method == "initialize" else -32601
            error = {"code": code, "message": f"no {method}", "data": {"supported": ["2026-07-28"]}}
            send({"jsonrpc": "2.0", "id": id, "error": error})
        return
    if modern:
        result = {"resultType": "complete", **result}
    send({"jsonrpc": "2.0", "id": id, "result": result})


def main() -> None:
    global extra
    if options.exit is not None:
        print("cannot start: no license", file=sys.stderr)
        sys.exit(options.exit)
    if options.pid_file:
        with open(options.pid_file, "a") as file:
            file.write(f"{os.getpid()}\n")
    if options.stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if options.grandchild:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with open(options.grandchild, "w") as file:
            file.write(str(child.pid))
    while options.wait_for and not os.path.exists(options.wait_for):
        time.sleep(0.01)
    if options.flood_stderr:
        threading.Thread(
            target=lambda: [print("flood " * 100, file=sys.stderr) for _ in range(200_000)], daemon=True
        ).start()
    for line in sys.stdin:
        message = json.loads(line)
        method = message.get("method")
        note(str(method))
        if options.noise:
            send(b"starting up...\nINFO something\n{not json\n")
        if options.never_ready:
            continue
        if method == "notifications/initialized":
            for _ in range(options.late_tools):
                extra += 1
                send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
            if options.restless:
                threading.Thread(target=restless, daemon=True).start()
        if method == "notifications/cancelled":
            cancelled.add(message["params"]["requestId"])
        if "id" in message and method:
            threading.Thread(
                target=answer, args=(message["id"], method, message.get("params") or {}), daemon=True
            ).start()
    if options.stubborn:
        threading.Event().wait()


def restless() -> None:
    global extra
    while True:
        extra = (extra + 1) % 50
        send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        time.sleep(0.001)


main()
