"""One budget or rate limit: whom it applies to, what it counts, over which window, and what it takes from a request.
Pure; `Counters` reserve what it takes, and rules.py makes rules from settings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from mcpgate.governance.records import Balance, Claim, Refusal, Usage, to_usd
from mcpgate.governance.windows import Window

Measure = Literal["cost", "requests", "tokens", "input_tokens", "output_tokens", "execution_seconds", "concurrency"]
PER_REQUEST = ("requests", "concurrency")
"""Measures that nested requests do not add to, unless the rule names servers, tools, providers or models."""
INNER = ("server", "tool", "provider", "model")
"""Dimensions of nested requests."""
MILLISECONDS = 1000


def measured(measure: str, cost: int | None, usage: Usage) -> int:
    """What a request used: nano-dollars, milliseconds, or a number. Unpriced requests count as zero."""
    match measure:
        case "cost":
            return cost or 0
        case "requests":
            return 1
        case "tokens":
            return usage.input_tokens + usage.output_tokens
        case "input_tokens":
            return usage.input_tokens
        case "output_tokens":
            return usage.output_tokens
        case "execution_seconds":
            return round(usage.seconds * MILLISECONDS)
        case "concurrency":
            return 0  # held, never spent
    raise ValueError(measure)


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """One limit on one measure."""

    id: str
    measure: Measure
    limit: int
    """Nano-dollars for cost, milliseconds for execution_seconds, else a number."""
    window: Window
    when: tuple[tuple[str, tuple[str, ...]], ...] = ()
    per: str = "shared"
    group: str | None = None
    soft_limit: int | None = None
    start: int = 0
    override: tuple[int, float] | None = None
    """Another limit, until so many epoch seconds."""

    def limit_at(self, at: float) -> int:
        """The limit that holds at a moment, in epoch seconds."""
        return self.limit if self.override is None or at >= self.override[1] else self.override[0]

    def limit_text(self, at: float) -> str:
        return shown_amount(self.measure, self.limit_at(at)) + (f" per {self.window}" if str(self.window) else "")

    @property
    def counts_nested(self) -> bool:
        """Whether requests nested in an execution or a chat count too."""
        return self.measure not in PER_REQUEST or any(name in INNER for name, _ in self.when)

    def plain_amount(self, amount: int) -> float:
        """An amount as people count it: seconds instead of milliseconds. Not for money: see `records.to_usd`."""
        return amount / MILLISECONDS if self.measure == "execution_seconds" else amount

    def counter(self, subject: str) -> str:
        # Includes the window, because amounts in cells of another length mean something else.
        return f"{self.id}|{self.measure}|{self.window.key}|{subject}"

    def takes(self, cost: int | None, usage: Usage) -> int:
        """What is reserved for a request: as measured, but one for concurrency, which is only held."""
        return 1 if self.measure == "concurrency" else measured(self.measure, cost, usage)

    def claim(self, subject: str, at: float, amount: int, governs: bool = True) -> Claim:
        span = self.window.span(at)
        return Claim(
            counter=self.counter(subject),
            measure=self.measure,
            amount=amount,
            limit=self.limit_at(at) if governs else None,
            cell=span.cell,
            oldest=span.oldest,
            ends_at=span.ends_at,
        )


def shown_amount(measure: str, amount: int) -> str:
    if measure == "cost":
        return f"${to_usd(amount):f}"
    if measure == "execution_seconds":
        return f"{amount / MILLISECONDS:g} execution seconds"
    if measure == "concurrency":
        return f"{amount} at once"
    name = measure.replace("_", " ")
    return f"{amount:,} {name.removesuffix('s') if amount == 1 else name}"


def fitted(claims: Sequence[Claim], balances: Sequence[Balance]) -> tuple[Balance, ...] | Refusal:
    """Whether claims fit the balances of their counters: all, or none. Returns the balances including them."""
    misfits = [
        (place, balance)
        for place, (claim, balance) in enumerate(zip(claims, balances, strict=True))
        if claim.limit is not None and balance.spent + balance.held + claim.amount > claim.limit
    ]
    if misfits:
        return Refusal(tuple(misfits))
    pairs = zip(claims, balances, strict=True)
    return tuple([Balance(balance.spent, balance.held + claim.amount, balance.first) for claim, balance in pairs])


# --- matching


@dataclass(slots=True, eq=False)
class Match:
    """A rule that applies to a request."""

    rule: Rule
    subject: str
    """Whose share it is; empty if all share it."""
    governs: bool
    """False if another rule of its group comes first: then it only counts."""
    _last: "Share | None" = None

    def share(self, at: float, amount: int) -> "Share":
        """What it takes from a request at a moment. Most requests take as much as the one before."""
        last, rule = self._last, self.rule
        if (
            last is None
            or last.claim.amount != amount
            or last.claim.cell != rule.window.span(at).cell
            or rule.override is not None
        ):
            last = self._last = Share(self, rule.claim(self.subject, at, amount, self.governs))
        return last


class Share(NamedTuple):
    """What one rule takes from one request."""

    match: Match
    claim: Claim
