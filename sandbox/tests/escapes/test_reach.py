"""Reach: files, network, environment, processes, other sessions and other callers' tools. None of it is there, by any
door of the standard library, by any guessed name."""

import asyncio
from typing import Any

import pytest

from mcpgate_sandbox.engine import Handle, Limits
from mcpgate_sandbox.errors import CodeFailed
from sandbox.tests.conftest import Host
from sandbox.tests.escapes.conftest import Arena
from sandbox.tests.escapes.test_forgery import assert_well_formed

pytestmark = pytest.mark.anyio

SHORT = Limits(timeout_s=2, tool_wait_s=2, cpu_s=0.5)

FILES = {
    "open": "print(open('@SECRET@').read())",
    "io": "import io\nprint(io.FileIO('@SECRET@').readall())",
    "the compiled io": "import _io\nprint(_io.open('@SECRET@', 'rb').read())",
    "the old io": "import _pyio\nprint(_pyio.open('@SECRET@').read())",
    "descriptors": "import os\nprint(os.read(os.open('@SECRET@', os.O_RDONLY), 100))",
    "posix": "import posix\nprint(posix.read(posix.open('@SECRET@', 0), 100))",
    "pathlib": "import pathlib\nprint(pathlib.Path('@SECRET@').read_text())",
    "codecs": "import codecs\nprint(codecs.open('@SECRET@').read())",
    "tokenize": "import tokenize\nprint(tokenize.open('@SECRET@').read())",
    "linecache": "import linecache\nprint(linecache.getlines('@SECRET@'))",
    "fileinput": "import fileinput\nprint(list(fileinput.input('@SECRET@')))",
    "the loader": "import importlib.machinery as m\nprint(m.SourceFileLoader('x', '@SECRET@').get_data('@SECRET@'))",
    "the loader of a module": "import json\nprint(json.__loader__.get_data('@SECRET@'))",
    "pkgutil": "import pkgutil\nprint(pkgutil.get_data('json', '../../../../../../../../@SECRET@'))",
    "resources": "import importlib.resources as r\nprint((r.files('json') / '@SECRET@').read_text())",
    "runpy": "import runpy\nrunpy.run_path('@SECRET@')",
    "configparser": "import configparser\nc = configparser.RawConfigParser(allow_no_value=True)\ntry:\n    print(c.read('@SECRET@'))\nexcept configparser.Error as e:\n    print(e)",
    "mailbox": "import mailbox\nprint(mailbox.mbox('@SECRET@'))",
    "numbers from a file": "import array\na = array.array('B')\na.fromfile(open('@SECRET@', 'rb'), 31)\nprint(a.tobytes())",
    "zip": "import zipfile\nzipfile.ZipFile('@MARKER@', 'w').writestr('x', 'y')",
    "shutil": "import shutil\nshutil.copy('@SECRET@', '@MARKER@')",
    "a link": "import os\nos.symlink('@SECRET@', '@MARKER@')",
    "removing": "import os\nos.remove('@SECRET@')",
    "overwriting": "open('@SECRET@', 'w').write('x')",
    "cutting": "import os\nos.truncate('@SECRET@', 0)",
    "a named pipe": "import os\nos.mkfifo('@MARKER@')",
    "a log file": "import logging\nlogging.FileHandler('@MARKER@').emit(logging.LogRecord('x', 1, '', 1, 'x', (), None))",
    "a shelf": "import shelve\nshelve.open('@MARKER@')",
    "a database": "import sqlite3\nsqlite3.connect('@MARKER@').execute('create table t (a)')",
    "an attached database": "import sqlite3\nsqlite3.connect(':memory:').execute(\"attach '@MARKER@' as p\").execute('create table p.t (a)')",
    "a dump of a database": "import sqlite3\nsqlite3.connect(':memory:').execute(\"vacuum into '@MARKER@'\")",
    "a temporary file": "import tempfile\nprint(tempfile.mkstemp(dir='@MARKER@'.rpartition('/')[0], prefix='marker'))",
    "a trace of calls": "import cProfile\np = cProfile.Profile()\np.enable()\np.disable()\np.dump_stats('@MARKER@')",
    "a pickle of a file": "import pickle, io\nprint(pickle.loads(b'cbuiltins\\nopen\\n(V@SECRET@\\ntR.').read())",
    "printing into a file": "print('x', file=open('@MARKER@', 'w'))",
    "a memory map": "import mmap, os\nprint(mmap.mmap(os.open('@SECRET@', 0), 0, prot=1).read())",
    "the process's own files": "print(open('/proc/self/environ').read(), open('/proc/1/environ').read())",
    "the process's memory": "m = open('/proc/self/mem', 'rb')\nprint(m)",
    "descriptors left open": "import os\nfor n in range(3, 64):\n    try:\n        print(os.read(n, 100))\n    except OSError:\n        pass",
    "descriptors by path": "for n in range(3, 64):\n    try:\n        print(open('/proc/self/fd/%d' % n).read())\n    except OSError:\n        pass",
    "a folder listed": "import os\nprint([open(e.path).read() for e in os.scandir('@SECRET@'.rpartition('/')[0]) if e.is_file()])",
    "upwards": "print(open('../' * 40 + '@SECRET@').read())",
    "bytes and NULs in the path": "print(open(b'@SECRET@').read())",
    "XML from outside": (
        "import xml.sax, xml.etree.ElementTree as e\nprint(e.fromstring('<!DOCTYPE a [<!ENTITY x SYSTEM \"file://@SECRET@\">]><a>&x;</a>').text)"
    ),
}

