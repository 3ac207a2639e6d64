"""Tools exposed directly, as regular tools of the gateway: their names and their form. Pure."""

import re
from collections.abc import Sequence
from typing import Any

from mcpgate.catalog.tools import Tool


def direct_names(tools: Sequence[Tool]) -> dict[str, Tool]:
    """server__tool → tool. Clients accept up to 64 letters, digits, `_` and `-`; names that then clash are numbered."""
    named: dict[str, Tool] = {}
    numbers: dict[str, int] = {}
    for tool in sorted(tools, key=lambda tool: (tool.server, tool.name)):
        base = name = re.sub(r"[^A-Za-z0-9_-]", "_", f"{tool.server}__{tool.name}"[:200])[:64]
        while name in named:
            # Counts on from the last clash: thousands of names may become the same.
            numbers[base] = numbers.get(base, 1) + 1
            name = f"{base[:56]}_{numbers[base]}"
        named[name] = tool
    return named


def shown(name: str, tool: Tool) -> dict[str, Any]:
    """A direct tool as `tools/list` shows it: as the upstream sent it, except for its name and for faults that
    would make an SDK client reject the whole list."""
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
