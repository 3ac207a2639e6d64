"""Run one program and say what came of it, as JSON: {"result": …} or {"error": {…}}."""

import asyncio
import builtins
import inspect
import json
import linecache
import os
import random
import sys
import traceback
import types
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import wit_world

from mcpgate_guest import calls, eventloop, rewrite, stdlib, wire
from mcpgate_guest.errors import CLIENT, ArgumentError, ToolError

eventloop.install()


class Stream:
    """stdout or stderr: the first writes go out at once, so that a killed program still shows them;
    later ones in blocks."""

    encoding, errors, closed, newlines = "utf-8", "replace", False, None

    def __init__(self, fd: int) -> None:
        self.fd, self.parts, self.size, self.sent = fd, [], 0, 0

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self.parts.append(text)
        self.size += len(text)
        if self.size > 4096 or (self.sent < 64 and text.endswith("\n")):
            self.flush()
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if self.parts:
            text = "".join(self.parts)
            self.parts, self.size = [], 0
            self.sent += 1
            wit_world.emit(self.fd, text if text.isascii() else text.encode("utf-8", "replace").decode())

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def fileno(self) -> int:
        raise OSError("this stream has no file descriptor")


_main = types.ModuleType("__main__")
_namespace: dict[str, Any] = _main.__dict__
stdout, stderr = Stream(1), Stream(2)
_prepared = _begun = False


class Dialect:
    """What a program finds: plain Python. The restricted engine has another one."""

    def __init__(self) -> None:
        self.builtins: dict[str, Any] = builtins.__dict__
        self.globals: dict[str, Any] = {"asyncio": asyncio, "json": json}

    def compile(self, code: str, servers: frozenset[str]) -> types.CodeType:
        return rewrite.compile_program(code, servers)

    def import_all(self, module: str, namespace: dict[str, Any]) -> None:
        """`from module import *`"""
        exec(f"from {module} import *", namespace)

    def modules(self) -> tuple[list[str], list[str]]:
        """Names of the standard modules that there are, and of those that there are not."""
        return stdlib.AVAILABLE, stdlib.MISSING


dialect = Dialect()


def _no_input(prompt: object = "") -> str:
    raise EOFError("there is nobody to type an answer here")


def _help(thing: Any = None) -> None:
    """help(server.tool): what describe_tools shows. There is no pager here, and nobody to press a key."""
    if isinstance(thing, (calls.Tool, calls.Server, str)):
        name = thing.qualified if isinstance(thing, calls.Tool) else thing if isinstance(thing, str) else thing._name
        try:
            print(wire.call("@help", [[name], {}]))
        except ToolError as error:
            print(error)
    elif thing is None:
        print("help(server.tool) shows how a tool is called; dir(server) lists a server's tools.")
    else:
        print(inspect.getdoc(thing) or repr(thing))


def _load(id: str) -> Any:
    """load("r7"): a value that an earlier execution left behind."""
    return wire.call("@load", [[id], {}])


def _blend(name: str, module: Any) -> Any:
    return calls.Server(name, module)


def _import_all(module: str) -> None:
    dialect.import_all(module, _namespace)


def _is_coroutine(value: Any) -> bool:
    # inspect would ask for __class__, and so wait for a call that is on its way.
    return type(value) is types.CoroutineType


def _run(value: Any) -> Any:
    return eventloop.run_in_fresh_loop(value) if _is_coroutine(value) else value


async def _finish(value: Any) -> Any:
    return await value if _is_coroutine(value) else value


async def _gathered(coroutines: Iterable[Any]) -> list[Any]:
    return await asyncio.gather(*coroutines)


_MOST_FORGOTTEN = 100
_forgotten: list[str] = []
"""Names of coroutines that are gone without having been awaited."""


def _forget(coroutine: Any) -> None:
    """The interpreter calls this for each of them. It would write a warning to stderr, which reads like success."""
    if len(_forgotten) < _MOST_FORGOTTEN:
        _forgotten.append(coroutine.__qualname__)


def _waiting(values: Iterable[Any]) -> Iterator[str]:
    """Names of coroutines among these values, or in a list of theirs, that have not begun."""
    for value in values:
        for item in value[:_MOST_FORGOTTEN] if type(value) in (list, tuple) else (value,):
            if _is_coroutine(item) and inspect.getcoroutinestate(item) == inspect.CORO_CREATED:
                yield item.__qualname__


def _report_forgotten(name: str) -> dict[str, Any]:
    message = (
        f"coroutine {name!r} was never awaited, so none of it ran; write `await {name}(…)`, or "
        "`await asyncio.gather(…)` for several"
    )
    return {"type": "RuntimeError", "message": message, "name": None, "line": None, "traceback": ""}


def variables() -> dict[str, Any]:
    """The program's global variables."""
    return _namespace


def _prepare() -> None:
    global _prepared
    _prepared = True
    sys.stdout, sys.stderr = stdout, stderr
    warnings._warn_unawaited_coroutine = _forget  # type: ignore[attr-defined]
    sys.modules["__main__"] = _main  # pickle looks for the code's classes there
    dialect.builtins.update(
        {
            "input": _no_input,
            "help": _help,
            "ToolError": ToolError,
            "ArgumentError": ArgumentError,
            "load": _load,
            "elicit": calls.Tool(CLIENT, "elicit"),
            "progress": calls.Tool(CLIENT, "progress"),
            rewrite.VALUE: calls.value_of,
            rewrite.VALUES: calls.values_of,
            rewrite.WAIT: calls.wait_for_value,
            rewrite.WAIT_ALL: calls.wait_for_values,
            rewrite.BLEND: _blend,
            rewrite.IMPORT_ALL: _import_all,
            rewrite.RUN: _run,
            rewrite.FINISH: _finish,
        }
    )
    _namespace.update(dialect.globals, __name__="__main__", __builtins__=dialect.builtins)


