"""What a ledger entry looks like as spans, by OpenTelemetry's conventions for generative AI and MCP. Pure, and without
its SDK: tracing.py exports them.

Names are those of semantic-conventions-genai (2026-11). A request of a client is a span of kind server; what is sent to
a server or a provider for it is one of kind client. A direct tool call is both."""

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from mcpgate.config.settings import Config
from mcpgate.governance.records import Entry, Usage
from mcpgate.telemetry.trace import Trace, client_span_of, span_of

Attribute = str | int | float | bool
_MODELS = ("chat", "embedding")
_UPSTREAM = ("tool", "resource")
_OPERATIONS = {"chat": "chat", "embedding": "embeddings"}
_PROVIDERS = {
    "gemini": "gcp.gemini",
    "bedrock": "aws.bedrock",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}
"""Types of providers whose names in the conventions are others."""
_CACHE_WRITE = {
    "1.41": ("gen_ai.usage.cache_creation.input_tokens",),
    "latest": ("gen_ai.usage.cache_write.input_tokens",),
    "both": ("gen_ai.usage.cache_creation.input_tokens", "gen_ai.usage.cache_write.input_tokens"),
}
"""By `telemetry.semconv`: the one name of those used here that has changed since 1.41."""


class Span(NamedTuple):
    name: str
    is_server: bool
    """Whether it is of kind server, else client."""
    trace: Trace
    id: str
    parent: str
    """Empty: it is the first of its trace."""
    began: float
    """Epoch seconds."""
    ended: float
    attributes: dict[str, Attribute]
    error: str
    """Empty if there was none."""


