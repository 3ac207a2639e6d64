"""Which targets a request may go to, in which order."""

import datetime
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mcpgate.config.llm import LlmConfig
from mcpgate.governance.callers import LOCAL, Caller
from mcpgate.governance.records import Usage
from mcpgate.llm.routing import Qualities, Routes, Step, Target
from mcpgate.llm.speeds import Speeds

PROVIDERS = {name: {"type": "openai", "base_url": "http://127.0.0.1:1/v1"} for name in ("a", "b", "c")}
ABOUT = Qualities(LOCAL, "x", usage=Usage(0, 1000, 500), at=datetime.datetime(2026, 3, 1, 12, 30).timestamp())


class Known:
    """What is known of targets, as the test wants it."""

    def __init__(self, costs: dict[str, int] | None = None, contexts: dict[str, int] | None = None) -> None:
        self.costs, self.contexts, self.speeds = costs or {}, contexts or {}, Speeds(chance=lambda: 0.5)

    def by_speed(self, alias: str, targets: Sequence[Target]) -> Sequence[Target]:
        return self.speeds.order(alias, targets)

    def speed_ms(self, target: Target) -> float | None:
        return self.speeds.typical_ms(target.name)

    def cost(self, target: Target, usage: Usage) -> int | None:
        return self.costs.get(target.name)

    def context_tokens(self, target: Target) -> int | None:
        return self.contexts.get(target.name)


def routes(models: dict[str, Any], known: Known | None = None) -> Routes:
    return Routes(LlmConfig.model_validate({"providers": PROVIDERS, "models": models}), known or Known())


def targets(*names: str) -> list[dict[str, Any]]:
    return [{"target": name} for name in names]


def planned(found: Routes, about: Qualities = ABOUT, steps: list[Step] | None = None) -> list[str]:
    return [target.name for target in found.plan("x", about, steps)]


def test_cost_takes_the_cheapest_first_and_those_without_a_price_last() -> None:
    known = Known({"a/m": 30, "b/m": 10})
    assert planned(routes({"x": {"strategy": "cost", "targets": targets("a/m", "c/m", "b/m")}}, known)) == [
        *("b/m", "a/m", "c/m")
    ]


def test_cost_leaves_out_what_is_too_small_for_the_request_unless_all_are() -> None:
    models = {"x": {"strategy": "cost", "targets": targets("a/m", "b/m")}}
    known = Known({"a/m": 1, "b/m": 2}, {"a/m": 1499, "b/m": 1500})
    assert planned(routes(models, known)) == ["b/m"]
    assert planned(routes(models, Known({"a/m": 1, "b/m": 2}, {"a/m": 10, "b/m": 10}))) == ["a/m", "b/m"]


def test_latency_measures_every_target_once_then_takes_the_quickest() -> None:
    known = Known()
    found = routes({"x": {"strategy": "latency", "targets": targets("a/m", "b/m", "c/m")}}, known)
    assert planned(found)[0] == "a/m"
    known.speeds.note("a/m", 900, 100, 200)
    assert planned(found)[0] == "b/m"
    known.speeds.note("b/m", 500, 100, 200)
    assert planned(found)[0] == "c/m"
    known.speeds.note("c/m", 700, 100, 200)
    assert planned(found) == ["b/m", "c/m", "a/m"]


def test_latency_stays_with_its_target_until_another_is_much_quicker_or_its_time_is_over() -> None:
    now = [0.0]
    speeds = Speeds(clock=lambda: now[0], chance=lambda: 0.5)
    a, b = Target("a", "m"), Target("b", "m")
    speeds.note("a/m", 100, 100, 10)
    speeds.note("b/m", 110, 100, 10)
    assert speeds.order("x", [a, b])[0] is a
    for _ in range(20):
        speeds.note("b/m", 90, 100, 10)
    assert speeds.order("x", [a, b])[0] is a
    now[0] = 31.0
    assert speeds.order("x", [a, b])[0] is b
    for _ in range(40):
        speeds.note("a/m", 20, 100, 10)
    assert speeds.order("x", [a, b])[0] is a


def test_latency_tries_another_target_now_and_then() -> None:
    speeds = Speeds(chance=lambda: 0.01)
    a, b = Target("a", "m"), Target("b", "m")
    speeds.note("a/m", 100, 100, 10)
    speeds.note("b/m", 900, 100, 10)
    assert [one.name for one in speeds.order("x", [a, b])] == ["b/m", "a/m"]


def test_a_short_whole_answer_does_not_make_a_target_look_slow() -> None:
    speeds = Speeds()
    speeds.note("a/m", 550, 5, None)
    speeds.note("b/m", 2500, 200, None)
    assert speeds.typical_ms("a/m") == pytest.approx(2500)
    assert speeds.typical_ms("b/m") == pytest.approx(2500)


