"""Calls that become tasks: of servers and for clients of either era, in all pairings, and run to their end for clients
and code that cannot follow a task."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.flows.governed import ADMIN, TRUSTED, Served, bearer, serving, wait_until, write_config

SERVER = Path(__file__).parents[1] / "task_server.py"
META, EXTENSION = "io.modelcontextprotocol/", "io.modelcontextprotocol/tasks"
RELATED = META + "related-task"
ADA = {"action": "accept", "content": {"name": "Ada"}}
SERVERS = pytest.mark.parametrize("server", ["old", "new"])
ERAS = pytest.mark.parametrize("era", ["handshake", "modern"])
OVER = ("completed", "failed", "cancelled")


class Failed(Exception):
    """A JSON-RPC error: its code and message."""


class Caller:
    """A client that follows tasks, of one era, reading and writing the wire itself."""

    def __init__(self, served: Served, era: str, key: str = ADMIN, extensions: bool = True) -> None:
        self.http, self.era, self.key = served.http(), era, key
        self.capabilities: dict[str, Any] = {"elicitation": {}}
        if extensions:
            self.capabilities["extensions"] = {EXTENSION: {}}
        self.session: dict[str, str] = {}
        self.asked: list[dict[str, Any]] = []
        if era == "handshake":
            info = {"name": "test", "version": "1"}
            about = {"protocolVersion": "2025-11-25", "capabilities": self.capabilities, "clientInfo": info}
            self.rpc("initialize", about)

    def rpc(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """The result of a request. Raises Failed."""
        params = dict(params or {})
        headers = {**bearer(self.key), "accept": "application/json, text/event-stream", **self.session}
        if self.era == "modern":
            about = {"protocolVersion": "2026-07-28", "clientCapabilities": self.capabilities}
            params["_meta"] = {META + key: value for key, value in about.items()}
            headers |= {"mcp-protocol-version": "2026-07-28", "mcp-method": method}
            if name := params.get("taskId", params.get("name")):
                headers["mcp-name"] = name
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        with self.http.stream("POST", "/mcp", json=message, headers=headers) as response:
            if "mcp-session-id" in response.headers:
                self.session = {"mcp-session-id": response.headers["mcp-session-id"]}
            answer = self._read(response)
        if "error" in answer:
            raise Failed(answer["error"]["code"], answer["error"]["message"])
        result: dict[str, Any] = answer["result"]
        return result

    def _read(self, response: httpx2.Response) -> dict[str, Any]:
        """The answer; what the gateway asks meanwhile is answered."""
        if response.headers["content-type"] != "text/event-stream":
            response.read()
            found: dict[str, Any] = response.json()
            return found
        for line in response.iter_lines():
            message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
            if "method" in message and "id" in message:
                self.asked.append(message)
                answer = {"jsonrpc": "2.0", "id": message["id"], "result": ADA}
                self.http.post("/mcp", json=answer, headers={**bearer(self.key), **self.session})
            elif "id" in message:
                return dict(message)
        raise AssertionError("the stream ended without an answer")

    def call(self, name: str, as_task: bool = True, **arguments: Any) -> dict[str, Any]:
        task = {"task": {"ttl": 60_000}} if as_task and self.era == "handshake" else {}
        return self.rpc("tools/call", {"name": name, "arguments": arguments, **task})

    def start(self, name: str, **arguments: Any) -> str:
        """The id of the task that a call has become."""
        result = self.call(name, **arguments)
        task = result["task"] if self.era == "handshake" else result
        assert task["status"] == "working"
        return str(task["taskId"])

    def state(self, id: str) -> dict[str, Any]:
        return self.rpc("tasks/get", {"taskId": id})

    def wait(self, id: str, *statuses: str) -> dict[str, Any]:
        found: dict[str, Any] = wait_until(lambda: state if (state := self.state(id))["status"] in statuses else None)
        return found

    def result(self, id: str) -> dict[str, Any]:
        """What the call has come to, as clients of this era fetch it. Raises Failed."""
        if self.era == "handshake":
            return self.rpc("tasks/result", {"taskId": id})
        state = self.wait(id, *OVER)
        if "error" in state:
            raise Failed(state["error"]["code"], state["error"]["message"])
        found: dict[str, Any] = state["result"]
        return found


def text_of(result: dict[str, Any]) -> str:
    return str(result["content"][0]["text"])


def server(folder: Path, era: str) -> dict[str, Any]:
    args = [str(SERVER), era, str(folder / f"{era}.log")]
    return {"command": sys.executable, "args": args, "expose": "both"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tasks")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    servers = {"old": server(folder, "handshake"), "new": server(folder, "modern")}
    keys = {**TRUSTED, "bob": {"secret": "mg-key-of-bob", "grants": {"tools": ["*"]}}}
    with serving(folder, write_config(folder, servers, governance={"keys": keys})) as running:
        yield running


@pytest.fixture
def caller(served: Served) -> Callable[..., Caller]:
    return lambda era, **more: Caller(served, era, **more)


@ERAS
@SERVERS
def test_a_call_becomes_a_task_whose_result_is_fetched_later(
    era: str, server: str, caller: Callable[..., Caller]
) -> None:
    client = caller(era)
    id = client.start(f"{server}__patient")
    assert client.state(id)["status"] in ("working", *OVER)
    result = client.result(id)
    assert text_of(result) == "the patient one is done"
    assert result.get("_meta", {}).get(RELATED) == ({"taskId": id} if era == "handshake" else None)
    state = client.state(id)
    assert (state["status"], state["statusMessage"]) == ("completed", "half of it is done")


@ERAS
@SERVERS
def test_a_task_asks_its_client(era: str, server: str, caller: Callable[..., Caller]) -> None:
    client = caller(era)
    id = client.start(f"{server}__multi_input")
    state = client.wait(id, "input_required")
    if era == "modern":
        if server == "new":  # one after the other: what is answered is asked no longer
            first, second = wait_until(lambda: len(asked := client.state(id)["inputRequests"]) == 2 and asked)
            client.rpc("tasks/update", {"taskId": id, "inputResponses": {first: ADA}})
            assert [*client.state(id)["inputRequests"]] == [second]
        for _ in range(2):
            asked = client.wait(id, "input_required", *OVER).get("inputRequests", {})
            client.rpc("tasks/update", {"taskId": id, "inputResponses": dict.fromkeys(asked, ADA)})
    else:
        assert "inputRequests" not in state
    assert json.loads(text_of(client.result(id))) == {"first": ADA, "second": ADA}
    if era == "handshake":
        assert len(client.asked) == 2
        assert {question["params"]["_meta"][RELATED]["taskId"] for question in client.asked} == {id}


@ERAS
@SERVERS
def test_a_task_that_fails_tells_what_the_call_would_have_told(
    era: str, server: str, caller: Callable[..., Caller]
) -> None:
    client = caller(era)
    id = client.start(f"{server}__protocol_error_job")
    with pytest.raises(Failed) as failed:
        client.result(id)
    assert failed.value.args == (-32603, "it panicked") and client.state(id)["status"] == "failed"
    job = client.start(f"{server}__failing_job")
    result = client.result(job)
    assert result["isError"] is True and text_of(result) == "the job has failed"
    assert client.state(job)["status"] == ("failed" if era == "handshake" else "completed")


@ERAS
@SERVERS
def test_a_cancelled_task_is_cancelled_at_its_server(
    era: str, server: str, caller: Callable[..., Caller], folder: Path
) -> None:
    log = folder / ("handshake.log" if server == "old" else "modern.log")
    client = caller(era)
    id = client.start(f"{server}__slow_compute", seconds=60)
    before = log.read_text().count("cancel")
    cancelled = client.rpc("tasks/cancel", {"taskId": id})
    assert cancelled["status"] == "cancelled" if era == "handshake" else "status" not in cancelled
    assert client.state(id)["status"] == "cancelled"
    wait_until(lambda: log.read_text().count("cancel") > before)
    if era == "handshake":
        with pytest.raises(Failed, match="-32602"):
            client.rpc("tasks/cancel", {"taskId": id})


@ERAS
@SERVERS
def test_a_client_without_tasks_gets_the_result_itself(era: str, server: str, caller: Callable[..., Caller]) -> None:
    client = caller(era, extensions=False)
    assert text_of(client.call(f"{server}__patient", as_task=False)) == "the patient one is done"
    if era == "modern":
        with pytest.raises(Failed, match="-32021"):
            client.state("task-of-nobody")


@SERVERS
def test_code_just_calls_tools_that_must_be_called_as_tasks(server: str, served: Served) -> None:
    answer = served.run(f"return [{server}.patient(), {server}.slow_compute(seconds=0.1, label='it')]")
    done = (
        "slow_compute is done at once" if server == "old" else "computed it"
    )  # an old one is only asked where it must
    assert json.loads(answer.text) == ["the patient one is done", done]


@ERAS
def test_nobody_else_reaches_a_task(era: str, caller: Callable[..., Caller]) -> None:
    owner, bob = caller(era), caller(era, key="mg-key-of-bob")
    id = owner.start("new__slow_compute", seconds=30)
    for method in ("tasks/get", "tasks/cancel"):
        with pytest.raises(Failed, match="-32602"):
            bob.rpc(method, {"taskId": id})
    if era == "handshake":
        assert id in [task["taskId"] for task in owner.rpc("tasks/list")["tasks"]]
        assert id not in [task["taskId"] for task in bob.rpc("tasks/list")["tasks"]]
    assert owner.state(id)["status"] == "working"
    owner.rpc("tasks/cancel", {"taskId": id})


def test_a_task_of_a_revoked_key_ends(served: Served, caller: Callable[..., Caller], folder: Path) -> None:
    created = served.admin("POST", "keys", {"grants": {"tools": ["*"]}}).json()
    client = caller("modern", key=created["secret"])
    client.start("new__slow_compute", seconds=60)
    log = folder / "modern.log"
    before = log.read_text().count("cancel")
    assert served.admin("DELETE", f"keys/{created['key']['id']}").status_code == 200
    wait_until(lambda: log.read_text().count("cancel") > before)


def test_a_key_has_no_more_than_64_tasks_at_once(caller: Callable[..., Caller]) -> None:
    client = caller("handshake", key="mg-key-of-bob")
    ids = [client.start("old__slow_compute", seconds=60) for _ in range(64)]
    with pytest.raises(Failed, match="64 tasks are under way"):
        client.call("old__slow_compute", seconds=60)
    client.rpc("tasks/cancel", {"taskId": ids[0]})
    assert client.start("old__slow_compute", seconds=60)  # in place of the one that is over
    with pytest.raises(Failed, match="-32602"):
        client.state(ids[0])
    for task in client.rpc("tasks/list")["tasks"]:
        if task["status"] == "working":
            client.rpc("tasks/cancel", {"taskId": task["taskId"]})


def test_a_task_that_is_to_be_kept_for_ever_is_kept_for_a_day(caller: Callable[..., Caller]) -> None:
    client, call = caller("handshake"), {"name": "old__patient", "arguments": {}}
    task = client.rpc("tools/call", {**call, "task": {"ttl": 10**400}})["task"]
    assert task["ttl"] == 24 * 3600 * 1000


@pytest.mark.parametrize("name", ["old__greet", "execute_code"])
def test_what_cannot_be_a_task_says_so(name: str, caller: Callable[..., Caller]) -> None:
    with pytest.raises(Failed, match=f"-32601.*{name.removeprefix('old__')} cannot be called as a task"):
        caller("handshake").call(name, code="1")


def test_several_processes_offer_no_tasks_and_wait_for_results(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"old": server(tmp_path, "handshake")}, governance={"keys": TRUSTED})
    with serving(tmp_path, config, workers=2) as running:
        client = Caller(running, "modern")
        assert EXTENSION not in client.rpc("server/discover")["capabilities"].get("extensions", {})
        assert text_of(client.call("old__patient")) == "the patient one is done"
        with pytest.raises(Failed, match="-32601"):
            client.state("task-of-nobody")
