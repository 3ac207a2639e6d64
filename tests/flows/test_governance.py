"""Governance as its users meet it: keys, grants and money through the doors of real gateway processes."""

import asyncio
import datetime
import json
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import MCPError, StdioServerParameters
from mcp.client import Client
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from mcpgate.cli.serve_command import _listen
from tests.conftest import RAW_SERVER, raw, serve_command
from tests.flows.governed import (
    ADMIN,
    TRUSTED,
    Answer,
    Served,
    bearer,
    call_of,
    environment,
    hanging_call,
    mcpgate,
    own_database,
    serving,
    wait_until,
    write_config,
)
from tests.flows.test_faces import text_of
from tests.stores.conftest import REDIS, needs_server

BOTH_ERAS = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
PRICES = {"add": 0.01, "echo": 0.25, "hang": 0.5, "steps": 0.125, "fail": 0.0625, "meet": 0.01}
HELD = {"all": "mg-may-call-everything", "some": "mg-may-call-a-few-tools", "none": "mg-was-granted-nothing"}
GRANTED = ("alpha.echo", "alpha.was-cancelled", "beta.tool_1", "beta.grow")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One gateway that asks for keys; tests make the keys with the budgets they need."""
    folder = tmp_path_factory.mktemp("house")
    keys = {
        **TRUSTED,
        "all": {"secret": HELD["all"], "grants": {"tools": "*"}},
        "some": {"secret": HELD["some"], "grants": {"tools": list(GRANTED)}},
        "none": {"secret": HELD["none"]},
    }
    servers = {
        "alpha": raw(expose="both", prices=PRICES),
        "beta": raw("--tools", "3", expose="both"),
        "beta.private": raw("--tools", "3", expose="both"),
        "gamma": raw(expose="direct"),
    }
    customers = {"acme": {"budget": {"limit_usd": 0.5}}, "rich": {}}
    teams = {"search": {"customer": "acme", "budget": {"limit_usd": 0.4}}, "free": {"customer": "rich"}}
    users = {"ada": {"team": "search", "budget": {"limit_usd": 0.3}}, "bob": {"team": "free"}}
    rules = [
        {"id": "projects", "when": {"metadata.env": "dev"}, "per": "metadata.project_id", "limit_usd": 0.02},
        {"id": "soft", "when": {"metadata.kind": "soft"}, "limit_usd": 1, "soft_limit_usd": 0.015},
    ]
    governance = {
        "require_key": True,
        "keys": keys,
        "customers": customers,
        "teams": teams,
        "users": users,
        "budgets": rules,
        "hold_wait_s": 0.3,
    }
    config = write_config(folder, servers, governance=governance, code_mode={"index_tokens": 2000})
    with serving(folder, config) as served:
        yield served


@asynccontextmanager
async def client_of(address: str, mode: str, headers: dict[str, str], sse: bool = False) -> AsyncIterator[Client]:
    async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
        target = (
            sse_client(f"{address}/sse", headers=headers)
            if sse
            else streamable_http_client(f"{address}/mcp", http_client=http)
        )
        async with Client(target, mode=mode, cache=None) as client:
            yield client


# --- who


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
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, code), (headers, answer.text)
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_who_has_no_key_learns_of_health_and_no_names(house: Served) -> None:
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
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (status, code) and said in error["message"], answer.text
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
    assert house.call("alpha__add", {"a": 1, "b": 1}, new).error["code"] == "budget_exceeded"  # it is the same key
    wait_until(lambda: house.call("list_tools", key=old).response.status_code == 401, 5)
    assert house.call("list_tools", key=new).ok
    newest = house.admin("POST", "keys/rotated/rotate", {"overlap": "0"}).json()["secret"]
    assert house.call("list_tools", key=new).response.status_code == 401 and house.call("list_tools", key=newest).ok


def test_a_session_of_one_key_is_none_for_another(house: Served) -> None:
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


def test_variables_and_handles_of_one_key_are_out_of_reach_for_another(house: Served) -> None:
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


def test_each_user_that_a_key_names_has_variables_of_his_own(house: Served) -> None:
    key = house.new_key()
    assert house.run("mine = 'of ada'", key, "work", **{"x-mcpgate-user": "ada"}).ok
    assert house.run("mine", key, "work", **{"x-mcpgate-user": "ada"}).text == "of ada"
    for others in ({"x-mcpgate-user": "bob"}, {}):
        assert "NameError" in house.run("mine", key, "work", **others).text


def test_a_user_cannot_be_named_so_that_another_keys_variables_are_reached(house: Served) -> None:
    """An owner made of two names must not be two other names' owner too."""
    victim, thief = house.new_key(id="crew ada"), house.new_key(id="crew")
    assert house.run("mine = 'of the key called crew ada'", victim, "work").ok
    assert "NameError" in house.run("mine", thief, "work", **{"x-mcpgate-user": "ada"}).text


def test_a_key_of_one_user_cannot_act_for_another(house: Served) -> None:
    key = house.new_key(user="bob")
    refused = house.call("list_tools", key=key, headers={"x-mcpgate-user": "ada"}).response
    assert refused.status_code == 403 and refused.json()["error"]["code"] == "not_allowed"
    assert house.call("list_tools", key=key, headers={"x-mcpgate-user": "bob"}).ok


