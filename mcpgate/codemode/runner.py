"""Run one piece of model-written code for one caller: look at it first, hand it to the engine, make the
outcome an answer. It does not make tool calls: see bridge."""

import asyncio
import dataclasses
import time
from functools import partial
from typing import Any

from mcpgate.catalog.catalog import Catalog, nearest
from mcpgate.codemode import precheck, results
from mcpgate.codemode.bridge import Bridge
from mcpgate.codemode.handles import HandleStore
from mcpgate.codemode.savings import Savings
from mcpgate.config.settings import Settings
from mcpgate.errors import InvalidRequest, McpgateError, Unavailable
from mcpgate.governance.admission import Admission
from mcpgate.governance.callers import Caller
from mcpgate.governance.context import RequestContext
from mcpgate.governance.gate import Gate
from mcpgate.governance.records import Request, Usage
from mcpgate.proxy.views import Views
from mcpgate.tokens import estimate
from mcpgate.upstream.pool import UpstreamPool
from mcpgate_sandbox.engine import Engine, Execution, Handle, Limits, Outcome
from mcpgate_sandbox.errors import CodeFailed, LimitReached, SandboxUnavailable

_WAIT_FOR_START_S = 30.0
"""How long an execution waits for servers it names that are still starting."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What the model reads."""

    text: str
    is_error: bool = False
    blocks: tuple[dict[str, Any], ...] = ()
    """MCP content besides the text: images and blobs that the code returned."""
    outcome: Outcome | None = None


