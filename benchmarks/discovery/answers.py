"""What an answer of list_tools shows, read as a model reads it. Pure."""

import re

_HEAD = re.compile(r"(\w+): \d+ tools?, called as ")
_NAMES = re.compile(r"^by name \([^)]*\): (.+)$", re.MULTILINE)
_SHAPE = re.compile(r"^(\w+\.\w+)(?:\(|$)", re.MULTILINE)


def spelt_out(text: str) -> str:
    """The answer with every tool as `server.tool` at the beginning of a line."""
    head = _HEAD.match(text)
    if head:
        text = re.sub(r"^(?=\w+\()", f"{head[1]}.", text, flags=re.MULTILINE)

    def spell(found: re.Match[str]) -> str:
        groups = [f"{head[1]}: {found[1]}"] if head else found[1].split("; ")
        pairs = (group.split(": ", 1) for group in groups)
        return "\n".join(f"{server}.{name}" for server, names in pairs for name in names.split(", "))

    return _NAMES.sub(spell, text)


def shown_tools(text: str) -> set[str]:
    """The tools that an answer names, with their shapes or without."""
    return set(_SHAPE.findall(spelt_out(text)))
