"""Exhaustion: every way to use too much of something. Each ends within its limit, says which limit that was (or is an
ordinary error of the code, which may catch it), and leaves the next guest all it needs."""

import asyncio
import time
import tracemalloc

import pytest

from mcpgate_sandbox.engine import Limits
from mcpgate_sandbox.errors import CodeFailed, LimitReached, SandboxError
from sandbox.tests.conftest import Host
from sandbox.tests.escapes.conftest import Arena
from sandbox.tests.escapes.test_forgery import assert_well_formed

pytestmark = pytest.mark.anyio

LITTLE_CPU = Limits(cpu_s=0.06, timeout_s=10, tool_wait_s=5, memory_mib=192)
LITTLE_MEMORY = Limits(cpu_s=0.6, timeout_s=10, tool_wait_s=5, memory_mib=96)
ENDED_WITHIN_S = 3.0
"""Far more than any limit here; far less than what the programs would take."""


def _died(error: SandboxError | None) -> bool:
    # The interpreter itself broke: it says so, in a class of its own.
    return type(error).__name__ == "Crashed"


# --- CPU time

BURNERS = {
    "a loop": "while True:\n    pass",
    "a sum in C": "sum(range(10 ** 12))",
    "a search in a range": "class N:\n    def __eq__(self, o):\n        return False\nN() in range(10 ** 12)",
    "a search for text": "x = 'a' * 3000000\nfor i in range(1000):\n    ('a' * 1500000 + 'b') in x",
    "a count of text": "x = 'ab' * 5000000\nwhile True:\n    x.count('ba')",
    "a replacement of text": "x = 'a' * 1000000\nwhile True:\n    x.replace('a', 'bb')",
    "a split of text": "x = 'a ' * 1000000\nwhile True:\n    x.split()",
    "a translation of text": "x = 'abc' * 1000000\nwhile True:\n    x.translate({97: 'xyz', 98: None})",
    "a regular expression that backs up": "import re\nre.match('(a+)+$', 'a' * 60 + 'b')",
    "a regular expression with references": "import re\nre.match('(a*)*(b*)*\\\\1\\\\2c$', 'a' * 40 + 'b' * 40)",
    "a regular expression with choices": "import re\nre.search('(x|x?)*y' , 'x' * 500)\nre.fullmatch('(.*?,){25}z', 'a,' * 30)",
    "compiling regular expressions": "import re\nfor i in range(10 ** 6):\n    re.compile('(a|b|c){1,%d}' % (i + 2000))",
    "a substitution that never stops growing": "import re\nx = 'a'\nwhile True:\n    x = re.sub('a', 'aa', x)[:100000]",
    "a power": "7 ** 30000000",
    "a power of powers": "9 ** 9 ** 9",
    "a power with a remainder": "x = 7 ** 20000\npow(3, x, x - 2)",
    "a product of big numbers": "x = 3 ** 300000\nwhile True:\n    x * x",
    "a division of big numbers": "x = 3 ** 400000\ny = 7 ** 100000\nwhile True:\n    x // y",
    "a factorial": "import math\nmath.factorial(10 ** 7)",
    "a common divisor": "import math\nx = 3 ** 300000\nmath.gcd(x, x // 2 + 1)\nwhile True:\n    math.gcd(x + 1, x // 3)",
    "combinations counted": "import math\nmath.comb(10 ** 7, 5 * 10 ** 6)",
    "a root": "import math\nwhile True:\n    math.isqrt(10 ** 200000)",
    "the digits of a number": "x = 7 ** 3000\nwhile True:\n    str(x)",
    "the hex digits of a number": "x = 7 ** 1000000\nwhile True:\n    hex(x)",
    "reading numbers": "x = '9' * 4300\nwhile True:\n    int(x)",
    "reading a long hex number": "x = 'f' * 1000000\nwhile True:\n    int(x, 16)",
    "decimals": "import decimal\ndecimal.getcontext().prec = 10 ** 6\ndecimal.Decimal(2) ** decimal.Decimal('0.5')\nwhile True:\n    decimal.Decimal(1) / 7",
    "a decimal's power": "import decimal\ndecimal.Decimal('1.0000001') ** 10 ** 9\nwhile True:\n    decimal.Decimal('1.1') ** 99999",
    "fractions": "import fractions\nx = fractions.Fraction(1, 3)\nwhile True:\n    x = x * x + x",
    "names that collide": "class K:\n    def __hash__(self):\n        return 1\n    def __eq__(self, o):\n        return self is o\nd = {}\nwhile True:\n    d[K()] = 1",
    "numbers that collide": "x = 2 ** 61 - 1\nd = {i * x for i in range(10 ** 6)}",
    "a sort": "sorted(range(10 ** 7), key=lambda x: -x)",
    "a sort that compares in Python": "class K:\n    def __lt__(self, o):\n        return True\nwhile True:\n    sorted([K() for i in range(1000)])",
    "permutations": "import itertools\nsum(1 for p in itertools.permutations(range(12)))",
    "a product": "import itertools\nmax(itertools.product(range(100), repeat=9))",
    "a cycle": "import itertools\nany(itertools.cycle([0]))",
    "a chain without end": "import itertools\n5 in itertools.chain.from_iterable(itertools.repeat(()))",
    "a filter that finds nothing": "next(filter(None, iter(int, 1)))",
    "a zip that never ends": "import itertools\nmax(zip(itertools.count(), itertools.count()))",
    "all of everything": "all(x is not None for x in iter(int, 1))",
    "a reduction": "import functools\nfunctools.reduce(lambda a, b: a, iter(int, 1))",
    "json, read": "import json\nx = '[' + '[],' * 300000 + '1]'\nwhile True:\n    json.loads(x)",
    "json, written": "import json\nx = [{'a': [1, 2, 3]}] * 100000\nwhile True:\n    json.dumps(x, indent=1)",
    "json, read at its deepest": "import json\nx = '[' * 900 + ']' * 900\nwhile True:\n    json.loads(x)",
    "a list compared": "x = [0] * 10 ** 6\ny = [0] * 10 ** 6\nwhile True:\n    x == y",
    "nests compared": "a = b = 1\nfor i in range(40):\n    a = [a, a]\n    b = [b, b]\na == b",
    "hashes that ask twice": "class H:\n    def __init__(self, a):\n        self.a = a\n    def __hash__(self):\n        return hash(self.a) + hash(self.a)\na = 1\nfor i in range(60):\n    a = H(a)\nhash(a)",
    "nests written": "a = 1\nfor i in range(22):\n    a = [a, a]\nwhile True:\n    len(repr(a))",
    "a list turned around": "x = list(range(10 ** 6))\nwhile True:\n    x.reverse()",
    "a list emptied from the front": "x = [0] * 1000000\nwhile x:\n    x.pop(0)",
    "a list copied": "x = [0] * 1000000\nwhile True:\n    y = x[::-1]",
    "exceptions": "while True:\n    try:\n        raise ValueError\n    except ValueError:\n        pass",
    "a generator": "def g():\n    while True:\n        yield 1\nfor x in g():\n    pass",
    "generators in each other": "def g(n):\n    if n:\n        yield from g(n - 1)\n        yield from g(n - 1)\n    else:\n        yield 1\nsum(g(40))",
    "recursion that branches": "def f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)\nf(60)",
    "text put together": "while True:\n    ''.join(str(i) for i in range(100000))",
    "text formatted": "while True:\n    '{:>100000}'.format('x')",
    "text formatted with percent": "while True:\n    '%0100000d' % 5",
    "text to bytes": "x = 'é' * 1000000\nwhile True:\n    x.encode().decode()",
    "letters made plain": "import unicodedata\nx = 'ﷺ' * 100000\nwhile True:\n    unicodedata.normalize('NFKD', x)",
    "letters compared": "import difflib\ndifflib.SequenceMatcher(None, 'ab' * 4000, 'ba' * 4000, False).ratio()",
    "base64": "import base64\nx = b'x' * 1000000\nwhile True:\n    base64.b64encode(x)",
    "hashes": "import hashlib\nx = b'x' * 1000000\nwhile True:\n    hashlib.sha256(x).hexdigest()",
    "a password hashed": "import hashlib\nhashlib.pbkdf2_hmac('sha256', b'x', b'y', 10 ** 9)",
    "compressing": "import zlib\nx = b'x' * 10 ** 7\nwhile True:\n    zlib.compress(x, 9)",
    "random numbers": "import random\nwhile True:\n    random.shuffle(list(range(100000)))",
    "the calendar": "import datetime\nd = datetime.date(1, 1, 1)\nwhile True:\n    d.strftime('%c')",
    "statistics": "import statistics\nx = list(range(100000))\nwhile True:\n    statistics.median(x)",
    "csv": "import csv, io\nx = 'a,b\\n' * 100000\nwhile True:\n    list(csv.reader(io.StringIO(x)))",
    "wrapping text": "import textwrap\ntextwrap.fill('a-' * 50000, 10)\nwhile True:\n    textwrap.fill('a ' * 50000, 10)",
    "copies": "import copy\nx = [[1] * 100 for i in range(1000)]\nwhile True:\n    copy.deepcopy(x)",
    "coroutines that never rest": "import asyncio\nasync def f():\n    while True:\n        await asyncio.sleep(0)\nawait f()",
    "many tasks that never rest": (
        "import asyncio\nasync def f():\n    while True:\n        await asyncio.sleep(0)\nawait asyncio.gather(*[f() for i in range(200)])"
    ),
    "calls of helpers": "while True:\n    dir(t)\n    str(t.echo)",
    "calls that are refused": "while True:\n    try:\n        t.nothing()\n    except AttributeError:\n        pass",
    "a search for near names": "while True:\n    try:\n        getattr(t, 'e' * 3000)\n    except AttributeError:\n        pass",
}


