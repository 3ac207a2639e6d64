"""What the claims of a verified token make of its caller: never more than the configuration says."""

from typing import Any

import pytest

from mcpgate.config.governance import GovernanceConfig, KeySpec
from mcpgate.config.oauth import OAuthConfig
from mcpgate.errors import InvalidKey, NotAllowed
from mcpgate.governance.callers import Caller, Token, VirtualKey
from mcpgate.governance.keys import make_key
from mcpgate.governance.policy import Policy
from mcpgate.governance.tokens import Holder, canonical, held, holder_of

MCP = "https://gw.example.com/mcp"
ISSUER = "https://login.example.com/realms/acme"
POLICY = Policy(
    GovernanceConfig.model_validate(
        {
            "customers": {"acme": {}, "globex": {}},
            "teams": {"search": {}, "ads": {"customer": "acme"}},
            "users": {"bob": {"team": "ads"}},
        }
    )
)


def oauth(issuers: Any = (ISSUER,), **more: Any) -> OAuthConfig:
    claims = {"keys": [{"key": "staff"}], **more.pop("claims", {})}
    return OAuthConfig.model_validate({"issuers": list(issuers), "claims": claims, **more})


def token(issuer: str = ISSUER, **claims: Any) -> Token:
    given = {"iss": issuer, "sub": "ada", "aud": MCP, **claims}
    return Token(issuer, given, 1e10, "digest", (MCP, "https://gw.example.com"))


def key(**spec: Any) -> VirtualKey:
    return make_key("staff", KeySpec.model_validate({"grants": {"tools": "*", "models": "*"}, **spec}), [])


def holder(**more: Any) -> Holder:
    return Holder(**{"key": "staff", "user": "ada", "team": None, "customer": None, "within": None, **more})


# --- users


@pytest.mark.parametrize(
    ("template", "claims", "user"),
    [
        ("{sub}@{issuer}", {}, "ada@login.example.com:realms:acme"),
        ("{email}", {"email": "ada@example.com"}, "ada@example.com"),
        ("{org.name}:{sub}", {"org": {"name": "x"}}, "x:ada"),
        ("{sub}", {"sub": "auth0|7/2%"}, "auth0%7C7%2F2%25"),
        ("{sub}", {"sub": "{email}", "email": "eve"}, "%7Bemail%7D"),
        ("{sub}", {"sub": "a\nb\ud800"}, "a%0Ab%ED%A0%80"),
        ("{uid}", {"uid": 1001}, "1001"),
    ],
)
def test_a_user_is_made_of_claims_that_cannot_make_anothers_id(template: str, claims: Any, user: str) -> None:
    assert holder_of(token(**claims), oauth(claims={"user": template})).user == user


@pytest.mark.parametrize("value", [None, "", " ", [], ["a", "b"], {}, " ada", "x" * 200, 1.5], ids=repr)
def test_a_claim_without_one_usable_value_names_no_user(value: Any) -> None:
    with pytest.raises(NotAllowed):
        holder_of(token(uid=value), oauth(claims={"user": "{uid}"}))


def test_an_email_that_is_not_verified_names_no_user() -> None:
    config = oauth(claims={"user": "{email}"})
    assert holder_of(token(email="a@b.c", email_verified=True), config).user == "a@b.c"
    for said in (False, "false"):
        with pytest.raises(NotAllowed, match="not verified"):
            holder_of(token(email="a@b.c", email_verified=said), config)


def test_users_of_two_issuers_are_apart_by_default_and_one_if_that_is_configured() -> None:
    two = (ISSUER, {"issuer": "https://other.example", "name": "partner"})
    apart, together = oauth(two), oauth(two, claims={"user": "{sub}"})
    assert holder_of(token("https://other.example"), apart).user == "ada@partner"
    assert holder_of(token(sub="ada@partner"), apart).user != "ada@partner"
    assert holder_of(token("https://other.example"), together) == holder_of(token(), together)


