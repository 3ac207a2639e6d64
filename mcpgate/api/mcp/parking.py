"""Requests whose clients do not wait for them: a client of a later revision is asked something before it sends its
request again, or its call has become a task."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable

from mcpgate.api.mcp.backchannel import BackChannel, Parked, Result
from mcpgate.api.mcp.protocol import INVALID_PARAMS, RpcFault, RpcRequest
from mcpgate.api.mcp.tasks import Tasks
from mcpgate.errors import RateLimited
from mcpgate.governance.callers import Caller
from mcpgate.upstream.backchannel import ASKABLE

_STATE = "mcpgate:"
"""Begins the `requestState` of requests that are parked here; any other is an upstream's."""
_PARKED_S = 600.0
"""How long a person may take to answer."""
_MOST_PARKED, _MOST_PARKED_EACH = 2000, 64
"""In total, and of one key."""
_REFUSED_S = 1.0
"""How long a call that asks to become a task waits for a refusal, which is the answer to the call itself."""


class Parking:
    """Requests whose clients are being asked. One for the whole gateway; bounded, and not for ever."""

    def __init__(self, tasks: Tasks, outliving: "set[asyncio.Task[Result]]", stay_s: float = _PARKED_S) -> None:
        """`outliving`: takes the work that goes on without its request."""
        self._tasks, self._outliving, self._stay_s = tasks, outliving, stay_s
        self._table: dict[str, tuple[Parked, asyncio.TimerHandle]] = {}

    async def carry(
        self,
        request: RpcRequest,
        work: Callable[[BackChannel], Awaitable[Result]],
        inner: bool,
        takes_tasks: bool = False,
    ) -> Result:
        """Do the work of a request, or go on with it. `takes_tasks`: whether the client takes a task in place of the
        result; in the handshake era it then gets nothing else. Raises what the work does, RpcFault, RateLimited."""
        state = request.params.get("requestState")
        known = isinstance(state, str) and state.startswith(_STATE)
        asks = request.modern and not request.capabilities.keys().isdisjoint(ASKABLE.values())
        if not known and not asks and not takes_tasks:
            return await work(BackChannel(request, inner))
        if known:
            parked = self._take(str(state), request.context.caller)
            parked.channel.request = request
            parked.answer(request.params.get("inputResponses"))
        else:
            if takes_tasks:
                self._tasks.check(request.context.caller)
            parked = Parked(BackChannel(request, inner, takes_tasks), work, request.context.caller)
            self._outliving.add(parked.task)
            parked.task.add_done_callback(self._outliving.discard)
        must_be_task = parked.channel.takes_tasks and not request.modern
        try:
            result = await parked.leg(_REFUSED_S if must_be_task else None)
        except asyncio.CancelledError:
            parked.task.cancel()
            raise
        if must_be_task or (result is None and parked.is_task):
            return self._tasks.keep(parked, request)
        return self._keep(parked) if result is None else result

    def _keep(self, parked: Parked) -> Result:
        each = Counter(one.caller.account for one, _ in self._table.values())
        account = parked.caller.account
        if len(self._table) >= _MOST_PARKED or each[account] >= _MOST_PARKED_EACH:
            parked.task.cancel()
            raise RateLimited(
                "too many requests are waiting for people to answer",
                **{"scope": f"key {account}", "limit": _MOST_PARKED_EACH, "window": None, "retry_after_s": 1},
            )
        state = _STATE + secrets.token_urlsafe(24)
        timer = asyncio.get_running_loop().call_later(self._stay_s, self._forget, state)
        self._table[state] = (parked, timer)
        return {"resultType": "input_required", "inputRequests": parked.questions, "requestState": state}

    def _take(self, state: str, caller: Caller) -> Parked:
        found = self._table.get(state)
        if found is None or (found[0].caller.owner, found[0].caller.bundle) != (caller.owner, caller.bundle):
            raise RpcFault(INVALID_PARAMS, "this requestState has expired or is unknown; send the request without it")
        del self._table[state]
        found[1].cancel()
        return found[0]

    def _forget(self, state: str) -> None:
        parked, _ = self._table.pop(state)
        parked.task.cancel()
