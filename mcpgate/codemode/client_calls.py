"""What code says to the client that it runs for: `elicit(message, schema)` asks the person in front of it, and
`progress(text)` tells how far the code is. In the guest they are tools of a server that no configuration can name."""

from collections.abc import Mapping
from typing import Any

from mcpgate import jsontext
from mcpgate.client import Client
from mcpgate.errors import InvalidRequest, UnknownTool

SERVER = "(client)"
SHAPES = {
    "elicit": "elicit(message: str, schema: dict | None = None) -> dict | None — asks the person at the client. "
    'schema: {"name": "string", "size": ["S", "M"]} or a JSON schema of an object. Returns the answers, or None if '
    "the person declines; without schema True or False",
    "progress": "progress(text: str) — tells the client how far the code is",
}
_MOST_CHARS = 10_000
_PLAIN = ("string", "number", "integer", "boolean")


async def call(client: Client, name: str, positional: list[Any], named: Mapping[str, Any]) -> Any:
    """The function's value. Raises InvalidRequest, UnknownTool, NotSupported, McpgateError."""
    if name == "elicit":
        return await _elicit(client, **_bound(name, ("message", "schema"), positional, named))
    if name == "progress":
        text = _text(name, **_bound(name, ("text",), positional, named))
        client.progress({"message": text})
        return None
    raise UnknownTool(f"there is no {name[:100]}")


def _bound(name: str, parameters: tuple[str, ...], positional: list[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    given = dict(zip(parameters, positional, strict=False))
    if len(positional) > len(parameters) or not named.keys() <= set(parameters) or given.keys() & named.keys():
        raise InvalidRequest(SHAPES[name])
    return {**given, **named}


def _text(name: str, text: Any = None) -> str:
    if not isinstance(text, str) or not text or len(text) > _MOST_CHARS:
        raise InvalidRequest(f"{name} needs a text of 1 to {_MOST_CHARS:,} characters: {SHAPES[name]}")
    return text


async def _elicit(client: Client, message: Any = None, schema: Any = None) -> Any:
    wanted = _schema(schema)
    params = {"mode": "form", "message": _text("elicit", message), "requestedSchema": wanted}
    answer = await client.ask("elicitation/create", params)
    accepted, content = answer.get("action") == "accept", answer.get("content")
    if schema is None:
        return accepted
    return (content if isinstance(content, dict) else {}) if accepted else None


def _schema(schema: Any) -> dict[str, Any]:
    """What the client is sent: flat, as the protocol wants it."""
    if schema is None:
        return {"type": "object", "properties": {}}
    if not isinstance(schema, dict) or not schema or len(jsontext.dumps(schema)) > _MOST_CHARS:
        raise InvalidRequest(f"this is no schema: {SHAPES['elicit']}")
    if isinstance(schema.get("properties"), dict):
        return {"type": "object", **schema}
    properties = {}
    for name, kind in schema.items():
        if kind in _PLAIN:
            properties[name] = {"type": kind}
        elif isinstance(kind, list) and kind and all(isinstance(one, str) for one in kind):
            properties[name] = {"type": "string", "enum": kind}
        elif isinstance(kind, dict) and "type" in kind:
            properties[name] = kind
        else:
            raise InvalidRequest(f"{str(name)[:100]!r} must be one of {', '.join(_PLAIN)}, or a list of choices")
    return {"type": "object", "properties": properties, "required": list(properties)}