NETWORK = {
    "a socket": "import socket\nsocket.socket().connect(('127.0.0.1', @PORT@))",
    "the compiled socket": "import _socket\n_socket.socket(2, 1).connect(('127.0.0.1', @PORT@))",
    "a connection": "import socket\nsocket.create_connection(('127.0.0.1', @PORT@), 1)",
    "a connection of the loop": "import asyncio\nawait asyncio.open_connection('127.0.0.1', @PORT@)",
    "urllib": "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:@PORT@/', timeout=1)",
    "a file by URL": "import urllib.request\nprint(urllib.request.urlopen('file://@SECRET@').read())",
    "http": "import http.client\nhttp.client.HTTPConnection('127.0.0.1', @PORT@, timeout=1).request('GET', '/')",
    "mail": "import smtplib\nsmtplib.SMTP('127.0.0.1', @PORT@, timeout=1)",
    "ftp": "import ftplib\nftplib.FTP().connect('127.0.0.1', @PORT@, timeout=1)",
    "rpc": "import xmlrpc.client\nxmlrpc.client.ServerProxy('http://127.0.0.1:@PORT@').x()",
    "a log handler": "import logging.handlers as h\nh.SocketHandler('127.0.0.1', @PORT@).createSocket()",
    "a server": "import socketserver\nprint(socketserver.TCPServer(('127.0.0.1', 0), None))\nprint('REACHED')",
    "a pair": "import socket\nprint(socket.socketpair())\nprint('REACHED')",
    "an inherited socket": "import socket\nfor n in range(64):\n    try:\n        socket.socket(fileno=n).send(b'forged')\n    except OSError:\n        pass",
    "a local socket": "import socket\nsocket.socket(socket.AF_UNIX).bind('@MARKER@')",
    "a name": "import socket\nprint(socket.gethostbyname('localhost'), socket.gethostname())\nprint('REACHED')",
    "a browser": "import webbrowser\nwebbrowser.open('http://127.0.0.1:@PORT@/')",
}

