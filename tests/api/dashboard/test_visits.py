"""Signing in to the dashboard, and what its requests may do, through a running gateway."""

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import raw
from tests.flows.governed import ADMIN, TRUSTED, Served, bearer, serving, wait_until, write_config

TEAM, PLAIN = "mg-administrator-of-a-team", "mg-not-an-administrator"
CUSTOMER = "mg-administrator-of-a-customer"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("dashboard")
    keys = {
        **TRUSTED,
        "plain": {"secret": PLAIN, "grants": {"tools": "*"}},
        "lead": {"secret": TEAM, "team": "search", "grants": {"tools": ["raw.echo"], "admin": True}},
        "account": {"secret": CUSTOMER, "customer": "acme", "grants": {"admin": True}},
        "searcher": {"secret": "mg-of-the-search-team", "team": "search", "grants": {"tools": "*"}},
        "other": {"secret": "mg-of-the-other-team", "team": "other", "grants": {"tools": "*"}},
    }
    governance = {
        "require_key": True,
        "keys": keys,
        "customers": {"acme": {}, "rich": {}},
        "teams": {"search": {"customer": "acme", "budget": {"limit_usd": 5}}, "other": {"customer": "rich"}},
        "users": {"ada": {"team": "search"}, "bob": {"team": "other"}},
        "budgets": [{"id": "ours", "when": {"team": "search"}, "limit_usd": 9}, {"id": "all", "limit_usd": 99}],
    }
    servers = {"raw": raw(expose="both", prices={"echo": 0.5}), "second": raw()}
    with serving(folder, write_config(folder, servers, governance=governance, sandbox={"warm": 0})) as served:
        for secret in ("mg-of-the-search-team", "mg-of-the-other-team"):
            assert served.call("raw__echo", {"text": "x"}, key=secret).ok
        yield served


def sign_in(served: Served, secret: str = ADMIN, **headers: str) -> tuple[httpx2.Client, dict[str, Any]]:
    """A browser that is signed in, and what it knows about itself."""
    browser = served.http(**headers)
    answer = browser.post("/dashboard/session", json={"key": secret})
    assert answer.status_code == 200, answer.text
    return browser, browser.get("/dashboard/session").json()


def csrf(session: dict[str, Any]) -> dict[str, str]:
    return {session["csrf_header"]: session["csrf"]}


def test_pages_may_load_only_what_is_part_of_them(house: Served) -> None:
    page = house.http().get("/dashboard/")
    assert page.status_code == 200 and '<script type="module" src="app.js">' in page.text
    policy = page.headers["content-security-policy"]
    for part in (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ):
        assert part in policy
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff" and page.headers["x-frame-options"] == "DENY"


def test_the_address_without_a_slash_leads_to_the_page(house: Served) -> None:
    answer = house.http().get("/dashboard")
    assert answer.status_code == 308 and answer.headers["location"] == "dashboard/"


def test_files_are_not_sent_again_unless_they_have_changed(house: Served) -> None:
    http = house.http()
    etag = http.get("/dashboard/app.js").headers["etag"]
    assert http.get("/dashboard/app.js", headers={"if-none-match": etag}).status_code == 304


@pytest.mark.parametrize("path", ["../face.py", "..%2fface.py", "%2e%2e/face.py", "vendor/../../face.py", "nothing.js"])
def test_nothing_else_is_served(house: Served, path: str) -> None:
    assert house.http().get(f"/dashboard/{path}").status_code == 404


def test_a_visitor_has_the_rights_of_its_key_until_it_signs_out(house: Served) -> None:
    browser, session = sign_in(house)
    assert session["key"] == "admin" and session["csrf"]
    assert browser.get("/api/keys").status_code == 200
    assert browser.delete("/dashboard/session", headers=csrf(session)).status_code == 200
    assert browser.get("/api/keys").status_code == 401
    assert browser.get("/dashboard/session").json()["signed_in"] is False


