"""JSON Schema → Python type expressions. Pure, total: any JSON value in, a type out; what makes no sense
becomes `Any` with a note. Understands draft-07 and 2020-12, and OpenAPI's `nullable`."""

import json
import keyword
from dataclasses import dataclass, field
from typing import Any

from mcpgate.catalog.names import class_name

_PLAIN = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
_MAX_DEPTH = 24
_LIMITS = (
    ("minimum", "≥ {}"), ("exclusiveMinimum", "> {}"), ("maximum", "≤ {}"), ("exclusiveMaximum", "< {}"),
    ("multipleOf", "multiple of {}"), ("minLength", "≥ {} chars"), ("maxLength", "≤ {} chars"),
    ("minItems", "≥ {} items"), ("maxItems", "≤ {} items"), ("minProperties", "≥ {} keys"),
    ("maxProperties", "≤ {} keys"),
)  # fmt: skip


@dataclass
class TypeWriter:
    """Turns the schemas of one tool into type expressions. With `inline`, objects are written in place as
    `{a: str, b?: int}`, for one-line shapes; else as TypedDict classes, collected in `classes`."""

    root: Any
    prefix: str
    inline: bool = False
    classes: dict[str, str] = field(default_factory=dict)
    """Class name → its source, in the order of use."""
    notes: list[str] = field(default_factory=list)
    _by_ref: dict[str, str] = field(default_factory=dict)
    _by_schema: dict[str, str] = field(default_factory=dict)

    def write(self, schema: Any, name: str = "", depth: int = 0) -> str:
        """The type of `schema`; `name` is where it stands, for naming classes."""
        if schema is True or schema == {}:
            return "Any"
        if schema is False:
            return "Never"
        if not isinstance(schema, dict):
            self._note(f"{name or 'schema'} is not a schema")
            return "Any"
        if depth > _MAX_DEPTH:
            return "Any"
        if isinstance(ref := schema.get("$ref", schema.get("$dynamicRef")), str):
            return self._reference(ref, schema, name, depth)
        written = self._written(schema, name, depth)
        if schema.get("nullable") is True and "None" not in written.split(" | "):
            written = f"{written} | None"
        return written

    def _written(self, schema: dict[str, Any], name: str, depth: int) -> str:
        if "const" in schema:
            return _literal([schema["const"]])
        if isinstance(options := schema.get("enum"), list) and options:
            return _literal(options)
        for keyword_ in ("anyOf", "oneOf"):
            if isinstance(options := schema.get(keyword_), list) and options:
                base = {k: v for k, v in schema.items() if k in ("properties", "required", "additionalProperties")}
                if base.get("properties") and all(_is_constraint(o) for o in options):
                    break  # "one of these must be present": the object itself is the type
                return self._union([self.write(o, _variant(o, name, i), depth + 1) for i, o in enumerate(options)])
        if isinstance(parts := schema.get("allOf"), list) and parts:
            return self._all_of(schema, parts, name, depth)
        kind = schema.get("type")
        if isinstance(kind, list):
            one = {k: v for k, v in schema.items() if k != "type"}
            return self._union([self.write({**one, "type": k}, name, depth + 1) for k in kind if isinstance(k, str)])
        if kind == "object" or (kind is None and ("properties" in schema or "additionalProperties" in schema)):
            return self._object(schema, name, depth)
        if kind == "array" or (kind is None and ("items" in schema or "prefixItems" in schema)):
            return self._array(schema, name, depth)
        if isinstance(kind, str) and kind in _PLAIN:
            return _PLAIN[kind]
        if kind is not None:
            self._note(f"{name or 'schema'} has the unknown type {str(kind)[:40]!r}")
        return "Any"

    def _reference(self, ref: str, schema: dict[str, Any], name: str, depth: int) -> str:
        if ref in self._by_ref:
            return self._by_ref[ref]
        target = self._resolve(ref)
        if target is None:
            self._note(f"{ref[:80]} cannot be resolved")
            return "Any"
        short = class_name(self.prefix, ref.rsplit("/", 1)[-1]) if ref != "#" else class_name(self.prefix)
        is_object = isinstance(target, dict) and ("properties" in target or target.get("type") == "object")
        if self.inline:
            # A recursive type has no end when it is written in place.
            self._by_ref[ref] = "dict" if is_object else "Any"
            written = self.write(target, name, depth + 1)
            del self._by_ref[ref]
            return written
        self._by_ref[ref] = short if is_object else "Any"
        written = self._object(target, "", depth, short) if is_object else self.write(target, name or short, depth + 1)
        self._by_ref[ref] = written
        return written

    def _resolve(self, ref: str) -> Any:
        if not ref.startswith("#"):
            return self._by_id(ref)
        node = self.root
        for part in [p for p in ref[1:].split("/") if p]:
            part = part.replace("~1", "/").replace("~0", "~").replace("%24", "$").replace("%25", "%")
            if isinstance(node, dict) and part in node:
                node = node[part]
            elif isinstance(node, list) and part.isdigit() and int(part) < len(node):
                node = node[int(part)]
            else:
                return self._by_anchor(ref[1:])
        return node

    def _by_anchor(self, anchor: str) -> Any:
        return next((d for d in self._definitions() if d.get("$anchor") == anchor), None)

    def _by_id(self, ref: str) -> Any:
        return next((d for d in self._definitions() if d.get("$id") == ref), None)

    def _definitions(self) -> list[dict[str, Any]]:
        if not isinstance(self.root, dict):
            return []
        groups = [self.root.get("$defs"), self.root.get("definitions")]
        return [d for group in groups if isinstance(group, dict) for d in group.values() if isinstance(d, dict)]

    def _all_of(self, schema: dict[str, Any], parts: list[Any], name: str, depth: int) -> str:
        merged: dict[str, Any] = {k: v for k, v in schema.items() if k != "allOf"}
        others: list[Any] = []
        for part in parts:
            seen = 0
            while isinstance(part, dict) and isinstance(ref := part.get("$ref"), str) and seen < 8:
                part, seen = self._resolve(ref), seen + 1
            if isinstance(part, dict) and ("properties" in part or part.get("type") == "object"):
                merged["type"] = "object"
                merged["properties"] = {**merged.get("properties", {}), **_dict(part.get("properties"))}
                merged["required"] = [*_list(merged.get("required")), *_list(part.get("required"))]
            elif isinstance(part, dict):
                others.append(part)
        if merged.get("type") == "object" or "properties" in merged:
            return self._object(merged, name, depth)
        for part in others:
            merged = {**part, **merged}
        return self.write(merged, name, depth + 1) if merged else "Any"

    def _array(self, schema: dict[str, Any], name: str, depth: int) -> str:
        fixed = schema.get("prefixItems")
        items = schema.get("items")
        if isinstance(items, list):
            fixed, items = items, schema.get("additionalItems")
        if isinstance(fixed, list) and fixed:
            kinds = [self.write(item, f"{name}_{i}", depth + 1) for i, item in enumerate(fixed)]
            if items is False or (schema.get("maxItems") == len(fixed) == schema.get("minItems")):
                return f"tuple[{', '.join(kinds)}]"
            rest = [] if items in (None, True) else [self.write(items, name, depth + 1)]
            return f"list[{self._union([*kinds, *rest])}]"
        if items is None or items is True or items == {}:
            return "list"
        return f"list[{self.write(items, _singular(name), depth + 1)}]"

    def _object(self, schema: dict[str, Any], name: str, depth: int, class_: str | None = None) -> str:
        properties = schema.get("properties")
        if not isinstance(properties, dict) or not properties:
            extra = schema.get("additionalProperties")
            if extra is None and isinstance(patterns := schema.get("patternProperties"), dict) and len(patterns) == 1:
                extra = next(iter(patterns.values()))
            if isinstance(extra, dict) and extra:
                return f"dict[str, {self.write(extra, name, depth + 1)}]"
            return "dict"
        required = {r for r in _list(schema.get("required")) if isinstance(r, str)}
        if self.inline:
            parts = [
                f"{key}{'' if key in required else '?'}: {self.write(sub, key, depth + 1)}"
                for key, sub in properties.items()
            ]
            return "{" + ", ".join(parts) + "}"
        return self._typed_dict(schema, properties, required, name, depth, class_)

    def _typed_dict(
        self,
        schema: dict[str, Any],
        properties: dict[str, Any],
        required: set[str],
        name: str,
        depth: int,
        class_: str | None,
    ) -> str:
        key = json.dumps(schema, sort_keys=True, default=str)
        if class_ is None and key in self._by_schema:
            return self._by_schema[key]
        chosen = base = class_ or class_name(self.prefix, name)
        number = 1
        while chosen in self.classes:
            number += 1
            chosen = f"{base}{number}"
        self._by_schema[key] = chosen
        self.classes[chosen] = ""
        fields = []
        for field_name, sub in properties.items():
            written = self.write(sub, field_name, depth + 1)
            fields.append((field_name, written if field_name in required else f"NotRequired[{written}]", comment(sub)))
        if all(name.isidentifier() and not keyword.iskeyword(name) for name, _, _ in fields):
            body = "\n".join(f"    {n}: {t}{_behind(c)}" for n, t, c in fields)
            source = f"class {chosen}(TypedDict):\n{body}"
        else:
            body = "\n".join(f"    {json.dumps(n)}: {_quoted(t)},{_behind(c)}" for n, t, c in fields)
            source = f'{chosen} = TypedDict("{chosen}", {{\n{body}\n}})'
        del self.classes[chosen]
        self.classes[chosen] = source
        return chosen

    def _union(self, kinds: list[str]) -> str:
        flat: list[str] = []
        for kind in kinds:
            for part in _split_union(kind):
                if part not in flat:
                    flat.append(part)
        if not flat:
            return "Any"
        if "Any" in flat:
            return "Any"
        literals = [k[8:-1] for k in flat if k.startswith("Literal[")]
        if len(literals) > 1:
            flat = [k for k in flat if not k.startswith("Literal[")]
            flat.insert(0, f"Literal[{', '.join(literals)}]")
        if "None" in flat:
            flat = [k for k in flat if k != "None"] + ["None"]
        return " | ".join(flat)

    def _note(self, text: str) -> None:
        if text not in self.notes and len(self.notes) < 5:
            self.notes.append(text)


