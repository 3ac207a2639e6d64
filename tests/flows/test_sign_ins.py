"""Signing in to upstreams of a served gateway: by the admin API and a browser, for each user, in several workers."""

import asyncio
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import mcp_types as types
import pytest
from mcp.client import Client

from tests.conftest import full
from tests.flows.clients import client_of, text_of
from tests.flows.governed import (
    TRUSTED,
    Answer,
    Served,
    bearer,
    call_of,
    own_database,
    serving,
    wait_until,
    write_config,
)
from tests.upstream.sign_in_server import SignInServer, sign_in_server

ADA, BOB = "mg-the-key-of-ada", "mg-the-key-of-bob"
KEYS = {
    **TRUSTED,
    "ada": {"secret": ADA, "grants": {"tools": ["*"]}},
    "bob": {"secret": BOB, "grants": {"tools": ["*"]}},
}


@pytest.fixture
def server() -> Iterator[SignInServer]:
    with sign_in_server() as started:
        yield started


def config(folder: Path, server: SignInServer, auth: Any = None, **sections: Any) -> Path:
    entry = server.entry(expose="both", **({} if auth is None else {"auth": auth}))
    return write_config(folder, {"linear": entry}, governance={"require_key": True, "keys": KEYS}, **sections)


def link_of(served: Served) -> str:
    answer = served.admin("POST", "upstreams/linear/login")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["url"])


def agree(browser: httpx2.Client, link: str) -> str:
    """Open a link, go on, and agree to everything. Returns the last page."""
    page = browser.get(link)
    assert page.status_code == 200 and 'href="?continue=1"' in page.text, page.text
    return browser.get(f"{link}?continue=1", follow_redirects=True).text


def state_of(served: Served) -> str:
    return str(served.admin("GET", "upstreams").json()["upstreams"][0]["state"])


def whoami(served: Served, key: str) -> Answer:
    return served.call("linear__whoami", key=key)


def test_an_operator_signs_in_without_a_shell(server: SignInServer, tmp_path: Path) -> None:
    with serving(tmp_path / "home", config(tmp_path, server)) as served:
        shown = served.admin("GET", "upstreams").json()["upstreams"]
        assert [(one["name"], one["state"], one["signed_in"]) for one in shown] == [("linear", "needs_sign_in", False)]
        assert shown[0]["reason"].startswith("sign in: mcpgate auth login linear (HTTP 401")
        with httpx2.Client() as browser:
            assert "You are signed in to linear" in agree(browser, link_of(served))
        wait_until(lambda: state_of(served) == "ready")
        assert whoami(served, ADA).text == "whoami by ada"
        assert served.admin("POST", "upstreams/linear/logout").json() == {"revoked": True}
        assert not server.tokens and served.admin("POST", "upstreams/linear/logout").status_code == 404
        assert served.admin("POST", "upstreams/linear/login", key=ADA).status_code == 403


def test_a_sign_in_ends_in_the_browser_in_which_it_began_and_only_once(server: SignInServer, tmp_path: Path) -> None:
    with serving(tmp_path / "home", config(tmp_path, server)) as served:
        link = link_of(served)
        with httpx2.Client() as browser, httpx2.Client() as victim:
            page = browser.get(f"{link}?continue=1")
            assert page.status_code == 303 and page.headers["set-cookie"].count("HttpOnly; SameSite=Lax")
            back = browser.get(page.headers["location"]).headers["location"]
            assert back.startswith(f"{served.address}/oauth/callback?")
            answer = victim.get(back)
            assert answer.status_code == 404 and "started in another browser" in answer.text and not server.tokens
            assert "You are signed in" in browser.get(back).text
            assert "has expired" in browser.get(back).text
            assert server.count("/token") == 1
        for path in (
            "oauth/callback",
            "oauth/callback?state=x&code=y",
            "oauth/login/none",
            "oauth/callback?state=link",
        ):
            assert served.clients[0].get(path).status_code == 404


def test_a_page_cannot_be_framed_and_shows_names_as_text(server: SignInServer, tmp_path: Path) -> None:
    name = "<b>linear"
    file = write_config(tmp_path, {name: server.entry()}, governance={"require_key": True, "keys": KEYS})
    with serving(tmp_path / "home", file) as served:
        answer = served.admin("POST", "upstreams/%3Cb%3Elinear/login")
        page = served.clients[0].get(answer.json()["url"])
        assert name not in page.text and "&lt;b&gt;linear" in page.text
        assert (
            page.headers["x-frame-options"] == "DENY"
            and "frame-ancestors 'none'" in page.headers["content-security-policy"]
        )


