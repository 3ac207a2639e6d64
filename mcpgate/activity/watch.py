"""Watches what alerts look at, and tells their channels: one process of those that share a store leads, reads how it
stands, and sends; the others report what only they can see."""

import asyncio
import contextlib
import fnmatch
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from mcpgate.activity.alerts import (
    AlertStore,
    Channel,
    Message,
    Pending,
    Reading,
    State,
    Undeliverable,
    message_of,
    next_states,
)
from mcpgate.activity.measures import budgets, rates, spend
from mcpgate.activity.samples import Samples
from mcpgate.config.settings import Settings
from mcpgate.config.telemetry import AlertConfig, ChannelConfig
from mcpgate.governance.gate import Gate
from mcpgate.governance.records import Claim, new_id
from mcpgate.governance.store import StoreUnavailable

log = logging.getLogger("mcpgate.alerts")
_LOOK_EVERY_S = 5.0
_LEADS_S = 20.0
"""How long a leader that has gone is waited for."""
_REPORT_S = 15.0
"""How long what a worker has seen counts."""
_RETRIES_S = (1.0, 5.0, 25.0, 120.0)
_MOST_SUBJECTS = 1_000
_SEEN = ("upstream_down", "sign_in_needed", "target_down")
"""What only the process itself can see."""
_WORDS = {
    "upstream_down": "the server {} cannot be reached",
    "sign_in_needed": "somebody must sign in to the server {}",
    "target_down": "the target {} is left alone after failures",
}


class Trouble(NamedTuple):
    """What a process sees of a server or a target."""

    kind: str
    """One of `_SEEN`."""
    name: str


class Seen(Protocol):
    def __call__(self) -> Sequence[Trouble]: ...


