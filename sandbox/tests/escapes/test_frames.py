"""Frames: from a traceback, a generator, a coroutine or a callback to the variables of whoever called. A frame holds
the real builtins and the caller's globals, so it is the end of any Python sandbox that gives one away."""

import pytest

from sandbox.tests.escapes.conftest import Arena

pytestmark = pytest.mark.anyio

GENERATORS = {
    # CVE-2023-37271, RestrictedPython < 6.1: generators gave their frame away.
    "a generator's frame": (
        "def g():\n    yield g.gi_frame.f_back.f_back.f_builtins\ng = g()\nb = [x for x in g][0]\n"
        "print('REACHED')\nprint(b['open']('@SECRET@').read())"
    ),
    "a generator's frame by getattr": """
def g():
    yield 1
g = g()
next(g)
f = getattr(g, 'gi_frame', None)
if f is not None:
    print('REACHED')
    print(getattr(f, 'f_builtins')['open']('@SECRET@').read())
""",
    "a generator expression that looks at itself": """
g = (g.gi_frame.f_back for _ in [1])
f = next(iter(g))
while f.f_back:
    f = f.f_back
print('REACHED')
print(f.f_builtins['open']('@SECRET@').read())
""",
    "a frame by an attribute in a pattern": """
g = (x for x in [1])
match g:
    case object(gi_frame=object(f_builtins=b)):
        print('REACHED')
        print(b['open']('@SECRET@').read())
""",
    "a frame by the positional pattern of a generated class": """
import abc, dataclasses
Holder = dataclasses.make_dataclass('Holder', ['gi_frame'], bases=(abc.ABC,))
Inner = dataclasses.make_dataclass('Inner', ['f_builtins'], bases=(abc.ABC,))
g = (x for x in [1])
Holder.register(type(g))
match g:
    case Holder(frame):
        print('REACHED')
        Inner.register(type(frame))
        match frame:
            case Inner(b):
                print(b['open']('@SECRET@').read())
""",
    "a library generator's frame by the positional pattern of a class": """
import abc, collections.abc, difflib
from dataclasses import dataclass
@dataclass
class Generator(abc.ABC):
    gi_frame: object
@dataclass
class Frame(abc.ABC):
    f_builtins: object
Generator.register(collections.abc.Generator)
Frame.register(collections.abc.Hashable)
match difflib.unified_diff(['a'], ['b']):
    case Generator(Frame(b)):
        print('REACHED')
        print(b['open']('@SECRET@').read())
""",
    "a frame by the positional pattern of a named tuple": """
import abc, collections, collections.abc, difflib
class Generator(collections.namedtuple('G', 'gi_frame'), abc.ABC):
    pass
class Frame(collections.namedtuple('F', 'f_builtins'), abc.ABC):
    __hash__ = None
Generator.register(collections.abc.Generator)
Frame.register(collections.abc.Hashable)
match difflib.unified_diff(['a'], ['b']):
    case Generator(Frame(b)):
        print('REACHED')
        print(b['open']('@SECRET@').read())
""",
    "a frame copied onto a namespace": """
import difflib, functools, types
space = functools.wraps(difflib.unified_diff([], []), assigned=('gi_frame',), updated=())(types.SimpleNamespace())
f = vars(space).get('gi_frame')
if f:
    print('REACHED')
    functools.wraps(f, assigned=('f_builtins',), updated=())(space)
    print(vars(space)['f_builtins']['open']('@SECRET@').read())
""",
    "a frame by attrgetter": """
from operator import attrgetter
b = attrgetter('gi_frame.f_builtins')(x for x in [1])
print('REACHED')
print(b['open']('@SECRET@').read())
""",
    "what a generator delegates to": """
def inner():
    yield 1
def outer():
    yield from inner()
g = outer()
next(g)
f = g.gi_yieldfrom.gi_frame
print('REACHED')
print(f.f_builtins['open']('@SECRET@').read())
""",
    "the generator inside a context manager": """
import contextlib
@contextlib.contextmanager
def manager():
    yield
b = getattr(getattr(manager().gen, 'gi_frame'), 'f_builtins')
print('REACHED')
print(b['open']('@SECRET@').read())
""",
    "a generator that the engine itself runs": """
def g():
    f = getattr(getattr(me, 'gi_frame'), 'f_back')
    while f:
        print('REACHED')
        yield getattr(f, 'f_builtins')['open']('@SECRET@').read()
        f = getattr(f, 'f_back')
me = g()
t.echo(me)
print([x for x in me])
""",
    "a generator's frame in a default argument": """
def take(f=(lambda g: g.gi_frame.f_builtins)(x for x in [1])):
    print('REACHED')
    return f['open']('@SECRET@').read()
print(take())
""",
}

