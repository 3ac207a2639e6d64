"""What looks after restricted code while it runs: attribute access, class creation, and stand-ins for the builtins
that would reach too far. A guard trusts types only, for whatever else an object says of itself may be a lie."""

import _string  # type: ignore[import-not-found]
import asyncio
import builtins
import decimal
import enum
import string
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from mcpgate_guest import calls, program
from RestrictedPython.transformer import INSPECT_ATTRIBUTES

from mcpgate_sandbox.restriction import policy

_own_classes: set[type] = set()
"""Classes that the code itself defined."""

_UNREACHABLE = (
    *(types.ModuleType, types.FrameType, types.CodeType, types.TracebackType, types.CellType),
    *(asyncio.Future, asyncio.AbstractEventLoop, asyncio.Handle, typing.ForwardRef),
)
"""Never a value of restricted code, however it is come by."""
_WITHOUT_TYPE = (
    *_UNREACHABLE,
    *(calls.Server, calls.Tool, calls.Pending, program.Stream),
    *(types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.GeneratorType, types.CoroutineType),
    *(types.AsyncGeneratorType, types.MethodWrapperType, types.WrapperDescriptorType, types.MethodDescriptorType),
    *(types.ClassMethodDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType),
)
"""Values whose type is given as a name only: calling it would make another one."""


def own(cls: type) -> type:
    """Count a class as the code's own: its underscored attributes may be read, its attributes written. Raises
    TypeError."""
    _own_classes.add(fields_checked(cls))
    return cls


def _is_own(thing: object) -> bool:
    kind = type(thing)
    if kind in _own_classes:
        return True
    return isinstance(thing, type) and issubclass(kind, type) and thing in _own_classes


def is_own_class(cls: type) -> bool:
    """Whether the code defined this class itself."""
    return cls in _own_classes


_BUILTIN_TYPES = frozenset(value for value in vars(builtins).values() if type(value) is type) - {type}


def _check_name(thing: object, name: object) -> str:
    """The name of an attribute that may be looked up. Raises AttributeError, TypeError."""
    if type(name) is not str:
        raise TypeError("attribute name must be string")
    if isinstance(thing, _UNREACHABLE):
        raise AttributeError(f"nothing of a {type(thing).__name__} is available in the restricted engine")
    if name.startswith("_") and not _may_read(thing, name):
        raise AttributeError(f"the attribute {name!r} is not available in the restricted engine")
    if name in INSPECT_ATTRIBUTES or name in policy.EVALUATING or (name in policy.STEPPING and _is_coroutine(thing)):
        raise AttributeError(f"the attribute {name!r} is not available in the restricted engine")
    return name


def _is_coroutine(thing: object) -> bool:
    return isinstance(thing, (types.CoroutineType, types.AsyncGeneratorType))


def _may_read(thing: object, name: str) -> bool:
    if name in policy.DEFINABLE:
        # A class of the library or of ours, handed a stranger as `self`, could do what code cannot.
        mine = _is_own(thing) or type(thing) is super
        return mine or type(thing) in _BUILTIN_TYPES or (isinstance(thing, type) and thing in _BUILTIN_TYPES)
    if name in policy.READABLE:
        return True
    if name.startswith("__") and name.endswith("__"):
        return name == "__dict__" and type(thing) in _own_classes
    if name in policy.UNDERSCORED and isinstance(thing, (tuple, type)):
        return True
    if not _is_own(thing):
        return False
    # What a class of the library or of ours brings along stays private, also for classes that inherit from it.
    return all(_is_plain(cls) for cls in (thing if isinstance(thing, type) else type(thing)).__mro__)


def _is_plain(cls: type) -> bool:
    """Whether instances hold nothing beyond what code put there."""
    if cls in _own_classes or cls in _BUILTIN_TYPES:
        return True
    return cls.__name__ in policy.HARMLESS_BASES and cls.__module__.partition(".")[0] in sys.stdlib_module_names


