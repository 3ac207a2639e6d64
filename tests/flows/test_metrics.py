"""Metrics of a real gateway: what they count, what their labels may say, and that the dashboard of Grafana asks for
nothing else."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import raw
from tests.flows.governed import ADMIN, Served, bearer, serving, write_config
from tests.flows.governed import wait_until as wait
from tests.model_provider import USAGE, ModelProvider
from tests.otlp_collector import http_collector

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "deploy" / "grafana" / "mcpgate.json"
POOR = "mg-has-no-money"
PRICE = {"input_usd_per_mtok": 2, "output_usd_per_mtok": 10, "cache_read_usd_per_mtok": 0.5}
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, provider: ModelProvider) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("measured")
    everything = {"tools": ["*"], "models": ["*"], "admin": True}
    keys = {
        "admin": {"secret": ADMIN, "grants": everything, "user": "ada"},
        "poor": {"secret": POOR, "grants": everything, "budget": {"limit_usd": 0.0001}},
    }
    budgets = [{"id": "everyone", "per": "key", "limit_usd": 2, "period": "1d"}]
    limits = [{"id": "slow", "when": {"model": "rare"}, "requests": 1, "window": "1h"}]
    bad = {"target": "open/status-503"}
    llm = {
        "providers": {"open": {"type": "openai", "base_url": provider.address, "api_key": "sk-of-the-provider"}},
        "models": {
            "fast": {"targets": [{"target": "open/good"}]},
            "rare": {"targets": [{"target": "open/good"}]},
            "broken": {"targets": [bad]},
            "claude": {"targets": [{"target": "open/cached"}]},
        },
        "prices": {"*/*": PRICE},
    }
    governance = {"keys": keys, "budgets": budgets, "rate_limits": limits, "users": {"ada": {}}}
    with http_collector() as collector:
        telemetry = {"otlp_endpoint": collector.address}
        servers = {"alpha": raw(expose="both", prices={"echo": 0.25})}
        config = write_config(folder, servers, governance=governance, llm=llm, telemetry=telemetry)
        with serving(folder, config) as running:
            yield running


def ask(served: Served, model: str, key: str = ADMIN, **more: Any) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 100, **more}
    return served.http().post("/v1/chat/completions", json=body, headers=bearer(key)).status_code


def samples_of(served: Served) -> Samples:
    text = served.clients[0].get("/metrics", headers=bearer(ADMIN)).text
    families = text_string_to_metric_families(text)
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def value_of(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((f"mcpgate_{name}", frozenset(labels.items())), 0.0)


@pytest.fixture(scope="module")
def samples(served: Served) -> Samples:
    """What is measured after requests of every kind."""
    code = "alpha.echo(text='x')\ntry:\n    alpha.fail(message='no')\nexcept ToolError:\n    return 1"
    assert served.call("execute_code", {"code": code}).ok
    assert served.call("alpha__echo", {"text": "x"}).ok
    assert served.call("list_tools").ok
    assert [ask(served, "fast", temperature=0), ask(served, "fast", temperature=0)] == [200, 200]
    assert ask(served, "fast", stream=True, stream_options={"include_usage": True}) == 200
    assert [ask(served, "rare"), ask(served, "rare", seed=1)] == [200, 429]
    assert ask(served, "broken") >= 500
    assert ask(served, "open/status-404") >= 400
    assert ask(served, "fast", POOR, max_tokens=4000, seed=2) == 402
    messages = {"model": "claude", "messages": [{"role": "user", "content": "x"}], "max_tokens": 100}
    served.http().post("/v1/messages", json=messages, headers=bearer(ADMIN))
    wait(lambda: value_of(samples_of(served), "spans_total", result="exported"))
    return samples_of(served)


def test_requests_are_counted_by_face_kind_and_outcome(samples: Samples) -> None:
    def number(face: str, kind: str, outcome: str = "ok") -> float:
        return value_of(samples, "requests_total", face=face, kind=kind, outcome=outcome)

    assert number("mcp", "execution") == number("mcp", "tool") == number("mcp", "meta") == 1
    assert (number("code", "tool"), number("code", "tool", "tool_error")) == (1, 1)
    assert number("llm", "chat") >= 4
    assert value_of(samples, "request_seconds_count", face="mcp", kind="execution") == 1
    assert value_of(samples, "own_seconds_count", face="llm", kind="chat") >= 4
    assert value_of(samples, "sandbox_seconds_count") == 1
    calls = {"server": "alpha", "tool": "echo", "outcome": "ok"}
    assert value_of(samples, "upstream_calls_total", **calls) == 2
    assert value_of(samples, "upstream_seconds_count", server="alpha") == 3


def test_the_own_time_of_a_request_is_without_that_of_its_provider(served: Served, samples: Samples) -> None:
    whole = value_of(samples, "request_seconds_sum", face="llm", kind="chat")
    upstream = sum(value for (name, _), value in samples.items() if name == "mcpgate_llm_seconds_sum")
    own = value_of(samples, "own_seconds_sum", face="llm", kind="chat")
    assert own == pytest.approx(whole - upstream, abs=0.001)


def test_models_are_measured_by_what_the_provider_counted(samples: Samples) -> None:
    good = {"provider": "open", "model": "good"}
    answers = value_of(samples, "llm_attempts_total", **good, outcome="ok")
    assert answers >= 3
    assert value_of(samples, "llm_tokens_total", **good, of="input") == answers * USAGE["prompt_tokens"]
    assert value_of(samples, "llm_tokens_total", **good, of="output") == answers * USAGE["completion_tokens"]
    assert value_of(samples, "llm_tokens_total", **good, of="cache_read") == answers * 400
    assert value_of(samples, "llm_cost_usd_total", **good) == pytest.approx(answers * 0.0019)
    assert value_of(samples, "llm_first_token_seconds_count", **good) == 1
    assert value_of(samples, "cache_requests_total", how="exact") == 1


def test_limits_are_counted_by_their_ids_and_budgets_show_how_full_they_are(samples: Samples) -> None:
    assert value_of(samples, "limits_hit_total", limit="slow") == 1
    assert value_of(samples, "limits_hit_total", limit="key") == 1
    assert 0.25 < value_of(samples, "budget_used_ratio", budget="everyone") < 0.3
    assert 1.4 < value_of(samples, "budget_left_usd", budget="everyone") < 1.5


def test_states_are_measured_when_they_are_asked_for(samples: Samples) -> None:
    assert value_of(samples, "upstream_state", server="alpha", state="ready") == 1
    assert value_of(samples, "upstream_tools", server="alpha") > 10
    assert value_of(samples, "sandbox_warm") >= 0
    assert samples[("mcpgate_llm_target_rests", frozenset({("target", "open/good")}))] == 0
    assert samples[("mcpgate_llm_under_way", frozenset({("provider", "open")}))] == 0


def test_what_callers_choose_is_in_no_label(served: Served, samples: Samples) -> None:
    failed = {"provider": "open", "model": "other", "outcome": "upstream_error"}
    assert value_of(samples, "llm_attempts_total", **failed) == 1, "a model that never answered has no name of its own"
    said = {value for _, labels in samples for _, value in labels}
    assert said.isdisjoint({"admin", "poor", "ada", "status-404", ADMIN, POOR})


def test_a_target_that_keeps_failing_is_shown_to_rest(served: Served, samples: Samples) -> None:
    for _ in range(5):
        ask(served, "broken")
    name = ("mcpgate_llm_target_rests", frozenset({("target", "open/status-503")}))
    assert samples_of(served)[name] == 1


# --- the dashboard


def expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def test_every_name_and_label_of_the_dashboard_is_served(samples: Samples) -> None:
    labels_of: dict[str, set[str]] = {}
    for name, labels in samples:
        labels_of.setdefault(name, set()).update(label for label, _ in labels)
    assert len(expressions()) > 30
    for text in expressions():
        grouped = {label for one in re.findall(r"by \(([^)]*)\)", text) for label in re.split(r",\s*", one)}
        found = re.findall(r"(mcpgate_\w+)\{([^}]*)\}", text)
        assert found, text
        for name, selector in found:
            assert name in labels_of, f"{name} is not served: {text}"
            matched = dict(re.findall(r'(\w+)[!=~]+"([^"]*)"', selector))
            assert matched.pop("job") == "$job", "added by the scraper"
            assert (grouped | set(matched)) <= labels_of[name], text
            for label, value in matched.items():
                values = {dict(labels).get(label) for other, labels in samples if other == name}
                assert value in values or "!=" in selector, text


def test_the_dashboard_shows_every_metric_that_is_measured_by_face_model_server_or_limit(samples: Samples) -> None:
    shown = " ".join(expressions())
    measured = {re.sub(r"_(bucket|count|sum|created|total)$", "", name) for name, labels in samples if labels}
    rarely_wanted = {"mcpgate_cache_checks", "mcpgate_settled"}
    assert {name for name in measured - rarely_wanted if name not in shown} == set()


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert taken.isdisjoint(cells) and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)
