"""/v1/batches and /v1/messages/batches: batches as clients of OpenAI and of Anthropic make them and ask about them.
batch_runner.py runs them."""

import contextlib
import datetime
import re
import secrets
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from mcpgate import jsontext
from mcpgate.api.http.access import Access
from mcpgate.api.http.exchange import Closing, Disconnected, Exchange
from mcpgate.api.http.headers import governance_headers
from mcpgate.api.http.routing import Handler, SocketHandler
from mcpgate.api.llm import errors
from mcpgate.api.llm.batch_asking import said_by
from mcpgate.api.llm.batch_files import check_room, results_of
from mcpgate.api.llm.batch_runner import BatchRunner
from mcpgate.api.llm.face import LlmFace
from mcpgate.api.llm.reading import passed_on, query_of, read_object
from mcpgate.errors import Conflict, InvalidRequest, McpgateError, NotFound, NotSupported, RateLimited
from mcpgate.governance.callers import Caller
from mcpgate.governance.context import RequestContext
from mcpgate.llm.batch_lines import BadLine, keep_file, read_line
from mcpgate.llm.batches import OWN, Batch, Kind, State
from mcpgate.llm.chat import Chat
from mcpgate.llm.messages import Untranslatable
from mcpgate.llm.objects import is_id
from mcpgate.telemetry.text import one_line, visible

_METHODS = {
    "/v1/batches": ("GET", "POST"),
    "/v1/batches/{id}": ("GET",),
    "/v1/batches/{id}/cancel": ("POST",),
    "/v1/messages/batches": ("GET", "POST"),
    "/v1/messages/batches/{id}": ("GET", "DELETE"),
    "/v1/messages/batches/{id}/cancel": ("POST",),
    "/v1/messages/batches/{id}/results": ("GET",),
}
_PATHS = [(re.compile(path.replace("{id}", "([^/]+)")), path) for path in _METHODS]
_ENDPOINTS = {errors.ROUTES[format]: format for format in ("chat", "responses", "embeddings")}
_FIELDS = frozenset(("input_file_id", "endpoint", "completion_window", "metadata"))
_MOST_METADATA, _LONGEST_NAME, _LONGEST_VALUE = 16, 64, 512
_MOST_LISTED = {"openai": 100, "anthropic": 1000}
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
Counts = Mapping[State, int]


