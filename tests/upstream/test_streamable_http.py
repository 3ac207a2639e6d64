"""The streamable HTTP client against servers that do what servers in the field do, and worse."""

import asyncio
import gzip
import json
import subprocess
import sys
import tracemalloc
import zlib
from typing import Any

import anyio
import pytest

from mcpgate.errors import UpstreamError, UpstreamTimeout
from mcpgate.upstream.connection import RpcError
from mcpgate.upstream.events import EventReader
from tests.conftest import gateway, until
from tests.listeners import Listener
from tests.upstream.http_server import HttpServer, Reply, http_server

pytestmark = pytest.mark.anyio
MIB = 1024 * 1024


def text_of(result: dict[str, Any]) -> str:
    return str(result["content"][0]["text"])


def test_a_remote_upstream_does_not_cost_the_import_of_the_sdk() -> None:
    code = "import mcpgate.upstream.remote, mcpgate.upstream.sse, sys; sys.exit('mcp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_what_the_protocol_wants_of_every_request_is_sent() -> None:
    async with http_server() as server:
        async with gateway({"far": server.entry(headers={"x-own": "yes"})}) as opened:
            assert text_of(await opened.pool.get("far").call("one", {})) == "one in session-1"
        await until(lambda: server.count("DELETE") == 1)
        probe, first, *others = (request for request in server.seen)
        assert probe.rpc == "server/discover" and probe.headers["mcp-protocol-version"] == "2026-07-28"
        assert first.rpc == "initialize" and first.session is None and "mcp-protocol-version" not in first.headers
        for request in others:
            assert request.session == "session-1" and request.headers["mcp-protocol-version"] == "2025-06-18"
        for request in server.seen:
            assert request.headers["x-own"] == "yes" and request.headers["accept-encoding"] == "identity"
            if request.method == "POST":
                assert request.headers["accept"] == "application/json, text/event-stream"


# --- sessions


async def plainly(reply: Reply, status: int, body: bytes = b"", kind: str = "text/plain") -> None:
    await reply.whole(body, status, kind)


REFUSALS: dict[str, Any] = {
    "404": lambda reply: plainly(reply, 404),
    "404 html": lambda reply: plainly(reply, 404, b"<html><title>Not Found</title></html>", "text/html"),
    "404 rpc": lambda reply: reply.error(-32001, "Session not found", 404, reply.request.message.get("id")),
    "400 typescript": lambda reply: reply.error(-32000, "Bad Request: No valid session ID provided", 400),
    "400 not initialized": lambda reply: reply.error(-32000, "Bad Request: Server not initialized", 400),
    "400 plain": lambda reply: plainly(reply, 400, b"Invalid or missing session ID"),
    "400 in German": lambda reply: plainly(reply, 400, b"Unbekannte Sitzung"),
    "400 problem": lambda reply: reply.json({"title": "Bad Request", "detail": "unknown mcp-session-id"}, 400),
    "401 rust": lambda reply: plainly(reply, 401, b"Unauthorized: Session not found"),
    "410": lambda reply: plainly(reply, 410),
    "422": lambda reply: reply.error(-32600, "no", 422),
    "500 rpc": lambda reply: reply.error(-32603, "Session not found", 500),
    "200 rpc": lambda reply: reply.error(-32000, "Session not found", 200, reply.request.message.get("id")),
    "200 terminated": lambda reply: reply.error(-32600, "Session terminated"),
}


@pytest.mark.parametrize("way", REFUSALS)
async def test_a_server_that_lost_our_session_gets_a_new_one_within_the_call(way: str) -> None:
    async def answer(server: HttpServer, reply: Reply) -> bool:
        if reply.request.rpc == "initialize" or reply.request.session in server.known:
            return False
        await REFUSALS[way](reply)
        return True

    async with http_server(answer) as server, gateway({"far": server.entry()}) as opened:
        far = opened.pool.get("far")
        assert text_of(await far.call("one", {})) == "one in session-1"
        server.known.clear()
        answers = await asyncio.gather(*(far.call("one", {}) for _ in range(8)))
        assert {text_of(answer) for answer in answers} == {"one in session-2"}
        assert server.count("initialize") == 2
        # What it has forgotten may be more than the session.
        server.tools.append({"name": "new", "inputSchema": {}})
        server.known.clear()
        assert text_of(await far.call("two", {})) == "two in session-3"
        await until(lambda: any(tool.name == "new" for tool in opened.catalog.tools))


