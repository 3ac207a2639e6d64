"""From the arguments that code gave to the arguments that a tool gets: positional to named, identifiers to
original names, checked against the tool's schema. Pure; says everything that is wrong at once."""

import difflib
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mcpgate.catalog.tools import Tool

if TYPE_CHECKING:
    # 100 ms that a gateway should not cost before it answers its first tools/list.
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator

_MAX_FAULTS = 5


class ArgumentFault(ValueError):
    """The arguments do not fit; the message says each fault."""


def bind(tool: Tool, positional: Sequence[Any], named: dict[str, Any]) -> dict[str, Any]:
    """The arguments by original name. Raises ArgumentFault for what Python would call a TypeError: unknown,
    missing, doubled or too many."""
    parameters = tool.parameters
    faults = []
    arguments: dict[str, Any] = {}
    if len(positional) == 1 and not named and isinstance(positional[0], dict) and _is_whole(tool, positional[0]):
        named, positional = positional[0], ()
    if len(positional) > len(parameters):
        faults.append(f"takes {len(parameters)} arguments, {len(positional)} were given")
    for value, original in zip(positional, parameters.values(), strict=False):
        arguments[original] = value
    for name, value in named.items():
        original = parameters.get(name, name)
        if original in arguments:
            faults.append(f"argument {name!r} was given twice")
        elif original not in tool.properties and not tool.open_ended:
            near = difflib.get_close_matches(name, [*parameters, *tool.properties], 1, 0.5)
            faults.append(f"unknown argument {name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
        else:
            arguments[original] = value
    for name in tool.required:
        if name not in arguments and (name in tool.properties or not tool.properties):
            faults.append(f"argument {name!r} is missing")
    if faults:
        raise ArgumentFault("; ".join(sorted(faults, key=_unknown_first)))
    # A model writes `x=None` for "not given"; servers refuse null where the schema does not allow it.
    return {
        n: v for n, v in arguments.items() if v is not None or n in tool.required or _nullable(tool.properties.get(n))
    }


def check(tool: Tool, arguments: dict[str, Any]) -> None:
    """Check against the tool's JSON Schema. A schema that is itself broken checks nothing. Raises ArgumentFault."""
    validator = _validator(tool)
    if validator is None:
        return
    faults = []
    try:
        for error in validator.iter_errors(arguments):
            faults.append(_say(error))
            if len(faults) == _MAX_FAULTS:
                break
    except Exception:  # an unresolvable $ref or a pattern that is no regular expression: the server will judge
        return
    if faults:
        raise ArgumentFault("; ".join(faults))


def schema_fault(schema: Any) -> str | None:
    """What is wrong with a schema itself, or None."""
    if not isinstance(schema, dict):
        return None if isinstance(schema, bool) else "not an object"
    from jsonschema.exceptions import SchemaError

    try:
        _dialect(schema).check_schema(schema)
    except SchemaError as error:
        return error.message[:200]
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]
    return None


@lru_cache(maxsize=20_000)
def _validator(tool: Tool) -> "Validator | None":
    schema = tool.input_schema
    if not isinstance(schema, dict) or not schema or schema_fault(schema) is not None:
        return None
    from referencing import Registry

    # An empty registry: a $ref to some URL is never fetched.
    return _dialect(schema)(schema, registry=Registry())


def _dialect(schema: dict[str, Any]) -> Any:
    from jsonschema import Draft7Validator, Draft202012Validator

    return Draft7Validator if "draft-0" in str(schema.get("$schema", "")) else Draft202012Validator


def _say(error: "ValidationError") -> str:
    where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.absolute_path).lstrip(".")
    if error.validator in ("anyOf", "oneOf") and error.context:
        kinds = sorted({c.message[:80] for c in error.context}, key=len)[:2]
        message = f"{_short(error.instance)} fits none of the allowed forms ({'; '.join(kinds)})"
    elif error.validator == "type":
        message = f"{_short(error.instance)} is not of type {_kinds(error.validator_value)}"
    else:
        message = error.message if len(error.message) <= 200 else error.message[:199] + "…"
    return f"{where}: {message}" if where else message


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _kinds(value: Any) -> str:
    return " or ".join(repr(v) for v in value) if isinstance(value, list) else repr(value)


def _is_whole(tool: Tool, value: dict[str, Any]) -> bool:
    """Whether one positional dict is meant as all the arguments: `tool({"path": …})`."""
    known = tool.properties.keys() | tool.parameters.keys()
    return bool(value) and value.keys() <= known and tool.required <= {tool.parameters.get(k, k) for k in value}


def _nullable(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return True
    kind = schema.get("type")
    options = [o for k in ("anyOf", "oneOf") for o in (schema.get(k) or ()) if isinstance(o, dict)]
    return (
        schema.get("nullable") is True
        or kind == "null"
        or (isinstance(kind, list) and "null" in kind)
        or (kind is None and not options and "enum" not in schema and "$ref" not in schema)
        or (isinstance(schema.get("enum"), list) and None in schema["enum"])
        or any(_nullable(o) for o in options)
    )


def _unknown_first(fault: str) -> bool:
    return not fault.startswith("unknown")
