"""The `governance` section: permissions and limits. The same models validate the input of the admin API and
`mcpgate keys`, so that a key means the same wherever it was created."""

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
    field_validator,
    model_validator,
)

from mcpgate.config.base import Model
from mcpgate.config.periods import LONGEST_D, Period

SCOPES = ("customer", "team", "user", "key")
DIMENSIONS = (*SCOPES, "provider", "model", "server", "tool")
"""What a rule can look at, in addition to `metadata.NAME`."""

_METADATA_NAME = "[A-Za-z0-9_.-]{1,64}"
METADATA_NAME, METADATA = re.compile(_METADATA_NAME), re.compile(rf"metadata\.{_METADATA_NAME}")
"""A metadata name, and as a dimension."""
LONGEST_METADATA_VALUE = 512


def _period(text: str) -> str:
    period = Period.parse(text)
    if period.count * LONGEST_D[period.unit] > 100 * 366:
        raise ValueError(f"{text!r} is longer than a hundred years; without a period, the limit never resets")
    return str(period)


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is not a valid time zone; expected a name like Europe/Berlin") from error
    return name


def _network(text: str) -> str:
    ipaddress.ip_network(text, strict=False)
    return text


def _dimension(name: str) -> str:
    if name not in DIMENSIONS and not METADATA.fullmatch(name):
        raise ValueError(f"{name!r} is not a valid dimension; expected {', '.join(DIMENSIONS)} or metadata.NAME")
    return name


def _rule_id(id: str) -> str:
    if id.partition(":")[0] in SCOPES and ":" in id:
        raise ValueError(f"ids starting with '{id.partition(':')[0]}:' are reserved; choose another than {id!r}")
    return id


def _key_id(id: str) -> str:
    if id == "local":
        raise ValueError("the key id 'local' is reserved for the caller without a key")
    if id == "signed-in":
        raise ValueError("the key id 'signed-in' is reserved for the users of access tokens")
    return id


def _subject(name: str) -> str:
    if name not in (*SCOPES, "shared") and not METADATA.fullmatch(name):
        raise ValueError(f"{name!r} is not a valid `per`; expected {', '.join(SCOPES)}, metadata.NAME or shared")
    return name


def _limits(given: dict[str, float]) -> dict[str, float]:
    """Only names and values that `sandbox` accepts; integers where it requires them."""
    try:
        checked = LimitsConfig.model_validate(given)
    except ValidationError as error:
        fault = error.errors()[0]
        if fault["type"] == "extra_forbidden":
            raise ValueError(
                f"{fault['loc'][0]} is not a valid limit; expected {', '.join(LimitsConfig.model_fields)}"
            ) from None
        raise ValueError(f"{fault['loc'][0]}: {fault['msg']}") from None
    return {name: getattr(checked, name) for name in given}


def one_or_many(value: Any) -> Any:
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
"""US dollars, to the nano-dollar. Nine million is the most that a counter can hold exactly on every store."""
Pattern = Annotated[str, Field(min_length=1, max_length=512)]
Patterns = Annotated[
    tuple[Pattern, ...], BeforeValidator(one_or_many, json_schema_input_type=Pattern | tuple[Pattern, ...])
]
Id = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\s|/\x00-\x1f][^|/\x00-\x1f]*$")]
KeyId = Annotated[Id, AfterValidator(_key_id)]


def _as_text(value: Any) -> Any:
    """A number or boolean as text, as in a header."""
    return json.dumps(value) if isinstance(value, (bool, int, float)) else value


def printable(value: str) -> str:
    """A metadata value. Raises ValueError."""
    if any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in value):
        raise ValueError("contains control characters")
    return value


MetadataValue = Annotated[
    str, Field(max_length=LONGEST_METADATA_VALUE), BeforeValidator(_as_text), AfterValidator(printable)
]
MetadataName = Annotated[str, Field(pattern=f"^{_METADATA_NAME}$")]
Moment = Annotated[datetime.datetime, BeforeValidator(_moment), AfterValidator(_ordinary)]
Count = Annotated[int, Field(ge=0, le=2**53)]
"""The most that a counter can hold exactly on every store."""
Amount = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]