def comment(schema: Any, room: int = 240) -> str:
    """Description, format, limits and examples of a value, for the comment behind its type."""
    if not isinstance(schema, dict):
        return ""
    parts = []
    text = schema.get("description")
    if isinstance(text, str) and text.strip():
        text = " ".join(text.split())
        parts.append(text if len(text) <= room else text[: room - 1].rstrip() + "…")
    for key in ("format", "pattern", "contentEncoding", "contentMediaType"):
        if isinstance(value := schema.get(key), str) and value not in parts:
            parts.append(value[:80] if key == "format" else f"{key} {value[:80]}")
    for key, words in _LIMITS:
        value = schema.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 9e15:
            if not (key.startswith("min") and value == 0 and key != "minimum"):
                parts.append(words.format(value))
    if schema.get("uniqueItems") is True:
        parts.append("unique")
    items = schema.get("items")
    if isinstance(items, dict) and isinstance(items.get("description"), str) and not parts:
        parts.append("each: " + " ".join(items["description"].split())[:room])
    if schema.get("deprecated") is True:
        parts.append("deprecated")
    return "; ".join(parts)


def default_of(schema: Any) -> str:
    """Source of the default value; `...` where a value may be left out but no default is told."""
    if isinstance(schema, dict) and "default" in schema:
        text = repr(schema["default"])
        if len(text) <= 80 and "\n" not in text:
            return text
    return "..."


