"""Types: objects that are not what they say they are, classes that are made in odd ways, and the hooks by which Python
calls a class without being asked. Guards look at names, types and values; these lie about all three."""

import pytest

from sandbox.tests.escapes.conftest import Arena

pytestmark = pytest.mark.anyio

_READ = """
    b = found['__builtins__']
    print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
"""
"""Goes on from a function's globals, in `found`."""

LIARS = {
    # CVE-2026-34938, PraisonAI: the guard asked the name whether it began with an underscore.
    "a name that denies its beginning": """
class Name(str):
    def startswith(self, *prefix):
        return False
found = getattr(lambda: 0, Name('__globals__'))
if found:
    print('REACHED')"""
    + _READ,
    "a name whose hash comes right after the check": """
class Name(str):
    lies = 0
    def __hash__(self):
        self.lies -= 1
        return 1 if self.lies >= 0 else str.__hash__(self)
def read(value, text):
    for lies in range(6):
        name = Name(text)
        name.lies = lies
        try:
            found = getattr(value, name)
        except Exception:
            continue
        if found is not None:
            return found
f = read((x for x in [1]), 'gi_frame')
if f:
    print('REACHED')
    print(read(f, 'f_builtins')['open']('@SECRET@').read())
""",
    "a name that is another one when it is used": """
class Name(str):
    def __str__(self):
        return 'real'
    def __getitem__(self, index):
        return 'r'
    def __contains__(self, part):
        return False
    def startswith(self, *prefix):
        return False
    def __len__(self):
        return 4
    def lower(self):
        return self
    strip = lstrip = casefold = lower
found = getattr(lambda: 0, Name('__globals__'))
if found:
    print('REACHED')"""
    + _READ,
    "a name whose class says it is text": """
class Name:
    @property
    def __class__(self):
        return str
    def __str__(self):
        return '__globals__'
    def startswith(self, *prefix):
        return False
    def __hash__(self):
        return hash('__globals__')
    def __eq__(self, other):
        return other == '__globals__'
found = vars(type(lambda: 0))[Name()].__get__(lambda: 0)
print('REACHED')
if found:"""
    + _READ,
    "a name that comes out of bytes": """
found = getattr(lambda: 0, bytes([95, 95, 103, 108, 111, 98, 97, 108, 115, 95, 95]).decode())
if found:
    print('REACHED')"""
    + _READ,
    "a name for an import": """
class Name(str):
    def __eq__(self, other):
        return other == 'json'
    def __hash__(self):
        return hash('json')
    def split(self, *args):
        return ['json']
    partition = lambda self, *args: ('json', '', '')
m = __import__(Name('os'))
print('REACHED')
m.system('touch @MARKER@')
""",
    "a module that says it is allowed": """
class Fake(str):
    def __hash__(self):
        return hash('math')
    def __eq__(self, other):
        return True
import importlib
m = importlib.import_module(Fake('os'))
print('REACHED')
m.system('touch @MARKER@')
""",
    "a name for a generated field": """
import dataclasses
class Name(str):
    def isidentifier(self):
        return True
code = "a or [print('REACHED'), open('@SECRET@').read()]"
C = dataclasses.make_dataclass('C', [(Name(code), object)], init=False, namespace={'a': 0})
print(repr(C()))
""",
}

