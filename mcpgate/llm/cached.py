"""The cache as the flow of models uses it: what a request asks of it, and what becomes of a hit and of a new answer."""

import asyncio
import contextlib
import dataclasses
import hashlib
import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mcpgate import jsontext
from mcpgate.cache.cache import Cache, Hit, Miss, Question
from mcpgate.cache.entry import CacheEntry
from mcpgate.cache.fingerprint import canonical, fingerprint, tenant_of
from mcpgate.cache.flights import Outcome
from mcpgate.cache.policy import Policy, decide
from mcpgate.cache.semantic.scope import is_personal, is_time_relative
from mcpgate.config.settings import Settings
from mcpgate.governance.admission import Admission
from mcpgate.governance.callers import Caller
from mcpgate.governance.records import Usage
from mcpgate.llm import questions, replay, texts
from mcpgate.llm.asked import EMBEDS, Asked
from mcpgate.llm.attempt import Streamed, Whole
from mcpgate.llm.guarded import guarded_answer
from mcpgate.llm.guardrails import About, Guardrails
from mcpgate.llm.metering import decoded
from mcpgate.llm.routing import Target, all_of

_LARGE = 128 * 1024
"""Bytes of a request or an answer beyond which it is looked at in a thread."""
_LONGEST_QUESTION = 2000
"""Characters of a question that others may mean the same by."""
_EVENTS_PER_WHOLE = 16
"""How much longer a stream may be than the answer that it says: an event takes some 200 bytes for a word."""
_MOST_RECORDED = 128 * 1024 * 1024
"""Bytes of all streams that are under way."""
_SLOWEST_READ_S = 5.0
"""How long a client may take for one event while others wait for the same answer."""
_MOST_PLACES = 1_000
"""Aliases with their targets that are remembered as fingerprints have them."""
log = logging.getLogger("mcpgate.llm")


@dataclass(frozen=True, slots=True)
class ModelQuestion(Question):
    """What a request for a model asks of the cache."""

    alias: str = ""
    deciding: bytes = b""
    """A digest of what decides its answer, beside who answers."""
    rest: bytes = b""
    """The same without the last turn of the user."""
    is_unambiguous: bool = True
    """Whether the provider reads the same as the gateway has."""


