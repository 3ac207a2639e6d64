"""Whether a value fits a JSON Schema, as far as that is certain and cheap. Schemas come from servers and values from
callers, so reading a part of either is a step, and the number of steps is limited: what they do not cover, what this
module does not know, and what dialects read differently is left to the server.

Drafts 4, 6, 7, 2019-09 and 2020-12, and OpenAPI's `nullable`. A `$ref` to another document is never fetched. `format`
is ignored."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote, urljoin

from mcpgate.catalog.brief import brief
from mcpgate.catalog.dialects import TYPES, subschemas
from mcpgate.catalog.patterns import compiled

MAX_STEPS = 20_000
"""Steps of one check, about a microsecond each: schemas applied to a value, their keywords, names, items and enum
values compared, kilobytes of text, and the cost of patterns."""
MAX_FAULTS = 5
_MAX_DEPTH = 150
"""Schemas within schemas, followed through $refs."""
_PATTERN_WORK = 200
"""States of a pattern times characters of a text, per step."""


class Fault(NamedTuple):
    """One thing that is certainly wrong."""

    path: tuple[str | int, ...]
    message: str


Verdict = tuple[Fault, ...] | list[Fault] | None
"""The faults, empty if there are none, or None if that cannot be decided."""
FITS: tuple[Fault, ...] = ()


class _Spent(Exception):
    """No steps are left."""


class Steps:
    """How many steps a check may still take, and how many it took."""

    def __init__(self, most: int = MAX_STEPS) -> None:
        self._most = self.left = most

    @property
    def taken(self) -> int:
        return self._most - self.left

    def take(self, number: int) -> None:
        self.left -= number
        if self.left < 0:
            raise _Spent


class Document:
    """A schema that is valid in a dialect, and the targets of its references."""

    def __init__(self, root: dict[str, Any], draft: int) -> None:
        self.root, self.draft = root, draft
        self.rules = _RULES[draft]
        self._id_keyword = "id" if draft == 4 else "$id"
        self._targets: dict[str, Any] = {}
        self._named: dict[str, Any] | None = None

    @property
    def has_resources(self) -> bool:
        """Whether parts of it have their own addresses, to which their `#…` are relative."""
        return _RESOURCES in self._index()

    def judge(self, value: Any, steps: Steps | None = None, schema: Any = None) -> Verdict:
        """What is wrong with a value, by the whole schema or by `schema`, a part of it."""
        look = _Look(self, steps or Steps())
        try:
            return look.at(self.root if schema is None else schema, value)
        except (_Spent, RecursionError):
            return None

    def target_of(self, ref: Any, steps: Steps) -> Any:
        """What a reference leads to; None where this is another document, or is not clear."""
        if not isinstance(ref, str) or len(ref) > _MAX_REF:
            return None
        if ref not in self._targets:
            steps.take(_FINDING)
            self._targets[ref] = self._find(ref)
        return self._targets[ref]

    def _find(self, ref: str) -> Any:
        named = self._index()
        base = self._base()
        if base and not ref.startswith("#"):
            ref = urljoin(base, ref).removeprefix(base.rstrip("#")) or "#"
        if ref != "#" and not ref.startswith("#/"):
            return named.get(ref)
        if _RESOURCES in named:
            return None
        node: Any = self.root
        for part in unquote(ref[2:]).split("/") if ref != "#" else []:
            part = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, dict) and part in node:
                node = node[part]
            elif isinstance(node, list) and part.isascii() and part.isdigit() and int(part) < len(node):
                node = node[int(part)]
            else:
                return None
        return node

    def _base(self) -> str:
        base = self.root.get(self._id_keyword)
        return base if isinstance(base, str) and len(base) <= _MAX_REF else ""

    def _index(self) -> dict[str, Any]:
        """Every name that a reference can use; duplicate names lead nowhere. Built once."""
        if self._named is None:
            self._named, resources = {}, 0
            for part in subschemas(self.root, self.draft):
                address = part.get(self._id_keyword)
                names = [part[key] for key in ("$anchor", "$dynamicAnchor") if isinstance(part.get(key), str)]
                if isinstance(address, str) and address.startswith("#"):
                    names.append(address[1:])
                elif isinstance(address, str) and part is not self.root:
                    self._named[_RESOURCES] = True
                    resources += 1
                    if len(address) <= _MAX_REF and resources <= _MAX_RESOURCES:
                        whole = urljoin(self._base(), address)
                        self._named[whole] = None if whole in self._named else part
                for name in dict.fromkeys(f"#{name}" for name in names):
                    self._named[name] = None if name in self._named else part
        return self._named


class _Look:
    """One check of a value."""

    def __init__(self, document: Document, steps: Steps) -> None:
        self.document, self.steps = document, steps
        self._rules = document.rules
        self._lone_refs = document.draft <= 7
        self._depth = 0
        self._seen: dict[tuple[int, int], Verdict] = {}
        """Verdicts by reference and value, so that no pair is checked twice."""

    def at(self, schema: Any, value: Any) -> Verdict:
        """What is wrong with the value by this schema."""
        if schema is True:
            return FITS
        if schema is False:
            return [Fault((), f"{brief(value)} is not allowed here")]
        if type(schema) is not dict or self._depth >= _MAX_DEPTH:
            return None
        self.steps.take(1 + len(schema))
        if self._lone_refs and "$ref" in schema:
            schema = {"$ref": schema["$ref"]}
        nullable = value is None and schema.get("nullable") is True
        faults: list[Fault] = []
        certain = True
        self._depth += 1
        try:
            for keyword, argument in schema.items():
                rule = self._rules.get(keyword)
                if rule is None or (nullable and keyword in _NULLABLE):
                    continue
                if rule(self, argument, value, schema, faults) is False:
                    certain = False
                if len(faults) >= MAX_FAULTS:
                    break
        except _Spent:
            if not faults:
                raise
        except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError):
            certain = False  # a part reached only through a $ref was never checked for validity
        finally:
            self._depth -= 1
        return faults or (FITS if certain else None)

    def into(self, faults: list[Fault], schema: Any, value: Any, *names: str | int) -> bool:
        """Adds the faults of a part of the value. False if that cannot be decided."""
        found = self.at(schema, value)
        if found:
            faults += (Fault((*names, *fault.path), fault.message) for fault in found) if names else found
        return found is not None

    def through(self, faults: list[Fault], ref: Any, value: Any) -> bool:
        """Adds what is wrong with the value by what a reference leads to."""
        target = self.document.target_of(ref, self.steps)
        if target is None:
            return False
        key = (id(target), id(value))
        if key not in self._seen:
            self._seen[key] = None  # a reference to itself cannot be decided
            self._seen[key] = self.at(target, value)
        found = self._seen[key]
        faults += found or ()
        return found is not None

    def same(self, one: Any, other: Any) -> bool:
        """Whether two values are equal in JSON, where true is not 1 but 1 is 1.0."""
        if type(one) is str or type(other) is str:
            alike = type(one) is type(other) and len(one) == len(other)
            self.steps.take(1 + (len(one) >> 10 if alike else 0))
            return alike and bool(one == other)
        self.steps.take(1)
        if type(one) is list and type(other) is list:
            return len(one) == len(other) and all(map(self.same, one, other))
        if type(one) is dict and type(other) is dict:
            return len(one) == len(other) and all(k in other and self.same(v, other[k]) for k, v in one.items())
        return type(one) not in (list, dict) and (type(one) is bool) is (type(other) is bool) and bool(one == other)

    def written(self, value: Any) -> str:
        """The value as text: equal for equal values, and only for them."""
        kind = type(value)
        if kind is str:
            self.steps.take(1 + (len(value) >> 8))
            return repr(value)
        self.steps.take(1)
        if kind is list:
            return f"[{','.join(map(self.written, value))}]"
        if kind is dict:
            self.steps.take(len(value))
            return f"{{{','.join(sorted(f'{self.written(k)}:{self.written(v)}' for k, v in value.items()))}}}"
        if kind is int or (kind is float and value.is_integer()):
            return hex(int(value))  # any length, in linear time
        return repr(value)

    def matches(self, pattern: Any, text: str) -> bool | None:
        """Whether a text matches. None if that is not judged."""
        ready = compiled(pattern, self.steps.take) if isinstance(pattern, str) else None
        if ready is None:
            return None
        self.steps.take(1 + ready.states * len(text) // _PATTERN_WORK)
        return ready.matches(text)


Rule = Callable[[_Look, Any, Any, dict[str, Any], list[Fault]], bool | None]
"""(look, the keyword's value, the value, the schema, faults to add to) → False if it cannot be decided."""


# --- any value


def _type(look: _Look, kinds: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> bool | None:
    given = _KINDS.get(type(value), ())
    if kinds in given if type(kinds) is str else any(kind in given for kind in kinds[:10]):
        return None
    wanted = [kinds] if type(kinds) is str else kinds[:10]
    if type(value) is float and value.is_integer() and "integer" in wanted and look.document.draft > 4:
        return None
    if not given or not all(kind in TYPES for kind in wanted):
        return False
    faults.append(Fault((), f"{brief(value)} is not of type {' or '.join(map(repr, wanted))}"))
    return None


def _enum(look: _Look, values: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> None:
    if type(value) is str:
        look.steps.take(len(values) // 20 + (len(values) * len(value) >> 14))
        found = value in values
    else:
        found = any(look.same(value, one) for one in values)
    if not found:
        faults.append(Fault((), _cut(f"{brief(value)} is not one of {brief(values, _MAX_MESSAGE)}")))


def _const(look: _Look, constant: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> None:
    if not look.same(value, constant):
        faults.append(Fault((), _cut(f"{brief(constant, _MAX_MESSAGE)} was expected")))


def _all_of(look: _Look, parts: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> bool:
    certain = True
    for part in parts:
        certain &= look.into(faults, part, value)
        if len(faults) >= MAX_FAULTS:
            break
    return certain


def _any_of(look: _Look, parts: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> bool:
    reasons: list[Fault] = []
    certain = True
    for part in parts:
        found = look.at(part, value)
        if found is not None and not found:
            return True
        certain &= found is not None
        reasons += found or ()
        del reasons[_MAX_REASONS:]
    if certain:
        faults.append(_fits_none(value, reasons))
    return certain


def _one_of(look: _Look, parts: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> bool:
    reasons: list[Fault] = []
    fitting = unclear = 0
    for part in parts:
        found = look.at(part, value)
        unclear += found is None
        fitting += found is not None and not found
        if fitting > 1:
            faults.append(Fault((), f"{brief(value)} fits more than one of the allowed forms; it must fit exactly one"))
            return True
        reasons += found or ()
        del reasons[_MAX_REASONS:]
    if not fitting and not unclear:
        faults.append(_fits_none(value, reasons))
    return not unclear


def _fits_none(value: Any, reasons: list[Fault]) -> Fault:
    kinds = sorted(dict.fromkeys(reason.message[:80] for reason in reasons), key=len)[:2]
    return Fault((), f"{brief(value)} fits none of the allowed forms ({'; '.join(kinds)})")


def _not(look: _Look, part: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> bool:
    found = look.at(part, value)
    if found is not None and not found:
        faults.append(Fault((), _cut(f"{brief(value)} should not fit {brief(part, _MAX_MESSAGE)}")))
    return found is not None


def _if(look: _Look, part: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> bool:
    found = look.at(part, value)
    if found is None:
        return False
    branch = "else" if found else "then"
    return look.into(faults, schema[branch], value) if branch in schema else True


def _ref(look: _Look, ref: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> bool:
    return look.through(faults, ref, value)


def _dynamic_ref(look: _Look, ref: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> bool:
    """In a document without nested addresses, a reference like any other."""
    return not look.document.has_resources and look.through(faults, ref, value)


def _not_judged(look: _Look, argument: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> bool:
    return False


# --- numbers


def _is_number(value: Any) -> bool:
    return type(value) is int or type(value) is float


def _minimum(look: _Look, least: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> None:
    if _is_number(value) and value < least:
        faults.append(Fault((), f"{brief(value)} is less than the minimum of {brief(least)}"))


def _maximum(look: _Look, most: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> None:
    if _is_number(value) and value > most:
        faults.append(Fault((), f"{brief(value)} is greater than the maximum of {brief(most)}"))


def _over(look: _Look, least: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> None:
    if _is_number(value) and value <= least:
        faults.append(Fault((), f"{brief(value)} is less than or equal to the minimum of {brief(least)}"))


def _under(look: _Look, most: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> None:
    if _is_number(value) and value >= most:
        faults.append(Fault((), f"{brief(value)} is greater than or equal to the maximum of {brief(most)}"))


def _minimum_of_old(look: _Look, least: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> None:
    (_over if schema.get("exclusiveMinimum") is True else _minimum)(look, least, value, schema, faults)


def _maximum_of_old(look: _Look, most: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> None:
    (_under if schema.get("exclusiveMaximum") is True else _maximum)(look, most, value, schema, faults)


def _multiple_of(look: _Look, unit: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> bool:
    if not _is_number(value):
        return True
    if max(abs(value), abs(unit)) > _LARGEST or unit == 0:
        return False  # rounding, or the time it takes, would decide
    if value % unit if type(unit) is int else not (value / unit).is_integer():
        faults.append(Fault((), f"{brief(value)} is not a multiple of {brief(unit)}"))
    return True


# --- texts


def _min_length(look: _Look, least: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> None:
    if type(value) is str and len(value) < least:
        faults.append(Fault((), f"{brief(value)} {_too_short(least)}"))


def _max_length(look: _Look, most: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> None:
    if type(value) is str and len(value) > most:
        faults.append(Fault((), f"{brief(value)} {_too_long(most)}"))


def _too_short(least: Any) -> str:
    return "should be non-empty" if least == 1 else "is too short"


def _too_long(most: Any) -> str:
    return "is expected to be empty" if most == 0 else "is too long"


def _pattern(look: _Look, pattern: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> bool:
    if type(value) is not str:
        return True
    found = look.matches(pattern, value)
    if found is False:
        faults.append(Fault((), _cut(f"{brief(value)} does not match {brief(pattern, _MAX_MESSAGE)}")))
    return found is not None


# --- arrays


def _min_items(look: _Look, least: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> None:
    if type(value) is list and len(value) < least:
        faults.append(Fault((), f"{brief(value)} {_too_short(least)}"))


def _max_items(look: _Look, most: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> None:
    if type(value) is list and len(value) > most:
        faults.append(Fault((), f"{brief(value)} {_too_long(most)}"))


def _unique_items(look: _Look, wanted: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> None:
    if not wanted or type(value) is not list:
        return
    seen: set[str] = set()
    for item in value:
        # Compared as text: hashes of integers can be made to collide, those of text cannot.
        text = look.written(item)
        if text in seen:
            faults.append(Fault((), f"{brief(value)} has non-unique elements"))
            return
        seen.add(text)


def _items(look: _Look, part: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> bool:
    """For the items after those of `prefixItems`."""
    if type(value) is not list:
        return True
    return _each_item(look, part, value, len(schema.get("prefixItems", ())), faults)


def _prefix_items(look: _Look, parts: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> bool:
    certain = True
    for at, (part, item) in enumerate(zip(parts, value, strict=False)) if type(value) is list else ():
        certain &= look.into(faults, part, item, at)
        if len(faults) >= MAX_FAULTS:
            break
    return certain


def _items_of_old(look: _Look, part: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> bool:
    """One schema for all items, or one for each of the first items."""
    if type(part) is list:
        return _prefix_items(look, part, value, schema, faults)
    return _each_item(look, part, value, 0, faults) if type(value) is list else True


def _additional_items(look: _Look, part: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> bool:
    first = schema.get("items")
    if type(value) is not list or type(first) is not list:
        return True
    return _each_item(look, part, value, len(first), faults)


def _each_item(look: _Look, part: Any, value: list[Any], start: int, faults: list[Fault]) -> bool:
    if part is False:
        if len(value) > start:
            faults.append(Fault((), f"at most {start} items were expected, not {len(value):,}"))
        return True
    certain = True
    for at in range(start, len(value)) if part is not True else ():
        certain &= look.into(faults, part, value[at], at)
        if len(faults) >= MAX_FAULTS:
            break
    return certain


def _contains(look: _Look, part: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> bool:
    if type(value) is not list:
        return True
    newer = look.document.draft >= 2019
    least, most = (schema.get("minContains", 1), schema.get("maxContains")) if newer else (1, None)
    fitting = unclear = 0
    for item in value:
        if fitting >= least and most is None:
            return True
        found = look.at(part, item)
        unclear += found is None
        fitting += found is not None and not found
        if most is not None and fitting > most:
            faults.append(Fault((), f"{brief(value)} contains too many items that fit (at most {most})"))
            return True
    if fitting + unclear < least:
        faults.append(Fault((), f"{brief(value)} contains too few items that fit {brief(part)} (at least {least})"))
    return not unclear


# --- objects


def _required(look: _Look, names: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> None:
    if type(value) is not dict:
        return
    look.steps.take(len(names))
    for name in names:
        if name not in value:
            faults.append(Fault((), f"{brief(name)} is a required property"))
            if len(faults) >= MAX_FAULTS:
                break


def _min_properties(look: _Look, least: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> None:
    if type(value) is dict and len(value) < least:
        words = "should be non-empty" if least == 1 else "does not have enough properties"
        faults.append(Fault((), f"{brief(value)} {words}"))


def _max_properties(look: _Look, most: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> None:
    if type(value) is dict and len(value) > most:
        words = "is expected to be empty" if most == 0 else "has too many properties"
        faults.append(Fault((), f"{brief(value)} {words}"))


def _properties(look: _Look, parts: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> bool:
    if type(value) is not dict:
        return True
    fewer, other = (value, parts) if len(value) < len(parts) else (parts, value)
    look.steps.take(len(fewer))
    certain = True
    for name in fewer:
        if name in other:
            certain &= look.into(faults, parts[name], value[name], name)
            if len(faults) >= MAX_FAULTS:
                break
    return certain


def _pattern_properties(look: _Look, parts: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> bool:
    certain = True
    for pattern, part in parts.items() if type(value) is dict else ():
        for name, inner in value.items():
            found = look.matches(pattern, name)
            certain &= found is not None
            if found and not look.into(faults, part, inner, name):
                certain = False
            if len(faults) >= MAX_FAULTS:
                return certain
    return certain


def _additional_properties(look: _Look, part: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> bool:
    if type(value) is not dict or part is True:
        return True
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    look.steps.take(len(value))
    certain, unknown = True, []
    for name in value:
        if name in known:
            continue
        found = [look.matches(pattern, name) for pattern in patterns]
        if True in found:
            continue
        if None in found:
            certain = False
        elif part is False:
            unknown.append(name)
        elif not look.into(faults, part, value[name], name):
            certain = False
        if max(len(unknown), len(faults)) >= MAX_FAULTS:
            break
    if unknown:
        names, verb = ", ".join(map(brief, unknown)), "was" if len(unknown) == 1 else "were"
        faults.append(Fault((), f"additional properties are not allowed ({names} {verb} unexpected)"))
    return certain


def _property_names(look: _Look, part: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> bool:
    certain = True
    for name in value if type(value) is dict else ():
        certain &= look.into(faults, part, name)
        if len(faults) >= MAX_FAULTS:
            break
    return certain


def _dependencies(look: _Look, table: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> bool:
    """Names or a schema that must hold if a property is present."""
    if type(value) is not dict:
        return True
    look.steps.take(len(table))
    certain = True
    for name, needed in table.items():
        if name not in value:
            continue
        if type(needed) is not list:
            certain &= look.into(faults, needed, value)
            continue
        look.steps.take(len(needed))
        missing = [other for other in needed if other not in value][:MAX_FAULTS]
        faults += (Fault((), f"{brief(other)} is a dependency of {brief(name)}") for other in missing)
        if len(faults) >= MAX_FAULTS:
            break
    return certain


def _unevaluated(look: _Look, part: Any, value: Any, schema: dict[str, Any], faults: list[Fault]) -> bool:
    """`unevaluatedProperties: false`: names that no applicable part of the schema knows."""
    if type(value) is not dict or part is True:
        return True
    known = _known_names(look, schema, value, frozenset(("unevaluatedProperties",)))
    if known is None:
        return False
    certain = True
    for name in value:
        if name not in known:
            certain &= look.into(faults, part, value[name], name)
            if len(faults) >= MAX_FAULTS:
                break
    return certain


def _known_names(look: _Look, schema: Any, value: dict[str, Any], without: frozenset[str]) -> set[str] | None:
    """The names that an applicable schema has evaluated. None if that cannot be decided."""
    if type(schema) is not dict:
        return None if schema is None else set()
    look.steps.take(1 + len(schema) + len(value))
    if {"$dynamicRef", "$recursiveRef"} & schema.keys():
        return None
    if {"additionalProperties", "unevaluatedProperties"} & (schema.keys() - without):
        return set(value)
    known: set[str] = schema.get("properties", {}).keys() & value.keys()
    for pattern in schema.get("patternProperties", {}):
        found = {name: look.matches(pattern, name) for name in value}
        if None in found.values():
            return None
        known |= {name for name, matched in found.items() if matched}
    for part in _parts_of(look, schema, value):
        verdict = look.at(part, value)
        inner = None if verdict is None else _known_names(look, part, value, frozenset())
        if inner is None:
            return None
        if not verdict:
            known |= inner
    return known


def _parts_of(look: _Look, schema: dict[str, Any], value: dict[str, Any]) -> Iterator[Any]:
    """The schemas that apply to the same value, if they hold."""
    if "$ref" in schema:
        yield look.document.target_of(schema["$ref"], look.steps)
    for keyword in ("allOf", "anyOf", "oneOf"):
        yield from schema.get(keyword, ())
    yield from (part for name, part in schema.get("dependentSchemas", {}).items() if name in value)
    if "if" in schema:
        yield schema["if"]
        yield schema.get("else" if look.at(schema["if"], value) else "then", True)


def _cut(message: str) -> str:
    return message if len(message) <= _MAX_MESSAGE else message[: _MAX_MESSAGE - 1] + "…"


_MAX_MESSAGE = 200
_MAX_REASONS = 50
_MAX_REF = 2000
_MAX_RESOURCES = 500
_FINDING = 20
"""Steps to find what a reference leads to, the first time."""
_RESOURCES = "# "
"""A marker among the names, not a name."""
_LARGEST = 2**53
_NULLABLE = frozenset(("type", "enum", "const"))
"""The keywords that `nullable` lets null pass."""
_KINDS: dict[type, tuple[str, ...]] = {
    str: ("string",),
    dict: ("object",),
    list: ("array",),
    bool: ("boolean",),
    type(None): ("null",),
    int: ("integer", "number"),
    float: ("number",),
}

_4: dict[str, Rule] = {
    "$ref": _ref,
    "type": _type,
    "enum": _enum,
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "not": _not,
    "minimum": _minimum_of_old,
    "maximum": _maximum_of_old,
    "multipleOf": _multiple_of,
    "minLength": _min_length,
    "maxLength": _max_length,
    "pattern": _pattern,
    "minItems": _min_items,
    "maxItems": _max_items,
    "uniqueItems": _unique_items,
    "items": _items_of_old,
    "additionalItems": _additional_items,
    "required": _required,
    "minProperties": _min_properties,
    "maxProperties": _max_properties,
    "properties": _properties,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "dependencies": _dependencies,
}
_6: dict[str, Rule] = {
    **_4,
    "const": _const,
    "contains": _contains,
    "propertyNames": _property_names,
    "minimum": _minimum,
    "maximum": _maximum,
    "exclusiveMinimum": _over,
    "exclusiveMaximum": _under,
}
_7: dict[str, Rule] = {**_6, "if": _if}
_2019: dict[str, Rule] = {
    **{keyword: rule for keyword, rule in _7.items() if keyword != "dependencies"},
    "$recursiveRef": _dynamic_ref,
    "dependentRequired": _dependencies,
    "dependentSchemas": _dependencies,
    "unevaluatedProperties": _unevaluated,
    "unevaluatedItems": _not_judged,
}
_2020: dict[str, Rule] = {
    **{k: rule for k, rule in _2019.items() if k not in ("additionalItems", "$recursiveRef")},
    "$dynamicRef": _dynamic_ref,
    "prefixItems": _prefix_items,
    "items": _items,
}
_RULES = {4: _4, 6: _6, 7: _7, 2019: _2019, 2020: _2020}