@pytest.mark.parametrize("status", [400, 404, 410, 200])
async def test_a_refused_request_of_a_session_that_lives_starts_no_new_one(status: int) -> None:
    async def answer(server: HttpServer, reply: Reply) -> bool:
        if reply.request.tool != "two":
            return False
        await reply.error(-32600, "your session may not do that", status, reply.request.message["id"])
        return True

    async with http_server(answer) as server, gateway({"far": server.entry()}) as opened:
        for _ in range(3):
            with pytest.raises(RpcError, match="your session may not do that"):
                await opened.pool.get("far").call("two", {})
        assert server.count("initialize") == 1
        assert sum(request.tool == "two" for request in server.seen) == 3


async def test_a_server_that_forgets_every_session_is_asked_twice_and_no_more() -> None:
    async def answer(server: HttpServer, reply: Reply) -> bool:
        if reply.request.rpc in ("tools/call", "ping"):
            await plainly(reply, 404)
            return True
        return False

    async with http_server(answer) as server, gateway({"far": server.entry()}) as opened:
        with pytest.raises(UpstreamError, match="HTTP 404"):
            await opened.pool.get("far").call("one", {})
        assert sum(request.tool == "one" for request in server.seen) == 2 and server.count("initialize") == 2
        with pytest.raises(UpstreamError, match="HTTP 404"):
            await opened.pool.get("far").call("one", {})
        assert server.count("initialize") == 2


async def test_requests_under_way_survive_that_another_lost_the_session() -> None:
    go = asyncio.Event()

    async def answer(server: HttpServer, reply: Reply) -> bool:
        if reply.request.tool == "slow":
            server.known.clear()
            await go.wait()
            await reply.text("slow but sure")
            return True
        return False

    async with http_server(answer) as server, gateway({"far": server.entry()}) as opened:
        slow = asyncio.create_task(opened.pool.get("far").call("slow", {}))
        await until(lambda: not server.known)
        assert text_of(await opened.pool.get("far").call("one", {})) == "one in session-2"
        go.set()
        assert text_of(await slow) == "slow but sure"


# --- requests stand by themselves


@pytest.mark.parametrize("way", ["before the headers", "inside a body", "inside a stream"])
async def test_a_dropped_connection_fails_its_own_request_only(way: str) -> None:
    arrived, go = asyncio.Semaphore(0), asyncio.Event()

    async def answer(server: HttpServer, reply: Reply) -> bool:
        if reply.request.tool == "slow":
            arrived.release()
            await go.wait()
        if reply.request.tool != "two":
            return False
        if way == "inside a body":
            await reply.start()
            await reply.chunk(b'{"jsonrpc":')
        elif way == "inside a stream":
            await reply.start(kind="text/event-stream")
            await reply.chunk(b"data: {")
        reply.drop()
        return True

    async with http_server(answer) as server, gateway({"far": server.entry()}) as opened:
        far = opened.pool.get("far")
        slow = [asyncio.create_task(far.call("slow", {})) for _ in range(2)]
        for _ in slow:
            await arrived.acquire()
        with pytest.raises(UpstreamError, match="the connection broke|ended the stream"):
            await far.call("two", {})
        assert text_of(await far.call("one", {})) == "one in session-1"
        go.set()
        assert [text_of(result) for result in await asyncio.gather(*slow)] == ["slow in session-1"] * 2
        assert server.count("initialize") == 1 and opened.pool.views()[0].state == "ready"


@pytest.mark.parametrize("status", [401, 403, 413, 429, 500, 503])
async def test_a_refusal_over_http_arrives_with_its_status_its_words_and_its_retry_after(status: int) -> None:
    async def answer(server: HttpServer, reply: Reply) -> bool:
        if reply.request.tool == "two":
            body = {"error": "quota_used_up", "error_description": "come back " + "later " * 1000}
            await reply.json(body, status, retry_after="7")
        elif reply.request.tool == "slow":
            await reply.whole(b"<html><title>Down for\nmaintenance</title>" + b"x" * MIB, status, "text/html")
        return reply.request.tool in ("two", "slow")

    async with http_server(answer) as server, gateway({"far": server.entry()}) as opened:
        with pytest.raises(
            UpstreamError, match=rf"HTTP {status} .*quota_used_up, come back later.*\(retry after 7 s\)"
        ) as e:
            await opened.pool.get("far").call("two", {})
        data = e.value.data
        assert data["server_status"] == status and data["server_retry_after_s"] == 7
        assert data["server_said"].startswith("quota_used_up") and len(data["server_said"]) <= 2000
        assert len(e.value.message) < 500
        with pytest.raises(UpstreamError, match=rf"HTTP {status} As Told: Down for maintenance\)?$"):
            await opened.pool.get("far").call("slow", {})
        assert opened.pool.views()[0].state == "ready"


