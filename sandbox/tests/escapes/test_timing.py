"""Time and chance: clocks tell the time and cannot be set, and what one guest draws by lot tells nothing of another's.
Finer channels (caches, the timing of the machine) are not promised to be closed."""

import asyncio
import time
from typing import Any

import pytest

from mcpgate_sandbox.engine import Limits
from mcpgate_sandbox.errors import CodeFailed
from sandbox.tests.escapes.conftest import Arena
from sandbox.tests.escapes.test_forgery import assert_well_formed

pytestmark = pytest.mark.anyio

SHORT = Limits(timeout_s=3, tool_wait_s=3, cpu_s=0.5)

LOTS = {
    "random": "import random\n[random.random(), random.getrandbits(64), random.randint(0, 10 ** 18)]",
    "a generator of one's own": "import random\n[random.Random().random(), random.Random(None).getrandbits(64)]",
    "the system's generator": "import random\n[random.SystemRandom().random()]",
    "the state of the generator": "import random\n[str(random.getstate())[:200]]",
    "a shuffle": "import random\nx = list(range(100))\nrandom.shuffle(x)\n[str(x)]",
    "secrets": "import secrets\n[secrets.token_hex(8), secrets.randbelow(10 ** 18)]",
    "urandom": "import os\n[os.urandom(8).hex()]",
    "a UUID": "import uuid\n[str(uuid.uuid4())]",
    "a UUID of time": "import uuid\n[str(uuid.uuid1())]",
    "a name for a file": "import tempfile\n[next(tempfile._get_candidate_names())]",
    "a password's salt": "import crypt\n[crypt.mksalt()]",
}


@pytest.mark.parametrize("name", LOTS)
async def test_no_two_guests_draw_the_same_lot(name: str, arena: Arena) -> None:
    drawn: list[Any] = []
    for _ in range(4):
        outcome = await arena.repels(LOTS[name], limits=SHORT)
        if outcome.error is not None:
            assert isinstance(outcome.error, CodeFailed)
            return
        drawn += outcome.result
    assert len(set(map(repr, drawn))) == len(drawn), drawn


async def test_seeding_in_one_session_seeds_no_other(arena: Arena) -> None:
    code = "import random\nrandom.seed(1)\nrandom.random()"
    first, other = [
        await arena.run(c, session=f"seed/{n}") for n, c in enumerate([code, "import random\nrandom.random()"])
    ]
    assert first.result != other.result


CLOCKS = {
    "setting the clock": "import time\ntime.clock_settime(0, 0)\ntime.clock_settime_ns(0, 10 ** 18)",
    "setting the zone": "import os, time\nos.environ['TZ'] = 'XXX+12'\ntime.tzset()",
    "patching the clock": "import time\ntime.time = time.monotonic = time.sleep = lambda *a: 0\ntime.sleep(10 ** 9)",
    "asking every clock": (
        "import time\nr = []\nfor n in ('time', 'monotonic', 'perf_counter', 'process_time', 'thread_time'):\n"
        "    r.append([str(time.get_clock_info(n)), getattr(time, n)()])\nr"
    ),
    "the times of processes": "import os, resource\n[os.times(), resource.getrusage(resource.RUSAGE_CHILDREN), resource.getrusage(0)]",
    "the load of the machine": "import os\nos.getloadavg()",
    "the machine": "import platform, os\n[platform.node(), platform.uname(), os.cpu_count(), os.getpid(), os.getppid()]",
    "the uptime": "open('/proc/uptime').read(), open('/proc/loadavg').read()",
    "the timer of the kernel": "import select\nselect.select([], [], [], 10 ** 6)",
    "an alarm": "import signal\nsignal.setitimer(signal.ITIMER_PROF, 0.001)\nwhile True:\n    pass",
    "a negative sleep": "import time\ntime.sleep(-1)",
    "a sleep that is no number": "import time\ntime.sleep(float('nan'))",
    "a sleep without end": "import asyncio\nawait asyncio.sleep(float('inf'))",
    "a timer in the past": "import asyncio\nl = asyncio.get_running_loop()\nl.call_at(-10 ** 9, print, 'x')\nawait asyncio.sleep(0)\n1",
    "a patient loop": "import asyncio\nl = asyncio.get_running_loop()\nl.time = lambda: 0.0\nawait asyncio.sleep(0.1)",
    "a clock by counting": "import time\nn = 0\ne = time.perf_counter() + 0.05\nwhile time.perf_counter() < e:\n    n = n + 1\nn > 0",
}


@pytest.mark.parametrize("code", CLOCKS.values(), ids=CLOCKS.keys())
async def test_clocks_only_tell_the_time(code: str, arena: Arena) -> None:
    before, wall = time.time() - time.monotonic(), time.monotonic()
    outcome = await arena.repels(code, limits=Limits(timeout_s=0.5, tool_wait_s=0.5, cpu_s=0.2))
    assert_well_formed(outcome)
    assert abs(time.time() - time.monotonic() - before) < 0.5 and time.monotonic() - wall < 5


async def test_a_limit_is_kept_by_the_hosts_clock_not_by_the_guests(arena: Arena) -> None:
    code = "import time\ntime.monotonic = time.time = time.perf_counter = lambda: 0.0\nwhile True:\n    pass"
    began = time.monotonic()
    outcome = await arena.repels(code, limits=Limits(timeout_s=2, cpu_s=0.2))
    assert time.monotonic() - began < 3 and outcome.error is not None


async def test_an_idle_guest_sees_nothing_of_a_busy_neighbour_but_the_time(arena: Arena) -> None:
    """What it can count of its own (allocations, objects, its own CPU time) stays still while another works."""
    count = "import gc, sys\n[len(gc.get_objects()), len(sys.modules)]"
    first = await arena.run(count, session="idle/one")
    await asyncio.gather(
        *[arena.run("x = [[i] for i in range(10000)]\nimport decimal\nlen(x)", session=f"busy/{n}") for n in range(3)]
    )
    again = await arena.run(count, session="idle/one")
    if first.error is None and again.error is None:
        assert abs(again.result[0] - first.result[0]) < 500 and again.result[1] == first.result[1]
    await arena.unharmed()


async def test_waiting_guests_take_no_cpu_time(arena: Arena) -> None:
    outcome = await arena.repels("import asyncio\nawait asyncio.sleep(0.2)\n1", limits=SHORT)
    assert outcome.result == 1 and outcome.cpu_s < 0.15
