"""Names: the transformed code looks its guards up by name, so a name that the code binds itself could take a guard's
place; and a name that is spelt in other letters could mean a forbidden one."""

import pytest

from sandbox.tests.escapes.conftest import Arena

pytestmark = pytest.mark.anyio

_TELL = "lambda *a, **k: print('REACHED')"
"""What takes the guard's place: it tells that transformed code has called it. A plain Python never does."""

SHADOWS = {
    "a variable": f"_getattr_ = {_TELL}\n[].append",
    "a global from a function": f"def f():\n    global _getattr_\n    _getattr_ = {_TELL}\nf()\n[].append",
    "a variable of the function around": (
        f"def f(_getattr_=None):\n    def g():\n        nonlocal _getattr_\n        _getattr_ = {_TELL}\n    g()\n    [].append\nf()"
    ),
    "a parameter": f"def f(_getattr_):\n    [].append\nf({_TELL})",
    # CVE-2026-55830, RestrictedPython < 8.3: of all parameters only these were not looked at.
    "a positional-only parameter": f"def f(_getattr_, /):\n    [].append\nf({_TELL})",
    "a keyword-only parameter": f"def f(*, _getattr_):\n    [].append\nf(_getattr_={_TELL})",
    "the rest of the arguments": (
        "class Rest(tuple):\n    pass\ndef f(*_getattr_):\n    [].append\n    print(len(_getattr_))\nf(1)"
    ),
    "the rest of the keywords": "def f(**_write_):\n    class C:\n        pass\n    C.x = 1\nf(a=1)",
    "a default": f"def f(_getattr_={_TELL}):\n    [].append\nf()",
    "a parameter of a lambda": f"(lambda _getattr_: [].append)({_TELL})",
    "a positional-only parameter of a lambda": f"(lambda _getattr_, /: [].append)({_TELL})",
    "a parameter of a coroutine": (
        f"async def f(_getattr_, /):\n    [].append\nc = f({_TELL})\ntry:\n    c.send(None)\nexcept StopIteration:\n    pass"
    ),
    "a parameter of a method": f"class C:\n    def m(self, _getattr_, /):\n        [].append\nC().m({_TELL})",
    "a class attribute": f"class C:\n    _getattr_ = {_TELL}\n    x = [].append",
    "the namespace of a class body": f"class C:\n    vars()['_getattr_'] = {_TELL}\n    x = [].append",
    "the locals of a class body": f"class C:\n    locals()['_getattr_'] = {_TELL}\n    x = [].append",
    "the globals": f"globals()['_getattr_'] = {_TELL}\n[].append",
    "a function": "def _getattr_(*a):\n    print('REACHED')\n[].append",
    "a coroutine function": "async def _getattr_(*a):\n    pass\nx = [].append\nif asyncio.iscoroutine(x):\n    print('REACHED')",
    "a class": "class _getattr_:\n    def __init__(self, *a):\n        print('REACHED')\n[].append",
    "an import": "import math as _getattr_\n[].append",
    "a name imported": "from functools import partial as _write_\nclass C:\n    pass\nC.x = 1",
    "a caught error": (
        "class E(Exception):\n    def __call__(self, *a):\n        print('REACHED')\n"
        "try:\n    raise E\nexcept E as _getattr_:\n    [].append"
    ),
    "a caught group": (
        "class E(Exception):\n    def __call__(self, *a):\n        print('REACHED')\n"
        "try:\n    raise ExceptionGroup('x', [E()])\nexcept* E as _getattr_:\n    [].append"
    ),
    "a capture": f"match {_TELL}:\n    case _getattr_:\n        [].append",
    "a capture of a pattern": f"match {_TELL}:\n    case object() as _getattr_:\n        [].append",
    "a capture in a sequence": f"match [{_TELL}]:\n    case [_getattr_]:\n        [].append",
    "the rest of a sequence": "match [1]:\n    case [*_getattr_]:\n        [].append",
    "the rest of a mapping": "match {'a': 1}:\n    case {**_getattr_}:\n        [].append",
    "a capture in a class": f"class P:\n    x = {_TELL}\nmatch P():\n    case P(x=_getattr_):\n        [].append",
    "a loop": f"for _getattr_ in [{_TELL}]:\n    [].append",
    "a loop over several": f"for (x, *_getattr_), _write_ in [((1, 2), {_TELL})]:\n    print.x = 1",
    "a comprehension": f"[[].append for _getattr_ in [{_TELL}]]",
    "a generator expression": f"list([].append for _getattr_ in [{_TELL}])",
    "a walrus": f"(_getattr_ := {_TELL})\n[].append",
    "a walrus in a comprehension": f"[(_getattr_ := {_TELL}) for x in [1]]\n[].append",
    "a context": (
        f"class M:\n    def __enter__(self):\n        return {_TELL}\n    def __exit__(self, *a):\n        pass\n"
        "with M() as _getattr_:\n    [].append"
    ),
    "an unpacking": f"_getattr_, x = {_TELL}, 1\n[].append",
    "an unpacking with a star": "x, *_getattr_ = 1, 2\n[].append",
    "an augmented assignment": "class A:\n    def __radd__(self, guard):\n        print('REACHED')\n_getattr_ += A()",
    "an annotation": f"_getattr_: object = {_TELL}\n[].append",
    "an annotation without a value": "def f():\n    _getattr_: object\n    try:\n        [].append\n    except NameError:\n        print('REACHED')\nf()",
    "deleting": "del _getattr_\n[].append",
    "deleting the builtins": "del __builtins__\nprint('REACHED')\nprint(open('@SECRET@').read())",
    "a type parameter of a function": "def f[_getattr_]():\n    return [].append\nf()",
    "a type parameter of a class": "class C[_getattr_]:\n    x = [].append",
    "a type alias": "type _getattr_ = int\n[].append",
    "the class maker": f"__build_class__ = {_TELL}\nclass C:\n    pass",
    "the importer": f"__import__ = {_TELL}\nimport json",
    "the metaclass": f"__metaclass__ = {_TELL}\nclass C:\n    pass",
    "the name of the module": "__package__ = __name__ = 'os'\nfrom . import system\nprint('REACHED')\nsystem('touch @MARKER@')",
    "the builtins": f"__builtins__ = {{'_getattr_': {_TELL}}}\n[].append",
    "the builtins of one function": f"def f(__builtins__):\n    return [].append\nf({{'_getattr_': {_TELL}}})",
    "the guard of writing": f"def f(_write_, /):\n    print.x = 1\nf({_TELL})",
    "the guard of items": f"def f(_getitem_, /):\n    return [1][0]\nf({_TELL})",
    "the guard of loops": f"def f(_getiter_, /):\n    return [x for x in [1]]\nf({_TELL})",
    "the guard of unpacking": f"def f(_unpack_sequence_, _iter_unpack_sequence_, /):\n    (a, b), c = (1, 2), 3\nf({_TELL}, {_TELL})",
    "the guard of augmented assignment": f"def f(_inplacevar_, /):\n    x = 1\n    x += 1\nf({_TELL})",
    "the guard of calls": f"def f(_apply_, /):\n    return print(*[])\nf({_TELL})",
    "the printer": f"def f(_print_, _print, /):\n    print(1)\nf({_TELL}, {_TELL})",
    "the wrapper of tools' values": (
        f"def f(__mcpgate_value__, /):\n    return [t.echo(1) + 1 for _ in [1]]\nf({_TELL})\n"
        f"__mcpgate_value__ = __mcpgate_values__ = {_TELL}\nt.echo(1) + 1"
    ),
    "a private name of a class called like a guard": (
        f"class getattr_:\n    def f(self, __x={_TELL}):\n        _getattr_ = __x\n        return [].append\ngetattr_().f()"
    ),
    "a mangled name": f"class C:\n    def f(self, __getattr_={_TELL}):\n        return [].append\nC().f()",
}

