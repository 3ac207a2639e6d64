"""One tool of one upstream, as the rest of the gateway sees it. A frozen value."""

from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from typing import Any

from mcpgate.catalog.brief import brief
from mcpgate.catalog.names import identifiers
from mcpgate.telemetry.text import visible

MAX_TEXT = 8_000
"""Characters of a description that our pages and the search index use."""
MAX_PARAMETERS = 1_000
"""Parameters of one tool that have identifiers."""
JsonSchema = dict[str, Any] | bool


@dataclass(frozen=True, eq=False)
class Tool:
    """A capability and its qualified name. `raw` is what the server sent, including unknown fields."""

    server: str
    """Name in the configuration."""
    server_ident: str
    name: str
    ident: str
    raw: dict[str, Any] = field(repr=False)

    @property
    def qualified(self) -> str:
        """As it is written in code: `files.read_text_file`."""
        return f"{self.server_ident}.{self.ident}"

    @cached_property
    def description(self) -> str:
        """For our pages: the beginning, without terminal control characters. `raw` has it as it was sent."""
        text = self.raw.get("description") or self.raw.get("title") or ""
        text = text[:MAX_TEXT] if isinstance(text, str) else brief(text, MAX_TEXT)
        return visible(text.replace("\0", ""), lines=True)

    @cached_property
    def input_schema(self) -> JsonSchema:
        """Never fails: anything that is not a schema counts as 'any arguments'."""
        schema = self.raw.get("inputSchema", self.raw.get("input_schema"))
        return schema if isinstance(schema, (dict, bool)) else {}

    @cached_property
    def output_schema(self) -> JsonSchema | None:
        schema = self.raw.get("outputSchema")
        return schema if isinstance(schema, dict) and schema else None

    @cached_property
    def wraps_result(self) -> bool:
        """Whether the declared output is a plain value that an SDK wrapped as {"result": value}."""
        schema = self.output_schema
        properties = schema.get("properties") if isinstance(schema, dict) else None
        return isinstance(properties, dict) and list(properties) == ["result"]

    @cached_property
    def value_schema(self) -> JsonSchema | None:
        """The schema of the value that code gets: the declared output, unwrapped. None if none is declared, or
        only a wrapped text, which may hold JSON."""
        schema = self.output_schema
        if not isinstance(schema, dict) or not self.wraps_result:
            return schema
        inner = schema["properties"]["result"]
        if isinstance(inner, dict) and inner.get("type") == "string" and "enum" not in inner:
            return None
        definitions: dict[str, Any] = {k: schema[k] for k in ("$defs", "definitions") if k in schema}
        return {**inner, **definitions} if isinstance(inner, dict) else True

    @cached_property
    def properties(self) -> dict[str, Any]:
        """The declared parameters, in the server's order."""
        schema = self.input_schema
        found = schema.get("properties") if isinstance(schema, dict) else None
        return found if isinstance(found, dict) else {}

    @cached_property
    def required(self) -> frozenset[str]:
        schema = self.input_schema
        found = schema.get("required") if isinstance(schema, dict) else None
        return frozenset(n for n in found if isinstance(n, str)) if isinstance(found, list) else frozenset()

    @cached_property
    def parameters(self) -> dict[str, str]:
        """Identifier → original property name; required ones first, else in the server's order. Of very many, those
        that are left over have their original names only."""
        required = (name for name in self.properties if name in self.required)
        optional = (name for name in self.properties if name not in self.required)
        ordered = list(islice(chain(required, optional), MAX_PARAMETERS))
        names = identifiers(ordered)
        return {names[n]: n for n in ordered}

    @cached_property
    def open_ended(self) -> bool:
        """Whether arguments beyond the declared ones are accepted."""
        schema = self.input_schema
        if not isinstance(schema, dict):
            return True
        extra = schema.get("additionalProperties")
        composed = any(k in schema for k in ("anyOf", "oneOf", "allOf", "$ref", "patternProperties", "if"))
        return composed or extra is True or isinstance(extra, dict) or not isinstance(schema.get("properties"), dict)
