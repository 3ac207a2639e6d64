"""Shows values of any size in a few characters, in equally few steps. Pure."""

from typing import Any

_LONGEST_INT = 400
"""Bits; Python takes quadratic time to write longer integers, and refuses to from 4,300 digits up."""


def brief(value: Any, room: int = 60) -> str:
    """As `repr`, cut to `room` characters. Reads only what it shows."""
    parts: list[str] = []
    _write(value, room + 1, parts, 0)
    text = "".join(parts)
    return text if len(text) <= room else text[: room - 1] + "…"


def _write(value: Any, room: int, parts: list[str], depth: int) -> int:
    """Adds to `parts` until the room is used up; returns the room left."""
    kind = type(value)
    if room <= 0:
        return room
    if kind is str or kind is bytes:
        text = repr(value[:room])  # a cut text loses its closing quote with the rest
    elif kind is int and value.bit_length() > _LONGEST_INT:
        text = f"(an integer of {value.bit_length():,} bits)"
    elif kind in (list, tuple, dict) and depth > 20:
        text = "…"
    elif kind in (list, tuple):
        return _write_items(iter(value), "[]" if kind is list else "()", room, parts, depth)
    elif kind is dict:
        return _write_items(iter(value.items()), "{}", room, parts, depth)
    else:
        text = repr(value)
    parts.append(text)
    return room - len(text)


def _write_items(items: Any, ends: str, room: int, parts: list[str], depth: int) -> int:
    parts.append(ends[0])
    room -= 1
    for at, item in enumerate(items):
        if room <= 0:
            return room
        if at:
            parts.append(", ")
            room -= 2
        if ends == "{}":
            room = _write(item[0], room, parts, depth + 1)
            parts.append(": ")
            room = _write(item[1], room - 2, parts, depth + 1)
        else:
            room = _write(item, room, parts, depth + 1)
    parts.append(ends[1])
    return room - 1


def tool_count(number: int) -> str:
    """`1 tool`, `12 tools`."""
    return "1 tool" if number == 1 else f"{number} tools"
