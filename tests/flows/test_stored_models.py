"""What OpenAI keeps, through the gateway: responses and files, each only for the key that made it, and only where it
is."""

import asyncio
import contextlib
import json
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import yaml
from websockets.asyncio.client import connect

from tests.flows.governed import TRUSTED, Served, bearer, own_database, serving, wait_until, write_config
from tests.model_provider import WORDS, ModelProvider, model_provider

SAID = "".join(WORDS)
ANN, BOB, ALIASED = "mg-key-of-ann", "mg-key-of-bob", "mg-key-aliased"


@pytest.fixture(scope="module")
def other() -> Iterator[ModelProvider]:
    with model_provider() as running:
        yield running


def settings(provider: ModelProvider, other: ModelProvider) -> dict[str, Any]:
    two_keys = [{"api_key": "sk-first-project"}, {"api_key": "sk-second-project"}]
    providers = {
        "claude": {"type": "anthropic", "base_url": provider.address, "api_key": "sk-ant"},
        "open": {"type": "openai", "base_url": provider.address, "keys": two_keys},
        "other": {"type": "openai", "base_url": other.address, "api_key": "sk-of-the-other"},
        "echo": {"type": "echo"},
    }
    drawn = [{"target": "open/good", "weight": 1}, {"target": "other/good", "weight": 1}]
    models = {
        "mix": {"strategy": "weight", "targets": drawn},
        "fast": {"targets": [{"target": "open/good"}]},
        "translated": {"targets": [{"target": "claude/good"}]},
    }
    keys = {
        "admin": {**TRUSTED["admin"], "grants": {"admin": True, "models": ["*"]}},
        "ann": {"secret": ANN, "grants": {"models": ["*"]}},
        "bob": {"secret": BOB, "grants": {"models": ["*"]}},
        "aliased": {"secret": ALIASED, "grants": {"models": ["fast", "mix"]}},
    }
    prices = {"*/*": {"input_usd_per_mtok": 2, "output_usd_per_mtok": 10}}
    return {"governance": {"keys": keys}, "llm": {"providers": providers, "models": models, "prices": prices}}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, provider: ModelProvider, other: ModelProvider) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("stored")
    with serving(folder, write_config(folder, {}, **settings(provider, other))) as running:
        yield running


def client(served: Served, key: str = ANN) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.address}/v1", api_key=key, max_retries=0, http_client=served.http())


# --- Responses


@pytest.mark.parametrize("stream", [False, True])
def test_openais_sdk_sees_cancels_and_deletes_a_response(stream: bool, served: Served, provider: ModelProvider) -> None:
    ann = client(served)
    if stream:
        with ann.responses.stream(model="fast", input="Say hello.") as events:
            assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == SAID
            made = events.get_final_response().id
    else:
        made = ann.responses.create(model="fast", input="Say hello.").id
    seen = ann.responses.retrieve(made, include=["message.output_text.logprobs"])
    assert seen.output_text == SAID and provider.kept.asked[-1][2].endswith(
        "?include%5B%5D=message.output_text.logprobs"
    )
    items = ann.responses.input_items.list(made, limit=7, order="asc")
    assert "Say hello." in str(items.data) and provider.kept.asked[-1][2].endswith("limit=7&order=asc")
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        ann.responses.cancel(made)
    ann.responses.delete(made)
    with pytest.raises(openai.NotFoundError, match="only responses that this key was given"):
        ann.responses.retrieve(made)


def test_a_response_comes_byte_for_byte(served: Served, provider: ModelProvider) -> None:
    made = client(served).responses.create(model="fast", input="hi").id
    answer = served.http().get(f"/v1/responses/{made}", headers=bearer(ANN))
    (kept,) = [one for (_, id), one in provider.kept.responses.items() if id == made]
    assert answer.content == json.dumps(kept).encode()
    assert answer.headers["x-mcpgate-provider"] == "open" and answer.headers["x-mcpgate-cost-usd"] == "0"


