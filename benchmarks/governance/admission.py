"""The cost of admitting and settling a request, by callers and by rules."""

import asyncio
import gc
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
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
PRICES = Prices(
    {"files": {"*": Decimal("0.001")}}, None, lambda provider, model, usage, alias: 10 * usage.output_tokens
)
ONE_CALL = Usage(calls=1)
_MODEL_SECRET = "mg-benchmark"
MODELS = GovernanceConfig.model_validate(
    {
        "keys": {
            "models": {
                "secret": _MODEL_SECRET,
                "budget": {"limit_usd": 9_000_000, "period": "1M", "calendar": True},
                "rate_limits": [{"requests": 1_000_000_000, "window": "1m"}],
            }
        }
    }
)
"""One key for models, with one budget and one rate limit."""
Ask = Callable[[Gate, Caller, int, list[float]], Awaitable[None]]
"""Makes so many requests, and adds the seconds that each took."""


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


async def ask_model(gate: Gate, caller: Caller, requests: int, spans: list[float]) -> None:
    """As llm/chat.py does: the request as a whole, and inside it one attempt."""
    clock = time.perf_counter
    estimate, used = Usage(input_tokens=100, output_tokens=4096), Usage(input_tokens=90, output_tokens=200)
    for _ in range(requests):
        began = clock()
        context = RequestContext(caller)
        async with gate.admit(context, Request("chat", model="fast")) as chat:
            inside = context.inside(chat)
            attempt = Request(
                "chat", provider="p", model="m", alias="fast", estimate=estimate, parent_id=chat.request.id
            )
            async with gate.admit(inside, attempt) as admission:
                admission.spent(Usage(input_tokens=100))
                admission.spent(used)
        spans.append(clock() - began)


async def measure_round(gate: Gate, callers: Sequence[Caller], requests: int, ask: Ask = _ask) -> Sample:
    """Makes `requests` requests in total, with one task per caller, each sending the next after the answer."""
    spans: list[float] = []
    gc.collect()
    cpu, began = time.process_time(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for caller in callers:
            group.create_task(ask(gate, caller, requests // len(callers), spans))
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
    """`keys`: each caller has its own key."""
    async with gate_on(opened, GovernanceConfig(budgets=rules)) as gate:
        groups = [[Caller(f"vk_{n}", team="search") if keys else CALLER for n in range(count)] for count in callers]
        return await _rounds(gate, groups, round_s, rounds, _ask)


async def measure_models(opened: Opened, callers: Sequence[int], round_s: float, rounds: int) -> list[Figures]:
    async with gate_on(opened, MODELS) as gate:
        caller = await gate.identify(_MODEL_SECRET, key_required=True)
        return await _rounds(gate, [[caller] * count for count in callers], round_s, rounds, ask_model)


async def _rounds(
    gate: Gate, groups: Sequence[Sequence[Caller]], round_s: float, rounds: int, ask: Ask
) -> list[Figures]:
    """A round has as many requests as fit into about `round_s`; rounds with different numbers of callers take turns."""
    found = []
    for group in groups:
        count = len(group)
        await measure_round(gate, group, count, ask)
        probe = await measure_round(gate, group, max(count, 20), ask)
        found.append(Figures(count, max(count, round(probe.per_s * round_s) // count * count)))
    for _ in range(rounds):
        for figures, group in zip(found, groups, strict=True):
            figures.samples.append(await measure_round(gate, group, figures.requests, ask))
    return found
