"""Requests that wait for answers of people: whose they are, how many there may be, and how long they wait."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from mcpgate.api.mcp.backchannel import BackChannel
from mcpgate.api.mcp.pages import PAGE, page_of
from mcpgate.api.mcp.parking import Parking
from mcpgate.api.mcp.protocol import RpcFault, RpcRequest
from mcpgate.api.mcp.tasks import Tasks
from mcpgate.errors import NotSupported, RateLimited
from mcpgate.governance.callers import LOCAL, Caller
from mcpgate.governance.context import RequestContext

pytestmark = pytest.mark.anyio

ASKABLE: dict[str, Any] = {"elicitation": {}}
FORM = {"message": "?", "requestedSchema": {"type": "object"}}


def request(caller: Caller = LOCAL, capabilities: dict[str, Any] = ASKABLE, **params: Any) -> RpcRequest:
    return RpcRequest(
        "tools/call", params, 1, True, RequestContext(caller), lambda method, params: None, capabilities=capabilities
    )


def parking_of(**more: Any) -> Parking:
    async def is_current(caller: Caller) -> Caller:
        return caller

    return Parking(Tasks(is_current), set(), **more)


async def ask_once(channel: BackChannel) -> dict[str, Any]:
    return {"told": await channel.ask("elicitation/create", FORM)}


async def test_a_parked_request_goes_on_with_the_answer() -> None:
    parking = parking_of()
    asked = await parking.carry(request(), ask_once, inner=False)
    ((name, question),) = asked["inputRequests"].items()
    assert asked["resultType"] == "input_required"
    assert question == {"method": "elicitation/create", "params": FORM}
    again = request(requestState=asked["requestState"], inputResponses={name: {"action": "decline"}})
    assert await parking.carry(again, ask_once, inner=False) == {"told": {"action": "decline"}}
    with pytest.raises(RpcFault, match="expired or is unknown"):
        await parking.carry(again, ask_once, inner=False)


async def test_what_was_not_answered_is_asked_again() -> None:
    parking = parking_of()
    asked = await parking.carry(request(), ask_once, inner=False)
    again = await parking.carry(request(requestState=asked["requestState"]), ask_once, inner=False)
    assert again["inputRequests"] == asked["inputRequests"] and again["requestState"] != asked["requestState"]


@pytest.mark.parametrize("thief", [Caller("another"), replace(LOCAL, bundle="other"), replace(LOCAL, user="eve")])
async def test_nobody_else_can_answer(thief: Caller) -> None:
    parking = parking_of()
    asked = await parking.carry(request(), ask_once, inner=False)
    with pytest.raises(RpcFault, match="expired or is unknown"):
        await parking.carry(request(thief, requestState=asked["requestState"]), ask_once, inner=False)


async def test_a_request_whose_client_does_not_come_back_is_cancelled() -> None:
    ended = asyncio.Event()

    async def work(channel: BackChannel) -> dict[str, Any]:
        try:
            return await ask_once(channel)
        finally:
            ended.set()

    await parking_of(stay_s=0.01).carry(request(), work, inner=False)
    async with asyncio.timeout(5):
        await ended.wait()


async def test_a_key_has_a_bounded_number_of_parked_requests() -> None:
    parking = parking_of()
    for _ in range(64):
        await parking.carry(request(), ask_once, inner=False)
    with pytest.raises(RateLimited):
        await parking.carry(request(), ask_once, inner=False)
    await parking.carry(request(Caller("another")), ask_once, inner=False)


@pytest.mark.parametrize(
    "capabilities, params, missing",
    [
        ({}, FORM, "elicitation"),
        ({"elicitation": {"form": {}}}, {"mode": "url"}, "elicitation.url"),
        ({"elicitation": {"url": {}}}, FORM, "elicitation"),
        ({"roots": {}}, FORM, "elicitation"),
    ],
)
async def test_a_client_is_not_asked_what_it_cannot_answer(
    capabilities: dict[str, Any], params: dict[str, Any], missing: str
) -> None:
    async def work(channel: BackChannel) -> dict[str, Any]:
        return await channel.ask("elicitation/create", params)

    with pytest.raises(NotSupported, match=missing):
        await parking_of().carry(request(capabilities=capabilities), work, inner=False)


def test_a_list_is_read_page_by_page() -> None:
    items = [{"number": number} for number in range(2 * PAGE + 1)]
    pages, cursor = [], None
    while True:
        page = page_of("tools", items, cursor)
        pages.append(page["tools"])
        if (cursor := page.get("nextCursor")) is None:
            break
    assert [item for page in pages for item in page] == items and [len(page) for page in pages] == [PAGE, PAGE, 1]
    assert page_of("tools", items[:PAGE], None).keys() == {"tools"}


@pytest.mark.parametrize("cursor", ["", "nonsense", "YWZ0ZXIgLTE=", 7, {"a": 1}, "bm9wZSA1"])
def test_a_foreign_cursor_is_refused(cursor: Any) -> None:
    with pytest.raises(RpcFault, match="cursor"):
        page_of("tools", [{"a": 1}], cursor)
