"""Answers for questions that mean the same, through /v1, with the model that is part of the extra `semantic`."""

import base64
import json
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.flows.governed import (
    ADMIN,
    TRUSTED,
    Served,
    bearer,
    environment,
    mcpgate,
    own_database,
    serving,
    wait_until,
    write_config,
)
from tests.flows.test_cached_models import WORDS, ask, cache_of, member
from tests.model_provider import ModelProvider

pytest.importorskip("onnxruntime")
ANSWER = "".join(WORDS)
LOOK = {"x-mcpgate-cache": "no-store"}
"""Answer from the cache, but keep nothing: so that a question can be asked again and again."""


def learns(served: Served) -> bool:
    ask(served, "What is the boiling point of methanol?", headers={"x-mcpgate-cache": "refresh"})
    return cache_of(ask(served, "what's the boiling point of methanol", headers=LOOK)) == "semantic"


def kept(served: Served, text: str, **more: Any) -> httpx2.Response:
    """The first answer to a question, once others can find it."""
    first = ask(served, text, **more)
    wait_until(lambda: cache_of(ask(served, text, headers=LOOK, **more)) == "exact")
    return first


def configured(folder: Path, provider: ModelProvider, database: str | None = None, **semantic: Any) -> Path:
    llm = {"providers": {"open": {"type": "openai", "base_url": provider.address, "api_key": "sk-of-the-provider"}}}
    keys = {**TRUSTED, "admin": {**TRUSTED["admin"], "grants": {"admin": True, "models": ["*"]}}}
    settings = {"enabled": True, "check_share": 0, **semantic}
    governance = {"keys": keys, "teams": {"red": {}, "blue": {}}}
    storage = {} if database is None else {"storage": {"url": database}}
    cache = {"ttl_s": 600, "semantic": settings}
    return write_config(folder, {}, governance=governance, llm=llm, cache=cache, **storage)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, provider: ModelProvider) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("meanings")
    with serving(folder, configured(folder, provider)) as served:
        wait_until(lambda: learns(served))  # the model is loaded after the start
        yield served


@pytest.fixture(autouse=True)
def fresh(provider: ModelProvider) -> None:
    provider.received.clear()


def test_a_question_that_means_the_same_is_answered_without_the_provider(
    served: Served, provider: ModelProvider
) -> None:
    first = kept(served, "What is the boiling point of ethanol?")
    provider.received.clear()
    second = ask(served, "what's the boiling point of ethanol", headers=LOOK)
    assert (cache_of(first), cache_of(second)) == ("miss", "semantic")
    assert second.content == first.content and not provider.received
    assert 0.5 < float(second.headers["x-mcpgate-cache-similarity"]) <= 1
    assert second.headers["x-mcpgate-cache-key"] == first.headers["x-mcpgate-cache-key"]
    (row,) = (row for row in served.usage("cache") if row["cache"] == "semantic")
    assert row["entries"] >= 1 and row["model_tokens_saved"] > 0


def test_it_is_streamed_to_whoever_asks_for_a_stream(served: Served) -> None:
    kept(served, "What is the boiling point of propanol?")
    answer = ask(served, "what's the boiling point of propanol", headers=LOOK, stream=True)
    assert cache_of(answer) == "semantic" and "data: [DONE]" in answer.text


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("How many legs do 3 spiders have?", "How many legs do 4 spiders have?"),
        ("What is the capital of France?", "What is the capital of Spain?"),
        ("Is it safe to eat raw eggs?", "Is it not safe to eat raw eggs?"),
        ("How do I fly from Paris to Rome?", "How do I fly from Rome to Paris?"),
        ("How far is a mile in km?", "How far is a mile in feet?"),
    ],
)
def test_what_differs_is_a_miss(stored: str, asked: str, served: Served) -> None:
    kept(served, stored)
    assert cache_of(ask(served, asked, headers=LOOK)) == "miss"


def test_everything_before_the_question_must_be_equal(served: Served) -> None:
    kept(served, "What is the boiling point of butanol?")
    same = "what's the boiling point of butanol"
    assert cache_of(ask(served, same, headers=LOOK)) == "semantic"
    others: list[dict[str, Any]] = [
        {"max_tokens": 7},
        {"model": "open/another"},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]},
        {"messages": [{"role": "system", "content": "Be rude."}, {"role": "user", "content": same}]},
    ]
    assert [cache_of(ask(served, same, headers=LOOK, **other)) for other in others] == ["miss"] * 4


def test_tenants_do_not_share_meanings_and_users_keep_what_is_personal(served: Served) -> None:
    red, red_too, blue = member(served, "red"), member(served, "red"), member(served, "blue")
    kept(served, "What is the boiling point of pentanol?", key=red)
    same = "what's the boiling point of pentanol"
    assert [cache_of(ask(served, same, key=key, headers=LOOK)) for key in (red_too, blue)] == ["semantic", "miss"]
    kept(served, "Where is my order?", key=red)
    assert cache_of(ask(served, "where's my order", key=red, headers=LOOK)) == "miss"


