"""`mcpgate check`: finds what is wrong before an agent meets it. Exit code 1 if anything is."""

import argparse
import asyncio
import json
import textwrap
import time
from typing import Any

from mcpgate import tokens
from mcpgate.catalog.arguments import schema_fault
from mcpgate.cli import console
from mcpgate.cli.gateway_session import add_config, add_format, run_with_gateway
from mcpgate.cli.schemas import invalid_schemas
from mcpgate.config.oauth import OAuthConfig
from mcpgate.config.settings import NO_AUDIENCE, is_loopback, knows_audience
from mcpgate.gateway import Gateway
from mcpgate.governance.callers import LOCAL
from mcpgate.governance.context import RequestContext
from mcpgate.governance.gate import Gate
from mcpgate.governance.store import StoreUnavailable
from mcpgate.llm.provider import Provider
from mcpgate.telemetry.text import one_line
from mcpgate.upstream.upstream import UpstreamView

_OTHER_COLUMNS = 47
"""Of the table, beside the names."""
_MOST_NOTES = 5
_NOTES = {
    "schema_faults": "broken schema, arguments are not checked",
    "invalid_schemas": "not valid JSON Schema, which clients may refuse if they see the tool directly",
}
EXAMPLES = (
    "mcpgate check",
    "mcpgate check -c team.yaml --format json",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_format(parser)


def run(arguments: argparse.Namespace) -> int:
    report = run_with_gateway(arguments, _examine, with_engine=True, once=True)
    failed = any(not row["ok"] for row in (*report["servers"], *report["parts"]))
    if arguments.format == "json":
        console.show({"ok": not failed, **report})
    else:
        _print(report)
    return 1 if failed else 0


async def _examine(gateway: Gateway) -> dict[str, Any]:
    # In a thread: the servers choose how large their schemas are.
    servers = [await asyncio.to_thread(_row, view) for view in gateway.pool.views()]
    definitions = json.dumps(gateway.tool_list(LOCAL), separators=(",", ":"), ensure_ascii=False)
    return {
        "servers": servers,
        "definition_tokens": sum(row["tokens"] for row in servers),
        "parts": [
            *(await _sandbox(gateway), await _store(gateway), await _ledger(gateway)),
            *await _providers(gateway),
            *await _issuers(gateway),
            *_names(gateway),
        ],
        "meta_tool_tokens": tokens.count(definitions),
        "exact_tokens": tokens.is_exact(),
    }


def _row(view: UpstreamView) -> dict[str, Any]:
    """What is known about one server. Text that it sent is made safe to show."""
    ready = view.state == "ready"
    tools = view.tools if ready else ()
    faults = {t["name"]: fault for t in tools if (fault := schema_fault(t.get("inputSchema", {})))}
    invalid, unchecked = invalid_schemas([tool for tool in tools if tool["name"] not in faults])
    return {
        "server": view.name,
        "ok": ready or view.state == "disabled",
        "state": view.state,
        "protocol": one_line(view.facts.protocol) if ready and view.facts else None,
        "tools": len(tools),
        "tokens": tokens.count(json.dumps(tools, separators=(",", ":"), ensure_ascii=False)) if tools else 0,
        "seconds": round(view.connect_s, 2) if ready and view.connect_s is not None else None,
        "error": "" if ready or view.state == "disabled" else one_line(view.detail or view.reason or view.state, 500),
        "warning": one_line(view.warning, 500) if ready else "",
        "schema_faults": [f"{one_line(name)}: {one_line(fault)}" for name, fault in faults.items()],
        "invalid_schemas": [one_line(line, 300) for line in invalid],
        "unchecked_schemas": unchecked,
    }


async def _sandbox(gateway: Gateway) -> dict[str, Any]:
    began = time.monotonic()
    try:
        answer = await gateway.metatools.execute_code(RequestContext(LOCAL), "sum(range(10))")
        ok, error = answer.text == "45", "" if answer.text == "45" else one_line(answer.text, 500)
    except Exception as failure:
        ok, error = False, one_line(str(failure), 500)
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


async def _ledger(gateway: Gateway) -> dict[str, Any]:
    """The ledger and the counters of budgets and rate limits, which may be in another store."""
    began = time.monotonic()
    gate = gateway.gate
    error = await gate.probe()
    names = dict.fromkeys((gate.store.name, gate.counters.name))
    seconds = round(time.monotonic() - began, 2)
    return {"part": f"ledger ({' and '.join(names)})", "ok": not error, "seconds": seconds, "error": error}


async def _providers(gateway: Gateway) -> list[dict[str, Any]]:
    """One row for each provider of models."""

    async def row(name: str, provider: Provider) -> dict[str, Any]:
        began = time.monotonic()
        error = one_line(await provider.probe(), 500)
        seconds = round(time.monotonic() - began, 2)
        return {"part": f"models ({name})", "ok": not error, "seconds": seconds, "error": error}

    return await asyncio.gather(*(row(*one) for one in gateway.chat.providers.all().items()))


async def _issuers(gateway: Gateway) -> list[dict[str, Any]]:
    """One row per issuer of access tokens, and one for what is wrong with the rules for them."""
    server, gate, began = gateway.config.server, gateway.gate, time.monotonic()
    if server.oauth is None or gate.tokens is None:
        return []
    found = await gate.tokens.probe()
    seconds = round(time.monotonic() - began, 2)
    rows = [
        {"part": f"issuer {issuer}", "ok": not error, "seconds": seconds, "error": one_line(error, 500)}
        for issuer, error in found.items()
    ]
    faults = [f"claims.keys names key {key!r}, which does not exist" for key in await _missing_keys(gate, server.oauth)]
    if not (is_loopback(server.host) or knows_audience(server)):
        faults.append(NO_AUDIENCE)
    if faults:
        rows.append({"part": "server.oauth", "ok": False, "seconds": 0.0, "error": "; ".join(faults)})
    return rows


async def _missing_keys(gate: Gate, oauth: OAuthConfig) -> list[str]:
    wanted = sorted(oauth.keys() - set(gate.policy.keys))
    try:
        return [key for key in wanted if await gate.store.get_record("key", key) is None]
    except StoreUnavailable:
        return []  # the ledger's row says so


def _names(gateway: Gateway) -> list[dict[str, Any]]:
    """One row for all clashes of direct tools' names, if there are any."""
    if not (clashes := gateway.views.clashes()):
        return []
    more = f"; and {len(clashes) - _MOST_NOTES} more" if len(clashes) > _MOST_NOTES else ""
    error = one_line("; ".join(clashes[:_MOST_NOTES]) + more, 2000)
    return [{"part": "names of direct tools", "ok": False, "seconds": 0.0, "error": error}]


def _print(report: dict[str, Any]) -> None:
    def mark(row: dict[str, Any]) -> str:
        if row.get("state") == "disabled":
            return console.styled("off", "dim")
        return console.styled("ok", "green") if row["ok"] else console.styled("FAILED", "red")

    longest = console.room() - _OTHER_COLUMNS
    rows = [
        [
            mark(s),
            console.cut(s["server"], longest),
            s["protocol"] or "",
            s["tools"] if s["state"] == "ready" else "",
            f"{s['tokens']:,}" if s["state"] == "ready" else "",
            "" if s["seconds"] is None else s["seconds"],
        ]
        for s in report["servers"]
    ]
    rows += [[mark(p), console.cut(p["part"], longest), "", "", "", p["seconds"]] for p in report["parts"]]
    remarks = [s["error"] or s["warning"] for s in report["servers"]] + [p["error"] for p in report["parts"]]
    about = "tokens" if report["exact_tokens"] else "~tokens"
    table = console.table(["", "what", "protocol", "tools", about, "seconds"], rows, frozenset({3, 4, 5}))
    for line, remark in zip(table.splitlines(), ["", *remarks], strict=True):
        print(line)
        if remark:
            print(console.wrapped(remark, " " * 8))
    served = [s for s in report["servers"] if s["state"] == "ready"]
    if served:
        tools = console.counted(sum(s["tools"] for s in served), "tool")
        summary = (
            f"{tools} of {console.counted(len(served), 'server')}: every request of an agent would carry "
            f"{report['definition_tokens']:,} tokens of definitions; through mcpgate {report['meta_tool_tokens']:,}."
        )
        print("\n" + textwrap.fill(summary, min(console.room(), 80)))
    else:
        print("\nNo server is available." if report["servers"] else "\nThere are no servers in the configuration.")
    for server in report["servers"]:
        for key, about in _NOTES.items():
            faults = server[key]
            more = [f"… and {len(faults) - _MOST_NOTES} more"] if len(faults) > _MOST_NOTES else []
            for fault in (*faults[:_MOST_NOTES], *more):
                print(console.styled(console.wrapped(f"note: {server['server']}: {about}: {fault}"), "yellow"))
        if server["unchecked_schemas"]:
            schemas = console.counted(server["unchecked_schemas"], "schema")
            print(console.styled(f"note: {server['server']}: {schemas} too large to check, or no time left", "yellow"))
