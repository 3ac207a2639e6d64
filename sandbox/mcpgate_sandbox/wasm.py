"""Engine 1: CPython in a Wasm component under wasmtime.

A guest reaches four host functions (`submit`, `poll`, `call`, `emit`: guest/world.wit), two clocks and
random bytes. Nothing else of WASI is linked: any further import is a trap. One guest runs in one thread,
where every host function and every tick of the epoch finds it by thread; what the four functions do is
the host's half (host.py) or, in a child process, a wire to it (child.py).
"""

import ctypes
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Literal, Protocol

import orjson
from wasmtime import Engine as WasmtimeEngine
from wasmtime import Store, WasmtimeError
from wasmtime import _ffi as ffi
from wasmtime.component import Component, Linker

from mcpgate_sandbox import component as artefact
from mcpgate_sandbox.engine import Outcome
from mcpgate_sandbox.errors import Crashed, LimitReached, SandboxError, SandboxUnavailable
from mcpgate_sandbox.host import Border, Call, Violation
from mcpgate_sandbox.pool import PooledEngine, Progress
from mcpgate_sandbox.recycle import MAPPING, Memory, NotRenewable, Recycler
from mcpgate_sandbox.sessions import MIB, SessionLimits
from mcpgate_sandbox.slots import QueueLimits

log = logging.getLogger("mcpgate_sandbox.wasm")
TICK_S = 0.005
"""How often a running guest is looked at."""
_TICKING_ON_S = 0.5
"""How long the ticker goes on after the last execution, so that not every short one has to wake it."""
_IDLE_TICK_S = 0.02
"""How often it then looks whether one has begun; most end before a first tick."""
_STRING, _U64, _LIST, _RECORD, _OPTION, _U8 = (
    getattr(ffi, f"WASMTIME_COMPONENT_{name}").value for name in ["STRING", "U64", "LIST", "RECORD", "OPTION", "U8"]
)


class WasmEngine(PooledEngine):
    """CPython in Wasm, in the process of its host."""

    name = "wasm"

    def __init__(
        self,
        *,
        warm: int | None = None,
        max_executions: int = 32,
        sessions: SessionLimits = SessionLimits(),  # noqa: B008  it is frozen
        queue: QueueLimits = QueueLimits(),  # noqa: B008
        recycle: Literal["auto", "off"] = "auto",
    ) -> None:
        """As PooledEngine. `recycle`: auto renews used guests in place where the kernel helps (Linux 6.7 or later);
        off throws each away."""
        super().__init__(
            warm=warm,
            max_executions=max_executions,
            sessions=sessions,
            queue=queue,
            stack_bytes=artefact.THREAD_STACK,
        )
        self._recycle = recycle

    def load(self, progress: Progress | None) -> "Runtime":
        runtime = Runtime(progress)
        if self._recycle == "auto":
            runtime.recycle()
        return runtime


class Runtime:
    """What all guests of a process share: engine, component, linker, ticker."""

    recycler: "Recycler[WasmInstance] | None" = None
    """What renews guests, if they are to be renewed."""

    def __init__(self, progress: Progress | None = None) -> None:
        self.engine = artefact.new_engine()
        self.component = artefact.load(self.engine, progress)
        self.linker = _link(self.engine, self.component)
        self.run_index = self.component.get_export_index("run")
        self.ticker = _Ticker(self.engine)

    def recycle(self) -> None:
        """Make guests from now on that can be renewed, where that is possible. Not for a process that forks."""
        if sys.platform != "linux":
            return
        try:
            self.recycler = Recycler(lambda: WasmInstance(self), WasmInstance.rehearse)
        except (NotRenewable, OSError) as error:
            log.info("guests are not renewed but made anew: %s", error)

    def new_guest(self, warm: bool) -> "_Guest":
        instance, memory = self.recycler.made() if self.recycler is not None else (WasmInstance(self), None)
        guest = _Guest(instance, self.ticker, memory)
        if warm:
            instance.rehearse()
            guest.renew()  # its pages are in place now, and it is as if nothing had run
        return guest

    def modules(self) -> tuple[list[str], list[str]]:
        """Asked of a fresh guest."""
        instance = WasmInstance(self)
        try:
            found = orjson.loads(instance.enter("", '{"stdlib":true}', None))["result"]
        finally:
            instance.close()
        return found["available"], found["missing"]

    def locks(self) -> list[str]:
        use = "renewed in place after a clean end: its memory is put back" if self.recycler else "used once"
        return [
            artefact.LOCK,
            f"each guest is {use}",
        ]

    def close(self) -> None:
        pass