class BatchFace(LlmFace):
    """Both kinds of batches."""

    def __init__(self, chat: Chat, access: Access, closing: Closing, runner: BatchRunner) -> None:
        super().__init__(chat, access, closing)
        self._runner = runner

    def handler(self, path: str) -> Mapping[str, Handler] | None:
        route, _ = _route(path)
        return dict.fromkeys(_METHODS[route], self._answered) if route else None

    def socket_handler(self, path: str) -> SocketHandler | None:
        return None

    async def _answered(self, http: Exchange) -> None:
        route, id = _route(http.path)
        kind: Kind = "anthropic" if route.startswith("/v1/messages") else "openai"
        try:
            context = await self._access.context(http)
            if context.caller.token is not None:
                raise NotSupported("batches outlast access tokens: use a virtual key")
            async with self._chat.admit(context, "chat", "batches"):
                if route.endswith("/results"):
                    await self._results(http, await self._find(context.caller, kind, id))
                    return
                answer = await self._asked(http, context, kind, id)
            await http.respond(200, jsontext.dumps(answer), governance_headers(context.trail))
        except Disconnected:
            raise
        except McpgateError as error:
            if http.started:
                raise Disconnected from None  # the answer breaks off
            await http.refuse(error, errors.refusal("messages" if kind == "anthropic" else "chat", error))

    async def _asked(self, http: Exchange, context: RequestContext, kind: Kind, id: str) -> dict[str, Any]:
        caller = context.caller
        if not id and http.method == "GET":
            return await self._page(http, caller, kind)
        if not id:
            made = await self._made(http, caller, kind)
            self._runner.wake(made)
            return self._shown(http, made, {})
        batch = await self._find(caller, kind, id)
        if http.method == "DELETE":
            return await self._deleted(batch)
        if http.method == "POST":
            await http.body()  # says nothing
            batch = await self._cancelled(batch)
        return self._shown(http, batch, await self._counts(batch))

    async def _find(self, caller: Caller, kind: Kind, id: str) -> Batch:
        found = await self._chat.batches.get(caller.account, kind, id) if is_id(id) else None
        if found is None:
            raise NotFound(f"no such batch: {one_line(id, 200)}", field="batch_id")
        return found

    # --- making one

    async def _made(self, http: Exchange, caller: Caller, kind: Kind) -> Batch:
        body = read_object(await http.body())
        batch = await (self._of_openai(caller, body) if kind == "openai" else self._of_anthropic(http, caller, body))
        most = self._chat.config.batches.max_open
        if await self._chat.batches.add(batch, most):
            return batch
        if kind == "anthropic":
            await self._chat.batches.drop_file(batch.file)
        raise RateLimited(
            f"{most} batches of this key have not ended (llm.batches.max_open); wait until one has",
            **{"scope": f"key {caller.id}", "limit": most, "window": None, "retry_after_s": 60},
        )

    async def _of_openai(self, caller: Caller, body: Mapping[str, Any]) -> Batch:
        if odd := next((name for name in body if name not in _FIELDS), None):
            raise Untranslatable(visible(odd[:80]), "is not supported for batches; leave it out")
        endpoint, file = body.get("endpoint"), body.get("input_file_id")
        format = _ENDPOINTS.get(endpoint) if isinstance(endpoint, str) else None
        if format is None:
            raise InvalidRequest(f"endpoint: must be one of {', '.join(_ENDPOINTS)}", field="endpoint")
        if body.get("completion_window") != "24h":
            raise InvalidRequest("completion_window: must be 24h", field="completion_window")
        found = await self._chat.objects.find(caller.account, "file", [file]) if is_id(file) else []
        if not found:
            raise NotFound(f"no such file object: {one_line(str(file), 200)}", field="input_file_id")
        if found[0].provider != OWN or found[0].model:
            what = f"the file {file} cannot be a batch's; upload it with purpose batch, and without x-mcpgate-provider"
            raise InvalidRequest(what, field="input_file_id")
        await check_room(self._chat, caller, 0)
        id, metadata = f"batch_{secrets.token_hex(16)}", _metadata(body.get("metadata"))
        said = said_by(caller)
        return Batch(
            id, caller.account, "openai", time.time(), "validating", format, found[0].id, said, metadata=metadata
        )

    async def _of_anthropic(self, http: Exchange, caller: Caller, body: Mapping[str, Any]) -> Batch:
        requests = _requests(body, self._chat.config.batches.max_lines)
        id = f"msgbatch_{secrets.token_hex(12)}"

        async def lines() -> AsyncGenerator[bytes, None]:
            for number, one in enumerate(requests):
                text = jsontext.dumps(one)
                try:
                    read_line(number, text, None)  # what is too long, or too much, for a line
                except BadLine as error:
                    raise InvalidRequest(f"requests.{number}: {error.message}") from None
                yield text + b"\n"

        await check_room(self._chat, caller, 0)
        await keep_file(self._chat.batches, caller.account, id, lines())
        return Batch(
            *(id, caller.account, "anthropic", time.time(), "validating", "messages", id, said_by(caller)),
            headers=passed_on("messages", http.headers),
            query=query_of(http),
            total=len(requests),
        )

    # --- one that is there

    async def _cancelled(self, batch: Batch) -> Batch:
        """Raises Conflict for one that has ended."""
        while batch.status != "cancelling":
            if not batch.is_open:
                if batch.kind == "anthropic" or batch.status == "cancelled":
                    return batch
                raise Conflict(f"a batch with the status {batch.status} cannot be cancelled")
            cancelled = batch.to("cancelling", time.time())
            if await self._chat.batches.change(cancelled, batch.status):
                self._runner.wake(cancelled)
                return cancelled
            now = await self._chat.batches.get(batch.account, batch.kind, batch.id)
            if now is None:
                raise NotFound(f"no such batch: {batch.id}")
            batch = now
        return batch

    async def _deleted(self, batch: Batch) -> dict[str, Any]:
        if batch.is_open:
            raise Conflict("a batch that has not ended cannot be deleted; cancel it first")
        await self._chat.batches.delete(batch)
        await self._chat.batches.drop_file(batch.file)
        return {"id": batch.id, "type": "message_batch_deleted"}

    async def _results(self, http: Exchange, batch: Batch) -> None:
        if batch.is_open:
            raise NotFound("the batch has not ended: its results are there when it has")
        await download(http, results_of(self._chat.batches, batch.id), "application/x-jsonl")

    async def _page(self, http: Exchange, caller: Caller, kind: Kind) -> dict[str, Any]:
        query, most = http.query(), _MOST_LISTED[kind]
        limit = query.get("limit", "20")
        if not (limit.isascii() and limit.isdigit() and len(limit) < 5 and 0 < int(limit) <= most):
            raise InvalidRequest(f"limit: must be a whole number from 1 to {most}", field="limit")
        before = query.get("before_id", "") if kind == "anthropic" else ""
        at = before or query.get("after_id" if kind == "anthropic" else "after", "")
        store, wanted = self._chat.batches, int(limit)
        found = await store.page(caller.account, kind, at, wanted + 1, newer=bool(before))
        has_more = len(found) > wanted
        found = (found[-wanted:] if before else found[:wanted]) if has_more else found
        data = [self._shown(http, one, await self._counts(one)) for one in found]
        ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
        listed = {"object": "list"} if kind == "openai" else {}
        return {**listed, "data": data, "has_more": has_more, **ends}

    async def _counts(self, batch: Batch) -> Counts:
        return await self._chat.batches.counts(batch.id) if batch.is_open else batch.counts

    def _shown(self, http: Exchange, batch: Batch, counts: Counts) -> dict[str, Any]:
        if batch.kind == "openai":
            return render_openai(batch, counts)
        path = f"/v1/messages/batches/{batch.id}/results"
        return render_anthropic(batch, counts, (self._access.resource.base(http) or "") + path)


