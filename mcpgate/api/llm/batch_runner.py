"""Works through batches: each line is admitted, paid and recorded like any other request, with the rights that its key
has by then. A batch has one process at a time, by a lease; if that ends, another goes on with it. A line that was under
way at the end of a process is run again, because its answer is lost: the ledger then has two entries of it, the first
with the outcome `unknown` or `cancelled`. One that has ended three processes is not."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from mcpgate import jsontext
from mcpgate.api.llm import errors
from mcpgate.api.llm.reading import read_asked
from mcpgate.errors import (
    BudgetExceeded,
    InvalidRequest,
    McpgateError,
    NotAllowed,
    RateLimited,
    TooLarge,
    Unavailable,
    UpstreamError,
    UpstreamTimeout,
)
from mcpgate.governance.callers import Caller, Said
from mcpgate.governance.context import RequestContext
from mcpgate.governance.gate import Gate
from mcpgate.governance.records import new_id
from mcpgate.llm.attempt import Streamed
from mcpgate.llm.batch_lines import Asking, check_input, read_line, render_result, texts_of
from mcpgate.llm.batches import OWN, Batch, BatchesUnavailable, Line, State, Status
from mcpgate.llm.chat import Chat
from mcpgate.llm.messages import Untranslatable
from mcpgate.llm.objects import Kept, ObjectsUnavailable

_AT_ONCE = 4
"""Batches under way in one process, each of another account."""
_LOOK_EVERY_S, _RENEW_EVERY_S, _STEP_S = 1.0, 1.0, 0.25
_MOST_RUNS = 3
"""How often a line is begun. One that ends each process that runs it must not go on with that."""
_TRIED_AGAIN = frozenset((408, 409, 425, 429, 500, 502, 503, 529))
"""Statuses of providers after which a line is tried again, if its target's own retries did not help."""
_PAUSES_S = (1.0, 5.0, 20.0)
_LONGEST_PAUSE_S = 60.0
_LONGEST_ANSWER = 8 * 1024 * 1024
_STOP_S = 3.0
"""How long lines under way may go on when the process stops."""
_CHUNK = 500
"""Lines that are written at once if they are not run."""
log = logging.getLogger("mcpgate.llm")
_Outcome = tuple[State, int, bytes]
"""Of a line: the status and the body of its answer, which one that was not asked has not."""


def said_by(caller: Caller) -> dict[str, Any]:
    """What is kept of a caller, for caller_of."""
    if caller.is_local:
        return {"key": caller.id, "user": caller.user, "metadata": dict(caller.metadata), "bundle": None}
    return {
        "key": caller.id,
        "user": caller.said.user,
        "metadata": dict(caller.said.metadata),
        "bundle": caller.bundle,
    }


async def caller_of(gate: Gate, said: Mapping[str, Any]) -> Caller:
    """The caller of a batch with its rights of now, whatever secret its key has by now. Raises NotAllowed if the key is
    no longer valid."""
    if said["key"] == "local":
        return await gate.identify(None, key_required=False, metadata=said["metadata"], user=said["user"])
    claimed = Said(said["user"], tuple(said["metadata"].items()))
    return await gate.current(Caller(said["key"], bundle=said["bundle"], said=claimed))


@dataclass(slots=True)
class _Run:
    """One batch under way."""

    batch: Batch
    until: float
    """When its lease ends, monotonic seconds."""
    under_way: "set[asyncio.Task[None]]" = field(default_factory=set)
    broken: BaseException | None = None
    """What ended a line that is not recorded."""
    revoked: bool = False
    stored: int = 0
    """Bytes that its account has stored."""


