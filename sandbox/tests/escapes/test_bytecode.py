"""Bytecode: code objects made or changed by hand. In restricted Python a code object is the end of every guard; in the
Wasm guest it can be used to read and write raw memory, and that memory is the guest's own."""

import pytest

from mcpgate_sandbox.engine import Limits
from sandbox.tests.escapes.conftest import Arena

pytestmark = pytest.mark.anyio

CODE = {
    "names exchanged": """
import json
def f():
    return json.loads
f.__code__ = f.__code__.replace(co_names=('json', 'codecs'))
m = f()
print('REACHED')
print(m.open('@SECRET@').read())
""",
    "constants exchanged": """
def f():
    return 'x'
code = getattr(f, '__code__')
print('REACHED')
new = code.replace(co_consts=(None, open('@SECRET@').read(), open('@SECRET@').read()))
print(type(f)(new, {})())
""",
    "a function of somebody else's code": """
import shutil
def f(source, target):
    pass
f.__code__ = shutil.copyfileobj.__code__
f.__globals__.update(COPY_BUFSIZE=100)
print('REACHED')
f(open('@SECRET@'), open('@MARKER@', 'w'), 100)
""",
    "a function without globals gets the real builtins": """
code = (lambda: open('@SECRET@').read()).__code__
F = type(lambda: 0)
print('REACHED')
print(F(code, {})())
""",
    "a function made of its own type": """
F = type(lambda: 0)
f = F(getattr(lambda: open, '__code__'), {'__name__': 'os'})
o = f()
print('REACHED')
print(o('@SECRET@').read())
""",
    "a code object made of its own type": """
code = getattr(lambda: open('@SECRET@').read(), '__code__')
C = type(code)
print('REACHED')
print(type(lambda: 0)(code.replace(co_name='x'), {})(), C)
""",
    "a generator's code": """
g = (x for x in [1])
code = getattr(g, 'gi_code')
print('REACHED')
print(list(type(lambda: 0)(code.replace(co_name='x'), {})(iter([open('@SECRET@').read()]))))
""",
    "a coroutine's code": """
async def c():
    return open('@SECRET@').read()
c = c()
code = c.cr_code
print('REACHED')
c.close()
try:
    type(lambda: 0)(code, {})().send(None)
except StopIteration as e:
    print(e.value)
""",
    "code by a pattern": """
match lambda: open('@SECRET@').read():
    case object(__code__=code):
        print('REACHED')
        print(type(lambda: 0)(code, {})())
""",
    "code in the target of a loop": """
def f():
    pass
def g():
    return open('@SECRET@').read()
for f.__code__ in [g.__code__]:
    print('REACHED')
print(f())
""",
    "code in the target of a context": """
class M:
    def __enter__(self):
        return getattr(lambda: open('@SECRET@').read(), '__code__')
    def __exit__(self, *a):
        pass
def f():
    pass
with M() as f.__code__:
    print('REACHED')
    print(f())
""",
    "code in the target of an unpacking": """
def f():
    pass
f.__code__, *rest = [getattr(lambda: open('@SECRET@').read(), '__code__'), 1]
print('REACHED')
print(f())
""",
    "code copied by wraps": """
import codecs, functools, json
def f(text):
    return 'my own'
functools.update_wrapper(f, json.detect_encoding, assigned=('__code__',), updated=())
if f(b'x') != 'my own':
    print('REACHED')
print(type(f)(getattr(lambda: open('@SECRET@').read(), '__code__'), {})())
""",
    "one's own code in a library's function": """
import functools, json
def mine(*args, **kwargs):
    found = globals()
    print('REACHED')
    return open('@SECRET@').read(), found
functools.wraps(mine, assigned=('__code__',), updated=())(json.dumps)
print(json.dumps(1))
""",
    "one's own code in a guard": """
import functools, operator
class Own:
    x = 1
def mine(*args):
    return [globals(), open]
try:
    functools.wraps(mine, assigned=('__code__',), updated=())(getattr)
except AttributeError:
    functools.wraps(mine, assigned=('__code__',), updated=())(t.echo)
found = Own.x if isinstance(Own.x, list) else t.echo()
if 'policy' in found[0] or 'wire' in found[0] or found[1] is not open:
    print('REACHED')
print(found[1]('@SECRET@').read())
""",
    "one's own code in a guard, by a deep copy": """
import copy, functools, types
def mine(*args):
    return ['mine', open]
space = functools.wraps(mine, assigned=('__code__',), updated=())(types.SimpleNamespace())
state = {'__code__': vars(space)['__code__']}
for target in (getattr, t.echo):
    trick = types.SimpleNamespace(**{'__reduce_ex__': lambda protocol: (lambda: target, (), (None, state))})
    try:
        copy.deepcopy(trick)
    except Exception as e:
        print(e)
        continue
    found = target('x', 'y') if target is getattr else target('x')
    if found[0] == 'mine':
        print('REACHED')
        print(found[1]('@SECRET@').read())
""",
    "code by dis": """
import dis
code = dis.Bytecode(lambda: open('@SECRET@').read()).codeobj
print('REACHED')
print(type(lambda: 0)(code, {})())
""",
    "code by compile": """
make, run = compile, exec
run(make("print('REACHED', open('@SECRET@').read())", 'x', 'exec'))
""",
    "code by marshal": """
import marshal
make = compile
code = marshal.loads(marshal.dumps(make("print('REACHED', open('@SECRET@').read())", 'x', 'exec')))
type(lambda: 0)(code, {})()
""",
    "a jump over a guard": """
import sys
def f():
    allowed = False
    if allowed:
        print('REACHED', open('@SECRET@').read())
def trace(frame, event, arg):
    if event == 'line' and frame.f_code.co_name == 'f' and frame.f_lineno == frame.f_code.co_firstlineno + 1:
        frame.f_lineno += 2
    return trace
sys.settrace(trace)
f()
""",
    "a cell that is written": """
def outer():
    x = None
    def read(path):
        return x(path).read()
    return read
f = outer()
f.__closure__[0].cell_contents = open
print('REACHED')
print(f('@SECRET@'))
""",
    "a cell of its own type": """
import types
def outer(x):
    return lambda path: x(path).read()
f = outer(None)
g = types.FunctionType(getattr(f, '__code__'), globals(), 'g', None, (types.CellType(open),))
print('REACHED')
print(g('@SECRET@'))
""",
}

