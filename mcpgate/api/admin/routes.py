"""The admin API: keys, scopes, budgets, rate limits, usage, audit, as REST under /api. One table of routes is what
serves and what /api/openapi.json is made from. Not here: the rules themselves, see governance/admin.py."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from mcpgate import jsontext
from mcpgate.api.admin.openapi import openapi
from mcpgate.api.admin.streams import Streams
from mcpgate.api.http.access import Access
from mcpgate.api.http.exchange import Closing, Exchange
from mcpgate.api.http.routing import Call, Face, Handler, Reply, Route, Routes, check_text, json_reply
from mcpgate.config.governance import Id, KeyId, KeySpec
from mcpgate.errors import InvalidRequest, NotAllowed, NotFound, Unavailable
from mcpgate.governance.admin import Admin, parse, shown_key
from mcpgate.governance.callers import Caller
from mcpgate.governance.gate import Gate
from mcpgate.governance.ledger import BUCKETS, DIMENSIONS, SUMS, make_query, parse_where, render_csv, shown_row
from mcpgate.governance.policy import RECORD_KINDS
from mcpgate.governance.realm import covers, covers_key, within
from mcpgate.governance.records import Entry, to_usd
from mcpgate.governance.store import StoreUnavailable

_MOST_ROWS = 10_000
_MOST_GROUPS = 1_000_000
_MOST_SUBJECTS = 100
"""Of one limit, in a list of many."""
_FOR_OTHERS = "/api/requests"
"""Only below this path are routes for callers without the grant `admin`, who learn of no others."""
_ID = TypeAdapter(Id)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NewKey(KeySpec):
    """A new key."""

    id: KeyId | None = None
    """Default: generated."""


class Rotation(_Model):
    overlap: str = "1d"
    """How long the old secret stays valid: a period, or 0."""


class Reset(_Model):
    subject: str | None = None
    """Whose usage to reset: for a budget per user, the user. Default: everyone's."""


_PAGE = {
    "limit": "The most entries of one page.",
    "before": "Only smaller numbers: pass the last number of the previous page.",
}
_QUESTION = {
    "since": "A date, a time, or a period like 7d. Default: 30d.",
    "until": "A date or a time. Default: now.",
    "where": "NAME=VALUE of a dimension. Separate several with commas.",
}


