"""One request of a client for a model: which targets it may go to, what it may cost, who answers it, what it did cost.

The request as a whole is admitted first (rate limits), then each attempt (money). An attempt that fails before its
answer has begun is repeated, or the next target is taken; after that nothing is. What clients and providers write is
known to api/llm/ and providers/.
"""

import asyncio
import contextlib
import dataclasses
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mcpgate.catalog.catalog import nearest
from mcpgate.config.llm import LlmConfig
from mcpgate.config.settings import Settings
from mcpgate.errors import (
    BudgetExceeded,
    McpgateError,
    NotAllowed,
    RateLimited,
    UnknownModel,
    UpstreamError,
    UpstreamTimeout,
)
from mcpgate.governance.admission import Admission
from mcpgate.governance.callers import Caller
from mcpgate.governance.context import RequestContext
from mcpgate.governance.gate import Gate
from mcpgate.governance.records import Kind, Request, Usage
from mcpgate.llm.asked import Asked
from mcpgate.llm.events import Events, EventTooLong, parts_of
from mcpgate.llm.metering import Meter, Ratios, decoded, delivered, usage_of
from mcpgate.llm.prices import ModelPrices
from mcpgate.llm.provider import Call, Reply, Unreachable, retry_after_s
from mcpgate.llm.registry import Providers
from mcpgate.llm.routing import Qualities, Step, Target, plan, resolve
from mcpgate.llm.targets import Targets
from mcpgate.llm.wire import Finish, Translator
from mcpgate.telemetry.text import one_line

_EXPECTED_OUTPUT = 4096
"""Tokens that are reserved where a client names no limit."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 8.0
"""Between two attempts at one target."""
_LONGEST_RETRY_AFTER_S = 30.0
"""A provider that asks for a longer pause is not waited for."""
_LONGEST_BEGINNING = 256 * 1024
"""Bytes of comments and pings before the first event of a stream."""
_SHOWN_ERROR = 500
_PASSED_ON = ("retry-after", "retry-after-ms", "x-should-retry")
"""Headers of a provider's error that its client hears."""
_OURS = (401, 402, 403)
"""What a provider says of the gateway's own key, which is none of the client's business."""
log = logging.getLogger("mcpgate.llm")


class HungUp(McpgateError):
    """The client is gone."""

    code = "cancelled"


class Failed(Exception):
    """An attempt that did not bring an answer. `reason`: a status, `timeout`, `connection` or `budget`."""

    def __init__(self, reason: str, error: McpgateError, reply: "Whole | None" = None, wait_s: float | None = None):
        super().__init__(error.message)
        self.reason, self.error, self.reply, self.wait_s = reason, error, reply, wait_s


@dataclass(slots=True)
class Whole:
    """An answer that is complete."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of the provider, that the client may see."""


@dataclass(slots=True)
class Streamed:
    """An answer that is being written."""

    events: AsyncIterator[bytes]
    """Whole server-sent events."""
    broken: Callable[[McpgateError], Iterable[bytes]]
    """What its client is told if it does not end well."""


@dataclass(slots=True)
class Answered:
    """Who has answered a request, and what."""

    target: Target
    attempts: int
    what: Whole | Streamed


