"""The admin API, tested by its own description, and its response to invalid input."""

import csv
import io
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.conftest import raw
from tests.flows.governed import (
    ADMIN,
    TRUSTED,
    Served,
    bearer,
    mcpgate,
    own_database,
    serving,
    wait_until,
    write_config,
)

PLAIN = "mg-not-an-administrator"
KINDS = {"customers": {}, "teams": {"customer": "acme"}, "users": {"team": "search"},
         "budgets": {"limit_usd": "5", "period": "1d"}, "rate-limits": {"requests": 5, "window": "1m"}}  # fmt: skip


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("office")
    governance = {
        "require_key": True,
        "keys": {**TRUSTED, "plain": {"secret": PLAIN, "grants": {"tools": "*"}}},
        "customers": {"fixed": {}},
        "budgets": [{"id": "fixed", "limit_usd": 1000}],
    }
    servers = {"raw": raw(expose="both", prices={"add": 0.01, "echo": 0.5})}
    settings = {"governance": governance, "sandbox": {"warm": 0}, "llm": {"providers": {"echo": {"type": "echo"}}}}
    with serving(folder, write_config(folder, servers, **settings)) as served:
        yield served


def described(served: Served) -> dict[str, Any]:
    answer = served.http().get("/api/openapi.json")
    assert answer.status_code == 200
    document: dict[str, Any] = answer.json()
    return document


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method.upper(), path, facts)
        for path, methods in document["paths"].items()
        for method, facts in methods.items()
    ]


REFUSED = {"POST /api/cache/feedback": 404, "DELETE /api/cache": 400}
"""Operations that need an entry of the cache, which is tried elsewhere."""
EXAMPLES: dict[str, Any] = {
    "POST /api/cache/feedback": {"id": "walked", "good": True},
    "POST /api/keys": {"id": "walked", "grants": {"tools": ["raw.*"]}, "budget": {"limit_usd": 1}, "user": "ada"},
    "PATCH /api/keys/{id}": {"name": "walked on", "enabled": False},
    "POST /api/keys/{id}/rotate": {"overlap": "1h"},
    "POST /api/models/explain": {"model": "echo/any", "metadata": {"env": "dev"}, "input_tokens": 9000},
    **{f"PUT /api/{kind}/{{id}}": body for kind, body in KINDS.items()},
}
ORDER = ["POST /api/keys", "PATCH", "PUT", "GET", "POST", "DELETE"]
"""In order: what must exist is created first and removed last."""


@pytest.fixture
def cleared(office: Served) -> Iterator[None]:
    yield
    for kind in KINDS:  # otherwise one failure would cause the next
        office.admin("DELETE", f"{kind}/walked")


@pytest.mark.usefixtures("cleared")
def test_every_operation_of_the_description_answers_as_it_says(office: Served) -> None:
    document = described(office)
    assert document["openapi"].startswith("3.1") and len(operations(document)) == 60

    def turn(operation: tuple[str, str, Any]) -> int:
        method, path, _ = operation
        return next(place for place, name in enumerate(ORDER) if name in (f"{method} {path}", method))

    error = next(iter(operations(document)))[2]["responses"]["default"]["content"]["application/json"]["schema"]
    for method, path, facts in sorted(operations(document), key=turn):
        body = EXAMPLES.get(f"{method} {path}")
        if body is None and "requestBody" in facts:
            body = {}
        of_request = path.startswith("/api/requests/")
        id = office.call("raw__echo", {"text": "x"}).headers["x-request-id"] if of_request else "walked"
        place = path.replace("{id}", id).replace("{name}", "raw").removeprefix("/api/")
        answer = office.admin(method, place, body)
        responses = facts["responses"]
        if (status := REFUSED.get(f"{method} {path}")) is not None:
            assert answer.status_code == status
            jsonschema.validate(answer.json(), responses["default"]["content"]["application/json"]["schema"])
            continue
        if "{name}" in path and method == "POST":  # nobody signs in to a program
            assert answer.status_code == 400 and "is a local program" in answer.text
            jsonschema.validate(answer.json(), responses["default"]["content"]["application/json"]["schema"])
            continue
        assert str(answer.status_code) in responses, (method, path, answer.status_code, answer.text)
        content = responses[str(answer.status_code)].get("content")
        if content is None:
            assert answer.content == b"" and answer.status_code == 204, (method, path)
        else:
            assert answer.headers["content-type"] == "application/json"
            jsonschema.validate(answer.json(), content["application/json"]["schema"])
        assert answer.headers["cache-control"] == "no-store" and answer.headers["x-request-id"]
        for parameter in facts["parameters"]:
            if parameter["in"] == "query" and parameter["name"] in ("limit", "before"):
                wrong = office.admin(method, f"{path.removeprefix('/api/')}?{parameter['name']}=0")
                assert wrong.status_code == 400 and parameter["name"] in wrong.text
                jsonschema.validate(wrong.json(), error)


