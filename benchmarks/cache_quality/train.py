"""Makes mcpgate/cache/semantic/verifier-READER.npz: trees that tell whether one answer serves two questions.

    pip install scikit-learn
    python -m benchmarks.cache_quality.train QUORA --readings FOLDER [--reader table]

QUORA: the file of pairs (questions.py). Half of them, and near misses made of their questions, are learned from; a
fifth gives the calibration and the thresholds. The rest, our own pairs and fow-cache are not touched: they are what
`python -m benchmarks.cache_quality` measures with.
"""

import argparse
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy

from benchmarks.cache_quality.questions import Pair, key, quora, reread
from benchmarks.cache_quality.readings import Readings
from mcpgate.cache.semantic.features import GROWS, features
from mcpgate.cache.semantic.guard import difference
from mcpgate.cache.semantic.tables import tables
from mcpgate.cache.semantic.verifier import Verifier, weights
from mcpgate.cache.semantic.words import STOP, lemma, words
from mcpgate.embedding import Embedding

RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1)
_COMMON = 8
"""Questions that a word must be in for its rarity to be known."""
_SUBSTITUTED, _SHORTENED, _REWORDED = 4_500, 7_000, 2_500
_WEIGHT = 1.5
"""Of a pair that was made, compared with one of Quora's: its label is surer."""
_TREES, _LEAVES, _RATE = 250, 24, 0.06
_ADDING = frozenset("in on at for with from by under without during as".split())
_NEIGHBOURS = (0.30, 0.80)
"""Cosines of a word with one that takes its place: alike enough to be mistaken, not so alike as to be a synonym."""
_OPENINGS = (
    ("how do i ", "how can i "), ("how do i ", "what is the best way to "), ("how can i ", "how do i "),
    ("how do you ", "how do i "), ("what is ", "what's "), ("what is ", "can you explain what is "),
    ("which ", "what "), ("how can i ", "please tell me how i can "), ("why ", "what is the reason why "),
)  # fmt: skip


def rarities(pairs: Sequence[Pair], readings: Readings) -> dict[str, float]:
    """How rare each lemma is among the questions: the logarithm of one over its share."""
    texts = {text for pair in pairs for text in (pair.one, pair.other)}
    counts = Counter(word for text in texts if (facts := readings.facts(text)) for word in set(facts.content))
    found = {word: math.log(len(texts) / count) for word, count in counts.items() if count >= _COMMON}
    return {"": math.log(len(texts) / _COMMON), **found}


def substituted(questions: Sequence[str], rarity: dict[str, float], chance: random.Random) -> Iterator[Pair]:
    """Questions with one word exchanged for a related one."""
    table = Embedding.load()
    common = sorted(word for word, value in rarity.items() if word.isalpha() and len(word) > 3 and value > 4)
    vectors = table.encode_all(common)
    for text in questions:
        places = [
            word for word in words(text.lower()) if lemma(word) in rarity and lemma(word) not in STOP and len(word) > 3
        ]
        if not places:
            continue
        word = chance.choice(places)
        near = vectors @ table.encode(word)
        fit = numpy.flatnonzero((near > _NEIGHBOURS[0]) & (near < _NEIGHBOURS[1]))
        fit = fit[numpy.argsort(-near[fit])][:12]
        others = [
            common[at] for at in fit if common[at][:4] != word[:4] and not tables().synonym(lemma(word), [common[at]])
        ]
        low = text.lower()
        if others and low.count(word) == 1:
            yield Pair("substituted", text, _cased(low.replace(word, chance.choice(others)), text), False)


