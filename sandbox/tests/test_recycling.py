"""A guest that was used and renewed is what a new one is: the whole of its memory after the same program, byte for byte,
whatever ran in it before. And where that cannot be, guests are not renewed."""

import asyncio
import ctypes
import hashlib
import itertools
import logging
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from mcpgate_sandbox import component, component_check, recipe, recycle, wasm
from mcpgate_sandbox.children import Child
from mcpgate_sandbox.engine import Limits
from mcpgate_sandbox.recycle import Memory, NotRenewable, Recycler
from mcpgate_sandbox.wasm import WasmEngine, WasmInstance
from sandbox.tests.conftest import GENEROUS, Host, Run

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what was written"),
]
PAIRS = int(os.environ.get("RECYCLING_PAIRS", "2000"))
OPTIONS = '{"servers":["server"],"mark":"$handle:abc"}'
TOKEN = "@TOKEN@"
"""Stands in a program for a secret of its own."""

NASTY = {
    "nothing": "None",
    "an error": "1/0",
    "no program": "1 +",
    "ends itself": "raise SystemExit(3)",
    "leaves secrets": "import builtins, json, os\nbuiltins.S = json.S = '@TOKEN@' * 50\nos.environ['S'] = '@TOKEN@'",
    "interns a secret": "import sys\nsys.intern('@TOKEN@')\nexec('x_@TOKEN@ = 1')",
    "hides a secret in a cycle": "class A: pass\na = A(); a.me = a; a.secret = bytearray(b'@TOKEN@' * 100); del a",
    "hides a secret in freed memory": "x = [('@TOKEN@' + str(i)).encode() for i in range(2000)]\ndel x",
    "leaves modules": "import sys, types\nm = sys.modules['own'] = types.ModuleType('own'); m.secret = '@TOKEN@'",
    "patches types": "import collections, decimal\ncollections.OrderedDict.secret = '@TOKEN@'\ndecimal.Decimal.__str__ = None",
    "registers": "import atexit, codecs, copyreg\natexit.register(print, '@TOKEN@')\n"
    "codecs.register(lambda name: None)\ncopyreg.pickle(type('T', (), {}), lambda x: '@TOKEN@')",
    "warns and logs": "import warnings, logging\nwarnings.simplefilter('error')\nlogging.basicConfig(level=1)\n"
    "logging.getLogger('@TOKEN@').error('@TOKEN@')",
    "replaces the guest": "import json, asyncio, builtins, mcpgate_guest.program as p\njson.dumps = builtins.print = None\n"
    "asyncio.gather = p.run = lambda *a: '@TOKEN@'\np.dialect.compile = None",
    "replaces the entry": "import sys, wit_world\nsys.modules['guest_main'].WitWorld.run = lambda *a: '@TOKEN@'",
    "marks as its own": "import mcpgate_guest.wire as w\nw.mark = '@TOKEN@'\nw.Handle.__repr__ = lambda self: '@TOKEN@'",
    "empties sys.modules": "import sys\nfor m in list(sys.modules):\n    del sys.modules[m]",
    "empties its globals": "globals().clear()",
    "recurses": "def f(n): return f(n + 1)\nf(0)",
    "recurses and catches": "def f(n): return f(n + 1)\ntry:\n    f(0)\nexcept RecursionError: pass",
    "leaves tasks": "import asyncio\nasync def f():\n    await asyncio.sleep(0.001)\nt = asyncio.create_task(f())\n"
    "await asyncio.gather(f(), server.tool(a=1), server.tool(b=2))\nasyncio.create_task(asyncio.sleep(99))\n"
    "g = (x for x in range(5)); next(g)",
    "moves the collector": "import gc, sys\ngc.unfreeze(); gc.collect(); gc.disable(); sys.settrace(lambda *a: None)",
    "sets what the interpreter goes by": "import sys\nsys.setrecursionlimit(200); sys.set_int_max_str_digits(999)\n"
    "sys.excepthook = sys.displayhook = lambda *a: None; sys.path.append('@TOKEN@')",
    "uses C libraries": "import sqlite3, decimal, pickle, zlib, re, datetime\nc = sqlite3.connect(':memory:')\n"
    "c.execute('create table t(a)'); c.execute(\"insert into t values ('@TOKEN@')\")\ndecimal.getcontext().prec = 50\n"
    "pickle.loads(pickle.dumps([datetime.datetime.now()])); zlib.compress(b'x' * 9999); re.findall('(a+)+b', 'a' * 15)",
    "fails at files": "import os\nfor p in ('/etc/passwd', '/'):\n    try: open(p)\n    except OSError: pass",
    "asks for much": "try:\n    bytearray(10**9)\nexcept MemoryError: pass",
    "writes to many pages": "x = ['@TOKEN@' * 10 + str(i) for i in range(5000)]\nlen(x)",
    "calls": "[server.tool(i=i, secret='@TOKEN@') for i in range(20)]",
    "prints": "print('@TOKEN@' * 200)",
    "takes random bytes": "import random, secrets, uuid\nrandom.SystemRandom().random(), secrets.token_hex(999), uuid.uuid4()",
    "seeds": "import random\nrandom.seed(5)\n[random.random() for _ in range(700)]",
    "compiles": "import ast\nexec(compile(ast.parse('def f_@TOKEN@(): return \"@TOKEN@\"'), '@TOKEN@', 'exec'))\nf_@TOKEN@()",
    "formats dates": "import time, locale, calendar, datetime\ntime.tzset() if hasattr(time, 'tzset') else None\n"
    "calendar.setfirstweekday(6); datetime.datetime.now().astimezone().isoformat()",
}
PROBES = {
    "a look around": "import asyncio, builtins, gc, sys\nawait asyncio.sleep(0)\n"
    "[len(sys.modules), sorted(vars(builtins)), gc.isenabled(), sys.getrecursionlimit(), sys.path, sorted(globals())]",
    "recursion": "def f(n): return n if n > 300 else f(n + 1)\nf(0)",
    "an error": "1/0",
    "calls": "[server.tool(a=1), await server.tool(b=2), sum(1 for _ in range(99))]",
    "settings": "import calendar, decimal, logging, os, random, warnings\nrandom.seed(3)\n[decimal.getcontext().prec, "
    "str(decimal.Decimal('1.5')), calendar.firstweekday(), dict(os.environ), len(warnings.filters), "
    "logging.getLogger().level, random.random()]",
    "what stays of freed memory": "x = bytearray(200_000)\ny = [bytes(900) for _ in range(200)]\n[sum(x), sum(map(sum, y))]",
}


