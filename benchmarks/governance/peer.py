"""Measures one peer, in its own process and virtual environment. Imports nothing from this checkout.

    python peer.py NAME REQUESTS REDIS_URL PREFIX

Prints {"p50_us", "p99_us", "per_s", "cpu_us"}: one caller, one counter, nothing refused.
"""

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

Admit = Callable[[], Awaitable[object]]
_WARM_UP = 200


def _limits(strategy: str, place: str) -> Callable[[str, str], Awaitable[Admit]]:
    async def make(url: str, prefix: str) -> Admit:
        from limits import RateLimitItemPerHour
        from limits.aio import storage, strategies

        kept = (
            storage.MemoryStorage()
            if place == "memory"
            else storage.RedisStorage(f"async+{url}", implementation="redispy", key_prefix=prefix)
        )
        limiter = getattr(strategies, strategy)(kept)
        item = RateLimitItemPerHour(1_000_000)
        return lambda: limiter.hit(item, "key")

    return make


def _pyrate(place: str) -> Callable[[str, str], Awaitable[Admit]]:
    async def make(url: str, prefix: str) -> Admit:
        from pyrate_limiter import Duration, InMemoryBucket, Limiter, Rate, RedisBucket

        rates = [Rate(1_000_000, Duration.HOUR)]
        if place == "memory":
            bucket: Any = InMemoryBucket(rates)
        else:
            from redis.asyncio import Redis

            bucket = await RedisBucket.init(rates, Redis.from_url(url), prefix)
        limiter = Limiter(bucket)
        return lambda: limiter.try_acquire_async("key", blocking=False)

    return make


async def _litellm(url: str, prefix: str) -> Admit:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    from litellm.caching.dual_cache import DualCache
    from litellm.router_strategy.budget_limiter import RouterBudgetLimiting
    from litellm.types.utils import BudgetConfig

    limiting = RouterBudgetLimiting(DualCache(), {"openai": BudgetConfig(max_budget=9e6, budget_duration="1d")})
    deployment = {
        "model_name": "gpt",
        "litellm_params": {"model": "openai/gpt-4o", "api_key": "none"},
        "model_info": {"id": "one"},
    }
    seen = {"response_cost": 0.001, "model_id": "one", "custom_llm_provider": "openai"}
    spent = {"standard_logging_object": seen}

    async def admit() -> None:
        found = await limiting.async_filter_deployments("gpt", [deployment], None, {})
        assert found
        await limiting.async_log_success_event(spent, None, None, None)

    await admit()
    spend = await limiting._get_current_provider_spend("openai")
    assert spend, "nothing was counted"
    return admit


PEERS: dict[str, Callable[[str, str], Awaitable[Admit]]] = {
    "limits-memory": _limits("MovingWindowRateLimiter", "memory"),
    "limits-counter-memory": _limits("SlidingWindowCounterRateLimiter", "memory"),
    "limits-redis": _limits("MovingWindowRateLimiter", "redis"),
    "limits-counter-redis": _limits("SlidingWindowCounterRateLimiter", "redis"),
    "pyrate-memory": _pyrate("memory"),
    "pyrate-redis": _pyrate("redis"),
    "litellm": _litellm,
}


async def main(name: str, requests: int, url: str, prefix: str) -> None:
    admit = await PEERS[name](url, prefix)
    spans = []
    for _ in range(_WARM_UP):
        await admit()
    gc.collect()
    cpu, start = time.process_time(), time.perf_counter()
    for _ in range(requests):
        began = time.perf_counter()
        admitted = await admit()
        spans.append(time.perf_counter() - began)
        assert admitted is not False
    took, cpu = time.perf_counter() - start, time.process_time() - cpu
    spans.sort()
    print(
        json.dumps(
            {
                "p50_us": spans[len(spans) // 2] * 1e6,
                "p99_us": spans[int(len(spans) * 0.99)] * 1e6,
                "per_s": requests / took,
                "cpu_us": cpu / requests * 1e6,
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]))
