"""The `telemetry` section: what the gateway says of itself, and keeps of what goes through it."""

import re
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, field_validator, model_validator

from mcpgate.config.base import Model
from mcpgate.config.governance import Condition, Id, Patterns, PeriodText, Usd
from mcpgate.config.periods import Period


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from None
    return text


class LogContentConfig(Model):
    """Which contents of requests are kept, and how."""

    when: tuple[Condition, ...] = ()
    """Whose: one of these must hold, each a map of dimensions to globs as in `governance.budgets`. Default: all."""
    mask: tuple[Annotated[str, Field(max_length=1000), AfterValidator(_pattern)], ...] = ()
    """Regular expressions; what they match is replaced by `********`, as secrets always are. Needs the extra
    `mask`."""
    max_kib: int = Field(default=64, ge=1, le=1024)
    """The most of one request, and of one answer. Of longer ones the middle is left out."""
    retention: PeriodText = "7d"
    """How long contents are kept."""


def _share(value: object) -> object:
    """`80%` as 0.8."""
    if isinstance(value, str) and value.strip().endswith("%"):
        return value.strip()[:-1]
    return value


def _of_percent(value: float) -> float:
    return value / 100


Percent = Annotated[float, BeforeValidator(_share), Field(gt=0, le=1000), AfterValidator(_of_percent)]
"""A percentage, as `80%` or 80; kept as a share."""


class AlertWhen(Model):
    """What an alert looks at: exactly one of these."""

    budget_used: tuple[Percent, ...] | None = None
    """Shares of a budget, such as [50%, 80%, 100%]: each is told once until the budget is below the lowest again."""
    spend_times_usual: float | None = Field(default=None, gt=1)
    """The cost of this hour, compared with the same hour of the seven days before."""
    error_rate: Percent | None = None
    """Requests that failed, though neither their client nor a limit was the reason."""
    latency_ms: float | None = Field(default=None, gt=0)
    """The 95th percentile."""
    cache_hit_rate_below: Percent | None = None
    """Of requests that a cache might answer."""
    upstream_down: bool = False
    """A server that cannot be reached."""
    sign_in_needed: bool = False
    """A server that somebody must sign in to."""
    target_down: bool = False
    """A target of models that is left alone after failures."""
    store_away: bool = False
    """The store does not answer. Each machine sends its own message."""

    @model_validator(mode="after")
    def _one(self) -> "AlertWhen":
        if len(found := self.names()) != 1:
            raise ValueError(f"needs exactly one of {', '.join(type(self).model_fields)}; it has {len(found)}")
        return self

    def names(self) -> list[str]:
        return [name for name in type(self).model_fields if getattr(self, name) not in (None, False, ())]


class AlertConfig(Model):
    """When somebody is told, and where."""

    id: Id | None = None
    """Names the alert in messages. Default: what it looks at, with its place in the list."""
    when: AlertWhen
    """What it looks at."""
    only: Condition = {}
    """Only requests with these dimensions count, each with globs. For error_rate, latency_ms and
    cache_hit_rate_below; for spend_times_usual with one exact value each."""
    names: Patterns = ("*",)
    """Globs over the ids of budgets (`team:search` for a scope's own), or over servers or targets."""
    window: PeriodText = "5m"
    """The time that error_rate, latency_ms and cache_hit_rate_below look at."""
    min_requests: int = Field(default=20, ge=1)
    """In the window; fewer say nothing."""
    min_usd: Usd = Decimal(1)
    """What an hour must have cost at least for spend_times_usual."""
    for_s: float = Field(default=30.0, ge=0, le=86_400)
    """How long it must be so before it is told, and how long not so before its end is."""
    channels: tuple[Id, ...] = Field(min_length=1)
    """Names of `telemetry.channels`."""

    @property
    def kind(self) -> str:
        return self.when.names()[0]

    @model_validator(mode="after")
    def _exact(self) -> "AlertConfig":
        if self.kind == "spend_times_usual" and any(len(globs) != 1 or set(globs[0]) & set("*?[") for globs in
                                                    self.only.values()):  # fmt: skip
            raise ValueError("only: with spend_times_usual, each dimension needs one exact value")
        if Period.parse(self.window).unit in "MQY":
            raise ValueError("window must be at most weeks")
        return self


