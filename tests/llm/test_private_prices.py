"""Prices of the configuration: dates, multipliers, aliases."""

import datetime
from typing import Any

import pytest
from pydantic import ValidationError

from mcpgate.config.llm import LlmConfig
from mcpgate.governance.records import Usage
from mcpgate.llm.prices import ModelPrices

MILLION = Usage(0, 1_000_000, 0)
USD = 10**9


def prices(own: dict[str, Any], at: list[float] | None = None) -> ModelPrices:
    providers = {"openai": {"type": "openai"}, "onprem": {"type": "openai", "base_url": "http://127.0.0.1:1/v1"}}
    config = LlmConfig.model_validate({"providers": providers, "prices": own})
    return ModelPrices(config, (lambda: at[0]) if at else (lambda: 0.0))


def test_a_price_counts_from_its_date_on() -> None:
    new_year = datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC).timestamp()
    now = [new_year - 1]
    own = [{"input_usd_per_mtok": 1}, {"input_usd_per_mtok": 3, "since": "2027-01-01"}]
    found = prices({"onprem/llama": own}, now)
    assert found.cost("onprem", "llama", MILLION) == USD
    now[0] = new_year
    assert found.cost("onprem", "llama", MILLION) == 3 * USD


def test_a_multiplier_changes_every_amount_of_the_price_list() -> None:
    listed = prices({}).of("openai", "gpt-4o")
    cheaper = prices({"openai/*": {"multiplier": 0.5}}).of("openai", "gpt-4o")
    assert listed is not None and cheaper is not None
    usage = Usage(0, 1_000_000, 500_000, 400_000)
    assert cheaper.cost(usage) * 2 == listed.cost(usage) > 0


def test_an_own_price_is_multiplied_too_and_an_alias_comes_first() -> None:
    own = {
        "onprem/llama": {"input_usd_per_mtok": 2, "multiplier": 1.5},
        "fast": {"input_usd_per_mtok": 7},
    }
    found = prices(own)
    assert found.cost("onprem", "llama", MILLION) == 3 * USD
    assert found.cost("onprem", "llama", MILLION, "fast") == 7 * USD
    assert found.cost("onprem", "llama", MILLION, "other") == 3 * USD


def test_a_multiplier_of_an_unknown_price_is_unknown() -> None:
    assert prices({"onprem/llama": {"multiplier": 2}}).cost("onprem", "llama", MILLION) is None


@pytest.mark.parametrize("price", [{}, {"since": "2027-01-01"}, {"output_usd_per_mtok": 1}, {"multiplier": -1}])
def test_what_is_no_price_is_refused(price: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        prices({"onprem/llama": price})
