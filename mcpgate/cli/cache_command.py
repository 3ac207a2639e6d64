"""`mcpgate cache`: what the cache holds and saves; drop, warm, export and import entries. It works on the store, beside
a running gateway, which follows within seconds."""

import argparse
import asyncio
import json
import math
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mcpgate import jsontext
from mcpgate.api.llm.errors import ROUTES, is_google
from mcpgate.api.llm.reading import read_asked
from mcpgate.app import running
from mcpgate.cache.policy import Wish
from mcpgate.cache.standing import standing
from mcpgate.cache.store import EVERYTHING, Selection
from mcpgate.cache.transfer import exported, imported
from mcpgate.cli import console, words
from mcpgate.cli.gateway_session import add_config, add_format, config_or_default
from mcpgate.errors import ConfigError, InvalidRequest, McpgateError
from mcpgate.gateway import Gateway
from mcpgate.governance.admin import Admin
from mcpgate.governance.callers import LOCAL, Caller
from mcpgate.governance.context import RequestContext
from mcpgate.llm.asked import Asked
from mcpgate.llm.attempt import Streamed

EXAMPLES = (
    "mcpgate cache stats --since 7d",
    "mcpgate cache clear --tag manual-3",
    "mcpgate cache clear --model openai/gpt-5 --older-than 3600",
    "mcpgate cache warm questions.jsonl --key ci",
    "mcpgate cache export entries.jsonl",
    "mcpgate cache import entries.jsonl",
)
_FORMATS = {path: format for format, path in ROUTES.items() if not is_google(format)}
_LINE = (
    'each line is {"path": "/v1/chat/completions", "body": {…}}, as a client would send it, and perhaps "answer": {…}; '
    "without an answer the provider is asked, at its price"
)


def seconds(text: str) -> float:
    """Raises ValueError, also for what is no number."""
    if not math.isfinite(number := float(text)):
        raise ValueError(text)
    return number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    stats = actions.add_parser("stats", help="show what it holds, how often it answered, what it saved")
    stats.add_argument("--since", default="30d", metavar="WHEN", help="a date, a time, or a period (default: 30d)")
    clear = actions.add_parser("clear", help="drop the entries that fit all that is given")
    for name, about in (
        ("id", "the entry that an answer's x-mcpgate-cache-key names"),
        ("key", "what a key's requests brought"),
        ("tenant", "what a tenant shares, such as team:search"),
        ("tag", "what has a tag, from x-mcpgate-cache-tag"),
        ("model", "what a model has answered, as provider/model"),
        ("server", "results of an MCP server"),
        ("tool", "results of a tool"),
    ):
        clear.add_argument(f"--{name}", metavar=name.upper(), default="", help=about)
    clear.add_argument("--older-than", type=seconds, metavar="SECONDS", help="what is older")
    clear.add_argument("--all", action="store_true", help="everything, if nothing else is given")
    warm = actions.add_parser("warm", help="ask requests from a file, or keep their answers", description=_LINE)
    warm.add_argument("file", metavar="FILE", help="JSON lines; - for stdin")
    warm.add_argument("--key", metavar="KEY", help="whose requests they are, by id or name (default: the local caller)")
    outward = actions.add_parser("export", help="write entries to a file, as JSON lines")
    outward.add_argument("file", metavar="FILE", help="- for stdout")
    inward = actions.add_parser("import", help="keep exported entries")
    inward.add_argument("file", metavar="FILE", help="- for stdin")
    for action in (stats, clear, warm, outward, inward):
        add_format(action)
        add_config(action)


def run(arguments: argparse.Namespace) -> int:
    actions: dict[str, Callable[[argparse.Namespace, Gateway], Awaitable[int]]] = {
        "stats": _stats,
        "clear": _clear,
        "warm": _warm,
        "export": _export,
        "import": _import,
    }

    async def work() -> int:
        async with _opened(arguments) as gateway:
            return await actions[arguments.action](arguments, gateway)

    return asyncio.run(work())


@asynccontextmanager
async def _opened(arguments: argparse.Namespace) -> AsyncIterator[Gateway]:
    """The gateway without its MCP servers: nothing here asks them. Raises ConfigError."""
    config = config_or_default(arguments.config)
    if config.cache.store == "memory":
        raise ConfigError("cache.store is memory: only the running gateway has it; use /api/cache")
    async with running(config.model_copy(update={"mcpServers": {}}), with_engine=False) as gateway:
        yield gateway


