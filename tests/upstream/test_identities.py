"""One connection for each identity on whose behalf a server is asked."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcpgate.errors import UpstreamError
from mcpgate.upstream import following, identities
from mcpgate.upstream.upstream import Announcement
from tests.conftest import full, gateway, raw, until

pytestmark = pytest.mark.anyio


def text_of(result: dict[str, Any]) -> str:
    return str(result["content"][0]["text"])


async def test_each_identity_has_a_connection_of_its_own_and_nobody_the_shared_one(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    async with gateway({"raw": raw("--pid-file", str(pids))}) as opened:
        up = opened.pool.get("raw")
        counts = [text_of(await up.call("count", {}, identity=who)) for who in (None, "ada", "ada", "bob", None)]
        assert counts == ["1", "1", "2", "1", "2"]
        assert len(pids.read_text().split()) == 3
    await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids.read_text().split()))


async def test_callers_share_the_slots_of_a_server_and_the_connection_of_their_identity() -> None:
    async with gateway({"raw": raw(max_concurrency=2, timeout_s=30)}) as opened:
        up = opened.pool.get("raw")
        first = asyncio.create_task(up.call("meet", {"number": 2}, identity="ada"))
        assert text_of(await up.call("meet", {"number": 2}, identity="ada")) == text_of(await first) == "met"
        held = [asyncio.create_task(up.call("hang", {}, identity=who)) for who in ("ada", "bob")]
        third = asyncio.create_task(up.call("count", {}))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await asyncio.shield(third)
        held[0].cancel()
        with anyio.fail_after(10):
            assert text_of(await third) == "1"
        held[1].cancel()
        await asyncio.gather(*held, return_exceptions=True)


async def test_a_connection_that_died_is_made_anew_for_its_identity_only(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    async with gateway({"raw": raw("--pid-file", str(pids))}) as opened:
        up = opened.pool.get("raw")
        assert text_of(await up.call("count", {}, identity="bob")) == "1"
        with pytest.raises(UpstreamError, match="upstream 'raw': the server process exited with code 3"):
            await up.call("die", {}, identity="ada")
        assert text_of(await up.call("count", {}, identity="ada")) == "1"
        assert text_of(await up.call("count", {}, identity="bob")) == "2"
        assert opened.pool.views()[0].state == "ready" and len(pids.read_text().split()) == 4


async def test_idle_connections_end_and_their_number_is_bounded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(identities, "MAX_CONNECTIONS", 2)
    pids = tmp_path / "pids"
    async with gateway({"raw": raw("--pid-file", str(pids))}) as opened:
        up = opened.pool.get("raw")
        hang = asyncio.create_task(up.call("hang", {}, identity="ada"))
        await until(lambda: len(pids.read_text().split()) == 2)
        await up.call("count", {}, identity="bob")
        await up.call("count", {}, identity="cyd")  # bob's goes: ada's is in use
        last = pids.read_text().split()
        assert len(last) == 4
        await until(lambda: not Path(f"/proc/{last[2]}").exists())
        assert Path(f"/proc/{last[1]}").exists()
        up._identities.idle_s = 0.05
        hang.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await hang
        assert text_of(await up.call("count", {}, identity="cyd")) == "2"
        await until(lambda: not Path(f"/proc/{last[3]}").exists())


async def test_connections_on_which_resources_are_followed_stay_open_and_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "_MOST", 2)
    async with gateway({"full": full("full", "handshake")}) as opened:
        up, heard = opened.pool.get("full"), list[Announcement]()
        opened.pool.on_event(heard.append)
        up._identities.idle_s = 0.2
        for who in ("ada", "cyd"):
            await up.subscribe(["note://full"], who)
        with pytest.raises(UpstreamError, match="followed for 2 callers already"):
            await up.subscribe(["note://full"], "eve")
        kept = up._identities.find("ada")
        await up.call("log", {}, identity="bob")
        await until(lambda: up._identities.find("bob") is None)
        assert kept is not None and up._identities.find("ada") is kept
        await up.call("touch", {}, identity="ada")
        await until(lambda: heard)
        assert heard == [Announcement("updated", "note://full", "full", "ada")]
        await up.subscribe([], "ada")
        await up.subscribe(["note://full"], "eve")
        await until(lambda: up._identities.find("ada") is None)
        assert up._identities.find("cyd") is not None


async def test_a_server_that_cannot_be_reached_for_an_identity_is_told_without_its_last_words() -> None:
    async with gateway({"raw": raw("--exit", "7")}) as opened:
        with pytest.raises(UpstreamError, match="not connected: the server process exited with code 7$"):
            await opened.pool.get("raw").call("echo", {}, identity="ada")
