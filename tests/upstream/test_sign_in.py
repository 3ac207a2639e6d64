"""Signing in to a server that wants OAuth, and what its tokens are used for, against a real authorization server."""

import asyncio
import contextlib
import gzip
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mcpgate.errors import UpstreamError
from mcpgate.gateway import Gateway
from mcpgate.governance.callers import LOCAL
from mcpgate.governance.context import RequestContext
from mcpgate.upstream.auth import redirected
from mcpgate.upstream.challenges import Challenge
from mcpgate.upstream.discovery import SignInFailed, UntrustedWeb
from tests.conftest import gateway, until
from tests.upstream.sign_in_server import Exchange, SignInServer, sign_in_server

pytestmark = pytest.mark.anyio
REDIRECT = "http://127.0.0.1:9/callback"


@pytest.fixture
def server() -> Iterator[SignInServer]:
    with sign_in_server() as started:
        yield started


def text_of(result: dict[str, Any]) -> str:
    return str(result["content"][0]["text"])


async def browse(url: str) -> dict[str, str]:
    """What a person does: open the page and agree. Returns what came to the redirect address."""
    async with httpx2.AsyncClient() as browser:
        answer = await browser.get(url)
    assert answer.status_code == 302, answer.text
    location = answer.headers["location"]
    assert location.startswith(REDIRECT)
    return redirected(location)


async def sign_in(opened: Gateway, name: str = "linear") -> dict[str, str]:
    """Sign in; returns what the authorization server was asked."""
    upstream = opened.pool.get(name)
    begun = await upstream.sign_in("").begin(REDIRECT, await upstream.asked_for())
    await upstream.sign_in("").finish(begun, await browse(begun.url))
    return redirected(begun.url)


@asynccontextmanager
async def signed_in(server: SignInServer, **entry: Any) -> AsyncIterator[Gateway]:
    async with gateway({"linear": server.entry(**entry)}) as opened:
        await sign_in(opened)
        await until(lambda: opened.pool.views()[0].state == "ready")
        yield opened


async def whoami(opened: Gateway) -> str:
    return text_of(await opened.pool.get("linear").call("whoami", {}))


# --- before anybody has signed in


async def test_a_server_that_wants_a_token_is_left_alone_and_everything_says_how_to_sign_in(
    server: SignInServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "mcpgate"):
        async with gateway({"linear": server.entry()}) as opened:
            (view,) = opened.pool.views()
            assert view.state == "needs_sign_in" and view.tools == ()
            assert view.reason == "sign in: mcpgate auth login linear (HTTP 401 Unauthorized: no)"
            asked = len(server.seen)
            for _ in range(5):
                with pytest.raises(
                    UpstreamError, match="'linear' is not connected: sign in: mcpgate auth login linear"
                ):
                    await whoami(opened)
            listing = await opened.metatools.list_tools(RequestContext(LOCAL), None, None, None)
            assert "sign in: mcpgate auth login linear" in str(listing)
            assert len(server.seen) == asked, "nothing is tried meanwhile"
            assert len([r for r in caplog.records if "sign in: mcpgate auth login linear" in r.message]) == 1


async def test_a_sign_in_wakes_the_upstream_without_a_restart(server: SignInServer) -> None:
    async with gateway({"linear": server.entry()}) as opened:
        asked = await sign_in(opened)
        assert await whoami(opened) == "whoami by ada"
        assert asked["resource"] == server.url and asked["scope"] == "mcp:read"


