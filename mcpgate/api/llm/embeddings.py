"""Embeddings between the formats of OpenAI, of Gemini and of the models at Bedrock. Pure. What has no form in the other
format is refused by its name; of whom a request is (`user`) is left out."""

import base64
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from mcpgate import jsontext
from mcpgate.api.llm import errors
from mcpgate.errors import McpgateError, UpstreamError
from mcpgate.llm.asked import Asked
from mcpgate.llm.gemini_format import camel
from mcpgate.llm.messages import Untranslatable
from mcpgate.llm.metering import decoded, usage_and_tier, usage_of
from mcpgate.llm.provider import Call, Provider
from mcpgate.llm.routing import Target

_MOST_TEXTS = 2048
"""Of one request; OpenAI's limit."""
_MOST_NUMBERS = 600_000
"""In one answer: decoded and written again in some 100 ms, during which nothing else happens."""
_TASKS = {
    "search_document": "RETRIEVAL_DOCUMENT",
    "search_query": "RETRIEVAL_QUERY",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
}
"""What embeddings are for: Cohere's words (`input_type`) → Google's (`taskType`)."""
_OPENAI = frozenset(("model", "input", "dimensions", "encoding_format", "user", "input_type"))
_GEMINI = frozenset(("model", "content", "taskType", "outputDimensionality"))
_TITAN, _COHERE = re.compile(r"(?:^|[./])amazon\.titan-embed"), re.compile(r"(?:^|[./])cohere\.embed")


@dataclass(frozen=True, slots=True)
class Embedding:
    """What is to be embedded."""

    texts: tuple[str, ...]
    dimensions: int | None = None
    task: str = ""
    """In Cohere's words; empty if the client does not say it."""
    as_base64: bool = False
    """Whether an OpenAI client wants numbers in base64."""


def translated(provider: Provider, asked: Asked, target: Target) -> "tuple[Call, EmbeddingFinish]":
    """A request for embeddings in the format that a provider speaks. Raises Untranslatable."""
    request = parse_openai(asked.parsed) if asked.format == "embeddings" else parse_gemini(asked.format, asked.parsed)
    if "embeddings" in provider.formats:
        format, body = "embeddings", render_openai(request, target.model)
    elif "gemini_embeddings" in provider.formats:
        format, body = "gemini_embeddings", {"requests": render_gemini(request, target.model)}
    elif "gemini_embedding" in provider.formats:
        format, body = "gemini_embedding", _only(render_gemini(request, target.model), target)
    elif "bedrock_embedding" in provider.formats:
        format, body = "bedrock_embedding", render_bedrock(request, target)
    else:
        raise Untranslatable("model", f"{target.name} does not serve {errors.ROUTES[asked.format]}")
    call = Call(format, jsontext.dumps(body), target.model, timeout_s=target.timeout_s)
    return call, EmbeddingFinish(asked.format, format, request, target.model)


# --- what clients ask


def parse_openai(body: Mapping[str, Any]) -> Embedding:
    """Raises Untranslatable."""
    _refuse_others(body, _OPENAI)
    given, encoding, task = body.get("input"), body.get("encoding_format"), body.get("input_type")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not 0 < len(texts) <= _MOST_TEXTS or not all(isinstance(t, str) for t in texts):
        raise Untranslatable("input", f"must be a text or a list of up to {_MOST_TEXTS} texts; tokens have no form")
    if encoding not in (None, "float", "base64"):
        raise Untranslatable("encoding_format", "must be float or base64")
    if task is not None and task not in _TASKS:
        raise Untranslatable("input_type", f"must be one of {', '.join(_TASKS)}")
    return Embedding(tuple(texts), _whole(body, "dimensions"), task or "", encoding == "base64")


def parse_gemini(format: str, body: Mapping[str, Any]) -> Embedding:
    """Raises Untranslatable."""
    named = camel(dict(body))
    requests = named.get("requests") if format == "gemini_embeddings" else [named]
    if format == "gemini_embeddings":
        _refuse_others(named, frozenset(("requests", "model")))
    if not isinstance(requests, list) or not 0 < len(requests) <= _MOST_TEXTS:
        raise Untranslatable("requests", f"must be a list of up to {_MOST_TEXTS} requests")
    read = [_parse_one(one) for one in requests]
    if len({(one.dimensions, one.task) for one in read}) > 1:
        raise Untranslatable("requests", "must all have the same outputDimensionality and taskType")
    return Embedding(tuple(text for one in read for text in one.texts), read[0].dimensions, read[0].task)


def _parse_one(one: Any) -> Embedding:
    if not isinstance(one, dict):
        raise Untranslatable("requests", "must be objects")
    _refuse_others(one, _GEMINI)
    content, task = one.get("content"), one.get("taskType")
    parts = content.get("parts") if isinstance(content, dict) else None
    if not isinstance(parts, list) or not parts:
        raise Untranslatable("content", "must have parts")
    for part in parts:
        if not isinstance(part, dict) or set(part) != {"text"} or not isinstance(part["text"], str):
            raise Untranslatable("content.parts", "must be texts; only Gemini embeds anything else")
    words = next((cohere for cohere, google in _TASKS.items() if google == task), None)
    if task not in (None, "TASK_TYPE_UNSPECIFIED") and words is None:
        raise Untranslatable("taskType", f"must be one of {', '.join(_TASKS.values())} for this model")
    return Embedding(("\n".join(part["text"] for part in parts),), _whole(one, "outputDimensionality"), words or "")


