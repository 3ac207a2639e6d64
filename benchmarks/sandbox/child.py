"""What a plain `python -I` runs in the benchmark: programs from stdin, tool calls over stdout, one JSON line each.

It isolates nothing. It is the minimum that a subprocess needs to do the same work: `t_x` awaitable, `t_x_now` not.
"""

import ast
import io
import json
import os
import sys

TOOLS = ("rows", "echo", "add", "fail", "wait", "big")
_IN = 0
_out = sys.stdout.buffer
_buffer = bytearray()
_futures = {}
_loop = None


class ToolError(Exception):
    def __init__(self, message):
        super().__init__(message)
        self.message = message


def _send(**message):
    _out.write(json.dumps(message).encode() + b"\n")
    _out.flush()


def _fill():
    data = os.read(_IN, 1 << 20)
    if not data:
        sys.exit()
    _buffer.extend(data)


def _receive():
    while (end := _buffer.find(b"\n")) < 0:
        _fill()
    line = bytes(_buffer[:end])
    del _buffer[: end + 1]
    return json.loads(line)


def _unpack(answer):
    if "error" in answer:
        raise ToolError(answer["error"])
    return answer["value"]


def _plain(name):
    def call(**arguments):
        _send(id=0, tool=name, arguments=arguments)
        return _unpack(_receive())

    return call


def _awaitable(name):
    async def call(**arguments):
        import asyncio

        global _loop
        loop = asyncio.get_running_loop()
        if loop is not _loop:
            _loop = loop
            loop.add_reader(_IN, _arrived)
        number = len(_futures) + 1
        _futures[number] = future = loop.create_future()
        _send(id=number, tool=name, arguments=arguments)
        return _unpack(await future)

    return call


def _arrived():
    _fill()
    while b"\n" in _buffer:
        answer = _receive()
        if not _futures[answer["id"]].done():
            _futures[answer["id"]].set_result(answer)


def _run(code):
    tree = ast.parse(code)
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        tree.body[-1] = ast.copy_location(
            ast.Assign([ast.Name("__result__", ast.Store())], tree.body[-1].value), tree.body[-1]
        )
    compiled = compile(ast.fix_missing_locations(tree), "<code>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    pending = eval(compiled, _namespace)
    if pending is not None:
        import asyncio

        asyncio.run(pending)
    return _namespace.get("__result__")


_namespace = {"__name__": "__main__", "ToolError": ToolError}
for _tool in TOOLS:
    _namespace[f"t_{_tool}"], _namespace[f"t_{_tool}_now"] = _awaitable(_tool), _plain(_tool)
sys.modules["__main__"].__dict__.update(_namespace)
_namespace = sys.modules["__main__"].__dict__
while True:
    _code = _receive()["code"]
    sys.stdout = io.StringIO()
    _namespace.pop("__result__", None)
    try:
        _send(result=_run(_code), stdout=sys.stdout.getvalue())
    except Exception as _error:
        _send(failed=f"{type(_error).__name__}: {_error}")
