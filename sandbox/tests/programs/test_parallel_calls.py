"""Calls at the same time: each tool answers only when all have arrived."""

import asyncio

import pytest

from sandbox.tests.conftest import Host, Run
from sandbox.tests.programs.conftest import SHORT, Value, meeting

pytestmark = pytest.mark.anyio


TOGETHER = {
    "gather": "await asyncio.gather(t.meet(1), t.meet(2), t.meet(3))",
    "gather of a list": "await asyncio.gather(*[t.meet(i) for i in (1, 2, 3)])",
    "gather of a generator": "await asyncio.gather(*(t.meet(i) for i in (1, 2, 3)))",
    "gather of a map": "await asyncio.gather(*map(t.meet, (1, 2, 3)))",
    "started before the first is awaited": "a = t.meet(1); b = t.meet(2); c = t.meet(3)\n[await a, await b, await c]",
    "started in a list": "calls = [t.meet(i) for i in (1, 2, 3)]\n[await call for call in calls]",
    "started in a dict": "calls = {i: t.meet(i) for i in (1, 2, 3)}\n[await call for call in calls.values()]",
    "appended": "calls = []\nfor i in (1, 2, 3):\n    calls.append(t.meet(i))\nawait asyncio.gather(*calls)",
    "tasks": "tasks = [asyncio.create_task(t.meet(i)) for i in (1, 2, 3)]\n[await task for task in tasks]",
    "ensure_future": "tasks = [asyncio.ensure_future(t.meet(i)) for i in (1, 2, 3)]\n[await task for task in tasks]",
    "task group": (
        "async with asyncio.TaskGroup() as group:\n"
        "    tasks = [group.create_task(t.meet(i)) for i in (1, 2, 3)]\n"
        "[task.result() for task in tasks]"
    ),
    "as_completed": "sorted([await done for done in asyncio.as_completed([t.meet(i) for i in (1, 2, 3)])])",
    "wait": "done, left = await asyncio.wait([t.meet(i) for i in (1, 2, 3)])\nsorted(task.result() for task in done)",
    "wait of tasks": (
        "done, left = await asyncio.wait({asyncio.create_task(t.meet(i)) for i in (1, 2, 3)})\n"
        "sorted(task.result() for task in done)"
    ),
    "wait_for in gather": "await asyncio.gather(*[asyncio.wait_for(t.meet(i), 60) for i in (1, 2, 3)])",
    "shield in gather": "await asyncio.gather(*[asyncio.shield(t.meet(i)) for i in (1, 2, 3)])",
    "functions": ("async def get(i):\n    return await t.meet(i)\nawait asyncio.gather(*[get(i) for i in (1, 2, 3)])"),
    "functions that do not await": (
        "async def get(i):\n    return t.meet(i)\nawait asyncio.gather(*[get(i) for i in (1, 2, 3)])"
    ),
    "functions that use the value at once": (
        "async def get(i):\n    x = t.meet(i)\n    return x + 0\nawait asyncio.gather(*[get(i) for i in (1, 2, 3)])"
    ),
    "plain functions that return the call": (
        "def get(i):\n    return t.meet(i)\nawait asyncio.gather(get(1), get(2), get(3))"
    ),
    "a lambda": "get = lambda i: t.meet(i)\nawait asyncio.gather(get(1), get(2), get(3))",
    "methods": (
        "class Client:\n    async def get(self, i):\n        return await t.meet(i)\n"
        "client = Client()\nawait asyncio.gather(*[client.get(i) for i in (1, 2, 3)])"
    ),
    "a semaphore that lets three in": (
        "gate = asyncio.Semaphore(3)\nasync def get(i):\n    async with gate:\n        return await t.meet(i)\n"
        "await asyncio.gather(*[get(i) for i in (1, 2, 3)])"
    ),
    "asyncio.run": (
        "async def main():\n    return await asyncio.gather(*[t.meet(i) for i in (1, 2, 3)])\nasyncio.run(main())"
    ),
    "asyncio.run beside a top-level await": (
        "async def main():\n    return await asyncio.gather(*[t.meet(i) for i in (1, 2, 3)])\n"
        "await asyncio.sleep(0)\nasyncio.run(main())"
    ),
    "asyncio.Runner": (
        "async def main():\n    return await asyncio.gather(*[t.meet(i) for i in (1, 2, 3)])\n"
        "with asyncio.Runner() as runner:\n    result = runner.run(main())\nresult"
    ),
    "a new event loop": (
        "async def main():\n    return await asyncio.gather(*[t.meet(i) for i in (1, 2, 3)])\n"
        "loop = asyncio.new_event_loop()\nloop.run_until_complete(main())"
    ),
    "a queue of workers": (
        "queue = asyncio.Queue()\nfound = []\nfor i in (1, 2, 3):\n    queue.put_nowait(i)\n"
        "async def work():\n    while not queue.empty():\n        found.append(await t.meet(queue.get_nowait()))\n"
        "await asyncio.gather(work(), work(), work())\nsorted(found)"
    ),
    "all spellings at once": (
        "async def get(i):\n    return await t.meet(i)\n"
        "first = t.meet(1)\ntask = asyncio.create_task(get(2))\nthird = asyncio.create_task(t.meet(3))\n"
        "[await first, *(await asyncio.gather(task, third))]"
    ),
}


