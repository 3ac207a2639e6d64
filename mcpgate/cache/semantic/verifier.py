"""The chance that one answer serves two questions, from their features: boosted trees, one file for each reader.

benchmarks/cache_quality/train.py made the files. They also have the thresholds that keep wrong hits below a
share, measured on questions that nothing was learned from.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def weights(reader: str) -> Path:
    return Path(__file__).with_name(f"verifier-{reader}.npz")


class Verifier:
    """Trees as arrays: of each node a feature, the value up to which to go left, and its children. A leaf is its own.

    Thread-safe."""

    def __init__(self, arrays: Any) -> None:
        """`arrays`: by name, as train.py wrote them."""
        import numpy

        self._numpy = numpy
        self._features = arrays["features"]
        self._cuts = arrays["cuts"]
        self._children = arrays["children"]
        self._values = arrays["values"]
        self._roots = arrays["roots"]
        self._depth = int(arrays["depth"])
        self._base = float(arrays["base"])
        self._curve = (arrays["scores"], arrays["chances"])
        self._thresholds = (arrays["rates"], arrays["thresholds"])
        words = str(arrays["words"]).split("\n")
        self.rarity = dict(zip(words, arrays["rarities"].astype(numpy.float64).tolist(), strict=True))

    @classmethod
    def load(cls, reader: str) -> "Verifier":
        """`reader`: "minilm" or "table". Raises ImportError without numpy."""
        import numpy

        with numpy.load(weights(reader), allow_pickle=False) as file:
            return cls({name: file[name] for name in file.files})

    def probability(self, features: Sequence[float]) -> float:
        """Calibrated. Takes some 50 µs."""
        return float(self.probabilities(self._numpy.array([features], self._numpy.float32))[0])

    def probabilities(self, rows: Any) -> Any:
        """The same for many: an array of rows x features."""
        numpy = self._numpy
        at = numpy.broadcast_to(self._roots, (len(rows), len(self._roots)))
        line = numpy.arange(len(rows))[:, None]
        for _ in range(self._depth):
            right = rows[line, self._features[at]] > self._cuts[at]
            at = self._children[at, right.astype(numpy.intp)]
        scores = self._values[at].sum(1) + self._base
        return numpy.interp(scores, *self._curve)

    def threshold(self, max_false_hit_rate: float) -> float:
        """The probability from which hits are wrong at most so often. Above 1, which is never reached, where no
        threshold was found to keep it."""
        rates, thresholds = self._thresholds
        kept = [
            float(limit) for rate, limit in zip(rates, thresholds, strict=True) if rate <= max_false_hit_rate + 1e-9
        ]
        return min(kept, default=math.inf)