COROUTINES = {
    "a coroutine's frame": """
async def c():
    pass
c = c()
f = c.cr_frame
print('REACHED')
print(getattr(f, 'f_builtins')['open']('@SECRET@').read())
c.close()
""",
    "an async generator's frame": """
async def a():
    yield 1
f = getattr(a(), 'ag_frame')
print('REACHED')
print(getattr(f, 'f_builtins')['open']('@SECRET@').read())
""",
    "what a coroutine waits for": """
class Wait:
    def __await__(self):
        yield 1
async def c():
    await Wait()
c = c()
c.send(None)
f = c.cr_await.gi_frame
print('REACHED')
print(getattr(f, 'f_builtins')['open']('@SECRET@').read())
c.close()
""",
    "the stack of a task": """
async def main():
    f = asyncio.current_task().get_stack()[0]
    print('REACHED')
    print(getattr(f, 'f_builtins')['open']('@SECRET@').read())
asyncio.run(main())
""",
    "the coroutine of a task": """
async def other():
    await asyncio.sleep(0)
async def main():
    task = asyncio.create_task(other())
    frame = getattr(task.get_coro(), 'cr_frame')
    print('REACHED')
    print(getattr(frame, 'f_builtins')['open']('@SECRET@').read())
    await task
asyncio.run(main())
""",
}

TRACEBACKS = {
    "a traceback's frame": (
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    f = e.__traceback__.tb_frame\n"
        "    print('REACHED')\n    while f:\n        print(f.f_globals.get('os'), getattr(f, 'f_builtins')['open']('@SECRET@').read())\n"
        "        f = f.f_back"
    ),
    "a traceback by a pattern": """
try:
    1 / 0
except ZeroDivisionError as e:
    match e:
        case Exception(__traceback__=object(tb_frame=f)):
            print('REACHED')
            print(getattr(f, 'f_builtins')['open']('@SECRET@').read())
""",
    "a traceback handed to __exit__": """
class M:
    def __enter__(self):
        return self
    def __exit__(self, kind, error, tb):
        f = getattr(tb, 'tb_frame')
        print('REACHED')
        print(getattr(f, 'f_builtins')['open']('@SECRET@').read())
        return True
with M():
    1 / 0
""",
    "a traceback handed to an exit stack's callback": """
import contextlib
def leave(kind, error, tb):
    f = getattr(tb, 'tb_frame')
    print('REACHED')
    print(getattr(f, 'f_builtins')['open']('@SECRET@').read())
    return True
with contextlib.ExitStack() as stack:
    stack.push(leave)
    1 / 0
""",
    "a traceback handed out, and read by positional patterns": """
import abc, collections.abc, json
from dataclasses import dataclass
@dataclass
class Next(abc.ABC):
    tb_next: object
@dataclass
class Here(abc.ABC):
    tb_frame: object
@dataclass
class Frame(abc.ABC):
    f_builtins: object
for kind in (Next, Here, Frame):
    kind.register(collections.abc.Hashable)
class M:
    def __enter__(self):
        return self
    def __exit__(self, kind, error, tb):
        match tb:
            case Next(Here(Frame(b))):
                print('REACHED')
                print(b['open']('@SECRET@').read())
        return True
with M():
    json.loads('{')
""",
    "a traceback in an exception group": """
try:
    try:
        1 / 0
    except ZeroDivisionError as e:
        raise ExceptionGroup('g', [e])
except* ZeroDivisionError as group:
    f = getattr(getattr(group.exceptions[0], '__traceback__'), 'tb_frame')
    print('REACHED')
    print(getattr(f, 'f_builtins')['open']('@SECRET@').read())
""",
    "a traceback in a log record": """
import logging
class Thief(logging.Handler):
    def emit(self, record):
        f = getattr(record.exc_info[2], 'tb_frame')
        print('REACHED')
        print(getattr(f, 'f_builtins')['open']('@SECRET@').read())
log = logging.getLogger('x')
log.addHandler(Thief())
try:
    1 / 0
except ZeroDivisionError:
    log.exception('x')
""",
    "the frames below an error of the engine": """
def fail():
    return json.loads('{')
import json
try:
    fail()
except ValueError as e:
    tb = getattr(e, '__traceback__')
    while getattr(tb, 'tb_next'):
        tb = getattr(tb, 'tb_next')
    print('REACHED')
    print(getattr(getattr(tb, 'tb_frame'), 'f_builtins')['open']('@SECRET@').read())
""",
    "the error of a tool's stub": """
try:
    t.echo(1, 2, 3, nonsense=object())
except Exception as e:
    tb = getattr(e, '__traceback__')
    while getattr(tb, 'tb_next'):
        tb = getattr(tb, 'tb_next')
    frame = getattr(tb, 'tb_frame')
    print('REACHED')
    print(sorted(getattr(frame, 'f_globals')))
    print(getattr(frame, 'f_builtins')['open']('@SECRET@').read())
""",
}

