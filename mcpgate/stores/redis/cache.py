"""The cache in Redis or Valkey. Entries end by themselves; a sorted set has their ids, and another one those of a
server, by when they end."""

import json
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any

from redis import asyncio as redis
from redis.exceptions import RedisError

from mcpgate.cache.entry import CacheUnavailable, Row, Unreadable, tags_of
from mcpgate.cache.store import EVERYTHING, Selection, Total

_PREFIX = "mcpgate:cache:"
_CONNECTIONS = 32
_ANSWER_S = 2.0
_FACTS = ("kind", "tenant", "key", "server", "tool", "provider", "model", "tags", "partition", "at", "until")
_AT_ONCE, _WHOLE_AT_ONCE = 500, 16
"""Entries that are asked for at once, without and with their values."""
_PUT = """
if ARGV[2] ~= '' and (redis.call('GET', KEYS[3]) or '0') ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
redis.call('PEXPIREAT', KEYS[1], ARGV[3])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
if KEYS[4] then
  local now = redis.call('TIME')
  redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now[1] * 1000)
  redis.call('ZADD', KEYS[4], ARGV[3], ARGV[1])
  redis.call('PEXPIREAT', KEYS[4], redis.call('ZREVRANGE', KEYS[4], 0, 0, 'WITHSCORES')[2])
end
return 1
"""
_DROP = """
redis.call('ZREM', KEYS[1], unpack(ARGV))
redis.call('ZREM', KEYS[2], unpack(ARGV))
return redis.call('DEL', unpack(KEYS, 3))
"""
"""At once, so that what is put meanwhile is never there without its id in the sets."""


