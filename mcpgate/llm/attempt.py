"""One request to one target: what it may cost, what the provider answers, what it did cost."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mcpgate.errors import McpgateError, RateLimited, UpstreamError, UpstreamTimeout
from mcpgate.governance.admission import Admission
from mcpgate.governance.records import NO_COUNTS, Usage
from mcpgate.llm.asked import COUNTS, EMBEDS, Asked
from mcpgate.llm.events import Events, EventTooLong, parts_of
from mcpgate.llm.gemini_format import BAD_KEY
from mcpgate.llm.guarded import Guarded
from mcpgate.llm.guardrails import Blocked
from mcpgate.llm.metering import Meter, Ratios, decoded, delivered, usage_and_tier, usage_of
from mcpgate.llm.objects import is_id
from mcpgate.llm.prices import ModelPrices
from mcpgate.llm.provider import Call, Provider, Reply, Unreachable, retry_after_s
from mcpgate.llm.routing import Target
from mcpgate.llm.speeds import Speeds
from mcpgate.llm.wire import Finish
from mcpgate.telemetry.text import one_line

_LONGEST_BEGINNING = 256 * 1024
"""Bytes of comments and pings before the first event of a stream."""
SHOWN_ERROR = 500
PASSED_ON = ("retry-after", "retry-after-ms", "x-should-retry")
"""Headers of a provider's error that its client hears."""
OURS = (401, 402, 403)
"""What a provider says of the gateway's own key, which is none of the client's business."""


class Failed(Exception):
    """An attempt that did not bring an answer. `reason`: a status, `timeout`, `connection`,
    `budget`, or `limit` for one of the gateway's own."""

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
    key: str = ""
    """The mark of the provider's key."""


@dataclass(slots=True)
class Streamed:
    """An answer that is being written."""

    events: AsyncIterator[bytes]
    """Whole server-sent events."""
    broken: Callable[[McpgateError], Iterable[bytes]]
    """What its client is told if it does not end well."""
    holds_request: bool
    """Whether what the client has asked is needed until its end."""


