"""Embeddings at providers that take one text at a time, and answers that are none."""

import types
from typing import Any, cast

import pytest

from mcpgate import jsontext
from mcpgate.api.llm.embeddings import EmbeddingFinish, translated
from mcpgate.errors import UpstreamError
from mcpgate.llm.asked import Asked
from mcpgate.llm.messages import Untranslatable
from mcpgate.llm.provider import Call
from mcpgate.llm.routing import Target
from mcpgate.providers.http import VERTEX_FORMATS

VERTEX = cast(Any, types.SimpleNamespace(formats=VERTEX_FORMATS))


def at_vertex(format: str, **body: Any) -> tuple[Call, EmbeddingFinish]:
    return translated(VERTEX, Asked(format, jsontext.dumps(body), body, "m"), Target("vertex", "m"))


def test_vertex_embeds_one_text_of_openais_and_a_batch_of_one_of_googles() -> None:
    content = {"parts": [{"text": "a"}]}
    for call, finish in (
        at_vertex("embeddings", input="a"),
        at_vertex("gemini_embeddings", requests=[{"content": content}]),
    ):
        assert call.format == "gemini_embedding" and jsontext.loads(call.body)["content"] == content
        assert b"[1.0,2.0]" in finish.whole(b'{"embedding": {"values": [1.0, 2.0]}}')
    with pytest.raises(Untranslatable, match="one text at a time"):
        at_vertex("embeddings", input=["a", "b"])


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"{}",
        b'{"embedding": {"values": ["a"]}}',
        b'{"embedding": {"values": "####"}}',
        b'{"embedding": {"values": [true]}}',
        b'{"embedding": [1]}',
        b'{"embedding": {"values": [1e300]}}',
        b'{"embedding": {"values": [' + b"1," * 700_000 + b"1]}}",
    ],
)
def test_an_answer_that_is_none_is_told(answer: bytes) -> None:
    _, finish = at_vertex("embeddings", input="a", encoding_format="base64")
    with pytest.raises(UpstreamError):
        finish.whole(answer)


def test_fewer_embeddings_than_texts_are_no_answer() -> None:
    provider = cast(Any, types.SimpleNamespace(formats={"gemini_embeddings"}))
    body = {"input": ["a", "b"]}
    _, finish = translated(provider, Asked("embeddings", b"", body, "m"), Target("g", "m"))
    with pytest.raises(UpstreamError, match="1 embeddings to 2 texts"):
        finish.whole(b'{"embeddings": [{"values": [1]}]}')