def test_two_keys_of_one_provider_stick(served: Served, provider: ModelProvider) -> None:
    ann, projects = client(served), set()
    for number in range(12):
        made = ann.responses.create(model="fast", input="hi")
        assert ann.responses.retrieve(made.id).id == made.id
        more = ann.responses.create(model="fast", input="more", previous_response_id=made.id)
        assert more.previous_response_id == made.id
        projects |= {project for project, id in provider.kept.responses if id in (made.id, more.id)}
        assert len({p for p, id in provider.kept.responses if id in (made.id, more.id)}) == 1, number
    assert len(projects) == 2, "both keys were drawn"


def test_a_previous_response_goes_to_the_target_that_made_it(
    served: Served, provider: ModelProvider, other: ModelProvider
) -> None:
    ann, made_at = client(served, ALIASED), set()
    for _ in range(12):
        first = ann.responses.create(model="mix", input="hi")
        again = ann.responses.create(model="mix", input="more", previous_response_id=first.id)
        with ann.responses.stream(model="mix", input="more", previous_response_id=again.id) as events:
            last = events.get_final_response()
        homes = [{id for _, id in place.kept.responses} & {first.id, again.id, last.id} for place in (provider, other)]
        assert sorted(map(len, homes)) == [0, 3]
        made_at.add(len(homes[0]))
    assert made_at == {0, 3}, "both were drawn"


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")]
)
def test_another_key_hears_the_same_of_a_response_as_of_none(
    method: str, path: str, served: Served, provider: ModelProvider
) -> None:
    made = client(served).responses.create(model="fast", input="secret").id
    provider.kept.asked.clear()
    answers = [
        served.http().request(method, f"/v1/responses/{id}{path}", headers=bearer(BOB)) for id in (made, "resp_none")
    ]
    assert [answer.status_code for answer in answers] == [404, 404] and not provider.kept.asked
    assert answers[0].text.replace(made, "resp_none") == answers[1].text
    with pytest.raises(openai.NotFoundError) as refused:
        client(served, BOB).responses.create(model="fast", input="go on", previous_response_id=made)
    assert refused.value.code == "previous_response_not_found" and refused.value.param == "previous_response_id"
    assert client(served).responses.retrieve(made).id == made


@pytest.mark.parametrize(
    "sneaked",
    [
        '"previous_response_id": "%s", "previous_response_id": null',
        '"previous_response_id": null, "previous_response_id": "%s"',
        '"previous_respons\\u0065_id": "%s"',
        '"previous\\u005fresponse_id": "%s", "previous_response_id": null',
        '"Previous_Response_ID": "%s"',
        '"conversation": "%s"',
        '"conversation": {"id": "%s"}',
    ],
)
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/responses/input_tokens", "/v1/responses/compact"])
def test_no_spelling_reaches_anothers_response(
    sneaked: str, path: str, served: Served, provider: ModelProvider
) -> None:
    made = client(served).responses.create(model="fast", input="secret").id
    provider.received.clear()
    body = f'{{"model": "fast", "input": "go on", {sneaked % made}}}'
    answer = served.http().post(path, content=body, headers={**bearer(BOB), "content-type": "application/json"})
    assert answer.status_code in (200, 400, 404)
    assert all(made.encode() not in request.raw for request in provider.received), "what the provider reads"
    assert (answer.status_code == 200) == sneaked.endswith("null"), answer.text


def test_naming_ones_own_response_like_anothers_gets_nothing(served: Served) -> None:
    """Some providers let clients choose the ids of their responses."""
    made = (
        client(served).responses.create(model="other/good", input="secret", extra_body={"request_id": "resp_mine"}).id
    )
    assert made == "resp_mine"
    client(served, BOB).responses.create(model="other/good", input="x", extra_body={"request_id": made})
    with pytest.raises(openai.NotFoundError):
        client(served, BOB).responses.retrieve(made)


def test_what_is_not_stored_is_not_known(served: Served) -> None:
    ann = client(served)
    unstored = ann.responses.create(model="fast", input="hi", store=False).id
    translated = ann.responses.create(model="translated", input="hi").id
    repeated = ann.responses.create(model="echo/any", input="hi").id
    for id in (unstored, translated, repeated, "resp_" + "x" * 300, "resp_1%2F..%2Fmodels"):
        with pytest.raises(openai.NotFoundError):
            ann.responses.retrieve(id)
        with pytest.raises(openai.NotFoundError, match="not stored"):
            ann.responses.create(model="fast", input="more", previous_response_id=id)


