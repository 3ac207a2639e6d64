"""JSON Schema → Python type expressions. Pure, total: any JSON value in, a type out; what makes no sense
becomes `Any` with a note. Understands draft-07 and 2020-12, and OpenAPI's `nullable`. Bounded in the parts of a schema
that are looked at and the characters that are written; what is over them is `Any`, or left out."""

import json
import keyword
import re
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from urllib.parse import unquote

from mcpgate.catalog.brief import brief
from mcpgate.catalog.names import class_name
from mcpgate.telemetry.text import one_line

_PLAIN = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
_PYTHON: tuple[tuple[str, type | tuple[type, ...]], ...] = (
    ("str", str), ("bool", bool), ("int", int), ("float", float), ("list", list), ("dict", dict), ("None", type(None))
)  # fmt: skip
_RESERVED = frozenset({"Any", "Literal", "Never", "NotRequired", "TypedDict", "False", "None", "True"})
_MAX_DEPTH = 24
_MAX_STEPS = 5_000
_MAX_STEPS_INLINE = 2_000
"""Schemas looked at for one tool; written in place, $refs to $refs grow exponentially."""
_MAX_CHARS = 200_000
_MAX_CHARS_INLINE = 50_000
"""Characters written for one tool."""
_MAX_INLINE = 1_000
"""Characters of one object in place, of which a list shows a part."""
_MAX_CLASSES = 200
_MAX_PARTS = 200
"""Properties, options and enum values of one schema that are written."""
_MAX_VALUE = 200
"""Characters of an enum value or a key; longer ones are not for typing."""
_MAX_REF = 500
_LIMITS = (
    ("minimum", "≥ {}"), ("exclusiveMinimum", "> {}"), ("maximum", "≤ {}"), ("exclusiveMaximum", "< {}"),
    ("multipleOf", "multiple of {}"), ("minLength", "≥ {} chars"), ("maxLength", "≤ {} chars"),
    ("minItems", "≥ {} items"), ("maxItems", "≤ {} items"), ("minProperties", "≥ {} keys"),
    ("maxProperties", "≤ {} keys"),
)  # fmt: skip


