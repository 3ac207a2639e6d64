"""Counters in Redis or Valkey, in front of a durable store that has the ledger. Each atomic step is one script.

The ledger is written first, then the counters. If a process dies in between, the process that expires its reservations
finds the entry in the ledger and counts it; requests that were still in progress are written to the ledger first in
the same way. If Redis loses its data, the counters are recounted from the ledger: a mark says that they are complete,
and without it nothing is reserved. Amounts are exact up to 2^53 nano-dollars (nine million dollars) in one window,
because scripts calculate with doubles.
"""

import asyncio
import json
import math
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any

from redis import asyncio as redis
from redis.exceptions import RedisError

from mcpgate.governance.gather import Gather
from mcpgate.governance.records import Balance, Claim, Refusal, Reservation
from mcpgate.governance.rule import measured
from mcpgate.governance.store import CountersLost, Settlement, Store, StoreUnavailable
from mcpgate.stores import rows

_CONNECTIONS = 32
_ANSWER_S = 5.0
_REMEMBER_S = 600
"""How long a settled request is remembered, so that settling it again does not count it twice."""
_REMEMBER_ABANDONED_S = 7 * 86_400
"""The same for a request whose owner seemed dead: it may only be suspended, and continue much later."""
_Settled = tuple[str, Sequence[str], list[tuple[str, int, str, int, float]]]
"""A request, its reservations, and what it spent: counter, cell, measure, amount and end of the cell."""

_STANDING = """
local function number(value) return tonumber(value or '0') end
local function text(value) return string.format('%.0f', value) end
-- what is spent and held from cell `oldest` on, and the first cell that is not empty; deletes earlier cells
local function standing(key, oldest)
  local fields = redis.call('HGETALL', key)
  local spent, held, first = 0, 0, nil
  local old = {}
  for i = 1, #fields, 2 do
    local cell, what = string.match(fields[i], '^(-?%d+):(%a)$')
    cell = tonumber(cell)
    local amount = tonumber(fields[i + 1])
    if cell < oldest then
      old[#old + 1] = fields[i]
    elseif amount ~= 0 then
      if what == 's' then spent = spent + amount else held = held + amount end
      if first == nil or cell < first then first = cell end
    end
  end
  for _, field in ipairs(old) do redis.call('HDEL', key, field) end
  return spent, held, first
end
local function keep(key, ends_at)
  if ends_at >= 9e15 then
    redis.call('PERSIST', key)
  else
    local at = math.ceil(ends_at * 1000)
    local ttl = redis.call('PTTL', key)
    local now = redis.call('TIME')
    local left = at - (tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000))
    if left < 1000 then left = 1000 end
    if ttl < left and (ttl >= 0 or redis.call('HLEN', key) <= 1) then redis.call('PEXPIRE', key, text(left)) end
  end
end
local function let_go(prefix, id)
  local held = redis.call('GET', prefix .. 'r:' .. id)
  if not held then return nil end
  redis.call('DEL', prefix .. 'r:' .. id)
  local reservation = cjson.decode(held)
  redis.call('SREM', prefix .. 'o:' .. reservation.owner, id)
  for _, claim in ipairs(reservation.claims) do
    local key, field = prefix .. 'c:' .. claim[1], claim[2] .. ':h'
    if claim[3] ~= '0' and redis.call('HEXISTS', key, field) == 1 then
      if redis.call('HINCRBY', key, field, '-' .. claim[3]) == 0 then redis.call('HDEL', key, field) end
    end
  end
  return reservation
end
"""

_RESERVE = (
    _STANDING
    + """
local prefix, answers = KEYS[1], {}
if redis.call('EXISTS', prefix .. 'whole') == 0 then return cjson.encode({lost = true}) end
for number, asked in ipairs(cjson.decode(ARGV[1])) do
  local id, owner, claims, request = asked[1], asked[2], asked[3], asked[5]
  local known = redis.call('EXISTS', prefix .. 'r:' .. id) == 1 or redis.call('EXISTS', prefix .. 'd:' .. request) == 1
  local fits, found = true, {}
  for place, claim in ipairs(claims) do
    local spent, held, first = standing(prefix .. 'c:' .. claim.counter, tonumber(claim.oldest))
    local fit = known or claim.limit == nil or spent + held + tonumber(claim.amount) <= tonumber(claim.limit)
    fits = fits and fit
    found[place] = {fit, text(spent), text(held), first and text(first) or false}
  end
  if fits and not known then
    for place, claim in ipairs(claims) do
      local key = prefix .. 'c:' .. claim.counter
      if claim.amount ~= '0' then redis.call('HINCRBY', key, claim.cell .. ':h', claim.amount) end
      keep(key, claim.ends_at)
      found[place][3] = text(tonumber(found[place][3]) + tonumber(claim.amount))
    end
    redis.call('SET', prefix .. 'r:' .. id, asked[4])
    redis.call('SADD', prefix .. 'o:' .. owner, id)
    redis.call('ZADD', prefix .. 'leases', 'NX', '0', owner)  -- without a lease, nobody would expire it
  end
  answers[number] = found
end
return cjson.encode({answers = answers})
"""
)

