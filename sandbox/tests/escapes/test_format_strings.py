"""Format strings: `str.format` and its relatives read attributes and items by the text of the format, where no guard
looks. What they read they turn into text, which is enough for a secret; `string.Formatter` hands out the object."""

import pytest

from sandbox.tests.escapes.conftest import Arena

pytestmark = pytest.mark.anyio


def _format(setup: str, expression: str) -> str:
    """A program that formats one of its own functions, which shows that the way is open, and then goes for the secret.
    FORMAT and FIELD stand for the format and its field, VALUE for what fills it."""
    probe = expression.replace("FORMAT", "'{FIELD.__globals__}'").replace("VALUE", "lambda: 0")
    theft = expression.replace("FORMAT", "'{FIELD.__init__.__globals__[_os].environ[PLANTED_SECRET]}'")
    field = "x" if "x=" in expression or "'x':" in expression else "0"
    lines = [setup, f"text = {probe}", "print('REACHED')", "import random"]
    lines += [f"text = {theft.replace('VALUE', 'random.Random')}", "print(text)"]
    return "\n".join(lines).replace("FIELD", field)


FORMATS = {
    "str.format": _format("", "FORMAT.format(VALUE)"),
    "str.format by a name": _format("", "FORMAT.format(x=VALUE)"),
    "str.format_map": _format("", "FORMAT.format_map({'x': VALUE})"),
    "format of the class": _format("", "str.format(FORMAT, VALUE)"),
    "format of the class of a text": _format("", "type('').format(FORMAT, VALUE)"),
    "format by getattr": _format("", "getattr(FORMAT, 'for' + 'mat')(VALUE)"),
    "format as the function of a map": _format("", "[*map(FORMAT.format, [VALUE])]"),
    "format of the class as the function of a map": _format("", "list(map(str.format, [FORMAT], [VALUE]))"),
    "format by methodcaller": _format("import operator", "operator.methodcaller('format', VALUE)(FORMAT)"),
    "format by partial": _format("import functools", "functools.partial(str.format, FORMAT)(VALUE)"),
    "format by reduce": _format("import functools", "functools.reduce(str.format, [FORMAT, VALUE])"),
    "format as a method of a class of one's own": _format(
        "class S(str):\n    fill = str.format", "S(FORMAT).fill(VALUE)"
    ),
    "format by super()": _format(
        "class S(str):\n    def fill(self, *a):\n        return super().format(*a)", "S(FORMAT).fill(VALUE)"
    ),
    "format by super() from outside": _format("class S(str):\n    pass", "super(S, S(FORMAT)).format(VALUE)"),
    "format of a class that says it is no text": _format(
        "class S(str):\n    @property\n    def __class__(self):\n        return int", "S(FORMAT).format(VALUE)"
    ),
    # It is not a str, and its method calls str.format itself.
    "UserString": _format("import collections", "collections.UserString(FORMAT).format(VALUE)"),
    "UserString.format_map": _format(
        "from collections import UserString", "UserString(FORMAT).format_map({'x': VALUE})"
    ),
    # They are neither a str nor a subclass, and forward every attribute to str.
    "format of an annotated str": _format("import typing", "typing.Annotated[str, 1].format(FORMAT, VALUE)"),
    "format of a generic alias of str": _format("import types", "types.GenericAlias(str, int).format(FORMAT, VALUE)"),
    "format of a member of a string enum": _format(
        "import enum\ndef make(text):\n    return enum.StrEnum('F', {'ENV': text}).ENV", "make(FORMAT).format(VALUE)"
    ),
    "format behind a weak proxy": _format(
        "import weakref\nclass S(str):\n    pass\nkept = []\ndef hold(text):\n    kept.append(S(text))\n    return weakref.proxy(kept[-1])",
        "hold(FORMAT).format(VALUE)",
    ),
    "fields within the format's specification": _format(
        "class Echo:\n    def __format__(self, spec):\n        return spec",
        "('{0:' + FORMAT.replace('0.', '1.') + '}').format(Echo(), VALUE)",
    ),
    "format of text that a tool returned": _format("", "t.echo(FORMAT).format(VALUE)"),
    "format bound by a pattern": _format(
        "def fill(text, value):\n    match text:\n        case str(format=f):\n            return f(value)",
        "fill(FORMAT, VALUE)",
    ),
    "format bound by the positional pattern of a generated class": _format(
        "import abc, dataclasses\nHas = dataclasses.make_dataclass('Has', ['format'], bases=(abc.ABC,))\nHas.register(str)\n"
        "def fill(text, value):\n    match text:\n        case Has(f):\n            return f(value)",
        "fill(FORMAT, VALUE)",
    ),
    "format bound by the positional pattern of a dataclass": _format(
        "import abc\nfrom dataclasses import dataclass\n@dataclass\nclass Has(abc.ABC):\n    format: object\n"
        "Has.register(str)\ndef fill(text, value):\n    match text:\n        case Has(f):\n            return f(value)",
        "fill(FORMAT, VALUE)",
    ),
    "format copied onto a namespace": _format(
        "import functools, types\ndef fill(text, value):\n    space = types.SimpleNamespace()\n"
        "    functools.wraps(text, assigned=('format',), updated=())(space)\n    return vars(space)['format'](value)",
        "fill(FORMAT, VALUE)",
    ),
    "format handed out by wraps": _format(
        "import functools\ndef fill(text, value):\n    def holder():\n        pass\n"
        "    return functools.update_wrapper(holder, text, assigned=('format',), updated=()).format(value)",
        "fill(FORMAT, VALUE)",
    ),
    "format of a text within an exception": _format(
        "def fill(text, value):\n    try:\n        text.nothing\n    except AttributeError as e:\n        return e.obj.format(value)",
        "fill(FORMAT, VALUE)",
    ),
}

