"""Entries as lines of JSON, to take them from one gateway to another."""

import math
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mcpgate import jsontext
from mcpgate.cache.cache import Cache
from mcpgate.cache.entry import CacheEntry, Kind
from mcpgate.cache.store import Selection
from mcpgate.errors import InvalidRequest


class _Line(BaseModel):
    """One entry."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern="^[0-9a-f]{64}$")
    kind: Kind
    tenant: str
    body: str
    at: float = Field(allow_inf_nan=False)
    fresh_until: float = Field(allow_inf_nan=False)
    until: float = Field(allow_inf_nan=False)
    key: str = ""
    server: str = ""
    tool: str = ""
    provider: str = ""
    model: str = ""
    tags: tuple[str, ...] = ()
    partition: str = ""
    question: str = ""
    cost: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


async def exported(
    cache: Cache, which: Selection, after: str = "", most: float = math.inf
) -> AsyncIterator[dict[str, Any]]:
    """Entries in order of their ids, those that can be read. Raises CacheUnavailable."""
    count = 0
    async for entry in cache.entries(which, after):
        if count >= most:
            return
        count += 1
        fields = {name: getattr(entry, name) for name in _Line.model_fields if name != "body"}
        yield {**fields, "body": entry.body.decode("utf-8", "replace")}


async def imported(cache: Cache, line: Mapping[str, Any]) -> bool:
    """Keep an exported entry; False if its time is over. Raises InvalidRequest, CacheUnavailable."""
    try:
        given = _Line.model_validate(line)
        body = given.body.encode()
        jsontext.loads(body)
    except (ValidationError, ValueError) as error:
        raise InvalidRequest(f"that is no entry: {str(error)[:300]}") from error
    if given.until <= time.time():
        return False
    await cache.keep(CacheEntry(**{**given.model_dump(), "body": body}))
    return True