class _Ticker:
    """Moves the engine's epoch on while any guest runs, so that every guest is looked at each tick."""

    def __init__(self, engine: WasmtimeEngine) -> None:
        self._engine, self._running = engine, 0
        self._last_used = 0.0
        self._parked = True
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> None:
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._tick, name="mcpgate-ticker", daemon=True)
                self._thread.start()
            self._running += 1
            if self._parked:
                self._changed.notify()

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._running -= 1
            self._last_used = time.monotonic()

    def _tick(self) -> None:
        while True:
            with self._changed:
                while self._running == 0 and time.monotonic() - self._last_used > _TICKING_ON_S:
                    self._parked = True
                    self._changed.wait()
                self._parked = False
                running = self._running
            time.sleep(TICK_S if running else _IDLE_TICK_S)
            if running:
                self._engine.increment_epoch()


class _Guest:
    """A Wasm instance in the host's own process."""

    def __init__(self, instance: "WasmInstance", ticker: _Ticker, memory: Memory | None) -> None:
        """`memory`: the instance's own, if it can be renewed."""
        self.instance, self.memory, self._ticker = instance, memory, ticker
        self._renewed = False

    @property
    def usable(self) -> bool:
        doubtful = self._renewed and self.memory is not None and not self.memory.trusted
        return self.instance.usable and not doubtful

    def run(self, call: Call) -> Outcome:
        execution = call.execution
        self.instance.limit_memory(execution.limits.memory_mib)
        try:
            with self._ticker:
                call.begin(time.thread_time)
                options = orjson.dumps({"servers": list(execution.servers), "mark": call.mark}).decode()
                return call.finished(self.instance.enter(execution.code, options, call))
        except SandboxError as reason:
            self.instance.usable = False
            return call.failed(reason)
        except Exception as trap:
            self.instance.usable = False
            return call.failed(call.stopped or explain(trap, execution.limits.memory_mib))

    @property
    def renewable(self) -> bool:
        return self.memory is not None and self.usable

    def renew(self) -> bool:
        if self.memory is None or not self.usable:
            return False
        try:
            self.memory.renew()
        except NotRenewable:
            self.instance.usable = False
            return False
        self._renewed = True
        return True

    def close(self) -> None:
        self.memory = None
        self.instance.close()


class _Watched(Border, Protocol):
    def tick(self) -> None:
        """Called in the guest's thread at every epoch; raises to end the guest."""
        ...


class WasmInstance:
    """One live interpreter in Wasm. Used by one thread at a time."""

    def __init__(self, runtime: Runtime) -> None:
        self.usable = True
        self.border: _Watched | None = None
        self._store = Store(runtime.engine)
        # Until an execution sets its own, the limit is generous: instantiating needs about 45 MiB.
        self.limit_memory(256)
        ffi.wasmtime_store_epoch_deadline_callback(self._store.ptr(), _on_tick, None, _no_finalizer)
        self._store.set_epoch_deadline(1)
        with MAPPING:
            instance = runtime.linker.instantiate(self._store, runtime.component)
        function = instance.get_func(self._store, runtime.run_index) if runtime.run_index else None
        if function is None:
            raise SandboxUnavailable("the sandbox component has no `run`; rebuild it with `mcpgate sandbox build`")
        self._function = function

    def limit_memory(self, mib: int) -> None:
        self._store.set_limits(memory_size=mib * MIB, instances=1000, tables=1000, memories=100)

    def rehearse(self) -> None:
        """Walk the way of a program once, so that the first one finds its pages in place."""
        self.enter("", '{"warm":true}', None)

    def enter(self, code: str, options: str, border: _Watched | None) -> str:
        """Call the guest's `run`, its four functions answered by `border`. Raises what `border` raised to end the
        guest, or WasmtimeError for a trap; the instance is not usable after either."""
        values = (ffi.wasmtime_component_val_t * 2)()
        result = ffi.wasmtime_component_val_t()
        context = self._store._context()
        self.border, self.failure = border, None
        _here.instance = self
        try:
            for value, text in zip(values, (code, options), strict=True):
                _set_string(value, text)
            failure = ffi.wasmtime_component_func_call(
                ctypes.byref(self._function._func), context, values, 2, ctypes.byref(result), 1
            )
            if failure:
                self.usable = False
                trap = WasmtimeError._from_ptr(failure)
                raise self.failure or trap
            try:
                return _get_string(result)
            finally:
                ffi.wasmtime_component_val_delete(ctypes.byref(result))
                self._function.post_return(self._store)
        finally:
            _here.instance = self.border = None
            for value in values:
                ffi.wasmtime_component_val_delete(ctypes.byref(value))

    failure: BaseException | None = None
    """What a host function raised while the guest ran: it ends the guest as a trap."""

    def close(self) -> None:
        self.usable = False
        with MAPPING:
            self._store.close()


