"""`mcpgate check`: finds what is wrong before an agent does. Exit code 1 if anything is."""

import argparse
import asyncio
import json
import time
from typing import Any

from mcpgate import tokens
from mcpgate.catalog.arguments import schema_fault
from mcpgate.cli import console
from mcpgate.cli.gateway_session import add_config, add_format, run_with_gateway
from mcpgate.gateway import Gateway
from mcpgate.governance.callers import LOCAL
from mcpgate.governance.context import RequestContext


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_format(parser)


def run(arguments: argparse.Namespace) -> int:
    report = run_with_gateway(arguments, _examine, with_engine=True)
    failed = any(not row["ok"] for row in (*report["servers"], *report["parts"]))
    if arguments.format == "json":
        console.show({"ok": not failed, **report})
    else:
        _print(report)
    return 1 if failed else 0


async def _examine(gateway: Gateway) -> dict[str, Any]:
    servers = []
    for view in gateway.pool.views():
        fine = view.state in ("ready", "disabled")
        faults = [f"{t['name']}: {fault}" for t in view.tools if (fault := schema_fault(t.get("inputSchema", {})))]
        servers.append(
            {
                "server": view.name,
                "ok": fine,
                "state": view.state,
                "protocol": view.facts.protocol if view.facts else None,
                "tools": len(view.tools) if view.state == "ready" else 0,
                "tokens": tokens.count(json.dumps(view.tools, separators=(",", ":"), ensure_ascii=False))
                if fine
                else 0,
                "seconds": round(view.connect_s, 2) if view.connect_s is not None else None,
                "error": view.warning if fine else view.detail or view.state,
                "schema_faults": faults,
            }
        )
    definitions = json.dumps(gateway.tool_list(LOCAL), separators=(",", ":"), ensure_ascii=False)
    return {
        "servers": servers,
        "parts": [await _sandbox(gateway), await _store(gateway), await _books(gateway)],
        "meta_tool_tokens": tokens.count(definitions),
        "exact_tokens": tokens.is_exact(),
    }


async def _sandbox(gateway: Gateway) -> dict[str, Any]:
    began = time.monotonic()
    try:
        answer = await gateway.metatools.execute_code(RequestContext(LOCAL), "sum(range(10))")
        ok, error = answer.text == "45", "" if answer.text == "45" else answer.text
    except Exception as failure:
        ok, error = False, str(failure)
    return {
        "part": f"sandbox ({gateway.engine.name})",
        "ok": ok,
        "seconds": round(time.monotonic() - began, 2),
        "error": error,
    }


async def _store(gateway: Gateway) -> dict[str, Any]:
    began = time.monotonic()

    error = await asyncio.to_thread(gateway.learned.probe)
    return {"part": "store (sqlite)", "ok": not error, "seconds": round(time.monotonic() - began, 2), "error": error}


async def _books(gateway: Gateway) -> dict[str, Any]:
    """The ledger, and the counters of budgets and rate limits, in it or apart from it."""
    began = time.monotonic()
    gate = gateway.gate
    error = await gate.probe()
    names = dict.fromkeys((gate.store.name, gate.counters.name))
    seconds = round(time.monotonic() - began, 2)
    return {"part": f"ledger ({' and '.join(names)})", "ok": not error, "seconds": seconds, "error": error}


def _print(report: dict[str, Any]) -> None:
    def mark(row: dict[str, Any]) -> str:
        if row.get("state") == "disabled":
            return console.styled("off", "dim")
        return console.styled("ok", "green") if row["ok"] else console.styled("FAILED", "red")

    rows = [
        [
            mark(s),
            s["server"],
            s["protocol"] or "",
            s["tools"],
            f"{s['tokens']:,}",
            "" if s["seconds"] is None else s["seconds"],
            s["error"],
        ]
        for s in report["servers"]
    ]
    rows += [[mark(p), p["part"], "", "", "", p["seconds"], p["error"]] for p in report["parts"]]
    about = "tokens" if report["exact_tokens"] else "~tokens"
    print(console.table(["", "what", "protocol", "tools", about, "seconds", "error"], rows, frozenset({3, 4, 5})))
    classic = sum(s["tokens"] for s in report["servers"])
    print(
        f"\nWithout mcpgate, every request of an agent carries {classic:,} tokens of definitions; "
        f"with mcpgate, {report['meta_tool_tokens']:,}."
    )
    for server in report["servers"]:
        for fault in server["schema_faults"][:5]:
            print(
                console.styled(f"note: {server['server']}: broken schema, arguments are not checked: {fault}", "yellow")
            )
