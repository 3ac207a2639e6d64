"""One request of a client for a model: which targets it may go to, and who answers it.

The request as a whole is admitted first (rate limits), then each attempt (money). An attempt that fails before its
answer has begun is repeated, or the next target is taken; after that nothing is. What clients and providers write is
known to api/llm/ and providers/.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from mcpgate.catalog.catalog import nearest
from mcpgate.config.llm import LlmConfig
from mcpgate.config.settings import Settings
from mcpgate.errors import BudgetExceeded, NotAllowed, UnknownModel
from mcpgate.governance.admission import Admission
from mcpgate.governance.callers import Caller
from mcpgate.governance.context import RequestContext
from mcpgate.governance.gate import Gate
from mcpgate.governance.records import Kind, Request, Usage
from mcpgate.llm.asked import Asked
from mcpgate.llm.attempt import SHOWN_ERROR, Attempt, Failed, Streamed, Whole
from mcpgate.llm.metering import Ratios
from mcpgate.llm.provider import Unreachable
from mcpgate.llm.registry import Providers
from mcpgate.llm.routing import Qualities, Step, Target, plan, resolve
from mcpgate.llm.targets import Targets
from mcpgate.llm.wire import Translator
from mcpgate.telemetry.text import one_line

_EXPECTED_OUTPUT = 4096
"""Tokens that are reserved where a client names no limit."""
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
        self._health, self._ratios = Targets(), Ratios()

    @property
    def config(self) -> LlmConfig:
        return self._settings.config.llm

    def names(self, caller: Caller) -> list[str]:
        """The models that a caller may ask for: aliases, and what they lead to."""
        config = self.config
        about = Qualities(caller, "")
        found = {name: None for name in config.models if self.may_use(caller, name)}
        for name in config.models:
            for target in plan(config, name, about):
                if caller.grants.allow_model(target.provider, target.name):
                    found[target.name] = None
        return list(found)

    def serves(self, caller: Caller, asked: Asked) -> bool:
        """Whether the first target of a request speaks its format itself. Raises UnknownModel, NotAllowed."""
        _, targets = self.plan(caller, asked)
        provider = self.providers.all().get(targets[0].provider)
        return provider is not None and asked.format in provider.formats

    def explain(self, caller: Caller, asked: Asked) -> tuple[list[Target], list[Step]]:
        """Where a request would go, and why. Raises UnknownModel, NotAllowed."""
        steps: list[Step] = []
        _, targets = self.plan(caller, asked, steps)
        return targets, steps

    def estimate(self, caller: Caller, asked: Asked, most: int | None = None) -> Usage:
        """What a request takes at most, as far as that is known. `most`: tokens of one answer, where the client has
        named no limit."""
        tokens = self._ratios.input_tokens(caller.account, asked.model, asked.size)
        if asked.format in ("embeddings", "count_tokens"):
            return Usage(input_tokens=tokens)
        most = asked.max_tokens or most or _EXPECTED_OUTPUT
        return Usage(input_tokens=tokens, output_tokens=most * asked.answers)

    def answering(self, context: RequestContext, asked: Asked) -> "Answering":
        """An asynchronous context manager, which gives the answer of the first target that has one; while the block
        runs it is being read, and at its end it is paid for. Raises UnknownModel, NotAllowed, Untranslatable, the
        gate's refusals, UpstreamError, UpstreamTimeout."""
        return Answering(self, context, asked)

    def plan(self, caller: Caller, asked: Asked, steps: list[Step] | None = None) -> tuple[str, list[Target]]:
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
        targets = self._targets_of(name, caller, asked, steps)
        if name not in config.models:
            targets = [one for one in targets if caller.grants.allow_model(one.provider, one.name)]
            if not targets:
                raise NotAllowed(f"the model {name!r} is not granted to this key", key=caller.id, model=name)
        if not targets:
            raise UnknownModel(f"no route of the model {name!r} takes this request", nearest=[])
        return name, targets

    def may_use(self, caller: Caller, name: str) -> bool:
        return caller.grants.allow_model(None, name)

    def cheaper(self, caller: Caller, asked: Asked, name: str) -> tuple[str, list[Target]] | None:
        """Where a request goes that the budget for its alias does not hold."""
        other = self.config.models[name].on_budget if name in self.config.models else None
        if other is None or not self.may_use(caller, other):
            return None
        return other, self._targets_of(other, caller, asked)

    def _targets_of(self, name: str, caller: Caller, asked: Asked, steps: list[Step] | None = None) -> list[Target]:
        about = Qualities(caller, asked.model, asked.stream, asked.tools, asked.images, asked.session)
        return plan(self.config, name, about, steps)

    # --- attempts

    def admit(self, context: RequestContext, kind: Kind, name: str) -> Admission:
        """Of a request as a whole."""
        return self._gate.admit(context, Request(kind, model=name, estimate=Usage()))

    def sort_by_health(self, targets: Sequence[Target]) -> tuple[Sequence[Target], list[dict[str, Any]]]:
        """The targets that do not rest, and why the others are left out; all of them if all rest."""
        rested = [target for target in targets if not self._health.may_try(target.name)]
        if not rested or len(rested) == len(targets):
            return targets, []
        left_out = [{"target": target.name, "reason": "it rests after failures"} for target in rested]
        return [target for target in targets if target not in rested], left_out

    async def attempt(
        self, context: RequestContext, asked: Asked, kind: Kind, alias: str, target: Target
    ) -> tuple[Attempt, Whole | Streamed]:
        """One request to one target, which is still open. Raises Failed, Untranslatable, the gate's refusals."""
        provider = self.providers.all().get(target.provider)
        if provider is None:
            raise Failed("connection", Unreachable(f"there is no provider {target.provider!r}"))
        call, finish = self._translator().call_for(provider, asked, target)
        estimate = self.estimate(context.caller, asked, call.max_tokens)
        request = Request(
            kind,
            provider=target.provider,
            model=target.model,
            alias=alias if alias != target.name else None,
            estimate=estimate,
            parent_id=None if context.parent is None else context.parent.request.id,
        )
        admission = self._gate.admit(context, request)
        try:
            await admission.__aenter__()
        except BudgetExceeded as error:
            if target.falls_back("budget"):
                raise Failed("budget", error) from error
            raise
        attempt = Attempt(admission, target, asked, call, estimate, self._ratios, self.providers.prices())
        self._health.began(target.name)
        try:
            what = await attempt.send(provider, finish)
        except Failed as failed:
            if failed.reason in ("timeout", "connection") or failed.reason[:1] == "5":
                self._health.failed(target.name)
            else:
                self._health.ended(target.name)
            admission.outcome = failed.error.code
            await attempt.aclose()
            raise
        except BaseException as error:
            self._health.ended(target.name)
            await attempt.aclose(error)
            raise
        self._health.succeeded(target.name)
        return attempt, what