@pytest.mark.parametrize("code", BURNERS.values(), ids=BURNERS.keys())
async def test_computing_ends_at_its_limit(code: str, arena: Arena) -> None:
    began = time.monotonic()
    outcome = await arena.run("print('before')\n" + code, limits=LITTLE_CPU)
    took = time.monotonic() - began
    assert_well_formed(outcome)
    assert outcome.error is not None
    if isinstance(outcome.error, LimitReached):
        assert outcome.error.limit in {"cpu_s", "memory_mib"}, outcome.error
        assert outcome.stdout == "before\n" or outcome.error.limit == "memory_mib"
    else:
        # Refused, out of memory or out of stack: an ordinary error, and soon.
        assert isinstance(outcome.error, CodeFailed)
    assert outcome.cpu_s < ENDED_WITHIN_S and took < 4 * ENDED_WITHIN_S
    await arena.unharmed()


# --- memory

HOARDERS = {
    "a string": "'a' * 10 ** 9",
    "a string, four bytes a letter": "'😀' * 10 ** 8",
    "bytes": "b'a' * 10 ** 9",
    "a list": "[0] * 10 ** 9",
    "a tuple": "(0,) * 10 ** 9",
    "a list that grows": "x = []\nwhile True:\n    x.append(' ' * 100000 + str(len(x)))",
    "a dict that grows": "x = {}\ni = 0\nwhile True:\n    i = i + 1\n    x[i] = [0] * 1000",
    "a set that grows": "x = set()\ni = 0\nwhile True:\n    i = i + 1\n    x.add(str(i) * 100)",
    "text that doubles": "x = 'a'\nwhile True:\n    x = x + x",
    "a list within itself": "x = [1]\nwhile True:\n    x = x + x",
    "a number that squares": "x = 3\nwhile True:\n    x = x * x",
    "a shift": "1 << 10 ** 10",
    "a byte array": "x = bytearray(10 ** 6)\nwhile True:\n    x.extend(x)",
    "a padded number": "'{:>1000000000}'.format(1)",
    "a padded float": "'%.1000000000f' % 1.5",
    "a literal padded": "f'{1:>1000000000}'",
    "justified text": "'x'.ljust(10 ** 9) + 'x'.center(10 ** 9)",
    "tabs": "('\\t' * 10 ** 6).expandtabs(10 ** 4)",
    "a join": "','.join(['a' * 1000] * 10 ** 6)",
    "a replacement": "('a' * 10 ** 5).replace('a', 'b' * 10 ** 5)",
    "a range made real": "list(range(10 ** 9))",
    "a repetition": "import itertools\nlist(itertools.repeat('x'))",
    "a tee": "import itertools\na, b = itertools.tee(itertools.count())\nfor x in a:\n    pass",
    "a product of pools": "import itertools\nlist(itertools.product(range(10 ** 4), repeat=3))",
    "a deque": "import collections\ncollections.deque(iter(int, 1))",
    "a counter": "import collections\ncollections.Counter(str(i) * 50 for i in range(10 ** 8))",
    "generators kept": "def g():\n    x = ' ' * 100000\n    yield x\nk = []\nwhile True:\n    i = g()\n    next(i)\n    k.append((i, ' ' * 50000 + str(len(k))))",
    "functions kept": "k = []\nwhile True:\n    k.append((lambda: k, [0] * 1000))",
    "classes kept": "k = []\nwhile True:\n    class C:\n        x = [0] * 10000\n    k.append((C, [0] * 1000))",
    "errors kept": "e = None\nwhile True:\n    n = ValueError(' ' * 100000 + str(id(e)))\n    n.__context__ = e\n    e = n",
    "errors in errors": (
        "def f(n):\n    try:\n        raise ValueError(' ' * 100000 + str(n))\n    except ValueError:\n        f(n + 1)\nf(0)"
    ),
    "a group of errors": "ExceptionGroup('g', [ValueError(' ' * 1000 + str(i)) for i in range(10 ** 6)])",
    "decompression": "import zlib\nx = zlib.compress(b'x' * 10 ** 7)\n[zlib.decompress(x) for i in range(100)]",
    "a cache": "import functools\n@functools.cache\ndef f(n):\n    return ' ' * 100000 + str(n)\nfor i in range(10 ** 6):\n    f(i)",
    "a buffer": "import io\nx = io.StringIO()\nwhile True:\n    x.write('x' * 10 ** 6)",
    "json": "import json\njson.loads('[' + ','.join(['{}'] * 10 ** 7) + ']')",
    "base64": "import base64\nx = b'x' * 10 ** 7\nwhile True:\n    x = base64.b64encode(x)",
    "a regular expression's matches": "import re\nre.findall('', 'a' * 10 ** 8)",
    "tasks kept": (
        "import asyncio\nasync def f():\n    x = ' ' * 100000 + str(id(asyncio))\n    await asyncio.sleep(1000)\n    return x\n"
        "await asyncio.gather(*[f() for i in range(10 ** 5)])"
    ),
    "a queue": "import asyncio\nq = asyncio.Queue()\ni = 0\nwhile True:\n    i = i + 1\n    await q.put(' ' * 100000 + str(i))",
    "answers kept": "k = []\nwhile True:\n    k.append(t.rows(3000))",
    "a matrix": "[[0] * 10 ** 4 for i in range(10 ** 4)]",
    "deep copies": "import copy\nx = [[i] for i in range(10 ** 5)]\nk = []\nwhile True:\n    k.append(copy.deepcopy(x))",
    "a decimal": "import decimal\ndecimal.getcontext().prec = 10 ** 9\ndecimal.Decimal(1) / 3",
    "a slice put in": "x = [0]\nwhile True:\n    x[0:0] = x",
    "attributes": "class A:\n    pass\na = A()\ni = 0\nwhile True:\n    i = i + 1\n    setattr(a, 'x' * 10000 + str(i), i)",
}


