"""A client whose stream broke comes back with the id of the last event that it has, and gets what it missed."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mcpgate.api.mcp.replay import Replay
from tests.conftest import raw
from tests.flows.governed import ADMIN, TRUSTED, Served, bearer, call_of, serving, write_config

EVENTS = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-11-25"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("resuming")
    keys = {**TRUSTED, "bob": {"secret": "mg-key-of-bob", "grants": {"tools": ["*"]}}}
    config = write_config(folder, {"raw": raw(expose="direct")}, governance={"keys": keys})
    with serving(folder, config) as running:
        yield running


@pytest.fixture
def session(served: Served) -> dict[str, str]:
    """The headers of a session."""
    info = {"name": "test", "version": "1"}
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info}
    message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
    answer = served.http().post("/mcp", json=message, headers={**EVENTS, **bearer(ADMIN)})
    return {**EVENTS, **bearer(ADMIN), "mcp-session-id": answer.headers["mcp-session-id"]}


def events_of(response: httpx2.Response) -> Iterator[tuple[str, Any]]:
    """Ids and messages; None for an event without data."""
    id = ""
    for line in response.iter_lines():
        field, _, value = line.partition(": ")
        if field == "id":
            id = value
        elif field.startswith("data"):
            yield id, json.loads(value) if value else None


def broken_off(served: Served, session: dict[str, str], message: dict[str, Any]) -> str:
    """The id of the first event of a response, whose connection then breaks."""
    with served.http().stream("POST", "/mcp", json=message, headers=session) as response:
        id, _ = next(events_of(response))
        return id


def missed(served: Served, session: dict[str, str], id: str) -> list[Any]:
    """Everything after an event, until the stream ends."""
    with served.http().stream("GET", "/mcp", headers={**session, "last-event-id": id}) as response:
        return [message for _, message in events_of(response)]


def test_an_answer_whose_stream_broke_is_fetched_again(served: Served, session: dict[str, str]) -> None:
    id = broken_off(served, session, call_of("raw__meet", {"number": 2}, id=7))
    served.call("raw__meet", {"number": 2})  # only now can the first one end
    for _ in range(2):  # the second connection may break, too
        (answer,) = missed(served, session, id)
        assert answer["id"] == 7 and answer["result"]["content"][0]["text"] == "met"


def test_nothing_is_told_twice_and_nothing_is_left_out(served: Served, session: dict[str, str]) -> None:
    message = call_of("raw__steps", {"number": 5}, _meta={"progressToken": "t"})
    with served.http().stream("POST", "/mcp", json=message, headers=session) as response:
        whole = list(events_of(response))
    assert whole[0][1] is None and len({id for id, _ in whole}) == len(whole) == 7
    for number, (id, _) in enumerate(whole):
        assert missed(served, session, id) == [message for _, message in whole[number + 1 :]]


def test_a_stream_belongs_to_its_session_and_caller(served: Served, session: dict[str, str]) -> None:
    id = broken_off(served, session, call_of("raw__steps", {"number": 5}, _meta={"progressToken": "t"}))
    theirs = {**session, **bearer("mg-key-of-bob"), "last-event-id": id}
    assert served.http().get("/mcp", headers=theirs).status_code == 404


def test_a_message_that_belongs_to_no_request_is_told_again(served: Served, session: dict[str, str]) -> None:
    with served.http().stream("GET", "/mcp", headers=session) as response:
        served.call("raw__grow")
        id, message = next(events_of(response))
        assert message["method"] == "notifications/tools/list_changed"
    served.call("raw__grow")
    with served.http().stream("GET", "/mcp", headers={**session, "last-event-id": id}) as response:
        again = next(events_of(response))
    before = id.split("-")[0] + "-0"
    with served.http().stream("GET", "/mcp", headers={**session, "last-event-id": before}) as response:
        events = events_of(response)
        assert [next(events), next(events)] == [(id, message), again]


@pytest.mark.parametrize("id", ["1-1", "x", "0-99", "-", "9" * 50, "1-2-3", "٣-١"])
def test_an_id_that_nobody_gave_is_no_error(id: str, served: Served, session: dict[str, str]) -> None:
    headers = {**session, "last-event-id": id.encode()}
    with served.http().stream("GET", "/mcp", headers=headers) as response:
        assert response.status_code == 200


def numbers(replay: Replay, event: bytes) -> Callable[[], list[bytes]]:
    found = replay.find(event.decode())
    assert found is not None
    return lambda: [data for _, data in replay.after(*found)]


def test_what_is_kept_is_bounded_and_the_oldest_goes_first(tmp_path: Path) -> None:
    sizes: list[int] = []
    replay = Replay(sizes.append, limit=100)
    stream = replay.open()
    left = numbers(replay, stream.add(b""))
    for number in range(30):
        stream.add(b"%09d." % number)
        assert replay.size <= 100 and sum(sizes) == replay.size
    assert left() == [b"%09d." % number for number in range(20, 30)]
    stream.add(b"x" * 1000)  # longer than all there is room for: it alone is kept
    assert left() == [b"x" * 1000]
    replay.close()
    assert sum(sizes) == 0 and stream.ended


def test_what_is_said_after_a_session_has_ended_is_not_kept() -> None:
    sizes: list[int] = []
    replay = Replay(sizes.append)
    stream = replay.open()
    replay.close()
    stream.add(b"late")
    assert replay.size == sum(sizes) == 0


def test_streams_that_ended_are_forgotten_in_their_turn() -> None:
    replay = Replay()
    first = replay.open()
    id = first.add(b"it").decode()
    for _ in range(200):
        replay.open().end()
    assert replay.find(id) is not None, "it has not ended"
    first.end()
    for _ in range(65):
        replay.open().end()
    assert replay.find(id) is None
