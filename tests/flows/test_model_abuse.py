"""Clients that want to be read differently by the gateway and by the provider, to pay less, or to stop the gateway; and
providers that are broken or malicious."""

import gzip
import json
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import httpx2
import pytest

from tests.flows.governed import ADMIN, TRUSTED, Served, bearer, serving, wait_until, write_config
from tests.model_provider import ModelProvider

PRICE = {"input_usd_per_mtok": 2, "output_usd_per_mtok": 10}
REST = '"messages": [{"role": "user", "content": "Hi."}]'


def event(**fields: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": "Hello world."}, "finish_reason": None}
    return b"data: " + json.dumps({"choices": [choice], **fields}).encode() + b"\n\n"


STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n"
NO_TOKENS = {"prompt_tokens": 0, "completion_tokens": 0}
TOKENS = {"prompt_tokens": 1000, "completion_tokens": 50}
RAW = {
    "blank-lines": STREAM + b"\r\n" + event() + b"\n" * 2**23 + event(usage=TOKENS),
    "pings": STREAM + b"\r\n" + b": ping\n\n" * 2**20,
    "bomb": STREAM + b"content-encoding: gzip\r\n\r\n" + gzip.compress(bytes(2**27), 1),
    "no-tokens": STREAM + b"\r\n" + 50 * event(usage=NO_TOKENS),
    "no-blank-line": STREAM + b"\r\n" + event() + event(usage=TOKENS).strip(),
    "broken": STREAM + b"content-length: 10000\r\n\r\n" + event(),
    "redirect": b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}",
    "ancient": b"HTTP/1.1 429 Too Many Requests\r\nretry-after: Mon, 01 Jan 0001 00:00:00 -0000\r\n"
    b"x-should-retry: \xe9\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}",
    "half-error": b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 100\r\n\r\n{",
    "half-stream": STREAM + b"\r\n" + event(),
    "silent": b"",
}
"""What the raw provider sends for each model. It leaves the last three open until the gateway has hung up."""


class _Raw(socketserver.StreamRequestHandler):
    """Also `usage:JSON`, an answer with that usage, and `echo-STATUS`, an error that repeats the credential."""

    waiting: ClassVar[list[str]] = []
    """Models whose answers have not ended."""

    def handle(self) -> None:
        fields = {}
        while line := self.rfile.readline().strip():
            name, _, value = line.partition(b": ")
            fields[name.lower()] = value
        model = json.loads(self.rfile.read(int(fields[b"content-length"])))["model"]
        kind, _, said = model.partition(":")
        answer = RAW.get(model, b"")
        if kind == "usage":
            answer = _whole(b"200 OK", b'{"choices": [], "usage": %s}' % said.encode())
        if kind.startswith("echo-"):
            words = b"not accepted: " + fields[b"authorization"]
            answer = _whole(kind[5:].encode() + b" No", b'{"error": {"message": "%s"}}' % words)
        try:
            self.wfile.write(answer)
            if model in ("half-error", "half-stream", "silent"):
                self.waiting.append(model)
                self.rfile.read(1)
        except OSError:
            pass


def _whole(status: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (status, len(body))
    return head + body


@pytest.fixture(scope="module")
def raw_address() -> Iterator[str]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Raw) as server:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, provider: ModelProvider, raw_address: str) -> Iterator[Served]:
    providers = {
        "open": {"type": "openai", "base_url": provider.address, "api_key": "sk-of-the-provider"},
        "claude": {"type": "anthropic", "base_url": provider.address.removesuffix("/v1"), "api_key": "sk-ant"},
        "raw": {"type": "openai", "base_url": raw_address, "api_key": "sk-of-the-raw-provider", "timeout_s": 20},
        "keys": {"type": "openai", "base_url": raw_address, "keys": [{"api_key": "first"}, {"api_key": "second"}]},
    }
    models = {
        "safe": {"targets": [{"target": "raw/half-error"}, {"target": "open/good"}]},
        "good": {"targets": [{"target": "open/good"}]},
        "mix": {"strategy": "weight", "targets": [{"target": "open/good"}]},
    }
    llm = {"providers": providers, "models": models, "prices": {"*/*": PRICE}, "unknown_model": "good"}
    admin = {**TRUSTED["admin"], "grants": {"tools": ["*"], "models": ["*"], "admin": True}}
    poor = {"secret": "mg-key-poor", "grants": {"models": ["*"]}, "budget": {"limit_usd": 0.5}}
    folder = tmp_path_factory.mktemp("abuse")
    governance = {"keys": {"admin": admin, "poor": poor}}
    with serving(folder, write_config(folder, {}, governance=governance, llm=llm)) as running:
        yield running


@pytest.fixture(autouse=True)
def fresh(provider: ModelProvider) -> None:
    provider.received.clear()


