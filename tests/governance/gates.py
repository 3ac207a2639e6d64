"""Gates for tests: on any store, with prices of tools given briefly; and an event loop whose time passes only when
everything waits, for tests of waiting."""

import asyncio
import math
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, TypeVar

from mcpgate.config.governance import GovernanceConfig
from mcpgate.errors import McpgateError
from mcpgate.governance.callers import LOCAL, Caller
from mcpgate.governance.context import Admitted, RequestContext
from mcpgate.governance.gate import Gate
from mcpgate.governance.prices import Prices
from mcpgate.governance.records import Request, Usage
from mcpgate.governance.store import Counters, Store
from mcpgate.lifecycle import GovernanceStores
from mcpgate.telemetry.metrics import Metrics
from tests.stores.conftest import NOW

T = TypeVar("T")
PRICES = {"read": "0.01", "write": "0.02", "dear": "1", "free": "0", "odd": "0.000000007"}
CENT = 10**7
"""In nano-dollars."""


class Clock:
    """Epoch seconds, as the gate sees them."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def prices(tools: Mapping[str, str] = PRICES, second: str | None = None) -> Prices:
    return Prices(
        {"files": {name: Decimal(usd) for name, usd in tools.items()}}, None if second is None else Decimal(second)
    )


def make_gate(
    counters: Counters,
    store: Store,
    clock: Callable[[], float] | None = None,
    metrics: Metrics | None = None,
    second: str | None = None,
    **settings: Any,
) -> Gate:
    config = GovernanceConfig.model_validate(settings)
    more = {} if clock is None else {"clock": clock}
    return Gate(config, prices(second=second), counters, store, metrics or Metrics(), **more)


@asynccontextmanager
async def gate_on(
    stores: GovernanceStores | Any, clock: Callable[[], float] | None = None, **settings: Any
) -> AsyncIterator[Gate]:
    """`stores`: anything with `counters` and `store`, or that is both."""
    counters, store = getattr(stores, "counters", stores), getattr(stores, "store", stores)
    gate = make_gate(counters, store, clock, **settings)
    await gate.start()
    try:
        yield gate
    finally:
        await gate.aclose()


def tool(name: str = "read", calls: int = 1, at: float | None = None, **others: Any) -> Request:
    more = {} if at is None else {"at": at}
    return Request("tool", server="files", tool=name, estimate=Usage(calls=calls), **more, **others)


async def call(
    gate: Gate,
    request: Request | None = None,
    caller: Caller = LOCAL,
    calls: int = 1,
    inside: Admitted | None = None,
) -> None:
    """Make a call with a usage of `calls`, inside another request if one is given."""
    async with gate.admit(RequestContext(caller, parent=inside), request or tool()) as admission:
        admission.spent(Usage(calls=calls))


async def refusal_of(gate: Gate, request: Request | None = None, caller: Caller = LOCAL) -> McpgateError:
    """The error that refuses a call, which must be refused."""
    try:
        async with gate.admit(RequestContext(caller), request or tool()):
            pass
    except McpgateError as error:
        return error
    raise AssertionError("it was admitted")


async def standing(counters: Counters, short: str, oldest: int = 0) -> tuple[int, int]:
    """What is spent and held; `short` is `rule|measure|subject`, ignoring parts in between."""
    found = await counters.read([(name, oldest) for name in await names_of(counters, short)])
    return sum(one.spent for one in found), sum(one.held for one in found)


async def names_of(counters: Counters, short: str) -> list[str]:
    rule, measure, subject = short.split("|")
    return [name for name in await counters.names(f"{rule}|{measure}|", 100) if name.rpartition("|")[2] == subject]


async def race(gate: Gate, wanted: Callable[[], Request], callers: int, decided: Callable[[], Any]) -> int:
    """Callers at one barrier; admitted ones stay until all are decided, when `decided` is set. Returns how many were
    admitted."""
    barrier, leave = asyncio.Barrier(callers), asyncio.Event()
    left = callers
    admitted = 0

    async def one() -> None:
        nonlocal left, admitted

        async def done() -> None:
            nonlocal left
            left -= 1
            if not left:
                answer = decided()
                if answer is not None:
                    await answer
                leave.set()

        await barrier.wait()
        try:
            async with gate.admit(RequestContext(LOCAL), wanted()) as admission:
                admission.spent(Usage(calls=1))
                admitted += 1
                await done()
                await leave.wait()
        except McpgateError as error:
            assert error.http_status in (402, 429), error
            await done()

    await asyncio.gather(*(one() for _ in range(callers)))
    return admitted


class _Selector(selectors.DefaultSelector):  # type: ignore[misc,valid-type]
    """Does not wait: time advances at once."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise AssertionError("everybody waits, and nothing will come")
        found = super().select(0)
        if not found and timeout > 0:
            self.skipped += timeout
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time passes only when everybody waits, and then at once. For what needs no threads."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.skipped

    @property
    def _clock_resolution(self) -> float:
        return 1e-9

    @_clock_resolution.setter
    def _clock_resolution(self, _: float) -> None:
        pass


def in_virtual_time(work: Callable[[Callable[[], float]], Coroutine[Any, Any, T]]) -> T:
    """Runs work, which is given a clock that goes with the loop."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        return runner.run(work(lambda: NOW + math.floor(loop.time() * 1e6) / 1e6))
