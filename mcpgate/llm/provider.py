"""The contract between the flow and whoever serves models. Implementations: providers/."""

import email.utils
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol

from mcpgate.errors import UpstreamError

UPLOAD_S = 600.0
"""How long an upload may take."""
NOTHING: Mapping[str, str] = MappingProxyType({})


class Unreachable(UpstreamError):
    """No connection to the provider, or it broke, or brings what is no answer."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A body that is passed on while it comes."""

    length: int
    """Bytes in all."""
    pieces: AsyncIterator[bytes]

    async def whole(self) -> AsyncIterator[bytes]:
        """The pieces, which are as long as they should be. Raises Unreachable if they are not, and what they do."""
        sent = 0
        async for piece in self.pieces:
            sent += len(piece)
            yield piece
        if sent != self.length:
            raise Unreachable(f"{sent:,} of {self.length:,} bytes of the upload have come")


class Call(NamedTuple):
    """One request to a provider, in a format that it speaks."""

    format: str
    """As in Asked."""
    body: bytes
    model: str
    """The provider's own name of it, which the body or the path has too."""
    stream: bool = False
    headers: Mapping[str, str] = NOTHING
    """What the client said that belongs to the format, such as `anthropic-beta`."""
    query: str = ""
    """Of the client's address, if it goes on."""
    max_tokens: int | None = None
    """The most that the answer may have, if the body says so and the client did not."""
    timeout_s: float | None = None
    """Until the answer begins; None: the provider's own."""
    method: str = "POST"
    path: str = ""
    """What follows the provider's address; empty: that of the format."""
    key: str = ""
    """The mark of the key that must be used, if the provider still has it; empty: any."""
    content_type: str = "application/json"
    upload: Upload | None = None
    """Instead of `body`. It can be sent once, so a key that is refused is not replaced by another."""


class Reply(Protocol):
    """What a provider answers."""

    status: int
    headers: Mapping[str, str]
    timeout_s: float
    """How long the provider may be silent, and how long a whole body may take."""
    key: str
    """The mark of the key that it was asked with."""

    async def read(self) -> bytes:
        """The whole body. Raises Unreachable, UpstreamTimeout."""
        ...

    async def error(self) -> bytes:
        """The body of an error, as much of it as comes soon, without the secrets of the provider."""
        ...

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes. Raises Unreachable, UpstreamTimeout."""
        ...

    async def aclose(self) -> None:
        """Once, when nobody reads it any more, whether or not it has ended."""
        ...


class Provider(Protocol):
    """One provider of the configuration."""

    name: str
    formats: frozenset[str]
    """Those of `Call.format` that it speaks itself."""
    limit_field: str
    """What Chat Completions call the most tokens of an answer: `max_completion_tokens` at OpenAI, `max_tokens`
    elsewhere."""
    takes_cache_key: bool
    """Whether it knows `prompt_cache_key`."""
    keeps_objects: bool
    """Whether it keeps responses and files, as OpenAI does."""
    under_way: int
    """Requests that it has not answered to the end."""

    @property
    def is_busy(self) -> bool:
        """Whether requests are under way."""
        ...

    async def send(self, call: Call) -> Reply:
        """Send a request; the answer has begun, and is to be closed. Raises Unreachable, UpstreamTimeout, RateLimited
        for a provider with `max_concurrency` requests."""
        ...

    async def probe(self) -> str:
        """What is wrong with it, in words; empty if it can be reached and accepts its keys."""
        ...

    async def aclose(self) -> None: ...


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The pause that an answer asks for, in seconds."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "")
        try:
            return max(0.0, float(text) * unit)
        except ValueError:
            pass
    try:
        moment = email.utils.parsedate_to_datetime(headers.get("retry-after", "")).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, moment - time.time())
