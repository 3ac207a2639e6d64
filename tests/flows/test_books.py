"""Everything that says what was spent says the same to the nano-dollar, after a load of both faces in which the gateway
was killed."""

import contextlib
import csv
import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import raw
from tests.flows.governed import (
    ADMIN,
    TRUSTED,
    Served,
    bearer,
    call_of,
    environment,
    mcpgate,
    serving,
    wait_until,
    write_config,
)
from tests.model_provider import ModelProvider

PAYS = "mg-the-key-that-pays"
LIMIT = 1000
CODE = "import asyncio\nreturn await asyncio.gather(*[raw.add(a=n, b=1) for n in range(3)])"


def chat(served: Served, model: str, **more: Any) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 50, **more}
    return served.clients[0].post("/v1/chat/completions", json=body, headers=bearer(PAYS)).status_code


def load(served: Served) -> None:
    def work(number: int) -> None:
        if number % 4 == 0:
            assert served.run(CODE, key=PAYS).ok
        elif number % 4 == 1:
            assert served.call("raw__add", {"a": number, "b": 1}, PAYS).ok
        else:
            assert chat(served, "open/good", stream=number % 4 == 2) == 200

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(40)))


def killed_in_the_middle(served: Served, provider: ModelProvider) -> None:
    """Two calls are with their servers, and one answer on its way, when the gateway is killed."""

    def ask(path: str, body: Any) -> None:
        with contextlib.suppress(httpx2.HTTPError):
            httpx2.post(f"{served.address}{path}", json=body, headers=bearer(PAYS), timeout=60)

    slow = {"model": "open/slow", "messages": [{"role": "user", "content": "x"}], "stream": True, "max_tokens": 50}
    before = len(provider.received)
    for path, body in (("/mcp", call_of("raw__hang")), ("/mcp", call_of("raw__hang")), ("/v1/chat/completions", slow)):
        threading.Thread(target=ask, args=(path, body), daemon=True).start()
    wait_until(lambda: len(provider.received) > before)
    wait_until(lambda: Decimal(budget(served)["reserved"]) >= Decimal("0.026"))
    served.process.kill()
    served.process.wait(20)


def budget(served: Served) -> dict[str, Any]:
    return served.standing("budgets/books")


def spent(served: Served) -> Decimal:
    return Decimal(served.usage()[0]["cost_usd"])


def measured(served: Served, name: str) -> float:
    text = served.clients[0].get("/metrics", headers=bearer(ADMIN)).text
    families = text_string_to_metric_families(text)
    return sum(one.value for family in families for one in family.samples if one.name == f"mcpgate_{name}")


def logged(served: Served) -> Iterator[Decimal]:
    """What each request of the log has cost, with what belongs to it."""
    cursor: dict[str, str] = {}
    while True:
        answer = served.clients[0].get("/api/requests", params={"limit": 50, **cursor}, headers=bearer(ADMIN)).json()
        yield from (Decimal(one["cost_usd"] or 0) for one in answer["requests"])
        if answer["next"] is None:
            return
        cursor = {"cursor": answer["next"]}


def test_all_that_say_what_was_spent_say_the_same(
    tmp_path: Path, storage: dict[str, str], provider: ModelProvider
) -> None:
    keys = {**TRUSTED, "pays": {"secret": PAYS, "grants": {"tools": ["*"], "models": ["*"], "providers": ["*"]}}}
    config = write_config(
        tmp_path,
        {"raw": raw(expose="both", prices={"add": "0.000000007", "hang": "0.013"})},
        governance={
            "keys": keys,
            "require_key": True,
            "lease_s": 1,
            "budgets": [{"id": "books", "limit_usd": LIMIT, "period": "1M"}],
        },
        llm={
            "providers": {"open": {"type": "openai", "base_url": provider.address, "api_key": "x"}},
            "prices": {"open/*": {"input_usd_per_mtok": "0.137", "output_usd_per_mtok": "1.193"}},
        },
        storage=storage,
    )
    with serving(tmp_path / "run", config) as served:
        load(served)
        killed_in_the_middle(served, provider)
    provider.go_on.set()
    with serving(tmp_path / "run", config) as served:
        wait_until(lambda: Decimal(budget(served)["reserved"]) == 0)
        at_first = spent(served)
        load(served)
        total = spent(served)
        assert total > at_first > Decimal("0.026")

        assert Decimal(budget(served)["spent"]) == total
        entries = served.admin("GET", "entries?limit=1000").json()["entries"]
        assert sum((Decimal(one["cost_usd"] or 0) for one in entries), Decimal(0)) == total
        assert sum(logged(served), Decimal(0)) == total
        table = served.admin("GET", "usage?by=kind,server,model&format=csv").text
        assert sum((Decimal(row["cost_usd"]) for row in csv.DictReader(io.StringIO(table))), Decimal(0)) == total
        done = mcpgate("usage", "--format", "json", "-c", str(config), env=environment(tmp_path / "run"))
        assert Decimal(json.loads(done.stdout)[0]["cost_usd"]) == total, done.stdout
        assert round(LIMIT - measured(served, "budget_left_usd"), 9) == float(total)
        assert round(measured(served, "cost_usd_total"), 9) == float(total - at_first)
