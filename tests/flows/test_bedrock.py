"""Amazon Bedrock and Vertex AI behind the LLM face: signatures, tokens, translations, streams, errors, money. The SDKs of
OpenAI and Anthropic are the clients."""

import asyncio
import datetime
import json
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import anthropic
import anyio
import botocore.session
import httpx2
import jwt
import openai
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from mcpgate import lifecycle
from mcpgate.app import make_provider
from mcpgate.config.llm import LlmConfig, ProviderConfig
from mcpgate.config.settings import Config
from mcpgate.errors import ConfigError, UpstreamTimeout
from mcpgate.governance.records import Usage
from mcpgate.llm.prices import ModelPrices
from mcpgate.llm.provider import Call, Unreachable
from tests.bedrock_wire import ACCESS, API_KEY, REGION, SECRET
from tests.flows.governed import ADMIN, TRUSTED, Served, bearer, serving, wait_until, write_config
from tests.model_provider import WORDS, ModelProvider

SAID = "".join(WORDS)
AWS = {"region": REGION, "access_key_id": ACCESS, "secret_access_key": SECRET}
PRICE = {
    "input_usd_per_mtok": 2,
    "output_usd_per_mtok": 10,
    "cache_read_usd_per_mtok": 0.5,
    "cache_write_usd_per_mtok": 3,
}
COST = "0.002"
"""500 × $2 + 400 × $0.50 + 100 × $3 + 50 × $10, each for a million."""
NOVA = "eu.amazon.nova-lite-v1:0"
ARN = "arn:aws:bedrock:eu-central-1:123456789012:application-inference-profile/ab12"
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, provider: ModelProvider) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("bedrock")
    origin = provider.address.removesuffix("/v1")
    bedrock = {"type": "bedrock", "base_url": origin, "timeout_s": 20}
    providers = {
        "aws": {**bedrock, "aws": AWS},
        "keyed": {**bedrock, "aws": {"region": REGION}, "api_key": API_KEY},
        "wrong": {**bedrock, "aws": {**AWS, "secret_access_key": "another-secret"}},
        "open": {"type": "openai", "base_url": provider.address, "api_key": "sk-open"},
    }
    models = {
        "fast": {"targets": [{"target": "aws/good"}]},
        "kept": {"targets": [{"target": "aws/good"}], "prompt_cache": True},
        "garbled": {"targets": [{"target": "aws/garbage"}, {"target": "open/good"}]},
        "safe": {
            "targets": [
                *({"target": f"aws/{name}"} for name in ("status-429", "status-424", "throttled")),
                {"target": "open/good"},
            ]
        },
    }
    keys = {
        "admin": {**TRUSTED["admin"], "grants": {"tools": ["*"], "models": ["*"], "admin": True}},
        "poor": {"secret": "mg-key-poor", "grants": {"models": ["*"]}, "budget": {"limit_usd": 0.01}},
    }
    prices = {
        f"aws/{name}": PRICE for name in ("good", "tools", "cut", "broken", "slow", "mid-frame", "flipped", "no-usage")
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
def gpt(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.address}/v1", api_key=ADMIN, max_retries=0) as client:
        yield client


@pytest.fixture
def claude(served: Served) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=served.address, api_key=ADMIN, max_retries=0) as client:
        yield client


def post(served: Served, model: str, key: str = ADMIN, **more: Any) -> httpx2.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 100}
    return served.http().post("/v1/chat/completions", json={**body, **more}, headers=bearer(key))


# --- Requests and answers


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("aws/good", "/model/good/converse"),
        ("keyed/good", "/model/good/converse"),
        (f"aws/{NOVA}", "/model/eu.amazon.nova-lite-v1%3A0/converse"),
        (f"aws/{ARN}", f"/model/{ARN.replace(':', '%3A').replace('/', '%2F')}/converse"),
    ],
)
def test_a_request_is_signed_and_its_answer_translated(
    name: str, path: str, served: Served, provider: ModelProvider
) -> None:
    answer = post(served, name)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["choices"][0]["message"]["content"] == SAID and body["model"] == name.partition("/")[2]
    assert body["usage"]["prompt_tokens"] == 1000 and body["usage"]["prompt_tokens_details"]["cached_tokens"] == 400
    (received,) = provider.received
    assert received.path == path and SECRET not in str(received.headers)
    assert received.body == {
        "messages": [{"role": "user", "content": [{"text": "Say hello."}]}],
        "inferenceConfig": {"maxTokens": 100},
    }


