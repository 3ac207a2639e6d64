"""`mcpgate auth`, as a person uses it: with a browser, without one, with a code."""

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.upstream.sign_in_server import SignInServer, sign_in_server

BROWSER = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1]).read()"


@pytest.fixture
def server() -> Iterator[SignInServer]:
    with sign_in_server() as started:
        yield started


class Home:
    """A person's machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "browser.py").write_text(BROWSER)

    def configure(self, **servers: Any) -> None:
        (self.folder / "mcpgate.yaml").write_text(yaml.safe_dump({"mcpServers": servers}))

    def start(self, *arguments: str, browser: bool = True) -> subprocess.Popen[str]:
        command = f"{sys.executable} {self.folder / 'browser.py'} %s" if browser else "false"
        return subprocess.Popen(
            [sys.executable, "-m", "mcpgate", *arguments, "-c", str(self.folder / "mcpgate.yaml")],
            env={**os.environ, "XDG_DATA_HOME": str(self.folder / "data"), "BROWSER": command},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(stdin, timeout=60)
        return process.returncode, out, err


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_a_browser_signs_in_and_check_list_and_logout_say_so(home: Home, server: SignInServer) -> None:
    home.configure(linear=server.entry(), other=server.entry(auth="oauth"))
    code, out, _ = home.run("auth", "login", "linear")
    assert (code, out) == (0, "signed in to linear (scopes: mcp:read)\n")
    report = json.loads(home.run("check", "--format", "json")[1])["servers"]
    assert [(row["server"], row["ok"], row["tools"]) for row in report] == [("linear", True, 3), ("other", False, 0)]
    assert report[1]["error"] == "sign in: mcpgate auth login other (HTTP 401 Unauthorized: no)"
    signed_in, not_yet = json.loads(home.run("auth", "list", "--format", "json")[1])["sign_ins"]
    assert (signed_in["server"], signed_in["state"]) == ("linear", "signed in; renews itself")
    assert (signed_in["scopes"], signed_in["issuer"]) == ("mcp:read", server.auth)
    assert (not_yet["server"], not_yet["state"]) == ("other", "not signed in")
    assert home.run("auth", "logout", "linear")[:2] == (0, "signed out of linear\n")
    assert (server.tokens, server.refresh_tokens) == ({}, {})
    code, _, err = home.run("auth", "logout", "linear")
    assert code == 1 and "nobody is signed in to 'linear'" in err


def test_a_second_sign_in_needs_no_second_registration(home: Home, server: SignInServer) -> None:
    home.configure(linear=server.entry())
    assert [home.run("auth", "login", "linear")[0] for _ in range(2)] == [0, 0]
    assert server.count("/register") == 1


def test_without_a_browser_the_pasted_address_signs_in(home: Home, server: SignInServer) -> None:
    home.configure(linear=server.entry())
    process = home.start("auth", "login", "linear", "--no-browser", browser=False)
    assert process.stdout is not None
    while not (line := process.stdout.readline()).startswith("http"):
        assert line, "it ended"
    # On another machine: its browser cannot reach the address that it is sent to.
    opener = urllib.request.build_opener(NoRedirect)
    with opener.open(line.strip()) as page:
        address = page.headers["location"]
    out, err = process.communicate(f"\n  {address} \n", timeout=30)
    assert process.returncode == 0 and out.endswith("signed in to linear (scopes: mcp:read)\n"), err


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        return fp


def test_an_address_pasted_of_another_sign_in_is_refused(home: Home, server: SignInServer) -> None:
    home.configure(linear=server.entry())
    code, _, err = home.run(
        "auth", "login", "linear", "--no-browser", stdin="http://127.0.0.1/callback?code=x&state=y\n"
    )
    assert code == 1 and "belongs to another sign-in" in err
    assert server.count("/token") == 0


def test_who_knows_only_the_port_cannot_answer_for_the_browser(home: Home, server: SignInServer) -> None:
    home.configure(linear=server.entry())
    process = home.start("auth", "login", "linear", "--no-browser", browser=False)
    assert process.stdout is not None
    while not (line := process.stdout.readline()).startswith("http"):
        assert line, "it ended"
    query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(line.strip()).query))
    for path in ("/callback?code=x&state=y", "/callback", "/?code=x", "/callback?error=access_denied"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(query["redirect_uri"].replace("/callback", path))
    urllib.request.urlopen(line.strip()).read()
    assert process.wait(30) == 0
    process.communicate()


def test_a_code_signs_in_on_a_machine_without_any_browser(home: Home, server: SignInServer) -> None:
    home.configure(linear=server.entry())
    process = home.start("auth", "login", "linear", "--device", browser=False)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert f"{server.auth}/enter" in line and "ABCD-EFGH" in line
    urllib.request.urlopen(f"{server.auth}/enter").read()
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0 and out == "signed in to linear (scopes: mcp:read)\n", err


def test_a_registered_client_is_answered_at_its_own_port(home: Home, server: SignInServer) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://localhost:{port}/callback"
    server.clients["ours"] = {"method": "none", "uris": [uri], "secret": ""}
    home.configure(linear=server.entry(oauth={"clientId": "ours", "callbackPort": port}))
    assert home.run("auth", "login", "linear")[0] == 0
    assert server.count("/register") == 0 and server.count("/authorize", redirect_uri=uri) == 1


def test_a_person_who_declines_hears_that_and_the_page_says_so(home: Home, server: SignInServer) -> None:
    def decline(exchange: Any) -> bool:
        if exchange.way == "/authorize":
            query = urllib.parse.urlencode(
                {"error": "access_denied", "state": exchange.fields["state"], "iss": server.auth}
            )
            exchange.reply(302, location=f"{exchange.fields['redirect_uri']}?{query}")
        return bool(exchange.way == "/authorize")

    server.hook = decline
    home.configure(linear=server.entry())
    code, _, err = home.run("auth", "login", "linear")
    assert code == 1 and "the sign-in was refused: access_denied" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["login", "nowhere"], "there is no server 'nowhere' in the configuration"),
        (["login", "program"], "is a local program, which needs no sign-in"),
        (["login", "fixed"], "has an Authorization header"),
        (["login", "linear", "--user", "ci"], "--user needs `auth: {per: user}`"),
        (["login", "away"], "cannot connect to"),
    ],
)
def test_what_cannot_be_signed_in_to_is_explained(
    home: Home, server: SignInServer, arguments: list[str], words: str
) -> None:
    home.configure(
        linear=server.entry(),
        program={"command": "true"},
        fixed=server.entry(headers={"Authorization": "Bearer x"}),
        away={"url": "http://127.0.0.1:1/mcp"},
    )
    code, _, err = home.run("auth", *arguments)
    assert code in (1, 2) and words in err


def test_a_server_that_lets_everybody_in_needs_no_sign_in(home: Home, server: SignInServer) -> None:
    issued = server.issue("anybody", "mcp:read", server.url)["access_token"]

    def open_door(exchange: Any) -> bool:
        if exchange.port == "mcp" and "authorization" not in exchange.headers:
            exchange._mcp(exchange.fields, issued)
            return True
        return False

    server.hook = open_door
    home.configure(linear=server.entry())
    assert home.run("auth", "login", "linear")[:2] == (0, "linear needs no sign-in\n")


def test_tokens_are_encrypted_on_disk_with_the_key_of_the_environment(
    home: Home, server: SignInServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.configure(linear=server.entry())
    monkeypatch.setenv("MCPGATE_TOKEN_KEY", "q" * 43 + "=")
    assert home.run("auth", "login", "linear")[0] == 0
    content = b"".join(path.read_bytes() for path in (home.folder / "data").rglob("*") if path.is_file())
    assert server.issued and not any(secret.encode() in content for secret in server.secrets())
    assert home.run("tools", "whoami")[0] == 0
    monkeypatch.delenv("MCPGATE_TOKEN_KEY")
    assert "set MCPGATE_TOKEN_KEY" in home.run("auth", "list")[2]
