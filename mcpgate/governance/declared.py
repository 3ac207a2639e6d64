"""What is declared in the configuration file and in the store, kept fresh; and whether the store answers."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

from mcpgate.config.governance import GovernanceConfig
from mcpgate.errors import ConfigError
from mcpgate.governance.policy import RECORD_KINDS, Policy
from mcpgate.governance.prices import Prices
from mcpgate.governance.rule import Rule
from mcpgate.governance.store import Counters, Store, StoreUnavailable
from mcpgate.telemetry.metrics import Metrics

log = logging.getLogger("mcpgate.governance")


class Declared:
    """The policy in force. One for each process."""

    def __init__(
        self,
        config: GovernanceConfig,
        prices: Prices,
        counters: Counters,
        store: Store,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.config, self.prices = config, prices
        self.policy = Policy(config)
        self.unavailable: str | None = None
        """Why the store does not answer; None while it does."""
        self._counters, self._store, self._metrics, self._clock = counters, store, metrics, clock
        self._reloading = asyncio.Lock()

    async def configure(self, config: GovernanceConfig, prices: Prices) -> None:
        """Take over an edited configuration."""
        self.config, self.prices = config, prices
        # With the known declarations of the store, so that there is no moment without them.
        self.policy = Policy(config, self.policy.records, self.policy.version)
        with suppress(StoreUnavailable):
            await self.reload()

    async def look(self) -> None:
        """Take over what was declared elsewhere meanwhile. Raises StoreUnavailable."""
        _, version = await self._store.find_key("")
        if version != self.policy.version:
            await self.reload(version)

    async def reload(self, wanted: int | None = None) -> None:
        """Read the store's declarations; once for all who want the same version of them. Raises StoreUnavailable."""
        async with self._reloading:
            if wanted is not None and wanted == self.policy.version:
                return
            _, version = await self._store.find_key("")
            records = []
            for kind in RECORD_KINDS:
                after = ""
                while page := await self._store.list_records(kind, after):
                    records += page
                    after = page[-1].id
            try:
                self.policy = Policy(self.config, records, version)
            except ConfigError as error:  # a limit that cannot be read must not be one that does not hold
                raise StoreUnavailable(error.message) from error
            await self.start_values(self.policy.starting_rules())

    async def start_values(self, rules: Iterable[Rule]) -> None:
        """Count what budgets begin with as spent, once. Raises StoreUnavailable."""
        now = self._clock()
        for rule in rules:
            if rule.start:
                claim = replace(rule.claim("", now, rule.start), limit=None)
                await self._counters.adjust(claim, once=f"start {claim.counter}")

    def lost(self, error: StoreUnavailable) -> None:
        """The store did not answer."""
        self._metrics.store_failed()
        if self.unavailable is None:
            log.error("the store is unavailable: %s", error)
        self.unavailable = str(error) or "it does not answer"

    def found(self) -> None:
        """The store answered."""
        if self.unavailable is not None:
            log.warning("the store is available again")
        self.unavailable = None