def test_a_named_model_of_another_provider_cannot_go_on(served: Served) -> None:
    ann = client(served)
    made = ann.responses.create(model="other/good", input="hi").id
    with pytest.raises(openai.BadRequestError, match="is at the provider 'other'"):
        ann.responses.create(model="open/good", input="more", previous_response_id=made)
    more = ann.responses.create(model="translated", input="more", previous_response_id=made)
    assert more.previous_response_id == made, "an alias leads to where it is"
    mixed = client(served, ALIASED).responses.create(model="fast", input="hi").id
    assert client(served, ALIASED).responses.create(model="mix", input="more", previous_response_id=mixed)


def test_rights_are_looked_at_each_time(served: Served) -> None:
    created = served.admin("POST", "keys", {"grants": {"models": ["fast"]}}).json()
    held = client(served, created["secret"])
    made = held.responses.create(model="fast", input="hi").id
    assert held.responses.retrieve(made).id == made
    changed = served.admin("PATCH", f"keys/{created['key']['id']}", {"grants": {"models": ["translated"]}})
    assert changed.status_code == 200, changed.text
    with pytest.raises(openai.PermissionDeniedError):
        held.responses.retrieve(made)
    with pytest.raises(openai.PermissionDeniedError):
        held.responses.create(model="translated", input="more", previous_response_id=made)


def test_a_stored_response_cannot_be_streamed(served: Served) -> None:
    ann = client(served)
    made = ann.responses.create(model="fast", input="hi").id
    with pytest.raises(openai.BadRequestError, match="stream"):
        ann.responses.retrieve(made, stream=True)


def test_a_socket_goes_on_with_what_another_connection_made(served: Served) -> None:
    made = client(served).responses.create(model="fast", input="hi").id

    async def turn(key: str) -> dict[str, Any]:
        address = served.address.replace("http:", "ws:") + "/v1/responses"
        async with asyncio.timeout(10), connect(address, additional_headers=bearer(key)) as socket:
            ask = {"type": "response.create", "model": "mix", "input": "more", "previous_response_id": made}
            await socket.send(json.dumps(ask))
            while (event := json.loads(await socket.recv()))["type"] not in ("response.completed", "error"):
                pass
            return dict(event)

    assert asyncio.run(turn(ANN))["response"]["previous_response_id"] == made
    refused = asyncio.run(turn(BOB))
    assert (refused["status"], refused["code"]) == (404, "previous_response_not_found")


def test_input_is_counted_by_who_can_and_estimated_elsewhere(served: Served) -> None:
    ann = client(served)
    counted = ann.responses.input_tokens.count(model="fast", input="Say hello.")
    assert (counted.object, counted.input_tokens) == ("response.input_tokens", 77)
    guessed = ann.responses.input_tokens.count(model="translated", input="Say hello.")
    assert guessed.object == "response.input_tokens" and 5 < guessed.input_tokens < 77
    with pytest.raises(openai.PermissionDeniedError):
        client(served, ALIASED).responses.input_tokens.count(model="open/good", input="hi")


def test_compacting_is_paid_like_a_response_and_refused_by_name_elsewhere(served: Served) -> None:
    created = served.admin("POST", "keys", {"grants": {"models": ["*"]}, "budget": {"limit_usd": 1}}).json()
    held = client(served, created["secret"])
    made = held.responses.create(model="fast", input="hi").id
    assert held.responses.compact(model="fast", previous_response_id=made).output[0].type == "compaction"
    (row,) = wait_until(lambda: served.usage("key", key=created["key"]["id"]))
    assert row["cost_usd"] == "0.005", "twice 1,000 × $2 + 50 × $10 for a million"
    with pytest.raises(openai.NotFoundError, match="claude/good does not serve /v1/responses/compact"):
        held.responses.compact(model="translated", input="hi")


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_restart_keeps_what_is_known(
    kind: str, tmp_path: Path, provider: ModelProvider, other: ModelProvider
) -> None:
    def run(storage: dict[str, str]) -> None:
        config = write_config(tmp_path, {}, **settings(provider, other), storage=storage)
        with serving(tmp_path, config) as first:
            ids = [client(first).responses.create(model="mix", input="hi").id for _ in range(4)]
            first.stop()
        with serving(tmp_path, config) as second:
            assert [client(second).responses.retrieve(id).id for id in ids] == ids
            with pytest.raises(openai.NotFoundError):
                client(second, BOB).responses.retrieve(ids[0])

    if kind == "sqlite":
        run({})
    else:
        with own_database() as url:
            run({"url": url})


