"""Published escapes from other sandboxes for model-written or user-written Python. The identifier comes first in each
name; the comment says what was wrong there. The programs are our own; what they do is what the advisory describes."""

from typing import Any

import pytest

from mcpgate_sandbox.engine import Limits
from sandbox.tests.escapes.conftest import Arena

pytestmark = pytest.mark.anyio

RESTRICTED_PYTHON = {
    # Stack frames of generators and generator expressions were readable.
    "CVE-2023-37271 generator expression": """
def gen():
    a = yield
gen = gen()
found = [f.f_back for f in (g.gi_frame for g in [gen, (x for x in [1])]) if f]
frame = (x for x in [1]).gi_frame
print('REACHED', found)
print(frame.f_builtins['open']('@SECRET@').read())
""",
    # Formats read any attribute.
    "CVE-2023-41039 format_map": """
import random
text = '{r.__init__.__globals__[_os].environ[PLANTED_SECRET]}'.format_map({'r': random.Random})
print('REACHED', text)
""",
    # AttributeError.obj led from the string module's error to its globals.
    "CVE-2024-47532 AttributeError.obj": """
import string
try:
    string.nothing_of_that_name
except AttributeError as e:
    m = getattr(e.obj, '_re').enum.sys.modules['os']
    print('REACHED')
    m.system('touch @MARKER@')
""",
    # except* takes what split() of an exception returns for a pair, whatever it is: type confusion in CPython < 3.13.2.
    "CVE-2025-22153 except*": """
class Evil(BaseExceptionGroup):
    def split(self, *args):
        return 'not a tuple'
try:
    try:
        raise Evil('x', [Exception()])
    except* Exception:
        pass
except BaseException as e:
    print(type(e))
""",
    "CVE-2025-22153 except* with objects of one's own": """
class Evil(BaseExceptionGroup):
    def split(self, *args):
        return [b'@' * 64, 1 << 400]
    derive = split
try:
    try:
        raise Evil('x', [Exception()])
    except* Exception as e:
        print(e)
except BaseException as e:
    print(type(e))
""",
    # A positional-only parameter took the place of the guard of writing, and a shared module was written to.
    "CVE-2026-55830 positional-only guard": """
import json
def f(_write_, /):
    json.dumps = lambda *a, **k: 'poisoned'
f(lambda value, *name: value)
if json.dumps([]) == 'poisoned':
    print('REACHED')
""",
    # string.Formatter resolved fields without the guard and handed out the object.
    "CVE-2026-76825 Formatter.get_field": """
from string import Formatter
found = Formatter().get_field('0.__globals__[__builtins__]', (lambda: 0,), {})[0]
print('REACHED')
print((found['open'] if isinstance(found, dict) else found.open)('@SECRET@').read())
""",
    "CVE-2026-76825 Formatter subclass": """
import string
class F(string.Formatter):
    def get_value(self, key, args, kwargs):
        return lambda: 0
    def check_unused_args(self, used, args, kwargs):
        print(used)
found = F().get_field('x.__builtins__', (), {})[0]
print('REACHED')
print(found['open']('@SECRET@').read())
""",
    # The advice of 2026: operator brings the same back.
    "RestrictedPython #330 operator": """
import operator
found = operator.attrgetter('__builtins__')(lambda: 0)
print('REACHED')
print(operator.itemgetter('open')(found)('@SECRET@').read())
""",
    # Builtins that iterate in C went past the guard of iteration.
    "RestrictedPython #335 iteration in C": """
class Secret:
    def __iter__(self):
        return iter([getattr(lambda: 0, '__builtins__')])
for taker in (sorted, tuple, bytes, lambda x: list(zip(x))):
    try:
        (found,) = taker(Secret())
    except Exception:
        continue
    print('REACHED')
    print((found[0] if isinstance(found, tuple) else found)['open']('@SECRET@').read())
""",
    "RestrictedPython #142 getattr chain": """
def bypass():
    classes = getattr(getattr(getattr([], '__class__'), '__base__'), '__subclasses__')()
    found = [c for c in classes if 'IncrementalEncoder' in str(c)].pop()
    return getattr(getattr(found, '__init__'), '__globals__').get('open')
print('REACHED', bypass()('@SECRET@').read())
""",
}

