"""Alerts as values: what is read of the gateway, what was told about it, and which messages follow. Pure; the contracts
of the store and of channels. See watch.py for what acts."""

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from mcpgate.governance.records import random_hex

Happening = Literal["firing", "resolved", "test"]


class Reading(NamedTuple):
    """How it stands with one subject of an alert."""

    alert: str
    subject: str
    """What it is about: a budget, a server, a target; empty where there is only one."""
    level: float
    """0: all is well. For budgets, the highest share reached."""
    text: str
    """One sentence."""


class State(NamedTuple):
    """What was told about one subject of an alert."""

    alert: str
    subject: str
    level: float
    """0: it has ended."""
    since: float
    """Epoch seconds."""
    text: str
    message: str
    """The id of the message about it."""
    is_told: bool = False
    """Whether every channel has the message, or has refused it."""

    @property
    def key(self) -> tuple[str, str]:
        return self.alert, self.subject


@dataclass(frozen=True, slots=True)
class Message:
    """What a channel is to tell."""

    id: str
    """The same for every attempt, so that receivers can tell a repetition."""
    happening: Happening
    alert: str
    subject: str
    text: str
    at: float
    since: float
    """When it began, epoch seconds."""
    level: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As Standard Webhooks recommends: type, timestamp, data."""
        data: dict[str, Any] = {"id": self.id, "alert": self.alert, "subject": self.subject, "text": self.text}
        data |= {"since": _moment(self.since), "level": self.level}
        return {"type": f"alert.{self.happening}", "timestamp": _moment(self.at), "data": data}


class Undeliverable(Exception):
    """A channel has not taken a message. `may_retry`: whether a later attempt may succeed."""

    def __init__(self, reason: str, may_retry: bool = True) -> None:
        super().__init__(reason)
        self.may_retry = may_retry


class Channel(Protocol):
    async def send(self, message: Message) -> None:
        """One attempt. Raises Undeliverable."""
        ...


class AlertStore(Protocol):
    """What all processes that share a store know of alerts. All raise StoreUnavailable."""

    async def lead(self, owner: str, now: float, until: float) -> bool:
        """Become the process that tells, or stay it, until then; False while another one is."""
        ...

    async def states(self) -> list[State]: ...

    async def save(self, state: State) -> None: ...

    async def remove(self, alert: str, subject: str) -> None: ...

    async def close(self) -> None: ...


@dataclass(slots=True)
class Pending:
    """Changes that have not lasted long enough yet: subject → since when, and the level."""

    since: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)


def next_states(
    states: Iterable[State], readings: Iterable[Reading], for_s: Mapping[str, float], pending: Pending, now: float
) -> list[State]:
    """The states that have changed, each to be told. `for_s`: by alert, how long a change must last; alerts that are
    not in it are no longer configured, and end silently elsewhere. A subject that is read no more has recovered."""
    known = {state.key: state for state in states if state.alert in for_s}
    read = {(one.alert, one.subject): one for one in readings}
    changed: list[State] = []
    for key in [*read, *(key for key in known if key not in read)]:
        state, reading = known.get(key), read.get(key)
        before, level = 0.0 if state is None else state.level, 0.0 if reading is None else reading.level
        if not (level > before or (level == 0 and before > 0)):
            pending.since.pop(key, None)
            continue
        since, lowest = pending.since.get(key, (now, level))
        if (lowest == 0) != (level == 0):
            since, lowest = now, level
        pending.since[key] = since, level
        if now - since < for_s[key[0]]:
            continue
        pending.since.pop(key, None)
        text = reading.text if reading is not None else f"{state.text if state else ''} (over)"
        made = State(*key, level, now, text, f"msg_{random_hex(24)}")
        changed.append(made if level or state is None else made._replace(since=state.since))
    for key in [key for key in pending.since if key not in read and key not in known]:
        del pending.since[key]
    return changed


def message_of(state: State, now: float) -> Message:
    happening: Happening = "firing" if state.level else "resolved"
    return Message(state.message, happening, state.alert, state.subject, state.text, now, state.since, state.level)


def _moment(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
