"""Anything at all: random bytes at the port, and random requests to every face."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.faces import Faced, faced, key
from tests.api.http.ports import serving
from tests.conftest import raw, until

pytestmark = pytest.mark.anyio
few = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

WORDS = """GET |POST |PUT |OPTIONS *|CONNECT a:1|PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n|/|/healthz|*|//|?|#|%| HTTP/1.1| HTTP/1.0\
|\r\n|\r\n\r\n|\n|: | |\t|\0|\xff|Host: x\r\n|Content-Length: |0|5|-1|99999999999999999999|5\r\nabcde\r\n\
|Transfer-Encoding: chunked\r\n|Connection: close\r\n|Connection: Upgrade\r\n|Upgrade: h2c\r\n|Expect: 100-continue\r\n"""
STREAMS = st.lists(
    st.one_of(st.sampled_from(WORDS.split("|")).map(lambda word: word.encode("latin-1")), st.binary(max_size=9)),
    max_size=25,
).map(b"".join)


@settings(few, max_examples=15)
@given(st.lists(st.tuples(STREAMS, st.integers(1, 60), st.booleans(), st.booleans()), min_size=10, max_size=30))
async def test_random_bytes_never_stop_the_port_and_are_never_logged(
    caplog: pytest.LogCaptureFixture, streams: list[tuple[bytes, int, bool, bool]]
) -> None:
    caplog.clear()
    caplog.set_level(logging.WARNING)
    async with serving(head_s=0.2, body_s=0.2, linger_s=0.1, keep_alive_s=0.2) as opened:
        for data, step, half_close, abort in streams:
            client = await opened.connect()
            try:
                for at in range(0, len(data), step):
                    await client.send(data[at : at + step])
                if half_close:
                    client.writer.write_eof()
            except ConnectionError:
                pass
            if abort:
                client.writer.transport.abort()
        assert await (await opened.connect()).get() == (200, b"GET / 0")
        await until(lambda: not opened.port.open)
    assert not [record for record in caplog.records if record.name != "asyncio"]


PATHS = (
    "/mcp /mcp/ /sse /messages /messages?session_id=%ff /healthz /readyz /metrics /api/keys /api/keys/x /api/teams/t \
/api/usage?by=key&by=day /api/usage?since=%00 /api/entries?limit=-1 /api/rules /api/openapi.json / //mcp /nope /%ff"
)
METHODS = ["POST"] * 4 + ["GET", "GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "BREW"]
METHOD_NAMES = ["initialize", "ping", "tools/list", "tools/call", "server/discover", "subscriptions/listen", "nope", ""]
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PARAMS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["list_tools", "read_docs", "raw__add", "raw__fail", "nope"]) | VALUES,
        "arguments": st.dictionaries(st.sampled_from(["query", "topic", "a", "b", "limit"]), VALUES, max_size=3),
        "_meta": st.fixed_dictionaries(
            {}, optional={"progressToken": VALUES, "io.modelcontextprotocol/protocolVersion": st.just("2026-07-28")}
        ),
    },
)
MESSAGE = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0"), "method": st.sampled_from(METHOD_NAMES) | VALUES},
    optional={"id": st.integers() | VALUES, "params": PARAMS | VALUES},
)
BODIES = st.one_of(MESSAGE, st.lists(MESSAGE, max_size=3), VALUES).map(lambda value: json.dumps(value).encode())
FIELDS = st.dictionaries(
    st.sampled_from(
        """authorization accept content-type content-encoding expect mcp-session-id mcp-protocol-version
        mcp-method mcp-name last-event-id origin x-forwarded-for forwarded x-mcpgate-metadata x-mcpgate-meta-a
        x-mcpgate-user traceparent""".split()
    ),
    st.sampled_from(
        """Bearer mg-bobsecret1|Bearer x|mg-bobsecret1|*/*|text/event-stream|application/json|gzip|100-continue|\xe9|
        2025-06-18|2026-07-28|tools/call|=?base64?x?=|http://localhost|null|for=1.2.3.4|{"a": "b"}|[|00-0-0-0""".split(
            "|"
        )
    ),
    max_size=4,
)
REQUESTS = st.tuples(
    st.sampled_from(METHODS),
    st.just("/mcp") | st.sampled_from(PATHS.split()),
    FIELDS,
    BODIES | st.binary(max_size=50),
    st.booleans(),
    st.booleans(),
)
Request = tuple[str, str, dict[str, str], bytes, bool, bool]


@settings(few, max_examples=4)
@given(st.lists(REQUESTS, min_size=30, max_size=100))
async def test_every_face_answers_random_requests_in_its_own_shape(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, requests: list[Request]
) -> None:
    caplog.clear()
    governance = {"require_key": True, "keys": {"bob": key("mg-bobsecret1", grants={"tools": ["*"], "admin": True})}}
    async with faced(tmp_path, {"raw": raw(expose="direct")}, governance=governance) as opened:
        for request in requests:
            await check(opened, request)
        assert (await opened.rpc("ping", key="mg-bobsecret1")).json()["result"] == {}
        assert opened.server._memory.in_all == 0
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def check(opened: Faced, request: Request) -> None:
    method, path, fields, body, chunked, has_key = request
    client = await opened.connect()
    framing = {"transfer-encoding": "chunked"} if chunked else {"content-length": str(len(body))}
    known = {"x-api-key": "mg-bobsecret1"} if has_key else {}
    given = {"host": "localhost", **known, **fields, **framing}
    lines = [f"{name}: {value.strip()}" for name, value in given.items()]
    head = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode("latin-1")
    chunks = (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
    await client.send(head + (chunks if chunked else body))
    async with asyncio.timeout(10):
        status, answered, content = await response(client.reader, method)
    client.writer.transport.abort()
    assert status in (200, 202, 204, 400, 401, 403, 404, 405, 406, 409, 413, 415), (request, status, content)
    if status < 400 or not content:
        return
    assert answered["content-type"] == "application/json"
    error = json.loads(content)["error"]
    if path.startswith(("/mcp", "/sse", "/messages")) and "x-request-id" in answered:
        assert isinstance(error["code"], int) and error["message"], (request, content)
    else:
        assert isinstance(error["code"], str) and error["message"], (request, content)


async def response(reader: Any, method: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the next final response; of a stream, its beginning."""
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split()[1])
        if status >= 200:
            break
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    length = 0 if method == "HEAD" else int(fields.get("content-length", 0))
    return status, fields, await reader.readexactly(length)
