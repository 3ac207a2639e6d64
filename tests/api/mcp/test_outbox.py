"""Queues towards clients that may not be reading, sessions and their bounds."""

import os
from typing import Any

import pytest

from mcpgate.api.mcp.face import McpFace
from mcpgate.api.mcp.outbox import Outbox
from mcpgate.api.mcp.sessions import SessionLimits, Sessions
from mcpgate.api.mcp.stdio import Writer
from mcpgate.api.mcp.throttle import Throttle
from mcpgate.errors import RateLimited
from mcpgate.governance.callers import LOCAL, Caller
from tests.conftest import until

pytestmark = pytest.mark.anyio


def progress(number: int, token: Any = "t", size: int = 10_000) -> dict[str, Any]:
    params = {"progressToken": token, "progress": number, "message": "x" * size}
    return {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}


def result(id: int, size: int) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "result": {"text": "x" * size}}


async def test_messages_come_out_as_they_went_in() -> None:
    outbox = Outbox()
    messages = [progress(1), result(1, 5), progress(2)]
    for message in messages:
        outbox.put(message)
    assert [(await outbox.get() or (b"", {}))[1] for _ in messages] == messages
    assert outbox.size == 0 and outbox.get_nowait() is None


async def test_of_progress_that_is_not_read_the_latest_of_each_token_is_kept() -> None:
    outbox = Outbox()
    for number in range(10_000):
        outbox.put(progress(number, number % 2))
    assert outbox.size < 120_000 and not outbox.ended
    kept = []
    while (found := outbox.get_nowait()) is not None:
        kept.append(found[1]["params"]["progress"])
    assert kept[-2:] == [9998, 9999] and kept == sorted(kept)


async def test_a_changed_tool_list_is_told_once_however_often_it_changes() -> None:
    outbox = Outbox()
    for _ in range(1000):
        outbox.put({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    assert len(outbox) == 1


async def test_over_its_limit_an_outbox_ends_and_forgets() -> None:
    told: list[str] = []
    outbox = Outbox(1000, on_end=lambda: told.append("end"))
    outbox.put(result(1, 5000))  # one alone may be longer
    assert not outbox.ended
    outbox.put(result(2, 10))
    outbox.put(result(3, 10))
    assert outbox.ended and outbox.size == 0 and told == ["end"]
    assert await outbox.get() is None


async def yes(_: Caller) -> bool:
    return True


class FakeFace(McpFace):
    def __init__(self) -> None:
        pass


async def test_sessions_are_bounded_for_each_key_for_local_callers_and_in_all() -> None:
    sessions = Sessions(FakeFace(), yes, SessionLimits(total=6, each=3))
    first = [sessions.new(LOCAL) for _ in range(4)]
    assert len(sessions) == 3 and sessions.find(first[0].id, LOCAL) is None
    ann, bob = Caller("ann"), Caller("bob")
    of_ann = [sessions.new(ann) for _ in range(3)]
    assert sessions.find(of_ann[0].id, ann) is not None  # makes it the last to go
    of_bob = sessions.new(bob)
    assert len(sessions) == 6 and sessions.find(of_bob.id, bob) is of_bob
    assert sessions.find(first[1].id, LOCAL) is None  # of whoever holds most
    for _ in range(2):
        sessions.new(bob)
    assert sessions.find(of_ann[0].id, ann) is not None and len(sessions) == 6


async def test_idle_sessions_and_those_of_revoked_keys_end_by_themselves() -> None:
    now = 0.0
    good = {"ann"}

    async def is_admitted(caller: Caller) -> bool:
        return caller.id in good

    sessions = Sessions(FakeFace(), is_admitted, SessionLimits(idle_s=10), clock=lambda: now)
    old, ann = sessions.new(Caller("ann")), Caller("ann")
    now = 8.0
    new = sessions.new(ann)
    bob = sessions.new(Caller("bob"))
    now = 11.0
    await sessions.sweep()
    assert sessions.find(old.id, ann) is None and sessions.find(new.id, ann) is new
    assert sessions.find(bob.id, Caller("bob")) is None and await bob.outbox.get() is None


async def test_what_waits_for_all_clients_is_bounded_at_the_expense_of_who_reads_least() -> None:
    sessions = Sessions(FakeFace(), yes, SessionLimits(unread=1000, unread_in_all=2000))
    eves = [sessions.new(Caller("eve")) for _ in range(4)]
    bob = sessions.new(Caller("bob"))
    bob.outbox.put(result(1, 300))
    for number, one in enumerate(eves):
        one.outbox.put(result(1, 500 + number))
    assert bob.outbox.size and not bob.outbox.ended
    assert [one.outbox.ended for one in eves] == [False, False, True, False] or sum(o.outbox.ended for o in eves) == 1
    assert sessions._unread <= 2000 and len(sessions) == 4


def test_a_throttle_makes_up_for_what_was_taken() -> None:
    now = 0.0
    throttle = Throttle(1000, 100, clock=lambda: now)
    throttle.check("a")
    throttle.count("a", 1500)
    with pytest.raises(RateLimited) as refused:
        throttle.check("a")
    assert refused.value.data["retry_after_s"] == 5.0
    throttle.check("b")
    now = 5.1
    throttle.check("a")


async def test_a_client_on_stdio_that_does_not_read_ends_the_session_and_progress_goes_first() -> None:
    reading, writing = os.pipe()
    full: list[bool] = []
    writer = Writer(writing, lambda: full.append(True), limit=800_000)
    for number in range(100):
        writer.send(progress(number))
    assert not full and writer._behind < 250_000
    for number in range(100):
        writer.send(result(number, 10_000))
    assert full == [True] and writer._behind <= 800_000
    os.close(reading)
    await until(lambda: not writer._thread.is_alive())
    os.close(writing)
