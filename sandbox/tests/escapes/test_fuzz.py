"""A fuzz of bounded time: programs of the other files, mutated, and answers of tools that nobody would think of. The
seed is in every failure; FUZZ_SEED repeats a run, FUZZ_SECONDS (default 5) says how long each test may take."""

import asyncio
import importlib
import io
import itertools
import json
import math
import os
import pkgutil
import random
import time
import tokenize
from pathlib import Path
from typing import Any

import pytest

from mcpgate_sandbox.engine import Limits
from mcpgate_sandbox.errors import SandboxError, ToolFailed
from sandbox.tests.conftest import Host
from sandbox.tests.escapes.conftest import Arena, heard
from sandbox.tests.escapes.test_forgery import assert_well_formed

pytestmark = pytest.mark.anyio

SECONDS = float(os.environ.get("FUZZ_SECONDS", "5"))
SEED = int(os.environ.get("FUZZ_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
SMALL = Limits(
    cpu_s=0.05,
    timeout_s=0.2,
    tool_wait_s=0.1,
    memory_mib=96,
    max_output_chars=5_000,
    max_result_chars=50_000,
    max_tool_calls=20,
    max_parallel_calls=4,
)
_LONGEST = 20_000
"""Characters of a program that is worth mutating; the monsters of test_exhaustion are run there as they are."""


def _corpus() -> list[str]:
    """The programs of all the other files. Deterministic: in the order of their names."""
    found: list[str] = []
    for info in sorted(pkgutil.iter_modules([str(Path(__file__).parent)]), key=lambda info: info.name):
        if info.name.startswith("test_") and info.name != "test_fuzz":
            module = importlib.import_module(f"sandbox.tests.escapes.{info.name}")
            for table in vars(module).values():
                if isinstance(table, dict) and table and all(isinstance(code, str) for code in table.values()):
                    found += [code for code in table.values() if len(code) < _LONGEST]
    return found


def _tokens(code: str) -> list[str]:
    """A program in pieces that make the program again when joined."""
    try:
        ends = [0]
        starts = [0]
        for line in code.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            ends.append(starts[min(token.end[0] - 1, len(starts) - 1)] + token.end[1])
        ends.append(len(code))
        return [piece for begin, end in itertools.pairwise(ends) if (piece := code[begin:end])]
    except (tokenize.TokenError, SyntaxError, ValueError):
        return list(code)


_SPICE = """
None True () [] {} '' b'' 0 -1 2**63 10**400 1e999 float('nan') '\\ud800' '\\x00' '{0.__class__}' ... lambda:0 yield await
t t.echo t.never() t['echo'] load globals() vars() type(t) t.__class__ t.__dict__ __builtins__ __import__('os')
*[1] **{'a':1} := @ ; del global nonlocal async return raise break exec eval (x:=t) [x]*9 print print(x) self super()
.__class__ .__mro__ .__globals__ .gi_frame .f_back .cr_frame .__code__ .__subclasses__() .__init__ .format_map(t) [0] (1)
""".split()


def _mutate(code: str, other: str, lots: random.Random) -> str:
    pieces, others = _tokens(code), _tokens(other)
    for _ in range(lots.choice((1, 1, 2, 3, 8))):
        at = lots.randrange(len(pieces) + 1)
        match lots.randrange(8):
            case 0:
                del pieces[at : at + lots.choice((1, 1, 2, 5))]
            case 1:
                pieces[at:at] = pieces[at : at + lots.choice((1, 3, 10))] * lots.choice((1, 2, 30))
            case 2 if pieces:
                pieces[at:at] = [lots.choice(pieces)]
            case 3:
                pieces[at : at + lots.randrange(2)] = [" ", lots.choice(_SPICE), " "]
            case 4 if others:
                begin = lots.randrange(len(others))
                pieces[at:at] = others[begin : begin + lots.choice((1, 3, 20))]
            case 5:
                pieces[at:] = ["\n", *others]
            case 6 if pieces:
                chosen = pieces[at % len(pieces)]
                middle = lots.randrange(len(chosen) + 1)
                pieces[at % len(pieces)] = (
                    chosen[:middle] + chr(lots.choice((0, 9, 34, 92, 160, 0x202E, 0xD800, 0x1F600))) + chosen[middle:]
                )
            case _ if len(pieces) > 1:
                first, second = lots.randrange(len(pieces)), lots.randrange(len(pieces))
                pieces[first], pieces[second] = pieces[second], pieces[first]
    return "".join(pieces)[:_LONGEST]


async def test_any_program_comes_to_an_outcome(arena: Arena) -> None:
    """Or, rarely, to nothing worse than an error: never an exception of the engine's, never harm, and never trouble
    for the next guest."""
    asyncio.get_running_loop().set_exception_handler(lambda _, context: None)
    lots = random.Random(SEED)
    corpus = _corpus()
    end = time.monotonic() + SECONDS
    runs = 0
    while time.monotonic() < end:
        program = _mutate(lots.choice(corpus), lots.choice(corpus), lots)
        told = f"seed {SEED}, run {runs}:\n{program!a}"
        host = Host()
        try:
            outcome = await arena.run(
                program, host=host, limits=SMALL, session=lots.choice((None, None, "fuzz/one", "fuzz/two"))
            )
            assert_well_formed(outcome)
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}\n{told}") from error
        assert arena.planted.harm(heard(outcome) + repr(host.calls)) == [], told
        assert len(outcome.stdout) + len(outcome.stderr) <= SMALL.max_output_chars, told
        assert len(host.calls) <= SMALL.max_tool_calls and host.most_in_flight <= SMALL.max_parallel_calls, told
        runs += 1
        if runs % 25 == 0:
            try:
                await arena.unharmed()
            except AssertionError as error:
                raise AssertionError(f"the next guest suffered\n{told}") from error
    await arena.unharmed()
    print(f"{arena.name}: {runs} programs, seed {SEED}")
    assert runs > SECONDS


# --- answers


def _value(lots: random.Random, depth: int = 0) -> Any:
    """JSON of any kind: what an upstream can send."""
    kinds = 6 if depth > lots.choice((1, 3, 6, 30)) else 9
    match lots.randrange(kinds):
        case 0:
            return lots.choice((None, True, False))
        case 1:
            return lots.choice(
                (0, -1, 2**31, 2**53 + 1, 2**63, -(2**63), 2**64, 10**30, lots.randrange(-(10**6), 10**6))
            )
        case 2:
            return lots.choice((0.0, -0.0, 1.5, 1e-320, 1.7e308, 0.1 + 0.2, lots.random()))
        case 3 | 4:
            return _text(lots)
        case 5:
            return lots.choice(("", "*", "-{}", "+1", '"', "\n", "1:5\n", "\x00", "{}", "null", "NaN"))
        case 6 | 7:
            return [_value(lots, depth + 1) for _ in range(lots.choice((0, 1, 2, 5)))]
        case _:
            return {_key(lots): _value(lots, depth + 1) for _ in range(lots.choice((0, 1, 2, 5)))}


def _text(lots: random.Random) -> str:
    letters = 'ab"\\\n\r\t\x00\x1b\x7f\x85\xa0\u2028\u202e\ufeff\ufffd\uffff😀é{}[]:,*+-@$.'
    return "".join(lots.choice(letters) for _ in range(lots.choice((0, 1, 3, 20, 300))))


def _key(lots: random.Random) -> str:
    return lots.choice(("", "a", "__class__", "$handle", "id", "keys", "items", "result", "error", "\x00", _text(lots)))


def _hostile(lots: random.Random) -> Any:
    """What no JSON holds, but a host may be given all the same."""
    return lots.choice(
        (
            float("nan"),
            [float("inf")],
            {"a": -math.inf},
            "\ud800" + _text(lots),
            {"\udfff": ["\udc80"]},
            10 ** lots.randrange(5_000),
            {1: 2, None: 3},
            {(1, 2): 3},
            (1, (2, 3)),
            {1, 2},
            b"\xff",
            object(),
            type,
            ValueError("x"),
            1j,
            range(3),
            memoryview(b"x"),
            [[[object()]]],
            json,
        )
    )


_TAKE = """
said = []
for i in range(COUNT):
    try:
        v = t.give()
    except ToolError as e:
        said.append('ToolError')
    else:
        t.back(i, v)
        said.append('value')
said
"""


@pytest.mark.parametrize("way", ["plain", "awaited"])
async def test_any_answer_arrives_or_is_a_tool_error(way: str, arena: Arena) -> None:
    """A value that JSON can hold arrives as it was sent; whatever else a tool gives or raises is a ToolError or the
    nearest thing to it, and the program goes on."""
    asyncio.get_running_loop().set_exception_handler(lambda _, context: None)
    lots = random.Random(SEED)
    count = 20
    code = _TAKE.replace("COUNT", str(count))
    if way == "awaited":
        code = code.replace("v = t.give()", "v = await t.give()").replace("t.back(i, v)", "await t.back(i, v)")
    end = time.monotonic() + SECONDS / 4
    rounds = 0
    while time.monotonic() < end:
        sent: list[tuple[str, Any]] = []
        back: dict[int, Any] = {}

        async def give(sent: list[tuple[str, Any]] = sent) -> Any:
            kind = lots.choice(("json", "json", "json", "hostile", "failure", "error"))
            value = _hostile(lots) if kind == "hostile" else _value(lots)
            sent.append((kind, value))
            if kind == "failure":
                odd = [_text(lots) for _ in range(4)]
                raise ToolFailed(
                    odd[0], server=odd[1], tool=odd[2], kind=lots.choice(("tool", "arguments", odd[3])), data=value
                )
            if kind == "error":
                raise lots.choice((ValueError, KeyError, OSError, RecursionError, AssertionError))(_text(lots))
            return value

        async def take(i: int, value: Any = None, back: dict[int, Any] = back) -> None:
            back[i] = value

        told = f"seed {SEED}, round {rounds}: "
        host = Host({"t.give": give, "t.back": take})
        outcome = await arena.run(code, host=host, limits=Limits(cpu_s=2, timeout_s=5, tool_wait_s=5))
        assert outcome.error is None, f"{told}{outcome.error}\n{getattr(outcome.error, 'traceback', '')}\n{sent[-1]!a}"
        assert len(outcome.result) == len(sent) == count, told
        for i, ((kind, value), got) in enumerate(zip(sent, outcome.result, strict=True)):
            if kind == "json":
                assert got == "value" and back[i] == value, f"{told}{value!a} came back as {back.get(i)!a}"
            elif kind in ("failure", "error"):
                assert got == "ToolError", f"{told}{kind} {value!a}"
        rounds += 1
    await arena.unharmed()
    assert rounds


# --- what a guest says past its helpers

_BABBLE = """
import wit_world as w
import random, json
lots = random.Random(SEED)
names = ['t.echo', 't.fail', 't.add', 't', '', '@tools', '@load', '@bytes', '@', 'x.y', 't.echo.x', '\\x00', 'é' * 50]
texts = ['[[1],{}]', '[[],{"value":1}]', '[["r1"],{}]', '[[],{}]', '{}', '[]', 'null', '[[1,2],{}]', '[[{"$handle":{"id":"x"}}],{}]']
odd = ['[', ']', '{', '}', '"', ',', ':', '\\\\', '\\\\ud800', '1e999', '9' * 30, 'NaN', '-', '\\x00', '\\n', 'é', '[[[[', 'null', ' ']
n = 0
for i in range(1, 400):
    text = lots.choice(texts)
    for _ in range(lots.choice((0, 1, 2, 6))):
        at = lots.randrange(len(text) + 1)
        text = text[:at] + lots.choice(odd) + text[at + lots.randrange(3):]
    name = lots.choice(names)
    kind = lots.randrange(3)
    if kind == 0:
        answer = w.call(name, text)
        assert answer[:1] in '"+*-' and answer, (name, text, answer)
        if answer[0] in '+*-':
            json.loads(answer[1:])
    elif kind == 1:
        w.submit(i, name, text)
        n += 1
    else:
        frame = w.poll(0)
        head, _, body = frame.partition('\\n')
        sizes = [int(part.partition(':')[2]) for part in head.split()]
        assert sum(sizes) == len(body), frame
        n -= len(sizes)
while n:
    n -= len(w.poll(-1).partition('\\n')[0].split())
'done'
"""


async def test_any_words_past_the_helpers_are_answered(arena: Arena) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _, context: None)
    if arena.name.startswith("restricted"):
        pytest.skip("there is nothing past the helpers; frames on the pipe are tested with the engine")
    lots = random.Random(SEED)
    end = time.monotonic() + SECONDS / 4
    while time.monotonic() < end:
        seed = lots.randrange(2**32)
        host = Host()
        code = _BABBLE.replace("SEED", str(seed))
        outcome = await arena.run(code, host=host, limits=Limits(cpu_s=3, timeout_s=5, tool_wait_s=5))
        assert outcome.error is None and outcome.result == "done", f"seed {SEED}, {seed}: {outcome.error}"
        assert isinstance(outcome.error, SandboxError | None) and len(host.calls) <= 500
    await arena.unharmed()
