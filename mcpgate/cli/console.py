"""Output of commands: results to stdout, everything else to stderr; colours and moving lines only on a
terminal."""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def _coloured(stream: Any) -> bool:
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str, stream: Any = None) -> str:
    if not _coloured(stream or sys.stdout):
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def show(value: Any) -> None:
    """Print a value as JSON to stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]], right: frozenset[int] = frozenset()) -> str:
    """Aligned columns; those in `right` are aligned right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max([len(h), *(len(row[i]) for row in cells)]) for i, h in enumerate(headers)]

    def line(row: Sequence[str]) -> str:
        parts = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        return "  ".join(parts).rstrip()

    return "\n".join([styled(line(headers), "bold"), *(line(row) for row in cells)])


def fail(message: str) -> None:
    print(f"{styled('error:', 'red', sys.stderr)} {message}", file=sys.stderr)


def note(message: str) -> None:
    """Print a remark for people, in addition to the command's result."""
    print(styled(message, "dim", sys.stderr), file=sys.stderr)


class Status:
    """One moving line on a terminal; elsewhere only what takes long, once."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._last = ""

    def __call__(self, text: str) -> None:
        if self._live:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        elif text.startswith("compiling") and not self._last:
            print(text, file=sys.stderr, flush=True)
        if self._live or text.startswith("compiling"):
            self._last = text

    def clear(self) -> None:
        if self._live and self._last:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        self._last = ""
