"""Batches, made with the SDKs of OpenAI and Anthropic, over providers of any format: each line is admitted and paid like
any other request, a batch goes on after the end of a process, and what cannot be run is told line by line."""

import contextlib
import json
import signal
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.flows.governed import TRUSTED, Served, bearer, own_database, serving, wait_until, write_config
from tests.model_provider import WORDS, ModelProvider, model_provider

SAID = "".join(WORDS)
ANN, BOB, NARROW, NOBODY = "mg-key-of-ann", "mg-key-of-bob", "mg-narrow-key", "mg-key-without-models"
LINE_USD = 0.0025
"""What `good` costs: 1,000 tokens in and 50 out."""


Place = tuple[Served, ModelProvider]


def settings(provider: ModelProvider, **batches: Any) -> dict[str, Any]:
    providers = {
        "claude": {"type": "anthropic", "base_url": provider.address, "api_key": "sk-ant"},
        "open": {"type": "openai", "base_url": provider.address, "api_key": "sk-open"},
        "echo": {"type": "echo"},
    }
    models = {"fast": {"targets": [{"target": "open/good"}]}, "translated": {"targets": [{"target": "claude/good"}]}}
    keys = {
        "admin": {**TRUSTED["admin"], "grants": {"admin": True, "models": ["*"]}},
        "ann": {"secret": ANN, "grants": {"models": ["*"]}},
        "bob": {"secret": BOB, "grants": {"models": ["*"]}},
        "narrow": {"secret": NARROW, "grants": {"models": ["fast"]}},
        "nobody": {"secret": NOBODY, "grants": {"tools": ["*"]}},
    }
    prices = {"*/*": {"input_usd_per_mtok": 2, "output_usd_per_mtok": 10}}
    return {
        "governance": {"keys": keys, "lease_s": 2},
        "llm": {"providers": providers, "models": models, "prices": prices, "batches": batches},
        "server": {"max_body_mib": 2},
    }


@contextlib.contextmanager
def place_at(folder: Path, **batches: Any) -> Iterator[Place]:
    with (
        model_provider() as provider,
        serving(folder, write_config(folder, {}, **settings(provider, **batches))) as served,
    ):
        yield served, provider


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place_at(tmp_path_factory.mktemp("batches")) as made:
        yield made


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """The usual gateway, or one of its own with other settings."""
    if hasattr(request, "param"):
        with place_at(tmp_path, **request.param) as made:
            yield made
        return
    served, provider = request.getfixturevalue("usual")
    provider.received.clear()
    provider.go_on.clear()
    yield served, provider


@pytest.fixture
def served(place: Place) -> Served:
    return place[0]


@pytest.fixture
def provider(place: Place) -> ModelProvider:
    return place[1]


@pytest.fixture
def own() -> Iterator[ModelProvider]:
    """Of a gateway that a test starts by itself."""
    with model_provider() as running:
        yield running


def client(served: Served, key: str = ANN) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.address}/v1", api_key=key, max_retries=0, http_client=served.http())


def claude(served: Served, key: str = ANN) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=served.address, api_key=key, max_retries=0, http_client=served.http())


def line(id: str, model: str, url: str = "/v1/chat/completions", **body: Any) -> dict[str, Any]:
    asked = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 50} if "chat" in url else {"input": "hi"}
    return {"custom_id": id, "method": "POST", "url": url, "body": {"model": model, **asked, **body}}


def made(held: openai.OpenAI, *lines: Any, url: Any = "/v1/chat/completions", **more: Any) -> openai.types.Batch:
    text = b"\n".join(one if isinstance(one, bytes) else json.dumps(one).encode() for one in lines)
    file = held.files.create(file=("in.jsonl", text), purpose="batch")
    return held.batches.create(input_file_id=file.id, endpoint=url, completion_window="24h", **more)


def ended(held: openai.OpenAI, id: str) -> openai.types.Batch:
    over = ("completed", "failed", "cancelled", "expired")
    found: openai.types.Batch = wait_until(lambda: (now := held.batches.retrieve(id)).status in over and now)
    return found


def rows(held: openai.OpenAI, file: str | None) -> list[dict[str, Any]]:
    assert file is not None
    return [json.loads(text) for text in held.files.content(file).text.splitlines()]