def test_each_caller_signs_in_for_itself_and_acts_as_itself(server: SignInServer, tmp_path: Path) -> None:
    file = config(tmp_path, server, {"type": "oauth", "per": "user"})
    with serving(tmp_path / "home", file) as served:

        def docs(key: str) -> str:
            return served.call("read_docs", {"topic": "linear"}, key).text

        assert 'read_docs("linear") tells where' in served.call("list_tools", {}, ADA).text
        link = re.search(r"http\S+/oauth/login/[\w-]+", docs(ADA))
        assert link is not None, docs(ADA)
        with httpx2.Client() as browser:
            assert "the key ada" in browser.get(link[0]).text
            agree(browser, link[0])
        wait_until(lambda: any(tool["name"] == "linear__whoami" for tool in served.tools(ADA)))
        assert whoami(served, ADA).text == "whoami by ada"
        assert "oauth/login" not in docs(ADA)

        refused = whoami(served, BOB)
        theirs = re.search(r"sign in: (http\S+/oauth/login/[\w-]+)", refused.text)
        assert not refused.ok and theirs is not None and theirs[1] != link[0]
        server.subject = "bob"
        with httpx2.Client() as browser:
            agree(browser, theirs[1])
        wait_until(lambda: whoami(served, BOB).text == "whoami by bob")
        assert whoami(served, ADA).text == "whoami by ada"

        gone = served.admin("POST", "upstreams/linear/logout", {"key": "bob"})
        assert gone.json() == {"revoked": True}
        wait_until(lambda: "sign in: http" in whoami(served, BOB).text)
        assert whoami(served, ADA).text == "whoami by ada"
        assert served.admin("POST", "upstreams/linear/login").status_code == 400


async def seen_by(client: Client) -> set[str]:
    """The resources, templates and prompts that a client lists."""
    return {
        *(one.uri for one in (await client.list_resources()).resources),
        *(one.uri_template for one in (await client.list_resource_templates()).resource_templates),
        *(one.name for one in (await client.list_prompts()).prompts),
    }


async def roots(context: Any) -> types.ListRootsResult:
    return types.ListRootsResult(roots=[types.Root(uri="file:///home/ada")])


def of(subject: str) -> set[str]:
    return {f"note://{subject}", f"file:///{subject}/{{path}}", f"greet-{subject}"}


def sign_in(served: Served, server: SignInServer, key: str, subject: str) -> None:
    """What the person behind a key does, as soon as it takes effect."""
    server.subject = subject
    refused = whoami(served, key).text
    link = re.search(r"http\S+/oauth/login/[\w-]+", refused)
    if link is None:  # nobody has ever signed in, so there is no tool to call
        link = re.search(r"http\S+/oauth/login/[\w-]+", served.call("read_docs", {"topic": "linear"}, key).text)
    assert link is not None, refused
    with httpx2.Client() as browser:
        agree(browser, link[0])
    wait_until(lambda: whoami(served, key).text == f"whoami by {subject}")


