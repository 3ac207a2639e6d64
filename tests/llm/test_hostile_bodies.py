"""Bodies that nobody sends by mistake: whatever is wrong, the error is of the contract and names a field."""

import copy
import gc
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpgate import jsontext
from mcpgate.api.llm import chat, gemini, messages, responses
from mcpgate.app import _translator
from mcpgate.errors import InvalidRequest, UpstreamError
from mcpgate.llm.asked import Asked
from mcpgate.llm.bodies import with_field
from mcpgate.llm.messages import Untranslatable
from mcpgate.llm.routing import Target
from mcpgate.providers import bedrock as bedrock_provider
from mcpgate.providers import chat as chat_provider
from mcpgate.providers import gemini as gemini_provider
from mcpgate.providers import messages as messages_provider
from tests.llm.bodies import (
    BEDROCK_ANSWER,
    BEDROCK_EVENTS,
    CHAT,
    CHAT_ANSWER,
    CHAT_CHUNKS,
    CLAUDE_CODE,
    CODEX,
    GEMINI_ANSWER,
    GEMINI_CHUNKS,
    GEMINI_CLI,
    MESSAGES_ANSWER,
    MESSAGES_EVENTS,
)
from tests.llm.conversations import UNHURRIED

PROVIDERS = (chat_provider, messages_provider, gemini_provider, bedrock_provider)
anything: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "x"]), one, max_size=3),
    max_leaves=6,
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in inner for place in _places(one, (*path, key)))]


@st.composite
def spoilt(draw: Any, body: Any) -> Any:
    """A body with something else, or nothing, at one of its places."""
    body = copy.deepcopy(body)
    *path, last = draw(st.sampled_from([place for place in _places(body) if place]))
    holder = body
    for key in path:
        holder = holder[key]
    if draw(st.booleans()):
        holder[last] = draw(anything)
    else:
        del holder[last]
    return body


@pytest.mark.parametrize(
    ("client", "body"), [(chat, CHAT), (messages, CLAUDE_CODE), (responses, CODEX), (gemini, GEMINI_CLI)]
)
def test_a_spoilt_request_is_read_or_refused_with_a_path(client: Any, body: Any) -> None:
    @UNHURRIED
    @given(spoilt(body))
    def check(some: Any) -> None:
        try:
            request = client.parse_request(some)
        except InvalidRequest as error:
            assert error.message.startswith(error.data["field"] + ": ")
            return
        for provider in PROVIDERS:
            try:
                provider.render_request(request)
            except Untranslatable as error:
                assert error.data["field"]

    check()


@pytest.mark.parametrize(
    ("provider", "body"),
    [
        (chat_provider, CHAT_ANSWER),
        (messages_provider, MESSAGES_ANSWER),
        (gemini_provider, GEMINI_ANSWER),
        (bedrock_provider, BEDROCK_ANSWER),
    ],
)
def test_a_spoilt_answer_is_read_or_refused(provider: Any, body: Any) -> None:
    @UNHURRIED
    @given(spoilt(body))
    def check(some: Any) -> None:
        try:
            provider.parse_answer(some)
        except (ValueError, Untranslatable):
            pass

    check()


@pytest.mark.parametrize(
    ("provider", "body"),
    [
        (chat_provider, CHAT_CHUNKS),
        (messages_provider, MESSAGES_EVENTS),
        (gemini_provider, GEMINI_CHUNKS),
        (bedrock_provider, BEDROCK_EVENTS),
    ],
)
def test_a_spoilt_stream_is_read_or_refused(provider: Any, body: Any) -> None:
    @UNHURRIED
    @given(spoilt(body))
    def check(some: list[Any]) -> None:
        reader = provider.parse_stream()
        try:
            for event in some:
                list(reader.read("", json.dumps(event).encode()))
            list(reader.end())
        except (ValueError, Untranslatable):
            pass

    check()


@pytest.mark.parametrize("client", [chat, messages, responses, gemini])
@pytest.mark.parametrize(
    "field",
    ["messages", "input", "tools", "system", "tool_choice", "model", "stop", "text", "contents", "generationConfig"],
)
def test_deep_nesting_is_no_crash(client: Any, field: str) -> None:
    deep: Any = 1
    for _ in range(900):
        deep = [deep] if field != "tools" else {"type": deep}
    rest = {} if client is gemini else {"model": "m", "messages": [], "input": [], "max_tokens": 1}
    body = {"contents": [], **rest, field: deep}
    with pytest.raises(InvalidRequest):
        client.parse_request(body)


def test_arguments_that_are_nested_too_deeply_are_refused() -> None:
    call = {"id": "a", "function": {"name": "f", "arguments": '{"a":' * 5000 + "1" + "}" * 5000}}
    request = chat.parse_request({"model": "m", "messages": [{"role": "assistant", "tool_calls": [call]}]})
    with pytest.raises(Untranslatable, match="arguments"):
        messages_provider.render_request(request)