class Attempt:
    """One admitted request to one target. To be closed, whatever it brings."""

    def __init__(
        self,
        admission: Admission,
        target: Target,
        asked: Asked,
        call: Call,
        estimate: Usage,
        ratios: Ratios,
        prices: ModelPrices,
        speeds: Speeds,
    ) -> None:
        self.admission, self.target, self._call = admission, target, call
        self._asked_model, self._asked_size = asked.model, asked.size
        self._estimate, self._ratios, self._prices, self._speeds = estimate, ratios, prices, speeds
        self.guarded: Guarded | None = None
        """The answer as the guardrails see it, if there are any."""
        self._reply: Reply | None = None
        self._events: AsyncGenerator[bytes, None] | None = None
        self.keep: Callable[[str, str], Awaitable[None]] | None = None
        """Records the id of a response that the provider keeps, and the mark of its key; None if it keeps none."""
        self._keeping: asyncio.Future[None] | None = None
        self._is_taken = False
        """Whether the provider has begun to answer."""

    async def send(self, provider: Provider, finish: Finish) -> Whole | Streamed:
        """The answer, once it is clear that it is one. Raises Failed."""
        began = time.monotonic()
        try:
            self._note_sent()
            reply = self._reply = await provider.send(self._call)
            self._call = self._call._replace(body=b"")  # an answer may take long, and nobody needs it
            return await self._taken(reply, finish, began)
        except (UpstreamTimeout, Unreachable, RateLimited) as error:
            reason = "timeout" if isinstance(error, UpstreamTimeout) else "connection"
            reason = "429" if isinstance(error, RateLimited) else reason
            if reason != "timeout" and not self._is_taken:
                self._note_refused()
            raise Failed(reason, error) from error

    async def aclose(self, error: BaseException | None = None) -> None:
        """Let go of the provider and settle. `error`: what ended the request, if anything did."""
        try:
            if self._events is not None:
                await self._events.aclose()
                if self.guarded is not None and error is None:
                    with contextlib.suppress(Blocked):  # it has been sent
                        await self.guarded.after()
            if self._reply is not None:
                await self._reply.aclose()
            if self._keeping is not None:
                await asyncio.wait((self._keeping,))
        finally:
            kind = None if error is None else type(error)
            await self.admission.__aexit__(kind, error, None if error is None else error.__traceback__)

    async def _taken(self, reply: Reply, finish: Finish, began: float) -> Whole | Streamed:
        call = self._call
        if reply.status >= 400:
            self._note_refused()
            body = await reply.error()
            headers = {name: text for name in PASSED_ON if is_plain(text := reply.headers.get(name, ""))}
            whole = None
            if reply.status not in OURS and BAD_KEY not in body:
                whole = Whole(reply.status, finish.error(reply.status, body), headers)
            error = _as_error(call, reply.status, body)
            raise Failed(str(reply.status), error, whole, retry_after_s(reply.headers))
        self._is_taken = True
        if not call.stream:
            body = await reply.read()
            self.admission.timings["upstream"] = (time.monotonic() - began) * 1000
            self._note_whole(body)
            return Whole(reply.status, finish.whole(body))
        events = self._events = self._read(reply, began)
        limit_s = call.timeout_s or reply.timeout_s
        try:
            async with asyncio.timeout(limit_s):
                first, message = await _first_event(events, call)
        except TimeoutError as error:
            raise UpstreamTimeout(f"{self.target.provider} sent no event within {limit_s:g} s") from error
        self._note_made(message.get("response") if isinstance(message, dict) else None)
        return Streamed(_finished(first, events, finish), finish.broken, finish.holds_request)

    async def _read(self, reply: Reply, began: float) -> AsyncGenerator[bytes, None]:
        """The events of a streamed answer, those that come together in one piece."""
        events, meter = Events(), Meter(self._call.format, self._estimate.input_tokens)
        timings = self.admission.timings

        def metered(whole: bytes) -> bytes:
            if "first_token" not in timings and b"data:" in whole:
                timings["first_token"] = (time.monotonic() - began) * 1000
            meter.read(whole)
            return whole

        try:
            async with contextlib.aclosing(reply.chunks()) as chunks:
                async for chunk in chunks:
                    try:
                        whole = events.whole(chunk)
                    except EventTooLong as error:
                        raise Unreachable(f"{self.target.provider}: {error}") from error
                    if whole:
                        yield metered(whole)
            if rest := events.rest():
                yield metered(rest + b"\n\n")
            timings["upstream"] = (time.monotonic() - began) * 1000
            if not meter.is_over:
                self.admission.outcome = "cut_off"
        finally:
            self._settle(meter.usage, meter.tier, exact=meter.is_exact)

    # --- what it has used so far

    def _note_sent(self) -> None:
        """The provider has the request: its input is spent, also if nobody waits for the answer."""
        if self._call.format not in COUNTS:
            self.admission.spent(Usage(input_tokens=self._estimate.input_tokens))
            self.admission.facts["usage"] = "estimated"

    def _note_refused(self) -> None:
        """It did not take the request."""
        self.admission.spent(Usage())
        self.admission.facts.pop("usage", None)

    def _note_whole(self, body: bytes) -> None:
        answer = decoded(body)
        self._note_made(answer)
        usage, tier = usage_and_tier(self._call.format, answer)
        found = usage_of(self._call.format, usage)
        if self._call.format in COUNTS:
            self._settle(Usage(), "default")
        elif found is None:
            tokens = 0 if self._call.format in EMBEDS else delivered(body)
            if not isinstance(answer, dict):  # whatever that was, the model has not written it
                tokens = min(tokens, self._estimate.output_tokens)
            self._settle(self._estimate._replace(output_tokens=tokens, more=NO_COUNTS), "default")
        else:
            self._settle(found, tier, exact=True)

    def _note_made(self, response: Any) -> None:
        """The provider has begun a response: who made it is recorded while it is read."""
        if self.keep is None or not isinstance(response, dict) or response.get("store") is False:
            return
        if is_id(id := response.get("id")) and self._reply is not None:
            self._keeping = asyncio.ensure_future(self.keep(id, self._reply.key))

    def _settle(self, usage: Usage, tier: str, exact: bool = False) -> None:
        self.admission.spent(usage)
        if exact:
            self.admission.facts.pop("usage", None)
            if (total_ms := self.admission.timings.get("upstream")) is not None:
                first_ms = self.admission.timings.get("first_token")
                self._speeds.note(self.target.name, total_ms, usage.output_tokens, first_ms)
            self._ratios.learn(self.admission.caller.account, self._asked_model, self._asked_size, usage.input_tokens)
        if tier != "default":
            price = self._prices.of(self.target.provider, self.target.model, tier, self.admission.request.alias)
            self.admission.cost = None if price is None else price.cost(usage)


async def _first_event(pieces: AsyncIterator[bytes], call: Call) -> tuple[bytes, Any]:
    """A stream up to its first real event, and what came with it; and the event's message. Raises Failed for an error
    in its place, or for nothing."""
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
                    status = 529 if said.get("type") == "overloaded_error" else _status_of(said)
                    raise Failed(str(status), _as_error(call, status, data))
            return bytes(held), message
        if len(held) > _LONGEST_BEGINNING:
            raise Failed("connection", Unreachable(f"the stream began with {len(held):,} bytes that say nothing"))
    raise Failed("connection", Unreachable("the stream ended before it began"))


def _status_of(error: Mapping[str, Any]) -> int:
    """That of an error within a stream; Google says it there too."""
    code = error.get("code")
    return code if isinstance(code, int) and 400 <= code <= 599 else 500


async def _finished(first: bytes, events: AsyncIterator[bytes], finish: Finish) -> AsyncIterator[bytes]:
    for piece in finish.event(first):
        yield piece
    async for event in events:
        for piece in finish.event(event):
            yield piece
    for piece in finish.end():
        yield piece


def is_plain(header: str) -> bool:
    """Whether a provider's header may go on to its client."""
    return 0 < len(header) <= 100 and header.isascii() and header.isprintable()


def _as_error(call: Call, status: int, body: bytes) -> UpstreamError:
    said = decoded(body)
    error = said.get("error") if isinstance(said, dict) else None
    message = error.get("message") if isinstance(error, dict) else error if isinstance(error, str) else None
    words = one_line(message if isinstance(message, str) else body[:200].decode("utf-8", "replace"), SHOWN_ERROR)
    return UpstreamError(f"{call.model}: the provider answered HTTP {status}: {words}", status=status)
