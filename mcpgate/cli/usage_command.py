"""`mcpgate usage`: who did what, what it cost, and what Code Mode saved; read from the ledger."""

import argparse
import asyncio
import json
import sys
import textwrap
import time
from typing import Any

from mcpgate.app import open_stores
from mcpgate.cli import console, words
from mcpgate.cli.gateway_session import add_config, config_or_default
from mcpgate.cli.keys_command import all_keys, id_of_key
from mcpgate.codemode.savings import CHARS_PER_TOKEN
from mcpgate.governance.admin import Admin
from mcpgate.governance.callers import VirtualKey
from mcpgate.governance.ledger import BUCKETS, DIMENSIONS, make_query, parse_where, render_csv, shown_row
from mcpgate.governance.policy import Policy
from mcpgate.telemetry.text import visible

_HOW = (
    f"Saved tokens are a cautious estimate, at {CHARS_PER_TOKEN} characters per token. A request saves the tool "
    "definitions that classic MCP would have sent, minus the gateway's own. An execution saves the tools' answers, "
    "minus what the code returned. Requests that were not needed, and answers that would be sent again with every "
    "later request, are not counted."
)
_COLUMNS = {
    "requests": "requests",
    "cost_usd": "cost",
    "failed": "failed",
    "executions": "code runs",
    "tool_calls": "tool calls",
    "saved": "tokens saved",
    "input_tokens": "tokens in",
    "output_tokens": "tokens out",
}
"""Columns of the table, the most important ones first; json and csv have all."""
_WIDTH = 80


EXAMPLES = (
    "mcpgate usage                          # the last 30 days, in total",
    "mcpgate usage --by team,day --since 7d",
    "mcpgate usage --by tool --where key=ci",
    "mcpgate usage --by key --since 2026-11-01 --until 2026-12-01 --format csv",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", default="30d", help="a date, a time, or a period like 7d or 1M (default: 30d)")
    parser.add_argument("--until", help="a date or a time (default: now)")
    parser.add_argument(
        "--by",
        default="total",
        metavar="WHAT,…",
        help=f"one row for each of: {', '.join((*BUCKETS, *DIMENSIONS))}, metadata.NAME (default: one row in total)",
    )
    parser.add_argument(
        "--where", action="append", default=[], metavar="NAME=VALUE", help="only entries with this value; repeatable"
    )
    parser.add_argument(
        "--format", choices=("table", "json", "csv"), default="table", help="what to print (default: table)"
    )
    add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    by = [] if arguments.by == "total" else [name.strip() for name in arguments.by.split(",")]
    where = parse_where(arguments.where)
    config = config_or_default(arguments.config)
    table = arguments.format == "table"
    # People read `server.tool`; the same tool of two servers is two things.
    with_server = table and "tool" in by and "server" not in by
    grouped = [*by, "server"] if with_server else by

    async def read() -> tuple[list[dict[str, Any]], dict[str, str]]:
        make_query(grouped, where, arguments.since, arguments.until, time.time())  # before a store is opened
        stores = await open_stores(config)
        try:
            named: list[VirtualKey] = []
            if "key" in (*by, *where):
                named = await all_keys(Admin(stores.store, stores.counters, lambda: Policy(config.governance)))
            if "key" in where:
                where["key"] = id_of_key(where["key"], named)
            query = make_query(grouped, where, arguments.since, arguments.until, time.time())
            return await stores.store.report(query), {key.id: key.name for key in named if key.name}
        finally:
            await stores.close()

    found, names = asyncio.run(read())
    rows = [shown_row(row) for row in found]
    if "key" in by:
        rows = [_with_name(row, names) for row in rows]
        by.insert(by.index("key") + 1, "key_name")
    if arguments.format == "json":
        print(json.dumps(rows, indent=1))
    elif arguments.format == "csv":
        sys.stdout.write(render_csv(by, rows))
    elif not rows or not any(row["entries"] for row in rows):
        print(f"no usage {_when(arguments.since, arguments.until)}")
    elif not by:
        _print_total(rows[0], _when(arguments.since, arguments.until))
    else:
        _print_table([name for name in by if name != "key_name"], rows, with_server)
    return 0


def _with_name(row: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """The row, with the name of its key after the id."""
    shown: dict[str, Any] = {}
    for column, value in row.items():
        shown[column] = value
        if column == "key":
            shown["key_name"] = names.get(value)
    return shown


def _when(since: str, until: str | None) -> str:
    try:
        text = f"in the last {words.period(since)}"
    except ValueError:
        text = f"since {since}"
    return f"{text} until {until}" if until else text


def _saved(row: dict[str, Any]) -> int:
    return int(row["definition_tokens_saved"] + row["result_tokens_saved"] + row["model_tokens_saved"])


def _print_total(row: dict[str, Any], when: str) -> None:
    def line(name: str, value: str, remark: str = "") -> None:
        print(f"  {name:<14} {value:>12}{'   ' + remark if remark else ''}".rstrip())

    print(f"{when[0].upper()}{when[1:]}:\n")
    line("requests", words.number(row["requests"]), f"{words.seconds(row['latency_ms'] / 1000)} in all")
    line("code runs", words.number(row["executions"]), f"{words.seconds(row['seconds'])} of running code")
    line("tool calls", words.number(row["tool_calls"]))
    line("failed", words.number(row["failed"]))
    unpriced = row["unpriced"]
    line("cost", words.dollars(row["cost_usd"]), f"{words.number(unpriced)} without a price" if unpriced else "")
    for name in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"):
        if row[name]:
            line(name.replace("_", " "), words.number(row[name]))
    if saved := _saved(row):
        of = {"definition": "of definitions", "result": "of results", "model": "by the cache"}
        parts = [f"{words.number(row[f'{name}_tokens_saved'])} {what}" for name, what in of.items()]
        line("tokens saved", words.number(saved), ", ".join(parts if row["model_tokens_saved"] else parts[:2]))
        if row["cost_saved_usd"] != "0":
            line("cost saved", words.dollars(row["cost_saved_usd"]), "by the cache")
        print("\n" + textwrap.fill(_HOW, _WIDTH))


def _print_table(by: list[str], rows: list[dict[str, Any]], with_server: bool) -> None:
    def group(row: dict[str, Any], name: str) -> str:
        value = visible(str(row[name])) if row[name] else "-"
        if name == "key" and row["key_name"]:
            return f"{visible(row['key_name'])} ({value})"
        return f"{visible(row['server'])}.{value}" if name == "tool" and with_server and row["server"] else value

    def amount(row: dict[str, Any], name: str) -> str:
        if name == "cost_usd":
            return words.dollars(row[name])
        return words.number(_saved(row) if name == "saved" else row[name])

    used = [
        name for name in _COLUMNS if name == "requests" or any(amount(row, name) not in ("0", "$0.00") for row in rows)
    ]
    while True:
        cells = [[*(group(row, name) for name in by), *(amount(row, name) for name in used)] for row in rows]
        headers = [*(name.removeprefix("metadata.") for name in by), *(_COLUMNS[name] for name in used)]
        text = console.table(headers, cells, frozenset(range(len(by), len(headers))))
        if len(used) == 1 or max(map(console.width, text.splitlines())) <= _WIDTH:
            break
        used.pop()
    print(text)
