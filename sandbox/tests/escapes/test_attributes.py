"""Attributes: from any value to its class, to all classes, to a function's globals and to the builtins. Each case is
another way to have an attribute read, or to reach the same thing without reading one."""

import pytest

from sandbox.tests.escapes.conftest import Arena

pytestmark = pytest.mark.anyio

WALKS = {
    "all classes": """
found = [c for c in ().__class__.__base__.__subclasses__() if c.__name__ == '_wrap_close']
print('REACHED')
found[0].__init__.__globals__['system']('touch @MARKER@')
""",
    # RestrictedPython #142: safe names only, the forbidden ones as text.
    "all classes by getattr": """
classes = getattr(getattr(getattr([], '__class__'), '__base__'), '__subclasses__')()
print('REACHED')
found = [c for c in classes if '_wrap_close' in str(c)]
getattr(getattr(found.pop(), '__init__'), '__globals__').get('system')('touch @MARKER@')
""",
    "names put together at run time": """
def dunder(name):
    return '_' * 2 + name + chr(95) * 2
def walk(value, *names):
    for name in names:
        value = getattr(value, dunder(name))
    return value
classes = walk((), 'class', 'base', 'subclasses')()
print('REACHED')
found = [c for c in classes if 'BuiltinImporter' in repr(c)][0]
found.load_module('posix').system('touch @MARKER@')
""",
    "the importer among the classes": """
found = [c for c in object.__subclasses__() if c.__name__ == 'BuiltinImporter'][0]
print('REACHED')
found.load_module('posix').system('touch @MARKER@')
""",
    "a process class among the classes": """
import subprocess
todo, seen = [object], []
while todo:
    c = todo.pop()
    seen.append(c)
    todo += [s for s in getattr(type(c), '__subclasses__')(c) if s not in seen]
found = [c for c in seen if 'Popen' in str(c)][0]
print('REACHED')
found(['touch', '@MARKER@']).wait()
""",
    "the module that catch_warnings keeps": """
import random
found = [c for c in ().__class__.__base__.__subclasses__() if c.__name__ == 'catch_warnings'][0]
module = found()._module
print('REACHED')
print(module.__builtins__['open']('@SECRET@').read())
""",
    "mro without an underscore": """
top = type(()).mro()[-1]
loaders = [c for c in getattr(top, '__subclasses__')() if hasattr(c, 'load_module')]
print('REACHED')
loaders[0].load_module('posix').system('touch @MARKER@')
""",
    "the subclasses of an allowed exception": """
import json
todo = [type(ValueError).mro(ValueError)[-1]]
seen = []
while todo:
    found = todo.pop()
    seen.append(found)
    todo += [c for c in getattr(type(found), '__subclasses__')(found) if c not in seen]
print('REACHED')
loaders = [c for c in seen if str(c).endswith("SourceFileLoader'>")]
print(loaders[0]('x', '@SECRET@').get_data('@SECRET@'))
""",
}