CLASSES = {
    "the three-argument type": """
T = type(type(0))
C = T('C', (), {'__call__': lambda self: 1})
if C()() == 1:
    print('REACHED')
[c for c in getattr(T, '__subclasses__')(T.mro(int)[-1]) if 'BuiltinImporter' in str(c)][0].load_module('posix').system('touch @MARKER@')
""",
    "a class made with a forbidden method": """
T = type(type(0))
Name = T('Name', (str,), {'startswith': lambda self, *a: False})
found = getattr(lambda: 0, Name('__globals__'))
if found:
    print('REACHED')"""
    + _READ,
    "a metaclass": """
class M(type):
    def __call__(cls, *args):
        return getattr(cls.mro()[-1], '__subclasses__')()
class C(metaclass=M):
    pass
found = C()
print('REACHED')
[c for c in found if 'BuiltinImporter' in str(c)][0].load_module('posix').system('touch @MARKER@')
""",
    # The transformer's guards are looked up by name, and a class body looks names up in what __prepare__ gave it.
    "a namespace that answers for the guards": """
class Names(dict):
    def __getitem__(self, name):
        if name in dict.keys(self):
            return dict.__getitem__(self, name)
        if name.strip('_') in ('getattr', 'getitem', 'getiter', 'write', 'unpack_sequence', 'inplacevar'):
            print('REACHED', name)
        raise KeyError(name)
def prepare(name, bases, **options):
    return Names()
M = type(type(0))('M', (type(type(0)),), {'__prepare__': staticmethod(prepare)})
class C(M('B', (), {})):
    x = [1].append
    (y, z) = [1, 2]
    for i in [1]:
        pass
print(getattr(lambda: 0, '__builtins__')['open']('@SECRET@').read())
""",
    "an entry among the bases that is no class": """
class Base:
    def __mro_entries__(self, bases):
        found = getattr(type(self).mro()[-1], '__subclasses__')()
        print('REACHED')
        [c for c in found if 'BuiltinImporter' in str(c)][0].load_module('posix').system('touch @MARKER@')
        return (dict,)
class C(Base()):
    pass
""",
    "__init_subclass__": """
class Base:
    def __init_subclass__(cls, **options):
        found = getattr(cls.mro()[-1], '__subclasses__')()
        print('REACHED')
        [c for c in found if 'BuiltinImporter' in str(c)][0].load_module('posix').system('touch @MARKER@')
class C(Base):
    pass
""",
    "__set_name__": """
class Field:
    def __set_name__(self, owner, name):
        b = getattr(lambda: 0, '__builtins__')
        print('REACHED')
        print(b['open']('@SECRET@').read())
class C:
    x = Field()
""",
    "__class_getitem__": """
class C:
    def __class_getitem__(cls, code):
        return getattr(lambda: 0, '__builtins__')[code]
found = C['open']
print('REACHED')
print(found('@SECRET@').read())
""",
    "__instancecheck__": """
class M(type):
    def __instancecheck__(cls, value):
        print('REACHED') if 'module' in str(type(value)) else None
        return True
    def __subclasscheck__(cls, other):
        return True
class C(metaclass=M):
    pass
import json
print(isinstance(json, C), getattr(lambda: 0, '__builtins__')['open']('@SECRET@').read())
""",
    "the class of a method's class": """
class C:
    def f(self):
        return __class__
found = C().f().__base__.__subclasses__()
print('REACHED')
[c for c in found if 'BuiltinImporter' in str(c)][0].load_module('posix').system('touch @MARKER@')
""",
    "a class assigned to another": """
import json
class Evil(type(json)):
    def __getattr__(self, name):
        print('REACHED')
        return None
json.__class__ = Evil
json.nothing
import sys
print(sys.modules['os'].environ['PLANTED_SECRET'])
""",
    "a class assigned by setattr": """
import json
class Evil(type(json)):
    loaded = property(lambda self: print('REACHED'))
setattr(json, '__class__', Evil)
json.loaded
print(json.codecs.open('@SECRET@').read())
""",
    "a class assigned by a copy": """
import copy
class Maker:
    def __reduce_ex__(self, protocol):
        return (lambda: target), (), (None, {'__defaults__': ('REACHED',)})
def target(x=0):
    return x
copy.copy(Maker())
print(target() if target() else '')
print(getattr(target, '__builtins__')['open']('@SECRET@').read())
""",
    "slots that are somebody else's": """
class A:
    __slots__ = ('x',)
class B:
    pass
member = A.x
found = getattr(getattr(member, '__objclass__').mro()[-1], '__subclasses__')()
print('REACHED')
[c for c in found if 'BuiltinImporter' in str(c)][0].load_module('posix').system('touch @MARKER@')
""",
    "a descriptor that gets what it likes": """
from operator import attrgetter
class C:
    x = property(attrgetter('__class__.__base__.__subclasses__'))
found = C().x()
print('REACHED')
[c for c in found if 'BuiltinImporter' in str(c)][0].load_module('posix').system('touch @MARKER@')
""",
    "a builtin as a hook for missing attributes": """
class C:
    __getattr__ = eval
found = getattr(C(), "(lambda: 0).__builtins__")
print('REACHED')
print(found['open']('@SECRET@').read())
""",
    "a cached property": """
import functools
class C:
    x = functools.cached_property(lambda self: 1)
found = getattr(C.x.func, '__builtins__')
print('REACHED')
print(found['open']('@SECRET@').read())
""",
    "a method of a weak reference's kind": """
class C:
    pass
found = getattr(getattr(getattr(C, '__weakref__'), '__objclass__').mro()[-1], '__subclasses__')()
print('REACHED')
[c for c in found if 'BuiltinImporter' in str(c)][0].load_module('posix').system('touch @MARKER@')
""",
    "a module made by hand": """
import json
m = type(json)('posix')
loader = getattr(json, '__spec__').loader
print('REACHED')
print(loader.get_data('@SECRET@'))
""",
}

