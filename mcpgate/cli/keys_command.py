"""`mcpgate keys`: virtual keys, made, listed, rotated and revoked in the store; a running gateway follows at once."""

import argparse
import asyncio
import datetime
import textwrap
from collections.abc import Awaitable, Callable
from typing import Any

from mcpgate.app import open_stores
from mcpgate.cli import console, words
from mcpgate.cli.gateway_session import add_config, add_format, config_or_default
from mcpgate.config.governance import KeySpec
from mcpgate.config.periods import Period
from mcpgate.config.settings import Config, needs_key
from mcpgate.errors import InvalidRequest
from mcpgate.governance.admin import Admin, parse, shown_key
from mcpgate.governance.callers import VirtualKey
from mcpgate.governance.policy import Policy
from mcpgate.telemetry.text import visible

_ACTOR = "command line"


EXAMPLES = (
    "mcpgate keys create laptop --tools '*'",
    "mcpgate keys create ci --tools 'files.*' docs.search --budget 10/1d",
    "mcpgate keys create bot --servers github --rate 100/1m --expires 90d",
    "mcpgate keys list",
    "mcpgate keys rotate ci --overlap 2h",
    "mcpgate keys revoke laptop",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = actions.add_parser("create", help="make a key; its secret is shown once")
    create.add_argument("name", nargs="?", default="", help="a name that says what it is for")
    create.add_argument(
        "--tools", nargs="+", default=[], metavar="GLOB", help="tools it may call, as server.tool; '*' for all"
    )
    create.add_argument(
        "--servers", nargs="+", default=[], metavar="GLOB", help="servers of which it may call every tool"
    )
    create.add_argument(
        "--models", nargs="+", default=[], metavar="GLOB", help="models it may use, as aliases or provider/model"
    )
    create.add_argument("--providers", nargs="+", default=[], metavar="GLOB", help="providers whose models it may use")
    create.add_argument(
        "--meta-tools", nargs="+", metavar="GLOB", help="meta-tools it may call (default: all, for a key with any tool)"
    )
    create.add_argument("--admin", action="store_true", help="it may use the admin API and the dashboard")
    for scope in ("user", "team", "customer"):
        create.add_argument(f"--{scope}", metavar="ID", help=f"the {scope} it belongs to; its limits apply as well")
    create.add_argument(
        "--users",
        nargs="*",
        metavar="GLOB",
        help="users that its requests may name in x-mcpgate-user (default: declared users)",
    )
    create.add_argument(
        "--metadata",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="metadata that its requests carry, e.g. env=ci; with `*` or several values (project=p-*,shared), the "
        "values that they may set; repeatable",
    )
    create.add_argument("--expires", metavar="WHEN", help="a date, or a period like 90d")
    create.add_argument(
        "--budget",
        action="append",
        default=[],
        metavar="USD/PERIOD",
        help="what it may spend in a period, e.g. 10/1d; repeatable",
    )
    create.add_argument(
        "--rate",
        action="append",
        default=[],
        metavar="REQUESTS/PERIOD",
        help="requests in a period, e.g. 100/1m; repeatable",
    )
    create.add_argument("--concurrency", type=int, metavar="N", help="requests at once")
    create.add_argument("--ip", nargs="+", default=[], metavar="NETWORK", help="addresses it may be used from")
    listed = actions.add_parser("list", help="list the keys; secrets are not stored")
    rotate = actions.add_parser("rotate", help="make a new secret; the old one stays valid for a while")
    rotate.add_argument("key", help="id or name")
    rotate.add_argument(
        "--overlap", default="1d", metavar="PERIOD", help="how long the old secret stays valid (default: 1d)"
    )
    revoke = actions.add_parser("revoke", help="revoke a key at once, in every worker")
    revoke.add_argument("key", help="id or name")
    for action in (create, listed, rotate, revoke):
        add_format(action)
        add_config(action)


def run(arguments: argparse.Namespace) -> int:
    config = config_or_default(arguments.config)

    async def work(admin: Admin) -> None:
        match arguments.action:
            case "create":
                spec = _spec(arguments)
                key, secret = await admin.create_key(spec, _ACTOR)
                _show_secret(arguments, key.id, secret)
                if spec.grants == KeySpec().grants:
                    console.note("this key has no grants yet; --tools '*' grants every tool")
                if not needs_key(config, config.server.host):
                    console.note(
                        f"requests to {config.server.host} without a key are also accepted and may call every tool; to "
                        "require a key, set governance.require_key: true"
                    )
            case "rotate":
                key, secret = await admin.rotate_key(arguments.key, arguments.overlap, _ACTOR)
                _show_secret(arguments, key.id, secret)
            case "revoke":
                key = await admin.revoke_key(arguments.key, _ACTOR)
                console.show(shown_key(key)) if arguments.format == "json" else print(f"{key.id} is revoked")
            case _:
                await _list(admin, arguments.format)

    _with_admin(config, work)
    return 0


def _with_admin(config: Config, work: Callable[[Admin], Awaitable[None]]) -> None:
    async def main() -> None:
        stores = await open_stores(config)
        try:
            policy = Policy(config.governance)
            await work(Admin(stores.store, stores.counters, lambda: policy))
        finally:
            await stores.close()

    asyncio.run(main())


async def all_keys(admin: Admin) -> list[VirtualKey]:
    """Every key there is, of the configuration file and of the store."""
    keys = page = await admin.list_keys()
    while page and not page[-1].declared:
        page = await admin.list_keys(page[-1].id)
        keys += page
    return keys


async def _list(admin: Admin, form: str) -> None:
    shown = []
    for key in await all_keys(admin):
        limits = await admin.standings("key", key.id) if key.revoked_at is None else []
        shown.append({**shown_key(key), "limits": limits})
    if form == "json":
        console.show(shown)
    elif not shown:
        print("there are no keys; `mcpgate keys create NAME --tools '*'` makes one")
    else:
        print("\n".join(line for key in shown for line in _lines(key)))


def _lines(key: dict[str, Any]) -> list[str]:
    """A key in a few lines: what it is called, whose it is and what it may do, what is left of its limits."""
    secret = f"  …{key['secret_ends_with']}" if key["secret_ends_with"] else ""
    title = f"{key['name'] or '(no name)'}  {key['id']}" if key["name"] != key["id"] else key["id"]
    where = " (file)" if key["declared"] else ""
    expires = f"  until {key['expires_at'][:10]}" if key["expires_at"] else ""
    grants = key["grants"]
    facts = [f"{scope} {key[scope]}" for scope in ("user", "team", "customer") if key[scope]]
    facts += [f"{what} {' '.join(grants[what])}" for what in ("tools", "servers", "models") if grants[what]]
    facts += ["admin"] if grants["admin"] else []
    parts = [facts or ["no grants"], [_left(limit) for limit in key["limits"]]]
    return [
        f"{console.styled(visible(title), 'bold')}  {key['state']}{where}{secret}{expires}",
        *(line for part in parts for line in _wrapped(part)),
    ]


def _wrapped(parts: list[str]) -> list[str]:
    """Parts in lines of 80 columns, broken between parts where that is possible."""
    lines: list[str] = []
    for part in map(visible, parts):
        if lines and len(lines[-1]) + 3 + len(part) <= 80:
            lines[-1] += f" · {part}"
        else:
            lines += textwrap.wrap(part, 80, initial_indent="    ", subsequent_indent="      ")
    return lines


def _left(limit: dict[str, Any]) -> str:
    """`$10.00 a day, $7.50 left`."""
    if limit["measure"] == "cost":
        total, left = words.dollars(limit["limit"]), words.dollars(limit["left"])
    elif limit["measure"] == "concurrency":
        return f"{words.number(limit['limit'])} requests at once, {words.number(limit['left'])} free"
    else:
        total = f"{words.number(limit['limit'])} {limit['measure'].replace('_', ' ')}"
        left = words.number(limit["left"])
    return f"{total}{words.per(limit['window'])}, {left} left"


def _show_secret(arguments: argparse.Namespace, id: str, secret: str) -> None:
    if arguments.format == "json":
        console.show({"id": id, "secret": secret})
        return
    print(f"id      {id}\nsecret  {secret}")
    console.note("the secret is shown only once; send it as Authorization: Bearer mg-… or x-api-key: mg-…")


def _spec(arguments: argparse.Namespace) -> KeySpec:
    limits: list[dict[str, Any]] = []
    for text in arguments.rate:
        requests, window = _per(text, "--rate", "100/1m")
        limits.append({"requests": requests, "window": window})
    if arguments.concurrency is not None:
        limits.append({"concurrency": arguments.concurrency})
    budgets = []
    for text in arguments.budget:
        usd, period = _per(text, "--budget", "10/1d")
        budgets.append({"limit_usd": usd, "period": period})
    spec: KeySpec = parse(
        KeySpec,
        {
            "name": arguments.name,
            "user": arguments.user,
            "team": arguments.team,
            "customer": arguments.customer,
            "grants": {
                "tools": arguments.tools,
                "servers": arguments.servers,
                "models": arguments.models,
                "providers": arguments.providers,
                "meta_tools": arguments.meta_tools,
                "admin": arguments.admin,
            },
            "budget": budgets,
            "rate_limits": limits,
            "expires_at": _expiry(arguments.expires),
            "allowed_ips": arguments.ip,
            "users": arguments.users,
            "metadata": _metadata(arguments.metadata),
        },
    )
    return spec


def _metadata(pairs: list[str]) -> dict[str, str | list[str]]:
    found: dict[str, str | list[str]] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or name in found:
            raise InvalidRequest(
                f"--metadata is {pair!r}; expected NAME=VALUE, each name once: env=ci is what all requests of the key "
                "carry, project=p-*,shared lists the values that they may set"
            )
        several = "," in value or any(c in value for c in "*?[")
        found[name] = value.split(",") if several else value
    return found


def _per(text: str, option: str, example: str) -> tuple[str, str]:
    amount, separator, period = text.partition("/")
    if not separator:
        raise InvalidRequest(f"{option} is {text!r}; expected an amount and a period, e.g. {example}")
    return amount, period


def _expiry(text: str | None) -> str | None:
    if text is None:
        return None
    now = datetime.datetime.now(datetime.UTC)
    try:
        return (now + (now - Period.parse(text).before(now))).isoformat()
    except (ValueError, OverflowError):
        return text


def id_of_key(name: str, keys: list[VirtualKey]) -> str:
    """The id of the key that is meant by an id or a name; of several of one name, the one that is not revoked."""
    if any(key.id == name for key in keys):
        return name
    same = sorted(
        (key for key in keys if key.name == name), key=lambda key: (key.revoked_at is not None, -key.created_at)
    )
    if not same:
        return name  # the ledger may know keys that are nowhere else
    if len(same) > 1:
        others = ", ".join(key.id for key in same[1:])
        console.note(f"several keys have the name {name!r}; this is {same[0].id}. Others: {others}")
    return same[0].id