class ChannelConfig(Model):
    """A way to tell somebody."""

    type: Literal["webhook", "command", "log"]
    """Where messages go: to a URL, to a program, or to the gateway's own log."""
    url: SecretStr | None = None
    """Of a webhook. Hidden, because it often holds a secret. Redirects are not followed."""
    secret: SecretStr | None = None
    """Signs messages as Standard Webhooks has it: `whsec_…` (base64), or any text."""
    format: Literal["plain", "slack", "teams", "pagerduty"] = "plain"
    """The shape of messages to a webhook."""
    routing_key: SecretStr | None = None
    """For PagerDuty."""
    command: tuple[str, ...] = ()
    """A program and its arguments; no shell. It gets the message as JSON on its standard input."""
    timeout_s: float = Field(default=10.0, gt=0, le=300)
    """For one attempt."""

    @model_validator(mode="after")
    def _complete(self) -> "ChannelConfig":
        if self.type == "webhook":
            url = "" if self.url is None else self.url.get_secret_value()
            if self.format == "pagerduty":
                if self.routing_key is None:
                    raise ValueError("format pagerduty needs routing_key")
            elif not url:
                raise ValueError("a webhook needs url")
            if url and not re.fullmatch(r"https?://[^\s/?#]+([/?][^\s#]*)?", url):
                raise ValueError("url must begin with https:// or http://")
        if (self.type == "command") != bool(self.command):
            raise ValueError("`command` is for channels of type command, which need it")
        return self


class TelemetryConfig(Model):
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Records of this level and above go to stderr."""
    log_content: bool | LogContentConfig = False
    """Keep code, arguments, results, prompts and answers with the request log. `true`: of all requests."""
    otlp_endpoint: str | None = None
    """Export traces to this OpenTelemetry collector, e.g. `http://127.0.0.1:4318`. Needs the extra `otel`. Default:
    `$OTEL_EXPORTER_OTLP_ENDPOINT`; without either, there are no traces."""
    otlp_protocol: Literal["http/protobuf", "grpc"] | None = None
    """Default: `$OTEL_EXPORTER_OTLP_PROTOCOL`, or `http/protobuf`."""
    semconv: Literal["1.41", "latest", "both"] = "both"
    """Where the names of attributes for models changed when they moved out of OpenTelemetry's own conventions, after
    version 1.41: the old ones, the new ones, or both."""

    channels: dict[Id, ChannelConfig] = {}
    """Ways to tell somebody, by name."""
    alerts: tuple[AlertConfig, ...] = ()
    """When somebody is told, and where."""

    @field_validator("otlp_endpoint")
    @classmethod
    def _collector(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", url):
            raise ValueError(f"{url!r} must be an address such as http://127.0.0.1:4318")
        return None if url is None else url.rstrip("/")

    @field_validator("semconv", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return str(value) if isinstance(value, float) else value  # what YAML makes of 1.41

    @model_validator(mode="after")
    def _known_channels(self) -> "TelemetryConfig":
        for number, alert in enumerate(self.alerts):
            if unknown := [name for name in alert.channels if name not in self.channels]:
                known = ", ".join(self.channels) or "none"
                raise ValueError(f"alerts.{number}.channels: there is no channel {unknown[0]!r}; there are: {known}")
        ids = list(self.named_alerts())
        if len(ids) < len(self.alerts):
            raise ValueError("alerts: two have the same id")
        return self

    def named_alerts(self) -> dict[str, AlertConfig]:
        """All alerts by their ids."""
        return {one.id or f"{one.kind}-{number}": one for number, one in enumerate(self.alerts, 1)}
