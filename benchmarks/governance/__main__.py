"""Measures the cost of governance on every available store, and whether budgets hold. Linux only.

    python -m benchmarks.governance [--quick] [--json FILE] [--only PART …] [--stores NAME …]

PostgreSQL is expected at MCPGATE_BENCH_POSTGRES, Redis at MCPGATE_BENCH_REDIS. Peers are installed on the first run
into MCPGATE_BENCH_DIR, else into the user's cache. The report goes to stdout, progress to stderr. Exit status 1 if a
budget was overspent or a peer failed.
"""

import argparse
import asyncio
import json
import logging
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.governance import simulation
from benchmarks.governance.admission import budgets, measure, measure_models, percentile
from benchmarks.governance.keys import measure_keys
from benchmarks.governance.ledger import measure_ledger
from benchmarks.governance.peers import measure_peers
from benchmarks.governance.report import Results, as_json, markdown
from benchmarks.governance.stores import STORES, Store, answering
from benchmarks.machine import describe_machine, load
from benchmarks.signals import end_in_order

PARTS = ("admission", "rules", "keys", "ledger", "simulation", "peers")


@dataclass(frozen=True)
class Effort:
    round_s: float
    rounds: int
    keys: tuple[int, ...]
    entries: int
    plays: int
    """Of each simulation."""
    peer_requests: int


FULL = Effort(0.7, 5, (10, 10_000, 1_000_000), 10_000_000, 3, 5_000)
QUICK = Effort(0.15, 3, (10, 10_000), 200_000, 1, 1_000)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def flush_us() -> tuple[float, float]:
    """The write time of the disk itself, for reading SQLite's figures."""
    spans = []
    with tempfile.TemporaryFile() as file:
        for _ in range(300):
            began = time.perf_counter()
            os.write(file.fileno(), b"x" * 4096)
            os.fdatasync(file.fileno())
            spans.append((time.perf_counter() - began) * 1e6)
    return percentile(spans, 0.5), percentile(spans, 0.99)


async def _admissions(stores: list[Store], effort: Effort, results: Results) -> None:
    kinds = (
        ("one budget", budgets(1), False),
        ("a budget per key", budgets(1, per="key"), True),
        ("none, ledger only", (), False),
    )
    for store in stores:
        results.admissions[store.title] = {}
        for title, rules, keys in kinds:
            say(f"admit + settle: {store.title}, {title}")
            async with store.open() as opened:
                figures = await measure(opened, rules, (1, 16, 128), effort.round_s, effort.rounds, keys)
            results.admissions[store.title][title] = figures
        say(f"admit + settle: {store.title}, models")
        async with store.open() as opened:
            figures = await measure_models(opened, (1, 16, 128), effort.round_s, effort.rounds)
        results.admissions[store.title]["model request: two admissions"] = figures


async def _rules(stores: list[Store], effort: Effort, results: Results) -> None:
    kinds = (
        ("1", budgets(1)),
        ("10, all apply", budgets(10)),
        ("1,000, all apply", budgets(1_000)),
        ("10, one applies", budgets(1, 9)),
        ("1,000, one applies", budgets(1, 999)),
    )
    for store in stores:
        found = results.rules[store.title] = {}
        for number in range(3):  # in turn, so that the machine's load affects all alike
            say(f"rules: {store.title}, round {number + 1}")
            for title, rules in kinds:
                async with store.open() as opened:
                    for place, figures in enumerate(await measure(opened, rules, (1, 16), effort.round_s, 1)):
                        if number:
                            found[title][place].samples += figures.samples
                        else:
                            found.setdefault(title, []).append(figures)


async def _keys(stores: list[Store], effort: Effort, results: Results) -> None:
    for store in stores:
        if store.name == "redis":
            continue  # the keys are in the store behind it
        say(f"keys: {store.title}")
        async with store.open() as opened:
            results.keys[store.title] = [figures async for figures in measure_keys(opened, effort.keys, effort.rounds)]


async def _simulation(stores: list[Store], effort: Effort, results: Results) -> None:
    found = results.simulation
    found["check, then record"] = [await simulation.check_then_record() for _ in range(effort.plays)]
    for title, wait_s in (("plain reserving", 0.0), ("reserving with a wait", 1.0)):
        for store in stores:
            say(f"simulation: {title}, {store.title}")
            outcomes = found[f"{title}, {store.title}"] = []
            for _ in range(effort.plays):
                async with store.open() as opened:
                    outcomes.append(await simulation.reserving(opened, wait_s))
        for store in stores:
            if store.name == "sqlite":
                outcomes = found[f"{title}, {store.title}, {simulation.WORKERS} processes"] = []
                for _ in range(effort.plays):
                    async with store.open() as opened:
                        assert opened.path is not None
                        outcomes.append(await simulation.in_workers(opened.path, wait_s))


async def run(effort: Effort, parts: list[str], names: list[str]) -> Results:
    results = Results({**describe_machine(), "load_before": load(), "flush_us": flush_us()})
    stores, results.absent = await answering([store for store in STORES if store.name in names])
    if "admission" in parts:
        await _admissions(stores, effort, results)
    if "rules" in parts:
        await _rules(stores, effort, results)
    if "keys" in parts:
        await _keys(stores, effort, results)
    if "simulation" in parts:
        await _simulation(stores, effort, results)
    if "peers" in parts:
        say("peers")
        results.peers = await measure_peers(stores, effort.peer_requests, effort.rounds)
    if "ledger" in parts:
        say(f"ledger of {effort.entries:,} entries")
        results.ledger = await measure_ledger(effort.entries, 3)
    results.machine["load_after"] = load()
    return results


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.governance", description="Measures governance.")
    parser.add_argument("--quick", action="store_true", help="a few minutes, with smaller stores")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of every round there as well")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    names = [store.name for store in STORES]
    parser.add_argument("--stores", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    options = parser.parse_args()
    end_in_order()
    logging.disable(logging.WARNING)  # For an empty Redis, a warning reports lost counters.
    results = asyncio.run(run(QUICK if options.quick else FULL, options.only, options.stores))
    print(markdown(results))
    if options.json:
        options.json.write_text(json.dumps(as_json(results), indent=1))
    reserved = [o for title, found in results.simulation.items() if "reserving" in title for o in found]
    failed = any(outcome.used > 100 for outcome in reserved) or any(peer.failure for peer in results.peers)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
