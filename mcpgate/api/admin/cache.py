"""The part of the admin API that is about the cache: what it has and saves, dropping entries, judging them."""

import math
import time
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mcpgate.api.http.routing import Call, Reply, Route, json_reply
from mcpgate.cache.standing import standing
from mcpgate.cache.store import EVERYTHING, Selection
from mcpgate.cache.transfer import exported
from mcpgate.errors import InvalidRequest, NotFound
from mcpgate.gateway import Gateway
from mcpgate.governance.admin import parse

_SELECTION = {
    "id": "The entry with this id: the answer's x-mcpgate-cache-key.",
    "key": "Entries that a key's requests brought.",
    "tenant": "Entries of a tenant, such as team:search.",
    "tag": "Entries with a tag: the request's x-mcpgate-cache-tag.",
    "model": "Entries of provider/model.",
    "server": "Entries of an MCP server.",
    "tool": "Entries of a tool, by its own name.",
    "kind": "chat, embedding, tool or resource.",
    "older_than_s": "Entries that are older.",
}
_PAGE, _PAGE_BYTES = 500, 16 * 1024 * 1024


class Feedback(BaseModel):
    """Whether an entry was the right answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1, max_length=128)
    """The answer's x-mcpgate-cache-key."""
    good: bool
    """`false` drops the entry."""


class CacheRoutes:
    """Answers /api/cache."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Route]:
        since = {"since": "A date, a time, or a period like 7d. Default: 30d."}
        everything = {"all": "true: everything, if nothing else is given."}
        page = {"after": "Only later ids: pass the last id of the previous page."}
        return [
            Route("GET", "/api/cache", "What the cache holds, and what it has saved", self._show, query=since),
            Route("DELETE", "/api/cache", "Drop the entries that fit all that is given", self._drop,
                  query={**_SELECTION, **everything}),
            Route("GET", "/api/cache/entries", "Whole entries, as `mcpgate cache import` takes them", self._export,
                  query={**_SELECTION, **page}),
            Route("POST", "/api/cache/feedback", "Say whether an entry was the right answer", self._judge, Feedback),
        ]  # fmt: skip

    async def _show(self, call: Call) -> Reply:
        await self._gateway.gate.flush()
        gateway = self._gateway
        shown = await standing(gateway.cache, gateway.config.cache, gateway.gate.store, call.query.get("since", "30d"))
        return json_reply(dict(shown))

    async def _drop(self, call: Call) -> Reply:
        which = _selection(call.query)
        if which == EVERYTHING and call.query.get("all") != "true":
            raise InvalidRequest(f"say which entries: {', '.join(_SELECTION)}; or all=true")
        return json_reply({"dropped": await self._gateway.cache.drop(which)})

    async def _export(self, call: Call) -> Reply:
        which = _selection(call.query)
        after = call.query.get("after", "")
        found = [line async for line in exported(self._gateway.cache, which, after, _PAGE, _PAGE_BYTES)]
        return json_reply({"entries": found})

    async def _judge(self, call: Call) -> Reply:
        given = parse(Feedback, call.body)
        hit = await self._gateway.cache.look_up(given.id)
        if hit is None:
            raise NotFound(f"the cache has no entry {given.id[:80]!r}")
        return json_reply({"dropped": await self._gateway.cache.judge(hit.entry, given.good, is_sure=True)})


def _selection(query: Mapping[str, Any]) -> Selection:
    """Raises InvalidRequest."""
    before = None
    if (text := query.get("older_than_s")) is not None:
        try:
            before = time.time() - float(text)
        except ValueError:
            before = math.nan
        if not math.isfinite(before):
            raise InvalidRequest(f"older_than_s is {text[:40]!r}; it must be a number of seconds")
    texts = {name: query[name] for name in _SELECTION if name in query and name != "older_than_s"}
    return Selection(**texts, before=before)
