"""What a request for a model is about, read from its body and headers. Pure."""

from collections.abc import Mapping
from typing import Any

from mcpgate import jsontext
from mcpgate.api.http.exchange import Exchange
from mcpgate.cache.policy import read_wish
from mcpgate.errors import InvalidRequest
from mcpgate.llm.asked import Asked
from mcpgate.llm.bodies import BINDING, DECIDING, find_lookalike
from mcpgate.llm.bound import CONTINUING
from mcpgate.llm.gemini_format import METHODS
from mcpgate.llm.messages import Untranslatable
from mcpgate.llm.metering import size_of
from mcpgate.telemetry.text import visible

_SESSION_HEADERS = (
    *("x-claude-code-session-id", "session-id", "thread-id", "x-session-id", "x-session-affinity"),
    "x-mcpgate-session",
)
"""By which agents name their sessions."""
_PASSED_ON: dict[str, tuple[str, ...]] = {
    "messages": ("anthropic-version", "anthropic-beta"),
    "count_tokens": ("anthropic-version", "anthropic-beta"),
    **dict.fromkeys(
        ("responses", "input_tokens", "compact"),
        ("openai-beta", "originator", "version", "session-id", "thread-id", "x-codex-beta-features"),
    ),
    "chat": ("openai-beta",),
    "embeddings": (),
    **dict.fromkeys(METHODS, ("x-goog-api-client",)),
}
"""Headers of a client that belong to its format, and go on to a provider of the same one."""
_LONGEST_NAME = 512


def query_of(http: Exchange) -> str:
    """The query that clients of Anthropic add to ask for betas; any other is nobody's business but ours."""
    text = http.scope.get("query_string", b"").decode("latin-1")
    return text if text == "beta=true" else ""


def read_asked(format: str, body: bytes, headers: Mapping[str, str], query: str) -> Asked:
    """Raises InvalidRequest."""
    parsed = read_object(body)
    model = read_name(parsed.get("model"))
    deciding = (*DECIDING, *BINDING) if format in CONTINUING else DECIDING
    if (odd := find_lookalike(parsed, deciding)) is not None:
        raise Untranslatable(visible(odd), f"is not a field; {odd.casefold()} is, in lower case")
    if parsed.get("background"):
        raise Untranslatable("background", "what is done in the background cannot be paid for; leave it out")
    stream = parsed.get("stream", False)
    if stream is not None and not isinstance(stream, bool):
        raise Untranslatable("stream", "must be true or false")
    tools = parsed.get("tools")
    return Asked(
        format=format,
        body=body,
        parsed=parsed,
        model=model,
        size=size_of(body, parsed),
        stream=bool(stream) and format in ("chat", "responses", "messages"),
        max_tokens=_most(parsed),
        answers=whole_number(parsed, "n") or 1,
        tools=isinstance(tools, list) and bool(tools),
        images=b'"image' in body,
        session=session_of(parsed, headers),
        query=query,
        headers=passed_on(format, headers),
        cache=read_wish(headers),
    )


def read_object(data: bytes, called: str = "the body") -> dict[str, Any]:
    """Raises InvalidRequest, which says what the data is `called`."""
    try:
        parsed = jsontext.loads(data, most=jsontext.MAX_REQUEST_VALUES)
    except ValueError as error:
        raise InvalidRequest(f"{called} is not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise InvalidRequest(f"{called} must be a JSON object")
    return parsed


def read_name(model: Any) -> str:
    """The name of a model. Raises InvalidRequest."""
    if not isinstance(model, str) or not 0 < len(model) <= _LONGEST_NAME or not model.isprintable():
        raise Untranslatable("model", f"must be the name of a model, of at most {_LONGEST_NAME} printable characters")
    return model


def passed_on(format: str, headers: Mapping[str, str]) -> dict[str, str]:
    return {name: headers[name] for name in _PASSED_ON[format] if name in headers and headers[name].isascii()}


def _most(parsed: Mapping[str, Any]) -> int | None:
    """The most of all limits that are given: which one counts is up to the provider."""
    given = [whole_number(parsed, name) for name in ("max_completion_tokens", "max_output_tokens", "max_tokens")]
    return max((one for one in given if one is not None), default=None)


def whole_number(parsed: Mapping[str, Any], name: str) -> int | None:
    """Raises InvalidRequest for less than 1."""
    value = parsed.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
        raise Untranslatable(name, "must be a whole number of at least 1")
    return value


def session_of(parsed: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    """Empty if it has no name."""
    for name in _SESSION_HEADERS:
        if headers.get(name):
            return visible(headers[name][:200])
    key = parsed.get("prompt_cache_key")
    return visible(key[:200]) if isinstance(key, str) else ""