def test_a_long_body_is_signed_as_well(served: Served) -> None:
    text = "word " * 200_000
    assert post(served, "aws/good", messages=[{"role": "user", "content": text}]).status_code == 200


def paid(served: Served, key: str) -> dict[str, Any]:
    """What the ledger has of a key, once it is there."""
    rows: list[dict[str, Any]] = wait_until(
        lambda: [one for one in served.usage("provider,outcome", key=key) if one["provider"]]
    )
    return rows[0]


def made_key(served: Served) -> tuple[str, str]:
    created = served.admin("POST", "keys", {"grants": {"models": ["*"]}, "budget": {"limit_usd": 1}}).json()
    return created["key"]["id"], created["secret"]


@pytest.mark.parametrize("stream", [False, True])
def test_the_usage_is_settled_exactly(stream: bool, served: Served) -> None:
    id, key = made_key(served)
    answer = post(served, "fast", key=key, stream=stream)
    assert (
        (f": x-mcpgate-cost-usd: {COST}\n" in answer.text) if stream else answer.headers["x-mcpgate-cost-usd"] == COST
    )
    row = paid(served, id)
    assert (row["input_tokens"], row["output_tokens"], row["cache_read_tokens"]) == (1000, 50, 400)
    assert float(row["cost_usd"]) == float(COST) and row["outcome"] == "ok"


def test_without_prices_of_its_own_a_model_costs_what_the_list_says(served: Served) -> None:
    config = LlmConfig.model_validate({"providers": {"aws": {"type": "bedrock", "aws": AWS}}})
    nano = ModelPrices(config).cost("aws", NOVA, Usage(0, 1000, 50, 400, 100))
    assert nano is not None and nano > 0
    assert float(post(served, f"aws/{NOVA}").headers["x-mcpgate-cost-usd"]) == pytest.approx(nano / 1e9)


def test_an_openai_client_streams(gpt: openai.OpenAI) -> None:
    said: Any = [{"role": "user", "content": "Say hello."}]
    chunks = list(
        gpt.chat.completions.create(model="fast", messages=said, stream=True, stream_options={"include_usage": True})
    )
    assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == SAID
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 50
    assert {one.model for one in chunks} == {"good"}


@pytest.mark.parametrize("model", ["aws/good", "aws/pretty"])
def test_an_anthropic_client_streams(model: str, claude: anthropic.Anthropic) -> None:
    asked: Any = [{"role": "user", "content": "Say hello."}]
    with claude.messages.stream(model=model, max_tokens=100, messages=asked) as stream:
        message = stream.get_final_message()
    assert message.content[0].type == "text" and message.content[0].text == SAID
    assert message.stop_reason == "end_turn" and message.usage.cache_read_input_tokens == 400


@pytest.mark.parametrize("streamed", [False, True])
def test_an_openai_client_calls_tools_at_once(streamed: bool, gpt: openai.OpenAI, provider: ModelProvider) -> None:
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}]
    said: list[Any] = [{"role": "user", "content": "Both?"}]
    if streamed:
        with gpt.chat.completions.stream(model="aws/tools", messages=said, tools=tools) as stream:
            message: Any = stream.get_final_completion().choices[0].message
    else:
        message = gpt.chat.completions.create(model="aws/tools", messages=said, tools=tools).choices[0].message
    assert [(one.id, json.loads(one.function.arguments)) for one in message.tool_calls] == [
        ("tooluse_1", {"n": 1}),
        ("tooluse_2", {"n": 2}),
    ]
    said.append(message.model_dump(exclude_none=True, exclude={"parsed"}))
    said += [{"role": "tool", "tool_call_id": one.id, "content": "warm"} for one in message.tool_calls]
    answer = gpt.chat.completions.create(model="aws/tools", messages=said, tools=tools)
    assert "tooluse_1: warm" in (answer.choices[0].message.content or "")
    assert [one["role"] for one in provider.received[-1].body["messages"]] == ["user", "assistant", "user"]


