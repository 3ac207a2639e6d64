"""Fixtures: one engine for the whole session, and a host whose tools are ordinary async functions."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Protocol

import pytest

from mcpgate_sandbox.engine import Engine, Execution, Limits, Outcome
from mcpgate_sandbox.errors import ToolFailed
from mcpgate_sandbox.wasm import WasmEngine

Tool = Callable[..., Awaitable[Any]]

GENEROUS = Limits(timeout_s=20, cpu_s=10)
"""Ends a test that went wrong; no test waits for it."""


class Host:
    """The gateway's side of an execution: serves tools to the guest and remembers what it was asked."""

    def __init__(self, tools: dict[str, Tool] | None = None) -> None:
        """`tools`: by qualified name, e.g. "t.echo". Everybody has the tools below."""
        self.tools: dict[str, Tool] = {
            "t.echo": self.echo,
            "t.rows": self.rows,
            "t.add": self.add,
            "t.fail": self.fail,
            "t.never": self.never,
            **(tools or {}),
        }
        self.calls: list[tuple[str, list[Any], dict[str, Any]]] = []
        self.cancelled: list[str] = []
        self.finished: list[str] = []
        self.in_flight = self.most_in_flight = 0
        self.never_called = asyncio.Event()
        self.idle = asyncio.Event()
        self.kept: dict[str, Any] = {}
        """What `load()` finds."""

    @property
    def servers(self) -> list[str]:
        return sorted({name.partition(".")[0] for name in self.tools})

    async def call_tool(self, server: str, tool: str, positional: list[Any], named: dict[str, Any]) -> Any:
        name = f"{server}.{tool}"
        self.calls.append((name, positional, named))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.idle.clear()
        try:
            if name not in self.tools:
                raise ToolFailed(f"there is no tool {name}")
            value = await self.tools[name](*positional, **named)
            self.finished.append(name)
            return value
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self.idle.set()

    def host_call(self, name: str, arguments: list[Any]) -> Any:
        if name == "@tools":
            tools = [tool for server, _, tool in (full.partition(".") for full in self.tools) if server == arguments[0]]
            return {**{tool.replace("-", "_"): tool for tool in tools}, **{tool: tool for tool in tools}}
        if name == "@load" and arguments and arguments[0] in self.kept:
            return self.kept[arguments[0]]
        raise ToolFailed(f"{name} has nothing for {arguments}")

    async def echo(self, value: Any = None) -> Any:
        return value

    async def rows(self, count: int = 3) -> Any:
        return [{"n": n, "name": f"row {n}"} for n in range(count)]

    async def add(self, a: int, b: int = 0) -> int:
        return a + b

    async def fail(self, message: str = "boom") -> Any:
        raise ToolFailed(message, server="t", tool="fail", data={"code": 7})

    async def never(self) -> Any:
        self.never_called.set()
        await asyncio.Event().wait()


class Run(Protocol):
    async def __call__(
        self,
        code: str,
        tools: dict[str, Tool] | None = None,
        *,
        host: Host | None = None,
        limits: Limits = GENEROUS,
        session: str | None = None,
        on: WasmEngine | None = None,
    ) -> Outcome: ...


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def wasm() -> Iterator[WasmEngine]:
    engine = WasmEngine(warm=2)
    asyncio.run(engine.ready())
    yield engine
    asyncio.run(engine.aclose())


@pytest.fixture(scope="session", params=["wasm", "restricted"])
def any_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Each engine in turn, for what must hold on all of them."""
    yield request.getfixturevalue(request.param)


@pytest.fixture
def engine(wasm: WasmEngine) -> Engine:
    """The engine of tests that do not say which."""
    return wasm


NOT_RESTRICTED = {
    "test_an_ordinary_snippet_gives_its_result": ["task_group"],
    "test_except_star_catches_what_a_task_group_collected": [""],
    "test_a_server_called_like_a_package_keeps_its_tools_after_importing_a_submodule": [""],
    "test_calls_overlap": ["asyncio.Runner", "a new event loop"],
    "test_an_event_loop_can_be_asked_for_before_there_is_one": ["asyncio.get_event_loop().run_until_complete(main())"],
    "test_the_result_of": ["try:\n    return 1\nexcept* ValueError:\n    pass", "__import__('uuid').UUID(int=5)"],
    "test_ordinary_python": [
        *("except star", "sqlite3", "minidom", "zipfile", "configparser", "pickle", "pickle of one's own class"),
        *("the main module", "variables by name", "logging", "ast", "eval and exec", "email", "weakref and gc"),
        *("run_in_executor", "type parameters", "singledispatch"),
    ],
    "test_cpu_time_ends_at_its_limit": [
        *("__del__", "sqlite", "a trace function", "an import hook", "compile", "an exception handler of the loop"),
    ],
    "test_recursion_without_end_is_an_error_that_says_so": ["pickle", "a raised limit", "a raised limit in C"],
}
"""Where the restricted engine differs: test and case. What is listed here must really fail there."""
NEWER_PYTHON = {"test_ordinary_python": ["itertools"]}
"""Cases that need Python 3.12: the restricted engine runs on the Python it is installed with."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        name, _, case = item.name.partition("[")
        engine, _, case = case.removesuffix("]").partition("-")
        if engine != "restricted":
            continue
        if case.encode().decode("unicode_escape") in NOT_RESTRICTED.get(name, ()):
            item.add_marker(pytest.mark.xfail(strict=True, reason="differs on the restricted engine"))
        if case in NEWER_PYTHON.get(name, ()):
            old = sys.version_info < (3, 12)
            item.add_marker(pytest.mark.xfail(condition=old, reason="needs Python 3.12", strict=True))


@pytest.fixture(scope="session")
def restricted() -> Iterator[Engine]:
    from mcpgate_sandbox.restricted import RestrictedEngine

    engine = RestrictedEngine(warm=2)
    asyncio.run(engine.ready())
    yield engine
    asyncio.run(engine.aclose())


@pytest.fixture
def run(engine: Engine) -> Run:
    """Runs code with the given tools, or on a given host."""

    async def run(
        code: str,
        tools: dict[str, Tool] | None = None,
        *,
        host: Host | None = None,
        limits: Limits = GENEROUS,
        session: str | None = None,
        on: WasmEngine | None = None,
    ) -> Outcome:
        host = host or Host(tools)
        return await (on or engine).run(
            Execution(code, host.servers, host.call_tool, host.host_call, limits=limits, session=session)
        )

    return run


@pytest.fixture
def value(run: Run) -> Callable[..., Awaitable[Any]]:
    """The result of code that must not fail."""

    async def value(code: str, tools: dict[str, Tool] | None = None, **options: Any) -> Any:
        outcome = await run(code, tools, **options)
        assert outcome.error is None, f"{outcome.error!r}\n{getattr(outcome.error, 'traceback', '')}"
        return outcome.result

    return value