class CachedAnswers:
    """One for the whole gateway."""

    def __init__(self, cache: Cache, settings: Settings) -> None:
        self._cache, self._settings = cache, settings
        self._recorded = _Recorded()
        self._places: dict[tuple[str, str, str], bytes] = {}
        self._placed: object = None
        """The configuration that these are of."""

    # --- before a provider is asked

    async def question(self, caller: Caller, asked: Asked, alias: str, target: Target) -> ModelQuestion | None:
        """What a request asks of the cache; None if it is answered without. `target`: where it would go."""
        config = self._settings.config.cache
        if not config.enabled or not questions.may_be_cached(asked):
            return None
        policy = decide(config, asked.cache, caller, asked.model, asked.format, questions.is_safe(asked))
        if policy is None or len(asked.body) > config.max_entry_kib * 1024:
            return None
        try:
            if len(asked.body) <= _LARGE:
                return self._question(caller, asked, alias, target, policy)
            question = await asyncio.to_thread(self._question, caller, asked, alias, target, policy)
            if not policy.writes or await asyncio.to_thread(questions.is_unambiguous, asked.body, asked.parsed):
                return question
            return dataclasses.replace(question, is_unambiguous=False)
        except (ValueError, RecursionError):
            return None  # what cannot be written down in one way only has no fingerprint

    def _question(self, caller: Caller, asked: Asked, alias: str, target: Target, policy: Policy) -> ModelQuestion:
        words = "" if asked.format in EMBEDS else questions.last_words(asked)
        narrow = questions.holds_tool_calls(asked) or is_personal(words) or is_time_relative(words)
        tenant = tenant_of(caller, policy.scope, narrow)
        if questions.belongs_to_account(asked):
            tenant = f"account:{caller.account}\n{tenant}"
        goes_to = self._place(alias, target)
        deciding = hashlib.sha256(questions.deciding(asked)).digest()
        id = fingerprint(tenant, goes_to, deciding)
        turn = None
        if policy.semantic and words and not (narrow or asked.tools or asked.answers > 1):
            turn = questions.last_turn(asked, _LONGEST_QUESTION)
        if turn is None:
            return ModelQuestion(id, tenant, policy, alias=alias, deciding=deciding)
        rest = hashlib.sha256(turn.rest).digest()
        partition = fingerprint(tenant, goes_to, rest)
        return ModelQuestion(id, tenant, policy, partition, turn.text, alias, deciding, rest)

    def _place(self, alias: str, target: Target) -> bytes:
        """Who answers: the model, at the address that its provider has now, with the headers that it gets from the
        configuration; of an alias whose targets share answers, all of them."""
        if self._placed is not self._settings.config:
            self._placed, self._places = self._settings.config, {}
        key = (alias, target.provider, target.model)
        found = self._places.get(key)
        if found is None:
            if len(self._places) > _MOST_PLACES:  # clients name models of a provider as they like
                self._places.clear()
            found = self._places[key] = self._written_place(alias, target)
        return found

    def _written_place(self, alias: str, target: Target) -> bytes:
        config = self._settings.config
        if not config.cache.share_targets or alias not in config.llm.models:
            return canonical(self._whereabouts(target))
        return canonical([alias, *sorted(map(self._whereabouts, all_of(config.llm, alias)))])

    def _whereabouts(self, target: Target) -> list[str]:
        provider = self._settings.config.llm.providers.get(target.provider)
        if provider is None:
            return [target.provider, target.model]
        headers = canonical(provider.headers).decode()
        return [target.provider, target.model, provider.type, provider.address, headers]

    async def find(self, question: ModelQuestion) -> Hit | Miss:
        if not self._settings.config.cache.shadow:
            return await self._cache.find(question)
        miss = Miss()
        if question.policy.reads:
            miss.would = await self._cache.look(question) or await self._cache.look_alike(question)
        return miss

    def at(self, question: ModelQuestion, alias: str, target: Target) -> ModelQuestion:
        """The same question to another target. Only equal requests have its answers."""
        id = fingerprint(question.tenant, self._place(alias, target), question.deciding)
        return dataclasses.replace(question, id=id, partition="", text="")

    async def look(self, question: ModelQuestion) -> Hit | None:
        """The answer to an equal request, without waiting for one that is under way."""
        shadow = self._settings.config.cache.shadow
        return await self._cache.look(question) if question.policy.reads and not shadow else None

    # --- a hit

    async def answer(
        self, hit: Hit, asked: Asked, guardrails: Guardrails, about: About | None
    ) -> Whole | Streamed | None:
        """What the client gets for a hit; None if it cannot be made of it. Raises Blocked."""
        body = hit.entry.body
        if about is not None:
            body = await guarded_answer(body, guardrails, about)
        if not asked.stream:
            return Whole(200, body)
        try:
            if len(body) > _LARGE:
                events = await asyncio.to_thread(_taken_apart, asked, body)
            else:
                events = _taken_apart(asked, body)
        except replay.NotWhole as error:
            log.warning("an entry of the cache cannot be streamed: %s", error)
            return None
        return Streamed(_each(events), lambda error: (), holds_request=False)

    def charge(self, hit: Hit) -> tuple[Usage, int]:
        """What a hit counts as in budgets, and what it costs, in nano-dollars."""
        share, entry = self._settings.config.cache.hit_cost_share, hit.entry
        part = Usage(
            input_tokens=math.ceil(entry.input_tokens * share), output_tokens=math.ceil(entry.output_tokens * share)
        )
        return part, math.ceil(entry.cost * share)

    def refresh(self, id: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Ask again in the background, once at a time for one entry."""
        self._cache.refresh(id, work)

    async def check(self, question: ModelQuestion, hit: Hit) -> None:
        """Compare what was served with the fresh answer, if that was kept. Raises CacheUnavailable."""
        fresh = await self._cache.look_up(question.id) if await self._cache.has(question.id) else None
        if fresh is None or fresh.entry.id == hit.entry.id:
            return
        is_right = await self._cache.same_answer(_said(fresh.entry.body), _said(hit.entry.body))
        if is_right is not None:
            await self._cache.judge(hit.entry, is_right)

    # --- a miss

    async def teach(self, caller: Caller, asked: Asked, alias: str, target: Target, answer: bytes) -> bool:
        """Keep an answer that no provider was asked for; False if it may not be kept."""
        question = await self.question(caller, asked, alias, target)
        if question is None:
            return False
        recorder = self.recorder(question, Miss(), caller, asked)
        return await recorder.learn(answer, target, Usage(), 0)

    def recorder(self, question: ModelQuestion, miss: Miss, caller: Caller, asked: Asked) -> "Recorder":
        """What keeps the answer if it may be kept, and tells those who wait for it."""
        is_kept = question.policy.writes and question.is_unambiguous
        if len(asked.body) <= _LARGE:  # else that was looked at in a thread
            is_kept = is_kept and questions.is_unambiguous(asked.body, asked.parsed)
        if not is_kept:
            miss.land(Outcome.NOT_KEPT)
        about = (question, miss, caller.id, asked.format, is_kept)
        return Recorder(self._cache, self._settings, self._recorded, self._place, *about)


class Recorder:
    """Keeps the answer to one question."""

    def __init__(
        self,
        cache: Cache,
        settings: Settings,
        recorded: "_Recorded",
        place: Callable[[str, Target], bytes],
        question: ModelQuestion,
        miss: Miss,
        key: str,
        format: str,
        is_kept: bool,
    ) -> None:
        self._cache, self._settings, self._recorded_now, self._place = cache, settings, recorded, place
        self.question, self._miss, self._key, self._format, self._is_kept = question, miss, key, format, is_kept
        self._is_done = False
        self._alias = question.alias

    def answered(self, what: Whole | Streamed, alias: str, target: Target, admission: Admission) -> Whole | Streamed:
        """The answer as the client is to get it. `alias`: what has led to the target, which is another one than what
        was asked for if the budget did not hold that."""
        if not self._is_kept:
            return what
        self._alias = alias
        if isinstance(what, Streamed):
            return dataclasses.replace(what, events=self._recorded(what.events, target, admission))
        if what.status == 200 and len(what.body) <= self._settings.config.cache.max_entry_kib * 1024:
            self._keep(what.body, target, admission)
        return what

    def end(self, error: BaseException | None) -> None:
        """The request is over."""
        if not self._is_done:
            self._miss.land(Outcome.NOT_KEPT if error is None else Outcome.FAILED)

    async def _recorded(
        self, events: AsyncIterator[bytes], target: Target, admission: Admission
    ) -> AsyncGenerator[bytes, None]:
        kept: list[bytes] = []
        size, most = 0, self._settings.config.cache.max_entry_kib * 1024 * _EVENTS_PER_WHOLE
        reader = _Reader(self._miss)
        try:
            async with contextlib.aclosing(events):  # type: ignore[type-var]
                async for event in events:
                    if self._is_kept and size + len(event) <= most and self._recorded_now.takes(len(event)):
                        kept.append(event)
                        size += len(event)
                    elif self._is_kept:
                        self._is_kept = False
                        self._miss.land(Outcome.NOT_KEPT)
                    reader.since = time.monotonic()
                    yield event
                    reader.since = None
            if self._is_kept and admission.outcome == "ok":
                self._keep(kept, target, admission, recorded=size)
                size = 0
        finally:
            reader.stop()
            self._recorded_now.bytes -= size

    def _keep(self, said: bytes | list[bytes], target: Target, admission: Admission, recorded: int = 0) -> None:
        """Once it is clear that an answer is whole. It is put together apart from the request. `recorded`: its bytes,
        if they are counted among those of streams."""
        self._is_done = True
        usage, cost = admission.usage, admission.price() or 0

        async def work() -> None:
            try:
                await self.learn(said, target, usage, cost)
            finally:
                self._recorded_now.bytes -= recorded

        self._cache.later(work())

    async def learn(self, said: bytes | list[bytes], target: Target, usage: Usage, cost: int) -> bool:
        """Keep an answer, or the events of one, if it may be kept; whether it was. `cost`: nano-dollars."""
        outcome = Outcome.NOT_KEPT
        try:
            size = len(said) if isinstance(said, bytes) else sum(map(len, said))
            work = partial(_whole, self._format, said, usage, self._settings.config.cache.tool_calls)
            body = await asyncio.to_thread(work) if size > _LARGE else work()
            question, config = self.question, self._settings.config.cache
            if not self._is_kept or body is None or len(body) > config.max_entry_kib * 1024:
                return False
            place = self._place(self._alias, target)
            id = fingerprint(question.tenant, place, question.deciding)
            partition = fingerprint(question.tenant, place, question.rest) if question.partition else ""
            now = self._cache.now()
            entry = CacheEntry(
                *(id, "embedding" if self._format in EMBEDS else "chat", question.tenant, body),
                at=now,
                fresh_until=now + question.policy.ttl_s,
                until=now + question.policy.ttl_s + config.stale_s,
                key=self._key,
                provider=target.provider,
                model=target.model,
                tags=question.policy.tags,
                partition=partition,
                question=question.text,
                cost=cost,
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
            )
            # Under another fingerprint if another target has answered than the one that equal requests would go to.
            outcome = Outcome.KEPT if id == question.id else Outcome.NOT_KEPT
            await self._cache.keep(entry)
            would = self._miss.would
            if would is not None and would.similarity is not None:
                is_right = await self._cache.same_answer(_said(body), _said(would.entry.body))
                if is_right is not None:
                    await self._cache.judge(would.entry, is_right)
            return True
        finally:
            self._miss.land(outcome)


class _Reader:
    """The client that reads an answer for which others wait: if it stops reading, one of them asks."""

    def __init__(self, miss: Miss) -> None:
        self._miss = miss
        self.since: float | None = None
        """Since when it has been reading one event; None while the provider is waited for."""
        self._look_later()

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_SLOWEST_READ_S / 2, self._look)

    def _look(self) -> None:
        if self.since is not None and time.monotonic() - self.since > _SLOWEST_READ_S:
            self._miss.land(Outcome.FAILED)
        else:
            self._look_later()

    def stop(self) -> None:
        self._timer.cancel()


class _Recorded:
    """How much of streams that are under way is kept."""

    def __init__(self) -> None:
        self.bytes = 0

    def takes(self, size: int) -> bool:
        if self.bytes + size > _MOST_RECORDED:
            return False
        self.bytes += size
        return True


def _whole(format: str, said: bytes | list[bytes], usage: Usage, with_tools: bool) -> bytes | None:
    """The whole answer as it is kept; None for one that is not."""
    if isinstance(said, bytes):
        return said if replay.is_good(format, decoded(said), with_tools) else None
    try:
        answer = replay.whole(format, b"".join(said), usage)
    except replay.NotWhole as error:
        log.info("an answer is not kept: %s", error)
        return None
    return jsontext.dumps(answer) if replay.is_good(format, answer, with_tools) else None


def _said(body: bytes) -> str:
    """The text of a whole answer, in any format."""
    return "\n".join(texts.read(texts.of_answer(decoded(body))))


def _taken_apart(asked: Asked, body: bytes) -> list[bytes]:
    answer = decoded(body)
    if not isinstance(answer, dict):
        raise replay.NotWhole("it is no object")
    return replay.stream(asked.format, answer, asked.parsed)


async def _each(events: Sequence[bytes]) -> AsyncGenerator[bytes, None]:
    yield b"".join(events)
