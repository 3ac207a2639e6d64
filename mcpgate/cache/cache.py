"""The cache: finds answers to equal requests, and to questions that mean the same, and keeps new ones. It knows nothing
of models or tools: what they ask and answer is known to llm/cached.py and proxy/cached.py.

Entries of models are in memory and in the store; results of tools only in the store, because they are dropped as soon
as a tool writes, for all processes at once.
"""

import asyncio
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from mcpgate.cache.entry import CacheEntry, CacheUnavailable, Checksum, Cipher, Sealer, Unreadable, of_row, to_row
from mcpgate.cache.flights import Flight, Flights, Outcome
from mcpgate.cache.meanings import MakeEmbedder, Meanings
from mcpgate.cache.memory import Memory
from mcpgate.cache.policy import Policy
from mcpgate.cache.questions import Questions
from mcpgate.cache.store import CacheStore, Selection, Total
from mcpgate.config.settings import Settings
from mcpgate.errors import McpgateError

_MIB = 1024 * 1024
_LONGEST_WAIT_S = 60.0
"""How long a request waits for the answer to an equal one."""
_CLAIM_S, _RENEW_S = 6.0, 2.0
"""How long other processes wait for one that asked and has ended, and how often that one says that it has not."""
_LOOK_S, _CLAIM_AGAIN_S = 0.05, 0.5
"""How often they look for its answer, and try to ask themselves."""
_EPOCH_S, _OLD_EPOCH_S = 1.0, 2.0
"""How old what is known of drops in other processes is looked at again, and how old it may be for a request to be
answered from memory."""
_LONGEST_LOOK_S = 1.0
"""How long such a request waits for a store that does not answer."""
_MOST_UNWRITTEN = 64 * _MIB
_MOST_REFRESHES = 100
_PAGE = 32
"""Entries that are read at once: each may have megabytes."""
log = logging.getLogger("mcpgate.cache")


