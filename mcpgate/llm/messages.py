"""The neutral form of a conversation with a model. Where client and provider speak different wire formats, everything
is translated into it and out of it. Frozen values; no format is known here. What a format can say and this cannot is
refused by the name of its field, never dropped: see `Untranslatable`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from mcpgate.errors import InvalidRequest

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Untranslatable(InvalidRequest):
    """A part of a request, or of an answer, that the other side's format has no form for."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}", field=field)


# --- What is said


@dataclass(frozen=True, slots=True)
class Text:
    text: str
    cache: Mapping[str, Any] | None = None
    """A cache mark after this part, as `{"type": "ephemeral", "ttl": "1h"}`; None: none."""


@dataclass(frozen=True, slots=True)
class Image:
    media_type: str
    """Such as `image/png`; empty for a URL of unknown kind."""
    data: str = ""
    """Base64; empty if there is a URL."""
    url: str = ""
    detail: str = ""
    """`low`, `high` or `auto`, where the client says so."""
    cache: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class File:
    """A document, such as a PDF."""

    media_type: str
    data: str = ""
    """Base64; empty if there is a URL."""
    url: str = ""
    name: str = ""
    cache: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Thinking:
    """Reasoning of the model. With a signature or encrypted data it must go back to the model unchanged."""

    text: str
    signature: str = ""
    encrypted: str = ""
    """All there is where the provider hides the text."""
    id: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str
    name: str
    arguments: str
    """JSON text, exactly as the model wrote it; `{}` for none."""
    cache: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ToolResult:
    call_id: str
    parts: "tuple[Text | Image | File, ...]"
    is_error: bool = False
    cache: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The model's own refusal, in words."""

    text: str


Part = Text | Image | File | Thinking | ToolCall | ToolResult | Refused


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["user", "assistant", "system"]
    """Results of tools are parts of the user's messages. A `system` message holds instructions that come later in the
    conversation; those at its beginning are `ChatRequest.system`."""
    parts: tuple[Part, ...]


# --- What is asked for


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call."""

    name: str
    description: str = ""
    schema: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    strict: bool | None = None
    cache: Mapping[str, Any] | None = None
    freeform: bool = False
    """The client takes free text instead of JSON: that of the argument `input`."""
    namespace: str = ""
    """The client's name for a group of tools; `name` is then `NAMESPACE__NAME`."""


@dataclass(frozen=True, slots=True)
class ToolChoice:
    mode: Literal["auto", "none", "required", "tool"] = "auto"
    name: str = ""
    """Of the tool that must be called, for mode `tool`."""
    parallel: bool | None = None
    """Whether several calls at once are allowed; None: the client has not said."""


@dataclass(frozen=True, slots=True)
class JsonOutput:
    """The answer must be JSON; with a schema, of that form."""

    schema: Mapping[str, Any] | None = None
    name: str = "answer"
    strict: bool | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class Reasoning:
    """How much the model should think before it answers. At most one of both is set; neither: as the model likes."""

    effort: str = ""
    """`none`, `minimal`, `low`, `medium`, `high`, `xhigh` or `max`."""
    budget_tokens: int | None = None
    adaptive: bool = False
    """The model decides by itself how much it thinks."""
    shown: bool = False
    """Whether the client wants to see (a summary of) it."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request to a model."""

    model: str
    messages: tuple[Message, ...]
    system: tuple[Text, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    output: JsonOutput | None = None
    reasoning: Reasoning | None = None
    verbosity: str = ""
    """`low` or `high`; empty: as usual."""
    user: str = ""
    """Whom the client says that it asks for; passed on for abuse detection."""
    stream: bool = False
    include_usage: bool = True
    """Whether the client wants usage in the stream."""


# --- What comes back


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens as providers count them, in one form: `input` holds the cached ones too."""

    input: int = 0
    output: int = 0
    """Reasoning included."""
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    """Of `cache_write`, those kept for an hour."""
    reasoning: int = 0


StopReason = Literal["stop", "length", "tool_calls", "stop_sequence", "refusal", "content_filter", "pause"]


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """One whole answer."""

    id: str
    model: str
    parts: tuple[Text | Thinking | ToolCall | Refused, ...]
    stop: StopReason
    usage: TokenUsage | None
    """None where the provider sent none."""
    stop_sequence: str = ""
    created: int = 0
    """Epoch seconds; 0: unknown."""


# --- The same, piece by piece


@dataclass(frozen=True, slots=True)
class Started:
    id: str
    model: str
    usage: TokenUsage | None = None
    """What is known of it at the beginning."""
    created: int = 0
    """Epoch seconds; 0: unknown."""


@dataclass(frozen=True, slots=True)
class PartStarted:
    """A part begins, at an index that counts from 0 and never repeats. `part` holds what is known of it; a Text is
    empty, a ToolCall has id and name and empty arguments."""

    index: int
    part: Text | Thinking | ToolCall | Refused


@dataclass(frozen=True, slots=True)
class PartGrew:
    """More of a part: of a text, of a tool's arguments, of reasoning or of its signature. Parts may grow by turns."""

    index: int
    text: str = ""
    signature: str = ""


@dataclass(frozen=True, slots=True)
class PartEnded:
    index: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """The last event of a good stream."""

    stop: StopReason
    usage: TokenUsage | None
    stop_sequence: str = ""


@dataclass(frozen=True, slots=True)
class Broken:
    """The provider has ended the stream with an error."""

    type: str
    """In the provider's words, such as `overloaded_error`."""
    message: str


StreamEvent = Started | PartStarted | PartGrew | PartEnded | Stopped | Broken


def text_of(parts: Sequence[Part]) -> str:
    """The text of parts, joined."""
    return "".join(part.text for part in parts if isinstance(part, Text))
