"""Embeddings from providers of another format than the client's."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from google import genai
from google.genai import types

from tests.bedrock_wire import API_KEY, REGION
from tests.flows.governed import ADMIN, TRUSTED, Served, bearer, serving, write_config
from tests.model_provider import ModelProvider

TITAN, COHERE = "amazon.titan-embed-text-v2:0", "cohere.embed-v4:0"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, provider: ModelProvider) -> Iterator[Served]:
    folder, origin = tmp_path_factory.mktemp("embeddings"), provider.address.removesuffix("/v1")
    providers = {
        "gem": {"type": "gemini", "base_url": origin, "api_key": "AIza-1"},
        "open": {"type": "openai", "base_url": provider.address, "api_key": "sk-open"},
        "aws": {"type": "bedrock", "base_url": origin, "aws": {"region": REGION}, "api_key": API_KEY},
        "claude": {"type": "anthropic", "base_url": provider.address, "api_key": "sk-ant"},
    }
    models = {"embed": {"targets": [{"target": "claude/none"}, {"target": "gem/good"}]}}
    prices = {"*/*": {"input_usd_per_mtok": 2, "output_usd_per_mtok": 10}}
    keys = {"admin": {**TRUSTED["admin"], "grants": {"admin": True, "models": ["*"]}}}
    llm = {"providers": providers, "models": models, "prices": prices}
    with serving(folder, write_config(folder, {}, governance={"keys": keys}, llm=llm)) as running:
        yield running


@pytest.fixture
def client(served: Served, provider: ModelProvider) -> openai.OpenAI:
    provider.received.clear()
    return openai.OpenAI(base_url=f"{served.address}/v1", api_key=ADMIN, max_retries=0, http_client=served.http())


@pytest.fixture
def google(served: Served, provider: ModelProvider) -> Iterator[genai.Client]:
    provider.received.clear()
    with genai.Client(api_key=ADMIN, http_options=types.HttpOptions(base_url=served.address)) as made:
        yield made


@pytest.mark.parametrize("encoding", ["float", "base64", None])
@pytest.mark.parametrize("model", ["gem/good", f"aws/{COHERE}"])
def test_openais_sdk_embeds_texts_at_other_providers(
    model: str, encoding: Any, client: openai.OpenAI, provider: ModelProvider
) -> None:
    more: dict[str, Any] = {"extra_headers": {"x-mcpgate-cache": "off"}}  # without a format, the SDK asks for base64
    if encoding is not None:
        more["encoding_format"] = encoding
    answer = client.embeddings.create(model=model, input=["a", "b", "c"], dimensions=256, user="ada", **more)
    vectors = [one.embedding for one in answer.data]
    if encoding != "base64":  # which the SDK decodes only if it has asked for it by itself
        assert vectors == [[0.5, -0.5], [1.5, -0.5], [2.5, -0.5]]
    assert [one.index for one in answer.data] == [0, 1, 2] and answer.model == model.partition("/")[2]
    sent = provider.received[-1]
    if model == "gem/good":
        assert sent.path.endswith("/models/good:batchEmbedContents") and answer.usage.prompt_tokens == 10
        assert sent.body["requests"][2] == {
            "model": "models/good",
            "content": {"parts": [{"text": "c"}]},
            "outputDimensionality": 256,
        }
    else:
        assert sent.path.endswith("/invoke") and sent.body == {
            "texts": ["a", "b", "c"],
            "input_type": "search_document",
            "embedding_types": ["float"],
            "output_dimension": 256,
        }


def test_titan_embeds_one_text(client: openai.OpenAI, provider: ModelProvider) -> None:
    raw = client.embeddings.with_raw_response.create(model=f"aws/{TITAN}", input="a", dimensions=256)
    assert raw.parse().data[0].embedding == [0.5, -0.5] and raw.headers["x-mcpgate-cost-usd"] == "0.00002"
    assert provider.received[-1].body == {"inputText": "a", "dimensions": 256}
    with pytest.raises(openai.BadRequestError, match="one text at a time"):
        client.embeddings.create(model=f"aws/{TITAN}", input=["a", "b"])


def test_googles_sdk_embeds_contents_at_openais(google: genai.Client, provider: ModelProvider) -> None:
    config = types.EmbedContentConfig(output_dimensionality=256)
    answer = google.models.embed_content(model="open/good", contents=["a", "b"], config=config)
    assert [one.values for one in answer.embeddings or ()] == [[0.5, -0.5], [1.5, -0.5]]
    sent = provider.received[-1].body
    assert sent == {"model": "good", "input": ["a", "b"], "encoding_format": "float", "dimensions": 256}


@pytest.mark.parametrize("field", ["taskType", "task_type"])
def test_one_content_and_its_task_reach_cohere(field: str, served: Served, provider: ModelProvider) -> None:
    body = {"content": {"parts": [{"text": "a"}, {"text": "b"}]}, field: "RETRIEVAL_QUERY"}
    answer = served.http().post(f"/v1beta/models/aws%2F{COHERE}:embedContent", json=body, headers=bearer(ADMIN))
    assert answer.json() == {"embedding": {"values": [0.5, -0.5]}}, "Cohere tells its tokens in a header only"
    assert provider.received[-1].body["texts"] == ["a\nb"]
    assert provider.received[-1].body["input_type"] == "search_query"


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"input": [1, 2, 3]}, "input"),
        ({"input": [[1], [2]]}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "truncate": True}, "truncate"),
        ({"input": "a", "input_type": "poem"}, "input_type"),
    ],
)
def test_what_has_no_form_at_gemini_is_refused_by_its_name(
    body: dict[str, Any], name: str, served: Served, provider: ModelProvider
) -> None:
    provider.received.clear()
    answer = served.http().post("/v1/embeddings", json={"model": "gem/good", **body}, headers=bearer(ADMIN))
    assert answer.status_code == 400 and answer.json()["error"]["param"] == name and not provider.received


@pytest.mark.parametrize(
    ("method", "body", "name"),
    [
        ("embedContent", {"content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": "AA"}}]}}, "content"),
        ("embedContent", {"content": {"parts": [{"text": "a"}]}, "title": "T"}, "title"),
        ("embedContent", {"content": {"parts": [{"text": "a"}]}, "taskType": "RETRIEVAL_QUERY"}, "taskType"),
        ("embedContent", {"content": {"parts": [{"text": "a"}]}, "taskType": "FACT_VERIFICATION"}, "taskType"),
        ("embedContent", {"content": {"parts": []}}, "content"),
        ("batchEmbedContents", {"requests": []}, "requests"),
        (
            "batchEmbedContents",
            {"requests": [{"content": {"parts": [{"text": "a"}]}, "outputDimensionality": n} for n in (1, 2)]},
            "requests",
        ),
    ],
)
def test_what_has_no_form_at_openais_is_refused_by_its_name(
    method: str, body: dict[str, Any], name: str, served: Served, provider: ModelProvider
) -> None:
    provider.received.clear()
    answer = served.http().post(f"/v1beta/models/open%2Fgood:{method}", json=body, headers=bearer(ADMIN))
    assert answer.status_code == 400 and name in answer.text and not provider.received


def test_models_without_embeddings_say_so(served: Served) -> None:
    for model in ("claude/good", "aws/anthropic.claude-sonnet-5"):
        answer = served.http().post("/v1/embeddings", json={"model": model, "input": "a"}, headers=bearer(ADMIN))
        assert answer.status_code == 400 and answer.json()["error"]["param"] == "model", answer.text


def test_an_error_and_an_answer_that_is_none_are_told_in_the_clients_format(served: Served) -> None:
    for model, status in (("gem/status-429", 429), ("gem/garbage", 502)):
        answer = served.http().post("/v1/embeddings", json={"model": model, "input": "a"}, headers=bearer(ADMIN))
        assert answer.status_code == status and answer.json()["error"]["message"], answer.text
    answer = served.http().post(
        "/v1beta/models/open%2Fstatus-400:embedContent",
        content=json.dumps({"content": {"parts": [{"text": "a"}]}}),
        headers=bearer(ADMIN),
    )
    assert answer.status_code == 400 and answer.json()["error"]["status"] == "INVALID_ARGUMENT"
