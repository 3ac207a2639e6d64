"""Every metric of the gateway. Served at `/metrics` in Prometheus format; each process has its own.

What labels say is bounded: by the configuration, or by a number, beyond which it is `other`. Nothing that a caller
chooses is one, such as a key, a user or metadata. Gauges are measured when they are asked for: see
api/admin/gauges.py."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from mcpgate.config.governance import SCOPES
from mcpgate.config.llm import LlmConfig
from mcpgate.config.settings import Config

_NAMES = re.compile(rb"^\w+\{(?:.*,)?(?:server|tool|provider|model|target|limit|budget)=")
"""A sample whose labels have a name from the configuration or from a server."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OTHER = "other"
_MODELS = ("chat", "embedding")
_UNREACHED = ("upstream_error", "upstream_timeout")
_MOST_LEARNED = 100
"""Models that no alias leads to, which were asked for by `provider/model` and have answered."""
_MOST_TOOLS, _MOST_RULES = 500, 200
_MOST_OPEN = 10_000
"""Requests whose attempts are known while they are not over."""
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_OWN_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)


class _Saved(Protocol):
    @property
    def definition_tokens(self) -> int: ...
    @property
    def result_tokens(self) -> int: ...
    @property
    def model_tokens(self) -> int: ...
    @property
    def cost(self) -> int: ...


class _Usage(Protocol):
    @property
    def calls(self) -> int: ...
    @property
    def input_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def cache_read_tokens(self) -> int: ...
    @property
    def cache_write_tokens(self) -> int: ...


class Settled(Protocol):
    """The part of a ledger entry that metrics read: governance/records.Entry, which is in a higher layer."""

    @property
    def id(self) -> str: ...
    @property
    def parent_id(self) -> str | None: ...
    @property
    def kind(self) -> str: ...
    @property
    def server(self) -> str | None: ...
    @property
    def tool(self) -> str | None: ...
    @property
    def provider(self) -> str | None: ...
    @property
    def model(self) -> str | None: ...
    @property
    def outcome(self) -> str: ...
    @property
    def cost(self) -> int | None:
        """Nano-dollars."""
        ...

    @property
    def usage(self) -> _Usage: ...
    @property
    def latency_ms(self) -> float: ...
    @property
    def timings(self) -> Mapping[str, float]:
        """Milliseconds."""
        ...

    @property
    def cache(self) -> str: ...
    @property
    def saved(self) -> _Saved: ...


class _OfRequests(NamedTuple):
    """The series of requests of one face, kind and outcome."""

    number: Counter
    total: Histogram
    own: Histogram


class _OfModel(NamedTuple):
    """The series of one model of one provider."""

    upstream: Histogram
    first_token: Histogram
    input: Counter
    output: Counter
    cache_read: Counter
    cache_write: Counter
    cost: Counter


class Budget(NamedTuple):
    """How far a declared budget is used up."""

    id: str
    used: float
    """The share, of the subject with the largest."""
    left_usd: float
    """Of the same subject."""


