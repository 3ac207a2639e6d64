"""What watches requests under way ends those that it should, and only those."""

import asyncio
from typing import Any

import pytest

from mcpgate.api.http import watch
from mcpgate.api.http.exchange import GONE, Closing, Exchange
from mcpgate.api.http.memory import Memory
from mcpgate.api.http.watch import HungUp, Watcher
from mcpgate.errors import NotAllowed, Unavailable
from mcpgate.governance.callers import Caller
from mcpgate.governance.context import RequestContext
from tests.conftest import until

pytestmark = pytest.mark.anyio


class Rights:
    """Says what it is told to of each key: an answer, an error, or something to wait for."""

    def __init__(self, **said: Any) -> None:
        self.said, self.asked = said, 0

    async def still_admitted(self, caller: Caller) -> bool:
        self.asked += 1
        said = self.said[caller.id]
        if isinstance(said, Exception):
            raise said
        if isinstance(said, asyncio.Event):
            await said.wait()
            return False
        return bool(said)


class Opened:
    """A request under way, its client and its key."""

    def __init__(self, watcher: Watcher, key: str) -> None:
        self.sent: list[bytes] = []
        self.gone = asyncio.get_running_loop().create_future()
        scope = {"method": "POST", "path": "/", "headers": [], GONE: self.gone}
        self.http = Exchange(scope, self._receive, self._send, 1000, Memory(1000, 1000))
        self.watch = watcher.over(self.http, RequestContext(Caller(key)))

    async def _receive(self) -> dict[str, Any]:
        raise AssertionError

    async def _send(self, event: Any) -> None:
        self.sent.append(event.get("body", b""))

    async def waits(self) -> None:
        async with self.watch:
            await asyncio.sleep(20)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_LOOK_S", 0.01)
    monkeypatch.setattr(watch, "_PING_S", 0.05)


def watcher(rights: Rights, closing: Closing | None = None) -> Watcher:
    return Watcher(rights, closing or Closing())  # type: ignore[arg-type]


async def stop(watcher: Watcher) -> None:
    for task in watcher._tasks:
        task.cancel()
    await asyncio.gather(*watcher._tasks, return_exceptions=True)
    assert not watcher.watches


async def test_who_hangs_up_and_who_lost_its_key_are_ended_and_others_go_on(quick: None) -> None:
    rights = Rights(good=True, bad=True, broken=ValueError("told to"))
    watching = watcher(rights)
    keys = ("broken", "good", "bad", "good")
    opened = [Opened(watching, key) for key in keys]
    tasks = [asyncio.create_task(one.waits()) for one in opened]
    await until(lambda: rights.asked > 8)
    rights.said["bad"] = False
    with pytest.raises(NotAllowed):
        await tasks[2]
    opened[3].gone.set_result(None)
    with pytest.raises(HungUp):
        await tasks[3]
    assert not tasks[0].done() and not tasks[1].done()
    for task in tasks[:2]:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await stop(watching)


async def test_a_store_that_does_not_answer_holds_up_no_pings(quick: None) -> None:
    stuck = asyncio.Event()
    watching = watcher(Rights(stuck=stuck))
    opened = [Opened(watching, "stuck") for _ in range(3)]
    tasks = [asyncio.create_task(one.waits()) for one in opened]
    for one in opened:
        one.http.started = True
    await until(lambda: all(one.sent.count(b": ping\r\n\r\n") >= 2 for one in opened))
    stuck.set()
    for task in tasks:
        with pytest.raises(NotAllowed):
            await task
    await stop(watching)


async def test_what_comes_after_the_block_is_not_cancelled(quick: None) -> None:
    """Its rights were being looked at when it ended."""
    answer = asyncio.Event()
    rights = Rights(late=answer)
    watching = watcher(rights)
    opened = Opened(watching, "late")

    async def request() -> str:
        async with opened.watch:
            await until(lambda: rights.asked)
        answer.set()
        opened.gone.set_result(None)
        await asyncio.sleep(0.05)  # the answer is being written
        return "written"

    assert await asyncio.create_task(request()) == "written"
    await stop(watching)


async def test_a_server_that_stops_ends_what_is_under_way_and_what_begins_then(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SHUTDOWN_S", 0.1)
    closing = Closing()
    watching = watcher(Rights(good=True), closing)
    before = asyncio.create_task(Opened(watching, "good").waits())
    await until(lambda: watching.watches)
    closing.set()
    with pytest.raises(Unavailable, match="shutting down"):
        await before
    with pytest.raises(Unavailable, match="shutting down"):
        await asyncio.create_task(Opened(watching, "good").waits())
    await stop(watching)
