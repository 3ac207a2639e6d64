"""Reading JSON that others wrote, field by field. Every error names the field's path, such as `messages[2].content`.
null is the same as absent, as in the SDKs of OpenAI and Anthropic."""

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NoReturn

from mcpgate.errors import InvalidRequest
from mcpgate.llm.messages import Untranslatable

Defaults = Mapping[str, tuple[Any, ...]]
"""Fields that are accepted only with values that ask for nothing."""


class Fields:
    """One object of a request, and where it stands."""

    def __init__(self, value: Any, path: str = "") -> None:
        self.path = path
        if not isinstance(value, Mapping):
            self.wrong("", f"must be an object, not {kind_of(value)}")
        self.value: Mapping[str, Any] = value

    def at(self, name: str) -> str:
        """The path of a field; of the object itself, if the name is empty."""
        return f"{self.path}.{name}" if self.path and name else self.path or name or "body"

    def wrong(self, name: str, reason: str) -> NoReturn:
        raise InvalidRequest(f"{self.at(name)}: {reason}", field=self.at(name))

    def untranslatable(self, name: str, reason: str = "") -> NoReturn:
        raise Untranslatable(self.at(name), reason or "the format of this model's provider has no form for it")

    def only(
        self, translated: Collection[str], left_out: Collection[str] = (), defaults: Defaults | None = None
    ) -> None:
        """Refuses every other field, and those in `defaults` with another value."""
        for name, value in self.value.items():
            if value is None or name in translated or name in left_out:
                continue
            if defaults is None or name not in defaults:
                self.untranslatable(str(name)[:100])
            elif value not in defaults[name]:
                self.untranslatable(name, f"only {' or '.join(map(repr, defaults[name]))} can be translated")

    def get(self, name: str) -> Any:
        return self.value.get(name)

    def need(self, name: str) -> Any:
        value = self.value.get(name)
        if value is None:
            self.wrong(name, "is required")
        return value

    def text(self, name: str) -> str:
        """Empty if absent."""
        value = self.value.get(name)
        if value is None or isinstance(value, str):
            return value or ""
        self.wrong(name, f"must be a string, not {kind_of(value)}")

    def need_text(self, name: str) -> str:
        self.need(name)
        return self.text(name)

    def one_of(self, name: str, allowed: Collection[str]) -> str:
        """A text out of a set; empty if absent."""
        value = self.text(name)
        if value and value not in allowed:
            self.untranslatable(name, f"{value[:100]!r}; it can be {', '.join(sorted(allowed))}")
        return value

    def flag(self, name: str) -> bool | None:
        value = self.value.get(name)
        if value is None or isinstance(value, bool):
            return value
        self.wrong(name, f"must be true or false, not {kind_of(value)}")

    def number(self, name: str) -> float | None:
        value = self.value.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.wrong(name, f"must be a number, not {kind_of(value)}")
        if not abs(value) < 1e300 or not math.isfinite(value):
            self.wrong(name, "is out of range")
        return float(value)

    def whole(self, name: str) -> int | None:
        """Zero or more."""
        value = self.value.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self.wrong(name, f"must be a whole number, not {kind_of(value)}")
        if not 0 <= value < 2**53:
            self.wrong(name, "is out of range")
        return int(value)

    def integer(self, name: str) -> int | None:
        value = self.value.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**63:
            self.wrong(name, "must be a whole number of 64 bits")
        return int(value)

    def mapping(self, name: str) -> Mapping[str, Any] | None:
        """An object that is passed on as it is, such as a JSON schema."""
        value = self.value.get(name)
        if value is not None and not isinstance(value, Mapping):
            self.wrong(name, f"must be an object, not {kind_of(value)}")
        return value

    def list(self, name: str) -> list[Any]:
        """Empty if absent."""
        value = self.value.get(name)
        if value is not None and not isinstance(value, list):
            self.wrong(name, f"must be a list, not {kind_of(value)}")
        return value or []

    def texts(self, name: str) -> tuple[str, ...]:
        values = self.list(name)
        for index, value in enumerate(values):
            if not isinstance(value, str):
                self.wrong(f"{name}[{index}]", f"must be a string, not {kind_of(value)}")
        return tuple(values)

    def each(self, name: str) -> "Iterator[Fields]":
        """The objects of a list."""
        for index, value in enumerate(self.list(name)):
            yield type(self)(value, f"{self.at(name)}[{index}]")

    def object(self, name: str) -> "Fields | None":
        value = self.value.get(name)
        return None if value is None else type(self)(value, self.at(name))

    def need_object(self, name: str) -> "Fields":
        return type(self)(self.need(name), self.at(name))


class AnswerFields(Fields):
    """The same of what a provider has answered."""

    def wrong(self, name: str, reason: str) -> NoReturn:
        raise ValueError(f"{self.at(name)}: {reason}")

    def untranslatable(self, name: str, reason: str = "") -> NoReturn:
        raise Untranslatable(self.at(name), reason or "the client's format has no form for it")


def kind_of(value: Any) -> str:
    """What JSON calls it."""
    if isinstance(value, bool):
        return "a boolean"
    for types, name in _KINDS:
        if isinstance(value, types):
            return name
    return "null"


_KINDS: tuple[tuple[Any, str], ...] = (
    (str, "a string"),
    ((int, float), "a number"),
    (list, "a list"),
    (Mapping, "an object"),
)
