"""Our encoder of spans against OpenTelemetry's own."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from mcpgate.activity.spans import Span
from mcpgate.activity.tracing import Batch, Source, make_exporter
from mcpgate.telemetry.trace import Trace

RESOURCE = Resource({"service.name": "mcpgate", "deployment": "t\u00e9st"})
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=300)
HEX = "0123456789abcdef"


def hexes(size: int) -> st.SearchStrategy[str]:
    return st.text(HEX, min_size=size, max_size=size).filter(lambda text: set(text) != {"0"})


@st.composite
def spans(draw: Any) -> Span:
    ids = draw(hexes(16)), draw(st.sampled_from(["", "b" * 16]) | hexes(16))
    trace = Trace(draw(hexes(32)), draw(st.sampled_from(["", "b" * 16])), "01", draw(st.sampled_from(["", "a=b,c=d"])))
    numbers = st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.floats(allow_nan=False)
    attributes = draw(st.dictionaries(TEXTS.filter(bool), TEXTS | numbers, max_size=20))
    began, took = draw(st.floats(0, 4e9)), draw(st.floats(0, 1e6))
    return Span(draw(TEXTS), draw(st.booleans()), trace, *ids, began, began + took, attributes, draw(TEXTS))


def readable(span: Span) -> ReadableSpan:
    def context(id: str, is_remote: bool = False) -> SpanContext:
        state = TraceState.from_header([span.trace.state]) if span.trace.state else None
        return SpanContext(int(span.trace.id, 16), int(id, 16), is_remote, TraceFlags(1), state)

    return ReadableSpan(
        span.name,
        context=context(span.id),
        parent=context(span.parent, span.parent == span.trace.parent) if span.parent else None,
        resource=RESOURCE,
        attributes=span.attributes,
        kind=SpanKind.SERVER if span.is_server else SpanKind.CLIENT,
        status=Status(StatusCode.ERROR) if span.error else Status(),
        start_time=round(span.began * 1e9),
        end_time=round(span.ended * 1e9),
        instrumentation_scope=InstrumentationScope("mcpgate"),
    )


@given(st.lists(spans(), min_size=1, max_size=5))
def test_spans_are_encoded_as_opentelemetry_does(made: list[Span]) -> None:
    assert Batch(made, Source.of(RESOURCE)).request() == encode_spans([readable(span) for span in made])


def test_text_that_is_no_unicode_is_replaced() -> None:
    trace = Trace("a" * 32, "", "01")
    span = Span("x\ud800", True, trace, "b" * 16, "", 1.0, 2.0, {"tool": "y\ud800", "n": 1}, "")
    ((made,),) = (
        scope.spans for one in Batch([span], Source.of(RESOURCE)).request().resource_spans for scope in one.scope_spans
    )
    assert (made.name, made.attributes[0].value.string_value) == ("x?", "y?")


def test_what_others_export_in_this_process_is_left_alone() -> None:
    from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as http

    span = readable(Span("x", True, Trace("a" * 32, "", "01"), "b" * 16, "", 1.0, 2.0, {"n": 1}, ""))
    for module, protocol in ((grpc, "grpc"), (http, "http/protobuf")):
        for _ in range(2):
            make_exporter("http://127.0.0.1:9", protocol).shutdown()
        assert module.encode_spans([span]) == encode_spans([span])
