"""Identity: keys at every entry point, and what belongs to one key."""

import datetime
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.stdio import stdio_client

from tests.conftest import RAW_SERVER, raw, serve_command
from tests.flows.clients import BOTH_ERAS, client_of, text_of
from tests.flows.governed import (
    ADMIN,
    HELD,
    TRUSTED,
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


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/mcp"), ("GET", "/mcp"), ("DELETE", "/mcp"), ("GET", "/sse"), ("POST", "/messages?session_id=x"),
     ("GET", "/api/keys"), ("POST", "/api/keys"), ("GET", "/api/nothing")],
)  # fmt: skip
def test_no_door_opens_without_a_key_or_with_a_wrong_one(house: Served, method: str, path: str) -> None:
    for headers, code in (
        ({}, "missing_key"),
        (bearer("mg-wrong"), "invalid_key"),
        ({"x-api-key": "mg-wrong"}, "invalid_key"),
        (bearer("sk-of-another-company"), "invalid_key"),
        ({"authorization": f"Basic {ADMIN}"}, "invalid_key"),
        (bearer(f"{ADMIN}x"), "invalid_key"),
        (bearer(ADMIN[:-1]), "invalid_key"),
    ):
        answer = house.http().request(method, path, json=call_of("list_tools"), headers=headers)
        assert (answer.status_code, code_of(answer)) == (401, code), (headers, answer.text)
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_without_a_key_health_is_visible_but_no_names(house: Served) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/api/openapi.json", "/", "/api", "/nothing"):
        answer = house.http().get(path)
        assert answer.status_code in (200, 404), path
        told = answer.text + str(answer.headers)
        assert not any(name in told for name in ("alpha", "beta", "gamma", "acme", "raw_server")), (path, told)
    assert house.http().get("/readyz").json()["ready"] is True


@BOTH_ERAS
@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
@pytest.mark.anyio
async def test_a_good_key_is_taken_in_either_header_and_era(house: Served, mode: str, header: str) -> None:
    headers = bearer(HELD["all"]) if header == "authorization" else {header: HELD["all"]}
    async with client_of(house.address, mode, headers) as client:
        assert text_of(await client.call_tool("execute_code", {"code": "alpha.add(a=40, b=2)['sum']"})) == "42"
        assert text_of(await client.call_tool("alpha__echo", {"text": "direct"})) == "direct"


@pytest.mark.anyio
async def test_the_sse_transport_takes_keys_too(house: Served) -> None:
    async with client_of(house.address, "legacy", bearer(HELD["some"]), sse=True) as client:
        assert "alpha.add" not in text_of(await client.call_tool("list_tools", {"query": "add"}))
        refused = await client.call_tool("gamma__add", {"a": 1, "b": 2})
        assert refused.is_error and "not granted" in text_of(refused)


def test_a_key_that_is_disabled_expired_or_elsewhere_is_refused_and_says_why(house: Served) -> None:
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    for spec, status, code, said in (
        ({"enabled": False}, 403, "not_allowed", "disabled"),
        ({"expires_at": past.isoformat()}, 401, "invalid_key", f"expired on {past:%Y-%m-%d}"),
        ({"allowed_ips": ["10.0.0.0/8", "2001:db8::/32"]}, 403, "not_allowed", "127.0.0.1"),
    ):
        answer = house.call("list_tools", key=house.new_key(**spec)).response
        assert (answer.status_code, code_of(answer)) == (status, code), answer.text
        assert said in answer.json()["error"]["message"]
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    good = house.new_key(expires_at=soon.isoformat(), allowed_ips=["10.0.0.0/8", "127.0.0.0/8"])
    assert house.call("list_tools", key=good).ok


def test_a_key_that_ends_ends_at_that_moment(house: Served) -> None:
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=1)
    key = house.new_key(expires_at=soon.isoformat())
    assert house.call("list_tools", key=key).ok
    wait_until(lambda: house.call("list_tools", key=key).response.status_code == 401, 5)
    assert datetime.datetime.now(datetime.UTC) >= soon


