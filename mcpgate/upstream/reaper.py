"""Kills the remaining stdio children when the gateway is gone, however it ended.

Runs as a child process of its own: `python -I -S reaper.py`. Reads `+PGID` and `-PGID` lines on stdin; at
the end of file (the gateway closed the pipe, or died, SIGKILL included) it ends every group still listed.
Standard library only, so that it starts in a few milliseconds and stays small.
"""

import os
import signal
import sys
import time


def main() -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        try:
            group = int(line[1:])
        except ValueError:
            continue
        if line[0] == "+":
            groups.add(group)
        else:
            groups.discard(group)
    for deadly in (signal.SIGTERM, signal.SIGKILL):
        groups = {group for group in groups if _signal(group, deadly)}
        for _ in range(20):
            if not groups or deadly == signal.SIGKILL:
                break
            time.sleep(0.05)
            groups = {group for group in groups if _signal(group, 0)}


def _signal(group: int, number: int) -> bool:
    """Whether the group still had a process to signal."""
    try:
        os.killpg(group, number)
        return True
    except OSError:
        return False


if __name__ == "__main__":
    main()
