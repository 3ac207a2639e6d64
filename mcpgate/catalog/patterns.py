"""JSON Schema's `pattern`, matched in linear time. Python's `re` can run practically forever on forty letters, and
cannot be interrupted; here a pattern is rewritten for Rust's engine (it comes with pydantic-core), after a check of its
size. What the two dialects in use, ECMA-262 and Python's, read differently is not judged."""

import re
from collections.abc import Callable
from typing import NamedTuple

from pydantic_core import SchemaError, SchemaValidator, core_schema

MAX_PATTERN = 1000
MAX_STATES = 15_000
MAX_TEXT = 100_000
"""Characters, states after repetitions are expanded, characters: beyond these nothing is judged."""
_MAX_COMPILED = 100
"""Cached patterns; each may take a megabyte."""
_COMPILED: dict[str, "Pattern | None"] = {}
_WIDE = 12
"""The cost of compiling one `.` or `[^…]`, in plain letters: it expands to several ranges of UTF-8."""
_MAX_GROUPS = 50

_SETS = {"d": "0-9", "w": "0-9A-Za-z_", "s": r"\t\n\x0b\x0c\r "}
_CONTROLS = {"n": r"\n", "r": r"\r", "t": r"\t", "f": r"\x0c", "v": r"\x0b", "0": r"\x00"}
_CODE = re.compile(r"x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})")
_REPEAT = re.compile(r"\{(\d{1,6})(,(\d{0,6}))?\}")
_NO_LEAST = re.compile(r",\d*\}")
_GROUP = re.compile(r"\?(?::|P?<[A-Za-z_][A-Za-z0-9_]{0,30}>)")
_SEPARATORS = re.compile(r"[\x1c-\x1f]")
"""Part of `\\s` only in Python."""
_FLAGS = re.compile(r"\(\?[ims]{1,3}\)")


class Pattern(NamedTuple):
    """A compiled pattern."""

    validator: SchemaValidator
    states: int
    """Matching n characters costs at most about states × n."""
    ascii_only: bool
    """Whether it uses `\\w` or the like, which are ASCII in one dialect and Unicode in the other."""

    def matches(self, text: str) -> bool | None:
        """Whether it is found in the text. None if the dialects differ, or the text is too long."""
        if len(text) > MAX_TEXT or (self.ascii_only and not (text.isascii() and not _SEPARATORS.search(text))):
            return None
        found = self.validator.isinstance_python(text)
        if text.endswith("\n") and self.validator.isinstance_python(text[:-1]) is not found:
            return None  # Python's `$` also matches before a final newline
        if not found and not text.isascii() and not _is_unicode(text):
            return None
        return found


class _NotJudged(Exception):
    """The pattern is too large, or the dialects differ about it."""


