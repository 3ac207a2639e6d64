"""Streams of events that come in pieces of any size."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpgate.llm.events import Events, EventTooLong
from mcpgate.llm.metering import Meter

TEXTS = st.text(alphabet=st.sampled_from("\n\r ad:"), max_size=60).map(str.encode)
CUTS = st.lists(st.integers(1, 7), min_size=1, max_size=20)


def pieces(text: bytes, sizes: list[int]) -> list[bytes]:
    found, at, turn = [], 0, 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        found.append(text[at : at + size])
        at, turn = at + size, turn + 1
    return found


@given(TEXTS, CUTS)
def test_events_are_the_same_one_by_one_and_in_one_piece(text: bytes, sizes: list[int]) -> None:
    single, joined = Events(), Events()
    for piece in pieces(text, sizes):
        assert b"".join(single.feed(piece)) == joined.whole(piece)
    assert single.rest() == joined.rest()


def test_an_event_without_end_is_given_up() -> None:
    events = Events(longest=1000)
    with pytest.raises(EventTooLong):
        for _ in range(101):
            assert events.whole(b"data: abcd") == b""
    assert Events(longest=1000).whole(b"data: a\n\n" * 1000) == b"data: a\n\n" * 1000


SAID = 'say "usage": { and \n\n more'
CHAT: list[dict[str, Any]] = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}], "usage": None},
    {"choices": [{"index": 0, "delta": {"content": SAID}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {"content": "abc"}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}},
]
MESSAGES: list[dict[str, Any]] = [
    {"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "abc message_stop"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}},
    {"type": "message_stop"},
]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("kept", [1, 2, 3, 9])
@pytest.mark.parametrize("format, events", [("chat", CHAT), ("messages", MESSAGES)])
def test_usage_is_read_alike_however_events_come_together(
    format: str, events: list[dict[str, Any]], kept: int, end: bytes
) -> None:
    """`kept`: how many of them there are, so that some streams break off before they have told it."""
    wire = [b": ping" + end * 2]
    wire += [b"event: x" + end + b"data: " + json.dumps(event).encode() + end * 2 for event in events[:kept]]
    one_by_one, at_once = Meter(format, 100), Meter(format, 100)
    for event in wire:
        one_by_one.read(event)
    at_once.read(b"".join(wire))
    for name in ("usage", "is_exact", "is_over", "tier"):
        assert getattr(one_by_one, name) == getattr(at_once, name)
    if kept == 9:
        assert at_once.is_exact and at_once.is_over
        assert (at_once.usage.input_tokens, at_once.usage.output_tokens) == (9, 4)
    elif format == "chat" and kept == 2:
        assert at_once.usage.output_tokens == -(-len(SAID) // 3)  # counted, as nobody has told it
