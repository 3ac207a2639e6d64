"""Who is told what when the store takes its time."""

import asyncio

import pytest

from mcpgate.activity.alerts import Message, State
from mcpgate.activity.watch import AlertWatch, Trouble
from mcpgate.stores.alerts import MemoryAlerts
from tests.conftest import gateway

pytestmark = pytest.mark.anyio
TELEMETRY = {
    "channels": {"people": {"type": "log"}},
    "alerts": [{"id": "down", "for_s": 0, "when": {"upstream_down": True}, "channels": ["people"]}],
}


class LateAlerts(MemoryAlerts):
    """What it read may have changed before it answers."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.may_answer = asyncio.Event(), asyncio.Event()
        self.may_answer.set()
        self.told = asyncio.Event()

    async def states(self) -> list[State]:
        found = await super().states()
        self.read.set()
        await self.may_answer.wait()
        return found

    async def save(self, state: State) -> None:
        await super().save(state)
        if state.is_told:
            self.told.set()


class People:
    def __init__(self) -> None:
        self.may_take = asyncio.Event()
        self.got: list[str] = []

    async def send(self, message: Message) -> None:
        await self.may_take.wait()
        self.got.append(message.text)


async def test_what_was_told_while_a_slow_store_answered_is_not_told_again() -> None:
    async with gateway({}, telemetry=TELEMETRY) as opened:
        store, people = LateAlerts(), People()
        watch = AlertWatch(
            opened.settings, opened.gate, store, lambda config: people, lambda: [Trouble("upstream_down", "files")]
        )
        await watch.look()  # begins to tell it
        store.read.clear()
        store.may_answer.clear()
        again = asyncio.create_task(watch.look())
        await store.read.wait()
        people.may_take.set()
        await store.told.wait()
        store.may_answer.set()
        await again
        await watch.look()
        await watch.aclose()
    assert people.got == ["the server files cannot be reached"]
