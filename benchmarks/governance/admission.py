"""The cost of admitting and settling a request, by callers and by rules."""

import asyncio
import gc
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from math import ceil

from benchmarks.governance.stores import Opened
from mcpgate.config.governance import BudgetRuleConfig, GovernanceConfig
from mcpgate.governance.callers import Caller
from mcpgate.governance.context import RequestContext
from mcpgate.governance.gate import Gate
from mcpgate.governance.prices import Prices
from mcpgate.governance.records import Request, Usage
from mcpgate.telemetry.metrics import Metrics

CALLER = Caller("vk_bench", "bench", user="ada", team="search", customer="acme")
PRICES = Prices({"files": {"*": Decimal("0.001")}}, None)
ONE_CALL = Usage(calls=1)


@dataclass
class Sample:
    """One round of requests, all by the same number of callers."""

    p50_us: float
    p99_us: float
    per_s: float
    cpu_us: float
    """CPU per request of this process and its threads, without a database server's."""


@dataclass
class Figures:
    """Rounds of one measurement; each figure is the median over them."""

    callers: int
    requests: int
    """Of one round."""
    samples: list[Sample] = field(default_factory=list)

    def of(self, name: str) -> float:
        return statistics.median(getattr(sample, name) for sample in self.samples)


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[max(0, ceil(len(ordered) * share) - 1)]


def budgets(applying: int, others: int = 0, *, per: str = "shared") -> tuple[BudgetRuleConfig, ...]:
    """Monthly budgets too large to exhaust: `applying` for everyone, and `others` for teams that never call."""
    large: dict[str, object] = {"limit_usd": Decimal(9_000_000), "period": "1M", "calendar": True}
    return (
        *(BudgetRuleConfig.model_validate({"id": f"all-{n}", "per": per, **large}) for n in range(applying)),
        *(
            BudgetRuleConfig.model_validate({"id": f"other-{n}", "when": {"team": [f"team-{n}"]}, **large})
            for n in range(others)
        ),
    )


@asynccontextmanager
async def gate_on(opened: Opened, config: GovernanceConfig, prices: Prices = PRICES) -> AsyncIterator[Gate]:
    gate = Gate(config, prices, opened.counters, opened.store, Metrics())
    await gate.start()
    try:
        yield gate
    finally:
        await gate.aclose()


async def _ask(gate: Gate, caller: Caller, requests: int, spans: list[float]) -> None:
    clock = time.perf_counter
    for _ in range(requests):
        began = clock()
        async with gate.admit(RequestContext(caller), Request("tool", "files", "read", estimate=ONE_CALL)) as admission:
            admission.spent(ONE_CALL)
        spans.append(clock() - began)


async def measure_round(gate: Gate, callers: Sequence[Caller], requests: int) -> Sample:
    """Makes `requests` requests in total, with one task per caller, each sending the next after the answer."""
    spans: list[float] = []
    gc.collect()
    cpu, began = time.process_time(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for caller in callers:
            group.create_task(_ask(gate, caller, requests // len(callers), spans))
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    count = len(spans)
    return Sample(percentile(spans, 0.5) * 1e6, percentile(spans, 0.99) * 1e6, count / took, cpu / count * 1e6)


async def measure(
    opened: Opened,
    rules: tuple[BudgetRuleConfig, ...],
    callers: Sequence[int],
    round_s: float,
    rounds: int,
    keys: bool = False,
) -> list[Figures]:
    """A round has as many requests as fit into about `round_s`; rounds with different numbers of callers take turns.
    `keys`: each caller has its own key."""
    async with gate_on(opened, GovernanceConfig(budgets=rules)) as gate:
        found = []
        groups = {}
        for count in callers:
            groups[count] = [Caller(f"vk_{n}", team="search") if keys else CALLER for n in range(count)]
            await measure_round(gate, groups[count], count)
            probe = await measure_round(gate, groups[count], max(count, 20))
            requests = max(count, round(probe.per_s * round_s) // count * count)
            found.append(Figures(count, requests))
        for _ in range(rounds):
            for figures in found:
                figures.samples.append(await measure_round(gate, groups[figures.callers], figures.requests))
        return found