def shortened(questions: Sequence[str], rarity: dict[str, float], chance: random.Random) -> Iterator[Pair]:
    """Questions without one of their words that says much, or without what a preposition adds at the end."""
    for text in questions:
        parts = text.split()
        adds = [
            at for at, word in enumerate(parts) if word in _ADDING and 3 < at < len(parts) - 1 and len(parts) - at < 5
        ]
        if adds and chance.random() < 0.5:
            yield Pair("shortened", text, " ".join(parts[: adds[-1]]) + "?", False)
            continue
        places = [
            at for at, word in enumerate(parts[1:-1], 1) if rarity.get(lemma(word.lower()), 0) > 5 and word.isalpha()
        ]
        if len(places) > 2:
            at = chance.choice(places)
            yield Pair("shortened", text, " ".join(parts[:at] + parts[at + 1 :]), False)


def reworded(questions: Sequence[str], chance: random.Random) -> Iterator[Pair]:
    """Questions that are opened in another way, or written carelessly."""
    for text in questions:
        low = text.lower()
        fit = [(before, after) for before, after in _OPENINGS if low.startswith(before)]
        if fit:
            before, after = chance.choice(fit)
            yield Pair("reworded", text, after.capitalize() + text[len(before) :], True)
        else:
            yield Pair("reworded", text, low.rstrip("?. "), True)


def _cased(text: str, like: str) -> str:
    return text[:1].upper() + text[1:] if like[:1].isupper() else text


def unruled(pairs: Sequence[Pair], readings: Readings) -> list[Pair]:
    """Pairs that the guard lets through: the verifier never sees others."""
    found = []
    for pair in pairs:
        one, other = readings.facts(pair.one), readings.facts(pair.other)
        if one and other and difference(one, other) is None and one.plain != other.plain:
            found.append(pair)
    return found


def table_of(pairs: Sequence[Pair], readings: Readings, rarity: dict[str, float]) -> Any:
    return numpy.array([features(readings.view(pair.one), readings.view(pair.other), rarity) for pair in pairs])


def arrays_of(model: Any) -> dict[str, Any]:
    """A fitted HistGradientBoostingClassifier as the arrays that the verifier reads."""
    nodes: dict[str, list[Any]] = {"features": [], "cuts": [], "children": [], "values": [], "roots": []}
    depth = 0
    for (tree,) in model._predictors:
        root = len(nodes["values"])
        nodes["roots"].append(root)
        for at, node in enumerate(tree.nodes):
            leaf = bool(node["is_leaf"])
            nodes["features"].append(int(node["feature_idx"]))
            nodes["cuts"].append(0.0 if leaf else float(node["num_threshold"]))
            own = root + at
            nodes["children"].append([own, own] if leaf else [root + int(node["left"]), root + int(node["right"])])
            nodes["values"].append(float(node["value"]) if leaf else 0.0)
            depth = max(depth, int(node["depth"]))
    return {
        "features": numpy.array(nodes["features"], numpy.int16),
        "cuts": numpy.array(nodes["cuts"], numpy.float32),
        "children": numpy.array(nodes["children"], numpy.int32),
        "values": numpy.array(nodes["values"], numpy.float32),
        "roots": numpy.array(nodes["roots"], numpy.int32),
        "depth": numpy.array(depth),
        "base": numpy.array(float(numpy.ravel(model._baseline_prediction)[0])),
    }


def thresholds(chances: Any, same: Any, rates: Sequence[float] = RATES) -> list[float]:
    """For each rate the least probability from which the share of wrong hits is within it."""
    order = numpy.argsort(-chances, kind="stable")
    wrong = numpy.cumsum(~same[order])
    share = wrong / numpy.arange(1, len(order) + 1)
    ordered = chances[order]
    ends = numpy.flatnonzero(numpy.append(ordered[1:] != ordered[:-1], True))
    found = []
    for rate in rates:
        fit = ends[share[ends] <= rate]
        found.append(float(ordered[fit[-1]]) if len(fit) else 2.0)
    return found