@pytest.mark.parametrize("id", [None, "server-error", "same as text", "same as float", 0, 999, {"x": 1}], ids=str)
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_what_answers_a_post_belongs_to_it_whatever_id_it_carries(id: Any, stream: bool) -> None:
    async def answer(server: HttpServer, reply: Reply) -> bool:
        if not (tool := reply.request.tool):
            return False
        own = reply.request.message["id"]
        sent: dict[str, Any] = {
            "jsonrpc": "2.0",
            "id": {"same as text": str(own), "same as float": float(own)}.get(str(id), id),
        }
        if tool == "one":
            sent["error"] = {"code": -32600, "message": "the account is used up"}
        else:
            sent["result"] = {"content": [{"type": "text", "text": tool}]}
        if stream:
            await reply.start(kind="text/event-stream; charset=utf-8")
            await reply.event(sent)
            await reply.end()
        else:
            await reply.json(sent)
        return True

    async with http_server(answer) as server, gateway({"far": server.entry()}) as opened:
        far = opened.pool.get("far")
        with anyio.fail_after(5):
            failed, two, slow = await asyncio.gather(
                far.call("one", {}), far.call("two", {}), far.call("slow", {}), return_exceptions=True
            )
        assert isinstance(failed, RpcError) and failed.message == "the account is used up"
        assert isinstance(two, dict) and isinstance(slow, dict) and (text_of(two), text_of(slow)) == ("two", "slow")


async def test_byte_order_marks_are_skipped() -> None:
    mark = b"\xef\xbb\xbf"

    async def answer(server: HttpServer, reply: Reply) -> bool:
        if not reply.request.tool:
            return False
        result = {"content": [{"type": "text", "text": "marked"}]}
        body = mark + json.dumps({"jsonrpc": "2.0", "id": reply.request.message["id"], "result": result}).encode()
        if reply.request.tool == "one":
            await reply.whole(body)
        else:
            await reply.start(kind="text/event-stream")
            await reply.chunk(mark + b"data: " + body + b"\r\n\r\n")
            await reply.end()
        return True

    async with http_server(answer) as server, gateway({"far": server.entry()}) as opened:
        for tool in ("one", "two"):
            assert text_of(await opened.pool.get("far").call(tool, {})) == "marked"


# --- streams


async def test_a_broken_answer_is_taken_up_where_it_broke() -> None:
    async def answer(server: HttpServer, reply: Reply) -> bool:
        request = reply.request
        if request.tool == "two":
            await reply.start(kind="text/event-stream")
            await reply.chunk(b"retry: 20\n\n")
            token = request.message["params"]["_meta"]["progressToken"]
            params = {"progressToken": str(token), "progress": 1}
            await reply.event({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}, id="e1")
            if len(server.seen) % 2:
                await reply.end()
            else:
                reply.drop()
            return True
        if request.headers.get("last-event-id") == "e1":
            await reply.start(kind="text/event-stream")
            await reply.event(b"", id="e2")
            reply.drop()
            return True
        if request.headers.get("last-event-id") == "e2":
            call = next(request for request in reversed(server.seen) if request.tool == "two")
            await reply.start(kind="text/event-stream")
            result = {"content": [{"type": "text", "text": "at last"}]}
            await reply.event({"jsonrpc": "2.0", "id": call.message["id"], "result": result}, id="e3")
            await reply.end()
            return True
        return False

    listener = Listener()
    heard = listener.heard
    async with http_server(answer) as server, gateway({"far": server.entry()}) as opened:
        for _ in range(2):
            result = await opened.pool.get("far").call("two", {}, client=listener)
            assert text_of(result) == "at last"
        assert [params["progress"] for params in heard] == [1, 1]
        assert sum(request.tool == "two" for request in server.seen) == 2  # never made twice


