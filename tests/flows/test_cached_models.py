"""Answers of models from the cache, through /v1, in front of a provider that counts what it is asked."""

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import anthropic
import httpx2
import openai
import psutil
import pytest
import yaml

from tests.flows.governed import ADMIN, TRUSTED, Served, bearer, own_database, serving, wait_until, write_config
from tests.model_provider import WORDS, ModelProvider
from tests.stores.conftest import REDIS, needs_server

SAID = "".join(WORDS)
USE = {"x-mcpgate-cache": "use"}
PRICE = {"input_usd_per_mtok": 10, "output_usd_per_mtok": 100}
COST = 1000 * 10 / 1e6 + 50 * 100 / 1e6
"""US dollars of one answer of the provider."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, provider: ModelProvider) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("cached")
    openai = {"type": "openai", "base_url": provider.address, "api_key": "sk-of-the-provider"}
    llm = {
        "providers": {
            "open": openai,
            "claude": {**openai, "type": "anthropic"},
            "google": {**openai, "type": "gemini", "base_url": provider.address.removesuffix("/v1") + "/v1beta"},
        },
        "models": {
            "alias": {"targets": [{"target": "open/good"}]},
            "falling": {"targets": [{"target": "open/status-503"}, {"target": "open/good"}]},
            "never": {"targets": [{"target": "open/good"}]},
            "always": {"targets": [{"target": "open/good"}]},
            "dear": {"targets": [{"target": "open/good"}], "on_budget": "frugal"},
            "frugal": {"targets": [{"target": "open/free"}]},
        },
        "prices": {"*/*": PRICE, "open/free": {"input_usd_per_mtok": 0}},
    }
    cache = {
        "ttl_s": 600,
        "rules": [
            {"when": {"model": "never"}, "mode": "off"},
            {"when": {"model": "always"}, "mode": "use"},
        ],
    }
    keys = {**TRUSTED, "admin": {**TRUSTED["admin"], "grants": {"admin": True, "models": ["*"]}}}
    config = write_config(folder, {}, governance={"keys": keys, "teams": {"red": {}, "blue": {}}}, llm=llm, cache=cache)
    with serving(folder, config) as served:
        yield served


@pytest.fixture(autouse=True)
def fresh(provider: ModelProvider) -> None:
    provider.received.clear()


_number = iter(range(1_000_000))


def question() -> str:
    """One that was never asked before."""
    return f"What is the capital of country number {next(_number)}?"


def ask(
    served: Served,
    text: str,
    *,
    path: str = "/v1/chat/completions",
    model: str = "open/good",
    key: str = ADMIN,
    headers: dict[str, str] | None = None,
    **more: Any,
) -> httpx2.Response:
    said: dict[str, Any] = {"messages": [{"role": "user", "content": text}]}
    if path == "/v1/responses":
        said = {"input": text, "store": False}
    if path == "/v1/messages":
        said["max_tokens"] = 100
    body = {"model": model, **said, "temperature": 0, **more}
    answer = served.http().post(path, json=body, headers={**bearer(key), **(headers or {})})
    return answer


def cache_of(answer: httpx2.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.headers["x-mcpgate-cache"])


def member(served: Served, team: str | None = None, **spec: Any) -> str:
    return served.new_key(grants={"models": ["*"]}, **({"team": team} if team else {}), **spec)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
@pytest.mark.parametrize("provider_name", ["open", "claude"])
def test_an_equal_request_at_temperature_0_is_answered_without_the_provider_byte_for_byte(
    path: str, provider_name: str, served: Served, provider: ModelProvider
) -> None:
    text, model = question(), f"{provider_name}/good"
    first, second = (ask(served, text, path=path, model=model) for _ in range(2))
    assert (cache_of(first), cache_of(second)) == ("miss", "exact")
    assert second.content == first.content
    assert len(provider.received) == 1
    assert second.headers["x-mcpgate-cost-usd"] == "0" and second.headers["x-mcpgate-provider"] == provider_name
    assert 0 <= int(second.headers["age"]) < 600  # as old as the test, at most


def test_the_order_of_keys_does_not_matter_and_everything_that_decides_the_answer_does(
    served: Served, provider: ModelProvider
) -> None:
    text = question()
    messages = [{"role": "user", "content": text}]
    body = {"model": "open/good", "messages": messages, "temperature": 0, "top_p": 0.5}
    others = [
        {**body, "top_p": 0.6},
        {**body, "messages": [{"role": "user", "content": text.upper()}]},
        {**body, "messages": [{"role": "user", "content": text + " "}]},
        {**body, "messages": [{"role": "system", "content": "Be brief."}, *messages]},
        {**body, "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]},
        {**body, "max_tokens": 10},
        {**body, "seed": 1},
        {**body, "temperature": 0.0},
        {**body, "user": "ada"},
        {**body, "response_format": {"type": "json_object"}},
        {**body, "model": "open/another"},
    ]
    http = served.http()

    def post(one: dict[str, Any]) -> str:
        return cache_of(http.post("/v1/chat/completions", json=one, headers=bearer(ADMIN)))

    assert post(body) == "miss"
    assert post(dict(reversed(body.items()))) == "exact"
    assert [post(one) for one in others] == ["miss"] * len(others)
    assert [post(one) for one in others] == ["exact"] * len(others)


def test_only_what_is_safe_or_asked_for_is_cached(served: Served, provider: ModelProvider) -> None:
    text = question()
    assert [cache_of(ask(served, text, temperature=0.7)) for _ in range(2)] == ["off", "off"]
    assert [cache_of(ask(served, text, temperature=None)) for _ in range(2)] == ["off", "off"]
    use = {"x-mcpgate-cache": "use"}
    assert [cache_of(ask(served, text, temperature=0.7, headers=use)) for _ in range(2)] == ["miss", "exact"]
    assert [cache_of(ask(served, text, headers={"x-mcpgate-cache": "off"})) for _ in range(2)] == ["off", "off"]
    assert [cache_of(ask(served, text, model="always", temperature=1)) for _ in range(2)] == ["miss", "exact"]
    assert [cache_of(ask(served, text, model="never", headers=use)) for _ in range(2)] == ["off", "off"]


def test_refresh_asks_anew_and_no_store_keeps_nothing(served: Served, provider: ModelProvider) -> None:
    text = question()

    def state(mode: str) -> str:
        return cache_of(ask(served, text, headers={"x-mcpgate-cache": mode}))

    assert [state("no-store"), state("no-store")] == ["miss", "miss"]
    assert [state("refresh"), state("use"), state("no-store"), state("refresh"), state("use")] == [
        "miss", "exact", "exact", "miss", "exact",
    ]  # fmt: skip
    assert len(provider.received) == 4


def test_a_time_to_live_is_the_age_that_is_accepted(served: Served) -> None:
    text = question()
    short = {"x-mcpgate-cache-ttl": "0.2"}
    assert cache_of(ask(served, text)) == "miss"
    wait_until(lambda: cache_of(ask(served, text, headers={**short, "x-mcpgate-cache": "no-store"})) == "miss")
    assert cache_of(ask(served, text)) == "exact"


def test_nobody_gets_an_answer_that_is_older_than_it_would_keep_itself(served: Served) -> None:
    text = question()
    assert cache_of(ask(served, text, headers={"x-mcpgate-cache-ttl": "86400"})) == "miss"
    assert cache_of(ask(served, text)) == "exact"
    policy = {"x-mcpgate-cache-ttl": "0.1", "x-mcpgate-cache": "no-store"}
    wait_until(lambda: cache_of(ask(served, text, headers=policy)) == "miss")


@pytest.mark.parametrize(
    "headers",
    [
        {"x-mcpgate-cache": "maybe"},
        {"x-mcpgate-cache-ttl": "soon"},
        {"x-mcpgate-cache-ttl": "-1"},
        {"x-mcpgate-cache-ttl": "nan"},
        {"x-mcpgate-cache-threshold": "2"},
        {"x-mcpgate-cache-tag": "a b"},
    ],
)
def test_a_header_that_makes_no_sense_is_refused_by_its_name(headers: dict[str, str], served: Served) -> None:
    answer = ask(served, question(), headers=headers)
    assert answer.status_code == 400 and next(iter(headers)) in answer.json()["error"]["message"]


def test_a_stream_is_kept_whole_and_served_as_a_stream_and_as_a_whole(served: Served, provider: ModelProvider) -> None:
    for path in ("/v1/chat/completions", "/v1/responses", "/v1/messages"):
        for model in ("open/good", "claude/good"):
            text = question()
            first = ask(served, text, path=path, model=model, stream=True)
            assert cache_of(first) == "miss"
            wait_until(lambda: cache_of(ask(served, text, path=path, model=model, stream=True)) == "exact")  # noqa: B023
            whole = ask(served, text, path=path, model=model)
            assert cache_of(whole) == "exact" and SAID in whole.text
            assert len(provider.received) == 1
            provider.received.clear()


def test_the_official_sdks_read_what_is_served_again(served: Served, provider: ModelProvider) -> None:
    with (
        openai.OpenAI(base_url=f"{served.address}/v1", api_key=ADMIN, max_retries=0) as openai_client,
        anthropic.Anthropic(base_url=served.address, api_key=ADMIN, max_retries=0) as claude,
    ):
        for streamed_first in (True, False):
            text = question()
            for stream in (streamed_first, not streamed_first, True):
                messages: Any = [{"role": "user", "content": text}]
                if stream:
                    chunks = list(
                        openai_client.chat.completions.create(
                            model="open/good", messages=messages, temperature=0, stream=True,
                            stream_options={"include_usage": True},
                        )
                    )  # fmt: skip
                    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
                    usage = chunks[-1].usage
                    with claude.messages.stream(
                        model="claude/good", messages=messages, max_tokens=100, extra_headers=USE
                    ) as events:
                        message = events.get_final_message()
                    with openai_client.responses.stream(
                        model="open/good", input=text, temperature=0, store=False
                    ) as more:
                        response = more.get_final_response()
                else:
                    answer = openai_client.chat.completions.create(model="open/good", messages=messages, temperature=0)
                    said, usage = str(answer.choices[0].message.content), answer.usage
                    message = claude.messages.create(
                        model="claude/good", messages=messages, max_tokens=100, extra_headers=USE
                    )
                    response = openai_client.responses.create(model="open/good", input=text, temperature=0, store=False)
                assert said == SAID and usage is not None and usage.prompt_tokens == 1000
                assert message.content[0].text == SAID and message.stop_reason == "end_turn"  # type: ignore[union-attr]
                assert message.usage.output_tokens == 50
                assert response.output_text == SAID
                wait_until(lambda: len(provider.received) == 3)
            provider.received.clear()


def test_gemini_clients_have_it_too(served: Served, provider: ModelProvider) -> None:
    body = {
        "contents": [{"role": "user", "parts": [{"text": question()}]}],
        "generationConfig": {"temperature": 0},
    }
    path = "/v1beta/models/google/good"
    for method in ("streamGenerateContent?alt=sse", "generateContent", "streamGenerateContent", "generateContent"):
        answer = served.http().post(f"{path}:{method}", json=body, headers={"x-goog-api-key": ADMIN})
        assert answer.status_code == 200
        wait_until(lambda: served.admin("GET", "cache").json()["entries"] > 0)
    assert len(provider.received) == 1 and answer.headers["x-mcpgate-cache"] == "exact"


@pytest.mark.parametrize("model", ["open/cut", "open/garbage", "open/no-usage"])
def test_what_did_not_end_well_is_never_kept(model: str, served: Served, provider: ModelProvider) -> None:
    text = question()
    states = [ask(served, text, model=model, stream=model == "open/cut").headers.get("x-mcpgate-cache")
              for _ in range(2)]  # fmt: skip
    assert states == (["miss", "exact"] if model == "open/no-usage" else ["miss", "miss"])


def test_errors_of_providers_are_not_kept(served: Served, provider: ModelProvider) -> None:
    text = question()
    assert [ask(served, text, model="open/status-400").status_code for _ in range(2)] == [400, 400]
    assert len(provider.received) == 2


def test_embeddings_are_cached(served: Served, provider: ModelProvider) -> None:
    def embed(texts: list[str]) -> str:
        body = {"model": "open/embed", "input": texts}
        return cache_of(served.http().post("/v1/embeddings", json=body, headers=bearer(ADMIN)))

    text = question()
    assert [embed([text]), embed([text]), embed([text, text])] == ["miss", "exact", "miss"]


def test_a_team_shares_answers_and_nobody_else_sees_them(served: Served, provider: ModelProvider) -> None:
    red, red_too, blue, alone, alone_too = (
        member(served, "red"), member(served, "red"), member(served, "blue"), member(served), member(served),
    )  # fmt: skip
    text = question()
    states = [cache_of(ask(served, text, key=key)) for key in (red, red_too, blue, alone, alone_too, blue, alone)]
    assert states == ["miss", "exact", "miss", "miss", "miss", "exact", "exact"]


def test_what_is_personal_or_of_today_stays_with_its_user(served: Served) -> None:
    red, red_too = member(served, "red"), member(served, "red")
    for words in ("Where is my order", "What is the weather today"):
        text = f"{words}, {question()}"
        states = [cache_of(ask(served, text, key=key)) for key in (red, red_too, red, red_too)]
        assert states == ["miss", "miss", "exact", "exact"]


def test_what_is_personal_is_seen_in_parts_and_in_long_texts_too(served: Served) -> None:
    red, red_too = member(served, "red"), member(served, "red")
    asks = f"Where is my order, {question()}"
    in_parts = [{"type": "text", "text": asks}, {"type": "text", "text": "Please."}]
    for content in (in_parts, asks + " please" * 1000):
        messages = [{"role": "user", "content": content}]
        states = [cache_of(ask(served, "", key=key, messages=messages)) for key in (red, red_too, red)]
        assert states == ["miss", "miss", "exact"]


def test_calls_of_tools_are_neither_kept_nor_shared(served: Served, provider: ModelProvider) -> None:
    tool = {"name": "weather", "input_schema": {"type": "object"}}
    text = question()
    for _ in range(2):
        answer = ask(served, text, path="/v1/messages", model="claude/signing", tools=[tool])
        assert cache_of(answer) == "miss" and answer.json()["stop_reason"] == "tool_use"


def test_a_response_that_is_kept_for_one_account_is_not_served_to_another(served: Served) -> None:
    red, red_too = member(served, "red"), member(served, "red")
    text = question()

    def respond(key: str) -> str:
        body = {"model": "open/good", "input": text, "temperature": 0}
        return cache_of(served.http().post("/v1/responses", json=body, headers=bearer(key)))

    assert [respond(red), respond(red), respond(red_too)] == ["miss", "exact", "miss"]


def test_a_hundred_equal_requests_at_once_make_one_call(served: Served, provider: ModelProvider) -> None:
    text = question()
    provider.go_on.clear()

    def one(_: int) -> httpx2.Response:
        body = {"model": "open/slow", "messages": [{"role": "user", "content": text}], "temperature": 0, "stream": True}
        with httpx2.Client(base_url=served.address, timeout=60) as client:
            return client.post("/v1/chat/completions", json=body, headers=bearer(ADMIN))

    with ThreadPoolExecutor(100) as pool:
        answers = [pool.submit(one, number) for number in range(100)]
        wait_until(lambda: len(provider.received) == 1)
        provider.go_on.set()
        found = [answer.result() for answer in answers]
    states = [cache_of(answer) for answer in found]
    assert states.count("miss") == 1 and states.count("exact") == 99
    assert len(provider.received) == 1
    assert all(SAID in _said(answer.text) for answer in found)


def _said(text: str) -> str:
    parts = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    return "".join(c["delta"].get("content") or "" for part in parts for c in part["choices"])


def test_if_the_first_of_equal_requests_goes_away_another_takes_over(served: Served, provider: ModelProvider) -> None:
    text = question()
    provider.go_on.clear()
    body = {"model": "open/slow", "messages": [{"role": "user", "content": text}], "temperature": 0, "stream": True}
    first = httpx2.Client(base_url=served.address, timeout=60)
    request = first.build_request("POST", "/v1/chat/completions", json=body, headers=bearer(ADMIN))
    answer = first.send(request, stream=True)
    assert answer.headers["x-mcpgate-cache"] == "miss"
    others: list[httpx2.Response] = []

    def wait() -> None:
        with httpx2.Client(base_url=served.address, timeout=60) as client:
            others.append(client.post("/v1/chat/completions", json=body, headers=bearer(ADMIN)))

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    answer.close()
    first.close()
    wait_until(lambda: len(provider.received) == 2)
    provider.go_on.set()
    for thread in threads:
        thread.join()
    assert sorted(map(cache_of, others)) == ["exact", "exact", "miss"]
    assert len(provider.received) == 2


def test_a_hit_costs_nothing_and_the_ledger_knows_what_it_saved(served: Served) -> None:
    spec = {"grants": {"models": ["*"]}, "budget": {"limit_usd": COST * 1.1}}
    made = served.admin("POST", "keys", spec).json()
    key, id = made["secret"], made["key"]["id"]
    text = question()
    assert [cache_of(ask(served, text, key=key, max_tokens=50)) for _ in range(4)] == ["miss"] + ["exact"] * 3
    assert ask(served, question(), key=key, max_tokens=50).status_code == 402
    rows = {row["cache"]: row for row in served.usage("cache", key=id)}
    assert float(rows["exact"]["cost_saved_usd"]) == pytest.approx(3 * COST)
    assert rows["exact"]["cost_usd"] == "0" and rows["exact"]["model_tokens_saved"] == 3 * 1050


def test_hits_count_in_rate_limits(served: Served) -> None:
    key = member(served, rate_limits=[{"requests": 3, "window": "1h"}])
    text = question()
    assert [ask(served, text, key=key).status_code for _ in range(4)] == [200, 200, 200, 429]


def test_a_body_that_others_may_read_differently_is_not_kept_for_them(served: Served, provider: ModelProvider) -> None:
    text = question()
    messages = json.dumps([{"role": "user", "content": text}])
    evil = json.dumps([{"role": "user", "content": "Say that the bank's number is 666."}])
    body = f'{{"model": "open/good", "temperature": 0, "messages": {evil}, "messages": {messages}}}'
    poisoned = served.http().post("/v1/chat/completions", content=body.encode(), headers=bearer(ADMIN))
    assert poisoned.status_code == 200
    assert cache_of(ask(served, text)) == "miss"


@pytest.mark.parametrize("size", [0, 200_000])
@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_what_is_no_json_is_not_kept_for_what_it_is_read_as(
    number: str, size: int, served: Served, provider: ModelProvider
) -> None:
    text = question() + "x" * size
    messages = json.dumps([{"role": "user", "content": text}])
    body = f'{{"model": "open/good", "temperature": 0, "top_p": {number}, "messages": {messages}}}'
    odd = served.http().post("/v1/chat/completions", content=body.encode(), headers=bearer(ADMIN))
    assert odd.status_code in (200, 400)
    states = [cache_of(ask(served, text, top_p=None)) for _ in range(2)]
    assert states == ["miss", "exact"]


def test_an_answer_of_a_fallback_is_not_that_of_the_first_target(served: Served, provider: ModelProvider) -> None:
    text = question()
    assert cache_of(ask(served, text, model="falling")) == "miss"
    assert cache_of(ask(served, text, model="open/good")) == "exact"
    again = ask(served, text, model="falling")  # the first target is asked, and fails, before the second one's serves
    assert cache_of(again) == "exact" and again.headers["x-mcpgate-cost-usd"] == "0"
    assert provider.models().count("good") == 1


def test_entries_are_dropped_by_what_they_belong_to(served: Served, provider: ModelProvider) -> None:
    text = question()
    tagged = {"x-mcpgate-cache-tag": "manual-3,beta"}

    def state() -> str:
        return cache_of(ask(served, text, headers=tagged))

    def dropped(query: str) -> int:
        answer = served.admin("DELETE", f"cache?{query}")
        assert answer.status_code == 200, answer.text
        return int(answer.json()["dropped"])

    assert [state(), state()] == ["miss", "exact"]
    assert dropped("tag=manual-3") == 1 and state() == "miss"
    assert dropped("model=open/good") >= 1 and state() == "miss"
    assert dropped("key=admin") >= 1 and state() == "miss"
    id = ask(served, text, headers=tagged).headers["x-mcpgate-cache-key"]
    assert dropped(f"id={id}") == 1 and state() == "miss"
    assert dropped("older_than_s=3600") == 0 and state() == "exact"
    assert [served.admin("DELETE", f"cache?older_than_s={age}").status_code for age in ("nan", "inf", "x")] == [400] * 3
    assert served.admin("DELETE", "cache").status_code == 400
    assert dropped("all=true") >= 1 and state() == "miss"
    assert served.admin("GET", "cache", key=member(served)).status_code == 403


def test_feedback_drops_an_entry(served: Served) -> None:
    text = question()
    ask(served, text)
    id = ask(served, text).headers["x-mcpgate-cache-key"]
    assert served.admin("POST", "cache/feedback", {"id": id, "good": True}).json() == {"dropped": False}
    assert cache_of(ask(served, text)) == "exact"
    assert served.admin("POST", "cache/feedback", {"id": id, "good": False}).json() == {"dropped": True}
    assert cache_of(ask(served, text)) == "miss"
    assert served.admin("POST", "cache/feedback", {"id": id * 2, "good": False}).status_code == 404


# --- other settings


@pytest.fixture
def edited(served: Served) -> Iterator[Callable[..., None]]:
    """Puts other settings of the cache into the file."""
    before = yaml.safe_load(served.config.read_text())["cache"]
    yield lambda **settings: served.edit(cache={**before, **settings})
    served.edit(cache=before)


def test_switched_off_it_answers_nothing(served: Served, edited: Callable[..., None]) -> None:
    text = question()
    assert [cache_of(ask(served, text)) for _ in range(2)] == ["miss", "exact"]
    edited(enabled=False)
    assert [cache_of(ask(served, text, headers=USE)) for _ in range(2)] == ["off", "off"]


def test_in_shadow_it_serves_nothing_and_says_what_it_would_have(served: Served, edited: Callable[..., None]) -> None:
    edited(shadow=True)
    text = question()
    assert [cache_of(ask(served, text)) for _ in range(3)] == ["miss"] * 3
    entries = served.admin("GET", "entries?where=kind=chat,cache=miss&limit=4").json()["entries"]
    would = [one["facts"].get("cache_would_be") for one in entries if "request" in one["facts"]]
    assert would.count("exact") >= 2


def test_a_stale_answer_is_served_while_a_fresh_one_is_fetched(
    served: Served, provider: ModelProvider, edited: Callable[..., None]
) -> None:
    edited(ttl_s=0.2, stale_s=600)
    text = question()
    first = ask(served, text)
    wait_until(lambda: len(provider.received) == 2 or cache_of(ask(served, text)) != "exact")
    second = ask(served, text)
    assert cache_of(first) == "miss" and cache_of(second) == "exact"
    assert second.headers["x-mcpgate-cache-key"] == first.headers["x-mcpgate-cache-key"]


def test_a_hit_may_have_a_price(served: Served, edited: Callable[..., None]) -> None:
    edited(hit_cost_share=0.5)
    spec = {"grants": {"models": ["*"]}, "budget": {"limit_usd": COST * 1.8}}
    made = served.admin("POST", "keys", spec).json()
    key, id = made["secret"], made["key"]["id"]
    text = question()
    answers = [ask(served, text, key=key, max_tokens=50) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 402]
    assert float(answers[1].headers["x-mcpgate-cost-usd"]) == pytest.approx(COST / 2)
    (row,) = served.usage("key", key=id)
    assert float(row["cost_usd"]) == pytest.approx(COST * 1.5)
    assert float(row["cost_saved_usd"]) == pytest.approx(COST / 2)


def test_hits_need_not_count_in_rate_limits(served: Served, edited: Callable[..., None]) -> None:
    edited(count_hits=False)
    key = member(served, rate_limits=[{"requests": 3, "window": "1h"}])
    text = question()
    assert [ask(served, text, key=key).status_code for _ in range(6)] == [200] * 6
    assert [ask(served, question(), key=key).status_code for _ in range(3)] == [200, 200, 429]


def test_targets_of_an_alias_may_share_answers(served: Served, edited: Callable[..., None]) -> None:
    text = question()
    assert [cache_of(ask(served, text, model=name)) for name in ("alias", "open/good")] == ["miss", "exact"]
    edited(share_targets=True)
    assert [cache_of(ask(served, text, model="falling")) for _ in range(2)] == ["miss", "exact"]


def test_an_answer_of_the_cheaper_model_is_not_that_of_the_dear_one(
    served: Served, edited: Callable[..., None]
) -> None:
    edited(share_targets=True)
    text = question()
    poor, rich = member(served, "red", budget={"limit_usd": 0.000001}), member(served, "red")
    cheap = ask(served, text, model="dear", key=poor)
    assert cheap.headers["x-mcpgate-model"] == "free" and cache_of(cheap) == "miss"
    dear = ask(served, text, model="dear", key=rich)
    assert cache_of(dear) == "miss" and dear.headers["x-mcpgate-model"] == "good"
    assert cache_of(ask(served, text, model="frugal", key=poor)) == "exact"


def test_an_alias_that_leads_elsewhere_is_another_one(served: Served, edited: Callable[..., None]) -> None:
    edited(share_targets=True)
    text = question()
    llm = yaml.safe_load(served.config.read_text())["llm"]
    assert [cache_of(ask(served, text, model="alias")) for _ in range(2)] == ["miss", "exact"]
    changed = {**llm, "models": {**llm["models"], "alias": {"targets": [{"target": "open/another"}]}}}
    served.edit(llm=changed)
    try:
        assert cache_of(ask(served, text, model="alias")) == "miss"
    finally:
        served.edit(llm=llm)


def test_who_wants_nothing_kept_refreshes_nothing(
    served: Served, provider: ModelProvider, edited: Callable[..., None]
) -> None:
    edited(ttl_s=0.05, stale_s=600)
    text = question()
    assert cache_of(ask(served, text)) == "miss"
    ended = time.monotonic() + 0.1
    wait_until(lambda: time.monotonic() > ended)
    nothing = {"x-mcpgate-cache": "no-store"}
    assert [cache_of(ask(served, text, headers=nothing)) for _ in range(5)] == ["exact"] * 5
    assert len(provider.received) == 1


def test_answers_that_call_tools_are_kept_if_that_is_switched_on(served: Served, edited: Callable[..., None]) -> None:
    edited(tool_calls=True)
    tool = {"name": "weather", "input_schema": {"type": "object"}}
    text = question()
    answers = [
        ask(served, text, path="/v1/messages", model="claude/signing", tools=[tool], stream=stream, headers=USE)
        for stream in (False, True, False)
    ]
    assert [cache_of(answer) for answer in answers] == ["miss", "exact", "exact"]
    with anthropic.Anthropic(base_url=served.address, api_key=ADMIN, max_retries=0).messages.stream(
        model="claude/signing", messages=[{"role": "user", "content": text}], max_tokens=100, tools=[tool],  # type: ignore[list-item]
        extra_headers=USE, extra_body={"temperature": 0},
    ) as events:  # fmt: skip
        message = events.get_final_message().to_dict()
    assert message["content"] == answers[0].json()["content"]


def test_a_scope_may_be_wider_or_narrower(served: Served, edited: Callable[..., None]) -> None:
    red, red_too, blue = member(served, "red"), member(served, "red"), member(served, "blue")
    for scope, states in (("shared", ["miss", "exact", "exact"]), ("key", ["miss"] * 3), ("user", ["miss"] * 3)):
        edited(scope=scope)
        text = question()
        assert [cache_of(ask(served, text, key=key)) for key in (red, red_too, blue)] == states


def test_what_is_too_large_is_not_kept(served: Served, edited: Callable[..., None], provider: ModelProvider) -> None:
    edited(max_entry_kib=1)
    long = question() + "x" * 2000
    assert [cache_of(ask(served, long)) for _ in range(2)] == ["off", "off"]


def test_entries_are_there_after_a_crash(tmp_path_factory: pytest.TempPathFactory, provider: ModelProvider) -> None:
    folder = tmp_path_factory.mktemp("crash")
    open_ai = {"type": "openai", "base_url": provider.address, "api_key": "sk-of-the-provider"}
    governance = {"keys": {**TRUSTED, "admin": {**TRUSTED["admin"], "grants": {"admin": True, "models": ["*"]}}}}
    config = write_config(folder, {}, governance=governance, llm={"providers": {"open": open_ai}})
    text = question()
    with serving(folder, config) as first:
        answer = ask(first, text)
        assert cache_of(answer) == "miss"
        wait_until(lambda: first.admin("GET", "cache").json()["entries"] == 1)
        first.process.kill()
    with serving(folder, config) as second:
        again = ask(second, text)
        assert cache_of(again) == "exact" and again.content == answer.content
        shown = second.admin("GET", "cache").json()
        assert shown["hits"]["exact"] == 1 and shown["store"] == "SQLite" and shown["entries"] == 1
        metrics = second.http().get("/metrics", headers=bearer(ADMIN)).text
        assert 'mcpgate_cache_requests_total{how="exact"} 1.0' in metrics


# --- several workers


@pytest.fixture(scope="module", params=["sqlite", "postgres", "redis+sqlite"])
def workers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, provider: ModelProvider
) -> Iterator[Served]:
    tmp_path = tmp_path_factory.mktemp("workers")
    with contextlib.ExitStack() as stack:
        storage, cache = {}, {}
        if request.param == "postgres":
            storage = {"url": stack.enter_context(own_database())}
        if request.param.startswith("redis"):
            needs_server("redis")
            cache = {"store": REDIS}
        open_ai = {"type": "openai", "base_url": provider.address, "api_key": "sk-of-the-provider"}
        governance = {"keys": {**TRUSTED, "admin": {**TRUSTED["admin"], "grants": {"admin": True, "models": ["*"]}}}}
        config = write_config(
            tmp_path, {}, governance=governance, llm={"providers": {"open": open_ai}}, cache=cache, storage=storage
        )
        yield stack.enter_context(serving(tmp_path, config, workers=2))


def slow_body(text: str) -> dict[str, Any]:
    return {"model": "open/slow", "messages": [{"role": "user", "content": text}], "temperature": 0, "stream": True}


def in_parallel(served: Served, text: str, count: int) -> list[Future[httpx2.Response]]:
    def one(_: int) -> httpx2.Response:
        with httpx2.Client(base_url=served.address, timeout=60) as client:
            return client.post("/v1/chat/completions", json=slow_body(text), headers=bearer(ADMIN))

    pool = ThreadPoolExecutor(count)
    return [pool.submit(one, number) for number in range(count)]


def workers_connected_to(provider: ModelProvider, served: Served) -> list[psutil.Process]:
    """Also those that have asked before, and have kept their connections."""
    port = int(provider.address.rpartition(":")[2].partition("/")[0])
    return [
        child
        for child in psutil.Process(served.process.pid).children(recursive=True)
        if any(one.raddr and one.raddr.port == port for one in child.net_connections())
    ]


def test_if_the_worker_that_asks_is_killed_another_one_asks(workers: Served, provider: ModelProvider) -> None:
    text = question() + secrets.token_hex(8)
    provider.go_on.clear()
    answers = in_parallel(workers, text, 10)
    wait_until(lambda: provider.received)
    asking = workers_connected_to(provider, workers)
    assert len(asking) == 1
    asking[0].kill()
    wait_until(lambda: len(provider.received) == 2)
    provider.go_on.set()
    done = [answer for answer in answers if answer.exception(60) is None]
    assert done and sorted({cache_of(answer.result()) for answer in done}) in (["exact", "miss"], ["miss"])
    assert len(provider.received) == 2


def test_equal_requests_to_several_workers_make_one_call(workers: Served, provider: ModelProvider) -> None:
    text = question() + secrets.token_hex(8)  # Redis outlives this test
    provider.go_on.clear()
    answers = in_parallel(workers, text, 40)
    wait_until(lambda: provider.received)
    provider.go_on.set()
    states = [cache_of(answer.result()) for answer in answers]
    assert states.count("miss") == 1 == len(provider.received)
    again = [cache_of(ask(workers, text, model="open/slow", stream=True)) for _ in range(8)]
    assert again == ["exact"] * 8
