"""The `llm` section: providers of models, the names that clients use for them, and prices."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from mcpgate.config import conditions
from mcpgate.config.base import Model
from mcpgate.config.governance import METADATA, SCOPES, Id, Moment, Pattern, PositiveSeconds, Usd, one_or_many

PRESETS: dict[str, str] = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com/v1",
    "gemini": "https://generativelanguage.googleapis.com/v1beta",
    "deepseek": "https://api.deepseek.com/v1",
    "fireworks": "https://api.fireworks.ai/inference/v1",
    "groq": "https://api.groq.com/openai/v1",
    "mistral": "https://api.mistral.ai/v1",
    "ollama": "http://127.0.0.1:11434/v1",
    "openrouter": "https://openrouter.ai/api/v1",
    "together": "https://api.together.xyz/v1",
    "vllm": "http://127.0.0.1:8000/v1",
    "xai": "https://api.x.ai/v1",
}
"""`type` of a provider → its base_url. All but `anthropic` and `gemini` speak OpenAI's formats. That of `bedrock`
depends on its region."""
STATUSES = {"5xx": range(500, 600), "4xx": range(400, 500)}
FALLBACK_ON = ("408", "409", "429", "5xx", "timeout", "connection")
"""What the next target is taken for by default."""
QUALITIES = ("stream", "tools", "images")
"""What a route can look at besides who is asking: `true` or `false`."""
Strategy = Literal["priority", "weight", "latency", "cost"]


def _as_texts(value: Any) -> Any:
    """Numbers and truth values as text, as YAML has them."""
    return tuple(
        str(one).lower() if isinstance(one, bool) else str(one) if isinstance(one, int) else one
        for one in one_or_many(value)
    )


def _condition(name: str) -> str:
    known = (*SCOPES, "model", *QUALITIES, *conditions.NAMES)
    if name not in known and not METADATA.fullmatch(name):
        raise ValueError(f"{name!r} is not a valid condition; expected {', '.join(known)} or metadata.NAME")
    return name


def _reason(text: str) -> str:
    if text in ("timeout", "connection", "budget", *STATUSES) or re.fullmatch("[45][0-9][0-9]", text):
        return text
    raise ValueError(f"{text!r} must be a status such as 429, 4xx, 5xx, timeout, connection or budget")


Patterns = Annotated[tuple[Pattern, ...], BeforeValidator(_as_texts)]
Reasons = Annotated[tuple[Annotated[str, AfterValidator(_reason)], ...], BeforeValidator(_as_texts)]
Weight = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]


class ProviderKeyConfig(Model):
    """One of several keys of a provider."""

    api_key: SecretStr
    """Take it from the environment: `"${OPENAI_KEY_2}"`."""
    weight: Weight = 1.0
    """How often it is used, compared with the other keys."""
    models: Patterns = ("*",)
    """Globs over the provider's model names that it may be used for."""


class EchoConfig(Model):
    """What the provider `echo` does with each request."""

    delay_ms: float = Field(default=0, ge=0, le=600_000)
    """Before the answer, and in a stream before each word."""
    fail: int | None = Field(default=None, ge=400, le=599)
    """The status of an error that it answers with instead."""


class AwsConfig(Model):
    """Where models at Amazon Bedrock run, and who asks them. With neither a profile nor keys, credentials come from
    where AWS's own programs look for them: the environment, files, the machine's role."""

    region: str = Field(pattern=r"^[a-z]{2,}(-[a-z]+)+-[0-9]+$")
    """E.g. `eu-central-1`."""
    profile: str | None = None
    """Of the files that AWS's own programs read."""
    access_key_id: SecretStr | None = None
    """Take it from the environment: `"${AWS_ACCESS_KEY_ID}"`."""
    secret_access_key: SecretStr | None = None
    """That belongs to it."""
    session_token: SecretStr | None = None
    """That belongs to both, if they are temporary."""

    @model_validator(mode="after")
    def _one_way(self) -> "AwsConfig":
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key belong together")
        if self.access_key_id is None and self.session_token is not None:
            raise ValueError("session_token needs access_key_id and secret_access_key")
        if self.access_key_id is not None and self.profile is not None:
            raise ValueError("either profile or access_key_id, not both")
        return self

    @property
    def address(self) -> str:
        return f"https://bedrock-runtime.{self.region}.amazonaws.com" + (".cn" if self.region.startswith("cn-") else "")


