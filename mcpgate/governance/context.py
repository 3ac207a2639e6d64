"""One request of one caller on its way through the gateway: who asks, how to reach who asks while it is under way, and
what has been admitted for it. It decides nothing: see admission.py."""

import random
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from mcpgate.errors import McpgateError
from mcpgate.governance.callers import Caller
from mcpgate.governance.records import Balance, Request
from mcpgate.governance.rule import Share

_random = random.Random(secrets.randbits(256))


class Client(Protocol):
    """The way back to who asked, open while the request is under way."""

    def progress(self, params: Mapping[str, Any]) -> None:
        """Pass on progress: the parameters of MCP's `notifications/progress`, whatever token they carry."""
        ...


class _Silent:
    """A client that nothing can be told before its answer."""

    def progress(self, params: Mapping[str, Any]) -> None:
        pass


SILENT: Client = _Silent()


class Admitted:
    """What is known of one admitted request, for whoever answers it."""

    __slots__ = ("balances", "request", "shares", "total", "warnings")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.shares: tuple[Share, ...] = ()
        """What every rule that applies takes from it."""
        self.balances: tuple[Balance, ...] = ()
        """What the counter of each share stood at when it was reserved, this request included."""
        self.total = 0
        """Nano-dollars, when it is over: with what was called from inside."""
        self.warnings: tuple[str, ...] = ()
        """Of budgets beyond their soft limits."""


@dataclass(slots=True)
class Trail:
    """What a request has learned on its way, for whoever answers it."""

    admitted: list[Admitted] = field(default_factory=list)
    """In order; requests from inside another are counted in that one's `total`."""
    refusal: McpgateError | None = None
    """Why it was refused, where the answer itself is no error."""

    @property
    def warnings(self) -> list[str]:
        """Of budgets beyond their soft limits, each once."""
        return list(dict.fromkeys(text for one in self.admitted for text in one.warnings))


def _new_id() -> str:
    return f"{_random.getrandbits(64):016x}"


@dataclass(slots=True)
class RequestContext:
    """Made by the face that took the request, handed to everything that works on it."""

    caller: Caller
    """As identified when the request came; of calls from running code, as it is now."""
    client: Client = SILENT
    id: str = field(default_factory=_new_id)
    """16 hexadecimal digits, the `x-request-id` of the answer."""
    trace: str | None = None
    """The `traceparent` that the request carried (W3C Trace Context)."""
    parent: Admitted | None = None
    """The execution or chat that requests of this context belong to."""
    trail: Trail = field(default_factory=Trail)

    def inside(self, parent: Admitted, client: Client | None = None) -> "RequestContext":
        """The context of requests that are made on behalf of an admitted one."""
        return replace(self, parent=parent, client=client or self.client)
