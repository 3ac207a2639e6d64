"""No account's executions keep another's waiting, and the queue has an end."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from mcpgate_sandbox.engine import Execution, Limits, Outcome
from mcpgate_sandbox.errors import SandboxBusy, SandboxUnavailable
from mcpgate_sandbox.sessions import SessionLimits, Sessions
from mcpgate_sandbox.slots import QueueLimits, next_account
from mcpgate_sandbox.wasm import WasmEngine
from sandbox.tests.conftest import GENEROUS, Host

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("waiting", "held", "slots", "reserve", "expected"),
    [
        ("", {}, 8, 0, None),
        ("a", {}, 8, 0, "a"),
        ("a", {"a": 8}, 8, 0, None),
        ("a", {"a": 7}, 8, 0, "a"),
        ("a", {"a": 7}, 8, 1, None),
        ("b", {"a": 7}, 8, 1, "b"),
        ("b", {"a": 6, "b": 1}, 8, 1, None),
        ("ab", {"a": 4, "b": 3}, 8, 0, "b"),
        ("ab", {"a": 5, "b": 1}, 8, 1, "b"),
        ("ab", {"a": 3, "b": 4}, 8, 0, "a"),
        ("ab", {"a": 2, "b": 2}, 8, 0, "a"),
        ("ba", {"a": 2, "b": 2}, 8, 0, "b"),
        ("abc", {"a": 3, "b": 3}, 8, 0, "c"),
        ("ab", {"a": 2, "b": 2, "c": 1}, 8, 0, "a"),
        ("ab", {"a": 3, "b": 3, "c": 1}, 8, 0, "a"),
        ("abcdefghij", {"a": 1, "b": 1}, 3, 0, "c"),
        ("a", {}, 1, 0, "a"),
    ],
)
def test_the_next_slot_goes_to(
    waiting: str, held: Mapping[str, int], slots: int, reserve: int, expected: str | None
) -> None:
    assert next_account(dict.fromkeys(waiting), held, slots, reserve) == expected


class Crowd:
    """Executions of several accounts on one engine. Each holds its slot until `door` opens."""

    def __init__(self, engine: WasmEngine) -> None:
        self.engine = engine
        self.door = asyncio.Event()
        self.began: list[str] = []
        self.changed = asyncio.Event()
        self.tasks: list[asyncio.Task[Outcome]] = []

    def start(
        self, account: str, count: int = 1, code: str = "t.hold()", **options: Any
    ) -> list[asyncio.Task[Outcome]]:
        async def hold() -> None:
            self.began.append(account)
            self.changed.set()
            await self.door.wait()

        host = Host({"t.hold": hold})
        execution = Execution(code, host.servers, host.call_tool, host.host_call, GENEROUS, account=account, **options)
        tasks = [asyncio.create_task(self.engine.run(execution)) for _ in range(count)]
        self.tasks += tasks
        return tasks

    async def until(self, *began: str) -> None:
        """Until exactly these have begun, in any order."""
        async with asyncio.timeout(10):
            while len(self.began) < len(began):
                self.changed.clear()
                await self.changed.wait()
        assert sorted(self.began) == sorted(began)

    async def finish(self) -> list[Outcome]:
        self.door.set()
        async with asyncio.timeout(20):
            return await asyncio.gather(*self.tasks)


@pytest.fixture
async def crowd(request: pytest.FixtureRequest) -> AsyncIterator[Crowd]:
    """On an engine with four slots and a queue of four, two of them for each account."""
    options = {"max_executions": 4, "queue": QueueLimits(per_account=2, in_all=4), **getattr(request, "param", {})}
    engine = WasmEngine(warm=1, **options)
    await engine.ready()
    crowd = Crowd(engine)
    yield crowd
    crowd.door.set()
    for task in crowd.tasks:
        task.cancel()
    await asyncio.gather(*crowd.tasks, return_exceptions=True)
    await engine.aclose()


MANY = {"queue": QueueLimits()}


@pytest.mark.parametrize("crowd", [MANY], indirect=True)
async def test_an_account_alone_has_all_slots(crowd: Crowd) -> None:
    crowd.start("eve", 6)
    await crowd.until("eve", "eve", "eve", "eve")
    assert all(outcome.error is None for outcome in await crowd.finish())


@pytest.mark.parametrize("crowd", [MANY], indirect=True)
async def test_sleeping_executions_of_one_account_do_not_keep_another_waiting(crowd: Crowd) -> None:
    assert (await crowd.start("bob", code="1")[0]).result == 1
    crowd.start("eve", 24)
    await crowd.until("eve", "eve", "eve")
    async with asyncio.timeout(5):
        assert (await crowd.start("bob", code="2")[0]).result == 2
        assert (await crowd.start("sue", code="3")[0]).result == 3
    assert len(crowd.began) == 3


@pytest.mark.parametrize("crowd", [MANY], indirect=True)
async def test_an_account_that_comes_last_is_served_before_the_rest_of_the_first(crowd: Crowd) -> None:
    crowd.start("eve", 20)
    await crowd.until("eve", "eve", "eve", "eve")
    order: list[str] = []
    for account in ("bob", "sue"):
        for task in crowd.start(account, 2, code="1"):
            task.add_done_callback(lambda _, account=account: order.append(account))
    for task in crowd.tasks[:20]:
        task.add_done_callback(lambda _: order.append("eve"))
    await crowd.finish()
    assert {"bob", "sue"} < set(order[:12])
    assert order.index("bob") < 8 and order.index("sue") < 8


async def test_an_account_whose_queue_is_full_is_refused_and_told_what_to_do(crowd: Crowd) -> None:
    crowd.start("eve", 4)
    await crowd.until("eve", "eve", "eve", "eve")
    crowd.start("eve", 2)
    await asyncio.sleep(0)
    with pytest.raises(SandboxBusy, match=r"2 executions of this account wait already; let some") as refused:
        await crowd.engine.run(_simple("eve"))
    assert refused.value.of_account
    assert isinstance(refused.value, SandboxUnavailable)
    waiting = crowd.start("bob", code="1")
    outcomes = await crowd.finish()
    assert len(outcomes) == 7 and waiting[0].result().result == 1


async def test_a_queue_that_is_full_refuses_everybody_alike(crowd: Crowd) -> None:
    crowd.start("eve", 4)
    await crowd.until("eve", "eve", "eve", "eve")
    crowd.start("eve", 2)
    crowd.start("bob", 2)
    await asyncio.sleep(0)
    with pytest.raises(SandboxBusy, match=r"4 executions wait already; try again later") as refused:
        await crowd.engine.run(_simple("sue"))
    assert not refused.value.of_account
    await crowd.finish()


@pytest.mark.parametrize("crowd", [{"queue": QueueLimits(wait_s=0.05)}], indirect=True)
async def test_waiting_for_a_slot_has_an_end(crowd: Crowd) -> None:
    crowd.start("eve", 4)
    await crowd.until("eve", "eve", "eve", "eve")
    with pytest.raises(SandboxBusy, match="no execution ended for this one to begin within 0.05 s"):
        await crowd.engine.run(_simple("bob"))
    assert len(await crowd.finish()) == 4
    assert (await crowd.engine.run(_simple("bob"))).result == 1


async def test_executions_that_wait_for_their_sessions_turn_count_as_waiting(crowd: Crowd) -> None:
    crowd.start("eve", session="s")
    await crowd.until("eve")
    crowd.start("eve", 2, session="s")
    await asyncio.sleep(0)
    with pytest.raises(SandboxBusy, match="of this account"):
        await crowd.engine.run(_simple("eve", session="s"))
    assert len(await crowd.finish()) == 3


async def test_whoever_waits_when_the_sandbox_closes_is_told_so(crowd: Crowd) -> None:
    crowd.start("eve", 4)
    await crowd.until("eve", "eve", "eve", "eve")
    waiting = crowd.start("eve")[0]
    await asyncio.sleep(0)
    await crowd.engine.aclose()
    with pytest.raises(SandboxUnavailable, match="closed"):
        await waiting


async def test_the_list_of_modules_and_the_refill_do_not_stand_in_the_queue(crowd: Crowd) -> None:
    crowd.start("eve", 6)
    await crowd.until("eve", "eve", "eve", "eve")
    async with asyncio.timeout(5):
        available, _ = await crowd.engine.modules()
        assert "json" in available
        while not crowd.engine._pool:
            await asyncio.sleep(0.001)


async def test_an_execution_that_is_cancelled_while_it_waits_never_began_and_leaves_its_place(crowd: Crowd) -> None:
    started: list[str] = []
    crowd.start("eve", 4, on_started=lambda: started.append("eve"))
    await crowd.until("eve", "eve", "eve", "eve")
    given_up = crowd.start("eve", 2, on_started=lambda: started.append("given up"))
    await asyncio.sleep(0)
    for task in given_up:
        task.cancel()
    await asyncio.gather(*given_up, return_exceptions=True)
    crowd.tasks = [task for task in crowd.tasks if task not in given_up]
    crowd.start("eve", 2, code="1", on_started=lambda: started.append("later"))
    await crowd.finish()
    assert sorted(started) == ["eve"] * 4 + ["later"] * 2


async def test_the_engine_says_when_the_code_begins(crowd: Crowd) -> None:
    order: list[str] = []
    host = Host({"t.step": lambda: _append(order, "code")})
    execution = Execution(
        "t.step()", host.servers, host.call_tool, host.host_call, on_started=lambda: order.append("started")
    )
    await crowd.engine.run(execution)
    assert order == ["started", "code"]


async def test_code_that_is_refused_never_began(crowd: Crowd) -> None:
    started: list[int] = []
    limits = Limits(max_source_chars=3)
    execution = Execution("1 + 1", (), Host().call_tool, Host().host_call, limits, on_started=lambda: started.append(1))
    assert (await crowd.engine.run(execution)).error is not None
    assert started == []


async def _append(order: list[str], what: str) -> None:
    order.append(what)


def _simple(account: str, session: str | None = None) -> Execution:
    host = Host()
    return Execution("1", host.servers, host.call_tool, host.host_call, GENEROUS, session=session, account=account)


# --- sessions


class Kept:
    def __init__(self, name: str, gone: list[str]) -> None:
        self._name, self._gone = name, gone

    def close(self) -> None:
        self._gone.append(self._name)


def test_where_there_are_too_many_sessions_one_of_the_account_that_holds_most_goes() -> None:
    gone: list[str] = []
    sessions: Sessions[Kept] = Sessions(SessionLimits(per_account=50, mib_per_account=100_000, in_all=6))
    sessions.put(("bob", "diary"), Kept("bob", gone), 256, "bob")
    for number in range(5):
        sessions.put((f"eve as {number}", "x"), Kept(f"eve {number}", gone), 256, "eve")
    assert gone == []
    sessions.put(("sue", "x"), Kept("sue", gone), 256, "sue")
    sessions.put(("eve as 9", "x"), Kept("eve 9", gone), 256, "eve")
    assert gone == ["eve 0", "eve 1"]
    assert sessions.take(("eve as 0", "x"))[1] == ["session 'x' is new: the earlier one made room for others"]
    assert sessions.take(("bob", "diary"))[0] is not None


def test_sessions_of_one_account_are_bounded_under_whatever_names_it_calls_itself() -> None:
    gone: list[str] = []
    sessions: Sessions[Kept] = Sessions(SessionLimits(per_account=2))
    for number in range(4):
        sessions.put((f"eve as {number}", "x"), Kept(f"eve {number}", gone), 256, "eve")
    assert gone == ["eve 0", "eve 1"]
