"""`mcpgate sandbox build|test`: maintains the sandbox."""

import argparse
import asyncio
import importlib.util
from pathlib import Path
from typing import Any

from mcpgate.app import make_engine
from mcpgate.cli import console
from mcpgate.config.settings import SandboxConfig
from mcpgate.errors import ConfigError, Unavailable
from mcpgate_sandbox import component
from mcpgate_sandbox.engine import Engine, Execution, Limits
from mcpgate_sandbox.errors import SandboxUnavailable

EXAMPLES = (
    "mcpgate sandbox test",
    "mcpgate sandbox test --isolation process",
    "mcpgate sandbox build",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("build", "test"), help="build the Wasm component, or test its guarantees")
    parser.add_argument("--engine", choices=("wasm", "restricted"), default="wasm", help="the engine to test")
    parser.add_argument("--isolation", choices=("none", "process"), default="none", help="where to run the engine")
    parser.add_argument(
        "--allow-unlocked", action="store_true", help="run even if the kernel cannot filter system calls"
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.action == "build":
        return _build()
    config = SandboxConfig(
        engine=arguments.engine, isolation=arguments.isolation, allow_unlocked=arguments.allow_unlocked, warm=1
    )
    return asyncio.run(_test(make_engine(config)))


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
    ("has no environment", "import os\nlen(os.environ)", Limits(), lambda o: not o.result),
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


async def _test(engine: Engine) -> int:
    async def no_tools(*_: object) -> None:
        raise AssertionError("no tools here")

    status = console.Status()
    engine.start(status)
    try:
        await engine.ready()
    except SandboxUnavailable as error:
        raise Unavailable(str(error)) from error
    finally:
        status.clear()
    print(f"engine {engine.name}; active isolation:")
    for lock in await engine.locks():
        print(f"  - {lock}")
    failed = 0
    for promise, code, limits, holds in _PROMISES:
        outcome = await engine.run(Execution(code, (), no_tools, lambda *_: None, limits))
        fine = bool(holds(outcome))
        failed += not fine
        print(f"{console.styled('ok', 'green') if fine else console.styled('FAILED', 'red')}  {promise}")
    await engine.aclose()
    return 1 if failed else 0
