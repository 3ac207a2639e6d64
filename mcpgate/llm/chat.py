"""One request of a client for a model: which targets it may go to, and who answers it.

The request as a whole is admitted first (rate limits), then each attempt (money). An attempt that fails before its
answer has begun is repeated, or the next target is taken; after that nothing is. What clients and providers write is
known to api/llm/ and providers/.
"""

import asyncio
import dataclasses
import hashlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

from mcpgate.cache.cache import Hit, Miss
from mcpgate.catalog.catalog import nearest
from mcpgate.config.llm import LlmConfig
from mcpgate.config.settings import Settings
from mcpgate.errors import (
    BudgetExceeded,
    InvalidRequest,
    McpgateError,
    NotAllowed,
    PreviousResponseNotFound,
    RateLimited,
    UnknownModel,
)
from mcpgate.governance.admission import Admission
from mcpgate.governance.callers import Caller
from mcpgate.governance.context import RequestContext
from mcpgate.governance.gate import Gate
from mcpgate.governance.records import Kind, Request, Saved, Usage
from mcpgate.llm.asked import COUNTS, EMBEDS, Asked
from mcpgate.llm.attempt import SHOWN_ERROR, Attempt, Failed, Streamed, Whole
from mcpgate.llm.batches import BatchStore
from mcpgate.llm.bound import bound
from mcpgate.llm.cached import CachedAnswers, ModelQuestion, Recorder
from mcpgate.llm.guarded import Guarded, guarded_request, guarded_stored
from mcpgate.llm.guardrails import About, Guardrails
from mcpgate.llm.heard import Heard
from mcpgate.llm.metering import Ratios
from mcpgate.llm.objects import Kept, Objects, ObjectsUnavailable
from mcpgate.llm.provider import Call, Provider, Unreachable
from mcpgate.llm.registry import Providers
from mcpgate.llm.routing import Qualities, Routes, Step, Target, resolve
from mcpgate.llm.speeds import Speeds
from mcpgate.llm.targets import Targets
from mcpgate.llm.wire import Finish, Translator
from mcpgate.telemetry.text import one_line

