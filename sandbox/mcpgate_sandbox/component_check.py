"""Reads the instructions of a component and says what its code can change besides linear memory. Build time only.

A used instance is renewed by putting its memory back (recycle.py). That is right only while its code changes nothing
else for good: no table, no segment, no global that keeps what it was given. A build whose `changes` are not EXPECTED is
refused, so that a new version of the builder or of CPython is looked at before anybody relies on it.

    python -m mcpgate_sandbox.component_check COMPONENT

It reads the binary formats of WebAssembly modules and components (webassembly.github.io/spec, binary format), as far as
it must; whatever it does not know is an error. Imports nothing of this package: the build loads it by its path.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

EXPECTED = frozenset({"global __stack_pointer", "adapter internal_state_ptr", "adapter allocation_state"})
"""The stack pointer is back where it was when a function returns. The two of componentize-py's WASI adapter are set by
functions that only the builder calls (`reset_adapter_state`), and by those that lower imports of the adapter's own,
which the host links to traps."""

_NONE, _NUMBER, _TWO_NUMBERS, _MEMORY, _OTHER, _UNKNOWN = range(6)


def _operands() -> list[int]:
    """What follows each one-byte instruction. Those of exceptions and tail calls are left out on purpose: with them a
    function can end without having put the stack pointer back."""
    kinds = [_UNKNOWN] * 256
    for codes, kind in (
        # unreachable nop else end return; drop select; comparisons and arithmetic; ref.is_null
        ((0x00, 0x01, 0x05, 0x0B, 0x0F, 0x1A, 0x1B, *range(0x45, 0xC5), 0xD1), _NONE),
        # block loop if br br_if call; local.* global.get table.get; memory.size/grow; i32/i64.const; ref.null ref.func
        ((2, 3, 4, 0x0C, 0x0D, 0x10, *range(0x20, 0x24), 0x25, 0x3F, 0x40, 0x41, 0x42, 0xD0, 0xD2), _NUMBER),
        ((0x11,), _TWO_NUMBERS),  # call_indirect
        (range(0x28, 0x3F), _MEMORY),  # loads and stores
        ((0x0E, 0x1C, 0x24, 0x26, 0x43, 0x44, 0xFC, 0xFD), _OTHER),
    ):
        for code in codes:
            kinds[code] = kind
    return kinds


_OPERANDS = _operands()
_CHANGING = {
    **{8: "memory.init", 9: "data.drop", 12: "table.init", 13: "elem.drop"},
    **{14: "table.copy", 15: "table.grow", 17: "table.fill"},
}
"""Those after 0xFC that change a table or a segment."""
_OPERANDS_AFTER_FC = {**dict.fromkeys(range(8), 0), 8: 2, 9: 1, 10: 2, 11: 1, 12: 2, 13: 1, 14: 2, 15: 1, 16: 1, 17: 1}


class Unreadable(ValueError):
    """The component holds something that this check does not know."""


@dataclass
class _Module:
    """What matters of one core module."""

    imported_globals: list[str] = field(default_factory=list)
    imported_functions: int = 0
    names_of_globals: dict[int, str] = field(default_factory=dict)
    code: tuple[int, int] | None = None
    entered: bool = False
    """Whether any function of its own can be called from outside: by an export, a start, or through a table."""


def changes(component: bytes) -> frozenset[str]:
    """What the component's code can write besides linear memory. Raises Unreadable."""
    found: set[str] = set()
    try:
        for start, end in _modules(component, 8, len(component)):
            found |= _of_module(component, _read_module(component, start + 8, end))
    except IndexError:
        raise Unreadable("the component ends in the middle of something") from None
    return frozenset(found)


def _of_module(data: bytes, module: _Module) -> set[str]:
    found: set[str] = set()
    if module.code is None or not module.entered:
        return found
    for instruction, index in _writes(data, *module.code):
        if instruction != "global.set":
            found.add(instruction)
        elif index < len(module.imported_globals):
            found.add(f"global {module.imported_globals[index]}")
        else:
            name = module.names_of_globals.get(index, f"#{index}")
            found.add(f"global {name}" if name == "__stack_pointer" else f"adapter {name}")
    return found


def _read_module(data: bytes, start: int, end: int) -> _Module:
    module = _Module()
    for kind, at, stop in _sections(data, start, end):
        if kind == 2:
            _read_imports(data, at, module)
        elif kind == 7:
            module.entered |= _exports_a_function(data, at)
        elif kind == 8:
            module.entered = True
        elif kind == 9:
            module.entered |= _puts_own_functions_into_tables(data, at, module.imported_functions)
        elif kind == 10:
            module.code = at, stop
        elif kind == 0:
            name, at = _name(data, at)
            if name == "name":
                _read_names_of_globals(data, at, stop, module)
    return module


