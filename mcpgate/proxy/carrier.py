"""One request to an upstream on behalf of a caller: admit it, send it, answer what the server needs to know meanwhile,
settle. What the request is about is known to calls.py and resources.py."""

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, cast

from mcpgate import jsontext
from mcpgate.cache.cache import Hit
from mcpgate.client import Client
from mcpgate.errors import McpgateError, UpstreamError
from mcpgate.governance.admission import Admission
from mcpgate.governance.callers import Caller
from mcpgate.governance.context import RequestContext
from mcpgate.governance.gate import Gate
from mcpgate.governance.records import Kind, Request, Saved, Usage
from mcpgate.proxy.cached import CachedResults, Found, ResultQuestion
from mcpgate.proxy.sign_ins import signs_in
from mcpgate.proxy.tasks import Followed, created_task
from mcpgate.upstream.backchannel import ask_all, lacking
from mcpgate.upstream.connection import RpcError
from mcpgate.upstream.pool import UpstreamPool

_ONE_CALL = Usage(calls=1)
_MOST_ROUNDS = 20
"""How often one request may need further input."""


class Carrier:
    """Carries requests to upstreams. One for the whole gateway."""

    def __init__(self, pool: UpstreamPool, gate: Gate, cached: CachedResults) -> None:
        self._pool, self._gate, self.cached = pool, gate, cached

    async def carry(
        self,
        context: RequestContext,
        kind: Kind,
        server: str,
        name: str,
        method: str,
        params: Mapping[str, Any],
        check: Callable[[Caller], None],
        question: ResultQuestion | None = None,
    ) -> dict[str, Any]:
        """The result as the server sent it; budget warnings are in the admission. `kind` and `name`: as what the ledger
        knows it. `check` raises NotAllowed if the caller may not make the request: it is called again just before
        sending, because the request may wait for others of its server. `question`: what is asked of the cache first.
        Raises what `check` does, the gate's refusals, UpstreamError, RpcError."""
        request = request_for(context, kind, server, name)
        try:
            check(context.caller)
        except McpgateError as error:
            self._gate.refused(context, request, error)
            raise
        async with self._gate.admit(context, request, money_later=question is not None) as admission:
            admission.note_sent(lambda: jsontext.dumps(_said(params)))
            found = None if question is None else await self.cached.find(question)
            if found is not None and found.hit is not None:
                await admission.confirm(check)  # it may have waited for an equal call
                admission.counts_requests = self.cached.counts_hits
                result = _from_cache(admission, found.hit, found)
            else:
                sent = partial(self._sent, context, admission, server, method, params, check)
                result = await (sent() if found is None else _kept(admission, found, context.client, sent))
            admission.note_answered(lambda: jsontext.dumps(result))
            return result

    async def _sent(
        self,
        context: RequestContext,
        admission: Admission,
        server: str,
        method: str,
        params: Mapping[str, Any],
        check: Callable[[Caller], None],
        client: Client | None = None,
    ) -> dict[str, Any]:
        """The server's own result. `client`: who is asked if the server needs to know something."""
        await admission.hold_money()
        upstream = self._pool.get(server)
        confirm = partial(admission.confirm, check)
        # A call that was sent is spent, whatever its outcome; one that could not be sent is not.
        on_sent = partial(admission.spent, _ONE_CALL)

        if headers := admission.trace_headers:
            params = {**params, "_meta": {**(params.get("_meta") or {}), **headers}}
        client, identity = client or context.client, upstream.identity_of(context.caller.owner)

        async def ask(more: Mapping[str, Any]) -> dict[str, Any]:
            given = {**params, **more}
            return await upstream.limited_request(
                method, given, client=client, confirm=confirm, on_sent=on_sent, identity=identity
            )

        began = time.monotonic()
        try:
            try:
                result = await _answered(client, ask)
            except UpstreamError as error:
                if not await signs_in(client, upstream, context.caller.owner, error):
                    raise
                result = await _answered(client, ask)
            if method == "tools/call" and (task := created_task(params, result)) is not None:
                result = await Followed(upstream, client, identity, confirm, modern=task is result).result(task)
        except RpcError as error:
            admission.outcome, message = "tool_error", error.message
            admission.note_answered(lambda: message)
            raise
        finally:
            admission.timings["upstream"] = (time.monotonic() - began) * 1000
        if result.get("isError") is True:
            admission.outcome = "tool_error"
        return result


def request_for(context: RequestContext, kind: Kind, server: str, name: str) -> Request:
    """A request to an upstream, as the ledger knows it."""
    parent_id = None if context.parent is None else context.parent.request.id
    return Request(kind, server=server, tool=name, estimate=_ONE_CALL, parent_id=parent_id)


class _Witness:
    """A client, and whether it was asked anything: then the result is what one person has said, or one client's
    files and models, and nobody else's."""

    def __init__(self, client: Client, found: Found) -> None:
        self._client, self._found = client, found
        self.was_asked = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def ask(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        self.was_asked = True
        self._found.end()  # people take their time, and nobody else should wait for them
        return await self._client.ask(method, params)


def _from_cache(admission: Admission, hit: Hit, found: Found) -> dict[str, Any]:
    admission.cache, admission.saved = hit.how, Saved(cost=hit.entry.cost)
    return found.result(hit)


async def _kept(
    admission: Admission, found: Found, client: Client, sent: Callable[[Client], Awaitable[dict[str, Any]]]
) -> dict[str, Any]:
    """The server's own result, which the cache keeps for others, unless it depends on what the client was asked."""
    admission.cache = "miss"
    try:
        witness = _Witness(client, found)
        result = await sent(cast(Client, witness))
        if not witness.was_asked:
            await found.keep(result, admission.price() or 0)
        return result
    finally:
        found.end()


def _said(params: Mapping[str, Any]) -> Any:
    """What a caller says in a request: the arguments of a tool or prompt, or the name of a resource."""
    return params.get("arguments", {name: value for name, value in params.items() if name != "_meta"})


async def _answered(client: Client, ask: Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    """The result once it needs no further input; or the first one, for a client that provides the input itself."""
    result = await ask({})
    for _ in range(_MOST_ROUNDS):
        if result.get("resultType") != "input_required":
            return result
        asked = result.get("inputRequests")
        asked = asked if isinstance(asked, dict) else {}
        if missing := sorted({_lacking(client, one) for one in asked.values()} - {""}):
            raise UpstreamError(f"the server needs {', '.join(missing)}, which the client does not support")
        if client.takes_questions:
            return result
        more: dict[str, Any] = {}
        if asked:
            try:
                more["inputResponses"] = await ask_all(client, asked)
            except McpgateError as error:
                raise UpstreamError(f"the server needs input that it did not get: {error.message}") from error
        if "requestState" in result:
            more["requestState"] = result["requestState"]
        result = await ask(more)
    raise UpstreamError(f"the server needed input more than {_MOST_ROUNDS} times")


def _lacking(client: Client, asked: Any) -> str:
    asked = asked if isinstance(asked, dict) else {}
    params = asked.get("params")
    return lacking(client.capabilities, str(asked.get("method")), params if isinstance(params, dict) else {})
