"""What a wire format of models is to the rest of the gateway: pure functions between bodies and messages.py. A format
has two sides: that of clients (api/llm/) and that of providers (providers/).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, Protocol

from mcpgate.errors import McpgateError
from mcpgate.llm.asked import Asked
from mcpgate.llm.messages import ChatAnswer, ChatRequest, StreamEvent
from mcpgate.llm.provider import Call, Provider
from mcpgate.llm.routing import Target

Format = Literal["chat", "responses", "messages", "gemini"]
"""OpenAI's Chat Completions and Responses, Anthropic's Messages, and Gemini's generateContent."""


class ClientSide(Protocol):
    """How clients of a format ask, and what they read. One module each, api/llm/FORMAT.py."""

    def parse_request(self, body: Mapping[str, Any]) -> ChatRequest:
        """Raises InvalidRequest for what the format does not allow, Untranslatable for what has no neutral form."""
        ...

    def render_answer(self, answer: ChatAnswer, request: ChatRequest) -> dict[str, Any]: ...

    def render_stream(self, request: ChatRequest) -> "StreamWriter":
        """What turns the events of one answer into server-sent events."""
        ...


class StreamWriter(Protocol):
    def write(self, event: StreamEvent) -> Iterable[bytes]:
        """Whole server-sent events, with their blank lines."""
        ...


class ProviderSide(Protocol):
    """How providers of a format are asked, and what they answer. One module each, providers/FORMAT.py."""

    def render_request(self, request: ChatRequest) -> dict[str, Any]:
        """The body. Raises Untranslatable, with the name of what the format has no form for."""
        ...

    def parse_answer(self, body: Mapping[str, Any]) -> ChatAnswer:
        """Raises Untranslatable, ValueError for what is no answer."""
        ...

    def parse_stream(self) -> "StreamReader": ...


class StreamReader(Protocol):
    def read(self, name: str, data: bytes) -> Iterator[StreamEvent]:
        """The events of one server-sent event: its name (may be empty) and its data. Raises ValueError for what is no
        event of the format; Untranslatable."""
        ...

    def end(self) -> Iterator[StreamEvent]:
        """What is still to be said when the stream has ended. Raises ValueError if it ended before the answer did."""
        ...


class Finish(Protocol):
    """What becomes of one provider's answer on its way to the client."""

    holds_request: bool
    """Whether it needs what the client has asked."""

    def whole(self, body: bytes) -> bytes:
        """Raises UpstreamError for what is no answer."""
        ...

    def error(self, status: int, body: bytes) -> bytes:
        """The body of an error that the provider has answered with."""
        ...

    def event(self, event: bytes) -> Iterable[bytes]:
        """What the client gets for one server-sent event, or for several that came at once."""
        ...

    def end(self) -> Iterable[bytes]:
        """What the client gets when the provider's stream has ended."""
        ...

    def broken(self, error: McpgateError) -> Iterable[bytes]:
        """What it gets when the stream broke."""
        ...


class Translator(Protocol):
    """Makes one client's request fit one provider."""

    def call_for(
        self, provider: Provider, asked: Asked, target: Target, most: int | None = None, cache_key: str = ""
    ) -> tuple[Call, Finish]:
        """What the provider is sent, and what its answer becomes. `most`: tokens that the answer may have, instead of
        what the client said. `cache_key`: whose requests begin alike, if the provider shall keep their beginning.
        Raises Untranslatable."""
        ...