CALLBACKS = {
    "sys._getframe": """
import sys
f = sys._getframe()
print('REACHED')
print(getattr(f, 'f_builtins')['open']('@SECRET@').read())
""",
    "a trace function": """
import sys
def trace(frame, event, arg):
    print('REACHED')
    print(getattr(frame, 'f_builtins')['open']('@SECRET@').read())
sys.settrace(trace)
(lambda: 0)()
sys.settrace(None)
""",
    "a signal handler": """
import signal
def handler(number, frame):
    print('REACHED')
    print(getattr(frame, 'f_builtins')['open']('@SECRET@').read())
signal.signal(signal.SIGUSR1, handler)
signal.raise_signal(signal.SIGUSR1)
""",
    "walk_stack": """
from traceback import walk_stack
def frames():
    yield from walk_stack(None)
def call(function):
    return function()
for frame, line in call(lambda: call(lambda: call(lambda: list(frames())))):
    print('REACHED')
    print(getattr(frame, 'f_builtins')['open']('@SECRET@').read())
""",
    "inspect.stack": """
import inspect
for info in inspect.stack():
    print('REACHED')
    print(getattr(info.frame, 'f_builtins')['open']('@SECRET@').read())
""",
    "the frames of all threads": """
import sys
for frame in sys._current_frames().values():
    print('REACHED')
    print(getattr(frame, 'f_builtins')['open']('@SECRET@').read())
""",
    "a debugger's hook": """
import bdb
class Spy(bdb.Bdb):
    def user_line(self, frame):
        print('REACHED')
        print(getattr(frame, 'f_builtins')['open']('@SECRET@').read())
Spy().runcall(lambda: 0)
""",
    "the locals of every caller, as text": """
import traceback
def g():
    import os
    held = os.environ['PLANTED_SECRET']
    raise ValueError
try:
    g()
except ValueError as e:
    told = traceback.TracebackException.from_exception(e, capture_locals=True)
    print('REACHED')
    print([entry.locals for entry in told.stack])
""",
}


@pytest.mark.parametrize("code", GENERATORS.values(), ids=GENERATORS.keys())
async def test_no_generators_frame_leads_out(code: str, arena: Arena) -> None:
    await arena.repels(code)


@pytest.mark.parametrize("code", COROUTINES.values(), ids=COROUTINES.keys())
async def test_no_coroutines_frame_leads_out(code: str, arena: Arena) -> None:
    await arena.repels(code)


@pytest.mark.parametrize("code", TRACEBACKS.values(), ids=TRACEBACKS.keys())
async def test_no_traceback_leads_out(code: str, arena: Arena) -> None:
    await arena.repels(code)


@pytest.mark.parametrize("code", CALLBACKS.values(), ids=CALLBACKS.keys())
async def test_no_callback_is_handed_a_frame_that_leads_out(code: str, arena: Arena) -> None:
    await arena.repels(code)
