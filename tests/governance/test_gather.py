"""Concurrent requests share one query, and none is forgotten."""

import asyncio
from collections.abc import Sequence

import pytest

from mcpgate.governance.gather import Gather
from mcpgate.governance.store import StoreUnavailable

pytestmark = pytest.mark.anyio


class Asked:
    """A store that doubles numbers; it answers when allowed to."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.answers = asyncio.Event()
        self.answers.set()

    async def __call__(self, items: list[int]) -> Sequence[int]:
        self.batches.append(items)
        await self.answers.wait()
        if 13 in items:
            raise ValueError("thirteen")
        if 99 in items:
            raise StoreUnavailable("away")
        if 77 in items:
            raise asyncio.CancelledError
        return [2 * item for item in items if item != 55]


async def test_while_one_question_is_under_way_the_others_become_one() -> None:
    asked = Asked()
    gather = Gather(asked)
    async with asyncio.timeout(5):
        assert await asyncio.gather(*(gather(n) for n in range(10))) == [2 * n for n in range(10)]
    assert [item for batch in asked.batches for item in batch] == list(range(10)), "in the order in which they came"
    assert len(asked.batches) <= 2


async def test_the_fault_of_one_is_not_that_of_the_others() -> None:
    gather = Gather(Asked())
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*(gather(n) for n in (1, 2, 13, 4)), return_exceptions=True)
    assert [answers[0], answers[1], answers[3]] == [2, 4, 8]
    assert isinstance(answers[2], ValueError)


@pytest.mark.parametrize("trouble", [99, 77, 55], ids=["away", "cancelled", "an answer too few"])
async def test_whatever_happens_every_caller_gets_an_outcome_and_later_ones_are_answered(trouble: int) -> None:
    gather = Gather(Asked())
    tasks = [asyncio.ensure_future(gather(n)) for n in (1, trouble, 3)]
    _, pending = await asyncio.wait(tasks, timeout=2)
    for _ in range(2):
        for task in pending:
            task.cancel()
        await asyncio.sleep(0)
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert not pending, f"{len(pending)} wait for ever"
    assert isinstance(answers[1], BaseException)
    async with asyncio.timeout(5):
        assert await gather(4) == 8


async def test_a_cancelled_request_is_still_sent_before_its_caller_continues() -> None:
    asked = Asked()
    asked.answers.clear()
    gather = Gather(asked)
    task = asyncio.ensure_future(gather(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done() and asked.batches == [[1]]
    asked.answers.set()
    async with asyncio.timeout(5):
        await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


async def test_a_caller_that_is_cancelled_again_still_waits_until_its_request_is_over() -> None:
    asked = Asked()
    asked.answers.clear()
    gather = Gather(asked)
    task = asyncio.ensure_future(gather(1))
    for _ in range(4):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.sleep(0)
    assert not task.done() and asked.batches == [[1]]
    asked.answers.set()
    async with asyncio.timeout(5):
        await gather.drain()
        await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


async def test_a_caller_that_is_cancelled_while_its_answer_arrives_does_not_wait_for_another() -> None:
    for trouble in (1, 13):
        asked = Asked()
        asked.answers.clear()
        gather = Gather(asked)
        task = asyncio.ensure_future(gather(trouble))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asked.answers.set()
        task.cancel()  # hears of it in the same turn of the loop in which the answer arrives
        async with asyncio.timeout(5):
            await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