# --- OpenAI's


def test_openais_sdk_runs_a_batch_over_providers_of_other_formats(served: Served, provider: ModelProvider) -> None:
    ann = client(served)
    batch = made(ann, line("a", "fast"), line("b", "translated"), line("c", "echo/any"), metadata={"job": "night"})
    assert batch.status == "validating" and batch.metadata == {"job": "night"} and batch.object == "batch"
    batch = ended(ann, batch.id)
    assert batch.status == "completed" and batch.error_file_id is None and batch.completed_at
    assert batch.request_counts and batch.request_counts.to_dict() == {"total": 3, "completed": 3, "failed": 0}
    found = {row["custom_id"]: row for row in rows(ann, batch.output_file_id)}
    assert list(found) == ["a", "b", "c"], "in the order of the input"
    said = {id: row["response"]["body"]["choices"][0]["message"]["content"] for id, row in found.items()}
    assert said == {"a": SAID, "b": SAID, "c": "Hello"}
    assert all(row["response"]["status_code"] == 200 and row["error"] is None for row in found.values())
    assert {one.path.rpartition("/v1")[2] for one in provider.received} == {"/chat/completions", "/messages"}
    entries = served.admin("GET", "entries?limit=50").json()["entries"]
    lines = {id for one in entries if (id := one["facts"]["request"]).startswith(batch.id)}
    assert (
        lines
        == {f"{batch.id}/{number}" for number in range(3)}
        == {r["response"]["request_id"] for r in found.values()}
    )
    about = ann.files.retrieve(batch.output_file_id or "")
    assert about.purpose == "batch_output" and about.bytes == len(ann.files.content(about.id).content)


@pytest.mark.parametrize(("url", "model"), [("/v1/responses", "fast"), ("/v1/embeddings", "open/good")])
def test_other_endpoints_have_batches_too(url: str, model: str, served: Served) -> None:
    ann = client(served)
    batch = ended(ann, made(ann, line("a", model, url), url=url).id)
    (row,) = rows(ann, batch.output_file_id)
    assert row["response"]["status_code"] == 200 and row["response"]["body"]["object"] in ("response", "list")


def test_lines_cost_what_single_requests_do(served: Served) -> None:
    ann = client(served, served.new_key(id="payer", grants={"models": ["*"]}))
    ended(ann, made(ann, *(line(str(number), "fast") for number in range(5))).id)
    ann.chat.completions.create(model="fast", messages=[{"role": "user", "content": "Hello"}], max_tokens=50)
    assert float(served.cost(key="payer")) == pytest.approx(6 * LINE_USD)


def test_batches_and_files_are_listed_in_pages(served: Served) -> None:
    ann = client(served, served.new_key(id="lister", grants={"models": ["*"]}))
    ids = [made(ann, line("a", "echo/any")).id for _ in range(5)]
    assert [one.id for one in ann.batches.list(limit=2)] == ids[::-1], "pages, one after another"
    first = ann.batches.list(limit=2)
    assert first.has_more and [one.id for one in first.data] == ids[:2:-1]
    for id in ids:
        ended(ann, id)
    purposes = [file.purpose for file in ann.files.list()]
    assert purposes.count("batch") == 5 and purposes.count("batch_output") == 5
    batch = ann.batches.retrieve(ids[0])
    assert ann.files.delete(batch.input_file_id).deleted
    with pytest.raises(openai.NotFoundError):
        ann.files.content(batch.input_file_id)


@pytest.mark.parametrize("purpose_first", [True, False])
def test_a_file_comes_back_as_it_was_sent_wherever_its_purpose_stands(purpose_first: bool, served: Served) -> None:
    content = json.dumps(line("ä\r\n--b", "fast", user="x" * 900_000)).encode() + b"\r\n\n"
    purpose = b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    file = b'--b\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n' + content + b"\r\n"
    body = (purpose + file if purpose_first else file + purpose) + b"--b--\r\n"
    headers = {**bearer(ANN), "content-type": "multipart/form-data; boundary=b"}
    answer = served.http().post("/v1/files", content=body, headers=headers)
    assert answer.status_code == 200 and answer.json()["bytes"] == len(content), answer.text
    assert client(served).files.content(answer.json()["id"]).content == content


