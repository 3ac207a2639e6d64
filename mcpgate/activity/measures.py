"""How it stands with budgets, spend and rates, as alerts look at them; read from the store that all workers share."""

import asyncio
import datetime
import fnmatch
from collections.abc import Iterator

from mcpgate.activity.alerts import Reading
from mcpgate.activity.samples import read_sample
from mcpgate.config.telemetry import AlertConfig
from mcpgate.governance.gate import Gate
from mcpgate.governance.keys import from_record
from mcpgate.governance.records import to_nano, to_usd
from mcpgate.governance.rule import Rule
from mcpgate.governance.rules import budget_rule, scope_rules
from mcpgate.governance.store import Counters, Query

_DAYS = 7
_HOUR_S, _DAY_S = 3600, 86_400
_MOST_SUBJECTS = 1_000
"""Of one budget, and keys of the store, that are looked at."""
_MOST_BAD = 0.05
"""Of requests that are slower than the 95th percentile."""


async def rates(counters: Counters, id: str, alert: AlertConfig, now: float) -> list[Reading]:
    """Raises StoreUnavailable."""
    sample = await read_sample(counters, id, alert, now)
    if sample.total < alert.min_requests:
        return []
    share, when = sample.bad / sample.total, alert.when
    said = f"{sample.bad:,} of {sample.total:,} requests in {alert.window}"
    if when.error_rate is not None and share >= when.error_rate:
        return [Reading(id, "", 1.0, f"{share:.0%} of requests failed ({said})")]
    if when.latency_ms is not None and share > _MOST_BAD:
        text = f"the 95th percentile of latency is above {when.latency_ms:,.0f} ms ({said} were slower)"
        return [Reading(id, "", 1.0, text)]
    if when.cache_hit_rate_below is not None and 1 - share < when.cache_hit_rate_below:
        return [Reading(id, "", 1.0, f"the cache answered only {1 - share:.0%} of requests ({said} were not in it)")]
    return []


async def spend(gate: Gate, id: str, alert: AlertConfig, now: float) -> list[Reading]:
    """Raises StoreUnavailable."""
    times, hour = alert.when.spend_times_usual or 0.0, now // _HOUR_S * _HOUR_S
    where = {name: globs[0] for name, globs in alert.only.items()}
    costs: dict[str, int] = {}
    for row in await gate.store.report(Query(hour - _DAYS * _DAY_S, now + 1, ("hour",), where)):
        costs[row["hour"]] = row["cost"]
    this = costs.get(_shown_hour(hour), 0)
    usual = sum(costs.get(_shown_hour(hour - day * _DAY_S), 0) for day in range(1, _DAYS + 1)) / _DAYS
    if this < to_nano(alert.min_usd) or not usual or this < times * usual:
        return []
    text = f"${to_usd(this):f} were spent this hour, {this / usual:.1f} times the usual ${to_usd(round(usual)):.2f}"
    return [Reading(id, "", 1.0, text)]


async def budgets(gate: Gate, id: str, alert: AlertConfig, now: float) -> list[Reading]:
    """Raises StoreUnavailable."""
    shares = sorted(alert.when.budget_used or ())
    found = []
    for rule in [*_declared(gate), *await _of_stored_keys(gate)]:
        limit = rule.limit_at(now)
        if rule.measure != "cost" or not limit or not any(fnmatch.fnmatchcase(rule.id, glob) for glob in alert.names):
            continue
        await asyncio.sleep(0)  # there may be thousands
        prefix, oldest = rule.counter(""), rule.window.span(now).oldest
        names = await gate.counters.names(prefix, _MOST_SUBJECTS)
        for name, balance in zip(names, await gate.counters.read([(name, oldest) for name in names]), strict=True):
            reached = [share for share in shares if balance.spent >= share * limit]
            if not reached:
                continue
            subject = name.removeprefix(prefix)
            whose = f"{rule.id}{f' of {subject}' if subject else ''}"
            text = f"{balance.spent / limit:.0%} of the budget {whose} are spent ({rule.limit_text(now)})"
            found.append(Reading(id, f"{rule.counter('')}{subject}", reached[-1], text))
    return found


def _declared(gate: Gate) -> Iterator[Rule]:
    policy = gate.policy
    for budget in policy.tables["budget"].values():
        yield budget_rule(budget)
    for kind in ("customer", "team", "user"):
        for name, scope in policy.tables[kind].items():
            yield from scope_rules(kind, name, scope)
    for id, (_, spec) in policy.keys.items():
        yield from scope_rules("key", id, spec)


async def _of_stored_keys(gate: Gate) -> list[Rule]:
    """Of keys that have spent something lately."""
    names = await gate.counters.names("key:", _MOST_SUBJECTS)
    ids = {name.partition("|")[0].removeprefix("key:") for name in names if "|cost|" in name}
    found: list[Rule] = []
    for id in ids - set(gate.policy.keys):
        if (record := await gate.store.get_record("key", id)) is not None:
            found += scope_rules("key", id, from_record(id, record.value)[1])
    return found


def _shown_hour(at: float) -> str:
    return f"{datetime.datetime.fromtimestamp(at, datetime.UTC):%Y-%m-%dT%H:00Z}"