SPELLINGS = {
    # Identifiers are normalised (NFKC) by the compiler: these are os, open, eval and so on.
    "os in wide letters": "import ｏｓ\nprint('REACHED')\nｏｓ.system('touch @MARKER@')",
    "open in wide letters": "f = ｏpen('@SECRET@')\nprint('REACHED')\nprint(f.read())",
    "eval in italics": "x = 𝘦𝘷𝘢𝘭('open(\"@SECRET@\").read()')\nprint('REACHED')\nprint(x)",
    "exec in bold": '𝐞𝐱𝐞𝐜(\'print("REACHED", open("@SECRET@").read())\')',
    "__import__ with a wide letter": "m = __ｉmport__('os')\nprint('REACHED')\nm.system('touch @MARKER@')",
    "attributes with a wide letter": """
found = ().__ｃlass__.__ｂase__.__ｓubclasses__()
print('REACHED')
[c for c in found if 'BuiltinImporter' in str(c)][0].load_module('posix').system('touch @MARKER@')
""",
    "attributes with a wide underscore": """
found = ()._＿class__._＿base__._＿subclasses_＿()
print('REACHED')
[c for c in found if 'BuiltinImporter' in str(c)][0].load_module('posix').system('touch @MARKER@')
""",
    "a frame with a ligature": """
b = (x for x in [1]).gi_ｆrame.f_ｂuiltins
print('REACHED')
print(b['open']('@SECRET@').read())
""",
    "a pattern's attribute with a wide letter": """
match (x for x in [1]):
    case object(ｇi_frame=object(ｆ_builtins=b)):
        print('REACHED')
        print(b['open']('@SECRET@').read())
""",
    "a submodule in wide letters": "from json import ｃodecs\nprint('REACHED')\nprint(ｃodecs.open('@SECRET@').read())",
    "a guard's name with a wide letter": f"def f(_ｇetattr_, /):\n    [].append\nf({_TELL})",
    "a guard's name with a wide underscore": f"def f(_getattr＿, /):\n    [].append\nf({_TELL})",
    "a guard's name as a wide keyword": f"def f(**k):\n    return k\n_ｗrite_ = {_TELL}\nclass C:\n    pass\nC.x = 1",
    "a global with a wide letter": f"def f():\n    global _ｇetattr_\n    _ｇetattr_ = {_TELL}\nf()\n[].append",
    "a capture with a wide letter": f"match {_TELL}:\n    case _ｇetattr_:\n        [].append",
    "an alias with a wide letter": "import math as _ｇetattr_\n[].append",
    "a dunder in a string is not normalised": """
for name in ('__ｇlobals__', '_＿globals__'):
    found = getattr(lambda: 0, name, None)
    if found:
        print('REACHED')
print(open('@SECRET@').read())
""",
    "a declared encoding": "# -*- coding: utf-7 -*-\n# +AAo-import os\nimport os\nprint('REACHED')\nos.system('touch @MARKER@')",
    "a form feed and a continuation": "\\\n\f\nimport \\\n os\nprint('REACHED')\nos.system('touch @MARKER@')",
}

BUILTINS_BOUND = {
    "all that the probe uses": "print = len = isinstance = sorted = sum = str = list = dict = None\nowned = 1",
    "from within a function": (
        "def f():\n    global len, sum, sorted, owned\n    len = sum = sorted = lambda *a: 'owned'\n    owned = 1\nf()"
    ),
    "by an import": "from operator import add as len, mul as sum, sub as sorted\nowned = len(1, 2)",
    "by the names of servers": "t = json = asyncio = None\nowned = 1",
}


@pytest.mark.parametrize("code", SHADOWS.values(), ids=SHADOWS.keys())
async def test_no_binding_takes_a_guards_place(code: str, arena: Arena) -> None:
    await arena.repels(code)


@pytest.mark.parametrize("code", SPELLINGS.values(), ids=SPELLINGS.keys())
async def test_no_other_spelling_means_what_is_forbidden(code: str, arena: Arena) -> None:
    await arena.repels(code)


@pytest.mark.parametrize("code", BUILTINS_BOUND.values(), ids=BUILTINS_BOUND.keys())
async def test_names_that_one_execution_binds_are_not_bound_in_the_next(code: str, arena: Arena) -> None:
    await arena.repels(code)
    await arena.repels(code, session="attacker/names")
