"""What OpenAI keeps, through the gateway: responses and files, each only for the key that made it, and only where it
is."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from websockets.asyncio.client import connect

from tests.flows.governed import TRUSTED, Served, bearer, own_database, serving, wait_until, write_config
from tests.model_provider import WORDS, ModelProvider, model_provider

SAID = "".join(WORDS)
ANN, BOB, ALIASED = "mg-key-of-ann", "mg-key-of-bob", "mg-key-aliased"


@pytest.fixture(scope="module")
def provider() -> Iterator[ModelProvider]:
    with model_provider() as running:
        yield running


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
    with pytest.raises(openai.BadRequestError, match="/v1/responses/compact"):
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
