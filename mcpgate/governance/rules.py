"""Makes rules from settings, and finds those that apply to a request. Pure."""

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from mcpgate.config.governance import (
    WINDOWED,
    BudgetConfig,
    BudgetRuleConfig,
    RateLimitConfig,
    RateLimitRuleConfig,
    ScopeConfig,
)
from mcpgate.governance.callers import Caller
from mcpgate.governance.records import Request, to_nano
from mcpgate.governance.rule import MILLISECONDS, PER_REQUEST, Match, Rule
from mcpgate.governance.windows import Forever, make_window

# --- from settings


def scope_rules(kind: str, name: str, config: ScopeConfig) -> tuple[Rule, ...]:
    """The own limits of a customer, team, user or key."""
    id = f"{kind}:{name}"
    rules = [_budget(budget, id) for budget in config.budget]
    for limit in config.rate_limits:
        rules += _rate_limits(limit, id)
    # Of two limits on the same thing, only the lower matters.
    lowest: dict[str, Rule] = {}
    for rule in rules:
        known = lowest.get(rule.counter(""))
        if known is None or rule.limit < known.limit:
            lowest[rule.counter("")] = rule
    return tuple(lowest.values())


def budget_rule(config: BudgetRuleConfig) -> Rule:
    return _budget(config, config.id, _when(config.when), config.per, config.group)


def rate_limit_rules(config: RateLimitRuleConfig) -> tuple[Rule, ...]:
    """One rule per measure."""
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
        None if (other := config.override) is None else (to_nano(other.limit_usd), other.until.timestamp()),
    )


def _rate_limits(
    config: RateLimitConfig, id: str, when: _When = (), per: str = "shared", group: str | None = None
) -> tuple[Rule, ...]:
    rules = []
    for measure in (*WINDOWED, "concurrency"):
        limit = getattr(config, measure)
        if limit is None:
            continue
        whole = round(limit * MILLISECONDS) if measure == "execution_seconds" else limit
        window = Forever() if measure == "concurrency" else make_window(config.window, config.fixed)
        rules.append(Rule(id, measure, whole, window, when, per, group and f"{measure} {group}"))  # type: ignore[arg-type]
    return tuple(rules)


def matching(rules: Iterable[Rule], caller: Caller, request: Request) -> tuple[Match, ...]:
    """Every rule that applies to a caller's request."""
    found = []
    decided: set[str] = set()
    for rule in rules:
        if request.parent_id is not None and not rule.counts_nested:
            continue
        if request.alias is not None and rule.measure in PER_REQUEST and _counted_as_chat(rule, caller, request):
            continue
        if not all(matches(name, patterns, caller, request) for name, patterns in rule.when):
            continue
        subject = "" if rule.per == "shared" else _subject(rule.per, caller)
        if subject is None:
            continue
        found.append(Match(rule, subject, rule.group is None or rule.group not in decided))
        if rule.group is not None:
            decided.add(rule.group)
    return tuple(found)


def _counted_as_chat(rule: Rule, caller: Caller, attempt: Request) -> bool:
    """Whether a rule has counted the chat that an attempt belongs to. The chat names the alias, its attempts name
    provider and model: a limit on `model: fast` means what clients send, one on a provider what it receives."""
    chat = replace(attempt, provider=None, model=attempt.alias, alias=None, parent_id=None)
    return all(matches(name, patterns, caller, chat) for name, patterns in rule.when)


def mentioned_metadata(rules: Iterable[Rule]) -> frozenset[str]:
    """Names of metadata that any rule looks at."""
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
            names = (request.model, f"{request.provider}/{request.model}") if request.provider else (request.model,)
            return (*names, request.alias) if request.alias else names
    return (caller.metadata.get(name.removeprefix("metadata.")),)


def matches(name: str, patterns: Sequence[str], caller: Caller, request: Request) -> bool:
    """Whether a request has a value of a dimension that one of the globs matches."""
    values = _values(name, caller, request)
    if name == "tool" and request.server is None:
        # A meta-tool matches only by its exact name: `*` is every tool of the servers, not the execution around them.
        return request.tool in patterns
    return any(value and fnmatch.fnmatchcase(value, pattern) for pattern in patterns for value in values)
