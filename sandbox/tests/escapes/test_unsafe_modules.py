"""Modules that are dangerous by what they are for: they call what data says, look into the interpreter, outlive the
program, load native code, or read and write files on the side."""

import pytest

from sandbox.tests.escapes.conftest import Arena

pytestmark = pytest.mark.anyio

DATA = {
    "pickle calls a function": """
import pickle
class R:
    def __reduce__(self):
        import os
        return os.system, ('touch @MARKER@',)
text = pickle.dumps(R())
print('REACHED')
pickle.loads(text)
""",
    "pickle written by hand": """
import pickle
print('REACHED', pickle.loads(b"cbuiltins\\nopen\\n(S'@SECRET@'\\ntR.").read())
""",
    "an unpickler of one's own": """
import io, pickle
class U(pickle.Unpickler):
    def find_class(self, module, name):
        return super().find_class('posix', 'system')
print('REACHED', U(io.BytesIO(b"cx\\ny\\n(S'touch @MARKER@'\\ntR.")).load())
""",
    "pickle in C": """
import _pickle
print('REACHED', _pickle.loads(b"cposix\\nsystem\\n(S'touch @MARKER@'\\ntR."))
""",
    "pickle in Python": """
import pickle
print('REACHED', pickle._loads(b"cposix\\nsystem\\n(S'touch @MARKER@'\\ntR."))
""",
    "shelve": """
import shelve
with shelve.open('@MARKER@') as shelf:
    print('REACHED')
    shelf['x'] = 1
open('@MARKER@', 'w')
""",
    "copyreg": """
import copy, copyreg
class C:
    pass
copyreg.pickle(C, lambda c: (exec, ("print('REACHED', open('@SECRET@').read())",)))
copy.copy(C())
""",
    "a copy that calls": """
import copy
class C:
    def __reduce_ex__(self, protocol):
        print('REACHED')
        return open, ('@MARKER@', 'w')
copy.copy(C()).close()
""",
    # An attribute of the instance is enough for deepcopy(), and its answer may set any attribute of anything.
    "a deep copy of a namespace that reduces itself": """
import copy, types
def holder():
    return 'untouched'
trick = types.SimpleNamespace(**{'__reduce_ex__': lambda protocol: (lambda: holder, (), (None, {'__name__': 'touched'}))})
copy.deepcopy(trick)
if getattr(holder, '__name__') == 'touched':
    print('REACHED')
print(getattr(holder, '__builtins__')['open']('@SECRET@').read())
""",
    "marshal": """
import marshal, types
code = marshal.loads(marshal.dumps(getattr(lambda: open('@SECRET@').read(), '__code__')))
print('REACHED')
print(types.FunctionType(code, {})())
""",
    "xml with an entity that is a file": """
import io, xml.sax, xml.sax.handler
class H(xml.sax.handler.ContentHandler):
    def characters(self, text):
        print('REACHED', text)
p = xml.sax.make_parser()
p.setFeature(xml.sax.handler.feature_external_ges, True)
p.setContentHandler(H())
p.parse(io.StringIO('<!DOCTYPE a [<!ENTITY e SYSTEM "file://@SECRET@">]><a>&e;</a>'))
""",
    "xml with a resolver of one's own": """
from xml.parsers import expat
p = expat.ParserCreate()
def resolve(context, base, system, public):
    print('REACHED', open(system).read())
    return 1
p.ExternalEntityRefHandler = resolve
p.Parse('<!DOCTYPE a [<!ENTITY e SYSTEM "@SECRET@">]><a>&e;</a>', True)
""",
    "xml from a path": """
import xml.etree.ElementTree as ET
try:
    tree = ET.ElementTree(ET.Element('a'))
    tree.write('@MARKER@')
    print('REACHED')
finally:
    ET.parse('@SECRET@')
""",
    "xml that includes": """
import xml.etree.ElementTree as ET
from xml.etree import ElementInclude
e = ET.fromstring('<a xmlns:x="http://www.w3.org/2001/XInclude"><x:include href="@SECRET@" parse="text"/></a>')
ElementInclude.include(e)
print('REACHED')
print(ET.tostring(e))
""",
    "a database on the disk": """
import sqlite3
db = sqlite3.connect('@MARKER@')
print('REACHED')
db.execute('create table t (a)')
db.commit()
""",
    "a database attached": """
import sqlite3
db = sqlite3.connect(':memory:')
db.execute("attach '@MARKER@' as m")
print('REACHED')
db.execute('create table m.t (a)')
db.commit()
""",
    "a database vacuumed into a file": """
import sqlite3
db = sqlite3.connect(':memory:')
db.execute('create table t (a)')
db.execute("vacuum into '@MARKER@'")
print('REACHED')
""",
    "a time zone that is any file": """
import zoneinfo
zoneinfo.reset_tzpath(['/'])
try:
    zoneinfo.ZoneInfo('@SECRET@'[1:])
except ValueError as e:
    print('REACHED', e)
""",
    "a time zone read from an open file": """
import zoneinfo
f = open('@SECRET@', 'rb')
try:
    zoneinfo.ZoneInfo.from_file(f)
finally:
    f.seek(0)
    print('REACHED', f.read())
""",
    "a configuration whose error shows the file": """
import configparser
try:
    configparser.ConfigParser().read_file(open('@SECRET@'))
except configparser.Error as e:
    print('REACHED', e)
""",
    "a gzip on the disk": """
import gzip
with gzip.open('@MARKER@', 'wb') as f:
    print('REACHED')
    f.write(b'x')
""",
    "an archive on the disk": """
import zipfile
with zipfile.ZipFile('@MARKER@', 'w') as z:
    print('REACHED')
    z.writestr('a', 'b')
""",
    "a log on the disk": """
import logging
h = logging.FileHandler('@MARKER@')
print('REACHED')
h.emit(logging.makeLogRecord({'msg': 'x'}))
""",
    "a temporary file": """
import os, tempfile
with tempfile.NamedTemporaryFile() as f:
    print('REACHED')
    os.link(f.name, '@MARKER@')
""",
    "lines of a file": """
import linecache
lines = linecache.getlines('@SECRET@')
if lines:
    print('REACHED', lines)
""",
    "input from files": """
import fileinput
for line in fileinput.input('@SECRET@'):
    print('REACHED', line)
""",
    "a word splitter on a file": """
import shlex
words = shlex.shlex(open('@SECRET@'), punctuation_chars=True)
words.source = 'include'
print('REACHED', list(words))
""",
    "a hash of a file": """
import hashlib
with open('@SECRET@', 'rb') as f:
    print('REACHED', hashlib.file_digest(f, 'md5').hexdigest(), f.seek(0), f.read())
""",
    "a url that is a file": """
import urllib.request
print('REACHED', urllib.request.urlopen('file://@SECRET@').read())
""",
    "types of files, from a file": """
import mimetypes
print('REACHED', mimetypes.read_mime_types('@SECRET@'), open('@SECRET@').read())
""",
}

