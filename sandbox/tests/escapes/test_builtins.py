"""Builtins: getting at `eval`, `open`, `__import__` and their like by name, under another name, or through something of
the library that evaluates text on its own account, with no guard in what it evaluates."""

import pytest

from sandbox.tests.escapes.conftest import Arena

pytestmark = pytest.mark.anyio

NAMES = {
    "eval": "print(eval('__import__(\"os\").environ[\"PLANTED_SECRET\"]'), 'REACHED')",
    "exec": "exec('import os; os.system(\"touch @MARKER@\")')\nprint('REACHED')",
    "compile": "c = compile('open(\"@MARKER@\", \"w\")', 'x', 'exec')\nprint('REACHED')\nexec(c)",
    "open": "f = open('@SECRET@')\nprint('REACHED')\nprint(f.read())",
    "open for writing": "f = open('@MARKER@', 'w')\nprint('REACHED')\nf.write('x')\nf.close()",
    "the environment in /proc": "f = open('/proc/self/environ')\nprint('REACHED')\nprint(f.read())",
    "__import__": "m = __import__('os')\nprint('REACHED')\nm.system('touch @MARKER@')",
    "input": """
import io, sys
sys.stdin = io.StringIO("open('@SECRET@').read()")
text = input()
print('REACHED')
evaluate = eval
print(evaluate(text))
""",
    "breakpoint": """
import io, sys
sys.stdin = io.StringIO("print('REACHED', open('@SECRET@').read())\\nc\\n")
breakpoint()
""",
    "a hook for breakpoints": """
import sys
sys.breakpointhook = open
f = breakpoint('@SECRET@')
print('REACHED')
print(f.read())
""",
    "globals": """
b = globals()['__builtins__']
print('REACHED')
print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
    "locals": """
b = locals().get('__builtins__')
print('REACHED')
print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
    "vars": """
b = vars()['__builtins__']
print('REACHED')
print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
    "dir and vars of what is there": """
import json
for name in dir():
    value = vars()[name]
    if hasattr(value, 'open'):
        print('REACHED')
        print(value.open('@SECRET@').read())
""",
    "__builtins__": """
b = __builtins__
print('REACHED')
print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
    "__loader__": """
m = __loader__.load_module('posix')
print('REACHED')
m.system('touch @MARKER@')
""",
    "__build_class__": """
import builtins
C = __build_class__(lambda: None, 'C')
print('REACHED')
print(builtins.open('@SECRET@').read())
""",
    "the printer of the licence": """
license._Printer__filenames = ['@SECRET@']
license._Printer__lines = None
print('REACHED')
license()
""",
    "help": """
m = getattr(getattr(type(help), '__call__'), '__globals__')['sys'].modules['os']
print('REACHED')
m.system('touch @MARKER@')
""",
    "exit": """
m = getattr(getattr(type(exit), '__call__'), '__globals__')['sys'].modules['os']
print('REACHED')
m.system('touch @MARKER@')
exit()
""",
}

ALIASES = {
    "another name": "e = eval\nprint(e('1') and 'REACHED', e('open(\"@SECRET@\").read()'))",
    "a default argument": """
def read(path, o=open):
    f = o(path)
    print('REACHED')
    return f.read()
print(read('@SECRET@'))
""",
    "a keyword's default": """
def read(path, *, o=open):
    f = o(path)
    print('REACHED')
    return f.read()
print(read('@SECRET@'))
""",
    "a decorator": """
@(lambda lines: print('REACHED', lines))
@list
@open
@(lambda function: '@SECRET@')
def f():
    pass
""",
    "a decorator of a class": """
@exec
@(lambda cls: "print('REACHED', open('@SECRET@').read())")
class C:
    pass
""",
    "a list of functions": "for f in [exec]:\n    f(\"print('REACHED', open('@SECRET@').read())\")",
    "a map": "print(list(map(eval, [\"print('REACHED') or open('@SECRET@').read()\"])))",
    "a sort key": "sorted(['1', \"print('REACHED', open('@SECRET@').read()) or 1\"], key=eval)",
    "a walrus": "print((o := open) and (f := o('@SECRET@')) and [print('REACHED'), f.read()])",
    "an unpacking": "o, *rest = [open, 1]\nf = o('@SECRET@')\nprint('REACHED')\nprint(f.read())",
    "a dict": "d = {'o': open}\nf = d['o']('@SECRET@')\nprint('REACHED')\nprint(f.read())",
    "a capture": """
match open:
    case o:
        f = o('@SECRET@')
        print('REACHED')
        print(f.read())
""",
    "a class attribute": """
class C:
    o = staticmethod(open)
f = C.o('@SECRET@')
print('REACHED')
print(f.read())
""",
    "an item that is a call": """
class C:
    __class_getitem__ = eval
print(C["[print('REACHED'), open('@SECRET@').read()]"])
""",
    "an operator that is a call": """
class C:
    def __add__(self, code, run=exec):
        return run(code)
C() + "print('REACHED', open('@SECRET@').read())"
""",
    "a context manager": """
class C:
    def __enter__(self):
        return open
    def __exit__(self, *args):
        pass
with C() as o:
    f = o('@SECRET@')
    print('REACHED')
    print(f.read())
""",
    "an iterator that calls until the end": """
for f in iter(lambda: open('@SECRET@'), None):
    print('REACHED')
    print(f.read())
    break
""",
    "a partial": "import functools\nf = functools.partial(open, '@SECRET@')()\nprint('REACHED')\nprint(f.read())",
    "a lambda within a comprehension": "print([(lambda f: [print('REACHED'), f.read()])(o('@SECRET@')) for o in [open]])",
    "an error's message": """
try:
    raise ValueError(open)
except ValueError as e:
    f = e.args[0]('@SECRET@')
    print('REACHED')
    print(f.read())
""",
    "a coroutine's argument": """
async def read(o=open):
    f = o('@SECRET@')
    print('REACHED')
    return f.read()
print(asyncio.run(read()))
""",
    "another thread of the loop": """
async def main():
    f = await asyncio.to_thread(open, '@SECRET@')
    print('REACHED')
    print(f.read())
asyncio.run(main())
""",
}