@pytest.mark.parametrize("code", HOARDERS.values(), ids=HOARDERS.keys())
async def test_memory_ends_at_its_limit(code: str, arena: Arena) -> None:
    outcome = await arena.run(code, limits=LITTLE_MEMORY)
    assert_well_formed(outcome)
    assert outcome.error is not None
    if isinstance(outcome.error, LimitReached):
        assert outcome.error.limit in {"memory_mib", "cpu_s"}, outcome.error
        assert outcome.error.limit == "cpu_s" or "96 MiB" in outcome.error.message
    else:
        assert isinstance(outcome.error, CodeFailed), outcome.error
    await arena.unharmed()


async def test_a_memory_error_is_the_codes_to_catch(arena: Arena) -> None:
    outcome = await arena.repels(
        "try:\n    'a' * 10 ** 9\nexcept MemoryError:\n    r = 'too much'\nr", limits=LITTLE_MEMORY
    )
    assert outcome.result == "too much"


async def test_memory_given_back_can_be_had_again(arena: Arena) -> None:
    outcome = await arena.repels("for i in range(50):\n    x = 'a' * 10 ** 7\nlen(x)", limits=LITTLE_MEMORY)
    assert outcome.result == 10**7


# --- the stack

NESTS = {
    "a function": "def f():\n    f()\nf()",
    "functions in turn": "def f(n):\n    return g(n + 1)\ndef g(n):\n    return f(n + 1)\nf(0)",
    "a lambda": "f = lambda: f()\nf()",
    "a method": "class A:\n    def m(self):\n        return self.m()\nA().m()",
    "catching every end": "def f():\n    try:\n        f()\n    except RecursionError:\n        f()\nf()",
    "repr of a nest": "a = []\nfor i in range(10 ** 5):\n    a = [a]\nrepr(a)",
    "repr of itself": "class A:\n    def __repr__(self):\n        return repr(self)\nrepr(A())",
    "str by way of format": "class A:\n    def __str__(self):\n        return '%s' % self\nstr(A())",
    "json of a nest": "import json\na = []\nfor i in range(10 ** 5):\n    a = [a]\njson.dumps(a)",
    "json of nested text": "import json\njson.loads('[' * 10 ** 5)",
    "json of nested objects": "import json\njson.loads('{\"a\":' * 10 ** 5)",
    "a deep copy of a nest": "import copy\na = []\nfor i in range(10 ** 5):\n    a = [a]\ncopy.deepcopy(a)",
    "a nest pickled": "import pickle\na = []\nfor i in range(10 ** 5):\n    a = [a]\npickle.dumps(a)",
    "a nest compared": "def n():\n    a = []\n    for i in range(10 ** 5):\n        a = [a]\n    return a\nn() == n()",
    "a nest of tuples hashed": "a = ()\nfor i in range(10 ** 5):\n    a = (a,)\nhash(a)",
    "a nest thrown away": "a = []\nfor i in range(10 ** 6):\n    a = [a]\na = None\n1 / 0",
    "a nest of dicts thrown away": "a = {}\nfor i in range(3 * 10 ** 5):\n    a = {1: a}\ndel a\n1 / 0",
    "generators thrown away": "def g(x):\n    yield x\na = None\nfor i in range(10 ** 5):\n    a = g(a)\n    next(a)\na = None\n1 / 0",
    "generators asked in turn": "a = iter([1])\nfor i in range(10 ** 5):\n    a = (x for x in a)\nlist(a)",
    "maps in maps": "a = iter([1])\nfor i in range(10 ** 5):\n    a = map(abs, a)\nlist(a)",
    "chains in chains": "import itertools\na = iter([1])\nfor i in range(10 ** 5):\n    a = itertools.chain(a)\nlist(a)",
    "partials in partials": "import functools\nf = len\nfor i in range(10 ** 5):\n    f = functools.partial(f)\n    f = functools.partial(lambda g, *a: g(*a), f)\nf([])",
    "isinstance of a nest": "a = int\nfor i in range(10 ** 5):\n    a = (a,)\nisinstance('x', a)",
    "isinstance that asks itself": "class M(type):\n    def __instancecheck__(cls, o):\n        return isinstance(o, cls)\nclass A(metaclass=M):\n    pass\nisinstance(1, A)",
    "an attribute that asks itself": "class A:\n    def __getattr__(self, n):\n        return getattr(self, n + 'x')\nA().y",
    "an attribute that asks for the same": "class A:\n    def __getattr__(self, n):\n        return self.other\nA().y",
    "a property that asks itself": "class A:\n    @property\n    def x(self):\n        return self.x\nA().x",
    "an equality that asks itself": "class A:\n    def __eq__(self, o):\n        return self == o\nA() == A()",
    "a length that asks itself": "class A:\n    def __len__(self):\n        return len(self)\nlen(A())",
    "an index that asks itself": "class A:\n    def __getitem__(self, i):\n        return self[i]\nA()[0]",
    "a call that calls itself": "class A:\n    def __call__(self):\n        return self()\nA()()",
    "calls through calls": "class A:\n    pass\nA.__call__ = A()\nA()()",
    "an addition that asks itself": "class A:\n    def __add__(self, o):\n        return self + o\nA() + 1",
    "a class tower": "c = object\nfor i in range(5000):\n    c = type('C', (c,), {})\nc()",
    "a sort that sorts": "def k(x):\n    return sorted([x], key=k)\nsorted([1], key=k)",
    "coroutines awaiting coroutines": "async def f():\n    await f()\nawait f()",
    "a pattern in a pattern": "import re\nre.compile('(' * 10 ** 4 + ')' * 10 ** 4)",
    "errors in a chain": "e = None\nfor i in range(10 ** 5):\n    n = ValueError()\n    n.__cause__ = e\n    e = n\nraise e",
    "groups in groups": "e = ValueError()\nfor i in range(10 ** 4):\n    e = ExceptionGroup('', [e])\nraise e",
    "code in code": "eval('(' * 10 ** 4 + ')' * 10 ** 4)",
    "a tree compiled": "import ast\na = ast.Constant(1)\nfor i in range(10 ** 5):\n    a = ast.UnaryOp(ast.USub(), a)\ncompile(ast.fix_missing_locations(ast.Expression(a)), '', 'eval')",
    "a tree parsed": "import ast\nast.literal_eval('-' * 10 ** 5 + '1')",
    "a tree of XML": "import xml.etree.ElementTree as e\ne.tostring(e.fromstring('<a>' * 10 ** 5 + '</a>' * 10 ** 5))",
    "a nest for a tool": "a = []\nfor i in range(10 ** 5):\n    a = [a]\nt.echo(a)",
    "a nest formatted": "import pprint\na = []\nfor i in range(10 ** 5):\n    a = [a]\npprint.pformat(a)",
    "finalizers in a chain": "class A:\n    def __init__(self, n):\n        self.n = n\n    def __del__(self):\n        pass\na = None\nfor i in range(10 ** 5):\n    a = A(a)\na = None\n1 / 0",
}