_EXPECTED_OUTPUT = 4096
"""Tokens that are reserved where a client names no limit."""
_LEAST_CLAMPED = 16
"""Tokens that an answer must have room for, if its limit is lowered to what the budget holds."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 8.0
"""Between two attempts at one target."""
_LONGEST_RETRY_AFTER_S = 30.0
"""A provider that asks for a longer pause is not waited for."""
log = logging.getLogger("mcpgate.llm")


@dataclass(slots=True)
class Answered:
    """Who has answered a request, and what."""

    target: Target
    attempts: int
    what: Whole | Streamed
    cache: str = "off"
    """How the cache answered it: exact, semantic, miss; off if it was not asked."""
    hit: Hit | None = None
    question: ModelQuestion | None = None
    """What was asked of the cache."""


class Chat:
    """Answers requests for models. One for the whole gateway."""

    def __init__(
        self,
        settings: Settings,
        gate: Gate,
        providers: Providers,
        translator: Callable[[], Translator],
        objects: Objects,
        batches: BatchStore,
        cached: CachedAnswers,
    ) -> None:
        """`translator`: asked for when it is first needed. `objects`: what providers keep for whom."""
        self.objects, self.batches, self.cached = objects, batches, cached
        self._settings, self._gate, self.providers, self._translator = settings, gate, providers, translator
        self._health, self._ratios, self._speeds = Targets(), Ratios(), Speeds()
        self._standing = _Standing(self._speeds, providers)
        self._routes = Routes(LlmConfig(), self._standing)
        self._guardrails = Guardrails(LlmConfig())

    @property
    def config(self) -> LlmConfig:
        return self._settings.config.llm

    def routes(self) -> Routes:
        """Of the configuration as it stands."""
        self._refresh()
        return self._routes

    def _refresh(self) -> None:
        config = self.config
        if self._routes.config is not config:
            if self._routes.config.guardrails != config.guardrails:
                self._guardrails = Guardrails(config)
            self._routes = Routes(config, self._standing)

    async def guarded(self, asked: Asked, caller: Caller) -> tuple[Asked, About | None]:
        """A request as the guardrails let it through, and what they are told about it; None without guardrails. Raises
        Blocked."""
        self._refresh()
        if not self._guardrails:
            return asked, None
        about = About(caller, asked.model, asked.format)
        return await guarded_request(asked, self._guardrails, about), about

    async def bound(self, caller: Caller, asked: Asked) -> Asked:
        """A request, bound to the provider that keeps what it names. Raises NotFound for what is not the caller's own,
        InvalidRequest, ObjectsUnavailable."""
        asked = await bound(self.objects, caller.account, asked)
        if asked.kept is not None and asked.kept.provider not in self.config.providers:
            raise PreviousResponseNotFound(f"the provider {asked.kept.provider!r} is no longer configured")
        return asked

    async def guarded_stored(self, body: bytes, caller: Caller, kept: Kept) -> bytes:
        """What a provider has kept, as the guardrails let it through now. Raises Blocked."""
        self._refresh()
        if not self._guardrails:
            return body
        about = About(caller, kept.alias or f"{kept.provider}/{kept.model}", "responses")
        return await guarded_stored(body, self._guardrails, about)

    def names(self, caller: Caller) -> list[str]:
        """The models that a caller may ask for: aliases, and what they lead to."""
        routes = self.routes()
        found = {name: None for name in routes.config.models if self.may_use(caller, name)}
        for name in routes.config.models:
            for target in routes.all_of(name):
                if caller.grants.allow_model(target.provider, target.name):
                    found[target.name] = None
        return list(found)

    def serves(self, caller: Caller, asked: Asked) -> bool:
        """Whether the first target of a request speaks its format itself. Raises UnknownModel, NotAllowed."""
        _, targets = self.plan(caller, asked)
        provider = self.providers.all().get(targets[0].provider)
        return provider is not None and asked.format in provider.formats

    def explain(
        self, caller: Caller, asked: Asked, budget_used: float | None = None
    ) -> tuple[list[Target], list[Step]]:
        """Where a request would go, and why. Raises UnknownModel, NotAllowed."""
        steps: list[Step] = []
        _, targets = self.plan(caller, asked, steps, budget_used)
        usable, _ = self.sort_by_health(targets)
        for target in targets:
            if target not in usable:
                steps.append(Step(target.name, False, f"it rests for {self._health.rests_for_s(target.name):.0f} s"))
        return list(usable), steps

    def health(self) -> list[dict[str, Any]]:
        """Every target of the aliases, and how it fares."""
        routes = self.routes()
        names = dict.fromkeys(target.name for alias in routes.config.models for target in routes.all_of(alias))
        return [
            {
                "target": name,
                "rests_s": round(self._health.rests_for_s(name), 1),
                "typical_ms": None if (ms := self._speeds.typical_ms(name)) is None else round(ms, 1),
            }
            for name in names
        ]

    def estimate(self, caller: Caller, asked: Asked, most: int | None = None) -> Usage:
        """What a request takes at most, as far as that is known. `most`: tokens of one answer, where the client has
        named no limit."""
        tokens = self._ratios.input_tokens(caller.account, asked.model, asked.size)
        media = {"media_input_tokens": asked.size.media_tokens} if asked.size.media_tokens else {}
        if asked.format in EMBEDS or asked.format in COUNTS:
            return Usage(input_tokens=tokens, more=media)
        most = (asked.max_tokens or most or _EXPECTED_OUTPUT) * asked.answers
        return Usage(input_tokens=tokens, output_tokens=most, more={**media, "media_output_tokens": most})

    def answering(self, context: RequestContext, asked: Asked) -> "Answering":
        """An asynchronous context manager, which gives the answer of the first target that has one; while the block
        runs it is being read, and at its end it is paid for. Raises UnknownModel, NotAllowed, Untranslatable, the
        gate's refusals, UpstreamError, UpstreamTimeout."""
        return Answering(self, context, asked)

    def plan(
        self, caller: Caller, asked: Asked, steps: list[Step] | None = None, budget_used: float | None = None
    ) -> tuple[str, list[Target]]:
        """The alias or `provider/model` that is asked for, and its targets, best first. `steps` gets the reasons.
        Raises UnknownModel, NotAllowed."""
        config = self.config
        name = resolve(config, asked.model)
        if name is None:
            near = nearest(asked.model, self.names(caller))
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise UnknownModel(f"there is no model {one_line(asked.model, 200)!r}{hint}", nearest=near)
        if name in config.models and not self.may_use(caller, name):
            raise NotAllowed(f"the model {name!r} is not granted to this key", key=caller.id, model=name)
        targets = self._targets_of(name, caller, asked, budget_used, steps)
        if name not in config.models:
            targets = [one for one in targets if caller.grants.allow_model(one.provider, one.name)]
            if not targets:
                raise NotAllowed(f"the model {name!r} is not granted to this key", key=caller.id, model=name)
        if asked.kept is not None:
            targets = self._of_kept(caller, name, targets, asked.kept)
        if not targets:
            raise UnknownModel(f"no route of the model {name!r} takes this request", nearest=[])
        return name, targets

    def may_use(self, caller: Caller, name: str) -> bool:
        return caller.grants.allow_model(None, name)

    def _of_kept(self, caller: Caller, name: str, targets: list[Target], kept: Kept) -> list[Target]:
        """The targets of a request that goes on with what a provider keeps: what made it, else those of its name at
        that provider. Raises NotAllowed, InvalidRequest."""
        here = [target for target in targets if target.provider == kept.provider]
        if name not in self.config.models or not kept.model:
            if not here:
                what = f"{kept.kind} {kept.id!r} is at the provider {kept.provider!r}, where {name!r} does not lead"
                raise InvalidRequest(what, field="model")
            return here
        made = (kept.provider, kept.model)
        if found := [one for one in self.routes().all_of(name) if (one.provider, one.model) == made]:
            return found[:1]
        if here:
            return here
        target = Target(*made)
        if not caller.grants.allow_model(kept.provider, target.name):
            raise NotAllowed(f"the model {target.name!r} is not granted to this key", key=caller.id, model=target.name)
        return [target]

    def may_use_provider(self, caller: Caller, provider: str) -> bool:
        """Whether a caller may use any model of a provider, by its name or through an alias."""
        return caller.grants.allow_provider(provider) or any(
            self.may_use(caller, name) and any(target.provider == provider for target in self.routes().all_of(name))
            for name in self.config.models
        )

    def cheaper(
        self, caller: Caller, asked: Asked, name: str, budget_used: float | None
    ) -> tuple[str, list[Target]] | None:
        """Where a request goes that the budget for its alias does not hold."""
        other = self.config.models[name].on_budget if name in self.config.models else None
        if other is None or not self.may_use(caller, other):
            return None
        targets = self._targets_of(other, caller, asked, budget_used)
        if asked.kept is not None:
            targets = [target for target in targets if target.provider == asked.kept.provider]
        return (other, targets) if targets else None

    async def budget_used(self, context: RequestContext, asked: Asked) -> float | None:
        """The share of the fullest budget that applies, if any route looks at it."""
        if not self.routes().looks_at_budgets:
            return None
        return await self._gate.budget_used(context, Request("chat", model=asked.model, estimate=Usage()))

    def _targets_of(
        self,
        name: str,
        caller: Caller,
        asked: Asked,
        budget_used: float | None,
        steps: list[Step] | None = None,
    ) -> list[Target]:
        routes = self.routes()
        if steps is None and (fixed := routes.fixed(name)) is not None:
            return fixed
        about = Qualities(
            *(caller, asked.model, asked.stream, asked.tools, asked.images, asked.session),
            usage=self.estimate(caller, asked),
            budget_used=budget_used,
            at=time.time(),
        )
        return routes.plan(name, about, steps)

    # --- attempts

    def admit(self, context: RequestContext, kind: Kind, name: str) -> Admission:
        """Of a request as a whole."""
        return self.admit_request(context, Request(kind, model=name, estimate=Usage()))

    def admit_request(self, context: RequestContext, request: Request) -> Admission:
        return self._gate.admit(context, request)

    def refused(self, context: RequestContext, request: Request, error: McpgateError) -> None:
        """Say in the request log that a request was refused, though by no limit."""
        self._gate.refused(context, request, error)

    @property
    def guardrails(self) -> Guardrails:
        return self._guardrails

    @property
    def counts_hits(self) -> bool:
        """Whether answers of the cache count in limits on requests."""
        return self._settings.config.cache.count_hits

    async def teach(self, caller: Caller, asked: Asked, answer: bytes) -> bool:
        """Keep an answer to a request in the cache, as if a provider had given it; False if it may not be kept. Raises
        UnknownModel, NotAllowed."""
        name, targets = self.plan(caller, asked)
        return await self.cached.teach(caller, asked, name, targets[0], answer)

    def refresh(self, question: ModelQuestion, hit: Hit, caller: Caller, asked: Asked) -> None:
        """Ask again in the background for what the cache has answered. The request is admitted and paid for like any
        other. If the question was another one, the answers are compared."""
        again = dataclasses.replace(asked, cache=asked.cache._replace(mode="refresh"))

        async def ask() -> None:
            async with self.answering(RequestContext(caller), again) as answer:
                if isinstance(answer.what, Streamed):
                    async for _ in answer.what.events:
                        pass
            if hit.is_checked:
                await self.cached.check(question, hit)

        self.cached.refresh(question.id, ask)

    def sort_by_health(self, targets: Sequence[Target]) -> tuple[Sequence[Target], list[dict[str, Any]]]:
        """The targets that do not rest, and why the others are left out; all of them if all rest."""
        rested = [target for target in targets if not self._health.may_try(target.name)]
        if not rested or len(rested) == len(targets):
            return targets, []
        left_out = [{"target": target.name, "reason": "it rests after failures"} for target in rested]
        return [target for target in targets if target not in rested], left_out

    async def attempt(
        self, context: RequestContext, asked: Asked, kind: Kind, alias: str, target: Target, about: About | None = None
    ) -> tuple[Attempt, Whole | Streamed]:
        """One request to one target, which is still open. `about`: for the guardrails, if there are any. Raises
        Failed, Untranslatable, Blocked, the gate's refusals."""
        provider = self.providers.all().get(target.provider)
        if provider is None:
            raise Failed("connection", Unreachable(f"there is no provider {target.provider!r}"))
        try:
            call, finish, estimate, admission = await self._admitted(context, asked, kind, alias, target, provider)
        except BudgetExceeded as error:
            most = await self._affordable(context, asked, kind, alias, target)
            if most is None and target.falls_back("budget"):
                raise Failed("budget", error) from error
            if most is None:
                raise
            admitted = await self._admitted(context, asked, kind, alias, target, provider, most)
            call, finish, estimate, admission = admitted
        except RateLimited as error:
            raise Failed("limit", error) from error
        attempt = Attempt(admission, target, asked, call, estimate, self._ratios, self.providers.prices(), self._speeds)
        self._health.began(target.name)
        if asked.format == "responses" and provider.keeps_objects and asked.parsed.get("store") is not False:
            attempt.keep = partial(self._keep, context.caller.account, alias, target)
        try:
            if about is not None:
                finish = attempt.guarded = Guarded(finish, self._guardrails, about)
            what = await attempt.send(provider, finish)
            if attempt.guarded is not None and isinstance(what, Whole):
                await attempt.guarded.after()
        except Failed as failed:
            if failed.reason in ("timeout", "connection") or failed.reason[:1] == "5":
                self._health.failed(target.name)
            else:
                self._health.ended(target.name)
            admission.outcome, admission.facts["reason"] = failed.error.code, failed.reason
            await attempt.aclose()
            raise
        except BaseException as error:
            self._health.ended(target.name)
            await attempt.aclose(error)
            raise
        self._health.succeeded(target.name)
        return attempt, what

    async def _keep(self, account: str, alias: str, target: Target, id: str, key: str) -> None:
        kept = Kept("response", id, account, target.provider, target.model, _if_alias(alias, target), key, time.time())
        try:
            await self.objects.put(kept)
        except ObjectsUnavailable as error:  # the answer has been paid for, and is good without
            log.warning("response %s of %s cannot be asked for later: %s", id, target.name, error)

    async def _admitted(
        self,
        context: RequestContext,
        asked: Asked,
        kind: Kind,
        alias: str,
        target: Target,
        provider: Provider,
        most: int | None = None,
    ) -> tuple[Call, Finish, Usage, Admission]:
        """What the provider is to be sent, once that is admitted. `most`: tokens that the answer may have, instead of
        what the client said."""
        model = self.config.models.get(alias)
        cache_key = ""
        if model is not None and model.prompt_cache:
            whose = f"{context.caller.account}\n{asked.session}"
            cache_key = "mcpgate-" + hashlib.sha256(whose.encode()).hexdigest()[:32]
        call, finish = self._translator().call_for(provider, asked, target, most, cache_key)
        estimate = self._estimate_of(context.caller, asked, call, most)
        admission = self._gate.admit(context, self.attempt_request(context, kind, alias, target, estimate))
        if name := _if_alias(alias, target):
            admission.facts["alias"] = name
        await admission.__aenter__()
        if headers := admission.trace_headers:
            call = call._replace(headers={**call.headers, **headers})
        return call, finish, estimate, admission

    def _estimate_of(self, caller: Caller, asked: Asked, call: Call, most: int | None) -> Usage:
        if most is None:
            return self.estimate(caller, asked, call.max_tokens)
        return self.estimate(caller, dataclasses.replace(asked, max_tokens=most))

    @staticmethod
    def attempt_request(context: RequestContext, kind: Kind, alias: str, target: Target, estimate: Usage) -> Request:
        return Request(
            kind,
            provider=target.provider,
            model=target.model,
            alias=_if_alias(alias, target) or None,
            estimate=estimate,
            parent_id=None if context.parent is None else context.parent.request.id,
        )

    async def _affordable(
        self, context: RequestContext, asked: Asked, kind: Kind, alias: str, target: Target
    ) -> int | None:
        """How many tokens an answer may have with what is left of the budgets, if its alias is clamped to that and it
        is enough for an answer."""
        if (
            kind != "chat"
            or asked.format == "compact"
            or alias not in self.config.models
            or not self.config.models[alias].clamp
        ):
            return None
        request = self.attempt_request(context, kind, alias, target, self.estimate(context.caller, asked))
        price = self.providers.prices().of(target.provider, target.model, alias=request.alias)
        left = (await self._gate.headroom(context, request)).get("cost")
        if price is None or left is None:
            return None
        most = price.affordable_output(request.estimate, left) // asked.answers
        return most if _LEAST_CLAMPED <= most * asked.answers < request.estimate.output_tokens else None


