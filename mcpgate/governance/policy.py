"""All declarations as one immutable value that is swapped whole: scopes, rules, and the keys of the configuration
file. Determines a key's caller and which rules apply to a request; counts nothing."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ValidationError

from mcpgate.config.governance import (
    BudgetRuleConfig,
    CustomerConfig,
    GovernanceConfig,
    KeySpec,
    RateLimitRuleConfig,
    ScopeConfig,
    TeamConfig,
    UserConfig,
)
from mcpgate.errors import ConfigError
from mcpgate.governance.callers import Caller, VirtualKey
from mcpgate.governance.keys import digest_of, make_key
from mcpgate.governance.records import Request
from mcpgate.governance.rule import Match, Rule, Share
from mcpgate.governance.rules import budget_rule, matching, mentioned_metadata, rate_limit_rules, scope_rules
from mcpgate.governance.store import Record

log = logging.getLogger("mcpgate.governance")
RECORD_KINDS: dict[str, type[BaseModel]] = {
    "customer": CustomerConfig,
    "team": TeamConfig,
    "user": UserConfig,
    "budget": BudgetRuleConfig,
    "rate_limit": RateLimitRuleConfig,
}
"""What can be declared at run time, in addition to keys."""
_ESTIMATED_EXACTLY = ("tool", "resource", "execution", "meta")
_MOST_REMEMBERED = 20_000


class Policy:
    """The declarations of the configuration and of the store's records. Raises ConfigError for a record that cannot
    be read."""

    def __init__(self, config: GovernanceConfig, records: Iterable[Record] = (), version: int = 0) -> None:
        self.version, self.records = version, tuple(records)
        self.customers, self.teams, self.users = dict(config.customers), dict(config.teams), dict(config.users)
        budgets = {rule.id: rule for rule in config.budgets}
        rate_limits = {rule.id: rule for rule in config.rate_limits}
        self.tables: dict[str, dict[str, Any]] = {
            "customer": self.customers,
            "team": self.teams,
            "user": self.users,
            "budget": budgets,
            "rate_limit": rate_limits,
        }
        """All declarations except keys: kind → id → model."""
        self.in_file = {kind: frozenset(table) for kind, table in self.tables.items()}
        for record in self.records:
            table = self.tables[record.kind]
            if record.id in table:
                log.warning("%s %r is also in the configuration file, which takes precedence", record.kind, record.id)
                continue
            try:
                table[record.id] = RECORD_KINDS[record.kind].model_validate(dict(record.value))
            except ValidationError as error:
                fault = error.errors()[0]
                where = ".".join(str(part) for part in fault["loc"])
                raise ConfigError(
                    f"the stored {record.kind} {record.id!r} cannot be read: {where}: {fault['msg']}"
                ) from None
        self.rules: tuple[Rule, ...] = (
            *(budget_rule(rule) for rule in budgets.values()),
            *(rule for limit in rate_limits.values() for rule in rate_limit_rules(limit)),
        )
        self.keys: dict[str, tuple[VirtualKey, KeySpec]] = {}
        """The keys of the configuration file, by id."""
        self._by_digest: dict[str, str] = {}
        for id, spec in config.keys.items():
            digests = [] if spec.secret is None else [digest_of(spec.secret.get_secret_value())]
            self.keys[id] = (make_key(id, spec, [(digest, None) for digest in digests], declared=True), spec)
            self._by_digest |= dict.fromkeys(digests, id)
        self._warn_of_labels(config)
        self.metadata_names = mentioned_metadata(self.rules)
        """Names of metadata that any rule looks at."""
        self._metadata = sorted(self.metadata_names)
        self._scope_rules: dict[tuple[str, str], tuple[Rule, ...]] = {}
        self._matches: dict[tuple[object, ...], tuple[Match, ...]] = {}

    def starting_rules(self) -> Iterator[Rule]:
        """The budgets with a starting amount, except those of the store's keys."""
        scopes = [(kind, id, scope) for kind in ("customer", "team", "user") for id, scope in self.tables[kind].items()]
        own = (*scopes, *(("key", id, spec) for id, (_, spec) in self.keys.items()))
        yield from (rule for rule in self.rules if rule.start)
        for kind, id, scope in own:
            if any(budget.start_usd for budget in scope.budget):
                yield from (rule for rule in self._own_rules(kind, id, scope) if rule.start)

    def _own_rules(self, kind: str, id: str, scope: ScopeConfig) -> tuple[Rule, ...]:
        """A scope's own limits, created on first use: many keys share them."""
        found = self._scope_rules.get((kind, id))
        if found is None:
            found = self._scope_rules[kind, id] = scope_rules(kind, id, scope)
        return found

    def find_declared(self, digest: str) -> tuple[VirtualKey, KeySpec] | None:
        id = self._by_digest.get(digest)
        return None if id is None else self.keys[id]

    def caller_of(self, key: VirtualKey, spec: KeySpec) -> Caller:
        """The caller of a key, with its scopes filled in from below: user → team → customer."""
        user = self.users.get(key.user) if key.user else None
        team_id = key.team or (user.team if user else None)
        team = self.teams.get(team_id) if team_id else None
        customer_id = key.customer or (team.customer if team else None)
        customer = self.customers.get(customer_id) if customer_id else None
        rules = [*scope_rules("key", key.id, spec)]
        for kind, id, scope in (("user", key.user, user), ("team", team_id, team), ("customer", customer_id, customer)):
            if scope is not None and id is not None:
                rules += self._own_rules(kind, id, scope)
        return Caller(
            *(key.id, key.name, key.user, team_id, customer_id, key.grants, key.limits),
            bundle=key.bundle,
            rules=tuple(rules),
            realm=key.realm,
        )

    def with_user(self, caller: Caller, user_id: str) -> Caller:
        """The caller on behalf of a user that its request names. The key's team and customer stay, and so do the own
        limits of the key's user, if it has one."""
        user = self.users.get(user_id)
        own = () if user is None else self._own_rules("user", user_id, user)
        return replace(caller, user=user_id, rules=(*caller.rules, *own))

    def with_scopes(self, caller: Caller, team_id: str | None, customer_id: str | None) -> Caller:
        """The caller with another team and customer, as an access token may name them; their own limits are added."""
        rules = caller.rules
        if team_id is not None and team_id != caller.team and (team := self.teams.get(team_id)) is not None:
            rules += self._own_rules("team", team_id, team)
        if customer_id is not None and customer_id != caller.customer:
            customer = self.customers.get(customer_id)
            rules += () if customer is None else self._own_rules("customer", customer_id, customer)
        return replace(caller, team=team_id, customer=customer_id, rules=rules)

    def shares(
        self, caller: Caller, request: Request, cost: int | None, with_unpriced: bool = False
    ) -> tuple[Share, ...]:
        """What every rule takes from a request, by its estimate; `cost` in nano-dollars. If the estimate is an upper
        bound, shares of zero are left out: a free call needs no store access, nor does an unpriced one unless
        `with_unpriced`. Nor is there one of money for a chat as a whole, because its attempts take it."""
        shares = []
        is_exact = request.kind in _ESTIMATED_EXACTLY
        for match in self.matches(caller, request):
            rule = match.rule
            amount = rule.takes(cost, request.estimate)
            unpriced = with_unpriced and cost is None and rule.measure == "cost"
            may_grow = not is_exact and (rule.measure != "cost" or request.provider is not None)
            if amount or unpriced or may_grow:
                shares.append(match.share(request.at, amount))
        return tuple(shares)

    def limits(self, caller: Caller) -> bool:
        """Whether any rule may apply to a caller."""
        return bool(self.rules or caller.rules)

    def matches(self, caller: Caller, request: Request) -> tuple[Match, ...]:
        """The rules that apply to a request. Rules look at only a few of its properties, which repeat, so most results
        are cached."""
        if not self.limits(caller):
            return ()
        seen = (
            caller.id,
            caller.name,
            caller.user,
            caller.team,
            caller.customer,
            caller.rules,
            request.server,
            request.tool,
            request.provider,
            request.model,
            request.alias,
            request.parent_id is None,
            *(caller.metadata.get(name) for name in self._metadata),
        )
        found = self._matches.get(seen)
        if found is None:
            if len(self._matches) > _MOST_REMEMBERED:
                self._matches.clear()
            found = self._matches[seen] = matching((*caller.rules, *self.rules), caller, request)
        return found

    def _warn_of_labels(self, config: GovernanceConfig) -> None:
        """An undeclared name is a label for reports and rules; it may also be a typo."""
        known: Mapping[str, Mapping[str, object]] = {
            "user": self.users,
            "team": self.teams,
            "customer": self.customers,
        }
        for id, spec in config.keys.items():
            for kind, table in known.items():
                name = getattr(spec, kind)
                if name is not None and table and name not in table:
                    log.warning("governance.keys.%s: there is no %s %r declared, so it has no limits", id, kind, name)
