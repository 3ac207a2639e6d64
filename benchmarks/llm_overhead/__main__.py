"""Measures what mcpgate, its peers, and no gateway at all add to a request to a model. Linux only.

    python -m benchmarks.llm_overhead [--quick] [--json FILE] [--only NAME …]

Peers are installed on the first run into MCPGATE_BENCH_DIR, else into the user's cache. The tables go to stdout,
progress to stderr. Exit status 1 when a contestant failed or answered wrongly.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.llm_overhead.contestants import CONTESTANTS, DIRECT
from benchmarks.llm_overhead.measure import FULL, QUICK, measure
from benchmarks.llm_overhead.report import as_json, markdown
from benchmarks.machine import describe_machine, load
from benchmarks.signals import end_in_order


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.llm_overhead", description="Measures what a gateway adds to a request to a model."
    )
    parser.add_argument("--quick", action="store_true", help="under three minutes instead of under twelve")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of every round there as well")
    names = [contestant.name for contestant in CONTESTANTS]
    parser.add_argument(
        "--only", nargs="+", choices=names, metavar="NAME", help=f"no gateway, and some of {', '.join(names)}"
    )
    options = parser.parse_args()
    end_in_order()
    chosen = {DIRECT.name, *(options.only or names)}
    contestants = [contestant for contestant in CONTESTANTS if contestant.name in chosen]
    machine = {
        **describe_machine(),
        "node": _said("node", "--version"),
        "commit": "mcpgate "
        + (_said("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty") or "?"),
        "load_before": load(),
    }
    records = measure(contestants, QUICK if options.quick else FULL)
    machine["load_after"] = load()
    print(markdown(contestants, records, machine))
    if options.json:
        options.json.write_text(json.dumps(as_json(contestants, records, machine), indent=1))
    return 1 if any(record.failures for record in records.values()) else 0


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
