"""The lines of a dead process's stderr that tell why it died. Pure."""

import re
from collections.abc import Sequence

_EXCEPTION = re.compile(r"[\w.]*(?:Error|Exception)(?: \[\w+\])?: ")
"""As Python and JavaScript end a report: `ModuleNotFoundError: …`, `TypeError [ERR_X]: …`."""
_COMPLAINT = re.compile(
    r"\b(?:not found|no such|cannot|can't|could not|unable|failed|failure|denied|refused|fatal|panic|invalid|unknown|"
    r"unrecognized|missing|required|no solution)\b",
    re.IGNORECASE,
)
_WORDS = re.compile(r"[^\W\d_]{3}")
_READ = 500
"""Characters of a line that are looked at."""


def telling(lines: Sequence[str]) -> list[str]:
    """At most three lines: the last exception, else the first complaints, else the last lines that hold words."""
    exceptions = [line for line in lines if _EXCEPTION.match(line[:_READ].lstrip())]
    if exceptions:
        return exceptions[-1:]
    complaints = [line for line in lines if _COMPLAINT.search(line[:_READ])]
    return complaints[:2] or [line for line in lines if _WORDS.search(line[:_READ])][-3:]
