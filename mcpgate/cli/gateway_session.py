"""A gateway for the duration of one command."""

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

T = TypeVar("T")


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c", "--config", metavar="FILE", help="configuration (default: mcpgate.yaml here or in the user's folder)"
    )


def config_or_default(path: str | None) -> Config:
    """The configuration for commands that only need its store; without a file, the defaults."""
    try:
        return load_config(find_config(path), tolerant=True)
    except NoConfig:
        return Config()


def add_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=("text", "json"), default="text", help="what to print (default: text)")


@asynccontextmanager
async def opened(arguments: argparse.Namespace, wait: bool, with_engine: bool) -> AsyncIterator[Gateway]:
    """The gateway of the command's configuration; with `wait`, after every upstream has connected or failed."""
    config = load_config(find_config(arguments.config), tolerant=True)
    logging.getLogger("mcpgate").setLevel(logging.ERROR)
    status = Status()
    try:
        async with running(config, status, with_engine=with_engine) as gateway:
            if wait:
                waiting = asyncio.ensure_future(gateway.pool.settled(timeout_s=300))
                while not waiting.done():
                    names = [view.name for view in gateway.pool.views() if view.state == "connecting"]
                    status(f"connecting: {', '.join(names)}")
                    await asyncio.wait((waiting,), timeout=0.3)
                await asyncio.sleep(0)  # let the catalog be rebuilt
            status.clear()
            gateway.savings.for_models = False
            yield gateway
    finally:
        status.clear()


def run_with_gateway(
    arguments: argparse.Namespace,
    work: Callable[[Gateway], Awaitable[T]],
    *,
    wait: bool = True,
    with_engine: bool = False,
) -> T:
    """Run `work` with a gateway that lives as long as it does."""

    async def main() -> T:
        async with opened(arguments, wait, with_engine) as gateway:
            return await work(gateway)

    return asyncio.run(main())
