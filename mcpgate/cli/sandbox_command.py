"""`mcpgate sandbox build|test`: upkeep of the sandbox."""

import argparse
import asyncio
import importlib.util
from pathlib import Path
from typing import Any

from mcpgate.cli import console
from mcpgate.errors import ConfigError
from mcpgate_sandbox import component
from mcpgate_sandbox.engine import Execution, Limits
from mcpgate_sandbox.wasm import WasmEngine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("build", "test"), help="build the Wasm component, or try what it promises")


def run(arguments: argparse.Namespace) -> int:
    return _build() if arguments.action == "build" else asyncio.run(_test())


def _build() -> int:
    recipe = Path(component.__file__).with_name("recipe.py")
    spec = importlib.util.spec_from_file_location("mcpgate_guest_recipe", recipe)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        print(module.build())
    except (RuntimeError, OSError) as error:
        raise ConfigError(str(error)) from error
    return 0


_PROMISES: list[tuple[str, str, Limits, Any]] = [
    ("runs code", "sum(range(10))", Limits(), lambda o: o.result == 45),
    ("has no files", "import os\nos.listdir('/')", Limits(), lambda o: o.error is not None),
    ("has no network", "import socket\nsocket.socket()", Limits(), lambda o: o.error is not None),
    ("has no environment", "import os\nlen(os.environ)", Limits(), lambda o: o.result == 0),
    ("starts no processes", "import subprocess\nsubprocess.run(['id'])", Limits(), lambda o: o.error is not None),
    (
        "ends endless loops",
        "while True:\n    pass",
        Limits(cpu_s=0.3),
        lambda o: getattr(o.error, "limit", "") == "cpu_s",
    ),
    (
        "ends waiting",
        "import time\ntime.sleep(9)",
        Limits(timeout_s=0.3),
        lambda o: getattr(o.error, "limit", "") == "timeout_s",
    ),
    ("bounds memory", "x = 'a' * 10**9", Limits(), lambda o: getattr(o.error, "limit", "") == "memory_mib"),
]


async def _test() -> int:
    async def no_tools(*_: object) -> None:
        raise AssertionError("no tools here")

    engine = WasmEngine(warm=1)
    status = console.Status()
    engine.start(status)
    await engine.ready()
    status.clear()
    failed = 0
    for promise, code, limits, holds in _PROMISES:
        outcome = await engine.run(Execution(code, (), no_tools, lambda *_: None, limits))
        fine = bool(holds(outcome))
        failed += not fine
        print(f"{console.styled('ok', 'green') if fine else console.styled('FAILED', 'red')}  {promise}")
    await engine.aclose()
    return 1 if failed else 0
