"""The cache itself: tenants, restarts, damage, encryption, equal requests in several processes."""

import asyncio
import dataclasses
import random
import sqlite3
import string
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpgate.cache.cache import Cache, Hit, Miss, Question
from mcpgate.cache.entry import CacheEntry, CacheUnavailable, Checksum, Cipher, Unreadable, of_row, to_row
from mcpgate.cache.fingerprint import canonical, fingerprint, tenant_of
from mcpgate.cache.flights import Outcome
from mcpgate.cache.memory import Memory
from mcpgate.cache.policy import NO_WISH, Policy, Wish, decide
from mcpgate.cache.store import EVERYTHING, Selection
from mcpgate.cache.transfer import exported, imported
from mcpgate.config.cache import CacheConfig
from mcpgate.config.settings import Config, Settings
from mcpgate.errors import InvalidRequest
from mcpgate.governance.callers import Caller
from mcpgate.proxy import cached
from mcpgate.stores.cache import MemoryCache
from mcpgate.stores.sqlite.cache import SqliteCache
from mcpgate.stores.sqlite.tokens import SqliteTokens
from mcpgate.stores.tokens import MemoryTokens

USE = Policy(reads=True, writes=True, ttl_s=300, scope=None)


def cache_in(path: Path, **settings: Any) -> Cache:
    config = Config.model_validate({"cache": settings})
    return Cache(Settings(config), SqliteCache(path), SqliteTokens(path))


def question(text: str = "a", tenant: str = "team:red", **policy: Any) -> Question:
    return Question(fingerprint(tenant, text), tenant, USE._replace(**policy))


def entry(asked: Question, body: bytes = b'{"answer": 42}', **others: Any) -> CacheEntry:
    now = time.time()
    values = {"at": now, "fresh_until": now + 300, "until": now + 300, **others}
    return CacheEntry(asked.id, "chat", asked.tenant, body, **values)


async def ask(cache: Cache, asked: Question, body: bytes = b"{}") -> str:
    """How a request is answered; a miss is answered by a provider."""
    found = await cache.find(asked)
    if isinstance(found, Hit):
        return found.how
    await cache.keep(entry(asked, body))
    found.land(Outcome.KEPT)
    return "miss"


# --- fingerprints


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), json_values, max_size=6), st.randoms())
def test_the_order_of_keys_makes_no_difference(value: dict[str, Any], chance: random.Random) -> None:
    def shuffled(one: Any) -> Any:
        if isinstance(one, dict):
            items = list(one.items())
            chance.shuffle(items)
            return {name: shuffled(part) for name, part in items}
        return [shuffled(part) for part in one] if isinstance(one, list) else one

    assert canonical(shuffled(value)) == canonical(value)


@given(
    st.lists(st.text() | st.binary(), max_size=4), st.lists(st.text() | st.binary(), max_size=4), st.text(), st.text()
)
def test_different_tenants_and_different_parts_have_different_fingerprints(
    one: list[Any], other: list[Any], tenant: str, second: str
) -> None:
    def bare(parts: list[Any]) -> list[bytes]:
        return [part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part for part in parts]

    same = tenant == second and bare(one) == bare(other)
    assert (fingerprint(tenant, *one) == fingerprint(second, *other)) is same


def test_numbers_that_cannot_be_told_apart_have_no_fingerprint() -> None:
    with pytest.raises(ValueError):
        canonical({"top_p": float("1e999")})


def test_fingerprints_are_the_same_in_every_version() -> None:
    """Entries outlive the process; change the version in fingerprint.py if this must change."""
    asked = canonical({"b": [1, 1.0, None], "a": "é"})
    assert asked == b'{"a":"\\u00e9","b":[1,1.0,null]}'
    assert fingerprint("team:red", "x", asked) == "dec73c652b9f9a989eedbb177f05202a190452e27ea0ff40d38e44c6c98b7e16"


scopes = st.sampled_from(["key", "user", "team", "customer", None])
names = st.sampled_from(["a", "b", "c"])
callers = st.builds(Caller, id=names, user=st.none() | names, team=st.none() | names, customer=st.none() | names)