@pytest.mark.parametrize("streamed", [False, True])
def test_an_anthropic_client_gets_signed_reasoning_and_sends_it_back(
    streamed: bool, claude: anthropic.Anthropic, provider: ModelProvider
) -> None:
    tools: Any = [{"name": "weather", "input_schema": WEATHER}]
    said: list[Any] = [{"role": "user", "content": "Both?"}]
    asked: dict[str, Any] = {"model": "aws/tools", "max_tokens": 100, "tools": tools}
    if streamed:
        with claude.messages.stream(**asked, messages=said) as stream:
            message: Any = stream.get_final_message()
    else:
        message = claude.messages.create(**asked, messages=said)
    assert [block.type for block in message.content] == ["thinking", "tool_use", "tool_use"]
    said.append({"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in message.content]})
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": "warm", "cache_control": {"type": "ephemeral"}}
        for block in message.content[1:]
    ]
    said.append({"role": "user", "content": results})
    claude.messages.create(**asked, messages=said)
    _, assistant, user = provider.received[-1].body["messages"]
    assert assistant["content"][0]["reasoningContent"]["reasoningText"]["signature"] == message.content[0].signature
    assert user["content"][1] == {"cachePoint": {"type": "default"}}


@pytest.mark.parametrize("streamed", [False, True])
def test_clients_of_responses_and_of_gemini_are_served_too(streamed: bool, served: Served) -> None:
    http = served.http(**bearer(ADMIN))
    asked = {"model": "fast", "input": "Say hello.", "stream": streamed}
    assert SAID in http.post("/v1/responses", json=asked).text
    method = "streamGenerateContent" if streamed else "generateContent"
    body = {"contents": [{"role": "user", "parts": [{"text": "Say hello."}]}]}
    said = http.post(f"/v1beta/models/aws/{NOVA}:{method}", json=body).json()
    parts = [
        part
        for chunk in (said if streamed else [said])
        for part in chunk["candidates"][0].get("content", {}).get("parts", ())
    ]
    assert "".join(part["text"] for part in parts) == SAID


def test_tokens_are_estimated(served: Served, provider: ModelProvider) -> None:
    body = {"model": "fast", "messages": [{"role": "user", "content": "Say hello."}]}
    counted = served.http().post("/v1/messages/count_tokens", json=body, headers=bearer(ADMIN))
    assert 0 < counted.json()["input_tokens"] < 200 and not provider.received


def test_an_alias_asks_for_the_cache_where_its_client_does_not(served: Served, provider: ModelProvider) -> None:
    post(served, "kept")
    assert provider.received[0].body["messages"][0]["content"][-1] == {"cachePoint": {"type": "default"}}


def test_what_bedrock_has_no_form_for_is_refused_by_name_and_costs_nothing(
    served: Served, provider: ModelProvider
) -> None:
    answer = post(served, "fast", seed=1)
    assert answer.status_code == 400 and "seed" in answer.json()["error"]["message"]
    embeddings = served.http().post("/v1/embeddings", json={"model": "aws/good", "input": "x"}, headers=bearer(ADMIN))
    assert embeddings.status_code == 400 and not provider.received


@pytest.mark.parametrize("model", ["aws/..", "aws/.", "aws/a%2e", "aws/a b", "aws/../x"])
def test_a_name_that_is_no_model_reaches_nobody(model: str, served: Served, provider: ModelProvider) -> None:
    assert post(served, model).status_code == 400 and not provider.received


def test_what_is_sent_is_what_awss_own_client_sends(served: Served, provider: ModelProvider) -> None:
    """And the provider of these tests is one that AWS's client takes for Bedrock."""
    session = botocore.session.Session()
    session.set_credentials(ACCESS, SECRET)
    address = provider.address.removesuffix("/v1")
    client = session.create_client("bedrock-runtime", region_name=REGION, endpoint_url=address)
    said = [{"role": "user", "content": [{"text": "Say hello."}]}]
    for model in (NOVA, ARN, "anthropic.claude-x.y-v1:0"):
        provider.received.clear()
        asked = {"modelId": model, "messages": said, "inferenceConfig": {"maxTokens": 100}}
        assert client.converse(**asked)["output"]["message"]["content"] == [{"text": SAID}]
        stream = client.converse_stream(**asked)["stream"]
        deltas = [event["contentBlockDelta"]["delta"]["text"] for event in stream if "contentBlockDelta" in event]
        assert "".join(deltas) == SAID
        for streamed in (False, True):
            assert post(served, f"aws/{model}", stream=streamed).status_code == 200
        theirs, ours = provider.received[:2], provider.received[2:]
        assert [one.path for one in ours] == [one.path for one in theirs]
        assert [one.body for one in ours] == [one.body for one in theirs]
        assert {one.headers["content-type"] for one in provider.received} == {"application/json"}
    client.close()


# --- What goes wrong


@pytest.mark.parametrize("stream", [False, True])
def test_errors_before_the_answer_fall_back(stream: bool, served: Served, provider: ModelProvider) -> None:
    answer = post(served, "safe", stream=stream)
    assert answer.status_code == 200 and answer.headers["x-mcpgate-provider"] == "open"
    assert provider.models() == ["status-429", "status-424", "throttled", "good"]


def test_a_stream_of_bytes_that_are_no_events_falls_back(served: Served) -> None:
    answer = post(served, "garbled", stream=True)
    assert answer.status_code == 200 and answer.headers["x-mcpgate-provider"] == "open"


def test_aws_own_words_reach_the_client_in_its_form(served: Served) -> None:
    answer = post(served, "aws/status-429")
    assert answer.status_code == 429 and answer.json()["error"]["message"] == "Told to fail with 429"
    answer = post(served, "aws/throttled", stream=True)
    assert "Too many requests" in answer.text


def test_credentials_that_are_refused_are_nobodys_business_but_the_gateways(served: Served) -> None:
    answer = post(served, "wrong/good")
    assert answer.status_code == 502 and answer.json()["error"]["code"] == "upstream_error"
    assert ACCESS not in answer.text and "another-secret" not in answer.text


@pytest.mark.parametrize("model", ["cut", "broken", "mid-frame", "flipped"])
def test_a_stream_that_breaks_says_so_and_what_came_is_paid(model: str, served: Served) -> None:
    id, key = made_key(served)
    answer = post(served, f"aws/{model}", key=key, stream=True)
    assert answer.status_code == 200 and "Hello" in answer.text
    assert '"error"' in answer.text and '"finish_reason":"stop"' not in answer.text
    row = paid(served, id)
    assert 0 < row["output_tokens"] < 30 and row["input_tokens"] > 10 and float(row["cost_usd"]) > 0
    assert row["outcome"] != "ok"


def test_a_whole_answer_without_usage_is_estimated(served: Served) -> None:
    assert 0 < float(post(served, "aws/no-usage").headers["x-mcpgate-cost-usd"]) < 0.01


def test_a_client_that_hangs_up_lets_go_of_bedrock(served: Served, provider: ModelProvider) -> None:
    id, key = made_key(served)
    body = {"model": "aws/slow", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    with served.http().stream("POST", "/v1/chat/completions", json=body, headers=bearer(key)) as answer:
        assert any("from" in line for line in answer.iter_lines())
    wait_until(provider.gone.is_set)
    row = paid(served, id)
    assert row["outcome"] == "cancelled" and 0 < row["output_tokens"] < 30 and float(row["cost_usd"]) > 0


def test_a_budget_holds_for_bedrock(served: Served) -> None:
    statuses = [post(served, "fast", key="mg-key-poor").status_code for _ in range(8)]
    assert statuses[0] == 200 and statuses[-1] == 402


# --- Credentials


made: list[Any] = []
"""Providers that `run` closes."""


def run(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async def bounded() -> Any:
        try:
            with anyio.fail_after(30):
                return await work()
        finally:
            while made:
                await made.pop().aclose()

    return anyio.run(bounded)


async def ask(provider: Any, format: str = "bedrock", model: str = "good") -> tuple[int, bytes]:
    said: dict[str, Any] = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
    said = said if format == "bedrock" else {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    reply = await provider.send(Call(format, json.dumps(said).encode(), model))
    try:
        return reply.status, await (reply.read() if reply.status < 400 else reply.error())
    finally:
        await reply.aclose()


def bedrock(address: str, **aws: Any) -> Any:
    settings = {"type": "bedrock", "base_url": address.removesuffix("/v1"), "aws": {"region": REGION, **aws}}
    made.append(make_provider("aws", ProviderConfig.model_validate(settings)))
    return made[-1]


@dataclass
class Answers:
    """A server of credentials: AWS's for containers, and Google's tokens."""

    address: str = ""
    answer: Callable[[str], tuple[int, Mapping[str, Any]]] = lambda _: (500, {})
    asked: list[str] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)


@contextmanager
def answering(answer: Callable[[str], tuple[int, Mapping[str, Any]]]) -> Iterator[Answers]:
    state = Answers(answer=answer)
    state.go_on.set()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
            state.asked.append(body)
            state.go_on.wait(20)
            status, said = state.answer(body)
            data = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    state.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield state
    finally:
        state.go_on.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No credentials on this machine, but those that a test brings."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    return tmp_path


def test_credentials_come_from_the_environment(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, provider: ModelProvider
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session-token-of-the-tests")
    assert run(lambda: ask(bedrock(provider.address)))[0] == 200
    assert provider.received[0].headers["x-amz-security-token"] == "session-token-of-the-tests"


def test_credentials_come_from_a_profile(
    nowhere: Path, provider: ModelProvider, caplog: pytest.LogCaptureFixture
) -> None:
    (nowhere / "credentials").write_text(f"[work]\naws_access_key_id = {ACCESS}\naws_secret_access_key = {SECRET}\n")
    assert run(lambda: ask(bedrock(provider.address, profile="work")))[0] == 200
    with pytest.raises(Unreachable, match="ProfileNotFound"):
        run(lambda: ask(bedrock(provider.address, profile="no-such")))
    assert "no-such" in caplog.text


def test_no_credentials_are_an_error_that_falls_back(nowhere: Path, provider: ModelProvider) -> None:
    with pytest.raises(Unreachable, match="no credentials of AWS"):
        run(lambda: ask(bedrock(provider.address)))
    assert "no credentials of AWS" in run(lambda: bedrock(provider.address).probe())


def _temporary(expires: str) -> dict[str, str]:
    return {"AccessKeyId": ACCESS, "SecretAccessKey": SECRET, "Token": "temporary-token", "Expiration": expires}


def test_temporary_credentials_are_fetched_once_and_off_the_event_loop(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, provider: ModelProvider
) -> None:
    with answering(lambda _: (200, _temporary("2099-01-01T00:00:00Z"))) as role:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", role.address)
        role.go_on.clear()

        async def work() -> list[int]:
            one = bedrock(provider.address)
            tasks = [asyncio.create_task(ask(one)) for _ in range(10)]
            while not role.asked:  # the loop runs while the role does not answer
                await asyncio.sleep(0.01)
            tasks.pop().cancel()
            role.go_on.set()
            return [(await task)[0] for task in tasks] + [(await ask(one))[0]]

        assert run(work) == [200] * 10 and len(role.asked) == 1
        assert {one.headers["x-amz-security-token"] for one in provider.received} == {"temporary-token"}


def test_credentials_that_do_not_come_take_no_longer_than_an_answer_may(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, provider: ModelProvider
) -> None:
    with answering(lambda _: (200, _temporary("2099-01-01T00:00:00Z"))) as role:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", role.address)
        role.go_on.clear()

        async def work() -> None:
            one = bedrock(provider.address)
            with pytest.raises(UpstreamTimeout, match="within 0.2 s"):
                await one.send(Call("bedrock", b"{}", "good", timeout_s=0.2))
            assert not one.is_busy

        run(work)


def test_temporary_credentials_are_renewed_before_they_expire(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, provider: ModelProvider
) -> None:
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=12)
    with answering(lambda _: (200, _temporary(soon.strftime("%Y-%m-%dT%H:%M:%SZ")))) as role:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", role.address)

        async def work() -> list[int]:
            one = bedrock(provider.address)
            return [(await ask(one))[0] for _ in range(3)]

        assert run(work) == [200] * 3 and len(role.asked) >= 3


@pytest.mark.parametrize(
    ("aws", "wrong"),
    [
        ({"access_key_id": ACCESS, "secret_access_key": SECRET}, ""),
        ({"access_key_id": "AK", "secret_access_key": "x"}, "does not accept"),
    ],
)
def test_a_check_says_whether_aws_knows_who_asks(aws: dict[str, str], wrong: str, provider: ModelProvider) -> None:
    said = run(lambda: bedrock(provider.address, **aws).probe())
    assert wrong in said and bool(said) == bool(wrong)


@pytest.mark.parametrize(("key", "wrong"), [(API_KEY, ""), ("another-api-key", "does not accept the key")])
def test_a_check_says_whether_aws_knows_the_key(key: str, wrong: str, provider: ModelProvider) -> None:
    settings = {"type": "bedrock", "base_url": provider.address.removesuffix("/v1"), "aws": {"region": REGION}}
    made.append(make_provider("aws", ProviderConfig.model_validate({**settings, "api_key": key})))
    said = run(made[-1].probe)
    assert wrong in said and bool(said) == bool(wrong)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"type": "bedrock"}, "aws.region"),
        ({"type": "openai", "aws": AWS}, "type bedrock"),
        ({"type": "bedrock", "aws": {"region": "eu central"}}, "region"),
        ({"type": "bedrock", "aws": {"region": REGION, "access_key_id": "a"}}, "belong together"),
        ({"type": "bedrock", "aws": {**AWS, "profile": "p"}}, "not both"),
        ({"type": "bedrock", "aws": AWS, "api_key": "k"}, "not both"),
        ({"type": "bedrock", "aws": {"region": REGION, "session_token": "t"}}, "session_token needs"),
        ({"type": "openai", "vertex": {"project": "p"}}, "type gemini"),
        ({"type": "gemini", "vertex": {"project": "p"}, "api_key": "k"}, "no api_key"),
        ({"type": "gemini", "vertex": {"project": "a/../b"}}, "project"),
        ({"type": "gemini", "vertex": {"project": "p", "location": "evil.example/"}}, "location"),
    ],
)
def test_settings_that_contradict_each_other_are_errors(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ProviderConfig.model_validate(settings)


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({"type": "bedrock", "aws": {"region": "us-east-1"}}, "https://bedrock-runtime.us-east-1.amazonaws.com"),
        ({"type": "bedrock", "aws": {"region": "cn-north-1"}}, "https://bedrock-runtime.cn-north-1.amazonaws.com.cn"),
        ({"type": "gemini", "vertex": {"project": "p"}}, "https://aiplatform.googleapis.com"),
        ({"type": "gemini", "vertex": {"project": "p", "location": "eu"}}, "https://aiplatform.eu.rep.googleapis.com"),
        (
            {"type": "gemini", "vertex": {"project": "p", "location": "us-central1"}},
            "https://us-central1-aiplatform.googleapis.com",
        ),
    ],
)
def test_addresses_follow_from_regions(settings: dict[str, Any], address: str) -> None:
    assert ProviderConfig.model_validate(settings).address == address


