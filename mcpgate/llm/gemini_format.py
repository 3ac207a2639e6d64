"""What both sides of Gemini's generateContent share: spelling, paths, signatures, usage. Pure.

Google's API reads fields in camelCase and in snake_case, so both are accepted here. A signature of Gemini's belongs to
the part that it came with. In the neutral form it is that of a Thinking, and begins with a mark that says which part it
was, because other formats keep reasoning apart from what follows it."""

import base64
import functools
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from mcpgate import jsontext
from mcpgate.llm.bodies import is_plain
from mcpgate.llm.fields import Fields
from mcpgate.llm.messages import Thinking, TokenUsage

DECIDING = (
    *("generationConfig", "maxOutputTokens", "candidateCount", "serviceTier", "requests"),
    *("generation_config", "max_output_tokens", "candidate_count", "service_tier"),
    *("generateContentRequest", "generate_content_request"),
)
"""Fields by which a request is admitted: a provider must read them as the gateway does. A body that names a model is
rewritten anyway."""
_CONFIGS = ("generationConfig", "generation_config")
METHODS = {
    "gemini": "generateContent",
    "gemini_count": "countTokens",
    "gemini_embedding": "embedContent",
    "gemini_embeddings": "batchEmbedContents",
}
"""Formats of calls → what follows the model's name in the path. A streamed `gemini` has a method of its own."""
BAD_KEY = b'"API_KEY_INVALID"'
"""What Google says of a key that it does not know, with status 400."""
STREAM_METHOD = "streamGenerateContent"
_OPAQUE = frozenset(
    "args response parameters parametersJsonSchema parameters_json_schema responseJsonSchema response_json_schema "
    "responseSchema response_schema labels partMetadata part_metadata".split()
)
"""Fields whose content is the client's own."""
_DEEPEST = 12
"""Levels of a request down to the fields of a file in a function's response."""
_CAPITAL = re.compile("[A-Z]")
_SNAKE = re.compile(r"(?<=[a-z0-9])_([a-z0-9])")
_BEFORE_3 = re.compile(r"gemini-[12]\b")
UNSIGNED = "skip_thought_signature_validator"
"""Google's word for a call that the model has not made, or that has lost its signature."""
_THOUGHTS = b"mcpgate.thoughts."
"""Before a signature that holds thoughts of another model."""
_FOREIGN_BEGINNING = base64.b64encode(_THOUGHTS)[: len(_THOUGHTS) * 4 // 3]
"""What all of them begin with."""
_FOREIGN = re.compile(rb'"' + _FOREIGN_BEGINNING + rb'[A-Za-z0-9+/_=-]*"')
_MARK = re.compile(r"gemini\.(text|[0-9]{1,4})\.(.*)", re.DOTALL)


def camel(value: Any, depth: int = _DEEPEST) -> Any:
    """A request with all names of fields in camelCase. Where both spellings stand, the last one counts."""
    if isinstance(value, list):
        return [camel(one, depth - 1) for one in value] if depth else value
    if not isinstance(value, dict) or not depth:
        return value
    return {
        _camel_name(name) if "_" in name else name: one if name in _OPAQUE else camel(one, depth - 1)
        for name, one in value.items()
    }


def _camel_name(name: str) -> str:
    return _SNAKE.sub(lambda found: found[1].upper(), name)


@functools.cache
def snake_name(name: str) -> str:
    """The other spelling of a field of ours."""
    return _CAPITAL.sub(lambda found: "_" + found[0].lower(), name)


def path_of(format: str, model: str, stream: bool) -> str:
    """The path of a call, after the version."""
    method = STREAM_METHOD if stream else METHODS[format]
    return f"/models/{quote(model, safe='')}:{method}" + ("?alt=sse" if stream else "")


def body_for(body: bytes, parsed: Mapping[str, Any], model: str, most: int | None = None) -> bytes:
    """A client's body for a model: untouched, unless it names a model itself, a provider could read it differently, or
    another model has a part in the conversation, whose thoughts are no signatures of Gemini's. `most`: tokens that the
    answer may have, instead of what the client said."""
    named = _with_model(parsed, f"models/{model}")
    if most is not None:
        for name in [one for one in _CONFIGS if one in named] or _CONFIGS[:1]:
            config = {key: value for key, value in (named.get(name) or {}).items() if key != "max_output_tokens"}
            named[name] = config | {"maxOutputTokens": most}
    if named != parsed or not is_plain(body, DECIDING):
        body = jsontext.dumps(named)
    return _FOREIGN.sub(b'"%s"' % UNSIGNED.encode(), body) if _FOREIGN_BEGINNING in body else body


def render_foreign(held: bytes) -> str:
    """What a client of Gemini keeps as the signature of another model."""
    return base64.b64encode(_THOUGHTS + held).decode()


def parse_foreign(signature: str) -> bytes | None:
    """What `render_foreign` was given; None for anything else."""
    try:
        held = base64.b64decode(standard_base64(signature))
    except ValueError:
        return None
    return held.removeprefix(_THOUGHTS) if held.startswith(_THOUGHTS) else None


def standard_base64(data: str) -> str:
    """In the usual letters: Google's SDKs write those of URLs, often without padding."""
    data = data.replace("-", "+").replace("_", "/")
    return data + "=" * (-len(data) % 4)


def _with_model(request: Any, name: str) -> Any:
    """Models stand in the requests of a batch, too, and in the one whose tokens are counted."""
    if not isinstance(request, Mapping):
        return request
    changed = dict(request)
    if "model" in changed:
        changed["model"] = name
    for field in ("generateContentRequest", "generate_content_request"):
        if field in changed:
            changed[field] = _with_model(changed[field], name)
    if isinstance(changed.get("requests"), list):
        changed["requests"] = [_with_model(one, name) for one in changed["requests"]]
    return changed


def is_before_3(model: str) -> bool:
    """Whether a model is of the generations that think by a budget, need no signatures, and take no images in the
    results of functions."""
    return _BEFORE_3.match(model) is not None


def sign(place: int | None, signature: str) -> str:
    """The neutral form of a signature. `place`: which call of its message it came with; None: a text."""
    return f"gemini.{'text' if place is None else place}.{signature}"


def signed(thought: Thinking) -> tuple[int | None, str] | None:
    """What `sign` was given; None for a thought of another model."""
    found = _MARK.fullmatch(thought.signature)
    if found is None:
        return None
    return None if found[1] == "text" else int(found[1]), found[2]


def parse_usage(usage: Fields | None) -> TokenUsage | None:
    """Thoughts are not part of `candidatesTokenCount`, cached tokens are part of `promptTokenCount`."""
    if usage is None:
        return None
    thoughts = usage.whole("thoughtsTokenCount") or 0
    return TokenUsage(
        input=(usage.whole("promptTokenCount") or 0) + (usage.whole("toolUsePromptTokenCount") or 0),
        output=(usage.whole("candidatesTokenCount") or 0) + thoughts,
        cache_read=usage.whole("cachedContentTokenCount") or 0,
        reasoning=thoughts,
    )


def render_usage(usage: TokenUsage) -> dict[str, int]:
    counted = {
        "promptTokenCount": usage.input,
        "candidatesTokenCount": usage.output - usage.reasoning,
        "totalTokenCount": usage.input + usage.output,
    }
    if usage.cache_read:
        counted["cachedContentTokenCount"] = usage.cache_read
    if usage.reasoning:
        counted["thoughtsTokenCount"] = usage.reasoning
    return counted