PROCESSES = {
    "a shell": "import os\nos.system('touch @MARKER@')",
    "a pipe": "import os\nos.popen('touch @MARKER@').read()",
    "subprocess": "import subprocess\nsubprocess.run(['touch', '@MARKER@'])",
    "its inner part": "import _posixsubprocess\nprint(_posixsubprocess.fork_exec)",
    "spawn": "import os\nos.posix_spawn('/usr/bin/touch', ['touch', '@MARKER@'], {})",
    "exec": "import os\nos.execv('/usr/bin/touch', ['touch', '@MARKER@'])",
    "the loop's shell": "import asyncio\nawait asyncio.create_subprocess_shell('touch @MARKER@')",
    "a loop's own shell": (
        "import asyncio\nl = asyncio.get_running_loop()\nprint('REACHED')\nl.run_until_complete(l.subprocess_shell(asyncio.SubprocessProtocol, 'touch @MARKER@'))"
    ),
    "the loop of a task": (
        "import asyncio\nasync def f():\n    pass\nx = asyncio.create_task(f())\nl = x.get_loop()\nprint('REACHED')\n"
        "await l.subprocess_shell(asyncio.SubprocessProtocol, 'touch @MARKER@')"
    ),
    "multiprocessing": "import multiprocessing, os\nmultiprocessing.Process(target=os.system, args=('touch @MARKER@',)).start()",
    "a pool": "import concurrent.futures, os\nconcurrent.futures.ProcessPoolExecutor().submit(os.system, 'touch @MARKER@').result()",
    "a terminal": "import pty\npty.spawn(['touch', '@MARKER@'])",
    "C": "import ctypes\nctypes.CDLL(None).system(b'touch @MARKER@')",
    "killing the parent": "import os, signal\nos.kill(os.getppid(), signal.SIGTERM)",
    "killing all": "import os\nos.killpg(0, 0)\nprint('REACHED')",
    "its own limits": "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (-1, -1))\nprint('REACHED')",
    "another user": "import os\nos.setuid(0)\nos.setgroups([])\nos.chroot('/')\nprint('REACHED')",
    "unpickling": "import pickle\npickle.loads(b'cos\\nsystem\\n(Vtouch @MARKER@\\ntR.')",
    "timeit": "import timeit\ntimeit.timeit('import os; os.system(\"touch @MARKER@\")', number=1)",
    "doctest": "import doctest\ndoctest.run_docstring_examples('>>> import os\\n>>> _ = os.system(\"touch @MARKER@\")', {})",
    "a code console": "import code\ncode.InteractiveInterpreter().runsource('import os; os.system(\"touch @MARKER@\")')",
    "a tracer": "import trace\ntrace.Trace().run('import os; os.system(\"touch @MARKER@\")')",
    "a site hook": "import site, sys\nsys.path.insert(0, '@MARKER@'.rpartition('/')[0])\nsite.addsitedir('@MARKER@'.rpartition('/')[0])\nopen('@MARKER@', 'w')",
}

ENVIRONMENT = {
    "os.environ": "import os\nprint(os.environ.get('PLANTED_SECRET'), dict(os.environ))",
    "os.getenv": "import os\nprint(os.getenv('PLANTED_SECRET'), os.environb)",
    "posix": "import posix\nprint(posix.environ)",
    "expanding": "import os.path\nprint(os.path.expandvars('$PLANTED_SECRET ${PLANTED_SECRET}'))",
    "sysconfig": "import sysconfig, os\nprint(sysconfig.get_config_vars(), os.environ['PLANTED_SECRET'])",
    "arguments": "import sys\nprint(sys.argv, sys.orig_argv, sys.flags)",
    "configuration": "import configparser, os\nprint(configparser.ConfigParser(os.environ)['DEFAULT']['planted_secret'])",
    "templates": "import string, os\nprint(string.Template('$PLANTED_SECRET').substitute(os.environ))",
    "the host's modules": (
        "import sys\nm = sys.modules.get('mcpgate_sandbox.wasm') or sys.modules['sandbox.tests.escapes.conftest']\nprint('REACHED', m)"
    ),
    "the host's package": "import mcpgate_sandbox.engine as e\nprint('REACHED', e.Limits)",
    "the gateway": "import mcpgate\nprint('REACHED', mcpgate)",
    "a third party's package": "import pytest, orjson\nprint('REACHED', pytest)",
}

ALL = [(f"{kind}: {name}", code) for kind, table in {
    "files": FILES, "network": NETWORK, "processes": PROCESSES, "environment": ENVIRONMENT,
}.items() for name, code in table.items()]  # fmt: skip