AGENTS = {
    # Modules on the list led to modules that were not.
    "CVE-2025-5120 smolagents: submodules": """
import queue
m = queue.threading._os
print('REACHED')
m.system('touch @MARKER@')
""",
    "CVE-2025-5120 smolagents: a module's loader": """
import random
m = random.__spec__.loader.load_module('random')._os
print('REACHED')
m.system('touch @MARKER@')
""",
    # Names with two underscores, in calls, subclass lists and so on.
    "CVE-2025-9959 smolagents: dunder chain": """
classes = {}.__class__.__bases__[0].__subclasses__()
loader = [c for c in classes if c.__name__ == 'BuiltinImporter'][0]()
print('REACHED')
loader.load_module('posix').system('touch @MARKER@')
""",
    # The fix looked at one way of reading attributes out of three.
    "CVE-2026-4963 smolagents: augmented assignment": """
class Take:
    def __radd__(self, value):
        taken.append(value)
        return value
taken = []
x = lambda: 0
try:
    x.__builtins__ += Take()
except Exception:
    pass
if taken:
    print('REACHED')
    print(taken[0]['open']('@SECRET@').read())
""",
    "CVE-2026-4963 smolagents: code overwritten by setattr": """
def target():
    pass
def source():
    return open('@SECRET@').read()
setattr(target, '__code__', getattr(source, '__code__'))
print('REACHED')
print(target())
""",
    "CVE-2026-4963 smolagents: with": """
class Manager:
    def __enter__(self):
        return getattr(lambda: 0, '__builtins__')
    def __exit__(self, *error):
        pass
with Manager() as b:
    print('REACHED')
    print(b['open']('@SECRET@').read())
""",
    # The answer of the guest was unpickled on the host.
    "CVE-2025-14931 smolagents: an answer that is unpickled": """
class Answer:
    def __reduce__(self):
        return __import__('os').system, ('touch @MARKER@',)
try:
    import pickle
    pickle.loads(pickle.dumps(Answer()))
except ImportError:
    pass
Answer()
""",
    "smolagents #2395: a time bomb": """
class Bomb:
    def __del__(self):
        open('@MARKER@', 'w').close()
    def __eq__(self, other):
        open('@MARKER@', 'w').close()
        return True
bomb = Bomb()
bomb == 1
""",
    # In Pyodide the blocked modules were there under other names, and ctypes called the host's C functions.
    "CVE-2025-68668 n8n: the C library": """
import ctypes
system = ctypes.CDLL(None).system
print('REACHED')
system(b'touch @MARKER@')
""",
    "CVE-2025-68668 n8n: a private copy of a blocked module": """
import _pyodide_core
""",
    "CVE-2025-68668 n8n: the language outside": """
import js
js.eval('process.env')
""",
    # A format made an AttributeError, and the error carried the object that the checker had kept out of sight.
    "CVE-2026-0863 n8n: an exception made by a format": """
try:
    '{0.__globals__.nothing}'.format(lambda: 0)
except AttributeError as e:
    found = e.obj
    b = found['__builtins__']
    print('REACHED')
    print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
    "CVE-2026-0863 n8n: an exception made by a format map": """
class Keys(dict):
    def __missing__(self, name):
        return lambda: 0
try:
    '{x.__builtins__.nothing}'.format_map(Keys())
except AttributeError as e:
    o = e.obj['open']
    print('REACHED')
    print(o('@SECRET@').read())
""",
    # The Python code node could be left; the details were not published. Names that its list of forbidden ones lacks.
    "CVE-2026-49444 n8n: names that a list forgets": """
for name in ('__objclass__', '__self__', '__wrapped__', '__thisclass__', '__reduce_ex__', '__init_subclass__'):
    for value in (print, str.join, type(lambda: 0), [].append):
        found = getattr(value, name, None)
        if found is None or isinstance(found, (str, list)):
            continue
        if hasattr(found, 'open'):
            print('REACHED')
            print(found.open('@SECRET@').read())
""",
    "CVE-2026-27494 n8n: reading a file by way of an import's error": """
import sys
try:
    sys.path_hooks[0]('@SECRET@')
except ImportError as e:
    print('REACHED', e)
    print(open('@SECRET@').read())
""",
    "n8n #33130: an allowed function imports for the code": """
import functools
m = functools.reduce(lambda name, f: f(name), [__import__], 'os')
print('REACHED')
m.system('touch @MARKER@')
""",
    # The module of an allowed function.
    "CVE-2026-32640 simpleeval: modules behind modules": """
import statistics
m = statistics.sys.modules['os']
print('REACHED')
m.system('touch @MARKER@')
""",
    "CVE-2026-32640 simpleeval: a forbidden function as a callback": """
import functools
text = functools.reduce(lambda f, x: f(x).read(), ['@SECRET@'], open)
print('REACHED', text)
""",
    "simpleeval: a generator's frame": """
g = (g.gi_frame.f_builtins for _ in (1,))
b = [x for x in g][0]
print('REACHED')
print(b['open']('@SECRET@').read())
""",
    # print.__reduce__() held getattr.
    "asteval #86: a reduction holds getattr": """
class C:
    def f(self):
        pass
look, (value, name) = C().f.__reduce__()
print('REACHED')
print(look(lambda: 0, '__builtins__')['open']('@SECRET@').read())
""",
    "CVE-2025-24359 asteval: a format leaks the interpreter": """
class Out(Exception):
    pass
try:
    f'{(lambda: 0):{"x"}}'
except TypeError as e:
    tb = getattr(e, '__traceback__')
    b = getattr(getattr(tb, 'tb_frame'), 'f_builtins')
    print('REACHED')
    print(b['open']('@SECRET@').read())
""",
    "CVE-2026-55244 asteval: exits that are no Exceptions": """
try:
    raise SystemExit('REACH' + 'ING')
except BaseException:
    pass
raise KeyboardInterrupt
""",
    # The guard asked the name, which was a str of the attacker's own making.
    "CVE-2026-34938 PraisonAI: str subclass": """
class N(str):
    def startswith(self, prefix, *rest):
        return False
found = getattr(getattr(lambda: 0, N('__class__')), N('__base__'), None)
classes = getattr(found, N('__subclasses__'))()
print('REACHED')
[c for c in classes if 'BuiltinImporter' in str(c)][0].load_module('posix').system('touch @MARKER@')
""",
    "CVE-2026-39888 PraisonAI: frames of an exception": """
try:
    1 / 0
except Exception as e:
    f = getattr(getattr(e, '__traceback__'), 'tb_frame')
    while f:
        print('REACHED')
        print(getattr(f, 'f_builtins')['open']('@SECRET@').read())
        f = getattr(f, 'f_back')
""",
    "CVE-2026-47392 PraisonAI: print.__self__": """
m = getattr(print, '__' + 'self__')
print('REACHED')
print(m.open('@SECRET@').read())
""",
    # Names of modules were blocked at import, the objects behind them were there all the same.
    "CVE-2026-37008 CrewAI: no import needed": """
found = [c for c in object.__subclasses__() if c.__module__ == '_frozen_importlib']
print('REACHED')
[c for c in found if hasattr(c, 'load_module')][0].load_module('posix').system('touch @MARKER@')
""",
    "CrewAI #4643: the dict of type": """
d = getattr(type(type(0)), '__di' + 'ct__')
classes = d['__sub' + 'classes__'](type(()).mro()[-1])
print('REACHED')
[c for c in classes if 'BuiltinImporter' in str(c)][0].load_module('posix').system('touch @MARKER@')
""",
    # Validating a function evaluated its decorators and defaults.
    "CVE-2025-3248 Langflow: code in a decorator": """
@exec
@(lambda f: "print('REACHED', open('@SECRET@').read())")
def validate():
    pass
""",
    "CVE-2025-3248 Langflow: code in a default": """
def validate(x=__import__('os').system('touch @MARKER@')):
    pass
print('REACHED')
""",
    "Langflow #13880: a format built at run time": """
import random
name = '_' * 2 + 'init' + '_' * 2
text = ('{0.' + name + '.' + name.replace('init', 'globals') + '[_os].environ[PLANTED_SECRET]}').format(random.Random)
print('REACHED', text)
""",
    # The wrapper of the sandbox was a variable of the code's own module.
    "CVE-2026-5752 Terrarium: the prototype of a dict": """
class D(dict):
    def __missing__(self, name):
        return getattr(lambda: 0, '__builtins__')
found = D()['__builtins__']
print('REACHED')
print(found['open']('@SECRET@').read())
""",
    # A filter of words.
    "CVE-2024-12366 PandasAI: words put together": """
m = getattr(__builtins__, '__imp' + 'ort__')('o' + 's') if hasattr(__builtins__, '__import__') else __import__('o' + 's')
print('REACHED')
m.system('touch @MARKER@')
""",
    "CVE-2023-39662 llama_index: exec of an answer": """
exec(t.echo("print('REACHED', open('@SECRET@').read())"))
""",
    "CVE-2023-29374 LangChain: exec in a chain": """
__import__('os').system('touch @MARKER@')
print('REACHED')
""",
    "KiroCrew #1624: a helper forwards private attributes": """
def peek(value, *names):
    for name in names:
        value = getattr(value, name)
    return value
b = peek(t.echo, '__globals__')['__builtins__']
print('REACHED')
print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
    "smolagents #2271: classes listed by a format": """
text = '{0.__class__.__base__.__subclasses__}'.format(())
print('REACHED', text)
print(open('@SECRET@').read())
""",
}

