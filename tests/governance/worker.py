"""One worker process of the races: opens a store that it is told of, does what it hears on a pipe, and says there when
it is through. Started by test_gate_races.py."""

import asyncio
import faulthandler
import os
import random
import signal
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

from mcpgate.errors import McpgateError
from mcpgate.governance.callers import LOCAL
from mcpgate.governance.context import RequestContext
from mcpgate.governance.gate import Gate
from mcpgate.governance.records import Request, Usage
from tests.governance.gates import call, gate_on, race, tool
from tests.stores.conftest import Place


class Line:
    """To the test."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.say = pipe.send

    async def heard(self) -> str:
        """The next word; empty at the end."""
        try:
            return str(await asyncio.to_thread(self._pipe.recv))
        except EOFError:
            return ""


async def settle_and_die(gate: Gate, line: Line, inside_execution: bool) -> None:
    """Killed at the instant at which a call is over; its execution is not."""
    if not inside_execution:
        await call(gate, tool("dear", id="rq_last"))
        line.say("settled")
        os.kill(os.getpid(), signal.SIGKILL)
    async with gate.admit(RequestContext(LOCAL), Request("execution", id="rq_outer")):
        await call(gate, tool("dear", id="rq_last", parent_id="rq_outer"))
        line.say("settled")
        os.kill(os.getpid(), signal.SIGKILL)


async def carry_on(gate: Gate, seed: int, callers: int = 8) -> None:
    """Calls of every kind and price, until the money is gone or the process."""
    chance = random.Random(seed)

    async def caller() -> None:
        while True:
            try:
                name, most = chance.choice(["read", "write", "odd"]), chance.randint(1, 4)
                if chance.random() < 0.3:
                    outer = Request("execution")
                    async with gate.admit(RequestContext(LOCAL), outer):
                        await call(gate, tool(name, most, parent_id=outer.id), calls=chance.randint(0, most))
                        await call(gate, tool("free", parent_id=outer.id))
                else:
                    async with gate.admit(RequestContext(LOCAL), tool(name, most)) as admission:
                        admission.spent(Usage(calls=chance.randint(0, most)))
                        if chance.random() < 0.1:
                            raise ValueError("what is spent is spent")
            except (McpgateError, ValueError):
                await asyncio.sleep(0.001)

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())


async def send(gate: Gate, line: Line, port: int, callers: int = 8) -> None:
    """Calls to a real upstream, as many at once, until there is no room for one more even when all are over."""
    refused = asyncio.Event()

    async def caller() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while not refused.is_set():
            try:
                async with gate.admit(RequestContext(LOCAL), request := tool("read")) as admission:
                    admission.spent(Usage(calls=1))
                    writer.write(f"{request.id}\n".encode())
                    await reader.readline()
            except McpgateError as error:
                # What others only hold may come back, of what was killed too.
                if error.code == "budget_exceeded" or error.data.get("retry_after_s", 0) > 60:
                    refused.set()
                await asyncio.sleep(0.02)
        writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
    line.say("refused for good")


async def hold(gate: Gate, line: Line) -> None:
    """Takes all there is and keeps it."""
    async with gate.admit(RequestContext(LOCAL), tool("dear")):
        line.say("holding")
        await line.heard()


def tell_tasks() -> None:
    """Where everybody stands, shortly before a process that hangs is ended."""
    for task in asyncio.all_tasks():
        task.print_stack(file=sys.stderr)


async def work(line: Line, place: Place, callers: int, settings: Mapping[str, Any]) -> None:
    asyncio.get_running_loop().call_later(22, tell_tasks)
    async with place.open() as stores, gate_on(stores, **settings) as gate:
        line.say("ready")
        while order := await line.heard():
            what, _, argument = order.partition(" ")
            if what == "race":

                async def decided() -> None:
                    line.say("decided")
                    assert await line.heard() == "leave"

                line.say(await race(gate, lambda name=argument: tool(name), callers, decided))  # type: ignore[misc]
            elif what == "settle":
                await settle_and_die(gate, line, argument == "inside")
            elif what == "carry":
                going = asyncio.ensure_future(carry_on(gate, int(argument)))
                await line.heard()
                going.cancel()
                await asyncio.gather(going, return_exceptions=True)
            elif what == "send":
                await send(gate, line, int(argument))
            elif what == "hold":
                await hold(gate, line)


def main(pipe: Connection, place: Place, callers: int, settings: Mapping[str, Any]) -> None:
    faulthandler.dump_traceback_later(25, exit=True)  # says where it hangs, and ends
    with pipe:
        asyncio.run(work(Line(pipe), place, callers, settings))
