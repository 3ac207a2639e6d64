"""Turns the arguments that code passed into those that a tool receives: positional to named, identifiers to
original names, checked against the tool's schema. Pure; reports all faults at once."""

from collections.abc import Sequence
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary

from mcpgate.catalog.brief import brief
from mcpgate.catalog.catalog import nearest
from mcpgate.catalog.dialects import TooLarge, fault_in
from mcpgate.catalog.tools import Tool
from mcpgate.catalog.validation import Document, Fault, Steps

_MAX_FAULTS = 20
"""Maximum faults reported in names; the validator reports fewer for values."""
_MAX_GUESSED = 3
"""Unknown names for which the nearest known one is suggested."""
_DRAFTS = (("draft-04", 4), ("draft-03", None), ("draft-06", 6), ("draft-07", 7), ("2019-09", 2019))
_UNDECLARED: tuple[int | None, ...] = (2020, 7, 4)
"""The drafts to try for a schema without `$schema`: the one that MCP names, then older ones."""


class ArgumentFault(ValueError):
    """The arguments do not fit; the message lists every fault."""


def bind(tool: Tool, positional: Sequence[Any], named: dict[str, Any]) -> dict[str, Any]:
    """The arguments by original name. Raises ArgumentFault for what Python would call a TypeError: arguments that are
    unknown, missing, duplicate or too many."""
    parameters = tool.parameters
    faults: list[str] = []
    guesses = _MAX_GUESSED
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
            faults.append(f"argument {brief(name)} was given twice")
        elif original not in tool.properties and original not in tool.required and not tool.open_ended:
            near = nearest(name, islice((*parameters, *tool.properties), 2000), 1, 50) if guesses > 0 else []
            guesses -= 1
            faults.append(f"unknown argument {brief(name)}" + (f" (did you mean {brief(near[0])}?)" if near else ""))
        else:
            arguments[original] = value
        if len(faults) >= _MAX_FAULTS:
            break
    needed = parameters or {name: name for name in sorted(tool.required)}
    for ident, original in needed.items():
        if original in tool.required and original not in arguments and len(faults) < _MAX_FAULTS:
            faults.append(f"argument {brief(ident)} is missing")
    if faults:
        raise ArgumentFault("; ".join(sorted(faults, key=_unknown_first)))
    # A model writes `x=None` for "not given"; servers reject null if the schema does not allow it.
    if None not in arguments.values():
        return arguments
    steps = Steps()
    return {n: v for n, v in arguments.items() if v is not None or n in tool.required or _takes_null(tool, n, steps)}


def check(tool: Tool, arguments: dict[str, Any], steps: Steps | None = None) -> None:
    """Check against the tool's JSON Schema, in a bounded number of steps; the rest is left to the server. A schema
    that is itself invalid or too large checks nothing. Raises ArgumentFault."""
    document = _document(tool)
    if document is not None and (faults := document.judge(arguments, steps)):
        raise ArgumentFault("; ".join(map(_say, faults)))


def schema_fault(schema: Any) -> str | None:
    """What is wrong with a schema itself, or None."""
    if not isinstance(schema, dict):
        return None if isinstance(schema, bool) else "not an object"
    try:
        return _understood(schema)[1]
    except TooLarge:
        return "too large to be checked"


_DOCUMENTS: WeakKeyDictionary[Tool, Document | None] = WeakKeyDictionary()


def _document(tool: Tool) -> Document | None:
    """The tool's schema, ready to validate; None if it validates nothing."""
    if tool not in _DOCUMENTS:
        document, schema = None, tool.input_schema
        if isinstance(schema, dict) and schema:
            try:
                draft, fault = _understood(schema)
                document = Document(schema, draft) if draft is not None and fault is None else None
            except TooLarge:
                pass
        _DOCUMENTS[tool] = document
    return _DOCUMENTS[tool]


def _understood(schema: dict[str, Any]) -> tuple[int | None, str | None]:
    """The first draft in which a schema is valid; else the first that was tried, and what is wrong. Raises
    TooLarge."""
    declared = schema.get("$schema")
    drafts = _UNDECLARED
    if declared is not None:
        named = brief(declared, 200)
        drafts = (next((draft for mark, draft in _DRAFTS if mark in named), _UNDECLARED[0]),)
    faults = []
    for draft in drafts:
        fault = None if draft is None else fault_in(schema, draft)
        if fault is None:
            return draft, None
        faults.append(fault)
    return drafts[0], faults[0]


def _say(fault: Fault) -> str:
    parts = [f"[{p}]" if isinstance(p, int) else f".{p if len(p) <= 60 else p[:59] + '…'}" for p in fault.path[:20]]
    where = "".join(parts).lstrip(".")
    return f"{where}: {fault.message}" if where else fault.message


def _is_whole(tool: Tool, value: dict[str, Any]) -> bool:
    """Whether one positional dict is meant as all arguments: `tool({"path": …})`."""
    if not value:
        return not tool.parameters  # `tool({})` for a tool without parameters
    known = tool.properties.keys() | tool.parameters.keys()
    return value.keys() <= known and tool.required <= {tool.parameters.get(k, k) for k in value}


def _takes_null(tool: Tool, name: str, steps: Steps) -> bool:
    schema = tool.properties.get(name)
    if not isinstance(schema, dict):
        return True
    document = _document(tool) or Document({}, 2020)
    verdict = document.judge(None, steps, schema)
    return verdict is not None and not verdict


def _unknown_first(fault: str) -> bool:
    return not fault.startswith("unknown")