def calibration(scores: Any, same: Any) -> tuple[Any, Any]:
    """Points of the line that takes scores to shares of right pairs (isotonic regression)."""
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(out_of_bounds="clip").fit(scores, same)
    points, values = fitted.X_thresholds_, fitted.y_thresholds_
    # A little slope keeps the order of scores within a step.
    slope = (points - points[0]) / (points[-1] - points[0]) * 1e-3
    return points.astype(numpy.float32), (values * 0.999 + slope).astype(numpy.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("quora", type=Path)
    parser.add_argument("--readings", type=Path, help="a folder to keep the model's readings in")
    parser.add_argument("--reader", choices=["minilm", "table"], default="minilm")
    parser.add_argument(
        "--thresholds", action="store_true", help="only measure the thresholds of the present trees again"
    )
    options = parser.parse_args()
    split, readings, chance = quora(options.quora), Readings(options.reader, options.readings), random.Random(11)
    if options.thresholds:
        measure(options.reader, split.calibrate, readings)
        return
    from sklearn.ensemble import HistGradientBoostingClassifier

    for part in (split.train, split.calibrate):
        readings.learn(text for pair in part for text in (pair.one, pair.other))
    rarity = rarities(split.train, readings)
    questions = sorted({pair.one for pair in split.train if len(pair.one) < 160})
    chance.shuffle(questions)
    made = [
        *substituted(questions[:_SUBSTITUTED], rarity, chance),
        *shortened(questions[_SUBSTITUTED : _SUBSTITUTED + _SHORTENED], rarity, chance),
        *reworded(questions[-_REWORDED:], chance),
    ]
    for kind in ("substituted", "shortened", "reworded"):
        readings.learn(text for pair in made if pair.kind == kind for text in (pair.one, pair.other))
    learned, held = unruled([*split.train, *made], readings), unruled(split.calibrate, readings)
    print(
        f"\n{len(learned):,} pairs to learn from: {Counter(pair.kind for pair in learned)}"
        f"; {len(held):,} to calibrate with"
    )
    rows, same = table_of(learned, readings, rarity), numpy.array([pair.same for pair in learned])
    model = HistGradientBoostingClassifier(
        max_iter=_TREES, max_leaf_nodes=_LEAVES, learning_rate=_RATE, min_samples_leaf=40, l2_regularization=1.0,
        monotonic_cst=list(GROWS), random_state=1,
    ).fit(rows, same, numpy.array([1 if pair.kind == "quora" else _WEIGHT for pair in learned]))  # fmt: skip
    rows, same = table_of(held, readings, rarity), numpy.array([pair.same for pair in held])
    points, values = calibration(model.decision_function(rows), same)
    content = arrays_of(model) | {"scores": points, "chances": values}
    content |= {"words": numpy.array("\n".join(rarity)), "rarities": numpy.array([*rarity.values()], numpy.float16)}
    content |= {"rates": numpy.array(RATES), "thresholds": numpy.array([2.0] * len(RATES))}
    numpy.savez_compressed(weights(options.reader), **content)
    measure(options.reader, split.calibrate, readings)


def measure(reader: str, pairs: Sequence[Pair], readings: Readings) -> None:
    """Put the thresholds for each rate into the reader's file."""
    readings.learn(text for pair in pairs for text in (pair.one, pair.other))
    held, verifier, checked = unruled(pairs, readings), Verifier.load(reader), reread()
    chances = verifier.probabilities(table_of(held, readings, verifier.rarity))
    same = numpy.array([checked.get(key(pair), pair.same) for pair in held])
    with numpy.load(weights(reader), allow_pickle=False) as file:
        content = {name: file[name] for name in file.files}
    content["thresholds"] = numpy.array(thresholds(chances, same))
    numpy.savez_compressed(weights(reader), **content)
    print(f"{weights(reader).stat().st_size:,} bytes")
    for rate, limit in zip(RATES, content["thresholds"], strict=True):
        hits = chances >= limit
        print(
            f"at most {rate:.1%} wrong: from {limit:.4f}, {hits.sum():,} hits,"
            f" {(hits & same).sum() / same.sum():.1%} of the same"
        )


if __name__ == "__main__":
    main()