def test_an_input_that_cannot_be_read_fails_with_the_lines_and_costs_nothing(
    served: Served, provider: ModelProvider
) -> None:
    ann = client(served)
    bad = [
        line("a", "fast"),
        b"{no json",
        b"[]",
        {**line("b", "fast"), "method": "GET"},
        line("c", "fast", "/v1/embeddings"),
        b"",
        line("a", "fast"),
        {"custom_id": "d", "method": "POST", "url": "/v1/chat/completions"},
        {**line("e", "fast"), "custom_id": 7},
    ]
    batch = ended(ann, made(ann, *bad).id)
    assert batch.status == "failed" and batch.failed_at and batch.output_file_id is None
    assert batch.errors and batch.errors.data
    assert [(one.line, one.code) for one in batch.errors.data] == [
        (2, "invalid_json_line"),
        (3, "invalid_json_line"),
        (4, "invalid_method"),
        (5, "mismatched_endpoint"),
        (7, "duplicate_custom_id"),
        (8, "missing_required_parameter"),
        (9, "invalid_custom_id"),
    ]
    empty = ended(ann, made(ann, b"\n\n").id)
    assert empty.errors and empty.errors.data and empty.errors.data[0].code == "empty_file"
    assert not provider.received


def test_a_line_that_fails_is_told_in_the_error_file(served: Served) -> None:
    narrow = client(served, NARROW)
    batch = made(
        narrow,
        line("good", "fast"),
        line("denied", "translated"),
        line("unknown", "no-such"),
        line("odd", "fast", max_tokens="many"),
        line("streams", "fast", stream=True),
    )
    batch = ended(narrow, batch.id)
    assert batch.status == "completed" and [row["custom_id"] for row in rows(narrow, batch.output_file_id)] == ["good"]
    failed = {row["custom_id"]: row["response"] for row in rows(narrow, batch.error_file_id)}
    assert {id: (one["status_code"], one["body"]["error"]["code"]) for id, one in failed.items()} == {
        "denied": (403, "not_allowed"),
        "unknown": (404, "unknown_model"),
        "odd": (400, "invalid_request"),
        "streams": (400, "invalid_request"),
    }
    ann = client(served)
    refused = ended(ann, made(ann, line("a", "open/status-400")).id)
    (row,) = rows(ann, refused.error_file_id)
    assert row["response"]["status_code"] == 400 and "Told to fail" in row["response"]["body"]["error"]["message"]


def test_a_provider_that_fails_for_a_moment_is_asked_again(served: Served, provider: ModelProvider) -> None:
    provider.failures_left = 1
    ann = client(served)
    batch = ended(ann, made(ann, line("a", "open/flaky")).id)
    assert len(rows(ann, batch.output_file_id)) == 1 and provider.models() == ["flaky", "flaky"]


def test_an_answer_that_is_none_is_paid_once(served: Served, provider: ModelProvider) -> None:
    ann = client(served)
    batch = ended(ann, made(ann, line("a", "open/garbage")).id)
    (row,) = rows(ann, batch.error_file_id)
    assert row["response"]["status_code"] == 502 and provider.models() == ["garbage"]


def test_lines_over_a_rate_limit_wait_and_fail_not(tmp_path: Path, own: ModelProvider) -> None:
    given = settings(own)
    limit = {"id": "slow", "per": "shared", "when": {"provider": "open"}, "requests": 3, "window": "1s"}
    given["governance"]["rate_limits"] = [limit]
    with serving(tmp_path, write_config(tmp_path, {}, **given)) as served:
        ann = client(served)
        batch = ended(ann, made(ann, *(line(str(number), "fast") for number in range(8))).id)
    assert batch.request_counts and batch.request_counts.completed == 8 == len(own.received)


@pytest.mark.parametrize("place", [{"max_concurrency": 1}], indirect=True)
def test_lines_fail_once_the_budget_is_spent(served: Served, provider: ModelProvider) -> None:
    budget = {"limit_usd": 4 * LINE_USD + 0.0001, "period": "1d"}
    poor = client(served, served.new_key(grants={"models": ["fast"]}, budget=budget))
    batch = ended(poor, made(poor, *(line(str(number), "fast") for number in range(8))).id)
    assert batch.status == "completed" and batch.request_counts
    assert (batch.request_counts.completed, batch.request_counts.failed) == (4, 4)
    assert [row["custom_id"] for row in rows(poor, batch.output_file_id)] == ["0", "1", "2", "3"]
    failed = rows(poor, batch.error_file_id)
    assert {(row["response"]["status_code"], row["response"]["body"]["error"]["code"]) for row in failed} == {
        (402, "budget_exceeded")
    }
    assert len(provider.received) == 4


