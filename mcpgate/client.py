"""The way back to a client while its request is under way, as everything between the faces and the upstreams sees it.
It decides nothing; api/mcp/backchannel.py implements it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class TaskState:
    """How a task stands that a server has made of a request."""

    id: str
    """The server's own."""
    status: str
    """`working`, `input_required`, `completed`, `failed` or `cancelled`."""
    message: str
    """In the server's words; may be empty."""
    poll_s: float
    """How often the server wants to be asked, in seconds."""


class Client(Protocol):
    """The channel back to the client, open while the request is in progress."""

    @property
    def capabilities(self) -> Mapping[str, Any]:
        """What it can be asked: MCP's `ClientCapabilities`."""
        ...

    @property
    def origin(self) -> object:
        """Equal for all requests of one client, and only for those."""
        ...

    @property
    def is_live(self) -> bool:
        """Whether it is asked in the middle of its request, as in the handshake era."""
        ...

    @property
    def takes_questions(self) -> bool:
        """Whether it takes a result that asks for input as it is, and sends the request again with the answers."""
        ...

    @property
    def takes_tasks(self) -> bool:
        """Whether its request may become a task, whose result it fetches later."""
        ...

    def task(self, state: TaskState) -> None:
        """Hear that the server has made a task of the request, and how it stands."""
        ...

    def progress(self, params: Mapping[str, Any]) -> None:
        """Pass on progress: the parameters of MCP's `notifications/progress`, with any token."""
        ...

    def log(self, params: Mapping[str, Any]) -> None:
        """Pass on a log message: the parameters of `notifications/message`."""
        ...

    async def ask(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Have the person or the model there answer: `elicitation/create`, `sampling/createMessage`, `roots/list`.
        Raises NotSupported, McpgateError."""
        ...
