"""Two upstreams of 1,000 tools each behind one gateway: how long start, list, search and describe take, and how much
memory the gateway needs.

    python -m benchmarks.scale
"""

import asyncio
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import date
from pathlib import Path

from mcpgate.app import running
from mcpgate.config.settings import Config
from mcpgate.governance.callers import LOCAL

SERVER = Path(__file__).resolve().parent.parent / "tests" / "raw_server.py"
TOOLS = 1_000


async def timed(times: int, work: Callable[[int], Awaitable[object]]) -> float:
    """Median milliseconds."""
    samples = []
    for number in range(times):
        began = time.perf_counter()
        await work(number)
        samples.append((time.perf_counter() - began) * 1000)
    return statistics.median(samples)


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        launch = {"command": sys.executable, "args": [str(SERVER), "--tools", str(TOOLS), "--page", "100"]}
        servers = {"left": launch, "right": launch}
        config = Config.model_validate({"mcpServers": servers, "storage": {"url": f"sqlite:///{folder}/kept.sqlite3"}})
        began = time.perf_counter()
        async with running(config) as gateway:
            await gateway.pool.settled()
            await gateway.engine.ready()
            started = time.perf_counter() - began
            began = time.perf_counter()
            _ = gateway.catalog.index
            indexed = (time.perf_counter() - began) * 1000
            tools = gateway.metatools
            rows = [
                ("start to both listed, s", started),
                ("search index, ms, once", indexed),
                ("tools/list, ms", await timed(50, lambda _: asyncio.to_thread(gateway.tool_list, LOCAL))),
                ("list_tools(query), ms", await timed(50, lambda n: tools.list_tools(LOCAL, query=f"tool number {n}"))),
                ("list_tools(server), ms", await timed(20, lambda _: tools.list_tools(LOCAL, server="left"))),
                ("describe_tools, ms", await timed(50, lambda n: tools.describe_tools(LOCAL, [f"right.tool_{n}"]))),
                (
                    "execute_code with one call, ms",
                    await timed(20, lambda n: tools.execute_code(LOCAL, f"left.tool_{n}(value='x')")),
                ),
                ("peak memory, MiB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            ]
            print(f"2 upstreams, {len(gateway.catalog.tools):,} tools; {date.today()}, {platform.machine()}, ", end="")
            print(f"Python {platform.python_version()}\n\n| | |\n|---|--:|")
            for label, value in rows:
                print(f"| {label} | {value:,.1f} |")


if __name__ == "__main__":
    asyncio.run(main())