@given(callers, callers, scopes, st.booleans())
def test_callers_share_entries_only_if_their_scope_is_the_same(
    one: Caller, other: Caller, scope: Any, narrow: bool
) -> None:
    shares = tenant_of(one, scope, narrow) == tenant_of(other, scope, narrow)
    if narrow or scope == "user":
        assert shares is ((one.id, one.user) == (other.id, other.user))
    elif shares and one.id != other.id:
        group = "customer" if scope == "customer" else "team"
        assert scope != "key" and getattr(one, group) is not None and getattr(one, group) == getattr(other, group)


# --- entries


def test_a_damaged_moved_or_foreign_entry_is_unreadable() -> None:
    asked = question()
    for sealer in (Checksum(), Cipher("a key of sixteen characters")):
        kept = to_row(entry(asked, question="what?", cost=5, input_tokens=3), sealer)
        assert of_row(kept, sealer).cost == 5 and of_row(kept, sealer).question == "what?"
        for place in range(0, len(kept.value), 7):
            spoilt = bytearray(kept.value)
            spoilt[place] ^= 1
            with pytest.raises(Unreadable):
                of_row(dataclasses.replace(kept, value=bytes(spoilt)), sealer)
        for other in ({"id": "b" * 64}, {"tenant": "team:blue"}, {"value": b""}, {"value": kept.value[:20]}):
            with pytest.raises(Unreadable):
                of_row(dataclasses.replace(kept, **other), sealer)
    with pytest.raises(Unreadable):
        of_row(kept, Cipher("another key of sixteen characters"))


@pytest.mark.anyio
async def test_an_encrypted_store_shows_neither_questions_nor_answers(tmp_path: Path) -> None:
    cache = cache_in(tmp_path / "a.sqlite3", encryption_key="a key of sixteen characters")
    await cache.keep(entry(question(), b'{"answer": "the secret plan"}', question="what is the secret plan?"))
    await cache.aclose()
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"secret plan" not in written
    assert (
        await ask(cache_in(tmp_path / "a.sqlite3", encryption_key="a key of sixteen characters"), question()) == "exact"
    )
    assert await ask(cache_in(tmp_path / "a.sqlite3", encryption_key="another key of sixteen"), question()) == "miss"


@pytest.mark.anyio
async def test_entries_outlive_their_process_and_end_with_their_time(tmp_path: Path) -> None:
    first = cache_in(tmp_path / "a.sqlite3")
    assert [await ask(first, question()) for _ in range(2)] == ["miss", "exact"]
    await first.aclose()
    now = time.time()
    for later, how in ((0, "exact"), (299, "exact"), (301, "miss")):
        config = Settings(Config())
        again = Cache(
            config, SqliteCache(tmp_path / "a.sqlite3"), MemoryTokens(), clock=lambda later=later: now + later
        )
        assert isinstance(await again.find(question()), Miss if how == "miss" else Hit)


@pytest.mark.anyio
async def test_tenants_that_ask_the_same_never_see_each_others_entries(tmp_path: Path) -> None:
    cache = cache_in(tmp_path / "a.sqlite3")
    states = [await ask(cache, question(tenant=tenant)) for tenant in ("a", "b", "a", "b", "c")]
    assert states == ["miss", "miss", "exact", "exact", "miss"]