async def test_an_answer_that_broke_for_good_fails_at_once() -> None:
    async def answer(server: HttpServer, reply: Reply) -> bool:
        if reply.request.tool == "two":
            await reply.start(kind="text/event-stream")
            await reply.event({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "hm"}})
            await reply.end()
        elif reply.request.tool == "one":
            await reply.whole(b"", 202)
        elif reply.request.tool == "slow":
            await reply.whole(b"<html>hello</html>", 200, "text/html")
        return bool(reply.request.tool)

    async with http_server(answer) as server, gateway({"far": server.entry()}) as opened:
        with anyio.fail_after(5):
            for tool, reason in (
                ("two", "ended the stream before the answer"),
                ("one", "202 without"),
                ("slow", "text/html"),
            ):
                with pytest.raises(UpstreamError, match=reason):
                    await opened.pool.get("far").call(tool, {})


async def answer_without_end(reply: Reply, here: asyncio.Event, gone: asyncio.Event) -> None:
    """Begin to answer, and find out when the client has gone."""
    await reply.start(kind="text/event-stream")
    here.set()
    try:
        while True:
            await reply.chunk(b": still at it\n")
            await asyncio.sleep(0.01)
    except ConnectionError:
        gone.set()
        raise


async def test_giving_a_call_up_closes_its_stream_and_tells_the_server() -> None:
    here, gone = asyncio.Event(), asyncio.Event()

    async def answer(server: HttpServer, reply: Reply) -> bool:
        if reply.request.tool != "slow":
            return False
        await answer_without_end(reply, here, gone)
        return True

    async with http_server(answer) as server, gateway({"far": server.entry()}) as opened:
        call = asyncio.create_task(opened.pool.get("far").call("slow", {}))
        await here.wait()
        call.cancel()
        with anyio.fail_after(5):
            await gone.wait()
            await until(lambda: server.count("notifications/cancelled") == 1)
        asked = next(request.message["id"] for request in server.seen if request.tool == "slow")
        told = next(request.message for request in server.seen if request.rpc == "notifications/cancelled")
        assert told["params"]["requestId"] == asked


@pytest.mark.parametrize("way", ["result", "error", "stray"])
async def test_the_response_of_a_call_that_was_answered_another_way_is_closed_at_once(way: str) -> None:
    """Otherwise a server that never ends its responses would use up the gateway's connections."""
    standing: asyncio.Queue[Reply] = asyncio.Queue()
    here, gone, go = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def answer(server: HttpServer, reply: Reply) -> bool:
        if reply.request.method == "GET":
            await reply.start(kind="text/event-stream")
            standing.put_nowait(reply)
            await asyncio.Event().wait()
        if reply.request.tool == "one":
            await go.wait()
            return False
        if reply.request.tool != "slow":
            return False
        await answer_without_end(reply, here, gone)
        return True

    async with http_server(answer) as server, gateway({"far": server.entry()}) as opened:
        far = opened.pool.get("far")
        with anyio.fail_after(5):
            stream = await standing.get()
            slow = asyncio.create_task(far.call("slow", {}))
            await here.wait()
            sibling = asyncio.create_task(far.call("one", {})) if way != "stray" else None
            id = next(request.message["id"] for request in server.seen if request.tool == "slow")
            error = {"error": {"code": -32000, "message": "no more"}}
            said = {"result": {"result": {"ok": 1}}, "error": error, "stray": error}[way]
            await stream.event({"jsonrpc": "2.0", "id": None if way == "stray" else id, **said})
            if way == "result":
                assert await slow == {"ok": 1}
            else:
                with pytest.raises(RpcError, match="no more"):
                    await slow
            await gone.wait()
            go.set()
            assert text_of(await (sibling or far.call("one", {}))) == "one in session-1"


