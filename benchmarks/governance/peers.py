"""Peers that count or reserve, compared with us in the same run: packages that are installed with pip into their own
environment below MCPGATE_BENCH_DIR, and measured by peer.py in their own process."""

import asyncio
import gc
import json
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import asyncio as redis

from benchmarks.governance.admission import CALLER, ONE_CALL, gate_on, percentile
from benchmarks.governance.stores import REDIS, Opened, Store
from benchmarks.servers import cache_folder
from mcpgate.config.governance import GovernanceConfig, RateLimitRuleConfig
from mcpgate.governance.context import RequestContext
from mcpgate.governance.records import Refusal, Request, Reservation, new_id
from mcpgate.governance.rules import rate_limit_rules

_LIMIT = RateLimitRuleConfig.model_validate({"id": "all", "requests": 1_000_000, "window": "1h"})
_WARM_UP = 200


@dataclass(frozen=True)
class Peer:
    name: str
    """Key of peer.PEERS."""
    title: str
    does: str
    store: str
    """`memory` or `redis`: figures are divided by ours on the same store."""
    packages: tuple[str, ...]


_LIMITS = ("limits==5.8.0", "redis==8.1.0")
_PYRATE = ("pyrate-limiter==4.5.1", "redis==8.1.0")
PEERS = (
    Peer("limits-memory", "limits, moving window", "counts", "memory", _LIMITS),
    Peer("limits-counter-memory", "limits, sliding counter", "counts", "memory", _LIMITS),
    Peer("pyrate-memory", "pyrate-limiter", "counts", "memory", _PYRATE),
    Peer("litellm", "litellm's provider budget", "checks, adds up after", "memory", ("litellm==1.106.0",)),
    Peer("limits-redis", "limits, moving window", "counts", "redis", _LIMITS),
    Peer("limits-counter-redis", "limits, sliding counter", "counts", "redis", _LIMITS),
    Peer("pyrate-redis", "pyrate-limiter", "counts", "redis", _PYRATE),
)


@dataclass
class PeerFigures:
    title: str
    does: str
    store: str
    rounds: list[dict[str, float]] = field(default_factory=list)
    failure: str | None = None

    def of(self, name: str) -> float:
        return statistics.median(one[name] for one in self.rounds)


def _python_of(peer: Peer) -> Path:
    """Installs what is missing. Raises subprocess.CalledProcessError, OSError."""
    home = cache_folder() / "governance" / f"venv-{peer.packages[0].partition('=')[0]}"
    python, mark = home / "bin" / "python", home / "installed.json"
    if not mark.exists() or json.loads(mark.read_text()) != list(peer.packages):
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, capture_output=True)
        command = [str(python), "-m", "pip", "install", "--quiet", *peer.packages]
        subprocess.run(command, check=True, capture_output=True)
        mark.write_text(json.dumps(list(peer.packages)))
    return python


def _ask_peer(peer: Peer, requests: int, prefix: str) -> dict[str, float]:
    script = Path(__file__).with_name("peer.py")
    command = [str(_python_of(peer)), str(script), peer.name, str(requests), REDIS, prefix]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(" ".join(done.stderr.split()[-30:]))
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


async def _timed(admit: Callable[[], Awaitable[Any]], requests: int) -> dict[str, float]:
    spans = []
    for _ in range(_WARM_UP):
        await admit()
    gc.collect()
    cpu, start = time.process_time(), time.perf_counter()
    for _ in range(requests):
        began = time.perf_counter()
        await admit()
        spans.append((time.perf_counter() - began) * 1e6)
    took, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "p50_us": percentile(spans, 0.5),
        "p99_us": percentile(spans, 0.99),
        "per_s": requests / took,
        "cpu_us": cpu / requests * 1e6,
    }


async def _reserve(opened: Opened, requests: int) -> dict[str, float]:
    """Only the reservation, directly on the store: the counterpart of a limiter's hit."""
    async with gate_on(opened, GovernanceConfig()) as gate:
        (rule,) = rate_limit_rules(_LIMIT)

        async def admit() -> None:
            claim = rule.claim("key", time.time(), 1)
            answer = await opened.counters.reserve(Reservation(new_id("rq"), gate.owner, (claim,)))
            assert not isinstance(answer, Refusal)

        await opened.counters.restore(())
        return await _timed(admit, requests)


async def _admit(opened: Opened, requests: int) -> dict[str, float]:
    async with gate_on(opened, GovernanceConfig(rate_limits=(_LIMIT,))) as gate:

        async def admit() -> None:
            async with gate.admit(
                RequestContext(CALLER), Request("tool", "files", "read", estimate=ONE_CALL)
            ) as admission:
                admission.spent(ONE_CALL)

        return await _timed(admit, requests)


async def _forget(prefix: str) -> None:
    client: Any = redis.Redis.from_url(REDIS)
    async with client:
        keys = [key async for key in client.scan_iter(match=f"*{prefix}*", count=10_000)]
        if keys:
            await client.unlink(*keys)


async def measure_peers(stores: list[Store], requests: int, rounds: int) -> list[PeerFigures]:
    """All take turns, round by round."""
    there = {store.name: store for store in stores}
    ours: list[tuple[PeerFigures, Store, Callable[[Opened, int], Awaitable[dict[str, float]]]]] = []
    theirs = [(PeerFigures(p.title, p.does, p.store), p) for p in PEERS if p.store in there]
    for name in ("memory", "redis"):
        if name in there:
            ours.append((PeerFigures("mcpgate, `reserve` alone", "holds", name), there[name], _reserve))
            what = "holds, settles, ledger" + (" in SQLite" if name == "redis" else "")
            ours.append((PeerFigures("mcpgate, admit + settle", what, name), there[name], _admit))
    for _ in range(rounds):
        for figures, store, ask in ours:
            async with store.open() as opened:
                figures.rounds.append(await ask(opened, requests))
        for figures, peer in theirs:
            if figures.failure is not None:
                continue
            prefix = f"mcpgate-bench-{secrets.token_hex(4)}"
            try:
                figures.rounds.append(await asyncio.to_thread(_ask_peer, peer, requests, prefix))
            except (subprocess.SubprocessError, OSError, RuntimeError) as error:
                figures.failure = str(error)
            finally:
                if peer.store == "redis":
                    await _forget(prefix)
    return [figures for figures, *_ in (*ours, *theirs)]
