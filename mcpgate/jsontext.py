"""Lenient JSON parsing and writing. orjson first, for speed; Python's own json for what orjson rejects or distorts:
NaN, lone surrogates, integers over 64 bits, nesting deeper than 254.

Decoding blocks all other work, even from a thread, so the text is checked before it is decoded. The caller limits its
size (about 10 ms a megabyte). This module limits the number of values, which can take twenty times the memory of their
text, and the size of what Python's own json must read. Nesting is limited to what Python can walk through, some 900
levels."""

import gc
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

MAX_VALUES = 4_000_000
"""Values and keys in one text."""
MAX_REQUEST_VALUES = 1_000_000
"""The same in what a client asks."""
VALUE_BYTES = 100
"""Memory that a value or key takes in the end, its text apart: 24 to 104 (CPython 3.11)."""
MAX_SPOILT = 8 * 1024 * 1024
"""Bytes of a text that orjson cannot read."""
_LARGE = 256 * 1024
"""Bytes; shorter texts cannot hold enough to matter."""
_MARKS = b",:[{"
"""There is one before each value and each key but the first."""
_NO_MARKS = bytes(set(range(256)) - set(_MARKS))
_NO_MARKS_NOR_QUOTES = bytes(set(_NO_MARKS) - set(b'"'))
_STEP = 256 * 1024
_LONG_NUMBER = re.compile(rb"[:\[,\s]-?\d{19}")
_AS_ZEROS, _ZEROS = bytes.maketrans(b"123456789", b"000000000"), b"0" * 19
"""To look for so many digits first, in a tenth of the time."""
_LOOK_INTO = 2 * 1024 * 1024
"""Bytes; longer texts are not searched for long integers, which orjson turns into floats."""


def loads(text: bytes, errors: str = "strict", most: int = MAX_VALUES) -> Any:
    """`errors`: what to do about invalid UTF-8, as in bytes.decode. `most`: values. Raises ValueError, which names the
    limit if one was exceeded."""
    if len(text) <= _LARGE:
        return _decoded(text, errors)
    if count_values(text, most, rough=most) > most:
        raise ValueError(f"more than {most:,} values")
    with _no_collection():
        return _decoded(text, errors)


def _decoded(text: bytes, errors: str) -> Any:
    reason = "long integer"
    if len(text) > _LOOK_INTO or not _has_long_number(text):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError as error:
            reason = str(error)
    if len(text) > MAX_SPOILT:
        raise ValueError(f"{reason}; and longer than {MAX_SPOILT:,} bytes")
    try:
        return json.loads(text.decode("utf-8", errors), parse_constant=lambda name: None)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError:
        raise ValueError(reason) from None


def _has_long_number(text: bytes) -> bool:
    return _ZEROS in text.translate(_AS_ZEROS) and _LONG_NUMBER.search(text) is not None


@contextmanager
def _no_collection() -> Iterator[None]:
    """Looking through millions of new lists again and again for what is garbage would take four times as long."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def count_values(text: bytes, most: int, rough: int) -> int:
    """How many values and keys there are, without decoding: 13 ms a megabyte at most. Commas and brackets in
    strings count too, up to `rough` in all. Counting ends soon after `most`."""
    marks = len(text.translate(None, _NO_MARKS))
    if marks <= rough:
        return marks
    found, at, in_string = 0, 0, False
    while at < len(text) and found <= most:
        piece = text[at : at + _STEP]
        if at + len(piece) < len(text) and (len(piece) - len(piece.rstrip(b"\\"))) % 2:
            piece = piece[:-1]  # the backslash belongs to what follows
        at += len(piece)
        # Without escapes every quote begins or ends a string, and two next to each other change nothing.
        bare = piece.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NO_MARKS_NOR_QUOTES)
        parts = bare.replace(b'""', b"").split(b'"')
        found += sum(map(len, parts[in_string::2]))
        in_string ^= len(parts) % 2 == 0
    return found


def dumps(value: Any) -> bytes:
    """Compact JSON. Raises ValueError for what has no JSON form."""
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        try:
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        except (TypeError, RecursionError) as error:
            raise ValueError(str(error)) from None
        return text.encode("utf-8", "replace")