def test_the_descriptions_bodies_are_what_is_taken(office: Served) -> None:
    """The schemas in the description accept our examples and reject what the API rejects."""
    document = described(office)
    for name, body in EXAMPLES.items():
        method, path = name.split(" ")
        content = document["paths"][path][method.lower()]["requestBody"]["content"]["application/json"]["schema"]
        validator = jsonschema.Draft202012Validator({**content, "components": document["components"]})
        assert validator.is_valid(body), name
        assert not validator.is_valid([body])
        if "$ref" in content:
            assert not validator.is_valid({**body, "nonsense": 1}), name
    for fragment in re.findall(r'"\$ref":"#/([^"]+)"', json.dumps(document, separators=(",", ":"))):
        found: Any = document
        for part in fragment.split("/"):
            found = found[part]


def test_no_operation_is_open_without_an_administrators_key(office: Served) -> None:
    before = office.admin("GET", "audit?limit=1").json()
    for method, path, _ in operations(described(office)):
        where = path.replace("{id}", "fixed").removeprefix("/api/")
        for key, status, code in (
            (None, 401, "missing_key"),
            ("mg-no", 401, "invalid_key"),
            (PLAIN, 403, "not_allowed"),
        ):
            if key == PLAIN and path.startswith("/api/requests"):
                continue  # which show a key its own requests
            body = {} if method in ("POST", "PUT", "PATCH") else None
            answer = office.admin(method, where, body, key)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), (method, path)
    assert office.admin("GET", "audit?limit=1").json() == before


