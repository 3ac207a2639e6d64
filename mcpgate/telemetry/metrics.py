"""Every metric of the gateway. Served at `/metrics` in Prometheus format; each process has its own."""

from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Saved(Protocol):
    @property
    def definition_tokens(self) -> int: ...
    @property
    def result_tokens(self) -> int: ...
    @property
    def model_tokens(self) -> int: ...
    @property
    def cost(self) -> int: ...


class Settled(Protocol):
    """The part of a ledger entry that metrics read: governance/records.Entry, which is in a higher layer."""

    @property
    def kind(self) -> str: ...
    @property
    def outcome(self) -> str: ...
    @property
    def cost(self) -> int | None:
        """Nano-dollars."""
        ...

    @property
    def cache(self) -> str: ...
    @property
    def saved(self) -> _Saved: ...


class Metrics:
    """The metrics of one gateway."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()

        def counter(name: str, about: str) -> Counter:
            return Counter(f"mcpgate_{name}", about, registry=self._registry)

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

    def settled(self, entry: Settled) -> None:
        """Count one ledger entry."""
        settled = self._settled_by.get(entry.outcome)
        if settled is None:
            settled = self._settled_by[entry.outcome] = self._settled.labels(entry.outcome)
        settled.inc()
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

    def checked(self, is_right: bool) -> None:
        """An answer of the cache was compared with a fresh one, or judged."""
        self._checks.labels("right" if is_right else "wrong").inc()

    def refused(self, code: str) -> None:
        self._refused.labels(code).inc()

    def warned(self) -> None:
        self._warnings.inc()

    def store_failed(self) -> None:
        self._store_failures.inc()

    def admitted_uncounted(self) -> None:
        self._uncounted.inc()

    def shown(self) -> bytes:
        return generate_latest(self._registry)
