"""JSON text to values and back, as peers really write it. orjson first, for speed; Python's own json for what it
refuses or spoils: NaN, lone surrogates, integers over 64 bits, nesting deeper than 254."""

import json
import re
from typing import Any

import orjson

_LONG_NUMBER = re.compile(rb"[:\[,\s]-?\d{19}")
_LOOK_INTO = 4 * 1024 * 1024
"""Bytes; longer texts are not searched for long integers, which orjson makes floats of."""


def loads(text: bytes, errors: str = "strict") -> Any:
    """`errors`: what to do about invalid UTF-8, as in bytes.decode. Raises ValueError."""
    reason = "long integer"
    if len(text) > _LOOK_INTO or _LONG_NUMBER.search(text) is None:
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError as error:
            reason = str(error)
    try:
        return json.loads(text.decode("utf-8", errors), parse_constant=lambda name: None)
    except (ValueError, RecursionError):
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
