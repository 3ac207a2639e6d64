"""The gateway as an MCP server over HTTP, message by message, in both eras. The SDK's own clients: tests/flows."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import MCPError
from mcp.client import Client

from mcpgate.api.http.port import PortLimits
from tests.api.faces import BOTH, ENVELOPE, MODERN, Faced, bearer, faced, key, modern, modern_headers
from tests.conftest import raw, until

pytestmark = pytest.mark.anyio
KEYS = {"require_key": True, "keys": {"bob": key("mg-bobsecret1"), "eve": key("mg-evesecret1")}}
META_TOOLS = ["list_tools", "describe_tools", "read_docs", "execute_code"]


# --- initialize, list, call


async def test_the_handshake_era_initializes_lists_and_calls(tmp_path: Path) -> None:
    async with faced(tmp_path, {"raw": raw(expose="direct")}) as opened:
        begun = await opened.rpc("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}})
        result = begun.json()["result"]
        assert result["protocolVersion"] == "2025-06-18" and result["serverInfo"]["name"] == "mcpgate"
        session = {"mcp-session-id": begun.headers["mcp-session-id"]}
        assert (
            await opened.post({"jsonrpc": "2.0", "method": "notifications/initialized"}, **session)
        ).status_code == 202
        listed = (await opened.rpc("tools/list", **session)).json()["result"]["tools"]
        assert [tool["name"] for tool in listed[:4]] == META_TOOLS and "raw__add" in {tool["name"] for tool in listed}
        called = await opened.rpc("tools/call", {"name": "raw__add", "arguments": {"a": 1, "b": 2}}, **session)
        assert called.json()["result"]["structuredContent"] == {"sum": 3}
        assert (await opened.http.delete("/mcp", headers=session)).status_code == 200
        assert (await opened.rpc("ping", **session)).status_code == 404


async def test_an_unknown_version_is_answered_with_the_newest_of_the_handshake_era(tmp_path: Path) -> None:
    async with faced(tmp_path) as opened:
        begun = await opened.rpc("initialize", {"protocolVersion": "1999-01-01", "capabilities": {}})
        assert begun.json()["result"]["protocolVersion"] == "2025-11-25"


async def test_the_present_era_discovers_lists_and_calls_without_a_session(tmp_path: Path) -> None:
    async with faced(tmp_path, {"raw": raw(expose="direct")}) as opened:
        found = (await opened.modern("server/discover")).json()["result"]
        assert found["supportedVersions"] == [MODERN] and found["resultType"] == "complete"
        listed = (await opened.modern("tools/list")).json()["result"]
        assert [tool["name"] for tool in listed["tools"][:4]] == META_TOOLS and listed["ttlMs"] == 0
        called = await opened.modern("tools/call", {"name": "raw__add", "arguments": {"a": 1, "b": 2}})
        assert called.json()["result"]["structuredContent"] == {"sum": 3}
        assert "mcp-session-id" not in called.headers


@pytest.mark.parametrize(
    ("message", "status", "code"),
    [
        (b"{nonsense", 400, -32700),
        (b'"text"', 400, -32600),
        (b"[]", 400, -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', 400, -32600),
        (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', 400, -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"nope"}', 200, -32601),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}', 200, -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":7}}', 200, -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"execute_cod"}}', 200, -32602),
    ],
)
async def test_the_handshake_era_refuses_what_is_no_request(
    tmp_path: Path, message: bytes, status: int, code: int
) -> None:
    async with faced(tmp_path) as opened:
        answer = await opened.post(message)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


async def test_the_present_era_refuses_with_http_statuses(tmp_path: Path) -> None:
    async with faced(tmp_path) as opened:
        assert (await opened.modern("nope")).status_code == 404
        wrong = await opened.post(modern("tools/list"), **modern_headers("tools/call"))
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, -32020)
        bare = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        assert (await opened.post(bare, **modern_headers("tools/list"))).json()["error"]["code"] == -32602
        assert (await opened.http.get("/mcp", headers={"mcp-protocol-version": MODERN})).status_code == 405
        assert (await opened.post([modern("ping")], **modern_headers("ping"))).status_code == 400


@pytest.mark.parametrize(
    "era, code",
    [
        *((era, code) for era in ("rpc", "modern") for code in (-32700, -32600, -32020, -32022)),
        ("rpc", -32021),
        ("modern", -32601),
    ],
)
async def test_what_an_upstream_says_of_the_protocol_does_not_pass_for_the_gateways_own_word(
    era: str, code: int, tmp_path: Path
) -> None:
    async with faced(tmp_path, {"raw": raw(expose="direct")}) as opened:
        ask = {"rpc": opened.rpc, "modern": opened.modern}[era]
        refused = await ask("tools/call", {"name": "raw__refuse", "arguments": {"code": code}})
        assert refused.status_code == 200
        error = refused.json()["error"]
        assert error["code"] == -32603 and "I refuse" in error["message"]
        assert error["data"] == {"server_code": code, "server_message": "I refuse", "server_data": {"why": "because"}}


async def test_a_client_hears_which_of_its_capabilities_an_upstream_lacks(tmp_path: Path) -> None:
    async with faced(tmp_path, {"raw": raw(expose="direct")}) as opened:
        refused = await opened.modern("tools/call", {"name": "raw__refuse", "arguments": {"code": -32021}})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, -32021)


@pytest.mark.parametrize("code", [-32601, -32602, -32002, -32042, -32603, 7])
async def test_what_an_upstream_says_of_the_call_is_passed_through(code: int, tmp_path: Path) -> None:
    async with faced(tmp_path, {"raw": raw(expose="direct")}) as opened:
        refused = await opened.rpc("tools/call", {"name": "raw__refuse", "arguments": {"code": code}})
        assert refused.json()["error"] == {"code": code, "message": "I refuse", "data": {"why": "because"}}


async def test_keys_are_asked_for_before_anything_is_read(tmp_path: Path) -> None:
    async with faced(tmp_path, governance=KEYS) as opened:
        assert (await opened.post(b"{nonsense")).json()["error"]["data"]["code"] == "missing_key"
        assert (await opened.rpc("ping", key="mg-wrong12345")).json()["error"]["data"]["code"] == "invalid_key"
        assert (await opened.rpc("ping", key="mg-bobsecret1")).json()["result"] == {}


# --- refused requests


async def test_a_refused_request_gets_a_json_rpc_error_with_the_code_and_the_status_of_the_contract(
    tmp_path: Path,
) -> None:
    server = {"max_body_mib": 1, "max_body_mib_in_all": 1}
    async with faced(tmp_path, governance=KEYS, server=server) as opened:
        bob = {"key": "mg-bobsecret1"}

        async def refused(status: int, code: str, answer: httpx2.Response, number: int = -32603) -> httpx2.Response:
            assert answer.headers["content-type"] == "application/json" and answer.headers["x-request-id"]
            message = answer.json()
            assert message["jsonrpc"] == "2.0" and message["id"] is None and message["error"]["message"]
            assert answer.status_code == status
            assert (message["error"]["code"], message["error"]["data"]["code"]) == (number, code)
            return answer

        for path in ("/mcp", "/messages"):
            missing = await refused(401, "missing_key", await opened.post(b"{}", path=path))
            assert missing.headers["www-authenticate"].startswith("Bearer ")
            await refused(401, "invalid_key", await opened.post(b"{}", "mg-wrong12345", path))
            origin = await opened.post(b"{}", path=path, origin="https://evil.example", **bearer("mg-bobsecret1"))
            await refused(403, "not_allowed", origin)
        bad = await opened.rpc("ping", **bob, **{"x-mcpgate-metadata": "["})
        await refused(400, "invalid_request", bad, number=-32600)
        await refused(413, "too_large", await opened.post(b" " * 2_000_000, **bob))
        await refused(
            415, "invalid_request", await opened.post(b"{}", **bob, **{"content-encoding": "compress"}), -32600
        )
        wrong_method = await refused(405, "invalid_request", await opened.http.patch("/mcp"), -32600)
        assert wrong_method.headers["allow"] == "POST, GET, DELETE"
        half = await opened.connect()
        head = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer mg-bobsecret1\r\nContent-Length: 900000"
        await half.send(head.encode() + b"\r\n\r\n" + b" " * 200_000)
        await until(lambda: opened.server._memory.held("bob") == 200_000)
        for key, size, status, code in (
            ("mg-bobsecret1", 200_000, 429, "rate_limited"),
            ("mg-evesecret1", 900_000, 503, "unavailable"),
        ):
            full = await refused(status, code, await opened.post(b" " * size, key))
            assert full.headers["retry-after"] == "1"


async def test_beyond_the_last_connection_only_health_is_answered_and_each_face_refuses_in_its_shape(
    tmp_path: Path,
) -> None:
    limits = PortLimits(max_connections=1, max_connections_per_address=1, reserve=1)
    async with faced(tmp_path, {"raw": raw(expose="direct")}, limits=limits) as opened:
        held = asyncio.create_task(opened.rpc("tools/call", {"name": "raw__hang", "arguments": {}}))
        await until(lambda: any(connection._cycles for connection in opened.port.open))

        async def ask(path: str) -> tuple[int, Any]:
            status, body = await (await opened.connect()).get(path, host="localhost")
            return status, json.loads(body)

        assert await ask("/healthz") == (200, {"status": "ok"})
        status, body = await ask("/mcp")
        assert (status, body["error"]["data"]["code"]) == (503, "unavailable") and body["jsonrpc"] == "2.0"
        status, body = await ask("/api/keys")
        assert (status, body["error"]["code"]) == (503, "unavailable")
        held.cancel()


async def test_a_refused_request_to_other_routes_gets_plain_json(tmp_path: Path) -> None:
    async with faced(tmp_path, governance=KEYS) as opened:
        for path, status, code in (("/api/keys", 401, "missing_key"), ("/nope", 404, "not_found")):
            answer = await opened.http.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("mode", ["legacy", MODERN])
async def test_the_sdk_s_client_tells_why_it_was_refused(tmp_path: Path, mode: str) -> None:
    async with faced(tmp_path, governance=KEYS) as opened:
        told = pytest.RaisesExc(MCPError, match="virtual key", check=lambda error: error.data["code"] == "missing_key")
        with pytest.RaisesGroup(told, allow_unwrapped=True, flatten_subgroups=True):
            async with Client(f"http://127.0.0.1:{opened.number}/mcp", mode=mode) as client:
                await client.list_tools()


async def test_numbers_that_no_float_holds_are_refused_like_any_wrong_argument(tmp_path: Path) -> None:
    async with faced(tmp_path) as opened:
        for given in (b'{"code":"1","timeout_s":-1' + b"0" * 400 + b"}", b'{"code":"1","timeout_s":1e999}'):
            ask = (
                b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"execute_code","arguments":%s}}'
                % given
            )
            result = (await opened.post(ask)).json()["result"]
            assert result["isError"] and "timeout_s" in result["content"][0]["text"]


# --- batches


async def test_a_batch_is_answered_in_one_list(tmp_path: Path) -> None:
    async with faced(tmp_path) as opened:
        batch = [{"jsonrpc": "2.0", "id": i, "method": "ping"} for i in range(1000)]
        answers = (await opened.post([*batch[:-1], {"jsonrpc": "2.0", "method": "notifications/x"}])).json()
        assert {answer["id"] for answer in answers} == set(range(999))
        assert (await opened.post([*batch, *batch])).status_code == 400


async def test_the_answers_to_a_batch_are_bounded_and_the_rest_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcpgate.api.mcp.http._BATCH_BYTES", 50_000)
    async with faced(tmp_path) as opened:
        answer = await opened.post([{"jsonrpc": "2.0", "id": i, "method": "tools/list"} for i in range(500)])
        answers = answer.json()
        whole = [one for one in answers if "result" in one]
        assert len(answers) == 500 and 1 <= len(whole) < 100 and len(answer.content) < 200_000
        assert {one["error"]["data"]["code"] for one in answers if "error" in one} == {"too_large"}


async def test_a_subscription_in_a_batch_is_refused_for_it_has_no_end(tmp_path: Path) -> None:
    async with faced(tmp_path) as opened:
        answers = (
            await opened.post([modern("subscriptions/listen"), {"jsonrpc": "2.0", "id": 2, "method": "ping"}])
        ).json()
        assert answers[0]["error"]["code"] == -32600 and answers[1]["result"] == {}


async def test_free_answers_of_a_key_are_bounded_in_bytes_and_local_callers_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcpgate.api.mcp.face._FREE_BURST", 20_000)
    monkeypatch.setattr("mcpgate.api.mcp.face._FREE_PER_S", 10)
    async with faced(tmp_path, governance=KEYS) as opened:
        answers = [(await opened.rpc("tools/list", key="mg-evesecret1")).json() for _ in range(30)]
        refused = [one["error"]["data"] for one in answers if "error" in one]
        assert 0 < len(refused) < 30 and refused[0]["code"] == "rate_limited" and refused[0]["retry_after_s"] > 0
        assert "result" in (await opened.rpc("tools/list", key="mg-bobsecret1")).json()
    async with faced(tmp_path) as opened:
        answers = [(await opened.rpc("tools/list")).json() for _ in range(30)]
        assert all("result" in one for one in answers)


# --- progress and slow readers


async def test_progress_that_nobody_reads_is_dropped_but_for_the_latest(tmp_path: Path) -> None:
    async with faced(tmp_path, {"raw": raw(expose="direct")}) as opened:
        ask = {"name": "raw__steps", "arguments": {"number": 3}, "_meta": {"progressToken": "t"}}
        answer = await opened.rpc("tools/call", ask)
        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
        assert [event["params"]["progress"] for event in events[:-1]] == [1, 2, 3] and "result" in events[-1]


async def sse(opened: Faced, secret: str | None = None, receive_buffer: int | None = None) -> tuple[Any, str]:
    """A raw stream of the legacy transport, and where its messages go."""
    client = await opened.connect(receive_buffer=receive_buffer)
    authorization = "" if secret is None else f"Authorization: Bearer {secret}\r\n"
    await client.send(f"GET /sse HTTP/1.1\r\nHost: localhost\r\n{authorization}\r\n".encode())
    async with asyncio.timeout(10):
        await client.reader.readuntil(b"event: endpoint\r\ndata: ")
        return client, (await client.reader.readuntil(b"\r\n")).decode().strip()


async def test_a_client_that_posts_and_never_reads_loses_its_session(tmp_path: Path) -> None:
    async with faced(tmp_path, {"raw": raw(expose="direct")}, governance=KEYS) as opened:
        _, endpoint = await sse(opened, "mg-evesecret1", receive_buffer=4096)
        sessions = opened.server._sessions
        assert sessions is not None
        batch = [{"jsonrpc": "2.0", "id": i, "method": "tools/list"} for i in range(1000)]
        async with asyncio.timeout(60):
            while (await opened.post(batch, "mg-evesecret1", endpoint)).status_code == 202:
                assert sessions._unread <= 8 * 1024 * 1024
        assert len(sessions) == 0 and sessions._unread == 0


# --- rights


async def test_open_streams_and_long_answers_end_within_two_seconds_of_a_revocation(tmp_path: Path) -> None:
    governance = {"require_key": True, "keys": {"root": {"secret": "mg-rootsecret", "grants": {"admin": True}}}}
    async with faced(tmp_path, {"raw": raw(expose="direct")}, governance=governance) as opened:
        made = await opened.post({"id": "eve", "grants": {"tools": ["*"]}}, "mg-rootsecret", "/api/keys")
        secret = made.json()["secret"]
        begun = await opened.rpc("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}}, key=secret)
        session = {"mcp-session-id": begun.headers["mcp-session-id"], **bearer(secret), "accept": BOTH}

        async def listen(method: str, headers: dict[str, str], content: bytes = b"") -> str:
            async with opened.http.stream(method, "/mcp", headers=headers, content=content) as response:
                return (await response.aread()).decode()

        subscribe = {**modern_headers("subscriptions/listen"), **bearer(secret), "accept": BOTH}
        hang = {"name": "raw__hang", "arguments": {}}
        waiting = [
            asyncio.create_task(listen("GET", session)),
            asyncio.create_task(listen("POST", subscribe, json.dumps(modern("subscriptions/listen")).encode())),
            asyncio.create_task(opened.rpc("tools/call", hang, secret)),
            asyncio.create_task(opened.modern("tools/call", hang, secret)),
        ]
        sessions = opened.server._sessions
        assert sessions is not None
        await until(lambda: opened.server._access._streams.used("eve") == 1)
        await asyncio.wait(waiting, timeout=1.2)
        assert not any(task.done() for task in waiting)
        assert (await opened.http.delete("/api/keys/eve", headers=bearer("mg-rootsecret"))).status_code == 200
        _, pending = await asyncio.wait(waiting, timeout=3.5)
        assert not pending
        legacy, present = await waiting[2], await waiting[3]
        assert legacy.json()["error"]["data"]["code"] == present.json()["error"]["data"]["code"] == "not_allowed"
        assert '"code":"not_allowed"' in await waiting[1]
        assert len(sessions) == 0  # that of the stream


async def test_subscriptions_and_streams_of_one_key_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcpgate.api.http.access._MAX_STREAMS_EACH", 3)
    monkeypatch.setattr("mcpgate.api.mcp.face._MAX_LISTENERS_EACH", 2)
    async with faced(tmp_path, limits=PortLimits(max_connections_per_address=100)) as opened:
        streams = [await sse(opened) for _ in range(3)]
        assert (await opened.http.get("/sse")).status_code == 429
        streams[0][0].writer.transport.abort()
        await until(lambda: opened.server._access._streams.used("local") == 2)
        await sse(opened)

        async def subscribe() -> bytes:
            body = json.dumps(modern("subscriptions/listen")).encode()
            fields = {**modern_headers("subscriptions/listen"), "accept": BOTH, "content-length": str(len(body))}
            client = await opened.connect()
            lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            await client.send(f"POST /mcp HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n".encode() + body)
            async with asyncio.timeout(10):
                await client.reader.readuntil(b"\r\n\r\n")
                return await client.reader.readuntil(b"}")

        assert b"acknowledged" in await subscribe() and b"acknowledged" in await subscribe()
        assert b"rate_limited" in await subscribe()


def test_the_envelope_of_the_tests_is_that_of_the_present_era() -> None:
    assert ENVELOPE["io.modelcontextprotocol/protocolVersion"] == MODERN


@pytest.mark.parametrize("revision", ["2025-11-25", MODERN])
@pytest.mark.parametrize(
    "body", [b"{}", b'{"jsonrpc":"2.0"}', b'{"jsonrpc":"2.0","id":1}', b'{"method":"m"}', b'"x"', b"7", b"null"]
)
async def test_a_body_that_is_no_message_is_a_bad_request(tmp_path: Path, body: bytes, revision: str) -> None:
    async with faced(tmp_path) as opened:
        answer = await opened.post(body, **{"mcp-protocol-version": revision})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32600)
        fine = await opened.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        assert (fine.status_code, fine.content) == (202, b"")


async def test_initialize_begins_a_new_session_whatever_session_it_names(tmp_path: Path) -> None:
    async with faced(tmp_path) as opened:
        stale = {"mcp-session-id": "ended-long-ago"}
        assert (await opened.rpc("ping", **stale)).status_code == 404
        begun = await opened.rpc("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}}, **stale)
        assert begun.status_code == 200
        session = {"mcp-session-id": begun.headers["mcp-session-id"]}
        assert session != stale and (await opened.rpc("ping", **session)).status_code == 200