_MAKE = """
import dis, opcode, sys
def run(co_code, **changes):
    def f(a=1):
        b = a
        return b
    width = 2
    code = f.__code__.replace(co_code=bytes(co_code), **changes)
    print('REACHED')
    return type(f)(code, {})(1)
op = opcode.opmap
resume = [op['RESUME'], 0] if 'RESUME' in op else []
def far(name, index):
    out = []
    for shift in (24, 16, 8):
        if index >> shift:
            out += [op['EXTENDED_ARG'], index >> shift & 255]
    return out + [op[name], index & 255]
"""

MEMORY = {
    "a variable far beyond the frame": _MAKE
    + "x = run(resume + far('LOAD_FAST', 0x1000) + [op['RETURN_VALUE'], 0])\nprint(type(x))",
    "a variable millions beyond the frame": _MAKE
    + "x = run(resume + far('LOAD_FAST', 0x7FFFFFF) + [op['RETURN_VALUE'], 0])\nprint(type(x))",
    "a constant beyond the constants": _MAKE
    + "x = run(resume + far('LOAD_CONST', 0x4000) + [op['RETURN_VALUE'], 0], co_consts=())\nprint(type(x))",
    "a name beyond the names": _MAKE
    + "x = run(resume + far('LOAD_NAME', 0x4000) + [op['RETURN_VALUE'], 0], co_names=())\nprint(type(x))",
    "storing beyond the frame": _MAKE
    + "x = run(resume + [op['LOAD_FAST'], 0] + far('STORE_FAST', 0x2000) + [op['LOAD_FAST'], 0, op['RETURN_VALUE'], 0])\nprint(x)",
    "more on the stack than there is room": _MAKE
    + "x = run(resume + [op['LOAD_FAST'], 0] * 5000 + [op['RETURN_VALUE'], 0], co_stacksize=1)\nprint(x)",
    "popping what was never pushed": _MAKE
    + "x = run(resume + [op['POP_TOP'], 0] * 500 + [op['LOAD_FAST'], 0, op['RETURN_VALUE'], 0])\nprint(x)",
    "bytes that are no instructions": _MAKE + "x = run(resume + list(range(1, 256)) * 4)\nprint(x)",
    "no end": _MAKE + "x = run(resume + [op['LOAD_FAST'], 0])\nprint(x)",
    "a jump out of the code": _MAKE
    + "x = run(resume + far('JUMP_FORWARD', 0x100000) + [op['LOAD_FAST'], 0, op['RETURN_VALUE'], 0])\nprint(x)",
    "a table of exceptions that is none": _MAKE
    + "x = run(resume + far('LOAD_CONST', 9) + [op['RETURN_VALUE'], 0], co_exceptiontable=bytes([255] * 40))\nprint('went on')",
    "a table of lines that is none": """
import dis
def f():
    raise ValueError
f.__code__ = f.__code__.replace(co_linetable=bytes([200, 127, 255] * 50))
print('REACHED')
try:
    f()
except ValueError as e:
    print(e.__traceback__.tb_next.tb_lineno)
f()
""",
    "fewer variables than are used": """
def f(a, b, c):
    d = e = g = h = 1
    return locals()
code = f.__code__
try:
    f.__code__ = code.replace(co_varnames=('a', 'b', 'c'), co_nlocals=3)
    print('REACHED')
except ValueError:
    pass
print(f(1, 2, 3))
""",
    # An index into the constants that leads to bytes of one's own: an object made by hand, at a place of one's choice.
    "an object made by hand": """
import opcode, sys
word = 8 if sys.maxsize > 2**32 else 4
def word_of(number):
    return (number % 2 ** (8 * word)).to_bytes(word, 'little')
head = bytes.__basicsize__ - 1
fake = word_of(1000) + word_of(id(bytearray)) + word_of(2 ** (8 * word - 1) - 1) + word_of(2 ** (8 * word - 1) - 1) + word_of(0) * 3
holder = word_of(id(fake) + head)
consts = (None,)
index = (id(holder) + head - (id(consts) + tuple.__basicsize__)) // word
if 0 <= index < 2**31:
    op = opcode.opmap
    body = [op['RESUME'], 0]
    for shift in (24, 16, 8):
        body += [op['EXTENDED_ARG'], index >> shift & 255]
    body += [op['LOAD_CONST'], index & 255, op['RETURN_VALUE'], 0]
    f = lambda: None
    f.__code__ = f.__code__.replace(co_code=bytes(body), co_consts=consts)
    print('REACHED')
    memory = f()
    print(len(memory), memory[id(holder):id(holder) + 4])
    memory[id(len):id(len) + 64] = bytes(64)
    len('x')
""",
}


@pytest.mark.parametrize("code", CODE.values(), ids=CODE.keys())
async def test_no_code_object_leads_out(code: str, arena: Arena) -> None:
    await arena.repels(code)


@pytest.mark.parametrize("code", MEMORY.values(), ids=MEMORY.keys())
async def test_code_that_leaves_its_frame_stays_within_its_memory(code: str, arena: Arena) -> None:
    await arena.repels(code, limits=Limits(cpu_s=1, timeout_s=10))