class Chat:
    """Answers requests for models. One for the whole gateway."""

    def __init__(
        self,
        settings: Settings,
        gate: Gate,
        providers: Providers,
        translator: Callable[[], Translator],
    ) -> None:
        """`translator`: asked for when it is first needed."""
        self._settings, self._gate, self.providers, self._translator = settings, gate, providers, translator
        self._targets, self._ratios = Targets(), Ratios()

    @property
    def config(self) -> LlmConfig:
        return self._settings.config.llm

    def names(self, caller: Caller) -> list[str]:
        """The models that a caller may ask for: aliases, and what they lead to."""
        config = self.config
        about = Qualities(caller, "")
        found = {name: None for name in config.models if self._may_use_alias(caller, name)}
        for name in config.models:
            for target in plan(config, name, about):
                if caller.grants.allow_model(target.provider, target.name):
                    found[target.name] = None
        return list(found)

    def serves(self, caller: Caller, asked: Asked) -> bool:
        """Whether the first target of a request speaks its format itself. Raises UnknownModel, NotAllowed."""
        _, targets = self._plan(caller, asked, [])
        provider = self.providers.all().get(targets[0].provider)
        return provider is not None and asked.format in provider.formats

    def explain(self, caller: Caller, asked: Asked) -> tuple[list[Target], list[Step]]:
        """Where a request would go, and why. Raises UnknownModel, NotAllowed."""
        steps: list[Step] = []
        _, targets = self._plan(caller, asked, steps)
        return targets, steps

    def estimate(self, asked: Asked, most: int | None = None) -> Usage:
        """What a request takes at most, as far as that is known. `most`: tokens of one answer, where the client has
        named no limit."""
        tokens = self._ratios.input_tokens(asked.model, asked.size)
        if asked.format in ("embeddings", "count_tokens"):
            return Usage(input_tokens=tokens)
        most = asked.max_tokens or most or _EXPECTED_OUTPUT
        return Usage(input_tokens=tokens, output_tokens=most * asked.answers)

    @contextlib.asynccontextmanager
    async def answered(self, context: RequestContext, asked: Asked) -> AsyncIterator[Answered]:
        """The answer of the first target that gives one; while the block runs it is being read, and at its end it is
        paid for. Raises UnknownModel, NotAllowed, Untranslatable, the gate's refusals, UpstreamError,
        UpstreamTimeout."""
        name, targets = self._plan(context.caller, asked, [])
        kind: Kind = "embedding" if asked.format == "embeddings" else "chat"
        whole = Request(kind, model=name, estimate=Usage())
        async with self._gate.admit(context, whole) as parent, contextlib.AsyncExitStack() as stack:
            inside = context.inside(parent)
            parent.facts["session"] = asked.session[:200]
            try:
                answer = await self._first(stack, inside, parent, asked, name, targets)
            except BudgetExceeded:
                other = self.config.models[name].on_budget if name in self.config.models else None
                if other is None or not self._may_use_alias(context.caller, other):
                    raise
                targets = plan(self.config, other, self._qualities(context.caller, asked))
                answer = await self._first(stack, inside, parent, asked, other, targets)
            parent.facts["attempts"] = str(answer.attempts)
            yield answer

    # --- where to

    def _plan(self, caller: Caller, asked: Asked, steps: list[Step]) -> tuple[str, list[Target]]:
        config = self.config
        name = resolve(config, asked.model)
        if name is None:
            near = nearest(asked.model, self.names(caller))
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise UnknownModel(f"there is no model {one_line(asked.model, 200)!r}{hint}", nearest=near)
        if name in config.models and not self._may_use_alias(caller, name):
            raise NotAllowed(f"the model {name!r} is not granted to this key", key=caller.id, model=name)
        targets = plan(config, name, self._qualities(caller, asked), steps)
        if name not in config.models:
            targets = [one for one in targets if caller.grants.allow_model(one.provider, one.name)]
            if not targets:
                raise NotAllowed(f"the model {name!r} is not granted to this key", key=caller.id, model=name)
        if not targets:
            raise UnknownModel(f"no route of the model {name!r} takes this request", nearest=[])
        return name, targets

    def _may_use_alias(self, caller: Caller, name: str) -> bool:
        return caller.grants.allow_model(None, name)

    def _qualities(self, caller: Caller, asked: Asked) -> Qualities:
        return Qualities(caller, asked.model, asked.stream, asked.tools, asked.images, asked.session)

    # --- attempts

    async def _first(
        self,
        stack: contextlib.AsyncExitStack,
        context: RequestContext,
        parent: Admission,
        asked: Asked,
        alias: str,
        targets: Sequence[Target],
    ) -> Answered:
        """The first answer. Raises what the last attempt has failed with."""
        rested = [target for target in targets if not self._targets.may_try(target.name)]
        usable = [target for target in targets if target not in rested] or list(targets)
        attempts: list[dict[str, Any]] = [
            {"target": target.name, "reason": "it rests after failures"} for target in rested if target not in usable
        ]
        failed: Failed | None = None
        for target in usable:
            for retry in range(target.retries + 1):
                try:
                    what = await self._attempt(stack, context, asked, alias, target)
                    return Answered(target, len(attempts) + 1, what)
                except Failed as error:
                    failed = error
                    attempts.append({"target": target.name, "reason": one_line(error.error.message, _SHOWN_ERROR)})
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

    async def _attempt(
        self, stack: contextlib.AsyncExitStack, context: RequestContext, asked: Asked, alias: str, target: Target
    ) -> Whole | Streamed:
        """One request to one target; what it opens stays open in `stack` if it brings an answer. Raises Failed,
        Untranslatable, the gate's refusals."""
        provider = self.providers.all().get(target.provider)
        if provider is None:
            raise Failed("connection", Unreachable(f"there is no provider {target.provider!r}"))
        call, finish = self._translator().call_for(provider, asked, target)
        kind: Kind = "embedding" if asked.format == "embeddings" else "chat"
        parent_id = None if context.parent is None else context.parent.request.id
        estimate = self.estimate(asked, call.max_tokens)
        request = Request(
            kind,
            provider=target.provider,
            model=target.model,
            alias=alias if alias != target.name else None,
            estimate=estimate,
            parent_id=parent_id,
        )
        own = contextlib.AsyncExitStack()
        try:
            admission = await own.enter_async_context(self._gate.admit(context, request))
        except BudgetExceeded as error:
            if target.falls_back("budget"):
                raise Failed("budget", error) from error
            raise
        self._targets.began(target.name)
        paid = _Paid(admission, call.format, estimate, self._ratios, asked, self.providers.prices(), target)
        try:
            began = time.monotonic()
            paid.sent()
            reply = await own.enter_async_context(provider.send(call))
            what = await self._taken(reply, call, finish, paid, began)
        except Failed as error:
            admission.outcome = error.error.code
            self._note(target, error)
            await own.aclose()
            raise
        except (UpstreamTimeout, Unreachable, RateLimited) as error:
            admission.outcome = error.code
            reason = "timeout" if isinstance(error, UpstreamTimeout) else "connection"
            reason = "429" if isinstance(error, RateLimited) else reason
            if reason != "timeout" and not paid.is_taken:
                paid.refused()
            failure = Failed(reason, error)
            self._note(target, failure)
            await own.aclose()
            raise failure from error
        except BaseException as error:
            self._targets.ended(target.name)
            await own.__aexit__(type(error), error, error.__traceback__)
            raise
        self._targets.succeeded(target.name)
        admission.joins = True  # the request as a whole ends as soon as its answer is read
        stack.push_async_exit(own.pop_all())
        return what

    def _note(self, target: Target, failure: Failed) -> None:
        if failure.reason in ("timeout", "connection") or failure.reason[:1] == "5":
            self._targets.failed(target.name)
        else:
            self._targets.ended(target.name)

    async def _taken(self, reply: Reply, call: Call, finish: Finish, paid: "_Paid", began: float) -> Whole | Streamed:
        """The answer, once it is clear that it is one. Raises Failed."""
        if reply.status >= 400:
            paid.refused()
            body = await reply.error()
            headers = {name: text for name in _PASSED_ON if _is_plain(text := reply.headers.get(name, ""))}
            error = _as_error(call, reply.status, body)
            whole = None
            if reply.status not in _OURS:
                whole = Whole(reply.status, finish.error(reply.status, body), headers)
            raise Failed(str(reply.status), error, whole, retry_after_s(reply.headers))
        paid.is_taken = True
        if not call.stream:
            body = await reply.read()
            paid.whole(body)
            paid.admission.timings["upstream"] = (time.monotonic() - began) * 1000
            return Whole(reply.status, finish.whole(body))
        events = _read(reply, paid, call.format, began)
        limit_s = call.timeout_s or reply.timeout_s
        try:
            async with asyncio.timeout(limit_s):
                first = await _first_event(events, call)
        except TimeoutError as error:
            raise UpstreamTimeout(f"{paid.target.provider} sent no event within {limit_s:g} s") from error
        return Streamed(_translated(first, events, finish), finish.broken)