def test_the_owner_of_a_tokens_things_is_its_user_and_no_keys_callers() -> None:
    mine = Caller("staff", user="ada", token=token())
    assert mine.owner == Caller("other", user="ada", token=token()).owner
    assert mine.owner not in (Caller("staff", user="ada").owner, Caller("ada").owner, Caller("signed-in").owner)
    with pytest.raises(ValueError, match="reserved"):
        GovernanceConfig.model_validate({"keys": {"signed-in": {"secret": "mg-12345678"}}})


# --- keys


def test_the_first_rule_that_matches_chooses_the_key() -> None:
    rules = [
        {"key": "boss", "when": {"groups": "bosses", "amr": ["mfa", "hwk"]}},
        {"key": "robot", "when": {"scope": "mcp:*", "client_id": "ci-*"}},
        {"key": "staff", "when": {"realm_access.roles": "eng-*"}},
    ]
    config = oauth(claims={"keys": rules})
    assert holder_of(token(groups=["x", "bosses"], amr=["pwd", "mfa"]), config).key == "boss"
    assert holder_of(token(scope="openid mcp:read", client_id="ci-7"), config).key == "robot"
    assert holder_of(token(groups=["bosses"], realm_access={"roles": ["eng-1"]}), config).key == "staff"
    nothing: tuple[dict[str, Any], ...] = (
        {},
        {"groups": "bosses"},
        {"groups": ["BOSSES"], "amr": ["mfa"]},
        {"realm_access": ["roles"]},
        {"scope": "mcp:read"},
    )
    for claims in nothing:
        with pytest.raises(NotAllowed, match="no rule"):
            holder_of(token(**claims), config)


def test_an_issuers_own_claims_stand_in_place_of_the_common_ones() -> None:
    own = {"issuer": "https://other.example", "claims": {"keys": [{"key": "guest"}], "customer": "acme"}}
    found = holder_of(token("https://other.example"), oauth((ISSUER, own)))
    assert (found.key, found.customer) == ("guest", "acme")


def test_what_a_key_says_about_itself_stays() -> None:
    mine = held(key(), holder(team="search"), POLICY)
    assert (mine.user, mine.team, mine.customer) == ("ada", "search", None)
    assert held(key(user="ada", team="search"), holder(), POLICY).team == "search"
    refused: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
        ({"user": "eve"}, {}),
        ({"team": "search"}, {"team": "ads"}),
        ({"customer": "acme"}, {"customer": "globex"}),
        ({"users": ["bot-*"]}, {}),
    )
    for spec, said in refused:
        with pytest.raises(NotAllowed):
            held(key(**spec), holder(**said), POLICY)


@pytest.mark.parametrize(
    "said",
    [
        {"team": "unknown"},
        {"customer": "unknown"},
        {"team": "ads", "customer": "globex"},
        {"user": "bob", "customer": "globex"},
    ],
    ids=["team", "customer", "a team of another customer", "a user of another customer's team"],
)
def test_teams_and_customers_that_are_not_declared_or_do_not_belong_together_get_nothing(said: dict[str, str]) -> None:
    with pytest.raises(NotAllowed):
        held(key(), holder(**said), POLICY)


def test_a_token_speaks_for_no_other_user_though_its_key_may() -> None:
    assert held(key(users=["*"]), holder(), POLICY).users is None


# --- grants


def test_a_claim_narrows_what_the_key_grants_and_never_widens_it() -> None:
    config = oauth(claims={"tools": "mcp_tools", "meta_tools": "meta"})
    spec: dict[str, Any] = {"grants": {"tools": ["files.*", "docs.search"]}}
    wanted = token(mcp_tools=["files.read_*", "mail.*"], meta="list_tools read_docs")
    grants = held(key(**spec), holder_of(wanted, config), POLICY).grants
    assert grants.allow_tool(("files", "read_text"))
    assert not grants.allow_tool(("files", "write")) and not grants.allow_tool(("mail", "send"))
    assert not grants.allow_whole_server("files") and not grants.everything and not grants.admin
    assert grants.allow_meta_tool("read_docs") and not grants.allow_meta_tool("execute_code")