@pytest.mark.parametrize("code", NESTS.values(), ids=NESTS.keys())
async def test_recursion_of_any_kind_is_an_error_and_no_crash_of_the_host(code: str, arena: Arena) -> None:
    outcome = await arena.run(code, limits=Limits(cpu_s=0.4, timeout_s=10, tool_wait_s=5, memory_mib=256))
    assert_well_formed(outcome)
    if outcome.error is None:
        return  # it was deep, and it went well: only the judge below decides
    if isinstance(outcome.error, LimitReached):
        assert outcome.error.limit in {"stack", "memory_mib", "cpu_s", "max_depth"}, outcome.error
    else:
        assert isinstance(outcome.error, CodeFailed) or _died(outcome.error)
    await arena.unharmed()


# --- sources

SOURCES = {
    "brackets": "(" * 20_000 + ")" * 20_000,
    "lists": "x = " + "[" * 20_000 + "]" * 20_000,
    "minuses": "x = " + "-" * 100_000 + "1",
    "nots": "not " * 50_000 + "1",
    "powers": "1" + "**1" * 50_000,
    "a sum": "1" + "+1" * 100_000,
    "attributes": "t" + ".a" * 100_000,
    "subscripts": "t" + "[0]" * 50_000,
    "calls": "t" + "()" * 50_000,
    "lambdas": "lambda: " * 20_000 + "1",
    "blocks": "".join(" " * n + "if 1:\n" for n in range(200)) + " " * 200 + "pass",
    "loops": "".join(" " * n + "for x in y:\n" for n in range(50)) + " " * 50 + "pass",
    "functions": "".join(" " * n + "def f():\n" for n in range(99)) + " " * 99 + "pass",
    "a literal string": "'''" + "x" * 900_000 + "'''",
    "f-strings": 'f"{1}"' * 20_000,
    "f-strings in f-strings": "f'{" * 500 + "1" + "}'" * 500,
    "a number": "9" * 200_000,
    "a name": "n" * 500_000 + " = 1",
    "names": "\n".join(f"n{n} = {n}" for n in range(30_000)),
    "one line": ";".join(["x = 1"] * 50_000),
    "arguments": "print(" + ",".join(["1"] * 100_000) + ")",
    "parameters": "def f(" + ",".join(f"a{n}" for n in range(30_000)) + "): pass",
    "elifs": "if 0: pass\n" + "elif 0: pass\n" * 20_000,
    "decorators": "@print\n" * 20_000 + "def f(): pass",
    "a comparison": "1" + "<1" * 50_000,
    "ternaries": "1 if 0 else " * 20_000 + "1",
    "assignments": "a=" * 50_000 + "1",
    "targets": "a,*b" + ",c" * 20_000 + "=range(9)",
    "comprehensions": "[x " + "for x in [1] " * 5_000 + "]",
    "awaits": "await " * 20_000 + "x",
    "NULs": "x = 1\x00" * 100,
    "an open string": "x = '" + "\\" * 100_000,
    "a constant to be folded": "x = 'a' * 4096 * 4096 * 4096",
    "a power to be folded": "x = 2 ** 100000000",
    "a tuple to be folded": "x = ((((1,) * 256) * 256) * 256) * 256",
    "backslashes": "\\\n" * 50_000,
    "half a surrogate": "x = '\ud800'",
    "a form feed and tabs": "\f\tif 1:\n\tx = 1\n        x = 2",
    "another encoding": "# -*- coding: utf-7 -*-\nx = '+AGE-'\nx",
}


