"""Who may reach the gateway: hosts, origins, proxies, keys, on every route."""

from pathlib import Path

import pytest

from mcpgate.api.http.headers import read_headers
from tests.api.faces import bearer, faced, key

pytestmark = pytest.mark.anyio
KEYS = {
    "require_key": True,
    "keys": {"bob": key("mg-bobsecret1"), "root": {"secret": "mg-rootsecret", "grants": {"admin": True}}},
}


async def raw(opened: object, text: bytes) -> int:
    client = await opened.connect()  # type: ignore[attr-defined]
    await client.send(text)
    return (await client.response())[0]


async def test_headers_that_decide_who_asks_may_not_occur_twice(tmp_path: Path) -> None:
    async with faced(tmp_path) as opened:
        for line in (
            b"Host: evil.example",
            b"Origin: http://localhost\r\nOrigin: http://localhost",
            b"X-Api-Key: a\r\nX-Api-Key: b",
        ):
            assert await raw(opened, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + line + b"\r\n\r\n") == 400
        assert await raw(opened, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nAccept: a\r\nAccept: b\r\n\r\n") == 200
    assert read_headers([(b"a", b"1")]) == ({"a": "1"}, None)


async def test_a_key_s_address_is_the_connection_s_whatever_the_client_says_of_itself(tmp_path: Path) -> None:
    keys = {"require_key": True, "keys": {"far": key("mg-farsecret1", allowed_ips=["10.9.9.9"])}}
    forged = {"x-forwarded-for": "10.9.9.9", "forwarded": "for=10.9.9.9"}
    async with faced(tmp_path, governance=keys) as opened:
        assert (await opened.rpc("ping", key="mg-farsecret1", **forged)).status_code == 403
    async with faced(tmp_path, governance=keys, server={"trusted_proxies": ["127.0.0.0/8"]}) as opened:
        assert (await opened.rpc("ping", key="mg-farsecret1", **forged)).status_code == 200
        assert (
            await opened.rpc("ping", key="mg-farsecret1", **{"x-forwarded-for": "10.9.9.9, 1.2.3.4"})
        ).status_code == 403
        assert (await opened.rpc("ping", key="mg-farsecret1")).status_code == 403
        both = {**forged, "forwarded": "for=1.2.3.4"}
        assert (await opened.rpc("ping", key="mg-farsecret1", **both)).status_code == 400


async def test_metrics_are_shown_to_this_machine_by_its_own_name_and_to_admins(tmp_path: Path) -> None:
    async with faced(tmp_path, governance=KEYS) as opened:
        assert (await opened.http.get("/metrics")).status_code == 200
        assert (await opened.http.get("/metrics", headers={"host": "10.0.0.7:8080"})).status_code == 200
        assert (await opened.http.get("/metrics", headers={"host": "evil.example"})).status_code == 421
    async with faced(tmp_path, host="0.0.0.0", governance=KEYS) as opened:
        for secret, status in ((None, 401), ("mg-bobsecret1", 403), ("mg-rootsecret", 200)):
            assert (await opened.http.get("/metrics", headers=bearer(secret))).status_code == status
    proxied = {"trusted_proxies": ["127.0.0.1"]}
    async with faced(tmp_path, governance=KEYS, server=proxied) as opened:
        far = {"x-forwarded-for": "1.2.3.4"}
        assert (await opened.http.get("/metrics", headers=far)).status_code == 401
        assert (await opened.http.get("/metrics", headers={**far, **bearer("mg-rootsecret")})).status_code == 200


async def test_the_gateway_answers_under_its_base_path(tmp_path: Path) -> None:
    async with faced(tmp_path, server={"base_path": "/gate/way"}) as opened:
        for prefix in ("/gate/way", ""):  # a proxy may take it away
            assert (await opened.http.get(f"{prefix}/healthz")).status_code == 200
            assert (
                await opened.post({"jsonrpc": "2.0", "id": 1, "method": "ping"}, path=f"{prefix}/mcp")
            ).status_code == 200
        assert (await opened.http.get("/gate/wayhealthz")).status_code == 404
        async with opened.http.stream("GET", "/gate/way/sse") as response:
            lines = response.aiter_lines()
            assert await anext(lines) == "event: endpoint"
            endpoint = (await anext(lines)).removeprefix("data: ")
            assert endpoint.startswith("/gate/way/messages?session_id=")
            message = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
            assert (await opened.post(message, path=endpoint)).status_code == 202
            assert await anext(lines) == "" and await anext(lines) == "event: message"


async def test_a_refusal_shows_no_more_than_200_characters_of_a_header_and_no_control_characters(
    tmp_path: Path,
) -> None:
    async with faced(tmp_path) as opened:
        answer = await opened.http.get("/healthz", headers={"host": "x" * 5000})
        assert answer.status_code == 421 and len(answer.text) < 400
        answer = await opened.http.get("/healthz", headers={"origin": "http://" + "y" * 5000})
        assert answer.status_code == 403 and len(answer.text) < 400


async def test_a_refused_host_or_origin_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with faced(tmp_path) as opened:
        for _ in range(3):
            await opened.http.get("/healthz", headers={"host": "mcp.example.com"})
            await opened.http.get("/healthz", headers={"origin": "https://app.example.com"})
        for number in range(50):
            await opened.http.get("/healthz", headers={"host": f"invented-{number}"})
    for name in ("host 'mcp.example.com'", "origin 'https://app.example.com'"):
        assert len([record for record in caplog.records if name in record.getMessage()]) == 1
    assert len([record for record in caplog.records if "invented-" in record.getMessage()]) < 20


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "x-real-ip", "x-forwarded-proto"])
async def test_what_a_proxy_passes_on_is_not_this_machine_s_own(tmp_path: Path, header: str) -> None:
    passed_on = {header: "for=203.0.113.7" if header == "forwarded" else "203.0.113.7"}
    async with faced(tmp_path) as opened:
        assert (await opened.rpc("ping")).status_code == 200
        refused = await opened.rpc("ping", **passed_on)
        assert refused.status_code == 401 and "came through a proxy" in refused.text
        assert (await opened.http.get("/metrics")).status_code == 200
        assert (await opened.http.get("/metrics", headers=passed_on)).status_code == 401
        assert "upstreams" in (await opened.http.get("/readyz")).json()
        assert "upstreams" not in (await opened.http.get("/readyz", headers=passed_on)).json()
    async with faced(tmp_path, server={"trust_network": True}) as opened:
        assert (await opened.rpc("ping", **passed_on)).status_code == 200


async def test_a_trusted_proxy_on_this_machine_may_pass_on_this_machine_s_own_requests(tmp_path: Path) -> None:
    async with faced(tmp_path, server={"trusted_proxies": ["127.0.0.0/8"]}) as opened:
        assert (await opened.rpc("ping", **{"x-forwarded-for": "127.0.0.1"})).status_code == 200
        for client in ("203.0.113.7", "unknown"):
            assert (await opened.rpc("ping", **{"x-forwarded-for": client})).status_code == 401


async def test_the_root_names_the_addresses_of_the_gateway(tmp_path: Path) -> None:
    async with faced(tmp_path, governance=KEYS) as opened:
        answer = await opened.http.get("/")
        assert answer.status_code == 200 and "/mcp " in answer.text and "/healthz" in answer.text
