"""Answers that are recorded while a client reads them, and others wait for them."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from mcpgate.api.llm.reading import read_asked
from mcpgate.cache.cache import Cache, Hit, Miss
from mcpgate.config.settings import Config, Settings
from mcpgate.governance.callers import Caller
from mcpgate.governance.records import Usage
from mcpgate.llm import cached
from mcpgate.llm.attempt import Streamed
from mcpgate.llm.routing import Target
from mcpgate.stores.cache import MemoryCache
from mcpgate.stores.tokens import MemoryTokens

pytestmark = pytest.mark.anyio
EVENTS = [
    b'data: {"choices": [{"index": 0, "delta": {"content": "Hi"}}]}\n\n',
    b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n',
]


async def events() -> AsyncIterator[bytes]:
    for event in EVENTS:
        yield event


async def test_nobody_waits_for_a_client_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached, "_SLOWEST_READ_S", 0.05)
    settings = Settings(Config())
    cache = Cache(settings, MemoryCache(1 << 20), MemoryTokens())
    answers = cached.CachedAnswers(cache, settings)
    asked = read_asked("chat", b'{"model": "m", "temperature": 0, "messages": []}', {}, "")
    target, caller = Target("open", "m"), Caller()
    question = await answers.question(caller, asked, "m", target)
    assert question is not None
    first = await answers.find(question)
    assert isinstance(first, Miss)
    admission: Any = SimpleNamespace(outcome="ok", usage=Usage(), price=lambda: 0)
    recorder = answers.recorder(question, first, caller, asked)
    what = recorder.answered(Streamed(events(), lambda error: (), False), "m", target, admission)
    assert isinstance(what, Streamed)
    reading = what.events.__aiter__()
    await anext(reading)  # and then nothing
    async with asyncio.timeout(30):
        second = await answers.find(question)
    assert isinstance(second, Miss)  # its turn to ask
    assert [event async for event in reading] == EVENTS[1:]  # at last
    await cache.has(question.id)
    assert isinstance(await answers.find(question), Hit)
    second.land(cached.Outcome.NOT_KEPT)
