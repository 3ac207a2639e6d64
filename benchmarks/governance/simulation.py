"""How much of a budget is used and overspent, with a budget for 100 answers and 2,000 requests, each estimated at
twice its cost. 500 callers make one request after the other; a refused one is not repeated.

As `python -m benchmarks.governance.simulation FILE NUMBER START` it is one of several worker processes on one file.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from benchmarks.governance.admission import CALLER, gate_on
from benchmarks.governance.stores import Opened
from mcpgate.config.governance import BudgetRuleConfig, GovernanceConfig
from mcpgate.errors import McpgateError
from mcpgate.governance.context import RequestContext
from mcpgate.governance.prices import Prices
from mcpgate.governance.records import Request, Usage
from mcpgate.stores.sqlite.governance import SqliteStore

ANSWERS = 100
REQUESTS, CALLERS = 2_000, 500
WORKERS = 4
_ANSWER_S = 0.2
"""On average; each takes between half and one and a half of it."""
_PRICES = Prices({"files": {"*": Decimal(1)}}, None)
_BUDGET = BudgetRuleConfig.model_validate({"id": "all", "limit_usd": ANSWERS, "period": "1M", "calendar": True})


@dataclass(frozen=True)
class Outcome:
    answered: int
    took_s: float

    @property
    def used(self) -> float:
        """Percent of the budget; anything over a hundred was overspent."""
        return 100 * self.answered / ANSWERS


class Refused(Exception):
    pass


class CheckThenRecord:
    """The method of gateways that check before a call and charge after it."""

    def __init__(self, limit: int) -> None:
        self.limit, self.spent = limit, 0

    @asynccontextmanager
    async def admit(self) -> Any:
        if self.spent >= self.limit:
            raise Refused
        yield
        self.spent += 1


async def _play(admit: Callable[[], AbstractAsyncContextManager[Any]], requests: int, callers: int, seed: int) -> int:
    drawn = random.Random(seed)
    spans = [drawn.uniform(0.5, 1.5) * _ANSWER_S for _ in range(requests)]
    answered = 0

    async def call() -> None:
        nonlocal answered
        while spans:
            span = spans.pop()
            try:
                async with admit() as admission:
                    await asyncio.sleep(span)
                    if admission is not None:
                        admission.spent(Usage(calls=1))
            except (Refused, McpgateError):
                await asyncio.sleep(0)
            else:
                answered += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(call())
    return answered


async def check_then_record() -> Outcome:
    began = time.perf_counter()
    answered = await _play(CheckThenRecord(ANSWERS).admit, REQUESTS, CALLERS, 1)
    return Outcome(answered, time.perf_counter() - began)


async def _reserving(opened: Opened, hold_wait_s: float, requests: int, callers: int, seed: int) -> int:
    config = GovernanceConfig(budgets=(_BUDGET,), hold_wait_s=hold_wait_s)
    async with gate_on(opened, config, _PRICES) as gate:
        # The estimate is the cost of two calls, and one is spent.
        twice = Usage(calls=2)
        return await _play(
            lambda: gate.admit(RequestContext(CALLER), Request("tool", "files", "read", estimate=twice)),
            requests,
            callers,
            seed,
        )


async def reserving(opened: Opened, hold_wait_s: float) -> Outcome:
    began = time.perf_counter()
    answered = await _reserving(opened, hold_wait_s, REQUESTS, CALLERS, 1)
    return Outcome(answered, time.perf_counter() - began)


async def in_workers(path: Path, hold_wait_s: float) -> Outcome:
    """The same, with several processes that share the file."""
    start = time.time() + 3
    command = ["-m", "benchmarks.governance.simulation", str(path), str(hold_wait_s), str(start)]
    workers = [
        await asyncio.create_subprocess_exec(sys.executable, *command, str(seed), stdout=asyncio.subprocess.PIPE)
        for seed in range(WORKERS)
    ]
    try:
        async with asyncio.timeout(120):
            answers = await asyncio.gather(*(worker.communicate() for worker in workers))
    finally:
        for worker in workers:
            if worker.returncode is None:
                worker.kill()
    found = [json.loads(text) for text, _ in answers]
    return Outcome(sum(one["answered"] for one in found), max(one["took_s"] for one in found))


async def _work(path: str, hold_wait_s: float, start: float, seed: int) -> None:
    stores = SqliteStore(Path(path))
    try:
        await asyncio.sleep(max(0.0, start - time.time()))
        began = time.perf_counter()
        share = (REQUESTS // WORKERS, CALLERS // WORKERS)
        answered = await _reserving(Opened(stores, stores), hold_wait_s, *share, seed)
        print(json.dumps({"answered": answered, "took_s": time.perf_counter() - began}))
    finally:
        await stores.close()


if __name__ == "__main__":
    asyncio.run(_work(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])))
