"""What requests say of themselves: what a key allows, what it says for them, and what made-up names gain."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mcpgate.config.governance import KeySpec
from mcpgate.errors import InvalidRequest, McpgateError, NotAllowed, Unavailable
from mcpgate.governance.callers import Caller
from mcpgate.governance.gate import Gate
from mcpgate.stores.memory import MemoryStore
from tests.governance.gates import CENT, Clock, call, gate_on, names_of, refusal_of, standing, tool
from tests.governance.test_gate import Flaky, create_key
from tests.stores.conftest import NOW, Place, make_place

pytestmark = pytest.mark.anyio
SECRET = "mg-the-key-of-the-tests"
USERS: dict[str, Any] = {"users": {"ada": {"budget": {"limit_usd": "0.02"}}, "bob": {}}}
PER_PROJECT: dict[str, Any] = {
    "budgets": [{"id": "each", "when": {"metadata.env": "dev"}, "per": "metadata.project_id", "limit_usd": "0.01"}]
}


async def who(gate: Gate, user: str | None = None, **metadata: str) -> Caller:
    return await gate.identify(SECRET, key_required=True, user=user, metadata=metadata)


async def refused(gate: Gate, user: str | None = None, **metadata: str) -> McpgateError:
    with pytest.raises(McpgateError) as caught:
        await who(gate, user, **metadata)
    return caught.value


def keyed(**spec: Any) -> dict[str, Any]:
    return {"keys": {"ci": {"secret": SECRET, **spec}}}


# --- users


@pytest.mark.parametrize(
    ("spec", "named", "is_then"),
    [
        ({}, None, None),
        ({}, "ada", "ada"),
        ({"user": "ada"}, None, "ada"),
        ({"user": "ada"}, "ada", "ada"),
        ({"users": ["ada", "bot-*"]}, "bot-7", "bot-7"),
        ({"users": "*"}, "anybody", "anybody"),
        ({"users": []}, None, None),
        ({"user": "eve", "users": ["bot-*"]}, "bot-7", "bot-7"),
        ({"user": "eve", "users": ["bot-*"]}, "eve", "eve"),
        ({"user": "eve", "users": ["bot-*"]}, None, "eve"),
        ({"user": "eve", "users": []}, "eve", "eve"),
    ],
)
async def test_a_request_is_made_for_the_user_that_it_may_name(spec: Any, named: Any, is_then: Any) -> None:
    async with gate_on(MemoryStore(), **USERS, **keyed(**spec)) as gate:
        assert (await who(gate, named)).user == is_then


@pytest.mark.parametrize(
    ("spec", "named", "why"),
    [
        ({}, "zz1", "not declared"),
        ({"user": "ada"}, "bob", "another user"),
        ({"users": []}, "ada", "allow none"),
        ({"users": ["ada", "bot-*"]}, "bob", "allow 'ada', 'bot-\\*'"),
        ({"users": ["bot-*"]}, "Bot-7", "allow"),
        ({"users": ["bot-*"]}, "x\nbot-7", "allow"),
        ({"user": "eve", "users": ["bot-*"]}, "ada", "allow"),
    ],
)
async def test_a_user_that_a_key_may_not_name_is_refused_with_key_name_and_value(
    spec: Any, named: str, why: str
) -> None:
    async with gate_on(MemoryStore(), **USERS, **keyed(**spec)) as gate:
        error = await refused(gate, named)
        assert isinstance(error, NotAllowed) and (error.http_status, error.code) == (403, "not_allowed")
        assert error.data == {"key": "ci", "name": "user", "value": named}
        assert "'ci'" in error.message and repr(named) in error.message
        with pytest.raises(NotAllowed, match=why):
            await who(gate, named)


async def test_users_that_are_declared_in_the_store_may_be_named_while_they_are_there() -> None:
    stores = MemoryStore()
    async with gate_on(stores, **keyed()) as gate:
        await refused(gate, "ada")
        await gate.refresh()
        from mcpgate.governance.store import Change

        await stores.change(Change("user", "ada", {}, "local", "create", NOW))
        await gate.refresh()
        assert (await who(gate, "ada")).user == "ada"
        await stores.change(Change("user", "ada", None, "local", "delete", NOW))
        await gate.refresh()
        await refused(gate, "ada")


async def test_the_limits_of_the_keys_own_user_hold_whomever_its_requests_name() -> None:
    stores = MemoryStore()
    budgets = [{"id": "each", "per": "user", "limit_usd": 1}]
    async with gate_on(stores, budgets=budgets, **USERS, **keyed(user="ada", users=["bot-*"])) as gate:
        for n in range(2):
            await call(gate, caller=await who(gate, f"bot-{n}"))
        error = await refusal_of(gate, caller=await who(gate, "bot-3"))
        assert error.data["budget"] == "user:ada"
        assert await standing(stores, "each|cost|bot-0") == (CENT, 0)


async def test_invented_users_gain_nothing_under_a_budget_for_each_user() -> None:
    stores = MemoryStore()
    settings = {
        "budgets": [{"id": "each", "per": "user", "limit_usd": "0.01"}],
        "rate_limits": [{"id": "few", "per": "user", "requests": 3, "window": "1h"}],
    }
    async with gate_on(stores, **settings, **USERS, **keyed()) as gate:
        for n in range(50):
            assert isinstance(await refused(gate, f"zz{n}"), NotAllowed)
        assert await names_of(stores, "each|cost|zz1") == []


async def test_who_comes_without_a_key_is_believed() -> None:
    async with gate_on(MemoryStore(), **PER_PROJECT, **USERS, max_claimed_values=1) as gate:
        for n in range(5):
            said = {"env": "dev", "project_id": f"p{n}"}
            caller = await gate.identify(None, key_required=False, user=f"u{n}", metadata=said)
            assert (caller.user, caller.metadata) == (f"u{n}", said)


# --- metadata


async def test_fixed_metadata_is_carried_by_every_request_and_cannot_be_contradicted() -> None:
    stores = MemoryStore()
    async with gate_on(stores, **keyed(metadata={"env": "ci", "n": 7, "on": True}), required_metadata=["env"]) as gate:
        assert (await who(gate)).metadata == {"env": "ci", "n": "7", "on": "true"}
        assert (await who(gate, env="ci", x="y")).metadata == {"env": "ci", "n": "7", "on": "true", "x": "y"}
        for wrong in ("prod", "", "CI", "ci "):
            error = await refused(gate, env=wrong)
            assert isinstance(error, NotAllowed)
            assert error.data == {"key": "ci", "name": "env", "value": wrong}
            assert "always 'ci'" in error.message
        caller = await who(gate)
        await call(gate, caller=caller)
        await gate.flush()
        (found,) = [one async for one in stores.entries(0.0)]
        assert found.metadata["env"] == "ci", "and the ledger has it"


async def test_globs_limit_what_metadata_may_say_and_make_nothing_up() -> None:
    async with gate_on(MemoryStore(), **keyed(metadata={"env": ["dev", "test-*"]}), required_metadata=["env"]) as gate:
        assert (await who(gate, env="test-1")).metadata == {"env": "test-1"}
        error = await refused(gate, env="live")
        assert isinstance(error, NotAllowed) and "'dev', 'test-*'" in error.message
        assert isinstance(await refused(gate), InvalidRequest), "what is required must still be said"


async def test_a_fixed_value_is_what_rules_look_at() -> None:
    settings = {"budgets": [{"id": "dev", "when": {"metadata.env": "dev"}, "limit_usd": 0}]}
    async with gate_on(MemoryStore(), **settings, **keyed(metadata={"env": "dev"})) as gate:
        assert (await refusal_of(gate, caller=await who(gate))).data["budget"] == "dev"


@pytest.mark.parametrize("wrong", [{"a b": "x"}, {"env": {"a": 1}}, {"env": None}, {"env": "a\nb"}, {"env": [""]}])
def test_metadata_that_no_header_could_say_is_no_metadata_of_a_key(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        KeySpec.model_validate({"metadata": wrong})


def test_a_key_is_the_same_after_it_was_stored() -> None:
    spec = KeySpec.model_validate({"users": "bot-*", "metadata": {"env": "ci", "project": ["p-*"], "n": 1}})
    assert KeySpec.model_validate(spec.model_dump(mode="json", exclude_defaults=True)) == spec
    assert KeySpec.model_validate({"users": []}).users == () != KeySpec().users


# --- made-up values


async def test_for_a_name_that_a_rule_looks_at_a_key_brings_up_only_so_many_values_a_day(place: Place) -> None:
    async with place.open() as stores, gate_on(stores, **PER_PROJECT, **keyed(), max_claimed_values=3) as gate:
        for n in (0, 1, 2, 0, 1, 2):
            await who(gate, project_id=f"p{n}", env="dev")
        error = await refused(gate, project_id="p3", env="dev")
        assert isinstance(error, NotAllowed) and error.data == {"key": "ci", "name": "project_id", "value": "p3"}
        assert "3 values of metadata 'project_id'" in error.message and "metadata: {project_id:" in error.message
        await who(gate, project_id="p1", env="dev")
        for n in range(5):
            await who(gate, project_id="p1", label=f"free {n}")


async def test_values_that_a_key_brought_up_are_known_after_a_restart_and_in_other_processes(
    shared_place: Place,
) -> None:
    settings = {**PER_PROJECT, **keyed(), "max_claimed_values": 2}
    async with shared_place.open() as stores, gate_on(stores, **settings) as gate:
        await who(gate, project_id="p0")
    async with shared_place.open() as stores, gate_on(stores, **settings) as one, gate_on(stores, **settings) as other:
        await who(one, project_id="p1")
        await who(other, project_id="p0")
        await who(other, project_id="p1")
        for gate in (one, other):
            assert isinstance(await refused(gate, project_id="p2"), NotAllowed)


@pytest.mark.parametrize("kind", ["memory", "redis+sqlite"])
async def test_values_are_forgotten_after_a_day(kind: str, tmp_path: Path) -> None:
    place, clock = make_place(kind, tmp_path), Clock()
    try:
        async with (
            place.open() as stores,
            gate_on(stores, clock, **PER_PROJECT, **keyed(), max_claimed_values=1) as gate,
        ):
            await who(gate, project_id="p0")
            clock.now += 86_399
            assert isinstance(await refused(gate, project_id="p1"), NotAllowed)
            clock.now += 1
            await stores.store.expire(clock())  # as the gate does every second
            await who(gate, project_id="p1")
            assert isinstance(await refused(gate, project_id="p0"), NotAllowed)
    finally:
        await place.remove()


async def test_of_100_new_values_at_once_only_as_many_pass_as_may(place: Place) -> None:
    async with place.open() as stores, gate_on(stores, **PER_PROJECT, **keyed(), max_claimed_values=5) as gate:
        asked = [who(gate, project_id=f"p{n}") for n in range(100)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(answer, Caller) for answer in answers) == 5


async def test_a_key_that_says_which_values_it_may_use_is_bound_by_that_alone() -> None:
    keys = keyed(metadata={"project_id": ["p*"]})
    async with gate_on(MemoryStore(), **PER_PROJECT, **keys, max_claimed_values=1) as gate:
        for n in range(5):
            await who(gate, project_id=f"p{n}")
        assert isinstance(await refused(gate, project_id="q"), NotAllowed)


async def test_each_key_has_its_own_values() -> None:
    stores = MemoryStore()
    await create_key(stores, "vk_2", "mg-secret-2")
    async with gate_on(stores, **PER_PROJECT, **keyed(), max_claimed_values=1) as gate:
        await who(gate, project_id="p1")
        await gate.identify("mg-secret-2", key_required=True, metadata={"project_id": "p2"})
        with pytest.raises(NotAllowed, match="'vk_2'"):
            await gate.identify("mg-secret-2", key_required=True, metadata={"project_id": "p1"})


async def test_a_new_value_is_not_taken_while_the_store_is_away() -> None:
    class Away(Flaky):
        async def read(self, counters: Any) -> Any:
            self._check()
            return await super().read(counters)

    stores = Away()
    async with gate_on(stores, **PER_PROJECT, **keyed()) as gate:
        await who(gate, project_id="p0")
        stores.away = True
        await who(gate, project_id="p0")
        assert isinstance(await refused(gate, project_id="p1"), Unavailable)
        stores.away = False


async def test_where_nothing_looks_at_metadata_no_value_of_it_costs_a_trip_to_the_store() -> None:
    class Deaf(MemoryStore):
        async def read(self, counters: Any) -> Any:
            raise AssertionError("it was asked")

    async with gate_on(Deaf(), **keyed()) as gate:
        for n in range(50):
            await who(gate, project_id=f"p{n}")
        await call(gate, tool("free"), await who(gate, project_id="p"))