class AdminFace(Face):
    """Answers requests under /api."""

    def __init__(self, gate: Gate, access: Access, closing: Closing, more: Sequence[Route] = ()) -> None:
        """`more`: routes of other parts of the gateway."""
        self._gate, self._access, self._store, self._clock = gate, access, gate.store, time.time
        self._streams = Streams(access, closing)
        self._admin = Admin(gate.store, gate.counters, lambda: gate.policy)
        self._table = [*self._make_routes(), *more]
        self._routes = Routes(self._table)
        self._openapi: bytes | None = None

    def handler(self, path: str) -> Mapping[str, Handler] | None:
        if path == "/api/openapi.json":
            return {"GET": self._describe}
        if path.startswith("/api/"):
            return dict.fromkeys(("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"), self._answer)
        return None

    async def _describe(self, http: Exchange) -> None:
        if self._openapi is None:
            self._openapi = orjson.dumps(openapi(self._table))
        await http.respond(200, self._openapi)

    async def _answer(self, http: Exchange) -> None:
        caller = await self._access.identify(http)
        query = http.query()
        body = await http.body() if http.method in ("POST", "PUT", "PATCH") else b""
        try:
            given = jsontext.loads(body, most=jsontext.MAX_REQUEST_VALUES) if body else None
        except ValueError as error:
            raise InvalidRequest(f"the body is not valid JSON: {error}") from None
        try:
            reply = await self._reply(caller, http.method, http.path, query, given)
        except StoreUnavailable as error:
            raise Unavailable("the store is unavailable; try again shortly") from error
        if reply.events is not None:
            await self._streams.send(http, caller, reply.events)
            return
        headers = {"content-type": reply.content_type, "cache-control": "no-store"}
        await http.respond(reply.status, reply.body, headers)

    async def _reply(self, caller: Caller, method: str, path: str, query: Mapping[str, str], body: Any) -> Reply:
        may_all, found = caller.grants.admin, None
        if may_all or path.startswith(_FOR_OTHERS):
            found = self._routes.find(method, path)
        if not may_all and (found is None or found[0].admin):
            raise NotAllowed("the admin API needs a key with the grant `admin`", key=caller.id)
        if found is None:
            raise NotFound(f"no route {path}; /api/openapi.json lists them")
        route, names = found
        if caller.realm is not None and route.admin and not route.for_realms:
            raise NotAllowed(f"this key only reads what is the {' '.join(caller.realm)}'s", key=caller.id)
        for text in (*names.values(), *query.values()):
            check_text(text)
        if unknown := [name for name in query if name not in route.query]:
            known = f"it takes {', '.join(route.query)}" if route.query else "it takes none"
            raise InvalidRequest(f"unknown query parameter {unknown[0][:80]!r}; {known}")
        if route.body is not None:
            body = {} if body is None else body
            if not isinstance(body, dict):
                raise InvalidRequest("the body must be a JSON object")
            check_text(body)
        reply = await route.handle(Call(caller, names, query, body))
        if method != "GET":
            await self._gate.refresh()
        return reply

    # --- keys

    async def _list_keys(self, call: Call) -> Reply:
        limit = call.whole_number("limit", 100, 1000)
        after = call.query.get("after", "")
        keys = await self._admin.list_keys(after, limit)
        stored = [key.id for key in keys if not key.declared]
        if call.caller.realm is not None:
            keys = [key for key in keys if await self._sees(call.caller, "key", key.id)]
        shown = [shown_key(key) for key in keys]
        return json_reply({"keys": shown, "after": stored[-1] if len(stored) == limit else None})

    async def _create_key(self, call: Call) -> Reply:
        given = parse(NewKey, call.body)
        spec = KeySpec.model_validate(given.model_dump(exclude={"id"}))
        key, secret = await self._admin.create_key(spec, call.caller.actor, given.id)
        return json_reply({"key": shown_key(key, spec), "secret": secret}, 201)

    async def _get_key(self, call: Call) -> Reply:
        await self._check_sees(call, "key")
        return json_reply(shown_key(*await self._admin.get_key(call.path["id"])))

    async def _change_key(self, call: Call) -> Reply:
        return json_reply(shown_key(*await self._admin.change_key(call.path["id"], call.body, call.caller.actor)))

    async def _rotate_key(self, call: Call) -> Reply:
        overlap = parse(Rotation, call.body).overlap
        key, secret = await self._admin.rotate_key(call.path["id"], overlap, call.caller.actor)
        return json_reply({"key": shown_key(key), "secret": secret})

    async def _revoke_key(self, call: Call) -> Reply:
        return json_reply(shown_key(await self._admin.revoke_key(call.path["id"], call.caller.actor)))

    # --- what is declared

    def _lister(self, kind: str, plural: str) -> Callable[[Call], Awaitable[Reply]]:
        async def handle(call: Call) -> Reply:
            declared, realm, policy = self._admin.list_declared(kind), call.caller.realm, self._gate.policy
            seen = [id for id, (value, _) in declared.items() if covers(realm, kind, id, value, policy)]
            return json_reply({plural: [_declared(id, *declared[id]) for id in sorted(seen)]})

        return handle

    def _getter(self, kind: str) -> Callable[[Call], Awaitable[Reply]]:
        async def handle(call: Call) -> Reply:
            id = call.path["id"]
            await self._check_sees(call, kind)
            return json_reply(_declared(id, *self._admin.get_declared(kind, id)))

        return handle

    def _putter(self, kind: str) -> Callable[[Call], Awaitable[Reply]]:
        async def handle(call: Call) -> Reply:
            id = call.path["id"]
            try:
                _ID.validate_python(id)
            except ValidationError as error:
                raise InvalidRequest(f"id {id[:80]!r}: {error.errors()[0]['msg']}") from None
            return json_reply(_declared(id, await self._admin.put(kind, id, call.body, call.caller.actor), False))

        return handle

    def _deleter(self, kind: str) -> Callable[[Call], Awaitable[Reply]]:
        async def handle(call: Call) -> Reply:
            await self._admin.delete(kind, call.path["id"], call.caller.actor)
            return Reply(b"", 204)

        return handle

    def _stander(self, kind: str) -> Callable[[Call], Awaitable[Reply]]:
        async def handle(call: Call) -> Reply:
            await self._check_sees(call, kind)
            return json_reply({"standings": await self._admin.standings(kind, call.path["id"])})

        return handle

    def _resetter(self, kind: str) -> Callable[[Call], Awaitable[Reply]]:
        async def handle(call: Call) -> Reply:
            subject = parse(Reset, call.body).subject
            await self._admin.reset(kind, call.path["id"], subject, call.caller.actor)
            return Reply(b"", 204)

        return handle

    async def _sees(self, caller: Caller, kind: str, id: str) -> bool:
        """Whether something declared is shown to an administrator. Raises NotFound."""
        if caller.realm is None:
            return True
        if kind == "key":
            return covers_key(caller.realm, *await self._admin.get_key(id), self._gate.policy)
        return covers(caller.realm, kind, id, self._admin.get_declared(kind, id)[0], self._gate.policy)

    async def _check_sees(self, call: Call, kind: str) -> None:
        """Raises NotFound, for what is another's as for what is nobody's."""
        id = call.path["id"]
        if not await self._sees(call.caller, kind, id):
            raise NotFound(f"there is no {kind.replace('_', ' ')} {id!r}")

    async def _limits(self, call: Call) -> Reply:
        kind = call.query.get("kind", "budget")
        if kind not in (*RECORD_KINDS, "key"):
            raise InvalidRequest(f"kind must be one of {', '.join((*RECORD_KINDS, 'key'))}, not {kind[:40]!r}")
        ids, after = await self._admin.list_limited(
            kind, call.query.get("after", ""), call.whole_number("limit", 50, 200)
        )
        found: list[dict[str, Any]] = []
        for id in ids:
            if await self._sees(call.caller, kind, id):
                rows = await self._admin.standings(kind, id, _MOST_SUBJECTS)
                found += [{"kind": kind, "of": id, **row} for row in rows]
        return json_reply({"limits": found, "after": after})

    # --- what was done

    async def _usage(self, call: Call) -> Reply:
        by = [name.strip() for name in call.query.get("by", "").split(",") if name.strip()]
        query = make_query(by, _where(call), call.query.get("since", "30d"), call.query.get("until"), self._clock())
        query = replace(query, order=_order(call), limit=call.whole_number("limit", _MOST_GROUPS, _MOST_GROUPS))
        await self._gate.flush()
        rows = [shown_row(row) for row in await self._store.report(query)]
        match call.query.get("format", "json"):
            case "json":
                return json_reply({"rows": rows})
            case "csv":
                return Reply(render_csv(by, rows).encode(), content_type="text/csv; charset=utf-8")
        raise InvalidRequest("format must be json or csv")

    async def _entries(self, call: Call) -> Reply:
        query = make_query([], _where(call), call.query.get("since", "30d"), call.query.get("until"), self._clock())
        limit = call.whole_number("limit", 100, _MOST_ROWS)
        before = call.whole_number("before", 1 << 62, 1 << 62)
        await self._gate.flush()
        found = await self._store.list_entries(query, limit, before)
        return json_reply({"entries": [{"number": number, **_shown_entry(entry)} for number, entry in found]})

    async def _audit(self, call: Call) -> Reply:
        limit, before = call.whole_number("limit", 100, _MOST_ROWS), call.whole_number("before", 1 << 62, 1 << 62)
        lines = await self._store.list_audit(limit, before)
        return json_reply({"audit": [{"number": number, **_shown_change(asdict(line))} for number, line in lines]})

    def _make_routes(self) -> list[Route]:
        key = "/api/keys/{id}"
        page = {"limit": _PAGE["limit"], "after": "Only later ids: pass `after` of the previous page."}
        routes = [
            Route("GET", "/api/keys", "List keys", self._list_keys, query=page, for_realms=True),
            Route("POST", "/api/keys", "Create a key; only this answer has its secret", self._create_key, NewKey,
                  status=201),
            Route("GET", key, "Get a key", self._get_key, for_realms=True),
            Route("PATCH", key, "Change the given fields of a key", self._change_key, KeySpec),
            Route("DELETE", key, "Revoke a key at once", self._revoke_key),
            Route("POST", f"{key}/rotate", "Create a new secret; the old one stays valid for a while", self._rotate_key,
                  Rotation),
            Route("POST", f"{key}/revoke", "Revoke a key at once", self._revoke_key),
            Route("GET", f"{key}/standing", "Current usage of its limits", self._stander("key"), for_realms=True),
            Route("POST", f"{key}/reset", "Reset its limits", self._resetter("key"),
                  Reset, status=204),
        ]  # fmt: skip
        for kind, model in RECORD_KINDS.items():
            plural = kind.replace("_", "-") + "s"
            words = kind.replace("_", " ")
            one = f"/api/{plural}/{{id}}"
            routes += [
                Route("GET", f"/api/{plural}", f"List {words}s", self._lister(kind, plural.replace("-", "_")),
                      for_realms=True),
                Route("GET", one, f"Get a {words}", self._getter(kind), for_realms=True),
                Route("PUT", one, f"Create or replace a {words}", self._putter(kind), model),
                Route("DELETE", one, f"Remove a {words}", self._deleter(kind), status=204),
                Route("GET", f"{one}/standing", "What is spent, reserved and left", self._stander(kind),
                      for_realms=True),
                Route("POST", f"{one}/reset", "Reset its usage", self._resetter(kind), Reset, status=204),
            ]  # fmt: skip
        groups = f"Dimensions to group by, separated by commas: {', '.join((*BUCKETS, *DIMENSIONS))}, metadata.NAME."
        usage = {
            "by": groups, **_QUESTION, "order": "A sum, such as cost: the groups with most of it come first.",
            "limit": "The most groups.", "format": "json or csv.",
        }  # fmt: skip
        routes += [
            Route("GET", "/api/limits", "What is spent and left of limits, and how long it will last", self._limits,
                  query={"kind": f"Whose limits: {', '.join((*RECORD_KINDS, 'key'))}. Default: budget.",
                         "limit": "The most that are looked at.",
                         "after": "Only later ids: pass `after` of the previous page."}, for_realms=True),
            Route("GET", "/api/usage", "Usage and cost, grouped", self._usage, query=usage, for_realms=True),
            Route("GET", "/api/entries", "Ledger entries, newest first", self._entries,
                  query={**_QUESTION, **_PAGE}, for_realms=True),
            Route("GET", "/api/audit", "Configuration changes, newest first", self._audit, query=_PAGE),
        ]  # fmt: skip
        return routes


