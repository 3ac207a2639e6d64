"""The `governance` section: who may do what, and what it may cost. The same models check what the admin API and
`mcpgate keys` are given, so that a key means the same wherever it was made."""

import datetime
import ipaddress
import json
import re
from decimal import Decimal
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from mcpgate.config.base import Model
from mcpgate.config.periods import Period

SCOPES = ("customer", "team", "user", "key")
DIMENSIONS = (*SCOPES, "provider", "model", "server", "tool")
"""What a rule can look at, besides `metadata.NAME`."""

METADATA = re.compile(r"metadata\.[A-Za-z0-9_.-]{1,64}")
_LONGEST_D = {"s": 1 / 86_400, "m": 1 / 1440, "h": 1 / 24, "d": 1, "w": 7, "M": 31, "Q": 92, "Y": 366}
"""Days in a unit of a period, at most."""


def _period(text: str) -> str:
    period = Period.parse(text)
    if period.count * _LONGEST_D[period.unit] > 100 * 366:
        raise ValueError(f"{text!r} is longer than a hundred years; leave the period out for once and for all")
    return str(period)


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is no time zone; use a name like Europe/Berlin") from error
    return name


def _network(text: str) -> str:
    ipaddress.ip_network(text, strict=False)
    return text


def _dimension(name: str) -> str:
    if name not in DIMENSIONS and not METADATA.fullmatch(name):
        raise ValueError(f"{name!r} is nothing a rule can look at; it takes {', '.join(DIMENSIONS)} or metadata.NAME")
    return name


def _rule_id(id: str) -> str:
    if id.partition(":")[0] in SCOPES and ":" in id:
        raise ValueError(f"id {id!r} is what the own ceilings of a {id.partition(':')[0]} are called; choose another")
    return id


def _key_id(id: str) -> str:
    if id == "local":
        raise ValueError("a key cannot be called 'local', which is who comes without a key")
    return id


def _subject(name: str) -> str:
    if name not in (*SCOPES, "shared") and not METADATA.fullmatch(name):
        raise ValueError(f"per is {name!r}; it takes {', '.join(SCOPES)}, metadata.NAME or shared")
    return name


def _limits(given: dict[str, float]) -> dict[str, float]:
    """Only names and values that `sandbox` takes; whole numbers where it wants them."""
    try:
        checked = LimitsConfig.model_validate(given)
    except ValidationError as error:
        fault = error.errors()[0]
        if fault["type"] == "extra_forbidden":
            raise ValueError(
                f"{fault['loc'][0]} is no limit; there are {', '.join(LimitsConfig.model_fields)}"
            ) from None
        raise ValueError(f"{fault['loc'][0]}: {fault['msg']}") from None
    return {name: getattr(checked, name) for name in given}


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, (str, int, float, bool, dict)) else value


def _ordinary(moment: datetime.datetime) -> datetime.datetime:
    if not 1970 <= moment.year <= 9000:
        raise ValueError("must be between the years 1970 and 9000")
    return moment.astimezone(datetime.UTC)


def _moment(value: Any) -> Any:
    if isinstance(value, datetime.datetime):
        return value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
    if isinstance(value, datetime.date):
        return datetime.datetime.combine(value, datetime.time(), datetime.UTC)
    if isinstance(value, str):
        return _moment(datetime.datetime.fromisoformat(value))
    return value


PeriodText = Annotated[str, AfterValidator(_period)]
ZoneText = Annotated[str, AfterValidator(_zone)]
PositiveSeconds = Annotated[float, Field(gt=0, le=86_400)]
Usd = Annotated[Decimal, Field(ge=0, le=9_000_000, decimal_places=9, allow_inf_nan=False)]
"""US dollars, to the nano-dollar. Nine million of them are what a counter can hold exactly on every store."""
Pattern = Annotated[str, Field(min_length=1, max_length=512)]
Patterns = Annotated[
    tuple[Pattern, ...], BeforeValidator(_one_or_many, json_schema_input_type=Pattern | tuple[Pattern, ...])
]
Id = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\s|/\x00-\x1f][^|/\x00-\x1f]*$")]
KeyId = Annotated[Id, AfterValidator(_key_id)]


def _as_text(value: Any) -> Any:
    """A number or truth value as a header would say it."""
    return json.dumps(value) if isinstance(value, (bool, int, float)) else value


def _printable(value: str) -> str:
    if any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in value):
        raise ValueError("holds control characters")
    return value


