"""Names of servers, tools and parameters as Python identifiers. Pure; the same input gives the same names
in any order."""

import builtins
import keyword
import re
import unicodedata
from collections.abc import Iterable

_SERVER_TAKEN = frozenset(dir(builtins)) | {"asyncio", "json", "load", "ToolError", "ArgumentError", "self"}
"""Names that a server's global must not shadow."""
_MAX_NAME = 200
"""Maximum characters; longer names are cut."""


def identifiers(names: Iterable[str], taken: frozenset[str] = frozenset()) -> dict[str, str]:
    """Original name → identifier. A name that already is an identifier stays; of others that would clash,
    the first in alphabetical order gets the plain form and the rest `_2`, `_3`, …"""
    ordered = sorted(set(names))
    result = {name: name for name in ordered if len(name) <= _MAX_NAME and _is_free(name, taken)}
    used = set(result.values()) | taken
    numbers: dict[str, int] = {}
    """The last number tried for each base. Used names stay used, so no number is tried twice."""
    for name in ordered:
        if name in result:
            continue
        base = candidate = to_identifier(name)
        number = numbers.get(base, 1)
        if number > 1:
            candidate = _numbered(base, number, taken)
        while candidate in used or not _is_free(candidate, taken):
            number += 1
            candidate = _numbered(base, number, taken)
        numbers[base] = number
        used.add(candidate)
        result[name] = candidate
    return result


def _numbered(base: str, number: int, taken: frozenset[str]) -> str:
    return f"{base}_{number}" if base not in taken or number > 2 else f"{base}_"


def server_identifiers(names: Iterable[str]) -> dict[str, str]:
    return identifiers(names, _SERVER_TAKEN)


def clashes(names: Iterable[str]) -> list[tuple[str, ...]]:
    """The names of servers that would become the same identifier. Numbers could tell them apart, but then a server
    added later could take an existing server's identifier, and with it what was granted to it."""
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        groups.setdefault(server_identifiers([name])[name], []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def to_identifier(name: str) -> str:
    """The name with everything but letters, digits and `_` replaced by `_`; keywords get a `_` appended. With a number
    appended it is still an identifier."""
    # NFKC, as Python normalizes identifiers: `ﬁle` in code arrives as `file`.
    text = re.sub(r"\W", "_", unicodedata.normalize("NFKC", name[:_MAX_NAME]))
    if not f"x{text}".isidentifier() or unicodedata.normalize("NFKC", text) != text:
        text = re.sub(r"[^A-Za-z0-9_]", "_", text)
    text = re.sub(r"__+", "_", text[:_MAX_NAME]).strip("_") or "x"
    if not text.isidentifier():
        text = f"n{text}" if text[0].isdigit() else f"x{text}"
    return f"{text}_" if keyword.iskeyword(text) else text


def server_in(name: str) -> str:
    """The server at the beginning of what a caller names: `files` of `files.read`, `files__read`, `files notes`."""
    return re.split(r"[\s./:]|__", name[:_MAX_NAME], maxsplit=1)[0]


def _is_free(name: str, taken: frozenset[str]) -> bool:
    if not name.isidentifier() or keyword.iskeyword(name) or name in taken or name.startswith("_"):
        return False
    return name.isascii() or unicodedata.normalize("NFKC", name) == name


def class_name(*parts: str) -> str:
    """CamelCase of the parts: ('create_user', 'address') → 'CreateUserAddress'."""
    words = [word for part in parts for word in re.split(r"[^A-Za-z0-9]+", part) if word]
    text = "".join(word[0].upper() + word[1:] for word in words) or "Item"
    return f"N{text}" if text[0].isdigit() else text
