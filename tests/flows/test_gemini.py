"""/v1beta, and providers that speak Gemini's format: bytes, translations, keys, errors, money. Google's own SDK is the
client where it can be."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import anyio
import httpx2
import openai
import pytest
from google import genai
from google.genai import errors, types

from mcpgate.api.llm import gemini
from mcpgate.config.llm import LlmConfig, ProviderConfig
from mcpgate.governance.records import Usage
from mcpgate.llm.messages import ChatAnswer, ChatRequest, Thinking, ToolCall
from mcpgate.llm.prices import ModelPrices
from mcpgate.providers.http import HttpProvider
from tests import gemini_wire
from tests.flows.governed import ADMIN, TRUSTED, Served, bearer, serving, wait_until, write_config
from tests.model_provider import WORDS, ModelProvider

SAID = "".join(WORDS)
PRICE = {"input_usd_per_mtok": 2, "output_usd_per_mtok": 10, "cache_read_usd_per_mtok": 0.5}
COST = "0.0019"
"""600 × $2 + 400 × $0.50 + 50 × $10, each for a million; 20 of the 50 are thoughts."""
ASK: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": "Say hello."}]}]}
WEATHER = {
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, provider: ModelProvider) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("gemini")
    origin = provider.address.removesuffix("/v1")
    providers = {
        "gem": {"type": "gemini", "base_url": origin, "api_key": "AIza-of-the-provider"},
        "rotating": {
            "type": "gemini",
            "base_url": origin,
            "keys": [{"api_key": "AIza-unknown"}, {"api_key": "AIza-1", "weight": 0.001}],
        },
        "badkey": {"type": "gemini", "base_url": origin, "api_key": "AIza-unknown"},
        "open": {"type": "openai", "base_url": provider.address, "api_key": "sk-open"},
        "claude": {"type": "anthropic", "base_url": origin, "api_key": "sk-ant"},
        "echo": {"type": "echo"},
    }
    models = {
        "fast": {"targets": [{"target": "gem/good"}]},
        "cut": {"targets": [{"target": "gem/good"}], "clamp": True},
        "safe": {"targets": [{"target": "gem/status-503"}, {"target": "gem/overloaded"}, {"target": "open/good"}]},
    }
    prices = {"gem/dear": {"input_usd_per_mtok": 9000, "output_usd_per_mtok": 9000}, "*/*": PRICE}
    keys = {
        "admin": {**TRUSTED["admin"], "grants": {"tools": ["*"], "models": ["*"], "admin": True}},
        "bob": {"secret": "mg-key-of-bob", "grants": {"models": ["fast"]}},
        "poor": {"secret": "mg-key-poor", "grants": {"models": ["*"]}, "budget": {"limit_usd": 0.5}},
    }
    llm = {"providers": providers, "models": models, "prices": prices}
    with serving(folder, write_config(folder, {}, governance={"keys": keys}, llm=llm)) as running:
        yield running


@pytest.fixture(autouse=True)
def fresh(provider: ModelProvider) -> None:
    provider.received.clear()
    provider.go_on.clear()
    provider.gone.clear()


@pytest.fixture
def google(served: Served) -> Iterator[genai.Client]:
    with genai.Client(api_key=ADMIN, http_options=types.HttpOptions(base_url=served.address)) as client:
        yield client


def post(
    served: Served, model: str, method: str = "generateContent", key: str | None = ADMIN, query: str = "", **more: Any
) -> httpx2.Response:
    headers = {} if key is None else {"x-goog-api-key": key}
    return served.http().post(f"/v1beta/models/{model}:{method}{query}", json={**ASK, **more}, headers=headers)


# --- Bytes


def test_a_request_and_its_answer_go_through_byte_for_byte(served: Served, provider: ModelProvider) -> None:
    body = '{ "contents":[{"role":"user","parts":[{"text":"\\u00e9 \\"model\\""}]}], "new_field": [1.0e0, 12345678901234567890123] }'
    headers = {"x-goog-api-key": ADMIN, "x-goog-api-client": "google-genai-sdk/9", "x-other": "no"}
    answer = served.http().post("/v1beta/models/fast:generateContent", content=body, headers=headers)
    assert answer.content == json.dumps(gemini_wire.whole("good", {}, WORDS)).encode()
    assert answer.headers["x-mcpgate-provider"] == "gem" and answer.headers["x-mcpgate-cost-usd"] == COST
    (received,) = provider.received
    assert received.raw.decode() == body and received.path == "/v1beta/models/good:generateContent"
    assert received.headers["x-goog-api-key"] == "AIza-of-the-provider"
    assert received.headers["x-goog-api-client"] == "google-genai-sdk/9"
    assert "x-other" not in received.headers and ADMIN not in str(received.headers)


@pytest.mark.parametrize("model", ["fast", "gem/good", "gem%2Fgood"])
def test_the_path_names_an_alias_or_a_model_of_a_provider(model: str, served: Served, provider: ModelProvider) -> None:
    assert post(served, model).status_code == 200 and provider.models() == ["good"]


def test_a_stream_comes_as_events_or_as_an_array_of_the_same_chunks(served: Served, provider: ModelProvider) -> None:
    sent = [json.dumps(chunk) for chunk in gemini_wire.chunks("good", {}, WORDS)]
    events = post(served, "fast", "streamGenerateContent", query="?alt=sse")
    assert events.headers["content-type"] == "text/event-stream"
    assert events.text.startswith("".join(f"data: {chunk}\r\n\r\n" for chunk in sent))
    assert "\n: " not in events.text, "Google's SDK takes comments for data"
    array = post(served, "fast", "streamGenerateContent")
    assert array.headers["content-type"] == "application/json" and array.text == "[" + ",\r\n".join(sent) + "]"
    assert {one.path for one in provider.received} == {"/v1beta/models/good:streamGenerateContent?alt=sse"}


@pytest.mark.parametrize("model", ["open/good", "claude/good", "echo/any"])
def test_a_translated_stream_can_be_an_array_too(model: str, served: Served) -> None:
    chunks = post(served, model, "streamGenerateContent").json()
    parts = [part for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"]]
    assert "".join(part["text"] for part in parts) == ("Say hello." if model == "echo/any" else SAID)
    assert chunks[-1]["candidates"][0]["finishReason"] == "STOP" and chunks[-1]["usageMetadata"]["promptTokenCount"]


@pytest.mark.parametrize("model", ["gem/cut", "open/cut"])
def test_an_array_that_breaks_off_ends_with_an_error_and_is_json(model: str, served: Served) -> None:
    chunks = post(served, model, "streamGenerateContent").json()
    assert chunks[-1]["error"]["code"] == 502 or chunks[-1]["error"]["status"] == "INTERNAL"
    assert "Hello" in json.dumps(chunks[:-1])


def test_a_body_that_names_a_model_names_the_one_that_was_admitted(served: Served, provider: ModelProvider) -> None:
    named = {**ASK, "model": "models/dear"}
    embeds = {"requests": [{"model": "models/dear", "content": ASK["contents"][0]}]}
    http = served.http(**{"x-goog-api-key": ADMIN})
    http.post("/v1beta/models/fast:generateContent", json=named)
    http.post("/v1beta/models/fast:countTokens", json={"generateContentRequest": named})
    answer = http.post("/v1beta/models/fast:batchEmbedContents", json=embeds)
    assert answer.headers["x-mcpgate-cost-usd"] == "0.00002"
    assert [json.dumps(one.body).count("models/good") for one in provider.received] == [1, 1, 1]
    assert "dear" not in str([one.raw for one in provider.received])


@pytest.mark.parametrize(
    "config",
    [
        '"generationConfig": {"maxOutputTokens": 1, "maxOutputTokens": 2}',
        '"generationConfig": {}, "generationConfig": {"maxOutputTokens": 2}',
        '"generationConfig": {"maxOutputTokens": 1, "max\\u004futputTokens": 2}',
    ],
)
def test_a_provider_reads_the_limits_that_were_admitted(config: str, served: Served, provider: ModelProvider) -> None:
    body = f'{{{config}, "contents": []}}'
    headers = {"x-goog-api-key": ADMIN}
    assert served.http().post("/v1beta/models/fast:generateContent", content=body, headers=headers).status_code == 200
    assert provider.received[0].raw.count(b"maxOutputTokens") == 1
    assert provider.received[0].body["generationConfig"] == {"maxOutputTokens": 2}


# --- Keys and models


def test_a_key_comes_in_googles_header_or_in_the_query_and_is_not_logged(served: Served) -> None:
    assert post(served, "fast").status_code == 200
    assert post(served, "fast", key=None, query=f"?key={ADMIN}").status_code == 200
    assert served.http().get(f"/v1beta/models?key={ADMIN}").status_code == 200
    assert served.http().get(f"/v1/models?key={ADMIN}").status_code == 401
    assert post(served, "fast", key=None, query="?key=mg-nobody-has-this").status_code == 401
    assert post(served, "fast", key=None, query=f"?key={ADMIN}&key=x").status_code == 400
    assert post(served, "fast", key=None, query="?key=%FF%00%ED%A0%80").status_code == 401
    assert post(served, "fast", key="mg-nobody-has-this", query=f"?key={ADMIN}").status_code == 401, "headers go first"
    assert ADMIN not in served.log.read_text()


def test_a_key_that_google_does_not_know_rests_and_another_one_is_used(served: Served, provider: ModelProvider) -> None:
    provider.received.clear()
    for _ in range(5):
        assert post(served, "rotating/good").status_code == 200
    used = [request.headers["x-goog-api-key"] for request in provider.received]
    assert used[0] == "AIza-unknown" and used.count("AIza-unknown") == 1 and used.count("AIza-1") == 5
    provider.received.clear()
    assert post(served, "rotating/status-400").status_code == 400 and len(provider.received) == 1


def test_a_client_sees_the_models_that_it_may_use(served: Served) -> None:
    headers = {"x-goog-api-key": "mg-key-of-bob"}
    shown = served.http().get("/v1beta/models?pageSize=50", headers=headers).json()
    assert [one["name"] for one in shown["models"]] == ["models/fast"]
    for version in ("v1", "v1beta"):
        one = served.http().get(f"/{version}/models/fast", headers=headers).json()
        assert one["displayName"] == "fast" and "generateContent" in one["supportedGenerationMethods"]
    with genai.Client(api_key="mg-key-of-bob", http_options=types.HttpOptions(base_url=served.address)) as google:
        assert [one.name for one in google.models.list()] == ["models/fast"]
        assert google.models.get(model="fast").display_name == "fast"
    missing = served.http().get("/v1beta/models/gem%2Fgood", headers=headers)
    assert missing.status_code == 404 and missing.json()["error"]["status"] == "NOT_FOUND"


def test_tokens_are_counted_by_the_provider_or_estimated(served: Served, google: genai.Client) -> None:
    assert google.models.count_tokens(model="fast", contents="Hi").total_tokens == 77
    estimate = google.models.count_tokens(model="open/good", contents="Hi").total_tokens
    assert estimate is not None and 10 < estimate < 200


# --- Refusals and errors


@pytest.mark.parametrize(
    ("model", "key", "status", "word", "code"),
    [
        ("fast", None, 401, "UNAUTHENTICATED", "missing_key"),
        ("gem/good", "mg-key-of-bob", 403, "PERMISSION_DENIED", "not_allowed"),
        ("fats", ADMIN, 404, "NOT_FOUND", "unknown_model"),
        ("gem/dear", "mg-key-poor", 402, "RESOURCE_EXHAUSTED", "budget_exceeded"),
        ("gem/status-401", ADMIN, 502, "UNAVAILABLE", "upstream_error"),
        ("badkey/good", ADMIN, 502, "UNAVAILABLE", "upstream_error"),
    ],
)
def test_refusals_have_googles_shape_and_the_contracts_code(
    model: str, key: str | None, status: int, word: str, code: str, served: Served, provider: ModelProvider
) -> None:
    answer = post(served, model, key=key)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["status"]) == (status, status, word)
    (info,) = error["details"]
    assert (info["@type"], info["reason"]) == ("type.googleapis.com/google.rpc.ErrorInfo", code)
    assert all(isinstance(value, str) for value in info["metadata"].values())
    assert not provider.received or status == 502
    if status == 402:
        assert info["metadata"]["limit"] == "0.5" and answer.headers["x-should-retry"] == "false"


def test_an_error_of_google_comes_as_it_is_and_one_of_others_in_its_shape(served: Served, google: genai.Client) -> None:
    assert post(served, "gem/status-429").json() == gemini_wire.error(429, "Told to fail with 429")
    error = post(served, "open/status-429").json()["error"]
    assert (error["code"], error["status"], error["message"]) == (429, "RESOURCE_EXHAUSTED", "Told to fail with 429")
    with pytest.raises(errors.ClientError, match="Told to fail") as raised:
        google.models.generate_content(model="claude/status-429", contents="Hi")
    assert raised.value.code == 429 and raised.value.status == "RESOURCE_EXHAUSTED"
    with pytest.raises(errors.ServerError, match="Told to fail"):
        google.models.generate_content(model="gem/status-503", contents="Hi")


@pytest.mark.parametrize("model", ["gem/cut", "open/cut", "claude/cut"])
def test_the_sdk_raises_what_ends_a_stream_too_early(model: str, google: genai.Client) -> None:
    with pytest.raises(errors.APIError, match="broke off"):
        list(google.models.generate_content_stream(model=model, contents="Hi"))


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ("[]", "object"),
        ("{", "JSON"),
        ('{"generationConfig": []}', "generationConfig"),
        ('{"generationConfig": {"maxOutputTokens": "90000"}}', "maxOutputTokens"),
        ('{"generationConfig": {"candidateCount": -1}}', "candidateCount"),
        ('{"generationconfig": {}}', "generationconfig"),
        ('{"generationConfig": {"MaxOutputTokens": 9}}', "MaxOutputTokens"),
    ],
)
def test_a_malformed_body_says_what_is_wrong(body: str, where: str, served: Served, provider: ModelProvider) -> None:
    answer = served.http().post("/v1beta/models/fast:generateContent", content=body, headers=bearer(ADMIN))
    assert answer.status_code == 400 and where in answer.json()["error"]["message"] and not provider.received


def test_other_methods_and_names_are_refused(served: Served) -> None:
    assert post(served, "fast", "batchGenerateContent").status_code == 405
    assert post(served, "a%0Ab").status_code == 400 and post(served, "x" * 600).status_code == 400
    refused = post(served, "open/good", tools=[{"googleSearch": {}}])
    assert refused.status_code == 400 and "tools[0].googleSearch" in refused.json()["error"]["message"]
    assert post(served, "claude/good", "embedContent").status_code == 400


# --- Every client reaches every provider


each_provider = pytest.mark.parametrize("model", ["gem/good", "open/good", "claude/good"])


@each_provider
def test_googles_client_reaches_every_provider(model: str, google: genai.Client) -> None:
    config = types.GenerateContentConfig(system_instruction="Be kind.", max_output_tokens=100, temperature=0.5)
    answer = google.models.generate_content(model=model, contents="Say hello.", config=config)
    assert answer.text == SAID and answer.candidates and answer.candidates[0].finish_reason == "STOP"
    usage = answer.usage_metadata
    assert usage is not None and (usage.prompt_token_count, usage.cached_content_token_count) == (1000, 400)
    assert (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0) == 50
    chunks = list(google.models.generate_content_stream(model=model, contents="Say hello.", config=config))
    assert "".join(chunk.text or "" for chunk in chunks) == SAID and len(chunks) >= len(WORDS)
    assert chunks[-1].usage_metadata is not None and chunks[-1].usage_metadata.prompt_token_count == 1000


@each_provider
def test_so_does_its_asynchronous_client(model: str, served: Served) -> None:
    async def ask() -> None:
        options = types.HttpOptions(base_url=served.address, api_version="v1beta")
        async with genai.Client(api_key=ADMIN, http_options=options).aio as google:
            assert (await google.models.generate_content(model=model, contents="Say hello.")).text == SAID
            stream = await google.models.generate_content_stream(model=model, contents="Say hello.")
            assert "".join([chunk.text or "" async for chunk in stream]) == SAID
            assert "fast" in [one.display_name async for one in await google.models.list()]

    anyio.run(ask)


def test_other_clients_reach_gemini(served: Served) -> None:
    ask: Any = [{"role": "user", "content": "Say hello."}]
    with openai.OpenAI(base_url=f"{served.address}/v1", api_key=ADMIN, max_retries=0) as chat:
        completion = chat.chat.completions.create(model="gem/good", messages=ask)
        assert completion.choices[0].message.content == SAID and completion.usage is not None
        assert completion.usage.prompt_tokens == 1000 and completion.usage.completion_tokens == 50
        with chat.responses.stream(model="gem/good", input="Say hello.", store=False) as stream:
            assert stream.get_final_response().output_text == SAID
        with pytest.raises(openai.RateLimitError, match="Told to fail"):
            chat.chat.completions.create(model="gem/status-429", messages=ask)
        with pytest.raises(openai.BadRequestError, match="verbosity"):
            chat.chat.completions.create(model="gem/good", messages=ask, verbosity="low")
    with anthropic.Anthropic(base_url=served.address, api_key=ADMIN, max_retries=0) as claude:
        message = claude.messages.create(model="gem/good", max_tokens=9, messages=ask)
        assert message.content[0].type == "text" and message.content[0].text == SAID
        assert message.usage.cache_read_input_tokens == 400 and message.usage.output_tokens == 50
        with claude.messages.stream(model="gem/good", max_tokens=9, messages=ask) as words:
            assert "".join(words.text_stream) == SAID


@pytest.mark.parametrize(("model", "reason"), [("gem/blocked", "content_filter"), ("gem/unsafe", "content_filter")])
def test_a_filter_of_google_is_what_other_clients_call_so(model: str, reason: str, served: Served) -> None:
    ask: Any = [{"role": "user", "content": "Say hello."}]
    with openai.OpenAI(base_url=f"{served.address}/v1", api_key=ADMIN, max_retries=0) as chat:
        assert chat.chat.completions.create(model=model, messages=ask).choices[0].finish_reason == reason
        chunks = [*chat.chat.completions.create(model=model, messages=ask, stream=True)]
        assert chunks[-1].choices[0].finish_reason == reason
        with pytest.raises(openai.InternalServerError, match="MALFORMED_FUNCTION_CALL"):
            chat.chat.completions.create(model="gem/spoilt", messages=ask)


def test_what_is_no_answer_is_an_error_in_each_format(served: Served) -> None:
    body = {"model": "gem/garbage", "messages": [{"role": "user", "content": "Hi"}]}
    chat = served.http().post("/v1/chat/completions", json=body, headers=bearer(ADMIN))
    assert chat.status_code == 502 and chat.json()["error"]["code"] == "upstream_error"
    google = post(served, "open/garbage")
    assert google.status_code == 502 and google.json()["error"]["status"] == "UNAVAILABLE"
    assert post(served, "gem/garbage").text == "<html>this is no answer</html>"


def test_the_next_target_may_speak_another_format(served: Served, provider: ModelProvider) -> None:
    assert post(served, "safe").headers["x-mcpgate-provider"] == "gem"  # `overloaded` answers whole
    provider.received.clear()
    streamed = post(served, "safe", "streamGenerateContent", query="?alt=sse")
    assert provider.models() == ["status-503", "overloaded", "good"] and "Hello" in streamed.text


# --- Tools and signatures


def weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["gem/signing", "claude/signing"])
def test_a_chat_of_the_sdk_calls_functions_and_brings_the_signature_back(
    model: str, stream: bool, google: genai.Client, provider: ModelProvider
) -> None:
    """Both providers refuse the second request if it does not."""
    chat = google.chats.create(model=model, config=types.GenerateContentConfig(tools=[weather]))
    if stream:
        said = "".join(chunk.text or "" for chunk in chat.send_message_stream("Weather?"))
    else:
        said = chat.send_message("Weather?").text or ""
    assert said == "It is sunny in Paris." + ("It is sunny in Rome." if model == "gem/signing" else "")
    assert len(provider.received) == 2


def test_signatures_come_back_through_chat_completions(served: Served, provider: ModelProvider) -> None:
    messages: list[Any] = [{"role": "user", "content": "Weather?"}]
    tools: Any = [{"type": "function", "function": WEATHER}]
    with openai.OpenAI(base_url=f"{served.address}/v1", api_key=ADMIN, max_retries=0) as chat:
        said = chat.chat.completions.create(model="gem/signing", messages=messages, tools=tools).choices[0].message
        assert said.tool_calls is not None and [call.id for call in said.tool_calls] == ["f0", "f1"]
        messages.append(said.to_dict())
        messages += [{"role": "tool", "tool_call_id": f"f{n}", "content": "sun"} for n in range(2)]
        answer = chat.chat.completions.create(model="gem/signing", messages=messages, tools=tools)
        assert answer.choices[0].message.content == "It is sun.It is sun."
    assert _signatures(provider) == [gemini_wire.SIGNATURE, None]


def test_signatures_come_back_through_responses(served: Served, provider: ModelProvider) -> None:
    items: list[Any] = [{"role": "user", "content": "Weather?"}]
    more: Any = {"tools": [{"type": "function", "strict": False, **WEATHER}], "store": False}
    with openai.OpenAI(base_url=f"{served.address}/v1", api_key=ADMIN, max_retries=0) as client:
        with client.responses.stream(model="gem/signing", input=items, **more) as stream:
            response = stream.get_final_response()
        assert [item.type for item in response.output] == ["reasoning", "function_call", "function_call"]
        items += [item.to_dict() for item in response.output]
        items += [{"type": "function_call_output", "call_id": f"f{n}", "output": "sun"} for n in range(2)]
        answer = client.responses.create(model="gem/signing", input=items, **more)
        assert answer.output_text == "It is sun.It is sun."
    assert _signatures(provider) == [gemini_wire.SIGNATURE, None]


@pytest.mark.parametrize("stream", [True, False])
def test_signatures_come_back_through_messages(stream: bool, served: Served, provider: ModelProvider) -> None:
    messages: list[Any] = [{"role": "user", "content": "Weather?"}]
    schema = {"name": "weather", "input_schema": WEATHER["parameters"]}
    more: Any = {"model": "gem/signing", "max_tokens": 99, "tools": [schema]}
    with anthropic.Anthropic(base_url=served.address, api_key=ADMIN, max_retries=0) as client:
        if stream:
            with client.messages.stream(messages=messages, **more) as events:
                said = events.get_final_message()
        else:
            said = client.messages.create(messages=messages, **more)
        assert [block.type for block in said.content] == ["thinking", "tool_use", "tool_use"]
        assert said.stop_reason == "tool_use"
        results = [{"type": "tool_result", "tool_use_id": f"f{n}", "content": "sun"} for n in range(2)]
        messages += [{"role": "assistant", "content": said.to_dict()["content"]}, {"role": "user", "content": results}]
        answer = client.messages.create(messages=messages, **more)
        assert answer.content[0].to_dict()["text"] == "It is sun.It is sun."
    assert _signatures(provider) == [gemini_wire.SIGNATURE, None]


def _signatures(provider: ModelProvider) -> list[str | None]:
    """Those of the calls in the last request."""
    parts = [part for content in provider.received[-1].body["contents"] for part in content["parts"]]
    return [part.get("thoughtSignature") for part in parts if "functionCall" in part]


def test_a_conversation_of_another_model_goes_on_with_gemini_in_its_own_format(
    served: Served, provider: ModelProvider
) -> None:
    thoughts = (Thinking("hm", signature="claudes"), ToolCall("a", "weather", "{}"))
    written = gemini.render_answer(ChatAnswer("a", "m", thoughts, "tool_calls", None), ChatRequest("m", ()))
    said = written["candidates"][0]["content"]
    kept = said["parts"][1]["thoughtSignature"]
    result = {"functionResponse": {"id": "a", "name": "weather", "response": {"output": "snow"}}}
    contents = [ASK["contents"][0], said, {"role": "user", "parts": [result]}]
    body = json.dumps({"contents": contents, "odd": [1.0e0]}, indent=1)
    headers = {"x-goog-api-key": ADMIN}
    answer = served.http().post("/v1beta/models/gem%2Fsigning:generateContent", content=body, headers=headers)
    assert "It is snow." in answer.text
    assert provider.received[0].raw.decode() == body.replace(kept, gemini_wire.UNSIGNED)


def test_a_conversation_that_began_elsewhere_goes_on_with_gemini(served: Served, provider: ModelProvider) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
    messages: list[Any] = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "snow"},
    ]
    body = {"model": "gem/signing", "messages": messages, "tools": [{"type": "function", "function": WEATHER}]}
    answer = served.http().post("/v1/chat/completions", json=body, headers=bearer(ADMIN))
    assert answer.json()["choices"][0]["message"]["content"] == "It is snow."
    assert _signatures(provider) == [gemini_wire.UNSIGNED]


# --- Money


@pytest.mark.parametrize("method", ["generateContent", "streamGenerateContent"])
@pytest.mark.parametrize("model", ["gem/good", "open/good", "claude/good"])
def test_what_the_provider_has_counted_is_what_is_paid(model: str, method: str, served: Served) -> None:
    id, key = made(served)
    assert post(served, model, method, key).status_code == 200
    rows = wait_until(lambda: [row for row in served.usage("provider", key=id) if row["provider"]])
    assert [(row["cost_usd"], row["input_tokens"], row["output_tokens"]) for row in rows] == [(COST, 1000, 50)]


@pytest.mark.parametrize(("model", "cost"), [("gem/blocked", "0.002"), ("gem/unsafe", COST)])
def test_what_a_filter_stopped_is_paid_as_google_counts_it(model: str, cost: str, served: Served) -> None:
    for method in ("generateContent", "streamGenerateContent"):
        id, key = made(served)
        post(served, model, method, key)
        wait_until(lambda id=id: [row for row in served.usage("provider", key=id) if row["provider"]])
        assert served.cost(key=id) == cost


@pytest.mark.parametrize("model", ["gem/cut", "gem/no-usage"])
def test_what_was_delivered_is_paid_where_the_provider_says_no_end(model: str, served: Served) -> None:
    id, key = made(served)
    post(served, model, "streamGenerateContent", key)
    rows = wait_until(lambda: [row for row in served.usage("provider", key=id) if row["provider"]])
    assert 0 < rows[0]["output_tokens"] < 30 and rows[0]["input_tokens"] > 10 and float(rows[0]["cost_usd"]) > 0


@pytest.mark.parametrize(
    "config",
    [{"maxOutputTokens": 90_000}, {"max_output_tokens": 90_000}, {"candidateCount": 8, "maxOutputTokens": 9000}],
)
def test_a_request_that_the_budget_cannot_hold_never_reaches_the_provider(
    config: dict[str, Any], served: Served, provider: ModelProvider
) -> None:
    answer = post(served, "gem/good", key="mg-key-poor", generationConfig=config)
    assert answer.status_code == 402 and not provider.received


@pytest.mark.parametrize(
    "config", [{"generationConfig": {"topK": 3}}, {"generation_config": {"max_output_tokens": 90_000}}, {}]
)
def test_a_clamped_answer_may_be_as_long_as_the_budget_holds(
    config: dict[str, Any], served: Served, provider: ModelProvider
) -> None:
    _, key = made(served, 0.02)  # 2,000 tokens, without the input
    assert post(served, "cut", key=key, **config).status_code == 200
    body = provider.received[0].body
    sent = body.get("generationConfig") or body["generation_config"]
    assert 1000 < sent.pop("maxOutputTokens") < 2000 and sent == ({"topK": 3} if "generationConfig" in config else {})


def test_images_are_reserved_as_images_and_text_as_text(served: Served, provider: ModelProvider) -> None:
    data = "A1b2" * 250_000
    for mime_type, status in (("image/png", 200), ("text/plain", 402)):
        parts = [{"inlineData": {"mimeType": mime_type, "data": data}}]
        answer = post(served, "gem/good", key="mg-key-poor", contents=[{"role": "user", "parts": parts}])
        assert answer.status_code == status
    answer = post(served, "gem/good", key="mg-key-poor", contents=[{"role": "user", "parts": [{"text": data}]}])
    assert answer.status_code == 402 and len(provider.received) == 1


def test_two_hundred_streams_with_money_for_sixty_are_exactly_sixty(served: Served, provider: ModelProvider) -> None:
    served.edit(llm=_only_output(served))
    _, key = made(served, 0.6)
    ask = {"generationConfig": {"maxOutputTokens": 50}}
    with ThreadPoolExecutor(32) as pool:
        answers = [*pool.map(lambda _: post(served, "gem/good", "streamGenerateContent", key, **ask), range(200))]
    assert sorted({answer.status_code for answer in answers}) == [200, 402]
    assert sum(answer.status_code == 200 for answer in answers) == len(provider.received) == 60


def _only_output(served: Served) -> dict[str, Any]:
    """The configuration with $0.01 for each answer of 50 tokens."""
    import yaml

    llm: dict[str, Any] = yaml.safe_load(served.config.read_text())["llm"]
    return {**llm, "prices": {"*/*": {"input_usd_per_mtok": 0, "output_usd_per_mtok": 200}}}


def made(served: Served, limit_usd: float = 1) -> tuple[str, str]:
    """A new key: its id and its secret."""
    created = served.admin("POST", "keys", {"grants": {"models": ["*"]}, "budget": {"limit_usd": limit_usd}}).json()
    return created["key"]["id"], created["secret"]


@pytest.mark.parametrize(
    "model", ["gemini-2.5-flash", "gemini-2.5-pro", "gemini-3-pro-preview", "gemini-3.5-flash-lite"]
)
def test_googles_models_have_prices(model: str) -> None:
    config = LlmConfig.model_validate({"providers": {"g": {"type": "gemini"}}})
    usage = Usage(input_tokens=1000, output_tokens=100, cache_read_tokens=500)
    plain = Usage(input_tokens=1000, output_tokens=100)
    cost, full = (ModelPrices(config).cost("g", model, one) for one in (usage, plain))
    assert cost is not None and full is not None and 0 < cost < full


# --- The provider's key


@pytest.mark.parametrize(("key", "wrong"), [("AIza-known", ""), ("AIza-unknown", "does not accept the key")])
def test_a_check_says_whether_google_knows_the_key(key: str, wrong: str, provider: ModelProvider) -> None:
    async def probe() -> str:
        settings = {"type": "gemini", "base_url": provider.address.removesuffix("/v1"), "api_key": key}
        one = HttpProvider("g", ProviderConfig.model_validate(settings))
        try:
            return await one.probe()
        finally:
            await one.aclose()

    assert wrong in (said := anyio.run(probe)) and bool(said) == bool(wrong)