class ConstantHost:
    """Answers at once, always the same."""

    def __init__(self) -> None:
        self._waiting: list[int] = []

    def tick(self) -> None: ...

    def submit(self, id: int, _name: str, _arguments: str) -> None:
        self._waiting.append(id)

    def poll(self, _timeout_ms: int) -> str:
        ids, self._waiting = self._waiting, []
        return f"{' '.join(f'{id}:5' for id in ids)}\n" + '"five' * len(ids) if ids else ""

    def call(self, name: str, _arguments: str) -> str:
        return '+{"tool":"tool"}' if name == "@tools" else '+{"x":[1,2,3]}'

    def emit(self, _fd: int, _text: str) -> None: ...


InThread = Callable[..., Any]


@pytest.fixture(scope="module")
def in_thread() -> Iterator[InThread]:
    """Calls a function in a thread with a stack that a guest fits on."""
    before = threading.stack_size(component.THREAD_STACK)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: None).result()
        threading.stack_size(before)
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


@pytest.fixture(scope="module")
def runtime(in_thread: InThread) -> wasm.Runtime:
    def made() -> wasm.Runtime:
        runtime = wasm.Runtime()
        runtime.recycle()
        return runtime

    result: wasm.Runtime = in_thread(made)
    if result.recycler is None:
        pytest.skip("this kernel does not say what was written (before Linux 6.7)")
    return result


