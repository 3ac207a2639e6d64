"""The admin API: keys, scopes, budgets, rate limits, usage, audit, as REST under /api. One table of routes is what
serves and what /api/openapi.json is made from. Not here: the rules themselves, see governance/admin.py."""

import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.json_schema import models_json_schema

from mcpgate import __version__
from mcpgate.config.governance import Id, KeyId, KeySpec
from mcpgate.errors import InvalidRequest, McpgateError, NotAllowed, NotFound
from mcpgate.governance.admin import Admin, parse, shown_key
from mcpgate.governance.callers import Caller
from mcpgate.governance.gate import Gate
from mcpgate.governance.ledger import BUCKETS, DIMENSIONS, make_query, parse_where, render_csv, shown_row
from mcpgate.governance.policy import RECORD_KINDS
from mcpgate.governance.records import Entry, to_usd

_MOST_ROWS = 10_000
_ID = TypeAdapter(Id)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NewKey(KeySpec):
    """A key to make."""

    id: KeyId | None = None
    """Default: made up."""


class Rotation(_Model):
    overlap: str = "1d"
    """How long the old secret stays good: a period, or 0."""


class Reset(_Model):
    subject: str | None = None
    """Whose share: of a budget per user, the user. Default: everybody's."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request of the admin API, taken apart."""

    caller: Caller
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any

    def whole_number(self, name: str, default: int, most: int) -> int:
        text = self.query.get(name)
        if text is None:
            return default
        if len(text) > 20 or not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
            raise InvalidRequest(f"{name} must be a whole number from 1 to {most}, not {text[:40]!r}")
        return int(text)


@dataclass(frozen=True, slots=True)
class Reply:
    body: bytes
    status: int = 200
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str
    """With {names}."""
    summary: str
    handle: Callable[[Call], Awaitable[Reply]]
    body: type[BaseModel] | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    """Name → what it is."""
    status: int = 200


_PAGE = {"limit": "How many, at most.", "before": "Only those with a smaller number: the last one of the page before."}
_QUESTION = {
    "since": "A date, a time, or a period like 7d. Default: 30d.",
    "until": "A date or a time. Default: now.",
    "where": "NAME=VALUE of a dimension, several separated by commas.",
}


