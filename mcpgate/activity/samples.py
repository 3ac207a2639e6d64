"""What alerts count of requests: how many there were, and how many of them were bad. Counted where requests end, added
to the store's counters every few seconds, so that all workers count together."""

import asyncio
import fnmatch
import math
from collections.abc import Mapping
from typing import NamedTuple

from mcpgate.activity.shown import status_of
from mcpgate.config.governance import Condition
from mcpgate.config.periods import Period
from mcpgate.config.telemetry import AlertConfig
from mcpgate.governance.records import Claim, Entry
from mcpgate.governance.store import Counters, StoreUnavailable

CELL_S = 10
_COUNTED = ("error_rate", "latency_ms", "cache_hit_rate_below")
_INNER = ("server", "tool", "provider", "model")
_ERRORS = ("tool_error", "cut_off", "unknown")
_CACHES = {"exact": False, "semantic": False, "miss": True}
"""How a request may have met a cache, and whether that counts as bad."""


class Sample(NamedTuple):
    total: int
    bad: int


class Samples:
    """One per process. A listener of the journal."""

    def __init__(self) -> None:
        self._alerts: list[tuple[str, AlertConfig]] = []
        self._counts: dict[tuple[str, str, int], int] = {}
        """(Alert, what, cell) → number."""

    def watch(self, alerts: Mapping[str, AlertConfig]) -> None:
        """Count for these from now on."""
        self._alerts = [(id, one) for id, one in alerts.items() if one.kind in _COUNTED]

    def __call__(self, entry: Entry) -> None:
        for id, alert in self._alerts:
            if (bad := is_bad(alert, entry)) is None:
                continue
            cell = int((entry.at + entry.latency_ms / 1000) // CELL_S)
            key = id, "total", cell
            self._counts[key] = self._counts.get(key, 0) + 1
            if bad:
                key = id, "bad", cell
                self._counts[key] = self._counts.get(key, 0) + 1

    async def flush(self, counters: Counters) -> None:
        """Add what was counted to the store. Raises StoreUnavailable; then the rest is added later."""
        lengths = {id: window_s(alert) for id, alert in self._alerts}
        counts, self._counts = self._counts, {}  # more may be counted while these are written

        async def add(id: str, what: str, cell: int) -> None:
            number, ends_at = counts[id, what, cell], (cell + 1) * CELL_S + lengths[id]
            try:
                await counters.adjust(Claim(_counter(id, what), "alert", number, None, cell, cell, ends_at))
            except StoreUnavailable:
                key = id, what, cell
                self._counts[key] = self._counts.get(key, 0) + number
                raise

        await asyncio.gather(*(add(*key) for key in counts if key[0] in lengths))


async def read_sample(counters: Counters, id: str, alert: AlertConfig, now: float) -> Sample:
    """What all workers have counted in an alert's window. Raises StoreUnavailable."""
    oldest = math.floor((now - window_s(alert)) / CELL_S) + 1
    total, bad = await counters.read([(_counter(id, what), oldest) for what in ("total", "bad")])
    return Sample(total.spent, bad.spent)


def window_s(alert: AlertConfig) -> float:
    period = Period.parse(alert.window)
    return float(period.count * {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}[period.unit])


def is_bad(alert: AlertConfig, entry: Entry) -> bool | None:
    """Whether a request counts as bad for an alert; None if it does not count."""
    if not fits(alert.only, entry):
        return None
    if alert.when.cache_hit_rate_below is not None:
        return _CACHES.get(entry.facts.get("cache") or entry.cache)
    if alert.when.latency_ms is not None:
        return entry.latency_ms > alert.when.latency_ms
    return is_error(entry.outcome)


def is_error(outcome: str) -> bool:
    """Whether a request failed for a reason of the gateway or of what is behind it: not because of its client, its code
    or a limit."""
    return outcome in _ERRORS or (outcome != "ok" and (status_of(outcome) or 0) >= 500)


def fits(only: Condition, entry: Entry) -> bool:
    """Whether an entry has what a condition names. One that belongs to another only counts where servers, tools,
    providers or models are named."""
    if entry.parent_id is not None and not any(name in _INNER for name in only):
        return False
    return all(
        any(value and fnmatch.fnmatchcase(value, glob) for value in _values(name, entry) for glob in globs)
        for name, globs in only.items()
    )


def _values(name: str, entry: Entry) -> tuple[str | None, ...]:
    if name == "model":
        return entry.model, entry.facts.get("alias")
    if name.startswith("metadata."):
        return (entry.metadata.get(name.removeprefix("metadata.")),)
    return (getattr(entry, name),)


def _counter(id: str, what: str) -> str:
    return f"alert|{what}|{id}"
