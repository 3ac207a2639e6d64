"""What one side of a format writes, the other side reads: nothing is lost on the way, whole or in pieces."""

from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given

from mcpgate.api.llm import chat as chat_client
from mcpgate.api.llm import messages as messages_client
from mcpgate.api.llm import responses as responses_client
from mcpgate.llm.messages import ChatAnswer, ChatRequest, Message, StreamEvent, TokenUsage
from mcpgate.providers import chat as chat_provider
from mcpgate.providers import messages as messages_provider
from tests.llm.conversations import UNHURRIED, answers, collect, requests, streams
from tests.llm.judges import judge_answer, judge_request, judge_stream, read_all, write_all


@pytest.fixture(scope="module", autouse=True)
def stopped_clock() -> Iterator[None]:
    """Two renderings of one answer say the same time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.time", lambda: 1_800_000_000.0)
        yield


FORMATS = [("chat", chat_client, chat_provider), ("messages", messages_client, messages_provider)]
ASKED = ChatRequest("m", (), include_usage=True)


def _common(format: str, answer: ChatAnswer) -> ChatAnswer:
    """Chat does not tell how long writes are cached; Messages does not tell when it answered."""
    usage: Any = answer.usage
    return replace(answer, usage=replace(usage, cache_write_1h=0)) if format == "chat" else replace(answer, created=0)


@pytest.mark.parametrize(("format", "client", "provider"), FORMATS)
@UNHURRIED
@given(request=requests)
def test_a_request_is_read_as_it_was_written(
    format: str, client: ModuleType, provider: ModuleType, request: ChatRequest
) -> None:
    if format == "messages" and request.reasoning:
        request = replace(request, reasoning=replace(request.reasoning, adaptive=True))
    if format == "messages" and request.tool_choice and request.tool_choice.mode == "none":
        request = replace(request, tool_choice=replace(request.tool_choice, parallel=None))
    body = provider.render_request(request)
    judge_request(format, body)
    read = client.parse_request(body)
    assert read == replace(request, include_usage=request.stream or format == "messages")


@pytest.mark.parametrize(("format", "client", "provider"), FORMATS)
@UNHURRIED
@given(answer=answers())
def test_an_answer_is_read_as_it_was_written(
    format: str, client: ModuleType, provider: ModuleType, answer: ChatAnswer
) -> None:
    written = client.render_answer(answer, ASKED)
    judge_answer(format, written)
    assert provider.parse_answer(written) == _common(format, answer)


@pytest.mark.parametrize(("format", "client", "provider"), FORMATS)
@UNHURRIED
@given(stream=streams())
def test_a_stream_says_what_the_whole_answer_says(
    format: str, client: ModuleType, provider: ModuleType, stream: tuple[ChatAnswer, list[StreamEvent]]
) -> None:
    answer, events = stream
    written = write_all(client, ASKED, events)
    judge_stream(format, written)
    read = collect(read_all(provider, written))
    if format == "messages" and read.usage and answer.usage:  # this event does not tell how long writes are cached
        answer = replace(answer, usage=replace(answer.usage, cache_write_1h=0))
        read = replace(read, usage=replace(read.usage, cache_write_1h=0))
    assert read == _common(format, answer)


@UNHURRIED
@given(answer=answers())
def test_what_a_responses_client_sends_back_is_what_it_got(answer: ChatAnswer) -> None:
    written = responses_client.render_answer(answer, ASKED)
    judge_answer("responses", written)
    said = {"type": "message", "role": "user", "content": "go on"}
    again = responses_client.parse_request({"model": "m", "input": [said, *written["output"]]})
    assert again.messages[1:] == ((Message("assistant", answer.parts),) if answer.parts else ())


@UNHURRIED
@given(stream=streams())
def test_a_stream_of_responses_ends_with_the_whole_answer(stream: tuple[ChatAnswer, list[StreamEvent]]) -> None:
    answer, events = stream
    written = judge_stream("responses", write_all(responses_client, ASKED, events))
    assert [event["sequence_number"] for event in written] == list(range(len(written)))
    assert written[-1]["response"] == responses_client.render_answer(answer, ASKED)
    done = [event["item"] for event in written if event["type"] == "response.output_item.done"]
    assert sorted(item["id"] for item in done) == sorted(item["id"] for item in written[-1]["response"]["output"])


def test_usage_is_the_same_in_both_ways_of_counting() -> None:
    answer = ChatAnswer("a", "m", (), "stop", TokenUsage(117, 4, cache_read=100, cache_write=7, cache_write_1h=2))
    said = messages_client.render_answer(answer, ASKED)["usage"]
    assert (said["input_tokens"], said["cache_read_input_tokens"], said["cache_creation_input_tokens"]) == (10, 100, 7)
    assert said["cache_creation"] == {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 2}
    said = chat_client.render_answer(answer, ASKED)["usage"]
    assert (said["prompt_tokens"], said["total_tokens"]) == (117, 121)
    assert said["prompt_tokens_details"] == {"cached_tokens": 100, "cache_write_tokens": 7}
