"""Exports spans with OpenTelemetry's SDK, over OTLP. Requests that are over are put into a bounded queue; a thread
makes spans of them and sends them. Loaded only where traces are exported. What a span says is written in spans.py."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from opentelemetry.exporter.otlp.proto.common import trace_encoder
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from mcpgate import __version__
from mcpgate.activity import otlp
from mcpgate.activity.spans import Places, Span, spans_of
from mcpgate.config.settings import Settings
from mcpgate.errors import ConfigError
from mcpgate.governance.records import Entry, random_hex
from mcpgate.telemetry.trace import Trace

_MOST_WAITING = 4096
"""Requests whose spans are not exported yet, about 2 KB each. Further ones are lost, and counted. What requests say
is not in their spans: the request log has it, masked, under the same id."""
_BATCH = 512
_EVERY_S = 1.0
_LAST_S = 2.0
"""How long the end waits for what is still to be exported."""
_SCOPE = InstrumentationScope("mcpgate")
log = logging.getLogger("mcpgate.telemetry")
Waiting = tuple[Entry, Trace]
Exported = Callable[[int, bool], None]


class Source(NamedTuple):
    """What spans come from, as messages of OTLP."""

    resource: bytes
    scope: bytes

    @classmethod
    def of(cls, resource: Resource) -> "Source":
        example = ReadableSpan("", SpanContext(1, 1, False), resource=resource, instrumentation_scope=_SCOPE)
        (made,) = trace_encoder.encode_spans([example]).resource_spans
        return cls(made.resource.SerializeToString(), made.scope_spans[0].scope.SerializeToString())


class Batch(list[Span]):
    """What exporters get instead of a list of ReadableSpan."""

    def __init__(self, spans: Iterable[Span], source: Source) -> None:
        super().__init__(spans)
        self._source = source

    def request(self) -> ExportTraceServiceRequest:
        made: ExportTraceServiceRequest = ExportTraceServiceRequest.FromString(otlp.request(*self._source, self))
        return made


def _teach(exporter: Any) -> None:
    """Have a module of the SDK encode Batches with our encoder, all else with its own, which would be most of
    what traces cost. The SDK has no place for another encoder; from 1.41 to 1.45 both exporters look up this name."""
    theirs = exporter.encode_spans
    if getattr(theirs, "knows_batches", False):
        return

    def encode_spans(spans: Any) -> ExportTraceServiceRequest:
        return spans.request() if isinstance(spans, Batch) else theirs(spans)

    encode_spans.knows_batches = True  # type: ignore[attr-defined]
    exporter.encode_spans = encode_spans


def make_exporter(endpoint: str | None, protocol: str) -> SpanExporter:
    """What exports Batches. `endpoint`: None as the environment says. Raises ConfigError."""
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc

        _teach(grpc)
        return grpc.OTLPSpanExporter(endpoint)
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http import trace_exporter as http

        _teach(http)
        return http.OTLPSpanExporter(None if endpoint is None else f"{endpoint}/v1/traces")
    raise ConfigError(f"the protocol of OTLP is {protocol!r}; it must be 'http/protobuf' or 'grpc'")


def _resource() -> Resource:
    """What the spans are of; the environment has the last word."""
    own = Resource.create({"service.name": "mcpgate", "service.version": __version__})
    return own.merge(OTELResourceDetector().detect())


class OtlpTracer:
    """One per process."""

    def __init__(self, settings: Settings, exporter: SpanExporter, exported: Exported) -> None:
        """`exported`: called with the number of spans, and whether they have arrived; from any thread."""
        self._settings, self._exporter, self._exported = settings, exporter, exported
        resource = _resource()
        self._source = Source.of(resource)
        self._sampler = TracerProvider(resource=resource, shutdown_on_exit=False).sampler
        self._places = Places(settings.config)
        self._waiting: deque[Waiting] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    def begin(self, trace: Trace | None) -> Trace:
        """The trace of a request; $OTEL_TRACES_SAMPLER decides whether it is recorded."""
        is_sampled = self._is_sampled(trace)
        trace = Trace(random_hex(32)) if trace is None else trace
        return trace._replace(flags=f"{int(trace.flags, 16) & ~1 | is_sampled:02x}", is_ours=True)

    def _is_sampled(self, trace: Trace | None) -> bool:
        if self._sampler is DEFAULT_ON:  # the default, which need not be asked
            return trace is None or trace.is_sampled
        context, id = None, random_hex(32)
        if trace is not None:
            context, id = set_span_in_context(NonRecordingSpan(_context(trace, trace.parent, is_remote=True))), trace.id
        return self._sampler.should_sample(context, int(id, 16), "request").decision is Decision.RECORD_AND_SAMPLE

    def ended(self, entry: Entry, trace: Trace | None) -> None:
        if trace is None or not trace.is_ours or not trace.is_sampled:
            return
        waiting = self._waiting
        if len(waiting) >= _MOST_WAITING or self._closing:
            self._exported(1, False)
            return
        waiting.append((entry, trace))
        if len(waiting) == _BATCH:
            self._wake.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="mcpgate-traces", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Export what is left; returns when that is done, or has taken too long. Blocks."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_LAST_S)
        self._exporter.shutdown()

    def _run(self) -> None:
        while not (self._closing and not self._waiting):
            self._wake.wait(_EVERY_S)
            self._wake.clear()
            while self._waiting:
                taken = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
                self._export(taken)

    def _export(self, taken: list[Waiting]) -> None:
        number, arrived = len(taken), False
        try:
            config = self._settings.config
            if self._places.config is not config:
                self._places = Places(config)
            spans = [span for entry, trace in taken for span in spans_of(entry, trace, self._places)]
            number = len(spans)
            batch: Any = Batch(spans, self._source)
            arrived = self._exporter.export(batch) is SpanExportResult.SUCCESS
        except Exception:
            log.exception("%d spans could not be exported", number)
        self._exported(number, arrived)


def _context(trace: Trace, span: str, is_remote: bool = False) -> SpanContext:
    state = TraceState.from_header([trace.state]) if trace.state else None
    return SpanContext(int(trace.id, 16), int(span, 16), is_remote, TraceFlags(int(trace.flags, 16)), state)