INTERPRETER = {
    "ctypes": """
import ctypes
libc = ctypes.CDLL(None)
print('REACHED')
libc.system(b'touch @MARKER@')
""",
    "ctypes' own C module": """
import _ctypes
handle = _ctypes.dlopen(None, 0)
print('REACHED')
import ctypes
ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p)(_ctypes.dlsym(handle, 'system'))(b'touch @MARKER@')
""",
    "ctypes writes into an object": """
import ctypes
text = b'x' * 8
ctypes.memmove(id(text) + bytes.__basicsize__ - 1, b'REACHED!', 8)
print(text)
print(ctypes.py_object.from_address(id(ctypes.py_object(open)) + 16) and open('@SECRET@').read())
""",
    "all objects": """
import gc
found = [o for o in gc.get_objects() if isinstance(o, dict) and 'open' in o and '__import__' in o]
print('REACHED')
print(found[0]['open']('@SECRET@').read())
""",
    "who refers to an object": """
import gc
for holder in gc.get_referrers(print):
    if isinstance(holder, dict) and '__import__' in holder:
        print('REACHED')
        print(holder['open']('@SECRET@').read())
""",
    "what an object refers to": """
import gc, json
for found in gc.get_referents(gc.get_referents(json)[0]):
    if hasattr(found, 'open'):
        print('REACHED')
        print(found.open('@SECRET@').read())
""",
    "the table of modules": """
import sys
m = sys.modules['posix']
print('REACHED')
m.system('touch @MARKER@')
""",
    "an audit hook": """
import sys
def hook(event, args):
    if event == 'open' and not seen:
        seen.append(1)
        print('REACHED', args)
seen = []
sys.addaudithook(hook)
print(open('@SECRET@').read())
""",
    "a display hook": """
import sys
sys.displayhook = sys.excepthook = sys.unraisablehook = lambda *a: print('REACHED', open('@SECRET@').read())
raise ValueError
""",
    "inspect finds the module of anything": """
import inspect
m = inspect.getmodule(inspect.getmodule)
print('REACHED')
m.os.system('touch @MARKER@')
""",
    "inspect reads source files": """
import inspect, types
m = types.ModuleType('x')
setattr(m, '__file__', '@SECRET@')
print('REACHED', open(inspect.getfile(m)).read())
""",
    "types makes a function": """
import types
f = types.FunctionType(getattr(lambda: open('@SECRET@').read(), '__code__'), {})
print('REACHED')
print(f())
""",
    "types makes a class in a namespace of one's own": """
import types
C = types.new_class('C', (), {}, lambda space: space.update({'__getattr__': lambda self, name: open(name).read()}))
print('REACHED')
print(getattr(C(), '@SECRET@'))
""",
    "the traceback's printer": """
import traceback
class F:
    def write(self, text):
        print('REACHED', text)
traceback.print_stack(file=F())
print(traceback.linecache.getlines('@SECRET@'))
""",
    "a weak reference's last call": """
import weakref
class C:
    pass
c = C()
weakref.finalize(c, open, '@MARKER@', 'w')
print('REACHED')
del c
""",
    "what is done at the end": """
import atexit
atexit.register(open, '@MARKER@', 'w')
print('REACHED')
""",
    "a finalizer at the end": """
class C:
    def __del__(self, open=open):
        open('@MARKER@', 'w').close()
kept = C()
""",
    "a finalizer in a cycle": """
class C:
    def __del__(self):
        open('@MARKER@', 'w').close()
c = C()
c.c = c
del c
import gc
gc.collect()
""",
    "a fault's handler": """
import faulthandler
faulthandler.enable(file=open('@MARKER@', 'w'))
print('REACHED')
faulthandler.dump_traceback()
""",
    "traces of memory": """
import tracemalloc
tracemalloc.start()
x = bytearray(10)
tracemalloc.take_snapshot().dump('@MARKER@')
print('REACHED')
""",
    "an interactive console": """
import code
code.InteractiveConsole().push("print('REACHED', open('@SECRET@').read())")
""",
    "a subinterpreter": """
try:
    import _xxsubinterpreters as s
except ImportError:
    import _interpreters as s
i = s.create()
print('REACHED')
s.run_string(i, "open('@MARKER@', 'w').close()")
""",
    "the pager": """
import pydoc
pydoc.pipepager('x', 'touch @MARKER@')
print('REACHED')
""",
    "a browser": """
import webbrowser
webbrowser.GenericBrowser(['touch', '@MARKER@']).open('x')
print('REACHED')
""",
    "a compiled file": """
import py_compile
py_compile.compile('@SECRET@', '@MARKER@', doraise=False)
open('@MARKER@', 'w').close()
print('REACHED')
""",
    "a test that is discovered": """
import unittest
class T(unittest.TestCase):
    def runTest(self):
        print('REACHED', open('@SECRET@').read())
unittest.TextTestRunner().run(T())
""",
    "a context variable's loop": """
import contextvars
contextvars.copy_context().run(exec, "print('REACHED', open('@SECRET@').read())")
""",
    "a thread": """
import threading
thread = threading.Thread(target=open, args=('@MARKER@', 'w'))
thread.start()
print('REACHED')
thread.join()
""",
    "a pool": """
from concurrent.futures import ThreadPoolExecutor
f = ThreadPoolExecutor(1).submit(open, '@SECRET@').result()
print('REACHED', f.read())
""",
    "a scheduler": """
import sched
s = sched.scheduler()
s.enter(0, 0, lambda: print('REACHED', open('@SECRET@').read()))
s.run()
""",
}


@pytest.mark.parametrize("code", DATA.values(), ids=DATA.keys())
async def test_no_data_is_worked_on_to_harm(code: str, arena: Arena) -> None:
    await arena.repels(code)


@pytest.mark.parametrize("code", INTERPRETER.values(), ids=INTERPRETER.keys())
async def test_no_look_into_the_interpreter_harms(code: str, arena: Arena) -> None:
    await arena.repels(code)