def test_guardrails_see_what_is_stored_when_it_is_asked_for(
    tmp_path: Path, provider: ModelProvider, other: ModelProvider
) -> None:
    sections = settings(provider, other)
    patterns = {"more": {"names": "model"}, "names": "mask"}
    sections["llm"]["guardrails"] = [{"use": "mcpgate.llm.patterns:Patterns", "settings": patterns}]
    with serving(tmp_path, write_config(tmp_path, {}, **sections)) as guarded:
        made = client(guarded).responses.create(model="fast", input="hi").id
        assert client(guarded).responses.retrieve(made).output_text == SAID.replace("model", "[names]")


# --- Files


def test_openais_sdk_uploads_lists_reads_and_deletes_files(served: Served, other: ModelProvider) -> None:
    created = served.admin("POST", "keys", {"grants": {"models": ["*"]}}).json()
    held = client(served, created["secret"])
    content = bytes(range(256)) * 1000 + b"<script>"
    made = held.files.create(file=("data.bin", content), purpose="user_data")
    assert (made.filename, made.bytes, made.purpose) == ("data.bin", len(content), "user_data")
    more = held.files.create(file=("b.jsonl", b"{}"), purpose="batch", extra_headers={"x-mcpgate-provider": "other"})
    assert any(id == more.id for _, id in other.kept.files)
    assert [file.id for file in held.files.list()] == [more.id, made.id]
    assert [file.id for file in held.files.list(limit=1, order="asc")] == [made.id, more.id], "pages, one after another"
    assert [file.id for file in held.files.list(purpose="batch")] == [more.id]
    first = held.files.list(limit=1)
    assert first.has_more and [file.id for file in first.data] == [more.id]
    assert held.files.retrieve(made.id) == made
    whole = held.files.with_raw_response.content(made.id)
    assert whole.content == content
    assert (whole.headers["content-type"], whole.headers["x-content-type-options"]) == (
        "application/octet-stream",
        "nosniff",
    ), "a page of somebody else's is not shown as the gateway's own"
    assert held.files.delete(made.id).deleted
    assert [file.id for file in held.files.list()] == [more.id]
    with pytest.raises(openai.NotFoundError):
        held.files.retrieve(made.id)


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/content"), ("DELETE", "")])
def test_another_key_hears_the_same_of_a_file_as_of_none(
    method: str, path: str, served: Served, provider: ModelProvider
) -> None:
    made = client(served).files.create(file=("a", b"secret"), purpose="user_data").id
    provider.kept.asked.clear()
    answers = [served.http().request(method, f"/v1/files/{id}{path}", headers=bearer(BOB)) for id in (made, "file-0")]
    assert [answer.status_code for answer in answers] == [404, 404] and not provider.kept.asked
    assert answers[0].text.replace(made, "file-0") == answers[1].text
    assert made not in served.http().get("/v1/files", headers=bearer(BOB)).text
    assert client(served).files.retrieve(made).id == made


def asking_for(file: str) -> dict[str, Any]:
    part = {"type": "input_file", "file_id": file}
    return {"model": "mix", "input": [{"role": "user", "content": [part]}]}


def test_a_request_that_names_files_goes_where_they_are(served: Served, provider: ModelProvider) -> None:
    ann = client(served)
    files = []
    for _ in range(6):
        files.append(ann.files.create(file=("a", b"x"), purpose="user_data").id)
        ann.files.create(file=("a", b"x"), purpose="batch")  # which no provider has
    homes = {project for project, id in provider.kept.files if id in files}
    assert len(homes) == 1, "all that one request may name"
    for file in files:
        answer = served.http().post("/v1/responses", json=asking_for(file), headers=bearer(ANN))
        assert answer.status_code == 200, answer.text
        assert {project for project, id in provider.kept.responses if id == answer.json()["id"]} == homes
    elsewhere = served.http().post(
        "/v1/responses", json={**asking_for(files[0]), "model": "other/good"}, headers=bearer(ANN)
    )
    assert elsewhere.status_code == 400 and "is at the provider 'open'" in elsewhere.text


