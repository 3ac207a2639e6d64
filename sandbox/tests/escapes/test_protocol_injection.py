"""From guest to host: what a program says on the four host functions past the helpers, and what it can do to the
traffic with the helpers alone. A broken rule ends this execution and nobody else's."""

import asyncio
from typing import Any

import pytest

from mcpgate_sandbox.engine import Limits
from mcpgate_sandbox.errors import CodeFailed, LimitReached
from sandbox.tests.conftest import Host
from sandbox.tests.escapes.conftest import Arena
from sandbox.tests.escapes.test_forgery import assert_well_formed

pytestmark = pytest.mark.anyio

SHORT = Limits(timeout_s=0.4, tool_wait_s=0.4, cpu_s=0.15, max_tool_calls=200, max_parallel_calls=8)

# --- past the helpers; where there is no wit_world, the import fails and nothing was lost

RAW = {
    "an id that comes back after its answer": (
        "for i in range(20):\n    w.submit(7, 't.echo', '[[1],{}]')\n    w.poll(-1)\nw.submit(7, 't.echo', '[[2],{}]')\nw.poll(-1)"
    ),
    "the greatest id": "w.submit(2**32 - 1, 't.echo', '[[1],{}]')\nw.poll(-1)",
    "an id while its answer waits": (
        "w.submit(1, 't.echo', '[[1],{}]')\nw.call('t.echo', '[[2],{}]')\nw.submit(1, 't.echo', '[[3],{}]')\nw.poll(-1)"
    ),
    "ids in the wrong order": "for i in (5, 3, 4, 1, 2):\n    w.submit(i, 't.echo', '[[%d],{}]' % i)\n[w.poll(10) for _ in range(5)]",
    "the id of a synchronous call": "w.submit(4294967295, 't.never', '[[],{}]')\nw.call('@cancel', '4294967295')\nw.call('t.echo', '[[1],{}]')",
    "cancelling what was never there": "[w.call('@cancel', str(i)) for i in range(1000)]",
    "cancelling twice": (
        "w.submit(1, 't.never', '[[],{}]')\nw.call('@cancel', '1')\nw.call('@cancel', '1')\nw.poll(-1)\nw.call('@cancel', '1')\nw.poll(0)"
    ),
    "cancelling and asking again": (
        "for i in range(50):\n    w.submit(1, 't.never', '[[],{}]')\n    w.call('@cancel', '1')\n    w.poll(-1)"
    ),
    "an id over 32 bits for the cancelling": "w.call('@cancel', '9999999999')",
    "cancelling with a sign": "w.call('@cancel', '+1')",
    "cancelling with an underscore": "w.submit(11, 't.never', '[[],{}]')\nw.call('@cancel', '1_1')",
    "cancelling by submit": "w.submit(1, '@cancel', '1')\nw.poll(-1)",
    "a flood of submits": "for i in range(1, 5000):\n    w.submit(i, 't.never', '[[],{}]')\n",
    "a flood of refused submits": ("for i in range(1, 100000):\n    w.submit(i, 't.echo', 'x')\n"),
    "a flood of polls": "while True:\n    w.poll(0)",
    "a flood of lists of tools": "while True:\n    w.call('@tools', '[[\"t\"],{}]')",
    "a flood of empty output": "while True:\n    w.emit(1, '')",
    "a flood of cancels": "while True:\n    w.call('@cancel', '5')",
    "polling without end for nothing": "w.poll(-(2**63))",
    "polling for ages": "w.poll(2**63 - 1)",
    "polling for a time that is none": "w.poll(1.5)",
    "polling over 64 bits": "w.poll(2**63)",
    "output to odd descriptors": "for fd in (0, 3, 4, 127, 255):\n    w.emit(fd, 'x')\nw.emit(256, 'x')",
    "output to a descriptor that is none": "w.emit(-1, 'x')",
    "output that is no text": "w.emit(1, b'x')",
    "output of half a surrogate": "w.emit(1, '\\ud800')",
    "a name of half a surrogate": "w.call('t.\\ud800', '[[],{}]')",
    "arguments of half a surrogate": "w.call('t.echo', '[[\"\\ud800\"],{}]')",
    "an answer inside the arguments": "w.call('t.echo', '[[1],{}]\\n1:5 2:5\\n+null+null')",
    "a name that is a frame": "w.submit(1, '1:5\\n+null', '[[],{}]')\nw.poll(-1)",
    "arguments that repeat a key": "w.call('t.echo', '[[],{\"value\":1,\"value\":2}]')",
    "arguments with a byte order mark": "w.call('t.echo', '\\ufeff[[1],{}]')",
    "arguments with a number without end": "w.call('t.echo', '[[' + '9' * 100000 + '],{}]')",
    "arguments with a float without end": "w.call('t.echo', '[[1e' + '9' * 1000 + '],{}]')",
    "arguments in a nest": "w.call('t.echo', '[[' + '[' * 900 + ']' * 900 + '],{}]')",
    "arguments in a nest of dicts": "w.call('t.echo', '[[],{\"value\":' + '{\"a\":' * 5000 + '1' + '}' * 5000 + '}]')",
    "host helpers with odd arguments": (
        "[w.call(n, a) for n in ('@tools', '@load', '@bytes') for a in ('[[],{}]', '[[null],{}]', '[[[]],{}]', "
        "'[[{}],{}]', '[[1e999],{}]', '[[1,2,3],{\"x\":1}]', '[[\"\\\\ud800\"],{}]')]"
    ),
    "a host helper for another server": "w.call('@tools', '[[\"victim\"],{}]')",
    "the program inside the program": (
        'import mcpgate_guest.program as p\np.run(\'t.echo(1)\', \'{"servers": ["t", "victim"]}\')\n'
        "p.run('victim.secret()', '{\"servers\": [\"victim\"]}')"
    ),
    "the exported function called from within": "w.WitWorld().run('1', '{}')",
    "waking the warm-up again": "import mcpgate_guest.program as p\n[p.run('', '{\"warm\": true}'), p.run('', '{\"stdlib\": true}')]",
    "answers that nobody fetches": "for i in range(1, 100):\n    w.submit(i, 't.rows', '[[1000],{}]')\nw.call('t.echo', '[[1],{}]')",
}