def compiled(pattern: str, take: Callable[[int], None] = lambda steps: None) -> Pattern | None:
    """None for what is not judged. Before a pattern that is not cached is compiled, `take` is called with its cost in
    letters; it may raise."""
    if len(pattern) > MAX_PATTERN:
        return None
    if pattern in _COMPILED:
        return _COMPILED[pattern]
    take(20 + len(pattern) // 2)
    ready = None
    try:
        reader = _Reader(pattern)
        text = reader.read()
    except _NotJudged:
        pass
    else:
        take(reader.weight)
        try:
            validator = SchemaValidator(core_schema.str_schema(pattern=text, regex_engine="rust-regex"))
            ready = Pattern(validator, reader.states, reader.ascii_only)
        except SchemaError:
            pass  # such as ranges that end before they begin
    while len(_COMPILED) >= _MAX_COMPILED:
        del _COMPILED[next(iter(_COMPILED))]
    _COMPILED[pattern] = ready
    return ready


class _Reader:
    """Reads a pattern and writes it for Rust, where `[` in a class, `&&` and `{` mean something else."""

    def __init__(self, pattern: str) -> None:
        self._pattern, self._at = pattern, 0
        self.ascii_only = False
        self.states = self.weight = 0
        """The cost of matching a character, and of compiling; a letter is 1."""

    def read(self) -> str:
        written = []
        if flags := _FLAGS.match(self._pattern):
            written.append(flags[0])
            self._at, self.ascii_only = flags.end(), True
        sizes = [(1, 1)]
        """States and weight of each open group so far, the outermost first."""
        outer: list[tuple[int, int]] = []
        while self._at < len(self._pattern):
            char = self._take()
            if char == "(":
                if (group := _GROUP.match(self._pattern, self._at)) is not None:
                    self._at = group.end()
                elif self._pattern.startswith("?", self._at):
                    raise _NotJudged  # lookaround or flags
                written.append("(?:")
                outer.append(sizes.pop())
                sizes.append((1, 1))
                if len(outer) > _MAX_GROUPS:
                    raise _NotJudged
                continue
            if char == ")":
                if not outer:
                    raise _NotJudged
                written.append(")")
                atom, before = sizes.pop(), outer.pop()
            elif char in "|^$":
                written.append(char)
                sizes[-1] = (sizes[-1][0] + 1, sizes[-1][1] + 1)
                continue
            elif char in "*+?":
                raise _NotJudged  # repeats nothing, or is possessive
            else:
                text, weight = self._atom(char)
                written.append(text)
                atom, before = (1, weight), sizes.pop()
            repeat, times = self._repeat()
            written.append(repeat)
            states, weight = before[0] + atom[0] * times, before[1] + atom[1] * times
            if max(states, weight) > MAX_STATES:
                raise _NotJudged
            sizes.append((states, weight))
        if outer:
            raise _NotJudged
        self.states, self.weight = sizes[0]
        return "".join(written)

    def _take(self) -> str:
        if self._at >= len(self._pattern):
            raise _NotJudged
        self._at += 1
        return self._pattern[self._at - 1]

    def _atom(self, char: str) -> tuple[str, int]:
        """One thing that can be repeated, and its weight."""
        if char == ".":
            return ".", _WIDE
        if char == "[":
            return self._class()
        if char != "\\":
            if char == "{" and _NO_LEAST.match(self._pattern, self._at):
                raise _NotJudged  # a repetition in Python, letters elsewhere
            return _escaped(char), 1
        text, is_set = self._escape(in_class=False)
        return (f"[{text}]", _WIDE if text.startswith("^") else 1) if is_set else (text, 1)

    def _escape(self, in_class: bool) -> tuple[str, bool]:
        """What follows a backslash, and whether it is a set of characters."""
        char = self._take()
        if char.lower() in _SETS:
            self.ascii_only = True
            if char.isupper() and in_class:
                return f"[^{_SETS[char.lower()]}]", True
            return ("^" if char.isupper() else "") + _SETS[char.lower()], True
        if char in "bB" and not in_class:
            self.ascii_only = True
            return rf"(?-u:\{char})", False
        if char in _CONTROLS:
            if char == "0" and self._pattern[self._at : self._at + 1].isdigit():
                raise _NotJudged  # octal
            return _CONTROLS[char], False
        if (code := _CODE.match(self._pattern, self._at - 1)) is not None:
            self._at = code.end()
            value = int(code[1] or code[2], 16)
            if 0xD800 <= value <= 0xDFFF:
                raise _NotJudged
            return rf"\x{{{value:x}}}", False
        if char.isalnum():
            raise _NotJudged  # back references, \p, \A, \Z, \c
        return _escaped(char), False

    def _class(self) -> tuple[str, int]:
        """`[…]`, with everything but ranges and sets escaped."""
        inverted = self._pattern.startswith("^", self._at)
        self._at += inverted
        if self._pattern.startswith("]", self._at):
            raise _NotJudged  # a letter in one dialect, the end in the other
        items: list[str] = []
        wide = inverted
        while (char := self._take()) != "]":
            text, is_set = self._escape(in_class=True) if char == "\\" else (_in_class(char), False)
            wide |= text.startswith("[^")
            rest = self._pattern[self._at : self._at + 2]
            if not is_set and rest[:1] == "-" and rest != "-]" and len(rest) == 2:
                self._at += 1
                last = self._take()
                end, is_set = self._escape(in_class=True) if last == "\\" else (_in_class(last), False)
                if is_set:
                    raise _NotJudged
                text = f"{text}-{end}"
            items.append(text)
        return f"[{'^' if inverted else ''}{''.join(items)}]", _WIDE if wide else 1 + len(items) // 4

    def _repeat(self) -> tuple[str, int]:
        """The quantifier here, if any, and how many times it repeats its atom."""
        if (repeat := _REPEAT.match(self._pattern, self._at)) is not None:
            self._at = repeat.end()
            least, most = int(repeat[1]), int(repeat[3]) if repeat[3] else None
            text, times = repeat[0], (least if repeat[2] is None else least + 1) if most is None else most
        elif self._pattern[self._at : self._at + 1] in ("*", "+", "?"):
            text, times = self._take(), 2
        else:
            return "", 1
        following = self._pattern[self._at : self._at + 1]
        if following == "?":
            self._at += 1
        elif (following and following in "*+") or _REPEAT.match(self._pattern, self._at):
            raise _NotJudged
        return text, max(times, 1)


def _escaped(char: str) -> str:
    return f"\\{char}" if char in "\\.+*?()|[]{}^$#&-~" else char


def _in_class(char: str) -> str:
    return f"\\{char}" if char in "[]^&~-\\" else char


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False  # a lone surrogate, which a Rust string cannot hold
    return True