@pytest.mark.parametrize("code", SOURCES.values(), ids=SOURCES.keys())
async def test_a_monstrous_source_is_an_error_and_no_crash_of_the_host(code: str, arena: Arena) -> None:
    began = time.monotonic()
    outcome = await arena.run(code, limits=Limits(cpu_s=0.2, timeout_s=5, tool_wait_s=5, memory_mib=192))
    assert_well_formed(outcome)
    assert time.monotonic() - began < 4 * ENDED_WITHIN_S
    if isinstance(outcome.error, LimitReached):
        assert outcome.error.limit in {"stack", "memory_mib", "cpu_s"}, outcome.error
    await arena.unharmed()


async def test_a_source_over_its_limit_never_runs(arena: Arena) -> None:
    host = Host()
    outcome = await arena.repels("t.echo(1)\n" + "#" * 1000, host=host, limits=Limits(max_source_chars=1_000))
    assert isinstance(outcome.error, LimitReached) and outcome.error.limit == "max_source_chars"
    assert host.calls == []


# --- waiting

WAITS = {
    "a sleep": "import asyncio\nawait asyncio.sleep(1000)",
    "a sleep that blocks": "import time\ntime.sleep(1000)",
    "a future that nobody resolves": "import asyncio\nawait asyncio.gather(asyncio.sleep(1000), asyncio.sleep(500))",
    "a queue that stays empty": "import asyncio\nasync def f():\n    await asyncio.sleep(1000)\nx = asyncio.create_task(f())\nawait asyncio.Queue().get()",
    "a lock held": "import asyncio\nl = asyncio.Lock()\nawait l.acquire()\nasync def f():\n    await asyncio.sleep(99)\nx = asyncio.create_task(f())\nawait l.acquire()",
    "little sleeps": "import asyncio\nwhile True:\n    await asyncio.sleep(0.05)",
    "sleeps that catch everything": "import time\nwhile True:\n    try:\n        time.sleep(0.05)\n    except BaseException:\n        pass",
    "a sleep for ages": "import time\ntime.sleep(10 ** 8)",
    "a task that never ends": "import asyncio\nasync def f():\n    await asyncio.sleep(10 ** 5)\nx = asyncio.create_task(f())\nawait x",
}


