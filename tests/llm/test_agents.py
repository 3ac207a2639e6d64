"""What Claude Code, Codex and opencode send reaches models of the other format whole."""

import json
from typing import Any

import pytest

from mcpgate.api.llm import chat as chat_client
from mcpgate.api.llm import messages as messages_client
from mcpgate.api.llm import responses as responses_client
from mcpgate.llm.messages import ChatRequest
from mcpgate.providers import chat, messages
from tests.llm.bodies import CHAT_CHUNKS, CLAUDE_CODE, CODEX, MESSAGES_EVENTS, OPENCODE
from tests.llm.judges import judge_request, judge_stream


def test_claude_code_reaches_a_chat_model() -> None:
    body = chat.render_request(messages_client.parse_request(CLAUDE_CODE))
    judge_request("chat", body)
    assert [message["role"] for message in body["messages"]] == [
        *("system", "user", "system", "assistant", "tool", "tool", "user")
    ]
    system, _, _, said, _, failed, heard = body["messages"]
    assert [part["text"] for part in system["content"]] == [part["text"] for part in CLAUDE_CODE["system"]]
    assert said["reasoning_content"] == "Let me look."
    assert [call["function"]["arguments"] for call in said["tool_calls"]] == ['{"path":"a.png"}', '{"path":"b.txt"}']
    assert failed["content"] == "Error: no such file"
    assert [part["type"] for part in heard["content"]] == ["text", "image_url", "text"]
    assert (body["max_completion_tokens"], body["reasoning_effort"]) == (64000, "high")
    assert [tool["function"]["name"] for tool in body["tools"]] == ["Read", "Later"]


@pytest.mark.parametrize("provider", [chat, messages])
def test_codex_reaches_models_of_both_formats(provider: Any) -> None:
    body = provider.render_request(responses_client.parse_request(CODEX))
    judge_request("chat" if provider is chat else "messages", body)
    roles = [message["role"] for message in body["messages"]]
    if provider is chat:
        assert roles == ["system", "user", "user", "assistant", "tool", "tool", "assistant", "user"]
    else:
        assert roles == ["user", "user", "assistant", "user", "assistant", "user"]
        assert [part["text"] for part in body["system"]] == ["You are Codex.", "<permissions/>"]
        thinking, shell, patch = body["messages"][2]["content"]
        assert thinking == {"type": "thinking", "thinking": "Looking", "signature": "EqQB"}
        assert (shell["input"], patch["input"]) == ({"path": "a"}, {"input": "*** Begin"})
        assert body["thinking"] == {"type": "adaptive", "display": "summarized"}


def test_opencode_reaches_claude() -> None:
    body = messages.render_request(chat_client.parse_request(OPENCODE))
    judge_request("messages", body)
    assert body["system"] == "You are opencode."
    assert body["messages"][0]["content"][0]["cache_control"] == {"type": "ephemeral"}
    assert body["messages"][1]["content"] == [
        {"type": "tool_use", "id": "call_1", "name": "read", "input": {"path": "a"}}
    ]
    assert body["messages"][2]["content"] == [{"type": "tool_result", "tool_use_id": "call_1", "content": "text of a"}]


CLIENTS = [("chat", chat_client), ("messages", messages_client), ("responses", responses_client)]


@pytest.mark.parametrize(("format", "client"), CLIENTS)
@pytest.mark.parametrize(("provider", "events"), [(chat, CHAT_CHUNKS), (messages, MESSAGES_EVENTS)])
def test_each_client_can_read_the_stream_of_each_provider(format: str, client: Any, provider: Any, events: Any) -> None:
    reader, writer = provider.parse_stream(), client.render_stream(ChatRequest("m", ()))
    read = [one for event in events for one in reader.read("", json.dumps(event).encode())] + list(reader.end())
    written = judge_stream(format, [piece for event in read for piece in writer.write(event)])
    assert "Hi" in json.dumps(written)