class AdminApi:
    """Answers requests under /api."""

    def __init__(self, gate: Gate) -> None:
        self._gate, self._durable, self._clock = gate, gate.durable, time.time
        self._admin = Admin(gate.durable, gate.counters, lambda: gate.policy)
        self._routes = self._make_routes()
        self._patterns = [(route, _pattern(route.path)) for route in self._routes]
        self._openapi: bytes | None = None

    def openapi(self) -> bytes:
        """The description of this API, OpenAPI 3.1."""
        if self._openapi is None:
            self._openapi = orjson.dumps(_openapi(self._routes))
        return self._openapi

    async def answer(self, caller: Caller, method: str, path: str, query: Mapping[str, str], body: Any) -> Reply:
        """Raises NotAllowed, NotFound, InvalidRequest, Conflict, Unavailable."""
        if not caller.grants.admin:
            raise NotAllowed("the admin API needs a key with the grant `admin`", key=caller.id)
        allowed = []
        for route, pattern in self._patterns:
            found = pattern.fullmatch(path)
            if found is None:
                continue
            if route.method != method:
                allowed.append(route.method)
                continue
            for text in (*found.groupdict().values(), *query.values()):
                _check_text(text)
            if unknown := [name for name in query if name not in route.query]:
                known = f"it takes {', '.join(route.query)}" if route.query else "it takes none"
                raise InvalidRequest(f"unknown query parameter {unknown[0][:80]!r}; {known}")
            if route.body is not None:
                body = {} if body is None else body
                if not isinstance(body, dict):
                    raise InvalidRequest("the body must be a JSON object")
                _check_text(body)
            reply = await route.handle(Call(caller, found.groupdict(), query, body))
            if method != "GET":
                await self._gate.refresh()
            return reply
        if allowed:
            shown = ", ".join(allowed)
            raise MethodNotAllowed(f"{method} is not allowed on {path}; {shown} is", allow=shown)
        raise NotFound(f"no route {path}; /api/openapi.json lists them")

    # --- keys

    async def _list_keys(self, call: Call) -> Reply:
        limit = call.whole_number("limit", 100, 1000)
        after = call.query.get("after", "")
        keys = await self._admin.list_keys(after, limit)
        return _json({"keys": [shown_key(key) for key in keys]})

    async def _create_key(self, call: Call) -> Reply:
        given = parse(NewKey, call.body)
        spec = KeySpec.model_validate(given.model_dump(exclude={"id"}))
        key, secret = await self._admin.create_key(spec, call.caller.id, given.id)
        return _json({"key": shown_key(key, spec), "secret": secret}, 201)

    async def _get_key(self, call: Call) -> Reply:
        return _json(shown_key(*await self._admin.get_key(call.path["id"])))

    async def _change_key(self, call: Call) -> Reply:
        return _json(shown_key(*await self._admin.change_key(call.path["id"], call.body, call.caller.id)))

    async def _rotate_key(self, call: Call) -> Reply:
        overlap = parse(Rotation, call.body).overlap
        key, secret = await self._admin.rotate_key(call.path["id"], overlap, call.caller.id)
        return _json({"key": shown_key(key), "secret": secret})

    async def _revoke_key(self, call: Call) -> Reply:
        return _json(shown_key(await self._admin.revoke_key(call.path["id"], call.caller.id)))

    # --- what is declared

    def _lister(self, kind: str, plural: str) -> Callable[[Call], Awaitable[Reply]]:
        async def handle(call: Call) -> Reply:
            declared = self._admin.list_declared(kind)
            return _json({plural: [_declared(id, *found) for id, found in sorted(declared.items())]})

        return handle

    def _getter(self, kind: str) -> Callable[[Call], Awaitable[Reply]]:
        async def handle(call: Call) -> Reply:
            found = self._admin.list_declared(kind).get(call.path["id"])
            if found is None:
                raise NotFound(f"there is no {kind.replace('_', ' ')} {call.path['id']!r}")
            return _json(_declared(call.path["id"], *found))

        return handle

    def _putter(self, kind: str) -> Callable[[Call], Awaitable[Reply]]:
        async def handle(call: Call) -> Reply:
            id = call.path["id"]
            try:
                _ID.validate_python(id)
            except ValidationError as error:
                raise InvalidRequest(f"id {id[:80]!r}: {error.errors()[0]['msg']}") from None
            return _json(_declared(id, await self._admin.put(kind, id, call.body, call.caller.id), False))

        return handle

    def _deleter(self, kind: str) -> Callable[[Call], Awaitable[Reply]]:
        async def handle(call: Call) -> Reply:
            await self._admin.delete(kind, call.path["id"], call.caller.id)
            return Reply(b"", 204)

        return handle

    def _stander(self, kind: str) -> Callable[[Call], Awaitable[Reply]]:
        async def handle(call: Call) -> Reply:
            return _json({"standings": await self._admin.standings(kind, call.path["id"])})

        return handle

    def _resetter(self, kind: str) -> Callable[[Call], Awaitable[Reply]]:
        async def handle(call: Call) -> Reply:
            subject = parse(Reset, call.body).subject
            await self._admin.reset(kind, call.path["id"], subject, call.caller.id)
            return Reply(b"", 204)

        return handle

    # --- what was done

    async def _usage(self, call: Call) -> Reply:
        by = [name.strip() for name in call.query.get("by", "").split(",") if name.strip()]
        query = make_query(by, _where(call), call.query.get("since", "30d"), call.query.get("until"), self._clock())
        rows = [shown_row(row) for row in await self._durable.report(query)]
        match call.query.get("format", "json"):
            case "json":
                return _json({"rows": rows})
            case "csv":
                return Reply(render_csv(by, rows).encode(), content_type="text/csv; charset=utf-8")
        raise InvalidRequest("format must be json or csv")

    async def _entries(self, call: Call) -> Reply:
        query = make_query([], _where(call), call.query.get("since", "30d"), call.query.get("until"), self._clock())
        limit = call.whole_number("limit", 100, _MOST_ROWS)
        before = call.whole_number("before", 1 << 62, 1 << 62)
        found = await self._durable.list_entries(query, limit, before)
        return _json({"entries": [{"number": number, **_shown_entry(entry)} for number, entry in found]})

    async def _audit(self, call: Call) -> Reply:
        limit, before = call.whole_number("limit", 100, _MOST_ROWS), call.whole_number("before", 1 << 62, 1 << 62)
        lines = await self._durable.list_audit(limit, before)
        return _json({"audit": [{"number": number, **_shown_change(asdict(line))} for number, line in lines]})

    def _make_routes(self) -> list[Route]:
        key = "/api/keys/{id}"
        page = {"limit": _PAGE["limit"], "after": "Only ids after this one: the last one of the page before."}
        routes = [
            Route("GET", "/api/keys", "List keys", self._list_keys, query=page),
            Route("POST", "/api/keys", "Make a key; its secret is in this answer only", self._create_key, NewKey,
                  status=201),
            Route("GET", key, "One key", self._get_key),
            Route("PATCH", key, "Change what is given of a key", self._change_key, KeySpec),
            Route("DELETE", key, "Revoke a key at once", self._revoke_key),
            Route("POST", f"{key}/rotate", "Make a new secret; the old one stays good for a while", self._rotate_key,
                  Rotation),
            Route("POST", f"{key}/revoke", "Revoke a key at once", self._revoke_key),
            Route("GET", f"{key}/standing", "What its own ceilings stand at", self._stander("key")),
            Route("POST", f"{key}/reset", "Nothing is spent any more of its own ceilings", self._resetter("key"),
                  Reset, status=204),
        ]  # fmt: skip
        for kind, model in RECORD_KINDS.items():
            plural = kind.replace("_", "-") + "s"
            words = kind.replace("_", " ")
            one = f"/api/{plural}/{{id}}"
            routes += [
                Route("GET", f"/api/{plural}", f"List {words}s", self._lister(kind, plural.replace("-", "_"))),
                Route("GET", one, f"One {words}", self._getter(kind)),
                Route("PUT", one, f"Declare a {words}, or declare it anew", self._putter(kind), model),
                Route("DELETE", one, f"Remove a {words}", self._deleter(kind), status=204),
                Route("GET", f"{one}/standing", "What is spent, reserved and left", self._stander(kind)),
                Route("POST", f"{one}/reset", "Nothing is spent any more", self._resetter(kind), Reset, status=204),
            ]
        groups = f"Dimensions to group by, separated by commas: {', '.join((*BUCKETS, *DIMENSIONS))}, metadata.NAME."
        usage = {"by": groups, **_QUESTION, "format": "json or csv."}
        routes += [
            Route("GET", "/api/usage", "What was done and what it cost, added up", self._usage, query=usage),
            Route("GET", "/api/entries", "Lines of the ledger, the newest first", self._entries,
                  query={**_QUESTION, **_PAGE}),
            Route("GET", "/api/audit", "Changes of what is declared, the newest first", self._audit, query=_PAGE),
        ]  # fmt: skip
        return routes