def explain(trap: Exception, memory_mib: int) -> SandboxError:
    """A trap, or a broken rule of the protocol, as what it means for whoever wrote the code."""
    text = str(trap)
    if not isinstance(trap, WasmtimeError):
        return LimitReached("protocol", f"the execution was ended: {text}")
    if "call stack exhausted" in text:
        return LimitReached("stack", "the execution was ended: recursion too deep for the interpreter's stack")
    reached = re.search(r"unknown import: `wasi:([^`@]+)", text)
    if reached and reached[1] != "cli/stderr":
        return LimitReached(
            "protocol", f"the execution was ended: it reached for {reached[1]}, which the sandbox does not have"
        )
    if reached or "unreachable" in text:
        # The interpreter's last words go to stderr, mostly because memory ran out.
        return LimitReached.of_memory(memory_mib)
    return Crashed(text.splitlines()[-1].strip() if text else "a trap")


# --- wasmtime's C interface. wasmtime-py's own wrappers build type objects at every call (66–246 µs) and keep
# exceptions in one slot for the whole process, where another thread's call can pick them up.


class _Here(threading.local):
    instance: WasmInstance | None = None


_here = _Here()


def _pointer(data: bytes) -> Any:
    return ctypes.cast(ctypes.c_char_p(data), ctypes.POINTER(ctypes.c_uint8))


def _set_string(value: Any, text: str) -> None:
    data = text.encode("utf-8", "replace")
    value.kind = _STRING
    ffi.wasm_byte_vec_new(ctypes.byref(value.of.string), len(data), _pointer(data))


def _get_string(value: Any) -> str:
    if value.kind != _STRING:
        raise Violation("a string was expected")
    return ctypes.string_at(value.of.string.data, value.of.string.size).decode("utf-8", "replace")


def _host_function(body: Callable[[Any, Any], None]) -> Any:
    """A C callback that runs `body(arguments, results)` and turns whatever it raises into a trap."""

    @ffi.wasmtime_component_func_callback_t  # type: ignore[untyped-decorator]
    def callback(_data: Any, _context: Any, _type: Any, arguments: Any, _n: int, results: Any, _m: int) -> int:
        try:
            body(arguments, results)
            return 0
        except BaseException as error:
            return _trap(error)

    return callback


def _trap(error: BaseException) -> int:
    """Ends the guest that runs in this thread. Its first failure is the one that counts."""
    if (instance := _here.instance) is not None and instance.failure is None:
        instance.failure = error
    return _new_error(str(error))


def _new_error(text: str) -> int:
    pointer = ffi.wasmtime_error_new(ctypes.create_string_buffer(text.encode("utf-8", "replace") or b"stopped"))
    return ctypes.cast(pointer, ctypes.c_void_p).value or 0


def _border() -> Border:
    instance = _here.instance
    if instance is None or instance.border is None:
        raise Violation("a host function was called while no code was running")
    return instance.border


def _submit(arguments: Any, _results: Any) -> None:
    _border().submit(arguments[0].of.u32, _get_string(arguments[1]), _get_string(arguments[2]))


def _poll(arguments: Any, results: Any) -> None:
    _set_string(results[0], _border().poll(arguments[0].of.s64))


def _call(arguments: Any, results: Any) -> None:
    _set_string(results[0], _border().call(_get_string(arguments[0]), _get_string(arguments[1])))


def _emit(arguments: Any, _results: Any) -> None:
    _border().emit(arguments[0].of.u8, _get_string(arguments[1]))


def _monotonic(_arguments: Any, results: Any) -> None:
    results[0].kind, results[0].of.u64 = _U64, time.monotonic_ns()


def _resolution(_arguments: Any, results: Any) -> None:
    results[0].kind, results[0].of.u64 = _U64, 1000


