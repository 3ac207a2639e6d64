"""How quickly targets have answered lately, and which of them the strategy `latency` takes."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mcpgate.llm.routing import Target

TYPICAL_TOKENS = 200
"""Of the answer whose time is compared: a target that begins late may still end early."""
_FIRST_TOKENS = 50
"""An answer that is not streamed does not say when it began: that is taken for the time of so many tokens."""
_LEARN = 0.2
_STAY_S = 30.0
"""How long requests stay with the quickest target, so that its cache is used, unless another becomes much quicker."""
_MUCH = 1.5
_EXPLORED = 0.03
"""The share of requests that go to another target first, so that its time is known."""
_MOST = 10_000


@dataclass(slots=True)
class _Leader:
    name: str
    until: float


class Speeds:
    """The speed of every target, in this process."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random
    ) -> None:
        self._clock, self._chance = clock, chance
        self._typical_ms: dict[str, float] = {}
        self._leaders: dict[str, _Leader] = {}

    def note(self, name: str, total_ms: float, output_tokens: int, first_ms: float | None) -> None:
        """A target has answered. `first_ms`: until its first event, of a stream."""
        if first_ms is None:
            typical = total_ms / (output_tokens + _FIRST_TOKENS) * (TYPICAL_TOKENS + _FIRST_TOKENS)
        else:
            typical = first_ms + (total_ms - first_ms) / max(1, output_tokens) * TYPICAL_TOKENS
        if len(self._typical_ms) >= _MOST:
            self._typical_ms.clear()
        known = self._typical_ms.get(name)
        self._typical_ms[name] = typical if known is None else known + _LEARN * (typical - known)

    def typical_ms(self, name: str) -> float | None:
        """What an answer of typical length takes; None until one has come."""
        return self._typical_ms.get(name)

    def order(self, alias: str, targets: Sequence[Target]) -> list[Target]:
        """Targets, the one to take first. One that is not known yet comes before all others, once."""
        known = sorted(
            (target for target in targets if target.name in self._typical_ms),
            key=lambda target: self._typical_ms[target.name],
        )
        unknown = [target for target in targets if target.name not in self._typical_ms]
        if not known or unknown:
            return [*unknown[:1], *known, *unknown[1:]]
        first = self._leading(alias, known)
        others = [target for target in known if target is not first]
        if others and self._chance() < _EXPLORED:
            explored = others.pop(int(self._chance() * len(others)))
            return [explored, first, *others]
        return [first, *others]

    def _leading(self, alias: str, known: Sequence[Target]) -> Target:
        """`known`: quickest first."""
        now, quickest = self._clock(), self._typical_ms[known[0].name]
        leader = self._leaders.get(alias)
        if leader is not None and now < leader.until:
            stays = next((target for target in known if target.name == leader.name), None)
            if stays is not None and self._typical_ms[stays.name] <= _MUCH * quickest:
                return stays
        if len(self._leaders) >= _MOST:
            self._leaders.clear()
        self._leaders[alias] = _Leader(known[0].name, now + _STAY_S)
        return known[0]
