"""Gauges of the metrics, measured when they are asked for: servers, sandbox, targets of models, budgets."""

import time
from collections.abc import Sequence

from mcpgate.gateway import Gateway
from mcpgate.governance.gate import Gate
from mcpgate.governance.records import Balance, to_usd
from mcpgate.governance.rule import Rule
from mcpgate.governance.store import StoreUnavailable
from mcpgate.telemetry.metrics import Budget
from mcpgate_sandbox.pool import PooledEngine

_MOST_BUDGETS, _MOST_SUBJECTS = 100, 200
_BUDGETS_EVERY_S = 10.0
"""How often budgets are read: every scraper asks the store."""


class Gauges:
    """One per process."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._read_at = float("-inf")

    async def measure(self) -> None:
        gateway, metrics = self._gateway, self._gateway.metrics
        metrics.upstreams((view.name, view.state, len(view.tools)) for view in gateway.pool.views())
        if isinstance(gateway.engine, PooledEngine):
            metrics.sandbox(*gateway.engine.occupancy)
        if gateway.config.llm.providers:
            providers = gateway.chat.providers.all()
            rests = {str(one["target"]): one["rests_s"] > 0 for one in gateway.chat.health()}
            metrics.models(rests, {name: provider.under_way for name, provider in providers.items()})
        if time.monotonic() - self._read_at >= _BUDGETS_EVERY_S:
            self._read_at = time.monotonic()
            try:
                metrics.budgets(await budgets_of(gateway.gate))
            except StoreUnavailable:
                metrics.budgets(())  # better none than old ones


async def budgets_of(gate: Gate) -> Sequence[Budget]:
    """The declared budgets, as far as they are used. Raises StoreUnavailable."""
    now, found = time.time(), []
    rules = [rule for rule in gate.policy.rules if rule.measure == "cost"]
    for rule in rules[:_MOST_BUDGETS]:
        names = await gate.counters.names(rule.counter(""), _MOST_SUBJECTS)
        oldest = rule.window.span(now).oldest
        found.append(_budget_of(rule, await gate.counters.read([(name, oldest) for name in names]), now))
    return found


def _budget_of(rule: Rule, balances: Sequence[Balance], now: float) -> Budget:
    limit = rule.limit_at(now)
    taken = max((balance.spent + balance.held for balance in balances), default=0)
    return Budget(rule.id, taken / limit if limit else 1.0, float(to_usd(max(0, limit - taken))))
