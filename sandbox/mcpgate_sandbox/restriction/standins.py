"""Stand-ins for functions of the standard library that look up, set or copy attributes without asking a guard."""

import collections
import contextlib
import dataclasses as std_dataclasses
import enum
import functools
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any

from mcpgate_sandbox.restriction.guards import (
    SimpleNamespace,
    field_checked,
    fields_checked,
    getattr_,
    is_own_class,
    own,
)


def attrgetter(*names: str) -> Callable[[Any], Any]:
    """operator.attrgetter, for code."""

    def walk(thing: Any, dotted: str) -> Any:
        for name in dotted.split("."):
            thing = getattr_(thing, name)
        return thing

    if not names or not all(type(name) is str for name in names):
        raise TypeError("attribute name must be a string")
    if len(names) == 1:
        return lambda thing: walk(thing, names[0])
    return lambda thing: tuple(walk(thing, name) for name in names)


def methodcaller(name: str, /, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
    """operator.methodcaller, for code."""
    return lambda thing: getattr_(thing, name)(*args, **kwargs)


def dataclass(cls: Any = None, /, **options: Any) -> Any:
    """dataclasses.dataclass, for classes of the code's own."""

    def make(cls: type) -> type:
        if not is_own_class(cls):
            raise TypeError("dataclass() takes a class of the code's own in the restricted engine")
        if issubclass(cls, dict):
            raise TypeError("a dict cannot be a dataclass in the restricted engine")  # its keys may be no names
        private = any(name.startswith("_") for base in cls.__mro__ for name in vars(base).get("__annotations__", ()))
        chosen = {**options, "match_args": False} if private else options
        made: type = std_dataclasses.dataclass(**chosen)(cls)
        for field in std_dataclasses.fields(made):
            field_checked(field.name)
        for name, value in list(vars(made).items()):
            if type(value) is types.FunctionType and not _is_own_function(value):
                setattr(made, name, _for_instances(made, value))
        # With slots=True it is another class than the one that was written.
        return own(made)

    return make if cls is None else make(cls)


def _for_instances(cls: type, generated: Any) -> Any:
    """A method that was generated, for instances of its class only: it reads and writes without asking a guard."""

    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        if cls not in type(self).__mro__:
            raise TypeError(f"{generated.__name__} needs an instance of {cls.__name__}")
        return generated(self, *args, **kwargs)

    method.__name__ = generated.__name__
    return method


def _is_own_function(thing: Any) -> bool:
    return type(thing) is types.FunctionType and thing.__code__.co_filename == "<code>"


@contextlib.contextmanager
def redirect_stdout(target: Any) -> Iterator[Any]:
    """contextlib.redirect_stdout, without a class to inherit from."""
    before, sys.stdout = sys.stdout, target
    try:
        yield target
    finally:
        sys.stdout = before


@contextlib.contextmanager
def redirect_stderr(target: Any) -> Iterator[Any]:
    """contextlib.redirect_stderr, likewise."""
    before, sys.stderr = sys.stderr, target
    try:
        yield target
    finally:
        sys.stderr = before


def format_exc() -> str:
    """traceback.format_exc, with the code's own lines only."""
    error = sys.exc_info()[1]
    if error is None:
        return "NoneType: None\n"
    told = traceback.TracebackException.from_exception(error)
    told.stack = traceback.StackSummary.from_list([frame for frame in told.stack if frame.filename == "<code>"])
    told.__cause__ = told.__context__ = None
    return "".join(told.format())


def print_exc() -> None:
    """traceback.print_exc, likewise."""
    print(format_exc(), end="", file=sys.stderr)


def namedtuple(typename: str, field_names: Any, **options: Any) -> type:
    """collections.namedtuple, for code."""
    return fields_checked(collections.namedtuple(typename, field_names, **options))


def total_ordering(cls: type) -> type:
    """functools.total_ordering, for classes of the code's own."""
    if not is_own_class(cls):
        raise TypeError("total_ordering() takes a class of the code's own in the restricted engine")
    return functools.total_ordering(cls)


def wraps(wrapped: Any) -> Callable[[Any], Any]:
    """functools.wraps, for functions of the code's own: takes over name and docstring."""

    def decorate(wrapper: Any) -> Any:
        if _is_own_function(wrapper):
            for name in ("__name__", "__qualname__", "__doc__"):
                if isinstance(value := getattr(wrapped, name, None), str):
                    setattr(wrapper, name, value)
        return wrapper

    return decorate


def copy(thing: Any) -> Any:
    """copy.copy, for data and for objects of the code's own classes. What the objects say of copying is not asked."""
    kind = type(thing)
    if kind in _CONTAINERS:
        return thing.copy() if hasattr(kind, "copy") else thing
    if is_own_class(kind) or kind is SimpleNamespace:
        return _rebuilt(thing, lambda value: value)
    return thing


def deepcopy(thing: Any, memo: Any = None) -> Any:
    """copy.deepcopy, on the same terms."""
    return _deeply(thing, {})


_CONTAINERS: tuple[type, ...] = (
    *(list, dict, set, tuple, frozenset, bytearray, collections.deque),
    *(collections.OrderedDict, collections.Counter, collections.defaultdict),
)


def _deeply(thing: Any, done: dict[int, Any]) -> Any:
    if id(thing) in done:
        return done[id(thing)][0]
    kind = type(thing)
    made: Any
    if kind in (tuple, set, frozenset):
        made = kind([_deeply(item, done) for item in thing])
    elif kind in (list, collections.deque):
        made = [] if kind is list else collections.deque(maxlen=thing.maxlen)
        done[id(thing)] = (made, thing)
        made.extend(_deeply(item, done) for item in thing)
    elif kind in _CONTAINERS and issubclass(kind, dict):
        made = collections.defaultdict(thing.default_factory) if kind is collections.defaultdict else kind()
        done[id(thing)] = (made, thing)
        for key, value in dict.items(thing):
            dict.__setitem__(made, _deeply(key, done), _deeply(value, done))
    elif kind is bytearray:
        made = bytearray(thing)
    elif is_own_class(kind) or kind is SimpleNamespace:
        made = _rebuilt(
            thing, lambda value: _deeply(value, done), lambda new: done.__setitem__(id(thing), (new, thing))
        )
    else:
        return thing
    done[id(thing)] = (made, thing)
    return made


def _rebuilt(thing: Any, of: Callable[[Any], Any], began: Callable[[Any], None] = lambda _: None) -> Any:
    """An object of the same class whose attributes and items are `of` the old ones."""
    kind: Any = type(thing)
    if isinstance(thing, (enum.Enum, type)):
        return thing
    base: Any = next((b for b in (tuple, frozenset, str, bytes, int, float) if issubclass(kind, b)), None)
    new = (
        base.__new__(kind, base(of(list(thing)) if base in (tuple, frozenset) else thing))
        if base
        else kind.__new__(kind)
    )
    began(new)
    if issubclass(kind, dict):
        dict.update(new, {of(k): of(v) for k, v in dict.items(thing)})
    elif issubclass(kind, list):
        list.extend(new, [of(item) for item in list.__iter__(thing)])
    elif issubclass(kind, set):
        set.update(new, [of(item) for item in set.__iter__(thing)])
    for name, value in vars(thing).items() if hasattr(thing, "__dict__") else ():
        new.__dict__[name] = of(value)
    for cls in kind.__mro__:
        for name in (slots,) if isinstance(slots := vars(cls).get("__slots__", ()), str) else slots:
            if is_own_class(cls) and name != "__dict__" and hasattr(thing, name):
                object.__setattr__(new, name, of(getattr(thing, name)))
    return new
