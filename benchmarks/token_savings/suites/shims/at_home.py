# mypy: ignore-errors
"""Runs an MCP server on stdio in a folder whose name is replaced in all messages.

Some servers need absolute paths, and a path of this machine in a task would be a different text, with a different
number of tokens, on the next machine. Lines pass unchanged except for the folder's name.

    python at_home.py FOLDER NAME COMMAND [ARGUMENT …]
"""

import os
import subprocess
import sys
import threading
from typing import BinaryIO

_EXIT_TIMEOUT_S = 2.0


def main() -> int:
    folder, name, *command = sys.argv[1:]
    real, said = folder.encode(), name.encode()
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder)
    questions = threading.Thread(target=_ask, args=(server, said, real), daemon=True)
    questions.start()
    _pass(server.stdout, sys.stdout.buffer, real, said)  # Ends when the server does, whoever ended it.
    return server.wait()


def _ask(server: subprocess.Popen, said: bytes, real: bytes) -> None:
    _pass(sys.stdin.buffer, server.stdin, said, real)
    server.stdin.close()
    try:
        server.wait(_EXIT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        server.kill()


def _pass(source: BinaryIO, target: BinaryIO, old: bytes, new: bytes) -> None:
    try:
        for line in source:
            target.write(line.replace(old, new))
            target.flush()
    except BrokenPipeError:
        return


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # The other thread may be reading, which would block a normal exit.