class LimitsConfig(Model):
    """What one execution may use. A key can have its own values (`limits`)."""

    timeout_s: PositiveSeconds = 60.0
    """Wall seconds of the code itself, its sleeping included. Waiting for tools is counted separately."""
    tool_wait_s: PositiveSeconds = 300.0
    """Seconds of waiting for tools, all waits of an execution together."""
    cpu_s: PositiveSeconds = 10.0
    """CPU seconds. Waiting costs none."""
    memory_mib: int = Field(default=256, ge=96, le=4096)
    """Memory of the interpreter and its values. The bare interpreter takes about 45."""
    max_tool_calls: int = Field(default=500, ge=0, le=1_000_000)
    """Tool calls of one execution."""
    max_parallel_calls: int = Field(default=32, ge=1, le=10_000)
    """Tool calls in flight at once. Further calls wait."""
    max_output_chars: int = Field(default=200_000, ge=1_000, le=100_000_000)
    """Characters of stdout and stderr together."""
    max_result_chars: int = Field(default=16_000_000, ge=1_000, le=500_000_000)
    """JSON of the result, before it is shortened for the model."""
    max_source_chars: int = Field(default=1_000_000, ge=1_000, le=100_000_000)
    """Characters of the code."""
    max_argument_chars: int = Field(default=16_000_000, ge=1_000, le=500_000_000)
    """JSON of one call's arguments."""
    max_reply_chars: int = Field(default=32_000_000, ge=1_000, le=500_000_000)
    """JSON of one call's answer."""
    max_depth: int = Field(default=200, ge=5, le=500)
    """How deeply lists and objects may nest in arguments, answers and results."""


class BudgetOverride(Model):
    """Another limit for a while."""

    limit_usd: Usd
    """US dollars in one period."""
    until: Moment
    """When the usual limit holds again."""


class BudgetConfig(Model):
    """A limit on cost."""

    limit_usd: Usd
    """US dollars in one period."""
    period: PeriodText | None = None
    """Without one, the budget never resets."""
    calendar: bool = False
    """`true`: the period is a calendar day, week, month, quarter or year in `timezone`. `false`: it is the time just
    past, e.g. the last 24 hours."""
    timezone: ZoneText = "UTC"
    """Time zone of a calendar period, e.g. `Europe/Berlin`."""
    soft_limit_usd: Usd | None = None
    """Above this amount calls carry a warning. Nothing is refused."""
    start_usd: Usd = Decimal(0)
    """What counts as spent when the budget is first used."""
    override: BudgetOverride | None = None
    """A higher or lower limit for a while. What was spent stays counted."""

    @model_validator(mode="after")
    def _softer(self) -> "BudgetConfig":
        if self.soft_limit_usd is not None and self.soft_limit_usd >= self.limit_usd:
            raise ValueError("soft_limit_usd must be less than limit_usd, or it would never warn")
        return self


class RateLimitConfig(Model):
    """A limit on speed, in one or more measures."""

    requests: Count | None = None
    """Requests in one window."""
    tokens: Count | None = None
    """Tokens of models, in and out, in one window."""
    input_tokens: Count | None = None
    """Input tokens of models in one window."""
    output_tokens: Count | None = None
    """Output tokens of models in one window."""
    execution_seconds: Amount | None = None
    """Seconds of running code in one window."""
    concurrency: Count | None = None
    """Requests at once. Needs no window."""
    window: PeriodText | None = None
    """The length of the window, e.g. `1m`."""
    fixed: bool = False
    """`true`: windows are aligned with the clock (UTC). `false`: the window slides."""

    @model_validator(mode="after")
    def _measured(self) -> "RateLimitConfig":
        windowed = [name for name in WINDOWED if getattr(self, name) is not None]
        if not windowed and self.concurrency is None:
            raise ValueError(f"a rate limit needs one of {', '.join(WINDOWED)} or concurrency")
        if windowed and self.window is None:
            raise ValueError(f"{windowed[0]} needs a window, e.g. 1m")
        return self


WINDOWED = ("requests", "tokens", "input_tokens", "output_tokens", "execution_seconds")


