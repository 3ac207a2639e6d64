"""A call that was sent is paid for, although the gateway is killed while it is under way: on every store, the upstream
receives no more calls than there is money for, and the ledger has them all."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.conftest import raw
from tests.flows.governed import TRUSTED, Served, bearer, call_of, own_database, serving, wait_until, write_config
from tests.stores.conftest import REDIS, needs_server

CI = "mg-continuous"
INSIDE = "import asyncio\nawait asyncio.gather(*[raw.hang() for _ in range(2)], return_exceptions=True)"


@contextlib.contextmanager
def storage_of(kind: str, folder: Path) -> Iterator[dict[str, str]]:
    if kind == "postgres":
        with own_database() as url:
            yield {"url": url}
        return
    if kind == "redis":
        needs_server("redis")
    file = {"url": f"sqlite:///{folder / 'stores.sqlite3'}"}
    yield {**file, "counters": REDIS} if kind == "redis" else file


def received(log: Path) -> int:
    return log.read_text().count("tools/call") if log.exists() else 0


def ask_without_waiting(served: Served, message: object) -> None:
    def ask() -> None:
        with contextlib.suppress(httpx2.HTTPError):
            httpx2.post(f"{served.address}/mcp", json=message, headers=bearer(CI), timeout=60)

    threading.Thread(target=ask, daemon=True).start()


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "redis"])
def test_with_money_for_6_calls_an_upstream_receives_6_though_the_gateway_is_killed_in_the_middle_of_them(
    kind: str, tmp_path: Path
) -> None:
    log = tmp_path / "received"
    id = f"k{time.time_ns()}"  # what Redis counts is there for an hour
    budget = {"limit_usd": 3, "period": "1h"}
    keys = {**TRUSTED, id: {"secret": CI, "grants": {"tools": "*"}, "budget": budget}}
    with storage_of(kind, tmp_path) as storage:
        config = write_config(
            tmp_path,
            {"raw": raw("--log", str(log), expose="both", prices={"hang": 0.5, "echo": 0.5})},
            governance={"keys": keys, "lease_s": 1, "hold_wait_s": 0, "require_key": True},
            storage=storage,
        )
        for round in range(3):
            with serving(tmp_path / "run", config) as served:
                if round == 1:
                    ask_without_waiting(served, call_of("execute_code", {"code": INSIDE}))
                else:
                    for _ in range(2):
                        ask_without_waiting(served, call_of("raw__hang"))
                wait_until(lambda round=round: received(log) == 2 * (round + 1))
                served.process.kill()
                served.process.wait(20)
        with serving(tmp_path / "run", config) as served:
            wait_until(lambda: served.standing(f"keys/{id}")["reserved"] == "0")
            standing = served.standing(f"keys/{id}")
            assert (standing["spent"], standing["left"]) == ("3", "0")
            for _ in range(3):
                assert served.call("raw__echo", {"text": "x"}, CI).error["code"] == "budget_exceeded"
            (row,) = served.usage("outcome", key=id, kind="tool")
            assert (row["outcome"], row["tool_calls"], row["cost_usd"]) == ("unknown", 6, "3")
    assert received(log) == 6
