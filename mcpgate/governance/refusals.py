"""The error that a caller gets if a reservation is refused: which limit, whose, how much is left, when to retry. Pure;
the gate does the refusing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mcpgate.config.governance import SCOPES
from mcpgate.errors import BudgetExceeded, McpgateError, RateLimited
from mcpgate.governance.callers import Caller
from mcpgate.governance.records import Balance, Refusal, shown_moment, to_usd
from mcpgate.governance.rule import Share, shown_amount


def scope_of(caller: Caller, share: Share) -> str:
    """Whose limit it is, in words: `user ada`, `key vk_1`, `project_id p7`, `everybody together`."""
    rule = share.match.rule
    if rule.per != "shared":
        return f"{rule.per.removeprefix('metadata.')} {share.match.subject}"
    kind, separator, name = rule.id.partition(":")
    if separator and kind in SCOPES:
        return f"{kind} {name}"
    return "everybody together"


@dataclass(frozen=True, slots=True)
class _Misfit:
    share: Share
    balance: Balance
    spent: bool
    """It would not fit even if nothing were held."""
    resets_at: float


def refusal_for(caller: Caller, shares: Sequence[Share], refusal: Refusal, now: float) -> tuple[McpgateError, bool]:
    """The error for a refusal, and whether waiting briefly may help: what is missing is only held, not spent. Pure."""
    misfits = []
    for place, balance in refusal.misfits:
        share = shares[place]
        claim, rule = share.claim, share.match.rule
        # A request in progress counts as one, however it ends.
        taken = balance.spent + (balance.held if claim.measure == "requests" else 0)
        spent = taken + claim.amount > (claim.limit or 0)
        first = claim.cell if balance.first is None else balance.first
        misfits.append(_Misfit(share, balance, spent, rule.window.frees_at(first)))
    # Reports the limit that blocks longest: a budget before a rate limit, spent amounts before held ones.
    worst = max(misfits, key=lambda m: (m.spent, m.share.claim.measure == "cost", m.resets_at))
    held = not worst.spent and all(m.share.claim.measure != "concurrency" for m in misfits)
    return _error_of(caller, worst, now), held


def _error_of(caller: Caller, misfit: _Misfit, now: float) -> McpgateError:
    share, balance = misfit.share, misfit.balance
    rule, claim = share.match.rule, share.claim
    scope = scope_of(caller, share)
    resets = shown_moment(misfit.resets_at)
    if rule.measure == "cost":
        limit = rule.limit_at(now)
        left = max(0, limit - balance.spent - balance.held)
        amounts = {"limit": limit, "spent": balance.spent, "reserved": balance.held}
        money = {name: float(to_usd(amount)) for name, amount in amounts.items()}
        facts = {
            **{"scope": scope, "budget": rule.id, "window": str(rule.window) or None, "resets_at": resets},
            **money,
            **{f"{name}_usd": usd for name, usd in money.items()},
        }
        limit_text = rule.limit_text(now)
        needs = f"{shown_amount('cost', claim.amount)} is needed and {shown_amount('cost', left)} is left"
        if misfit.spent:
            when = f"; it resets at {resets}" if resets else ""
            return BudgetExceeded(
                f"budget {rule.id!r} of {scope} ({limit_text}) does not allow this: {needs}{when}", **facts
            )
        return RateLimited(
            f"budget {rule.id!r} of {scope} ({limit_text}) is reserved by calls in progress: {needs}; try again",
            **facts,
            retry_after_s=0.5,
        )
    wait = 1.0 if rule.measure == "concurrency" or not misfit.spent else max(0.001, misfit.resets_at - now)
    return RateLimited(
        f"rate limit {rule.id!r} of {scope}: {rule.limit_text(now)}; try again in {wait:.1f} s",
        scope=scope,
        rate_limit=rule.id,
        measure=rule.measure,
        limit=rule.plain_amount(rule.limit_at(now)),
        window=str(rule.window) or None,
        retry_after_s=math.ceil(wait * 1000) / 1000,
    )