def test_a_revoked_key_is_refused_at_once_and_a_session_that_it_opened_is_closed_to_it(house: Served) -> None:
    key = house.new_key(id="short-lived")
    start = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}}
    session = house.clients[0].post("/mcp", json=start, headers=bearer(key)).headers["mcp-session-id"]
    inside = {"mcp-session-id": session}
    assert house.call("list_tools", key=key, headers=inside).ok
    assert house.admin("POST", "keys/short-lived/revoke").json()["state"] == "revoked"
    after = house.call("list_tools", key=key, headers=inside).response
    assert after.status_code == 401 and "revoked" in after.json()["error"]["message"]


def test_after_a_rotation_both_secrets_are_good_until_the_overlap_is_over(house: Served) -> None:
    old = house.new_key(id="rotated", budget={"limit_usd": 0.02})
    assert house.call("alpha__add", {"a": 1, "b": 1}, old).ok
    new = house.admin("POST", "keys/rotated/rotate", {"overlap": "1s"}).json()["secret"]
    assert new != old and house.call("list_tools", key=old).ok
    assert house.call("alpha__add", {"a": 1, "b": 1}, new).ok
    assert house.call("alpha__add", {"a": 1, "b": 1}, new).error["code"] == "budget_exceeded"  # still the same key
    wait_until(lambda: house.call("list_tools", key=old).response.status_code == 401, 5)
    assert house.call("list_tools", key=new).ok
    newest = house.admin("POST", "keys/rotated/rotate", {"overlap": "0"}).json()["secret"]
    assert house.call("list_tools", key=new).response.status_code == 401 and house.call("list_tools", key=newest).ok


