"""Which targets a request may go to, in which order. Pure: health and money are asked elsewhere."""

import fnmatch
import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcpgate.config.llm import QUALITIES, LlmConfig, ModelConfig, RouteConfig, TargetConfig
from mcpgate.governance.callers import Caller


@dataclass(frozen=True, slots=True)
class Target:
    """One model of one provider."""

    provider: str
    model: str
    retries: int = 0
    fallback_on: tuple[str, ...] = ()
    timeout_s: float | None = None

    @property
    def name(self) -> str:
        return f"{self.provider}/{self.model}"

    def falls_back(self, reason: str) -> bool:
        """Whether the next target is taken for a failure: a status, or `timeout`, `connection`, `budget`."""
        return reason in self.fallback_on or (reason[:1] in "45" and f"{reason[0]}xx" in self.fallback_on)


@dataclass(frozen=True, slots=True)
class Qualities:
    """What routes look at."""

    caller: Caller
    model: str
    """As the client named it."""
    stream: bool = False
    tools: bool = False
    images: bool = False
    session: str = ""
    """Requests of one session go to the same target."""


@dataclass(frozen=True, slots=True)
class Step:
    """Why a route or a target was or was not taken, in words."""

    what: str
    taken: bool
    why: str


def resolve(config: LlmConfig, name: str) -> str | None:
    """The alias or `provider/model` that a client's name stands for; None if it stands for nothing."""
    if name in config.models:
        return name
    provider, slash, model = name.partition("/")
    if slash and model and provider in config.providers:
        return name
    return None if config.unknown_model == "refuse" else config.unknown_model


def plan(config: LlmConfig, name: str, about: Qualities, steps: list[Step] | None = None) -> list[Target]:
    """The targets of a resolved name, best first, each once. `steps` gets the reasons."""
    found: dict[str, Target] = {}
    for target in _targets(config, name, about, steps):
        found.setdefault(target.name, target)
    return list(found.values())


def _targets(
    config: LlmConfig, name: str, about: Qualities, steps: list[Step] | None, wish: TargetConfig | None = None
) -> Iterator[Target]:
    model = config.models.get(name)
    if model is None:
        provider, _, own = name.partition("/")
        wish = wish or TargetConfig(target=name)
        yield Target(provider, own, wish.retries, wish.fallback_on, wish.timeout_s)
        return
    for target in _chosen(name, model, about, steps):
        yield from _targets(config, target.target, about, steps, target)


def _chosen(name: str, model: ModelConfig, about: Qualities, steps: list[Step] | None) -> Sequence[TargetConfig]:
    if not model.routes:
        return _ordered(name, model.strategy, model.targets, about)
    for number, route in enumerate(model.routes, 1):
        missing = next((key for key in route.when if not _holds(key, route, about)), None)
        if steps is not None:
            why = "its conditions hold" if missing is None else f"{missing} is {_shown(_value(missing, about))}"
            steps.append(Step(f"route {number} of {name}", missing is None, why))
        if missing is None:
            return _ordered(name, route.strategy, route.targets, about)
    return ()


def _ordered(name: str, strategy: str, targets: Sequence[TargetConfig], about: Qualities) -> Sequence[TargetConfig]:
    if strategy == "priority":
        return targets
    # The same session draws the same lots; every other request its own.
    seed = (
        hashlib.sha256(f"{name}\n{about.caller.account}\n{about.session}".encode()).digest() if about.session else None
    )
    lots = random.Random(seed)
    drawn = [(lots.random() ** (1 / target.weight), target) for target in targets if target.weight > 0]
    return [target for _, target in sorted(drawn, key=lambda one: -one[0])]


def _holds(name: str, route: RouteConfig, about: Qualities) -> bool:
    value = _value(name, about)
    return value is not None and any(fnmatch.fnmatchcase(value, glob) for glob in route.when[name])


def _value(name: str, about: Qualities) -> str | None:
    caller = about.caller
    if name in QUALITIES:
        return str(getattr(about, name)).lower()
    values: Mapping[str, Any] = {
        "key": caller.id,
        "user": caller.user,
        "team": caller.team,
        "customer": caller.customer,
        "model": about.model,
    }
    found = values[name] if name in values else caller.metadata.get(name.removeprefix("metadata."))
    return found if isinstance(found, str) else None


def _shown(value: str | None) -> str:
    return "not known" if value is None else repr(value)
