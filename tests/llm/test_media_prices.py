"""Tokens that are no text, at prices of their own where the price list knows them."""

from typing import Any

import pytest

from mcpgate.config.llm import LlmConfig
from mcpgate.governance.records import Usage
from mcpgate.llm.metering import usage_of
from mcpgate.llm.prices import ModelPrices

PROVIDERS = {"openai": {"type": "openai"}, "gemini": {"type": "gemini"}}


def cost(provider: str, model: str, usage: Usage, **own: Any) -> float:
    prices = ModelPrices(LlmConfig.model_validate({"providers": PROVIDERS, "prices": own}))
    found = prices.cost(provider, model, usage)
    assert found is not None
    return found / 1e9


def openai_usage(**details: Any) -> Usage:
    usage = {"prompt_tokens": 1000, "completion_tokens": 100, **details}
    found = usage_of("chat", usage)
    assert found is not None
    return found


def test_openais_audio_is_counted_apart_in_both_directions() -> None:
    heard = openai_usage(
        prompt_tokens_details={"audio_tokens": 800, "cached_tokens": 0},
        completion_tokens_details={"audio_tokens": 60, "text_tokens": 40},
    )
    assert heard.more == {"audio_input_tokens": 800, "audio_output_tokens": 60}
    # gpt-audio: text 2.50 in and 10 out, audio 32 in and 64 out
    assert cost("openai", "gpt-audio", heard) == pytest.approx((200 * 2.5 + 800 * 32 + 40 * 10 + 60 * 64) / 1e6)
    assert cost("openai", "gpt-audio", openai_usage()) == pytest.approx((1000 * 2.5 + 100 * 10) / 1e6)


def test_cached_audio_has_its_own_price_too() -> None:
    details = {"audio_tokens": 800, "cached_tokens": 500, "cached_tokens_details": {"audio_tokens": 400}}
    heard = openai_usage(prompt_tokens_details=details)
    # gpt-realtime: text 4 in, audio 32 in, both 0.40 from the cache, 16 out
    assert cost("openai", "gpt-realtime", heard) == pytest.approx((100 * 4 + 400 * 32 + 500 * 0.4 + 100 * 16) / 1e6)


def test_geminis_modalities_are_counted_apart() -> None:
    usage = usage_of(
        "gemini",
        {
            "promptTokenCount": 1000,
            "candidatesTokenCount": 100,
            "cachedContentTokenCount": 300,
            "promptTokensDetails": [
                {"modality": "TEXT", "tokenCount": 200},
                {"modality": "AUDIO", "tokenCount": 800},
            ],
            "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 300}],
        },
    )
    assert usage is not None and usage.more == {"audio_input_tokens": 800, "audio_cache_read_tokens": 300}
    # gemini-2.5-flash: text 0.30 in and 2.50 out, audio 1 in and 0.10 from the cache
    paid = (200 * 0.3 + 500 * 1 + 300 * 0.1 + 100 * 2.5) / 1e6
    assert cost("gemini", "gemini-2.5-flash", usage) == pytest.approx(paid)
    assert cost("gemini", "gemini-2.5-flash", usage, **{"gemini/*": {"multiplier": 0.5}}) == pytest.approx(paid / 2)


def test_images_that_gemini_draws_are_no_text() -> None:
    details = [{"modality": "IMAGE", "tokenCount": 1290}, {"modality": "TEXT", "tokenCount": 10}]
    said = {"promptTokenCount": 100, "candidatesTokenCount": 1300, "candidatesTokensDetails": details}
    usage = usage_of("gemini", said)
    assert usage is not None
    assert cost("gemini", "gemini-2.5-flash-image", usage) == pytest.approx((100 * 0.3 + 1290 * 30 + 10 * 2.5) / 1e6)


def test_a_price_of_ones_own_is_that_of_all_kinds() -> None:
    heard = openai_usage(prompt_tokens_details={"audio_tokens": 800})
    own = {"openai/gpt-audio": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2}}
    assert cost("openai", "gpt-audio", heard, **own) == pytest.approx((1000 * 1 + 100 * 2) / 1e6)


@pytest.mark.parametrize("odd", [-1, 10**9, "many", None, True, [], 1e99])
def test_details_that_cannot_be_cost_no_more_than_all_would(odd: Any) -> None:
    heard = openai_usage(
        prompt_tokens_details={"audio_tokens": odd, "cached_tokens_details": {"audio_tokens": odd}},
        completion_tokens_details={"audio_tokens": odd, "image_tokens": odd, "video_tokens": odd},
    )
    most = (1000 * 32 + 100 * 64) / 1e6
    assert (1000 * 2.5 + 100 * 10) / 1e6 <= cost("openai", "gpt-audio", heard) <= most
    said = {"promptTokenCount": 10, "promptTokensDetails": [{"modality": odd, "tokenCount": odd}, odd]}
    assert usage_of("gemini", said) is not None


def test_an_estimate_holds_what_the_dearest_kind_would_cost() -> None:
    estimate = Usage(0, 1000, 100, more={"media_input_tokens": 900, "media_output_tokens": 100})
    assert cost("openai", "gpt-audio", estimate) == pytest.approx((100 * 2.5 + 900 * 32 + 100 * 64) / 1e6)
    assert cost("openai", "gpt-4o", estimate) == cost("openai", "gpt-4o", Usage(0, 1000, 100))