def test_a_session_of_one_key_does_not_exist_for_another(house: Served) -> None:
    start = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}}
    id = house.clients[0].post("/mcp", json=start, headers=bearer(HELD["all"])).headers["mcp-session-id"]
    theirs = {**bearer(HELD["some"]), "mcp-session-id": id}
    http = house.http()
    assert http.post("/mcp", json=call_of("list_tools"), headers=theirs).status_code == 404
    assert http.post("/mcp", json={"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}},
                     headers=theirs).status_code == 404  # fmt: skip
    assert http.get("/mcp", headers={**theirs, "accept": "text/event-stream"}).status_code == 404
    assert http.delete("/mcp", headers=theirs).status_code == 404
    own = {**bearer(HELD["all"]), "mcp-session-id": id}
    assert http.post("/mcp", json=call_of("list_tools"), headers=own).status_code == 200
    with http.stream("GET", "/sse", headers=bearer(HELD["all"])) as stream:
        lines = stream.iter_lines()
        endpoint = next(line for line in lines if line.startswith("data:")).removeprefix("data: ")
        assert house.http().post(endpoint, json=call_of("list_tools"), headers=bearer(HELD["some"])).status_code == 404
        assert house.http().post(endpoint, json=call_of("list_tools"), headers=bearer(HELD["all"])).status_code == 202


def test_one_key_cannot_reach_the_variables_and_handles_of_another(house: Served) -> None:
    one, two = house.new_key(), house.new_key()
    assert house.run("mine = 'a secret of one'", one, "work").ok
    assert house.run("mine", one, "work").text == "a secret of one"
    assert "NameError" in house.run("mine", two, "work").text
    image = house.run("alpha.picture()", one)
    kept = house.run("['x' * 90_000]", one)
    assert 'load("r' in kept.text and image.ok
    handle = kept.text.rpartition('load("')[2].partition('"')[0]
    assert house.run(f"len(load('{handle}')[0])", one).text == "90000"
    stolen = house.run(f"load('{handle}')", two)
    assert not stolen.ok and "does not exist" in stolen.text and "xxx" not in stolen.text


def test_each_user_that_a_key_names_has_their_own_variables(house: Served) -> None:
    key = house.new_key()
    assert house.run("mine = 'of ada'", key, "work", **{"x-mcpgate-user": "ada"}).ok
    assert house.run("mine", key, "work", **{"x-mcpgate-user": "ada"}).text == "of ada"
    for others in ({"x-mcpgate-user": "bob"}, {}):
        assert "NameError" in house.run("mine", key, "work", **others).text


def test_a_user_cannot_be_named_so_that_another_keys_variables_are_reached(house: Served) -> None:
    """An owner composed of two names must not equal one composed of two other names."""
    victim, thief = house.new_key(id="crew ada"), house.new_key(id="crew")
    assert house.run("mine = 'of the key called crew ada'", victim, "work").ok
    assert "NameError" in house.run("mine", thief, "work", **{"x-mcpgate-user": "ada"}).text


def test_a_key_of_one_user_cannot_act_for_another(house: Served) -> None:
    key = house.new_key(user="bob")
    refused = house.call("list_tools", key=key, headers={"x-mcpgate-user": "ada"}).response
    assert refused.status_code == 403 and code_of(refused) == "not_allowed"
    assert house.call("list_tools", key=key, headers={"x-mcpgate-user": "bob"}).ok


@pytest.fixture(scope="module")
def open_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway on loopback with declared keys, none required."""
    folder = tmp_path_factory.mktemp("open")
    keys = {
        **TRUSTED,
        "few": {"secret": "own-words-for-a-key", "grants": {"tools": "raw.echo"}},
        "part": {"secret": "mg-a-part-of-remote", "grants": {"tools": ["remote.add"]}},
        "whole": {"secret": "mg-all-of-remote", "grants": {"servers": "remote"}},
    }
    program = "import runpy, sys; runpy.run_path(sys.argv[1])['server'].run('stdio')"
    remote = {"command": sys.executable, "args": ["-c", program, str(RAW_SERVER.with_name("sdk_server.py"))]}
    config = write_config(
        folder, {"raw": raw(expose="both"), "remote": remote}, governance={"keys": keys, "require_key": False}
    )
    with serving(folder, config) as served:
        yield served


def test_on_loopback_a_client_without_a_key_may_do_everything_whatever_it_sends(open_house: Served) -> None:
    for headers in ({}, bearer("sk-not-needed"), {"x-api-key": "dummy"}):
        answer = open_house.call("execute_code", {"code": "raw.add(a=1, b=2)['sum']"}, None, headers)
        assert answer.text == "3", headers
    assert open_house.admin("GET", "keys", key=None).status_code == 200
    assert open_house.usage("key")[0]["key"] == "local"


def test_on_loopback_a_key_still_has_its_own_rights_and_a_wrong_one_none(open_house: Served) -> None:
    wrong = open_house.call("list_tools", key="mg-wrong").response
    assert wrong.status_code == 401 and code_of(wrong) == "invalid_key"
    few = "own-words-for-a-key"  # declared keys need not have our format
    assert open_house.call("raw__echo", {"text": "x"}, few).ok
    assert open_house.call("raw__add", {"a": 1, "b": 2}, few).error["code"] == "not_allowed"
    assert open_house.admin("GET", "keys", key=few).status_code == 403


def test_resources_and_prompts_of_a_server_require_a_grant_of_all_its_tools(open_house: Served) -> None:
    for key, granted in (("mg-all-of-remote", True), ("mg-a-part-of-remote", False), ("own-words-for-a-key", False)):
        page = open_house.call("read_docs", {"topic": "remote"}, key)
        note = open_house.call("read_docs", {"topic": "remote note://one"}, key)
        greeting = open_house.call("read_docs", {"topic": "remote greet"}, key)
        assert ("note://one" in page.text, "greet" in page.text) == (granted, granted), page.text
        assert ("the text of the note" in note.text, note.ok) == (granted, granted), note.text
        assert ("Say hello." in greeting.text, greeting.ok) == (granted, granted), greeting.text


def test_an_edit_that_starts_to_require_keys_is_not_silently_ignored(open_house: Served) -> None:
    """The last test on this gateway, which is no longer open afterwards."""
    governance = {"keys": {**TRUSTED, "few": {"secret": "own-words-for-a-key"}}, "require_key": True}
    open_house.edit(governance=governance)
    refused = open_house.call("list_tools", key=None).response.status_code == 401
    assert refused or open_house.said("governance.require_key"), "keys are required now, and nothing happened"


def test_a_non_loopback_address_is_not_served_without_keys_and_the_remedy_is_named(tmp_path: Path) -> None:
    config = write_config(tmp_path, {})
    env = environment(tmp_path)
    done = mcpgate("serve", "--host", "0.0.0.0", "--port", "0", "-c", str(config), env=env)
    assert done.returncode == 2 and "mcpgate keys create" in done.stderr and "governance.keys" in done.stderr
    config = write_config(tmp_path, {}, governance={"require_key": False, "keys": TRUSTED})
    done = mcpgate("serve", "--host", "0.0.0.0", "--port", "0", "-c", str(config), env=env)
    assert done.returncode == 2 and "require_key: false" in done.stderr and "Traceback" not in done.stderr


def test_a_non_loopback_address_is_served_once_there_is_a_key_and_only_with_it(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"raw": raw()})
    made = mcpgate("keys", "create", "first", "--tools", "*", "--format", "json", "-c", str(config),
                   env=environment(tmp_path))  # fmt: skip
    secret = json.loads(made.stdout)["secret"]
    with serving(tmp_path, config, host="0.0.0.0") as served:
        assert served.call("list_tools", key=None).response.status_code == 401
        assert served.call("list_tools", key="sk-dummy").response.status_code == 401
        assert served.call("list_tools", key=secret, headers={"host": "gateway.example"}).ok


@BOTH_ERAS
@pytest.mark.anyio
async def test_over_stdio_the_key_of_the_environment_says_who_it_is(tmp_path: Path, mode: str) -> None:
    keys = {"few": {"secret": "mg-may-only-echo", "grants": {"tools": "raw.echo"}}}
    config = write_config(tmp_path, {"raw": raw()}, governance={"require_key": True, "keys": keys})
    command, *arguments = serve_command(config, "--stdio")
    env = environment(tmp_path, MCPGATE_KEY="mg-may-only-echo")
    server = StdioServerParameters(command=command, args=arguments, env=env)
    with (tmp_path / "stderr").open("w") as errlog:
        async with Client(stdio_client(server, errlog=errlog), mode=mode, cache=None) as client:
            listing = text_of(await client.call_tool("list_tools", {"server": "raw"}))
            assert "echo(text" in listing and "add(" not in listing
            assert text_of(await client.call_tool("execute_code", {"code": "raw.echo(text='hi')"})) == "hi"
            assert (await client.call_tool("execute_code", {"code": "raw['add'](a=1, b=2)"})).is_error


def test_over_stdio_a_missing_or_wrong_key_is_said_at_once(tmp_path: Path) -> None:
    config = write_config(tmp_path, {}, governance={"require_key": True, "keys": TRUSTED})
    env = {name: value for name, value in environment(tmp_path).items() if name != "MCPGATE_KEY"}
    missing = mcpgate("serve", "--stdio", "-c", str(config), env=env)
    assert missing.returncode == 2 and "MCPGATE_KEY" in missing.stderr
    wrong = mcpgate("serve", "--stdio", "-c", str(config), env={**env, "MCPGATE_KEY": "mg-not-one-of-ours"})
    assert wrong.returncode == 1 and "unknown API key" in wrong.stderr and "mg-not-one" not in wrong.stderr