@dataclass
class TypeWriter:
    """Turns the schemas of one tool into type expressions. With `inline`, objects are written in place as
    `{a: str, b?: int}`, for one-line shapes; otherwise as TypedDict classes, collected in `classes`."""

    root: Any
    prefix: str
    inline: bool = False
    classes: dict[str, str] = field(default_factory=dict)
    """Class name → its source, in order of use."""
    notes: list[str] = field(default_factory=list)
    _steps: int = 0
    _chars: int = 0
    _numbers: dict[str, int] = field(default_factory=dict)
    """What each class name has been counted up to."""
    _named: dict[str, Any] | None = None
    """What references other than paths lead to."""
    _by_ref: dict[str, str] = field(default_factory=dict)
    _by_schema: dict[str, str] = field(default_factory=dict)
    _fingerprints: dict[int, tuple[Any, str]] = field(default_factory=dict)
    """By `id()`, with the schema, so that no other takes its place."""

    def write(self, schema: Any, name: str = "", depth: int = 0) -> str:
        """The type of `schema`; `name` is its place, for naming classes."""
        if schema is True or schema == {}:
            return "Any"
        if schema is False:
            return "Never"
        if not isinstance(schema, dict):
            self._note(f"{name or 'schema'} is not a schema")
            return "Any"
        self._steps += 1 + len(schema) // 50
        if depth > _MAX_DEPTH or self._is_full():
            return "Any"
        if isinstance(ref := schema.get("$ref", schema.get("$dynamicRef")), str):
            written = self._reference(ref, name, depth)
        else:
            written = self._written(schema, name, depth)
        if schema.get("nullable") is True and "None" not in written.split(" | "):
            written = f"{written} | None"
        self._chars += len(written)
        return written

    def _is_full(self) -> bool:
        steps, chars = (_MAX_STEPS_INLINE, _MAX_CHARS_INLINE) if self.inline else (_MAX_STEPS, _MAX_CHARS)
        return self._steps > steps or self._chars > chars

    def _written(self, schema: dict[str, Any], name: str, depth: int) -> str:
        if "const" in schema:
            return _literal([schema["const"]])
        if isinstance(options := schema.get("enum"), list) and options:
            return self._enum(options, name)
        for keyword_ in ("anyOf", "oneOf"):
            if isinstance(options := schema.get(keyword_), list) and options:
                options = self._first(options, f"{name or 'schema'} has {len(options):,} forms")
                if isinstance(schema.get("properties"), dict) and schema["properties"]:
                    if all(_is_constraint(o) for o in options):
                        break  # "one of these must be present": the object itself is the type
                    base = {k: v for k, v in schema.items() if k in ("properties", "required")}
                    options = [{"allOf": [base, o]} for o in options]
                return self._union([self.write(o, _variant(o, name, i), depth + 1) for i, o in enumerate(options)])
        if isinstance(parts := schema.get("allOf"), list) and parts:
            return self._all_of(schema, parts, name, depth)
        kind = schema.get("type")
        if isinstance(kind, list):
            one = {k: v for k, v in schema.items() if k != "type"}
            kinds = dict.fromkeys(k for k in kind[:20] if isinstance(k, str))
            return self._union([self.write({**one, "type": k}, name, depth + 1) for k in kinds])
        if kind == "object" or (kind is None and ("properties" in schema or "additionalProperties" in schema)):
            return self._object(schema, name, depth)
        if kind == "array" or (kind is None and ("items" in schema or "prefixItems" in schema)):
            return self._array(schema, name, depth)
        if isinstance(kind, str) and kind in _PLAIN:
            return _PLAIN[kind]
        if kind is not None:
            self._note(f"{name or 'schema'} has the unknown type {str(kind)[:40]!r}")
        return "Any"

    def _enum(self, values: list[Any], name: str) -> str:
        """The values, or where these are too many their types and a note."""
        short = [v for v in values[:_MAX_PARTS] if not isinstance(v, str) or len(v) <= _MAX_VALUE]
        if len(short) == len(values):
            return _literal(values)
        first = [v for v in short if isinstance(v, (str, int)) and not isinstance(v, bool)][:20]
        shown = ", ".join(brief(v, 40) for v in first)
        self._note(f"{name or 'a value'} is one of {len(values):,} values, such as {shown}")
        kinds = [kind for kind, types in _PYTHON if any(isinstance(v, types) for v in values[:_MAX_PARTS])]
        return " | ".join(dict.fromkeys("int" if k == "bool" and "int" in kinds else k for k in kinds)) or "Any"

    def _first(self, parts: list[Any], what: str) -> list[Any]:
        if len(parts) > _MAX_PARTS:
            self._note(f"{what}, of which {_MAX_PARTS} are shown")
        return parts[:_MAX_PARTS]

    def _reference(self, ref: str, name: str, depth: int) -> str:
        if ref in self._by_ref:
            return self._by_ref[ref]
        target = self._resolve(ref)
        if target is None:
            self._note(f"{ref[:80]} cannot be resolved")
            return "Any"
        short = ref.rsplit("/", 1)[-1].lstrip("#")[:_MAX_VALUE]
        is_object = isinstance(target, dict) and ("properties" in target or target.get("type") == "object")
        if not self.inline and _is_record(target):
            # Named before it is written, because it may contain itself.
            class_ = self._by_ref[ref] = self._reserve(short)
            self._by_ref[ref] = self._typed_dict(target, short, depth, class_)
            return self._by_ref[ref]
        # A recursive type that is not a class would never end; it stops at itself.
        self._by_ref[ref] = "dict" if is_object else "Any"
        written = self.write(target, name if self.inline else name or short, depth + 1)
        if self.inline:
            del self._by_ref[ref]
        else:
            self._by_ref[ref] = written
        return written

    def _resolve(self, ref: str) -> Any:
        if len(ref) > _MAX_REF:
            return None
        own = self.root.get("$id") if isinstance(self.root, dict) else None
        if isinstance(own, str) and own.rstrip("#") and ref.partition("#")[0] == own.rstrip("#"):
            ref = "#" + ref.partition("#")[2]
        if not ref.startswith("#"):
            return self._by_name(ref)
        node = self.root
        for part in ref[1:].split("/")[1:] if ref.startswith("#/") else [ref[1:]] if ref != "#" else []:
            part = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(node, dict) and part in node:
                node = node[part]
            elif isinstance(node, list) and part.isdecimal() and int(part) < len(node):
                node = node[int(part)]
            else:
                return self._by_name(ref)
        return node

    def _by_name(self, ref: str) -> Any:
        """By `$id` or anchor, of the definitions."""
        if self._named is None:
            self._named = {}
            groups = [self.root.get("$defs"), self.root.get("definitions")] if isinstance(self.root, dict) else []
            for group in groups:
                for part in islice(group.values(), _MAX_STEPS) if isinstance(group, dict) else ():
                    for key, mark in (("$anchor", "#"), ("$dynamicAnchor", "#"), ("$id", "")):
                        if isinstance(part, dict) and isinstance(name := part.get(key), str):
                            self._named.setdefault(f"{mark}{name[:_MAX_REF]}", part)
        return self._named.get(ref)

    def _all_of(self, schema: dict[str, Any], parts: list[Any], name: str, depth: int) -> str:
        merged: dict[str, Any] = {k: v for k, v in schema.items() if k != "allOf"}
        others: list[Any] = []
        for part in self._flattened(parts):
            if "properties" in part or part.get("type") == "object":
                merged["type"] = "object"
                properties = {**_dict(merged.get("properties")), **_some(_dict(part.get("properties")))}
                merged["properties"] = _some(properties)
                merged["required"] = [*_list(merged.get("required")), *_list(part.get("required"))[:_MAX_PARTS]]
            elif part.keys() == {"required"}:
                merged["required"] = [*_list(merged.get("required")), *_list(part["required"])[:_MAX_PARTS]]
            else:
                others.append(part)
        if merged.get("type") == "object" or "properties" in merged:
            return self._object(merged, name, depth)
        for part in others:
            merged = {**part, **merged}
        return self.write(merged, name, depth + 1) if merged else "Any"

    def _flattened(self, parts: list[Any]) -> list[dict[str, Any]]:
        """The parts of an allOf, with its $refs and nested allOfs resolved."""
        found: list[dict[str, Any]] = []
        waiting: list[Any] = parts[_MAX_PARTS - 1 :: -1]
        seen: set[str] = set()
        while waiting and len(found) < 100 and len(waiting) < 1_000:
            part = waiting.pop()
            self._steps += 1
            if not isinstance(part, dict):
                continue
            self._steps += len(part) // 50
            inner: list[Any] = []
            if isinstance(ref := part.get("$ref"), str):
                inner = [] if ref in seen else [self._resolve(ref)]
                seen.add(ref)
            inner += _list(part.get("allOf"))[:_MAX_PARTS]
            rest = {k: v for k, v in part.items() if k not in ("$ref", "allOf")}
            found += [rest] if rest else []
            waiting += reversed(inner)
        return found

    def _array(self, schema: dict[str, Any], name: str, depth: int) -> str:
        fixed = schema.get("prefixItems")
        items = schema.get("items")
        if isinstance(items, list):
            fixed, items = items, schema.get("additionalItems")
        if isinstance(fixed, list) and fixed:
            fixed = self._first(fixed, f"{name or 'a list'} has {len(fixed):,} places")
            kinds = [self.write(item, f"{name}_{i}", depth + 1) for i, item in enumerate(fixed)]
            if items is False or (schema.get("maxItems") == len(fixed) == schema.get("minItems")):
                return f"tuple[{', '.join(kinds)}]"
            rest = [] if items in (None, True) else [self.write(items, name, depth + 1)]
            return f"list[{self._union([*kinds, *rest])}]"
        if items is None or items is True or items == {}:
            return "list"
        return f"list[{self.write(items, _singular(name), depth + 1)}]"

    def _object(self, schema: dict[str, Any], name: str, depth: int) -> str:
        properties = schema.get("properties")
        if not isinstance(properties, dict) or not properties:
            extra = schema.get("additionalProperties")
            if extra is None and isinstance(patterns := schema.get("patternProperties"), dict) and len(patterns) == 1:
                extra = next(iter(patterns.values()))
            if isinstance(extra, dict) and extra:
                return f"dict[str, {self.write(extra, name, depth + 1)}]"
            return "dict"
        if self.inline:
            required, room = _required(schema), _MAX_INLINE
            parts: list[str] = []
            for key, sub in properties.items():
                parts.append(f"{_key(key)}{'' if key in required else '?'}: {self.write(sub, key, depth + 1)}")
                room -= len(parts[-1])
                if room < 0 or self._is_full():
                    break
            return "{" + ", ".join(parts) + "}"
        if len(self.classes) >= _MAX_CLASSES:
            return "dict"
        if len(properties) > _MAX_PARTS:
            self._note(f"{name or 'an object'} has {len(properties):,} keys, of which {_MAX_PARTS} are shown")
            schema = {**schema, "properties": _some(properties)}
        return self._typed_dict(schema, name, depth)

    def _reserve(self, name: str) -> str:
        """A class name that is still free."""
        base = class_name(self.prefix, name[:_MAX_VALUE])[:_MAX_VALUE]
        number = self._numbers.get(base, 1)
        chosen = base if number == 1 else f"{base}{number}"
        while chosen in self.classes or chosen in _RESERVED:
            number += 1
            chosen = f"{base}{number}"
        self._numbers[base] = number
        self.classes[chosen] = ""
        return chosen

    def _fingerprint(self, schema: dict[str, Any]) -> str:
        """The same for schemas that say the same, if they are small."""
        if id(schema) not in self._fingerprints:
            parts, text = _parts_of(schema, 1_000), f"no. {len(self._fingerprints)}"
            self._steps += parts // 20
            if parts <= 1_000:
                with suppress(RecursionError, ValueError):
                    text = json.dumps(schema, sort_keys=True, default=str)
            self._fingerprints[id(schema)] = schema, text
        return self._fingerprints[id(schema)][1]

    def _typed_dict(self, schema: dict[str, Any], name: str, depth: int, class_: str | None = None) -> str:
        key = self._fingerprint(schema)
        if class_ is None and key in self._by_schema:
            return self._by_schema[key]
        chosen = self._by_schema[key] = class_ or self._reserve(name)
        required = _required(schema)
        fields = []
        for field_name, sub in _some(schema["properties"]).items():
            written = self.write(sub, field_name, depth + 1)
            field_name = _cut(field_name)
            fields.append((field_name, written if field_name in required else f"NotRequired[{written}]", comment(sub)))
        if all(name.isidentifier() and not keyword.iskeyword(name) for name, _, _ in fields):
            body = "\n".join(f"    {n}: {t}{_behind(c)}" for n, t, c in fields)
            source = f"class {chosen}(TypedDict):\n{body}"
        else:
            body = "\n".join(f"    {json.dumps(n)}: {t},{_behind(c)}" for n, t, c in fields)
            source = f'{chosen} = TypedDict("{chosen}", {{\n{body}\n}})'
        del self.classes[chosen]
        same = chosen.rstrip("0123456789")
        is_same = same != chosen and self.classes.get(same) == re.sub(rf"\b{chosen}\b", same, source)
        if is_same and not any(re.search(rf"\b{chosen}\b", other) for other in self.classes.values()):
            self._by_schema[key] = same  # what a tool takes is often what it returns
            return same
        self.classes[chosen] = source
        self._chars += len(source)
        return chosen

    def _union(self, kinds: list[str]) -> str:
        flat = list(dict.fromkeys(part for kind in kinds for part in _split_union(kind)))
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
        text = one_line(text, 300)
        if text not in self.notes and len(self.notes) < 5:
            self.notes.append(text)