@pytest.mark.parametrize("code", [code for _, code in ALL], ids=[name for name, _ in ALL])
async def test_nothing_outside_is_reached(code: str, arena: Arena) -> None:
    assert_well_formed(await arena.repels(code, limits=SHORT))


# --- other callers' tools

GUESSES = {
    "a server that was not granted": "victim.secret()",
    "as an item": "t['victim.secret']()",
    "as an attribute": "getattr(t, 'victim.secret')()",
    "by the way up": "for n in ('../victim.secret', '..victim.secret', '/victim/secret', 'victim/secret', './../victim/secret'):\n    try:\n        t[n]()\n    except Exception as e:\n        print(type(e).__name__ if False else 'no')",
    "by import": "import victim\nvictim.secret()",
    "by from": "from victim import secret\nsecret()",
    "by the globals": "globals()['victim'].secret()",
    "by the builtins": "__builtins__['victim'].secret()",
    "by the class of a server": "type(t)('victim').secret()",
    "by the class of a stub": "type(t.echo)('victim', 'secret')()",
    "by another name for a stub": "x = t.echo\nsetattr(x, '__name__', 'secret')\nsetattr(x, '_server', 'victim')\nx()",
    "by a server's own data": "setattr(t, '_name', 'victim')\nt.secret()",
    "by its dict": "vars(t).update(_name='victim', _tools={'secret': 'secret'})\nt.secret()",
    "past the helpers": "import wit_world\nprint(wit_world.call('victim.secret', '[[],{}]'))",
    "past the helpers, later": "import wit_world\nwit_world.submit(1, 'victim.secret', '[[],{}]')\nprint(wit_world.poll(-1))",
    "its list of tools": "import wit_world\nprint(wit_world.call('@tools', '[[\"victim\"],{}]'))",
    "in other letters": "for n in ('VICTIM', 'Victim', 'v\\u0131ctim', 'victim\\u200b'):\n    try:\n        t[n + '.secret']()\n    except Exception:\n        pass",
    "in the arguments": "t.echo(**{'value': 1})\nt.echo({'server': 'victim', 'tool': 'secret'})",
    "a tool that the server does not have": "t.delete_everything()",
    "a tool that is private": "t._secret()",
    "a method of the host": "for n in ('__init__', 'call_tool', 'host_call', 'tools', 'calls'):\n    try:\n        getattr(t, n)()\n    except Exception:\n        pass",
    "every short name": "for a in 'abcdefghij':\n    for b in 'abcdefghij':\n        try:\n            t[a + b]()\n        except Exception:\n            pass",
    "through a pending answer": "async def f():\n    p = t.echo({'x': 1})\n    setattr(p, '_server', 'victim')\n    return await p\nawait f()",
}


@pytest.mark.parametrize("code", GUESSES.values(), ids=GUESSES.keys())
async def test_a_tool_that_was_not_granted_is_never_called(code: str, arena: Arena) -> None:
    neighbour: list[str] = []

    async def secret() -> str:
        neighbour.append("called")
        return arena.planted.secret

    theirs = Host({"victim.secret": secret})
    host = Host()
    busy = asyncio.create_task(arena.run("victim.secret()", host=theirs))
    outcome = await arena.repels(code, host=host, limits=SHORT)
    assert_well_formed(outcome)
    assert (await busy).result == arena.planted.secret
    assert neighbour == ["called"] and "victim.secret" not in host.finished
    assert set(host.finished) <= {"t.echo"}


# --- handles of others

HANDLES = {
    "guessing": "for i in range(100):\n    try:\n        print(load('r%d' % i))\n    except Exception:\n        pass",
    "paths": "for n in ('../r1', './r1', 'victim/r1', 'victim/diary/r1', '/r1', 'r1/', 'r1\\x00', 'R1', ' r1'):\n    try:\n        print(load(n))\n    except Exception:\n        pass",
    "other types": "for n in (1, None, True, [], ['r1'], {}, {'id': 'r1'}, 1.5, '', ('r1',)):\n    try:\n        print(load(n))\n    except Exception:\n        pass",
    "a handle made by hand": "x = t.give()\nprint(type(x)('r1', 'value', 'text/plain', 5).text())",
    "a handle changed": "x = t.give()\nx.id = 'r1'\nprint(x.text(), x.bytes())",
    "a handle given back": "x = t.give()\nx.id = 'r1'\n[x, t.echo(x)]",
    "past the helpers": "import wit_world\nprint(wit_world.call('@load', '[[\"r1\"],{}]'), wit_world.call('@bytes', '[[\"r1\"],{}]'))",
    "a tool named so": "print(t['@load']('r1'))",
    "the host's names": "load('__class__'), load('kept'), load('@tools')",
}