class AlertWatch:
    """One per process."""

    def __init__(
        self,
        settings: Settings,
        gate: Gate,
        store: AlertStore,
        make_channel: Callable[[ChannelConfig], Channel],
        seen: Seen,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`seen`: what is wrong with servers and targets now, as this process sees it."""
        self.store = store
        self._settings, self._gate, self._make_channel, self._seen = settings, gate, make_channel, seen
        self._clock = clock
        self._owner = new_id("aw")
        self._samples, self._pending = Samples(), Pending()
        self._alerts: Mapping[str, AlertConfig] = {}
        self._configured: object = None
        self._sending: dict[tuple[str, str], tuple[str, asyncio.Task[None]]] = {}
        self._away = _StoreAway()
        gate.listen(self._samples)

    @property
    def alerts(self) -> Mapping[str, AlertConfig]:
        """Those of the active configuration, by their ids."""
        telemetry = self._settings.config.telemetry
        if self._configured is not telemetry:
            self._configured, self._alerts = telemetry, telemetry.named_alerts()
            self._samples.watch(self._alerts)
        return self._alerts

    async def run(self) -> None:
        """Look every few seconds, until cancelled."""
        while True:
            if self.alerts or self._sending:
                try:
                    await self.look()
                except StoreUnavailable as error:
                    await self._store_is_away(str(error))
                except Exception:
                    log.exception("alerts cannot be looked at")
            await asyncio.sleep(self._pause_s())

    async def aclose(self) -> None:
        tasks = [task for _, task in self._sending.values()]
        for task in tasks:
            task.cancel()  # the next leader sends what was not told
        await asyncio.gather(*tasks, return_exceptions=True)
        self._away.forget()
        await self.store.close()

    async def look(self) -> None:
        """Report what this process sees, and, if it leads, tell what has changed. Raises StoreUnavailable."""
        now, alerts = self._clock(), self.alerts
        await self._report(now)
        await self._samples.flush(self._gate.counters)
        leads = await self.store.lead(self._owner, now, now + _LEADS_S)
        await self._store_is_there()
        if not leads:
            return
        # What is being told now may have been told when all has been read, and the states that were read do not say so.
        being_told = {message for message, _ in self._sending.values()}
        states = await self.store.states()
        for state in states:
            if state.alert not in alerts:
                await self.store.remove(*state.key)
        readings = [reading for id, alert in alerts.items() for reading in await self._read(id, alert, now)]
        for_s = {id: alert.for_s for id, alert in alerts.items() if alert.kind != "store_away"}
        changed = next_states(states, readings, for_s, self._pending, now)
        for state in changed:
            await self.store.save(state)
        untold = {state.key: state for state in (*states, *changed) if state.alert in for_s}
        for state in untold.values():
            if not state.is_told and state.message not in being_told:
                self._start_telling(state)

    async def test(self) -> dict[str, str]:
        """Send a test to every channel, once. Channel → why it did not arrive; empty if it did."""
        return await try_channels(self._settings.config.telemetry.channels, self._make_channel)

    # --- reading

    def _pause_s(self) -> float:
        """Shorter where something is to be told sooner."""
        shortest = min((alert.for_s for alert in self._alerts.values()), default=_LOOK_EVERY_S)
        return max(0.5, min(_LOOK_EVERY_S, shortest))

    async def _report(self, now: float) -> None:
        """Count what this process sees in counters that end by themselves."""
        wanted = {alert.kind for alert in self.alerts.values()}
        if wanted.isdisjoint(_SEEN):
            return
        for kind, name in self._seen():
            if kind in wanted:
                claim = Claim(_seen_counter(kind, name), "alert", 1, None, int(now), int(now), now + _REPORT_S)
                await self._gate.counters.adjust(claim)

    async def _read(self, id: str, alert: AlertConfig, now: float) -> list[Reading]:
        match alert.kind:
            case "budget_used":
                return await budgets(self._gate, id, alert, now)
            case "spend_times_usual":
                return await spend(self._gate, id, alert, now)
            case "error_rate" | "latency_ms" | "cache_hit_rate_below":
                return await rates(self._gate.counters, id, alert, now)
            case "store_away":
                return []
        return await self._seen_by_all(id, alert, now)

    async def _seen_by_all(self, id: str, alert: AlertConfig, now: float) -> list[Reading]:
        prefix = _seen_counter(alert.kind, "")
        names = await self._gate.counters.names(prefix, _MOST_SUBJECTS)
        counts = await self._gate.counters.read([(name, int(now - _REPORT_S) + 1) for name in names])
        subjects = [name.removeprefix(prefix) for name, count in zip(names, counts, strict=True) if count.spent]
        return [
            Reading(id, subject, 1.0, _WORDS[alert.kind].format(subject))
            for subject in subjects
            if any(fnmatch.fnmatchcase(subject, glob) for glob in alert.names)
        ]

    # --- telling

    def _start_telling(self, state: State) -> None:
        known = self._sending.get(state.key)
        if known is not None:
            known[1].cancel()  # it has changed again before it could be told
        task = asyncio.ensure_future(self._tell(state))
        self._sending[state.key] = state.message, task
        task.add_done_callback(lambda done: self._told(state, done))

    def _told(self, state: State, done: "asyncio.Task[None]") -> None:
        if self._sending.get(state.key, ("", done))[1] is done:
            self._sending.pop(state.key, None)
        if not done.cancelled() and (error := done.exception()) is not None:
            log.error("alert %s cannot be told: %s", state.alert, error)

    async def _tell(self, state: State) -> None:
        alert = self.alerts[state.alert]
        await self._send(message_of(state, self._clock()), alert.channels)
        with contextlib.suppress(StoreUnavailable):
            if state.level:
                await self.store.save(State(*state.key, state.level, state.since, state.text, state.message, True))
            else:
                await self.store.remove(*state.key)

    async def _send(self, message: Message, names: Sequence[str]) -> None:
        """Returns when every channel has the message, or will not take it."""
        channels = self._settings.config.telemetry.channels
        await asyncio.gather(*(self._deliver(name, channels[name], message) for name in names if name in channels))

    async def _deliver(self, name: str, config: ChannelConfig, message: Message) -> None:
        channel = self._make_channel(config)
        for pause_s in (*_RETRIES_S, None):
            try:
                await channel.send(message)
                return
            except Undeliverable as error:
                if pause_s is None or not error.may_retry:
                    log.error("the channel %s did not get %r: %s", name, message.text, error)
                    return
                log.warning("the channel %s did not get a message; trying again in %g s: %s", name, pause_s, error)
            await asyncio.sleep(pause_s)

    # --- the store itself

    async def _store_is_away(self, why: str) -> None:
        alerts = {id: alert for id, alert in self.alerts.items() if alert.kind == "store_away"}
        for_s = min((alert.for_s for alert in alerts.values()), default=0.0)
        if alerts and self._away.claim(self._settings.config.storage.url or "", for_s):
            await self._tell_away(alerts, "firing", f"the store is unavailable: {why}"[:500])

    async def _store_is_there(self) -> None:
        if self._away.end():
            alerts = {id: alert for id, alert in self.alerts.items() if alert.kind == "store_away"}
            await self._tell_away(alerts, "resolved", "the store is available again")

    async def _tell_away(self, alerts: Mapping[str, AlertConfig], happening: str, text: str) -> None:
        now = self._clock()
        for id, alert in alerts.items():
            level = 1.0 if happening == "firing" else 0.0
            state = State(id, "", level, self._away.since or now, text, new_id("msg"))
            task = asyncio.ensure_future(self._send(message_of(state, now), alert.channels))
            self._sending[id, happening] = state.message, task
            task.add_done_callback(lambda _, key=(id, happening): self._sending.pop(key, None))  # type: ignore[misc]


async def try_channels(
    channels: Mapping[str, ChannelConfig], make_channel: Callable[[ChannelConfig], Channel]
) -> dict[str, str]:
    """See AlertWatch.test."""
    now = time.time()
    message = Message(new_id("msg"), "test", "test", "", "this is a test of mcpgate's alerts", now, now)

    async def attempt(config: ChannelConfig) -> str:
        try:
            await make_channel(config).send(message)
        except Undeliverable as error:
            return str(error) or "it did not take the message"
        return ""

    found = await asyncio.gather(*(attempt(config) for config in channels.values()))
    return dict(zip(channels, found, strict=True))


class _StoreAway:
    """Which process of this machine tells that the store is away: the one that has made a file for it. The store itself
    cannot be asked."""

    def __init__(self) -> None:
        self.since = 0.0
        self._path: Path | None = None

    def claim(self, store: str, for_s: float) -> bool:
        """Whether this process is to tell it now."""
        now = time.time()
        self.since = self.since or now
        if self._path is not None:
            with contextlib.suppress(OSError):
                os.utime(self._path)
            return False
        if now - self.since < for_s:
            return False
        name = f"mcpgate-store-away-{os.getuid() if hasattr(os, 'getuid') else 0}-{_digest(store)}"
        path = Path(tempfile.gettempdir()) / name
        try:
            if now - path.stat().st_mtime > 60:
                path.unlink()  # whoever made it has gone
        except OSError:
            pass
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except OSError:
            return False
        self._path = path
        return True

    def end(self) -> bool:
        """The store is there. Whether this process had told that it was not."""
        self.since, told = 0.0, self._path is not None
        self.forget()
        return told

    def forget(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _seen_counter(kind: str, name: str) -> str:
    return f"alert|{kind}|{name}"