async def test_a_remote_server_that_wants_no_token_gets_none_and_costs_no_import_of_the_sign_in() -> None:
    code = (
        "import sys; from mcpgate.upstream import upstream, remote; "
        "sys.exit(any(m in sys.modules for m in ('mcpgate.upstream.auth', 'mcpgate.upstream.discovery', 'jwt', "
        "'cryptography', 'mcp')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    code = "import sys; from mcpgate.upstream import upstream; sys.exit('httpx2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- traffic


async def test_calls_at_once_are_at_the_server_at_once(server: SignInServer) -> None:
    server.holding = threading.Barrier(8)
    async with signed_in(server) as opened:
        linear = opened.pool.get("linear")
        with anyio.fail_after(15):
            answers = await asyncio.gather(*(linear.call("together", {}) for _ in range(8)))
        assert {text_of(answer) for answer in answers} == {"together by ada"}


async def test_an_expired_token_is_renewed_after_a_restart_without_anybody(server: SignInServer) -> None:
    server.lifetime_s = 0.01
    async with gateway({"linear": server.entry()}) as opened:
        await sign_in(opened)
    server.lifetime_s = 3600.0
    server.seen.clear()
    async with gateway({"linear": server.entry()}) as opened:
        assert await whoami(opened) == "whoami by ada"
    assert server.count("/token", grant_type="refresh_token") == 1
    assert server.count("/authorize") == 0
    assert all(one.token in server.tokens for one in server.seen if one.port == "mcp"), "the old one is not even sent"


async def test_a_token_that_the_server_ended_early_is_renewed_within_the_call(server: SignInServer) -> None:
    async with signed_in(server) as opened:
        server.expire_all()
        server.seen.clear()
        answers = await asyncio.gather(*(whoami(opened) for _ in range(8)))
        assert set(answers) == {"whoami by ada"}
        assert server.count("/token", grant_type="refresh_token") == 1
        assert opened.pool.views()[0].state == "ready" and not server.calls("initialize")


def held_renewal() -> tuple[Callable[[Exchange], bool], threading.Event, threading.Event]:
    """A hook that holds every renewal of a token; set when one has come; set it to let them go on."""
    reached, go_on = threading.Event(), threading.Event()

    def hold(exchange: Exchange) -> bool:
        if exchange.way == "/token":
            reached.set()
            go_on.wait(10)
        return False

    return hold, reached, go_on


async def test_a_caller_that_gives_up_does_not_lose_the_renewal_for_others(server: SignInServer) -> None:
    hold, reached, go_on = held_renewal()

    async with signed_in(server) as opened:
        server.expire_all()
        server.hook = hold
        call = asyncio.create_task(whoami(opened))
        await until(reached.is_set)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        go_on.set()
        assert await whoami(opened) == "whoami by ada"
        assert server.stolen == 0 and len(server.used) == 1


async def test_of_processes_over_one_store_one_renews_a_token_for_all(server: SignInServer) -> None:
    async with gateway({"linear": server.entry()}) as one, gateway({"linear": server.entry()}) as other:
        await sign_in(one)
        for times in range(1, 4):
            server.expire_all()
            answers = await asyncio.gather(*(whoami(opened) for opened in (one, other) * 4))
            assert set(answers) == {"whoami by ada"}
            assert (len(server.used), server.stolen) == (times, 0)


async def test_a_token_that_was_revoked_ends_in_words_and_a_new_sign_in_goes_on(server: SignInServer) -> None:
    async with signed_in(server) as opened:
        server.revoke_all()
        with pytest.raises(UpstreamError, match="sign in: mcpgate auth login linear .HTTP 401") as failed:
            await whoami(opened)
        assert failed.value.data["server_status"] == 401
        await until(lambda: opened.pool.views()[0].state == "needs_sign_in")
        asked = len(server.seen)
        with pytest.raises(UpstreamError, match="not connected: sign in"):
            await whoami(opened)
        assert len(server.seen) == asked
        server.subject = "bob"
        await sign_in(opened)
        assert await whoami(opened) == "whoami by bob"


async def test_an_authorization_server_that_is_away_does_not_end_a_sign_in(server: SignInServer) -> None:
    def away(exchange: Exchange) -> bool:
        if exchange.way == "/token":
            exchange.reply(503)
        return exchange.way == "/token"

    async with signed_in(server) as opened:
        server.expire_all()
        server.hook = away
        with pytest.raises(UpstreamError, match="HTTP 503"):
            await whoami(opened)
        with pytest.raises(UpstreamError):
            await whoami(opened)
        assert server.count("/token", grant_type="refresh_token") == 1, "it is not asked again at once"
        token = await opened.vault.token((await opened.vault.places())[0])
        assert token is not None and token.refresh in server.refresh_tokens


async def test_more_rights_are_asked_for_by_call_and_granted_by_the_next_sign_in(server: SignInServer) -> None:
    async with signed_in(server) as opened:
        linear = opened.pool.get("linear")
        with pytest.raises(UpstreamError, match=r"grant more rights \(scopes: mcp:write\): mcpgate auth login linear"):
            await linear.call("write", {})
        assert len(server.calls()) == 1, "nothing is tried again"
        assert await whoami(opened) == "whoami by ada", "what was granted still works"
        asked = await sign_in(opened)
        assert asked["scope"] == "mcp:read mcp:write"
        assert text_of(await linear.call("write", {})) == "write by ada"


async def test_a_sign_out_ends_the_token_here_and_at_the_server(server: SignInServer) -> None:
    async with signed_in(server) as opened:
        assert await opened.pool.get("linear").sign_out("") is True
        assert (server.tokens, server.refresh_tokens) == ({}, {})
        with pytest.raises(UpstreamError, match="sign in: mcpgate auth login linear"):
            await whoami(opened)
        assert await opened.pool.get("linear").sign_out("") is None


async def test_the_gateway_registers_once_and_with_each_authorization_server_anew(server: SignInServer) -> None:
    async with signed_in(server) as opened:
        await sign_in(opened)
        assert server.count("/register") == 1
        with sign_in_server() as elsewhere:
            server.resource_metadata = {"authorization_servers": [elsewhere.auth]}
            elsewhere.resource_metadata = {"resource": server.url}
            asked = await sign_in(opened)
            assert elsewhere.count("/register") == 1 and asked["client_id"] in elsewhere.clients
            sent = [one.fields for one in elsewhere.seen]
            assert not any(secret in str(sent) for secret in server.secrets())


async def test_a_static_header_that_is_refused_is_named(server: SignInServer) -> None:
    async with gateway({"linear": server.entry(headers={"Authorization": "Bearer of-yesterday"})}) as opened:
        (view,) = opened.pool.views()
        assert view.state == "failed"
        assert view.reason.startswith(
            "check headers.Authorization of mcpServers.linear: the server did not accept it (HTTP"
        )
        assert "of-yesterday" not in view.reason


async def test_a_static_header_that_ends_while_connected_is_named_in_the_call(server: SignInServer) -> None:
    issued = server.issue("ci", "mcp:read", server.url)
    entry = server.entry(headers={"Authorization": f"Bearer {issued['access_token']}"})
    async with gateway({"linear": entry}) as opened:
        assert await whoami(opened) == "whoami by ci"
        with pytest.raises(UpstreamError, match=r"do not allow this \(it wants the scopes mcp:write\) \(HTTP 403"):
            await opened.pool.get("linear").call("write", {})
        server.revoke_all()
        with pytest.raises(UpstreamError, match=r"check headers.Authorization of mcpServers.linear.*HTTP 401"):
            await whoami(opened)


# --- machines


async def test_a_client_of_its_own_needs_nobody_and_gets_a_new_token_when_one_ends(server: SignInServer) -> None:
    server.clients["robot"] = {"method": "client_secret_basic", "uris": [], "secret": "s:/é"}
    server.refreshes = False
    auth = {"type": "client_credentials", "client_id": "robot", "client_secret": "s:/é", "scopes": ["mcp:read"]}
    async with gateway({"linear": server.entry(auth=auth)}) as opened:
        assert await whoami(opened) == "whoami by robot"
        server.expire_all()
        assert await whoami(opened) == "whoami by robot"
        assert server.count("/token", grant_type="client_credentials") == 2 and server.count("/authorize") == 0


async def test_a_client_that_is_refused_is_named_and_tried_again_in_peace(server: SignInServer) -> None:
    auth = {"type": "client_credentials", "client_id": "robot", "client_secret": "wrong-secret"}
    async with gateway({"linear": server.entry(auth=auth)}) as opened:
        (view,) = opened.pool.views()
        assert view.state == "failed" and "refused: HTTP 401 invalid_client" in view.reason
        assert "wrong-secret" not in view.reason


async def test_a_private_key_proves_who_the_client_is(server: SignInServer) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    claims: list[dict[str, Any]] = []

    def token(exchange: Exchange) -> bool:
        if exchange.way != "/token":
            return False
        assertion = exchange.fields["client_assertion"]
        claims.append(jwt.decode(assertion, key.public_key(), ["ES256"], audience=server.auth))
        exchange.reply(200, server.issue("robot", "mcp:read", exchange.fields["resource"]))
        return True

    server.hook = token
    auth = {"type": "private_key_jwt", "client_id": "robot", "private_key": pem}
    async with gateway({"linear": server.entry(auth=auth)}) as opened:
        assert await whoami(opened) == "whoami by robot"
    assert (claims[0]["iss"], claims[0]["sub"]) == ("robot", "robot") and claims[0]["exp"] - time.time() < 600


async def test_a_registered_client_signs_in_with_its_secret_to_one_authorization_server_only(
    server: SignInServer,
) -> None:
    server.clients["ours"] = {"method": "client_secret_post", "uris": [REDIRECT], "secret": "the-secret"}
    server.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    server.registers = False
    async with signed_in(server, auth={"client_id": "ours", "client_secret": "the-secret"}) as opened:
        assert await whoami(opened) == "whoami by ada"
        with sign_in_server() as evil:
            server.resource_metadata = {"authorization_servers": [evil.auth]}
            evil.resource_metadata = {"resource": server.url}
            with pytest.raises(SignInFailed, match="names another authorization server than before"):
                await sign_in(opened)
            assert not any(one.method == "POST" for one in evil.seen)


async def test_without_registration_it_says_what_to_register(server: SignInServer) -> None:
    server.registers = False
    async with gateway({"linear": server.entry()}) as opened:
        with pytest.raises(SignInFailed, match="with the redirect address .*, and set auth.client_id"):
            await sign_in(opened)


async def test_a_metadata_address_is_the_client_where_the_server_takes_it(server: SignInServer) -> None:
    server.metadata = {"client_id_metadata_document_supported": True}
    server.clients["https://us.example/client.json"] = {"method": "none", "uris": [REDIRECT], "secret": ""}
    async with signed_in(server, auth={"client_metadata_url": "https://us.example/client.json"}) as opened:
        assert await whoami(opened) == "whoami by ada" and server.count("/register") == 0


@pytest.mark.parametrize(
    ("entry", "supported", "expected"),
    [
        ({}, ["mcp:read", "mcp:more"], "mcp:read"),
        ({"auth": {"scopes": "one two"}}, ["mcp:read"], "one two"),
    ],
)
async def test_scopes_are_those_of_the_configuration_or_of_the_challenge(
    server: SignInServer, entry: dict[str, Any], supported: list[str], expected: str
) -> None:
    server.scopes_supported = supported
    async with gateway({"linear": server.entry(**entry)}) as opened:
        assert (await sign_in(opened))["scope"] == expected


async def test_a_server_of_early_2025_is_its_own_authorization_server(server: SignInServer) -> None:
    def early(exchange: Exchange) -> bool:
        if exchange.port == "mcp" and "oauth-protected-resource" in exchange.way:
            exchange.reply(404)
            return True
        if exchange.port == "mcp" and exchange.way == "/.well-known/oauth-authorization-server":
            exchange.reply(200, server.described() | {"issuer": server.mcp})
            return True
        return False

    server.hook, server.challenge_names_metadata, server.iss = early, False, server.mcp
    async with signed_in(server) as opened:
        assert await whoami(opened) == "whoami by ada"


# --- hostile metadata and answers

EVIL = "https://evil.example"
METADATA: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "another issuer": ({"issuer": EVIL}, {}, "is that of https://evil.example"),
    "an issuer of no text": ({"issuer": 7}, {}, "is that of"),
    "a token endpoint in the clear": ({"token_endpoint": "http://evil.example/token"}, {}, "token_endpoint is not HTTPS"),
    "a page in the clear": ({"authorization_endpoint": "http://evil.example/"}, {}, "authorization_endpoint is not HTTPS"),
    "a page of another kind": ({"authorization_endpoint": "javascript:alert(1)"}, {}, "authorization_endpoint"),
    "a page of a file": ({"authorization_endpoint": "file:///etc/passwd"}, {}, "authorization_endpoint"),
    "an endpoint with a password": ({"token_endpoint": "https://u:p@evil.example/"}, {}, "token_endpoint cannot be used"),
    "no PKCE": ({"code_challenge_methods_supported": ["plain"]}, {}, "PKCE"),
    "nothing said of PKCE": ({"code_challenge_methods_supported": None}, {}, "PKCE"),
    "no page": ({"authorization_endpoint": None}, {}, "nobody can sign in"),
    "another resource": ({}, {"resource": f"{EVIL}/mcp"}, "not of this server"),
    "a sibling resource": ({}, {"resource": "SELF/mc"}, "not of this server"),
    "an authorization server in the clear": ({}, {"authorization_servers": ["http://evil.example"]}, "is not HTTPS"),
    "metadata nowhere": ({}, {"authorization_servers": ["SELF/nowhere"]}, "was not found"),
}  # fmt: skip


@pytest.mark.parametrize("case", METADATA)
async def test_metadata_that_is_not_to_be_trusted_is_not_used(server: SignInServer, case: str) -> None:
    server.metadata, resource, words = METADATA[case]
    server.resource_metadata = json.loads(json.dumps(resource).replace("SELF", server.mcp))
    async with gateway({"linear": server.entry()}) as opened:
        with pytest.raises(SignInFailed, match=words):
            await sign_in(opened)
    assert not any(server.count(path) for path in ("/register", "/authorize", "/token"))


def huge(exchange: Exchange) -> None:
    exchange.reply(200, b'{"resource": "' + b"x" * 300_000 + b'"}')


def bomb(exchange: Exchange) -> None:
    exchange.reply(200, gzip.compress(b" " * 30_000_000), content_encoding="gzip")


ANSWERS: dict[str, tuple[Any, str]] = {
    "a huge body": (huge, "is over 262,144 bytes"),
    "a body that unpacks to a huge one": (bomb, "is over 262,144 bytes"),
    "a loop": (lambda exchange: exchange.reply(302, location=exchange.path), "redirects too often"),
    "a way elsewhere": (lambda exchange: exchange.reply(302, location=EVIL), "which is not followed"),
    "a way into the clear": (lambda exchange: exchange.reply(302, location="http://evil.example/"), "is not HTTPS"),
    "a failure": (lambda exchange: exchange.reply(500), "HTTP 500"),
}


@pytest.mark.parametrize("case", ANSWERS)
@pytest.mark.parametrize(
    "path", ["/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-authorization-server"]
)
async def test_an_answer_that_does_harm_ends_the_sign_in(server: SignInServer, path: str, case: str) -> None:
    answer, words = ANSWERS[case]

    def harm(exchange: Exchange) -> bool:
        if exchange.way == path:
            answer(exchange)
        return exchange.way == path

    server.hook = harm
    async with gateway({"linear": server.entry()}) as opened:
        with pytest.raises(SignInFailed, match=words):
            await sign_in(opened)
    assert not any(server.count(path) for path in ("/register", "/authorize", "/token"))


async def test_a_challenge_that_names_metadata_elsewhere_is_not_followed_into_the_clear(server: SignInServer) -> None:
    def elsewhere(exchange: Exchange) -> bool:
        if exchange.way == "/mcp":
            exchange.reply(401, www_authenticate='Bearer resource_metadata="http://10.0.0.1/secret"')
        return exchange.way == "/mcp"

    server.hook = elsewhere
    async with gateway({"linear": server.entry()}) as opened:
        with pytest.raises(SignInFailed, match="the protected resource metadata is not HTTPS"):
            await sign_in(opened)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"state": "of-another"}, "belongs to another sign-in"),
        ({"state": ""}, "belongs to another sign-in"),
        ({"iss": EVIL}, "is of https://evil.example"),
        ({"iss": "AUTH/"}, "it is not used"),
        ({"iss": None}, "is of nobody"),
        ({"code": None}, "has no code"),
        ({"error": "access_denied", "error_description": "not today"}, "refused: access_denied: not today"),
    ],
)
async def test_an_answer_that_is_not_that_of_the_sign_in_gets_no_token(
    server: SignInServer, change: dict[str, str | None], words: str
) -> None:
    async with gateway({"linear": server.entry()}) as opened:
        upstream = opened.pool.get("linear")
        begun = await upstream.sign_in("").begin(REDIRECT, None)
        answer: dict[str, Any] = {**await browse(begun.url), **change}
        kept = {name: text.replace("AUTH", server.auth) for name, text in answer.items() if text is not None}
        with pytest.raises(SignInFailed, match=words):
            await upstream.sign_in("").finish(begun, kept)
        assert server.count("/token") == 0 and await opened.vault.places() == []


