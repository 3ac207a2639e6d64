"""What a client has asked for, as its face has read it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from mcpgate.cache.policy import NO_WISH, Wish
from mcpgate.llm.metering import Size
from mcpgate.llm.objects import Kept

COUNTS = frozenset(("count_tokens", "gemini_count", "input_tokens"))
"""Formats that only count tokens."""
EMBEDS = frozenset(("embeddings", "gemini_embedding", "gemini_embeddings", "bedrock_embedding"))
"""Formats of embeddings; the last one is only a provider's."""
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as its face has read it."""

    format: str
    """`chat`, `responses`, `messages`, `embeddings`, `count_tokens`, `input_tokens` or `compact`; or one of
    gemini_format.METHODS, whose model and `stream` stand in the path."""
    body: bytes
    parsed: Mapping[str, Any]
    model: str
    stream: bool = False
    max_tokens: int | None = None
    answers: int = 1
    """How many answers it wants (`n`)."""
    tools: bool = False
    images: bool = False
    session: str = ""
    size: Size = field(default_factory=lambda: Size(0))
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS)
    """What goes on to a provider of the same format."""
    query: str = ""
    """The query of its address, such as `beta=true`, which goes on with them."""
    kept: Kept | None = None
    """What it goes on with, which only the provider that keeps it knows."""
    framing: Literal["events", "array"] = "events"
    """How it reads a stream: server-sent events, or one JSON array."""
    cache: Wish = NO_WISH
    """How it wants to use the cache."""