@pytest.mark.parametrize(
    ("method", "path", "body", "said"),
    [
        ("POST", "keys", {"nonsense": 1}, ["nonsense"]),
        ("POST", "keys", {"budget": {"limit_usd": -1}}, ["budget.0.limit_usd", "greater than or equal to 0"]),
        ("POST", "keys", {"budget": {"limit_usd": 1, "period": "1 fortnight"}}, ["budget.0.period", "1 fortnight"]),
        ("POST", "keys", {"budget": {"limit_usd": 1, "timezone": "Mars/Base"}}, ["budget.0.timezone", "Mars/Base"]),
        ("POST", "keys", {"rate_limits": [{"requests": 5}]}, ["rate_limits.0", "needs a window"]),
        ("POST", "keys", {"grants": {"tool": ["*"]}}, ["grants.tool"]),
        ("POST", "keys", {"allowed_ips": ["10.0.0.1", "10.0.0.300"]}, ["allowed_ips.1"]),
        ("POST", "keys", {"expires_at": "next year"}, ["expires_at"]),
        ("POST", "keys", {"id": "local"}, ["id", "'local'"]),
        ("POST", "keys", {"id": "a|b"}, ["id"]),
        ("POST", "keys", {"name": "x" * 129}, ["name", "128"]),
        ("POST", "keys", {"limits": {"memory": 5}}, ["limits", "memory is not a valid limit"]),
        ("POST", "keys", {"limits": {"max_parallel_calls": 0}}, ["limits", "max_parallel_calls"]),
        ("POST", "keys", {"limits": {"memory_mib": 1}}, ["limits", "memory_mib"]),
        ("POST", "keys", {"limits": {"max_tool_calls": 0.5}}, ["limits", "max_tool_calls"]),
        ("POST", "keys", {"secret": "mg-chosen-by-myself"}, ["secret"]),
        ("POST", "keys", [], ["JSON object"]),
        ("PATCH", "keys/changed", {"enabled": "perhaps"}, ["enabled"]),
        ("POST", "keys/changed/rotate", {"overlap": "soon"}, ["overlap", "soon"]),
        ("PUT", "budgets/b", {"limit_usd": 1, "per": "planet"}, ["per", "planet"]),
        ("PUT", "budgets/b", {"limit_usd": 1, "when": {"colour": "red"}}, ["when.colour", "metadata.NAME"]),
        ("PUT", "budgets/b", {}, ["limit_usd", "required"]),
        ("PUT", "budgets/key:ci", {"limit_usd": 1}, ["key:ci"]),
        ("PUT", "rate-limits/r", {}, ["needs one of", "requests"]),
        ("PUT", "users/" + "u" * 129, {}, ["128"]),
        ("PUT", "users/a%7Cb", {}, ["a|b"]),
        ("GET", "usage?by=colour", None, ["colour", "metadata.NAME"]),
        ("GET", "usage?by=key,key", None, ["duplicate"]),
        ("GET", "usage?by=key&by=user", None, ["duplicate query parameter 'by'"]),
        ("GET", "usage?where=key", None, ["'key'", "NAME=VALUE"]),
        ("GET", "usage?since=yesterdayish", None, ["yesterdayish", "a date like"]),
        ("GET", "usage?format=xml", None, ["json or csv"]),
        ("GET", "usage?formt=csv", None, ["formt", "format"]),
        ("GET", "keys?limit=1001", None, ["limit", "1000"]),
        ("GET", "entries?limit=many", None, ["limit", "many"]),
    ],
)  # fmt: skip
def test_a_fault_says_what_is_wrong_and_where_and_nothing_is_changed(
    office: Served, method: str, path: str, body: Any, said: list[str]
) -> None:
    if "changed" in path:
        office.admin("POST", "keys", {"id": "changed"})
    before = office.admin("GET", "audit?limit=1").json()
    answer = office.admin(method, path, body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_request"), answer.text
    assert all(part in error["message"] for part in said), error["message"]
    assert "pydantic" not in error["message"] and office.admin("GET", "audit?limit=1").json() == before


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "keys", b'{"expires_at": "0001-01-01T00:00:00+14:00"}'),
        ("POST", "keys", b'{"expires_at": "9999-12-31T23:59:59-14:00"}'),
        ("POST", "keys", b'{"limits": {"timeout_s": 1e999}}'),
        ("POST", "keys", b'{"name": "\\ud800"}'),
        ("POST", "keys", b'{"\\ud800": 1}'),
        ("POST", "keys", b'{"rate_limits": [{"execution_seconds": 1e999, "window": "1m"}]}'),
        ("POST", "keys/changed/rotate", b'{"overlap": "9999Y"}'),
        ("PUT", "rate-limits/r", b'{"execution_seconds": 1e999, "window": "1m"}'),
        ("PUT", "rate-limits/r", b'{"requests": 1000000000000000000000000000000, "window": "1m"}'),
        ("PUT", "budgets/b", b'{"limit_usd": 1e999}'),
        ("PUT", "budgets/b", b'{"limit_usd": "NaN"}'),
        ("PUT", "budgets/b", b'{"limit_usd": 1, "group": "\\ud800"}'),
        ("PUT", "budgets/b", b'{"limit_usd": 1, "when": {"team": ["\\ud800"]}}'),
        ("POST", "keys", b"[" * 5000),
        ("POST", "keys", b"\xff"),
        ("POST", "keys", b"{"),
        ("GET", "entries?limit=" + "1" * 5000, b""),
        ("GET", "audit?before=" + "1" * 5000, b""),
        ("GET", "usage?since=" + "9" * 5000 + "d", b""),
        ("GET", "usage?until=99999999Y", b""),
    ],
)
def test_what_no_store_or_calendar_can_hold_is_refused_and_leaves_nothing_behind(
    office: Served, method: str, path: str, body: bytes
) -> None:
    office.admin("POST", "keys", {"id": "changed"})
    answer = office.http(**bearer(ADMIN)).request(method, f"/api/{path}", content=body)
    try:
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["code"] == "invalid_request"
        assert office.admin("GET", "keys").status_code == 200
        assert office.call("list_tools").ok
    finally:  # so that one failure causes no others
        for rule in ("rate-limits/r", "budgets/b"):
            office.admin("DELETE", rule)


def test_a_budget_of_a_period_longer_than_the_calendar_does_not_end_all_calls(office: Served) -> None:
    answer = office.admin("PUT", "budgets/ages", {"limit_usd": 1, "period": "9000Y", "calendar": True})
    try:
        assert answer.status_code == 400 or office.call("raw__add", {"a": 1, "b": 1}).ok
    finally:
        office.admin("DELETE", "budgets/ages")


