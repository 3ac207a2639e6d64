"""Which targets a request may go to, in which order. Health and money are asked elsewhere."""

import datetime
import fnmatch
import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mcpgate.config import conditions
from mcpgate.config.conditions import Comparison, TimeOfDay
from mcpgate.config.llm import QUALITIES, LlmConfig, ModelConfig, RouteConfig, TargetConfig
from mcpgate.governance.callers import Caller
from mcpgate.governance.records import Usage


@dataclass(frozen=True, slots=True)
class Target:
    """One model of one provider."""

    provider: str
    model: str
    retries: int = 0
    fallback_on: tuple[str, ...] = ()
    timeout_s: float | None = None
    context_tokens: int | None = None
    lacks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.provider}/{self.model}"

    def falls_back(self, reason: str) -> bool:
        """Whether the next target is taken for a failure: a status, or `timeout`, `connection`, `budget`, `limit`."""
        if reason == "limit":
            reason = "429"
        return reason in self.fallback_on or (reason[:1] in "45" and f"{reason[0]}xx" in self.fallback_on)


@dataclass(frozen=True, slots=True)
class Qualities:
    """What routes and strategies look at."""

    caller: Caller
    model: str
    """As the client named it."""
    stream: bool = False
    tools: bool = False
    images: bool = False
    session: str = ""
    """Requests of one session go to the same target."""
    usage: Usage = field(default_factory=Usage)
    """The estimate."""
    budget_used: float | None = None
    """The share of the fullest budget that applies; None if it was not asked for."""
    at: float = 0.0
    """Epoch seconds."""


@dataclass(frozen=True, slots=True)
class Step:
    """Why a route or a target was or was not taken, in words."""

    what: str
    taken: bool
    why: str


class Standing(Protocol):
    """What is known of targets by now."""

    def by_speed(self, alias: str, targets: Sequence[Target]) -> Sequence[Target]:
        """The one that is probably quickest first."""
        ...

    def speed_ms(self, target: Target) -> float | None:
        """What an answer of typical length takes; None if it is not known."""
        ...

    def cost(self, target: Target, usage: Usage) -> int | None:
        """Nano-dollars; None if the price is not known."""
        ...

    def context_tokens(self, target: Target) -> int | None:
        """How much the model takes, if that is known."""
        ...


def resolve(config: LlmConfig, name: str) -> str | None:
    """The alias or `provider/model` that a client's name stands for; None if it stands for nothing."""
    if name in config.models:
        return name
    provider, slash, model = name.partition("/")
    if slash and model and provider in config.providers:
        return name
    return None if config.unknown_model == "refuse" else config.unknown_model


def all_of(config: LlmConfig, name: str) -> Iterator[Target]:
    """Every target that an alias can lead to."""
    model = config.models[name]
    for target in (*model.targets, *(target for route in model.routes for target in route.targets)):
        if target.target in config.models:
            yield from all_of(config, target.target)
        else:
            yield _leaf(target)