# open-chat-studio #4239: `json.dumps = …` in one tenant's code changed json for every other tenant of the worker.
POISON = {
    "open-chat-studio #4239: a module's function": "import json\njson.dumps = json.loads = lambda *a, **k: 'poisoned'",
    "open-chat-studio #4239: by setattr": "import json\nsetattr(json, 'dumps', lambda *a, **k: 'poisoned')",
    "by the target of a loop": "import json\nfor json.dumps in [lambda *a, **k: 'poisoned']:\n    pass",
    "by the target of a comprehension": "import json\n[0 for json.loads in [lambda *a, **k: 'poisoned']]",
    "by the target of a context": (
        "import contextlib, json\nwith contextlib.nullcontext(lambda *a, **k: 'poisoned') as json.dumps:\n    pass"
    ),
    "by an unpacking": "import json\n(json.dumps, *json.rest), x = [lambda *a, **k: 'poisoned', 2], 3",
    "by an annotated assignment": "import json\njson.dumps: object = lambda *a, **k: 'poisoned'",
    "by deleting": "import json\ndel json.dumps",
    "by an augmented assignment": "import math\nmath.pi += 1",
    "by wraps": (
        "import functools, json\ndef dumps(*a, **k):\n    return 'poisoned'\ndumps.dumps = dumps\n"
        "functools.wraps(dumps, assigned=('dumps',), updated=())(json)"
    ),
    "by a deep copy": (
        "import copy, json, types\n"
        "state = {'dumps': lambda *a, **k: 'poisoned'}\n"
        "trick = types.SimpleNamespace(**{'__reduce_ex__': lambda p: (lambda: json, (), (None, state))})\n"
        "copy.deepcopy(trick)"
    ),
    "by an enum's names": "import enum\nenum.global_enum(enum.Enum('E', {'len': 1, 'sum': 2}, module='builtins'))",
    "by a class's attribute": "import json\njson.JSONEncoder.default = lambda *a: 'poisoned'\njson.JSONEncoder.encode = lambda *a: 'poisoned'",
    "by a class called one's own": (
        "import json\nfrom dataclasses import dataclass\nfor kind in (type(json), json.JSONEncoder, type(t)):\n"
        "    try:\n        dataclass(kind)\n    except Exception:\n        pass\n"
        "json.dumps = json.loads = lambda *a, **k: 'poisoned'\nt.add = json.dumps"
    ),
    "by a registered type": "import numbers, collections.abc\nnumbers.Number.register(str)\ncollections.abc.Mapping.register(str)",
    "by the context of decimals": "import decimal\ndecimal.getcontext().prec = 1\ndecimal.Decimal = int",
    "by the seed": "import random\nrandom.seed(1)\nrandom.random = lambda: 0.5",
    "by the error of tools": "ToolError.__init__ = lambda self, *a: None\nToolError.__str__ = lambda self: 'poisoned'",
    "by the server": "t.add = lambda **k: 'poisoned'\nt.echo = None",
    "by the class of the server": "type(t).__getattr__ = lambda self, name: lambda **k: 'poisoned'",
    "by the builtins": "import builtins\nbuiltins.len = builtins.sum = lambda *a: 'poisoned'",
    "by a mutable default of a library's function": (
        "import json\nd = getattr(json.dumps, '__kwdefaults__')\nd['indent'] = 7\nd['sort_keys'] = True"
    ),
    "by a constant": "import string, calendar\nstring.digits = 'poisoned'\ncalendar.day_name = ['poisoned']",
    "by a list of a library's": "import keyword, calendar\nkeyword.kwlist.clear()\ncalendar.mdays[2] = 99",
    "by standard output": "import sys\nsys.stdout = sys.stderr = None\nsys.stdout.write = None",
}

