"""Imports: modules that are not to be had, by statements, by the machinery behind them, and by way of the modules that
every module imports itself."""

import pytest

from sandbox.tests.escapes.conftest import Arena

pytestmark = pytest.mark.anyio

STATEMENTS = {
    "import": "import os\nprint('REACHED')\nos.system('touch @MARKER@')",
    "from": "from os import system\nprint('REACHED')\nsystem('touch @MARKER@')",
    "as an allowed one": "import os as json\nprint('REACHED')\njson.system('touch @MARKER@')",
    "a submodule": "import os.path\nprint('REACHED')\nprint(os.environ['PLANTED_SECRET'])",
    "a submodule's parent": "import posixpath as p\nprint('REACHED')\nprint(p.os.environ['PLANTED_SECRET'])",
    "from an allowed module": "from json import codecs\nprint('REACHED')\nprint(codecs.open('@SECRET@').read())",
    "from an allowed module, under another name": (
        "from statistics import sys as s\nprint('REACHED')\nprint(s.modules['os'].environ['PLANTED_SECRET'])"
    ),
    "a star": "from shutil import *\nprint('REACHED')\ncopyfile('@SECRET@', '@MARKER@')",
    "the C module itself": "import posix\nprint('REACHED')\nposix.system('touch @MARKER@')",
    "the C module of files": "import _io\nprint('REACHED')\nprint(_io.open('@SECRET@').read())",
    "the C module of sockets": (
        "import _socket\ns = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)\nprint('REACHED')\n"
        "s.connect(('127.0.0.1', @PORT@))"
    ),
    "within a function": "def f():\n    import os\n    print('REACHED')\n    os.system('touch @MARKER@')\nf()",
    "within a class": ("class C:\n    from os import environ\nprint('REACHED')\nprint(C.environ['PLANTED_SECRET'])"),
    "within an except": (
        "try:\n    import nothing\nexcept ImportError as e:\n    import os\n    print('REACHED')\n"
        "    print(os.environ['PLANTED_SECRET'], e)"
    ),
    "several at once": "import json, math, os as o\nprint('REACHED')\no.system('touch @MARKER@')",
    "relative, in a package of another name": (
        "__package__ = 'os'\nfrom . import system\nprint('REACHED')\nsystem('touch @MARKER@')"
    ),
    # Level 1 of a package called os: the name asked for is empty, and what comes back is os.
    "relative to a package of one's choice": """
m = __import__('', {'__package__': 'os', '__name__': 'os'}, {}, ['system'], 1)
print('REACHED')
m.system('touch @MARKER@')
""",
    "an allowed name with a list of others": """
m = __import__('importlib', fromlist=['machinery'])
print('REACHED')
m.import_module('os').system('touch @MARKER@')
""",
    "builtins": "import builtins\nprint('REACHED')\nprint(builtins.open('@SECRET@').read())",
    "the program itself": """
import __main__
b = __main__.__builtins__
print('REACHED')
print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
    "this package": """
import mcpgate_sandbox.component as c
print('REACHED')
print(c.os.environ['PLANTED_SECRET'])
""",
}

# From a module that has good reasons to be allowed, by names that it merely happens to have.
ROUTES = {
    f"{module}: {path}": f"import {module}\nm = {module}.{path}\nprint('REACHED')\n{harm}"
    for module, path, harm in [
        ("json", "codecs.builtins", "print(m.open('@SECRET@').read())"),
        ("json", "decoder.scanner.re.enum.sys", "print(m.modules['os'].environ['PLANTED_SECRET'])"),
        ("re", "enum.sys.modules", "m['os'].system('touch @MARKER@')"),
        ("statistics", "sys.modules", "m['os'].system('touch @MARKER@')"),
        ("statistics", "random._os", "m.system('touch @MARKER@')"),
        ("dataclasses", "sys.modules", "m['os'].system('touch @MARKER@')"),
        ("dataclasses", "inspect.os", "m.system('touch @MARKER@')"),
        ("dataclasses", "builtins", "print(m.open('@SECRET@').read())"),
        ("datetime", "sys.modules", "m['os'].system('touch @MARKER@')"),
        ("random", "_os", "m.system('touch @MARKER@')"),
        ("collections", "_sys.modules", "m['os'].system('touch @MARKER@')"),
        ("typing", "contextlib.os", "m.system('touch @MARKER@')"),
        ("typing", "sys.modules", "m['os'].system('touch @MARKER@')"),
        ("enum", "bltns", "print(m.open('@SECRET@').read())"),
        ("contextlib", "os", "m.system('touch @MARKER@')"),
        ("fractions", "sys.modules", "m['os'].system('touch @MARKER@')"),
        ("string", "_re.enum.sys", "print(m.modules['os'].environ['PLANTED_SECRET'])"),
        ("csv", "re.enum.sys", "print(m.modules['os'].environ['PLANTED_SECRET'])"),
        ("uuid", "os", "m.system('touch @MARKER@')"),
        ("calendar", "sys.modules", "m['os'].system('touch @MARKER@')"),
        ("urllib.parse", "sys.modules", "m['os'].system('touch @MARKER@')"),
        ("pprint", "_sys.modules", "m['os'].system('touch @MARKER@')"),
        ("hashlib", "__get_builtin_constructor.__globals__", "print(m['__builtins__']['open']('@SECRET@').read())"),
        ("zoneinfo", "_tzpath.os", "m.system('touch @MARKER@')"),
        ("shlex", "os", "m.system('touch @MARKER@')"),
        ("logging", "os", "m.system('touch @MARKER@')"),
        ("concurrent.futures", "_base.threading._os", "m.system('touch @MARKER@')"),
        ("xml.etree.ElementTree", "sys.modules", "m['os'].system('touch @MARKER@')"),
        ("asyncio", "subprocess.subprocess", "m.run(['touch', '@MARKER@'])"),
        ("asyncio", "events.os", "m.system('touch @MARKER@')"),
        ("asyncio", "sys.modules", "m['os'].system('touch @MARKER@')"),
    ]
}

LOOPS = {
    # It owned a hardened RestrictedPython executor at the first try: no underscore, no import.
    "a task's loop runs a shell": """
async def f():
    pass
async def main():
    loop = asyncio.create_task(f()).get_loop()
    print('REACHED')
    transport, protocol = await loop.subprocess_shell(asyncio.SubprocessProtocol, 'touch @MARKER@')
    await protocol_done(transport)
async def protocol_done(transport):
    while transport.get_returncode() is None:
        await asyncio.sleep(0)
asyncio.run(main())
""",
    "a future's loop connects": """
async def main():
    loop = asyncio.get_running_loop().create_future().get_loop()
    print('REACHED')
    await loop.create_connection(list, '127.0.0.1', @PORT@)
asyncio.run(main())
""",
    "a shell": """
async def main():
    run = asyncio.create_subprocess_shell
    print('REACHED')
    await (await run('touch @MARKER@')).wait()
asyncio.run(main())
""",
    "a program": """
async def main():
    run = asyncio.create_subprocess_exec
    print('REACHED')
    await (await run('touch', '@MARKER@')).wait()
asyncio.run(main())
""",
    "a connection": """
async def main():
    connect = asyncio.open_connection
    print('REACHED')
    await connect('127.0.0.1', @PORT@)
asyncio.run(main())
""",
    "a new loop": """
loop = asyncio.new_event_loop()
print('REACHED')
loop.run_until_complete(loop.create_connection(list, '127.0.0.1', @PORT@))
""",
    "the loop of a runner": """
with asyncio.Runner() as runner:
    loop = runner.get_loop()
    print('REACHED')
    loop.run_until_complete(loop.create_connection(list, '127.0.0.1', @PORT@))
""",
    "the loop that a queue remembers": """
async def main():
    q = asyncio.Queue()
    loop = getattr(q, '_get_loop')()
    print('REACHED')
    await loop.create_connection(list, '127.0.0.1', @PORT@)
asyncio.run(main())
""",
    "the loop that an error handler is given": """
async def main():
    loop = asyncio.get_running_loop()
    def handler(given, context):
        print('REACHED')
        print(getattr(getattr(given.run_in_executor, '__func__'), '__globals__')['os'].environ['PLANTED_SECRET'])
    loop.set_exception_handler(handler)
    loop.call_exception_handler({'message': 'x'})
asyncio.run(main())
""",
    "the loop that an awaitable is resumed by": """
class Wait:
    def __await__(self):
        future = asyncio.get_event_loop().create_future()
        future.add_done_callback(lambda f: print('REACHED', f.get_loop().sock_connect) if f.get_loop() else None)
        future.set_result(None)
        yield from future
async def main():
    await Wait()
    await asyncio.open_connection('127.0.0.1', @PORT@)
asyncio.run(main())
""",
    "the future that a coroutine yields when it is stepped by hand": """
async def main():
    step = asyncio.sleep(30)
    loop = step.send(None).get_loop()
    print('REACHED')
    await loop.create_connection(list, '127.0.0.1', @PORT@)
asyncio.run(main())
""",
    "the future that a task's iterator yields": """
async def f():
    await asyncio.sleep(0)
async def main():
    future = next(iter(asyncio.create_task(f()).__await__()))
    loop = future.get_loop()
    print('REACHED')
    await loop.create_connection(list, '127.0.0.1', @PORT@)
asyncio.run(main())
""",
    "the future below an awaitable of one's own": """
class Wait:
    def __await__(self):
        for future in asyncio.sleep(0.001).__await__():
            seen.append(future.get_loop())
            print('REACHED')
            yield future
seen = []
async def main():
    await Wait()
    await seen[0].create_connection(list, '127.0.0.1', @PORT@)
asyncio.run(main())
""",
    "the future that a tool's answer waits on": """
async def answer():
    return 1
async def main():
    called = t.echo(1)
    step = called if hasattr(called, '__await__') else asyncio.ensure_future(answer())
    loop = next(step.__await__()).get_loop()
    print('REACHED')
    await loop.create_connection(list, '127.0.0.1', @PORT@)
asyncio.run(main())
""",
    "the task behind a task, by a positional pattern": """
import abc
from dataclasses import dataclass
@dataclass
class Has(abc.ABC):
    _future: object
Has.register(asyncio.Task)
async def main():
    match asyncio.current_task():
        case Has(found):
            loop = found.get_loop()
            print('REACHED')
            await loop.create_connection(list, '127.0.0.1', @PORT@)
asyncio.run(main())
""",
    "the group that a stand-in puts into an object of one's own": """
import types
async def f():
    pass
async def main():
    space = types.SimpleNamespace()
    asyncio.TaskGroup.__init__(space)
    async with vars(space)['_inner'] as group:
        loop = group.create_task(f()).get_loop()
    print('REACHED')
    await loop.create_connection(list, '127.0.0.1', @PORT@)
async def plain():
    group = asyncio.TaskGroup()
    async with group:
        loop = group.create_task(f()).get_loop()
    await loop.create_connection(list, '127.0.0.1', @PORT@)
try:
    asyncio.run(main())
except KeyError:
    asyncio.run(plain())
""",
    "the coroutine that as_completed hands out": """
async def f():
    await asyncio.sleep(0.001)
async def main():
    for waiting in asyncio.as_completed([f()]):
        loop = next(waiting.__await__()).get_loop()
        print('REACHED')
        await loop.create_connection(list, '127.0.0.1', @PORT@)
asyncio.run(main())
""",
    "the queue behind a queue, once its class is called one's own": """
from dataclasses import dataclass
async def main():
    queue = asyncio.Queue()
    try:
        dataclass(type(queue))
        queue = queue._inner
    except Exception as e:
        print(e)
    for kind in type(queue).mro()[:-1]:
        try:
            dataclass(kind)
        except Exception as e:
            print(e)
    loop = getattr(queue, '_get_loop')()
    print('REACHED')
    await loop.create_connection(list, '127.0.0.1', @PORT@)
asyncio.run(main())
""",
    "an executor": """
async def main():
    f = await asyncio.get_running_loop().run_in_executor(None, open, '@SECRET@')
    print('REACHED')
    print(f.read())
asyncio.run(main())
""",
}

MACHINERY = {
    "import_module": """
import importlib
m = importlib.import_module('os')
print('REACHED')
m.system('touch @MARKER@')
""",
    "a module's loader reads files": """
import json
text = getattr(json, '__loader__').get_data('@SECRET@')
print('REACHED')
print(text)
""",
    "a module's specification": """
import json
text = getattr(json, '__spec__').loader.get_data('@SECRET@')
print('REACHED')
print(text)
""",
    "a loader of one's own": """
from importlib.machinery import SourceFileLoader
text = SourceFileLoader('x', '@SECRET@').get_data('@SECRET@')
print('REACHED')
print(text)
""",
    "a finder in front": """
import sys
from importlib.machinery import ModuleSpec
class Finder:
    def find_spec(self, name, path=None, target=None):
        print('REACHED', name)
        return ModuleSpec(name, self)
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        run = exec
        run("import os; print(os.environ['PLANTED_SECRET'])", vars(module))
sys.meta_path.insert(0, Finder())
import nothing_of_that_name
""",
    "a hook for paths": """
import sys
def hook(path):
    print('REACHED')
    print(open('@SECRET@').read())
    raise ImportError
sys.path_hooks.insert(0, hook)
sys.path_importer_cache.clear()
sys.path.insert(0, '/nothing')
import nothing_of_that_name
""",
    "a module put into the table": """
import sys, types
m = types.ModuleType('json')
m.loads = m.dumps = lambda *a, **k: sys.modules['os'].environ['PLANTED_SECRET']
sys.modules['json'] = m
import json
print('REACHED')
print(json.loads('1'))
""",
    "the import function exchanged": """
import builtins
real = builtins.__import__
builtins.__import__ = lambda name, *a, **k: real('os')
import json
print('REACHED')
print(json.environ['PLANTED_SECRET'])
builtins.__import__ = real
""",
    "a module loaded anew": """
import importlib, json
m = importlib.reload(json)
print('REACHED')
print(m.codecs.open('@SECRET@').read())
""",
    "a resource by an absolute path": """
from importlib import resources
text = resources.files('json').joinpath('@SECRET@').read_text()
print('REACHED')
print(text)
""",
    "data of a package by a path that leads up": """
import pkgutil
text = pkgutil.get_data('json', '../' * 20 + '@SECRET@')
print('REACHED')
print(text)
""",
    "the frozen importer": """
import _frozen_importlib_external as e
print('REACHED')
print(e.FileLoader('x', '@SECRET@').get_data('@SECRET@'))
""",
    "the C half of the importer": """
import _imp
m = _imp.create_builtin(type('S', (), {'name': 'posix', 'origin': None}))
print('REACHED')
m.system('touch @MARKER@')
""",
    "an import by way of unpickling": """
import pickle
o = pickle.loads(b'cposix\\nsystem\\n.')
print('REACHED')
o('touch @MARKER@')
""",
    "an import by way of a codec": """
import codecs
codecs.register(lambda name: __import__('os').system('touch @MARKER@') and None)
try:
    'x'.encode('nothing-of-that-name')
except LookupError:
    print('REACHED')
""",
}


@pytest.mark.parametrize("code", STATEMENTS.values(), ids=STATEMENTS.keys())
async def test_no_import_statement_brings_a_way_out(code: str, arena: Arena) -> None:
    await arena.repels(code)


@pytest.mark.parametrize("code", ROUTES.values(), ids=ROUTES.keys())
async def test_no_allowed_module_leads_to_another(code: str, arena: Arena) -> None:
    await arena.repels(code)


@pytest.mark.parametrize("code", LOOPS.values(), ids=LOOPS.keys())
async def test_no_event_loop_leads_out(code: str, arena: Arena) -> None:
    await arena.repels(code)


@pytest.mark.parametrize("code", MACHINERY.values(), ids=MACHINERY.keys())
async def test_no_part_of_the_import_machinery_leads_out(code: str, arena: Arena) -> None:
    await arena.repels(code)
