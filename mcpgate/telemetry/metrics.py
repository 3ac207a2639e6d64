"""Every metric of the gateway, once. Shown at `/metrics` in Prometheus' format; each process has its own."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The metrics of one gateway."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()

        def counter(name: str, about: str) -> Counter:
            return Counter(f"mcpgate_{name}", about, registry=self._registry)

        self._counters = {
            "requests": counter("meta_tool_calls", "Calls of the meta-tools, each one request of a model"),
            "executions": counter("executions", "Executions of code"),
            "failed_executions": counter("failed_executions", "Executions that ended with an error"),
            "tool_calls": counter("tool_calls", "Upstream tools called by code"),
        }
        # Small answers can cost more than they save, and a counter cannot fall.
        saved = Gauge(
            "mcpgate_saved_tokens",
            "Tokens that Code Mode saved against classic MCP since the start, estimated: see `mcpgate usage`",
            ["of"],
            registry=self._registry,
        )
        self._saved = {name: saved.labels(name.partition("_")[0]) for name in ("definition_tokens", "result_tokens")}

    def count(self, amounts: Mapping[str, int]) -> None:
        """Take amounts by their names in `codemode.savings.COUNTED`."""
        for name, amount in amounts.items():
            if name in self._counters:
                self._counters[name].inc(amount)
            else:
                self._saved[name.removesuffix("_saved")].inc(amount)

    def shown(self) -> bytes:
        return generate_latest(self._registry)
