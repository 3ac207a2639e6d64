"""What requests say, in every store."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mcpgate.activity.contents import ContentStore, Kept, masker
from mcpgate.activity.requests import Wanted
from mcpgate.governance.contents import cut
from mcpgate.governance.store import Settlement
from mcpgate.lifecycle import GovernanceStores
from mcpgate.stores.contents import MemoryContents
from mcpgate.stores.memory import MemoryStore
from mcpgate.stores.sqlite.contents import SqliteContents
from mcpgate.stores.sqlite.governance import SqliteStore
from tests.stores.conftest import NOW, Place
from tests.stores.conftest import entry as make_entry
from tests.stores.test_requests import ids, requests_of

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[tuple[GovernanceStores, ContentStore]]:
    async with place.open() as stores:
        store = stores.store
        contents: ContentStore
        if isinstance(store, MemoryStore):
            contents = MemoryContents()
        elif isinstance(store, SqliteStore):
            contents = SqliteContents(Path(place.path))
        else:
            from mcpgate.stores.postgres.contents import PostgresContents

            contents = PostgresContents(store.pool)  # type: ignore[attr-defined]
        try:
            yield stores, contents
        finally:
            await contents.close()


async def test_contents_come_back_until_they_are_deleted_or_too_old(place: Place) -> None:
    async with opened(place) as (_, contents):
        kept = [Kept(f"rq_{number}", NOW + number, f"sent {number}", "answer") for number in range(300)]
        await contents.write(kept)
        await contents.write([Kept("rq_1", NOW, "another", "one")])
        assert sorted(await contents.read(["rq_1", "rq_2", "rq_none"])) == kept[1:3]
        assert await contents.delete(["rq_1", "rq_none"]) == 1
        assert await contents.prune(NOW + 250) == 249
        assert sorted(await contents.read([one.id for one in kept])) == kept[250:]


async def test_texts_that_no_database_takes_are_written_all_the_same(place: Place) -> None:
    async with opened(place) as (_, contents):
        await contents.write(
            [Kept("rq_1", NOW, "a\0b", "\ud800 x"), Kept("rq_2", NOW, "word " * 200_000, "y" * 300_000)]
        )
        found = {one.id: one for one in await contents.read(["rq_1", "rq_2"])}
        assert found["rq_1"].answered.endswith(" x") and len(found["rq_2"].answered) == 300_000


async def test_words_are_found_and_are_no_operators(shared_place: Place) -> None:
    async with opened(shared_place) as (stores, contents):
        entries = [
            make_entry("rq_top", kind="execution", at=NOW),
            make_entry("rq_call", parent_id="rq_top", at=NOW),
            make_entry("rq_other", at=NOW),
        ]
        await stores.counters.settle([Settlement(one) for one in entries])
        await contents.write([Kept("rq_call", NOW, "Über den Wolken", "NEAR x"), Kept("rq_other", NOW, "wolken", "")])
        requests = requests_of(shared_place, stores.store)
        try:
            for text, top, nested in (
                ("wolken", ["rq_other", "rq_top"], ["rq_other", "rq_call"]),
                ("ÜBER wolken", ["rq_top"], ["rq_call"]),
                ("wolken OR nothing", [], []),
                ('wolken "', ["rq_other", "rq_top"], ["rq_other", "rq_call"]),
                ("near", ["rq_top"], ["rq_call"]),
            ):
                assert await ids(requests, Wanted(text=text)) == top, text
                assert await ids(requests, Wanted(text=text, nested=True), 1) == nested, text
            assert await ids(requests, Wanted((("key", "none"),), text="wolken")) == []
        finally:
            await requests.close()


def test_a_pattern_that_takes_too_long_keeps_nothing_and_ends() -> None:
    masked = masker(("(a|aa)+$",))
    assert masked("a" * 20_000 + "b").startswith("[not kept")
    assert masker((r"\bcard\b",))("my card, password=hunter22") == "my ********, password=********"


def test_what_is_left_out_takes_half_a_word_with_it() -> None:
    text = "x " * 100 + "sk-" + "s" * 200 + " y" * 100
    short = cut(text, 300)
    assert isinstance(short, str) and "s" * 20 not in short and "left out" in short
    assert cut(b"short", 5) == b"short"
    assert len(cut("z" * 10_000, 100)) < 200
