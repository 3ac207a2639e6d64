"""Budgets and rate limits in one form: whom a rule looks at, what it counts, over which window. Pure: what a rule
takes from a request is a `Claim`, and holding claims is the work of `Counters`."""

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mcpgate.governance.records import Caller, Claim, Refusal, Request, Standing, Usage, to_nano, to_usd
from mcpgate.governance.windows import Forever, Window, make_window
from mcpgate.governance_config import (
    WINDOWED,
    BudgetConfig,
    BudgetRuleConfig,
    RateLimitConfig,
    RateLimitRuleConfig,
    ScopeConfig,
)

Measure = Literal["cost", "requests", "tokens", "input_tokens", "output_tokens", "execution_seconds", "concurrency"]
PER_REQUEST = ("requests", "concurrency")
"""What a call from inside an execution does not add to, unless the rule speaks of servers or tools."""
_MILLISECONDS = 1000


def measured(measure: str, cost: int | None, usage: Usage) -> int:
    """What a request came to: nano-dollars, milliseconds, or a number. What has no known price counts as nothing."""
    match measure:
        case "cost":
            return cost or 0
        case "requests":
            return 1
        case "tokens":
            return usage.input_tokens + usage.output_tokens
        case "input_tokens":
            return usage.input_tokens
        case "output_tokens":
            return usage.output_tokens
        case "execution_seconds":
            return round(usage.seconds * _MILLISECONDS)
        case "concurrency":
            return 0  # only ever held
    raise ValueError(measure)


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """One ceiling on one measure."""

    id: str
    measure: Measure
    limit: int
    """Nano-dollars for cost, milliseconds for execution_seconds, else a number."""
    window: Window
    when: tuple[tuple[str, tuple[str, ...]], ...] = ()
    per: str = "shared"
    group: str | None = None
    soft_limit: int | None = None
    start: int = 0

    @property
    def limit_text(self) -> str:
        return shown_amount(self.measure, self.limit) + (f" per {self.window}" if str(self.window) else "")

    @property
    def counts_nested(self) -> bool:
        """Whether calls from inside an execution count too."""
        return self.measure not in PER_REQUEST or any(name in ("server", "tool") for name, _ in self.when)

    def counter(self, subject: str) -> str:
        # With the window, for amounts counted in cells of another length mean something else.
        return f"{self.id}|{self.measure}|{self.window.key}|{subject}"

    def claim(self, subject: str, at: float, amount: int, governs: bool = True) -> Claim:
        span = self.window.span(at)
        return Claim(
            counter=self.counter(subject),
            measure=self.measure,
            amount=1 if self.measure == "concurrency" else amount,
            limit=self.limit if governs else None,
            cell=span.cell,
            oldest=span.oldest,
            ends_at=span.ends_at,
        )


def shown_amount(measure: str, amount: int) -> str:
    if measure == "cost":
        return f"${to_usd(amount):f}"
    if measure == "execution_seconds":
        return f"{amount / _MILLISECONDS:g} execution seconds"
    if measure == "concurrency":
        return f"{amount} at once"
    return f"{amount:,} {measure.replace('_', ' ')}"


def fitted(claims: Sequence[Claim], standings: Sequence[Standing]) -> tuple[Standing, ...] | Refusal:
    """Whether claims fit what their counters stand at: all of them, or none. What the counters stand at with them."""
    pairs = tuple(zip(claims, standings, strict=True))
    misfits = tuple(
        (place, standing)
        for place, (claim, standing) in enumerate(pairs)
        if claim.limit is not None and standing.spent + standing.held + claim.amount > claim.limit
    )
    if misfits:
        return Refusal(misfits)
    return tuple(Standing(standing.spent, standing.held + claim.amount, standing.first) for claim, standing in pairs)


# --- from settings


def scope_rules(kind: str, name: str, config: ScopeConfig) -> tuple[Rule, ...]:
    """The ceilings that a customer, team, user or key has of its own."""
    id = f"{kind}:{name}"
    rules = [_budget(budget, id) for budget in config.budget]
    for limit in config.rate_limits:
        rules += _rate_limits(limit, id)
    # Two ceilings on the same thing are one: the lower.
    lowest: dict[str, Rule] = {}
    for rule in rules:
        known = lowest.get(rule.counter(""))
        if known is None or rule.limit < known.limit:
            lowest[rule.counter("")] = rule
    return tuple(lowest.values())


