"""`python -m benchmarks.token_savings.suites check [SUITE …] [--only TEXT]`: does the ground truth solve every task?"""

import argparse
import sys
import time
from collections.abc import Sequence

from benchmarks.token_savings.suites import SUITES
from benchmarks.token_savings.suites.check import IDLE, WAYS, check, describe


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.token_savings.suites", description=__doc__)
    parser.add_argument("action", choices=("install", "check"))
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"default: all ({', '.join(SUITES)})")
    parser.add_argument("--way", choices=WAYS, help="play them only this way")
    parser.add_argument("--only", default="", metavar="TEXT", help="only tasks whose id contains this")
    options = parser.parse_args(arguments)
    if unknown := set(options.suites) - set(SUITES):
        parser.error(f"no suite {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    if options.action == "install":
        for name in options.suites or SUITES:
            SUITES[name].install()
        return 0
    started = time.monotonic()
    failed = 0
    for name in options.suites or SUITES:
        suite = SUITES[name]
        for verdict in check(suite, [options.way] if options.way else WAYS, lambda task: options.only in task.id):
            failed += len(verdict.failed)
            total = verdict.done + len(verdict.failed)
            what = "refused" if verdict.way == IDLE else "verified"
            print(f"{name:10} {verdict.way:7} {verdict.done} of {total} {what}, {verdict.seconds:.1f} s", flush=True)
            for task_id, trouble in verdict.failed.items():
                print(f"  {task_id}: {trouble}")
        print(describe(suite))
        for task_id, reason in getattr(suite, "skipped", {}).items():
            print(f"  {task_id} is skipped: {reason}")
    print(f"{time.monotonic() - started:.1f} s in all")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
