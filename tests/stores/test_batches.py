"""One suite that every table of batches passes."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from mcpgate.llm.batches import Batch, BatchesUnavailable, BatchStore, Line
from mcpgate.stores.sqlite.batches import SqliteBatches
from tests.stores.conftest import two_views

pytestmark = pytest.mark.anyio
Pair = tuple[BatchStore, BatchStore]


def two_of(kind: str, folder: Path) -> AbstractAsyncContextManager[Pair]:
    """Two processes' views of one table."""
    return two_views(kind, folder, lambda: SqliteBatches(None), SqliteBatches, "batches:PostgresBatches")


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def pair(anyio_backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pair]:
    async with two_of(request.param, tmp_path) as made:
        yield made


def batch(id: str, account: str = "ann", ago_s: float = 0.0, **others: Any) -> Batch:
    values: dict[str, Any] = {"kind": "openai", "status": "validating", "format": "chat", "file": "f", **others}
    return Batch(id, account, at=time.time() - ago_s, caller={"key": account}, **values)


async def test_a_batch_is_read_as_it_was_written_and_only_by_its_account(pair: Pair) -> None:
    here, there = pair
    made = batch("b1", metadata={"ä": "ö"}, headers={"anthropic-beta": "x"}, total=3)
    assert await here.add(made, 10)
    assert await there.get("ann", "openai", "b1") == made
    assert await there.get("bob", "openai", "b1") is None and await there.get("ann", "anthropic", "b1") is None


async def test_no_more_batches_are_open_than_allowed(pair: Pair) -> None:
    here, there = pair
    assert await here.add(batch("b1"), 2) and await there.add(batch("b2"), 2)
    assert not await here.add(batch("b3"), 2)
    assert await here.add(batch("b4", "bob"), 2), "those of others do not count"
    ended = batch("b1").to("completed", 1.0)
    assert await there.change(ended, "validating") and await here.add(batch("b3"), 2)


async def test_pages_go_both_ways(pair: Pair) -> None:
    here, there = pair
    for number in range(5):
        await here.add(batch(f"b{number}", ago_s=10 - number), 10)
    await here.add(batch("other", kind="anthropic"), 10)

    async def ids(*where: Any) -> list[str]:
        return [one.id for one in await there.page("ann", "openai", *where)]

    assert await ids("", 3) == ["b4", "b3", "b2"] and await ids("b2", 3) == ["b1", "b0"]
    assert await ids("b1", 2, True) == ["b3", "b2"] and await ids("b4", 2, True) == []
    assert await ids("none", 3) == []


async def test_one_process_at_a_time_works_at_a_batch(pair: Pair) -> None:
    here, there = pair
    await here.add(batch("b1", ago_s=5), 10)
    await here.add(batch("b2", "bob"), 10)
    now = time.time()
    taken = await asyncio.gather(*(one.claim(f"p{n}", now, now + 10, ()) for n, one in enumerate((here, there) * 3)))
    assert [one.id for one in taken if one is not None].count("b1") == 1
    first = next(n for n, one in enumerate(taken) if one is not None and one.id == "b1")
    assert await there.renew("b1", f"p{first}", now + 20) is not None
    assert await there.renew("b1", "somebody", now + 20) is None
    late = await here.claim("q", now + 15, now + 40, ("bob",))
    assert late is None, "its lease was renewed"
    again = await here.claim("q", now + 25, now + 40, ("bob",))
    assert again is not None and again.id == "b1"
    assert await there.renew("b1", f"p{first}", now + 90) is None, "who came late has lost it"
    await here.release("b1", "q")
    assert await there.claim("r", now, now + 1, ("bob",)) is not None


async def test_a_status_changes_only_from_the_one_that_was_seen(pair: Pair) -> None:
    here, there = pair
    made = batch("b1")
    await here.add(made, 10)
    assert await here.change(made.to("cancelling", 2.0), "validating")
    assert not await there.change(made.to("in_progress", 3.0), "validating")
    found = await there.get("ann", "openai", "b1")
    assert found is not None and found.status == "cancelling" and found.times == {"cancelling": 2.0}


async def test_lines_end_once_and_their_beginnings_are_counted(pair: Pair) -> None:
    here, there = pair
    await here.add(batch("b1"), 10)
    assert await here.start("b1", 0) == 1 and await there.start("b1", 0) == 2
    await here.end("b1", [Line(0, "succeeded", b"first")])
    await there.end("b1", [Line(0, "errored", b"second"), Line(1, "errored", b"\x00no text")])
    assert await there.start("b1", 0) is None and await there.start("b1", 2) == 1
    assert await here.ended("b1") == [0, 1]
    assert await there.counts("b1") == {"succeeded": 1, "errored": 1, "started": 1}
    assert await there.results("b1", -1, 99) == [Line(0, "succeeded", b"first"), Line(1, "errored", b"\x00no text")]
    assert await there.results("b1", -1, 99, True) == [Line(0, "succeeded", b"first")]
    assert [one.number for one in await there.results("b1", 0, 99, False)] == [1]
    assert [one.number for one in await there.results("b1", -1, 12)] == [0], "as many as fit"
    assert [one.number for one in await there.results("b1", -1, 1)] == [0], "but one"
    assert await there.results_bytes("b1", True) == 6 and await there.results_bytes("b1", False) == 9


async def test_files_come_in_pieces_and_count_for_their_account(pair: Pair) -> None:
    here, there = pair
    for number in range(3):
        await here.put_piece("ann", "f", number, b"x" * 10)
    await here.put_piece("bob", "g", 0, b"y")
    await here.add(batch("b1"), 10)
    await here.end("b1", [Line(0, "succeeded", b"12345")])
    assert await there.piece("f", 2) == b"x" * 10 and await there.piece("f", 3) is None
    assert await there.stored_bytes("ann") == 35 and await there.stored_bytes("bob") == 1
    await there.drop_file("f")
    await there.delete(batch("b1"))
    assert await here.piece("f", 0) is None and await here.stored_bytes("ann") == 0
    assert await here.get("ann", "openai", "b1") is None and await here.ended("b1") == []


async def test_what_is_old_is_forgotten(pair: Pair) -> None:
    here, there = pair
    await here.add(batch("old", ago_s=1000, status="completed"), 10)
    await here.end("old", [Line(0, "succeeded", b"x")])
    await here.add(batch("new"), 10)
    await here.put_piece("ann", "f", 0, b"x")
    await there.tidy(time.time() - 500)
    assert [one.id for one in await here.page("ann", "openai", "", 10)] == ["new"]
    assert await here.ended("old") == [] and await here.piece("f", 0) == b"x"
    await there.tidy(time.time() + 1)
    assert await here.piece("f", 0) is None and await here.page("ann", "openai", "", 10) == []


async def test_a_store_that_is_away_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    store = SqliteBatches(tmp_path / "file")
    for work in (store.get("ann", "openai", "b"), store.start("b", 0), store.end("b", [Line(0, "errored", b"")])):
        with pytest.raises(BatchesUnavailable):
            await work
    await store.close()
