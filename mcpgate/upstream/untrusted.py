"""What an upstream says is data and must not look like the gateway's own words: texts are cut to size, and names
reserved for the gateway are removed. Pure."""

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
"""Maximum characters of one error's data; larger data is left out."""
_NODE = 10
"""What each value counts for, in addition to its text."""
_MAX_DEPTH = 5
"""The depth of the deepest `_meta` that the protocol defines: result, contents, item, resource, _meta."""
_VALUES = frozenset(("structuredContent", "arguments", "inputSchema", "outputSchema"))
"""Content that belongs to the user of a tool and has no meaning for the protocol."""
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


def cut(text: Any, limit: int = MAX_TEXT) -> str:
    """At most `limit` characters of a value, which may not be text."""
    if not isinstance(text, str):
        text = "" if text is None else repr(text) if isinstance(text, (bool, int, float)) else type(text).__name__
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def one_line(text: Any, limit: int = MAX_TEXT) -> str:
    """The same, without characters that could start a new line or control a terminal."""
    return " ".join(_CONTROLS.sub(" ", cut(text, limit)).split())


def without_our_names(message: Any, depth: int = _MAX_DEPTH) -> None:
    """Remove names reserved for the gateway from every `_meta` of a message, in place."""
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
    """The data of an upstream's error, changed so that no program mistakes it for a refusal by the gateway: a
    `code` that we use becomes `server_code`, and reserved names are removed."""
    if not isinstance(data, dict):
        return data
    kept = {key: value for key, value in data.items() if not (isinstance(key, str) and key.startswith(OURS))}
    if isinstance(kept.get("code"), str) and kept["code"] in OUR_CODES:
        kept["server_code"] = kept.pop("code")
    return kept


def fits(value: Any, characters: int) -> bool:
    """Whether a JSON value has about that size or less. Stops looking once it is larger."""
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
