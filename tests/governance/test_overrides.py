"""Budgets with another limit for a while."""

import datetime
from typing import Any

import pytest
from pydantic import ValidationError

from mcpgate.config.governance import BudgetConfig
from mcpgate.errors import BudgetExceeded
from mcpgate.governance.callers import LOCAL
from mcpgate.governance.context import RequestContext
from mcpgate.stores.memory import MemoryStore
from tests.governance.gates import Clock, call, gate_on, refusal_of, tool

pytestmark = pytest.mark.anyio


def until(clock: Clock, seconds: float) -> str:
    return datetime.datetime.fromtimestamp(clock() + seconds, datetime.UTC).isoformat()


async def calls_that_fit(gate: Any, clock: Clock) -> int:
    """Each costs a cent."""
    for number in range(20):
        try:
            await call(gate, tool("read", at=clock()))
        except BudgetExceeded:
            return number
    raise AssertionError("there is no limit")


async def test_a_budget_is_higher_for_a_while_and_then_as_before() -> None:
    clock = Clock()
    override = {"limit_usd": "0.05", "until": until(clock, 60)}
    budget = {"id": "all", "limit_usd": "0.02", "period": "1d", "override": override}
    async with gate_on(MemoryStore(), clock, budgets=[budget]) as gate:
        assert await calls_that_fit(gate, clock) == 5
        refused = await refusal_of(gate, tool("read", at=clock()))
        assert refused.data["limit_usd"] == 0.05 and "$0.05 per 1d" in refused.message
        assert (await gate.headroom(RequestContext(LOCAL), tool("read", at=clock())))["cost"] == 0
        clock.now += 61
        refused = await refusal_of(gate, tool("read", at=clock()))
        assert refused.data["limit_usd"] == 0.02 and refused.data["spent_usd"] == 0.05


async def test_a_budget_is_lower_for_a_while() -> None:
    clock = Clock()
    override = {"limit_usd": "0.01", "until": until(clock, 60)}
    async with gate_on(
        MemoryStore(), clock, budgets=[{"id": "all", "limit_usd": "0.03", "override": override}]
    ) as gate:
        assert await calls_that_fit(gate, clock) == 1
        clock.now += 61
        assert await calls_that_fit(gate, clock) == 2


@pytest.mark.parametrize(
    "override", [{"limit_usd": 1}, {"until": "2027-01-01"}, {"limit_usd": -1, "until": "2027-01-01"}]
)
def test_an_override_says_how_much_and_until_when(override: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BudgetConfig.model_validate({"limit_usd": 1, "override": override})