@pytest.fixture(scope="module")
def open_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway on loopback with keys declared and none required."""
    folder = tmp_path_factory.mktemp("open")
    keys = {
        **TRUSTED,
        "few": {"secret": "own-words-for-a-key", "grants": {"tools": "raw.echo"}},
        "part": {"secret": "mg-a-part-of-remote", "grants": {"tools": ["remote.add"]}},
        "whole": {"secret": "mg-all-of-remote", "grants": {"servers": "remote"}},
    }
    program = "import runpy, sys; runpy.run_path(sys.argv[1])['server'].run('stdio')"
    remote = {"command": sys.executable, "args": ["-c", program, str(RAW_SERVER.with_name("sdk_server.py"))]}
    config = write_config(folder, {"raw": raw(expose="both"), "remote": remote}, governance={"keys": keys})
    with serving(folder, config) as served:
        yield served


def test_on_loopback_who_has_no_key_may_do_everything_whatever_its_client_must_send(open_house: Served) -> None:
    for headers in ({}, bearer("sk-not-needed"), {"x-api-key": "dummy"}):
        answer = open_house.call("execute_code", {"code": "raw.add(a=1, b=2)['sum']"}, None, headers)
        assert answer.text == "3", headers
    assert open_house.admin("GET", "keys", key=None).status_code == 200
    assert open_house.usage("key")[0]["key"] == "local"


def test_on_loopback_a_key_still_has_its_own_rights_and_a_wrong_one_none(open_house: Served) -> None:
    wrong = open_house.call("list_tools", key="mg-wrong").response
    assert wrong.status_code == 401 and wrong.json()["error"]["code"] == "invalid_key"
    few = "own-words-for-a-key"  # declared keys need not look like ours
    assert open_house.call("raw__echo", {"text": "x"}, few).ok
    assert open_house.call("raw__add", {"a": 1, "b": 2}, few).error["code"] == "not_allowed"
    assert open_house.admin("GET", "keys", key=few).status_code == 403


def test_resources_and_prompts_of_a_server_are_for_who_may_call_all_of_it(open_house: Served) -> None:
    for key, granted in (("mg-all-of-remote", True), ("mg-a-part-of-remote", False), ("own-words-for-a-key", False)):
        page = open_house.call("read_docs", {"topic": "remote"}, key)
        note = open_house.call("read_docs", {"topic": "remote note://one"}, key)
        greeting = open_house.call("read_docs", {"topic": "remote greet"}, key)
        assert ("note://one" in page.text, "greet" in page.text) == (granted, granted), page.text
        assert ("the text of the note" in note.text, note.ok) == (granted, granted), note.text
        assert ("Say hello." in greeting.text, greeting.ok) == (granted, granted), greeting.text


def test_an_edit_that_begins_to_require_keys_is_not_passed_over_in_silence(open_house: Served) -> None:
    """The last of the tests on this gateway, for it is open no more afterwards."""
    governance = {"keys": {**TRUSTED, "few": {"secret": "own-words-for-a-key"}}, "require_key": True}
    open_house.edit(governance=governance)
    refused = open_house.call("list_tools", key=None).response.status_code == 401
    assert refused or open_house.said("governance.require_key"), "keys are required now, and nothing happened"


def test_another_address_is_not_served_without_keys_and_the_remedy_is_told(tmp_path: Path) -> None:
    config = write_config(tmp_path, {})
    env = environment(tmp_path)
    done = mcpgate("serve", "--host", "0.0.0.0", "--port", "0", "-c", str(config), env=env)
    assert done.returncode == 2 and "mcpgate keys create" in done.stderr and "governance.keys" in done.stderr
    config = write_config(tmp_path, {}, governance={"require_key": False, "keys": TRUSTED})
    done = mcpgate("serve", "--host", "0.0.0.0", "--port", "0", "-c", str(config), env=env)
    assert done.returncode == 2 and "require_key: false" in done.stderr and "Traceback" not in done.stderr


def test_another_address_is_served_once_there_is_a_key_and_only_with_it(tmp_path: Path) -> None:
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


def test_answers_on_an_open_connection_are_not_held_back() -> None:
    """asyncio turns Nagle's algorithm off only where a socket says that it is TCP; else each answer takes 40 ms more."""
    with _listen("127.0.0.1", 0, False) as listener:
        assert listener.proto == socket.IPPROTO_TCP


# --- what

HIDDEN = ("alpha.add", "alpha.fail", "alpha.rows", "beta.tool_0", "beta.tool_2", "gamma")
"""Some of what the key `some` was not granted."""
UNMISTAKABLE = re.compile(r"\b(?:garbled|wordy|liar|broken_json|picture|tool_0|tool_2)\b|\b(?:add|rows|fail)\(")
"""Bare names of theirs, where no word of a sentence can be meant."""


def names_hidden_things(text: str) -> list[str]:
    flat = text.replace("__", ".").replace("-", "_")
    return [name for name in (*HIDDEN, "private") if name in flat] + UNMISTAKABLE.findall(flat)


@BOTH_ERAS
@pytest.mark.anyio
async def test_what_is_not_granted_is_in_no_list(house: Served, mode: str) -> None:
    async with client_of(house.address, mode, bearer(HELD["some"])) as client:
        tools = (await client.list_tools()).tools
        assert sorted(tool.name for tool in tools) == sorted(
            ["list_tools", "describe_tools", "read_docs", "execute_code",
             "alpha__echo", "alpha__was-cancelled", "beta__tool_1", "beta__grow"]
        )  # fmt: skip
        shown = json.dumps([tool.model_dump() for tool in tools])
        assert "alpha" in shown and not names_hidden_things(shown)
        for name, arguments in (
            ("list_tools", {}),
            ("list_tools", {"query": "add two numbers"}),
            ("list_tools", {"query": "tool number 2"}),
            ("list_tools", {"query": "records rows"}),
            ("list_tools", {"server": "alpha"}),
            ("list_tools", {"server": "alpha", "limit": 1000}),
            ("list_tools", {"server": "beta"}),
            ("describe_tools", {"names": ["alpha", "beta"]}),
            ("read_docs", {"topic": ""}),
            ("read_docs", {"topic": "alpha"}),
            ("read_docs", {"topic": "beta"}),
            ("read_docs", {"topic": "sandbox"}),
            ("execute_code", {"code": "sorted(n for n in globals() if n[:1] != '_') + dir(alpha) + dir(beta)"}),
            ("execute_code", {"code": "repr(alpha), repr(beta), str(vars(alpha))"}),
        ):
            text = text_of(await client.call_tool(name, arguments))
            assert text and not names_hidden_things(text), (name, arguments, text)
        counted = text_of(await client.call_tool("list_tools", {}))
        assert "alpha (2 tools)" in counted and "4 tools" in counted