@pytest.mark.parametrize(
    ("when", "about", "holds"),
    [
        ({"input_tokens": ">999"}, {}, True),
        ({"input_tokens": "> 1000"}, {}, False),
        ({"input_tokens": ["<10", ">=1000"]}, {}, True),
        ({"budget_used": ">80%"}, {"budget_used": 0.81}, True),
        ({"budget_used": ">=0.8"}, {"budget_used": 0.79}, False),
        ({"budget_used": "<80%"}, {"budget_used": None}, False),
        ({"metadata.tier": ["pro", "ent*"], "tools": True}, {"tools": True, "tier": "enterprise"}, True),
        ({"metadata.tier": "pro", "tools": True}, {"tools": False, "tier": "pro"}, False),
    ],
)
def test_a_route_is_taken_when_all_its_conditions_hold(when: Any, about: dict[str, Any], holds: bool) -> None:
    found = routes({"x": {"routes": [{"when": when, "targets": targets("a/m")}, {"targets": targets("b/m")}]}})
    caller = replace(LOCAL, metadata={"tier": about.pop("tier", "")})
    assert planned(found, replace(ABOUT, caller=caller, **about)) == ["a/m" if holds else "b/m"]


@pytest.mark.parametrize(
    ("time", "hour", "holds"),
    [
        ("22:00-06:00", 23, True),
        ("22:00-06:00", 5, True),
        ("22:00-06:00", 6, False),
        ("09:00-17:00 Europe/Berlin", 8, True),
        ("09:00-17:00 Europe/Berlin", 16, False),
        ("00:00-24:00", 0, True),
    ],
)
def test_routes_look_at_the_time_of_day(time: str, hour: int, holds: bool) -> None:
    found = routes(
        {"x": {"routes": [{"when": {"time": time}, "targets": targets("a/m")}, {"targets": targets("b/m")}]}}
    )
    at = datetime.datetime(2026, 1, 15, hour, 0, tzinfo=datetime.UTC).timestamp()
    assert planned(found, replace(ABOUT, at=at)) == ["a/m" if holds else "b/m"]


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ({"input_tokens": "many"}, "must compare with a number"),
        ({"budget_used": "80%"}, "must compare with a number"),
        ({"time": "at night"}, "22:00-06:00"),
        ({"time": "22:00-06:00 Mars/Base"}, "no time zone"),
        ({"time": "22:00-25:00"}, "does not exist"),
        ({"tokens": ">1"}, "input_tokens"),
    ],
)
def test_a_condition_that_cannot_be_read_says_what_can(when: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        routes({"x": {"routes": [{"when": when, "targets": targets("a/m")}]}})


def test_a_target_that_lacks_what_a_request_needs_is_left_out() -> None:
    model = {"targets": [{"target": "a/m", "lacks": ["images"], "context_tokens": 2000}, {"target": "b/m"}]}
    found = routes({"x": model})
    assert planned(found) == ["a/m", "b/m"]
    steps: list[Step] = []
    assert planned(found, replace(ABOUT, images=True), steps) == ["b/m"]
    assert "it lacks images" in [step.why for step in steps]
    assert planned(found, replace(ABOUT, usage=Usage(0, 1900, 500))) == ["b/m"]


def test_strategies_nest() -> None:
    known = Known({"a/m": 3, "b/m": 2, "c/m": 1})
    models = {
        "x": {"targets": [{"target": "cheap"}, {"target": "a/m"}]},
        "cheap": {"strategy": "cost", "targets": targets("b/m", "c/m")},
    }
    assert planned(routes(models, known)) == ["c/m", "b/m", "a/m"]


@given(st.sampled_from(["priority", "weight", "latency", "cost"]), st.integers(0, 5), st.text(max_size=3))
def test_every_strategy_gives_every_target_once(strategy: str, notes: int, session: str) -> None:
    known = Known({"a/m": 3})
    for _ in range(notes):
        known.speeds.note("b/m", 100, 10, 5)
    found = routes({"x": {"strategy": strategy, "targets": targets("a/m", "b/m", "c/m")}}, known)
    about = replace(ABOUT, session=session, caller=Caller("k"))
    assert sorted(planned(found, about)) == ["a/m", "b/m", "c/m"]


def test_the_plan_of_an_alias_that_never_changes_is_made_once() -> None:
    found = routes({"x": {"targets": targets("a/m", "b/m")}, "y": {"strategy": "cost", "targets": targets("a/m")}})
    assert found.fixed("x") is None
    assert found.plan("x", ABOUT) == found.fixed("x")
    found.plan("y", ABOUT)
    assert found.fixed("y") is None
