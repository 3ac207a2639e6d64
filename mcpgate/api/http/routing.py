"""Which handler answers which path and method, and the parts of a REST route: what /api serves and what its OpenAPI
document is made from is one table."""

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import BaseModel

from mcpgate.api.http.exchange import Exchange, plain_refusal
from mcpgate.api.http.sockets import Socket
from mcpgate.errors import InvalidRequest, McpgateError
from mcpgate.governance.callers import Caller

Handler = Callable[[Exchange], Awaitable[None]]
SocketHandler = Callable[[Socket, Exchange], Awaitable[None]]
"""Gets the socket and the request for it, before it is accepted."""


class MethodNotAllowed(McpgateError):
    """The route does not take this method; carries those it takes."""

    code, http_status = "invalid_request", 405


class Face(ABC):
    """One protocol over HTTP: its handlers, and the shape of its refusals."""

    @abstractmethod
    def handler(self, path: str) -> Mapping[str, Handler] | None:
        """Method → handler of a path of this face; None where it is another's."""

    def socket_handler(self, path: str) -> SocketHandler | None:
        """Who answers a WebSocket at a path of this face; None where there is none."""
        return None

    def refusal(self, error: McpgateError) -> dict[str, Any]:
        """The body of a refusal. This one is for REST; protocols with an error object of their own override it."""
        return plain_refusal(error)


@dataclass(frozen=True, slots=True)
class Call:
    """One request of a REST route, taken apart."""

    caller: Caller
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any

    def whole_number(self, name: str, default: int, most: int) -> int:
        """A query parameter. Raises InvalidRequest."""
        text = self.query.get(name)
        if text is None:
            return default
        if len(text) > 20 or not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
            raise InvalidRequest(f"{name} must be a whole number from 1 to {most}, not {text[:40]!r}")
        return int(text)


@dataclass(frozen=True, slots=True)
class Reply:
    body: bytes
    status: int = 200
    content_type: str = "application/json"
    events: AsyncIterator[Sequence[bytes]] | None = None
    """Instead of a body: server-sent events, in groups; an empty group when there is nothing new."""


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str
    """With {names}."""
    summary: str
    handle: Callable[[Call], Awaitable[Reply]]
    body: type[BaseModel] | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    """Name → what it is."""
    status: int = 200
    for_realms: bool = False
    """Whether it is also for administrators of one team or customer, and shows them only what is theirs."""
    admin: bool = True
    """Whether it needs the grant `admin`; the others decide themselves what a caller may see."""


class Routes:
    """A table of REST routes."""

    def __init__(self, routes: list[Route]) -> None:
        self._patterns = [(route, _pattern(route.path)) for route in routes]

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """The route of a request with the values of its {names}; None where there is none. Raises
        MethodNotAllowed."""
        allowed = []
        for route, pattern in self._patterns:
            if (found := pattern.fullmatch(path)) is None:
                continue
            if route.method == method:
                return route, found.groupdict()
            allowed.append(route.method)
        if allowed:
            shown = ", ".join(allowed)
            raise MethodNotAllowed(f"{method} is not allowed on {path}; {shown} is", allow=shown)
        return None


def check_text(value: Any) -> None:
    """Raises InvalidRequest for text that not every database takes."""
    try:
        odd = b"\\u0000" in orjson.dumps(value)
    except TypeError:  # halves of surrogate pairs
        odd = True
    if odd:
        raise InvalidRequest("text holds a NUL or half a surrogate pair")


def json_reply(value: Any, status: int = 200) -> Reply:
    return Reply(orjson.dumps(value, default=str), status)


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))
