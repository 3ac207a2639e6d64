"""Directly exposed tools, which the gateway lists as its own: their names and their form. Pure."""

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from mcpgate.catalog.tools import Tool

_LONGEST = 50
"""Letters, digits, `_` and `-` of a name that every client accepts. Model APIs take 64, and clients put a prefix before
the name: Claude Code `mcp__mcpgate__`. Cursor takes 60 together with the name of the server."""


def direct_names(
    tools: Sequence[Tool], prefix_of: Callable[[str], str | None], taken: Collection[str] = ()
) -> dict[str, Tool]:
    """Exposed name → tool. `prefix_of`: a server's configured prefix; without one, a name is `server__tool`, made such
    that every client accepts it. With one, nothing but the prefix is added. Names that clash, or are `taken`, are
    numbered."""
    named: dict[str, Tool] = {}
    numbers: dict[str, int] = {}
    for name, tool in _wanted(tools, prefix_of):
        base = name
        while name in named or name in taken:
            # Counts on from the last clash: thousands of names may become the same.
            numbers[base] = numbers.get(base, 1) + 1
            name = f"{base[: _LONGEST - 8]}_{numbers[base]}"
        named[name] = tool
    return named


def clashes(
    tools: Sequence[Tool], prefix_of: Callable[[str], str | None], taken: Collection[str] = ()
) -> Iterator[str]:
    """What direct_names has to number, in words: which name, and whose it is."""
    seen = {name: "mcpgate's own" for name in taken}
    for name, tool in _wanted(tools, prefix_of):
        whose = f"{tool.name!r} of server {tool.server!r}"
        if name in seen:
            yield f"the direct tool name {name!r} is both {seen[name]} and {whose}; set `prefix` for one server"
        else:
            seen[name] = whose


def _wanted(tools: Iterable[Tool], prefix_of: Callable[[str], str | None]) -> Iterator[tuple[str, Tool]]:
    prefixes = {server: prefix_of(server) for server in {tool.server for tool in tools}}
    for tool in sorted(tools, key=lambda tool: (prefixes[tool.server] is None, tool.server, tool.name)):
        prefix = prefixes[tool.server]
        if prefix is None:
            yield _accepted(tool), tool
        else:
            yield prefix + tool.name, tool


def _accepted(tool: Tool) -> str:
    """server__tool with the characters and the length that every client accepts. Where that takes too much away, a
    digest of the whole keeps it apart from others, whatever other tools there are."""
    whole = f"{tool.server}__{tool.name}"
    name = re.sub(r"[^A-Za-z0-9_-]", "_", whole[:200])
    if len(whole) <= _LONGEST and re.search("[A-Za-z0-9]", tool.name):
        return name
    return f"{name[: _LONGEST - 7]}_{hashlib.sha256(whole.encode()).hexdigest()[:6]}"


def shown(name: str, tool: Tool, modern: bool = False) -> dict[str, Any]:
    """A direct tool as `tools/list` shows it: as the upstream sent it, except for its name and for faults that
    would make an SDK client reject the whole list. `modern`: for a client whose revision takes output schemas of any
    type."""
    wire = {**tool.raw, "name": name}
    schema = wire.get("inputSchema")
    if not isinstance(schema, dict):
        wire["inputSchema"] = {"type": "object"}
    elif schema.get("type") != "object":
        wire["inputSchema"] = {**schema, "type": "object"}
    output = wire.get("outputSchema")
    if "outputSchema" in wire and not (isinstance(output, dict) and (modern or output.get("type") == "object")):
        del wire["outputSchema"]
    for key, kind in (("annotations", dict), ("_meta", dict), ("icons", list), ("title", str), ("execution", dict)):
        if key in wire and not isinstance(wire[key], kind):
            del wire[key]
    if "description" in wire and not isinstance(wire["description"], str):
        wire["description"] = str(wire["description"])
    return wire
