# mypy: ignore-errors
"""One class for each way to run code, all with one interface. Runs in the contestant's own Python, with its imports.

It knows how to drive a contestant at its best, and nothing about what is measured: see worker.
"""

import asyncio
import importlib
import itertools
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.sandbox.dialect import Dialect

WARM = 4
"""Guests kept ready, for contestants with a configurable pool."""
MEMORY_MIB = 256
MOST_PARALLEL = 64
WAIT_S = 0.02
_MODULES = (
    "asyncio base64 bisect collections contextlib csv dataclasses datetime decimal difflib enum fractions functools "
    "hashlib heapq html html.parser io itertools json math random re statistics string sys textwrap time typing "
    "urllib.parse uuid xml.etree.ElementTree zoneinfo collections.abc"
).split()
"""The modules that a contestant with an import list must allow: those that the snippets import."""


class Failed(Exception):
    """The program failed, or was not accepted."""


class Ended(Exception):
    """A limit ended the program."""


class ToolFailed(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True)
class Answer:
    result: Any
    stdout: str


class Tools:
    """What the tools do. Only `t_wait` and `t_wait_now` differ, in how they wait."""

    NAMES = ("rows", "echo", "add", "fail", "wait", "big")
    _BIG = tuple(
        {"id": n, "name": f"item {n}", "tags": ["red", "green"], "price": n / 4, "note": "lorem ipsum dolor sit amet"}
        for n in range(9200)
    )

    def rows(self, count: int = 3) -> list[dict[str, Any]]:
        return [{"n": n, "name": f"row {n}"} for n in range(count)]

    def echo(self, value: Any = None) -> Any:
        return value

    def add(self, a: int = 0, b: int = 0) -> int:
        return a + b

    def fail(self, message: str = "boom") -> Any:
        raise ToolFailed(message)

    def wait(self) -> int:
        time.sleep(WAIT_S)
        return 1

    def big(self) -> list[dict[str, Any]]:
        return list(self._BIG)

    async def answer(self, name: str, *positional: Any, **named: Any) -> Any:
        if name == "wait":
            await asyncio.sleep(WAIT_S)
            return 1
        return getattr(self, name)(*positional, **named)

    def awaitable(self, name: str) -> Any:
        async def call(*positional: Any, **named: Any) -> Any:
            return await self.answer(name, *positional, **named)

        call.__name__ = f"t_{name}"
        return call


class Adapter:
    dialect: Dialect | None = None
    """None: code runs unchanged."""
    blocking = False
    """Whether `run` blocks the event loop, so that parallel executions need threads."""

    def __init__(self, cold: bool) -> None:
        """`cold`: nothing is kept ready. Raises NotImplementedError if the contestant never keeps anything ready."""
        self.cold, self.tools = cold, Tools()

    async def open(self) -> None:
        """Prepare to run code."""

    async def run(self, code: str, limit_s: float | None = None) -> Answer:
        """Run it from scratch. Raises Failed, or Ended by the limit of CPU time, or of wall time if it has no other."""
        raise NotImplementedError

    async def hold(self, code: str) -> None:
        """Run it in a new session, which stays alive."""
        raise NotImplementedError

    def run_native(self, code: str) -> bool:
        """Run it in this process, for contestants whose CPU speed is measured there."""
        return False


class Ours(Adapter):
    """An engine of mcpgate, by import string."""

    engine = ""

    async def open(self) -> None:
        module, _, name = self.engine.partition(":")
        options = {"warm": 0} if self.cold else {}
        make = getattr(importlib.import_module(module), name)
        try:
            self._engine = make(**options)
        except TypeError:
            if self.cold:
                raise NotImplementedError from None
            raise
        from mcpgate_sandbox.engine import Execution, Limits
        from mcpgate_sandbox.errors import LimitReached, ToolFailed

        self._execution, self._limits, self._reached, self._tool_failed = Execution, Limits, LimitReached, ToolFailed
        self._numbers = itertools.count()
        await self._engine.ready()

    async def run(self, code: str, limit_s: float | None = None) -> Answer:
        return await self._run(code, limit_s, None)

    async def hold(self, code: str) -> None:
        await self._run(code, None, f"bench/{next(self._numbers)}")

    async def _run(self, code: str, limit_s: float | None, session: str | None) -> Answer:
        limits = self._limits(
            timeout_s=60, cpu_s=limit_s or 30, memory_mib=MEMORY_MIB, max_parallel_calls=MOST_PARALLEL
        )
        outcome = await self._engine.run(
            self._execution(code, ["t"], self._call_tool, self._host_call, limits=limits, session=session)
        )
        if isinstance(outcome.error, self._reached):
            raise Ended(str(outcome.error))
        if outcome.error is not None:
            raise Failed(str(outcome.error))
        return Answer(outcome.result, outcome.stdout)

    async def _call_tool(self, server: str, tool: str, positional: list[Any], named: dict[str, Any]) -> Any:
        try:
            return await self.tools.answer(tool, *positional, **named)
        except ToolFailed as error:
            raise self._tool_failed(error.message, server=server, tool=tool) from None

    def _host_call(self, name: str, arguments: list[Any]) -> Any:
        return {tool: tool for tool in Tools.NAMES} if name == "@tools" else None


