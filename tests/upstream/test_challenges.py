"""What refusals ask for, as servers write it."""

import pytest

from mcpgate.config.upstreams import UpstreamConfig
from mcpgate.upstream.challenges import Challenge, login_command, parse_challenge, remedy, scopes

PLACE = "https://x.example/.well-known/oauth-protected-resource"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", Challenge(401)),
        ("Bearer", Challenge(401, bearer=True)),
        ('Basic realm="x"', Challenge(401)),
        (
            f'Bearer realm="a, b", resource_metadata="{PLACE}", scope="a b"',
            Challenge(401, True, "", "a b", PLACE),
        ),
        (f"bearer resource_metadata={PLACE}, error=invalid_token", Challenge(401, True, "invalid_token", "", PLACE)),
        ('Basic realm="x", Bearer error="invalid_token"', Challenge(401, True, "invalid_token")),
        ('Bearer error="insufficient_scope", Basic scope="no"', Challenge(401, True, "insufficient_scope")),
        (r'Bearer error="say \"no\""', Challenge(401, True, 'say "no"')),
        ('Bearer scope="a  \tb a"', Challenge(401, True, "", "a b")),
        ('Bearer scope="' + "x" * 9000 + '"', Challenge(401, True)),
    ],
)
def test_a_challenge_is_read(header: str, expected: Challenge) -> None:
    assert parse_challenge(401, header) == expected


def test_a_header_made_to_be_slow_is_read_at_once() -> None:
    for header in ("Bearer " + 'a="\\' * 100_000, "a " * 100_000, "Bearer a=" * 100_000, " = " * 100_000):
        parse_challenge(401, header)


def test_scopes_are_joined_each_once_and_odd_ones_left_out() -> None:
    assert scopes("a b", "b c", None, 'd"', "é") == "a b c"
    assert len(scopes(" ".join(f"s{n}" for n in range(1000))).split()) == 100


def test_a_command_can_be_pasted_into_a_shell() -> None:
    assert login_command("linear") == "mcpgate auth login linear"
    assert login_command("my server; rm") == "mcpgate auth login 'my server; rm'"
    assert login_command("linear", "ci\nada") == "mcpgate auth login linear --user ci/ada"


def config(**entry: object) -> UpstreamConfig:
    return UpstreamConfig.model_validate({"url": "https://x.example/mcp", **entry})


@pytest.mark.parametrize(
    ("entry", "challenge", "words"),
    [
        ({}, Challenge(401, True), "sign in: mcpgate auth login x"),
        ({}, Challenge(401), "sign in: mcpgate auth login x; or set headers.Authorization of mcpServers.x"),
        ({}, Challenge(403), "the server refuses the gateway; set headers of mcpServers.x, or sign in: mcpgate"),
        ({"auth": "oauth"}, Challenge(401), "sign in: mcpgate auth login x"),
        ({"auth": "oauth"}, Challenge(403, True, "insufficient_scope", "a b"), "grant more rights (scopes: a b): mcp"),
        (
            {"headers": {"authorization": "Bearer x"}},
            Challenge(401, True),
            "check headers.Authorization of mcpServers.x",
        ),
        (
            {"headers": {"Authorization": "Bearer x"}},
            Challenge(403, True, "insufficient_scope", "a"),
            "the credentials in headers.Authorization of mcpServers.x do not allow this (it wants the scopes a)",
        ),
        (
            {"auth": {"type": "client_credentials", "client_id": "c", "client_secret": "s"}},
            Challenge(401, True),
            "the server does not accept the client of mcpServers.x.auth",
        ),
    ],
)
def test_a_refusal_says_what_to_do(entry: dict[str, object], challenge: Challenge, words: str) -> None:
    assert remedy("x", config(**entry), challenge, False, "mcpgate auth login x").startswith(words)