def test_the_cookie_is_out_of_reach_of_scripts_and_of_other_sites(house: Served) -> None:
    answer = house.http().post("/dashboard/session", json={"key": ADMIN})
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Secure" not in cookie
    secure = house.http(origin="https://127.0.0.1").post("/dashboard/session", json={"key": ADMIN})
    assert secure.headers["set-cookie"].startswith("__Secure-") and "; Secure" in secure.headers["set-cookie"]


def test_the_cookie_alone_changes_nothing(house: Served) -> None:
    browser, session = sign_in(house)
    for headers in ({}, {session["csrf_header"]: "guessed"}):
        refused = browser.put("/api/customers/forged", json={}, headers=headers)
        assert refused.status_code == 403 and session["csrf_header"] in refused.json()["error"]["message"]
    assert browser.put("/api/customers/meant", json={}, headers=csrf(session)).status_code == 200
    assert "forged" not in browser.get("/api/customers").text
    assert browser.delete("/api/customers/meant", headers=csrf(session)).status_code == 204


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://localhost:1"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:1"},
    ],
)
def test_another_page_cannot_use_the_visit(house: Served, headers: dict[str, str]) -> None:
    browser, session = sign_in(house)
    assert browser.get("/api/keys", headers=headers).status_code == 403
    assert browser.put("/api/customers/forged", json={}, headers={**headers, **csrf(session)}).status_code == 403


def test_the_dashboard_answers_no_other_origin_and_no_other_name(house: Served) -> None:
    answer = house.http(origin="http://localhost:1").get("/dashboard/session")
    assert "access-control-allow-origin" not in answer.headers
    assert house.http(host="rebound.example").get("/dashboard/").status_code == 421
    assert house.http(host="rebound.example").post("/dashboard/session", json={"key": ADMIN}).status_code == 421


def test_a_form_of_another_page_cannot_sign_in(house: Served) -> None:
    answer = house.http().post(
        "/dashboard/session", content=b'{"key": "%s"}' % ADMIN.encode(), headers={"content-type": "text/plain"}
    )
    assert answer.status_code == 400 and "set-cookie" not in answer.headers


def test_a_key_without_the_grant_is_refused(house: Served) -> None:
    answer = house.http().post("/dashboard/session", json={"key": PLAIN})
    assert answer.status_code == 403 and "admin" in answer.json()["error"]["message"]


def test_a_visit_ends_when_its_key_is_revoked_or_rotated(house: Served) -> None:
    for action, body in (("rotate", {"overlap": "0"}), ("revoke", {})):
        made = house.admin("POST", "keys", {"id": f"for-{action}", "grants": {"admin": True}}).json()
        browser, _ = sign_in(house, made["secret"])
        assert browser.get("/api/keys").status_code == 200
        assert house.admin("POST", f"keys/for-{action}/{action}", body).status_code == 200
        wait_until(lambda browser=browser: browser.get("/api/keys").status_code == 401, 5)


def test_only_digests_of_visits_are_stored(house: Served) -> None:
    browser, _ = sign_in(house)
    (value,) = [cookie.value for cookie in browser.cookies.jar]
    assert value is not None
    with sqlite3.connect(house.folder / "data" / "mcpgate" / "mcpgate.sqlite3") as db:
        stored = "".join(f"{key}{text}" for key, text in db.execute("SELECT key, value FROM tokens"))
    assert "visit:" in stored and value.split(".")[2] not in stored and ADMIN not in stored


def test_a_key_has_a_bounded_number_of_visits_and_the_oldest_end(house: Served) -> None:
    made = house.admin("POST", "keys", {"id": "often", "grants": {"admin": True}}).json()
    browsers = [sign_in(house, made["secret"])[0] for _ in range(18)]
    works = [browser.get("/api/keys").status_code for browser in browsers]
    assert works.count(200) == 16 and works[-1] == 200


