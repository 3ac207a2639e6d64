"""The `telemetry` section: what the gateway says of itself, and keeps of what goes through it."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from mcpgate.config.base import Model
from mcpgate.config.governance import Condition, PeriodText


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
