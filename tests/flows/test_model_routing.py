"""Routing by what is left of a budget, by limits, by speed and by price, and answers cut to what a budget holds."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.flows.governed import ADMIN, TRUSTED, Served, bearer, serving, write_config
from tests.model_provider import ModelProvider

ASK = {"messages": [{"role": "user", "content": "Say hello."}]}
OUTPUT_ONLY = {"input_usd_per_mtok": 0, "output_usd_per_mtok": 200}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, provider: ModelProvider) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("routing")
    openai = {"type": "openai", "base_url": provider.address, "api_key": "sk-of-the-provider"}
    anthropic = {"type": "anthropic", "base_url": provider.address, "api_key": "sk-ant"}
    models = {
        "cut": {"targets": [{"target": "open/good"}], "clamp": True},
        "cut-claude": {"targets": [{"target": "claude/good"}], "clamp": True},
        "cached": {"targets": [{"target": "claude/good"}], "prompt_cache": True},
        "uncut": {"targets": [{"target": "open/good"}]},
        "onprem": {"targets": [{"target": "small/good"}, {"target": "open/cloud"}]},
        "saving": {
            "routes": [
                {"when": {"budget_used": ">=50%"}, "targets": [{"target": "open/cheap"}]},
                {"targets": [{"target": "open/good"}]},
            ]
        },
        "quick": {"strategy": "latency", "targets": [{"target": "open/one"}, {"target": "open/two"}]},
        "thrifty": {"strategy": "cost", "targets": [{"target": "open/dear"}, {"target": "open/good"}]},
    }
    prices = {"open/dear": {**OUTPUT_ONLY, "output_usd_per_mtok": 300}, "*/*": OUTPUT_ONLY}
    llm = {"providers": {"open": openai, "small": openai, "claude": anthropic}, "models": models, "prices": prices}
    keys = {**TRUSTED, "admin": {**TRUSTED["admin"], "grants": {"admin": True, "models": ["*"]}}}
    limits = [{"id": "onprem", "when": {"provider": "small"}, "per": "shared", "requests": 1, "window": "1h"}]
    with serving(folder, write_config(folder, {}, governance={"keys": keys, "rate_limits": limits}, llm=llm)) as served:
        yield served


@pytest.fixture(autouse=True)
def fresh(provider: ModelProvider) -> None:
    provider.received.clear()


def post(
    served: Served, model: str, key: str = ADMIN, path: str = "/v1/chat/completions", **more: Any
) -> httpx2.Response:
    return served.http().post(path, json={"model": model, **ASK, **more}, headers=bearer(key))


def made(served: Served, limit_usd: float) -> str:
    spec = {"grants": {"models": ["*"]}, "budget": {"limit_usd": limit_usd}}
    secret: str = served.admin("POST", "keys", spec).json()["secret"]
    return secret


@pytest.mark.parametrize(
    ("model", "path", "ask", "limit"),
    [
        ("cut", "/v1/chat/completions", {"max_tokens": 4000}, "max_tokens"),
        ("cut", "/v1/chat/completions", {"max_completion_tokens": 4000}, "max_completion_tokens"),
        ("cut", "/v1/chat/completions", {}, "max_tokens"),
        ("cut", "/v1/messages", {"max_tokens": 4000}, "max_tokens"),
        ("cut-claude", "/v1/messages", {"max_tokens": 4000}, "max_tokens"),
        ("cut-claude", "/v1/chat/completions", {"max_tokens": 4000}, "max_tokens"),
    ],
)
def test_a_clamped_answer_may_be_as_long_as_the_budget_holds(
    model: str, path: str, ask: dict[str, Any], limit: str, served: Served, provider: ModelProvider
) -> None:
    key = made(served, 0.10)  # 500 tokens of output
    answer = post(served, model, key, path, **ask)
    assert answer.status_code == 200
    sent = provider.received[-1].body
    assert [(name, sent[name]) for name in sent if name.startswith("max_")] == [(limit, 500)]


def test_without_clamp_and_without_room_for_an_answer_it_is_refused(served: Served, provider: ModelProvider) -> None:
    assert post(served, "uncut", made(served, 0.10), max_tokens=4000).status_code == 402
    assert post(served, "cut", made(served, 0.003), max_tokens=4000).status_code == 402
    assert not provider.received


def test_a_limit_of_one_provider_sends_the_rest_to_the_next(served: Served, provider: ModelProvider) -> None:
    assert [post(served, "onprem", max_tokens=10).status_code for _ in range(3)] == [200, 200, 200]
    assert provider.models() == ["good", "cloud", "cloud"]
    answer = post(served, "small/good", max_tokens=10)
    assert answer.status_code == 429 and answer.json()["error"]["code"] == "rate_limited"


def test_a_route_looks_at_how_much_of_the_budget_is_used(served: Served, provider: ModelProvider) -> None:
    key = made(served, 0.04)
    for _ in range(3):  # each costs 0.01
        assert post(served, "saving", key, max_tokens=50).status_code == 200
    assert provider.models() == ["good", "good", "cheap"]


def test_latency_measures_all_and_cost_takes_the_cheapest(served: Served, provider: ModelProvider) -> None:
    for _ in range(2):
        post(served, "quick", max_tokens=10)
    assert sorted(provider.models()) == ["one", "two"]
    post(served, "thrifty", max_tokens=10)
    assert provider.models()[-1] == "good"
    targets = served.admin("GET", "models/targets").json()["targets"]
    speeds = {one["target"]: one["typical_ms"] for one in targets}
    assert speeds["open/one"] > 0 and speeds["open/dear"] is None


def test_the_admin_api_says_where_a_request_would_go_and_why(served: Served, provider: ModelProvider) -> None:
    found = served.admin("POST", "models/explain", {"model": "saving", "budget_used": 0.7}).json()
    assert found["targets"] == ["open/cheap"] and not provider.received
    assert found["steps"][0] == {"what": "route 1 of saving", "taken": True, "why": "its conditions hold"}
    found = served.admin("POST", "models/explain", {"model": "thrifty", "max_tokens": 1000}).json()
    assert found["targets"] == ["open/good", "open/dear"]
    assert found["steps"][0]["why"] == "it costs at most $0.200000"
    assert served.admin("POST", "models/explain", {"model": "nothing"}).status_code == 404


def test_providers_are_asked_to_keep_the_beginning_unless_the_client_says_how(
    served: Served, provider: ModelProvider
) -> None:
    post(served, "cached", path="/v1/messages", max_tokens=10)
    assert provider.received[-1].body["cache_control"] == {"type": "ephemeral"}
    post(served, "cached", path="/v1/chat/completions", max_tokens=10)
    assert provider.received[-1].body["cache_control"] == {"type": "ephemeral"}
    system = [{"type": "text", "text": "You are a fox.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    post(served, "cached", path="/v1/messages", max_tokens=10, system=system)
    assert "cache_control" not in provider.received[-1].body and provider.received[-1].body["system"] == system
    post(served, "cut-claude", path="/v1/messages", max_tokens=10)
    assert "cache_control" not in provider.received[-1].body