class Metrics:
    """The metrics of one gateway."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"mcpgate_{name}", about, labels, registry=self._registry)

        def histogram(name: str, about: str, *labels: str, own: bool = False) -> Histogram:
            buckets = _OWN_SECONDS if own else _SECONDS
            return Histogram(f"mcpgate_{name}", about, labels, registry=self._registry, buckets=buckets)

        def gauge(name: str, about: str, *labels: str) -> Gauge:
            return Gauge(f"mcpgate_{name}", about, labels, registry=self._registry)

        self._meta_tool_calls = counter("meta_tool_calls", "Calls of the meta-tools; each is one request of a model")
        self._executions = counter("executions", "Executions of code")
        self._failed_executions = counter("failed_executions", "Executions that ended with an error")
        self._tool_calls = counter("tool_calls", "Upstream tools called, by code or directly")
        self._settled = Counter("mcpgate_settled", "Requests settled, by outcome", ["outcome"], registry=self._registry)
        self._settled_by: dict[str, Counter] = {}
        self._cost = counter("cost_usd", "US dollars settled, of calls with a known price")
        self._unpriced = counter("unpriced", "Requests settled without a known price")
        self._refused = Counter(
            "mcpgate_refused", "Requests refused before anything was spent, by code", ["code"], registry=self._registry
        )
        self._warnings = counter("soft_limit_warnings", "Requests admitted above a soft limit")
        self._store_failures = counter("store_failures", "Times that the store became unavailable")
        self._uncounted = counter("uncounted", "Requests admitted while the store was unavailable")
        self._cached = Counter(
            "mcpgate_cache_requests",
            "Requests that the cache was asked for, by how it answered: exact, semantic, miss",
            ["how"],
            registry=self._registry,
        )
        self._cache_saved_usd = counter("cache_saved_usd", "US dollars that answers from the cache would have cost")
        self._cache_saved_tokens = counter("cache_saved_tokens", "Tokens of models that the cache answered in place of")
        self._checks = Counter(
            "mcpgate_cache_checks",
            "Answers of the cache that were compared with a fresh one, or judged by people: right, wrong",
            ["result"],
            registry=self._registry,
        )
        # Small answers can cost more than they save, and a counter cannot fall.
        saved = Gauge(
            "mcpgate_saved_tokens",
            "Estimate of the tokens that Code Mode saved since the start, compared with classic MCP",
            ["of"],
            registry=self._registry,
        )
        self._saved_definitions, self._saved_results = saved.labels("definition"), saved.labels("result")

        self._requests = counter(
            "requests",
            "Requests that are over: of agents (mcp), of running code (code), of clients for models (llm)",
            *("face", "kind", "outcome"),
        )
        self._request_seconds = histogram("request_seconds", "Time from admission to the end", "face", "kind")
        self._own_seconds = histogram(
            "own_seconds",
            "Time that the gateway itself took: without servers, providers and running code",
            *("face", "kind"),
            own=True,
        )
        self._limits_hit = counter(
            "limits_hit",
            "Requests refused by a limit, by its id; those of a key, user, team or customer by that",
            "limit",
        )
        self._upstream_calls = counter(
            "upstream_calls", "Calls of servers, those included that did not reach one", "server", "tool", "outcome"
        )
        self._upstream_seconds = histogram("upstream_seconds", "Time that servers took", "server")
        self._sandbox_seconds = histogram("sandbox_seconds", "Time of running code, without its tools")
        self._attempts = counter("llm_attempts", "Requests sent to providers", "provider", "model", "outcome")
        self._tokens = counter(
            "llm_tokens",
            "Tokens of models: input (with those of the provider's cache), output, cache_read, cache_write",
            *("provider", "model", "of"),
        )
        self._llm_cost = counter("llm_cost_usd", "US dollars, of answers with a known price", "provider", "model")
        self._llm_seconds = histogram("llm_seconds", "Time that providers took", "provider", "model")
        self._first_token_seconds = histogram(
            "llm_first_token_seconds", "Time until the first event of a streamed answer", "provider", "model"
        )
        self._spans = counter("spans", "Spans for the collector of traces: exported, lost", "result")

        self._upstream_states = gauge("upstream_state", "1 for the state that a server is in", "server", "state")
        self._upstream_tools = gauge("upstream_tools", "Tools that a server has", "server")
        self._sandbox = gauge("sandbox_executions", "Executions now: running, waiting", "state")
        self._warm = gauge("sandbox_warm", "Interpreters that are ready for the next execution")
        self._target_rests = gauge(
            "llm_target_rests", "1 while a target of an alias is left alone after failures, else 0", "target"
        )
        self._under_way = gauge("llm_under_way", "Requests that a provider is answering", "provider")
        self._budget_used = gauge(
            "budget_used_ratio",
            "Share of a declared budget that is spent or reserved; of the fullest subject",
            "budget",
        )
        self._budget_left = gauge(
            "budget_left_usd", "US dollars left in a declared budget; of the same subject", "budget"
        )

        self._of_requests: dict[tuple[str, str, str], _OfRequests] = {}
        self._of_models: dict[tuple[str, str], _OfModel] = {}
        self._of_servers: dict[str, Histogram] = {}
        self._of_calls: dict[tuple[str, str, str], Counter] = {}
        self._of_attempts: dict[tuple[str, str, str], Counter] = {}
        self._tools: set[tuple[str, str]] = set()
        self._rules: set[str] = set()
        self._configured: frozenset[tuple[str, str]] = frozenset()
        self._learned: set[tuple[str, str]] = set()
        self._upstream_ms: dict[str, float] = {}
        """Of requests for models that are not over: what their attempts have waited for."""

    def configure(self, config: Config) -> None:
        """Take the names that a configuration has."""
        self._configured = frozenset(_targets_of(config.llm))

    def settled(self, entry: Settled) -> None:
        """Count one ledger entry."""
        settled = self._settled_by.get(entry.outcome)
        if settled is None:
            settled = self._settled_by[entry.outcome] = self._settled.labels(entry.outcome)
        settled.inc()
        if entry.parent_id is not None and entry.kind in _MODELS:
            self._attempted(entry)
        else:
            self._requested(entry)
        if entry.kind in ("meta", "execution"):
            self._meta_tool_calls.inc()
            self._saved_definitions.inc(entry.saved.definition_tokens)
            self._saved_results.inc(entry.saved.result_tokens)
        if entry.kind == "execution":
            self._executions.inc()
            if entry.outcome != "ok":
                self._failed_executions.inc()
        elif entry.kind == "tool":
            self._tool_calls.inc()
        if entry.cache:
            self._cached.labels(entry.cache).inc()
            self._cache_saved_usd.inc(max(0, entry.saved.cost) / 1e9)
            self._cache_saved_tokens.inc(entry.saved.model_tokens)
        if entry.cost is None:
            self._unpriced.inc()
        elif entry.cost:
            self._cost.inc(entry.cost / 1e9)

    def _requested(self, entry: Settled) -> None:
        kind, timings = entry.kind, entry.timings
        if kind in _MODELS:
            face, elsewhere_ms = "llm", self._upstream_ms.pop(entry.id, 0.0)
        else:
            face = "mcp" if entry.parent_id is None else "code"
            elsewhere_ms = timings.get("upstream", 0.0) + timings.get("tools", 0.0) + timings.get("sandbox", 0.0)
        name = face, kind, entry.outcome
        series = self._of_requests.get(name)
        if series is None:
            series = self._of_requests[name] = _OfRequests(
                self._requests.labels(*name),
                self._request_seconds.labels(face, kind),
                self._own_seconds.labels(face, kind),
            )
        series.number.inc()
        series.total.observe(entry.latency_ms / 1000)
        series.own.observe(max(0.0, entry.latency_ms - elsewhere_ms) / 1000)
        if entry.server is not None and (entry.usage.calls or entry.outcome in _UNREACHED):
            self._called(entry, entry.server)
        if (ran_ms := timings.get("sandbox")) is not None:
            self._sandbox_seconds.observe(ran_ms / 1000)

    def _called(self, entry: Settled, server: str) -> None:
        name = server, self._tool_of(server, entry.tool or ""), entry.outcome
        calls = self._of_calls.get(name)
        if calls is None:
            calls = self._of_calls[name] = self._upstream_calls.labels(*name)
        calls.inc()
        if not entry.usage.calls:
            return
        seconds = self._of_servers.get(server)
        if seconds is None:
            seconds = self._of_servers[server] = self._upstream_seconds.labels(server)
        seconds.observe(entry.timings.get("upstream", 0.0) / 1000)

    def _attempted(self, entry: Settled) -> None:
        upstream_ms = entry.timings.get("upstream", entry.latency_ms)
        if entry.parent_id is not None:
            if len(self._upstream_ms) >= _MOST_OPEN:
                self._upstream_ms.clear()
            self._upstream_ms[entry.parent_id] = self._upstream_ms.get(entry.parent_id, 0.0) + upstream_ms
        name = self._model_of(entry)
        whole = *name, entry.outcome
        attempts = self._of_attempts.get(whole)
        if attempts is None:
            attempts = self._of_attempts[whole] = self._attempts.labels(*whole)
        attempts.inc()
        series = self._of_models.get(name)
        if series is None:
            series = self._of_models[name] = self._series_of(name)
        series.upstream.observe(upstream_ms / 1000)
        if (first_ms := entry.timings.get("first_token")) is not None:
            series.first_token.observe(first_ms / 1000)
        usage = entry.usage
        if usage.input_tokens:
            series.input.inc(usage.input_tokens)
        if usage.output_tokens:
            series.output.inc(usage.output_tokens)
        if usage.cache_read_tokens:
            series.cache_read.inc(usage.cache_read_tokens)
        if usage.cache_write_tokens:
            series.cache_write.inc(usage.cache_write_tokens)
        if entry.cost:
            series.cost.inc(entry.cost / 1e9)

    def _series_of(self, name: tuple[str, str]) -> _OfModel:
        return _OfModel(
            self._llm_seconds.labels(*name),
            self._first_token_seconds.labels(*name),
            self._tokens.labels(*name, "input"),
            self._tokens.labels(*name, "output"),
            self._tokens.labels(*name, "cache_read"),
            self._tokens.labels(*name, "cache_write"),
            self._llm_cost.labels(*name),
        )

    def _model_of(self, entry: Settled) -> tuple[str, str]:
        name = entry.provider or "", entry.model or ""
        if name in self._configured or name in self._learned:
            return name
        # A client may name anything; what has answered is there.
        if entry.outcome == "ok" and len(self._learned) < _MOST_LEARNED:
            self._learned.add(name)
            return name
        return name[0], OTHER

    def _tool_of(self, server: str, tool: str) -> str:
        name = server, tool
        if name in self._tools:
            return tool
        if len(self._tools) >= _MOST_TOOLS:
            return OTHER
        self._tools.add(name)
        return tool

    def checked(self, is_right: bool) -> None:
        """An answer of the cache was compared with a fresh one, or judged."""
        self._checks.labels("right" if is_right else "wrong").inc()

    def refused(self, code: str, limit: str | None = None) -> None:
        """A request was refused; `limit`: by which budget or rate limit."""
        self._refused.labels(code).inc()
        if limit is None:
            return
        scope, separator, _ = limit.partition(":")
        name = scope if separator and scope in SCOPES else limit
        if name not in self._rules:
            if len(self._rules) < _MOST_RULES:
                self._rules.add(name)
            else:
                name = OTHER
        self._limits_hit.labels(name).inc()

    def exported(self, number: int, arrived: bool) -> None:
        """Spans were sent to the collector, or lost. From any thread."""
        self._spans.labels("exported" if arrived else "lost").inc(number)

    def warned(self) -> None:
        self._warnings.inc()

    def store_failed(self) -> None:
        self._store_failures.inc()

    def admitted_uncounted(self) -> None:
        self._uncounted.inc()

    # --- what is measured when it is asked for

    def upstreams(self, found: Iterable[tuple[str, str, int]]) -> None:
        """Servers, their states and numbers of tools."""
        self._upstream_states.clear()
        self._upstream_tools.clear()
        for server, state, tools in found:
            self._upstream_states.labels(server, state).set(1)
            self._upstream_tools.labels(server).set(tools)

    def sandbox(self, running: int, waiting: int, warm: int) -> None:
        self._sandbox.labels("running").set(running)
        self._sandbox.labels("waiting").set(waiting)
        self._warm.set(warm)

    def models(self, rests: Mapping[str, bool], under_way: Mapping[str, int]) -> None:
        """Targets of aliases, and whether they rest; providers, and how many requests they are answering."""
        self._target_rests.clear()
        self._under_way.clear()
        for target, does_rest in rests.items():
            self._target_rests.labels(target).set(does_rest)
        for provider, number in under_way.items():
            self._under_way.labels(provider).set(number)

    def budgets(self, found: Iterable[Budget]) -> None:
        self._budget_used.clear()
        self._budget_left.clear()
        for budget in found:
            self._budget_used.labels(budget.id).set(budget.used)
            self._budget_left.labels(budget.id).set(budget.left_usd)

    def shown(self, with_names: bool = True) -> bytes:
        """In Prometheus' format. Without names of servers, tools, models, budgets: for whoever may only know how the
        gateway fares."""
        text = generate_latest(self._registry)
        if with_names:
            return text
        return b"".join(line for line in text.splitlines(keepends=True) if not _NAMES.search(line))


def _targets_of(config: LlmConfig) -> Iterable[tuple[str, str]]:
    """The provider and model of every target of every alias."""
    for model in config.models.values():
        for target in (*model.targets, *(one for route in model.routes for one in route.targets)):
            provider, _, name = target.target.partition("/")
            if name:
                yield provider, name