Condition = dict[Annotated[str, AfterValidator(_dimension)], Patterns]
"""Dimension → globs, of which one must match."""


class _RuleConfig(Model):
    id: Annotated[Id, AfterValidator(_rule_id)]
    """Names the rule in refusals, reports and the admin API."""
    when: Condition = {}
    """Dimension to globs. One glob of each dimension must match. Dimensions: `customer`, `team`, `user`, `key`,
    `provider`, `model`, `server`, `tool`, `metadata.NAME`."""
    per: Annotated[str, AfterValidator(_subject)] = "shared"
    """Who has the limit: each `key`, `user`, `team`, `customer` or `metadata.NAME` separately, or all together
    (`shared`)."""
    group: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Within a group, only the first matching rule limits. The others only count."""


class BudgetRuleConfig(_RuleConfig, BudgetConfig):
    @model_validator(mode="after")
    def _one_start(self) -> "BudgetRuleConfig":
        if self.start_usd and self.per != "shared":
            raise ValueError("start_usd needs per: shared, because the other subjects are not known yet")
        return self


class RateLimitRuleConfig(_RuleConfig, RateLimitConfig):
    pass


Budgets = Annotated[
    tuple[BudgetConfig, ...],
    BeforeValidator(one_or_many, json_schema_input_type=BudgetConfig | tuple[BudgetConfig, ...]),
]
RateLimits = Annotated[
    tuple[RateLimitConfig, ...],
    BeforeValidator(one_or_many, json_schema_input_type=RateLimitConfig | tuple[RateLimitConfig, ...]),
]


class ScopeConfig(Model):
    budget: Budgets = ()
    """Its budget, or a list of budgets. All must pass."""
    rate_limits: RateLimits = ()
    """Its rate limit, or a list of them. All must pass."""


class CustomerConfig(ScopeConfig):
    """A customer: the outermost scope."""


class TeamConfig(ScopeConfig):
    """A team of a customer."""

    customer: Id | None = None
    """The customer it belongs to."""


class UserConfig(ScopeConfig):
    """A person or service in a team."""

    team: Id | None = None
    """The team they belong to."""


class GrantsConfig(Model):
    """What a key may call. It cannot see anything else."""

    tools: Patterns = ()
    """Globs over `server.tool`, e.g. `files.*`."""
    servers: Patterns = ()
    """Globs over servers. Grants all their tools, resources and prompts."""
    models: Patterns = ()
    """Globs over model aliases and `provider/model`."""
    providers: Patterns = ()
    """Globs over providers."""
    meta_tools: Patterns | None = None
    """Globs over the four meta-tools, or `false` for none. Default: all four for a key with any tool."""
    admin: bool = False
    """May use the admin API and the dashboard. A key with a `team` of its own, or else a `customer`, only reads there
    what is that team's or customer's."""

    @field_validator("meta_tools", mode="before")
    @classmethod
    def _all_or_none(cls, value: Any) -> Any:
        return (("*",) if value else ()) if isinstance(value, bool) else value


class KeySpec(ScopeConfig):
    """A virtual key without its secret."""

    name: str = Field(default="", max_length=128)
    """What it is for."""
    user: Id | None = None
    """Whose key it is."""
    team: Id | None = None
    """Its team. Default: the user's."""
    customer: Id | None = None
    """Its customer. Default: the team's."""
    grants: GrantsConfig = GrantsConfig()
    """What it may call."""
    bundle: str | None = None
    """The bundle that it reaches, and nothing else. Default: everything that is granted."""
    limits: Annotated[dict[str, float], AfterValidator(_limits)] = {}
    """Limits of its executions, by the names of the settings in `sandbox`."""
    expires_at: Moment | None = None
    """When it stops working."""
    enabled: bool = True
    """`false` switches it off."""
    allowed_ips: tuple[Annotated[str, AfterValidator(_network)], ...] = ()
    """Addresses and networks it may be used from. Default: any."""
    users: Patterns | None = None
    """Globs over the users that its requests may name in `x-mcpgate-user`. Default: declared users; for a key that has
    a user, only that one. The limits of the key's own user apply whoever is named."""
    metadata: dict[MetadataName, MetadataValue | tuple[Pattern, ...]] = {}
    """Name → a value that all its requests carry, or a list of globs over what `x-mcpgate-metadata` may say."""


