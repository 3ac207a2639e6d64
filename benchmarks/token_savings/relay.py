"""Relays every line between a client and a stdio server, and logs each tool call.

So the harness knows which upstream calls an execution actually made, and their raw answers, whichever gateway
made them. Standard library only: it is started as a script, once per server.

    python relay.py LOG SERVER COMMAND ARGUMENTS…
"""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any


def main() -> int:
    log, server, *command = sys.argv[1:]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin and child.stdout
    calls: dict[Any, str] = {}
    up = threading.Thread(target=_pass_up, args=(sys.stdin.buffer, child.stdin, calls), daemon=True)
    up.start()
    with Path(log).open("a") as record:
        for line in child.stdout:
            if calls and (entry := _entry(line, server, calls)):
                record.write(entry)
                record.flush()
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
    return child.wait()


def _pass_up(source: IO[bytes], target: IO[bytes], calls: dict[Any, str]) -> None:
    for line in source:
        if b'"tools/call"' in line:
            message = json.loads(line)
            calls[message["id"]] = message["params"]["name"]
        target.write(line)
        target.flush()
    target.close()


def _entry(line: bytes, server: str, calls: dict[Any, str]) -> str:
    """The line of the log for an answer to a tool call; empty for any other message."""
    try:
        message = json.loads(line)
        tool = calls.pop(message["id"])
    except (ValueError, TypeError, KeyError):
        return ""
    return json.dumps({"server": server, "tool": tool, "result": message.get("result", message.get("error"))}) + "\n"


if __name__ == "__main__":
    sys.exit(main())
