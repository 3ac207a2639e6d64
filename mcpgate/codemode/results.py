"""The result of an execution as the short text that a model reads. Pure: compact JSON or a table, whichever
is shorter; what is too long is summarized structurally and says so."""

import csv
import io
import re
from dataclasses import dataclass
from itertools import islice
from typing import Any

from mcpgate import jsontext
from mcpgate.tokens import estimate

_LARGE = 50_000
"""Parts, and characters of texts."""
_CHARS_A_TOKEN = 6
"""Text of more characters per token than this is over any budget; no need to read it all."""
_LONGEST_KEY = 200


@dataclass(frozen=True, slots=True)
class Shaped:
    """A text for the model, and whether it was shortened."""

    text: str
    shortened: bool = False


def shape(value: Any, max_tokens: int) -> Shaped:
    """The value in at most about `max_tokens` tokens. Reads only about as many parts and characters as fit, whatever
    the size of the value, so that it needs no thread: about 20 ms for 10,000 tokens."""
    room = max_tokens * _CHARS_A_TOKEN
    if isinstance(value, str):
        return Shaped(value) if fits(value, max_tokens) else Shaped(shorten_text(value, max_tokens), True)
    whole = _render_within(value, room)
    if whole is not None and fits(whole, max_tokens):
        return Shaped(whole)
    told, text = f"\n[shortened; whole: {describe(value)}]", ""
    for items, chars in ((30, 400), (12, 200), (6, 100), (3, 60), (2, 30), (1, 20)):
        text = render(_summarize(value, items, chars, [room]))
        if fits(text, max_tokens):
            return Shaped(text + told, True)
    return Shaped(shorten_text(text, max_tokens) + told, True)


def fits(text: str, max_tokens: int) -> bool:
    return len(text) <= max_tokens * _CHARS_A_TOKEN and estimate(text) <= max_tokens


def render(value: Any) -> str:
    """The value in its shortest lossless form."""
    if isinstance(value, str):
        return value
    text, table = to_json(value), to_table(value)
    return table if table is not None and len(table) < len(text) else text


def _render_within(value: Any, room: int) -> str | None:
    """As `render`, or None if it takes more than `room` characters. Does not render what cannot fit."""
    rows = len(value) if isinstance(value, list) else 0
    if rows > room or _left_of(room + rows, value, keys=False) < 0:
        return None  # not even as rows, which take no more room than their cells
    if _left_of(room, value, keys=True) >= 0:
        return render(value)
    return to_table(value)


def _left_of(room: int, value: Any, keys: bool) -> int:
    """The most room that can be left after the value is written; negative as soon as it is used up."""
    waiting = [iter((value,))]
    while waiting and room >= 0:
        inner = next(waiting[-1], waiting)
        if inner is waiting:
            waiting.pop()
            continue
        room -= 1 + (len(inner) if isinstance(inner, str) else 0)
        if isinstance(inner, dict):
            waiting.append(iter(inner.values()))
            for key in inner if keys else ():
                room -= 4 + (len(key) if isinstance(key, str) else 0)
                if room < 0:
                    break
        elif isinstance(inner, (list, tuple)):
            waiting.append(iter(inner))
    return room


def is_large(value: Any) -> bool:
    """Whether walking through a value takes so long (about 5 ms and more) that it should not be done on the event
    loop."""
    return _left_of(_LARGE, value, keys=False) < 0


def to_json(value: Any) -> str:
    try:
        return jsontext.dumps(value).decode()
    except ValueError:
        return "(nested too deeply to be shown)"


def to_table(value: Any) -> str | None:
    """CSV of a list of uniform rows; None if that would lose something."""
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
    """Whether a cell reads back as the same value: the text "1" would look like the number."""
    if not isinstance(cell, str):
        return not isinstance(cell, (dict, list))
    if "\r" in cell:  # older Pythons write it without quotes, and a reader takes it for the end of the row
        return False
    text = cell.strip().lower()
    return bool(text) and text not in ("true", "false") and not re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", text)


def _cell(cell: Any) -> Any:
    if cell is None:
        return ""
    return str(cell).lower() if isinstance(cell, bool) else cell


def describe(value: Any) -> str:
    """What a value is, without its content: `list of 4,880 objects {id, name}`."""
    if isinstance(value, list):
        if value and all(isinstance(item, dict) for item in value[:50]):
            keys = [_cut_key(key, 40) for key in islice(value[0], 8)]
            return f"list of {len(value):,} objects {{{', '.join(keys)}{', …' if len(value[0]) > 8 else ''}}}"
        kinds = sorted({type(item).__name__ for item in value[:50]})
        return f"list of {len(value):,}" + (f" {' | '.join(kinds)}" if kinds else "")
    if isinstance(value, dict):
        return f"object of {len(value):,} keys"
    if isinstance(value, str):
        return f"text of {len(value):,} characters, {value.count(chr(10)) + 1:,} lines"
    return type(value).__name__


def _cut_key(key: Any, most: int) -> str:
    text = key if isinstance(key, str) else str(key)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def shorten_text(text: str, max_tokens: int) -> str:
    """The beginning and end of a text that is too long, with a note of what is left out between them."""
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


def _summarize(value: Any, items: int, chars: int, left: list[int], depth: int = 0) -> Any:
    """The value with fewer items and shorter texts. `left`: how many parts may still be read; the rest is only
    described."""
    left[0] -= 1
    if isinstance(value, str) and len(value) > chars:
        return f"{value[: chars * 2 // 3]}…[{len(value) - chars:,} chars]…{value[len(value) - chars // 3 :]}"
    if depth > 6 or left[0] < 0:
        return describe(value) if isinstance(value, (dict, list)) else value
    if isinstance(value, list):
        if len(value) <= items + 1:
            return [_summarize(item, items, chars, left, depth + 1) for item in value]
        first = [_summarize(item, items, chars, left, depth + 1) for item in value[: max(1, items * 2 // 3)]]
        last = [_summarize(item, items, chars, left, depth + 1) for item in value[len(value) - max(1, items // 3) :]]
        return [*first, f"… {len(value) - len(first) - len(last):,} more …", *last]
    if isinstance(value, dict):
        most = max(8, items * 2)
        shown = {}
        for key, inner in islice(value.items(), most):
            cut = key if isinstance(key, str) and len(key) <= _LONGEST_KEY else _cut_key(key, _LONGEST_KEY)
            shown[cut] = _summarize(inner, items, chars, left, depth + 1)
        if len(value) > most:
            shown["…"] = f"{len(value) - most:,} more keys"
        return shown
    return value