class RedisCache:
    """Implements cache.store.CacheStore."""

    name, outlives = "Redis", True

    def __init__(self, url: str, prefix: str = _PREFIX) -> None:
        """Connects when it is first used. `prefix`: of all its keys."""
        pool = redis.BlockingConnectionPool.from_url(
            url, max_connections=_CONNECTIONS, timeout=_ANSWER_S, socket_timeout=_ANSWER_S
        )
        self._redis = redis.Redis.from_pool(pool)
        self._prefix = prefix
        self._put = self._redis.register_script(_PUT)
        self._drop = self._redis.register_script(_DROP)

    async def get(self, id: str) -> Row | None:
        found = await self._asked(self._redis.hgetall(self._key(id)))
        return _row(id, found) if found else None

    async def put(self, row: Row, epoch: int | None = None) -> None:
        facts: dict[str, Any] = {name: getattr(row, name) for name in _FACTS}
        facts |= {"tags": json.dumps(row.tags), "size": row.size}
        keys = [self._key(row.id), f"{self._prefix}ids", self._epoch_key(row.server)]
        if row.server:
            keys.append(self._server_key(row.server))
        pairs = [part for pair in facts.items() for part in (pair[0], _bytes(pair[1]))]
        until_ms = int(row.until * 1000)
        arguments = [row.id, "" if epoch is None else epoch, until_ms, *pairs, "value", row.value]
        await self._asked(self._put(keys, arguments))
        if row.partition:
            partition = f"{self._prefix}partition:{row.partition}"
            await self._asked(self._redis.zadd(partition, {row.id: row.at}))
            await self._asked(self._redis.pexpireat(partition, until_ms))

    async def drop(self, which: Selection) -> int:
        await self._asked(self._redis.incr(self._epoch_key(which.server)))
        dropped = 0
        async for ids in self._ids(which):
            facts = await self._facts(ids)
            # What is over or damaged goes, too.
            dropped += await self._gone(
                [id for id, row in zip(ids, facts, strict=True) if row is None or which.fits(row)], which.server
            )
        return dropped

    async def _gone(self, ids: Sequence[str], server: str = "") -> int:
        if not ids:
            return 0
        keys = [f"{self._prefix}ids", self._server_key(server), *map(self._key, ids)]
        return int(await self._asked(self._drop(keys, ids)))

    async def epoch(self, server: str = "") -> int:
        return int(await self._asked(self._redis.get(self._epoch_key(server))) or 0)

    async def page(self, which: Selection, after: str = "", limit: int = 200) -> Sequence[Row]:
        found: list[Row] = []
        async for ids in self._ids(EVERYTHING, after):
            facts = await self._facts(ids)
            fitting = [row.id for row in facts if row is not None and which.fits(row)]
            found += await self._rows(fitting[: limit - len(found)])
            if len(found) >= limit:
                break
        return found

    async def newer(self, partition: str, at: float, limit: int = 500) -> Sequence[Row]:
        # It is kept as long as the entry that was put last. An earlier one that is kept longer is then found by equal
        # requests only.
        key = f"{self._prefix}partition:{partition}"
        found = await self._asked(self._redis.zrangebyscore(key, at, "+inf", 0, limit)) if partition else []
        ids = [*map(_text, found)]
        rows = await self._rows(ids)
        if gone := [*set(ids) - {row.id for row in rows}]:
            await self._asked(self._redis.zrem(key, *gone))
        return [row for row in rows if row.partition == partition]

    async def totals(self) -> Sequence[Total]:
        sums: dict[str, tuple[int, int]] = {}
        async for ids in self._ids(EVERYTHING):
            for kind, size, _ in await self._sizes(ids):
                if not kind:
                    continue
                count, total = sums.get(kind, (0, 0))
                sums[kind] = (count + 1, total + size)
        return [Total(kind, *sums[kind]) for kind in sorted(sums)]

    async def tidy(self, now: float, most_bytes: int) -> int:
        """Redis deletes what is over, so that only its ids are left to be forgotten. Beyond `most_bytes`, the oldest
        entries go."""
        known: list[tuple[float, int, str]] = []
        dropped = 0
        async for ids in self._ids(EVERYTHING):
            sizes = await self._sizes(ids)
            known += [(at, size, id) for id, (kind, size, at) in zip(ids, sizes, strict=True) if kind]
            over = [id for id, (kind, _, _) in zip(ids, sizes, strict=True) if not kind]
            await self._gone(over)
            dropped += len(over)
        left = sum(size for _, size, _ in known)
        for _, size, id in sorted(known):
            if left <= most_bytes:
                break
            await self._gone([id])
            left -= size
            dropped += 1
        return dropped

    async def close(self) -> None:
        await self._redis.aclose()

    async def _ids(self, which: Selection, after: str = "") -> AsyncIterator[list[str]]:
        """Ids in order, some at once; of a selection by server, those of the server."""
        if which.server:
            found = await self._asked(self._redis.zrange(self._server_key(which.server), 0, -1))
            ids = sorted(map(_text, found))
            for start in range(0, len(ids), _AT_ONCE):
                yield ids[start : start + _AT_ONCE]
            return
        while True:
            first = f"({after}" if after else "-"
            found = await self._asked(self._redis.zrangebylex(f"{self._prefix}ids", first, "+", 0, _AT_ONCE))
            if not found:
                return
            ids = [*map(_text, found)]
            after = ids[-1]
            yield ids

    async def _rows(self, ids: Sequence[str]) -> list[Row]:
        """Those that are there and can be read."""
        rows: list[Row] = []
        for start in range(0, len(ids), _WHOLE_AT_ONCE):
            some = ids[start : start + _WHOLE_AT_ONCE]
            pipeline = self._redis.pipeline(transaction=False)
            for id in some:
                pipeline.hgetall(self._key(id))
            found = await self._asked(pipeline.execute())
            read = [_row_or_none(id, one) for id, one in zip(some, found, strict=True)]
            rows += [row for row in read if row is not None]
        return rows

    async def _facts(self, ids: Sequence[str]) -> list[Row | None]:
        """The rows without their values; None for what is not there or damaged."""
        pipeline = self._redis.pipeline(transaction=False)
        for id in ids:
            pipeline.hmget(self._key(id), *_FACTS)
        found = await self._asked(pipeline.execute())
        names = [name.encode() for name in _FACTS]
        return [
            _row_or_none(id, {name: fact for name, fact in zip(names, one, strict=True) if fact is not None})
            for id, one in zip(ids, found, strict=True)
        ]

    async def _sizes(self, ids: Sequence[str]) -> list[tuple[str, int, float]]:
        """Kind, bytes and time of each; an empty kind for those that are gone or damaged."""
        pipeline = self._redis.pipeline(transaction=False)
        for id in ids:
            pipeline.hmget(self._key(id), "kind", "size", "at")
        found = await self._asked(pipeline.execute())
        return [*map(_size, found)]

    def _key(self, id: str) -> str:
        return f"{self._prefix}e:{id}"

    def _epoch_key(self, server: str) -> str:
        return f"{self._prefix}epoch:{server.encode('utf-8', 'replace').decode()}"

    def _server_key(self, server: str) -> str:
        return f"{self._prefix}of_server:{server.encode('utf-8', 'replace').decode()}"

    async def _asked(self, work: Awaitable[Any]) -> Any:
        try:
            return await work
        except (TimeoutError, RedisError, OSError) as error:
            raise CacheUnavailable(f"the store of the cache is unavailable: {error}") from error


def _bytes(value: Any) -> bytes:
    return str(value).encode("utf-8", "replace")


def _text(value: bytes) -> str:
    return value.decode()


def _size(facts: Sequence[bytes | None]) -> tuple[str, int, float]:
    kind, size, at = facts
    try:
        return (kind or b"").decode(), int(size or 0), float(at or 0)
    except ValueError:
        return "", 0, 0.0


def _row_or_none(id: str, fields: dict[bytes, bytes]) -> Row | None:
    try:
        return _row(id, fields) if fields else None
    except Unreadable:
        return None


def _row(id: str, fields: dict[bytes, bytes]) -> Row:
    """Raises Unreadable."""
    try:
        texts = {name: fields.get(name.encode(), b"").decode() for name in _FACTS}
        tags, at, until = tags_of(texts.pop("tags")), float(texts.pop("at")), float(texts.pop("until"))
    except ValueError as error:
        raise Unreadable("its facts are damaged") from error
    partition = texts.pop("partition")
    return Row(id, **texts, tags=tags, partition=partition, at=at, until=until, value=fields.get(b"value", b""))  # type: ignore[arg-type]
