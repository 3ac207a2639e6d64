"""`mcpgate usage`: how the gateway was used, and what Code Mode saved."""

import argparse
import csv
import datetime
import json
import sys

from mcpgate.app import open_store
from mcpgate.cli.opened import add_config
from mcpgate.codemode.savings import CHARS_PER_TOKEN, COUNTED
from mcpgate.config import Config, find_config, load_config
from mcpgate.errors import ConfigError, InvalidRequest
from mcpgate.governance.periods import Period

_HOW = (
    f"Saved tokens are estimated, {CHARS_PER_TOKEN} characters to a token, and rather too low: for each request the\n"
    "definitions of all tools that classic MCP would have sent, less the gateway's own; for each execution the tools'\n"
    "answers, less what the code gave back. Requests saved, and answers read again with every later request, are not\n"
    "counted."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", default="30d", help="a date, or a period like 7d or 1M (default: 30d)")
    parser.add_argument("--by", choices=("total", "day"), default="total", help="one row, or one a day")
    parser.add_argument("--format", choices=("table", "json", "csv"), default="table")
    add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    since = _since(arguments.since)
    store = open_store(_config(arguments.config))
    try:
        days = store.sums(since)
    finally:
        store.close()
    rows = [{"day": day, **{name: sums.get(name, 0) for name in COUNTED}} for day, sums in sorted(days.items())]
    if arguments.by == "total":
        rows = [{"since": since, **{name: sum(row[name] for row in rows) for name in COUNTED}}]  # type: ignore[misc]
    if arguments.format == "json":
        print(json.dumps(rows, indent=1))
    elif arguments.format == "csv":
        writer = csv.DictWriter(sys.stdout, ["day" if arguments.by == "day" else "since", *COUNTED])
        writer.writeheader()
        writer.writerows(rows)
    else:
        for row in rows:
            for name, value in row.items():
                print(f"{name.replace('_', ' '):>24}  {value:,}" if isinstance(value, int) else f"{name:>24}  {value}")
            print()
        print(_HOW)
    return 0


def _config(path: str | None) -> Config:
    try:
        file = find_config(path)
    except ConfigError:
        if path is not None:
            raise
        return Config()  # without a file the default store is meant
    return load_config(file)


def _since(text: str) -> str:
    today = datetime.datetime.now(datetime.UTC)
    try:
        return Period.parse(text).before(today).date().isoformat()
    except (ValueError, OverflowError):
        pass
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        takes = "a date like 2026-11-01, or a period like 7d or 1M"
        raise InvalidRequest(f"--since is {text!r}; it takes {takes}") from None
