"""The providers of the configuration as it stands: made when they are first needed, replaced when their settings
change, closed once nobody reads from them."""

import asyncio
from collections.abc import Callable, Mapping

from mcpgate.config.llm import LlmConfig, ProviderConfig
from mcpgate.config.settings import Settings
from mcpgate.llm.prices import ModelPrices
from mcpgate.llm.provider import Provider

_LOOK_EVERY_S = 1.0
Make = Callable[[str, ProviderConfig], Provider]


class Providers:
    """Every provider by its name."""

    def __init__(self, settings: Settings, make: Make) -> None:
        self._settings, self._make = settings, make
        self._config = LlmConfig()
        self._table: dict[str, tuple[ProviderConfig, Provider]] = {}
        self._shown: Mapping[str, Provider] = {}
        self._prices = ModelPrices(self._config)
        self._closing: set[asyncio.Task[None]] = set()

    def all(self) -> Mapping[str, Provider]:
        """As configured now."""
        self._refresh()
        return self._shown

    def prices(self) -> ModelPrices:
        """Of their models."""
        self._refresh()
        return self._prices

    async def aclose(self) -> None:
        for task in self._closing:
            task.cancel()
        for _, provider in self._table.values():
            await provider.aclose()
        self._table.clear()

    def _refresh(self) -> None:
        config = self._settings.config.llm
        if config is self._config:
            return
        before, self._table = self._table, {}
        for name, settings in config.providers.items():
            known = before.pop(name, None)
            if known is not None and known[0] != settings:
                self._close_later(known[1])
                known = None
            self._table[name] = known or (settings, self._make(name, settings))
        for _, provider in before.values():
            self._close_later(provider)
        self._shown = {name: provider for name, (_, provider) in self._table.items()}
        self._config, self._prices = config, ModelPrices(config)

    def _close_later(self, provider: Provider) -> None:
        task = asyncio.ensure_future(_close_when_idle(provider))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


async def _close_when_idle(provider: Provider) -> None:
    try:
        while provider.is_busy:
            await asyncio.sleep(_LOOK_EVERY_S)
    finally:
        await provider.aclose()
