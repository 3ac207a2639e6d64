"""Where a request is in a trace (W3C Trace Context): what its client says, and what goes on to servers and providers.
Pure, and without the SDK of OpenTelemetry, which is loaded only where spans are exported: see activity/tracing.py."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_TRACEPARENT = re.compile(
    r"(?!ff)(?:00(?=.{53}$)|(?!00)[0-9a-f]{2})"  # what follows the flags is for later versions
    r"-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.{0,200})?"
)
_TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")
_CLIENT_BIT = 1 << 63


class Trace(NamedTuple):
    """The trace of a request and the span that it was made in."""

    id: str
    """32 hexadecimal digits."""
    parent: str = ""
    """The span of whoever made the request, 16 hexadecimal digits; empty if the trace begins here."""
    flags: str = "00"
    """Two hexadecimal digits; the last bit says whether the trace is recorded."""
    state: str = ""
    """The `tracestate` of other systems, passed on as it came."""
    is_ours: bool = False
    """Whether the gateway makes spans in it, so that its own are the parents of what follows."""

    @property
    def is_sampled(self) -> bool:
        return int(self.flags, 16) & 1 == 1

    def headers(self, span: str = "") -> dict[str, str]:
        """`traceparent` and `tracestate` of a request that is made in a span; without one, as they came."""
        found = {"traceparent": f"00-{self.id}-{span or self.parent}-{self.flags}"}
        if self.state:
            found["tracestate"] = self.state
        return found


def parse_trace(traceparent: object, tracestate: object = None) -> Trace | None:
    """What a client says of its trace; None for what is not of this form, which is as if nothing had been said."""
    if not isinstance(traceparent, str) or (match := _TRACEPARENT.fullmatch(traceparent)) is None:
        return None
    is_state = isinstance(tracestate, str) and _TRACESTATE.fullmatch(tracestate) is not None
    return Trace(match[1], match[2], match[3], str(tracestate) if is_state else "")


def span_of(request_id: str) -> str:
    """The id of a request's span: the last digits of the request's own id, which need not be kept anywhere."""
    return request_id[-16:]


def client_span_of(request_id: str) -> str:
    """The id of the span of what is sent to a server on behalf of a request that has a span of its own."""
    return f"{int(request_id[-16:], 16) ^ _CLIENT_BIT:016x}"