def _checked(value: Any) -> Any:
    """A value that came out of an attribute."""
    if isinstance(value, _UNREACHABLE):
        raise AttributeError("this attribute is not available in the restricted engine")
    kind = type(value)
    if kind is types.BuiltinMethodType and isinstance(value.__self__, str):
        if value.__name__ == "format":
            return _SafeFormat(value.__self__).format
        if value.__name__ == "format_map":
            return _SafeFormat(value.__self__).format_map
    elif value is str.format:
        return lambda template, /, *args, **kwargs: _SafeFormat(_text(template)).format(*args, **kwargs)
    elif value is str.format_map:
        return lambda template, /, mapping: _SafeFormat(_text(template)).format_map(mapping)
    elif kind is types.MappingProxyType:
        return dict(value)  # comparing one hands out the dict behind it
    return type_ if value is type else value


def getattr_(thing: Any, name: Any, *default: Any) -> Any:
    """getattr(), for code."""
    checked = _check_name(thing, name)
    if checked == "__class__":
        return type_(thing)
    return _checked(getattr(thing, checked, *default))


def hasattr_(thing: Any, name: str) -> bool:
    try:
        getattr_(thing, name)
    except AttributeError:
        return False
    return True


def write_(thing: Any, name: str) -> Any:
    """The object whose attribute `name` is about to be written. Raises TypeError if it is not the code's own."""
    if type(name) is not str or (name.startswith("_") and not _may_read(thing, name)) or name.endswith("__"):
        raise AttributeError(f"the attribute {name!r} cannot be changed in the restricted engine")
    if _is_own(thing) or type(thing) in _WRITABLE:
        return thing
    if type(thing) is types.FunctionType and thing.__code__.co_filename == "<code>":
        return thing
    if isinstance(thing, BaseException) and not name.startswith("_"):
        return thing
    raise TypeError(f"attributes of {type(thing).__name__!r} cannot be changed in the restricted engine")


def setattr_(thing: Any, name: str, value: Any) -> None:
    setattr(write_(thing, name), name, value)


def delattr_(thing: Any, name: str) -> None:
    delattr(write_(thing, name), name)


def dir_(thing: Any) -> list[str]:
    return [name for name in dir(thing) if not name.startswith("_") and name not in INSPECT_ATTRIBUTES]


def vars_(thing: Any) -> dict[str, Any]:
    if type(thing) not in _own_classes and type(thing) is not SimpleNamespace:
        raise TypeError("vars() takes an instance of one of the code's own classes here")
    return dict(vars(thing))


class _AnyType(type):
    def __instancecheck__(cls, thing: object) -> bool:
        return isinstance(thing, type)

    def __subclasscheck__(cls, kind: type) -> bool:
        return kind is cls or issubclass(kind, type)

    def __repr__(cls) -> str:
        return "<class 'type'>"


class type_(metaclass=_AnyType):
    """type() with one argument, for code: the types of functions, frames and the like are names only."""

    def __new__(cls, thing: Any) -> Any:  # it is no constructor, as type() is none
        kind = type(thing)
        if issubclass(kind, type):
            return type_
        if kind.__module__.startswith("mcpgate_sandbox"):
            return _NamedOnly(kind.__name__)
        return _NamedOnly(kind.__name__) if isinstance(thing, _WITHOUT_TYPE) else kind


class _NamedOnly:
    __slots__ = ("__name__",)

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _NamedOnly) and other.__name__ == self.__name__

    def __hash__(self) -> int:
        return hash(self.__name__)

    def __repr__(self) -> str:
        return f"<class {self.__name__!r}>"


def build_class(function: Any, name: str, *bases: Any, **keywords: Any) -> Any:
    """`__build_class__`, for code."""
    bases = tuple(typing.NamedTuple if base is named_tuple else base for base in bases)
    if any(base is type_ or (isinstance(base, type) and issubclass(base, type)) for base in types.resolve_bases(bases)):
        raise TypeError("metaclasses are not available in the restricted engine")
    made = builtins.__build_class__(function, name, *bases, **keywords)
    if not isinstance(made, type):
        return made
    if issubclass(made, type):
        raise TypeError("metaclasses are not available in the restricted engine")
    written = set(function.__code__.co_names) & vars(made).keys()
    private = {key for key in written if key.startswith("_") and not key.endswith("__")}
    if private and not all(_is_plain(cls) for cls in made.__mro__[1:]):
        raise TypeError(f"a class that inherits from the library cannot have {min(private)!r} in the restricted engine")
    return own(made)


