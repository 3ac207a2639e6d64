"""Whom a rule looks at, what it takes from a request, what a key may do, and what things cost."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mcpgate.config.governance import BudgetRuleConfig, GovernanceConfig, GrantsConfig, KeySpec, RateLimitRuleConfig
from mcpgate.errors import InvalidKey, MissingKey, NotAllowed
from mcpgate.governance.callers import ALL_GRANTS, LOCAL, Caller, Grants, VirtualKey
from mcpgate.governance.keys import digest_of, from_record, is_good, make_grants, new_secret, to_record
from mcpgate.governance.policy import Policy
from mcpgate.governance.prices import Prices
from mcpgate.governance.records import Request, Usage, to_nano, to_usd, usd_text
from mcpgate.governance.rule import measured
from mcpgate.governance.rules import budget_rule, matching, rate_limit_rules
from mcpgate.stores.memory import MemoryStore
from tests.governance.gates import CENT, Clock, call, gate_on, refusal_of, standing, tool
from tests.governance.test_gate import create_key
from tests.stores.conftest import NOW

ADA = Caller("vk_1", "ada's laptop", "ada", "search", "acme", metadata={"env": "dev", "project_id": "p7"})
CHAT = Request("chat", provider="openai", model="gpt-5", estimate=Usage(input_tokens=30, output_tokens=12))


def budget(**settings: Any) -> Any:
    return budget_rule(BudgetRuleConfig.model_validate({"id": "b", "limit_usd": 1, **settings}))


def limits(**settings: Any) -> Any:
    return rate_limit_rules(RateLimitRuleConfig.model_validate({"id": "r", "window": "1m", **settings}))


# --- matching


@pytest.mark.parametrize(
    ("when", "request_", "matches"),
    [
        ({}, tool(), True),
        ({"user": "ada"}, tool(), True),
        ({"user": "bob"}, tool(), False),
        ({"user": ["bob", "a*"]}, tool(), True),
        ({"user": "Ada"}, tool(), False),
        ({"key": "vk_1"}, tool(), True),
        ({"key": "ada's *"}, tool(), True),
        ({"team": "search", "customer": "other"}, tool(), False),
        ({"team": "sea*", "customer": "acme"}, tool(), True),
        ({"server": "files"}, tool(), True),
        ({"server": "file"}, tool(), False),
        ({"tool": "read"}, tool(), True),
        ({"tool": "files.re*"}, tool(), True),
        ({"tool": "*.read"}, tool(), True),
        ({"tool": "docs.read"}, tool(), False),
        ({"server": "*"}, CHAT, False),
        ({"tool": "*"}, CHAT, False),
        ({"model": "gpt-5"}, CHAT, True),
        ({"model": "openai/*"}, CHAT, True),
        ({"model": "gpt-[45]"}, CHAT, True),
        ({"provider": "openai", "model": "gpt-4"}, CHAT, False),
        ({"provider": "*"}, tool(), False),
        ({"metadata.env": "dev"}, tool(), True),
        ({"metadata.env": ["prod", "staging"]}, tool(), False),
        ({"metadata.other": "*"}, tool(), False),
    ],
)
def test_a_rule_looks_at_every_dimension_that_it_names(when: Any, request_: Request, matches: bool) -> None:
    assert bool(matching([budget(when=when)], ADA, request_)) is matches


@pytest.mark.parametrize(
    ("per", "subject"),
    [
        ("shared", ""),
        ("key", "vk_1"),
        ("user", "ada"),
        ("team", "search"),
        ("customer", "acme"),
        ("metadata.project_id", "p7"),
    ],
)
def test_each_subject_has_a_counter_of_its_own(per: str, subject: str) -> None:
    (match,) = matching([budget(per=per)], ADA, tool())
    assert match.subject == subject
    counter = match.rule.claim(match.subject, NOW, 5).counter
    assert counter.startswith("b|cost|") and counter.endswith(f"|{subject}")


@pytest.mark.parametrize("per", ["user", "team", "customer", "metadata.project_id"])
def test_who_has_no_such_scope_does_not_fall_under_a_rule_for_each_of_them(per: str) -> None:
    assert matching([budget(per=per)], LOCAL, tool()) == ()


def test_in_a_group_the_first_rule_that_matches_governs_and_the_others_count() -> None:
    rules = [
        budget(id="bobs", group="daily", when={"user": "bob"}),
        budget(id="ml", group="daily", when={"team": "search"}, per="user"),
        budget(id="everyone", group="daily", per="user"),
        budget(id="other", group="weekly"),
        budget(id="alone"),
    ]
    found = {match.rule.id: match.governs for match in matching(rules, ADA, tool())}
    assert found == {"ml": True, "everyone": False, "other": True, "alone": True}
    counted = matching(rules, ADA, tool())[1]
    assert counted.rule.claim("ada", NOW, 5, counted.governs).limit is None


def test_groups_of_budgets_and_of_rate_limits_and_of_their_measures_are_apart() -> None:
    rules = [
        budget(group="g"),
        *limits(id="r1", group="g", requests=5),
        *limits(id="r2", group="g", tokens=5, requests=6),
    ]
    found = [(match.rule.id, match.rule.measure, match.governs) for match in matching(rules, ADA, CHAT)]
    assert found == [("b", "cost", True), ("r1", "requests", True), ("r2", "requests", False), ("r2", "tokens", True)]


@pytest.mark.anyio
async def test_an_override_lets_through_what_the_rule_behind_it_would_refuse_and_both_count() -> None:
    stores = MemoryStore()
    budgets = [
        {"id": "ml", "group": "daily", "when": {"team": "search"}, "limit_usd": "0.03"},
        {"id": "everyone", "group": "daily", "limit_usd": "0.01"},
    ]
    async with gate_on(stores, budgets=budgets) as gate:
        for _ in range(3):
            await call(gate, caller=ADA)
        assert (await refusal_of(gate, caller=ADA)).data["budget"] == "ml"
        assert await standing(stores, "everyone|cost|") == (3 * CENT, 0)
        assert (await refusal_of(gate)).data["budget"] == "everyone"


@pytest.mark.parametrize(
    ("rule", "nested"),
    [
        (budget(), True),
        (limits(requests=1)[0], False),
        (limits(concurrency=1, window=None)[0], False),
        (limits(requests=1, when={"server": "files"})[0], True),
        (limits(requests=1, when={"tool": "read"})[0], True),
        (limits(requests=1, when={"user": "ada"})[0], False),
        (limits(tokens=1)[0], True),
        (limits(execution_seconds=1)[0], True),
    ],
)
def test_a_call_from_inside_an_execution_is_not_a_request_unless_a_rule_names_tools(rule: Any, nested: bool) -> None:
    assert bool(matching([rule], ADA, tool("read", parent_id="rq_1"))) is nested
    assert matching([rule], ADA, tool("read")) != ()


def test_a_key_has_the_rules_of_its_user_team_and_customer() -> None:
    one = {"limit_usd": 1}
    config = GovernanceConfig.model_validate(
        {
            "customers": {"acme": {"budget": one}},
            "teams": {"search": {"customer": "acme", "budget": [one, {"limit_usd": 2, "period": "1d"}]}},
            "users": {"ada": {"team": "search", "budget": one}},
            "keys": {"ci": {"secret": "mg-12345678", "user": "ada", "budget": one}},
            "rate_limits": [{"id": "r", "per": "team", "requests": 5, "window": "1m"}],
        }
    )
    policy = Policy(config)
    caller = policy.caller_of(*policy.keys["ci"])
    assert (caller.user, caller.team, caller.customer) == ("ada", "search", "acme")
    counted = [
        (share.match.rule.id.partition("#")[0], share.match.subject) for share in policy.shares(caller, tool(), 5)
    ]
    assert counted == [
        *(("key:ci", ""), ("user:ada", ""), ("team:search", ""), ("team:search", ""), ("customer:acme", "")),
        ("r", "search"),
    ]
    assert len({share.claim.counter for share in policy.shares(caller, tool(), 5)}) == 6


@pytest.mark.parametrize(
    ("measure", "cost", "amount"),
    [
        *(("cost", 7, 7), ("cost", None, 0), ("requests", 7, 1), ("tokens", 7, 42), ("input_tokens", 7, 30)),
        *(("output_tokens", 7, 12), ("execution_seconds", 7, 1500), ("concurrency", 7, 0)),
    ],
)
def test_each_measure_takes_its_own_of_a_request(measure: str, cost: int | None, amount: int) -> None:
    assert measured(measure, cost, Usage(1, 30, 12, 5, 6, 1.5)) == amount


@pytest.mark.parametrize(
    "settings",
    [
        {"budgets": [{"id": "a", "limit_usd": 1}, {"id": "a", "limit_usd": 2}]},
        {"budgets": [{"id": "a|b", "limit_usd": 1}]},
        {"budgets": [{"id": "a", "limit_usd": -1}]},
        {"budgets": [{"id": "a", "limit_usd": 9_000_001}]},
        {"budgets": [{"id": "a", "limit_usd": 1, "when": {"usr": "x"}}]},
        {"budgets": [{"id": "a", "limit_usd": 1, "per": "server"}]},
        {"budgets": [{"id": "a", "limit_usd": 1, "timezone": "Europe/Atlantis"}]},
        {"budgets": [{"id": "a", "limit_usd": 1, "period": "1x"}]},
        {"rate_limits": [{"id": "a", "requests": 1}]},
        {"rate_limits": [{"id": "a", "window": "1m"}]},
        {"teams": {"search": {"customer": "nobody"}}},
        {"keys": {"a": {"secret": "mg-12345678"}, "b": {"secret": "mg-12345678"}}},
        {"keys": {"a": {"secret": "mg-1234 5678"}}},
        {"keys": {"a": {"secret": "mg-12345678", "allowed_ips": ["10.0.0.300"]}}},
        {"keys": {"a": {"secret": "mg-12345678", "grant": {}}}},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        GovernanceConfig.model_validate(settings)
    assert "12345678" not in str(refused.value) or "secret" not in settings, "and no secret is in the message"


# --- grants


@pytest.mark.parametrize(
    ("globs", "names", "allowed"),
    [
        ([], ["files.read"], False),
        (["files.*"], ["files.read"], True),
        (["files.read"], ["files.read_all"], False),
        (["*.read"], ["docs.read"], True),
        (["my-server.do-it"], ["my_server.do_it", "my-server.do-it"], True),
        (["*"], ["files.read"], True),
        (["Files.*"], ["files.read"], False),
    ],
)
def test_a_tool_is_granted_by_any_glob_over_any_of_its_spellings(globs: Any, names: Any, allowed: bool) -> None:
    assert make_grants(GrantsConfig(tools=globs)).allow_tool(*(tuple(name.split(".")) for name in names)) is allowed


def test_grants_of_servers_and_providers_are_grants_of_all_they_have() -> None:
    grants = make_grants(GrantsConfig.model_validate({"servers": "files", "providers": ["openai"], "models": "fast"}))
    assert grants.allow_tool(("files", "read")) and not grants.allow_tool(("docs", "read"))
    assert grants.allow_whole_server("files") and not grants.allow_whole_server("docs")
    assert grants.allow_model("openai", "openai/gpt-5") and grants.allow_model(None, "fast")
    assert not grants.allow_model("other", "other/x") and not grants.allow_model(None, "slow")
    assert not grants.everything and not grants.admin


@pytest.mark.parametrize(
    ("config", "allowed"),
    [
        ({}, False),
        ({"models": ["*"]}, False),
        ({"tools": ["files.read"]}, True),
        ({"servers": ["files"]}, True),
        ({"tools": ["*"], "meta_tools": []}, False),
        ({"meta_tools": ["execute_*"]}, True),
        ({"tools": ["*"], "meta_tools": ["list_tools"]}, False),
    ],
)
def test_the_meta_tools_are_granted_with_any_tool_unless_configured_otherwise(config: Any, allowed: bool) -> None:
    assert make_grants(GrantsConfig.model_validate(config)).allow_meta_tool("execute_code") is allowed


@pytest.mark.parametrize(
    ("grants", "allowed"),
    [
        ({"providers": ("open*",)}, True),
        ({"models": ("*",)}, True),
        ({"models": ("openai/gpt-*",)}, True),
        ({"models": ("open*/gpt",)}, True),
        ({"models": ("fast", "openai", "other/*")}, False),
        ({"models": ("*",), "within": Grants(models=("other/*",))}, False),
        ({}, False),
    ],
)
def test_a_provider_is_granted_by_its_name_or_by_models_of_it(grants: dict[str, Any], allowed: bool) -> None:
    assert Grants(**grants).allow_provider("openai") is allowed


def test_the_local_caller_may_do_everything() -> None:
    assert LOCAL.grants is ALL_GRANTS and ALL_GRANTS.everything and ALL_GRANTS.admin
    assert ALL_GRANTS.allow_tool(("a", "b")) and ALL_GRANTS.allow_whole_server("a")
    assert ALL_GRANTS.allow_model("x", "x/y") and ALL_GRANTS.allow_meta_tool("read_docs")


def test_a_glob_over_one_server_does_not_reach_into_another_whose_name_has_a_dot() -> None:
    grants = make_grants(GrantsConfig(tools=("files.*",)))
    assert grants.allow_tool(("files", "a.b")) and not grants.allow_tool(("files.private", "read"))


# --- prices and money


def test_the_first_glob_that_matches_is_the_price_and_without_one_it_is_unknown() -> None:
    prices = Prices({"files": {"read_*": Decimal("0.5"), "*_all": Decimal(2), "free": Decimal(0)}, "docs": {}}, None)
    assert prices.cost(tool("read_all"), Usage(calls=2)) == 10**9
    assert prices.cost(tool("list_all"), Usage(calls=1)) == 2 * 10**9
    assert prices.cost(tool("list_all"), Usage(calls=0)) == 0, "what was not sent costs nothing"
    assert prices.cost(tool("free"), Usage(calls=1)) == 0
    assert prices.cost(tool("other"), Usage(calls=1)) is None
    assert prices.cost(Request("tool", server="docs", tool="read_all"), Usage(calls=1)) is None
    assert prices.cost(CHAT, CHAT.estimate) is None
    assert prices.cost(Request("meta", tool="list_tools"), Usage()) == 0


def test_seconds_of_running_code_cost_what_is_set_and_else_nothing() -> None:
    ran = Usage(seconds=1.5)
    assert Prices({}, Decimal("0.002")).cost(Request("execution"), ran) == 3_000_000
    assert Prices({}, None).cost(Request("execution"), ran) == 0


@given(st.integers(0, 10**19))
def test_money_is_the_same_after_there_and_back(nano: int) -> None:
    assert to_nano(to_usd(nano)) == nano
    assert "E" not in usd_text(nano)
    assert usd_text(nano) == f"{to_usd(nano):f}" and usd_text(-nano) == f"{to_usd(-nano):f}"


@pytest.mark.parametrize(
    ("usd", "nano"), [("0.0000000005", 0), ("0.0000000015", 2), ("1e-9", 1), ("9000000", 9 * 10**15), ("0.1", 10**8)]
)
def test_money_finer_than_a_nano_dollar_is_rounded_half_to_even(usd: str, nano: int) -> None:
    assert to_nano(Decimal(usd)) == nano


# --- keys


def test_secrets_are_long_random_and_ours() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(secret.startswith("mg-") and len(secret) >= 43 and secret.isascii() for secret in made)


def test_during_a_rotation_both_digests_are_good_until_the_old_one_ends() -> None:
    key = VirtualKey("vk_1", digests=(("new", None), ("old", 100.0)))
    assert is_good(key, "new", 1e12) and is_good(key, "old", 99.9)
    assert not is_good(key, "old", 100.0)
    assert not is_good(key, "other", 0.0)


def test_a_key_comes_back_from_its_record_and_neither_holds_its_secret() -> None:
    secret = new_secret()
    spec = KeySpec.model_validate(
        {
            "name": "ci",
            "user": "ada",
            "grants": {"tools": "files.*"},
            "limits": {"timeout_s": 5},
            "expires_at": "2030-01-01",
        }
    )
    record = to_record(spec, [(digest_of(secret), None)], secret[-4:], NOW)
    key, again = from_record("vk_1", record)
    assert again == spec
    assert (key.id, key.name, key.user, key.created_at, dict(key.limits)) == (
        "vk_1",
        "ci",
        "ada",
        NOW,
        {"timeout_s": 5},
    )
    assert key.expires_at == 1_893_456_000.0
    assert secret not in f"{record} {key!r} {key.digests}" and key.digests[0][0] not in repr(key)


@pytest.mark.parametrize(
    ("allowed", "address", "admitted"),
    [
        ([], None, True),
        ([], "1.2.3.4", True),
        (["10.0.0.0/8"], "10.1.2.3", True),
        (["10.0.0.0/8"], "11.1.2.3", False),
        (["10.0.0.7/8"], "10.1.2.3", True),
        (["10.0.0.7"], "10.0.0.7", True),
        (["10.0.0.7"], "10.0.0.8", False),
        (["10.0.0.0/8"], "::ffff:10.1.2.3", True),
        (["10.0.0.0/8"], "::ffff:11.1.2.3", False),
        (["::/0"], "10.1.2.3", False),
        (["0.0.0.0/0"], "::1", False),
        (["2001:db8::/32", "10.0.0.0/8"], "2001:db8::1", True),
        (["fe80::/10"], "fe80::1%eth0", True),
        (["10.0.0.0/8"], None, False),
        (["10.0.0.0/8"], "localhost", False),
        (["10.0.0.0/8"], "", False),
    ],
)
def test_a_key_is_taken_from_the_addresses_it_names_only(allowed: Any, address: str | None, admitted: bool) -> None:
    assert VirtualKey("vk_1", allowed_ips=tuple(allowed)).admits_address(address) is admitted


@pytest.mark.anyio
async def test_a_key_is_known_by_its_secret_until_it_is_rotated_expired_disabled_or_revoked() -> None:
    stores, clock = MemoryStore(), Clock()
    await create_key(stores, "vk_1", "mg-secret-1", expires_at="2100-01-01", allowed_ips=("10.0.0.0/8",))
    async with gate_on(stores, clock) as gate:

        async def identify(secret: str | None = "mg-secret-1", address: str = "10.0.0.1") -> Caller:
            return await gate.identify(secret, key_required=True, address=address)

        assert (await identify()).id == "vk_1"
        with pytest.raises(MissingKey, match="Bearer mg-"):
            await identify(None)
        for wrong in ("mg-secret-2", "mg-secret-1 ", "", "sk-other"):
            with pytest.raises(InvalidKey, match="unknown API key"):
                await identify(wrong)
        with pytest.raises(NotAllowed, match=r"may not be used from 11\.0\.0\.1"):
            await identify(address="11.0.0.1")
        await create_key(stores, "vk_1", "mg-secret-1", until=clock() + 60)
        assert (await identify()).id == "vk_1"
        clock.now += 60
        with pytest.raises(InvalidKey, match="rotated out"):
            await identify()
        await create_key(stores, "vk_1", "mg-secret-1", expires_at=clock() + 60)
        assert (await identify()).id == "vk_1"
        clock.now += 60
        with pytest.raises(InvalidKey, match="expired"):
            await identify()
        await create_key(stores, "vk_1", "mg-secret-1", enabled=False)
        with pytest.raises(NotAllowed, match="disabled"):
            await identify()
        await create_key(stores, "vk_1", "mg-secret-1")
        assert (await identify()).id == "vk_1"


@pytest.mark.anyio
async def test_where_no_key_is_needed_other_credentials_are_ignored_but_a_key_of_ours_is_checked() -> None:
    stores = MemoryStore()
    await create_key(stores, "vk_1", "mg-secret-1")
    async with gate_on(stores) as gate:
        assert await gate.identify(None, key_required=False) is LOCAL
        assert await gate.identify("sk-whatever", key_required=False) is LOCAL
        assert (await gate.identify("mg-secret-1", key_required=False)).id == "vk_1"
        with pytest.raises(InvalidKey):
            await gate.identify("mg-secret-2", key_required=False)


@pytest.mark.anyio
async def test_a_key_speaks_for_a_user_only_if_it_is_nobody_elses() -> None:
    settings: dict[str, Any] = {
        "users": {"ada": {"budget": {"limit_usd": "0.01"}}},
        "keys": {"team": {"secret": "mg-team-secret"}, "bobs": {"secret": "mg-bobs-secret", "user": "bob"}},
    }
    async with gate_on(MemoryStore(), **settings) as gate:
        caller = await gate.identify("mg-team-secret", key_required=True, user="ada")
        assert caller.user == "ada"
        await call(gate, caller=caller)
        assert (await refusal_of(gate, caller=caller)).data["scope"] == "user ada"
        with pytest.raises(NotAllowed, match="another user"):
            await gate.identify("mg-bobs-secret", key_required=True, user="ada")
        assert (await gate.identify("mg-bobs-secret", key_required=True, user="bob")).user == "bob"
