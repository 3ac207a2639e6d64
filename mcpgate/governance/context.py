"""One request of one caller on its way through the gateway: the caller, its client while it is in progress, and
what was admitted for it. It decides nothing: see admission.py."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mcpgate.client import Client, TaskState
from mcpgate.errors import McpgateError, NotSupported
from mcpgate.governance.callers import Caller
from mcpgate.governance.records import EMPTY, Balance, Request, random_hex
from mcpgate.governance.rule import Share
from mcpgate.telemetry.trace import Trace


class _Silent:
    """A client that cannot receive anything before its answer."""

    capabilities: Mapping[str, Any] = EMPTY
    origin: object = None
    is_live = takes_questions = takes_tasks = False

    def task(self, state: TaskState) -> None:
        pass

    def progress(self, params: Mapping[str, Any]) -> None:
        pass

    def log(self, params: Mapping[str, Any]) -> None:
        pass

    async def ask(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        raise NotSupported(f"there is no client that could answer {method}")


SILENT: Client = _Silent()


class Admitted:
    """What is known about one admitted request, for its answer."""

    __slots__ = ("balances", "request", "shares", "total", "warnings")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.shares: tuple[Share, ...] = ()
        """What every rule that applies takes from it."""
        self.balances: tuple[Balance, ...] = ()
        """The balance of each share's counter when it was reserved, including this request."""
        self.total = 0
        """Nano-dollars, once it is over, including nested calls."""
        self.warnings: tuple[str, ...] = ()
        """About budgets over their soft limits."""


@dataclass(slots=True)
class Trail:
    """What a request collects on its way, for its answer."""

    admitted: list[Admitted] = field(default_factory=list)
    """In order; nested requests are counted in the outer one's `total`."""
    refusal: McpgateError | None = None
    """Why it was refused, if the answer itself is not an error."""

    @property
    def warnings(self) -> list[str]:
        """About budgets over their soft limits, each once."""
        return list(dict.fromkeys(text for one in self.admitted for text in one.warnings))


@dataclass(slots=True)
class RequestContext:
    """Created by the face that received the request, passed to everything that works on it."""

    caller: Caller
    """As identified when the request arrived; for calls from running code, as of now."""
    client: Client = SILENT
    id: str = field(default_factory=lambda: random_hex(16))
    """16 hexadecimal digits, the `x-request-id` of the answer."""
    trace: Trace | None = None
    """The trace that the request belongs to, if it carried one or traces are exported."""
    parent: Admitted | None = None
    """The execution or chat to which requests of this context belong."""
    trail: Trail = field(default_factory=Trail)
    about: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    """What the request log says of where it came from: client, session."""
    cache_mode: str | None = None
    """How it wants results of tools from the cache: use, refresh, no-store or off; None: as the servers say."""

    def inside(self, parent: Admitted, client: Client | None = None) -> "RequestContext":
        """The context of requests that are made on behalf of an admitted one."""
        return RequestContext(
            self.caller, client or self.client, self.id, self.trace, parent, self.trail, cache_mode=self.cache_mode
        )
