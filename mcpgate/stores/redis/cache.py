"""The cache in Redis or Valkey. Entries end by themselves; a sorted set has their ids, one set a server's."""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any

from redis import asyncio as redis
from redis.exceptions import RedisError

from mcpgate.cache.entry import CacheUnavailable, Row
from mcpgate.cache.store import EVERYTHING, Selection, Total

_PREFIX = "mcpgate:cache:"
_CONNECTIONS = 32
_ANSWER_S = 2.0
_FACTS = ("kind", "tenant", "key", "server", "tool", "provider", "model", "tags", "partition", "at", "until")
_AT_ONCE = 500
_PUT = """
if ARGV[2] ~= '' and (redis.call('GET', KEYS[3]) or '0') ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
redis.call('PEXPIREAT', KEYS[1], ARGV[3])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
if KEYS[4] then redis.call('SADD', KEYS[4], ARGV[1]) end
return 1
"""


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
            rows = await self._rows(ids)
            gone = [row.id for row in rows if which.fits(row)]
            if gone:
                dropped += int(await self._asked(self._redis.delete(*map(self._key, gone))))
            missing = [*set(ids) - {row.id for row in rows}, *gone]
            if missing:
                await self._asked(self._redis.zrem(f"{self._prefix}ids", *missing))
                if which.server:
                    await self._asked(self._redis.srem(self._server_key(which.server), *missing))
        return dropped

    async def epoch(self, server: str = "") -> int:
        return int(await self._asked(self._redis.get(self._epoch_key(server))) or 0)

    async def page(self, which: Selection, after: str = "", limit: int = 200) -> Sequence[Row]:
        found: list[Row] = []
        async for ids in self._ids(EVERYTHING, after):
            found += [row for row in await self._rows(ids) if which.fits(row)]
            if len(found) >= limit:
                break
        return found[:limit]

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
            if over := [id for id, (kind, _, _) in zip(ids, sizes, strict=True) if not kind]:
                await self._asked(self._redis.zrem(f"{self._prefix}ids", *over))
                dropped += len(over)
        left = sum(size for _, size, _ in known)
        for _, size, id in sorted(known):
            if left <= most_bytes:
                break
            await self._asked(self._redis.delete(self._key(id)))
            await self._asked(self._redis.zrem(f"{self._prefix}ids", id))
            left -= size
            dropped += 1
        return dropped

    async def close(self) -> None:
        await self._redis.aclose()

    async def _ids(self, which: Selection, after: str = "") -> AsyncIterator[list[str]]:
        """Ids in order, some at once; of a selection by server, those of the server."""
        if which.server:
            found = await self._asked(self._redis.smembers(self._server_key(which.server)))
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
        pipeline = self._redis.pipeline(transaction=False)
        for id in ids:
            pipeline.hgetall(self._key(id))
        found = await self._asked(pipeline.execute())
        return [_row(id, one) for id, one in zip(ids, found, strict=True) if one]

    async def _sizes(self, ids: Sequence[str]) -> list[tuple[str, int, float]]:
        """Kind, bytes and time of each; an empty kind for those that are gone."""
        pipeline = self._redis.pipeline(transaction=False)
        for id in ids:
            pipeline.hmget(self._key(id), "kind", "size", "at")
        found = await self._asked(pipeline.execute())
        return [(kind.decode(), int(size), float(at)) if kind else ("", 0, time.time()) for kind, size, at in found]

    def _key(self, id: str) -> str:
        return f"{self._prefix}e:{id}"

    def _epoch_key(self, server: str) -> str:
        return f"{self._prefix}epoch:{server.encode('utf-8', 'replace').decode()}"

    def _server_key(self, server: str) -> str:
        return f"{self._prefix}server:{server.encode('utf-8', 'replace').decode()}"

    async def _asked(self, work: Awaitable[Any]) -> Any:
        try:
            return await work
        except (TimeoutError, RedisError, OSError) as error:
            raise CacheUnavailable(f"the store of the cache is unavailable: {error}") from error


def _bytes(value: Any) -> bytes:
    return str(value).encode("utf-8", "replace")


def _text(value: bytes) -> str:
    return value.decode()


def _row(id: str, fields: dict[bytes, bytes]) -> Row:
    texts = {name: fields.get(name.encode(), b"").decode() for name in _FACTS}
    try:
        tags, at, until = tuple(json.loads(texts.pop("tags"))), float(texts.pop("at")), float(texts.pop("until"))
    except ValueError as error:
        raise CacheUnavailable(f"entry {id[:16]} of the cache cannot be read") from error
    partition = texts.pop("partition")
    return Row(id, **texts, tags=tags, partition=partition, at=at, until=until, value=fields.get(b"value", b""))  # type: ignore[arg-type]
