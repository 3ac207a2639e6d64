"""Vectors of short texts: texts that mean the same point in about the same direction.

A static table: each piece of a word has a vector, and a text's is their sum. No model runs here;
benchmarks/distillation.py made the table from one (docs/decisions/0010-static-embeddings.md). Needs numpy, the extra
`semantic`.
"""

import re
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

Vectors: TypeAlias = Any
"""A numpy array of float32: one vector of unit length, or a row for each text. All zero where no word is known."""

TABLE = Path(__file__).with_name("embedding.npz")
_MAX_TEXT = 600
_MAX_WORD = 40
"""Characters of a text and of a word that count."""
_MAX_REMEMBERED = 50_000
"""Words whose pieces are remembered."""
_WORD = re.compile(r"[a-z]+|[0-9]+|[^\sa-z0-9]")


class Pieces:
    """Splits texts into the pieces of a vocabulary, the longest first, as BERT's WordPiece does for English."""

    def __init__(self, vocabulary: Sequence[str], word: "re.Pattern[str]" = _WORD) -> None:
        """`vocabulary`: pieces, those inside a word with `##` before them; a piece's number is its place. `word`: what
        is pieced together, a word or a mark."""
        self._word = word
        self._numbers = {piece: number for number, piece in enumerate(vocabulary)}
        self._known: dict[str, tuple[int, ...]] = {}

    def of(self, text: str) -> list[int]:
        """The numbers of a text's pieces; words that cannot be pieced together are left out."""
        return [number for _, numbers in self.words(text) for number in numbers]

    def words(self, text: str) -> list[tuple[str, tuple[int, ...]]]:
        """A text's words and marks, lower case and without accents, each with the numbers of its pieces."""
        text = text[:_MAX_TEXT].lower()
        if not text.isascii():
            text = unicodedata.normalize("NFKD", text[:_MAX_TEXT])[:_MAX_TEXT]
            text = "".join(char for char in text if not unicodedata.combining(char))
        return [(word[:_MAX_WORD], self._of_word(word[:_MAX_WORD])) for word in self._word.findall(text)]

    def _of_word(self, word: str) -> tuple[int, ...]:
        found = self._known.get(word)
        if found is None:
            if len(self._known) >= _MAX_REMEMBERED:
                self._known.clear()
            found = self._known[word] = tuple(self._split(word))
        return found

    def _split(self, word: str) -> Iterator[int]:
        numbers: list[int] = []
        start = 0
        while start < len(word):
            for end in range(len(word), start, -1):
                number = self._numbers.get(word[start:end] if start == 0 else f"##{word[start:end]}")
                if number is not None:
                    numbers.append(number)
                    start = end
                    break
            else:
                return iter(())
        return iter(numbers)


class Embedding:
    """The table, loaded. Thread-safe: what it remembers are facts."""

    def __init__(self, vocabulary: Sequence[str], table: Any, scales: Any) -> None:
        """`table`: a row of int8 for each piece; `scales`: what a row is multiplied with, the piece's weight in it."""
        import numpy

        self._numpy = numpy
        self._pieces = Pieces(vocabulary)
        self._table = table
        self._scales = scales.astype(numpy.float32)

    @classmethod
    def load(cls, path: Path | None = None) -> "Embedding":
        """Raises ImportError without numpy, and ValueError without a usable table. Takes a tenth of a second."""
        import numpy

        try:
            with (path or TABLE).open("rb") as opened, numpy.load(opened, allow_pickle=False) as file:
                return cls(str(file["pieces"]).split("\n"), file["table"], file["scales"])
        except (OSError, EOFError, KeyError, AttributeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{path or TABLE} is not a table of word pieces: {error}") from error

    @property
    def dimensions(self) -> int:
        return int(self._table.shape[1])

    def encode(self, text: str) -> Vectors:
        """The vector of a text. Takes some 50 µs."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Iterable[str]) -> Vectors:
        """A row for each text."""
        rows = [self._pieces.of(text) for text in texts]
        vectors = self._numpy.zeros((len(rows), self.dimensions), self._numpy.float32)
        for vector, numbers in zip(vectors, rows, strict=True):
            if numbers:
                total = self._scales[numbers] @ self._table[numbers].astype(self._numpy.float32)
                if length := float(self._numpy.sqrt(total @ total)):
                    vector[:] = total / length
        return vectors
