"""A stdio MCP server that means harm: `hostile_server.py JSON`. What it does depends on the keys of its argument and on
the tool called. Standard library only."""

import json
import sys
import threading
import time

plan = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
lock = threading.Lock()
TOOLS = [
    {"name": name, "inputSchema": {"type": "object"}} for name in ("echo", "flood", "progress", "say", "stray", "noise")
]


def send(message: object) -> None:
    data = message if isinstance(message, str) else json.dumps(message)
    with lock:
        sys.stdout.write(data + "\n")
        sys.stdout.flush()


def text(words: object, **more: object) -> dict[str, object]:
    return {"content": [{"type": "text", "text": str(words)}], **more}


def flood(id: object) -> None:
    """Ask for far more signs of life than anybody can answer, read none of the answers meanwhile, then count them."""
    pings = 20_000
    for number in range(pings):
        send({"jsonrpc": "2.0", "id": f"{number:0150}", "method": "ping"})
    answers = 0
    send({"jsonrpc": "2.0", "id": "last", "method": "ping"})
    heard = threading.Event()

    def give_up() -> None:
        time.sleep(1)
        heard.set()
        send({"jsonrpc": "2.0", "id": id, "result": text(answers)})

    threading.Thread(target=give_up, daemon=True).start()
    for line in sys.stdin:
        message = json.loads(line)
        if not heard.is_set() and "method" not in message:
            answers += 1
        elif "method" in message:
            serve(message)


def serve(message: dict) -> None:
    method, id, params = message.get("method"), message.get("id"), message.get("params") or {}
    if method == "initialize":
        if "refuse_mib" in plan:
            error = {"code": -32000, "message": "no " * (plan["refuse_mib"] << 18), "data": ["x" * 1000] * 5000}
            return send({"jsonrpc": "2.0", "id": id, "error": error})
        info = {"name": "n" * 5000, "title": plan.get("title", "hostile"), "version": "1"}
        send({"jsonrpc": "2.0", "id": id, "result": {
            "protocolVersion": plan.get("protocol", "2025-06-18"), "capabilities": {"tools": {}}, "serverInfo": info,
            "instructions": "i" * plan.get("instructions", 0),
        }})  # fmt: skip
    elif method == "tools/list":
        page = int(params.get("cursor") or 0)
        listed = [*plan.get("tools", TOOLS)] if page == 0 else []
        for kind, count in plan.get("more", {}).items():
            size = {"tiny": 10, "large": 700_000, "huge": 3_000_000}[kind]
            listed += [
                {"name": f"{kind}_{page}_{n}", "description": "d" * size, "inputSchema": {}} for n in range(count)
            ]
        result = {"tools": listed if page == 0 or "pages" in plan else []}
        if page + 1 < plan.get("pages", 1):
            result["nextCursor"] = str(page + 1)
        if "page_s" in plan:
            time.sleep(plan["page_s"])
        if plan.get("changes"):
            send({"jsonrpc": "2.0", "id": id, "result": result})
            TOOLS.append({"name": "late", "inputSchema": {"type": "object"}})
            plan["changes"] = False
            return send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        send({"jsonrpc": "2.0", "id": id, "result": result})
    elif method == "tools/call":
        call(id, params)
    elif id is not None and method:
        send({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": f"no {method}"}})


def call(id: object, params: dict) -> None:
    tool, arguments = params["name"], params.get("arguments") or {}
    if tool == "flood":
        flood(id)
    elif tool == "progress":
        token = params["_meta"]["progressToken"]
        for number in range(arguments["number"]):
            told = {
                "progressToken": token,
                "progress": number,
                "message": "m" * arguments["size"],
                "_meta": {"mcpgate/x": 1},
            }
            told["more"] = "v" * arguments["size"]
            send({"jsonrpc": "2.0", "method": "notifications/progress", "params": told})
            time.sleep(arguments.get("every_s", 0))
        send({"jsonrpc": "2.0", "id": id, "result": text("done")})
    elif tool == "say":
        send(json.dumps(arguments["message"]).replace('"ID"', json.dumps(id)))
    elif tool == "deaf":
        time.sleep(60)
    elif tool == "noise":
        for _ in range(arguments["lines"]):
            sys.stdout.write(arguments["line"] + "\n")
        sys.stdout.flush()
        send({"jsonrpc": "2.0", "id": id, "result": text("quiet")})
    elif tool == "stray":
        if arguments.get("alone"):
            send(
                {
                    "jsonrpc": "2.0",
                    "id": arguments.get("id"),
                    "error": {"code": -1, "message": "the account is used up"},
                }
            )
    else:
        send({"jsonrpc": "2.0", "id": id, "result": text(arguments.get("text", ""))})


if "stderr" in plan:
    print(plan["stderr"], file=sys.stderr, flush=True)
if "exit" in plan:
    sys.exit(plan["exit"])
for line in sys.stdin:
    serve(json.loads(line.removeprefix("\ufeff")))
