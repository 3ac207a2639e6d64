"""Clients that want to be read differently by the gateway and by the provider, to pay less, or to stop the gateway; and
providers that are broken or malicious."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.flows.governed import ADMIN, TRUSTED, Served, bearer, serving, write_config
from tests.model_provider import ModelProvider, model_provider

PRICE = {"input_usd_per_mtok": 2, "output_usd_per_mtok": 10}
REST = '"messages": [{"role": "user", "content": "Hi."}]'


@pytest.fixture(scope="module")
def provider() -> Iterator[ModelProvider]:
    with model_provider() as running:
        yield running


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, provider: ModelProvider) -> Iterator[Served]:
    providers = {
        "open": {"type": "openai", "base_url": provider.address, "api_key": "sk-of-the-provider"},
        "claude": {"type": "anthropic", "base_url": provider.address.removesuffix("/v1"), "api_key": "sk-ant"},
    }
    models = {
        "good": {"targets": [{"target": "open/good"}]},
        "mix": {"strategy": "weight", "targets": [{"target": "open/good"}]},
    }
    llm = {"providers": providers, "models": models, "prices": {"*/*": PRICE}, "unknown_model": "good"}
    admin = {**TRUSTED["admin"], "grants": {"tools": ["*"], "models": ["*"], "admin": True}}
    poor = {"secret": "mg-key-poor", "grants": {"models": ["*"]}, "budget": {"limit_usd": 0.5}}
    folder = tmp_path_factory.mktemp("abuse")
    governance = {"keys": {"admin": admin, "poor": poor}}
    with serving(folder, write_config(folder, {}, governance=governance, llm=llm)) as running:
        yield running


@pytest.fixture(autouse=True)
def fresh(provider: ModelProvider) -> None:
    provider.received.clear()


def send(
    served: Served, body: str, path: str = "/v1/chat/completions", key: str = ADMIN, **headers: Any
) -> httpx2.Response:
    return served.http().post(path, content=body, headers={**bearer(key), **headers})


# --- Clients


@pytest.mark.parametrize(
    "body",
    [
        '{"model": "dear", %s, "\\u006dodel": "good"}',
        '{"model": "dear", %s, "\\u006dodel": "unknown"}',
        '{"model": "dear", %s, "model": "good"}',
        '{"model": "good", "max_tokens": 9, %s, "max_tokens": 1, "x": 12345678901234567890123}',
    ],
)
def test_a_provider_reads_the_model_and_the_limits_that_were_admitted(
    body: str, served: Served, provider: ModelProvider
) -> None:
    assert send(served, body % REST).status_code == 200
    (received,) = provider.received
    pairs = json.loads(received.raw, object_pairs_hook=list)
    assert len(dict(pairs)) == len(pairs) and dict(pairs)["model"] == "good", "no field occurs twice"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"model": "good", %s, "Model": "dear"}', "Model"),
        ('{"model": "good", %s, "max_to\u212aens": 9}', "max_to\u212aens"),
        ('{"model": "open/good\\r\\nx-evil: 1", %s}', "model"),
        ('{"model": "open/\\ud800", %s}', "model"),
        ('{"model": "good", "background": true, %s}', "background"),
    ],
)
def test_what_a_provider_may_read_differently_is_refused(
    body: str, field: str, served: Served, provider: ModelProvider
) -> None:
    answer = send(served, body % REST)
    assert answer.status_code == 400 and answer.json()["error"]["field"] == field and not provider.received


@pytest.mark.parametrize("model", ["good", "mix"])
def test_a_session_or_a_header_that_cannot_be_encoded_harms_nothing(model: str, served: Served) -> None:
    body = f'{{"model": "{model}", "prompt_cache_key": "\\ud800", {REST}}}'
    assert send(served, body, **{"openai-beta": b"\xe9"}).status_code == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_the_highest_limit_that_is_named_is_reserved(path: str, served: Served, provider: ModelProvider) -> None:
    model = "claude/good" if path == "/v1/messages" else "open/good"
    body = f'{{"model": "{model}", "max_completion_tokens": 1, "max_tokens": 90000, {REST}}}'
    assert send(served, body, path, "mg-key-poor").status_code == 402 and not provider.received


def test_a_field_that_occurs_a_hundred_thousand_times_does_not_hold_up_the_gateway(served: Served) -> None:
    inner = ",".join(['{"model": "a"}'] * 100_000)
    began = time.monotonic()
    assert send(served, f'{{"model": "good", "messages": [{inner}]}}').status_code == 200
    assert time.monotonic() - began < 10
