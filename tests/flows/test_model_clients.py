"""The official SDKs, unchanged, in front of providers of their own format and of the other one."""

from collections.abc import Iterator

import anthropic
import openai
import pytest

from tests.flows.governed import ADMIN, TRUSTED, Served, serving, write_config
from tests.model_provider import WORDS, ModelProvider

SAID = "".join(WORDS)
TOOL = {
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, provider: ModelProvider) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("clients")
    providers = {
        "open": {"type": "openai", "base_url": provider.address, "api_key": "sk-open"},
        "claude": {"type": "anthropic", "base_url": provider.address, "api_key": "sk-ant"},
        "echo": {"type": "echo"},
    }
    key = {**TRUSTED["admin"], "grants": {"tools": ["*"], "models": ["*"], "admin": True}}
    governance = {"keys": {"admin": key}}
    config = write_config(folder, {}, governance=governance, llm={"providers": providers})
    with serving(folder, config) as running:
        yield running


@pytest.fixture
def chat(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.address}/v1", api_key=ADMIN, max_retries=0) as client:
        yield client


@pytest.fixture
def claude(served: Served) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=served.address, api_key=ADMIN, max_retries=0) as client:
        yield client


each_provider = pytest.mark.parametrize("model", ["open/good", "claude/good"])


@each_provider
def test_openais_client_reaches_every_provider(model: str, chat: openai.OpenAI) -> None:
    ask = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Say hello."}]
    answer = chat.chat.completions.create(model=model, messages=ask)  # type: ignore[arg-type]
    assert answer.choices[0].message.content == SAID and answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None and (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (1000, 50)
    assert answer.usage.prompt_tokens_details is not None and answer.usage.prompt_tokens_details.cached_tokens == 400


@each_provider
@pytest.mark.parametrize("asks", [True, False])
def test_its_streams_do_too(model: str, asks: bool, chat: openai.OpenAI) -> None:
    options = {"stream_options": {"include_usage": True}} if asks else {}
    ask = [{"role": "user", "content": "Say hello."}]
    chunks = list(chat.chat.completions.create(model=model, messages=ask, stream=True, **options))  # type: ignore[call-overload]
    assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == SAID
    assert [one.usage.prompt_tokens for one in chunks if one.usage] == ([1000] if asks else [])


@each_provider
def test_anthropics_client_reaches_every_provider(model: str, claude: anthropic.Anthropic) -> None:
    ask = [{"role": "user", "content": "Say hello."}]
    answer = claude.messages.create(model=model, max_tokens=100, messages=ask, system="Be kind.")  # type: ignore[arg-type]
    assert answer.content[0].type == "text" and answer.content[0].text == SAID and answer.stop_reason == "end_turn"
    assert answer.usage.output_tokens == 50 and answer.usage.cache_read_input_tokens == 400
    with claude.messages.stream(model=model, max_tokens=100, messages=ask) as stream:  # type: ignore[arg-type]
        assert "".join(stream.text_stream) == SAID
        assert stream.get_final_message().usage.output_tokens == 50


@pytest.mark.parametrize("model", ["claude/good", "echo/any"])
def test_responses_reach_providers_that_do_not_speak_them(model: str, chat: openai.OpenAI) -> None:
    said = SAID if model == "claude/good" else "Say hello."
    answer = chat.responses.create(model=model, input="Say hello.", instructions="Be kind.", store=False)
    assert answer.output_text == said and answer.status == "completed" and answer.usage is not None
    with chat.responses.stream(model=model, input="Say hello.", store=False) as stream:
        assert "".join(event.delta for event in stream if event.type == "response.output_text.delta") == said
        assert stream.get_final_response().output_text == said
    with pytest.raises(openai.NotFoundError, match="not stored"):
        chat.responses.create(model=model, input="More.", previous_response_id="resp_1")


def test_the_echo_repeats_and_calls_tools(chat: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    ask = [{"role": "user", "content": "a b c"}]
    answer = chat.chat.completions.create(model="echo/any", messages=ask, max_tokens=2)  # type: ignore[arg-type]
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("a b", "length")
    tools = [{"type": "function", "function": TOOL}]
    call = chat.chat.completions.create(model="echo/any", messages=ask, tools=tools, tool_choice="required")  # type: ignore[call-overload]
    assert call.choices[0].message.tool_calls[0].function.name == "weather"
    with claude.messages.stream(model="echo/any", max_tokens=9, messages=ask) as stream:  # type: ignore[arg-type]
        assert "".join(stream.text_stream) == "a b c"
    assert len(chat.embeddings.create(model="echo/any", input=["x", "y"]).data) == 2


def test_errors_raise_the_classes_of_each_sdk(chat: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    ask = [{"role": "user", "content": "Say hello."}]
    with pytest.raises(openai.NotFoundError, match="there is no model"):
        chat.chat.completions.create(model="nothing", messages=ask)  # type: ignore[arg-type]
    with pytest.raises(anthropic.NotFoundError, match="there is no model"):
        claude.messages.create(model="nothing", max_tokens=9, messages=ask)  # type: ignore[arg-type]
    with pytest.raises(openai.RateLimitError, match="Told to fail"):
        chat.chat.completions.create(model="claude/status-429", messages=ask)  # type: ignore[arg-type]
    with pytest.raises(anthropic.InternalServerError, match="Told to fail"):
        claude.messages.create(model="open/status-503", max_tokens=9, messages=ask)  # type: ignore[arg-type]
    with pytest.raises(openai.APIError):
        list(chat.chat.completions.create(model="claude/cut", messages=ask, stream=True))  # type: ignore[call-overload]
    with pytest.raises(openai.BadRequestError, match="logprobs"):
        chat.chat.completions.create(model="claude/good", messages=ask, logprobs=True)  # type: ignore[arg-type]


def test_the_sdks_list_models(chat: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    assert list(chat.models.list()) == [] and list(claude.models.list()) == []
