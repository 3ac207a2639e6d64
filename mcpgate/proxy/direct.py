"""Tools that are exposed directly, as ordinary tools of the gateway: under which name, and in which form. Pure."""

import re
from collections.abc import Sequence
from typing import Any

from mcpgate.catalog.tools import Tool


def direct_names(tools: Sequence[Tool]) -> dict[str, Tool]:
    """server__tool → tool. Clients take 64 letters, digits, `_` and `-`; what clashes after that is numbered."""
    named: dict[str, Tool] = {}
    numbers: dict[str, int] = {}
    for tool in sorted(tools, key=lambda tool: (tool.server, tool.name)):
        base = name = re.sub(r"[^A-Za-z0-9_-]", "_", f"{tool.server}__{tool.name}"[:200])[:64]
        while name in named:
            # Counted on from where the last clash ended: thousands of names may become the same.
            numbers[base] = numbers.get(base, 1) + 1
            name = f"{base[:56]}_{numbers[base]}"
        named[name] = tool
    return named


def shown(name: str, tool: Tool) -> dict[str, Any]:
    """A direct tool as `tools/list` shows it: what the upstream sent, but for its name and for faults that
    would make an SDK client refuse the whole list."""
    wire = {**tool.raw, "name": name}
    schema = wire.get("inputSchema")
    if not isinstance(schema, dict):
        wire["inputSchema"] = {"type": "object"}
    elif schema.get("type") != "object":
        wire["inputSchema"] = {**schema, "type": "object"}
    output = wire.get("outputSchema")
    if "outputSchema" in wire and not (isinstance(output, dict) and output.get("type") == "object"):
        del wire["outputSchema"]
    for key, kind in (("annotations", dict), ("_meta", dict), ("icons", list), ("title", str), ("execution", dict)):
        if key in wire and not isinstance(wire[key], kind):
            del wire[key]
    if "description" in wire and not isinstance(wire["description"], str):
        wire["description"] = str(wire["description"])
    return wire