@pytest.mark.anyio
async def test_a_store_that_is_away_is_a_miss(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = Cache(Settings(Config()), SqliteCache(tmp_path / "file" / "a.sqlite3"), MemoryTokens())
    assert [await ask(cache, question()) for _ in range(2)] == ["miss", "exact"]  # from memory
    assert await cache.epoch("files") is None


# --- single flight


@pytest.mark.anyio
async def test_of_equal_requests_in_several_processes_one_asks(tmp_path: Path) -> None:
    caches = [cache_in(tmp_path / "a.sqlite3") for _ in range(3)]
    asked: list[int] = []

    async def one(number: int) -> str:
        found = await caches[number % 3].find(question())
        if isinstance(found, Hit):
            return found.how
        asked.append(number)
        await asyncio.sleep(0.05)  # the provider's time
        await caches[number % 3].keep(entry(question()))
        found.land(Outcome.KEPT)
        return "miss"

    states = await asyncio.gather(*map(one, range(30)))
    assert states.count("miss") == len(asked) == 1
    for cache in caches:
        await cache.aclose()


@pytest.mark.anyio
async def test_after_a_failure_one_other_asks_and_after_two_everybody_does() -> None:
    cache = Cache(Settings(Config()), MemoryCache(1 << 20), MemoryTokens())
    first = await cache.find(question())
    assert isinstance(first, Miss)
    waiting = [asyncio.ensure_future(cache.find(question())) for _ in range(5)]
    await asyncio.sleep(0)
    first.land(Outcome.FAILED)
    done, waiting_still = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 1 and len(waiting_still) == 4
    second = done.pop().result()
    assert isinstance(second, Miss)
    second.land(Outcome.FAILED)
    assert all(isinstance(one, Miss) for one in await asyncio.gather(*waiting_still))


@pytest.mark.anyio
async def test_whoever_waits_and_goes_away_leaves_its_turn_to_the_next() -> None:
    cache = Cache(Settings(Config()), MemoryCache(1 << 20), MemoryTokens())
    first = await cache.find(question())
    assert isinstance(first, Miss)
    one, other = (asyncio.ensure_future(cache.find(question())) for _ in range(2))
    await asyncio.sleep(0.01)
    first.land(Outcome.FAILED)
    one.cancel()  # just as its turn came
    found = await other
    assert isinstance(found, Miss)
    await cache.keep(entry(question()))
    found.land(Outcome.KEPT)
    assert isinstance(await cache.find(question()), Hit)


@pytest.mark.anyio
async def test_a_drop_in_one_process_is_seen_by_the_others(tmp_path: Path) -> None:
    one, other = cache_in(tmp_path / "a.sqlite3"), cache_in(tmp_path / "a.sqlite3")
    await ask(one, question())
    assert await ask(other, question()) == "exact"
    assert await one.drop(Selection(tenant="team:red")) == 1
    assert isinstance(await one.look(question()), type(None))
    for _ in range(200):
        if isinstance(await other.find(dataclasses.replace(question(), policy=no_store())), Miss):
            break
        await asyncio.sleep(0.02)
    else:
        pytest.fail("the other process still serves it")
    await one.aclose()
    await other.aclose()


@pytest.mark.anyio
async def test_whoever_asks_first_after_a_while_is_not_served_what_was_dropped_meanwhile(tmp_path: Path) -> None:
    one, other = cache_in(tmp_path / "a.sqlite3"), cache_in(tmp_path / "a.sqlite3")
    await ask(one, question())
    assert await ask(other, question()) == "exact"
    await one.drop(Selection(id=question().id))
    other._epoch_at -= 3600  # nobody asks for an hour
    asked = dataclasses.replace(question(), policy=no_store())
    states = await asyncio.gather(*(other.find(asked) for _ in range(3)))
    assert [type(state) for state in states] == [Miss] * 3
    await one.aclose()
    await other.aclose()


@pytest.mark.anyio
async def test_an_entry_that_is_dropped_while_it_is_read_does_not_stay_in_memory(tmp_path: Path) -> None:
    store = SqliteCache(tmp_path / "a.sqlite3")
    cache = Cache(Settings(Config()), store, MemoryTokens())
    await ask(cache_in(tmp_path / "a.sqlite3"), question())
    read, go_on, get = asyncio.Event(), asyncio.Event(), store.get

    async def slow_get(id: str) -> Any:
        row = await get(id)
        read.set()
        await go_on.wait()
        return row

    store.get = slow_get  # type: ignore[method-assign]
    reading = asyncio.ensure_future(cache.look(question()))
    await read.wait()
    await cache.drop(Selection(tenant="team:red"))
    go_on.set()
    await reading
    assert await cache.look(question()) is None
    await cache.aclose()


@pytest.mark.anyio
async def test_claims_leave_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite3"
    cache = cache_in(path)
    for name in "abc":
        await ask(cache, question(name))
    await cache.aclose()
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT COUNT(*) FROM token_locks").fetchone() == (0,)


@pytest.mark.anyio
async def test_a_request_that_never_ends_does_not_keep_the_gateway_from_ending(tmp_path: Path) -> None:
    cache = cache_in(tmp_path / "a.sqlite3")
    assert isinstance(await cache.find(question()), Miss)
    async with asyncio.timeout(30):
        await cache.aclose()


@pytest.mark.anyio
async def test_those_who_went_away_are_forgotten_while_the_first_one_still_asks() -> None:
    cache = Cache(Settings(Config()), MemoryCache(1 << 20), MemoryTokens())
    first = await cache.find(question())
    assert isinstance(first, Miss) and first._flight is not None
    for _ in range(50):
        other = asyncio.ensure_future(cache.find(question()))
        await asyncio.sleep(0)
        other.cancel()
        await asyncio.wait((other,))
    assert not first._flight._waiting
    first.land(Outcome.NOT_KEPT)


@pytest.mark.anyio
async def test_a_drop_that_the_store_missed_is_made_up_for_without_being_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached, "_AGAIN_S", 0.01)
    one, other = cache_in(tmp_path / "a.sqlite3"), cache_in(tmp_path / "a.sqlite3")
    await one.keep(entry(question(), server="files"))
    drop, is_away, dropped = one.store.drop, True, asyncio.Event()

    async def failing_drop(which: Selection) -> int:
        if is_away:
            raise CacheUnavailable("away")
        dropped.set()
        return await drop(which)

    one.store.drop = failing_drop  # type: ignore[method-assign]
    results = cached.CachedResults(one, Settings(Config()))
    assert not await results.changed("files")
    is_away = False
    async with asyncio.timeout(30):
        await dropped.wait()
        while await other.look(question()) is not None:
            await asyncio.sleep(0.01)
    await one.stop()
    await one.aclose()
    await other.aclose()


