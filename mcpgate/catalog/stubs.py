"""Tools as Python: a one-line call shape for lists, a full stub for describe. Pure."""

import re
from typing import Any

from mcpgate.catalog.tools import Tool
from mcpgate.catalog.types import TypeWriter, comment, default_of, one_line

_SHORT_TYPE = 90
"""Characters of one type in a one-line shape, at most; a longer object is written as dict."""


def call_shape(tool: Tool, observed: Any = None, room: int = 400) -> str:
    """`files.read(path: str, head: int = ...) -> str`: enough to write a simple call.
    `observed` is the learned output schema, used where the tool declares none."""
    writer = TypeWriter(tool.input_schema, "", inline=True)
    parts = []
    for ident, name in tool.parameters.items():
        schema = tool.properties[name]
        kind = _shorten(writer.write(schema, name))
        default = "" if name in tool.required else f" = {default_of(schema)}"
        parts.append(f"{ident}: {kind}{default}")
    shown = ", ".join(parts)
    if len(shown) > room:
        required = [p for p in parts if " = " not in p]
        shown = ", ".join(required)
        if len(shown) > room:
            shown = ", ".join(p.partition(":")[0] for p in required)
        shown += f"{', ' if shown else ''}… {len(parts) - len(required)} more optional"
    if not parts and tool.open_ended and tool.input_schema not in ({}, True) and not _takes_nothing(tool):
        shown = "**arguments"
    return f"{tool.qualified}({shown}){_returns(tool, observed)}"


def summary(tool: Tool, room: int = 120) -> str:
    """What the tool does, in one sentence."""
    text = " ".join(tool.description.split())
    sentence = re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0]
    return sentence if len(sentence) <= room else sentence[: room - 1].rstrip() + "…"


def stub(tool: Tool, observed: Any = None) -> str:
    """The whole of a tool as Python source: nested types, then the function with its documentation."""
    writer = TypeWriter(tool.input_schema, tool.ident)
    lines = []
    for ident, name in tool.parameters.items():
        schema = tool.properties[name]
        kind = writer.write(schema, name)
        default = "" if name in tool.required else f" = {default_of(schema)}"
        about = comment(schema, 400)
        if ident != name:
            about = f'"{one_line(name)}"' + (f"; {about}" if about else "")
        lines.append(f"    {ident}: {kind}{default},{f'  # {about}' if about else ''}")
    if not lines and tool.open_ended and not _takes_nothing(tool):
        whole = writer.write(tool.input_schema, "arguments")
        lines.append(f"    **arguments: {'Any' if whole in ('dict', 'Any', 'Never') else whole},")
    returns, outputs, marks = _output(tool, observed, writer.classes)
    head = f"def {tool.ident}(" + ("\n" + "\n".join(lines) + "\n" if lines else "") + f") -> {returns}:"
    notes = [*writer.notes, *outputs.notes]
    documentation = tool.description.strip()
    if notes:
        documentation += "\nNote: its schema has faults: " + "; ".join(notes) + "."
    quoted = documentation.replace("\0", "").replace("\\", "\\\\").replace('"""', "'''")
    if quoted.endswith('"'):
        quoted = quoted[:-1] + '\\"'
    body = f'    """{quoted}"""' if documentation else "    ..."
    mark = f"  # {marks}" if marks else ""
    return "\n".join([*writer.classes.values(), f"# {tool.qualified}", head + mark, body])


def _output(tool: Tool, observed: Any, classes: dict[str, str]) -> tuple[str, TypeWriter, str]:
    declared = tool.value_schema
    schema = declared if declared is not None else observed
    # The same classes, so that no output's class takes the name of an argument's.
    writer = TypeWriter(tool.output_schema if declared is not None else observed, tool.ident, classes=classes)
    if schema is None:
        return "Any", writer, "output type unknown until it is first called"
    kind = writer.write(schema, "result")
    return kind, writer, "" if declared is not None else "output observed, not declared"


def _returns(tool: Tool, observed: Any) -> str:
    schema = tool.value_schema if tool.value_schema is not None else observed
    if schema is None:
        return ""
    root = tool.output_schema if tool.value_schema is not None else observed
    kind = _shorten(TypeWriter(root, "", inline=True).write(schema, "result"))
    return f" -> {kind}"


def _shorten(kind: str) -> str:
    if len(kind) <= _SHORT_TYPE:
        return kind
    if kind.startswith("list["):
        inner = _shorten_inner(kind[5:-1])
        return f"list[{inner}]"
    return _shorten_inner(kind)


def _shorten_inner(kind: str) -> str:
    if kind.startswith("Literal["):
        return kind[: _SHORT_TYPE - 3].rsplit(",", 1)[0] + ", …]"
    if kind.startswith("{"):
        # Keys say most; their types come with describe_tools.
        keys = re.findall(r"""[{,] ?([^\s:{},\[\]'"]+|'[^']*'\??|"[^"]*"\??)(?=:)""", _flatten(kind))
        text = "{" + ", ".join(keys) + "}"
        return text if len(text) <= _SHORT_TYPE else text[: _SHORT_TYPE - 3].rsplit(",", 1)[0] + ", …}"
    if " | " in kind:
        return "dict | …" if "{" in kind else kind[: _SHORT_TYPE - 1] + "…"
    return "dict"


def _flatten(kind: str) -> str:
    """Only the outermost keys of an inline object."""
    out, depth = [], 0
    for char in kind:
        if char in "{[":
            depth += 1
        if depth <= 1:
            out.append(char)
        if char in "}]":
            depth -= 1
    return "".join(out)


def _takes_nothing(tool: Tool) -> bool:
    schema = tool.input_schema
    return (
        isinstance(schema, dict)
        and schema.get("type") == "object"
        and not schema.get("properties")
        and not any(
            key in schema for key in ("additionalProperties", "patternProperties", "anyOf", "oneOf", "allOf", "$ref")
        )
    )