def test_unknown_things_and_wrong_methods_are_distinguished(office: Served) -> None:
    for path in (
        "nothing",
        "keys/absent",
        "users/absent",
        "rate-limits/absent",
        "budgets/absent/standing",
        "keys/a/b/c",
    ):
        answer = office.admin("GET", path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), path
    assert office.admin("DELETE", "teams/absent").status_code == 404
    assert office.admin("POST", "keys/absent/rotate", {}).status_code == 404
    wrong = office.admin("PUT", "keys", {})
    assert wrong.status_code == 405 and "GET, POST" in wrong.json()["error"]["message"]
    assert wrong.headers["allow"] == "GET, POST"


def test_what_the_file_declares_is_shown_and_changed_only_there(office: Served) -> None:
    for method, path, body in (
        ("PATCH", "keys/plain", {"name": "x"}),
        ("DELETE", "keys/plain", None),
        ("POST", "keys/plain/rotate", {}),
        ("POST", "keys", {"id": "plain"}),
        ("PUT", "customers/fixed", {}),
        ("DELETE", "customers/fixed", None),
        ("PUT", "budgets/fixed", {"limit_usd": 1}),
    ):
        answer = office.admin(method, path, body)
        assert answer.status_code == 409 and "configuration file" in answer.json()["error"]["message"], (method, path)
    assert office.admin("GET", "keys/plain").json()["declared"] is True
    assert office.admin("GET", "customers").json()["customers"][0]["declared"] is True


def test_a_key_with_an_id_in_use_is_a_conflict_and_the_first_one_stays(office: Served) -> None:
    secret = office.new_key(id="first")
    assert office.admin("POST", "keys", {"id": "first"}).status_code == 409
    assert office.call("list_tools", key=secret).ok
    office.admin("DELETE", "keys/first")
    assert office.admin("POST", "keys", {"id": "first"}).status_code == 409  # the ledger knows it
    assert office.admin("POST", "keys/first/rotate", {}).status_code == 409


def test_a_key_is_changed_field_by_field_and_found_by_its_name(office: Served) -> None:
    made = office.admin(
        "POST", "keys", {"id": "field", "name": "by field", "user": "ada", "grants": {"tools": "raw.add"}}
    )
    assert made.status_code == 201 and made.json()["secret"].startswith("mg-") and len(made.json()["secret"]) > 40
    assert office.admin("PATCH", "keys/by%20field", {"enabled": False}).json()["state"] == "disabled"
    shown = office.admin("GET", "keys/by%20field").json()
    assert (shown["id"], shown["user"], shown["grants"]["tools"]) == ("field", "ada", ["raw.add"])
    assert shown["spec"]["enabled"] is False and "secret" not in shown["spec"]
    assert office.admin("PATCH", "keys/field", {"enabled": True, "user": None}).json()["user"] is None


def test_a_second_key_of_one_name_is_refused_with_both_named(office: Served) -> None:
    assert office.admin("POST", "keys", {"id": "name1", "name": "one name"}).status_code == 201
    refused = [office.admin("POST", "keys", {"id": "name2", "name": name}) for name in ("one name", "name1", "plain")]
    assert [answer.status_code for answer in refused] == [409, 409, 409]
    assert "there is already a key 'one name': name1" in refused[0].json()["error"]["message"]
    assert office.admin("POST", "keys", {"id": "name2", "name": "another"}).status_code == 201
    renamed = office.admin("PATCH", "keys/name2", {"name": "one name"})
    assert renamed.status_code == 409 and "'one name': name1" in renamed.json()["error"]["message"]
    assert office.admin("PATCH", "keys/name1", {"name": "one name", "user": "ada"}).status_code == 200, "its own"
    office.admin("DELETE", "keys/name1")
    assert office.admin("PATCH", "keys/name2", {"name": "one name"}).status_code == 200, "revoked keys keep no name"