# --- export and import


LINE: dict[str, Any] = {
    "id": "a" * 64, "kind": "chat", "tenant": "team:red", "body": "{}", "at": 1.0, "fresh_until": 4e9, "until": 4e9,
}  # fmt: skip


@pytest.mark.anyio
@pytest.mark.parametrize(
    "spoilt",
    [
        {"body": "[]"}, {"body": "no"}, {"cost": 10**30}, {"cost": -1}, {"until": 1e300}, {"at": float("nan")},
        {"tags": ["a b"]}, {"tags": ["a"] * 99}, {"id": "../../x"}, {"kind": "key"}, {"partition": "p"}, {"other": 1},
    ],
)  # fmt: skip
async def test_a_line_that_is_no_entry_is_refused(spoilt: dict[str, Any]) -> None:
    cache = Cache(Settings(Config()), MemoryCache(1 << 20), MemoryTokens())
    assert await imported(cache, LINE)
    with pytest.raises(InvalidRequest, match="no entry"):
        await imported(cache, {**LINE, **spoilt})


@pytest.mark.anyio
async def test_a_page_of_an_export_is_bounded_in_bytes() -> None:
    cache = Cache(Settings(Config()), MemoryCache(1 << 24), MemoryTokens())
    for name in "abcdef":
        await cache.keep(entry(question(name), b'{"x": "%s"}' % (b"x" * 100_000)))
    seen: list[str] = []
    while page := [one async for one in exported(cache, EVERYTHING, seen[-1] if seen else "", 500, 250_000)]:
        assert len(page) <= 2
        seen += [one["id"] for one in page]
    assert len(set(seen)) == 6 and seen == sorted(seen)


def no_store() -> Policy:
    return USE._replace(writes=False)


# --- memory


