"""Lenient JSON parsing and writing. orjson first, for speed; Python's own json for what orjson rejects or distorts:
NaN, lone surrogates, integers over 64 bits, nesting deeper than 254.

Decoding blocks all other work, even from a thread, so the text is checked before it is decoded. The caller limits its
size (about 10 ms a megabyte). This module limits the number of lists and objects, which can take twenty times the
memory of their text, and the size of what Python's own json must read. Nesting is limited to what Python can walk
through, some 900 levels."""

import json
import re
from typing import Any

import orjson

MAX_CONTAINERS = 1_000_000
"""Lists and objects in one text; brackets in strings count as well."""
MAX_SPOILT = 8 * 1024 * 1024
"""Bytes of a text that orjson cannot read."""
_LARGE = 1024 * 1024
"""Bytes; shorter texts cannot hold enough to matter."""
_LONG_NUMBER = re.compile(rb"[:\[,\s]-?\d{19}")
_LOOK_INTO = 2 * 1024 * 1024
"""Bytes; longer texts are not searched for long integers, which orjson turns into floats."""


def loads(text: bytes, errors: str = "strict") -> Any:
    """`errors`: what to do about invalid UTF-8, as in bytes.decode. Raises ValueError, which names the limit if one
    was exceeded."""
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
    """Compact JSON. Raises ValueError for what has no JSON form."""
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        try:
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        except (TypeError, RecursionError) as error:
            raise ValueError(str(error)) from None
        return text.encode("utf-8", "replace")
