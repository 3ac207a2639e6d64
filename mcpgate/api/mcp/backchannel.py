"""The way back to a client while its request is under way: progress, log messages, and questions. A client of the
handshake era is asked over its session. A later one is answered with what is needed, its request is parked, and it goes
on when the client has sent it again with the answers."""

import asyncio
import secrets
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mcpgate import jsontext
from mcpgate.api.mcp.protocol import INVALID_PARAMS, RpcFault, RpcRequest
from mcpgate.errors import NotSupported, RateLimited
from mcpgate.governance.callers import Caller
from mcpgate.upstream.backchannel import ASKABLE, LOG_LEVELS, lacking
from mcpgate.upstream.untrusted import one_line

_STATE = "mcpgate:"
"""Begins the `requestState` of requests that are parked here; any other is an upstream's."""
_PARKED_S = 600.0
"""How long a person may take to answer."""
_KEPT_LOGS = 20
_MOST_PARKED, _MOST_PARKED_EACH = 2000, 64
"""In total, and of one key."""
Result = dict[str, Any]


class BackChannel:
    """What one request of a client can reach it by; see governance.context.Client."""

    def __init__(self, request: RpcRequest, inner: bool = False) -> None:
        """`inner`: for calls that running code makes, of which the client knows nothing."""
        self.request, self._inner = request, inner
        self._count = 0
        self.parked: Parked | None = None
        self.logs: deque[str] = deque(maxlen=_KEPT_LOGS)
        """The last log messages of calls that running code has made, a line each."""

    @property
    def capabilities(self) -> Mapping[str, Any]:
        reachable = self.request.ask is not None or self.parked is not None or self.takes_questions
        return self.request.capabilities if reachable else {}

    @property
    def origin(self) -> object:
        return self.request.origin

    @property
    def is_live(self) -> bool:
        return self.request.ask is not None and not self.request.capabilities.keys().isdisjoint(ASKABLE.values())

    @property
    def takes_questions(self) -> bool:
        return self.request.modern and not self._inner

    def progress(self, params: Mapping[str, Any]) -> None:
        token = self.request.progress_token
        if token is None:
            return
        if self._inner:
            # Of many calls; the protocol wants values that only ever grow.
            self._count += 1
            message = {"message": params["message"]} if isinstance(params.get("message"), str) else {}
            params = {"progress": self._count, **message}
        self.request.notify("notifications/progress", {**params, "progressToken": token})

    def log(self, params: Mapping[str, Any]) -> None:
        wanted, level = self.request.log_level, params.get("level")
        if self._inner:
            data = params.get("data")
            text = data if isinstance(data, str) else jsontext.dumps(data).decode("utf-8", "replace")
            self.logs.append(
                f"{one_line(params.get('logger') or '', 60)} {one_line(level, 20)}: {one_line(text, 300)}".strip()
            )
        if wanted is None and (self.request.modern or self._inner):
            return
        if wanted in LOG_LEVELS and level in LOG_LEVELS and LOG_LEVELS.index(level) < LOG_LEVELS.index(wanted):
            return
        self.request.notify("notifications/message", dict(params))

    async def ask(self, method: str, params: Mapping[str, Any]) -> Result:
        if missing := lacking(self.capabilities, method, params):
            raise NotSupported(f"the client of this request does not support {missing}", capability=missing)
        if self.parked is not None:
            return await self.parked.ask(method, params)
        if self.request.ask is None:
            raise NotSupported(f"the client of this request cannot be asked for {method}")
        return await self.request.ask(method, params)


class Parked:
    """A request whose client may have to be asked in between."""

    def __init__(self, channel: BackChannel, work: Callable[[BackChannel], Awaitable[Result]], caller: Caller) -> None:
        self.channel, self.caller = channel, caller
        self._questions: dict[str, tuple[dict[str, Any], asyncio.Future[Result]]] = {}
        self._asked = asyncio.Event()
        self._number = 0
        channel.parked = self
        self.task = asyncio.ensure_future(work(channel))
        self.task.add_done_callback(lambda task: task.cancelled() or task.exception())  # its client may never ask

    async def ask(self, method: str, params: Mapping[str, Any]) -> Result:
        self._number += 1
        name = f"q{self._number}"
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._questions[name] = ({"method": method, "params": dict(params)}, future)
        self._asked.set()
        try:
            return await future
        finally:
            self._questions.pop(name, None)

    def answer(self, responses: Any) -> None:
        """Take the answers that the client has sent; what is still open is asked again."""
        for name, response in responses.items() if isinstance(responses, dict) else ():
            found = self._questions.pop(name, None)
            if found is not None and not found[1].done():
                found[1].set_result(response if isinstance(response, dict) else {})

    async def leg(self) -> Result | None:
        """The result; None if the client is asked something first."""
        while not self.task.done():
            if self._questions:
                await asyncio.sleep(0)  # what is asked at once is asked together
                return None
            self._asked.clear()
            asked = asyncio.ensure_future(self._asked.wait())
            try:
                await asyncio.wait((self.task, asked), return_when=asyncio.FIRST_COMPLETED)
            finally:
                asked.cancel()
        return self.task.result()

    @property
    def questions(self) -> dict[str, Any]:
        return {name: question for name, (question, _) in self._questions.items()}


class Parking:
    """Requests whose clients are being asked. One for the whole gateway; bounded, and not for ever."""

    def __init__(self, stay_s: float = _PARKED_S) -> None:
        self._stay_s = stay_s
        self._table: dict[str, tuple[Parked, asyncio.TimerHandle]] = {}

    async def carry(self, request: RpcRequest, work: Callable[[BackChannel], Awaitable[Result]], inner: bool) -> Result:
        """Do the work of a request, or go on with it. Raises what the work does, RpcFault, RateLimited."""
        state = request.params.get("requestState")
        known = isinstance(state, str) and state.startswith(_STATE)
        if not known and (not request.modern or request.capabilities.keys().isdisjoint(ASKABLE.values())):
            return await work(BackChannel(request, inner))
        if known:
            parked = self._take(str(state), request.context.caller)
            parked.channel.request = request
            parked.answer(request.params.get("inputResponses"))
        else:
            parked = Parked(BackChannel(request, inner), work, request.context.caller)
        try:
            result = await parked.leg()
        except asyncio.CancelledError:
            parked.task.cancel()
            raise
        return self._keep(parked) if result is None else result

    def _keep(self, parked: Parked) -> Result:
        each = Counter(one.caller.account for one, _ in self._table.values())
        account = parked.caller.account
        if len(self._table) >= _MOST_PARKED or each[account] >= _MOST_PARKED_EACH:
            parked.task.cancel()
            raise RateLimited(
                "too many requests wait for answers of people",
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
