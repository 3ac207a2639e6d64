"""A sandbox engine that blocks the event loop for ever: `sandbox: {engine: "tests.flows.stuck_engine:StuckEngine"}`."""

import itertools
import os
import sys
import time
from collections import deque
from collections.abc import Callable

from mcpgate_sandbox.engine import Execution, Outcome


class StuckEngine:
    name = "stuck"

    def start(self, progress: Callable[[str], None] | None = None) -> None:
        pass

    async def ready(self) -> None:
        pass

    async def run(self, execution: Execution) -> Outcome:
        print(f"process {os.getpid()} is stuck", file=sys.stderr, flush=True)
        if execution.code == "'deaf'":  # holds the interpreter's lock and hears no signal
            deque(itertools.repeat(0), maxlen=0)
        while True:
            time.sleep(60)  # noqa: ASYNC251

    async def modules(self) -> tuple[list[str], list[str]]:
        return [], []

    async def locks(self) -> list[str]:
        return []

    async def aclose(self) -> None:
        pass