def test_a_revoked_key_stays_revoked_whatever_is_changed_at_the_same_time(office: Served) -> None:
    clients = [office.http(**bearer(ADMIN)) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for number in range(20):
            id = f"raced{number}"
            office.new_key(id=id)
            rest = [
                pool.submit(clients[0].patch, f"/api/keys/{id}", json={"name": "x"}),
                pool.submit(clients[1].post, f"/api/keys/{id}/rotate", json={"overlap": "0"}),
                pool.submit(clients[2].patch, f"/api/keys/{id}", json={"name": "y"}),
            ]
            revoked = clients[3].delete(f"/api/keys/{id}")
            assert revoked.status_code == 200 and all(future.result().status_code < 500 for future in rest)
            assert office.admin("GET", f"keys/{id}").json()["state"] == "revoked", number


def test_keys_entries_and_audit_lines_come_page_by_page_and_none_twice(office: Served) -> None:
    made = {office.admin("POST", "keys", {"id": f"page{n}"}).json()["key"]["id"] for n in range(7)}
    seen: list[str] = []
    after = ""
    while page := [
        k["id"] for k in office.admin("GET", f"keys?limit=3&after={after}").json()["keys"] if not k["declared"]
    ]:
        seen += page
        after = page[-1]
        assert len(page) <= 3
    assert made <= set(seen) and len(set(seen)) == len(seen)
    for _ in range(5):
        office.call("raw__add", {"a": 1, "b": 1})
    for path, name in (("entries", "entries"), ("audit", "audit")):
        whole = [line["number"] for line in office.admin("GET", f"{path}?limit=1000").json()[name]]
        paged: list[int] = []
        before = 1 << 62
        while lines := office.admin("GET", f"{path}?limit=9&before={before}").json()[name]:
            assert len(lines) <= 9
            paged += [line["number"] for line in lines]
            before = paged[-1]
        assert paged == whole == sorted(whole, reverse=True) and len(whole) > 5


def test_usage_is_the_same_as_json_as_csv_and_on_the_command_line_by_every_dimension(office: Served) -> None:
    office.admin("PUT", "teams/search", {"customer": "acme"})
    office.admin("PUT", "users/eve", {"team": "search"})
    key = office.new_key(user="eve", name="evil")
    said = {"x-mcpgate-metadata": json.dumps({"project_id": "p,1", "env": 'a "b"'})}
    assert office.call("raw__add", {"a": 1, "b": 1}, key, said).ok
    assert office.run("raw.echo(text='x')", key, **said).ok
    assert not office.call("raw__fail", {"message": "no"}, key).ok
    assert office.call("list_tools", key=key).ok
    words = "hour day month kind key user team customer server tool provider model outcome cache".split()
    for by in [*words, "metadata.project_id", "key,tool,outcome", "user,metadata.env"]:
        as_json = office.usage(by, user="eve")
        text = office.admin("GET", f"usage?by={by}&where=user=eve&format=csv")
        assert text.headers["content-type"].startswith("text/csv")
        as_csv = list(csv.DictReader(io.StringIO(text.text, newline="")))
        plain = [{name: "" if value is None else str(value) for name, value in row.items()} for row in as_json]
        assert as_csv == plain and as_json, by
        assert sum(row["entries"] for row in as_json) == 5
        assert sum(float(row["cost_usd"]) for row in as_json) == pytest.approx(0.51), by
    for by in ("user,tool", "metadata.project_id"):
        arguments = ["usage", "--by", by, "--where", "user=eve", "-c", str(office.config)]
        done = mcpgate(*arguments, "--format", "json", env=office.environment)
        assert json.loads(done.stdout) == office.usage(by, user="eve")
        done = mcpgate(*arguments, "--format", "csv", env=office.environment)
        over_http = office.admin("GET", f"usage?by={by}&where=user=eve&format=csv").text
        assert done.stdout.splitlines() == over_http.splitlines()
    assert {row["team"]: row["customer"] for row in office.usage("team,customer", user="eve")} == {"search": "acme"}
    assert [row["cost_usd"] for row in office.usage("metadata.project_id", **{"metadata.env": 'a "b"'})] == ["0.51"]


def test_every_change_has_its_line_in_the_audit_trail_with_its_actor_and_no_secret(office: Served) -> None:
    mark = office.admin("GET", "audit?limit=1").json()["audit"]
    since = mark[0]["number"] if mark else 0
    deputy = office.new_key(id="deputy", grants={"admin": True})
    secrets = [deputy, ADMIN]
    secrets.append(office.admin("POST", "keys", {"id": "audited"}, deputy).json()["secret"])
    office.admin("PATCH", "keys/audited", {"name": "seen"}, deputy)
    secrets.append(office.admin("POST", "keys/audited/rotate", {"overlap": "1h"}, deputy).json()["secret"])
    for kind, body in KINDS.items():
        for method in ("PUT", "PUT", "POST", "DELETE"):
            path = f"{kind}/audited" + ("/reset" if method == "POST" else "")
            answer = office.admin(method, path, {} if method == "POST" else body, deputy)
            assert answer.status_code in (200, 204), (method, path, answer.text)
    office.admin("POST", "keys/audited/reset", {"subject": None}, deputy)
    office.admin("DELETE", "keys/audited", None, deputy)
    done = mcpgate("keys", "revoke", "deputy", "-c", str(office.config), env=office.environment)
    assert done.returncode == 0
    text = office.admin("GET", "audit?limit=1000").text
    lines = [line for line in json.loads(text)["audit"] if line["number"] > since][::-1]
    facts = [(line["actor"], line["action"], line["kind"], line["id"]) for line in lines]
    assert facts == [
        ("admin", "create", "key", "deputy"),
        ("deputy", "create", "key", "audited"),
        ("deputy", "change", "key", "audited"),
        ("deputy", "rotate", "key", "audited"),
        *(("deputy", action, kind, "audited") for kind in ("customer", "team", "user", "budget", "rate_limit")
          for action in ("create", "change", "reset", "delete")),
        ("deputy", "reset", "key", "audited"),
        ("deputy", "revoke", "key", "audited"),
        ("command line", "revoke", "key", "deputy"),
    ]  # fmt: skip
    assert lines[2]["value"]["spec"]["name"] == "seen" and lines[-1]["at"] > 1.7e9
    assert "digest" not in text and not any(secret in text for secret in secrets)


def test_standings_show_usage_and_reset_clears_it_for_one_subject_or_all(office: Served) -> None:
    office.admin("PUT", "budgets/each", {"limit_usd": 2, "per": "user", "when": {"tool": "echo"}})
    key = office.new_key(users=["u*"])
    for user, times in (("uma", 2), ("udo", 1)):
        for _ in range(times):
            assert office.call("raw__echo", {"text": "x"}, key, {"x-mcpgate-user": user}).ok

    def standings() -> dict[str, str]:
        found = office.admin("GET", "budgets/each/standing").json()["standings"]
        return {one["subject"]: one["spent"] for one in found if one["spent"] != "0"}

    assert standings() == {"uma": "1", "udo": "0.5"}
    assert office.admin("POST", "budgets/each/reset", {"subject": "uma"}).status_code == 204
    assert standings() == {"udo": "0.5"}
    office.admin("POST", "budgets/each/reset", {})
    assert standings() == {}
    office.admin("DELETE", "budgets/each")


def test_declarations_take_effect_and_go_while_the_gateway_runs(office: Served) -> None:
    key = office.new_key(user="ned")
    assert office.call("raw__add", {"a": 1, "b": 1}, key).ok
    office.admin("PUT", "users/ned", {"rate_limits": {"requests": 0, "window": "1h"}})
    assert office.call("raw__add", {"a": 1, "b": 1}, key).error["scope"] == "user ned"
    office.admin("DELETE", "users/ned")
    assert office.call("raw__add", {"a": 1, "b": 1}, key).ok


ODD: list[tuple[str, str, Any]] = [
    ("GET", "keys/%00", None),
    ("GET", "keys?after=%00", None),
    ("GET", "users/%00", None),
    ("GET", "usage?where=key=%00", None),
    ("GET", "usage?where=metadata.a=%00&by=metadata.b", None),
    ("GET", "usage?since=0001-01-01&until=9999-12-31&by=hour", None),
    ("GET", "entries?where=user=%00", None),
    ("POST", "keys", {"name": "a\0b"}),
    ("PUT", "budgets/nul", {"limit_usd": 1, "group": "a\0b"}),
    ("PUT", "budgets/nul", {"limit_usd": 1, "when": {"team": ["\0"]}}),
    ("POST", "budgets/nul/reset", {"subject": "a\0b"}),
    ("DELETE", "budgets/nul", None),
]


def test_on_postgres_odd_names_and_values_are_answered_and_never_a_fault(tmp_path: Path) -> None:
    """PostgreSQL cannot store NUL characters or lone surrogates, and raises errors."""
    with own_database() as url:
        config = write_config(tmp_path, {}, governance={"keys": TRUSTED}, storage={"url": url}, sandbox={"warm": 0})
        with serving(tmp_path, config) as served:
            for method, path, body in ODD:
                answer = served.admin(method, path, body)
                assert answer.status_code < 500, (method, path, answer.text)
            wait_until(lambda: served.call("list_tools").ok, 5)
