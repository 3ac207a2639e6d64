"""Secrets of the configuration stay in the configuration."""

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest

from mcpgate.cli.main import main
from mcpgate.config.upstreams import UpstreamConfig
from mcpgate.errors import UpstreamError
from mcpgate.governance.callers import LOCAL
from mcpgate.governance.context import RequestContext
from mcpgate.upstream.connection import RpcError
from mcpgate.upstream.secrets import Secrets, place
from tests.conftest import gateway, until
from tests.upstream.http_server import HttpServer, Reply, http_server
from tests.upstream.test_floods import hostile

pytestmark = pytest.mark.anyio
SECRET = "Tr0ub4dor&3 ü/+"
"""A secret that every encoding changes."""


def masked(text: str, **config: Any) -> str:
    return Secrets(UpstreamConfig.model_validate(config)).mask(text)


@pytest.mark.parametrize(
    "config",
    [
        {"command": "x", "env": {"TOKEN": SECRET}},
        {"command": "x", "env": {"URL": f"postgresql://admin:{quote(SECRET, safe='')}@db/prod"}},
        {"command": "x", "args": ["--key", SECRET]},
        {"command": "x", "args": [f"--key={SECRET}"]},
        {"command": "x", "args": ["run", "-e", f"KEY={SECRET}", "image"]},
        {"command": "npx", "args": ["-y", "some-server", SECRET]},
        {"url": f"https://h/mcp?api_key={quote(SECRET, safe='')}"},
        {"url": f"https://admin:{quote(SECRET, safe='')}@h/mcp"},
        {"url": "https://h/mcp", "headers": {"Authorization": f"Bearer {SECRET}"}},
        {"url": "https://h/mcp", "headers": {"X-Api-Key": SECRET}},
    ],
    ids=lambda config: " ".join(config),
)
@pytest.mark.parametrize(
    "spell",
    [str, lambda s: quote(s, safe=""), quote, lambda s: json.dumps(s)[1:-1], lambda s: repr(s)[1:-1]],
    ids=["as it is", "quoted", "quoted as a path", "as JSON", "as Python"],
)
def test_a_secret_is_masked_wherever_it_was_configured_and_however_it_is_spelled(config: Any, spell: Any) -> None:
    if "Bearer" in str(config) and " " not in spell(SECRET):
        config = {**config, "headers": {"Authorization": f"Bearer {spell(SECRET)}"}}
    text = masked(f"cannot log in with <{spell(SECRET)}>: no", **config)
    assert spell(SECRET) not in text and text.startswith("cannot log in with <") and text.endswith(">: no")


def test_forms_that_a_client_makes_of_a_secret_are_masked_too() -> None:
    basic = base64.b64encode(b"admin:hunter2xyz").decode()
    assert basic not in masked(f"sent {basic}", url="https://admin:hunter2xyz@h/mcp")
    assert "hunter2xyz" not in masked("hunter2xyz?", url="https://h/mcp", headers={"Authorization": f"Basic {basic}"})
    assert "0a1b2c3d4e5f6a7b8c9d" not in masked(
        "at /s/0a1b2c3d4e5f6a7b8c9d/mcp", url="https://h/s/0a1b2c3d4e5f6a7b8c9d/mcp"
    )
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\n-----END KEY-----"
    assert "MIIEvQIBADANBgkqhkiG9w0B" not in masked("bad line: MIIEvQIBADANBgkqhkiG9w0B", command="x", env={"KEY": key})


def test_what_is_no_secret_stays_readable() -> None:
    config = {
        "command": "npx",
        "args": ["-y", "@scope/server-files", "--verbose", "/data"],
        "env": {"LOG_LEVEL": "info", "MODE": "fast"},
    }
    text = "npx @scope/server-files: information on /data in breakfast mode: --verbose"
    assert masked(text, **config) == text
    assert masked("No module named my_server", command="python", args=["-m", "my_server"]).endswith("my_server")
    assert masked("expected application/json", url="https://h/mcp", headers={"Accept": "application/json"}).endswith(
        "json"
    )


def test_a_text_is_not_cut_inside_a_secret() -> None:
    secret = "s3cret-" * 10
    secrets = Secrets(UpstreamConfig(command="x", env={"K": secret}))
    for length in range(60):
        assert "s3cret" not in secrets.mask("x" * length + secret + "y" * 500, 100)
    assert len(secrets.mask("z" * 50_000_000)) == 2000


def test_a_place_is_told_without_what_opens_it() -> None:
    assert place("https://ada:pw@h:8443/a/b?key=1#f") == "https://h:8443/a/b"
    assert place("https://h/s/0a1b2c3d4e5f6a7b8c9d/mcp") == "https://h/s/********/mcp"