async def test_a_call_that_times_out_closes_its_stream_and_leaves_its_siblings() -> None:
    gone, go = asyncio.Event(), asyncio.Event()

    async def answer(server: HttpServer, reply: Reply) -> bool:
        if reply.request.tool == "one":
            await go.wait()
        if reply.request.tool != "slow":
            return False
        await reply.start(kind="text/event-stream")
        try:
            while True:
                await reply.chunk(b": still at it\n")
                await asyncio.sleep(0.01)
        except ConnectionError:
            gone.set()
            raise

    async with http_server(answer) as server, gateway({"far": server.entry(timeout_s=0.5)}) as opened:
        far = opened.pool.get("far")
        slow = asyncio.create_task(far.call("slow", {}))
        await until(lambda: any(request.tool == "slow" for request in server.seen))
        with anyio.fail_after(5), pytest.raises(UpstreamTimeout):
            await slow
        sibling = asyncio.create_task(far.call("one", {}))
        with anyio.fail_after(5):
            await gone.wait()
            go.set()
            assert text_of(await sibling) == "one in session-1"


class Modern:
    """A server of revision 2026-07-28."""

    def __init__(self) -> None:
        self.here, self.gone, self.change = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.listens = 0

    async def __call__(self, server: HttpServer, reply: Reply) -> bool:
        request = reply.request
        id = request.message.get("id")
        if request.rpc == "initialize":
            await reply.error(-32601, "no such method", 404, id)
        elif request.rpc == "server/discover":
            await reply.result({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}})
        elif request.rpc == "subscriptions/listen":
            self.listens += 1
            await reply.start(kind="text/event-stream")
            await reply.event({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": {}})
            await self.change.wait()
            self.change.clear()
            reply.drop()
        elif request.tool == "slow":
            await reply.start(kind="text/event-stream")
            self.here.set()
            try:
                while True:
                    await reply.chunk(b": still at it\n")
                    await asyncio.sleep(0.01)
            except ConnectionError:
                self.gone.set()
                raise
        elif request.tool:
            await reply.error(-32602, "no such tool", 400, id)
        else:
            return False
        return True


async def test_a_modern_server_is_told_by_hanging_up_and_its_errors_are_its_own() -> None:
    modern = Modern()
    async with http_server(modern, sessions=False) as server, gateway({"far": server.entry()}) as opened:
        assert opened.pool.views()[0].facts.protocol == "2026-07-28"  # type: ignore[union-attr]
        with pytest.raises(RpcError, match="no such tool") as refused:
            await opened.pool.get("far").call("one", {})
        assert refused.value.rpc_code == -32602
        call = asyncio.create_task(opened.pool.get("far").call("slow", {}))
        await modern.here.wait()
        call.cancel()
        with anyio.fail_after(5):
            await modern.gone.wait()
        assert server.count("notifications/cancelled") == 0 and server.count("GET") == 0
        sent = next(request for request in server.seen if request.tool == "slow")
        assert sent.headers["mcp-method"] == "tools/call" and sent.headers["mcp-name"] == "slow"


async def test_what_changed_while_a_modern_subscription_was_broken_is_found() -> None:
    modern = Modern()
    async with http_server(modern, sessions=False) as server, gateway({"far": server.entry()}) as opened:
        server.tools.append({"name": "new", "inputSchema": {}})
        modern.change.set()
        await until(lambda: any(tool.name == "new" for tool in opened.catalog.tools))
        assert modern.listens == 2


CHANGED = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}


@pytest.mark.parametrize("when", ["behind the first listing", "with its answer", "before the stream was open"])
async def test_a_change_around_the_first_listing_is_not_lost(when: str) -> None:
    listed = asyncio.Event()

    async def answer(server: HttpServer, reply: Reply) -> bool:
        request = reply.request
        if request.method == "GET":
            if when == "before the stream was open":
                await listed.wait()
                server.tools.append({"name": "new", "inputSchema": {}})
            await reply.start(kind="text/event-stream")
            if when == "behind the first listing":
                await listed.wait()
                server.tools.append({"name": "new", "inputSchema": {}})
                await reply.event(CHANGED)
            await asyncio.Event().wait()
        if request.rpc == "tools/list" and not listed.is_set():
            listed.set()
            await reply.start(kind="text/event-stream")
            result = {"tools": list(server.tools[:3])}
            if when == "with its answer":
                server.tools.append({"name": "new", "inputSchema": {}})
                await reply.event(CHANGED)
            await reply.event({"jsonrpc": "2.0", "id": request.message["id"], "result": result})
            await reply.end()
            return True
        return False

    async with http_server(answer) as server, gateway({"far": server.entry()}) as opened:
        await until(lambda: any(tool.name == "new" for tool in opened.catalog.tools), 10)


async def test_a_restart_is_noticed_by_the_standing_stream_and_the_tools_are_listed_anew() -> None:
    restart = asyncio.Event()

    async def answer(server: HttpServer, reply: Reply) -> bool:
        if reply.request.method == "GET" and reply.request.session in server.known:
            await reply.start(kind="text/event-stream")
            await restart.wait()
            restart.clear()
            server.known.clear()
            reply.drop()
            return True
        return False

    async with http_server(answer) as server, gateway({"far": server.entry()}) as opened:
        server.tools.append({"name": "new", "inputSchema": {}})
        restart.set()
        await until(lambda: any(tool.name == "new" for tool in opened.catalog.tools))
        assert server.count("initialize") == 2


# --- limits


BOMB = zlib.compressobj(9, zlib.DEFLATED, 31)
BODIES: dict[str, tuple[str, bytes, bytes]] = {
    "plain": ("", b'{"jsonrpc":', b"x" * MIB),
    "one bomb": ("gzip", b"", BOMB.compress(b"x" * 16 * MIB) + BOMB.flush(zlib.Z_FULL_FLUSH)),
    "many bombs": ("gzip", b"", gzip.compress(b"x" * 16 * MIB)),
    "many bombs of nothing": ("gzip", b"", gzip.compress(b"") * 5000),
    "bare bomb": ("deflate", b"", zlib.compress(b"x" * 16 * MIB)[2:-4]),
    "encoded twice": ("gzip, gzip", b"", gzip.compress(gzip.compress(b"x" * 16 * MIB))),
    "brotli": ("br", b"", b"x" * MIB),
}
"""Encoding, beginning, and what then comes for ever."""


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_a_body_without_end_is_not_read_to_its_end(body: str, status: int, kind: str) -> None:
    encoding, begin, piece = BODIES[body]
    ended = asyncio.Event()

    async def answer(server: HttpServer, reply: Reply) -> bool:
        if reply.request.tool != "two":
            return False
        server.sent[0] = 0
        try:
            await reply.start(status, kind, **({"content_encoding": encoding} if encoding else {}))
            await reply.chunk(b"data: " + begin if kind != "application/json" and not encoding else begin or piece)
            while True:
                await reply.chunk(piece)
                await asyncio.sleep(0)
        finally:
            ended.set()

    async with http_server(answer) as server, gateway({"far": server.entry(max_message_mib=2)}) as opened:
        with anyio.fail_after(5):
            with pytest.raises(UpstreamError):
                await opened.pool.get("far").call("two", {})
            await ended.wait()
        # What the machine's own buffers take is not ours to bound.
        assert server.sent[0] < 16 * MIB
        assert text_of(await opened.pool.get("far").call("one", {})) == "one in session-1"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "bare"])