FORMATTERS = {
    # CVE-2026-76825, RestrictedPython < 8.4.
    "Formatter.get_field": """
import string
found, _used = string.Formatter().get_field('0.__globals__', [lambda: 0], {})
print('REACHED')
b = found['__builtins__']
print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
    "Formatter.format": """
import random, string
text = string.Formatter().format('{0.__init__.__globals__[_os].environ[PLANTED_SECRET]}', random.Random)
print('REACHED')
print(text)
""",
    "Formatter.vformat": """
from string import Formatter
import random
text = Formatter().vformat('{x.__init__.__globals__[_os].environ[PLANTED_SECRET]}', (), {'x': random.Random})
print('REACHED')
print(text)
""",
    "a formatter of one's own that keeps the object": """
import string
class Thief(string.Formatter):
    def format_field(self, value, spec):
        self.value = value
        return ''
thief = Thief()
thief.format('{0.__globals__}', lambda: 0)
print('REACHED')
b = thief.value['__builtins__']
print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
    "a formatter that converts": """
import string
class Thief(string.Formatter):
    def convert_field(self, value, conversion):
        print('REACHED')
        b = value['__builtins__']
        print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
        return value
Thief().vformat('{0.__globals__!r}', [lambda: 0], {})
""",
    "Formatter by a star import": """
from string import *
text = Formatter().get_field('0.__globals__', [lambda: 0], {})[0]
print('REACHED')
b = text['__builtins__']
print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
    "Formatter's bound method in a pattern": """
import string
match string:
    case object(Formatter=F):
        match F():
            case object(get_field=get):
                found = get('0.__globals__', [lambda: 0], {})[0]
                print('REACHED')
                b = found['__builtins__']
                print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
    "logging's braces": """
import logging, random
record = logging.makeLogRecord({'it': random.Random})
text = logging.Formatter('{it.__init__.__globals__[_os].environ[PLANTED_SECRET]}', style='{', validate=False).format(record)
print('REACHED')
print(text)
""",
    "logging's per cent": """
import logging, random
text = logging.Formatter('%(x)s', defaults={'x': vars(random)['_os'].environ}).format(logging.makeLogRecord({}))
print('REACHED')
print(text)
""",
    "a template over a module's names": """
import string, random
class T(string.Template):
    idpattern = '[a-z_.]+'
class Walk(dict):
    def __missing__(self, name):
        value = random
        for part in name.split('.'):
            value = getattr(value, part)
        print('REACHED', part)
        return value
print(T('${_os.environ}').substitute(Walk()))
""",
    "a helper of string's": """
import string
first, rest = string._string.formatter_field_name_split('0.__globals__')
print('REACHED')
for is_attribute, name in rest:
    found = getattr(lambda: 0, name)
b = found['__builtins__']
print((b['open'] if isinstance(b, dict) else b.open)('@SECRET@').read())
""",
}

LITERALS = {
    "an expression in an f-string": """
print(f"REACHED {[c for c in ().__class__.__base__.__subclasses__() if 'BuiltinImporter' in str(c)][0].load_module('posix').system('touch @MARKER@')}")
""",
    "an expression in an f-string's specification": """
print(f"REACHED {1:{(lambda: 0).__builtins__['open']('@SECRET@').read()}}")
""",
    "an f-string within an f-string": """
print(f"{f'{(lambda: 0).__builtins__}'}"[:0] + 'REACHED')
print(f"{f'''{(lambda: 0).__builtins__['open']('@SECRET@').read()}'''}")
""",
    "a conversion in an f-string": """
class R:
    def __repr__(self):
        return getattr(lambda: 0, '__builtins__')['open']('@SECRET@').read()
text = f'{R()!r}'
print('REACHED')
print(text)
""",
    "an assignment in an f-string": """
print(f'{(b := (lambda: 0).__builtins__)}'[:0])
print('REACHED')
print(b['open']('@SECRET@').read())
""",
    "the equals sign in an f-string": """
text = f"{(lambda: 0).__builtins__['open']('@SECRET@').read()=}"
print('REACHED')
print(text)
""",
    # Python 3.14: the values of a template string are there for the taking.
    "a template string": """
found = t'{(lambda: 0).__builtins__}'.interpolations[0].value
print('REACHED')
print(found['open']('@SECRET@').read())
""",
    "a per cent format that asks a mapping": """
class Ask:
    def __getitem__(self, name):
        return getattr(lambda: 0, name)
    def keys(self):
        return []
text = '%(__builtins__)s' % Ask()
print('REACHED')
print((lambda: 0).__builtins__['open']('@SECRET@').read())
""",
}


@pytest.mark.parametrize("code", FORMATS.values(), ids=FORMATS.keys())
async def test_no_format_reads_attributes(code: str, arena: Arena) -> None:
    await arena.repels(code)


@pytest.mark.parametrize("code", FORMATTERS.values(), ids=FORMATTERS.keys())
async def test_no_formatter_hands_an_object_out(code: str, arena: Arena) -> None:
    await arena.repels(code)


@pytest.mark.parametrize("code", LITERALS.values(), ids=LITERALS.keys())
async def test_no_expression_within_a_text_goes_unguarded(code: str, arena: Arena) -> None:
    await arena.repels(code)
