"""What commands print: results to stdout, everything else to stderr; colours and moving lines only on a
terminal."""

import json
import os
import re
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Sequence
from typing import Any

from mcpgate.telemetry.text import visible

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def _coloured(stream: Any) -> bool:
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str, stream: Any = None) -> str:
    if not _coloured(stream or sys.stdout):
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


_UNUSUAL = re.compile(r"[^\n\x20-\x7e]")
_STYLING = re.compile(r"\x1b\[\d+m")


def show(value: Any) -> None:
    """Print a value as JSON. Characters that a terminal would obey become JSON escapes."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    print(_UNUSUAL.sub(lambda m: m[0] if visible(m[0]) == m[0] else f"\\u{ord(m[0]):04x}", text))


def say(text: str, stream: Any = None) -> None:
    """Print text that others may have written, with escapes instead of anything that a terminal would obey."""
    print(visible(text, lines=True), file=stream or sys.stdout)


def counted(number: int, thing: str) -> str:
    """`1 tool`, `1,200 tools`."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def width(text: str) -> int:
    """Columns that a text takes on a terminal: none for colours and accents, two for wide characters."""
    plain = _STYLING.sub("", text)
    if plain.isascii():
        return len(plain)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in plain)


def cut(text: str, columns: int) -> str:
    """The text in at most so many columns, with `…` where some is missing."""
    if width(text) <= columns:
        return text
    kept, used = "", 1
    for char in text:
        used += width(char)
        if used > columns:
            break
        kept += char
    return f"{kept}…"


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]], right: frozenset[int] = frozenset()) -> str:
    """Columns that line up; `right` are the numeric ones."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max([width(h), *(width(row[i]) for row in cells)]) for i, h in enumerate(headers)]

    def line(row: Sequence[str]) -> str:
        parts = []
        for i, (cell, columns) in enumerate(zip(row, widths, strict=True)):
            space = " " * (columns - width(cell))
            parts.append(space + cell if i in right else cell + space)
        return "  ".join(parts).rstrip()

    return "\n".join([styled(line(headers), "bold"), *(line(row) for row in cells)])


def room() -> int:
    """Columns of the terminal; unlimited if stdout is not one."""
    return max(40, shutil.get_terminal_size().columns) if sys.stdout.isatty() else sys.maxsize


def wrapped(text: str, indent: str = "") -> str:
    """Text in lines that fit the terminal; in one line if stdout is not one."""
    return textwrap.fill(text, room(), initial_indent=indent, subsequent_indent=indent or "  ")


def fail(message: str) -> None:
    print(f"{styled('error:', 'red', sys.stderr)} {visible(message, lines=True)}", file=sys.stderr)


def note(message: str) -> None:
    """Print a remark for a person to stderr."""
    print(styled(visible(message, lines=True), "dim", sys.stderr), file=sys.stderr)


def _columns() -> int:
    """Of the terminal that stderr is."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


class Status:
    """One line that changes in place on a terminal. Elsewhere, only steps that take long are printed, once."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._last = ""

    def __call__(self, text: str) -> None:
        if self._live:
            # A line that wraps could not be cleared.
            print(f"\r\x1b[K{cut(visible(text), _columns() - 1)}", end="", file=sys.stderr, flush=True)
        elif text.startswith("compiling") and not self._last:
            print(text, file=sys.stderr, flush=True)
        if self._live or text.startswith("compiling"):
            self._last = text

    def clear(self) -> None:
        if self._live and self._last:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        self._last = ""
