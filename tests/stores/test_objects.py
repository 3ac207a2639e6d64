"""One suite that every table of what providers keep passes."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcpgate.lifecycle import ObjectStore
from mcpgate.llm import objects as contract
from mcpgate.llm.objects import KEPT_S, Kept, Kind, ObjectsUnavailable, is_id
from mcpgate.stores.objects import MemoryObjects
from mcpgate.stores.sqlite.objects import SqliteObjects
from tests.stores.conftest import two_views

pytestmark = pytest.mark.anyio
Pair = tuple[ObjectStore, ObjectStore]


def two_of(kind: str, folder: Path) -> AbstractAsyncContextManager[Pair]:
    """Two processes' views of one table."""
    return two_views(kind, folder, MemoryObjects, SqliteObjects, "objects:PostgresObjects")


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def pair(anyio_backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pair]:
    async with two_of(request.param, tmp_path) as made:
        yield made


def kept(id: str, account: str = "ann", kind: Kind = "response", ago_s: float = 0.0, **others: Any) -> Kept:
    values: dict[str, Any] = {"provider": "openai", "model": "gpt", "alias": "fast", "key": "k1", "about": b"{}"}
    return Kept(kind, id, account, at=time.time() - ago_s, **{**values, **others})


async def ids(store: ObjectStore, account: str, **others: Any) -> list[str]:
    return [one.id for one in await store.page(account, **{"kind": "response", "after": "", "most": 100, **others})]


async def test_what_one_process_records_the_other_finds_for_the_same_account_and_kind_only(pair: Pair) -> None:
    one, other = pair
    made = kept("resp_1")
    await one.put(made)
    assert await other.find("ann", "response", ["resp_1", "resp_2"]) == [made]
    assert await other.find("bob", "response", ["resp_1"]) == []
    assert await other.find("ann", "file", ["resp_1"]) == []
    assert await other.find("ann", "response", ["resp_"]) == []
    await other.forget(made._replace(account="bob"))
    assert await one.find("ann", "response", ["resp_1"]) == [made]
    await other.forget(made)
    assert await one.find("ann", "response", ["resp_1"]) == []


async def test_an_object_belongs_to_who_recorded_it_first_also_of_many_at_once(pair: Pair) -> None:
    await pair[0].put(kept("resp_1"))
    await pair[1].put(kept("resp_1", "bob", model="stolen"))
    assert await pair[1].find("bob", "response", ["resp_1"]) == []
    again = kept("resp_1", model="newer")
    await pair[1].put(again)
    assert await pair[0].find("ann", "response", ["resp_1"]) == [again]
    await asyncio.gather(*(pair[n % 2].put(kept("resp_2", f"a{n}")) for n in range(20)))
    owners = [await pair[0].find(f"a{n}", "response", ["resp_2"]) for n in range(20)]
    assert sum(map(len, owners)) == 1


async def test_two_providers_may_give_one_id(pair: Pair) -> None:
    await pair[0].put(kept("resp_1", provider="one", ago_s=5))
    await pair[0].put(kept("resp_1", provider="two"))
    assert [found.provider for found in await pair[1].find("ann", "response", ["resp_1"])] == ["two", "one"]


async def test_objects_come_in_pages_in_either_order(pair: Pair) -> None:
    for number in range(5):
        await pair[0].put(kept(f"r{number}", ago_s=10 - number))
    await pair[0].put(kept("x", "bob"))
    assert await ids(pair[1], "ann") == ["r4", "r3", "r2", "r1", "r0"]
    assert await ids(pair[1], "ann", most=2) == ["r4", "r3"]
    assert await ids(pair[1], "ann", after="r3", most=2) == ["r2", "r1"]
    assert await ids(pair[1], "ann", after="r3", oldest_first=True) == ["r4"]
    assert await ids(pair[1], "ann", after="x") == [], "another's object is no place in a list"


async def test_what_is_old_or_beyond_the_most_is_forgotten(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    await pair[0].put(kept("old", ago_s=KEPT_S + 1))
    await pair[0].put(kept("file", kind="file"))
    assert await pair[1].find("ann", "response", ["old"]) == [] and await ids(pair[1], "ann") == []
    for number in range(5):
        await pair[0].put(kept(f"r{number}", ago_s=10 - number))
        await pair[0].put(kept(f"b{number}", "bob", ago_s=10 - number))
    modules = (contract, __import__(type(pair[0]).__module__, fromlist=["MOST"]))
    for module in modules:
        monkeypatch.setattr(module, "MOST", {"response": 3, "file": 3})
    await pair[1].tidy()
    assert await ids(pair[0], "ann") == ["r4", "r3", "r2"] and await ids(pair[0], "bob") == ["b4", "b3", "b2"]
    assert await ids(pair[0], "ann", kind="file") == ["file"]


async def test_a_table_that_is_away_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no database")
    store = SqliteObjects(tmp_path / "file")
    for work in (store.put(kept("r")), store.find("ann", "response", ["r"]), store.page("ann", "response", "", 1)):
        with pytest.raises(ObjectsUnavailable):
            await work
    await store.close()


ACCOUNTS = st.sampled_from(["ann", "bob", "ann\nbob", ""])
NAMES = st.sampled_from(["a", "b", "A", "a%", "_"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["put", "forget", "find", "page"]), ACCOUNTS, NAMES), max_size=25))
def test_no_order_of_steps_shows_an_account_what_another_has_made(tmp_path: Path, steps: Any) -> None:
    async def run(store: ObjectStore) -> list[Any]:
        seen: list[Any] = []
        for number, (what, account, id) in enumerate(steps):
            one = kept(id, account)._replace(at=1e10 + number)
            if what == "put":
                await store.put(one)
            elif what == "forget":
                await store.forget(one)
            else:
                found = await (
                    store.find(account, "response", [id])
                    if what == "find"
                    else store.page(account, "response", "", 100)
                )
                assert all(entry.account == account for entry in found)
                seen.append(found)
        await store.close()
        return seen

    for leftover in tmp_path.glob("prop*"):
        leftover.unlink()
    assert asyncio.run(run(MemoryObjects())) == asyncio.run(run(SqliteObjects(tmp_path / "prop.sqlite3")))


@pytest.mark.parametrize("text", ["", ".", "..", "../models", "a/b", "a?b", "a b", "é", "a\n", "%2e", "a" * 201, 5])
def test_what_could_lead_to_another_path_is_no_id(text: object) -> None:
    assert not is_id(text)
    assert is_id("resp_0123abc") and is_id("file-abc.def:1")
