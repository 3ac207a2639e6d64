"""From the arguments that code gave to the arguments that a tool gets: positional to named, identifiers to
original names, checked against the tool's schema. Pure; says everything that is wrong at once."""

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mcpgate.catalog.tools import Tool

if TYPE_CHECKING:
    # 100 ms that a gateway should not cost before it answers its first tools/list.
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator

_MAX_FAULTS = 5
_DIALECTS = (
    ("draft-04", "Draft4Validator"), ("draft-03", "Draft3Validator"), ("draft-06", "Draft6Validator"),
    ("draft-07", "Draft7Validator"), ("2019-09", "Draft201909Validator"),
)  # fmt: skip
_UNDECLARED: tuple[str, ...] = ("Draft202012Validator", "Draft7Validator", "Draft4Validator")
"""What a schema without `$schema` is: what MCP says it is, or what it makes sense as."""


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
        elif original not in tool.properties and original not in tool.required and not tool.open_ended:
            near = difflib.get_close_matches(name, [*parameters, *tool.properties], 1, 0.5)
            faults.append(f"unknown argument {name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
        else:
            arguments[original] = value
    needed = parameters or {name: name for name in sorted(tool.required)}
    for ident, original in needed.items():
        if original in tool.required and original not in arguments:
            faults.append(f"argument {ident!r} is missing")
    if faults:
        raise ArgumentFault("; ".join(sorted(faults, key=_unknown_first)))
    # A model writes `x=None` for "not given"; servers refuse null where the schema does not allow it.
    return {n: v for n, v in arguments.items() if v is not None or n in tool.required or _takes_null(tool, n)}


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
    except Exception:  # an unresolvable $ref: the server will judge the rest
        pass
    if faults:
        raise ArgumentFault("; ".join(faults))


def schema_fault(schema: Any) -> str | None:
    """What is wrong with a schema itself, or None."""
    if not isinstance(schema, dict):
        return None if isinstance(schema, bool) else "not an object"
    return _understood(schema)[1]


@lru_cache(maxsize=20_000)
def _validator(tool: Tool) -> "Validator | None":
    schema = tool.input_schema
    if not isinstance(schema, dict) or not schema:
        return None
    dialect, fault = _understood(schema)
    return None if fault is not None else _open(dialect, schema)


def _understood(schema: dict[str, Any]) -> tuple[str, str | None]:
    """The dialect in which a schema makes sense, else the first that comes into question and what is wrong."""
    declared = schema.get("$schema")
    dialects = _UNDECLARED
    if declared is not None:
        dialects = (next((name for mark, name in _DIALECTS if mark in str(declared)), _UNDECLARED[0]),)
    faults = []
    for dialect in dialects:
        fault = _fault_in(dialect, schema)
        if fault is None:
            return dialect, None
        faults.append(fault)
    return dialects[0], faults[0]


def _fault_in(dialect: str, schema: dict[str, Any]) -> str | None:
    from jsonschema.exceptions import SchemaError

    try:
        # Formats are not looked at: a pattern may be of another kind of regular expressions.
        _class_of(dialect).check_schema(schema, format_checker=None)
    except SchemaError as error:
        return str(error.message)[:200]
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]
    return None


def _open(dialect: str, schema: Any) -> "Validator":
    from referencing import Registry

    # An empty registry: a $ref to some URL is never fetched.
    validator: Validator = _class_of(dialect)(schema, registry=Registry())
    return validator


@lru_cache(maxsize=16)
def _class_of(dialect: str) -> Any:
    """The validator of a dialect, as schemas are written in the wild."""
    import jsonschema
    from jsonschema.validators import extend

    base = getattr(jsonschema, dialect)
    keywords = ("type", "enum", "const", "pattern", "patternProperties")
    rules = {k: _lenient(base.VALIDATORS[k]) for k in keywords if k in base.VALIDATORS}
    return extend(base, rules)  # type: ignore[no-untyped-call]


Rule = Callable[[Any, Any, Any, Any], Iterator["ValidationError"] | None]


def _lenient(rule: Rule) -> Rule:
    """OpenAPI's `nullable` lets null pass; what is no regular expression here (`\\p{L}`) is for the server to judge."""

    def checked(validator: Any, value: Any, instance: Any, schema: Any) -> "Iterator[ValidationError]":
        if instance is None and schema.get("nullable") is True:
            return
        try:
            yield from rule(validator, value, instance, schema) or ()
        except re.error:
            return

    return checked


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
    if not value:
        return not tool.parameters  # `tool({})` of a tool without parameters
    known = tool.properties.keys() | tool.parameters.keys()
    return value.keys() <= known and tool.required <= {tool.parameters.get(k, k) for k in value}


def _takes_null(tool: Tool, name: str) -> bool:
    schema = tool.properties.get(name)
    if not isinstance(schema, dict):
        return True
    try:
        validator = _validator(tool) or _open(_UNDECLARED[0], {})
        return not any(True for _ in validator.evolve(schema=schema).iter_errors(None))
    except Exception:
        return False


def _unknown_first(fault: str) -> bool:
    return not fault.startswith("unknown")