def comment(schema: Any, room: int = 240) -> str:
    """Description, format, limits and examples of a value, for the comment after its type."""
    if not isinstance(schema, dict):
        return ""
    parts = []
    text = schema.get("description")
    if isinstance(text, str) and (text := one_line(text, room)):
        parts.append(text)
    for key in ("format", "pattern", "contentEncoding", "contentMediaType"):
        if isinstance(value := schema.get(key), str) and (value := one_line(value, 80)) and value not in parts:
            parts.append(value if key == "format" else f"{key} {value}")
    for key, words in _LIMITS:
        value = schema.get(key)
        says_nothing = value == 0 and key in ("minLength", "minItems", "minProperties")
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 9e15 and not says_nothing:
            parts.append(words.format(value))
    if schema.get("uniqueItems") is True:
        parts.append("unique")
    items = schema.get("items")
    if isinstance(items, dict) and isinstance(items.get("description"), str) and not parts:
        parts.append("each: " + one_line(items["description"], room))
    if schema.get("deprecated") is True:
        parts.append("deprecated")
    return "; ".join(parts)


def default_of(schema: Any) -> str:
    """Source of the default value; `...` for an optional value without a known default."""
    if isinstance(schema, dict) and "default" in schema:
        text = brief(schema["default"], 81)
        if len(text) <= 80 and "\n" not in text:
            return text
    return "..."