def send(
    served: Served, body: str, path: str = "/v1/chat/completions", key: str = ADMIN, **headers: Any
) -> httpx2.Response:
    return served.http().post(path, content=body, headers={**bearer(key), **headers})


# --- Clients


@pytest.mark.parametrize(
    "body",
    [
        '{"model": "dear", %s, "\\u006dodel": "good"}',
        '{"model": "dear", %s, "\\u006dodel": "unknown"}',
        '{"model": "dear", %s, "model": "good"}',
        '{"model": "good", "max_tokens": 9, %s, "max_tokens": 1, "x": 12345678901234567890123}',
    ],
)
def test_a_provider_reads_the_model_and_the_limits_that_were_admitted(
    body: str, served: Served, provider: ModelProvider
) -> None:
    assert send(served, body % REST).status_code == 200
    (received,) = provider.received
    pairs = json.loads(received.raw, object_pairs_hook=list)
    assert len(dict(pairs)) == len(pairs) and dict(pairs)["model"] == "good", "no field occurs twice"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"model": "good", %s, "Model": "dear"}', "Model"),
        ('{"model": "good", %s, "max_to\u212aens": 9}', "max_to\u212aens"),
        ('{"model": "open/good\\r\\nx-evil: 1", %s}', "model"),
        ('{"model": "open/\\ud800", %s}', "model"),
        ('{"model": "good", "background": true, %s}', "background"),
    ],
)
def test_what_a_provider_may_read_differently_is_refused(
    body: str, field: str, served: Served, provider: ModelProvider
) -> None:
    answer = send(served, body % REST)
    assert answer.status_code == 400 and answer.json()["error"]["field"] == field and not provider.received


@pytest.mark.parametrize("model", ["good", "mix"])
def test_a_session_or_a_header_that_cannot_be_encoded_harms_nothing(model: str, served: Served) -> None:
    body = f'{{"model": "{model}", "prompt_cache_key": "\\ud800", {REST}}}'
    assert send(served, body, **{"openai-beta": b"\xe9"}).status_code == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_the_highest_limit_that_is_named_is_reserved(path: str, served: Served, provider: ModelProvider) -> None:
    model = "claude/good" if path == "/v1/messages" else "open/good"
    body = f'{{"model": "{model}", "max_completion_tokens": 1, "max_tokens": 90000, {REST}}}'
    assert send(served, body, path, "mg-key-poor").status_code == 402 and not provider.received


def test_text_is_reserved_as_text_whatever_it_looks_like(served: Served, provider: ModelProvider) -> None:
    data = "data:image/png;base64," + "A1b2" * 250_000
    image = {"type": "image_url", "image_url": {"url": data}}
    body = {"model": "open/good", "max_tokens": 5, "messages": [{"role": "user", "content": [image]}]}
    assert send(served, json.dumps(body), key="mg-key-poor").status_code == 200
    provider.received.clear()
    body["messages"] = [{"role": "user", "content": [{"type": "text", "text": data}, {**image, "image_url": "x"}]}]
    assert send(served, json.dumps(body), key="mg-key-poor").status_code == 402 and not provider.received


def test_a_field_that_occurs_a_hundred_thousand_times_does_not_hold_up_the_gateway(served: Served) -> None:
    inner = ",".join(['{"model": "a"}'] * 100_000)
    began = time.monotonic()
    assert send(served, f'{{"model": "good", "messages": [{inner}]}}').status_code == 200
    assert time.monotonic() - began < 10


def test_who_cannot_be_streamed_to_is_told_before_anything_is_paid(served: Served, provider: ModelProvider) -> None:
    body = f'{{"model": "good", "stream": true, {REST}}}'
    head = f"POST /v1/chat/completions HTTP/1.0\r\nauthorization: Bearer {ADMIN}\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", int(served.address.rpartition(":")[2]))) as connection:
        connection.sendall((head + body).encode())
        answer = connection.makefile("rb").read()
    assert b" 400 " in answer and b"need HTTP/1.1" in answer and not provider.received


def test_nobodys_odd_requests_make_those_of_others_look_dear(served: Served, provider: ModelProvider) -> None:
    def estimated(key: str) -> int:
        body = {"model": "good", "messages": [{"role": "user", "content": "Hello world. " * 1000}]}
        answer = send(served, json.dumps(body), "/v1/messages/count_tokens", key)
        tokens: int = answer.json()["input_tokens"]
        return tokens

    mallory, other = (served.admin("POST", "keys", {"grants": {"models": ["*"]}}).json()["secret"] for _ in range(2))
    before = estimated(other)
    # 100 bytes, of which the provider counts 1,000 tokens, as it does with an image by its address.
    assert send(served, f'{{"model": "good", {REST}}}', key=mallory).status_code == 200
    assert estimated(mallory) > 2 * before and estimated(other) == before


# --- Providers


def ask(served: Served, model: str, key: str = ADMIN, **more: Any) -> httpx2.Response:
    return send(served, json.dumps({"model": model, "messages": [], **more}), key=key)