TOKENS: dict[str, tuple[Any, str]] = {
    "no token": ({"token_type": "Bearer"}, "no usable token"),
    "a token with a line break": ({"access_token": "a\r\nx-evil: 1", "token_type": "Bearer"}, "cannot be sent"),
    "a token of another kind": ({"access_token": "a", "token_type": "DPoP"}, "an unsupported kind of token: DPoP"),
    "a token of megabytes": ({"access_token": "a" * 70_000, "token_type": "Bearer"}, "no usable token"),
    "no object": ([], "refused: HTTP 200"),
}


@pytest.mark.parametrize("case", TOKENS)
async def test_a_token_that_cannot_be_used_is_refused(server: SignInServer, case: str) -> None:
    answer, words = TOKENS[case]

    def give(exchange: Exchange) -> bool:
        if exchange.way == "/token":
            exchange.reply(200, answer)
        return exchange.way == "/token"

    server.hook = give
    async with gateway({"linear": server.entry()}) as opened:
        with pytest.raises(SignInFailed, match=words):
            await sign_in(opened)


@pytest.mark.parametrize(
    ("server_url", "url", "allowed"),
    [
        ("https://x.example/mcp", "https://auth.example/a", True),
        ("https://x.example/mcp", "http://auth.example/a", False),
        ("https://x.example/mcp", "http://x.example/a", False),
        ("https://x.example/mcp", "http://127.0.0.1/a", False),
        ("http://127.0.0.1:1/mcp", "http://localhost:2/a", True),
        ("http://127.0.0.1:1/mcp", "http://10.0.0.1/a", False),
        ("http://in.house/mcp", "http://in.house:8/a", True),
        ("http://in.house/mcp", "http://127.0.0.1/a", False),
    ],
)
async def test_only_https_is_used_but_where_the_server_itself_is_not(server_url: str, url: str, allowed: bool) -> None:
    web = UntrustedWeb(server_url, httpx2.AsyncClient())
    if allowed:
        assert web.checked(url, "it") == url
    else:
        with pytest.raises(SignInFailed, match="it is not HTTPS"):
            web.checked(url, "it")