@dataclass(slots=True)
class _Paid:
    """What one attempt has used so far, told to its admission as it becomes known."""

    admission: Admission
    format: str
    estimate: Usage
    ratios: Ratios
    asked: Asked
    prices: ModelPrices
    target: Target
    is_taken: bool = False
    """Whether the provider has begun to answer."""

    def sent(self) -> None:
        """The provider has the request: its input is spent, also if nobody waits for the answer."""
        if self.format != "count_tokens":
            self.admission.spent(Usage(input_tokens=self.estimate.input_tokens))
            self.admission.facts["usage"] = "estimated"

    def refused(self) -> None:
        """It did not take the request."""
        self.admission.spent(Usage())
        self.admission.facts.pop("usage", None)

    def whole(self, body: bytes) -> None:
        answer = decoded(body)
        found = usage_of(self.format, answer.get("usage")) if isinstance(answer, dict) else None
        if self.format == "count_tokens":
            self._settle(Usage(), "default")
        elif found is None:
            used = dataclasses.replace(delivered(body), input_tokens=self.estimate.input_tokens)
            self._settle(used, "default")
        else:
            tier = answer.get("service_tier")
            self._settle(found, tier if isinstance(tier, str) else "default", exact=True)

    def streamed(self, meter: Meter) -> None:
        self._settle(meter.usage, meter.tier, exact=meter.is_exact)

    def _settle(self, usage: Usage, tier: str, exact: bool = False) -> None:
        self.admission.spent(usage)
        if exact:
            self.admission.facts.pop("usage", None)
            self.ratios.learn(self.asked.model, self.asked.size, usage.input_tokens)
        if tier != "default":
            price = self.prices.of(self.target.provider, self.target.model, tier)
            self.admission.cost = None if price is None else price.cost(usage)


