"""The standard library as the guest has it: imports all of it into the snapshot, gives `zoneinfo` its
data, and lists what is there."""

import importlib
import io
import os
import pkgutil
import sys

SKIPPED = frozenset(
    (
        "antigravity this idlelib turtle turtledemo test lib2to3 ensurepip venv pydoc_data tkinter webbrowser "
        "pdb bdb cProfile profile pstats tracemalloc faulthandler __phello__ __hello__ pty tty nntplib smtpd "
        "ossaudiodev nis msilib crypt"
    ).split()
)
"""Modules left out: they need a screen, a process or a file system, or only grow the snapshot."""

AVAILABLE: list[str] = []
"""Top-level standard modules that import here, sorted."""

MISSING: list[str] = []
"""Top-level standard modules that do not."""

_ZONES: dict[str, bytes] = {}


def import_all() -> None:
    """Import every standard module that can be imported, with its submodules. Build time only."""
    for name in sorted(sys.stdlib_module_names - SKIPPED):
        _import_with_submodules(name)
    import zone_data  # type: ignore[import-not-found]  # written by recipe.py

    use_zones(zone_data.ZONES)
    _explain_network()
    # The machine that built the component has no business in the guest.
    os.environ.clear()
    sys.path[:] = []
    sys.path_importer_cache.clear()
    for name in sorted(sys.stdlib_module_names):
        if not name.startswith("_"):
            # Some of the skipped ones are there all the same: others need them, or they are built in.
            there = name in sys.modules or name in sys.builtin_module_names
            (AVAILABLE if there else MISSING).append(name)


def _import_with_submodules(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except BaseException:
        return
    for info in pkgutil.iter_modules(getattr(module, "__path__", [])):
        if info.name not in {"__main__", "test", "tests", "idle_test"}:
            _import_with_submodules(f"{name}.{info.name}")


def _explain_network() -> None:
    """Without this the first use of a socket would be a trap, which ends the execution without a word about why."""
    import socket

    def refuse(*_: object, **__: object) -> None:
        raise OSError("the sandbox has no network; call the tools of the servers instead")

    socket.socket.__init__ = refuse  # type: ignore[method-assign]
    for name in "getaddrinfo gethostbyname gethostbyname_ex gethostbyaddr getnameinfo create_connection".split():
        setattr(socket, name, refuse)


def use_zones(zones: dict[str, bytes]) -> None:
    """Give `zoneinfo` its data, by name of the zone: there are no files to read it from."""
    import zoneinfo
    from zoneinfo import _common

    _ZONES.update(zones)

    def load_tzdata(key: str) -> io.BytesIO:
        try:
            return io.BytesIO(_ZONES[key])
        except KeyError:
            raise zoneinfo.ZoneInfoNotFoundError(f"No time zone found with key {key}") from None

    _common.load_tzdata = load_tzdata
    zoneinfo.reset_tzpath(())
    zoneinfo.available_timezones = lambda: set(_ZONES)