def test_memory_is_bounded_and_keeps_what_is_used_again() -> None:
    memory = Memory(50_000)
    loved = entry(question("loved"), b"x" * 1000)
    memory.put(loved)
    assert memory.get(loved.id) is loved
    for name in string.ascii_letters * 2:
        memory.put(entry(question(name * 3), b"x" * 1000))
        assert memory.bytes <= 50_000
    assert memory.get(loved.id) is loved
    memory.resize(1500)
    assert memory.bytes <= 1500
    memory.drop_where(lambda one: True)
    assert memory.bytes == 0 and len(memory) == 0


# --- who decides


@pytest.mark.parametrize(
    ("wish", "rule", "is_safe", "reads", "writes"),
    [
        (NO_WISH, None, False, None, None),
        (NO_WISH, None, True, True, True),
        (Wish("use"), None, False, True, True),
        (Wish("off"), None, True, None, None),
        (Wish("refresh"), None, False, False, True),
        (Wish("no-store"), None, False, True, False),
        (NO_WISH, "use", False, True, True),
        (NO_WISH, "off", True, None, None),
        (Wish("use"), "off", True, None, None),
        (Wish("off"), "use", True, None, None),
        (NO_WISH, "no-store", True, True, False),
        (Wish("use"), "no-store", False, True, False),
        (Wish("refresh"), "no-store", True, None, None),
        (Wish("use"), "refresh", True, False, True),
        (Wish("no-store"), "use", False, True, False),
    ],
)
def test_a_header_decides_what_a_rule_leaves_open(
    wish: Wish, rule: str | None, is_safe: bool, reads: bool | None, writes: bool | None
) -> None:
    config = CacheConfig.model_validate({"rules": [{"mode": rule, "when": {"model": "fast"}}] if rule else []})
    found = decide(config, wish, Caller(), "fast", "chat", is_safe)
    assert (found and found.reads, found and found.writes) == (reads, writes)


def test_a_header_keeps_nothing_longer_than_its_rule_says() -> None:
    config = CacheConfig.model_validate({"rules": [{"when": {"model": "fast"}, "ttl_s": 60}]})

    def ttl_s(model: str, wish: Wish) -> float | None:
        found = decide(config, wish, Caller(), model, "chat", True)
        return found and found.ttl_s

    assert [ttl_s("fast", wish) for wish in (Wish(ttl_s=9999), Wish(ttl_s=5), NO_WISH)] == [60, 5, 60]
    assert [ttl_s("slow", wish) for wish in (Wish(ttl_s=9999), Wish(ttl_s=5), NO_WISH)] == [9999, 5, 300]


def test_a_request_takes_no_answer_that_is_older_than_its_own_time() -> None:
    config = CacheConfig.model_validate(
        {"ttl_s": 300, "stale_s": 60, "rules": [{"when": {"model": "short"}, "ttl_s": 5}]}
    )
    ages = {
        (model, wish.ttl_s): found.oldest_s
        for model in ("short", "other")
        for wish in (NO_WISH, Wish(ttl_s=90.0))
        if (found := decide(config, wish, Caller(), model, "chat", True)) is not None
    }
    assert ages == {("short", None): 65, ("short", 90.0): 5, ("other", None): 360, ("other", 90.0): 90}


def test_a_rule_looks_at_who_asks_for_what() -> None:
    rules = [
        {"when": {"team": "red", "metadata.env": "dev-*"}, "mode": "use", "ttl_s": 60, "scope": "shared"},
        {"when": {"format": "embeddings"}, "mode": "off"},
    ]
    config = CacheConfig.model_validate({"rules": rules})
    red = Caller(team="red", metadata={"env": "dev-1"})
    found = decide(config, NO_WISH, red, "fast", "chat", False)
    assert found is not None and (found.ttl_s, found.scope) == (60, "shared")
    assert decide(config, NO_WISH, Caller(team="red"), "fast", "chat", False) is None
    assert decide(config, NO_WISH, Caller(), "fast", "embeddings", True) is None
    assert decide(CacheConfig(enabled=False), Wish("use"), Caller(), "fast", "chat", True) is None