def _where(call: Call) -> dict[str, str]:
    given = parse_where(part for part in call.query.get("where", "").split(",") if part.strip())
    return within(call.caller.realm, given)


def _order(call: Call) -> str:
    name = call.query.get("order", "")
    if name and name not in SUMS:
        raise InvalidRequest(f"order must be one of {', '.join(SUMS)}, not {name[:40]!r}")
    return name


def _declared(id: str, value: BaseModel, in_file: bool) -> dict[str, Any]:
    return {**value.model_dump(mode="json"), "id": id, "declared": in_file}


def _shown_entry(entry: Entry) -> dict[str, Any]:
    shown = entry._asdict()
    cost, saved = shown.pop("cost"), asdict(shown.pop("saved"))
    shown["cost_saved_usd"] = f"{to_usd(saved.pop('cost')):f}"
    usage = entry.usage._replace(more={})._asdict() | {f"{name}_saved": number for name, number in saved.items()}
    shown["usage"] = usage | {"more": dict(entry.usage.more)}
    shown |= {name: dict(shown[name]) for name in ("metadata", "timings", "facts")}
    return {**shown, "cost_usd": None if cost is None else f"{to_usd(cost):f}"}


def _shown_change(line: dict[str, Any]) -> dict[str, Any]:
    value = line["value"]
    if isinstance(value, dict):  # a digest is no secret, and nobody's business either
        line["value"] = {name: part for name, part in value.items() if name != "digests"}
    return line