class MethodNotAllowed(McpgateError):
    code, http_status = "invalid_request", 405


def _check_text(value: Any) -> None:
    """Raises InvalidRequest for text that not every database takes."""
    try:
        odd = b"\\u0000" in orjson.dumps(value)
    except TypeError:  # halves of surrogate pairs
        odd = True
    if odd:
        raise InvalidRequest("text holds a NUL or half a surrogate pair")


def _where(call: Call) -> dict[str, str]:
    return parse_where(part for part in call.query.get("where", "").split(",") if part.strip())


def _json(value: Any, status: int = 200) -> Reply:
    return Reply(orjson.dumps(value, default=str), status)


def _declared(id: str, value: BaseModel, in_file: bool) -> dict[str, Any]:
    return {**value.model_dump(mode="json"), "id": id, "declared": in_file}


def _shown_entry(entry: Entry) -> dict[str, Any]:
    shown = asdict(entry)
    cost = shown.pop("cost")
    return {**shown, "metadata": dict(entry.metadata), "cost_usd": None if cost is None else f"{to_usd(cost):f}"}


def _shown_change(line: dict[str, Any]) -> dict[str, Any]:
    value = line["value"]
    if isinstance(value, dict):  # a digest is no secret, and nobody's business either
        line["value"] = {name: part for name, part in value.items() if name != "digests"}
    return line


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))


def _schema_of_query(name: str) -> dict[str, Any]:
    return {"type": "integer", "minimum": 1} if name in ("limit", "before") else {"type": "string"}


def _openapi(routes: list[Route]) -> dict[str, Any]:
    models = sorted({route.body for route in routes if route.body is not None}, key=lambda model: model.__name__)
    _, schemas = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    for schema in schemas["$defs"].values():
        if "id" in schema.get("required", ()):
            schema["required"].remove("id")  # the path says it
    error = {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["code", "message"],
                "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
            }
        },
    }
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        parameters: list[dict[str, Any]] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for name in re.findall(r"\{(\w+)\}", route.path)
        ]
        parameters += [
            {"name": name, "in": "query", "required": False, "description": about, "schema": _schema_of_query(name)}
            for name, about in route.query.items()
        ]
        content = {} if route.status == 204 else {"content": {"application/json": {"schema": {"type": "object"}}}}
        if "format" in route.query:
            content["content"]["text/csv"] = {"schema": {"type": "string"}}
        failed = {"description": "Refused", "content": {"application/json": {"schema": error}}}
        operation: dict[str, Any] = {
            "summary": route.summary,
            "operationId": re.sub(r"\W+", "_", f"{route.method.lower()}{route.path}").strip("_"),
            "parameters": parameters,
            "responses": {str(route.status): {"description": "Done", **content}, "default": failed},
        }
        if route.body is not None:
            schema = {"$ref": f"#/components/schemas/{route.body.__name__}"}
            operation["requestBody"] = {
                "required": route.method == "PUT",
                "content": {"application/json": {"schema": schema}},
            }
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "mcpgate admin API", "version": __version__},
        "security": [{"bearer": []}, {"header": []}],
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }
