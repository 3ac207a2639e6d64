"""Answers that are kept, taken apart into events and put together again: the official SDKs' types are the judges."""

import json
from types import ModuleType
from typing import Any

import pytest
from hypothesis import assume, given

from mcpgate import jsontext
from mcpgate.api.llm import chat as chat_client
from mcpgate.api.llm import gemini as gemini_client
from mcpgate.api.llm import messages as messages_client
from mcpgate.api.llm import responses as responses_client
from mcpgate.governance.records import Usage
from mcpgate.llm import replay
from mcpgate.llm.messages import ChatAnswer, ChatRequest, Thinking
from tests.llm.conversations import UNHURRIED, answers
from tests.llm.judges import judge_answer, judge_stream

FORMATS = [
    ("chat", chat_client),
    ("messages", messages_client),
    ("responses", responses_client),
    ("gemini", gemini_client),
]
WITH_USAGE = {"stream_options": {"include_usage": True}}
USAGE = Usage(input_tokens=10, output_tokens=5)


def sse(*messages: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in messages)


@pytest.mark.parametrize(("format", "client"), FORMATS)
@UNHURRIED
@given(answer=answers())
def test_an_answer_that_is_taken_apart_is_read_by_sdks_and_is_the_same_again(
    format: str, client: ModuleType, answer: ChatAnswer
) -> None:
    thoughts = [part for part in answer.parts if isinstance(part, Thinking)]
    # Gemini has no form for nothing, and its pieces of thoughts are one thought.
    assume(answer.parts and (format != "gemini" or len(thoughts) < 2))
    whole = json.loads(jsontext.dumps(client.render_answer(answer, ChatRequest("m", (), include_usage=True))))
    if format == "responses":
        whole["status"] = "completed"
    events = replay.stream(format, whole, WITH_USAGE)
    judge_stream(format, events)
    again = replay.whole(format, b"".join(events), USAGE)
    assert without_nothing(again) == without_nothing(whole)
    judge_answer(format, again)


def without_nothing(value: Any) -> Any:
    """A field that is null says as much as one that is not there."""
    if isinstance(value, dict):
        return {name: without_nothing(one) for name, one in value.items() if one is not None}
    return [without_nothing(one) for one in value] if isinstance(value, list) else value


def test_the_arguments_of_a_call_are_said_once_in_the_events_of_a_response() -> None:
    call = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": '{"a":1}',
            "status": "completed"}  # fmt: skip
    events = [json.loads(event.split(b"data: ")[1]) for event in replay.stream("responses", {"output": [call]}, {})]
    added = next(event for event in events if event["type"] == "response.output_item.added")
    said = added["item"]["arguments"] + "".join(
        event["delta"] for event in events if event["type"] == "response.function_call_arguments.delta"
    )
    assert said == call["arguments"]


def test_a_stream_of_chunks_leaves_nothing_that_belongs_to_chunks() -> None:
    def chunk(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": None, **more}
        return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "obfuscation": "xyz",
                "choices": [choice]}  # fmt: skip

    def detail(text: str) -> dict[str, Any]:
        piece = {"type": "reasoning.text", "text": text, "format": "anthropic-claude-v1", "index": 0}
        return {"reasoning_details": [piece]}

    stream = sse(
        chunk({"role": "assistant", **detail("Let ")}),
        chunk(detail("me see.")),
        chunk({"content": "Yes."}),
        chunk({}, finish_reason="stop"),
    )
    whole = replay.whole("chat", stream, USAGE)
    message = whole["choices"][0]["message"]
    assert "obfuscation" not in whole
    assert message["reasoning_details"] == [
        {"type": "reasoning.text", "text": "Let me see.", "format": "anthropic-claude-v1", "index": 0}
    ]


@pytest.mark.parametrize(
    ("format", "messages"),
    [
        (
            "messages",
            [
                {"type": "message_start", "message": {"id": "m", "content": []}},
                {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "input": {}}},
                {"type": "content_block_delta", "index": 0,
                 "delta": {"type": "input_json_delta", "partial_json": '{"city": "Par'}},
                {"type": "content_block_stop", "index": 0},
                {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": {"output_tokens": 1}},
                {"type": "message_stop"},
            ],
        ),
        (
            "gemini",
            [
                {"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "willContinue": True}}]}}]},
                {"candidates": [{"content": {"parts": [{"functionCall": {}}]}, "finishReason": "STOP"}]},
            ],
        ),
        ("chat", [{"choices": [{"index": [], "delta": {"content": "x"}}]}]),
    ],
)  # fmt: skip
def test_what_cannot_be_put_together_is_not_whole(format: str, messages: list[dict[str, Any]]) -> None:
    with pytest.raises(replay.NotWhole):
        replay.whole(format, sse(*messages), USAGE)
