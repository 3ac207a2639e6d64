"""Run one piece of model-written code for one caller: check it, admit it, run it in the engine, settle. bridge.py makes
the tool calls; answers.py writes what the model reads."""

import asyncio
import time
from functools import partial

from mcpgate.codemode import precheck, results
from mcpgate.codemode.answers import Answer, Answers
from mcpgate.codemode.bridge import Bridge
from mcpgate.codemode.savings import Savings
from mcpgate.codemode.tool_logs import ToolLogs
from mcpgate.config.settings import Settings
from mcpgate.errors import InvalidRequest, RateLimited, Unavailable
from mcpgate.governance.admission import Admission
from mcpgate.governance.callers import Caller
from mcpgate.governance.context import RequestContext
from mcpgate.governance.gate import Gate
from mcpgate.governance.records import Request, Usage
from mcpgate.proxy.views import Views
from mcpgate.upstream.pool import UpstreamPool
from mcpgate_sandbox.engine import Engine, Execution, Limits
from mcpgate_sandbox.errors import LimitReached, SandboxBusy, SandboxUnavailable

_WAIT_FOR_START_S = 30.0
"""How long an execution waits for servers it names that are still starting."""


def _outcome_of(answer: Answer) -> str:
    """The outcome as the ledger records it."""
    error = None if answer.outcome is None else answer.outcome.error
    if isinstance(error, LimitReached):
        return "limit_reached"
    return "code_failed" if answer.is_error else "ok"


class Runner:
    """Executes code."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        bridge: Bridge,
        views: Views,
        pool: UpstreamPool,
        answers: Answers,
        gate: Gate,
        savings: Savings,
    ) -> None:
        self._settings, self._engine, self._bridge, self._views = settings, engine, bridge, views
        self._pool, self._answers, self._gate, self._savings = pool, answers, gate, savings

    def limits(self, caller: Caller) -> Limits:
        """What an execution of this caller may use: the settings, overridden by the caller's own."""
        return Limits(**{**self._settings.config.sandbox.limits(), **caller.limits})

    async def run(self, context: RequestContext, code: str, limits: Limits, session: str | None = None) -> Answer:
        """Run the code. Raises Unavailable if no code can run at all, InvalidRequest for a bad session name, and the
        gate's refusals."""
        code = _unfenced(code)
        if session is not None and not (0 < len(session) <= 100):
            raise InvalidRequest("session must be a name of 1–100 characters")
        request = Request("execution", tool="execute_code", estimate=Usage(seconds=limits.timeout_s))
        async with self._gate.admit(context, request) as admission:
            admission.note_sent(lambda: code)
            if session is not None:
                admission.facts["session"] = session
            answer = await self._run(context, admission, code, limits, session)
            outcome = answer.outcome
            if outcome is not None:
                ran_s = max(0.0, outcome.wall_s - outcome.tool_wait_s)
                admission.spent(Usage(seconds=min(ran_s, limits.timeout_s)))  # no more than was reserved
                admission.timings |= {"sandbox": ran_s * 1000, "tools": outcome.tool_wait_s * 1000}
            admission.saved = self._savings.of(context.caller, answer.text, outcome)
            admission.outcome = _outcome_of(answer)
            admission.note_answered(lambda: answer.text)
            return answer

    async def _run(
        self, context: RequestContext, admission: Admission, code: str, limits: Limits, session: str | None
    ) -> Answer:
        caller = context.caller
        await self._wait_for_servers(caller, code)
        catalog = self._views.catalog_of(caller)
        if faults := precheck.precheck(code, catalog, session is not None):
            return Answer.of_text(precheck.explain(faults, partial(self._bridge.shape, caller)), is_error=True)
        logs = ToolLogs(context.client)
        inside = context.inside(admission, logs)
        execution = Execution(
            code=code,
            servers=tuple(server.ident for server in catalog.servers),
            call_tool=partial(self._bridge.call_tool, inside),
            host_call=partial(self._bridge.host_call, caller),
            limits=limits,
            session=session,
            owner=caller.owner,
            account=caller.account,
            on_started=lambda: began.append(time.monotonic()),
        )
        began: list[float] = []
        try:
            outcome = await self._engine.run(execution)
        except asyncio.CancelledError:
            # The time since it began counts as spent, up to what was reserved.
            if began:
                admission.spent(Usage(seconds=min(time.monotonic() - began[0], limits.timeout_s)))
            raise
        except SandboxBusy as error:
            raise (
                RateLimited(str(error), retry_after_s=1.0) if error.of_account else Unavailable(str(error))
            ) from error
        except SandboxUnavailable as error:
            raise Unavailable(f"no code can run: {error}") from error
        if results.is_large(outcome.result):
            return await asyncio.to_thread(self._answers.of, caller, outcome, catalog)
        answer = self._answers.of(caller, outcome, catalog)
        return answer.with_text(logs.text()) if answer.is_error else answer

    async def _wait_for_servers(self, caller: Caller, code: str) -> None:
        """Wait for servers that are still starting, but only those that the code names."""
        named = [
            server.name for server in precheck.mentioned_servers(code, self._views.catalog_of(caller)) if server.trouble
        ]
        if named:
            await self._pool.settled(named, _WAIT_FOR_START_S)


def _unfenced(code: str) -> str:
    """The code without a Markdown fence around it, which models sometimes leave."""
    lines = code.strip().split("\n")
    if len(lines) >= 2 and lines[0].startswith("```") and lines[-1].strip() == "```":
        return "\n".join(lines[1:-1])
    return code
