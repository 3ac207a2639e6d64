"""Calls that nobody awaits, and calls that are given up."""

import asyncio

import pytest

from sandbox.tests.conftest import Host, Run
from sandbox.tests.programs.conftest import SHORT, Value

pytestmark = pytest.mark.anyio


async def test_calls_that_nobody_awaits_are_finished(run: Run) -> None:
    host = Host()
    outcome = await run(
        "calls = []\nfor i in range(3):\n    calls.append(t.echo(i))\nawait asyncio.sleep(0)\n'done'", host=host
    )
    assert (outcome.result, host.finished, host.cancelled) == ("done", ["t.echo"] * 3, [])


@pytest.mark.parametrize("pause", ["await asyncio.sleep(0)", "await t.echo(1)", "await asyncio.sleep(0.01)"])
async def test_the_failure_of_a_call_that_nobody_awaits_is_shown(pause: str, run: Run) -> None:
    outcome = await run(f"calls = []\ncalls.append(t.fail('lost'))\n{pause}\n'done'")
    assert outcome.result == "done"
    assert outcome.stderr == "a call that was never awaited failed: t.fail: lost\n"


async def test_the_failure_of_a_task_that_nobody_awaits_is_shown_in_a_line(run: Run) -> None:
    outcome = await run("task = asyncio.create_task(t.fail('lost'))\nawait t.echo(1)\ntask = None\n'done'")
    assert outcome.result == "done"
    assert "t.fail: lost" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


async def test_a_timeout_of_the_code_cancels_the_call_on_the_host(run: Run) -> None:
    for code in (
        "try:\n    await asyncio.wait_for(t.never(), 0.01)\nexcept TimeoutError:\n    r = 'late'\nr",
        "try:\n    async with asyncio.timeout(0.01):\n        await t.never()\nexcept TimeoutError:\n    r = 'late'\nr",
        "try:\n    async with asyncio.timeout(0.01):\n        t.never()\nexcept TimeoutError:\n    r = 'late'\nr",
        "try:\n    async with asyncio.timeout(0.01):\n        x = t.never()\nexcept TimeoutError:\n    r = 'late'\nr",
    ):
        host = Host()
        outcome = await run(code, host=host, limits=SHORT)
        assert outcome.error is None
        await asyncio.wait_for(host.idle.wait(), 5)
        assert (outcome.result, host.cancelled) == ("late", ["t.never"])


async def test_cancelling_a_task_cancels_its_call_on_the_host(run: Run) -> None:
    host = Host()
    code = """
task = asyncio.create_task(t.never())
await t.echo(1)
task.cancel()
try:
    await task
except asyncio.CancelledError:
    r = "cancelled"
[r, t.echo(2)]
"""
    outcome = await run(code, host=host, limits=SHORT)
    assert (outcome.result, host.cancelled) == (["cancelled", 2], ["t.never"])


async def test_cancelling_a_gather_cancels_its_calls_on_the_host(run: Run) -> None:
    host = Host()
    code = """
both = asyncio.ensure_future(asyncio.gather(t.never(), t.never()))
await asyncio.sleep(0.01)
both.cancel()
try:
    await both
    got = "an answer"
except asyncio.CancelledError:
    got = "cancelled"
got
"""
    assert (await run(code, host=host)).result == "cancelled"
    async with asyncio.timeout(5):
        await host.idle.wait()
    assert host.cancelled == ["t.never", "t.never"]


async def test_a_call_that_another_task_waits_for_too_outlives_its_cancelled_gather(run: Run) -> None:
    door = asyncio.Event()

    async def wait() -> str:
        await door.wait()
        return "done"

    async def open() -> None:
        door.set()

    code = """
call = [t.wait()]
both = asyncio.ensure_future(asyncio.gather(call[0], t.never()))
other = asyncio.ensure_future(asyncio.gather(call[0]))
await asyncio.sleep(0.01)
both.cancel()
await t.open()
await other
"""
    outcome = await run(code, {"t.wait": wait, "t.open": open})
    assert outcome.error is None and outcome.result == ["done"]


async def test_a_call_whose_wait_was_cancelled_cannot_be_waited_for_again(run: Run) -> None:
    code = """
call = [t.never()]
try:
    await asyncio.wait_for(call[0], 0.01)
except TimeoutError:
    pass
try:
    await call[0]
except asyncio.CancelledError:
    r = "cancelled"
r
"""
    assert (await run(code, limits=SHORT)).result == "cancelled"


async def test_a_task_group_cancels_the_calls_next_to_the_one_that_failed(run: Run) -> None:
    host = Host()
    code = """
try:
    async with asyncio.TaskGroup() as group:
        group.create_task(t.never())
        group.create_task(t.fail("x"))
except ExceptionGroup:
    pass
"done"
"""
    outcome = await run(code, host=host, limits=SHORT)
    assert (outcome.result, host.cancelled) == ("done", ["t.never"])


async def test_a_shielded_call_outlives_the_timeout(value: Value) -> None:
    release = asyncio.Event()

    async def wait() -> str:
        await release.wait()
        return "came"

    async def let_go() -> None:
        release.set()

    code = """
call = asyncio.ensure_future(t.wait())
try:
    await asyncio.wait_for(asyncio.shield(call), 0.01)
except TimeoutError:
    await t.let_go()
await call
"""
    assert await value(code, {"t.wait": wait, "t.let_go": let_go}, limits=SHORT) == "came"
