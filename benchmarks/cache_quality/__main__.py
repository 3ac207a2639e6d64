"""How good the judgement of the semantic cache is: right and wrong hits on labelled pairs, and at a help desk.

    pip install 'mcpgate-codemode[semantic]' fow-cache
    python -m benchmarks.cache_quality [--quick] [--quora FILE] [--reader table]

Offline. Without --quora, Quora's pairs and the help desk are left out; docs/benchmarks/cache_quality.md says where the
file is found. Nothing that is measured with here was learned from.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy

from benchmarks.cache_quality import desk
from benchmarks.cache_quality.questions import Pair, fow, key, own, quora, reread
from benchmarks.cache_quality.readings import Readings
from benchmarks.cache_quality.train import RATES
from benchmarks.machine import describe_machine
from mcpgate.cache.semantic.index import Index
from mcpgate.cache.semantic.semantic import NEAR, Semantic, load

COSINES = (0.80, 0.85, 0.92)


@dataclass(frozen=True, slots=True)
class Judged:
    pair: Pair
    cosine: float
    probability: float
    difference: str | None


def judge(pairs: Sequence[Pair], semantic: Semantic, readings: Readings) -> list[Judged]:
    """What the verifier and plain cosines, of the same model, say of each pair."""
    readings.learn(text for pair in pairs for text in (pair.one, pair.other))
    found = []
    for pair in pairs:
        facts = readings.facts(pair.one), readings.facts(pair.other)
        if facts[0] is None or facts[1] is None:
            found.append(Judged(pair, 0.0, 0.0, "length"))
            continue
        views = readings.view(pair.one), readings.view(pair.other)
        cosine = float(views[0].mean @ views[1].mean)
        if float(views[0].table @ views[1].table) < NEAR:
            found.append(Judged(pair, cosine, 0.0, "not looked at"))
            continue
        probability, difference = semantic.weigh(facts[0], facts[1], lambda views=views: views)
        found.append(Judged(pair, cosine, probability, difference))
    return found


def rules(semantic: Semantic) -> dict[str, Callable[[Judged], bool]]:
    found: dict[str, Callable[[Judged], bool]] = {}
    for limit in COSINES:
        found[f"cosine ≥ {limit:.2f}"] = lambda judged, limit=limit: judged.cosine >= limit
    for limit in COSINES:
        found[f"guard, cosine ≥ {limit:.2f}"] = lambda judged, limit=limit: (
            not judged.difference and judged.cosine >= limit
        )
    for rate in RATES:
        limit = semantic.limit(rate)
        found[f"max_false_hit_rate {rate:g}"] = lambda judged, limit=limit: judged.probability >= limit
    return found


def table(judged: Sequence[Judged], semantic: Semantic) -> str:
    """For each rule: what share of the same and of the different pairs is served, and the share of right hits."""
    same = sum(each.pair.same for each in judged)
    head = "| rule | same served | different served | wrong of hits | hits of all |"
    lines = [f"{same:,} same, {len(judged) - same:,} different", "", head, "|---|--:|--:|--:|--:|"]
    for name, rule in rules(semantic).items():
        hits = [each for each in judged if rule(each)]
        right = sum(each.pair.same for each in hits)
        wrong = len(hits) - right
        share = f"{wrong / len(hits):.2%}" if hits else "no hits"
        lines.append(
            f"| {name} | {right / max(same, 1):.1%} | {wrong / max(len(judged) - same, 1):.2%} ({wrong}) | {share}"
            f" | {len(hits) / len(judged):.1%} |"
        )
    return "\n".join(lines)


def kinds(judged: Sequence[Judged], semantic: Semantic) -> str:
    """For each kind of pair: how many are served by a cosine, stopped by the guard, and served at the default."""
    counts: dict[str, Counter[str]] = {}
    for each in judged:
        count = counts.setdefault(("" if each.pair.same else "different: ") + each.pair.kind, Counter())
        count["all"] += 1
        count["cosine"] += each.cosine >= COSINES[1]
        count["guard"] += each.difference is not None
        count["hit"] += each.probability >= semantic.threshold
    lines = [
        f"| kind | pairs | cosine ≥ {COSINES[1]:.2f} | stopped by the guard | hits at the default |",
        "|---|--:|--:|--:|--:|",
    ]
    for kind, count in sorted(counts.items()):
        lines.append(f"| {kind} | {count['all']} | {count['cosine']} | {count['guard']} | {count['hit']} |")
    return "\n".join(lines)


def lookup_times(semantic: Semantic, questions: Sequence[str], size: int) -> str:
    """What a look-up costs with so many entries in one partition. Every other question rewords a stored one."""
    index = Index(size)
    stored = {}
    rows = 0
    while rows < size:
        for text in questions[: size - rows]:
            prepared = semantic.prepare(text)
            if prepared is None:
                continue
            noise = (
                numpy.random.default_rng(rows).normal(0, 0.04, len(prepared.vector)) if rows >= len(questions) else 0
            )
            vector = prepared.vector + noise
            index.add(b"", str(rows), vector / max(float(numpy.linalg.norm(vector)), 1e-9))
            stored[str(rows)] = text
            rows += 1
    took = []
    for number in range(300):
        text = questions[number * 7 % len(questions)]
        asked = text.replace("How do I", "How can I") + " please" if number % 2 else f"{text[: len(text) // 2]} in Peru"
        others = {id: semantic.prepare(stored[id]) for id, _ in index.nearest(b"", semantic.prepare(asked).vector)}
        for other in others.values():
            other.view()
        start, start_cpu = time.perf_counter(), time.process_time()
        prepared = semantic.prepare(asked)
        for id, cosine in index.nearest(b"", prepared.vector):
            if cosine >= NEAR and id in others:
                semantic.judge(prepared, others[id])
        took.append(((time.perf_counter() - start) * 1e3, (time.process_time() - start_cpu) * 1e3))
    wall, cpu = numpy.percentile(took, [50, 99], axis=0).T
    return (
        f"{size:,} entries: p50 {wall[0]:.1f} ms, p99 {wall[1]:.1f} ms;"
        f" of the processor {cpu[0]:.1f} and {cpu[1]:.1f} ms; {index.bytes_used() / size:.0f} bytes an entry in arrays"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer pairs; no help desk")
    parser.add_argument("--quora", type=Path, help="the file of Quora's question pairs")
    parser.add_argument("--reader", choices=["auto", "minilm", "table"], default="auto")
    parser.add_argument("--readings", type=Path, help="a folder to keep the model's readings in")
    parser.add_argument("--wrong", type=Path, help="write wrong hits at the default to this file")
    options = parser.parse_args()
    semantic = load(reader=options.reader)
    readings = Readings(semantic.reader, options.readings)
    print(f"{describe_machine()}\n{semantic}")
    sets = {
        "our own pairs, all": own(),
        "our own pairs, those not seen while the guard was written": own("unseen"),
        "fow-cache": fow(),
    }
    if options.quora:
        test = quora(options.quora).test
        sets["Quora's pairs"] = test[: 2_000 if options.quick else 12_000]
        readings.learn(text for pair in sets["Quora's pairs"] for text in (pair.one, pair.other))
    wrong = []
    for name, pairs in sets.items():
        judged = judge(pairs, semantic, readings)
        print(f"\n## {name}\n\n{table(judged, semantic)}")
        if name == "Quora's pairs":
            checked = reread()
            again = [
                replace(each, pair=replace(each.pair, same=checked.get(key(each.pair), each.pair.same)))
                for each in judged
            ]
            print(f"\nWith labels read again put right:\n\n{table(again, semantic)}")
        if name != "Quora's pairs":
            print(f"\n{kinds(judged, semantic)}")
        wrong += [each for each in judged if not each.pair.same and each.probability >= semantic.threshold]
    if options.wrong:
        lines = [json.dumps([each.pair.kind, each.probability, each.pair.one, each.pair.other]) for each in wrong]
        options.wrong.write_text("\n".join(lines) + "\n", encoding="utf-8")
    questions = [text for pairs in sets.values() for pair in pairs for text in (pair.one, pair.other)]
    print(f"\n## Look-ups\n\n{lookup_times(semantic, questions, 10_000 if options.quick else 100_000)}")
    if options.quora and not options.quick:
        print(f"\n## A help desk\n\n{desk.report(test[:12_000], semantic, readings)}")


if __name__ == "__main__":
    main()