def test_visitors_ask_tools_and_models_as_their_key(house: Served) -> None:
    browser, session = sign_in(house, TEAM)
    message = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "raw__echo", "arguments": {"text": "hi"}},
    }
    assert browser.post("/mcp", json=message).status_code == 403
    answer = browser.post("/mcp", json=message, headers=csrf(session)).json()
    assert answer["result"]["content"][0]["text"] == "hi"
    wait_until(lambda: any(row["key"] == "lead" for row in house.usage("key")), 5)


def test_what_requests_must_say_of_themselves_visitors_say_to_tools_but_not_to_pages(tmp_path: Path) -> None:
    governance = {"keys": TRUSTED, "required_metadata": ["env"]}
    config = write_config(tmp_path, {"raw": raw(expose="both")}, governance=governance, sandbox={"warm": 0})
    with serving(tmp_path, config) as served:
        browser, session = sign_in(served)
        assert browser.get("/api/keys").status_code == 200
        params = {"name": "raw__echo", "arguments": {"text": "hi"}}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        assert "env" in browser.post("/mcp", json=message, headers=csrf(session)).text
        said = {**csrf(session), "x-mcpgate-metadata": '{"env": "dev"}'}
        assert browser.post("/mcp", json=message, headers=said).json()["result"]["content"][0]["text"] == "hi"
        usage = browser.get("/api/usage?by=metadata.env").json()["rows"]
        assert "dev" in [row["metadata.env"] for row in usage]


def test_every_worker_knows_every_visit(tmp_path: Path) -> None:
    config = write_config(tmp_path, {}, governance={"require_key": True}, sandbox={"warm": 0})
    with serving(tmp_path, config, workers=2) as served:
        log = served.log.read_text()
        (token,) = re.findall(r"#/sign-in/(\S+)", log)
        browser, _ = sign_in(served, token)
        for _ in range(10):  # each over a connection of its own, so that both workers get some
            fresh = served.http()
            fresh.cookies = browser.cookies
            assert fresh.get("/api/keys").status_code == 200


def test_a_long_body_does_not_sign_in(house: Served) -> None:
    answer = house.http().post("/dashboard/session", json={"key": "m" * 100_000})
    assert answer.status_code == 413


# --- administrators of a team


def rows(answer: httpx2.Response, name: str) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()[name]
    return found


@pytest.mark.parametrize("secret", [TEAM, CUSTOMER])
def test_an_administrator_of_a_team_sees_only_what_is_the_teams(house: Served, secret: str) -> None:
    """By the API, whatever a page would show; the customer has one team."""
    http = house.http(**bearer(secret))
    assert {row["team"] for row in rows(http.get("/api/usage?by=team"), "rows")} == {"search"}
    assert {row["team"] for row in rows(http.get("/api/entries"), "entries")} == {"search"}
    assert {row["team"] for row in rows(http.get("/api/requests"), "requests")} == {"search"}
    assert "searcher" in {row["id"] for row in rows(http.get("/api/keys"), "keys")}
    assert not {"other", "admin", "plain"} & {row["id"] for row in rows(http.get("/api/keys"), "keys")}
    assert [row["id"] for row in rows(http.get("/api/teams"), "teams")] == ["search"]
    assert [row["id"] for row in rows(http.get("/api/users"), "users")] == ["ada"]
    assert {row["of"] for row in rows(http.get("/api/limits?kind=team"), "limits")} == {"search"}
    assert "rich" not in http.get("/api/customers").text


def test_only_rules_that_speak_of_the_team_alone_are_its_own(house: Served) -> None:
    http = house.http(**bearer(TEAM))
    assert [row["id"] for row in rows(http.get("/api/budgets"), "budgets")] == ["ours"]
    assert {row["of"] for row in rows(http.get("/api/limits?kind=budget"), "limits")} == {"ours"}


