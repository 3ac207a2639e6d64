"""Spans of single entries, and what the exporter does when the collector is slow or gone."""

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from mcpgate.activity import tracing
from mcpgate.activity.spans import Places, spans_of
from mcpgate.activity.tracing import OtlpTracer, make_exporter
from mcpgate.config.settings import Config, Settings
from mcpgate.errors import ConfigError
from mcpgate.governance.records import Entry, Usage
from mcpgate.telemetry.trace import Trace, client_span_of, parse_trace, span_of

OURS = Trace("a" * 32, "b" * 16, "01", is_ours=True)
PARENT = "rq_" + "2" * 24
GOOD = "00-" + "a" * 32 + "-" + "1" * 16


def entry(**more: Any) -> Entry:
    fields: dict[str, Any] = dict.fromkeys(("parent_id", "user", "team", "customer", "provider", "model", "cost"))
    fields |= {"id": "rq_" + "1" * 24, "at": 1000.0, "kind": "tool", "key": "ci", "outcome": "ok"}
    fields |= {"server": "files", "tool": "read", "latency_ms": 5.0, "usage": Usage(calls=1)}
    return Entry(**{**fields, **more})


class Exporter(SpanExporter):
    """Keeps spans, once it may."""

    def __init__(self) -> None:
        self.may_export, self.is_asked = threading.Event(), threading.Event()
        self.spans: list[Any] = []
        self.fails = False

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        self.is_asked.set()
        assert self.may_export.wait(20)
        if self.fails:
            raise OSError("the collector is gone")
        self.spans += spans
        return SpanExportResult.SUCCESS


def traced(exporter: SpanExporter) -> tuple[OtlpTracer, list[tuple[int, bool]]]:
    counted: list[tuple[int, bool]] = []
    return OtlpTracer(Settings(Config()), exporter, lambda number, arrived: counted.append((number, arrived))), counted


@pytest.mark.parametrize(
    ("semconv", "names"),
    [("1.41", {"cache_creation"}), ("latest", {"cache_write"}), ("both", {"cache_creation", "cache_write"})],
)
def test_names_that_have_changed_are_those_of_the_wanted_version(semconv: str, names: set[str]) -> None:
    places = Places(Config.model_validate({"telemetry": {"semconv": semconv}}))
    usage = Usage(input_tokens=9, cache_write_tokens=7)
    (span,) = spans_of(entry(kind="chat", parent_id=PARENT, provider="x", model="m", usage=usage), OURS, places)
    written = {name for name, value in span.attributes.items() if value == 7}
    assert written == {f"gen_ai.usage.{name}.input_tokens" for name in names}


def test_a_call_that_was_never_sent_has_no_span_of_a_client() -> None:
    places = Places(Config())
    outer, inner = spans_of(entry(), OURS, places)
    assert (outer.id, inner.id, inner.parent) == (span_of(entry().id), client_span_of(entry().id), outer.id)
    (refused,) = spans_of(entry(usage=Usage(), outcome="rate_limited"), OURS, places)
    assert (refused.is_server, refused.error) == (True, "rate_limited")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00-" + "0" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "a" * 32 + "-" + "0" * 16 + "-01",
        "ff-" + "a" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "A" * 32 + "-" + "1" * 16 + "-01",
        GOOD + "-01\r\nx: y",
        GOOD + "-01, " + GOOD + "-01",
        GOOD + "-01-more",
        7,
        None,
    ],
)
def test_what_is_no_traceparent_counts_as_none(text: object) -> None:
    assert parse_trace(text) is None


def test_a_traceparent_of_a_later_version_may_say_more() -> None:
    assert parse_trace("01" + GOOD[2:] + "-01-more") == Trace("a" * 32, "1" * 16, "01")


def test_a_tracestate_that_no_header_can_have_is_dropped() -> None:
    for state in ("a=b\r\nx: y", "x" * 513, "ü=1", 7):
        assert parse_trace(GOOD + "-01", state) == Trace("a" * 32, "1" * 16, "01")
    assert parse_trace(GOOD + "-01", "a=b") == Trace("a" * 32, "1" * 16, "01", "a=b")


def test_while_the_collector_is_slow_a_bounded_number_of_spans_waits_and_the_rest_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracing, "_MOST_WAITING", 10)
    monkeypatch.setattr(tracing, "_BATCH", 4)
    exporter = Exporter()
    tracer, counted = traced(exporter)
    for _ in range(4):
        tracer.ended(entry(parent_id=PARENT), OURS)
    assert exporter.is_asked.wait(10)
    for _ in range(30):
        tracer.ended(entry(parent_id=PARENT), OURS)
    assert counted == [(1, False)] * 20
    exporter.may_export.set()
    tracer.close()
    assert len(exporter.spans) == 4 + 10
    assert sum(number for number, arrived in counted if arrived) == 14


def test_a_collector_that_fails_loses_spans_and_nothing_else() -> None:
    exporter = Exporter()
    exporter.fails = True
    exporter.may_export.set()
    tracer, counted = traced(exporter)
    tracer.ended(entry(), OURS)
    tracer.close()
    assert counted == [(2, False)]


def test_what_is_not_sampled_is_passed_on_and_not_exported() -> None:
    exporter = Exporter()
    exporter.may_export.set()
    tracer, counted = traced(exporter)
    trace = tracer.begin(parse_trace(GOOD + "-00"))
    assert trace.headers("c" * 16)["traceparent"] == f"00-{'a' * 32}-{'c' * 16}-00"
    tracer.ended(entry(), trace)
    assert tracer.begin(None).is_sampled
    tracer.close()
    assert (exporter.spans, counted) == ([], [])


def test_an_unknown_protocol_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'http/protobuf' or 'grpc'"):
        make_exporter(None, "http/json")
