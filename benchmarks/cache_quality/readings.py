"""Readings of many questions by the model, kept in a folder: reading 130,000 takes a quarter of an hour or more."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy

from mcpgate.cache.semantic.facts import Facts, read
from mcpgate.cache.semantic.features import View
from mcpgate.cache.semantic.readers import Encoder, Reader, TableReader
from mcpgate.embedding import Embedding


class Readings:
    """Views of questions by their text, by one reader."""

    def __init__(self, reader: str = "minilm", folder: Path | None = None) -> None:
        """`reader`: "minilm" or "table". `folder`: where readings are kept; None to keep none."""
        self._folder = folder
        self._table = Embedding.load()
        self._reader: Reader = Encoder.load() if reader == "minilm" else TableReader(self._table)
        self._views: dict[str, View] = {}
        self._facts: dict[str, Facts | None] = {}

    def learn(self, texts: Iterable[str]) -> None:
        """Read what is missing."""
        wanted = sorted({text for text in texts if text not in self._views and self.facts(text)})
        if not wanted:
            return
        name = hashlib.sha256("\n".join([self._reader.name, *wanted]).encode()).hexdigest()[:16]
        kept = self._folder and self._folder / f"{name}.npz"
        if kept and kept.exists():
            with numpy.load(kept, allow_pickle=False) as file:
                means, vectors, ends = file["means"], file["vectors"], file["ends"]
                words = json.loads(str(file["words"]))
        else:
            means, vectors, ends, words = self._read(wanted)
            if kept:
                kept.parent.mkdir(parents=True, exist_ok=True)
                numpy.savez(kept, means=means, vectors=vectors, ends=ends, words=json.dumps(words))
        start = 0
        for at, text in enumerate(wanted):
            facts = self.facts(text)
            assert facts is not None
            table = self._table.encode(facts.plain).astype(numpy.float16)
            self._views[text] = View(facts, table, means[at], words[at], vectors[start : ends[at]])
            start = ends[at]

    def facts(self, text: str) -> Facts | None:
        if text not in self._facts:
            self._facts[text] = read(text)
        return self._facts[text]

    def view(self, text: str) -> View:
        view = self._views[text]
        single = numpy.float32
        return View(
            view.facts, view.table.astype(single), view.mean.astype(single), view.words, view.vectors.astype(single)
        )

    def _read(self, texts: list[str]) -> tuple[Any, Any, Any, list[tuple[str, ...]]]:
        means, vectors, ends, words = [], [], [0], []
        for at, text in enumerate(texts, 1):
            facts = self.facts(text)
            assert facts is not None
            reading = self._reader.read(facts.plain)
            means.append(reading.mean.astype(numpy.float16))
            vectors.append(reading.vectors.astype(numpy.float16))
            ends.append(ends[-1] + len(reading.words))
            words.append(reading.words)
            if at % 1000 == 0:
                print(f"\r{at:,} of {len(texts):,} questions read", end="", flush=True)
        return numpy.stack(means), numpy.concatenate(vectors), numpy.array(ends[1:]), words
