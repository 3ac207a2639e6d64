"""Code that runs has the rights of this moment: whatever is taken from its key is gone a second later, in every process."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mcpgate.config.governance import GovernanceConfig, KeySpec
from mcpgate.errors import BudgetExceeded, McpgateError, NotAllowed, RateLimited
from mcpgate.governance.admin import Admin
from mcpgate.governance.callers import LOCAL, Caller
from mcpgate.governance.context import RequestContext
from mcpgate.governance.gate import Gate
from mcpgate.governance.policy import Policy
from mcpgate.governance.records import Request
from mcpgate.stores.memory import MemoryStore
from tests.governance.gates import CENT, Clock, call, gate_on, prices, standing, tool
from tests.stores.conftest import Place

pytestmark = pytest.mark.anyio
SPEC: dict[str, Any] = {
    "team": "search",
    "grants": {"tools": ["files.*"]},
    "users": ["ada", "bob"],
    "metadata": {"env": ["dev", "live"]},
}


class Running:
    """Code of one key under way in one process, while another makes changes through the admin API."""

    def __init__(self, clock: Clock, store: Any, here: Gate, there: Gate, secret: str, id: str, caller: Caller) -> None:
        self.clock, self.here, self.secret, self.id = clock, here, secret, id
        self.admin = Admin(store, there.counters, lambda: there.policy, clock)
        self.there, self.context = there, RequestContext(caller)

    async def change(self, **fields: Any) -> None:
        await self.admin.change_key(self.id, fields, "test")

    async def put(self, kind: str, id: str, **value: Any) -> None:
        await self.admin.put(kind, id, value, "test")
        await self.there.refresh()

    async def a_second_later(self) -> None:
        self.clock.now += 1.0
        await self.here.refresh()  # as the gate does every second

    async def calls(self) -> McpgateError | None:
        """A call from inside; what it is refused with."""
        outer = Request("execution", at=self.clock())
        async with self.here.admit(self.context, outer) as execution:
            inside = self.context.inside(execution)
            try:
                inside.caller = await self.here.current(inside.caller)
                if not inside.caller.grants.allow_tool(("files", "read")):
                    return NotAllowed("not granted")
                async with self.here.admit(inside, tool("read", at=self.clock(), parent_id=outer.id)):
                    return None
            except McpgateError as error:
                return error


async def running(work: Callable[[Running], Awaitable[None]], **settings: Any) -> None:
    clock, store = Clock(), MemoryStore()
    empty = Policy(GovernanceConfig())
    await Admin(store, store, lambda: empty).put("team", "poor", {"budget": {"limit_usd": 0}}, "test")
    async with gate_on(store, clock, **settings) as here, gate_on(store, clock, **settings) as there:
        admin = Admin(store, store, lambda: there.policy, clock)
        key, secret = await admin.create_key(KeySpec.model_validate(SPEC), "test")
        said = {"user": "ada", "metadata": {"env": "dev"}, "address": "10.0.0.1"}
        caller = await here.identify(secret, key_required=True, **said)  # type: ignore[arg-type]
        one = Running(clock, store, here, there, secret, key.id, caller)
        assert await one.calls() is None
        await work(one)


async def revoke(one: Running) -> None:
    await one.admin.revoke_key(one.id, "test")


async def rotate(one: Running) -> None:
    await one.admin.rotate_key(one.id, "0", "test")


TAKEN: dict[str, tuple[Callable[[Running], Awaitable[None]], type[McpgateError]]] = {
    "revoked": (revoke, NotAllowed),
    "rotated without an overlap": (rotate, NotAllowed),
    "disabled": (lambda one: one.change(enabled=False), NotAllowed),
    "expired": (lambda one: one.change(expires_at="2020-01-01"), NotAllowed),
    "regranted": (lambda one: one.change(grants={"tools": ["other.*"]}), NotAllowed),
    "granted nothing": (lambda one: one.change(grants={}), NotAllowed),
    "used from elsewhere only": (lambda one: one.change(allowed_ips=["10.0.0.2"]), NotAllowed),
    "no longer for this user": (lambda one: one.change(users=["bob"]), NotAllowed),
    "for no user": (lambda one: one.change(users=[]), NotAllowed),
    "of another user": (lambda one: one.change(user="bob", users=None), NotAllowed),
    "no longer for this env": (lambda one: one.change(metadata={"env": ["live"]}), NotAllowed),
    "of another env": (lambda one: one.change(metadata={"env": "live"}), NotAllowed),
    "moved to a team without money": (lambda one: one.change(team="poor"), BudgetExceeded),
    "given a budget that is used up": (lambda one: one.change(budget={"limit_usd": 0}), BudgetExceeded),
    "given a limit of no requests": (
        lambda one: one.put("rate_limit", "none", when={"tool": "read"}, requests=0, window="1h"), RateLimited),
    "of a team whose budget was lowered": (lambda one: one.put("team", "search", budget={"limit_usd": 0}),
                                           BudgetExceeded),
    "of a user whose budget was lowered": (lambda one: one.put("user", "ada", budget={"limit_usd": 0}), BudgetExceeded),
    "under a rule for its env": (
        lambda one: one.put("budget", "dev", when={"metadata.env": "dev"}, limit_usd=0), BudgetExceeded),
    "under a rule for its user": (lambda one: one.put("budget", "each", per="user", limit_usd=0), BudgetExceeded),
}  # fmt: skip


@pytest.mark.parametrize("how", TAKEN)
async def test_what_is_taken_from_a_key_is_taken_from_its_running_code_a_second_later(how: str) -> None:
    take, expected = TAKEN[how]

    async def work(one: Running) -> None:
        await take(one)
        await one.a_second_later()
        assert isinstance(await one.calls(), expected)
        assert isinstance(await one.calls(), expected), "and stays taken"

    await running(work)


async def test_what_is_given_to_a_key_is_given_to_its_running_code() -> None:
    async def work(one: Running) -> None:
        await one.change(team="poor")
        await one.a_second_later()
        assert isinstance(await one.calls(), BudgetExceeded)
        await one.change(team="search", grants={"servers": ["files"]})
        await one.a_second_later()
        assert await one.calls() is None

    await running(work)


async def test_a_rotation_with_an_overlap_lets_running_code_go_on_until_it_is_over() -> None:
    async def work(one: Running) -> None:
        await one.admin.rotate_key(one.id, "1h", "test")
        await one.a_second_later()
        assert await one.calls() is None
        one.clock.now += 3599
        await one.a_second_later()
        assert isinstance(await one.calls(), NotAllowed)

    await running(work)


async def test_a_key_that_runs_out_ends_its_running_code_at_that_moment() -> None:
    async def work(one: Running) -> None:
        await one.change(expires_at="2100-01-01")
        await one.a_second_later()
        assert await one.calls() is None
        one.clock.now = 4_102_444_800.0
        assert isinstance(await one.calls(), NotAllowed)

    await running(work)


@pytest.mark.parametrize(
    ("edited", "refused"),
    [
        ({}, True),
        ({"keys": {"ci": {"secret": "mg-another-secret", "grants": {"tools": "*"}}}}, True),
        ({"keys": {"ci": {"secret": "mg-declared-1", "enabled": False}}}, True),
        ({"keys": {"ci": {"secret": "mg-declared-1", "budget": {"limit_usd": 0}}}}, True),
        ({"keys": {"ci": {"secret": "mg-declared-1"}}, "budgets": [{"id": "all", "limit_usd": 0}]}, True),
        ({"keys": {"ci": {"secret": "mg-declared-1", "budget": {"limit_usd": 1}}}}, False),
    ],
)
async def test_an_edit_of_the_file_holds_for_running_code_at_once(edited: dict[str, Any], refused: bool) -> None:
    key = {"secret": "mg-declared-1", "grants": {"tools": "*"}}
    clock = Clock()
    async with gate_on(MemoryStore(), clock, keys={"ci": key}) as gate:
        caller = await gate.identify("mg-declared-1", key_required=True)
        context = RequestContext(caller)
        await call(gate, tool(at=clock(), parent_id="rq_outer"), caller)
        await gate.reload(GovernanceConfig.model_validate(edited), prices())
        answer = await asyncio.gather(_nested(gate, context, clock), return_exceptions=True)
        assert isinstance(answer[0], McpgateError) == refused, answer


async def _nested(gate: Gate, context: RequestContext, clock: Clock) -> None:
    async with gate.admit(context, tool(at=clock(), parent_id="rq_outer")):
        pass


async def test_calls_from_inside_are_counted_for_the_team_that_the_key_is_in_by_now(place: Place) -> None:
    clock = Clock()
    async with (
        place.open() as stores,
        gate_on(stores, clock, budgets=[{"id": "t", "per": "team", "limit_usd": 1}]) as gate,
    ):
        admin = Admin(stores.store, stores.counters, lambda: gate.policy, clock)
        key, secret = await admin.create_key(KeySpec(team="old"), "test")
        context = RequestContext(await gate.identify(secret, key_required=True))
        for team in ("old", "new"):
            await admin.change_key(key.id, {"team": team}, "test")
            clock.now += 1
            async with gate.admit(context, tool(at=clock(), parent_id="rq_outer")) as admission:
                admission.spent(admission.request.estimate)
        assert (
            await standing(stores.counters, "t|cost|old") == await standing(stores.counters, "t|cost|new") == (CENT, 0)
        )


async def test_what_a_caller_is_by_now_is_asked_once_a_second_however_many_calls_there_are() -> None:
    class Counted(MemoryStore):
        asked = 0

        async def get_record(self, kind: str, id: str) -> Any:
            self.asked += 1
            return await super().get_record(kind, id)

    clock, store = Clock(), Counted()
    async with gate_on(store, clock) as gate:
        admin = Admin(store, store, lambda: gate.policy, clock)
        _, secret = await admin.create_key(KeySpec(), "test")
        caller = await gate.identify(secret, key_required=True)
        store.asked = 0
        for _ in range(50):
            assert (await gate.current(caller)).id == caller.id
        assert store.asked == 1
        clock.now += 1
        await gate.current(caller)
        assert store.asked == 2


@pytest.mark.parametrize("limit", ["0.005", "1"])
async def test_a_request_that_waited_is_reserved_anew_under_changed_limits_or_costs_nothing(
    place: Place, limit: str
) -> None:
    clock = Clock()
    async with place.open() as stores, gate_on(stores, clock) as gate:
        admin = Admin(stores.store, stores.counters, lambda: gate.policy, clock)
        await admin.put("budget", "all", {"limit_usd": "0.50"}, "test")
        await admin.put("rate_limit", "few", {"requests": 5, "window": "1h"}, "test")
        await gate.refresh()
        request = tool(at=clock())
        try:
            async with gate.admit(RequestContext(LOCAL), request) as admission:
                await admin.put("budget", "all", {"limit_usd": limit, "period": "1d"}, "test")
                clock.now += 1
                await gate.refresh()
                await admission.confirm(lambda caller: None)
                assert await standing(stores.counters, "few|requests|") == (0, 1)
                assert await standing(stores.counters, "all|cost|") == (0, CENT)
                admission.spent(request.estimate)
        except BudgetExceeded:
            assert limit == "0.005"
        spent = (CENT, 1) if limit == "1" else (0, 0)
        assert await standing(stores.counters, "all|cost|") == (spent[0], 0)
        assert await standing(stores.counters, "few|requests|") == (spent[1], 0)
        await gate.flush()
        assert (await stores.store.find_settled([request.id]))[request.id].cost == spent[0]


async def test_a_request_that_may_no_longer_be_made_after_waiting_counts_nothing() -> None:
    clock, stores = Clock(), MemoryStore()
    limits = {"rate_limits": [{"id": "few", "requests": 5, "window": "1h"}]}
    async with gate_on(stores, clock, **limits) as gate:

        def refuse(caller: Caller) -> None:
            raise NotAllowed("not granted any more")

        with pytest.raises(NotAllowed):
            async with gate.admit(RequestContext(LOCAL), tool(at=clock())) as admission:
                await admission.confirm(refuse)  # only just admitted: nothing is looked at again
                assert await standing(stores, "few|requests|") == (0, 1)
                clock.now += 1
                await admission.confirm(refuse)
        assert await standing(stores, "few|requests|") == (0, 0)