@pytest.mark.parametrize("place", [{"max_concurrency": 1}], indirect=True)
def test_a_cancelled_batch_ends_with_what_was_under_way(served: Served, provider: ModelProvider) -> None:
    ann = client(served)
    batch = made(ann, line("a", "fast"), line("b", "open/hold"), line("c", "fast"), line("d", "fast"))
    wait_until(lambda: "hold" in provider.models())
    assert ann.batches.cancel(batch.id).status == "cancelling"
    assert ann.batches.cancel(batch.id).status == "cancelling", "twice is once"
    wait_until(lambda: (n := ann.batches.retrieve(batch.id).request_counts) and n.failed == 2)
    provider.go_on.set()
    batch = ended(ann, batch.id)
    assert batch.status == "cancelled" and batch.cancelling_at and batch.cancelled_at
    assert [row["custom_id"] for row in rows(ann, batch.output_file_id)] == ["a", "b"]
    assert [(row["custom_id"], row["error"]["code"]) for row in rows(ann, batch.error_file_id)] == [
        ("c", "batch_cancelled"),
        ("d", "batch_cancelled"),
    ]
    assert provider.models() == ["good", "hold"]
    done = ended(ann, made(ann, line("a", "echo/any")).id)
    with pytest.raises(openai.ConflictError):
        ann.batches.cancel(done.id)


@pytest.mark.parametrize("place", [{"max_concurrency": 1}], indirect=True)
def test_a_revoked_key_stops_its_batches(served: Served, provider: ModelProvider) -> None:
    created = served.admin("POST", "keys", {"grants": {"models": ["*"]}}).json()
    theirs = client(served, created["secret"])
    refused: list[Exception] = []

    def ask() -> None:
        with pytest.raises(openai.APIStatusError) as error:
            theirs.chat.completions.create(model="open/hold", messages=[{"role": "user", "content": "Hello"}])
        refused.append(error.value)

    waiting = threading.Thread(target=ask)
    waiting.start()
    made(client(served, created["secret"]), line("a", "open/hold"), *(line(str(n), "fast") for n in range(500)))
    wait_until(lambda: provider.models() == ["hold", "hold"])
    assert served.admin("DELETE", f"keys/{created['key']['id']}").status_code < 300
    waiting.join()
    assert "no longer valid" in str(refused[0])
    provider.go_on.set()
    wait_until(lambda: served.said("ends: this key has been revoked") and served.said("cancelled, {"))
    assert len(provider.received) < 500, "rights are at most a second old"


# --- what ends processes


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_a_batch_goes_on_after_the_end_of_its_process(
    store: str, number: int, tmp_path: Path, own: ModelProvider
) -> None:
    with own_database() if store == "postgres" else contextlib.nullcontext("") as url:
        given = settings(own, max_concurrency=2)
        given |= {"storage": {"url": url}} if url else {}
        given["governance"]["keys"]["ann"]["budget"] = [{"limit_usd": 10}]  # then what is sent is on disk before
        config = write_config(tmp_path, {}, **given)
        lines = [line(str(one), "fast") for one in range(4)]
        lines += [line("held", "open/hold"), *(line(str(one), "fast") for one in range(5, 40))]
        with serving(tmp_path, config) as first:
            ann = client(first)
            id = made(ann, *lines).id
            wait_until(lambda: "hold" in own.models() and len(own.received) > 6)
            first.stop(number)
        own.go_on.set()
        with serving(tmp_path, config) as second:
            ann = client(second)
            batch = ended(ann, id)
            assert batch.status == "completed" and batch.error_file_id is None
            found = rows(ann, batch.output_file_id)
            assert [row["custom_id"] for row in found] == [one["custom_id"] for one in lines]
            assert second.said("it may be paid twice")
            asked, paid = wait_until(lambda: _paid(second, id, number), 20)
        assert len(own.received) - len(lines) <= 2, "only what was under way is asked again"
        assert asked == len(own.received) and paid["held"] == 2, "and the ledger has both"


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_workers_share_batches_and_no_line_is_asked_twice(store: str, tmp_path: Path, own: ModelProvider) -> None:
    with own_database() if store == "postgres" else contextlib.nullcontext("") as url:
        given = settings(own, max_concurrency=3) | ({"storage": {"url": url}} if url else {})
        with serving(tmp_path, write_config(tmp_path, {}, **given), workers=3) as served:
            held = [client(served, key) for key in (ANN, BOB, NARROW)]
            ids = [made(one, *(line(str(number), "fast") for number in range(30))).id for one in held for _ in "ab"]
            batches = [ended(one, id) for one, id in zip([one for one in held for _ in "ab"], ids, strict=True)]
    assert [batch.request_counts and batch.request_counts.completed for batch in batches] == [30] * 6
    assert len(own.received) == 180


