"""A real authorization server: oidc-provider from npm, which is certified by the OpenID Foundation, below the benchmarks'
cache folder. And a person who signs in there with a browser.

    python -m tests.oidc.provider
"""

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from urllib.parse import urljoin

import httpx2

from benchmarks import servers
from benchmarks.servers import Server

_PACKAGE = Server("oidc-provider", "oidc-provider@9.13.3", "lib/index.js")
_PROGRAM = Path(__file__).with_name("provider.mjs")
_MOST_STEPS = 20


def is_installed() -> bool:
    return servers.is_installed(_PACKAGE)


@contextmanager
def provider(log: Path) -> Iterator[str]:
    """Its issuer."""
    library = servers.home_of(_PACKAGE) / "node_modules" / "oidc-provider" / _PACKAGE.program
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            ["node", str(_PROGRAM), str(library)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            issuer = process.stdout.readline().decode().strip()
            assert issuer, log.read_text()
            yield issuer
        finally:
            process.stdin.close()
            process.wait(20)
            process.stdout.close()


def sign_in(address: str, person: str, back_to: str) -> httpx2.URL:
    """What a person does in a browser: signs in, agrees, and is sent back. The address that they are sent to."""
    with httpx2.Client(timeout=20) as browser:
        response = browser.get(address)
        for _ in range(_MOST_STEPS):
            if location := response.headers.get("location"):
                target = urljoin(str(response.url), location)
                if target.startswith(back_to):
                    return httpx2.URL(target)
                response = browser.get(target)
                continue
            form = re.search(r'<form[^>]* action="([^"]+)"', response.text)
            assert form is not None, response.text
            hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', response.text))
            given = {"login": person, "password": "secret"} if hidden.get("prompt") == "login" else {}
            response = browser.post(urljoin(str(response.url), unescape(form[1])), data={**hidden, **given})
    raise AssertionError("the provider's pages lead nowhere")


if __name__ == "__main__":
    started = time.monotonic()
    servers.install(_PACKAGE)
    print(f"{'oidc-provider':20} {time.monotonic() - started:6.1f} s  {_PACKAGE.package}")