async def _read(reply: Reply, paid: _Paid, format: str, began: float) -> AsyncGenerator[bytes, None]:
    """The events of a streamed answer, those that come together in one piece; what they cost is told before they are
    passed on."""
    events, meter = Events(), Meter(format, paid.estimate.input_tokens)
    timings = paid.admission.timings

    def metered(event: bytes) -> bytes:
        _, data = parts_of(event)
        if data:
            timings.setdefault("first_token", (time.monotonic() - began) * 1000)
            meter.read(decoded(data))
        return event

    async with contextlib.aclosing(reply.chunks()) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            try:
                whole = b"".join(map(metered, events.feed(chunk)))
            except EventTooLong as error:
                raise Unreachable(f"{paid.target.provider}: {error}") from error
            if whole:
                paid.streamed(meter)
                yield whole
    if rest := events.rest():
        whole = metered(rest) + b"\n\n"
        paid.streamed(meter)
        yield whole
    timings["upstream"] = (time.monotonic() - began) * 1000
    if not meter.is_over:
        paid.admission.outcome = "cut_off"


async def _first_event(pieces: AsyncIterator[bytes], call: Call) -> bytes:
    """A stream up to its first real event, and what came with it. Raises Failed for an error in its place, or for
    nothing."""
    held = bytearray()
    async for piece in pieces:
        held += piece
        for event in Events().feed(piece):
            name, data = parts_of(event)
            if not data or name == "ping":
                continue
            message = decoded(data)
            if isinstance(message, dict) and (name == "error" or message.get("type") == "error" or "error" in message):
                said = message.get("error")
                if isinstance(said, dict) and not message.get("response"):
                    status = 529 if said.get("type") == "overloaded_error" else 500
                    raise Failed(str(status), _as_error(call, status, data))
            return bytes(held)
        if len(held) > _LONGEST_BEGINNING:
            raise Failed("connection", Unreachable(f"the stream began with {len(held):,} bytes that say nothing"))
    raise Failed("connection", Unreachable("the stream ended before it began"))


async def _translated(first: bytes, events: AsyncIterator[bytes], finish: Finish) -> AsyncIterator[bytes]:
    try:
        for piece in finish.event(first):
            yield piece
        async for event in events:
            for piece in finish.event(event):
                yield piece
        for piece in finish.end():
            yield piece
    finally:
        await events.aclose()  # type: ignore[attr-defined]


async def _pause(failed: Failed, retry: int) -> bool:
    """Wait before another attempt at the same target; whether there may be one."""
    if failed.reason[:1] == "4" and failed.reason not in ("408", "409", "425", "429"):
        return False
    if failed.wait_s is not None:
        if failed.wait_s > _LONGEST_RETRY_AFTER_S:
            return False
        await asyncio.sleep(failed.wait_s)
        return True
    await asyncio.sleep(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**retry) * random.uniform(0.5, 1.0))
    return True


def _is_plain(header: str) -> bool:
    return 0 < len(header) <= 100 and header.isascii() and header.isprintable()


def _as_error(call: Call, status: int, body: bytes) -> UpstreamError:
    said = decoded(body)
    error = said.get("error") if isinstance(said, dict) else None
    message = error.get("message") if isinstance(error, dict) else error if isinstance(error, str) else None
    words = one_line(message if isinstance(message, str) else body[:200].decode("utf-8", "replace"), _SHOWN_ERROR)
    return UpstreamError(f"{call.model}: the provider answered HTTP {status}: {words}", status=status)
