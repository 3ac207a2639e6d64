"""What tokens cost: the configuration's own prices, else those of genai-prices (its packaged list; nothing is fetched).
Compiled to whole numbers once for each model. An unknown price is None, never zero."""

import datetime
import fnmatch
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from mcpgate.config.llm import PRESETS, LlmConfig, ModelPriceConfig
from mcpgate.governance.records import Usage
from mcpgate.llm.metering import MEDIA_KINDS

_LISTED = {"bedrock": "aws", "gemini": "google", "xai": "x-ai"}
"""Provider types whose name in the price list differs."""
_KINDS = ("input", "output", "cache_read", "cache_write", "cache_write_1h")
_MEDIA = {
    f"{kind}_{direction}_tokens": (direction, f"{direction}_{kind}_mtok")
    for kind in MEDIA_KINDS
    for direction in ("input", "output")
} | {f"{kind}_cache_read_tokens": ("cache_read", f"cache_{kind}_read_mtok") for kind in MEDIA_KINDS}
"""A kind of usage → the kind of tokens that it is part of, and the name of its price in genai-prices."""
_MILLION = 1_000_000
_MOST_REMEMBERED = 10_000
Steps = tuple[tuple[int, int], ...]
"""(From so many input tokens on, nano-dollars for a million tokens), rising; the first begins at 0."""


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """The prices of one model."""

    input: Steps
    output: Steps
    cache_read: Steps
    cache_write: Steps
    cache_write_1h: Steps
    media: Mapping[str, Steps] = field(default_factory=dict)
    """By kinds of usage such as audio_input_tokens, where they have prices of their own."""

    def cost(self, usage: Usage) -> int:
        """Nano-dollars, rounded up once. Cached tokens are part of the input, at their own prices; a long input moves
        all its tokens to the price of its step."""
        hour = min(usage.more.get("cache_write_1h_tokens", 0), usage.cache_write_tokens)
        plain = max(0, usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens)
        of = usage.input_tokens
        total = _at(self.input, of) * plain + _at(self.output, of) * usage.output_tokens
        if usage.cache_read_tokens or usage.cache_write_tokens:
            total += _at(self.cache_read, of) * usage.cache_read_tokens
            total += _at(self.cache_write, of) * (usage.cache_write_tokens - hour)
            total += _at(self.cache_write_1h, of) * hour
        if self.media and usage.more:
            total += self._media(usage, plain)
        return -(-total // _MILLION)

    def _media(self, usage: Usage, plain: int) -> int:
        """What tokens that are no text cost more, or less, than text. Those of an estimate, whose kind is not known
        yet, are counted as the dearest."""
        left = {"input": plain, "output": usage.output_tokens, "cache_read": usage.cache_read_tokens}
        more, total = usage.more, 0
        for name, steps in self.media.items():
            direction, _ = _MEDIA[name]
            tokens = more.get(name, 0)
            if direction == "input":
                tokens -= more.get(name.replace("_input_", "_cache_read_"), 0)
            tokens = max(0, min(tokens, left[direction]))
            left[direction] -= tokens
            total += tokens * (_at(steps, usage.input_tokens) - _at(getattr(self, direction), usage.input_tokens))
        for direction in ("input", "output"):
            tokens = min(more.get(f"media_{direction}_tokens", 0), left[direction])
            total += tokens * (self._dearest(direction, usage) - _at(getattr(self, direction), usage.input_tokens))
        return total

    def _dearest(self, direction: str, usage: Usage) -> int:
        """Nano-dollars for a million tokens, whatever kind they are of."""
        all = [getattr(self, direction), *(steps for name, steps in self.media.items() if _MEDIA[name][0] == direction)]
        return max(_at(steps, usage.input_tokens) for steps in all)

    def times(self, factor: Decimal) -> "TokenPrice":
        """With all amounts multiplied, to the nearest nano-dollar for a million tokens."""

        def multiplied(steps: Steps) -> Steps:
            return tuple((start, int((nano * factor).to_integral_value())) for start, nano in steps)

        media = {name: multiplied(steps) for name, steps in self.media.items()}
        return TokenPrice(**{kind: multiplied(getattr(self, kind)) for kind in _KINDS}, media=media)

    def affordable_output(self, usage: Usage, nano: int) -> int:
        """The most output tokens, beside the input of a usage, that so many nano-dollars pay for; not more than the
        usage has."""
        rest = nano - self.cost(usage._replace(output_tokens=0))
        rate = self._dearest("output", usage)
        return usage.output_tokens if rate == 0 else min(usage.output_tokens, max(0, rest * _MILLION // rate))


class ModelPrices:
    """Prices by provider and model."""

    def __init__(self, config: LlmConfig, clock: Callable[[], float] = time.time) -> None:
        self._config, self._clock = config, clock
        self._known: dict[tuple[str, str, str, str | None], TokenPrice | None] = {}
        self._known_until = math.inf
        """When another price begins, in epoch seconds."""
        self._contexts: dict[tuple[str, str], int | None] = {}

    def of(self, provider: str, model: str, tier: str = "default", alias: str | None = None) -> TokenPrice | None:
        """`tier`: the provider's service tier, such as `priority` or `flex`. `alias`: that it answers for."""
        now = self._clock()
        if now >= self._known_until or len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()
        if not self._known:
            begins = (one.since.timestamp() for all in self._config.prices.values() for one in all if one.since)
            self._known_until = min((moment for moment in begins if moment > now), default=math.inf)
        place = (provider, model, tier, alias)
        if place not in self._known:
            self._known[place] = self._find(provider, model, tier, alias, now)
        return self._known[place]

    def cost(self, provider: str, model: str, usage: Usage, alias: str | None = None) -> int | None:
        """Nano-dollars; None without a known price."""
        price = self.of(provider, model, alias=alias)
        return None if price is None else price.cost(usage)

    def context_tokens(self, provider: str, model: str) -> int | None:
        """How many tokens a model takes, the answer included; None if the price list does not say."""
        place = (provider, model)
        if place not in self._contexts:
            if len(self._contexts) >= _MOST_REMEMBERED:
                self._contexts.clear()
            config = self._config.providers.get(provider)
            name = None if config is None or config.base_url else _LISTED.get(config.type, config.type)
            found = None if name in (None, "echo") else _listed_model(str(name), model)
            self._contexts[place] = None if found is None else found.context_window
        return self._contexts[place]

    def _find(self, provider: str, model: str, tier: str, alias: str | None, now: float) -> TokenPrice | None:
        own = self._own(f"{provider}/{model}", alias, now)
        if own is not None and own.input_usd_per_mtok is not None:
            return _own(own)
        listed = self._find_listed(provider, model, tier)
        return listed if own is None or listed is None else listed.times(own.multiplier)

    def _own(self, name: str, alias: str | None, now: float) -> ModelPriceConfig | None:
        prices = self._config.prices
        globs = (all for glob, all in prices.items() if fnmatch.fnmatchcase(name, glob))
        found = prices.get(alias or "") or prices.get(name) or next(globs, ())
        begun = [one for one in found if one.since is None or one.since.timestamp() <= now]
        return max(begun, key=lambda one: 0.0 if one.since is None else one.since.timestamp(), default=None)

    def _find_listed(self, provider: str, model: str, tier: str) -> TokenPrice | None:
        config = self._config.providers.get(provider)
        if config is None:
            return None
        if config.type == "echo":
            return TokenPrice(**dict.fromkeys(_KINDS, ((0, 0),)), media={})
        if config.base_url not in (None, PRESETS.get(config.type)) and config.type != "bedrock":
            return _listed_at(config.address, model, tier)  # who runs it is known by its address, or not at all
        return _listed(_LISTED.get(config.type, config.type), model, tier)


def _at(steps: Steps, input_tokens: int) -> int:
    found = steps[0][1]
    for start, nano in steps[1:]:
        if input_tokens < start:
            break
        found = nano
    return found


def _own(price: ModelPriceConfig) -> TokenPrice:
    read, write = price.cache_read_usd_per_mtok, price.cache_write_usd_per_mtok
    plain = price.input_usd_per_mtok or Decimal(0)
    amounts = (plain, price.output_usd_per_mtok, plain if read is None else read, plain if write is None else write)
    priced = zip(_KINDS, (*amounts, amounts[-1]), strict=True)
    return TokenPrice(**{kind: ((0, _nano(usd)),) for kind, usd in priced}, media={}).times(price.multiplier)


def _listed_at(address: str, model: str, tier: str) -> TokenPrice | None:
    from genai_prices.data_snapshot import get_snapshot  # 0.4 s, which only users of models pay

    for provider in get_snapshot().providers:
        if re.match(provider.api_pattern, address):
            return _listed(provider.id, model, tier)
    return None


def _listed_model(provider_id: str, model: str) -> Any:
    from genai_prices.data_snapshot import get_snapshot

    provider = next((one for one in get_snapshot().providers if one.id == provider_id), None)
    return (
        None if provider is None else provider.find_model(model.rpartition("/")[2] if provider_id == "aws" else model)
    )


def _listed(provider_id: str, model: str, tier: str) -> TokenPrice | None:
    found = _listed_model(provider_id, model)
    if found is None:
        return None
    prices = found.get_prices(datetime.datetime.now(datetime.UTC), {"service_tier": tier})
    amounts = _amounts(prices, {kind: f"{kind}_mtok" for kind in _KINDS})
    if "input" not in amounts:
        return None
    amounts.setdefault("output", ((0, 0),))
    amounts.setdefault("cache_read", amounts["input"])
    amounts.setdefault("cache_write", amounts["input"])
    amounts.setdefault("cache_write_1h", amounts["cache_write"])
    return TokenPrice(**amounts, media=_amounts(prices, {kind: name for kind, (_, name) in _MEDIA.items()}))


def _amounts(prices: Any, names: Mapping[str, str]) -> dict[str, Steps]:
    """`names`: kinds → those of genai-prices."""
    found: dict[str, Steps] = {}
    for kind, name in names.items():
        price = getattr(prices, name, None)
        if isinstance(price, Decimal):
            found[kind] = ((0, _nano(price)),)
        elif price is not None:
            found[kind] = ((0, _nano(price.base)), *((tier.start + 1, _nano(tier.price)) for tier in price.tiers))
    return found


def _nano(usd: Decimal) -> int:
    """Nano-dollars for a million tokens."""
    return int(usd.scaleb(9).to_integral_value())