class Wasm(Ours):
    engine = "mcpgate_sandbox.wasm:WasmEngine"


class Isolated(Ours):
    engine = "mcpgate_sandbox.isolated:IsolatedWasmEngine"


class Restricted(Ours):
    engine = "mcpgate_sandbox.restricted:RestrictedEngine"


class Monty(Adapter):
    dialect = Dialect("either", returns=True, error="RuntimeError", message="str({})")

    async def open(self) -> None:
        import pydantic_monty as monty

        self._monty = monty
        self._pool = await monty.AsyncMonty(min_processes=WARM, max_processes=MOST_PARALLEL).__aenter__()
        self._lookup = {f"t_{name}": self._raising(self.tools.awaitable(name)) for name in Tools.NAMES}
        self._lookup |= {f"t_{name}_now": self._raising_now(getattr(self.tools, name)) for name in Tools.NAMES}
        self._held = []
        if self.cold:
            await self._pool.__aexit__(None, None, None)

    def _raising(self, function: Any) -> Any:
        async def call(**named: Any) -> Any:
            try:
                return await function(**named)
            except ToolFailed as error:
                raise RuntimeError(error.message) from None

        return call

    def _raising_now(self, function: Any) -> Any:
        def call(**named: Any) -> Any:
            try:
                return function(**named)
            except ToolFailed as error:
                raise RuntimeError(error.message) from None

        return call

    async def run(self, code: str, limit_s: float | None = None) -> Answer:
        if self.cold:
            async with self._monty.AsyncMonty(min_processes=0) as pool:
                return await self._run(pool, code, limit_s)
        return await self._run(self._pool, code, limit_s)

    async def _run(self, pool: Any, code: str, limit_s: float | None) -> Answer:
        limits = {"max_memory": MEMORY_MIB << 20} | ({"max_feed_duration_secs": limit_s} if limit_s else {})
        printed = self._monty.CollectString()
        try:
            async with pool.checkout(limits=limits) as session:
                result = await session.feed_run(code, external_lookup=self._lookup, print_callback=printed)
        except self._monty.MontyError as error:
            if limit_s and "time limit" in str(error):
                raise Ended(str(error)) from None
            raise Failed(str(error)) from None
        return Answer(result, printed.output)

    async def hold(self, code: str) -> None:
        session = await self._pool.checkout().__aenter__()
        await session.feed_run(code)
        self._held.append(session)


class Eryx(Adapter):
    dialect = Dialect(
        "always",
        result="result = {}",
        error="RuntimeError",
        message=r"str({}).partition('ToolFailed: ')[2].partition('\n')[0]",
    )
    blocking = True

    async def open(self) -> None:
        if self.cold:
            os.environ["ERYX_WARM_INSTANCES"] = "0"
        import eryx

        self._eryx = eryx
        # Plain functions: it runs each in a thread, but gives each coroutine its own event loop, which is slower.
        self._callbacks = [
            {"name": f"t_{name}", "fn": getattr(self.tools, name), "description": name} for name in Tools.NAMES
        ]
        self._sandbox = self._make(eryx.Sandbox, 60)
        self._held = []

    def _make(self, kind: Any, timeout_s: float) -> Any:
        limits = self._eryx.ResourceLimits(
            execution_timeout_ms=int(timeout_s * 1000), max_memory_bytes=MEMORY_MIB << 20
        )
        return kind(callbacks=self._callbacks, resource_limits=limits)

    async def run(self, code: str, limit_s: float | None = None) -> Answer:
        sandbox = self._make(self._eryx.Sandbox, limit_s) if limit_s else self._sandbox
        try:
            done = sandbox.execute(code)
        except TimeoutError as error:
            raise Ended(str(error)) from None
        except self._eryx.EryxError as error:
            raise Failed(str(error)) from None
        if done.result_error:
            raise Failed(done.result_error)
        return Answer(done.result, done.stdout.decode())

    async def hold(self, code: str) -> None:
        session = self._eryx.Session()
        session.execute(code)
        self._held.append(session)