FUNCTIONS = {
    "one's own function's globals": """
g = (lambda: 0).__globals__
b = g['__builtins__']
print('REACHED')
print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
    "one's own function's builtins": """
b = getattr(lambda: 0, '__builtins__')
print('REACHED')
print(b['open']('@SECRET@').read())
""",
    "a method's function": """
class C:
    def m(self):
        pass
g = getattr(getattr(C().m, '__func__'), '__globals__')
b = g['__builtins__']
print('REACHED')
print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
    "a library function's globals": """
import json
g = getattr(json.dumps, '__globals__')
print('REACHED')
print(g['__builtins__']['open']('@SECRET@').read())
""",
    # CVE-2026-47392, PraisonAI: a builtin function knows its module.
    "the module behind print": """
m = print.__self__
print('REACHED')
print(m.open('@SECRET@').read())
""",
    "the module behind a C function": """
import math
m = getattr(math.floor, '__self__')
loader = getattr(m, '__loader__')
print('REACHED')
print(type(loader).get_data(loader, '@SECRET@'))
""",
    "the globals of a tool's stub": """
g = getattr(t.echo, '__globals__')
print('REACHED')
b = g['__builtins__']
print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
    "the class of a tool": """
kind = type(t.echo)
g = getattr(getattr(kind, '__call__'), '__globals__', None) or getattr(t.echo, '__globals__')
print('REACHED')
b = g['__builtins__']
print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
    "closures, defaults and globals of whatever is at hand": """
import json
def insides(f):
    for name in ('__closure__', '__defaults__', '__kwdefaults__', '__globals__', '__wrapped__', '__self__'):
        try:
            found = getattr(f, name)
        except Exception:
            continue
        if found is None or found is f:
            continue
        yield name, found
for f in (print, getattr, isinstance, sorted, json.loads, json.dumps, t.echo, range):
    for name, found in insides(f):
        print('REACHED', name)
        values = found if isinstance(found, dict) else {}
        b = values.get('__builtins__', found)
        opener = b.get('open') if isinstance(b, dict) else getattr(b, 'open', None)
        if opener:
            print(opener('@SECRET@').read())
""",
    "the contents of a closure's cell": """
def outer(secret):
    return lambda: secret
import json
(cell,) = getattr(outer(json), '__closure__')
cell = getattr(cell, 'cell_contents')
print('REACHED')
print(cell.codecs.open('@SECRET@').read())
""",
    "a named tuple's methods": """
import collections
N = collections.namedtuple('N', 'a')
m = getattr(N._asdict, '__globals__')['_sys'].modules['os']
print('REACHED')
m.system('touch @MARKER@')
""",
    "an enum's methods": """
import enum
class Color(enum.Enum):
    RED = 1
m = getattr(getattr(Color, '__reduce_ex__'), '__globals__')['sys'].modules['os']
print('REACHED')
m.system('touch @MARKER@')
""",
    "the function behind a library's property": """
import fractions
m = getattr(fractions.Fraction.numerator.fget, '__globals__')['sys'].modules['os']
print('REACHED')
m.system('touch @MARKER@')
""",
    "the function behind a decorated one": """
import contextlib
@contextlib.contextmanager
def f():
    yield
g = getattr(getattr(f, '__wrapped__'), '__globals__')
b = g['__builtins__']
print('REACHED')
print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
    "what a copy is made with": """
maker = getattr(object(), '__reduce_ex__')(2)[0]
print('REACHED')
print(getattr(maker, '__globals__')['__builtins__']['open']('@SECRET@').read())
""",
}

READERS = {
    "attrgetter": """
import operator
classes = operator.attrgetter('__class__.__base__.__subclasses__')(())()
print('REACHED')
[c for c in classes if 'BuiltinImporter' in str(c)][0].load_module('posix').system('touch @MARKER@')
""",
    "methodcaller": """
from operator import methodcaller
g = methodcaller('__getattribute__', '__globals__')(lambda: 0)
b = g['__builtins__']
print('REACHED')
print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
    "object.__getattribute__": """
g = object.__getattribute__(lambda: 0, '__globals__')
b = g['__builtins__']
print('REACHED')
print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
    "super()": """
class C:
    def f(self):
        return super()
found = getattr(getattr(C().f(), '__thisclass__').mro()[-1], '__subclasses__')()
print('REACHED')
[c for c in found if 'BuiltinImporter' in str(c)][0].load_module('posix').system('touch @MARKER@')
""",
    "a fold over getattr": """
from functools import reduce
classes = reduce(getattr, ['__class__', '__base__', '__subclasses__'], ())()
print('REACHED')
[c for c in classes if 'BuiltinImporter' in str(c)][0].load_module('posix').system('touch @MARKER@')
""",
    "map over getattr": """
(g,) = map(getattr, [lambda: 0], ['__globals__'])
b = g['__builtins__']
print('REACHED')
print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
    "partial of getattr": """
import functools
look = functools.partial(getattr, lambda: 0)
b = look('__builtins__')
print('REACHED')
print(b['open']('@SECRET@').read())
""",
    "getattr with a default that hides the refusal": """
g = getattr(lambda: 0, '__globals__', {})
if '__builtins__' in g:
    print('REACHED')
    b = g['__builtins__']
    print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
    "vars of a class": """
classes = vars(type(type(0)))['__subclasses__'](type(()).mro()[-1])
print('REACHED')
[c for c in classes if 'BuiltinImporter' in str(c)][0].load_module('posix').system('touch @MARKER@')
""",
    "unpacking a class's dict": """
names = {**type.__dict__}
classes = names['__subclasses__'](object)
print('REACHED')
[c for c in classes if 'BuiltinImporter' in str(c)][0].load_module('posix').system('touch @MARKER@')
""",
    "vars of a module": """
import json
m = vars(json)['codecs']
print('REACHED')
print(m.open('@SECRET@').read())
""",
    "dir of a module, then by name": """
import random
for name in dir(random):
    m = getattr(random, name)
    if hasattr(m, 'system'):
        print('REACHED')
        m.system('touch @MARKER@')
""",
    "a pattern's keyword": """
match lambda: 0:
    case object(__globals__={'__builtins__': b}):
        print('REACHED')
        print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
    "patterns all the way": """
match ():
    case object(__class__=type(__base__=type(__subclasses__=s))):
        print('REACHED')
        [c for c in s() if 'BuiltinImporter' in str(c)][0].load_module('posix').system('touch @MARKER@')
""",
    "a pattern whose names are a dataclass's fields": """
import abc, dataclasses
Has = dataclasses.make_dataclass('Has', [('_' * 2 + 'globals' + '_' * 2, object)], bases=(abc.ABC,))
Has.register(type(lambda: 0))
match lambda: 0:
    case Has(g):
        print('REACHED')
        b = g['__builtins__']
        print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
    "a pattern that binds a bound method": """
import random
match '{0.__init__.__globals__[_os].environ[PLANTED_SECRET]}':
    case str(format=f):
        text = f(random.Random)
        print('REACHED')
        print(text)
""",
    # CVE-2026-4963, smolagents: the read of an augmented assignment went unguarded.
    "a pattern's value, compared by the subject": """
import abc, collections.abc, contextlib, json
class Spy:
    def __eq__(self, other):
        seen.append(other)
        return True
seen = []
class Holder:
    pass
@contextlib.contextmanager
def manager():
    yield
made = manager()
match Spy():
    case made.gen.gi_frame:
        pass
if seen:
    print('REACHED')
    print(getattr(seen[0], 'f_builtins')['open']('@SECRET@').read())
""",
    "an augmented assignment": """
class Catch:
    def __radd__(self, value):
        self.value = value
        return value
c = Catch()
def f():
    pass
try:
    f.__globals__ += c
except Exception:
    pass
if hasattr(c, 'value'):
    print('REACHED')
    b = c.value['__builtins__']
    print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
    "wraps copies what it is told to": """
import functools
class Sink:
    def __setattr__(self, name, value):
        print('REACHED', name)
        b = value['__builtins__']
        print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
functools.update_wrapper(Sink(), lambda: 0, assigned=('__globals__',), updated=())
""",
    "wraps merges what it is told to": """
import functools, types
taken = {}
sink = types.SimpleNamespace(**{'__globals__': taken})
functools.update_wrapper(sink, lambda: 0, assigned=(), updated=('__globals__',))
if '__builtins__' in taken:
    print('REACHED')
    b = taken['__builtins__']
    print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
    "wraps merges into a generated class": """
import dataclasses, functools
taken = {}
Sink = dataclasses.make_dataclass('Sink', [], namespace={'__globals__': taken})
functools.wraps(lambda: 0, assigned=(), updated=('__globals__',))(Sink())
if '__builtins__' in taken:
    print('REACHED')
    b = taken['__builtins__']
    print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
    "wraps copies onto a namespace and vars() reads it": """
import functools, types
space = types.SimpleNamespace()
import json
functools.wraps(json.dumps, assigned=('__globals__', '__builtins__'), updated=())(space)
found = vars(space).get('__globals__')
if found:
    print('REACHED')
    print(found['__builtins__']['open']('@SECRET@').read())
""",
    "wraps copies onto an object of one's own class": """
import functools, json
class Sink:
    pass
sink = Sink()
functools.wraps(json.dumps, assigned=('__globals__',), updated=())(sink)
found = vars(sink).get('__globals__')
if found:
    print('REACHED')
    print(found['__builtins__']['open']('@SECRET@').read())
""",
    "wraps merges a library function's globals": """
import functools, json, types
taken = {}
sink = types.SimpleNamespace(**{'__globals__': taken})
functools.wraps(json.dumps, assigned=(), updated=('__globals__',))(sink)
if '__builtins__' in taken:
    print('REACHED')
    print(taken['__builtins__']['open']('@SECRET@').read())
""",
    "a pattern whose fields a deep copy has set": """
import abc, collections.abc, copy, json, types
class Has(abc.ABC):
    __hash__ = None
state = {'__match_args__': ('__globals__',)}
trick = types.SimpleNamespace(**{'__reduce_ex__': lambda protocol: (lambda: Has, (), (None, state))})
copy.deepcopy(trick)
Has.register(collections.abc.Hashable)
match json.dumps:
    case Has(found):
        print('REACHED')
        print(found['__builtins__']['open']('@SECRET@').read())
""",
    # The metaclass of enums makes any class, without a look at it, if it is told that the matter is simple.
    "a pattern whose class an enum's metaclass has made": """
import enum, json
M = enum.EnumMeta('M', (enum.EnumMeta,), {'__instancecheck__': lambda cls, value: True}, _simple=True)
Has = super(enum.EnumMeta, M).__call__(M, 'Has', (), {'__match_args__': ('__globals__',)}, _simple=True)
match json.dumps:
    case Has(found):
        print('REACHED')
        print(found['__builtins__']['open']('@SECRET@').read())
""",
    "a private attribute by a positional pattern": """
import abc, collections.abc, random
from dataclasses import dataclass
@dataclass
class Has(abc.ABC):
    _os: object
@dataclass
class Inner(abc.ABC):
    _random: object
Has.register(collections.abc.Hashable)
for value in (random, random.random, random.Random, t):
    match value:
        case Has(found):
            print('REACHED')
            found.system('touch @MARKER@')
""",
    "what a library's class keeps to itself, once it is called one's own": """
import contextlib, random, types
from dataclasses import dataclass
for kind in type(random).mro()[:-1]:
    try:
        dataclass(kind)
    except Exception:
        pass
for name in ('__dict__', '_about', '_os'):
    found = getattr(random, name, None)
    if found is not None:
        print('REACHED', name)
found.system('touch @MARKER@')
""",
    "singledispatch looks a function up by any class": """
import functools
@functools.singledispatch
def f(x):
    return 'plain'
for function in f.registry.values():
    b = getattr(function, '__globals__')['__builtins__']
    print('REACHED')
    print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
    # CVE-2024-47532, RestrictedPython < 7.3: the error hands out the object that lacked the attribute.
    "the object in an AttributeError": """
import json
try:
    json.nothing_of_that_name
except AttributeError as e:
    m = e.obj
    opener = m.codecs.open
    print('REACHED')
    print(opener('@SECRET@').read())
""",
    "a generic alias forwards attributes": """
import types
classes = getattr(types.GenericAlias(type(type(0)), int), '__subclasses__')(object)
if classes:
    print('REACHED')
    [c for c in classes if 'BuiltinImporter' in str(c)][0].load_module('posix').system('touch @MARKER@')
""",
    "typing forwards attributes of what it annotates": """
import typing
alias = typing.Annotated[type(()).mro()[-1], 1]
classes = getattr(getattr(alias, '__origin__'), '__subclasses__')()
print('REACHED')
[c for c in classes if 'BuiltinImporter' in str(c)][0].load_module('posix').system('touch @MARKER@')
""",
    "an enum made of a module's names": """
import enum
E = getattr(enum.Enum, '_convert_')('E', 'builtins', lambda name: name == 'open')
print('REACHED')
print(E['open'].value('@SECRET@').read())
""",
    "an item that is an attribute": """
names = ['__class__', '__init__', '__dict__', '__getattribute__', '_server', '_module', '_names', '_tools', '_name']
for name in names:
    try:
        found = t[name]
    except Exception:
        continue
    if found is not None and 'tool' not in repr(found):
        print('REACHED', name)
b = getattr(t.echo, '__globals__')['__builtins__']
print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
    "attributes of a server that are no tools": """
for name in ['_call', '_module', '_server', '_client', '_tools', '_names', '__dict__']:
    try:
        value = getattr(t, name)
    except Exception:
        continue
    if value is not None and 'tool ' not in repr(value):
        print('REACHED', name)
print(getattr(t.echo, '__builtins__')['open']('@SECRET@').read())
""",
    "inspect reads without asking": """
import inspect
f = inspect.getattr_static(type(lambda: 0), '__globals__')
g = dict(inspect.getmembers(lambda: 0))['__globals__']
print('REACHED')
b = g['__builtins__']
print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
}


@pytest.mark.parametrize("code", WALKS.values(), ids=WALKS.keys())
async def test_no_class_leads_to_the_others(code: str, arena: Arena) -> None:
    await arena.repels(code)


@pytest.mark.parametrize("code", FUNCTIONS.values(), ids=FUNCTIONS.keys())
async def test_no_function_exposes_its_internals(code: str, arena: Arena) -> None:
    await arena.repels(code)


@pytest.mark.parametrize("code", READERS.values(), ids=READERS.keys())
async def test_nothing_reads_a_forbidden_attribute_for_the_guest(code: str, arena: Arena) -> None:
    await arena.repels(code)
