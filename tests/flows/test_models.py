"""The LLM face in front of a provider that speaks OpenAI's and Anthropic's formats: bytes, streams, routes, money."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.flows.governed import ADMIN, TRUSTED, Served, bearer, serving, wait_until, write_config
from tests.model_provider import USAGE, WORDS, ModelProvider, whole_chat, whole_message

PRICE = {"input_usd_per_mtok": 2, "output_usd_per_mtok": 10, "cache_read_usd_per_mtok": 0.5}
COST = "0.0019"
"""600 × $2 + 400 × $0.50 + 50 × $10, each for a million."""
ASK = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 100}


def target(name: str, **more: Any) -> dict[str, Any]:
    return {"target": f"open/{name}", **more}


def llm(provider: ModelProvider) -> dict[str, Any]:
    models = {
        "fast": {"targets": [target("good")]},
        "safe": {"targets": [target("status-503", retries=1), target("hang", timeout_s=0.3), target("good")]},
        "strict": {"targets": [target("status-429", fallback_on=[500]), target("good")]},
        "overflow": {"targets": [target("overloaded"), target("good")]},
        "flaky": {"targets": [target("flaky", retries=2)]},
        "mix": {"strategy": "weight", "targets": [target("good", weight=1), target("other", weight=3)]},
        "auto": {
            "routes": [
                {"when": {"metadata.env": "dev"}, "targets": [target("cheap")]},
                {"when": {"stream": True, "key": "bob"}, "targets": [target("streaming")]},
                {"targets": [{"target": "fast"}]},
            ]
        },
        "dear": {"targets": [target("dear")], "on_budget": "fast"},
    }
    providers = {
        "open": {"type": "openai", "base_url": provider.address, "api_key": "sk-of-the-provider"},
        "claude": {"type": "anthropic", "base_url": provider.address.removesuffix("/v1"), "api_key": "sk-ant"},
        "two": {
            "type": "openai",
            "base_url": provider.address,
            "keys": [{"api_key": "first", "weight": 1, "models": ["a*"]}, {"api_key": "second", "models": ["b*"]}],
        },
        "dead": {"type": "openai", "base_url": "http://127.0.0.1:9/v1", "connect_timeout_s": 2},
    }
    prices = {"open/dear": {"input_usd_per_mtok": 9000, "output_usd_per_mtok": 9000}, "*/*": PRICE}
    return {"providers": providers, "models": models, "prices": prices}


KEYS = {
    **TRUSTED,
    "all": {"secret": "mg-key-for-all", "grants": {"models": ["*"]}, "metadata": {"env": ["dev", "prod"]}},
    "bob": {"secret": "mg-key-of-bob", "grants": {"models": ["fast", "auto"]}},
    "poor": {"secret": "mg-key-poor", "grants": {"models": ["*"]}, "budget": {"limit_usd": 0.5}},
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, provider: ModelProvider) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("models")
    keys = {
        name: {**key, "grants": {**key["grants"], "models": ["*"]}} if name == "admin" else key
        for name, key in KEYS.items()
    }
    with serving(folder, write_config(folder, {}, governance={"keys": keys}, llm=llm(provider))) as running:
        yield running


@pytest.fixture(autouse=True)
def fresh(provider: ModelProvider) -> None:
    provider.received.clear()
    provider.go_on.clear()
    provider.gone.clear()


def post(
    served: Served, model: str, path: str = "/v1/chat/completions", key: str = ADMIN, **more: Any
) -> httpx2.Response:
    headers = {**bearer(key), **more.pop("headers", {})}
    return served.http().post(path, json={"model": model, **ASK, **more}, headers=headers)


# --- Bytes


@pytest.mark.parametrize(
    ("path", "model", "whole"),
    [
        ("/v1/chat/completions", "open/good", whole_chat("good", True)),
        ("/v1/messages", "claude/good", whole_message("good")),
    ],
)
def test_an_answer_in_the_providers_own_format_comes_byte_for_byte(
    path: str, model: str, whole: dict[str, Any], served: Served
) -> None:
    answer = post(served, model, path)
    assert answer.status_code == 200 and answer.content == json.dumps(whole).encode()
    assert (
        answer.headers["x-mcpgate-provider"] == model.split("/", maxsplit=1)[0]
        and answer.headers["x-mcpgate-model"] == "good"
    )
    assert answer.headers["x-mcpgate-attempts"] == "1" and answer.headers["x-mcpgate-cost-usd"]


def test_a_request_goes_through_byte_for_byte_but_for_its_model(served: Served, provider: ModelProvider) -> None:
    text = '{ "messages":[{"role":"user","content":"\\u00e9 \\"model\\": \\"fast\\""}], "n":1.0e0 ,\n"model" : "fast", "x":[12345678901234567890123]}'
    headers = {**bearer(ADMIN), "content-type": "application/json"}
    answer = served.http().post("/v1/chat/completions", content=text.replace('"n":1.0e0 ,', ""), headers=headers)
    assert answer.status_code == 200, answer.text
    (received,) = provider.received
    assert received.raw.decode() == text.replace('"n":1.0e0 ,', "").replace('"model" : "fast"', '"model" : "good"')
    assert received.headers["authorization"] == "Bearer sk-of-the-provider" and ADMIN not in str(received.headers)


def test_headers_of_a_format_go_on_to_its_provider(served: Served, provider: ModelProvider) -> None:
    betas = {"anthropic-version": "2026-10-21", "anthropic-beta": "one,two", "x-other": "no"}
    post(served, "claude/good", "/v1/messages?beta=true", headers=betas)
    assert provider.received[0].path == "/v1/messages?beta=true"
    sent = provider.received[0].headers
    assert (sent["anthropic-version"], sent["anthropic-beta"], sent["x-api-key"]) == ("2026-10-21", "one,two", "sk-ant")
    assert "x-other" not in sent and "authorization" not in sent


@pytest.mark.parametrize("asks", [True, False])
def test_a_stream_comes_as_it_is_and_its_usage_only_to_who_asked(asks: bool, served: Served) -> None:
    options = {"stream_options": {"include_usage": True}} if asks else {}
    answer = post(served, "fast", stream=True, **options)
    assert answer.headers["content-type"] == "text/event-stream"
    chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in chunks if one["choices"]) == "".join(WORDS)
    assert [one["usage"] for one in chunks if one.get("usage")] == ([USAGE] if asks else [])
    assert "data: [DONE]" in answer.text and f": x-mcpgate-cost-usd: {COST}" in answer.text


def test_a_stream_of_messages_is_not_touched(served: Served) -> None:
    answer = post(served, "claude/good", "/v1/messages", stream=True)
    assert 'event: ping\ndata: {"type": "ping"}\n\n' in answer.text and answer.text.count("event: ") == 11


def test_embeddings_are_served_and_paid(served: Served) -> None:
    answer = served.http().post("/v1/embeddings", json={"model": "fast", "input": "a"}, headers=bearer(ADMIN))
    assert answer.json()["data"][0]["embedding"] == [0.5, -0.5] and answer.headers["x-mcpgate-cost-usd"] == "0.00002"


def test_tokens_are_counted_by_the_provider_or_estimated(served: Served) -> None:
    counted = post(served, "claude/good", "/v1/messages/count_tokens")
    assert counted.json() == {"input_tokens": 77}
    assert 10 < post(served, "fast", "/v1/messages/count_tokens").json()["input_tokens"] < 200


# --- Routes


def test_the_next_target_is_taken_after_failures_and_retries(served: Served, provider: ModelProvider) -> None:
    answer = post(served, "safe")
    assert provider.models() == ["status-503", "status-503", "hang", "good"]
    assert answer.status_code == 200 and answer.headers["x-mcpgate-attempts"] == "4"


def test_an_error_that_no_fallback_names_comes_as_the_provider_sent_it(served: Served, provider: ModelProvider) -> None:
    answer = post(served, "strict")
    assert provider.models() == ["status-429"]
    assert answer.status_code == 429 and answer.json()["error"]["message"] == "Told to fail with 429"
    assert answer.headers["retry-after"] == "0"


def test_an_error_event_before_the_first_token_falls_back(served: Served, provider: ModelProvider) -> None:
    answer = post(served, "overflow", stream=True)
    assert provider.models() == ["overloaded", "good"] and "Hello" in answer.text and "overloaded" not in answer.text


def test_a_retry_waits_as_long_as_the_provider_says(served: Served, provider: ModelProvider) -> None:
    provider.failures_left = 2
    assert post(served, "flaky").headers["x-mcpgate-attempts"] == "3"
    provider.failures_left = 3
    assert post(served, "flaky").status_code == 503


@pytest.mark.parametrize(("model", "status"), [("dead/any", 502), ("open/status-401", 502), ("open/garbage", 200)])
def test_what_no_provider_answers_says_why(model: str, status: int, served: Served) -> None:
    answer = post(served, model)
    assert answer.status_code == status
    if status == 502:
        error = answer.json()["error"]
        assert error["code"] == "upstream_error" and error["attempts"][0]["target"] == model


def test_a_session_stays_with_its_target_and_others_are_spread_by_weight(
    served: Served, provider: ModelProvider
) -> None:
    for _ in range(10):
        post(served, "mix", headers={"x-session-id": "s1"})
    assert len({*provider.models()}) == 1
    provider.received.clear()
    for number in range(60):
        post(served, "mix", headers={"x-session-id": f"s{number}"})
    assert 5 < provider.models().count("good") < 30


def test_routes_look_at_who_is_asking_and_what(served: Served, provider: ModelProvider) -> None:
    post(served, "auto", key="mg-key-for-all", headers={"x-mcpgate-metadata": '{"env": "dev"}'})
    post(served, "auto", key="mg-key-of-bob", stream=True)
    post(served, "auto", key="mg-key-of-bob")
    assert provider.models() == ["cheap", "streaming", "good"]


def test_a_target_that_keeps_failing_is_left_alone(served: Served, provider: ModelProvider) -> None:
    for _ in range(5):
        assert post(served, "dead/mute").status_code == 502
    answer = post(served, "dead/mute")  # the only one there is: it is tried nonetheless
    assert answer.status_code == 502


def test_each_key_is_used_for_its_models(served: Served, provider: ModelProvider) -> None:
    post(served, "two/a1")
    post(served, "two/b1")
    assert [one.headers["authorization"] for one in provider.received] == ["Bearer first", "Bearer second"]
    assert "no key" in post(served, "two/c1").json()["error"]["message"]


# --- Rights and money


@pytest.mark.parametrize(
    ("model", "key", "status", "code"),
    [
        ("fast", None, 401, "missing_key"),
        ("fast", "mg-nobody-has-this", 401, "invalid_key"),
        ("safe", "mg-key-of-bob", 403, "not_allowed"),
        ("open/good", "mg-key-of-bob", 403, "not_allowed"),
        ("fats", ADMIN, 404, "unknown_model"),
        ("nowhere/model", ADMIN, 404, "unknown_model"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_refusals_have_the_shape_of_the_clients_format(
    path: str, model: str, key: str | None, status: int, code: str, served: Served, provider: ModelProvider
) -> None:
    answer = served.http().post(path, json={"model": model, **ASK}, headers={} if key is None else bearer(key))
    body = answer.json()
    assert answer.status_code == status and body["error"]["code"] == code and not provider.received
    assert ("type" in body) == (path == "/v1/messages") and isinstance(body["error"]["type"], str)
    assert answer.headers.get("x-should-retry") == ("false" if status == 401 else None)
    if model == "fats":
        assert body["error"]["nearest"][0] == "fast" and "did you mean fast" in body["error"]["message"]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ("[]", "object"),
        ("{", "JSON"),
        ('{"messages": []}', "model"),
        ('{"model": "fast", "stream": 1}', "stream"),
        ('{"model": "fast", "max_tokens": -1}', "max_tokens"),
    ],
)
def test_a_malformed_body_says_what_is_wrong(body: str, where: str, served: Served) -> None:
    answer = served.http().post("/v1/chat/completions", content=body, headers=bearer(ADMIN))
    assert answer.status_code == 400 and where in answer.json()["error"]["message"]


def test_a_client_sees_the_models_that_it_may_use(served: Served) -> None:
    shown = served.http().get("/v1/models", headers=bearer("mg-key-of-bob")).json()
    assert [one["id"] for one in shown["data"]] == ["auto", "fast"]
    anthropic = {**bearer("mg-key-of-bob"), "anthropic-version": "2023-06-01"}
    assert served.http().get("/v1/models", headers=anthropic).json()["data"][0]["type"] == "model"
    assert served.http().get("/v1/models/fast", headers=anthropic).json()["id"] == "fast"
    assert served.http().get("/v1/models/safe", headers=anthropic).status_code == 404


def test_clients_probe_without_a_key(served: Served) -> None:
    http = served.http()
    assert http.head("/").status_code == http.head("/api/hello").status_code == 200


def test_a_request_that_the_budget_cannot_hold_never_reaches_the_provider(
    served: Served, provider: ModelProvider
) -> None:
    answer = post(served, "open/dear", key="mg-key-poor")
    assert answer.status_code == 402 and answer.headers["x-should-retry"] == "false" and not provider.received
    assert answer.json()["error"]["code"] == "budget_exceeded"
    assert post(served, "dear", key="mg-key-poor").status_code == 200, "its on_budget alias is taken"
    assert provider.models() == ["good"]


@pytest.mark.parametrize(
    ("model", "path", "stream", "cost", "tokens"),
    [
        ("open/good", "/v1/chat/completions", False, COST, (1000, 50)),
        ("open/good", "/v1/chat/completions", True, COST, (1000, 50)),
        ("claude/good", "/v1/messages", False, "0.0019", (1000, 50)),
        ("claude/good", "/v1/messages", True, "0.0019", (1000, 50)),
    ],
)
def test_what_the_provider_has_counted_is_what_is_paid(
    model: str, path: str, stream: bool, cost: str, tokens: tuple[int, int], served: Served
) -> None:
    id, key = made(served, budget={"limit_usd": 1})
    post(served, model, path, key, stream=stream)
    wait_until(lambda: served.usage("provider,model", key=id))
    rows = [row for row in served.usage("provider,model", key=id) if row["provider"]]
    assert [(row["cost_usd"], row["input_tokens"], row["output_tokens"]) for row in rows] == [(cost, *tokens)]


def made(served: Served, **spec: Any) -> tuple[str, str]:
    """A new key: its id and its secret."""
    created = served.admin("POST", "keys", {"grants": {"models": ["*"]}, **spec}).json()
    return created["key"]["id"], created["secret"]


@pytest.mark.parametrize("model", ["open/cut", "open/no-usage"])
def test_what_was_delivered_is_paid_where_the_provider_says_nothing(model: str, served: Served) -> None:
    id, key = made(served, budget={"limit_usd": 1})
    answer = post(served, model, key=key, stream=True)
    assert ("upstream_error" in answer.text) == (model == "open/cut")
    row = next(row for row in served.usage("provider", key=id) if row["provider"])
    assert 0 < row["output_tokens"] < 30 and row["input_tokens"] > 10 and float(row["cost_usd"]) > 0


def test_a_client_that_hangs_up_ends_the_stream_and_pays_what_it_got(served: Served, provider: ModelProvider) -> None:
    id, key = made(served, budget={"limit_usd": 1})
    body = json.dumps({"model": "open/slow", "stream": True, **ASK}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", int(served.address.rpartition(":")[2]))) as connection:
        connection.sendall(head.encode() + body)
        while b"from" not in connection.recv(4096):
            pass
    assert provider.gone.wait(10)
    row = wait_until(lambda: [one for one in served.usage("provider,outcome", key=id) if one["provider"]])[0]
    assert row["outcome"] == "cancelled" and 0 < row["output_tokens"] < 30 and float(row["cost_usd"]) > 0


def test_a_revoked_key_loses_its_stream(served: Served, provider: ModelProvider) -> None:
    id, key = made(served)
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(post, served, "open/slow", key=key, stream=True)
        wait_until(lambda: provider.received)
        assert served.admin("DELETE", f"keys/{id}").status_code == 200
        assert "not_allowed" in answer.result(10).text and provider.gone.wait(10)


def test_what_a_provider_is_allowed_to_write_is_what_is_reserved(served: Served, provider: ModelProvider) -> None:
    _, key = made(served, budget={"limit_usd": 0.3})  # 32,000 tokens are $0.32
    ask = {"model": "claude/good", "messages": ASK["messages"]}
    answer = served.http().post("/v1/chat/completions", json=ask, headers=bearer(key))
    assert answer.status_code == 402 and not provider.received


def test_two_hundred_streams_with_money_for_sixty_are_exactly_sixty(tmp_path: Path, provider: ModelProvider) -> None:
    keys = {"one": {"secret": "mg-key-for-one", "grants": {"models": ["*"]}, "budget": {"limit_usd": 0.6}}}
    price = {"open/good": {"input_usd_per_mtok": 0, "output_usd_per_mtok": 200}}
    settings = {**llm(provider), "prices": price}
    governance = {"keys": {**TRUSTED, **keys}, "hold_wait_s": 5}
    with serving(tmp_path, write_config(tmp_path, {}, governance=governance, llm=settings)) as served:
        ask = {"max_tokens": 50, "stream": True}
        with ThreadPoolExecutor(64) as pool:
            answers = [*pool.map(lambda _: post(served, "open/good", key="mg-key-for-one", **ask), range(200))]
        assert sorted({answer.status_code for answer in answers}) == [200, 402]
        assert sum(answer.status_code == 200 for answer in answers) == len(provider.received) == 60
        assert served.usage()[0]["cost_usd"] == "0.6"
