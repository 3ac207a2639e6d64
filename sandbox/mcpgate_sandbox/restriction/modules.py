"""Stand-ins for modules: objects that hold the listed names and nothing else. No real module is ever handed out."""

import codecs
import importlib
import sys
import types
import zoneinfo
from collections.abc import Sequence
from typing import Any

from mcpgate_guest import program, stdlib

from mcpgate_sandbox.restriction import guards, policy, standins, tasks


class Module:
    """A module as restricted code sees it. It has no `__name__`: with one, `from json import decoder` would look
    the real `json.decoder` up in `sys.modules`."""

    def __init__(self, about: str, names: dict[str, Any]) -> None:
        self.__dict__.update(names)
        self.__dict__["_about"] = about

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{self._about} has no attribute {name!r} in the restricted engine")

    def __dir__(self) -> list[str]:
        return sorted(name for name in self.__dict__ if not name.startswith("_"))

    def __repr__(self) -> str:
        return f"<module {self._about}>"


_modules: dict[str, Module] = {}


def load_all() -> None:
    """Make every stand-in. In the process that children come from, before it forks."""
    for name, listed in policy.MODULES.items():
        module = importlib.import_module(name)
        public = [n for n in dir(module) if not n.startswith("_")] if listed == "*" else listed.split()
        names = {n: getattr(module, n) for n in public if hasattr(module, n)}
        _modules[name] = Module(name, {n: v for n, v in names.items() if not isinstance(v, types.ModuleType)})
    for name, stand_in in _modules.items():  # submodules, as far as they are listed
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(_modules[parent], child, stand_in)
    vars(_modules["operator"]).update(attrgetter=standins.attrgetter, methodcaller=standins.methodcaller)
    vars(_modules["dataclasses"]).update(dataclass=standins.dataclass)
    vars(_modules["collections"]).update(namedtuple=standins.namedtuple)
    vars(_modules["functools"]).update(total_ordering=standins.total_ordering, wraps=standins.wraps)
    vars(_modules["types"]).update(SimpleNamespace=guards.SimpleNamespace)
    vars(_modules["typing"]).update(NamedTuple=guards.named_tuple)
    vars(_modules["contextlib"]).update(
        redirect_stdout=standins.redirect_stdout, redirect_stderr=standins.redirect_stderr
    )
    vars(_modules["enum"]).update(
        {kind.__name__: kind for kind in (guards.Enum, guards.IntEnum, guards.StrEnum, guards.Flag, guards.IntFlag)}
    )
    _modules["traceback"] = Module("traceback", {"format_exc": standins.format_exc, "print_exc": standins.print_exc})
    _modules["copy"] = Module("copy", {"copy": standins.copy, "deepcopy": standins.deepcopy})
    _modules["asyncio"] = Module("asyncio", tasks.NAMES)
    _modules["sys"] = Module("sys", _sys())
    stdlib.use_zones(_zones())
    for name in policy.INTERPRETERS_OWN:
        importlib.import_module(name)
    for name in policy.ENCODINGS.split():
        codecs.lookup(name)


def get(name: str) -> Module:
    return _modules[name]


def available() -> tuple[list[str], list[str]]:
    """Top-level modules that code can import, and those of the standard library that it cannot."""
    here = sorted({name.partition(".")[0] for name in _modules})
    return here, sorted(n for n in sys.stdlib_module_names if n not in here and not n.startswith("_"))


def import_(name: str, globals: Any = None, locals: Any = None, fromlist: Sequence[str] = (), level: int = 0) -> Any:
    """`__import__`, for code."""
    if type(name) is str and name in policy.INTERPRETERS_OWN:
        return Module(name, {})
    if type(name) is not str or level or name not in _modules:
        raise ModuleNotFoundError(f"no module named {name!r} in the restricted engine", name=str(name))
    module = _modules[name if fromlist else name.partition(".")[0]]
    for wanted in fromlist or ():
        if wanted != "*" and not hasattr(module, wanted):
            here = ", ".join(dir(module)[:60])
            raise ImportError(f"{name} has no {wanted!r} in the restricted engine; it has {here}", name=name)
    return module


def _sys() -> dict[str, Any]:
    names: tuple[str, ...] = (
        "byteorder",
        "float_info",
        "int_info",
        "maxsize",
        "maxunicode",
        "version",
        "version_info",
        "getsizeof",
    )
    names += ("get_int_max_str_digits", "set_int_max_str_digits")
    return {
        **{name: getattr(sys, name) for name in names},
        **{"exit": sys.exit, "stdout": program.stdout, "stderr": program.stderr},
    }


def _zones() -> dict[str, bytes]:
    """All time zones of this machine, for a child cannot read them."""
    found: dict[str, bytes] = {}
    for key in zoneinfo.available_timezones():
        for root in zoneinfo.TZPATH:
            try:
                with open(f"{root}/{key}", "rb") as file:
                    found[key] = file.read()
                break
            except OSError:
                continue
    return found
