"""Past the stand-ins of the restricted engine: what its own helpers, and library code that looks attributes up or
generates code on behalf of a program, could be talked into."""

import pytest

from sandbox.tests.escapes.conftest import Arena

pytestmark = pytest.mark.anyio

READ = "print('REACHED')\nprint(os.open('@SECRET@', 0), os.system('touch @MARKER@'))"

HELPERS = {
    "the server's class as an unguarded getattr": (
        "def g():\n    yield 1\nx = g()\nf = type(t)('t', x)['gi_frame']\n"
        "print('REACHED')\nos = f.f_back.f_globals['sys'].modules['os']\n" + READ
    ),
    "a server that stands for a module": "s = type(t)('json', json)\nos = s['codecs'].sys.modules['os']\n" + READ,
    "the class of a module": "m = type(json)('x', {'a': 1})\nprint('REACHED' if m.a else '')",
    "the class of a tool": "f = type(t.echo)('t', 'never')\nprint('REACHED')",
    "the stream's class": "import sys\nS = type(sys.stdout)\nS(1).write('x')\nprint('REACHED')",
}

GENERATED = {
    "a metaclass by way of typing.Type": (
        "import typing\nclass Meta(typing.Type):\n    pass\nM = Meta('M', (Meta,), {'__instancecheck__': lambda c, x: True})\n"
        "print('REACHED')"
    ),
    "a metaclass by way of type[int]": "class Meta(type[int]):\n    pass\nprint('REACHED', Meta('X', (), {}))",
    "code in the keys of a dict that becomes a dataclass": (
        "import typing, dataclasses\n"
        "X = typing.TypedDict('X', {'a=print(().__class__.__base__.__subclasses__()[:1], \"REACHED\")': int})\n"
        "class D(X):\n    pass\ndataclasses.dataclass(D)"
    ),
    "a generated __init__ that writes to strangers": (
        "import dataclasses, json\n@dataclasses.dataclass\nclass C:\n    loads: object\n"
        "C.__init__(json, lambda *a: 1)\nprint('REACHED' if json.loads('2') == 1 else '')"
    ),
    "a generated __eq__ that hands attributes out": (
        "import dataclasses, asyncio\nclass Evil:\n    def __eq__(self, other):\n        print('REACHED', other.get_loop())\n        return True\n"
        "@dataclasses.dataclass(match_args=False)\nclass C:\n    _future: object\n"
        "async def f():\n    pass\ntask = asyncio.create_task(f())\nC.__eq__(task, C(Evil()))"
    ),
    "a private field that a pattern finds in a stranger": (
        "import abc, asyncio, dataclasses\n@dataclasses.dataclass\nclass X(abc.ABC):\n    _future: object\n"
        "X.register(asyncio.Task)\nasync def f():\n    pass\n"
        "match asyncio.create_task(f()):\n    case X(found):\n        print('REACHED', found)"
    ),
    "an enum whose members are special": (
        "import enum\nE = enum.StrEnum('E', {'A': '{0.gi_frame.f_builtins}', '__match_args__': ('format',)})\n"
        "def g():\n    yield 1\nmatch E.A:\n    case E(f):\n        print('REACHED', f(g()))"
    ),
    "an empty enum of one's own that is called": (
        "import enum\nclass E(enum.StrEnum):\n    pass\n"
        "F = E('F', {'A': '{0.gi_frame}', '__match_args__': ('format',)})\nmatch F.A:\n    case F(f):\n        print('REACHED', f((i for i in [])))"
    ),
    "the map behind an enum's members": (
        "import enum\nclass E(enum.Enum):\n    A = 1\nclass Evil:\n    def __eq__(self, other):\n        other['B'] = 5\n        return True\n"
        "E.__members__ == Evil()\nprint('REACHED' if 'B' in E.__members__ else '')"
    ),
}

KEPT = {
    "a library class told where to look": (
        "import contextlib\nclass R(contextlib.redirect_stdout):\n    _stream = 'modules'\n"
        "r = R(None)\nr.__enter__()\nos = r._old_targets[0]['os']\n" + READ
    ),
    "what a library class keeps to itself": (
        "import contextlib\nclass E(contextlib.ExitStack):\n    pass\ne = E()\nprint('REACHED', e._exit_callbacks)"
    ),
    "what a facade keeps to itself": (
        "import asyncio\nclass Q(asyncio.Queue):\n    def inner(self):\n        return self._inner\nprint('REACHED', Q().inner())"
    ),
    "a future behind a generic alias": (
        "import asyncio, types\nc = asyncio.sleep(30)\nf = c.send(None)\nloop = types.GenericAlias(f, ()).get_loop()\nprint('REACHED', loop)"
    ),
    "a coroutine stepped by hand": "import asyncio\nf = asyncio.sleep(30).send(None)\nprint('REACHED', f)",
    "a forward reference that evaluates": (
        "import typing, dataclasses\n@dataclasses.dataclass\nclass C:\n    a: typing.List['().__class__.__base__']\n"
        "r = dataclasses.fields(C)[0].type.__args__[0]\nprint('REACHED', r.evaluate())"
    ),
    "a type variable that evaluates": (
        "import typing\nT = typing.TypeVar('T', bound='().__class__.__base__.__subclasses__()')\n"
        "print('REACHED', T.evaluate_bound(1))"
    ),
    "paths in a traceback": (
        "import traceback\ntry:\n    json.nothing\nexcept AttributeError:\n    told = traceback.format_exc()\n"
        "print('REACHED' if 'restriction' in told else '')"
    ),
}


@pytest.mark.parametrize("code", HELPERS.values(), ids=HELPERS.keys())
async def test_no_helper_reaches_further_than_the_program(code: str, arena: Arena) -> None:
    await arena.repels(code)


@pytest.mark.parametrize("code", GENERATED.values(), ids=GENERATED.keys())
async def test_generated_code_reaches_no_further_than_the_program(code: str, arena: Arena) -> None:
    await arena.repels(code)


@pytest.mark.parametrize("code", KEPT.values(), ids=KEPT.keys())
async def test_what_the_library_keeps_stays_with_it(code: str, arena: Arena) -> None:
    await arena.repels(code)