@pytest.mark.parametrize("code", WAITS.values(), ids=WAITS.keys())
async def test_waiting_ends_at_its_limit(code: str, arena: Arena) -> None:
    began = time.monotonic()
    outcome = await arena.run(code, limits=Limits(cpu_s=2, timeout_s=0.1, tool_wait_s=5))
    assert_well_formed(outcome)
    assert outcome.error is not None and time.monotonic() - began < ENDED_WITHIN_S
    if isinstance(outcome.error, LimitReached):
        assert outcome.error.limit == "timeout_s", outcome.error
    await arena.unharmed()


TOOL_WAITS = {
    "one call": "t.never()",
    "one call, awaited": "await t.never()",
    "many calls": "import asyncio\nasync def f():\n    return await t.never()\nawait asyncio.gather(*[f() for i in range(40)])",
    "a call that is never awaited": "k = []\nasync def f():\n    k.append(t.never())\nawait f()\n1",
    "calls that are cancelled and made again": (
        "import asyncio\nasync def f():\n    return await t.never()\nwhile True:\n    try:\n        await asyncio.wait_for(f(), 0.02)\n"
        "    except asyncio.TimeoutError:\n        pass"
    ),
}


@pytest.mark.parametrize("code", TOOL_WAITS.values(), ids=TOOL_WAITS.keys())
async def test_waiting_for_tools_ends_at_its_limit_and_upstream_too(code: str, arena: Arena) -> None:
    host = Host()
    limits = Limits(cpu_s=2, timeout_s=0.3, tool_wait_s=0.1, max_parallel_calls=8)
    async with asyncio.timeout(10):
        outcome = await arena.run(code, host=host, limits=limits)
        assert isinstance(outcome.error, LimitReached), outcome
        assert outcome.error.limit in {"timeout_s", "tool_wait_s"}
        if host.calls:
            await host.idle.wait()
    assert host.in_flight == 0 and host.most_in_flight <= 8
    assert host.cancelled == ["t.never"] * len(host.calls)
    await arena.unharmed()


