"""What programs may do holds on every engine; and what several of these files need."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mcpgate_sandbox.engine import Engine, Limits

Value = Callable[..., Awaitable[Any]]

SHORT = Limits(timeout_s=5, cpu_s=5)
"""For calls that meet at a barrier: if they do not overlap, nobody ever arrives there."""


@pytest.fixture
def engine(any_engine: Engine) -> Engine:
    """Each engine in turn."""
    return any_engine


def meeting(parties: int) -> Callable[[Any], Awaitable[Any]]:
    """A tool that answers nobody before all parties have called it."""
    barrier = asyncio.Barrier(parties)

    async def meet(value: Any = None) -> Any:
        await barrier.wait()
        return value

    return meet
