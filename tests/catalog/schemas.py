"""Tools for tests: built from a schema, arbitrary ones from hypothesis, and those of real servers."""

import json
import os
from pathlib import Path
from typing import Any

import platformdirs
import pytest
from hypothesis import strategies as st

from mcpgate.catalog.catalog import Catalog, ServerListing
from mcpgate.catalog.tools import Tool
from tests.conftest import IN_CI


def tool(schema: Any, name: str = "tool", description: str = "", output: Any = None, server: str = "srv") -> Tool:
    """One tool as a catalog builds it."""
    raw = {"name": name, "description": description, "inputSchema": schema}
    if output is not None:
        raw["outputSchema"] = output
    return Catalog.build([ServerListing(server, [raw])]).tools[0]


def taking(required: tuple[str, ...] = (), /, **properties: Any) -> dict[str, Any]:
    """The schema of an object with these properties."""
    return {"type": "object", "properties": properties, "required": list(required)}


def _captured_catalogs() -> Path:
    """Where `python -m benchmarks.servers capture` stores the catalogs of real servers."""
    chosen = os.environ.get("MCPGATE_BENCH_DIR")
    base = Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("mcpgate")) / "bench"
    return base / "captures"


def captured_tools() -> list[Tool]:
    """The tools of real servers. Skips on a user's machine without them; in CI they must have been captured."""
    folder = _captured_catalogs()
    if not folder.is_dir():
        (pytest.fail if IN_CI else pytest.skip)(f"{folder} is missing: run python -m benchmarks.servers capture")
    listings = []
    for path in sorted(folder.glob("*.json")):
        captured = json.loads(path.read_text(encoding="utf-8"))
        listings.append(ServerListing(captured["server"], captured["tools"]))
    return list(Catalog.build(listings).tools)


_TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
_SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.floats(allow_nan=False) | _TEXT
ANY_JSON = st.recursive(_SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3))
_NAMES = st.sampled_from(
    ["a", "b", "class", "user-id", "ﬁle", "file", "_x", "x y", "9", "", "名前", "a\nb", "'", '"""']
)
_KINDS = st.sampled_from(["string", "integer", "number", "boolean", "null", "array", "object", "strin", ""])
_REFS = st.sampled_from(
    [
        "#",
        "#/$defs/A",
        "#/$defs/B",
        "#/$defs/C",
        "#/definitions/A",
        "#/properties/a",
        "#A",
        "#/none",
        "https://x.test/y",
    ]
)


def _wrong_or(right: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly valid values, sometimes anything."""
    return st.one_of(right, right, right, ANY_JSON)


def _schema_of(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = _wrong_or(st.lists(inner, max_size=3))
    named = _wrong_or(st.dictionaries(_NAMES, inner, max_size=3))
    number = _wrong_or(st.integers(-5, 5))
    return st.fixed_dictionaries(
        {},
        optional={
            "type": _wrong_or(_KINDS | st.lists(_KINDS, max_size=3)),
            "properties": named,
            "required": _wrong_or(st.lists(_NAMES, max_size=3)),
            "items": inner | several,
            "prefixItems": several,
            "additionalProperties": inner,
            "patternProperties": named,
            "anyOf": several,
            "oneOf": several,
            "allOf": several,
            "enum": _wrong_or(st.lists(ANY_JSON, max_size=3)),
            "const": ANY_JSON,
            "default": ANY_JSON,
            "nullable": _wrong_or(st.booleans()),
            "description": _wrong_or(_TEXT),
            "format": _wrong_or(_TEXT),
            "pattern": _wrong_or(st.sampled_from(["^a", "a\nb", "(", r"\p{L}"])),
            "minimum": number,
            "maxItems": number,
            "$ref": _wrong_or(_REFS),
            "$schema": _wrong_or(st.sampled_from(["http://json-schema.org/draft-07/schema#", "nonsense"])),
        },
    )


_SUBSCHEMAS = st.recursive(ANY_JSON, _schema_of, max_leaves=12)
ANY_SCHEMA = st.builds(
    lambda schema, definitions: {**schema, "$defs": definitions} if isinstance(schema, dict) else schema,
    _schema_of(_SUBSCHEMAS) | ANY_JSON,
    _wrong_or(st.dictionaries(st.sampled_from("ABC"), _SUBSCHEMAS, max_size=3)),
)
"""Valid and invalid schemas: wrong types everywhere, $refs to each other and to themselves."""
