"""Measures mcpgate's sandboxes and other ways to run a model's Python, in one run. Linux only.

    python -m benchmarks.sandbox [--quick] [--json FILE] [--only NAME …]

Peers are installed on the first run into MCPGATE_BENCH_DIR, else into the user's cache. The table goes to stdout,
progress to stderr. Exit status 1 if a contestant could not take part or failed in anything other than a snippet.
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks.machine import describe_machine, load
from benchmarks.sandbox.contestants import CONTESTANTS
from benchmarks.sandbox.measure import FULL, QUICK, measure
from benchmarks.sandbox.report import as_json, markdown
from benchmarks.signals import end_in_order


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sandbox", description="Measures sandboxes.")
    parser.add_argument("--quick", action="store_true", help="under three minutes instead of under twelve")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there as well")
    names = [contestant.name for contestant in CONTESTANTS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"some of {', '.join(names)}")
    options = parser.parse_args()
    end_in_order()
    contestants = [contestant for contestant in CONTESTANTS if contestant.name in (options.only or names)]
    machine = {**describe_machine(), "load_before": load()}
    records = measure(contestants, QUICK if options.quick else FULL)
    machine["load_after"] = load()
    print(markdown(contestants, records, machine))
    if options.json:
        options.json.write_text(json.dumps(as_json(contestants, records, machine), indent=1))
    return 1 if any(record.failures for record in records.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
