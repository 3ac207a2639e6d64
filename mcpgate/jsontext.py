"""JSON text to values and back, as peers really write it. orjson first, for speed; Python's own json for what it
refuses or spoils: NaN, lone surrogates, integers over 64 bits, nesting deeper than 254.

Decoding holds everybody up, in a thread too, so it is bounded by what the text says before it is decoded: its size is
for the caller to limit (about 10 ms a megabyte), lists and objects are limited here, for they can take twenty times
the memory that their text does, and what Python's own json must read is limited in size. Nesting ends at what Python
can walk through, some 900 levels."""

import json
import re
from typing import Any

import orjson

MAX_CONTAINERS = 1_000_000
"""Lists and objects in one text; brackets in strings count as well."""
MAX_SPOILT = 8 * 1024 * 1024
"""Bytes of a text that orjson does not read."""
_LARGE = 1024 * 1024
"""Bytes; shorter texts cannot hold enough to matter."""
_LONG_NUMBER = re.compile(rb"[:\[,\s]-?\d{19}")
_LOOK_INTO = 2 * 1024 * 1024
"""Bytes; longer texts are not searched for long integers, which orjson makes floats of."""


def loads(text: bytes, errors: str = "strict") -> Any:
    """`errors`: what to do about invalid UTF-8, as in bytes.decode. Raises ValueError, which says what is too much
    where something is."""
    if len(text) > _LARGE and text.count(b"[") + text.count(b"{") > MAX_CONTAINERS:
        raise ValueError(f"more than {MAX_CONTAINERS:,} lists and objects")
    reason = "long integer"
    if len(text) > _LOOK_INTO or _LONG_NUMBER.search(text) is None:
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


def dumps(value: Any) -> bytes:
    """Compact. Raises ValueError for what has no JSON form."""
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        try:
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        except (TypeError, RecursionError) as error:
            raise ValueError(str(error)) from None
        return text.encode("utf-8", "replace")
