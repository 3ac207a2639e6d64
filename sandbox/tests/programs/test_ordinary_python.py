"""Ordinary Python, as models write it."""

from typing import Any

import pytest

from sandbox.tests.conftest import Run
from sandbox.tests.programs.conftest import Value

pytestmark = pytest.mark.anyio


SNIPPETS: dict[str, tuple[str, Any]] = {
    "json": ("import json\njson.loads(json.dumps({'a': [1, 2.5, None, True, 'ü']}))", {"a": [1, 2.5, None, True, "ü"]}),
    "re": ("import re\nre.sub(r'(\\w+)@(\\w+)', r'\\2 at \\1', 'bob@home')", "home at bob"),
    "re groups": (
        "import re\n[m.groupdict() for m in re.finditer(r'(?P<k>\\w)=(?P<v>\\d)', 'a=1 b=2')]",
        [{"k": "a", "v": "1"}, {"k": "b", "v": "2"}],
    ),
    "datetime": ("from datetime import *\n(date(2026, 3, 1) - date(2026, 2, 1)).days", 28),
    "strptime": ("from datetime import datetime\ndatetime.strptime('5 Jan 2026', '%d %b %Y').isoformat()", "2026-01-05T00:00:00"),
    "zoneinfo": (
        "from datetime import *\nfrom zoneinfo import ZoneInfo\n"
        "datetime(2026, 7, 1, tzinfo=timezone.utc).astimezone(ZoneInfo('Asia/Tokyo')).hour",
        9,
    ),
    "calendar": ("import calendar\ncalendar.monthrange(2028, 2)[1]", 29),
    "statistics": ("import statistics as s\n[s.mean([1, 2, 3]), s.median([1, 9, 2]), s.pstdev([2, 2])]", [2, 2, 0.0]),
    "csv": ("import csv, io\nlist(csv.DictReader(io.StringIO('a,b\\n1,\"x,y\"\\n')))", [{"a": "1", "b": "x,y"}]),
    "csv writer": (
        "import csv, io\nf = io.StringIO()\ncsv.writer(f).writerows([[1, 'a,b'], [2, 'c']])\nf.getvalue()",
        '1,"a,b"\r\n2,c\r\n',
    ),
    "collections": (
        "from collections import Counter, defaultdict, deque\nd = defaultdict(list)\nd['a'].append(1)\n"
        "[Counter('aab').most_common(1), d, list(deque([1, 2, 3], maxlen=2))]",
        [[["a", 2]], {"a": [1]}, [2, 3]],
    ),
    "itertools": (
        "import itertools as it\n[[k, len(list(g))] for k, g in it.groupby('aab')] + list(it.batched('abc', 2))",
        [["a", 2], ["b", 1], ["a", "b"], ["c"]],
    ),
    "functools": (
        "from functools import *\n@lru_cache\ndef fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\n"
        "[fib(80), reduce(lambda a, b: a * b, range(1, 6)), partial(int, base=2)('101')]",
        [23416728348467685, 120, 5],
    ),
    "singledispatch": (
        "from functools import singledispatch\n@singledispatch\ndef f(x):\n    return 'any'\n@f.register\n"
        "def _(x: int):\n    return 'int'\n[f('a'), f(1)]",
        ["any", "int"],
    ),
    "operator": ("from operator import itemgetter\nsorted([(2, 'a'), (1, 'b')], key=itemgetter(0))", [[1, "b"], [2, "a"]]),
    "textwrap": ("import textwrap\ntextwrap.shorten('hello big world', 12) + textwrap.dedent('  x')", "hello [...]x"),
    "inheritance": (
        "class A:\n    def hi(self):\n        return 'A'\nclass B(A):\n    def hi(self):\n        return 'B' + super().hi()\nB().hi()",
        "BA",
    ),
    "properties": (
        "class A:\n    def __init__(self):\n        self._x = 1\n    @property\n    def x(self):\n        return self._x\n"
        "    @x.setter\n    def x(self, v):\n        self._x = v * 2\n    @classmethod\n    def make(cls):\n        return cls()\n"
        "    @staticmethod\n    def s():\n        return 's'\na = A.make()\na.x = 4\n[a.x, A.s()]",
        [8, "s"],
    ),
    "abc": (
        "from abc import ABC, abstractmethod\nclass A(ABC):\n    @abstractmethod\n    def f(self): ...\n"
        "try:\n    A()\nexcept TypeError:\n    r = 'abstract'\nr",
        "abstract",
    ),
    "dunder": (
        "class V:\n    def __init__(self, x):\n        self.x = x\n    def __add__(self, o):\n        return V(self.x + o.x)\n"
        "    def __eq__(self, o):\n        return self.x == o.x\n    def __len__(self):\n        return self.x\n"
        "[len(V(1) + V(2)), V(1) == V(1)]",
        [3, True],
    ),
    "generators": (
        "def squares(n):\n    for i in range(n):\n        got = yield i * i\ndef both():\n    yield from squares(3)\n    yield 'end'\nlist(both())",
        [0, 1, 4, "end"],
    ),
    "async generators": (
        "async def items():\n    for i in range(3):\n        await asyncio.sleep(0)\n        yield i\n[x async for x in items()]",
        [0, 1, 2],
    ),
    "contextlib": (
        "from contextlib import *\nlog = []\n@contextmanager\ndef step(n):\n    log.append('in')\n    try:\n        yield n\n"
        "    finally:\n        log.append('out')\nwith ExitStack() as stack:\n    stack.enter_context(step(1))\n    log.append('body')\n"
        "with suppress(KeyError):\n    {}['x']\nlog",
        ["in", "body", "out"],
    ),
    "dataclass": (
        "from dataclasses import *\n@dataclass(order=True, frozen=True)\nclass P:\n    x: int\n    tags: list = field(default_factory=list)\n"
        "[asdict(P(1)), P(1) < P(2), replace(P(1), x=5).x]",
        [{"x": 1, "tags": []}, True, 5],
    ),
    "enum": (
        "from enum import *\nclass C(IntEnum):\n    A = auto()\n    B = auto()\nclass S(StrEnum):\n    X = 'x'\n[C.B, C(1).name, S.X, len(C)]",
        [2, "A", "x", 2],
    ),
    "match": (
        "def kind(x):\n    match x:\n        case {'type': 'a', 'items': [first, *_]}:\n            return first\n        case int() | float() if x > 5:\n"
        "            return 'big'\n        case _:\n            return None\n[kind({'type': 'a', 'items': [7, 8]}), kind(6), kind('x')]",
        [7, "big", None],
    ),
    "walrus": ("[y for x in range(5) if (y := x * 2) > 4]", [6, 8]),
    "except star": (
        "r = []\ntry:\n    raise ExceptionGroup('g', [ValueError(1), KeyError(2)])\nexcept* ValueError:\n    r.append('v')\nexcept* KeyError:\n    r.append('k')\nr",
        ["v", "k"],
    ),
    "notes and causes": (
        "try:\n    try:\n        1 / 0\n    except ZeroDivisionError as e:\n        e.add_note('n')\n        raise RuntimeError('r') from e\n"
        "except RuntimeError as e:\n    r = [str(e), e.__cause__.__notes__]\nr",
        ["r", ["n"]],
    ),
    "decorators": (
        "import functools\ndef twice(f):\n    @functools.wraps(f)\n    def inner(*a, **k):\n        return f(*a, **k) * 2\n    return inner\n"
        "@twice\ndef three():\n    return 3\n[three(), three.__name__]",
        [6, "three"],
    ),
    "closures": ("def counter():\n    n = 0\n    def up():\n        nonlocal n\n        n += 1\n        return n\n    return up\nup = counter()\nup()\nup()", 2),
    "lambdas": ("sorted(['bb', 'a'], key=lambda s: len(s)) + list(map(lambda x, y=2: x * y, [1]))", ["a", "bb", 2]),
    "unpacking": ("a, *b, c = range(5)\n{**{'a': a}, 'b': [*b, c]}", {"a": 0, "b": [1, 2, 3, 4]}),
    "sqlite3": (
        "import sqlite3\nwith sqlite3.connect(':memory:') as db:\n    db.execute('create table t (a, b)')\n"
        "    db.executemany('insert into t values (?, ?)', [(1, 'x'), (2, 'y')])\n    r = db.execute('select sum(a), max(b) from t').fetchone()\nr",
        [3, "y"],
    ),
    "hashlib": ("import hashlib\nhashlib.sha256(b'a').hexdigest()[:8] + hashlib.md5(b'a').hexdigest()[:4]", "ca9781120cc1"),
    "hmac": ("import hmac\nhmac.new(b'k', b'm', 'sha256').hexdigest()[:8]", "b60090e3"),
    "base64": ("import base64\n[base64.b64encode(b'hi').decode(), base64.urlsafe_b64decode('aGk=').decode()]", ["aGk=", "hi"]),
    "uuid": ("import uuid\n[uuid.uuid4().version, str(uuid.uuid5(uuid.NAMESPACE_DNS, 'a.b'))[:8]]", [4, "0e7af403"]),
    "secrets": ("import secrets\n[len(secrets.token_hex(4)), secrets.choice('a')]", [8, "a"]),
    "random": ("import random\nrandom.seed(1)\na = random.random()\nrandom.seed(1)\n[a == random.random(), random.choice([5])]", [True, 5]),
    "difflib": ("import difflib\nlist(difflib.unified_diff(['a'], ['b'], lineterm=''))[-2:]", ["-a", "+b"]),
    "string": ("import string\nstring.Template('$a!').substitute(a=1) + string.ascii_lowercase[:2] + string.capwords('x y')", "1!abX Y"),
    "heapq": ("import heapq\nh = [3, 1, 2]\nheapq.heapify(h)\n[heapq.heappop(h), heapq.nlargest(1, h)]", [1, [3]]),
    "bisect": ("import bisect\nbisect.bisect([1, 3, 5], 4)", 2),
    "decimal": ("from decimal import *\nstr((Decimal('0.1') + Decimal('0.2')).quantize(Decimal('0.01'), ROUND_HALF_UP))", "0.30"),
    "fractions": ("from fractions import Fraction\nstr(Fraction('0.75') + Fraction(1, 4))", "1"),
    "math": ("import math\n[math.gcd(12, 18), math.comb(5, 2), math.isclose(math.pi, 3.14159, rel_tol=1e-5)]", [6, 10, True]),
    "urllib.parse": (
        "from urllib.parse import *\n[urlparse('http://a/b?c=1').query, quote('a b'), parse_qs('x=1&x=2'), urljoin('http://a/b/', 'c')]",
        ["c=1", "a%20b", {"x": ["1", "2"]}, "http://a/b/c"],
    ),
    "html": ("import html\nhtml.escape('<a>') + html.unescape('&amp;')", "&lt;a&gt;&"),
    "html.parser": (
        "from html.parser import HTMLParser\nclass P(HTMLParser):\n    tags = []\n    def handle_starttag(self, tag, attrs):\n"
        "        self.tags.append(tag)\nP().feed('<p><b>x</b></p>')\nP.tags",
        ["p", "b"],
    ),
    "xml.etree": ("import xml.etree.ElementTree as ET\nET.fromstring('<a><b k=\"v\">t</b></a>').find('b').attrib", {"k": "v"}),
    "minidom": ("from xml.dom import minidom\nminidom.parseString('<a><b/></a>').documentElement.tagName", "a"),
    "zlib": ("import zlib\nzlib.decompress(zlib.compress(b'x' * 100)) == b'x' * 100", True),
    "gzip": ("import gzip\ngzip.decompress(gzip.compress(b'x')).decode()", "x"),
    "zipfile": (
        "import io, zipfile\nf = io.BytesIO()\nwith zipfile.ZipFile(f, 'w') as z:\n    z.writestr('a.txt', 'hi')\nzipfile.ZipFile(f).read('a.txt').decode()",
        "hi",
    ),
    "tomllib": ("import tomllib\ntomllib.loads('[a]\\nb = [1, 2]')", {"a": {"b": [1, 2]}}),
    "configparser": ("import configparser\nc = configparser.ConfigParser()\nc.read_string('[a]\\nb=1')\nc['a'].getint('b')", 1),
    "ipaddress": ("import ipaddress\n[ipaddress.ip_address('10.0.0.1').is_private, ipaddress.ip_network('10.0.0.0/30').num_addresses]", [True, 4]),
    "typing": (
        "from typing import *\nT = TypeVar('T')\nclass Row(TypedDict):\n    a: int\nclass P(Protocol):\n    def f(self) -> int: ...\n"
        "def first(x: list[T]) -> T | None:\n    return x[0] if x else None\n[first([1]), Row(a=1)]",
        [1, {"a": 1}],
    ),
    "type parameters": ("type Pair[T] = tuple[T, T]\ndef first[T](x: list[T]) -> T:\n    return x[0]\nfirst([4])", 4),
    "f-strings": ("x = 3.14159\nn = 1234567\nf'{x:.2f} {n:,} {\"a\":>3}{n=} {x!r}'", "3.14 1,234,567   an=1234567 3.14159"),
    "string methods": ("' A-b '.strip().lower().replace('-', '_').split('_') + ['x'.zfill(3)]", ["a", "b", "00x"]),
    "bytes": ("b'\\x01\\x02'.hex() + bytes([65]).decode() + int.from_bytes(b'\\x01\\x00').__str__()", "0102A256"),
    "struct": ("import struct\nstruct.unpack('<HI', struct.pack('<HI', 1, 2))", [1, 2]),
    "pickle": ("import pickle\npickle.loads(pickle.dumps({'a': (1, 2)}))", {"a": [1, 2]}),
    "pickle of one's own class": (
        "import pickle\nclass P:\n    x = 5\npickle.loads(pickle.dumps(P())).x",
        5,
    ),
    "the main module": ("import __main__\nx = 4\n__main__.x", 4),
    "variables by name": ("x = 4\n[locals() is globals(), locals()['x'], 'x' in dir(), 'x' in vars()]", [True, 4, True, True]),
    "annotations": ("from __future__ import annotations\nx: int = 5\ny: str\ndef f(a: nothing) -> None: ...\nx", 5),
    "copy": ("import copy\na = [[1]]\nb = copy.deepcopy(a)\nb[0].append(2)\n[a, b]", [[[1]], [[1, 2]]]),
    "pprint": ("import pprint\npprint.pformat({'b': 1, 'a': 2})", "{'a': 2, 'b': 1}"),
    "logging": ("import logging, io\nf = io.StringIO()\nlogging.basicConfig(stream=f)\nlogging.warning('w')\nf.getvalue()", "WARNING:root:w\n"),
    "ast": ("import ast\nast.literal_eval('{\"a\": [1, 2]}')", {"a": [1, 2]}),
    "eval and exec": ("scope = {}\nexec('x = 2', scope)\neval('x + 1', scope)", 3),
    "graphlib": ("import graphlib\nlist(graphlib.TopologicalSorter({'b': {'a'}, 'c': {'b'}}).static_order())", ["a", "b", "c"]),
    "unicodedata": ("import unicodedata\nunicodedata.normalize('NFKD', 'é').encode('ascii', 'ignore').decode()", "e"),
    "time": ("import time\na = time.perf_counter()\ntime.sleep(0.001)\n[time.perf_counter() > a, time.time() > 1.7e9]", [True, True]),
    "traceback": ("import traceback\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    r = traceback.format_exc().splitlines()[-1]\nr", "ZeroDivisionError: division by zero"),
    "email": ("from email.message import EmailMessage\nm = EmailMessage()\nm['Subject'] = 's'\nm.set_content('b')\nm.as_string().split('\\n')[0]", "Subject: s"),
    "weakref and gc": ("import weakref, gc\nclass A: pass\na = A()\nr = weakref.ref(a)\ndel a\ngc.collect()\nr() is None", True),
    "big loop": ("sum(i * i for i in range(10_000))", 333283335000),
    "sorting rows": ("[r['name'] for r in sorted(t.rows(3), key=lambda r: -r['n'])]", ["row 2", "row 1", "row 0"]),
    "main guard": ("def main():\n    return 5\nif __name__ == '__main__':\n    print(main())", None),
    "async main": ("async def main():\n    return await t.add(1, 2)\nasyncio.run(main())", 3),
    "to_thread": ("await asyncio.to_thread(lambda x: x + 1, 2)", 3),
    "run_in_executor": ("await asyncio.get_running_loop().run_in_executor(None, lambda x: x + 1, 2)", 3),
    "asyncio queue": (
        "q = asyncio.Queue()\nasync def produce():\n    for i in range(3):\n        await q.put(i)\n    await q.put(None)\n"
        "async def consume():\n    r = []\n    while (x := await q.get()) is not None:\n        r.append(x)\n    return r\n"
        "(await asyncio.gather(produce(), consume()))[1]",
        [0, 1, 2],
    ),
    "asyncio primitives": (
        "lock, event = asyncio.Lock(), asyncio.Event()\nasync def a():\n    async with lock:\n        event.set()\n    return 1\n"
        "async def b():\n    await event.wait()\n    return 2\nawait asyncio.gather(b(), a())",
        [2, 1],
    ),
    "asyncio sleep order": (
        "r = []\nasync def f(n):\n    await asyncio.sleep(n / 100)\n    r.append(n)\nawait asyncio.gather(f(2), f(1), f(0))\nr",
        [0, 1, 2],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("code", "expected"), SNIPPETS.values(), ids=SNIPPETS.keys())
async def test_ordinary_python(code: str, expected: Any, value: Value) -> None:
    assert await value(code) == expected


async def test_a_thread_pool_executor_does_its_work_in_turn(run: Run) -> None:
    code = """
from concurrent.futures import ThreadPoolExecutor, as_completed
with ThreadPoolExecutor(max_workers=4) as pool:
    doubled = list(pool.map(lambda i: t.add(a=i, b=i), range(4)))
    failed = pool.submit(lambda: 1 / 0)
[doubled, type(failed.exception()).__name__]
"""
    outcome = await run(code)
    assert outcome.result == [[0, 2, 4, 6], "ZeroDivisionError"]


async def test_nan_is_refused_as_an_argument_and_named_in_a_result(run: Run) -> None:
    assert (await run("[float('nan'), 1.5]")).result == ["NaN", 1.5]
    outcome = await run("t.echo(value=float('inf'))")
    assert outcome.error is not None and "not JSON compliant" in str(outcome.error)
