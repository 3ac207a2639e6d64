"""The dashboard in a real browser, in front of a gateway with real traffic: every page, every form, live updates."""

import asyncio
import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import Watched, chromium
from tests.conftest import raw
from tests.flows.governed import ADMIN, Served, bearer, serving, sqlite_url, write_config, write_entries
from tests.stores.conftest import entry

HOSTILE = '<img src=x onerror="document.title=1">'
TEAM = "mg-administrator-of-a-team"
PAGES = ["overview", "usage", "requests", "executions", "keys", "keys/customers", "keys/teams", "keys/users", "keys/key/worker",
         "limits", "limits/budgets", "limits/rate-limits", "changes", "servers", "servers/raw", "models", "cache", "try/tools",
         "try/code", "try/chat", "alerts"]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def house(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("dashboard")
    keys = {
        "admin": {"secret": ADMIN, "grants": {"tools": "*", "models": "*", "admin": True}},
        "worker": {
            "secret": "mg-of-the-worker",
            "name": HOSTILE,
            "team": "search",
            "user": "ada",
            "grants": {"tools": "*", "models": "*"},
            "budget": {"limit_usd": 4, "period": "1d"},
        },
        "lead": {"secret": TEAM, "team": "search", "grants": {"tools": "*", "admin": True}},
    }
    governance = {"require_key": True, "keys": keys, "teams": {"search": {"budget": {"limit_usd": 50, "period": "1w"}}}}
    llm = {"providers": {"echo": {"type": "echo"}}, "models": {"fast": {"targets": [{"target": "echo/llama"}]}}}
    telemetry = {
        "log_content": True,
        "channels": {"console": {"type": "log"}},
        "alerts": [{"id": "servers", "when": {"upstream_down": True}, "for_s": 0, "channels": ["console"]}],
    }
    servers = {"raw": raw(expose="both", prices={"echo": 0.5, "add": 0.01}), "gone": {"command": "/nonexistent"}}
    config = write_config(folder, servers, governance=governance, llm=llm, telemetry=telemetry)
    with serving(folder, config) as served:
        traffic(served)
        yield served


def traffic(served: Served) -> None:
    key = "mg-of-the-worker"
    for text in ("one", "two"):
        assert served.call(
            "raw__echo", {"text": text}, key, {"x-mcpgate-metadata": json.dumps({"project": HOSTILE})}
        ).ok
    assert served.run("[raw.add(a=n, b=1) for n in range(3)]", key).ok
    body = {"model": "fast", "messages": [{"role": "user", "content": "hello"}]}
    assert served.clients[0].post("/v1/chat/completions", json=body, headers=bearer(key)).status_code == 200


@pytest.fixture
def visitor(browser: Browser, house: Served) -> Iterator[Watched]:
    """A page whose visitor is signed in with an admin key."""
    yield from signed_in(browser, house, ADMIN)


@pytest.fixture
def lead(browser: Browser, house: Served) -> Iterator[Watched]:
    """One with the key of a team's administrator."""
    yield from signed_in(browser, house, TEAM)


def signed_in(browser: Browser, house: Served, secret: str) -> Iterator[Watched]:
    with browser.new_context(viewport={"width": 1360, "height": 900}) as context:
        watched = Watched(context.new_page())
        watched.page.goto(f"{house.address}/dashboard/")
        enter(watched.page, secret)
        expect(watched.page.get_by_role("heading", name="Overview")).to_be_visible()
        yield watched
        watched.check()


def enter(page: Page, secret: str) -> None:
    page.get_by_label("Key or token").fill(secret)
    page.get_by_role("button", name="Sign in").click()


def go(watched: Watched, place: str) -> Page:
    watched.page.evaluate("place => { location.hash = place }", f"#/{place}")
    expect(watched.page.locator("main .loading")).to_have_count(0)
    return watched.page


def dialog(page: Page):  # type: ignore[no-untyped-def]
    return page.get_by_role("dialog")


def confirm(page: Page, action: str) -> None:
    dialog(page).get_by_role("button", name=action, exact=True).click()
    expect(dialog(page)).to_have_count(0)


# --- signing in


def test_a_wrong_key_is_refused_and_a_right_one_let_in_until_its_owner_signs_out(
    browser: Browser, house: Served
) -> None:
    with browser.new_context() as context:
        watched = Watched(context.new_page())
        watched.expected = ("/dashboard/session",)
        page = watched.page
        page.goto(f"{house.address}/dashboard")
        watched.check_accessible()
        enter(page, "mg-nobodys-key")
        expect(page.get_by_role("alert")).to_contain_text("unknown API key")
        enter(page, ADMIN)
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        page.reload()
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        assert page.evaluate("document.cookie") == ""
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("Key or token")).to_be_visible()
        page.goto(f"{house.address}/dashboard/#/keys")
        expect(page.get_by_label("Key or token")).to_be_visible()
        watched.check()


