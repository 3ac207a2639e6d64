"""What came of an execution, as the short text that a model reads. Pure: compact JSON or a table, whichever
is shorter; what is too long is shortened by meaning and says so."""

import csv
import io
import re
from dataclasses import dataclass
from typing import Any

from mcpgate import jsontext
from mcpgate.tokens import estimate

_CHARS_A_TOKEN = 6
"""Text longer than this many characters a token is over any budget; no need to look at it all."""


@dataclass(frozen=True, slots=True)
class Shaped:
    """A text for the model, and whether something was left out of it."""

    text: str
    shortened: bool = False


def shape(value: Any, max_tokens: int) -> Shaped:
    """The value in at most about `max_tokens` tokens."""
    whole = render(value)
    if fits(whole, max_tokens):
        return Shaped(whole)
    if isinstance(value, str):
        return Shaped(shorten_text(value, max_tokens), True)
    for items, chars in ((30, 400), (12, 200), (6, 100), (3, 60), (2, 30), (1, 20)):
        text = render(_summarize(value, items, chars))
        if fits(text, max_tokens):
            return Shaped(f"{text}\n[shortened; whole: {describe(value)}]", True)
    return Shaped(shorten_text(whole, max_tokens) + f"\n[shortened; whole: {describe(value)}]", True)


def fits(text: str, max_tokens: int) -> bool:
    return len(text) <= max_tokens * _CHARS_A_TOKEN and estimate(text) <= max_tokens


def render(value: Any) -> str:
    """The value in its shortest form that loses nothing."""
    if isinstance(value, str):
        return value
    text = to_json(value)
    table = to_table(value)
    return table if table is not None and len(table) < len(text) else text


def to_json(value: Any) -> str:
    try:
        return jsontext.dumps(value).decode()
    except ValueError:
        return "(nested too deeply to be shown)"


def to_table(value: Any) -> str | None:
    """CSV of a list of uniform rows; None where that would lose something."""
    if not isinstance(value, list) or len(value) < 3 or not all(isinstance(row, dict) and row for row in value):
        return None
    columns = list(value[0])
    if any(list(row) != columns for row in value) or not all(isinstance(c, str) and "\r" not in c for c in columns):
        return None
    cells = [cell for row in value for cell in row.values()]
    if not all(_is_plain(cell) for cell in cells):
        return None
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for row in value:
        writer.writerow([_cell(cell) for cell in row.values()])
    return f"{buffer.getvalue()}({len(value)} rows)"


def _is_plain(cell: Any) -> bool:
    """Whether a cell reads back as what it is: the text "1" would look like the number."""
    if not isinstance(cell, str):
        return not isinstance(cell, (dict, list))
    if "\r" in cell:  # which older Pythons write without quotes, where a reader takes it for the end of the row
        return False
    text = cell.strip().lower()
    return bool(text) and text not in ("true", "false") and not re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", text)


def _cell(cell: Any) -> Any:
    if cell is None:
        return ""
    return str(cell).lower() if isinstance(cell, bool) else cell


def describe(value: Any) -> str:
    """What a value is, without what is in it: `list of 4,880 objects {id, name}`."""
    if isinstance(value, list):
        if value and all(isinstance(item, dict) for item in value[:50]):
            keys = [str(key) if len(str(key)) <= 40 else f"{str(key)[:39]}…" for key in list(value[0])[:8]]
            return f"list of {len(value):,} objects {{{', '.join(keys)}{', …' if len(value[0]) > 8 else ''}}}"
        kinds = sorted({type(item).__name__ for item in value[:50]})
        return f"list of {len(value):,}" + (f" {' | '.join(kinds)}" if kinds else "")
    if isinstance(value, dict):
        return f"object of {len(value):,} keys"
    if isinstance(value, str):
        return f"text of {len(value):,} characters, {value.count(chr(10)) + 1:,} lines"
    return type(value).__name__


def shorten_text(text: str, max_tokens: int) -> str:
    """Beginning and end of a text that is too long, with what is missing said between them."""
    if fits(text, max_tokens):
        return text
    room = max_tokens * 3
    while room > 40:
        head, tail = text[: room * 2 // 3], text[len(text) - room // 3 :]
        lost = len(text) - len(head) - len(tail)
        short = f"{head}\n[… {lost:,} characters left out …]\n{tail}"
        if estimate(short) <= max_tokens:
            return short
        room = room * 3 // 4
    return text[:room]


def _summarize(value: Any, items: int, chars: int, depth: int = 0) -> Any:
    if isinstance(value, str) and len(value) > chars:
        return f"{value[: chars * 2 // 3]}…[{len(value) - chars:,} chars]…{value[len(value) - chars // 3 :]}"
    if depth > 6:
        return describe(value) if isinstance(value, (dict, list)) else value
    if isinstance(value, list):
        if len(value) <= items + 1:
            return [_summarize(item, items, chars, depth + 1) for item in value]
        first = [_summarize(item, items, chars, depth + 1) for item in value[: max(1, items * 2 // 3)]]
        last = [_summarize(item, items, chars, depth + 1) for item in value[len(value) - max(1, items // 3) :]]
        return [*first, f"… {len(value) - len(first) - len(last):,} more …", *last]
    if isinstance(value, dict):
        most = max(8, items * 2)
        shown = {k: _summarize(v, items, chars, depth + 1) for k, v in list(value.items())[:most]}
        if len(value) > most:
            shown["…"] = f"{len(value) - most:,} more keys"
        return shown
    return value
