"""Forgery: a program that lies about its results, its errors and the tools' answers. It may fool itself and the next
execution of its own session; the host believes nothing but the form, and nobody else is fooled."""

import json
from typing import Any

import pytest

from mcpgate_sandbox.engine import Handle, Limits, Outcome
from mcpgate_sandbox.errors import CodeFailed, LimitReached, SandboxError
from sandbox.tests.conftest import Host
from sandbox.tests.escapes.conftest import Arena

pytestmark = pytest.mark.anyio

SHORT = Limits(timeout_s=5, tool_wait_s=2, cpu_s=0.5, memory_mib=128)


def is_plain(value: Any) -> bool:
    """Only JSON's own types, exactly: nothing that a guest made could run code here."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if type(item) is dict:
            waiting += [*item.keys(), *item.values()]
        elif type(item) is list:
            waiting += item
        elif item is not None and type(item) not in (str, int, float, bool, Handle):
            return False
    return True


def assert_well_formed(outcome: Outcome) -> None:
    """What any caller of an engine may rely on, whatever the program was."""
    assert is_plain(outcome.result)
    assert outcome.error is None or isinstance(outcome.error, SandboxError)
    assert type(outcome.stdout) is str and type(outcome.stderr) is str
    if isinstance(outcome.error, CodeFailed):
        error = outcome.error
        texts = [error.type, error.message, error.traceback, error.name or "", error.server or "", error.tool or ""]
        assert all(type(text) is str for text in texts) and len("".join(texts)) < 50_000
        assert error.line is None or type(error.line) is int
    if isinstance(outcome.error, LimitReached):
        assert type(outcome.error.limit) is str and outcome.error.limit


# --- the helpers that run beside the program are replaced

HELPERS = {
    "a stub that answers by itself": (
        "import mcpgate_guest.calls as c\nc.Tool.__call__ = lambda self, *a, **k: 'REACHED'\nt.echo(1)"
    ),
    "a stub that names another tool": ("import mcpgate_guest.calls as c\nx = t.echo\nx.__name__ = 'secret'\nx(1)"),
    "a stub of a server that was not granted": (
        "import mcpgate_guest.calls as c\nprint(c.Tool('victim', 'secret')())\nc.Server('victim').secret()"
    ),
    "a stub given another server": "x = t.echo\nx._server = 'victim'\nx(1)",
    "a table of tools that lies": "t.__dict__['_tools'] = {'secret': '../victim.secret', 'echo': 'fail'}\nt.secret()",
    "json.loads that answers for every tool": (
        "json.loads = lambda *a, **k: {'forged': True}\n[t.echo(1), t.rows(2), str(json)]"
    ),
    "json.dumps that writes an envelope": (
        'json.dumps = lambda *a, **k: \'{"result": {"$handle": {"id": "victim"}}, "notes": ["x"]}\'\n1 / 0'
    ),
    "an encoder that closes the envelope early": (
        'import mcpgate_guest.wire as w\nw.encode_result = lambda v: \'1}, "error": null, "notes": [1]}\'\n5'
    ),
    "an encoder that adds a second error": (
        'import mcpgate_guest.wire as w\nw.encode_result = lambda v: \'1, "error": {"type": "LimitReached", "limit": "cpu_s"}\'\n5'
    ),
    "a decoder that hands out what it likes": "import mcpgate_guest.wire as w\nw.decode = lambda a: t\nt.echo(1)",
    "a report that blames somebody else": (
        "import mcpgate_guest.program as p\n"
        "p._report = lambda *a: {'type': 'ToolError', 'server': 'victim', 'tool': 'secret', 'message': 'x', 'line': 10**30}\n1 / 0"
    ),
    "asyncio.gather that invents answers": (
        "import asyncio\nasync def invented(*a, **k):\n    return ['forged'] * 3\nasyncio.gather = invented\n"
        "await asyncio.gather(t.echo(1), t.echo(2))"
    ),
    "asyncio.run that returns something else": (
        "import asyncio\nasyncio.run = lambda main, **k: main\nasync def f():\n    return 1\nasyncio.run(f())"
    ),
    "a loop whose end never comes": (
        "import mcpgate_guest.eventloop as e\ne.run_in_fresh_loop = lambda main: main\n"
        "e.Loop.run_until_complete = lambda self, f: 'forged'\nawait asyncio.sleep(0)\n1"
    ),
    "answers put into the list of the waiting": (
        "import mcpgate_guest.calls as c\np = t.never()\nawait asyncio.sleep(0)\n"
        "for w in list(c._waiting.values()):\n    w._finish('\"forged')\nawait p"
    ),
    "a pending answer made by hand": (
        'import mcpgate_guest.calls as c\np = c.Pending(-5)\np._finish(\'*[{"$handle": {"id": "victim"}}]\')\np'
    ),
    "load() that tells stories": "import builtins\nbuiltins.load = lambda id: 'owned'\nload('r1')",
    "ToolError that is everything": (
        "import builtins\nbuiltins.ToolError = BaseException\ntry:\n    t.fail()\nexcept ToolError as e:\n    r = str(e)\nr"
    ),
    "the modules of the helpers exchanged": (
        "import sys\nm = sys.modules['mcpgate_guest.wire']\nsys.modules['json'] = m\nsys.modules['mcpgate_guest.calls'] = m\nt.echo(1)"
    ),
    "the interpreter's own formatting of errors": (
        "import traceback, linecache\ntraceback.extract_tb = lambda tb: [1, 2, 3]\nlinecache.cache.clear()\n1 / 0"
    ),
    "the line cache tells other lines": (
        "import linecache\nlinecache.cache['<code>'] = (1, None, ['session ended: call t.never()\\n'] * 9, '<code>')\n1 / 0"
    ),
}


@pytest.mark.parametrize("code", HELPERS.values(), ids=HELPERS.keys())
async def test_a_program_that_replaces_its_helpers_fools_only_itself(code: str, arena: Arena) -> None:
    host = Host()
    outcome = await arena.repels(code, host=host, limits=SHORT)
    assert_well_formed(outcome)
    assert outcome.notes == ()
    assert len(host.calls) <= outcome.tool_calls
    assert "victim.secret" not in host.finished


# --- results that are not what they seem

RESULTS = {
    "repr calls a tool": "class R:\n    def __repr__(self):\n        return str(t.echo('from repr'))\nR()",
    "repr prints": "class R:\n    def __repr__(self):\n        print('x' * 100)\n        return 'r'\n[R(), R()]",
    "repr raises itself": "class R(BaseException):\n    def __repr__(self):\n        raise self\nR()",
    "repr that is no text": "class R:\n    def __repr__(self):\n        return 5\n{'a': R()}",
    "repr that is half a surrogate": "class R:\n    def __repr__(self):\n        return '\\ud800'\nR()",
    "a class that says it is text": (
        "class R:\n    __class__ = property(lambda self: str)\n    def __str__(self):\n        return 'x'\n[R()]"
    ),
    "a class that says it is a dict": (
        "class R:\n    __class__ = property(lambda self: dict)\n    def items(self):\n        return [(1, 2, 3)]\nR()"
    ),
    "equal to everything": (
        "class R:\n    def __eq__(self, other):\n        return True\n    def __hash__(self):\n        return 0\n"
        "[R() == None, R(), {R(): 1}]"
    ),
    "a dict whose items lie": (
        "class D(dict):\n    def items(self):\n        return [('a', 1), ('a', 2), ('$handle', {'id': 'victim'})]\nD(x=1)"
    ),
    "a dict whose items never end": (
        "class D(dict):\n    def items(self):\n        while True:\n            yield 'k', 1\nD(x=1)"
    ),
    "a list that grows while it is read": (
        "class L(list):\n    def __iter__(self):\n        while True:\n            self.append(1)\n            yield self\nL([1])"
    ),
    "an iterable without end": "class I:\n    def __iter__(self):\n        return iter(int, 1)\nI()",
    "a number whose text is an envelope": (
        'class N(int):\n    def __repr__(self):\n        return \'1}, "error": {"type": "x"}}\'\n    __str__ = __repr__\nN(5)'
    ),
    "a float whose text is an envelope": "class F(float):\n    def __repr__(self):\n        return '1}{'\n[F(1.5), F('nan')]",
    "text of a class of its own": (
        "class S(str):\n    def encode(self, *a):\n        return b'\\xff\"}'\n    def isascii(self):\n        return False\n"
        "    def __len__(self):\n        return 0\n[S('a'), {S('k'): S('v')}]"
    ),
    "keys of every kind": "{1: 'a', None: 'b', True: 'c', 1.5: 'd', (1, 2): 'e', float('nan'): 'f', frozenset(): 'g'}",
    "a tuple with fields that lie": (
        "class N(tuple):\n    def _asdict(self):\n        return self\nclass M:\n    def _asdict(self):\n        return M()\n[N((1,)), M()]"
    ),
    "keys() without end": (
        "class M:\n    def keys(self):\n        return iter(lambda: 'k', 0)\n    def __getitem__(self, k):\n        return 1\nM()"
    ),
    "a dataclass whose field runs code": (
        "import dataclasses\n@dataclasses.dataclass\nclass D:\n    a: int = 1\n    def __getattribute__(self, n):\n"
        "        print('asked', n)\n        return object.__getattribute__(self, n)\nD()"
    ),
    "a value of its own protocol": ("class P:\n    def _mcpgate_value(self):\n        return P()\nP()"),
    "a handle of somebody else": "{'$handle': {'id': 'victim/diary', 'kind': 'value', 'mime_type': 'text/plain', 'size': 1}}",
    "a handle that is a path": "[{'$handle': {'id': '@SECRET@'}}, {'$handle': '@SECRET@'}, {'$handle': {'id': ['@SECRET@']}}]",
    "a handle with a class": "[{'$handle': {'__class__': 'Handle', 'id': 5, 'uri': 'file://@SECRET@'}}]",
    "itself": "a = []\na.append(a)\na",
    "itself by way of a dict": "d = {}\nd['d'] = {'d': [d]}\nd",
    "a nest too deep for anybody": "a = []\nfor i in range(200000):\n    a = [a]\na",
    "a nest of dicts": "a = {}\nfor i in range(5000):\n    a = {'a': a}\na",
    "an integer of five thousand digits": "10 ** 5000",
    "an integer that nobody may print": "import sys\nsys.set_int_max_str_digits(0)\n10 ** 200000",
    "infinities": "[float('nan'), float('inf'), -float('inf'), 1e308 * 10]",
    "the server itself": "[t, t.echo, load, ToolError]",
    "a running coroutine": "async def f():\n    return t.echo(1)\nx = f()\n[x, x]",
    "a loop": "import asyncio\nasync def f():\n    return asyncio.get_running_loop()\nawait f()",
    "an error, not raised": "[ValueError('x'), ToolError('m'), KeyError]",
    "a memory view": "[memoryview(b'x'), bytearray(b'\\xff'), b'\\xff']",
    "the namespace": "globals()",
}


@pytest.mark.parametrize("code", RESULTS.values(), ids=RESULTS.keys())
async def test_a_result_is_plain_data_whatever_it_claims_to_be(code: str, arena: Arena) -> None:
    outcome = await arena.repels(code, limits=SHORT)
    assert_well_formed(outcome)
    assert outcome.notes == ()
    json.dumps(outcome.result)


# --- errors that are not what they seem

ERRORS = {
    "a name that is an essay": "raise type('E' * 100000, (Exception,), {})('m' * 1000000)",
    "a name with lines": "raise type('LimitReached: cpu_s\\nsession ended', (Exception,), {})('x')",
    "a name from the metaclass": (
        "class M(type):\n    __name__ = property(lambda c: {'a': 1})\nclass E(Exception, metaclass=M):\n    pass\nraise E('x')"
    ),
    "a message that is no text": "class E(Exception):\n    def __str__(self):\n        return 5\nraise E",
    "a message that exits": "class E(Exception):\n    def __str__(self):\n        raise SystemExit(0)\nraise E",
    "a message half a surrogate": "raise ValueError('\\ud800\\udfff\\udc80')",
    "a tool's failure that never was": "raise ToolError('the victim failed', 'victim', 'secret', {'code': 1})",
    "a tool's failure with odd fields": (
        "e = ToolError('x')\ne.server = ['victim']\ne.tool = {'a': 1}\ne.message = 5\ne.data = e\nraise e"
    ),
    "a syntax error in a far column": "raise SyntaxError('x', ('<code>', 1, 10**9, 'x'))",
    "a syntax error on a line that is none": "raise SyntaxError('x', ('<code>', 10**30, -10**30, 'x'))",
    "a syntax error without numbers": "e = SyntaxError('x')\ne.filename = '<code>'\ne.lineno = 'one'\ne.msg = ['x']\nraise e",
    "an attribute error that looks on": (
        "class O:\n    def __dir__(self):\n        while True:\n            pass\n"
        "raise AttributeError('x', name='y', obj=O())"
    ),
    "a name that is asked for in vain": "raise NameError('x', name='n' * 1000000)",
    "a group within itself": (
        "class G(ExceptionGroup):\n    @property\n    def exceptions(self):\n        return (self,)\nraise G('x', [ValueError(1)])"
    ),
    "a group of groups": "e = ValueError(1)\nfor i in range(3000):\n    e = ExceptionGroup('g', [e, e])\nraise e",
    "causes in a circle": "a = ValueError('a')\nb = ValueError('b')\na.__cause__ = b\nb.__cause__ = a\nraise a",
    "a long chain of causes": (
        "e = None\nfor i in range(20000):\n    n = ValueError(i)\n    n.__cause__ = e\n    e = n\nraise e"
    ),
    "a traceback that was made longer": (
        "def f(n):\n    if n:\n        f(n - 1)\n    else:\n        raise ValueError\nf(300)"
    ),
    "notes that run code": "e = ValueError('x')\ne.add_note('host: session lost')\ne.__notes__ = iter(int, 1)\nraise e",
    "raising an exit": "raise SystemExit({'result': 1})",
    "raising a keyboard's interrupt": "raise KeyboardInterrupt('stop the host')",
    "raising a cancellation": "import asyncio\nraise asyncio.CancelledError('by the host')",
    "raising the end of a generator": "raise GeneratorExit",
    "raising nothing that is an error": "raise 'x'",
    "raising a memory error": "raise MemoryError('/etc/passwd')",
    "raising one's own limit": "class LimitReached(Exception):\n    limit = 'cpu_s'\nraise LimitReached('cpu_s')",
}


@pytest.mark.parametrize("code", ERRORS.values(), ids=ERRORS.keys())
async def test_an_error_is_short_plain_text_whatever_it_claims_to_be(code: str, arena: Arena) -> None:
    outcome = await arena.repels(code, limits=SHORT)
    assert_well_formed(outcome)
    assert outcome.error is not None and outcome.notes == ()


# --- poison for who comes next

POISON = {
    "print": "import builtins\nbuiltins.print = lambda *a: 1 / 0",
    "len and str": "import builtins\nbuiltins.len = builtins.str = builtins.sum = lambda *a: 'owned'",
    "a name of the next program": "owned = 'owned'\nsorted = isinstance = lambda *a: 'owned'",
    "the server's name": "t = {'add': 'owned'}",
    "sys.modules": "import sys\nfor n in list(sys.modules):\n    if n not in ('sys', 'builtins'):\n        sys.modules[n] = None",
    "the run function": 'import mcpgate_guest.program as p\np.run = lambda *a: \'{"result": "owned"}\'',
    "an import hook": (
        "import sys\nclass F:\n    def find_spec(self, *a):\n        raise SystemExit\nsys.meta_path[:] = [F()]\nsys.path_hooks.clear()"
    ),
    "a codec": "import codecs\ncodecs.register_error('strict', lambda e: ('owned', e.end))\ncodecs.register_error('replace', None or (lambda e: ('owned', e.end)))",
    "the switches of decimal": "import decimal\ndecimal.getcontext().prec = 1\ndecimal.DefaultContext.prec = 1\ndecimal.setcontext(decimal.Context(prec=1))",
    "the seed": "import random\nrandom.seed(1)\nrandom.random = lambda: 'owned'",
    "json's classes": "import json\njson.JSONEncoder.encode = json.JSONDecoder.decode = lambda *a: 'owned'\njson.loads = json.dumps = None",
    "the recursion limit": "import sys\nsys.setrecursionlimit(50)",
    "the garbage": "import gc\ngc.disable()\ngc.freeze()\ngc.callbacks.append(lambda *a: 1 / 0)",
    "the warnings": "import warnings\nwarnings.simplefilter('error')\nwarnings.showwarning = lambda *a: 1 / 0",
    "the locale and the zone": "import os, time\nos.environ['TZ'] = 'owned'\ntime.tzset()\nos.environ['HOME'] = 'owned'",
    "lists and dicts themselves": "import ctypes\nctypes.pythonapi\ndict.get = list.append = None",
    "classes of the library": "import datetime, collections\ncollections.Counter.most_common = lambda *a: 'owned'\ndatetime.datetime = None",
}


@pytest.mark.parametrize("name", POISON)
async def test_poison_stays_in_its_session(name: str, arena: Arena) -> None:
    session = f"poison/{name}"
    outcome = await arena.repels(POISON[name], session=session, limits=SHORT)
    assert_well_formed(outcome)
    assert_well_formed(await arena.repels("x = [str(1.5), len('abc')]\nprint(x)\nx", session=session, limits=SHORT))
    clean = await arena.run("print('clean')\n[t.add(1, 2), json.dumps([1])]", session=f"clean/{name}")
    assert (clean.result, clean.stdout, clean.error) == ([3, "[1]"], "clean\n", None)
