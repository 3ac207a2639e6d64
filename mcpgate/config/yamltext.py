"""YAML text: members are added to a mapping, and every line that a person wrote stays as it is. Pure."""

import textwrap
from collections.abc import Mapping
from typing import Any

import yaml


def with_members(text: str, key: str, members: Mapping[str, Any]) -> str:
    """The text with `members` at the end of the mapping `key` of the top level, which is made if there is none. Raises
    ValueError if there is no place for them. The caller checks that the text means what it should: see files.parse."""
    events: list[Any] = list(yaml.parse(text, Loader=yaml.SafeLoader))
    if not any(isinstance(event, yaml.NodeEvent) for event in events):
        return _line_after(text, len(text), _block({key: members}, 0))
    root = next(at for at, event in enumerate(events) if isinstance(event, yaml.NodeEvent))
    mapping = _mapping(events, root)
    at = root + 1
    while not isinstance(events[at], yaml.MappingEndEvent):
        name, value = events[at], at + 1
        if isinstance(name, yaml.ScalarEvent) and name.value == key:
            return _added(text, events, value, events[at].start_mark.column, members)
        at = _end_of(events, _end_of(events, at) + 1) + 1
    if mapping.flow_style:
        return _in_flow(text, events, root, {key: members})
    return _line_after(text, _written_until(events, root), _block({key: members}, events[root].start_mark.column))


def _added(text: str, events: list[Any], at: int, column: int, members: Mapping[str, Any]) -> str:
    """The text with members in the value at `at`, whose key begins in `column`."""
    value = events[at]
    if isinstance(value, yaml.ScalarEvent) and value.value in ("", "~", "null") and value.style is None:
        start, end = events[at].start_mark.index, events[at].end_mark.index
        return _line_after(text[:start] + text[end:], start, _block(members, column + 2))
    mapping = _mapping(events, at)
    if mapping.flow_style:
        return _in_flow(text, events, at, members)
    return _line_after(text, _written_until(events, at), _block(members, events[at + 1].start_mark.column))


def _mapping(events: list[Any], at: int) -> Any:
    event = events[at]
    if not isinstance(event, yaml.MappingStartEvent):
        raise ValueError(f"line {event.start_mark.line + 1} holds no mapping of its own")
    return event


def _end_of(events: list[Any], at: int) -> int:
    """The last event of the node that begins at `at`."""
    depth = 0
    while True:
        depth += isinstance(events[at], yaml.CollectionStartEvent) - isinstance(events[at], yaml.CollectionEndEvent)
        if depth == 0:
            return at
        at += 1


def _written_until(events: list[Any], at: int) -> int:
    """Where the text of the node at `at` ends. A block has no closing character: the parser notices its end only at the
    next key, after comments that may belong to that key."""
    last = _end_of(events, at)
    while (
        isinstance(events[last], yaml.CollectionEndEvent)
        and events[last].start_mark.index == events[last].end_mark.index
    ):
        last -= 1
    return int(events[last].end_mark.index)


def _in_flow(text: str, events: list[Any], at: int, members: Mapping[str, Any]) -> str:
    written = yaml.safe_dump(
        dict(members), default_flow_style=True, sort_keys=False, allow_unicode=True, width=1_000_000
    ).strip()[1:-1]
    before = _end_of(events, at) - 1  # the bracket that opens, or the end of the last member
    place = events[before].end_mark.index
    return f"{text[:place]}{written if before == at else f', {written}'}{text[place:]}"


def _line_after(text: str, place: int, block: str) -> str:
    """The text with a block of lines below the line of `place`."""
    if text[:place].endswith("\n"):  # behind a literal, which includes the end of its last line
        return text[:place] + block + text[place:]
    end = text.find("\n", place)
    if end < 0:
        return f"{text}\n{block}" if text else block
    return text[: end + 1] + block + text[end + 1 :]


def _block(members: Mapping[str, Any], column: int) -> str:
    written = yaml.safe_dump(dict(members), sort_keys=False, allow_unicode=True, width=110)
    return textwrap.indent(written, " " * column)
