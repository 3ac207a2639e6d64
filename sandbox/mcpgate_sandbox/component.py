"""Finds the guest component and gives back native code for it, compiled once and cached.

The cache file is loaded like a shared library, so it is only ever read from a folder that belongs to
this user and nobody else can write, and only with the checksum that its writer put beside it.
"""

import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import filelock
import platformdirs
import wasmtime
from wasmtime import Config, Engine
from wasmtime import _ffi as ffi
from wasmtime.component import Component

from mcpgate_sandbox.errors import SandboxUnavailable

COMPONENT = Path(__file__).with_name("guest.wasm")
MAX_WASM_STACK = 32 * 1024 * 1024
"""Bytes; deep enough that recursion in C code (repr, json, pickle) ends as RecursionError, not as a trap."""
THREAD_STACK = 2 * MAX_WASM_STACK
"""Bytes of native stack for a thread that runs a guest: the Wasm stack lives on it."""
LOCK = "WebAssembly: only the functions of guest/world.wit, two clocks and random bytes are linked"
_SETTINGS = f"epoch,stack={MAX_WASM_STACK}"


def new_engine() -> Engine:
    """The one configuration that code is compiled for and run with."""
    config = Config()
    config.epoch_interruption = True
    config.max_wasm_stack = MAX_WASM_STACK
    # wasmtime aborts the whole process if the Wasm stack does not fit the (unused) async one.
    ffi.wasmtime_config_async_stack_size_set(config.ptr(), THREAD_STACK)
    return Engine(config)


def load(engine: Engine, progress: Callable[[str], None] | None = None) -> Component:
    """The compiled component. Compiles in a child process when the cache has none (10–60 s, once; in a
    child because it needs half a gigabyte that would never come back). Raises SandboxUnavailable."""
    return _find(engine, progress)[0]


def prepare(progress: Callable[[str], None] | None = None) -> Path:
    """Compile the component if need be, and say in which cache folder it lies, for `MCPGATE_CACHE_DIR` of a child
    process. Raises SandboxUnavailable."""
    return _find(new_engine(), progress)[1]


def _find(engine: Engine, progress: Callable[[str], None] | None) -> tuple[Component, Path]:
    if not COMPONENT.exists():
        raise SandboxUnavailable(
            f"the sandbox component {COMPONENT.name} is not built; run `mcpgate sandbox build` "
            "(needs `pip install componentize-py tzdata`) or install a wheel, which carries it"
        )
    digest = _component_digest()
    tried = []
    for folder in _cache_folders():
        try:
            _make_private(folder)
            return _load_from(folder, digest, engine, progress), folder
        except (OSError, wasmtime.WasmtimeError) as error:
            tried.append(f"{folder}: {error}")
    raise SandboxUnavailable("the sandbox could not be compiled; tried " + "; ".join(tried))


def _load_from(folder: Path, digest: str, engine: Engine, progress: Callable[[str], None] | None) -> Component:
    key = f"{digest}|{version('wasmtime')}|{_SETTINGS}|{platform.machine()}|{sys.platform}"
    target = folder / f"guest-{hashlib.sha256(key.encode()).hexdigest()[:24]}.cwasm"
    if (component := _open_verified(target, engine)) is not None:
        return component
    with filelock.FileLock(target.with_suffix(".lock")):
        # Somebody else may have compiled it while we waited for the lock.
        if (component := _open_verified(target, engine)) is not None:
            return component
        _compile(target, progress)
        if (component := _open_verified(target, engine)) is None:
            raise OSError("the file that was just compiled does not load")
        _forget_old(folder, target)
        return component


def _open_verified(target: Path, engine: Engine) -> Component | None:
    try:
        expected = target.with_suffix(".sha256").read_text()
        with target.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                return None
    except OSError:
        return None
    try:
        return Component.deserialize_file(engine, str(target))
    except wasmtime.WasmtimeError:
        try:
            return Component.deserialize(engine, target.read_bytes())  # a cache folder mounted noexec
        except wasmtime.WasmtimeError:
            return None


def _compile(target: Path, progress: Callable[[str], None] | None) -> None:
    say = progress or (lambda _: None)
    began = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-I", str(Path(__file__).with_name("compile_child.py")), str(COMPONENT), str(target)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    )
    errors: list[str] = []

    def read_errors() -> None:
        if child.stderr is not None:
            with child.stderr:
                errors.append(child.stderr.read())

    reader = threading.Thread(target=read_errors, daemon=True)
    reader.start()
    try:
        while child.poll() is None:
            say(f"compiling the sandbox for this machine, once: {time.monotonic() - began:.0f} s")
            try:
                child.wait(1)
            except subprocess.TimeoutExpired:
                continue
    except BaseException:
        child.kill()
        child.wait()
        raise
    reader.join(5)
    if child.returncode != 0:
        raise OSError(f"compiling failed with exit code {child.returncode}: {''.join(errors).strip()[-500:]}")
    say(f"sandbox compiled in {time.monotonic() - began:.0f} s")


def _component_digest() -> str:
    # The build writes the digest beside the component; hashing 40 MB at every start would cost more than loading.
    stat = COMPONENT.stat()
    try:
        digest, size = COMPONENT.with_suffix(".sha256").read_text().split()
        if int(size) == stat.st_size:
            return digest
    except (OSError, ValueError):
        pass
    with COMPONENT.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cache_folders() -> list[Path]:
    """Where compiled code may lie, best first."""
    chosen = os.environ.get("MCPGATE_CACHE_DIR")
    first = Path(chosen) if chosen else Path(platformdirs.user_cache_dir("mcpgate"))
    owner = str(os.getuid()) if hasattr(os, "getuid") else "user"
    return [first, Path(tempfile.gettempdir()) / f"mcpgate-{owner}"]


def _make_private(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if hasattr(os, "getuid"):
        status = folder.stat()
        if status.st_uid != os.getuid():
            raise PermissionError("belongs to another user")
        if status.st_mode & 0o022:
            folder.chmod(0o700)
            for planted in folder.glob("guest-*"):  # until now, anybody could have put it there
                planted.unlink()
    probe = folder / f".probe-{os.getpid()}-{threading.get_ident()}"
    probe.touch()
    probe.unlink()


def _forget_old(folder: Path, keep: Path) -> None:
    """Remove compiled files of other versions that nobody has used for a month."""
    for old in folder.glob("guest-*.cwasm"):
        try:
            if old != keep and time.time() - old.stat().st_atime > 30 * 86400:
                for suffix in (".cwasm", ".sha256", ".lock"):
                    old.with_suffix(suffix).unlink(missing_ok=True)
        except OSError:
            continue