@pytest.mark.parametrize("code", RAW.values(), ids=RAW.keys())
async def test_the_raw_functions_give_no_more_than_the_helpers(code: str, arena: Arena) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _, context: None)
    async with asyncio.timeout(20):
        host = Host()
        host.kept["r1"] = "kept"
        outcome = await arena.repels("import wit_world as w\n" + code, host=host, limits=SHORT)
        assert_well_formed(outcome)
        assert outcome.notes == ()
        if host.calls:
            await host.idle.wait()
    assert len(host.calls) <= SHORT.max_tool_calls
    assert host.most_in_flight <= SHORT.max_parallel_calls
    assert {name for name, _, _ in host.calls} <= {
        "t.echo",
        "t.never",
        "t.rows",
        "t.\ufffd",
        "t.?",
        "@cancel.",
        "1:5\n+null.",
    }
    assert set(host.finished) <= {"t.echo", "t.rows"}
    # What was asked for and never answered does not go on after the end.
    assert host.in_flight == 0 and len(host.cancelled) == sum(name == "t.never" for name, _, _ in host.calls)


async def test_an_id_used_twice_ends_the_execution_and_what_it_started(arena: Arena) -> None:
    host = Host()
    code = "import wit_world as w\nw.submit(1, 't.never', '[[],{}]')\nw.submit(1, 't.never', '[[],{}]')\nprint('still here')"
    outcome = await arena.repels(code, host=host, limits=SHORT)
    assert "still here" not in outcome.stdout and outcome.error is not None
    assert isinstance(outcome.error, CodeFailed) or outcome.error.limit == "protocol"  # type: ignore[union-attr]


# --- with the helpers alone