@pytest.fixture(scope="module")
def of_a_new_one() -> dict[str, tuple[str, str]]:
    """What a new guest answers to each probe, and the digest of its memory afterwards: the same for all of them."""
    return {}


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Clocks and random bytes that are the same for every guest, once `now` is set back."""
    clock = SimpleNamespace(now=0)

    def tell() -> int:
        clock.now += 1000
        return 1_764_300_000 * 10**9 + int(clock.now)

    clocks = {"monotonic_ns": tell, "time_ns": tell}
    monkeypatch.setattr(wasm, "time", SimpleNamespace(**{**vars(time), **clocks}))
    monkeypatch.setattr(wasm, "os", SimpleNamespace(urandom=lambda n: bytes(i % 251 for i in range(n))))
    return clock


def memory_of(guest: wasm._Guest) -> Memory:
    assert guest.memory is not None
    return guest.memory


@pytest.mark.parametrize("name", NASTY)
def test_a_renewed_guest_is_a_new_one(
    name: str,
    runtime: wasm.Runtime,
    still: SimpleNamespace,
    in_thread: InThread,
    of_a_new_one: dict[str, tuple[str, str]],
) -> None:
    def run(guest: wasm._Guest, code: str) -> tuple[str, str]:
        still.now = 0
        answer = guest.instance.enter(code, OPTIONS, ConstantHost())
        return answer, hashlib.sha256(memory_of(guest).bytes).hexdigest()

    def compare() -> None:
        for probe, after in PROBES.items():
            if probe not in of_a_new_one:
                new = runtime.new_guest(False)
                of_a_new_one[probe] = run(new, after)
                new.close()
            used = runtime.new_guest(False)
            run(used, NASTY[name])
            assert used.renew()
            assert memory_of(used).is_original()
            assert run(used, after) == of_a_new_one[probe]
            used.close()

    in_thread(compare)


def test_of_two_programs_in_a_row_the_second_sees_nothing_of_the_first(
    runtime: wasm.Runtime, in_thread: InThread
) -> None:
    chosen = random.Random(20261128)
    expected = {}

    def nasty(token: str) -> str:
        parts = chosen.sample(list(NASTY.values()), chosen.randint(1, 4))
        code = "\n".join(f"try:\n{_indented(part)}\nexcept Exception: pass" for part in parts)
        return code.replace(TOKEN, token)

    def in_pairs() -> tuple[int, int]:
        for name, probe in PROBES.items():
            guest = runtime.new_guest(False)
            expected[name] = guest.instance.enter(probe, OPTIONS, ConstantHost())
            guest.close()
        guest, seen, thrown_away = runtime.new_guest(True), 0, 0
        for pair in range(PAIRS):
            token = f"t{chosen.getrandbits(64):016x}t"
            code = nasty(token)
            try:
                guest.instance.enter(code, OPTIONS, ConstantHost())
            except Exception:
                assert not guest.usable  # it was ended
            seen += pair % 10 == 0 and _holds(memory_of(guest), token)
            if not guest.renew():
                guest.close()
                guest, thrown_away = runtime.new_guest(True), thrown_away + 1
            memory = memory_of(guest)
            assert not _holds(memory, token), code
            assert pair % 20 or memory.is_original(), code
            name, probe = chosen.choice(list(PROBES.items()))
            assert guest.instance.enter(probe, OPTIONS, ConstantHost()) == expected[name], code
            if not guest.renew():
                guest.close()
                guest = runtime.new_guest(True)
        guest.close()
        return seen, thrown_away

    seen, thrown_away = in_thread(in_pairs)
    assert seen > PAIRS / 30  # the judge can see: most programs do leave something behind
    assert thrown_away < PAIRS / 3  # and most guests were really renewed


def _holds(memory: Memory, token: str) -> bool:
    """Whether the token is anywhere in it."""
    libc = ctypes.CDLL(None)
    libc.memmem.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
    libc.memmem.restype = ctypes.c_void_p
    return bool(libc.memmem(memory.start, memory.size, token.encode(), len(token)))


def _indented(code: str) -> str:
    return "\n".join(f"    {line}" for line in code.split("\n"))


@pytest.mark.parametrize("code", ["x = bytearray(40_000_000)", "x = 'y' * 50_000_000\ndel x"])
def test_a_guest_whose_memory_has_grown_is_not_renewed(code: str, runtime: wasm.Runtime, in_thread: InThread) -> None:
    def grow() -> None:
        guest = runtime.new_guest(False)
        guest.instance.enter(code, OPTIONS, ConstantHost())
        assert not guest.renew()
        assert not guest.usable
        guest.close()

    in_thread(grow)


def test_a_guest_that_wrote_to_very_many_pages_is_given_them_back(runtime: wasm.Runtime, in_thread: InThread) -> None:
    def write() -> None:
        guest = runtime.new_guest(False)
        guest.instance.enter("x = [str(i) * 20 for i in range(20_000)]", OPTIONS, ConstantHost())
        regions = memory_of(guest).written()
        assert regions is not None and sum(regions[1::3]) - sum(regions[::3]) > 200 * recycle._PAGE
        assert guest.renew()
        assert memory_of(guest).is_original()
        guest.close()

    in_thread(write)


def test_a_guest_that_wrote_to_more_regions_than_the_kernel_lists_at_once_keeps_its_pages(
    runtime: wasm.Runtime, in_thread: InThread
) -> None:
    def write() -> None:
        guest = runtime.new_guest(False)
        guest.instance.enter("await asyncio.gather(*[server.tool(i) for i in range(50)])", OPTIONS, ConstantHost())
        regions = memory_of(guest).written()
        assert regions is not None
        starts, ends = regions[::3], regions[1::3]
        assert len(starts) > recycle._REGIONS_AT_ONCE
        assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))  # in order, none twice
        assert guest.renew()
        assert memory_of(guest).written() == regions
        assert memory_of(guest).is_original()
        guest.close()

    in_thread(write)


def test_a_guest_that_was_ended_is_not_renewed(runtime: wasm.Runtime, in_thread: InThread) -> None:
    def end() -> None:
        guest = runtime.new_guest(False)
        with pytest.raises(Exception, match="trap|unknown import"):
            guest.instance.enter("import os\nos.write(1, b'x')\nos.fstat(1)\nos._exit(1)", OPTIONS, ConstantHost())
        assert not guest.usable
        assert not guest.renew()
        guest.close()

    in_thread(end)


# --- which guests an engine renews


@pytest.fixture
async def renewing(runtime: wasm.Runtime) -> Any:
    engine = WasmEngine(warm=1)
    await engine.ready()
    yield engine
    await engine.aclose()


def renewals(engine: WasmEngine) -> int:
    runtime: Any = engine._loaded.result()
    return runtime.recycler.renewals if runtime.recycler else 0


async def resting(engine: WasmEngine) -> None:
    """When nothing is being renewed, closed or made any more."""
    async with asyncio.timeout(5):
        while engine._used or engine._spent or len(engine._pool) < engine._warm_target:
            await asyncio.sleep(0.001)


async def test_an_engine_renews_the_guest_of_a_program_that_came_to_its_end(renewing: WasmEngine, run: Run) -> None:
    await resting(renewing)
    before, guest = renewals(renewing), renewing._pool[0]
    for code in ("1", "1/0", "t.echo(1)"):
        await run(code, on=renewing)
        await resting(renewing)
    assert list(renewing._pool) == [guest]
    assert renewals(renewing) == before + 3


@pytest.mark.parametrize(
    ("code", "limits"),
    [
        ("while True: pass", Limits(cpu_s=0.05)),
        ("import time\ntime.sleep(9)", Limits(timeout_s=0.05)),
        ("t.never()", Limits(tool_wait_s=0.05)),
        ("print('x' * 999)", Limits(max_output_chars=100)),
        ("'x' * 999", Limits(max_result_chars=100)),
        ("raise MemoryError", GENEROUS),
        ("x = 'y' * 10**9", GENEROUS),
        ("x = bytearray(40_000_000)", GENEROUS),
        ("import wit_world\nwit_world.submit(0, 't.echo', '[]')", GENEROUS),
        ("import os\nos._exit(1)", GENEROUS),
    ],
)
async def test_a_guest_that_was_ended_or_did_too_much_is_thrown_away(
    code: str, limits: Limits, renewing: WasmEngine, run: Run
) -> None:
    await resting(renewing)
    guest = renewing._pool[0]
    await run(code, on=renewing, limits=limits)
    await resting(renewing)
    assert renewing._pool[0] is not guest


async def test_the_guest_of_a_cancelled_execution_is_thrown_away(renewing: WasmEngine, run: Run) -> None:
    await resting(renewing)
    guest, host = renewing._pool[0], Host()
    execution = asyncio.create_task(run("t.never()", host=host, on=renewing))
    await host.never_called.wait()
    execution.cancel()
    with pytest.raises(asyncio.CancelledError):
        await execution
    await resting(renewing)
    assert renewing._pool[0] is not guest


async def test_the_guest_of_a_session_is_never_renewed(renewing: WasmEngine, run: Run) -> None:
    await resting(renewing)
    guest = renewing._pool[0]
    await run("x = 1", session="a", on=renewing)
    await run("os._exit(1)", session="a", on=renewing)
    await resting(renewing)
    assert guest not in renewing._pool
    assert not Child.renewable


async def test_recycle_off_uses_every_guest_once(run: Run) -> None:
    engine = WasmEngine(warm=1, recycle="off")
    try:
        await engine.ready()
        assert "each guest is used once" in await engine.locks()
        guests = set()
        for _ in range(3):
            await resting(engine)
            guests.add(id(engine._pool[0]))
            assert (await run("1", on=engine)).result == 1
        await resting(engine)
        assert renewals(engine) == 0
    finally:
        await engine.aclose()


async def test_listing_modules_at_the_same_time_leaves_guests_renewable(renewing: WasmEngine, run: Run) -> None:
    renewing._warm_target = 4
    renewing._wanted.set()
    await asyncio.gather(*[renewing.modules() for _ in range(4)], *[run("1", on=renewing) for _ in range(8)])
    await resting(renewing)
    assert all(guest.renewable for guest in renewing._pool)


# --- when renewing is not to be trusted


def recycler(runtime: wasm.Runtime, **options: Any) -> "Recycler[WasmInstance]":
    return Recycler(lambda: WasmInstance(runtime), WasmInstance.rehearse, **options)


def test_where_the_kernel_does_not_say_what_was_written_guests_are_made_anew(
    monkeypatch: pytest.MonkeyPatch, in_thread: InThread
) -> None:
    monkeypatch.setattr(recycle, "_PAGEMAP_SCAN", 0xDEAD)

    def made() -> None:
        runtime = wasm.Runtime()
        runtime.recycle()
        assert runtime.recycler is None
        guest = runtime.new_guest(True)
        assert not guest.renewable
        assert guest.instance.enter("1 + 1", OPTIONS, ConstantHost()) == '{"result":2}'
        guest.close()

    in_thread(made)


def test_a_kernel_that_misses_pages_is_found_out(
    monkeypatch: pytest.MonkeyPatch, runtime: wasm.Runtime, in_thread: InThread
) -> None:
    written = Memory.written
    monkeypatch.setattr(Memory, "written", lambda self: (written(self) or [])[3:])
    with pytest.raises(NotRenewable, match="all that was written"):
        in_thread(recycler, runtime)


def test_a_renewed_guest_that_is_not_as_new_ends_all_renewing_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, in_thread: InThread
) -> None:
    def fail() -> None:
        runtime = wasm.Runtime()
        runtime.recycler = recycler(runtime, compare_every=2)
        before, used = runtime.new_guest(True), runtime.new_guest(False)  # the first renewal
        with monkeypatch.context() as patch:
            written = Memory.written
            patch.setattr(Memory, "written", lambda self: (written(self) or [])[3:])
            used.instance.enter("x = 1", OPTIONS, ConstantHost())
            assert not used.renew()  # the second, which is compared
        assert not before.usable  # whoever was renewed is not used again
        assert not runtime.new_guest(False).renewable
        assert not before.renew()

    with caplog.at_level(logging.ERROR):
        in_thread(fail)
    assert "sandbox.recycle: off" in caplog.text


def test_two_instances_at_once_are_told_apart(runtime: wasm.Runtime) -> None:
    found: list[Memory] = []
    barrier = threading.Barrier(8)

    def make() -> None:
        barrier.wait(10)
        instance, memory = runtime.recycler.made() if runtime.recycler else (None, None)
        assert instance is not None and memory is not None
        instance.rehearse()
        assert memory.written()
        found.append(memory)
        barrier.wait(10)
        instance.close()

    before = threading.stack_size(component.THREAD_STACK)
    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    threading.stack_size(before)
    for thread in threads:
        thread.join()
    spans = sorted((memory.start, memory.end) for memory in found)
    assert len(spans) == 8
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))


# --- what the component's code can change


def test_the_components_code_changes_nothing_for_good_but_memory() -> None:
    assert component_check.changes(component.COMPONENT.read_bytes()) == component_check.EXPECTED


MODULE = b"\0asm\1\0\0\0"


def _component(*sections: tuple[int, bytes]) -> bytes:
    """A component with one module that has these sections, each short."""
    module = MODULE + b"".join(bytes([kind, len(body)]) + body for kind, body in sections)
    return b"\0asm\x0d\0\1\0" + bytes([1, len(module)]) + module


EXPORTED = (7, b"\1\1f\0\0")
UNREACHED = (7, b"\1\1m\2\0")


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"\x41\0\x24\0\x0b", {"adapter #0"}),
        (b"\x41\0\xd0\x70\x26\0\x0b", {"table.set"}),
        (b"\xd0\x70\x41\1\xfc\x0f\0\x1a\x0b", {"table.grow"}),
        (b"\xfc\x09\0\x0b", {"data.drop"}),
        (b"\x41\0\x41\0\x36\2\0\x0b", set()),
        (b"\x0e\1\0\0\x44" + bytes(8) + b"\x1a\xfd\x0c" + bytes(16) + b"\x1a\x0b", set()),
    ],
)
def test_the_check_finds_what_code_changes(body: bytes, found: set[str]) -> None:
    code = (10, bytes([1, len(body) + 1, 0]) + body)
    assert component_check.changes(_component(EXPORTED, code)) == found
    assert component_check.changes(_component(UNREACHED, code)) == set()


@pytest.mark.parametrize("body", [b"\x08\0\x0b", b"\x12\0\x0b", b"\x1f\x40\0\x0b", b"\xff\x0b", b"\x41\x80\x80\x80"])
def test_the_check_refuses_what_it_does_not_know(body: bytes) -> None:
    code = (10, bytes([1, len(body) + 1, 0]) + body)
    with pytest.raises(component_check.Unreadable):
        component_check.changes(_component(EXPORTED, code))


def test_a_build_whose_code_changes_something_else_is_refused() -> None:
    body = b"\x41\0\xd0\x70\x26\0\x0b"
    with pytest.raises(RuntimeError, match=r"can change table\.set; expected was adapter"):
        recipe._check(_component(EXPORTED, (10, bytes([1, len(body) + 1, 0]) + body)))