# --- what is shown


async def test_no_secret_of_a_sign_in_is_in_any_log_error_or_view(
    server: SignInServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_basic"]}

    def echo(exchange: Exchange) -> bool:
        """Say back all that was sent."""
        if exchange.way == "/mcp" and exchange.headers.get("authorization"):
            exchange.reply(500, {"error": f"what is {exchange.headers['authorization']}?"})
            return True
        if exchange.way == "/token" and exchange.fields.get("refresh_token"):
            exchange.reply(400, {"error": "invalid_grant", "error_description": str(exchange.fields)})
            return True
        return False

    shown: list[str] = []
    with caplog.at_level(logging.DEBUG, "mcpgate"):
        async with signed_in(server) as opened:
            await whoami(opened)
            server.hook = echo
            with pytest.raises(UpstreamError) as failed:
                await whoami(opened)
            shown += [str(failed.value), str(failed.value.data)]
            server.hook = None
            server.revoke_all()
            with pytest.raises(UpstreamError) as failed:
                await whoami(opened)
            shown += [str(failed.value), str(failed.value.data)]
            await until(lambda: opened.pool.views()[0].state == "needs_sign_in")
            shown += [repr(opened.pool.views()), repr(opened.pool)]
    ours = [record for record in caplog.records if record.name.startswith("mcpgate")]
    shown += [record.getMessage() for record in ours] + [str(record.exc_info) for record in ours]
    assert len(server.secrets()) >= 3, "there is something to find"
    found = [secret for secret in server.secrets() if any(secret in text for text in shown)]
    assert found == []


async def test_what_the_server_asked_for_is_found_by_knocking(server: SignInServer) -> None:
    async with gateway({"linear": server.entry(disabled=True)}) as opened:
        asked = await opened.pool.get("linear").asked_for()
        place = f"{server.mcp}/.well-known/oauth-protected-resource/mcp"
        assert asked == Challenge(401, True, "", "mcp:read", place)


async def test_a_sign_out_during_a_renewal_is_final(server: SignInServer) -> None:
    hold, reached, go_on = held_renewal()

    async with signed_in(server) as opened:
        server.expire_all()
        server.hook = hold
        call = asyncio.create_task(whoami(opened))
        await until(reached.is_set)
        gone = asyncio.create_task(opened.pool.get("linear").sign_out(""))
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(call, gone, return_exceptions=True)
        assert await opened.vault.places() == [] and server.refresh_tokens == {}


async def test_a_sign_in_while_more_rights_are_wanted_asks_for_what_the_server_first_asked_for(
    server: SignInServer,
) -> None:
    async with signed_in(server) as opened:
        linear = opened.pool.get("linear")
        with pytest.raises(UpstreamError, match="grant more rights"):
            await linear.call("write", {})
        await linear.sign_out("")
        assert "mcp:read" in (await sign_in(opened))["scope"].split()
