"""Keeps what requests and their answers say, if the settings ask for it: masked, shortened, and written in batches
beside the requests. Nothing waits for it: if more comes than can be written, the rest is dropped and counted."""

import asyncio
import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from mcpgate.config.periods import Period
from mcpgate.config.settings import Settings
from mcpgate.config.telemetry import LogContentConfig
from mcpgate.governance.callers import Caller
from mcpgate.governance.contents import Content, cut
from mcpgate.governance.records import Entry, Request
from mcpgate.governance.rules import matches
from mcpgate.governance.store import StoreUnavailable
from mcpgate.telemetry.logs import mask

if TYPE_CHECKING:
    import datetime

log = logging.getLogger("mcpgate.activity")
_SOON_S = 0.5
_AGAIN_S = 5.0
"""After which contents are written again that could not be."""
_AT_ONCE = 100
_MOST_BYTES = 32 * 1024 * 1024
"""Of contents that wait to be written."""
_MASKING_S = 0.2
"""How long one pattern may take over one text."""
_TOO_LONG = "[not kept: masking it took too long]"
_EVERYTHING = LogContentConfig()


class Kept(NamedTuple):
    """The content of one request."""

    id: str
    at: float
    """When the request was admitted, epoch seconds."""
    sent: str
    answered: str


class ContentStore(Protocol):
    """Contents by the ids of their requests. All raise StoreUnavailable."""

    async def write(self, contents: Sequence[Kept]) -> None:
        """Those that are known stay as they are."""
        ...

    async def read(self, ids: Sequence[str]) -> list[Kept]:
        """Those that have any."""
        ...

    async def delete(self, ids: Sequence[str]) -> int: ...

    async def prune(self, before: float) -> int:
        """Delete those of requests from before then; returns how many."""
        ...

    async def close(self) -> None: ...


class ContentLog:
    """Implements governance.contents.Contents. One per process."""

    def __init__(self, settings: Settings, store: ContentStore) -> None:
        self._settings, self.store = settings, store
        self._waiting: list[tuple[Entry, Content]] = []
        self._bytes = self._dropped = 0
        self._due: asyncio.TimerHandle | None = None
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def _config(self) -> LogContentConfig | None:
        config = self._settings.config.telemetry.log_content
        return config if isinstance(config, LogContentConfig) else _EVERYTHING if config else None

    def wants(self, caller: Caller, request: Request) -> int:
        config = self._settings.config.telemetry.log_content
        if config is False or (request.parent_id is not None and request.provider is not None):
            return 0  # what attempts at models say is kept with the request
        config = _EVERYTHING if config is True else config
        if config.when and not any(
            all(matches(name, globs, caller, request) for name, globs in each.items()) for each in config.when
        ):
            return 0
        return config.max_kib * 1024

    def keep(self, entry: Entry, content: Content) -> None:
        size = len(content.sent) + len(content.answered)
        if self._bytes + size > _MOST_BYTES:
            if not self._dropped:
                log.warning("contents of requests come faster than they can be written; some are not kept")
            self._dropped += 1
            return
        self._bytes += size
        self._waiting.append((entry, content))
        self._soon(_SOON_S)

    def _soon(self, pause_s: float) -> None:
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(pause_s, self._start)

    def _start(self) -> None:
        self._due = None
        task = asyncio.ensure_future(self.flush())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def flush(self) -> None:
        """Write all that waits; what the store does not take is written later."""
        async with self._writing:
            while some := self._waiting[:_AT_ONCE]:
                config = self._config or _EVERYTHING
                try:
                    await self.store.write(await asyncio.to_thread(_made_ready, some, masker(config.mask)))
                except StoreUnavailable as error:
                    log.debug("contents cannot be written now: %s", error)
                    self._soon(_AGAIN_S)
                    return
                except Exception:
                    log.exception("the contents of %d requests cannot be written", len(some))
                del self._waiting[: len(some)]
                self._bytes -= sum(len(content.sent) + len(content.answered) for _, content in some)
            if self._dropped:
                log.warning("the contents of %d requests were not kept", self._dropped)
                self._dropped = 0

    async def prune(self, now: "datetime.datetime") -> None:
        """Delete what is past its retention. Raises StoreUnavailable."""
        period = Period.parse((self._config or _EVERYTHING).retention)
        await self.store.prune(period.before(now).timestamp())

    async def aclose(self) -> None:
        if self._due is not None:
            self._due.cancel()
        await self.flush()
        if self._waiting:
            log.error("the contents of %d requests could not be written and are lost", len(self._waiting))
        await self.store.close()


@functools.lru_cache(maxsize=4)
def masker(patterns: tuple[str, ...]) -> Callable[[str], str]:
    """What replaces secrets, and what the patterns match. A pattern of the settings may take very long over a text that
    somebody else has chosen; this engine lets others run meanwhile, and can be stopped."""
    if not patterns:
        return mask
    import regex

    compiled = [regex.compile(pattern) for pattern in patterns]

    def masked(text: str) -> str:
        text = mask(text)
        try:
            for pattern in compiled:
                text = pattern.sub("********", text, timeout=_MASKING_S, concurrent=True)
        except TimeoutError:
            return _TOO_LONG
        return text

    return masked


def _made_ready(some: Sequence[tuple[Entry, Content]], masked: Callable[[str], str]) -> list[Kept]:
    return [
        Kept(entry.id, entry.at, masked(_text(content.sent)), masked(_answer_of(content))) for entry, content in some
    ]


def _answer_of(content: Content) -> str:
    if not (content.is_stream and isinstance(content.answered, bytes)):
        return _text(content.answered)
    from mcpgate.llm.heard import said_in  # only where there are models

    return str(cut(said_in(content.answered), content.most))


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


_NAMED = ("id", "parent_id", "at", "kind", "server", "tool", "provider", "model")


async def contents_of(store: ContentStore, request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a request, as shown.py has it, and those that belong to it have said, in order. Raises StoreUnavailable."""
    family = list(_family(request))
    kept = {one.id: one for one in await store.read([one["id"] for one in family])}
    return [
        {**{name: one[name] for name in _NAMED}, "sent": kept[one["id"]].sent, "answered": kept[one["id"]].answered}
        for one in family
        if one["id"] in kept
    ]


async def delete_contents_of(store: ContentStore, request: Mapping[str, Any]) -> int:
    """Delete the same. Raises StoreUnavailable."""
    return await store.delete([one["id"] for one in _family(request)])


def _family(request: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield request
    for child in request.get("children", ()):
        yield from _family(child)