def _if_alias(name: str, target: Target) -> str:
    return name if name != target.name else ""


class _Standing:
    """What is known of targets by now: see routing.Standing."""

    def __init__(self, speeds: Speeds, providers: Providers) -> None:
        self._speeds, self._providers = speeds, providers

    def by_speed(self, alias: str, targets: Sequence[Target]) -> Sequence[Target]:
        return self._speeds.order(alias, targets)

    def speed_ms(self, target: Target) -> float | None:
        return self._speeds.typical_ms(target.name)

    def cost(self, target: Target, usage: Usage) -> int | None:
        return self._providers.prices().cost(target.provider, target.model, usage)

    def context_tokens(self, target: Target) -> int | None:
        known = self._providers.prices().context_tokens(target.provider, target.model)
        return known if target.context_tokens is None else target.context_tokens


class Answering:
    """One request of a client while it is answered. See Chat.answering."""

    def __init__(self, chat: Chat, context: RequestContext, asked: Asked) -> None:
        self._chat, self._context, self._asked = chat, context, asked
        self._kind: Kind = "embedding" if asked.format in EMBEDS else "chat"
        self._attempt: Attempt | None = None
        self._about: About | None = None
        self._recorder: Recorder | None = None
        """Keeps the answer, if the cache was asked and had none."""
        self._heard: Heard | None = None

    async def __aenter__(self) -> Answered:
        chat, caller, asked = self._chat, self._context.caller, self._asked
        del self._asked  # an answer may take long, and is not asked for again
        budget_used = await chat.budget_used(self._context, asked)
        try:
            name, targets = chat.plan(caller, asked, budget_used=budget_used)
        except McpgateError as error:
            chat.refused(self._context, Request(self._kind, model=one_line(asked.model, 200)), error)
            raise
        whole = self._whole = chat.admit(self._context, self._kind, name)
        await whole.__aenter__()
        try:
            if asked.session:
                whole.facts["session"] = asked.session[:200]
            asked, self._about = await chat.guarded(asked, caller)
            whole.note_sent(lambda: asked.body)
            if (answer := await self._cached(asked, name, targets)) is not None:
                self._note_answer(answer)
                return answer
            answer = await self._asked_of(asked, name, targets, budget_used)
            whole.facts["attempts"] = str(answer.attempts)
            self._note_answer(answer)
        except BaseException as error:
            if self._recorder is not None:
                self._recorder.end(error)
            await whole.__aexit__(type(error), error, error.__traceback__)
            raise
        return answer

    async def _asked_of(
        self, asked: Asked, name: str, targets: Sequence[Target], budget_used: float | None
    ) -> Answered:
        """The first answer of a target, or of one of the cheaper alias."""
        inside = self._context.inside(self._whole)
        try:
            answer = await self._first(inside, asked, name, targets)
        except BudgetExceeded:
            if (cheaper := self._chat.cheaper(self._context.caller, asked, name, budget_used)) is None:
                raise
            name, targets = cheaper
            answer = await self._first(inside, asked, name, targets)
        if self._recorder is not None and answer.hit is None:
            answer.cache, answer.question = "miss", self._recorder.question
            if self._attempt is not None:
                answer.what = self._recorder.answered(answer.what, name, answer.target, self._attempt.admission)
        return answer

    async def _cached(self, asked: Asked, name: str, targets: Sequence[Target]) -> Answered | None:
        """The answer of the cache, if it has one. Raises Blocked, and BudgetExceeded where hits have a price."""
        chat, caller, whole = self._chat, self._context.caller, self._whole
        usable, _ = chat.sort_by_health(targets)
        question = await chat.cached.question(caller, asked, name, usable[0])
        if question is None:
            return None
        found = await chat.cached.find(question)
        if isinstance(found, Hit):
            if (answer := await self._served(found, question, asked, name)) is not None:
                return answer
            found = Miss()
        whole.cache = "miss"
        if found.would is not None:
            whole.facts["cache_would_be"] = found.would.how
        self._recorder = chat.cached.recorder(question, found, caller, asked)
        return None

    async def _served(self, hit: Hit, question: ModelQuestion, asked: Asked, name: str) -> Answered | None:
        """A hit, as the client gets it; None if its answer cannot be made of it."""
        chat = self._chat
        what = await chat.cached.answer(hit, asked, chat.guardrails, self._about)
        if what is None:
            return None
        await self._charge(hit, name)
        if question.policy.writes and (hit.is_stale or hit.is_checked):
            chat.refresh(question, hit, self._context.caller, asked)
        return Answered(Target(hit.entry.provider, hit.entry.model), 0, what, hit.how, hit, question)

    async def _cached_of(self, target: Target, asked: Asked, alias: str) -> Answered | None:
        """The answer of the cache for a target that a request has come to because others have failed."""
        if self._recorder is None:
            return None
        question = self._chat.cached.at(self._recorder.question, alias, target)
        hit = await self._chat.cached.look(question)
        return None if hit is None else await self._served(hit, question, asked, alias)

    async def _charge(self, hit: Hit, name: str) -> None:
        """What the ledger knows of a hit: what it saved, and what it costs."""
        whole, entry = self._whole, hit.entry
        part, cost = self._chat.cached.charge(hit)
        whole.counts_requests = self._chat.counts_hits
        if cost:
            target = Target(entry.provider, entry.model)
            request = self._chat.attempt_request(self._context.inside(whole), self._kind, name, target, part)
            async with self._chat.admit_request(self._context.inside(whole), request) as admission:
                admission.cost, admission.joins = cost, True
        whole.cache = hit.how
        whole.saved = Saved(model_tokens=entry.input_tokens + entry.output_tokens, cost=entry.cost - cost)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._attempt is not None:
                self._attempt.admission.joins = True
                await self._attempt.aclose(error)
        finally:
            if self._recorder is not None:
                self._recorder.end(error)
            if self._heard is not None and self._whole.content is not None:
                self._whole.content = self._whole.content._replace(answered=self._heard.raw, is_stream=True)
            await self._whole.__aexit__(kind, error, traceback)

    def _note_answer(self, answer: Answered) -> None:
        """Keep what is answered, if contents are kept."""
        what = answer.what
        if isinstance(what, Whole):
            self._whole.note_answered(lambda: what.body)
        elif self._whole.content is not None:
            self._heard = Heard(what.events, self._whole.content.most)
            what.events = self._heard.events()

    async def _first(self, context: RequestContext, asked: Asked, alias: str, targets: Sequence[Target]) -> Answered:
        """The first answer. Raises what the last attempt has failed with."""
        usable, attempts = self._chat.sort_by_health(targets)
        failed: Failed | None = None
        for target in usable:
            if failed is not None and (answer := await self._cached_of(target, asked, alias)) is not None:
                answer.attempts = len(attempts)
                return answer
            for retry in range(target.retries + 1):
                try:
                    self._attempt, what = await self._chat.attempt(
                        context, asked, self._kind, alias, target, self._about
                    )
                    return Answered(target, len(attempts) + 1, what)
                except Failed as error:
                    failed = error
                    attempts.append({"target": target.name, "reason": one_line(error.error.message, SHOWN_ERROR)})
                    log.info("%s: %s failed: %s", asked.model, target.name, attempts[-1]["reason"])
                    if retry == target.retries or not await _pause(error, retry):
                        break
            if failed is None or not target.falls_back(failed.reason):
                break
        assert failed is not None
        if failed.reply is not None:
            return Answered(target, len(attempts), failed.reply)
        failed.error.data["attempts"] = attempts
        raise failed.error


async def _pause(failed: Failed, retry: int) -> bool:
    """Wait before another attempt at the same target; whether there may be one."""
    if failed.reason == "limit" or (failed.reason[:1] == "4" and failed.reason not in ("408", "409", "425", "429")):
        return False
    if failed.wait_s is not None:
        if failed.wait_s > _LONGEST_RETRY_AFTER_S:
            return False
        await asyncio.sleep(failed.wait_s)
        return True
    await asyncio.sleep(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**retry) * random.uniform(0.5, 1.0))
    return True
