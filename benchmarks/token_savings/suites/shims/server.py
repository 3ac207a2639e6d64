# mypy: ignore-errors
"""One MCP server on stdio, relayed to the host that holds the suite's state. Keeps nothing but its connection.

python server.py PORT NAME
"""

import json
import socket
import sys
from typing import Any

_VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")


def main() -> None:
    port, name = int(sys.argv[1]), sys.argv[2]
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rwb") as host:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def ask(**request: Any) -> dict[str, Any]:
            host.write(json.dumps({"server": name, **request}).encode() + b"\n")
            host.flush()
            return json.loads(host.readline())

        names = {tool["name"] for tool in ask()["tools"]}
        for line in sys.stdin.buffer:
            request = json.loads(line)
            if "id" not in request or "method" not in request:
                continue
            method, params = request["method"], request.get("params") or {}
            answer: dict[str, Any] = {}
            if method == "initialize":
                wanted = params.get("protocolVersion")
                answer["result"] = {
                    "protocolVersion": wanted if wanted in _VERSIONS else _VERSIONS[0],
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": name, "version": "1"},
                }
            elif method == "ping":
                answer["result"] = {}
            elif method == "tools/list":
                answer["result"] = ask()
            elif method == "tools/call" and params.get("name") in names:
                answer["result"] = ask(tool=params["name"], arguments=params.get("arguments") or {})
            elif method == "tools/call":
                answer["error"] = {"code": -32602, "message": f"Unknown tool: {params.get('name')}"}
            else:
                answer["error"] = {"code": -32601, "message": f"Method not found: {method}"}
            sys.stdout.buffer.write(json.dumps({"jsonrpc": "2.0", "id": request["id"], **answer}).encode() + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
