"""Published advisories of wasmtime, 2024 to 2026: what a program inside the guest can do towards each. The component is
ours and fixed, so that leaves the border that values cross, memory, and host functions that might be linked."""

import pytest
from wasmtime import _ffi as ffi
from wasmtime.component import Component, Linker

from mcpgate_sandbox import wasm
from mcpgate_sandbox.engine import Limits
from mcpgate_sandbox.errors import CodeFailed, LimitReached
from mcpgate_sandbox.wasm import WasmEngine
from sandbox.tests.conftest import Host
from sandbox.tests.escapes.conftest import Arena
from sandbox.tests.escapes.test_forgery import assert_well_formed

pytestmark = pytest.mark.anyio

SHORT = Limits(timeout_s=2, tool_wait_s=1, cpu_s=0.5, memory_mib=128)

# --- functions of WASI in which there were holes: a program reaches for them by Python's own names

WASI = {
    # CVE-2024-51745: device names of Windows were opened past the folders that were given.
    "CVE-2024-51745: device files": "for n in ('COM1', 'CON', 'NUL', 'LPT\\u00b9', 'CONIN$', 'AUX.txt', '\\\\\\\\.\\\\PhysicalDrive0'):\n    try:\n        print(open(n).read())\n    except (OSError, ValueError) as e:\n        pass\nopen('CON', 'w').write('x')",
    # CVE-2025-53901, GHSA-3p27-qvp9-27qf: fd_renumber panicked, and leaked.
    "CVE-2025-53901: descriptors renumbered": "import os\nfor i in range(100):\n    try:\n        os.dup2(i, i + 1)\n    except OSError:\n        pass\nos.dup2(1, 2 ** 31 - 1)",
    "GHSA-3p27-qvp9-27qf: descriptors renumbered over and over": "import os\nwhile True:\n    try:\n        os.dup2(0, 3)\n    except OSError:\n        raise SystemExit",
    # CVE-2026-47261: opening with TRUNCATE went past the right to write.
    "CVE-2026-47261: cut by opening": "import os\nos.open('@SECRET@', os.O_RDONLY | os.O_TRUNC)",
    # CVE-2026-58494: hard links and renames went past the rights at their target.
    "CVE-2026-58494: a hard link": "import os\nos.link('@SECRET@', '@MARKER@')",
    "CVE-2026-58494: a rename": "import os\nos.rename('@SECRET@', '@MARKER@')",
    # GHSA-vqjp-4c8c-hfgg: a slash at the end led out of the folder.
    "GHSA-vqjp-4c8c-hfgg: a slash at the end": "import os\nfor p in ('@SECRET@/', '..//', './/../@SECRET@//'):\n    for f in (open, os.listdir, os.stat, os.readlink):\n        try:\n            print(f(p))\n        except (OSError, ValueError):\n            pass\nopen('@SECRET@/')",
    "GHSA-vqjp-4c8c-hfgg: a link with a slash at the end": "import os\nos.symlink('/', '@MARKER@/')\nprint(open('@MARKER@/@SECRET@').read())",
    # CVE-2026-27204: handles, buffers and copies without measure.
    "CVE-2026-27204: descriptors without end": "import os\nwhile True:\n    os.open('/', os.O_RDONLY)",
    "CVE-2026-27204: random bytes without measure": "import os\nprint(len(os.urandom(50_000_000)))",
    "CVE-2026-27204: a read of any size": "import os\nos.read(0, 2 ** 40)",
    "CVE-2026-27204: pollables without end": "import select\nwhile True:\n    select.select([], [], [], 0)",
    "CVE-2026-27204: a listing kept open": "import os\nk = []\nwhile True:\n    k.append(os.scandir('/'))",
    # CVE-2026-27572: wasi:http panicked at too many fields.
    "CVE-2026-27572: too many fields of http": "import http.client\nc = http.client.HTTPConnection('127.0.0.1', @PORT@)\nc.request('GET', '/', headers={'x%d' % i: 'y' for i in range(100000)})",
    "GHSA-w4qr-p94g-mjhv: http without time": "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:@PORT@', timeout=0)",
    "GHSA-h4wp-g4x3-7398: a length that lies": "import http.client\nc = http.client.HTTPConnection('127.0.0.1', @PORT@)\nc.request('POST', '/', body=b'x', headers={'Content-Length': '-1'})",
    # GHSA-hmmr-87qq-258j: datagrams went to addresses that were refused.
    "GHSA-hmmr-87qq-258j: a datagram": "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.connect(('127.0.0.1', @PORT@))\ns.send(b'x')",
    # GHSA-j366-h8gg-77pm: waiting for a clock used no fuel.
    "GHSA-j366-h8gg-77pm: waiting in the host": "import select\nselect.select([], [], [], 10 ** 6)",
    # GHSA-gqmc-89g8-p25r: writing where there was no stdio took memory of the host.
    "GHSA-gqmc-89g8-p25r: words to no stdout": "import os\nwhile True:\n    os.write(1, b'x' * 10 ** 6)",
    "GHSA-5m8g-xhq4-4h93: empty writes without end": "import os\nwhile True:\n    os.write(2, b'')",
    # GHSA-96f6-r43r-8c24: padding of the host came along with a listing.
    "GHSA-96f6-r43r-8c24: a listing": "import os\nprint([(e.name, e.inode()) for e in os.scandir('/')])",
    # GHSA-mr2v-56j5-cmfc: a time before 1970 panicked.
    "GHSA-mr2v-56j5-cmfc: a time before all times": "import os\nos.utime('@SECRET@', ns=(-10 ** 18, -(2 ** 63)))",
}