def test_the_index_in_the_description_of_execute_code_names_only_what_is_granted(house: Served) -> None:
    index = {key: next(t["description"] for t in house.tools(HELD[key]) if t["name"] == "execute_code")
             for key in ("all", "some")}  # fmt: skip
    assert " Tools" in index["all"] and "rows" in index["all"] and "was_cancelled" in index["all"]
    assert " Tools" in index["some"] and "rows" not in index["some"] and "was_cancelled" in index["some"]
    assert not names_hidden_things(index["some"])


@pytest.mark.parametrize(
    "wrong",
    [
        "alpha.ad",
        "alpha.ads",
        "alpha.fal",
        "alpha.row",
        "beta.tool_",
        "beta.tool_22",
        "gama",
        "gamma2.add",
        "tool_",
        "ro",
    ],
)
def test_hints_in_errors_never_name_what_is_not_granted(house: Served, wrong: str) -> None:
    server, _, tool = wrong.partition(".")
    for answer in (
        house.call("describe_tools", {"names": [wrong]}, HELD["some"]),
        house.call("read_docs", {"topic": wrong}, HELD["some"]),
        house.call("list_tools", {"server": wrong}, HELD["some"]),
        house.call(wrong.replace(".", "__"), {}, HELD["some"]),
        house.run(f"{server}.{tool or 'xyzzy'}(a=1)", HELD["some"]),
        house.run(f"alpha['{tool or server}'](a=1)", HELD["some"]),
        house.run(f"getattr(alpha, '{tool or server}')(a=1)", HELD["some"]),
    ):
        error = answer.response.json().get("error") or answer.error
        rest = answer.text + json.dumps(error)
        for own in (wrong, wrong.replace(".", "__"), *((f"{server}.{tool}", server) if tool else ())):
            rest = rest.replace(own, "")  # what one says oneself may be said back
        assert answer.response.json().get("result", {"isError": True})["isError"] is not False
        assert not names_hidden_things(rest), rest


@pytest.mark.parametrize("name", ["alpha.add", "beta.tool_2", "gamma.add", "beta.private.tool_1"])
def test_what_is_not_granted_cannot_be_described_read_or_called(house: Served, name: str) -> None:
    server, _, tool = name.rpartition(".")
    ident = server.replace(".", "_")
    before = house.usage(server=server)[0]["tool_calls"]
    described = house.call("describe_tools", {"names": [name]}, HELD["some"])
    assert not described.ok and "def " not in described.text
    assert not house.call("describe_tools", {"names": [server]}, HELD["some"]).text.count(f"def {tool}(")
    page = house.call("read_docs", {"topic": name}, HELD["some"])
    assert not page.ok and "def " not in page.text
    direct = house.call(f"{server.replace('.', '_')}__{tool}", {"a": 1, "b": 2, "value": "x"}, HELD["some"])
    assert not direct.ok and direct.error["code"] == "not_allowed" and "not granted" in direct.text
    for code in (
        f"{ident}.{tool}(a=1, b=2)",
        f"await {ident}.{tool}(a=1, b=2)",
        f"{ident}['{tool}'](a=1, b=2)",
        f"getattr({ident}, '{tool}')(a=1, b=2)",
        f"globals()['{ident}'].{tool}(a=1, b=2)",
        f"type(alpha)('{server}').{tool}(a=1, b=2)",
        f"x = alpha\nfor n in list(vars(x)):\n    if vars(x)[n] == 'alpha': object.__setattr__(x, n, '{ident}')\nx.{tool}(a=1, b=2)",
        f"alpha['../{server}/{tool}'](a=1, b=2)",
        f"alpha['{name}'](a=1, b=2)",
        f"import builtins\n[v for k, v in list(builtins.__dict__.items()) if k == '{ident}'][0].{tool}(a=1, b=2)",
    ):
        answer = house.run(code, HELD["some"])
        assert not answer.ok and '"sum"' not in answer.text, (code, answer.text)
    assert house.usage(server=server)[0]["tool_calls"] == before


def test_in_the_sandbox_a_tool_that_is_not_granted_looks_as_if_there_were_none(house: Served) -> None:
    code = "try:\n    alpha['{}'](a=1, b=2)\nexcept AttributeError as e:\n    print(e)"
    hidden, absent = (house.run(code.format(name), HELD["some"]).text for name in ("add", "xyz"))
    assert hidden.replace("add", "xyz") == absent and "it has 2 tools" in absent


def test_a_grant_of_a_server_is_none_of_another_one_whose_name_begins_alike(house: Served) -> None:
    key = house.new_key(grants={"servers": ["beta"]})
    shown = [tool["name"] for tool in house.tools(key)]
    assert "beta__tool_1" in shown and "beta_private__tool_1" not in shown
    assert house.call("beta_private__tool_1", {"value": "x"}, key).error.get("code") == "not_allowed"


def test_a_key_without_grants_sees_and_does_nothing(house: Served) -> None:
    assert house.tools(HELD["none"]) == []
    for name, arguments in (("list_tools", {}), ("execute_code", {"code": "1"}), ("alpha__echo", {"text": "x"})):
        assert house.call(name, arguments, HELD["none"]).error["code"] == "not_allowed", name
    assert house.admin("GET", "keys", key=HELD["none"]).status_code == 403


def test_meta_tools_are_granted_one_by_one(house: Served) -> None:
    key = house.new_key(grants={"tools": ["alpha.echo"], "meta_tools": ["list_*"]})
    assert [tool["name"] for tool in house.tools(key)] == ["list_tools", "alpha__echo"]
    assert house.call("list_tools", {}, key).ok and house.call("alpha__echo", {"text": "x"}, key).ok
    for name, arguments in (
        ("execute_code", {"code": "1"}),
        ("describe_tools", {"names": ["alpha.echo"]}),
        ("read_docs", {"topic": ""}),
    ):
        refused = house.call(name, arguments, key)
        assert refused.error["code"] == "not_allowed" and name in refused.text