MetadataValue = Annotated[str, Field(max_length=512), BeforeValidator(_as_text), AfterValidator(_printable)]
MetadataName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Moment = Annotated[datetime.datetime, BeforeValidator(_moment), AfterValidator(_ordinary)]
Count = Annotated[int, Field(ge=0, le=2**53)]
"""What a counter can hold exactly on every store."""
Amount = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]


class LimitsConfig(Model):
    """What one execution may use: settings of `sandbox`, of which a key can have its own."""

    timeout_s: PositiveSeconds = 60.0
    tool_wait_s: PositiveSeconds = 300.0
    cpu_s: PositiveSeconds = 10.0
    memory_mib: int = Field(default=256, ge=96, le=4096)
    max_tool_calls: int = Field(default=500, ge=0, le=1_000_000)
    max_parallel_calls: int = Field(default=32, ge=1, le=10_000)
    max_output_chars: int = Field(default=200_000, ge=1_000, le=100_000_000)
    max_result_chars: int = Field(default=16_000_000, ge=1_000, le=500_000_000)
    max_source_chars: int = Field(default=1_000_000, ge=1_000, le=100_000_000)
    max_argument_chars: int = Field(default=16_000_000, ge=1_000, le=500_000_000)
    max_reply_chars: int = Field(default=32_000_000, ge=1_000, le=500_000_000)
    max_depth: int = Field(default=200, ge=5, le=500)


class BudgetConfig(Model):
    """A ceiling on cost."""

    limit_usd: Usd
    period: PeriodText | None = None
    """None: once and for all."""
    calendar: bool = False
    """The period begins with the day, week, month … in `timezone`; else it rolls: the last so many hours."""
    timezone: ZoneText = "UTC"
    soft_limit_usd: Usd | None = None
    """From here on there is a warning, and nothing is refused."""
    start_usd: Usd = Decimal(0)
    """What counts as spent when the budget is first seen."""

    @model_validator(mode="after")
    def _softer(self) -> "BudgetConfig":
        if self.soft_limit_usd is not None and self.soft_limit_usd >= self.limit_usd:
            raise ValueError("soft_limit_usd must be less than limit_usd, or nobody would ever be warned")
        return self


class RateLimitConfig(Model):
    """A ceiling on speed: one or more of the measures."""

    requests: Count | None = None
    tokens: Count | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    execution_seconds: Amount | None = None
    concurrency: Count | None = None
    window: PeriodText | None = None
    """Not for concurrency."""
    fixed: bool = False
    """Windows follow each other, aligned with the clock; else they slide."""

    @model_validator(mode="after")
    def _measured(self) -> "RateLimitConfig":
        windowed = [name for name in WINDOWED if getattr(self, name) is not None]
        if not windowed and self.concurrency is None:
            raise ValueError(f"a rate limit needs one of {', '.join(WINDOWED)} or concurrency")
        if windowed and self.window is None:
            raise ValueError(f"{windowed[0]} needs a window, e.g. 1m")
        return self


WINDOWED = ("requests", "tokens", "input_tokens", "output_tokens", "execution_seconds")


class _RuleConfig(Model):
    id: Annotated[Id, AfterValidator(_rule_id)]
    when: dict[Annotated[str, AfterValidator(_dimension)], Patterns] = {}
    """Dimension → globs, one of which must match; all dimensions must."""
    per: Annotated[str, AfterValidator(_subject)] = "shared"
    """Each key, user, team, customer or metadata.NAME has the ceiling to itself, or all share it."""
    group: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Of the rules of a group the first that matches governs; the others only count."""


class BudgetRuleConfig(_RuleConfig, BudgetConfig):
    @model_validator(mode="after")
    def _one_start(self) -> "BudgetRuleConfig":
        if self.start_usd and self.per != "shared":
            raise ValueError("start_usd goes with per: shared, for nobody knows yet whom else it would be for")
        return self


class RateLimitRuleConfig(_RuleConfig, RateLimitConfig):
    pass


Budgets = Annotated[
    tuple[BudgetConfig, ...],
    BeforeValidator(_one_or_many, json_schema_input_type=BudgetConfig | tuple[BudgetConfig, ...]),
]
RateLimits = Annotated[
    tuple[RateLimitConfig, ...],
    BeforeValidator(_one_or_many, json_schema_input_type=RateLimitConfig | tuple[RateLimitConfig, ...]),
]


class ScopeConfig(Model):
    budget: Budgets = ()
    """One, or a list of which all must pass."""
    rate_limits: RateLimits = ()


class CustomerConfig(ScopeConfig):
    pass


class TeamConfig(ScopeConfig):
    customer: Id | None = None


class UserConfig(ScopeConfig):
    team: Id | None = None


class GrantsConfig(Model):
    """What a key may do; what is not granted it cannot even see."""

    tools: Patterns = ()
    """Globs over `server.tool`."""
    servers: Patterns = ()
    """Globs over servers: all tools of theirs."""
    models: Patterns = ()
    """Globs over model aliases and `provider/model`."""
    providers: Patterns = ()
    meta_tools: Patterns | None = None
    """Default: all four for a key that may call any tool."""
    admin: bool = False
    """The admin API."""


class KeySpec(ScopeConfig):
    """A virtual key but for its secret."""

    name: str = Field(default="", max_length=128)
    user: Id | None = None
    team: Id | None = None
    customer: Id | None = None
    grants: GrantsConfig = GrantsConfig()
    limits: Annotated[dict[str, float], AfterValidator(_limits)] = {}
    """Its executions' own limits: the names of the settings in `sandbox`."""
    expires_at: Moment | None = None
    enabled: bool = True
    allowed_ips: tuple[Annotated[str, AfterValidator(_network)], ...] = ()
    users: Patterns | None = None
    """Globs over users that its requests may name in x-mcpgate-user. Default: declared users; for a key that has a
    user, only that one. The own limits of the key's user hold whoever is named."""
    metadata: dict[MetadataName, MetadataValue | tuple[Pattern, ...]] = {}
    """Name → a value that all its requests carry, or a list of globs over what x-mcpgate-metadata may say."""