TRAFFIC = {
    "calls that nobody waits for": "k = []\nasync def f():\n    for i in range(500):\n        k.append(t.never())\n    await t.echo(1)\nawait f()\n1 / 0",
    "a call cancelled as it leaves": (
        "import asyncio\nasync def f():\n    x = asyncio.create_task(g())\n    await asyncio.sleep(0)\n    x.cancel()\n"
        "    return 1\nasync def g():\n    return await t.never()\nfor i in range(100):\n    await f()\nawait t.echo(1)"
    ),
    "given up at once, again and again": (
        "import asyncio\nasync def g():\n    return await t.never()\nfor i in range(30):\n    try:\n"
        "        await asyncio.wait_for(g(), 0.001)\n    except asyncio.TimeoutError:\n        pass\nawait t.echo(1)"
    ),
    "shielded from being given up": (
        "import asyncio\nasync def g():\n    return await t.never()\ntry:\n    await asyncio.wait_for(asyncio.shield(g()), 0.01)\n"
        "except asyncio.TimeoutError:\n    pass\n1 / 0"
    ),
    "text that looks like frames, both ways": (
        "[t.echo(x) == x for x in ('1:5 2:7\\n+1', '\\n', '-{}', '*[]', '\"', '{\"result\": 1}', '\\x00\\x01\\x02\\x03', '[1, 2]\\n', '@cancel 1')]"
    ),
    "printed text that looks like frames": (
        "for x in ('{\"result\": 1}', '{\"id\": 1, \"ok\": true}', '1:5\\n+null', '\\x00\\x00\\x00\\x05hello', '[\"result\", 1]', '@cancel'):\n    print(x)\n7"
    ),
    "lengths that lie": (
        "class S(str):\n    def __len__(self):\n        return 10 ** 9\n[t.echo(S('abc')), t.echo([S('x')])]"
    ),
    "one answer for two": "async def f():\n    p = t.echo(1)\n    return [await p, await p]\nawait f()",
    "a thousand little calls": "[t.echo(i) for i in range(1000)]",
    "calls from within an answer's error": (
        "def again(n):\n    try:\n        t.fail(str(n))\n    except ToolError:\n        again(n + 1)\nagain(0)"
    ),
}


@pytest.mark.parametrize("code", TRAFFIC.values(), ids=TRAFFIC.keys())
async def test_traffic_stays_within_the_limits_and_in_its_own_lane(code: str, arena: Arena) -> None:
    async with asyncio.timeout(20):
        host = Host()
        outcome = await arena.repels(code, host=host, limits=SHORT)
        assert_well_formed(outcome)
        if host.calls:
            await host.idle.wait()
    assert len(host.calls) <= SHORT.max_tool_calls and host.most_in_flight <= SHORT.max_parallel_calls
    assert host.in_flight == 0 and "t.never" not in host.finished
    if isinstance(outcome.result, list) and all(type(x) is bool for x in outcome.result):
        assert all(outcome.result)


async def test_every_answer_comes_to_the_call_that_asked(arena: Arena) -> None:
    """Answers come in an order that the tool chooses; nobody gets another's."""
    gates: dict[int, asyncio.Event] = {n: asyncio.Event() for n in range(8)}
    arrived = asyncio.Event()

    async def ask(n: int) -> Any:
        if sum(gate.is_set() for gate in gates.values()) == 0 and n == 7:
            arrived.set()
            gates[7].set()
        await gates[n].wait()
        if n:
            gates[n - 1].set()
        return {"n": n, "text": f"{n}:5\n+null" * n}

    code = (
        "import asyncio\nasync def ask(n):\n    v = await t.ask(n)\n    return [v['n'], len(v['text'])]\n"
        "await asyncio.gather(ask(0), ask(1), ask(2), ask(3), ask(4), ask(5), ask(6), ask(7))"
    )
    outcome = await arena.repels(code, {"t.ask": ask}, limits=SHORT)
    if outcome.error is None:
        assert outcome.result == [[n, len(f"{n}:5\n+null" * n)] for n in range(8)]
    else:
        assert isinstance(outcome.error, (CodeFailed, LimitReached))