def test_a_grant_is_changed_while_the_gateway_runs_and_holds_from_the_next_request_on(house: Served) -> None:
    key = house.new_key(id="promoted", grants={"tools": ["alpha.echo"]})
    assert house.call("alpha__rows", {"number": 1}, key).error["code"] == "not_allowed"
    assert house.admin("PATCH", "keys/promoted", {"grants": {"tools": ["alpha.rows"]}}).status_code == 200
    assert house.call("alpha__rows", {"number": 1}, key).ok
    assert house.call("alpha__echo", {"text": "x"}, key).error["code"] == "not_allowed"
    assert "echo" not in json.dumps(house.tools(key))


# --- money


def test_every_ceiling_from_the_customer_down_to_the_key_must_pass_and_the_refusal_says_which(house: Served) -> None:
    """0.25 for each echo and 0.01 for each add: key 0.02 < user 0.3 < team 0.4 < customer 0.5."""
    key = house.new_key(id="of-ada", user="ada", budget={"limit_usd": 0.02})
    assert house.call("alpha__add", {"a": 1, "b": 1}, key).ok and house.call("alpha__add", {"a": 1, "b": 1}, key).ok
    second = house.new_key(user="ada")
    assert house.call("alpha__echo", {"text": "x"}, second).ok  # 0.27 of each but the first key's
    for refused_key, scope, budget, limit in (
        (key, "key of-ada", "key:of-ada", 0.02),
        (second, "user ada", "user:ada", 0.3),
        (house.new_key(team="search"), "team search", "team:search", 0.4),
        (house.new_key(customer="acme"), "customer acme", "customer:acme", 0.5),
    ):
        refused = house.call("alpha__echo", {"text": "x"}, refused_key)
        assert refused.error["code"] == "budget_exceeded", (scope, refused.text)
        assert (refused.error["scope"], refused.error["budget"]) == (scope, budget)
        assert (refused.error["limit_usd"], refused.error["spent_usd"]) == (limit, 0.02 if "key" in scope else 0.27)
        assert scope in refused.text and f"${limit}" in refused.text
    assert house.standing("customers/acme")["spent"] == house.cost(customer="acme") == "0.27"
    assert house.call("alpha__echo", {"text": "x"}, house.new_key(customer="rich")).ok


def test_a_refusal_for_money_says_all_and_asks_not_to_be_tried_again(house: Served) -> None:
    key = house.new_key(id="poor", budget={"limit_usd": 0.26, "period": "1d", "calendar": True})
    first = house.call("alpha__echo", {"text": "x"}, key)
    assert first.ok and first.headers["x-mcpgate-cost-usd"] == "0.25"
    refused = house.call("alpha__echo", {"text": "x"}, key)
    assert refused.response.status_code == 200 and not refused.ok
    tomorrow = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=1)
    assert refused.error == {
        "code": "budget_exceeded",
        "scope": "key poor",
        "budget": "key:poor",
        "window": "1d",
        "limit_usd": 0.26,
        "spent_usd": 0.25,
        "reserved_usd": 0.0,
        "resets_at": f"{tomorrow}T00:00:00Z",
    }
    assert refused.headers["x-should-retry"] == "false" and "retry-after" not in refused.headers
    assert "$0.25 is needed and $0.01 is left" in refused.text
    assert house.usage(key="poor")[0]["tool_calls"] == 1  # what was refused is not in the ledger
    assert house.standing("keys/poor") | {"resets_at": None} == {
        "id": "key:poor", "measure": "cost", "subject": None, "limit": "0.26", "spent": "0.25", "reserved": "0",
        "left": "0.01", "window": "1d", "resets_at": None,
    }  # fmt: skip


def test_in_the_sandbox_a_refusal_can_be_caught_and_what_went_before_it_is_paid(house: Served) -> None:
    key = house.new_key(id="coder", budget={"limit_usd": 0.05})
    code = """
done = 0
try:
    for _ in range(10):
        alpha.add(a=1, b=2)
        done += 1
except ToolError as e:
    print(done, e.data["code"], e.data["budget"], e.data["spent_usd"])
"""
    answer = house.run(code, key)
    assert answer.text == "5 budget_exceeded key:coder 0.05" and answer.ok
    assert answer.headers["x-mcpgate-cost-usd"] == "0.05"
    uncaught = house.run("alpha.add(a=1, b=2)", key)
    assert not uncaught.ok and "budget 'key:coder'" in uncaught.text and "Traceback" not in uncaught.text
    assert house.cost(key="coder") == "0.05"


def test_money_that_others_hold_is_waited_for_a_moment_and_then_429_says_when_to_come_again(house: Served) -> None:
    key = house.new_key(id="holder", budget={"limit_usd": 0.5})
    with hanging_call(house, key, "alpha__hang"):
        wait_until(lambda: house.standing("keys/holder")["reserved"] == "0.5")
        refused = house.call("alpha__echo", {"text": "x"}, key)
        assert refused.error["code"] == "rate_limited" and refused.error["reserved_usd"] == 0.5
        assert int(refused.headers["retry-after"]) >= 1 and int(refused.headers["retry-after-ms"]) > 0
        assert "x-should-retry" not in refused.headers and "held by calls under way" in refused.text


def test_a_client_that_hangs_up_in_the_middle_of_a_call_has_paid_for_it(house: Served) -> None:
    key = house.new_key(id="leaver", budget={"limit_usd": 1})
    with hanging_call(house, key, "alpha__hang"):
        wait_until(lambda: house.standing("keys/leaver")["reserved"] == "0.5")
    standing = wait_until(lambda: (s := house.standing("keys/leaver"))["reserved"] == "0" and s)
    assert (standing["spent"], standing["left"]) == ("0.5", "0.5")
    (row,) = house.usage("outcome", key="leaver")
    assert (row["outcome"], row["cost_usd"]) == ("cancelled", "0.5")