async def test_a_server_that_compresses_all_the_same_is_understood(encoding: str) -> None:
    async def answer(server: HttpServer, reply: Reply) -> bool:
        if not reply.request.tool:
            return False
        result = {"content": [{"type": "text", "text": "x" * MIB}]}
        body = json.dumps({"jsonrpc": "2.0", "id": reply.request.message["id"], "result": result}).encode()
        if encoding == "gzip":
            await reply.whole(gzip.compress(body[:100]) + gzip.compress(body[100:]), content_encoding="gzip")
        else:
            packed = zlib.compress(body)
            await reply.whole(packed if encoding == "deflate" else packed[2:-4], content_encoding="deflate")
        return True

    async with http_server(answer) as server, gateway({"far": server.entry()}) as opened:
        assert len(text_of(await opened.pool.get("far").call("one", {}))) == MIB


@pytest.mark.parametrize("ends", [True, False], ids=["ends", "never ends"])
async def test_an_event_over_the_limit_fails_its_own_call(ends: bool) -> None:
    async def answer(server: HttpServer, reply: Reply) -> bool:
        if reply.request.tool != "two":
            return False
        await reply.start(kind="text/event-stream")
        await reply.chunk(b'data: {"jsonrpc":"2.0","id":99,"result":{"x":"')
        for _ in range(3) if ends else iter(int, 1):
            await reply.chunk(b"x" * MIB)
        await reply.chunk(b'"}}\n\n')
        await reply.end()
        return True

    async with http_server(answer) as server, gateway({"far": server.entry(max_message_mib=2)}) as opened:
        with anyio.fail_after(5), pytest.raises(UpstreamError, match="max_message_mib=2"):
            await opened.pool.get("far").call("two", {})
        assert text_of(await opened.pool.get("far").call("one", {})) == "one in session-1"