REDUCERS = {
    "a result that unpickles itself into a call": """
class R:
    def __reduce__(self):
        return exec, ("open('@MARKER@', 'w').close()",)
import pickle
pickle.loads(pickle.dumps(R()))
R()
""",
    "an argument that unpickles itself into a call": """
class R:
    def __reduce__(self):
        return exec, ("open('@MARKER@', 'w').close()",)
t.echo(R())
import pickle
pickle.loads(pickle.dumps(R()))
""",
    "an error that unpickles itself into a call": """
class E(Exception):
    def __reduce__(self):
        return exec, ("open('@MARKER@', 'w').close()",)
try:
    import pickle
    pickle.loads(pickle.dumps(E()))
except ImportError:
    pass
raise E('x')
""",
    "a session variable that unpickles itself into a call": """
class R:
    def __reduce_ex__(self, protocol):
        return exec, ("open('@MARKER@', 'w').close()",)
    __getstate__ = lambda self: {}
kept = [R()]
import copy
copy.deepcopy(kept)
""",
    "a reduction that is the name of a global": """
class R:
    __module__ = 'os'
    def __reduce__(self):
        return 'system'
[R(), t.echo([R()]), open('@MARKER@', 'w')]
""",
    "a message that is a text of its own kind": """
class S(str):
    def __getitem__(self, index):
        return S(getattr(lambda: 0, '__builtins__')['open']('@SECRET@').read())
    __format__ = encode = splitlines = strip = lambda self, *a: self[0]
class E(Exception):
    def __str__(self):
        return S('x')[:1]
raise E()
""",
    "a class whose name is computed": """
class M(type):
    @property
    def __name__(cls):
        return getattr(lambda: 0, '__builtins__')['open']('@SECRET@').read()
class E(Exception, metaclass=M):
    pass
print(E.__name__)
raise E()
""",
}


@pytest.mark.parametrize("code", LIARS.values(), ids=LIARS.keys())
async def test_no_lie_about_a_name_or_a_type_opens_a_way(code: str, arena: Arena) -> None:
    await arena.repels(code)


@pytest.mark.parametrize("code", CLASSES.values(), ids=CLASSES.keys())
async def test_no_way_of_making_a_class_opens_a_way(code: str, arena: Arena) -> None:
    await arena.repels(code)


@pytest.mark.parametrize("code", REDUCERS.values(), ids=REDUCERS.keys())
async def test_nothing_that_a_guest_gives_back_runs_on_the_host(code: str, arena: Arena) -> None:
    await arena.repels(code)


async def test_nothing_that_a_session_keeps_runs_on_the_host(arena: Arena) -> None:
    for code in (REDUCERS["a session variable that unpickles itself into a call"], "kept", "kept[0]"):
        await arena.repels(code, session="attacker/keeps")
