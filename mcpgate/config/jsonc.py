"""JSON with comments and trailing commas, as in editors' settings files. Pure: text in, text out; nothing that a
person wrote is lost."""

import json
import re
from typing import Any

_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/|[{}\[\],:]|[^\s{}\[\],:"/]+|/', re.DOTALL)
_OMITTED = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/|,(?=\s*(?:(?://[^\n]*|/\*.*?\*/)\s*)*[}\]])', re.DOTALL)


class Spelled(float):
    """A number with a fraction that remembers how it was written: `1.10` in `env` is not 1.1."""

    def __new__(cls, text: str) -> "Spelled":
        made = super().__new__(cls, text)
        made._text = text
        return made

    _text: str

    def __str__(self) -> str:
        return self._text


def parse(text: str) -> Any:
    """Raises ValueError. An empty text is an empty object."""
    return json.loads(strip(text) or "{}", parse_float=Spelled)


def strip(text: str) -> str:
    """The text without comments and trailing commas."""
    return _OMITTED.sub(lambda m: m.group(0) if m.group(0).startswith('"') else "", text).strip()


def with_member(text: str, path: list[str], value: Any) -> str:
    """The text with `value` at `path` and everything else unchanged, comments too. Raises ValueError if the text
    is not JSON, or if something on the path is not an object."""
    data = parse(text)
    node = data
    for key in path[:-1]:
        node = node.setdefault(key, {}) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        raise ValueError(f"`{'.'.join(path[:-1]) or 'the file'}` is not an object")
    if path[-1] in node and node[path[-1]] == value:
        return text
    node[path[-1]] = value
    edited = _edited(text, path, value)
    # Whatever the text holds, the result is checked to mean what it should.
    return edited if edited is not None and parse(edited) == data else json.dumps(data, indent=2, ensure_ascii=False)


def _edited(text: str, path: list[str], value: Any) -> str | None:
    """The text with the value written in; None if the place is not found."""
    tokens = [m for m in _TOKEN.finditer(text) if not m.group(0).startswith(("//", "/*"))]
    if not tokens:
        return None
    unit = next(iter(re.findall(r"^([ \t]+)\S", text, re.MULTILINE)), "  ")
    at, depth = 0, 0
    while True:
        if tokens[at].group(0) != "{":
            return None
        depth += 1
        found, end = _member(tokens, at, path[depth - 1])
        if found is None:
            for key in reversed(path[depth:]):
                value = {key: value}
            before = tokens[end - 1]
            comma = "" if before.group(0) in "{," else ","
            member = f"{json.dumps(path[depth - 1], ensure_ascii=False)}: {_written(value, unit, depth)}"
            gap = text[before.end() : tokens[end].start()].rstrip()  # comments after the last member
            rest = text[tokens[end].start() :]
            return f"{text[: before.end()]}{comma}{gap}\n{unit * depth}{member}\n{unit * (depth - 1)}{rest}"
        if depth == len(path):
            start, stop = tokens[found].start(), tokens[_end_of(tokens, found)].end()
            return text[:start] + _written(value, unit, depth) + text[stop:]
        at = found


def _member(tokens: list[re.Match[str]], at: int, key: str) -> tuple[int | None, int]:
    """Where a key's value begins in the object at `at` (None without such a key), and where the object ends."""
    at += 1
    found = None
    while tokens[at].group(0) != "}":
        if tokens[at].group(0) == ",":
            at += 1
            continue
        if json.loads(tokens[at].group(0)) == key:
            found = at + 2
        at = _end_of(tokens, at + 2) + 1
    return found, at


def _end_of(tokens: list[re.Match[str]], at: int) -> int:
    """The last token of the value that begins at `at`."""
    depth = 0
    while True:
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(tokens[at].group(0), 0)
        if depth == 0:
            return at
        at += 1


def _written(value: Any, unit: str, depth: int) -> str:
    return json.dumps(value, indent=unit, ensure_ascii=False).replace("\n", "\n" + unit * depth)
