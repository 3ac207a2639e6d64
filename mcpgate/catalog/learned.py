"""What is remembered about upstreams across restarts: the shapes of what their tools returned, and the tools, resources
and prompts they had when last seen, so that a gateway that has just started is not empty.

One caller's results are not revealed to others: a key is shown to all only after the results of two different
callers had it, and until then only to the first of them. Keys can be data, as in `{"alice": …, "bob": …}`."""

import hashlib
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

import orjson

from mcpgate import jsontext
from mcpgate.catalog.shapes import Path, Shape, keys_of, merge, shape_of, within, without
from mcpgate.catalog.tools import Tool

LOCAL = "local"
"""The owner of results where callers have no keys."""
_UNKNOWN = ""
"""The owner of what an earlier version stored without an owner. Shown to LOCAL only."""
_SETTLED_AFTER = 20
_THEN_EVERY = 25
"""After this many results of a caller with nothing new, only every 25th is examined."""
_CAPABILITIES = "#capabilities"
"""Ends the key of what is remembered besides a server's tools; so does `#` with `resources` and the like."""
_MOST_ITEMS, _MOST_BYTES = 1000, 256 * 1024
"""Of a list of resources or prompts that is remembered; no part of a longer one is."""
_MOST_TOOLS = 10_000
_MOST_CALLERS = 20_000
"""Tools whose shapes are held; pairs of tool and caller whose results are counted."""


Unsaved = Mapping[str, Sequence[tuple[str, bytes]]]
"""Kind → items to store."""


class LearnedStore(Protocol):
    """Where it is stored. Implementation: stores/sqlite/learned.py."""

    def load(self, kind: str) -> dict[str, bytes]: ...

    def save(self, kind: str, items: Iterable[tuple[str, bytes]]) -> None: ...


class _Learned:
    """The shape of one tool's results, and the owners of keys that are not shown to all."""

    def __init__(self, shape: Shape | None = None, owners: dict[Path, str] | None = None) -> None:
        self.shape = shape
        self.owners = owners or {}
        """A key's place → the only caller whose results had it. Other keys are shown to all."""

    def learn(self, value: Any, owner: str) -> bool:
        """Take a result into account. Returns whether it contained anything new."""
        new = shape_of(value)
        after = within(merge(self.shape, new) or {})
        known = set(keys_of(self.shape or {}))
        left = set(keys_of(after))
        owners = {path: whose for path, whose in self.owners.items() if path in left}
        for path in keys_of(new):
            if path not in left:
                continue
            if path not in known or owners.get(path) == _UNKNOWN:
                owners[path] = owner
            elif owners.get(path, owner) != owner:
                del owners[path]
        if after == (self.shape or {}) and owners == self.owners:
            return False
        self.shape, self.owners = after, owners
        return True

    def seen_by(self, owner: str) -> Shape | None:
        if self.shape is None:
            return None
        may = (owner, _UNKNOWN) if owner == LOCAL else (owner,)
        hidden = {path for path, whose in self.owners.items() if whose not in may}
        return without(self.shape, hidden) if hidden else self.shape

    def to_row(self) -> bytes:
        return orjson.dumps({"shape": self.shape, "owners": self.owners})


def _learned(row: Any) -> _Learned | None:
    """What was stored about a tool. Rows of earlier versions hold only the shape."""
    if not isinstance(row, dict):
        return None
    shape, owners = row.get("shape"), row.get("owners")
    try:
        if not isinstance(shape, dict) or not isinstance(owners, dict):
            return _Learned(row, dict.fromkeys(keys_of(row), _UNKNOWN))
        within(shape)
        return _Learned(shape, {str(path): str(whose) for path, whose in owners.items()})
    except (AttributeError, TypeError, RecursionError):
        return None  # not a shape


