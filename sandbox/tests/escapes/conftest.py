"""An arena for attacks: what a guest could harm, planted where it can be seen, and a judge who looks at it afterwards.

An attack is a program. It is judged from outside, by what it did: a planted secret that turned up in anything the
guest said or sent, a marker that appeared on the disk, a connection that was made, a tool that was called for
another, a neighbour's session or a next guest that is not as it should be. Three names in a program are replaced:
@SECRET@ (a file that holds the secret), @MARKER@ (a path where nothing is), @PORT@ (a port that is listened on).
"""

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mcpgate_sandbox.engine import Engine, Execution, Limits, Outcome
from mcpgate_sandbox.errors import CodeFailed
from mcpgate_sandbox.wasm import WasmEngine
from sandbox.tests.conftest import GENEROUS, Host, Tool

REACHED = "REACHED"
"""What a program prints once it holds something that the restricted engine must not let it have. In the Wasm guest
the same thing may be an ordinary Python object, with nothing behind it: there only the harm done counts."""


class Planted:
    """What there is to steal and to break."""

    def __init__(self, folder: Path) -> None:
        self.secret = "secret-" + secrets.token_hex(12)
        self.file = folder / "planted.txt"
        self.file.write_text(self.secret)
        self.marker = folder / "marker"
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.port: int = self.listener.getsockname()[1]

    def put_into(self, code: str) -> str:
        return (
            code.replace("@SECRET@", str(self.file))
            .replace("@MARKER@", str(self.marker))
            .replace("@PORT@", str(self.port))
        )

    def harm(self, said: str) -> list[str]:
        """What has come to harm, in words; `said` is all that the guest let out. Mends it for the next one."""
        found = []
        if self.secret in said:
            found.append("the secret got out")
        if self.marker.exists():
            found.append("a file was written or a command run")
            self.marker.unlink()
        if not self.file.exists() or self.file.read_text() != self.secret:
            found.append("the planted file was changed")
            self.file.write_text(self.secret)
        try:
            self.listener.accept()[0].close()
            found.append("a connection was made")
        except BlockingIOError:
            pass
        return found


class Arena:
    """One engine, a victim with a session of its own, and the planted things."""

    def __init__(self, engine: Engine, planted: Planted) -> None:
        self.engine, self.planted = engine, planted

    @property
    def name(self) -> str:
        return self.engine.name

    async def run(
        self,
        code: str,
        tools: dict[str, Tool] | None = None,
        *,
        host: Host | None = None,
        limits: Limits = GENEROUS,
        session: str | None = None,
    ) -> Outcome:
        """Run code as the attacker, placeholders replaced."""
        host = host or Host(tools)
        execution = Execution(
            self.planted.put_into(code), host.servers, host.call_tool, host.host_call, limits=limits, session=session
        )
        async with asyncio.timeout(60):
            return await self.engine.run(execution)

    async def repels(
        self,
        code: str,
        tools: dict[str, Tool] | None = None,
        *,
        host: Host | None = None,
        limits: Limits = GENEROUS,
        session: str | None = None,
    ) -> Outcome:
        """Run an attack and prove that it did no harm: not to the host, not to a neighbour, not to who comes next.
        Returns the outcome, for what else a test wants to see of it."""
        host = host or Host(tools)
        outcome = await self.run(code, host=host, limits=limits, session=session)
        said = heard(outcome) + repr(host.calls)
        assert self.planted.harm(said) == [], outcome
        if self.name.startswith("restricted"):
            assert REACHED not in outcome.stdout + repr(outcome.result), outcome
        await self.unharmed()
        return outcome

    async def unharmed(self) -> None:
        """The next guest works and finds nothing of the last one; the victim's session is as it was."""
        host = Host()
        probe = "[sum([1, 2]), len('abc'), sorted([2, 1]), t.add(a=1, b=2), str(1.5), isinstance('x', str), 'owned' in globals()]"
        if self.name.startswith("restricted"):
            probe = probe.replace("'owned' in globals()", "False")
        outcome = await self.engine.run(Execution(probe, host.servers, host.call_tool, host.host_call, limits=GENEROUS))
        assert outcome.error is None and outcome.result == [3, 3, [1, 2], 3, "1.5", True, False], outcome
        victim = await self.engine.run(_victim("private", self.planted))
        assert victim.error is None and victim.result == self.planted.secret and not victim.notes, victim


def heard(outcome: Outcome) -> str:
    """All that a guest let out."""
    error: Any = outcome.error
    told = (
        [error.type, error.message, error.traceback, str(error.name)] if isinstance(error, CodeFailed) else [str(error)]
    )
    return "\n".join([repr(outcome.result), outcome.stdout, outcome.stderr, *told, *outcome.notes])


def _victim(code: str, planted: Planted) -> Execution:
    host = Host({"t.secret": _say(planted.secret)})
    return Execution(code, host.servers, host.call_tool, host.host_call, limits=GENEROUS, session="victim/diary")


def _say(value: str) -> Callable[..., Any]:
    async def say() -> str:
        return value

    return say


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    planted = Planted(tmp_path_factory.mktemp("planted"))
    os.environ["PLANTED_SECRET"] = planted.secret
    yield planted
    del os.environ["PLANTED_SECRET"]
    planted.listener.close()


@pytest.fixture(scope="session")
def fresh() -> Iterator[Engine]:
    """An engine whose guests are used once."""
    engine = WasmEngine(warm=2, recycle="off")
    asyncio.run(engine.ready())
    yield engine
    asyncio.run(engine.aclose())


@pytest.fixture(scope="session")
def renewed() -> Iterator[Engine]:
    """An engine with one guest ready: whoever comes next gets the one that was just used, renewed."""
    engine = WasmEngine(warm=1)
    asyncio.run(engine.ready())
    if not any("renewed in place" in lock for lock in asyncio.run(engine.locks())):
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("this kernel cannot renew guests")
    yield engine
    asyncio.run(engine.aclose())


@pytest.fixture(scope="session", params=["fresh", "renewed", "restricted"])
def any_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Each engine in turn; the Wasm engine with guests that are used once, and with renewed ones."""
    yield request.getfixturevalue(request.param)


@pytest.fixture
async def arena(any_engine: Engine, planted: Planted) -> AsyncIterator[Arena]:
    """The arena on each engine in turn."""
    arena = Arena(any_engine, planted)
    setup = await any_engine.run(_victim("private = t.secret()\nprivate", planted))
    assert setup.result == planted.secret
    yield arena
