"""Guardrails on requests and answers, through the door that clients use."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from anthropic import Anthropic
from openai import OpenAI

from mcpgate.app import build
from mcpgate.config.files import load_config
from mcpgate.errors import ConfigError
from tests.flows.governed import ADMIN, TRUSTED, Served, bearer, serving, write_config
from tests.model_provider import ModelProvider

pytestmark = pytest.mark.anyio
SECRET = "sk-proj-abcdefghijklmnopqrstuv"
MASK = {"use": "mcpgate.llm.patterns:Patterns", "settings": {"secrets": "mask", "emails": "mask", "cards": "block"}}
SAY = f"Write to ada@example.com with {SECRET} and say goodbye"
MASKED = "Write to [emails] with [secrets] and say goodbye"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, provider: ModelProvider) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("guarded")
    openai = {"type": "openai", "base_url": provider.address, "api_key": "sk-of-the-provider"}
    gemini = {"type": "gemini", "base_url": provider.address.removesuffix("/v1"), "api_key": "AIza-of-the-provider"}
    providers = {"open": openai, "gem": gemini, "echo": {"type": "echo"}}
    keys = {**TRUSTED, "admin": {**TRUSTED["admin"], "grants": {"admin": True, "models": ["*"]}}}
    shout = {"use": f"{__name__}:Shout"}
    llm = {"providers": providers, "guardrails": [MASK, shout]}
    with serving(folder, write_config(folder, {}, governance={"keys": keys}, llm=llm)) as running:
        yield running


class Shout:
    """Changes every answer, and refuses one word in it."""

    def __init__(self, settings: Any) -> None:
        pass

    async def before(self, texts: Any, about: Any) -> Any:
        return texts

    def during(self, about: Any) -> Any:
        return _Upper()

    async def after(self, text: str, about: Any) -> None:
        from mcpgate.llm.guardrails import Blocked

        if "UNSPEAKABLE" in text:
            raise Blocked("the answer holds a word that nobody may say")


class _Upper:
    def feed(self, text: str) -> str:
        return text.upper().replace("[EMAILS]", "[emails]").replace("[SECRETS]", "[secrets]")

    def end(self) -> str:
        return ""


def post(served: Served, path: str, **body: Any) -> httpx2.Response:
    return served.http().post(path, json=body, headers=bearer(ADMIN))


def test_a_provider_gets_the_request_without_what_is_masked(served: Served, provider: ModelProvider) -> None:
    provider.received.clear()
    content = [{"type": "text", "text": SAY}, {"type": "image_url", "image_url": {"url": f"data:{SECRET}"}}]
    ask = {"model": "open/good", "messages": [{"role": "user", "content": content}], "vendor": {"x": SECRET}}
    assert post(served, "/v1/chat/completions", **ask).status_code == 200
    sent = provider.received[-1].body
    assert sent["messages"][0]["content"][0]["text"] == MASKED
    assert sent["messages"][0]["content"][1] == content[1] and sent["vendor"] == ask["vendor"]


@pytest.mark.parametrize("method", ["generateContent", "countTokens", "embedContent", "batchEmbedContents"])
def test_a_provider_of_googles_format_gets_it_without_that_too(
    method: str, served: Served, provider: ModelProvider
) -> None:
    provider.received.clear()
    said = {"parts": [{"text": SAY}]}
    result = {"function_response": {"name": "f", "response": {"output": {"deep": SAY}}}}
    ask: dict[str, Any] = {"contents": [said, {"parts": [result]}], "systemInstruction": said, "vendor": SECRET}
    if method == "countTokens":
        ask = {"generateContentRequest": ask}
    elif method == "embedContent":
        ask = {"content": said}
    elif method == "batchEmbedContents":
        ask = {"requests": [{"content": said}]}
    assert post(served, f"/v1beta/models/gem%2Fgood:{method}", **ask).status_code == 200
    sent = provider.received[-1].raw.decode()
    assert MASKED in sent and "ada@" not in sent and sent.count(SECRET) == str(ask).count(f"'vendor': '{SECRET}'")


@pytest.mark.parametrize("framing", ["?alt=sse", ""])
@pytest.mark.parametrize("model", ["gem", "echo"])
def test_texts_and_arguments_in_streams_of_googles_format_are_changed(
    model: str, framing: str, served: Served, provider: ModelProvider
) -> None:
    """The model `signing` calls a function; the echo repeats what it gets."""
    ask: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": "say goodbye"}]}]}
    if model == "gem":
        ask["tools"] = [{"functionDeclarations": [{"name": "weather"}]}]
    answer = post(served, f"/v1beta/models/{model}%2Fsigning:streamGenerateContent{framing}", **ask)
    assert answer.status_code == 200
    wanted = ('"PARIS"', "LET ME LOOK.") if model == "gem" else ("SAY GOODBYE",)
    text = "".join(answer.text.split("\n")) if model == "gem" else _words(answer.text)
    assert all(word in text for word in wanted) and "Paris" not in text and "goodbye" not in text


def _words(stream: str) -> str:
    chunks = (
        json.loads(stream) if stream.startswith("[") else [json.loads(one[6:]) for one in stream.splitlines() if one]
    )
    return "".join(part["text"] for one in chunks for part in one["candidates"][0]["content"]["parts"])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("format", ["chat", "responses", "messages"])
def test_answers_are_changed_in_every_format(format: str, stream: bool, served: Served) -> None:
    # The echo repeats what it gets, which the first guardrail has masked; the second one changes what comes back.
    wanted = MASKED.upper().replace("[EMAILS]", "[emails]").replace("[SECRETS]", "[secrets]")
    with OpenAI(base_url=f"{served.address}/v1", api_key=ADMIN) as client:
        with Anthropic(base_url=served.address, api_key=ADMIN) as anthropic:
            assert said(client, anthropic, format, stream) == wanted


def said(client: OpenAI, anthropic: Anthropic, format: str, stream: bool) -> str:
    """What the echo answers."""
    text = ""
    if format == "chat" and stream:
        with client.chat.completions.stream(model="echo/x", messages=[{"role": "user", "content": SAY}]) as chunks:
            text = chunks.get_final_completion().choices[0].message.content or ""
    elif format == "chat":
        answer = client.chat.completions.create(model="echo/x", messages=[{"role": "user", "content": SAY}])
        text = answer.choices[0].message.content or ""
    elif format == "responses" and stream:
        with client.responses.stream(model="echo/x", input=SAY) as events:
            text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
            assert events.get_final_response().output_text == text
    elif format == "responses":
        text = client.responses.create(model="echo/x", input=SAY).output_text
    else:
        ask: Any = {"model": "echo/x", "max_tokens": 100, "messages": [{"role": "user", "content": SAY}]}
        if stream:
            with anthropic.messages.stream(**ask) as parts:
                text = parts.get_final_text()
        else:
            text = anthropic.messages.create(**ask).content[0].text
    return text


def test_what_is_blocked_reaches_no_provider_and_costs_nothing(served: Served, provider: ModelProvider) -> None:
    provider.received.clear()
    ask = {"model": "open/good", "messages": [{"role": "user", "content": "my card is 4111 1111 1111 1111"}]}
    answer = post(served, "/v1/chat/completions", **ask)
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "blocked"
    assert "cards" in answer.json()["error"]["message"] and not provider.received


def test_a_whole_answer_can_be_blocked_after_it_was_paid(served: Served) -> None:
    ask = {"model": "echo/x", "messages": [{"role": "user", "content": "unspeakable"}]}
    answer = post(served, "/v1/chat/completions", **ask)
    assert answer.status_code == 400 and "nobody may say" in answer.text
    rows = served.usage("provider,outcome")
    assert any(row["outcome"] == "blocked" and row["provider"] == "echo" for row in rows)


@pytest.mark.parametrize(
    ("use", "settings", "words"),
    [
        ("no.such.module:Class", {}, "cannot be loaded"),
        ("mcpgate.llm.patterns:Nothing", {}, "cannot be loaded"),
        ("mcpgate.llm.patterns:Patterns", {"colours": "mask"}, "there is no pattern"),
    ],
)
async def test_a_guardrail_that_cannot_be_made_is_an_error_of_the_configuration(
    use: str, settings: dict[str, Any], words: str, tmp_path: Path
) -> None:
    config = load_config(write_config(tmp_path, {}, llm={"guardrails": [{"use": use, "settings": settings}]}))
    with pytest.raises(ConfigError, match=words):
        await build(config)
