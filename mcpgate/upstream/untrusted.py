"""What an upstream says is data, never the gateway's word: texts are cut, names of ours are taken out. Pure."""

import re
from collections.abc import Iterator
from typing import Any

from mcpgate.errors import McpgateError

OURS = "mcpgate/"
"""Names in `_meta` that only the gateway itself may use."""
MAX_TEXT = 2000
MAX_INSTRUCTIONS = 16_000
MAX_NAME = 200
MAX_DATA = 64_000
"""Characters of the data of one error; larger data is left out."""
_NODE = 10
"""What a value counts besides its text."""
_MAX_DEPTH = 5
"""How deep in a message the protocol itself puts a `_meta`: result, contents, item, resource, _meta."""
_VALUES = frozenset(("structuredContent", "arguments", "inputSchema", "outputSchema"))
"""What belongs to a tool's user; nothing in there means anything to the protocol."""
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


def cut(text: Any, limit: int = MAX_TEXT) -> str:
    """At most `limit` characters of what may be no text at all."""
    if not isinstance(text, str):
        text = "" if text is None else repr(text) if isinstance(text, (bool, int, float)) else type(text).__name__
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def one_line(text: Any, limit: int = MAX_TEXT) -> str:
    """The same, without what could forge a second line or steer a terminal."""
    return " ".join(_CONTROLS.sub(" ", cut(text, limit)).split())


def without_our_names(message: Any, depth: int = _MAX_DEPTH) -> None:
    """Take the names that only the gateway may use out of every `_meta` of a message, in place."""
    if depth < 0:
        return
    if isinstance(message, list):
        for item in message:
            if isinstance(item, (dict, list)):
                without_our_names(item, depth - 1)
    elif isinstance(message, dict):
        for key, value in message.items():
            if key == "_meta":
                if isinstance(value, dict) and any(name.startswith(OURS) for name in value):
                    message[key] = {name: kept for name, kept in value.items() if not name.startswith(OURS)}
            elif isinstance(value, (dict, list)) and key not in _VALUES:
                without_our_names(value, depth - 1)


def _codes(error: type[McpgateError]) -> Iterator[str]:
    yield error.code
    for kind in error.__subclasses__():
        yield from _codes(kind)


OUR_CODES = frozenset(_codes(McpgateError))


def their_data(data: Any) -> Any:
    """The data of an upstream's error, such that no program takes it for a refusal of the gateway: a `code` of ours
    is theirs by name, and names of ours are not there."""
    if not isinstance(data, dict):
        return data
    kept = {key: value for key, value in data.items() if not (isinstance(key, str) and key.startswith(OURS))}
    if isinstance(kept.get("code"), str) and kept["code"] in OUR_CODES:
        kept["server_code"] = kept.pop("code")
    return kept


def fits(value: Any, characters: int) -> bool:
    """Whether a JSON value is about that small; what is larger is not looked at any further."""
    waiting, left = [value], characters
    while waiting:
        one = waiting.pop()
        left -= _NODE + (len(one) if isinstance(one, (str, list, dict)) else 0)
        if left < 0:
            return False
        if isinstance(one, dict):
            left -= sum(len(key) for key in one)
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    return left >= 0
