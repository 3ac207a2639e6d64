"""One suite that every store of tokens passes, and what a vault makes of a store."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from mcpgate.errors import ConfigError
from mcpgate.lifecycle import TokenStore
from mcpgate.stores.sqlite.tokens import SqliteTokens
from mcpgate.stores.tokens import MemoryTokens
from mcpgate.upstream import tokens as vaults
from mcpgate.upstream.tokens import Client, Place, Token, TokensUnavailable, Vault
from tests.stores.conftest import two_views

pytestmark = pytest.mark.anyio
HERE = Place("linear", "https://linear.example/mcp")
TOKEN = Token("access-1", "https://auth.example", "https://auth.example/token", HERE.url, Client("c1"), "refresh-1")


def two_of(kind: str, folder: Path) -> AbstractAsyncContextManager[tuple[TokenStore, TokenStore]]:
    """Two processes' views of one store."""
    return two_views(kind, folder, MemoryTokens, SqliteTokens, "tokens:PostgresTokens")


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def stores(
    anyio_backend: str, request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[TokenStore, TokenStore]]:
    async with two_of(request.param, tmp_path) as pair:
        yield pair


async def test_what_one_process_stores_the_other_reads_replaces_and_takes_once(
    stores: tuple[TokenStore, TokenStore],
) -> None:
    one, other = stores
    assert await other.get("token:a") is None
    await one.put("token:a", b"\x00first")
    assert await other.get("token:a") == b"\x00first"
    await other.put("token:a", b"second")
    await one.put("token:b", b"more")
    await one.put("client:a", b"else")
    assert await other.keys("token:") == ["token:a", "token:b"]
    assert [await one.take("token:a"), await other.take("token:a")] == [b"second", None]
    assert await one.get("token:a") is None and await other.keys("token:") == ["token:b"]


async def test_only_one_of_many_gets_what_is_taken(stores: tuple[TokenStore, TokenStore]) -> None:
    await stores[0].put("pending:a", b"once")
    taken = await asyncio.gather(*(stores[n % 2].take("pending:a") for n in range(10)))
    assert sorted(taken, key=str) == [None] * 9 + [b"once"]


async def test_what_ends_is_gone_afterwards(stores: tuple[TokenStore, TokenStore]) -> None:
    await stores[0].put("pending:a", b"short", for_s=0.0)
    await stores[0].put("pending:b", b"long", for_s=60.0)
    assert await stores[1].get("pending:a") is None and await stores[1].take("pending:a") is None
    assert await stores[1].keys("pending:") == ["pending:b"]


async def test_a_lock_is_held_by_one_owner_until_it_is_released_or_ends(stores: tuple[TokenStore, TokenStore]) -> None:
    one, other = stores
    assert await one.acquire("token:a", "me", 60)
    assert not await other.acquire("token:a", "you", 60)
    await other.release("token:a", "you")
    assert not await other.acquire("token:a", "you", 60), "whoever does not hold it cannot release it"
    await one.release("token:a", "me")
    assert await other.acquire("token:a", "you", 0.0)
    assert await one.acquire("token:a", "me", 60), "its owner may have died"


async def test_of_vaults_over_one_store_one_at_a_time_has_a_lock(stores: tuple[TokenStore, TokenStore]) -> None:
    inside = 0
    vaults_of_two = [Vault(stores[0]), Vault(stores[1])]

    async def work(vault: Vault) -> None:
        nonlocal inside
        async with vault.lock(HERE):
            inside += 1
            assert inside == 1
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            inside -= 1

    async with asyncio.timeout(20):
        await asyncio.gather(*(work(vaults_of_two[n % 2]) for n in range(8)))


async def test_a_lock_of_a_process_that_died_is_free_again(
    stores: tuple[TokenStore, TokenStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vaults, "_LEASE_S", 0.2)
    assert await stores[0].acquire(HERE.key, "dead", 0.2)
    async with asyncio.timeout(10), Vault(stores[1]).lock(HERE):
        pass


async def test_a_token_comes_back_as_it_was_for_its_place_only(stores: tuple[TokenStore, TokenStore]) -> None:
    vault, other = Vault(stores[0]), Vault(stores[1])
    await vault.keep(HERE, TOKEN)
    await vault.keep_client("linear", "https://auth.example", Client("c1", "s1", "client_secret_post", "http://x/"))
    assert await other.token(HERE) == TOKEN
    assert await other.client("linear", "https://auth.example", "http://x/") == Client(
        "c1", "s1", "client_secret_post", "http://x/"
    )
    elsewhere = [
        Place("linear", "https://evil.example/mcp"),
        Place("other", HERE.url),
        Place(HERE.server, HERE.url, "ada"),
    ]
    assert [await other.token(place) for place in elsewhere] == [None] * 3
    assert await other.client("linear", "https://evil.example", "http://x/") is None
    assert await other.places() == [HERE]
    assert await other.forget(HERE) == TOKEN and await vault.token(HERE) is None


# --- at rest


def content_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


async def test_tokens_are_encrypted_where_a_key_is_set_and_the_file_is_private(tmp_path: Path) -> None:
    key, newer = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    store = SqliteTokens(tmp_path / "stores.sqlite3")
    await Vault(store).keep(HERE, TOKEN)
    assert b"access-1" in content_of(tmp_path), "this test would see it"
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert await Vault(store, key).token(HERE) == TOKEN, "what was stored before there was a key"
    with sqlite3.connect(tmp_path / "stores.sqlite3") as db:
        db.execute("PRAGMA secure_delete = ON")
        db.execute("DELETE FROM tokens")
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    await Vault(store, key).keep(HERE, TOKEN)
    assert not any(text in content_of(tmp_path) for text in (b"access-1", b"refresh-1"))
    assert await Vault(store, f"{newer},{key}").token(HERE) == TOKEN, "while one key replaces another"
    with pytest.raises(TokensUnavailable, match="set MCPGATE_TOKEN_KEY"):
        await Vault(store).token(HERE)
    with pytest.raises(TokensUnavailable, match="encrypted with another key"):
        await Vault(store, newer).token(HERE)
    await store.close()


@pytest.mark.parametrize("key", ["short", "?" * 44, "é" * 32])
def test_a_key_that_cannot_encrypt_is_refused_with_the_way_to_make_one(key: str) -> None:
    with pytest.raises(ConfigError, match="openssl rand -base64 32") as refused:
        Vault(MemoryTokens(), key)
    assert key not in str(refused.value)


def test_a_key_as_openssl_prints_it_will_do() -> None:
    Vault(MemoryTokens(), "+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/8=")


def test_a_token_does_not_show_its_secrets() -> None:
    shown = repr(TOKEN) + repr(Client("c1", "the-secret"))
    assert not any(text in shown for text in ("access-1", "refresh-1", "the-secret"))
