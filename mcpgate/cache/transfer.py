"""Entries as lines of JSON, to take them from one gateway to another."""

import math
import time
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mcpgate import jsontext
from mcpgate.cache.cache import Cache
from mcpgate.cache.entry import CacheEntry, Kind
from mcpgate.cache.policy import MOST_TAGS, TAG
from mcpgate.cache.store import Selection
from mcpgate.errors import InvalidRequest

Name = Annotated[str, Field(max_length=1000)]
Moment = Annotated[float, Field(ge=0, le=4e9)]
"""Epoch seconds, for a hundred years to come."""
Count = Annotated[int, Field(ge=0, le=10**15)]
"""Of tokens or nano-dollars: sums of many fit into what databases count in."""


class _Line(BaseModel):
    """One entry."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern="^[0-9a-f]{64}$")
    kind: Kind
    tenant: Name
    body: str
    at: Moment
    fresh_until: Moment
    until: Moment
    key: Name = ""
    server: Name = ""
    tool: Name = ""
    provider: Name = ""
    model: Name = ""
    tags: tuple[Annotated[str, Field(pattern=TAG)], ...] = Field(default=(), max_length=MOST_TAGS)
    partition: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    question: str = ""
    cost: Count = 0
    input_tokens: Count = 0
    output_tokens: Count = 0


async def exported(
    cache: Cache, which: Selection, after: str = "", most: float = math.inf, most_bytes: float = math.inf
) -> AsyncIterator[dict[str, Any]]:
    """Entries in order of their ids, those that can be read: at least one, and then no more than `most_bytes`. Raises
    CacheUnavailable."""
    count = size = 0
    async for entry in cache.entries(which, after):
        size += entry.size
        if count >= most or (count and size > most_bytes):
            return
        count += 1
        fields = {name: getattr(entry, name) for name in _Line.model_fields if name != "body"}
        yield {**fields, "body": entry.body.decode("utf-8", "replace")}


async def imported(cache: Cache, line: Mapping[str, Any]) -> bool:
    """Keep an exported entry; False if its time is over. Raises InvalidRequest, CacheUnavailable."""
    try:
        given = _Line.model_validate(line)
        body = given.body.encode()
        is_object = isinstance(jsontext.loads(body), dict)
    except (ValidationError, ValueError) as error:
        raise InvalidRequest(f"that is no entry: {str(error)[:300]}") from error
    if not is_object:
        raise InvalidRequest("that is no entry: its body is no JSON object")
    if given.until <= time.time():
        return False
    await cache.keep(CacheEntry(**{**given.model_dump(), "body": body}))
    return True