async def download(http: Exchange, pieces: AsyncGenerator[bytes, None], type: str) -> None:
    """Answer with a file whose length nobody has counted."""
    if not http.may_stream:
        raise InvalidRequest("results are streamed, which needs HTTP/1.1")
    headers = {"content-type": type, "content-disposition": "attachment", "x-content-type-options": "nosniff"}
    async with contextlib.aclosing(pieces):
        await http.start_stream(headers)
        async for piece in pieces:
            await http.piece(piece)
        await http.end_stream()


def _route(path: str) -> tuple[str, str]:
    """The route of a path, and the id in it; empty for none."""
    found = ((route, pattern.fullmatch(path)) for pattern, route in _PATHS)
    return next(((route, "".join(match.groups())) for route, match in found if match is not None), ("", ""))


def _metadata(given: Any) -> dict[str, str] | None:
    if given is None:
        return None
    if (
        not isinstance(given, dict)
        or len(given) > _MOST_METADATA
        or any(not isinstance(value, str) or len(value) > _LONGEST_VALUE for value in given.values())
        or any(len(name) > _LONGEST_NAME for name in given)
    ):
        limits = f"{_MOST_METADATA} names of {_LONGEST_NAME} characters, and values of {_LONGEST_VALUE}"
        raise InvalidRequest(f"metadata: must be an object of texts, with at most {limits}", field="metadata")
    return given


def _requests(body: Mapping[str, Any], most: int) -> list[dict[str, Any]]:
    """Raises InvalidRequest."""
    requests = body.get("requests")
    if odd := next((name for name in body if name != "requests"), None):
        raise Untranslatable(visible(odd[:80]), "is not supported for batches; leave it out")
    if not isinstance(requests, list) or not 0 < len(requests) <= most:
        raise InvalidRequest(f"requests: must be a list of 1 to {most:,} requests (llm.batches.max_lines)")
    seen: set[str] = set()
    for number, one in enumerate(requests):
        id = one.get("custom_id") if isinstance(one, dict) else None
        if not isinstance(id, str) or not _CUSTOM_ID.fullmatch(id):
            raise InvalidRequest(f"requests.{number}.custom_id: must match {_CUSTOM_ID.pattern}")
        if id in seen:
            raise InvalidRequest(f"requests.{number}.custom_id: {id!r} occurs twice")
        seen.add(id)
        if not isinstance(one.get("params"), dict):
            raise InvalidRequest(f"requests.{number}.params: must be an object")
        if odd := next((name for name in one if name not in ("custom_id", "params")), None):
            raise Untranslatable(f"requests.{number}.{visible(odd[:80])}", "is not supported; leave it out")
    return requests


def render_openai(batch: Batch, counts: Counts) -> dict[str, Any]:
    """A batch as OpenAI shows one."""
    failed = sum(counts.get(state, 0) for state in ("errored", "cancelled", "expired"))
    times = {
        f"{status}_at": None if (at := batch.times.get(status)) is None else int(at)
        for status in ("in_progress", "completed", "failed", "expired", "cancelling", "cancelled")
    }
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": errors.ROUTES[batch.format],
        "errors": {"object": "list", "data": list(batch.errors)} if batch.errors else None,
        "input_file_id": batch.file,
        "completion_window": "24h",
        "status": batch.status,
        "output_file_id": batch.output or None,
        "error_file_id": batch.failures or None,
        "created_at": int(batch.at),
        "expires_at": int(batch.ends_at),
        **times,
        "finalizing_at": None,
        "request_counts": {"total": batch.total, "completed": counts.get("succeeded", 0), "failed": failed},
        "metadata": batch.metadata,
    }


def render_anthropic(batch: Batch, counts: Counts, results_url: str) -> dict[str, Any]:
    """A batch as Anthropic shows one."""
    names: dict[State, str] = {
        "succeeded": "succeeded",
        "errored": "errored",
        "cancelled": "canceled",
        "expired": "expired",
    }
    is_open = batch.is_open
    by_state = {name: 0 if is_open else counts.get(state, 0) for state, name in names.items()}
    ended = max((batch.times.get(one, 0.0) for one in ("completed", "failed", "expired", "cancelled")), default=0.0)
    cancelling = batch.times.get("cancelling")
    shown = "canceling" if batch.status == "cancelling" else "in_progress"
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": shown if is_open else "ended",
        "request_counts": {"processing": batch.total if is_open else 0, **by_state},
        "created_at": _moment(batch.at),
        "expires_at": _moment(batch.ends_at),
        "ended_at": None if is_open else _moment(ended),
        "cancel_initiated_at": None if cancelling is None else _moment(cancelling),
        "archived_at": None,
        "results_url": None if is_open else results_url,
    }


def _moment(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat().replace("+00:00", "Z")
