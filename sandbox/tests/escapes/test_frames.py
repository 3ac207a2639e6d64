"""Frames: from a traceback, a generator or a coroutine to the variables of whoever called."""

import pytest

from sandbox.tests.escapes.conftest import Arena

pytestmark = pytest.mark.anyio

FRAMES = {
    # CVE-2023-37271, RestrictedPython < 6.1: generators gave their frame away.
    "a generator's frame": (
        "def g():\n    yield g.gi_frame.f_back.f_back.f_builtins\ng = g()\nb = [x for x in g][0]\n"
        "print('REACHED')\nprint(b['open']('@SECRET@').read())"
    ),
    "a traceback's frame": (
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    f = e.__traceback__.tb_frame\n"
        "    print('REACHED')\n    while f:\n        print(f.f_globals.get('os'), f.f_builtins['open']('@SECRET@').read())\n"
        "        f = f.f_back"
    ),
}


@pytest.mark.parametrize("code", FRAMES.values(), ids=FRAMES.keys())
async def test_no_frame_leads_out(code: str, arena: Arena) -> None:
    await arena.repels(code)