def test_an_administrator_of_a_team_cannot_ask_for_what_is_anothers(house: Served) -> None:
    http = house.http(**bearer(TEAM))
    for path in (
        "keys/other",
        "keys/other/standing",
        "teams/other",
        "users/bob",
        "budgets/all",
        "upstreams/second/tools",
    ):
        assert http.get(f"/api/{path}").status_code == 404, path
    for path in ("usage?where=team=other", "entries?where=team=other", "audit"):
        assert http.get(f"/api/{path}").status_code == 403, path
    theirs = house.admin("GET", "requests?where=team=other").json()["requests"][0]["id"]
    assert http.get(f"/api/requests/{theirs}").status_code == 404
    assert rows(http.get("/api/requests?where=team=other"), "requests") == []


def test_the_keys_of_a_team_are_found_on_whatever_page_they_are(house: Served) -> None:
    for n in range(4):
        house.new_key(id=f"paged-{n}", team="search" if n == 3 else "other")
    http = house.http(**bearer(TEAM))
    found, after = [], ""
    while after is not None:
        answer = http.get(f"/api/keys?limit=1&after={after}").json()
        found += [row["id"] for row in answer["keys"]]
        after = answer["after"]
    assert "paged-3" in found and not {"paged-0", "paged-1", "paged-2"} & set(found)


def test_an_administrator_of_a_team_changes_nothing(house: Served) -> None:
    http = house.http(**bearer(TEAM))
    for method, path in (
        *(("POST", "keys"), ("PATCH", "keys/searcher"), ("POST", "keys/searcher/rotate"), ("DELETE", "keys/searcher")),
        *(("PUT", "teams/search"), ("POST", "teams/search/reset"), ("PUT", "budgets/mine"), ("POST", "models/explain")),
    ):
        assert http.request(method, f"/api/{path}", json={}).status_code == 403, path


def test_an_administrator_of_a_team_sees_the_servers_that_its_key_may_call(house: Served) -> None:
    http = house.http(**bearer(TEAM))
    assert [row["name"] for row in rows(http.get("/api/upstreams"), "upstreams")] == ["raw"]
    assert [row["name"] for row in rows(http.get("/api/upstreams/raw/tools"), "tools")] == ["echo"]


# --- without an admin key


def test_without_an_admin_key_a_token_is_printed_that_works_once(tmp_path: Path) -> None:
    governance = {"keys": {"plain": {"secret": PLAIN, "grants": {"tools": "*"}}}}
    with serving(tmp_path, write_config(tmp_path, {}, governance=governance, sandbox={"warm": 0})) as served:
        found = re.search(
            r"dashboard: http://\S+/dashboard/#/sign-in/(\S+)",
            wait_until(lambda: served.said("dashboard:") and served.log.read_text()),
        )
        assert found is not None
        browser, session = sign_in(served, found[1])
        assert session["key"] is None
        made = browser.post("/api/keys", json={"id": "first", "grants": {"admin": True}}, headers=csrf(session))
        assert made.status_code == 201
        assert served.http().post("/dashboard/session", json={"key": found[1]}).status_code == 401
    with serving(tmp_path, served.config) as again:
        assert not again.said("#/sign-in/")
        assert browser.cookies and again.http(**bearer(made.json()["secret"])).get("/api/keys").status_code == 200


def test_on_this_machine_without_keys_it_works_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, write_config(tmp_path, {}, sandbox={"warm": 0})) as served:
        assert wait_until(lambda: served.said(f"dashboard: {served.address}/dashboard"))
        assert served.http().get("/dashboard/session").json()["signed_in"] is True
        assert served.http().put("/api/customers/acme", json={}).status_code == 200


def test_whoever_fails_too_often_must_wait(tmp_path: Path) -> None:
    with serving(tmp_path, write_config(tmp_path, {}, governance={"keys": TRUSTED}, sandbox={"warm": 0})) as served:
        http = served.http()
        statuses = [http.post("/dashboard/session", json={"key": f"mg-guess-{n}"}).status_code for n in range(11)]
        assert statuses == [401] * 10 + [429]
        refused = http.post("/dashboard/session", json={"key": ADMIN})
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 100
        assert http.get("/api/keys", headers=bearer(ADMIN)).status_code == 200