CHECK = """
import calendar, decimal, json, keyword, math, numbers, random, string
print('out')
[
    json.dumps({"b": 1, "a": [1]}), json.loads("[1]"), round(math.pi, 4), len("abc"), sum([1, 2]), t.add(a=1, b=2),
    str(decimal.Decimal(1) / 3)[:8], isinstance("x", numbers.Number), string.digits, calendar.day_name[0],
    len(keyword.kwlist) > 30, calendar.monthrange(2023, 2)[1], random.random() != 0.5, t.echo("e"),
]
"""


@pytest.mark.parametrize("code", RESTRICTED_PYTHON.values(), ids=RESTRICTED_PYTHON.keys())
async def test_what_went_past_restricted_python_goes_nowhere(code: str, arena: Arena) -> None:
    await arena.repels(code, limits=Limits(cpu_s=2, timeout_s=10))


@pytest.mark.parametrize("code", AGENTS.values(), ids=AGENTS.keys())
async def test_what_went_past_others_goes_nowhere(code: str, arena: Arena) -> None:
    await arena.repels(code)


@pytest.mark.parametrize("code", POISON.values(), ids=POISON.keys())
async def test_what_one_execution_poisons_is_whole_in_the_next(code: str, arena: Arena) -> None:
    await arena.repels(code)
    expected: list[Any] = ['{"b": 1, "a": [1]}', [1], 3.1416, 3, 3, 3]
    expected += ["0.333333", False, "0123456789", "Monday", True, 28, True, "e"]
    for _ in range(2):
        outcome = await arena.run(CHECK)
        assert (outcome.error, outcome.result, outcome.stdout) == (None, expected, "out\n")


async def test_what_a_session_poisons_is_whole_in_another(arena: Arena) -> None:
    for code in POISON.values():
        await arena.run(code, session="attacker/poison")
    outcome = await arena.run(CHECK, session="neighbour/clean")
    assert outcome.error is None and outcome.stdout == "out\n"
    assert outcome.result[:6] == ['{"b": 1, "a": [1]}', [1], 3.1416, 3, 3, 3]