@pytest.mark.parametrize("code", WASI.values(), ids=WASI.keys())
async def test_a_function_of_wasi_with_a_history_is_not_there(code: str, arena: Arena) -> None:
    assert_well_formed(await arena.repels(code, limits=SHORT))


# --- values over the border

STRINGS = {
    # CVE-2026-35195: writing past the end as strings were transcoded. CVE-2026-34941, -34942: the same for UTF-16.
    "CVE-2026-35195: a long string": "w.call('t.echo', '[[' + ' ' * 30_000_000 + '1],{}]')",
    "CVE-2026-35195: a string as large as memory": "w.emit(1, 'x' * 60_000_000)",
    "CVE-2026-35195: a long name": "w.submit(1, 'n' * 30_000_000, '[[],{}]')\nw.poll(-1)",
    "CVE-2026-35195: every length about a page": "for n in (0, 1, 2, 3, 4095, 4096, 4097, 65535, 65536, 65537):\n    assert t.echo('é' * n) == 'é' * n\n    assert t.echo('x' * n) == 'x' * n",
    "CVE-2026-34941: letters of each width": "for c in ('a', '\\xff', '\\u0100', '\\uffff', '\\U0010ffff'):\n    for n in (1, 7, 1000):\n        assert t.echo(c * n) == c * n\n    assert t.echo('a' + c * 999 + 'b')[-1] == 'b'",
    "CVE-2026-34942: an odd number of bytes": "w.call('t.\\u4e00', '[[\"' + '\\u4e00' * 3 + '\"],{}]')",
    "half a surrogate as a name": "w.call('\\ud800', '[[],{}]')",
    "half a surrogate as arguments": "w.submit(1, 't.echo', '\\udfff')\nw.poll(-1)",
    "half a surrogate as output": "w.emit(1, '\\udc80')",
    "half a surrogate as a result": "import mcpgate_guest.program as p\np.json.dumps = lambda *a, **k: '\\ud800'\n1 / 0",
    "NULs": "w.emit(1, '\\x00' * 1000)\nw.call('t.echo\\x00', '[[\"\\x00\"],{}]')",
    # CVE-2026-34943: lifting flags panicked. There are none, but numbers have widths.
    "CVE-2026-34943: numbers over their width": "for f, a in ((w.submit, (2 ** 32, 't.echo', '')), (w.submit, (-1, 't.echo', '')), (w.poll, (2 ** 64,)), (w.poll, (-2 ** 63 - 1,)), (w.emit, (256, 'x')), (w.emit, (-1, 'x'))):\n    try:\n        f(*a)\n    except (OverflowError, ValueError, TypeError) as e:\n        print(type(e).__name__)",
    "values of other types": "for a in ((None, None), (b'x', b'y'), (1, 2), ([], {}), (str, str)):\n    try:\n        w.call(*a)\n    except (TypeError, ValueError):\n        pass\nw.call(5, 5)",
    "a class of one's own for text": "class S(str):\n    def encode(self, *a):\n        return b'\\xff\\xfe'\n    def __len__(self):\n        return 2 ** 31\nw.call(S('t.echo'), S('[[1],{}]'))",
    # CVE-2026-27195: dropping a call that was not done panicked at the next.
    "CVE-2026-27195: calls given up and made again": "for i in range(1, 50):\n    w.submit(i, 't.never', '[[],{}]')\n    w.call('@cancel', str(i))\nw.call('t.echo', '[[1],{}]')",
    "CVE-2025-62711: a call within a call": 'w.WitWorld().run(\'w.call("t.echo", "[[1],{}]")\', \'{"servers": ["t"]}\')',
}


