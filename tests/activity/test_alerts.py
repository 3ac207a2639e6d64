"""Which messages follow from what is read, and what counts as an error."""

from typing import Any

import pytest
from pydantic import ValidationError

from mcpgate.activity.alerts import Pending, Reading, State, message_of, next_states
from mcpgate.activity.samples import is_bad
from mcpgate.config.telemetry import AlertConfig, TelemetryConfig
from tests.stores.conftest import entry


def read(level: float, subject: str = "x") -> Reading:
    return Reading("a", subject, level, f"level {level}")


class Told:
    """What is told while readings come."""

    def __init__(self, for_s: float = 0.0) -> None:
        self.for_s, self.pending = {"a": for_s}, Pending()
        self.states: dict[tuple[str, str], State] = {}

    def __call__(self, now: float, *readings: Reading) -> list[tuple[str, float]]:
        changed = next_states(self.states.values(), readings, self.for_s, self.pending, now)
        for state in changed:
            if state.level:
                self.states[state.key] = state
            else:
                self.states.pop(state.key, None)
        return [(message_of(state, now).happening, state.level) for state in changed]


def test_a_state_is_told_once_and_its_end_once() -> None:
    told = Told()
    assert told(0) == []
    assert told(1, read(1)) == [("firing", 1)]
    assert told(2, read(1)) == []
    assert told(3) == [("resolved", 0)]
    assert told(4) == []


def test_each_higher_share_of_a_budget_is_told_and_a_fall_only_to_nothing() -> None:
    told = Told()
    assert told(1, read(0.5)) == [("firing", 0.5)]
    assert told(2, read(1.0)) == [("firing", 1.0)]
    assert told(3, read(0.8)) == []
    assert told(4, read(1.0)) == []
    assert told(5) == [("resolved", 0)]


def test_what_does_not_last_is_not_told() -> None:
    told = Told(for_s=10)
    assert told(0, read(1)) == []
    assert told(9) == []
    assert told(11, read(1)) == []
    assert told(20, read(1)) == []
    assert told(21, read(1)) == [("firing", 1)]
    assert told(25) == []
    assert told(26, read(1)) == []
    assert told(30) == [] and told(40) == [("resolved", 0)]


def test_subjects_are_told_apart() -> None:
    told = Told()
    assert told(1, read(1, "x"), read(1, "y")) == [("firing", 1), ("firing", 1)]
    assert told(2, read(1, "y")) == [("resolved", 0)]
    assert set(told.states) == {("a", "y")}


def alert(only: dict[str, Any] | None = None, **when: Any) -> AlertConfig:
    return AlertConfig.model_validate({"when": when, "only": only or {}, "channels": ["c"]})


@pytest.mark.parametrize(
    ("outcome", "is_error"),
    [
        ("ok", False),
        ("upstream_error", True),
        ("upstream_timeout", True),
        ("unavailable", True),
        ("tool_error", True),
        ("unknown", True),
        ("error", True),
        ("cancelled", False),
        ("code_failed", False),
        ("budget_exceeded", False),
        ("rate_limited", False),
        ("invalid_request", False),
    ],
)
def test_only_failures_of_the_gateway_and_what_is_behind_it_are_errors(outcome: str, is_error: bool) -> None:
    assert is_bad(alert(error_rate="10%"), entry("rq_1", outcome=outcome)) is is_error


def test_only_requests_that_the_alert_is_about_count() -> None:
    inner = entry("rq_1", parent_id="rq_0", server="github", outcome="tool_error")
    assert is_bad(alert(error_rate=10), inner) is None
    assert is_bad(alert({"server": "git*"}, error_rate=10), inner) is True
    assert is_bad(alert({"server": "files"}, error_rate=10), inner) is None
    assert is_bad(alert({"metadata.env": "prod"}, latency_ms=10), entry("rq_1", metadata={"env": "prod"})) is False
    assert is_bad(alert(latency_ms=10), entry("rq_1", latency_ms=11.0)) is True
    for cache, bad in (("miss", True), ("exact", False), ("semantic", False), ("off", None)):
        assert is_bad(alert(cache_hit_rate_below="20%"), entry("rq_1", facts={"cache": cache})) is bad


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"alerts": [{"when": {}, "channels": ["log"]}]}, "needs exactly one of"),
        ({"alerts": [{"when": {"error_rate": 5, "latency_ms": 5}, "channels": ["log"]}]}, "needs exactly one of"),
        ({"alerts": [{"when": {"error_rate": 5}, "channels": ["nowhere"]}]}, "there is no channel 'nowhere'"),
        ({"channels": {"x": {"type": "webhook"}}}, "a webhook needs url"),
        ({"channels": {"x": {"type": "webhook", "url": "file:///etc/passwd"}}}, "url must begin with"),
        ({"channels": {"x": {"type": "webhook", "format": "pagerduty"}}}, "needs routing_key"),
        ({"channels": {"x": {"type": "command"}}}, "which need it"),
        ({"channels": {"x": {"type": "log", "command": ["x"]}}}, "`command` is for"),
        (
            {"alerts": [{"when": {"spend_times_usual": 3}, "only": {"team": "a*"}, "channels": ["log"]}]},
            "needs one exact value",
        ),
    ],
)
def test_alerts_that_cannot_work_are_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TelemetryConfig.model_validate({"channels": {"log": {"type": "log"}}, **config})


def test_alerts_without_ids_are_named_after_what_they_look_at() -> None:
    alerts = [
        {"when": {"error_rate": "5%"}, "channels": ["log"]},
        {"id": "own", "when": {"store_away": True}, "channels": ["log"]},
    ]
    config = TelemetryConfig.model_validate({"channels": {"log": {"type": "log"}}, "alerts": alerts})
    assert list(config.named_alerts()) == ["error_rate-1", "own"]
    assert config.alerts[0].when.error_rate == 0.05
