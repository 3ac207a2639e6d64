"""A client of the MCP SDK that has only the gateway's address: it is told where to sign in, a person does so at a real
authorization server, and the token it gets opens what the person's groups allow."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from mcp.client import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

from tests.conftest import IN_CI, raw
from tests.flows.clients import BOTH_ERAS, settled
from tests.flows.governed import TRUSTED, Served, serving, write_config
from tests.oidc import provider

BACK_TO = "http://127.0.0.1:9/callback"
"""Nothing listens there: the person's browser stops before it."""


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not provider.is_installed():
        (pytest.fail if IN_CI else pytest.skip)("not installed; run `python -m tests.oidc.provider`")
    with provider.provider(tmp_path_factory.mktemp("provider") / "log") as issuer:
        yield issuer


@pytest.fixture(scope="module")
def served(issuer: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("signed-in")
    oauth = {
        "issuers": [issuer],
        "scopes": ["mcp"],
        "claims": {"keys": [{"key": "staff", "when": {"groups": "eng*"}}], "user": "{sub}"},
    }
    keys = {**TRUSTED, "staff": {"name": "Staff", "team": "search", "grants": {"tools": ["alpha.*"]}}}
    config = write_config(
        folder, {"alpha": raw(expose="both"), "beta": raw(expose="both")},
        governance={"keys": keys, "teams": {"search": {}}, "users": {"ada": {}}},
        bundles={"small": {"servers": ["alpha"], "expose": "direct", "meta_tools": False}},
        server={"oauth": oauth},
    )  # fmt: skip
    with serving(folder, config) as served:
        yield served


class Storage:
    """Remembers what a client's user would keep."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


@asynccontextmanager
async def signed_in(address: str, person: str, mode: str = "legacy") -> AsyncIterator[tuple[Client, Storage]]:
    answer: dict[str, str] = {}

    async def open_browser(url: str) -> None:
        answer.update((await asyncio.to_thread(provider.sign_in, url, person, BACK_TO)).params)

    async def come_back() -> AuthorizationCodeResult:
        return AuthorizationCodeResult(**{name: answer.get(name) for name in ("code", "state", "iss")})  # type: ignore[arg-type]

    storage = Storage()
    metadata = OAuthClientMetadata(client_name="the tests", redirect_uris=[BACK_TO], token_endpoint_auth_method="none")  # type: ignore[list-item]
    auth = OAuthClientProvider(address, metadata, storage, open_browser, come_back)
    async with httpx2.AsyncClient(auth=auth, timeout=30) as http:
        async with Client(streamable_http_client(address, http_client=http), mode=mode, cache=None) as client:
            yield client, storage


@pytest.mark.anyio
@BOTH_ERAS
async def test_a_person_signs_in_and_sees_what_the_key_of_their_group_grants(served: Served, mode: str) -> None:
    async with signed_in(f"{served.address}/mcp", "ada", mode) as (client, storage):
        await settled(client)
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"alpha__echo", "execute_code"} <= names and not any(name.startswith("beta") for name in names)
        answer: Any = await client.call_tool("alpha__echo", {"text": "signed in"})
        assert answer.content[0].text == "signed in"
        assert storage.tokens is not None and storage.tokens.access_token.count(".") == 2
    rows = served.usage("key,user,team", tool="echo")
    assert {(row["key"], row["user"], row["team"]) for row in rows} == {("staff", "ada", "search")}


@pytest.mark.anyio
async def test_a_person_without_a_group_of_the_rules_signs_in_and_gets_nowhere(served: Served) -> None:
    with pytest.raises(BaseException) as refused:
        async with signed_in(f"{served.address}/mcp", "eve"):
            pass
    assert served.clients[0].get("/healthz").status_code == 200
    assert "no rule in server.oauth.claims.keys matches this token" in _texts(refused.value)


@pytest.mark.anyio
async def test_a_token_for_a_bundle_opens_only_that_bundle(served: Served) -> None:
    async with signed_in(f"{served.address}/mcp/small", "ada") as (client, storage):
        assert all(tool.name.startswith("alpha") for tool in (await client.list_tools()).tools)
    assert storage.tokens is not None
    refused = served.call("list_tools", key=storage.tokens.access_token)
    assert refused.response.status_code == 401 and "/mcp/small" in refused.text


def _texts(error: BaseException) -> str:
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return " ".join([str(error), *map(_texts, inner)])