@pytest.mark.parametrize("code", TOGETHER.values(), ids=TOGETHER.keys())
async def test_calls_overlap(code: str, value: Value) -> None:
    assert await value(code, {"t.meet": meeting(3)}, limits=SHORT) == [1, 2, 3]


async def test_thirty_calls_of_one_gather_all_arrive_before_any_is_answered(value: Value) -> None:
    code = "await asyncio.gather(*[t.meet(i) for i in range(30)])"
    assert await value(code, {"t.meet": meeting(30)}, limits=SHORT) == list(range(30))


async def test_a_semaphore_of_the_code_bounds_its_calls(run: Run) -> None:
    host = Host()
    code = """
gate = asyncio.Semaphore(2)
async def get(i):
    async with gate:
        return await t.echo(i)
await asyncio.gather(*[get(i) for i in range(12)])
"""
    outcome = await run(code, host=host)
    assert outcome.result == list(range(12))
    assert host.most_in_flight <= 2


async def test_answers_come_in_the_order_in_which_tools_answer(value: Value) -> None:
    gates = {name: asyncio.Event() for name in "abc"}

    async def step(name: str) -> str:
        await gates[name].wait()
        return name

    async def let_go(name: str) -> None:
        gates[name].set()

    code = """
order = []
calls = [t.step(name) for name in "abc"]
await t.let_go("b")
for done in asyncio.as_completed(calls):
    order.append(await done)
    if len(order) < 3:
        await t.let_go({"b": "c", "c": "a"}[order[-1]])
order
"""
    assert await value(code, {"t.step": step, "t.let_go": let_go}, limits=SHORT) == ["b", "c", "a"]


async def test_wait_returns_at_the_first_answer(run: Run) -> None:
    code = """
tasks = [asyncio.create_task(t.never()), asyncio.create_task(t.echo("quick"))]
done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
[[task.result() for task in done], len(left)]
"""
    assert (await run(code, limits=SHORT)).result == [["quick"], 1]


async def test_other_tasks_go_on_while_one_waits_for_a_tool(value: Value) -> None:
    release = asyncio.Event()

    async def wait() -> str:
        await release.wait()
        return "released"

    async def let_go() -> None:
        release.set()

    code = """
async def second():
    await asyncio.sleep(0)
    await t.let_go()
task = asyncio.create_task(second())
first = t.wait()
[first, await task]
"""
    tools = {"t.wait": wait, "t.let_go": let_go}
    assert await value(code, tools, limits=SHORT) == ["released", None]
    assert await value(code.replace("first = t", "first = await t"), tools, limits=SHORT) == ["released", None]