class BatchRunner:
    """Runs the batches of a store. One per process."""

    def __init__(self, chat: Chat, gate: Gate) -> None:
        self._chat, self._gate, self._store = chat, gate, chat.batches
        self._owner = new_id("batches")
        self._runs: dict[str, _Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._main: asyncio.Task[None] | None = None
        self._due = asyncio.Event()
        self._stopping = False
        self._asking = 0
        """Lines whose answers are waited for."""

    def start(self) -> None:
        self._main = asyncio.create_task(self._look(), name="batches")

    def wake(self, batch: Batch) -> None:
        """It is new, or has been cancelled. Other processes notice it within a second."""
        if batch.id in self._runs:
            self._runs[batch.id].batch = batch
        self._due.set()

    async def aclose(self) -> None:
        """Let lines under way end, if that does not take long, and leave the rest to other processes."""
        self._stopping = True
        if self._main is not None:
            self._main.cancel()
        lines = [line for run in self._runs.values() for line in run.under_way]
        if lines:
            await asyncio.wait(lines, timeout=_STOP_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- which batches

    async def _look(self) -> None:
        """Take batches as long as there are any. Never ends by itself."""
        while True:
            try:
                while len(self._tasks) < _AT_ONCE and self._chat.config.providers and await self._take():
                    pass
            except BatchesUnavailable as error:
                log.warning("%s", error)
            except Exception:
                log.exception("batches cannot be looked for")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._due.wait()
            self._due.clear()

    async def _take(self) -> bool:
        lease_s, accounts = self._gate.config.lease_s, {run.batch.account for run in self._runs.values()}
        until, now = time.monotonic() + lease_s, time.time()
        batch = await self._store.claim(self._owner, now, now + lease_s, accounts)
        if batch is None:
            return False
        run = self._runs[batch.id] = _Run(batch, until)
        task = asyncio.create_task(self._work(run), name=f"batch {batch.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _work(self, run: _Run) -> None:
        id = run.batch.id
        worker = asyncio.create_task(self._through(run))
        try:
            await self._keep_lease(run, worker)
            await worker
        except BatchesUnavailable as error:
            log.warning("batch %s pauses: %s", id, error)
        except Exception:
            log.exception("batch %s pauses", id)
        finally:
            for task in (worker, *run.under_way):
                task.cancel()
            await asyncio.gather(worker, *run.under_way, return_exceptions=True)
            del self._runs[id]
            with contextlib.suppress(BatchesUnavailable):
                await self._store.release(id, self._owner)
            self._due.set()

    async def _keep_lease(self, run: _Run, worker: "asyncio.Task[None]") -> None:
        """Until the worker has ended. Raises BatchesUnavailable if the lease is lost."""
        lease_s = self._gate.config.lease_s
        while not worker.done():
            await asyncio.wait((worker,), timeout=min(_RENEW_EVERY_S, lease_s / 4))
            until, now = time.monotonic() + lease_s, time.time()
            try:
                found = await self._store.renew(run.batch.id, self._owner, now + lease_s)
            except BatchesUnavailable:
                if time.monotonic() > run.until - lease_s / 4:
                    raise
                continue
            if found is None:
                raise BatchesUnavailable("another process goes on with it")
            run.until = until
            if found.status == "cancelling":
                run.batch = found

    # --- one batch

    async def _through(self, run: _Run) -> None:
        if run.batch.status == "validating" and not await self._validated(run):
            return
        run.stored = await self._store.stored_bytes(run.batch.account)
        done = set(await self._store.ended(run.batch.id))
        rest: list[Line] = []
        async with contextlib.aclosing(texts_of(self._store, run.batch.file)) as texts:
            async for number, text in texts:
                if number in done:
                    continue
                await self._room(run)
                if self._stopping or run.broken:
                    break
                asking = read_line(number, text, self._url(run.batch))
                if (without := await self._ends_as(run)) is None:
                    self._begin(run, number, asking)
                    continue
                state, status, body = without
                result = render_result(run.batch.kind, asking.custom_id, state, status, "", body)
                rest.append(Line(number, state, result))
                if len(rest) >= _CHUNK:
                    await self._end(run, rest)
                    rest = []
        await self._end(run, rest)
        while run.under_way:
            await asyncio.wait(run.under_way)
        if run.broken:
            raise run.broken
        if not self._stopping:
            await self._finish(run)

    def _begin(self, run: _Run, number: int, asking: Asking) -> None:
        def over(line: "asyncio.Task[None]") -> None:
            run.under_way.discard(line)
            if not line.cancelled() and (error := line.exception()) is not None:
                run.broken = error

        line = asyncio.create_task(self._line(run, number, asking))
        run.under_way.add(line)
        line.add_done_callback(over)

    def _url(self, batch: Batch) -> str | None:
        return errors.ROUTES[batch.format] if batch.kind == "openai" else None

    async def _validated(self, run: _Run) -> bool:
        """Whether the input can be used; the batch then is in progress, else it has failed."""
        found = await check_input(self._store, run.batch, self._url(run.batch), self._chat.config.batches.max_lines)
        status: Status = "failed" if found.errors else "in_progress"
        run_as = run.batch.to(status, time.time(), total=found.total, errors=tuple(found.errors))
        if await self._store.change(run_as, "validating"):
            run.batch = run_as
            return not found.errors
        if (now := await self._now(run)) is None:
            return False
        run.batch = now.to(now.status, now.times.get(now.status, time.time()), total=found.total)
        if found.errors:  # cancelled meanwhile, before it had any line
            await self._store.change(run.batch.to("cancelled", time.time(), errors=tuple(found.errors)), now.status)
        return not found.errors

    async def _now(self, run: _Run) -> Batch | None:
        return await self._store.get(run.batch.account, run.batch.kind, run.batch.id)

    async def _room(self, run: _Run) -> None:
        """Wait until another line may begin. What is asked by clients who wait for it comes first: lines leave as many
        places as such requests are under way."""
        while not (self._stopping or run.batch.status == "cancelling"):
            others = sum(provider.under_way for provider in self._chat.providers.all().values()) - self._asking
            places = max(1, self._chat.config.batches.max_concurrency - max(0, others))
            if len(run.under_way) < max(1, places // len(self._runs)):
                return
            await asyncio.wait(run.under_way, timeout=_STEP_S, return_when=asyncio.FIRST_COMPLETED)

    async def _ends_as(self, run: _Run) -> _Outcome | None:
        """What becomes of a line that has not begun; None if it may."""
        if run.batch.status == "cancelling" or run.revoked:
            return "cancelled", 0, b""
        if time.time() >= run.batch.ends_at:
            return "expired", 0, b""
        if run.stored > (most := self._chat.config.batches.max_stored_mib) * 1024 * 1024:
            full = TooLarge(f"files and results of this key hold over {most:,} MiB (llm.batches.max_stored_mib)")
            return "errored", full.http_status, orjson.dumps(errors.refusal(run.batch.format, full))
        try:
            await caller_of(self._gate, run.batch.caller)
        except (NotAllowed, InvalidRequest) as error:
            log.warning("batch %s ends: %s", run.batch.id, error.message)
            run.revoked = True
            return "cancelled", 0, b""
        return None

    async def _finish(self, run: _Run) -> None:
        """Tell what has come of the lines, once all have ended."""
        batch, counts = run.batch, await self._store.counts(run.batch.id)
        files: dict[str, Any] = {name: await self._file(batch, name) for name in ("output", "failures")}
        lost = sum(counts.values()) < batch.total
        gone = {"code": "missing_file", "message": "the input file was deleted", "line": None, "param": "input_file_id"}
        while (now := await self._now(run)) is not None and now.is_open:
            is_cancelled = now.status == "cancelling" or run.revoked
            status: Status = "cancelled" if is_cancelled else "expired" if counts.get("expired") else "completed"
            status = "failed" if lost else status
            ended = now.to(status, time.time(), total=batch.total, errors=(gone,) if lost else (), **files)
            if await self._store.change(ended, now.status):
                log.info("batch %s of %s: %s, %s", batch.id, batch.account, status, dict(counts))
                return

    async def _file(self, batch: Batch, name: str) -> str:
        """The id of the file of results, if its clients read files and there are any."""
        if batch.kind != "openai" or not (size := await self._store.results_bytes(batch.id, name == "output")):
            return ""
        id = f"file-{batch.id.removeprefix('batch_')}-{name}"
        filename, purpose = f"{batch.id}_{'output' if name == 'output' else 'error'}.jsonl", "batch_output"
        about = file_about(id, size, filename, purpose, time.time())
        # `model` and `alias` say where its content is: see batch_files.py.
        kept = Kept("file", id, batch.account, OWN, model=name, alias=batch.id, at=time.time(), about=about)
        while True:
            try:
                await self._chat.objects.put(kept)
                return id
            except ObjectsUnavailable as error:
                log.warning("batch %s waits: %s", batch.id, error)
                await asyncio.sleep(_LOOK_EVERY_S)

    # --- one line

    async def _line(self, run: _Run, number: int, asking: Asking) -> None:
        batch = run.batch
        runs = await self._store.start(batch.id, number)
        if runs is None:
            return  # it has ended before
        if runs > 1:
            log.warning("batch %s: line %d was under way when a process ended; it may be paid twice", batch.id, number)
        state, status, body = await self._outcome(run, number, asking, runs)
        result = render_result(batch.kind, asking.custom_id, state, status, _request_id(batch, number), body)
        run.stored += len(result)
        await self._end(run, [Line(number, state, result)])

    async def _outcome(self, run: _Run, number: int, asking: Asking, runs: int) -> _Outcome:
        batch, tries = run.batch, 0
        while True:
            try:
                if runs > _MOST_RUNS:
                    raise Unavailable("the gateway ended three times while this line was under way")
                caller = await caller_of(self._gate, batch.caller)
                status, body = await self._answer(caller, batch, number, asking)
                if status < 400:
                    return "succeeded", status, body
                if status not in _TRIED_AGAIN:
                    return "errored", status, body
                pause_s = None
            except McpgateError as error:
                waits = isinstance(error, (RateLimited, Unavailable)) and runs <= _MOST_RUNS
                broke = isinstance(error, UpstreamError) and not isinstance(error, UpstreamTimeout)
                status, body = error.http_status, orjson.dumps(errors.refusal(batch.format, error), default=str)
                if isinstance(error, BudgetExceeded) or not (waits or broke):
                    return "errored", status, body
                pause_s = float(error.data.get("retry_after_s") or _PAUSES_S[1]) if waits else None
            if pause_s is None and tries == len(_PAUSES_S):
                return "errored", status, body
            if pause_s is None:
                pause_s, tries = _PAUSES_S[tries], tries + 1
            if time.time() + pause_s >= batch.ends_at or run.batch.status == "cancelling":
                return "errored", status, body
            await asyncio.sleep(min(pause_s, _LONGEST_PAUSE_S))

    async def _answer(self, caller: Caller, batch: Batch, number: int, asking: Asking) -> tuple[int, bytes]:
        """Status and body of a line's answer. Raises what any request does."""
        context = RequestContext(caller, id=_request_id(batch, number))
        asked = read_asked(batch.format, jsontext.dumps(asking.body), batch.headers, batch.query)
        if asked.stream:
            raise Untranslatable("stream", "the answers of a batch are not streamed; leave it out")
        asked = await self._chat.bound(caller, asked)
        self._asking += 1
        try:
            async with self._chat.answering(context, asked) as answer:
                what = answer.what
        finally:
            self._asking -= 1
        assert not isinstance(what, Streamed)
        if len(what.body) > _LONGEST_ANSWER:
            raise InvalidRequest(f"the answer has {len(what.body):,} bytes, over {_LONGEST_ANSWER:,}")
        try:
            jsontext.loads(what.body)
        except ValueError:
            raise UpstreamError(f"{answer.target.name} answered with what is not JSON") from None
        return what.status, what.body

    async def _end(self, run: _Run, lines: list[Line]) -> None:
        """Keep what has been paid for, also if the store is away for a while. Raises BatchesUnavailable."""
        while lines:
            try:
                await self._store.end(run.batch.id, lines)
                return
            except BatchesUnavailable:
                if time.monotonic() > run.until:
                    raise
                await asyncio.sleep(_STEP_S)


def _request_id(batch: Batch, number: int) -> str:
    """By which the ledger and the results name a line's request."""
    return f"{batch.id}/{number}"


def file_about(id: str, size: int, filename: str, purpose: str, at: float) -> bytes:
    """A file as OpenAI describes one."""
    about = {"id": id, "object": "file", "bytes": size, "created_at": int(at), "filename": filename}
    return jsontext.dumps({**about, "purpose": purpose, "status": "processed", "status_details": None})