def fields_checked(cls: type) -> type:
    """A class whose fields patterns may look up. Raises TypeError for fields called like what guards look after:
    a pattern finds them in whatever passes for an instance of the class."""
    for name in getattr(cls, "__match_args__", ()):
        field_checked(name)
        if name.startswith("_"):
            raise TypeError(f"a field that patterns look up cannot be called {name!r} in the restricted engine")
    return cls


def field_checked(name: Any) -> None:
    """The name of a field. Raises TypeError."""
    if not isinstance(name, str) or name.startswith("__") or name in policy.NOT_IN_PATTERNS | INSPECT_ATTRIBUTES:
        raise TypeError(f"a field cannot be called {name!r} in the restricted engine")


class _EnumMeta(enum.EnumMeta):
    """Enums by class statements only: the functional way would take any name for a member."""

    def __call__(cls, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not cls.__members__:
            raise TypeError("enums are made by class statements in the restricted engine")
        return super().__call__(value, *args, **kwargs)


class Enum(enum.Enum, metaclass=_EnumMeta):
    pass


class IntEnum(enum.IntEnum, metaclass=_EnumMeta):
    pass


class StrEnum(enum.StrEnum, metaclass=_EnumMeta):
    pass


class Flag(enum.Flag, metaclass=_EnumMeta):
    pass


class IntFlag(enum.IntFlag, metaclass=_EnumMeta):
    pass


class _NamedTuple:
    """typing.NamedTuple, for code: as a base class or called."""

    def __call__(self, typename: str, fields: Any = ()) -> type:
        made: Any = typing.NamedTuple(typename, list(fields))  # type: ignore[misc]
        return fields_checked(made)

    def __mro_entries__(self, bases: Any) -> Any:
        raise TypeError("NamedTuple is a base of class statements only")


named_tuple = _NamedTuple()


class SimpleNamespace(types.SimpleNamespace):
    """types.SimpleNamespace, without attributes that libraries would take for special ones."""

    def __init__(self, /, **names: Any) -> None:
        if special := [name for name in names if name.startswith("__")]:
            raise TypeError(f"the name {special[0]!r} is reserved")
        super().__init__(**names)


_WRITABLE = (SimpleNamespace, decimal.Context, ElementTree.Element)
"""Types of the standard library whose attributes are there to be written."""


class _SafeFormat:
    """str.format whose fields look attributes up as code does."""

    def __init__(self, template: str) -> None:
        self._template = template

    def format(self, /, *args: Any, **kwargs: Any) -> str:
        return _Formatter().vformat(self._template, args, kwargs)

    def format_map(self, mapping: Mapping[str, Any]) -> str:
        return _Formatter().vformat(self._template, (), mapping)


class _Formatter(string.Formatter):
    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        first, rest = _string.formatter_field_name_split(field_name)
        found = self.get_value(first, args, kwargs)
        for is_attribute, key in rest:
            found = getattr_(found, key) if is_attribute else found[key]
        return found, first


def _text(template: object) -> str:
    if not isinstance(template, str):
        raise TypeError("format() needs a str")
    return template


def _no_files(*_: object, **__: object) -> Any:
    raise PermissionError("there are no files in the sandbox; use a server's tools to read and write them")


def restricted_builtins(import_: Callable[..., Any], variables: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The builtins of restricted code; `variables` gives its globals."""

    def globals_() -> dict[str, Any]:
        return {name: value for name, value in variables().items() if not name.startswith("_")}

    found = {name: getattr(builtins, name) for name in policy.BUILTINS}
    found |= {
        name: value
        for name, value in vars(builtins).items()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    stand_ins: dict[str, Any] = {
        **{"getattr": getattr_, "hasattr": hasattr_, "setattr": setattr_, "delattr": delattr_},
        **{"dir": dir_, "vars": vars_, "type": type_, "open": _no_files, "globals": globals_},
        **{"__import__": import_, "__build_class__": build_class, "_getattr_": getattr_, "_write_": write_},
    }
    return found | stand_ins