def test_a_configuration_that_is_wrong_is_told_without_its_url() -> None:
    with pytest.raises(ValueError) as wrong:
        UpstreamConfig(url="wss://ada:hunter2xyz@h/mcp?key=s3cretkey")
    assert "url is 'wss://h/mcp'" in str(wrong.value.errors()[0]["msg"])  # type: ignore[attr-defined]
    config = UpstreamConfig(command="x", args=("--key", "s3cretkey"), env={"A": "hunter2xyz"})
    assert "s3cretkey" not in repr(config) and "hunter2xyz" not in repr(config)


async def words_for_callers(opened: Any, server: str) -> str:
    context = RequestContext(LOCAL)
    said = [await opened.metatools.list_tools(context), await opened.metatools.list_tools(context, server=server)]
    said += [await opened.metatools.read_docs(context, topic) for topic in ("index", server)]
    code = f"try: {server}.one()\nexcept ToolError as e: print(e, e.data)"
    said.append((await opened.metatools.execute_code(context, code)).text)
    try:
        await opened.pool.get(server).call("one", {})
    except UpstreamError as error:
        said += [error.message, repr(error.data)]
    return "\n".join(said)


async def test_what_a_process_said_last_is_for_whoever_runs_the_gateway(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mcpgate")
    stderr = "SECRETLY connecting with hunter2xyz to postgresql://admin:0therpw99@db\x1b[2K"
    entry = hostile({"env": {"PASSWORD": "hunter2xyz"}}, stderr=stderr, exit=3)
    async with gateway({"dead": entry}) as opened:
        view = opened.pool.views()[0]
        assert "exited with code 3" in view.reason and "SECRETLY" not in view.reason
        assert "SECRETLY connecting with ********" in view.detail and "\x1b" not in view.detail
        assert "SECRETLY" not in await words_for_callers(opened, "dead")
        await until(lambda: "its last words" in caplog.text)
        for text in (view.detail, caplog.text):
            assert "hunter2xyz" not in text and "0therpw99" not in text


async def test_a_server_that_repeats_what_it_was_sent_tells_callers_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "mcpgate")

    async def answer(server: HttpServer, reply: Reply) -> bool:
        request = reply.request
        echo = f"bad credentials: {request.headers.get('authorization')} for {request.path} of {request.headers.get('x-key')}"
        if request.tool == "one":
            await reply.error(-32000, echo, data={"why": [echo]})
        elif request.tool == "two":
            await reply.whole(echo.encode(), 403, "text/plain")
        return bool(request.tool)

    async with http_server(answer) as server:
        url = server.url.replace("http://", "http://admin:hunter2xyz@") + "/mcp?token=t0kenvalue"
        entry = {**server.entry(), "url": url, "headers": {"X-Key": "k3yvalue99"}}
        async with gateway({"far": entry}) as opened:
            said = await words_for_callers(opened, "far")
            with pytest.raises(RpcError) as refused:
                await opened.pool.get("far").call("one", {})
            with pytest.raises(UpstreamError, match="HTTP 403 .*bad credentials: Basic") as forbidden:
                await opened.pool.get("far").call("two", {})
            assert refused.value.rpc_data["why"][0].startswith("bad credentials")
            said += f"{refused.value.message} {refused.value.data} {forbidden.value.message} {forbidden.value.data}"
    basic = base64.b64encode(b"admin:hunter2xyz").decode()
    for secret in ("hunter2xyz", "t0kenvalue", "k3yvalue99", basic):
        assert secret not in said and secret not in caplog.text, secret


@pytest.mark.parametrize("kind", ["http", "sse", None])
@pytest.mark.parametrize("status", [0, 401, 404, 405, 500])
async def test_a_url_that_does_not_answer_is_named_without_its_secrets(
    kind: str | None, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(server: HttpServer, reply: Reply) -> bool:
        await reply.whole(b"", status)
        return True

    async with http_server(answer) as server:
        where = server.url if status else "http://127.0.0.1:1"
        url = where.replace("http://", "http://admin:hunter2xyz@") + "/mcp?token=t0kenvalue"
        async with gateway({"far": {**server.entry(), "url": url, "type": kind}}) as opened:
            said = await words_for_callers(opened, "far")
            assert (f"HTTP {status}" if status else "cannot connect to http://127.0.0.1:1/mcp") in said
            said += opened.pool.views()[0].detail + caplog.text
    assert "hunter2xyz" not in said and "t0kenvalue" not in said


def test_check_shows_what_a_process_said_last_without_secrets(config_file: Any, capfd: Any) -> None:
    config = config_file({"dead": hostile({"env": {"PASSWORD": "hunter2xyz"}}, stderr="no hunter2xyz here", exit=3)})
    with pytest.raises(SystemExit, match="1"):
        main(["check", "-c", str(config)])
    shown = capfd.readouterr().out
    assert "its last words: no ********" in shown.replace("\n", " ") and "hunter2xyz" not in shown