class Heard:
    """What a client is told without asking."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.new = asyncio.Event()

    async def __call__(self, message: Any) -> None:
        if isinstance(message, types.ResourceUpdatedNotification):
            self.told.append(str(message.params.uri))
        elif isinstance(message, types.ResourceListChangedNotification | types.PromptListChangedNotification):
            self.told.append(message.method.split("/")[1])
        self.new.set()

    async def until(self, *expected: str) -> None:
        async with asyncio.timeout(10):
            while not {*expected} <= {*self.told}:
                self.new.clear()
                await self.new.wait()


@pytest.mark.anyio
@pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
@pytest.mark.parametrize("others", [0, 1], ids=["alone", "beside another server"])
async def test_resources_and_prompts_of_an_account_reach_its_caller_and_nobody_else(
    others: int, server: SignInServer, tmp_path: Path
) -> None:
    server.notes = True
    entry = server.entry(expose="both", auth={"type": "oauth", "per": "user"})
    servers = {"linear": entry, **({"full": full("full")} if others else {})}
    file = write_config(tmp_path, servers, governance={"require_key": True, "keys": KEYS})
    heard = {ADA: Heard(), BOB: Heard()}
    with serving(tmp_path / "home", file) as served:
        async with (
            client_of(
                served.address, "legacy", bearer(ADA), message_handler=heard[ADA], list_roots_callback=roots
            ) as ada,
            client_of(served.address, "legacy", bearer(BOB), message_handler=heard[BOB]) as bob,
        ):
            for client in (ada, bob):
                assert not any("ada" in name or "bob" in name for name in await seen_by(client))
            if others:  # what another server has does not wait for a sign-in
                assert "of full" in str((await ada.read_resource("note://full")).contents)
                assert "octet-stream" in str((await bob.read_resource("file:///full/unlisted")).contents)
            await asyncio.to_thread(sign_in, served, server, ADA, "ada")
            await heard[ADA].until("resources", "prompts")
            assert of("ada") <= await seen_by(ada)
            assert not of("ada") & await seen_by(bob) and not heard[BOB].told
            code = "print(linear.resources(), linear.prompts(), linear.read_resource('note://ada'))"
            refused = await bob.call_tool("execute_code", {"code": code})
            assert refused.is_error and "sign in: http" in text_of(refused) and "greet-ada" not in text_of(refused)

            await asyncio.to_thread(sign_in, served, server, BOB, "bob")
            await heard[BOB].until("resources", "prompts")
            for client, subject, other in ((ada, "ada", "bob"), (bob, "bob", "ada")):
                seen = await seen_by(client)
                assert of(subject) <= seen and not of(other) & seen
                assert f"note://{subject} for {subject}" in str(await client.read_resource(f"note://{subject}"))
                assert f"for {subject}" in str(await client.get_prompt(f"greet-{subject}"))
                ref = types.PromptReference(name=f"greet-{subject}", type="ref/prompt")
                completed = await client.complete(ref, {"name": "who", "value": ""})
                assert completed.completion.values == [subject]
                said = text_of(await client.call_tool("execute_code", {"code": code.replace("ada", subject)}))
                assert f"note://{subject} for {subject}" in said and f"greet-{subject}" in said and other not in said
                page = text_of(await client.call_tool("read_docs", {"topic": "linear"}))
                assert f"note://{subject}" in page and other not in page
                await client.subscribe_resource(f"note://{subject}")
            assert server.subscribed == {("ada", "note://ada"), ("bob", "note://bob")}

            for heard_by in heard.values():
                heard_by.told.clear()
            await asyncio.to_thread(wait_until, lambda: {"ada", "bob"} <= {whose for whose, _ in server.streams})
            server.announce("ada", "notifications/resources/updated", uri="note://ada")
            server.announce("ada", "notifications/prompts/list_changed")
            server.announce("bob", "notifications/resources/list_changed")
            await heard[ADA].until("note://ada", "prompts")
            await heard[BOB].until("resources")
            assert "resources" not in heard[ADA].told and heard[BOB].told == ["resources"]

            await bob.send_roots_list_changed()
            await ada.send_roots_list_changed()
            told = "notifications/roots/list_changed"
            await asyncio.to_thread(wait_until, lambda: server.calls(told))
            server.ask("ada", "roots/list")
            await asyncio.to_thread(wait_until, lambda: len(server.answers) == 2)
            assert [server.tokens[one.token].subject for one in server.calls(told)] == ["ada"], "bob offers no roots"
            on_each = [[], [{"uri": "file:///home/ada"}]]  # the shared one has the token of ada, but not her client
            assert sorted(result["roots"] for _, result in server.answers) == on_each
            if others:  # which callers share
                assert json.loads(text_of(await ada.call_tool("full__told_roots", {}))) == {"roots": [], "changes": 0}

            await ada.unsubscribe_resource("note://ada")
            await asyncio.to_thread(wait_until, lambda: server.subscribed == {("bob", "note://bob")})
            assert (await asyncio.to_thread(served.admin, "POST", "upstreams/linear/logout", {"key": "ada"})).json()
            assert not of("ada") & await seen_by(ada) and of("bob") <= await seen_by(bob)


@pytest.mark.anyio
async def test_what_an_account_follows_is_followed_again_after_another_sign_in(
    server: SignInServer, tmp_path: Path
) -> None:
    server.notes = True
    with serving(tmp_path / "home", config(tmp_path, server, {"type": "oauth", "per": "user"})) as served:
        for key, subject in ((BOB, "bob"), (ADA, "ada")):
            await asyncio.to_thread(sign_in, served, server, key, subject)
        async with (
            client_of(served.address, "2026-07-28", bearer(ADA)) as client,
            client.listen(resources_list_changed=True, resource_subscriptions=["note://ada"]) as events,
        ):
            await asyncio.to_thread(wait_until, lambda: {"ada", "bob"} <= {whose for whose, _ in server.streams})
            server.announce("bob", "notifications/resources/list_changed")
            server.announce("ada", "notifications/resources/updated", uri="note://ada")
            async with asyncio.timeout(20):
                assert type(await anext(events)).__name__ == "ResourceUpdated", "of what bob has, ada hears nothing"
            server.revoke_all()
            assert "sign in: http" in (await asyncio.to_thread(whoami, served, ADA)).text
            server.subscribed.clear()
            await asyncio.to_thread(sign_in, served, server, ADA, "ada")
            await asyncio.to_thread(wait_until, lambda: server.subscribed == {("ada", "note://ada")})
            server.announce("ada", "notifications/resources/updated", uri="note://ada")
            async with asyncio.timeout(20):
                while type(await anext(events)).__name__ != "ResourceUpdated":
                    pass
        await asyncio.to_thread(wait_until, lambda: not server.subscribed)


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_the_person_at_the_client_gets_the_link_and_the_call_goes_on(
    mode: str, server: SignInServer, tmp_path: Path
) -> None:
    asked: list[Any] = []

    async def person(context: Any, params: Any) -> types.ElicitResult:
        asked.append(params)
        if len(asked) == 1:
            return types.ElicitResult(action="decline")
        with httpx2.Client() as browser:
            assert "You are signed in" in await asyncio.to_thread(agree, browser, params.url)
        return types.ElicitResult(action="accept")

    with serving(tmp_path / "home", config(tmp_path, server, {"type": "oauth", "per": "user"})) as served:
        link = re.search(r"http\S+/oauth/login/[\w-]+", served.call("read_docs", {"topic": "linear"}, ADA).text)
        assert link is not None
        with httpx2.Client() as browser:
            agree(browser, link[0])  # its tools are known from now on
        wait_until(lambda: served.tools(BOB)[4:])
        server.subject = "bob"
        async with client_of(served.address, mode, bearer(BOB), elicitation_callback=person) as client:
            code = {"code": "return linear.whoami()"}
            declined = await client.call_tool("execute_code", code)
            assert declined.is_error and "sign in: http" in text_of(declined)
            assert text_of(await client.call_tool("execute_code", code)) == "whoami by bob"
            assert text_of(await client.call_tool("linear__whoami", {})) == "whoami by bob"
        assert [params.mode for params in asked] == ["url", "url"] and "'linear'" in asked[0].message


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_two_workers_follow_a_sign_in_and_renew_its_token_once(
    server: SignInServer, tmp_path: Path, store: str
) -> None:
    def calls(served: Served) -> set[str]:
        """On fresh connections, which reach either worker."""

        def call(_: int) -> str:
            with httpx2.Client(base_url=served.address, timeout=30) as fresh:
                return Answer(fresh.post("/mcp", json=call_of("linear__whoami"), headers=bearer(ADA))).text

        with ThreadPoolExecutor(8) as pool:
            return set(pool.map(call, range(24)))

    def check(storage: dict[str, Any]) -> None:
        with serving(tmp_path / "home", config(tmp_path, server, **storage), workers=2) as served:
            with httpx2.Client() as browser:
                assert "You are signed in" in agree(browser, link_of(served))
            wait_until(lambda: calls(served) == {"whoami by ada"})
            assert len({one.path for one in server.calls("initialize")}) == 1
            for times in (1, 2, 3):
                server.expire_all()
                assert calls(served) == {"whoami by ada"}
                assert (len(server.used), server.stolen) == (times, 0)
            server.revoke_all()
            assert all("sign in: mcpgate auth login linear" in text for text in calls(served))
            server.subject = "bob"
            with httpx2.Client() as browser:
                agree(browser, link_of(served))
            wait_until(lambda: calls(served) == {"whoami by bob"})

    if store == "sqlite":
        check({})
        return
    with own_database() as url:
        check({"storage": {"url": url}})


def test_no_secret_of_a_sign_in_is_in_the_log_of_a_gateway_that_tells_everything(
    server: SignInServer, tmp_path: Path
) -> None:
    server.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    file = config(tmp_path, server, telemetry={"log_level": "debug"})
    with serving(tmp_path / "home", file) as served:
        with httpx2.Client() as browser:
            agree(browser, link_of(served))
        wait_until(lambda: state_of(served) == "ready")
        whoami(served, ADA)
        server.expire_all()
        whoami(served, ADA)
        server.revoke_all()
        answers = [whoami(served, ADA).response.text for _ in range(2)]
        wait_until(lambda: state_of(served) == "needs_sign_in")
        shown = [*answers, served.admin("GET", "upstreams").text, served.clients[0].get("/readyz").text]
    shown += [path.read_text() for path in (tmp_path / "home").glob("log*")]
    assert len(server.secrets()) >= 5 and "sign in: mcpgate auth login linear" in "".join(shown)
    assert [secret for secret in server.secrets() if any(secret in text for text in shown)] == []