class Places:
    """Where the servers and providers of a configuration are, as attributes."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._upstreams: dict[str, dict[str, Attribute]] = {}
        self._providers: dict[str, dict[str, Attribute]] = {}
        for name, server in config.mcpServers.items():
            transport = "pipe" if server.command is not None else "tcp"
            self._upstreams[name] = {"network.transport": transport, **_address(server.url)}
        for name, provider in config.llm.providers.items():
            known = _PROVIDERS.get(provider.type, provider.type) if provider.vertex is None else "gcp.vertex_ai"
            self._providers[name] = {"gen_ai.provider.name": known, **_address(provider.address)}

    def of_upstream(self, name: str | None) -> Mapping[str, Attribute]:
        return self._upstreams.get(name or "", {})

    def of_provider(self, name: str | None) -> Mapping[str, Attribute]:
        return self._providers.get(name or "", {"gen_ai.provider.name": name or ""})


def _address(url: str | None) -> dict[str, Attribute]:
    """Never with a path or credentials."""
    try:
        parts = urlsplit(url or "")
        host, port = parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return {}
    return {"server.address": host, "server.port": port} if host and port else {}


def spans_of(entry: Entry, trace: Trace, places: Places) -> list[Span]:
    """The spans of a request that is over, the outer one first."""
    inner = entry.parent_id is not None
    ended = entry.at + entry.latency_ms / 1000
    error = "" if entry.outcome == "ok" else _error_of(entry)
    parent = trace.parent if entry.parent_id is None else span_of(entry.parent_id)
    name, attributes = _described(entry, places)
    is_sent = entry.kind in _UPSTREAM and (inner or entry.usage.calls > 0)
    is_attempt = entry.kind in _MODELS and inner
    if error:
        attributes["error.type"] = error
    own = {**attributes, **_governed(entry)}
    if inner and (is_sent or is_attempt):
        own |= places.of_upstream(entry.server) if is_sent else {}
        return [Span(name, False, trace, span_of(entry.id), parent, entry.at, ended, own, error)]
    found = [Span(name, True, trace, span_of(entry.id), parent, entry.at, ended, own, error)]
    if is_sent:
        began = ended - min(entry.latency_ms, entry.timings.get("upstream", 0.0)) / 1000
        sent = {**attributes, **places.of_upstream(entry.server), "mcpgate.server": entry.server or ""}
        ids = client_span_of(entry.id), span_of(entry.id)
        found.append(Span(name, False, trace, *ids, began, ended, sent, error))
    return found


def _error_of(entry: Entry) -> str:
    """Of an attempt, the status or reason that it has failed with, if there is one."""
    return entry.facts.get("reason") or entry.outcome


def _described(entry: Entry, places: Places) -> tuple[str, dict[str, Attribute]]:
    """The name of a span, and what the conventions want to know of it."""
    if entry.kind in _MODELS:
        operation = _OPERATIONS[entry.kind]
        if entry.parent_id is None:  # without the names for a call of a model, or it would be counted twice
            return f"{operation} {entry.model}", {"mcpgate.alias": entry.model or ""}
        return f"{operation} {entry.model}", _of_attempt(entry, operation, places)
    if entry.kind == "resource":
        method = entry.tool or "resources/read"
        return method, {"mcp.method.name": method}
    tool = entry.tool or ""
    found: dict[str, Attribute] = {
        "mcp.method.name": "tools/call",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": tool,
    }
    return f"tools/call {tool}", found


def _of_attempt(entry: Entry, operation: str, places: Places) -> dict[str, Attribute]:
    usage = entry.usage
    found: dict[str, Attribute] = {
        "gen_ai.operation.name": operation,
        **places.of_provider(entry.provider),
        "gen_ai.request.model": entry.model or "",
        "mcpgate.provider": entry.provider or "",
        **_tokens(usage, places.config.telemetry.semconv),
    }
    if (first_ms := entry.timings.get("first_token")) is not None:
        found["gen_ai.request.stream"] = True
        found["gen_ai.response.time_to_first_chunk"] = first_ms / 1000
    if alias := entry.facts.get("alias"):
        found["mcpgate.alias"] = alias
    return found


def _tokens(usage: Usage, semconv: str) -> dict[str, Attribute]:
    found: dict[str, Attribute] = {"gen_ai.usage.input_tokens": usage.input_tokens}
    if usage.output_tokens:
        found["gen_ai.usage.output_tokens"] = usage.output_tokens
    if usage.cache_read_tokens:
        found["gen_ai.usage.cache_read.input_tokens"] = usage.cache_read_tokens
    if usage.cache_write_tokens:
        found |= dict.fromkeys(_CACHE_WRITE[semconv], usage.cache_write_tokens)
    if reasoning := usage.more.get("reasoning_tokens"):
        found["gen_ai.usage.reasoning.output_tokens"] = reasoning
    return found


def _governed(entry: Entry) -> dict[str, Any]:
    """What the gateway knows of a request: whose it is, what it cost, how the cache answered."""
    facts = entry.facts
    named = {
        "mcpgate.server": entry.server,
        "mcpgate.key": entry.key,
        "mcpgate.user": entry.user,
        "mcpgate.team": entry.team,
        "mcpgate.customer": entry.customer,
        "mcpgate.cache": entry.cache,
        "session.id": facts.get("session"),
    }
    found: dict[str, Any] = {name: value for name, value in named.items() if value}
    if entry.parent_id is None:  # what is inside takes as long as its span, and is in the same trace
        found["mcpgate.request_id"] = facts.get("request", "")
        found |= {f"mcpgate.{stage}_ms": round(ms, 3) for stage, ms in entry.timings.items()}
    if attempts := facts.get("attempts"):
        found["mcpgate.attempts"] = int(attempts)
    is_attempt = entry.kind in _MODELS and entry.parent_id is not None
    if entry.cost is not None and (entry.cost or is_attempt):
        found["mcpgate.cost_usd"] = entry.cost / 1e9
        if is_attempt:
            found["llm.cost.total"] = entry.cost / 1e9  # OpenInference has a name for it, OpenTelemetry has none
    if entry.saved.cost:
        found["mcpgate.cache_saved_usd"] = entry.saved.cost / 1e9
    return found