_PAYLOAD = (
    "[print('REACHED'), [c for c in ().__class__.__base__.__subclasses__() if c.__name__ == 'BuiltinImporter'][0]"
    ".load_module('posix').system('touch @MARKER@')]"
)
"""An expression that needs no builtins and no imports, only to be evaluated by somebody who does not guard it."""

EVALUATORS = {
    # functools alone is enough: it reads the annotation of the first argument.
    "singledispatch reads an annotation": f"""
import functools
@functools.singledispatch
def f(x):
    return x
def g(x: \"\"\"{_PAYLOAD}\"\"\"):
    return x
f.register(g)
""",
    "singledispatchmethod reads an annotation": f"""
import functools
class C:
    @functools.singledispatchmethod
    def f(self, x):
        return x
    def g(self, x: \"\"\"{_PAYLOAD}\"\"\"):
        return x
    f.register(g)
""",
    "get_type_hints of a function": f"""
import typing
def g(x: \"\"\"{_PAYLOAD}\"\"\"):
    return x
typing.get_type_hints(g)
""",
    "get_type_hints of a class": f"""
from typing import get_type_hints
class C:
    x: \"\"\"{_PAYLOAD}\"\"\"
get_type_hints(C)
""",
    "get_type_hints of a module": """
import typing
x: "[print('REACHED'), open('@SECRET@').read()]"
class Module:
    pass
holder = Module()
setattr(holder, '__annotations__', {'x': "print('REACHED', open('@SECRET@').read())"})
typing.get_type_hints(holder)
""",
    "a forward reference": f"""
import sys, typing
r = typing.ForwardRef(\"\"\"{_PAYLOAD}\"\"\")
typing.get_type_hints(type('C', (), {{'__annotations__': {{'x': r}}, '__module__': 'os'}}))
""",
    "a typed dict": f"""
import typing
T = typing.TypedDict('T', {{'x': \"\"\"{_PAYLOAD}\"\"\"}})
typing.get_type_hints(T)
""",
    "a typed tuple": f"""
import typing
T = typing.NamedTuple('T', [('x', \"\"\"{_PAYLOAD}\"\"\")])
typing.get_type_hints(T)
""",
    "a generated dataclass with a name that is code": """
import dataclasses
class Name(str):
    def isidentifier(self):
        return True
code = "a or [print('REACHED'), __import__('os').system('touch @MARKER@')]"
C = dataclasses.make_dataclass('C', [(Name(code), object)], init=False, namespace={'a': 0})
repr(C())
""",
    "a dataclass with an annotation whose name is code": """
import dataclasses
code = "a or [print('REACHED'), __import__('os').system('touch @MARKER@')]"
C = type('C', (), {'__annotations__': {code: int}, 'a': 0})
repr(dataclasses.dataclass(init=False)(C)())
""",
    "inspect.signature": f"""
import inspect
def g(x: \"\"\"{_PAYLOAD}\"\"\"):
    return x
inspect.signature(g, eval_str=True)
""",
    "timeit": """
import timeit
timeit.timeit("print('REACHED', open('@SECRET@').read())", number=1)
""",
    "doctest": """
import doctest
test = doctest.DocTestParser().get_doctest(">>> print('REACHED', open('@SECRET@').read())", {}, 'x', None, 0)
doctest.DocTestRunner().run(test)
""",
    "runpy": """
import runpy
runpy.run_module('os')['system']('touch @MARKER@')
print('REACHED')
""",
    "code": """
import code
code.InteractiveInterpreter().runsource("print('REACHED', open('@SECRET@').read())")
""",
    "codeop": """
import codeop, types
c = codeop.compile_command("print('REACHED', open('@SECRET@').read())")
types.FunctionType(c, {})()
""",
    "a debugger": """
import bdb
bdb.Bdb().run("print('REACHED', open('@SECRET@').read())")
""",
    "a tracer": """
import trace
trace.Trace(count=0, trace=0).run("print('REACHED', open('@SECRET@').read())")
""",
    "resolve_name": """
import pkgutil
o = pkgutil.resolve_name('builtins:open')
print('REACHED')
print(o('@SECRET@').read())
""",
    "a patch by name": """
from unittest import mock
with mock.patch('builtins.len', 1):
    import os
    print('REACHED', os.environ['PLANTED_SECRET'])
""",
    "the configuration of logging": """
import logging.config
logging.config.dictConfig({'version': 1, 'formatters': {'f': {'()': 'posix.system', 'command': 'touch @MARKER@'}}})
print('REACHED')
""",
    "a syntax tree built by hand": """
import ast
tree = ast.parse("print('REACHED', open('@SECRET@').read())")
run, make = exec, compile
run(make(ast.fix_missing_locations(tree), 'x', 'exec'))
""",
}


@pytest.mark.parametrize("code", NAMES.values(), ids=NAMES.keys())
async def test_no_builtin_harms_by_its_name(code: str, arena: Arena) -> None:
    await arena.repels(code)


@pytest.mark.parametrize("code", ALIASES.values(), ids=ALIASES.keys())
async def test_no_builtin_harms_under_another_name(code: str, arena: Arena) -> None:
    await arena.repels(code)


@pytest.mark.parametrize("code", EVALUATORS.values(), ids=EVALUATORS.keys())
async def test_nothing_evaluates_text_for_the_guest(code: str, arena: Arena) -> None:
    await arena.repels(code)