@pytest.mark.parametrize("code", STRINGS.values(), ids=STRINGS.keys())
async def test_strings_and_numbers_cross_the_border_whole_or_not_at_all(code: str, arena: Arena) -> None:
    outcome = await arena.repels("import wit_world as w\n" + code, limits=SHORT)
    assert_well_formed(outcome)
    assert not (isinstance(outcome.error, CodeFailed) and outcome.error.type == "AssertionError"), outcome


# --- the runtime under wit_world: imports by number, resources by number

RUNTIME = {
    "GHSA-32h6-97mm-8q3c: too few values": "for i in range(200):\n    try:\n        c.call_import(i, [])\n    except BaseException as e:\n        print(i, type(e).__name__)",
    "too many values": "for i in range(200):\n    try:\n        c.call_import(i, [1, 'x', 'y', 'z', None] * 50)\n    except BaseException as e:\n        print(i, type(e).__name__)",
    "an import that is none": "c.call_import(2 ** 31, ['x'])",
    "an import before the first": "c.call_import(-1, ['x'])",
    "imports by a wrong type": "c.call_import('call', ('t.echo', '[[1],{}]'))",
    "values of wrong types": "c.call_import(0, [None, None, None])",
    "another's values": "for i in range(8):\n    c.call_import(i, [1, 't.never', '[[],{}]'])",
    "GHSA-6fr9-xmw9-5352: a resource that is none": "c.drop_resource(0, 0)",
    "resources dropped by number": "for i in range(50):\n    for h in range(50):\n        try:\n            c.drop_resource(i, h)\n        except BaseException:\n            pass",
    "a resource dropped twice": "c.drop_resource(1, 1)\nc.drop_resource(1, 1)",
    "GHSA-xrvr-8678-5wp8: streams and futures": "import componentize_py_async_support as s\nprint(s)\ns.stream.read()",
}


@pytest.mark.parametrize("code", RUNTIME.values(), ids=RUNTIME.keys())
async def test_the_runtime_below_reaches_nothing_else(code: str, arena: Arena) -> None:
    host = Host()
    outcome = await arena.repels("import componentize_py_runtime as c\n" + code, host=host, limits=SHORT)
    assert_well_formed(outcome)
    assert {name for name, _, _ in host.calls} <= {"t.echo", "t.never"} and host.in_flight == 0


# --- memory, tables, traps

MEMORY = {
    # CVE-2026-44216: a table larger than the address space. CVE-2026-34988: data of the last guest in new memory.
    "CVE-2026-44216: memory beyond the address space": "for n in (2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 40, 2 ** 62):\n    try:\n        bytearray(n)\n    except (MemoryError, OverflowError):\n        pass\n'alive'",
    "growth by little steps": "k = []\nwhile True:\n    try:\n        k.append(bytearray(70_000))\n    except MemoryError:\n        k.clear()\n        break\n'alive'",
    "growth, given back, and again": "for i in range(300):\n    x = bytearray(30_000_000)\n    del x\n'alive'",
    # CVE-2026-34971: loads near the end of the heap. CVE-2026-115893, -115889, -24116, -34944: odd instructions.
    "CVE-2026-34971: the last bytes of memory": "k = []\ntry:\n    while True:\n        k.append(bytearray(1_000_000))\nexcept MemoryError:\n    pass\nx = sum(b[-1] + b[0] for b in k)\nk.clear()\nx",
    "CVE-2026-115893: jump tables": "def f(n):\n    match n:\n"
    + "".join(f"        case {n}:\n            return {n * 7}\n" for n in range(200))
    + "[f(n) for n in (0, 199, 200, -1, 2 ** 31, 2 ** 63, 2 ** 64)]",
    "CVE-2026-24116: floats with a sign": "import math\n[math.copysign(x, y) for x in (0.0, -0.0, 1e308, float('inf'), 5e-324) for y in (1.0, -1.0, -0.0)] + [math.copysign(float('nan'), -1) != 0]",
    "CVE-2026-115889: bits in every place": "[((1 << a) >> b) ^ ~(3 << a) & 0xffffffffffffffff for a in range(130) for b in (0, 1, 31, 32, 33, 63, 64, 65)] and 'alive'",
    "CVE-2026-34944: many floats at once": "import array\na = array.array('d', [1.5]) * 100001\nsum(a) + sum(array.array('f', a[:7]))",
    # GHSA-2hw9-mc66-jc2q: an interruption in the midst of a large copy left a store that must not be used again.
    "GHSA-2hw9-mc66-jc2q: large copies, interrupted": "x = bytearray(20_000_000)\nwhile True:\n    x[1:] = x[:-1]",
}