def _paid(served: Served, id: str, number: int) -> tuple[int, dict[str, int]] | None:
    """How many requests to models the ledger has, and how many of the line that was held; None until both are there."""
    entries = served.admin("GET", "entries?limit=500").json()["entries"]
    attempts = [one for one in entries if one.get("provider") and one.get("key") == "ann"]
    held = [one for one in attempts if one["model"] == "hold"]
    lost = "unknown" if number == signal.SIGKILL else "cancelled"
    return (len(attempts), {"held": len(held)}) if lost in {one["outcome"] for one in held} else None


def test_a_line_that_ends_every_process_is_not_run_again_and_a_store_that_is_away_is_waited_for(
    tmp_path: Path, own: ModelProvider
) -> None:
    file, given = tmp_path / "stores.sqlite3", settings(own, max_concurrency=1)
    with serving(tmp_path, write_config(tmp_path, {}, **given, storage={"url": f"sqlite:///{file}"})) as served:
        ann = client(served)
        id = made(ann, line("held", "open/hold"), line("poison", "fast"), line("good", "fast")).id
        wait_until(lambda: "hold" in own.models())
        with contextlib.closing(sqlite3.connect(file)) as db, db:
            db.execute("INSERT INTO batch_lines VALUES (?, 1, 'started', 3, x'')", (id,))
            db.execute("ALTER TABLE batch_lines RENAME TO away")
        own.go_on.set()
        wait_until(lambda: served.said("cannot write to the store"))
        with pytest.raises(openai.InternalServerError):
            ann.batches.retrieve(id)
        with contextlib.closing(sqlite3.connect(file)) as db, db:
            db.execute("ALTER TABLE away RENAME TO batch_lines")
        batch = ended(ann, id)
        assert [row["custom_id"] for row in rows(ann, batch.output_file_id)] == ["held", "good"]
        (row,) = rows(ann, batch.error_file_id)
        assert row["custom_id"] == "poison" and "not run again" in row["response"]["body"]["error"]["message"]


@pytest.mark.parametrize("place", [{"max_concurrency": 4}], indirect=True)
def test_lines_give_way_to_clients_that_wait(served: Served, provider: ModelProvider) -> None:
    def ask() -> None:
        client(served, BOB).chat.completions.create(model="open/hold", messages=[{"role": "user", "content": "Hello"}])

    waiting = [threading.Thread(target=ask) for _ in range(3)]
    for one in waiting:
        one.start()
    wait_until(lambda: provider.models().count("hold") == 3)
    ann = client(served)
    batch = made(ann, line("first", "fast"), *(line(str(number), "open/hold") for number in range(6)))
    wait_until(lambda: provider.models().count("hold") == 4)
    wait_until(lambda: ann.batches.retrieve(batch.id).request_counts)
    assert provider.models().count("hold") == 4, "one line at a time"
    provider.go_on.set()
    for one in waiting:
        one.join()
    assert ended(ann, batch.id).status == "completed"


# --- bounds and rights


