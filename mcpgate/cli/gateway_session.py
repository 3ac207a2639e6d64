"""A gateway for the length of one command."""

import argparse
import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from mcpgate.app import running
from mcpgate.cli.console import Status
from mcpgate.config.files import NoConfig, find_config, load_config
from mcpgate.config.settings import Config
from mcpgate.gateway import Gateway
from mcpgate.upstream.pool import UpstreamPool

T = TypeVar("T")


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        help="configuration file (default: mcpgate.yaml in this folder or in the user's config folder)",
    )


def config_or_default(path: str | None) -> Config:
    """The configuration for commands that only need its store: without any file the default one is meant."""
    try:
        return load_config(find_config(path), tolerant=True)
    except NoConfig:
        return Config()


def add_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=("text", "json"), default="text", help="what to print (default: text)")


@asynccontextmanager
async def opened(
    arguments: argparse.Namespace, wait: bool, with_engine: bool, once: bool = False
) -> AsyncIterator[Gateway]:
    """The gateway of the command's configuration, with every upstream connected or failed if `wait`; with `once` a
    failed one is not tried again."""
    config = load_config(find_config(arguments.config), tolerant=True)
    status = Status()
    try:
        async with _only_our_errors(status), running(config, status, with_engine=with_engine) as gateway:
            if once:
                _give_up_what_fails(gateway.pool)
            if wait:
                waiting = asyncio.ensure_future(gateway.pool.settled(timeout_s=300))
                while not waiting.done():
                    views = gateway.pool.views()
                    names = [view.name for view in views if view.state == "connecting"]
                    status(f"connecting {len(names)} of {len(views)}: {', '.join(names)}")
                    await asyncio.wait((waiting,), timeout=0.3)
                await asyncio.sleep(0)  # let the catalog be rebuilt
            status.clear()
            gateway.savings.for_models = False
            yield gateway
    finally:
        status.clear()


@asynccontextmanager
async def _only_our_errors(status: Status) -> AsyncIterator[None]:
    """Keep the log lines of libraries away from the terminal; errors of our own get a line of their own there."""

    class Lines(logging.StreamHandler):  # type: ignore[type-arg]
        def emit(self, record: logging.LogRecord) -> None:
            status.clear()
            super().emit(record)

    ours, root, quiet, lines = logging.getLogger("mcpgate"), logging.getLogger(), logging.NullHandler(), Lines()
    level = ours.level
    ours.setLevel(logging.ERROR)
    ours.addHandler(lines)
    root.addHandler(quiet)  # without any handler, Python would print them itself
    try:
        yield
    finally:
        ours.setLevel(level)
        ours.removeHandler(lines)
        root.removeHandler(quiet)


def _give_up_what_fails(pool: UpstreamPool) -> None:
    """End an upstream's task when it has failed, before it tries again."""
    given_up: dict[str, asyncio.Task[None]] = {}

    def end_failed() -> None:
        for view in pool.views():
            if view.state == "failed" and view.name not in given_up:
                given_up[view.name] = asyncio.create_task(pool.get(view.name).aclose())

    pool.on_change(end_failed)
    end_failed()


def run_with_gateway(
    arguments: argparse.Namespace,
    work: Callable[[Gateway], Awaitable[T]],
    *,
    wait: bool = True,
    with_engine: bool = False,
    once: bool = False,
) -> T:
    """Run `work` against a gateway that lives as long as it; see `opened`."""

    async def main() -> T:
        async with opened(arguments, wait, with_engine, once) as gateway:
            return await work(gateway)

    return asyncio.run(main())