def _literal(values: list[Any]) -> str:
    simple = [v for v in values if v is None or isinstance(v, (str, int))]
    kinds = []
    if simple and any(v is not None for v in simple):
        kinds.append(f"Literal[{', '.join(dict.fromkeys(repr(v) for v in simple if v is not None))}]")
    if any(isinstance(v, float) for v in values):
        kinds.append("float")
    if any(isinstance(v, list) for v in values):
        kinds.append("list")
    if any(isinstance(v, dict) for v in values):
        kinds.append("dict")
    if None in values:
        kinds.append("None")
    return " | ".join(kinds) or "Any"


def _is_record(schema: Any) -> bool:
    """Whether a schema is an object with known keys and nothing else, which a TypedDict can express."""
    if not isinstance(schema, dict) or not isinstance(schema.get("properties"), dict) or not schema["properties"]:
        return False
    others = ("$ref", "const", "enum", "anyOf", "oneOf", "allOf")
    return schema.get("type", "object") == "object" and not any(k in schema for k in others)


def _required(schema: dict[str, Any]) -> set[str]:
    return {r for r in _list(schema.get("required")) if isinstance(r, str)}


def _parts_of(schema: Any, most: int) -> int:
    """How many parts a schema has, long texts as several; more than `most` as soon as that is clear."""
    found = 0
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        found += 1 + (len(part) >> 8 if isinstance(part, str) else 0)
        if found > most or (isinstance(part, (dict, list)) and len(part) > most):
            return most + 1
        if isinstance(part, dict):
            waiting += part
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    return found


def _cut(key: str) -> str:
    return key if len(key) <= _MAX_VALUE else f"{key[: _MAX_VALUE - 1]}…"


def _some(properties: dict[str, Any]) -> dict[str, Any]:
    return properties if len(properties) <= _MAX_PARTS else dict(islice(properties.items(), _MAX_PARTS))


def _key(name: str) -> str:
    """A key as it stands in an object that is written in place."""
    name = _cut(name)
    return name if re.fullmatch(r"[\w$@.\-/]+", name) else repr(name)


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
    if " | " not in kind:
        return [kind]
    parts, depth, start, quote, escaped = [], 0, 0, "", False
    for i, char in enumerate(kind):
        if quote:
            if char == quote and not escaped:
                quote = ""
            escaped = char == "\\" and not escaped
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


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
