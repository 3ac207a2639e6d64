"""`mcpgate log`: what was asked and done, request by request; read from the store that a gateway writes to."""

import argparse
import asyncio
import contextlib
import datetime
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from mcpgate.activity.asking import make_wanted
from mcpgate.activity.contents import contents_of
from mcpgate.activity.log import RequestLog
from mcpgate.activity.requests import FILTERS, NEWEST, Wanted, from_cursor
from mcpgate.app import content_store, open_stores, request_store
from mcpgate.cli import console, words
from mcpgate.cli.gateway_session import add_config, config_or_default
from mcpgate.cli.keys_command import all_keys, id_of_key
from mcpgate.config.settings import Config
from mcpgate.errors import InvalidRequest
from mcpgate.governance.admin import Admin
from mcpgate.governance.callers import LOCAL
from mcpgate.governance.ledger import parse_where
from mcpgate.governance.policy import Policy
from mcpgate.lifecycle import GovernanceStores
from mcpgate.telemetry.text import visible

_WIDTH = 80
_PAGE = 500
_MOST = 100_000
_WHO, _LEAST_WHAT = 12, 14
EXAMPLES = (
    "mcpgate log                          # the last 20 requests",
    "mcpgate log --follow",
    "mcpgate log --where key=ci --where failed=true --since 7d",
    "mcpgate log 4f0c2a91be77d310         # one request, and all that belongs to it",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", nargs="?", metavar="ID", help="one request: its id, or the x-request-id of its answer")
    parser.add_argument("--follow", "-f", action="store_true", help="print new requests as they end")
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"only requests with this value; repeatable. Names: {', '.join(FILTERS)}, metadata.NAME",
    )
    parser.add_argument("--since", metavar="WHEN", help="a date, a time, or a period like 7d")
    parser.add_argument("--until", metavar="WHEN", help="a date or a time")
    parser.add_argument("--nested", action="store_true", help="also tool calls of code, and attempts of model requests")
    parser.add_argument("--content", action="store_true", help="with ID: also what it said, if that is kept")
    parser.add_argument("--text", default="", metavar="WORDS", help="only requests whose content has these words")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="how many (default: 20)")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="what to print (default: table)")
    add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    if not 1 <= arguments.limit <= _MOST:
        raise InvalidRequest(f"--limit must be from 1 to {_MOST:,}")
    if arguments.text and arguments.follow:
        raise InvalidRequest("--follow takes no --text: contents are written a moment later")
    where, config = parse_where(arguments.where), config_or_default(arguments.config)
    given = {"since": arguments.since or "", "until": arguments.until or "", "nested": str(int(arguments.nested))}
    given |= {"q": arguments.text}
    make_wanted(where, given, time.time())  # before a store is opened
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(arguments, config, where, given))
    return 0


async def _run(arguments: argparse.Namespace, config: Config, where: dict[str, str], given: Mapping[str, str]) -> None:
    as_json = arguments.format == "json"
    async with _opened(config, where) as (log, stores):
        if arguments.id:
            one = await log.get(LOCAL, arguments.id)
            said = await _contents(config, stores, one) if arguments.content else []
            console.show({**one, "contents": said} if arguments.content else one) if as_json else _print_one(one, said)
            return
        wanted = make_wanted(where, given, time.time())
        newest = await log.newest()
        found = await _latest(log, wanted, arguments.limit)
        if not arguments.follow:
            console.show(found) if as_json else _print_table(found)
            return
        _print_lines(found[::-1], as_json)
        async with contextlib.aclosing(log.follow(wanted, newest)) as groups:  # type: ignore[type-var]
            shown = {one["id"] for one in found}
            async for group in groups:
                _print_lines([one for one in group if one["id"] not in shown], as_json)


@asynccontextmanager
async def _opened(config: Config, where: dict[str, str]) -> AsyncIterator[tuple[RequestLog, GovernanceStores]]:
    """The log of a configuration's store; a key that `where` names becomes its id."""
    stores = await open_stores(config)
    requests = request_store(config, stores)
    try:
        policy = Policy(config.governance)
        if "key" in where:
            named = await all_keys(Admin(stores.store, stores.counters, lambda: policy))
            where["key"] = id_of_key(where["key"], named)
        yield RequestLog(requests, stores.store, lambda: policy), stores
    finally:
        await requests.close()
        await stores.close()


async def _contents(config: Config, stores: GovernanceStores, one: Mapping[str, Any]) -> list[dict[str, Any]]:
    store = content_store(config, stores)
    try:
        return await contents_of(store, one)
    finally:
        await store.close()


