"""list_tools where requests and tools share few words or none, through a gateway in front of a real server."""

import asyncio
import dataclasses
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcpgate import embedding
from mcpgate.catalog import catalog
from mcpgate.catalog.search import SearchIndex
from mcpgate.codemode import indexing
from mcpgate.gateway import Gateway
from mcpgate.governance.callers import LOCAL
from mcpgate.governance.context import RequestContext
from mcpgate.lifecycle import reload
from mcpgate.tokens import count
from tests.conftest import gateway, make_config, raw

pytestmark = pytest.mark.anyio
TOOLS = {
    "delete_row": "Removes one row from a table for good.",
    "capture_screenshot": "Captures the visible page as an image.",
    "send_invoice": "Sends an invoice to a customer.",
    "get_forecast": "Weather forecast for a city.",
    "merge_branches": "Merges two branches of a repository.",
    "查询余票": "查询火车票余票",
}


def listing(tools: dict[str, str]) -> dict[str, Any]:
    also = [{"name": name, "description": text, "inputSchema": {"type": "object"}} for name, text in tools.items()]
    return raw("--also", json.dumps(also))


async def asked(opened: Gateway, query: str, **more: Any) -> str:
    await opened.indexer.settled()
    return await opened.metatools.list_tools(RequestContext(LOCAL), query, **more)


@pytest.fixture
def meanings() -> None:
    pytest.importorskip("numpy", exc_type=ImportError)


@pytest.fixture
def without_numpy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "numpy", None)
    yield


@pytest.mark.usefixtures("meanings")
@pytest.mark.parametrize(
    ("query", "tool"),
    [
        ("charge the buyer", "send_invoice"),
        ("payment reminder", "send_invoice"),
        ("storm and wind outlook", "get_forecast"),
    ],
)
async def test_a_request_finds_a_tool_with_which_it_shares_no_word(query: str, tool: str) -> None:
    async with gateway({"desk": listing(TOOLS)}) as opened:
        assert f"desk.{tool}" in await asked(opened, query)


@pytest.mark.usefixtures("meanings")
async def test_an_answer_says_that_it_shows_what_is_nearest_when_no_word_matches() -> None:
    async with gateway({"desk": listing(TOOLS)}) as opened:
        head, first, *_ = (await asked(opened, "charge the buyer")).splitlines()
        assert head == "No tool has these words; the nearest in meaning:"
        assert first.startswith("desk.send_invoice(")


@pytest.mark.usefixtures("meanings")
async def test_a_request_that_means_nothing_finds_nothing() -> None:
    async with gateway({"desk": listing(TOOLS)}) as opened:
        assert (await asked(opened, "qzxv wvuq")).startswith("Nothing matches")


@pytest.mark.usefixtures("meanings")
@pytest.mark.parametrize(("query", "tool"), [("查询火车票", "desk."), ("Invoice senden", "desk.send_invoice(")])
async def test_requests_in_other_languages_find_the_words_that_they_share(query: str, tool: str) -> None:
    async with gateway({"desk": listing(TOOLS)}) as opened:
        assert (await asked(opened, query)).startswith(tool)


@pytest.mark.usefixtures("meanings")
async def test_a_name_that_is_asked_for_comes_first_whatever_else_is_near() -> None:
    near = {f"removing_{at}": "Delete row. Delete this row. Delete the row." for at in range(30)}
    async with gateway({"desk": listing(TOOLS | near)}) as opened:
        assert (await asked(opened, "delete_row")).startswith("desk.delete_row(")


@pytest.mark.usefixtures("meanings")
async def test_an_answer_stays_within_300_tokens_with_thousands_of_tools() -> None:
    many = {
        f"{verb}_{noun}_{at}": f"Can {verb} the {noun} of drawer {at}."
        for at in range(12)
        for verb in ("open", "close", "clean", "paint")
        for noun in ("door", "window", "cabinet", "shelf", "lamp")
    }
    async with gateway({f"house{at}": listing(many) for at in range(11)}) as opened:
        assert len(opened.catalog.tools) > 2_500
        for query in ("unlock the entrance", "brighten the room with colour", "wash glass"):
            assert count(await asked(opened, query)) <= 300