@pytest.mark.parametrize("name", MEMORY)
async def test_memory_at_its_edges_is_only_the_guests(name: str, arena: Arena) -> None:
    outcome = await arena.repels(MEMORY[name], limits=SHORT, session=f"memory/{name}")
    assert_well_formed(outcome)
    after = await arena.run("[1, 2.5, 'x' * 3]", session=f"memory/{name}")
    assert after.result == [1, 2.5, "xxx"]
    if isinstance(outcome.error, LimitReached) and outcome.error.limit == "cpu_s":
        # Its store is thrown away, not used on; the next one says so by the note of the first.
        assert "gone" in outcome.notes[-1]


async def test_new_memory_holds_nothing_of_the_last_guest(arena: Arena) -> None:
    """CVE-2026-34988: memory of one instance was given to the next as it was."""
    mark = "owned" + "-by-the-last-guest"
    await arena.run(f"x = ['{mark[:5]}' + '{mark[5:]}' + str(i) for i in range(200000)]\nlen(x)", limits=SHORT)
    look = (
        "import array\nfound = 0\nk = [array.array('B', bytes(1)) * 1000000 for i in range(40)]\n"
        "for a in k:\n    found = found + (b'owned-by-the' in a.tobytes())\nfound"
    )
    outcome = await arena.repels(look, limits=Limits(timeout_s=5, cpu_s=3))
    assert outcome.result == 0 or isinstance(outcome.error, CodeFailed)


# --- what is linked, read off the component itself

LINKED = {
    "submit": "submit",
    "poll": "poll",
    "call": "call",
    "emit": "emit",
    "wasi:clocks/monotonic-clock": "now resolution",
    "wasi:clocks/wall-clock": "now",
    "wasi:random/random": "get-random-bytes",
    "wasi:cli/environment": "get-environment get-arguments initial-cwd",
    "wasi:filesystem/preopens": "get-directories",
}
"""All that a guest reaches; a line more is a door more, and needs a reason."""


async def test_only_the_listed_functions_are_linked_to_anything(
    engine: WasmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = engine._loaded.result()  # type: ignore[attr-defined]
    component: Component = runtime.component
    imports = {name.partition("@")[0] for name in component.type.imports(runtime.engine)}
    assert set(LINKED) <= imports, "the component lost an import"
    assert any("sockets" in name for name in imports), "else this test would prove nothing"
    defined: list[tuple[str, str]] = []
    inside: list[str] = []
    trapped: list[Component] = []
    real_instance, real_trap, real_define = ffi.wasmtime_component_linker_instance_add_instance, Linker.define_unknown_imports_as_traps, ffi.wasmtime_component_linker_instance_add_func  # fmt: skip

    def add_instance(parent: object, name: object, size: int, out: object) -> object:
        text = bytes(name)[:size] if isinstance(name, bytes) else bytes(name.raw)[:size]  # type: ignore[attr-defined]
        inside.append(text.decode().partition("@")[0])
        return real_instance(parent, name, size, out)

    def add_func(parent: object, name: object, size: int, *rest: object) -> object:
        text = bytes(name)[:size] if isinstance(name, bytes) else bytes(name.raw)[:size]  # type: ignore[attr-defined]
        plain = text.decode()
        defined.append((plain if plain in LINKED and not inside else inside[-1], plain))
        return real_define(parent, name, size, *rest)

    def trap(self: Linker, component: Component) -> None:
        trapped.append(component)
        assert not defined, "traps must come first, or they would cover what is linked"
        real_trap(self, component)

    monkeypatch.setattr(ffi, "wasmtime_component_linker_instance_add_instance", add_instance)
    monkeypatch.setattr(ffi, "wasmtime_component_linker_instance_add_func", add_func)
    monkeypatch.setattr(Linker, "define_unknown_imports_as_traps", trap)
    wasm._link(runtime.engine, component)
    assert trapped == [component]
    assert sorted(defined) == sorted((door, name) for door, names in LINKED.items() for name in names.split())


async def test_the_engine_is_configured_without_wasi_or_another_compiler(engine: WasmEngine) -> None:
    """CVE-2026-34945, -34946, -34987 and -35186 are of Winch; 64-bit tables, threads and shared memory are switched off
    with what the component does not use. The one compiler is Cranelift, the one allocator gives memory on demand."""
    import inspect

    from mcpgate_sandbox import component

    source = inspect.getsource(component.new_engine) + inspect.getsource(wasm)
    for word in (
        "winch",
        "add_wasip2",
        "set_wasi",
        "WasiConfig",
        "pooling",
        "wasm_threads",
        "wasm_memory64",
        "call_async",
    ):
        assert word not in source