_SETTLE = (
    _STANDING
    + """
local prefix, remember, settlements, by_ledger = KEYS[1], ARGV[1], cjson.decode(ARGV[2]), ARGV[3]
local doubtful = {}
local whole = redis.call('EXISTS', prefix .. 'whole') == 1
for _, settlement in ipairs(settlements) do
  if by_ledger == '' and redis.call('EXISTS', prefix .. 'x:' .. settlement.id) == 1 then
    -- Another process took its owner for dead: only the ledger knows which of them was first.
    doubtful[#doubtful + 1] = settlement.id
  elseif redis.call('SET', prefix .. 'd:' .. settlement.id, '1', 'NX', 'EX', remember) then
    if whole then
      for _, part in ipairs(settlement.spent) do
        local key = prefix .. 'c:' .. part[1]
        redis.call('HINCRBY', key, part[2] .. ':s', part[3])
        keep(key, part[4])
      end
    elseif #settlement.spent > 0 then
      -- A recount in progress may or may not have read this entry: better to count it twice than not at all.
      redis.call('RPUSH', prefix .. 'late', cjson.encode(settlement.spent))
    end
  end
  for _, hold in ipairs(settlement.holds) do let_go(prefix, hold) end
end
return doubtful
"""
)

_RELEASE = _STANDING + "let_go(KEYS[1], ARGV[1]) return 1"

_READ = (
    _STANDING
    + """
local found = {}
for place, asked in ipairs(cjson.decode(ARGV[1])) do
  local spent, held, first = standing(KEYS[1] .. 'c:' .. asked[1], tonumber(asked[2]))
  found[place] = {text(spent), text(held), first and text(first) or false}
end
return cjson.encode(found)
"""
)

_ADJUST = (
    _STANDING
    + """
local prefix, once, claim = KEYS[1], ARGV[1], cjson.decode(ARGV[2])
if redis.call('EXISTS', prefix .. 'whole') == 0 then return 0 end  -- is repeated after the recount
if once == '' or redis.call('SADD', prefix .. 'adjusted', once) == 1 then
  local key = prefix .. 'c:' .. claim[1]
  redis.call('HINCRBY', key, claim[2] .. ':s', claim[3])
  keep(key, claim[4])
end
return 1
"""
)

_RESET = """
local key = KEYS[1] .. 'c:' .. ARGV[1]
for _, field in ipairs(redis.call('HKEYS', key)) do
  if string.sub(field, -2) == ':s' then redis.call('HDEL', key, field) end
end
return 1
"""

_FORGET = """
local ends = redis.call('ZSCORE', KEYS[1] .. 'leases', ARGV[1])
if ends and tonumber(ends) <= tonumber(ARGV[2]) then redis.call('ZREM', KEYS[1] .. 'leases', ARGV[1]) end
return 1
"""

_RESTORE = (
    _STANDING
    + """
local prefix = KEYS[1]
if redis.call('EXISTS', prefix .. 'whole') == 1 then return 0 end
for _, part in ipairs(cjson.decode(ARGV[1])) do
  local key = prefix .. 'c:' .. part[1]
  redis.call('HSET', key, part[2] .. ':s', part[3])
  keep(key, part[4])
end
for _, late in ipairs(redis.call('LRANGE', prefix .. 'late', 0, -1)) do
  for _, part in ipairs(cjson.decode(late)) do
    local key = prefix .. 'c:' .. part[1]
    redis.call('HINCRBY', key, part[2] .. ':s', part[3])
    keep(key, part[4])
  end
end
redis.call('DEL', prefix .. 'late', prefix .. 'adjusted')
redis.call('SET', prefix .. 'whole', '1')
return 1
"""
)