async def test_a_call_that_was_given_up_buys_no_time_to_sleep(arena: Arena) -> None:
    """Waiting for tools has its own, longer limit; sleeping after a call that was cancelled is no waiting for it."""
    host = Host()
    code = (
        "import asyncio\nasync def f():\n    return await t.never()\ntry:\n    await asyncio.wait_for(f(), 0.01)\n"
        "except asyncio.TimeoutError:\n    pass\nawait asyncio.sleep(1000)"
    )
    began = time.monotonic()
    outcome = await arena.run(code, host=host, limits=Limits(cpu_s=1, timeout_s=0.3, tool_wait_s=2.5))
    assert time.monotonic() - began < 2, outcome
    if isinstance(outcome.error, LimitReached):
        assert outcome.error.limit == "timeout_s"


# --- calls

CALLS = {
    "one after the other": "while True:\n    t.echo(1)",
    "catching every refusal": "while True:\n    try:\n        t.echo(1)\n    except Exception:\n        pass",
    "at once": "import asyncio\nasync def f(i):\n    return await t.echo(i)\nawait asyncio.gather(*[f(i) for i in range(5000)])",
    "that fail": "while True:\n    try:\n        t.fail('x')\n    except Exception:\n        pass",
    "with arguments that are refused": "while True:\n    try:\n        t.echo('x' * 200000)\n    except Exception:\n        pass",
    "left alone": "k = []\nasync def f():\n    while True:\n        k.append(t.never())\nawait f()",
}


@pytest.mark.parametrize("code", CALLS.values(), ids=CALLS.keys())
async def test_calls_end_at_their_number(code: str, arena: Arena) -> None:
    host = Host()
    limits = Limits(
        cpu_s=0.15, timeout_s=5, tool_wait_s=0.2, max_tool_calls=20, max_parallel_calls=4, max_argument_chars=100_000
    )
    outcome = await arena.run(code, host=host, limits=limits)
    assert_well_formed(outcome)
    assert outcome.error is not None
    assert len(host.calls) <= 20 and host.most_in_flight <= 4
    if isinstance(outcome.error, LimitReached):
        assert outcome.error.limit in {"cpu_s", "max_tool_calls", "timeout_s", "tool_wait_s"}, outcome.error
    elif isinstance(outcome.error, CodeFailed) and outcome.error.type == "ToolError":
        assert "20" in outcome.error.message
    await arena.unharmed()


HANDLES = {
    "loading nothing": "while True:\n    try:\n        load('r1')\n    except Exception:\n        pass",
    "loading something": "while True:\n    x = load('r2')",
    "loading and keeping": "k = []\nwhile True:\n    k.append(load('big') + str(len(k)))",
    "loading by a long name": "while True:\n    try:\n        load('r' * 1000000)\n    except Exception:\n        pass",
}


