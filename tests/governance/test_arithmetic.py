"""Money is conserved and no limit is passed, whatever order things happen in: every method of `Counters` in any
order, against a model of a few lines."""

import asyncio
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from mcpgate.governance.records import Claim, Refusal, Reservation
from mcpgate.stores.memory import MemoryStore
from mcpgate.stores.sqlite.governance import SqliteStore
from tests.stores.conftest import NOW, claim, reservation, settlement

LIMITS = {"a": 100, "b": 30}
AMOUNTS = st.fixed_dictionaries({}, optional={name: st.integers(0, limit + 5) for name, limit in LIMITS.items()})
OWNERS = ("steady", "shaky")


class Arithmetic(RuleBasedStateMachine):
    """`claims` by request: of those that are held, and of those whose owner's lease ran out before they settled."""

    def __init__(self, make: Callable[[], Any], lapses: bool) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stores = make()
        self.lapses = lapses
        self.numbers = itertools.count()
        self.now = NOW
        self.until = NOW + 30
        """Of the shaky owner's lease, where leases lapse."""
        self.done: set[tuple[str, str]] = set()
        self.held: dict[str, Reservation] = {}
        self.lapsed: dict[str, Reservation] = {}
        self.settled: list[tuple[Any, ...]] = []
        self.ledger = dict.fromkeys(LIMITS, 0)
        self.adjusted = dict.fromkeys(LIMITS, 0)
        self.forgiven = dict.fromkeys(LIMITS, 0)
        self.late = dict.fromkeys(LIMITS, 0)
        """What was settled after its hold had lapsed, and since the last reset: by so much a limit can be passed."""
        for owner in OWNERS:
            self.run(self.stores.renew(owner, self.now + 30))

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.stores.close())
        self.runner.close()

    def stands(self) -> dict[str, tuple[int, int]]:
        found = self.run(self.stores.read([(name, 0) for name in LIMITS]))
        return {name: (one.spent, one.held) for name, one in zip(LIMITS, found, strict=True)}

    def _held(self, name: str) -> int:
        return sum(c.amount for one in self.held.values() for c in one.claims if c.counter == name)

    @rule(amounts=AMOUNTS, owner=st.sampled_from(OWNERS), cell=st.integers(0, 2))
    def reserve(self, amounts: dict[str, int], owner: str, cell: int) -> None:
        claims: list[Claim] = [
            claim(name, amount, LIMITS[name], cell=cell, oldest=0) for name, amount in amounts.items()
        ]
        if not claims:
            return
        wanted = reservation(f"r{next(self.numbers)}", *claims, owner=owner)
        before = self.stands()
        answer = self.run(self.stores.reserve(wanted))
        fits = all(sum(before[c.counter]) + c.amount <= LIMITS[c.counter] for c in claims)
        assert isinstance(answer, Refusal) != fits, "what fits is admitted and nothing else"
        if fits:
            self.held[wanted.id] = wanted

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def reserve_again(self, data: st.DataObject) -> None:
        again = self.held[data.draw(st.sampled_from(sorted(self.held)))]
        assert not isinstance(self.run(self.stores.reserve(again)), Refusal)

    @precondition(lambda self: self.held or self.lapsed)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """At most for what was held."""
        id = data.draw(st.sampled_from(sorted({**self.held, **self.lapsed})))
        late = id in self.lapsed
        ended = self.lapsed.pop(id) if late else self.held.pop(id)
        spent = [data.draw(st.integers(0, c.amount)) for c in ended.claims]
        self.run(self.stores.settle([settlement(id, *ended.claims, spent=spent)]))
        self.settled.append((id, ended, spent))
        for c, amount in zip(ended.claims, spent, strict=True):
            self.ledger[c.counter] += amount
            if late:
                self.late[c.counter] += amount

    @precondition(lambda self: self.settled)
    @rule(data=st.data())
    def settle_again(self, data: st.DataObject) -> None:
        id, ended, spent = data.draw(st.sampled_from(self.settled))
        self.run(self.stores.settle([settlement(id, *ended.claims, spent=[amount + 1 for amount in spent])]))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), twice=st.booleans())
    def release(self, data: st.DataObject, twice: bool) -> None:
        ended = self.held.pop(data.draw(st.sampled_from(sorted(self.held))))
        for _ in range(1 + twice):
            self.run(self.stores.release(ended))

    @precondition(lambda self: self.settled)
    @rule(data=st.data())
    def release_what_is_settled(self, data: st.DataObject) -> None:
        self.run(self.stores.release(data.draw(st.sampled_from(self.settled))[1]))

    @rule(seconds=st.integers(1, 40))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        self.run(self.stores.renew("steady", self.now + 30))
        if not self.lapses:
            self.run(self.stores.renew("shaky", self.now + 30))
        gone = self.run(self.stores.expire(self.now))
        lapsed = {}
        if self.lapses and self.until <= self.now:
            lapsed = {id: one for id, one in self.held.items() if one.owner == "shaky"}
        assert gone == len(lapsed)
        for id, one in lapsed.items():
            del self.held[id]
            self.lapsed[id] = one

    @precondition(lambda self: self.lapses)
    @rule()
    def the_shaky_owner_is_back(self) -> None:
        self.until = self.now + 30
        self.run(self.stores.renew("shaky", self.until))

    @rule(name=st.sampled_from(sorted(LIMITS)))
    def reset(self, name: str) -> None:
        self.forgiven[name] += self.stands()[name][0]
        self.late[name] = 0
        self.run(self.stores.reset(name))

    @rule(name=st.sampled_from(sorted(LIMITS)), amount=st.integers(0, 40), once=st.sampled_from([None, "x", "y"]))
    def adjust(self, name: str, amount: int, once: str | None) -> None:
        """By an amount that fits, as a start value does."""
        spent, held = self.stands()[name]
        amount = max(0, min(amount, LIMITS[name] - spent - held))
        self.run(self.stores.adjust(claim(name, amount, None), once=once and f"{once} {name}"))
        if once is None or (once, name) not in self.done:
            self.adjusted[name] += amount
        if once is not None:
            self.done.add((once, name))

    @invariant()
    def money_is_conserved_and_no_limit_is_passed(self) -> None:
        for name, (spent, held) in self.stands().items():
            assert spent == self.ledger[name] + self.adjusted[name] - self.forgiven[name]
            assert held == self._held(name)
            # Passed only by what was settled after its hold had lapsed: it was spent, and the room for it given away.
            assert spent + held <= LIMITS[name] + self.late[name]
            if not self.lapses:
                assert spent + held <= LIMITS[name]


def _sqlite() -> SqliteStore:
    return SqliteStore(Path(tempfile.mkdtemp(prefix="mcpgate-arithmetic-")) / "stores.sqlite3")


@pytest.mark.parametrize("lapses", [False, True], ids=["every lease is kept", "leases run out"])
@pytest.mark.parametrize(("make", "examples"), [(MemoryStore, 100), (_sqlite, 12)], ids=["memory", "sqlite"])
def test_no_order_of_events_loses_money_or_passes_a_limit(
    make: Callable[[], Any], examples: int, lapses: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run_state_machine_as_test(
        lambda: Arithmetic(make, lapses),
        settings=settings(
            max_examples=examples, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