async def _stats(arguments: argparse.Namespace, gateway: Gateway) -> int:
    shown = await standing(gateway.cache, gateway.config.cache, gateway.gate.store, arguments.since)
    if arguments.format == "json":
        console.show(shown)
        return 0
    hits = shown["hits"]
    asked = sum(hits.values()) + shown["misses"]
    rate = f"{shown['hit_rate']:.1%} of {words.number(asked)} requests" if asked else "nothing was asked yet"
    print(f"entries   {words.number(shown['entries'])}, {shown['bytes'] / 1024 / 1024:.1f} MiB in {shown['store']}")
    for kind, total in shown["kinds"].items():
        print(f"          {words.number(total['entries'])} of kind {kind}, {total['bytes'] / 1024 / 1024:.1f} MiB")
    print(f"hits      {rate}: {words.number(hits['exact'])} exact, {words.number(hits['semantic'])} semantic")
    print(f"saved     {words.dollars(shown['saved_usd'])}, {words.number(shown['saved_tokens'])} tokens")
    if not shown["enabled"]:
        console.note("the cache is switched off (cache.enabled)")
    return 0


async def _clear(arguments: argparse.Namespace, gateway: Gateway) -> int:
    names = ("id", "key", "tenant", "tag", "model", "server", "tool")
    before = None if arguments.older_than is None else gateway.cache.now() - arguments.older_than
    which = Selection(**{name: getattr(arguments, name) for name in names}, before=before)
    if which == EVERYTHING and not arguments.all:
        raise InvalidRequest("say which entries (see --help), or --all")
    dropped = await gateway.cache.drop(which)
    if arguments.format == "json":
        console.show({"dropped": dropped})
    else:
        print(f"dropped {words.number(dropped)} entries")
    return 0


async def _warm(arguments: argparse.Namespace, gateway: Gateway) -> int:
    caller = await _caller(gateway, arguments.key)
    counts = {"kept": 0, "failed": 0}
    for number, line in _lines(arguments.file):
        try:
            kept = await _warm_one(gateway, caller, line)
            reason = "" if kept else "such an answer is not kept"
        except McpgateError as error:
            kept, reason = False, error.message
        counts["kept" if kept else "failed"] += 1
        if reason:
            console.note(f"line {number}: {reason}")
    if arguments.format == "json":
        console.show(counts)
    else:
        print(f"kept {words.number(counts['kept'])} answers; {words.number(counts['failed'])} were not kept")
    return 1 if counts["failed"] else 0


async def _warm_one(gateway: Gateway, caller: Caller, line: dict[str, Any]) -> bool:
    """Raises McpgateError."""
    path, body = line.get("path", "/v1/chat/completions"), line.get("body")
    if path not in _FORMATS or not isinstance(body, dict):
        raise InvalidRequest(f"needs a body, and a path out of {', '.join(_FORMATS)}")
    asked = replace(read_asked(_FORMATS[path], jsontext.dumps(body), {}, ""), cache=Wish("use"))
    if "answer" in line:
        return await gateway.chat.teach(caller, asked, jsontext.dumps(line["answer"]))
    return await _ask(gateway, caller, asked)


async def _ask(gateway: Gateway, caller: Caller, asked: Asked) -> bool:
    async with gateway.chat.answering(RequestContext(caller), asked) as answer:
        what = answer.what
        if isinstance(what, Streamed):
            async for _ in what.events:
                pass
        elif what.status != 200:
            raise InvalidRequest(f"the provider answered HTTP {what.status}")
    return answer.question is not None and await gateway.cache.has(answer.question.id)


async def _caller(gateway: Gateway, name: str | None) -> Caller:
    """Raises NotFound."""
    if name is None:
        return LOCAL
    gate = gateway.gate
    found = await Admin(gate.store, gate.counters, lambda: gate.policy).get_key(name)
    return gate.policy.caller_of(*found)


async def _export(arguments: argparse.Namespace, gateway: Gateway) -> int:
    count = 0
    out = sys.stdout if arguments.file == "-" else Path(arguments.file).open("w", encoding="utf-8")  # noqa: SIM115, ASYNC230
    try:
        async for line in exported(gateway.cache, EVERYTHING):
            out.write(json.dumps(line) + "\n")
            count += 1
    finally:
        if out is not sys.stdout:
            out.close()
    if arguments.file != "-":
        console.note(f"wrote {words.number(count)} entries")
    return 0


async def _import(arguments: argparse.Namespace, gateway: Gateway) -> int:
    counts = {"kept": 0, "over": 0}
    for number, line in _lines(arguments.file):
        try:
            counts["kept" if await imported(gateway.cache, line) else "over"] += 1
        except InvalidRequest as error:
            raise InvalidRequest(f"line {number}: {error.message}") from None
    if arguments.format == "json":
        console.show(counts)
    else:
        print(f"kept {words.number(counts['kept'])} entries; the time of {words.number(counts['over'])} was over")
    return 0


def _lines(name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file of JSON lines, with the numbers of their lines. Raises InvalidRequest, ConfigError."""
    try:
        file = sys.stdin if name == "-" else Path(name).open(encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise ConfigError(f"{name}: {error.strerror}") from error
    with file:
        for number, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                line = jsontext.loads(text.encode())
            except ValueError as error:
                raise InvalidRequest(f"line {number} is not JSON: {error}") from None
            if not isinstance(line, dict):
                raise InvalidRequest(f"line {number} must be a JSON object")
            yield number, line