# --- pages


@pytest.mark.parametrize(("scheme", "rules"), [("light", []), ("dark", ["color-contrast"])], ids=["light", "dark"])
def test_every_page_shows_real_facts_without_an_error_and_is_accessible(
    visitor: Watched, scheme: Any, rules: list[str]
) -> None:
    visitor.page.emulate_media(color_scheme=scheme)
    for place in PAGES:
        page = go(visitor, place)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        expect(page.get_by_role("alert")).to_have_count(0)
        visitor.check_accessible(*rules)
        visitor.check()


def test_pages_fit_a_narrow_screen(visitor: Watched) -> None:
    visitor.page.set_viewport_size({"width": 390, "height": 800})
    for place in PAGES:
        page = go(visitor, place)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, place
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("link", name="Usage").click()
    expect(page.get_by_role("heading", name="Usage", level=1)).to_be_visible()


def test_names_of_others_stay_text(visitor: Watched) -> None:
    for place in ("overview", "keys", "requests", "usage?by=metadata.project"):
        page = go(visitor, place)
        assert page.locator("main img").count() == 0
    expect(page.get_by_role("button", name=HOSTILE)).to_be_visible()
    assert "Usage" in page.title()


def test_the_keyboard_reaches_the_content_and_the_columns_of_a_chart(visitor: Watched) -> None:
    page = go(visitor, "overview")
    page.locator("body").press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_be_focused()
    page.get_by_role("img", name=re.compile("^Spend")).focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".tip")).to_contain_text("Spend")


def test_the_colours_can_be_chosen_and_are_remembered(visitor: Watched) -> None:
    page = visitor.page
    page.get_by_role("combobox", name="Colours").select_option("dark")
    expect(page.locator("html")).to_have_css("background-color", "rgb(15, 18, 24)")
    page.reload()
    expect(page.locator("html")).to_have_css("background-color", "rgb(15, 18, 24)")


def test_numbers_and_times_are_written_as_people_read_them(visitor: Watched) -> None:
    found = visitor.page.evaluate("""async () => {
        const f = await import(new URL("lib/format.js", document.baseURI).href), now = Date.parse("2026-01-02T00:00Z");
        return [f.number(1234567), f.short(1234567), f.number(null), f.money("0.00012"), f.money("12.5"), f.money("0"), f.money("-3"),
            f.percent(0.034), f.duration(0.4), f.duration(1234), f.duration(150000), f.bytes(1234567), f.period("7d"), f.period("1M"),
            f.relative("2026-01-01T23:55:00Z", now), f.relative("2026-01-04T00:00:00Z", now)];
    }""")
    assert found == [
        *(
            "1,234,567",
            "1.23M",
            "–",
            "$0.00012",
            "$12.50",
            "$0.00",
            "−$3.00",
            "3.4 %",
            "0.40 ms",
            "1.23 s",
            "2 min 30 s",
        ),
        *("1.2 MB", "7 days", "month", "5 minutes ago", "in 2 days"),
    ]


# --- what is shown


def test_the_overview_follows_what_happens(house: Served, visitor: Watched) -> None:
    page = go(visitor, "overview")
    calls = page.locator(".stat", has_text="Requests").locator(".stat-hint")
    before = calls.inner_text()
    assert house.call("raw__add", {"a": 1, "b": 2}).ok
    expect(calls).not_to_have_text(before)


def test_requests_appear_as_they_end(house: Served, visitor: Watched) -> None:
    page = go(visitor, "requests")
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    rows = page.get_by_role("region", name="Requests").locator("tbody tr")
    expect(rows.first).to_be_visible()
    before = rows.count()
    assert house.call("raw__echo", {"text": "live"}).ok
    expect(rows).to_have_count(before + 1)
    expect(rows.first).to_contain_text("raw.echo")


