"""The keys of one provider: drawn by weight; one that was refused or is exhausted rests, and another is used."""

import fnmatch
import hashlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mcpgate.config.llm import ProviderConfig

_REFUSED_S = 300.0
"""How long a key rests that the provider did not accept."""
_LONGEST_REST_S = 600.0


@dataclass(slots=True)
class Key:
    secret: str
    weight: float = 1.0
    models: tuple[str, ...] = ("*",)
    rests_until: float = 0.0
    """Monotonic seconds."""
    mark: str = ""
    """By which it is found again after a restart, whatever its place among the others. It does not tell the secret."""

    def __post_init__(self) -> None:
        self.mark = hashlib.sha256(f"mcpgate\n{self.secret}".encode()).hexdigest()[:16] if self.secret else ""

    def __repr__(self) -> str:
        return "<Key ********>"


class KeyRing:
    """Draws keys."""

    def __init__(self, config: ProviderConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        several = [Key(one.api_key.get_secret_value(), one.weight, one.models) for one in config.keys]
        self.all = several or [Key(config.api_key.get_secret_value() if config.api_key is not None else "")]

    def candidates(self, model: str, mark: str = "") -> Sequence[Key]:
        """The keys for a model, in the order in which they are tried. Those that rest come last: they are better than
        nothing. `mark`: of the only one that will do, unless it has been replaced."""
        if mark and (bound := [key for key in self.all if key.mark == mark]):
            return bound[:1]
        if len(self.all) == 1 and self.all[0].models == ("*",):
            return self.all
        now = self._clock()
        fit = [key for key in self.all if any(fnmatch.fnmatchcase(model, glob) for glob in key.models)]
        drawn = sorted(fit, key=lambda key: -(random.random() ** (1 / key.weight)) if key.weight > 0 else 1.0)
        return sorted(drawn, key=lambda key: max(0.0, key.rests_until - now))

    def rest(self, key: Key, status: int, retry_after_s: float | None) -> bool:
        """Note that a key was refused with a status. Whether another one may help."""
        if status in (401, 403):
            pause_s = _REFUSED_S
        elif status in (402, 429):
            pause_s = min(retry_after_s or 5.0, _LONGEST_REST_S)
        else:
            return False
        key.rests_until = self._clock() + pause_s
        return len(self.all) > 1