def test_in_the_handshake_era_a_call_goes_on_when_its_client_hangs_up_and_is_paid_at_its_end(house: Served) -> None:
    key = house.new_key(id="quitter", budget={"limit_usd": 1})
    with hanging_call(house, key, "alpha__meet", {"number": 2}, modern=False):
        wait_until(lambda: house.standing("keys/quitter")["reserved"] == "0.01")
    assert house.call("alpha__meet", {"number": 2}).text == "met"
    standing = wait_until(lambda: (s := house.standing("keys/quitter"))["reserved"] == "0" and s)
    assert standing["spent"] == house.cost(key="quitter") == "0.01"
    assert house.usage("outcome", key="quitter")[0]["outcome"] == "ok"


@BOTH_ERAS
@pytest.mark.anyio
async def test_a_call_that_is_cancelled_is_paid_and_holds_nothing_any_more(house: Served, mode: str) -> None:
    id = f"canceller-{mode}"
    key = house.new_key(id=id, budget={"limit_usd": 2})
    async with client_of(house.address, mode, bearer(key)) as client:
        with pytest.raises(MCPError):
            await client.call_tool("alpha__hang", {}, read_timeout_seconds=0.3)
        with pytest.raises(MCPError):
            await client.call_tool("execute_code", {"code": "alpha.hang()"}, read_timeout_seconds=1)
    standing = await asyncio.to_thread(
        wait_until, lambda: (s := house.standing(f"keys/{id}"))["reserved"] == "0" and s["spent"] == "1" and s
    )
    assert standing["left"] == "1"
    rows = {(row["kind"], row["outcome"]): row["cost_usd"] for row in house.usage("kind,outcome", key=id)}
    assert rows == {("tool", "cancelled"): "1", ("execution", "cancelled"): "0"}


def test_a_tool_that_fails_has_been_called_and_is_paid(house: Served) -> None:
    key = house.new_key(id="unlucky", budget={"limit_usd": 1})
    assert not house.call("alpha__fail", {"message": "no"}, key).ok
    assert not house.run("alpha.fail(message='no')", key).ok
    assert house.standing("keys/unlucky")["spent"] == "0.125"
    rows = {(row["kind"], row["outcome"]): row["cost_usd"] for row in house.usage("kind,outcome", key="unlucky")}
    assert rows == {("tool", "tool_error"): "0.125", ("execution", "code_failed"): "0"}


def test_wrong_arguments_are_refused_before_anything_is_spent(house: Served) -> None:
    key = house.new_key(id="careless", budget={"limit_usd": 1})
    assert not house.run("alpha.add(a=1)", key).ok
    assert not house.run("alpha.add(**{'a': 1, 'x': 2})", key).ok
    assert house.standing("keys/careless")["spent"] == "0" and house.usage(key="careless")[0]["tool_calls"] == 0


def test_a_price_that_is_not_known_is_shown_as_unpriced_and_not_as_free(house: Served) -> None:
    key = house.new_key(id="unpriced")
    assert house.call("beta__echo", {"text": "x"}, key).ok and house.call("alpha__echo", {"text": "x"}, key).ok
    (total,) = house.usage(key="unpriced")
    assert (total["tool_calls"], total["unpriced"], total["cost_usd"]) == (2, 1, "0.25")
    entries = house.admin("GET", "entries?where=key=unpriced,server=beta").json()["entries"]
    assert [entry["cost_usd"] for entry in entries] == [None]


@pytest.mark.parametrize("by_header", [False, True])
def test_a_budget_per_project_looks_at_the_metadata_of_each_request(house: Served, by_header: bool) -> None:
    key = house.new_key()
    project = f"p{by_header}"

    def said(**facts: str) -> dict[str, str]:
        if by_header:
            return {f"x-mcpgate-meta-{name.replace('_', '-')}": value for name, value in facts.items()}
        return {"x-mcpgate-metadata": json.dumps(facts)}

    for _ in range(2):
        assert house.call("alpha__add", {"a": 1, "b": 1}, key, said(project_id=project, env="dev")).ok
    refused = house.run("alpha.add(a=1, b=1)", key, **said(project_id=project, env="dev"))
    assert not refused.ok and f"budget 'projects' of project_id {project}" in refused.text
    assert house.call("alpha__add", {"a": 1, "b": 1}, key, said(project_id=f"{project}-other", env="dev")).ok
    assert house.call("alpha__add", {"a": 1, "b": 1}, key, said(project_id=project, env="live")).ok
    rows = house.usage("metadata.env", **{"metadata.project_id": project})
    assert {row["metadata.env"]: row["cost_usd"] for row in rows} == {"dev": "0.02", "live": "0.01"}


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"x-mcpgate-metadata": "env=dev"}, "must be a JSON object"),
        ({"x-mcpgate-metadata": "[1]"}, "must be a JSON object"),
        ({"x-mcpgate-metadata": '{"env": {"a": 1}}'}, "'env' must be text"),
        ({"x-mcpgate-metadata": '{"env": null}'}, "'env' must be text"),
        ({"x-mcpgate-metadata": '{"a b": "x"}'}, "'a b'"),
        ({"x-mcpgate-metadata": json.dumps({"env": "x" * 513})}, "longer than 512"),
        ({"x-mcpgate-metadata": json.dumps({f"n{i}": "x" for i in range(33)})}, "at most 32"),
        ({"x-mcpgate-meta-": "x"}, "metadata name ''"),
        ({"x-mcpgate-metadata": '{"env": "a\\u0000b"}'}, "control characters"),
        ({"x-mcpgate-metadata": '{"env": "\\ud800"}'}, "control characters"),
    ],
)
def test_metadata_that_cannot_be_read_is_400_and_says_what_is_wrong(
    house: Served, headers: dict[str, str], said: str
) -> None:
    answer = house.http().post("/mcp", json=call_of("list_tools"), headers={**bearer(HELD["all"]), **headers})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "invalid_request"
    assert said in answer.json()["error"]["message"]