class Answering:
    """One request of a client while it is answered. See Chat.answering."""

    def __init__(self, chat: Chat, context: RequestContext, asked: Asked) -> None:
        self._chat, self._context, self._asked = chat, context, asked
        self._kind: Kind = "embedding" if asked.format == "embeddings" else "chat"
        self._attempt: Attempt | None = None

    async def __aenter__(self) -> Answered:
        chat, caller, asked = self._chat, self._context.caller, self._asked
        del self._asked  # an answer may take long, and is not asked for again
        name, targets = chat.plan(caller, asked)
        whole = self._whole = chat.admit(self._context, self._kind, name)
        await whole.__aenter__()
        try:
            whole.facts["session"] = asked.session[:200]
            inside = self._context.inside(whole)
            try:
                answer = await self._first(inside, asked, name, targets)
            except BudgetExceeded:
                if (cheaper := chat.cheaper(caller, asked, name)) is None:
                    raise
                answer = await self._first(inside, asked, *cheaper)
            whole.facts["attempts"] = str(answer.attempts)
        except BaseException as error:
            await whole.__aexit__(type(error), error, error.__traceback__)
            raise
        return answer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._attempt is not None:
                self._attempt.admission.ends_with_parent = True
                await self._attempt.aclose(error)
        finally:
            await self._whole.__aexit__(kind, error, traceback)

    async def _first(self, context: RequestContext, asked: Asked, alias: str, targets: Sequence[Target]) -> Answered:
        """The first answer. Raises what the last attempt has failed with."""
        usable, attempts = self._chat.sort_by_health(targets)
        failed: Failed | None = None
        for target in usable:
            for retry in range(target.retries + 1):
                try:
                    self._attempt, what = await self._chat.attempt(context, asked, self._kind, alias, target)
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
    if failed.reason[:1] == "4" and failed.reason not in ("408", "409", "425", "429"):
        return False
    if failed.wait_s is not None:
        if failed.wait_s > _LONGEST_RETRY_AFTER_S:
            return False
        await asyncio.sleep(failed.wait_s)
        return True
    await asyncio.sleep(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**retry) * random.uniform(0.5, 1.0))
    return True