def test_an_execution_shows_its_calls_as_a_timeline(visitor: Watched) -> None:
    page = go(visitor, "executions")
    page.locator("tbody a").first.click()
    expect(page.get_by_role("heading", name="Calls (3)")).to_be_visible()
    expect(page.locator(".timeline .span")).to_have_count(3)
    expect(page.get_by_role("region", name="Code").locator("pre")).to_have_text("[raw.add(a=n, b=1) for n in range(3)]")
    expect(page.get_by_role("region", name="Answer").locator("pre")).to_contain_text("3")
    page.locator(".timeline a").first.click()
    expect(page.get_by_role("heading", name="raw.add")).to_be_visible()
    page.get_by_role("link", name="What it belongs to").click()
    expect(page.get_by_role("heading", name="Calls (3)")).to_be_visible()


def test_usage_can_be_grouped_filtered_linked_to_and_saved(visitor: Watched, tmp_path: Path) -> None:
    page = go(visitor, "usage?by=tool&where=kind=tool")
    page.get_by_label("Only where").select_option("server")
    page.get_by_label("is", exact=True).fill("raw")
    page.get_by_role("button", name="Add filter").click()
    page.get_by_label("Measure").select_option("tool_calls")
    expect(page).to_have_url(re.compile(r"by=tool.*where=kind%3Dtool%2Cserver%3Draw.*measure=tool_calls"))
    page.reload()
    expect(page.get_by_role("button", name="echo", exact=True)).to_be_visible()
    with page.expect_download() as found:
        page.get_by_role("link", name="CSV").click()
    found.value.save_as(tmp_path / "usage.csv")
    lines = (tmp_path / "usage.csv").read_text().splitlines()
    assert lines[0].startswith("tool,entries") and any(line.startswith("add,") for line in lines)
    page.get_by_role("button", name="Remove the filter server=raw").click()
    page.get_by_role("button", name="echo", exact=True).click()
    expect(page.locator(".chip", has_text="tool = echo")).to_be_visible()


def test_servers_say_what_is_wrong_and_list_their_tools(visitor: Watched) -> None:
    page = go(visitor, "servers")
    expect(page.get_by_role("row", name=re.compile("gone.*failed"))).to_contain_text("not found")
    page.get_by_role("link", name="raw", exact=True).click()
    expect(page.get_by_role("row", name=re.compile("^echo "))).to_be_visible()


def test_alerts_say_what_is_wrong_and_whether_channels_are_reached(visitor: Watched) -> None:
    page = go(visitor, "alerts")
    expect(page.get_by_role("region", name="Firing").get_by_role("row", name=re.compile("gone"))).to_be_visible()
    page.get_by_role("button", name="Send a test").click()
    expect(page.get_by_role("region", name="Channels")).to_contain_text("arrived")


def test_the_cache_shows_what_it_has_saved_and_can_be_cleared(house: Served, visitor: Watched) -> None:
    body = {"model": "fast", "temperature": 0, "messages": [{"role": "user", "content": "the same"}]}
    for _ in range(2):
        assert house.clients[0].post("/v1/chat/completions", json=body, headers=bearer(ADMIN)).status_code == 200
    page = go(visitor, "cache")
    expect(page.locator(".stat", has_text="Exact hits").locator(".stat-value")).to_have_text("1")
    page.get_by_role("button", name="Clear").click()
    confirm(page, "Clear")
    expect(page.locator(".stat", has_text="Entries").locator(".stat-value")).to_have_text("0")


def test_what_takes_long_to_add_up_is_added_up_only_when_asked_for(browser: Browser, tmp_path: Path) -> None:
    url, at = sqlite_url(tmp_path), time.time() - 3600
    made = [entry(f"rq_{number}", at, 0, metadata={"ticket": f"t{number % 3}"}) for number in range(51_000)]
    with ThreadPoolExecutor(1) as pool:  # the browser has an event loop in this thread
        pool.submit(asyncio.run, write_entries(url, made)).result()
    keys = {"admin": {"secret": ADMIN, "grants": {"tools": "*", "admin": True}}}
    sections = {"governance": {"require_key": True, "keys": keys}, "storage": {"url": url}, "sandbox": {"warm": 0}}
    with serving(tmp_path, write_config(tmp_path, {"raw": raw()}, **sections)) as served:
        for watched in signed_in(browser, served, ADMIN):
            page = go(watched, "usage?by=metadata.ticket")
            expect(page.get_by_label("Many entries")).to_contain_text("51,000 single entries")
            watched.check_accessible()
            page.get_by_role("button", name="Add up").click()
            expect(page.get_by_role("row", name=re.compile("^t1 "))).to_be_visible()
            page = go(watched, "usage?by=key")
            expect(page.get_by_role("row", name=re.compile("vk_1"))).to_be_visible()