@pytest.mark.parametrize("place", [{"max_lines": 3, "max_open": 2, "max_stored_mib": 1}], indirect=True)
def test_everything_is_bounded(served: Served, provider: ModelProvider) -> None:
    ann = client(served)
    many = ended(ann, made(ann, *(line(str(number), "fast") for number in range(4))).id)
    assert many.errors and many.errors.data and many.errors.data[0].code == "too_many_lines" and not provider.received
    for _ in range(2):
        made(ann, line("a", "open/hold"))
    with pytest.raises(openai.RateLimitError, match="have not ended"):
        made(ann, line("a", "fast"))
    requests: Any = [{"custom_id": str(number), "params": {}} for number in range(4)]
    with pytest.raises(anthropic.BadRequestError, match="1 to 3 requests"):
        claude(served).messages.batches.create(requests=requests)
    ann.files.create(file=("a", b"x" * 800_000), purpose="batch")
    with pytest.raises(openai.APIStatusError, match="max_stored_mib"):
        ann.files.create(file=("a", b"x" * 800_000), purpose="batch")
    with pytest.raises(openai.APIStatusError, match="max_body_mib"):
        client(served, BOB).files.create(file=("a", b"x" * 3_000_000), purpose="batch")
    with pytest.raises(openai.PermissionDeniedError):
        client(served, NOBODY).files.create(file=("a", b"x"), purpose="batch")
    provider.go_on.set()


@pytest.mark.parametrize("place", [{"max_stored_mib": 1}], indirect=True)
def test_a_batch_whose_results_are_too_many_ends(served: Served) -> None:
    ann = client(served)
    words = "word " * 20_000
    lines = [
        line(str(n), "echo/any", messages=[{"role": "user", "content": words}], max_tokens=20_000) for n in range(9)
    ]
    batch = ended(ann, made(ann, *lines).id)
    failed = rows(ann, batch.error_file_id)
    assert batch.status == "completed" and "max_stored_mib" in str(failed[-1]["response"]["body"])


def test_anothers_batches_and_files_do_not_exist(served: Served) -> None:
    ann, bob = client(served), client(served, BOB)
    batch = ended(ann, made(ann, line("a", "echo/any")).id)
    message = claude(served).messages.batches.create(requests=[asked("a")]).id
    for path in (
        f"GET /v1/batches/{batch.id}",
        f"POST /v1/batches/{batch.id}/cancel",
        f"GET /v1/files/{batch.input_file_id}/content",
        f"GET /v1/files/{batch.output_file_id}/content",
        f"DELETE /v1/files/{batch.output_file_id}",
        f"GET /v1/messages/batches/{message}/results",
        f"DELETE /v1/messages/batches/{message}",
    ):
        method, _, where = path.partition(" ")
        assert served.http().request(method, where, headers=bearer(BOB)).status_code == 404, path
    assert (
        not bob.batches.list().data
        and not bob.files.list().data
        and not claude(served, BOB).messages.batches.list().data
    )
    with pytest.raises(openai.NotFoundError):
        bob.batches.create(input_file_id=batch.input_file_id, endpoint="/v1/chat/completions", completion_window="24h")
    with pytest.raises(openai.NotFoundError):
        ann.batches.retrieve(message)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"completion_window": "7d"}, "completion_window"),
        ({"endpoint": "/v1/videos"}, "endpoint"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 3600}}, "output_expires_after"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"input_file_id": "file-none"}, "no such file"),
        ({"input_file_id": 7}, "no such file"),
    ],
)
def test_what_a_batch_cannot_be_is_refused_by_its_name(change: dict[str, Any], said: str, served: Served) -> None:
    file = client(served).files.create(file=("a", b"{}"), purpose="batch").id
    body = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h", **change}
    answer = served.http().post("/v1/batches", json=body, headers=bearer(ANN))
    assert answer.status_code in (400, 404) and said in answer.json()["error"]["message"]


def test_a_file_of_a_provider_is_no_input_and_an_input_is_no_file_of_a_provider(served: Served) -> None:
    ann = client(served)
    theirs = ann.files.create(file=("a", b"{}"), purpose="batch", extra_headers={"x-mcpgate-provider": "open"}).id
    with pytest.raises(openai.BadRequestError, match="without x-mcpgate-provider"):
        ann.batches.create(input_file_id=theirs, endpoint="/v1/responses", completion_window="24h")
    own = ann.files.create(file=("a", b"{}"), purpose="batch").id
    assert [one.id for one in ann.files.list(purpose="batch")][:2] == [own, theirs], "both are listed"
    content: Any = [{"role": "user", "content": [{"type": "input_file", "file_id": own}]}]
    with pytest.raises(openai.BadRequestError, match="is a batch's"):
        ann.responses.create(model="fast", input=content)