class VertexConfig(Model):
    """Where Gemini runs on Google's Vertex AI, and who asks it."""

    project: str = Field(pattern=r"^[a-z0-9][a-z0-9.:-]{0,62}$")
    """The id of the project at Google Cloud."""
    location: str = Field(default="global", pattern=r"^[a-z][a-z0-9-]{0,40}$")
    """E.g. `europe-west4`, or `eu`."""
    credentials_file: Path | None = None
    """The key of a service account. Default: where Google's own programs look for credentials."""

    @property
    def address(self) -> str:
        if self.location == "global":
            return "https://aiplatform.googleapis.com"
        if self.location in ("us", "eu"):
            return f"https://aiplatform.{self.location}.rep.googleapis.com"
        return f"https://{self.location}-aiplatform.googleapis.com"


class ProviderConfig(Model):
    """Something that serves models."""

    type: str
    """`openai` and everything that speaks its formats (`deepseek`, `fireworks`, `groq`, `mistral`, `ollama`,
    `openrouter`, `together`, `vllm`, `xai`, or any other with `base_url`), `anthropic`, `gemini`, `bedrock`, or `echo`,
    which needs no key and repeats what it is sent."""
    base_url: str | None = None
    """The address that the paths of the format are added to, e.g. `http://127.0.0.1:8000/v1`. Default: that of the
    `type`."""
    api_key: SecretStr | None = None
    """Take it from the environment: `"${OPENAI_API_KEY}"`. For `bedrock`, an API key of Bedrock's."""
    aws: AwsConfig | None = None
    """For type `bedrock`, which needs it."""
    vertex: VertexConfig | None = None
    """For type `gemini`: the models are asked on Vertex AI, with access tokens of Google instead of a key."""
    keys: tuple[ProviderKeyConfig, ...] = ()
    """Several keys instead of one. A key that is refused or exhausted rests, and another is used."""
    headers: dict[str, str] = Field(default={}, repr=False)
    """Further headers of every request."""
    connect_timeout_s: PositiveSeconds = 10.0
    """How long connecting may take."""
    timeout_s: PositiveSeconds = 600.0
    """How long the provider may be silent, before the answer and within it, and how long an answer that is no stream
    may take once it has begun."""
    max_concurrency: int = Field(default=1000, ge=1, le=100_000)
    """Requests to it at once, from each process. Beyond that, the next target is taken. Over all processes together, a
    rate limit counts: `governance.rate_limits` with `concurrency` and `when: {provider: NAME}`."""
    echo: EchoConfig = EchoConfig()
    """For type `echo`."""

    @field_validator("type")
    @classmethod
    def _known(cls, type: str) -> str:
        if type not in (*PRESETS, "bedrock", "echo"):
            known = ", ".join((*PRESETS, "bedrock", "echo"))
            raise ValueError(f"{type!r} must be one of {known}; others: openai with base_url")
        return type

    @field_validator("base_url")
    @classmethod
    def _address(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", url):
            raise ValueError(f"{url!r} must be an address such as http://127.0.0.1:8000/v1")
        return None if url is None else url.rstrip("/")

    @model_validator(mode="after")
    def _one_way(self) -> "ProviderConfig":
        if self.api_key is not None and self.keys:
            raise ValueError("either api_key or keys, not both")
        has_key = self.api_key is not None or bool(self.keys)
        if (self.aws is not None) != (self.type == "bedrock"):
            raise ValueError("the type bedrock needs aws.region" if self.aws is None else "aws needs the type bedrock")
        if has_key and self.aws is not None and (self.aws.access_key_id or self.aws.profile):
            raise ValueError("either api_key or credentials in aws, not both")
        if self.vertex is not None and (self.type != "gemini" or has_key):
            raise ValueError("vertex needs the type gemini, and no api_key: its access tokens are fetched")
        return self

    @property
    def address(self) -> str:
        own = self.aws or self.vertex
        return self.base_url or (own.address if own is not None else PRESETS.get(self.type, ""))


class TargetConfig(Model):
    """One model of one provider, or another alias."""

    target: str = Field(min_length=1, max_length=512)
    """`provider/model`, or an alias of `models`."""
    weight: Weight = 1.0
    """Its share, for strategy `weight`."""
    retries: int = Field(default=0, ge=0, le=10)
    """How often the same target is tried again, with a pause or after `Retry-After`."""
    fallback_on: Reasons = FALLBACK_ON
    """What the next target is taken for: statuses, `4xx`, `5xx`, `timeout`, `connection`, `budget`."""
    timeout_s: PositiveSeconds | None = None
    """How long it may take to begin its answer. Default: the provider's."""
    context_tokens: int | None = Field(default=None, ge=1)
    """Requests that may need more tokens, the answer included, go to other targets, if others take them."""
    lacks: tuple[Literal["stream", "tools", "images"], ...] = ()
    """Requests that need one of these go to other targets, if others take them."""


class RouteConfig(Model):
    """Targets for some of an alias's requests."""

    when: dict[Annotated[str, AfterValidator(_condition)], Patterns] = {}
    """Condition to globs; all conditions must hold: `key`, `user`, `team`, `customer`, `metadata.NAME`, `model` (as the
    client named it); `stream`, `tools`, `images`, which are `true` or `false`; `input_tokens`, such as `>8000`;
    `budget_used`, the share of the fullest budget that applies, such as `>80%`; `time`, such as
    `22:00-06:00 Europe/Berlin`, without a zone in UTC. None: every request that is left."""
    strategy: Strategy = "priority"
    """As that of a model."""
    targets: tuple[TargetConfig, ...] = Field(min_length=1)
    """The targets of such requests."""

    @field_validator("when")
    @classmethod
    def _readable(cls, when: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for name, texts in when.items():
            for text in texts:
                conditions.parse(name, text)
        return when


class ModelConfig(Model):
    """A name that clients use for a model."""

    strategy: Strategy = "priority"
    """`priority`: in order, the next one if one fails. `weight`: by chance, always the same for one session.
    `latency`: the one that was quickest lately. `cost`: the cheapest that takes the request."""
    targets: tuple[TargetConfig, ...] = ()
    """Models of providers, or other aliases, best first."""
    routes: tuple[RouteConfig, ...] = ()
    """Instead of `targets`: the first route whose conditions hold."""
    on_budget: str | None = None
    """The alias that is taken when a budget refuses this one."""
    prompt_cache: bool = False
    """Ask the provider to keep the beginning of requests, where the client does not: `cache_control` for Anthropic,
    `prompt_cache_key` for OpenAI, cache points for Claude and Nova at Bedrock. Others cache by themselves."""
    clamp: bool = False
    """Instead of refusing a request that a budget does not hold, lower the most that its answer may have to what the
    budget holds. Before `on_budget`."""

    @model_validator(mode="after")
    def _either(self) -> "ModelConfig":
        if bool(self.targets) == bool(self.routes):
            raise ValueError("a model needs either targets or routes")
        return self


class ModelPriceConfig(Model):
    """US dollars for a million tokens."""

    input_usd_per_mtok: Usd | None = None
    """Of what the model reads. Default: the price list's, and so for all others."""
    output_usd_per_mtok: Usd = Decimal(0)
    """Of what it writes, reasoning included."""
    cache_read_usd_per_mtok: Usd | None = None
    """Of the part of the input that the provider had in its cache. Default: as the input."""
    cache_write_usd_per_mtok: Usd | None = None
    """Of the part of the input that it puts into its cache. Default: as the input."""
    multiplier: Annotated[Decimal, Field(ge=0, le=1000, decimal_places=6)] = Decimal(1)
    """Of all of these, such as 0.8 for a discount of 20 %."""
    since: Moment | None = None
    """When the price begins. Of several, the latest that has begun counts."""

    @model_validator(mode="after")
    def _is_one(self) -> "ModelPriceConfig":
        own = self.model_fields_set - {"multiplier", "since"}
        if self.input_usd_per_mtok is None and (own or "multiplier" not in self.model_fields_set):
            raise ValueError("a price needs input_usd_per_mtok, or a multiplier of the price list alone")
        return self


class GuardrailConfig(Model):
    """Code that looks at what is asked of models and what they answer."""

    use: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """`package.module:Class`, e.g. `mcpgate.llm.patterns:Patterns`, which finds secrets and personal data."""
    settings: dict[str, Any] = {}
    """What the class is made with."""


class BatchesConfig(Model):
    """Batches, which the gateway works through itself."""

    max_concurrency: int = Field(default=8, ge=1, le=1000)
    """Lines under way at once, in each process. As many fewer as other requests are under way, but at least one."""
    max_lines: int = Field(default=50_000, ge=1, le=100_000)
    """Of one batch."""
    max_open: int = Field(default=20, ge=1, le=1000)
    """Batches of one key that have not ended."""
    max_stored_mib: int = Field(default=1024, ge=1, le=1_048_576)
    """Input files and results of one key. A batch whose results exceed it ends."""


class LlmConfig(Model):
    """The second face: models of providers under names of your own."""

    providers: dict[Id, ProviderConfig] = {}
    """Providers by name."""
    models: dict[Id, ModelConfig] = {}
    """Aliases. `provider/model` is always accepted too."""
    prices: dict[str, Annotated[tuple[ModelPriceConfig, ...], BeforeValidator(one_or_many)]] = {}
    """`provider/model`, or an alias → its price, instead of the one of the price list; several with `since`. An alias
    comes before the model that answers for it. Globs hold where no name does; the first one counts."""
    guardrails: tuple[GuardrailConfig, ...] = ()
    """Applied in this order to every request and its answer."""
    batches: BatchesConfig = BatchesConfig()
    """Batches that the gateway works through itself."""
    unknown_model: str = "refuse"
    """`refuse`, or the alias that is taken for models that nobody configured: agents ask for small ones by
    themselves."""

    @model_validator(mode="after")
    def _consistent(self) -> "LlmConfig":
        for name, model in self.models.items():
            where = f"models.{name}"
            for target in (*model.targets, *(t for route in model.routes for t in route.targets)):
                self._check(target.target, f"{where}: the target")
            if model.on_budget is not None and model.on_budget not in self.models:
                raise ValueError(f"{where}.on_budget: there is no alias {model.on_budget!r} in llm.models")
        if self.unknown_model != "refuse" and self.unknown_model not in self.models:
            raise ValueError(f"unknown_model: there is no alias {self.unknown_model!r} in llm.models")
        for name in self.models:
            self._check_circle(name, ())
        return self

    def _check(self, target: str, what: str) -> None:
        provider = target.partition("/")[0]
        if target not in self.models and provider not in self.providers:
            raise ValueError(f"{what} {target!r} names neither a provider of llm.providers nor an alias of llm.models")

    def _check_circle(self, name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ValueError(f"models.{name}: its targets lead back to it ({' → '.join((*above, name))})")
        model = self.models[name]
        for target in (*model.targets, *(t for route in model.routes for t in route.targets)):
            if target.target in self.models:
                self._check_circle(target.target, (*above, name))