# --- forms


def test_a_key_is_made_changed_rotated_and_revoked(house: Served, visitor: Watched) -> None:
    page = go(visitor, "keys")
    page.get_by_role("button", name="New key").click()
    visitor.check_accessible()
    form = dialog(page)
    form.get_by_label("Name", exact=True).fill("from the page")
    form.get_by_label("Team", exact=True).fill("search")
    form.get_by_label("Tools", exact=True).fill("raw.echo raw.add")
    form.get_by_label("US dollars").fill("2.5")
    form.get_by_label("per", exact=True).fill("1d")
    form.get_by_label("At once").fill("3")
    form.get_by_role("button", name="Make the key").click()
    secret = form.get_by_label("Secret", exact=True).inner_text()
    assert house.call("raw__echo", {"text": "x"}, key=secret).ok
    form.get_by_role("button", name="Done").click()
    page.get_by_role("link", name="from the page").click()
    expect(page.get_by_text("$0.50 of $2.50")).to_be_visible()
    page.get_by_role("button", name="Change").click()
    dialog(page).get_by_label("Tools", exact=True).fill("raw.add")
    dialog(page).get_by_role("button", name="Save").click()
    expect(dialog(page)).to_have_count(0)
    assert house.call("raw__add", {"a": 1, "b": 1}, key=secret).ok
    page.get_by_role("button", name="New secret").click()
    dialog(page).get_by_label("The old secret").fill("0")
    dialog(page).get_by_role("button", name="Make a new secret").click()
    newer = dialog(page).get_by_label("Secret", exact=True).inner_text()
    assert newer != secret and house.call("raw__add", {"a": 1, "b": 1}, key=newer).ok
    dialog(page).get_by_role("button", name="Done").click()
    page.get_by_role("button", name="Reset limits").click()
    confirm(page, "Reset")
    page.get_by_role("button", name="Revoke").click()
    confirm(page, "Revoke")
    expect(page.locator(".badge", has_text="revoked")).to_be_visible()
    assert house.call("raw__add", {"a": 1, "b": 1}, key=newer).response.status_code == 401


@pytest.mark.parametrize(("name", "kind"), [("customers", "customer"), ("teams", "team"), ("users", "user")])
def test_customers_teams_and_users_are_made_changed_and_removed(visitor: Watched, name: str, kind: str) -> None:
    page = go(visitor, f"keys/{name}")
    page.get_by_role("button", name=f"New {kind}").click()
    dialog(page).get_by_label("Id").fill(f"made-{kind}")
    dialog(page).get_by_label("US dollars").fill("7")
    dialog(page).get_by_label("per", exact=True).fill("1M")
    dialog(page).get_by_role("button", name="Save").click()
    row = page.get_by_role("row", name=re.compile(f"made-{kind}"))
    expect(row).to_contain_text("$7.00 a month")
    row.get_by_role("button", name="Change").click()
    dialog(page).get_by_label("US dollars").fill("8")
    dialog(page).get_by_role("button", name="Save").click()
    expect(row).to_contain_text("$8.00 a month")
    row.get_by_role("button", name="Remove").click()
    confirm(page, "Remove")
    expect(row).to_have_count(0)


def test_a_mistake_in_a_form_is_explained_where_it_was_made(visitor: Watched) -> None:
    visitor.expected = ("/api/budgets/",)
    page = go(visitor, "limits/budgets")
    page.get_by_role("button", name="New budget").click()
    dialog(page).get_by_label("Id").fill("wrong")
    dialog(page).get_by_label("US dollars").fill("1")
    dialog(page).get_by_label("per", exact=True).fill("soon")
    dialog(page).get_by_role("button", name="Save").click()
    expect(dialog(page).get_by_role("alert")).to_contain_text("period")
    page.keyboard.press("Escape")
    expect(dialog(page)).to_have_count(0)


