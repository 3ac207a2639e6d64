"""What requests say, kept only where the settings ask for it: whose, how masked, how long, found by its words."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import raw
from tests.flows.governed import ADMIN, Served, bearer, mcpgate, own_database, serving, wait_until, write_config
from tests.flows.test_request_log import ADA, ASK, BOB, got, listed, sections
from tests.model_provider import ModelProvider

RULES = {"when": [{"user": "ada"}], "mask": ["card-[0-9]+"], "max_kib": 4}
SECRET = "sk-abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, provider: ModelProvider
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("contents")
    telemetry = {"log_content": RULES}

    def run(**storage: Any) -> Iterator[Served]:
        config = write_config(folder, {"raw": raw(expose="both")}, **sections(provider, telemetry=telemetry, **storage))
        with serving(folder, config) as running:
            yield running

    if request.param == "sqlite":
        yield from run()
    else:
        with own_database() as url:
            yield from run(storage={"url": url})


def said(served: Served, id: str, key: str = ADMIN) -> list[dict[str, Any]]:
    answer = served.admin("GET", f"requests/{id}/content", key=key)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["contents"]
    return found


def test_code_its_calls_and_their_results_are_kept_with_secrets_and_patterns_masked(served: Served) -> None:
    code = f"x = raw.echo(text='zebra card-4711 {SECRET}')\nreturn x"
    id = served.run(code, key=ADA).headers["x-request-id"]
    execution, call = said(served, id)
    assert execution["sent"] == "x = raw.echo(text='zebra ******** ********')\nreturn x"
    assert execution["answered"].strip().endswith("********")
    assert json.loads(call["sent"]) == {"text": "zebra ******** ********"}
    assert "zebra" in call["answered"] and (call["server"], call["tool"]) == ("raw", "echo")
    everything = json.dumps([execution, call])
    assert "4711" not in everything and SECRET not in everything
    assert said(served, id, key=ADA) == [execution, call]
    assert served.admin("GET", f"requests/{id}/content", key=BOB).status_code == 404


def test_prompts_and_answers_are_kept_also_of_streams(served: Served) -> None:
    for more in ({}, {"stream": True}):
        body = {"model": "open/good", **ASK, **more}
        answer = served.clients[0].post("/v1/chat/completions", json=body, headers=bearer(ADA))
        assert answer.status_code == 200
        (chat,) = said(served, answer.headers["x-request-id"])
        assert json.loads(chat["sent"])["messages"] == ASK["messages"]
        spoken = chat["answered"] if more else json.loads(chat["answered"])["choices"][0]["message"]["content"]
        assert spoken.startswith("Hello"), spoken
        assert "data:" not in spoken


def test_nothing_is_kept_of_those_that_no_rule_names(served: Served) -> None:
    id = served.run("return raw.echo(text='secret plans')", key=BOB).headers["x-request-id"]
    assert said(served, id) == []
    assert listed(served, q="plans") == []


def test_long_texts_are_shortened_in_their_middle(served: Served) -> None:
    id = served.call("raw__echo", {"text": "begin " + "x y " * 9_000 + " end"}, ADA).headers["x-request-id"]
    (call,) = said(served, id)
    assert 3_000 < len(call["sent"].encode()) < 5_000
    assert "begin" in call["sent"] and "bytes left out" in call["sent"] and call["sent"].endswith('end"}')


def test_requests_are_found_by_the_words_of_what_belongs_to_them(served: Served) -> None:
    id = served.run("return raw.echo(text='Gnu and ' + 'Okapi')", key=ADA).headers["x-request-id"]
    said(served, id)  # now it is written
    assert [one["request_id"] for one in listed(served, q="okapi gnu")] == [id]
    assert [one["kind"] for one in listed(served, q='"okapi', nested="1")] == ["execution", "tool"]
    assert listed(served, q="okapi", where="user=bob") == []
    assert listed(served, q="okapi giraffe") == []
    assert listed(served, q="okapi OR giraffe") == []
    assert served.admin("GET", "requests?follow=1&q=x").status_code == 400


def test_contents_are_deleted_by_administrators_and_the_request_stays(served: Served) -> None:
    id = served.run("return raw.echo(text='quagga')", key=ADA).headers["x-request-id"]
    assert len(said(served, id)) == 2
    assert served.admin("DELETE", f"requests/{id}/content", key=ADA).status_code == 403
    assert served.admin("DELETE", f"requests/{id}/content").json()["deleted"] == 2
    assert said(served, id) == [] and listed(served, q="quagga") == []
    assert got(served, id)["child_count"] == 1


def test_the_command_shows_contents_and_finds_their_words(served: Served) -> None:
    id = served.run("return raw.echo(text='walrus')", key=ADA).headers["x-request-id"]
    options = ("-c", str(served.config))
    wait_until(lambda: "walrus" in mcpgate("log", id, "--content", *options, env=served.environment).stdout)
    assert "walrus" not in mcpgate("log", id, *options, env=served.environment).stdout
    assert id in mcpgate("log", "--text", "walrus", *options, env=served.environment).stdout


def test_nothing_is_kept_unless_the_settings_ask_for_it(tmp_path: Path, provider: ModelProvider) -> None:
    config = write_config(tmp_path, {"raw": raw(expose="both")}, **sections(provider))
    with serving(tmp_path, config) as served:
        id = served.run("return raw.echo(text='tapir')", key=ADA).headers["x-request-id"]
        assert said(served, id) == []
        served.edit(telemetry={"log_content": True})
        id = served.run("return raw.echo(text='tapir')", key=ADA).headers["x-request-id"]
        assert len(said(served, id)) == 2
        served.edit(telemetry={"log_content": False})
        id = served.run("return raw.echo(text='tapir')", key=ADA).headers["x-request-id"]
        assert said(served, id) == []