def _outcome_of(answer: Answer) -> str:
    """What the ledger says came of it."""
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
        handles: HandleStore,
        gate: Gate,
        savings: Savings,
    ) -> None:
        self._settings, self._engine, self._bridge, self._views = settings, engine, bridge, views
        self._pool, self._handles, self._gate, self._savings = pool, handles, gate, savings

    def limits(self, caller: Caller) -> Limits:
        """What an execution of this caller may use: the settings, with the caller's own in their places."""
        return Limits(**{**self._settings.config.sandbox.limits(), **caller.limits})

    async def run(self, context: RequestContext, code: str, limits: Limits, session: str | None = None) -> Answer:
        """Run the code. Raises Unavailable when no code can run at all, InvalidRequest for a bad session name, and
        what the gate refuses."""
        code = _unfenced(code)
        if session is not None and not (0 < len(session) <= 100):
            raise InvalidRequest("session must be a name of 1–100 characters")
        request = Request("execution", tool="execute_code", estimate=Usage(seconds=limits.timeout_s))
        async with self._gate.admit(context, request) as admission:
            answer = await self._run(context, admission, code, limits, session)
            outcome = answer.outcome
            if outcome is not None:
                ran_s = max(0.0, outcome.wall_s - outcome.tool_wait_s)
                admission.spent(Usage(seconds=min(ran_s, limits.timeout_s)))  # which is what was reserved
                admission.timings |= {"sandbox": ran_s * 1000, "tools": outcome.tool_wait_s * 1000}
            admission.saved = self._savings.of(context.caller, answer.text, outcome)
            admission.outcome = _outcome_of(answer)
            return answer

    async def _run(
        self, context: RequestContext, admission: Admission, code: str, limits: Limits, session: str | None
    ) -> Answer:
        caller = context.caller
        await self._wait_for_servers(caller, code)
        catalog = self._views.catalog_of(caller)
        if faults := precheck.precheck(code, catalog, session is not None):
            return Answer(precheck.explain(faults, self._bridge.shape), is_error=True)
        inside = context.inside(admission)
        execution = Execution(
            code=code,
            servers=tuple(server.ident for server in catalog.servers),
            call_tool=partial(self._bridge.call_tool, inside),
            host_call=partial(self._bridge.host_call, caller),
            limits=limits,
            session=session,
            owner=caller.owner,
        )
        began = time.monotonic()
        try:
            outcome = await self._engine.run(execution)
        except asyncio.CancelledError:
            # What it used until now is spent, and at most what was reserved for it.
            admission.spent(Usage(seconds=min(time.monotonic() - began, limits.timeout_s)))
            raise
        except SandboxUnavailable as error:
            raise Unavailable(f"no code can run: {error}") from error
        max_tokens = self._settings.config.code_mode.max_result_tokens
        try:
            return self._answer(caller, outcome, catalog, max_tokens)
        except RecursionError:
            shown = dataclasses.replace(outcome, result="(the result is nested too deeply to be shown)")
            return self._answer(caller, shown, catalog, max_tokens)

    async def _wait_for_servers(self, caller: Caller, code: str) -> None:
        """A server that is just starting is waited for if the code names it; others are not."""
        named = [
            server.name for server in precheck.mentioned_servers(code, self._views.catalog_of(caller)) if server.trouble
        ]
        if named:
            await self._pool.settled(named, _WAIT_FOR_START_S)

    def _answer(self, caller: Caller, outcome: Outcome, catalog: Catalog, max_tokens: int) -> Answer:
        parts = []
        result, blocks = self._take_blocks(caller, outcome.result)
        stdout = outcome.stdout.rstrip("\n")
        has_result = outcome.error is None and result is not None
        # What was printed and what was returned share the room; an error message takes its own.
        room = max_tokens // 2 if stdout and has_result else max_tokens
        if stdout:
            shaped = results.shape(stdout, room)
            parts.append(shaped.text + self._kept_note(caller, stdout, shaped.shortened))
            room = max(max_tokens - estimate(parts[0]), max_tokens // 2)
        if has_result:
            shaped = results.shape(result, room)
            parts.append(shaped.text + self._kept_note(caller, result, shaped.shortened))
        if outcome.stderr.strip():
            parts.append("stderr: " + results.shorten_text(outcome.stderr.strip(), max(100, max_tokens // 4)))
        if outcome.error is not None:
            parts.append(results.shorten_text(self._explain(outcome, catalog), max(300, max_tokens // 2)))
        parts += [f"[{note}]" for note in outcome.notes]
        if not parts and not blocks:
            parts.append("(done; the code printed and returned nothing)")
        return Answer("\n".join(parts), outcome.error is not None, tuple(blocks), outcome)

    def _kept_note(self, caller: Caller, value: Any, shortened: bool) -> str:
        if not shortened:
            return ""
        kept = self._handles.keep_value(caller.owner, value)
        return f'\n[whole value: load("{kept.id}") in a later execute_code]'

    def _take_blocks(self, caller: Caller, result: Any) -> tuple[Any, list[dict[str, Any]]]:
        """Handles that the code returned, as MCP content; the rest of the result."""
        found = result if isinstance(result, list) else [result]
        handles = [item for item in found if isinstance(item, Handle)]
        if not handles or len(handles) < len(found):
            return _named_handles(result), []
        blocks: list[dict[str, Any]] = []
        for handle in handles:
            try:
                kept = self._handles.get(caller.owner, handle.id)
            except McpgateError:
                continue
            if kept.data is None:
                return kept.value, []
            if kept.kind in ("image", "audio"):
                blocks.append({"type": kept.kind, "data": kept.data, "mimeType": kept.mime_type})
            else:
                uri = kept.uri or f"mcpgate://handles/{kept.id}"
                blocks.append(
                    {"type": "resource", "resource": {"uri": uri, "mimeType": kept.mime_type, "blob": kept.data}}
                )
        return None, blocks

    def _explain(self, outcome: Outcome, catalog: Catalog) -> str:
        error = outcome.error
        if isinstance(error, CodeFailed):
            lines = [error.traceback, str(error)] if error.traceback else [str(error)]
            if hint := self._hint(error, catalog, outcome.tool_calls):
                lines.append(f"Hint: {hint}")
            return "\n".join(lines)
        text = str(error)
        if isinstance(error, LimitReached) and outcome.tool_calls:
            text += f"; {outcome.tool_calls} tool calls had been made"
        return text

    def _hint(self, error: CodeFailed, catalog: Catalog, tool_calls: int) -> str:
        if error.type == "NameError" and error.name:
            if catalog.withholds(error.name):
                return f"server {error.name!r} is not granted to this key"
            near = (
                nearest(error.name, [s.ident for s in catalog.servers], 2)
                or [tool.qualified for s in catalog.servers if (tool := s.accepted.get(error.name))][:3]
            )
            if near:
                return f"did you mean {' or '.join(near)}?"
            return "each execution starts with no variables of earlier ones; pass session=… to keep them"
        if error.type in ("ModuleNotFoundError", "ImportError"):
            return 'only the standard library is here; read_docs("sandbox") lists it'
        if error.type in ("FileNotFoundError", "PermissionError"):
            return "there are no files in the sandbox; use a server's tools to read and write them"
        if error.type == "ToolError" and tool_calls > 1:
            return f"{tool_calls} tool calls were made, the last one failed; earlier ones may have had effects"
        if error.type in ("KeyError", "TypeError", "AttributeError", "IndexError") and tool_calls:
            return "print the value, or describe_tools shows what a tool returns"
        return ""


def _named_handles(value: Any) -> Any:
    """Handles inside a larger result, as a short word."""
    if isinstance(value, Handle):
        return f"<handle {value.id}>"
    if isinstance(value, dict):
        return {k: _named_handles(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_named_handles(v) for v in value]
    return value


def _unfenced(code: str) -> str:
    """The code without a Markdown fence round it, which models sometimes leave."""
    lines = code.strip().split("\n")
    if len(lines) >= 2 and lines[0].startswith("```") and lines[-1].strip() == "```":
        return "\n".join(lines[1:-1])
    return code