async def test_a_body_of_single_bytes_costs_no_more_than_its_bytes() -> None:
    async def answer(server: HttpServer, reply: Reply) -> bool:
        if reply.request.tool != "two":
            return False
        await reply.start()
        for _ in range(10):
            await reply.raw(b"1\r\nx\r\n" * 4000)
        await reply.end()
        return True

    # What other threads load or warm up would be measured too: the table of the semantic search, and Wasm guests.
    quiet: dict[str, Any] = {"code_mode": {"semantic_search": False}, "sandbox": {"engine": "restricted"}}
    async with http_server(answer) as server, gateway({"far": server.entry()}, **quiet) as opened:
        tracemalloc.start()
        try:
            with pytest.raises(UpstreamError):
                await opened.pool.get("far").call("two", {})
            # As objects of their own they would take 1.7 MiB.
            assert tracemalloc.get_traced_memory()[1] < MIB
        finally:
            tracemalloc.stop()


async def test_a_head_without_end_is_refused() -> None:
    async def answer(server: HttpServer, reply: Reply) -> bool:
        if reply.request.tool != "two":
            return False
        await reply.raw(b"HTTP/1.1 200 OK\r\n")
        while True:
            await reply.raw(b"x-more: " + b"x" * 60_000 + b"\r\n")

    async with http_server(answer) as server, gateway({"far": server.entry()}) as opened:
        with anyio.fail_after(5), pytest.raises(UpstreamError, match="the connection broke"):
            await opened.pool.get("far").call("two", {})


async def test_a_jar_of_cookies_does_not_grow_without_end() -> None:
    async def answer(server: HttpServer, reply: Reply) -> bool:
        if not reply.request.tool:
            return False
        number = len(server.seen)
        await reply.result({"content": []}, set_cookie=f"c{number}={'x' * 4000}; Path=/")
        return True

    async with http_server(answer) as server, gateway({"far": server.entry()}) as opened:
        for _ in range(40):
            await opened.pool.get("far").call("one", {})
        assert max(len(request.headers.get("cookie", "")) for request in server.seen) < 40_000
        assert "cookie" in server.seen[-1].headers or "cookie" in server.seen[-2].headers


# --- redirects


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_to_another_origin_gets_nothing(status: int) -> None:
    async with http_server() as other:

        async def answer(server: HttpServer, reply: Reply) -> bool:
            await reply.whole(b"", status, location=f"{other.url}/mcp?key=s3cretkey")
            return True

        async with http_server(answer) as server:
            headers = {"Authorization": "Bearer t0psecret"}
            async with gateway({"far": server.entry(headers=headers)}) as opened:
                reason = opened.pool.views()[0].reason
                assert f"HTTP {status}" in reason and other.url in reason and "s3cretkey" not in reason
        assert other.seen == []


async def test_a_redirect_within_the_origin_is_followed() -> None:
    async def answer(server: HttpServer, reply: Reply) -> bool:
        if reply.request.path == "/mcp":
            await reply.whole(b"", 307, location="/mcp/")
            return True
        return False

    async with http_server(answer) as server, gateway({"far": server.entry()}) as opened:
        assert text_of(await opened.pool.get("far").call("one", {})) == "one in session-1"


# --- the legacy transport