@pytest.mark.usefixtures("meanings")
async def test_hostile_names_and_descriptions_are_understood_in_part_only() -> None:
    hostile = {"a" * 9_000: "b" * 30_000, "__import__('os')": "\0\x1b[31m" * 500, "😀" * 200: "ﷺ" * 9_000}
    async with gateway({"desk": listing(hostile | TOOLS)}) as opened:
        answer = await asked(opened, "charge the buyer")
        assert "desk.send_invoice(" in answer and count(answer) <= 300


@pytest.mark.usefixtures("without_numpy")
async def test_without_numpy_words_are_searched() -> None:
    async with gateway({"desk": listing(TOOLS)}) as opened:
        assert "desk.delete_row(" in await asked(opened, "delete a row")
        assert (await asked(opened, "charge the buyer")).startswith("Nothing matches")


@pytest.mark.usefixtures("meanings")
@pytest.mark.parametrize("content", [None, b"", b"not a table", b"PK\x03\x04 cut off"])
async def test_without_a_usable_table_words_are_searched(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    table = tmp_path / "embedding.npz"
    if content is not None:
        table.write_bytes(content)
    monkeypatch.setattr(embedding, "TABLE", table)
    async with gateway({"desk": listing(TOOLS)}) as opened:
        assert "desk.delete_row(" in await asked(opened, "delete a row")
        assert (await asked(opened, "charge the buyer")).startswith("Nothing matches")
    assert "by their words only" in caplog.text


@pytest.mark.usefixtures("meanings")
async def test_the_setting_turns_meanings_off() -> None:
    async with gateway({"desk": listing(TOOLS)}, code_mode={"semantic_search": False}) as opened:
        assert (await asked(opened, "charge the buyer")).startswith("Nothing matches")


@pytest.mark.usefixtures("meanings")
async def test_the_tools_of_a_bundle_are_found_by_meaning_too() -> None:
    async with gateway({"desk": listing(TOOLS)}, bundles={"office": {"servers": ["desk"]}}) as opened:
        await opened.indexer.settled()
        caller = dataclasses.replace(LOCAL, bundle="office")
        answer = await opened.metatools.list_tools(RequestContext(caller), "charge the buyer")
        assert "desk.send_invoice(" in answer


@pytest.mark.usefixtures("meanings")
async def test_tools_that_are_not_granted_are_not_near() -> None:
    async with gateway({"desk": listing(TOOLS), "attic": listing(TOOLS)}) as opened:
        await opened.indexer.settled()
        part = opened.catalog.limited_to(lambda tool: tool.server == "attic")
        assert {tool.server for tool in part.search_by_meaning("charge the buyer", 20)} == {"attic"}


async def test_the_search_index_is_built_in_a_thread_before_anybody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    class Watched(SearchIndex):
        def __init__(self, *arguments: Any) -> None:
            threads.append(threading.current_thread())
            super().__init__(*arguments)

    monkeypatch.setattr(indexing, "SearchIndex", Watched)
    monkeypatch.setattr(catalog, "SearchIndex", Watched)
    async with gateway({"desk": listing(TOOLS)}, bundles={"office": {"servers": ["desk"]}}) as opened:
        await opened.indexer.settled()
        built = len(threads)
        assert built and threading.main_thread() not in threads
        for bundle in (None, "office"):
            caller = dataclasses.replace(LOCAL, bundle=bundle)
            assert "desk.delete_row(" in await opened.metatools.list_tools(RequestContext(caller), "delete a row")
        assert len(threads) == built


async def test_new_tools_are_found_as_soon_as_they_are_listed() -> None:
    async with gateway({"desk": listing(TOOLS)}) as opened:
        await opened.indexer.settled()
        await reload(opened, make_config({"desk": listing(TOOLS), "attic": listing({"dust_shelves": "Dusts."})}))
        await opened.pool.settled()
        await asyncio.sleep(0)
        answer = await opened.metatools.list_tools(RequestContext(LOCAL), "dust the shelves")
        assert answer.startswith("attic.dust_shelves(")
