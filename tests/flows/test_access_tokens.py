"""Access tokens in place of keys, and what attackers send instead: over HTTP, at a gateway process in front of real
servers, with an issuer that publishes real keys. test_signing_in_with_a_provider.py signs in at somebody else's."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.conftest import raw
from tests.flows.governed import (
    TRUSTED,
    Answer,
    Served,
    bearer,
    call_of,
    code_of,
    environment,
    mcpgate,
    serving,
    wait_until,
    write_config,
)
from tests.issuer import Exchange, Issuer, ec_key, ed_key, issuing, new_kid, rsa_key, unsigned

RULES = [
    {"key": "boss", "when": {"groups": "bosses"}},
    {"key": "stored", "when": {"groups": "stored"}},
    {"key": "staff", "when": {"groups": ["eng-*", "ops"]}},
]
KEYS: dict[str, Any] = {
    **TRUSTED,
    "boss": {"grants": {"tools": "*", "admin": True}},
    "staff": {"name": "Staff", "grants": {"tools": ["raw.*"]}, "rate_limits": {"requests": 100_000, "window": "1d"}},
}
LOOP = """
import time
began, last, code = time.time(), 0.0, None
while time.time() - began < 15:
    try:
        raw.add(a=1, b=1)
        last = time.time()
    except ToolError as error:
        code = error.data["code"]
        break
    time.sleep(0.1)