def test_a_soft_limit_warns_in_the_answer_and_in_the_log_and_refuses_nothing(house: Served) -> None:
    key = house.new_key()
    kind = {"x-mcpgate-meta-kind": "soft"}
    assert "mcpgate/warnings" not in house.run("alpha.add(a=1, b=1)", key, **kind).meta
    warned = house.run("alpha.add(a=1, b=1)", key, **kind)
    (warning,) = warned.meta["mcpgate/warnings"]
    assert warned.ok and "$0.02 of its budget 'soft'" in warning and "soft limit of $0.015" in warning
    assert house.said("soft limit of $0.015")
    direct = house.call("alpha__add", {"a": 1, "b": 1}, key, kind)
    assert direct.ok and direct.meta.get("mcpgate/warnings"), "a direct call warns too"


def test_a_limit_on_requests_is_told_in_headers_and_429_says_when_to_come_again(house: Served) -> None:
    key = house.new_key(id="hasty", rate_limits=[{"requests": 2, "window": "1h"}, {"concurrency": 5}])
    first = house.run("[alpha.add(a=1, b=1) for _ in range(5)] and 'one request'", key)
    assert first.text == "one request"  # what code calls is not one more request
    assert first.headers["x-ratelimit-limit-requests"] == "2" and first.headers["x-ratelimit-remaining-requests"] == "1"
    assert first.headers["x-ratelimit-limit-concurrency"] == "5"
    assert first.headers["x-ratelimit-remaining-concurrency"] == "4"
    assert 3000 < float(first.headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 3661
    assert house.call("list_tools", key=key).headers["x-ratelimit-remaining-requests"] == "0"
    refused = house.call("alpha__add", {"a": 1, "b": 1}, key)
    error = refused.error
    assert (error["code"], error["scope"]) == ("rate_limited", "key hasty")
    assert error["rate_limit"].startswith("key:hasty")
    assert (error["measure"], error["limit"], error["window"]) == ("requests", 2, "1h")
    assert 3000 < int(refused.headers["retry-after"]) <= 3661
    assert 3_000_000 < int(refused.headers["retry-after-ms"]) <= 3_661_000
    assert house.cost(key="hasty") == "0.05"


def test_an_answer_that_is_streamed_tells_its_cost_in_its_last_event(house: Served) -> None:
    message = call_of("alpha__steps", {"number": 2}, _meta={"progressToken": "t"})
    accept = {**bearer(HELD["all"]), "accept": "application/json, text/event-stream"}
    answer = house.http().post("/mcp", json=message, headers=accept)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[5:]) for line in answer.text.splitlines() if line.startswith("data:")]
    assert "2 steps" in json.dumps(events[-1]) and "0.125" in json.dumps(events[-1])


def test_what_was_spent_is_not_forgotten_when_a_second_budget_is_added(house: Served) -> None:
    key = house.new_key(id="growing", budget={"limit_usd": 0.02})
    assert house.call("alpha__add", {"a": 1, "b": 1}, key).ok and house.call("alpha__add", {"a": 1, "b": 1}, key).ok
    assert house.call("alpha__add", {"a": 1, "b": 1}, key).error["code"] == "budget_exceeded"
    budgets = [{"limit_usd": 0.02}, {"limit_usd": 10, "period": "1d"}]
    assert house.admin("PATCH", "keys/growing", {"budget": budgets}).status_code == 200
    assert house.call("alpha__add", {"a": 1, "b": 1}, key).error.get("code") == "budget_exceeded"


def test_two_keys_never_share_a_budget_whatever_they_are_called(house: Served) -> None:
    two = [{"limit_usd": 0.01}, {"limit_usd": 1, "period": "1d"}]
    one, other = house.new_key(id="twin", budget=two), house.new_key(id="twin#1", budget={"limit_usd": 0.01})
    assert house.call("alpha__add", {"a": 1, "b": 1}, one).ok
    assert house.call("alpha__add", {"a": 1, "b": 1}, other).ok


def test_a_limit_that_is_changed_through_the_admin_api_holds_from_the_next_call_on(house: Served) -> None:
    key = house.new_key(id="raised", budget={"limit_usd": 0.01})
    assert house.call("alpha__add", {"a": 1, "b": 1}, key).ok
    assert house.call("alpha__add", {"a": 1, "b": 1}, key).error["code"] == "budget_exceeded"
    assert house.admin("PATCH", "keys/raised", {"budget": {"limit_usd": 0.02}}).status_code == 200
    assert house.call("alpha__add", {"a": 1, "b": 1}, key).ok
    assert house.call("alpha__add", {"a": 1, "b": 1}, key).error["code"] == "budget_exceeded"
    house.admin("POST", "keys/raised/reset", {})
    assert house.call("alpha__add", {"a": 1, "b": 1}, key).ok


# --- many at once, in several processes


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Four workers on one port, which share a file."""
    folder = tmp_path_factory.mktemp("crowd")
    governance = {"require_key": True, "keys": TRUSTED, "hold_wait_s": 5}
    config = write_config(
        folder, {"raw": raw(expose="both", prices=PRICES)}, governance=governance, sandbox={"warm": 0}
    )
    with serving(folder, config, workers=4) as served:
        yield served


def released_at_once(served: Served, key: str, messages: list[Any]) -> list[Answer]:
    """Every message on a connection of its own, all sent when all are connected."""

    async def main() -> list[Answer]:
        ready, go = 0, asyncio.Event()

        async def one(message: Any) -> Answer:
            nonlocal ready
            async with httpx2.AsyncClient(
                base_url=served.address, headers=bearer(key), timeout=60, verify=False
            ) as http:
                await http.get("/healthz")
                ready += 1
                if ready == len(messages):
                    go.set()
                await go.wait()
                return Answer(await http.post("/mcp", json=message))

        return await asyncio.gather(*map(one, messages))

    return asyncio.run(main())


def test_of_200_direct_calls_at_once_with_money_for_60_exactly_60_pass(crowd: Served) -> None:
    key = crowd.new_key(id="d60", budget={"limit_usd": 0.60})
    answers = released_at_once(crowd, key, [call_of("raw__add", {"a": i, "b": 1}) for i in range(200)])
    passed = [answer for answer in answers if answer.ok]
    assert len(passed) == 60
    assert {answer.error["code"] for answer in answers if not answer.ok} == {"budget_exceeded"}
    (row,) = crowd.usage(key="d60")
    assert (row["tool_calls"], row["cost_usd"], row["failed"]) == (60, "0.6", 0)
    standing = crowd.standing("keys/d60")
    assert (standing["spent"], standing["reserved"], standing["left"]) == ("0.6", "0", "0")


def test_of_200_calls_from_inside_executions_with_money_for_60_exactly_60_pass(crowd: Served) -> None:
    key = crowd.new_key(id="e60", budget={"limit_usd": 0.60})
    code = """