class Claims(Protocol):
    """Locks that all processes see: upstream.tokens.Tokens, which is in the same layer, has them."""

    async def acquire(self, key: str, owner: str, for_s: float) -> bool: ...

    async def release(self, key: str, owner: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of the cache."""

    id: str
    tenant: str
    policy: Policy
    partition: str = ""
    text: str = ""
    """The last turn of the user; empty if only an equal request may have the answer."""


@dataclass(frozen=True, slots=True)
class Hit:
    """An answer from the cache."""

    entry: CacheEntry
    age_s: float
    is_stale: bool = False
    similarity: float | None = None
    """Of the two questions, from 0 to 1; None for equal requests."""
    is_checked: bool = False
    """Whether the provider should be asked too, to see whether the entry is right."""

    @property
    def how(self) -> str:
        return "exact" if self.similarity is None else "semantic"


class Miss:
    """No answer: whoever asked goes on, and says what came of it."""

    def __init__(self, flight: Flight | None = None, release: Callable[[], None] | None = None) -> None:
        """Who waits for it in this process, and what lets other processes go on."""
        self._flight, self._release = flight, release
        self.would: Hit | None = None
        """What the cache would have answered, if it may only be watched."""

    def land(self, outcome: Outcome) -> None:
        """To be called once it is clear, in whatever way; the first call counts."""
        if self._flight is not None:
            self._flight.land(outcome)
        if self._release is not None:
            self._release()
            self._release = None


class Cache:
    """One for the whole gateway."""

    def __init__(
        self,
        settings: Settings,
        store: CacheStore,
        claims: Claims,
        clock: Callable[[], float] = time.time,
        make_embedder: MakeEmbedder = lambda config: None,
        checked: Callable[[bool], None] = lambda is_right: None,
        questions: Questions | None = None,
    ) -> None:
        """`checked`: is told what checks and people say of entries that were served. `questions`: searches questions
        in the store, if the store can do that."""
        self._checked = checked
        self._meanings = Meanings(self._servable, self._newer, make_embedder, questions)
        self._settings, self.store, self._claims, self._clock = settings, store, claims, clock
        config = settings.config.cache
        key = config.encryption_key
        self._sealer: Sealer = Checksum() if key is None else Cipher(key.get_secret_value())
        self._memory = Memory(config.memory_mib * _MIB)
        self._flights = Flights()
        self._tasks: set[asyncio.Task[None]] = set()
        self._holding: set[asyncio.Task[None]] = set()
        """Claims of this process."""
        self._refreshes: dict[str, asyncio.Task[None]] = {}
        """By the entries that they are for."""
        self._unwritten = 0
        """Bytes on their way to the store."""
        self._epoch: int | None = None
        self._epoch_at = -math.inf
        self._learning: asyncio.Task[None] | None = None
        self._drops = 0
        """How often memory was emptied: what was read before that is no longer put there."""
        self._is_away = False

    # --- finding

    async def find(self, question: Question) -> Hit | Miss:
        """A hit, or a miss once it is this request's turn to ask. Equal requests at once wait for one of them."""
        await self._look_at_epoch()
        if question.policy.reads:
            hit = await self.look(question) or await self.look_alike(question)
            if hit is not None:
                return hit
        if not (question.policy.reads and question.policy.writes):
            return Miss()
        joined = await self._flights.join(question.id, _LONGEST_WAIT_S)
        if not isinstance(joined, Flight):
            found = await self.look(question) if joined is Outcome.KEPT else None
            return Miss() if found is None else found
        try:
            return await self._lead(question, joined)
        except BaseException:
            joined.land(Outcome.FAILED)
            raise

    async def look(self, question: Question) -> Hit | None:
        """The entry of an equal request that may be served now."""
        return await self.look_up(question.id, question.policy.oldest_s)

    async def look_alike(self, question: Question) -> Hit | None:
        """The entry of a question that means the same, if the request may have that."""
        if not question.partition:
            return None
        self._meanings.want(self._settings.config.cache.semantic)
        same = await self._meanings.find(question.partition, question.text, question.policy.threshold)
        if same is None:
            return None
        age_s = max(0.0, self._clock() - same.entry.at)
        if age_s > question.policy.oldest_s:
            return None
        return Hit(same.entry, age_s, similarity=same.similarity, is_checked=same.is_checked)

    async def _servable(self, id: str) -> CacheEntry | None:
        """An entry whose time is not over: questions that mean the same never get a stale one."""
        entry = await self._entry(id)
        return None if entry is None or self._clock() >= entry.fresh_until else entry

    async def _newer(self, partition: str, at: float, limit: int) -> list[CacheEntry]:
        """Raises CacheUnavailable."""
        found = []
        for row in await self.store.newer(partition, at, limit):
            try:
                found.append(of_row(row, self._sealer))
            except Unreadable as error:
                log.warning("entry %s of the cache: %s", row.id[:16], error)
        return found

    async def look_up(self, id: str, oldest_s: float = math.inf) -> Hit | None:
        """The entry with an id, if it may be served now and is not older."""
        entry = await self._entry(id)
        now = self._clock()
        if entry is None or now >= entry.until:
            return None
        age_s = max(0.0, now - entry.at)
        if age_s > oldest_s:
            return None
        return Hit(entry, age_s, is_stale=now >= entry.fresh_until)

    async def _lead(self, question: Question, flight: Flight) -> Hit | Miss:
        """Of all processes that share the store, one asks."""
        if not self.store.outlives:
            return Miss(flight)
        claim, owner = f"cache:{question.id}", secrets.token_hex(8)
        give_up = time.monotonic() + _LONGEST_WAIT_S
        next_claim = 0.0
        while time.monotonic() < give_up:
            if time.monotonic() >= next_claim:
                next_claim = time.monotonic() + _CLAIM_AGAIN_S
                try:
                    is_ours = await self._claims.acquire(claim, owner, _CLAIM_S)
                except McpgateError:
                    return Miss(flight)
                if is_ours:
                    return await self._lead_claimed(question, flight, claim, owner)
            if (hit := await self.look(question)) is not None:
                flight.land(Outcome.KEPT)
                return hit
            await asyncio.sleep(_LOOK_S)
        return Miss(flight)

    async def _lead_claimed(self, question: Question, flight: Flight, claim: str, owner: str) -> Hit | Miss:
        over = asyncio.Event()
        holding = asyncio.create_task(self._hold(claim, owner, over))
        self._holding.add(holding)
        holding.add_done_callback(self._holding.discard)
        try:
            # Another process may have had the answer between our look and our claim.
            hit = await self.look(question)
        except BaseException:
            over.set()
            raise
        if hit is None:
            return Miss(flight, over.set)
        over.set()
        flight.land(Outcome.KEPT)
        return hit

    async def _hold(self, claim: str, owner: str, over: asyncio.Event) -> None:
        """Renewing and releasing are never under way at once: a claim that is renewed late would block the others."""
        while not over.is_set():
            try:
                async with asyncio.timeout(_RENEW_S):
                    await over.wait()
            except TimeoutError:
                try:
                    await self._claims.acquire(claim, owner, _CLAIM_S)
                except McpgateError as error:
                    log.debug("a claim was not renewed: %s", error.message)
        try:
            await self._claims.release(claim, owner)
        except McpgateError as error:
            log.debug("a claim was not released: %s", error.message)

    async def _entry(self, id: str) -> CacheEntry | None:
        if (entry := self._memory.get(id)) is not None:
            return entry
        drops = self._drops
        try:
            row = await self.store.get(id)
            self._found_store()
            entry = None if row is None else of_row(row, self._sealer)
        except CacheUnavailable as error:
            self._lost_store(error)
            return None
        except Unreadable as error:
            log.warning("entry %s of the cache: %s", id[:16], error)
            return None
        if entry is not None and self._stays_in_memory(entry) and drops == self._drops:
            self._memory.put(entry)
        return entry

    # --- keeping

    async def keep(self, entry: CacheEntry, epoch: int | None = None) -> None:
        """Keep an answer; when this returns, equal requests of any process can find it. `epoch`: of its server, when it
        was asked for."""
        entry, vector = await self._meanings.prepared(entry)
        if self._stays_in_memory(entry):
            self._memory.put(entry)
        if self._unwritten + entry.size > _MOST_UNWRITTEN:
            log.warning("the store of the cache is too slow: an answer is not kept")
            return
        self._unwritten += entry.size
        try:
            await self.store.put(to_row(entry, self._sealer), epoch)
            self._found_store()
        except CacheUnavailable as error:
            self._lost_store(error)
        finally:
            self._unwritten -= entry.size
        await self._meanings.learn(entry, vector)

    def _stays_in_memory(self, entry: CacheEntry) -> bool:
        return self.store.outlives and not entry.server

    async def epoch(self, server: str) -> int | None:
        """Of a server; None if the store is away: then nothing is kept."""
        try:
            return await self.store.epoch(server)
        except CacheUnavailable as error:
            self._lost_store(error)
            return None

    # --- dropping and upkeep

    async def drop(self, which: Selection) -> int:
        """Returns how many. Raises CacheUnavailable."""
        dropped = await self.store.drop(which)
        self._forget()
        return dropped

    def _forget(self) -> None:
        self._drops += 1
        self._memory.drop_where(lambda entry: True)

    async def has(self, id: str) -> bool:
        """Whether there is an entry, once what is on its way has been written."""
        if self._tasks:  # only those of now: under load there are always others
            await asyncio.wait(tuple(self._tasks))
        return await self.look_up(id) is not None

    async def judge(self, entry: CacheEntry, is_right: bool, is_sure: bool = False) -> bool:
        """What a check says of an entry that was served, or a person, who `is_sure`. One that is not trusted any more
        is dropped; whether it was. Raises CacheUnavailable."""
        self._checked(is_right)
        after = None if is_sure and not is_right else self._meanings.after_check(entry, is_right)
        if after is None:
            return await self.drop(Selection(id=entry.id)) > 0
        await self.keep(after)
        return False

    async def same_answer(self, one: str, other: str) -> bool | None:
        """Whether two answers say the same; None if that is not known."""
        return await self._meanings.same_answer(one, other)

    def start(self) -> None:
        """Load what finds questions that mean the same, if the configuration asks for that."""
        config = self._settings.config.cache
        if config.enabled and (config.semantic.enabled or any(rule.semantic for rule in config.rules)):
            self._meanings.want(config.semantic)

    async def entries(self, which: Selection, after: str = "") -> AsyncIterator[CacheEntry]:
        """In order of their ids, those that can be read. Raises CacheUnavailable."""
        while rows := await self.store.page(which, after, _PAGE):
            for row in rows:
                try:
                    yield of_row(row, self._sealer)
                except Unreadable as error:
                    log.warning("entry %s of the cache: %s", row.id[:16], error)
            after = rows[-1].id

    async def totals(self) -> list[Total]:
        """Raises CacheUnavailable."""
        return list(await self.store.totals())

    async def tidy(self) -> None:
        """Raises CacheUnavailable."""
        config = self._settings.config.cache
        self._memory.resize(config.memory_mib * _MIB)
        now = self._clock()
        self._memory.drop_where(lambda entry: entry.until <= now)
        await self.store.tidy(now, config.max_mib * _MIB)

    def refresh(self, id: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Ask again in the background, once at a time for one entry."""
        if id in self._refreshes or len(self._refreshes) >= _MOST_REFRESHES:
            return

        async def run() -> None:
            try:
                await work()
            except McpgateError as error:
                log.info("an entry of the cache was not refreshed: %s", error.message)
            except Exception:
                log.exception("an entry of the cache was not refreshed")
            finally:
                del self._refreshes[id]

        self._refreshes[id] = asyncio.create_task(run())

    async def stop(self) -> None:
        """End what asks again."""
        refreshes = list(self._refreshes.values())
        for task in refreshes:
            task.cancel()
        await asyncio.gather(*refreshes, return_exceptions=True)
        await self._meanings.aclose()

    async def aclose(self) -> None:
        """Write what is to be written."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._holding:
            _, late = await asyncio.wait(tuple(self._holding), timeout=_LONGEST_LOOK_S)
            for task in late:  # its claim ends by itself
                task.cancel()
        await self.store.close()

    async def _look_at_epoch(self) -> None:
        """Forget what is in memory if another process has dropped something. Whoever asks first after a while waits
        for it."""
        age_s = time.monotonic() - self._epoch_at
        if not self.store.outlives or age_s <= _EPOCH_S:
            return
        if self._learning is None or self._learning.done():
            self._learning = self.later(self._learn_epoch())
        if age_s > _OLD_EPOCH_S:
            await asyncio.wait((self._learning,), timeout=_LONGEST_LOOK_S)

    async def _learn_epoch(self) -> None:
        began = time.monotonic()
        try:
            epoch = await self.store.epoch()
        except CacheUnavailable as error:
            self._lost_store(error)
            return
        finally:
            self._epoch_at = began
        if epoch != self._epoch:
            self._forget()
        self._epoch = epoch

    def now(self) -> float:
        """Epoch seconds."""
        return self._clock()

    def later(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Do something apart from the request; it is waited for at the end."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _lost_store(self, error: CacheUnavailable) -> None:
        if not self._is_away:
            log.warning("the cache is away, so every request is a miss: %s", error.message)
        self._is_away = True

    def _found_store(self) -> None:
        if self._is_away:
            log.warning("the cache is back")
        self._is_away = False