def test_a_request_may_ask_for_more_similarity(served: Served) -> None:
    kept(served, "What is the boiling point of hexanol?")
    same = "what's the boiling point of hexanol"
    assert cache_of(ask(served, same, headers={**LOOK, "x-mcpgate-cache-threshold": "1"})) == "miss"
    assert cache_of(ask(served, same, headers={**LOOK, "x-mcpgate-cache-threshold": "0.5"})) == "semantic"


def test_an_answer_that_was_dropped_is_not_found_by_its_meaning(served: Served) -> None:
    id = kept(served, "What is the boiling point of octanol?").headers["x-mcpgate-cache-key"]
    same = "what's the boiling point of octanol"
    assert cache_of(ask(served, same, headers=LOOK)) == "semantic"
    served.admin("DELETE", f"cache?id={id}")
    assert cache_of(ask(served, same, headers=LOOK)) == "miss"


def test_meanings_are_found_after_a_restart_and_wrong_answers_are_dropped(
    tmp_path: Path, provider: ModelProvider
) -> None:
    config = configured(tmp_path, provider, check_share=0.5)
    body = {"model": "open/good", "messages": [{"role": "user", "content": "What is the boiling point of nonanol?"}]}
    choice = {"index": 0, "message": {"role": "assistant", "content": "It is 12 pounds."}, "finish_reason": "stop"}
    answer = {"id": "x", "object": "chat.completion", "created": 1, "model": "good", "choices": [choice]}
    line = {"body": {**body, "temperature": 0}, "answer": answer}
    file = tmp_path / "warm.jsonl"
    file.write_text(json.dumps(line))
    warmed = mcpgate("cache", "warm", str(file), "--key", "admin", "-c", str(config), env=environment(tmp_path))
    assert warmed.returncode == 0, warmed.stderr
    same = "what's the boiling point of nonanol"
    with serving(tmp_path, config) as served:
        found = wait_until(
            lambda: (one := ask(served, same, headers=LOOK)).headers["x-mcpgate-cache"] == "semantic" and one
        )
        assert "12 pounds" in found.text
        # The first hit of an entry is checked, unless it may keep nothing; the provider says something else.
        assert "12 pounds" in ask(served, same).text
        wait_until(lambda: 'mcpgate_cache_checks_total{result="wrong"}' in metrics(served))
        wait_until(lambda: "12 pounds" not in ask(served, same, headers=LOOK).text)


def test_pgvector_searches_for_all_processes(tmp_path: Path, provider: ModelProvider) -> None:
    with own_database("pgvector") as database:
        config = configured(tmp_path, provider, database, index="store")
        with serving(tmp_path / "a", config) as one, serving(tmp_path / "b", config) as other:
            wait_until(lambda: learns(one) and learns(other))
            kept(one, "What is the boiling point of heptanol?")
            same = "what's the boiling point of heptanol"
            answer = wait_until(lambda: cache_of(found := ask(other, same, headers=LOOK)) == "semantic" and found)
            assert ANSWER in answer.text
            assert cache_of(ask(other, "what's the melting point of heptanol", headers=LOOK)) == "miss"
            blue = member(other, "blue")
            assert cache_of(ask(other, same, key=blue, headers=LOOK)) == "miss"
            one.admin("DELETE", f"cache?id={answer.headers['x-mcpgate-cache-key']}")
            wait_until(lambda: cache_of(ask(other, same, headers=LOOK)) == "miss")


def metrics(served: Served) -> str:
    return served.http().get("/metrics", headers=bearer(ADMIN)).text


class _Embedder(BaseHTTPRequestHandler):
    """Says the same vector for everything that ends in the same word."""

    asked: list[dict[str, Any]]
    fails: threading.Event

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append(body)
        vectors = []
        for index, text in enumerate(body["input"]):
            word = text.rstrip("?").split()[-1]
            numbers = [float(ord(letter)) for letter in word[:8].ljust(8)]
            packed = base64.b64encode(struct.pack("<8f", *numbers)).decode()
            vectors.append({"index": index, "embedding": packed if len(word) % 2 else numbers})
        data = json.dumps({"data": vectors}).encode()
        self.send_response(500 if self.fails.is_set() else 200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def test_an_endpoint_of_embeddings_may_find_the_candidates(tmp_path: Path, provider: ModelProvider) -> None:
    asked: list[dict[str, Any]] = []
    fails = threading.Event()
    handler = type("Handler", (_Embedder,), {"asked": asked, "fails": fails})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        embedder = {"base_url": f"http://127.0.0.1:{server.server_port}/v1", "model": "e5", "api_key": "sk-emb"}
        try:
            with serving(tmp_path, configured(tmp_path, provider, embedder=embedder)) as served:
                refresh = {"x-mcpgate-cache": "refresh"}
                same = "what's the boiling point of decanol"

                def is_found() -> bool:
                    ask(served, "What is the boiling point of decanol?", headers=refresh)
                    return cache_of(ask(served, same, headers=LOOK)) == "semantic"

                wait_until(is_found)
                assert asked[-1]["model"] == "e5" and asked[-1]["input"] == [same]
                fails.set()  # asked for without the cache, not refused
                assert cache_of(ask(served, same, headers=LOOK)) == "miss"
        finally:
            server.shutdown()
