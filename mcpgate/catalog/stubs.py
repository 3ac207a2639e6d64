"""Tools as Python: a one-line call shape for lists, a full stub for describe_tools. Pure."""

import re
from collections import Counter
from collections.abc import Collection, Iterable
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary

from mcpgate.catalog.search import words
from mcpgate.catalog.tools import Tool
from mcpgate.catalog.types import TypeWriter, comment, default_of
from mcpgate.telemetry.text import one_line

_SHORT_TYPE = 90
"""Most characters of one type in a one-line shape; a longer object shows only its keys."""
_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)\s+|(?<=:)\s+(?=[A-Z])")
"""Also splits a label from its text: "Description: Reads a file." is a label and a sentence."""
_EMPTY_WORDS = frozenset(
    words("get gets retrieve retrieves return returns fetch fetches given specified provided a tool")
)


def call_shape(tool: Tool, observed: Any = None, room: int = 400, returns: int = _SHORT_TYPE) -> str:
    """`files.read(path: str, head: int = ...) -> str`: enough to write a simple call. `observed` is the learned output
    schema, used where the tool declares none. `room` is for the parameters, `returns` for the return type (0: none)."""
    return f"{tool.qualified}({_parameters(tool, room)}){_returns(tool, observed, returns)}"


_WRITTEN: WeakKeyDictionary[Tool, tuple[list[str], list[str]]] = WeakKeyDictionary()


def _written(tool: Tool) -> tuple[list[str], list[str]]:
    """The required parameters and the optional ones, with their types. Worked out once: a tool does not change."""
    if (known := _WRITTEN.get(tool)) is not None:
        return known
    writer = TypeWriter(tool.input_schema, "", inline=True)
    required, optional = [], []
    for ident, name in tool.parameters.items():
        schema = tool.properties[name]
        kind = _shorten(writer.write(schema, name), _SHORT_TYPE)
        if name in tool.required:
            required.append(f"{ident}: {kind}")
            continue
        default = default_of(schema)
        # An optional parameter need not say that it can be None.
        optional.append(f"{ident}: {kind.removesuffix(' | None') if default == 'None' else kind} = {default}")
    _WRITTEN[tool] = required, optional
    return required, optional


def _parameters(tool: Tool, room: int) -> str:
    """With types where they fit, else optional ones by name, else all by name. Required ones are never left out."""
    required, optional = _written(tool)
    if not required and not optional:
        takes_any = tool.open_ended and tool.input_schema not in ({}, True) and not _takes_nothing(tool)
        return "**arguments" if takes_any else ""
    names = [f"{part.partition(':')[0]}?" for part in optional]
    for parts in ([*required, *optional], [*required, *names]):
        if len(shown := ", ".join(parts)) <= room:
            return shown
    if len(", ".join(required)) > room:
        required = [part.partition(":")[0] for part in required]
    shown = ", ".join(required)
    for at, name in enumerate(names):
        rest = f"… {len(names) - at} more optional"
        if len(shown) + len(name) > room - len(rest) and len(rest) < len(", ".join(names[at:])):
            return f"{shown}{', ' if shown else ''}{rest}"
        shown += f"{', ' if shown else ''}{name}"
    return shown


def summary(tool: Tool, room: int = 120, shared: Collection[str] = ()) -> str:
    """What the tool does, in one sentence: the first that is not in `shared`. Empty if that says no more than the
    tool's name and parameters do."""
    told = [sentence for sentence in _sentences(tool) if sentence not in shared]
    if not told:
        return ""
    sentence = " ".join(told[:2]) if told[0].endswith(":") else told[0]
    named = words(" ".join((tool.name[:200], tool.server, *islice(tool.properties, 200))))
    if set(words(sentence)) <= _EMPTY_WORDS.union(named):
        return ""
    return sentence if len(sentence) <= room else sentence[: room - 1].rstrip() + "…"


def shared_sentences(tools: Iterable[Tool]) -> frozenset[str]:
    """The sentences found in the descriptions of most tools of a server: they do not tell tools apart."""
    found = [set(_sentences(tool)) for tool in tools]
    counts = Counter(sentence for sentences in found for sentence in sentences)
    return frozenset(sentence for sentence, count in counts.items() if count >= max(3, len(found) / 2))


def _sentences(tool: Tool) -> list[str]:
    # A description may be a whole manual; its beginning is enough.
    return _SENTENCE_END.split(" ".join(tool.description[:2000].split()))


def stub(tool: Tool, observed: Any = None) -> str:
    """A whole tool as Python source: nested types, then the function with its documentation."""
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
    # Shares the classes, so that no output class takes the name of an argument class.
    writer = TypeWriter(tool.output_schema if declared is not None else observed, tool.ident, classes=classes)
    if schema is None:
        return "Any", writer, "output type unknown until it is first called"
    kind = writer.write(schema, "result")
    return kind, writer, "" if declared is not None else "output observed, not declared"


def _returns(tool: Tool, observed: Any, room: int) -> str:
    schema = tool.value_schema if tool.value_schema is not None else observed
    if schema is None or room == 0:
        return ""
    root = tool.output_schema if tool.value_schema is not None else observed
    kind = _shorten(TypeWriter(root, "", inline=True).write(schema, "result"), room)
    return f" -> {kind}"


def _shorten(kind: str, room: int) -> str:
    if len(kind) <= room:
        return kind
    if kind.startswith("list["):
        return f"list[{_shorten_inner(kind[5:-1], room)}]"
    return _shorten_inner(kind, room)


def _shorten_inner(kind: str, room: int) -> str:
    if kind.startswith("Literal["):
        return kind[: room - 3].rsplit(",", 1)[0] + ", …]"
    if kind.startswith("{"):
        # Keys say most; their types come with describe_tools.
        keys = re.findall(r"""[{,] ?([^\s:{},\[\]'"]+|'[^']*'\??|"[^"]*"\??)(?=:)""", _flatten(kind))
        text = "{" + ", ".join(keys) + "}"
        return text if len(text) <= room else text[: room - 3].rsplit(",", 1)[0] + ", …}"
    if " | " in kind:
        return "dict | …" if "{" in kind else kind[: room - 1] + "…"
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