def budget_rule(config: BudgetRuleConfig) -> Rule:
    return _budget(config, config.id, _when(config.when), config.per, config.group)


def rate_limit_rules(config: RateLimitRuleConfig) -> tuple[Rule, ...]:
    """One for each measure."""
    return _rate_limits(config, config.id, _when(config.when), config.per, config.group)


_When = tuple[tuple[str, tuple[str, ...]], ...]


def _when(when: Mapping[str, tuple[str, ...]]) -> _When:
    return tuple((name, tuple(patterns)) for name, patterns in when.items())


def _budget(config: BudgetConfig, id: str, when: _When = (), per: str = "shared", group: str | None = None) -> Rule:
    return Rule(
        id,
        "cost",
        to_nano(config.limit_usd),
        make_window(config.period, config.calendar, config.timezone),
        when,
        per,
        group and f"budget {group}",
        None if config.soft_limit_usd is None else to_nano(config.soft_limit_usd),
        to_nano(config.start_usd),
    )


def _rate_limits(
    config: RateLimitConfig, id: str, when: _When = (), per: str = "shared", group: str | None = None
) -> tuple[Rule, ...]:
    rules = []
    for measure in (*WINDOWED, "concurrency"):
        limit = getattr(config, measure)
        if limit is None:
            continue
        whole = round(limit * _MILLISECONDS) if measure == "execution_seconds" else limit
        window = Forever() if measure == "concurrency" else make_window(config.window, config.fixed)
        rules.append(Rule(id, measure, whole, window, when, per, group and f"{measure} {group}"))  # type: ignore[arg-type]
    return tuple(rules)


# --- matching


@dataclass(frozen=True, slots=True)
class Match:
    """A rule that a request falls under."""

    rule: Rule
    subject: str
    """Whose share it is; empty where all share."""
    governs: bool
    """False where another rule of its group comes first: it only counts."""


def matching(rules: Iterable[Rule], caller: Caller, request: Request) -> tuple[Match, ...]:
    """Every rule that a request of a caller falls under."""
    found = []
    decided: set[str] = set()
    for rule in rules:
        if request.parent_id is not None and not rule.counts_nested:
            continue
        if not all(_matches(name, patterns, caller, request) for name, patterns in rule.when):
            continue
        subject = "" if rule.per == "shared" else _subject(rule.per, caller)
        if subject is None:
            continue
        found.append(Match(rule, subject, rule.group is None or rule.group not in decided))
        if rule.group is not None:
            decided.add(rule.group)
    return tuple(found)


def mentioned_metadata(rules: Iterable[Rule]) -> frozenset[str]:
    """Names of the metadata that any rule looks at."""
    names = [name for rule in rules for name, _ in rule.when] + [rule.per for rule in rules]
    return frozenset(name.removeprefix("metadata.") for name in names if name.startswith("metadata."))


def _subject(per: str, caller: Caller) -> str | None:
    match per:
        case "key":
            return caller.id
        case "user":
            return caller.user
        case "team":
            return caller.team
        case "customer":
            return caller.customer
    return caller.metadata.get(per.removeprefix("metadata."))


def _values(name: str, caller: Caller, request: Request) -> Sequence[str | None]:
    match name:
        case "key":
            return (caller.id, caller.name)
        case "user":
            return (caller.user,)
        case "team":
            return (caller.team,)
        case "customer":
            return (caller.customer,)
        case "server":
            return (request.server,)
        case "tool":
            return (request.tool, f"{request.server}.{request.tool}") if request.server else (request.tool,)
        case "provider":
            return (request.provider,)
        case "model":
            if request.model is None:
                return ()
            return (request.model, f"{request.provider}/{request.model}") if request.provider else (request.model,)
    return (caller.metadata.get(name.removeprefix("metadata.")),)


def _matches(name: str, patterns: tuple[str, ...], caller: Caller, request: Request) -> bool:
    values = _values(name, caller, request)
    if name == "tool" and request.server is None:
        # A meta-tool is meant by its name only: `*` is every tool of the servers, and not the execution round them.
        return request.tool in patterns
    return any(value and fnmatch.fnmatchcase(value, pattern) for pattern in patterns for value in values)