@pytest.mark.parametrize("value", [None, [], {}, ""], ids=repr)
def test_without_the_claim_that_narrows_nothing_is_granted(value: Any) -> None:
    config = oauth(claims={"tools": "t", "models": "m"})
    grants = held(key(), holder_of(token(t=value, m=value), config), POLICY).grants
    assert not grants.allow_tool(("files", "read")) and not grants.allow_whole_server("files")
    assert not grants.everything and not grants.allow_meta_tool("execute_code")
    assert not grants.allow_model("openai", "gpt")


def test_an_admins_key_stays_one_whatever_narrows_its_tools() -> None:
    grants = held(
        key(grants={"tools": "*", "admin": True}), holder_of(token(t="*"), oauth(claims={"tools": "t"})), POLICY
    ).grants
    assert grants.admin and grants.everything and grants.allow_tool(("any", "tool"))


def test_too_many_globs_are_refused() -> None:
    for globs in (["a"] * 300, ["a" * 600]):
        with pytest.raises(NotAllowed, match="globs"):
            holder_of(token(t=globs), oauth(claims={"tools": "t"}))


# --- audience and scopes


@pytest.mark.parametrize(
    "aud", [MCP, f"{MCP}/", "HTTPS://GW.example.com:443/mcp", ["x", MCP], "https://gw.example.com/"]
)
def test_by_default_the_audience_is_the_address_that_was_called_or_one_above(aud: Any) -> None:
    assert holder_of(token(aud=aud), oauth()).key == "staff"


@pytest.mark.parametrize(
    "aud",
    [None, [], 7, "", "gw.example.com", "http://gw.example.com/mcp", f"{MCP}/dev", f"{MCP}x", f"{MCP}?x=1", f"{MCP}#x",
     "https://gw.example.com:8443/mcp", "https://evil@gw.example.com/mcp", "https://gw.example.com.evil/mcp", [[MCP]]],
    ids=repr,
)  # fmt: skip
def test_another_audience_is_refused(aud: Any) -> None:
    with pytest.raises(InvalidKey, match="this token is for"):
        holder_of(token(aud=aud), oauth())


def test_a_configured_audience_stands_in_place_of_the_address() -> None:
    config = oauth((ISSUER, {"issuer": "https://other.example", "audience": "api://other"}), audience=["api://gw"])
    assert holder_of(token(aud="api://gw"), config).key == "staff"
    for issuer, aud in ((ISSUER, MCP), (ISSUER, "api://other"), ("https://other.example", "api://gw")):
        with pytest.raises(InvalidKey, match="api://"):
            holder_of(token(issuer, aud=aud), config)


def test_where_the_gateway_does_not_know_its_address_no_default_audience_fits() -> None:
    with pytest.raises(InvalidKey, match="set server.public_url"):
        holder_of(Token(ISSUER, {"aud": MCP, "sub": "ada"}, 1e10, ""), oauth())


def test_scopes_are_read_from_both_claims_and_all_are_needed() -> None:
    config = oauth(scopes=["mcp", "tools"])
    for claims in ({"scope": "tools mcp"}, {"scp": ["mcp", "tools"]}, {"scp": "mcp tools"}):
        assert holder_of(token(**claims), config).key == "staff"
    for claims in ({}, {"scope": "mcp"}, {"scope": "mcptools"}, {"scope": ["mcp tools"]}):
        with pytest.raises(NotAllowed) as refused:
            holder_of(token(**claims), config)
        assert refused.value.data["needed_scopes"] == ["mcp", "tools"]


def test_a_token_of_an_issuer_that_an_edit_has_removed_is_refused() -> None:
    with pytest.raises(InvalidKey, match=r"not one of server\.oauth\.issuers"):
        holder_of(token("https://gone.example"), oauth())


def test_a_root_issuer_is_the_same_with_and_without_its_slash() -> None:
    config = oauth(["https://tenant.example/"])
    assert holder_of(token("https://tenant.example"), config).user == "ada@tenant.example"
    assert oauth().find_issuer(f"{ISSUER}/") is None


def test_addresses_are_compared_in_one_form() -> None:
    assert canonical("HTTP://[::1]:80/a/") == "http://[::1]/a"
    assert canonical("http://h:x/") == "http://h:x/"
