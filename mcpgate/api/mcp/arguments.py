"""Arguments of the meta-tools as clients send them. Pure."""

from typing import Any

from mcpgate.catalog.catalog import nearest
from mcpgate.errors import InvalidRequest

_ARGUMENTS: dict[str, dict[str, tuple[type, ...]]] = {
    "list_tools": {"query": (str,), "server": (str,), "limit": (int,)},
    "describe_tools": {"names": (list,)},
    "read_docs": {"topic": (str,)},
    "execute_code": {"code": (str,), "session": (str,), "timeout_s": (int, float)},
}
_REQUIRED = {"describe_tools": "names", "read_docs": "topic", "execute_code": "code"}


def checked(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a meta-tool. Models send null for 'none' and a string for a list of one. Raises InvalidRequest."""
    known = _ARGUMENTS[name]
    given = {}
    for key, value in arguments.items():
        if key not in known:
            near = nearest(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known)}"
            raise InvalidRequest(f"{name} has no argument {key!r}; {hint}")
        if value is None:
            continue
        if key == "names" and isinstance(value, str):
            value = [value]
        if isinstance(value, bool) or not isinstance(value, known[key]):
            raise InvalidRequest(f"{name}: {key} must be {known[key][0].__name__}, not {type(value).__name__}")
        if isinstance(value, list) and not all(isinstance(item, str) for item in value):
            raise InvalidRequest("describe_tools: names must be a list of strings")
        given[key] = value
    required = _REQUIRED.get(name)
    if required and required not in given:
        raise InvalidRequest(f"{name} needs {required!r}")
    return given