CALL = {"role": "model", "parts": [{"functionCall": {"name": "f"}}]}
"""Without an id, so that its result is found by the name."""


@pytest.mark.parametrize(
    ("client", "one"),
    [
        (chat, {"role": "tool", "tool_call_id": "a", "content": "x"}),
        (messages, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "x"}]}),
        (responses, {"type": "function_call_output", "call_id": "a", "output": "x"}),
        (gemini, {"parts": [{"functionResponse": {"name": "f", "response": {"output": "x"}}}]}),
        (gemini, {"role": "model", "parts": [{"text": "x" * 100}]}),
    ],
)
def test_the_work_grows_with_the_body_and_not_with_its_square(client: Any, one: Any) -> None:
    def seconds(count: int) -> float:
        many = [one] * count
        body: dict[str, Any] = {"model": "m", "input" if client is responses else "messages": many}
        if client is messages:
            body["max_tokens"] = 1
        elif client is gemini:
            body = {"contents": [*[CALL] * count, *many]}
        gc.disable()  # it looks through what other tests have left, too
        try:
            begin = time.process_time()
            request = client.parse_request(body)
            messages_provider.render_request(request)
            chat_provider.render_request(request)
            return time.process_time() - begin
        finally:
            gc.enable()

    small = min(seconds(2_000) for _ in range(3))
    assert seconds(20_000) < 10 * small * 5  # the square would be 100 times


def test_half_a_surrogate_is_carried_through_to_the_bytes() -> None:
    request = chat.parse_request({"model": "m", "messages": [{"role": "user", "content": "\ud800"}]})
    assert jsontext.dumps(messages_provider.render_request(request))


# --- What would take seconds, during which a gateway does nothing else

HI = {"role": "user", "content": "Hi."}


class Speaks:
    """A provider, as far as its formats go."""

    limit_field, takes_cache_key = "max_tokens", False

    def __init__(self, *formats: str) -> None:
        self.formats = frozenset(formats)


def translated(format: str, native: str, body: dict[str, Any]) -> Any:
    """The request to a provider of another format, and what reads its answer."""
    asked = Asked(format, jsontext.dumps(body), body, "m", stream=True)
    provider: Any = Speaks(native)
    return _translator().call_for(provider, asked, Target("far", "m"))


@pytest.mark.parametrize(
    ("format", "native", "field"),
    [("chat", "messages", "messages"), ("messages", "chat", "messages"), ("responses", "chat", "input")],
)
def test_a_request_of_a_hundred_thousand_messages_is_not_translated(format: str, native: str, field: str) -> None:
    body = {"model": "m", field: [HI] * 200_000, **({"max_tokens": 1} if format == "messages" else {})}
    begin = time.process_time()
    with pytest.raises(Untranslatable, match="over 250,000 values"):
        translated(format, native, body)
    assert time.process_time() - begin < 0.5
    call, _ = translated(format, native, {**body, field: [HI] * 5_000})
    assert call.format == native


def test_an_answer_of_a_million_parts_is_not_translated() -> None:
    _, finish = translated("chat", "messages", {"model": "m", "messages": [HI]})
    parts = [{"type": "text", "text": "x"}] * 100_000
    begin = time.process_time()
    with pytest.raises(UpstreamError, match="over 250,000 values"):
        finish.whole(jsontext.dumps({"content": parts}))
    event = {"choices": [{"index": 0, "delta": {"content": "x"}}] * 100_000}
    _, finish = translated("messages", "chat", {"model": "m", "max_tokens": 1, "messages": [HI]})
    with pytest.raises(UpstreamError, match="over 250,000 values"):
        list(finish.event(b"data: " + jsontext.dumps(event) + b"\n\n"))
    assert time.process_time() - begin < 1


def test_a_stream_without_end_is_not_kept_without_end() -> None:
    _, finish = translated("responses", "chat", {"model": "m", "input": "Hi."})
    chunk = {"id": "a", "model": "m", "choices": [{"index": 0, "delta": {"content": "x" * 1_000_000}}]}
    event, count = b"data: " + jsontext.dumps(chunk) + b"\n\n", 0
    with pytest.raises(UpstreamError, match="over 16,777,216 characters"):
        while True:
            assert list(finish.event(event))
            count += 1
    assert count == 16


@pytest.mark.parametrize("inner", [b'\\"', b"\\\\", b"x", b'\\\\\\"', b'{[\\"'])
def test_the_model_is_found_after_millions_of_escapes_at_once(inner: bytes) -> None:
    body = b'{"messages": ["' + inner * (15_000_000 // len(inner)) + b'"], "model": "m"}'
    parsed = jsontext.loads(body)
    begin = time.process_time()
    assert with_field(body, parsed, "model", "other") == body[:-3] + b'other"}'
    assert time.process_time() - begin < 0.4
