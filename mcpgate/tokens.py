"""Counting tokens. `estimate` is for serving: it needs no vocabulary and errs on the high side. `count` is for
reports and exact (o200k, from the `bpe-openai` package, which ships its vocabulary); it costs half a second
and 70 MB once, so nothing that serves uses it."""

import re
from collections.abc import Callable
from functools import lru_cache

_PIECE = re.compile(
    r"[ _]?[A-Za-z]?[a-z\u00aa-\u024f\u0300-\u036f\u1e00-\u1eff]+| ?[A-Z]+(?![a-z])|\d{1,3}|\s*[\r\n]+"
    r"| ?[!-/:-@\[-`{-~]+| ?[\u0400-\u052f]+| ?[\u0370-\u03ff\u0530-\u1dff\u1f00-\u1fff]+| ?[\u2000-\U0010ffff]|\s+|."
)
"""Splits text much as o200k's first pass does: words at changes of case, numbers in threes, a space with its word."""
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
"""Thai, Lao, Burmese, Khmer: no spaces between words, so a piece is a whole sentence."""


def estimate(text: str) -> int:
    """About how many o200k tokens a text has: 0–35 % too many for prose, code, JSON, CSV and most languages; up to a
    quarter too few for languages other than English written in plain a–z."""
    total = words = foreign = long_words = signs = 0
    for piece in _PIECE.findall(text):
        if piece[0] in " _" and len(piece) > 1 and not piece[1].isspace():
            piece = piece[1:]  # belongs to what follows
        first, size = piece[0], len(piece)
        if first < "\x80" and not first.isalpha():
            total += 1 if first.isdigit() or first.isspace() else (size + 1) // 2
        elif piece.isascii():
            words += 1
            long_words += 4 < size < 8
            if piece.isupper():
                total += (size + 3) // 4
            else:
                total += 1 if size <= 7 else 1 + (size - 3) // 5
        elif first < "\u0370" or "\u1e00" <= first <= "\u1eff":
            foreign += 1
            total += (size + 2) // 3
        elif "\u0400" <= first <= "\u052f":
            total += 1 if size <= 4 else (size + 2) // 3
        elif _UNSPACED.match(first):
            total += size // 2 + 1
        elif first < "\u2000":
            total += (2 * size + 4) // 5
        elif "\u3040" <= first <= "\ud7ff":
            signs += 1
        else:
            total += 2 if first > "\uffff" else 1
    if foreign * 12 > words:
        total += long_words * 2 // 3  # short English words are one token each, those of similar languages are not
    return total + (signs * 17 + 19) // 20


@lru_cache(maxsize=1)
def _exact() -> Callable[[str], int] | None:
    try:
        from bpe_openai import get_encoding
    except ImportError:
        return None
    encoding = get_encoding("o200k_base")
    return lambda text: len(encoding.encode(text))


def is_exact() -> bool:
    return _exact() is not None


def count(text: str) -> int:
    """o200k tokens; the estimate where the tokenizer is not installed (see `is_exact`)."""
    counter = _exact()
    return counter(text) if counter is not None else estimate(text)
