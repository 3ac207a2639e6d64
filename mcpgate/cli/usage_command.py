"""`mcpgate usage`: who did what, what it cost, and what Code Mode saved; read from the ledger."""

import argparse
import asyncio
import json
import sys
import time
from typing import Any

from mcpgate.app import open_stores
from mcpgate.cli import console
from mcpgate.cli.gateway_session import add_config, config_or_default
from mcpgate.codemode.savings import CHARS_PER_TOKEN
from mcpgate.governance.ledger import BUCKETS, DIMENSIONS, make_query, parse_where, render_csv, shown_row

_HOW = (
    f"Saved tokens are estimated, {CHARS_PER_TOKEN} characters to a token, and rather too low: for each request the\n"
    "definitions of all tools that classic MCP would have sent, less the gateway's own; for each execution the tools'\n"
    "answers, less what the code gave back. Requests saved, and answers read again with every later request, are not\n"
    "counted."
)
_TABLE = ("requests", "executions", "tool_calls", "failed", "cost_usd", "unpriced", "input_tokens", "output_tokens")
"""Columns of the table; json and csv have all."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", default="30d", help="a date, a time, or a period like 7d or 1M (default: 30d)")
    parser.add_argument("--until", help="a date or a time (default: now)")
    parser.add_argument(
        "--by",
        default="total",
        metavar="WHAT,…",
        help=f"one row for each of: {', '.join((*BUCKETS, *DIMENSIONS))}, metadata.NAME (default: one row in all)",
    )
    parser.add_argument(
        "--where", action="append", default=[], metavar="NAME=VALUE", help="only what has this value; may be repeated"
    )
    parser.add_argument("--format", choices=("table", "json", "csv"), default="table")
    add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    by = [] if arguments.by == "total" else [name.strip() for name in arguments.by.split(",")]
    query = make_query(by, parse_where(arguments.where), arguments.since, arguments.until, time.time())
    config = config_or_default(arguments.config)

    async def read() -> list[dict[str, Any]]:
        stores = await open_stores(config)
        try:
            return await stores.store.report(query)
        finally:
            await stores.close()

    rows = [shown_row(row) for row in asyncio.run(read())]
    if arguments.format == "json":
        print(json.dumps(rows, indent=1))
    elif arguments.format == "csv":
        sys.stdout.write(render_csv(by, rows))
    elif not rows:
        print(f"nothing was used since {arguments.since}")
    elif not by:
        for name, value in rows[0].items():
            print(f"{name.replace('_', ' '):>24}  {value:,}" if isinstance(value, int) else f"{name:>24}  {value}")
        print(f"\n{_HOW}")
    else:
        columns = [*by, *_TABLE]
        cells = [[("" if row[name] is None else row[name]) for name in columns] for row in rows]
        print(console.table(columns, cells, frozenset(range(len(by), len(columns)))))
    return 0