def _writes(data: bytes, at: int, stop: int) -> Iterator[tuple[str, int]]:
    """Every instruction of a code section that changes a global, a table or a segment, and of which one."""
    functions, at = _number(data, at)
    for _ in range(functions):
        size, at = _number(data, at)
        end = at + size
        groups, at = _number(data, at)  # of local variables
        for _ in range(groups):
            _, at = _number(data, at)
            at += 1
        while at < end:
            code = data[at]
            at += 1
            match _OPERANDS[code]:
                case 0:  # _NONE
                    pass
                case 1:  # _NUMBER
                    while data[at] & 0x80:
                        at += 1
                    at += 1
                case 2:  # _TWO_NUMBERS
                    at = _skip(data, at, 2)
                case 3:  # _MEMORY
                    at = _skip_memory(data, at)
                case 4:  # _OTHER
                    if code == 0x24 or code == 0x26:
                        index, at = _number(data, at)
                        yield "global.set" if code == 0x24 else "table.set", index
                    elif code == 0xFC:
                        code, at = _number(data, at)
                        if code not in _OPERANDS_AFTER_FC:
                            raise Unreadable(f"an instruction that this check does not know: 0xfc {code}")
                        at = _skip(data, at, _OPERANDS_AFTER_FC[code])
                        if code in _CHANGING:
                            yield _CHANGING[code], 0
                    else:
                        at = _skip_other(data, at, code)
                case _:
                    raise Unreadable(f"an instruction that this check does not know: {code:#x}")
        if at != end:
            raise Unreadable("a function that does not end where it should")
    if at != stop:
        raise Unreadable("code that does not end where it should")


def _skip_other(data: bytes, at: int, code: int) -> int:
    if code == 0x0E:  # br_table
        labels, at = _number(data, at)
        return _skip(data, at, labels + 1)
    if code == 0x1C:  # select with types
        types, at = _number(data, at)
        return at + types
    if code in (0x43, 0x44):  # f32.const f64.const
        return at + (4 if code == 0x43 else 8)
    vector, at = _number(data, at)  # 0xfd
    if vector <= 11 or vector in (92, 93):  # loads and stores
        return _skip_memory(data, at)
    if vector in (12, 13):  # a constant, a shuffle
        return at + 16
    if 21 <= vector <= 34:  # of a lane
        return at + 1
    if 84 <= vector <= 91:  # to and from memory, of a lane
        return _skip_memory(data, at) + 1
    return at


def _skip_memory(data: bytes, at: int) -> int:
    align, at = _number(data, at)
    return _skip(data, at, 2 if align & 0x40 else 1)


def _skip(data: bytes, at: int, numbers: int) -> int:
    for _ in range(numbers):
        while data[at] & 0x80:
            at += 1
        at += 1
    return at


def _number(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned LEB128, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at


def _name(data: bytes, at: int) -> tuple[str, int]:
    size, at = _number(data, at)
    return data[at : at + size].decode("utf-8", "replace"), at + size


def _sections(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Kind, start and end of each."""
    while at < end:
        kind = data[at]
        size, at = _number(data, at + 1)
        if at + size > end:
            raise Unreadable("a section is longer than what it stands in")
        yield kind, at, at + size
        at += size


def _modules(data: bytes, at: int, end: int) -> Iterator[tuple[int, int]]:
    """The core modules of a component and of those nested in it."""
    for kind, start, stop in _sections(data, at, end):
        if kind == 1:
            yield start, stop
        elif kind == 4:
            yield from _modules(data, start + 8, stop)


def _read_imports(data: bytes, at: int, module: _Module) -> None:
    count, at = _number(data, at)
    for _ in range(count):
        _, at = _name(data, at)
        name, at = _name(data, at)
        kind, at = data[at], at + 1
        if kind == 0:
            module.imported_functions += 1
            at = _skip(data, at, 1)
        elif kind in (1, 2):  # a table, a memory
            at += kind == 1
            flags, at = _number(data, at)
            at = _skip(data, at, 2 if flags & 1 else 1)
        elif kind == 3:
            at += 2
            module.imported_globals.append(name)
        else:
            raise Unreadable(f"an import that this check does not know: {kind}")


def _exports_a_function(data: bytes, at: int) -> bool:
    count, at = _number(data, at)
    for _ in range(count):
        _, at = _name(data, at)
        if data[at] == 0:
            return True
        at = _skip(data, at + 1, 1)
    return False


def _puts_own_functions_into_tables(data: bytes, at: int, imported: int) -> bool:
    count, at = _number(data, at)
    for _ in range(count):
        flags, at = _number(data, at)
        if flags != 0 or data[at] not in (0x23, 0x41):  # global.get, i32.const
            return True  # not looked into
        at = _skip(data, at + 1, 1)
        if data[at] != 0x0B:
            return True
        size, at = _number(data, at + 1)
        for _ in range(size):
            index, at = _number(data, at)
            if index >= imported:
                return True
    return False


def _read_names_of_globals(data: bytes, at: int, end: int, module: _Module) -> None:
    for kind, start, _ in _sections(data, at, end):
        if kind == 7:
            count, start = _number(data, start)
            for _ in range(count):
                index, start = _number(data, start)
                module.names_of_globals[index], start = _name(data, start)


if __name__ == "__main__":
    found = changes(Path(sys.argv[1]).read_bytes())
    print("\n".join(sorted(found)))
    sys.exit(found != EXPECTED)
