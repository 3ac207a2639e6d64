"""Runs programs before the snapshot is taken, so that it holds what a first one would allocate, look up and specialise:
every page that an instance has to write is a page copied from the snapshot. Build time only."""

import json
from typing import Any

import wit_world

from mcpgate_guest import program

_PROGRAMS = (
    "1000 + 1",
    "return {'a': [1, 2.5, None, True, 'x']}",
    "print('a', 2, [1, {'b': 3}])",
    "text = server.tool(a=1, b='x')\nint(text.rstrip('.').split()[-1])",
    "total = 0\nfor i in range(3):\n    total += len(server.tool(i=i))\ntotal",
    "import asyncio\ntexts = await asyncio.gather(*[server.tool(i=i) for i in range(3)])\nsum(len(t) for t in texts)",
    "import json, re, math, datetime, collections\n"
    "def f(x):\n    return x * 2\nclass A:\n    def __init__(self):\n        self.v = f(2)\n"
    "[{'v': A().v, 'm': re.sub('a', 'b', json.dumps({'a': 1}))} for _ in range(3)]",
    "raise ValueError('x')",
    "1 +",
)
_ROUNDS = 12
"""The interpreter specialises what it has seen this often."""


class _Host:
    """Stands in for the host, whose functions cannot be called yet: every tool answers `The sum is 5.`"""

    def __init__(self) -> None:
        self._submitted: list[int] = []

    def submit(self, id: int, name: str, arguments: str) -> None:
        self._submitted.append(id)

    def poll(self, timeout_ms: int) -> str:
        ids, self._submitted = self._submitted, []
        answer = '"The sum is 5.'
        return f"{' '.join(f'{id}:{len(answer)}' for id in ids)}\n{answer * len(ids)}"

    def call(self, name: str, arguments: str) -> str:
        return '+{"tool":"tool"}' if name == "@tools" else '"The sum is 5.'

    def emit(self, fd: int, text: str) -> None:
        pass


def run() -> None:
    host: Any = _Host()
    border = {name: getattr(wit_world, name) for name in ("submit", "poll", "call", "emit")}
    for name in border:
        setattr(wit_world, name, getattr(host, name))
    options = json.dumps({"servers": ["server"], "mark": "$handle:0123456789abcdef"})
    for _ in range(_ROUNDS):
        for code in _PROGRAMS:
            program.run(code, options)
    for name, function in border.items():
        setattr(wit_world, name, function)
    program.seal()