def _literal(values: list[Any]) -> str:
    simple = [v for v in values if v is None or (isinstance(v, (str, int, bool)) and not isinstance(v, float))]
    kinds = []
    if simple and any(v is not None for v in simple):
        kinds.append(f"Literal[{', '.join(repr(v) for v in dict.fromkeys(simple) if v is not None)}]")
    if any(isinstance(v, float) for v in values):
        kinds.append("float")
    if any(isinstance(v, list) for v in values):
        kinds.append("list")
    if any(isinstance(v, dict) for v in values):
        kinds.append("dict")
    if None in values:
        kinds.append("None")
    return " | ".join(kinds) or "Any"


def _is_constraint(option: Any) -> bool:
    return isinstance(option, dict) and not (
        {"type", "properties", "enum", "const", "$ref", "anyOf", "oneOf", "allOf"} & option.keys()
    )


def _variant(option: Any, name: str, index: int) -> str:
    title = option.get("title") if isinstance(option, dict) else None
    return (
        f"{name}_{title}" if isinstance(title, str) and len(title) < 40 else (f"{name}_{index + 1}" if index else name)
    )


def _split_union(kind: str) -> list[str]:
    parts, depth, start, quote = [], 0, 0, ""
    for i, char in enumerate(kind):
        if quote:
            if char == quote and kind[i - 1] != "\\":
                quote = ""
        elif char in "'\"":
            quote = char
        elif char in "[{(":
            depth += 1
        elif char in "]})":
            depth -= 1
        elif char == "|" and depth == 0:
            parts.append(kind[start:i].strip())
            start = i + 1
    parts.append(kind[start:].strip())
    return parts


def _singular(name: str) -> str:
    if name.endswith("ies") and len(name) > 4:
        return name[:-3] + "y"
    return (
        name[:-1]
        if name.endswith("s") and not name.endswith("ss") and len(name) > 2
        else f"{name}_item"
        if name
        else ""
    )


def _behind(text: str) -> str:
    return f"  # {text}" if text else ""


def _quoted(kind: str) -> str:
    return kind


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