_std_seed = random.seed


def _begin() -> None:
    # The first run of this instance: the snapshot froze the generator's seed, and componentize-py has just set argv.
    # Sixteen bytes are seed enough; `random.seed()` and a new `SystemRandom` take 2,496 from the host.
    global _begun
    _begun = True
    sys.argv = ["code"]
    random.seed = _std_seed
    random.seed(int.from_bytes(os.urandom(16), "big"))


def seal() -> None:
    """Build time only, before the snapshot is taken: everything is in place, and nothing has run yet."""
    global _begun
    _namespace.clear()
    _prepare()
    _begun = False
    calls.start_over()
    wire.mark = wire.NO_MARK
    linecache.cache.clear()
    stdout.__init__(1)  # type: ignore[misc]
    stderr.__init__(2)  # type: ignore[misc]
    random.seed = lambda *_: None  # componentize-py calls it before an instance's first run


def _rehearse() -> None:
    # A new instance shares its memory with the snapshot until it writes to a page; reference counts make every
    # object it touches such a write. Walking the way of the simplest program takes those faults out of the
    # execution. More of it (an event loop, a traceback) was tried: it cost 6 ms of CPU an execution to save 1 ms
    # of the time of some.
    server = calls.Server("server")
    server.__dict__["_tools"] = wire.decode('+{"tool":"tool"}')
    program = dialect.compile("server.tool", frozenset({"server"}))
    exec(program, {"__builtins__": dialect.builtins, "server": server})
    wire.encode([(), {"a": 1}])
    wire.encode_result("x")


def run(code: str, opts_json: str) -> str:
    opts = json.loads(opts_json)
    if not _prepared:
        _prepare()
    if not _begun:
        _begin()
    if opts.get("warm"):
        _rehearse()
        return "{}"
    if opts.get("stdlib"):
        available, missing = dialect.modules()
        return json.dumps({"result": {"available": available, "missing": missing}})
    servers = frozenset(opts.get("servers", ()))
    wire.mark = opts.get("mark", wire.mark)
    for name in servers:
        _namespace[name] = calls.Server(name)
    _forgotten.clear()
    linecache.cache[rewrite.FILENAME] = (len(code), None, [line + "\n" for line in code.splitlines()], rewrite.FILENAME)
    try:
        program = dialect.compile(code, servers)
    except SyntaxError as error:
        return json.dumps({"error": _report_syntax(error, code)})
    except BaseException as error:
        return json.dumps({"error": _report(error, code)})
    try:
        result = _execute(program, _namespace)
        result = _run(result)  # `main()` as the last line, which a notebook would await
        if type(result) in (list, tuple) and result and all(map(_is_coroutine, result)):
            result = eventloop.run_in_fresh_loop(_gathered(result))
        result = calls.value_of(result)
        for failure in calls.drain():
            print(failure, file=stderr)
        outcome = "{}" if result is None else '{"result":' + wire.encode_result(result) + "}"
        del result
        if forgotten := [*_forgotten, *(_waiting(_namespace.values()) if "async" in code else ())]:
            outcome = json.dumps({"error": _report_forgotten(forgotten[0])})
    except BaseException as error:
        done = type(error) is SystemExit and error.code in (None, 0)  # sys.exit() at the end of a script
        outcome = "{}" if done else json.dumps({"error": _report(error, code)})
    calls.forget()
    try:
        stdout.flush()
        stderr.flush()
    except Exception:
        pass
    return outcome


def _execute(code: types.CodeType, namespace: dict[str, Any]) -> Any:
    program = types.FunctionType(code, namespace)
    if code.co_flags & inspect.CO_COROUTINE:
        return eventloop.run_in_fresh_loop(program())
    return program()


def _report(error: BaseException, code: str) -> dict[str, Any]:
    """The error as the model should read it: its own lines, not ours."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    kind = type(error).__name__
    report: dict[str, Any] = {"type": kind, "message": _text(error), "name": getattr(error, "name", None)}
    if not isinstance(report["name"], str):
        report["name"] = None
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == rewrite.FILENAME]
    if len(frames) > 8:
        frames = frames[:3] + frames[-5:]
    lines: list[str] = []
    for frame in frames:
        where = "" if frame.name == "<module>" else f" in {frame.name}"
        line = f"line {frame.lineno}{where}: {(frame.line or '').strip()}"
        if lines[-1:] == [line]:
            lines[-1] += "  (again and again)"
        if lines and lines[-1].startswith(line):
            continue
        lines.append(line)
    if isinstance(error, BaseExceptionGroup):
        lines += [f"  - {type(e).__name__}: {_text(e)}" for e in error.exceptions[:10]]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and not isinstance(cause, asyncio.CancelledError):
        lines.append(f"(while handling {type(cause).__name__}: {_text(cause)[:300]})")
    report.update(line=frames[-1].lineno if frames else None, traceback="\n".join(lines))
    if isinstance(error, ToolError):
        report.update(server=error.server, tool=error.tool, arguments=isinstance(error, ArgumentError))
    return report


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:
        return "(its message could not be read)"


def _report_syntax(error: SyntaxError, code: str) -> dict[str, Any]:
    """What the compiler had to say about the program itself."""
    lines = code.splitlines()
    number = error.lineno or 1
    text = lines[number - 1] if 0 < number <= len(lines) else ""
    caret = " " * max(0, (error.offset or 1) - 1) + "^"
    shown = f"line {number}: {text}\n{' ' * len(f'line {number}: ')}{caret}"
    return {"type": type(error).__name__, "message": error.msg, "name": None, "line": error.lineno, "traceback": shown}