def cost_of(served: Served, model: str, **more: Any) -> float:
    """In dollars, of one request by a key of its own."""
    created = served.admin("POST", "keys", {"grants": {"models": ["*"]}, "budget": {"limit_usd": 1}}).json()
    ask(served, model, created["secret"], **more)
    paid = float(served.cost(key=created["key"]["id"]))
    assert float(served.standing(f"keys/{created['key']['id']}")["spent"]) == paid
    return paid


def test_a_flood_of_blank_lines_is_passed_on_at_once(served: Served) -> None:
    began = time.monotonic()
    assert ask(served, "raw/blank-lines", stream=True).text.count("Hello world.") == 2
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("model", ["raw/pings", "raw/bomb", "raw/redirect"])
def test_what_never_becomes_an_answer_is_given_up(model: str, served: Served) -> None:
    answer = ask(served, model, stream=True)
    assert answer.status_code == 502 and answer.json()["error"]["code"] == "upstream_error"


def test_an_error_whose_body_does_not_end_does_not_keep_the_next_target_waiting(served: Served) -> None:
    assert ask(served, "safe").headers["x-mcpgate-provider"] == "open"


@pytest.mark.parametrize("status", [400, 401, 500])
def test_an_error_that_repeats_the_credential_is_shown_without_it(status: int, served: Served) -> None:
    answer = ask(served, f"raw/echo-{status}")
    assert "not accepted: Bearer ********" in answer.text and "sk-of" not in answer.text


@pytest.mark.parametrize("provider_name", ["raw", "keys"])
def test_headers_that_make_no_sense_are_ignored(provider_name: str, served: Served) -> None:
    answer = ask(served, f"{provider_name}/ancient")
    assert answer.status_code == 429 and "x-should-retry" not in answer.headers


@pytest.mark.parametrize(
    "usage",
    [
        "{}",
        '{"prompt_tokens": -5, "completion_tokens": -1}',
        '{"prompt_tokens": "1000"}',
        '{"prompt_tokens": NaN}',
        '{"prompt_tokens": 1e400}',
        '{"prompt_tokens": 999999999999}',
    ],
)
def test_usage_that_cannot_be_is_estimated(usage: str, served: Served) -> None:
    assert 0 < cost_of(served, f"raw/usage:{usage}") < 0.01


def test_usage_in_other_numbers_counts_and_its_cached_part_is_no_more_than_all(served: Served) -> None:
    assert cost_of(served, 'raw/usage:{"prompt_tokens": 1000.0, "completion_tokens": 50.0}') == 0.0025
    details = '{"prompt_tokens": 1000, "prompt_tokens_details": {"cached_tokens": 1000000}}'
    assert cost_of(served, f"raw/usage:{details}") == 0.002


@pytest.mark.parametrize(("model", "least"), [("raw/no-tokens", 0.002), ("raw/no-blank-line", 0.0025)])
def test_what_a_stream_has_delivered_is_paid_whatever_it_says(model: str, least: float, served: Served) -> None:
    assert least <= cost_of(served, model, stream=True) < 0.01


def test_a_broken_stream_is_told_once(served: Served) -> None:
    assert ask(served, "raw/broken", stream=True).text.count("broke off") == 1


def test_who_hangs_up_before_the_answer_begins_pays_for_what_was_sent(served: Served) -> None:
    created = served.admin("POST", "keys", {"grants": {"models": ["*"]}, "budget": {"limit_usd": 1}}).json()
    with pytest.raises(httpx2.ReadTimeout):
        body = {"model": "raw/silent", "messages": ["Hello world. " * 1000]}
        served.http().post("/v1/chat/completions", json=body, headers=bearer(created["secret"]), timeout=1)
    row = wait_until(lambda: served.usage(by="outcome,provider", key=created["key"]["id"], provider="raw"))[0]
    assert row["outcome"] == "cancelled" and float(row["cost_usd"]) > 0.005


def test_a_gateway_that_stops_says_so_to_whoever_still_waits(tmp_path: Path, raw_address: str) -> None:
    llm = {"providers": {"raw": {"type": "openai", "base_url": raw_address}}}
    keys = {"one": {"secret": "mg-key-one", "grants": {"models": ["*"]}}}
    with serving(tmp_path, write_config(tmp_path, {}, governance={"keys": keys}, llm=llm)) as served:
        _Raw.waiting.clear()
        with ThreadPoolExecutor(2) as pool:
            whole = pool.submit(ask, served, "raw/silent", "mg-key-one")
            begun = pool.submit(ask, served, "raw/half-stream", "mg-key-one", stream=True)
            wait_until(lambda: len(_Raw.waiting) == 2)
            served.stop()
            assert whole.result().status_code == 503 and "shutting down" in whole.result().text
            assert "Hello world." in begun.result().text and "shutting down" in begun.result().text
