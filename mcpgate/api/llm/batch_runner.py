"""Works through batches: each line is admitted, paid and recorded like any other request, with the rights that its key
has by then. A batch has one process at a time, by a lease; if that ends, another goes on with it. A line that was under
way at the end of a process is run again, because its answer is lost: the ledger then has two entries of it, the first
with the outcome `unknown` or `cancelled`. One that has ended three processes is not."""

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field
from typing import Any

from mcpgate.api.llm import errors
from mcpgate.api.llm.batch_asking import TRIED_AGAIN, Asker, Outcome, caller_of, refused, request_id
from mcpgate.api.llm.batch_files import file_about
from mcpgate.errors import (
    InvalidRequest,
    NotAllowed,
    TooLarge,
)
from mcpgate.governance.gate import Gate
from mcpgate.governance.records import new_id
from mcpgate.llm.batch_lines import Asking, check_input, read_line, render_result, texts_of
from mcpgate.llm.batches import OWN, Batch, BatchesUnavailable, Line, Status
from mcpgate.llm.chat import Chat
from mcpgate.llm.objects import Kept, ObjectsUnavailable

_AT_ONCE = 4
"""Batches under way in one process, each of another account."""
_LOOK_EVERY_S, _RENEW_EVERY_S, _STEP_S = 1.0, 1.0, 0.25
_LONGEST_PAUSE_S = 60.0
_STOP_S = 3.0
"""How long lines under way may go on when the process stops."""
_CHUNK = 500
"""Lines that are written at once if they are not run."""
log = logging.getLogger("mcpgate.llm")


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
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    def cancel(self, batch: Batch) -> None:
        """`batch`: as it stands now."""
        self.batch = batch
        self.cancelled.set()


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
        self._asker = Asker(chat, gate)

    def start(self) -> None:
        self._main = asyncio.create_task(self._look(), name="batches")

    def wake(self, batch: Batch) -> None:
        """It is new, or has been cancelled. Other processes notice it within a second."""
        if batch.id in self._runs and batch.status == "cancelling":
            self._runs[batch.id].cancel(batch)
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
        worker, is_over = asyncio.create_task(self._through(run)), False
        try:
            await self._keep_lease(run, worker)
            await worker
            is_over = True
        except BatchesUnavailable as error:
            log.warning("batch %s pauses: %s", id, error)
        except Exception:
            log.exception("batch %s pauses", id)
        finally:
            for task in (worker, *run.under_way):
                task.cancel()
            await asyncio.gather(worker, *run.under_way, return_exceptions=True)
            del self._runs[id]
            if is_over or self._stopping:  # else it pauses until its lease has ended
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
                run.cancel(found)

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
                result = render_result(run.batch.kind, asking.custom_id, *without[:2], "", without.body)
                rest.append(Line(number, without.state, result))
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
            others = sum(provider.under_way for provider in self._chat.providers.all().values()) - self._asker.under_way
            places = max(1, self._chat.config.batches.max_concurrency - max(0, others))
            if len(run.under_way) < max(1, places // len(self._runs)):
                return
            await asyncio.wait(run.under_way, timeout=_STEP_S, return_when=asyncio.FIRST_COMPLETED)

    async def _ends_as(self, run: _Run) -> Outcome | None:
        """What becomes of a line that has not begun; None if it may."""
        if run.batch.status == "cancelling" or run.revoked:
            return Outcome("cancelled")
        if time.time() >= run.batch.ends_at:
            return Outcome("expired")
        if run.stored > (most := self._chat.config.batches.max_stored_mib) * 1024 * 1024:
            what = f"files and results of this key hold over {most:,} MiB (llm.batches.max_stored_mib)"
            return refused(run.batch, TooLarge(what))
        try:
            await caller_of(self._gate, run.batch.caller)
        except (NotAllowed, InvalidRequest) as error:
            log.warning("batch %s ends: %s", run.batch.id, error.message)
            run.revoked = True
            return Outcome("cancelled")
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
            why = (gone,) if lost else ()
            ended = now.to(status, time.time(), total=batch.total, counts=dict(counts), errors=why, **files)
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
        """Ask until there is an answer, or an error that will not pass."""
        batch, tries = run.batch, 0
        while True:
            runs = await self._store.start(batch.id, number)
            if runs is None:
                return  # it has ended before
            if runs > 1:
                log.warning(
                    "batch %s: line %d was under way when a process ended; it may be paid twice", batch.id, number
                )
            outcome, pause_s = await self._asker.ask(batch, number, asking, runs, tries)
            if pause_s is None or time.time() + pause_s >= batch.ends_at:
                break
            tries += outcome.status in TRIED_AGAIN
            await self._store.pause(batch.id, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(pause_s, _LONGEST_PAUSE_S)):
                    await run.cancelled.wait()
                break
        result = render_result(batch.kind, asking.custom_id, *outcome[:2], request_id(batch, number), outcome.body)
        run.stored += len(result)
        await self._end(run, [Line(number, outcome.state, result)])

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