async def test_the_legacy_stream_keeps_its_limits_and_its_siblings() -> None:
    stream: Reply | None = None
    go = asyncio.Event()

    async def answer(server: HttpServer, reply: Reply) -> bool:
        nonlocal stream
        request = reply.request
        if request.method == "GET":
            stream = reply
            await reply.start(kind="text/event-stream")
            await reply.chunk(b"\xef\xbb\xbfevent: endpoint\ndata: /messages?id=1\n\n")
            await asyncio.Event().wait()
        assert stream is not None
        id = request.message.get("id")
        await reply.whole(b"", 202)
        if request.tool == "two":
            await stream.chunk(b'data: {"jsonrpc":"2.0","id":%d,"result":{"x":"' % id)
            for _ in range(3):
                await stream.chunk(b"x" * MIB)
            await stream.chunk(b'"}}\n\n')
        elif request.tool == "slow":
            await go.wait()
        if id is not None and request.tool != "two":
            result: Any = {"content": [{"type": "text", "text": request.tool}]}
            if request.rpc == "initialize":
                result = {
                    "protocolVersion": "2024-11-05",
                    "capabilities": {},
                    "serverInfo": {"name": "old", "version": "1"},
                }
            elif request.rpc == "tools/list":
                result = {"tools": server.tools}
            await stream.event({"jsonrpc": "2.0", "id": str(id), "result": result})
        return True

    async with http_server(answer) as server:
        async with gateway({"far": server.entry(type="sse", max_message_mib=2)}) as opened:
            far = opened.pool.get("far")
            slow = asyncio.create_task(far.call("slow", {}))
            with anyio.fail_after(5), pytest.raises(UpstreamError, match="max_message_mib=2"):
                await far.call("two", {})
            go.set()
            assert text_of(await slow) == "slow" and text_of(await far.call("one", {})) == "one"


async def test_the_legacy_stream_names_no_endpoint_elsewhere() -> None:
    async def answer(server: HttpServer, reply: Reply) -> bool:
        await reply.start(kind="text/event-stream")
        await reply.chunk(b"event: endpoint\ndata: http://127.0.0.1:1/messages?key=s3cret\n\n")
        return True

    async with http_server(answer) as server, gateway({"far": server.entry(type="sse")}) as opened:
        reason = opened.pool.views()[0].reason
        assert "another origin: http://127.0.0.1:1/messages" in reason and "s3cret" not in reason


async def test_streams_are_read_the_same_however_they_are_cut() -> None:
    source = (
        b"\xef\xbb\xbf: hi\r\nid: 7\nretry: 50\nevent: endpoint\r\ndata: /x\r\n\r\ndata: 1\rdata: 2\r\rdata:\n\n"
        + (b"id: 9\n\ndata: " + b"y" * 90 + b"\n\ndata: end\n\n")
    )

    def read(step: int) -> list[Any]:
        reader = EventReader(60)
        events = [event for i in range(0, len(source), step) for event in reader.feed(source[i : i + step])]
        return [*((e.kind, e.too_long or e.data, e.too_long) for e in events), reader.last_id, reader.retry_s]

    whole = read(len(source))
    assert (
        whole[0] == ("endpoint", b"/x", False)
        and whole[1][1] == b"1\n2"
        and whole[-3:] == [("message", b"end", False), "9", 0.05]
    )
    assert [event[2] for event in whole[:-2]] == [False, False, False, True, False]
    assert all(read(step) == whole for step in range(1, 30))


@pytest.mark.parametrize("line", [b"\n", b":\n", b"retry: 1\n", b"x\n", b"id: 1\n\n", b"event: e\r\n\r\n"])
def test_lines_that_lead_to_nothing_are_counted(line: bytes) -> None:
    reader, count = EventReader(MIB), 10_000
    for _ in range(count):
        assert not list(reader.feed(line))
    assert reader.skipped >= 256 * (count - 10)


def test_the_lines_of_an_ordinary_event_are_not_counted() -> None:
    reader = EventReader(MIB)
    for _ in range(1000):
        assert len(list(reader.feed(b"event: message\nid: 7\nretry: 5\ndata: {\ndata: }\n\n"))) == 1
    assert reader.skipped == 0


@pytest.mark.parametrize("kind", ["http", "sse"])
async def test_a_stream_of_newlines_without_end_leaves_the_loop_to_others(kind: str) -> None:
    flooding = asyncio.Event()

    async def flood(server: HttpServer, reply: Reply) -> bool:
        if reply.request.method != "GET":
            return False
        await reply.start(kind="text/event-stream")
        if kind == "sse":
            await reply.chunk(b"event: endpoint\ndata: /messages\n\n")
        flooding.set()
        while True:
            await reply.chunk(b"\n" * 64 * 1024)

    async with http_server(flood) as bad, http_server() as good:
        servers = {"bad": bad.entry(type=kind), "good": good.entry()}
        async with gateway(servers, settle=False) as opened:
            with anyio.fail_after(20):
                await flooding.wait()
                for _ in range(50):
                    await opened.pool.get("good").call("one", {})