class Routes:
    """The routes of one configuration."""

    def __init__(self, config: LlmConfig, standing: Standing) -> None:
        self.config, self._standing = config, standing
        self.looks_at_budgets = any(
            "budget_used" in route.when for model in config.models.values() for route in model.routes
        )
        self._fixed: dict[str, list[Target]] = {}
        """Of aliases whose targets are always the same."""

    def plan(self, name: str, about: Qualities, steps: list[Step] | None = None) -> list[Target]:
        """The targets of a resolved name, best first, each once. `steps` gets the reasons."""
        found: dict[str, Target] = {}
        for target in self._targets(name, about, steps):
            found.setdefault(target.name, target)
        targets = list(found.values())
        if name in self.config.models and self._is_fixed(name):
            self._fixed[name] = targets
        return self._fitting(targets, about, steps)

    def fixed(self, name: str) -> list[Target] | None:
        """The targets of an alias that has always the same, once they are known."""
        return self._fixed.get(name)

    def all_of(self, name: str) -> Iterator[Target]:
        """Every target that an alias can lead to."""
        return all_of(self.config, name)

    def _is_fixed(self, name: str) -> bool:
        model = self.config.models[name]
        return (
            not model.routes
            and model.strategy == "priority"
            and all(
                self._is_fixed(target.target)
                if target.target in self.config.models
                else target.context_tokens is None and not target.lacks
                for target in model.targets
            )
        )

    def _targets(
        self, name: str, about: Qualities, steps: list[Step] | None, wish: TargetConfig | None = None
    ) -> Iterator[Target]:
        model = self.config.models.get(name)
        if model is None:
            yield _leaf(wish or TargetConfig(target=name))
            return
        strategy, wishes = self._chosen(name, model, about, steps)
        if strategy == "weight":
            wishes = _drawn(name, wishes, about)
        leaves = [leaf for one in wishes for leaf in self._targets(one.target, about, steps, one)]
        if strategy == "latency":
            leaves = list(self._standing.by_speed(name, leaves))
            self._explain(name, leaves, lambda leaf: _shown_ms(self._standing.speed_ms(leaf)), steps)
        elif strategy == "cost":
            leaves = self._by_cost(name, leaves, about, steps)
        yield from leaves

    def _chosen(
        self, name: str, model: ModelConfig, about: Qualities, steps: list[Step] | None
    ) -> tuple[str, Sequence[TargetConfig]]:
        if not model.routes:
            return model.strategy, model.targets
        for number, route in enumerate(model.routes, 1):
            missing = next((key for key in route.when if not _holds(key, route, about)), None)
            if steps is not None:
                why = "its conditions hold" if missing is None else f"{missing} is {_shown(_value(missing, about))}"
                steps.append(Step(f"route {number} of {name}", missing is None, why))
            if missing is None:
                return route.strategy, route.targets
        return "priority", ()

    def _by_cost(self, name: str, leaves: Sequence[Target], about: Qualities, steps: list[Step] | None) -> list[Target]:
        """The cheapest first; those without a known price last, in their order."""
        costs = {leaf.name: self._standing.cost(leaf, about.usage) for leaf in leaves}
        order = sorted(leaves, key=lambda leaf: _last_if_unknown(costs[leaf.name]))
        roomy = [leaf for leaf in order if _has_room(self._standing.context_tokens(leaf), about)]
        order = roomy or order
        self._explain(name, order, lambda leaf: _shown_cost(costs[leaf.name]), steps)
        return order

    @staticmethod
    def _explain(name: str, leaves: Sequence[Target], why: Any, steps: list[Step] | None) -> None:
        if steps is not None:
            steps += [Step(f"{leaf.name} of {name}", leaf is leaves[0], why(leaf)) for leaf in leaves]

    def _fitting(self, targets: list[Target], about: Qualities, steps: list[Step] | None) -> list[Target]:
        """Without those that cannot take the request, unless none can: then the provider says why."""
        fitting = []
        for target in targets:
            lacking = [name for name in target.lacks if getattr(about, name)]
            if not lacking and _has_room(target.context_tokens, about):
                fitting.append(target)
            elif steps is not None:
                why = f"it lacks {' and '.join(lacking)}" if lacking else f"it takes {target.context_tokens:,} tokens"
                steps.append(Step(target.name, False, why))
        return fitting or targets


def _leaf(wish: TargetConfig) -> Target:
    provider, _, model = wish.target.partition("/")
    return Target(
        *(provider, model, wish.retries, wish.fallback_on, wish.timeout_s),
        context_tokens=wish.context_tokens,
        lacks=wish.lacks,
    )


def _drawn(name: str, targets: Sequence[TargetConfig], about: Qualities) -> Sequence[TargetConfig]:
    # The same session draws the same lots; every other request its own.
    seed = (
        hashlib.sha256(f"{name}\n{about.caller.account}\n{about.session}".encode()).digest() if about.session else None
    )
    lots = random.Random(seed)
    drawn = [(lots.random() ** (1 / target.weight), target) for target in targets if target.weight > 0]
    return [target for _, target in sorted(drawn, key=lambda one: -one[0])]


def _has_room(context_tokens: int | None, about: Qualities) -> bool:
    return context_tokens is None or about.usage.input_tokens + about.usage.output_tokens <= context_tokens


def _holds(name: str, route: RouteConfig, about: Qualities) -> bool:
    value = _value(name, about)
    return value is not None and any(_fits(conditions.parse(name, text), value, about) for text in route.when[name])


def _fits(condition: str | Comparison | TimeOfDay, value: str | float, about: Qualities) -> bool:
    match condition:
        case Comparison():
            return isinstance(value, (int, float)) and condition.holds(value)
        case TimeOfDay():
            at = datetime.datetime.fromtimestamp(about.at, condition.zone)
            return condition.holds(at.hour * 60 + at.minute)
        case _:
            return isinstance(value, str) and fnmatch.fnmatchcase(value, condition)


def _value(name: str, about: Qualities) -> str | float | None:
    caller = about.caller
    if name in QUALITIES:
        return str(getattr(about, name)).lower()
    values: Mapping[str, Any] = {
        "key": caller.id,
        "user": caller.user,
        "team": caller.team,
        "customer": caller.customer,
        "model": about.model,
        "input_tokens": about.usage.input_tokens,
        "budget_used": about.budget_used,
        "time": datetime.datetime.fromtimestamp(about.at, datetime.UTC).strftime("%H:%M UTC"),
    }
    found = values[name] if name in values else caller.metadata.get(name.removeprefix("metadata."))
    return found if isinstance(found, (str, int, float)) else None


def _shown(value: str | float | None) -> str:
    return "not known" if value is None else f"{value:.2f}" if isinstance(value, float) else repr(value)


def _shown_ms(ms: float | None) -> str:
    return "its speed is not known yet" if ms is None else f"an answer of typical length takes it {ms:,.0f} ms"


def _shown_cost(cost: int | None) -> str:
    return "its price is not known" if cost is None else f"it costs at most ${cost / 1e9:.6f}"


def _last_if_unknown(cost: int | None) -> tuple[bool, int]:
    return cost is None, cost or 0