class Pysandbox(Adapter):
    dialect = Dialect(
        "always", result="await t_give(value={})", error="Exception", message="str({}).partition('ToolFailed: ')[2]"
    )

    async def open(self) -> None:
        if self.cold:
            raise NotImplementedError
        from pysandbox import PythonRuntime, RuntimeLimits, TerminationReason

        self._limits, self._reasons = RuntimeLimits, TerminationReason
        self._runtime = PythonRuntime()
        self._given = {}
        self._held = []
        for name in Tools.NAMES:
            self._expose(f"t_{name}", self.tools.awaitable(name))

        def t_give(context: Any, /, value: Any = None) -> None:
            self._given[context.worker_id] = value

        self._runtime.rpc.expose(t_give)

    def _expose(self, name: str, function: Any) -> None:
        async def call(context: Any, /, *positional: Any, **named: Any) -> Any:
            return await function(*positional, **named)

        call.__name__ = name
        self._runtime.rpc.expose(call)

    async def run(self, code: str, limit_s: float | None = None) -> Answer:
        limits = self._limits(
            timeout=limit_s or 60, max_memory_bytes=MEMORY_MIB << 20, guest_dispatch_request_concurrency=MOST_PARALLEL
        )
        worker = self._runtime.run(code, limits=limits, spin=False)
        done = await worker.task
        result = self._given.pop(worker.worker_id, None)
        if done.reason is self._reasons.TIMEOUT:
            raise Ended(str(done.error))
        if done.error:
            raise Failed(str(done.error))
        return Answer(result, done.output.text)

    async def hold(self, code: str) -> None:
        worker = self._runtime.run(code)
        await worker.call_function("return 1", None)
        self._held.append(worker)


class Smolagents(Adapter):
    dialect = Dialect("never", error="Exception")
    blocking = True

    async def open(self) -> None:
        if self.cold:
            raise NotImplementedError
        from smolagents.local_python_executor import ExecutionTimeoutError, LocalPythonExecutor

        self._executor, self._timeout = LocalPythonExecutor, ExecutionTimeoutError
        self._held = []

    def _make(self, limit_s: float) -> Any:
        executor = self._executor(_MODULES, timeout_seconds=limit_s)
        executor.send_tools({f"t_{name}": getattr(self.tools, name) for name in Tools.NAMES})
        return executor

    async def run(self, code: str, limit_s: float | None = None) -> Answer:
        try:
            output = self._make(limit_s or 60)(code)
        except self._timeout as error:
            raise Ended(str(error)) from None
        except Exception as error:
            raise Failed(str(error)) from None
        return Answer(output.output, output.logs)

    async def hold(self, code: str) -> None:
        executor = self._make(60)
        executor(code)
        self._held.append(executor)


class Subprocess(Adapter):
    dialect = Dialect("either")

    async def open(self) -> None:
        if self.cold:
            raise NotImplementedError
        self._held = []

    async def run(self, code: str, limit_s: float | None = None) -> Answer:
        child = await self._start()
        try:
            async with asyncio.timeout(limit_s or 60):
                return await self._converse(child, code)
        except TimeoutError:
            raise Ended("killed") from None
        finally:
            child.kill()
            await child.wait()

    async def hold(self, code: str) -> None:
        child = await self._start()
        await self._converse(child, code)
        self._held.append(child)

    def run_native(self, code: str) -> bool:
        exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})
        return True

    async def _start(self) -> Any:
        program = str(Path(__file__).with_name("child.py"))
        return await asyncio.create_subprocess_exec(
            sys.executable, "-I", program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=1 << 26
        )

    async def _converse(self, child: Any, code: str) -> Answer:
        self._write(child, {"code": code})
        calls = set()
        while True:
            message = json.loads(await child.stdout.readline() or b'{"failed": "the child ended"}')
            if "failed" in message:
                raise Failed(message["failed"])
            if "tool" not in message:
                return Answer(message["result"], message["stdout"])
            task = asyncio.create_task(self._answer(child, message))
            calls.add(task)
            task.add_done_callback(calls.discard)

    async def _answer(self, child: Any, message: dict[str, Any]) -> None:
        try:
            answer = {"value": await self.tools.answer(message["tool"], **message["arguments"])}
        except ToolFailed as error:
            answer = {"error": error.message}
        self._write(child, {"id": message["id"], **answer})

    def _write(self, child: Any, message: Any) -> None:
        child.stdin.write(json.dumps(message).encode() + b"\n")


ADAPTERS: dict[str, type[Adapter]] = {
    "wasm": Wasm,
    "isolated": Isolated,
    "restricted": Restricted,
    "monty": Monty,
    "eryx": Eryx,
    "pysandbox": Pysandbox,
    "smolagents": Smolagents,
    "subprocess": Subprocess,
}