def _refuse_others(body: Mapping[str, Any], known: frozenset[str]) -> None:
    if odd := next((name for name in body if name not in known), None):
        raise Untranslatable(odd[:80], "has no form for this model's provider; leave it out")


def _whole(body: Mapping[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 100_000):
        raise Untranslatable(name, "must be a whole number of at least 1")
    return value


# --- what providers are asked


def render_openai(request: Embedding, model: str) -> dict[str, Any]:
    """Raises Untranslatable."""
    if request.task:
        raise Untranslatable("taskType", "has no form for this model's provider; leave it out")
    more = {} if request.dimensions is None else {"dimensions": request.dimensions}
    return {"model": model, "input": list(request.texts), "encoding_format": "float", **more}


def render_gemini(request: Embedding, model: str) -> list[dict[str, Any]]:
    more: dict[str, Any] = {} if request.dimensions is None else {"outputDimensionality": request.dimensions}
    more |= {"taskType": _TASKS[request.task]} if request.task else {}
    return [{"model": f"models/{model}", "content": {"parts": [{"text": text}]}, **more} for text in request.texts]


def render_bedrock(request: Embedding, target: Target) -> dict[str, Any]:
    """Raises Untranslatable."""
    if _COHERE.search(target.model):
        more = {} if request.dimensions is None else {"output_dimension": request.dimensions}
        task = request.task or "search_document"  # it must be said
        return {"texts": list(request.texts), "input_type": task, "embedding_types": ["float"], **more}
    if not _TITAN.search(target.model):
        raise Untranslatable("model", f"{target.name}: of Bedrock's, embeddings of Titan and Cohere are served")
    if request.task:
        raise Untranslatable("input_type", "has no form for Titan; leave it out")
    more = {} if request.dimensions is None else {"dimensions": request.dimensions}
    return {"inputText": _only(request.texts, target), **more}


def _only(items: Any, target: Target) -> Any:
    if len(items) != 1:
        raise Untranslatable("input", f"{target.name} embeds one text at a time")
    return items[0]


# --- what they answer


class EmbeddingFinish:
    """What becomes of the answer. See wire.Finish."""

    holds_request = True

    def __init__(self, client: str, format: str, request: Embedding, model: str) -> None:
        """`client`, `format`: the client's, and the provider's."""
        self._client, self._format, self._request, self._model = client, format, request, model

    def whole(self, body: bytes) -> bytes:
        if jsontext.count_values(body, _MOST_NUMBERS, rough=_MOST_NUMBERS) > _MOST_NUMBERS:
            raise UpstreamError(f"the embeddings have over {_MOST_NUMBERS:,} numbers; ask for fewer texts at once")
        try:
            answer = jsontext.loads(body, "replace")
            vectors = [_vector(one) for one in _vectors_of(self._format, answer)]
            if len(vectors) != len(self._request.texts):
                raise ValueError(f"{len(vectors)} embeddings to {len(self._request.texts)} texts")
            usage = usage_of(self._format, usage_and_tier(self._format, answer)[0])
            return jsontext.dumps(self._rendered(vectors, 0 if usage is None else usage.input_tokens))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, struct.error) as error:
            raise UpstreamError(f"the provider's answer cannot be read: {str(error)[:300]}") from error

    def _rendered(self, vectors: list[list[float]], tokens: int) -> dict[str, Any]:
        used = {"usageMetadata": {"promptTokenCount": tokens}} if tokens else {}
        if self._client == "gemini_embedding":
            return {"embedding": {"values": vectors[0]}, **used}
        if self._client == "gemini_embeddings":
            return {"embeddings": [{"values": one} for one in vectors], **used}
        shown = [_base64(one) if self._request.as_base64 else one for one in vectors]
        data = [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(shown)]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": self._model, "usage": usage}

    def error(self, status: int, body: bytes) -> bytes:
        said: Any = decoded(body)
        error = said.get("error") if isinstance(said, dict) else None
        message = error.get("message") if isinstance(error, dict) else said.get("message") if said else None
        text = message if isinstance(message, str) else body[:500].decode("utf-8", "replace")
        return orjson.dumps(errors.body_of(self._client, status, "upstream_error", text))

    def event(self, event: bytes) -> Iterable[bytes]:
        return ()  # embeddings are not streamed

    def end(self) -> Iterable[bytes]:
        return ()

    def broken(self, error: McpgateError) -> Iterable[bytes]:
        return ()


def _vectors_of(format: str, answer: Any) -> list[Any]:
    if format == "embeddings":
        return [one["embedding"] for one in sorted(answer["data"], key=lambda one: int(one["index"]))]
    if format == "gemini_embeddings":
        return [one["values"] for one in answer["embeddings"]]
    if format == "gemini_embedding":
        return [answer["embedding"]["values"]]
    if "embedding" in answer:
        return [answer["embedding"]]
    found = answer["embeddings"]
    return list(found["float"] if isinstance(found, dict) else found)


def _vector(value: Any) -> list[float]:
    """Numbers, also those of providers that write base64 though they were asked for numbers. Raises ValueError."""
    if isinstance(value, str):
        data = base64.b64decode(value, validate=True)
        return list(struct.unpack(f"<{len(data) // 4}f", data))
    if not isinstance(value, list) or not all(type(one) in (float, int) for one in value):
        raise ValueError("an embedding is no list of numbers")
    return value


def _base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