class KeyConfig(KeySpec):
    """A virtual key of the configuration file."""

    secret: Annotated[SecretStr, Field(min_length=8, max_length=512)] | None = None
    """What the client sends. Take it from the environment: `"${CI_KEY}"`. Only a key that `server.oauth` names for
    access tokens can do without."""

    @model_validator(mode="after")
    def _sendable(self) -> "KeyConfig":
        secret = self.secret.get_secret_value() if self.secret is not None else ""
        if not secret.isascii() or any(c.isspace() for c in secret):
            raise ValueError("secret must be ASCII without spaces, because it is sent in a header")
        return self


class GovernanceConfig(Model):
    require_key: bool | None = None
    """Default: over HTTP `true` if the file declares `keys` or other machines reach the address; `false` on stdio.
    Without a key, the client is the local caller with all rights."""
    customers: dict[Id, CustomerConfig] = {}
    """Customers by id."""
    teams: dict[Id, TeamConfig] = {}
    """Teams by id."""
    users: dict[Id, UserConfig] = {}
    """Users by id."""
    keys: dict[KeyId, KeyConfig] = {}
    """Virtual keys by id. `mcpgate keys create` and the admin API add more at run time."""
    budgets: tuple[BudgetRuleConfig, ...] = ()
    """Budget rules. Every matching rule must pass."""
    rate_limits: tuple[RateLimitRuleConfig, ...] = ()
    """Rate-limit rules. Every matching rule must pass."""
    required_metadata: tuple[MetadataName, ...] = ()
    """Metadata names that every request with a key must send in `x-mcpgate-metadata`."""
    max_claimed_values: int = Field(default=32, ge=0, le=100_000)
    """Different values that a key may send within a day for a metadata name that a rule looks at, unless its own
    `metadata` says which are allowed."""
    report_metadata: tuple[MetadataName, ...] = ()
    """Metadata names that roll-ups keep, so that reports can group by them after `retention`."""
    execution_usd_per_s: Usd | None = None
    """Price of one second of running code."""
    unpriced: Literal["allow", "deny"] = "allow"
    """`deny`: refuse calls without a known price where a budget applies."""
    hold_wait_s: float = Field(default=1.0, ge=0, le=60)
    """How long a call waits for budget that other calls have reserved."""
    lease_s: float = Field(default=30.0, ge=1, le=3600)
    """How long after the end of a process its reservations are released."""
    durability: Literal["auto", "always"] = "auto"
    """When a ledger entry is on disk. `auto`: before the answer where a limit applies, else within 0.1 s; reservations
    survive the end of a process, but on SQLite not a power failure. `always`: before every answer, and reservations of
    money before the call."""
    when_store_is_away: Literal["refuse", "allow"] = "refuse"
    """What happens while the store is unavailable. `refuse`: calls with a key or under a rule get 503. `allow`: they
    continue uncounted, and a metric counts them."""
    retention: PeriodText = "90d"
    """How long single ledger entries are kept. Hourly roll-ups stay."""

    @model_validator(mode="after")
    def _consistent(self) -> "GovernanceConfig":
        for kind, rules in (("budgets", self.budgets), ("rate_limits", self.rate_limits)):
            ids = [rule.id for rule in rules]
            if twice := next((id for id in ids if ids.count(id) > 1), None):
                raise ValueError(f"{kind}: duplicate id {twice!r}")
        secrets = [key.secret.get_secret_value() for key in self.keys.values() if key.secret is not None]
        if len(set(secrets)) < len(secrets):
            raise ValueError("keys: two keys have the same secret")
        for name, team in self.teams.items():
            if team.customer is not None and team.customer not in self.customers:
                raise ValueError(f"teams.{name}: there is no customer {team.customer!r} in governance.customers")
        for name, user in self.users.items():
            if user.team is not None and user.team not in self.teams:
                raise ValueError(f"users.{name}: there is no team {user.team!r} in governance.teams")
        return self