# --- Anthropic's


def asked(id: str, model: str = "fast", **more: Any) -> Any:
    messages = [{"role": "user", "content": "Hello"}]
    return {"custom_id": id, "params": {"model": model, "max_tokens": 50, "messages": messages, **more}}


def test_anthropics_sdk_runs_a_batch_over_providers_of_other_formats(served: Served, provider: ModelProvider) -> None:
    ann = claude(served, served.new_key(grants={"models": ["*"]}))
    batch = ann.messages.batches.create(requests=[asked("a"), asked("b", "translated"), asked("c", "open/status-400")])
    assert batch.processing_status == "in_progress" and batch.request_counts.processing == 3 and not batch.results_url
    batch = wait_until(lambda: (now := ann.messages.batches.retrieve(batch.id)).processing_status == "ended" and now)
    assert batch.request_counts.to_dict() == {
        "processing": 0,
        "succeeded": 2,
        "errored": 1,
        "canceled": 0,
        "expired": 0,
    }
    assert batch.ended_at and batch.results_url == f"{served.address}/v1/messages/batches/{batch.id}/results"
    found = {one.custom_id: one.result for one in ann.messages.batches.results(batch.id)}
    for id in "ab":
        result = found[id]
        assert result.type == "succeeded" and result.message.content[0].type == "text"
        assert result.message.content[0].text == SAID and result.message.usage.output_tokens == 50
    assert found["c"].type == "errored" and "Told to fail" in found["c"].error.error.message
    sent = next(one for one in provider.received if one.path.endswith("/messages"))
    assert sent.headers["anthropic-version"] == "2026-10-21", "the client's own"
    ids = [ann.messages.batches.create(requests=[asked("a", "echo/any")]).id for _ in range(3)]
    assert [one.id for one in ann.messages.batches.list(limit=2)] == [*ids[::-1], batch.id]
    page = ann.messages.batches.list(limit=2, before_id=ids[0])
    assert [one.id for one in page.data] == [ids[2], ids[1]] and not page.has_more
    assert ann.messages.batches.delete(batch.id).type == "message_batch_deleted"
    with pytest.raises(anthropic.NotFoundError):
        ann.messages.batches.retrieve(batch.id)


@pytest.mark.parametrize("place", [{"max_concurrency": 1}], indirect=True)
def test_anthropics_sdk_cancels_a_batch(served: Served, provider: ModelProvider) -> None:
    ann = claude(served)
    batch = ann.messages.batches.create(requests=[asked("a", "open/hold"), asked("b"), asked("c")])
    wait_until(lambda: "hold" in provider.models())
    with pytest.raises(anthropic.ConflictError):
        ann.messages.batches.delete(batch.id)
    early = served.http().get(f"/v1/messages/batches/{batch.id}/results", headers=bearer(ANN))
    assert early.status_code == 404 and "has not ended" in early.json()["error"]["message"]
    assert ann.messages.batches.cancel(batch.id).processing_status == "canceling"
    provider.go_on.set()
    batch = wait_until(lambda: (now := ann.messages.batches.retrieve(batch.id)).processing_status == "ended" and now)
    assert batch.cancel_initiated_at and batch.request_counts.succeeded + batch.request_counts.canceled == 3
    types = {one.custom_id: one.result.type for one in ann.messages.batches.results(batch.id)}
    assert types["a"] == "succeeded" and types["c"] == "canceled"


@pytest.mark.parametrize(
    ("requests", "said"),
    [
        ([], "requests"),
        ([asked("a"), asked("a")], "occurs twice"),
        ([asked("a b")], "custom_id"),
        ([{"custom_id": "a"}], "params"),
        ([{**asked("a"), "priority": 1}], "priority"),
        (["text"], "custom_id"),
    ],
)
def test_anthropics_requests_are_checked_when_they_come(requests: Any, said: str, served: Served) -> None:
    with pytest.raises(anthropic.BadRequestError, match=said):
        claude(served).messages.batches.create(requests=requests)