def _value_of_byte(byte: int) -> bytes:
    value = ffi.wasmtime_component_val_t()
    value.kind, value.of.u8 = _U8, byte
    return bytes(value)


_BYTES = [_value_of_byte(byte) for byte in range(256)]
"""Each byte as wasmtime's C interface has it: a list of bytes is made with one copy, not one call for each."""


def _random_bytes(arguments: Any, results: Any) -> None:
    size = min(arguments[0].of.u64, 65536)
    results[0].kind = _LIST
    ffi.wasmtime_component_vallist_new_uninit(ctypes.byref(results[0].of.list), size)
    values = b"".join([_BYTES[byte] for byte in os.urandom(size)])
    ctypes.memmove(results[0].of.list.data, values, len(values))


def _wall_clock(_arguments: Any, results: Any) -> None:
    now = time.time_ns()
    _set_record(results[0], seconds=now // 1_000_000_000, nanoseconds=now % 1_000_000_000)


def _set_record(value: Any, *, seconds: int, nanoseconds: int) -> None:
    value.kind = _RECORD
    ffi.wasmtime_component_valrecord_new_uninit(ctypes.byref(value.of.record), 2)
    for index, (name, kind, field, number) in enumerate(
        (("seconds", _U64, "u64", seconds), ("nanoseconds", ffi.WASMTIME_COMPONENT_U32.value, "u32", nanoseconds))
    ):
        entry = value.of.record.data[index]
        data = name.encode()
        ffi.wasm_byte_vec_new(ctypes.byref(entry.name), len(data), _pointer(data))
        entry.val.kind = kind
        setattr(entry.val.of, field, number)


def _empty_list(_arguments: Any, results: Any) -> None:
    results[0].kind = _LIST
    ffi.wasmtime_component_vallist_new_empty(ctypes.byref(results[0].of.list))


def _none(_arguments: Any, results: Any) -> None:
    results[0].kind, results[0].of.option = _OPTION, None


_TICK_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_size_t,
    ctypes.POINTER(ffi.wasmtime_context_t),
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_uint64),
    ctypes.POINTER(ffi.wasmtime_update_deadline_kind_t),
)


@_TICK_CALLBACK  # type: ignore[untyped-decorator]
def _on_tick(_context: Any, _data: Any, delta: Any, kind: Any) -> int:
    try:
        instance = _here.instance
        if instance is not None and instance.border is not None:
            instance.border.tick()
        delta[0] = 1
        kind[0] = 0  # continue
        return 0
    except BaseException as error:
        return _trap(error)


_no_finalizer = ctypes.CFUNCTYPE(None, ctypes.c_void_p)()

_FUNCTIONS = {
    "submit": _host_function(_submit),
    "poll": _host_function(_poll),
    "call": _host_function(_call),
    "emit": _host_function(_emit),
}
_WASI = {
    "clocks/monotonic-clock": {"now": _host_function(_monotonic), "resolution": _host_function(_resolution)},
    "clocks/wall-clock": {"now": _host_function(_wall_clock)},
    "random/random": {"get-random-bytes": _host_function(_random_bytes)},
    "cli/environment": {
        "get-environment": _host_function(_empty_list),
        "get-arguments": _host_function(_empty_list),
        "initial-cwd": _host_function(_none),
    },
    "filesystem/preopens": {"get-directories": _host_function(_empty_list)},
}


def _link(engine: WasmtimeEngine, component: Component) -> Linker:
    """All that a guest can reach; every other import of the component traps."""
    linker = Linker(engine)
    linker.define_unknown_imports_as_traps(component)
    linker.allow_shadowing = True
    with linker.root() as root:
        for name, callback in _FUNCTIONS.items():
            _define(root, name, callback)
        for full_name in component.type.imports(engine):
            functions = _WASI.get(full_name.removeprefix("wasi:").partition("@")[0])
            if functions is not None and full_name.startswith("wasi:"):
                with root.add_instance(full_name) as instance:
                    for name, callback in functions.items():
                        _define(instance, name, callback)
    return linker


def _define(instance: Any, name: str, callback: Any) -> None:
    data = name.encode()
    failure = ffi.wasmtime_component_linker_instance_add_func(
        instance.ptr(), ctypes.create_string_buffer(data), len(data), callback, None, _no_finalizer
    )
    if failure:
        raise WasmtimeError._from_ptr(failure)