class RedisCounters:
    """Implements Counters."""

    name = "redis"

    def __init__(self, client: "redis.Redis", store: Store, prefix: str) -> None:
        # Scripts need all keys on one node of a cluster, which the braces ensure.
        self._client, self._store, self._prefix = client, store, f"{{{prefix}}}:"
        self._asked: set[asyncio.Future[Any]] = set()
        self._reserve_next = Gather(self._reserve_all)
        self._count_next = Gather(self._count_all)
        self._scripts = {
            name: client.register_script(text)
            for name, text in (
                ("reserve", _RESERVE),
                ("settle", _SETTLE),
                ("release", _RELEASE),
                ("read", _READ),
                ("adjust", _ADJUST),
                ("reset", _RESET),
                ("forget", _FORGET),
                ("restore", _RESTORE),
            )
        }

    @classmethod
    async def open(cls, url: str, store: Store, prefix: str = "mcpgate") -> "RedisCounters":
        """Raises StoreUnavailable."""
        address = url.replace("valkey", "redis", 1)
        try:
            pool = redis.BlockingConnectionPool.from_url(
                address,
                decode_responses=True,
                socket_timeout=_ANSWER_S,
                socket_connect_timeout=_ANSWER_S,
                max_connections=_CONNECTIONS,
                timeout=_ANSWER_S,
                client_name="mcpgate",
            )
        except ValueError as error:
            raise StoreUnavailable(f"storage.counters: {error}") from error
        counters = cls(redis.Redis.from_pool(pool), store, prefix)
        await counters._ask(counters._client.ping())
        return counters

    def _answered(self, task: "asyncio.Future[Any]") -> None:
        self._asked.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved, because nobody may be waiting any more

    async def close(self) -> None:
        if self._asked:
            await asyncio.wait(tuple(self._asked), timeout=_ANSWER_S)
        await self._client.aclose()

    async def reserve(self, reservation: Reservation) -> tuple[Balance, ...] | Refusal:
        return await self._reserve_next(reservation)

    async def _reserve_all(self, reservations: Sequence[Reservation]) -> list[tuple[Balance, ...] | Refusal]:
        asked = []
        for reservation in reservations:
            claims, kept = [], []
            for claim in reservation.claims:
                cell, amount, ends_at = str(claim.cell), str(claim.amount), _ends(claim.ends_at)
                facts = {"counter": claim.counter, "cell": cell, "oldest": str(claim.oldest), "amount": amount}
                limit = {} if claim.limit is None else {"limit": str(claim.limit)}
                claims.append({**facts, **limit, "ends_at": ends_at})
                kept.append([claim.counter, cell, amount, claim.measure, ends_at])
            entry = {} if reservation.abandoned is None else {"abandoned": rows.entry_to_json(reservation.abandoned)}
            held = json.dumps({"owner": reservation.owner, "claims": kept, **entry})
            asked.append([reservation.id, reservation.owner, claims, held, reservation.request])
        answer = json.loads(await self._run("reserve", json.dumps(asked)))
        if "lost" in answer:
            raise CountersLost("Redis has lost its counters")
        answers: list[tuple[Balance, ...] | Refusal] = []
        for found in answer["answers"]:
            standings = tuple(_standing(*row[1:]) for row in found)
            misfits = tuple((place, standings[place]) for place, row in enumerate(found) if not row[0])
            answers.append(Refusal(misfits) if misfits else standings)
        return answers

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        await self._store.settle([Settlement(s.entry) for s in settlements])
        counted: list[_Settled] = []
        for settlement in settlements:
            pairs = zip(settlement.claims, settlement.amounts, strict=True)
            spent = [(claim.counter, claim.cell, claim.measure, amount, claim.ends_at) for claim, amount in pairs]
            if spent or settlement.holds:
                counted.append((settlement.entry.id, settlement.holds, spent))
        if counted:
            await self._count_next(counted)

    async def _count_all(self, batches: Sequence[Sequence[_Settled]]) -> list[None]:
        settled = [one for batch in batches for one in batch]
        if doubtful := await self._run("settle", str(_REMEMBER_S), _parts(settled), ""):
            await self._count_by_ledger([one for one in settled if one[0] in doubtful])
        return [None] * len(batches)

    async def _count_by_ledger(self, settled: Sequence[_Settled]) -> None:
        """Count what the entries in the ledger say; a request without an entry spent nothing."""
        found = await self._store.find_settled([id for id, _, _ in settled])
        parts: list[_Settled] = []
        for id, holds, spent in settled:
            if (entry := found.get(id)) is not None:
                amounts = [(name, cell, measure, measured(measure, entry.cost, entry.usage), ends_at)
                           for name, cell, measure, _, ends_at in spent]  # fmt: skip
                parts.append((id, holds, amounts))
            else:
                for hold in holds:
                    await self._run("release", hold)
        if parts:
            await self._run("settle", str(_REMEMBER_ABANDONED_S), _parts(parts), "by ledger")

    async def release(self, reservation: Reservation) -> None:
        await self._run("release", reservation.id)

    async def renew(self, owner: str, until: float) -> None:
        await self._ask(self._client.zadd(self._prefix + "leases", {owner: until}))

    async def expire(self, now: float) -> int:
        dead: list[str] = await self._ask(self._client.zrangebyscore(self._prefix + "leases", "-inf", now))
        gone = 0
        for owner in dead:
            ids = sorted(await self._ask(self._client.smembers(f"{self._prefix}o:{owner}")), reverse=True)
            texts = await self._ask(self._client.mget([f"{self._prefix}r:{id}" for id in ids])) if ids else []
            requests: dict[str, dict[str, dict[str, Any]]] = {}
            """Request → its reservations."""
            for id, text in zip(ids, texts, strict=True):
                gone += 1
                if text is None:
                    await self._ask(self._client.srem(f"{self._prefix}o:{owner}", id))
                else:
                    requests.setdefault(id.partition("/")[0], {})[id] = json.loads(text)
            await self._end(requests)
            await self._run("forget", owner, repr(now))
        return gone

    async def _end(self, requests: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
        """End requests whose owner seems dead. The ledger is written first, and what it says is counted: the owner may
        have died between ledger and counters, or still be alive, and this process may die in between too."""
        held = [reservation for holds in requests.values() for reservation in holds.values()]
        abandoned = [rows.entry_from_json(one["abandoned"]) for one in held if "abandoned" in one]
        for entry in abandoned:
            await self._ask(self._client.set(f"{self._prefix}x:{entry.id}", "1", ex=_REMEMBER_ABANDONED_S))
        if abandoned:
            await self._store.settle([Settlement(entry) for entry in abandoned])
        await self._count_by_ledger(
            [
                (
                    *(request, list(holds)),
                    [
                        (counter, int(cell), measure, int(amount), ends_at)
                        for reservation in holds.values()
                        for counter, cell, amount, measure, ends_at in reservation["claims"]
                    ],
                )
                for request, holds in requests.items()
            ]
        )

    async def read(self, counters: Sequence[tuple[str, int]]) -> list[Balance]:
        asked = json.dumps([[name, str(oldest)] for name, oldest in counters])
        return [_standing(*row) for row in json.loads(await self._run("read", asked)) or []]

    async def adjust(self, claim: Claim, once: str | None = None) -> None:
        part = [claim.counter, str(claim.cell), str(claim.amount), _ends(claim.ends_at)]
        await self._run("adjust", once or "", json.dumps(part))

    async def reset(self, counter: str) -> None:
        await self._run("reset", counter)

    async def names(self, prefix: str, limit: int) -> list[str]:
        start = f"{self._prefix}c:"
        escaped = "".join(f"\\{c}" if c in "*?[]\\" else c for c in start + prefix)
        found = []
        try:
            async for key in self._client.scan_iter(match=escaped + "*", count=1000):
                found.append(key.removeprefix(start))
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error
        return sorted(found)[:limit]

    async def restore(self, amounts: Iterable[tuple[Claim, int]]) -> None:
        sums: dict[tuple[str, int], tuple[int, float]] = {}
        for claim, amount in amounts:
            before, _ = sums.get((claim.counter, claim.cell), (0, 0.0))
            sums[claim.counter, claim.cell] = (before + amount, claim.ends_at)
        parts = [[name, str(cell), str(amount), _ends(ends)] for (name, cell), (amount, ends) in sums.items() if amount]
        await self._run("restore", json.dumps(parts))

    async def _run(self, script: str, *arguments: str) -> Any:
        return await self._ask(self._scripts[script](keys=[self._prefix], args=arguments))

    async def _ask(self, answer: Awaitable[Any]) -> Any:
        # In its own task, because redis-py 8.1 often swallows the cancellation of its caller.
        task = asyncio.ensure_future(answer)
        self._asked.add(task)
        task.add_done_callback(self._answered)
        try:
            return await asyncio.shield(task)
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error


def _standing(spent: str, held: str, first: str | bool) -> Balance:
    return Balance(int(spent), int(held), int(first) if isinstance(first, str) else None)


def _parts(settled: Sequence[_Settled]) -> str:
    return json.dumps(
        [
            {
                **{"id": id, "holds": list(holds)},
                "spent": [[name, str(cell), str(n), _ends(ends_at)] for name, cell, _, n, ends_at in spent if n],
            }
            for id, holds, spent in settled
        ]
    )


def _ends(at: float) -> float:
    return rows.FOREVER if at >= rows.FOREVER else math.ceil(at * 1000) / 1000
