"""What is known of upstreams beyond the moment: the shapes of what their tools returned, and the tools they
had when last seen, so that a gateway that has just started is not an empty one."""

import hashlib
import time
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import orjson

from mcpgate import jsontext
from mcpgate.catalog.shapes import Shape, merge, shape_of
from mcpgate.catalog.tools import Tool

_SETTLED_AFTER = 20
_THEN_EVERY = 25
"""After this many results without news only every 25th is looked at."""


class LearnedStore(Protocol):
    """Where it is kept. Implementations: stores/sqlite.py."""

    def load(self, kind: str) -> dict[str, bytes]: ...

    def save(self, kind: str, items: Iterable[tuple[str, bytes]]) -> None: ...


class Memory:
    """Learned shapes and remembered catalogs."""

    def __init__(self, keep: LearnedStore) -> None:
        self._keep = keep
        read = ((key, _parsed(value)) for key, value in keep.load("shape").items())
        self._shapes: dict[str, Shape] = {key: shape for key, shape in read if isinstance(shape, dict)}
        self._catalogs = keep.load("catalog")
        self._quiet: dict[str, int] = {}
        self._dirty: set[str] = set()
        self._places: dict[str, str] = {}

    def observed(self, tool: Tool) -> Shape | None:
        """The schema of what the tool has returned so far; None if it was never called."""
        return self._shapes.get(self._key(tool))

    def learn(self, tool: Tool, value: Any) -> None:
        """Take a result into account. Keeps types and keys, never values."""
        if tool.value_schema is not None:
            return
        key = self._key(tool)
        quiet = self._quiet.get(key, 0) + 1
        self._quiet[key] = quiet
        if quiet > _SETTLED_AFTER and quiet % _THEN_EVERY:
            return
        before = self._shapes.get(key)
        after = merge(before, shape_of(value))
        if after is not None and after != before:
            self._shapes[key] = after
            self._dirty.add(key)
            self._quiet[key] = 0

    def place(self, server: str, address: Sequence[str]) -> None:
        """Tell where a server of this name is found: another program under the same name has other shapes."""
        self._places[server] = hashlib.sha256("\0".join(address).encode()).hexdigest()[:16]

    def remember_tools(self, server: str, tools: Sequence[dict[str, Any]]) -> None:
        value = jsontext.dumps(list(tools))
        key = self._place_key(server)
        if self._catalogs.get(key) != value:
            self._catalogs[key] = value
            self._keep.save("catalog", [(key, value)])

    def recall_tools(self, server: str) -> list[dict[str, Any]]:
        value = self._catalogs.get(self._place_key(server))
        found = _parsed(value) if value else []
        return [tool for tool in found if isinstance(tool, dict)] if isinstance(found, list) else []

    def flush(self) -> None:
        """Write what is new."""
        dirty, self._dirty = self._dirty, set()
        if dirty:
            self._keep.save("shape", [(key, orjson.dumps(self._shapes[key])) for key in dirty])

    def probe(self) -> str:
        """Whether what is written can be read back: empty if so, else what is wrong."""
        stamp = str(time.time_ns()).encode()
        self._keep.save("probe", [("last", stamp)])
        return "" if self._keep.load("probe").get("last") == stamp else "what was written could not be read back"

    def _place_key(self, server: str) -> str:
        return f"{server}@{self._places.get(server, '')}"

    def _key(self, tool: Tool) -> str:
        return f"{self._place_key(tool.server)}/{tool.name}"


def _parsed(value: bytes) -> Any:
    """What was kept; None where the file was damaged."""
    try:
        return jsontext.loads(value)
    except ValueError:
        return None
