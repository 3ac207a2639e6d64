"""Responses over a WebSocket, as Codex and OpenAI's own SDK dial them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets
from openai import AsyncOpenAI
from websockets.asyncio.client import ClientConnection, connect

from tests.flows.governed import ADMIN, TRUSTED, Served, serving, wait_until, write_config
from tests.model_provider import ModelProvider

pytestmark = pytest.mark.anyio


def settings(provider: ModelProvider) -> dict[str, Any]:
    llm = {
        "providers": {"claude": {"type": "anthropic", "base_url": provider.address}, "echo": {"type": "echo"}},
        "models": {"fast": {"targets": [{"target": "echo/one"}]}},
        "prices": {"*/*": {"input_usd_per_mtok": 0, "output_usd_per_mtok": 200}},
    }
    keys = {**TRUSTED, "admin": {**TRUSTED["admin"], "grants": {"admin": True, "models": ["*"]}}}
    return {"governance": {"keys": keys}, "llm": llm}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, provider: ModelProvider) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("sockets")
    with serving(folder, write_config(folder, {}, **settings(provider))) as running:
        yield running


@contextlib.asynccontextmanager
async def dialled(served: Served, key: str = ADMIN) -> AsyncIterator[ClientConnection]:
    address = served.address.replace("http:", "ws:") + "/v1/responses"
    async with connect(address, additional_headers={"authorization": f"Bearer {key}"}, max_size=None) as socket:
        yield socket


async def turn(socket: ClientConnection, **body: Any) -> list[dict[str, Any]]:
    await socket.send(json.dumps({"type": "response.create", **body}))
    return await answer(socket)


async def answer(socket: ClientConnection) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    async with asyncio.timeout(10):
        while not events or events[-1]["type"] not in ("response.completed", "response.incomplete", "error"):
            events.append(json.loads(await socket.recv()))
    return events


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")


async def test_openais_own_sdk_talks_over_a_socket(served: Served) -> None:
    client = AsyncOpenAI(base_url=f"{served.address}/v1", api_key=ADMIN)
    async with client.responses.connect() as connection:
        await connection.response.create(model="fast", input="Say this back.")
        types, last = [], None
        async for event in connection:
            types.append(event.type)
            if event.type == "response.completed":
                last = event
                break
        assert types[0] == "response.created" and last is not None
        assert last.response.output_text == "Say this back."
    await client.close()


@pytest.mark.parametrize("model", ["fast", "claude/good"])
async def test_every_provider_is_served_and_remembers_the_conversation(
    model: str, served: Served, provider: ModelProvider
) -> None:
    provider.received.clear()
    async with dialled(served) as socket:
        first = await turn(socket, model=model, input="one two")
        assert text_of(first)
        id = first[-1]["response"]["id"]
        second = await turn(
            socket, model=model, previous_response_id=id, input=[{"role": "user", "content": "three four"}]
        )
        assert second[-1]["type"] == "response.completed"
    if model == "claude/good":
        sent = [[one["role"] for one in request.body["messages"]] for request in provider.received]
        assert sent == [["user"], ["user", "assistant", "user"]]


async def test_a_prewarm_costs_nothing_and_is_what_the_first_turn_begins_with(
    served: Served, provider: ModelProvider
) -> None:
    provider.received.clear()
    async with dialled(served) as socket:
        warm = await turn(socket, model="claude/good", generate=False, input="You are a fox.", store=False)
        assert [event["type"] for event in warm] == ["response.created", "response.completed"]
        assert warm[-1]["response"]["output"] == [] and not provider.received
        id = warm[-1]["response"]["id"]
        await turn(socket, model="claude/good", previous_response_id=id, input="Say hello.", store=False)
    (request,) = provider.received
    assert "You are a fox." in json.dumps(request.body) and "Say hello." in json.dumps(request.body)


async def test_each_turn_is_admitted_by_itself(served: Served) -> None:
    spec = {"grants": {"models": ["*"]}, "budget": {"limit_usd": 0.05}}
    created = served.admin("POST", "keys", spec).json()
    ask = {"model": "claude/good", "input": "Say hello.", "max_output_tokens": 100}
    async with dialled(served, created["secret"]) as socket:
        ends = [(await turn(socket, **ask))[-1] for _ in range(5)]
    assert [end["type"] for end in ends] == ["response.completed"] * 4 + ["error"]
    assert ends[-1]["status"] == 402 and ends[-1]["error"]["code"] == "budget_exceeded"
    rows = wait_until(lambda: served.usage("key", key=created["key"]["id"]))
    assert rows[0]["cost_usd"] == "0.04"


async def test_a_revoked_key_gets_no_further_turn(served: Served) -> None:
    created = served.admin("POST", "keys", {"grants": {"models": ["*"]}}).json()
    async with dialled(served, created["secret"]) as socket:
        assert (await turn(socket, model="fast", input="hi"))[-1]["type"] == "response.completed"
        served.admin("DELETE", f"keys/{created['key']['id']}")

        async def last() -> dict[str, Any]:
            return (await turn(socket, model="fast", input="hi"))[-1]

        async with asyncio.timeout(5):
            while (end := await last())["type"] != "error":
                pass
        assert end["status"] in (401, 403)


@pytest.mark.parametrize(("key", "status"), [("", 401), ("mg-nobody-has-this", 401)])
async def test_who_has_no_key_gets_no_socket(key: str, status: int, served: Served) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with dialled(served, key):
            pass
    assert refused.value.response.status_code == status
    assert b'"error"' in refused.value.response.body


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("nonsense", "not JSON"),
        ("[1]", "JSON object"),
        ('{"type": "response.steer"}', "response.steer"),
        ('{"type": "response.create", "input": "x"}', "model"),
        ('{"type": "response.create", "model": "fast", "input": 5}', "input"),
        ('{"type": "response.create", "model": "no-such", "input": "x"}', "no model"),
        ('{"type": "response.create", "model": "no-such", "generate": false, "input": "x"}', "no model"),
        ('{"type": "response.create", "model": "claude/status-429", "input": "x"}', "429"),
        ('{"type": "response.create", "model": "claude/cut", "input": "x"}', "broke off"),
    ],
)
async def test_what_goes_wrong_is_said_and_the_connection_goes_on(message: str, words: str, served: Served) -> None:
    async with dialled(served) as socket:
        await socket.send(message)
        end = (await answer(socket))[-1]
        assert end["type"] == "error" and words in json.dumps(end) and end["status"] >= 400
        assert (await turn(socket, model="fast", input="go on"))[-1]["type"] == "response.completed"


async def test_a_client_that_hangs_up_ends_its_turn(served: Served, provider: ModelProvider) -> None:
    provider.gone.clear()
    provider.go_on.clear()
    async with dialled(served) as socket:
        await socket.send(json.dumps({"type": "response.create", "model": "claude/slow", "input": "x"}))
        async with asyncio.timeout(10):
            while json.loads(await socket.recv())["type"] != "response.in_progress":
                pass
        socket.transport.abort()
    assert await asyncio.to_thread(provider.gone.wait, 10)


async def test_messages_are_answered_in_turn_and_a_flood_ends_the_connection(served: Served) -> None:
    async with dialled(served) as socket:
        for number in range(3):
            ask = {"type": "response.create", "model": "fast", "input": f"number {number}"}
            await socket.send(json.dumps(ask))
        assert [text_of(await answer(socket)) for _ in range(3)] == ["number 0", "number 1", "number 2"]
        with pytest.raises(websockets.ConnectionClosed):
            for _ in range(500):
                await socket.send(json.dumps({"type": "response.create", "model": "claude/hang", "input": "x"}))
            await asyncio.wait_for(socket.recv(), 10)


async def test_a_stopping_gateway_ends_the_turn_and_says_that_it_restarts(
    tmp_path: Path, provider: ModelProvider
) -> None:
    with serving(tmp_path, write_config(tmp_path, {}, **settings(provider))) as served:
        async with dialled(served) as idle, dialled(served) as busy:
            await busy.send(json.dumps({"type": "response.create", "model": "claude/hang", "input": "x"}))
            await turn(idle, model="fast", input="hi")
            served.process.terminate()
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await asyncio.wait_for(idle.recv(), 10)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012
            end = (await answer(busy))[-1]
            assert end["error"]["code"] == "unavailable"


async def test_other_paths_take_no_socket(served: Served) -> None:
    address = served.address.replace("http:", "ws:")
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with connect(f"{address}/v1/chat/completions", additional_headers={"authorization": f"Bearer {ADMIN}"}):
            pass
    assert refused.value.response.status_code == 405