async def _latest(log: RequestLog, wanted: Wanted, limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    before = NEWEST
    while len(found) < limit:
        page = await log.page(wanted, min(_PAGE, limit - len(found)), before)
        found += page.requests
        if page.next is None:
            break
        before = from_cursor(page.next)
    return found


# --- tables


def _print_lines(found: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    for one in found:
        print(json.dumps(one) if as_json else _line(_cells(one)), flush=True)


def _print_table(found: Sequence[Mapping[str, Any]]) -> None:
    if not found:
        print("no requests")
        return
    rows = [_cells(one) for one in reversed(found)]
    others = [max(console.width(row[column]) for row in rows) for column in (0, 1, 2, 4, 5)]
    room = max(_LEAST_WHAT, _WIDTH - sum(max(*pair) for pair in zip(others, _HEADS, strict=True)) - 10)
    cut = [[*row[:3], console.cut(row[3], room), *row[4:]] for row in rows]
    print(console.table(("time", "id", "who", "what", "took", "result"), cut, frozenset((4,))))


_HEADS = (4, 2, 3, 4, 6)
"""Widths of the headers of the columns whose width is fixed."""


def _line(cells: Sequence[str]) -> str:
    at, id, who, what, took, result = cells
    room = _WIDTH - 8 - 16 - _WHO - 8 - 10 - max(8, console.width(result))
    what = console.cut(what, max(_LEAST_WHAT, room))
    columns = ((at, 8), (id, 16), (who, _WHO), (what, max(_LEAST_WHAT, room)))
    padded = [text + " " * (columns_ - console.width(text)) for text, columns_ in columns]
    return "  ".join([*padded, f"{took:>8}", result]).rstrip()


def _cells(one: Mapping[str, Any]) -> list[str]:
    return [
        _clock(one["at"]),
        one["request_id"] or one["id"],
        console.cut(visible(one["user"] or one["key_name"] or one["key"]), _WHO),
        visible(_what(one)),
        _took(one["latency_ms"]["total"]),
        _result(one),
    ]


def _result(one: Mapping[str, Any]) -> str:
    if one["error"]:
        return console.styled(visible(one["error"]), "red")
    if one["cache"] in ("exact", "semantic"):
        return f"{one['cache']} hit"
    return "?" if one["cost_usd"] is None else words.dollars(one["cost_usd"])


def _what(one: Mapping[str, Any]) -> str:
    if one["kind"] in ("chat", "embedding"):
        target = f"{one['provider']}/{one['model']}" if one["provider"] else str(one["model"])
        return f"{one['alias']} → {target}" if one.get("alias") not in (None, target, one["model"]) else target
    name = one["tool"] or one["kind"]
    return f"{one['server']}.{name}" if one["server"] else name


def _took(ms: float) -> str:
    return f"{ms:.0f} ms" if ms < 1000 else words.seconds(ms / 1000)


def _clock(at: str) -> str:
    """Local time; for another day than today, the date."""
    moment = datetime.datetime.fromisoformat(at).astimezone()
    today = moment.date() == datetime.datetime.now().astimezone().date()
    return f"{moment:%H:%M:%S}" if today else f"{moment:%d %b}"


# --- one request


def _print_one(one: Mapping[str, Any], contents: Sequence[Mapping[str, Any]]) -> None:
    def line(name: str, value: Any) -> None:
        if value not in (None, "", "0"):
            print(f"  {name:<13} {visible(str(value))}")

    print(console.styled(f"{one['id']}: {visible(_what(one))}", "bold"))
    line("at", one["at"])
    line("result", one["outcome"] if one["status"] is None else f"{one['outcome']} ({one['status']})")
    line("request id", one["request_id"])
    line("part of", one["parent_id"])
    key = one["key"] if not one["key_name"] else f"{one['key_name']} ({one['key']})"
    line("key", key)
    for name in ("user", "team", "customer", "client", "session"):
        line(name, one[name])
    line("metadata", ", ".join(f"{name}={value}" for name, value in one["metadata"].items()))
    line("took", _latencies(one["latency_ms"]))
    line("tokens", ", ".join(f"{words.number(n)} {name.replace('_', ' ')}" for name, n in one["tokens"].items() if n))
    line("cost", "no known price" if one["cost_usd"] is None else words.dollars(one["cost_usd"]))
    line("cache", None if one["cache"] == "off" else one["cache"])
    saved = sum(one["saved_tokens"].values())
    line("tokens saved", words.number(saved) if saved else None)
    for name, value in one["facts"].items():
        line(name, value)
    if one.get("children"):
        print()
        _print_tree(one["children"], 1)
        if one.get("truncated"):
            print("  … and more")
    for said in contents:
        for part in ("sent", "answered"):
            print(console.styled(f"\n{visible(_what(said))}: {part}", "bold"))
            console.say(said[part])


def _latencies(parts: Mapping[str, float | None]) -> str:
    said = {"first_token": "to the first token", "upstream": "upstream", "tools": "tools", "sandbox": "running code"}
    said |= {"own": "the gateway itself"}
    shown = [f"{_took(ms)} {said[name]}" for name, ms in parts.items() if name in said and ms is not None]
    return f"{_took(parts['total'] or 0.0)}: {', '.join(shown)}"


def _print_tree(children: Sequence[Mapping[str, Any]], depth: int) -> None:
    for child in children:
        start, end = "  " * depth, f"{_took(child['latency_ms']['total']):>8}  {_result(child)}"
        room = max(_LEAST_WHAT, _WIDTH - len(start) - console.width(end) - 2)
        what = console.cut(visible(_what(child)), room)
        print(f"{start}{what}{' ' * (room - console.width(what))}  {end}")
        _print_tree(child.get("children", ()), depth + 1)