@pytest.mark.parametrize(
    ("settings", "extra"),
    [({"type": "bedrock", "aws": AWS}, "bedrock"), ({"type": "gemini", "vertex": {"project": "p"}}, "vertex")],
)
def test_a_missing_package_is_an_error_of_the_configuration(
    settings: dict[str, Any], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config.model_validate({"llm": {"providers": {"one": settings}}})
    lifecycle.check_packages(config)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=f"llm.providers.one .*install the extra '{extra}'"):
        lifecycle.check_packages(config)


# --- Vertex AI


@pytest.fixture(scope="module")
def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def account(private_key: rsa.RSAPrivateKey, tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """Writes the key of a service account; returns the provider's `vertex`."""

    def write(token_uri: str) -> dict[str, Any]:
        pem = private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        email = "robot@tests.iam.gserviceaccount.com"
        about = {"type": "service_account", "client_email": email, "token_uri": token_uri}
        about |= {"project_id": "tests", "private_key_id": "1", "private_key": pem.decode()}
        path = tmp_path / "account.json"
        path.write_text(json.dumps(about))
        return {"project": "tests", "location": "europe-west4", "credentials_file": str(path)}

    return write


def vertex(provider: ModelProvider, settings: dict[str, Any]) -> Any:
    given = {"type": "gemini", "base_url": provider.address.removesuffix("/v1"), "vertex": settings}
    made.append(make_provider("vertex", ProviderConfig.model_validate(given)))
    return made[-1]


def test_a_token_is_fetched_once_for_all_and_off_the_event_loop(
    account: Callable[[str], dict[str, Any]], private_key: rsa.RSAPrivateKey, provider: ModelProvider
) -> None:
    def answer(body: str) -> tuple[int, dict[str, Any]]:
        claims = jwt.decode(
            parse_qs(body)["assertion"][0], private_key.public_key(), ["RS256"], options={"verify_aud": False}
        )
        assert claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
        return 200, {"access_token": "ya29.of-the-tests", "expires_in": 3600, "token_type": "Bearer"}

    with answering(answer) as google:
        google.go_on.clear()

        async def work() -> list[int]:
            one = vertex(provider, account(google.address))
            tasks = [asyncio.create_task(ask(one, "gemini")) for _ in range(10)]
            while not google.asked:
                await asyncio.sleep(0.01)
            tasks.pop().cancel()
            google.go_on.set()
            return [(await task)[0] for task in tasks] + [(await ask(one, "gemini"))[0]]

        assert run(work) == [200] * 10 and len(google.asked) == 1
    paths = {one.path for one in provider.received}
    assert paths == {"/v1/projects/tests/locations/europe-west4/publishers/google/models/good:generateContent"}
    assert {one.headers["authorization"] for one in provider.received} == {"Bearer ya29.of-the-tests"}


def test_a_token_is_renewed_before_it_expires_and_used_to_its_end(
    account: Callable[[str], dict[str, Any]], provider: ModelProvider
) -> None:
    tokens = iter(["first", "second"])

    def answer(_: str) -> tuple[int, dict[str, Any]]:
        token = next(tokens, "")
        return (200, {"access_token": token, "expires_in": 60}) if token else (400, {"error": "invalid_grant"})

    async def work() -> list[int]:
        one = vertex(provider, account(google.address))
        return [(await ask(one, "gemini"))[0] for _ in range(3)]

    with answering(answer) as google:
        assert run(work) == [200] * 3
    assert [one.headers["authorization"] for one in provider.received] == ["Bearer first", *["Bearer second"] * 2]


def test_no_token_is_an_error_that_falls_back(
    account: Callable[[str], dict[str, Any]],
    provider: ModelProvider,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with answering(lambda _: (400, {"error": "invalid_grant", "error_description": "no such robot"})) as google:
        settings = account(google.address)
        with pytest.raises(Unreachable, match="RefreshError"):
            run(lambda: ask(vertex(provider, settings), "gemini"))
        assert "RefreshError" in run(lambda: vertex(provider, settings).probe())
        assert "no such robot" in caplog.text
    settings["credentials_file"] += ".none"
    with pytest.raises(Unreachable, match="no access token") as missing:
        run(lambda: ask(vertex(provider, settings), "gemini"))
    assert "account.json" in caplog.text and "account.json" not in str(missing.value)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", settings.pop("credentials_file"))
    with pytest.raises(Unreachable, match="no access token"):
        run(lambda: ask(vertex(provider, settings), "gemini"))
    assert not provider.received


def test_clients_of_every_format_reach_gemini_on_vertex(
    account: Callable[[str], dict[str, Any]], provider: ModelProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(lambda _: (200, {"access_token": "ya29.of-the-tests", "expires_in": 3600})) as google:
        settings = account(google.address)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", settings.pop("credentials_file"))
        given = {"type": "gemini", "base_url": provider.address.removesuffix("/v1"), "vertex": settings}
        keys = {"admin": {**TRUSTED["admin"], "grants": {"models": ["*"]}}}
        llm = {"providers": {"vertex": given}, "prices": {"vertex/*": PRICE}}
        with serving(tmp_path, write_config(tmp_path, {}, governance={"keys": keys}, llm=llm)) as served:
            with openai.OpenAI(base_url=f"{served.address}/v1", api_key=ADMIN) as gpt:
                said: Any = [{"role": "user", "content": "hi"}]
                answer = gpt.chat.completions.create(model="vertex/good", messages=said)
                assert answer.choices[0].message.content == SAID
                chunks = list(gpt.chat.completions.create(model="vertex/good", messages=said, stream=True))
                assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == SAID
            body = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
            whole = served.http().post(
                "/v1beta/models/vertex/good:generateContent", json=body, headers={"x-goog-api-key": ADMIN}
            )
            assert whole.headers["x-mcpgate-cost-usd"] == "0.0019"
            failed = post(served, "vertex/status-401")
            assert failed.status_code == 502 and "ya29" not in failed.text
        assert len(google.asked) == 1
