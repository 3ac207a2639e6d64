"""Progress of one request: it restarts the timeout, within the request's total, and is passed on to whoever asked, at a
rate that a slow client can bear: a few at once, then only the latest every so often."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from mcpgate.upstream.untrusted import cut, fits

_AT_ONCE = 20
_EVERY_S = 0.1
_LARGEST = 8000
"""Maximum characters of one notification; fields that the protocol does not define are removed from larger ones."""
_FIELDS = ("progressToken", "progress", "total", "message")
log = logging.getLogger("mcpgate.upstream")

OnProgress = Callable[[Mapping[str, Any]], None]


class Progress:
    __slots__ = (
        *("_ends_at", "_last_at", "_latest", "_left", "_listener", "_name", "_paused_at", "_pauses"),
        *("_timeout_s", "_timer", "timeout"),
    )

    def __init__(self, name: str, listener: OnProgress | None, timeout_s: float, total_s: float) -> None:
        self._name, self._listener, self._timeout_s = name, listener, timeout_s
        self._ends_at = asyncio.get_running_loop().time() + total_s
        self._left = float(_AT_ONCE)
        self._last_at = 0.0
        self._latest: Mapping[str, Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._pauses, self._paused_at = 0, 0.0
        self.timeout: asyncio.Timeout | None = None
        """The request's timeout."""

    def heard(self, params: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        try:
            if self.timeout is not None and not self._pauses:
                self.timeout.reschedule(min(now + self._timeout_s, self._ends_at))
        except RuntimeError:
            return  # it has just expired
        if self._listener is None:
            return
        self._left = min(float(_AT_ONCE), self._left + (now - self._last_at) / _EVERY_S)
        self._last_at = now
        if self._timer is None and self._left >= 1:
            self._left -= 1
            self._tell(params)
            return
        self._latest = params
        if self._timer is None:
            self._timer = loop.call_later(_EVERY_S, self._due)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While the server waits for the client's answer, its time does not run."""
        now = asyncio.get_running_loop().time
        if not self._pauses:
            self._paused_at = now()
        self._pauses += 1
        self._reschedule(None)
        try:
            yield
        finally:
            self._pauses -= 1
            if not self._pauses:
                self._ends_at += now() - self._paused_at
                self._reschedule(min(now() + self._timeout_s, self._ends_at))

    def _reschedule(self, when: float | None) -> None:
        if self.timeout is not None:
            with suppress(RuntimeError):  # it is just expiring, or the request is over
                self.timeout.reschedule(when)

    @property
    def is_out_of_time(self) -> bool:
        """Whether the total has passed, which no progress extends."""
        return asyncio.get_running_loop().time() >= self._ends_at

    def flush(self) -> None:
        """Pass on the latest progress before the answer."""
        if self._latest is not None:
            latest, self._latest = self._latest, None
            self._tell(latest)

    def stop(self) -> None:
        self._latest = self._listener = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        self._timer = None
        self._left = 0.0
        self.flush()

    def _tell(self, params: Mapping[str, Any]) -> None:
        if self._listener is None:
            return
        if isinstance(params.get("message"), str):
            params = {**params, "message": cut(params["message"])}
        if not fits(params, _LARGEST):
            params = {name: params[name] for name in _FIELDS if name in params and fits(params[name], _LARGEST)}
        try:
            self._listener(params)
        except Exception as error:  # a failing listener does not end the call
            log.debug("%s: progress was not passed on: %r", self._name, error)