@pytest.mark.parametrize(
    "part",
    [
        '{"type": "input_file", "file_id": "%s"}',
        '{"type": "input_file", "fil\\u0065_id": "%s"}',
        '{"type": "input_file", "file_id": "%s", "file_id": null}',
        '{"type": "input_image", "file_id": null, "file_id": "%s"}',
        '{"type": "x", "deeper": [[[{"file_ids": ["%s"]}]]]}',
        '{"type": "deep", "x": ' + '{"x":' * 60 + '{"file_id": "%s"}' + "}" * 60 + "}",
    ],
)
def test_no_spelling_reaches_anothers_file(part: str, served: Served, provider: ModelProvider) -> None:
    made = client(served).files.create(file=("a", b"secret"), purpose="user_data").id
    provider.received.clear()
    body = f'{{"model": "fast", "input": [{{"role": "user", "content": [{part % made}]}}]}}'
    answer = served.http().post(
        "/v1/responses", content=body, headers={**bearer(BOB), "content-type": "application/json"}
    )
    assert answer.status_code in (200, 400, 404), answer.text
    assert all(made.encode() not in request.raw for request in provider.received), "what the provider reads"


def test_names_of_the_clients_own_are_no_files(served: Served, provider: ModelProvider) -> None:
    schema = {"type": "object", "properties": {"file_id": {"type": "string"}}, "examples": [{"file_id": "mine"}]}
    body = {
        **{"model": "fast", "input": "hi", "metadata": {"file_id": "mine"}},
        "tools": [{"type": "function", "name": "f", "parameters": schema}],
    }
    provider.received.clear()
    answer = served.http().post("/v1/responses", json=body, headers=bearer(BOB))
    assert answer.status_code == 200 and provider.received[0].body == {**body, "model": "good"}


def test_uploads_need_rights_a_form_and_a_length_within_the_limit(served: Served, provider: ModelProvider) -> None:
    provider.kept.asked.clear()
    narrow = served.admin("POST", "keys", {"grants": {"models": ["translated"]}}).json()["secret"]
    form = {"files": {"file": ("a", b"x")}, "data": {"purpose": "user_data"}}
    http = served.http()
    assert http.post("/v1/files", **form, headers=bearer(narrow)).status_code == 403  # type: ignore[arg-type]
    for wanted, status in (("claude", 400), ("none", 400), ("echo", 400), ("open", 200)):
        headers = {**bearer(ANN), "x-mcpgate-provider": wanted}
        assert http.post("/v1/files", **form, headers=headers).status_code == status  # type: ignore[arg-type]
    denied = {**bearer(ALIASED), "x-mcpgate-provider": "claude"}
    assert http.post("/v1/files", **form, headers=denied).status_code == 403  # type: ignore[arg-type]
    assert http.post("/v1/files", json={}, headers=bearer(ANN)).status_code == 400
    form_type = {**bearer(ANN), "content-type": "multipart/form-data; boundary=b"}
    assert http.post("/v1/files", content=iter([b"--b--"]), headers=form_type).status_code == 400, "without a length"
    with socket.create_connection(("127.0.0.1", int(served.address.rpartition(":")[2]))) as sender:
        sender.sendall(upload_head(served, 10**9).replace(b"slow", b"open"))
        assert b" 413 " in sender.recv(65536)
    assert [method for _, method, _ in provider.kept.asked] == ["POST"]


def test_an_upload_is_passed_on_while_it_comes_and_ends_with_its_client(served: Served) -> None:
    with one_upload() as (address, upstream):
        created = {"type": "openai", "base_url": address, "api_key": "sk-x"}
        llm = settings_of(served)["llm"]
        served.edit(llm={**llm, "providers": {**llm["providers"], "slow": created}})
        head = upload_head(served, 300_000)
        with socket.create_connection(("127.0.0.1", int(served.address.rpartition(":")[2]))) as sender:
            sender.sendall(head + b"x" * 100_000)
            connection, _ = upstream.accept()
            connection.settimeout(10)
            seen = b""
            while seen.count(b"x") < 100_000:
                seen += connection.recv(65536)
            assert b"content-length: 300000" in seen and b"multipart/form-data; boundary=b" in seen
        while connection.recv(65536):
            pass  # it ends: nobody waits for the rest
        connection.close()