@pytest.mark.parametrize("code", HANDLES.values(), ids=HANDLES.keys())
async def test_what_others_keep_is_never_loaded(code: str, arena: Arena) -> None:
    # The host of these tests asks a dict, which refuses some names in its own way; the engine reports that to the loop.
    asyncio.get_running_loop().set_exception_handler(lambda _, context: None)

    async def give() -> Any:
        return Handle("mine", "value", "text/plain", 3)

    theirs = Host()
    theirs.kept["r1"] = arena.planted.secret
    assert (await arena.run("load('r1')", host=theirs)).result == arena.planted.secret
    outcome = await arena.repels(code, {"t.give": give}, limits=SHORT)
    assert_well_formed(outcome)


# --- sessions of others; the arena's victim keeps its secret in "victim/diary"

SESSIONS = [
    "victim",
    "diary",
    "victim/",
    "victim/diary/",
    "/victim/diary",
    "./victim/diary",
    "victim//diary",
    "victim/x/../diary",
    "../victim/diary",
    "attacker/../victim/diary",
    "Victim/Diary",
    "victim/diary ",
    "victim/diary\x00",
    "victim/diary\n",
    "victim%2Fdiary",
    "victim\\diary",
    "victim/d\u0456ary",
    "victim/diar\u0443",
    "victim/diary\u200b",
    "*",
    "victim/*",
    "",
    "/",
    "None",
    "v" * 100_000,
    "\ud800",
]


@pytest.mark.parametrize("session", SESSIONS, ids=[ascii(name)[:30] for name in SESSIONS])
async def test_a_session_by_another_name_is_another_session(session: str, arena: Arena) -> None:
    outcome = await arena.repels("print(private)\nprivate", session=session, limits=SHORT)
    assert isinstance(outcome.error, CodeFailed) and outcome.error.type == "NameError"
    assert (await arena.run("private = 'forged'\nprivate", session=session)).result == "forged"
    await arena.unharmed()


NEIGHBOURS = {
    "the modules": "import json\njson.planted = 'x'\nimport sys\nsys.planted = 'x'\nimport builtins\nbuiltins.planted = 'x'",
    "a class of the library": "import collections\ncollections.OrderedDict.planted = 'x'",
    "a cache of the library": "import re, functools\nre.compile('planted')\nre.purge()",
    "a codec": "import codecs\ncodecs.register(lambda n: None)",
    "a converter": "import copyreg, decimal, locale\ncopyreg.pickle(complex, lambda c: 'planted')\nlocale.setlocale(0, 'C')",
    "a default": "import json\njson.dumps.__kwdefaults__['indent'] = 7",
    "a list in a default": "import random\nrandom.__all__.append('planted')\nrandom.seed(5)",
}


@pytest.mark.parametrize("name", NEIGHBOURS)
async def test_a_change_to_the_library_is_seen_by_nobody_else(name: str, arena: Arena) -> None:
    look = (
        "import json, collections, random, decimal\n"
        "[hasattr(json, 'planted'), hasattr(collections.OrderedDict, 'planted'), json.dumps([1]), str(decimal.Decimal(1) / 3)]"
    )
    clean = [False, False, "[1]", "0.3333333333333333333333333333"]
    before = await arena.run(look, session="neighbour/one")
    await arena.repels(NEIGHBOURS[name], session=f"vandal/{name}", limits=SHORT)
    for session in ("neighbour/one", None):
        after = await arena.run(look, session=session)
        assert after.result == before.result and after.result in (clean, None)
