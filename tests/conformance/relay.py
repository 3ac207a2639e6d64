"""What the conformance suite starts as its client: tells the process that runs the tests where the mock server is, waits
until that has played its part, and ends as it did. `python -I -S relay.py SOCKET URL`; imports as little as it can."""

import json
import os
import socket
import sys

if __name__ == "__main__":
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(sys.argv[1])
        with connection.makefile("rw") as stream:
            context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
            print(json.dumps([sys.argv[-1], context]), file=stream, flush=True)
            ended, log = json.loads(stream.read())
    print(log, file=sys.stderr)
    sys.exit(0 if ended else 1)
