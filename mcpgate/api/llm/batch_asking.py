"""One line of a batch on its way to a model: with whose rights it is asked, what comes of it, and whether it should be
asked again."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from mcpgate import jsontext
from mcpgate.api.llm import errors
from mcpgate.api.llm.reading import read_asked
from mcpgate.errors import InvalidRequest, McpgateError, RateLimited, Unavailable, UpstreamError, UpstreamTimeout
from mcpgate.governance.callers import Caller, Said
from mcpgate.governance.context import RequestContext
from mcpgate.governance.gate import Gate
from mcpgate.llm.attempt import SHOWN_ERROR, Streamed, Whole
from mcpgate.llm.batch_lines import Asking
from mcpgate.llm.batches import Batch, State
from mcpgate.llm.chat import Chat
from mcpgate.llm.messages import Untranslatable
from mcpgate.llm.provider import Unreachable

TRIED_AGAIN = frozenset((408, 409, 425, 429, 500, 502, 503, 529))
"""Statuses after which a line is asked again, if its target's own retries did not help."""
_PAUSES_S, _WAIT_S = (1.0, 5.0, 20.0), 5.0
"""Before it is; and where a limit of the gateway's own does not say when it will be free."""
_MOST_RUNS = 3
"""How often a line is begun without an end. One that ends each process that runs it must not go on with that."""
_LONGEST_ANSWER = 8 * 1024 * 1024


class Outcome(NamedTuple):
    """What has come of a line."""

    state: State
    status: int = 0
    """Of its answer; 0 for one that was not asked."""
    body: bytes = b""
    """JSON."""


class Asker:
    """Asks models for batches."""

    def __init__(self, chat: Chat, gate: Gate) -> None:
        self._chat, self._gate = chat, gate
        self.under_way = 0
        """Lines whose answers are waited for."""

    async def ask(
        self, batch: Batch, number: int, asking: Asking, runs: int, tries: int
    ) -> tuple[Outcome, float | None]:
        """What a line is answered with, and how many seconds it should wait to be asked again; None if the answer is
        final. `runs`: how often it has begun. `tries`: how often it was to be asked again."""
        try:
            if runs > _MOST_RUNS:
                raise UpstreamTimeout("three processes ended while this line was under way; it is not run again")
            caller = await caller_of(self._gate, batch.caller)
            status, body = await self._answer(caller, batch, number, asking)
        except (RateLimited, Unavailable) as error:  # it waits for others
            return refused(batch, error), float(error.data.get("retry_after_s") or _WAIT_S)
        except McpgateError as error:
            outcome, may_pass = refused(batch, error), isinstance(error, Unreachable)
        else:
            outcome = Outcome("succeeded" if status < 400 else "errored", status, body)
            may_pass = status in TRIED_AGAIN
        return outcome, _PAUSES_S[tries] if may_pass and tries < len(_PAUSES_S) else None

    async def _answer(self, caller: Caller, batch: Batch, number: int, asking: Asking) -> tuple[int, bytes]:
        """Status and body of a line's answer. Raises what any request does."""
        context = RequestContext(caller, id=request_id(batch, number))
        asked = read_asked(batch.format, jsontext.dumps(asking.body), batch.headers, batch.query)
        if asked.stream:
            raise Untranslatable("stream", "the answers of a batch are not streamed; leave it out")
        asked = await self._chat.bound(caller, asked)
        self.under_way += 1
        try:
            async with self._chat.answering(context, asked) as answer:
                what = answer.what
        finally:
            self.under_way -= 1
        assert not isinstance(what, Streamed)
        return what.status, _as_json(batch, what)


def _as_json(batch: Batch, what: Whole) -> bytes:
    """The body of an answer, which stands in a line of JSON. Raises InvalidRequest, UpstreamError."""
    if len(what.body) > _LONGEST_ANSWER:
        raise InvalidRequest(f"the answer has {len(what.body):,} bytes, over {_LONGEST_ANSWER:,}")
    try:
        orjson.loads(what.body)
        return what.body
    except orjson.JSONDecodeError:
        pass
    try:
        return jsontext.dumps(jsontext.loads(what.body, "replace"))
    except ValueError:
        if what.status < 400:
            raise UpstreamError("the provider answered with what is not JSON") from None
    text = what.body[:SHOWN_ERROR].decode("utf-8", "replace")
    return orjson.dumps(errors.body_of(batch.format, what.status, "upstream_error", text))


def refused(batch: Batch, error: McpgateError) -> Outcome:
    """What its clients read of a refusal."""
    return Outcome("errored", error.http_status, orjson.dumps(errors.refusal(batch.format, error), default=str))


def request_id(batch: Batch, number: int) -> str:
    """By which the ledger and the results name a line's request."""
    return f"{batch.id}/{number}"


def said_by(caller: Caller) -> dict[str, Any]:
    """What is kept of a caller, for caller_of."""
    if caller.is_local:
        return {"key": caller.id, "user": caller.user, "metadata": dict(caller.metadata), "bundle": None}
    said = caller.said
    return {"key": caller.id, "user": said.user, "metadata": dict(said.metadata), "bundle": caller.bundle}


async def caller_of(gate: Gate, said: Mapping[str, Any]) -> Caller:
    """The caller of a batch with its rights of now, whatever secret its key has by now. Raises NotAllowed if the key is
    no longer valid."""
    if said["key"] == "local":
        return await gate.identify(None, key_required=False, metadata=said["metadata"], user=said["user"])
    claimed = Said(said["user"], tuple(said["metadata"].items()))
    return await gate.current(Caller(said["key"], bundle=said["bundle"], said=claimed))
