"""The declarations of the configuration file and the store, kept up to date; and whether the store is available."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from mcpgate.config.governance import GovernanceConfig
from mcpgate.config.oauth import OAuthConfig
from mcpgate.errors import ConfigError
from mcpgate.governance.policy import RECORD_KINDS, Policy
from mcpgate.governance.prices import Prices
from mcpgate.governance.rule import Rule
from mcpgate.governance.store import Counters, Store, StoreUnavailable, all_records
from mcpgate.telemetry.metrics import Metrics

log = logging.getLogger("mcpgate.governance")


class Declared:
    """The active policy. One per process."""

    def __init__(
        self,
        config: GovernanceConfig,
        prices: Prices,
        counters: Counters,
        store: Store,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
        oauth: OAuthConfig | None = None,
    ) -> None:
        self.config, self.prices, self.oauth = config, prices, oauth
        self.policy = Policy(config)
        self.unavailable: str | None = None
        """Why the store is unavailable; None while it is available."""
        self._counters, self._store, self._metrics, self._clock = counters, store, metrics, clock
        self._reloading = asyncio.Lock()

    async def configure(self, config: GovernanceConfig, prices: Prices, oauth: OAuthConfig | None) -> None:
        """Apply an edited configuration."""
        self.config, self.prices, self.oauth = config, prices, oauth
        # Keeps the known declarations of the store, so that they apply without a gap.
        self.policy = Policy(config, self.policy.records, self.policy.version)
        with suppress(StoreUnavailable):
            await self.reload()

    async def look(self) -> None:
        """Apply what was declared elsewhere meanwhile. Raises StoreUnavailable."""
        _, version = await self._store.find_key("")
        if version != self.policy.version:
            await self.reload(version)

    async def reload(self, wanted: int | None = None) -> None:
        """Read the store's declarations; once for all callers that want the same version. Raises StoreUnavailable."""
        async with self._reloading:
            if wanted is not None and wanted == self.policy.version:
                return
            _, version = await self._store.find_key("")
            records = [record for kind in RECORD_KINDS async for record in all_records(self._store, kind)]
            try:
                self.policy = Policy(self.config, records, version)
            except ConfigError as error:  # an unreadable limit must not be silently dropped
                raise StoreUnavailable(error.message) from error
            await self.start_values(self.policy.starting_rules())

    async def start_values(self, rules: Iterable[Rule]) -> None:
        """Count the starting amounts of budgets as spent, once. Raises StoreUnavailable."""
        now = self._clock()
        for rule in rules:
            if rule.start:
                claim = rule.claim("", now, rule.start)._replace(limit=None)
                await self._counters.adjust(claim, once=f"start {claim.counter}")

    def lost(self, error: StoreUnavailable) -> None:
        """Record that the store did not answer."""
        self._metrics.store_failed()
        if self.unavailable is None:
            log.error("the store is unavailable: %s", error)
        self.unavailable = str(error) or "it does not respond"

    def found(self) -> None:
        """Record that the store answered."""
        if self.unavailable is not None:
            log.warning("the store is available again")
        self.unavailable = None