@pytest.mark.parametrize("code", HANDLES.values(), ids=HANDLES.keys())
async def test_loading_without_end_ends(code: str, arena: Arena) -> None:
    host = Host()
    host.kept.update(r2="kept", big="b" * 1_000_000)
    outcome = await arena.repels(code, host=host, limits=Limits(cpu_s=0.3, timeout_s=5, memory_mib=96))
    assert_well_formed(outcome)
    assert outcome.error is not None
    assert isinstance(outcome.error, CodeFailed) or outcome.error.limit in {
        "cpu_s",
        "memory_mib",
        "max_tool_calls",
        "timeout_s",
    }  # type: ignore[union-attr]


# --- the host's own memory and time

COSTLY = {
    "refused calls that nobody fetches": "i = 1\nwhile True:\n    i = i + 1\n    w.submit(i, 't.echo', 'x')",
    "empty pieces of output": "while True:\n    w.emit(1, '')",
    "cancelling nothing": "while True:\n    w.call('@cancel', '5')",
    "lists of tools": "while True:\n    w.call('@tools', '[[\"t\"],{}]')",
    "arguments that nobody fetches": "x = '[[],{}' + ' ' * 900000 + ']'\nfor i in range(1, 400):\n    w.submit(i, 't.never', x)\nw.poll(-1)\n1 / 0",
    "answers that nobody fetches": "for i in range(1, 400):\n    w.submit(i, 't.big', '[[],{}]')\nwhile True:\n    pass",
}


@pytest.mark.parametrize("code", COSTLY.values(), ids=COSTLY.keys())
async def test_a_guest_costs_the_host_little_memory(code: str, arena: Arena) -> None:
    async def big() -> str:
        return "".join(["x"] * 900_000)

    host = Host({"t.big": big})
    limits = Limits(
        cpu_s=0.3,
        timeout_s=3,
        tool_wait_s=0.2,
        max_tool_calls=500,
        max_argument_chars=1_000_000,
        max_reply_chars=1_000_000,
    )
    await arena.run("1")
    tracemalloc.start()
    try:
        outcome = await arena.run("import wit_world as w\n" + code, host=host, limits=limits)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert outcome.error is not None
    assert peak < 64 * 1024 * 1024, f"{peak / 2**20:.0f} MiB"
    await arena.unharmed()


LEAVINGS = {
    "refused calls": "k = []\nasync def f():\n    for i in range(30000):\n        k.append(t.echo(i))\nawait f()\n1 / 0",
    "refused calls past the helpers": "import wit_world as w\nfor i in range(1, 30000):\n    w.submit(i, 't.echo', 'x')\n1 / 0",
    "empty pieces of output": "import sys\nfor i in range(30000):\n    print('', end='', flush=True)\n1 / 0",
    "answers never fetched": "k = []\nasync def f():\n    for i in range(5):\n        k.append(t.rows(2000))\nawait f()\n1 / 0",
}


@pytest.mark.parametrize("code", LEAVINGS.values(), ids=LEAVINGS.keys())
async def test_what_was_refused_leaves_nothing_in_the_hosts_memory(code: str, arena: Arena) -> None:
    """The guest's memory has a limit; what the host keeps for it must not grow with every call that is refused."""
    await arena.run("1")
    tracemalloc.start()
    try:
        outcome = await arena.run(code, limits=Limits(cpu_s=5, timeout_s=10, tool_wait_s=2, max_tool_calls=5))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert outcome.error is not None
    assert peak < 6 * 1024 * 1024, f"{peak / 2**20:.1f} MiB"
    await arena.unharmed()


async def test_the_event_loop_stays_free_while_a_guest_floods_it(arena: Arena) -> None:
    flood = "import wit_world as w\nwhile True:\n    w.call('@cancel', '5')"
    running = asyncio.create_task(arena.run(flood, limits=Limits(cpu_s=0.5, timeout_s=3)))
    worst = 0.0
    while not running.done():
        began = time.monotonic()
        await asyncio.sleep(0)
        worst = max(worst, time.monotonic() - began)
    await running
    assert worst < 0.5


async def test_thirty_greedy_guests_at_once_leave_room_for_a_modest_one(arena: Arena) -> None:
    greedy = [
        asyncio.create_task(arena.run(code, limits=Limits(cpu_s=0.1, timeout_s=10, memory_mib=96)))
        for code in list(BURNERS.values())[:15] + list(HOARDERS.values())[:15]
    ]
    await asyncio.sleep(0)
    modest = await asyncio.wait_for(arena.run("t.add(1, 2)"), 30)
    assert modest.result == 3
    for outcome in await asyncio.gather(*greedy):
        assert outcome.error is not None