[last, code]
"""


@dataclass
class House:
    served: Served
    issuer: Issuer
    partner: Issuer
    """Another issuer, whose users are called the same."""

    @property
    def mcp(self) -> str:
        return f"{self.served.address}/mcp"

    def token(self, *groups: str, issuer: Issuer | None = None, **more: Any) -> str:
        return (issuer or self.issuer).token(
            **{"audience": self.mcp, "groups": groups or ["eng-1"], "scope": "mcp", **more}
        )

    def ask(self, token: str, name: str = "list_tools", **headers: str) -> Answer:
        return self.served.call(name, key=token, headers=headers)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("tokens")
    with issuing() as issuer, issuing() as partner:
        issuer.keys = [rsa_key(), ec_key(), ed_key(), rsa_key("pss-1", "PS256")]
        oauth = {
            "issuers": [issuer.url, {"issuer": partner.url, "name": "partner", "algorithms": ["RS256"]}],
            "scopes": ["mcp"],
            "scopes_supported": ["profile"],
            "leeway_s": 0,
            "claims": {"keys": RULES},
        }
        config = write_config(
            folder, {"raw": raw(expose="both", prices={"add": 0.01}), "other": raw(expose="both")},
            governance={"keys": KEYS}, bundles={"dev": {"servers": ["raw"], "expose": "direct"}},
            server={"oauth": oauth}, sandbox={"warm": 2},
        )  # fmt: skip
        with serving(folder, config) as served:
            served.new_key(id="stored", grants={"tools": ["raw.*"]}, budget={"limit_usd": 50})
            yield House(served, issuer, partner)


def test_a_token_acts_with_the_key_that_its_claims_choose_and_is_counted_under_its_user(house: House) -> None:
    answer = house.ask(house.token("other", "ops", sub="grace"), "raw__echo", **{})
    assert answer.response.status_code == 200
    names = {tool["name"] for tool in house.served.tools(house.token("eng-1"))}
    assert "raw__echo" in names and "other__echo" not in names
    house.served.call("raw__echo", {"text": "x"}, key=house.token("eng-1", sub="grace"))
    name = house.issuer.url.removeprefix("http://")
    rows = house.served.usage("key,user", user=f"grace@{name}")
    assert [(row["key"], row["user"]) for row in rows] == [("staff", f"grace@{name}")]


@pytest.mark.parametrize("index", range(4), ids=["RS256", "ES256", "EdDSA", "PS256"])
def test_every_asymmetric_signature_is_accepted(house: House, index: int) -> None:
    assert house.ask(house.token(key=house.issuer.keys[index])).ok


def test_keys_work_in_the_same_gateway(house: House) -> None:
    assert house.ask(TRUSTED["admin"]["secret"]).ok  # type: ignore[arg-type]
    assert code_of(house.ask("mg-nobodys-secret").response) == "invalid_key"


def test_batches_need_a_key_because_they_outlast_tokens(house: House) -> None:
    token = house.token("eng-1", audience=house.served.address)
    answer = house.served.http().get("/v1/batches", headers=bearer(token))
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "not_supported", answer.text


def forged(house: House, algorithm: str) -> str:
    """A token signed with what everybody knows, the public key, as if that were a shared secret."""
    claims = {"iss": house.issuer.url, "sub": "eve", "aud": house.mcp, "exp": time.time() + 600, "groups": ["bosses"]}
    text = unsigned({"alg": algorithm, "typ": "JWT", "kid": "rsa-1"}, claims).rpartition(".")[0]
    public = house.issuer.keys[0].private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signature = hmac.new(public, text.encode(), hashlib.sha256).digest()
    return unsigned({"alg": algorithm, "typ": "JWT", "kid": "rsa-1"}, claims, signature)


def tampered(house: House) -> str:
    head, _, signature = house.token("eng-1").split(".")
    return f"{head}.{house.token('bosses').split('.')[1]}.{signature}"


HOSTILE: dict[str, tuple[Callable[[House], str], str]] = {
    "no algorithm": (lambda h: unsigned({"alg": "none"}, {"iss": h.issuer.url, "aud": h.mcp}), "'none'"),
    "none in other letters": (lambda h: unsigned({"alg": "nOnE"}, {"iss": h.issuer.url, "aud": h.mcp}), "'nOnE'"),
    "public key as a secret": (lambda h: forged(h, "HS256"), "'HS256'"),
    "secret's signature as an RSA one": (lambda h: forged(h, "RS256"), "its signature is wrong"),
    "RSA key for another algorithm": (lambda h: h.token(headers={"kid": "ec-1"}), "does not publish"),
    "other claims below a good signature": (tampered, "its signature is wrong"),
    "another's key under a known name": (lambda h: h.token(key=rsa_key(which="second")), "its signature is wrong"),
    "unknown key": (lambda h: h.token(key=rsa_key(new_kid())), "does not publish"),
    "another audience": (lambda h: h.token(audience="https://another.example/mcp"), "'https://another.example/mcp'"),
    "the audience with a longer name": (lambda h: h.token(audience=f"{h.mcp}-evil"), "it must be for"),
    "a bundle's audience": (lambda h: h.token(audience=f"{h.mcp}/dev"), "it must be for"),
    "no audience": (lambda h: h.token(without=("aud",)), "no audience"),
    "another issuer": (lambda h: h.token(iss="https://evil.example"), "'https://evil.example'"),
    "no issuer": (lambda h: h.token(without=("iss",)), "not one of server.oauth.issuers"),
    "an issuer's token in another's name": (lambda h: h.token(issuer=h.partner, iss=h.issuer.url, key=rsa_key(which="second")), "signature"),
    "an algorithm that its issuer does not use": (lambda h: h.token(issuer=h.partner, key=ec_key()), "'ES256'"),
    "expired": (lambda h: h.token(exp=time.time() - 1), "it expired on"),
    "expired before all calendars": (lambda h: h.token(exp=-1e20), "it expired on"),
    "ends beyond all numbers": (lambda h: h.token(exp=10**400), "not valid"),
    "ends at infinity": (lambda h: h.token(exp=float("inf")), "not valid"),
    "never expires": (lambda h: h.token(without=("exp",)), "exp"),
    "ends at no number": (lambda h: h.token(exp="soon"), "Expiration Time"),
    "not valid yet": (lambda h: h.token(nbf=time.time() + 60), "not valid yet"),
    "too long": (lambda h: h.token(padding="x" * 17_000), "longer than 16,384"),
    "encrypted": (lambda h: ".".join(["e30"] * 5), "encrypted"),
    "another kind of token": (lambda h: h.token(headers={"typ": "logout+jwt"}), "'logout+jwt'"),
    "critical extensions": (lambda h: h.token(headers={"crit": ["exp"]}), "`crit`"),
    "bound to a client's key": (lambda h: h.token(cnf={"jkt": "x"}), "`cnf`"),
    "deep nesting": (lambda h: f"{unsigned({}, {}).split('.')[0]}.{unsigned_text('[' * 9000)}.e30", "neither"),
    "not base64": (lambda h: "no.token.at all".replace(" ", "-"), "neither"),
    "a list as its header": (lambda h: f"{unsigned_text('[]')}.{unsigned_text('{}')}.e30", "neither"),
    "a number as its key's name": (lambda h: unsigned({"alg": "RS256", "kid": 7}, {"iss": h.issuer.url}), "malformed"),
}  # fmt: skip


def unsigned_text(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("case", HOSTILE)
def test_a_bad_token_is_refused_with_the_reason_and_opens_nothing(house: House, case: str) -> None:
    make, reason = HOSTILE[case]
    token = make(house)
    for path in ("/mcp", "/api/keys"):
        response = house.served.clients[0].post(path, json=call_of("list_tools"), headers=bearer(token))
        assert (response.status_code, code_of(response)) == (401, "invalid_key"), response.text
        assert reason in response.text or path == "/api/keys"
        challenge = response.headers["www-authenticate"]
        assert challenge.startswith('Bearer realm="mcpgate", error="invalid_token", error_description="')
        assert token not in response.text and token not in challenge
    assert token not in house.served.log.read_text()


def test_addresses_of_keys_in_a_tokens_header_are_not_asked(house: House) -> None:
    with issuing() as attacker:
        attacker.keys = [rsa_key(new_kid(), which="second")]
        jwks, key = f"{attacker.url}/jwks", attacker.keys[0]
        for headers in ({"jku": jwks}, {"x5u": jwks}, {"jwk": key.published()}, {"kid": jwks}, {"kid": "../../jwks"}):
            response = house.ask(house.token(key=key, headers=headers)).response
            assert (response.status_code, code_of(response)) == (401, "invalid_key")
        assert attacker.seen == []


def test_a_token_for_another_resource_does_not_open_the_gateway_under_that_resources_name(house: House) -> None:
    for host in ("another.example", "127.0.0.1:1", "localhost:1", "evil@127.0.0.1"):
        token = house.token(audience=f"http://{host}/mcp")
        response = house.ask(token, host=host).response
        assert (response.status_code, code_of(response)) == (401, "invalid_key"), host


def test_a_token_without_the_scope_is_told_which_to_ask_for(house: House) -> None:
    response = house.ask(house.token(scope="openid profile")).response
    assert (response.status_code, code_of(response)) == (403, "not_allowed")
    challenge = response.headers["www-authenticate"]
    assert 'error="insufficient_scope"' in challenge and 'scope="mcp"' in challenge
    assert f'resource_metadata="{house.served.address}/.well-known/oauth-protected-resource/mcp"' in challenge


@pytest.mark.parametrize("groups", [["visitors"], [], "eng", [["eng-1"]], [{"eng-1": 1}], None], ids=repr)
def test_a_token_that_no_rule_knows_gets_nothing(house: House, groups: Any) -> None:
    response = house.ask(house.token(groups=groups)).response
    assert (response.status_code, code_of(response)) == (403, "not_allowed")
    assert "no rule in server.oauth.claims.keys matches this token" in response.text


def test_without_a_token_the_challenge_and_the_metadata_say_where_to_get_one(house: House) -> None:
    client = house.served.clients[0]
    for path in ("/mcp", "/mcp/dev", "/sse"):
        response = client.get(path) if path == "/sse" else client.post(path, json=call_of("list_tools"))
        place = f"{house.served.address}/.well-known/oauth-protected-resource{path}"
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == (
            f'Bearer realm="mcpgate", scope="mcp", resource_metadata="{place}"'
        )
        assert client.get(place).json() == {
            "resource": f"{house.served.address}{path}",
            "authorization_servers": [house.issuer.url, house.partner.url],
            "scopes_supported": ["mcp", "profile"],
            "bearer_methods_supported": ["header"],
            "resource_name": "mcpgate",
        }
    assert client.get("/.well-known/oauth-protected-resource").json()["resource"] == house.served.address
    assert client.get("/.well-known/oauth-protected-resource/api").status_code == 404


def test_the_routes_of_models_take_tokens_for_the_whole_gateway_and_say_where_to_get_them(house: House) -> None:
    client, chat = house.served.clients[0], {"model": "none", "messages": [{"role": "user", "content": "x"}]}
    for sent in ({}, bearer(house.token())):
        refused = client.post("/v1/chat/completions", json=chat, headers=sent)
        assert refused.status_code == 401
        place = f'resource_metadata="{house.served.address}/.well-known/oauth-protected-resource"'
        assert place in refused.headers["www-authenticate"]
    known = client.post("/v1/chat/completions", json=chat, headers=bearer(house.token(audience=house.served.address)))
    assert known.status_code in (403, 404)


def test_users_of_two_issuers_with_one_name_are_two_users(house: House) -> None:
    client = house.served.clients[0]
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}}  # fmt: skip
    opened = client.post("/mcp", json=hello, headers=bearer(house.token(sub="sam"))).headers["mcp-session-id"]
    users = {
        "the same": (house.token(sub="sam", jti="2"), 200),
        "of another issuer": (house.token(sub="sam", issuer=house.partner), 404),
        "another": (house.token(sub="tom"), 404),
        "the key's own": (TRUSTED["admin"]["secret"], 404),
    }
    listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
    for whose, (token, status) in users.items():
        headers = {**bearer(token), "mcp-session-id": opened}  # type: ignore[arg-type]
        assert client.post("/mcp", json=listing, headers=headers).status_code == status, whose


def test_values_that_code_keeps_are_each_users_own_though_they_act_with_one_key(house: House) -> None:
    kept = house.served.call("execute_code", {"code": "'x' * 60000"}, key=house.token(sub="ida")).text
    handle = kept.partition('load("')[2].partition('"')[0]
    load = {"code": f'len(load("{handle}"))'}
    assert house.served.call("execute_code", load, key=house.token(sub="ida", jti="2")).text == "60000"
    assert not house.served.call("execute_code", load, key=house.token(sub="jon")).ok


def test_a_token_speaks_for_its_own_user_only(house: House) -> None:
    response = house.ask(house.token(sub="ada"), **{"x-mcpgate-user": "bob"}).response
    assert (response.status_code, code_of(response)) == (403, "not_allowed")


def test_the_admin_api_takes_a_token_for_the_whole_gateway_whose_key_is_an_admins(house: House) -> None:
    served, root = house.served, house.served.address
    assert served.admin("GET", "keys", key=house.token("bosses")).status_code == 401  # it is for /mcp
    assert code_of(served.admin("GET", "keys", key=house.token("eng-1", audience=root))) == "not_allowed"
    boss = house.token("bosses", audience=root, sub="eva")
    assert served.admin("PUT", "teams/made-by-eva", {}, key=boss).status_code == 200
    actors = [line["actor"] for line in served.admin("GET", "audit?limit=20").json()["audit"]]
    assert f"boss (eva@{house.issuer.url.removeprefix('http://')})" in actors


def test_budgets_of_the_team_that_a_token_names_and_of_each_user_hold(tmp_path: Path) -> None:
    with issuing() as issuer:
        claims = {"keys": [{"key": "staff"}], "user": "{sub}", "team": "{department}"}
        governance = {
            "keys": {**TRUSTED, "staff": {"grants": {"tools": "raw.*"}}},
            "teams": {"search": {"budget": {"limit_usd": 0.03}}, "ads": {}},
            "users": {"ada": {"team": "ads"}},
            "budgets": [{"id": "each", "per": "user", "limit_usd": 0.02}],
        }
        config = write_config(
            tmp_path, {"raw": raw(expose="direct", prices={"echo": 0.01})}, governance=governance,
            server={"oauth": {"issuers": [issuer.url], "claims": claims}}, sandbox={"warm": 0},
        )  # fmt: skip
        with serving(tmp_path, config) as served:

            def call(sub: str, department: str) -> int:
                token = issuer.token(f"{served.address}/mcp", sub=sub, department=department)
                answer = served.call("raw__echo", {"text": "x"}, key=token)
                return 200 if answer.ok else {"budget_exceeded": 402}[answer.error["code"]]

            assert [call("ada", "search") for _ in range(3)] == [200, 200, 402]  # her own is used up
            assert [call("bob", "search") for _ in range(2)] == [200, 402]  # the team's is
            assert call("bob", "ads") == 200
            rows = served.usage("key,user,team", tool="echo", outcome="ok")
            assert {(row["key"], row["user"], row["team"], row["cost_usd"]) for row in rows} == {
                ("staff", "ada", "search", "0.02"),
                ("staff", "bob", "search", "0.01"),
                ("staff", "bob", "ads", "0.01"),
            }
            unknown = issuer.token(f"{served.address}/mcp", department="unknown")
            assert code_of(served.call("list_tools", key=unknown).response) == "not_allowed"


def run(house: House, token: str) -> list[Any]:
    with httpx2.Client(base_url=house.served.address, headers=bearer(token), timeout=60) as client:
        answer = Answer(client.post("/mcp", json=call_of("execute_code", {"code": LOOP})))
    if "error" in answer.response.json():
        return [0.0, answer.error["code"]]  # the whole request was ended, before the code came to its end
    found: list[Any] = json.loads(answer.text)
    return found


def test_running_code_ends_with_its_token(house: House) -> None:
    ends_at = time.time() + 3
    last, code = run(house, house.token("stored", exp=ends_at))
    assert code == "not_allowed" and time.time() - ends_at < 3
    assert last - ends_at < 2


def test_running_code_loses_within_two_seconds_what_is_taken_from_the_key_of_its_token(house: House) -> None:
    served = house.served
    with ThreadPoolExecutor(1) as pool:
        before = served.usage(user=f"kim@{house.issuer.url.removeprefix('http://')}")
        assert not before or not before[0]["tool_calls"]
        under_way = pool.submit(run, house, house.token("stored", sub="kim"))
        user = f"kim@{house.issuer.url.removeprefix('http://')}"
        wait_until(lambda: served.usage(user=user)[0]["tool_calls"] > 1)
        assert served.admin("PATCH", "keys/stored", {"enabled": False}).status_code == 200
        changed = time.time()
        last, code = under_way.result(30)
    assert code == "not_allowed" and last - changed < 2
    assert code_of(house.ask(house.token("stored")).response) == "not_allowed"
    served.admin("PATCH", "keys/stored", {"enabled": True})
    assert house.ask(house.token("stored")).ok


def test_a_token_whose_key_was_revoked_is_told_so_and_not_to_sign_in_again(house: House) -> None:
    house.served.new_key(id="gone", grants={"tools": ["raw.*"]})
    house.served.admin("POST", "keys/gone/revoke", {})
    keys = [{"key": "gone", "when": {"groups": "leavers"}}, *RULES]
    server = yaml.safe_load(house.served.config.read_text())["server"]
    oauth = {**server["oauth"], "claims": {"keys": keys}}
    house.served.edit(server={**server, "oauth": oauth})
    response = house.ask(house.token("leavers")).response
    assert (response.status_code, code_of(response)) == (403, "not_allowed")
    assert "this key was revoked" in response.text
    house.served.edit(server=server)
    assert "no rule" in house.ask(house.token("leavers")).text


def test_a_stream_ends_with_its_token_unless_its_session_has_brought_a_newer_one(house: House) -> None:
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}}  # fmt: skip
    client = house.served.http()
    ended: dict[str, float] = {}
    ends_at = time.time() + 3

    def listen(sub: str, session: str, token: str) -> None:
        headers = {**bearer(token), "mcp-session-id": session, "accept": "text/event-stream"}
        with httpx2.Client(base_url=house.served.address, timeout=30) as own:
            with own.stream("GET", "/mcp", headers=headers) as response:
                assert response.status_code == 200
                for _ in response.iter_bytes():
                    pass
        ended[sub] = time.time()

    with ThreadPoolExecutor(2) as pool:
        waiting = {}
        for sub, newer in (("lea", False), ("liv", True)):
            token = house.token(sub=sub, exp=ends_at)
            session = client.post("/mcp", json=hello, headers=bearer(token)).headers["mcp-session-id"]
            waiting[sub] = pool.submit(listen, sub, session, token)
            if newer:
                fresh = {**bearer(house.token(sub=sub, exp=ends_at + 3)), "mcp-session-id": session}
                listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
                assert client.post("/mcp", json=listing, headers=fresh).status_code == 200
        for one in waiting.values():
            one.result(30)
    assert 0 <= ended["lea"] - ends_at < 2.5
    assert 0 <= ended["liv"] - (ends_at + 3) < 2.5


def test_the_legacy_transport_takes_tokens_for_its_own_address(house: House) -> None:
    client = house.served.http()
    headers = bearer(house.token(audience=f"{house.served.address}/sse"))
    assert client.get("/sse", headers=bearer(house.token())).status_code == 401
    with client.stream("GET", "/sse", headers=headers) as stream:
        lines = stream.iter_lines()
        endpoint = next(line for line in lines if line.startswith("data: ")).removeprefix("data: ")
        listing = {"jsonrpc": "2.0", "id": 7, "method": "tools/list"}
        assert house.served.clients[0].post(endpoint, json=listing, headers=bearer(house.token())).status_code == 401
        assert house.served.clients[0].post(endpoint, json=listing, headers=headers).status_code == 202
        answer = next(line for line in lines if line.startswith("data: "))
        assert "raw__echo" in answer


def test_a_storm_of_invented_key_names_asks_the_issuer_once(house: House) -> None:
    house.ask(house.token())
    before = house.issuer.count()
    for _ in range(40):
        assert house.ask(house.token(key=rsa_key(new_kid()))).response.status_code == 401
    assert house.issuer.count() - before <= 1
    assert house.ask(house.token()).ok


OTHER_HOUSES: dict[str, Any] = {
    "public": ({"public_url": "https://gw.example.com/tools", "base_path": "/tools"}, {}, "https://gw.example.com/tools"),
    "forwarded": (
        {"trusted_proxies": ["127.0.0.1"], "allowed_hosts": ["gw.example.com"], "base_path": "/tools"},
        {"host": "gw.example.com", "x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.7"},
        "https://gw.example.com/tools",
    ),
    "named, untrusted proxy": (
        {"allowed_hosts": ["gw.example.com"]},
        {"host": "gw.example.com", "x-forwarded-proto": "https"},
        "http://gw.example.com",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER_HOUSES)
def test_the_resource_has_the_address_that_its_clients_know(name: str, tmp_path: Path) -> None:
    server, headers, base = OTHER_HOUSES[name]
    with issuing() as issuer:
        oauth = {"issuers": [issuer.url], "claims": {"keys": [{"key": "staff"}]}}
        config = write_config(
            tmp_path, {"raw": raw(expose="direct")}, governance={"keys": {"staff": {"grants": {"tools": "raw.*"}}}},
            server={**server, "oauth": oauth}, sandbox={"warm": 0},
        )  # fmt: skip
        with serving(tmp_path, config) as served:
            client, prefix = served.clients[0], server.get("base_path", "")
            refused = client.post("/mcp", json=call_of("list_tools"), headers=headers)
            place = f"{base}/.well-known/oauth-protected-resource/mcp"
            assert f'resource_metadata="{place}"' in refused.headers["www-authenticate"]
            ways = [f"{prefix}/.well-known/oauth-protected-resource/mcp"]
            ways.append(f"/.well-known/oauth-protected-resource{prefix}/mcp")
            for way in ways:
                assert client.get(way, headers=headers).json()["resource"] == f"{base}/mcp"
            good = {**bearer(issuer.token(f"{base}/mcp")), **headers}
            assert client.post("/mcp", json=call_of("list_tools"), headers=good).status_code == 200
            wrong = {**bearer(issuer.token(f"{served.address}/mcp")), **headers}
            assert client.post("/mcp", json=call_of("list_tools"), headers=wrong).status_code == 401


def test_behind_a_proxy_the_names_of_this_machine_are_no_address_of_the_gateway(tmp_path: Path) -> None:
    with issuing() as issuer:
        oauth = {"issuers": [issuer.url], "claims": {"keys": [{"key": "staff"}]}}
        config = write_config(
            tmp_path, {}, governance={"keys": {"staff": {"grants": {"tools": "*"}}}}, sandbox={"warm": 0},
            server={"trusted_proxies": ["127.0.0.1"], "oauth": oauth},
        )  # fmt: skip
        with serving(tmp_path, config) as served:
            token = issuer.token(f"{served.address}/mcp")
            assert served.call("list_tools", key=token).ok
            refused = served.call("list_tools", key=token, headers={"x-forwarded-for": "203.0.113.7"})
            assert refused.response.status_code == 401 and "set server.public_url" in refused.text
            assert "resource_metadata" not in refused.headers["www-authenticate"]


def test_without_the_section_nothing_of_it_is_there(tmp_path: Path) -> None:
    config = write_config(tmp_path, {}, governance={"keys": TRUSTED}, sandbox={"warm": 0})
    with serving(tmp_path, config) as served, issuing() as issuer:
        response = served.clients[0].post("/mcp", json=call_of("list_tools"))
        assert response.headers["www-authenticate"] == 'Bearer realm="mcpgate"'
        assert served.clients[0].get("/.well-known/oauth-protected-resource/mcp").status_code == 404
        refused = served.call("list_tools", key=issuer.token(f"{served.address}/mcp"))
        assert refused.response.status_code == 401 and issuer.seen == []
        # An edit turns it on without a restart.
        oauth = {"issuers": [issuer.url], "claims": {"keys": [{"key": "admin"}]}}
        served.edit(server={"oauth": oauth})
        assert served.call("list_tools", key=issuer.token(f"{served.address}/mcp")).ok


def test_check_says_which_issuer_fails_and_which_key_is_missing(tmp_path: Path) -> None:
    with issuing() as good, issuing() as bad, issuing() as lying:
        bad.keys = []
        lying.metadata = {"issuer": "https://somebody.else"}
        oauth = {
            "issuers": [good.url, bad.url, lying.url, "http://127.0.0.1:9"],
            "claims": {"keys": [{"key": "staff"}, {"key": "nobody"}]},
        }
        config = write_config(tmp_path, {}, governance={"keys": {"staff": {}}}, server={"oauth": oauth})
        done = mcpgate("check", "-c", str(config), "--format", "json", env=environment(tmp_path))
    assert done.returncode == 1
    rows = {row["part"]: row for row in json.loads(done.stdout)["parts"]}
    assert rows[f"issuer {good.url}"]["ok"]
    assert "holds no public key" in rows[f"issuer {bad.url}"]["error"]
    assert "is that of https://somebody.else" in rows[f"issuer {lying.url}"]["error"]
    assert not rows["issuer http://127.0.0.1:9"]["ok"]
    assert "'nobody', which does not exist" in rows["server.oauth"]["error"]


def test_an_issuer_that_cannot_be_reached_is_no_fault_of_the_client(tmp_path: Path) -> None:
    def broken(exchange: Exchange) -> None:
        exchange.reply(500, {})

    with issuing() as issuer:
        issuer.documents["/jwks"] = broken
        oauth = {"issuers": [issuer.url], "claims": {"keys": [{"key": "staff"}]}}
        config = write_config(
            tmp_path, {}, governance={"keys": {"staff": {}}}, server={"oauth": oauth}, sandbox={"warm": 0}
        )
        with serving(tmp_path, config) as served:
            for _ in range(3):
                response = served.call("list_tools", key=issuer.token(f"{served.address}/mcp")).response
                assert (response.status_code, code_of(response)) == (503, "unavailable")
                assert "HTTP 500" in response.text and response.headers["retry-after"]
            assert issuer.count() == 1
