"""The part of the admin API that is the request log. A key without the grant `admin` sees its own requests."""

import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson

from mcpgate.activity.asking import flag, make_wanted
from mcpgate.activity.contents import contents_of, delete_contents_of
from mcpgate.activity.log import seen_by
from mcpgate.activity.requests import FILTERS, NEWEST, Wanted, from_cursor
from mcpgate.api.http.routing import Call, Reply, Route, json_reply
from mcpgate.errors import InvalidRequest
from mcpgate.gateway import Gateway
from mcpgate.governance.ledger import parse_where

_MOST = 1000
_WHICH = {
    "where": f"NAME=VALUE; separate several with commas. Names: {', '.join(FILTERS)}, metadata.NAME.",
    "min_latency_ms": "Only requests that took at least so long.",
    "min_cost_usd": "Only requests that cost at least so much themselves, without what belongs to them.",
    "nested": "1: also requests that belong to others, such as the tool calls of an execution.",
}
_PAGE = {
    "q": "Words that the content of a request, or of one that belongs to it, must have. Where contents are kept.",
    "since": "A date, a time, or a period like 7d. Default: all.",
    "until": "A date or a time. Default: now.",
    "limit": "The most requests of one page. Default: 50.",
    "cursor": "The `next` of the page before. It may be given with an empty page too, if looking has taken long.",
    "follow": "1: new requests as they end, as server-sent events.",
}


class RequestRoutes:
    """Answers /api/requests."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Route]:
        one = "/api/requests/{id}"
        return [
            Route("GET", "/api/requests", "List requests, the newest first; or follow them", self._list,
                  query={**_WHICH, **_PAGE}, admin=False),
            Route("GET", one, "Get a request, with everything that belongs to it", self._get, admin=False),
            Route("GET", f"{one}/content", "Get what a request said, if contents are kept", self._content, admin=False),
            Route("DELETE", f"{one}/content", "Delete what a request said", self._delete_content),
        ]  # fmt: skip

    async def _list(self, call: Call) -> Reply:
        if flag(call.query, "follow"):
            for name in ("cursor", "q"):
                if name in call.query:
                    raise InvalidRequest(f"follow takes no {name}: it begins now, and contents are written later")
            return await self._stream(call)
        limit = call.whole_number("limit", 50, _MOST)
        before = from_cursor(call.query["cursor"]) if call.query.get("cursor") else NEWEST
        if before == NEWEST:
            await self._gateway.gate.flush()
        page = await self._gateway.activity.log.page(self._wanted(call), limit, before)
        return json_reply({"requests": page.requests, "next": page.next})

    async def _get(self, call: Call) -> Reply:
        await self._gateway.gate.flush()
        return json_reply(await self._gateway.activity.log.get(call.caller, call.path["id"]))

    async def _content(self, call: Call) -> Reply:
        found, contents = await self._found(call), self._gateway.activity.contents
        return json_reply({"id": found["id"], "contents": await contents_of(contents.store, found)})

    async def _delete_content(self, call: Call) -> Reply:
        found, contents = await self._found(call), self._gateway.activity.contents
        return json_reply({"id": found["id"], "deleted": await delete_contents_of(contents.store, found)})

    async def _found(self, call: Call) -> dict[str, Any]:
        """A request whose content, if there is any, is in the store."""
        await self._gateway.gate.flush()
        await self._gateway.activity.contents.flush()
        return await self._gateway.activity.log.get(call.caller, call.path["id"])

    async def _stream(self, call: Call) -> Reply:
        wanted = self._wanted(call)
        return Reply(b"", events=self._events(wanted, await self._gateway.activity.log.newest()))

    async def _events(self, wanted: Wanted, after: int) -> AsyncIterator[Sequence[bytes]]:
        async with contextlib.aclosing(self._gateway.activity.log.follow(wanted, after)) as groups:  # type: ignore[type-var]
            async for group in groups:
                yield [orjson.dumps(one) for one in group]

    def _wanted(self, call: Call) -> Wanted:
        where = parse_where(part for part in call.query.get("where", "").split(",") if part.strip())
        return seen_by(call.caller, make_wanted(where, call.query, time.time()))