class Memory:
    """Learned shapes and remembered catalogs."""

    def __init__(self, keep: LearnedStore) -> None:
        self._keep = keep
        read = ((key, _learned(_parsed(value))) for key, value in keep.load("shape").items())
        self._shapes: dict[str, _Learned] = {key: learned for key, learned in read if learned is not None}
        self._catalogs = keep.load("catalog")
        self._quiet: dict[tuple[str, str], int] = {}
        self._dirty: set[str] = set()
        self._changed: set[str] = set()
        """Keys of shapes and of catalogs that are not stored yet."""
        self._places: dict[str, str] = {}

    def observed(self, tool: Tool, owner: str = LOCAL) -> Shape | None:
        """The schema of what the tool has returned so far, limited to what `owner` (the id of a virtual key) may see;
        None if the tool was never called."""
        learned = self._shapes.get(self._key(tool))
        return learned.seen_by(owner) if learned is not None else None

    def learn(self, tool: Tool, value: Any, owner: str = LOCAL) -> None:
        """Take a result of `owner` into account. Stores types and keys, never values."""
        if tool.value_schema is not None:
            return
        key = self._key(tool)
        quiet = self._quiet.get((key, owner), 0) + 1
        if len(self._quiet) >= _MOST_CALLERS:
            self._quiet.clear()
        self._quiet[key, owner] = quiet
        if quiet > _SETTLED_AFTER and quiet % _THEN_EVERY:
            return
        if key not in self._shapes and len(self._shapes) >= _MOST_TOOLS:
            del self._shapes[next(iter(self._shapes))]
        if self._shapes.setdefault(key, _Learned()).learn(value, owner):
            self._dirty.add(key)
            self._quiet[key, owner] = 0

    def place(self, server: str, address: Sequence[str]) -> None:
        """Set the address of a server: a different program with the same name has other shapes."""
        self._places[server] = hashlib.sha256("\0".join(address).encode()).hexdigest()[:16]

    def remember_tools(self, server: str, tools: Sequence[dict[str, Any]]) -> None:
        self._remember(self._place_key(server), list(tools))

    def remember_capabilities(self, server: str, capabilities: Collection[str]) -> None:
        self._remember(self._place_key(server) + _CAPABILITIES, sorted(capabilities))

    def recall_capabilities(self, server: str) -> frozenset[str] | None:
        """What a server was capable of when it was last connected; None if it never was."""
        value = self._catalogs.get(self._place_key(server) + _CAPABILITIES)
        found = _parsed(value) if value else None
        return frozenset(one for one in found if isinstance(one, str)) if isinstance(found, list) else None

    def remember_list(self, server: str, what: str, items: Sequence[dict[str, Any]]) -> None:
        """`what`: `resources`, `resourceTemplates` or `prompts`, as a server lists them to everybody."""
        self._remember(self._list_key(server, what), list(items[: _MOST_ITEMS + 1]), _MOST_ITEMS, _MOST_BYTES)

    def recall_list(self, server: str, what: str) -> list[dict[str, Any]] | None:
        """What a server has listed last; None if that is not remembered."""
        value = self._catalogs.get(self._list_key(server, what))
        found = _parsed(value) if value else None
        return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else None

    def _list_key(self, server: str, what: str) -> str:
        return f"{self._place_key(server)}#{what}"

    def _remember(self, key: str, found: list[Any], most: int | None = None, most_bytes: int | None = None) -> None:
        """`most`, `most_bytes`: of anything larger, nothing is remembered."""
        value = jsontext.dumps(found) if most is None or len(found) <= most else b"null"
        if most_bytes is not None and len(value) > most_bytes:
            value = b"null"
        if self._catalogs.get(key) != value:
            self._catalogs[key] = value
            self._changed.add(key)

    def recall_tools(self, server: str) -> list[dict[str, Any]]:
        value = self._catalogs.get(self._place_key(server))
        found = _parsed(value) if value else []
        return [tool for tool in found if isinstance(tool, dict)] if isinstance(found, list) else []

    def flush(self) -> None:
        """Store what is new."""
        self.save(self.take())

    def take(self) -> Unsaved:
        """What is new since the last time, for `save`."""
        dirty, changed, self._dirty, self._changed = self._dirty, self._changed, set(), set()
        held = ((key, self._shapes.get(key)) for key in dirty)
        shapes = [(key, learned.to_row()) for key, learned in held if learned is not None]
        return {"shape": shapes, "catalog": [(key, self._catalogs[key]) for key in changed]}

    def save(self, unsaved: Unsaved) -> None:
        """Store it. May run in another thread: catalogs can be megabytes."""
        for kind, items in unsaved.items():
            if items:
                self._keep.save(kind, items)

    def probe(self) -> str:
        """Check that what is written can be read back: empty if so, else the error."""
        stamp = str(time.time_ns()).encode()
        self._keep.save("probe", [("last", stamp)])
        return "" if self._keep.load("probe").get("last") == stamp else "what was written could not be read back"

    def _place_key(self, server: str) -> str:
        return f"{server}@{self._places.get(server, '')}"

    def _key(self, tool: Tool) -> str:
        return f"{self._place_key(tool.server)}/{tool.name}"


def _parsed(value: bytes) -> Any:
    """A stored value; None if the file was damaged."""
    try:
        return jsontext.loads(value)
    except ValueError:
        return None