def test_an_early_refusal_is_passed_on_and_its_connection_not_used_again(served: Served) -> None:
    with one_upload() as (address, upstream):
        created = {"type": "openai", "base_url": address, "api_key": "sk-x"}
        llm = settings_of(served)["llm"]
        served.edit(llm={**llm, "providers": {**llm["providers"], "slow": created}})
        with socket.create_connection(("127.0.0.1", int(served.address.rpartition(":")[2]))) as sender:
            sender.settimeout(10)
            sender.sendall(upload_head(served, 300_000) + b"x" * 1000)
            connection, _ = upstream.accept()
            connection.settimeout(10)
            refusal = b'{"error": {"message": "Too large for this project", "type": "x", "param": null, "code": null}}'
            connection.sendall(b"HTTP/1.1 413 No\r\ncontent-length: %d\r\n\r\n%s" % (len(refusal), refusal))
            answer = b""
            for _ in range(200):
                try:
                    sender.sendall(b"x" * 1000)
                except OSError:
                    break
            while part := _received(sender):
                answer += part
            assert b" 413 " in answer and b"Too large for this project" in answer
            while connection.recv(65536):
                pass
            connection.close()


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except ConnectionResetError:
        return b""


@contextlib.contextmanager
def one_upload() -> Iterator[tuple[str, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        upstream.settimeout(10)
        yield f"http://127.0.0.1:{upstream.getsockname()[1]}/v1", upstream


def settings_of(served: Served) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(served.config.read_text())
    return found


def upload_head(served: Served, length: int) -> bytes:
    fields = {
        **{"host": "localhost", "x-mcpgate-provider": "slow", "content-length": str(length), **bearer(ANN)},
        "content-type": "multipart/form-data; boundary=b",
    }
    return ("POST /v1/files HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items()) + "\r\n").encode()


# --- The table


def test_a_table_that_is_away_refuses_questions_and_costs_no_answer(
    tmp_path: Path, provider: ModelProvider, other: ModelProvider
) -> None:
    file = tmp_path / "stores.sqlite3"
    config = write_config(tmp_path, {}, **settings(provider, other), storage={"url": f"sqlite:///{file}"})
    with serving(tmp_path, config) as served:
        ann = client(served)
        made = ann.responses.create(model="fast", input="hi").id
        with contextlib.closing(sqlite3.connect(file)) as db:
            db.execute("ALTER TABLE provider_objects RENAME TO away")
        assert ann.responses.create(model="fast", input="hi").output_text == SAID
        assert ann.chat.completions.create(model="fast", messages=[{"role": "user", "content": "hi"}]).choices
        refused = [
            lambda: ann.responses.retrieve(made),
            lambda: ann.responses.create(model="fast", input="more", previous_response_id=made),
            lambda: ann.files.list(),
            lambda: ann.files.create(file=("a", b"x"), purpose="user_data"),
        ]
        provider.kept.asked.clear()
        for ask in refused:
            with pytest.raises(openai.InternalServerError) as error:
                ask()
            assert error.value.status_code == 503 and error.value.code == "unavailable"
        assert not provider.kept.asked and served.said("cannot be asked for later")
        with contextlib.closing(sqlite3.connect(file)) as db:
            db.execute("ALTER TABLE away RENAME TO provider_objects")
        assert ann.responses.retrieve(made).id == made


def test_every_response_of_many_at_once_can_be_asked_for_as_soon_as_it_is_there(served: Served) -> None:
    async def one(number: int) -> str:
        http = httpx2.AsyncClient(timeout=30)
        async with openai.AsyncOpenAI(
            base_url=f"{served.address}/v1", api_key=(ANN, BOB)[number % 2], http_client=http, max_retries=0
        ) as own:
            made = await own.responses.create(model="mix", input=f"hi {number}")
            assert (await own.responses.retrieve(made.id)).id == made.id
            return made.id

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*(one(number) for number in range(60)))

    ids = asyncio.run(all_of_them())
    anns = served.http(**bearer(ANN))
    assert [anns.get(f"/v1/responses/{id}").status_code for id in ids] == [200, 404] * 30
