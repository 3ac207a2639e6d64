"""A real Chromium for tests of pages: Debian's package, or what $CHROMIUM names, driven by Playwright. Where there is
none, tests skip with a reason, and fail in CI."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Response, sync_playwright

from tests.conftest import IN_CI

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")


def find_chromium() -> str:
    """Skips the test where there is none; fails in CI."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        reason = "no Chromium: apt-get install chromium, or name one in $CHROMIUM"
        pytest.fail(reason) if IN_CI else pytest.skip(reason)
    return found


@contextmanager
def chromium() -> Iterator[Browser]:
    path = find_chromium()
    with sync_playwright() as playwright:
        # Chromium's own sandbox needs what containers and root do not have.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page, with everything that went wrong in it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.wrong: list[str] = []
        """Errors of the console, exceptions, answers that were refused, and addresses elsewhere."""
        self.expected: tuple[str, ...] = ()
        """Parts of what may go wrong."""
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.wrong.append(f"exception: {error}"))
        page.on("response", self._answered)
        page.set_default_timeout(10_000)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"console: {message.text} {message.location.get('url')}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self.wrong.append(f"{response.status} {response.url}")

    def check(self) -> None:
        """Nothing has gone wrong."""
        assert [text for text in self.wrong if not any(part in text for part in self.expected)] == []
        self.wrong.clear()

    def check_accessible(self, *rules: str) -> None:
        """axe has no serious findings; by these rules, or by all."""
        if not self.page.evaluate("typeof window.axe === 'object'"):
            self.page.evaluate(AXE.read_text(encoding="utf-8") + "\n;0")
        options: dict[str, Any] = {"resultTypes": ["violations"], **({"runOnly": list(rules)} if rules else {})}
        found: dict[str, Any] = self.page.evaluate("options => axe.run(document, options)", options)
        serious = [
            f"{one['id']}: {one['help']}: {[node['html'][:200] for node in one['nodes'][:3]]}"
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
        ]
        assert serious == []