class KeyConfig(KeySpec):
    secret: Annotated[SecretStr, Field(min_length=8, max_length=512)]

    @model_validator(mode="after")
    def _sendable(self) -> "KeyConfig":
        secret = self.secret.get_secret_value()
        if not secret.isascii() or any(c.isspace() for c in secret):
            raise ValueError("secret must be ASCII without spaces, for it is sent in a header")
        return self


class GovernanceConfig(Model):
    require_key: bool | None = None
    """Default: false on stdio and on loopback, true on other addresses. False: one local caller with all rights."""
    customers: dict[Id, CustomerConfig] = {}
    teams: dict[Id, TeamConfig] = {}
    users: dict[Id, UserConfig] = {}
    keys: dict[KeyId, KeyConfig] = {}
    budgets: tuple[BudgetRuleConfig, ...] = ()
    rate_limits: tuple[RateLimitRuleConfig, ...] = ()
    required_metadata: tuple[MetadataName, ...] = ()
    """Names that every request of a key must carry in x-mcpgate-metadata."""
    max_claimed_values: int = Field(default=32, ge=0, le=100_000)
    """Values that a key may bring up within a day for a metadata name that a rule looks at, where its own `metadata`
    does not say which."""
    report_metadata: tuple[MetadataName, ...] = ()
    """Names that reports can group by for as long as there are reports, and not only until entries are rolled up."""
    execution_usd_per_s: Usd | None = None
    """Price of a second of running code."""
    unpriced: Literal["allow", "deny"] = "allow"
    """What to do with a call that has no known price where a budget applies."""
    hold_wait_s: float = Field(default=1.0, ge=0, le=60)
    """How long a call waits for money that is only held by others."""
    lease_s: float = Field(default=30.0, ge=1, le=3600)
    """What a process had reserved is free again so long after it died."""
    durability: Literal["auto", "always"] = "auto"
    """When an entry of the ledger is on disk. auto: before the answer where a budget or limit applies, else within a
    tenth of a second. always: before every answer."""
    when_store_is_away: Literal["refuse", "allow"] = "refuse"
    """allow: calls go on uncounted against the limits, with a warning metric."""
    retention: PeriodText = "90d"
    """How long single entries of the ledger are kept; sums by the hour stay."""
    log_content: bool = False
    """Store arguments and results of tools beside the ledger."""

    @model_validator(mode="after")
    def _consistent(self) -> "GovernanceConfig":
        for kind, rules in (("budgets", self.budgets), ("rate_limits", self.rate_limits)):
            ids = [rule.id for rule in rules]
            if twice := next((id for id in ids if ids.count(id) > 1), None):
                raise ValueError(f"{kind}: duplicate id {twice!r}")
        secrets = [key.secret.get_secret_value() for key in self.keys.values()]
        if len(set(secrets)) < len(secrets):
            raise ValueError("keys: two keys have the same secret")
        for name, team in self.teams.items():
            if team.customer is not None and team.customer not in self.customers:
                raise ValueError(f"teams.{name}: there is no customer {team.customer!r} in governance.customers")
        for name, user in self.users.items():
            if user.team is not None and user.team not in self.teams:
                raise ValueError(f"users.{name}: there is no team {user.team!r} in governance.teams")
        return self