results = await asyncio.gather(*[raw.add(a=i, b=1) for i in range(10)], return_exceptions=True)
[sum(isinstance(r, dict) for r in results), sum(getattr(r, "data", None) is not None for r in results)]
"""
    answers = released_at_once(crowd, key, [call_of("execute_code", {"code": code})] * 20)
    counts = [json.loads(answer.text) for answer in answers]
    assert sum(passed for passed, _ in counts) == 60 and sum(refused for _, refused in counts) == 140
    rows = {row["kind"]: (row["entries"], row["cost_usd"]) for row in crowd.usage("kind", key="e60")}
    assert rows == {"tool": (60, "0.6"), "execution": (20, "0")}
    assert sum(float(answer.headers["x-mcpgate-cost-usd"]) for answer in answers) == pytest.approx(0.6)


def test_on_postgres_with_redis_too_exactly_as_many_pass_as_there_is_money_for(tmp_path: Path) -> None:
    needs_server("redis+postgres")
    with own_database() as url:
        governance = {"require_key": True, "keys": TRUSTED, "hold_wait_s": 5}
        config = write_config(
            tmp_path, {"raw": raw(expose="both", prices=PRICES)}, governance=governance, sandbox={"warm": 0},
            storage={"url": url, "counters": REDIS},
        )  # fmt: skip
        with serving(tmp_path, config, workers=2) as served:
            id = f"k{time.time_ns()}"  # what Redis counts is there for an hour
            key = served.new_key(id=id, budget={"limit_usd": 0.30, "period": "1h"})
            answers = released_at_once(served, key, [call_of("raw__add", {"a": i, "b": 1}) for i in range(100)])
            assert sum(answer.ok for answer in answers) == 30
            assert {answer.error["code"] for answer in answers if not answer.ok} == {"budget_exceeded"}
            (row,) = served.usage(key=id)
            assert (row["tool_calls"], row["cost_usd"]) == (30, "0.3")
            standing = served.standing(f"keys/{id}")
            assert (standing["spent"], standing["reserved"]) == ("0.3", "0")


def test_of_200_requests_at_once_with_a_limit_of_60_exactly_60_pass(crowd: Served) -> None:
    key = crowd.new_key(id="r60", rate_limits=[{"requests": 60, "window": "1h"}])
    answers = released_at_once(crowd, key, [call_of("list_tools")] * 200)
    assert sum(answer.ok for answer in answers) == 60
    assert {answer.error["code"] for answer in answers if not answer.ok} == {"rate_limited"}
    assert crowd.usage(key="r60")[0]["requests"] == 60


def test_of_40_calls_at_once_at_most_7_are_under_way(crowd: Served) -> None:
    """Those that are let in wait in the upstream until it is clear that no more of them come."""
    key = crowd.new_key(id="c7", rate_limits=[{"concurrency": 7}])
    with ThreadPoolExecutor(1) as pool:
        messages = [call_of("raw__hang") for _ in range(40)]
        done = pool.submit(lambda: released_until_refused(crowd, key, messages, expected=33))
        codes = done.result(60)
    assert codes == ["rate_limited"] * 33


def released_until_refused(served: Served, key: str, messages: list[Any], expected: int) -> list[str]:
    """Codes of the refusals; what is let in never answers and is left when there are as many as expected."""

    async def main() -> list[str]:
        codes: list[str] = []
        enough = asyncio.Event()

        async def one(message: Any) -> None:
            async with httpx2.AsyncClient(
                base_url=served.address, headers=bearer(key), timeout=60, verify=False
            ) as http:
                await http.get("/healthz")
                codes.append(Answer(await http.post("/mcp", json=message)).error["code"])
                if len(codes) == expected:
                    enough.set()

        tasks = [asyncio.create_task(one(message)) for message in messages]
        async with asyncio.timeout(30):
            await enough.wait()
        held = await asyncio.to_thread(served.standing, "keys/c7")
        assert held["reserved"] == 7
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return codes

    return asyncio.run(main())


def test_a_key_revoked_through_one_worker_or_the_command_line_is_refused_by_all_at_once(crowd: Served) -> None:
    for revoke in ("api", "cli"):
        id = f"gone-{revoke}"
        key = crowd.new_key(id=id)
        clients = [crowd.http(**bearer(key)) for _ in range(16)]  # connections to, very probably, each of the workers
        assert all(http.post("/mcp", json=call_of("list_tools")).status_code == 200 for http in clients)
        if revoke == "api":
            crowd.admin("DELETE", f"keys/{id}")
        else:
            done = mcpgate("keys", "revoke", id, "-c", str(crowd.config), env=crowd.environment)
            assert done.returncode == 0, done.stderr
        assert [http.post("/mcp", json=call_of("list_tools")).status_code for http in clients] == [401] * 16


def test_a_budget_declared_through_one_worker_soon_holds_in_all(crowd: Served) -> None:
    key = crowd.new_key(id="common", team="new-team")
    assert crowd.admin("PUT", "teams/new-team", {"budget": {"limit_usd": 0}}).status_code == 200
    clients = [crowd.http(**bearer(key)) for _ in range(12)]
    wait_until(
        lambda: all(
            Answer(http.post("/mcp", json=call_of("raw__add", {"a": 1, "b": 1}))).error.get("code") == "budget_exceeded"
            for http in clients
        ),
        10,
    )


# --- ends and edits


def test_a_gateway_that_is_stopped_settles_what_is_under_way_and_one_started_again_remembers(tmp_path: Path) -> None:
    keys = {**TRUSTED, "ci": {"secret": "mg-continuous", "grants": {"tools": "*"}, "budget": {"limit_usd": 0.76}}}
    methods = tmp_path / "methods"
    config = write_config(
        tmp_path, {"raw": raw("--log", str(methods), expose="both", prices=PRICES)}, governance={"keys": keys},
        sandbox={"warm": 0},
    )  # fmt: skip
    with serving(tmp_path, config) as served, ThreadPoolExecutor(1) as pool:
        assert served.call("raw__echo", {"text": "x"}, "mg-continuous").ok
        under_way = pool.submit(served.http(**bearer("mg-continuous")).post, "/mcp", json=call_of("raw__hang"))
        wait_until(lambda: methods.read_text().count("tools/call") == 2)
        served.stop(signal.SIGTERM)
        answer = under_way.result(20)
        assert answer.status_code == 503 and answer.json()["error"]["data"]["code"] == "unavailable"
    with serving(tmp_path, config) as served:
        standing = served.standing("keys/ci")
        assert (standing["spent"], standing["reserved"]) == ("0.75", "0")
        assert served.cost(key="ci") == "0.75"
        assert served.call("raw__echo", {"text": "x"}, "mg-continuous").error["code"] == "budget_exceeded"
        assert served.call("raw__add", {"a": 1, "b": 1}, "mg-continuous").ok


def test_what_a_killed_gateway_held_is_free_after_the_lease_and_what_it_spent_stays_spent(tmp_path: Path) -> None:
    keys = {**TRUSTED, "ci": {"secret": "mg-continuous", "grants": {"tools": "*"}, "budget": {"limit_usd": 0.76}}}
    config = write_config(
        tmp_path, {"raw": raw(expose="both", prices=PRICES)}, governance={"keys": keys, "lease_s": 1},
        sandbox={"warm": 0},
    )  # fmt: skip
    with serving(tmp_path, config) as first, ThreadPoolExecutor(1) as pool:
        assert first.call("raw__echo", {"text": "x"}, "mg-continuous").ok
        under_way = pool.submit(first.http(**bearer("mg-continuous")).post, "/mcp", json=call_of("raw__hang"))
        wait_until(lambda: first.standing("keys/ci")["reserved"] == "0.5")
        first.process.kill()
        assert under_way.exception(20) is not None
    with serving(tmp_path, config) as second:
        wait_until(lambda: second.standing("keys/ci")["reserved"] == "0", 5)
        assert second.standing("keys/ci")["spent"] == second.cost(key="ci") == "0.25"
        assert second.call("raw__echo", {"text": "x"}, "mg-continuous").ok
        assert second.call("raw__echo", {"text": "x"}, "mg-continuous").ok
        assert second.call("raw__echo", {"text": "x"}, "mg-continuous").error["code"] == "budget_exceeded"


def test_an_answer_that_was_given_is_in_the_ledger_although_the_gateway_is_killed_right_after(tmp_path: Path) -> None:
    config = write_config(
        tmp_path, {"raw": raw(expose="both", prices=PRICES)}, governance={"keys": TRUSTED}, sandbox={"warm": 0}
    )
    with serving(tmp_path, config) as served:
        for _ in range(3):
            assert served.call("raw__add", {"a": 1, "b": 1}).ok
        served.process.kill()
    done = mcpgate("usage", "--by", "key,tool", "--where", "server=raw", "--format", "json", "-c", str(config),
                   env=environment(tmp_path))  # fmt: skip
    (row,) = json.loads(done.stdout)
    assert (row["key"], row["tool"], row["tool_calls"], row["cost_usd"]) == ("admin", "add", 3, "0.03")


def test_an_edit_of_the_file_changes_limits_and_requirements_without_dropping_a_call(tmp_path: Path) -> None:
    secret = "mg-edited-while-running"
    spec = {"secret": secret, "grants": {"tools": "*"}, "budget": {"limit_usd": 0.02}}
    config = write_config(
        tmp_path, {"raw": raw(expose="both", prices=PRICES)}, governance={"keys": {**TRUSTED, "ci": spec}},
        sandbox={"warm": 0},
    )  # fmt: skip
    with serving(tmp_path, config) as served, ThreadPoolExecutor(2) as pool:

        def add() -> Answer:
            return served.call("raw__add", {"a": 1, "b": 1}, secret)

        meeting = [
            pool.submit(served.http(**bearer(secret)).post, "/mcp", json=call_of("raw__meet", {"number": 2}))
        ]  # 0.01 of it
        wait_until(lambda: served.standing("keys/ci")["reserved"] == "0.01")
        assert add().ok and add().error["code"] in ("budget_exceeded", "rate_limited")
        served.edit(governance={"keys": {**TRUSTED, "ci": {**spec, "budget": {"limit_usd": 0.04}}}})
        meeting.append(
            pool.submit(served.http(**bearer(secret)).post, "/mcp", json=call_of("raw__meet", {"number": 2}))
        )
        assert [Answer(met.result(20)).text for met in meeting] == ["met", "met"]
        assert add().ok and add().error["code"] == "budget_exceeded"
        assert served.standing("keys/ci")["spent"] == served.cost(key="ci") == "0.04"
        served.edit(governance={"keys": {**TRUSTED, "ci": {**spec, "budget": []}}, "required_metadata": ["project_id"]})
        missing = served.call("raw__add", {"a": 1, "b": 1}, secret).response
        assert missing.status_code == 400 and "project_id" in missing.json()["error"]["message"]
        named = served.call("raw__add", {"a": 1, "b": 1}, secret, {"x-mcpgate-meta-project-id": "p1"})
        assert named.ok
        served.edit(governance={"keys": TRUSTED})
        assert served.call("list_tools", key=secret).response.status_code == 401
