"""All upstreams of a configuration: each has a task of its own that connects, lists, follows changes and
reconnects. The catalog decides what the tools look like, and proxy/views who may call them.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mcpgate.config.upstreams import UpstreamConfig
from mcpgate.errors import NotFound
from mcpgate.upstream.bearer import Link
from mcpgate.upstream.tokens import Vault
from mcpgate.upstream.upstream import Announcement, Upstream, UpstreamView


class UpstreamPool:
    """Every upstream by name. One broken upstream never delays or breaks another."""

    def __init__(self, held: bool = False, vault: Vault | None = None, link: Link | None = None) -> None:
        """`held`: do not connect before `go` is called. `vault`: where tokens are; without it nobody signs in. `link`:
        where callers sign in for themselves."""
        self._vault, self._link = vault, link
        self._upstreams: dict[str, Upstream] = {}
        self._listeners: list[Callable[[], None]] = []
        self._event_listeners: list[Callable[[Announcement], None]] = []
        self._go = asyncio.Event()
        if not held:
            self._go.set()
        self._remembered: Callable[[str, UpstreamConfig], Sequence[dict[str, Any]]] = lambda name, config: ()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Called, on the event loop, whenever any upstream's view changes."""
        self._listeners.append(listener)

    def on_event(self, listener: Callable[[Announcement], None]) -> None:
        """Called, on the event loop, with what a server announces, changes of its tools aside."""
        self._event_listeners.append(listener)

    def remember_with(self, find: Callable[[str, UpstreamConfig], Sequence[dict[str, Any]]]) -> None:
        """Set where to look up a server's last known tools, which are shown until it is connected."""
        self._remembered = find

    def expect_live_clients(self) -> None:
        """If nothing is connected yet: the client that comes can be asked in the middle of its requests."""
        if not self._go.is_set():
            for upstream in self._upstreams.values():
                upstream.expect_live_clients()

    def go(self) -> None:
        """Let a held pool connect. Until then `apply` only records the upstreams: a new process answers its first
        request before it shares its cores with the children it starts."""
        self._go.set()

    async def apply(self, configs: Mapping[str, UpstreamConfig]) -> None:
        """Make the pool match: start new upstreams, replace changed ones, stop removed ones. Calls in progress on
        upstreams that stay are not affected. Returns without waiting for connections."""
        leaving = [up for name, up in self._upstreams.items() if configs.get(name) != up.config]
        for upstream in leaving:
            del self._upstreams[upstream.name]
        for name, config in configs.items():
            if name not in self._upstreams:
                remembered = self._remembered(name, config)
                upstream = Upstream(
                    name, config, self._notify, self._tell, remembered, self._go, self._vault, self._link
                )
                self._upstreams[name] = upstream
                upstream.start()
        self._upstreams = {name: self._upstreams[name] for name in configs}
        self._notify()
        await asyncio.gather(*(upstream.aclose() for upstream in leaving))

    def views(self) -> list[UpstreamView]:
        return [upstream.view for upstream in self._upstreams.values()]

    def get(self, name: str) -> Upstream:
        """Raises NotFound."""
        try:
            return self._upstreams[name]
        except KeyError:
            raise NotFound(f"there is no server {name!r}") from None

    async def settled(
        self, names: Sequence[str] | None = None, timeout_s: float = 60.0, any_of_them: bool = False
    ) -> bool:
        """Wait until none of these upstreams (default: all) is connecting for the first time, or until one more of them
        is not. False if the time was too short."""
        chosen = [up for name, up in self._upstreams.items() if names is None or name in names]
        waiting = [asyncio.ensure_future(up.settled()) for up in chosen if up.view.state == "connecting"]
        if not waiting:
            return True
        try:
            until = asyncio.FIRST_COMPLETED if any_of_them else asyncio.ALL_COMPLETED
            done, late = await asyncio.wait(waiting, timeout=timeout_s, return_when=until)
            return bool(done) if any_of_them else not late
        finally:
            for task in waiting:
                task.cancel()

    async def aclose(self) -> None:
        upstreams, self._upstreams = list(self._upstreams.values()), {}
        await asyncio.gather(*(upstream.aclose() for upstream in upstreams), return_exceptions=True)

    def _notify(self) -> None:
        for listener in self._listeners:
            listener()

    def _tell(self, announced: Announcement) -> None:
        for listener in self._event_listeners:
            listener(announced)

    def __repr__(self) -> str:
        states: dict[str, list[str]] = {}
        for view in self.views():
            states.setdefault(view.state, []).append(view.name)
        parts = [f"{len(names)} {state}" for state, names in states.items()]
        failed = f": {', '.join(states['failed'])}" if "failed" in states else ""
        return f"<UpstreamPool [{', '.join(parts)}{failed}]>"