def test_rules_are_made_and_show_what_is_left_of_them(house: Served, visitor: Watched) -> None:
    page = go(visitor, "limits/budgets")
    page.get_by_role("button", name="New budget").click()
    form = dialog(page)
    form.get_by_label("Id").fill("each-key")
    form.get_by_label("Who has it").select_option("key")
    form.get_by_label("When").fill("key = admin other-*")
    form.get_by_label("US dollars").fill("0.5")
    form.get_by_label("per", exact=True).fill("1d")
    form.get_by_role("button", name="Save").click()
    expect(page.get_by_role("row", name=re.compile("each-key"))).to_contain_text("key = admin | other-*")
    assert house.call("raw__echo", {"text": "spend it all"}).ok
    page = go(visitor, "limits?hit=1")
    row = page.get_by_role("row", name=re.compile("each-key · admin"))
    expect(row).to_contain_text("used up")
    row.get_by_role("button", name="Reset").click()
    confirm(page, "Reset")
    expect(row).to_have_count(0)
    go(visitor, "limits/budgets")
    page.get_by_role("row", name=re.compile("each-key")).get_by_role("button", name="Change").click()
    dialog(page).get_by_label("For a while").fill("7.5")
    dialog(page).get_by_role("button", name="Save").click()
    expect(dialog(page).get_by_role("alert")).to_contain_text("needs both an amount and a time")
    dialog(page).get_by_label("until", exact=True).fill("2099-12-31T23:00")
    dialog(page).get_by_role("button", name="Save").click()
    expect(page.get_by_role("row", name=re.compile("each-key"))).to_contain_text("$7.50 until")
    (limit,) = [one for one in house.admin("GET", "limits?kind=budget").json()["limits"] if one["of"] == "each-key"]
    assert limit["limit"] == "7.5"
    page.get_by_role("row", name=re.compile("each-key")).get_by_role("button", name="Remove").click()
    confirm(page, "Remove")
    go(visitor, "limits/rate-limits")
    page.get_by_role("button", name="New rate limit").click()
    dialog(page).get_by_label("Id").fill("slow")
    dialog(page).get_by_label("Requests").fill("1000")
    dialog(page).get_by_label("in", exact=True).fill("1m")
    dialog(page).get_by_role("button", name="Save").click()
    row = page.get_by_role("row", name=re.compile("slow"))
    expect(row).to_contain_text("1,000 requests a minute")
    row.get_by_role("button", name="Remove").click()
    confirm(page, "Remove")


def test_tools_are_found_and_code_and_models_run_as_the_visitor(visitor: Watched) -> None:
    page = go(visitor, "try/tools")
    page.get_by_label("What is to be done").fill("add two numbers")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("region", name="Tools found")).to_contain_text("raw.add")
    page.get_by_label("Tools", exact=True).fill("raw.add")
    page.get_by_role("button", name="Describe").click()
    expect(page.get_by_role("region", name="Stubs")).to_contain_text("def add")
    go(visitor, "try/code")
    page.get_by_label("Code").fill("raw.add(a=20, b=22)")
    page.get_by_label("Code").press("Control+Enter")
    expect(page.get_by_role("region", name="Answer")).to_contain_text("42")
    go(visitor, "try/chat")
    page.get_by_label("Model", exact=True).fill("fast")
    page.get_by_label("Message").fill("say this")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".turn.assistant")).to_contain_text("say this")
    go(visitor, "models")
    page.get_by_label("Model", exact=True).fill("fast")
    page.get_by_role("button", name="Explain").click()
    expect(page.get_by_text("echo/llama", exact=True).last).to_be_visible()


def test_changes_are_shown_without_secrets(house: Served, visitor: Watched) -> None:
    house.new_key(id="noted")
    page = go(visitor, "changes")
    expect(page.get_by_role("row", name=re.compile("noted")).first).to_contain_text("create")
    assert "mg-" not in page.locator("main").inner_text()


# --- a team's administrator


def test_an_administrator_of_a_team_sees_the_team_and_cannot_change_anything(lead: Watched) -> None:
    page = lead.page
    expect(page.get_by_text("Sees the team search")).to_be_visible()
    assert page.get_by_role("link", name="Changes").count() == 0
    for place in (
        "usage?by=team",
        "requests",
        "executions",
        "keys",
        "keys/teams",
        "limits",
        "limits/budgets",
        "servers",
        "models",
        "try/tools",
    ):
        go(lead, place)
        expect(page.get_by_role("alert")).to_have_count(0)
        assert page.get_by_role("button", name=re.compile("^(New|Change|Remove|Reset|Revoke)")).count() == 0
    go(lead, "usage?by=team")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody tr")).to_contain_text("search")
