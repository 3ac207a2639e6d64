"""`python -m benchmarks.token_savings` with the notes suite instead of those that must be installed."""

import sys
from typing import Any

from benchmarks.token_savings import __main__ as command
from tests.benchmarks.notes_suite import NotesSuite

if __name__ == "__main__":
    suites: Any = command.SUITES
    suites.clear()
    suites["notes"] = NotesSuite()
    sys.exit(command.main())
